"""What the families have in common: the rows of one call that count, their losses and derivatives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kullback.kernels.elements import Float
from kullback.kernels.recipe import Array

Bool: TypeAlias = NDArray[np.bool_]


class CountedRows(ABC):
    """The n counted rows of a call, out of N: everything is in the logits as the caller gave them, unweighted.

    Attributes:
        counts: (N,) which rows count.
        weight: (n,) of the rows that do.
        spoilt: (n, 1) or (n, C) what comes out as NaN whatever the loss's formula says: a zero target must not hide
            a NaN or +inf among the logits.
    """

    counts: Bool
    weight: Float
    spoilt: Bool

    @abstractmethod
    def losses(self) -> Float:
        """(n,), NaN in rows that are spoilt."""

    @abstractmethod
    def gradient(self) -> Float:
        """(n, C)."""

    @abstractmethod
    def hessian_product(self, v: Float) -> Float:
        """Each row's Hessian times that row of v, (n, C)."""

    @abstractmethod
    def hessian_diagonal(self) -> Float:
        """(n, C)."""

    def write(self, out: Array, values: Float, scale: float) -> None:
        """Put scale·weight·values where they belong in `out` (N, C), and 0 in rows that do not count."""
        out[~self.counts] = 0
        out[self.counts] = scale * self.weight[:, None] * np.where(self.spoilt, np.nan, values)


def counted_weights(row_weight: Array | None, counts: Bool) -> Float:
    """The weights of the rows that count, 1 where none are given."""
    if row_weight is None:
        return np.ones(int(counts.sum()))
    return np.asarray(row_weight, dtype=np.float64)[counts]
