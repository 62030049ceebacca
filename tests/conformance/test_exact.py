"""Every backend against 50-digit arithmetic, on inputs chosen to hurt.

The bound held here is the one the documentation states: with u the unit roundoff of the logits' dtype, S the row's
total effective mass and Z its largest logit after division by the temperature,

    |loss − exact|     ≤ 16·u·(S + |exact|) (+ 4·u·S·Z where the temperature is not 1: the division itself rounds)
    |gradient − exact| ≤ 16·u·S, element by element (the same term added)
"""

from __future__ import annotations

import importlib.util
import math
import pathlib

import numpy as np
import pytest

from kullback import BinaryCrossEntropy, ClassMixture, ClassRows, CrossEntropy

_spec = importlib.util.spec_from_file_location("exact", pathlib.Path(__file__).with_name("exact.py"))
exact = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(exact)


def hard_logits(rng, dtype, n_classes):
    """Ordinary, huge, nearly tied, saturated, tiny and masked rows."""
    big = 1e4 if dtype == np.float64 else 80.0
    rows = [
        rng.normal(size=n_classes),
        rng.normal(size=n_classes) * big,
        np.full(n_classes, big),
        np.full(n_classes, -big),
        1.0 + rng.normal(size=n_classes) * np.finfo(dtype).eps,
        np.where(np.arange(n_classes) == 0, big, -big),
        np.where(np.arange(n_classes) == n_classes - 1, 30.0, 0.0),
        rng.normal(size=n_classes) * np.finfo(dtype).tiny,
        np.full(n_classes, np.finfo(dtype).smallest_subnormal),
        np.linspace(-big, big, n_classes),
        rng.normal(size=n_classes) * 5,
        rng.normal(size=n_classes) * 20,
    ]
    return np.array(rows).astype(dtype)


def bound(dtype, total, values, logits, temperature):
    u = np.finfo(dtype).eps / 2
    rounded = 0.0 if temperature == 1 else 4 * np.abs(np.float64(logits) / temperature).max(initial=0.0)
    return 16 * u * (total + np.abs(values)) + u * total * rounded


SETTINGS = [
    {},
    {"label_smoothing": 0.1},
    {"temperature": 2.5},
    {"weighted": True},
    {"weighted": True, "label_smoothing": 0.3, "temperature": 0.7},
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [1, 2, 3, 10, 64, 65, 200])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_cross_entropy_on_indices(backend, rng, dtype, n_classes, setting):
    setting = dict(setting)
    weight = rng.uniform(0.1, 3, n_classes) if setting.pop("weighted", False) else None
    loss = CrossEntropy(class_weight=weight, **setting)
    logits = hard_logits(rng, dtype, n_classes)
    targets = rng.integers(0, n_classes, len(logits))
    check_softmax(loss, logits, targets, np.eye(n_classes)[targets], rng)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [1, 2, 3, 10, 64, 65, 200])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_cross_entropy_on_soft_rows(backend, rng, dtype, n_classes, setting):
    setting = dict(setting)
    weight = rng.uniform(0.1, 3, n_classes) if setting.pop("weighted", False) else None
    loss = CrossEntropy(class_weight=weight, **setting)
    logits = hard_logits(rng, dtype, n_classes)
    rows = rng.dirichlet(np.ones(n_classes), len(logits)).astype(dtype)
    rows[3] = 0  # no mass at all
    rows[4] *= 7  # mass need not sum to one
    check_softmax(loss, logits, ClassRows(rows), rows, rng)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [2, 5, 70])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_cross_entropy_on_mixtures(backend, rng, dtype, n_classes, setting):
    setting = dict(setting)
    weight = rng.uniform(0.1, 3, n_classes) if setting.pop("weighted", False) else None
    loss = CrossEntropy(class_weight=weight, **setting)
    logits = hard_logits(rng, dtype, n_classes)
    n = len(logits)
    first, second, share = rng.integers(0, n_classes, n), rng.integers(0, n_classes, n), rng.uniform(0, 1, n)
    second[0], share[1], share[2] = first[0], 1.0, 0.0
    mass = np.zeros((n, n_classes))
    mass[np.arange(n), first] += share
    mass[np.arange(n), second] += 1 - share
    check_softmax(loss, logits, ClassMixture(first, second, share), mass, rng)


def check_softmax(loss, logits, targets, mass, rng):
    direction = rng.normal(size=logits.shape).astype(logits.dtype)
    values, gradient = loss.value_and_gradient(logits, targets, reduction="none")
    product = loss.hessian_product(logits, targets, direction, reduction="none")
    diagonal = loss.hessian_diagonal(logits, targets, reduction="none")
    settings = {
        "class_weight": loss.class_weight,
        "smoothing": loss.label_smoothing,
        "temperature": loss.temperature,
    }
    for i, row in enumerate(logits):
        truth = exact.cross_entropy(row, mass[i], direction=direction[i], **settings)
        check_row(loss, row, mass[i], (values[i], gradient[i], product[i], diagonal[i]), truth, direction[i])


