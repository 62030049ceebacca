import math

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scipy import optimize, sparse
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.linear_model import LogisticRegression

from kullback import ClassRows, SigmoidClassifier, SoftmaxClassifier
from kullback.errors import InputError, NotConvergedWarning
from kullback.linear import sparse_fit, task
from kullback.linear.penalties import Penalty, resolve_penalty
from kullback.linear.sparse_problem import SparseObjective

PENALTIES = [("l1", None), ("elasticnet", 0.3), ("group", None), ("group", 0.6)]


def noisy(rng, n=200, d=6, n_classes=4):
    X = rng.normal(size=(n, d)) * ([1, 3, 0.2, 1] * d)[:d] + 1
    truth = rng.normal(size=(d, n_classes)) * (rng.random((d, 1)) < 0.5)
    return X, (X @ truth * 0.3 + rng.gumbel(size=(n, n_classes))).argmax(axis=1)


def value(X, y, weights, intercept, penalty, C, weight=None):
    """Mean cross-entropy plus penalty, from the definition."""
    logits = X @ weights + intercept
    weight = np.ones(len(y)) if weight is None else weight
    top = logits.max(axis=1, keepdims=True)
    loss = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0] - logits[np.arange(len(y)), y]
    return weight @ loss / weight.sum() + penalty.value(weights) / (C * weight.sum())


def smooth_optimum(X, y, penalty, C, K):
    """The least value by an unrelated method: W = U − V with U, V ≥ 0, where the L1 norm is smooth; for groups the
    norm is smoothed over a width far below what is tested."""
    n, d = X.shape

    def both(v):
        parts = v[: 2 * d * K].reshape(2, d, K)
        weights, b = parts[0] - parts[1], v[2 * d * K :]
        logits = X @ weights + b
        top = logits.max(axis=1, keepdims=True)
        p = np.exp(logits - top)
        total = p.sum(axis=1, keepdims=True)
        loss = float((np.log(total[:, 0]) + top[:, 0] - logits[np.arange(n), y]).sum()) / n
        g = p / total
        g[np.arange(n), y] -= 1
        slope = X.T @ g / n + penalty.ridge * weights / (C * n)
        tau = penalty.lasso / (C * n)
        loss += 0.5 * penalty.ridge * np.vdot(weights, weights) / (C * n)
        if penalty.grouped:
            norm = np.sqrt((weights**2).sum(axis=1, keepdims=True) + 1e-14)
            return loss + tau * norm.sum(), np.concatenate(
                [(slope + tau * weights / norm).ravel(), np.zeros(d * K), g.sum(axis=0) / n]
            )
        return loss + tau * v[: 2 * d * K].sum(), np.concatenate(
            [(slope + tau).ravel(), (tau - slope).ravel(), g.sum(axis=0) / n]
        )

    low = -np.inf if penalty.grouped else 0
    bounds = [(low, None)] * (d * K) + [(0, None if not penalty.grouped else 0)] * (d * K) + [(None, None)] * K
    found = optimize.minimize(
        both,
        np.zeros(2 * d * K + K),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 2000, "maxfun": 4000, "ftol": 1e-16, "gtol": 1e-11, "maxcor": 60},
    )
    return found.fun


@pytest.mark.parametrize(("kind", "ratio"), PENALTIES)
@pytest.mark.parametrize("C", [0.02, 0.3, 10.0])
def test_reaches_the_optimum_another_method_finds(rng, kind, ratio, C):
    X, y = noisy(rng)
    penalty = resolve_penalty(kind, ratio)
    model = SoftmaxClassifier(C, penalty=kind, l1_ratio=ratio, tol=1e-7).fit(X, y)
    reached = value(X, y, model.coef_.T, model.intercept_, penalty, C)
    assert model.converged_
    assert model.certificate_.primal == pytest.approx(reached, rel=1e-12)
    least = smooth_optimum(X, y, penalty, C, 4)
    # Not below the proved bound, and not above what the other method found, which is itself a little above the least.
    assert model.certificate_.dual <= least * (1 + 1e-12)
    assert least * (1 - 1e-5) <= reached <= least * (1 + 1e-7)
    assert 0 <= model.certificate_.relative_gap <= 1e-7
    assert model.solver_ == "prox_newton"


