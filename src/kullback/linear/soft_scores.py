"""Scikit-learn's scorers on soft targets: every class of a row is scored, weighted with its share of the row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kullback.errors import InputError, NoProbabilitiesError
from kullback.kernels.recipe import Array
from kullback.linear.softmax_classifier import SoftmaxClassifier
from kullback.losses import Loss

Vector = NDArray[np.float64]


class KnownLogits(SoftmaxClassifier):
    """A model whose logits are known, and which is asked by the numbers of rows."""

    def know(self, logits: Array, classes: NDArray[Any], loss: Loss, *, recover: bool) -> KnownLogits:
        """Set the logits (N, C), and what turns them into answers."""
        self._known, self.classes_, self.loss_, self.recover = logits, classes, loss, recover
        return self

    def logits(self, X: Any) -> Array:
        """Logits (n, C) of rows by their numbers, (n,)."""
        known: Array = self._known[X]
        return known


def scored(scorer: Callable[..., Any], scoring: Any, model: SoftmaxClassifier, X: Any, y: Any, **told: Any) -> float:
    """What a scorer says, as a number.

    Args:
        scorer: called with the model, X, y and what is `told` besides.
        scoring: what it was called by the user.
        model: to be scored.
        X: as the scorer takes it.
        y: likewise.
        **told: for the scorer, `sample_weight` for example.

    Raises:
        InputError: if a scorer of scikit-learn cannot be used here, or the score is no number.
    """
    try:
        value = scorer(model, X, y, **told)
    except NoProbabilitiesError as error:
        raise InputError(
            f"the scorer needs probabilities, and {model.loss_.name} has none; leave scoring=None for the loss "
            "itself, or choose a score of decisions, such as 'accuracy'"
        ) from error
    except (TypeError, ValueError) as error:
        if not of_scikit_learn(scorer):
            raise
        raise InputError(
            f"scoring={scoring!r} cannot score these {len(model.classes_)} classes: {error}; choose another, such as "
            "'accuracy' or 'roc_auc_ovr', or leave scoring=None for the log loss"
        ) from error
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"scoring={scoring!r} returned {value!r}; a score is one number, greater is better") from error


def expected_score(
    scorer: Callable[..., Any],
    scoring: Any,
    answers: KnownLogits,
    mass: Vector,
    weight: Vector | None,
    **told: Any,
) -> float:
    """The score of rows whose classes are known by their probabilities.

    Each class that has a share of a row counts as an example of its own, with that share as its weight. Of a score
    that is a mean over examples (accuracy, log loss, Brier score) this is the expectation over labels drawn from the
    rows.

    Args:
        scorer: of scikit-learn; it must take a `sample_weight`.
        scoring: what it was called by the user.
        answers: knows the logits of the rows.
        mass: (N, C) targets.
        weight: (N,) of the rows, or None.
        **told: for the scorer besides, one value for each row or one for all.

    Raises:
        InputError: as `scored`.
    """
    rows, classes = np.nonzero(mass)
    shares = mass[rows, classes]
    if weight is not None:
        shares = shares * weight[rows]
    told = {name: value[rows] if np.ndim(value) else value for name, value in told.items()}
    return scored(scorer, scoring, answers, rows, answers.classes_[classes], sample_weight=shares, **told)


def of_scikit_learn(scorer: Any) -> bool:
    """Whether a scorer was made by `sklearn.metrics.make_scorer`, and calls a metric with what the model answers."""
    return hasattr(scorer, "_score_func")
