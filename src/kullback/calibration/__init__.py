"""Probabilities that mean what they say: temperature scaling, and the figures that show whether it worked."""

from kullback.calibration.metrics import (
    Reliability,
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
    prior_entropy,
    reliability,
)
from kullback.calibration.temperature import TemperatureScaling, fit_temperature

__all__ = [
    "Reliability",
    "TemperatureScaling",
    "brier_score",
    "expected_calibration_error",
    "fit_temperature",
    "negative_log_likelihood",
    "prior_entropy",
    "reliability",
]