@pytest.mark.parametrize(("kind", "ratio"), [("l1", None), ("elasticnet", 0.5), ("elasticnet", 0.9)])
@pytest.mark.parametrize(("binary", "C"), [(False, 0.05), (False, 1.0), (True, 0.05)])
def test_same_optimum_as_scikit_learn(kind, ratio, binary, C):
    X, y = (load_breast_cancer if binary else load_iris)(return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    ours = SoftmaxClassifier(C, penalty=kind, l1_ratio=ratio, tol=1e-10).fit(X, y)
    theirs = LogisticRegression(C=C, l1_ratio=1.0 if ratio is None else ratio, solver="saga", tol=1e-8, max_iter=50000)
    theirs.fit(X, y)
    assert ours.coef_.shape == theirs.coef_.shape
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=3e-5)
    if kind != "l1" or binary:  # several classes under L1 alone: weights need not be unique
        np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=2e-4)
    np.testing.assert_array_equal(ours.coef_[np.abs(theirs.coef_) > 1e-3] != 0, True)
    assert (ours.coef_ == 0).any()


def test_binary_agrees_with_liblinear_without_an_intercept():
    X, y = load_breast_cancer(return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    ours = SoftmaxClassifier(0.3, penalty="l1", fit_intercept=False, tol=1e-10).fit(X, y)
    theirs = LogisticRegression(C=0.3, l1_ratio=1.0, solver="liblinear", fit_intercept=False, tol=1e-10, max_iter=9999)
    theirs.fit(X, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)
    np.testing.assert_array_equal(ours.coef_ != 0, theirs.coef_ != 0)
    assert ours.intercept_ == [0.0]
    grouped = SoftmaxClassifier(0.3, penalty="group", fit_intercept=False, tol=1e-10).fit(X, y)
    np.testing.assert_allclose(grouped.coef_, ours.coef_, atol=1e-6)  # one output: a group is a weight


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 10_000),
    which=st.sampled_from(PENALTIES),
    C=st.floats(1e-3, 100.0),
    tol=st.sampled_from([1e-1, 1e-3, 1e-6]),
    fit_intercept=st.booleans(),
    n_classes=st.integers(2, 4),
    labels=st.booleans(),
    loss=st.sampled_from(["", "label_smoothing=0.1", "temperature=2.0"]),
)
@example(  # the rough gap of the start is within the tolerance, the proved one is not
    seed=1,
    which=("elasticnet", 0.3),
    C=0.125,
    tol=0.1,
    fit_intercept=True,
    n_classes=3,
    labels=False,
    loss="",
)
def test_the_gap_is_never_less_than_what_is_missing(seed, which, C, tol, fit_intercept, n_classes, labels, loss):
    rng = np.random.default_rng(seed)
    X, y = noisy(rng, n=60, d=5, n_classes=n_classes)
    y[:n_classes] = np.arange(n_classes)
    kind, ratio = which
    given = {"C": C, "penalty": kind, "l1_ratio": ratio, "fit_intercept": fit_intercept}
    if labels:
        given["loss"] = f"binary_cross_entropy({loss + ', ' if loss else ''}label_reduction='sum')"
        y, kind_of = np.eye(n_classes, dtype=int)[y], SigmoidClassifier
    else:
        given["loss"], kind_of = f"cross_entropy({loss})", SoftmaxClassifier
    rough = kind_of(tol=tol, **given).fit(X, y, sample_weight=rng.random(60) + 0.1)
    rng = np.random.default_rng(seed)
    noisy(rng, n=60, d=5, n_classes=n_classes)
    exact = kind_of(tol=1e-10, **given).fit(X, y, sample_weight=rng.random(60) + 0.1)
    assert exact.certificate_.relative_gap <= 1e-9
    least = exact.certificate_.primal
    assert rough.converged_
    assert rough.certificate_.dual <= least * (1 + 1e-11)
    assert rough.certificate_.primal <= least * (1 + tol) * (1 + 1e-11)


