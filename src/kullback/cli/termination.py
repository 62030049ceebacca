"""SIGTERM as an exception, so that temporary files are removed on the way out."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

# How soon a signal that was lost comes again.
AGAIN_SECONDS = 0.05


class Terminated(BaseException):
    """SIGTERM arrived. Not an `Exception`, so that no handler on the way takes it for an error."""


def handle_termination() -> None:
    """Raise `Terminated` in the main thread when SIGTERM arrives, as Python does `KeyboardInterrupt` for SIGINT."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    sys.unraisablehook = _come_again


def _come_again(lost: Any) -> None:
    """Raise an interruption once more that met code whose exceptions Python only reports, such as a destructor."""
    if lost.exc_type is not None and issubclass(lost.exc_type, KeyboardInterrupt | Terminated):
        number = signal.SIGINT if issubclass(lost.exc_type, KeyboardInterrupt) else signal.SIGTERM
        # from another thread, and later: here it would be lost once more
        timer = threading.Timer(AGAIN_SECONDS, _send, [number])
        timer.daemon = True
        timer.start()
    else:
        sys.__unraisablehook__(lost)


def _send(number: int) -> None:
    if hasattr(signal, "pthread_kill"):  # wakes the main thread from what it waits for, too
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)
