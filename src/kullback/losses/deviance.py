"""The K-class deviance that gradient boosting minimises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from kullback.errors import InputError, ShapeError
from kullback.losses import base
from kullback.losses.base import Float
from kullback.losses.softmax_loss import SoftmaxLoss
from kullback.targets import Targets


@dataclass(frozen=True)
class Deviance(SoftmaxLoss):
    """K-class multinomial deviance, −Σ_k y_k·log p_k: cross-entropy, as boosting knows it.

    Value and derivatives are those of `CrossEntropy` (Hastie, Tibshirani & Friedman, "The Elements of Statistical
    Learning", 2nd ed., eq. 10.22). What boosting adds is `leaf_values`: one Newton step a leaf and class, with the
    factor (C − 1)/C that makes up for all C trees of a round moving together.

    Args:
        class_weight: (C,) costs, or None for all ones.
        label_smoothing: ε in [0, 1).
        temperature: T > 0, divides the logits.
        ignore_index: class index of rows that do not count, or None.

    >>> round(Deviance()([[0.0, 0.0]], [0]), 4)
    0.6931
    """

    name: ClassVar[str] = "deviance"
    family: ClassVar[str] = "cross_entropy"
    truthful: ClassVar[bool] = True

    @property
    def convex(self) -> bool:
        """True, as cross-entropy."""
        return True

    def leaf_values(
        self,
        logits: ArrayLike,
        targets: ArrayLike | Targets,
        leaves: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
    ) -> Float:
        """What each leaf of a round's trees adds to the logits: (C − 1)/C·Σ−g / Σh over the leaf's examples.

        Args:
            logits: (N, C) before the round.
            targets: N class targets.
            leaves: (N, C) the leaf that each example falls into in each class' tree, integers from 0.
            sample_weight: (N,) or None.

        Returns:
            (n_leaves, C), 0 for leaves without curvature. Source: Friedman (2001), "Greedy function approximation: a
            gradient boosting machine", algorithm 6.

        Raises:
            ShapeError, InputError: if `leaves` does not fit.

        >>> Deviance().leaf_values([[0.0, 0.0], [0.0, 0.0]], [0, 1], [[0, 1], [1, 0]])
        array([[ 1.,  1.],
               [-1., -1.]])
        """
        array, index = base.as_logits(logits), np.asarray(leaves)
        if index.shape != array.shape:
            raise ShapeError(f"leaves have shape {index.shape}, the logits {array.shape}; they must match")
        if index.dtype.kind not in "iu" or (index.size and index.min() < 0):
            raise InputError("leaves are integers from 0, one for each example and class")
        _, gradient = self.value_and_gradient(array, targets, sample_weight=sample_weight, reduction="sum")
        curvature = self.hessian_diagonal(array, targets, sample_weight=sample_weight, reduction="sum")
        n_classes = array.shape[1]
        values = np.zeros((int(index.max(initial=-1)) + 1, n_classes))
        for k in range(n_classes):
            pull = np.bincount(index[:, k], -gradient[:, k], len(values))
            bend = np.bincount(index[:, k], curvature[:, k], len(values))
            values[:, k] = np.divide(pull, bend, out=np.zeros_like(pull), where=bend > 0)
        return np.asarray((n_classes - 1) / n_classes * values)
