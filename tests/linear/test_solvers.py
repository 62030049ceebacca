import math
from itertools import pairwise

import numpy as np
import pytest

from kullback.errors import InputError
from kullback.linear.solvers import SOLVERS, Point, find_solver
from kullback.linear.solvers.lbfgs import BEYOND_ROUNDING
from kullback.linear.solvers.line_search import search
from kullback.linear.solvers.newton import newton


class Quadratic:
    """½(x − m)ᵀA(x − m)."""

    rounding = 1e-16
    estimate_passes = math.inf

    def __init__(self, matrix, minimum):
        self.matrix, self.minimum = matrix, minimum
        self.size = len(minimum)
        self.evaluations = 0

    def evaluate(self, x):
        self.evaluations += 1
        pull = self.matrix @ (x - self.minimum)
        value = 0.5 * float((x - self.minimum) @ pull)
        return Point(value, value, pull)

    def hessian_product(self, x, direction):
        return self.matrix @ direction

    def check(self, x, point):
        return float(np.abs(point.gradient).max()), point

    def refine(self):
        return False

    def precondition(self, x):
        return lambda vector: np.linalg.solve(self.matrix + np.eye(12), vector)


@pytest.fixture
def quadratic(rng):
    root = rng.normal(size=(12, 12))
    return Quadratic(root @ root.T + np.eye(12), rng.normal(size=12))


@pytest.mark.parametrize("name", SOLVERS)
def test_finds_the_minimum_and_says_so(name, quadratic):
    records = []
    result = SOLVERS[name](quadratic, np.zeros(12), tol=1e-9, max_iter=200, callback=records.append)
    assert result.converged
    assert result.reason == ""
    np.testing.assert_allclose(result.parameters, quadratic.minimum, atol=1e-8)
    assert list(result.history) == records
    assert [r.iteration for r in records] == list(range(len(records)))
    assert records[0].objective == pytest.approx(quadratic.evaluate(np.zeros(12)).objective)
    assert records[-1].gradient_norm <= 1e-9
    assert all(a.objective >= b.objective for a, b in pairwise(records))
    assert all(a.seconds <= b.seconds for a, b in pairwise(records))


@pytest.mark.parametrize("name", SOLVERS)
def test_the_start_may_be_the_minimum(name, quadratic):
    result = SOLVERS[name](quadratic, quadratic.minimum.copy(), tol=1e-9, max_iter=5, callback=lambda _: None)
    assert result.converged
    assert len(result.history) == 1
    assert quadratic.evaluations == 1


@pytest.mark.parametrize("name", SOLVERS)
def test_running_out_of_iterations_is_reported(name, quadratic):
    result = SOLVERS[name](quadratic, np.zeros(12), tol=1e-12, max_iter=2, callback=lambda _: None)
    assert not result.converged
    assert "2 iterations" in result.reason
    assert len(result.history) == 3


@pytest.mark.parametrize("name", SOLVERS)
def test_a_tolerance_below_rounding_is_reported(name, quadratic):
    result = SOLVERS[name](quadratic, np.zeros(12), tol=1e-300, max_iter=10_000, callback=lambda _: None)
    assert result.converged or "rounding" in result.reason
    np.testing.assert_allclose(result.parameters, quadratic.minimum, atol=1e-6)


@pytest.mark.parametrize("name", SOLVERS)
def test_what_a_callback_raises_passes_through(name, quadratic):
    def stop(record):
        if record.iteration == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SOLVERS[name](quadratic, np.zeros(12), tol=1e-9, max_iter=100, callback=stop)


@pytest.mark.parametrize("name", ["newton", None, ["lbfgs"]])
def test_unknown_solver_lists_the_known(name):
    with pytest.raises(InputError, match=r"choose one of: .*lbfgs"):
        find_solver(name)


@pytest.mark.parametrize(
    ("passes", "renewed"), [(math.inf, [0, 6, 16, 40]), (0.1, [0, 6, 16, 26, 36, 40, 50]), (4.0, [0, 6, 16, 28, 40])]
)
def test_an_estimate_is_renewed_on_time_and_where_it_is_cheap_sooner(rng, passes, renewed):
    problem = Quadratic(np.diag(np.logspace(0, 8, 300)), rng.normal(size=300))
    problem.estimate_passes = passes
    steps, made = [], []

    def precondition(x):
        made.append(max(0, len(steps) - 1))
        return lambda vector: vector / 1e8

    problem.precondition = precondition
    SOLVERS["preconditioned"](problem, np.zeros(300), tol=1e-9, max_iter=50, callback=steps.append)
    assert made == renewed


def test_newton_steps_take_no_more_products_than_they_may(quadratic):
    asked = []
    options = {"tol": 1e-12, "max_iter": 50, "callback": lambda record: None, "between": lambda: asked.append(1)}
    free = newton(quadratic, np.zeros(12), **options)
    assert free.converged
    assert len(asked) > 7
    asked.clear()
    held = newton(quadratic, np.zeros(12), products=7, **options)
    assert len(asked) == 7
    assert held.reason == BEYOND_ROUNDING
    assert len(held.history) > 1


def test_where_the_slope_jumps_the_best_step_tried_is_taken():
    """Of max(−x, 10⁶·(x − 0.1)) no step has a slope that is flat."""

    def evaluate(at):
        left, right = -float(at[0]), 1e6 * (float(at[0]) - 0.1)
        return Point(max(left, right), max(left, right), np.array([-1.0 if left >= right else 1e6]))

    start = np.zeros(1)
    step = search(evaluate, start, evaluate(start), np.ones(1), rounding=0.0)
    assert step is not None
    assert -0.1 < step.point.objective < -0.05
    assert step.point.objective == evaluate(step.parameters).objective
