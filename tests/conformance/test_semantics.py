"""What every backend does in the awkward cases: the promises that hold whatever the loss runs on."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kullback.kernels as kernels
from kullback import BinaryCrossEntropy, ClassIndices, ClassMixture, ClassRows, CrossEntropy, LabelRows
from kullback.errors import InfiniteLossWarning, InputError, ShapeError, TargetError
from kullback.losses import (
    Asymmetric,
    Brier,
    CrammerSinger,
    CrossEntropyFromProbabilities,
    Focal,
    KullbackLeibler,
    LogitL2,
    NegativeEntropy,
    NegativeLogLikelihood,
    OneVsRest,
    SigmoidBrier,
    SigmoidFocal,
    WestonWatkins,
)

DTYPES = (np.float32, np.float64)


BAD_CLASSES = [
    ([0, 3, 1], r"row 1: target 3 is not a class; valid indices are 0 to 2"),
    ([0, 1, -1], r"row 2: target -1 is not a class; valid indices are 0 to 2"),
    (np.array([0, 255, 1], dtype=np.uint8), r"row 1: target 255"),
    (np.array([0, 2**40, 1]), r"row 1: target 1099511627776"),
    ([0.0, 1.0, 2.0], r"dtype float64, expected integers"),
    ([0.0, np.nan, 2.0], r"row 1: target nan"),
    ([[0], [1], [2]], r"shape \(3, 1\), a single column"),
    (["a", "b", "c"], r"encode labels"),
    (np.zeros((3, 2)), r"2 columns, the logits 3"),
    ([[1, 0, 0], [0, -0.5, 1.5], [0, 0, 1]], r"row 1, column 1: soft target -0.5"),
    ([[1, 0, 0], [0, 1, 0], [0, np.nan, 1]], r"row 2, column 1: soft target nan"),
    ([[1, 0, 0], [0, 1, 0], [0, np.inf, 1]], r"row 2, column 1: soft target inf"),
    (ClassMixture([0, 1, 7], [0, 1, 2], 0.5), r"row 2: target 7"),
    (np.zeros((3, 3, 1)), r"expected class indices"),
]
BAD_LABELS = [
    ([[0, 1, 2.0]], r"row 0, column 2: label target 2.0"),
    ([[0, 1, np.nan]], r"row 0, column 2: label target nan"),
    ([[0, -1, 0]], r"row 0, column 1: label target -1"),
    ([0], r"independent labels are rows"),
    (np.zeros((1, 2)), r"2 columns, the logits 3|n_classes=3, but the targets have 2 columns"),
]
OF_CLASSES = [
    *(CrossEntropy(), CrossEntropy(label_smoothing=0.1), KullbackLeibler(), Focal(), WestonWatkins(), CrammerSinger()),
    *(CrossEntropyFromProbabilities(), NegativeLogLikelihood(), LogitL2(), NegativeEntropy()),
    *(CrossEntropy() + Brier(), CrossEntropy() + 0.1 * LogitL2()),
]
OF_LABELS = [
    *(BinaryCrossEntropy(), BinaryCrossEntropy(ignore_index=-100), SigmoidFocal(), Asymmetric()),
    *(LogitL2(target_form="labels"), BinaryCrossEntropy() + SigmoidBrier()),
    BinaryCrossEntropy() + 0.1 * LogitL2(target_form="labels"),
]


@pytest.mark.parametrize(("targets", "message"), BAD_CLASSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_bad_class_targets_are_named(backend, dtype, targets, message):
    with pytest.raises((TargetError, ShapeError), match=message):
        CrossEntropy().value_and_gradient(np.zeros((3, 3), dtype=dtype), targets)


@pytest.mark.parametrize(("targets", "message"), BAD_LABELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_bad_labels_are_named(backend, dtype, targets, message):
    with pytest.raises((TargetError, ShapeError), match=message):
        BinaryCrossEntropy().value_and_gradient(np.zeros((1, 3), dtype=dtype), targets)


@pytest.mark.parametrize(
    ("loss", "targets", "message"),
    [(loss, *bad) for loss in OF_CLASSES for bad in BAD_CLASSES] + [
        (loss, *bad) for loss in OF_LABELS for bad in BAD_LABELS
    ],
)  # fmt: skip
def test_bad_targets_are_named_where_no_logits_are_looked_at(loss, targets, message):
    """The lowest loss and the best constant come from the targets alone; wrong ones are no smaller mistake there."""
    for method in (loss.floor, loss.best_constant):
        with pytest.raises(InputError, match=message):
            method(targets, n_classes=3)


def test_a_bad_target_of_a_row_without_weight_is_not_looked_at_for_the_floor_either():
    soft = np.array([[0.5, 0.5], [np.nan, -1.0]])
    assert CrossEntropy().floor(soft, sample_weight=[1, 0]) == pytest.approx(np.log(2))
    assert np.isfinite(CrossEntropy().best_constant(soft, sample_weight=[1, 0])).all()
    assert BinaryCrossEntropy().floor(soft, sample_weight=[1, 0]) == pytest.approx(np.log(2))


def test_the_best_constant_of_a_sum_leaves_unknown_labels_out():
    labels = [[1, 0], [1, 0], [0, -1], [-1, -1]]
    loss = BinaryCrossEntropy(ignore_index=-1) + SigmoidBrier(ignore_index=-1)
    best = loss.best_constant(labels)
    _, gradient = loss.value_and_gradient(np.tile(best, (4, 1)), labels, reduction="sum")
    assert abs(gradient[:, 0].sum()) < 1e-12
    assert loss.probabilities([best])[0, 0] == pytest.approx(0.5, abs=1e-9)  # half a row each, and one row of its own
    with pytest.raises(InputError, match="no row counts"):
        LogitL2().best_constant([-100], n_classes=2)


def test_mismatched_lengths_never_broadcast(backend):
    with pytest.raises(ShapeError, match="3 rows of logits but 2 targets"):
        CrossEntropy()(np.zeros((3, 4)), [0, 1])
    with pytest.raises(ShapeError, match="3 rows of logits but 1 targets"):
        CrossEntropy()(np.zeros((3, 4)), [0])
    with pytest.raises(ShapeError, match=r"logits have shape \(3,\)"):
        CrossEntropy()(np.zeros(3), [0, 1, 2])
    with pytest.raises(ShapeError, match="sample_weight has shape"):
        CrossEntropy()(np.zeros((3, 4)), [0, 1, 2], sample_weight=[[1], [1], [1]])


def test_bad_sample_weights_are_named(backend):
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="row 1: sample weight"):
            CrossEntropy()(np.zeros((3, 4)), [0, 1, 2], sample_weight=[1, bad, 1])


def test_wrong_family_of_targets_is_refused():
    with pytest.raises(TargetError, match="use BinaryCrossEntropy"):
        CrossEntropy()(np.zeros((1, 2)), LabelRows(np.ones((1, 2))))
    with pytest.raises(TargetError, match="use CrossEntropy"):
        BinaryCrossEntropy()(np.zeros((1, 2)), ClassIndices(np.array([1])))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [3, 70, 2000])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_rows_that_do_not_count_are_never_looked_at(backend, rng, dtype, n_classes, poison):
    logits = rng.normal(size=(6, n_classes)).astype(dtype)
    logits[1], logits[4] = poison, poison
    targets = rng.integers(0, n_classes, 6)
    targets[1] = -100
    weight = np.array([1.0, 1.0, 0.5, 1.0, 0.0, 2.0])
    kept = [0, 2, 3, 5]
    for loss in (CrossEntropy(), CrossEntropy(label_smoothing=0.1, class_weight=np.arange(1, n_classes + 1))):
        value, gradient = loss.value_and_gradient(logits, targets, sample_weight=weight)
        value_, gradient_ = loss.value_and_gradient(logits[kept], targets[kept], sample_weight=weight[kept])
        assert value == pytest.approx(value_, rel=1e-6)
        np.testing.assert_allclose(gradient[kept], gradient_, rtol=1e-5, atol=1e-9)
        assert (gradient[[1, 4]] == 0).all()
        assert (loss.per_example(logits, targets, sample_weight=weight)[[1, 4]] == 0).all()
        for second in (
            loss.hessian_diagonal(logits, targets, sample_weight=weight),
            loss.hessian_product(logits, targets, np.ones_like(logits), sample_weight=weight),
        ):
            assert (second[[1, 4]] == 0).all()
            assert np.isfinite(second).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_weightless_row_may_even_have_a_bad_target(backend, dtype):
    logits = np.zeros((3, 3), dtype=dtype)
    assert CrossEntropy()(logits, [0, 99, 1], sample_weight=[1, 0, 1]) == pytest.approx(np.log(3))
    soft = np.array([[1, 0, 0], [np.nan, -1, 0], [0, 1, 0]])
    assert CrossEntropy()(logits, soft, sample_weight=[1, 0, 1]) == pytest.approx(np.log(3))
    assert BinaryCrossEntropy()(logits, soft, sample_weight=[1, 0, 1]) == pytest.approx(np.log(2))


@pytest.mark.parametrize("empty", [np.empty((0, 3)), None])
def test_a_batch_where_nothing_counts(backend, empty):
    logits, targets = (empty, np.empty(0, dtype=int)) if empty is not None else (np.ones((2, 3)), [-100, -100])
    with pytest.raises(InputError, match="no row counts"):
        CrossEntropy()(logits, targets)
    assert np.isnan(CrossEntropy()(logits, targets, empty="nan"))
    value, gradient = CrossEntropy().value_and_gradient(logits, targets, empty="zero")
    assert value == 0
    assert (gradient == 0).all()
    assert gradient.shape == logits.shape
    assert CrossEntropy()(logits, targets, reduction="sum") == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [3, 65, 2000])
def test_masked_classes(backend, rng, dtype, n_classes):
    logits = rng.normal(size=(4, n_classes)).astype(dtype)
    masked = logits.copy()
    masked[:, 1] = -np.inf
    targets = np.array([0, 2, 0, 2])
    value, gradient = CrossEntropy().value_and_gradient(masked, targets)
    kept = np.delete(logits, 1, axis=1)
    value_, gradient_ = CrossEntropy().value_and_gradient(kept, np.array([0, 1, 0, 1]))
    assert value == pytest.approx(value_, rel=1e-6)
    assert (gradient[:, 1] == 0).all()
    np.testing.assert_allclose(np.delete(gradient, 1, axis=1), gradient_, rtol=1e-4, atol=1e-7)
    assert np.isfinite(CrossEntropy().hessian_diagonal(masked, targets)).all()
    assert np.isfinite(CrossEntropy().hessian_product(masked, targets, np.ones_like(masked))).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [3, 65, 2000])
def test_mass_on_a_masked_class_is_infinite_and_says_where(backend, rng, dtype, n_classes):
    logits = rng.normal(size=(4, n_classes)).astype(dtype)
    logits[2, 1] = -np.inf
    logits[3, :] = -np.inf
    targets = np.array([0, 2, 1, 0])
    with pytest.warns(InfiniteLossWarning, match="row 2: the loss is"):
        value, gradient = CrossEntropy().value_and_gradient(logits, targets)
    assert value == np.inf
    assert np.isfinite(gradient).all()
    assert gradient[2, 1] == pytest.approx(-1 / 4)
    with pytest.warns(InfiniteLossWarning, match="row 2"):
        per_example = CrossEntropy().per_example(logits, targets)
    assert np.isinf(per_example).tolist() == [False, False, True, True]
    smoothed = np.array([[0.0, 1.0, -np.inf]], dtype=dtype)
    with pytest.warns(InfiniteLossWarning, match="row 0"):
        assert CrossEntropy(label_smoothing=0.1)(smoothed, [0]) == np.inf


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [3, 10, 65, 2000])
@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("form", ["index", "soft", "mixture"])
def test_a_spoilt_row_shows_and_stays_alone(backend, rng, dtype, n_classes, poison, form):
    logits = rng.normal(size=(70, n_classes)).astype(dtype)
    index = rng.integers(0, n_classes - 1, 70)
    targets = {
        "index": index,
        "soft": ClassRows(np.eye(n_classes, dtype=dtype)[index]),
        "mixture": ClassMixture(index, index[::-1].copy(), 0.25),
    }[form]
    clean = CrossEntropy().value_and_gradient(logits, targets, reduction="none")
    logits[33, n_classes - 1] = poison
    values, gradient = CrossEntropy().value_and_gradient(logits, targets, reduction="none")
    assert np.isnan(values[33])
    assert np.isnan(gradient[33]).all()
    others = np.arange(70) != 33
    np.testing.assert_array_equal(values[others], clean[0][others])
    np.testing.assert_array_equal(gradient[others], clean[1][others])
    assert np.isnan(CrossEntropy()(logits, targets))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [3, 100])
def test_a_row_without_mass_costs_and_pulls_nothing(backend, rng, dtype, n_classes):
    logits = rng.normal(size=(3, n_classes)).astype(dtype)
    rows = rng.dirichlet(np.ones(n_classes), 3)
    rows[1] = 0
    values, gradient = CrossEntropy(label_smoothing=0.1).value_and_gradient(logits, rows, reduction="none")
    assert values[1] == 0
    assert (gradient[1] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_ignored_labels(backend, rng, dtype):
    logits = rng.normal(size=(3, 4)).astype(dtype)
    labels = np.array([[1, 0, -100, 1], [-100, -100, -100, -100], [0, 0, 1, -100]], dtype=np.float64)
    logits[0, 2] = np.nan
    loss = BinaryCrossEntropy(ignore_index=-100)
    values, gradient = loss.value_and_gradient(logits, labels, reduction="none")
    first = BinaryCrossEntropy().per_example(logits[:1, [0, 1, 3]], labels[:1, [0, 1, 3]])
    assert values[0] == pytest.approx(first[0], rel=1e-6)
    assert values[1] == 0
    assert gradient[0, 2] == 0
    assert (gradient[1] == 0).all()
    assert loss(logits, labels) == pytest.approx((values[0] + values[2]) / 2, rel=1e-6)


# ---------------------------------------------------------------- arrays of every make


def strided(array):
    wide = np.zeros((array.shape[0] * 2, array.shape[1] + 3), dtype=array.dtype)
    wide[::2, 1 : 1 + array.shape[1]] = array
    return wide[::2, 1 : 1 + array.shape[1]]


def reversed_columns(array):
    return np.ascontiguousarray(array[:, ::-1])[:, ::-1]


def unaligned(array):
    raw = np.zeros(array.nbytes + 1, dtype=np.uint8)
    view = raw[1:].view()[: array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def read_only(array):
    copy = array.copy()
    copy.flags.writeable = False
    return copy


@pytest.mark.parametrize("make", [strided, reversed_columns, np.asfortranarray, read_only, unaligned])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(50, 3), (9, 100)])
def test_memory_layout_does_not_matter(backend, rng, make, dtype, shape):
    logits = rng.normal(size=shape).astype(dtype)
    index = rng.integers(0, shape[1], shape[0])
    soft = rng.dirichlet(np.ones(shape[1]), shape[0]).astype(dtype)
    for loss, targets in ((CrossEntropy(), index), (CrossEntropy(), soft), (BinaryCrossEntropy(), soft)):
        value, gradient = loss.value_and_gradient(logits, targets)
        odd_targets = make(targets) if targets.ndim == 2 else targets
        value_, gradient_ = loss.value_and_gradient(make(logits), odd_targets)
        assert value_ == value
        np.testing.assert_array_equal(gradient_, gradient)
        out = strided(np.full(shape, 7, dtype=dtype))
        loss.value_and_gradient(logits, targets, out=out)
        np.testing.assert_array_equal(out, gradient)
        np.testing.assert_array_equal(loss.probabilities(make(logits)), loss.probabilities(logits))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64])
def test_any_integer_type_of_index(backend, rng, dtype):
    logits = rng.normal(size=(20, 5))
    targets = rng.integers(0, 5, 20)
    assert CrossEntropy()(logits, targets.astype(dtype)) == CrossEntropy()(logits, targets)
    assert CrossEntropy()(logits, targets[::-1].astype(dtype)[::-1]) == CrossEntropy()(logits, targets)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float32, np.float64])
def test_any_type_of_label(backend, rng, dtype):
    logits = rng.normal(size=(20, 5))
    labels = rng.integers(0, 2, (20, 5))
    assert BinaryCrossEntropy()(logits, labels.astype(dtype)) == BinaryCrossEntropy()(logits, labels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_classes", [3, 10, 65, 3000])
def test_the_gradient_may_take_the_place_of_the_logits(backend, rng, dtype, n_classes):
    logits = rng.normal(size=(40, n_classes)).astype(dtype)
    targets = rng.integers(0, n_classes, 40)
    soft = ClassRows(rng.dirichlet(np.ones(n_classes), 40).astype(dtype))
    labels = rng.integers(0, 2, logits.shape)
    for loss, target in ((CrossEntropy(), targets), (CrossEntropy(), soft), (BinaryCrossEntropy(), labels)):
        value, gradient = loss.value_and_gradient(logits, target)
        own = logits.copy()
        value_, gradient_ = loss.value_and_gradient(own, target, out=own)
        assert gradient_ is own
        assert value_ == value
        np.testing.assert_array_equal(own, gradient)


def test_out_of_the_wrong_kind_is_refused(backend):
    logits = np.zeros((2, 3), dtype=np.float32)
    for out in (np.zeros((2, 3)), np.zeros((3, 2), dtype=np.float32), read_only(logits)):
        with pytest.raises(ShapeError, match="out has shape"):
            CrossEntropy().value_and_gradient(logits, [0, 1], out=out)
    with pytest.raises(ShapeError, match="out has shape"):
        CrossEntropy().per_example(logits, [0, 1], out=np.zeros(2, dtype=int))
    out = np.zeros(2, dtype=np.float32)
    assert CrossEntropy().per_example(logits, [0, 1], out=out) is out
    np.testing.assert_allclose(out, np.log(3), rtol=1e-6)


def test_half_precision_and_integers_in(backend):
    half = np.array([[1, 2, 3]], dtype=np.float16)
    _, gradient = CrossEntropy().value_and_gradient(half, [1])
    assert gradient.dtype == np.float32
    assert CrossEntropy()(np.array([[1, 2, 3]]), [1]) == CrossEntropy()(np.array([[1.0, 2.0, 3.0]]), [1])


# ---------------------------------------------------------------- identities


@st.composite
def batches(draw):
    n, c = draw(st.integers(1, 40)), draw(st.integers(1, 80))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = draw(st.sampled_from([0.1, 1.0, 30.0]))
    logits = (rng.normal(size=(n, c)) * scale).astype(draw(st.sampled_from(DTYPES)))
    return rng, logits, rng.integers(0, c, n)


def tolerance(logits):
    return float(64 * np.finfo(logits.dtype).eps * (1 + np.abs(logits).max()))


LOSSES = [CrossEntropy(), CrossEntropy(label_smoothing=0.2), CrossEntropy(temperature=3)]


@pytest.mark.parametrize("name", kernels.BACKENDS)
@settings(deadline=None, max_examples=40)
@given(batches())
def test_identities_of_cross_entropy(name, batch):
    rng, logits, targets = batch
    tol = tolerance(logits)
    n, c = logits.shape
    with kernels.using(name):
        for loss in LOSSES:
            value, gradient = loss.value_and_gradient(logits, targets)
            # a constant added to a row changes nothing
            shift = rng.integers(-5, 6, (n, 1)).astype(logits.dtype)
            assert loss(logits + shift, targets) == pytest.approx(value, abs=tol)
            # renaming the classes renames the gradient
            order = rng.permutation(c)
            place = np.argsort(order)
            value_, gradient_ = loss.value_and_gradient(np.ascontiguousarray(logits[:, order]), place[targets])
            assert value_ == pytest.approx(value, abs=tol)
            np.testing.assert_allclose(gradient_, gradient[:, order], atol=tol)
            # what one class gains the others lose
            np.testing.assert_allclose(gradient.sum(axis=1), 0, atol=tol)
            # the mean is the sum over the count, and none is the parts
            parts = loss.per_example(logits, targets)
            assert loss(logits, targets, reduction="sum") == pytest.approx(parts.sum(), rel=1e-6, abs=tol)
            assert value == pytest.approx(parts.mean(), rel=1e-6, abs=tol)
            # an integer weight is a repetition
            repeat = rng.integers(0, 4, n)
            if repeat.any():
                many = loss(np.repeat(logits, repeat, axis=0), np.repeat(targets, repeat))
                assert loss(logits, targets, sample_weight=repeat) == pytest.approx(many, rel=1e-5, abs=tol)
            # index, one-hot and mixture agree
            one_hot = ClassRows(np.eye(c, dtype=logits.dtype)[targets])
            assert loss(logits, one_hot) == pytest.approx(value, rel=1e-5, abs=tol)
            mixture = ClassMixture(targets, rng.integers(0, c, n), 1.0)
            assert loss(logits, mixture) == pytest.approx(value, rel=1e-5, abs=tol)
            # no loss is below its floor
            floor = loss.floor(targets, n_classes=c, reduction="none")
            assert (parts >= floor - tol).all()


@pytest.mark.parametrize("name", kernels.BACKENDS)
@settings(deadline=None, max_examples=40)
@given(batches())
def test_identities_of_binary_cross_entropy(name, batch):
    rng, logits, _ = batch
    tol = tolerance(logits)
    labels = rng.integers(0, 2, logits.shape)
    with kernels.using(name):
        value, gradient = BinaryCrossEntropy().value_and_gradient(logits, labels)
        flipped, gradient_ = BinaryCrossEntropy().value_and_gradient(-logits, 1 - labels)
        assert flipped == pytest.approx(value, abs=tol)
        np.testing.assert_allclose(gradient_, -gradient, atol=tol)
        total = BinaryCrossEntropy(label_reduction="sum")(logits, labels)
        assert total == pytest.approx(value * logits.shape[1], rel=1e-6, abs=tol)
        # a softmax over two classes is a sigmoid of their difference
        column = np.ascontiguousarray(logits[:, :1])
        pair = np.hstack([np.zeros_like(column), column])
        assert CrossEntropy()(pair, labels[:, 0]) == pytest.approx(
            BinaryCrossEntropy()(column, labels[:, :1]), rel=1e-5, abs=tol
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_denominators(backend, dtype):
    logits = np.array([[1.0, 0.0], [0.0, 2.0], [0.5, 0.0]], dtype=dtype)
    targets = [0, 1, 1]
    loss = CrossEntropy(class_weight=[1, 3])
    weight = [1.0, 1.0, 2.0]
    parts = loss.per_example(logits, targets, sample_weight=weight)
    by_weights = loss(logits, targets, sample_weight=weight)
    by_examples = loss(logits, targets, sample_weight=weight, denominator="examples")
    assert by_weights == pytest.approx(parts.sum() / (1 + 3 + 6), rel=1e-6)
    assert by_examples == pytest.approx(parts.sum() / 3, rel=1e-6)
    one_hot = np.eye(2)[targets]
    assert loss(logits, one_hot, sample_weight=weight) == pytest.approx(by_weights, rel=1e-6)


@pytest.mark.parametrize("loss", [CrossEntropy(ignore_index=0, softcap=5.0), OneVsRest(ignore_index=0)])
def test_hard_rows_beside_rows_that_do_not_count_or_are_nan(loss):
    """A NaN or a row of -inf touches no other row, whichever rows are worked on together."""
    z = np.zeros((70, 32), np.float32)
    z[3, 0] = z[5, 1] = np.nan
    z[13] = z[29] = -np.inf
    classes = np.ones(70, int)
    classes[3] = 0
    v = np.ones_like(z)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", InfiniteLossWarning)
        _, gradient = loss.value_and_gradient(z, classes, reduction="sum")
        diagonal = loss.hessian_diagonal(z, classes, reduction="sum")
        product = loss.hessian_product(z, classes, v, reduction="sum")
        for result in (gradient, diagonal, product):
            assert not result[3].any()
            assert np.isnan(result[5]).any()
            assert np.isfinite(np.delete(result, 5, axis=0)).all()
