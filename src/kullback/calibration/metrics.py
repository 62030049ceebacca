"""How far probabilities can be believed: reliability bins, calibration error, likelihood and Brier score.

All figures take sample weights, and all logarithms are natural (nats).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kullback.calibration.inputs import (
    Floats,
    Link,
    as_matrix,
    as_probabilities,
    as_targets,
    as_weights,
    check_link,
    mass_on,
)
from kullback.errors import InputError
from kullback.targets import (
    ClassIndices,
    ClassMixture,
    ClassRows,
    LabelRows,
    Targets,
    as_class_targets,
    as_label_targets,
)


@dataclass(frozen=True, eq=False)
class Reliability:
    """Stated confidence against what happened, in bins of equal width.

    Bin b holds confidences in (edges[b], edges[b + 1]]; the first also holds 0.

    Attributes:
        edges: (B + 1,) bin edges from 0 to 1.
        counts: (B,) total sample weight in each bin (the number of examples when unweighted).
        confidence: (B,) mean stated probability in each bin, nan where it is empty.
        accuracy: (B,) observed frequency in each bin, nan where it is empty.
        ece: expected calibration error in [0, 1], Σ_b (counts_b / Σ counts)·|accuracy_b − confidence_b|.
    """

    edges: Floats
    counts: Floats
    confidence: Floats
    accuracy: Floats
    ece: float


def reliability(
    probabilities: ArrayLike,
    targets: ArrayLike | Targets,
    *,
    n_bins: int = 15,
    link: Link = "softmax",
    sample_weight: ArrayLike | None = None,
) -> Reliability:
    """Bin stated probabilities and compare each bin with the observed frequency.

    With the softmax link an example enters once, by its highest probability, and counts as correct by the target
    mass on that class (top-label calibration). With the sigmoid link every label of every example enters, by its
    own probability, against whether the label holds.

    Args:
        probabilities: (N, C).
        targets: (N,) class indices or (N, C) rows for softmax; (N, C) labels in [0, 1] for sigmoid.
        n_bins: number of equal-width bins over [0, 1].
        link: ``"softmax"`` for exclusive classes, ``"sigmoid"`` for independent labels.
        sample_weight: (N,) non-negative weights, or None for all ones.

    Raises:
        InputError: for values that are not probabilities, bad targets or weights, or `n_bins` below 1.

    Source: Guo, Pleiss, Sun & Weinberger (2017), "On calibration of modern neural networks", eq. 2–3; the binned
    estimate is from Naeini, Cooper & Hauskrecht (2015).

    >>> bins = reliability([[0.9, 0.1], [0.8, 0.2]], [0, 1], n_bins=2)
    >>> bins.counts
    array([0., 2.])
    >>> round(bins.ece, 3)
    0.35
    """
    if n_bins < 1:
        raise InputError(f"n_bins is {n_bins}; reliability needs at least one bin")
    stated = as_probabilities(probabilities, link)
    wrapped = as_targets(targets, link, (stated.shape[0], stated.shape[1]))
    weight = as_weights(sample_weight, len(stated))
    if isinstance(wrapped, LabelRows):
        confidence = stated.ravel()
        happened = wrapped.rows.ravel().astype(np.float64)
        weight = np.repeat(weight, stated.shape[1])
    else:
        top = stated.argmax(axis=1)
        confidence = stated[np.arange(len(stated)), top]
        happened = mass_on(wrapped, top)
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    bin_of = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, n_bins - 1)
    counts: Floats = np.bincount(bin_of, weights=weight, minlength=n_bins).astype(np.float64)
    stated_sum = np.bincount(bin_of, weights=weight * confidence, minlength=n_bins)
    happened_sum = np.bincount(bin_of, weights=weight * happened, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        mean_confidence, mean_happened = stated_sum / counts, happened_sum / counts
    ece = float(np.abs(happened_sum - stated_sum).sum() / counts.sum())
    return Reliability(edges, counts, mean_confidence, mean_happened, ece)


def expected_calibration_error(
    probabilities: ArrayLike,
    targets: ArrayLike | Targets,
    *,
    n_bins: int = 15,
    link: Link = "softmax",
    sample_weight: ArrayLike | None = None,
) -> float:
    """Return the expected calibration error in [0, 1]: `reliability(...).ece`.

    The estimate depends on the number of bins and is biased upwards on few examples; compare it only at the same
    `n_bins` and a similar number of examples.

    >>> round(expected_calibration_error([[0.7, 0.3], [0.7, 0.3]], [0, 1]), 3)
    0.2
    """
    return reliability(probabilities, targets, n_bins=n_bins, link=link, sample_weight=sample_weight).ece


def negative_log_likelihood(
    log_probabilities: ArrayLike,
    targets: ArrayLike | Targets,
    *,
    link: Link = "softmax",
    sample_weight: ArrayLike | None = None,
) -> float:
    """Return the weighted mean of −Σ_k t_k·log p_k over examples, in nats.

    It takes log-probabilities, so that a probability which rounds to 0 still has a finite loss. With the sigmoid
    link it is the mean over examples *and* labels of −t·log p − (1 − t)·log(1 − p).

    Args:
        log_probabilities: (N, C) natural logarithms, at most 0; −inf is allowed.
        targets: (N,) class indices or (N, C) rows for softmax; (N, C) labels in [0, 1] for sigmoid.
        link: ``"softmax"`` for exclusive classes, ``"sigmoid"`` for independent labels.
        sample_weight: (N,) non-negative weights, or None for all ones.

    Raises:
        InputError: for a positive or NaN log-probability, bad targets or weights.

    >>> round(negative_log_likelihood(np.log([[0.5, 0.5], [0.25, 0.75]]), [0, 1]), 4)
    0.4904
    """
    check_link(link)
    logs = as_matrix(log_probabilities, "log-probabilities")
    bad = ~(logs <= 1e-6)  # rounding can leave a log-probability a hair above zero
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"row {row}, column {column}: {logs[row, column]} is not a log-probability (at most 0); "
            "pass log-probabilities, not logits or probabilities"
        )
    logs = np.minimum(logs, 0.0)
    wrapped = as_targets(targets, link, (logs.shape[0], logs.shape[1]))
    weight = as_weights(sample_weight, len(logs))
    rows = np.arange(len(logs))
    if isinstance(wrapped, ClassIndices):
        losses = -logs[rows, wrapped.indices]
    elif isinstance(wrapped, ClassMixture):
        losses = _mass_times_cost(wrapped.share, -logs[rows, wrapped.first])
        losses += _mass_times_cost(1 - wrapped.share, -logs[rows, wrapped.second])
    elif isinstance(wrapped, ClassRows):
        losses = _mass_times_cost(wrapped.rows, -logs).sum(axis=1)
    else:
        on = wrapped.rows.astype(np.float64)
        with np.errstate(divide="ignore"):
            log_off = np.log(-np.expm1(logs))
        losses = (_mass_times_cost(on, -logs) + _mass_times_cost(1 - on, -log_off)).mean(axis=1)
    counted = weight > 0  # an example of weight zero contributes nothing even where its loss is infinite
    return float(np.dot(weight[counted], losses[counted]) / weight.sum())


def brier_score(
    probabilities: ArrayLike,
    targets: ArrayLike | Targets,
    *,
    link: Link = "softmax",
    sample_weight: ArrayLike | None = None,
) -> float:
    """Return the weighted mean of Σ_k (p_k − t_k)² over examples, in [0, 2] for softmax.

    This is Brier's (1950) original sum over classes: twice the value of the usual single-column form for two
    classes. With the sigmoid link it is the mean over examples and labels of (p − t)², in [0, 1].

    Args:
        probabilities: (N, C).
        targets: (N,) class indices or (N, C) rows for softmax; (N, C) labels in [0, 1] for sigmoid.
        link: ``"softmax"`` for exclusive classes, ``"sigmoid"`` for independent labels.
        sample_weight: (N,) non-negative weights, or None for all ones.

    Raises:
        InputError: for values that are not probabilities, bad targets or weights.

    >>> round(brier_score([[0.8, 0.2], [0.4, 0.6]], [0, 1]), 6)
    0.2
    """
    stated = as_probabilities(probabilities, link)
    wrapped = as_targets(targets, link, (stated.shape[0], stated.shape[1]))
    weight = as_weights(sample_weight, len(stated))
    rows = np.arange(len(stated))
    if isinstance(wrapped, ClassRows | LabelRows):
        squares = np.square(stated - wrapped.rows)
        per_example = squares.mean(axis=1) if isinstance(wrapped, LabelRows) else squares.sum(axis=1)
    else:
        truth = np.zeros_like(stated)
        if isinstance(wrapped, ClassIndices):
            truth[rows, wrapped.indices] = 1.0
        else:
            truth[rows, wrapped.first] += wrapped.share
            truth[rows, wrapped.second] += 1 - wrapped.share
        per_example = np.square(stated - truth).sum(axis=1)
    return float(np.average(per_example, weights=weight))


def prior_entropy(
    targets: ArrayLike | Targets,
    *,
    n_classes: int | None = None,
    link: Link = "softmax",
    sample_weight: ArrayLike | None = None,
) -> float:
    """Return the entropy of the class frequencies in nats: the loss of the best constant prediction.

    A model whose loss is not below this has learned nothing from the columns. With the sigmoid link it is the mean
    over labels of each label's own entropy.

    Args:
        targets: (N,) class indices or (N, C) rows for softmax; (N, C) labels in [0, 1] for sigmoid.
        n_classes: C, needed only to check index targets; by default the highest index plus one.
        link: ``"softmax"`` for exclusive classes, ``"sigmoid"`` for independent labels.
        sample_weight: (N,) non-negative weights, or None for all ones.

    Raises:
        InputError: for bad targets or weights, or no examples.

    >>> round(prior_entropy([0, 0, 1, 2]), 4)
    1.0397
    """
    check_link(link)
    wrapped = _wrapped_for_prior(targets, link, n_classes)
    weight = as_weights(sample_weight, len(wrapped))
    if isinstance(wrapped, ClassIndices):
        mass: Floats = np.bincount(wrapped.indices, weights=weight).astype(np.float64)
    elif isinstance(wrapped, ClassMixture):
        n = int(max(wrapped.first.max(), wrapped.second.max())) + 1
        first = np.bincount(wrapped.first, weights=weight * wrapped.share, minlength=n)
        second = np.bincount(wrapped.second, weights=weight * (1 - wrapped.share), minlength=n)
        mass = (first + second).astype(np.float64)
    else:
        mass = weight @ wrapped.rows.astype(np.float64)
        if isinstance(wrapped, LabelRows):
            on = mass / weight.sum()
            return float((_entropy_terms(on) + _entropy_terms(1 - on)).mean())
    total = mass.sum()
    if total <= 0:
        raise InputError("the targets hold no mass at all, so there are no class frequencies")
    return float(_entropy_terms(mass / total).sum())


def _wrapped_for_prior(targets: ArrayLike | Targets, link: str, n_classes: int | None) -> Targets:
    wrapped: Targets = as_class_targets(targets) if link == "softmax" else as_label_targets(targets)
    if len(wrapped) == 0:
        raise InputError("there are no targets, so there are no class frequencies")
    if isinstance(wrapped, ClassRows | LabelRows):
        found = wrapped.rows.shape[1]
    elif isinstance(wrapped, ClassIndices):
        found = int(wrapped.indices.max()) + 1
    else:
        found = int(max(wrapped.first.max(), wrapped.second.max())) + 1
    return as_targets(wrapped, link, (len(wrapped), n_classes if n_classes is not None else max(found, 1)))


def _mass_times_cost(mass: NDArray[np.float64], cost: NDArray[np.float64]) -> Floats:
    # 0·inf is 0 here: a class without mass costs nothing, however impossible it was called.
    product: Floats = np.where(mass == 0, 0.0, cost) * mass
    return product


def _entropy_terms(share: Floats) -> Floats:
    safe = np.where(share > 0, share, 1.0)
    terms: Floats = -share * np.log(safe)
    return terms
