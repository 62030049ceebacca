"""The fused layer against the layer and the loss apart."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

import kullback
import kullback.torch as kt
from kullback.errors import InputError
from kullback.torch import linear_rows

N, D, C = 37, 8, 11


def layer(dtype=torch.float64):
    return [t.to(dtype).requires_grad_() for t in (torch.randn(N, D), torch.randn(C, D), torch.randn(C))]


def targets():
    index = torch.randint(0, C, (N,))
    index[3] = index[20] = -100
    return {
        "indices": index,
        "soft rows": torch.rand(N, C, dtype=torch.float64),
        "mixture": kt.Mixture(index % C, index.flip(0) % C, torch.rand(N, dtype=torch.float64)),
    }


OPTIONS = {
    "plain": {},
    "sum, smoothed": {"reduction": "sum", "label_smoothing": 0.1},
    "class weights": {"weight": torch.linspace(0.5, 2, C, dtype=torch.float64), "label_smoothing": 0.1},
    "per example": {"reduction": "none", "weight": torch.linspace(0.5, 2, C, dtype=torch.float64)},
    "capped": {"z_loss": 0.1, "softcap": 3.0, "temperature": 1.5, "label_smoothing": 0.1},
    "sample weights": {"sample_weight": torch.linspace(0, 1, N, dtype=torch.float64), "denominator": "examples"},
}


def gradients(value, inputs):
    incoming = torch.linspace(1, 2, value.numel(), dtype=torch.float64).bfloat16().reshape(value.shape).to(value.dtype)
    return torch.autograd.grad(value, inputs, incoming)


@pytest.mark.parametrize("form", ["indices", "soft rows", "mixture"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_agrees_with_the_two_steps(form, options, dtype):
    input, weight, bias = layer(dtype)
    target = targets()[form]
    keywords = OPTIONS[options]
    exact = [t.detach().double().requires_grad_() for t in (input, weight, bias)]
    tolerance = {
        torch.float64: {"rtol": 1e-10, "atol": 1e-12},
        torch.float32: {"rtol": 2e-4, "atol": 2e-5},
        torch.bfloat16: {"rtol": 1e-2, "atol": 1e-2},
    }[dtype]
    for with_bias in (False, True):
        inputs = (input, weight, bias) if with_bias else (input, weight)
        wide = exact if with_bias else exact[:2]
        expected = kt.cross_entropy(F.linear(*wide), target, **keywords)
        wanted = gradients(expected, wide)
        for chunk_rows in (None, 5):
            value = kt.linear_cross_entropy(
                input, weight, target, linear_bias=bias if with_bias else None, chunk_rows=chunk_rows, **keywords
            )
            torch.testing.assert_close(value.double(), expected, **tolerance)
            for gradient, want in zip(gradients(value, inputs), wanted, strict=True):
                assert gradient.dtype == dtype
                torch.testing.assert_close(gradient.double(), want, **tolerance)


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="PyTorch 2.13 introduces linear_cross_entropy")
def test_shapes_of_torch():
    for input, weight, target in (
        (torch.randn(N, D), torch.randn(C, D), torch.randint(0, C, (N,))),
        (torch.randn(D), torch.randn(C, D), torch.tensor(3)),
        (torch.randn(4, D), torch.randn(C, 3, 2, D), torch.randint(0, C, (4, 3, 2))),
        (torch.randn(4, D), torch.randn(C, 3, D), torch.rand(4, C, 3)),
    ):
        for reduction in ("mean", "sum", "none"):
            torch.testing.assert_close(
                kt.linear_cross_entropy(input, weight, target, reduction=reduction),
                F.linear_cross_entropy(input, weight, target, reduction=reduction),
            )


def test_sequences_need_no_reshaping():
    input, weight, target = torch.randn(2, 3, D), torch.randn(C, D), torch.randint(0, C, (2, 3))
    losses = kt.linear_cross_entropy(input, weight, target, reduction="none")
    assert losses.shape == (2, 3)
    torch.testing.assert_close(
        losses.flatten(), F.cross_entropy(F.linear(input, weight).reshape(6, C), target.flatten(), reduction="none")
    )
    soft = torch.rand(2, 3, C)
    torch.testing.assert_close(
        kt.linear_cross_entropy(input, weight, soft),
        F.cross_entropy(F.linear(input, weight).reshape(6, C), soft.reshape(6, C)),
    )


@pytest.mark.parametrize(
    "loss", ["focal(gamma=2)", "brier", kullback.CrossEntropy(priors=range(1, C + 1)), "weston_watkins"]
)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_any_softmax_loss(loss, reduction):
    inputs = layer()
    target = targets()["indices"]
    expected = kt.functional(loss)(F.linear(*inputs), target, reduction=reduction)
    value = kt.linear_loss(*inputs[:2], target, loss, linear_bias=inputs[2], reduction=reduction, chunk_rows=6)
    torch.testing.assert_close(value, expected)
    for gradient, want in zip(gradients(value, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(gradient, want)


@pytest.mark.parametrize("with_bias", [False, True])
def test_priors_are_not_rounded_to_half_precision(with_bias):
    loss = kullback.CrossEntropy(priors=[10.0**-k for k in range(C)])
    input, weight, bias = layer(torch.bfloat16)
    target = targets()["indices"]
    inputs = [input, weight, bias][: 2 + with_bias]
    wide = [t.detach().float().requires_grad_() for t in inputs]
    expected = kt.functional(loss)(F.linear(*wide), target, reduction="none")
    value = kt.linear_loss(input, weight, target, loss, linear_bias=bias if with_bias else None, reduction="none")
    rounding = torch.finfo(torch.bfloat16).eps / 2
    assert ((value.float() - expected).abs() <= 1.01 * rounding * expected.abs() + 1e-4).all()
    for found, wanted in zip(gradients(value, inputs), gradients(expected, wide), strict=True):
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), wanted, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics(dtype):
    input, weight, _ = layer(dtype)
    target = targets()["indices"]
    _, found = kt.linear_cross_entropy_with_statistics(input, weight, target, chunk_rows=7)
    logits = F.linear(input.float(), weight.float())
    counts = target != -100
    torch.testing.assert_close(found.log_sum_exp[counts], torch.logsumexp(logits, dim=1)[counts], rtol=1e-4, atol=1e-4)
    assert torch.equal(found.prediction[counts], logits.argmax(dim=1)[counts])
    torch.testing.assert_close(found.accuracy, (logits.argmax(dim=1) == target)[counts].float().mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_logits_are_never_held_as_a_whole(dtype, monkeypatch):
    rows, classes = 96, 2048
    input, weight = torch.randn(rows, D).to(dtype).requires_grad_(), torch.randn(classes, D).to(dtype).requires_grad_()
    target = torch.randint(0, classes, (rows,))
    held = []

    def seen(function):
        def run(*args, **keywords):
            held.extend(a.numel() for a in args if isinstance(a, torch.Tensor) and a.dim() == 2)
            result = function(*args, **keywords)
            held.append(result.numel())
            return result

        return run

    for name, most in (("CHUNK_ELEMENTS", rows * classes // 6), ("BLOCK_ELEMENTS", rows * classes // 8)):
        monkeypatch.setattr(linear_rows, name, most)
    for name in ("mm", "addmm"):
        monkeypatch.setattr(torch, name, seen(getattr(torch, name)))
    monkeypatch.setattr(linear_rows, "ClassBlock", Spied)
    kt.linear_cross_entropy(input, weight, target).backward()
    held += Spied.sizes
    assert max(held) <= rows * classes // 4
    assert len(held) > 6


class Spied(linear_rows.ClassBlock):
    sizes: ClassVar[list[int]] = []

    def __init__(self, settings, logits, *args):
        self.sizes.append(logits.numel())
        super().__init__(settings, logits, *args)


def test_only_what_is_needed_is_computed():
    input, weight, bias = layer()
    target = targets()["indices"]
    for needed in ((True, False), (False, True)):
        x, w = input.detach().requires_grad_(needed[0]), weight.detach().requires_grad_(needed[1])
        value, *stored = torch.ops.kullback.linear_loss(
            x, w, None, target, None, None, None, None, 0.0, 1.0, 0.0, 0.0, -100, False, "", "mean", "weights", "nan",
            [*needed, False], False, None, False, torch.float64, [N],
        )[:4]  # fmt: skip
        assert [t.numel() > 0 for t in stored] == [*needed, False]
        value.backward()
        assert (x.grad is not None, w.grad is not None) == needed
    assert kt.linear_cross_entropy(input.detach(), weight.detach(), target, linear_bias=bias.detach()).grad_fn is None


def test_ignored_rows_are_left_out():
    input, weight, _ = layer()
    target = targets()["indices"]
    poisoned = input.detach().clone()
    poisoned[3] = torch.nan
    poisoned.requires_grad_()
    value = kt.linear_cross_entropy(poisoned, weight, target)
    found = torch.autograd.grad(value, (poisoned, weight))
    expected = torch.autograd.grad(kt.linear_cross_entropy(input, weight, target), (input, weight))
    assert (found[0][3] == 0).all()
    torch.testing.assert_close(found, expected)
    nothing = torch.full((N,), -100)
    assert kt.linear_cross_entropy(input, weight, nothing).isnan()
    value = kt.linear_cross_entropy(input, weight, nothing, empty="zero")
    assert value == 0
    assert all((g == 0).all() for g in torch.autograd.grad(value, (input, weight)))


def _penalised(x, w, target, **keywords):
    """A gradient penalty: the second derivatives of the layer."""
    value = kt.linear_cross_entropy(x, w, target, **keywords)
    slopes = torch.autograd.grad(value, (x, w), create_graph=True)
    return sum(slope.square().sum() for slope in slopes)


WHOLE_LOGITS = {
    "second derivatives": lambda x, w, y: torch.autograd.grad(_penalised(x, w, y), (x, w)),
    "second derivatives, sample weights": lambda x, w, y: torch.autograd.grad(
        _penalised(x, w, y.clamp_min(0), sample_weight=(y != -100).double()), (x, w)
    ),
    "second derivatives, per example": lambda x, w, y: torch.autograd.grad(
        torch.autograd.grad(kt.linear_cross_entropy(x, w, y, reduction="none").square().sum(), w, create_graph=True)[0]
        .square()
        .sum(),
        (x, w),
    ),
    "second derivatives of a loss object": lambda x, w, y: torch.autograd.grad(
        torch.autograd.grad(kt.linear_loss(x, w, y, "focal"), w, create_graph=True)[0].square().sum(), (x, w)
    ),
    "torch.func": lambda x, w, y: torch.func.grad(lambda *t: kt.linear_cross_entropy(*t, y), (0, 1))(
        x.detach(), w.detach()
    ),
    "a learnt class weight": lambda x, w, y: torch.autograd.grad(
        kt.linear_cross_entropy(x, w, y, weight=torch.ones(C, dtype=x.dtype, requires_grad=True)), (x, w)
    ),
    "a learnt sample weight": lambda x, w, y: learnt_sample_weight(
        lambda s: kt.linear_cross_entropy(x, w, y.clamp_min(0), sample_weight=s), (x, w), y
    ),
    "a learnt sample weight on logits": lambda x, w, y: learnt_sample_weight(
        lambda s: kt.cross_entropy(x, y.clamp_min(0) % D, sample_weight=s), (x,), y
    ),
    "several losses an example": lambda x, w, y: torch.autograd.grad(
        kt.linear_cross_entropy(x, torch.stack([w, 2 * w], dim=1), torch.stack([y, y], dim=1)), (x, w)
    ),
}


def learnt_sample_weight(loss, inputs, target):
    weights = torch.where(target == -100, 0.0, 1.5).double().requires_grad_()
    return torch.autograd.grad(loss(weights), (*inputs, weights))


@pytest.mark.parametrize("way", WHOLE_LOGITS)
def test_ignored_rows_are_left_out_of_whole_logits_too(way):
    input, weight, _ = layer()
    target = targets()["indices"]
    poisoned = input.detach().clone()
    poisoned[target == -100] = torch.nan
    found = WHOLE_LOGITS[way](poisoned.requires_grad_(), weight, target)
    clean = input.detach().clone()
    clean[target == -100] = 0.0
    expected = WHOLE_LOGITS[way](clean.requires_grad_(), weight, target)
    torch.testing.assert_close(found, expected)
    assert (found[0][target == -100] == 0).all()
    assert found[0].abs().sum() > 0


def test_derivatives_by_finite_differences():
    input, weight, bias = (t.detach()[:5].clone().requires_grad_() for t in layer())
    target = torch.tensor([0, 1, 2, -100, 4])
    for keywords in ({}, {"reduction": "none"}, {"softcap": 2.0, "z_loss": 0.1}):

        def loss(x, w, b, keywords=keywords):
            return kt.linear_cross_entropy(x, w, target, linear_bias=b, **keywords)

        assert torch.autograd.gradcheck(loss, (input, weight, bias))
        assert torch.autograd.gradgradcheck(loss, (input, weight, bias))
    weights = torch.rand(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: kt.linear_cross_entropy(input, weight, target, sample_weight=s), weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
def test_chunks_change_only_the_order_of_sums(dtype, loss):
    """The bounds of docs/torch.md, on the losses and both gradients; half precision does not go by rows at all."""
    rows, features, classes = 96, 16, 100
    input = torch.randn(rows, features).to(dtype).requires_grad_()
    weight = torch.randn(classes, features).to(dtype).requires_grad_()
    target = torch.randint(0, classes, (rows,))
    target[5] = -100
    results = []
    for chunk in (rows, 7, 1):
        each = kt.linear_loss(input, weight, target, loss, reduction="none", chunk_rows=chunk)
        mean = kt.linear_loss(input, weight, target, loss, chunk_rows=chunk)
        by_row = torch.autograd.grad(each.sum(), input)[0]
        results.append((each.detach(), by_row, torch.autograd.grad(mean, weight)[0], mean.detach()))
    if dtype == torch.bfloat16 and loss == "cross_entropy":
        assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))
        return
    unit = {torch.float64: 2.0**-51, torch.float32: 2.0**-22, torch.bfloat16: 2.0**-8}[dtype]
    largest = (input.abs() @ weight.abs().t()).max().item()  # S
    w, x = weight.abs().max().item(), input.abs().max().item()
    if dtype == torch.bfloat16:  # float32 inside; what differs is how the results round
        bounds = [unit * t.abs().max() for t in results[0]]
    else:
        order = features * largest
        bounds = [
            unit * (order + 2 * results[0][0].abs().max()),
            unit * (2 * order + classes) * w,
            unit * (2 * order + rows) * x,
            unit * (order + 2 * results[0][0].abs().max()),
        ]
    for other in results[1:]:
        for one, two, bound in zip(results[0], other, bounds, strict=True):
            assert (one - two).abs().max() <= bound


def test_many_chunks_keep_the_digits_of_the_weight_gradient():
    """In practice far below the bound: 2⁻²² of the gradient's largest entry for each doubling of the number of rows."""
    input, weight = torch.randn(512, 16), torch.randn(100, 16, requires_grad=True)
    target = torch.randint(0, 100, (512,))
    results = [
        torch.autograd.grad(kt.linear_cross_entropy(input, weight, target, chunk_rows=rows), weight)[0]
        for rows in (512, 64, 16, 1)
    ]
    bound = 9 * 2.0**-22 * results[0].abs().max()
    assert all((other - results[0]).abs().max() <= bound for other in results[1:])


