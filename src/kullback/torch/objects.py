"""Any loss object as an operator: its own value, gradient and Hessian product, on the CPU, behind PyTorch's autograd.

Operators take plain values, so a loss travels as text: its spelling, or, for a class of the user's own, a name under
which this process keeps it. Half-precision logits are computed in float32. On other devices the softmax family runs
where its logits are (see `devices`); any other loss is computed on the CPU and sent back, which is right but slow.
"""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kullback.errors import InputError, TargetError
from kullback.losses import Loss, parse_loss
from kullback.targets import LabelRows, Targets
from kullback.torch import devices, native, ops
from kullback.torch.buffers import result_like
from kullback.torch.devices import DeviceLoss
from kullback.torch.direct import direct, is_plain
from kullback.torch.errors import NotSupportedError, SoftTargetError
from kullback.torch.rows import TargetRows, accumulation_dtype
from kullback.torch.settings import RowSettings

# Losses outside the catalogue, as long as somebody holds them; a graph that will need one holds it too.
_own: weakref.WeakValueDictionary[str, Loss] = weakref.WeakValueDictionary()
_numbers = itertools.count()


def key_of(loss: Loss) -> str:
    """The text an operator knows the loss by; one outside the catalogue is known as long as the loss object lives."""
    spelling = str(loss)
    try:
        if parse_loss(spelling) == loss:
            return spelling
    except InputError:
        pass
    for key, known in _own.items():
        if known is loss:
            return key
    key = f"{spelling} [{next(_numbers)}]"
    _own[key] = loss
    return key


def held(key: str) -> Loss | None:
    """A loss outside the catalogue, for a backward pass to hold until it has run."""
    return _own.get(key)


def loss_by_key(key: str) -> Loss:
    """The loss behind the text.

    Raises:
        NotSupportedError: for a loss of the user's own that another process named.
    """
    known = _own.get(key)
    if known is not None:
        return known
    try:
        return parse_loss(key)
    except InputError:
        raise NotSupportedError(
            f"the loss {key!r} is not in the catalogue and was not made in this process, or is gone: keep what "
            "kullback.torch.functional(...) returns as long as the program that uses it runs"
        ) from None


def _targets(loss: Loss, target: TargetRows) -> Targets:
    host = TargetRows(*(None if t is None else t.cpu() for t in target))  # type: ignore[arg-type]
    if loss.target_form == "labels":
        first = host.first
        return LabelRows(native.array_of(first.float() if first.dtype in (torch.float16, torch.bfloat16) else first))
    return native.class_targets(host)


def _logits(logits: Tensor) -> Tensor:
    return logits.detach().cpu().to(accumulation_dtype(logits.dtype))


def _run(
    loss: Loss,
    logits: Tensor,
    target: TargetRows,
    row_weight: Tensor | None,
    reducing: tuple[str, str, str],
    gradient: Tensor | None,
    shape: Sequence[int],
) -> Any:
    reduction, kind, empty = reducing
    options: dict[str, Any] = {
        "sample_weight": native.row_weights(None if row_weight is None else row_weight.cpu(), checked=True),
        "reduction": reduction,
        "denominator": kind,
        "empty": empty,
    }
    z = native.array_of(_logits(logits))
    try:
        wrapped = _targets(loss, target)
        if gradient is None:
            return loss(z, wrapped, **options)
        value, _ = loss.value_and_gradient(z, wrapped, **options, out=native.array_of(gradient))
        return value
    except TargetError as error:
        if loss.target_form == "labels":
            raise SoftTargetError(str(error)) from None
        settings = RowSettings(ignore_index=getattr(loss, "ignore_index", None))
        raise native.target_error(error, target, logits.shape[1], options["sample_weight"], settings, shape) from None


def _on_device(loss: str, logits: Tensor) -> DeviceLoss | None:
    if native.runs(logits):
        return None
    return devices.loss_object(loss_by_key(loss), logits.shape[1], logits.device)


