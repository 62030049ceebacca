"""The operators of the fused linear layer and loss, with their fake versions and gradients."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kullback.losses.base import Batch as LossBatch
from kullback.torch import devices, linear_rows, native, objects, ops, plain
from kullback.torch.direct import direct, is_plain
from kullback.torch.linear_rows import CrossEntropyRows, LinearPass, ObjectRows, RowLoss, Wanted
from kullback.torch.rows import TargetRows, accumulation_dtype, widest_dtype
from kullback.torch.settings import RowSettings

_ROWS = "Tensor input, Tensor weight, Tensor? bias, Tensor first, Tensor? second, Tensor? share"
_SETTINGS = "float smoothing, float temperature, float softcap, float z_loss, int? ignore_index, bool by_mass, str loss"
_N = len(RowSettings._fields)


def _linear_loss(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    first: Tensor,
    second: Tensor | None,
    share: Tensor | None,
    row_weight: Tensor | None,
    class_weight: Tensor | None,
    smoothing: float,
    temperature: float,
    softcap: float,
    z_loss: float,
    ignore_index: int | None,
    by_mass: bool,
    loss: str,
    reduction: str,
    denominator: str,
    empty: str,
    wanted: list[bool],
    with_statistics: bool,
    chunk_rows: int | None,
    drop_ignored: bool,
    value_dtype: torch.dtype,
    shape: list[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The loss of a batch of rows of a linear layer; `loss` is a key of `objects`, or empty for cross-entropy.

    Returns:
        The value (0-d, or (N,) for ``"none"``), the gradients of input, weight and bias, the factor 1/denominator
        (0-d), the log-sum-exps and the predictions (N,); parts that were not asked for are empty.
    """
    settings = RowSettings(smoothing, temperature, softcap, z_loss, ignore_index, by_mass)
    target = TargetRows(first, second, share)
    divisor = _divisor(settings, loss, weight.shape[0], target, row_weight, class_weight, reduction, denominator, shape)
    if empty == "error" and bool(divisor == 0):
        raise ops.empty_error()
    scale = torch.where(divisor == 0, 0.0, 1.0 / divisor)
    factors = scale.expand(input.shape[0]) if row_weight is None else scale * row_weight
    found = _run(
        settings,
        loss,
        (input, weight, bias),
        target,
        None if row_weight is None and reduction != "mean" else factors,
        class_weight,
        Wanted(*wanted),
        with_statistics,
        chunk_rows,
        drop_ignored,
    )
    if reduction == "none":
        value = found.losses
    else:
        value = found.losses.sum(dtype=scale.dtype)
        value = torch.where(divisor == 0, math.nan if empty == "nan" else 0.0, value)
    on_input, on_weight, on_bias = (input.new_empty(0) if g is None else g for g in found[1:4])
    return (
        value.to(value_dtype),
        on_input,
        on_weight,
        on_bias,
        scale,
        input.new_empty(0) if found.lse is None else found.lse,
        torch.empty(0, dtype=torch.int64, device=input.device) if found.prediction is None else found.prediction,
    )


def _divisor(
    settings: RowSettings,
    loss: str,
    n_classes: int,
    target: TargetRows,
    row_weight: Tensor | None,
    class_weight: Tensor | None,
    reduction: str,
    kind: str,
    shape: list[int],
) -> Tensor:
    """What the sum of the losses is divided by, 0-d; on the CPU the targets are checked on the way."""
    device = target.first.device
    if native.runs(target.first):
        weight = native.row_weights(row_weight, checked=True)
        native.check_targets(target, n_classes, weight, settings, shape)
    if reduction != "mean":
        return torch.ones((), dtype=widest_dtype(device), device=device)
    if not loss:
        return plain.denominator(target, class_weight, row_weight, settings.ignore_index, kind)
    if not native.runs(target.first):
        on_device = devices.loss_object(objects.loss_by_key(loss), n_classes, device)
        if on_device is not None:
            return on_device.denominator(target, row_weight, kind)
    host = TargetRows(*(None if t is None else t.cpu() for t in target))  # type: ignore[arg-type]
    batch = LossBatch(
        objects.loss_by_key(loss),
        (target.first.shape[0], n_classes),
        native.class_targets(host),
        native.row_weights(None if row_weight is None else row_weight.cpu(), checked=True),
        "mean",
        kind,  # type: ignore[arg-type]
        "nan",
    )
    return torch.tensor(batch.divisor, dtype=widest_dtype(device), device=device)


def _run(
    settings: RowSettings,
    loss: str,
    layer: tuple[Tensor, Tensor, Tensor | None],
    target: TargetRows,
    row_weight: Tensor | None,
    class_weight: Tensor | None,
    wanted: Wanted,
    with_statistics: bool,
    chunk_rows: int | None,
    drop_ignored: bool,
) -> LinearPass:
    row_loss: RowLoss = ObjectRows(objects.loss_by_key(loss)) if loss else CrossEntropyRows(settings, class_weight)
    counts = plain.counted_rows(target, row_weight, settings.ignore_index)
    with torch.no_grad():
        return linear_rows.run(
            row_loss,
            layer[0].detach(),
            layer[1].detach(),
            None if layer[2] is None else layer[2].detach(),
            target,
            row_weight,
            counts,
            wanted,
            with_statistics=with_statistics,
            chunk_rows=chunk_rows,
            drop_ignored=drop_ignored,
        )


def _fake_gradients(input: Tensor, weight: Tensor, bias: Tensor | None, wanted: list[bool]) -> tuple[Tensor, ...]:
    contiguous = torch.contiguous_format
    return tuple(
        torch.empty_like(t, memory_format=contiguous) if want and t is not None else input.new_empty(0)
        for t, want in zip((input, weight, bias), wanted, strict=True)
    )


