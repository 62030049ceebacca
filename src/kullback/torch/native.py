"""CPU tensors through the native kernels: NumPy views of the same memory, no copies, no compiled tie to PyTorch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kullback import kernels
from kullback.errors import InputError, TargetError
from kullback.kernels import cpu
from kullback.kernels.recipe import Array, Evaluation, SoftmaxRecipe
from kullback.targets import ClassIndices, ClassMixture, ClassRows, ClassTargets
from kullback.torch import plain, team
from kullback.torch.errors import ClassIndexError, SettingError, SoftTargetError
from kullback.torch.rows import TargetRows, accumulation_dtype
from kullback.torch.settings import RowSettings

team.share_threads()

# Elements of logits that are widened at a time where the kernels do not take their type.
WIDENED_ELEMENTS = 2**20
# Fewer targets than these are counted faster than guessed.
MANY_TARGETS = 2**16
# Batches whose targets are counted after a wrong guess, before the next one.
WARY_BATCHES = 2**6
_wary = 0


class PerRow(NamedTuple):
    """Room for one number of each row; what was not asked for is None. See `Pass`."""

    losses: Tensor | None
    lse: Tensor | None
    prediction: Tensor | None

    def part(self, rows: slice) -> PerRow:
        """The room of some of the rows."""
        return PerRow(*(None if t is None else t[rows] for t in self))


class Pass(NamedTuple):
    """What one pass over the rows gives; parts that were not asked for are None.

    Attributes:
        total: Σ row weight × loss, a Python float.
        losses: (N,) row weight × loss.
        gradient: (N, C) scale × row weight × ∂loss/∂logits in the logits' dtype.
        lse: (N,) log-sum-exp of what the softmax is taken of; 0 for rows that do not count.
        prediction: (N,) int64, the class with the largest logit; −1 for rows that do not count, or without one.
        counted: rows that count.
    """

    total: float
    losses: Tensor | None
    gradient: Tensor | None
    lse: Tensor | None
    prediction: Tensor | None
    counted: int


def runs(tensor: Tensor) -> bool:
    """Whether the kernels reach this tensor's memory; others are left to `devices`."""
    return tensor.device.type == "cpu"


def array_of(tensor: Tensor) -> Array:
    """A CPU tensor's memory as a NumPy array."""
    plain = tensor.detach()
    return (plain.resolve_neg() if plain.is_neg() else plain).numpy()


def class_targets(target: TargetRows) -> ClassTargets:
    """The same targets as the kernels take them."""
    first = array_of(target.first if target.first.dtype != torch.bfloat16 else target.first.float())
    if target.is_soft():
        return ClassRows(first)
    if target.second is None or target.share is None:
        return ClassIndices(first)
    try:
        return ClassMixture(first, array_of(target.second), array_of(target.share))
    except TargetError as error:
        raise SettingError(str(error)) from None


def row_weights(row_weight: Tensor | None, *, checked: bool) -> Array | None:
    """Row weights in float64; those of users are checked, those of a backward pass may have any sign.

    Raises:
        SettingError: for a negative, NaN or infinite weight, naming its position.
    """
    if row_weight is None:
        return None
    weight = array_of(row_weight.to(torch.float64))
    if checked:
        bad = ~((weight >= 0) & (weight < math.inf))
        if bad.any():
            row = int(np.argmax(bad))
            raise SettingError(
                f"sample_weight {weight[row]} of example {row} is not valid; weights are finite and at least 0"
            )
    return weight


