"""What is the same for every command: exit codes, error messages, interruptions.

Exit codes: 0 done; 1 something unexpected went wrong; 2 the input or the usage is wrong; 130 interrupted (Ctrl-C);
143 terminated (SIGTERM). A reader that closes the pipe early, such as `head`, has what it wanted: 0.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from kullback.cli.termination import Terminated
from kullback.errors import InputError

DEBUG = "KULLBACK_DEBUG"


class Frame(TyperGroup):
    """The group of all commands, which turns whatever they raise into a message and an exit code."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the arguments; `--help` and `--version` do their work here."""
        with _exit_codes():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        with _exit_codes():
            result = super().invoke(ctx)
            # A full disk must show here, as an error: at shutdown Python can only complain.
            sys.stdout.flush()
            return result


@contextlib.contextmanager
def flushing() -> Iterator[None]:
    """Write out what help and usage texts left in the buffer, and do not mind if nobody reads it."""
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except OSError:
            _discard_output()


@contextlib.contextmanager
def _exit_codes() -> Iterator[None]:
    debug = bool(os.environ.get(DEBUG))
    try:
        yield
    except BrokenPipeError:
        _discard_output()
        raise typer.Exit(0) from None
    except KeyboardInterrupt:
        _say("Interrupted.")
        raise typer.Exit(130) from None
    except Terminated:
        _say("Terminated.")
        raise typer.Exit(143) from None
    except InputError as error:
        if debug:
            raise
        _say(f"Error: {error}")
        raise typer.Exit(2) from None
    except MemoryError as error:
        if debug:
            raise
        _say(f"Error: the memory of this machine does not suffice ({error or 'out of memory'})")
        raise typer.Exit(1) from None
    except OSError as error:
        if debug:
            raise
        _discard_output()
        _say(f"Error: {error.filename or 'output'}: {error.strerror or error}")
        raise typer.Exit(1) from None
    except Exception as error:
        # Typer's own exceptions carry usage errors and exits: they are for Typer.
        if debug or type(error).__module__.partition(".")[0] in ("typer", "click"):
            raise
        _say(
            f"Unexpected error: {type(error).__name__}: {error}\n"
            f"This is a fault in Kullback. Set {DEBUG}=1 to see where it happened, and please report it."
        )
        raise typer.Exit(1) from None


def printable(text: str) -> str:
    """Text from data, safe to print: control characters, which can steer a terminal, are shown escaped.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def _say(message: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody may be listening
        typer.echo(printable(message), err=True)


def _discard_output() -> None:
    """Point standard output nowhere, so that the interpreter does not fail on flushing it at exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
