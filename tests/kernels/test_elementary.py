"""exp and logarithms of the native kernels: within 2 ulp of 50-digit arithmetic over their whole range."""

import mpmath
import numpy as np
import pytest

from kullback.kernels import _native

EXP, LOG1P, LOG1P_TO_ONE, LOG_TO_ONE, EXP_IN_FEW_STEPS, LOG1P_IN_FEW_STEPS = range(6)
EXPS, LOGS1P_TO_ONE = (EXP, EXP_IN_FEW_STEPS), (LOG1P_TO_ONE, LOG1P_IN_FEW_STEPS)
mpmath.mp.dps = 50


def run(which, x):
    y = np.empty_like(x)
    _native.elementary(which, x, y)
    return y


def exact(function, x):
    return [function(mpmath.mpf(float(value))) for value in x]


def errors_in_ulp(computed, true):
    dtype = computed.dtype
    tiny = float(np.finfo(dtype).smallest_subnormal)
    return np.array(
        [
            float(abs(mpmath.mpf(float(c)) - t) / mpmath.mpf(max(float(np.spacing(dtype.type(abs(t)))), tiny)))
            for c, t in zip(computed, true, strict=True)
        ]
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exp_is_within_two_ulp_down_to_the_subnormals(dtype, rng):
    lowest = -104.0 if dtype == np.float32 else -746.0
    x = np.concatenate(
        [
            -rng.uniform(0, -lowest, 1500),
            -np.geomspace(1e-40, 1, 500),
            np.linspace(lowest, lowest + 18, 500),  # subnormal results
            -np.log(2) * (np.arange(1, 140) + 0.5),  # where the reduction changes its mind
        ]
    ).astype(dtype)
    for which in EXPS:
        assert errors_in_ulp(run(which, x), exact(mpmath.exp, x)).max() <= 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log1p_is_within_two_ulp(dtype, rng):
    top = 3e38 if dtype == np.float32 else 1e308
    x = np.concatenate(
        [np.geomspace(1e-37, top, 1500), rng.uniform(0, 4, 1000), [0.41421354, 0.41421357, 1.0, 3.0]]
    ).astype(dtype)
    assert errors_in_ulp(run(LOG1P, x), exact(mpmath.log1p, x)).max() <= 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log1p_up_to_one_is_within_two_ulp(dtype, rng):
    least = np.finfo(dtype).smallest_subnormal
    x = np.concatenate(
        [np.geomspace(1e-37, 1, 1500), rng.uniform(0, 1, 1500), [0.41421354, 0.41421357, 1.0, least, 3 * least]]
    ).astype(dtype)
    for which in LOGS1P_TO_ONE:
        assert errors_in_ulp(run(which, x), exact(mpmath.log1p, x)).max() <= 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_up_to_one_is_within_two_ulp(dtype, rng):
    least = np.finfo(dtype).smallest_subnormal
    x = np.concatenate(
        [
            np.geomspace(1e-37, 1, 1500),
            rng.uniform(0, 1, 1500),
            1 - np.geomspace(np.finfo(dtype).eps / 2, 0.3, 500),
            [0.70710677, 0.70710683, 0.35355338, 0.35355341, 1.0, least, 5 * least, np.finfo(dtype).tiny],
        ]
    ).astype(dtype)
    assert errors_in_ulp(run(LOG_TO_ONE, x), exact(mpmath.log, x)).max() <= 2


def test_logarithms_of_every_hundredth_float32_are_within_two_ulp():
    bits = np.arange(1, 0x3F800001, 97, dtype=np.uint64).astype(np.uint32)
    x = bits.view(np.float32)
    for which, function in (*((which, np.log1p) for which in LOGS1P_TO_ONE), (LOG_TO_ONE, np.log)):
        true = function(x.astype(np.float64))
        ulp = np.spacing(np.maximum(abs(true), 2.0**-149).astype(np.float32)).astype(np.float64)
        assert (np.abs(run(which, x) - true) / ulp).max() <= 2


def test_exp_of_every_hundredth_float32_is_within_two_ulp():
    bits = np.arange(0x80000000, 0xC2D00000, 97, dtype=np.uint64).astype(np.uint32)
    x = bits.view(np.float32)
    true = np.exp(x.astype(np.float64))
    ulp = np.spacing(np.maximum(true, 2.0**-149).astype(np.float32)).astype(np.float64)
    for which in EXPS:
        assert (np.abs(run(which, x) - true) / ulp).max() <= 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_edges(dtype):
    payload = np.array([0x7FC00001], np.uint32).view(np.float32)[0] if dtype == np.float32 else np.nan
    x = np.array([0.0, -0.0, -np.inf, np.nan, payload, -105 if dtype == np.float32 else -747], dtype)
    for which in EXPS:
        np.testing.assert_array_equal(run(which, x), np.array([1, 1, 0, np.nan, np.nan, 0], dtype))
    x = np.array([0.0, np.inf, np.nan, np.finfo(dtype).smallest_subnormal], dtype)
    np.testing.assert_array_equal(run(LOG1P, x), x)
    x = np.array([0.0, np.nan, np.finfo(dtype).smallest_subnormal], dtype)
    for which in LOGS1P_TO_ONE:
        np.testing.assert_array_equal(run(which, x), x)
    np.testing.assert_array_equal(run(LOG_TO_ONE, np.array([1, np.nan], dtype)), np.array([0, np.nan], dtype))