def denominator(
    target: TargetRows,
    n_classes: int,
    class_weight: Tensor | None,
    row_weight: Array | None,
    settings: RowSettings,
    kind: str,
    shape: Sequence[int],
) -> tuple[int, float]:
    """How many rows count, and what the mean divides by; index ranges are checked on the way."""
    if target.is_soft() and not n_classes:  # PyTorch's mean over rows without classes is that of an empty batch
        return 0, 0.0
    if target.is_soft() and (class_weight is None or kind == "examples"):
        counted = target.first.shape[0] if row_weight is None else int(np.count_nonzero(row_weight))
        weight = float(counted) if row_weight is None else float(row_weight.sum())
        return counted, weight if kind == "weights" else float(counted)
    try:
        summary = kernels.active().softmax_targets(
            class_targets(target),
            n_classes,
            row_weight=row_weight,
            class_weight=None if class_weight is None else array_of(class_weight.double()),
            ignore_index=settings.ignore_index,
        )
    except TargetError as error:
        raise target_error(error, target, n_classes, row_weight, settings, shape) from None
    return summary.counted, summary.weight if kind == "weights" else float(summary.counted)


def probably_all_count(target: TargetRows, class_weight: Tensor | None, row_weight: Array | None, kind: str) -> bool:
    """Whether rows that all count alike may be expected, so that it pays to look at the targets only once.

    A pass over a million class indices takes as long as a tenth of the loss of ten classes. The answer is a guess;
    `Pass.counted` tells whether it was right, and if not, `guessed_wrong` has to hear of it.
    """
    global _wary
    labels = target.first
    if labels.ndim != 1 or target.second is not None or row_weight is not None or len(labels) < MANY_TARGETS:
        return False
    if class_weight is not None and kind == "weights":
        return False
    if _wary:
        _wary -= 1
        return False
    return True


def guessed_wrong() -> None:
    """A guess of `probably_all_count` cost a second pass: the next batches may be like this one."""
    global _wary
    _wary = WARY_BATCHES


def evaluate(
    settings: RowSettings,
    logits: Tensor,
    target: TargetRows,
    class_weight: Tensor | None,
    row_weight: Array | None,
    *,
    scale: float = 1.0,
    with_losses: bool = False,
    gradient: Tensor | None = None,
    with_statistics: bool = False,
    shape: Sequence[int] = (),
) -> Pass:
    """Losses and, where a tensor is given for it, the gradient of CPU rows.

    Args:
        settings: the loss.
        logits: (N, C), rows with unit stride run without a copy.
        target: N targets.
        class_weight: (C,) or None.
        row_weight: (N,) float64 or None.
        scale: multiplies the gradient only.
        with_losses: whether per-row losses are wanted.
        gradient: optional (N, C) of the logits' dtype to write into; may share the logits' memory exactly.
        with_statistics: whether log-sum-exps and predictions are wanted.
        shape: the user's shape of N, for error messages.

    Raises:
        ClassIndexError, SoftTargetError: naming the position, the value and the valid range.
    """
    n_rows, n_classes = logits.shape
    wide = accumulation_dtype(logits.dtype)
    per_row = PerRow(
        torch.zeros(n_rows, dtype=wide, device="cpu") if with_losses else None,
        torch.zeros(n_rows, dtype=wide, device="cpu") if with_statistics else None,
        torch.full((n_rows,), -1, device="cpu") if with_statistics else None,
    )
    if not n_classes:
        check_targets(target, n_classes, row_weight, settings, shape)
        return Pass(0.0, per_row.losses, gradient, per_row.lse, per_row.prediction, 0)
    in_place = gradient is not None and gradient.data_ptr() == logits.data_ptr()
    checked = target.is_soft() and not settings.by_mass and (in_place or settings.smoothing != 0)
    signed = checked and check_soft(target, row_weight, settings, shape)
    if checked and settings.smoothing:  # the kernels smooth by mass
        smoothed = target.first.to(wide) * (1 - settings.smoothing) + settings.smoothing / n_classes
        target, settings = TargetRows(smoothed), settings._replace(smoothing=0.0)
    run = _evaluate_signed if signed else _evaluate_unsigned
    try:
        found = run(settings, logits, target, class_weight, row_weight, scale, per_row, gradient, shape)
    except SoftTargetError:
        if checked or not check_soft(target, row_weight, settings, shape):
            raise
        found = _evaluate_signed(settings, logits, target, class_weight, row_weight, scale, per_row, gradient, shape)
    return Pass(found.total, per_row.losses, gradient, per_row.lse, per_row.prediction, found.counted)


