"""The kernels' calls in ordinary torch operations: what they are compared with, and what runs where they cannot.

Same signature and results as `kullback.torch.triton.launch.softmax_evaluate`, on any device, float64 included.
Blocks of rows keep the temporaries small beside large logits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from kullback.torch.errors import TensorShapeError
from kullback.torch.plain import counted_rows
from kullback.torch.rows import TargetRows, accumulation_dtype
from kullback.torch.triton.chunks import evaluate
from kullback.torch.triton.row_loss import RowLoss, RowResult, Status, check_call

BLOCK_ELEMENTS = 2**22


class Odds(NamedTuple):
    """What is known of a class: log p, p, 1 − p and log(1 − p), and the family's own number of it.

    `rivals` is the distribution among the classes other than the row's largest, 0 at that one.
    """

    log_p: Tensor
    p: Tensor
    miss: Tensor
    log_miss: Tensor
    shift: Tensor
    rivals: Tensor


Element = Callable[[Odds, float], tuple[Tensor, Tensor]]


def _log_loss(o: Odds, parameter: float) -> tuple[Tensor, Tensor]:
    return -o.log_p, -o.miss


def _focal(o: Odds, gamma: float) -> tuple[Tensor, Tensor]:
    power = o.miss**gamma
    return _times(power, -o.log_p), power * (gamma * _times(o.p, o.log_p) - o.miss)


def _jensen_shannon(o: Odds, r: float) -> tuple[Tensor, Tensor]:
    level, mixed = math.log1p(-r), r + (1 - r) * o.p
    log_mixed, p_log_p = -torch.log1p((1 - r) * o.miss / mixed), _times(o.p, o.log_p)
    pull = (p_log_p + o.p * (level - log_mixed)) / level
    return (mixed * log_mixed / (1 - r) - p_log_p + o.miss * level) / level, -pull * o.miss


def _shifted_log(o: Odds, parameter: float) -> tuple[Tensor, Tensor]:
    grown = o.miss * o.shift.exp()
    return torch.log1p(o.miss * o.shift.expm1()) - o.log_p, -grown / (o.p + grown)


class Family(NamedTuple):
    """A loss: cost and derivative in the log-odds of a class that holds and, or None, of one that does not."""

    on: Element
    off: Element | None = None


FAMILIES: dict[str, Family] = {
    "cross_entropy": Family(_log_loss),
    "one_vs_rest": Family(_log_loss, off=lambda o, _: (-o.log_miss, o.p)),
    "brier": Family(lambda o, _: (o.miss**2, -2 * o.p * o.miss**2), off=lambda o, _: (o.p**2, 2 * o.p**2 * o.miss)),
    "focal": Family(_focal),
    "generalised_cross_entropy": Family(lambda o, q: (-torch.expm1(q * o.log_p) / q, -torch.exp(q * o.log_p) * o.miss)),
    "poly": Family(lambda o, e: (-o.log_p + e * o.miss, -o.miss * (1 + e * o.p))),
    "jensen_shannon": Family(_jensen_shannon),
    "smoothed_zero_one": Family(lambda o, _: (o.miss, -o.p * o.miss)),
    "ldam": Family(_shifted_log),
}


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
) -> RowResult:
    """See `kullback.torch.triton.launch.softmax_evaluate`; losses of float64 logits come back in float64.

    Raises:
        SettingError, TensorShapeError, TensorTypeError: for an unknown family, or tensors that do not fit together.
    """
    if logits.dim() != 2:
        raise TensorShapeError(f"logits have shape {tuple(logits.shape)}, expected rows (N, C)")
    n_rows, n_classes = logits.shape
    check_call(loss, FAMILIES, n_rows, n_classes, logits.device, targets, row_weight)
    compute = accumulation_dtype(logits.dtype)
    new = logits.new_empty
    out = (logits.new_empty(logits.shape) if gradient else None) if isinstance(gradient, bool) else gradient
    result = RowResult(
        losses=new(n_rows, dtype=compute),
        status=new(n_rows, dtype=torch.uint8),
        gradient=out,
        log_sum_exp=new(n_rows, dtype=compute) if log_sum_exp else None,
        argmax=new(n_rows, dtype=torch.int64) if argmax else None,
    )
    step = max(1, BLOCK_ELEMENTS // n_classes)
    for start in range(0, n_rows, step):
        rows = slice(start, min(start + step, n_rows))
        part = TargetRows(*(None if t is None else t[rows] for t in targets))  # type: ignore[arg-type]
        weight = None if row_weight is None else row_weight[rows]
        _evaluate_block(loss, logits[rows], part, weight, ignore_index, scale, result, rows)
    return result


def _evaluate_block(
    loss: RowLoss,
    logits: Tensor,
    targets: TargetRows,
    row_weight: Tensor | None,
    ignore_index: int | None,
    scale: float | Tensor,
    result: RowResult,
    rows: slice,
) -> None:
    n_rows, n_classes = logits.shape
    dtype = accumulation_dtype(logits.dtype)
    weight = torch.ones(n_rows, dtype=dtype, device=logits.device) if row_weight is None else row_weight.to(dtype)
    counted = counted_rows(targets, None if row_weight is None else weight, ignore_index)
    mass, good = _mass(targets, counted, n_classes, dtype, loss.by_mass)
    valid = counted & good

    z = torch.where(valid[:, None], logits.to(dtype), 0.0)
    slope = torch.ones_like(z)
    u = z
    if loss.softcap:
        e = torch.exp(-2 / loss.softcap * z.abs())
        u = torch.where(z.isinf(), z, loss.softcap * torch.tanh(z / loss.softcap))
        slope = 4 * e / (1 + e) ** 2
    u = u / loss.temperature
    if loss.offset is not None:
        u = u + loss.offset.to(dtype)
    spoilt = valid & (u.isnan() | u.isposinf()).any(dim=1)
    u = torch.where(spoilt[:, None], 0.0, u)

    odds, log_sum = _odds(u, loss.shift)
    share = mass.sum(dim=1, keepdim=True) if loss.by_mass else 1.0
    s = (1 - loss.smoothing) * mass + loss.smoothing / n_classes * share
    if loss.class_weight is not None:
        s = s * loss.class_weight.to(dtype)
    total = s.sum(dim=1, keepdim=True)
    family = FAMILIES[loss.family]
    value, own = family.on(odds, loss.parameter)
    value, own = _times(s, value), s * own
    if family.off is not None:
        off, off_own = family.off(odds, loss.parameter)
        value, own = value + _times(total - s, off), own + (total - s) * off_own
    losses = value.sum(dim=1)
    if loss.z_loss:
        losses = losses + _times(total[:, 0] * loss.z_loss, log_sum**2)

    broken = spoilt | (counted & ~good)
    status = torch.where(counted, Status.COUNTED, Status.NOT_COUNTED)
    status = torch.where(counted & losses.isposinf(), Status.INFINITE, status)
    status = torch.where(spoilt, Status.BAD_LOGIT, status)
    result.status[rows] = torch.where(counted & ~good, Status.BAD_TARGET, status).to(torch.uint8)
    nan = torch.full_like(losses, torch.nan)
    result.losses[rows] = torch.where(counted, torch.where(broken, nan, losses * weight), 0.0)
    if result.log_sum_exp is not None:
        result.log_sum_exp[rows] = torch.where(counted, torch.where(broken, nan, log_sum), 0.0)
    if result.argmax is not None:
        result.argmax[rows] = torch.where(valid & ~spoilt, u.argmax(dim=1), -1)
    if result.gradient is not None:
        g = _pulled(odds, own)
        if loss.z_loss:
            masked = log_sum.isneginf()
            g = g + odds.p * (2 * loss.z_loss * torch.where(masked, 0.0, log_sum) * total[:, 0])[:, None]
        factor = torch.where(broken, nan, weight * scale / loss.temperature)
        g = torch.where(counted[:, None], g * slope * factor[:, None], 0.0)
        result.gradient[rows] = g.to(result.gradient.dtype)


def _pulled(odds: Odds, own: Tensor) -> Tensor:
    """The gradient in the scaled logits from derivatives in the log-odds: `kullback.kernels.reference`'s formula."""
    top = odds.p.argmax(dim=1, keepdim=True)
    h = (own / odds.miss).scatter(1, top, 0.0)
    at_top = own.gather(1, top)
    pull = h.sum(dim=1, keepdim=True)
    g = h - odds.p * pull - at_top * odds.rivals
    return g.scatter(1, top, at_top - odds.p.gather(1, top) * pull)


