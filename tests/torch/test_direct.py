"""The short way around the operators: taken by ordinary tensors, never by what has to see an operator."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import kullback.torch as kt

N, C, D = 6, 5, 4
TARGET = torch.tensor([0, 1, 2, 3, 4, -100])
CALLS = {
    "softmax_loss": lambda z: kt.cross_entropy(z, TARGET, torch.linspace(1, 2, C), label_smoothing=0.1),
    "softmax_gradient": lambda z: kt.cross_entropy(z, TARGET, reduction="none").square().sum(),
    "sigmoid_loss": lambda z: kt.binary_cross_entropy_with_logits(z, torch.full((N, C), 0.3)),
    "object_loss": lambda z: kt.functional("focal(gamma=2)")(z, TARGET),
    "linear_loss": lambda z: kt.linear_cross_entropy(z, torch.linspace(-1, 1, C * C).reshape(C, C), TARGET),
}


class Seen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", CALLS)
def test_both_ways_agree(name):
    results = []
    for seen in (None, Seen()):
        z = torch.randn(N, C, generator=torch.Generator().manual_seed(3)).requires_grad_()
        if seen is None:
            value = CALLS[name](z)
            value.backward()
        else:
            with seen:
                value = CALLS[name](z)
                value.backward()
            assert f"kullback.{name}.default" in seen.names
        results.append((value.detach(), z.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_tensors_without_memory_go_through_the_operators():
    z = torch.empty(N, C, device="meta", requires_grad=True)
    value = kt.cross_entropy(z, TARGET.to("meta"))
    value.backward()
    assert value.is_meta
    assert z.grad.shape == (N, C)


@pytest.mark.filterwarnings("ignore")
def test_the_old_tracer_is_refused():
    with pytest.raises(NotImplementedError, match=r"use torch\.export"):
        torch.jit.trace(lambda z: kt.cross_entropy(z, TARGET), torch.randn(N, C), check_trace=False)


def test_hooks_see_what_is_saved():
    packed = []
    z = torch.randn(N, C, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t.shape) or t, lambda t: t):
        value = kt.cross_entropy(z, TARGET)
    value.backward()
    assert torch.Size([N, C]) in packed
