"""The loss of a row and what a call gives back: the types that the Triton kernels and their plain reference share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from kullback.kernels.recipe import SoftmaxRecipe
from kullback.torch.errors import ClassIndexError, SettingError, SoftTargetError, TensorShapeError, TensorTypeError
from kullback.torch.rows import INDEX_TYPES, TargetRows
from kullback.torch.settings import RowSettings


@dataclass(frozen=True, eq=False)
class RowLoss:
    """A softmax-family loss: `kullback.kernels.recipe.SoftmaxRecipe` with its class vectors as tensors.

    Attributes:
        family: ``"cross_entropy"``, ``"focal"``, …: the names of the recipes.
        parameter: the family's scalar, 0 where it has none.
        smoothing: ε in [0, 1].
        temperature: T > 0.
        softcap: c > 0, or 0 for none.
        z_loss: λ ≥ 0.
        class_weight: (C,) or None.
        shift: (C,) or None.
        offset: (C,) or None.
        by_mass: whether smoothing gives each class Σt·ε/C, as Kullback's losses do, which refuse soft rows below 0.
            PyTorch's convention is ε/C whatever a soft row sums to, and takes them.
    """

    family: str = "cross_entropy"
    parameter: float = 0.0
    smoothing: float = 0.0
    temperature: float = 1.0
    softcap: float = 0.0
    z_loss: float = 0.0
    class_weight: Tensor | None = None
    shift: Tensor | None = None
    offset: Tensor | None = None
    by_mass: bool = True

    @classmethod
    def from_recipe(cls, recipe: SoftmaxRecipe, device: torch.device | str) -> RowLoss:
        """The loss of a recipe, its class vectors copied to a device in float32."""

        def tensor(name: str) -> Tensor | None:
            vector = getattr(recipe, name)
            return None if vector is None else torch.tensor(vector, dtype=torch.float32, device=device)

        return cls(
            family=recipe.family,
            parameter=recipe.parameters[0] if recipe.parameters else 0.0,
            smoothing=recipe.smoothing,
            temperature=recipe.temperature,
            softcap=recipe.softcap or 0.0,
            z_loss=recipe.z_loss,
            class_weight=tensor("class_weight"),
            shift=tensor("shift"),
            offset=tensor("offset"),
        )

    @classmethod
    def from_settings(cls, settings: RowSettings, class_weight: Tensor | None) -> RowLoss:
        """Cross-entropy with the settings of `kullback.torch`'s functions; their ignored index is passed apart."""
        return cls(
            smoothing=settings.smoothing,
            temperature=settings.temperature,
            softcap=settings.softcap,
            z_loss=settings.z_loss,
            class_weight=class_weight,
            by_mass=settings.by_mass,
        )

    def double(self) -> RowLoss:
        """The same loss with its class vectors in float64."""
        vectors = {name: getattr(self, name) for name in ("class_weight", "shift", "offset")}
        return dataclasses.replace(self, **{n: v.double() for n, v in vectors.items() if v is not None})


class Status(IntEnum):
    """What became of a row: the values of `RowResult.status`."""

    COUNTED = 0
    NOT_COUNTED = 1
    BAD_TARGET = 2
    BAD_LOGIT = 3
    INFINITE = 4


class RowResult(NamedTuple):
    """What one pass over the rows gives.

    Attributes:
        losses: (N,) float32, row weight × loss; NaN where the target or a logit is unusable.
        status: (N,) uint8, see `Status`.
        gradient: (N, C) or None.
        log_sum_exp: (N,) float32 of the scaled logits, or None.
        argmax: (N,) int64, the first of the largest scaled logits, −1 in rows that do not count; or None.
    """

    losses: Tensor
    status: Tensor
    gradient: Tensor | None
    log_sum_exp: Tensor | None
    argmax: Tensor | None


def check_targets(result: RowResult, targets: TargetRows, n_classes: int) -> None:
    """Raise for the first row whose target is unusable. Waits for the device: meant for debugging and tests.

    Args:
        result: of `softmax_evaluate` or `linear_softmax_evaluate`.
        targets: the targets of that call.
        n_classes: C.

    Raises:
        ClassIndexError: names the row, the class and the valid range.
        SoftTargetError: names the row and column of a soft target that is negative or not finite.
    """
    bad = (result.status == Status.BAD_TARGET).nonzero()
    if not len(bad):
        return
    row = int(bad[0])
    if targets.is_soft():
        entries = targets.first[row]
        bad = ~entries.isfinite() if not bool(entries.isfinite().all()) else entries < 0
        column = int(bad.nonzero()[0])
        raise SoftTargetError(
            f"row {row}, column {column}: soft target {float(entries[column])} is not valid; entries must be finite "
            "and at least 0"
        )
    for indices in (targets.first, targets.second):
        if indices is not None and not 0 <= int(indices[row]) < n_classes:
            raise ClassIndexError(
                f"row {row}: target {int(indices[row])} is not a class; valid indices are 0 to {n_classes - 1}"
            )
    assert targets.share is not None
    raise SoftTargetError(f"row {row}: mixture share {float(targets.share[row])} is not in [0, 1]")


def check_call(
    loss: RowLoss,
    families: Mapping[str, object],
    n_rows: int,
    n_classes: int,
    device: torch.device,
    targets: TargetRows,
    row_weight: Tensor | None,
) -> None:
    """Refuse tensors that do not belong together; looks at shapes, types and devices only, never at values.

    Raises:
        SettingError, TensorShapeError, TensorTypeError.
    """
    if loss.family not in families:
        raise SettingError(f"unknown loss family {loss.family!r}; there are {', '.join(sorted(families))}")
    if n_classes == 0:
        raise TensorShapeError("the logits have no classes (C = 0); a softmax needs at least one")
    wanted: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "class_weight": (loss.class_weight, (n_classes,)),
        "shift": (loss.shift, (n_classes,)),
        "offset": (loss.offset, (n_classes,)),
        "row_weight": (row_weight, (n_rows,)),
        "targets": (targets.first, (n_rows, n_classes) if targets.is_soft() else (n_rows,)),
        "the mixture's second classes": (targets.second, (n_rows,)),
        "the mixture's share": (targets.share, (n_rows,)),
    }
    for name, (tensor, shape) in wanted.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise TensorShapeError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")
        if tensor.device != device:
            raise TensorTypeError(f"{name} is on {tensor.device}, the logits on {device}; move it there")
    if not targets.is_soft():
        for indices in (targets.first, targets.second):
            if indices is not None and indices.dtype not in INDEX_TYPES:
                raise TensorTypeError(f"class indices have dtype {indices.dtype}; call .long() on them")
    elif not targets.first.dtype.is_floating_point:
        raise TensorTypeError(f"soft targets have dtype {targets.first.dtype}; call .float() on them")
    if (targets.second is None) != (targets.share is None):
        raise TensorShapeError("a mixture needs both its second classes and its share")
