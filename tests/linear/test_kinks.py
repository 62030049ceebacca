"""Sums that hold a loss with kinks: what is proved of them, against linear programs and 50-digit arithmetic."""

import math
import warnings

import mpmath
import numpy as np
import pytest
from scipy import optimize
from sklearn.datasets import load_digits, load_iris
from sklearn.preprocessing import StandardScaler

from kullback import ClassIndices, ClassRows, CrossEntropy, SigmoidClassifier, SoftmaxClassifier
from kullback.errors import InputError, NotConvergedWarning
from kullback.linear.kinks import has_kinks, without_kinks
from kullback.linear.penalties import resolve_penalty
from kullback.losses import BinaryCrossEntropy, CrammerSinger, Focal, LogitL1, LogitL2, WestonWatkins

SUMS = [
    0.7 * CrossEntropy() + 0.3 * WestonWatkins(),
    CrossEntropy(label_smoothing=0.1) + 0.5 * CrammerSinger(margin=2.0),
    CrossEntropy() + 0.2 * CrammerSinger(squared=True),
    CrossEntropy() + 0.1 * LogitL1(),
    WestonWatkins() + 0.5 * CrammerSinger(),
]
PENALTIES = [
    {"penalty": "l2"},
    {"penalty": "l1", "C": 0.3},
    {"penalty": "elasticnet", "l1_ratio": 0.7},
    {"penalty": "group", "C": 0.3},
]


@pytest.fixture
def data(rng):
    X = rng.normal(size=(40, 4))
    return X * [1, 5, 0.2, 1] + 1, (X @ rng.normal(size=(4, 3)) + rng.gumbel(size=(40, 3))).argmax(axis=1)


def fit(X, y, sample_weight=None, model=SoftmaxClassifier, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotConvergedWarning)
        fitted = model(**settings).fit(X, y, sample_weight)
    assert fitted.converged_
    assert fitted.solver_ == "smoothed"
    return fitted


def objective(model, X, y, sample_weight=None):
    penalty = resolve_penalty(model.penalty, model.l1_ratio)
    total = len(y) if sample_weight is None else np.sum(sample_weight)
    loss = model.loss_(model.logits(X), y, sample_weight=sample_weight)
    return loss + penalty.value(model.coef_.T) / (model.C * total)


@pytest.mark.parametrize("settings", PENALTIES, ids=lambda settings: settings["penalty"])
@pytest.mark.parametrize("loss", SUMS, ids=str)
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_sums_that_hold_a_kink_are_certified(data, loss, settings, fit_intercept):
    X, y = data
    weight = np.linspace(0.5, 2, len(y))
    model = fit(X, y, weight, loss=loss, fit_intercept=fit_intercept, **settings)
    certificate = model.certificate_
    assert certificate.relative_gap <= model.tol
    assert certificate.reason == ""
    assert certificate.primal == pytest.approx(objective(model, X, y, weight), rel=1e-12)
    # No point around is better than what is proved, nor is the end of a fit of another tolerance.
    rough = SoftmaxClassifier(loss=loss, fit_intercept=fit_intercept, tol=1e-2, **settings).fit(X, y, weight)
    assert rough.certificate_.dual <= certificate.primal
    assert certificate.dual <= rough.certificate_.primal
    at, shift = model.coef_, model.intercept_
    for seed in range(20):
        noise = np.random.default_rng(seed)
        size = 10.0 ** noise.uniform(-5, -1)
        model.coef_ = at + size * noise.normal(size=at.shape)
        model.intercept_ = shift + (size * noise.normal(size=3) if fit_intercept else 0.0)
        assert objective(model, X, y, weight) >= certificate.dual


@pytest.mark.parametrize("penalty", ["l1", "group"])
def test_weights_are_exactly_zero(data, penalty):
    X, y = data
    X = np.column_stack([X, np.random.default_rng(0).normal(size=(40, 6))])
    model = fit(X, y, loss=SUMS[0], penalty=penalty, C=0.05)
    assert 0 < (model.coef_ != 0).sum() < model.coef_.size / 2


