"""Where a batch's shape is decided: tensors of any number of dimensions to rows (N, C), and back.

PyTorch puts classes at dimension 1: (C,), (N, C) or (N, C, d1, …). Kernels see rows. Everything is checked here, in
terms of what the user passed, so that nothing below has to guess.
"""

from __future__ import annotations

import math
import numbers
from typing import NamedTuple

import torch
from torch import Tensor

from kullback.torch.errors import (
    BatchSizeError,
    LogitsTypeError,
    SettingError,
    TensorKindError,
    TensorShapeError,
    TensorTypeError,
)
from kullback.torch.settings import RowSettings

INDEX_TYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
FLOAT_TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Mixture(NamedTuple):
    """Two classes per example and the share of the first: mixup and cutmix without a dense target.

    The target mass is ``share`` on ``first`` and ``1 − share`` on ``second``.

    Attributes:
        first: class indices, shaped like index targets.
        second: class indices of the same shape.
        share: one number in [0, 1] for the whole batch, or a tensor shaped like `first`.

    >>> import torch
    >>> from kullback.torch import Mixture, cross_entropy
    >>> logits = torch.tensor([[2.0, 0.0, 0.0]])
    >>> cross_entropy(logits, Mixture(torch.tensor([0]), torch.tensor([1]), 0.75))
    tensor(0.7395)
    """

    first: Tensor
    second: Tensor
    share: float | Tensor


class TargetRows(NamedTuple):
    """Targets of N rows: ``first`` holds indices (N,) or soft rows (N, C); the others are there for mixtures only."""

    first: Tensor
    second: Tensor | None = None
    share: Tensor | None = None

    # a method: older compilers of PyTorch cannot follow a property of a named tuple
    def is_soft(self) -> bool:
        """Whether these are soft rows."""
        return self.first.dim() == 2

    def requires_grad(self) -> bool:
        """Whether a gradient with respect to the target is wanted."""
        return self.first.requires_grad or (self.share is not None and self.share.requires_grad)


class Batch(NamedTuple):
    """A checked call as rows.

    Attributes:
        logits: (N, C).
        target: N targets.
        class_weight: (C,) in the logits' accumulation dtype, or None.
        sample_weight: (N,) or None.
        shape: the shape of per-example results in the user's terms.
    """

    logits: Tensor
    target: TargetRows
    class_weight: Tensor | None
    sample_weight: Tensor | None
    shape: tuple[int, ...]

    def restored(self, per_row: Tensor) -> Tensor:
        """A per-row tensor (N,) in the user's shape."""
        return per_row.reshape(self.shape)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type a loss is computed in: float64 for float64, float32 for everything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def widest_dtype(device: torch.device) -> torch.dtype:
    """The type totals and denominators are kept in: float64, where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def in_autocast(device: torch.device) -> bool:
    """Whether autocast is on for this device; for the meta device PyTorch cannot be asked."""
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


def loss_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The type of a loss of numbers of this type, as PyTorch's own: in autocast narrow ones give a float32."""
    narrow = dtype in (torch.float16, torch.bfloat16)
    return torch.float32 if narrow and in_autocast(device) else dtype


def as_rows(tensor: Tensor) -> Tensor:
    """(C,), (N, C) or (N, C, d1, …) as rows (N·d1·…, C); a view wherever the classes already lie together."""
    if tensor.dim() == 1:
        return tensor.unsqueeze(0)
    if tensor.dim() == 2:
        return tensor
    moved = tensor.movedim(1, -1)
    return moved.reshape(math.prod(moved.shape[:-1]), moved.shape[-1])


