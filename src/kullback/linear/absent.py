"""Classes that no example counts for.

Where every example of a class has weight zero, nothing holds the class's intercept: the loss falls for ever as it
does, towards that of the other classes by themselves. There the class's weights are zero, for the penalty's sake, and
under a smooth penalty those of the others have mean zero over the classes; so in every row, seen or not, the mean of
the others' logits is the mean of their intercepts, and the largest of them no less. An intercept that lies `FAR_BELOW`
under that mean leaves the class no probability that float64 could add to another, whatever the columns hold: a fit
that starts there starts where that class ends.

That is so of every convex loss that sees the logits by their softmax alone: cross-entropies, poly-1, LDAM.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kullback.losses import Loss
from kullback.losses.softmax_loss import SoftmaxLoss
from kullback.targets import ClassIndices, ClassMixture, ClassRows, Targets, counted_rows

Vector: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]
Parameters: TypeAlias = tuple[Vector, Vector]

# In log-probabilities: a probability of at most 2e-22.
FAR_BELOW = 50.0
# A share of the whole target mass that is as good as none.
NO_MASS = 1e-20


def absent_classes(loss: Loss, targets: Targets, n_outputs: int, row_weight: Vector | None) -> Mask | None:
    """Which classes hold no target mass to speak of, (C,); None where all do, or for other losses than the module's.

    Args:
        loss: with class weights in it.
        targets: of N rows, checked already.
        n_outputs: C.
        row_weight: (N,) or None for all ones.

    >>> from kullback import CrossEntropy
    >>> absent_classes(CrossEntropy(), ClassIndices(np.array([0, 1, 2])), 3, np.array([1.0, 0.0, 2.0]))
    array([False,  True, False])
    """
    if not isinstance(loss, SoftmaxLoss) or not loss.convex:
        return None
    assert isinstance(targets, ClassIndices | ClassRows | ClassMixture)
    weight = np.ones(len(targets)) if row_weight is None else row_weight
    counted = counted_rows(targets, row_weight, loss.ignore_index)
    if not counted.all():
        targets, weight = targets[counted], weight[counted]
    mass = loss._effective(targets.class_mass(n_outputs, weight))
    absent = mass <= NO_MASS * mass.sum()
    return absent if absent.any() else None


def ruled_out(parameters: Parameters, absent: Mask, loss: Loss, *, centred: bool) -> Parameters:
    """Weights (d, C) and intercepts (C,) to start from that leave absent classes next to no probability.

    Args:
        parameters: weights and intercepts; what they make of the other classes among themselves is kept.
        absent: (C,).
        loss: what is minimised.
        centred: whether the weights are to have mean zero over the classes, as a smooth penalty wants them.
    """
    weights, intercept = (part.copy() for part in parameters)
    weights[:, absent] = 0.0
    if centred:
        weights[:, ~absent] -= weights[:, ~absent].mean(axis=1, keepdims=True)
    assert isinstance(loss, SoftmaxLoss)
    temperature, offset = loss.temperature, loss._offset(len(absent))
    shift = np.zeros(len(absent)) if offset is None else offset
    # Margins of LDAM lower the other classes where they are the target.
    margins = loss._shift(len(absent))
    level = float((intercept / temperature + shift)[~absent].mean()) - (0.0 if margins is None else margins.max())
    intercept[absent] = temperature * (level - FAR_BELOW - shift[absent])
    return weights, intercept
