"""Kullback-Leibler divergence of given log-probabilities from given targets."""

from __future__ import annotations

import torch
from torch import Tensor

from kullback.torch.errors import LogitsTypeError, TensorKindError, TensorShapeError
from kullback.torch.rows import FLOAT_TYPES, check_tensor, in_autocast
from kullback.torch.settings import check_choice, legacy_reduction


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """t·(log t − x) of each entry, for log-probabilities x: ``torch.nn.functional.kl_div`` with exact corners.

    An entry with t = 0 is 0 and takes no gradient, even where x is −inf (PyTorch gives NaN there); one with t > 0 and
    x = −inf is +inf.

    Args:
        input: log-probabilities, any shape.
        target: probabilities, or their logarithms with ``log_target=True``; any shape that broadcasts with the
            input's; may require a gradient.
        size_average: deprecated, as in PyTorch.
        reduce: deprecated, as in PyTorch.
        reduction: ``"batchmean"`` (the sum over all entries by the number of rows, which is the divergence's own mean),
            ``"mean"`` (by the number of entries), ``"sum"`` or ``"none"``.
        log_target: whether the target is given as logarithms.

    Raises:
        InputError: of PyTorch's exception type for what does not fit.

    >>> import torch
    >>> from kullback.torch import kl_div
    >>> kl_div(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[1.0, 0.0]]), reduction="batchmean")
    tensor(0.6931)
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_choice("reduction", reduction, ("mean", "batchmean", "sum", "none"))
    if not isinstance(input, Tensor):
        raise TensorKindError(f"input must be a Tensor, not {type(input).__name__}")
    for name, tensor in (("input", input), ("target", target)):
        check_tensor(name, tensor, input.device)
        if tensor.dtype not in FLOAT_TYPES:
            raise LogitsTypeError(f"{name} has dtype {tensor.dtype}; kl_div takes floating point tensors")
    try:
        torch.broadcast_shapes(input.shape, target.shape)  # type: ignore[no-untyped-call]
    except RuntimeError:
        raise TensorShapeError(
            f"target has shape {tuple(target.shape)}, which does not broadcast with the input's {tuple(input.shape)}"
        ) from None
    # under autocast and for narrow types the arithmetic is float32's
    dtype = torch.promote_types(input.dtype, target.dtype)
    wide = torch.promote_types(dtype, torch.float32)
    x, t = input.to(wide), target.to(wide)
    if log_target:
        absent = t == -torch.inf
        losses = torch.where(absent, 0.0, t.exp() * (torch.where(absent, 0.0, t) - torch.where(absent, 0.0, x)))
    else:
        absent = t == 0
        losses = torch.xlogy(t, t) - t * torch.where(absent & (x == -torch.inf), 0.0, x)
    if reduction == "mean":
        losses = losses.mean()
    elif reduction == "sum":
        losses = losses.sum()
    elif reduction == "batchmean":
        losses = losses.sum() / input.shape[0] if input.dim() else losses.sum()
    return losses if in_autocast(input.device) else losses.to(dtype)