def check_logits(logits: Tensor, name: str = "input") -> None:
    """Refuse what cannot be logits.

    Raises:
        TensorKindError: for anything but a tensor.
        LogitsTypeError: for integers, booleans or complex numbers.
        TensorShapeError: for a scalar.
    """
    if not isinstance(logits, Tensor):
        raise TensorKindError(f"{name} must be a Tensor, not {type(logits).__name__}")
    if logits.dtype not in FLOAT_TYPES:
        raise LogitsTypeError(
            f"{name} has dtype {logits.dtype}; logits are float32, float64, bfloat16 or float16: call .float() on them"
        )
    check_dense(name, logits)
    if logits.dim() == 0:
        raise TensorShapeError(f"{name} is a scalar; expected (C,), (N, C) or (N, C, d1, ...) with classes at dim 1")


def class_batch(
    logits: Tensor,
    target: Tensor | Mixture,
    class_weight: Tensor | None,
    sample_weight: Tensor | None,
    settings: RowSettings,
) -> Batch:
    """Check logits, targets and weights of mutually exclusive classes against each other, and flatten them.

    Raises:
        BatchSizeError, TensorShapeError, TensorTypeError, TensorKindError, LogitsTypeError, SettingError.
    """
    check_logits(logits)
    n_classes = logits.shape[0] if logits.dim() == 1 else logits.shape[1]
    shape = () if logits.dim() == 1 else (logits.shape[0], *logits.shape[2:])
    if isinstance(target, Mixture):
        targets = _mixture_rows(target, logits, shape)
    else:
        check_tensor("target", target, logits.device)
        if target.shape == logits.shape:
            if not target.dtype.is_floating_point:
                raise TensorTypeError(
                    "Expected floating point type for target with class probabilities, got "
                    f"{target.dtype}: the target has the input's shape {tuple(target.shape)}. For class indices pass "
                    f"shape {shape}; for one-hot rows call .float()"
                )
            if settings.ignore_index is not None and settings.ignore_index >= 0:
                raise SettingError(
                    "ignore_index is not supported for floating point target: a soft row that should not count is "
                    "all zeros, or has sample_weight 0"
                )
            targets = TargetRows(as_rows(target))
        else:
            targets = TargetRows(class_indices("target", target, shape, logits))
    weight = _class_weight(class_weight, n_classes, logits)
    row_weight = None
    if sample_weight is not None:
        check_sample_weight(sample_weight, shape, logits.device)
        row_weight = sample_weight.reshape(math.prod(shape))
    return Batch(as_rows(logits), targets, weight, row_weight, shape)


