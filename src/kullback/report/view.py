"""What the report's tables hold: which classes are shown when there are many, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kullback.explain.account import GradientAccount

# A matrix wider than this is no longer read as a matrix; a list longer than this is no longer read.
MATRIX_LIMIT = 30
MATRIX_TOP = 20
ACCOUNT_TOP = 12
LIST_LIMIT = 100
PAIRS_SHOWN = 12


@dataclass(frozen=True)
class Cell:
    """One cell of a shaded table.

    Attributes:
        value: the number printed.
        shade: strength of its colour in [0, 1].
        tone: ``"good"`` (blue), ``"bad"`` (orange) or ``""``.
    """

    value: float
    shade: float
    tone: str


@dataclass(frozen=True)
class Matrix:
    """A square table with names on both sides.

    Attributes:
        names: of the rows and the columns shown.
        rows: a row of cells for each name.
        counts: examples behind each row.
        others: what each row holds in columns that are not shown; None if all are.
        footer: a last row over all examples, or None.
        left_out: classes that are not shown.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    counts: tuple[float, ...]
    others: tuple[float, ...] | None = None
    footer: tuple[Cell, ...] | None = None
    left_out: int = 0


@dataclass(frozen=True)
class Confusion:
    """One kind of mistake: examples of `true` that were taken for `predicted`."""

    true: str
    predicted: str
    count: int
    share: float


def confusion_matrix(counts: NDArray[np.integer], names: Sequence[str]) -> Matrix:
    """The confusion matrix, cut to the classes with most mistakes when there are more than `MATRIX_LIMIT`.

    Args:
        counts: (C, C), rows true.
        names: C names.
    """
    counts = np.asarray(counts)
    n = len(names)
    support = counts.sum(axis=1)
    right = np.diagonal(counts)
    if n <= MATRIX_LIMIT:
        shown = np.arange(n)
    else:
        mistakes = support + counts.sum(axis=0) - 2 * right
        shown = np.sort(_largest(mistakes, MATRIX_TOP))
    rows = []
    for i in shown:
        total = max(1, int(support[i]))
        rows.append(
            tuple(
                Cell(
                    float(counts[i, j]),
                    0.12 + 0.88 * float(np.sqrt(counts[i, j] / total)),  # a rare mistake must still be seen
                    ("good" if i == j else "bad") if counts[i, j] else "",
                )
                for j in shown
            )
        )
    others = None
    if len(shown) < n:
        others = tuple(float(support[i] - counts[i, shown].sum()) for i in shown)
    return Matrix(
        names=tuple(names[int(i)] for i in shown),
        rows=tuple(rows),
        counts=tuple(float(support[i]) for i in shown),
        others=others,
        left_out=n - len(shown),
    )


def commonest_confusions(counts: NDArray[np.integer], names: Sequence[str]) -> tuple[Confusion, ...]:
    """The pairs confused most often, at most `PAIRS_SHOWN`.

    Args:
        counts: (C, C), rows true.
        names: C names.
    """
    off = np.array(counts)
    support = off.sum(axis=1)
    np.fill_diagonal(off, 0)
    flat = off.ravel()
    order = _largest(flat, PAIRS_SHOWN)
    found = []
    for position in order[np.argsort(-flat[order], kind="stable")]:
        i, j = divmod(int(position), len(names))
        if off[i, j] > 0:
            found.append(Confusion(names[i], names[j], int(off[i, j]), float(off[i, j] / support[i])))
    return tuple(found)


def account_matrix(account: GradientAccount, names: Sequence[str], scale: float) -> Matrix:
    """A gradient account, cut to the commonest classes when there are more than `MATRIX_LIMIT`.

    Args:
        account: the account.
        names: C names.
        scale: the push that gets the full colour, the same for every account on the page.
    """
    n = len(names)
    shown = np.arange(n) if n <= MATRIX_LIMIT else np.sort(_largest(account.counts, ACCOUNT_TOP))
    return Matrix(
        names=tuple(names[int(i)] for i in shown),
        rows=tuple(tuple(_push_cell(account.push[i, j], scale) for j in shown) for i in shown),
        counts=tuple(float(account.counts[i]) for i in shown),
        footer=tuple(_push_cell(account.overall[j], scale) for j in shown),
        left_out=n - len(shown),
    )


def account_scale(*accounts: GradientAccount | None) -> float:
    """The largest push in any of the accounts."""
    sizes = [np.abs(a.push[np.isfinite(a.push)]).max(initial=0.0) for a in accounts if a is not None]
    return float(max(sizes, default=0.0)) or 1.0


def listed(values: NDArray[np.number], limit: int = LIST_LIMIT) -> tuple[int, ...]:
    """Which classes a list shows: all in the model's order, or the `limit` largest, largest first."""
    values = np.asarray(values)
    if len(values) <= limit:
        return tuple(range(len(values)))
    order = _largest(values, limit)
    return tuple(int(i) for i in order[np.argsort(-values[order], kind="stable")])


def lowest(values: NDArray[np.floating], among: NDArray[np.bool_], limit: int) -> tuple[int, ...]:
    """The `limit` classes with the lowest finite value among those marked, lowest first."""
    candidates = np.flatnonzero(np.asarray(among) & np.isfinite(values))
    order = candidates[np.argsort(np.asarray(values)[candidates], kind="stable")]
    return tuple(int(i) for i in order[:limit])


def _largest(values: NDArray[np.number], k: int) -> NDArray[np.intp]:
    """Positions of the k largest, ties to the first, in position order of the stable sort."""
    if len(values) > 10_000:
        # A full stable sort of a million confusion cells costs more than the rest of the page.
        threshold = np.partition(values, -k)[-k]
        candidates = np.flatnonzero(values >= threshold) if threshold > 0 else np.flatnonzero(values > 0)
        return candidates[np.argsort(-values[candidates], kind="stable")[:k]]
    return np.argsort(-values, kind="stable")[:k]


def _push_cell(value: float, scale: float) -> Cell:
    value = float(value)
    if not np.isfinite(value):
        return Cell(value, 0.0, "")
    # A square root keeps the small pushes of a trained model visible beside the untrained model's.
    return Cell(value, float(np.sqrt(min(1.0, abs(value) / scale))), "good" if value > 0 else "bad")
