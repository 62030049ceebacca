"""The loss contract: what every loss offers, and the one place where calls are checked and reduced.

A loss is an immutable value: a frozen dataclass whose fields are its settings, hashable, comparable, and spelled by
``str``. Subclasses supply the mathematics of one loss; this module supplies everything that is the same for all.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kullback.errors import InfiniteLossWarning, InputError, ShapeError, TargetError
from kullback.kernels.recipe import Evaluation, TargetSummary
from kullback.kernels.reference.targets import check_range, label_error
from kullback.losses.reduction import Denominator, Empty, Reduction, check_choice, denominator_of, empty_value
from kullback.targets import ClassIndices, LabelRows, Targets, counted_rows

Array: TypeAlias = NDArray[Any]
Float: TypeAlias = NDArray[np.float64]

LEAST_TEMPERATURE = 1e-15
BLOCK_ELEMENTS = 1 << 17  # 1 MB of float64: what is done in NumPy is done on this much at a time


class Loss(ABC):
    """A classification loss over raw scores (logits), in nats.

    Attributes:
        name: the spelling's name, e.g. ``"cross_entropy"``.
        target_form: ``"classes"`` (mutually exclusive) or ``"labels"`` (independent).
        link: ``"softmax"`` or ``"sigmoid"``, the map from logits to probabilities.
    """

    name: ClassVar[str]
    target_form: ClassVar[Literal["classes", "labels"]]
    link: ClassVar[str]

    __array_ufunc__ = None  # a NumPy number times a loss is the loss' business

    # ------------------------------------------------------------ what the loss is

    @property
    @abstractmethod
    def convex(self) -> bool:
        """Whether the loss is convex in the logits."""

    @property
    def ignores_level(self) -> bool:
        """Whether a number added to all logits of a row changes nothing, as it changes no softmax of them."""
        return self.link == "softmax"

    @property
    @abstractmethod
    def proper(self) -> bool:
        """Whether the true distribution is its minimiser, so that its probabilities need no recovery."""

    @property
    @abstractmethod
    def bounded_gradient(self) -> bool:
        """Whether no single example can pull with unbounded force."""

    @property
    @abstractmethod
    def ceiling(self) -> float:
        """The least upper bound of one example's loss, in nats."""

    @abstractmethod
    def initial_value(self, n_classes: int) -> float:
        """The mean loss of a model that has learnt nothing (all logits equal), in nats."""

    @abstractmethod
    def floor(
        self,
        targets: ArrayLike | Targets,
        *,
        n_classes: int | None = None,
        sample_weight: ArrayLike | None = None,
        reduction: Reduction = "mean",
        denominator: Denominator = "weights",
        empty: Empty = "error",
    ) -> Any:
        """The lowest loss any logits could reach on these targets, in nats."""

    @abstractmethod
    def best_constant(
        self, targets: ArrayLike | Targets, *, n_classes: int | None = None, sample_weight: ArrayLike | None = None
    ) -> Float:
        """The one row of logits (C,) that minimises the mean loss on these targets: the optimal bias-only model."""

    @abstractmethod
    def elicited(self, p: ArrayLike) -> Float:
        """The distribution this loss' minimiser reports when the truth is `p`: (C,) or (N, C)."""

    def elicited_log(self, p: ArrayLike) -> Float:
        """The logarithm of `elicited`, (C,) or (N, C), −inf for zeros."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.elicited(p)))

    @abstractmethod
    def recover(self, q: ArrayLike) -> Float:
        """The truth behind a reported distribution `q`: the inverse of `elicited`, (C,) or (N, C)."""

    @abstractmethod
    def recover_log(self, log_q: ArrayLike) -> Float:
        """`recover` on log-probabilities, (N, C), without rounding through probabilities where that is possible."""

    @abstractmethod
    def probabilities(self, logits: ArrayLike) -> Array:
        """What the model reports, (N, C): the link applied to the logits. See `recover` for the data's own."""

    @abstractmethod
    def log_probabilities(self, logits: ArrayLike) -> Array:
        """The logarithm of `probabilities`, (N, C), computed without rounding a probability first."""

    @property
    def backend(self) -> str:
        """Where the loss runs: ``"cpu"`` (C++), ``"reference"`` or ``"numpy"`` (NumPy, slower)."""
        return "numpy"

    @abstractmethod
    def decide(self, logits: ArrayLike) -> NDArray[np.int64]:
        """The decision the loss was trained for: a class index (N,), or 0/1 per label (N, C)."""

    # ------------------------------------------------------------ what a subclass computes

    @abstractmethod
    def _targets(self, targets: ArrayLike | Targets) -> Targets: ...

    @abstractmethod
    def _summary(self, targets: Any, n_classes: int, row_weight: Float | None) -> TargetSummary: ...

    def _row_weight(self, targets: Any, sample_weight: Float | None) -> Float | None:
        """What each row's loss is multiplied by; a loss may add its own factor to the sample weight."""
        return sample_weight

    def _summary_and_weight(
        self, targets: Any, n_classes: int, sample_weight: Float | None
    ) -> tuple[TargetSummary, Float | None]:
        """`_summary` and `_row_weight`; a loss may find both at once."""
        return self._summary(targets, n_classes, sample_weight), self._row_weight(targets, sample_weight)

    @abstractmethod
    def _evaluate(
        self,
        logits: Array,
        targets: Any,
        *,
        row_weight: Float | None,
        scale: float,
        per_example: Array | None,
        gradient: Array | None,
    ) -> Evaluation: ...

    @abstractmethod
    def _hessian_product(
        self, logits: Array, targets: Any, direction: Array, *, row_weight: Float | None, scale: float, out: Array
    ) -> None: ...

    @abstractmethod
    def _hessian_diagonal(
        self, logits: Array, targets: Any, *, row_weight: Float | None, scale: float, out: Array
    ) -> None: ...

    # ------------------------------------------------------------ calls

    def __call__(
        self,
        logits: ArrayLike,
        targets: ArrayLike | Targets,
        *,
        sample_weight: ArrayLike | None = None,
        reduction: Reduction = "mean",
        denominator: Denominator = "weights",
        empty: Empty = "error",
    ) -> Any:
        """The loss of a batch, in nats.

        Args:
            logits: (N, C) raw scores, float32 or float64.
            targets: one of the forms of `kullback.targets`, raw or wrapped.
            sample_weight: (N,) non-negative; a row of weight 0 is never looked at.
            reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the (N,) per-example losses.
            denominator: what the mean divides by: ``"weights"``, the sum of sample × class weights of the counted
                rows, or ``"examples"``, their number.
            empty: what the mean over no counted row is: ``"error"``, ``"nan"`` or ``"zero"``.

        Returns:
            A float, or a float64 array (N,) for ``reduction="none"``.

        Raises:
            TargetError: naming the row, the value and the valid range.
            ShapeError: if logits, targets or weights do not match.
            InputError: for an unknown option, or an empty batch with ``empty="error"``.
        """
        array = as_logits(logits)
        batch = Batch(self, array.shape, targets, sample_weight, reduction, denominator, empty)
        losses = np.empty(len(array)) if reduction == "none" else None
        total = self._run(array, batch, losses, None)
        return batch.value(total) if losses is None else losses

    def per_example(
        self,
        logits: ArrayLike,
        targets: ArrayLike | Targets,
        *,
        sample_weight: ArrayLike | None = None,
        out: Array | None = None,
    ) -> Array:
        """Each row's loss times its sample weight, (N,) in nats; exactly 0 for rows that do not count.

        Args:
            logits: (N, C).
            targets: N targets.
            sample_weight: (N,) or None.
            out: optional (N,) float array to write into.

        Raises:
            TargetError, ShapeError: as for calling the loss.
        """
        array = as_logits(logits)
        batch = Batch(self, array.shape, targets, sample_weight, "none")
        losses = np.empty(len(array)) if out is None else out
        _check_output(losses)
        if losses.shape != (len(array),) or losses.dtype not in (np.float32, np.float64):
            raise ShapeError(
                f"out has shape {losses.shape} and dtype {losses.dtype}; expected ({len(array)},) float32 or float64"
            )
        self._run(array, batch, losses, None)
        return losses

    def value_and_gradient(
        self,
        logits: ArrayLike,
        targets: ArrayLike | Targets,
        *,
        sample_weight: ArrayLike | None = None,
        reduction: Reduction = "mean",
        denominator: Denominator = "weights",
        empty: Empty = "error",
        out: Array | None = None,
    ) -> tuple[Any, Array]:
        """The loss and its gradient in one pass over the logits.

        Args:
            logits: (N, C).
            targets: N targets.
            sample_weight: (N,) or None.
            reduction: as for calling the loss; with ``"none"`` row i of the gradient belongs to loss i.
            denominator: as for calling the loss.
            empty: as for calling the loss; the gradient of an empty batch is zero.
            out: optional (N, C) array of the logits' dtype for the gradient; the logits' own array is allowed.
                Its contents are undefined if an error is raised.

        Returns:
            The value (a float, or (N,) for ``"none"``) and the gradient (N, C).

        Raises:
            TargetError, ShapeError, InputError: as for calling the loss.
        """
        array = as_logits(logits)
        batch = Batch(self, array.shape, targets, sample_weight, reduction, denominator, empty)
        gradient = _output(array, out)
        losses = np.empty(len(array)) if reduction == "none" else None
        total = self._run(array, batch, losses, gradient)
        return (batch.value(total) if losses is None else losses), gradient

    def hessian_product(
        self,
        logits: ArrayLike,
        targets: ArrayLike | Targets,
        direction: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        reduction: Reduction = "mean",
        denominator: Denominator = "weights",
        empty: Empty = "error",
        out: Array | None = None,
    ) -> Array:
        """The Hessian times a direction, (N, C); rows do not interact.

        Args:
            logits: (N, C).
            targets: N targets.
            direction: (N, C).
            sample_weight: (N,) or None.
            reduction: ``"mean"``, ``"sum"`` or ``"none"`` (the last two are the same here).
            denominator: as for calling the loss.
            empty: as for calling the loss; the product over an empty batch is zero.
            out: optional (N, C) array to write into.

        Raises:
            TargetError, ShapeError, InputError: as for calling the loss.
        """
        array = as_logits(logits)
        batch = Batch(self, array.shape, targets, sample_weight, reduction, denominator, empty)
        along = np.asarray(direction, dtype=array.dtype)
        if along.shape != array.shape:
            raise ShapeError(f"direction has shape {along.shape}, the logits {array.shape}; they must match")
        result = _output(array, out)
        self._hessian_product(array, batch.targets, along, row_weight=batch.row_weight, scale=batch.scale, out=result)
        return result

    def hessian_diagonal(
        self,
        logits: ArrayLike,
        targets: ArrayLike | Targets,
        *,
        sample_weight: ArrayLike | None = None,
        reduction: Reduction = "mean",
        denominator: Denominator = "weights",
        empty: Empty = "error",
        out: Array | None = None,
    ) -> Array:
        """The second derivative in each logit alone, (N, C); arguments as for `hessian_product`."""
        array = as_logits(logits)
        batch = Batch(self, array.shape, targets, sample_weight, reduction, denominator, empty)
        result = _output(array, out)
        self._hessian_diagonal(array, batch.targets, row_weight=batch.row_weight, scale=batch.scale, out=result)
        return result

    def _run(self, logits: Array, batch: Batch, per_example: Array | None, gradient: Array | None) -> float:
        evaluation = self._evaluate(
            logits,
            batch.targets,
            row_weight=batch.row_weight,
            scale=batch.scale,
            per_example=per_example,
            gradient=gradient,
        )
        if evaluation.infinite_row >= 0:
            warn_infinite(evaluation.infinite_row, stacklevel=4)
        return evaluation.total

    # ------------------------------------------------------------ sums

    def __add__(self, other: object) -> Loss:
        if other == 0:  # so that sum() works
            return self
        if not isinstance(other, Loss):
            return NotImplemented
        from kullback.losses.weighted_sum import WeightedSum

        return WeightedSum(((1.0, self), (1.0, other)))

    __radd__ = __add__

    def __mul__(self, factor: object) -> Loss:
        if isinstance(factor, bool) or not isinstance(factor, int | float | np.number):
            return NotImplemented
        from kullback.losses.weighted_sum import WeightedSum

        return WeightedSum(((float(factor), self),))

    __rmul__ = __mul__

    def __neg__(self) -> Loss:
        return self * -1.0

    def __sub__(self, other: object) -> Loss:
        return self + -other if isinstance(other, Loss) else NotImplemented

    def __truediv__(self, divisor: object) -> Loss:
        if isinstance(divisor, bool) or not isinstance(divisor, int | float | np.number):
            return NotImplemented
        if divisor == 0:
            raise InputError(f"{self} cannot be divided by 0")
        return self * (1.0 / float(divisor))

    # ------------------------------------------------------------ spelling

    def __str__(self) -> str:
        settings = []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value != field.default:
                shown = list(value) if isinstance(value, tuple) else value
                settings.append(f"{field.name}={shown!r}")
        return f"{self.name}({', '.join(settings)})" if settings else self.name


