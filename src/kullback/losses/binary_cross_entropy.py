"""Binary cross-entropy over independent labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kullback.losses.sigmoid_loss import SigmoidLoss


@dataclass(frozen=True)
class BinaryCrossEntropy(SigmoidLoss):
    """Cross-entropy of each label on its own: several may hold at once, in nats.

    With σ the sigmoid, z = logits / T and t' = (1 − ε)·t + ε/2, a label costs
    w_k·(−π_k·t'·log σ(z) − (1 − t')·log σ(−z)), where the positive weight π makes misses dearer than false alarms
    (``pos_weight`` in PyTorch). A row's loss is the mean over its labels, which agrees with PyTorch and Keras and
    starts at log 2, or their sum, the joint log-likelihood of independent labels.

    One-of-k labels do not belong here: with C classes a model that always says "absent" is right on a share
    1 − 1/C of the entries, and looks good. Use `CrossEntropy` for them.

    Its minimiser reports odds π times the (smoothed) true odds; `recover` undoes that.

    Args:
        positive_weight: (C,) π, finite and above 0, or None for all ones.
        class_weight: (C,) weight of each label, finite and non-negative, or None for all ones.
        label_smoothing: ε in [0, 1).
        temperature: T > 0, divides the logits.
        ignore_index: entries with this value do not count (unknown labels), or None. The mean is then over the
            labels of the row that count.
        label_reduction: ``"mean"`` or ``"sum"`` over a row's labels.

    Raises:
        InputError: for a setting outside its range.

    >>> import numpy as np
    >>> loss = BinaryCrossEntropy()
    >>> round(loss(np.zeros((2, 3)), [[1, 0, 1], [0, 0, 0]]), 4)  # log 2
    0.6931
    """

    name: ClassVar[str] = "binary_cross_entropy"
    family: ClassVar[str] = "binary_cross_entropy"
    truthful: ClassVar[bool] = True

    @property
    def convex(self) -> bool:
        """True: a sum of softplus functions."""
        return True