def test_gap_safe_rules_never_drop_a_feature_of_the_optimum(rng):
    """Far more columns than are looked at: the answer is that of a fit that looks at them all."""
    n, d, K = 120, 3000, 3
    X = rng.normal(size=(n, d))
    y = (X[:, :3] + 0.5 * rng.gumbel(size=(n, K))).argmax(axis=1)
    from kullback.linear import sparse_fit

    wide = SoftmaxClassifier(0.2, penalty="l1", tol=1e-8).fit(X, y)
    assert wide.converged_
    used = np.flatnonzero(wide.coef_.any(axis=0))
    assert 3 <= len(used) < 100
    before = sparse_fit.FEW_COLUMNS
    sparse_fit.FEW_COLUMNS = d
    try:
        whole = SoftmaxClassifier(0.2, penalty="l1", tol=1e-8).fit(X, y)
    finally:
        sparse_fit.FEW_COLUMNS = before
    np.testing.assert_allclose(wide.coef_, whole.coef_, atol=1e-5)
    assert wide.certificate_.passes != whole.certificate_.passes


@pytest.mark.parametrize("kind", ["l1", "elasticnet", "group"])
def test_layouts_and_precisions_agree(rng, kind):
    X, y = noisy(rng)
    X[X < 0.5] = 0
    reference = SoftmaxClassifier(0.3, penalty=kind, tol=1e-10).fit(X, y)
    for matrix in (sparse.csr_array(X), sparse.csc_matrix(X), np.asfortranarray(X), _wide_indices(X)):
        other = SoftmaxClassifier(0.3, penalty=kind, tol=1e-10).fit(matrix, y)
        np.testing.assert_allclose(other.predict_proba(matrix), reference.predict_proba(X), atol=1e-5)
        assert other.certificate_.primal == pytest.approx(reference.certificate_.primal, rel=1e-9)
    for matrix in (X.astype(np.float32), sparse.csr_array(X.astype(np.float32))):
        single = SoftmaxClassifier(0.3, penalty=kind, tol=1e-8).fit(matrix, y)
        assert single.converged_
        assert single.certificate_.primal == pytest.approx(reference.certificate_.primal, rel=1e-6)


def _wide_indices(X):
    matrix = sparse.csr_array(X)
    matrix.indices, matrix.indptr = matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)
    return matrix


def test_weights_are_repetition_and_classes_weigh(rng):
    X, y = noisy(rng)
    w = rng.integers(0, 4, len(y))
    given = {"C": 0.2, "penalty": "elasticnet", "tol": 1e-11}
    weighted = SoftmaxClassifier(**given).fit(X, y, sample_weight=w)
    repeated = SoftmaxClassifier(**given).fit(np.repeat(X, w, axis=0), np.repeat(y, w))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-5)
    balanced = SoftmaxClassifier(class_weight={1: 5.0}, **given).fit(X, y)
    by_sample = SoftmaxClassifier(**given).fit(X, y, sample_weight=np.where(y == 1, 5.0, 1.0))
    np.testing.assert_allclose(balanced.coef_, by_sample.coef_, atol=1e-5)
    soft = SoftmaxClassifier(**given).fit(X, ClassRows(np.eye(4)[y]))
    np.testing.assert_allclose(soft.coef_, SoftmaxClassifier(**given).fit(X, y).coef_, atol=1e-6)


def test_labels_are_separate_problems_under_l1_and_one_under_groups(rng):
    X, y = noisy(rng)
    Y = np.stack([y == 1, y > 1, y == 0], axis=1).astype(int)
    together = SigmoidClassifier(0.2, penalty="l1", tol=1e-11).fit(X, Y)
    for k in range(3):
        alone = LogisticRegression(C=0.2, l1_ratio=1.0, solver="saga", tol=1e-9, max_iter=20000).fit(X, Y[:, k])
        np.testing.assert_allclose(together.coef_[k], alone.coef_[0], atol=1e-4)
    groups = SigmoidClassifier(0.05, penalty="group", tol=1e-11).fit(X, Y)
    used = groups.coef_ != 0
    np.testing.assert_array_equal(used.any(axis=0), used.all(axis=0))
    assert 0 < used.any(axis=0).sum() < 6


