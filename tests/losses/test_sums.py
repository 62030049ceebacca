"""Sums, penalties, heads and users' own losses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import mpmath as mp
import numpy as np
import pytest

import kullback
from kullback import BinaryCrossEntropy, ClassRows, CrossEntropy, LabelRows
from kullback.errors import InputError, NoProbabilitiesError, ShapeError, SpellingError, TargetError
from kullback.losses import (
    CATALOGUE,
    Brier,
    Focal,
    Heads,
    LogitL1,
    LogitL2,
    NegativeEntropy,
    SigmoidFocal,
    SmoothedZeroOne,
    UserLoss,
    WeightedSum,
    WestonWatkins,
    parse_loss,
    register_loss,
)
from kullback.testing import ConformanceError, check_loss, checks

SUMS = [
    0.7 * CrossEntropy() + 0.3 * Brier(),
    2 * CrossEntropy(class_weight=[1, 2, 3, 4], label_smoothing=0.1),
    CrossEntropy() + 0.5 * Focal() + 0.1 * SmoothedZeroOne(),
    CrossEntropy(ignore_index=-1) + 0.01 * LogitL2(),
    CrossEntropy() + 0.2 * NegativeEntropy(),
    CrossEntropy() + -0.2 * NegativeEntropy(),
    BinaryCrossEntropy() + 0.5 * SigmoidFocal() + 0.1 * LogitL1(),
    BinaryCrossEntropy() - 0.1 * NegativeEntropy(),
    WestonWatkins(squared=True) + 0.1 * CrossEntropy(),
]


def data(loss, rng, n=30):
    z = rng.normal(size=(n, 4)) * 2
    return z, rng.integers(0, 2, (n, 4)) if loss.target_form == "labels" else rng.integers(0, 4, n)


@pytest.mark.parametrize("loss", SUMS, ids=str)
def test_a_sum_is_the_sum_of_its_terms(loss, rng):
    z, targets = data(loss, rng)
    weight, v = rng.uniform(size=30), rng.normal(size=z.shape)
    for reduction in ("sum", "none"):
        options = {"sample_weight": weight, "reduction": reduction}
        value, gradient = loss.value_and_gradient(z, targets, **options)
        parts = [(a, term.value_and_gradient(z, targets, **options)) for a, term in loss.terms]
        np.testing.assert_allclose(value, sum(a * part[0] for a, part in parts), rtol=1e-12)
        np.testing.assert_allclose(gradient, sum(a * part[1] for a, part in parts), atol=1e-14)
        np.testing.assert_allclose(loss(z, targets, **options), value, rtol=1e-12)
        product = loss.hessian_product(z, targets, v, **options)
        theirs = sum(a * term.hessian_product(z, targets, v, **options) for a, term in loss.terms)
        np.testing.assert_allclose(product, theirs, atol=1e-13)
        diagonal = loss.hessian_diagonal(z, targets, **options)
        theirs = sum(a * term.hessian_diagonal(z, targets, **options) for a, term in loss.terms)
        np.testing.assert_allclose(diagonal, theirs, atol=1e-13)


@pytest.mark.parametrize("loss", SUMS, ids=str)
def test_a_sum_passes_every_check(loss):
    report = check_loss(loss)
    assert len(report.passed) + len(report.skipped) == len(list(checks()))
    assert "gradient is the slope of the value" in report.passed


def test_operators_and_spelling():
    loss = 0.7 * CrossEntropy(label_smoothing=0.1) + Brier() * 0.3
    assert str(loss) == "0.7 * cross_entropy(label_smoothing=0.1) + 0.3 * brier"
    assert parse_loss(str(loss)) == loss
    assert hash(parse_loss(str(loss))) == hash(loss)
    assert parse_loss("2 * (0.5*cross_entropy + brier) - 0.1*negative_entropy").terms == (
        (1.0, CrossEntropy()),
        (2.0, Brier()),
        (-0.1, NegativeEntropy()),
    )
    assert sum([CrossEntropy(), Brier()]) == CrossEntropy() + Brier()
    assert np.float64(0.5) * CrossEntropy() == 0.5 * CrossEntropy()
    assert 2 * (0.5 * CrossEntropy() + Brier()) == CrossEntropy() + 2 * Brier()
    assert CrossEntropy() + 0.1 * LogitL2() == parse_loss("cross_entropy + 0.1 * logit_l2")
    with pytest.raises(TypeError):
        CrossEntropy() + 1
    with pytest.raises(TypeError):
        CrossEntropy() * True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cross_entropy + binary_cross_entropy", "target_form is classes in one, labels in the other"),
        ("cross_entropy + brier(temperature=2)", "temperature is 1.0 in one, 2.0 in the other"),
        ("cross_entropy + brier(ignore_index=0)", "ignore_index"),
        ("-1 * cross_entropy + brier", "factor -1.0 of cross_entropy"),
        ("0 * cross_entropy", "factor"),
        ("cross_entropy * brier", "a number times a loss"),
        ("2 * 3", "a number times a loss"),
        ("cross_entropy + 3", "cannot read"),
        ("cross_entropy + briar", "did you mean 'brier'"),
        ("cross_entropy ** 2", "cannot read"),
        ("cross_entropy + negative_entropy + negative_log_likelihood", "link is softmax in one, log in the other"),
    ],
)
def test_terms_that_do_not_go_together(text, message):
    with pytest.raises(SpellingError, match=message):
        parse_loss(text)


def test_proper_terms_share_their_minimiser(rng):
    loss, p = 0.7 * CrossEntropy() + 0.3 * Brier(), rng.dirichlet(np.ones(4), 3)
    assert loss.proper
    np.testing.assert_array_equal(loss.elicited(p), p)
    floor = loss.floor(p, reduction="none")
    gini = 1 - (p**2).sum(axis=1)
    np.testing.assert_allclose(floor, 0.7 * -(p * np.log(p)).sum(axis=1) + 0.3 * gini, rtol=1e-10)


def test_what_a_sum_elicits_lies_between_its_terms():
    p = np.array([0.7, 0.2, 0.06, 0.04])
    both = (CrossEntropy() + Focal()).elicited(p)
    assert Focal().elicited(p)[0] < both[0] < p[0]
    np.testing.assert_allclose((CrossEntropy() + Focal()).recover(both), p, atol=1e-8)
    modest = (CrossEntropy() + 0.5 * NegativeEntropy()).elicited(p)
    bold = (CrossEntropy() + -0.5 * NegativeEntropy()).elicited(p)
    assert modest[0] < p[0] < bold[0]
    for loss in (CrossEntropy() + LogitL2(), CrossEntropy() + WestonWatkins()):
        with pytest.raises(NoProbabilitiesError, match="Train with CrossEntropy"):
            loss.recover(p)


def test_bad_targets_are_named_by_their_row_in_the_whole_batch(rng):
    loss = CrossEntropy() + Brier()
    n = 60_000
    rows = np.tile([0.0, 1.0, 0, 0, 0, 0, 0, 0], (n, 1))
    rows[50_123, 3] = -1
    with pytest.raises(TargetError, match="row 50123, column 3"):
        loss(np.zeros(rows.shape, dtype=np.float32), ClassRows(rows))
    rows[50_123, 3] = 0
    value, gradient = loss.value_and_gradient(np.zeros(rows.shape), ClassRows(rows))
    assert value == pytest.approx(math.log(8) + 7 / 8)
    np.testing.assert_allclose(gradient[-1], gradient[0])


def test_penalties_by_hand_and_at_the_edges():
    z = np.array([[3.0, -1.0, -np.inf], [np.nan, 0, 0]])
    assert LogitL1()(z, [0, -100]) == 4
    assert LogitL2()(z, [0, -100]) == 5
    assert LogitL2().value_and_gradient(z, [0, -100])[1].tolist() == [[3, -1, 0], [0, 0, 0]]
    entropy = NegativeEntropy().value_and_gradient([[0.0, 0.0, -np.inf]], [0])
    assert entropy[0] == pytest.approx(-math.log(2))
    np.testing.assert_allclose(entropy[1], 0, atol=1e-15)
    labels = LabelRows(np.array([[1.0, 0.0, -100.0]]))
    loss = BinaryCrossEntropy(ignore_index=-100, label_reduction="sum") + 2 * LogitL2()
    z = np.array([[1.0, 2.0, np.nan]])
    value, gradient = loss.value_and_gradient(z, labels)
    plain = BinaryCrossEntropy(label_reduction="sum")(z[:, :2], [[1, 0]])
    assert value == pytest.approx(plain + 2 * 2.5)
    assert gradient[0, 2] == 0


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("label", [1.0, 0.0, 0.3])
@pytest.mark.parametrize(("dtype", "least", "most"), [(np.float64, -300, 2.5), (np.float32, -36, 1.9)])
def test_entropy_of_labels_to_the_last_digits(dtype, least, most, label, backend):
    """Near certainty what is left of the entropy keeps its own digits, and so do its slopes; the label says nothing."""
    sizes = np.logspace(least, most, 40)
    z = np.concatenate([-sizes, [0.0], sizes])[:, None].astype(dtype)
    loss, targets, eps = NegativeEntropy(target_form="labels"), np.full(z.shape, label, dtype), np.finfo(dtype).eps
    with kullback.kernels.using(backend):
        assert loss.backend == backend
        values, gradient = loss.value_and_gradient(z, targets, reduction="none")
        diagonal = loss.hessian_diagonal(z, targets, reduction="none")
        product = loss.hessian_product(z, targets, np.full(z.shape, 3, dtype), reduction="none")
    with mp.workdps(250):  # 1 − p is as small as 1e-137
        for i, x in enumerate(mp.mpf(v) for v in z[:, 0].tolist()):
            p, rest = 1 / (1 + mp.exp(-x)), 1 / (1 + mp.exp(x))
            np.testing.assert_allclose(values[i], float(p * mp.log(p) + rest * mp.log(rest)), rtol=8 * eps)
            np.testing.assert_allclose(gradient[i], float(x * p * rest), rtol=8 * eps)
            np.testing.assert_allclose(diagonal[i], float(p * rest * (1 - x * (p - rest))), rtol=400 * eps)
    np.testing.assert_allclose(product, 3 * diagonal, rtol=4 * eps)


def test_entropy_of_labels_ignores_what_is_ignored_and_is_undone(rng):
    loss = NegativeEntropy(target_form="labels")
    value, gradient = loss.value_and_gradient([[0.0, np.nan, -np.inf, 0.0]], [[1.0, -100, 0, 0]])
    assert value == loss.floor([[1.0, -100, -100, 0]]) == pytest.approx(-2 * math.log(2))
    assert gradient.tolist() == [[0, 0, 0, 0]]
    assert loss.initial_value(3) == loss.floor([[1, 0, 1]]) == pytest.approx(-3 * math.log(2))
    p = np.array([[0.9, 0.3, 0.5, 0.001]])
    for factor in (0.3, -0.3):
        both = BinaryCrossEntropy(label_reduction="sum") + factor * loss
        reported = both.elicited(p)
        far = np.abs(reported - 0.5) - np.abs(p - 0.5)  # confidence costs, or is rewarded
        assert (far * factor <= 1e-12).all()
        assert (far[0, [0, 1, 3]] != 0).all()
        np.testing.assert_allclose(both.recover(reported), p, atol=1e-9)


# ---------------------------------------------------------------- heads


def test_heads(rng):
    heads = Heads({"a": CrossEntropy(), "b": 0.5 * CrossEntropy() + Brier(), "c": "binary_cross_entropy"}, {"c": 0.25})
    logits = {"a": rng.normal(size=(5, 3)), "b": rng.normal(size=(5, 2)), "c": rng.normal(size=(5, 4))}
    targets = {"a": rng.integers(0, 3, 5), "b": rng.integers(0, 2, 5), "c": rng.integers(0, 2, (5, 4))}
    total, gradients = heads.value_and_gradient(logits, targets, sample_weight={"a": rng.uniform(size=5)})
    parts = heads.values(logits, targets)
    assert heads(logits, targets) == pytest.approx(parts["a"] + parts["b"] + 0.25 * parts["c"])
    assert parts["c"] == BinaryCrossEntropy()(logits["c"], targets["c"])
    _, own = BinaryCrossEntropy().value_and_gradient(logits["c"], targets["c"])
    np.testing.assert_allclose(gradients["c"], 0.25 * own)
    assert total != heads(logits, targets)  # head a is weighted
    assert Heads.parse(str(heads)) == heads
    assert heads(logits, targets, reduction="none").shape == (5,)
    with pytest.raises(InputError, match=r"logits are given for a, b; expected a, b, c"):
        heads({k: logits[k] for k in "ab"}, targets)
    with pytest.raises(TargetError, match=r"head 'a': row 0: target 9"):
        heads(logits, {**targets, "a": [9, 0, 0, 0, 0]})
    with pytest.raises(InputError, match="above 0"):
        Heads({"a": "cross_entropy"}, {"a": 0})
    with pytest.raises(InputError, match="only a"):
        Heads({"a": "cross_entropy"}, {"b": 1})
    for bad in ("heads(cross_entropy)", "heads(a=1", "cross_entropy", "heads(**{})"):
        with pytest.raises(SpellingError, match="heads"):
            Heads.parse(bad)


# ---------------------------------------------------------------- users' own


class ValueOnly(UserLoss):
    name = "value_only"

    def value(self, logits, mass):
        z = logits - logits.max(axis=1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        return -(mass * np.where(mass > 0, log_p, 0)).sum(axis=1)


@dataclass(frozen=True)
class WithGradient(UserLoss):
    name: ClassVar[str] = "with_gradient"
    power: float = 0.5

    def value(self, logits, mass):
        p = np.exp(self.log_probabilities(logits))
        return (mass * (1 - p**self.power)).sum(axis=1)

    def gradient(self, logits, mass):
        p = np.exp(self.log_probabilities(logits))
        slope = -self.power * mass * p**self.power
        return slope - p * slope.sum(axis=1, keepdims=True)


def test_a_value_alone_is_enough(rng):
    loss, truth = ValueOnly(), CrossEntropy()
    z, y = rng.normal(size=(40, 4)) * 3, rng.integers(0, 4, 40)
    y[3] = -100
    value, gradient = loss.value_and_gradient(z, y)
    value_, gradient_ = truth.value_and_gradient(z, y)
    assert value == pytest.approx(value_, rel=1e-12)
    np.testing.assert_allclose(gradient, gradient_, atol=1e-11)
    v = rng.normal(size=z.shape)
    np.testing.assert_allclose(loss.hessian_product(z, y, v), truth.hessian_product(z, y, v), atol=1e-7)
    np.testing.assert_allclose(loss.hessian_diagonal(z, y), truth.hessian_diagonal(z, y), atol=1e-7)
    p = rng.dirichlet(np.ones(4))
    np.testing.assert_allclose(loss.elicited(p), p, atol=1e-5)
    assert loss.initial_value(4) == pytest.approx(math.log(4))
    assert str(loss) == "value_only"


def test_users_losses_pass_every_check():
    for loss in (ValueOnly(), WithGradient()):
        report = check_loss(loss)
        assert "spelling reads back" in dict(report.skipped)
        assert "elicited and recover" in report.passed
    register_loss(WithGradient)
    try:
        assert parse_loss("with_gradient(power=0.3)") == WithGradient(power=0.3)
        assert "spelling reads back" in check_loss(WithGradient(power=0.3)).passed
        assert "with_gradient + " in str(WithGradient() + CrossEntropy())
    finally:
        del CATALOGUE["with_gradient"]

    class Thief(UserLoss):
        name = "cross_entropy"

        def value(self, logits, mass):
            return mass.sum(axis=1)

    with pytest.raises(InputError, match="exists already"):
        register_loss(Thief)


class WrongGradient(WithGradient):
    def gradient(self, logits, mass):
        return 1.01 * super().gradient(logits, mass)


class NotLinear(ValueOnly):
    def value(self, logits, mass):
        return super().value(logits, mass) + (mass**2).sum(axis=1)


class SaysConvex(WithGradient):
    convex = True


class TooLow(ValueOnly):
    ceiling = 0.5


class Leaky(ValueOnly):
    def value(self, logits, mass):
        return super().value(logits, mass) + len(logits)


class NanWhereMasked(WithGradient):
    def value(self, logits, mass):
        return np.where(np.isneginf(logits).any(axis=1), np.nan, super().value(logits, mass))


class FourClassesOnly(WithGradient):
    def value(self, logits, mass):
        return super().value(logits, mass) * (logits.shape[1] == 4)

    def gradient(self, logits, mass):
        return super().gradient(logits, mass) * (logits.shape[1] == 4)


class ManyClassesWrong(WithGradient):
    def value(self, logits, mass):
        return super().value(logits, mass) + (logits.shape[1] > 64) * mass[:, 0]


class SeesTheLevel(WithGradient):
    def value(self, logits, mass):
        return super().value(logits, mass) + 0.01 * mass.sum(axis=1) * (logits**2).sum(axis=1)

    def gradient(self, logits, mass):
        return super().gradient(logits, mass) + 0.02 * mass.sum(axis=1, keepdims=True) * logits


class FirstClassDear(WithGradient):
    def value(self, logits, mass):
        return super().value(logits, mass) + mass[:, 0]


class Ordinal(UserLoss):
    name = "ordinal"
    symmetric = False

    def value(self, logits, mass):
        k = np.arange(logits.shape[1])
        return (self.probabilities(logits) * (mass @ np.abs(k[:, None] - k))).sum(axis=1)


class BreaksTies(WithGradient):
    def value(self, logits, mass):
        return super().value(logits, mass) + 0.01 * mass.sum(axis=1) * (logits.argmax(axis=1) > 0)


class TakesAnything(WithGradient):
    def floor(self, targets, *, n_classes=None, sample_weight=None, reduction="mean", **options):
        n = len(self._targets(targets))
        return np.zeros(n) if reduction == "none" else 0.0


class DependsOnThreads(WithGradient):
    def value(self, logits, mass):
        return super().value(logits, mass) * (1 + 1e-13 * kullback.get_num_threads())


@pytest.mark.parametrize(
    ("loss", "broken", "n_classes"),
    [
        (NanWhereMasked(), "a masked class is no class", 3),
        (FourClassesOnly(), "a masked class is no class", 4),
        (FourClassesOnly(), "elicited and recover", 2),
        (ManyClassesWrong(), "classes may change places", 65),
        (SeesTheLevel(), "only differences of logits matter where the link is a softmax", 3),
        (FirstClassDear(), "classes may change places", 3),
        (BreaksTies(), "ties", 3),
        (TakesAnything(), "bad targets are named", 3),
        (DependsOnThreads(), "any number of threads gives the same bits", 3),
        (WrongGradient(), "gradient is the slope of the value", 3),
        (NotLinear(), "linear in the target", 3),
        (SaysConvex(), "convex where claimed", 3),
        (TooLow(), "floor, ceiling and gradient bound", 3),
        (Leaky(), "weights are repetitions", 3),
    ],
)
def test_check_loss_finds_what_is_wrong(loss, broken, n_classes):
    """Each of them fails the check of its mistake at one number of classes, which is among those tried by default."""
    report = check_loss(loss, n_classes=n_classes, raises=False)
    assert broken in dict(report.failed)
    with pytest.raises(ConformanceError, match=f"FAILED  {broken}"):
        check_loss(loss, n_classes=n_classes)


def test_a_mistake_at_one_number_of_classes_is_found_by_default():
    with pytest.raises(ConformanceError, match="C = 65: "):
        check_loss(ManyClassesWrong())
    assert "classes may change places" in check_loss(ManyClassesWrong(), n_classes=4).passed


def test_an_ordinal_loss_says_that_its_classes_are_not_alike():
    report = check_loss(Ordinal(), n_classes=3, raises=False)
    assert "classes may change places" in dict(report.skipped)
    assert "a masked class is no class" in report.passed
    assert "elicited and recover" in dict(report.failed)  # like the 0–1 loss it elicits the median, and does not say so


def test_wrong_shapes_are_named():
    class Scalar(UserLoss):
        name = "scalar"

        def value(self, logits, mass):
            return mass.sum()

    with pytest.raises(ShapeError, match=r"Scalar.value returned shape \(\), expected \(2,\)"):
        Scalar()(np.zeros((2, 3)), [0, 1])
    with pytest.raises(TypeError, match="abstract"):
        UserLoss()


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_catalogue_passes_every_check(name):
    check_loss(CATALOGUE[name]())


def test_sums_refuse_what_is_no_loss():
    with pytest.raises(InputError, match="needs a term"):
        WeightedSum(())
    with pytest.raises(InputError, match="is not a loss"):
        WeightedSum(((1.0, "cross_entropy"),))


def test_check_loss_says_what_it_was_given_and_what_the_loss_raised():
    class Broken(UserLoss):
        name = "broken"

        def value(self, logits, mass):
            return {}["table"]

    with pytest.raises(InputError, match=r"takes a loss object, not <class .*Broken'>; make one: check_loss\(Broken"):
        check_loss(Broken)
    with pytest.raises(InputError, match="takes a loss object, not 'focal'; its spelling goes to parse_loss"):
        check_loss("focal")
    with pytest.raises(ConformanceError, match="gradient is the slope of the value: C = 1: KeyError: 'table'"):
        check_loss(Broken())


def test_recover_of_a_report_that_no_gradient_can_be_taken_at_is_nan(capfd):
    class Endless(UserLoss):
        name = "endless"

        def value(self, logits, mass):
            return np.where(np.abs(logits).max(axis=1) > 3, np.nan, (mass * logits).sum(axis=1))

    assert np.isnan(Endless().recover([0.999, 0.0005, 0.0005])).all()
    assert "DLASCL" not in "".join(capfd.readouterr())