@pytest.mark.parametrize("C", [0.5, math.inf])
def test_two_hinges_are_a_linear_program(C):
    """With an L1 penalty, or none; by HiGHS."""
    X, y = load_iris(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    n, d, c = *X.shape, 3
    model = fit(X, y, loss=WestonWatkins() + 0.1 * LogitL1(), penalty="l1", C=C, tol=1e-8)
    # Variables: W⁺, W⁻ (d·c), b (c), a slack for each rival, a size for each logit.
    size = 2 * d * c + c
    cost = np.concatenate(
        [
            np.full(2 * d * c, 0.0 if math.isinf(C) else 1 / (C * n)),
            np.zeros(c),
            np.ones(n * c) / n,
            np.ones(n * c) * 0.1 / n,
        ]
    )
    rows, sides = [], []
    for i in range(n):
        for k in range(c):
            of_logit = np.zeros((c, size))
            for out in range(c):
                of_logit[out, : d * c].reshape(d, c)[:, out] = X[i]
                of_logit[out, d * c : 2 * d * c].reshape(d, c)[:, out] = -X[i]
                of_logit[out, 2 * d * c + out] = 1
            place = np.zeros((2, n * c))
            place[0, i * c + k] = -1
            if k != y[i]:
                rows.append(np.concatenate([of_logit[k] - of_logit[y[i]], place[0], place[1]]))
                sides.append(-1.0)
            for sign in (1, -1):
                rows.append(np.concatenate([sign * of_logit[k], place[1], place[0]]))
                sides.append(0.0)
    free = [(0, None)] * (2 * d * c) + [(None, None)] * c + [(0, None)] * (2 * n * c)
    found = optimize.linprog(cost, A_ub=np.array(rows), b_ub=np.array(sides), bounds=free, method="highs")
    assert found.status == 0
    assert model.certificate_.primal == pytest.approx(found.fun, rel=1e-7)
    if not math.isinf(C):
        assert model.certificate_.dual <= found.fun * (1 + 1e-9)


def test_a_bound_is_a_bound_in_fifty_digits(data):
    """The least value by mpmath, of two classes and one column, where the kink decides the slope."""
    X, y = data[0][:10, :1], (data[1][:10] > 0).astype(int)
    model = fit(X, y, loss=0.7 * CrossEntropy() + 0.3 * WestonWatkins(), C=2.0, tol=1e-8)
    with mpmath.workdps(50):
        x, signs = [mpmath.mpf(float(v)) for v in X[:, 0]], [1 if label else -1 for label in y]

        def value(w, b):
            margins = [s * (w * v + b) for v, s in zip(x, signs, strict=True)]
            losses = [
                mpmath.mpf("0.7") * mpmath.log1p(mpmath.exp(-m)) + mpmath.mpf("0.3") * max(0, 1 - m) for m in margins
            ]
            return sum(losses) / len(x) + w * w / (4 * len(x))

        def least_over(function, low, high):
            ratio = (mpmath.sqrt(5) - 1) / 2
            for _ in range(40):
                a, b = high - ratio * (high - low), low + ratio * (high - low)
                low, high = (low, b) if function(a) < function(b) else (a, high)
            return function((low + high) / 2)

        w, b = float(model.coef_[0, 0]), float(model.intercept_[0])
        least = least_over(lambda u: least_over(lambda v: value(u, v), b - 0.01, b + 0.01), w - 0.01, w + 0.01)
        assert model.certificate_.dual <= float(least) * (1 + 1e-12)
        assert float(least) <= model.certificate_.primal * (1 + 1e-12)


@pytest.mark.parametrize("settings", [*PENALTIES, {"C": math.inf}], ids=str)
def test_labels(data, settings):
    X, y = data
    loss = BinaryCrossEntropy() + 0.1 * LogitL1(target_form="labels")
    model = fit(X, np.eye(3)[y], model=SigmoidClassifier, loss=loss, **settings)
    if math.isfinite(model.C):
        assert model.certificate_.relative_gap <= model.tol


@pytest.mark.parametrize("settings", PENALTIES, ids=lambda settings: settings["penalty"])
def test_two_classes_soft_rows_and_sparse_data(data, settings):
    from scipy import sparse

    X, y = data
    rows = np.random.default_rng(1).dirichlet(np.ones(2), len(y))
    loss = 0.5 * CrossEntropy() + 0.5 * CrammerSinger()
    dense = fit(X, ClassRows(rows), loss=loss, **settings)
    for matrix in (sparse.csr_matrix(X), X.astype(np.float32)):
        other = fit(matrix, ClassRows(rows), loss=loss, **settings)
        assert other.certificate_.primal == pytest.approx(dense.certificate_.primal, rel=1e-5)


def test_a_penalty_on_sizes_keeps_both_rows_of_two_classes(data):
    X, y = data
    model = fit(X, y > 0, loss=CrossEntropy() + 0.1 * LogitL1(), penalty="l1", C=0.3)
    assert model.coef_.shape == (2, 4)


@pytest.mark.parametrize("loss", SUMS, ids=str)
def test_what_is_rounded_off_lies_below_by_no_more_than_it_says(rng, loss):
    z = rng.normal(size=(40, 3)) * 2
    targets = ClassIndices(rng.integers(0, 3, 40))
    smooth, worth = without_kinks(loss, 0.3)
    values, whole = smooth(z, targets, reduction="none"), loss(z, targets, reduction="none")
    assert (values <= whole + 1e-12).all()
    # At the dual point that is the gradient, Fenchel's equality of the smooth one leaves ≥ 0 for the loss itself.
    assert (whole - values >= worth(z, targets, reduction="none") - 1e-9).all()
    direction, step = rng.normal(size=z.shape), 1e-6
    _, gradient = smooth.value_and_gradient(z, targets, reduction="sum")
    change = smooth(z + step * direction, targets, reduction="sum") - smooth(
        z - step * direction, targets, reduction="sum"
    )
    assert (gradient * direction).sum() == pytest.approx(change / (2 * step), rel=1e-6)


def test_which_losses_have_kinks():
    assert has_kinks(SUMS[3])
    assert not has_kinks(CrossEntropy() + LogitL2())
    assert not has_kinks(Focal() + WestonWatkins())  # not convex


def test_a_solver_for_smooth_losses_is_refused(data):
    with pytest.raises(InputError, match="has kinks; leave solver='auto'"):
        SoftmaxClassifier(loss=SUMS[0], solver="lbfgs").fit(*data)


@pytest.mark.parametrize("loss", ["0.7 * cross_entropy + 0.3 * weston_watkins", "cross_entropy + 0.01 * logit_l1"])
@pytest.mark.parametrize("penalty", ["l1", "elasticnet"])
def test_sums_beside_a_penalty_with_a_kink_take_few_passes(loss, penalty):
    """With the penalty's kinks rounded off too, 150 steps and 7000 passes came to no proof."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:400], y[:400]
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotConvergedWarning)
        model = SoftmaxClassifier(loss=loss, penalty=penalty).fit(X, y)
    assert model.certificate_.relative_gap <= model.tol
    assert model.certificate_.dual <= model.certificate_.primal
    assert model.certificate_.passes < 1000
    assert (model.coef_ == 0).mean() > 0.3
    assert [record.iteration for record in model.history_] == list(range(len(model.history_)))


def test_a_sum_of_hinges_without_a_penalty_comes_to_its_optimum():
    # Its rounded-off pieces have no curvature along which conjugate gradients could go down.
    X, y = load_iris(return_X_y=True)
    model = SoftmaxClassifier(loss="weston_watkins + crammer_singer", C=math.inf).fit(X, y)
    apart = [SoftmaxClassifier(loss=loss, C=math.inf).fit(X, y) for loss in ("weston_watkins", "crammer_singer")]
    least = sum(part.certificate_.primal for part in apart)  # each has an optimum of its own, the sum one no lower
    assert model.converged_
    assert model.n_iter_[0] < 300
    assert least * (1 - 1e-4) <= model.certificate_.primal <= least * (1 + 1e-4)
