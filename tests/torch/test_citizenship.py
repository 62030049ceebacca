"""The operators inside PyTorch's other machinery: compilers, transforms, autocast, distributed wrappers."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import nn

import kullback
import kullback.torch as kt

N, D, C = 6, 4, 5
VERSION = tuple(int(part) for part in torch.__version__.split(".")[:2])


@pytest.fixture(autouse=True)
def _no_compiled_code_from_other_tests():
    torch._dynamo.reset()


class Model(nn.Module):
    def __init__(self, loss):
        super().__init__()
        self.layer = nn.Linear(D, C)
        self.loss = loss

    def forward(self, x, y):
        return self.loss(self.layer(x), y)


def batch():
    return torch.randn(N, D), torch.tensor([0, 1, 2, 3, 4, -100])


LOSSES = {
    "cross-entropy": lambda: kt.CrossEntropyLoss(torch.rand(C), label_smoothing=0.1),
    "per example": lambda: Summed(kt.CrossEntropyLoss(reduction="none")),
    "capped": lambda: kt.CrossEntropyLoss(softcap=3.0, z_loss=0.1),
    "in place": lambda: kt.CrossEntropyLoss(overwrite_input=True),
    "loss object": lambda: kt.Loss("focal(gamma=2)"),
    "nll": lambda: LogSoftmaxed(kt.NLLLoss()),
    "labels": lambda: OneHot(kt.BCEWithLogitsLoss()),
}


class Summed(nn.Module):
    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def forward(self, z, y):
        return (self.loss(z, y) * torch.linspace(1, 2, z.shape[0])).sum()


class LogSoftmaxed(Summed):
    def forward(self, z, y):
        return self.loss(z.log_softmax(1), y)


class OneHot(Summed):
    def forward(self, z, y):
        return self.loss(z, F.one_hot(y.clamp_min(0), C).to(z.dtype))


def gradients(function, model, x, y):
    model.zero_grad()
    value = function(x, y)
    value.backward()
    return value, model.layer.weight.grad.clone()


@pytest.mark.parametrize("name", LOSSES)
def test_compiled_in_one_graph(name):
    model = Model(LOSSES[name]())
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for n in (N, 4, 9):  # the second shape makes sizes symbolic
        x, y = torch.randn(n, D), torch.randint(0, C, (n,))
        torch.testing.assert_close(gradients(compiled, model, x, y), gradients(model, model, x, y))


FOCAL = kt.functional("focal(gamma=2)")
INSIDE = {
    "a spelling known before": lambda x, w, y: kt.functional("focal(gamma=2)")(x @ w.T, y),
    "a function": lambda x, w, y: FOCAL(x @ w.T, y),
    "layer, a spelling known before": lambda x, w, y: kt.linear_loss(2 * x, w, y, "focal(gamma=2)"),
    "layer, a function": lambda x, w, y: kt.linear_loss(2 * x, w, y, FOCAL),
    "layer, cross-entropy": lambda x, w, y: kt.linear_loss(2 * x, w, y, SMOOTHED),
}
SMOOTHED = kt.functional("cross_entropy(label_smoothing=0.1)")


@pytest.mark.parametrize("name", INSIDE)
def test_losses_called_inside_a_graph(name):
    function = INSIDE[name]
    x, w, y = torch.randn(N, D), torch.randn(C, D, requires_grad=True), torch.tensor([0, 1, 2, 3, 4, 0])
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    value, expected = compiled(x, w, y), function(x, w, y)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, w), torch.autograd.grad(expected, w))


@pytest.mark.skipif(VERSION < (2, 5), reason="the compiler of PyTorch 2.4 cannot make an exception of a class it meets")
@pytest.mark.parametrize("loss", ["poly(epsilon=0.125)", kullback.Focal(gamma=2.5)], ids=str)
def test_a_loss_made_inside_a_graph_says_what_to_do(loss):
    x, w, y = torch.randn(N, D), torch.randn(C, D), torch.zeros(N, dtype=torch.int64)
    for function in (lambda x, w, y: kt.functional(loss)(x @ w.T, y), lambda x, w, y: kt.linear_loss(x, w, y, loss)):
        torch._dynamo.reset()
        with pytest.raises(Exception, match=r"outside the compiled function"):
            torch.compile(function, fullgraph=True, backend="aot_eager")(x, w, y)


PAIRED = {
    "mixture": lambda z, y: kt.cross_entropy(z, kt.Mixture(y, y.flip(0), 0.3), label_smoothing=0.1),
    "mixture, a share each": lambda z, y: kt.cross_entropy(
        z, kt.Mixture(y, y.flip(0), torch.linspace(0, 1, y.shape[0]))
    ),
    "mixture, loss object": lambda z, y: FOCAL(z, kt.Mixture(y, y.flip(0), 0.3)),
    "statistics": lambda z, y: weighed(*kt.cross_entropy_with_statistics(z, y)),
    "layer, statistics": lambda z, y: weighed(*kt.linear_cross_entropy_with_statistics(z, torch.eye(C), y)),
    "divergence": lambda z, y: kt.kl_div(z.log_softmax(1), F.one_hot(y, C).to(z.dtype), reduction="batchmean"),
}


WEIGHTS = torch.linspace(0.5, 2, C)
# logits and features that lie column by column, as a transposed product gives them
COLUMNS = {
    "cross-entropy": lambda z, y: kt.cross_entropy(z, y, WEIGHTS),
    "labels": lambda z, y: kt.binary_cross_entropy_with_logits(z, F.one_hot(y, C), WEIGHTS, pos_weight=WEIGHTS),
    "loss object": lambda z, y: FOCAL(z, y),
    "layer": lambda z, y: kt.linear_cross_entropy(z, torch.eye(C), y),
    "layer in half precision": lambda z, y: kt.linear_cross_entropy(z.bfloat16(), torch.eye(C).bfloat16(), y),
    "layer, loss object": lambda z, y: kt.linear_loss(z, torch.eye(C), y, FOCAL),
}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", COLUMNS)
def test_columns_compiled_by_inductor(name, dynamic):
    def function(z, y):
        return COLUMNS[name]((2 * z).t().contiguous().t(), y)

    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic)
    z, y = torch.randn(N, C, requires_grad=True), torch.tensor([0, 1, 2, 3, 4, 0])
    value, expected = compiled(z, y), function(z, y)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, z), torch.autograd.grad(expected, z))


def weighed(value, found):
    """A loss that depends on everything the pass knows."""
    return value + found.log_sum_exp.sum() + (found.prediction * 0.1).sum() + found.accuracy


@pytest.mark.parametrize("name", PAIRED)
def test_mixtures_and_statistics_compiled_in_one_graph(name):
    z, y = torch.randn(N, C, requires_grad=True), torch.tensor([0, 1, 2, 3, 4, 0])
    compiled = torch.compile(PAIRED[name], fullgraph=True, backend="aot_eager")
    value, expected = compiled(z, y), PAIRED[name](z, y)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, z), torch.autograd.grad(expected, z))


class Head(nn.Module):
    """The fused layer as a model's end."""

    def __init__(self, **choices):
        super().__init__()
        self.layer = nn.Linear(D, 3)
        self.head = kt.LinearCrossEntropy(3, C, bias=True, **choices)

    def forward(self, x, y):
        return self.head(self.layer(x), y)


