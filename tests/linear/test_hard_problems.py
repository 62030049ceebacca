"""Problems that stop other solvers: each must reach a proved gap, or say why there is none."""

import math
import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_digits, load_wine

from kullback import BalancedSoftmax, CrossEntropy, Ldam, LogitL1, LogitL2, SoftmaxClassifier
from kullback.errors import NotConvergedWarning
from kullback.targets import ClassRows

N, D, C = 1500, 12, 5


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, D))
    return X, (X @ rng.normal(size=(D, C)) + rng.gumbel(size=(N, C))).argmax(axis=1)


def fit(X, y, sample_weight=None, **settings):
    """A fit that must converge without a warning; the gap is checked against the fit's own optimum in 1e-12."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotConvergedWarning)
        model = SoftmaxClassifier(**settings).fit(X, y, sample_weight=sample_weight)
    assert model.converged_
    assert model.certificate_.relative_gap <= model.tol
    assert model.certificate_.dual <= model.certificate_.primal
    return model


FORMS = {
    "float64": lambda X: X,
    "float32": lambda X: X.astype(np.float32),
    "csr": sparse.csr_array,
    "csr float32": lambda X: sparse.csr_array(X.astype(np.float32)),
}


@pytest.mark.parametrize("strength", [1.0, 1e6])
@pytest.mark.parametrize("form", FORMS)
def test_column_scales_over_twelve_orders_of_magnitude(data, form, strength):
    X, y = data
    scales = 10.0 ** np.linspace(-6, 6, D)
    model = fit(FORMS[form](X * scales), y, C=strength)
    reference = fit(X * scales, y, C=strength, tol=1e-10)
    assert model.certificate_.primal == pytest.approx(reference.certificate_.primal, rel=2e-6)
    assert model.n_iter_ < 100


@pytest.mark.parametrize("strength", [1.0, 1e3])
@pytest.mark.parametrize("form", FORMS)
def test_duplicated_and_constant_columns(data, form, strength):
    X, y = data
    X = np.column_stack([X, X, np.full(N, 7.0), np.zeros(N), X[:, :2] * 1e6])
    model = fit(FORMS[form](X), y, C=strength)
    np.testing.assert_allclose(model.coef_[:, :D], model.coef_[:, D : 2 * D], atol=2e-2 * np.abs(model.coef_).max())
    assert model.coef_[:, 2 * D] == pytest.approx(0, abs=1e-2)
    assert (model.coef_[:, 2 * D + 1] == 0).all()


@pytest.mark.parametrize("strength", [1e3, 1e4])
@pytest.mark.parametrize("seed", [1, 4, 6])
def test_copies_and_a_weak_penalty(seed, strength):
    """Where float32 ends, the estimate of the Hessian has to be one in float64, or the copies stay apart."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, D))
    y = (X @ rng.normal(size=(D, C)) + rng.gumbel(size=(N, C))).argmax(axis=1)
    fit(np.column_stack([X, X, np.full(N, 7.0), np.zeros(N), X[:, :2] * 1e6]), y, C=strength)


@pytest.mark.parametrize("form", FORMS)
def test_means_far_from_zero(data, form):
    X, y = data
    reference = fit(X, y, tol=1e-9)
    far = FORMS[form](X + 1e4)
    values = far.toarray() if sparse.issparse(far) else far
    model = fit(far, y)
    np.testing.assert_allclose(model.predict_proba(far), reference.predict_proba(values.astype(float) - 1e4), atol=1e-2)


def test_what_cannot_be_proved_is_said(data):
    """Columns equal but for their float32 rounding, and next to no penalty: the optimum is found, the proof is not."""
    X, y = data
    X = np.column_stack([X, X[:, :2] * 1e6]).astype(np.float32)
    reference = fit(X[:, :D], y, C=1e6, tol=1e-9)
    with pytest.warns(NotConvergedWarning, match=r"no step .* lowered the objective beyond rounding; .* gap"):
        model = SoftmaxClassifier(C=1e9).fit(X, y)
    assert not model.converged_
    assert model.certificate_.relative_gap > model.tol
    assert model.certificate_.primal == pytest.approx(reference.certificate_.primal, rel=1e-3)


