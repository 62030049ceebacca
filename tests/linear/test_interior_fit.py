"""Hinges with kinks as convex programs: against HiGHS, with what is proved, in every form of data."""

import math
import warnings

import numpy as np
import pytest
from scipy import optimize, sparse
from sklearn.datasets import load_digits, load_iris

from kullback import ClassIndices, ClassRows, CrammerSinger, SoftmaxClassifier, SoftmaxPath, WestonWatkins
from kullback.errors import InputError, NotConvergedWarning
from kullback.linear.penalties import resolve_penalty
from kullback.linear.task import FitTask

LOSSES = [WestonWatkins(), CrammerSinger(margin=2.0), CrammerSinger(squared=True)]
PENALTIES = [
    {"penalty": "l1"},
    {"penalty": "elasticnet", "l1_ratio": 0.7},
    {"penalty": "group"},
    {"penalty": "group", "l1_ratio": 0.5},
    {"penalty": "l2"},
]


@pytest.fixture
def data(rng):
    X = rng.normal(size=(60, 4))
    y = (X @ rng.normal(size=(4, 3)) + rng.gumbel(size=(60, 3))).argmax(axis=1)
    return X * [1, 5, 0.2, 1] + 1, y


def fit(X, y, sample_weight=None, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotConvergedWarning)
        model = SoftmaxClassifier(**settings).fit(X, y, sample_weight)
    assert model.converged_
    assert model.solver_ == "interior_point"
    return model


def proved(X, y, sample_weight=None, **settings):
    model = fit(X, y, sample_weight, **settings)
    certificate = model.certificate_
    assert certificate.relative_gap <= model.tol
    assert certificate.dual <= certificate.primal
    assert certificate.primal == pytest.approx(objective(model, X, y, sample_weight), rel=1e-9)
    return model


def weights_of(model):
    """(d, K) the weights that are penalised: of two classes the difference."""
    return model.coef_.T


def objective(model, X, y, sample_weight=None):
    penalty = resolve_penalty(model.penalty, model.l1_ratio)
    loss = model.loss_(model.logits(X.astype(np.float64)), y, sample_weight=sample_weight)
    if math.isinf(model.C):
        return loss
    total = len(y) if sample_weight is None else np.sum(sample_weight)
    return loss + penalty.value(weights_of(model)) / (model.C * total)


class Program:
    """The least of a plain hinge over three or more classes and of what lies below a penalty, by HiGHS.

    Variables: W (d·C), b (C), one ξ for each lead or example, and one u for each norm and square, of which cuts say
    from below what they are.
    """

    def __init__(self, X, y, loss, penalty):
        n, d = X.shape
        c = y.max() + 1
        each = isinstance(loss, WestonWatkins)
        self.shape, self.penalty = (d, c), penalty
        self.n_xi = n * (c - 1) if each else n
        self.n_terms = d if penalty.grouped else d * c
        self.first = d * c + c
        leads, sides = [], []
        place = 0
        for i in range(n):
            for k in range(c):
                if k == y[i]:
                    continue
                row = np.zeros(self.first + self.n_xi + 2 * self.n_terms)
                sign = np.zeros(c)
                sign[k], sign[y[i]] = 1, -1
                row[: d * c] = np.outer(X[i], sign).ravel()
                row[d * c : self.first] = sign
                row[self.first + (place if each else i)] = -1
                place += 1
                leads.append(row)
                sides.append(-loss.margin)
        self.rows, self.sides = leads, sides
        self.cost = np.repeat([0, 1 / n, penalty.lasso, penalty.ridge], [self.first, self.n_xi, *[self.n_terms] * 2])

    def cut(self, weights):
        """Say what the penalty is at weights (d, C), and a plane that touches it there."""
        size = self.penalty.sizes(weights).ravel()
        norm, square = self.first + self.n_xi, self.first + self.n_xi + self.n_terms
        for term in range(self.n_terms):
            part = slice(term * self.shape[1], (term + 1) * self.shape[1]) if self.penalty.grouped else term
            w = weights.ravel()[part]
            if size[term] > 0:
                row = np.zeros(len(self.cost))
                row[part], row[norm + term] = w / size[term], -1
                self.rows.append(row)
                self.sides.append(0.0)
            row = np.zeros(len(self.cost))
            row[part], row[square + term] = w, -1
            self.rows.append(row)
            self.sides.append(0.5 * np.sum(w**2))

    def solve(self):
        free = [(None, None)] * self.first + [(0, None)] * (len(self.cost) - self.first)
        found = optimize.linprog(
            self.cost, A_ub=np.array(self.rows), b_ub=np.array(self.sides), bounds=free, method="highs"
        )
        assert found.status == 0
        return found.fun, found.x[: math.prod(self.shape)].reshape(self.shape)


