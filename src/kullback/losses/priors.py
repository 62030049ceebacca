"""How often the classes occur: counts or shares that some losses are given."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from kullback.errors import InputError, KullbackWarning
from kullback.losses import base
from kullback.losses.base import Float


def check_priors(name: str, values: Sequence[float] | None) -> tuple[float, ...] | None:
    """Counts or shares of the classes, each finite and above 0, or None.

    Raises:
        InputError: for an entry that is not.
    """
    vector = base.class_vector(name, values)
    if vector is not None and min(vector) == 0:
        k = vector.index(0.0)
        raise InputError(
            f"{name}[{k}] = 0 is not valid: nothing can be learnt about a class that never occurs; leave it out of "
            "the classes, or give it a small share"
        )
    return vector


class NoCountsWarning(KullbackWarning):
    """A loss made for unequal classes is not told how often they occur."""


def warn_without_counts(name: str, what: str) -> None:
    """Say what a loss of this name is without class counts; called from its ``__post_init__``."""
    warnings.warn(
        f"{name} without class_counts takes all classes for equally frequent: {what}. Give class_counts=, in the "
        "order of the classes (numpy.bincount of the training labels)",
        NoCountsWarning,
        stacklevel=4,
    )


def log_shares(values: Float) -> Float:
    """log of the values divided by their sum."""
    return np.asarray(np.log(values / values.sum()))
