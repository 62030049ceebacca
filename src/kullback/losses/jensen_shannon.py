"""The Jensen–Shannon divergence from the target: between cross-entropy and the mean absolute error."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kullback.losses import base
from kullback.losses.base import Float
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

    def _log_steepness(self, log_q: Float, log_miss: Float) -> Float:
        """h ∝ log(1 + π/((1 − π)·q))."""
        return np.asarray(np.log(np.logaddexp(0.0, self._log_ratio - log_q)))

    def _log_share(self, level: Float) -> Float:
        with np.errstate(over="ignore"):
            h = np.exp(level)
        # π/((1 − π)·q) = e^h − 1, the logarithm of which is h + log(1 − e^(−h))
        return np.minimum(self._log_ratio - (h + np.log(-np.expm1(-h))), -math.log(2))

    @property
    def _log_ratio(self) -> float:
        """log(π/(1 − π))."""
        return math.log(self.share) - math.log1p(-self.share)
