"""Where single precision is hard: confident rows, a million classes, factors near the smallest numbers."""

import importlib.util
import pathlib

import numpy as np
import pytest

from kullback import kernels
from kullback.kernels import cpu, reference
from kullback.kernels.recipe import SoftmaxRecipe
from kullback.losses import (
    Brier,
    CrossEntropy,
    Focal,
    GeneralisedCrossEntropy,
    JensenShannon,
    KullbackLeibler,
    Ldam,
    OneVsRest,
    Poly,
    SmoothedZeroOne,
)
from kullback.targets import ClassIndices, ClassMixture, ClassRows

_SPEC = importlib.util.spec_from_file_location("bounds", pathlib.Path(__file__).parents[1] / "fuzz" / "bounds.py")
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
Bounds = _MODULE.Bounds

EPS = float(np.finfo(np.float32).eps)


@pytest.mark.parametrize("c", [2, 3, 10, 50, 100, 256, 5000])
def test_tiny_losses_keep_their_relative_precision(c):
    margins = np.array([1, 5, 10, 20, 40, 80], np.float32)
    z = np.zeros((len(margins), c), np.float32)
    z[:, 1] = margins
    losses, gradient = np.empty(len(margins)), np.empty_like(z)
    cpu.evaluate(SoftmaxRecipe(), z, ClassIndices(np.ones(len(margins), int)), per_example=losses, gradient=gradient)
    others = (c - 1) * np.exp(-margins.astype(np.float64))
    np.testing.assert_allclose(losses, np.log1p(others), rtol=6 * EPS)
    np.testing.assert_allclose(gradient[:, 1], -others / (1 + others), rtol=6 * EPS)


@pytest.mark.parametrize("c", [10, 1000, 1_000_000])
def test_float32_error_does_not_grow_with_the_number_of_classes(rng, c):
    z = rng.normal(size=(2, c)).astype(np.float32)
    targets = ClassIndices(np.array([0, c - 1]))
    losses, gradient = np.empty(2), np.empty_like(z)
    cpu.evaluate(SoftmaxRecipe(), z, targets, per_example=losses, gradient=gradient)
    exact = z.astype(np.float64)
    true_losses, true_gradient = np.empty(2), np.empty_like(exact)
    reference.evaluate(SoftmaxRecipe(), exact, targets, per_example=true_losses, gradient=true_gradient)
    np.testing.assert_allclose(losses, true_losses, rtol=8 * EPS)
    np.testing.assert_allclose(gradient, true_gradient, rtol=16 * EPS)


def alike_losses(c):
    weight = tuple(np.where(np.arange(c) % 7 == 0, 0.25, 0.75))
    return [
        CrossEntropy(),
        CrossEntropy(label_smoothing=0.3),
        CrossEntropy(class_weight=weight, label_smoothing=0.1),
        CrossEntropy(z_loss=1e-2),
        Focal(),
        GeneralisedCrossEntropy(),
        Poly(),
        SmoothedZeroOne(),
        Brier(),
        OneVsRest(),
        JensenShannon(),
        KullbackLeibler(),
        Ldam(class_counts=weight),
    ]


