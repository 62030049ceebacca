"""The operators PyTorch knows Kullback by: ``torch.ops.kullback.*``, each with its fake version and its gradient.

They are opaque to compilers and need nothing of PyTorch's C++ interface, so that one installed Kullback works with any
version of PyTorch. Two of them carry the softmax family:

- ``softmax_loss``: the value and, from the same pass, the gradient, already divided by what the mean divides by;
- ``softmax_gradient``: the gradient with any factor per row, for ``reduction="none"`` and higher derivatives.

Under ``create_graph`` (double backward, ``torch.func.grad``) the backward of the first calls the second, and the
second's own backward is written in ordinary differentiable operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from kullback.errors import InputError
from kullback.torch import devices, native, plain, triton
from kullback.torch.buffers import result_like
from kullback.torch.direct import direct, is_batched, is_plain
from kullback.torch.errors import NotSupportedError
from kullback.torch.rows import TargetRows, accumulation_dtype, widest_dtype
from kullback.torch.settings import RowSettings

_TARGET = "Tensor first, Tensor? second, Tensor? share"
_SETTINGS = "float smoothing, float temperature, float softcap, float z_loss, int? ignore_index, bool by_mass"
_N = len(RowSettings._fields)
_TENSORS = 6  # both operators begin with as many that are tensors or None


def _nothing(like: Tensor) -> Tensor:
    """An output that was not asked for."""
    return like.new_empty(0)


# ---------------------------------------------------------------- the value


def _softmax_loss(
    logits: Tensor,
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
    reduction: str,
    denominator: str,
    empty: str,
    with_gradient: bool,
    with_statistics: bool,
    value_dtype: torch.dtype,
    shape: list[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The loss of a batch of rows.

    Returns:
        The value (0-d, or (N,) for ``"none"``), its gradient (N, C), the factor 1/denominator on every row (0-d), the
        log-sum-exps (N,) and the predictions (N,); parts that were not asked for are empty.
    """
    settings = RowSettings(smoothing, temperature, softcap, z_loss, ignore_index, by_mass)
    target = TargetRows(first, second, share)
    gradient = result_like(logits) if with_gradient else None
    value, scale, lse, prediction = loss_of(
        settings,
        logits,
        target,
        row_weight,
        class_weight,
        (reduction, denominator, empty),
        gradient,
        with_statistics,
        shape,
    )
    return (
        value.to(value_dtype),
        _nothing(logits) if gradient is None else gradient,
        scale,
        _nothing(value) if lse is None else lse,
        logits.new_empty(0, dtype=torch.int64) if prediction is None else prediction,
    )


