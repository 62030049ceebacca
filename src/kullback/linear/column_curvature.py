"""A preconditioner for sparse data: the whole Hessian of the fullest columns, a block for each of the others.

One-hot categories, hashed words and the like have a few columns that most rows fill and many that few rows do. Two
rare columns seldom meet in a row, so that the Hessian between them is all but zero; turning them onto principal axes,
as `SubsampledCurvature` does, would only mix them. Here the fullest columns get the whole Hessian, from a sample of
rows, and every other column its own C × C block (or a diagonal), from all rows, since a sample would hardly hold any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy import sparse

from kullback import kernels
from kullback.linear.curvature import (
    BLOCK_CLASSES,
    KeptEstimate,
    Plan,
    Sums,
    draw_rows,
    minor_inverse,
    pick_candidates,
)
from kullback.linear.design import KEPT_BYTES, Array, SparseDesign
from kullback.linear.objective import Block, LinearObjective, Vector
from kullback.linear.row_curvature import coupled_probabilities, row_scale, structure_of
from kullback.linear.solvers.base import Apply
from kullback.linear.whole_hessian import WholeHessian

# Rows whose curvature is added up at a time.
PIECE_ROWS = 1 << 12


class ColumnCurvature:
    """Inverse Hessians, estimated by columns; see the module.

    Args:
        objective: one over a `SparseDesign`.
        source: its matrix.
        how: what `plan` chose.
        dtype: float32 or float64, of everything but the factorisation.
        run: runs several calls at once and keeps their order.
        keep: whether sums over rows are kept for other penalties; see `under`.
    """

    def __init__(
        self,
        objective: LinearObjective,
        source: SparseDesign,
        how: Plan,
        dtype: Any,
        run: Callable[..., Iterator[Any]] = map,
        *,
        keep: bool = False,
    ) -> None:
        self._objective, self._how, self._run = objective, how, run
        self._kept = KeptEstimate(keep)
        self._dtype = np.dtype(dtype)
        loss = objective.loss
        self._coupled = structure_of(loss) == "coupled" and objective.n_outputs > 1
        self._blocks = self._coupled and objective.n_outputs <= BLOCK_CLASSES
        self._footing = scaling = objective.scaling
        filled = source.stored()
        order = np.argsort(-filled, kind="stable")
        n_lead = min(how.leading - objective.fit_intercept, source.shape[1])
        self._lead, self._rare = np.sort(order[:n_lead]), np.sort(order[n_lead:])
        self._bend_columns()
        # ---- the fullest columns, dense, from a sample of rows
        rows, self._share = pick_candidates(objective.targets, source.shape[0], how.candidates)
        self._sample = source.some_rows(rows)
        dense = self._sample[:, self._lead].toarray() - scaling.centre[self._lead]
        dense = (dense / scaling.scale[self._lead]).astype(dtype)
        if objective.fit_intercept:
            dense = np.column_stack([dense, np.ones(len(dense), dtype)])
        self._rows = dense
        self._reach = np.einsum("ij,ij->i", dense, dense)
        self._targets = objective.targets[rows]
        weight = objective.sample_weight
        self._weight = None if weight is None else weight[rows]
        self._factor = (
            row_scale(loss, self._targets, objective.n_outputs, self._weight) if self._coupled else np.ones(len(dense))
        )
        # ---- squares of the others, from all rows
        self._source = source
        kept = int(filled[self._rare].sum()) * (self._dtype.itemsize + 4) <= KEPT_BYTES
        self._squares = self._squared(source.columns(self._rare).matrix) if kept else None

    def under(self, objective: LinearObjective) -> None:
        """Go on with the same data under another penalty; columns keep the footing they had first."""
        self._objective = objective
        self._kept.change_penalty()
        self._bend_columns()

    def refine(self) -> bool:
        """False: columns that it knows by their squares alone leave it a rough estimate in any precision."""
        return False

    def inverse_at(self, parameters: Vector) -> Apply | None:
        """An estimate of the inverse Hessian at (P,) parameters, or None where it cannot be factorised."""
        shape = self._shape(parameters)
        if shape is None:
            return None
        diagonal = (shape * (1 - shape) if self._coupled else shape) * (self._factor * self._share)[:, None]

        def summed() -> Sums:
            minor = self._minor(parameters) if len(self._rare) else np.empty((0, 0))
            return Sums(diagonal, self._leading(shape, diagonal), minor)

        return self._kept.inverse(diagonal, summed, self._inverse_of)

    def _inverse_of(self, sums: Sums) -> Apply | None:
        """The inverse of the estimate with the penalty as it is."""
        leading = sums.leading.inverse(self._lead_bend, self._run)
        if leading is None:
            return None
        rounding = float(np.finfo(self._dtype).eps)
        minor = minor_inverse(sums.minor, self._bend, rounding) if len(self._rare) else np.copy
        n_outputs, n_columns = self._objective.n_outputs, self._objective.design.shape[1]
        lead, rare, longer = self._lead, self._rare, self._longer[:, None]
        if self._objective.fit_intercept:
            lead = np.append(lead, n_columns)

        def apply(vector: Vector) -> Vector:
            matrix = vector.reshape(-1, n_outputs) * longer
            out = np.empty_like(matrix)
            out[lead] = leading(matrix[lead])
            out[rare] = minor(matrix[rare])
            out *= longer
            return out.ravel()

        return apply

    def _shape(self, parameters: Vector) -> Array | None:
        """(n, C) probabilities of the sampled rows or, of a loss that is not coupled, its second derivatives."""
        objective, loss = self._objective, self._objective.loss
        weights, intercept = objective.scaling.to_raw(*objective.split(parameters))
        logits = np.empty((self._sample.shape[0], objective.n_outputs), self._dtype)
        sample = self._sample
        kernels.active().csr_product(
            sample.indptr, sample.indices, sample.data, np.ascontiguousarray(weights, self._dtype), logits
        )
        logits += intercept.astype(self._dtype)
        if not np.isfinite(logits).all():
            return None
        if self._coupled:
            return coupled_probabilities(loss, logits)
        # A loss that is not convex may bend down; an estimate that is to be inverted must not.
        bend = loss.hessian_diagonal(logits, self._targets, sample_weight=self._weight, reduction="sum")
        return np.maximum(bend, 0)

    def _leading(self, shape: Array, diagonal: Array) -> WholeHessian:
        """The whole Hessian of the fullest columns."""
        picked, share = draw_rows(diagonal, self._reach, self._how.sampled)
        factor = (self._factor * self._share)[picked] * share / self._objective.total_weight
        shape = np.ascontiguousarray(shape[picked]).astype(self._dtype, copy=False)
        return WholeHessian.of_rows(self._rows[picked], shape, factor, coupled=self._coupled, run=self._run)

    def _bend_columns(self) -> None:
        """The penalty's curvature: among the fullest columns, and of each other one."""
        ours = self._footing.scale
        penalty, self._longer = self._objective.penalty / ours**2, self._objective.scaling.scale / ours
        if self._objective.fit_intercept:
            self._longer = np.append(self._longer, 1.0)
        along = penalty[self._lead]
        self._lead_bend = np.diag(np.append(along, 0.0) if self._objective.fit_intercept else along)
        self._bend = penalty[self._rare]

    def _squared(self, rare: Any) -> Any:
        """The squares of some rows of the standardised rare columns; their means count for little."""
        scale = self._footing.scale[self._rare]
        data = np.square(rare.data / scale[rare.indices]).astype(self._dtype)
        return sparse.csr_array((data, rare.indices, rare.indptr), shape=rare.shape)

    def _squares_of(self, rows: slice) -> Any:
        """The same for consecutive rows, kept or made anew."""
        if self._squares is not None:
            return self._squares[rows]
        return self._squared(self._source.some_rows(rows)[:, self._rare])

    def _minor(self, parameters: Vector) -> Vector:
        """A block or a diagonal for each rare column."""
        objective, loss = self._objective, self._objective.loss
        n_outputs, n_rare = objective.n_outputs, len(self._rare)
        width = n_outputs * n_outputs if self._blocks else n_outputs

        def one(logits: Array, block: Block) -> Array:
            total = np.zeros((n_rare, width), self._dtype)
            for first in range(block.rows.start, block.rows.stop, PIECE_ROWS):
                entries = self._squares_of(slice(first, min(first + PIECE_ROWS, block.rows.stop)))
                held = np.flatnonzero(np.diff(entries.indptr))
                entries, some = entries[held], held + (first - block.rows.start)
                targets = block.targets[some]
                weight = None if block.sample_weight is None else block.sample_weight[some]
                if self._coupled:
                    p = coupled_probabilities(loss, logits[some])
                    factor = row_scale(loss, targets, n_outputs, weight).astype(p.dtype)[:, None]
                    if self._blocks:
                        curvature = -(p[:, :, None] * (p * factor)[:, None, :]).reshape(len(some), -1)
                        curvature[:, :: n_outputs + 1] += p * factor
                    else:
                        curvature = p * (1 - p) * factor
                else:
                    bend = loss.hessian_diagonal(logits[some], targets, sample_weight=weight, reduction="sum")
                    curvature = np.maximum(bend, 0)
                kernels.active().csr_transposed(
                    entries.indptr, entries.indices, entries.data, curvature.astype(self._dtype, copy=False), total
                )
            return total

        summed = objective.over_logits(parameters, one) / objective.total_weight
        return np.asarray(summed.reshape(-1, n_outputs, n_outputs) if self._blocks else summed)