def test_a_strong_penalty_leaves_the_intercept_alone(rng):
    X, y = noisy(rng)
    for kind in ("l1", "group"):
        model = SoftmaxClassifier(1e-5, penalty=kind, tol=1e-12).fit(X, y)
        assert not model.coef_.any()
        np.testing.assert_allclose(model.predict_proba(X[:1])[0], np.bincount(y) / len(y), atol=1e-6)


def test_warm_start_begins_where_the_last_fit_ended(rng):
    X, y = noisy(rng)
    for labels in (y, y > 1):
        model = SoftmaxClassifier(0.3, penalty="l1", tol=1e-7, warm_start=True).fit(X, labels)
        steps = model.n_iter_[0]
        assert len(model.set_params(tol=2e-7).fit(X, labels).history_) == 1 < steps


def test_a_fit_cut_short_says_how_far_it_is(rng):
    X, y = noisy(rng)
    with pytest.warns(NotConvergedWarning, match="relative duality gap"):
        model = SoftmaxClassifier(penalty="l1", tol=1e-12, max_iter=2).fit(X, y)
    assert not model.converged_
    assert model.n_iter_ == 2
    assert 1e-12 < model.certificate_.relative_gap < math.inf


def test_columns_of_very_different_size_and_constants_converge(rng):
    X, y = noisy(rng)
    hard = np.hstack([X * np.logspace(-6, 6, 6), np.ones((len(X), 1)), X[:, :1], np.zeros((len(X), 1))])
    for kind in ("l1", "elasticnet", "group"):
        model = SoftmaxClassifier(0.5, penalty=kind, tol=1e-6).fit(hard, y)
        assert model.certificate_.relative_gap <= 1e-6
        assert not model.coef_[:, 8].any()
        assert not model.coef_[:, 0].any()  # in tiny units a weight would have to be huge


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_a_squared_hinge_has_a_gap(rng, fit_intercept):
    X, y = noisy(rng)
    loss = "weston_watkins(squared=True)"
    model = SoftmaxClassifier(0.1, loss=loss, penalty="l1", fit_intercept=fit_intercept, tol=1e-6).fit(X, y)
    assert model.certificate_.relative_gap <= 1e-6


@pytest.mark.parametrize(
    ("settings_", "match"),
    [
        ({"penalty": "lasso"}, "penalty='lasso' is not known; choose one of 'l2', 'none', 'l1'"),
        ({"penalty": 3}, "choose one of"),
        ({"penalty": "elasticnet", "l1_ratio": 1.5}, "l1_ratio=1.5"),
        ({"penalty": "elasticnet", "l1_ratio": "half"}, "l1_ratio='half'"),
        ({"penalty": "l1", "l1_ratio": 0.5}, "no meaning with penalty='l1'"),
        ({"l1_ratio": 0.5}, "no meaning with penalty='l2'"),
        ({"penalty": "l1", "solver": "lbfgs"}, "needs a smooth penalty"),
    ],
)
def test_wrong_settings_are_named(settings_, match):
    with pytest.raises(InputError, match=match):
        SoftmaxClassifier(**settings_).fit([[0.0], [1.0]], [0, 1])


def test_penalties_that_are_none_or_l2_by_another_name(rng):
    X, y = noisy(rng)
    none = SoftmaxClassifier(0.1, penalty="none", tol=1e-9).fit(X, y)
    np.testing.assert_allclose(none.coef_, SoftmaxClassifier(math.inf, tol=1e-9).fit(X, y).coef_, atol=1e-6)
    plain = SoftmaxClassifier(0.1, tol=1e-14).fit(X, y)
    for kind in ("elasticnet", "group"):
        other = SoftmaxClassifier(0.1, penalty=kind, l1_ratio=0.0, tol=1e-14).fit(X, y)
        np.testing.assert_array_equal(other.coef_, plain.coef_)


