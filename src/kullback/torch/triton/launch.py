"""One call from tensors to a kernel: checks, the choice of kernel, tile sizes."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.runtime.jit import JITFunction

from kullback.torch.errors import LogitsTypeError, TensorShapeError, TensorTypeError
from kullback.torch.rows import TargetRows
from kullback.torch.triton.dense_rows import dense_rows_kernel
from kullback.torch.triton.families import FAMILIES, log_loss, squared
from kullback.torch.triton.row_loss import RowLoss, RowResult, check_call
from kullback.torch.triton.sparse_rows import sparse_rows_kernel

KERNEL_TYPES = (torch.float32, torch.bfloat16, torch.float16)


class Tile(NamedTuple):
    """How a kernel walks over the logits.

    Attributes:
        rows: rows a program works on together.
        block: classes it looks at together, a power of two.
        warps: warps of 32 threads in a program.
    """

    rows: int
    block: int
    warps: int


# A program has 65536 registers: the widest block, in classes, that leaves it enough of them, by how many numbers a
# kernel keeps for each class. Rows of more classes are walked over in such blocks.
PLAIN = 16384
RICH = 8192
RICHEST = 4096


def tile_for(n_classes: int, widest: int) -> Tile:
    """The tile for rows of a width: about 1024 elements a program at few classes, whole rows as far as they go.

    Args:
        n_classes: C.
        widest: the widest block the kernel has registers for.

    >>> tile_for(3, PLAIN)
    Tile(rows=256, block=4, warps=4)
    >>> tile_for(1000, PLAIN)
    Tile(rows=1, block=1024, warps=4)
    >>> tile_for(50257, PLAIN)
    Tile(rows=1, block=16384, warps=32)
    """
    block = max(4, triton.next_power_of_2(n_classes))
    if block > widest:
        return Tile(1, widest, 32)
    return Tile(max(1, 1024 // block), block, min(32, max(4, block // 512)))


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels, on any device."""
    return not isinstance(sparse_rows_kernel, JITFunction)


