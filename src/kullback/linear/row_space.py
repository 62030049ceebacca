"""A linear problem with fewer rows than columns, in as many numbers as there are logits.

At the optimum of a loss with an L2 penalty, and at every point that a method of gradients reaches on its way there
from W₀, the weights are W = c·W₀ + X'A for some A (N, C): each gradient X'R + λW is of that form. Sparse text has
several times as many columns as rows, and with hundreds of classes a matrix of weights fills half a gigabyte; A is the
smaller one, and no weights are needed before the fit ends. Two vectors U and V of this form have the inner product

    ⟨X'U, X'V⟩ = ⟨U, X·X'V⟩,

so beside each vector its *image* X·X'U is kept, which is also how the logits move along it. One step costs a single
product with X·X', made for some classes at a time; every trial of a line search is then free of the data. The
intercepts are few numbers beside the vectors, with a curvature of their own (see `inner_products`).

The gradient gives the duality gap as in `certificate`: ‖∂f/∂W‖² is an inner product as above.

Sources: Schölkopf, Herbrich & Smola (2001), "A generalized representer theorem"; Chapelle (2007), "Training a support
vector machine in the primal", for steps taken in the space of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kullback import kernels
from kullback.linear.certificate import Shift, balancing_shift
from kullback.linear.choice import Terms
from kullback.linear.design import SparseDesign
from kullback.linear.objective import Block
from kullback.linear.raw_fit import Run
from kullback.linear.row_curvature import summed_curvature
from kullback.linear.scaling import ColumnScaling
from kullback.losses.base import Batch

Array: TypeAlias = NDArray[Any]
Vector: TypeAlias = NDArray[np.float64]

# The (d, C') sums of some classes: they should stay in a cache that the cores share.
SUM_BYTES = 1 << 25
LEAST_CLASSES = 16
# Elements of a block of logits.
BLOCK_ELEMENTS = 1 << 18
# Elements of vectors that are summed in the precision of the fit before float64 takes over, and how many such pieces a
# thread takes at a time.
PIECE, AT_ONCE = 1 << 16, 8
# Rows of weights that are put in the data's order together.
ROWS_AT_ONCE = 1 << 10


class RowGram:
    """Products with the centred columns X − 1·μ', and with their Gram matrix of rows.

    What has a row for each column of the data has them in `order`, the fullest column first: most entries of text are
    in few columns, which then lie side by side and stay in a cache.

    Args:
        design: the data.
        centre: (d,) μ, in the order of the data.
        dtype: of the products.
        run: runs several calls at once and keeps their order.

    Attributes:
        order: (d,) which column of the data each row of a (d, C') sum is of.
    """

    def __init__(self, design: SparseDesign, centre: Vector, dtype: Any, run: Run = map) -> None:
        self.dtype = np.dtype(dtype)
        self.order, by_row, by_column = design.fullest_first()
        # Numbers are converted as they are read; only where that makes them shorter is a copy worth its memory.
        shorter = self.dtype.itemsize < by_row.data.itemsize
        self._rows, self._columns = (
            (m.indptr, m.indices, m.data.astype(self.dtype) if shorter else m.data) for m in (by_row, by_column)
        )
        self._centre = centre[self.order].astype(self.dtype) if centre.any() else None
        self.shape = design.shape
        self._given, self._run = (design, centre), run

    def in_float64(self) -> RowGram:
        """The same products in float64."""
        return self if self.dtype == np.float64 else RowGram(*self._given, np.float64, self._run)

    def classes(self, n_outputs: int) -> list[slice]:
        """The classes that are taken together."""
        fit = SUM_BYTES // (self.dtype.itemsize * self.shape[1])
        step = max(LEAST_CLASSES, fit // LEAST_CLASSES * LEAST_CLASSES)
        return [slice(begin, min(begin + step, n_outputs)) for begin in range(0, n_outputs, step)]

    def down(self, vectors: Array) -> Array:
        """X'·vectors, centred, (d, C') from (N, C')."""
        out = np.empty((self.shape[1], vectors.shape[1]), self.dtype)
        self._down(vectors, np.empty(vectors.shape, self.dtype), out)
        return out

    def up(self, weights: Array, out: Array, factor: float = 1.0) -> None:
        """Write X·weights, centred, times `factor`, (N, C') from (d, C'), into `out`."""
        self._up(weights, np.empty((self.shape[0], weights.shape[1]), self.dtype), out, factor)

    def times(self, vectors: Array, out: Array, plus: Array | None = None, factor: float = 1.0) -> float:
        """Write X·(X'·vectors), times `factor`, (N, C) into `out`; returns the largest entry of X'·vectors.

        Args:
            vectors: (N, C).
            out: (N, C).
            plus: (d, C) what is added to X'·vectors, in `order`, or None.
            factor: of the result.
        """
        parts, largest = self.classes(vectors.shape[1]), 0.0
        width = parts[0].stop
        rows, columns = np.empty(self.shape[0] * width, self.dtype), np.empty(self.shape[1] * width, self.dtype)
        for classes in parts:
            width = classes.stop - classes.start
            of_rows = rows[: self.shape[0] * width].reshape(-1, width)
            pulled = columns[: self.shape[1] * width].reshape(-1, width)
            more = None if plus is None else plus[:, classes]
            largest = max(largest, self._down(vectors[:, classes], of_rows, pulled, more))
            self._up(pulled, of_rows, out[:, classes], factor)
        return largest

    def _down(self, vectors: Array, given: Array, out: Array, plus: Array | None = None) -> float:
        """Write X'·vectors, centred, plus something, into `out`; returns its largest entry. `given` is overwritten."""

        def take(piece: slice) -> Array:
            """A copy side by side, which is read faster, many times each; and its sums."""
            given[piece] = vectors[piece]
            return ones[: len(given[piece])] @ given[piece]

        pieces = _pieces(given)
        ones = np.ones(pieces[0].stop, self.dtype)
        total = np.sum(_in_groups(self._run, take, pieces), axis=0, dtype=np.float64).astype(self.dtype)
        outer = None if self._centre is None else (self._centre, -total)
        kernels.active().csr_product(*self._columns, given, out, outer=outer)

        def finish(piece: slice) -> float:
            part = out[piece]
            if plus is not None:
                part += plus[piece]
            return max(float(part.max(initial=0.0)), -float(part.min(initial=0.0)))

        return float(max(_in_groups(self._run, finish, _pieces(out))))

    def _up(self, weights: Array, product: Array, out: Array, factor: float) -> None:
        """Write X·weights, centred, times `factor`, into `out`. `product` is overwritten."""
        kernels.active().csr_product(*self._rows, weights, product)
        level = np.zeros(weights.shape[1])
        if self._centre is not None:
            centre = self._centre
            for part in _in_groups(self._run, lambda piece: centre[piece] @ weights[piece], _pieces(weights)):
                level += part
        less, times = level.astype(self.dtype), self.dtype.type(factor)

        def finish(piece: slice) -> None:
            np.subtract(product[piece], less, out=out[piece])
            if times != 1:
                out[piece] *= times

        _in_groups(self._run, finish, _pieces(product))


def _pieces(matrix: Array) -> list[slice]:
    """Rows of a matrix (n, C) in parts that fit into a cache; one that is empty of an empty matrix."""
    step = max(1, PIECE // max(matrix.shape[1], 1))
    return [slice(begin, min(begin + step, len(matrix))) for begin in range(0, max(len(matrix), 1), step)]


def _in_groups(run: Run, function: Callable[[slice], Any], pieces: list[slice]) -> list[Any]:
    """`function` of every piece, in order; so many of them run as one that handing them out takes no time."""
    groups = [pieces[at : at + AT_ONCE] for at in range(0, len(pieces), AT_ONCE)]
    return [result for results in run(lambda group: [function(piece) for piece in group], groups) for result in results]


class Trial(NamedTuple):
    """The loss along a line: its mean, the derivative of it by the step, and those by the intercepts (C,)."""

    loss: float
    slope: float
    pull: Vector


class Proof(NamedTuple):
    """What float64 says of a point: the objective, the gap, and why there is none."""

    objective: float
    gap: float
    reason: str


class RowSpace:
    """Loss and penalty of weights W = c·W₀ + X'A, A (N, C), and intercepts b of the centred columns.

    A vector is flat: the N·C entries of A, then c (if there is a W₀). Gradients are vectors too. An image is as long:
    the logits that the vector's columns make, then ⟨W₀, ·⟩; the plain product of a vector with an image is the inner
    product of both in the scaled weights V = s·W. Intercepts, and derivatives in them, are (C,) in float64.

    Args:
        design: the data.
        terms: the rest of the objective.
        scaling: the columns' centres and scales; the mean square scale is s².
        dtype: of all vectors.
        run: runs several calls at once and keeps their order.
        start: W₀ (d, C) or None for zeros.
    """

    def __init__(
        self,
        design: SparseDesign,
        terms: Terms,
        scaling: ColumnScaling,
        dtype: Any,
        run: Run = map,
        start: Vector | None = None,
    ) -> None:
        self.dtype = np.dtype(dtype)
        self.terms, self.scaling, self._run = terms, scaling, run
        self._design = design
        self.gram = RowGram(design, scaling.centre, dtype, run)
        self._start = start = None if start is None else start[self.gram.order]
        self.square = float(np.mean(np.square(scaling.scale)))
        n_rows, n_outputs = design.shape[0], terms.n_outputs
        self.shape = (n_rows, n_outputs)
        self.count = n_rows * n_outputs
        self.length = self.count + (start is not None)
        step = max(1, BLOCK_ELEMENTS // n_outputs)
        weight = terms.sample_weight
        self.blocks = []
        for at in range(0, n_rows, step):
            rows = slice(at, min(at + step, n_rows))
            targets, of_rows = terms.targets[rows], None if weight is None else weight[rows]
            checked = Batch(terms.loss, (rows.stop - at, n_outputs), targets, of_rows, "sum")
            self.blocks.append(Block(rows, targets, of_rows, checked))
        self._pieces = [slice(at, min(at + PIECE, self.length)) for at in range(0, self.length, PIECE)]
        self.passes = 0
        # What W₀ alone makes: its centred logits, and its square.
        self._offset = np.zeros(0, self.dtype)
        self._offset_square = 0.0
        if start is not None:
            offset = np.empty(self.shape, self.dtype)
            for classes in self.gram.classes(n_outputs):
                self.gram.up(start[:, classes].astype(dtype), offset[:, classes])
            self._offset, self._offset_square = offset.ravel(), float(np.vdot(start, start))
            self.passes += 1

    @property
    def rounding(self) -> float:
        """Relative rounding of a value."""
        return 4 * float(np.finfo(self.dtype).eps)

    def logits_part(self, flat: Array) -> Array:
        """The (N, C) part of a vector or image."""
        return flat[: self.count].reshape(self.shape)

    def image(self, vector: Array, out: Array) -> float:
        """Write the image of a vector into `out`; returns the largest entry of the scaled weights' part."""
        plus = None if self._start is None else self._start * float(vector[-1])
        largest = self.gram.times(self.logits_part(vector), self.logits_part(out), plus, 1.0 / self.square)
        self.passes += 1
        if self._start is not None:
            along = self.inner(self._offset, vector[: self.count]) + float(vector[-1]) * self._offset_square
            out[-1] = along / self.square
        return largest / float(np.sqrt(self.square))

    def inner(self, first: Array, second: Array) -> float:
        """Σ first·second over flat arrays, pieces in the precision given, their sum in float64."""
        least = min(len(first), len(second))
        return float(sum(self.each(lambda piece: float(np.dot(first[piece], second[piece])), least)))

    def each(self, function: Callable[[slice], Any], length: int | None = None) -> list[Any]:
        """`function` of every piece of a flat vector, or of its first `length` numbers, in order."""

        pieces = self._pieces
        if length is not None:
            pieces = [slice(p.start, min(p.stop, length)) for p in pieces if p.start < length]
        return _in_groups(self._run, function, pieces)

    def weight_square(self, at: Array, logits: Array) -> float:
        """‖W‖² of a point (a vector whose A, c are those of the weights), from its logits (N, C) without intercepts."""
        total = self.inner(logits.reshape(-1), at[: self.count])
        if self._start is not None:
            total += float(at[-1]) * (self.inner(self._offset, at[: self.count]) + float(at[-1]) * self._offset_square)
        return total

    def along(self, logits: Array, level: Vector, image: Array, shift: Vector, length: float, out: Array) -> Trial:
        """The loss at a step's end, its slope there, and its derivatives in the logits, written into `out`.

        Args:
            logits: (N, C) at the step's start, without intercepts.
            level: (C,) the intercepts there.
            image: of the direction.
            shift: (C,) how the intercepts move along it.
            length: of the step.
            out: a flat vector.
        """
        moves, total, loss = self.logits_part(image), self.terms.total_weight, self.terms.loss
        pulls = self.logits_part(out)
        step, reached_level = self.dtype.type(length), (level + length * shift).astype(self.dtype)

        def one(block: Block) -> tuple[float, float, Vector]:
            move, pull = moves[block.rows], pulls[block.rows]
            reached = step * move
            reached += logits[block.rows]
            reached += reached_level
            value = loss._run(reached, block.checked, None, pull)
            pull /= total
            return float(value), float(np.vdot(pull, move)), pull.sum(axis=0, dtype=np.float64)

        value, slope, pulled = 0.0, 0.0, np.zeros(self.shape[1])
        for part in self._run(one, self.blocks):
            value += part[0]
            slope += part[1]
            pulled += part[2]
        if not self.terms.fit_intercept:
            pulled[:] = 0.0
        if self._start is not None:
            out[-1] = 0.0
        return Trial(value / total, slope + float(pulled @ shift), pulled)

    def bend(self, logits: Array, level: Vector, image: Array, shift: Vector) -> float:
        """The loss's second derivative along a direction, at a point; arguments as those of `along`."""
        moves, at, moved = self.logits_part(image), level.astype(self.dtype), shift.astype(self.dtype)

        def one(block: Block) -> float:
            move = moves[block.rows] + moved
            bent = self.terms.loss.hessian_product(
                logits[block.rows] + at, block.targets, move, sample_weight=block.sample_weight, reduction="sum"
            )
            return float(np.vdot(bent, move))

        return float(sum(self._run(one, self.blocks))) / self.terms.total_weight

    def curvature(self, logits: Array, level: Vector, part: int, parts: int) -> Vector:
        """(C, C) what one of several parts of the rows adds to the loss's Hessian in the intercepts."""
        at, loss = level.astype(self.dtype), self.terms.loss

        def one(block: Block) -> Array:
            return summed_curvature(loss, logits[block.rows] + at, block.targets, block.sample_weight)

        total = np.zeros((self.shape[1], self.shape[1]))
        for of_block in self._run(one, self.blocks[part::parts]):
            total += of_block
        return total / self.terms.total_weight

    def weights(self, at: Array, level: Vector) -> tuple[Vector, Vector]:
        """Raw weights (d, C) and intercepts (C,) of a point, in float64."""
        gram = self.gram.in_float64()
        # A row for each class, as models keep them.
        out = np.empty((self.shape[1], self.gram.shape[1]))
        place = np.empty_like(gram.order)
        place[gram.order] = np.arange(len(place))
        pieces = [slice(begin, begin + ROWS_AT_ONCE) for begin in range(0, len(place), ROWS_AT_ONCE)]
        for classes in gram.classes(self.shape[1]):
            part = gram.down(self.logits_part(at)[:, classes])
            if self._start is not None:
                part += float(at[-1]) * self._start[:, classes]

            def turn(piece: slice) -> None:
                out[classes, piece] = part[place[piece]].T  # noqa: B023

            _in_groups(self._run, turn, pieces)
        return out.T, level - out @ self.scaling.centre

    def prove(self, at: Array, level: Vector) -> Proof:
        """The objective and the duality gap at a point, in float64."""
        exact = self
        if self._start is not None or self.dtype != np.float64:
            exact = RowSpace(self._design, self.terms, self.scaling, np.float64, self._run)
        plus = None if self._start is None else self._start * float(at[-1])
        self.passes += 2
        return exact._prove(at[: exact.length], level, plus)

    def _prove(self, at: Array, level: Vector, plus: Vector | None) -> Proof:
        penalty, loss, total = self.terms.penalty, self.terms.loss, self.terms.total_weight
        vectors = self.logits_part(at)
        logits = np.empty(self.shape)
        square = 0.0
        for classes in self.gram.classes(self.shape[1]):
            part = self.gram.down(vectors[:, classes])
            if plus is not None:
                part += plus[:, classes]
            square += float(np.vdot(part, part))
            self.gram.up(part, logits[:, classes])
        pulls = np.empty(self.shape)
        balances = self.terms.fit_intercept

        def one(block: Block) -> tuple[float, Vector, Vector]:
            reached, pull = logits[block.rows], pulls[block.rows]
            reached += level
            value = loss._run(reached, block.checked, None, pull)
            if not balances:
                return float(value), np.zeros(0), np.zeros(0)
            return float(value), pull.sum(axis=0), summed_curvature(loss, reached, block.targets, block.sample_weight)

        value, pull, curvature = (sum(part) / total for part in zip(*self._run(one, self.blocks), strict=True))
        objective = float(value) + 0.5 * penalty * square
        shift = balancing_shift(loss, pull, curvature) if balances else Shift(np.zeros(1), 0.0)
        if shift.reason:
            return Proof(objective, np.inf, shift.reason)

        def dual(block: Block) -> None:
            """What the gradient is of, in the logits, at the balanced dual point."""
            part = pulls[block.rows]
            if shift.intercept.any():
                move = np.broadcast_to(shift.intercept, part.shape)
                part += loss.hessian_product(
                    logits[block.rows], block.targets, move, sample_weight=block.sample_weight, reduction="sum"
                )
            part /= total
            part += penalty * vectors[block.rows].astype(np.float64)

        list(self._run(dual, self.blocks))
        steep = 0.0
        for classes in self.gram.classes(self.shape[1]):
            part = self.gram.down(pulls[:, classes])
            if plus is not None:
                part += penalty * plus[:, classes]
            steep += float(np.vdot(part, part))
        return Proof(objective, shift.fenchel + steep / (2 * penalty), "")
