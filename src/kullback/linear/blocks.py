"""Running one function over many blocks of rows, on several threads, with the same result for any number of them.

A fit spends its time in products of a tall matrix with a narrow one. Threads inside BLAS serve those badly: they cut
products that are already small, wait for one another in busy loops, and change the rounding with their number. So
BLAS runs on one thread here, and blocks run side by side; NumPy and the kernels let go of the interpreter lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from typing import Any, TypeAlias

from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from kullback.kernels.threads import get_num_threads

Map: TypeAlias = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]


@cache
def _libraries() -> ThreadpoolController:
    """The BLAS libraries of this process; looking for them takes milliseconds, so it is done once."""
    return ThreadpoolController()


@contextmanager
def block_map(n_blocks: int) -> Iterator[Map]:
    """Inside the ``with`` block, BLAS runs on one thread and the value is a `map` that may run calls side by side.

    Results come in the order of the items, so a sum over them never depends on the threads.

    Args:
        n_blocks: how many items a call will have; a single one is run where it stands.
    """
    threads = min(get_num_threads(), n_blocks)
    with _libraries().limit(limits=1, user_api="blas"):
        if threads == 1:
            yield map
            return
        with ThreadPoolExecutor(threads, thread_name_prefix="kullback-fit") as pool:

            def side_by_side(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
                # The choice of kernels is a context variable, which new threads do not see by themselves.
                context = copy_context()
                return pool.map(lambda item: context.copy().run(function, item), items)

            yield side_by_side