class Batch:
    """One checked call: targets, weights, and the factor the reduction puts on every row.

    Attributes:
        targets: wrapped targets of N rows.
        row_weight: (N,) what the kernels multiply each row by, or None for all ones.
        divisor: what the summed loss is divided by.
        scale: its inverse; 0 where no row counts.
    """

    def __init__(
        self,
        loss: Loss,
        shape: tuple[int, int],
        targets: ArrayLike | Targets,
        sample_weight: ArrayLike | None,
        reduction: Reduction,
        denominator: Denominator = "weights",
        empty: Empty = "error",
    ) -> None:
        check_choice("reduction", reduction, Reduction)
        check_choice("denominator", denominator, Denominator)
        check_choice("empty", empty, Empty)
        n, n_classes = shape
        if n_classes == 0:
            raise ShapeError(f"logits have shape {shape}: there is no column, and so no class")
        self.targets = loss._targets(targets)
        if len(self.targets) != n:
            raise ShapeError(f"{n} rows of logits but {len(self.targets)} targets")
        weight = as_sample_weight(sample_weight, n)
        summary, self.row_weight = loss._summary_and_weight(self.targets, n_classes, weight)
        self.divisor = denominator_of(summary, denominator) if reduction == "mean" else 1.0
        self._empty: Empty = empty
        self._nothing = reduction == "mean" and (summary.counted == 0 or self.divisor == 0)
        if self._nothing:
            empty_value(empty)  # raises before anything is computed, if that is the choice
        self.scale = 0.0 if self._nothing else 1.0 / self.divisor

    def value(self, total: float) -> float:
        """The reduced value of a summed loss."""
        return empty_value(self._empty) if self._nothing else total / self.divisor


