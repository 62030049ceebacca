"""Independent labels: sigmoids of the logits, one by one."""

from __future__ import annotations

import numpy as np

from kullback.errors import InputError, TargetError
from kullback.kernels.elements import SIGMOID_FAMILIES, Float, product, sigmoid_odds
from kullback.kernels.recipe import Array, SigmoidRecipe
from kullback.kernels.reference.rows import Bool, CountedRows, counted_weights
from kullback.kernels.reference.targets import label_error
from kullback.targets import LabelRows, counted_rows


class SigmoidRows(CountedRows):
    """Each label's loss and its derivatives in the scaled logit."""

    def __init__(
        self,
        recipe: SigmoidRecipe,
        logits: Array,
        targets: LabelRows,
        row_weight: Array | None,
        ignore_index: int | None,
    ) -> None:
        family = SIGMOID_FAMILIES.get(recipe.family)
        if family is None or family.off is None:
            raise InputError(f"unknown sigmoid family {recipe.family!r}")
        if targets.rows.shape[1] != logits.shape[1]:
            raise TargetError(f"multi-label targets have {targets.rows.shape[1]} columns, the logits {logits.shape[1]}")
        self.counts = counted_rows(targets, row_weight, None)
        self.weight = counted_weights(row_weight, self.counts)
        t = np.asarray(targets.rows, dtype=np.float64)[self.counts]
        ignored: Bool = np.zeros(t.shape, dtype=bool) if ignore_index is None else np.asarray(t == ignore_index)
        bad = np.asarray(~((t >= 0) & (t <= 1)) & ~ignored)
        if bad.any():
            inner, column = (int(i) for i in np.argwhere(bad)[0])
            raise label_error(int(np.flatnonzero(self.counts)[inner]), column, t[inner, column])
        z = np.asarray(logits, dtype=np.float64)[self.counts] / recipe.temperature
        self.temperature = recipe.temperature
        z = np.where(ignored, 0.0, z)
        self.spoilt: Bool = np.isnan(z)
        t = (1 - recipe.smoothing) * t + recipe.smoothing / 2
        weight = 1.0 if recipe.class_weight is None else recipe.class_weight
        positive = 1.0 if recipe.positive_weight is None else recipe.positive_weight
        on_mass = np.where(ignored, 0.0, weight * positive * t)
        off_mass = np.where(ignored, 0.0, weight * (1 - t))
        odds = sigmoid_odds(z)
        on, off = family.on(odds, recipe.parameters, None), family.off(odds, recipe.parameters, None)
        # 0·inf is 0: a label that is certainly absent may have logit −inf
        self.value = product(on_mass, on.value) + product(off_mass, off.value)
        self.first = on_mass * on.first + off_mass * off.first
        self.second = on_mass * on.second + off_mass * off.second

    def losses(self) -> Float:
        """(n,), a row's labels summed."""
        return np.asarray(np.where(self.spoilt, np.nan, self.value).sum(axis=1))

    def gradient(self) -> Float:
        """(n, C)."""
        return np.asarray(self.first / self.temperature)

    def hessian_product(self, v: Float) -> Float:
        """(n, C): the Hessian is diagonal."""
        return np.asarray(self.second * v / self.temperature**2)

    def hessian_diagonal(self) -> Float:
        """(n, C)."""
        return np.asarray(self.second / self.temperature**2)


def sigmoid_probabilities(logits: Array, *, temperature: float = 1.0, log: bool = False, out: Array) -> None:
    """Write sigmoid(logits / temperature), or its logarithm, into `out` (N, C)."""
    odds = sigmoid_odds(np.asarray(logits, dtype=np.float64) / temperature)
    out[...] = odds.log_p if log else odds.p