def check_sample_weight(sample_weight: Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    """Refuse what are not one weight for each of the examples; their values are looked at later.

    Raises:
        TensorKindError, LogitsTypeError, TensorTypeError, TensorShapeError.
    """
    check_tensor("sample_weight", sample_weight, device)
    if tuple(sample_weight.shape) != shape:
        raise TensorShapeError(
            f"sample_weight has shape {tuple(sample_weight.shape)}, expected {shape}: one weight per example"
        )
    if sample_weight.dtype.is_complex:
        raise TensorTypeError(f"sample_weight has dtype {sample_weight.dtype}; weights are real numbers")


def check_dense(name: str, tensor: Tensor) -> None:
    """Refuse tensors whose entries do not all lie in memory.

    Raises:
        LogitsTypeError: for sparse and nested ones.
    """
    if tensor.is_nested:
        raise LogitsTypeError(
            f"{name} is a nested tensor; pass the rows of all its parts in one: torch.cat(x.unbind())"
        )
    if tensor.layout != torch.strided:
        raise LogitsTypeError(f"{name} has layout {tensor.layout}; call .to_dense() on it")


def check_tensor(name: str, tensor: Tensor, device: torch.device) -> None:
    """Refuse what is no dense tensor on the input's device.

    Raises:
        TensorKindError, LogitsTypeError, TensorTypeError: for what is no tensor, not dense, or somewhere else.
    """
    if not isinstance(tensor, Tensor):
        raise TensorKindError(f"{name} must be a Tensor, not {type(tensor).__name__}")
    check_dense(name, tensor)
    if tensor.device != device:
        raise TensorTypeError(
            "Expected all tensors to be on the same device, but the input is on "
            f"{device} and {name} on {tensor.device}; move it with .to({str(device)!r})"
        )


def class_indices(name: str, target: Tensor, shape: tuple[int, ...], logits: Tensor) -> Tensor:
    """A tensor of class indices as rows (N,).

    Raises:
        BatchSizeError, TensorShapeError, TensorTypeError: for what does not fit the logits' shape without classes.
    """
    if len(shape) and target.dim() and target.shape[0] != shape[0]:
        raise BatchSizeError(f"Expected input batch_size ({shape[0]}) to match {name} batch_size ({target.shape[0]}).")
    if target.dtype.is_floating_point and target.dim() > 1 and target.dim() == logits.dim():
        raise TensorShapeError(
            f"{name} has shape {tuple(target.shape)}, the input {tuple(logits.shape)}: soft targets have the "
            f"input's own shape, class indices shape {shape}"
        )
    if target.dtype not in INDEX_TYPES:
        raise TensorTypeError(
            f"expected {name} dtype to be an integer type for class indices, but got {target.dtype}: convert it with "
            ".long(), or give soft targets the input's shape "
            f"{tuple(logits.shape)}"
        )
    alone = shape == () and target.shape == (1,)  # PyTorch takes a vector of one for the scalar
    if tuple(target.shape) != shape and not alone:
        if logits.dim() < 3 and target.dim() > 1:  # the words are PyTorch's
            expected = f"0D or 1D {name} tensor expected, multi-target not supported, got"
        elif logits.dim() == 1:
            expected = f"For 1D input, 1D {name} must have size 1, got"
        else:
            expected = f"Expected {name} size {list(shape)}, got"
        raise TensorShapeError(
            f"{expected} {list(target.shape)}: class indices have the input's shape {tuple(logits.shape)} without its "
            "class dimension"
        )
    return target.reshape(math.prod(shape))


def _mixture_rows(mixture: Mixture, logits: Tensor, shape: tuple[int, ...]) -> TargetRows:
    parts = []
    for name in ("first", "second"):
        part = getattr(mixture, name)
        check_tensor(f"target.{name}", part, logits.device)
        parts.append(class_indices(f"target.{name}", part, shape, logits))
    share = mixture.share
    rows = math.prod(shape)
    if isinstance(share, Tensor):
        check_tensor("target.share", share, logits.device)
        if share.dim() and tuple(share.shape) != shape:
            raise TensorShapeError(
                f"target.share has shape {tuple(share.shape)}, expected {shape}, or one number for all examples"
            )
        share = share.expand(shape).reshape(rows).to(torch.float64 if logits.device.type == "cpu" else torch.float32)
    else:
        if not isinstance(share, numbers.Real):
            raise TensorKindError(
                f"a mixture's share must be a number or a Tensor with one for each example, not {type(share).__name__}"
            )
        if not 0.0 <= share <= 1.0:
            raise SettingError(f"a mixture's share must be between 0.0 and 1.0. Got: {share}")
        dtype = torch.float64 if logits.device.type == "cpu" else torch.float32
        share = torch.full((rows,), share, dtype=dtype, device=logits.device)
    return TargetRows(parts[0], parts[1], share)


def _class_weight(class_weight: Tensor | None, n_classes: int, logits: Tensor) -> Tensor | None:
    if class_weight is None:
        return None
    check_tensor("weight", class_weight, logits.device)
    if tuple(class_weight.shape) != (n_classes,):
        raise TensorShapeError(
            f"weight tensor should be defined either for all {n_classes} classes or no classes but got weight tensor "
            f"of shape: {list(class_weight.shape)}"
        )
    if not class_weight.dtype.is_floating_point:
        raise TensorTypeError(f"expected a floating point weight, but got {class_weight.dtype}; call .float() on it")
    return class_weight.to(accumulation_dtype(logits.dtype))
