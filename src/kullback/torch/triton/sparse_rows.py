"""Loss and gradient of rows whose target is one class, or a mixture of two.

With p = softmax(u), every loss here has a gradient row of the form

    g = a·p + d·p∘p − b·w,   but at a target class a number of its own

with a, b, d scalars of the row, so the kernel needs the row's log-sum-exp, the logits at the targets, and for some
losses Σ p²: one read of the logits gathers them, and one write gives the gradient. The first block of a row stays
in registers between the two; a row that fits in it is read once, and of a longer one only the other blocks are read
again, in the order in which they are likeliest to be in the cache still.

At a target class the gradient is computed apart, from 1 − p rather than p, so that a confident row's small gradient
keeps its digits.
"""

# Triton compiles these functions from their source and knows no annotations but constexpr.
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl

from kullback.torch.triton.numerics import log1p, ratio, times
from kullback.torch.triton.passes import (
    gather_best,
    gather_pull,
    gather_top,
    load_block,
    origin,
    others,
    row_factor,
    row_weights,
    scaled_logits,
    sparse_target,
    store_row,
    weight_block,
)


@triton.jit
def gather_squares(u, column, first, second, old_top, top, squares, MIXTURE: tl.constexpr):
    """Σ exp(2(u − top)) over the classes that are no target."""
    shift = origin(top)
    e = tl.exp(u - shift[:, None])
    cold = column[None, :] != first[:, None]
    if MIXTURE:
        cold = cold & (column[None, :] != second[:, None])
    return squares * tl.exp(2.0 * (old_top - shift)) + tl.sum(tl.where(cold, e * e, 0.0), axis=1)


@triton.jit
def at_class(logits, offsets, shifts, row_start, label, wanted, inverse_temperature, softcap, SOFTCAP: tl.constexpr):
    """The scaled logit and the family's shift at one class of each row."""
    z = tl.load(logits + row_start + label, mask=wanted, other=0.0)
    offset = 0.0
    if offsets is not None:
        offset = tl.load(offsets + label, mask=wanted, other=0.0)
    shift = tl.full(z.shape, 0.0, tl.float32)
    if shifts is not None:
        shift = tl.load(shifts + label, mask=wanted, other=0.0).to(tl.float32)
    u, _ = scaled_logits(z, offset, inverse_temperature, softcap, SOFTCAP)
    return u, shift


@triton.jit
def odds_at(u, top, tail):
    """log p, p, 1 − p and log(1 − p) of single classes, given Σ exp(u − top) without one of the largest."""
    inverse = 1.0 / (1.0 + tail)
    log_p = u - origin(top) - log1p(tail)
    p = tl.exp(u - origin(top)) * inverse
    largest = (u == top) & (top > float("-inf"))
    miss = tl.where(largest, tail * inverse, 1.0 - p)
    log_miss = tl.where(largest, tl.log(tail * inverse), log1p(-tl.minimum(p, 0.5)))
    return log_p, p, miss, log_miss


@triton.jit
def write_block(
    gradient, row_start, column, in_rows, counted, n_classes, u, slope, top, inverse, factor, a, b, d, class_weight,
    first, second, at_first, at_second,
    MIXTURE: tl.constexpr, SQUARES: tl.constexpr, SMOOTH: tl.constexpr, SOFTCAP: tl.constexpr,
):  # fmt: skip
    """Write one tile of the gradient."""
    p = tl.exp(u - origin(top)[:, None]) * inverse[:, None]
    g = a[:, None] * p
    if SQUARES:
        g += d[:, None] * p * p
    if SMOOTH:
        g -= b * weight_block(class_weight, column, n_classes)[None, :]
    g = tl.where(column[None, :] == first[:, None], at_first[:, None], g)
    if MIXTURE:
        g = tl.where(column[None, :] == second[:, None], at_second[:, None], g)
    if SOFTCAP:
        g *= slope
    g = tl.where(counted[:, None], g * factor[:, None], 0.0)
    mask = in_rows[:, None] & (column < n_classes)[None, :]
    tl.store(
        gradient + row_start[:, None] + column[None, :],
        g.to(gradient.dtype.element_ty),
        mask=mask,
        eviction_policy="evict_first",
    )


