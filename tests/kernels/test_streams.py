"""Results larger than the caches, which are stored past them: the same numbers as in small calls."""

import numpy as np
import pytest

from kullback.losses import Brier, CrossEntropy, Focal, OneVsRest
from kullback.targets import ClassIndices, ClassMixture, ClassRows

LARGE = 33 << 20  # bytes
PIECES = 3


def room(n, c, dtype, offset=0, gap=0):
    """An array of no defined contents that begins `offset` numbers after a cache line's start, `gap` between rows."""
    memory = np.full(n * (c + gap) + offset + 64, np.nan, dtype=dtype)
    start = offset + (-memory.ctypes.data % 64) // memory.itemsize
    return memory[start : start + n * (c + gap)].reshape(n, c + gap)[:, :c]


def some_logits(rng, n, c, dtype):
    return np.resize(rng.standard_normal(100_003).astype(dtype) * 4, (n, c))


def check(loss, z, targets, part, gradient, weight=None):
    """Compares one call with PIECES small ones."""
    n = len(z)
    losses, returned = loss.value_and_gradient(z, targets, sample_weight=weight, reduction="none", out=gradient)
    assert np.shares_memory(returned, gradient)
    for piece in np.array_split(np.arange(n), PIECES):
        rows = slice(piece[0], piece[-1] + 1)
        value, expected = loss.value_and_gradient(
            z[rows], part(rows), sample_weight=None if weight is None else weight[rows], reduction="none"
        )
        np.testing.assert_array_equal(losses[rows], value)
        np.testing.assert_array_equal(gradient[rows], expected)


@pytest.mark.parametrize(
    ("c", "dtype"), [(264, np.float32), (40_000, np.float32), (1000, np.float64), (1001, np.float32)]
)
@pytest.mark.parametrize("form", ["indices", "mixture", "rows"])
def test_large_gradients_equal_those_of_small_calls(rng, c, dtype, form):
    n = LARGE // (c * np.dtype(dtype).itemsize) + 1
    z = some_logits(rng, n, c, dtype)
    first, second, share = rng.integers(0, c, n), rng.integers(0, c, n), rng.random(n)
    first[:4], second[:4] = (0, c - 1, 0, c - 1), (0, c - 1, 1, c - 2)
    weight = rng.random(n) * (rng.random(n) < 0.9)
    if form == "indices":
        targets, part = ClassIndices(first), lambda rows: ClassIndices(first[rows])
    elif form == "mixture":
        targets = ClassMixture(first, second, share)
        part = lambda rows: ClassMixture(first[rows], second[rows], share[rows])  # noqa: E731
    else:
        soft = some_logits(rng, n, c, dtype) ** 2
        soft /= soft.sum(axis=1, keepdims=True)
        targets, part = ClassRows(soft), lambda rows: ClassRows(soft[rows])
    gradient = room(n, c, dtype)
    several = tuple(1.0 + k % 3 for k in range(c))
    with_options = CrossEntropy(label_smoothing=0.1, softcap=9.0, class_weight=several)
    for loss in CrossEntropy(), with_options, Brier(), Focal(), OneVsRest():
        gradient[:] = np.nan
        check(loss, z, targets, part, gradient, weight)


@pytest.mark.parametrize(("offset", "gap"), [(0, 0), (1, 0), (8, 0), (0, 8), (0, 16), (3, 5)])
def test_wherever_the_rows_of_a_large_gradient_begin(rng, offset, gap):
    n, c = LARGE // 4000 + 1, 1000
    z, y = some_logits(rng, n, c, np.float32), rng.integers(0, c, n)
    gradient = room(n, c, np.float32, offset, gap)
    check(CrossEntropy(), z, ClassIndices(y), lambda rows: ClassIndices(y[rows]), gradient)


@pytest.mark.parametrize("loss", [CrossEntropy(), Brier(), Focal(), OneVsRest()], ids=str)
def test_a_large_gradient_over_the_logits(rng, loss):
    n, c = LARGE // 4000 + 1, 1000
    z, y = some_logits(rng, n, c, np.float32), rng.integers(0, c, n)
    apart, over = room(n, c, np.float32), z.copy()
    value, _ = loss.value_and_gradient(z, y, out=apart)
    assert loss.value_and_gradient(over, y, out=over)[0] == value
    np.testing.assert_array_equal(over, apart)
