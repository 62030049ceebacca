"""A preconditioner: the inverse of the Hessian of a few well-chosen rows.

Most of what slows a quasi-Newton method down on a softmax model is known from a sample of the data: which directions
of the columns are long, and which classes pull on one another. So the Hessian is built from a sample of rows,

    Σ_i κ_i·H_i ⊗ x_i·x_iᵀ,    H_i = diag p_i − p_i·p_iᵀ (or a diagonal),

and factorised, a few times in a fit, as the probabilities sharpen. Where columns × classes are too many for that, the
columns are first rotated to the principal axes of the sample: the leading axes get the whole Hessian, each other axis
its own C × C block (or a diagonal), which is most of the truth, since along those axes there is little data.

Rows are drawn by how much curvature they hold in any class, so that rare classes and the few rows still in doubt late
in a fit are not missed. The draw is deterministic.

Sources: Böhning (1992), "Multinomial logistic regression algorithm", for the Hessian's form; Byrd, Chin, Neveitt &
Nocedal (2011), "On the use of stochastic Hessian information", for sampling it; Roosta-Khorasani & Mahoney (2019),
"Sub-sampled Newton methods", for drawing rows by their curvature.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import linalg

from kullback.linear.design import Array, DenseDesign, StandardisedDesign
from kullback.linear.objective import LinearObjective, Vector
from kullback.linear.row_curvature import coupled_probabilities, probabilities_at_zero, row_scale, structure_of
from kullback.linear.solvers.base import Apply
from kullback.linear.whole_hessian import RIDGE, WholeHessian, factorised, gram_of, solved
from kullback.targets import ClassIndices, Targets

# The most parameters that are factorised together: beyond, a factorisation costs more than it saves.
MOST_TOGETHER = 2000
# Up to this many the factorisation costs less than a call of a function; it is not weighed at all.
LEAST_TOGETHER = 200
# Candidate rows kept in memory, as bytes of float32.
CANDIDATE_BYTES = 1 << 26
# Classes up to which each minor axis gets a C × C block.
BLOCK_CLASSES = 32
# Numbers that are standardised at a time, so that they stay in a cache.
PIECE_ELEMENTS = 1 << 17
# The most rows that are sampled because parameters are few.
MOST_SAMPLED = 1 << 16
# A class with fewer examples than this is a candidate with all of them.
RARE = 200
# What m parameters cost to build and factorise together, as a multiple of m³.
WHOLE_WORK = 0.55
# A fit that has used so many passes for each that the whole Hessian costs is one that needs the whole Hessian.
LATE_SHARE = 0.5
# The same beside passes in one call of the kernels, which are as fast as large products.
WHOLE_TIME = 4 * WHOLE_WORK
# What the calls of functions for an estimate and for a pass cost besides, in multiplications.
ESTIMATE_CALLS, PASS_CALLS = 2e7, 2e6
# An estimate serves another penalty too until the curvature of the rows has changed by this share.
DRIFT = 0.3


@dataclass(frozen=True)
class Plan:
    """How a preconditioner is built.

    Attributes:
        leading: principal axes (or columns, if all are taken) with a whole Hessian.
        rotated: whether the leading ones are a part only; dense columns are then rotated to their principal axes.
        sampled: rows the Hessian is built from.
        candidates: rows those are drawn from.
        one_pass: what a pass over the data costs, in multiplications.
    """

    leading: int
    rotated: bool
    sampled: int
    candidates: int
    one_pass: float = 0.0


def plan(n_rows: int, n_columns: int, n_outputs: int, *, coupled: bool, n_fits: int = 1) -> Plan | None:
    """Weigh a factorisation against the passes over dense data that it saves; None where it cannot pay.

    The unit is a multiplication with an addition in a pass, whose products are narrow: 2·N·D·C of them, and some
    25·N·C for exponentials. To build and factorise m×m from 3·m rows takes about 2.2·m³, once for all outputs or once
    for each, in products so large that they run four times as fast. Axes that columns were turned to serve all fits.
    """
    one_pass = 2.0 * n_rows * n_columns * n_outputs + 25.0 * n_rows * n_outputs
    leading = _affordable(2.0 * one_pass, n_outputs, coupled)
    rotated = leading < 0.8 * n_columns
    if not rotated:
        leading = n_columns
    turn = 10.0 * n_columns**3 / n_fits
    if rotated and (turn > max(60 * one_pass, 10.0 * LEAST_TOGETHER**3) or leading < 2):
        return None
    return _sampling(leading, rotated, n_rows, n_columns, n_outputs, one_pass, coupled)


def plan_sparse(n_rows: int, n_columns: int, n_outputs: int, n_entries: int, *, coupled: bool) -> Plan | None:
    """The same for sparse data, whose fullest columns get the whole Hessian; see `ColumnCurvature`.

    A pass takes 2·E·C for E stored entries. Fits on sparse data need more of them, because rare columns and full ones
    differ so much: building is allowed to cost ten times as many passes as on dense data. On flights with categories
    (250000 × 1125, 16 classes), 125 whole columns needed 39 iterations for a relative gap of 1e-4, 60 needed 105, 25
    needed 507, and none 735.
    """
    one_pass = 2.0 * n_entries * n_outputs + 25.0 * n_rows * n_outputs
    leading = min(_affordable(20.0 * one_pass, n_outputs, coupled), n_columns)
    if leading < 2:
        return None
    return _sampling(leading, leading < n_columns, n_rows, leading, n_outputs, one_pass, coupled, rows_each=2)


def _affordable(work: float, n_outputs: int, coupled: bool) -> int:
    """How many columns can be factorised together for as many multiplications."""
    together = (work / (WHOLE_WORK * (1 if coupled else n_outputs))) ** (1 / 3)
    together = min(max(together, LEAST_TOGETHER), MOST_TOGETHER)
    return int(together // n_outputs) if coupled else int(together)


def _sampling(
    leading: int,
    rotated: bool,
    n_rows: int,
    n_columns: int,
    n_outputs: int,
    one_pass: float,
    coupled: bool,
    *,
    rows_each: int = 3,
) -> Plan:
    """How many rows to sample, `rows_each` or more for a parameter, out of how many kept of `n_columns` each."""
    size = leading * n_outputs if coupled else leading
    # Where parameters are few, more rows cost little beside the passes, and make the estimate better.
    cheap = min(int(8.0 * one_pass / ((1 if coupled else n_outputs) * size**2)), MOST_SAMPLED)
    sampled = min(n_rows, max(500, rows_each * size, cheap))
    most = CANDIDATE_BYTES // (4 * n_columns)
    candidates = min(n_rows, max(sampled, min(most, max(3 * sampled, 3_000))))
    return Plan(leading, rotated, min(sampled, candidates), candidates, one_pass)


@dataclass(frozen=True, eq=False)
class Sums:
    """What an estimate takes from the rows, for any penalty.

    Attributes:
        diagonal: (n, C) the curvature of the candidate rows that it was made at.
        leading: the whole Hessian along the leading axes or columns.
        minor: for each other one a C × C block, or a diagonal of C.
    """

    diagonal: Array
    leading: WholeHessian
    minor: Vector = field(default_factory=lambda: np.empty((0, 0)))

    def hold(self, diagonal: Array) -> bool:
        """Whether they still do where the curvature of the candidate rows is this."""
        return bool(np.abs(diagonal - self.diagonal).sum() <= DRIFT * self.diagonal.sum())


class KeptEstimate:
    """The last sums and the inverse made of them, as long as they serve.

    Args:
        keep: whether anything is kept.
    """

    def __init__(self, keep: bool) -> None:
        self._keep = keep
        self._sums: Sums | None = None
        self._inverse: Apply | None = None

    def inverse(
        self, diagonal: Array, summed: Callable[[], Sums], inverse_of: Callable[[Sums], Apply | None]
    ) -> Apply | None:
        """The inverse where the curvature of the candidate rows is `diagonal`; what is missing for it is made."""
        if self._sums is None or not self._sums.hold(diagonal):
            self._sums, self._inverse = summed(), None
        if self._inverse is None:
            self._inverse = inverse_of(self._sums)
        found = self._inverse
        if not self._keep:
            self.forget()
        return found

    def change_penalty(self) -> None:
        """Forget the inverse, which is of one penalty, and keep the sums."""
        self._inverse = None

    def forget(self) -> None:
        """Forget the sums too."""
        self._sums = self._inverse = None


class SubsampledCurvature:
    """Inverse Hessians of a sample, at any parameters.

    Args:
        objective: a dense one.
        source: its matrix.
        how: what `plan` chose.
        dtype: float32 or float64, of everything but the factorisation.
        run: runs several calls at once and keeps their order.
        keep: whether sums over rows are kept for other penalties; see `under`.
    """

    def __init__(
        self,
        objective: LinearObjective,
        source: DenseDesign,
        how: Plan,
        dtype: Any,
        run: Callable[..., Iterator[Any]] = map,
        *,
        keep: bool = False,
    ) -> None:
        self._how = how
        self._kept = KeptEstimate(keep)
        self._objective = objective
        self._dtype = np.dtype(dtype)
        self._rounding = float(np.finfo(self._dtype).eps)
        self._run = run
        self._loss = objective.loss
        self._n_outputs = objective.n_outputs
        self._total_weight = objective.total_weight
        self._coupled = structure_of(objective.loss) == "coupled" and objective.n_outputs > 1
        self._source = source
        rows, self._share = pick_candidates(objective.targets, source.shape[0], how.candidates)
        self._picked = rows
        self._footing, self._fit_intercept = objective.scaling, objective.fit_intercept
        self._rows = self._standardised()
        # Rows far out in rare columns hold all the curvature there.
        self._reach = np.einsum("ij,ij->i", self._rows, self._rows) - float(objective.fit_intercept)
        self._targets = objective.targets[rows]
        weight = objective.sample_weight
        self._weight = None if weight is None else weight[rows]
        self._scale = (
            row_scale(self._loss, self._targets, self._n_outputs, self._weight) if self._coupled else np.empty(0)
        ).astype(self._dtype)
        self._axes: Array | None = None
        self._spread = np.empty(0)
        if how.rotated:
            self._axes, self._spread = self._principal_axes()
        self._bend()

    def under(self, objective: LinearObjective) -> None:
        """Go on with the same data under another penalty; columns keep the footing they had first."""
        self._objective = objective
        self._kept.change_penalty()
        self._bend()

    @property
    def passes(self) -> float:
        """How many passes over the data an estimate takes as long as; inf where it is not the whole Hessian."""
        if self._axes is not None:
            return math.inf
        blocks = 1 if self._coupled else self._n_outputs
        size = float(len(self._penalty) * self._n_outputs // blocks)
        return (WHOLE_TIME * size**3 * blocks + ESTIMATE_CALLS) / (self._how.one_pass + PASS_CALLS)

    def refine(self) -> bool:
        """Estimate in float64 from now on; False where that is so already, or where the estimate is a rough one."""
        if self._axes is not None or self._dtype == np.float64:
            return False
        self._dtype = np.dtype(np.float64)
        self._rounding = float(np.finfo(self._dtype).eps)
        self._scale = self._scale.astype(self._dtype)
        self._rows = self._standardised()
        self._kept.forget()
        return True

    def inverse_at(self, parameters: Vector) -> Apply | None:
        """An estimate of the inverse Hessian at (P,) parameters, or None where it cannot be factorised."""
        if self._axes is not None and self._whole_pays():
            self._axes = None
            self._kept.forget()
            size = len(self._penalty) * (self._n_outputs if self._coupled else 1)
            self._how = dataclasses.replace(self._how, sampled=max(self._how.sampled, 4 * size))
        if not parameters.any() and self._even():
            return self._at_zero()
        logits = self._rows @ (self._first(parameters) / self._longer[:, None]).astype(self._dtype)
        if not np.isfinite(logits).all():
            return None
        if self._coupled:
            shape = coupled_probabilities(self._loss, logits)
            factor = self._scale
            diagonal = shape * (1 - shape) * factor[:, None]
        else:
            shape = self._loss.hessian_diagonal(logits, self._targets, sample_weight=self._weight, reduction="sum")
            # A loss that is not convex may bend down; an estimate that is to be inverted must not.
            shape = np.maximum(shape, 0)
            factor = np.ones(len(shape), shape.dtype)
            diagonal = shape
        diagonal = diagonal * self._share.astype(diagonal.dtype)[:, None]
        return self._kept.inverse(diagonal, lambda: self._summed(shape, factor, diagonal), self._inverse_of)

    def _summed(self, shape: Array, factor: Array, diagonal: Array) -> Sums:
        """The loss's share of the estimate, from the curvature of the rows."""
        picked, share = draw_rows(diagonal, self._reach, self._how.sampled)
        factor = (factor * self._share)[picked] * share / self._total_weight
        shape, rows = np.ascontiguousarray(shape[picked]), self._rows[picked]
        lead = rows.shape[1] if self._axes is None else self._how.leading
        along = rows if self._axes is None else rows @ self._axes[:, :lead]
        leading = WholeHessian.of_rows(along, shape, factor, coupled=self._coupled, run=self._run)
        if self._axes is None:
            return Sums(diagonal, leading)
        few = slice(0, len(rows), max(1, len(rows) // 1000))
        minor = self._minor(rows[few] @ self._axes[:, lead:], shape[few], factor[few] * few.step)
        return Sums(diagonal, leading, minor)

    def _inverse_of(self, sums: Sums) -> Apply | None:
        """The inverse of the estimate with the penalty as it is."""
        leading = sums.leading.inverse(np.diag(self._penalty) if self._axes is None else self._lead_bend, self._run)
        if leading is None:
            return None
        if self._axes is None:
            return lambda vector: self._unrolled(leading(self._rolled(vector)))
        lead, axes = self._how.leading, self._axes
        minor = minor_inverse(sums.minor, self._axes_bend[lead:], self._rounding)

        def apply(vector: Vector) -> Vector:
            # A gradient near the optimum may be too small for float32: only its shape is rounded.
            size = float(np.abs(vector).max(initial=0.0)) or 1.0
            turned = (axes.T @ self._rolled(vector / size).astype(axes.dtype)).astype(np.float64)
            turned[:lead] = leading(turned[:lead])
            turned[lead:] = minor(turned[lead:])
            reach = float(np.abs(turned).max(initial=0.0)) or 1.0
            back = axes @ (turned / reach).astype(axes.dtype)
            return self._unrolled(back.astype(np.float64) * (size * reach))

        return apply

    # ------------------------------------------------------------ pieces

    def _whole_pays(self) -> bool:
        """Whether so many passes of this fit went by that the whole Hessian would have been cheaper.

        Those of earlier fits do not count: with another penalty the rows' curvature is another, and is summed anew.
        """
        size = len(self._penalty) * (self._n_outputs if self._coupled else 1)
        work = WHOLE_WORK * float(size) ** 3 * (1 if self._coupled else self._n_outputs)
        return size <= MOST_TOGETHER and LATE_SHARE * work <= self._objective.passes * self._how.one_pass

    def _even(self) -> bool:
        """Whether equal logits mean equal probabilities; and every row counts the same, where axes do not know."""
        if not self._coupled:
            return False
        if self._axes is not None and np.ptp(self._scale) > 1e-6 * float(self._scale.max(initial=0.0)):
            return False
        return float(np.ptp(probabilities_at_zero(self._loss, self._n_outputs))) < 1e-12

    def _at_zero(self) -> Apply | None:
        """The inverse at equal probabilities: (I − 11ᵀ/C)/C ⊗ XᵀDX + λI, one factorisation for all classes.

        Gradients have no part along equal shifts of all classes there, where this is not the inverse.
        """
        weight = self._scale.astype(np.float64) * self._share
        each = float(weight.sum()) / (self._total_weight * self._n_outputs)
        axes = self._axes
        if axes is not None:
            diagonal = (each * self._spread + self._axes_bend)[:, None]
            diagonal += RIDGE * self._rounding * diagonal.mean() + float(np.finfo(np.float64).tiny)

            def turned(vector: Vector) -> Vector:
                matrix = self._rolled(vector)
                return self._unrolled(axes @ ((axes.T @ matrix) / diagonal))

            return turned
        # Rows far out matter, so as many are taken as a pass over the data costs.
        work = float(len(self._rows)) * len(self._penalty) ** 2 / 4
        some = slice(None, None, max(1, int(work / max(self._how.one_pass, 1.0))))
        rows, weight = self._rows[some], weight[some]
        if np.ptp(weight) > 0:
            rows = rows * np.sqrt(weight).astype(self._dtype)[:, None]
            each /= float(weight.sum())
        else:
            each /= len(rows)
        hessian = gram_of(lambda cut: rows[cut], len(rows), rows.shape[1], self._run) * each
        factor = factorised(lambda: hessian + np.diag(self._penalty), self._rounding)
        if factor is None:
            return None
        return lambda vector: self._unrolled(solved(factor, self._rolled(vector)))

    def _minor(self, rows: Array, shape: Array, factor: Vector) -> Vector:
        """A C × C block or a diagonal of C for each minor axis."""
        squares = np.square(rows) * factor.astype(self._dtype)[:, None]
        if not self._coupled or self._n_outputs > BLOCK_CLASSES:
            spread = shape * (1 - shape) if self._coupled else shape
            return np.asarray((squares.T @ spread).astype(np.float64))
        n_outputs = self._n_outputs
        pairs = (shape[:, :, None] * shape[:, None, :]).reshape(len(shape), -1)
        blocks = -(squares.T @ pairs).astype(np.float64).reshape(-1, n_outputs, n_outputs)
        every = np.arange(n_outputs)
        blocks[:, every, every] += squares.T @ shape
        return np.asarray(blocks)

    def _bend(self) -> None:
        """The penalty's curvature: along the columns, none along the intercept, and along the axes.

        Among the leading axes it is whole, among the others its diagonal alone.
        """
        objective, ours = self._objective, self._footing.scale
        self._penalty, self._longer = objective.penalty / ours**2, objective.scaling.scale / ours
        if self._fit_intercept:
            self._penalty, self._longer = (
                np.concatenate([[own], of_columns]) for own, of_columns in ((0.0, self._penalty), (1.0, self._longer))
            )
        if self._axes is not None:
            lead = self._axes[:, : self._how.leading].astype(np.float64)
            self._lead_bend = (lead * self._penalty[:, None]).T @ lead
            self._axes_bend = self._penalty @ np.square(self._axes, dtype=np.float64)

    def _principal_axes(self) -> tuple[Array, Vector]:
        """(D, D) orthonormal axes, most spread first, and their mean squares; the intercept, if any, is the first."""
        first = 1 if self._fit_intercept else 0
        columns = self._rows[:, first:]
        few = columns[:: max(1, len(columns) // max(2000, 3 * columns.shape[1]))]
        squares = gram_of(lambda cut: few[cut], len(few), few.shape[1], self._run).astype(self._dtype)
        lengths, axes = linalg.eigh(squares, check_finite=False, driver="evd", overwrite_a=True)
        whole = np.zeros((columns.shape[1] + first,) * 2, dtype=self._dtype)
        whole[:first, :first] = 1.0
        whole[first:, first:] = axes[:, ::-1]
        spread = np.concatenate([np.ones(first), np.maximum(lengths[::-1], 0.0).astype(np.float64) / len(few)])
        return whole, spread

    def _rolled(self, vector: Vector) -> Vector:
        """A (P,) gradient as (D, C) on the footing of the sample, the intercept first."""
        return self._first(vector) * self._longer[:, None]

    def _first(self, vector: Vector) -> Vector:
        matrix = vector.reshape(-1, self._n_outputs)
        return np.concatenate([matrix[-1:], matrix[:-1]]) if self._fit_intercept else matrix

    def _unrolled(self, matrix: Vector) -> Vector:
        """(D, C) parameters on the footing of the sample as (P,)."""
        matrix = matrix * self._longer[:, None]
        ordered = np.concatenate([matrix[1:], matrix[:1]]) if self._fit_intercept else matrix
        return np.ascontiguousarray(ordered).ravel()

    def _standardised(self) -> Array:
        """The candidate rows standardised, with a column of ones before the others if there is an intercept.

        That is first so that it is always one of the leading axes.
        """
        source, own, dtype = self._source, self._objective.design, self._dtype
        standardised = StandardisedDesign(source, self._footing, dtype)
        if isinstance(own, StandardisedDesign) and own.dtype == dtype and self._objective.scaling is self._footing:
            standardised = own
        first, n_rows = int(self._fit_intercept), len(self._share)
        rows = np.empty((n_rows, source.shape[1] + first), dtype)
        rows[:, :first] = 1
        step = max(1, PIECE_ELEMENTS // source.shape[1])

        def fill(start: int) -> None:
            piece = slice(start, min(start + step, n_rows))
            rows[piece, first:] = standardised.take(piece if isinstance(self._picked, slice) else self._picked[piece])

        for _ in self._run(fill, range(0, n_rows, step)):
            pass
        return rows


def minor_inverse(sums: Vector, bend: Vector, rounding: float) -> Apply:
    """The inverse of one block or diagonal for each axis, applied to (axes, C).

    Args:
        sums: (axes, C, C) or (axes, C).
        bend: (axes,) the penalty's share.
        rounding: of the sums.
    """
    if sums.ndim == 2:
        diagonal = sums + (bend[:, None] + RIDGE * rounding * sums.mean() + np.finfo(np.float64).tiny)
        return lambda vector: vector / diagonal
    n_outputs = sums.shape[1]
    every = np.arange(n_outputs)
    own = sums[:, every, every]
    # Equal shifts of all classes change no probability: curvature is put there, so that rounding stays small.
    blocks = sums + own.mean(axis=1)[:, None, None] / n_outputs
    blocks[:, every, every] += bend[:, None] + RIDGE * rounding * np.abs(own).mean() + np.finfo(np.float64).tiny
    inverse = np.linalg.inv(blocks)
    return lambda vector: np.asarray((inverse @ vector[:, :, None])[:, :, 0])


def pick_candidates(targets: Targets, n_rows: int, count: int) -> tuple[Any, Vector]:
    """Row indices, and how many rows each stands for."""
    if count >= n_rows:
        return slice(None), np.ones(n_rows)
    rare = np.zeros(n_rows, dtype=bool)
    if isinstance(targets, ClassIndices):
        indices = np.asarray(targets.indices)
        known = indices >= 0
        counts = np.bincount(indices[known])
        rare[known] = counts[indices[known]] < RARE
        if rare.sum() > count // 2:
            rare[:] = False
    common = np.flatnonzero(~rare)
    drawn = np.random.default_rng(0).choice(common, count - int(rare.sum()), replace=False)
    rows = np.sort(np.concatenate([np.flatnonzero(rare), drawn]))
    return rows, np.where(rare[rows], 1.0, len(common) / len(drawn))


def draw_rows(curvature: Array, reach: Array, count: int) -> tuple[Any, Vector]:
    """Pick about `count` rows by their share of any output's curvature (n, C) and their squared length (n,).

    Also returns how many rows each stands for.
    """
    if count >= len(curvature):
        return slice(None), np.ones(len(curvature))
    whole = curvature.sum(axis=0, dtype=np.float64)
    shares = np.divide(curvature, whole, out=np.zeros(curvature.shape), where=whole > 0).sum(axis=1)
    even = np.full(len(shares), 1.0 / len(shares))
    outlying = shares * (reach / max(float(reach.mean()), 1e-300))
    mixed = np.zeros(len(shares))
    for part in (shares, outlying, even):
        mixed += part / max(float(part.sum()), 1e-300)
    chance = np.minimum(1.0, mixed * (count / mixed.sum()))
    # Equally spaced points along the summed chances: every row is met as often as it should be, to within one.
    ends = np.cumsum(chance)
    picked = np.searchsorted(ends, np.arange(0.5, ends[-1]))
    picked = picked[(np.diff(picked, prepend=-1) > 0) & (picked < len(chance))]
    return picked, 1.0 / chance[picked]
