"""Rows on devices other than the CPU: the Triton kernels for CUDA where they can be had, else `plain` in chunks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kullback.torch import plain
from kullback.torch.rows import TargetRows, accumulation_dtype
from kullback.torch.settings import RowSettings


class DevicePass(NamedTuple):
    """What one pass over the rows gives, all on the logits' device.

    Attributes:
        losses: (N,) row weight × loss, float32 or float64.
        lse: (N,) or None.
    """

    losses: Tensor
    lse: Tensor | None


def evaluate(
    settings: RowSettings,
    logits: Tensor,
    target: TargetRows,
    class_weight: Tensor | None,
    row_weight: Tensor | None,
    scale: Tensor,
    *,
    gradient: Tensor | None = None,
    with_lse: bool = False,
) -> DevicePass:
    """Losses and, if asked for, the gradient, without ever waiting for the device.

    A class out of range cannot raise here without such a wait: its row's loss and gradient are NaN instead.

    Args:
        settings: the loss.
        logits: (N, C).
        target: N targets.
        class_weight: (C,) or None.
        row_weight: (N,) or None.
        scale: 0-d, multiplies the gradient only.
        gradient: (N, C) where to write scale × row weight × ∂loss/∂logits, or None; may be the logits themselves.
        with_lse: whether log-sum-exps are wanted.
    """
    n_rows, n_classes = logits.shape
    wide = accumulation_dtype(logits.dtype)
    losses = torch.empty(n_rows, dtype=wide, device=logits.device)
    lse = torch.empty_like(losses) if with_lse else None
    with torch.no_grad():
        for rows in plain.chunks(n_rows, n_classes):
            chunk = plain.part(target, rows)
            weight = None if row_weight is None else row_weight[rows]
            counts = plain.counted_rows(chunk, weight, settings.ignore_index)
            state = plain.PlainRows(settings, logits[rows], counts)
            masses = state.masses(chunk, class_weight)
            value = state.losses(masses)
            losses[rows] = value if weight is None else torch.where(counts, value * weight, 0.0).to(wide)
            if lse is not None:
                lse[rows] = torch.where(counts, state.lse, 0.0)
            if gradient is not None:
                factor = scale.to(wide) if weight is None else (scale * weight).to(wide)[:, None]
                g = torch.where(counts[:, None], state.gradient(masses) * factor, 0.0)
                gradient[rows] = g.to(gradient.dtype)
    return DevicePass(losses, lse)
