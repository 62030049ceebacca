"""What a loss says about itself: checked numerically, not against its own formulas."""

from __future__ import annotations

import dataclasses
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from kullback import BinaryCrossEntropy, ClassMixture, ClassRows, CrossEntropy, LabelRows
from kullback.errors import InputError, ShapeError, SpellingError
from kullback.losses import CATALOGUE, parse_loss

SOFTMAX = [
    CrossEntropy(),
    CrossEntropy(label_smoothing=0.2),
    CrossEntropy(class_weight=[1, 2, 5, 0.5]),
    CrossEntropy(class_weight=[1, 2, 5, 0.5], label_smoothing=0.1, temperature=2.0),
]
SIGMOID = [
    BinaryCrossEntropy(),
    BinaryCrossEntropy(positive_weight=[1, 2, 5, 0.5]),
    BinaryCrossEntropy(class_weight=[1, 2, 3, 4], label_smoothing=0.1, temperature=0.5, label_reduction="sum"),
    BinaryCrossEntropy(positive_weight=[1, 2, 5, 0.5], label_smoothing=0.3),
]


def minimiser(loss, targets):
    """Logits (C,) that minimise the expected loss, by a general optimiser."""

    def objective(z):
        value, gradient = loss.value_and_gradient(z[None, :], targets, reduction="sum")
        return value, gradient[0]

    return minimize(objective, np.zeros(4), jac=True, method="BFGS", options={"gtol": 1e-9}).x


