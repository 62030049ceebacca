"""The specification: every kernel in plain NumPy, float64 inside, no tricks but stability.

Other backends are tested against this module, and this module against 50-digit arithmetic. Rows that do not count
(weight zero, or an ignored target) are taken out before any arithmetic, so their logits are never looked at.

A loss is the functions on(o) and off(o) of `kullback.kernels.elements`, o_k = log(p_k / (1 − p_k)) the log-odds of
class k. Let a_k and h_k be the first and second derivative of the row's loss in o_k. For the softmax of u

    ∂o_k/∂u_k = 1,   ∂o_k/∂u_j = −r_j,   r_j = p_j / (1 − p_k): the distribution among the classes other than k.

One class, the largest, may have 1 − p_k so small that r needs care (a sum over the others, in logarithms). All others
have p_k ≤ ½, and for them derivatives in ℓ_k = log p_k are the simpler ones: b_k = a_k / (1 − p_k) and
c_k = (h_k + a_k·p_k) / (1 − p_k)². With τ the largest class, b_τ = c_τ = 0, B = Σb, and r, a, h of τ:

    gradient:         g_j = b_j − p_j·B − a·r_j for j ≠ τ,   g_τ = a − p_τ·B
    Hessian product:  with δ = v − p·v, ε = v − r·v:
                      Hv = c∘δ − p·Σ(c∘δ) − B·p∘δ + h·ε_τ·(e_τ − r) − a·r∘ε
    its diagonal:     c_j·(1 − p_j)² + p_j²·Σ_{k≠j}c_k − B·p_j·(1 − p_j) + [h if j = τ, else h·r_j² − a·r_j·(1 − r_j)]
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kullback.errors import InputError, ShapeError, TargetError
from kullback.kernels import sorted_hinges
from kullback.kernels.elements import SIGMOID_FAMILIES, SOFTMAX_FAMILIES, Odds, product, sigmoid_odds
from kullback.kernels.recipe import Array, Evaluation, MarginRecipe, SigmoidRecipe, SoftmaxRecipe, TargetSummary
from kullback.kernels.sorted_hinges import SortedHinges
from kullback.targets import ClassIndices, ClassRows, ClassTargets, LabelRows, counted_rows

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]


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
    check_range(targets, n_classes, counts)
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
    log_sum_exp: Array | None = None,
    prediction: Array | None = None,
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
        log_sum_exp: (N,) receives the log-sum-exp of what the softmax is taken of, and 0 for rows that do not count.
        prediction: (N,) int64 receives the class of each row's largest logit, the first of equal ones; −1 for rows that
            do not count, or have a logit that is NaN or +inf.

    Raises:
        TargetError: for a class out of range or a soft target that is negative or not finite.
    """
    rows = _SoftmaxRows(recipe, logits, targets, row_weight, ignore_index)
    losses = rows.weight * rows.clean(rows.value)
    if log_sum_exp is not None:
        log_sum_exp[...] = 0
        log_sum_exp[rows.counts] = rows.clean(rows.softmax.lse)
    if prediction is not None:
        prediction[...] = -1
        prediction[rows.counts] = np.where(rows.spoilt, -1, np.argmax(logits[rows.counts], axis=1))
    if gradient is not None:
        rows.write(gradient, rows.slope * rows.gradient(), scale / recipe.temperature)
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
    v = np.asarray(direction, dtype=np.float64)[rows.counts]
    product = rows.slope * rows.hessian_product(rows.slope * v) / recipe.temperature
    if recipe.softcap is not None:
        product += rows.bend * rows.gradient() * v
    rows.write(out, product, scale / recipe.temperature)


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
    diagonal = rows.slope**2 * rows.hessian_diagonal() / recipe.temperature
    if recipe.softcap is not None:
        diagonal += rows.bend * rows.gradient()
    rows.write(out, diagonal, scale / recipe.temperature)


