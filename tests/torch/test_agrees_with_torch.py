"""The drop-in functions against PyTorch's own: values, gradients, dtypes and shapes, over everything both can do."""

from __future__ import annotations

import inspect

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch.autograd import gradcheck, gradgradcheck

import kullback.torch as kt

N, C = 6, 5
REDUCTIONS = ["mean", "sum", "none"]
FUNCTIONS = ["cross_entropy", "nll_loss", "binary_cross_entropy_with_logits", "kl_div", "linear_cross_entropy"]
MODULES = ["CrossEntropyLoss", "NLLLoss", "BCEWithLogitsLoss", "KLDivLoss", "LinearCrossEntropyLoss"]
SHAPES = [(N, C), (C,), (2, C, 3), (2, C, 2, 2), (2, C, 1, 2, 3)]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (getattr(kt, name), getattr(home, name))
        for home, names in ((F, FUNCTIONS), (torch.nn, MODULES))
        for name in names
        if hasattr(home, name)  # PyTorch 2.13 introduces the linear ones
    ],
    ids=lambda kind: kind.__name__,
)
def test_signatures_begin_with_those_of_torch(ours, theirs):
    """The same names, in the same order, with the same defaults and kinds; what is ours comes after and by name."""

    def arguments(function):
        found = inspect.signature(function).parameters.values()
        return [(p.name, p.kind, p.default) for p in found]

    mine, wanted = arguments(ours), arguments(theirs)
    assert mine[: len(wanted)] == wanted
    assert all(kind == inspect.Parameter.KEYWORD_ONLY for _, kind, _ in mine[len(wanted) :])


def tolerance(dtype):
    return {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-13}


def both(ours, theirs, inputs, arguments, keywords):
    """Value and gradients of both; the incoming gradient is not all ones."""
    results = []
    for function in (ours, theirs):
        value = function(*arguments, **keywords)
        incoming = torch.linspace(-1, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
        results.append((value, torch.autograd.grad(value, inputs, incoming)))
    return results


def index_target(shape, ignored=False):
    lead = (shape[0], *shape[2:]) if len(shape) > 1 else ()
    target = torch.randint(0, C, lead)
    if ignored and target.dim():
        target[0] = -100
    return target


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("weighted", "smoothing"), [(False, 0.0), (True, 0.0), (False, 1.0), (True, 0.3)])
def test_cross_entropy(shape, reduction, weighted, smoothing, dtype):
    logits = (3 * torch.randn(shape)).to(dtype).requires_grad_()
    keywords = {"reduction": reduction, "label_smoothing": smoothing}
    if weighted:
        keywords["weight"] = torch.rand(C).to(dtype)
    for target in (index_target(shape, ignored=True), torch.rand(shape).to(dtype).requires_grad_()):
        inputs = [logits] if target.dtype == torch.int64 else [logits, target]
        (value, gradients), (expected, wanted) = both(
            kt.cross_entropy, F.cross_entropy, inputs, (logits, target), keywords
        )
        torch.testing.assert_close(value, expected, **tolerance(dtype))
        for gradient, want in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(gradient, want, **tolerance(dtype))


def test_soft_rows_that_do_not_ask_for_a_gradient_run_on_the_kernel_and_agree():
    logits = torch.randn(N, C, dtype=torch.float64, requires_grad=True)
    target, weight = torch.rand(N, C, dtype=torch.float64), torch.rand(C, dtype=torch.float64)
    for keywords in ({}, {"label_smoothing": 0.2}, {"weight": weight}, {"weight": weight, "label_smoothing": 0.2}):
        ours, theirs = both(kt.cross_entropy, F.cross_entropy, [logits], (logits, target), keywords)
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n_classes", [3, 10, 200])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_half_precision_is_at_least_as_exact_as_torch(dtype, n_classes, smoothing):
    """|ours − exact| ≤ |torch's − exact| + one rounding of the result."""
    logits = (4 * torch.randn(50, n_classes)).to(dtype).requires_grad_()
    target = torch.randint(0, n_classes, (50,))
    exact_logits = logits.detach().double().requires_grad_()
    exact = F.cross_entropy(exact_logits, target, label_smoothing=smoothing)
    exact_gradient = torch.autograd.grad(exact, exact_logits)[0]
    (value, (gradient,)), (other, (other_gradient,)) = (
        (v, torch.autograd.grad(v, logits))
        for v in (f(logits, target, label_smoothing=smoothing) for f in (kt.cross_entropy, F.cross_entropy))
    )
    assert value.dtype == gradient.dtype == dtype
    rounding = torch.finfo(dtype).eps / 2
    assert abs(value - exact) <= abs(other - exact) + rounding * abs(exact)
    smallest = 2.0**-24 if dtype == torch.float16 else 0.0  # float16 has no smaller numbers
    bound = (other_gradient - exact_gradient).abs() + rounding * exact_gradient.abs() + smallest
    assert ((gradient - exact_gradient).abs() <= bound).all()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_nll_loss(shape, reduction):
    input = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    for weight in (None, torch.rand(C, dtype=torch.float64)):
        for target in (index_target(shape, ignored=True), index_target(shape).to(torch.int32)):
            ours = kt.nll_loss(input, target, weight, reduction=reduction)
            theirs = F.nll_loss(input, target.long(), weight, reduction=reduction)
            torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_nll_loss_of_images_with_channels_last():
    """PyTorch's own gradient stops at these."""
    input, target = torch.randn(2, C, 3, 4, dtype=torch.float64), torch.randint(0, C, (2, 3, 4))
    ours, theirs = input.to(memory_format=torch.channels_last).requires_grad_(), input.requires_grad_()
    found, wanted = kt.nll_loss(ours, target), F.nll_loss(theirs, target)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(torch.autograd.grad(found, ours), torch.autograd.grad(wanted, theirs))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(), (3,), (4, 3), (2, 4, 3), (4, 2048)])