def _evaluate_unsigned(
    settings: RowSettings,
    logits: Tensor,
    target: TargetRows,
    class_weight: Tensor | None,
    row_weight: Array | None,
    scale: float,
    per_row: PerRow,
    gradient: Tensor | None,
    shape: Sequence[int],
) -> Evaluation:
    if takes(logits.dtype):
        return _evaluate_native(settings, logits, target, class_weight, row_weight, scale, per_row, gradient, shape)
    total, counted = 0.0, 0
    for rows in plain.chunks(logits.shape[0], logits.shape[1], WIDENED_ELEMENTS):
        z = logits[rows].float()
        found = _evaluate_native(
            settings,
            z,
            plain.part(target, rows),
            class_weight,
            None if row_weight is None else row_weight[rows],
            scale,
            per_row.part(rows),
            None if gradient is None else z,
            shape,
        )
        total, counted = total + found.total, counted + found.counted
        if gradient is not None:
            gradient[rows] = z
    return Evaluation(total, -1, counted)


def _evaluate_signed(
    settings: RowSettings,
    logits: Tensor,
    target: TargetRows,
    class_weight: Tensor | None,
    row_weight: Array | None,
    scale: float,
    per_row: PerRow,
    gradient: Tensor | None,
    shape: Sequence[int],
) -> Evaluation:
    """Soft rows with negative entries: the loss is linear in them, so what is below 0 is a loss to subtract."""
    total, counted = 0.0, 0
    for rows in plain.chunks(logits.shape[0], logits.shape[1], WIDENED_ELEMENTS):
        z = logits[rows].to(accumulation_dtype(logits.dtype))
        mass = target.first[rows]
        weight = None if row_weight is None else row_weight[rows]
        parts = []
        here = per_row.part(rows)
        for part in (mass.clamp_min(0), (-mass).clamp_min(0)):
            losses = z.new_empty(len(z))
            into = None if gradient is None else torch.empty_like(z)
            arguments = (class_weight, weight, scale, here._replace(losses=losses), into, shape)
            parts.append((_evaluate_native(settings, z, TargetRows(part), *arguments), losses, into))
        (plus, losses_plus, into_plus), (minus, losses_minus, into_minus) = parts
        total, counted = total + plus.total - minus.total, counted + plus.counted
        if here.losses is not None:
            here.losses.copy_(losses_plus - losses_minus)
        if gradient is not None and into_plus is not None and into_minus is not None:
            gradient[rows] = (into_plus - into_minus).to(gradient.dtype)
    return Evaluation(total, -1, counted)


def _evaluate_native(
    settings: RowSettings,
    logits: Tensor,
    target: TargetRows,
    class_weight: Tensor | None,
    row_weight: Array | None,
    scale: float,
    per_row: PerRow,
    gradient: Tensor | None,
    shape: Sequence[int],
) -> Evaluation:
    weight = None if class_weight is None else array_of(class_weight.double())
    recipe = SoftmaxRecipe(
        smoothing=settings.smoothing,
        temperature=settings.temperature,
        class_weight=weight,
        softcap=settings.softcap or None,
        z_loss=settings.z_loss,
    )
    try:
        return kernels.active().evaluate(
            recipe,
            logits_array(logits),
            class_targets(target),
            row_weight=row_weight,
            ignore_index=settings.ignore_index,
            scale=scale,
            per_example=None if per_row.losses is None else array_of(per_row.losses),
            gradient=None if gradient is None else logits_array(gradient),
            log_sum_exp=None if per_row.lse is None else array_of(per_row.lse),
            prediction=None if per_row.prediction is None else array_of(per_row.prediction),
        )
    except TargetError as error:
        raise target_error(error, target, logits.shape[1], row_weight, settings, shape) from None


def takes(dtype: torch.dtype) -> bool:
    """Whether the active kernels take logits of this type as they are; others are widened to float32 first."""
    return dtype in (torch.float32, torch.float64) or (dtype == torch.bfloat16 and kernels.active() is cpu)


