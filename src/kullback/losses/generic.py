"""What a loss means, found numerically: for losses without a formula of their own.

All of it rests on one property: a loss that is linear in its targets has an expected loss under the truth p that is
simply its value on the soft target p. `kullback.testing.check_loss` checks that property.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from kullback.errors import InfiniteLossWarning, NotConvergedWarning
from kullback.losses.base import Float, Loss
from kullback.targets import ClassIndices, ClassRows, LabelRows


def best_class_logits(loss: Loss, mass: Float, *, start: Float | None = None, tolerance: float = 1e-11) -> Float:
    """Logits (C,) that minimise the loss on one soft target `mass` (C,), by Newton's method with damping.

    A local search: for a loss that is not convex it finds the minimum next to `start`. The gradient ends below
    `tolerance` times the mass, or where floating point ends.

    Warns:
        NotConvergedWarning: with the gradient reached, if that is above 1e-6 times the mass.
    """
    held = mass > 0
    if loss.link == "softmax" and start is None and held.any() and not held.all():
        masked = np.where(held, 0.0, -np.inf)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InfiniteLossWarning)  # smoothing leaves mass on every class
            possible = np.isfinite(loss(masked[None, :], ClassRows(mass[None, :]), reduction="sum"))
        if possible:
            z = _search(loss, mass, masked, tolerance)
            if _nothing_to_gain(loss, mass, z):
                return z
    return _search(loss, mass, np.zeros(len(mass)) if start is None else start.copy(), tolerance)


def _nothing_to_gain(loss: Loss, mass: Float, z: Float) -> bool:
    """Whether the masked classes of z (C,) are better left masked: a little probability for one of them costs."""
    masked = np.flatnonzero(np.isneginf(z))
    tried = np.tile(z, (len(masked) + 1, 1))
    tried[np.arange(len(masked)), masked] = z.max() - 16.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InfiniteLossWarning)
        values = loss(tried, ClassRows(np.tile(mass, (len(tried), 1))), reduction="none")
    return bool(np.isfinite(values[-1]) and (values[:-1] > values[-1]).all())


def _search(loss: Loss, mass: Float, z: Float, tolerance: float) -> Float:
    """The minimum next to z (C,), whose masked classes stay masked."""
    n_classes, total = len(mass), float(mass.sum())
    target, targets = ClassRows(mass[None, :]), ClassRows(np.broadcast_to(mass, (n_classes, n_classes)))
    value, gradient = loss.value_and_gradient(z[None, :], target, reduction="sum")
    gradient = gradient[0]
    damping = 1e-8 * total
    for _ in range(200):
        if not np.abs(gradient).max(initial=0.0) > tolerance * total:
            break
        hessian = loss.hessian_product(
            np.broadcast_to(z, (n_classes, n_classes)), targets, np.eye(n_classes), reduction="none"
        )
        bends, axes = np.linalg.eigh(0.5 * (hessian + hessian.T))
        pull = axes.T @ gradient
        for _ in range(30):
            step = -axes @ (pull / (np.abs(bends) + damping))
            step *= min(1.0, 10.0 / max(np.abs(step).max(), 1e-300))
            value_, gradient_ = loss.value_and_gradient((z + step)[None, :], target, reduction="sum")
            if value_ <= value + 1e-15 * abs(value) and np.isfinite(gradient_).all():
                break
            damping *= 10
        else:
            break
        z, value, gradient, damping = z + step, value_, gradient_[0], damping * 0.1
    _warn_unless_small(loss, float(np.abs(gradient).max(initial=0.0)), 1e-6 * total)
    return z


def best_label_logits(loss: Loss, labels: Float) -> Float:
    """Logits (N, C) that minimise the loss on soft labels (N, C), by bisection on the sign of the gradient."""
    return _bisected(labels.shape, lambda z: loss.value_and_gradient(z, LabelRows(labels), reduction="none")[1])


def best_label_constant(loss: Loss, targets: LabelRows, sample_weight: ArrayLike | None) -> Float:
    """The row of logits (C,) that minimises the loss summed over all rows: where a label's rows are not all known."""

    def pull(z: Float) -> Float:
        logits = np.broadcast_to(z, targets.rows.shape)
        _, gradient = loss.value_and_gradient(logits, targets, sample_weight=sample_weight, reduction="sum")
        return np.asarray(gradient.sum(axis=0))

    return _bisected(targets.rows.shape[1:], pull)


def _bisected(shape: tuple[int, ...], gradient: Callable[[Float], Float]) -> Float:
    """Where gradients that rise, each in its own entry, change sign; 0 for those that are 0 throughout."""
    low, high = np.full(shape, -800.0), np.full(shape, 800.0)
    flat = (gradient(low) == 0) & (gradient(high) == 0) & (gradient(np.zeros(shape)) == 0)
    for _ in range(64):
        middle = 0.5 * (low + high)
        below = gradient(middle) < 0
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.where(flat, 0.0, 0.5 * (low + high))


def true_classes(loss: Loss, logits: Float) -> Float:
    """The distributions (N, C) under which these logits (N, C) are stationary: Σ_y p_y·∇L_y = 0, Σp = 1.

    For losses that a constant added to a row does not change, so that gradients sum to 0 over the classes: the
    equations become (Gᵀ + 11ᵀ)·p = 1 with the rows of G the gradients of each class.
    """
    n_classes = logits.shape[1]
    truth = np.zeros(logits.shape)
    for i, row in enumerate(logits):
        # a class that is masked holds nothing: with mass it would cost infinitely much
        held = np.flatnonzero(~np.isneginf(row)) if not np.isneginf(row).all() else np.arange(n_classes)
        rows = np.broadcast_to(row, (len(held), n_classes))
        _, pulls = loss.value_and_gradient(rows, ClassIndices(held), reduction="none")
        if not np.isfinite(pulls).all():  # LAPACK would print, and go on
            truth[i] = np.nan
            continue
        solution, *_ = np.linalg.lstsq(pulls[:, held].T + 1.0, np.ones(len(held)), rcond=None)
        truth[i, held] = np.maximum(solution, 0.0)
    return np.asarray(truth / truth.sum(axis=1, keepdims=True))


def true_labels(loss: Loss, logits: Float) -> Float:
    """The label probabilities (N, C) under which these logits are stationary: p·∇on + (1 − p)·∇off = 0."""
    _, on = loss.value_and_gradient(logits, LabelRows(np.ones(logits.shape)), reduction="none")
    _, off = loss.value_and_gradient(logits, LabelRows(np.zeros(logits.shape)), reduction="none")
    # a certainty has no slope left to tell more than that it is one
    return np.where(off - on > 0, off / np.where(off - on > 0, off - on, 1.0), (logits > 0).astype(np.float64))


def _warn_unless_small(loss: Loss, gradient: float, limit: float) -> None:
    if gradient > limit:
        warnings.warn(
            f"the minimum of {loss} was found only to a gradient of {gradient:.1e} a unit of target mass; the loss "
            "may have a kink there, or its gradient may not be that of its value",
            NotConvergedWarning,
            stacklevel=3,
        )
