"""Ways through the softmax kernels that depend on what a row holds, against the NumPy reference."""

import numpy as np
import pytest

from kullback.kernels import cpu, reference
from kullback.losses import (
    CrossEntropy,
    Focal,
    GeneralisedCrossEntropy,
    JensenShannon,
    KullbackLeibler,
    Ldam,
    OneVsRest,
)
from kullback.targets import ClassMixture, ClassRows

# a lane per row, with and without a kernel of its own; several rows, a lane per class; a row by itself, in one
# piece and in several
CLASSES = [2, 10, 37, 100, 300, 3000]
DTYPES = [np.float32, np.float64]
BY_CLASS = {
    "focal": lambda c: Focal(),
    "focal, 0.5": lambda c: Focal(gamma=0.5),
    "focal, 1.3": lambda c: Focal(gamma=1.3),
    "generalised": lambda c: GeneralisedCrossEntropy(),
    "jensen_shannon": lambda c: JensenShannon(),
    "one_vs_rest": lambda c: OneVsRest(),
    "ldam": lambda c: Ldam(class_counts=np.arange(1, c + 1)),  # of logits times 30: most probabilities are 0
    "ldam, 1": lambda c: Ldam(class_counts=np.arange(1, c + 1), temperature=1),
}


def check(loss, z, targets, *, over_the_logits=False):
    """Values and gradients within some ulp of the row's mass times how far its logits reach."""
    recipe = loss._recipe(z.shape[1])
    results = []
    for kernels in (cpu, reference):
        logits = z.copy()
        gradient = logits if over_the_logits else np.full_like(z, 7)
        losses = np.empty(len(z))
        with np.errstate(all="ignore"):
            kernels.evaluate(recipe, logits, targets, per_example=losses, gradient=gradient)
        results.append((losses, gradient.astype(np.float64)))
    spread = np.where(np.isfinite(z), z, 0)
    reach = np.float64(1 + (spread.max(axis=1) - spread.min(axis=1)) / recipe.temperature)
    weight = 1.0 if recipe.class_weight is None else recipe.class_weight.max()
    slope = 1 / recipe.temperature
    for (ours, truth), scale in zip(zip(*results, strict=True), (reach, slope * reach[:, None]), strict=True):
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(truth))
        np.testing.assert_array_equal(np.isinf(ours), np.isinf(truth))
        finite = np.isfinite(truth)
        bound = (48 * np.finfo(z.dtype).eps * weight * (np.abs(truth) + scale))[finite]
        assert (np.abs(ours[finite] - truth[finite]) <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("c", CLASSES)
@pytest.mark.parametrize("name", BY_CLASS)
@pytest.mark.parametrize("over_the_logits", [False, True])
def test_masked_classes_among_soft_targets(name, c, dtype, over_the_logits, rng):
    """Rows with and without them: with mass there the loss has no end, without it counts for nothing."""
    z = (3 * rng.normal(size=(19, c))).astype(dtype)
    t = rng.uniform(size=(19, c)).astype(dtype)
    t /= t.sum(axis=1, keepdims=True)
    masked = rng.uniform(size=z.shape) < 0.2
    masked[::3] = False
    masked[:, 0] = False
    z[masked] = -np.inf
    t[masked] = 0
    t[4] = 1 / c
    check(BY_CLASS[name](c), z, ClassRows(t), over_the_logits=over_the_logits)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("c", CLASSES)
def test_divergence_of_mixtures(c, dtype, rng):
    n = 21
    z = (3 * rng.normal(size=(n, c))).astype(dtype)
    first, second = rng.integers(0, c, n), rng.integers(0, c, n)
    second[:3] = first[:3]
    share = rng.uniform(size=n)
    share[[0, 5]], share[[1, 6]] = 0.0, 1.0
    z[7, :] = -50.0  # where the divergence is nothing
    z[7, first[7]], z[7, second[7]] = np.log(share[7]), np.log1p(-share[7])
    targets = ClassMixture(first, second, share)
    for weight in (None, tuple(float(k % 3) for k in range(c))):
        loss = KullbackLeibler(class_weight=weight)
        check(loss, z, targets)
        check(loss, z, ClassRows(targets.dense(c).astype(dtype)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("c", CLASSES)
@pytest.mark.parametrize("priors", [False, True])
def test_caps_near_and_far(c, dtype, priors, rng):
    """Pieces whose logits are all well below the cap, pieces where some are not, and none."""
    loss = CrossEntropy(softcap=2.0, priors=tuple(rng.uniform(0.5, 1, c)) if priors else None)
    z = rng.uniform(-2.9, 2.9, size=(33, c)).astype(dtype)
    z[8:16] *= 10
    z[20, c - 1], z[21, 0] = -np.inf, 40.0
    z[22, c // 2] = np.nan
    z[30, c // 2] = np.inf
    check(loss, z, ClassMixture(rng.integers(0, c - 1, 33), rng.integers(0, c - 1, 33), rng.uniform(size=33)))
    check(loss, z, ClassRows(np.eye(c, dtype=dtype)[rng.integers(0, c - 1, 33)]))


def test_sums_of_targets_beyond_float32_are_weighed():
    """Each entry is a number, though float32 has none for their sum."""
    targets = ClassRows(np.full((9, 4), 3e38, dtype=np.float32))
    summary = cpu.softmax_targets(targets, 4, class_weight=np.arange(4.0))
    assert summary.counted == 9
