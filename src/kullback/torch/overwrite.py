"""Cross-entropy that writes its gradient over the logits: one logits-sized tensor in all, instead of two."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from kullback.torch import ops
from kullback.torch.errors import NotSupportedError, SettingError
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
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        ops.refuse_second_derivative("overwrite_input=True")
        (gradient,) = ctx.saved_tensors
        return (ops.times(gradient, g), *(None,) * 16)


def check_overwritable(input: Tensor) -> None:
    """Refuse a tensor whose own memory cannot take its gradient.

    Args:
        input: logits (C,), (N, C) or (N, C, d1, …) as the user passed them.

    Raises:
        NotSupportedError: for float16 (a mean's gradients underflow before a loss scaler sees them); for examples whose
            classes do not lie together, where a copy would be overwritten instead; for entries that share memory.
        SettingError: (a ``RuntimeError``, as PyTorch raises for it) for a leaf that requires a gradient, or a view of
            one: its values would be lost.
    """
    if input.dtype == torch.float16:
        raise NotSupportedError(
            "overwrite_input=True does not keep float16 gradients safe; use bfloat16 or leave it out"
        )
    if torch.is_grad_enabled() and input.requires_grad:
        whole = input if input.is_leaf or torch.compiler.is_compiling() else input._base
        if whole is not None and whole.is_leaf and whole.requires_grad:
            raise SettingError(
                "overwrite_input=True writes over the input, but it is a leaf Variable that requires grad, or a view "
                "of one: its values would be lost. Leave overwrite_input out, or compute the logits from it"
            )
    if _share_memory(input):
        raise NotSupportedError(
            "overwrite_input=True needs an entry of memory for each logit, but this input's share theirs, as "
            "expand() makes them: call .contiguous() on it"
        )
    if input.dim() > 2 and not _rows_are_views(input):
        raise NotSupportedError(
            f"overwrite_input=True needs the classes of each example to lie together in memory, but the input "
            f"{tuple(input.shape)} has the strides {tuple(input.stride())}: compute logits whose classes are last and "
            "pass .movedim(-1, 1), or leave it out"
        )


def _share_memory(input: Tensor) -> bool:
    """Whether some entries of a tensor are the same place in memory."""
    if input.is_contiguous():
        return False
    if torch.compiler.is_compiling():  # whose sizes cannot be sorted
        return any(step == 0 and size > 1 for step, size in zip(input.stride(), input.shape, strict=True))
    reach = 0
    for step, size in sorted(zip(input.stride(), input.shape, strict=True)):
        if size > 1 and step <= reach:
            return True
        reach += step * (size - 1)
    return False


def _rows_are_views(input: Tensor) -> bool:
    """Whether (N, C, d1, …) can be seen as rows (N·d1·…, C) where it lies."""
    axes = [axis for axis in (0, *range(2, input.dim())) if input.shape[axis] != 1]
    sizes, steps = input.shape, input.stride()
    return all(steps[a] == steps[b] * sizes[b] for a, b in itertools.pairwise(axes))


def overwriting_loss(
    batch: Batch, settings: RowSettings, reduction: str, kind: str, empty: str, dtype: torch.dtype
) -> Tensor:
    """The reduced loss; afterwards the logits, which `check_overwritable` has seen, hold its gradient."""
    return _Overwriting.apply(  # type: ignore[no-any-return,no-untyped-call]
        batch.logits,
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
