"""Memory for large results: in huge pages, and used again once nobody holds it.

A gradient as large as the logits is made in every step of a training loop and dropped in the next. Memory fresh from
the system costs a page fault and a clearing for each page, which together take longer than the kernel that fills it. So
the memory of dropped results is kept, a few pieces at most, for the next result of about their size. Of pieces that
were not asked for again when the next one came, the system is told that it may take their pages whenever it runs short
(``MADV_FREE``); a training loop asks at once, and telling takes a twentieth of a kernel's time.
"""

from __future__ import annotations

import contextlib
import mmap
import sys
import weakref
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Smaller results come from PyTorch's allocator, which keeps such memory itself.
LARGE_BYTES = 2**22
HUGE_PAGE = 2**21
# Two serve a network that is differentiated twice, or two losses on the same logits.
MOST_KEPT = 2

_can_keep = sys.platform == "linux" and hasattr(mmap, "MADV_FREE")
_kept: deque[mmap.mmap] = deque()  # its single operations are atomic, which is all that is relied on


def result_like(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialised contiguous tensor of a tensor's shape and device."""
    dtype = tensor.dtype if dtype is None else dtype
    size = tensor.numel() * dtype.itemsize
    if size < LARGE_BYTES or tensor.device.type != "cpu":
        return torch.empty_like(tensor, dtype=dtype, memory_format=torch.contiguous_format)
    memory = _memory(size) if _can_keep else np.empty(size, np.uint8)
    return torch.from_numpy(memory).view(dtype).reshape(tensor.shape)


def empty_cache() -> None:
    """Give the memory kept for the next large gradient back to the system at once.

    >>> import kullback.torch as kt
    >>> kt.empty_cache()
    """
    _kept.clear()


def _memory(size: int) -> NDArray[np.uint8]:
    """An array of bytes whose memory is kept when the last reference to the array goes."""
    region = _fitting(size)
    if region is None:
        region = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a system without huge pages
            region.madvise(mmap.MADV_HUGEPAGE)
    start = -np.frombuffer(region, np.uint8, 1).ctypes.data % HUGE_PAGE
    array = np.frombuffer(region, np.uint8, size, start)
    weakref.finalize(array, _keep, region).atexit = False
    return array


def _fitting(size: int) -> mmap.mmap | None:
    """The smallest kept region that holds `size` bytes and is not far too large; it is no longer kept."""
    fitting = [region for region in list(_kept) if size + HUGE_PAGE <= len(region) <= 2 * (size + HUGE_PAGE)]
    for region in sorted(fitting, key=len):
        try:
            _kept.remove(region)
        except ValueError:  # another thread took it
            continue
        return region
    return None


def _keep(region: mmap.mmap) -> None:
    # runs wherever the last reference happened to go, even inside the functions above
    waiting = []
    while _kept:  # nobody may take one, and write to it, between here and there
        with contextlib.suppress(IndexError):
            waiting.append(_kept.popleft())
    for idle in waiting:
        with contextlib.suppress(OSError):
            idle.madvise(mmap.MADV_FREE)
    _kept.extend([*waiting, region][-MOST_KEPT:])
    while len(_kept) > MOST_KEPT:  # another thread kept one meanwhile
        with contextlib.suppress(IndexError):
            _kept.popleft()
