import math
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import optimize

from kullback import (
    BalancedSoftmax,
    BinaryCrossEntropy,
    CrossEntropy,
    Deviance,
    KullbackLeibler,
    SigmoidClassifier,
    SoftmaxClassifier,
)
from kullback.linear import certificate
from kullback.linear.certificate import RowCurvatures, duality_gap
from kullback.linear.design import as_design
from kullback.linear.objective import LinearObjective
from kullback.linear.problem import LinearProblem
from kullback.linear.row_curvature import coupled_probabilities, row_scale, structure_of
from kullback.linear.scaling import column_scaling
from kullback.linear.solvers import lbfgs
from kullback.targets import ClassIndices, ClassRows, LabelRows

N, D, C = 40, 3, 4
LOSSES = [
    CrossEntropy(),
    CrossEntropy(class_weight=[1, 2, 0.5, 30], label_smoothing=0.1, temperature=2.0),
    CrossEntropy(priors=[0.1, 0.2, 0.3, 0.4], temperature=0.5),
    BalancedSoftmax(class_counts=[1, 2, 3, 40], class_weight=[1, 2, 3, 4]),
    KullbackLeibler(label_smoothing=0.1),
    Deviance(temperature=3.0),
    BinaryCrossEntropy(label_reduction="sum", positive_weight=[1, 2, 3, 40], temperature=0.7),
    BinaryCrossEntropy(label_smoothing=0.05, class_weight=[1, 2, 3, 4]),
]


def problem(loss, seed=0, *, soft=False, fit_intercept=True, penalty=0.02, scales=(1.0, 10.0, 0.1)):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, D)) * scales + [0, 3, -1]
    if loss.target_form == "labels":
        targets = LabelRows(rng.random((N, C)) if soft else rng.integers(0, 2, (N, C)))
    elif soft:
        targets = ClassRows(rng.random((N, C)) * rng.integers(1, 3, (N, 1)))
    else:
        targets = ClassIndices(rng.integers(0, C, N))
    weight = rng.random(N) + 0.1
    design = as_design(X)
    scaling = column_scaling(design, weight, penalty=penalty, curvature=0.2, fit_intercept=fit_intercept)
    return LinearObjective(design, loss, targets, weight, C, weight.sum(), penalty, fit_intercept, scaling)


def optimum(objective):
    """The least value, by an unrelated solver, polished by Newton steps on the exact Hessian."""
    found = optimize.minimize(
        lambda v: (objective.evaluate(v).objective, objective.evaluate(v).gradient),
        np.zeros(objective.size),
        jac=True,
        method="BFGS",
        options={"gtol": 1e-9},
    ).x
    for _ in range(3):
        hessian = np.stack([objective.hessian_product(found, unit) for unit in np.eye(objective.size)])
        found = found - np.linalg.pinv(hessian, rcond=1e-12) @ objective.evaluate(found).gradient
    return found


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_the_gap_closes_at_the_optimum_and_never_lies(loss, soft, fit_intercept):
    objective = problem(loss, soft=soft, fit_intercept=fit_intercept)
    best = optimum(objective)
    least = objective.evaluate(best).objective
    away = np.random.default_rng(1).normal(size=objective.size)
    proved = 0
    for distance in (0.0, 1e-6, 1e-4, 1e-2, 0.1, 1.0):
        at = best + distance * away
        point = objective.evaluate(at)
        gap = duality_gap(objective, at, point)
        assert gap.value >= point.objective - least - 1e-14
        assert (gap.value < math.inf) == (gap.reason == "")
        proved += gap.value < math.inf
        if distance <= 1e-4:
            # Quadratic in the distance: tight enough to end a fit.
            assert gap.value <= 1e-14 + 1e5 * distance**2
    assert proved >= 4


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 10_000),
    loss=st.sampled_from(LOSSES),
    soft=st.booleans(),
    penalty=st.floats(1e-4, 10.0),
    spread=st.floats(0.0, 2.0),
    scales=st.tuples(*[st.sampled_from([1e-3, 1.0, 1e2])] * D),
)
def test_no_point_anywhere_lies_below_the_bound(seed, loss, soft, penalty, spread, scales):
    """Weak duality: whatever point the bound came from, no parameters give a lower objective."""
    objective = problem(loss, seed, soft=soft, penalty=penalty, scales=scales)
    rng = np.random.default_rng(seed)
    solve = partial(LinearProblem, objective, None)
    end = lbfgs_result(solve(tol=1e-9), objective)
    least = objective.evaluate(end).objective
    for at in (end, end + spread * rng.normal(size=objective.size), spread * rng.normal(size=objective.size)):
        point = objective.evaluate(at)
        gap = duality_gap(objective, at, point)
        assert point.objective - gap.value <= least * (1 + 1e-13)


