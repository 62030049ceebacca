"""Loss and gradient of rows whose every class matters: soft targets, and losses that look at all classes.

With a_k the derivative of the row's loss in the log-odds of class k, τ the largest class, r the distribution among
the other classes, and B = Σ_{k≠τ} a_k/(1 − p_k),

    g_j = a_j/(1 − p_j) − p_j·B − a_τ·r_j  for j ≠ τ,      g_τ = a_τ − p_τ·B

(`kullback.kernels.reference`): nothing is divided by the small 1 − p of a confident class. For cross-entropy this is
p·S − s, and one pass over logits and targets gathers all that is needed; the other losses need p before they can sum,
which costs a row too wide for the registers one more read.

Sparse targets come here too, spread over the classes on the fly, when smoothing or one-vs-rest gives every class a
term of its own.
"""

# Triton compiles these functions from their source and knows no annotations but constexpr.
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl

from kullback.torch.triton.numerics import log1p, times
from kullback.torch.triton.passes import (
    gather_best,
    gather_pull,
    gather_top,
    load_block,
    origin,
    others,
    row_factor,
    row_weights,
    sparse_target,
    store_row,
    weight_block,
)


@triton.jit
def mass_block(rows, row_start, column, wanted, n_classes, first, second, share, DENSE: tl.constexpr):
    """A tile of target mass t: read, or spread from one or two classes."""
    if DENSE:
        mask = wanted[:, None] & (column < n_classes)[None, :]
        t = tl.load(rows + row_start[:, None] + column[None, :], mask=mask, other=0.0).to(tl.float32)
    else:
        t = tl.where(column[None, :] == first[:, None], share[:, None], 0.0)
        t += tl.where(column[None, :] == second[:, None], 1.0 - share[:, None], 0.0)
    return t


@triton.jit
def shift_block(shifts, column, n_classes):
    """The family's own number of each class in a block."""
    shift = tl.full(column.shape, 0.0, tl.float32)
    if shifts is not None:
        shift = tl.load(shifts + column, mask=column < n_classes, other=0.0).to(tl.float32)
    return shift


@triton.jit
def not_mass(t, BY_MASS: tl.constexpr):
    """Whether any entry of a row's target is infinite or NaN, or negative, which PyTorch's convention takes."""
    good = (t < float("inf")) & (t >= 0 if BY_MASS else t > float("-inf"))
    return tl.max(tl.where(good, 0, 1), axis=1)


@triton.jit
def charge(s, spare, log_p, p, miss, log_miss, shift, parameter, ON: tl.constexpr, OFF: tl.constexpr):
    """Cost and derivative in the log-odds of classes with mass s, and S − s on the others."""
    value, own = ON(log_p, p, miss, log_miss, shift, parameter)
    cost = times(s, value)
    own *= s
    if OFF is not None:
        value, off_own = OFF(log_p, p, miss, log_miss, shift, parameter)
        cost += times(spare, value)
        own += spare * off_own
    return cost, own


@triton.jit
def costs(u, s, total, top, tail, equal, shift, column, n_classes, parameter, ON: tl.constexpr, OFF: tl.constexpr):
    """Costs and slopes in log p of a tile of classes, with p, and which class is the largest; zeros for that one.

    Where several are equally large none is: each has p ≤ 1/2 and needs no special care.
    """
    inverse = tl.where(equal > 0, 1.0 / (1.0 + tail), 0.0)
    largest = (u == top[:, None]) & (equal == 1)[:, None]
    log_p = u - origin(top)[:, None] - log1p(tail)[:, None]
    p = tl.exp(u - origin(top)[:, None]) * inverse[:, None]
    small = tl.minimum(p, 0.5)
    cost, own = charge(s, total[:, None] - s, log_p, p, 1.0 - small, log1p(-small), shift, parameter, ON, OFF)
    keep = (column < n_classes)[None, :] & (largest == 0)
    return tl.where(keep, cost, 0.0), tl.where(keep, own / (1.0 - small), 0.0), p, largest


