"""From one loss per row to one number: which rows count, what the mean divides by, what an empty batch means."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

from kullback.errors import InputError
from kullback.kernels.recipe import TargetSummary

Reduction: TypeAlias = Literal["mean", "sum", "none"]
Denominator: TypeAlias = Literal["weights", "examples"]
Empty: TypeAlias = Literal["error", "nan", "zero"]


def check_choice(name: str, value: object, choices: object) -> None:
    """Refuse a value outside a Literal type, naming the argument and the choices."""
    allowed = get_args(choices)
    if value not in allowed:
        raise InputError(f"{name}={value!r} is not known; choose one of {', '.join(map(repr, allowed))}")


def denominator_of(summary: TargetSummary, denominator: Denominator) -> float:
    """What the mean divides by.

    ``"weights"``: Σ over counted rows of sample weight × the row's class weight, so that multiplying all weights by a
    constant changes nothing (PyTorch's and scikit-learn's weighted mean). ``"examples"``: the number of counted rows,
    so that weights scale the value (Keras' and optax' convention).
    """
    return summary.weight if denominator == "weights" else float(summary.counted)


def empty_value(empty: Empty) -> float:
    """The mean over no rows.

    Raises:
        InputError: if `empty` is ``"error"``.
    """
    if empty == "error":
        raise InputError(
            "no row counts: the batch is empty, or every row is ignored or has weight 0; "
            'pass empty="nan" or empty="zero" if that is expected'
        )
    return math.nan if empty == "nan" else 0.0
