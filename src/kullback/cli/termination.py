"""SIGTERM as an exception, so that temporary files are removed on the way out."""

from __future__ import annotations

import signal
from types import FrameType


class Terminated(BaseException):
    """SIGTERM arrived. Not an `Exception`, so that no handler on the way takes it for an error."""


def handle_termination() -> None:
    """Raise `Terminated` in the main thread when SIGTERM arrives, as Python does `KeyboardInterrupt` for SIGINT."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
