"""The curvature of one example's loss in its logits, for the losses whose form is known.

- ``"coupled"``: c·(diag p − p·pᵀ), cross-entropy and all that differs from it by a shift of the logits, by weights or
  by a constant;
- ``"separate"``: a diagonal, one number per label or class. For a loss over classes that is not cross-entropy it is
  the diagonal alone, which suits a preconditioner and nothing else.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kullback.losses import BalancedSoftmax, BinaryCrossEntropy, CrossEntropy, Deviance, KullbackLeibler, Loss
from kullback.targets import ClassIndices, Targets

Array: TypeAlias = NDArray[Any]
Vector: TypeAlias = NDArray[np.float64]
Structure: TypeAlias = Literal["coupled", "separate"]


def structure_of(loss: Loss) -> Structure:
    """The form of the loss's curvature; see the module."""
    if isinstance(loss, CrossEntropy):
        return "coupled" if loss.softcap is None and loss.z_loss == 0 else "separate"
    return "coupled" if isinstance(loss, BalancedSoftmax | Deviance | KullbackLeibler) else "separate"


def has_dual(loss: Loss) -> bool:
    """Whether the loss is linear in its logits but for a log-partition, so that its dual points are known."""
    return structure_of(loss) == "coupled" or isinstance(loss, BinaryCrossEntropy)


def coupled_probabilities(loss: Loss, logits: Array) -> Array:
    """The p (n, C) of a coupled loss's curvature: softmax(logits / T + shift).

    That is not what the loss reports where it shifts the logits by class frequencies. It is read off the gradient of
    rows whose target is class 0, (p − e₀)/T: that kernel takes many rows at once.
    """
    first = ClassIndices(np.zeros(len(logits), dtype=np.int64))
    _, p = _plain(loss).value_and_gradient(logits, first, reduction="sum")
    temperature: float = loss.temperature  # type: ignore[attr-defined]
    if temperature != 1:
        p *= temperature
    p[:, 0] += 1
    return p


def row_scale(loss: Loss, targets: Targets, n_outputs: int, sample_weight: Vector | None) -> Vector:
    """(n,) factors c of c·(diag p − p·pᵀ): sample weight × the row's mass / T². For a coupled loss.

    They are read off the curvature at equal logits, c·Σ p·(1 − p).
    """
    if not isinstance(targets, ClassIndices) or n_outputs > len(targets):
        zero = np.zeros((len(targets), n_outputs))
        diagonal = loss.hessian_diagonal(zero, targets, sample_weight=sample_weight, reduction="sum")
        return np.asarray(diagonal.sum(axis=1) / _spread_at_zero(loss, n_outputs))
    # All rows of a class have the same, but for their weight.
    of_class = _class_scale(loss, n_outputs)
    indices = np.asarray(targets.indices)
    ignored = indices == loss.ignore_index  # type: ignore[attr-defined]
    scale = of_class[np.where(ignored, 0, indices)]
    scale[ignored] = 0.0
    return np.asarray(scale if sample_weight is None else scale * sample_weight)


@lru_cache(maxsize=64)
def _plain(loss: Loss) -> Loss:
    """The loss as it is for a row that counts once."""
    return dataclasses.replace(loss, class_weight=None, label_smoothing=0.0, ignore_index=None)  # type: ignore[type-var]


@lru_cache(maxsize=64)
def _class_scale(loss: Loss, n_outputs: int) -> Vector:
    """(C,) the factor of a row of each class."""
    counted = dataclasses.replace(loss, ignore_index=None)  # type: ignore[type-var]
    every = ClassIndices(np.arange(n_outputs))
    diagonal = counted.hessian_diagonal(np.zeros((n_outputs, n_outputs)), every, reduction="sum")
    return np.asarray(diagonal.sum(axis=1) / _spread_at_zero(loss, n_outputs))


@lru_cache(maxsize=8)
def probabilities_at_zero(loss: Loss, n_outputs: int) -> Vector:
    """The p (C,) of `coupled_probabilities` at equal logits; not to be written to."""
    return np.asarray(coupled_probabilities(loss, np.zeros((1, n_outputs)))[0])


def _spread_at_zero(loss: Loss, n_outputs: int) -> float:
    """Σ p·(1 − p) at equal logits."""
    p = probabilities_at_zero(loss, n_outputs)
    return float((p * (1 - p)).sum())


def summed_curvature(loss: Loss, logits: Array, targets: Targets, sample_weight: Vector | None) -> Array:
    """Σ over rows of the loss's Hessian in the logits (C, C), in the precision of the logits."""
    if structure_of(loss) != "coupled" or logits.shape[1] == 1:
        return intercept_curvature(loss, logits, targets, sample_weight)
    p = coupled_probabilities(loss, logits)
    weighted = p * row_scale(loss, targets, logits.shape[1], sample_weight).astype(p.dtype)[:, None]
    return np.asarray(np.diag(weighted.sum(axis=0)) - weighted.T @ p)


def intercept_curvature(loss: Loss, logits: Array, targets: Targets, sample_weight: Vector | None) -> Array:
    """Σ over rows of the loss's Hessian in the logits (C, C), for a loss that is not coupled."""
    n_outputs = logits.shape[1]
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
