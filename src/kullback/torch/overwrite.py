"""Cross-entropy that writes its gradient over the logits: one logits-sized tensor in all, instead of two."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kullback.torch import ops
from kullback.torch.errors import NotSupportedError
from kullback.torch.rows import Batch, TargetRows
from kullback.torch.settings import RowSettings


@torch.library.custom_op(
    "kullback::softmax_loss_",
    mutates_args=("logits",),
    schema=(
        "(Tensor(a!) logits, Tensor first, Tensor? second, Tensor? share, Tensor? row_weight, Tensor? class_weight, "
        "float smoothing, float temperature, float softcap, float z_loss, int? ignore_index, bool by_mass, "
        "str reduction, str denominator, str empty, ScalarType value_dtype, SymInt[] shape) -> Tensor"
    ),
)
def softmax_loss_(
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
    value_dtype: torch.dtype,
    shape: list[int],
) -> Tensor:
    """The value of a batch; its gradient replaces the logits."""
    settings = RowSettings(smoothing, temperature, softcap, z_loss, ignore_index, by_mass)
    value, *_ = ops.loss_of(
        settings,
        logits,
        TargetRows(first, second, share),
        row_weight,
        class_weight,
        (reduction, denominator, empty),
        logits,
        False,
        shape,
    )
    return value.to(value_dtype)


@softmax_loss_.register_fake
def _softmax_loss_fake(logits: Tensor, *args: Any) -> Tensor:
    return logits.new_empty((), dtype=args[-2])


class _Overwriting(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, *args: Any) -> Tensor:
        value: Tensor = softmax_loss_(logits, *args)
        ctx.save_for_backward(logits)
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (ops.times(gradient, g), *(None,) * 16)


def overwriting_loss(
    batch: Batch, settings: RowSettings, reduction: str, kind: str, empty: str, dtype: torch.dtype
) -> Tensor:
    """The reduced loss; afterwards the logits hold its gradient.

    Raises:
        NotSupportedError: for float16 (a mean's gradients underflow before a loss scaler sees them) and for logits
            whose classes do not lie together, where a copy would be overwritten instead.
    """
    logits = batch.logits
    if logits.dtype == torch.float16:
        raise NotSupportedError(
            "overwrite_input=True does not keep float16 gradients safe; use bfloat16 or leave it out"
        )
    if logits.dim() == 2 and len(batch.shape) > 1 and not logits.is_contiguous():
        raise NotSupportedError("overwrite_input=True needs the classes of each example to lie together in memory")
    return _Overwriting.apply(  # type: ignore[no-any-return,no-untyped-call]
        logits,
        *batch.target,
        batch.sample_weight,
        batch.class_weight,
        *settings,
        reduction,
        kind,
        empty,
        dtype,
        list(batch.shape),
    )
