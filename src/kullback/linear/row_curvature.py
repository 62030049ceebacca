"""The curvature of one example's loss in its logits, for the losses whose form is known.

- ``"coupled"``: c·(diag p − p·pᵀ), cross-entropy;
- ``"separate"``: a diagonal, one number per label or class. For a loss over classes that is not cross-entropy it is
  the diagonal alone, which suits a preconditioner and nothing else.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kullback.losses import BinaryCrossEntropy, CrossEntropy, Loss
from kullback.targets import Targets

Array: TypeAlias = NDArray[Any]
Vector: TypeAlias = NDArray[np.float64]
Structure: TypeAlias = Literal["coupled", "separate"]


def structure_of(loss: Loss) -> Structure:
    """The form of the loss's curvature; see the module."""
    if isinstance(loss, CrossEntropy) and loss.softcap is None and loss.z_loss == 0 and loss.priors is None:
        return "coupled"
    return "separate"


def has_dual(loss: Loss) -> bool:
    """Whether the loss is linear in its target and a log-partition else, so that its dual points are known."""
    if isinstance(loss, CrossEntropy):
        return loss.softcap is None and loss.z_loss == 0
    return isinstance(loss, BinaryCrossEntropy)


def row_scale(loss: Loss, targets: Targets, n_outputs: int, sample_weight: Vector | None) -> Vector:
    """(n,) factors c of c·(diag p − p·pᵀ): sample weight × the row's mass / T². For a coupled loss.

    They are read off the curvature at equal logits, c·(1/C)·(1 − 1/C) per class.
    """
    zero = np.zeros((len(targets), n_outputs))
    diagonal = loss.hessian_diagonal(zero, targets, sample_weight=sample_weight, reduction="sum")
    return np.asarray(diagonal.sum(axis=1) / (1.0 - 1.0 / n_outputs))


def intercept_curvature(loss: Loss, logits: Array, targets: Targets, sample_weight: Vector | None) -> Array:
    """Σ over rows of the loss's Hessian in the logits (C, C)."""
    n_outputs = logits.shape[1]
    if structure_of(loss) == "coupled" and n_outputs > 1:
        p = loss.probabilities(logits)
        scale = row_scale(loss, targets, n_outputs, sample_weight).astype(p.dtype)
        weighted = p * scale[:, None]
        return np.asarray(np.diag(weighted.sum(axis=0)) - weighted.T @ p)
    if loss.link == "sigmoid":
        diagonal = loss.hessian_diagonal(logits, targets, sample_weight=sample_weight, reduction="sum")
        return np.diag(diagonal.sum(axis=0))
    total = np.empty((n_outputs, n_outputs))
    direction = np.zeros_like(logits)
    for k in range(n_outputs):
        direction[:, k] = 1.0
        moved = loss.hessian_product(logits, targets, direction, sample_weight=sample_weight, reduction="sum")
        total[:, k] = moved.sum(axis=0)
        direction[:, k] = 0.0
    return total
