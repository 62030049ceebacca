"""Minimisers of penalised quadratic functions, held to their optimality conditions at 50 digits."""

from __future__ import annotations

import warnings

import mpmath
import numpy as np
import pytest
from scipy import linalg

from kullback import SoftmaxClassifier
from kullback.linear.solvers.interior_point import lasso_minimiser
from kullback.linear.solvers.quadratic_model import QuadraticModel
from kullback.linear.solvers.sum_of_norms import group_lasso_minimiser
from kullback.linear.support_curvature import Blocks


def correlated(n_variables: int, condition: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A positive definite matrix of a given condition number, and a slope."""
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(rng.normal(size=(n_variables, n_variables)))
    matrix = (axes * np.geomspace(1, 1 / condition, n_variables)) @ axes.T
    matrix = (matrix + matrix.T) / 2
    return matrix, -matrix @ (rng.normal(size=n_variables) * (rng.random(n_variables) < 0.5))


def slope_at(matrix: np.ndarray, linear: np.ndarray, x: np.ndarray) -> list[mpmath.mpf]:
    """Hx + c at 50 digits."""
    with mpmath.workdps(50):
        return [mpmath.fdot(row, x.tolist()) + mpmath.mpf(c) for row, c in zip(matrix.tolist(), linear, strict=True)]


@pytest.mark.parametrize(("n_variables", "condition"), [(6, 1.0), (40, 1e4), (60, 1e9)])
def test_lasso_minimiser_meets_the_optimality_conditions(n_variables: int, condition: float) -> None:
    matrix, linear = correlated(n_variables, condition, 3)
    threshold = np.full(n_variables, 1e-4)
    threshold[:2] = 0.0
    x = lasso_minimiser([matrix], linear, threshold)
    assert x is not None
    assert (x == 0).any() or condition == 1
    for value, slope, tau in zip(x, slope_at(matrix, linear, x), threshold, strict=True):
        missed = abs(slope + tau * np.sign(value)) if value else max(abs(slope) - tau, 0)
        assert missed <= 1e-4 * 1e-5


def test_lasso_minimiser_takes_blocks() -> None:
    one, two = correlated(5, 100.0, 0), correlated(7, 1000.0, 1)
    threshold = np.full(12, 1e-3)
    both = lasso_minimiser([one[0], two[0]], np.concatenate([one[1], two[1]]), threshold)
    apart = [lasso_minimiser([matrix], linear, threshold[: len(linear)]) for matrix, linear in (one, two)]
    assert both is not None
    np.testing.assert_allclose(both, np.concatenate(apart), rtol=1e-6, atol=1e-9)


def test_lasso_minimiser_without_thresholds_solves_the_equations() -> None:
    matrix, linear = correlated(5, 10.0, 2)
    x = lasso_minimiser([matrix], linear, np.zeros(5))
    np.testing.assert_allclose(x, -np.linalg.solve(matrix, linear), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("minimise", ["lasso", "group"])
def test_a_matrix_that_is_not_positive_definite_is_refused(minimise: str) -> None:
    matrix, linear, threshold = -np.eye(2), np.ones(2), np.ones(2)
    if minimise == "lasso":
        assert lasso_minimiser([matrix], linear, threshold) is None
    else:
        assert group_lasso_minimiser(matrix, linear, threshold, np.arange(2)) is None


@pytest.mark.parametrize("seed", range(3))
def test_newton_steps_of_a_model_go_on_where_variables_vanish(seed: int) -> None:
    """Whole steps that stop at zero what would cross it may rise; up to the first of them they fall."""
    matrix, linear = correlated(40, 1e6, seed)
    every, tau = np.arange(40, dtype=np.int64), np.full(40, 1e-5)
    start = np.random.default_rng(1).normal(size=40)
    blocks = Blocks(every, np.array([0, 40]), np.array([0]), matrix.ravel().copy(), exact=False)
    none = np.zeros((40, 0))
    model = QuadraticModel(blocks, none, none, np.arange(41), every, tau, linear + matrix @ start, start)
    best = lasso_minimiser([matrix], linear, tau)
    assert best is not None
    assert model.value(model.minimise(12)) - model.value(best) < 2e-3


@pytest.mark.parametrize("tau", [1e-3, 1e-15])
def test_a_group_minimiser_takes_no_steps_below_rounding(monkeypatch, tau: float) -> None:
    """Where slopes are rounded by more than the norms' factors, every step was another guess."""
    factorise, taken = linalg.cho_factor, []
    monkeypatch.setattr(linalg, "cho_factor", lambda *args, **options: taken.append(1) or factorise(*args, **options))
    matrix, linear = correlated(60, 1e6, 5)
    x = group_lasso_minimiser(matrix, linear, np.full(15, tau), np.repeat(np.arange(15), 4))
    assert x is not None
    assert len(taken) <= 45


@pytest.mark.parametrize(("groups", "size", "condition"), [(3, 2, 1.0), (12, 4, 1e4), (15, 4, 1e9)])
def test_group_minimiser_meets_the_optimality_conditions(groups: int, size: int, condition: float) -> None:
    matrix, linear = correlated(groups * size, condition, 5)
    group = np.random.default_rng(0).permutation(np.repeat(np.arange(groups), size))
    threshold = np.full(groups, 1e-3)
    threshold[0] = 0.0
    x = group_lasso_minimiser(matrix, linear, threshold, group)
    assert x is not None
    slopes = slope_at(matrix, linear, x)
    zeros = 0
    for place, tau in enumerate(threshold):
        members = np.flatnonzero(group == place)
        norm = float(np.linalg.norm(x[members]))
        zeros += norm == 0
        if norm:
            missed = mpmath.norm([slopes[j] + tau * x[j] / norm for j in members])
        else:
            missed = max(mpmath.norm([slopes[j] for j in members]) - tau, 0)
        assert missed <= 1e-3 * 1e-5
    assert zeros or condition == 1


@pytest.mark.parametrize("penalty", ["l1", "elasticnet", "group"])
def test_weak_penalties_on_strongly_correlated_columns_are_certified_in_few_steps(penalty: str) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 50)) @ rng.normal(size=(50, 50))
    y = (X @ rng.normal(size=(50, 5)) / 7 + rng.gumbel(size=(2000, 5))).argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = SoftmaxClassifier(C=100, penalty=penalty).fit(X, y)
    assert model.certificate_.relative_gap <= 1e-6
    assert model.n_iter_[0] <= 60


@pytest.mark.parametrize("penalty", ["l1", "group"])
def test_columns_stored_twice_but_for_a_little_are_certified(penalty: str) -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(4000, 10))
    X = np.concatenate([X, X + 1e-4 * rng.normal(size=X.shape)], axis=1)
    y = (X @ rng.normal(size=(20, 4)) / 4 + rng.gumbel(size=(4000, 4))).argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = SoftmaxClassifier(C=10, penalty=penalty).fit(X, y)
    assert model.certificate_.relative_gap <= 1e-6
    assert model.n_iter_[0] <= 60


def test_a_weak_group_penalty_on_separable_classes_is_certified() -> None:
    # The curvature all but vanishes on the way, so that a model promises a million times what there is to gain.
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = SoftmaxClassifier(C=1000, penalty="group").fit(X / 16, y)
    assert model.certificate_.relative_gap <= 1e-6
