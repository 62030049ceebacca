"""Answers in the array library that the data came from, as scikit-learn's `array_api_dispatch` asks for."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from sklearn import get_config

from kullback.linear.inputs import as_numpy

Answer = TypeVar("Answer")
Estimator = TypeVar("Estimator")


def answers_in_kind(method: Callable[[Estimator, Any], Answer]) -> Callable[[Estimator, Any], Answer]:
    """Make a method of data answer in the data's own library, where ``array_api_dispatch=True`` is set.

    The work is done by NumPy, on memory that both share where the library allows it. Labels that are no numbers stay
    in NumPy, the one library that has such arrays.

    Args:
        method: takes X as NumPy and returns a NumPy array.
    """

    @functools.wraps(method)
    def of_any_library(self: Estimator, X: Any) -> Answer:
        if not get_config()["array_api_dispatch"]:
            return method(self, X)
        plain = as_numpy(X, "X")
        answer = method(self, plain)
        return answer if plain is X else like(answer, X)

    return of_any_library


def like(answer: Any, X: Any) -> Any:
    """A NumPy array in the library and on the device of another; unchanged if that library has no such arrays."""
    if hasattr(X, "__array_namespace__"):
        library = X.__array_namespace__()
    else:
        library = sys.modules.get(type(X).__module__.partition(".")[0])
    if answer.dtype.kind not in "biuf" or not hasattr(library, "asarray"):
        return answer
    return library.asarray(np.ascontiguousarray(answer), device=X.device)