@pytest.mark.skipif(not hasattr(torch.nn, "LinearCrossEntropyOptions"), reason="PyTorch 2.13 introduces them")
def test_half_precision_keeps_the_digits_of_large_logits():
    """Logits in the hundreds that differ by little: p may not be rounded as its log-sum-exp would be."""
    weight = torch.tensor([[200.0], [191.0], [150.0]]).bfloat16().requires_grad_()
    input = torch.tensor([[1.0], [1.25], [1.5], [1.75], [2.0]]).bfloat16()
    target = torch.zeros(5, dtype=torch.int64)
    found = torch.autograd.grad(kt.linear_cross_entropy(input, weight, target, reduction="none"), weight, torch.eye(5),
                                is_grads_batched=True)[0]  # fmt: skip
    logits = input.double() @ weight.detach().double().t()
    exact = ((logits.softmax(1) - torch.eye(3)[0]) * input.double())[..., None]
    assert ((found.double() - exact).abs() <= 2**-8 * exact.abs() + 2**-22).all()


@pytest.mark.skipif(not hasattr(torch.nn, "LinearCrossEntropyOptions"), reason="they came with PyTorch 2.13")
def test_options_of_torch():
    """The rows at a time are taken from them; an error there shows that they are."""
    input, weight, _ = layer()
    target = targets()["indices"]
    rows = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=5)
    expected = kt.linear_cross_entropy(input, weight, target, chunk_rows=5)
    assert torch.equal(kt.linear_cross_entropy(input, weight, target, options=rows), expected)
    assert kt.LinearCrossEntropyLoss(D, C, options=rows).chunk_rows == 5
    assert kt.LinearCrossEntropyLoss(D, C, options=torch.nn.LinearCrossEntropyOptions()).chunk_rows is None
    with pytest.raises(ValueError, match=r"batch_chunk_size is 5 and chunk_rows 6"):
        kt.linear_cross_entropy(input, weight, target, options=rows, chunk_rows=6)
    with pytest.raises(TypeError, match="LinearCrossEntropyOptions"):
        kt.linear_cross_entropy(input, weight, target, options={"batch_chunk_size": 5})


