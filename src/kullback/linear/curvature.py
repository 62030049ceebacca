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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import linalg
from scipy.linalg import lapack

from kullback.linear.design import Array, DenseDesign, Map, StandardisedDesign
from kullback.linear.objective import LinearObjective, Vector
from kullback.linear.row_curvature import coupled_probabilities, row_scale, structure_of
from kullback.linear.solvers.base import Apply
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
# What is added to the diagonal before factorising, as a multiple of its mean and of the rounding of the sums.
RIDGE = 10.0
# Cuts of a product that runs on several threads; fixed, so that rounding does not depend on their number.
CUTS = 4
# Up to this many multiplications a product is not cut.
FEW_PRODUCTS = 2 * 10**7
FEW_ELEMENTS = 2 * 10**5


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


def plan(n_rows: int, n_columns: int, n_outputs: int, *, coupled: bool) -> Plan | None:
    """Weigh a factorisation against the passes over dense data that it saves; None where it cannot pay.

    The unit is a multiplication with an addition in a pass, whose products are narrow: 2·N·D·C of them, and some
    25·N·C for exponentials. To build and factorise m×m from 4·m rows takes about 2.2·m³, once for all outputs or once
    for each, in products so large that they run four times as fast.
    """
    one_pass = 2.0 * n_rows * n_columns * n_outputs + 25.0 * n_rows * n_outputs
    leading = _affordable(2.0 * one_pass, n_outputs, coupled)
    rotated = leading < 0.8 * n_columns
    if not rotated:
        leading = n_columns
    turn = 10.0 * n_columns**3
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
    rows_each: int = 4,
) -> Plan:
    """How many rows to sample, `rows_each` or more for a parameter, out of how many kept of `n_columns` each."""
    size = leading * n_outputs if coupled else leading
    # Where parameters are few, more rows cost little beside the passes, and make the estimate better.
    cheap = min(int(8.0 * one_pass / ((1 if coupled else n_outputs) * size**2)), MOST_SAMPLED)
    sampled = min(n_rows, max(500, rows_each * size, cheap))
    most = CANDIDATE_BYTES // (4 * n_columns)
    candidates = min(n_rows, max(sampled, min(most, max(3 * sampled, 3_000))))
    return Plan(leading, rotated, min(sampled, candidates), candidates, one_pass)


