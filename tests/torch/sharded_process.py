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
            spread_the_older_way(kind, rank, size)
    dist.barrier()  # a process that leaves early can make another wait for it in vain
    # Gloo's destructor waits, with the interpreter locked, for a thread that may be waiting for that lock.
    os._exit(0)


def compare(low, high):
    logits, target, soft, _, _ = batch()
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
        for form, whole, part in (
            ("indices", target, target),
            ("soft rows", soft, soft[:, low:high]),
            ("mixture", mixture, mixture),
        ):
            compare_layer(form, whole, part, keywords, local, (low, high))
    refuses(low, high)
    with pytest.raises(IndexError, match=rf"Target {C} is out of bounds.*0 to {C - 1}"):
        kt.vocab_parallel_cross_entropy(logits[:, low:high], torch.full((N,), C))
    broken = logits.clone()
    broken[2] = 0.0
    broken[1, 0] = torch.nan  # held by the first process alone
    losses = kt.vocab_parallel_cross_entropy(broken[:, low:high], target % C, reduction="none")
    assert losses.isnan().tolist() == [i == 1 for i in range(N)]
    single = kt.vocab_parallel_cross_entropy(logits[:, low:high].float(), target, empty="zero")
    torch.testing.assert_close(single, F.cross_entropy(logits.float(), target))


def compare_layer(form, whole, part, keywords, local, edges):
    """The sharded layer against the layer in one process, of (N, D) and of (N/3, 3, D) features."""
    low, high = edges
    _, target, _, layer, features = batch()
    if form == "indices":
        features[target == -100] = torch.nan  # of a row that does not count
    elif "sample_weight" in keywords:
        features[keywords["sample_weight"] == 0] = torch.nan
    inputs = [t.clone().requires_grad_() for t in (features, layer, layer[:, 0])]
    expected = kt.linear_cross_entropy(inputs[0], inputs[1], whole, linear_bias=inputs[2], **keywords)
    incoming = torch.linspace(1, 2, expected.numel(), dtype=torch.float64).reshape(expected.shape)
    wanted = torch.autograd.grad(expected, inputs, incoming)
    assert not any(t.isnan().any() for t in wanted)
    for lead in ((N,), (N // 3, 3)):
        mine = [t.clone().requires_grad_() for t in (features.reshape(*lead, D), layer[low:high], layer[low:high, 0])]
        choices = dict(local)
        if "sample_weight" in choices:
            choices["sample_weight"] = choices["sample_weight"].reshape(lead)
        targets = reshaped(part, lead)
        value = kt.vocab_parallel_linear_cross_entropy(
            mine[0], mine[1], targets, linear_bias=mine[2], chunk_rows=4, **choices
        )
        assert value.shape == (lead if keywords.get("reduction") == "none" else ())
        torch.testing.assert_close(value.flatten(), expected.flatten())
        gradients = torch.autograd.grad(value, mine, incoming.reshape(value.shape))
        torch.testing.assert_close(gradients[0].reshape(N, D), wanted[0])
        torch.testing.assert_close(gradients[1], wanted[1][low:high])
        torch.testing.assert_close(gradients[2], wanted[2][low:high])
        with torch.no_grad():
            again = kt.vocab_parallel_linear_cross_entropy(mine[0], mine[1], targets, linear_bias=mine[2], **choices)
        torch.testing.assert_close(again, value.detach())


def reshaped(target, lead):
    if isinstance(target, kt.Mixture):
        return kt.Mixture(target.first.reshape(lead), target.second.reshape(lead), target.share)
    return target.reshape(*lead, *target.shape[1:])


def refuses(low, high):
    """What a sharded loss cannot do, and input that does not fit: errors, before any process waits for another."""
    logits, target, _, layer, features = batch()
    target = target.clamp_min(0)
    logits[2] = 0.0
    shard = logits[:, low:high].clone().requires_grad_()
    mine = [features.clone().requires_grad_(), layer[low:high].clone().requires_grad_()]
    for value, inputs in (
        (kt.vocab_parallel_cross_entropy(shard, target), [shard]),
        (kt.vocab_parallel_linear_cross_entropy(*mine, target), mine),
        (kt.vocab_parallel_linear_cross_entropy(*mine, target, reduction="none").sum(), mine),
    ):
        with pytest.raises(NotImplementedError, match="no second derivative"):
            torch.autograd.grad(value, inputs, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"torch\.func"):
        torch.func.grad(lambda z: kt.vocab_parallel_cross_entropy(z, target))(shard.detach())
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(mine[0].detach(), features)
        with pytest.raises(NotImplementedError, match="forward mode"):
            kt.vocab_parallel_linear_cross_entropy(dual, mine[1], target)
    for wrong, error, says in (
        ({"chunk_rows": 0}, RuntimeError, "chunk_rows"),
        ({"linear_bias": layer[:, 0][: high - low - 1]}, RuntimeError, "linear_bias shape"),
        ({"linear_bias": [0.0] * (high - low)}, TypeError, "linear_bias must be a Tensor"),
        ({"weight": [1.0] * (high - low)}, TypeError, "weight must be a Tensor"),
        ({"linear_weight": layer[low:high].float()}, RuntimeError, "same dtype"),
        ({"linear_weight": layer[low:high].tolist()}, TypeError, "linear_weight must be a Tensor"),
        ({"linear_weight": layer[low:high].to("meta")}, RuntimeError, "same device"),
        ({"linear_weight": layer[low:high, :, None].expand(-1, D, D)}, NotImplementedError, r"\(c, D\)"),
    ):
        with pytest.raises(error, match=says):
            kt.vocab_parallel_linear_cross_entropy(
                **{"input": features, "linear_weight": layer[low:high], "target": target} | wrong
            )
    with torch.autocast("cpu", torch.bfloat16):  # features of a layer before, weights as they are kept
        found = kt.vocab_parallel_linear_cross_entropy(features.bfloat16(), layer[low:high].float(), target)
        wanted = kt.linear_cross_entropy(features.bfloat16(), layer.float(), target)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    no_products_for_gradients(features, layer[low:high], target)


def no_products_for_gradients(features, weight, target):
    """Without autograd there is one matrix product a chunk, with it there are three."""
    seen = []
    weight = weight.clone().requires_grad_()
    features = features.clone().requires_grad_()
    for mode in (torch.no_grad, torch.enable_grad):
        with torch.profiler.profile() as profile, mode():
            kt.vocab_parallel_linear_cross_entropy(features, weight, target, chunk_rows=N)
        seen.append(sum(e.count for e in profile.key_averages() if e.key in ("aten::mm", "aten::addmm")))
    assert seen == [1, 3], seen


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


def spread_the_older_way(kind, rank, size):
    from torch.distributed.fsdp import FullyShardedDataParallel

    network = FullyShardedDataParallel(kind(), device_id=torch.device("cpu"), use_orig_params=True)
    network(*examples(rank, size)[1]).backward()
    wanted = whole_gradients(kind(), size)
    with FullyShardedDataParallel.summon_full_params(network, with_grads=True):
        for parameter, gradient in zip(network.parameters(), wanted, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
