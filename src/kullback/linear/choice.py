"""Which arithmetic and which solver suit a problem, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from kullback.linear.column_curvature import ColumnCurvature
from kullback.linear.curvature import SubsampledCurvature, plan, plan_sparse
from kullback.linear.design import KEPT_BYTES, DenseDesign, Design, SparseDesign, StandardisedDesign
from kullback.linear.objective import LinearObjective, Vector
from kullback.linear.problem import LinearProblem
from kullback.linear.row_curvature import structure_of
from kullback.linear.scaling import ColumnScaling
from kullback.losses import Loss
from kullback.targets import Targets

Curvature: TypeAlias = SubsampledCurvature | ColumnCurvature

# Data of up to this size is in cache anyway, and float32 gains nothing on it.
SMALL_BYTES = 1 << 18
# In float32 a column whose mean is so many standard deviations from zero loses too much when multiplied raw.
FAR_FROM_ZERO = 30.0


@dataclass(frozen=True)
class Terms:
    """What is minimised, apart from the data matrix; the fields are those of `LinearObjective`."""

    loss: Loss
    targets: Targets
    sample_weight: Vector | None
    n_outputs: int
    total_weight: float
    penalty: float
    fit_intercept: bool

    def objective(self, design: Design, scaling: ColumnScaling, run: Callable[..., Iterator[Any]]) -> LinearObjective:
        """The whole objective, on a design; `run` runs several calls at once and keeps their order."""
        return LinearObjective(
            design,
            self.loss,
            self.targets,
            self.sample_weight,
            self.n_outputs,
            self.total_weight,
            self.penalty,
            self.fit_intercept,
            scaling,
            run,
        )


@dataclass(frozen=True, eq=False)
class Choice:
    """A problem ready to be solved.

    Attributes:
        problem: the problem.
        solver: the name of the solver.
        reason: why that one, in words.
        curvature: the estimate of the Hessian that the problem uses, if it does.
    """

    problem: LinearProblem
    solver: str
    reason: str
    curvature: Curvature | None = None


def choose(
    design: DenseDesign | SparseDesign,
    terms: Terms,
    scaling: ColumnScaling,
    *,
    solver: str,
    tol: float,
    run: Callable[..., Iterator[Any]] = map,
    n_fits: int = 1,
    kept: Curvature | None = None,
) -> Choice:
    """Set up a problem and choose its solver.

    Args:
        design: the data.
        terms: the rest of the objective.
        scaling: the change of variables.
        solver: ``"auto"`` or a solver's name.
        tol: the relative gap that ends the fit.
        run: runs several calls at once and keeps their order.
        n_fits: how many fits of this design share what is made.
        kept: the estimate of the Hessian of the last of them, to be adapted to this one.
    """
    exact, fast = precisions(design, scaling, with_ones=terms.fit_intercept)
    if isinstance(design, DenseDesign) and 8 * design.shape[0] * design.shape[1] <= SMALL_BYTES:
        # Rounds least of all, and costs next to nothing.
        exact = StandardisedDesign(design, scaling, np.float64, keep=True, with_ones=terms.fit_intercept)
        fast = None
    exact_objective = terms.objective(exact, scaling, run)
    fast_objective = None if fast is None else terms.objective(fast, scaling, run)
    curvature: Any = None
    if solver == "lbfgs":
        reason = "asked for"
    else:
        coupled = structure_of(terms.loss) == "coupled"
        size = (design.shape[0], design.shape[1] + terms.fit_intercept, terms.n_outputs)
        if isinstance(design, SparseDesign):
            kind: Any = ColumnCurvature
            how, what = plan_sparse(*size, design.n_entries, coupled=coupled), "columns"
        else:
            kind, what = SubsampledCurvature, "principal axes"
            how = plan(*size, coupled=coupled, n_fits=n_fits)
        if how is None:
            solver, reason = "lbfgs", f"factorising {size[1]} columns would cost more than it saves"
        else:
            active = fast_objective or exact_objective
            curvature = kept or kind(active, design, how, (fast or exact).dtype, run, keep=n_fits > 1)
            if kept is not None:
                kept.under(active)
            what = f"{how.leading} of {size[1]} {what}" if how.rotated else f"all {size[1]} columns"
            solver = "preconditioned"
            reason = f"a Hessian of {what} × {terms.n_outputs} outputs from {how.sampled} rows pays for itself"
    problem = LinearProblem(exact_objective, fast_objective, tol=tol, curvature=curvature)
    return Choice(problem, solver, reason, curvature)


def precisions(
    design: DenseDesign | SparseDesign, scaling: ColumnScaling, *, with_ones: bool = False
) -> tuple[Design, Design | None]:
    """The design in float64, and the same in float32 where that is faster, standardised copies perhaps with ones."""
    single = design.dtype == np.float32
    if isinstance(design, SparseDesign):
        if single:
            return design.in_precision(np.float64), design
        return design, None if 8 * design.n_entries <= SMALL_BYTES else design.in_precision(np.float32)
    n_bytes = design.matrix.nbytes
    near = bool((np.abs(scaling.centre) <= FAR_FROM_ZERO * scaling.scale).all())
    if single:
        exact: Design = DenseDesign(design.matrix, np.float64)
        if near:
            return exact, design
    else:
        exact = design
        if n_bytes <= SMALL_BYTES:
            return exact, None
    keep = design.shape[0] * design.shape[1] * 4 <= KEPT_BYTES
    if near and not keep:
        return exact, DenseDesign(design.matrix, np.float32)
    return exact, StandardisedDesign(design, scaling, np.float32, keep=keep, with_ones=with_ones)