class SubsampledCurvature:
    """Inverse Hessians of a sample, at any parameters.

    Args:
        objective: a dense one.
        source: its matrix.
        how: what `plan` chose.
        dtype: float32 or float64, of everything but the factorisation.
        run: runs several calls at once and keeps their order.
    """

    def __init__(
        self,
        objective: LinearObjective,
        source: DenseDesign,
        how: Plan,
        dtype: Any,
        run: Callable[..., Iterator[Any]] = map,
    ) -> None:
        self._how = how
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
        self._rows = _standardised(source, objective, rows, len(self._share), self._dtype, run)
        # Rows far out in rare columns hold all the curvature there.
        self._reach = np.einsum("ij,ij->i", self._rows, self._rows) - float(objective.fit_intercept)
        self._penalty = objective.penalty / objective.scaling.scale**2
        if objective.fit_intercept:
            self._penalty = np.concatenate([[0.0], self._penalty])
        self._fit_intercept = objective.fit_intercept
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
            # the penalty along the axes: whole among the leading ones, else its diagonal alone
            lead = self._axes[:, : how.leading].astype(np.float64)
            self._lead_bend = (lead * self._penalty[:, None]).T @ lead
            self._bend = self._penalty @ np.square(self._axes, dtype=np.float64)

    def refine(self) -> bool:
        """Estimate in float64 from now on; False where that is so already, or where the estimate is a rough one."""
        if self._axes is not None or self._dtype == np.float64:
            return False
        self._dtype = np.dtype(np.float64)
        self._rounding = float(np.finfo(self._dtype).eps)
        self._scale = self._scale.astype(self._dtype)
        self._rows = _standardised(
            self._source, self._objective, self._picked, len(self._share), self._dtype, self._run
        )
        return True

    def inverse_at(self, parameters: Vector) -> Apply | None:
        """An estimate of the inverse Hessian at (P,) parameters, or None where it cannot be factorised."""
        if self._axes is not None and self._whole_pays():
            self._axes = None
            size = len(self._penalty) * (self._n_outputs if self._coupled else 1)
            self._how = dataclasses.replace(self._how, sampled=max(self._how.sampled, 4 * size))
        if not parameters.any() and self._even():
            return self._at_zero()
        logits = self._rows @ self._rolled(parameters).astype(self._dtype)
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
        picked, share = draw_rows(diagonal, self._reach, self._how.sampled)
        factor = (factor * self._share)[picked] * share / self._total_weight
        shape, rows = np.ascontiguousarray(shape[picked]), self._rows[picked]
        if self._axes is None:
            every = self._whole(rows, shape, factor, np.diag(self._penalty))
            return None if every is None else lambda vector: self._unrolled(every(self._rolled(vector)))
        lead = self._how.leading
        tail_rows = slice(0, len(rows), max(1, len(rows) // 1000))
        leading = self._whole(rows @ self._axes[:, :lead], shape, factor, self._lead_bend)
        if leading is None:
            return None
        step = tail_rows.step
        minor = self._minor(
            rows[tail_rows] @ self._axes[:, lead:],
            shape[tail_rows],
            factor[tail_rows] * step,
            self._bend[lead:],
        )
        axes = self._axes

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
        """Whether so many passes went by that the whole Hessian would have been cheaper."""
        size = len(self._penalty) * (self._n_outputs if self._coupled else 1)
        work = WHOLE_WORK * float(size) ** 3 * (1 if self._coupled else self._n_outputs)
        return size <= MOST_TOGETHER and LATE_SHARE * work <= self._objective.passes * self._how.one_pass

    def _even(self) -> bool:
        """Whether equal logits mean equal probabilities, and every row counts the same."""
        if not self._coupled or np.ptp(self._scale) > 1e-6 * float(self._scale.max(initial=0.0)):
            return False
        p = coupled_probabilities(self._loss, np.zeros((1, self._n_outputs)))
        return float(np.ptp(p)) < 1e-12

    def _at_zero(self) -> Apply | None:
        """The inverse at equal probabilities: (I − 11ᵀ/C)/C ⊗ XᵀX + λI, one factorisation for all classes.

        Gradients have no part along equal shifts of all classes there, where this is not the inverse.
        """
        each = float(self._scale[0] * self._share.sum()) / (self._total_weight * self._n_outputs)
        axes = self._axes
        if axes is not None:
            diagonal = (each * self._spread + self._bend)[:, None]
            diagonal += RIDGE * self._rounding * diagonal.mean() + float(np.finfo(np.float64).tiny)

            def turned(vector: Vector) -> Vector:
                matrix = self._rolled(vector)
                return self._unrolled(axes @ ((axes.T @ matrix) / diagonal))

            return turned
        # Rows far out matter, so as many are taken as a pass over the data costs.
        work = float(len(self._rows)) * len(self._penalty) ** 2 / 4
        rows = self._rows[:: max(1, int(work / max(self._how.one_pass, 1.0)))]
        hessian = _product(lambda cut: rows[cut], len(rows), rows.shape[1], self._run) * (each / len(rows))
        factorised = _factorise(hessian + np.diag(self._penalty), self._rounding)
        if factorised is None:
            return None
        return lambda vector: self._unrolled(_solved(factorised, self._rolled(vector)))

    def _whole(self, rows: Array, shape: Array, factor: Vector, bend: Vector) -> Apply | None:
        return whole_inverse(rows, shape, factor, bend, coupled=self._coupled, run=self._run)

    def _minor(self, rows: Array, shape: Array, factor: Vector, bend: Vector) -> Apply:
        """One block or diagonal for each minor axis."""
        squares = np.square(rows) * factor.astype(self._dtype)[:, None]
        if not self._coupled or self._n_outputs > BLOCK_CLASSES:
            spread = shape * (1 - shape) if self._coupled else shape
            diagonal = (squares.T @ spread).astype(np.float64)
            diagonal += bend[:, None] + RIDGE * self._rounding * diagonal.mean() + np.finfo(np.float64).tiny
            return lambda vector: vector / diagonal
        n_outputs = self._n_outputs
        pairs = (shape[:, :, None] * shape[:, None, :]).reshape(len(shape), -1)
        blocks = -(squares.T @ pairs).astype(np.float64).reshape(-1, n_outputs, n_outputs)
        every = np.arange(n_outputs)
        blocks[:, every, every] += squares.T @ shape
        ridge = RIDGE * self._rounding * np.abs(blocks[:, every, every]).mean()
        blocks += blocks[:, every, every].mean(axis=1)[:, None, None] / n_outputs
        blocks[:, every, every] += bend[:, None] + ridge + np.finfo(np.float64).tiny
        inverse = np.linalg.inv(blocks)
        return lambda vector: np.asarray((inverse @ vector[:, :, None])[:, :, 0])

    def _principal_axes(self) -> tuple[Array, Vector]:
        """(D, D) orthonormal axes, most spread first, and their mean squares; the intercept, if any, is the first."""
        first = 1 if self._fit_intercept else 0
        columns = self._rows[:, first:]
        few = columns[:: max(1, len(columns) // max(2000, 3 * columns.shape[1]))]
        squares = _product(lambda cut: few[cut], len(few), few.shape[1], self._run).astype(self._dtype)
        lengths, axes = linalg.eigh(squares, check_finite=False, driver="evd", overwrite_a=True)
        whole = np.zeros((columns.shape[1] + first,) * 2, dtype=self._dtype)
        whole[:first, :first] = 1.0
        whole[first:, first:] = axes[:, ::-1]
        spread = np.concatenate([np.ones(first), np.maximum(lengths[::-1], 0.0).astype(np.float64) / len(few)])
        return whole, spread

    def _rolled(self, vector: Vector) -> Vector:
        """(P,) parameters as (D, C), the intercept first."""
        matrix = vector.reshape(-1, self._n_outputs)
        return np.concatenate([matrix[-1:], matrix[:-1]]) if self._fit_intercept else matrix

    def _unrolled(self, matrix: Vector) -> Vector:
        ordered = np.concatenate([matrix[1:], matrix[:1]]) if self._fit_intercept else matrix
        return np.ascontiguousarray(ordered).ravel()


def _standardised(
    source: DenseDesign, objective: LinearObjective, which: Any, n_rows: int, dtype: Any, run: Map
) -> Array:
    """Standardised rows, with a column of ones before the others if there is an intercept.

    That is first so that it is always one of the leading axes.
    """
    own = objective.design
    standardised = StandardisedDesign(source, objective.scaling, dtype)
    if isinstance(own, StandardisedDesign) and own.dtype == dtype:
        standardised = own
    first = int(objective.fit_intercept)
    rows = np.ones((n_rows, source.shape[1] + first), dtype)
    step = max(1, PIECE_ELEMENTS // source.shape[1])

    def fill(start: int) -> None:
        piece = slice(start, min(start + step, n_rows))
        rows[piece, first:] = standardised.take(piece if isinstance(which, slice) else which[piece])

    for _ in run(fill, range(0, n_rows, step)):
        pass
    return rows


def whole_inverse(rows: Array, shape: Array, factor: Vector, bend: Vector, *, coupled: bool, run: Map) -> Apply | None:
    """Factorise the whole Hessian along some axes.

    Args:
        rows: (n, axes).
        shape: (n, C) probabilities of a coupled loss, or the diagonal of each row's Hessian.
        factor: (n,) what each row counts.
        bend: (axes, axes) the penalty's share for each output.
        coupled: whether the outputs of a row act on one another.
        run: runs several calls at once and keeps their order.

    Returns:
        What applies the inverse to (axes, C), or None where it cannot be factorised.
    """
    dtype = rows.dtype
    rounding = float(np.finfo(dtype).eps)
    n_axes, n_outputs = rows.shape[1], shape.shape[1]
    if not coupled:
        factors = []
        for block in run(
            lambda k: _gram(rows * np.sqrt(shape[:, k] * factor).astype(dtype)[:, None]), range(n_outputs)
        ):
            factorised = _factorise(block + bend, rounding)
            if factorised is None:
                return None
            factors.append(factorised)

        def per_output(vector: Vector) -> Vector:
            solved = [_solved(f, vector[:, k]) for k, f in enumerate(factors)]
            return np.stack(solved, axis=1)

        return per_output
    root = np.sqrt(factor).astype(dtype)[:, None]
    weighted = rows * root
    joint = _product(lambda cut: _rows_times(weighted[cut], shape[cut]), len(rows), n_axes * n_outputs, run)
    hessian = (-joint).reshape(n_axes, n_outputs, n_axes, n_outputs)
    if len(rows) * n_axes * n_outputs <= FEW_ELEMENTS:
        # All classes in one product: many small ones would cost their calls.
        alone = (weighted.T @ _rows_times(weighted, shape)).reshape(n_axes, n_axes, n_outputs)
        every = np.arange(n_outputs)
        hessian[:, every, :, every] += np.moveaxis(alone, 2, 0) + bend
    else:
        blocks = run(lambda k: _gram(weighted * np.sqrt(shape[:, k : k + 1])), range(n_outputs))
        for k, block in enumerate(blocks):
            hessian[:, k, :, k] += block + bend
    # Equal shifts of all classes change no probability: curvature is put there, so that rounding stays small.
    axis = np.arange(n_axes)
    hessian[axis, :, axis, :] += np.einsum("akak->", hessian) / (n_axes * n_outputs) / n_outputs
    factorised = _factorise(hessian.reshape(n_axes * n_outputs, -1), rounding)
    if factorised is None:
        return None
    return lambda vector: _solved(factorised, vector.ravel()).reshape(vector.shape)


def _product(take: Callable[[slice], Array], n_rows: int, width: int, run: Map) -> Vector:
    """AᵀA of the (n_rows, width) matrix A that `take` makes piece by piece."""
    if n_rows * width**2 <= FEW_PRODUCTS:
        return _gram(take(slice(None))).astype(np.float64)
    ends = np.linspace(0, n_rows, CUTS + 1).astype(int)
    cuts = [slice(start, stop) for start, stop in pairwise(ends)]
    parts = run(lambda cut: _gram(take(cut)), cuts)
    return np.asarray(sum(part.astype(np.float64) for part in parts))


def _rows_times(rows: Array, shape: Array) -> Array:
    """Each row of (n, r) times each entry of the same row of (n, C): (n, r·C)."""
    return (rows[:, :, None] * shape[:, None, :]).reshape(len(rows), -1)


def _gram(rows: Array) -> Array:
    product: Array = rows.T @ rows
    return product


def _factorise(hessian: Vector, rounding: float) -> Vector | None:
    """The lower Cholesky factor, with a ridge that grows until there is one."""
    # LAPACK itself: what SciPy puts around it takes longer than a small factorisation.
    diagonal = np.diag(hessian).copy()
    ridge = RIDGE * rounding * float(np.abs(diagonal).mean()) + float(np.finfo(np.float64).tiny)
    for _ in range(8):
        hessian[np.diag_indices(len(hessian))] = diagonal + ridge
        # The transpose is the same matrix in LAPACK's own order: what is not, SciPy turns number by number.
        factor, failed = lapack.dpotrf(hessian.T, lower=True, clean=False)
        if failed == 0:
            return np.asarray(factor)
        ridge *= 10
    return None


def _solved(factor: Vector, vector: Vector) -> Vector:
    """The solution for one or several right sides, from the lower Cholesky factor."""
    solution, _ = lapack.dpotrs(factor, vector, lower=True)
    return np.asarray(solution)


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
