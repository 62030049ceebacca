"""Second derivatives of a linear model's loss among chosen weights: the quadratic model of the sparse solver.

Only weights that are not zero, or may leave zero, take part, so the matrices are small where the whole Hessian would
not fit into memory. Classes pull on one another: either everything is one block,

    Σ_i H_i ⊗ x_i·x_iᵀ,      H_i = κ_i·(diag p_i − p_i·p_iᵀ) for the softmax family,

or, where that is too large, each class is a block of its own with weights (H_i)_kk, and what the classes do to one
another is left to the solver's quasi-Newton pairs. Independent labels are blocks of their own by nature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kullback.linear.design import DenseDesign, Design, SparseDesign
from kullback.linear.row_curvature import coupled_probabilities, row_scale, structure_of
from kullback.linear.sparse_problem import SparseObjective
from kullback.targets import Targets

Vector: TypeAlias = NDArray[np.float64]
Index: TypeAlias = NDArray[np.int64]
Array: TypeAlias = NDArray[Any]

# A block of more variables is cut: its matrix would fill memory, and take long to make.
MOST_IN_BLOCK = 2500
# One block for all classes is worth it up to this much work, in passes over the data.
COUPLED_PASSES = 12.0
# That grows by so many passes for each that the fit has taken.
LATER = 1.0
# After so many passes the Hessian is made of float64 numbers too.
HARD = 20
# A product of two large matrices does so many multiplications in the time a pass does one.
PRODUCT_SPEED = 4.0
# Rows a Hessian is made of, as a multiple of its variables, at least.
ROWS_PER_VARIABLE = 16
LEAST_ROWS = 2000
# What a sampled diagonal is raised by, as a share of its largest entry.
LEAST_SHARE = 3e-3
# Up to so many elements, standardised rows are kept in float64: a Hessian of float32 ends at about seven digits.
EXACT_ELEMENTS = 1 << 18
# Standardised rows kept for it, as bytes.
KEPT_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class Blocks:
    """A block-diagonal matrix over m variables.

    Attributes:
        places: (m,) where each variable stands among the parameters.
        start: (blocks + 1,) the first variable of each block.
        offset: (blocks,) where each block begins in `values`.
        values: the blocks, each row by row.
        exact: whether it is the whole Hessian among these variables.
    """

    places: Index
    start: Index
    offset: Index
    values: Vector
    exact: bool

    def matrix(self, block: int) -> Vector:
        """One block, as a view."""
        size = int(self.start[block + 1] - self.start[block])
        begin = int(self.offset[block])
        return self.values[begin : begin + size * size].reshape(size, size)

    def times(self, vectors: Vector) -> Vector:
        """The matrix times (m, q)."""
        out = np.empty_like(vectors)
        for block in range(len(self.offset)):
            rows = slice(int(self.start[block]), int(self.start[block + 1]))
            out[rows] = self.matrix(block) @ vectors[rows]
        return out


def passes_for_hessian(n_columns: int, n_outputs: int) -> float:
    """How many passes over dense data the Hessian of all weights takes as long as, exponentials counted."""
    return (n_columns * n_outputs) ** 2 / PRODUCT_SPEED / (n_outputs * (2.0 * n_columns + 25.0))


class SupportCurvature:
    """Makes `Blocks` of an objective at any parameters.

    Args:
        objective: in the precision of the passes.
        source: its data.
        run: runs several calls at once and keeps their order.
        passes: how often the data was read so far; as `objective` counts it, by default.
    """

    def __init__(
        self,
        objective: SparseObjective,
        source: DenseDesign | SparseDesign,
        run: Callable[..., Iterator[Any]] = map,
        passes: Callable[[], int] | None = None,
    ) -> None:
        self._objective = objective
        self._passes = passes or (lambda: objective.smooth.passes)
        self._source = source
        self._run = run
        self._sampled: tuple[Array, Array] | None = None
        small = source.shape[0] * source.shape[1] <= EXACT_ELEMENTS
        self._row_dtype = (
            np.dtype(np.float64 if small else np.float32) if isinstance(source, DenseDesign) else source.dtype
        )

    def one_pass(self) -> float:
        """Multiplications in a pass over the data, exponentials counted as 25."""
        source, outputs = self._source, self._objective.smooth.n_outputs
        entries = source.matrix.nnz if isinstance(source, SparseDesign) else source.shape[0] * source.shape[1]
        return float(2.0 * entries * outputs + 25.0 * source.shape[0] * outputs)

    def work(self, counts: Index) -> float:
        """Multiplications to make the blocks of so many weights per output, in the unit of `one_pass`."""
        if self._coupled(counts):
            return float(self._rows_for(int(counts.sum()))) * float(counts.sum()) ** 2 / PRODUCT_SPEED
        density = 1.0
        if isinstance(self._source, SparseDesign):
            density = max(self._source.n_entries / max(1.0, float(np.prod(self._source.shape))), 1e-3)
        rows = float(self._rows_for(int(counts.max(initial=0))))
        return rows * float(np.square(np.minimum(counts, MOST_IN_BLOCK)).sum()) * density / PRODUCT_SPEED

    def at(self, parameters: Vector, places: Index) -> Blocks:
        """The second derivatives of the loss and the ridge among the variables `places` (sorted), at (P,) parameters.

        Weights are told from intercepts by their place.
        """
        objective = self._objective
        outputs = objective.n_outputs
        column, output = places // outputs, places % outputs
        counts = np.bincount(output, minlength=outputs)
        coupled = self._coupled(counts)
        order = np.arange(len(places)) if coupled else np.lexsort((column, output))
        ordered = places[order]
        sizes = [len(places)] if coupled else _cut(counts)
        start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        offset = np.concatenate([[0], np.cumsum(np.square(sizes))]).astype(np.int64)
        blocks = Blocks(ordered, start, offset[:-1], np.empty(int(offset[-1])), False)
        rows = self._rows_for(max(sizes, default=1))
        exact_rows = self._fill(blocks, parameters, coupled, rows)
        diagonal_ridge = np.zeros(len(ordered))
        weights = ordered < objective.n_columns * outputs
        diagonal_ridge[weights] = objective.ridges[ordered[weights] // outputs]
        for block in range(len(sizes)):
            matrix = blocks.matrix(block)
            diagonal = np.diag(matrix).copy()
            # A constant or an unused column has no curvature; a little keeps the descent defined.
            # From sampled rows it is also what a column that is zero in all of them would get.
            exact = 100 * float(np.finfo(self._row_dtype).eps)
            least = 1e-14 + (min(exact, 1e-7) if exact_rows else LEAST_SHARE) * float(diagonal.max(initial=0.0))
            ridge = diagonal_ridge[start[block] : start[block + 1]]
            matrix[np.diag_indices(len(matrix))] = np.maximum(diagonal, 0.0) + least + ridge
        whole = coupled or outputs == 1 or objective.smooth.loss.link == "sigmoid"
        whole = whole and exact_rows and len(sizes) <= (1 if coupled else outputs)
        return Blocks(ordered, start, offset[:-1], blocks.values, whole)

    def products(self, parameters: Vector, places: Index) -> Callable[[Vector], Vector]:
        """The whole Hessian of the loss and the ridge among the variables `places` (sorted) times (m,).

        It is that of all classes together, of as many rows as are kept; one product costs two passes over the columns
        in use.
        """
        objective, smooth = self._objective, self._objective.smooth
        outputs, count = objective.n_outputs, objective.n_columns * objective.n_outputs
        n_weights = int(np.searchsorted(places, count))
        columns = np.unique(places[:n_weights] // outputs)
        row = np.searchsorted(columns, places[:n_weights] // outputs)
        output = places % outputs
        n_rows = int(self._source.shape[0])
        is_sparse = isinstance(self._source, SparseDesign)
        which, rows = self._rows(n_rows if is_sparse else self._most_rows())
        scaled, intercept = smooth.split(objective.expand(parameters))
        scale = smooth.scaling.scale[columns]
        if is_sparse:
            taken: Design = SparseDesign(self._by_column()[:, columns])
            # Centred columns are those as they are, and a part of the intercept.
            centre, factor = smooth.scaling.centre[columns] / scale, 1.0 / scale
        else:
            taken = DenseDesign(np.ascontiguousarray(rows[:, columns]))
            centre, factor = np.zeros(len(columns)), np.ones(len(columns))
        every = len(which) == n_rows
        targets = smooth.targets if every else smooth.targets[which]
        weight = smooth.sample_weight if every or smooth.sample_weight is None else smooth.sample_weight[which]
        stands = n_rows / len(which) / smooth.total_weight
        ridge = np.zeros(len(places))
        ridge[:n_weights] = objective.ridges[places[:n_weights] // outputs]
        spread = objective.spread
        coupled = structure_of(smooth.loss) == "coupled" and smooth.n_outputs > 1

        def multiplied(weights: Vector, shift: Vector) -> tuple[Array, Array]:
            raw = np.ascontiguousarray(weights * factor[:, None], taken.dtype)
            return raw, (shift - centre @ weights).astype(taken.dtype)

        def forward(block: slice, by: tuple[Array, Array]) -> Array:
            out = np.empty((block.stop - block.start, smooth.n_outputs), dtype=taken.dtype)
            taken.rows(block).forward(by[0], out)
            out += by[1]
            return out

        blocks = taken.blocks(smooth.n_outputs)
        here = multiplied(scaled[columns], intercept)

        def shape_of(block: slice) -> tuple[Array, Any, Any]:
            """What the curvature of a block's rows takes: probabilities and factors, or logits, targets and weights."""
            logits, of_rows = forward(block, here), None if weight is None else weight[block]
            if not coupled:
                return logits, targets[block], of_rows
            factors = row_scale(smooth.loss, targets[block], smooth.n_outputs, of_rows)
            return coupled_probabilities(smooth.loss, logits), factors.astype(taken.dtype)[:, None], None

        shapes = list(self._run(shape_of, blocks))

        def product(vector: Vector) -> Vector:
            weights = np.zeros((len(columns), outputs))
            weights[row, output[:n_weights]] = vector[:n_weights]
            shift = np.zeros(outputs)
            shift[output[n_weights:]] = vector[n_weights:]
            if spread is not None:
                weights, shift = weights @ spread, (shift @ spread).ravel()
            along = multiplied(weights, shift)

            def one(place: int) -> tuple[Array, Array]:
                block, (first, second, third) = blocks[place], shapes[place]
                moved = forward(block, along)
                if coupled:
                    moved -= np.einsum("ij,ij->i", first, moved)[:, None]
                    moved *= first
                    moved *= second
                else:
                    moved = smooth.loss.hessian_product(first, second, moved, sample_weight=third, reduction="sum")
                return taken.rows(block).backward(moved), moved.sum(axis=0, dtype=np.float64)

            pull, total = np.zeros((len(columns), smooth.n_outputs)), np.zeros(smooth.n_outputs)
            for part in self._run(one, range(len(blocks))):
                pull += part[0]
                total += part[1]
            pull *= factor[:, None]
            pull -= np.outer(centre, total)
            if spread is not None:
                pull, total = pull @ spread.T, total @ spread.T
            out = np.concatenate([pull[row, output[:n_weights]], total[output[n_weights:]]]) * stands
            return np.asarray(out + ridge * vector)

        return product

    def _by_column(self) -> Any:
        assert isinstance(self._source, SparseDesign)
        return self._source.by_column()

    def _most_rows(self) -> int:
        return int(min(self._source.shape[0], max(LEAST_ROWS, KEPT_BYTES // (4 * max(1, self._source.shape[1])))))

    def _coupled(self, counts: Index) -> bool:
        objective = self._objective
        total = int(counts.sum())
        if objective.n_outputs == 1 or objective.smooth.loss.target_form == "labels" or total > MOST_IN_BLOCK:
            return False
        work = float(self._rows_for(total)) * total**2 / PRODUCT_SPEED
        return work <= COUPLED_PASSES * self.one_pass() + self._later()

    def _later(self) -> float:
        """Multiplications that a fit that has come this far may spend on a better Hessian.

        A fit that has taken many passes is a hard one, and may take many more without it.
        """
        return LATER * self._passes() * self.one_pass()

    def _rows_for(self, variables: int) -> int:
        n_rows = int(self._source.shape[0])
        if isinstance(self._source, SparseDesign):
            return n_rows
        if n_rows <= self._most_rows() and float(n_rows) * variables**2 / PRODUCT_SPEED <= self._later():
            return n_rows
        return min(self._most_rows(), max(LEAST_ROWS, ROWS_PER_VARIABLE * variables))

    def _fill(self, blocks: Blocks, parameters: Vector, coupled: bool, n_rows: int) -> bool:
        """Write the loss's second derivatives into the blocks; whether every row took part."""
        objective, smooth = self._objective, self._objective.smooth
        which, rows = self._rows(n_rows)
        scaled, intercept = smooth.split(objective.expand(parameters))
        outputs = objective.n_outputs
        column, output = blocks.places // outputs, blocks.places % outputs
        count = len(which)
        if isinstance(self._source, SparseDesign):
            weights, shift = smooth.scaling.to_raw(scaled, intercept)
            logits = np.empty((count, smooth.n_outputs), dtype=self._source.dtype)
            self._source.rows(slice(0, count)).forward(weights.astype(logits.dtype), logits)
            logits += shift.astype(logits.dtype)
        else:
            used = np.flatnonzero(scaled.any(axis=1))
            logits = rows[:, used] @ scaled[used].astype(rows.dtype) + intercept.astype(rows.dtype)
        every = bool(count == self._source.shape[0])
        targets = smooth.targets if every else smooth.targets[which]
        weight = smooth.sample_weight if every or smooth.sample_weight is None else smooth.sample_weight[which]
        stands = self._source.shape[0] / count / smooth.total_weight
        pieces = list(range(len(blocks.offset)))
        if coupled:
            if structure_of(smooth.loss) == "coupled":
                p = coupled_probabilities(smooth.loss, logits)
                scale = (row_scale(smooth.loss, targets, smooth.n_outputs, weight) * stands).astype(logits.dtype)
                blocks.matrix(0)[...] = self._coupled_block(rows, column, output, p, scale)
            else:
                blocks.matrix(0)[...] = self._general_block(rows, column, output, logits, targets, weight) * stands
            if not smooth.loss.ignores_level:
                return every
            # Nothing holds equal shifts of all intercepts, along which the slope is zero; steps of rounding would be
            # as long as they like.
            shifts = np.ix_(*2 * [column == objective.n_columns])
            blocks.matrix(0)[shifts] += np.diag(blocks.matrix(0)[shifts]).mean() if shifts[0].size else 0.0
            return every
        if objective.spread is not None:
            direction = np.broadcast_to(objective.spread.astype(logits.dtype), logits.shape)
            moved = smooth.loss.hessian_product(logits, targets, direction, sample_weight=weight, reduction="sum")
            diagonal = (moved * direction).sum(axis=1, keepdims=True)
        else:
            diagonal = smooth.loss.hessian_diagonal(logits, targets, sample_weight=weight, reduction="sum")
        diagonal = diagonal * diagonal.dtype.type(stands)

        def fill(block: int) -> None:
            span = slice(int(blocks.start[block]), int(blocks.start[block + 1]))
            if span.start == span.stop:
                return
            columns, k = column[span], int(output[span.start])
            blocks.matrix(block)[...] = self._gram(rows, columns, np.ascontiguousarray(diagonal[:, k]))

        for _ in self._run(fill, pieces):
            pass
        return every

    def _gram(self, rows: Array, columns: Index, weight: Array) -> Array:
        """Σ_i weight_i·v_i·v_iᵀ over scaled columns; a column beyond the last is the intercept's, all ones."""
        if isinstance(self._source, SparseDesign):
            return self._sparse_gram(columns, weight)
        taken = self._taken(rows, columns)
        if weight.min(initial=0.0) < 0:  # of losses that are not convex
            return np.asarray((taken * weight[:, None]).T @ taken)
        # A matrix times its own transpose takes half the work.
        taken *= np.sqrt(weight)[:, None]
        return np.asarray(taken.T @ taken)

    def _taken(self, rows: Array, columns: Index) -> Array:
        n_columns = self._objective.n_columns
        taken = np.empty((len(rows), len(columns)), dtype=rows.dtype)
        inside = columns < n_columns
        last = int(inside.sum())  # intercepts come last
        np.take(rows, columns[:last], axis=1, out=taken[:, :last])
        taken[:, last:] = 1
        return taken

    def _sparse_gram(self, columns: Index, weight: Array) -> Array:
        # With v = (x − μ)/s:  V'DV = S⁻¹·(X'DX − μ·(D'X) − (X'D)·μ' + ΣD·μμ')·S⁻¹.
        n_columns = self._objective.n_columns
        inside = columns[columns < n_columns]
        taken = self._by_column()[:, inside].astype(np.float64)
        weight = weight.astype(np.float64)
        weighted = taken.copy()
        weighted.data = taken.data * weight[taken.indices]
        size, last = len(columns), len(inside)
        out = np.empty((size, size))
        product = taken.T @ weighted
        out[:last, :last] = product.toarray()
        first = np.asarray(weighted.sum(axis=0)).ravel()
        total = float(weight.sum())
        scaling = self._objective.smooth.scaling
        centre, scale = scaling.centre[inside], scaling.scale[inside]
        cross = np.outer(first, centre)
        out[:last, :last] += total * np.outer(centre, centre) - cross - cross.T
        out[:last, :last] /= np.outer(scale, scale)
        if last < size:
            out[:last, last:] = ((first - total * centre) / scale)[:, None]
            out[last:, :last] = out[:last, last:].T
            out[last:, last:] = total
        return out

    def _coupled_block(self, rows: Array, column: Index, output: Index, p: Array, scale: Array) -> Array:
        """Σ_i κ_i·(diag p_i − p_i·p_iᵀ)_kl·v_ij·v_im among variables (j, k) and (m, l)."""
        if isinstance(self._source, SparseDesign):
            rows = self._dense_columns(column)
        size = len(column)
        out = np.zeros((size, size))
        every: list[Array] = []
        pieces = [slice(begin, begin + 1024) for begin in range(0, len(p), 1024)]

        def part(piece: slice) -> Array:
            taken = rows[piece] if isinstance(self._source, SparseDesign) else self._taken(rows[piece], column)
            root = np.sqrt(scale[piece])[:, None]
            share = p[piece][:, output] * root
            product = taken * share
            return np.asarray(product.T @ product)

        every = list(self._run(part, pieces))
        for found in every:
            out -= found
        for k in range(p.shape[1]):
            chosen = np.flatnonzero(output == k)
            if len(chosen) == 0:
                continue
            weight = (p[:, k] * scale)[:, None]
            taken = rows[:, chosen] if isinstance(self._source, SparseDesign) else self._taken(rows, column[chosen])
            out[np.ix_(chosen, chosen)] += (taken * weight).T @ taken
        return out

    def _general_block(
        self, rows: Array, column: Index, output: Index, logits: Array, targets: Targets, weight: Vector | None
    ) -> Array:
        """Σ_i (H_i)_kl·v_ij·v_im among variables (j, k) and (m, l), by products with the losses' Hessians H_i."""
        if isinstance(self._source, SparseDesign):
            rows = self._dense_columns(column)
        out = np.zeros((len(column), len(column)))
        chosen = [np.flatnonzero(output == k) for k in range(logits.shape[1])]

        def taken(k: int) -> Array:
            if isinstance(self._source, SparseDesign):
                return rows[:, chosen[k]]
            return self._taken(rows, column[chosen[k]])

        direction = np.zeros_like(logits)
        for k in range(logits.shape[1]):
            if len(chosen[k]) == 0:
                continue
            direction[:, k] = 1
            moved = self._objective.smooth.loss.hessian_product(
                logits, targets, direction, sample_weight=weight, reduction="sum"
            )
            direction[:, k] = 0
            own = taken(k)
            for other in range(k + 1):
                if len(chosen[other]) and moved[:, other].any():
                    found = (taken(other) * moved[:, other, None]).T @ own
                    out[np.ix_(chosen[other], chosen[k])] = found
                    out[np.ix_(chosen[k], chosen[other])] = found.T
        return out

    def _dense_columns(self, column: Index) -> Array:
        scaling = self._objective.smooth.scaling
        n_columns = self._objective.n_columns
        inside = column < n_columns
        used = column[inside]
        out = np.ones((self._source.shape[0], len(column)), dtype=self._source.dtype)
        dense = self._by_column()[:, used].toarray()
        out[:, inside] = (dense - scaling.centre[used]) / scaling.scale[used]
        return out

    def _rows(self, count: int) -> tuple[Any, Array]:
        """Row indices, and for dense data the rows themselves, standardised; more rows are drawn only when asked."""
        if isinstance(self._source, SparseDesign):
            return range(self._source.shape[0]), np.empty((self._source.shape[0], 0))
        wide = 8 * self._source.shape[0] * self._source.shape[1]
        if self._row_dtype != np.float64 and self._passes() > HARD and wide <= KEPT_BYTES:
            self._row_dtype, self._sampled = np.dtype(np.float64), None
        if self._sampled is None or len(self._sampled[0]) < count:
            n_rows = self._source.shape[0]
            scaling = self._objective.smooth.scaling
            if count >= n_rows:
                which = np.arange(n_rows)
            else:
                which = np.sort(np.random.default_rng(0).choice(n_rows, count, replace=False))
            rows = np.empty((len(which), self._source.shape[1]), dtype=self._row_dtype)
            for begin in range(0, len(which), 1024):
                piece = which[begin : begin + 1024]
                rows[begin : begin + len(piece)] = (self._source.matrix[piece] - scaling.centre) / scaling.scale
            self._sampled = (which, rows)
        return self._sampled


def _cut(counts: Index) -> list[int]:
    """Block sizes: one block an output, cut evenly where it would be too large."""
    sizes: list[int] = []
    for count in counts.tolist():
        pieces = max(1, -(-count // MOST_IN_BLOCK))
        sizes += [count // pieces + (piece < count % pieces) for piece in range(pieces)]
    return sizes
