"""The cases that the tests of these losses in PyTorch's `test/test_nn.py` put, on the functions of this package.

PyTorch's wheel does not contain that file. Each test here is named after the one there whose case it puts; the
references are those of `torch.testing._internal.common_nn`, which the wheel does contain.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

import kullback.torch as kt

pytest.importorskip("expecttest", reason="PyTorch's testing tools need expecttest")
common = pytest.importorskip("torch.testing._internal.common_nn")

REDUCTIONS = ["none", "mean", "sum"]
N, C = 5, 4
SPATIAL = [(), (3,), (2, 3), (2, 3, 4), (2, 3, 2, 3)]
# random soft rows have entries below 0 in these cases, as in PyTorch's
pytestmark = pytest.mark.filterwarnings("ignore:soft targets below 0")


def logits_of(spatial, n=N, dtype=torch.float32):
    return torch.randn(n, C, *spatial, dtype=dtype, requires_grad=True)


def classes_of(spatial, n=N):
    return torch.randint(0, C, (n, *spatial))


def one_hot(target, dtype):
    return F.one_hot(target, C).movedim(-1, 1).to(dtype)


# ------------------------------------------------------------ cross-entropy


@pytest.mark.parametrize("spatial", SPATIAL, ids=str)
def test_cross_entropy_loss_prob_target_all_reductions(spatial):
    input, target = logits_of(spatial), torch.randn(N, C, *spatial, requires_grad=True)
    for reduction, weight in itertools.product(REDUCTIONS, (None, torch.randn(C).abs())):
        output = kt.CrossEntropyLoss(weight=weight, reduction=reduction)(input, target)
        expected = common.loss_reference_fns["CrossEntropyLoss"](input, target, reduction=reduction, weight=weight)
        torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("form", ["index", "prob"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_loss_target_unit_weights(form, reduction):
    for spatial in SPATIAL:
        input = logits_of(spatial)
        target = classes_of(spatial) if form == "index" else torch.randn(N, C, *spatial)
        plain, weighted = (kt.CrossEntropyLoss(weight=w, reduction=reduction) for w in (None, torch.ones(C)))
        torch.testing.assert_close(plain(input, target), weighted(input, target))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_loss_prob_target_no_batch_dim(reduction, weighted):
    input, target = torch.randn(C).log_softmax(-1), torch.randn(C).softmax(-1)
    loss = kt.CrossEntropyLoss(reduction=reduction, weight=torch.randn(C) if weighted else None)
    torch.testing.assert_close(loss(input, target), loss(input[None], target[None]).reshape(()))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_loss_one_hot_target(reduction):
    for spatial in SPATIAL:
        input, target = logits_of(spatial), classes_of(spatial)
        for weight in (None, torch.rand(C)):
            if reduction == "mean" and weight is not None:
                continue  # PyTorch divides by the weights of indices, and by the number of soft rows
            loss = kt.CrossEntropyLoss(weight=weight, reduction=reduction)
            torch.testing.assert_close(loss(input, target), loss(input, one_hot(target, input.dtype)))


@pytest.mark.parametrize("target", [torch.arange(C), torch.randn(3, C)], ids=["index", "prob"])
def test_cross_entropy_label_smoothing_errors(target):
    with pytest.raises(RuntimeError, match=r"label_smoothing must be between 0\.0"):
        kt.CrossEntropyLoss(label_smoothing=1.2)(torch.randn(len(target), C), target)


@pytest.mark.parametrize("smoothing", [0.05, 0.15])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_label_smoothing_consistent_index_target_and_probs(reduction, smoothing):
    for spatial in SPATIAL:
        input, target = logits_of(spatial, 10, torch.float64), classes_of(spatial, 10)
        smoothed = (1 - smoothing) * one_hot(target, torch.float64) + smoothing / C
        torch.testing.assert_close(
            kt.CrossEntropyLoss(reduction=reduction, label_smoothing=smoothing)(input, target),
            kt.CrossEntropyLoss(reduction=reduction)(input, smoothed),
        )


@pytest.mark.parametrize("smoothing", [0.05, 0.15])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_label_smoothing_with_probs(reduction, smoothing):
    for spatial in SPATIAL:
        input, target = logits_of(spatial, 10), torch.randn(10, C, *spatial).log_softmax(1)
        torch.testing.assert_close(
            kt.CrossEntropyLoss(reduction=reduction, label_smoothing=smoothing)(input, target),
            kt.CrossEntropyLoss(reduction=reduction)(input, (1 - smoothing) * target + smoothing / C),
        )


@pytest.mark.parametrize("ignored", [-100, -2, 2])
@pytest.mark.parametrize("weight", [None, torch.tensor([0.3, 0.6])], ids=["plain", "weighted"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_label_smoothing_weight_ignore_indices(reduction, weight, ignored):
    target = torch.tensor([ignored, 1])
    one, other = torch.tensor([[0.3, 0.4], [1, 2]]), torch.tensor([[0.3, 0.6], [1, 2]])
    for smoothing in (0.05, 0.15):
        loss = kt.CrossEntropyLoss(weight, reduction=reduction, label_smoothing=smoothing, ignore_index=ignored)
        assert torch.equal(loss(one, target), loss(other, target))
        if reduction != "none":  # the mean does not count the ignored example either
            torch.testing.assert_close(loss(one, target), loss(other[1:], target[1:]))


def test_cross_entropy_loss_precision():
    input = torch.zeros(128, 2, 768, 20, dtype=torch.float16)  # the sum of the losses is far above float16's largest
    target = torch.zeros(128, 768, 20, dtype=torch.int64)
    assert abs(kt.cross_entropy(input, target).item() - math.log(2)) < 1e-3


def test_cross_entropy_loss_zero_div():
    """Without a batch, or without a place, a mean is NaN and nothing divides by zero."""
    for shape in ((0, C), (2, C, 0), (0, C, 3)):
        input = torch.randn(shape, requires_grad=True)
        value = kt.cross_entropy(input, torch.zeros(shape[0], *shape[2:], dtype=torch.int64))
        assert value.isnan()
        value.backward()
        assert input.grad.shape == input.shape


# ------------------------------------------------------------ NLL, and cross-entropy by the same cases

CASES = [kt.nll_loss, kt.cross_entropy]


@pytest.mark.parametrize("spatial", SPATIAL, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nll_loss_against_the_reference(spatial, reduction):
    input, target = logits_of(spatial).log_softmax(1), classes_of(spatial)
    target.flatten()[::3] = 1
    name = "NLLLossNd" if spatial else "NLLLoss"
    for weight, ignored in itertools.product((None, torch.rand(C)), (-100, 1)):
        choices = {"weight": weight, "ignore_index": ignored, "reduction": reduction}
        expected = common.loss_reference_fns[name](input, target, **choices)
        torch.testing.assert_close(kt.NLLLoss(**choices)(input, target), expected)


@pytest.mark.parametrize("loss", CASES)
def test_nll_loss_mismatched_batch(loss):
    with pytest.raises(ValueError, match=r"Expected.*batch_size"):
        loss(torch.randn(10, 3, requires_grad=True), torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize("loss", CASES)
def test_nll_loss_out_of_bounds_ignore_index(loss):
    input, target = torch.randn(6, 3, requires_grad=True), torch.tensor([0, 1, 255, 0, 1, 2])
    for reduction in ("mean", "none"):
        loss(input, target, ignore_index=255, reduction=reduction).sum().backward()
    assert (input.grad[2] == 0).all()
    assert input.grad.isfinite().all()


@pytest.mark.parametrize("loss", CASES)
def test_nll_loss_invalid_target_dim(loss):
    with pytest.raises(RuntimeError, match="1D target tensor expected"):
        loss(torch.randn(10, 3), torch.zeros(10, 2, dtype=torch.int64))


@pytest.mark.parametrize("loss", CASES)
@pytest.mark.parametrize("shape", [(4,), (1, 3)])
def test_nll_loss_invalid_weights(loss, shape):
    with pytest.raises(RuntimeError, match="weight tensor should be defined either for all 3 classes or no classes"):
        loss(torch.randn(10, 3), torch.zeros(10, dtype=torch.int64), weight=torch.randn(shape))


@pytest.mark.parametrize("loss", CASES)
@pytest.mark.parametrize(("reduction", "wanted"), [("mean", torch.nan), ("sum", 0.0), ("none", None)])
def test_nll_loss_empty_tensor_reductions(loss, reduction, wanted):
    for shape in ((0, 3), (0, 3, 5, 7), (2, 3, 0, 7), (2, 3, 5, 0), (2, 3, 5, 7, 0)):
        input, places = torch.rand(shape, requires_grad=True), (shape[0], *shape[2:])
        output = loss(input, torch.zeros(places, dtype=torch.int64), reduction=reduction)
        expected = torch.empty(places) if wanted is None else torch.tensor(wanted)
        torch.testing.assert_close(output, expected, equal_nan=True)
        output.sum().backward()
        assert input.grad.shape == input.shape


@pytest.mark.parametrize("loss", CASES)
@pytest.mark.parametrize("why", ["total_weight_is_zero", "all_ignored"])
def test_nll_loss_where_nothing_counts(loss, why):
    choices = {"weight": torch.zeros(3)} if why == "total_weight_is_zero" else {"ignore_index": 0}
    for shape in ((2, 3), (2, 3, 5, 7), (2, 3, 5, 7, 9)):
        input, target = torch.ones(shape, requires_grad=True), torch.zeros(shape[0], *shape[2:], dtype=torch.int64)
        assert loss(input, target, reduction="sum", **choices) == 0
        assert loss(input, target, reduction="mean", **choices).isnan()
        assert torch.equal(loss(input, target, reduction="none", **choices), torch.zeros(target.shape))


@pytest.mark.parametrize("module", [kt.NLLLoss, kt.CrossEntropyLoss])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nll_loss_byte_target_matches_long(module, reduction):
    input, target = torch.randn(10, C), torch.randint(0, C, (10,))
    results = []
    for dtype in (torch.int64, torch.uint8):
        leaf = input.clone().requires_grad_()
        output = module(reduction=reduction)(leaf.log_softmax(-1), target.to(dtype))
        output.sum().backward()
        results.append((output, leaf.grad))
    torch.testing.assert_close(*results)


# ------------------------------------------------------------ binary cross-entropy


def test_bce_with_logits_gives_same_result_as_sigmoid_and_bce_loss():
    target, output = torch.rand(64, 4, dtype=torch.float64), torch.rand(64, 4, dtype=torch.float64) - 0.5
    for weight in (None, torch.rand(4, dtype=torch.float64), torch.rand(64, 4, dtype=torch.float64)):
        for reduction in REDUCTIONS:
            torch.testing.assert_close(
                kt.BCEWithLogitsLoss(weight, reduction=reduction)(output, target),
                torch.nn.BCELoss(weight, reduction=reduction)(output.sigmoid(), target),
            )
    output, target = torch.zeros(3, 1) - 200.0, torch.zeros(3, 1)  # where a sigmoid is 0 in float32
    torch.testing.assert_close(kt.BCEWithLogitsLoss()(output, target), torch.nn.BCELoss()(output.sigmoid(), target))


def test_bce_with_logits_has_correct_grad_at_zero():
    for pos_weight, wanted in ((None, -0.5), (torch.tensor([2.0]), -1.0)):
        output = torch.zeros(3, 1, requires_grad=True)
        kt.BCEWithLogitsLoss(pos_weight=pos_weight, reduction="sum")(output, torch.ones(3, 1)).backward()
        torch.testing.assert_close(output.grad, torch.full((3, 1), wanted))


def test_bce_with_logits_broadcasts_weights_and_pos_weights():
    target, output = torch.rand(16, 4, dtype=torch.float64), torch.rand(16, 4, dtype=torch.float64) - 0.5
    for shape in ((4,), (16, 1), (1, 4)):
        weight = torch.rand(shape, dtype=torch.float64)
        for name in ("weight", "pos_weight"):
            torch.testing.assert_close(
                kt.BCEWithLogitsLoss(**{name: weight})(output, target),
                kt.BCEWithLogitsLoss(**{name: weight.expand(16, 4)})(output, target),
            )


def test_bce_with_logits_ones_in_pos_weights_are_the_same_as_none():
    target, output = torch.rand(64, 4), torch.rand(64, 4) - 0.5
    torch.testing.assert_close(
        kt.BCEWithLogitsLoss()(output, target), kt.BCEWithLogitsLoss(pos_weight=torch.ones(64, 4))(output, target)
    )


def test_bce_with_logits_stability():
    output, target = torch.tensor([0.0, -120.0]), torch.tensor([0.0, 1.0])
    weighted = kt.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 1.0]))(output, target)
    assert weighted.isfinite()
    torch.testing.assert_close(weighted, kt.BCEWithLogitsLoss()(output, target))


def test_bce_with_logits_raises_if_target_and_input_are_different_size():
    for a, b in (((5,), (5, 1)), ((5, 1), (5,))):
        with pytest.raises(ValueError, match="size"):
            kt.BCEWithLogitsLoss()(torch.rand(a), torch.rand(b))


# ------------------------------------------------------------ Kullback-Leibler divergence


@pytest.mark.parametrize("log_target", [False, True])
def test_kl_div_against_the_reference(log_target):
    input, target = torch.randn(6, C).log_softmax(1), torch.rand(6, C)
    name = "KLDivLoss_log_target" if log_target else "KLDivLoss"
    given = target.log() if log_target else target
    for reduction in ("sum", "none"):
        expected = common.loss_reference_fns[name](input, given, reduction=reduction)
        torch.testing.assert_close(kt.KLDivLoss(reduction=reduction, log_target=log_target)(input, given), expected)
    # PyTorch's test of "batchmean", and of logarithms against the probabilities themselves
    summed = kt.kl_div(input, given, reduction="sum", log_target=log_target)
    torch.testing.assert_close(kt.kl_div(input, given, reduction="batchmean", log_target=log_target), summed / 6)
    torch.testing.assert_close(kt.kl_div(input, target, reduction="sum"), summed)


@pytest.mark.parametrize("dtypes", itertools.product([torch.float32, torch.float64, torch.bfloat16], repeat=2), ids=str)
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
def test_kl_div_with_diff_type(dtypes):
    input, target = torch.rand(2, 3, 5).log().to(dtypes[0]), torch.rand(2, 3, 5).to(dtypes[1])
    for reduction in ("none", "mean", "batchmean", "sum"):
        output = kt.kl_div(input, target, reduction=reduction)
        expected = F.kl_div(input.double(), target.double(), reduction=reduction)
        assert output.dtype == torch.promote_types(*dtypes)
        torch.testing.assert_close(
            output.double(), expected, rtol=2e-2 if torch.bfloat16 in dtypes else 1e-4, atol=1e-4
        )
