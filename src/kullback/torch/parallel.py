"""Cross-entropy where the classes are spread over the processes of a group: each holds its own columns of the logits.

Two all-reduces of a few numbers per row replace gathering the logits: the largest logit, then the sums of
`class_blocks`. Every process must pass the same targets, weights and choices, and gets the same loss; the gradient it
gets is that of its own shard. Shards may differ in size and are ordered by rank.

There is no second derivative, and ``torch.compile`` breaks its graph here.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from kullback.torch import native, ops, plain
from kullback.torch.batch_loss import checked_denominator, value_dtype
from kullback.torch.class_blocks import ClassBlock, RowSums
from kullback.torch.errors import NotSupportedError, TensorShapeError, TensorTypeError
from kullback.torch.linear_rows import rows_at_a_time
from kullback.torch.rows import Batch, Mixture, accumulation_dtype, check_logits, class_batch
from kullback.torch.settings import RowSettings, row_settings

Group = Any  # torch.distributed.ProcessGroup, which not every build of PyTorch has


def vocab_parallel_cross_entropy(
    input: Tensor,
    target: Tensor | Mixture,
    weight: Tensor | None = None,
    *,
    group: Group | None = None,
    reduction: str = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    sample_weight: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    denominator: str | None = None,
    empty: str = "nan",
) -> Tensor:
    """`cross_entropy` of logits whose classes are spread over a process group.

    Args:
        input: this process' logits (c,), (N, c) or (N, c, d1, …); over the group c sums to C.
        target: class indices over all C classes, the same on every process; this process' columns of soft rows, of
            the input's shape; or a `Mixture` of indices.
        weight: class weights (c,) of this process' classes, or None (on all processes alike).
        group: the process group; the default group if None.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        ignore_index: examples of this class do not count.
        label_smoothing: ε, spread over all C classes.
        sample_weight: one weight per example, or None.
        temperature: T > 0.
        softcap: c, or None.
        z_loss: λ.
        denominator: as for `cross_entropy`.
        empty: as for `cross_entropy`.

    Raises:
        ClassIndexError: (an ``IndexError``) for a class outside [0, C), on the CPU.
        NotSupportedError: where a gradient for anything but the logits is wanted.
        InputError: of PyTorch's exception type for what does not fit.
    """
    settings = row_settings(label_smoothing, temperature, softcap, z_loss, ignore_index)
    check_logits(input)
    batch = class_batch(input, target, weight, sample_weight, settings)
    _check(batch)
    kind = checked_denominator(batch.target, reduction, denominator, empty)
    shard = _Shard.of(group, batch.logits.shape[1], input.device)
    shard.check_targets(batch, settings)
    scale = _scale(batch, settings, shard, reduction, kind, empty)
    factors = scale.expand(batch.logits.shape[0])
    if batch.sample_weight is not None:
        factors = factors * batch.sample_weight
    losses: Tensor = _ShardedRows.apply(  # type: ignore[no-untyped-call]
        batch.logits, factors, batch, settings, shard
    )
    dtype = value_dtype(input, batch.target)
    if reduction == "none":
        return batch.restored(losses).to(dtype)
    return _total(losses, scale, empty).to(dtype)


def vocab_parallel_linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    group: Group | None = None,
    reduction: str = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    sample_weight: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    denominator: str | None = None,
    empty: str = "nan",
    chunk_rows: int | None = None,
) -> Tensor:
    """`linear_cross_entropy` of a layer whose rows, one per class, are spread over a process group.

    The input is the same on every process, and so is the gradient it gets: the shards' parts are summed over the group.
    Gradients are made in the forward pass, a chunk of rows at a time.

    Args:
        input: (N, D), the same on every process.
        linear_weight: (c, D), this process' classes.
        target: class indices over all C classes, the same on every process.
        linear_bias: (c,) or None.
        weight: class weights (c,) of this process' classes, or None.
        group: the process group; the default group if None.
        reduction: ``"mean"`` or ``"sum"``.
        ignore_index: examples of this class do not count.
        label_smoothing: ε, spread over all C classes.
        sample_weight: one weight per example, or None.
        temperature: T > 0.
        softcap: c, or None.
        z_loss: λ.
        denominator: as for `cross_entropy`.
        empty: as for `cross_entropy`.
        chunk_rows: how many examples to take at a time.

    Raises:
        ClassIndexError, NotSupportedError, InputError: as for `vocab_parallel_cross_entropy`.
    """
    settings = row_settings(label_smoothing, temperature, softcap, z_loss, ignore_index)
    check_logits(input)
    if input.dim() != 2 or linear_weight.dim() != 2 or input.shape[1] != linear_weight.shape[1]:
        raise TensorShapeError(
            f"expected an input (N, D) and a linear_weight (c, D), got {tuple(input.shape)} and "
            f"{tuple(linear_weight.shape)}"
        )
    if linear_weight.dtype != input.dtype:
        raise TensorTypeError(f"input is {input.dtype} and linear_weight {linear_weight.dtype}; they must match")
    if reduction == "none":
        raise NotSupportedError(
            'reduction="none" needs a second pass over the layer; use vocab_parallel_cross_entropy on its logits'
        )
    stand_in = input.detach().new_empty(()).expand(input.shape[0], linear_weight.shape[0])
    batch = class_batch(stand_in, target, weight, sample_weight, settings)
    _check(batch)
    kind = checked_denominator(batch.target, reduction, denominator, empty)
    shard = _Shard.of(group, linear_weight.shape[0], input.device)
    shard.check_targets(batch, settings)
    scale = _scale(batch, settings, shard, reduction, kind, empty)
    factors = scale.expand(input.shape[0])
    if batch.sample_weight is not None:
        factors = factors * batch.sample_weight
    step = rows_at_a_time(input.shape[0], shard.n_classes, chunk_rows)
    losses: Tensor = _ShardedLayer.apply(  # type: ignore[no-untyped-call]
        input, linear_weight, linear_bias, factors, batch, settings, shard, step
    )
    return _total(losses, scale, empty).to(value_dtype(input, batch.target))


def _check(batch: Batch) -> None:
    weights = (batch.class_weight, batch.sample_weight)
    if batch.target.requires_grad() or any(w is not None and w.requires_grad for w in weights):
        raise NotSupportedError("sharded losses give gradients for the logits alone; detach targets and weights")


class _Shard(NamedTuple):
    """This process' place among the classes."""

    group: Group | None
    start: int
    n_classes: int

    @staticmethod
    def of(group: Group | None, width: int, device: torch.device) -> _Shard:
        if not dist.is_available() or not dist.is_initialized():
            raise NotSupportedError("there is no process group: call torch.distributed.init_process_group() first")
        widths = [torch.zeros((), dtype=torch.int64, device=device) for _ in range(dist.get_world_size(group))]
        dist.all_gather(widths, torch.tensor(width, device=device), group=group)
        sizes = [int(w) for w in widths]
        return _Shard(group, sum(sizes[: dist.get_rank(group)]), sum(sizes))

    def check_targets(self, batch: Batch, settings: RowSettings) -> None:
        if batch.target.first.device.type != "cpu":
            return
        weight = native.row_weights(batch.sample_weight, checked=True)
        native.check_targets(batch.target, self.n_classes, weight, settings, batch.shape)

    def sums(self, block: ClassBlock) -> RowSums:
        """The rows' sums over the classes of all processes."""
        own = block.sums()
        # a NaN has no place in a maximum over processes; it travels in the sum instead
        top = torch.where(own.top.isnan(), -torch.inf, own.top)
        dist.all_reduce(top, op=dist.ReduceOp.MAX, group=self.group)
        falloff = torch.where(own.top == top, 1.0, (own.top - top).double().exp())
        parts = torch.stack([own.total * falloff, own.pulled, own.mass])
        dist.all_reduce(parts, group=self.group)
        return RowSums(top, *parts)

    def added(self, tensor: Tensor) -> Tensor:
        """A tensor summed over the processes, in place."""
        dist.all_reduce(tensor, group=self.group)
        return tensor