def softmax_probabilities(logits: Array, *, temperature: float = 1.0, log: bool = False, out: Array) -> None:
    """Write softmax(logits / temperature), or its logarithm, into `out` (N, C)."""
    softmax = softmax_odds(np.asarray(logits, dtype=np.float64) / temperature)
    out[...] = softmax.odds.log_p if log else softmax.odds.p


class Softmax(NamedTuple):
    """Softmax of rows (n, C), with what the derivatives need of each row's largest class.

    Attributes:
        odds: p, 1 − p and their logarithms.
        lse: (n,) log Σ exp u.
        is_top: (n, C) True at each row's largest class (the first of equals).
        others: (n, C) r, the distribution among the classes other than the largest; 0 at the largest.
    """

    odds: Odds
    lse: Float
    is_top: Bool
    others: Float


def softmax_odds(u: Float) -> Softmax:
    """The softmax of rows.

    The largest logit is left out of the sum and log1p puts it back: for a confident row log Σexp would round
    1 + tiny to 1 and lose the loss altogether. Where that sum underflows, logarithms still tell the rest apart.
    A row that is masked throughout has no probability to hand out: p = 0.
    """
    n, n_classes = u.shape
    if n == 0 or n_classes == 0:
        return Softmax(Odds(u, u, u, u), np.zeros(n), np.zeros(u.shape, dtype=bool), u)
    row = np.arange(n)
    top = np.argmax(np.where(np.isnan(u), np.inf, u), axis=1)
    largest = u[row, top]
    masked = np.isneginf(largest)
    is_top = np.zeros(u.shape, dtype=bool)
    is_top[row, top] = True
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = u - np.where(masked, 0.0, largest)[:, None]
        e = np.exp(shifted)
        rest = np.where(is_top, 0.0, e).sum(axis=1)
        log_total = np.log1p(rest)
        others = np.where(is_top, -np.inf, shifted)
        second = others.max(axis=1, initial=-np.inf)
        others -= np.where(np.isneginf(second), 0.0, second)[:, None]
        e_others = np.exp(others)
        sum_others = e_others.sum(axis=1)
        log_rest = np.where(rest > 1e-290, np.log(rest), second + np.log(sum_others))
        e_others /= np.where(sum_others == 0, 1.0, sum_others)[:, None]
        log_p = shifted - log_total[:, None]
        p = e / (1.0 + rest)[:, None]
        miss, log_miss = 1 - p, np.log1p(-p)
    miss[row, top] = np.where(masked, 1.0, rest / (1.0 + rest))
    log_miss[row, top] = np.where(masked, 0.0, log_rest - log_total)
    return Softmax(Odds(p, miss, log_p, log_miss), largest + log_total, is_top, e_others)