def check_row(loss, logits, mass, ours, truth, direction):
    (value, gradient, product, diagonal), (value_, gradient_, product_, diagonal_) = ours, truth
    dtype, temperature = logits.dtype, loss.temperature
    weight = np.max(loss.class_weight or 1) * np.max(getattr(loss, "positive_weight", None) or 1)
    total = float(np.sum(mass) if loss.target_form == "classes" else len(mass)) * weight
    assert abs(value - float(value_)) <= bound(dtype, total, float(value_), logits, temperature)
    gradient_, product_, diagonal_ = (exact.floats(x) for x in (gradient_, product_, diagonal_))
    limit = bound(dtype, total / temperature, 0.0, logits, temperature)
    np.testing.assert_array_less(np.abs(gradient - gradient_), limit + 1e-300)
    limit = limit / temperature
    np.testing.assert_array_less(np.abs(diagonal - diagonal_), limit + 1e-300)
    np.testing.assert_array_less(np.abs(product - product_), 4 * limit * np.abs(direction).max() + 1e-300)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [1, 3, 64, 65])
@pytest.mark.parametrize(
    "setting", [{}, {"label_smoothing": 0.1}, {"weighted": True}, {"weighted": True, "temperature": 0.7}], ids=str
)
def test_binary_cross_entropy(backend, rng, dtype, n_classes, setting):
    setting = dict(setting)
    if setting.pop("weighted", False):
        setting["positive_weight"] = rng.uniform(0.5, 9, n_classes)
        setting["class_weight"] = rng.uniform(0, 2, n_classes)
    loss = BinaryCrossEntropy(label_reduction="sum", **setting)
    logits = hard_logits(rng, dtype, n_classes)
    labels = rng.uniform(0, 1, logits.shape).astype(dtype)
    labels[::2] = rng.integers(0, 2, labels[::2].shape)
    direction = rng.normal(size=logits.shape).astype(dtype)
    values, gradient = loss.value_and_gradient(logits, labels, reduction="none")
    product = loss.hessian_product(logits, labels, direction, reduction="none")
    diagonal = loss.hessian_diagonal(logits, labels, reduction="none")
    for i, row in enumerate(logits):
        truth = exact.binary_cross_entropy(
            row,
            labels[i],
            positive_weight=loss.positive_weight,
            class_weight=loss.class_weight,
            smoothing=loss.label_smoothing,
            temperature=loss.temperature,
            direction=direction[i],
        )
        check_row(loss, row, labels[i], (values[i], gradient[i], product[i], diagonal[i]), truth, direction[i])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_confident_row_keeps_its_small_loss(backend, dtype):
    """log1p keeps the relative precision of a loss far below the unit roundoff."""
    logits = np.array([[40.0, 0.0, 1.0], [18.0, 0.0, -3.0]], dtype=dtype)
    values = CrossEntropy().per_example(logits, [0, 0])
    truth = [float(exact.cross_entropy(row, [1, 0, 0])[0]) for row in logits]
    np.testing.assert_allclose(values, truth, rtol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [3, 70, 1000])
def test_log_probabilities_and_probabilities(backend, rng, dtype, n_classes):
    logits = hard_logits(rng, dtype, n_classes)
    log_p, p = CrossEntropy().log_probabilities(logits), CrossEntropy().probabilities(logits)
    u = np.finfo(dtype).eps / 2
    for i, row in enumerate(logits):
        p_, log_ = exact.softmax([exact.mp.mpf(float(v)) for v in row])
        log_ = exact.floats(log_)
        np.testing.assert_array_less(np.abs(log_p[i] - log_), 16 * u * (1 + np.abs(log_)))
        np.testing.assert_array_less(np.abs(p[i] - exact.floats(p_)), 16 * u)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [50_000])
def test_many_classes_in_float64_sums(backend, rng, dtype, n_classes):
    """A long sum must not drift: compared with math.fsum, exact to the last bit of float64."""
    logits = (rng.normal(size=(3, n_classes)) * 3).astype(dtype)
    values = CrossEntropy().per_example(logits, [0, 7, n_classes - 1])
    for i, y in enumerate([0, 7, n_classes - 1]):
        row = logits[i].astype(np.float64)
        truth = math.log(math.fsum(np.exp(row - row.max()))) + row.max() - row[y]
        assert abs(values[i] - truth) <= 8 * np.finfo(dtype).eps * (1 + truth)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [3, 70, 300])
def test_a_wide_softcap_keeps_the_digits_of_small_logits(backend, rng, dtype, n_classes):
    """cap·tanh(z / cap) for |z| far below the cap is z less a hair; 1 − exp would lose all that z has to say."""
    cap = 1e6
    loss = CrossEntropy(softcap=cap)
    logits = (rng.normal(size=(6, n_classes)) * np.logspace(-6, 2, 6)[:, None]).astype(dtype)
    logits[0, :2] = 0, -0.0
    targets = rng.integers(0, n_classes, 6)
    values, gradient = loss.value_and_gradient(logits, targets, reduction="none")
    u = np.finfo(dtype).eps / 2
    for i, row in enumerate(logits):
        z = [exact.mp.mpf(float(x)) for x in row]
        capped = [cap * exact.mp.tanh(x / cap) for x in z]
        p, log_p = exact.softmax(capped)
        slope = [1 - exact.mp.tanh(x / cap) ** 2 for x in z]
        true = exact.floats([f * (q - (k == targets[i])) for k, (f, q) in enumerate(zip(slope, p, strict=True))])
        limit = u * (16 + 4 * (1 + float(np.abs(row).max())))
        assert abs(values[i] + log_p[targets[i]]) <= limit * (1 + values[i])
        np.testing.assert_array_less(np.abs(gradient[i] - true), limit)
