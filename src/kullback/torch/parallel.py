"""Cross-entropy where the classes are spread over the processes of a group: each holds its own columns of the logits.

Two all-reduces of a few numbers per row replace gathering the logits: the largest logit, then the sums of
`class_blocks`. Every process must pass the same targets, weights and choices, and gets the same loss; the gradient it
gets is that of its own shard. Shards may differ in size and are ordered by rank.

There is no second derivative, nothing for ``torch.func``, and ``torch.compile`` breaks its graph here.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from kullback.torch import native, ops, plain
from kullback.torch.batch_loss import checked_denominator, requires_grad, value_dtype
from kullback.torch.class_blocks import ClassBlock, RowSums
from kullback.torch.errors import NotSupportedError
from kullback.torch.layer import Layer, check_chunk_rows, layer_batch
from kullback.torch.linear_rows import Wanted, rows_at_a_time, spread
from kullback.torch.rows import Batch, Mixture, TargetRows, accumulation_dtype, class_batch
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
    batch = class_batch(input, target, weight, sample_weight, settings)
    _check(batch, input)
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
    target: Tensor | Mixture,
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
    Gradients are made in the forward pass, a chunk of rows at a time; those of ``reduction="none"`` and of float16 wait
    for the incoming gradient and need the logits a second time. What does not count is in no product.

    Args:
        input: (D,), (N, D) or (N, T, …, D), the same on every process.
        linear_weight: (c, D), this process' classes.
        target: class indices over all C classes, shaped like the input without D, the same on every process; this
            process' columns of soft rows, (N, T, …, c); or a `Mixture` of indices.
        linear_bias: (c,) or None.
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
        chunk_rows: how many examples to take at a time.

    Raises:
        ClassIndexError, NotSupportedError, InputError: as for `vocab_parallel_cross_entropy`.
    """
    settings = row_settings(label_smoothing, temperature, softcap, z_loss, ignore_index)
    check_chunk_rows(chunk_rows)
    layer = Layer.checked(input, linear_weight, linear_bias)
    if layer.weight.dim() > 2:
        raise NotSupportedError(
            "a sharded linear_weight is (c, D); use vocab_parallel_cross_entropy on the logits of the layer"
        )
    batch = layer_batch(layer, target, sample_weight, weight, settings)
    _check(batch, *layer[:3])
    kind = checked_denominator(batch.target, reduction, denominator, empty)
    shard = _Shard.of(group, layer.weight.shape[0], layer.input.device)
    shard.check_targets(batch, settings)
    scale = _scale(batch, settings, shard, reduction, kind, empty)
    factors = scale.expand(layer.input.shape[0])
    if batch.sample_weight is not None:
        factors = factors * batch.sample_weight
    dtype = value_dtype(layer.input, batch.target)
    step = rows_at_a_time(layer.input.shape[0], shard.n_classes, chunk_rows)
    task = _LayerTask(batch._replace(logits=batch.logits.detach()), settings, shard, step)
    tensors = layer[:3]
    wanted = Wanted(*(torch.is_grad_enabled() and requires_grad(t) for t in tensors))
    # as for the layer in one process: float16 gradients wait for the loss scaler's factor
    now = wanted.any and reduction != "none" and torch.float16 not in (dtype, layer.input.dtype)
    losses: Tensor = _ShardedLayer.apply(  # type: ignore[no-untyped-call]
        *tensors, factors, task, reduction != "none", wanted if now else Wanted(False, False, False)
    )
    return batch.restored(losses).to(dtype) if reduction == "none" else _total(losses, scale, empty).to(dtype)


def _check(batch: Batch, *inputs: Tensor | None) -> None:
    if ops.in_transform() or ops.has_tangent(*inputs):
        raise NotSupportedError("torch.func and forward mode cannot look into sharded losses: use loss.backward()")
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
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        ops.refuse_second_derivative("vocab_parallel_cross_entropy")
        logits, factors, *sums = ctx.saved_tensors
        block = _block(logits, ctx.batch, ctx.settings, ctx.shard, slice(None))
        gradient = block.gradient(RowSums(*sums), torch.where(factors == 0, 0.0, factors * g))
        return gradient.to(logits.dtype), None, None, None, None


class _LayerTask(NamedTuple):
    """What a sharded layer's forward and backward pass have in common."""

    batch: Batch
    settings: RowSettings
    shard: _Shard
    step: int


