"""What a loss hands to a kernel: plain numbers and arrays, no methods.

A loss object knows the mathematics of one loss; a kernel knows how to run a whole family of them over rows. The
recipe is the narrow waist between the two, and is the same for every backend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class SoftmaxRecipe:
    """A row-coupled loss on softmax(logits / temperature).

    With target mass t, class weights w and smoothing ε over C classes, a row's effective target is
    s_k = w_k·((1 − ε)·t_k + Σt·ε/C).

    Attributes:
        family: which row function to run; ``"cross_entropy"`` is Σ_k −s_k·log p_k.
        parameters: the family's own scalars, in its documented order.
        smoothing: ε in [0, 1].
        temperature: T > 0; logits are divided by it, and gradients carry its factor 1/T.
        class_weight: (C,) float64, non-negative, or None for all ones.
    """

    family: str = "cross_entropy"
    parameters: tuple[float, ...] = ()
    smoothing: float = 0.0
    temperature: float = 1.0
    class_weight: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class SigmoidRecipe:
    """An element-by-element loss on sigmoid(logits / temperature), summed over a row's labels.

    With t' = (1 − ε)·t + ε/2, positive weight π_k and label weight w_k, ``"binary_cross_entropy"`` is
    Σ_k w_k·(π_k·t'_k·softplus(−z_k) + (1 − t'_k)·softplus(z_k)).

    Attributes:
        family: which element function to run.
        parameters: the family's own scalars.
        smoothing: ε in [0, 1].
        temperature: T > 0.
        positive_weight: (C,) float64, non-negative, or None for all ones.
        class_weight: (C,) float64, non-negative, or None for all ones.
    """

    family: str = "binary_cross_entropy"
    parameters: tuple[float, ...] = ()
    smoothing: float = 0.0
    temperature: float = 1.0
    positive_weight: NDArray[np.float64] | None = None
    class_weight: NDArray[np.float64] | None = None


class TargetSummary(NamedTuple):
    """What the targets alone say before any logit is read.

    counted: rows that count (row weight not zero, target not ignored).
    weight: Σ over counted rows of row weight × the row's mean class weight, the weighted mean's denominator.
    """

    counted: int
    weight: float


class Evaluation(NamedTuple):
    """One pass over the logits.

    total: Σ over rows of row weight × loss, in float64, before any scale.
    infinite_row: the first row whose loss is +inf, or −1.
    """

    total: float
    infinite_row: int


Array = NDArray[Any]
