"""Any memory layout in, the same numbers out: strides, byte order, aliasing, read-only input."""

import numpy as np
import pytest

from kullback.errors import InputError, ShapeError, TargetError
from kullback.kernels import cpu
from kullback.kernels.recipe import MarginRecipe, SigmoidRecipe, SoftmaxRecipe
from kullback.targets import ClassIndices, ClassMixture, ClassRows, LabelRows

RECIPE = SoftmaxRecipe(smoothing=0.1)


def evaluate(z, targets, gradient=None, **options):
    gradient = np.empty(z.shape, z.dtype) if gradient is None else gradient
    losses = np.empty(len(z))
    evaluation = cpu.evaluate(RECIPE, z, targets, per_example=losses, gradient=gradient, **options)
    return evaluation, losses, np.array(gradient)


def unaligned(array):
    buffer = np.empty(array.nbytes + 1, np.uint8)
    view = buffer[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    assert not view.flags.aligned
    return view


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


LAYOUTS = {
    "fortran": np.asfortranarray,
    "every other row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "every other column": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "backwards": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "unaligned": unaligned,
    "read-only": read_only,
}


@pytest.mark.parametrize("c", [3, 10, 100])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_of_the_inputs_does_not_matter(rng, c, layout):
    change = LAYOUTS[layout]
    z = rng.normal(size=(50, c)).astype(np.float32)
    rows = rng.uniform(size=z.shape)
    expected = evaluate(z, ClassRows(rows))
    computed = evaluate(change(z) if layout != "other byte order" else z, ClassRows(change(rows)))
    for a, b in zip(computed, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("c", [3, 10, 100])
@pytest.mark.parametrize("layout", ["every other row", "every other column", "backwards", "unaligned", "fortran"])
def test_layout_of_the_output_does_not_matter(rng, c, layout):
    z = rng.normal(size=(50, c))
    targets = ClassIndices(rng.integers(0, c, 50))
    expected = evaluate(z, targets)[2]
    np.testing.assert_array_equal(evaluate(z, targets, LAYOUTS[layout](np.zeros_like(z)))[2], expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
@pytest.mark.parametrize("c", [7, 90])
def test_every_integer_type_of_class_index(rng, c, dtype):
    z = rng.normal(size=(40, c))
    y = rng.integers(0, c, 40)
    expected = evaluate(z, ClassIndices(y))
    for indices in (y.astype(dtype), np.repeat(y.astype(dtype), 3)[::3]):
        for a, b in zip(evaluate(z, ClassIndices(indices)), expected, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("c", [1, 2, 3, 5, 8, 10, 40, 100, 5000])
def test_gradient_may_take_the_place_of_the_logits(rng, c):
    for targets in (
        ClassIndices(rng.integers(0, c, 30)),
        ClassMixture(rng.integers(0, c, 30), rng.integers(0, c, 30), rng.uniform(size=30)),
        ClassRows(rng.uniform(size=(30, c))),
    ):
        z = rng.normal(size=(30, c)).astype(np.float32)
        expected = evaluate(z, targets)
        inside = z.copy()
        for a, b in zip(evaluate(inside, targets, inside), expected, strict=True):
            np.testing.assert_array_equal(a, b)
        overlapping = np.concatenate([z, z[:1]])  # the output is the input shifted by one row
        np.testing.assert_array_equal(evaluate(overlapping[:-1], targets, overlapping[1:])[2], expected[2])


def test_nothing_beside_a_strided_output_is_written(rng):
    for c in (3, 10, 100):
        frame = np.full((20, c + 5), 7.0)
        z = rng.normal(size=(20, c))
        evaluate(z, ClassIndices(rng.integers(0, c, 20)), frame[:, 2 : 2 + c])
        assert (frame[:, :2] == 7).all()
        assert (frame[:, 2 + c :] == 7).all()


@pytest.mark.parametrize("c", [3, 10, 100])
def test_large_gradients_that_bypass_the_cache(rng, c):
    n = (24 << 20) // (4 * c)
    z = rng.normal(size=(n, c)).astype(np.float32)
    targets = ClassIndices(rng.integers(0, c, n))
    whole = evaluate(z, targets)[2]
    np.testing.assert_array_equal(evaluate(z[-999:], ClassIndices(targets.indices[-999:]))[2], whole[-999:])
    odd = np.empty(n * c + 1, np.float32)[1:].reshape(n, c)
    np.testing.assert_array_equal(evaluate(z, targets, odd)[2], whole)


@pytest.mark.parametrize("c", [3, 100])
@pytest.mark.parametrize("bad", [-1, 3000, -(2**40), 2**40])
def test_a_class_out_of_range_is_named_and_never_followed(rng, c, bad):
    y = np.zeros(5000, np.int64)
    y[4321] = bad
    z = rng.normal(size=(5000, c)).astype(np.float32)
    for call in (
        lambda t, **o: cpu.softmax_targets(t, c, **o),
        lambda t, **o: cpu.evaluate(RECIPE, z, t, **o),
        lambda t, **o: cpu.hessian_diagonal(RECIPE, z, t, out=np.empty_like(z), **o),
    ):
        with pytest.raises(TargetError, match=f"row 4321.*{bad}.*0 to {c - 1}"):
            call(ClassIndices(y))
        with pytest.raises(TargetError, match="row 4321"):
            call(ClassMixture(np.zeros(5000, int), y, 0.5))
        call(ClassIndices(y), ignore_index=bad)
        call(ClassIndices(y), row_weight=(np.arange(5000) != 4321).astype(float))


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf])
def test_a_bad_soft_target_is_named(rng, value):
    rows = np.ones((300, 70))
    rows[123, 45] = value
    z = rng.normal(size=(300, 70))
    with pytest.raises(TargetError, match="row 123, column 45"):
        cpu.evaluate(RECIPE, z, ClassRows(rows))
    with pytest.raises(TargetError, match="row 123, column 45"):
        cpu.softmax_targets(ClassRows(rows), 70, class_weight=np.ones(70))
    with pytest.raises(TargetError, match="row 123, column 45"):
        cpu.evaluate(MarginRecipe(), z, ClassRows(rows))
    with pytest.raises(TargetError, match="row 123, column 45"):
        cpu.evaluate(SigmoidRecipe(), z, LabelRows(rows))


def test_a_corrupt_sparse_matrix_is_refused():
    data, dense, out = np.ones(2), np.ones((3, 2)), np.empty((2, 2))
    for indptr, indices in [
        ([0, 1, 2], [0, 3]),
        ([0, 1, 2], [0, -1]),
        ([0, 5, 2], [0, 1]),
        ([0, 2, 1], [0, 1]),
        ([-1, 1, 2], [0, 1]),
    ]:
        with pytest.raises(InputError, match="corrupt"):
            cpu.csr_product(np.array(indptr), np.array(indices), data, dense, out)
        with pytest.raises(InputError, match="corrupt"):
            cpu.csr_transposed(np.array(indptr), np.array(indices), data, out, np.zeros((3, 2)))
    with pytest.raises(ShapeError, match="csr_transposed"):
        cpu.csr_transposed(np.array([0, 1, 2]), np.array([0, 1]), data, np.ones((3, 2)), np.zeros((3, 2)))


def test_shapes_that_do_not_fit_are_refused(rng):
    z = rng.normal(size=(4, 3))
    y = ClassIndices(np.zeros(4, int))
    calls = [
        lambda: cpu.evaluate(RECIPE, z, ClassIndices(np.zeros(3, int))),
        lambda: cpu.evaluate(RECIPE, z, ClassRows(np.ones((4, 2)))),
        lambda: cpu.evaluate(RECIPE, z, y, gradient=np.empty((4, 2))),
        lambda: cpu.evaluate(RECIPE, z, y, gradient=np.empty((4, 3), np.float32)),
        lambda: cpu.evaluate(RECIPE, z, y, per_example=np.empty((4, 1))),
        lambda: cpu.evaluate(RECIPE, z, y, row_weight=np.ones(3)),
        lambda: cpu.evaluate(SoftmaxRecipe(class_weight=np.ones(2)), z, y),
        lambda: cpu.evaluate(RECIPE, z.astype(int), y),
        lambda: cpu.evaluate(RECIPE, np.empty((4, 0)), y),
        lambda: cpu.hessian_product(RECIPE, z, y, z[:2], out=np.empty_like(z)),
    ]
    for call in calls:
        with pytest.raises(ShapeError):
            call()
    frozen = np.empty_like(z)
    frozen.flags.writeable = False
    with pytest.raises(InputError, match="read-only"):
        cpu.evaluate(RECIPE, z, y, gradient=frozen)
    with pytest.raises(InputError, match="family"):
        cpu.evaluate(SoftmaxRecipe(family="nonesuch"), z, y)
    for short in ({"offset": np.zeros(2)}, {"family": "ldam", "shift": np.zeros(2)}):
        with pytest.raises(ShapeError, match="2 entries, but there are 3 classes"):
            cpu.evaluate(SoftmaxRecipe(**short), z, y)


def test_no_rows():
    z = np.empty((0, 3))
    assert cpu.evaluate(RECIPE, z, ClassIndices(np.empty(0, int)), gradient=z) == (0.0, -1, 0)
    assert cpu.softmax_targets(ClassIndices(np.empty(0, int)), 3) == (0, 0.0)
