"""A linear problem with fewer rows than columns, in as many numbers as there are logits.

At the optimum of a loss with an L2 penalty, and at every point that a method of gradients reaches on its way there
from W₀, the weights are W = c·W₀ + X'A for some A (N, C): each gradient X'R + λW is of that form. Sparse text has
several times as many columns as rows, and with hundreds of classes a matrix of weights fills half a gigabyte; A is the
smaller one, and no weights are needed before the fit ends. Two vectors U and V of this form have the inner product

    ⟨X'U, X'V⟩ = ⟨U, X·X'V⟩,

so beside each vector its *image* X·X'U is kept, which is also how the logits move along it. One step costs a single
product with X·X', made for some classes at a time; every trial of a line search is then free of the data.

The gradient gives the duality gap as in `certificate`: ‖∂f/∂W‖² is an inner product as above.

Sources: Schölkopf, Herbrich & Smola (2001), "A generalized representer theorem"; Chapelle (2007), "Training a support
vector machine in the primal", for steps taken in the space of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kullback import kernels
from kullback.linear.certificate import balance
from kullback.linear.choice import Terms
from kullback.linear.design import SparseDesign
from kullback.linear.objective import Block
from kullback.linear.scaling import ColumnScaling
from kullback.linear.solvers.base import Point
from kullback.losses.base import Batch

Array: TypeAlias = NDArray[Any]
Vector: TypeAlias = NDArray[np.float64]
Run: TypeAlias = Callable[..., Iterator[Any]]

# The (d, C') sums of some classes: they should stay in a cache that the cores share.
SUM_BYTES = 1 << 25
LEAST_CLASSES = 16
# Elements of a block of logits.
BLOCK_ELEMENTS = 1 << 18
# Elements of vectors that are summed in the precision of the fit before float64 takes over.
PIECE = 1 << 16


class RowGram:
    """Products with the centred columns X − 1·μ', and with their Gram matrix of rows.

    What has a row for each column of the data has them in `order`, the fullest column first: most entries of text are
    in few columns, which then lie side by side and stay in a cache.

    Args:
        design: the data.
        centre: (d,) μ, in the order of the data.
        dtype: of the products.

    Attributes:
        order: (d,) which column of the data each row of a (d, C') sum is of.
    """

    def __init__(self, design: SparseDesign, centre: Vector, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.order, by_row, by_column = design.fullest_first()
        # Numbers are converted as they are read; only where that makes them shorter is a copy worth its memory.
        shorter = self.dtype.itemsize < by_row.data.itemsize
        self._rows, self._columns = (
            (m.indptr, m.indices, m.data.astype(self.dtype) if shorter else m.data) for m in (by_row, by_column)
        )
        self._centre = centre[self.order].astype(self.dtype)
        self.shape = design.shape
        self._given = design, centre

    def in_float64(self) -> RowGram:
        """The same products in float64."""
        return self if self.dtype == np.float64 else RowGram(*self._given, np.float64)

    def classes(self, n_outputs: int) -> list[slice]:
        """The classes that are taken together."""
        fit = SUM_BYTES // (self.dtype.itemsize * self.shape[1])
        step = max(LEAST_CLASSES, fit // LEAST_CLASSES * LEAST_CLASSES)
        return [slice(begin, min(begin + step, n_outputs)) for begin in range(0, n_outputs, step)]

    def down(self, vectors: Array) -> Array:
        """X'·vectors, centred, (d, C') from (N, C')."""
        out = np.empty((self.shape[1], vectors.shape[1]), self.dtype)
        given = np.ascontiguousarray(vectors, self.dtype)
        kernels.active().csr_product(*self._columns, given, out)
        total = given.sum(axis=0, dtype=np.float64).astype(self.dtype)
        if self._centre.any():
            for rows in range(0, len(out), PIECE):
                piece, centre = out[rows : rows + PIECE], self._centre[rows : rows + PIECE]
                if len(total) >= LEAST_CLASSES:
                    piece -= centre[:, None] * total
                    continue
                for k, part in enumerate(total):  # NumPy is slow along short rows
                    piece[:, k] -= centre * part
        return out

    def up(self, weights: Array, out: Array) -> None:
        """Write X·weights, centred, (N, C') from (d, C'), into `out`."""
        product = np.empty((self.shape[0], weights.shape[1]), self.dtype)
        kernels.active().csr_product(*self._rows, np.ascontiguousarray(weights, self.dtype), product)
        np.subtract(product, self._centre @ weights, out=out)

    def times(self, vectors: Array, out: Array, plus: Array | None = None) -> float:
        """Write X·(X'·vectors) (N, C) into `out`; returns the largest entry of X'·vectors.

        Args:
            vectors: (N, C).
            out: (N, C).
            plus: (d, C) what is added to X'·vectors, in `order`, or None.
        """
        largest = 0.0
        for classes in self.classes(vectors.shape[1]):
            pulled = self.down(vectors[:, classes])
            if plus is not None:
                pulled += plus[:, classes]
            largest = max(largest, float(pulled.max(initial=0.0)), -float(pulled.min(initial=0.0)))
            self.up(pulled, out[:, classes])
        return largest


class Trial(NamedTuple):
    """The loss along a line: its mean, and the derivative of it by the step."""

    loss: float
    slope: float


class Proof(NamedTuple):
    """What float64 says of a point: the objective, the loss, the gap, and why there is none."""

    objective: float
    loss: float
    gap: float
    reason: str


class RowSpace:
    """Loss and penalty of weights W = c·W₀ + X'A, A (N, C), and intercepts b of the centred columns.

    A vector is flat: the N·C entries of A, then b (if there is an intercept), then c (if there is a W₀). Gradients are
    vectors too. An image is as long: the logits that the vector's columns make, then b, then ⟨W₀, ·⟩; the
    plain product of a vector with an image is the inner product of both in the scaled weights V = s·W and b.

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
        self.gram = RowGram(design, scaling.centre, dtype)
        self._start = start = None if start is None else start[self.gram.order]
        self.square = float(np.mean(np.square(scaling.scale)))
        n_rows, n_outputs = design.shape[0], terms.n_outputs
        self.shape = (n_rows, n_outputs)
        self.count = n_rows * n_outputs
        self.length = self.count + terms.fit_intercept * n_outputs + (start is not None)
        step = max(1, BLOCK_ELEMENTS // n_outputs)
        weight = terms.sample_weight
        self.blocks = []
        for at in range(0, n_rows, step):
            rows = slice(at, min(at + step, n_rows))
            targets, of_rows = terms.targets[rows], None if weight is None else weight[rows]
            checked = Batch(terms.loss, (rows.stop - at, n_outputs), targets, of_rows, "sum")
            self.blocks.append(Block(rows, targets, of_rows, checked))
        self.pieces = [slice(at, min(at + PIECE, self.length)) for at in range(0, self.length, PIECE)]
        self.passes = 0
        # What W₀ alone makes: its centred logits, and its square.
        self._offset = np.zeros(0, self.dtype)
        self._offset_square = 0.0
        if start is not None:
            offset = np.empty(self.shape, self.dtype)
            for classes in self.gram.classes(n_outputs):
                self.gram.up(start[:, classes], offset[:, classes])
            self._offset, self._offset_square = offset.ravel(), float(np.vdot(start, start))
            self.passes += 1

    @property
    def rounding(self) -> float:
        """Relative rounding of a value."""
        return 4 * float(np.finfo(self.dtype).eps)

    def logits_part(self, flat: Array) -> Array:
        """The (N, C) part of a vector or image."""
        return flat[: self.count].reshape(self.shape)

    def intercept_of(self, flat: Array) -> Array:
        """The (C,) part of a vector, or zeros."""
        if not self.terms.fit_intercept:
            return np.zeros(self.shape[1], self.dtype)
        return flat[self.count : self.count + self.shape[1]]

    def image(self, vector: Array, out: Array) -> float:
        """Write the image of a vector into `out`; returns the largest entry of the scaled weights' part."""
        plus = None if self._start is None else self._start * float(vector[-1])
        largest = self.gram.times(self.logits_part(vector), self.logits_part(out), plus)
        self.passes += 1
        logits, square = out[: self.count], self.dtype.type(self.square)
        self.each(lambda piece: np.divide(logits[piece], square, out=logits[piece]))
        out[self.count :] = vector[self.count :]
        if self._start is not None:
            along = self.inner(self._offset, vector[: self.count]) + float(vector[-1]) * self._offset_square
            out[-1] = along / self.square
        return largest / float(np.sqrt(self.square))

    def inner(self, first: Array, second: Array) -> float:
        """Σ first·second over flat arrays, pieces in the precision given, their sum in float64."""
        pieces = [piece for piece in self.pieces if piece.start < len(first)]
        return float(sum(float(np.dot(first[piece], second[piece])) for piece in pieces))

    def each(self, function: Callable[[slice], Any]) -> list[Any]:
        """`function` of every piece of a flat vector, in order."""
        return list(self._run(function, self.pieces))

    def weight_square(self, at: Array, logits: Array) -> float:
        """‖W‖² of a point (a vector whose A, c are those of the weights), from its logits (N, C), b included."""
        intercept = self.intercept_of(at)
        total = 0.0
        for block in self.blocks:
            centred = logits[block.rows] - intercept
            total += float(np.vdot(self.logits_part(at)[block.rows], centred))
        if self._start is not None:
            total += float(at[-1]) * (self.inner(self._offset, at[: self.count]) + float(at[-1]) * self._offset_square)
        return total

    def along(self, logits: Array, image: Array, length: float, out: Array) -> Trial:
        """The loss at logits + length·(those of `image`), its slope there, and its derivatives, written into `out`.

        Args:
            logits: (N, C).
            image: of the direction.
            length: of the step.
            out: a flat vector: the mean loss's derivatives in the logits, and their sums over rows.
        """
        moves, shift, total = self.logits_part(image), self.intercept_of(image), self.terms.total_weight
        pulls, loss = self.logits_part(out), self.terms.loss
        step = self.dtype.type(length)

        def one(block: Block) -> tuple[float, float, Vector]:
            move = moves[block.rows] + shift
            reached = logits[block.rows] + step * move
            pull = pulls[block.rows]
            value = loss._run(reached, block.checked, None, pull)
            pull /= total
            return float(value), float(np.vdot(pull, move)), pull.sum(axis=0, dtype=np.float64)

        value, slope, pulled = 0.0, 0.0, np.zeros(self.shape[1])
        for part in self._run(one, self.blocks):
            value += part[0]
            slope += part[1]
            pulled += part[2]
        self.intercept_of(out)[:] = pulled
        if self._start is not None:
            out[-1] = 0.0
        return Trial(value / total, slope)

    def bend(self, logits: Array, image: Array) -> float:
        """The loss's second derivative along the direction of `image`, at logits (N, C)."""
        moves, shift = self.logits_part(image), self.intercept_of(image)

        def one(block: Block) -> float:
            move = moves[block.rows] + shift
            bent = self.terms.loss.hessian_product(
                logits[block.rows], block.targets, move, sample_weight=block.sample_weight, reduction="sum"
            )
            return float(np.vdot(bent, move))

        return float(sum(self._run(one, self.blocks))) / self.terms.total_weight

    def weights(self, at: Array) -> tuple[Vector, Vector]:
        """Raw weights (d, C) and intercepts (C,) of a point, in float64."""
        gram = self.gram.in_float64()
        out = np.empty((self.gram.shape[1], self.shape[1]))
        for classes in gram.classes(self.shape[1]):
            part = gram.down(self.logits_part(at)[:, classes])
            if self._start is not None:
                part += float(at[-1]) * self._start[:, classes]
            out[gram.order, classes] = part
        return out, self.intercept_of(at).astype(np.float64) - self.scaling.centre @ out

    def prove(self, at: Array) -> Proof:
        """The objective and the duality gap at a point, in float64."""
        exact = self
        if self._start is not None or self.dtype != np.float64:
            exact = RowSpace(self._design, self.terms, self.scaling, np.float64, self._run)
        plus = None if self._start is None else self._start * float(at[-1])
        proof = exact._prove(at[: exact.length].astype(np.float64, copy=False), plus)
        self.passes += 2
        return proof

    def _prove(self, at: Vector, plus: Vector | None) -> Proof:
        penalty = self.terms.penalty
        logits = np.empty(self.shape)
        square = 0.0
        for classes in self.gram.classes(self.shape[1]):
            part = self.gram.down(self.logits_part(at)[:, classes])
            if plus is not None:
                part += plus[:, classes]
            square += float(np.vdot(part, part))
            self.gram.up(part, logits[:, classes])
        logits += self.intercept_of(at)
        gradient = np.empty(self.length)
        still = np.zeros(self.length)
        loss = self.along(logits, still, 0.0, gradient).loss
        balanced = balance(self._as_objective(logits, still), at, Point(loss, loss, gradient))  # type: ignore[arg-type]
        objective = loss + 0.5 * penalty * square
        if balanced.reason:
            return Proof(objective, loss, np.inf, balanced.reason)
        rows = self.logits_part(balanced.gradient) + penalty * self.logits_part(at)
        steep = 0.0
        for classes in self.gram.classes(self.shape[1]):
            part = self.gram.down(rows[:, classes])
            if plus is not None:
                part += penalty * plus[:, classes]
            steep += float(np.vdot(part, part))
        return Proof(objective, loss, balanced.fenchel + steep / (2 * penalty), "")

    def _as_objective(self, logits: Vector, still: Vector) -> SimpleNamespace:
        """What `balance` asks of an objective, with derivatives in the logits in the place of those in the weights."""
        terms = self.terms
        end = self.count + terms.fit_intercept * self.shape[1]

        def split(flat: Vector) -> tuple[Vector, Vector]:
            return self.logits_part(flat), self.intercept_of(flat)

        def over_logits(_: Vector, function: Callable[[Array, Block], Array]) -> Array:
            return np.asarray(sum(self._run(lambda block: function(logits[block.rows], block), self.blocks)))

        def pulled(pull: Callable[[Block], Array]) -> Vector:
            out = still.copy()
            for block, part in zip(self.blocks, self._run(pull, self.blocks), strict=True):
                self.logits_part(out)[block.rows] = part / terms.total_weight
            self.intercept_of(out)[:] = self.logits_part(out).sum(axis=0)
            return out

        def hessian_product(_: Vector, direction: Vector) -> Vector:
            shift = direction[self.count : end]

            def pull(block: Block) -> Array:
                move = np.broadcast_to(shift, logits[block.rows].shape)
                return np.asarray(
                    terms.loss.hessian_product(
                        logits[block.rows], block.targets, move, sample_weight=block.sample_weight, reduction="sum"
                    )
                )

            return pulled(pull)

        return SimpleNamespace(
            fit_intercept=terms.fit_intercept,
            loss=terms.loss,
            total_weight=terms.total_weight,
            n_outputs=self.shape[1],
            design=SimpleNamespace(shape=(self.shape[0], self.shape[0])),
            split=split,
            join=lambda rows, shift: np.concatenate([rows.ravel(), shift]),
            over_logits=over_logits,
            pulled=pulled,
            hessian_product=hessian_product,
        )
