"""Where a fit with a lasso or group penalty starts on dense data: near the optimum under a ridge of the same strength.

From zeros a proximal Newton step moves far, its quadratic model is soon wrong, and every new model costs many passes
over the data. Under a ridge the objective is smooth, and a quasi-Newton method with an estimate of the Hessian gets
near its optimum in a few passes. Most weights that the norm keeps are near theirs by then; the others the first
proximal steps put to zero.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kullback.linear.choice import Terms, choose
from kullback.linear.design import DenseDesign, SparseDesign
from kullback.linear.interruption import Stopped
from kullback.linear.problem import Watched
from kullback.linear.raw_fit import Parameters, Run
from kullback.linear.scaling import ColumnScaling
from kullback.linear.solvers import find_solver

# The relative gap under the ridge that is near enough, and the steps after which it is left where it is.
NEAR = 1e-2
MOST_STEPS = 30


def ridge_start(
    design: DenseDesign | SparseDesign,
    terms: Terms,
    scaling: ColumnScaling,
    *,
    max_iter: int,
    between: Callable[[], object],
    run: Run = map,
) -> tuple[Parameters, int, str]:
    """Weights to start from, how often the data were read for them, and why the whole fit must stop, if it must.

    Args:
        design: the data.
        terms: the objective, with the ridge as its penalty.
        scaling: the change of variables.
        max_iter: most steps that the whole fit may take.
        between: called after every step. It may raise `Stopped`.
        run: runs several calls at once and keeps their order.
    """
    choice = choose(design, terms, scaling, solver="auto", tol=NEAR, run=run)
    objective = choice.problem.exact
    watched, stopped = Watched(choice.problem, np.zeros(objective.size)), ""
    try:
        find_solver(choice.solver)(
            watched,
            watched.parameters,
            tol=NEAR,
            max_iter=min(max_iter, MOST_STEPS),
            callback=lambda record: between(),
        )
    except Stopped as stop:
        stopped = str(stop)
    weights, intercept = objective.scaling.to_raw(*objective.split(watched.parameters))
    return (weights, intercept), choice.problem.passes, stopped
