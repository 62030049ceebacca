"""Limited-memory BFGS that sees its vectors through their inner products alone.

The direction −H·g is a combination of the last steps, the last changes of the gradient, and g. Its coefficients follow
from the inner products among these, so the vectors are read twice an iteration, in products with all of them at once,
and the inner product may be any for which beside each vector its image is known (see `row_space`).

Sources: Chen, Wang & Zhou (2014), "Large-scale L-BFGS using MapReduce", for the two-loop recursion on coefficients;
Nocedal (1980), "Updating quasi-Newton matrices with limited storage".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kullback.linear.solvers.base import Vector

Array: TypeAlias = NDArray[Any]
Each: TypeAlias = Callable[[Callable[[slice], Any]], list[Any]]


class InnerProductPairs:
    """The last steps and changes of the gradient, their images, and all their inner products.

    Args:
        length: of a vector.
        kept: pairs kept.
        dtype: of the vectors; inner products are float64.
        each: calls a function with every piece of the vectors' range, side by side, and returns the results in order.
    """

    def __init__(self, length: int, kept: int, dtype: Any, each: Each) -> None:
        # Row i is a step, row slots + i the change over it. One more slot than pairs: the step being made.
        self._slots = kept + 1
        self.vectors = np.empty((2 * self._slots, length), dtype)
        self.images = np.empty((2 * self._slots, length), dtype)
        self._gram = np.zeros((2 * self._slots, 2 * self._slots))
        self._order: list[int] = []
        self._kept, self._each = kept, each
        self._next = 0

    def __len__(self) -> int:
        return len(self._order)

    @property
    def new_step(self) -> int:
        """The row of the step that is being made."""
        return self._next

    @property
    def new_change(self) -> int:
        """The row of the change of the gradient over that step."""
        return self._slots + self._next

    def forget(self) -> None:
        """Drop every pair."""
        self._order = []

    def propose(self, gradient: Array, image: Array, square: float) -> float:
        """Write −H·gradient and its image to the row `new_step`; returns its inner product with the gradient.

        Args:
            gradient: a vector.
            image: its image.
            square: its inner product with itself.
        """
        order, slots = self._order, self._slots
        rows = [*order, *(slots + i for i in order)]
        along = self._products(rows, gradient)
        k = len(order)
        # Inner products among steps, changes and the gradient, in this order.
        gram = np.empty((2 * k + 1, 2 * k + 1))
        gram[: 2 * k, : 2 * k] = self._gram[np.ix_(rows, rows)]
        gram[-1, : 2 * k] = gram[: 2 * k, -1] = along
        gram[-1, -1] = square
        share = two_loops(gram, k)
        # A product with every row that is kept, those in no use with zero: the rows need no copy.
        shares = np.zeros(len(self.vectors))
        shares[rows] = share[:-1]
        step = self.new_step

        used = _spans(rows)

        def combine(piece: slice) -> None:
            for source, last, target in (
                (self.vectors, gradient, self.vectors[step]),
                (self.images, image, self.images[step]),
            ):
                total = last[piece] * source.dtype.type(share[-1])
                for span in used:
                    total += shares[span].astype(source.dtype) @ source[span, piece]
                target[piece] = total

        self._each(combine)
        return float(gram[-1] @ share)

    def learn(self, length: float) -> bool:
        """Take in the proposed step times `length` with the change written to its row; False if it shows no curvature.

        Both images must be there.
        """
        step, change = self.new_step, self.new_change
        if length != 1.0:
            factor = self.vectors.dtype.type(length)

            def scale(piece: slice) -> None:
                self.vectors[step, piece] *= factor
                self.images[step, piece] *= factor

            self._each(scale)
        rows = [*self._order, *(self._slots + i for i in self._order), step, change]
        for new in (step, change):
            found = self._products(rows, self.vectors[new])
            self._gram[new, rows] = self._gram[rows, new] = found
        width, square = self._gram[step, change], self._gram[change, change]
        if not width > 1e-12 * square:
            return False
        self._order.append(step)
        if len(self._order) > self._kept:
            del self._order[0]
        self._next = next(i for i in range(self._slots) if i not in self._order)
        return True

    def _products(self, rows: list[int], vector: Array) -> Vector:
        """Inner products of a vector with those of the given rows."""
        if not rows:
            return np.zeros(0)
        used = _spans(rows)

        def part(piece: slice) -> Vector:
            return np.concatenate([self.images[span, piece] @ vector[piece] for span in used]).astype(np.float64)

        total = np.sum(self._each(part), axis=0)
        places = np.concatenate([np.arange(span.start, span.stop) for span in used])
        return np.asarray(total[np.searchsorted(places, rows)])


def two_loops(gram: Vector, pairs: int) -> Vector:
    """Coefficients of −H·g among steps, changes (each `pairs` of them, oldest first) and g, from inner products."""
    share = np.zeros(2 * pairs + 1)
    share[-1] = -1.0
    kept = np.zeros(pairs)
    for i in reversed(range(pairs)):
        kept[i] = gram[i] @ share / gram[i, pairs + i]
        share[pairs + i] -= kept[i]
    if pairs:
        share *= gram[pairs - 1, 2 * pairs - 1] / gram[2 * pairs - 1, 2 * pairs - 1]
    for i in range(pairs):
        back = gram[pairs + i] @ share / gram[i, pairs + i]
        share[i] += kept[i] - back
    return share


def _spans(rows: list[int]) -> list[slice]:
    """Runs of consecutive numbers."""
    ordered = sorted(rows)
    spans: list[slice] = []
    for row in ordered:
        if spans and spans[-1].stop == row:
            spans[-1] = slice(spans[-1].start, row + 1)
        else:
            spans.append(slice(row, row + 1))
    return spans
