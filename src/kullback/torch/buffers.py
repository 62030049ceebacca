"""Memory for large results."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

# From here on NumPy asks the system for huge pages (Linux). A fresh tensor of small pages costs more in page faults
# than the kernel that fills it.
LARGE_BYTES = 2**22


def result_like(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialised contiguous tensor of a tensor's shape and device, in huge pages where that matters."""
    dtype = tensor.dtype if dtype is None else dtype
    size = math.prod(tensor.shape) * dtype.itemsize
    if tensor.device.type != "cpu" or size < LARGE_BYTES:
        return torch.empty(tensor.shape, dtype=dtype, device=tensor.device)
    return torch.from_numpy(np.empty(size, np.uint8)).view(dtype).reshape(tensor.shape)