@pytest.mark.parametrize("loss", SOFTMAX, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_softmax_losses_elicit_what_they_say(loss, seed):
    p = np.random.default_rng(seed).dirichlet(np.ones(4))
    q = loss.probabilities([minimiser(loss, ClassRows(p[None, :]))])[0]
    np.testing.assert_allclose(q, loss.elicited(p), atol=1e-6)
    np.testing.assert_allclose(loss.recover(q), p, atol=1e-5)
    assert loss.proper == np.allclose(q, p, atol=1e-4)


@pytest.mark.parametrize("loss", SIGMOID, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_sigmoid_losses_elicit_what_they_say(loss, seed):
    p = np.random.default_rng(seed).uniform(0.05, 0.95, 4)
    q = loss.probabilities([minimiser(loss, LabelRows(p[None, :]))])[0]
    np.testing.assert_allclose(q, loss.elicited(p), atol=1e-6)
    np.testing.assert_allclose(loss.recover(q), p, atol=1e-5)
    assert loss.proper == np.allclose(q, p, atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from(SOFTMAX + SIGMOID))
def test_recover_inverts_elicited(seed, loss):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(4), 3) if loss.target_form == "classes" else rng.uniform(0.01, 0.99, (3, 4))
    p = np.maximum(p, 1e-4)
    p = p / p.sum(axis=1, keepdims=True) if loss.target_form == "classes" else p
    np.testing.assert_allclose(loss.recover(loss.elicited(p)), p, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(loss.recover_log(np.log(loss.elicited(p))), np.log(p), rtol=1e-6, atol=1e-6)


def test_recover_stays_a_distribution_outside_the_range_of_smoothing():
    loss = CrossEntropy(label_smoothing=0.3)
    p = loss.recover([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert (p > 0).all()
    assert p[0, 0] > 0.999999


def test_recover_without_smoothing_reaches_far_below_the_smallest_float():
    loss = CrossEntropy(class_weight=[1, 4])
    log_p = loss.recover_log(np.array([[0.0, -2000.0]]))
    assert log_p[0, 1] == pytest.approx(-2000 - math.log(4))


def test_a_class_of_weight_zero_gets_no_probability():
    loss = CrossEntropy(class_weight=[1, 0, 1])
    np.testing.assert_allclose(loss.recover([0.2, 0.5, 0.3]), [0.4, 0, 0.6])
    np.testing.assert_allclose(np.exp(loss.recover_log(np.log([[0.2, 0.5, 0.3]]))), [[0.4, 0, 0.6]])


@pytest.mark.parametrize("loss", SOFTMAX, ids=str)
def test_best_constant_beats_its_neighbours(loss, rng):
    targets = np.array([0, 0, 0, 1, 1, 2, 3, -100])
    weight = rng.uniform(0.5, 2, len(targets))
    best = loss.best_constant(targets, n_classes=4, sample_weight=weight)
    value, gradient = loss.value_and_gradient(np.tile(best, (8, 1)), targets, sample_weight=weight)
    np.testing.assert_allclose(gradient.sum(axis=0), 0, atol=1e-12)
    for _ in range(20):
        assert loss(np.tile(best + rng.normal(size=4) * 0.1, (8, 1)), targets, sample_weight=weight) >= value
    mixture = ClassMixture(targets[:7], targets[:7], 0.3)
    again = loss.best_constant(mixture, n_classes=4, sample_weight=weight[:7])
    np.testing.assert_allclose(again, best, atol=1e-12)


@pytest.mark.parametrize("loss", SIGMOID, ids=str)
def test_best_constant_of_labels(loss, rng):
    labels = np.array([[1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1]])
    best = loss.best_constant(labels, sample_weight=[1, 2, 3])
    _, gradient = loss.value_and_gradient(np.tile(best, (3, 1)), labels, sample_weight=[1, 2, 3])
    np.testing.assert_allclose(gradient.sum(axis=0), 0, atol=1e-12)


def test_best_constant_at_the_edges():
    assert CrossEntropy().best_constant([1, 1], n_classes=2).tolist() == [-math.inf, 0.0]
    assert BinaryCrossEntropy().best_constant([[1, 0]]).tolist() == [math.inf, -math.inf]
    for loss, targets in ((CrossEntropy(), [-100]), (BinaryCrossEntropy(), np.empty((0, 2)))):
        with pytest.raises(InputError, match="no row counts"):
            loss.best_constant(targets, n_classes=2)
    with pytest.raises(InputError, match="pass n_classes"):
        CrossEntropy().best_constant([0, 1])


@pytest.mark.parametrize("loss", [*SOFTMAX, *SIGMOID], ids=str)
def test_floor_is_reached_and_never_passed(loss, rng):
    rows = rng.dirichlet(np.ones(4), 5)
    rows[0] = [0, 1, 0, 0]
    floor = loss.floor(rows, reduction="none")
    wrap = ClassRows if loss.target_form == "classes" else LabelRows
    for i in range(5):
        value = loss(np.array([minimiser(loss, wrap(rows[i : i + 1]))]), wrap(rows[i : i + 1]), reduction="sum")
        assert value == pytest.approx(floor[i], abs=1e-6)
        for _ in range(10):
            assert loss(rng.normal(size=(1, 4)) * 3, wrap(rows[i : i + 1]), reduction="sum") >= floor[i] - 1e-12
    assert loss.floor(rows, sample_weight=np.arange(5), reduction="sum") == pytest.approx(floor @ np.arange(5))


def test_initial_value_is_the_loss_of_equal_logits(rng):
    balanced = np.arange(12) % 4
    for loss in SOFTMAX:
        assert loss.initial_value(4) == pytest.approx(loss(np.full((12, 4), 3.0), balanced))
    half = np.array([[0, 1, 0, 1], [1, 0, 1, 0]])
    for loss in SIGMOID:
        assert loss.initial_value(4) == pytest.approx(loss(np.zeros((2, 4)), half))
    assert CrossEntropy().initial_value(1000) == pytest.approx(math.log(1000))


@pytest.mark.parametrize("loss", [*SOFTMAX, *SIGMOID], ids=str)
def test_claims_about_shape(loss, rng):
    """Convex along random lines; gradients within a bound far out; the loss without one."""
    targets = rng.integers(0, 4, 6) if loss.target_form == "classes" else rng.integers(0, 2, (6, 4))
    a, b = rng.normal(size=(2, 6, 4)) * 20
    middle = loss(0.5 * (a + b), targets)
    assert middle <= 0.5 * (loss(a, targets) + loss(b, targets)) + 1e-12
    assert loss.convex
    far = 1e6 * rng.normal(size=(6, 4))
    value, gradient = loss.value_and_gradient(far, targets, reduction="sum")
    assert loss.bounded_gradient
    assert np.abs(gradient).max() < 100
    assert value > 1e4
    assert loss.ceiling == math.inf


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("loss", [*SOFTMAX, *SIGMOID], ids=str)
def test_spelling_round_trip(loss):
    again = parse_loss(str(loss))
    assert again == loss
    assert hash(again) == hash(loss)
    assert parse_loss(loss) is loss


def test_spelling_shows_only_what_was_set():
    assert str(CrossEntropy()) == "cross_entropy"
    assert str(CrossEntropy(class_weight=[1, 2])) == "cross_entropy(class_weight=[1.0, 2.0])"
    assert str(CrossEntropy(ignore_index=None)) == "cross_entropy(ignore_index=None)"
    assert parse_loss(" cross_entropy ( label_smoothing = 1e-1 ) ") == CrossEntropy(label_smoothing=0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cross_entorpy", "did you mean 'cross_entropy'"),
        ("", "unknown loss"),
        ("cross_entropy(label_smothing=0.1)", "did you mean 'label_smoothing'"),
        ("cross_entropy(0.1)", "settings are named"),
        ("cross_entropy(label_smoothing=1)", r"lies in \[0, 1\)"),
        ("cross_entropy(label_smoothing=", "cannot read"),
        ("cross_entropy(label_smoothing=0.1) or 1", "cannot read"),
        ("cross_entropy(temperature=0)", "above 0"),
        ("cross_entropy(temperature=True)", "not a number"),
        ("cross_entropy(temperature='hot')", "not a number"),
        ("cross_entropy(class_weight=[1, -1])", r"class_weight\[1\] = -1.0"),
        ("cross_entropy(class_weight=[0, 0])", "all zeros"),
        ("cross_entropy(class_weight=['a'])", "class_weight"),
        ("cross_entropy(ignore_index=1.5)", "not an integer"),
        ("cross_entropy(class_weight=__import__('os').getcwd())", "not a number, text or a list"),
        ("cross_entropy(**{})", "no setting"),
        ("binary_cross_entropy(label_reduction='max')", "choose one of 'mean', 'sum'"),
        ("binary_cross_entropy(positive_weight=[1, 0])", r"positive_weight\[1\] = 0"),
        ("(" * 5000, "unknown loss"),
        ("cross_entropy(" + "(" * 5000, "cannot read"),
    ],
)
def test_bad_spellings_are_explained(text, message):
    with pytest.raises(SpellingError, match=message):
        parse_loss(text)


def test_losses_are_immutable_values():
    loss = CrossEntropy(class_weight=np.array([1, 2]))
    with pytest.raises(dataclasses.FrozenInstanceError):
        loss.temperature = 2.0
    assert {loss: 1}[CrossEntropy(class_weight=(1.0, 2.0))] == 1
    assert dataclasses.replace(loss, class_weight=None) == CrossEntropy()


def test_class_vectors_must_fit_the_logits():
    with pytest.raises(ShapeError, match="class_weight has 2 entries, the logits have 3 columns"):
        CrossEntropy(class_weight=[1, 2])(np.zeros((1, 3)), [0])
    with pytest.raises(ShapeError, match="positive_weight has 2 entries"):
        BinaryCrossEntropy(positive_weight=[1, 2])(np.zeros((1, 3)), [[0, 1, 0]])
    with pytest.raises(ShapeError, match="class_weight has 2 entries"):
        CrossEntropy(class_weight=[1, 2]).initial_value(3)


def test_numbers_of_classes_are_made_an_array_once_and_travel_without_it():
    loss = CrossEntropy(class_weight=[1, 2, 3])
    assert loss.class_weight == (1.0, 2.0, 3.0)
    array = loss._recipe(3).class_weight
    assert loss._recipe(3).class_weight is array
    assert not array.flags.writeable
    copy = pickle.loads(pickle.dumps(loss))
    assert (copy, hash(copy), str(copy)) == (loss, hash(loss), str(loss))
    assert "array" not in vars(copy.class_weight)


@pytest.mark.parametrize("bad", [[0.5, 0.4], [1.2, -0.2], [np.nan, 1.0]])
def test_distributions_are_checked(bad):
    for method in (CrossEntropy().elicited, CrossEntropy().recover):
        with pytest.raises(InputError):
            method(bad)
    with pytest.raises(InputError):
        BinaryCrossEntropy().recover([1.2])


def test_options_are_checked():
    for option in ({"reduction": "avg"}, {"denominator": "n"}, {"empty": "skip"}):
        with pytest.raises(InputError, match="choose one of"):
            CrossEntropy()(np.zeros((1, 2)), [0], **option)


def test_the_catalogue_names_every_loss():
    assert all(loss.name == name and str(loss()) == name for name, loss in CATALOGUE.items())
    assert CrossEntropy().decide([[0, 2, 2]]).tolist() == [1]
    assert BinaryCrossEntropy().decide([[-1.0, 0.0, 2.0]]).tolist() == [[0, 0, 1]]
