import numpy as np
import pytest
from scipy import sparse

from kullback.linear import design as design_module
from kullback.linear.design import SparseDesign, as_design, without_empty_columns
from kullback.linear.scaling import column_scaling


def layouts(X):
    wide = np.zeros((X.shape[0], 2 * X.shape[1]), dtype=X.dtype)
    wide[:, ::2] = X
    return {
        "C": np.ascontiguousarray(X),
        "F": np.asfortranarray(X),
        "strided": wide[:, ::2],
        "reversed": np.ascontiguousarray(X[::-1])[::-1],
        "csr": sparse.csr_array(X),
        "csr_matrix": sparse.csr_matrix(X),
        "csc": sparse.csc_array(X),
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_layout_gives_the_same_products(rng, dtype):
    X = rng.normal(size=(50, 7)).astype(dtype)
    X[rng.random(X.shape) < 0.5] = 0
    weights, gradient = rng.normal(size=(7, 3)).astype(dtype), rng.normal(size=(50, 3)).astype(dtype)
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    for name, matrix in layouts(X).items():
        design = as_design(matrix)
        out = np.empty((50, 3), dtype=dtype)
        design.rows(slice(0, 50)).forward(weights, out)
        np.testing.assert_allclose(out, X @ weights, rtol=tolerance, atol=tolerance, err_msg=name)
        pull = design.rows(slice(0, 50)).backward(gradient)
        assert pull.dtype == dtype
        np.testing.assert_allclose(pull, X.T @ gradient, rtol=tolerance, atol=tolerance, err_msg=name)


def test_blocks_cover_every_row_once(monkeypatch):
    monkeypatch.setattr(design_module, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(design_module, "BLOCK_ROWS", (8, 16))
    blocks = as_design(np.zeros((45, 3))).blocks(4)
    assert len(blocks) > 1
    assert [b.start for b in blocks] == [0, *(b.stop for b in blocks[:-1])]
    assert blocks[-1].stop == 45


@pytest.mark.parametrize("weighted", [False, True])
def test_column_moments(rng, weighted):
    X = rng.normal(size=(200, 4)) * [1, 1e-6, 1e6, 0] + [0, 3, -1e7, 5]
    weight = rng.integers(0, 3, 200).astype(float) if weighted else None
    rows = np.repeat(X, weight.astype(int), axis=0) if weighted else X
    for matrix in (X, np.asfortranarray(X), sparse.csr_array(X)):
        mean, variance = as_design(matrix).column_moments(weight)
        np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(variance, rows.var(axis=0), rtol=1e-6, atol=1e-13)


def test_scaling_is_a_change_of_variables_and_back(rng):
    X = rng.normal(size=(100, 3)) * [1, 1000, 0] + [5, 0, 2]
    scaling = column_scaling(as_design(X), None, penalty=0.0, curvature=0.25, fit_intercept=True)
    assert scaling.scale[2] == 1.0  # a constant column is left alone
    weights, intercept = rng.normal(size=(3, 4)), rng.normal(size=4)
    scaled, moved = scaling.from_raw(weights, intercept)
    standardised = (X - X.mean(axis=0)) / scaling.scale
    np.testing.assert_allclose(standardised @ scaled + moved, X @ weights + intercept, rtol=1e-10)
    for found, expected in zip(scaling.to_raw(scaled, moved), (weights, intercept), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("form", [sparse.csr_array, sparse.csc_array, sparse.csr_matrix, sparse.csc_matrix])
def test_empty_columns_of_a_sparse_matrix_are_left_out(form):
    dense = np.array([[0.0, 1, 0, 2, 0], [0, 0, 0, 3, 4]])
    X = form(dense)
    used, left = without_empty_columns(X)
    np.testing.assert_array_equal(used, [1, 3, 4])
    np.testing.assert_array_equal(left.toarray(), dense[:, used])
    assert np.shares_memory(left.data, X.data)
    assert left.indices.dtype == X.indices.dtype
    X.data[0] = 0  # the only entry of column 1: stored, but zero
    used, left = without_empty_columns(X)
    np.testing.assert_array_equal(used, [3, 4])
    np.testing.assert_array_equal(left.toarray(), dense[:, used])
    for full in (form(np.ones((2, 3))), np.zeros((2, 3))):
        used, left = without_empty_columns(full)
        assert used is None
        assert left is full


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_empty_columns_of_an_array_are_left_out(rng, tmp_path, monkeypatch, order, dtype):
    X = np.zeros((2000, 40), dtype=dtype, order=order)
    X[:, 5:30] = rng.normal(size=(2000, 25))
    X[-1, 38] = 1  # only the last row tells
    used, left = without_empty_columns(X)
    np.testing.assert_array_equal(used, [*range(5, 30), 38])
    np.testing.assert_array_equal(left, X[:, used])
    assert left.dtype == dtype
    nearly_all = np.ones((10, 20), dtype=dtype)
    nearly_all[:, 3] = 0
    mapped = np.memmap(tmp_path / "X", dtype, "w+", shape=X.shape)
    for kept in (nearly_all, np.zeros((10, 20), dtype=dtype), mapped):
        used, left = without_empty_columns(kept)
        assert used is None
        assert left is kept
    monkeypatch.setattr(design_module, "KEPT_BYTES", 26 * 2000 * np.dtype(dtype).itemsize - 1)
    assert without_empty_columns(X)[0] is None


@pytest.mark.parametrize("order", ["csr", "csc"])
@pytest.mark.parametrize("wide", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_of_rows_and_of_pieces_of_columns(rng, monkeypatch, order, wide, dtype):
    monkeypatch.setattr(design_module, "BLOCK_BYTES", 4000)
    monkeypatch.setattr(design_module, "BLOCK_ROWS", (8, 64))
    monkeypatch.setattr(design_module, "PIECE_ENTRIES", 100)
    X = sparse.random_array((300, 9), density=0.4, format=order, rng=rng)
    X.indices, X.indptr = X.indices.astype(wide), X.indptr.astype(wide)
    for array in (X.data, X.indices, X.indptr):
        array.flags.writeable = False
    design = SparseDesign(X, dtype)
    blocks = design.blocks(4)
    assert len(blocks) > 3
    weights, gradient = rng.normal(size=(9, 4)).astype(dtype), rng.normal(size=(300, 4)).astype(dtype)
    out, pull = np.empty((300, 4), dtype), np.zeros((9, 4))
    for block in [*blocks[2:], slice(0, blocks[0].stop), blocks[1]]:
        design.rows(block).forward(weights, out[block])
        pull += design.rows(block).backward(gradient[block])
    np.testing.assert_allclose(out, X @ weights, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(pull, X.T @ gradient, rtol=1e-5, atol=1e-5)
    assert design._copy is None  # never turned into the other order
    np.testing.assert_array_equal(design.stored(), (X.toarray() != 0).sum(axis=0))
    np.testing.assert_array_equal(design.take([3, 1, 7]), X.toarray()[[3, 1, 7]])
    np.testing.assert_array_equal(design.take(slice(31, 77)), X.toarray()[31:77])
    np.testing.assert_array_equal(design.columns([2, 5]).matrix.toarray(), X.toarray()[:, [2, 5]])
    # All rows at once: now the other order is needed, once.
    whole = design.rows(slice(0, 300))
    whole.forward(weights, out)
    np.testing.assert_allclose(out, X @ weights, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(whole.backward(gradient), X.T @ gradient, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(design_module, "KEPT_BYTES", 100)
    assert design.in_precision(np.float64 if dtype == np.float32 else np.float32)._other() is design._copy


def test_rows_of_columns_that_are_not_in_order(rng):
    X = sparse.random_array((50, 6), density=0.5, format="csc", rng=rng)
    order = np.argsort(np.repeat(np.arange(6), np.diff(X.indptr)) * 100 - X.indices, kind="stable")
    mixed = sparse.csc_array((X.data[order], X.indices[order], X.indptr), shape=X.shape)
    assert not mixed.has_sorted_indices
    out = np.empty((20, 2))
    SparseDesign(mixed).rows(slice(10, 30)).forward(weights := rng.normal(size=(6, 2)), out)
    np.testing.assert_allclose(out, X[10:30] @ weights)
    assert not mixed.has_sorted_indices  # what was given is as it was


def test_strided_data_are_copied_block_by_block(rng, monkeypatch):
    wide = rng.normal(size=(40, 12))
    monkeypatch.setattr(design_module, "KEPT_BYTES", 100)
    design = as_design(wide[:, ::2])
    assert np.shares_memory(design.matrix, wide)
    weights, out = rng.normal(size=(6, 3)), np.empty((10, 3))
    design.rows(slice(20, 30)).forward(weights, out)
    np.testing.assert_allclose(out, wide[20:30, ::2] @ weights)


def test_sparse_blocks_add_up_to_the_whole(rng, monkeypatch):
    monkeypatch.setattr(design_module, "BLOCK_BYTES", 4000)
    monkeypatch.setattr(design_module, "BLOCK_ROWS", (8, 64))
    X = sparse.random(300, 9, 0.4, "csr", random_state=0)
    weights, gradient = rng.normal(size=(9, 4)), rng.normal(size=(300, 4))
    for matrix, dtype in ((X, np.float64), (X, np.float32), (X.astype(np.float32), np.float64)):
        design = SparseDesign(matrix, dtype)
        blocks = design.blocks(4)
        assert len(blocks) > 3
        out, pull = np.empty((300, 4), dtype), np.zeros((9, 4))
        for block in blocks:
            design.rows(block).forward(weights.astype(dtype), out[block])
            pull += design.rows(block).backward(gradient[block].astype(dtype))
        np.testing.assert_allclose(out, X @ weights, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(pull, X.T @ gradient, rtol=1e-5, atol=1e-5)
    # More columns than a block has entries: one block, and the transpose.
    assert len(SparseDesign(sparse.random(300, 5000, 0.001, "csr", random_state=0)).blocks(4)) == 1
