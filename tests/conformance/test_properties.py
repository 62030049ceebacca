"""What must hold for every loss whatever the numbers: invariances, sums, weights, reductions, and special cases."""

from __future__ import annotations

import dataclasses
import importlib.util
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kullback.losses import (
    Asymmetric,
    BalancedSoftmax,
    BinaryCrossEntropy,
    Brier,
    CrossEntropy,
    Focal,
    GeneralisedCrossEntropy,
    Ldam,
    Poly,
    SigmoidFocal,
)
from kullback.targets import ClassIndices, ClassRows, LabelRows

_spec = importlib.util.spec_from_file_location("catalogue", pathlib.Path(__file__).with_name("catalogue.py"))
catalogue = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(catalogue)
FAMILIES = {**catalogue.SOFTMAX, **catalogue.SIGMOID, **catalogue.MARGIN, **catalogue.OTHERS}
CLASSES = {name: make for name, (make, _) in FAMILIES.items() if make(3).target_form == "classes"}
SHIFTED_ONLY_IN_PRINCIPLE = ("softcap", "z_loss", "everything", "logit_l1", "logit_l2")
EXAMPLES = settings(deadline=None, max_examples=8)


@st.composite
def batches(draw):
    """A random generator and moderate float64 logits."""
    n, c = draw(st.integers(1, 20)), draw(st.sampled_from([2, 3, 5, 10, 33, 70]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng, rng.normal(size=(n, c)) * draw(st.sampled_from([0.1, 1.0, 20.0]))


def targets_of(rng, loss, shape):
    n, c = shape
    if loss.target_form == "labels":
        return LabelRows(np.where(rng.uniform(size=(n, 1)) < 0.5, rng.uniform(size=shape), rng.integers(0, 2, shape)))
    if loss.name == "kullback_leibler" or rng.integers(2):
        return ClassRows(rng.dirichlet(np.ones(c), n) * rng.choice([1.0, 0.0, 2.5], size=(n, 1)))
    return ClassIndices(rng.integers(0, c, n))


def close(a, b, size=1.0):
    """Equal but for rounding in float64, relative to the largest number that takes part."""
    a, b = np.asarray(a), np.asarray(b)
    scale = size + max(np.abs(a).max(initial=0), np.abs(b).max(initial=0))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-11 * scale)


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in SHIFTED_ONLY_IN_PRINCIPLE])
@EXAMPLES
@given(batches())
def test_a_constant_added_to_a_row_changes_nothing_and_gradient_rows_sum_to_zero(name, batch):
    rng, z = batch
    loss = CLASSES[name](z.shape[1])
    targets = targets_of(rng, loss, z.shape)
    value, gradient = loss.value_and_gradient(z, targets, reduction="none")
    shifted, gradient_ = loss.value_and_gradient(z + rng.integers(-9, 10, (len(z), 1)), targets, reduction="none")
    size = 25 * (1 + np.abs(z).max()) * z.shape[1]
    close(value, shifted, size)
    if loss.name != "crammer_singer":  # of rivals that rounding made equal another one may be taken
        close(gradient, gradient_, size)
    close(gradient.sum(axis=1), 0, size)


@EXAMPLES
@given(batches())
def test_with_a_z_loss_gradient_rows_sum_to_what_a_shift_costs(batch):
    rng, z = batch
    soft = ClassRows(rng.dirichlet(np.ones(z.shape[1]), len(z)) * 1.7)
    _, gradient = CrossEntropy(z_loss=0.1, temperature=2).value_and_gradient(z, soft, reduction="none")
    u = z / 2
    lse = np.log(np.exp(u - u.max(axis=1, keepdims=True)).sum(axis=1)) + u.max(axis=1)
    close(gradient.sum(axis=1), 1.7 * 2 * 0.1 * lse / 2, 50)


@pytest.mark.parametrize("name", FAMILIES)
@EXAMPLES
@given(batches())
def test_renaming_the_classes_renames_the_gradient(name, batch):
    rng, z = batch
    c = z.shape[1]
    loss = FAMILIES[name][0](c)
    targets = targets_of(rng, loss, z.shape)
    order = rng.permutation(c)
    vectors = {
        field.name: np.array(getattr(loss, field.name))[order]
        for field in dataclasses.fields(loss)
        if isinstance(getattr(loss, field.name), tuple)
    }
    renamed = dataclasses.replace(loss, **vectors)
    if isinstance(targets, ClassIndices):
        moved = ClassIndices(np.argsort(order)[targets.indices])
    else:
        moved = type(targets)(np.ascontiguousarray(targets.rows[:, order]))
    value, gradient = loss.value_and_gradient(z, targets, reduction="none")
    value_, gradient_ = renamed.value_and_gradient(np.ascontiguousarray(z[:, order]), moved, reduction="none")
    size = 25 * (1 + np.abs(z).max()) * c
    close(value, value_, size)
    close(gradient[:, order], gradient_, size)


