"""What the row kernels share: how logits are read, and how the largest and the sum of exponentials are gathered.

A kernel works on a tile of ROWS rows by BLOCK classes and walks over the blocks of wider rows. Everything about a
row's softmax is carried from block to block in three numbers (online softmax, Milakov & Gimelshein, 2018):

    top    the largest scaled logit so far, −inf before there is one
    equal  how many times it occurred
    rest   Σ exp(u − top) over the smaller ones

Keeping the largest out of the sum costs a comparison and saves the loss of confident rows: log Σ = top +
log1p(equal − 1 + rest), where 1 + rest would round to 1.
"""

# Triton compiles these functions from their source and knows no annotations but constexpr.
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl

from kullback.torch.triton.numerics import tanh, times

COUNTED = tl.constexpr(0)
NOT_COUNTED = tl.constexpr(1)
BAD_TARGET = tl.constexpr(2)
BAD_LOGIT = tl.constexpr(3)
INFINITE = tl.constexpr(4)


@triton.jit
def scaled_logits(z, offset, inverse_temperature, softcap, SOFTCAP: tl.constexpr):
    """u = softcap(z)/T + offset and d softcap/dz, of raw logits in any float type.

    −inf stays −inf. A logit that is NaN or +inf comes out as +inf, so that the row's largest tells whether a row is
    spoilt, whatever the hardware's maximum thinks of NaN.
    """
    z = z.to(tl.float32)
    slope = tl.full(z.shape, 1.0, tl.float32)
    u = z
    if SOFTCAP:
        t, slope = tanh(z * (1.0 / softcap))
        u = tl.where(tl.abs(z) == float("inf"), z, softcap * t)
    u = u * inverse_temperature + offset
    return tl.where(u != u, float("inf"), u), slope


@triton.jit
def load_block(
    logits, offsets, row_start, column, wanted, n_classes, inverse_temperature, softcap, SOFTCAP: tl.constexpr,
    AGAIN: tl.constexpr,
):  # fmt: skip
    """A tile of scaled logits and slopes; −inf beyond the last class and in rows that are not wanted."""
    mask = wanted[:, None] & (column < n_classes)[None, :]
    pointer = logits + row_start[:, None] + column[None, :]
    if AGAIN:
        z = tl.load(pointer, mask=mask, other=float("-inf"), eviction_policy="evict_last")
    else:
        z = tl.load(pointer, mask=mask, other=float("-inf"), eviction_policy="evict_first")
    offset = 0.0
    if offsets is not None:
        offset = tl.load(offsets + column, mask=column < n_classes, other=0.0)[None, :]
    return scaled_logits(z, offset, inverse_temperature, softcap, SOFTCAP)


@triton.jit
def origin(top):
    """What to subtract before exp: the largest logit, or 0 in a row where every class is masked."""
    return tl.where(top == float("-inf"), 0.0, top)


@triton.jit
def gather_top(u, top, equal, rest):
    """Take another block of scaled logits into (top, equal, rest)."""
    block_top = tl.max(u, axis=1)
    at_top = u == block_top[:, None]
    e = tl.exp(u - origin(block_top)[:, None])
    block_rest = tl.sum(tl.where(at_top, 0.0, e), axis=1)
    block_equal = tl.sum(tl.where(at_top, 1.0, 0.0), axis=1)
    block_equal = tl.where(block_top == float("-inf"), 0.0, block_equal)
    new_top = tl.maximum(top, block_top)
    shift = origin(new_top)
    old, new = tl.exp(top - shift), tl.exp(block_top - shift)  # one of the two is 1
    # equal ones below the new largest join the rest
    rest = rest * old + block_rest * new
    rest += tl.where(top < new_top, equal * old, 0.0) + tl.where(block_top < new_top, block_equal * new, 0.0)
    equal = tl.where(top < new_top, 0.0, equal) + tl.where(block_top < new_top, 0.0, block_equal)
    return new_top, equal, rest


@triton.jit
def others(equal, rest):
    """Σ exp(u − top) without one of the largest."""
    return tl.where(equal > 0, rest + (equal - 1.0), 0.0)


