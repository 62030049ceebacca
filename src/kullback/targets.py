"""The four forms a target can take, one validated type each.

The form is decided once, where data enters, by wrapping the array. Everything below takes the wrapped type and
never guesses again: a (N,) array of floats is not quietly rounded to classes, and (N, 1) never broadcasts against
(N,). Shapes and dtypes are checked here; value ranges are checked by the kernels in the pass that reads the values
anyway, and raise the same `TargetError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kullback.errors import TargetError

Rows: TypeAlias = slice | NDArray[np.bool_] | NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class ClassIndices:
    """One class per example, as integers.

    Attributes:
        indices: (N,) integers in [0, C); any integer dtype.
    """

    indices: NDArray[Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "indices", _index_vector(self.indices, "targets"))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, rows: Rows) -> ClassIndices:
        """The same targets for some of the rows."""
        return ClassIndices(self.indices[rows])

    def dense(self, n_classes: int) -> NDArray[np.float64]:
        """The target mass as rows (N, C); indices must be in range."""
        mass = np.zeros((len(self), n_classes))
        mass[np.arange(len(self)), self.indices] = 1
        return mass

    def class_mass(self, n_classes: int, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """Each class' mass summed over weighted rows, (C,)."""
        return np.bincount(self.indices, weight, n_classes).astype(np.float64)


