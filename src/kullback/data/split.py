"""Divide rows into parts for training, calibration and test, by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kullback.errors import DataError

_PARTS = ("train", "test", "calibration")


@dataclass(frozen=True, eq=False)
class Split:
    """Row indices of each part, ascending and disjoint.

    Attributes:
        train, calibration, test: int64 indices into the encoded target that was split.
        notes: what a person should hear: classes too rare to be in every part.
    """

    train: NDArray[np.int64]
    calibration: NDArray[np.int64]
    test: NDArray[np.int64]
    notes: tuple[str, ...] = ()


def split_rows(
    encoded_target: ArrayLike,
    kind: str,
    *,
    fractions: Mapping[str, float],
    seed: int,
    names: Sequence[object] | None = None,
) -> Split:
    """Split rows at random, keeping each class's share in every part.

    Classes are stratified by systematic sampling: the rows of a class, in random order, are spread evenly over
    [0, 1) and the parts are cut from it, so each part holds its share of each class to within one row. A class
    always keeps one row in training, so one with a single row is trained on and not tested. Labels (which may
    overlap) are split at random, except that every label keeps a positive row in training where one exists.

    Args:
        encoded_target: (N,) class indices, or (N, L) 0/1 labels.
        kind: "classes" or "labels".
        fractions: the share of each of "train", "calibration" and "test"; they add up to 1. A part that is left out
            is empty; one with a positive share gets at least one row, and training at least one.
        seed: the same seed gives the same split, whatever the machine and its threads.
        names: class or label names, for the notes.

    Raises:
        DataError: for fractions that are not shares of one, or too few rows.

    >>> target = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    >>> split = split_rows(target, "classes", fractions={"train": 0.8, "test": 0.2}, seed=0)
    >>> len(split.train), len(split.calibration), len(split.test)
    (8, 0, 2)
    >>> sorted(target[i] for i in split.test)
    [0, 1]
    """
    target = np.asarray(encoded_target)
    if kind not in ("classes", "labels"):
        raise DataError(f'kind is {kind!r}; it is "classes" or "labels"')
    if target.ndim != (1 if kind == "classes" else 2):
        raise DataError(f"a target of {kind} has shape (N{', L' if kind == 'labels' else ''}); got {target.shape}")
    sizes = _sizes(len(target), fractions)
    rng = np.random.default_rng(seed)
    keys = _class_keys(target, rng) if kind == "classes" else _label_keys(target, rng, sizes["train"])
    order = np.argsort(keys, kind="stable")
    parts: dict[str, NDArray[np.int64]] = {}
    start = 0
    for part in _PARTS:
        parts[part] = np.sort(order[start : start + sizes[part]]).astype(np.int64)
        start += sizes[part]
    notes = _notes(target, kind, parts, sizes, names)
    return Split(parts["train"], parts["calibration"], parts["test"], tuple(notes))


def _sizes(rows: int, fractions: Mapping[str, float]) -> dict[str, int]:
    for part, share in fractions.items():
        if part not in _PARTS:
            raise DataError(f"there is no part {part!r}; the parts are train, calibration and test")
        if not 0 <= share <= 1:
            raise DataError(f"the share of {part} is {share}; it must be between 0 and 1")
    total = sum(fractions.values())
    if abs(total - 1) > 1e-6:
        raise DataError(f"the shares of train, calibration and test add up to {total:g}, not 1")
    sizes = {"train": 0}
    for part in ("test", "calibration"):
        share = fractions.get(part, 0.0)
        sizes[part] = max(1, round(share * rows)) if share > 0 else 0
    sizes["train"] = rows - sizes["test"] - sizes["calibration"]
    if sizes["train"] < 1:
        needed = 1 + (sizes["test"] > 0) + (sizes["calibration"] > 0)
        raise DataError(
            f"{rows} {'row is' if rows == 1 else 'rows are'} too few to split in train, calibration and test "
            f"({dict(fractions)}); at least {needed} are needed, and many more for a useful model"
        )
    return sizes


def _class_keys(target: NDArray[Any], rng: np.random.Generator) -> NDArray[np.float64]:
    """Where in [0, 1) each row lies; the first row of every class lies at 0, which is in training."""
    shuffled = rng.permutation(len(target))
    by_class = shuffled[np.argsort(target[shuffled], kind="stable")]
    _, starts, counts = np.unique(target[by_class], return_index=True, return_counts=True)
    rank = np.arange(len(target)) - np.repeat(starts, counts)
    offset = np.repeat(rng.random(len(counts)), counts)
    keys = np.empty(len(target))
    keys[by_class] = np.where(rank == 0, -1.0, (rank + offset) / np.repeat(counts, counts))
    return keys


def _label_keys(target: NDArray[Any], rng: np.random.Generator, train: int) -> NDArray[np.float64]:
    keys = np.empty(len(target))
    keys[rng.permutation(len(target))] = np.arange(len(target), dtype=np.float64)
    positive = target > 0
    for label in np.argsort(positive.sum(axis=0), kind="stable")[:train]:
        rows = np.flatnonzero(positive[:, label])
        if len(rows):
            keys[rows[np.argmin(keys[rows])]] = -1.0
    return keys


def _notes(
    target: NDArray[Any],
    kind: str,
    parts: Mapping[str, NDArray[np.int64]],
    sizes: Mapping[str, int],
    names: Sequence[object] | None,
) -> list[str]:
    what = "class" if kind == "classes" else "label"
    if kind == "classes":
        present, inverse = np.unique(target, return_inverse=True)

        def count(rows: NDArray[np.int64]) -> NDArray[np.int64]:
            return np.bincount(inverse[rows], minlength=len(present))
    else:
        present = np.arange(target.shape[1])

        def count(rows: NDArray[np.int64]) -> NDArray[np.int64]:
            return (target[rows] > 0).sum(axis=0, dtype=np.int64)  # type: ignore[no-any-return]

    total = count(np.arange(len(target)))
    counts = {part: count(rows) for part, rows in parts.items()}
    notes = []
    for index, value in enumerate(present):
        absent = [part for part in _PARTS if sizes[part] and not counts[part][index]]
        if not absent or not total[index]:
            continue
        name = names[int(value)] if names is not None else value.item()
        rows = f"{total[index]} {'row' if total[index] == 1 else 'rows'}"
        if total[index] == 1 and "train" not in absent:
            notes.append(f"{what} {name!r} has a single row: it is trained on, so nothing here tests it")
        else:
            where = " or ".join(f"the {part} part" for part in absent)
            notes.append(f"{what} {name!r} has only {rows} and none of them in {where}")
    if len(notes) > 8:
        notes = [*notes[:7], f"… and {len(notes) - 7} more {what}{'es' if what == 'class' else 's'} like these"]
    return notes
