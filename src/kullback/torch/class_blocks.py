"""Cross-entropy of rows whose classes come in blocks: one after the other from a wide layer, or one per process.

A block contributes four numbers a row: its largest x, Σ exp(x − largest), Σ s·x and Σ s. Added over the blocks they
give the loss S·lse − Σ s·x + S·λ·lse², and with lse known each block has its own part of the gradient,
S·(1 + 2λ·lse)·p − s, without looking at the others.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kullback.torch.rows import TargetRows
from kullback.torch.settings import RowSettings


class RowSums(NamedTuple):
    """What the blocks seen so far say about N rows, each (N,).

    Attributes:
        top: the largest x.
        total: Σ exp(x − top), float64.
        pulled: Σ s·x, float64.
        mass: Σ s, float64.
    """

    top: Tensor
    total: Tensor
    pulled: Tensor
    mass: Tensor

    def merged(self, other: RowSums) -> RowSums:
        """The sums over both sets of classes."""
        top = torch.maximum(self.top, other.top)
        return RowSums(
            top,
            self.total * _falloff(self.top, top) + other.total * _falloff(other.top, top),
            self.pulled + other.pulled,
            self.mass + other.mass,
        )

    def lse(self) -> Tensor:
        """log Σ exp x, float64; 0 for a row that is masked throughout, whose probabilities are then all 0."""
        masked = self.top == -torch.inf
        return torch.where(masked, 0.0, self.top.double() + self.total.log())

    def losses(self, z_loss: float) -> Tensor:
        """The rows' losses, float64."""
        lse = self.lse()
        losses = torch.where(self.mass == 0, 0.0, self.mass * lse * (1 + z_loss * lse)) - self.pulled
        return torch.where(torch.isnan(self.total), self.total, losses)


def _falloff(top: Tensor, new_top: Tensor) -> Tensor:
    return torch.where(top == new_top, 1.0, (top - new_top).double().exp())


class ClassBlock:
    """Classes [start, start + b) of rows of logits.

    Args:
        settings: the loss.
        logits: (N, b) float32 or float64; may be overwritten.
        start: the block's first class.
        n_classes: C, over all blocks.
        target: indices over all classes, or soft rows of this block's classes (N, b).
        class_weight: (b,) of this block, or None.
        row_total: (N,) Σt over all classes of soft rows; needed where smoothing goes by mass.
    """

    def __init__(
        self,
        settings: RowSettings,
        logits: Tensor,
        start: int,
        n_classes: int,
        target: TargetRows,
        class_weight: Tensor | None,
        row_total: Tensor | None = None,
    ) -> None:
        self.settings = settings
        self.slope: Tensor | None = None
        x = logits
        if settings.softcap:
            bent = torch.tanh(x / settings.softcap)
            self.slope = 1 - bent.square()
            x = torch.where(x == -torch.inf, x, settings.softcap * bent)
        self.x = x / settings.temperature if settings.temperature != 1 else x
        self.start = start
        self.weight = None if class_weight is None else class_weight.to(x.dtype)
        self.spread = settings.smoothing / n_classes
        self.soft: Tensor | None = None
        self.points: list[tuple[Tensor, Tensor]] = []  # (column, mass) of the classes each row names
        width = x.shape[1]
        if target.is_soft():
            spread = self.spread if row_total is None else self.spread * row_total.to(x.dtype)[:, None]
            self.soft = (1 - settings.smoothing) * target.first.to(x.dtype) + spread
            if self.weight is not None:
                self.soft = self.soft * self.weight
            return
        named = [(target.first, None)] if target.second is None else [(target.first, True), (target.second, False)]
        for classes, is_first in named:
            column = classes.long() - start
            here = (column >= 0) & (column < width)
            column = torch.where(here, column, 0)
            mass = here.to(x.dtype) * (1 - settings.smoothing)
            if is_first is not None and target.share is not None:
                share = target.share.to(x.dtype)
                mass = mass * (share if is_first else 1 - share)
            if self.weight is not None:
                mass = mass * self.weight[column]
            self.points.append((column, mass))

    def sums(self) -> RowSums:
        """This block's part of the rows' sums."""
        top = self.x.amax(dim=1)
        center = torch.where(top == -torch.inf, 0.0, top)
        total = (self.x - center[:, None]).exp_().sum(dim=1, dtype=torch.float64)
        if self.soft is not None:
            return RowSums(top, total, _dot(self.soft, self.x), self.soft.sum(dim=1, dtype=torch.float64))
        pulled = torch.zeros_like(total)
        mass = torch.zeros_like(total)
        for column, part in self.points:
            x = self.x.gather(1, column[:, None])[:, 0]
            pulled += torch.where(part == 0, 0.0, part * x).double()
            mass += part.double()
        if self.spread:
            if self.weight is None:
                pulled += self.spread * self.x.sum(dim=1, dtype=torch.float64)
                mass += self.spread * self.x.shape[1]
            else:
                pulled += self.spread * _dot(self.weight.expand_as(self.x), self.x)
                mass += self.spread * self.weight.sum(dtype=torch.float64)
        return RowSums(top, total, pulled, mass)

    def gradient(self, sums: RowSums, row_scale: Tensor) -> Tensor:
        """row_scale × ∂loss/∂logits of this block, (N, b); rows of scale 0 are exactly 0.

        Args:
            sums: the rows' sums over all classes.
            row_scale: (N,).
        """
        pull = sums.mass * (1 + 2 * self.settings.z_loss * sums.lse())
        factor = row_scale.double() / self.settings.temperature
        # exp(x − top)/total, not exp(x − lse): of logits in the hundreds a rounded lse would leave p four digits
        masked = sums.top == -torch.inf
        g = (self.x - torch.where(masked, 0.0, sums.top).to(self.x.dtype)[:, None]).exp_()
        g *= (pull * factor / torch.where(masked, 1.0, sums.total)).to(g.dtype)[:, None]
        rate = factor.to(g.dtype)
        if self.soft is not None:
            g -= self.soft * rate[:, None]
        else:
            if self.spread:
                g -= (self.spread * rate)[:, None] * (1.0 if self.weight is None else self.weight)
            for column, part in self.points:
                g.scatter_add_(1, column[:, None], -(part * rate)[:, None])
        if self.slope is not None:
            g *= self.slope
        g[row_scale == 0] = 0
        return g


def _dot(s: Tensor, x: Tensor) -> Tensor:
    """Σ s·x by rows in float64, where nothing times −inf is nothing."""
    return torch.where(s == 0, 0.0, s * x).sum(dim=1, dtype=torch.float64)
