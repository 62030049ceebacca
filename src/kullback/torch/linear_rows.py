"""A linear layer and its loss together, without ever holding all logits: the loops behind `linear`.

Two orders of work:

- *rows*: a chunk of rows at a time. The chunk's logits become their gradient in place, and go straight into the
  gradients of input and weight: three matrix products in all.
- *classes*: a block of classes at a time, twice over: once for the rows' log-sum-exps, once for the gradients. Four
  products, but the weight is read in float32 a block at a time and its gradient is finished block by block. This is
  what half precision on the CPU needs, where a float32 copy of the weight or of its gradient would be the largest
  tensor of all.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from kullback.losses import Loss
from kullback.torch import devices, native, plain
from kullback.torch.buffers import result_like
from kullback.torch.class_blocks import ClassBlock, RowSums
from kullback.torch.devices import DeviceLoss
from kullback.torch.rows import TargetRows, accumulation_dtype
from kullback.torch.settings import RowSettings

# Logits held at a time, at most: 96 MiB of float32. Fewer rows would make the matrix products less efficient.
CHUNK_ELEMENTS = 3 * 2**23
FEWEST_ROWS = 16
# The same for a block of classes, of which several temporaries are held at once.
BLOCK_ELEMENTS = 3 * 2**19


class Wanted(NamedTuple):
    """Which gradients are asked for."""

    input: bool
    weight: bool
    bias: bool

    @property
    def any(self) -> bool:
        """Whether any is."""
        return self.input or self.weight or self.bias


class LinearPass(NamedTuple):
    """What one pass gives; parts that were not asked for are None.

    Attributes:
        losses: (N,) row weight × loss, float32 or float64.
        input_gradient: (N, D).
        weight_gradient: (C, D).
        bias_gradient: (C,).
        lse: (N,) log-sum-exps.
        prediction: (N,) the classes with the largest logits.
    """

    losses: Tensor
    input_gradient: Tensor | None
    weight_gradient: Tensor | None
    bias_gradient: Tensor | None
    lse: Tensor | None
    prediction: Tensor | None


class RowLoss(Protocol):
    """A loss of a chunk of logits."""

    def evaluate(
        self, logits: Tensor, target: TargetRows, row_weight: Tensor | None, *, in_place: bool, with_statistics: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Row weight × loss (n,) and statistics; with `in_place` the logits become row_weight × gradient."""

    def on_device(self, n_classes: int, device: torch.device) -> DeviceLoss | None:
        """The same loss for a device other than the CPU, or None if it only runs there."""