@pytest.mark.parametrize("name", FAMILIES)
@EXAMPLES
@given(batches())
def test_weights_are_repetitions_and_reductions_agree(name, batch):
    rng, z = batch
    n, c = z.shape
    loss = FAMILIES[name][0](c)
    targets = targets_of(rng, loss, z.shape)
    times = rng.integers(0, 4, n)
    times[0] = 1
    parts, gradient = loss.value_and_gradient(z, targets, reduction="none")
    size = np.abs(parts).sum() + n
    rows = np.repeat(np.arange(n), times)
    close(loss(z, targets, sample_weight=times, reduction="sum"), loss(z[rows], targets[rows], reduction="sum"), size)
    close(loss.per_example(z, targets, sample_weight=times), times * parts, size)
    total, pull = loss.value_and_gradient(z, targets, reduction="sum")
    close(total, parts.sum(), size)
    close(pull, gradient)
    mean, pull = loss.value_and_gradient(z, targets, denominator="examples")
    close(mean, parts.mean(), size)
    close(pull, gradient / n)


@EXAMPLES
@given(batches())
def test_special_cases(batch):
    rng, z = batch
    n, c = z.shape
    several = tuple(rng.uniform(0.2, 3, c))
    y, labels = rng.integers(0, c, n), rng.integers(0, 2, z.shape)
    plain, weighted, binary = CrossEntropy(), CrossEntropy(class_weight=several), BinaryCrossEntropy()
    for special, general, targets in (
        (Focal(gamma=0), plain, y),
        (Focal(gamma=0, class_weight=several), weighted, y),
        (Poly(epsilon=0), plain, y),
        (Ldam(max_margin=0, temperature=1), plain, y),
        (BalancedSoftmax(class_counts=np.ones(c)), plain, y),
        (CrossEntropy(label_smoothing=0.0, temperature=1.0, z_loss=0.0), plain, y),
        (SigmoidFocal(gamma=0), binary, labels),
        (Asymmetric(gamma_positive=0, gamma_negative=0, clip=0), binary, labels),
        (BinaryCrossEntropy(positive_weight=np.ones(c)), binary, labels),
    ):
        value, gradient = special.value_and_gradient(z, targets)
        value_, gradient_ = general.value_and_gradient(z, targets)
        close(value, value_)
        close(gradient, gradient_)
    close(CrossEntropy(softcap=5.0)(z, y), plain(5 * np.tanh(z / 5), y))
    # smoothing mixes in the mean over classes; a small q is nearly the logarithm
    everywhere = np.mean([plain(z, np.full(n, k)) for k in range(c)])
    close(CrossEntropy(label_smoothing=0.3)(z, y), 0.7 * plain(z, y) + 0.3 * everywhere)
    near = GeneralisedCrossEntropy(q=1e-6)(z, y)
    assert near == pytest.approx(plain(z, y), rel=1e-3)
    # a one-hot Brier score lies between 0 and 2, and from log-probabilities it is the squared distance
    score = Brier().per_example(z, y)
    assert (score >= 0).all()
    assert (score <= 2).all()
    close(score, ((plain.probabilities(z) - np.eye(c)[y]) ** 2).sum(axis=1))


@EXAMPLES
@given(batches())
def test_temperature_flattens(batch):
    """The hotter, the smaller the largest probability and the larger the entropy; and z/T is what is meant."""
    rng, z = batch
    z = z + rng.normal(size=z.shape) * 1e-3  # no ties
    entropies, tops = [], []
    for temperature in (0.25, 0.5, 1.0, 2.0, 8.0):
        loss = CrossEntropy(temperature=temperature)
        p = loss.probabilities(z)
        close(p, CrossEntropy().probabilities(z / temperature))
        tops.append(p.max(axis=1))
        entropies.append(-(p * loss.log_probabilities(z)).sum(axis=1))
    assert (np.diff(tops, axis=0) <= 1e-12).all()
    assert (np.diff(entropies, axis=0) >= -1e-12).all()
