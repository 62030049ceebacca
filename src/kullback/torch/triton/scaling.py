"""Multiplying a stored gradient by what comes from above it, where that is almost always exactly 1."""

# Triton compiles these functions from their source and knows no annotations but constexpr.
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kullback.torch.errors import TensorShapeError


@triton.jit
def scale_kernel(values, factor_pointer, n_values, BLOCK: tl.constexpr):
    """values *= factor, but nothing is read or written when the factor is 1."""
    factor = tl.load(factor_pointer).to(tl.float32)
    if factor != 1.0:
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        value = tl.load(values + at, mask=at < n_values, other=0.0).to(tl.float32)
        # 0·inf must stay 0: ignored rows have exactly zero gradient whatever comes from above
        value = tl.where(value == 0, 0.0, value * factor)
        tl.store(values + at, value.to(values.dtype.element_ty), mask=at < n_values)


def scale_in_place(gradient: Tensor, factor: Tensor) -> Tensor:
    """Multiply a contiguous tensor by one number that lies on the device, and return it.

    A loss computes its gradient together with its value; the factor arrives in the backward pass and is 1 wherever
    the loss is what is differentiated. Asking the device for it would stop the stream, so the kernel looks itself,
    and costs a launch and no memory traffic when it is 1.

    Args:
        gradient: any shape, contiguous.
        factor: a tensor of one element.

    Raises:
        TensorShapeError: for a factor of several elements or a gradient that is not contiguous.
    """
    if factor.numel() != 1:
        raise TensorShapeError(f"the factor has shape {tuple(factor.shape)}, expected a single number")
    if not gradient.is_contiguous():
        raise TensorShapeError("the gradient must be contiguous to be scaled in place")
    block = 4096
    if gradient.numel():
        with torch.cuda.device_of(gradient):
            scale_kernel[(triton.cdiv(gradient.numel(), block),)](
                gradient, factor, gradient.numel(), BLOCK=block, num_warps=8
            )
    return gradient
