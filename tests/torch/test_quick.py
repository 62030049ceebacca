"""The short way of the mean over class indices: the same bits as the long way, which it leaves the rest to."""

from __future__ import annotations

import pytest
import torch

import kullback.torch as kt
from kullback import kernels
from kullback.torch import quick

N, C = 7, 5
TARGET = torch.tensor([0, 1, 2, 3, 4, -100, 0])
CALLS = {
    "plain": lambda z: kt.cross_entropy(z, TARGET),
    "all options": lambda z: kt.cross_entropy(
        z,
        torch.where(TARGET < 0, 2, TARGET),
        label_smoothing=0.1,
        temperature=1.5,
        softcap=3.0,
        z_loss=0.1,
        ignore_index=2,
        denominator="examples",
    ),
    "bytes": lambda z: kt.cross_entropy(z, TARGET.to(torch.uint8), ignore_index=-100 % 256),
    "every other target": lambda z: kt.cross_entropy(z, TARGET.repeat_interleave(2)[::2]),
    "images": lambda z: kt.cross_entropy(z[:6].reshape(2, 3, C).movedim(2, 1), TARGET[:6].reshape(2, 3)),
    "one example": lambda z: kt.cross_entropy(z[0], TARGET[0]),
    "module": lambda z: kt.CrossEntropyLoss(label_smoothing=0.1)(z, TARGET),
    "loss object": lambda z: kt.functional("cross_entropy(label_smoothing=0.1)")(z, TARGET),
}


def differentiated(function, dtype):
    z = (3 * torch.randn(N, C, generator=torch.Generator().manual_seed(3))).to(dtype)
    z[5] = torch.nan  # an example that does not count in any of them
    z.requires_grad_()
    value = function(z)
    (2 * value).backward(retain_graph=True)
    once = z.grad.clone()
    value.backward()
    return value.detach(), once, z.grad


@pytest.fixture
def taken(monkeypatch):
    """What the short way returned, call by call."""
    found = []
    short = quick.mean_loss

    def watched(*args):
        found.append(short(*args))
        return found[-1]

    monkeypatch.setattr(quick, "mean_loss", watched)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_both_ways_give_the_same_bits(name, dtype, taken, monkeypatch):
    shortly = differentiated(CALLS[name], dtype)
    assert taken[-1] is not None
    monkeypatch.setattr(quick, "mean_loss", lambda *_: None)
    at_length = differentiated(CALLS[name], dtype)
    for mine, expected in zip(shortly, at_length, strict=True):
        assert mine.dtype == expected.dtype
        assert torch.equal(mine, expected)


def test_without_a_gradient(taken):
    z = torch.randn(N, C)
    value = kt.cross_entropy(z, TARGET)
    assert not value.requires_grad
    with torch.no_grad():
        assert torch.equal(kt.cross_entropy(z.requires_grad_(), TARGET), value)
    assert None not in taken


def test_second_derivatives(taken):
    z = torch.randn(N, C, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda z: kt.cross_entropy(z, TARGET, softcap=2.0, z_loss=0.1), z)
    assert None not in taken


def test_the_gradient_is_handed_over_not_copied():
    z, seen = torch.randn(N, C, requires_grad=True), []
    value = kt.cross_entropy(z, TARGET)
    gradient = value.grad_fn.saved_tensors[2]
    seen.append(gradient.data_ptr())
    del gradient
    value.backward()
    assert z.grad.data_ptr() == seen[0]


@pytest.mark.parametrize("kept", [0, 1, 2**16], ids="{} ignored".format)
def test_many_examples_of_which_some_are_ignored(kept):
    n = 2**16 + 5
    z, y = torch.randn(n, 3, requires_grad=True), torch.randint(0, 3, (n,))
    y[: n - kept if kept else 0] = -100
    for _ in range(2):  # the second time after what the first has found
        value = kt.cross_entropy(z, y)
        expected = torch.nn.functional.cross_entropy(z, y)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(torch.autograd.grad(value, z), torch.autograd.grad(expected, z))


LONG = {
    "nothing counts": lambda z: kt.cross_entropy(z, torch.full((N,), -100), empty="zero"),
    "no example": lambda z: kt.cross_entropy(z[:0], TARGET[:0]),
    "rows apart": lambda z: kt.cross_entropy(z[:, 1:], TARGET % 4),
    "half precision": lambda z: kt.cross_entropy(z.half(), TARGET),
    "soft rows": lambda z: kt.cross_entropy(z, z.softmax(1).detach()),
    "mixture": lambda z: kt.cross_entropy(z, kt.Mixture(TARGET % C, TARGET.flip(0) % C, 0.3)),
    "no memory": lambda z: kt.cross_entropy(z.to("meta"), TARGET.to("meta")),
}


@pytest.mark.parametrize("name", LONG)
def test_what_takes_the_long_way(name, taken):
    LONG[name](torch.randn(N, C))
    assert taken
    assert set(taken) == {None}


def test_other_kernels_take_the_long_way(taken):
    z = torch.randn(N, C)
    with kernels.using("reference"):
        kt.cross_entropy(z, TARGET)
    assert taken
    assert set(taken) == {None}


@pytest.mark.parametrize("n", [N, 2**16])
def test_a_class_out_of_range_is_named(n):
    target = torch.arange(n) % C
    target[n - 1] = C
    with pytest.raises(IndexError, match=rf"At target\[{n - 1}\]: valid classes are 0 to 4"):
        kt.cross_entropy(torch.randn(n, C), target)