@pytest.mark.parametrize("choices", [{}, {"label_smoothing": 0.1, "chunk_rows": 2}], ids=str)
def test_the_fused_layer_compiled_by_inductor(choices):
    model = Head(**choices)
    compiled = torch.compile(model, fullgraph=True)
    x, y = batch()
    torch.testing.assert_close(gradients(compiled, model, x, y), gradients(model, model, x, y))


def test_compiled_by_inductor():
    model = Model(kt.CrossEntropyLoss(label_smoothing=0.1))
    compiled = torch.compile(model, fullgraph=True)
    x, y = batch()
    torch.testing.assert_close(gradients(compiled, model, x, y), gradients(model, model, x, y))


class Divergent(Summed):
    def forward(self, z, y):
        return self.loss(z.log_softmax(1), F.one_hot(y.clamp_min(0), C).to(z.dtype))


EXPORTED = {
    "cross-entropy": lambda: Model(LOSSES["cross-entropy"]()),
    "loss object": lambda: Model(LOSSES["loss object"]()),
    "labels": lambda: Model(LOSSES["labels"]()),
    "layer": Head,
    "nll": lambda: Model(LOSSES["nll"]()),
    "divergence": lambda: Model(Divergent(kt.KLDivLoss(reduction="batchmean"))),
}


