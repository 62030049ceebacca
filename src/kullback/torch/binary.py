"""Binary cross-entropy over independent labels."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from kullback import kernels
from kullback.errors import TargetError
from kullback.kernels.recipe import SigmoidRecipe
from kullback.targets import LabelRows
from kullback.torch import native, ops, plain
from kullback.torch.buffers import result_like
from kullback.torch.direct import direct, is_plain
from kullback.torch.errors import BatchSizeError, SoftTargetError, TensorShapeError, TensorTypeError
from kullback.torch.rows import accumulation_dtype, check_logits, check_tensor, loss_dtype
from kullback.torch.settings import REDUCTIONS, check_choice, legacy_reduction


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """w·(π·t·softplus(−z) + (1 − t)·softplus(z)) of each logit: ``torch.nn.functional``'s function of the same name.

    Exact where PyTorch is not: a logit of ±inf whose label agrees costs 0, with zero gradient, instead of NaN. Labels
    may be booleans or integers. Those outside [0, 1] are used as they are, as in PyTorch, with a warning on the CPU. On
    the CPU, value and gradient come from one pass unless the loss is wanted per element, or a gradient for anything but
    the logits.

    Args:
        input: logits of any shape.
        target: labels of the same shape.
        weight: multiplies each element's loss; any shape that broadcasts to the input's.
        size_average: deprecated, as in PyTorch.
        reduce: deprecated, as in PyTorch.
        reduction: ``"mean"`` over all elements, ``"sum"`` or ``"none"``.
        pos_weight: π, multiplies the cost of a missed label; any shape that broadcasts to the input's.

    Raises:
        SoftTargetError: (a ``RuntimeError``) for a label that is not finite, in eager mode on the CPU.
        InputError: of PyTorch's exception type for what does not fit.

    >>> import torch
    >>> from kullback.torch import binary_cross_entropy_with_logits
    >>> binary_cross_entropy_with_logits(torch.zeros(2, 3), torch.tensor([[1, 0, 1], [0, 0, 0]]))
    tensor(0.6931)
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_choice("reduction", reduction, REDUCTIONS)
    _check(input, target)
    labels = target
    value_dtype = torch.promote_types(input.dtype, target.dtype) if target.dtype.is_floating_point else input.dtype
    value_dtype = loss_dtype(value_dtype, input.device)
    weights = [_fitting("weight", weight, input), _fitting("pos_weight", pos_weight, input)]
    layout = _layout(input, weights)
    fused = (
        reduction != "none"
        and input.device.type == "cpu"
        and not target.requires_grad
        and not any(w is not None and w.requires_grad for w in weights)
        and not ops.in_transform()
        and not ops.in_forward_mode()
    )
    if fused and layout is not None:
        wide = accumulation_dtype(input.dtype)
        tensors = (
            input.reshape(layout),
            labels.reshape(layout),
            *(None if w is None else w.to(wide).expand(layout[-1]) for w in weights),
        )
        loss = _loss_directly if is_plain(tensors) else sigmoid_loss
        value: Tensor = loss(
            *tensors,
            reduction == "mean",
            torch.is_grad_enabled() and input.requires_grad and input.dtype != torch.float16,
            value_dtype,
            list(input.shape),
        )[0]
        return value
    if input.device.type == "cpu" and not torch.compiler.is_compiling() and not ops.in_transform():
        _check_labels(labels.detach(), list(input.shape))
    losses = element_losses(input, labels, *weights)
    if reduction == "mean":
        losses = losses.mean()
    elif reduction == "sum":
        losses = losses.sum()
    return losses.to(value_dtype)


def element_losses(
    logits: Tensor, labels: Tensor, weight: Tensor | None = None, positive_weight: Tensor | None = None
) -> Tensor:
    """Each element's loss in ordinary operations, differentiable in everything; float32 or float64."""
    wide = accumulation_dtype(
        torch.promote_types(logits.dtype, labels.dtype) if labels.is_floating_point() else logits.dtype
    )
    z, t = logits.to(wide), labels.to(wide)
    # 0·softplus(inf) is 0: a label that is certainly absent may have logit −inf, and takes no gradient
    hit = torch.nn.functional.logsigmoid(torch.where((t == 0) & (z == -math.inf), 0.0, z))
    miss = torch.nn.functional.logsigmoid(torch.where((t == 1) & (z == math.inf), 0.0, -z))
    cost = t * hit if positive_weight is None else positive_weight.to(wide) * t * hit
    losses = -(cost + (1 - t) * miss)
    return losses if weight is None else losses * weight.to(wide)


