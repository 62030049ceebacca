"""The Jensen–Shannon divergence from the target: between cross-entropy and the mean absolute error."""

from dataclasses import dataclass
from typing import ClassVar

from kullback.losses import base
from kullback.losses.softmax_loss import SoftmaxLoss


@dataclass(frozen=True)
class JensenShannon(SoftmaxLoss):
    """(H(π·y + (1 − π)·p) − (1 − π)·H(p)) / (−(1 − π)·log(1 − π)), which wrong labels pull only so far.

    Cross-entropy as π → 0 and 1 − p_y as π → 1 (Englesson & Azizpour, 2021, "Generalized Jensen–Shannon divergence
    loss for learning with noisy labels"). More confident than the truth: p ∝ 1/log(1 + π/((1 − π)·q)) is the way back.

    Args: `class_weight`, `label_smoothing`, `temperature`, `ignore_index` as for `CrossEntropy`, and `share`, π.

    >>> round(JensenShannon()([[0.0, 0.0]], [0]), 4)
    0.6226
    """

    name: ClassVar[str] = "jensen_shannon"
    family: ClassVar[str] = "jensen_shannon"
    scalars: ClassVar[tuple[str, ...]] = ("share",)
    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("share", base.check_between("share", self.share, 0.01, 0.99))
