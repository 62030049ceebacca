"""Other libraries' losses, where they compute the same thing, and the settings under which they do."""

from __future__ import annotations

import numpy as np
import pytest

from kullback import BinaryCrossEntropy, ClassRows, CrossEntropy
from kullback.losses import (
    CrammerSinger,
    CrossEntropyFromProbabilities,
    Deviance,
    KullbackLeibler,
    NegativeLogLikelihood,
    OneVsRest,
    SigmoidFocal,
    WestonWatkins,
)


@pytest.fixture
def data():
    rng = np.random.default_rng(11)
    z = rng.normal(size=(50, 5)) * 3
    return z, rng.integers(0, 5, 50), rng.dirichlet(np.ones(5), 50), rng.uniform(0.2, 2, 5)


def torch_pair(z, function):
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(z, requires_grad=True)
    value = function(torch, tensor)
    value.backward()
    return value.item(), tensor.grad.numpy()


def same(ours, theirs, tol=1e-12):
    assert ours[0] == pytest.approx(theirs[0], rel=tol, abs=tol)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=tol, atol=tol)


def test_torch_cross_entropy(data):
    z, y, soft, w = data
    y[3] = -100
    same(
        CrossEntropy(class_weight=w, label_smoothing=0.1).value_and_gradient(z, y),
        torch_pair(
            z,
            lambda t, x: t.nn.functional.cross_entropy(
                x, t.tensor(y), weight=t.tensor(w), label_smoothing=0.1, ignore_index=-100
            ),
        ),
    )
    # with rows of probabilities PyTorch divides by N, whatever the weights
    same(
        CrossEntropy(class_weight=w).value_and_gradient(z, ClassRows(soft), denominator="examples"),
        torch_pair(z, lambda t, x: t.nn.functional.cross_entropy(x, t.tensor(soft), weight=t.tensor(w))),
    )


def test_torch_nll_and_divergence(data):
    z, y, soft, w = data
    log_p = CrossEntropy().log_probabilities(z)
    same(
        NegativeLogLikelihood(class_weight=w).value_and_gradient(log_p, y),
        torch_pair(log_p, lambda t, x: t.nn.functional.nll_loss(x, t.tensor(y), weight=t.tensor(w))),
    )
    same(
        KullbackLeibler().value_and_gradient(z, ClassRows(soft)),
        torch_pair(z, lambda t, x: t.nn.functional.kl_div(t.log_softmax(x, 1), t.tensor(soft), reduction="batchmean")),
    )


def test_torch_binary(data):
    z, _, _, w = data
    labels = (z > 1).astype(float)
    same(
        BinaryCrossEntropy(positive_weight=w).value_and_gradient(z, labels),
        torch_pair(
            z,
            lambda t, x: t.nn.functional.binary_cross_entropy_with_logits(x, t.tensor(labels), pos_weight=t.tensor(w)),
        ),
    )


def test_sigmoid_focal_as_in_torchvision(data):
    z, _, _, _ = data
    labels = (z > 1).astype(float)

    def published(t, x):  # α_t·(1 − p_t)^γ·BCE, mean over all entries
        targets = t.tensor(labels)
        p = t.sigmoid(x)
        ce = t.nn.functional.binary_cross_entropy_with_logits(x, targets, reduction="none")
        p_t = p * targets + (1 - p) * (1 - targets)
        return ((0.25 * targets + 0.75 * (1 - targets)) * ce * (1 - p_t) ** 2).mean()

    same(SigmoidFocal(alpha=0.25).value_and_gradient(z, labels), torch_pair(z, published), 1e-11)


@pytest.mark.parametrize("power", [1, 2])
def test_torch_multi_margin(data, power):
    z, y, _, w = data
    loss = WestonWatkins(margin=0.7, squared=power == 2, class_weight=w)
    value, gradient = loss.value_and_gradient(z, y, denominator="examples")
    same(
        (value / 5, gradient / 5),
        torch_pair(
            z,
            lambda t, x: t.nn.functional.multi_margin_loss(x, t.tensor(y), p=power, margin=0.7, weight=t.tensor(w)),
        ),
    )


def test_scikit_learn(data):
    from sklearn._loss.loss import HalfMultinomialLoss
    from sklearn.metrics import hinge_loss, log_loss

    z, y, _, _ = data
    p = CrossEntropy().probabilities(z)
    weight = np.random.default_rng(0).uniform(size=50)
    assert CrossEntropy()(z, y, sample_weight=weight) == pytest.approx(log_loss(y, p, sample_weight=weight), rel=1e-12)
    assert CrossEntropyFromProbabilities()(p, y) == pytest.approx(log_loss(y, p), rel=1e-9)
    assert CrammerSinger()(z, y) == pytest.approx(hinge_loss(y, z, labels=np.arange(5)), rel=1e-12)
    half = HalfMultinomialLoss(n_classes=5)
    theirs, pull = half.loss_gradient(y.astype(float), z)
    ours, gradient = Deviance().value_and_gradient(z, y, reduction="none")
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    np.testing.assert_allclose(gradient, pull, atol=1e-14)


def test_scipy(data):
    from scipy.special import log_softmax, logsumexp, softmax

    z, y, _, _ = data
    np.testing.assert_allclose(CrossEntropy().probabilities(z), softmax(z, axis=1), rtol=1e-13)
    np.testing.assert_allclose(CrossEntropy().log_probabilities(z), log_softmax(z, axis=1), rtol=1e-13)
    losses = CrossEntropy(z_loss=0.1).per_example(z, y)
    lse = logsumexp(z, axis=1)
    np.testing.assert_allclose(losses, lse - z[np.arange(50), y] + 0.1 * lse**2, rtol=1e-11)


def test_one_vs_rest_is_binary_cross_entropy_of_softmax_outputs(data):
    z, y, _, _ = data
    same(
        OneVsRest().value_and_gradient(z, y),
        torch_pair(
            z,
            lambda t, x: (
                t.nn.functional.binary_cross_entropy(
                    t.softmax(x, 1), t.nn.functional.one_hot(t.tensor(y), 5).double(), reduction="sum"
                )
                / 50
            ),
        ),
        1e-9,
    )
