"""The specification: every kernel in plain NumPy, float64 inside, no tricks but stability.

Other backends are tested against this module, and this module against 50-digit arithmetic. Rows that do not count
(weight zero, or an ignored target) are taken out before any arithmetic, so their logits are never looked at.

A softmax-family loss of one row is Σ_k f(ℓ_k, s_k), with ℓ = log softmax(z / T) and s the effective target of
`SoftmaxRecipe`. Writing f' and f'' for derivatives in ℓ, and using ∂ℓ_k/∂z_j = (δ_kj − p_j)/T:

    gradient:        g = (f' − p·Σf') / T
    Hessian product: with δ = v − p·v,  Hv = (f''∘δ − p·Σ(f''∘δ) − (p∘δ)·Σf') / T²
    its diagonal:    (f''_j(1 − 2p_j) + p_j²·Σf'' − p_j(1 − p_j)·Σf') / T²

A loss is then the three element-wise functions f, f', f'' of its family.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kullback.errors import InputError, ShapeError, TargetError
from kullback.kernels.recipe import Array, Evaluation, SigmoidRecipe, SoftmaxRecipe, TargetSummary
from kullback.targets import ClassIndices, ClassRows, ClassTargets, LabelRows, counted_rows

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Element = Callable[[Float, Float, tuple[float, ...]], Float]


class Family(NamedTuple):
    """A loss as an element-wise function and its first two derivatives in its first argument."""

    value: Element
    first: Element
    second: Element


def _times_log(mass: Float, log_p: Float) -> Float:
    """mass·log p with 0·(−inf) = 0: a masked class without mass costs nothing."""
    return np.where(mass == 0, 0.0, mass * np.where(mass == 0, 0.0, log_p))


SOFTMAX_FAMILIES = {
    "cross_entropy": Family(
        value=lambda log_p, s, _: -_times_log(s, log_p),
        first=lambda log_p, s, _: -s,
        second=lambda log_p, s, _: np.zeros_like(s),
    ),
}


# ---------------------------------------------------------------- softmax


def softmax_targets(
    targets: ClassTargets,
    n_classes: int,
    *,
    row_weight: Array | None = None,
    class_weight: Array | None = None,
    ignore_index: int | None = None,
) -> TargetSummary:
    """Check class targets against the number of classes and sum their weights.

    Args:
        targets: any class target form over N rows.
        n_classes: C.
        row_weight: (N,) or None for all ones.
        class_weight: (C,) or None for all ones.
        ignore_index: rows with this class do not count (index targets only).

    Raises:
        TargetError: if a counted row's class is outside [0, C).
    """
    counts = counted_rows(targets, row_weight, ignore_index)
    weight = np.ones(len(targets)) if row_weight is None else np.asarray(row_weight, dtype=np.float64)
    _check_range(targets, n_classes, counts)
    if class_weight is None:
        return TargetSummary(int(counts.sum()), float(weight[counts].sum()))
    mass = targets[counts].dense(n_classes)
    total = mass.sum(axis=1)
    row_class_weight = np.divide(mass @ class_weight, total, out=np.ones_like(total), where=total > 0)
    return TargetSummary(int(counts.sum()), float((weight[counts] * row_class_weight).sum()))


def softmax_evaluate(
    recipe: SoftmaxRecipe,
    logits: Array,
    targets: ClassTargets,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    per_example: Array | None = None,
    gradient: Array | None = None,
) -> Evaluation:
    """Loss of every row and, if asked for, its gradient.

    Args:
        recipe: the loss.
        logits: (N, C) float32 or float64.
        targets: N class targets.
        row_weight: (N,) multiplies each row's loss and gradient; None for all ones.
        ignore_index: class index of rows that do not count.
        scale: multiplies the gradient only.
        per_example: (N,) receives row_weight·loss.
        gradient: (N, C) receives scale·row_weight·∂loss/∂logits; may be the logits' own array.

    Raises:
        TargetError: for a class out of range or a soft target that is negative or not finite.
    """
    rows = _SoftmaxRows(recipe, logits, targets, row_weight, ignore_index)
    family = SOFTMAX_FAMILIES[recipe.family]
    losses = rows.weight * rows.clean(family.value(rows.log_p, rows.s, recipe.parameters).sum(axis=1))
    if gradient is not None:
        first = family.first(rows.log_p, rows.s, recipe.parameters)
        g = (first - rows.p * first.sum(axis=1, keepdims=True)) / recipe.temperature
        rows.write(gradient, g, scale)
    return rows.evaluation(losses, per_example)


def softmax_hessian_product(
    recipe: SoftmaxRecipe,
    logits: Array,
    targets: ClassTargets,
    direction: Array,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    out: Array,
) -> None:
    """Write scale·row_weight·(∂²loss/∂logits²)·direction, row by row, into `out` (N, C)."""
    rows = _SoftmaxRows(recipe, logits, targets, row_weight, ignore_index)
    family = SOFTMAX_FAMILIES[recipe.family]
    first = family.first(rows.log_p, rows.s, recipe.parameters)
    second = family.second(rows.log_p, rows.s, recipe.parameters)
    v = np.asarray(direction, dtype=np.float64)[rows.counts]
    delta = v - (rows.p * v).sum(axis=1, keepdims=True)
    bent = second * delta
    product = bent - rows.p * bent.sum(axis=1, keepdims=True)
    product -= rows.p * delta * first.sum(axis=1, keepdims=True)
    rows.write(out, product / recipe.temperature**2, scale)


def softmax_hessian_diagonal(
    recipe: SoftmaxRecipe,
    logits: Array,
    targets: ClassTargets,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    out: Array,
) -> None:
    """Write scale·row_weight·∂²loss/∂logits_j² into `out` (N, C)."""
    rows = _SoftmaxRows(recipe, logits, targets, row_weight, ignore_index)
    family = SOFTMAX_FAMILIES[recipe.family]
    first = family.first(rows.log_p, rows.s, recipe.parameters).sum(axis=1, keepdims=True)
    second = family.second(rows.log_p, rows.s, recipe.parameters)
    p = rows.p
    diagonal = second * (1 - 2 * p) + p**2 * second.sum(axis=1, keepdims=True) - p * (1 - p) * first
    rows.write(out, diagonal / recipe.temperature**2, scale)


def softmax_probabilities(logits: Array, *, temperature: float = 1.0, log: bool = False, out: Array) -> None:
    """Write softmax(logits / temperature), or its logarithm, into `out` (N, C)."""
    out[...] = _log_softmax(np.asarray(logits, dtype=np.float64) / temperature)[0 if log else 1]


def _log_softmax(z: Float) -> tuple[Float, Float]:
    """Log-probabilities and probabilities of rows of scaled logits.

    The largest logit is left out of the sum and log1p puts it back: for a confident row log Σexp would round
    1 + tiny to 1 and lose the loss altogether.
    """
    n, n_classes = z.shape
    if n == 0 or n_classes == 0:
        return z.copy(), z.copy()
    row = np.arange(n)
    top = np.argmax(np.where(np.isnan(z), np.inf, z), axis=1)
    largest = z[row, top]
    masked = np.isneginf(largest)  # every class masked: no probability to hand out
    with np.errstate(invalid="ignore"):
        shifted = z - np.where(masked, 0.0, largest)[:, None]
    e = np.exp(shifted)
    others = e.copy()
    others[row, top] = 0.0
    rest = others.sum(axis=1)
    log_p = shifted - np.log1p(rest)[:, None]
    p = e / (1.0 + rest)[:, None]
    return log_p, p


class _SoftmaxRows:
    """The counted rows of one call: probabilities, effective targets and weights in float64."""

    def __init__(
        self,
        recipe: SoftmaxRecipe,
        logits: Array,
        targets: ClassTargets,
        row_weight: Array | None,
        ignore_index: int | None,
    ) -> None:
        n_classes = logits.shape[1]
        self.counts = counted_rows(targets, row_weight, ignore_index)
        _check_range(targets, n_classes, self.counts)
        self.weight = _weights(row_weight, self.counts)
        z = np.asarray(logits, dtype=np.float64)[self.counts] / recipe.temperature
        self.log_p, self.p = _log_softmax(z)
        self.spoilt = np.isnan(self.log_p).any(axis=1)
        mass = targets[self.counts].dense(n_classes)
        total = mass.sum(axis=1, keepdims=True)
        self.s = (1 - recipe.smoothing) * mass + recipe.smoothing / max(n_classes, 1) * total
        if recipe.class_weight is not None:
            self.s *= recipe.class_weight

    def clean(self, values: Float) -> Float:
        """A row with a NaN or +inf logit says NaN even if a zero target would have hidden it."""
        return np.where(self.spoilt, np.nan, values)

    def write(self, out: Array, values: Float, scale: float) -> None:
        values = np.where(self.spoilt[:, None], np.nan, values)
        out[~self.counts] = 0
        out[self.counts] = scale * self.weight[:, None] * values

    def evaluation(self, losses: Float, per_example: Array | None) -> Evaluation:
        return _evaluation(losses, self.counts, per_example)


def _weights(row_weight: Array | None, counts: Bool) -> Float:
    if row_weight is None:
        return np.ones(int(counts.sum()))
    return np.asarray(row_weight, dtype=np.float64)[counts]


def _check_range(targets: ClassTargets, n_classes: int, counts: Bool) -> None:
    if isinstance(targets, ClassRows):
        if targets.rows.shape[1] != n_classes:
            raise ShapeError(f"soft targets have {targets.rows.shape[1]} columns, the logits {n_classes}")
        rows = targets.rows
        bad = counts[:, None] & ~((rows >= 0) & np.isfinite(rows))
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            raise soft_target_error(row, column, rows[row, column])
        return
    vectors = [targets.indices] if isinstance(targets, ClassIndices) else [targets.first, targets.second]
    for indices in vectors:
        bad = counts & ((indices < 0) | (indices >= n_classes))
        if bad.any():
            row = int(np.argmax(bad))
            raise class_range_error(row, int(indices[row]), n_classes)


def class_range_error(row: int, value: int, n_classes: int) -> TargetError:
    """The error every backend raises for a class index out of range."""
    return TargetError(f"row {row}: target {value} is not a class; valid indices are 0 to {n_classes - 1}")


def soft_target_error(row: int, column: int, value: float) -> TargetError:
    """The error every backend raises for a bad entry of a soft target row."""
    return TargetError(
        f"row {row}, column {column}: soft target {value} is not valid; entries must be finite and at least 0"
    )


def label_error(row: int, column: int, value: float) -> TargetError:
    """The error every backend raises for a bad entry of a multi-label target row."""
    return TargetError(
        f"row {row}, column {column}: label target {value} is not valid; entries must lie between 0 and 1"
    )


def _evaluation(losses: Float, counts: Bool, per_example: Array | None) -> Evaluation:
    if per_example is not None:
        per_example[~counts] = 0
        per_example[counts] = losses
    infinite = np.flatnonzero(counts)[np.isposinf(losses)]
    return Evaluation(float(losses.sum()), int(infinite[0]) if len(infinite) else -1)


# ---------------------------------------------------------------- sigmoid


def _softplus(z: Float) -> Float:
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def _sigmoid(z: Float) -> Float:
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, e) / (1.0 + e)


def sigmoid_targets(
    targets: LabelRows, *, row_weight: Array | None = None, ignore_index: int | None = None
) -> TargetSummary:
    """Count the rows that count and sum their weights; the entries are checked by `sigmoid_evaluate`.

    A row counts if its weight is not zero and, where `ignore_index` is given, at least one entry is not ignored.
    """
    counts = counted_rows(targets, row_weight, None)
    if ignore_index is not None:
        counts &= (targets.rows != ignore_index).any(axis=1)
    return TargetSummary(int(counts.sum()), float(_weights(row_weight, counts).sum()))


def sigmoid_evaluate(
    recipe: SigmoidRecipe,
    logits: Array,
    targets: LabelRows,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    per_example: Array | None = None,
    gradient: Array | None = None,
) -> Evaluation:
    """Loss of every row, summed over its labels, and, if asked for, its gradient.

    Args:
        recipe: the loss.
        logits: (N, C) float32 or float64.
        targets: N rows of labels in [0, 1].
        row_weight: (N,) multiplies each row's loss and gradient; None for all ones.
        ignore_index: entries equal to it do not count.
        scale: multiplies the gradient only.
        per_example: (N,) receives row_weight·loss.
        gradient: (N, C) receives scale·row_weight·∂loss/∂logits; may be the logits' own array.

    Raises:
        TargetError: for an entry outside [0, 1].
    """
    rows = _SigmoidRows(recipe, logits, targets, row_weight, ignore_index)
    # 0·softplus(inf) is 0: a label that is certainly absent may have logit −inf
    on = _times_log(rows.on, _softplus(-rows.z))
    off = _times_log(rows.off, _softplus(rows.z))
    losses = rows.weight * rows.clean(on + off).sum(axis=1)
    if gradient is not None:
        g = (rows.off * _sigmoid(rows.z) - rows.on * _sigmoid(-rows.z)) / recipe.temperature
        rows.write(gradient, g, scale)
    return _evaluation(losses, rows.counts, per_example)


def sigmoid_hessian_product(
    recipe: SigmoidRecipe,
    logits: Array,
    targets: LabelRows,
    direction: Array,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    out: Array,
) -> None:
    """Write scale·row_weight·(∂²loss/∂logits²)·direction into `out` (N, C); the Hessian is diagonal."""
    rows = _SigmoidRows(recipe, logits, targets, row_weight, ignore_index)
    rows.write(out, rows.curvature() * np.asarray(direction, dtype=np.float64)[rows.counts], scale)


def sigmoid_hessian_diagonal(
    recipe: SigmoidRecipe,
    logits: Array,
    targets: LabelRows,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    out: Array,
) -> None:
    """Write scale·row_weight·∂²loss/∂logits_k² into `out` (N, C)."""
    rows = _SigmoidRows(recipe, logits, targets, row_weight, ignore_index)
    rows.write(out, rows.curvature(), scale)


def sigmoid_probabilities(logits: Array, *, temperature: float = 1.0, log: bool = False, out: Array) -> None:
    """Write sigmoid(logits / temperature), or its logarithm, into `out` (N, C)."""
    z = np.asarray(logits, dtype=np.float64) / temperature
    out[...] = -_softplus(-z) if log else _sigmoid(z)


class _SigmoidRows:
    """The counted rows of one call, with the masses that pull each label on and off."""

    def __init__(
        self,
        recipe: SigmoidRecipe,
        logits: Array,
        targets: LabelRows,
        row_weight: Array | None,
        ignore_index: int | None,
    ) -> None:
        if recipe.family != "binary_cross_entropy":
            raise InputError(f"unknown sigmoid family {recipe.family!r}")
        if targets.rows.shape[1] != logits.shape[1]:
            raise TargetError(f"multi-label targets have {targets.rows.shape[1]} columns, the logits {logits.shape[1]}")
        self.counts = counted_rows(targets, row_weight, None)
        self.weight = _weights(row_weight, self.counts)
        self.temperature = recipe.temperature
        t = np.asarray(targets.rows, dtype=np.float64)[self.counts]
        self.ignored: Bool = np.zeros(t.shape, dtype=bool) if ignore_index is None else np.asarray(t == ignore_index)
        bad = np.asarray(~((t >= 0) & (t <= 1)) & ~self.ignored)
        if bad.any():
            inner, column = (int(i) for i in np.argwhere(bad)[0])
            raise label_error(int(np.flatnonzero(self.counts)[inner]), column, t[inner, column])
        z = np.asarray(logits, dtype=np.float64)[self.counts] / recipe.temperature
        self.z = np.where(self.ignored, 0.0, z)
        t = (1 - recipe.smoothing) * t + recipe.smoothing / 2
        weight = 1.0 if recipe.class_weight is None else recipe.class_weight
        positive = 1.0 if recipe.positive_weight is None else recipe.positive_weight
        self.on = np.where(self.ignored, 0.0, weight * positive * t)
        self.off = np.where(self.ignored, 0.0, weight * (1 - t))

    def curvature(self) -> Float:
        return (self.on + self.off) * _sigmoid(self.z) * _sigmoid(-self.z) / self.temperature**2

    def clean(self, values: Float) -> Float:
        return np.where(np.isnan(self.z), np.nan, values)

    def write(self, out: Array, values: Float, scale: float) -> None:
        out[~self.counts] = 0
        out[self.counts] = scale * self.weight[:, None] * self.clean(values)


# ---------------------------------------------------------------- sparse


def csr_product(indptr: Array, indices: Array, data: Array, dense: Array, out: Array) -> None:
    """Write the product of a CSR matrix (n, d) with `dense` (d, C) into `out` (n, C).

    Args:
        indptr: (n + 1,) row starts.
        indices: (nnz,) columns.
        data: (nnz,) values.
        dense: (d, C).
        out: (n, C).
    """
    row = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    total = np.zeros(out.shape)
    np.add.at(total, row, np.asarray(data, dtype=np.float64)[:, None] * dense[indices])
    out[...] = total
