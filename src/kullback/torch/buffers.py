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
from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Smaller results come from PyTorch's allocator, which keeps such memory itself.
LARGE_BYTES = 2**22
HUGE_PAGE = 2**21
# Two serve a network that is differentiated twice, or two losses on the same logits.
MOST_KEPT = 2

_can_keep = sys.platform == "linux" and hasattr(mmap, "MADV_FREE")
_kept: deque[_Region] = deque()  # its single operations are atomic, which is all that is relied on


def result_like(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialised contiguous tensor of a tensor's shape and device."""
    dtype = tensor.dtype if dtype is None else dtype
    size = tensor.numel() * dtype.itemsize
    if size < LARGE_BYTES or tensor.device.type != "cpu":
        return torch.empty_like(tensor, dtype=dtype, memory_format=torch.contiguous_format)
    memory = _memory(size) if _can_keep else np.empty(size, np.uint8)
    return torch.frombuffer(memory, dtype=dtype).view(tensor.shape)


def empty_cache() -> None:
    """Give the memory kept for the next large gradient back to the system at once.

    >>> import kullback.torch as kt
    >>> kt.empty_cache()
    """
    _kept.clear()


class _Region(mmap.mmap):
    """Memory from the system, with room to start at a huge page; whether the system may take its pages."""

    start: int
    given: bool = False


class _Memory(np.ndarray[Any, Any]):
    """Bytes whose region is kept when the last reference to them goes."""

    region: _Region | None = None

    def __del__(self) -> None:
        if self.region is not None and _keep is not None:  # None while the interpreter takes its modules apart
            _keep(self.region)


def _memory(size: int) -> _Memory:
    """Uninitialised bytes, from the start of a huge page on."""
    region = _fitting(size)
    if region is None:
        region = _Region(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        region.start = -np.frombuffer(region, np.uint8, 1).ctypes.data % HUGE_PAGE
        with contextlib.suppress(OSError):  # a system without huge pages
            region.madvise(mmap.MADV_HUGEPAGE)
    memory = _Memory(size, np.uint8, region, region.start)
    memory.region = region
    return memory


def _fitting(size: int) -> _Region | None:
    """The smallest kept region that holds `size` bytes and is not far too large; it is no longer kept.

    Of several as large the one kept last, whose pages are the likeliest to be in a cache.
    """
    fitting = [region for region in reversed(list(_kept)) if size + HUGE_PAGE <= len(region) <= 2 * (size + HUGE_PAGE)]
    for region in sorted(fitting, key=len):
        try:
            _kept.remove(region)
        except ValueError:  # another thread took it
            continue
        region.given = False
        return region
    return None


def _keep(region: _Region) -> None:
    # runs wherever the last reference happened to go, even inside the functions above
    waiting = []
    while _kept:  # nobody may take one, and write to it, between here and there
        with contextlib.suppress(IndexError):
            waiting.append(_kept.popleft())
    for idle in waiting:
        if not idle.given:
            idle.given = True
            with contextlib.suppress(OSError):
                idle.madvise(mmap.MADV_FREE)
    _kept.extend([*waiting, region][-MOST_KEPT:])
    while len(_kept) > MOST_KEPT:  # another thread kept one meanwhile
        with contextlib.suppress(IndexError):
            _kept.popleft()
