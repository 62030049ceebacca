"""Keras' and optax' losses, where they compute the same thing, and the settings under which they do.

Both run on JAX, in float64: Keras takes one backend a process, and optax has no other.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from kullback import BinaryCrossEntropy, ClassRows, CrossEntropy
from kullback.losses import (
    Brier,
    CrammerSinger,
    CrossEntropyFromProbabilities,
    Focal,
    KullbackLeibler,
    Poly,
    SigmoidFocal,
)


@pytest.fixture
def jax():
    module = pytest.importorskip("jax")
    module.config.update("jax_enable_x64", True)
    return module


@pytest.fixture
def optax(jax):
    return pytest.importorskip("optax")


@pytest.fixture
def keras(jax):
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "jax":
        pytest.skip(f"Keras runs on {keras.backend.backend()} here; set KERAS_BACKEND=jax")
    keras.config.set_floatx("float64")
    return keras


@pytest.fixture
def data():
    rng = np.random.default_rng(11)
    z = rng.normal(size=(50, 5)) * 3
    labels = (rng.uniform(size=(50, 5)) < 0.3).astype(float)
    return z, rng.integers(0, 5, 50), rng.dirichlet(np.ones(5), 50), labels


def same(jax, ours, theirs, z, tol=1e-12):
    """Ours is (value, gradient); theirs a function of the logits, whose gradient JAX takes."""
    value, gradient = jax.value_and_grad(lambda x: theirs(x))(jax.numpy.asarray(z))
    assert ours[0] == pytest.approx(float(value), rel=tol, abs=tol)
    np.testing.assert_allclose(ours[1], np.asarray(gradient), rtol=tol, atol=tol)


def test_optax_softmax_cross_entropy(jax, optax, data):
    z, y, soft, _ = data
    loss = optax.softmax_cross_entropy_with_integer_labels
    same(jax, CrossEntropy().value_and_gradient(z, y), lambda x: loss(x, y).mean(), z)
    ours = CrossEntropy().value_and_gradient(z, ClassRows(soft))
    same(jax, ours, lambda x: optax.softmax_cross_entropy(x, soft).mean(), z)
    masked = np.where(np.arange(5) == 2, -np.inf, z)
    rest = np.where(np.arange(5) == 2, 0, soft)
    ours = CrossEntropy().value_and_gradient(masked, ClassRows(rest))
    same(jax, ours, lambda x: optax.safe_softmax_cross_entropy(x, rest).mean(), masked)


def test_optax_smoothing_and_poly(jax, optax, data):
    z, y, _, _ = data
    smoothed = optax.smooth_labels(np.eye(5)[y], 0.1)
    ours = CrossEntropy(label_smoothing=0.1).value_and_gradient(z, y)
    same(jax, ours, lambda x: optax.softmax_cross_entropy(x, smoothed).mean(), z)
    ours = Poly(epsilon=2).value_and_gradient(z, y)
    same(jax, ours, lambda x: optax.losses.poly_loss_cross_entropy(x, np.eye(5)[y], epsilon=2.0).mean(), z)


def test_optax_binary(jax, optax, data):
    z, _, _, labels = data
    ours = BinaryCrossEntropy().value_and_gradient(z, labels)
    same(jax, ours, lambda x: optax.sigmoid_binary_cross_entropy(x, labels).mean(), z)
    ours = SigmoidFocal(gamma=2, alpha=0.25).value_and_gradient(z, labels)
    same(jax, ours, lambda x: optax.sigmoid_focal_loss(x, labels, alpha=0.25, gamma=2.0).mean(), z, 1e-11)


def test_optax_divergence_and_hinge(jax, optax, data):
    z, y, soft, _ = data
    ours = KullbackLeibler().value_and_gradient(z, ClassRows(soft))
    same(jax, ours, lambda x: optax.kl_divergence(jax.nn.log_softmax(x), soft).mean(), z)
    # optax' multiclass hinge takes the strongest rival
    ours = CrammerSinger().value_and_gradient(z, y)
    same(jax, ours, lambda x: optax.losses.multiclass_hinge_loss(x, jax.numpy.asarray(y)).mean(), z)


def test_keras_categorical_and_sparse(jax, keras, data):
    z, y, soft, _ = data
    sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    same(jax, CrossEntropy().value_and_gradient(z, y), lambda x: sparse(y, x), z)
    categorical = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    same(
        jax, CrossEntropy(label_smoothing=0.2).value_and_gradient(z, ClassRows(soft)), lambda x: categorical(soft, x), z
    )
    ignoring = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=-100, reduction="mean_with_sample_weight"
    )
    some = np.where(np.arange(50) % 3, y, -100)
    assert CrossEntropy()(z, some) == pytest.approx(float(ignoring(some, z)), rel=1e-12)


def test_keras_from_probabilities(jax, keras, data):
    z, y, _, _ = data
    p = CrossEntropy().probabilities(z) * 1.7  # Keras makes rows sum to 1, and so do we
    categorical = keras.losses.CategoricalCrossentropy()
    ours = CrossEntropyFromProbabilities().value_and_gradient(p, y)
    same(jax, ours, lambda x: categorical(np.eye(5)[y], x), p, 1e-9)


def test_keras_binary(jax, keras, data):
    z, _, _, labels = data
    binary = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1)
    ours = BinaryCrossEntropy(label_smoothing=0.1).value_and_gradient(z, labels)
    same(jax, ours, lambda x: binary(labels, x), z, 1e-6)  # in float32 there


def test_keras_focal_of_both_kinds(jax, keras, data):
    z, y, _, labels = data
    categorical = keras.losses.CategoricalFocalCrossentropy(from_logits=True, alpha=0.25, gamma=2.0)
    value, gradient = Focal(gamma=2).value_and_gradient(z, y)
    # α is a plain factor there; p is clipped at 1e-7 under logarithm and power
    theirs, pull = jax.value_and_grad(lambda x: categorical(np.eye(5)[y], x))(jax.numpy.asarray(z))
    assert 0.25 * value == pytest.approx(float(theirs), rel=1e-5)
    np.testing.assert_allclose(0.25 * gradient, np.asarray(pull), atol=1e-6)
    binary = keras.losses.BinaryFocalCrossentropy(from_logits=True, apply_class_balancing=True, alpha=0.25, gamma=2.0)
    value, gradient = SigmoidFocal(gamma=2, alpha=0.25).value_and_gradient(z, labels)
    theirs, pull = jax.value_and_grad(lambda x: binary(labels, x))(jax.numpy.asarray(z))
    assert value == pytest.approx(float(theirs), rel=1e-5)
    np.testing.assert_allclose(gradient, np.asarray(pull), atol=1e-6)


def test_keras_squared_error_is_brier_over_c(keras, data):
    z, y, _, _ = data
    p = CrossEntropy().probabilities(z)
    assert Brier()(z, y) / 5 == pytest.approx(float(keras.losses.MeanSquaredError()(np.eye(5)[y], p)), rel=1e-6)
