"""What is quietly wrong elsewhere is refused or said here, and the error names what to do."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from kullback import BinaryCrossEntropy, CrossEntropy, Heads, parse_loss
from kullback.errors import InputError, ShapeError, SpellingError, TargetError
from kullback.losses import (
    BalancedSoftmax,
    Brier,
    CrammerSinger,
    CrossEntropyFromProbabilities,
    Focal,
    KullbackLeibler,
    Ldam,
    LogitL2,
    NegativeEntropy,
    NegativeLogLikelihood,
    NotLogProbabilitiesWarning,
    WestonWatkins,
)
from kullback.losses.priors import NoCountsWarning

CE = CrossEntropy()


def test_logits_are_no_log_probabilities():
    loss = NegativeLogLikelihood()
    with pytest.warns(NotLogProbabilitiesWarning, match=r"row 1 holds 3, and 1 of the first 2 rows one above 0"):
        loss([[-0.1, -2.0], [3.0, 1.0]], [0, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(np.float32([[1e-7, -16.0]]), [0])
        loss([[9.0, 1.0], [-1.0, -1.0]], [-100, 0])  # a row that does not count is not looked at


def test_masked_arrays_are_refused():
    for call in (
        lambda: CE(np.ma.array([[1.0, 2.0]], mask=[[1, 0]]), [0]),
        lambda: CE([[1.0, 2.0]], np.ma.array([0], mask=[1])),
        lambda: CE([[1.0, 2.0]], np.ma.array([[1.0, 0.0]])),
        lambda: BinaryCrossEntropy()([[1.0, 2.0]], np.ma.array([[1.0, 0.0]])),
        lambda: CE([[1.0, 2.0]], [0], sample_weight=np.ma.array([1.0])),
    ):
        with pytest.raises(InputError, match="masked array is not taken"):
            call()


def test_an_output_that_overlaps_itself_or_is_no_array_is_refused():
    for strides in ((0, 8), (8, 0), (0, 0)):
        with pytest.raises(ShapeError, match="share one place in memory"):
            CE.value_and_gradient(np.zeros((2, 2)), [0, 1], out=as_strided(np.zeros(4), (2, 2), strides))
    with pytest.raises(ShapeError, match="share one place in memory"):
        CE.per_example(np.zeros((2, 2)), [0, 1], out=as_strided(np.zeros(1), (2,), (0,)))
    for call in (CE.value_and_gradient, CE.per_example, CE.hessian_diagonal):
        with pytest.raises(ShapeError, match="out is a list"):
            call(np.zeros((1, 2)), [0], out=[[0.0, 0.0]])


def test_probabilities_whose_sum_is_beyond_the_largest_float():
    loss = CrossEntropyFromProbabilities()
    assert loss([[1e308, 1e308]], [0]) == pytest.approx(np.log(2), rel=1e-15)
    np.testing.assert_allclose(loss.probabilities([[1e308, 1e308, 0.0], [0.25, 0.5, 0.25]])[:, 2], [0, 0.25])


def test_no_method_takes_a_negative_probability():
    loss, x = CrossEntropyFromProbabilities(), np.array([[0.5, 0.5], [1.5, -0.5]])
    for call in (
        lambda: loss(x, [0, 0]),
        lambda: loss.value_and_gradient(x, [0, 0]),
        lambda: loss.hessian_product(x, [0, 0], x),
        lambda: loss.hessian_diagonal(x, [0, 0]),
        lambda: loss.clipping(x, [0, 0]),
    ):
        with pytest.raises(InputError, match=r"row 1, column 1: probability -0\.5"):
            call()
    with pytest.raises(InputError, match=r"row 1, column 1: probability -0\.5"):
        loss.value_and_gradient(x, [0, 0], out=x)


def test_the_column_to_blame_is_the_negative_one():
    with pytest.raises(InputError, match=r"row 0, column 2: probability -1"):
        CrossEntropyFromProbabilities()([[1.0, 0.0, -1.0]], [0])
    with pytest.raises(InputError, match=r"row 1, the sum of probabilities 0"):
        CrossEntropyFromProbabilities()([[1.0, 0.0], [0.0, 0.0]], [0, 0])


@pytest.mark.parametrize("kind", [CrossEntropy, Focal, BinaryCrossEntropy])
def test_a_temperature_next_to_nothing_is_refused(kind):
    with pytest.raises(InputError, match="at least 1e-15"):
        kind(temperature=1e-320)
    loss = kind(temperature=1e-15)
    targets = [[1, 0]] if loss.target_form == "labels" else [1]
    for dtype in (np.float32, np.float64):
        value, gradient = loss.value_and_gradient(np.array([[80.0, -3.0]], dtype=dtype), targets)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_losses_for_unequal_classes_ask_for_their_counts():
    with pytest.warns(NoCountsWarning, match="it is plain cross-entropy") as said:
        BalancedSoftmax()
    assert said[0].filename == __file__
    with pytest.warns(NoCountsWarning, match="every class gets the same margin"):
        parse_loss("ldam")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BalancedSoftmax(class_counts=[9, 1])
        Ldam(class_counts=[9, 1])
        Ldam(max_margin=0)


def test_rows_of_several_lengths_and_text_are_explained():
    with pytest.raises(InputError, match="logits cannot be made an array of numbers"):
        CE([[1.0, 2.0], [3.0]], [0, 1])
    with pytest.raises(TargetError, match="rows of one length"):
        CE([[1.0, 2.0], [3.0, 4.0]], [[0, 1], [1]])
    with pytest.raises(InputError, match="sample_weight has entries that are not numbers"):
        CE([[1.0, 2.0]], [0], sample_weight=["much"])


def test_a_tensor_on_a_tape_is_sent_to_the_torch_losses():
    torch = pytest.importorskip("torch")
    with pytest.raises(InputError, match=r"use the losses of kullback\.torch"):
        CE(torch.zeros(1, 2, requires_grad=True), [0])
    assert CE(torch.zeros(1, 2), [0]) == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    "loss",
    [
        *(CE, KullbackLeibler(), BinaryCrossEntropy(), WestonWatkins(), CrammerSinger(), LogitL2()),
        *(NegativeLogLikelihood(), CrossEntropyFromProbabilities(), CE + Focal()),
    ],
    ids=str,
)
@pytest.mark.parametrize("n_classes", [0, -1, 2.5, True, "3"])
def test_a_number_of_classes_is_an_integer(loss, n_classes):
    with pytest.raises(InputError, match=r"n_classes=.* is not valid; it is an integer of at least 1"):
        loss.initial_value(n_classes)


def test_no_class_at_all():
    with pytest.raises(ShapeError, match=r"shape \(2, 0\): there is no column"):
        CE(np.zeros((2, 0)), [0, 0])


def test_a_class_that_never_holds_gets_nothing_from_a_sum():
    loss = CE + Focal()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(loss.elicited([0.5, 0.5, 0.0]), [0.5, 0.5, 0.0])
        np.testing.assert_allclose(loss.recover([0.5, 0.5, 0.0]), [0.5, 0.5, 0.0], atol=1e-15)
        q = loss.elicited([0.7, 0.3, 0.0])
        np.testing.assert_allclose(q[:2], loss.elicited([0.7, 0.3]), atol=1e-9)
        np.testing.assert_allclose(loss.recover(q), [0.7, 0.3, 0.0], atol=1e-9)
        # where a penalty or smoothing gives every class something, it still does
        assert (CE + 0.1 * NegativeEntropy()).elicited([0.5, 0.5, 0.0])[2] > 1e-6
        assert (CrossEntropy(label_smoothing=0.1) + Focal()).elicited([0.5, 0.5, 0.0])[2] > 0.01


def test_operators_agree_with_the_spelling():
    for loss, text in (
        (CE - 0.1 * NegativeEntropy(), "cross_entropy - 0.1 * negative_entropy"),
        (CE / 2 + Brier() / 4, "cross_entropy / 2 + brier / 4"),
        ((CE + Brier()) / 2, "(cross_entropy + brier) / 2"),
        (-NegativeEntropy(), "-negative_entropy"),
        (CE - -1 * LogitL2(), "cross_entropy + logit_l2"),
    ):
        assert loss == parse_loss(text)
        assert loss == parse_loss(str(loss))
    z = [[1.0, 0.0, -1.0]]
    assert (CE / 2)(z, [0]) == pytest.approx(CE(z, [0]) / 2)
    assert (CE - 0.1 * LogitL2())(z, [0]) == pytest.approx(CE(z, [0]) - 0.1)
    for wrong in (lambda: -CE, lambda: CE - Brier(), lambda: CE / 0, lambda: CE / -2):
        with pytest.raises(InputError, match=r"is not valid; losses have finite factors above 0|divided by 0"):
            wrong()
    for text in ("cross_entropy / 0", "2 / cross_entropy", "-cross_entropy"):
        with pytest.raises(SpellingError):
            parse_loss(text)
    with pytest.raises(TypeError):
        CE - 1
    with pytest.raises(TypeError):
        CE / "2"


def test_heads_delegate_to_their_losses(rng):
    heads = Heads({"a": "cross_entropy", "b": "binary_cross_entropy"}, weights={"b": 0.5})
    logits = {"a": rng.normal(size=(5, 3)), "b": rng.normal(size=(5, 2))}
    targets = {"a": rng.integers(0, 3, 5), "b": rng.uniform(size=(5, 2))}
    v = {name: rng.normal(size=z.shape) for name, z in logits.items()}
    a, b = CE, BinaryCrossEntropy()
    product, diagonal = heads.hessian_product(logits, targets, v), heads.hessian_diagonal(logits, targets)
    np.testing.assert_allclose(product["a"], a.hessian_product(logits["a"], targets["a"], v["a"]))
    np.testing.assert_allclose(product["b"], 0.5 * b.hessian_product(logits["b"], targets["b"], v["b"]))
    np.testing.assert_allclose(diagonal["b"], 0.5 * b.hessian_diagonal(logits["b"], targets["b"]))
    assert heads.floor(targets, n_classes={"a": 3}) == pytest.approx(0.5 * b.floor(targets["b"]))
    assert heads.initial_value({"a": 3, "b": 2}) == pytest.approx(np.log(3) + 0.5 * np.log(2))
    best = heads.best_constant(targets, n_classes={"a": 3})
    np.testing.assert_array_equal(best["a"], a.best_constant(targets["a"], n_classes=3))
    np.testing.assert_array_equal(best["b"], b.best_constant(targets["b"]))
    assert heads.convex
    assert not Heads({"a": "brier"}).convex
    assert heads.ceiling == np.inf
    assert Heads({"a": "brier", "b": "brier"}, weights={"b": 0.5}).ceiling == 3
    with pytest.raises(InputError, match="head 'a': class indices do not say"):
        heads.floor(targets)
    with pytest.raises(InputError, match="direction are given for a; expected a, b"):
        heads.hessian_product(logits, targets, {"a": v["a"]})
    with pytest.raises(SpellingError, match=r"read it with Heads\.parse"):
        parse_loss(str(heads))
