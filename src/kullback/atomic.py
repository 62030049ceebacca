"""Files and directories that appear whole or not at all.

Everything is written under a temporary name beside its destination, flushed to the disk, and renamed into place,
so that a reader, a full disk, Ctrl-C or a kill never meets half a file. A rename within one directory is the only
step that the rest of the world can see.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

from kullback.errors import InputError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextlib.contextmanager
def deferred_signals() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back while the block runs, then deliver them to whoever handled them before.

    Blocking the signals with a mask would not do: the kernel hands a signal to any thread that does not block it,
    BLAS and Arrow keep threads of their own, and Python then runs the handler in the main thread all the same.
    Outside the main thread nothing is needed, for Python never interrupts another thread with a signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[tuple[int, FrameType | None]] = []
    previous: dict[int, Any] = {}
    number: int

    def remember(number: int, frame: FrameType | None) -> None:
        arrived.append((number, frame))

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not None:  # None: set by C code, which cannot be put back from here
                previous[number] = signal.signal(number, remember)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for number, frame in arrived:
            handler = previous[number]
            if callable(handler):
                handler(number, frame)
            elif handler == signal.SIG_DFL:
                signal.raise_signal(number)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces `path` only when the block ends without an error.

    Args:
        path: destination. A symbolic link is followed. A device or a named pipe is written directly.

    Yields:
        A binary file open for writing.

    Raises:
        InputError: if the destination is a directory or cannot be written; the message names it.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with atomic_file(target) as file:
    ...     _ = file.write(b"whole")
    >>> target.read_bytes()
    b'whole'
    """
    path = Path(os.path.realpath(path))
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a directory; give the name of a file")
    with _named_errors(path):
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
            return
        part = _beside(path)
        try:
            with open(part, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            with deferred_signals():
                os.replace(part, path)
                _sync_directory(path.parent)
        except BaseException:
            with deferred_signals(), contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise


def check_destination(path: Path, *, overwrite: bool, check_replaceable: Callable[[Path], None]) -> None:
    """Fail now, before hours of training, if `atomic_directory` could not put a directory at `path`.

    Raises:
        InputError: the path exists and may not be replaced, or its parent cannot be written.
    """
    path = Path(os.path.realpath(path))
    _check_free(path, overwrite, check_replaceable)
    ancestor = path.parent
    while not ancestor.exists() and ancestor != ancestor.parent:
        ancestor = ancestor.parent
    with _named_errors(path):
        # os.access answers from permission bits alone; read-only and special file systems show only on trying.
        probe = _beside(ancestor / path.name)
        try:
            probe.mkdir()
        finally:
            with deferred_signals(), contextlib.suppress(OSError):
                probe.rmdir()


@contextlib.contextmanager
def atomic_directory(path: Path, *, overwrite: bool, check_replaceable: Callable[[Path], None]) -> Iterator[Path]:
    """Fill a temporary directory that becomes `path` only when the block ends without an error.

    Args:
        path: destination; missing parent directories are made, and removed again if the block fails.
        overwrite: whether an existing directory may be replaced. It stays in place until the new one is complete.
        check_replaceable: called with an existing directory before it is replaced; raises if it must be kept.

    Yields:
        The temporary directory to write into.

    Raises:
        InputError: the destination exists and may not be replaced, or cannot be written; the message names it.
    """
    path = Path(os.path.realpath(path))
    missing = [parent for parent in path.parents if not parent.exists()]
    part = _beside(path)
    with _named_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.mkdir()
            yield part
            _sync_tree(part)
            with deferred_signals():
                _check_free(path, overwrite, check_replaceable)
                if path.exists():
                    _swap(part, path)
                    shutil.rmtree(part, ignore_errors=True)  # it holds the old directory now
                else:
                    os.rename(part, path)
                _sync_directory(path.parent)
        except BaseException:
            with deferred_signals():
                shutil.rmtree(part, ignore_errors=True)
                for parent in missing:
                    with contextlib.suppress(OSError):
                        parent.rmdir()
            raise


def _check_free(path: Path, overwrite: bool, check_replaceable: Callable[[Path], None]) -> None:
    try:
        exists = os.path.lexists(path)
    except OSError:
        exists = False
    if not exists:
        return
    if not overwrite:
        raise InputError(f"{path} already exists; give another directory, or replace it with --overwrite")
    if not path.is_dir():
        raise InputError(f"{path} exists and is not a directory; give another directory")
    if any(path.iterdir()):
        check_replaceable(path)


def _swap(new: Path, old: Path) -> None:
    """Exchange two directories; afterwards `new` holds what `old` held."""
    if _exchange(new, old):
        return
    # No exchange on this system: two renames. A kill between them leaves the old directory under its aside name.
    aside = _beside(old)
    os.rename(old, aside)
    try:
        os.rename(new, old)
    except BaseException:
        os.rename(aside, old)
        raise
    os.rename(aside, new)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step where the kernel and the file system can; False where they cannot."""
    if not sys.platform.startswith("linux"):
        return False
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    result = renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    return bool(result == 0)


def _beside(path: Path) -> Path:
    # A long name plus the suffix may pass the file system's 255 bytes, so only the start of it is kept.
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.part")


def _sync_tree(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.is_file():
            with entry.open("rb") as file:
                os.fsync(file.fileno())
    _sync_directory(directory)


def _sync_directory(directory: Path) -> None:
    # Some file systems refuse to sync a directory; the rename is atomic all the same.
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot write {path}: {reason}") from error
