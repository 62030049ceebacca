"""How many threads the native kernels use.

The default is ``KULLBACK_NUM_THREADS``, else ``OMP_NUM_THREADS``, else the processors this process may run on.
Results are bit-identical for any number of threads.
"""

from __future__ import annotations

import ctypes
import os

from kullback.errors import InputError
from kullback.kernels import _native


def set_num_threads(n: int) -> None:
    """Use at most `n` threads in each kernel call from now on.

    Args:
        n: at least 1.

    Raises:
        InputError: if `n` is not a positive integer.

    >>> set_num_threads(2)
    >>> get_num_threads()
    2
    """
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 4096:
        raise InputError(f"the number of threads must be an integer from 1 to 4096, got {n!r}")
    _native.set_num_threads(n)


def get_num_threads() -> int:
    """Return the largest number of threads a kernel call uses."""
    return _native.get_num_threads()


def share_threads_with(library: ctypes.CDLL) -> None:
    """Run kernels on the threads of an OpenMP runtime that is loaded, while it uses as many as the kernels do.

    Its threads spin for some milliseconds after each of their own jobs, and threads of ours would have to share the
    processors with them.

    Args:
        library: GNU's runtime, or one that has its entry points.

    Raises:
        AttributeError: if it has not.
    """
    entries = (library.GOMP_parallel, library.omp_get_max_threads)
    _native.use_openmp(*(ctypes.cast(entry, ctypes.c_void_p).value or 0 for entry in entries))


def keep_threads_apart() -> None:
    """Undo `share_threads_with`: kernels have threads of their own."""
    _native.use_openmp(0, 0)


def _default() -> int:
    own = os.environ.get("KULLBACK_NUM_THREADS", "").strip()
    if own:
        if not own.isdecimal() or not 1 <= int(own) <= 4096:
            raise InputError(f"KULLBACK_NUM_THREADS={own!r} is not a number of threads; set 1, 2, … or unset it")
        return int(own)
    # OpenMP's variable may be a list, one number per nesting level, and belongs to others: no complaint about it
    shared = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if shared.isdecimal() and int(shared) >= 1:
        return min(int(shared), 4096)
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


_native.set_num_threads(_default())
