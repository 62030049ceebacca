"""How well a linear softmax model does on rows that it was not fitted to."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss, get_scorer, make_scorer

from kullback.errors import InputError, NoProbabilitiesError
from kullback.linear.folds import Examples
from kullback.linear.raw_fit import Parameters
from kullback.linear.soft_scores import KnownLogits, expected_score, of_scikit_learn, scored
from kullback.linear.softmax_classifier import SoftmaxClassifier
from kullback.losses import Loss
from kullback.targets import ClassIndices, ClassRows, ClassTargets

Vector: TypeAlias = NDArray[np.float64]
Index: TypeAlias = NDArray[np.int64]
Scoring: TypeAlias = str | Callable[..., float] | None

# Log probabilities below this count as this, so that one such row does not decide between penalties.
LEAST_LOG = math.log(np.finfo(np.float64).eps)
LOG_LOSS = "neg_log_loss"


class HeldOut:
    """Scores parameters on some of the rows; greater is better.

    Args:
        examples: what the rows are of.
        classes: (C,) their labels.
        scoring: None for the log loss in nats, or, where a loss has no probabilities, for the loss itself; otherwise
            a scorer of scikit-learn or its name, or a function (model, X, y) → number, which is given soft targets as
            rows (n, C).
        recover: whether probabilities are those of the data rather than of the trained loss.
        told: what a scorer is given besides, one value for each row or one for all.

    Raises:
        InputError: for an unknown scorer, or one that needs what the loss does not have.
    """

    def __init__(
        self, examples: Examples, classes: NDArray[Any], scoring: Scoring, *, recover: bool, told: dict[str, Any]
    ) -> None:
        self._examples, self._classes, self._recover, self._told = examples, classes, recover, told
        probable = has_probabilities(examples.loss, len(classes), recover=recover)
        self._by_loss = scoring is None and not probable
        self._scorer: Any = None
        if scoring == LOG_LOSS and not probable:
            raise InputError(
                f"scoring={scoring!r} needs probabilities, and {examples.loss.name} has none; leave scoring=None for "
                "the loss itself, or choose a score of decisions, such as 'accuracy'"
            )
        if scoring in (None, LOG_LOSS):
            return
        self._scorer, self._scoring = find_scorer(scoring, classes), scoring

    def score(self, parameters: Parameters, test: Index) -> float:
        """The score of parameters (d, C) and (C,) on some rows.

        Raises:
            InputError: if none of the rows counts, or the scorer cannot be used here.
        """
        examples = self._examples
        told = {name: _of_rows(value, test, len(examples.targets)) for name, value in self._told.items()}
        weight = told.get("sample_weight")
        if weight is not None and not weight.any():
            raise InputError("a fold's held-out rows all have sample_weight 0; leave such rows out, or use other folds")
        if self._scorer is None:
            targets = examples.targets[test]
            return default_score(
                examples.loss, examples.logits(parameters, test), targets, weight, self._recover, self._by_loss
            )
        targets = examples.targets[test]
        if not isinstance(targets, ClassIndices) and of_scikit_learn(self._scorer):
            told.pop("sample_weight", None)
            answers = KnownLogits().know(
                examples.logits(parameters, test), self._classes, examples.loss, recover=self._recover
            )
            mass = targets.dense(len(self._classes))
            return expected_score(self._scorer, self._scoring, answers, mass, weight, **told)
        model = SoftmaxClassifier(recover=self._recover)
        model._store_parameters(*parameters, examples.loss)
        model.classes_, model.loss_ = self._classes, examples.loss
        model.n_features_in_ = examples.X.shape[1]
        labels: NDArray[Any] = (
            self._classes[targets.indices] if isinstance(targets, ClassIndices) else targets.dense(len(self._classes))
        )
        return scored(self._scorer, self._scoring, model, examples.X[test], labels, **told)


def default_score(
    loss: Loss, logits: Vector, targets: ClassTargets, weight: Vector | None, recover: bool, by_loss: bool
) -> float:
    """Minus the mean log loss in nats of the probabilities that are reported, or minus the mean loss itself."""
    if by_loss:
        return -float(loss(logits, targets, sample_weight=weight))
    logs = loss.log_probabilities(logits)
    reported = loss.recover_log(logs) if recover else logs
    return mean_log_probability(np.asarray(reported), targets, weight)


def has_probabilities(loss: Loss, n_classes: int, *, recover: bool) -> bool:
    """Whether a model of this loss reports probabilities."""
    try:
        logs = loss.log_probabilities(np.zeros((1, n_classes)))
        if recover:
            loss.recover_log(np.asarray(logs))
    except NoProbabilitiesError:
        return False
    return True


def find_scorer(scoring: Any, classes: NDArray[Any]) -> Any:
    """A scorer of scikit-learn.

    Raises:
        InputError: for one that is not known.
    """
    if scoring == "neg_brier_score":
        # Held-out rows may lack a class, so the score is told of all.
        known: dict[str, Any] = {"labels": list(classes)}
        if len(classes) == 2:
            known["pos_label"] = classes[1]
        return make_scorer(brier_score_loss, greater_is_better=False, response_method="predict_proba", **known)
    return checked_scorer(scoring)


def checked_scorer(scoring: Any) -> Any:
    """`sklearn.metrics.get_scorer`, with an error that says what is possible."""
    try:
        return get_scorer(scoring)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"scoring={scoring!r} is not known; it must be None, a name of sklearn.metrics.get_scorer_names(), or a "
            "function (model, X, y) → number"
        ) from error


def mean_log_probability(log_probabilities: Vector, targets: ClassTargets, weight: Vector | None) -> float:
    """The weighted mean log probability of the targets, in nats; none counts as less than that of 2⁻⁵²."""
    logs = np.maximum(log_probabilities, LEAST_LOG)
    every = np.arange(len(logs))
    if isinstance(targets, ClassIndices):
        own = logs[every, targets.indices]
    elif isinstance(targets, ClassRows):
        own = (logs * targets.rows).sum(axis=1)
    else:
        own = targets.share * logs[every, targets.first] + (1 - targets.share) * logs[every, targets.second]
    return float(np.average(own, weights=weight))


def _of_rows(value: Any, rows: Index, n_rows: int) -> Any:
    """What belongs to some of the rows; anything that is not one value a row, as it is."""
    return np.asarray(value)[rows] if np.ndim(value) and len(value) == n_rows else value
