"""Temperature scaling: one number, fitted on held-out data, that makes confidence match accuracy.

Source: Guo, Pleiss, Sun & Weinberger (2017), "On calibration of modern neural networks", §4.2: probabilities become
softmax(z / T), with T chosen to minimise the negative log-likelihood of held-out examples. Dividing every score of a
row by the same positive number never changes which class is highest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kullback.calibration.inputs import (
    Floats,
    Link,
    as_matrix,
    as_targets,
    as_weights,
    check_link,
)
from kullback.errors import InputError
from kullback.losses import BinaryCrossEntropy, CrossEntropy
from kullback.targets import ClassIndices, ClassMixture, Targets

LOWEST_TEMPERATURE = 0.01
HIGHEST_TEMPERATURE = 1000.0


@dataclass(frozen=True)
class TemperatureScaling:
    """A fitted temperature and what it did to the fold it was fitted on.

    Attributes:
        temperature: T > 0; above 1 the scores were overconfident, below 1 underconfident.
        nll_before: mean negative log-likelihood of the fold at T = 1, in nats (per label for the sigmoid link).
        nll_after: the same at T = `temperature`.
        link: ``"softmax"`` or ``"sigmoid"``.
        note: what a reader should know about the fit, or an empty string: the fold was separated, or a bound was
            reached, or the scores carry no information.
    """

    temperature: float
    nll_before: float
    nll_after: float
    link: Link = "softmax"
    note: str = ""

    @property
    def improved(self) -> bool:
        """Whether the fold's likelihood is better with the temperature than without."""
        return self.nll_after < self.nll_before

    def apply(self, scores: ArrayLike) -> Floats:
        """Return calibrated probabilities, shape (N, C), from logits or log-probabilities (N, C).

        >>> TemperatureScaling(2.0, 0.0, 0.0).apply([[2.0, 0.0]]).round(4)
        array([[0.7311, 0.2689]])
        """
        matrix = as_matrix(scores, "scores")
        return np.asarray(_loss_at(self.link, self.temperature, 0.0).probabilities(matrix), dtype=np.float64)

    def apply_log(self, scores: ArrayLike) -> Floats:
        """Return calibrated log-probabilities, shape (N, C), without rounding through probabilities."""
        matrix = as_matrix(scores, "scores")
        loss = _loss_at(self.link, self.temperature, 0.0)
        return np.asarray(loss.log_probabilities(matrix), dtype=np.float64)


def fit_temperature(
    scores: ArrayLike,
    targets: ArrayLike | Targets,
    *,
    link: Link = "softmax",
    sample_weight: ArrayLike | None = None,
) -> TemperatureScaling:
    """Fit the temperature that minimises the negative log-likelihood of held-out examples.

    The likelihood is convex in β = 1/T, so its derivative Σ_ik (p_ik − t_ik)·z_ik has one root, which is bracketed
    and found; β runs from 1/1000 to 100. A fold on which every example is classified rightly has no finite best
    temperature: T → 0 always looks better. There the targets are smoothed as Platt (1999) does, so that a fold of n
    examples may claim no more than one error in n + 2, and the note says so.

    Args:
        scores: (N, C) logits or log-probabilities of classes for softmax (−inf marks an impossible class); log-odds
            of labels for sigmoid, where one temperature serves all labels.
        targets: (N,) class indices or (N, C) rows for softmax; (N, C) labels in [0, 1] for sigmoid.
        link: ``"softmax"`` for exclusive classes, ``"sigmoid"`` for independent labels.
        sample_weight: (N,) non-negative weights, or None for all ones.

    Raises:
        InputError: for NaN or +inf scores, bad targets or weights, or an example whose true class has
            probability zero (no temperature makes its loss finite); the message names the row.

    >>> scores = [[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [4.0, 0.0]]
    >>> scaling = fit_temperature(scores, [0, 0, 0, 1])  # confidence 0.98, right three times in four
    >>> round(scaling.temperature, 4), round(float(scaling.apply(scores)[0, 0]), 4)
    (3.641, 0.75)
    """
    check_link(link)
    matrix = as_matrix(scores, "scores")
    wrapped = as_targets(targets, link, (matrix.shape[0], matrix.shape[1]))
    weight = as_weights(sample_weight, len(matrix))
    _check_scores(matrix, weight, link)
    # A weight-zero row may hold anything; the row's own zeros keep it out of the products below.
    matrix = np.where(weight[:, None] > 0, matrix, 0.0)
    _check_possible(matrix, wrapped, weight)
    nll_before = _mean_loss(link, 1.0, matrix, wrapped, weight)
    slope = _slope_in_log_beta(link, 0.0, matrix, wrapped, weight)
    temperature, note = _best_temperature(slope)
    if temperature == LOWEST_TEMPERATURE:
        n_units = np.count_nonzero(weight) * (1 if link == "softmax" else matrix.shape[1])
        n_outcomes = matrix.shape[1] if link == "softmax" else 2
        smoothing = min(1.0, n_outcomes / (n_outcomes - 1) / (n_units + 2)) if n_outcomes > 1 else 0.0
        slope = _slope_in_log_beta(link, smoothing, matrix, wrapped, weight)
        temperature, _ = _best_temperature(slope)
        note = (
            f"the {n_units} held-out outcomes are predicted without error, so no finite temperature is best for them "
            f"alone; it was chosen as if one in {n_units + 2} were wrong"
        )
    nll_after = _mean_loss(link, temperature, matrix, wrapped, weight)
    return TemperatureScaling(temperature, nll_before, nll_after, link, note)


