"""Taking label smoothing back out of reported probabilities."""

from __future__ import annotations

import numpy as np

from kullback.losses.base import Float

# Smoothing leaves nothing to tell one very small probability from another, so recovered values are held at the
# resolution of float32: a wrong certainty then costs at most about 16 nats instead of an infinity.
FLOOR = float(np.finfo(np.float32).eps)


def unsmooth(q: Float, smoothing: float, n_values: int) -> Float:
    """Invert q = (1 − ε)·p + ε/K element by element, held within [`FLOOR`, 1].

    Args:
        q: probabilities of any shape.
        smoothing: ε in [0, 1).
        n_values: K, over how many values ε was spread.
    """
    return np.clip((q - smoothing / n_values) / (1 - smoothing), FLOOR, 1.0)