def warn_infinite(row: int, *, stacklevel: int) -> None:
    """Say which row has an infinite loss, and why."""
    warnings.warn(
        f"row {row}: the loss is +inf, because an infinite logit leaves no probability "
        "for a class that holds target mass",
        InfiniteLossWarning,
        stacklevel=stacklevel,
    )


def _output(logits: Array, out: Array | None) -> Array:
    """A fresh array like the logits, or the caller's own, checked."""
    if out is None:
        return np.empty(logits.shape, dtype=logits.dtype)
    _check_output(out)
    if out.shape != logits.shape or out.dtype != logits.dtype or not out.flags.writeable:
        raise ShapeError(
            f"out has shape {out.shape} and dtype {out.dtype}; expected a writeable array of shape "
            f"{logits.shape} and dtype {logits.dtype}, the logits' own"
        )
    return out


def _check_output(out: object) -> None:
    """Refuse what cannot take results: no array, or one whose elements share their place in memory."""
    if not isinstance(out, np.ndarray):
        raise ShapeError(f"out is a {type(out).__name__}; expected a NumPy array to write into")
    if any(step == 0 and n > 1 for step, n in zip(out.strides, out.shape, strict=True)):
        raise ShapeError(f"out has strides {out.strides}: several of its elements share one place in memory; copy it")


