"""Losses whose meaning is found numerically: sums of losses, and users' own."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kullback.errors import InputError
from kullback.kernels.reference.softmax import softmax_odds
from kullback.losses import base
from kullback.losses.base import Array, Batch, Float, Loss
from kullback.losses.generic import best_class_logits, best_label_constant, best_label_logits, true_classes, true_labels
from kullback.losses.reduction import Denominator, Empty, Reduction
from kullback.losses.sigmoid_loss import as_label_probabilities
from kullback.targets import (
    ClassIndices,
    ClassMixture,
    ClassRows,
    LabelRows,
    Targets,
    as_class_targets,
    as_label_targets,
)


class SolvedLoss(Loss):
    """A loss on logits, linear in its targets, that supplies values and gradients; the rest is solved for.

    `floor`, `best_constant`, `elicited` and `recover` run a minimiser or a linear solver per row, to about 1e-8:
    right, but not fast. A loss that knows better overrides them.
    """

    @property
    def _counts_index(self) -> int | None:
        """The class index of rows that do not count."""
        return getattr(self, "ignore_index", None)

    def initial_value(self, n_classes: int) -> float:
        """Mean loss of equal logits, where classes are equally frequent or labels hold half the time, in nats."""
        n_classes = base.check_class_number(n_classes)
        if self.target_form == "labels":
            return float(self(np.zeros((1, n_classes)), LabelRows(np.full((1, n_classes), 0.5))))
        return float(self(np.zeros((1, n_classes)), ClassRows(np.full((1, n_classes), 1 / n_classes))))

    def floor(
        self,
        targets: ArrayLike | Targets,
        *,
        n_classes: int | None = None,
        sample_weight: ArrayLike | None = None,
        reduction: Reduction = "mean",
        denominator: Denominator = "weights",
        empty: Empty = "error",
    ) -> float | Float:
        """The lowest loss any logits could reach on these targets, in nats, found by a minimiser per distinct row.

        For a loss that is not convex it is the lowest that the minimiser finds. Arguments as for other losses.
        """
        wrapped = self._targets(targets)
        n_classes = base.infer_n_classes(wrapped, n_classes)
        batch = Batch(self, (len(wrapped), n_classes), wrapped, sample_weight, reduction, denominator, empty)
        counted = np.flatnonzero(base.checked_rows(wrapped, n_classes, batch.row_weight, self._counts_index))
        losses = np.zeros(len(wrapped))
        if isinstance(wrapped, ClassIndices):
            present, which = np.unique(wrapped.indices[counted], return_inverse=True)
            lowest = [self._lowest(np.eye(1, n_classes, int(k))) for k in present]
            losses[counted] = np.asarray(lowest)[which] if len(counted) else 0.0
        elif isinstance(wrapped, LabelRows):
            for rows in np.array_split(counted, 1 + len(counted) * n_classes // base.BLOCK_ELEMENTS):
                part = wrapped[rows]
                best = best_label_logits(self, np.asarray(part.rows, dtype=np.float64))
                losses[rows] = self(best, part, reduction="none")
        else:
            for i in counted:
                losses[i] = self._lowest(np.asarray(wrapped[i : i + 1].dense(n_classes), dtype=np.float64))
        if batch.row_weight is not None:
            losses *= batch.row_weight
        return losses if reduction == "none" else batch.value(float(losses.sum()))

    def _lowest(self, row: Float) -> float:
        """The lowest loss of one row of class mass (1, C)."""
        if not row.any():
            return 0.0
        return float(self(best_class_logits(self, row[0])[None, :], ClassRows(row), reduction="sum"))

    def best_constant(
        self, targets: ArrayLike | Targets, *, n_classes: int | None = None, sample_weight: ArrayLike | None = None
    ) -> Float:
        """Logits (C,) of the best model without features, found by a minimiser.

        Raises:
            InputError: if no row counts, or `n_classes` is needed.
        """
        wrapped = self._targets(targets)
        n_classes = base.infer_n_classes(wrapped, n_classes)
        batch = Batch(self, (len(wrapped), n_classes), wrapped, sample_weight, "sum")
        counted = base.checked_rows(wrapped, n_classes, batch.row_weight, self._counts_index)
        weight = np.ones(len(wrapped)) if batch.row_weight is None else batch.row_weight
        total = float(weight[counted].sum())
        if total == 0:
            raise InputError("no row counts, so there is no best constant")
        if isinstance(wrapped, LabelRows):
            if self._counts_index is not None and (wrapped.rows == self._counts_index).any():
                return best_label_constant(self, wrapped, sample_weight)
            mean = np.asarray(weight[counted] @ wrapped.rows[counted] / total, dtype=np.float64)
            return np.asarray(best_label_logits(self, mean[None, :])[0])
        mass = wrapped[counted].class_mass(n_classes, weight[counted])
        if not mass.any():
            raise InputError("no row counts, so there is no best constant")
        return best_class_logits(self, mass / mass.sum())

    def elicited(self, p: ArrayLike) -> Float:
        """What the loss' minimiser reports when the truth is `p`, (C,) or (N, C), found by a minimiser."""
        if self.target_form == "labels":
            labels = as_label_probabilities(p, "p")
            reported = self.probabilities(best_label_logits(self, np.atleast_2d(labels)))
            return np.asarray(reported, dtype=np.float64).reshape(labels.shape)
        truth = base.as_distribution(p, "p")
        rows = np.atleast_2d(truth)
        z = np.array([best_class_logits(self, row) for row in rows]).reshape(rows.shape)
        return np.asarray(self.probabilities(z), dtype=np.float64).reshape(truth.shape)

    def recover(self, q: ArrayLike) -> Float:
        """The truth under which a reported `q` is where the expected loss stands still, (C,) or (N, C)."""
        if self.target_form == "labels":
            reported = as_label_probabilities(q, "q")
            inside = np.clip(np.atleast_2d(reported), 1e-300, 1 - 1e-16)
            return true_labels(self, self._scores(np.log(inside) - np.log1p(-inside))).reshape(reported.shape)
        reported = base.as_distribution(q, "q")
        with np.errstate(divide="ignore"):
            return true_classes(self, self._scores(np.log(np.atleast_2d(reported)))).reshape(reported.shape)

    def recover_log(self, log_q: ArrayLike) -> Float:
        """`recover` on log-probabilities, (N, C)."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.recover(np.exp(np.asarray(log_q, dtype=np.float64)))))

    def _scores(self, scores: Float) -> Float:
        """Logits whose link gives these log-probabilities or log-odds."""
        return scores

    def probabilities(self, logits: ArrayLike) -> Array:
        """The link applied to the logits, (N, C)."""
        return np.asarray(np.exp(self.log_probabilities(logits)))

    def log_probabilities(self, logits: ArrayLike) -> Array:
        """The logarithm of `probabilities`, (N, C)."""
        array = base.as_logits(logits)
        z = array.astype(np.float64)
        log_p = -np.logaddexp(0.0, -z) if self.target_form == "labels" else softmax_odds(z).odds.log_p
        return log_p.astype(array.dtype)

    def decide(self, logits: ArrayLike) -> NDArray[np.int64]:
        """The class with the largest logit, (N,), or 1 where a label's logit is above 0, (N, C)."""
        array = base.as_logits(logits)
        return (array > 0).astype(np.int64) if self.target_form == "labels" else np.asarray(np.argmax(array, axis=1))

    def _targets(self, targets: ArrayLike | Targets) -> ClassIndices | ClassRows | ClassMixture | LabelRows:
        return as_label_targets(targets) if self.target_form == "labels" else as_class_targets(targets)