def test_the_conjugate_is_the_supremum(rng):
    for penalty in (Penalty(0.7, 0.3), Penalty(0.7, 0.3, grouped=True)):
        slopes = rng.normal(size=(4, 3))
        found = optimize.minimize(
            lambda w, p=penalty, s=slopes: p.value(w.reshape(4, 3)) - np.vdot(s, w),
            slopes.ravel(),
            method="Powell",
            options={"maxiter": 100_000, "xtol": 1e-10, "ftol": 1e-14},
        )
        assert penalty.conjugate(slopes) == pytest.approx(-found.fun, rel=1e-6)
    assert Penalty(1.0, 0.0).conjugate(np.array([[0.5, -1.0]])) == 0
    assert Penalty(1.0, 0.0).conjugate(np.array([[0.5, -1.1]])) == math.inf


@pytest.mark.parametrize("kind", ["l1", "elasticnet", "group"])
@pytest.mark.parametrize("C", [0.05, 1.0, 30.0])
def test_random_problems_end_at_a_gap_of_ten_digits(kind, C):
    """Weak penalties among them, where one number added to a feature's weights in all classes changes little else."""
    for seed in (1, 13, 14, 31, 42, 54):
        rng = np.random.default_rng(seed)
        n, d, n_classes = int(rng.integers(40, 400)), int(rng.integers(3, 30)), int(rng.integers(3, 6))
        X = rng.normal(size=(n, d)) * 10.0 ** rng.uniform(-1, 1, d) + rng.normal(size=d)
        y = (X @ rng.normal(size=(d, n_classes)) * 0.3 + rng.gumbel(size=(n, n_classes))).argmax(axis=1)
        y[:n_classes] = np.arange(n_classes)
        model = SoftmaxClassifier(C, penalty=kind, tol=1e-10).fit(X, y)
        assert model.converged_
        assert model.certificate_.relative_gap <= 1e-10
        assert model.n_iter_ < 250


@pytest.mark.parametrize(("kind", "ratio"), PENALTIES)
def test_no_shift_of_a_features_weights_lowers_the_penalty(rng, kind, ratio):
    from kullback.linear.choice import Terms, precisions
    from kullback.linear.design import as_design
    from kullback.linear.scaling import column_scaling
    from kullback.linear.sparse_problem import SparseObjective
    from kullback.losses import CrossEntropy
    from kullback.targets import ClassIndices

    X, y = noisy(rng, n_classes=5)
    penalty = resolve_penalty(kind, ratio).scaled(0.01)
    design = as_design(X)
    terms = Terms(CrossEntropy(), ClassIndices(y), None, 5, float(len(y)), 0.0, True)
    scaling = column_scaling(design, None, penalty=0.01, curvature=0.2, fit_intercept=True)
    objective = SparseObjective(terms.objective(precisions(design, scaling)[0], scaling, map), penalty)
    at = rng.normal(size=objective.size)
    at[:5] = 0  # a feature without weights
    at[5:7] = 0
    moved, point = objective.centred(at, objective.evaluate(at))
    exact = objective.evaluate(moved)
    assert point.objective == pytest.approx(exact.objective, rel=1e-13)
    assert point.loss == pytest.approx(exact.loss, rel=1e-12)
    np.testing.assert_allclose(point.gradient, exact.gradient, atol=1e-14)
    assert exact.objective < objective.evaluate(at).objective
    assert not moved[:5].any()
    for column in range(1, 6):
        rows = objective.split(moved)[0]
        for shift in (-0.3, -1e-3, 1e-3, 0.3):
            other = moved.copy()
            other[: rows.size].reshape(rows.shape)[column] += shift
            assert objective.penalty_at(other) >= objective.penalty_at(moved) * (1 - 1e-14)