@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize("strength", [1.0, 1e4])
def test_one_class_in_a_hundred_thousand(strength, class_weight):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100_000, 4)).astype(np.float32)
    y = (X @ rng.normal(size=(4, 3)) + rng.gumbel(size=(100_000, 3))).argmax(axis=1)
    y[70_000] = 3
    X[70_000] = [1, -2, 0.5, 1]
    model = fit(X, y, C=strength, class_weight=class_weight, tol=1e-9)
    share = model.predict_proba(X)[:, 3].mean()
    if class_weight is None:  # the intercepts are free, so the mean probability of a class is its share
        assert share == pytest.approx(1e-5, rel=0.02)


def test_fewer_rows_than_classes(data):
    X, _ = data
    rng = np.random.default_rng(1)
    targets = ClassRows(rng.dirichlet(np.ones(60), 20))
    model = fit(X[:20], targets, tol=1e-11)
    assert model.coef_.shape == (60, D)
    np.testing.assert_allclose(model.predict_proba(X[:20]).mean(axis=0), targets.rows.mean(axis=0), atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("strength", [1.0, 1e3])
@pytest.mark.parametrize("spread", ["even", "two"])
def test_weights_over_eight_orders_of_magnitude(data, form, strength, spread):
    X, y = data
    rng = np.random.default_rng(2)
    weight = 10.0 ** rng.uniform(-4, 4, N) if spread == "even" else np.where(rng.random(N) < 0.02, 1e8, 1.0)
    model = fit(FORMS[form](X), y, weight, C=strength)
    heavy = weight > weight.max() / 10
    assert model.score(X[heavy], y[heavy]) >= model.score(X[~heavy], y[~heavy])


def test_a_gap_at_the_rounding_of_float64(data):
    X, y = data
    model = fit(X, y, tol=1e-13)
    assert model.certificate_.relative_gap < 1e-13


@pytest.mark.parametrize("loss", ["cross_entropy", "cross_entropy(label_smoothing=0.2)"])
def test_soft_targets_are_certified(data, loss):
    X, _ = data
    rows = np.random.default_rng(3).dirichlet(np.ones(C), N)
    model = fit(X, ClassRows(rows), loss=loss, C=1e3)
    assert model.certificate_.primal > CrossEntropy().floor(ClassRows(rows)) - 1e-9


SMOOTH = [
    "weston_watkins(squared=True)",
    "weston_watkins(squared=True, margin=3)",
    "poly",
    "poly(epsilon=-0.5)",
    "ldam",
    CrossEntropy() + 0.1 * LogitL2(),
]
SHIFTED = ["deviance", "kullback_leibler", "balanced_softmax"]


@pytest.mark.parametrize("loss", SMOOTH, ids=str)
def test_other_smooth_convex_losses_are_certified(data, loss):
    X, y = data
    certified = fit(X, y, loss=loss, fit_intercept=False)
    assert math.isfinite(certified.certificate_.dual)
    weight = 10.0 ** np.random.default_rng(3).uniform(-2, 2, N)
    X = X + 3
    exact = fit(X, y, weight, loss=loss, tol=1e-11)
    free = fit(X, y, weight, loss=loss)
    for form in FORMS.values():
        fit(form(X), y, weight, loss=loss, C=100.0)
    optimum = exact.certificate_.primal
    assert free.certificate_.dual <= optimum * (1 + 1e-12)
    assert free.certificate_.primal <= optimum * (1 + 1e-6)
    for n_iter in range(8):  # what is proved on the way holds too
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            early = SoftmaxClassifier(loss=loss, max_iter=n_iter).fit(X, y, weight).certificate_
        assert math.isfinite(early.dual)
        assert early.dual <= optimum * (1 + 1e-12) <= early.primal * (1 + 1e-11)


@pytest.mark.parametrize("penalty", ["l1", "elasticnet", "group"])
@pytest.mark.parametrize("loss", ["weston_watkins(squared=True)", "poly"])
def test_they_are_certified_beside_a_penalty_with_a_kink_too(data, loss, penalty):
    X, y = data
    model = fit(X + 3, y, loss=loss, penalty=penalty, C=0.05)
    exact = fit(X + 3, y, loss=loss, penalty=penalty, C=0.05, tol=1e-7)
    assert model.certificate_.dual <= exact.certificate_.primal
    assert exact.certificate_.dual <= model.certificate_.primal
    assert penalty == "group" or not model.coef_.all()


def test_a_rare_class_under_a_squared_hinge():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 4)).astype(np.float32)
    y = (X @ rng.normal(size=(4, 3)) + rng.gumbel(size=(20_000, 3))).argmax(axis=1)
    y[7_000] = 3
    fit(X, y, loss="weston_watkins(squared=True)")