@pytest.mark.parametrize("c", [10, 33, 64, 129, 256, 257, 511, 1000, 1024, 1025, 2047, 5000])
def test_classes_that_score_alike_are_not_rounded_alike(rng, c):
    """Equal terms round the same way at every addition: the bound holds only if few are added up one by one."""
    n = 40 if c > 256 else 400
    rows = np.arange(n)
    z = np.repeat(rng.uniform(-12, 3, (n, 1)), c, axis=1).astype(np.float32)
    top, second, y = rng.integers(0, c, (3, n))
    z[rows, top] = 0
    z[rows[::2], second[::2]] = rng.uniform(-3, 3, n // 2)
    soft = np.repeat(rng.random((n, 1)), c, axis=1)
    soft[rows, y] = rng.random(n) * c * rng.integers(0, 2, n)
    soft = (soft / soft.sum(axis=1, keepdims=True)).astype(np.float32)
    for loss in alike_losses(c):
        for targets in (ClassIndices(y), ClassRows(soft)):
            values = loss.per_example(z, targets)
            _, gradient = loss.value_and_gradient(z, targets, reduction="sum")
            with kernels.using("reference"):
                exact = z.astype(np.float64)
                true = loss.per_example(exact, targets)
                _, slopes = loss.value_and_gradient(exact, targets, reduction="sum")
            limit = Bounds(loss, z, targets, np.ones(n), true, 1.0, 1.0, EPS / 2)
            assert (np.abs(values - true) <= limit.value).all(), (loss, type(targets).__name__)
            assert (np.abs(gradient - slopes) <= limit.gradient).all(), (loss, type(targets).__name__)


@pytest.mark.parametrize("loss", [JensenShannon(), JensenShannon(share=0.01), Ldam(max_margin=0.5), OneVsRest()])
def test_chances_around_the_end_of_the_short_series(rng, loss):
    p = 2.0 ** -rng.uniform(8.5, 9.5, (16, 400))  # what is left goes to one class more
    z = np.log(np.hstack([p, 1 - p.sum(axis=1, keepdims=True)])).astype(np.float32)
    t = rng.dirichlet(np.ones(401), 16)
    for targets, exact_targets in [
        (ClassRows(t.astype(np.float32)), ClassRows(t.astype(np.float32).astype(np.float64))),
        (ClassMixture(np.arange(16), np.full(16, 400), np.full(16, 0.3)),) * 2,
    ]:
        gradient, exact = np.empty_like(z), np.empty(z.shape)
        value, _ = loss.value_and_gradient(z, targets, reduction="sum", out=gradient)
        true_value, _ = loss.value_and_gradient(z.astype(np.float64), exact_targets, reduction="sum", out=exact)
        assert value == pytest.approx(true_value, rel=2 * EPS)
        np.testing.assert_allclose(gradient, exact, rtol=0, atol=4 * EPS * np.abs(exact).max())


@pytest.mark.parametrize("c", [3, 100])
@pytest.mark.parametrize("scale", [1e-36, 1e-30, 1e30])
def test_extreme_scales(rng, c, scale):
    z = rng.normal(size=(4, c)).astype(np.float32)
    targets = ClassIndices(np.zeros(4, int))
    unscaled, scaled = np.empty_like(z), np.empty_like(z)
    cpu.evaluate(SoftmaxRecipe(), z, targets, gradient=unscaled)
    cpu.evaluate(SoftmaxRecipe(), z, targets, gradient=scaled, scale=scale)
    least = np.finfo(np.float32).tiny
    np.testing.assert_allclose(scaled, unscaled.astype(np.float64) * scale, rtol=4 * EPS, atol=least)


@pytest.mark.parametrize("c", [4, 200, 5000])
def test_huge_logits_do_not_overflow(c):
    z = np.full((3, c), -3e38, np.float32)
    z[0, 0], z[1, 1], z[2] = 3e38, 3e38, 3e38
    losses, gradient = np.empty(3), np.empty_like(z)
    cpu.evaluate(SoftmaxRecipe(), z, ClassIndices(np.array([0, 1, 2])), per_example=losses, gradient=gradient)
    np.testing.assert_allclose(losses, [0, 0, np.log(c)], rtol=4 * EPS)
    assert np.isfinite(gradient).all()


@pytest.mark.slow
def test_more_elements_than_32_bits_count():
    row = np.linspace(-3, 3, 65536, dtype=np.float32)
    z = np.broadcast_to(row, (65600, 65536))
    evaluation = cpu.evaluate(SoftmaxRecipe(), z, ClassIndices(np.full(65600, 65535)))
    exact = np.log(np.exp(row.astype(np.float64)).sum()) - 3
    assert evaluation.total == pytest.approx(65600 * exact, rel=1e-6)
