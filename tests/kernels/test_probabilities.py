"""Softmax and log-softmax of the kernels, around the numbers of classes where their way of working changes."""

import numpy as np
import pytest

from kullback import CrossEntropy, kernels

CLASSES = [1, 2, 3, 4, 5, 8, 9, 16, 17, 33, 64, 100, 255, 256, 257, 300]


def exact(z, temperature):
    """Log-probabilities in extended precision."""
    d = (z.astype(np.longdouble) - z.max(axis=1, keepdims=True).astype(np.longdouble)) / np.longdouble(temperature)
    return d - np.log(np.exp(d).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("c", CLASSES)
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_they_are_exact(rng, c, dtype, temperature):
    loss = CrossEntropy(temperature=temperature)
    z = (rng.normal(size=(61, c)) * 8).astype(dtype)
    z[30:] *= 20
    z[5] = 3  # all alike
    truth = exact(z, temperature)
    eps = np.finfo(dtype).eps
    assert (np.abs(loss.log_probabilities(z) - truth) <= 2 * eps * (np.abs(truth) + 1)).all()
    p = np.exp(truth)
    normal = p >= np.finfo(dtype).tiny
    error = np.abs(loss.probabilities(z) - p)
    assert (error[normal] <= (2 * eps * p * (1 + np.abs(truth)))[normal]).all()
    assert (error[~normal] <= np.finfo(dtype).tiny).all()


@pytest.mark.parametrize("c", CLASSES[1:])
@pytest.mark.parametrize("log", [False, True])
def test_rows_do_not_depend_on_their_place(rng, c, log):
    loss = CrossEntropy()
    of = loss.log_probabilities if log else loss.probabilities
    z = rng.normal(size=(37, c)).astype(np.float32)
    whole = of(z)
    for start in (0, 1, 9, 36):
        np.testing.assert_array_equal(of(z[start:]), whole[start:])
    np.testing.assert_array_equal(of(np.asfortranarray(z)), whole)


@pytest.mark.parametrize("c", CLASSES[1:])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_with_broken_logits(c, dtype):
    loss = CrossEntropy()
    z = np.zeros((6, c), dtype)
    z[0] = -np.inf
    z[1, -1] = np.inf
    z[2, 0] = z[3, -1] = np.nan
    z[4, :-1] = -np.inf
    with np.errstate(all="ignore"):
        p, log_p = loss.probabilities(z), loss.log_probabilities(z)
        with kernels.using("reference"):
            truth, log_truth = loss.probabilities(z), loss.log_probabilities(z)
    assert np.isnan(p[1:4]).all()
    assert np.isnan(log_p[1:4]).all()
    for row in (0, 4, 5):
        np.testing.assert_allclose(p[row], truth[row], rtol=1e-6)
        np.testing.assert_allclose(log_p[row], log_truth[row], rtol=1e-6)