def _loss_at(link: str, temperature: float, smoothing: float) -> CrossEntropy | BinaryCrossEntropy:
    if link == "softmax":
        return CrossEntropy(temperature=temperature, label_smoothing=smoothing, ignore_index=None)
    return BinaryCrossEntropy(temperature=temperature, label_smoothing=smoothing, ignore_index=None)


def _mean_loss(link: str, temperature: float, scores: Floats, targets: Targets, weight: Floats) -> float:
    losses = _loss_at(link, temperature, 0.0).per_example(scores, targets, sample_weight=weight)
    return float(np.sum(losses) / weight.sum())


def _slope_in_log_beta(
    link: str, smoothing: float, scores: Floats, targets: Targets, weight: Floats
) -> Callable[[float], float]:
    """Return d NLL / d log β as a function of log β, where β = 1/T.

    The loss's own gradient at temperature T is β·(p − t), so its product with the scores is β·dNLL/dβ.
    """
    if link == "softmax":
        # Shifting a row changes nothing but keeps the products small next to one another.
        finite_max = np.max(np.where(np.isneginf(scores), -np.inf, scores), axis=1, keepdims=True)
        scores = scores - np.where(np.isfinite(finite_max), finite_max, 0.0)
    finite = np.where(np.isneginf(scores), 0.0, scores)  # an impossible class has zero gradient
    gradient = np.empty_like(scores)
    total = weight.sum()

    def slope(log_beta: float) -> float:
        loss = _loss_at(link, math.exp(-log_beta), smoothing)
        loss.value_and_gradient(scores, targets, sample_weight=weight, reduction="sum", out=gradient)
        return float(np.vdot(gradient, finite) / total)

    return slope


def _best_temperature(slope: Callable[[float], float]) -> tuple[float, str]:
    from scipy.optimize import brentq

    low, high = -math.log(HIGHEST_TEMPERATURE), -math.log(LOWEST_TEMPERATURE)
    at_low, at_high = slope(low), slope(high)
    if at_low == 0 and at_high == 0:
        return 1.0, "every score of a row is the same, so no temperature changes anything"
    if at_high <= 0:
        return LOWEST_TEMPERATURE, ""
    if at_low >= 0:
        return HIGHEST_TEMPERATURE, (
            f"the scores do not point to the true class, so the temperature is at its upper bound "
            f"{HIGHEST_TEMPERATURE:g}: the probabilities are all but uniform"
        )
    log_beta, _ = brentq(slope, low, high, xtol=1e-12, rtol=1e-12, full_output=True)
    return math.exp(-log_beta), ""


def _check_scores(scores: Floats, weight: Floats, link: str) -> None:
    bad = np.isnan(scores) | np.isposinf(scores)
    if link == "sigmoid":
        bad |= np.isneginf(scores)
    bad &= weight[:, None] > 0
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        allowed = "finite or -inf" if link == "softmax" else "finite"
        raise InputError(f"row {row}, column {column}: score {scores[row, column]} must be {allowed}")


def _check_possible(scores: Floats, targets: Targets, weight: Floats) -> None:
    impossible = np.isneginf(scores)
    if not impossible.any():
        return
    rows = np.arange(len(scores))
    if isinstance(targets, ClassIndices):
        bad = impossible[rows, targets.indices]
    elif isinstance(targets, ClassMixture):
        bad = impossible[rows, targets.first] & (targets.share > 0)
        bad |= impossible[rows, targets.second] & (targets.share < 1)
    else:
        bad = (impossible & (targets.rows > 0)).any(axis=1)
    bad &= weight > 0
    if bad.any():
        raise InputError(
            f"row {int(np.argmax(bad))}: its true class has probability zero, so its loss is infinite at every "
            "temperature; give the row sample_weight 0, or smooth the probabilities first"
        )