def _scale(batch: Batch, settings: RowSettings, shard: _Shard, reduction: str, kind: str, empty: str) -> Tensor:
    """1 over what the mean divides by; 0 where nothing counts."""
    target, sample_weight = batch.target, batch.sample_weight
    counts = plain.counted_rows(target, sample_weight, settings.ignore_index)
    if reduction != "mean":
        return torch.ones((), dtype=torch.float64, device=counts.device)
    shares = counts.double()
    if kind == "weights":
        if batch.class_weight is not None:
            shares = shares * _row_class_weight(batch, shard)
        if sample_weight is not None:
            shares = torch.where(counts, shares * sample_weight, 0.0)
    divisor = shares.sum()
    if empty == "error" and bool(divisor == 0):
        raise ops.empty_error()
    return torch.where(divisor == 0, 0.0, 1.0 / divisor)


def _row_class_weight(batch: Batch, shard: _Shard) -> Tensor:
    """Each row's mean class weight, from the shards that know it."""
    assert batch.class_weight is not None
    weight, target = batch.class_weight.double(), batch.target
    if target.is_soft():
        mass = target.first.double()
        weighted, plain_sum = shard.added(torch.stack([mass @ weight, mass.sum(dim=1)]))
        return torch.where(plain_sum > 0, weighted / torch.where(plain_sum > 0, plain_sum, 1.0), 1.0)

    def of(classes: Tensor) -> Tensor:
        column = classes.long() - shard.start
        here = (column >= 0) & (column < weight.shape[0])
        return torch.where(here, weight[torch.where(here, column, 0)], 0.0)

    omega = of(target.first)
    if target.second is not None and target.share is not None:
        omega = target.share * omega + (1 - target.share) * of(target.second)
    return shard.added(omega)


