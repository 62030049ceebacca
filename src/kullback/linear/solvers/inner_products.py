"""Limited-memory BFGS that sees its vectors through their inner products alone.

The direction −H·g is a combination of the last steps, the last changes of the gradient, and g. Its coefficients follow
from the inner products among these, so the vectors are read twice an iteration, once for the products with the new
ones and once to combine them, and the inner product may be any for which beside each vector its image is known (see
`row_space`).

A vector may have a second, short part (intercepts) in numbers of its own kind: there steps are moves, changes and
gradients are derivatives, and the estimate starts from a matrix, the inverse of the curvature along these few, where
along the others it starts from a multiple of the identity.

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
        length: of the long part of a vector.
        short: of the other one.
        kept: pairs kept.
        dtype: of the long parts; inner products and short parts are float64.
        each: calls a function with every piece of the long parts' range, side by side, and returns the results in
            order.
        scale: what the estimate of the inverse Hessian is along long parts before there is any pair.

    Attributes:
        vectors: the long parts by rows; see `new_step` and `new_change`.
        images: theirs.
        shorts: the short parts.
    """

    def __init__(self, length: int, short: int, kept: int, dtype: Any, each: Each, scale: float = 1.0) -> None:
        # Row i is a step, row slots + i the change over it. One more slot than pairs: the step being made.
        self._slots = kept + 1
        self.vectors = np.empty((2 * self._slots, length), dtype)
        self.images = np.empty((2 * self._slots, length), dtype)
        self.shorts = np.empty((2 * self._slots, short))
        self._gram = np.zeros((2 * self._slots, 2 * self._slots))
        # Inner products of the rows with the gradient.
        self._along = np.zeros(2 * self._slots)
        self._order: list[int] = []
        self._kept, self._each, self._scale = kept, each, scale
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

    def propose(self, gradient: Array, image: Array, square: float, pull: Vector, inverse: Vector) -> float:
        """Write −H·gradient and its image to the row `new_step`; returns its inner product with the gradient.

        Args:
            gradient: the long part, that of the last `learn` if there was one.
            image: its image.
            square: their product.
            pull: the short part.
            inverse: (short, short), positive definite, what H starts from there.
        """
        order, slots = self._order, self._slots
        rows = [*order, *(slots + i for i in order)]
        k = len(order)
        # Inner products among steps, changes and the gradient, in this order.
        gram = np.empty((2 * k + 1, 2 * k + 1))
        gram[: 2 * k, : 2 * k] = self._gram[np.ix_(rows, rows)]
        gram[-1, : 2 * k] = gram[: 2 * k, -1] = self._along[rows]
        gram[-1, -1] = square
        of_steps, of_changes = self.shorts[rows[:k]], self.shorts[rows[k:]]
        share, move = two_loops(gram, of_steps, of_changes, pull, inverse, self._scale)
        # A product with every row that is kept, those in no use with zero: the rows need no copy.
        shares = np.zeros(len(self.vectors))
        shares[rows] = share[:-1]
        step = self.new_step
        self.shorts[step] = move
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
        return float(gram[-1] @ share) + float(pull @ move)

    def learn(self, length: float, gradient: Array, image: Array, pull: Vector) -> float:
        """Take in the proposed step times `length`.

        Args:
            length: of the step.
            gradient: the long part of the gradient before the step; after it there is the one that the row
                `new_change` held, and in that row the change.
            image: its image, likewise.
            pull: the short part of the change.

        Returns:
            The product of the new gradient's long part with its image. A pair that showed no curvature is left out.
        """
        step, change = self.new_step, self.new_change
        rows = [*self._order, *(self._slots + i for i in self._order)]
        used = _spans(rows)
        factor = self.vectors.dtype.type(length)
        self.shorts[step] *= length
        self.shorts[change] = pull

        def part(piece: slice) -> Vector:
            """Products of the images with the new gradient, the step and the change; then those of these three."""
            for new, old in ((self.vectors[change], gradient), (self.images[change], image)):
                moved = new[piece] - old[piece]
                old[piece], new[piece] = new[piece], moved
            if length != 1.0:
                self.vectors[step, piece] *= factor
                self.images[step, piece] *= factor
            three = gradient[piece], self.vectors[step, piece], self.vectors[change, piece]
            own = image[piece], self.images[step, piece], self.images[change, piece]
            # One vector at a time: BLAS is slow at products with three.
            parts = [np.stack([self.images[span, piece] @ vector for vector in three], axis=1) for span in used]
            return np.concatenate([*parts, [[np.dot(a, b) for b in three] for a in own]]).astype(np.float64)

        total = np.sum(self._each(part), axis=0)
        places = [place for span in used for place in range(span.start, span.stop)]
        for place, (along, with_step, with_change) in zip(places, total, strict=False):
            self._along[place] = along
            self._gram[place, step] = self._gram[step, place] = with_step
            self._gram[place, change] = self._gram[change, place] = with_change
        own = total[len(places) :]
        self._along[[step, change]] = own[1:, 0]
        self._gram[step, step], self._gram[change, change] = own[1, 1], own[2, 2]
        self._gram[step, change] = self._gram[change, step] = own[2, 1]
        width = own[2, 1] + self.shorts[step] @ pull
        if width > 1e-12 * own[2, 2] and own[2, 1] > 0:
            self._order.append(step)
            if len(self._order) > self._kept:
                del self._order[0]
            self._next = next(i for i in range(self._slots) if i not in self._order)
        return float(own[0, 0])


def two_loops(
    gram: Vector, steps: Vector, changes: Vector, pull: Vector, inverse: Vector, scale: float
) -> tuple[Vector, Vector]:
    """−H·g: coefficients of its long part among steps, changes (oldest first) and g, and its short part.

    Args:
        gram: (2k + 1, 2k + 1) inner products of the long parts.
        steps: (k, m) short parts.
        changes: (k, m).
        pull: (m,) that of g.
        inverse: (m, m) what H starts from along the short parts.
        scale: what it starts from along the others if there is no pair.
    """
    pairs = len(steps)
    widths = np.array([gram[i, pairs + i] for i in range(pairs)]) + (steps * changes).sum(axis=1)
    share = np.zeros(2 * pairs + 1)
    share[-1] = -1.0
    left = -pull
    kept = np.zeros(pairs)
    for i in reversed(range(pairs)):
        kept[i] = (gram[i] @ share + steps[i] @ left) / widths[i]
        share[pairs + i] -= kept[i]
        left = left - kept[i] * changes[i]
    share *= gram[pairs - 1, 2 * pairs - 1] / gram[2 * pairs - 1, 2 * pairs - 1] if pairs else scale
    move = inverse @ left
    for i in range(pairs):
        back = (gram[pairs + i] @ share + changes[i] @ move) / widths[i]
        share[i] += kept[i] - back
        move = move + (kept[i] - back) * steps[i]
    return share, move


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
