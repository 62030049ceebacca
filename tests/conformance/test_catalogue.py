"""The reference against 50-digit arithmetic, loss by loss, and every other backend against the reference.

With u the unit roundoff of the logits' dtype, S the row's effective mass and Z its largest scaled logit, the bound is
that of `test_exact`, 16·u·(S + |loss|) and 16·u·S for a component of the gradient, times the largest slope a loss
may have (`steepness`), with 4·u·S·Z added where logits are scaled, shifted or capped before the softmax.
"""

from __future__ import annotations

import importlib.util
import pathlib

import numpy as np
import pytest

import kullback.kernels as kernels
from kullback import ClassMixture, ClassRows

_spec = importlib.util.spec_from_file_location("catalogue", pathlib.Path(__file__).with_name("catalogue.py"))
catalogue = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(catalogue)
exact = catalogue.exact


def hard_logits(rng, dtype, n_classes):
    big = 1e4 if dtype == np.float64 else 80.0
    rows = [
        rng.normal(size=n_classes),
        rng.normal(size=n_classes) * big,
        np.full(n_classes, -big),
        1.0 + rng.normal(size=n_classes) * np.finfo(dtype).eps,
        np.where(np.arange(n_classes) == n_classes - 1, 30.0, 0.0),
        np.where(np.arange(n_classes) == 0, big, -big),
        rng.normal(size=n_classes) * np.finfo(dtype).tiny,
        rng.normal(size=n_classes) * 20,
    ]
    return np.array(rows).astype(dtype)


def steepness(loss):
    """How much larger than cross-entropy's the slopes and values of a loss may be, and what its scores lose."""
    steep = 1 + abs(getattr(loss, "epsilon", 0)) + max(getattr(loss, "gamma", 0), getattr(loss, "gamma_negative", 0))
    return steep * (2 if loss.name in ("brier", "one_vs_rest", "sigmoid_brier", "asymmetric") else 1)


def bound(loss, logits, total, value):
    u = np.finfo(logits.dtype).eps / 2
    reach = np.abs(np.float64(logits)).max(initial=0.0) / loss.temperature
    if getattr(loss, "softcap", None):
        reach = min(reach, loss.softcap / loss.temperature)
    plain = loss.temperature == 1 and getattr(loss, "priors", None) is None and getattr(loss, "softcap", None) is None
    plain = plain and loss.name not in ("balanced_softmax", "ldam")
    rounded = 0.0 if plain else 4 * (1 + reach)
    level = getattr(loss, "z_loss", 0.0)
    return u * steepness(loss) * (16 * (total + np.abs(value)) + total * rounded * (1 + 8 * level * (1 + reach)))


def weight_of_labels(loss, n_labels):
    weight = np.ones(n_labels) if loss.class_weight is None else np.array(loss.class_weight)
    positive = np.ones(n_labels) if loss.positive_weight is None else np.array(loss.positive_weight)
    return (weight * np.maximum(positive, 1)).sum()


def check(loss, exact_row, logits, targets, masses, rng):
    """Value, gradient, product and diagonal of every row within the bound."""
    direction = rng.normal(size=logits.shape).astype(logits.dtype)
    values, gradient = loss.value_and_gradient(logits, targets, reduction="none")
    product = loss.hessian_product(logits, targets, direction, reduction="none")
    diagonal = loss.hessian_diagonal(logits, targets, reduction="none")
    for i, row in enumerate(logits):
        s = catalogue.effective(loss, masses[i]) if loss.target_form == "classes" else masses[i]
        value_, gradient_, product_, diagonal_ = exact.derivatives(exact_row(loss, s), row, direction[i])
        total = s.sum() if loss.target_form == "classes" else weight_of_labels(loss, len(row))
        assert abs(values[i] - float(value_)) <= bound(loss, row, total, float(value_)), (i, row)
        scale = bound(loss, row, total, 0.0) / loss.temperature
        scale *= 1 + 2 * getattr(loss, "z_loss", 0) * (1 + np.abs(np.float64(row)).max() / loss.temperature)
        scale += 1e-300
        assert np.abs(gradient[i] - exact.floats(gradient_)).max() <= scale, (i, row)
        scale *= (1 + steepness(loss)) / loss.temperature
        assert np.abs(diagonal[i] - exact.floats(diagonal_)).max() <= scale, (i, row)
        assert np.abs(product[i] - exact.floats(product_)).max() <= 4 * scale * np.abs(direction[i]).max(), (i, row)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [1, 2, 3, 10])