def _check(input: Tensor, target: Tensor) -> None:
    if isinstance(input, Tensor) and input.dim() == 0 and input.dtype.is_floating_point:
        check_logits(input.reshape(1))
    else:
        check_logits(input)
    check_tensor("target", target, input.device)
    if target.shape != input.shape:
        raise BatchSizeError(
            f"Target size ({tuple(target.shape)}) must be the same as input size ({tuple(input.shape)}); for one class "
            "index per example use cross_entropy"
        )
    if target.dtype.is_complex:
        raise TensorTypeError(f"target has dtype {target.dtype}; labels are numbers in [0, 1] or booleans")


def _fitting(name: str, weight: Tensor | None, input: Tensor) -> Tensor | None:
    if weight is None:
        return None
    check_tensor(name, weight, input.device)
    # PyTorch's compiler finds no symbolic size `in` a tuple; that of 2.4 takes zip's strict=False for True
    fits = weight.dim() <= input.dim() and all(
        weight.shape[-i] == 1 or weight.shape[-i] == input.shape[-i] for i in range(1, weight.dim() + 1)
    )
    if not fits:
        raise TensorShapeError(
            f"{name} has shape {tuple(weight.shape)}, which does not broadcast to the input's {tuple(input.shape)}"
        )
    return weight


def _layout(input: Tensor, weights: list[Tensor | None]) -> tuple[int, ...] | None:
    """How the elements are laid out for the kernel: in a line, in rows if weights go by column; None if by neither."""
    if input.dim() == 0 or input.numel() == 0:
        return None
    if all(w is None for w in weights):
        return (input.numel(),)
    if all(w is None or w.numel() == 1 or w.shape == input.shape[-1:] for w in weights):
        return (math.prod(input.shape[:-1]), input.shape[-1])
    return None


def _check_labels(labels: Tensor, shape: list[int]) -> None:
    """Warn of labels outside [0, 1], which PyTorch's function takes.

    Raises:
        SoftTargetError: for one that is not finite, naming its position.
    """
    if labels.dtype == torch.bool or bool(((labels >= 0) & (labels <= 1)).all()):
        return
    bad = ~torch.isfinite(labels)
    if bool(bad.any()):
        flat = int(bad.flatten().to(torch.uint8).argmax())
        raise SoftTargetError(
            f"{native.position(flat, shape)}label target {labels.flatten()[flat].item()} is not valid; entries must be "
            "finite, and between 0 and 1 to be probabilities"
        )
    warnings.warn(  # the same words every time, or a training loop would hear it at every step
        "labels outside [0, 1] are used as they are, as PyTorch does; for class indices use cross_entropy",
        stacklevel=1,
    )


# ---------------------------------------------------------------- the fused CPU operator


def _sigmoid_loss(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    positive_weight: Tensor | None,
    mean: bool,
    with_gradient: bool,
    value_dtype: torch.dtype,
    shape: list[int],
) -> tuple[Tensor, Tensor]:
    """The mean or sum of the element losses of (M,) or (N, C), and its gradient if asked for.

    Weights are (C,), and only there for (N, C).
    """
    scale = 1.0 / logits.numel() if mean else 1.0
    result = result_like(logits) if with_gradient else logits.new_empty(0)
    gradient = result
    if logits.dim() == 1:
        columns = math.gcd(logits.numel(), 4096)  # any layout does: rows long enough to be worth their bookkeeping
        logits, labels = logits.reshape(-1, columns), labels.reshape(-1, columns)
        gradient = result.reshape(-1, columns) if with_gradient else result
    if labels.dtype in (torch.float16, torch.bfloat16):
        labels = labels.float()
    arguments = (logits, labels, weight, positive_weight, scale, gradient if with_gradient else None)
    try:
        total = _by_kernel(*arguments)
    except TargetError:
        _check_labels(labels, shape)
        total = _by_formula(*arguments)
    return torch.scalar_tensor(total * scale, dtype=torch.float64, device="cpu").to(value_dtype), result