softmax_loss = torch.library.custom_op(
    "kullback::softmax_loss",
    _softmax_loss,
    mutates_args=(),
    schema=(
        f"(Tensor logits, {_TARGET}, Tensor? row_weight, Tensor? class_weight, {_SETTINGS}, str reduction, "
        "str denominator, str empty, bool with_gradient, bool with_statistics, ScalarType value_dtype, SymInt[] shape)"
        " -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
)


def loss_of(
    settings: RowSettings,
    logits: Tensor,
    target: TargetRows,
    row_weight: Tensor | None,
    class_weight: Tensor | None,
    reducing: tuple[str, str, str],
    gradient: Tensor | None,
    with_statistics: bool,
    shape: list[int],
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Value, 1/denominator, log-sum-exps and predictions of a batch; `gradient`, filled, may be the logits."""
    run = _cpu_loss if native.runs(logits) else _device_loss
    return run(settings, logits, target, row_weight, class_weight, reducing, gradient, with_statistics, shape)


def _cpu_loss(
    settings: RowSettings,
    logits: Tensor,
    target: TargetRows,
    row_weight: Tensor | None,
    class_weight: Tensor | None,
    reducing: tuple[str, str, str],
    gradient: Tensor | None,
    with_statistics: bool,
    shape: list[int],
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    reduction, kind, empty = reducing
    weight = native.row_weights(row_weight, checked=True)

    def evaluate(scale: float) -> native.Pass:
        return native.evaluate(
            settings,
            logits,
            target,
            class_weight,
            weight,
            scale=scale,
            with_losses=reduction == "none",
            gradient=gradient,
            with_statistics=with_statistics,
            shape=shape,
        )

    scale, divisor, nothing, result = 1.0, 1.0, False, None
    if reduction == "mean":
        in_place = gradient is not None and gradient.data_ptr() == logits.data_ptr()
        if not in_place and native.probably_all_count(target, class_weight, weight, kind):
            divisor = float(len(logits))
            scale = 1.0 / divisor
            result = evaluate(scale)
            if result.counted != len(logits):
                native.guessed_wrong()
                result = None
        if result is None:
            counted, divisor = native.denominator(target, logits.shape[1], class_weight, weight, settings, kind, shape)
            nothing = counted == 0 or divisor == 0
            if nothing and empty == "error":
                raise empty_error()
            scale = 0.0 if nothing else 1.0 / divisor
    if result is None:
        result = evaluate(scale)
    if result.losses is not None:
        value = result.losses
    else:
        number = result.total / divisor if not nothing else math.nan if empty == "nan" else 0.0
        value = torch.scalar_tensor(number, dtype=torch.float64, device="cpu")
    factor = torch.scalar_tensor(scale, dtype=torch.float64, device="cpu")
    return value, factor, result.lse, result.prediction


def _device_loss(
    settings: RowSettings,
    logits: Tensor,
    target: TargetRows,
    row_weight: Tensor | None,
    class_weight: Tensor | None,
    reducing: tuple[str, str, str],
    gradient: Tensor | None,
    with_statistics: bool,
    shape: list[int],
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    reduction, kind, empty = reducing
    wide = widest_dtype(logits.device)
    divisor = torch.ones((), dtype=wide, device=logits.device)
    if reduction == "mean":
        divisor = plain.denominator(target, class_weight, row_weight, settings.ignore_index, kind)
        if empty == "error" and not bool(divisor != 0):  # the one policy that has to wait for the device
            raise empty_error()
    scale = torch.where(divisor == 0, 0.0, 1.0 / divisor)
    result = devices.cross_entropy(settings, class_weight).evaluate(
        logits,
        target,
        row_weight,
        scale,
        gradient=False if gradient is None else gradient,
        with_statistics=with_statistics,
    )
    value = result.losses
    if reduction != "none":
        nothing = math.nan if empty == "nan" else 0.0
        value = torch.where(divisor == 0, nothing, value.sum(dtype=wide) / divisor)
    return value, scale, result.log_sum_exp, result.argmax


def empty_error() -> InputError:
    """The complaint of ``empty="error"``."""
    return InputError(
        "no example counts: the batch is empty, or every target is ignored or has weight 0; "
        'pass empty="nan" or empty="zero" if that is expected'
    )


@softmax_loss.register_fake
def _softmax_loss_fake(
    logits: Tensor,
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
    reduction: str,
    denominator: str,
    empty: str,
    with_gradient: bool,
    with_statistics: bool,
    value_dtype: torch.dtype,
    shape: list[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    n_rows = logits.shape[0]
    wide = widest_dtype(logits.device)
    return (
        logits.new_empty((n_rows,) if reduction == "none" else (), dtype=value_dtype),
        torch.empty_like(logits, memory_format=torch.contiguous_format) if with_gradient else logits.new_empty(0),
        logits.new_empty((), dtype=wide),
        logits.new_empty(n_rows if with_statistics else 0, dtype=accumulation_dtype(logits.dtype)),
        logits.new_empty(n_rows if with_statistics else 0, dtype=torch.int64),
    )


def _loss_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)  # else a zero tensor as large as the logits stands in for the gradient's gradient
    ctx.mark_non_differentiable(*output[1:])
    logits, first, second, share, row_weight, class_weight, *rest = inputs
    ctx.settings, (ctx.reduction, _, _, ctx.has_gradient, _, _, ctx.shape) = RowSettings(*rest[:_N]), rest[_N:]
    ctx.save_for_backward(logits, first, second, share, row_weight, class_weight, output[1], output[2])


def _loss_backward(ctx: Any, g: Tensor | None, *_others: Tensor | None) -> tuple[Tensor | None, ...]:
    if g is None:
        return (None,) * (13 + _N)
    logits, first, second, share, row_weight, class_weight, gradient, scale = ctx.saved_tensors
    if ctx.has_gradient and not torch.is_grad_enabled():
        return (times(gradient, g), *(None,) * (12 + _N))
    row_scale = g if ctx.reduction == "none" else (g * scale).expand(logits.shape[0])
    row_scale = row_scale.to(accumulation_dtype(logits.dtype))
    if row_weight is not None:
        row_scale = row_scale * row_weight
    result = gradient_op(row_scale, logits, first, second, share, class_weight, *ctx.settings, ctx.shape)
    return (result, *(None,) * (12 + _N))


softmax_loss.register_autograd(_loss_backward, setup_context=_loss_context)


def times(gradient: Tensor, by: Tensor) -> Tensor:
    """A stored gradient times the incoming one, which is 1 in a plain ``loss.backward()`` and then costs nothing.

    Where the graph is not kept for another backward pass the stored gradient is scaled in place.
    """
    if type(by) is not Tensor or torch.compiler.is_compiling() or is_batched(by):
        return gradient * by
    if by.device.type == "cpu" and by.item() == 1.0:
        return gradient
    kept = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)()
    if kept:
        return gradient * by
    if triton.supports(gradient) and gradient.device.type == "cuda":  # looks at the factor on the device
        return triton.scale_in_place(gradient, by)
    return gradient.mul_(by)


# ---------------------------------------------------------------- the gradient on its own


def _softmax_gradient(
    row_scale: Tensor,
    logits: Tensor,
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
    shape: list[int],
) -> Tensor:
    """row_scale × ∂loss/∂logits, (N, C) in the logits' dtype."""
    settings = RowSettings(smoothing, temperature, softcap, z_loss, ignore_index, by_mass)
    target = TargetRows(first, second, share)
    gradient = result_like(logits)
    if native.runs(logits):
        weight = native.row_weights(row_scale, checked=False)
        native.evaluate(settings, logits, target, class_weight, weight, gradient=gradient, shape=shape)
    else:
        devices.cross_entropy(settings, class_weight).evaluate(logits, target, row_scale, gradient=gradient)
    return gradient


softmax_gradient = torch.library.custom_op(
    "kullback::softmax_gradient",
    _softmax_gradient,
    mutates_args=(),
    schema=f"(Tensor row_scale, Tensor logits, {_TARGET}, Tensor? class_weight, {_SETTINGS}, SymInt[] shape) -> Tensor",
)


@softmax_gradient.register_fake
def _softmax_gradient_fake(row_scale: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _gradient_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:6])
    ctx.settings = RowSettings(*inputs[6 : 6 + _N])


def _gradient_backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, ...]:
    row_scale, logits, first, second, share, class_weight = ctx.saved_tensors
    target = TargetRows(first, second, share)
    scale_part, logits_part = plain.gradient_products(ctx.settings, logits, target, class_weight, row_scale, direction)
    return (scale_part, logits_part, *(None,) * (5 + _N))


