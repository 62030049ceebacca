"""A pass in one call of the kernels must say what a pass block by block says, in every form of rows and targets."""

import numpy as np
import pytest

from kullback import BinaryCrossEntropy, CrossEntropy, Focal, SoftmaxClassifier, kernels
from kullback.kernels import cpu
from kullback.kernels.threads import get_num_threads, set_num_threads
from kullback.linear.choice import Terms
from kullback.linear.design import DenseDesign, StandardisedDesign
from kullback.linear.scaling import column_scaling
from kullback.targets import ClassIndices, ClassRows, LabelRows

# Rows, columns, outputs: a single output, classes that end inside a vector, several parts of columns, several chunks.
SHAPES = [(1, 1, 2), (7, 3, 1), (300, 5, 3), (1300, 40, 10), (150, 600, 7), (3000, 17, 26), (700, 9, 64)]
LOSSES = {
    "cross-entropy": CrossEntropy(),
    "weighted, smoothed": CrossEntropy(label_smoothing=0.1, temperature=2.0),
    "focal": Focal(),
    "softcap": CrossEntropy(softcap=5.0, z_loss=0.01),
}


def objectives(X, loss, targets, n_outputs, *, dtype, kind, fit_intercept=True, weight=None):
    """The same objective with a pass of its own and, on the reference and in float64, without."""
    design = DenseDesign(X)
    scaling = column_scaling(design, weight, penalty=1e-3, curvature=0.2, fit_intercept=fit_intercept)
    made = {
        "raw": lambda dtype: DenseDesign(X, dtype),
        "kept": lambda dtype: StandardisedDesign(design, scaling, dtype, keep=True, with_ones=fit_intercept),
        "made": lambda dtype: StandardisedDesign(design, scaling, dtype),
    }[kind]
    terms = Terms(loss, targets, weight, n_outputs, float(len(X)), 1e-3, fit_intercept)
    fast = terms.objective(made(dtype), scaling, map)
    assert fast._pass is not None
    with kernels.using("reference"):
        slow = terms.objective(made(np.float64), scaling, map)
    assert slow._pass is None
    return fast, slow


def same(rng, fast, slow, dtype):
    parameters, along = rng.normal(size=(2, fast.size))
    tolerance = 4e-5 if dtype == np.float32 else 1e-12  # with 600 columns of mean 1 the logits are some thirty apart
    found, wanted = fast.evaluate(parameters), slow.evaluate(parameters)
    assert found.objective == pytest.approx(wanted.objective, rel=tolerance)
    assert found.loss == pytest.approx(wanted.loss, rel=tolerance)
    size = np.abs(wanted.gradient).max()
    np.testing.assert_allclose(found.gradient, wanted.gradient, rtol=0, atol=tolerance * size)
    product = slow.hessian_product(parameters, along)
    np.testing.assert_allclose(
        fast.hessian_product(parameters, along), product, rtol=0, atol=tolerance * max(np.abs(product).max(), 1e-3)
    )
    assert fast.passes == slow.passes == 2


