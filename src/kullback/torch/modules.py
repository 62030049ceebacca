"""``torch.nn``'s losses by the same names: modules around the functions of this package."""

from __future__ import annotations

from torch import Tensor, nn

from kullback.torch.binary import binary_cross_entropy_with_logits
from kullback.torch.divergence import kl_div
from kullback.torch.functional import cross_entropy
from kullback.torch.nll import nll_loss
from kullback.torch.rows import Mixture
from kullback.torch.settings import legacy_reduction


class CrossEntropyLoss(nn.Module):
    """`cross_entropy` as a module; the arguments are the function's.

    >>> import torch
    >>> from kullback.torch import CrossEntropyLoss
    >>> CrossEntropyLoss(label_smoothing=0.1)(torch.zeros(2, 4), torch.tensor([0, 3]))
    tensor(1.3863)
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        *,
        temperature: float = 1.0,
        softcap: float | None = None,
        z_loss: float = 0.0,
        denominator: str | None = None,
        empty: str = "nan",
        overwrite_input: bool = False,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.reduction = legacy_reduction(size_average, reduce, reduction)
        self.label_smoothing = label_smoothing
        self.temperature = temperature
        self.softcap = softcap
        self.z_loss = z_loss
        self.denominator = denominator
        self.empty = empty
        self.overwrite_input = overwrite_input

    def forward(self, input: Tensor, target: Tensor | Mixture, sample_weight: Tensor | None = None) -> Tensor:
        """The loss of a batch, in nats."""
        return cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
            sample_weight=sample_weight,
            temperature=self.temperature,
            softcap=self.softcap,
            z_loss=self.z_loss,
            denominator=self.denominator,
            empty=self.empty,
            overwrite_input=self.overwrite_input,
        )


class NLLLoss(nn.Module):
    """`nll_loss` as a module; the arguments are the function's."""

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        *,
        denominator: str = "weights",
        empty: str = "nan",
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.reduction = legacy_reduction(size_average, reduce, reduction)
        self.denominator = denominator
        self.empty = empty

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """The loss of a batch, in nats."""
        return nll_loss(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            sample_weight=sample_weight,
            denominator=self.denominator,
            empty=self.empty,
        )


class BCEWithLogitsLoss(nn.Module):
    """`binary_cross_entropy_with_logits` as a module; the arguments are the function's."""

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)
        self.reduction = legacy_reduction(size_average, reduce, reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch, in nats."""
        return binary_cross_entropy_with_logits(
            input, target, weight=self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class KLDivLoss(nn.Module):
    """`kl_div` as a module; the arguments are the function's."""

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        log_target: bool = False,
    ) -> None:
        super().__init__()
        self.reduction = legacy_reduction(size_average, reduce, reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The divergence of a batch, in nats."""
        return kl_div(input, target, reduction=self.reduction, log_target=self.log_target)