def _total(losses: Tensor, scale: Tensor, empty: str) -> Tensor:
    return torch.where(scale == 0, math.nan if empty == "nan" else 0.0, losses.sum())


def _block(logits: Tensor, batch: Batch, settings: RowSettings, shard: _Shard, rows: slice) -> ClassBlock:
    """The shard of some rows; rows that do not count get logits of 0, whatever they were."""
    target, sample_weight = plain.part(batch.target, rows), batch.sample_weight
    counts = plain.counted_rows(target, None if sample_weight is None else sample_weight[rows], settings.ignore_index)
    z = torch.where(counts[:, None], logits.to(accumulation_dtype(logits.dtype)), 0.0)
    return ClassBlock(settings, z, shard.start, shard.n_classes, target, batch.class_weight)


def _row_factors(batch: Batch, settings: RowSettings, shard: _Shard, factors: Tensor) -> Tensor:
    """What each row's loss is multiplied by: 0 if it does not count, NaN if its class does not exist."""
    counts = plain.counted_rows(batch.target, batch.sample_weight, settings.ignore_index)
    wrong = plain.out_of_range(batch.target, shard.n_classes, counts)
    return torch.where(wrong, torch.nan, torch.where(counts, factors, 0.0))


def _weighted(losses: Tensor, factors: Tensor) -> Tensor:
    return torch.where(factors == 0, 0.0, losses * factors)


class _ShardedRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, factors: Tensor, batch: Batch, settings: RowSettings, shard: _Shard
    ) -> Tensor:
        factors = _row_factors(batch, settings, shard, factors)
        sums = shard.sums(_block(logits, batch, settings, shard, slice(None)))
        ctx.save_for_backward(logits, factors, *sums)
        ctx.batch, ctx.settings, ctx.shard = batch._replace(logits=batch.logits.detach()), settings, shard
        return _weighted(sums.losses(settings.z_loss), factors)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        logits, factors, *sums = ctx.saved_tensors
        block = _block(logits, ctx.batch, ctx.settings, ctx.shard, slice(None))
        gradient = block.gradient(RowSums(*sums), torch.where(factors == 0, 0.0, factors * g))
        return gradient.to(logits.dtype), None, None, None, None


class _ShardedLayer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        factors: Tensor,
        batch: Batch,
        settings: RowSettings,
        shard: _Shard,
        step: int,
    ) -> Tensor:
        wide = accumulation_dtype(input.dtype)
        product = wide if input.device.type == "cpu" else input.dtype
        factors = _row_factors(batch, settings, shard, factors)
        w = weight.to(product)
        wanted = ctx.needs_input_grad[:3]
        input_gradient = torch.zeros(input.shape, dtype=wide, device=input.device) if wanted[0] else None
        weight_gradient = torch.zeros(weight.shape, dtype=wide, device=input.device) if wanted[1] else None
        bias_gradient = torch.zeros(weight.shape[0], dtype=wide, device=input.device) if wanted[2] else None
        losses = torch.empty(input.shape[0], dtype=torch.float64, device=input.device)
        for start in range(0, input.shape[0], step):
            rows = slice(start, start + step)
            x = input[rows].to(product)
            block = _block(
                torch.nn.functional.linear(x, w, None if bias is None else bias.to(product)),
                batch,
                settings,
                shard,
                rows,
            )
            sums = shard.sums(block)
            losses[rows] = _weighted(sums.losses(settings.z_loss), factors[rows])
            if not any(wanted):
                continue
            g = block.gradient(sums, factors[rows])
            if bias_gradient is not None:
                bias_gradient += g.sum(dim=0)
            g = g.to(product)
            if input_gradient is not None:
                input_gradient[rows] = (g @ w).to(wide)
            if weight_gradient is not None:
                weight_gradient += g.t() @ x
        if input_gradient is not None:
            input_gradient = shard.added(input_gradient).to(input.dtype)
        ctx.save_for_backward(
            input_gradient,
            None if weight_gradient is None else weight_gradient.to(weight.dtype),
            None if bias_gradient is None or bias is None else bias_gradient.to(bias.dtype),
        )
        return losses.sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return (*(None if t is None else ops.times(t, g) for t in ctx.saved_tensors), *(None,) * 5)