@pytest.mark.parametrize("settings", PENALTIES, ids=str)
@pytest.mark.parametrize("loss", LOSSES[:2], ids=str)
def test_the_least_value_is_that_of_linear_programs(data, loss, settings):
    X, y = data
    model = proved(X, y, loss=loss, C=0.3, **settings)
    penalty = resolve_penalty(settings["penalty"], settings.get("l1_ratio")).scaled(1 / (0.3 * len(y)))
    program = Program(X, y, loss, penalty)
    for sign in (1, -1):
        program.cut(sign * np.ones(program.shape))
    program.cut(weights_of(model))
    least = -math.inf
    for _ in range(40):
        least, weights = program.solve()
        if least >= model.certificate_.primal * (1 - 1e-6):
            break
        # Between the two, which cuts deeper than at the far end.
        program.cut(weights)
        program.cut((weights + weights_of(model)) / 2)
    assert least == pytest.approx(model.certificate_.primal, rel=3e-6)
    assert model.certificate_.dual <= least * (1 + 3e-6)


@pytest.mark.parametrize("settings", [{"penalty": "l1", "C": 0.5}, {"C": math.inf}], ids=str)
@pytest.mark.parametrize("loss", LOSSES[:2], ids=str)
def test_flowers_are_a_linear_program(loss, settings):
    X, y = load_iris(return_X_y=True)
    model = fit(X, y, loss=loss, tol=1e-8, **settings)
    penalty = resolve_penalty(settings.get("penalty", "none"), None).scaled(1 / (settings["C"] * len(y)))
    program = Program(X, y, loss, penalty)
    for term in np.eye(math.prod(program.shape)):
        program.cut(term.reshape(program.shape))
        program.cut(-term.reshape(program.shape))
    least, _ = program.solve()
    assert model.certificate_.primal == pytest.approx(least, rel=1e-7)
    assert objective(model, X, y) == pytest.approx(least, rel=1e-7)