@pytest.mark.parametrize("name", catalogue.SOFTMAX)
def test_softmax_losses_are_exact(rng, name, n_classes, dtype):
    make, exact_row = catalogue.SOFTMAX[name]
    loss = make(n_classes)
    logits = hard_logits(rng, dtype, n_classes)[:: 3 if n_classes == 10 else 1]
    n = len(logits)
    index = rng.integers(0, n_classes, n)
    soft = rng.dirichlet(np.ones(n_classes), n)
    soft[-1] *= 3
    forms = [(index, np.eye(n_classes)[index])]
    if n_classes == 3:
        forms.append((ClassRows(soft), soft))
        share = rng.uniform(size=n)
        mixed = np.zeros((n, n_classes))
        np.add.at(mixed, (np.arange(n), index), share)
        np.add.at(mixed, (np.arange(n), index[::-1]), 1 - share)
        forms.append((ClassMixture(index, index[::-1].copy(), share), mixed))
    with kernels.using("reference"):
        for targets, masses in forms:
            check(loss, exact_row, logits, targets, masses, rng)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [1, 5])
@pytest.mark.parametrize("name", catalogue.SIGMOID)
def test_sigmoid_losses_are_exact(rng, name, n_classes, dtype):
    make, exact_row = catalogue.SIGMOID[name]
    loss = make(n_classes)
    logits = hard_logits(rng, dtype, n_classes)
    labels = rng.uniform(size=logits.shape)
    labels[::2] = rng.integers(0, 2, labels[::2].shape)
    with kernels.using("reference"):
        check(loss, exact_row, logits, labels, labels, rng)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [1, 2, 6])
@pytest.mark.parametrize("name", catalogue.MARGIN)
def test_hinges_are_exact(rng, name, n_classes, dtype):
    """Logits are subtracted before anything else, so the bound is u times the largest of them, times the slope."""
    make, exact_row = catalogue.MARGIN[name]
    loss = make(n_classes)
    logits = (rng.normal(size=(12, n_classes)) * np.array([1, 3, 20, 80] * 3)[:, None]).astype(dtype)
    direction = rng.normal(size=logits.shape).astype(dtype)
    index = rng.integers(0, n_classes, 12)
    soft = rng.dirichlet(np.ones(n_classes), 12)
    for targets, masses in ((index, np.eye(n_classes)[index]), (ClassRows(soft), soft)):
        with kernels.using("reference"):
            values, gradient = loss.value_and_gradient(logits, targets, reduction="none")
            product = loss.hessian_product(logits, targets, direction, reduction="none")
            diagonal = loss.hessian_diagonal(logits, targets, reduction="none")
        for i, row in enumerate(logits):
            s = catalogue.effective(loss, masses[i])
            value_, gradient_, product_, diagonal_ = exact.derivatives(exact_row(loss, s), row, direction[i])
            reach = (1 + np.abs(np.float64(row)).max()) * n_classes * (1 + s.sum())
            u = 16 * np.finfo(dtype).eps
            slope = reach if loss.squared else 1
            np.testing.assert_allclose(values[i], float(value_), atol=u * reach * slope)
            np.testing.assert_allclose(gradient[i], exact.floats(gradient_), atol=u * reach * 2)
            np.testing.assert_allclose(diagonal[i], exact.floats(diagonal_), atol=u * reach)
            np.testing.assert_allclose(product[i], exact.floats(product_), atol=u * reach * 4)