@pytest.mark.parametrize("loss", SHIFTED)
def test_losses_that_differ_from_cross_entropy_by_a_shift_are_as_quick_as_it(data, loss):
    X, y = data
    plain = fit(X, y)
    shifted = fit(X, y, loss=BalancedSoftmax(class_counts=[1, 2, 3, 4, 5]) if "balanced" in loss else loss)
    assert shifted.certificate_.relative_gap <= 1e-6
    assert shifted.n_iter_[0] <= plain.n_iter_[0] + 3


@pytest.mark.parametrize("loss", ["focal", "generalised_cross_entropy", "smoothed_zero_one", "brier", "one_vs_rest"])
def test_losses_that_are_not_convex_say_so_and_warn_of_nothing_else(data, loss):
    X, y = data
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        model = SoftmaxClassifier(loss=loss).fit(X, y)
    assert model.certificate_.relative_gap == math.inf
    assert "not convex" in model.certificate_.reason


def test_an_optimum_of_zero_needs_no_steps(data):
    X, y = data
    for fit_intercept in (True, False):
        model = SoftmaxClassifier(loss=LogitL1() + LogitL2(), fit_intercept=fit_intercept).fit(X, y)
        assert model.converged_
        assert not model.coef_.any()


@pytest.mark.parametrize("form", ["float32", "csr float32"])
def test_work_grows_with_rows_no_faster_than_the_data(form):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(10, 4))
    work = []
    for rows in (1_000, 10_000, 100_000):
        X = rng.normal(size=(rows, 10))
        y = (X @ truth + rng.gumbel(size=(rows, 4))).argmax(axis=1)
        work.append(fit(FORMS[form](X), y, C=1000 / rows).certificate_.passes)
    assert max(work) <= 1.5 * min(work) + 5


def hard_problem(name):
    """Data, labels and weights; the first word says whether there are more rows or more columns."""
    rng = np.random.default_rng(1)
    shape, kind = name.split(", ")
    if shape == "tall":
        X = rng.normal(size=(N, D)) * (rng.random((N, D)) < 0.4)
        y = (X @ rng.normal(size=(D, C)) + rng.gumbel(size=(N, C))).argmax(axis=1)
    else:
        X = rng.normal(size=(60, 150)) * (rng.random((60, 150)) < 0.1)
        y = (X @ rng.normal(size=(150, 4)) + rng.gumbel(size=(60, 4))).argmax(axis=1)
    weight = None
    if kind == "scales":
        X = X * 10.0 ** rng.permutation(np.linspace(-6, 6, X.shape[1]))
    if kind == "copies":
        X = np.column_stack([X, X, np.full(len(X), 7.0), np.zeros(len(X))])
    if kind == "weights":
        weight = 10.0 ** rng.uniform(-4, 4, len(X))
    if kind == "classes":
        X, y = X[:20], np.arange(20)
    return sparse.csr_array(X), y, weight


KINDS = ["scales", "copies", "weights", "classes"]


@pytest.mark.parametrize("penalty", ["l2", "l1", "elasticnet", "group"])
@pytest.mark.parametrize(
    "problem",
    [f"tall, {kind}" for kind in KINDS]
    + [pytest.param(f"wide, {kind}", marks=[pytest.mark.slow] if kind == "scales" else []) for kind in KINDS],
)
def test_every_penalty_on_hard_sparse_problems(problem, penalty):
    X, y, weight = hard_problem(problem)
    model = fit(X, y, weight, penalty=penalty)
    as_columns = fit(sparse.csc_array(X), y, weight, penalty=penalty)
    assert as_columns.certificate_.primal == pytest.approx(model.certificate_.primal, rel=3e-6)
    if X.shape[0] > X.shape[1]:
        dense = fit(X.toarray(), y, weight, penalty=penalty)
        assert dense.certificate_.primal == pytest.approx(model.certificate_.primal, rel=3e-6)


@pytest.mark.parametrize("penalty", ["l1", "elasticnet", "group"])
def test_a_rare_class_under_every_penalty(penalty):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100_000, 4)) * (rng.random((100_000, 4)) < 0.5)
    y = (X @ rng.normal(size=(4, 3)) + rng.gumbel(size=(100_000, 3))).argmax(axis=1)
    y[70_000] = 3
    fit(sparse.csr_array(X), y, penalty=penalty, C=0.01)