@pytest.mark.parametrize("name", EXPORTED)
def test_exported(name):
    model = EXPORTED[name]()
    x, y = batch()
    y = y.clamp_min(0)
    program = torch.export.export(model, (x, y), dynamic_shapes=({0: torch.export.Dim("n", min=2)},) * 2)
    x, y = torch.randn(11, D), torch.randint(0, C, (11,))
    torch.testing.assert_close(program.module()(x, y), model(x, y))
    # the last two are made of PyTorch's own operations
    ours = any("kullback" in str(node.target) for node in program.graph.nodes)
    assert ours == (name not in ("nll", "divergence"))


def test_registered_as_torch_wants_it():
    z = torch.randn(N, C, requires_grad=True)
    y, w = batch()[1], torch.rand(C)
    settings = (0.1, 1.0, 0.0, 0.0, -100, False)
    x, layer = torch.randn(N, D, requires_grad=True), torch.randn(C, D, requires_grad=True)
    layer_choices = ([True, True, False], True, None, False, torch.float32, [N])
    cases = [
        (
            "softmax_loss",
            (z, y, None, None, None, w, *settings, "mean", "weights", "nan", True, True, torch.float32, [N]),
        ),
        ("softmax_gradient", (torch.rand(N, requires_grad=True), z, y, None, None, w, *settings, [N])),
        (
            "linear_loss",
            (x, layer, None, y, None, None, None, w, *settings, "", "mean", "weights", "nan", *layer_choices),
        ),
        ("sigmoid_loss", (z, torch.rand(N, C), None, w, True, True, torch.float32, [N, C])),
        (
            "object_loss",
            (z, y, None, None, None, "focal(gamma=2.0)", "mean", "weights", "nan", True, torch.float32, [N]),
        ),
    ]
    for name, arguments in cases:
        torch.library.opcheck(getattr(torch.ops.kullback, name).default, arguments)


@pytest.mark.parametrize(("version", "works"), [("2.3.1", False), ("2.4.0", True), ("10.0.0a1+cpu", True)])
def test_too_old_a_version_is_refused(version, works):
    code = f"import torch; torch.__version__ = {version!r}; import kullback.torch"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode == 0) == works
    assert works or f"needs PyTorch 2.4 or newer, but {version} is installed" in run.stderr


# ------------------------------------------------------------ torch.func


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_vmap(reduction):
    z, y, w = torch.randn(3, N, C), torch.randint(0, C, (3, N)), torch.rand(3, C)
    y[0, 0] = -100

    def loss(function):
        return lambda z, y, w: function(z, y, w, reduction=reduction, label_smoothing=0.1)

    for arguments, dims in (
        ((z, y, w[0]), (0, 0, None)),
        ((z, y[1], w[0]), (0, None, None)),
        ((z.movedim(0, 1), y.t(), w), (1, 1, 0)),
    ):
        one_by_one = [
            loss(F.cross_entropy)(*(a if d is None else a.select(d, k) for a, d in zip(arguments, dims, strict=True)))
            for k in range(3)
        ]
        found = torch.func.vmap(loss(kt.cross_entropy), dims)(*arguments)
        torch.testing.assert_close(found, torch.stack(one_by_one))


IDENTITY = torch.eye(C)
MAPPED = {
    "nll": (lambda z, y: kt.nll_loss(z.log_softmax(-1), y), F.cross_entropy),
    "nll, sample weights": (
        lambda z, y: kt.nll_loss(z.log_softmax(-1), y, sample_weight=torch.full((N,), 2.0)),
        F.cross_entropy,
    ),
    "labels": (
        lambda z, y: kt.binary_cross_entropy_with_logits(z, z.detach().sigmoid()),
        lambda z, y: F.binary_cross_entropy_with_logits(z, z.detach().sigmoid()),
    ),
    "divergence": (
        lambda z, y: kt.kl_div(z.log_softmax(-1), z.detach().softmax(-1).square(), reduction="sum"),
        lambda z, y: F.kl_div(z.log_softmax(-1), z.detach().softmax(-1).square(), reduction="sum"),
    ),
    "layer": (lambda z, y: kt.linear_cross_entropy(z, IDENTITY, y), F.cross_entropy),
    "layer, per example": (
        lambda z, y: kt.linear_cross_entropy(z, IDENTITY, y, reduction="none"),
        lambda z, y: F.cross_entropy(z, y, reduction="none"),
    ),
}