softmax_gradient.register_autograd(_gradient_backward, setup_context=_gradient_context)


# ---------------------------------------------------------------- vmap: a batch of batches is one batch of more rows


def _stacked(tensor: Tensor | None, dim: int | None, size: int) -> Tensor | None:
    """A possibly batched (N, …) tensor as (size·N, …)."""
    if tensor is None:
        return None
    whole = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return whole.reshape(size * whole.shape[1], *whole.shape[2:])


def _loss_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    size = info.batch_size
    if in_dims[5] is not None:  # each batch has its own class weights: they share nothing
        return _one_by_one(loss_op, size, in_dims, args)
    rows = [_stacked(args[i], in_dims[i], size) for i in range(5)]
    logits, row_weight = rows[0], rows[4]
    class_weight, settings = args[5], args[6 : 6 + _N]
    reduction, kind, empty, with_gradient, with_statistics, value_dtype, shape = args[6 + _N :]
    assert logits is not None
    n_rows = logits.shape[0] // size
    wide = accumulation_dtype(logits.dtype)
    inner = value_dtype if reduction == "none" else wide
    value, _, scale, lse, prediction = loss_op(
        *rows, class_weight, *settings, "none", kind, empty, False, with_statistics, inner, [size, *shape]
    )
    value = value.reshape(size, n_rows)
    scale = scale.expand(size)
    gradient = logits.new_empty(size, 0)
    if reduction != "none":
        divisor = torch.ones(size, dtype=scale.dtype, device=logits.device)
        if reduction == "mean":
            target = TargetRows(*rows[1:4])  # type: ignore[arg-type]
            shares = plain.mean_shares(target, class_weight, row_weight, RowSettings(*settings).ignore_index, kind)
            divisor = shares.reshape(size, n_rows).sum(dim=1, dtype=scale.dtype)
        if empty == "error" and bool((divisor == 0).any()):
            raise empty_error()
        scale = torch.where(divisor == 0, 0.0, 1.0 / divisor)
        nothing = math.nan if empty == "nan" else 0.0
        value = torch.where(divisor == 0, nothing, value.sum(dim=1, dtype=scale.dtype) / divisor).to(value_dtype)
        if with_gradient:
            row_scale = scale.to(wide).repeat_interleave(n_rows)
            if row_weight is not None:
                row_scale = row_scale * row_weight
            gradient = gradient_op(row_scale, *rows[:4], class_weight, *settings, [size, *shape])
            gradient = gradient.reshape(size, n_rows, -1)
    per_row = (size, n_rows) if with_statistics else (size, 0)
    outputs = (
        value,
        gradient,
        scale,
        lse.reshape(per_row) if with_statistics else lse.new_empty(per_row),
        prediction.reshape(per_row) if with_statistics else prediction.new_empty(per_row),
    )
    return outputs, (0, 0, 0, 0, 0)


