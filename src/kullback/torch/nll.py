"""Negative log-likelihood of given log-probabilities."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import nll_loss as torch_nll_loss  # by its own name: someone may put ours in its place

from kullback.errors import TargetError
from kullback.torch import native, ops
from kullback.torch.errors import LogitsTypeError, TensorKindError, TensorShapeError, TensorTypeError
from kullback.torch.rows import (
    FLOAT_TYPES,
    INDEX_TYPES,
    TargetRows,
    check_dense,
    check_sample_weight,
    check_tensor,
    class_indices,
)
from kullback.torch.settings import DENOMINATORS, EMPTY, REDUCTIONS, RowSettings, check_choice, legacy_reduction


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    *,
    sample_weight: Tensor | None = None,
    denominator: str = "weights",
    empty: str = "nan",
) -> Tensor:
    """−w_y·log p_y for log-probabilities that are already there: ``torch.nn.functional.nll_loss`` and more.

    The input is taken for log-probabilities and not checked; for logits use `cross_entropy`, which needs no
    ``log_softmax`` before it.

    Args:
        input: log-probabilities (C,), (N, C) or (N, C, d1, …).
        target: class indices of any integer dtype.
        weight: (C,) or None.
        size_average: deprecated, as in PyTorch.
        ignore_index: examples of this class do not count.
        reduce: deprecated, as in PyTorch.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        sample_weight: one weight per example, or None; may require a gradient.
        denominator: what the mean divides by: ``"weights"``, the sum of sample × class weights of the counted examples
            (PyTorch's), or ``"examples"``, their number.
        empty: the mean where nothing counts: ``"nan"`` (PyTorch's), ``"zero"``, or ``"error"``.

    Raises:
        ClassIndexError: (an ``IndexError``) for a class out of range on the CPU, naming its position.
        InputError: of PyTorch's exception type for what does not fit.

    >>> import torch
    >>> from kullback.torch import nll_loss
    >>> nll_loss(torch.tensor([[0.25, 0.75]]).log(), torch.tensor([1]))
    tensor(0.2877)
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_choice("reduction", reduction, REDUCTIONS)
    check_choice("denominator", denominator, DENOMINATORS)
    check_choice("empty", empty, EMPTY)
    _check(input, target)
    n_classes = input.shape[min(1, input.dim() - 1)]
    shape = tuple(input.shape[:-1]) if input.dim() < 2 else (input.shape[0], *input.shape[2:])
    class_indices("target", target, shape, input)
    if weight is not None:
        check_tensor("weight", weight, input.device)
        if weight.dtype != input.dtype:
            raise TensorTypeError(f"weight is {weight.dtype}, the input {input.dtype}; pass weight.to(input)")
        if tuple(weight.shape) != (n_classes,):
            raise TensorShapeError(
                f"weight tensor should be defined either for all {n_classes} classes or no classes but got weight "
                f"tensor of shape: {list(weight.shape)}"
            )
    target = target.long()
    if sample_weight is not None:
        check_sample_weight(sample_weight, tuple(target.shape), input.device)
        if native.runs(input) and not torch.compiler.is_compiling() and not ops.in_transform():
            native.row_weights(sample_weight.detach().reshape(-1), checked=True)
    if sample_weight is None and denominator == "weights" and (reduction != "mean" or empty == "nan"):
        return _of_torch(input, target, weight, ignore_index, reduction)
    counts = target != ignore_index
    losses = _of_torch(input, target, weight, ignore_index, "none")
    if sample_weight is not None:
        counts = counts & (sample_weight != 0)
        # each on its own: the product's derivative in the weight would be 0 times a NaN that does not count
        losses = torch.where(counts, losses, 0.0) * torch.where(counts, sample_weight, 0.0)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    shares = torch.where(counts, 1.0, 0.0)
    if denominator == "weights":
        if weight is not None:
            shares = shares * weight[torch.where(counts, target, 0)]
        if sample_weight is not None:
            shares = torch.where(counts, shares * sample_weight, 0.0)
    divisor = shares.sum()
    if empty == "error" and bool(divisor == 0):
        raise ops.empty_error()
    nothing = math.nan if empty == "nan" else 0.0
    value = torch.where(divisor == 0, nothing, losses.sum() / torch.where(divisor == 0, 1.0, divisor))
    return value.to(input.dtype)


def _of_torch(input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str) -> Tensor:
    """PyTorch's own function; where it finds a class out of range, the error says where and what would be right."""
    if input.dim() == 4:
        input = input.contiguous()  # PyTorch's gradient of images needs it, and stops at channels_last
    if torch.compiler.is_compiling():
        return torch_nll_loss(input, target, weight, ignore_index=ignore_index, reduction=reduction)
    try:
        return torch_nll_loss(input, target, weight, ignore_index=ignore_index, reduction=reduction)
    except IndexError as error:
        if ops.in_transform():
            raise
        rows, settings = TargetRows(target.detach().reshape(-1)), RowSettings(ignore_index=ignore_index)
        n_classes = input.shape[min(1, input.dim() - 1)]
        raise native.target_error(TargetError(str(error)), rows, n_classes, None, settings, target.shape) from None


def _check(input: Tensor, target: Tensor) -> None:
    if not isinstance(input, Tensor):
        raise TensorKindError(f"input must be a Tensor, not {type(input).__name__}")
    check_dense("input", input)
    if input.dtype not in FLOAT_TYPES:
        raise LogitsTypeError(f"input has dtype {input.dtype}; log-probabilities are floating point")
    if input.dim() == 0:
        raise TensorShapeError("input is a scalar; expected (C,), (N, C) or (N, C, d1, ...) with classes at dim 1")
    check_tensor("target", target, input.device)
    if target.dtype not in INDEX_TYPES:
        raise TensorTypeError(
            f"expected target dtype to be an integer type, but got {target.dtype}: nll_loss takes class indices; for "
            "soft targets use cross_entropy or kl_div"
        )