@pytest.mark.parametrize("name", MAPPED)
def test_vmap_of_the_other_functions(name):
    ours, theirs = MAPPED[name]
    z, y = torch.randn(3, N, C), torch.randint(0, C, (3, N))
    if name != "nll, sample weights":
        y[0, 0] = -100
    for way in (lambda f: f, lambda f: torch.func.grad(lambda z, y: f(z, y).sum())):
        found = torch.func.vmap(way(ours))(z, y)
        torch.testing.assert_close(found, torch.stack([way(theirs)(*row) for row in zip(z, y, strict=True)]))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_per_sample_gradients(reduction):
    model, (x, y) = Model(None), batch()
    y = y.clamp_min(0)
    parameters = dict(model.layer.named_parameters())

    def per_sample(function):
        def loss(parameters, x, y):
            z = torch.func.functional_call(model.layer, parameters, (x[None],))
            return function(z, y[None], reduction=reduction)

        return torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, x, y)

    torch.testing.assert_close(per_sample(kt.cross_entropy), per_sample(F.cross_entropy))


def test_reverse_over_reverse():
    z, y = torch.randn(3, C, dtype=torch.float64), torch.tensor([0, 1, -100])

    def hessian(function):
        return torch.func.jacrev(torch.func.jacrev(lambda z: function(z, y)))(z)

    torch.testing.assert_close(hessian(kt.cross_entropy), hessian(F.cross_entropy))


def test_what_cannot_be_transformed_says_so():
    z, y = torch.randn(3, C), torch.tensor([0, 1, 2])
    with pytest.raises(NotImplementedError, match=r"torch\.func cannot see into it"):
        torch.func.grad(lambda z: kt.functional("focal")(z, y))(z)


WITHOUT_TANGENT = {
    "loss object": lambda z, y: kt.functional("focal")(z, y),
    "loss on labels": lambda z, y: kt.functional("binary_cross_entropy")(z, torch.zeros(3, C)),
    "layer": lambda z, y: kt.linear_loss(z, torch.eye(C), y, "focal"),
    "layer's weight": lambda z, y: kt.linear_loss(torch.eye(C)[:3], z, y, "focal"),
    "overwritten": lambda z, y: kt.cross_entropy(z, y, overwrite_input=True),
}


@pytest.mark.parametrize("name", WITHOUT_TANGENT)
def test_no_forward_derivative_is_an_error_not_a_missing_tangent(name):
    z, y = torch.randn(3, C), torch.tensor([0, 1, 2])
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(z.clone(), torch.ones_like(z))
        with pytest.raises(NotImplementedError, match=r"forward.mode"):
            WITHOUT_TANGENT[name](dual, y)
        if "layer" not in name:  # nothing is asked for along plain tensors
            WITHOUT_TANGENT["loss object"](z, y)


FORWARD = {
    "cross-entropy": (kt.cross_entropy, F.cross_entropy),
    "capped": (lambda z, y: kt.cross_entropy(z, y, softcap=3.0), lambda z, y: F.cross_entropy(3 * (z / 3).tanh(), y)),
    "nll": (lambda z, y: kt.nll_loss(z.log_softmax(1), y), F.cross_entropy),
    "labels": (
        lambda z, y: kt.binary_cross_entropy_with_logits(z, F.one_hot(y.clamp_min(0), C)),
        lambda z, y: F.binary_cross_entropy_with_logits(z, F.one_hot(y.clamp_min(0), C).to(z)),
    ),
    "layer": (
        lambda z, y: kt.linear_cross_entropy(z, torch.eye(C, dtype=z.dtype), y),
        F.cross_entropy,
    ),
}