@pytest.mark.parametrize("form", ["plain", "weight", "pos_weight", "both"])
def test_binary_cross_entropy_with_logits(shape, reduction, form):
    input = (3 * torch.randn(shape, dtype=torch.float64)).requires_grad_()
    target = torch.rand(shape, dtype=torch.float64)
    keywords = {"reduction": reduction}
    if form in ("weight", "both"):
        keywords["weight"] = torch.rand(shape, dtype=torch.float64)
    if form in ("pos_weight", "both"):
        keywords["pos_weight"] = torch.rand(shape[-1:], dtype=torch.float64) + 0.5
    ours, theirs = both(
        kt.binary_cross_entropy_with_logits,
        F.binary_cross_entropy_with_logits,
        [input],
        (input, target),
        keywords,
    )
    torch.testing.assert_close(ours, theirs)


def test_binary_cross_entropy_takes_gradients_of_the_labels():
    input = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    target = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    ours, theirs = both(
        kt.binary_cross_entropy_with_logits,
        F.binary_cross_entropy_with_logits,
        [input, target],
        (input, target),
        {},
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("reduction", ["batchmean", "sum", "none"])
@pytest.mark.parametrize("log_target", [False, True])
def test_kl_div(reduction, log_target):
    input = torch.randn(4, 3, dtype=torch.float64).log_softmax(1).requires_grad_()
    target = torch.randn(4, 3, dtype=torch.float64)
    target = (target.log_softmax(1) if log_target else target.softmax(1)).requires_grad_()
    keywords = {"reduction": reduction, "log_target": log_target}
    ours, theirs = both(kt.kl_div, F.kl_div, [input, target], (input, target), keywords)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("reduction", ["batchmean", "mean", "sum", "none"])
@pytest.mark.parametrize("log_target", [False, True])
@pytest.mark.parametrize(("first", "second"), [((4, 3), (3,)), ((1, 3), (4, 3)), ((2, 1, 3), (4, 1)), ((4, 3), ())])
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
def test_kl_div_of_shapes_that_broadcast(first, second, log_target, reduction):
    input = torch.randn(first, dtype=torch.float64).sub(3).requires_grad_()
    target = torch.rand(second, dtype=torch.float64)
    target = (target.log() if log_target else target).requires_grad_()
    keywords = {"reduction": reduction, "log_target": log_target}
    ours, theirs = both(kt.kl_div, F.kl_div, [input, target], (input, target), keywords)
    torch.testing.assert_close(ours, theirs)


FLOATS = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("second", FLOATS, ids=str)
@pytest.mark.parametrize("first", FLOATS, ids=str)
def test_types_of_results(first, second, autocast):
    input, soft, index = torch.randn(N, C).to(first), torch.rand(N, C).to(second), torch.arange(N) % C
    with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
        for reduction in REDUCTIONS:
            for name, target in (("cross_entropy", index), ("cross_entropy", soft), ("nll_loss", index)):
                expected = getattr(F, name)(input, target, reduction=reduction)
                assert getattr(kt, name)(input, target, reduction=reduction).dtype == expected.dtype
            log_p, way = input.log_softmax(1), "batchmean" if reduction == "mean" else reduction
            assert kt.kl_div(log_p, soft, reduction=way).dtype == F.kl_div(log_p, soft, reduction=way).dtype
            # PyTorch's is of the labels' type, however narrow
            expected = F.binary_cross_entropy_with_logits(input, soft.to(torch.promote_types(first, second)))
            assert kt.binary_cross_entropy_with_logits(input, soft, reduction=reduction).dtype == expected.dtype


@pytest.mark.parametrize(
    ("ours", "theirs", "arguments"),
    [
        (kt.CrossEntropyLoss, torch.nn.CrossEntropyLoss, {"label_smoothing": 0.1, "ignore_index": 1}),
        (kt.NLLLoss, torch.nn.NLLLoss, {"ignore_index": 1, "reduction": "sum"}),
    ],
)
def test_modules_of_class_losses(ours, theirs, arguments):
    weight, logits, target = torch.rand(C), torch.randn(N, C), torch.randint(0, C, (N,))
    mine, reference = ours(weight, **arguments), theirs(weight, **arguments)
    torch.testing.assert_close(mine(logits, target), reference(logits, target))
    assert set(mine.state_dict()) == set(reference.state_dict())


def test_modules_of_label_losses():
    logits, target, weight = torch.randn(N, C), torch.rand(N, C), torch.rand(C)
    torch.testing.assert_close(
        kt.BCEWithLogitsLoss(pos_weight=weight)(logits, target),
        torch.nn.BCEWithLogitsLoss(pos_weight=weight)(logits, target),
    )
    input = logits.log_softmax(1)
    torch.testing.assert_close(
        kt.KLDivLoss(reduction="batchmean")(input, target), torch.nn.KLDivLoss(reduction="batchmean")(input, target)
    )


@pytest.mark.parametrize(
    ("size_average", "reduce"), [(None, None), (True, None), (False, None), (None, False), (False, True)]
)
@pytest.mark.filterwarnings("ignore:size_average and reduce")
def test_deprecated_flags_still_mean_what_they_meant(size_average, reduce):
    logits, target = torch.randn(N, C), torch.randint(0, C, (N,))
    torch.testing.assert_close(
        kt.cross_entropy(logits, target, None, size_average, -100, reduce),
        F.cross_entropy(logits, target, None, size_average, -100, reduce),
    )


def test_derivatives_in_what_is_learnt_beside_the_logits():
    """Class weights, shares, sample weights, label weights, and the targets of a divergence."""
    double = {"dtype": torch.float64, "requires_grad": True}
    logits, target = torch.randn(N, C, **double), torch.tensor([0, 1, 2, 3, 4, -100])
    other = target.flip(0) % C
    weight, share, per_row, labels = (torch.rand(shape, **double) for shape in ((C,), (N,), (N,), (N, C)))
    log_p = torch.randn(N, C, dtype=torch.float64).log_softmax(1).requires_grad_()
    layer = torch.randn(C, C, **double)
    cases = [
        (lambda z, w: kt.cross_entropy(z, target, w, label_smoothing=0.1), (logits, weight)),
        (lambda z, s: kt.cross_entropy(z, kt.Mixture(target % C, other, s)), (logits, share)),
        (lambda z, s: kt.cross_entropy(z, target, sample_weight=s), (logits, per_row)),
        (lambda x, m, w: kt.linear_cross_entropy(x, m, target, weight=w), (logits, layer, weight)),
        (lambda x, m, s: kt.linear_cross_entropy(x, m, kt.Mixture(target % C, other, s)), (logits, layer, share)),
        (lambda z, t, w: kt.binary_cross_entropy_with_logits(z, t, w), (logits, labels, weight)),
        (lambda z, w: kt.binary_cross_entropy_with_logits(z, labels.detach(), pos_weight=w), (logits, weight)),
        (lambda z, s: kt.nll_loss(z, target, sample_weight=s), (logits, per_row)),
        (lambda x, t: kt.kl_div(x, t, reduction="batchmean"), (log_p, labels)),
        (lambda x, t: kt.kl_div(x, t, reduction="sum", log_target=True), (log_p, labels)),
    ]
    for function, inputs in cases:
        assert gradcheck(function, inputs)
        assert gradgradcheck(function, inputs)


def test_derivatives_of_any_order_by_finite_differences():
    logits = torch.randn(N, C, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 1, 2, 3, 4, -100])
    soft = torch.rand(N, C, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(C, dtype=torch.float64)
    cases = [
        (lambda z: kt.cross_entropy(z, target), (logits,)),
        (lambda z: kt.cross_entropy(z, target, weight, reduction="none", label_smoothing=0.1), (logits,)),
        (lambda z, t: kt.cross_entropy(z, t, weight, label_smoothing=0.1), (logits, soft)),
        (
            lambda z: kt.cross_entropy(z, target, softcap=2.0, z_loss=0.3, temperature=1.5, label_smoothing=0.1),
            (logits,),
        ),
        (lambda z: kt.cross_entropy(z, kt.Mixture(target % C, target.flip(0) % C, 0.3), weight), (logits,)),
        (lambda z: kt.binary_cross_entropy_with_logits(z, soft.detach(), weight), (logits,)),
        (lambda z: kt.nll_loss(z, target, weight), (logits,)),
    ]
    for function, inputs in cases:
        assert gradcheck(function, inputs)
        assert gradgradcheck(function, inputs)
