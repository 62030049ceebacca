"""One checked batch to its loss: which of the ways of computing it applies, and the reduction around it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kullback.torch import ops, plain, quick
from kullback.torch.errors import NotSupportedError
from kullback.torch.overwrite import overwriting_loss
from kullback.torch.rows import Batch, TargetRows, accumulation_dtype, loss_dtype
from kullback.torch.settings import DENOMINATORS, EMPTY, REDUCTIONS, RowSettings, check_choice
from kullback.torch.statistics import Statistics, statistics_of


def batch_loss(
    batch: Batch,
    settings: RowSettings,
    *,
    reduction: str,
    denominator: str | None,
    empty: str,
    overwrite_input: bool = False,
    with_statistics: bool = False,
) -> tuple[Tensor, Statistics | None]:
    """The reduced loss of a batch of rows, and what else the pass knows.

    Raises:
        ChoiceError: for an unknown reduction, denominator or empty policy.
        NotSupportedError: for overwriting logits where something else needs them.
    """
    kind = checked_denominator(batch.target, reduction, denominator, empty)
    logits, target, class_weight, sample_weight, _ = batch
    dtype = value_dtype(logits, target)
    learnt_weight = requires_grad(sample_weight)
    composite = target.requires_grad() or requires_grad(class_weight) or ops.in_forward_mode()
    wants_gradient = torch.is_grad_enabled() and logits.requires_grad
    if overwrite_input:
        if composite or learnt_weight or reduction == "none":
            raise NotSupportedError(
                'overwrite_input=True needs reduction="mean" or "sum", no gradient for target or weights and no '
                "forward-mode derivatives: leave it out"
            )
        value = overwriting_loss(batch, settings, reduction, kind, empty, dtype)
        return value, None
    if composite:
        losses = plain.losses(settings, logits, target, class_weight, None)
        value = reduced(losses, batch, settings, reduction, kind, empty).to(dtype)
        return batch.restored(value) if reduction == "none" else value, _statistics(batch, settings, with_statistics)
    if reduction == "mean" and class_weight is None and sample_weight is None and not with_statistics:
        quickly = quick.mean_loss(logits, target.first if target.second is None else None, settings)
        if quickly is not None:
            return quickly, None
    row_weight = None if learnt_weight else sample_weight
    value, _, _, lse, prediction = ops.loss_op(
        logits,
        *target,
        row_weight,
        class_weight,
        *settings,
        "none" if learnt_weight else reduction,
        kind,
        empty,
        # float16 gradients of a mean would underflow before a loss scaler can multiply them; they are made in the
        # backward pass, with the incoming gradient inside
        wants_gradient and reduction != "none" and not learnt_weight and logits.dtype != torch.float16,
        with_statistics,
        accumulation_dtype(logits.dtype) if learnt_weight else dtype,
        list(batch.shape),
    )
    if learnt_weight:
        value = reduced(value, batch, settings, reduction, kind, empty).to(dtype)
    found = statistics_of(batch, settings, lse, prediction) if with_statistics else None
    return batch.restored(value) if reduction == "none" else value, found


def checked_denominator(target: TargetRows, reduction: str, denominator: str | None, empty: str) -> str:
    """Check the three choices of a reduction; returns what the mean divides by, PyTorch's choice where none is made."""
    check_choice("reduction", reduction, REDUCTIONS)
    check_choice("empty", empty, EMPTY)
    if denominator is None:
        return "examples" if target.is_soft() or target.second is not None else "weights"
    check_choice("denominator", denominator, DENOMINATORS)
    return denominator


def requires_grad(tensor: Tensor | None) -> bool:
    """Whether there is a tensor, and it wants a gradient."""
    return tensor is not None and tensor.requires_grad


def value_dtype(logits: Tensor, target: TargetRows) -> torch.dtype:
    """The dtype PyTorch's own function would return: the logits', promoted with soft targets, float32 in autocast."""
    dtype = torch.promote_types(logits.dtype, target.first.dtype) if target.is_soft() else logits.dtype
    return loss_dtype(dtype, logits.device)


def reduced(losses: Tensor, batch: Batch, settings: RowSettings, reduction: str, kind: str, empty: str) -> Tensor:
    """Unweighted per-row losses with weights and reduction applied, in differentiable operations."""
    weight = batch.sample_weight
    counts = plain.counted_rows(batch.target, weight, settings.ignore_index)
    if weight is not None:
        # each on its own: the product's derivative in the weight would be 0 times the NaN of a row that does not count
        losses = torch.where(counts, losses, 0.0) * torch.where(counts, weight, 0.0)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    divisor = plain.denominator(batch.target, batch.class_weight, weight, settings.ignore_index, kind)
    if empty == "error" and bool(divisor == 0):
        raise ops.empty_error()
    nothing = math.nan if empty == "nan" else 0.0
    safe = torch.where(divisor == 0, 1.0, divisor)
    return torch.where(divisor == 0, nothing, losses.sum() / safe)


def _statistics(batch: Batch, settings: RowSettings, wanted: bool) -> Statistics | None:
    if not wanted:
        return None
    with torch.no_grad():
        counts = plain.counted_rows(batch.target, batch.sample_weight, settings.ignore_index)
        lse, prediction = plain.PlainRows(settings, batch.logits, counts).statistics(batch.logits)
        return statistics_of(batch, settings, lse, prediction)