@pytest.mark.parametrize("kind", ["raw", "kept", "made"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape(rng, shape, dtype, kind):
    n_rows, n_columns, n_outputs = shape
    X = rng.normal(size=(n_rows, n_columns)) + 1
    targets = ClassIndices(rng.integers(0, n_outputs, n_rows))
    same(rng, *objectives(X, CrossEntropy(), targets, n_outputs, dtype=dtype, kind=kind), dtype)


@pytest.mark.parametrize("kind", ["raw", "made"])
@pytest.mark.parametrize("source", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_columns_that_are_contiguous(rng, shape, dtype, source, kind):
    """As pandas keeps them: read in tiles where a vector of columns is whole, and one by one at the edges."""
    n_rows, n_columns, n_outputs = shape
    X = np.asfortranarray(rng.normal(size=(n_rows, n_columns)) + 1, source)
    targets = ClassIndices(rng.integers(0, n_outputs, n_rows))
    same(rng, *objectives(X, CrossEntropy(), targets, n_outputs, dtype=dtype, kind=kind), dtype)
    part = np.asfortranarray(np.tile(X, (3, 1)))[n_rows : 2 * n_rows]  # columns that lie further apart
    same(rng, *objectives(part, CrossEntropy(), targets, n_outputs, dtype=dtype, kind=kind), dtype)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("form", ["indices", "soft"])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_losses_targets_and_weights(rng, loss, form, fit_intercept):
    X = rng.normal(size=(500, 11)).astype(np.float32)
    soft = rng.dirichlet(np.ones(5), 500)
    targets = ClassIndices(rng.integers(0, 5, 500)) if form == "indices" else ClassRows(soft)
    weight = rng.random(500) * (rng.random(500) < 0.8)
    both = objectives(
        X, LOSSES[loss], targets, 5, dtype=np.float64, kind="raw", fit_intercept=fit_intercept, weight=weight
    )
    same(rng, *both, np.float64)


def test_independent_labels_and_rows_apart(rng):
    whole = rng.normal(size=(400, 20))
    X = whole[:, :9]  # contiguous rows with a gap between them
    targets = LabelRows((rng.random((400, 6)) < 0.3).astype(np.float64))
    loss = BinaryCrossEntropy(positive_weight=(1.0, 2.0, 3.0, 1.0, 1.0, 0.5))
    same(rng, *objectives(X, loss, targets, 6, dtype=np.float64, kind="raw"), np.float64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 9, 3), (500, 9, 10), (500, 16, 3), (2000, 300, 17)])
def test_what_lies_between_rows_is_not_looked_at(rng, shape, dtype):
    """Rows are read whole vectors at a time where they are, up to the last ones, behind which there may be nothing."""
    n_rows, n_columns, n_outputs = shape
    whole = np.full((n_rows, n_columns + 3), np.nan, dtype)
    X = whole[:, :n_columns]
    X[:] = rng.normal(size=X.shape)
    targets = ClassIndices(rng.integers(0, n_outputs, n_rows))
    for fit_intercept in (True, False):
        both = objectives(X, CrossEntropy(), targets, n_outputs, dtype=dtype, kind="raw", fit_intercept=fit_intercept)
        same(rng, *both, dtype)


def test_bit_identical_for_any_number_of_threads(rng):
    X = rng.normal(size=(20_000, 30)).astype(np.float32)
    targets = ClassIndices(rng.integers(0, 12, len(X)))
    fast, _ = objectives(X, CrossEntropy(), targets, 12, dtype=np.float32, kind="raw")
    parameters = rng.normal(size=fast.size)
    before = get_num_threads()
    found = []
    try:
        for threads in (1, 2, 5):
            set_num_threads(threads)
            found.append(fast.evaluate(parameters))
    finally:
        set_num_threads(before)
    for other in found[1:]:
        assert other.objective == found[0].objective
        np.testing.assert_array_equal(other.gradient, found[0].gradient)


def test_what_is_held_outlives_its_owner(rng):
    recipe = CrossEntropy()._recipe(3)
    made = cpu.linear_pass(
        recipe,
        rng.normal(size=(50, 4)),
        ClassIndices(rng.integers(0, 3, 50)),
        3,
        row_weight=np.ones(50),
        ignore_index=None,
        dtype=np.float64,
        ones=True,
    )
    sums = np.empty((5, 3))
    assert made.evaluate(np.zeros((5, 3)), sums)[0] == pytest.approx(50 * np.log(3))
    with pytest.raises(TypeError):
        made.evaluate(np.zeros((4, 3)), sums)


def test_fits_agree_with_the_reference(rng):
    X = rng.normal(size=(400, 6))
    y = (X @ rng.normal(size=(6, 4)) + rng.gumbel(size=(400, 4))).argmax(axis=1)
    fast = SoftmaxClassifier(tol=1e-10).fit(X, y)
    with kernels.using("reference"):
        slow = SoftmaxClassifier(tol=1e-10).fit(X, y)
    np.testing.assert_allclose(fast.coef_, slow.coef_, atol=1e-4)
    assert fast.certificate_.primal == pytest.approx(slow.certificate_.primal, rel=1e-9)
