"""The native kernels against the NumPy reference: every target form, parameter and number of classes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kullback.errors import InputError, ShapeError
from kullback.kernels import cpu, reference
from kullback.kernels.recipe import SigmoidRecipe, SoftmaxRecipe
from kullback.targets import ClassIndices, ClassMixture, ClassRows, LabelRows

# 2, 3, 4, 5, 10 have code of their own; others to 256 use tiles that overlap; from 257 a row stands alone;
# 40000 takes several pieces
CLASSES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 17, 33, 65, 256, 257, 1000, 40000]
DTYPES = [np.float32, np.float64]


def make_logits(rng, n, c, dtype, special):
    z = rng.normal(size=(n, c)) * rng.choice([0.1, 3, 30])
    if special:
        z[rng.uniform(size=z.shape) < 0.1] = -np.inf
        z[n // 2] = -np.inf
        z[0] = 0.0
        z[n - 1] += 1e4
        z[rng.integers(0, n), rng.integers(0, c)] = np.nan
        z[rng.integers(0, n), rng.integers(0, c)] = np.inf
    return z.astype(dtype)


def make_targets(rng, n, c, form):
    if form == "indices":
        return ClassIndices(rng.integers(0, c, n))
    if form == "mixture":
        return ClassMixture(rng.integers(0, c, n), rng.integers(0, c, n), rng.choice([0.0, 0.3, 1.0], n))
    return ClassRows(rng.uniform(size=(n, c)) * rng.integers(0, 2, (n, c)))


def assert_agree(ours, truth, dtype, scale):
    """NaN and infinities at the same places, and an error of some ulp of the largest term of each sum."""
    ours, truth = np.asarray(ours, np.float64), np.asarray(truth, np.float64)
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(truth))
    np.testing.assert_array_equal(np.isinf(ours), np.isinf(truth))
    finite = np.isfinite(truth)
    error = np.abs(ours[finite] - truth[finite])
    bound = 24 * np.finfo(dtype).eps * (np.abs(truth[finite]) + scale)
    assert (error <= bound).all(), f"error {error.max()} against {bound[np.argmax(error - bound)]}"


def check_softmax(rng, n, c, dtype, form, recipe, special, weighted, ignore=None):
    z = make_logits(rng, n, c, dtype, special)
    targets = make_targets(rng, n, c, form)
    options = {"row_weight": rng.integers(0, 3, n).astype(float) if weighted else None, "ignore_index": ignore}
    w = 1.0 if recipe.class_weight is None else float(recipe.class_weight.max())
    mass = w * (float(targets.rows.sum(axis=1).max()) if form == "rows" else 1.0)
    steepness = 1 / recipe.temperature
    results = []
    for kernels in (cpu, reference):
        gradient, diagonal, product = (np.full_like(z, 7) for _ in range(3))
        losses = np.full(n, 7.0)
        v = np.cos(np.arange(z.size)).reshape(z.shape).astype(dtype)
        with np.errstate(all="ignore"):
            evaluation = kernels.evaluate(
                recipe, z, targets, per_example=losses, gradient=gradient, scale=0.5, **options
            )
            kernels.hessian_diagonal(recipe, z, targets, out=diagonal, **options)
            kernels.hessian_product(recipe, z, targets, v, out=product, **options)
            summary = kernels.softmax_targets(targets, c, class_weight=recipe.class_weight, **options)
        results.append((evaluation, losses, gradient, diagonal, product, summary))
    ours, truth = results
    spread = np.where(np.isfinite(z), z, 0)
    reach = float((spread.max(axis=1) - spread.min(axis=1)).max()) * steepness + 1
    assert_agree(ours[1], truth[1], dtype, 2 * mass * reach * (1 if form == "indices" else 4))
    assert_agree(ours[2], truth[2], dtype, mass * steepness * reach)
    assert_agree(ours[3], truth[3], dtype, 2 * mass * steepness**2 * reach)
    assert_agree(ours[4], truth[4], dtype, 4 * mass * steepness**2 * reach)
    assert ours[0].infinite_row == truth[0].infinite_row
    assert ours[5].counted == truth[5].counted
    assert ours[5].weight == pytest.approx(truth[5].weight, rel=1e-12)
    skipped = np.zeros(n, bool) if options["row_weight"] is None else options["row_weight"] == 0
    if ignore is not None and form == "indices":
        skipped |= targets.indices == ignore
    assert not ours[1][skipped].any()
    assert not ours[2][skipped].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["indices", "mixture", "rows"])
@pytest.mark.parametrize("c", CLASSES)
def test_softmax_family(rng, c, form, dtype):
    n = 3 if c > 1000 else 37
    for smoothing, temperature, weighted_classes, special, weighted, ignore in [
        (0.0, 1.0, False, False, False, None),
        (0.1, 1.7, True, False, True, None),
        (0.0, 0.5, True, True, True, 0),
        (0.2, 2.0, False, True, False, c - 1),
        (1.0, 1.0, False, False, False, None),
    ]:
        class_weight = rng.uniform(0, 2, c) * (rng.uniform(size=c) > 0.2) if weighted_classes else None
        recipe = SoftmaxRecipe(smoothing=smoothing, temperature=temperature, class_weight=class_weight)
        check_softmax(rng, n, c, dtype, form, recipe, special, weighted, ignore)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["indices", "mixture", "rows"])
@pytest.mark.parametrize("c", CLASSES)
def test_statistics(rng, c, form, dtype):
    """Log-sum-exps and predictions, of every way through the skeleton, with the gradient over the logits."""
    n = 5 if c > 1000 else 37
    offset = rng.normal(size=c)
    recipes = [
        SoftmaxRecipe(temperature=1.3),
        SoftmaxRecipe(smoothing=0.1, class_weight=rng.uniform(0.5, 2, c)),
        SoftmaxRecipe(softcap=4.0, z_loss=0.1),
        SoftmaxRecipe(offset=offset, temperature=0.7),
        SoftmaxRecipe(family="brier"),
        SoftmaxRecipe(family="one_vs_rest"),
        SoftmaxRecipe(family="focal", parameters=(2.0,)),
        SoftmaxRecipe(family="ldam", shift=np.full(c, 70.0)),
    ]
    for recipe in recipes:
        z = make_logits(rng, n, c, dtype, special=c > 1)
        z[1] = np.round(z[1])  # equal largest logits
        targets = make_targets(rng, n, c, form)
        options = {"row_weight": rng.integers(0, 3, n).astype(float), "ignore_index": 0}
        results = []
        for kernels in (cpu, reference):
            lse, prediction = np.full(n, 7, dtype), np.full(n, 7)
            over = z.copy()
            with np.errstate(all="ignore"):
                kernels.evaluate(
                    recipe, over, targets, gradient=over, log_sum_exp=lse, prediction=prediction, **options
                )
            results.append((lse, prediction))
        (lse, prediction), (true_lse, true_prediction) = results
        np.testing.assert_array_equal(prediction, true_prediction)
        np.testing.assert_array_equal(np.isfinite(lse), np.isfinite(true_lse))
        finite = np.isfinite(lse)
        np.testing.assert_allclose(
            lse[finite], true_lse[finite], rtol=16 * np.finfo(dtype).eps, atol=16 * np.finfo(dtype).eps * 30
        )
        assert np.isnan(lse).sum() == np.isnan(true_lse).sum()


def test_statistics_of_other_layouts():
    z = np.array([[1.0, 3.0, 2.0], [5.0, 4.0, 5.0]])
    targets = ClassIndices(np.array([0, 1]))
    lse, prediction = np.zeros(4, np.float32)[::2], np.zeros(2, np.int32)
    cpu.evaluate(SoftmaxRecipe(), z, targets, log_sum_exp=lse, prediction=prediction)
    np.testing.assert_allclose(lse, np.log(np.exp(z).sum(axis=1)), rtol=1e-6)
    assert prediction.tolist() == [1, 0]
    with pytest.raises(ShapeError, match=r"prediction has shape \(3,\), expected \(2,\)"):
        cpu.evaluate(SoftmaxRecipe(), z, targets, prediction=np.zeros(3, np.int64))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 40),
    c=st.integers(1, 80),
    form=st.sampled_from(["indices", "mixture", "rows"]),
    dtype=st.sampled_from(DTYPES),
    smoothing=st.sampled_from([0.0, 0.3]),
    special=st.booleans(),
    weighted=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_softmax_family_on_any_shape(n, c, form, dtype, smoothing, special, weighted, seed):
    rng = np.random.default_rng(seed)
    check_softmax(rng, n, c, dtype, form, SoftmaxRecipe(smoothing=smoothing), special, weighted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("label_type", [np.uint8, np.bool_, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("c", [1, 5, 8, 33, 300])
def test_sigmoid_family(rng, c, label_type, dtype):
    n = 23
    z = (rng.normal(size=(n, c)) * 4).astype(dtype)
    z[0, 0], z[1, c - 1], z[2, 0] = -np.inf, np.inf, np.nan
    rows = rng.integers(0, 2, (n, c)).astype(label_type)
    ignore = None
    if label_type == np.int64:
        rows[rng.uniform(size=rows.shape) < 0.2] = ignore = -100
    if np.dtype(label_type).kind == "f":
        rows = rng.uniform(size=(n, c)).astype(label_type)
    recipe = SigmoidRecipe(
        smoothing=0.1, temperature=1.5, positive_weight=rng.uniform(0, 3, c), class_weight=rng.uniform(0, 2, c)
    )
    targets = LabelRows(rows)
    options = {"row_weight": rng.integers(0, 3, n).astype(float), "ignore_index": ignore}
    v = rng.normal(size=z.shape).astype(dtype)
    results = []
    for kernels in (cpu, reference):
        losses, gradient, diagonal, product = np.empty(n), np.empty_like(z), np.empty_like(z), np.empty_like(z)
        with np.errstate(all="ignore"):
            evaluation = kernels.evaluate(
                recipe, z, targets, per_example=losses, gradient=gradient, scale=2.0, **options
            )
            kernels.hessian_diagonal(recipe, z, targets, out=diagonal, **options)
            kernels.hessian_product(recipe, z, targets, v, out=product, **options)
        results.append((evaluation, losses, gradient, diagonal, product, kernels.sigmoid_targets(targets, **options)))
    ours, truth = results
    for a, b in zip(ours[1:5], truth[1:5], strict=True):
        assert_agree(a, b, dtype, 6.0)
    assert ours[0].infinite_row == truth[0].infinite_row
    assert ours[5] == pytest.approx(truth[5])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("c", [1, 2, 9, 65, 5000])
@pytest.mark.parametrize("family", ["softmax", "sigmoid"])
def test_probabilities(rng, family, c, dtype):
    z = (rng.normal(size=(11, c)) * 20).astype(dtype)
    z[3, 0], z[4] = -np.inf, -np.inf
    for log in (False, True):
        results = []
        for kernels in (cpu, reference):
            out = np.empty_like(z)
            with np.errstate(all="ignore"):
                getattr(kernels, f"{family}_probabilities")(z, temperature=0.7, log=log, out=out)
            results.append(out.astype(np.float64))
        eps = np.finfo(dtype).eps
        # exp turns a rounding of its argument into a relative error as many times larger as the argument
        reach = 4 * np.abs(np.where(np.isfinite(z), z, 0)).max()
        np.testing.assert_allclose(results[0], results[1], rtol=8 * eps * reach, atol=2 * np.finfo(dtype).tiny)


def test_sparse_product(rng):
    import scipy.sparse

    for dtype in DTYPES:
        for n, d, c in [(0, 3, 2), (5, 7, 1), (1000, 50, 3), (700, 300, 40)]:
            matrix = scipy.sparse.random(n, d, 0.2, "csr", dtype=dtype, random_state=0)
            dense = rng.normal(size=(d, c)).astype(dtype)
            for index_type in (np.int32, np.int64):
                out = np.full((n, c), 9, dtype)
                cpu.csr_product(
                    matrix.indptr.astype(index_type), matrix.indices.astype(index_type), matrix.data, dense, out
                )
                np.testing.assert_allclose(out, matrix.toarray() @ dense, rtol=50 * np.finfo(dtype).eps, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sparse_product_with_an_outer_product(rng, dtype):
    """A matrix less its column means is one that is sparse less an outer product; the vectors may lie anywhere."""
    import scipy.sparse

    for n, d, c in [(0, 3, 2), (6, 0, 4), (5, 7, 1), (1000, 50, 3), (90, 60, 21), (90, 60, 70)]:
        matrix = scipy.sparse.random(n, d, 0.2, "csr", dtype=dtype, random_state=0)
        dense = rng.normal(size=(d, c)).astype(dtype)
        by_row, by_column = rng.normal(size=(n, 2)).astype(dtype)[:, 0], rng.normal(size=c).astype(dtype)[::-1]
        truth = matrix.toarray().astype(float) @ dense + np.outer(by_row.astype(float), by_column)
        for order in "CF":
            for kernels in (cpu, reference):
                out = np.full((n, c), 9, dtype, order=order)
                kernels.csr_product(matrix.indptr, matrix.indices, matrix.data, dense, out, outer=(by_row, by_column))
                np.testing.assert_allclose(out, truth, rtol=50 * np.finfo(dtype).eps, atol=1e-5)
        # one of the vectors may lie in what is written
        out = np.empty((n, c), dtype)
        if n:
            out[0] = by_column
            cpu.csr_product(matrix.indptr, matrix.indices, matrix.data, dense, out, outer=(by_row, out[0]))
            np.testing.assert_allclose(out, truth, rtol=50 * np.finfo(dtype).eps, atol=1e-5)
        other = np.float64 if dtype == np.float32 else np.float32
        for wrong in [(by_row[:-1], by_column), (by_row, by_column[1:]), (by_row, by_column.astype(other))]:
            if wrong[0].shape != (n,) or wrong[1].shape != (c,) or wrong[1].dtype != dtype:
                with pytest.raises(ShapeError, match="outer is"):
                    cpu.csr_product(matrix.indptr, matrix.indices, matrix.data, dense, out, outer=wrong)


def test_transposed_sparse_product_adds(rng):
    import scipy.sparse

    for dtype in DTYPES:
        for n, d, c in [(0, 3, 2), (5, 7, 1), (1000, 50, 3), (300, 70, 9), (700, 300, 40), (90, 20, 141)]:
            matrix = scipy.sparse.random(n, d, 0.2, "csr", dtype=dtype, random_state=0)
            dense = rng.normal(size=(n, c)).astype(dtype)
            truth = 9 + matrix.T.toarray().astype(float) @ dense
            for index_type in (np.int32, np.int64):
                for order in "CF":
                    results = []
                    for kernels in (cpu, reference):
                        out = np.full((d, c), 9, dtype, order=order)
                        kernels.csr_transposed(
                            matrix.indptr.astype(index_type), matrix.indices.astype(index_type), matrix.data, dense, out
                        )
                        results.append(out)
                        np.testing.assert_allclose(out, truth, rtol=50 * np.finfo(dtype).eps, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sparse_products_of_every_width_stay_inside_their_rows(rng, dtype):
    """Vectors that end where a row ends must neither add twice nor touch what stands around the matrix."""
    import scipy.sparse

    matrix = scipy.sparse.random(30, 20, 0.3, "csr", dtype=dtype, random_state=1)
    full = matrix.toarray().astype(float)
    places = (matrix.indptr, matrix.indices, matrix.data)
    for columns in range(1, 71):
        for product, n, d, truth in [("csr_product", 30, 20, full), ("csr_transposed", 20, 30, full.T)]:
            dense = rng.normal(size=(d, columns)).astype(dtype)
            around = np.full((n + 2) * columns, 9, dtype)
            out = around[columns:-columns].reshape(n, columns)
            getattr(cpu, product)(*places, dense, out)
            added = 9.0 * (product == "csr_transposed")
            np.testing.assert_allclose(out, added + truth @ dense, rtol=50 * np.finfo(dtype).eps, atol=1e-5)
            assert (around[:columns] == 9).all()
            assert (around[-columns:] == 9).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("data_dtype", DTYPES)
@pytest.mark.parametrize("index_type", [np.int32, np.int64])
def test_products_with_a_part_of_each_row(rng, dtype, data_dtype, index_type):
    """Rows of entries between two columns: what a block of a matrix stored by columns is."""
    import scipy.sparse

    for n, d, c, first, last in [(9, 40, 1, 3, 31), (60, 500, 5, 100, 340), (20, 300, 40, 0, 299)]:
        matrix = scipy.sparse.random(n, d, 0.2, "csr", dtype=data_dtype, random_state=0)
        matrix.sort_indices()
        pairs = list(zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True))
        starts, ends = (
            np.array([a + np.searchsorted(matrix.indices[a:b], at) for a, b in pairs], index_type)
            for at in (first, last)
        )
        places = (matrix.indices.astype(index_type), matrix.data)
        part = matrix.toarray()[:, first:last].astype(float)
        for kernels in (cpu, reference):
            dense = rng.normal(size=(last - first, c)).astype(dtype)
            out = np.full((n, c), 9, dtype)
            kernels.csr_product(starts, *places, dense, out, ends=ends, base=first)
            np.testing.assert_allclose(out, part @ dense, rtol=50 * np.finfo(dtype).eps, atol=1e-5)
            dense, out = rng.normal(size=(n, c)).astype(dtype), np.full((last - first, c), 9, dtype)
            kernels.csr_transposed(starts, *places, dense, out, ends=ends, base=first)
            np.testing.assert_allclose(out, 9 + part.T @ dense, rtol=50 * np.finfo(dtype).eps, atol=1e-5)
        dense, out = np.ones((last - first, c), dtype), np.ones((n, c), dtype)
        with pytest.raises(InputError, match=f"outside {last} to {2 * last - first - 1}, or"):
            cpu.csr_product(starts, *places, dense, out, ends=ends, base=last)