class _SoftmaxRows:
    """The counted rows of one call: probabilities, masses, and the loss with its derivatives in the log-odds."""

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
        check_range(targets, n_classes, self.counts)
        self.weight = _weights(row_weight, self.counts)
        z = np.asarray(logits, dtype=np.float64)[self.counts]
        self.slope: Float = np.ones((1, 1))
        if recipe.softcap is not None:
            z, self.slope, self.bend = softcap(z, recipe.softcap)
        u = z / recipe.temperature
        if recipe.offset is not None:
            u = u + recipe.offset
        self.softmax = softmax_odds(u)
        self.p, self.miss, *_ = odds = self.softmax.odds
        self.spoilt: Bool = np.asarray(np.isnan(odds.log_p).any(axis=1))
        mass = targets[self.counts].dense(n_classes)
        total = mass.sum(axis=1, keepdims=True)
        s = (1 - recipe.smoothing) * mass + recipe.smoothing / max(n_classes, 1) * total
        if recipe.class_weight is not None:
            s *= recipe.class_weight
        total = s.sum(axis=1, keepdims=True)
        family = SOFTMAX_FAMILIES.get(recipe.family)
        if family is None:
            raise InputError(f"unknown softmax family {recipe.family!r}")
        on = family.on(odds, recipe.parameters, recipe.shift)
        self.value = product(s, on.value).sum(axis=1)
        self.first, self.second = s * on.first, s * on.second
        if family.off is not None:
            off = family.off(odds, recipe.parameters, recipe.shift)
            self.value += product(total - s, off.value).sum(axis=1)
            self.first += (total - s) * off.first
            self.second += (total - s) * off.second
        self.z_loss = recipe.z_loss * total
        if recipe.z_loss:
            self.value += product(self.z_loss[:, 0], self.softmax.lse**2)
        if recipe.divergence:
            share = np.divide(s, total, out=np.ones_like(s), where=(s > 0) & (total > 0))
            # at the minimum the difference of two equal numbers may round to a hair below zero
            self.value = np.maximum(self.value + (s * np.log(share)).sum(axis=1), 0.0)

    def split(self) -> tuple[Float, Float, Float, Float]:
        """b and c (n, C) of all classes but the largest, and a and h (n, 1) of that one."""
        top, p, m = self.softmax.is_top, self.p, np.where(self.softmax.is_top, 1.0, self.miss)
        b = np.where(top, 0.0, self.first / m)
        c = np.where(top, 0.0, (self.second + self.first * p) / m**2)
        a = np.where(top, self.first, 0.0).sum(axis=1, keepdims=True)
        h = np.where(top, self.second, 0.0).sum(axis=1, keepdims=True)
        return b, c, a, h

    def gradient(self) -> Float:
        b, _, a, _ = self.split()
        g = b - self.p * b.sum(axis=1, keepdims=True) - a * self.softmax.others + np.where(self.softmax.is_top, a, 0.0)
        return np.asarray(g + self.lse_pull() * self.p)

    def lse_pull(self) -> Float:
        """2·λ·S·log Σexp, (n, 1): what the z-loss adds to each p; 0 for a row that is masked throughout."""
        lse = self.softmax.lse[:, None]
        return product(2 * self.z_loss, np.where(np.isneginf(lse), 0.0, lse))

    def hessian_product(self, v: Float) -> Float:
        b, c, a, h = self.split()
        p, r, top = self.p, self.softmax.others, self.softmax.is_top
        mean = (p * v).sum(axis=1, keepdims=True)
        delta, apart = v - mean, v - (r * v).sum(axis=1, keepdims=True)
        bent = c * delta
        product = bent - p * bent.sum(axis=1, keepdims=True) - b.sum(axis=1, keepdims=True) * p * delta
        product += h * np.where(top, apart, 0.0).sum(axis=1, keepdims=True) * (np.where(top, 1.0, 0.0) - r)
        product -= a * r * apart
        return np.asarray(product + 2 * self.z_loss * p * mean + self.lse_pull() * p * delta)

    def hessian_diagonal(self) -> Float:
        b, c, a, h = self.split()
        p, m, r = self.p, self.miss, self.softmax.others
        diagonal = c * m**2 + p**2 * (c.sum(axis=1, keepdims=True) - c) - b.sum(axis=1, keepdims=True) * p * m
        diagonal += np.where(self.softmax.is_top, h, h * r**2 - a * r * (1 - r))
        return np.asarray(diagonal + 2 * self.z_loss * p**2 + self.lse_pull() * p * m)

    def clean(self, values: Float) -> Float:
        """A row with a NaN or +inf logit says NaN even if a zero target would have hidden it."""
        return np.where(self.spoilt, np.nan, values)

    def write(self, out: Array, values: Float, scale: float) -> None:
        values = np.where(self.spoilt[:, None], np.nan, values)
        out[~self.counts] = 0
        out[self.counts] = scale * self.weight[:, None] * values

    def evaluation(self, losses: Float, per_example: Array | None) -> Evaluation:
        return _evaluation(losses, self.counts, per_example)


