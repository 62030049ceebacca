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
from kullback.torch.rows import TargetRows, accumulation_dtype
from kullback.torch.settings import RowSettings


def mean_loss(logits: Tensor, target: TargetRows, settings: RowSettings, dtype: torch.dtype) -> Tensor | None:
    """The mean over the rows that count, or None where it takes the long way.

    Args:
        logits: (N, C).
        target: N targets.
        settings: the loss.
        dtype: of the value.
    """
    indices = target.first
    ordinary = (
        native.runs(logits)
        and indices.dim() == 1
        and target.second is None
        and logits.is_contiguous()
        and logits.numel()
        and is_plain((logits, indices))
        and native.takes(logits.dtype)
        and kernels.active() is cpu
    )
    if not ordinary:
        return None
    n_rows, n_classes = logits.shape
    classes, ignored = native.array_of(indices), settings.ignore_index
    guessed = native.probably_all_count(target, None, None, settings, "weights")
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
    mean = total / counted
    if gradient is None:
        return torch.scalar_tensor(mean, dtype=dtype, device="cpu")
    return _Mean.apply(logits, indices, gradient, mean, dtype, 1.0 / counted, settings)  # type: ignore[no-any-return,no-untyped-call]


class _Mean(torch.autograd.Function):
    """A mean that is known already, with its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        indices: Tensor,
        gradient: Tensor,
        mean: float,
        dtype: torch.dtype,
        scale: float,
        settings: RowSettings,
    ) -> Tensor:
        ctx.save_for_backward(logits, indices, gradient)
        ctx.scale, ctx.settings = scale, settings
        return torch.scalar_tensor(mean, dtype=dtype, device="cpu")

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        logits, indices, gradient = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return (ops.times(gradient, g), *(None,) * 6)
        row_scale = (g * ctx.scale).expand(logits.shape[0]).to(accumulation_dtype(logits.dtype))
        shape = list(indices.shape)
        result = ops.gradient_op(row_scale, logits, indices, None, None, None, *ctx.settings, shape)
        return (result, *(None,) * 6)