@pytest.mark.parametrize("settings", PENALTIES, ids=str)
@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_no_point_around_is_better_than_what_is_proved(data, loss, settings, fit_intercept):
    X, y = data
    weight = np.linspace(0.5, 2, len(y))
    model = proved(X, y, weight, loss=loss, fit_intercept=fit_intercept, C=0.3, **settings)
    at, shift, dual = model.coef_, model.intercept_, model.certificate_.dual
    for seed in range(20):
        noise = np.random.default_rng(seed)
        size = 10.0 ** noise.uniform(-5, -1)
        model.coef_ = at + size * noise.normal(size=at.shape)
        model.intercept_ = shift + (size * noise.normal(size=3) if fit_intercept else 0.0)
        assert objective(model, X, y, weight) >= dual


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("penalty", ["l1", "group"])
def test_digits(loss, penalty):
    X, y = load_digits(return_X_y=True)
    model = proved(X / 16, y, loss=loss, penalty=penalty, C=0.05)
    used = model.coef_ != 0
    assert 0.05 < used.mean() < 0.7
    if penalty == "group":
        assert (used.all(axis=0) | ~used.any(axis=0)).all()
    # Constant columns have no weights.
    assert not used[:, X.std(axis=0) == 0].any()
    assert model.n_iter_[0] < 60


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
@pytest.mark.parametrize("penalty", ["l1", "group", "elasticnet"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_columns_of_which_few_count(rng, form, penalty, dtype):
    X = sparse.random(150, 1200, 0.02, format="csr", random_state=0, dtype=dtype)
    y = np.asarray(X[:, :6].toarray() @ rng.normal(size=(6, 3)) + 0.1 * rng.normal(size=(150, 3))).argmax(axis=1)
    given = X.toarray() if form == "dense" else X.asformat(form)
    model = proved(given, y, loss="weston_watkins", penalty=penalty, l1_ratio=0.9 if penalty != "l1" else None, C=0.5)
    assert 0 < (model.coef_ != 0).mean() < 0.3


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("penalty", ["l1", "l2", "group"])
def test_two_classes_and_the_difference_of_their_weights(data, loss, penalty):
    X, y = data
    assert proved(X, y > 0, loss=loss, penalty=penalty, C=0.1).coef_.shape == (1, 4)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("settings", [{"penalty": "l1"}, {"penalty": "l2"}], ids=str)
def test_a_row_of_several_classes_is_several_rows(data, loss, settings):
    X, y = data
    shares = np.random.default_rng(0).dirichlet(np.ones(3), len(y))
    shares[:30] = np.eye(3)[y[:30]]
    model = proved(X, ClassRows(shares), loss=loss, C=1, **settings)
    rows, classes = np.nonzero(shares)
    apart = fit(X[rows], classes, shares[rows, classes], loss=loss, C=1, **settings)
    assert model.certificate_.primal == pytest.approx(apart.certificate_.primal, rel=2e-6)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("settings", [{"penalty": "l1"}, {"penalty": "l2"}, {"C": math.inf}], ids=str)
def test_classes_without_weight_leave_a_fit_of_the_others(data, loss, settings):
    X, y = data
    settings = {"C": 0.5, "tol": 1e-8, **settings}
    names = np.array([0, 3, 2])
    labels = names[y].copy()
    labels[::10] = 1
    kept = labels != 1
    model = fit(X, labels, loss=loss, class_weight={1: 0}, **settings)
    others = fit(X[kept], labels[kept], loss=loss, **settings)
    assert model.certificate_.primal == pytest.approx(others.certificate_.primal, rel=2e-8, abs=2e-8)
    assert (model.predict(X[kept]) != 1).all()
    assert model.certificate_.primal == pytest.approx(objective(model, X[kept], labels[kept]), rel=1e-9, abs=1e-9)


def test_a_hinge_of_one_class_is_zero(data):
    X, y = data
    options = {"fit_intercept": True, "penalty_factor": 1.0}
    task = FitTask(X, ClassIndices(np.full(len(y), 2)), 3, WestonWatkins(), None, **options)
    solution = task.solve(1.0, tol=1e-6, max_iter=10)
    assert solution.result.converged
    assert solution.certificate.primal == 0
    assert WestonWatkins()(X @ solution.weights + solution.intercept, np.full(len(y), 2)) <= 1e-12


def test_without_a_penalty_the_dual_point_says_when_a_fit_ends(data):
    X, y = data
    model = fit(X, y, loss="crammer_singer", C=math.inf)
    assert model.certificate_.gradient_norm <= model.tol
    assert "without a penalty" in model.certificate_.reason
    # Data that a line separates have an optimum of no loss at all, at weights that do not grow.
    apart = fit(X, (X[:, 0] > 1).astype(int), loss="weston_watkins", C=math.inf)
    assert apart.certificate_.primal <= 1e-6
    assert np.abs(apart.coef_).max() < 1e4


def test_too_few_steps_are_said_and_a_warm_start_goes_on(data):
    X, y = data
    with pytest.warns(NotConvergedWarning, match="it used all 3 iterations"):
        model = SoftmaxClassifier(loss="crammer_singer", penalty="l1", max_iter=3, warm_start=True).fit(X, y)
    assert model.n_iter_[0] == 3
    assert model.certificate_.dual <= model.certificate_.primal
    model.set_params(max_iter=100).fit(X, y)
    assert model.converged_


def test_along_a_path(data):
    X, y = data
    path = SoftmaxPath(Cs=[0.01, 0.1, 1, math.inf], loss="weston_watkins", penalty="l1").fit(X, y)
    assert path.converged_
    assert max(certificate.relative_gap for certificate in path.certificates_[:-1]) <= 1e-6


def test_weights_of_eight_orders_of_magnitude_and_copies_of_columns(data, rng):
    X, y = data
    X = np.column_stack([X, X[:, 0], np.ones(len(y)), 1e4 * X[:, 1]])
    for penalty in ("l1", "group", "l2"):
        proved(X, y, 10.0 ** rng.uniform(-4, 4, len(y)), loss="weston_watkins", penalty=penalty, C=1e-3)


@pytest.mark.parametrize("settings", [{"penalty": "l2", "C": 1e4}, {"penalty": "l1"}], ids=str)
def test_hardly_more_rows_than_classes(rng, settings):
    X = rng.normal(size=(40, 3))
    for loss in LOSSES:
        proved(X, np.arange(40) % 35, loss=loss, **settings)


@pytest.mark.parametrize("solver", ["lbfgs", "preconditioned"])
def test_solvers_of_smooth_losses_are_refused(data, solver):
    with pytest.raises(InputError, match=f"solver='{solver}' needs .* weston_watkins has kinks; leave solver='auto'"):
        SoftmaxClassifier(loss="weston_watkins", solver=solver).fit(*data)


@pytest.mark.parametrize("settings", [*PENALTIES[:4], {"C": math.inf}], ids=str)
def test_a_fit_with_more_weights_than_a_step_can_hold_goes_on(rng, monkeypatch, settings):
    settings = {"C": 10, **settings}
    X, y = rng.normal(size=(80, 10)), rng.integers(0, 4, 80)
    known = fit(X, y, loss="weston_watkins", **settings).certificate_
    monkeypatch.setattr("kullback.linear.interior_fit.MOST_AT_ONCE", 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotConvergedWarning)
        model = SoftmaxClassifier(loss="weston_watkins", **settings).fit(X, y)
    assert model.certificate_.primal == pytest.approx(known.primal, rel=2e-6)
    if math.isfinite(settings["C"]):
        assert model.certificate_.relative_gap <= model.tol
        assert model.certificate_.dual <= known.primal
    assert [record.iteration for record in model.history_] == list(range(len(model.history_)))


@pytest.mark.parametrize(
    "penalty", [{"penalty": "l1"}, {"penalty": "elasticnet", "l1_ratio": 0.7}, {"penalty": "group"}]
)
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_squared_hinges_of_every_rival(data, penalty, fit_intercept):
    """Against proximal Newton steps, which fit sums."""
    X, y = data
    weight = np.random.default_rng(0).uniform(0.1, 3, len(y))
    loss, settings = WestonWatkins(squared=True, margin=2.0), {"C": 0.2, "fit_intercept": fit_intercept, **penalty}
    model = proved(X, y, weight, loss=loss, tol=1e-10, **settings)
    other = SoftmaxClassifier(loss=0.5 * loss + 0.5 * loss, tol=1e-10, **settings).fit(X, y, weight)
    assert other.solver_ == "prox_newton"
    assert model.certificate_.primal == pytest.approx(other.certificate_.primal, rel=1e-9)
    np.testing.assert_allclose(model.coef_, other.coef_, atol=1e-3)
    np.testing.assert_array_equal(model.coef_ == 0, other.coef_ == 0)


@pytest.mark.parametrize("loss", [*LOSSES, WestonWatkins(squared=True)], ids=str)
@pytest.mark.parametrize("penalty", ["l1", "group"])
def test_a_penalty_that_leaves_no_column_of_many(rng, loss, penalty):
    X = sparse.random_array((60, 400), density=0.02, rng=rng, format="csr")
    model = proved(X, np.arange(60) % 3, loss=loss, penalty=penalty, C=1e-4)
    assert not model.coef_.any()


@pytest.mark.parametrize("loss", [*LOSSES, WestonWatkins(squared=True)], ids=str)
@pytest.mark.parametrize("penalty", ["l2", "l1", "group"])
def test_weights_of_eight_orders_of_magnitude_on_raw_columns_that_tell_classes_apart(loss, penalty):
    """Heavy rows keep slacks below the rounding of their leads, which steps have to know all the same."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:400, 10:40], y[:400]
    weight = 10.0 ** np.random.default_rng(0).uniform(-4, 4, len(y))
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotConvergedWarning)
        model = SoftmaxClassifier(loss=loss, penalty=penalty, C=1e4).fit(X, y, weight)
    certificate = model.certificate_
    assert certificate.relative_gap <= model.tol
    assert certificate.dual <= certificate.primal
    assert certificate.primal == pytest.approx(objective(model, X, y, weight), rel=1e-6)
    assert model.n_iter_[0] < 200


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("penalty", ["l2", "l1", "group"])
@pytest.mark.parametrize("seed", range(5))
def test_classes_of_one_example_with_weights_of_eight_orders_of_magnitude(loss, penalty, seed):
    """A class of next to no weight must not start with products that are next to zero."""
    rng = np.random.default_rng(seed)
    weight = 10.0 ** rng.uniform(-4, 4, 5)
    X, y = rng.normal(size=(5, 12)), np.arange(5)
    model = proved(X, y, weight, loss=loss, penalty=penalty, C=1.0)
    assert model.n_iter_[0] < 60


@pytest.mark.parametrize("seed", [7, 8, 9])
@pytest.mark.parametrize("C", [1.0, 1e3])
def test_weights_of_eight_orders_of_magnitude_may_make_the_first_steps_short(seed, C):
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    some = rng.permutation(len(y))[:400]
    model = proved(X[some], y[some], 10.0 ** rng.uniform(-4, 4, 400), loss=CrammerSinger(), C=C)
    assert model.n_iter_[0] < 120