def _mass(
    targets: TargetRows, counted: Tensor, n_classes: int, dtype: torch.dtype, by_mass: bool
) -> tuple[Tensor, Tensor]:
    """Target mass (N, C), zero in rows that do not count, and which rows' targets are valid."""
    if targets.is_soft():
        t = torch.where(counted[:, None], targets.first.to(dtype), 0.0)
        good = t.isfinite()
        return t, (good & (t >= 0) if by_mass else good).all(dim=1)
    first = targets.first.long()
    good = (first >= 0) & (first < n_classes)
    share = torch.ones(len(first), dtype=dtype, device=first.device)
    if targets.second is not None and targets.share is not None:
        second = targets.second.long()
        share = targets.share.to(dtype)
        good = good & (second >= 0) & (second < n_classes) & (share >= 0) & (share <= 1)
    usable = counted & good
    mass = torch.zeros(len(first), n_classes, dtype=dtype, device=first.device)
    mass.scatter_(1, torch.where(usable, first, 0)[:, None], torch.where(usable, share, 0.0)[:, None])
    if targets.second is not None:
        mass.scatter_add_(1, torch.where(usable, second, 0)[:, None], torch.where(usable, 1 - share, 0.0)[:, None])
    return mass, good


def _odds(u: Tensor, shift: Tensor | None) -> tuple[Odds, Tensor]:
    """Odds (N, C) of scaled logits, and the rows' log-sum-exp (N,).

    One of the largest logits is kept out of the sum, so that a confident row's 1 − p keeps its digits.
    """
    top, best = u.max(dim=1, keepdim=True)
    shifted = u - torch.where(top.isneginf(), 0.0, top)
    e = shifted.exp()
    rest = e.scatter(1, best, 0.0).sum(dim=1, keepdim=True)
    log_p = shifted - rest.log1p()
    p = e / (1 + rest)
    # the others among themselves: their sum may be too small for the type, its logarithm and their shares are not
    others = shifted.scatter(1, best, -torch.inf)
    second = others.max(dim=1, keepdim=True).values
    rivals = (others - torch.where(second.isneginf(), 0.0, second)).exp()
    total = rivals.sum(dim=1, keepdim=True)
    alive = ~top.isneginf()
    miss = (1 - p).scatter(1, best, torch.where(alive, rest / (1 + rest), 1.0))
    log_miss = torch.log1p(-p.clamp(max=0.5))
    log_miss = log_miss.scatter(1, best, torch.where(alive, second + total.log() - rest.log1p(), 0.0))
    rivals = rivals / torch.where(total == 0, 1.0, total)
    own = torch.zeros_like(u) if shift is None else shift.to(u.dtype).expand_as(u)
    return Odds(log_p, p, miss, log_miss, own, rivals), (top + rest.log1p())[:, 0]


def _times(mass: Tensor, value: Tensor) -> Tensor:
    """mass·value with 0·(±inf) = 0."""
    return torch.where(mass == 0, 0.0, mass * value)


linear_softmax_evaluate = functools.partial(evaluate, softmax_evaluate)
"""See `kullback.torch.triton.chunks.evaluate`, whose `rows` is `softmax_evaluate` of this module here."""
