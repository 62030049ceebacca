"""Losses of the softmax family on the GPU: value and gradient in one Triton kernel, and fused with a linear layer.

Entry points; all take rows, check shapes, dtypes and devices, never look at a value on the host, and never wait for
the device:

    softmax_evaluate(loss, logits, targets, *, row_weight, ignore_index, scale, gradient, log_sum_exp, argmax)
        -> RowResult(losses, status, gradient, log_sum_exp, argmax)
    linear_softmax_evaluate(loss, input, weight, targets, *, bias, row_weight, ignore_index, scale,
            input_gradient, weight_gradient, bias_gradient, drop_ignored, …)
        -> LinearResult(losses, status, input_gradient, weight_gradient, bias_gradient, log_sum_exp, argmax)
    scale_in_place(gradient, factor): gradient *= factor, at no cost when the factor on the device is 1
    check_targets(result, targets, n_classes): raise for the first unusable target; this one does wait
    supports(logits): whether the kernels take a tensor

`loss` is a `RowLoss`: the numbers of `kullback.kernels.recipe.SoftmaxRecipe`, its class vectors as tensors on the
device (`RowLoss.from_recipe`). `targets` is a `kullback.torch.rows.TargetRows`: indices (N,), soft rows (N, C), or
two classes and a share.

**Targets that cannot be used.** A kernel cannot raise, and finding out on the host would stop the stream at every
step. So a row whose class is out of range, whose soft target is not finite (or negative, where the loss goes
``by_mass``), or whose share is outside [0, 1] gets a NaN loss and a NaN gradient, and ``status`` says why; every other
row is what it would be without it. A mean over the batch is then NaN at once rather than quietly wrong.
`check_targets` names the row and the value.

**Precision.** Logits of float32, bfloat16 and float16, everything between in float32. 1 − p of a confident row keeps
its digits, and so do its loss and its gradient.

`kullback.torch.triton.reference` has the same functions in ordinary torch operations, for float64 and for devices
that Triton does not know.

On a machine without a GPU the kernels run in Triton's interpreter if ``TRITON_INTERPRET=1`` is set before Triton is
imported: slow, and meant for tests.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import TYPE_CHECKING

import torch

from kullback.torch.triton.chunks import LinearResult
from kullback.torch.triton.row_loss import RowLoss, RowResult, Status, check_targets

if TYPE_CHECKING:
    from kullback.torch.triton.launch import Tile, softmax_evaluate
    from kullback.torch.triton.linear import linear_softmax_evaluate
    from kullback.torch.triton.scaling import scale_in_place

__all__ = [
    "LinearResult",
    "RowLoss",
    "RowResult",
    "Status",
    "Tile",
    "check_targets",
    "linear_softmax_evaluate",
    "scale_in_place",
    "softmax_evaluate",
    "supports",
]

_HOMES = {
    "Tile": "launch",
    "linear_softmax_evaluate": "linear",
    "scale_in_place": "scaling",
    "softmax_evaluate": "launch",
}


OLDEST_TRITON = (3, 2)  # comes with PyTorch 2.6


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


@functools.cache
def _recent_triton() -> bool:
    """Whether Triton is installed in a version that knows what the kernels are written in."""
    if importlib.util.find_spec("triton") is None:
        return False
    import triton

    return tuple(int(part) for part in triton.__version__.split(".")[:2]) >= OLDEST_TRITON


def supports(logits: torch.Tensor) -> bool:
    """Whether the kernels take this tensor: on a CUDA device, of a type they know, with Triton 3.2 or newer installed.

    Interpreted kernels (``TRITON_INTERPRET=1``) take tensors on the CPU as well.

    >>> import torch
    >>> supports(torch.zeros(2, 3, dtype=torch.float64))
    False
    """
    if logits.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return False
    if not _recent_triton():
        return False
    if logits.device.type == "cuda":
        return True
    from kullback.torch.triton.launch import interpreted

    return interpreted()
