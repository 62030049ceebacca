"""Ctrl-C as a wish to stop: the fit that runs ends at its next step and keeps what it has."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# A second Ctrl-C so soon after the first means the whole program, even if another fit runs by now.
INSISTING_SECONDS = 2.0
# How a fit ends when somebody wants it to.
CTRL_C = "Ctrl-C stopped it"
CALLBACK = "its callback stopped it"
INTERRUPTIONS = (CTRL_C, CALLBACK)

_last = -float("inf")


class Stopped(Exception):  # noqa: N818 - not an error
    """Raised by what follows a fit, to end it where it is; the message says why."""


@contextmanager
def ctrl_c_stops() -> Iterator[Callable[[], bool]]:
    """Inside the ``with`` block, the first Ctrl-C only makes the yielded function return True.

    The second one raises `KeyboardInterrupt` as usual. A program that handles Ctrl-C in its own way keeps doing so,
    and in other threads than the main one Python delivers no Ctrl-C: there the function always returns False.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return
    asked = False

    def remember(number: int, frame: FrameType | None) -> None:
        global _last
        nonlocal asked
        now = time.monotonic()
        if asked or now - _last < INSISTING_SECONDS:
            signal.default_int_handler(number, frame)
        asked, _last = True, now

    signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
