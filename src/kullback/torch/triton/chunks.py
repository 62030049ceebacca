"""A linear layer and a softmax loss in one, without ever holding the N×C logits.

Rows are taken in chunks. A chunk's logits come from one matrix product, the row kernel turns them into their own
gradient in place, and two more products take that to the input's and the weight's gradients. Nothing is recomputed and
nothing approximated: memory is one chunk of logits and the gradients themselves. The chunks' weight gradients are added
up in float32, but for large bfloat16 weights, where that sum would be the largest tensor of all: see `sums_in_float32`.

Which function evaluates the rows is the caller's choice, so the same lines serve the kernels and plain torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kullback.torch.errors import TensorShapeError, TensorTypeError
from kullback.torch.plain import counted_rows
from kullback.torch.rows import TargetRows
from kullback.torch.triton.row_loss import RowLoss, RowResult, Status

# Logits held at a time. Every chunk adds to the whole weight gradient, 8 bytes an entry of traffic, so chunks much
# smaller than this cost time where C·D is large. A float32 sum beside a narrower weight gradient may take as much.
CHUNK_BYTES = 2**28
# Where that sum would take more, the chunks are added up in the gradient's own type: rounded once a chunk, so their
# number is kept down, and their size up.
MOST_NARROW_CHUNKS = 4


class LinearResult(NamedTuple):
    """What a fused evaluation gives.

    Attributes:
        losses: (N,) float32, row weight × loss.
        status: (N,) uint8, see `Status`.
        input_gradient: (N, D) or None.
        weight_gradient: (C, D) in the weight's dtype, or None.
        bias_gradient: (C,) in the bias' dtype, or None.
        log_sum_exp: (N,) float32, or None.
        argmax: (N,) int64, or None.
    """

    losses: Tensor
    status: Tensor
    input_gradient: Tensor | None
    weight_gradient: Tensor | None
    bias_gradient: Tensor | None
    log_sum_exp: Tensor | None
    argmax: Tensor | None


def rows_per_chunk(n_rows: int, n_classes: int, element_bytes: int, most_chunks: int | None = None) -> int:
    """How many rows' logits fit in `CHUNK_BYTES`, a multiple of 128 where there are that many.

    Args:
        n_rows: N.
        n_classes: C.
        element_bytes: of a logit.
        most_chunks: chunks get larger than `CHUNK_BYTES` where there would be more of them.

    >>> rows_per_chunk(4096, 128256, 2)
    1024
    >>> rows_per_chunk(100, 10, 4)
    100
    >>> rows_per_chunk(16384, 128256, 2, most_chunks=4)
    4096
    """
    fit = max(1, CHUNK_BYTES // (n_classes * element_bytes))
    if most_chunks is not None:
        fit = max(fit, -(-n_rows // most_chunks))
    return min(n_rows, -(-fit // 128) * 128 if most_chunks else fit // 128 * 128 if fit >= 128 else fit)


def sums_in_float32(weight: Tensor) -> bool:
    """Whether chunks' weight gradients are added up in float32: where that takes at most `CHUNK_BYTES` more memory.

    Always for float16, whose sums could leave its range before the scale of a mean is applied to them.

    >>> sums_in_float32(torch.empty(32000, 1024, dtype=torch.bfloat16))
    True
    >>> sums_in_float32(torch.empty(128256, 4096, dtype=torch.bfloat16, device="meta"))
    False
    """
    return weight.dtype != torch.bfloat16 or 4 * weight.numel() <= CHUNK_BYTES


@torch.no_grad()
def evaluate(
    rows: Callable[..., RowResult],
    loss: RowLoss,
    input: Tensor,
    weight: Tensor,
    targets: TargetRows,
    *,
    bias: Tensor | None = None,
    row_weight: Tensor | None = None,
    ignore_index: int | None = None,
    scale: float | Tensor = 1.0,
    input_gradient: bool = False,
    weight_gradient: bool = False,
    bias_gradient: bool = False,
    log_sum_exp: bool = False,
    argmax: bool = False,
    drop_ignored: bool = False,
    accumulate_in_float32: bool | None = None,
    chunk_rows: int | None = None,
) -> LinearResult:
    """Loss of the rows of ``input @ weight.T + bias`` and the gradients asked for.

    Args:
        rows: `softmax_evaluate` of the kernels or of the plain reference.
        loss: the loss.
        input: (N, D) in any float type.
        weight: (C, D) of the same type.
        targets: N targets.
        bias: (C,) of the same type, or None.
        row_weight: (N,) multiplies each row's loss and gradients.
        ignore_index: class index of rows that do not count.
        scale: multiplies the gradients only; a tensor of one element stays on the device.
        input_gradient: whether it is wanted.
        weight_gradient: whether it is wanted.
        bias_gradient: whether it is wanted.
        log_sum_exp: whether the rows' log-sum-exp is wanted.
        argmax: whether the rows' largest class is wanted.
        drop_ignored: leave rows that do not count out of the products. Their number must be known, so this waits
            for the device once; it pays where many rows are ignored. The results are the same.
        accumulate_in_float32: sum the chunks' weight gradients in float32 (4·C·D bytes beside the result if that is
            narrower). Otherwise they are summed in the weight's own type, rounded once a chunk. None leaves it to
            `sums_in_float32`.
        chunk_rows: rows whose logits are held at a time.

    Raises:
        TensorShapeError, TensorTypeError, SettingError: for tensors that do not fit together.
    """
    _check(input, weight, bias, chunk_rows)
    n_rows, n_classes = len(input), len(weight)
    indices = targets.second is None and not targets.is_soft()
    may_skip = row_weight is not None or (ignore_index is not None and indices)
    if drop_ignored and may_skip:
        options: dict[str, Any] = {
            "bias": bias,
            "ignore_index": ignore_index,
            "scale": scale,
            "input_gradient": input_gradient,
            "weight_gradient": weight_gradient,
            "bias_gradient": bias_gradient,
            "log_sum_exp": log_sum_exp,
            "argmax": argmax,
            "accumulate_in_float32": accumulate_in_float32,
            "chunk_rows": chunk_rows,
        }
        return _without_ignored(rows, loss, input, weight, targets, row_weight, options)

    any_gradient = input_gradient or weight_gradient or bias_gradient
    # a float16 gradient holds nothing below 6e-8: there the scale, which is often 1/N, comes after the products
    late = input.dtype == torch.float16
    new = input.new_empty
    losses, status = new(n_rows, dtype=loss_dtype(input)), new(n_rows, dtype=torch.uint8)
    lse = new(n_rows, dtype=loss_dtype(input)) if log_sum_exp else None
    best = new(n_rows, dtype=torch.int64) if argmax else None
    d_input = new(input.shape) if input_gradient else None
    wide_sum = sums_in_float32(weight) if accumulate_in_float32 is None else accumulate_in_float32
    narrow = weight_gradient and not wide_sum
    most_chunks = MOST_NARROW_CHUNKS if narrow else None
    step = chunk_rows or rows_per_chunk(n_rows, n_classes, input.element_size(), most_chunks)
    sums = _Sums(weight, bias, weight_gradient, bias_gradient, wide_sum, n_chunks=-(-n_rows // max(step, 1)))
    buffer = new(min(step, n_rows), n_classes) if n_rows else None
    for start in range(0, n_rows, max(step, 1)):
        part = slice(start, min(start + step, n_rows))
        x = input[part]
        assert buffer is not None
        logits = buffer[: len(x)]
        if bias is None:
            torch.mm(x, weight.t(), out=logits)
        else:
            torch.addmm(bias, x, weight.t(), out=logits)
        result = rows(
            loss,
            logits,
            TargetRows(*(None if t is None else t[part] for t in targets)),  # type: ignore[arg-type]
            row_weight=None if row_weight is None else row_weight[part],
            ignore_index=ignore_index,
            scale=1.0 if late else scale,
            gradient=logits if any_gradient else False,
            log_sum_exp=log_sum_exp,
            argmax=argmax,
        )
        losses[part], status[part] = result.losses, result.status
        if lse is not None and result.log_sum_exp is not None:
            lse[part] = result.log_sum_exp
        if best is not None and result.argmax is not None:
            best[part] = result.argmax
        if d_input is not None:
            torch.mm(logits, weight, out=d_input[part])
        if weight_gradient and may_skip:  # a zero gradient times an input that is NaN would be NaN
            x = torch.where((result.status != Status.NOT_COUNTED)[:, None], x, 0.0)
        sums.add(logits, x)
    after = scale if late else 1.0
    if d_input is not None and late:
        d_input.mul_(after)
    d_weight, d_bias = sums.finish(after)
    return LinearResult(losses, status, d_input, d_weight, d_bias, lse, best)


def loss_dtype(input: Tensor) -> torch.dtype:
    """The type of losses: float64 for float64, float32 for everything narrower."""
    return torch.float64 if input.dtype == torch.float64 else torch.float32


class _Sums:
    """The weight's and the bias' gradients, summed over chunks."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        weight_gradient: bool,
        bias_gradient: bool,
        in_float32: bool,
        n_chunks: int,
    ) -> None:
        self.weight, self.bias = weight, bias
        wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
        # a single chunk is summed in float32 inside the product anyway
        dtype = wide if in_float32 and n_chunks > 1 else weight.dtype
        self.d_weight = torch.empty_like(weight, dtype=dtype) if weight_gradient else None
        self.d_bias = torch.zeros(len(weight), dtype=wide, device=weight.device) if bias_gradient else None
        self.empty = True

    def add(self, gradient: Tensor, x: Tensor) -> None:
        if self.d_weight is not None:
            if self.empty:
                self._first(gradient, x, self.d_weight)
            else:
                add_product(self.d_weight, gradient.t(), x)
        if self.d_bias is not None:
            self.d_bias += gradient.sum(dim=0, dtype=self.d_bias.dtype)
        self.empty = False

    def _first(self, gradient: Tensor, x: Tensor, out: Tensor) -> None:
        if out.dtype == x.dtype:
            torch.mm(gradient.t(), x, out=out)
        else:
            add_product(out.zero_(), gradient.t(), x)

    def finish(self, after: float | Tensor) -> tuple[Tensor | None, Tensor | None]:
        d_weight, d_bias = self.d_weight, self.d_bias
        if d_weight is not None:
            if self.empty:
                d_weight.zero_()
            if not (isinstance(after, float) and after == 1.0):
                d_weight.mul_(after)
            d_weight = d_weight.to(self.weight.dtype)
        if d_bias is not None:
            if not (isinstance(after, float) and after == 1.0):
                d_bias.mul_(after)
            d_bias = d_bias.to(self.weight.dtype if self.bias is None else self.bias.dtype)
        return d_weight, d_bias


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b, where `total` may be float32 and a, b half precision: their products are not rounded between."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    elif _mixed_product(a.dtype, a.device.type):
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        total.addmm_(a.to(total.dtype), b.to(total.dtype))