def _by_kernel(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    positive_weight: Tensor | None,
    scale: float,
    gradient: Tensor | None,
) -> float:
    """The sum of the element losses of (N, C), and scale × its gradient written where a tensor is given for it."""
    n_rows, n_columns = logits.shape
    recipe = SigmoidRecipe(
        class_weight=None if weight is None else native.array_of(weight.double()),
        positive_weight=None if positive_weight is None else native.array_of(positive_weight.double()),
    )
    total = 0.0
    whole = native.takes(logits.dtype)
    for rows in [slice(0, n_rows)] if whole else plain.chunks(n_rows, n_columns, native.WIDENED_ELEMENTS):
        z = logits[rows] if whole else logits[rows].float()
        into = None if gradient is None else gradient[rows] if whole else z
        found = kernels.active().evaluate(
            recipe,
            native.logits_array(z),
            LabelRows(native.array_of(labels[rows])),
            scale=scale,
            gradient=None if into is None else native.logits_array(into),
        )
        if gradient is not None and into is z:
            gradient[rows] = z
        total += found.total
    return total


def _by_formula(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    positive_weight: Tensor | None,
    scale: float,
    gradient: Tensor | None,
) -> float:
    """The same for labels outside [0, 1], which the kernels refuse: the formula is linear in them and holds there."""
    total = 0.0
    for rows in plain.chunks(logits.shape[0], logits.shape[1], native.WIDENED_ELEMENTS):
        z, t = logits[rows], labels[rows]
        total += float(element_losses(z, t, weight, positive_weight).sum(dtype=torch.float64))
        if gradient is not None:
            gradient[rows] = (scale * _element_gradients(z, t, weight, positive_weight)).to(gradient.dtype)
    return total


def _element_gradients(logits: Tensor, labels: Tensor, weight: Tensor | None, positive_weight: Tensor | None) -> Tensor:
    """Each element loss' derivative in its logit; float32 or float64."""
    wide = accumulation_dtype(logits.dtype)
    z, on = logits.to(wide), labels.to(wide)
    off = 1 - on
    if positive_weight is not None:
        on = on * positive_weight
    result = off * torch.sigmoid(z) - on * torch.sigmoid(-z)
    return result if weight is None else result * weight


sigmoid_loss = torch.library.custom_op(
    "kullback::sigmoid_loss",
    _sigmoid_loss,
    mutates_args=(),
    device_types="cpu",
    schema=(
        "(Tensor logits, Tensor labels, Tensor? weight, Tensor? positive_weight, bool mean, bool with_gradient, "
        "ScalarType value_dtype, SymInt[] shape) -> (Tensor, Tensor)"
    ),
)


@sigmoid_loss.register_fake
def _sigmoid_loss_fake(logits: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    with_gradient, value_dtype = args[4], args[5]
    gradient = torch.empty_like(logits, memory_format=torch.contiguous_format) if with_gradient else logits.new_empty(0)
    return logits.new_empty((), dtype=value_dtype), gradient


def _context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])
    ctx.mean, ctx.has_gradient = inputs[4], inputs[5]
    ctx.save_for_backward(*inputs[:4], output[1])


def _backward(ctx: Any, g: Tensor | None, _other: Tensor | None) -> tuple[Tensor | None, ...]:
    if g is None:
        return (None,) * 8
    logits, labels, weight, positive_weight, gradient = ctx.saved_tensors
    if ctx.has_gradient and not torch.is_grad_enabled():
        return (ops.times(gradient, g), *(None,) * 7)
    result = _element_gradients(logits, labels, weight, positive_weight) * (g / logits.numel() if ctx.mean else g)
    return (result.to(logits.dtype), *(None,) * 7)


sigmoid_loss.register_autograd(_backward, setup_context=_context)
_loss_directly = direct(_sigmoid_loss, _context, _backward, 4)
