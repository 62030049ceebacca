"""The penalties of the linear models, and what of them the dual needs.

With r = `l1_ratio`, W (d, K) and its rows W_j, one row a feature:

- ``"l2"``: ½‖W‖²;
- ``"l1"``: Σ|W_jk|;
- ``"elasticnet"``: r·Σ|W_jk| + (1 − r)/2·‖W‖²;
- ``"group"``: r·Σ_j ‖W_j‖₂ + (1 − r)/2·‖W‖², which keeps or drops a feature for all classes together.

Sources: Zou & Hastie (2005), "Regularization and variable selection via the elastic net"; Yuan & Lin (2006), "Model
selection and estimation in regression with grouped variables".
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from kullback.errors import InputError
from kullback.losses import Loss

Vector = NDArray[np.float64]
PenaltyName: TypeAlias = Literal["l2", "none", "l1", "elasticnet", "group"]

# What `l1_ratio=None` stands for.
_RATIO = {"l2": 0.0, "none": 0.0, "l1": 1.0, "elasticnet": 0.5, "group": 1.0}


@dataclass(frozen=True)
class Penalty:
    """λ times a penalty, split into its two parts.

    Attributes:
        lasso: factor of Σ|W_jk|, or of Σ_j ‖W_j‖₂ if `grouped`.
        ridge: factor of ½‖W‖².
        grouped: whether the first part takes the rows' norms.
    """

    lasso: float
    ridge: float
    grouped: bool = False

    @property
    def absent(self) -> bool:
        """Whether there is none."""
        return self.lasso == 0 and self.ridge == 0

    def scaled(self, factor: float) -> Penalty:
        """The same penalty times a number."""
        return Penalty(factor * self.lasso, factor * self.ridge, self.grouped)

    def of_both(self) -> Penalty:
        """The same of both rows of weights of two classes: opposite ones, ∓w/2, then cost what w costs here."""
        return Penalty(self.lasso * (math.sqrt(2) if self.grouped else 1.0), 2 * self.ridge, self.grouped)

    def value(self, weights: Vector) -> float:
        """The penalty of (d, K) weights."""
        norms = float(self.lasso * self.sizes(weights).sum())
        return norms + 0.5 * self.ridge * float(np.vdot(weights, weights))

    def sizes(self, weights: Vector) -> Vector:
        """What the first part sums: row norms (d,), or absolute values (d, K)."""
        return np.sqrt(np.square(weights).sum(axis=1)) if self.grouped else np.abs(weights)

    def conjugate(self, slopes: Vector) -> float:
        """sup_W ⟨slopes, W⟩ − penalty(W), for (d, K); inf where a slope exceeds `lasso` and there is no ridge."""
        excess = np.maximum(self.sizes(slopes) - self.lasso, 0.0)
        if self.ridge == 0:
            return np.inf if excess.any() else 0.0
        return float(np.vdot(excess, excess)) / (2 * self.ridge)


def weight_rows(loss: Loss, n_outputs: int) -> int:
    """Of how many rows of weights (d, K) a penalty is: one of two classes whose loss minds only their difference."""
    return 1 if n_outputs == 2 and loss.target_form == "classes" and loss.ignores_level else n_outputs


def resolve_penalty(name: Any, l1_ratio: Any) -> Penalty:
    """The penalty with λ = 1, from an estimator's two settings.

    Raises:
        InputError: for an unknown penalty, a ratio outside [0, 1], or one that contradicts the penalty.
    """
    name = "none" if name is None else name  # as scikit-learn spells it
    if not isinstance(name, str) or name not in _RATIO:
        known = ", ".join(repr(each) for each in get_args(PenaltyName))
        raise InputError(f"penalty={name!r} is not known; choose one of {known}")
    if l1_ratio is None:
        ratio = _RATIO[name]
    else:
        if isinstance(l1_ratio, bool) or not isinstance(l1_ratio, numbers.Real) or not 0 <= float(l1_ratio) <= 1:
            raise InputError(f"l1_ratio={l1_ratio!r} is not valid; it must be a number from 0 to 1, or None")
        ratio = float(l1_ratio)
        if name in ("l2", "none", "l1") and ratio != _RATIO[name]:
            raise InputError(
                f"l1_ratio={l1_ratio!r} has no meaning with penalty={name!r}; leave it at None, or choose "
                "penalty='elasticnet' or penalty='group'"
            )
    if name == "none":
        return Penalty(0.0, 0.0)
    return Penalty(ratio, 1.0 - ratio, grouped=name == "group")


def resolve_searched_penalty(name: Any, l1_ratio: Any) -> Penalty:
    """The same, of an estimator that looks for its strength.

    Raises:
        InputError: also if there is no penalty, and so no strength.
    """
    penalty = resolve_penalty(name, l1_ratio)
    if penalty.absent:
        raise InputError(
            f"penalty={name!r} has no strength to choose: every C gives the same model. Choose another penalty, or fit "
            f"SoftmaxClassifier(penalty={name!r})"
        )
    return penalty