def as_logits(logits: ArrayLike) -> Array:
    """Logits as an (N, C) array of float32 or float64: half precision becomes float32, integers float64.

    Raises:
        ShapeError: unless there are two dimensions.
        InputError: for anything but real numbers.
    """
    array = as_array(logits, "logits")
    if array.ndim != 2:
        raise ShapeError(f"logits have shape {array.shape}, expected (N, C): one row per example, one column per class")
    if array.dtype in (np.float32, np.float64):
        return array
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype.kind in "biuf":
        return array.astype(np.float64)
    raise InputError(f"logits have dtype {array.dtype}, expected real numbers")


def as_array(values: ArrayLike, what: str) -> Array:
    """An array of what a caller gave.

    Raises:
        InputError: for what no plain array can hold: rows of several lengths, a masked array, a tensor on a tape.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise InputError(
            f"{what}: a masked array is not taken, for its mask would be lost; fill it, and leave rows out by "
            "ignore_index or a sample weight of 0, classes by a logit of -inf"
        )
    if getattr(values, "requires_grad", False):
        raise InputError(
            f"{what}: this tensor records its gradient, which NumPy would lose; use the losses of kullback.torch, or "
            "pass tensor.detach()"
        )
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise InputError(f"{what} cannot be made an array of numbers, are its rows of one length? ({error})") from None


def check_class_number(n_classes: int) -> int:
    """A number of classes: an integer of at least 1."""
    if isinstance(n_classes, bool) or not isinstance(n_classes, int | np.integer) or n_classes < 1:
        raise InputError(f"n_classes={n_classes!r} is not valid; it is an integer of at least 1")
    return int(n_classes)


def as_sample_weight(sample_weight: ArrayLike | None, n: int) -> Float | None:
    """Sample weights as float64 (N,), finite and non-negative.

    Raises:
        ShapeError: unless there is one weight a row.
        InputError: for a negative, NaN or infinite weight, naming its row.
    """
    if sample_weight is None:
        return None
    given = as_array(sample_weight, "sample_weight")
    try:
        weight = np.ascontiguousarray(given, dtype=np.float64)
    except (ValueError, TypeError):
        raise InputError("sample_weight has entries that are not numbers; it is one finite number a row") from None
    if weight.shape != (n,):
        raise ShapeError(f"sample_weight has shape {np.shape(sample_weight)}, expected ({n},): one weight a row")
    bad = ~((weight >= 0) & (weight < math.inf))
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(f"row {row}: sample weight {weight[row]} is not valid; weights are finite and at least 0")
    return weight


class ClassVector(tuple[float, ...]):
    """One number per class, hashable."""

    @functools.cached_property
    def array(self) -> Float:
        """The numbers as an array (C,), which batch after batch needs: read-only, and made once."""
        array = np.array(self)
        array.flags.writeable = False
        return array

    def __reduce__(self) -> tuple[Any, ...]:
        return ClassVector, (tuple(self),)


def class_vector(name: str, values: float | Sequence[float] | ArrayLike | None) -> ClassVector | None:
    """Validate a per-class setting and make it hashable: finite, non-negative floats, or None.

    Raises:
        InputError: for an entry that is negative or not finite, all zeros, or anything but a vector.
    """
    if values is None:
        return None
    try:
        vector = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name}={values!r} is not a list of numbers, one per class") from None
    if vector.ndim != 1 or len(vector) == 0:
        raise InputError(f"{name} has shape {vector.shape}, expected one number per class (C,)")
    bad = ~((vector >= 0) & (vector < math.inf))
    if bad.any():
        k = int(np.argmax(bad))
        raise InputError(f"{name}[{k}] = {vector[k]} is not valid; entries are finite and at least 0")
    if not vector.any():
        raise InputError(f"{name} is all zeros: no class would count")
    return ClassVector(vector.tolist())


def per_class(name: str, values: tuple[float, ...] | None, n_classes: int) -> Float | None:
    """A stored class vector as an array, checked against the number of classes at hand."""
    if values is None:
        return None
    if len(values) != n_classes:
        raise ShapeError(f"{name} has {len(values)} entries, the logits have {n_classes} columns")
    return values.array if isinstance(values, ClassVector) else np.asarray(values)


def class_count(loss: Loss) -> int | None:
    """How many classes the loss' own vectors say there are; None if it has none."""
    for name in ("class_weight", "positive_weight", "priors", "class_counts"):
        vector = getattr(loss, name, None)
        if vector is not None:
            return len(vector)
    return None