def _gradient_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    size = info.batch_size
    if in_dims[5] is not None:
        return _one_by_one(gradient_op, size, in_dims, args)
    rows = [_stacked(args[i], in_dims[i], size) for i in range(5)]
    gradient = gradient_op(*rows, *args[5 : 6 + _N], [size, *args[6 + _N]])
    return gradient.reshape(size, gradient.shape[0] // size, gradient.shape[1]), 0


def _one_by_one(op: Callable[..., Any], size: int, in_dims: tuple[Any, ...], args: tuple[Any, ...]) -> tuple[Any, Any]:
    results = [
        op(*(a if d is None or isinstance(d, list) else a.select(d, b) for a, d in zip(args, in_dims, strict=True)))
        for b in range(size)
    ]
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    return tuple(torch.stack(parts) for parts in zip(*results, strict=True)), (0,) * len(results[0])


# ---------------------------------------------------------------- torch.func: the same operators as it wants them


class _LossFunction(torch.autograd.Function):
    """``softmax_loss`` for ``torch.func``, whose transforms do not look inside registered operators."""

    forward = staticmethod(softmax_loss)
    setup_context = staticmethod(_loss_context)
    backward = staticmethod(_loss_backward)
    vmap = staticmethod(_loss_vmap)


class _GradientFunction(torch.autograd.Function):
    forward = staticmethod(softmax_gradient)
    setup_context = staticmethod(_gradient_context)
    backward = staticmethod(_gradient_backward)
    vmap = staticmethod(_gradient_vmap)


_loss_directly = direct(_softmax_loss, _loss_context, _loss_backward, _TENSORS)
_gradient_directly = direct(_softmax_gradient, _gradient_context, _gradient_backward, _TENSORS)


def in_transform() -> bool:
    """Whether a transform of ``torch.func`` is running here."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def in_forward_mode() -> bool:
    """Whether forward-mode derivatives may be asked for here; the operators have none, ordinary operations do."""
    return not torch.compiler.is_compiling() and forward_ad._current_level >= 0


def has_tangent(*tensors: Tensor | None) -> bool:
    """Whether a forward-mode derivative along one of these is under way."""
    if not in_forward_mode():
        return False
    unpack: Callable[[Tensor], Any] = forward_ad.unpack_dual
    return any(t is not None and unpack(t).tangent is not None for t in tensors)


def refuse_second_derivative(of: str) -> None:
    """To be called in a backward pass whose result is a constant: with ``create_graph=True`` that would be silent.

    Raises:
        NotSupportedError: where a graph of the backward pass is being made.
    """
    if torch.is_grad_enabled():
        raise NotSupportedError(
            f"{of} has no second derivative: leave out create_graph=True, or use cross_entropy on whole logits, which "
            "has all of them"
        )


def loss_op(*args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``softmax_loss``, also inside ``torch.func.grad``, ``vmap`` and the like."""
    if in_transform():
        return _LossFunction.apply(*args)  # type: ignore[no-any-return,no-untyped-call]
    if is_plain(args[:_TENSORS]):
        return _loss_directly(*args)  # type: ignore[no-any-return]
    return softmax_loss(*args)  # type: ignore[no-any-return]


def gradient_op(*args: Any) -> Tensor:
    """``softmax_gradient``, also inside ``torch.func.grad``, ``vmap`` and the like."""
    if in_transform():
        return _GradientFunction.apply(*args)  # type: ignore[no-any-return,no-untyped-call]
    if is_plain(args[:_TENSORS]):
        return _gradient_directly(*args)  # type: ignore[no-any-return]
    return softmax_gradient(*args)  # type: ignore[no-any-return]