def softcap(z: Float, cap: float) -> tuple[Float, Float, Float]:
    """cap·tanh(z / cap) and its two derivatives; −inf stays −inf, for a masked class must stay masked."""
    twice = -2 * np.abs(z) / cap
    e = np.exp(twice)
    tanh = np.copysign(-np.expm1(twice) / (1 + e), z)  # 1 − e would lose the small scores' digits
    slope = 4 * e / (1 + e) ** 2
    masked, broken = np.isneginf(z), np.isposinf(z)
    capped = np.where(masked, -np.inf, np.where(broken, np.nan, cap * tanh))
    return capped, slope, -2 / cap * tanh * slope


def _weights(row_weight: Array | None, counts: Bool) -> Float:
    if row_weight is None:
        return np.ones(int(counts.sum()))
    return np.asarray(row_weight, dtype=np.float64)[counts]


def check_range(targets: ClassTargets, n_classes: int, counts: Bool) -> None:
    """Raise TargetError for the first counted row whose target is no class, or no mass of classes."""
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
    return Evaluation(float(losses.sum()), int(infinite[0]) if len(infinite) else -1, int(counts.sum()))


# ---------------------------------------------------------------- sigmoid


def sigmoid_targets(
    targets: LabelRows,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    known: Array | None = None,
) -> TargetSummary:
    """Count the rows that count and sum their weights; the entries are checked by `sigmoid_evaluate`.

    A row counts if its weight is not zero and, where `ignore_index` is given, at least one entry is not ignored.
    `known`, (N,) float64 if given, receives each row's number of entries that are not ignored.
    """
    counts = counted_rows(targets, row_weight, None)
    if known is not None:
        known[:] = targets.rows.shape[1]
    if ignore_index is not None:
        per_row = (targets.rows != ignore_index).sum(axis=1)
        counts &= per_row > 0
        if known is not None:
            known[:] = per_row
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
    losses = rows.weight * rows.clean(rows.value).sum(axis=1)
    if gradient is not None:
        rows.write(gradient, rows.first, scale / recipe.temperature)
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
    product = rows.second * np.asarray(direction, dtype=np.float64)[rows.counts]
    rows.write(out, product, scale / recipe.temperature**2)


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
    rows.write(out, rows.second, scale / recipe.temperature**2)


def sigmoid_probabilities(logits: Array, *, temperature: float = 1.0, log: bool = False, out: Array) -> None:
    """Write sigmoid(logits / temperature), or its logarithm, into `out` (N, C)."""
    odds = sigmoid_odds(np.asarray(logits, dtype=np.float64) / temperature)
    out[...] = odds.log_p if log else odds.p


class _SigmoidRows:
    """The counted rows of one call: each label's loss and its derivatives in the scaled logit."""

    def __init__(
        self,
        recipe: SigmoidRecipe,
        logits: Array,
        targets: LabelRows,
        row_weight: Array | None,
        ignore_index: int | None,
    ) -> None:
        family = SIGMOID_FAMILIES.get(recipe.family)
        if family is None or family.off is None:
            raise InputError(f"unknown sigmoid family {recipe.family!r}")
        if targets.rows.shape[1] != logits.shape[1]:
            raise TargetError(f"multi-label targets have {targets.rows.shape[1]} columns, the logits {logits.shape[1]}")
        self.counts = counted_rows(targets, row_weight, None)
        self.weight = _weights(row_weight, self.counts)
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
        on_mass = np.where(self.ignored, 0.0, weight * positive * t)
        off_mass = np.where(self.ignored, 0.0, weight * (1 - t))
        odds = sigmoid_odds(self.z)
        on, off = family.on(odds, recipe.parameters, None), family.off(odds, recipe.parameters, None)
        # 0·inf is 0: a label that is certainly absent may have logit −inf
        self.value = product(on_mass, on.value) + product(off_mass, off.value)
        self.first = on_mass * on.first + off_mass * off.first
        self.second = on_mass * on.second + off_mass * off.second

    def clean(self, values: Float) -> Float:
        return np.where(np.isnan(self.z), np.nan, values)

    def write(self, out: Array, values: Float, scale: float) -> None:
        out[~self.counts] = 0
        out[self.counts] = scale * self.weight[:, None] * self.clean(values)