@functools.cache
def _mixed_product(dtype: torch.dtype, device: str) -> bool:
    """Whether this torch multiplies half-precision matrices into a float32 sum on this kind of device."""
    a, total = torch.zeros(16, 16, dtype=dtype, device=device), torch.zeros(16, 16, device=device)
    try:
        torch.addmm(total, a, a, out_dtype=torch.float32, out=total)
    except (RuntimeError, TypeError):  # NotImplementedError is a RuntimeError; older versions know no out_dtype
        return False
    return True


def _without_ignored(
    rows: Callable[..., RowResult],
    loss: RowLoss,
    input: Tensor,
    weight: Tensor,
    targets: TargetRows,
    row_weight: Tensor | None,
    options: dict[str, Any],
) -> LinearResult:
    keep = counted_rows(targets, row_weight, options["ignore_index"]).nonzero()[:, 0]
    kept = evaluate(
        rows,
        loss,
        input[keep],
        weight,
        TargetRows(*(None if t is None else t[keep] for t in targets)),  # type: ignore[arg-type]
        row_weight=None if row_weight is None else row_weight[keep],
        **options,
    )

    def spread(part: Tensor | None, fill: float) -> Tensor | None:
        if part is None:
            return None
        whole = part.new_full((len(input), *part.shape[1:]), fill)
        whole[keep] = part
        return whole

    losses, status = spread(kept.losses, 0), spread(kept.status, Status.NOT_COUNTED)
    assert losses is not None
    assert status is not None
    return kept._replace(
        losses=losses,
        status=status,
        input_gradient=spread(kept.input_gradient, 0),
        log_sum_exp=spread(kept.log_sum_exp, 0),
        argmax=spread(kept.argmax, -1),
    )


def _check(input: Tensor, weight: Tensor, bias: Tensor | None, chunk_rows: int | None) -> None:
    if input.dim() != 2 or weight.dim() != 2 or input.shape[1] != weight.shape[1]:
        raise TensorShapeError(
            f"input has shape {tuple(input.shape)} and weight {tuple(weight.shape)}; expected (N, D) and (C, D)"
        )
    if bias is not None and tuple(bias.shape) != (len(weight),):
        raise TensorShapeError(f"bias has shape {tuple(bias.shape)}, expected ({len(weight)},)")
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and (tensor.dtype != input.dtype or tensor.device != input.device):
            raise TensorTypeError(
                f"{name} is {tensor.dtype} on {tensor.device}, the input {input.dtype} on {input.device}; "
                "they must be the same"
            )
    if chunk_rows is not None and chunk_rows < 1:
        raise TensorShapeError(f"chunk_rows must be at least 1. Got: {chunk_rows}")