class CrossEntropyRows:
    """`RowLoss` of cross-entropy."""

    def __init__(self, settings: RowSettings, class_weight: Tensor | None) -> None:
        self.settings = settings
        self.class_weight = class_weight

    def evaluate(
        self, logits: Tensor, target: TargetRows, row_weight: Tensor | None, *, in_place: bool, with_statistics: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """See `RowLoss`."""
        result = native.evaluate(
            self.settings,
            logits,
            target,
            self.class_weight,
            None if row_weight is None else native.array_of(row_weight.double()),
            with_losses=True,
            gradient=logits if in_place else None,
            with_statistics=with_statistics,
        )
        assert result.losses is not None
        return result.losses, result.lse, result.prediction

    def on_device(self, n_classes: int, device: torch.device) -> DeviceLoss | None:
        """See `RowLoss`."""
        return devices.cross_entropy(self.settings, self.class_weight)


class ObjectRows:
    """`RowLoss` of any loss object over classes; computed on the CPU."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def evaluate(
        self, logits: Tensor, target: TargetRows, row_weight: Tensor | None, *, in_place: bool, with_statistics: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """See `RowLoss`."""
        host = logits.cpu()
        z = native.array_of(host)
        targets = native.class_targets(TargetRows(*(None if t is None else t.cpu() for t in target)))  # type: ignore[arg-type]
        assert not with_statistics, "only cross-entropy offers them"
        if in_place:
            values, _ = self.loss.value_and_gradient(z, targets, reduction="none", out=z)
            if row_weight is not None:
                host *= row_weight.to(host)[:, None]
            if host.data_ptr() != logits.data_ptr():
                logits.copy_(host)
        else:
            values = self.loss.per_example(z, targets)
        losses = torch.from_numpy(np.asarray(values)).to(logits.device, logits.dtype)
        return losses if row_weight is None else losses * row_weight.to(losses), None, None

    def on_device(self, n_classes: int, device: torch.device) -> DeviceLoss | None:
        """See `RowLoss`."""
        return devices.loss_object(self.loss, n_classes, device)


def run(
    row_loss: RowLoss,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: TargetRows,
    row_weight: Tensor | None,
    counts: Tensor,
    wanted: Wanted,
    *,
    with_statistics: bool,
    chunk_rows: int | None,
    drop_ignored: bool = False,
) -> LinearPass:
    """Losses of ``input @ weight.T + bias`` and the gradients asked for; rows that do not count have none.

    Args:
        row_loss: the loss of a row.
        input: (N, D).
        weight: (C, D).
        bias: (C,) or None.
        target: N targets over C classes, already checked.
        row_weight: (N,) multiplies losses and gradients, or None.
        counts: bool (N,), which rows count.
        wanted: which gradients.
        with_statistics: whether log-sum-exps and predictions are wanted.
        chunk_rows: rows at a time, or None for what fits `CHUNK_ELEMENTS`.
        drop_ignored: whether devices that have to be waited for leave rows that do not count out of the products.
    """
    if not native.runs(input):
        on_device = row_loss.on_device(weight.shape[0], input.device)
        if on_device is not None:
            on_its_device = on_device.linear(
                (input, weight, bias),
                target,
                row_weight,
                wanted,
                with_statistics=with_statistics,
                chunk_rows=chunk_rows,
                drop_ignored=drop_ignored,
            )
            return LinearPass(on_its_device.losses, *on_its_device[2:])
    kept = None if bool(counts.all()) else counts.nonzero()[:, 0]
    whole = input.shape[0]
    if kept is not None:
        input, target = input[kept], TargetRows(*(None if t is None else t[kept] for t in target))  # type: ignore[arg-type]
        row_weight = None if row_weight is None else row_weight[kept]
    half_on_cpu = input.device.type == "cpu" and input.dtype in (torch.bfloat16, torch.float16)
    with torch.autocast(input.device.type, enabled=False):  # the types are chosen here
        if half_on_cpu and isinstance(row_loss, CrossEntropyRows):
            found = _by_classes(row_loss, input, weight, bias, target, row_weight, wanted, with_statistics)
        else:
            found = _by_rows(row_loss, input, weight, bias, target, row_weight, wanted, with_statistics, chunk_rows)
    if kept is None:
        return found
    return found._replace(
        losses=spread(found.losses, kept, whole),
        input_gradient=None if found.input_gradient is None else spread(found.input_gradient, kept, whole),
        lse=None if found.lse is None else spread(found.lse, kept, whole),
        prediction=None if found.prediction is None else spread(found.prediction, kept, whole, -1),
    )


def spread(part: Tensor, kept: Tensor | None, whole: int, elsewhere: int = 0) -> Tensor:
    """Results of the kept rows among those of all others; `kept` is None if these are all."""
    if kept is None:
        return part
    full = part.new_full((whole, *part.shape[1:]), elsewhere)
    full[kept] = part
    return full


def rows_at_a_time(n_rows: int, n_classes: int, chunk_rows: int | None) -> int:
    """How many rows go through together: chunks of one size where that is not given."""
    if chunk_rows is not None:
        return max(1, chunk_rows)
    most = max(FEWEST_ROWS, CHUNK_ELEMENTS // max(n_classes, 1))
    each = math.ceil(n_rows / max(1, math.ceil(n_rows / most)))
    return max(1, min(n_rows, math.ceil(each / 16) * 16))


def _by_rows(
    row_loss: RowLoss,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: TargetRows,
    row_weight: Tensor | None,
    wanted: Wanted,
    with_statistics: bool,
    chunk_rows: int | None,
) -> LinearPass:
    n_rows, n_classes = input.shape[0], weight.shape[0]
    on_cpu = input.device.type == "cpu"
    wide = accumulation_dtype(input.dtype)
    # products in the layer's own type on devices that have units for it, in float32 on the CPU
    product = wide if on_cpu else input.dtype
    weight_p = weight.to(product)
    bias_p = None if bias is None else bias.to(product)
    losses = torch.empty(n_rows, dtype=wide, device=input.device)
    input_gradient = torch.empty_like(input, memory_format=torch.contiguous_format) if wanted.input else None
    weight_gradient = result_like(weight, wide) if wanted.weight else None
    bias_gradient = torch.zeros(n_classes, dtype=wide, device=weight.device) if wanted.bias else None
    lse = torch.empty_like(losses) if with_statistics else None
    prediction = torch.empty(n_rows, dtype=torch.int64, device=input.device) if with_statistics else None
    step = rows_at_a_time(n_rows, n_classes, chunk_rows)
    buffer = result_like(input.new_empty(()).expand(min(step, n_rows), n_classes), product)
    for start in range(0, n_rows, step):
        rows = slice(start, min(start + step, n_rows))
        x = input[rows].to(product)
        z = buffer[: x.shape[0]]
        if bias_p is None:
            torch.mm(x, weight_p.t(), out=z)
        else:
            torch.addmm(bias_p, x, weight_p.t(), out=z)
        value, chunk_lse, chunk_prediction = row_loss.evaluate(
            z,
            plain.part(target, rows),
            None if row_weight is None else row_weight[rows],
            in_place=wanted.any,
            with_statistics=with_statistics,
        )
        losses[rows] = value
        if lse is not None and chunk_lse is not None:
            lse[rows] = chunk_lse
        if prediction is not None and chunk_prediction is not None:
            prediction[rows] = chunk_prediction
        if input_gradient is not None:
            input_gradient[rows] = z @ weight_p
        if weight_gradient is not None:
            if product == wide:
                torch.addmm(weight_gradient, z.t(), x, beta=0 if start == 0 else 1, out=weight_gradient)
            elif start == 0:
                weight_gradient.copy_(z.t() @ x)
            else:
                weight_gradient += z.t() @ x
        if bias_gradient is not None:
            bias_gradient += z.sum(dim=0, dtype=wide)
    if weight_gradient is not None and n_rows == 0:
        weight_gradient.zero_()
    return LinearPass(
        losses,
        input_gradient,
        None if weight_gradient is None else weight_gradient.to(weight.dtype),
        None if bias_gradient is None or bias is None else bias_gradient.to(bias.dtype),
        lse,
        prediction,
    )


def _by_classes(
    row_loss: CrossEntropyRows,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: TargetRows,
    row_weight: Tensor | None,
    wanted: Wanted,
    with_statistics: bool,
) -> LinearPass:
    n_rows, n_classes = input.shape[0], weight.shape[0]
    settings = row_loss.settings
    x = input.float()
    width = max(256, min(n_classes, BLOCK_ELEMENTS // max(n_rows, input.shape[1], 1)))
    blocks = [(start, min(start + width, n_classes)) for start in range(0, n_classes, width)]
    total = target.first.sum(dim=1, dtype=torch.float32) if target.is_soft() and settings.by_mass else None
    sums: RowSums | None = None
    best = x.new_full((n_rows,), -math.inf)
    prediction = torch.zeros(n_rows, dtype=torch.int64, device=x.device)

    def block_of(start: int, stop: int) -> tuple[ClassBlock, Tensor, Tensor]:
        w = weight[start:stop].float()
        z = torch.mm(x, w.t()) if bias is None else torch.addmm(bias[start:stop].float(), x, w.t())
        part = TargetRows(target.first[:, start:stop]) if target.is_soft() else target
        class_weight = None if row_loss.class_weight is None else row_loss.class_weight[start:stop]
        return ClassBlock(settings, z, start, n_classes, part, class_weight, total), w, z

    for start, stop in blocks:
        block, _, z = block_of(start, stop)
        if with_statistics:
            top, column = z.max(dim=1)
            better = top > best
            prediction[better] = column[better] + start
            best[better] = top[better]
        here = block.sums()
        sums = here if sums is None else sums.merged(here)
    assert sums is not None
    losses, lse = sums.losses(settings.z_loss), sums.lse().float()
    if row_weight is not None:
        losses = losses * row_weight
    input_gradient = torch.zeros_like(x, memory_format=torch.contiguous_format) if wanted.input else None
    weight_gradient = result_like(weight) if wanted.weight else None
    bias_gradient = torch.empty_like(bias) if wanted.bias and bias is not None else None
    if wanted.any:
        scale = x.new_ones(n_rows) if row_weight is None else row_weight
        for start, stop in blocks:
            block, w, _ = block_of(start, stop)
            g = block.gradient(sums, scale)
            if input_gradient is not None:
                input_gradient.addmm_(g, w)
            if weight_gradient is not None:
                weight_gradient[start:stop] = g.t() @ x
            if bias_gradient is not None:
                bias_gradient[start:stop] = g.sum(dim=0)
    return LinearPass(
        losses.float(),
        None if input_gradient is None else input_gradient.to(input.dtype),
        weight_gradient,
        bias_gradient,
        lse if with_statistics else None,
        torch.where(lse.isnan(), -1, prediction) if with_statistics else None,
    )