_linear_loss_op = torch.library.custom_op(
    "kullback::linear_loss",
    _linear_loss,
    mutates_args=(),
    schema=(
        f"({_ROWS}, Tensor? row_weight, Tensor? class_weight, {_SETTINGS}, str reduction, str denominator, str empty, "
        "bool[] wanted, bool with_statistics, int? chunk_rows, bool drop_ignored, ScalarType value_dtype, "
        "SymInt[] shape) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
)


@_linear_loss_op.register_fake
def _linear_loss_fake(input: Tensor, weight: Tensor, bias: Tensor | None, *args: Any) -> tuple[Tensor, ...]:
    reduction, _, _, wanted, with_statistics, _, _, value_dtype, _ = args[-9:]
    n_rows = input.shape[0]
    per_row = n_rows if with_statistics else 0
    return (
        input.new_empty((n_rows,) if reduction == "none" else (), dtype=value_dtype),
        *_fake_gradients(input, weight, bias, wanted),
        input.new_empty((), dtype=widest_dtype(input.device)),
        input.new_empty(per_row, dtype=accumulation_dtype(input.dtype) if with_statistics else input.dtype),
        input.new_empty(per_row, dtype=torch.int64),
    )


@torch.library.custom_op(
    "kullback::linear_gradient",
    mutates_args=(),
    schema=(
        f"(Tensor row_scale, {_ROWS}, Tensor? class_weight, {_SETTINGS}, bool[] wanted, int? chunk_rows, "
        "bool drop_ignored) -> (Tensor, Tensor, Tensor)"
    ),
)
def linear_gradient(
    row_scale: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    first: Tensor,
    second: Tensor | None,
    share: Tensor | None,
    class_weight: Tensor | None,
    smoothing: float,
    temperature: float,
    softcap: float,
    z_loss: float,
    ignore_index: int | None,
    by_mass: bool,
    loss: str,
    wanted: list[bool],
    chunk_rows: int | None,
    drop_ignored: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of input, weight and bias of Σ row_scale × loss; those not asked for are empty."""
    settings = RowSettings(smoothing, temperature, softcap, z_loss, ignore_index, by_mass)
    found = _run(
        settings,
        loss,
        (input, weight, bias),
        TargetRows(first, second, share),
        row_scale,
        class_weight,
        Wanted(*wanted),
        False,
        chunk_rows,
        drop_ignored,
    )
    gradients = [input.new_empty(0) if g is None else g for g in found[1:4]]
    return gradients[0], gradients[1], gradients[2]


@linear_gradient.register_fake
def _linear_gradient_fake(
    row_scale: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None, *args: Any
) -> tuple[Tensor, ...]:
    return _fake_gradients(input, weight, bias, args[-3])


def _context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*inputs[:8], *output[1:5])
    ctx.settings, ctx.loss = RowSettings(*inputs[8 : 8 + _N]), inputs[8 + _N]
    ctx.held = objects.held(ctx.loss)
    ctx.reduction, _, _, ctx.wanted, _, ctx.chunk_rows, ctx.drop_ignored, _, ctx.shape = inputs[9 + _N :]


def _backward(ctx: Any, g: Tensor | None, *_others: Tensor | None) -> tuple[Tensor | None, ...]:
    rest = (None,) * (15 + _N)
    if g is None:
        return (None, None, None, *rest)
    input, weight, bias, first, second, share, row_weight, class_weight, *stored, scale = ctx.saved_tensors
    target = TargetRows(first, second, share)
    needed = [bool(n) for n in ctx.needs_input_grad[:3]]
    if not torch.is_grad_enabled() and all(w or not n for w, n in zip(ctx.wanted, needed, strict=True)):
        return (*(ops.times(t, g) if n else None for t, n in zip(stored, needed, strict=True)), *rest)
    row_scale = g if ctx.reduction == "none" else (g * scale).expand(input.shape[0])
    row_scale = row_scale.to(accumulation_dtype(input.dtype))
    if row_weight is not None:
        row_scale = row_scale * row_weight
    if not torch.is_grad_enabled():
        gradients = linear_gradient(
            row_scale,
            input,
            weight,
            bias,
            *target,
            class_weight,
            *ctx.settings,
            ctx.loss,
            needed,
            ctx.chunk_rows,
            ctx.drop_ignored,
        )
        return (*(t if n else None for t, n in zip(gradients, needed, strict=True)), *rest)
    # a second derivative is wanted: the same steps on whole logits, each of which PyTorch can differentiate; a gradient
    # of 0 times the NaN of a row that does not count would be NaN
    counts = plain.counted_rows(target, row_weight, ctx.settings.ignore_index)
    input = torch.where(counts[:, None], input, 0)
    logits = torch.nn.functional.linear(input, weight, None if bias is None else bias.to(input.dtype))
    if ctx.loss:
        ones = torch.ones_like(row_scale)
        on_logits = (
            objects.object_gradient(logits, *target, ones, ctx.loss, "none", "weights", "zero", ctx.shape)
            * row_scale.to(logits.dtype)[:, None]
        )
    else:
        on_logits = ops.gradient_op(row_scale, logits, *target, class_weight, *ctx.settings, ctx.shape)
    return (
        on_logits @ weight if needed[0] else None,
        on_logits.t() @ input if needed[1] else None,
        on_logits.sum(dim=0) if needed[2] and bias is not None else None,
        *rest,
    )


_linear_loss_op.register_autograd(_backward, setup_context=_context)
_loss_directly = direct(_linear_loss, _context, _backward, 8)


def linear_loss(*args: Any) -> tuple[Tensor, ...]:
    """The operator ``linear_loss``, the short way where that will do."""
    return _loss_directly(*args) if is_plain(args[:8]) else _linear_loss_op(*args)  # type: ignore[no-any-return]