class _LayerPass(NamedTuple):
    """A pass over a sharded layer: losses (N,), the rows' sums (4, N), and the gradients asked for."""

    losses: Tensor
    sums: Tensor
    gradients: tuple[Tensor | None, Tensor | None, Tensor | None]


def _layer_pass(
    layer: tuple[Tensor, Tensor, Tensor | None],
    factors: Tensor,
    task: _LayerTask,
    wanted: Wanted,
    known: Tensor | None = None,
) -> _LayerPass:
    """Losses times `factors`, and the gradients of their sum; rows of factor 0 are left out of it all.

    Args:
        layer: input (N, D), weight (c, D), bias (c,) or None.
        factors: (N,).
        task: the rest of the loss.
        wanted: which gradients.
        known: the rows' sums (4, N) if a pass before has found them.
    """
    input, weight, bias = layer
    batch, settings, shard, step = task
    whole, device = input.shape[0], input.device
    counts = factors != 0
    kept = None if bool(counts.all()) else counts.nonzero()[:, 0]
    if kept is not None:
        input, factors = input[kept], factors[kept]
        target = TargetRows(*(None if t is None else t[kept] for t in batch.target))  # type: ignore[arg-type]
        batch = batch._replace(
            target=target, sample_weight=None if batch.sample_weight is None else batch.sample_weight[kept]
        )
        known = None if known is None else known[:, kept]
    wide = accumulation_dtype(input.dtype)
    product = wide if device.type == "cpu" else input.dtype
    w, b = weight.to(product), None if bias is None else bias.to(product)
    on_input = torch.empty(input.shape, dtype=wide, device=device) if wanted.input else None
    on_weight = torch.zeros(weight.shape, dtype=wide, device=device) if wanted.weight else None
    on_bias = torch.zeros(weight.shape[0], dtype=wide, device=device) if wanted.bias else None
    losses = torch.empty(input.shape[0], dtype=torch.float64, device=device)
    found = torch.empty(4, input.shape[0], dtype=torch.float64, device=device) if known is None else known
    with torch.autocast(device.type, enabled=False):  # the types are chosen here
        for start in range(0, input.shape[0], step):
            rows = slice(start, start + step)
            x = input[rows].to(product)
            block = _block(torch.nn.functional.linear(x, w, b), batch, settings, shard, rows)
            if known is None:
                found[:, rows] = torch.stack([part.double() for part in shard.sums(block)])
            sums = RowSums(*found[:, rows])
            losses[rows] = _weighted(sums.losses(settings.z_loss), factors[rows])
            if not wanted.any:
                continue
            g = block.gradient(sums, factors[rows])
            if on_bias is not None:
                on_bias += g.sum(dim=0)
            g = g.to(product)
            if on_input is not None:
                on_input[rows] = g @ w
            if on_weight is not None:
                on_weight += g.t() @ x
    if on_input is not None:
        on_input = shard.added(on_input).to(input.dtype)
    return _LayerPass(
        spread(losses, kept, whole),
        found.new_zeros(4, whole).index_copy_(1, kept, found) if kept is not None else found,
        (
            None if on_input is None else spread(on_input, kept, whole),
            None if on_weight is None else on_weight.to(weight.dtype),
            None if on_bias is None or bias is None else on_bias.to(bias.dtype),
        ),
    )


class _ShardedLayer(torch.autograd.Function):
    """Row losses of a sharded layer, or their sum, whose gradients may then be made in the same pass."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        factors: Tensor,
        task: _LayerTask,
        summed: bool,
        now: Wanted,
    ) -> Tensor:
        factors = _row_factors(task.batch, task.settings, task.shard, factors)
        found = _layer_pass((input, weight, bias), factors, task, now)
        ctx.task, ctx.summed, ctx.made = task, summed, now.any
        if now.any:
            ctx.save_for_backward(*found.gradients)
        else:
            ctx.save_for_backward(input, weight, bias, factors, found.sums)
        return found.losses.sum() if summed else found.losses

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        ops.refuse_second_derivative("vocab_parallel_linear_cross_entropy")
        if ctx.made:
            gradients = tuple(None if t is None else ops.times(t, g) for t in ctx.saved_tensors)
        else:
            input, weight, bias, factors, sums = ctx.saved_tensors
            needed = Wanted(*ctx.needs_input_grad[:3])
            factors = torch.where(factors == 0, 0.0, factors * g)
            gradients = _layer_pass((input, weight, bias), factors, ctx.task, needed, sums).gradients
        return (*gradients, *(None,) * 4)