def lbfgs_result(given, objective):
    found = lbfgs(given, np.zeros(objective.size), tol=1e-9, max_iter=500, callback=lambda _: None)
    assert found.history[-1].distance < 1e-6
    return found.parameters


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_row_curvatures_are_the_hessian_in_the_intercepts(loss, soft, keeps, monkeypatch):
    monkeypatch.setattr(certificate, "KEPT_BYTES", 1 << 20 if keeps else 0)
    objective = problem(loss, soft=soft)
    at = np.random.default_rng(3).normal(size=objective.size)
    rows = RowCurvatures(objective)
    found = objective.over_logits(at, rows.curvature) / objective.total_weight
    units = [objective.join(np.zeros((D, C)), unit) for unit in np.eye(C)]
    products = [objective.hessian_product(at, unit) for unit in units]
    expected = np.stack([objective.split(product)[1] for product in products])
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    for shift, product in zip(np.eye(C), products, strict=True):
        np.testing.assert_allclose(rows.moved(at, shift), product, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss.target_form == "classes"], ids=str)
def test_a_coupled_loss_has_the_hessian_that_its_structure_says(loss):
    rng = np.random.default_rng(4)
    logits, direction = rng.normal(size=(6, C)), rng.normal(size=(6, C))
    weight = rng.random(6)
    assert structure_of(loss) == "coupled"
    for targets in (ClassIndices([0, 1, 2, 3, -100, 1]), ClassRows(rng.random((6, C)))):
        p = coupled_probabilities(loss, logits)
        scale = row_scale(loss, targets, C, weight)[:, None]
        expected = loss.hessian_product(logits, targets, direction, sample_weight=weight, reduction="sum")
        found = scale * p * (direction - (p * direction).sum(axis=1, keepdims=True))
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-9])
def test_estimators_certify_what_they_claim(rng, dtype, tol):
    X = (rng.normal(size=(400, 6)) * [1, 10, 0.1, 1, 1, 1] + [0, 3, 0, -1, 0, 500]).astype(dtype)
    y = (X[:, :3] @ rng.normal(size=(3, 4)) + 5 * rng.gumbel(size=(400, 4))).argmax(axis=1)
    for model, target in ((SoftmaxClassifier(), y), (SigmoidClassifier(), np.eye(4, dtype=int)[y])):
        rough = model.set_params(tol=tol).fit(X, target)
        found = rough.certificate_
        assert rough.converged_
        assert 0 <= found.relative_gap <= tol
        assert found.gap == pytest.approx(found.relative_gap * found.dual)
        assert found.dual <= found.primal
        assert found.passes >= rough.n_iter_
        assert found.reason == ""
        assert found.seconds >= rough.history_[-1].seconds
        exact = type(model)(tol=1e-13).fit(X.astype(np.float64), target)
        least = exact.certificate_.primal
        assert found.dual <= least * (1 + 1e-12)
        assert least <= found.primal * (1 + 1e-12) <= least * (1 + tol) * (1 + 1e-12)


def test_where_no_gap_exists_the_certificate_says_why(rng):
    X, y = rng.normal(size=(100, 3)), rng.integers(0, 3, 100)
    for settings_, why in (({"C": math.inf}, "without a penalty"), ({"loss": "focal"}, "focal is not convex")):
        found = SoftmaxClassifier(**settings_).fit(X, y).certificate_
        assert found.dual == -math.inf
        assert found.relative_gap == math.inf
        assert why in found.reason
        assert found.gradient_norm <= 1e-6


@pytest.mark.parametrize("loss", ["cross_entropy", "poly", "ldam", "weston_watkins(squared=True)", "focal"])
def test_the_primal_is_the_objective_of_what_is_stored(loss):
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(50, 8)), rng.integers(0, 3, 50)
    # A fit that ends early has moved along equal shifts of all classes, which only the penalty sees.
    model = SoftmaxClassifier(loss=loss, tol=1e-2).fit(X, y)
    data = float(model.loss_(model.logits(X), ClassIndices(y)))
    penalty = 0.5 * float(np.square(model.coef_).sum()) / len(y)
    assert model.certificate_.primal == pytest.approx(data + penalty, rel=1e-13)
