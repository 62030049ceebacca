"""What lies below the least normal number counts as zero in kernels, and in nobody else's arithmetic."""

import threading

import numpy as np
import pytest

import kullback
from kullback import BinaryCrossEntropy, CrossEntropy, kernels
from kullback.kernels.threads import get_num_threads

SHAPES = [(2000, 3), (2000, 10), (300, 200), (7, 5000)]


def subnormals(array):
    return int(((array != 0) & (np.abs(array) < np.finfo(array.dtype).tiny)).sum())


def far_apart(rng, shape, dtype):
    """Logits whose probabilities run from 1 through the subnormal numbers to zero."""
    return (rng.random(shape) * 1.3 * np.log(np.finfo(dtype).tiny)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_gradient_is_subnormal(rng, shape, dtype):
    logits = far_apart(rng, shape, dtype)
    _, gradient = CrossEntropy().value_and_gradient(logits, rng.integers(0, shape[1], shape[0]), reduction="sum")
    assert subnormals(gradient) == 0
    assert (gradient == 0).any()
    with kernels.using("reference"):  # which makes them: the logits are far enough apart
        assert subnormals(CrossEntropy().probabilities(logits)) > 0
    labels = rng.integers(0, 2, shape)
    assert subnormals(BinaryCrossEntropy().value_and_gradient(logits, labels, reduction="sum")[1]) == 0


@pytest.mark.parametrize("n_threads", [1, 3])
def test_the_callers_arithmetic_stays_as_it_is(rng, n_threads):
    least = np.full(64, np.finfo(np.float32).tiny)
    found = []

    def call():
        logits = far_apart(rng, (5000, 20), np.float32)
        CrossEntropy().value_and_gradient(logits, rng.integers(0, 20, len(logits)))
        found.append((least / 2 > 0).all() and (least / 2 * 2 == least).all())

    before = get_num_threads()
    kullback.set_num_threads(n_threads)
    try:
        call()
        other = threading.Thread(target=call)
        other.start()
        other.join()
    finally:
        kullback.set_num_threads(before)
    assert found == [True, True]
