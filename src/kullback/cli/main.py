"""Start the command line; the only module imported before interruptions are handled."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the `kullback` command and exit with its code."""
    try:
        from kullback.cli.app import app
        from kullback.cli.frame import handle_termination

        handle_termination()
        app(prog_name="kullback")
    except KeyboardInterrupt:  # before the frame is in charge: while modules load or arguments are parsed
        sys.exit(130)