@pytest.mark.parametrize("name", FORWARD)
def test_forward_mode(name):
    """Along one direction, and the whole Hessian, forward over reverse."""
    ours, theirs = FORWARD[name]
    z, y = torch.randn(3, C, dtype=torch.float64), torch.tensor([0, 1, -100])
    along = torch.randn_like(z)
    found, wanted = (torch.func.jvp(lambda z, f=f: f(z, y), (z,), (along,)) for f in (ours, theirs))
    torch.testing.assert_close(found, wanted)
    found, wanted = (torch.func.hessian(lambda z, f=f: f(z, y))(z) for f in (ours, theirs))
    torch.testing.assert_close(found, wanted)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(z, along)
        found, wanted = (torch.autograd.forward_ad.unpack_dual(f(dual, y)) for f in (ours, theirs))
        torch.testing.assert_close((found.primal, found.tangent), (wanted.primal, wanted.tangent))


# ------------------------------------------------------------ autograd


def test_gradient_penalty():
    """A double backward, as a gradient penalty needs it, through a network."""
    x, y = batch()
    results = []
    for function in (kt.cross_entropy, F.cross_entropy):
        torch.manual_seed(1)
        layer = nn.Linear(D, C)
        loss = function(layer(x), y)
        slopes = torch.autograd.grad(loss, layer.weight, create_graph=True)[0]
        (loss + slopes.square().sum()).backward()
        results.append(layer.weight.grad)
    torch.testing.assert_close(*results)


SEVERAL = {
    "mean": (kt.cross_entropy, F.cross_entropy),
    "per example": (
        lambda z, y: kt.cross_entropy(z, y, reduction="none"),
        lambda z, y: F.cross_entropy(z, y, reduction="none"),
    ),
    "layer": (lambda z, y: kt.linear_cross_entropy(z, IDENTITY, y), F.cross_entropy),
    "layer, per example": (
        lambda z, y: kt.linear_cross_entropy(z, IDENTITY, y, reduction="none"),
        lambda z, y: F.cross_entropy(z, y, reduction="none"),
    ),
    "loss object": (
        lambda z, y: kt.functional("poly(epsilon=0)")(z, y, reduction="none"),
        lambda z, y: F.cross_entropy(z, y, reduction="none"),
    ),
    "labels": (
        lambda z, y: kt.binary_cross_entropy_with_logits(z, z.detach().sigmoid()),
        lambda z, y: F.binary_cross_entropy_with_logits(z, z.detach().sigmoid()),
    ),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_incoming_gradients_at_once(name):
    y, found = batch()[1], []
    for function in SEVERAL[name]:
        z = torch.linspace(-2, 3, N * C).sin().reshape(N, C).requires_grad_()
        value = function(z, y)
        incoming = torch.linspace(-1, 1, 3 * value.numel()).reshape(3, *value.shape)
        found.append(torch.autograd.grad(value, z, incoming, is_grads_batched=True)[0])
    assert found[0].shape == (3, N, C)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    model, (x, y) = Model(None), batch()
    for function in (kt.cross_entropy, lambda z, y: kt.functional("focal")(z, y)):
        with torch.autocast("cpu", dtype):
            z = model.layer(x)
            assert z.dtype == dtype
            value = function(z, y)
        assert value.dtype == torch.float32
        value.backward()
        assert model.layer.weight.grad.dtype == torch.float32
    with torch.autocast("cpu", dtype):
        assert kt.cross_entropy(z, y).dtype == F.cross_entropy(z, y).dtype


def test_deterministic_algorithms_are_no_obstacle():
    torch.use_deterministic_algorithms(True)
    try:
        kt.cross_entropy(torch.randn(N, C, requires_grad=True), batch()[1]).backward()
    finally:
        torch.use_deterministic_algorithms(False)


def test_checkpointing():
    model, (x, y) = Model(kt.CrossEntropyLoss()), batch()
    expected = gradients(model, model, x, y)
    found = gradients(lambda x, y: torch.utils.checkpoint.checkpoint(model, x, y, use_reentrant=False), model, x, y)
    torch.testing.assert_close(found, expected)
