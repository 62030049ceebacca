"""Hinges on the differences of logits."""

from __future__ import annotations

import numpy as np

from kullback.errors import InputError
from kullback.kernels.elements import Float
from kullback.kernels.recipe import Array, MarginRecipe
from kullback.kernels.reference import sorted_hinges
from kullback.kernels.reference.rows import Bool, CountedRows, counted_weights
from kullback.kernels.reference.sorted_hinges import SortedHinges
from kullback.kernels.reference.targets import check_range
from kullback.targets import ClassTargets, counted_rows


class MarginRows(CountedRows):
    """One entry per counted row and class with mass: its hinges h(Δ + z_k − z_y) and their derivatives in z_k.

    Rows with mass on many classes have none and are in `sorted`, by their number.
    """

    def __init__(
        self,
        recipe: MarginRecipe,
        logits: Array,
        targets: ClassTargets,
        row_weight: Array | None,
        ignore_index: int | None,
    ) -> None:
        if recipe.family not in ("weston_watkins", "crammer_singer"):
            raise InputError(f"unknown margin family {recipe.family!r}")
        n_classes = logits.shape[1]
        self.counts = counted_rows(targets, row_weight, ignore_index)
        check_range(targets, n_classes, self.counts)
        self.weight = counted_weights(row_weight, self.counts)
        z = np.asarray(logits, dtype=np.float64)[self.counts]
        self.spoilt: Bool = np.asarray((np.isnan(z) | np.isposinf(z)).any(axis=1, keepdims=True))
        mass = targets[self.counts].dense(n_classes)
        if recipe.class_weight is not None:
            mass = mass * recipe.class_weight
        self.sorted: dict[int, SortedHinges] = {}
        if recipe.family == "weston_watkins":
            many = (np.count_nonzero(mass, axis=1) >= sorted_hinges.MANY) & ~self.spoilt[:, 0]
            self.sorted = {
                int(i): SortedHinges(z[i], mass[i], recipe.margin, recipe.power) for i in np.flatnonzero(many)
            }
            mass = np.where(many[:, None], 0.0, mass)
        self.row, self.true = np.nonzero(mass)
        self.mass = mass[self.row, self.true]
        pair = np.arange(len(self.row))
        z = z[self.row]
        with np.errstate(invalid="ignore"):  # −inf against −inf: masked rivals are no rivals
            excess = np.where(np.isneginf(z), -np.inf, recipe.margin + z - z[pair, self.true][:, None])
        excess[pair, self.true] = -np.inf
        active = excess > 0
        if recipe.family == "crammer_singer" and n_classes:
            # by their scores: rivals closer to each other than the hinges' rounding have equal hinges
            highest = np.argmax(np.where(np.arange(n_classes) == self.true[:, None], -np.inf, z), axis=1)
            active &= np.arange(n_classes) == highest[:, None]
        hinge = np.where(active, excess, 0.0)
        if recipe.power == 2:
            self.value, self.first, self.second = (hinge**2).sum(axis=1), 2 * hinge, np.where(active, 2.0, 0.0)
        else:
            self.value, self.first, self.second = hinge.sum(axis=1), np.where(active, 1.0, 0.0), np.zeros_like(hinge)

    def losses(self) -> Float:
        """(n,)."""
        values = self._per_row(self.value[:, None])[:, 0]
        for i, hinges in self.sorted.items():
            values[i] = hinges.value()
        return np.where(self.spoilt[:, 0], np.nan, values)

    def gradient(self) -> Float:
        """(n, C)."""
        pulls = self._per_row(self._pulled(self.first))
        for i, hinges in self.sorted.items():
            pulls[i] = hinges.gradient()
        return pulls

    def hessian_product(self, v: Float) -> Float:
        """Zero for hinges that are not squared."""
        along = v[self.row]
        rise = along - along[np.arange(len(along)), self.true][:, None]
        bent = self._per_row(self._pulled(self.second * rise))
        for i, hinges in self.sorted.items():
            bent[i] = hinges.product(v[i])
        return bent

    def hessian_diagonal(self) -> Float:
        """Zero for hinges that are not squared."""
        own = self._per_row(np.abs(self._pulled(self.second)))  # a pull on the true class bends it as much
        for i, hinges in self.sorted.items():
            own[i] = hinges.diagonal()
        return own

    def _pulled(self, push: Float) -> Float:
        """Every push on a rival is a pull on the true class."""
        pulled = push.copy()
        pulled[np.arange(len(push)), self.true] = -push.sum(axis=1)
        return pulled

    def _per_row(self, values: Float) -> Float:
        """Sum over the classes with mass of each row."""
        total = np.zeros((int(self.counts.sum()), values.shape[1]))
        np.add.at(total, self.row, self.mass[:, None] * values)
        return total