# ---------------------------------------------------------------- margin


def margin_evaluate(
    recipe: MarginRecipe,
    logits: Array,
    targets: ClassTargets,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    per_example: Array | None = None,
    gradient: Array | None = None,
) -> Evaluation:
    """Loss of every row and, if asked for, its gradient; arguments as for `softmax_evaluate`."""
    rows = _MarginRows(recipe, logits, targets, row_weight, ignore_index)
    if gradient is not None:
        pulls = rows.per_row(rows.pulled(rows.first))
        for i, hinges in rows.sorted.items():
            pulls[i] = hinges.gradient()
        rows.write(gradient, pulls, scale)
    values = rows.per_row(rows.value[:, None])[:, 0]
    for i, hinges in rows.sorted.items():
        values[i] = hinges.value()
    losses = rows.weight * rows.clean(values)
    return _evaluation(losses, rows.counts, per_example)


def margin_hessian_product(
    recipe: MarginRecipe,
    logits: Array,
    targets: ClassTargets,
    direction: Array,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    out: Array,
) -> None:
    """Write scale·row_weight·(∂²loss/∂logits²)·direction into `out` (N, C); zero for the plain hinges."""
    rows = _MarginRows(recipe, logits, targets, row_weight, ignore_index)
    along = np.asarray(direction, dtype=np.float64)[rows.counts]
    v = along[rows.row]
    bent = rows.per_row(rows.pulled(rows.second * (v - v[np.arange(len(v)), rows.true][:, None])))
    for i, hinges in rows.sorted.items():
        bent[i] = hinges.product(along[i])
    rows.write(out, bent, scale)


def margin_hessian_diagonal(
    recipe: MarginRecipe,
    logits: Array,
    targets: ClassTargets,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    out: Array,
) -> None:
    """Write scale·row_weight·∂²loss/∂logits_j² into `out` (N, C); zero for the plain hinges."""
    rows = _MarginRows(recipe, logits, targets, row_weight, ignore_index)
    own = rows.per_row(np.abs(rows.pulled(rows.second)))  # a pull on the true class bends it as much
    for i, hinges in rows.sorted.items():
        own[i] = hinges.diagonal()
    rows.write(out, own, scale)