def check_unit(name: str, value: float) -> float:
    """A setting in [0, 1)."""
    number = check_number(name, value)
    if not 0 <= number < 1:
        raise InputError(f"{name}={value!r} is not valid; it lies in [0, 1)")
    return number


def check_positive(name: str, value: float) -> float:
    """A finite setting above 0."""
    number = check_number(name, value)
    if not 0 < number < math.inf:
        raise InputError(f"{name}={value!r} is not valid; it is a finite number above 0")
    return number


def check_temperature(value: float) -> float:
    """A temperature: the square of its inverse, by which curvature grows, is kept within float32."""
    number = check_positive("temperature", value)
    if number < LEAST_TEMPERATURE:
        raise InputError(f"temperature={value!r} is not valid; it is at least {LEAST_TEMPERATURE:g}")
    return number


def check_at_least(name: str, value: float, least: float) -> float:
    """A finite setting that is not below `least`."""
    number = check_number(name, value)
    if not least <= number < math.inf:
        raise InputError(f"{name}={value!r} is not valid; it is a finite number of at least {least}")
    return number


def check_between(name: str, value: float, least: float, most: float) -> float:
    """A setting in [least, most]."""
    number = check_number(name, value)
    if not least <= number <= most:
        raise InputError(f"{name}={value!r} is not valid; it lies between {least} and {most}")
    return number