@triton.jit
def gather_best(u, column, top, best):
    """The first class at the largest logit so far, blocks coming from the last to the first."""
    here = tl.min(tl.where(u == top[:, None], column[None, :], 2147483647), axis=1)
    return tl.where(here < 2147483647, here, best)


@triton.jit
def gather_pull(u, mass, old_top, top, weight, pull):
    """Σ mass and Σ mass·(u − top) with another block taken in; the sum moves along when the largest logit does."""
    shift = origin(top)
    added = tl.sum(times(mass, u - shift[:, None]), axis=1)
    return weight + tl.sum(mass, axis=1), pull + weight * (origin(old_top) - shift) + added


@triton.jit
def weight_block(class_weight, column, n_classes):
    """Class weights of a block, 0 beyond the last class; ones where there are none."""
    inside = column < n_classes
    if class_weight is None:
        w = tl.where(inside, 1.0, 0.0)
    else:
        w = tl.load(class_weight + column, mask=inside, other=0.0).to(tl.float32)
    return w


@triton.jit
def row_weights(row_weight, row, in_rows):
    """Each row's weight, and whether it counts."""
    if row_weight is None:
        weight = tl.where(in_rows, 1.0, 0.0)
    else:
        weight = tl.load(row_weight + row, mask=in_rows, other=0.0).to(tl.float32)
    return weight, in_rows & (weight != 0)


@triton.jit
def sparse_target(
    firsts, seconds, shares, row, in_rows, counted, n_classes, ignore_index, MIXTURE: tl.constexpr,
    IGNORE: tl.constexpr,
):  # fmt: skip
    """One or two classes a row, the share of the first, whether the row counts, and whether its target is valid.

    A mixture of a class with itself is that class alone; where there is no second class it is −1.
    """
    first = tl.load(firsts + row, mask=in_rows, other=0).to(tl.int64)
    if IGNORE:
        counted = counted & (first != ignore_index)
    valid = counted & (first >= 0) & (first < n_classes)
    second = tl.full(first.shape, -1, tl.int64)
    share = tl.full(first.shape, 1.0, tl.float32)
    if MIXTURE:
        second = tl.load(seconds + row, mask=in_rows, other=0).to(tl.int64)
        share = tl.load(shares + row, mask=in_rows, other=0.0).to(tl.float32)
        valid = valid & (second >= 0) & (second < n_classes) & (share >= 0) & (share <= 1)
        same = second == first
        share = tl.where(same, 1.0, share)
        second = tl.where(same, -1, second)
    return first, second, share, counted, valid


@triton.jit
def row_factor(weight, scale, scale_pointer, inverse_temperature, broken):
    """What a row's gradient in u is multiplied by; NaN where the row's target or logits are unusable."""
    factor = weight * (scale * inverse_temperature)
    if scale_pointer is not None:
        factor *= tl.load(scale_pointer).to(tl.float32)
    return tl.where(broken, float("nan"), factor)


@triton.jit
def store_row(losses, log_sum_exp, status, row, in_rows, counted, valid, spoilt, loss, weight, lse):
    """Write a row's loss, log-sum-exp and status; returns which rows are unusable."""
    bad_target = counted & (valid == 0)
    broken = bad_target | spoilt
    code = tl.where(counted, COUNTED, NOT_COUNTED)
    code = tl.where(counted & (loss == float("inf")), INFINITE, code)
    code = tl.where(spoilt, BAD_LOGIT, code)
    code = tl.where(bad_target, BAD_TARGET, code)
    loss = tl.where(broken, float("nan"), loss * weight)
    tl.store(losses + row, tl.where(counted, loss, 0.0), mask=in_rows)
    tl.store(status + row, code.to(tl.uint8), mask=in_rows)
    if log_sum_exp is not None:
        lse = tl.where(broken, float("nan"), lse)
        tl.store(log_sum_exp + row, tl.where(counted, lse, 0.0), mask=in_rows)
    return broken
