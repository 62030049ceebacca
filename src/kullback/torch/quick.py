"""The commonest call by the shortest way: the mean cross-entropy of class indices, on ordinary CPU tensors.

What `ops` does for every form of target, weight and reduction takes a tenth of a millisecond in Python for a small
batch, and several times that after a large one has emptied the processor's caches. Here the kernel is called with
nothing around it. What it cannot do, or does not like, is left to the long way, which also has the error messages.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kullback import kernels
from kullback.kernels import cpu
from kullback.torch import native, ops
from kullback.torch.buffers import result_like
from kullback.torch.direct import is_plain
from kullback.torch.rows import INDEX_TYPES, Mixture, TargetRows, accumulation_dtype, loss_dtype
from kullback.torch.settings import RowSettings


def mean_loss(logits: Tensor, target: Tensor | Mixture | None, settings: RowSettings) -> Tensor | None:
    """The mean over the rows that count, or None where it takes the long way.

    Args:
        logits: the user's, not checked yet, or (N, C) made of them.
        target: class indices likewise; of anything else nothing is made here.
        settings: the loss.
    """
    if not isinstance(target, Tensor):
        return None
    ordinary = (
        is_plain((logits, target))
        and logits.layout is target.layout is torch.strided
        and not (logits.is_nested or target.is_nested)
        and logits.dim() == 2
        and target.shape == logits.shape[:1]
        and logits.numel()
        and logits.is_contiguous()
        and native.runs(logits)
        and native.runs(target)
        and native.takes(logits.dtype)
        and target.dtype in INDEX_TYPES
        and kernels.active() is cpu
        and not ops.in_forward_mode()
    )
    if not ordinary:
        return None
    n_rows, n_classes = logits.shape
    classes, ignored = native.array_of(target), settings.ignore_index
    guessed = native.probably_all_count(TargetRows(target), None, None, "weights")
    counted = n_rows if guessed else cpu.count_indices(classes, n_classes, ignored)
    if counted <= 0:
        return None
    differentiable = torch.is_grad_enabled() and logits.requires_grad
    gradient = result_like(logits) if differentiable else None

    def evaluate(divisor: int) -> tuple[float, int]:
        return cpu.cross_entropy_of_indices(
            native.logits_array(logits),
            classes,
            smoothing=settings.smoothing,
            temperature=settings.temperature,
            softcap=settings.softcap,
            z_loss=settings.z_loss,
            ignore_index=ignored,
            scale=1.0 / divisor,
            gradient=None if gradient is None else native.logits_array(gradient),
        )

    total, found = evaluate(counted)
    if found != counted:
        native.guessed_wrong()
        if found <= 0:
            return None
        counted = found
        total, _ = evaluate(counted)
    mean = torch.scalar_tensor(total / counted, dtype=loss_dtype(logits.dtype, logits.device), device="cpu")
    if gradient is None:
        return mean
    return _Mean.apply(logits, target, gradient, (mean, 1.0 / counted, settings))  # type: ignore[no-any-return,no-untyped-call]


class _Mean(torch.autograd.Function):
    """A mean that is known already, with its gradient."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, indices: Tensor, gradient: Tensor, known: tuple[Tensor, float, RowSettings]
    ) -> Tensor:
        ctx.save_for_backward(logits, indices, gradient)
        mean, ctx.scale, ctx.settings = known
        return mean

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        logits, indices, gradient = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return (ops.times(gradient, g), *(None,) * 3)
        row_scale = (g * ctx.scale).expand(logits.shape[0]).to(accumulation_dtype(logits.dtype))
        shape = list(indices.shape)
        result = ops.gradient_op(row_scale, logits, indices, None, None, None, *ctx.settings, shape)
        return (result, *(None,) * 3)