def check_number(name: str, value: float) -> float:
    """A real number that is not a truth value."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        raise InputError(f"{name}={value!r} is not a number")
    return float(value)


def check_ignore_index(value: int | None) -> int | None:
    """An integer or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(f"ignore_index={value!r} is not an integer; use None to ignore nothing")
    return int(value)


def as_distribution(values: ArrayLike, what: str) -> Float:
    """A row (C,) or rows (N, C) of non-negative numbers that sum to one.

    Raises:
        ShapeError: for other shapes.
        InputError: for entries that are negative or not finite, or sums away from 1 by more than 1e-4.
    """
    p = np.asarray(values, dtype=np.float64)
    if p.ndim not in (1, 2):
        raise ShapeError(f"{what} has shape {p.shape}, expected (C,) or (N, C)")
    if not ((p >= 0) & np.isfinite(p)).all():
        raise InputError(f"{what} has an entry that is negative or not finite; probabilities are at least 0")
    total = p.sum(axis=-1)
    if p.size and not np.allclose(total, 1, rtol=0, atol=1e-4):
        raise InputError(f"{what} has a row that sums to {np.ravel(total)[np.argmax(abs(np.ravel(total) - 1))]}, not 1")
    return p


def sharpened(s: Float, power: float) -> Float:
    """Scores whose softmax is s^power, normalised, (N, C); for an infinite power all mass is on the (first) mode."""
    if power == math.inf:
        scores = np.full(s.shape, -math.inf)
        scores[np.arange(len(s)), np.argmax(s, axis=1)] = 0.0
        return scores
    with np.errstate(divide="ignore"):
        scores = power * np.log(s)
    scores -= scores.max(axis=1, keepdims=True)
    return np.asarray(scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)))


def checked_rows(
    targets: Targets, n_classes: int, row_weight: Float | None, ignore_index: int | None
) -> NDArray[np.bool_]:
    """Which rows count, (N,), once what those rows hold is checked: whoever turns targets into masses asks here.

    Raises:
        TargetError: for a counted row's class out of range, soft target that is negative or not finite, or label
            outside [0, 1], naming the row, the column and the value.
        ShapeError: for rows that are not `n_classes` wide.
    """
    if not isinstance(targets, LabelRows):
        counts = counted_rows(targets, row_weight, ignore_index)
        check_range(targets, n_classes, counts)
        return counts
    if targets.rows.shape[1] != n_classes:
        raise TargetError(f"multi-label targets have {targets.rows.shape[1]} columns, the logits {n_classes}")
    counts = counted_rows(targets, row_weight)
    step = max(1, BLOCK_ELEMENTS // n_classes)
    for start in range(0, len(counts), step):
        rows = targets.rows[start : start + step]
        bad = counts[start : start + step, None] & ~((rows >= 0) & (rows <= 1))
        if ignore_index is not None:
            bad &= rows != ignore_index
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            raise label_error(start + row, column, rows[row, column])
    return counts


def infer_n_classes(targets: Targets, n_classes: int | None) -> int:
    """The number of classes: given, or the width of the rows.

    Raises:
        InputError: if the targets are indices, which do not say how many classes there are.
    """
    rows = getattr(targets, "rows", None)
    if n_classes is None:
        if rows is None:
            form = "indices" if isinstance(targets, ClassIndices) else "mixtures"
            raise InputError(f"class {form} do not say how many classes there are; pass n_classes=")
        return int(rows.shape[1])
    return check_class_number(n_classes)
