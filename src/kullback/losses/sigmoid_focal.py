"""The focal loss per label, as in object detection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kullback.errors import InputError
from kullback.losses import base
from kullback.losses.sigmoid_loss import SigmoidLoss


@dataclass(frozen=True)
class SigmoidFocal(SigmoidLoss):
    """Sigmoid focal loss per label: −α·(1 − p)^γ·log p if it holds, −(1 − α)·p^γ·log(1 − p) if not, in nats.

    The loss of Lin et al., 2017, "Focal loss for dense object detection", eq. 5, and of torchvision. For mutually
    exclusive classes see `Focal`; the two differ, and libraries mean either by "focal".

    Its minimiser is less confident than the truth and, with α, shifted; `recover` undoes both in closed form.

    Args:
        positive_weight: (C,) π, above 0, or None for all ones.
        class_weight: (C,) weight of each label, or None for all ones.
        label_smoothing: ε in [0, 1).
        temperature: T > 0, divides the logits.
        ignore_index: entries with this value do not count, or None.
        label_reduction: ``"mean"`` or ``"sum"`` over a row's labels.
        gamma: γ in [0, 100].
        alpha: α in (0, 1), or None for no balance (both factors 1).

    >>> round(SigmoidFocal(alpha=0.25)([[0.0]], [[1]]), 4)  # 0.25 · 0.5² · log 2
    0.0433
    """

    name: ClassVar[str] = "sigmoid_focal"
    family: ClassVar[str] = "sigmoid_focal"

    gamma: float = 2.0
    alpha: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("gamma", base.check_between("gamma", self.gamma, 0, 100))
        if self.alpha is not None:
            self._set("alpha", base.check_positive("alpha", self.alpha))
            if self.alpha >= 1:
                raise InputError(f"alpha={self.alpha!r} is not valid; it lies in (0, 1)")

    def _parameters(self) -> tuple[float, ...]:
        return (self.gamma,)

    def _balance(self) -> tuple[float, float]:
        return (1.0, 1.0) if self.alpha is None else (self.alpha, 1 - self.alpha)

    @property
    def truthful(self) -> bool:  # type: ignore[override]
        """Only without focus is the truth its minimiser."""
        return self.gamma == 0

    @property
    def convex(self) -> bool:
        """Only without focus: a hopeless example is turned down too, which bends the loss the other way."""
        return self.gamma == 0
