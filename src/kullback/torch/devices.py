"""Rows on devices other than the CPU: the Triton kernels where they run, else the same in ordinary torch operations.

Nothing here waits for the device, unless a fused layer is asked to leave out what is ignored. A target out of range
cannot raise without such a wait: its row's loss and gradient are NaN instead, and so is a mean over the batch.
``kullback.torch.check_targets`` names it, for debugging.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from kullback.kernels.recipe import SoftmaxRecipe
from kullback.losses import Loss
from kullback.torch import plain, triton
from kullback.torch.rows import TargetRows
from kullback.torch.settings import RowSettings
from kullback.torch.triton import chunks, reference
from kullback.torch.triton.chunks import LinearResult
from kullback.torch.triton.row_loss import RowLoss, RowResult


def row_function(logits: Tensor) -> Callable[..., RowResult]:
    """`softmax_evaluate` of the kernels, or of the plain reference where they do not run."""
    return triton.softmax_evaluate if triton.supports(logits) else reference.softmax_evaluate


class DeviceLoss(NamedTuple):
    """A softmax loss as a device evaluates it.

    Attributes:
        row_loss: the loss of a row.
        ignore_index: class index of rows that do not count.
    """

    row_loss: RowLoss
    ignore_index: int | None

    def evaluate(
        self,
        logits: Tensor,
        target: TargetRows,
        row_weight: Tensor | None,
        scale: Tensor | float = 1.0,
        *,
        gradient: Tensor | bool = False,
        with_statistics: bool = False,
    ) -> RowResult:
        """Row weight × loss, (N,), and scale × row weight × gradient, into `gradient` if that is a tensor."""
        return row_function(logits)(
            self.row_loss,
            logits,
            target,
            row_weight=row_weight,
            ignore_index=self.ignore_index,
            scale=scale,
            gradient=gradient,
            log_sum_exp=with_statistics,
            argmax=with_statistics,
        )

    def linear(
        self,
        layer: tuple[Tensor, Tensor, Tensor | None],
        target: TargetRows,
        row_weight: Tensor | None,
        wanted: tuple[bool, bool, bool],
        *,
        with_statistics: bool,
        chunk_rows: int | None,
        drop_ignored: bool = False,
    ) -> LinearResult:
        """The same for the rows of a linear layer (input, weight, bias), with the layer's gradients."""
        input, weight, bias = layer
        return chunks.evaluate(
            row_function(input),
            self.row_loss,
            input,
            weight,
            target,
            bias=bias,
            row_weight=row_weight,
            ignore_index=self.ignore_index,
            input_gradient=wanted[0],
            weight_gradient=wanted[1],
            bias_gradient=wanted[2],
            log_sum_exp=with_statistics,
            argmax=with_statistics,
            chunk_rows=chunk_rows,
            drop_ignored=drop_ignored,
        )

    def denominator(self, target: TargetRows, row_weight: Tensor | None, kind: str) -> Tensor:
        """What the mean divides by, 0-d, on the device."""
        return plain.denominator(target, self.row_loss.class_weight, row_weight, self.ignore_index, kind)


def cross_entropy(settings: RowSettings, class_weight: Tensor | None) -> DeviceLoss:
    """Cross-entropy as a device evaluates it."""
    return DeviceLoss(RowLoss.from_settings(settings, class_weight), settings.ignore_index)


def loss_object(loss: Loss, n_classes: int, device: torch.device) -> DeviceLoss | None:
    """A loss object as a device evaluates it, or None if only its own code on the CPU can."""
    recipe = loss._recipe(n_classes) if hasattr(loss, "_recipe") and loss.target_form == "classes" else None
    if not isinstance(recipe, SoftmaxRecipe) or recipe.family not in reference.FAMILIES:
        return None
    return DeviceLoss(RowLoss.from_recipe(recipe, device), getattr(loss, "ignore_index", None))