class _MarginRows:
    """One entry per counted row and class with mass: its hinges h(Δ + z_k − z_y) and their derivatives in z_k.

    Rows with mass on many classes have none and are in `sorted`, by their number.
    """

    def __init__(
        self,
        recipe: MarginRecipe,
        logits: Array,
        targets: ClassTargets,
        row_weight: Array | None,
        ignore_index: int | None,
    ) -> None:
        if recipe.family not in ("weston_watkins", "crammer_singer"):
            raise InputError(f"unknown margin family {recipe.family!r}")
        n_classes = logits.shape[1]
        self.counts = counted_rows(targets, row_weight, ignore_index)
        check_range(targets, n_classes, self.counts)
        self.weight = _weights(row_weight, self.counts)
        z = np.asarray(logits, dtype=np.float64)[self.counts]
        self.spoilt: Bool = np.asarray((np.isnan(z) | np.isposinf(z)).any(axis=1))
        mass = targets[self.counts].dense(n_classes)
        if recipe.class_weight is not None:
            mass = mass * recipe.class_weight
        self.sorted: dict[int, SortedHinges] = {}
        if recipe.family == "weston_watkins":
            many = (np.count_nonzero(mass, axis=1) >= sorted_hinges.MANY) & ~self.spoilt
            self.sorted = {
                int(i): SortedHinges(z[i], mass[i], recipe.margin, recipe.power) for i in np.flatnonzero(many)
            }
            mass = np.where(many[:, None], 0.0, mass)
        self.row, self.true = np.nonzero(mass)
        self.mass = mass[self.row, self.true]
        pair = np.arange(len(self.row))
        z = z[self.row]
        with np.errstate(invalid="ignore"):  # −inf against −inf: masked rivals are no rivals
            excess = np.where(np.isneginf(z), -np.inf, recipe.margin + z - z[pair, self.true][:, None])
        excess[pair, self.true] = -np.inf
        active = excess > 0
        if recipe.family == "crammer_singer" and n_classes:
            # by their scores: rivals closer to each other than the hinges' rounding have equal hinges
            highest = np.argmax(np.where(np.arange(n_classes) == self.true[:, None], -np.inf, z), axis=1)
            active &= np.arange(n_classes) == highest[:, None]
        hinge = np.where(active, excess, 0.0)
        if recipe.power == 2:
            self.value, self.first, self.second = (hinge**2).sum(axis=1), 2 * hinge, np.where(active, 2.0, 0.0)
        else:
            self.value, self.first, self.second = hinge.sum(axis=1), np.where(active, 1.0, 0.0), np.zeros_like(hinge)

    def pulled(self, push: Float) -> Float:
        """Every push on a rival is a pull on the true class."""
        pulled = push.copy()
        pulled[np.arange(len(push)), self.true] = -push.sum(axis=1)
        return pulled

    def per_row(self, values: Float) -> Float:
        """Sum over the classes with mass of each row."""
        total = np.zeros((int(self.counts.sum()), values.shape[1]))
        np.add.at(total, self.row, self.mass[:, None] * values)
        return total

    def clean(self, values: Float) -> Float:
        return np.where(self.spoilt, np.nan, values)

    def write(self, out: Array, values: Float, scale: float) -> None:
        out[~self.counts] = 0
        out[self.counts] = scale * self.weight[:, None] * np.where(self.spoilt[:, None], np.nan, values)


# ---------------------------------------------------------------- sparse


def csr_product(
    indptr: Array,
    indices: Array,
    data: Array,
    dense: Array,
    out: Array,
    *,
    ends: Array | None = None,
    base: int = 0,
) -> None:
    """Write the product of a CSR matrix (n, d) with `dense` (d, C) into `out` (n, C).

    Args:
        indptr: (n + 1,) row starts; (n,) with `ends`.
        indices: (nnz,) columns.
        data: (nnz,) values.
        dense: (d, C).
        out: (n, C).
        ends: (n,) where each row ends, or None where it ends as the next one starts.
        base: the column that row 0 of `dense` stands for.
    """
    row, column, values = _entries(indptr, indices, data, ends)
    total = np.zeros(out.shape)
    np.add.at(total, row, values[:, None] * dense[column - base])
    out[...] = total


def csr_transposed(
    indptr: Array,
    indices: Array,
    data: Array,
    dense: Array,
    out: Array,
    *,
    ends: Array | None = None,
    base: int = 0,
) -> None:
    """Add the product of the transpose of a CSR matrix (n, d) with `dense` (n, C) to `out` (d, C).

    Args:
        indptr: (n + 1,) row starts; (n,) with `ends`.
        indices: (nnz,) columns.
        data: (nnz,) values.
        dense: (n, C).
        out: (d, C).
        ends: (n,) where each row ends, or None where it ends as the next one starts.
        base: the column that row 0 of `out` stands for.
    """
    row, column, values = _entries(indptr, indices, data, ends)
    total = np.zeros(out.shape)
    np.add.at(total, column - base, values[:, None] * dense[row])
    out += total


def _entries(indptr: Array, indices: Array, data: Array, ends: Array | None) -> tuple[Array, Array, Float]:
    """Row, column and value of each entry of a CSR matrix."""
    starts, ends = (indptr[:-1], indptr[1:]) if ends is None else (indptr, ends)
    counts = ends - starts
    row = np.repeat(np.arange(len(starts)), counts)
    place = np.arange(len(row)) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
    return row, indices[place], np.asarray(data[place], dtype=np.float64)