def test_the_module():
    head = kt.LinearCrossEntropy(D, C, bias=True, label_smoothing=0.1, z_loss=0.01)
    input, target = torch.randn(N, D), targets()["indices"]
    loss = head(input, target)
    torch.testing.assert_close(loss, kt.cross_entropy(head.linear(input), target, label_smoothing=0.1, z_loss=0.01))
    loss.backward()
    assert head.linear.weight.grad.shape == (C, D)
    again = kt.LinearCrossEntropy(D, C, bias=True)
    again.load_state_dict(head.state_dict())


def test_autocast_and_compile():
    input, weight, _ = layer(torch.float32)
    target = targets()["indices"]
    with torch.autocast("cpu", torch.bfloat16):
        value = kt.linear_cross_entropy(input, weight, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, kt.linear_cross_entropy(input, weight, target), rtol=1e-2, atol=1e-2)
    assert torch.autograd.grad(value, weight)[0].dtype == torch.float32

    def step(x, w):
        return kt.linear_cross_entropy(2 * x, w, target)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for gradient, want in zip(
        torch.autograd.grad(compiled(input, weight), (input, weight)),
        torch.autograd.grad(step(input, weight), (input, weight)),
        strict=True,
    ):
        torch.testing.assert_close(gradient, want)
    of_weight = torch.func.grad(lambda w: kt.linear_cross_entropy(input.detach(), w, target))(weight.detach())
    torch.testing.assert_close(
        of_weight, torch.autograd.grad(kt.linear_cross_entropy(input, weight, target), weight)[0]
    )


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        (lambda x, w, t: kt.linear_cross_entropy(x, w[:, 1:], t), RuntimeError, "in_features"),
        (lambda x, w, t: kt.linear_cross_entropy(x, w[0], t), RuntimeError, "dimensionality at least 2"),
        (lambda x, w, t: kt.linear_cross_entropy(x, w, t, linear_bias=w[:3, 0]), RuntimeError, "linear_bias shape"),
        (lambda x, w, t: kt.linear_cross_entropy(x, w[:0], t), RuntimeError, "no classes"),
        (lambda x, w, t: kt.linear_cross_entropy(x.float(), w, t), RuntimeError, "same dtype"),
        (lambda x, w, t: kt.linear_cross_entropy(x, w, t + 5), IndexError, r"target\[.*0 to 10"),
        (lambda x, w, t: kt.linear_cross_entropy(x, w, t[1:]), ValueError, "batch_size"),
        (lambda x, w, t: kt.linear_cross_entropy(x, w, t, chunk_rows=0), RuntimeError, "chunk_rows"),
        (lambda x, w, t: kt.linear_cross_entropy(x, w, t, chunk_rows=2.5), RuntimeError, "whole number.*2.5"),
        (lambda x, w, t: kt.linear_loss(x, w, t, "focal", chunk_rows=0), RuntimeError, "chunk_rows"),
        (lambda x, w, t: kt.linear_cross_entropy(x, None, t), TypeError, "linear_weight must be a Tensor"),
        (lambda x, w, t: kt.linear_cross_entropy(x, w, t, linear_bias=[0.0] * C), TypeError, "linear_bias must be"),
        (
            lambda x, w, t: kt.linear_cross_entropy(x, w, t, linear_bias=torch.ones(C)),
            RuntimeError,
            "linear_bias to have the same dtype",
        ),
        (
            lambda x, w, t: kt.linear_cross_entropy(x, w, torch.rand(N, C), ignore_index=-100),
            RuntimeError,
            "ignore_index cannot be specified",
        ),
        (lambda x, w, t: kt.linear_loss(x, w, t, "binary_cross_entropy"), NotImplementedError, "functional"),
        (lambda x, w, t: kt.LinearCrossEntropy(D, C, weight=torch.ones(3)), RuntimeError, "weight shape"),
    ],
)
def test_wrong_input(wrong, error, says):
    input, weight, _ = layer()
    with pytest.raises(error, match=says) as caught:
        wrong(input.detach(), weight.detach(), targets()["indices"].clamp_min(0))
    assert isinstance(caught.value, InputError)