@triton.jit
def write_dense_block(
    gradient, row_start, column, in_rows, counted, n_classes, u, slope, s, total, top, tail, equal, pull, own_top,
    second, second_inverse, factor, shift, parameter,
    ON: tl.constexpr, OFF: tl.constexpr, LINEAR: tl.constexpr, SOFTCAP: tl.constexpr,
):  # fmt: skip
    """Write one tile of the gradient."""
    if LINEAR:
        inverse = tl.where(equal > 0, 1.0 / (1.0 + tail), 0.0)
        p = tl.exp(u - origin(top)[:, None]) * inverse[:, None]
        largest = (u == top[:, None]) & (top > float("-inf"))[:, None]
        miss = tl.where(largest, (tail * inverse)[:, None], 1.0 - p)
        g = p * (total[:, None] - s) - s * miss
    else:
        _, h, p, largest = costs(u, s, total, top, tail, equal, shift, column, n_classes, parameter, ON, OFF)
        # what pulls on the largest class is shared out among the others
        others_share = tl.exp(u - origin(second)[:, None]) * second_inverse[:, None]
        g = tl.where(largest, own_top[:, None], h - tl.where(largest, 0.0, others_share) * own_top[:, None])
    g += p * pull[:, None]
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
def dense_rows_kernel(
    logits, logits_step, gradient, gradient_step, losses, log_sum_exp, status, best,
    targets, targets_step, firsts, seconds, shares, row_weight, class_weight, shifts, offsets, scale_pointer,
    n_rows, classes_step, scale, parameter, smoothing, inverse_temperature, softcap, z_loss, ignore_index,
    ON: tl.constexpr, OFF: tl.constexpr, LINEAR: tl.constexpr, DENSE: tl.constexpr, MIXTURE: tl.constexpr,
    SMOOTH: tl.constexpr, BY_MASS: tl.constexpr, SOFTCAP: tl.constexpr, Z_LOSS: tl.constexpr, IGNORE: tl.constexpr,
    ALIGN: tl.constexpr, SINGLE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """See the module; arguments are those of `kullback.torch.triton.softmax_evaluate`, absent tensors None."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    in_rows = row < n_rows
    # counts come divided by ALIGN, so that the compiler knows what they are multiples of, and loads 16 bytes at once
    n_classes = classes_step * ALIGN
    row_start = row * logits_step * ALIGN
    out_start = row * gradient_step * ALIGN
    target_start = row * targets_step * ALIGN
    head = tl.arange(0, BLOCK)
    blocks = tl.cdiv(n_classes, BLOCK)

    weight, counted = row_weights(row_weight, row, in_rows)
    first = tl.full([ROWS], -1, tl.int64)
    second_class, share, valid = first, tl.full([ROWS], 0.0, tl.float32), counted
    if not DENSE:
        first, second_class, share, counted, valid = sparse_target(
            firsts, seconds, shares, row, in_rows, counted, n_classes, ignore_index, MIXTURE, IGNORE
        )  # fmt: skip

    # ---- first pass: the softmax, and the sums that are linear in the target
    top = tl.full([ROWS], float("-inf"), tl.float32)
    equal = tl.full([ROWS], 0.0, tl.float32)
    rest = tl.full([ROWS], 0.0, tl.float32)
    mass = tl.full([ROWS], 0.0, tl.float32)
    hot_weight = tl.full([ROWS], 0.0, tl.float32)
    hot_pull = tl.full([ROWS], 0.0, tl.float32)
    even_weight = tl.full([ROWS], 0.0, tl.float32)
    even_pull = tl.full([ROWS], 0.0, tl.float32)
    wrong = tl.full([ROWS], 0, tl.int32)
    best_class = tl.full([ROWS], 0, tl.int32)
    if not SINGLE:
        for done in range(blocks - 1):
            column = (blocks - 1 - done) * BLOCK + head
            u, _ = load_block(
                logits, offsets, row_start, column, valid, n_classes, inverse_temperature, softcap, SOFTCAP, True
            )  # fmt: skip
            t = mass_block(targets, target_start, column, valid, n_classes, first, second_class, share, DENSE)
            w = weight_block(class_weight, column, n_classes)
            old_top = top
            top, equal, rest = gather_top(u, top, equal, rest)
            wrong = tl.maximum(wrong, not_mass(t, BY_MASS))
            mass += tl.sum(t, axis=1)
            hot_weight, hot_pull = gather_pull(u, t * w[None, :], old_top, top, hot_weight, hot_pull)
            if SMOOTH:
                even_weight, even_pull = gather_pull(u, w[None, :], old_top, top, even_weight, even_pull)
            if best is not None:
                best_class = gather_best(u, column, top, best_class)
    u, slope = load_block(
        logits, offsets, row_start, head, valid, n_classes, inverse_temperature, softcap, SOFTCAP, False
    )  # fmt: skip
    t = mass_block(targets, target_start, head, valid, n_classes, first, second_class, share, DENSE)
    w = weight_block(class_weight, head, n_classes)
    old_top = top
    top, equal, rest = gather_top(u, top, equal, rest)
    wrong = tl.maximum(wrong, not_mass(t, BY_MASS))
    mass += tl.sum(t, axis=1)
    hot_weight, hot_pull = gather_pull(u, t * w[None, :], old_top, top, hot_weight, hot_pull)
    if SMOOTH:
        even_weight, even_pull = gather_pull(u, w[None, :], old_top, top, even_weight, even_pull)
    if best is not None:
        best_class = gather_best(u, head, top, best_class)

    # ---- the row's scalars
    if DENSE:
        valid = valid & (wrong == 0)
    tail = others(equal, rest)
    lse = top + log1p(tail)
    spoilt = top == float("inf")
    keep = 1.0 - smoothing
    even = tl.full([ROWS], 0.0, tl.float32) + smoothing / n_classes
    if BY_MASS:
        even *= mass
    total = keep * hot_weight
    if SMOOTH:
        total += even * even_weight
    s = w[None, :] * (keep * t + even[:, None])
    pull = tl.full([ROWS], 0.0, tl.float32)
    own_top = tl.full([ROWS], 0.0, tl.float32)
    second = tl.full([ROWS], float("-inf"), tl.float32)
    second_equal = tl.full([ROWS], 0.0, tl.float32)
    second_rest = tl.full([ROWS], 0.0, tl.float32)
    second_inverse = tl.full([ROWS], 0.0, tl.float32)
    if LINEAR:
        loss = -times(keep, hot_pull - hot_weight * log1p(tail))
        if SMOOTH:
            loss -= times(even, even_pull - even_weight * log1p(tail))
    else:
        # ---- second pass: costs and pulls; the largest class apart from the others
        shift = shift_block(shifts, head, n_classes)[None, :]
        cost, h, _, largest = costs(u, s, total, top, tail, equal, shift, head, n_classes, parameter, ON, OFF)
        loss = tl.sum(cost, axis=1)
        pull -= tl.sum(h, axis=1)
        s_top = tl.sum(tl.where(largest, s, 0.0), axis=1)
        shift_top = tl.sum(tl.where(largest, shift, 0.0), axis=1)
        second, second_equal, second_rest = gather_top(
            tl.where(largest, float("-inf"), u), second, second_equal, second_rest
        )  # fmt: skip
        if not SINGLE:
            for block in range(1, blocks):
                column = block * BLOCK + head
                u_more, _ = load_block(
                    logits, offsets, row_start, column, valid, n_classes, inverse_temperature, softcap, SOFTCAP, True
                )  # fmt: skip
                t_more = mass_block(targets, target_start, column, valid, n_classes, first, second_class, share, DENSE)
                w_more = weight_block(class_weight, column, n_classes)
                s_more = w_more[None, :] * (keep * t_more + even[:, None])
                shift = shift_block(shifts, column, n_classes)[None, :]
                cost, h, _, largest = costs(
                    u_more, s_more, total, top, tail, equal, shift, column, n_classes, parameter, ON, OFF
                )  # fmt: skip
                loss += tl.sum(cost, axis=1)
                pull -= tl.sum(h, axis=1)
                s_top += tl.sum(tl.where(largest, s_more, 0.0), axis=1)
                shift_top += tl.sum(tl.where(largest, shift, 0.0), axis=1)
                second, second_equal, second_rest = gather_top(
                    tl.where(largest, float("-inf"), u_more), second, second_equal, second_rest
                )  # fmt: skip
        # 1 − p of the largest may be too small for float32; its logarithm and the others' shares of it are not
        sum_others = second_equal + second_rest
        second_inverse = tl.where(sum_others > 0, 1.0 / tl.where(sum_others > 0, sum_others, 1.0), 0.0)
        log_miss = second - origin(top) + tl.log(sum_others) - log1p(tail)
        inverse = 1.0 / (1.0 + tail)
        cost_top, own_top = charge(
            s_top, total - s_top, -log1p(tail), inverse, tail * inverse, log_miss, shift_top, parameter, ON, OFF
        )  # fmt: skip
        loss += tl.where(equal == 1, cost_top, 0.0)
        own_top = tl.where(equal == 1, own_top, 0.0)
    if Z_LOSS:
        loss += times(total * z_loss, lse * lse)
        pull += 2.0 * z_loss * tl.where(equal > 0, lse, 0.0) * total

    # ---- what the row gives
    broken = store_row(losses, log_sum_exp, status, row, in_rows, counted, valid, spoilt, loss, weight, lse)
    if best is not None:
        tl.store(best + row, tl.where(valid & (spoilt == 0), best_class, -1).to(tl.int64), mask=in_rows)
    if gradient is not None:
        factor = row_factor(weight, scale, scale_pointer, inverse_temperature, broken)
        write_dense_block(
            gradient, out_start, head, in_rows, counted, n_classes, u, slope, s, total, top, tail, equal, pull,
            own_top, second, second_inverse, factor, shift_block(shifts, head, n_classes)[None, :], parameter, ON, OFF,
            LINEAR, SOFTCAP,
        )  # fmt: skip
        if not SINGLE:
            for block in range(1, blocks):
                column = block * BLOCK + head
                u, slope = load_block(
                    logits, offsets, row_start, column, valid, n_classes, inverse_temperature, softcap, SOFTCAP, False
                )  # fmt: skip
                t = mass_block(targets, target_start, column, valid, n_classes, first, second_class, share, DENSE)
                w = weight_block(class_weight, column, n_classes)
                s = w[None, :] * (keep * t + even[:, None])
                write_dense_block(
                    gradient, out_start, column, in_rows, counted, n_classes, u, slope, s, total, top, tail, equal,
                    pull, own_top, second, second_inverse, factor, shift_block(shifts, column, n_classes)[None, :],
                    parameter, ON, OFF, LINEAR, SOFTCAP,
                )  # fmt: skip