def softmax_evaluate(
    loss: RowLoss,
    logits: Tensor,
    targets: TargetRows,
    *,
    row_weight: Tensor | None = None,
    ignore_index: int | None = None,
    scale: float | Tensor = 1.0,
    gradient: bool | Tensor = False,
    log_sum_exp: bool = False,
    argmax: bool = False,
    tile: Tile | None = None,
) -> RowResult:
    """Loss of every row and, if asked for, its gradient, in one kernel. Nothing here waits for the device.

    A target that cannot be used (a class out of range; a soft entry that is not finite, or negative where the loss
    goes ``by_mass``; a share outside [0, 1]) makes its row's loss and gradient NaN and is marked in ``status``: the
    error cannot be overlooked, other rows are untouched, and no time is spent on waiting for the device.
    `check_targets` turns it into an exception.

    Args:
        loss: the loss.
        logits: (N, C) float32, bfloat16 or float16; all arithmetic is in float32.
        targets: class indices, soft rows, or mixtures.
        row_weight: (N,) multiplies each row's loss and gradient; rows of weight 0 do not count and are not read.
        ignore_index: class index of rows that do not count, for index targets.
        scale: multiplies the gradient only; a tensor of one element stays on the device.
        gradient: whether scale·row_weight·∂loss/∂logits is wanted, or the (N, C) tensor to write it to, which may
            be the logits themselves.
        log_sum_exp: whether the rows' log-sum-exp is wanted.
        argmax: whether the rows' largest class is wanted.
        tile: how to walk over the logits, for tuning; chosen by the width otherwise.

    Raises:
        LogitsTypeError: for float64 and integers; the plain reference takes float64.
        SettingError, TensorShapeError, TensorTypeError: for an unknown family, or tensors that do not fit together.
    """
    if logits.dim() != 2:
        raise TensorShapeError(f"logits have shape {tuple(logits.shape)}, expected rows (N, C)")
    if logits.dtype not in KERNEL_TYPES:
        raise LogitsTypeError(f"logits have dtype {logits.dtype}; the kernels take float32, bfloat16 and float16")
    if logits.device.type != "cuda" and not interpreted():
        raise TensorTypeError(
            f"the logits are on {logits.device}; the kernels run on CUDA devices. Elsewhere use "
            "kullback.torch.triton.reference, which takes the same arguments"
        )
    n_rows, n_classes = logits.shape
    check_call(loss, FAMILIES, n_rows, n_classes, logits.device, targets, row_weight)
    out = _gradient_tensor(gradient, logits)
    new = logits.new_empty
    result = RowResult(
        losses=new(n_rows, dtype=torch.float32),
        status=new(n_rows, dtype=torch.uint8),
        gradient=out,
        log_sum_exp=new(n_rows, dtype=torch.float32) if log_sum_exp else None,
        argmax=new(n_rows, dtype=torch.int64) if argmax else None,
    )
    if n_rows == 0:
        return result
    source = logits if logits.stride(1) == 1 or n_classes == 1 else logits.contiguous()
    rows = None
    if targets.is_soft():
        rows = targets.first if targets.first.stride(1) == 1 or n_classes == 1 else targets.first.contiguous()
    align = math.gcd(16, n_classes, *(t.stride(0) for t in (source, out, rows) if t is not None))
    family = FAMILIES[loss.family]
    linear = family.on is log_loss and family.off is None
    sparse = not targets.is_soft() and (linear or loss.smoothing == 0) and (family.off is None or family.off is squared)
    if tile is None:
        extras = loss.softcap or loss.smoothing or family.off is not None or targets.second is not None
        widest = RICHEST if not (sparse or linear) else RICH if extras or targets.is_soft() else PLAIN
        tile = tile_for(n_classes, widest)
    common: dict[str, Any] = {
        "logits": source,
        "logits_step": source.stride(0) // align,
        "gradient": out,
        "gradient_step": 0 if out is None else out.stride(0) // align,
        "losses": result.losses,
        "log_sum_exp": result.log_sum_exp,
        "status": result.status,
        "best": result.argmax,
        "row_weight": _contiguous(row_weight),
        "class_weight": _contiguous(loss.class_weight),
        "shifts": _contiguous(loss.shift),
        "offsets": _contiguous(loss.offset),
        "scale_pointer": scale if isinstance(scale, Tensor) else None,
        "n_rows": n_rows,
        "classes_step": n_classes // align,
        "scale": 1.0 if isinstance(scale, Tensor) else float(scale),
        "parameter": float(loss.parameter),
        "smoothing": float(loss.smoothing),
        "inverse_temperature": 1.0 / loss.temperature,
        "softcap": float(loss.softcap),
        "z_loss": float(loss.z_loss),
        "ignore_index": ignore_index or 0,
        "MIXTURE": targets.second is not None,
        "SMOOTH": loss.smoothing != 0,
        "SOFTCAP": loss.softcap != 0,
        "Z_LOSS": loss.z_loss != 0,
        "IGNORE": ignore_index is not None and targets.second is None and not targets.is_soft(),
        "ALIGN": align,
        "SINGLE": n_classes <= tile.block,
        "ROWS": tile.rows,
        "BLOCK": tile.block,
        "num_warps": tile.warps,
    }
    grid = (triton.cdiv(n_rows, tile.rows),)
    with torch.cuda.device_of(logits):  # Triton launches on the current device, which need not be the tensors'
        if sparse:
            sparse_rows_kernel[grid](
                firsts=_contiguous(targets.first),
                seconds=_contiguous(targets.second),
                shares=_contiguous(targets.share),
                FAMILY=family.on,
                SQUARES=family.off is squared,
                **common,
            )
        else:
            dense_rows_kernel[grid](
                targets=rows,
                targets_step=0 if rows is None else rows.stride(0) // align,
                firsts=None if targets.is_soft() else _contiguous(targets.first),
                seconds=_contiguous(targets.second),
                shares=_contiguous(targets.share),
                ON=family.on,
                OFF=family.off,
                LINEAR=linear,
                DENSE=targets.is_soft(),
                BY_MASS=loss.by_mass,
                **common,
            )
    return result


def _gradient_tensor(gradient: bool | Tensor, logits: Tensor) -> Tensor | None:
    if isinstance(gradient, bool):
        return logits.new_empty(logits.shape) if gradient else None
    if gradient.shape != logits.shape or gradient.device != logits.device:
        raise TensorShapeError(
            f"the gradient's tensor is {tuple(gradient.shape)} on {gradient.device}, expected {tuple(logits.shape)} "
            f"on {logits.device}"
        )
    if gradient.shape[1] > 1 and gradient.stride(1) != 1:
        raise TensorTypeError("the gradient's tensor must hold each row's classes one after the other (stride 1)")
    return gradient


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()