@dataclass(frozen=True, eq=False)
class ClassRows:
    """A one-hot or soft row per example over mutually exclusive classes.

    Rows need not sum to one: a row's total scales its loss, and a row of zeros gives zero loss and gradient.

    Attributes:
        rows: (N, C) finite, non-negative.
    """

    rows: NDArray[Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", _row_matrix(self.rows, "soft targets"))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Rows) -> ClassRows:
        """The same targets for some of the rows."""
        return ClassRows(self.rows[rows])

    def dense(self, n_classes: int) -> NDArray[np.float64]:
        """The target mass as rows (N, C)."""
        return np.asarray(self.rows, dtype=np.float64)

    def class_mass(self, n_classes: int, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """Each class' mass summed over weighted rows, (C,)."""
        return np.asarray(weight @ self.rows, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class ClassMixture:
    """Two classes per example and the share of the first: what mixup and cutmix produce, without dense rows.

    Attributes:
        first: (N,) integers in [0, C).
        second: (N,) integers in [0, C).
        share: (N,) in [0, 1], the mass on `first`; the rest is on `second`.
    """

    first: NDArray[Any]
    second: NDArray[Any]
    share: NDArray[np.float64]

    def __post_init__(self) -> None:
        first = _index_vector(self.first, "mixture's first classes")
        second = _index_vector(self.second, "mixture's second classes")
        share = np.asarray(self.share, dtype=np.float64)
        if share.ndim == 0:
            share = np.full(len(first), float(share))
        if not len(first) == len(second) == len(share) or share.ndim != 1:
            raise TargetError(
                "a mixture needs first, second and share of the same length (N,); "
                f"got {first.shape}, {second.shape} and {share.shape}"
            )
        bad = ~((share >= 0) & (share <= 1))
        if bad.any():
            row = int(np.argmax(bad))
            raise TargetError(f"row {row}: mixture share {share[row]} is not in [0, 1]")
        for name, value in (("first", first), ("second", second), ("share", np.ascontiguousarray(share))):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, rows: Rows) -> ClassMixture:
        """The same targets for some of the rows."""
        return ClassMixture(self.first[rows], self.second[rows], self.share[rows])

    def dense(self, n_classes: int) -> NDArray[np.float64]:
        """The target mass as rows (N, C); indices must be in range."""
        mass = np.zeros((len(self), n_classes))
        row = np.arange(len(self))
        mass[row, self.first] = self.share
        mass[row, self.second] += 1 - self.share  # the two classes may be the same
        return mass

    def class_mass(self, n_classes: int, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """Each class' mass summed over weighted rows, (C,)."""
        first = np.bincount(self.first, weight * self.share, n_classes)
        return np.asarray(first + np.bincount(self.second, weight * (1 - self.share), n_classes))


@dataclass(frozen=True, eq=False)
class LabelRows:
    """Independent labels: several may hold at once.

    Attributes:
        rows: (N, C) of 0/1 (bool or integer) or probabilities in [0, 1].
    """

    rows: NDArray[Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", _row_matrix(self.rows, "multi-label targets"))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Rows) -> LabelRows:
        """The same targets for some of the rows."""
        return LabelRows(self.rows[rows])


ClassTargets: TypeAlias = ClassIndices | ClassRows | ClassMixture
Targets: TypeAlias = ClassTargets | LabelRows


def counted_rows(
    targets: Targets, row_weight: NDArray[np.float64] | None = None, ignore_index: int | None = None
) -> NDArray[np.bool_]:
    """Which rows count, (N,): those of non-zero weight whose class index is not the ignored one."""
    counts = np.ones(len(targets), dtype=bool) if row_weight is None else row_weight != 0
    if ignore_index is not None and isinstance(targets, ClassIndices):
        counts &= targets.indices != ignore_index
    return counts


def as_class_targets(targets: ArrayLike | Targets) -> ClassTargets:
    """Wrap raw targets of mutually exclusive classes.

    Args:
        targets: (N,) integers or booleans for class indices, (N, C) numbers for one-hot or soft rows, or one of the
            target types, which is returned as it is.

    Raises:
        TargetError: for floats where indices are expected, (N, 1) columns, text, or `LabelRows`.

    >>> as_class_targets([0, 2, 1]).indices
    array([0, 2, 1])
    """
    if isinstance(targets, ClassIndices | ClassRows | ClassMixture):
        return targets
    if isinstance(targets, LabelRows):
        raise TargetError(
            "these targets are independent labels (LabelRows), but the loss is over mutually exclusive classes; "
            "use BinaryCrossEntropy, or wrap the rows in ClassRows if each row shares one unit of probability"
        )
    array = _as_array(targets, "targets")
    if array.ndim == 1:
        return ClassIndices(array)
    if array.ndim == 2 and array.shape[1] == 1:
        raise TargetError(
            f"targets have shape {array.shape}, a single column; class indices are a vector (N,): pass targets.ravel()"
        )
    if array.ndim == 2:
        return ClassRows(array)
    raise TargetError(f"targets have shape {array.shape}; expected class indices (N,) or one-hot/soft rows (N, C)")


def as_label_targets(targets: ArrayLike | Targets) -> LabelRows:
    """Wrap raw targets of independent labels.

    Args:
        targets: (N, C) of 0/1 or probabilities, or `LabelRows`, which is returned as it is.

    Raises:
        TargetError: for a vector of class indices, or targets wrapped as mutually exclusive classes.

    >>> as_label_targets([[1, 0, 1]]).rows
    array([[1, 0, 1]])
    """
    if isinstance(targets, LabelRows):
        return targets
    if isinstance(targets, ClassIndices | ClassRows | ClassMixture):
        raise TargetError(
            f"these targets are mutually exclusive classes ({type(targets).__name__}), but the loss treats each label "
            "on its own; use CrossEntropy, or wrap 0/1 rows in LabelRows if several labels may hold at once"
        )
    array = _as_array(targets, "targets")
    if array.ndim == 1:
        raise TargetError(
            f"targets have shape {array.shape}; independent labels are rows (N, C) of 0/1. For one class index per "
            "example use CrossEntropy; for a single label pass targets.reshape(-1, 1)"
        )
    return LabelRows(array)


def _as_array(values: ArrayLike, what: str) -> NDArray[Any]:
    if isinstance(values, np.ma.MaskedArray):
        raise TargetError(
            f"{what}: a masked array is not taken, for its mask would be lost; fill it with the loss' ignore_index"
        )
    try:
        return np.asarray(values)
    except ValueError as error:
        raise TargetError(f"{what} cannot be made an array, are their rows of one length? ({error})") from None


def _index_vector(values: ArrayLike, what: str) -> NDArray[Any]:
    array = _as_array(values, what)
    if array.ndim != 1:
        raise TargetError(f"{what} have shape {array.shape}; class indices are a vector (N,)")
    if array.size == 0 and array.dtype.kind == "f":
        array = array.astype(np.int64)  # np.asarray([]) is a float array; an empty vector has no form to misread
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if array.dtype.kind not in "iu":
        hint = (
            "floats are not rounded to classes; convert with .astype(int) if they are indices"
            if array.dtype.kind == "f"
            else "encode labels as 0 … C−1 first (the classifiers do this for you)"
        )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row = int(np.argmax(~np.isfinite(array)))
            raise TargetError(f"row {row}: target {array[row]} is not a class index; {hint}")
        raise TargetError(f"{what} have dtype {array.dtype}, expected integers; {hint}")
    return array


def _row_matrix(values: ArrayLike, what: str) -> NDArray[Any]:
    array = _as_array(values, what)
    if array.ndim != 2:
        raise TargetError(f"{what} have shape {array.shape}, expected rows (N, C)")
    if array.dtype.kind not in "biuf":
        raise TargetError(f"{what} have dtype {array.dtype}, expected numbers")
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    return array
