"""Fits in the space of rows, against fits in the space of columns."""

import math
import warnings

import numpy as np
import pytest
from scipy import sparse

from kullback import ClassRows, SigmoidClassifier, SoftmaxClassifier
from kullback.errors import NotConvergedWarning
from kullback.linear.design import SparseDesign
from kullback.linear.row_space import RowGram
from kullback.linear.solvers.inner_products import InnerProductPairs

N, D = 150, 700


@pytest.fixture(scope="module")
def text():
    """Rows of few words, as counts weighted to a length of one; three classes with words of their own."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, N)
    words = np.where(
        rng.random((N, 40)) < 0.4, rng.integers(0, 60, (N, 40)) + 60 * y[:, None], rng.integers(0, D, (N, 40))
    )
    matrix = sparse.csr_array(
        (np.ones(words.size), (np.repeat(np.arange(N), 40), words.ravel())), shape=(N, D), dtype=np.float64
    )
    matrix.sum_duplicates()
    norms = np.sqrt(np.asarray(matrix.power(2).sum(axis=1)).ravel())
    matrix.data /= np.repeat(norms, np.diff(matrix.indptr))
    return matrix, y


def fit(X, y, kind=SoftmaxClassifier, sample_weight=None, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotConvergedWarning)
        return kind(**settings).fit(X, y, sample_weight=sample_weight)


CASES = {
    "plain": {},
    "weak penalty": {"C": 100.0},
    "strong penalty": {"C": 0.01},
    "smoothed": {"loss": "cross_entropy(label_smoothing=0.2)"},
    "temperature": {"loss": "cross_entropy(temperature=2.0)"},
    "no intercept": {"fit_intercept": False},
    "balanced": {"class_weight": {0: 3.0, 1: 1.0, 2: 0.5}},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("weighted", [False, True])
def test_same_optimum_as_in_the_space_of_columns(text, case, weighted):
    X, y = text
    weight = np.random.default_rng(1).random(N) * 3 if weighted else None
    rows = fit(X, y, sample_weight=weight, tol=1e-9, **CASES[case])
    columns = fit(X, y, sample_weight=weight, tol=1e-9, solver="lbfgs", **CASES[case])
    assert (rows.solver_, columns.solver_) == ("row_space", "lbfgs")
    assert rows.certificate_.relative_gap <= 1e-9
    assert rows.certificate_.primal == pytest.approx(columns.certificate_.primal, rel=1e-9)
    assert rows.certificate_.dual <= columns.certificate_.primal * (1 + 1e-12)
    np.testing.assert_allclose(rows.coef_, columns.coef_, atol=1e-3 * np.abs(columns.coef_).max())
    np.testing.assert_allclose(rows.intercept_, columns.intercept_, atol=2e-3)


def test_two_classes_soft_targets_and_labels(text):
    X, y = text
    soft = ClassRows(np.random.default_rng(2).dirichlet(np.ones(3), N))
    labels = np.stack([y == 0, y > 0], axis=1).astype(int)
    loss = "binary_cross_entropy(label_reduction='sum')"
    for kind, targets, settings in (
        (SoftmaxClassifier, y > 0, {}),
        (SoftmaxClassifier, soft, {}),
        (SigmoidClassifier, labels, {"loss": loss}),
    ):
        rows = fit(X, targets, kind, tol=1e-9, **settings)
        columns = fit(X, targets, kind, tol=1e-9, solver="lbfgs", **settings)
        assert rows.solver_ == "row_space"
        assert rows.coef_.shape == columns.coef_.shape
        np.testing.assert_allclose(rows.coef_, columns.coef_, atol=1e-3 * np.abs(columns.coef_).max())


def test_float32_passes_reach_what_float64_proves(text, monkeypatch):
    from kullback.linear import row_fit

    X, y = text
    monkeypatch.setattr(row_fit, "SMALL_WORK", 0)
    reference = fit(X, y, tol=1e-10, solver="lbfgs")
    for tol in (1e-3, 1e-6, 1e-11):
        single = fit(X.astype(np.float32), y, tol=tol)
        assert single.certificate_.relative_gap <= tol
        double = fit(X, y, tol=tol)
        assert double.certificate_.dual <= reference.certificate_.primal * (1 + 1e-12)
        assert double.certificate_.primal <= reference.certificate_.primal * (1 + 1.01 * tol + 1e-10)


def test_a_fit_goes_on_from_where_it_was_stopped(text):
    X, y = text

    def stop(record):
        if record.iteration == 4:
            raise StopIteration

    with pytest.warns(NotConvergedWarning, match="callback stopped it"):
        part = SoftmaxClassifier(tol=1e-9, C=10, callback=stop).fit(X, y)
    assert part.n_iter_ == [4]
    assert math.isfinite(part.certificate_.primal)
    whole = fit(X, y, tol=1e-9, C=10)
    resumed = fit(X, y, tol=1e-9, C=10, warm_start=False)
    from_there = SoftmaxClassifier(tol=1e-9, C=10).fit(X, y, coef_init=part.coef_, intercept_init=part.intercept_)
    assert from_there.solver_ == "row_space"
    assert from_there.history_[0].objective == pytest.approx(part.history_[-1].objective, rel=1e-9)
    np.testing.assert_allclose(from_there.coef_, whole.coef_, atol=1e-3 * np.abs(whole.coef_).max())
    np.testing.assert_array_equal(resumed.coef_, whole.coef_)
    again = SoftmaxClassifier(tol=1e-8, C=10).fit(X, y, coef_init=whole.coef_, intercept_init=whole.intercept_)
    assert len(again.history_) <= 3


def test_a_start_outside_of_the_rows_is_left_behind(text):
    """Weights that no data point supports must shrink to nothing: c goes to zero."""
    X, y = text
    start = np.random.default_rng(3).normal(size=(3, D))
    far = SoftmaxClassifier(tol=1e-10).fit(X, y, coef_init=start, intercept_init=np.zeros(3))
    whole = fit(X, y, tol=1e-10)
    assert far.certificate_.relative_gap <= 1e-10
    np.testing.assert_allclose(far.coef_, whole.coef_, atol=1e-3 * np.abs(whole.coef_).max())


@pytest.mark.parametrize("threads", [1, 2])
def test_bitwise_the_same_for_any_number_of_threads(text, threads):
    from kullback.kernels import threads as setting

    X, y = text
    before = setting.get_num_threads()
    try:
        setting.set_num_threads(threads)
        model = fit(X, y, tol=1e-8)
        setting.set_num_threads(1)
        np.testing.assert_array_equal(model.coef_, fit(X, y, tol=1e-8).coef_)
    finally:
        setting.set_num_threads(before)


def test_columns_of_different_scales_are_fitted_in_the_space_of_columns(text):
    X, y = text
    scales = sparse.diags_array(10.0 ** np.linspace(-4, 4, D))
    with pytest.warns(NotConvergedWarning):
        assert SoftmaxClassifier(max_iter=1).fit(X @ scales, y).solver_ != "row_space"
    assert fit(X[:, :100], y).solver_ != "row_space"  # more rows than columns


def test_a_fit_cut_short_says_how_far_it_is(text):
    X, y = text
    with pytest.warns(NotConvergedWarning, match="relative duality gap"):
        cut = SoftmaxClassifier(tol=1e-12, max_iter=2).fit(X, y)
    assert cut.certificate_.relative_gap > 1e-12
    assert cut.n_iter_ == [2]


@pytest.mark.parametrize("short", [0, 6])
@pytest.mark.parametrize("pairs", [0, 1, 4])
def test_the_direction_is_that_of_the_two_loops(pairs, short):
    """Along the long part the estimate starts from a multiple of the identity, along the short one from a matrix."""
    rng = np.random.default_rng(pairs)
    size, kept = 30, []
    root = rng.normal(size=(size + short, size + short))
    hessian = root @ root.T / 10 + np.eye(size + short)
    inverse = np.linalg.inv(hessian[size:, size:])

    def each(function):
        return [function(slice(0, 13)), function(slice(13, size))]

    store = InnerProductPairs(size, short, 3, np.float64, each, 0.7)
    gradient = rng.normal(size=size + short)
    long, image, square = gradient[:size].copy(), gradient[:size].copy(), gradient[:size] @ gradient[:size]
    for number in range(pairs + 1):
        wanted, shares = -gradient, []
        for step, change in reversed(kept[-3:]):
            shares.append(step @ wanted / (step @ change))
            wanted = wanted - shares[-1] * change
        scale = kept[-1][0][:size] @ kept[-1][1][:size] / (kept[-1][1][:size] @ kept[-1][1][:size]) if kept else 0.7
        wanted = np.concatenate([scale * wanted[:size], inverse @ wanted[size:]])
        for (step, change), share in zip(kept[-3:], reversed(shares), strict=True):
            wanted = wanted + (share - change @ wanted / (step @ change)) * step
        slope = store.propose(long, image, square, gradient[size:], inverse)
        new = store.new_step
        np.testing.assert_allclose(store.vectors[new], wanted[:size], rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(store.images[new], wanted[:size], rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(store.shorts[new], wanted[size:], rtol=1e-8, atol=1e-12)
        assert slope == pytest.approx(float(gradient @ wanted), rel=1e-9)
        if number == pairs:
            break
        length = 0.3 * (number + 1)
        change = hessian @ (length * wanted)
        gradient = gradient + change
        store.vectors[store.new_change] = store.images[store.new_change] = gradient[:size]
        square = store.learn(length, long, image, change[size:])
        assert len(store) == min(number + 1, 3)
        assert square == pytest.approx(gradient[:size] @ gradient[:size])
        np.testing.assert_allclose(long, gradient[:size], rtol=1e-12)
        kept.append((length * wanted, change))
    assert len(store) == min(pairs, 3)
    store.forget()
    assert len(store) == 0


def test_a_step_without_curvature_is_left_out():
    store = InnerProductPairs(4, 0, 3, np.float64, lambda function: [function(slice(0, 4))])
    gradient = np.ones(4)
    store.propose(gradient, gradient.copy(), 4.0, np.zeros(0), np.zeros((0, 0)))
    store.vectors[store.new_change] = store.images[store.new_change] = 2.0  # the gradient grows against the step
    assert store.learn(1.0, gradient, np.ones(4), np.zeros(0)) == 16.0
    assert len(store) == 0


@pytest.mark.parametrize("given", [np.float32, np.float64])
@pytest.mark.parametrize("wanted", [np.float32, np.float64])
def test_products_convert_numbers_as_they_read_them(text, given, wanted):
    matrix = text[0].astype(given)
    rng = np.random.default_rng(0)
    centre, vectors = rng.random(D), rng.normal(size=(N, 3)).astype(wanted)
    gram = RowGram(SparseDesign(matrix), centre, wanted)
    of_rows, of_columns = gram._rows[2], gram._columns[2]
    assert of_rows.dtype == of_columns.dtype == min(np.dtype(given), np.dtype(wanted), key=lambda t: t.itemsize)
    assert np.shares_memory(of_rows, matrix.data) == (of_rows.dtype == given)  # nothing longer is copied
    full = np.diff(matrix.tocsc().indptr)
    assert (np.diff(full[gram.order]) <= 0).all()
    assert sorted(gram.order) == list(range(D))
    centred = matrix.astype(np.float64).toarray() - centre
    pulled = gram.down(vectors)
    assert pulled.dtype == wanted
    rounding = 1e3 * np.finfo(wanted).eps
    expected = centred.T @ vectors.astype(np.float64)
    np.testing.assert_allclose(pulled, expected[gram.order], rtol=0, atol=rounding * np.abs(expected).max())
    out = np.empty((N, 3), wanted)
    gram.up(pulled, out)
    expected = centred @ expected
    np.testing.assert_allclose(out, expected, rtol=0, atol=rounding * np.abs(expected).max())


def many_languages(n_rows=3000, n_columns=12000, n_classes=150, words=40, skew=1.0):
    """Text in which every class has some words of its own, and classes differ in size by two orders of magnitude."""
    rng = np.random.default_rng(0)
    share = np.arange(1, n_classes + 1.0) ** -skew
    y = rng.choice(n_classes, n_rows, p=share / share.sum())
    common = np.minimum((rng.pareto(1.0, (n_rows, words)) * 20).astype(int), n_columns - 1)
    own = n_columns // (2 * n_classes)
    place = np.where(rng.random(common.shape) < 0.3, rng.integers(0, own, common.shape) + own * y[:, None], common)
    counts = sparse.csr_array((np.ones(place.size), (np.repeat(np.arange(n_rows), words), place.ravel())))
    counts.sum_duplicates()
    counts.data /= np.repeat(np.sqrt(counts.power(2).sum(axis=1)), np.diff(counts.indptr))
    return counts, y


@pytest.mark.parametrize("form", ["csr", "csc"])
@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("penalty", ["l2", "l1"])
def test_entries_in_any_order(text, form, twice, penalty):
    """Vectorisers sort words, and with them the columns, after they have counted them."""
    X, y = text
    given = X.asformat(form)
    major, minor = np.repeat(np.arange(len(given.indptr) - 1), np.diff(given.indptr)), given.indices
    values = given.data
    if twice:
        major, minor, values = np.tile(major, 2), np.tile(minor, 2), np.concatenate([0.25 * values, 0.75 * values])
    order = np.lexsort([np.random.default_rng(0).random(len(major)), major])
    starts = given.indptr * (1 + twice)
    mixed = type(given)((values[order], minor[order], starts), shape=X.shape)
    assert not mixed.has_sorted_indices
    kept = mixed.indices.copy(), mixed.data.copy()
    want, got = (fit(matrix, y, tol=1e-8, penalty=penalty) for matrix in (X, mixed))
    assert got.solver_ == want.solver_ == {"l2": "row_space", "l1": "prox_newton"}[penalty]
    assert got.certificate_.primal == pytest.approx(want.certificate_.primal, rel=1e-8)
    np.testing.assert_allclose(got.coef_, want.coef_, atol=1e-4)
    np.testing.assert_allclose(got.predict_proba(mixed), got.predict_proba(X), rtol=0, atol=1e-12)
    # what was given is as it was
    np.testing.assert_array_equal(mixed.indices, kept[0])
    np.testing.assert_array_equal(mixed.data, kept[1])


@pytest.mark.parametrize(("C", "steps"), [(1.0, 18), (100.0, 50)])
def test_many_classes_take_few_steps(C, steps):
    """A guard for where a fit starts from along the intercepts: without their curvature it takes many times as long."""
    X, y = many_languages()
    model = SoftmaxClassifier(C=C).fit(X, y)
    assert (model.solver_, model.converged_) == ("row_space", True)
    assert model.n_iter_[0] <= steps