def screened_fit(X, y, monkeypatch, **settings):
    """A model, the features that its fit proved to be zero, and what every single proof said, with its gap."""
    fits, proofs = [], []
    fit, zeros = sparse_fit.fit_sparse, SparseObjective.zeros

    def kept(*arguments, **options):
        fits.append(fit(*arguments, **options))
        return fits[-1]

    def told(self, bound, gap, reach):
        proofs.append((zeros(self, bound, gap, reach), zeros(self, bound, gap, 0.0 * reach)))
        return proofs[-1][0]

    with monkeypatch.context() as patch:
        patch.setattr(task, "fit_sparse", kept)
        patch.setattr(SparseObjective, "zeros", told)
        model = SoftmaxClassifier(**settings).fit(X, y)
    return model, fits[-1].screened, proofs


@pytest.mark.parametrize(("penalty", "strength"), [("l1", 0.15), ("l1", 1.0), ("elasticnet", 0.3), ("group", 0.3)])
@pytest.mark.parametrize("classes", [2, 3])
def test_what_is_screened_is_zero_at_the_optimum(penalty, strength, classes, monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 2500))
    y = (X[:, :6] @ rng.normal(size=(6, classes)) * 2 + rng.gumbel(size=(120, classes))).argmax(axis=1)
    settings = {"penalty": penalty, "C": strength}
    model, screened, proofs = screened_fit(X, y, monkeypatch, tol=1e-6, **settings)
    optimum = SoftmaxClassifier(tol=1e-12, max_iter=5000, **settings).fit(X, y)
    assert optimum.certificate_.relative_gap <= 1e-12
    used = optimum.coef_.any(axis=0)
    assert used.sum() > 5
    assert screened.sum() > 0.8 * 2500
    assert not (screened & used).any()
    assert not model.coef_[:, screened].any()
    assert all(not (safe & used).any() for safe, _ in proofs)
    # The gap is what makes the rule safe: without it, features would go that the optimum needs.
    assert any((unsafe & used).any() for _, unsafe in proofs)


def test_what_is_screened_is_not_looked_at_again(monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 2500))
    y = (X[:, :6] @ rng.normal(size=(6, 3)) * 2 + rng.gumbel(size=(120, 3))).argmax(axis=1)
    _, screened, _ = screened_fit(X, y, monkeypatch, penalty="l1", C=1.0)
    assert screened.any()
    chosen = sparse_fit._Fit._chosen
    alive = []

    def looked(self, problem, at, point, left):
        found = chosen(self, problem, at, point, left)
        alive.append((left.copy(), found))
        return found

    monkeypatch.setattr(sparse_fit._Fit, "_chosen", looked)
    SoftmaxClassifier(penalty="l1", C=1.0, tol=1e-10).fit(X, y)
    assert (~alive[-1][0]).sum() > 2000
    assert all(left[found].all() for left, found in alive)


@pytest.mark.parametrize(("kind", "ratio"), [("l1", None), ("elasticnet", 0.9)])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("C", [3.0, 300.0])
def test_columns_far_from_zero_without_an_intercept_take_few_steps(kind, ratio, n_classes, C):
    """Uncentred columns nearly cancel: to set some to zero and not the others is what a step must not do."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 25)) + 10.0 ** rng.uniform(0, 2, 25)
    y = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, 150 - n_classes)])
    model = SoftmaxClassifier(C=C, penalty=kind, l1_ratio=ratio, fit_intercept=False, tol=1e-7, max_iter=20).fit(X, y)
    assert model.converged_
    assert (model.coef_ == 0).any()


@pytest.mark.parametrize("C", [100, 300])
def test_a_model_whose_minimiser_is_of_no_use_is_held_closer(C):
    """400 rows with soft targets hold next to no curvature along some of 650 weights."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:400], y[:400]
    rows = 0.3 * np.random.default_rng(0).dirichlet(np.ones(10), len(y)) + 0.7 * np.eye(10)[y]
    model = SoftmaxClassifier(penalty="l1", C=C).fit(X, rows)
    assert model.converged_
    assert model.certificate_.relative_gap <= model.tol
    scattered = SoftmaxClassifier(penalty="l1", C=C).fit(sparse.csr_array(X), rows)
    assert model.certificate_.primal == pytest.approx(scattered.certificate_.primal, rel=2e-6)
