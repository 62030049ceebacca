"""One team of threads for PyTorch and the kernels."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

import torch

from kullback.kernels import threads


def share_threads() -> bool:
    """Let the kernels run on PyTorch's own OpenMP threads, where its build has GNU's runtime; says whether it does."""
    if sys.platform != "linux":
        return False
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        with contextlib.suppress(OSError, AttributeError):
            # by the path that PyTorch loaded it from: another copy would be a second team
            threads.share_threads_with(ctypes.CDLL(str(path)))
            return True
    return False