def _run_on_device(
    loss: DeviceLoss,
    logits: Tensor,
    target: TargetRows,
    row_weight: Tensor | None,
    reducing: tuple[str, str, str],
    with_gradient: bool,
    value_dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Value and gradient where the logits are."""
    reduction, kind, empty = reducing
    one = torch.ones((), device=logits.device)
    divisor = loss.denominator(target, row_weight, kind) if reduction == "mean" else one
    if empty == "error" and bool(divisor == 0):
        raise ops.empty_error()
    scale = torch.where(divisor == 0, 0.0, 1.0 / divisor)
    found = loss.evaluate(logits, target, row_weight, scale, gradient=with_gradient)
    value = found.losses
    if reduction != "none":
        value = torch.where(divisor == 0, math.nan if empty == "nan" else 0.0, value.sum(dtype=divisor.dtype) / divisor)
    return value.to(value_dtype), logits.new_empty(0) if found.gradient is None else found.gradient


def _object_loss(
    logits: Tensor,
    first: Tensor,
    second: Tensor | None,
    share: Tensor | None,
    row_weight: Tensor | None,
    loss: str,
    reduction: str,
    denominator: str,
    empty: str,
    with_gradient: bool,
    value_dtype: torch.dtype,
    shape: list[int],
) -> tuple[Tensor, Tensor]:
    """A loss object's value over rows (N, C), and its gradient if asked for."""
    target = TargetRows(first, second, share)
    on_device = _on_device(loss, logits)
    if on_device is not None:
        return _run_on_device(
            on_device, logits, target, row_weight, (reduction, denominator, empty), with_gradient, value_dtype
        )
    gradient = result_like(logits.cpu(), accumulation_dtype(logits.dtype)) if with_gradient else None
    value = _run(loss_by_key(loss), logits, target, row_weight, (reduction, denominator, empty), gradient, shape)
    return (
        torch.as_tensor(value, dtype=torch.float64, device="cpu").to(value_dtype).to(logits.device),
        logits.new_empty(0) if gradient is None else gradient.to(logits.device, logits.dtype),
    )


_object_loss_op = torch.library.custom_op(
    "kullback::object_loss",
    _object_loss,
    mutates_args=(),
    schema=(
        "(Tensor logits, Tensor first, Tensor? second, Tensor? share, Tensor? row_weight, str loss, str reduction, "
        "str denominator, str empty, bool with_gradient, ScalarType value_dtype, SymInt[] shape) -> (Tensor, Tensor)"
    ),
)


@_object_loss_op.register_fake
def _object_loss_fake(logits: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    reduction, with_gradient, value_dtype = args[5], args[8], args[9]
    return (
        logits.new_empty((logits.shape[0],) if reduction == "none" else (), dtype=value_dtype),
        torch.empty_like(logits, memory_format=torch.contiguous_format) if with_gradient else logits.new_empty(0),
    )


@torch.library.custom_op(
    "kullback::object_gradient",
    mutates_args=(),
    schema=(
        "(Tensor logits, Tensor first, Tensor? second, Tensor? share, Tensor? row_weight, str loss, str reduction, "
        "str denominator, str empty, SymInt[] shape) -> Tensor"
    ),
)
def object_gradient(
    logits: Tensor,
    first: Tensor,
    second: Tensor | None,
    share: Tensor | None,
    row_weight: Tensor | None,
    loss: str,
    reduction: str,
    denominator: str,
    empty: str,
    shape: list[int],
) -> Tensor:
    """The gradient of each row, (N, C), as the reduction scales it."""
    on_device = _on_device(loss, logits)
    if on_device is not None:
        target = TargetRows(first, second, share)
        choices = (reduction, denominator, empty)
        return _run_on_device(on_device, logits, target, row_weight, choices, True, torch.float32)[1]
    gradient = result_like(logits.cpu(), accumulation_dtype(logits.dtype))
    target = TargetRows(first, second, share)
    _run(loss_by_key(loss), logits, target, row_weight, (reduction, denominator, empty), gradient, shape)
    return gradient.to(logits.device, logits.dtype)


@object_gradient.register_fake
def _object_gradient_fake(logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


@torch.library.custom_op(
    "kullback::object_hessian_product",
    mutates_args=(),
    schema=(
        "(Tensor logits, Tensor direction, Tensor first, Tensor? second, Tensor? share, Tensor? row_weight, str loss, "
        "str reduction, str denominator, str empty) -> Tensor"
    ),
)
def object_hessian_product(
    logits: Tensor,
    direction: Tensor,
    first: Tensor,
    second: Tensor | None,
    share: Tensor | None,
    row_weight: Tensor | None,
    loss: str,
    reduction: str,
    denominator: str,
    empty: str,
) -> Tensor:
    """Each row's Hessian times the direction's row, (N, C), as the reduction scales it."""
    known = loss_by_key(loss)
    z = _logits(logits)
    out = torch.empty_like(z)
    known.hessian_product(
        native.array_of(z),
        _targets(known, TargetRows(first, second, share)),
        native.array_of(direction.cpu().to(z.dtype)),
        sample_weight=native.row_weights(None if row_weight is None else row_weight.cpu(), checked=True),
        reduction=reduction,  # type: ignore[arg-type]
        denominator=denominator,  # type: ignore[arg-type]
        empty=empty,  # type: ignore[arg-type]
        out=native.array_of(out),
    )
    return out.to(logits.device, logits.dtype)


@object_hessian_product.register_fake
def _object_hessian_fake(logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _third(ctx: Any, direction: Tensor) -> None:
    raise NotSupportedError("a loss object gives no third derivatives; use one in ordinary torch operations for them")


object_hessian_product.register_autograd(_third, setup_context=lambda ctx, inputs, output: None)


# ---------------------------------------------------------------- autograd


def _loss_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*inputs[:5], output[1])
    ctx.choices, ctx.has_gradient, ctx.shape = inputs[5:9], inputs[9], inputs[11]
    ctx.held = held(inputs[5])


def _loss_backward(ctx: Any, g: Tensor | None, _other: Tensor | None) -> tuple[Tensor | None, ...]:
    if g is None:
        return (None,) * 12
    *rows, gradient = ctx.saved_tensors
    if not ctx.has_gradient or torch.is_grad_enabled():
        gradient = object_gradient(*rows, *ctx.choices, ctx.shape)
    result = gradient * g[:, None] if ctx.choices[1] == "none" else ops.times(gradient, g)
    return (result.to(gradient.dtype), *(None,) * 11)


_object_loss_op.register_autograd(_loss_backward, setup_context=_loss_context)
_loss_directly = direct(_object_loss, _loss_context, _loss_backward, 5)


def object_loss(*args: Any) -> tuple[Tensor, Tensor]:
    """The operator ``object_loss``, the short way where that will do."""
    return _loss_directly(*args) if is_plain(args[:5]) else _object_loss_op(*args)  # type: ignore[no-any-return]


def _gradient_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.choices, ctx.held = inputs[5:9], held(inputs[5])


def _gradient_backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, ...]:
    logits, *others = ctx.saved_tensors
    return (object_hessian_product(logits, direction, *others, *ctx.choices), *(None,) * 9)


object_gradient.register_autograd(_gradient_backward, setup_context=_gradient_context)
