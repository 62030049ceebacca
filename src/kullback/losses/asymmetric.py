"""The asymmetric loss for many labels of which few hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kullback.losses import base
from kullback.losses.sigmoid_loss import SigmoidLoss


@dataclass(frozen=True)
class Asymmetric(SigmoidLoss):
    """Focal with its own γ for present and absent labels, and easy absent labels left alone, in nats.

    A label that holds costs −(1 − p)^γ₊·log p, one that does not −x^γ₋·log(1 − x) with x = max(p − c, 0) (Ridnik et
    al., 2021, "Asymmetric loss for multi-label classification", eq. 7). The gradient is that of the formula as it
    stands; implementations that do not differentiate the focusing factor follow another one.

    Its minimiser shifts every probability upwards; `recover` undoes that in closed form. A label never held may be
    reported with anything up to c, and with γ₊ = 0 and c > 0 a label's truth beyond a limit below 1 is reported as 1.

    Args:
        positive_weight: (C,) π, above 0, or None for all ones.
        class_weight: (C,) weight of each label, or None for all ones.
        label_smoothing: ε in [0, 1).
        temperature: T > 0, divides the logits.
        ignore_index: entries with this value do not count, or None.
        label_reduction: ``"mean"`` or ``"sum"`` over a row's labels.
        gamma_positive: γ₊ in [0, 100].
        gamma_negative: γ₋ in [0, 100].
        clip: c in [0, 1).

    >>> Asymmetric()([[-4.0]], [[0]])  # p = 0.018 is below the clip: left alone
    0.0
    """

    name: ClassVar[str] = "asymmetric"
    family: ClassVar[str] = "asymmetric"

    gamma_positive: float = 0.0
    gamma_negative: float = 4.0
    clip: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("gamma_positive", base.check_between("gamma_positive", self.gamma_positive, 0, 100))
        self._set("gamma_negative", base.check_between("gamma_negative", self.gamma_negative, 0, 100))
        self._set("clip", base.check_unit("clip", self.clip))

    def _parameters(self) -> tuple[float, ...]:
        return (self.gamma_positive, self.gamma_negative, self.clip)

    @property
    def truthful(self) -> bool:  # type: ignore[override]
        """Only without focus and clip is the truth its minimiser."""
        return self.gamma_positive == self.gamma_negative == self.clip == 0

    @property
    def convex(self) -> bool:
        """Only without focus and clip."""
        return self.gamma_positive == self.gamma_negative == self.clip == 0
