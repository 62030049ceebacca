"""The scalars of a row-coupled cross-entropy, and the choices of a reduction, checked once where users pass them."""

from __future__ import annotations

import math
import numbers
from typing import Any, NamedTuple

from torch import Tensor

from kullback.torch.errors import ChoiceError, SettingError, TensorKindError

REDUCTIONS = ("mean", "sum", "none")
DENOMINATORS = ("weights", "examples")
EMPTY = ("nan", "zero", "error")


class RowSettings(NamedTuple):
    """What one row's loss depends on besides logits, target and class weights.

    With x = softcap(z) / T and S = Σs the loss is Σ_k −s_k·log softmax(x)_k + S·z_loss·logsumexp(x)².

    Attributes:
        smoothing: ε in [0, 1].
        temperature: T > 0.
        softcap: c > 0 bounds the logits through c·tanh(z / c), −inf staying −inf; 0 leaves them as they are.
        z_loss: λ >= 0, the weight of the squared log-sum-exp (PaLM, Chowdhery et al. 2022, §5).
        ignore_index: class index of rows that do not count, or None.
        by_mass: whether smoothing gives each class Σt·ε/C, a row's own total, as Kullback's losses do; PyTorch gives
            ε/C whatever a soft row sums to, and takes entries below 0. For distributions the two agree.
    """

    smoothing: float = 0.0
    temperature: float = 1.0
    softcap: float = 0.0
    z_loss: float = 0.0
    ignore_index: int | None = -100
    by_mass: bool = False


def row_settings(
    label_smoothing: float, temperature: float, softcap: float | None, z_loss: float, ignore_index: int | None
) -> RowSettings:
    """Check a user's settings.

    Raises:
        SettingError: for one outside its range.
        TensorKindError: for one that is no number.
    """
    scalars = {"label_smoothing": label_smoothing, "temperature": temperature, "softcap": softcap, "z_loss": z_loss}
    for name, value in scalars.items():
        known = type(value) is float or isinstance(value, (numbers.Real, Tensor))  # abstract classes answer slowly
        if not known and not (name == "softcap" and value is None):
            raise TensorKindError(f"{name} must be a number, not {type(value).__name__}")
    if ignore_index is not None and type(ignore_index) is not int and not isinstance(ignore_index, numbers.Integral):
        raise TensorKindError(f"ignore_index must be an integer, not {type(ignore_index).__name__}")
    if ignore_index is not None and not -(2**63) <= ignore_index < 2**63:
        raise ChoiceError(f"ignore_index must fit in 64 bits. Got: {ignore_index}")
    if not 0.0 <= label_smoothing <= 1.0:
        raise SettingError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    if not 0.0 < temperature < math.inf:
        raise SettingError(f"temperature must be a finite number above 0. Got: {temperature}")
    if softcap is not None and not 0.0 < softcap < math.inf:
        raise SettingError(f"softcap must be a finite number above 0, or None. Got: {softcap}")
    if not 0.0 <= z_loss < math.inf:
        raise SettingError(f"z_loss must be a finite number of at least 0. Got: {z_loss}")
    return RowSettings(label_smoothing, temperature, softcap or 0.0, z_loss, ignore_index)


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuse an unknown option, in PyTorch's words.

    Raises:
        ChoiceError: if `value` is not one of `choices`.
    """
    if value not in choices:
        raise ChoiceError(f"{value} is not a valid value for {name}; choose one of {', '.join(map(repr, choices))}")


def legacy_reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """PyTorch's deprecated pair of flags, which override `reduction` where either is given."""
    if size_average is None and reduce is None:
        return reduction
    if reduce is False:
        return "none"
    return "sum" if size_average is False else "mean"