def logits_array(logits: Tensor) -> Array:
    """Logits or their gradient as the kernels take them: bfloat16 as its bits."""
    if logits.dtype == torch.bfloat16:
        return logits.detach().view(torch.int16).numpy().view(cpu.BFLOAT16)
    return array_of(logits)


def check_targets(
    target: TargetRows, n_classes: int, row_weight: Array | None, settings: RowSettings, shape: Sequence[int]
) -> None:
    """Check every counted target without looking at logits.

    Raises:
        ClassIndexError, SoftTargetError: naming the position.
    """
    if target.is_soft():
        check_soft(target, row_weight, settings, shape)
    else:
        denominator(target, n_classes, None, row_weight, settings, "examples", shape)


def check_soft(target: TargetRows, row_weight: Array | None, settings: RowSettings, shape: Sequence[int]) -> bool:
    """Whether a counted soft row has a negative entry, which PyTorch's functions take: there is a warning then.

    Raises:
        SoftTargetError: for an entry that is not finite; for losses that are not PyTorch's, for a negative one too.
    """
    rows = target.first
    if bool(_usable(rows).all()):
        return False
    bad = _of_counted(~_usable(rows) if settings.by_mass else ~torch.isfinite(rows), row_weight)
    if bool(bad.any()):
        raise _soft_error(rows, bad, shape)
    if settings.by_mass or not bool(_of_counted(rows < 0, row_weight).any()):
        return False
    warnings.warn(  # the same words every time, or a training loop would hear it at every step
        "soft targets below 0 are used as they are, as PyTorch does; if they are log-probabilities, pass their exp()",
        stacklevel=1,
    )
    return True


def _usable(rows: Tensor) -> Tensor:
    return (rows >= 0) & torch.isfinite(rows)


def _of_counted(entries: Tensor, row_weight: Array | None) -> Tensor:
    return entries if row_weight is None else entries & torch.from_numpy(row_weight != 0)[:, None]


def target_error(
    error: TargetError,
    target: TargetRows,
    n_classes: int,
    row_weight: Array | None,
    settings: RowSettings,
    shape: Sequence[int],
) -> InputError:
    """The kernels' complaint in the user's terms: where in the tensor that was passed, in PyTorch's exception type."""
    weight = None if row_weight is None else torch.from_numpy(row_weight)
    if target.is_soft():
        bad = _of_counted(~_usable(target.first), row_weight)
        return _soft_error(target.first, bad, shape) if bool(bad.any()) else SoftTargetError(str(error))
    counts = plain.counted_rows(target, weight, settings.ignore_index)
    wrong = plain.out_of_range(target, n_classes, counts)
    if not bool(wrong.any()):
        return ClassIndexError(str(error))
    row = int(wrong.to(torch.uint8).argmax())
    value = int(target.first[row])
    if target.second is not None and 0 <= value < n_classes:
        value = int(target.second[row])
    valid = f"valid classes are 0 to {n_classes - 1}" if n_classes else "the input has no classes"
    ignored = "" if settings.ignore_index is None else f"; ignore_index is {settings.ignore_index}"
    return ClassIndexError(f"Target {value} is out of bounds. {position(row, shape)}{valid}{ignored}")


def position(row: int, shape: Sequence[int]) -> str:
    """Where a flattened row lies in the target tensor, as the start of a sentence."""
    if not len(shape):
        return ""
    index = tuple(int(i) for i in np.unravel_index(row, tuple(shape)))
    return f"At target[{', '.join(map(str, index))}]: "


def _soft_error(rows: Tensor, bad: Tensor, shape: Sequence[int]) -> SoftTargetError:
    """The complaint about the first of the bad entries, bool (N, C)."""
    row, column = divmod(int(bad.flatten().to(torch.uint8).argmax()), rows.shape[1])
    where = position(row, shape).replace("target", "example", 1)
    return SoftTargetError(
        f"{where}class {column}: soft target {float(rows[row, column])} is not valid; entries must be finite and at "
        "least 0"
    )