@triton.jit
def sparse_rows_kernel(
    logits, logits_step, gradient, gradient_step, losses, log_sum_exp, status, best,
    firsts, seconds, shares, row_weight, class_weight, shifts, offsets, scale_pointer,
    n_rows, classes_step, scale, parameter, smoothing, inverse_temperature, softcap, z_loss, ignore_index,
    FAMILY: tl.constexpr, SQUARES: tl.constexpr, MIXTURE: tl.constexpr, SMOOTH: tl.constexpr, SOFTCAP: tl.constexpr,
    Z_LOSS: tl.constexpr, IGNORE: tl.constexpr, ALIGN: tl.constexpr, SINGLE: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """See the module; arguments are those of `kullback.torch.triton.softmax_evaluate`, absent tensors None."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    in_rows = row < n_rows
    # counts come divided by ALIGN, so that the compiler knows what they are multiples of, and loads 16 bytes at once
    n_classes = classes_step * ALIGN
    row_start = row * logits_step * ALIGN
    out_start = row * gradient_step * ALIGN

    # ---- the target
    weight, counted = row_weights(row_weight, row, in_rows)
    first, second, share, counted, valid = sparse_target(
        firsts, seconds, shares, row, in_rows, counted, n_classes, ignore_index, MIXTURE, IGNORE
    )
    apart = valid & (second >= 0)

    # ---- what the row's target classes hold; read before any gradient is written, which may be over the logits
    u1, shift1 = at_class(
        logits, offsets, shifts, row_start, first, valid, inverse_temperature, softcap, SOFTCAP
    )  # fmt: skip
    mass1 = (1.0 - smoothing) * share
    if class_weight is not None:
        mass1 *= tl.load(class_weight + first, mask=valid, other=0.0).to(tl.float32)
    u2, shift2, mass2 = u1, shift1, tl.full([ROWS], 0.0, tl.float32)
    if MIXTURE:
        u2, shift2 = at_class(
            logits, offsets, shifts, row_start, second, apart, inverse_temperature, softcap, SOFTCAP
        )  # fmt: skip
        mass2 = tl.where(apart, (1.0 - smoothing) * (1.0 - share), 0.0)
        if class_weight is not None:
            mass2 *= tl.load(class_weight + second, mask=apart, other=0.0).to(tl.float32)
    if gradient is not None:
        tl.debug_barrier()  # the threads that read a target's logit are not those that write its gradient

    # ---- one pass over the logits; the first block comes last and stays
    top = tl.full([ROWS], float("-inf"), tl.float32)
    equal = tl.full([ROWS], 0.0, tl.float32)
    rest = tl.full([ROWS], 0.0, tl.float32)
    squares = tl.full([ROWS], 0.0, tl.float32)
    smooth_weight = tl.full([ROWS], 0.0, tl.float32)
    pull = tl.full([ROWS], 0.0, tl.float32)
    head = tl.arange(0, BLOCK)
    best_class = tl.full([ROWS], 0, tl.int32)
    if not SINGLE:
        for done in range(tl.cdiv(n_classes, BLOCK) - 1):
            column = (tl.cdiv(n_classes, BLOCK) - 1 - done) * BLOCK + head
            u, _ = load_block(
                logits, offsets, row_start, column, valid, n_classes, inverse_temperature, softcap, SOFTCAP, True
            )  # fmt: skip
            old_top = top
            top, equal, rest = gather_top(u, top, equal, rest)
            if best is not None:
                best_class = gather_best(u, column, top, best_class)
            if SQUARES:
                squares = gather_squares(u, column, first, second, old_top, top, squares, MIXTURE)
            if SMOOTH:
                w = weight_block(class_weight, column, n_classes)
                smooth_weight, pull = gather_pull(u, w[None, :], old_top, top, smooth_weight, pull)
    u, slope = load_block(
        logits, offsets, row_start, head, valid, n_classes, inverse_temperature, softcap, SOFTCAP, False
    )  # fmt: skip
    old_top = top
    top, equal, rest = gather_top(u, top, equal, rest)
    if best is not None:
        best_class = gather_best(u, head, top, best_class)
    if SQUARES:
        squares = gather_squares(u, head, first, second, old_top, top, squares, MIXTURE)
    if SMOOTH:
        w = weight_block(class_weight, head, n_classes)
        smooth_weight, pull = gather_pull(u, w[None, :], old_top, top, smooth_weight, pull)

    # ---- the row's scalars
    tail = others(equal, rest)
    inverse = tl.where(equal > 0, 1.0 / (1.0 + tail), 0.0)
    lse = top + log1p(tail)
    spoilt = top == float("inf")
    log_p1, p1, miss1, log_miss1 = odds_at(u1, top, tail)
    value1, own1 = FAMILY(log_p1, p1, miss1, log_miss1, shift1, parameter)
    total = mass1 + mass2
    loss = times(mass1, value1)
    own1 *= mass1  # the pull on the class itself; on the others it is shared out by p/(1 − p)
    k1 = ratio(own1, miss1)
    zero = tl.full([ROWS], 0.0, tl.float32)
    own2, k2, p2, miss2 = zero, zero, zero, zero + 1.0
    if MIXTURE:
        log_p2, p2, miss2, log_miss2 = odds_at(u2, top, tail)
        value2, own2 = FAMILY(log_p2, p2, miss2, log_miss2, shift2, parameter)
        p2 = tl.where(apart, p2, 0.0)
        miss2 = tl.where(apart, miss2, 1.0)
        loss += times(mass2, value2)
        own2 = tl.where(apart, own2 * mass2, 0.0)
        k2 = ratio(own2, miss2)
    a = zero
    b = 0.0
    at1 = own1 - k2 * p1
    at2 = own2 - k1 * p2
    if SMOOTH:
        b = smoothing / n_classes
        loss -= b * (pull - smooth_weight * log1p(tail))
        total += b * smooth_weight
        a += b * smooth_weight
        w1 = tl.full([ROWS], 1.0, tl.float32)
        w2 = w1
        if class_weight is not None:
            w1 = tl.load(class_weight + first, mask=valid, other=0.0).to(tl.float32)
            w2 = tl.load(class_weight + second, mask=apart, other=0.0).to(tl.float32)
        at1 -= b * w1
        at2 -= b * w2
    if Z_LOSS:
        loss += times(total * z_loss, lse * lse)
        a += 2.0 * z_loss * tl.where(equal > 0, lse, 0.0) * total
    at1 += a * p1
    at2 += a * p2
    a -= k1 + k2
    d = zero
    if SQUARES:
        # Σ (S − s_k)·p_k² and its slopes; with the targets' own terms kept apart nothing near 1 is subtracted
        cold = squares * inverse * inverse
        spare1, spare2 = total - mass1, total - mass2
        loss += total * cold + spare1 * p1 * p1 + tl.where(apart, spare2 * p2 * p2, 0.0)
        h1 = 2.0 * spare1 * p1 * p1
        h2 = tl.where(apart, 2.0 * spare2 * p2 * p2, 0.0)
        h_cold = 2.0 * total * cold
        at1 += h1 * miss1 - (h2 + h_cold) * p1
        at2 += h2 * miss2 - (h1 + h_cold) * p2
        a -= h1 + h2 + h_cold
        d = 2.0 * total

    # ---- what the row gives
    broken = store_row(
        losses, log_sum_exp, status, row, in_rows, counted, valid, spoilt, loss, weight, lse
    )  # fmt: skip
    if best is not None:
        tl.store(best + row, tl.where(valid & (spoilt == 0), best_class, -1).to(tl.int64), mask=in_rows)
    if gradient is not None:
        factor = row_factor(weight, scale, scale_pointer, inverse_temperature, broken)
        write_block(
            gradient, out_start, head, in_rows, counted, n_classes, u, slope, top, inverse, factor, a, b, d,
            class_weight, first, second, at1, at2, MIXTURE, SQUARES, SMOOTH, SOFTCAP,
        )  # fmt: skip
        if not SINGLE:
            for block in range(1, tl.cdiv(n_classes, BLOCK)):
                column = block * BLOCK + head
                u, slope = load_block(
                    logits, offsets, row_start, column, valid, n_classes, inverse_temperature, softcap, SOFTCAP, False
                )  # fmt: skip
                write_block(
                    gradient, out_start, column, in_rows, counted, n_classes, u, slope, top, inverse, factor, a, b, d,
                    class_weight, first, second, at1, at2, MIXTURE, SQUARES, SMOOTH, SOFTCAP,
                )  # fmt: skip
