"""One of several processes that share the classes of a loss, or a network's examples; `test_parallel` starts them."""

from __future__ import annotations

import itertools
import os
import sys

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - its usual name

import kullback.torch as kt

N, C, D = 9, 11, 4
VERSION = tuple(int(part) for part in torch.__version__.split(".")[:2])


def settings():
    weight = torch.linspace(0.2, 2.0, C, dtype=torch.float64)
    sample_weight = torch.linspace(0, 1, N, dtype=torch.float64)
    return [
        {},
        {"reduction": "sum", "label_smoothing": 0.2},
        {"weight": weight, "label_smoothing": 0.1},
        {"weight": weight, "sample_weight": sample_weight, "denominator": "examples"},
        {"softcap": 2.0, "z_loss": 0.1, "temperature": 1.5, "sample_weight": sample_weight},
        {"reduction": "none", "weight": weight},
    ]


def batch():
    generator = torch.Generator().manual_seed(7)
    logits = 3 * torch.randn(N, C, dtype=torch.float64, generator=generator)
    target = torch.randint(0, C, (N,), generator=generator)
    target[2] = -100
    logits[2] = torch.nan  # of a row that does not count
    logits[3, 5] = -torch.inf
    target[3] = 4
    soft = torch.rand(N, C, dtype=torch.float64, generator=generator)
    layer = torch.randn(C, D, dtype=torch.float64, generator=generator)
    features = torch.randn(N, D, dtype=torch.float64, generator=generator)
    return logits, target, soft, layer, features


def shards(size):
    """Unequal ones."""
    edges = [0, *(C * k // size + (k % 2) for k in range(1, size)), C]
    return list(itertools.pairwise(edges))


def main(rank, size, store):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    low, high = shards(size)[rank]
    compare(low, high)
    for kind in (Network, Plain):
        replicate(kind, rank, size)
        if VERSION >= (2, 7):  # before, fully_shard does not run on CPUs
            spread(kind, rank, size)
    dist.barrier()  # a process that leaves early can make another wait for it in vain
    # Gloo's destructor waits, with the interpreter locked, for a thread that may be waiting for that lock.
    os._exit(0)


def compare(low, high):
    logits, target, soft, layer, features = batch()
    for keywords in settings():
        local = dict(keywords)
        if "weight" in local:
            local["weight"] = local["weight"][low:high]
        mixture = kt.Mixture(target % C, target.flip(0) % C, 0.3)
        for whole, part in ((target, target), (mixture, mixture), (soft, soft[:, low:high])):
            z = logits.clone()
            if whole is not target:
                z[2] = 0.0  # every row counts
            if whole is not target or keywords.get("label_smoothing"):
                z[3, 5] = 1.0  # there is mass on every class: a masked one would cost +inf
            full = z.clone().requires_grad_()
            expected = kt.cross_entropy(full, whole, **keywords)
            incoming = torch.linspace(1, 2, expected.numel(), dtype=torch.float64).reshape(expected.shape)
            wanted = torch.autograd.grad(expected, full, incoming)[0]
            shard = z[:, low:high].clone().requires_grad_()
            value = kt.vocab_parallel_cross_entropy(shard, part, **local)
            gradient = torch.autograd.grad(value, shard, incoming)[0]
            torch.testing.assert_close(value, expected)
            torch.testing.assert_close(gradient, wanted[:, low:high])
        if keywords.get("reduction") == "none":
            continue
        inputs = [t.clone().requires_grad_() for t in (features, layer, layer[:, 0])]
        expected = kt.linear_cross_entropy(inputs[0], inputs[1], target, linear_bias=inputs[2], **keywords)
        wanted = torch.autograd.grad(expected, inputs)
        mine = [t.clone().requires_grad_() for t in (features, layer[low:high], layer[low:high, 0])]
        value = kt.vocab_parallel_linear_cross_entropy(
            mine[0], mine[1], target, linear_bias=mine[2], chunk_rows=4, **local
        )
        gradients = torch.autograd.grad(value, mine)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(gradients[0], wanted[0])
        torch.testing.assert_close(gradients[1], wanted[1][low:high])
        torch.testing.assert_close(gradients[2], wanted[2][low:high])
    with pytest.raises(IndexError, match=rf"Target {C} is out of bounds.*0 to {C - 1}"):
        kt.vocab_parallel_cross_entropy(logits[:, low:high], torch.full((N,), C))
    broken = logits.clone()
    broken[2] = 0.0
    broken[1, 0] = torch.nan  # held by the first process alone
    losses = kt.vocab_parallel_cross_entropy(broken[:, low:high], target % C, reduction="none")
    assert losses.isnan().tolist() == [i == 1 for i in range(N)]
    single = kt.vocab_parallel_cross_entropy(logits[:, low:high].float(), target, empty="zero")
    torch.testing.assert_close(single, F.cross_entropy(logits.float(), target))


class Network(torch.nn.Module):
    """A network that ends in the fused layer and loss, summed over its own examples."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Linear(D, 6)
        self.head = kt.LinearCrossEntropy(6, C, reduction="sum", label_smoothing=0.1)

    def forward(self, x, y):
        return self.head(self.body(x).tanh(), y)


class Plain(Network):
    """The same with the layer and the loss apart."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(6, C)
        self.loss = kt.CrossEntropyLoss(reduction="sum", label_smoothing=0.1)

    def forward(self, x, y):
        return self.loss(self.head(self.body(x).tanh()), y)


def examples(rank, size):
    """The whole batch, and a process' own part of it."""
    features, target = batch()[-1].float(), batch()[1]
    return (features, target), (features[rank::size], target[rank::size])


def whole_gradients(network, size):
    """Of the mean over the processes of their sums."""
    (network(*examples(0, size)[0]) / size).backward()
    return [p.grad for p in network.parameters()]


def replicate(kind, rank, size):
    network = torch.nn.parallel.DistributedDataParallel(kind())
    network(*examples(rank, size)[1]).backward()
    for parameter, wanted in zip(network.parameters(), whole_gradients(kind(), size), strict=True):
        torch.testing.assert_close(parameter.grad, wanted)


def spread(kind, rank, size):
    from torch.distributed.fsdp import fully_shard

    network = kind()
    mesh = dist.device_mesh.init_device_mesh("cpu", (size,))
    for part in (network.body, network):
        fully_shard(part, mesh=mesh)
    network(*examples(rank, size)[1]).backward()
    for parameter, wanted in zip(network.parameters(), whole_gradients(kind(), size), strict=True):
        torch.testing.assert_close(parameter.grad.full_tensor(), wanted)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
