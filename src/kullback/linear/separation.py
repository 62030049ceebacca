"""Whether columns tell classes apart without a mistake: then no finite optimum exists without a penalty.

A direction V of the weights separates, if along it no example's own class falls behind another,

    (v_y − v_k)·x ≥ 0    for every example (x, y) that counts and every k ≠ y,

and in at least one case it gains. Moving along V then lowers the cross-entropy for ever. If no such direction exists,
the optimum is finite. Source: Albert & Anderson (1984), "On the existence of maximum likelihood estimates in logistic
regression models". The separation is complete where every example gains on every other class, which the weights of
a fit show by themselves. That the classes overlap, and most other directions, the end of the fit shows too, by a
least-squares problem (see `overlap`). Where it does not, a linear program looks for the direction with most gains s,

    maximise Σ s_ik,    (v_y − v_k)·x_i ≥ s_ik,    0 ≤ s_ik ≤ 1    (after Konis, 2007, "Linear programming algorithms
                                                                   for detecting separated data"),

which tells all pairs of classes that any direction separates. The same holds of any loss that falls for ever as the own
class gets ahead (poly-1, LDAM), and of its sums with others that do not rise then: hinges, which are zero at last. For
independent labels it holds for each label, with its examples on one side and the others on the other. A soft target
wants several classes to be ahead of each other: along a direction without a loss they stay level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

from kullback.linear.overlap import Comparisons, told_apart
from kullback.losses import (
    BalancedSoftmax,
    BinaryCrossEntropy,
    CrammerSinger,
    CrossEntropy,
    Deviance,
    KullbackLeibler,
    Ldam,
    Loss,
    Poly,
    WeightedSum,
    WestonWatkins,
)
from kullback.targets import ClassIndices, ClassMixture, ClassRows, LabelRows, Targets

Array = NDArray[Any]
Vector = NDArray[np.float64]
Pairs = tuple[tuple[int, int], ...]

# A linear program with more numbers than this takes longer than most fits, and many a smaller one does.
MOST_ENTRIES = 400_000
LONGEST_SECONDS = 5.0
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


class Finding(NamedTuple):
    """What was found out.

    separation: what is told apart; None if nothing is, or if that is not known.
    unknown: why it is not known whether anything (else) is; otherwise an empty string.
    """

    separation: Separation | None
    unknown: str = ""

    def of(self, held: NDArray[np.int64]) -> Finding:
        """The same of classes by the numbers that they are given."""
        if self.separation is None:
            return self
        pairs = tuple((int(held[one]), int(held[other])) for one, other in self.separation.pairs)
        return self._replace(separation=self.separation._replace(pairs=pairs))

    def told(self, names: Sequence[Any]) -> str:
        """What a certificate says of it; an empty string where the classes overlap."""
        if self.separation is not None:
            kind = "complete" if self.separation.complete else "quasi-complete"
            return (
                f"no finite optimum exists without a penalty: the columns tell {self.separation.told(names)} apart "
                f"without a mistake ({kind} separation)"
            )
        return f"not checked for separation: {self.unknown}" if self.unknown else ""


NOTHING = Finding(None)


def find_separation(
    X: Any,
    targets: Targets,
    sample_weight: Vector | None,
    loss: Loss,
    weights: Vector,
    intercept: Vector,
    *,
    fit_intercept: bool,
) -> Finding:
    """What separates the data; nothing, if the loss has an optimum anyway.

    Args:
        X: (N, d) dense or sparse.
        targets: N targets.
        sample_weight: (N,) or None.
        loss: what was minimised; one whose optimum is finite whatever the data separates nothing.
        weights: (d, C) where its fit ended.
        intercept: (C,) likewise.
        fit_intercept: whether an intercept may help to separate.
    """
    if getattr(loss, "label_smoothing", 0):
        return NOTHING
    logits = np.asarray(X @ weights, dtype=np.float64) + intercept
    weight = np.ones(len(logits)) if sample_weight is None else sample_weight
    if isinstance(targets, ClassIndices | ClassRows | ClassMixture) and _falls_for_ever(loss):
        bend = loss.hessian_diagonal(np.zeros_like(logits), targets, sample_weight=weight, reduction="sum")
        counted = np.flatnonzero(bend.any(axis=1))
        rows, own, share = _wanted(targets, counted)
        if len(rows) == logits.shape[1] * len(counted):
            return NOTHING  # every class is wanted in every row: all stay level
        _, pull = loss.value_and_gradient(
            logits[rows], ClassIndices(own), sample_weight=weight[rows] * share, reduction="sum"
        )
        pull = np.maximum(pull, 0.0)
        pull[np.arange(len(rows)), own] = 0.0
        # A class without examples that count is behind all others by an intercept alone, whatever the columns hold.
        held = np.unique(own) if fit_intercept else np.arange(logits.shape[1])
        own = np.searchsorted(held, own)
        comparisons = Comparisons(X, rows, own, len(held), fit_intercept=fit_intercept)
        found = _classes(comparisons, pull[:, held], weights[:, held], intercept[held], logits[np.ix_(rows, held)])
        return found.of(held)
    if isinstance(targets, LabelRows) and isinstance(loss, BinaryCrossEntropy):
        pull = loss.value_and_gradient(logits, targets, sample_weight=sample_weight, reduction="sum")[1]
        return _labels(X, np.asarray(targets.rows), weight, pull, logits, weights, intercept, fit_intercept)
    return NOTHING


def _falls_for_ever(loss: Loss) -> bool:
    """Whether a convex loss never rises as the own class gets ahead of others, and has no least value then."""
    if isinstance(loss, WeightedSum):
        terms = [term for _, term in loss.terms]
        falling = [_falls_for_ever(term) for term in terms]
        level = [isinstance(term, WestonWatkins | CrammerSinger) for term in terms]
        return loss.convex and any(falling) and all(a or b for a, b in zip(falling, level, strict=True))
    if getattr(loss, "label_smoothing", 0) or not loss.convex:
        return False
    if isinstance(loss, CrossEntropy):
        return loss.softcap is None and not loss.z_loss
    return isinstance(loss, BalancedSoftmax | Deviance | KullbackLeibler | Ldam | Poly)


def _wanted(targets: Targets, counted: NDArray[np.int64]) -> tuple[Array, Array, Vector]:
    """Each of the rows that count with each class that it wants, and how much of that class."""
    if isinstance(targets, ClassIndices):
        return counted, np.asarray(targets.indices)[counted].astype(np.int64), np.ones(len(counted))
    if isinstance(targets, ClassRows):
        held = np.asarray(targets.rows)[counted]
        place, own = np.nonzero(held > 0)
        return counted[place], own.astype(np.int64), held[place, own]
    assert isinstance(targets, ClassMixture)
    first, second = (np.asarray(side)[counted].astype(np.int64) for side in (targets.first, targets.second))
    share = np.broadcast_to(np.asarray(targets.share, dtype=np.float64), (len(targets),))[counted]
    same = first == second
    shares = np.where(same, 1.0, share), np.where(same, 0.0, 1.0 - share)
    rows, own, held = np.tile(counted, 2), np.concatenate([first, second]), np.concatenate(shares)
    return rows[held > 0], own[held > 0], held[held > 0]


def _classes(comparisons: Comparisons, p: Vector, weights: Vector, intercept: Vector, logits: Vector) -> Finding:
    own, others, n_classes = comparisons.own, comparisons.others, comparisons.n_classes
    ahead = logits[np.arange(len(own)), own][:, None] - logits
    won: Array | None = others
    if not (ahead[others] > 0).all():
        won = told_apart(comparisons, p, comparisons.scaled(weights, intercept))
    unknown = ""
    if won is None:
        won, unknown = _by_program(comparisons)
    example, other = np.nonzero(won)
    told = {(min(a, b), max(a, b)) for a, b in zip(own[example].tolist(), other.tolist(), strict=True)}
    if not told:
        return Finding(None, unknown)
    if np.array_equal(won, others):
        return Finding(Separation(True, tuple((a, b) for a in range(n_classes) for b in range(a + 1, n_classes))))
    return Finding(Separation(False, tuple(sorted(told))))


def _by_program(comparisons: Comparisons) -> tuple[Array, str]:
    """What a linear program finds, and why it found nothing out."""
    own, n_classes = comparisons.own, comparisons.n_classes
    won = np.zeros_like(comparisons.others)
    if 2 * len(own) * (n_classes - 1) * comparisons.width > MOST_ENTRIES:
        return won, "that takes a linear program, which would be too large"
    columns = comparisons.sparse()
    example, other = np.nonzero(comparisons.others)
    # The weights of class 0 are zero: only differences matter.
    gains, ended = _most_gains(
        sparse.hstack(
            [
                columns[example].multiply(((own[example] == k).astype(float) - (other == k))[:, None])
                for k in range(1, n_classes)
            ],
            "csr",
        )
    )
    won[example[gains], other[gains]] = True
    return won, "" if ended else f"that takes a linear program, which was not done after {LONGEST_SECONDS:g} seconds"


def _labels(
    X: Any,
    rows: Array,
    weight: Vector,
    pull: Vector,
    logits: Vector,
    weights: Vector,
    intercept: Vector,
    fit_intercept: bool,
) -> Finding:
    separated, complete, unknown = [], True, ""
    for k in range(rows.shape[1]):
        with_it = np.flatnonzero((weight > 0) & (rows[:, k] > 0))
        without = np.flatnonzero((weight > 0) & (rows[:, k] < 1))
        own = np.repeat([1, 0], [len(with_it), len(without)])
        place = np.concatenate([with_it, without])
        # A soft label pulls both ways, by as much less the one way as its sum says.
        soft = 0.25 * weight * ((rows[:, k] > 0) & (rows[:, k] < 1))
        most = np.maximum(np.where(own == 1, -pull[place, k], pull[place, k]), 0.0) + soft[place]
        u = np.zeros((len(place), 2))
        u[np.arange(len(place)), 1 - own] = most
        comparisons = Comparisons(X, place, own, 2, fit_intercept=fit_intercept)
        both = np.stack([np.zeros_like(weights[:, k]), weights[:, k]], axis=1), np.array([0.0, intercept[k]])
        found = _classes(comparisons, u, *both, np.stack([np.zeros(len(place)), logits[place, k]], axis=1))
        unknown = unknown or found.unknown
        complete &= found.separation is not None and found.separation.complete
        if found.separation is not None:
            separated.append((k, k))
    return Finding(Separation(complete, tuple(separated)) if separated else None, unknown)


def _most_gains(gains: Any) -> tuple[NDArray[np.bool_], bool]:
    """Which rows of (m, P) can be above 0 while none is below, and whether that was found out in time."""
    n_rows, n_columns = gains.shape
    found = optimize.linprog(
        np.concatenate([np.zeros(n_columns), -np.ones(n_rows)]),
        A_ub=sparse.hstack([-gains, sparse.eye_array(n_rows)], "csr"),
        b_ub=np.zeros(n_rows),
        bounds=[(None, None)] * n_columns + [(0, 1)] * n_rows,
        method="highs",
        options={"time_limit": LONGEST_SECONDS},
    )
    if found.x is None or found.status != 0:
        return np.zeros(n_rows, dtype=bool), False
    reached = gains @ found.x[:n_columns]
    return np.asarray(reached > GAIN) & bool((reached >= LOSS).all()), True


def _listed(names: list[Any]) -> str:
    shown = [repr(name) for name in names[:5]] + (["…"] if len(names) > 5 else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
