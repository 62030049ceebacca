"""Start the command line; nothing that takes time is imported before interruptions are handled."""

from __future__ import annotations

import os
import sys

from kullback.cli.termination import Terminated, handle_termination


def main() -> None:
    """Run the `kullback` command and exit with its code."""
    if sys.stdout is None:  # started with a closed standard output: there is nobody to tell
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        handle_termination()
        from kullback.cli.app import app
        from kullback.cli.frame import flushing

        with flushing():
            app(prog_name="kullback")
    # Before the frame is in charge, while modules load:
    except KeyboardInterrupt:
        sys.exit(130)
    except Terminated:
        sys.exit(143)
    finally:
        _forget_interruption()


def _forget_interruption() -> None:
    """Let the exit code stand where Ctrl-C met code in a string, such as dataclasses and named tuples are made with.

    ``python -m`` remembers that a `KeyboardInterrupt` left such code, even where somebody caught it further up, and in
    the end kills itself with SIGINT. The next string that runs makes it forget.
    """
    exec("")
