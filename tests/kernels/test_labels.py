"""The kernels for independent labels: tiles of every shape, hard and soft labels of every type, struck out and not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kullback.errors import ShapeError, TargetError
from kullback.kernels import cpu, reference
from kullback.kernels.recipe import SigmoidRecipe
from kullback.losses import Asymmetric
from kullback.targets import LabelRows

# a tile holds 1024 numbers of float32, 512 of float64
COLUMNS = [1, 2, 3, 7, 8, 9, 100, 511, 513, 1024, 1025, 2500]
FAMILIES = {
    "binary_cross_entropy": (),
    "sigmoid_focal": (2.0,),
    "asymmetric": (0.0, 4.0, 0.05),
    "sigmoid_brier": (),
    "label_entropy": (),
}
VARIANTS = [
    ("sigmoid_focal", (0.0,)),
    ("sigmoid_focal", (0.1,)),
    ("sigmoid_focal", (1.0,)),
    ("sigmoid_focal", (7.0,)),
    ("sigmoid_focal", (8.0,)),
    ("asymmetric", (1.0, 3.0, 0.0)),
    ("asymmetric", (0.5, 0.0, 0.0)),
    ("asymmetric", (2.0, 0.0, 0.3)),
    ("asymmetric", (0.3, 0.7, 0.05)),
    ("asymmetric", (0.0, 1.0, 1e-6)),
    ("asymmetric", (1.0, 0.5, 0.05)),
    ("asymmetric", (5.0, 1.5, 0.1)),
    ("asymmetric", (2.5, 7.0, 0.01)),
    ("asymmetric", (7.5, 6.0, 0.2)),
    ("asymmetric", (3.0, 0.0, 0.05)),
]


def run(kernels, recipe, z, labels, v, **options):
    losses, gradient, diagonal, product = np.empty(len(z)), np.empty_like(z), np.empty_like(z), np.empty_like(z)
    with np.errstate(all="ignore"):
        kernels.evaluate(recipe, z, labels, per_example=losses, gradient=gradient, scale=0.5, **options)
        kernels.hessian_diagonal(recipe, z, labels, out=diagonal, **options)
        kernels.hessian_product(recipe, z, labels, v, out=product, **options)
        values = np.empty(len(z))
        total = kernels.evaluate(recipe, z, labels, per_example=values, **options).total
        alone = kernels.evaluate(recipe, z, labels, **options).total
    np.testing.assert_array_equal(values, losses)
    assert total == pytest.approx(alone, rel=1e-5, nan_ok=True)
    return losses, gradient, diagonal, product


def assert_near(ours, truth, u, sizes):
    for a, b, size in zip(ours, truth, sizes, strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
        np.testing.assert_array_equal(np.isinf(a), np.isinf(b))
        finite = np.isfinite(b)
        assert (np.abs(a[finite] - b[finite]) <= 16 * u * (size + np.abs(b[finite]))).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("c", COLUMNS)
def test_any_number_of_labels(rng, c, family, dtype):
    n = 2 if c > 1000 else 2100 // c + 2
    z = (rng.normal(size=(n, c)) * rng.choice([1, 5, 30], size=(n, 1))).astype(dtype)
    held = rng.random((n, c)) < 0.3
    soft = np.where(rng.random((n, c)) < 0.5, held, rng.random((n, c)))
    v = rng.normal(size=z.shape).astype(dtype)
    weight = rng.integers(0, 3, n).astype(float)
    weight[0] = 1.5
    z[-1, -1], z[0, c // 2] = -np.inf, np.inf
    z[weight == 0] = np.nan
    if n > 2:
        z[1, 0] = np.nan
        weight[1] = 1
    per_label, positive = rng.uniform(0, 2, c), rng.uniform(0.1, 3, c)
    positive[rng.random(c) < 0.1] = 1
    per_label[rng.random(c) < 0.1] = 0
    u = np.finfo(dtype).eps / 2
    unknown = np.where(rng.random((n, c)) < 0.2, -1, held)
    for recipe in (
        SigmoidRecipe(family=family, parameters=FAMILIES[family]),
        SigmoidRecipe(family, FAMILIES[family], 0.1, 1.5, positive, per_label),
        SigmoidRecipe(family, FAMILIES[family], 0.0, 0.7, positive, per_label),
    ):
        for labels, ignore in (
            (held, None),
            (held.astype(np.uint8), None),
            (held.astype(dtype), None),
            (soft.astype(dtype), None),
            (unknown, -1),
            (unknown.astype(dtype), -1),
            (held.astype(np.int16), 0),
        ):
            options = {"row_weight": weight, "ignore_index": ignore}
            ours = run(cpu, recipe, z, LabelRows(labels), v, **options)
            truth = run(reference, recipe, z, LabelRows(labels), v, **options)
            mass = 10 * 9 / recipe.temperature
            assert_near(ours, truth, u, [c * mass, mass, 4 * mass / recipe.temperature, 12 * mass / recipe.temperature])
            assert not ours[0][weight == 0].any()
            assert not ours[1][weight == 0].any()
            if ignore is not None:
                counts = weight != 0
                assert not ours[1][counts][labels[counts] == ignore].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("family", "parameters"), VARIANTS)
def test_every_variant_of_a_loss(rng, family, parameters, dtype):
    z = np.concatenate([rng.normal(size=400) * 8, np.linspace(-110, 110, 100), [0, np.inf, -np.inf]]).astype(dtype)
    z = np.tile(z, (3, 1))
    labels = np.stack([np.ones(z.shape[1]), np.zeros(z.shape[1]), rng.random(z.shape[1])]).astype(dtype)
    recipe, v = SigmoidRecipe(family=family, parameters=parameters), rng.normal(size=z.shape).astype(dtype)
    u = np.finfo(dtype).eps / 2
    for rows in (slice(0, 2), slice(0, 3)):  # hard labels alone, and mixed with soft ones
        ours = run(cpu, recipe, z[rows], LabelRows(labels[rows]), v[rows])
        truth = run(reference, recipe, z[rows], LabelRows(labels[rows]), v[rows])
        steep = (1 + max(parameters)) * 2
        assert_near(ours[:2], truth[:2], u, [z.shape[1] * steep, steep])
        if parameters[0] < 1 and family == "asymmetric" and parameters[2]:
            continue  # the curvature has no bound where the clip ends
        assert_near(ours[2:], truth[2:], u, [4 * steep**2, 12 * steep**2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("family", "parameters"), [*FAMILIES.items(), ("sigmoid_focal", (1.5,)), ("asymmetric", (0.5, 2.5, 0.05))]
)
def test_equal_rows_have_equal_bits_wherever_they_lie(rng, family, parameters, dtype):
    """A number is rounded alike in a vector by itself, beside another one, or at the end of a tile."""
    for c in (3, 37, 100, 511):
        z, v = (np.tile(x, (1500 // c + 3, 1)).astype(dtype) for x in rng.normal(size=(2, 1, c)) * 4)
        hard = np.tile(rng.random(c) < 0.3, (len(z), 1))
        soft, unknown = np.tile(rng.random(c), (len(z), 1)).astype(dtype), np.where(hard[:1] & (z > 0), -1, hard)
        for smoothing in (0.0, 0.1):
            recipe = SigmoidRecipe(family, parameters, smoothing, 1.5, rng.uniform(0.1, 3, c), rng.uniform(0.1, 2, c))
            for labels in (hard.astype(dtype), soft, unknown):
                for result in run(cpu, recipe, z, LabelRows(labels), v, ignore_index=-1):
                    np.testing.assert_array_equal(result, np.broadcast_to(result[:1], result.shape))


@pytest.mark.parametrize("family", FAMILIES)
def test_layouts_and_aliasing(rng, family):
    recipe = SigmoidRecipe(family=family, parameters=FAMILIES[family])
    z, v = rng.normal(size=(2, 37, 90)).astype(np.float32)
    held = rng.random(z.shape) < 0.3
    expected = run(cpu, recipe, z, LabelRows(held.astype(np.float32)), v)
    wide = np.full((37, 200), 7, np.float32)
    wide[:, 5:95] = z
    for logits, labels, direction in (
        (np.asfortranarray(z), held.astype(np.int8), np.asfortranarray(v)),
        (wide[:, 5:95], np.repeat(held, 2, axis=1)[:, ::2], v[::-1].copy()[::-1]),
        (np.repeat(z, 2, axis=0)[::2], np.asfortranarray(held.astype(np.float64)), np.repeat(v, 2, axis=1)[:, ::2]),
    ):
        for a, b in zip(run(cpu, recipe, logits, LabelRows(labels), direction), expected, strict=True):
            np.testing.assert_array_equal(a, b)
    inside = wide[:, 5:95]
    cpu.evaluate(recipe, inside, LabelRows(held), gradient=inside, scale=0.5)
    np.testing.assert_array_equal(inside, expected[1])
    assert (wide[:, :5] == 7).all()
    assert (wide[:, 95:] == 7).all()


def test_the_first_bad_label_is_named(rng):
    z = rng.normal(size=(400, 70)).astype(np.float32)
    for kind, bad in ((np.uint8, 2), (np.int64, -100), (np.float32, 1.5), (np.float64, np.nan), (np.float32, -1e-30)):
        labels = rng.integers(0, 2, z.shape).astype(kind)
        labels[321, 45:] = labels[399] = bad
        with pytest.raises(TargetError, match=f"row 321, column 45: label target {kind(bad)} is not valid"):
            cpu.evaluate(SigmoidRecipe(), z, LabelRows(labels))
        weight = np.ones(400)
        weight[[321, 399]] = 0
        cpu.evaluate(SigmoidRecipe(), z, LabelRows(labels), row_weight=weight)
    labels = np.zeros(z.shape)
    labels[5, 5] = -0.0
    cpu.evaluate(SigmoidRecipe(), z, LabelRows(labels))


def test_the_first_infinite_row_is_named_even_beside_nan(rng):
    z = rng.normal(size=(400, 5)).astype(np.float32)
    labels = np.ones(z.shape, np.uint8)
    z[10, 1], z[20, 2], z[21, 0] = np.nan, -np.inf, -np.inf
    assert cpu.evaluate(SigmoidRecipe(), z, LabelRows(labels)).infinite_row == 20
    assert cpu.evaluate(SigmoidRecipe(), z, LabelRows(labels), per_example=np.empty(400)).infinite_row == 20
    labels[20, 2] = 0
    assert cpu.evaluate(SigmoidRecipe(), z, LabelRows(labels), gradient=z).infinite_row == 21


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int64, np.float32, np.float64])
def test_labels_that_are_known_are_counted(rng, kind):
    labels = rng.integers(0, 3, (300, 70)).astype(kind)
    labels[17] = 2
    expected = (labels != 2).sum(axis=1)
    for rows in (labels, np.asfortranarray(labels), labels[::-1, ::-1].copy()[::-1, ::-1]):
        for kernels in (cpu, reference):
            known = np.full(300, -1.0)
            summary = kernels.sigmoid_targets(LabelRows(rows), ignore_index=2, known=known)
            np.testing.assert_array_equal(known, expected)
            assert summary.counted == 299
            kernels.sigmoid_targets(LabelRows(rows), known=known)
            assert (known == 70).all()
    # no number of the type is the ignored one
    assert cpu.sigmoid_targets(LabelRows(labels.astype(np.uint8)), ignore_index=-254).counted == 300
    with pytest.raises(ShapeError, match="known"):
        cpu.sigmoid_targets(LabelRows(labels), ignore_index=2, known=np.empty(300, np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_of_weighed_rows(rng, dtype):
    z = rng.normal(size=(90, 70)).astype(dtype)
    held = rng.random(z.shape) < 0.3
    labels, recipe = LabelRows(held.astype(dtype)), SigmoidRecipe()
    for low, high in ((0.5, 2), (1e-200, 1e-100), (1e100, 1e200)):
        weight = rng.uniform(low, high, 90)
        weight[7] = 0
        losses = np.empty(90)
        total = cpu.evaluate(recipe, z, labels, row_weight=weight, per_example=losses).total
        assert total == pytest.approx(losses.sum(), rel=1e-12)
        assert cpu.evaluate(recipe, z, labels, row_weight=weight).total == pytest.approx(total, rel=1e-5)
        z[7] = np.nan
    z[40, 3] = -np.inf if held[40, 3] else np.inf
    found = cpu.evaluate(recipe, z, labels, row_weight=weight)
    assert found.total == np.inf
    assert found.infinite_row == 40


@pytest.mark.parametrize("gammas", [(0, 4), (0.5, 0.5), (2, 0.5), (1, 0), (0, 1.3)])
@pytest.mark.parametrize("clip", [1e-3, 0.05, 0.5])
def test_labels_where_the_clip_begins_have_gradients(gammas, clip):
    begins = math.log(clip / (1 - clip))
    logits = np.linspace(begins - 1e-6, begins + 1e-6, 4000).astype(np.float32).reshape(-1, 16)
    loss = Asymmetric(gamma_positive=gammas[0], gamma_negative=gammas[1], clip=clip)
    _, gradient = loss.value_and_gradient(logits, np.zeros_like(logits), reduction="sum")
    assert np.isfinite(gradient).all()
    # p itself is known to a rounding error, and where the clip begins the power makes much of little
    unsure = 4 * np.finfo(np.float32).eps * clip
    highest = loss.value_and_gradient(logits.astype(np.float64) + 1e-5, np.zeros_like(logits), reduction="sum")[1].max()
    assert (gradient >= 0).all()
    assert gradient.max() <= highest + unsure ** min(1.0, gammas[1] or 1.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("gammas", [(0, 4), (1, 0), (0.5, 0), (0.5, 2.5), (0, 0), (1.3, 0)])
def test_a_loss_of_nan_is_nan_whatever_the_power(gammas, dtype):
    logits = np.zeros((3, 40), dtype)
    logits[1, 7] = np.nan
    loss = Asymmetric(gamma_positive=gammas[0], gamma_negative=gammas[1])
    for labels in (np.zeros_like(logits), np.ones_like(logits), np.full_like(logits, 0.5)):
        np.testing.assert_array_equal(np.isnan(loss.per_example(logits, labels)), [False, True, False])
        gradient = loss.value_and_gradient(logits, labels, reduction="sum")[1]
        np.testing.assert_array_equal(np.argwhere(np.isnan(gradient)), [[1, 7]])
