"""Whether columns tell classes apart without a mistake: then no finite optimum exists without a penalty.

A direction V of the weights separates, if along it no example's own class falls behind another,

    (v_y − v_k)·x ≥ 0    for every example (x, y) that counts and every k ≠ y,

and in at least one case it gains. Moving along V then lowers the cross-entropy for ever. If no such direction exists,
the optimum is finite. Source: Albert & Anderson (1984), "On the existence of maximum likelihood estimates in logistic
regression models". The separation is complete where every example gains on every other class, which the weights of
a fit show by themselves. Otherwise a linear program looks for the direction with the most gains s,

    maximise Σ s_ik,    (v_y − v_k)·x_i ≥ s_ik,    0 ≤ s_ik ≤ 1    (after Konis, 2007, "Linear programming algorithms
                                                                   for detecting separated data"),

which tells all pairs of classes that any direction separates. For independent labels the same holds for each label,
with its examples on one side and the others on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

from kullback.linear.row_curvature import structure_of
from kullback.losses import BinaryCrossEntropy, Loss
from kullback.targets import ClassIndices, LabelRows, Targets

Array = NDArray[Any]
Vector = NDArray[np.float64]
Pairs = tuple[tuple[int, int], ...]

# A linear program with more numbers than this takes longer than most fits.
MOST_ENTRIES = 400_000
# What counts as a gain of the program, whose gains are 0 or 1 but for rounding, and as no loss.
GAIN = 0.5
LOSS = -1e-6


class Separation(NamedTuple):
    """Which classes, or labels, are told apart.

    complete: whether that is so for all examples of all of them.
    pairs: classes of which examples are told apart, the lower index first; for labels the label twice.
    """

    complete: bool
    pairs: Pairs

    def told(self, names: Sequence[Any]) -> str:
        """Which ones, by their names."""
        if self.pairs and self.pairs[0][0] == self.pairs[0][1]:
            return f"examples with and without {_listed([names[k] for k, _ in self.pairs])}"
        if self.complete:
            return "every class from every other"
        others: dict[int, list[int]] = {}
        for pair in self.pairs:
            for one, other in (pair, pair[::-1]):
                others.setdefault(one, []).append(other)
        parts, left = [], set(self.pairs)
        for one in sorted(others, key=lambda k: -len(others[k])):
            of_this = [other for other in others[one] if (min(one, other), max(one, other)) in left]
            if of_this:
                left -= {(min(one, other), max(one, other)) for other in of_this}
                parts.append(f"{names[one]!r} from {_listed([names[k] for k in of_this])}")
        return "; ".join(parts[:3]) + ("; …" if len(parts) > 3 else "")


def find_separation(
    X: Any,
    targets: Targets,
    sample_weight: Vector | None,
    loss: Loss,
    weights: Vector,
    intercept: Vector,
    *,
    fit_intercept: bool,
) -> Separation | None:
    """What separates the data; None if nothing does, if it cannot be known, or if the loss has an optimum anyway.

    Args:
        X: (N, d) dense or sparse.
        targets: N targets; soft or smoothed ones have a finite optimum.
        sample_weight: (N,) or None.
        loss: what was minimised.
        weights: (d, C) where its fit ended.
        intercept: (C,) likewise.
        fit_intercept: whether an intercept may help to separate.
    """
    if getattr(loss, "label_smoothing", 0):
        return None
    logits = np.asarray(X @ weights, dtype=np.float64) + intercept
    weight = np.ones(len(logits)) if sample_weight is None else sample_weight
    if isinstance(targets, ClassIndices) and structure_of(loss) == "coupled":
        indices = np.asarray(targets.indices)
        counted = (weight > 0) & (indices != loss.ignore_index)  # type: ignore[attr-defined]
        cost = getattr(loss, "class_weight", None)
        if cost is not None:
            counted[counted] = np.asarray(cost)[indices[counted]] > 0
        rows = np.flatnonzero(counted)
        return _classes(X, rows, indices[rows], logits[rows], fit_intercept)
    if isinstance(targets, LabelRows) and isinstance(loss, BinaryCrossEntropy):
        return _labels(X, np.asarray(targets.rows), weight, logits, fit_intercept)
    return None


def _classes(X: Any, rows: Array, own: Array, logits: Vector, fit_intercept: bool) -> Separation | None:
    n_classes = logits.shape[1]
    ahead = logits[np.arange(len(own)), own][:, None] - logits
    others = own[:, None] != np.arange(n_classes)
    if (ahead[others] > 0).all():
        pairs = [(a, b) for a in range(n_classes) for b in range(a + 1, n_classes)]
        return Separation(True, tuple(pairs))
    width = X.shape[1] + fit_intercept
    if 2 * len(own) * (n_classes - 1) * width > MOST_ENTRIES:
        return None
    columns = _columns(X, fit_intercept)[rows]
    example, other = np.nonzero(others)
    # The weights of class 0 are zero: only differences matter.
    gains = _most_gains(
        sparse.hstack(
            [
                columns[example].multiply(((own[example] == k).astype(float) - (other == k))[:, None])
                for k in range(1, n_classes)
            ],
            "csr",
        )
    )
    told = {(min(a, b), max(a, b)) for a, b in zip(own[example[gains]].tolist(), other[gains].tolist(), strict=True)}
    return Separation(False, tuple(sorted(told))) if told else None


def _labels(X: Any, rows: Array, weight: Vector, logits: Vector, fit_intercept: bool) -> Separation | None:
    separated, complete = [], True
    columns = None
    for k in range(rows.shape[1]):
        counted = np.flatnonzero((weight > 0) & ((rows[:, k] == 0) | (rows[:, k] == 1)))
        sign = 2.0 * rows[counted, k] - 1.0
        soft = np.flatnonzero((weight > 0) & (rows[:, k] > 0) & (rows[:, k] < 1))
        if not len(soft) and (sign * logits[counted, k] > 0).all():
            separated.append((k, k))
            continue
        complete = False
        if len(counted) * (X.shape[1] + fit_intercept) > MOST_ENTRIES:
            continue
        columns = _columns(X, fit_intercept) if columns is None else columns
        if _most_gains(columns[counted].multiply(sign[:, None]).tocsr(), columns[soft]).any():
            separated.append((k, k))
    return Separation(complete, tuple(separated)) if separated else None


def _columns(X: Any, fit_intercept: bool) -> Any:
    """The columns of one size, and a column of ones."""
    matrix = sparse.csr_array(X, dtype=np.float64)
    size = np.maximum(abs(matrix).max(axis=0).toarray().ravel(), np.finfo(np.float64).tiny)
    matrix = matrix @ sparse.diags_array(1.0 / size)
    ones = sparse.csr_array(np.ones((matrix.shape[0], 1)))
    return sparse.hstack([matrix, ones], "csr") if fit_intercept else matrix.tocsr()


def _most_gains(gains: Any, held: Any = None) -> NDArray[np.bool_]:
    """Which rows of (m, P) can be above 0 while none is below, and `held` ones are 0."""
    n_rows, n_columns = gains.shape
    found = optimize.linprog(
        np.concatenate([np.zeros(n_columns), -np.ones(n_rows)]),
        A_ub=sparse.hstack([-gains, sparse.eye_array(n_rows)], "csr"),
        b_ub=np.zeros(n_rows),
        A_eq=None
        if held is None or not held.shape[0]
        else sparse.hstack([held, sparse.csr_array((held.shape[0], n_rows))], "csr"),
        b_eq=None if held is None or not held.shape[0] else np.zeros(held.shape[0]),
        bounds=[(None, None)] * n_columns + [(0, 1)] * n_rows,
        method="highs",
    )
    if found.x is None:
        return np.zeros(n_rows, dtype=bool)
    reached = gains @ found.x[:n_columns]
    return np.asarray(reached > GAIN) & bool((reached >= LOSS).all())


def _listed(names: list[Any]) -> str:
    shown = [repr(name) for name in names[:5]] + (["…"] if len(names) > 5 else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
