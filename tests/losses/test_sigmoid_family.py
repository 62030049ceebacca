"""What each loss of the sigmoid family says about itself, checked numerically."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import kullback.kernels as kernels
from kullback import BinaryCrossEntropy
from kullback.errors import InputError
from kullback.losses import Asymmetric, SigmoidBrier, SigmoidFocal, parse_loss

PI = (1.0, 2.0, 5.0, 0.5)
ALL = [
    SigmoidBrier(),
    SigmoidBrier(positive_weight=PI, class_weight=[1, 2, 3, 4], label_smoothing=0.1, label_reduction="sum"),
    SigmoidFocal(),
    SigmoidFocal(gamma=0),
    SigmoidFocal(gamma=5, alpha=0.25, positive_weight=PI, temperature=2),
    SigmoidFocal(gamma=0.5, label_smoothing=0.1, label_reduction="sum"),
    Asymmetric(),
    Asymmetric(gamma_positive=1, clip=0),
    Asymmetric(gamma_positive=1, gamma_negative=2, clip=0.2, positive_weight=PI),
    Asymmetric(gamma_positive=0, gamma_negative=0, clip=0),
]


@pytest.fixture(autouse=True)
def _reference():
    with kernels.using("reference"):
        yield


@pytest.mark.parametrize("loss", ALL, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_elicited_is_the_minimiser_and_recover_its_inverse(loss, seed):
    p = np.random.default_rng(seed).uniform(0.05, 0.9, 4)
    grid = np.linspace(-12, 12, 2001) * loss.temperature
    best = np.empty(4)
    for k in range(4):

        def cost(z, k=k):
            logits = np.zeros((1, 4))
            logits[0, k] = z
            return loss(logits, p[None, :], reduction="sum")

        rough = np.full((len(grid), 4), 0.0)
        rough[:, k] = grid
        start = grid[np.argmin(loss(rough, np.tile(p, (len(grid), 1)), reduction="none"))]
        near = 0.03 * loss.temperature
        found = minimize_scalar(cost, bounds=(start - near, start + near), method="bounded", options={"xatol": 1e-9})
        best[k] = found.x
    q = loss.probabilities(best[None, :])[0]
    np.testing.assert_allclose(q, loss.elicited(p), atol=1e-5)
    assert loss.proper == np.allclose(q, p, atol=1e-4)
    np.testing.assert_allclose(loss.recover(loss.elicited(p)), p, rtol=1e-9)
    np.testing.assert_allclose(loss.recover_log(np.log(loss.elicited([p]))), np.log([p]), rtol=1e-9)
    lowest = loss(best[None, :], p[None, :], reduction="sum")
    assert loss.floor(p[None, :], reduction="sum") == pytest.approx(lowest, abs=1e-9)
    constant = loss.best_constant(p[None, :])
    assert loss(constant[None, :], p[None, :], reduction="sum") == pytest.approx(lowest, abs=1e-9)


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_claims(loss, rng):
    half = np.array([[0, 1, 0, 1], [1, 0, 1, 0]])
    assert loss.initial_value(4) == pytest.approx(loss(np.zeros((2, 4)), half))
    z = rng.normal(size=(400, 4)) * np.logspace(-1, 4, 400)[:, None]
    labels = rng.integers(0, 2, z.shape)
    values, gradient = loss.value_and_gradient(z, labels, reduction="none")
    assert (values >= 0).all()
    assert (values <= loss.ceiling).all()
    limited = loss.name == "sigmoid_brier"
    assert values.max() > (0.5 * loss.ceiling if limited and loss.ceiling < math.inf else 1)
    assert loss.bounded_gradient
    assert np.abs(gradient).max() < 100
    least = loss.hessian_diagonal(rng.normal(size=z.shape) * 4, labels, reduction="none").min()
    assert loss.convex == (least > -1e-12)


def test_a_certain_label_is_certain(rng):
    for loss in ALL:
        q = loss.elicited([0.0, 1.0])[:2] if loss.positive_weight is None else loss.elicited([0, 1, 0, 1])[:2]
        if loss.label_smoothing == 0:
            assert q.tolist() == [0, 1]


def test_special_cases_are_their_neighbours(rng):
    z, t = rng.normal(size=(20, 4)) * 3, rng.integers(0, 2, (20, 4))
    plain = Asymmetric(gamma_positive=0, gamma_negative=0, clip=0)
    for same, other in (
        (SigmoidFocal(gamma=0), BinaryCrossEntropy()),
        (plain, BinaryCrossEntropy()),
        (Asymmetric(gamma_positive=2, gamma_negative=2, clip=0), SigmoidFocal(gamma=2)),
    ):
        value, gradient = same.value_and_gradient(z, t)
        value_, gradient_ = other.value_and_gradient(z, t)
        assert value == pytest.approx(value_, rel=1e-13)
        np.testing.assert_allclose(gradient, gradient_, atol=1e-15)
    p = SigmoidBrier().probabilities(z)
    assert SigmoidBrier()(z, t) == pytest.approx(np.mean((p - t) ** 2))
    balanced = SigmoidFocal(alpha=0.25, label_reduction="sum").per_example(z, t)
    by_hand = np.where(t == 1, -0.25 * (1 - p) ** 2 * np.log(p), -0.75 * p**2 * np.log(1 - p)).sum(axis=1)
    np.testing.assert_allclose(balanced, by_hand, rtol=1e-10)


def test_ignored_labels_are_left_out(rng):
    z, t = rng.normal(size=(3, 4)), rng.integers(0, 2, (3, 4)).astype(float)
    t[0, 1] = -1
    z[0, 1] = np.nan
    for name in ("sigmoid_focal", "asymmetric", "sigmoid_brier"):
        value, gradient = parse_loss(f"{name}(ignore_index=-1)").value_and_gradient(z, t)
        assert np.isfinite(value)
        assert gradient[0, 1] == 0


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_spelling_round_trip(loss):
    assert parse_loss(str(loss)) == loss


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sigmoid_focal(alpha=1)", r"lies in \(0, 1\)"),
        ("sigmoid_focal(gamma=-1)", "between 0 and 100"),
        ("asymmetric(clip=1)", r"\[0, 1\)"),
        ("asymmetric(gamma_negative=-1)", "between 0 and 100"),
    ],
)
def test_bad_settings_are_explained(text, message):
    with pytest.raises(InputError, match=message):
        parse_loss(text)
