"""How far a result may lie from the reference: the bound that the documentation promises."""

from __future__ import annotations

import numpy as np

from kullback.losses import WeightedSum
from kullback.targets import ClassIndices, ClassMixture, ClassRows


def steepness(loss):
    """How much larger than cross-entropy's the slopes and values of a loss may be."""
    steep = 1 + abs(getattr(loss, "epsilon", 0)) + max(getattr(loss, "gamma", 0), getattr(loss, "gamma_negative", 0))
    more = {"asymmetric": 2, "brier": 3, "sigmoid_brier": 2, "jensen_shannon": 2}
    return max(steep, 1 + getattr(loss, "gamma_positive", 0)) * more.get(loss.name, 1)


def mass_of(loss, targets, n_classes):
    """Each row's largest possible effective mass, (N,)."""
    heaviest = np.max(getattr(loss, "class_weight", None) or 1.0)
    if loss.target_form == "labels":
        return np.full(
            len(targets), n_classes * heaviest * max(1.0, np.max(getattr(loss, "positive_weight", None) or 1))
        )
    if isinstance(targets, ClassIndices | ClassMixture):
        return np.full(len(targets), heaviest)
    assert isinstance(targets, ClassRows)
    return heaviest * np.float64(targets.rows).clip(0).sum(axis=1)


class Bounds:
    """Bounds for the rows of one batch: `value` (N,), `gradient`, `diagonal` and `product` (N, 1).

    For the hinges, whose logits are subtracted as they are, the largest logit takes the place of the mass. Of given
    probabilities the slope is the mass over the probability, down to the clip.
    """

    def __init__(self, loss, logits, targets, row_weight, values, scale, direction_size, u):
        n_classes = logits.shape[1]
        finite = np.where(np.isfinite(logits), np.float64(np.where(np.isfinite(logits), logits, 0)), 0)
        largest = np.abs(finite).max(axis=1, initial=0.0)
        size = np.abs(np.where(np.isfinite(values), values, 0))
        if isinstance(loss, WeightedSum):
            parts = [
                Bounds(part, logits, targets, row_weight, values, scale, direction_size, u) for _, part in loss.terms
            ]
            for name in ("value", "gradient", "diagonal", "product"):
                setattr(self, name, sum(getattr(part, name) for part in parts))
            return
        mass = mass_of(loss, targets, n_classes) * row_weight
        if loss.name == "kullback_leibler":  # a difference of two entropies, each up to log C
            size = size + mass * np.log(n_classes)
        temperature = getattr(loss, "temperature", 1.0)
        steep = steepness(loss)
        grown = 1.0  # how much larger than the direction what it is multiplied with may be
        if loss.name == "negative_log_likelihood":
            self.value = 16 * u * (mass * (1 + largest) + size)
            gradient, bent = 16 * u * mass, 0.0 * mass
        elif loss.name == "cross_entropy_from_probabilities":
            total = np.maximum(finite.sum(axis=1), 1e-300)
            share = finite / total[:, None]
            lowest = np.where(share >= loss.clip, share, 1.0).min(axis=1, initial=1.0)
            self.value = 16 * u * (mass + size)
            gradient = 32 * u * mass / lowest / total
            bent, grown = gradient / lowest / total, 1.0 + n_classes
        elif loss.link == "none":
            reach = (1 + getattr(loss, "margin", 1.0) + largest) * n_classes
            slope = reach if getattr(loss, "squared", True) else 1.0
            self.value = 16 * u * mass * reach * slope + 16 * u * size
            gradient = 32 * u * mass * reach
            bent = 32 * u * mass * reach
        else:
            plain = temperature == 1 and not any(
                getattr(loss, name, None) is not None for name in ("priors", "softcap", "class_counts")
            )
            # the mass of all classes but one is a difference, which rounds like the mass of all
            if loss.name == "one_vs_rest" and (loss.class_weight is not None or loss.label_smoothing):
                plain = False
            rounded = 0.0 if plain else 4 * (1 + largest / temperature)
            level = getattr(loss, "z_loss", 0.0)
            rounded = (rounded + 8 * level * (1 + largest)) * (1 + 8 * level * (1 + largest))
            # up to 256 classes of float32 are added up sixteen at a time, and equal terms are rounded all alike
            most = 32 if logits.dtype == np.float32 and 16 < n_classes <= 256 else 16
            self.value = steep * u * (most * (mass + size) + mass * rounded)
            gradient = steep * u * mass * (most + rounded) / temperature
            bent = gradient / temperature * (1 if steep == 1 else 1 + steep)
            if getattr(loss, "softcap", None) is not None:  # the cap's own bend, times the gradient in what it gives
                bent = bent + 16 * steep * u * mass / (temperature * loss.softcap)
        tiny = 4 * np.finfo(logits.dtype).tiny
        self.value = self.value + tiny
        self.gradient = (scale * gradient + tiny)[:, None]
        self.diagonal = (scale * bent + tiny)[:, None]
        self.product = (4 * scale * bent * grown * max(direction_size, 1e-300) + tiny)[:, None]


def agree(ours, truth, bound):
    """Whether they agree within the bound, with NaN and infinities at the same places."""
    ours = np.asarray(ours, np.float64)
    close = np.abs(ours - truth) <= bound
    return bool((close | (ours == truth) | (np.isnan(ours) & np.isnan(truth))).all())
