"""What a loss hands to a kernel: plain numbers and arrays, no methods.

A loss object knows the mathematics of one loss; a kernel knows how to run a whole family of them over rows. The
recipe is the narrow waist between the two, and is the same for every backend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class SoftmaxRecipe:
    """A row-coupled loss on p = softmax(u), u = softcap(logits) / temperature + offset.

    With target mass t, class weights w and smoothing ε over C classes, a row's effective target is
    s_k = w_k·((1 − ε)·t_k + Σt·ε/C), and its loss, with S = Σs,

        Σ_k [ s_k·on(o_k) + (S − s_k)·off(o_k) ] + S·λ·(log Σ_k exp u_k)²

    for the functions on and off of the log-odds o_k = log(p_k / (1 − p_k)) that `kullback.kernels.elements` lists by
    family. It is linear in the target: a soft row costs what its classes cost on average.

    Attributes:
        family: a key of `elements.SOFTMAX_FAMILIES`; ``"cross_entropy"`` is Σ_k −s_k·log p_k.
        parameters: the family's own scalars, in its documented order.
        smoothing: ε in [0, 1].
        temperature: T > 0; logits are divided by it, and gradients carry its factor 1/T.
        class_weight: (C,) float64, non-negative, or None for all ones.
        shift: (C,) float64 the family's own number per class (LDAM's margins), or None.
        offset: (C,) float64 added to the scaled logits (logit adjustment), or None.
        softcap: c > 0: logits become c·tanh(logit / c), but −inf stays −inf; None for none.
        z_loss: λ ≥ 0.
        divergence: whether Σ_k s_k·log(s_k / S) is added to a row's loss, which makes cross-entropy the
            Kullback–Leibler divergence from the target; only that family has it.
    """

    family: str = "cross_entropy"
    parameters: tuple[float, ...] = ()
    smoothing: float = 0.0
    temperature: float = 1.0
    class_weight: NDArray[np.float64] | None = None
    shift: NDArray[np.float64] | None = None
    offset: NDArray[np.float64] | None = None
    softcap: float | None = None
    z_loss: float = 0.0
    divergence: bool = False


@dataclass(frozen=True, eq=False)
class SigmoidRecipe:
    """An element-by-element loss on sigmoid(logits / temperature), summed over a row's labels.

    With t' = (1 − ε)·t + ε/2, positive weight π_k and label weight w_k, a row's loss is
    Σ_k w_k·(π_k·t'_k·on(z_k) + (1 − t'_k)·off(z_k)), with on and off of the family in `kullback.kernels.elements`;
    ``"binary_cross_entropy"`` is Σ_k w_k·(π_k·t'_k·softplus(−z_k) + (1 − t'_k)·softplus(z_k)).

    Attributes:
        family: a key of `elements.SIGMOID_FAMILIES`.
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


@dataclass(frozen=True, eq=False)
class MarginRecipe:
    """A hinge on the differences of logits, linear in the target: Σ_y w_y·t_y·L_y(z).

    With h(x) = max(0, x)^power and d_k = margin + z_k − z_y, L_y is Σ_{k≠y} h(d_k) for ``"weston_watkins"`` and
    max_{k≠y} h(d_k) for ``"crammer_singer"``. At a kink the derivative is that of the flat side, and of equal
    rivals the first one counts.

    Attributes:
        family: ``"weston_watkins"`` or ``"crammer_singer"``.
        margin: Δ > 0.
        power: 1 for the hinge, 2 for the squared hinge.
        class_weight: (C,) float64, non-negative, or None for all ones.
    """

    family: str = "weston_watkins"
    margin: float = 1.0
    power: int = 1
    class_weight: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class PlainRecipe:
    """A loss of a row's numbers x as they are, with no softmax of theirs taken first.

    With the effective target s of `SoftmaxRecipe` and S its sum, a row's loss is

    - ``"negative_log_likelihood"``: −Σ_k s_k·x_k;
    - ``"cross_entropy_from_probabilities"``, with ε its parameter: −Σ_k s_k·log clip(x_k / Σx, ε, 1 − ε);
    - ``"logit_l1"``, ``"logit_l2"``: S·Σ_k |x_k|, S·½Σ_k x_k², of what is not masked; a parameter of 1 says that the
      targets are independent labels, of which every row has S = 1 and an ignored one masks its x;
    - ``"negative_entropy"``: S·Σ_k p_k·log p_k with p = softmax(x).

    Attributes:
        family: one of those.
        parameters: the family's own scalars.
        smoothing: ε of the targets, in [0, 1].
        class_weight: (C,) float64, non-negative, or None for all ones.
    """

    family: str
    parameters: tuple[float, ...] = ()
    smoothing: float = 0.0
    class_weight: NDArray[np.float64] | None = None


Recipe: TypeAlias = SoftmaxRecipe | SigmoidRecipe | MarginRecipe | PlainRecipe


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
    counted: rows that count (row weight not zero, target not ignored), or −1 where nobody looked.
    """

    total: float
    infinite_row: int
    counted: int = -1


Array = NDArray[Any]