@pytest.mark.parametrize("penalty", ["l1", "elasticnet", "group"])
def test_steps_below_the_rounding_of_the_objective(penalty):
    """Copies of columns a million times as large: the gap needs the gradient more exactly than the objective is."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, D))
    y = (X @ rng.normal(size=(D, C)) + rng.gumbel(size=(N, C))).argmax(axis=1)
    X = np.column_stack([X, X, np.full(N, 7.0), X[:, :2] * 1e6])
    fit(X, y, penalty=penalty, C=0.01, tol=1e-5)


def test_what_rounding_hides_is_said():
    X, y, _ = hard_problem("tall, scales")
    with pytest.warns(NotConvergedWarning, match="columns that spread over .* lost in float64's rounding; standardise"):
        model = SoftmaxClassifier(penalty="l1", C=1e4).fit(X, y)
    assert not model.converged_
    size = np.asarray(np.sqrt(X.power(2).mean(axis=0))).ravel()
    size[size == 0] = 1
    fit(X @ sparse.diags_array(1 / size), y, penalty="l1", C=1e4)
    with pytest.warns(NotConvergedWarning, match="lost in float64's rounding"):
        SoftmaxClassifier().fit((X.toarray() * 1e12).astype(np.float32), y)


@pytest.mark.parametrize("seed", range(3))
def test_squared_hinges_on_columns_of_twelve_orders_of_magnitude(seed):
    """Where differences of gradients are rounding, a Newton step gets to the gap that they cannot."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(300, 8))
    y = (X @ rng.normal(size=(8, 4)) + rng.gumbel(size=(300, 4))).argmax(axis=1)
    model = SoftmaxClassifier(loss="weston_watkins(squared=True)", C=1e4).fit(X * 10.0 ** np.linspace(-6, 6, 8), y)
    assert model.converged_
    assert model.certificate_.relative_gap <= model.tol
    assert [record.iteration for record in model.history_] == list(range(len(model.history_)))


@pytest.mark.parametrize("seed", [1, 3])
@pytest.mark.parametrize("loss", ["crammer_singer(squared=True)", "crammer_singer", "weston_watkins"])
def test_hinges_with_kinks_on_columns_of_twelve_orders_of_magnitude(seed, loss):
    """What rounding leaves of the slopes after an interior-point step is too much for a weak penalty's bound."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(1000, 13))
    y = (X @ rng.normal(size=(13, 5)) + rng.gumbel(size=(1000, 5))).argmax(axis=1)
    fit((X + seed % 3) * 10.0 ** np.linspace(-6, 6, 13), y, loss=loss, C=1e4)


def test_squared_hinges_on_raw_columns_need_more_than_pairs():
    """What quasi-Newton pairs learn of a hinge in one step is gone in the next: 1000 of them came to no bound."""
    X, y = load_digits(return_X_y=True)
    model = fit(X, y, loss="weston_watkins(squared=True)")
    assert model.n_iter_[0] < 300
    assert [record.iteration for record in model.history_] == list(range(len(model.history_)))
    assert fit(X, y > 4, loss="weston_watkins(squared=True)", tol=1e-9).certificate_.primal == pytest.approx(
        fit(X, y > 4, loss="weston_watkins(squared=True)", tol=1e-5).certificate_.primal, rel=2e-5
    )


@pytest.mark.parametrize("strength", [1.0, 1e4, math.inf])
@pytest.mark.parametrize("form", ["float64", "csr float32"])
def test_where_pairs_learn_no_more_the_hessian_itself_ends_a_fit(form, strength):
    """A steep loss on raw columns that tell the classes apart, beside weights over eight orders of magnitude."""
    X, y = load_wine(return_X_y=True)
    weight = 10.0 ** np.random.default_rng(0).uniform(-4, 4, len(y))
    loss = Ldam(class_counts=np.bincount(y))
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotConvergedWarning)
        model = SoftmaxClassifier(loss=loss, C=strength, tol=1e-7).fit(FORMS[form](X), y, weight)
    assert model.n_iter_[0] < 250
    if math.isfinite(strength):
        assert model.certificate_.relative_gap <= 1e-7
        assert model.certificate_.dual <= model.certificate_.primal
    else:
        assert model.certificate_.gradient_norm <= 1e-7
        assert "without a penalty" in model.certificate_.reason
    assert [record.iteration for record in model.history_] == list(range(len(model.history_)))
