"""The corners: what does not count, what is masked, what is empty, and what is wrong."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

import kullback
import kullback.torch as kt
from kullback.errors import InputError
from kullback.kernels import cpu
from kullback.torch import native, plain, rows
from kullback.torch.rows import class_batch
from kullback.torch.settings import row_settings

INF, NAN = math.inf, math.nan
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def differentiated(logits, target, function=kt.cross_entropy, **keywords):
    logits = logits.clone().requires_grad_()
    value = function(logits, target, **keywords)
    return value, torch.autograd.grad(value, logits, torch.ones_like(value))[0]


# ------------------------------------------------------------ what does not count


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", [{}, {"softcap": 3.0, "z_loss": 0.1}], ids=["plain", "z-loss"])
def test_ignored_rows_are_never_looked_at(dtype, reduction, options):
    logits = torch.randn(4, 3).to(dtype)
    target = torch.tensor([0, -100, 2, 1])
    clean, clean_gradient = differentiated(logits, target, reduction=reduction, **options)
    for poison in (NAN, INF, -INF):
        logits[1] = poison
        value, gradient = differentiated(logits, target, reduction=reduction, **options)
        assert torch.equal(value, clean)
        assert torch.equal(gradient, clean_gradient)
        assert (gradient[1] == 0).all()


def test_weight_zero_is_the_same_as_ignored():
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    weight = torch.tensor([1.0, 0.0, 1.0, 1.0])
    logits[1] = NAN
    value, gradient = differentiated(logits, target, sample_weight=weight)
    kept = torch.tensor([0, 2, 3])
    torch.testing.assert_close(value, F.cross_entropy(logits[kept], target[kept]))
    assert (gradient[1] == 0).all()


@pytest.mark.parametrize("function", [kt.cross_entropy, kt.nll_loss])
def test_nothing_counts(function):
    logits, target = torch.randn(2, 3), torch.full((2,), -100)
    value, gradient = differentiated(logits, target, function)
    assert math.isnan(value)
    assert (gradient == 0).all()
    value, gradient = differentiated(logits, target, function, empty="zero")
    assert value == 0
    assert (gradient == 0).all()
    with pytest.raises(InputError, match="no example counts"):
        function(logits, target, empty="error")
    assert function(logits, target, reduction="sum") == 0
    assert (function(logits, target, reduction="none") == 0).all()


def test_empty_batches_are_those_of_torch():
    for shape in ((0, 3), (0, 3, 4), (2, 3, 0)):
        logits = torch.zeros(shape, requires_grad=True)
        target = torch.zeros((shape[0], *shape[2:]), dtype=torch.int64)
        for reduction in ("mean", "sum", "none"):
            ours = kt.cross_entropy(logits, target, reduction=reduction)
            torch.testing.assert_close(ours, F.cross_entropy(logits, target, reduction=reduction), equal_nan=True)
            gradient = torch.autograd.grad(ours, logits, torch.ones_like(ours))[0]
            assert gradient.shape == shape


# ------------------------------------------------------------ masked and broken logits


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, {"z_loss": 1e-6}], ids=["plain", "z-loss"])
def test_a_masked_class_without_mass_costs_nothing(dtype, options):
    logits = torch.tensor([[1.0, -INF, 0.0]]).to(dtype)
    for target in (torch.tensor([0]), torch.tensor([[1.0, 0.0, 0.0]])):
        value, gradient = differentiated(logits, target, **options)
        torch.testing.assert_close(value.float(), torch.tensor(0.3133), rtol=4e-3, atol=1e-4)
        assert gradient[0, 1] == 0
        assert gradient.isfinite().all()


@pytest.mark.parametrize("options", [{}, {"z_loss": 1e-6}], ids=["plain", "z-loss"])
def test_a_masked_class_with_mass_costs_infinity_and_pulls_with_finite_force(options):
    logits = torch.tensor([[1.0, -INF, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    value, gradient = differentiated(logits, torch.tensor([1, 1]), reduction="sum", **options)
    assert value == INF
    torch.testing.assert_close(gradient[0, 1], torch.tensor(-1.0, dtype=torch.float64))
    assert gradient.isfinite().all()
    value, gradient = differentiated(torch.full((1, 3), -INF), torch.tensor([1]), **options)
    assert value == INF
    assert gradient.tolist() == [[0.0, -1.0, 0.0]]


def test_a_broken_row_is_nan_and_alone():
    logits = torch.randn(3, 4)
    logits[1, 2] = NAN
    value, gradient = differentiated(logits, torch.tensor([0, 1, 2]), reduction="none")
    assert value.isnan().tolist() == [False, True, False]
    assert gradient.isnan().all(dim=1).tolist() == [False, True, False]


def test_confident_rows_keep_their_digits():
    logits = torch.tensor([[30.0, 0.0]], requires_grad=True)
    value, gradient = differentiated(logits.detach(), torch.tensor([0]))
    exact = math.log1p(math.exp(-30.0))
    assert abs(value.item() - exact) < 1e-6 * exact
    assert abs(gradient[0, 0].item() + exact) < 1e-6 * exact


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_labels_that_agree_with_infinite_logits_cost_nothing(reduction):
    input = torch.tensor([-INF, INF, 0.0], requires_grad=True)
    target = torch.tensor([0.0, 1.0, 1.0])
    value = kt.binary_cross_entropy_with_logits(input, target, reduction=reduction)
    gradient = torch.autograd.grad(value.sum(), input)[0]
    assert value.isfinite().all()
    assert gradient.tolist()[:2] == [0.0, 0.0]


def test_divergence_of_an_absent_class_is_zero():
    input = torch.tensor([[0.0, -INF]], requires_grad=True)
    target = torch.tensor([[1.0, 0.0]])
    for log_target in (False, True):
        value = kt.kl_div(input, target.log() if log_target else target, reduction="sum", log_target=log_target)
        assert value == 0
        assert torch.autograd.grad(value, input)[0].isfinite().all()


# ------------------------------------------------------------ more than torch


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8, torch.uint8])
def test_narrow_class_indices(dtype):
    logits, target = torch.randn(5, 4), torch.randint(0, 4, (5,))
    assert kt.cross_entropy(logits, target.to(dtype)) == kt.cross_entropy(logits, target)
    assert kt.nll_loss(logits, target.to(dtype)) == kt.nll_loss(logits, target)


def identity(z):
    return torch.eye(z.shape[1], dtype=z.dtype, device=z.device)


EVERY_WAY = {
    "short way": lambda z, y: kt.cross_entropy(z, y),
    "kernel": lambda z, y: kt.cross_entropy(z, y, z.new_ones(z.shape[1])),
    "per example": lambda z, y: kt.cross_entropy(z, y, reduction="none").mean(),
    "examples": lambda z, y: kt.cross_entropy(z, y, z.new_ones(z.shape[1]), denominator="examples"),
    "learnt class weights": lambda z, y: kt.cross_entropy(z, y, z.new_ones(z.shape[1]).requires_grad_()),
    "learnt sample weights": lambda z, y: kt.cross_entropy(z, y, sample_weight=z.new_ones(2).requires_grad_()),
    "statistics": lambda z, y: kt.cross_entropy_with_statistics(z, y)[0],
    "loss object": lambda z, y: kt.functional("poly(epsilon=0)")(z, y),
    "class weights of a loss": lambda z, y: kt.functional(kullback.CrossEntropy(class_weight=[1.0] * z.shape[1]))(z, y),
    "priors": lambda z, y: kt.functional(kullback.CrossEntropy(priors=[1.0] * z.shape[1]))(z, y),
    "nll": lambda z, y: kt.nll_loss(z.log_softmax(1), y, sample_weight=z.new_ones(2)),
    "layer": lambda z, y: kt.linear_cross_entropy(z, identity(z), y),
    "layer, per example": lambda z, y: kt.linear_cross_entropy(z, identity(z), y, reduction="none").mean(),
    "layer, statistics": lambda z, y: kt.linear_cross_entropy_with_statistics(z, identity(z), y)[0],
    "layer in half precision": lambda z, y: kt.linear_cross_entropy_with_statistics(
        z.bfloat16(), identity(z).bfloat16(), y
    )[0].to(z.dtype),
    "layer, loss object": lambda z, y: kt.linear_loss(z, identity(z), y, "poly(epsilon=0)"),
    "transformed": lambda z, y: torch.func.vmap(lambda z: kt.cross_entropy(z, y))(z[None])[0],
    "overwritten": lambda z, y: kt.cross_entropy(z * 1, y, overwrite_input=True),
}


@pytest.mark.parametrize("name", EVERY_WAY)
@pytest.mark.parametrize("on_device", [False, True])
def test_narrow_class_indices_are_compared_as_the_numbers_they_are(name, on_device, monkeypatch):
    """In uint8 −100 would be class 156, and 256 classes would be none."""
    z = torch.randn(2, 300).bfloat16().double()
    y = torch.tensor([156, 3])
    expected, wanted = differentiated(z, y, F.cross_entropy)
    if on_device:
        monkeypatch.setattr(native, "runs", lambda tensor: False)
    found, gradient = differentiated(z, y.to(torch.uint8), EVERY_WAY[name])
    close = {"rtol": 2e-2, "atol": 1e-2} if name == "layer in half precision" else {}
    torch.testing.assert_close(found, expected, **close)
    torch.testing.assert_close(gradient, wanted, **close)


def test_second_derivatives_with_narrow_class_indices():
    z, y = torch.randn(2, 300, dtype=torch.float64), torch.tensor([156, 3], dtype=torch.uint8)
    found, wanted = (
        torch.func.hessian(lambda z, f=f, y=y: f(z, y))(z)
        for f, y in ((kt.cross_entropy, y), (F.cross_entropy, y.long()))
    )
    torch.testing.assert_close(found, wanted)


def test_narrow_class_indices_out_of_range_are_named():
    for target, ignored in ((torch.tensor([0, 156], dtype=torch.uint8), -100), (torch.tensor([0, -1]).char(), 255)):
        for function in (kt.cross_entropy, kt.nll_loss):
            with pytest.raises(IndexError, match=rf"Target {target[1]} .*target\[1\].*0 to 3"):
                function(torch.randn(2, 4), target, ignore_index=ignored)


def test_a_mixture_is_its_dense_target():
    logits = torch.randn(5, 4, dtype=torch.float64)
    first, second = torch.randint(0, 4, (5,)), torch.randint(0, 4, (5,))
    share = torch.rand(5, dtype=torch.float64)
    weight = torch.rand(4, dtype=torch.float64)
    one_hot = torch.eye(4, dtype=torch.float64)
    dense = share[:, None] * one_hot[first] + (1 - share)[:, None] * one_hot[second]
    for keywords in ({}, {"weight": weight}, {"label_smoothing": 0.2, "reduction": "none"}):
        value, gradient = differentiated(logits, kt.Mixture(first, second, share), **keywords)
        expected, wanted = differentiated(logits, dense, F.cross_entropy, **keywords)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(gradient, wanted)


def test_sample_weights_and_their_gradient():
    logits = torch.randn(5, 4, dtype=torch.float64)
    target = torch.tensor([0, 1, 2, -100, 3])
    weight = torch.rand(5, dtype=torch.float64)
    value, gradient = differentiated(logits, target, sample_weight=weight)
    per_example, _ = differentiated(logits, target, F.cross_entropy, reduction="none")
    counted = weight * (target != -100)
    torch.testing.assert_close(value, (weight * per_example).sum() / counted.sum())
    learnt = weight.clone().requires_grad_()
    again, same = differentiated(logits, target, sample_weight=learnt)
    torch.testing.assert_close(again, value)
    torch.testing.assert_close(same, gradient)
    assert torch.autograd.gradcheck(lambda w: kt.cross_entropy(logits, target, sample_weight=w), learnt)


def test_the_denominator_is_a_choice():
    logits, target, weight = torch.randn(4, 3), torch.tensor([0, 1, 2, -100]), torch.tensor([1.0, 2.0, 5.0])
    total = kt.cross_entropy(logits, target, weight, reduction="sum")
    torch.testing.assert_close(kt.cross_entropy(logits, target, weight), total / 8)
    torch.testing.assert_close(kt.cross_entropy(logits, target, weight, denominator="examples"), total / 3)
    torch.testing.assert_close(
        kt.nll_loss(logits, target, weight, denominator="examples") * 3,
        -(logits[0, 0] + 2 * logits[1, 1] + 5 * logits[2, 2]),
    )


def test_softcap_temperature_and_z_loss_are_their_formulas():
    logits, target = 4 * torch.randn(6, 5, dtype=torch.float64), torch.randint(0, 5, (6,))
    capped = (3.0 * torch.tanh(logits / 3.0)) / 1.5
    expected = F.cross_entropy(capped, target) + 0.2 * torch.logsumexp(capped, dim=1).square().mean()
    torch.testing.assert_close(kt.cross_entropy(logits, target, softcap=3.0, temperature=1.5, z_loss=0.2), expected)
    loss = kullback.CrossEntropy(softcap=3.0, temperature=1.5, z_loss=0.2)
    torch.testing.assert_close(expected.item(), loss(logits.numpy(), target.numpy()))


@pytest.mark.parametrize("options", [{}, {"softcap": 5.0}])
def test_statistics_come_from_the_same_pass(options):
    logits, target = torch.randn(2, 4, 3), torch.randint(0, 4, (2, 3))
    target[0, 0] = -100
    value, found = kt.cross_entropy_with_statistics(logits, target, **options)
    torch.testing.assert_close(value, kt.cross_entropy(logits, target, **options))
    counts = target != -100
    assert torch.equal(found.prediction, torch.where(counts, logits.argmax(dim=1), -1))
    assert found.accuracy == (found.prediction == target)[counts].float().mean()
    x = logits if not options else 5 * torch.tanh(logits / 5)
    torch.testing.assert_close(found.log_sum_exp, torch.where(counts, torch.logsumexp(x, dim=1), 0.0))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("composite", [False, True])
@pytest.mark.parametrize("on_device", [False, True])
def test_rows_without_a_largest_logit_have_no_prediction(soft, composite, on_device, monkeypatch):
    logits = torch.tensor([[0.0, 1.0], [torch.nan, 1.0], [torch.inf, 1.0], [-torch.inf, -torch.inf], [2.0, 2.0]])
    target = torch.tensor([1, 0, 0, 0, 1])
    if soft:
        target = F.one_hot(target).float()
    weight = torch.ones(2, requires_grad=composite)
    if on_device:
        monkeypatch.setattr(native, "runs", lambda tensor: False)
    _, found = kt.cross_entropy_with_statistics(logits, target, weight)
    assert found.prediction.tolist() == [1, -1, -1, 0, 0]
    assert found.accuracy == 2 / 5
    expected = torch.tensor([1.3132617, torch.nan, torch.nan, -torch.inf, 2.6931472])
    torch.testing.assert_close(found.log_sum_exp, expected, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_gradient_can_take_the_place_of_the_logits(dtype):
    logits, target = torch.randn(6, 4).to(dtype), torch.tensor([0, 1, 2, 3, -100, 0])
    value, gradient = differentiated(logits, target, label_smoothing=0.1)
    leaf = logits.clone().requires_grad_()
    scores = leaf * 1
    place = scores.data_ptr()
    loss = kt.cross_entropy(scores, target, label_smoothing=0.1, overwrite_input=True)
    loss.backward()
    assert loss == value
    assert torch.equal(leaf.grad, gradient)
    assert scores.data_ptr() == place
    assert torch.equal(scores.detach(), gradient)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda leaf: leaf[:1].mul(1).expand(6, 4), NotImplementedError, "expand"),
        (lambda leaf: leaf.mul(1).as_strided((3, 4), (3, 1)), NotImplementedError, "share"),
        (lambda leaf: leaf.mul(1)[:, :, None].expand(-1, -1, 2).contiguous(), NotImplementedError, "lie together"),
        (lambda leaf: leaf, RuntimeError, "leaf Variable"),
        (lambda leaf: leaf[1:], RuntimeError, "view of one"),
        (lambda leaf: leaf.mul(1).half(), NotImplementedError, "float16"),
    ],
    ids=["expanded", "overlapping", "classes apart", "leaf", "view of a leaf", "float16"],
)
def test_what_cannot_be_overwritten_is_left_as_it_is(make, error, says):
    leaf = torch.randn(6, 4, requires_grad=True)
    logits = make(leaf)
    before = logits.detach().clone()
    target = torch.zeros(logits.shape[0], *logits.shape[2:], dtype=torch.int64)
    with pytest.raises(error, match=says) as caught:
        kt.cross_entropy(logits, target, overwrite_input=True)
    assert isinstance(caught.value, InputError)
    assert torch.equal(logits.detach(), before)


@pytest.mark.parametrize(
    "lay",
    [
        lambda z: z.movedim(1, -1).contiguous().movedim(-1, 1),
        lambda z: z[:, :, :1, :1].contiguous(),
        lambda z: z[:1, :, 0].mT.contiguous().mT,
        lambda z: z[:, :, 0, 0].t().contiguous().t(),
    ],
    ids=["classes last", "one place", "one example", "columns first"],
)
def test_logits_of_more_dimensions_can_be_overwritten_where_they_lie(lay):
    leaf = lay(torch.randn(2, 4, 3, 5)).requires_grad_()
    logits = leaf * 1
    assert logits.stride() == leaf.stride()
    target = torch.randint(0, 4, (logits.shape[0], *logits.shape[2:]))
    expected = torch.autograd.grad(kt.cross_entropy(leaf, target), leaf)[0]
    kt.cross_entropy(logits, target, overwrite_input=True).backward()
    torch.testing.assert_close(leaf.grad, expected)
    torch.testing.assert_close(logits.detach(), expected)
    with torch.no_grad():  # a leaf has nothing to lose where there is no graph, as in PyTorch
        kt.cross_entropy(leaf, target, overwrite_input=True)
    torch.testing.assert_close(leaf.detach(), expected)


def test_an_overwritten_gradient_has_no_second_derivative():
    leaf = torch.randn(3, 4, requires_grad=True)
    loss = kt.cross_entropy(leaf * 1, torch.tensor([0, 1, 2]), overwrite_input=True)
    with pytest.raises(NotImplementedError, match="overwrite_input=True has no second derivative"):
        torch.autograd.grad(loss, leaf, create_graph=True)


def test_overwriting_what_another_gradient_needs_is_caught():
    leaf = torch.randn(3, 4, requires_grad=True)
    scores = leaf.exp()  # keeps its result for its own gradient
    loss = kt.cross_entropy(scores, torch.tensor([0, 1, 2]), overwrite_input=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_gradients_can_be_asked_for_again():
    logits = torch.randn(3, 4, requires_grad=True)
    loss = kt.cross_entropy(logits, torch.tensor([0, 1, 2]))
    once = torch.autograd.grad(loss, logits, retain_graph=True)[0].clone()
    for times in (1, 2, 3):
        loss.backward(retain_graph=True)
        torch.testing.assert_close(logits.grad, times * once)
    assert logits.grad.grad_fn is None
    (0.25 * loss).backward()
    torch.testing.assert_close(logits.grad, 3.25 * once)


def test_threads_change_no_bit():
    logits, target = torch.randn(3000, 40), torch.randint(0, 40, (3000,))
    before = kullback.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            kullback.set_num_threads(threads)
            results.append(differentiated(logits.bfloat16(), target) + differentiated(logits, target))
    finally:
        kullback.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_float16_means_do_not_underflow():
    """Gradients of a mean over many rows vanish in float16 unless the loss scale is in them from the start."""
    logits = torch.zeros(70000, 2, dtype=torch.float16, requires_grad=True)
    (kt.cross_entropy(logits, torch.zeros(70000, dtype=torch.int64)) * 32768.0).backward()
    torch.testing.assert_close(logits.grad[0, 1].item(), 0.5 * 32768 / 70000, rtol=1e-3, atol=0)


def test_rows_need_not_lie_together():
    logits, target = torch.randn(8, 6).t()[::2], torch.randint(0, 8, (3,))
    assert not logits.is_contiguous()
    value, gradient = differentiated(logits, target)
    expected, wanted = differentiated(logits.contiguous(), target)
    assert value == expected
    assert torch.equal(gradient, wanted)


LABELS = {
    "labels": lambda z, y: kt.binary_cross_entropy_with_logits(z, F.one_hot(y, 4)),
    "labels, per example": lambda z, y: kt.binary_cross_entropy_with_logits(z, F.one_hot(y, 4), reduction="none").sum(),
    "loss object on labels": lambda z, y: kt.functional("binary_cross_entropy")(z, F.one_hot(y, 4).to(z)),
    "soft rows below zero": lambda z, y: kt.cross_entropy(z, 2.0 * F.one_hot(y, 4) - 0.25),
    "divergence": lambda z, y: kt.kl_div(z.log_softmax(1), F.one_hot(y, 4).to(z), reduction="batchmean"),
}


@pytest.mark.filterwarnings("ignore:soft targets below 0")
@pytest.mark.parametrize("name", [*EVERY_WAY, *LABELS])
def test_the_default_device_is_not_where_results_are_made(name):
    function = (EVERY_WAY | LABELS)[name]
    z, y = torch.randn(2, 4, dtype=torch.float64), torch.tensor([1, 3])
    expected = differentiated(z, y, function)
    with torch.device("meta"):
        found = differentiated(z, y, function)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


# ------------------------------------------------------------ what PyTorch takes though it is odd


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "options", [{}, {"label_smoothing": 0.1}, {"weight": torch.tensor([1.0, 2.0, 0.5])}, {"reduction": "none"}]
)
def test_soft_targets_below_zero_are_used_with_a_warning(options, dtype):
    options = {name: value.to(dtype) if name == "weight" else value for name, value in options.items()}
    logits, target = torch.randn(4, 3).to(dtype), torch.randn(4, 3).to(dtype)
    with pytest.warns(UserWarning, match="below 0 are used as they are"):
        value, gradient = differentiated(logits, target, **options)
    exact = {name: value.double() if name == "weight" else value for name, value in options.items()}
    expected, wanted = differentiated(logits.double(), target.double(), F.cross_entropy, **exact)
    # terms of either sign, several times as large as their sum; in float64 what is expected is as inexact as the value
    close = {"rtol": 4 * torch.finfo(dtype).eps, "atol": 4 * torch.finfo(dtype).eps}
    torch.testing.assert_close(value.double(), expected, **close)
    torch.testing.assert_close(gradient.double(), wanted, **close)


@pytest.mark.filterwarnings("ignore:soft targets below 0")
def test_soft_targets_below_zero_where_the_gradient_takes_the_place_of_the_logits():
    target, logits = torch.randn(4, 3), torch.randn(4, 3)
    value, gradient = differentiated(logits, target, F.cross_entropy)
    leaf = logits.clone().requires_grad_()
    loss = kt.cross_entropy(leaf * 1, target, overwrite_input=True)
    loss.backward()
    torch.testing.assert_close((loss.detach(), leaf.grad), (value, gradient))
    inputs, identity = logits.clone().requires_grad_(), torch.eye(3)
    loss = kt.linear_cross_entropy(inputs, identity, target)
    torch.testing.assert_close((loss.detach(), torch.autograd.grad(loss, inputs)[0]), (value, gradient))
    absent = torch.zeros(4)
    assert (
        kt.cross_entropy(logits, target, sample_weight=absent, empty="zero") == 0
    )  # rows that do not count are not read


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "options", [{}, {"pos_weight": torch.tensor([1.0, 2.0, 0.5])}, {"weight": torch.tensor([[0.5], [1], [2], [3]])}]
)
def test_labels_outside_0_and_1_are_used_with_a_warning(options, reduction, dtype):
    options = {name: value.to(dtype) for name, value in options.items()}
    exact = {name: value.double() for name, value in options.items()}
    logits = torch.randn(4, 3).to(dtype)
    for target in (torch.randn(4, 3).to(dtype), torch.randint(-1, 3, (4, 3))):
        with pytest.warns(UserWarning, match=r"outside \[0, 1\] are used as they are"):
            value, gradient = differentiated(
                logits, target, kt.binary_cross_entropy_with_logits, reduction=reduction, **options
            )
        expected, wanted = differentiated(
            logits.double(), target.double(), F.binary_cross_entropy_with_logits, reduction=reduction, **exact
        )
        close = {"rtol": 4 * torch.finfo(dtype).eps, "atol": 4 * torch.finfo(dtype).eps}
        torch.testing.assert_close(value.double(), expected, **close)
        torch.testing.assert_close(gradient.double(), wanted, **close)


@pytest.mark.filterwarnings("ignore:labels outside")
def test_second_derivatives_of_labels_outside_0_and_1():
    logits, target = torch.randn(4, 3, dtype=torch.float64, requires_grad=True), torch.randn(4, 3, dtype=torch.float64)
    for reduction in ("mean", "none"):

        def loss(z, reduction=reduction):
            return kt.binary_cross_entropy_with_logits(z, target, reduction=reduction)

        assert torch.autograd.gradcheck(loss, logits, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(loss, logits)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_soft_rows_of_no_classes_are_an_empty_batch(smoothing):
    logits = torch.zeros(5, 0)
    for reduction in ("mean", "sum", "none"):
        found = kt.cross_entropy(logits, torch.zeros(5, 0), reduction=reduction, label_smoothing=smoothing)
        wanted = F.cross_entropy(logits, torch.zeros(5, 0), reduction=reduction, label_smoothing=smoothing)
        torch.testing.assert_close(found, wanted, equal_nan=True)
    assert kt.cross_entropy(logits, torch.full((5,), -100)).isnan()  # as in PyTorch: nothing counts


def test_our_function_may_stand_in_the_place_of_pytorchs(monkeypatch):
    logits, target = torch.randn(4, 3).log_softmax(1), torch.tensor([0, 1, 2, 0])
    arguments = {
        "cross_entropy": (logits, target),
        "nll_loss": (logits, target),
        "kl_div": (logits, torch.rand(4, 3)),
        "binary_cross_entropy_with_logits": (logits, torch.rand(4, 3)),
    }
    wanted = {name: getattr(F, name)(*tensors, reduction="sum") for name, tensors in arguments.items()}
    for name in arguments:
        monkeypatch.setattr(F, name, getattr(kt, name))
    for name, tensors in arguments.items():
        torch.testing.assert_close(getattr(F, name)(*tensors, reduction="sum"), wanted[name])


# ------------------------------------------------------------ softcap and z-loss


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n_classes", [3, 70, 5000])
@pytest.mark.parametrize("form", ["indices", "soft", "mixture"])
def test_softcap_and_z_loss_run_in_the_kernels(form, n_classes, dtype, monkeypatch):
    options = {"softcap": 4.0, "z_loss": 0.1, "temperature": 1.5, "label_smoothing": 0.1}
    logits = (4 * torch.randn(6, n_classes)).to(dtype)
    first = torch.randint(0, n_classes, (6,))
    target = {
        "indices": first,
        "soft": torch.rand(6, n_classes).softmax(1),
        "mixture": kt.Mixture(first, first.flip(0), 0.3),
    }[form]
    settings = row_settings(0.1, 1.5, 4.0, 0.1, -100)
    exact = logits.double().requires_grad_()
    batch = class_batch(exact, target, None, None, settings)
    expected = plain.losses(settings, exact, batch.target, None, None).mean()
    wanted = torch.autograd.grad(expected, exact)[0]
    with monkeypatch.context() as patched:
        patched.setattr(plain, "PlainRows", None)  # the way of ordinary operations is closed
        value, gradient = differentiated(logits, target, **options)
        layer = torch.eye(n_classes, dtype=dtype)
        if dtype in (torch.float64, torch.float32) and n_classes < 100:
            torch.testing.assert_close(kt.linear_cross_entropy(logits, layer, target, **options), value)
    rounding = max(torch.finfo(dtype).eps, 1e-6 if dtype != torch.float64 else 0)
    # in float64 what is expected is as inexact as the value
    assert abs(value - expected) <= 4 * rounding * abs(expected)
    assert ((gradient - wanted).abs() <= 2 * rounding * wanted.abs().max() + 2.0**-24).all()


# ------------------------------------------------------------ wrong input

Z = torch.randn(3, 4)
Y = torch.tensor([0, 1, 2])

WRONG = {
    "batch sizes": lambda f: f(Z, Y[:2]),
    "class too large": lambda f: f(Z, torch.tensor([0, 1, 7])),
    "class negative": lambda f: f(Z, torch.tensor([0, 1, -1])),
    "float indices": lambda f: f(Z, Y.float()),
    "soft rows of another width": lambda f: f(Z, torch.rand(3, 5)),
    "integer soft rows": lambda f: f(Z, torch.ones(3, 4, dtype=torch.int64)),
    "weights of another length": lambda f: f(Z, Y, weight=torch.ones(3)),
    "smoothing above 1": lambda f: f(Z, Y, label_smoothing=1.5),
    "unknown reduction": lambda f: f(Z, Y, reduction="average"),
    "ignored soft rows": lambda f: f(Z, torch.rand(3, 4), ignore_index=1),
    "integer logits": lambda f: f(Z.long(), Y),
    "no classes": lambda f: f(torch.zeros(2, 0), torch.zeros(2, dtype=torch.int64)),
    "a column of indices": lambda f: f(torch.zeros(3, 1), Y[:, None]),
    "images of another size": lambda f: f(torch.zeros(2, 3, 4), torch.zeros(2, 5, dtype=torch.int64)),
    "a list": lambda f: f(Z, [0, 1, 2]),
    "two devices": lambda f: f(Z.to("meta"), Y),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_are_of_the_type_that_torch_raises(case):
    with pytest.raises((RuntimeError, ValueError, IndexError, TypeError)) as theirs:
        WRONG[case](F.cross_entropy)
    with pytest.raises(type(theirs.value)) as ours:
        WRONG[case](kt.cross_entropy)
    assert isinstance(ours.value, InputError)


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        (lambda: kt.cross_entropy(Z, torch.tensor([0, 9, 1])), IndexError, r"Target 9 .*target\[1\].*0 to 3"),
        (
            lambda: kt.cross_entropy(torch.zeros(2, 3, 4), torch.tensor([[0, 0, 0, 0], [0, 0, 5, 0]])),
            IndexError,
            r"Target 5 .*target\[1, 2\].*0 to 2",
        ),
        (
            lambda: kt.functional("cross_entropy")(Z, Z.softmax(1) - 1),
            RuntimeError,
            r"example\[0\].*class 0.*at least 0",
        ),
        (lambda: kt.cross_entropy(Z, torch.full((3, 4), NAN)), RuntimeError, "soft target nan"),
        (lambda: kt.cross_entropy(Z, kt.Mixture(Y, Y + 2, 0.5)), IndexError, r"Target 4 .*target\[2\]"),
        (lambda: kt.cross_entropy(Z, kt.Mixture(Y, Y, 1.5)), RuntimeError, "share must be between"),
        (lambda: kt.cross_entropy(Z, kt.Mixture(Y, Y, torch.full((3,), -1.0))), RuntimeError, r"share -1\.0"),
        (lambda: kt.cross_entropy(Z, Y, sample_weight=torch.tensor([1.0, -1.0, 1.0])), RuntimeError, "example 1"),
        (lambda: kt.cross_entropy(Z, Y, sample_weight=torch.ones(4)), RuntimeError, "one weight per example"),
        (lambda: kt.cross_entropy(Z, Y, temperature=0.0), RuntimeError, "temperature"),
        (lambda: kt.cross_entropy(Z, Y, softcap=-1.0), RuntimeError, "softcap"),
        (lambda: kt.cross_entropy(Z, Y, z_loss=-1.0), RuntimeError, "z_loss"),
        (lambda: kt.cross_entropy(Z, Y, denominator="rows"), ValueError, "'weights', 'examples'"),
        (lambda: kt.cross_entropy(Z, Y, empty="none"), ValueError, "'nan', 'zero', 'error'"),
        (lambda: kt.cross_entropy(torch.tensor(1.0), Y), RuntimeError, "scalar"),
        (lambda: kt.cross_entropy(torch.zeros(3, 4, dtype=torch.int64), Y), NotImplementedError, r"\.float\(\)"),
        (lambda: kt.linear_cross_entropy(torch.zeros(3, 4, dtype=torch.int32), Z, Y), NotImplementedError, "float"),
        (lambda: kt.nll_loss(torch.zeros(3, 4, dtype=torch.int64), Y), NotImplementedError, "floating point"),
        (lambda: kt.cross_entropy(Z.to_sparse(), Y), NotImplementedError, "to_dense"),
        (lambda: kt.cross_entropy(Z, Y, reduction="none", overwrite_input=True), NotImplementedError, "overwrite"),
        (lambda: kt.nll_loss(Z, torch.rand(3)), RuntimeError, "class indices"),
        (lambda: kt.nll_loss(Z, torch.tensor([0, 7, 1])), IndexError, r"Target 7 .*target\[1\].*0 to 3"),
        (
            lambda: kt.nll_loss(torch.zeros(2, 3, 4), torch.tensor([[0, 1, 2, 0], [1, 5, 0, 0]])),
            IndexError,
            r"Target 5 .*target\[1, 1\].*0 to 2",
        ),
        (lambda: kt.nll_loss(Z, Y, sample_weight=torch.tensor([1.0, -1.0, 1.0])), RuntimeError, "example 1"),
        (lambda: kt.nll_loss(Z, Y, sample_weight=[1.0, 1.0, 1.0]), TypeError, "sample_weight must be a Tensor"),
        (lambda: kt.nll_loss(Z, Y, sample_weight=torch.ones(2)), RuntimeError, "one weight per example"),
        (lambda: kt.nll_loss(Z, Y, weight=[1.0] * 4), TypeError, "weight must be a Tensor"),
        (lambda: kt.nll_loss(torch.tensor(1.0), Y), RuntimeError, "scalar"),
        (lambda: kt.nll_loss(Z, Y[:2]), ValueError, "batch_size"),
        (lambda: kt.cross_entropy(Z, Y, sample_weight=torch.ones(3) * 1j), RuntimeError, "real numbers"),
        (lambda: kt.cross_entropy(Z, kt.Mixture(Y, Y, [0.5, 0.5, 0.5])), TypeError, "share must be a number"),
        (lambda: kt.binary_cross_entropy_with_logits(Z, Y), ValueError, "cross_entropy"),
        (lambda: kt.binary_cross_entropy_with_logits(Z, INF * torch.ones(3, 4)), RuntimeError, r"target\[0, 0\].*inf"),
        (
            lambda: kt.binary_cross_entropy_with_logits(Z, NAN * torch.ones(3, 4), reduction="none"),
            RuntimeError,
            "must be finite",
        ),
        (lambda: kt.nll_loss(Z, torch.zeros(3, 2).long()), RuntimeError, r"multi-target not supported, got \[3, 2\]"),
        (lambda: kt.cross_entropy(Z, torch.zeros(3, 2).long()), RuntimeError, "0D or 1D target tensor expected"),
        (lambda: kt.nll_loss(Z[0], Y), ValueError, "For 1D input, 1D target must have size 1, got"),
        (lambda: kt.cross_entropy(Z[0], Y), ValueError, "For 1D input, 1D target must have size 1, got"),
        (
            lambda: kt.binary_cross_entropy_with_logits(Z, torch.ones(3, 4), pos_weight=torch.ones(3)),
            RuntimeError,
            "broadcast",
        ),
        (lambda: kt.cross_entropy(Z, Y, label_smoothing="0.1"), TypeError, "label_smoothing must be a number, not str"),
        (lambda: kt.cross_entropy(Z, Y, temperature=None), TypeError, "temperature must be a number"),
        (lambda: kt.cross_entropy(Z, Y, ignore_index=1.5), TypeError, "ignore_index must be an integer, not float"),
        (lambda: kt.cross_entropy(Z, Y, ignore_index=2**63), ValueError, "64 bits"),
        (lambda: kt.kl_div(Z, torch.rand(3, 2)), RuntimeError, "does not broadcast"),
        (lambda: kt.kl_div(Z, Y), NotImplementedError, "floating point"),
    ],
)
def test_errors_say_what_to_change(wrong, error, says):
    with pytest.raises(error, match=says) as caught:
        wrong()
    assert isinstance(caught.value, InputError)


P = Z.softmax(1)
ELSEWHERE = {
    "target": lambda away: kt.cross_entropy(Z, away(Y)),
    "soft target": lambda away: kt.cross_entropy(Z, away(P)),
    "weight": lambda away: kt.cross_entropy(Z, Y, away(Z[0])),
    "sample_weight": lambda away: kt.cross_entropy(Z, Y, sample_weight=away(Z[:, 0])),
    "target.second": lambda away: kt.cross_entropy(Z, kt.Mixture(Y, away(Y), 0.5)),
    "target.share": lambda away: kt.cross_entropy(Z, kt.Mixture(Y, Y, away(P[:, 0]))),
    "target of nll_loss": lambda away: kt.nll_loss(Z, away(Y)),
    "weight of nll_loss": lambda away: kt.nll_loss(Z, Y, away(Z[0])),
    "sample_weight of nll_loss": lambda away: kt.nll_loss(Z, Y, sample_weight=away(Z[:, 0])),
    "labels": lambda away: kt.binary_cross_entropy_with_logits(Z, away(P)),
    "weight of labels": lambda away: kt.binary_cross_entropy_with_logits(Z, P, away(P)),
    "pos_weight": lambda away: kt.binary_cross_entropy_with_logits(Z, P, pos_weight=away(P[0])),
    "divergence": lambda away: kt.kl_div(Z, away(P)),
    "layer": lambda away: kt.linear_cross_entropy(Z, away(Z), Y),
    "bias": lambda away: kt.linear_cross_entropy(Z, Z, Y, linear_bias=away(Z[:, 0])),
    "target of a layer": lambda away: kt.linear_cross_entropy(Z, Z, away(Y)),
    "target of a loss object": lambda away: kt.functional("focal")(Z, away(Y)),
    "labels of a loss object": lambda away: kt.functional("binary_cross_entropy")(Z, away(P)),
    "sample_weight of labels": lambda away: kt.functional("binary_cross_entropy")(Z, P, sample_weight=away(P[:, 0])),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_tensors_of_two_devices_are_refused_by_name(name):
    with pytest.raises(
        RuntimeError, match=r"on the same device.*on cpu and .* on meta; move it with \.to\('cpu'\)"
    ) as caught:
        ELSEWHERE[name](lambda tensor: tensor.to("meta"))
    assert isinstance(caught.value, InputError)


SPARSE = {
    "logits": lambda odd: kt.cross_entropy(odd(Z), Y),
    "target": lambda odd: kt.cross_entropy(Z, odd(Y)),
    "weight": lambda odd: kt.cross_entropy(Z, Y, odd(Z[0])),
    "log-probabilities": lambda odd: kt.nll_loss(odd(Z), Y),
    "target of nll_loss": lambda odd: kt.nll_loss(Z, odd(Y)),
    "labels": lambda odd: kt.binary_cross_entropy_with_logits(Z, odd(P)),
    "weight of labels": lambda odd: kt.binary_cross_entropy_with_logits(Z, P, odd(P)),
    "divergence": lambda odd: kt.kl_div(Z, odd(P)),
    "layer": lambda odd: kt.linear_cross_entropy(Z, odd(Z), Y),
    "loss object": lambda odd: kt.functional("focal")(odd(Z), Y),
    "loss object on labels": lambda odd: kt.functional("binary_cross_entropy")(Z, odd(P)),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("name", SPARSE)
def test_what_is_not_dense_is_refused_by_name(name):
    for odd, says in (
        (torch.Tensor.to_sparse, r"call \.to_dense\(\)"),
        (lambda t: torch.nested.nested_tensor([t]), "nested"),
    ):
        with pytest.raises(NotImplementedError, match=says) as caught:
            SPARSE[name](odd)
        assert isinstance(caught.value, InputError)


META = {
    "cross-entropy": lambda x, w, y: kt.cross_entropy(x, y),
    "layer": lambda x, w, y: kt.linear_cross_entropy(x, w, y),
    "layer, per example": lambda x, w, y: kt.linear_cross_entropy(x, w, y, reduction="none").sum(),
    "layer, loss object": lambda x, w, y: kt.linear_loss(x, w, y, "focal"),
    "loss object": lambda x, w, y: kt.functional("focal")(x, y),
    "nll": lambda x, w, y: kt.nll_loss(x, y),
    "labels": lambda x, w, y: kt.binary_cross_entropy_with_logits(x, x.detach()),
    "divergence": lambda x, w, y: kt.kl_div(x, x.detach(), reduction="sum"),
}


@pytest.mark.parametrize("name", META)
def test_shapes_alone_are_computed_on_the_meta_device(name):
    x, w = torch.empty(5, 4, device="meta", requires_grad=True), torch.empty(7, 4, device="meta", requires_grad=True)
    value = META[name](x, w, torch.empty(5, dtype=torch.int64, device="meta"))
    assert value.shape == ()
    value.backward()
    assert x.grad.shape == x.shape
    assert x.grad.is_meta


def test_a_device_without_float64_keeps_its_totals_in_float32():
    assert rows.widest_dtype(torch.device("mps")) == torch.float32
    assert rows.widest_dtype(torch.device("cuda")) == torch.float64


def test_the_weight_of_an_example_that_does_not_count_is_no_way_for_its_nan():
    log_p = torch.randn(3, 4).log_softmax(1)
    log_p[1] = NAN
    weights = torch.tensor([1.0, 0.0, 2.0], requires_grad=True)
    loss = kt.nll_loss(log_p, Y, sample_weight=weights)
    assert torch.autograd.grad(loss, weights)[0].isfinite().all()


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        (lambda: kt.check_targets(Z, Y + 2), IndexError, r"Target 4 .*target\[2\].*0 to 3"),
        (lambda: kt.check_targets(4, Y + 2), IndexError, r"Target 4 .*target\[2\].*0 to 3"),
        (lambda: kt.check_targets(3, torch.tensor([[0, 1], [2, 3]])), IndexError, r"Target 3 .*target\[1, 1\]"),
        (lambda: kt.check_targets(Z, kt.Mixture(Y, Y + 2, 0.5)), IndexError, r"Target 4 .*target\[2\]"),
        (lambda: kt.check_targets(Z, torch.full((3, 4), NAN)), RuntimeError, "soft target nan"),
        (lambda: kt.check_targets(Z, Y, sample_weight=-torch.ones(3)), RuntimeError, "sample_weight -1"),
        (lambda: kt.check_targets(Z, Y[:2]), ValueError, "batch_size"),
        (lambda: kt.check_targets(0, Y), RuntimeError, "at least 1"),
        (lambda: kt.check_targets(4, [0, 1]), TypeError, "target must be a Tensor"),
    ],
)
def test_targets_can_be_checked_on_their_own(wrong, error, says):
    with pytest.raises(error, match=says) as caught:
        wrong()
    assert isinstance(caught.value, InputError)


def test_targets_that_can_be_used_pass_the_check():
    kt.check_targets(Z, Y)
    kt.check_targets(Z, torch.tensor([0, 7, 1]), ignore_index=7)
    kt.check_targets(Z, torch.tensor([0, 7, 1]), ignore_index=None, sample_weight=torch.tensor([1.0, 0.0, 1.0]))
    kt.check_targets(4, Z.softmax(1))
    kt.check_targets(4, torch.tensor(3))
    with pytest.raises(IndexError, match="Target -100"):
        kt.check_targets(Z, torch.tensor([0, -100, 1]), ignore_index=None)


@pytest.mark.parametrize("ignored", [(), (1,), (0,), range(3, 70_000, 7)])
def test_a_mean_over_many_examples_of_which_few_or_none_are_ignored(ignored):
    # whether some are is first guessed from a sample of the targets, which sees neither example 1 nor a wrong guess
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(70_000, 3, generator=generator)
    target = torch.randint(0, 3, (70_000,), generator=generator)
    target[list(ignored)] = -100
    found, wanted = (logits.clone().requires_grad_() for _ in range(2))
    value, expected = kt.cross_entropy(found, target), F.cross_entropy(wanted, target)
    value.backward()
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(found.grad, wanted.grad)
    assert not found.grad[list(ignored)].any()
    target[69_999] = 3
    with pytest.raises(IndexError, match=r"target\[69999\]"):
        kt.cross_entropy(found, target)


@pytest.mark.parametrize(
    ("where", "name", "options"),
    [
        (cpu, "cross_entropy_of_indices", {}),
        (native, "evaluate", {"weight": torch.ones(2), "denominator": "examples"}),
    ],
    ids=["the short way", "the long way"],
)
def test_a_wrong_guess_is_not_made_at_every_step(where, name, options, monkeypatch):
    passes = []
    run = getattr(where, name)
    monkeypatch.setattr(where, name, lambda *args, **keywords: passes.append(1) or run(*args, **keywords))
    monkeypatch.setattr(native, "_wary", 0)
    logits, target = torch.randn(70_000, 2), torch.zeros(70_000, dtype=torch.int64)
    for _ in range(3):
        kt.cross_entropy(logits, target, **options)
    assert len(passes) == 3
    target[1] = -100
    for _ in range(native.WARY_BATCHES + 1):
        kt.cross_entropy(logits, target, **options)
    assert len(passes) == 3 + native.WARY_BATCHES + 2
