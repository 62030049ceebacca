"""Files and directories appear whole or not at all, whatever interrupts."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from kullback import atomic
from kullback.atomic import atomic_directory, atomic_file, check_destination, deferred_signals
from kullback.errors import InputError


def allow(path: Path) -> None:
    """Let any directory be replaced."""


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def interrupt_everywhere(action: Callable[[], None], check: Callable[[], None], number: int) -> int:
    """Run `action` once for each of its source lines, with a signal sent there; `check` after each."""
    sent = 0
    while True:
        countdown = sent
        fired = False

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal countdown, fired
            if frame.f_code.co_filename != atomic.__file__:
                return trace if event == "call" and frame.f_code.co_filename == __file__ else None
            if event == "line" and not fired:
                countdown -= 1
                if countdown < 0:
                    fired = True
                    signal.raise_signal(number)
            return trace

        sys.settrace(trace)
        try:
            action()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        check()
        if not fired:
            return sent
        sent += 1


def test_file_is_replaced_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")
    with atomic_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.csv"]


def test_failing_block_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as file:
        file.write(b"%d" % (1 // (file.write(b"half") - 4)))
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.csv"]


def test_file_gets_the_permissions_of_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        with atomic_file(tmp_path / "a") as file:
            file.write(b"x")
    finally:
        os.umask(previous)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_file_follows_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with atomic_file(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_device_is_written_directly() -> None:
    with atomic_file(Path("/dev/null")) as file:
        file.write(b"gone")
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize("bad", ["directory", "absent/a.csv", "plain/a.csv"])
def test_unwritable_file_is_named(tmp_path: Path, bad: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "plain").write_text("")
    with pytest.raises(InputError, match=f"cannot write .*{bad}"), atomic_file(tmp_path / bad) as file:
        file.write(b"x")
    assert names(tmp_path) == ["directory", "plain"]


def test_long_file_names_fit(tmp_path: Path) -> None:
    name = "n" * 255
    with atomic_file(tmp_path / name) as file:
        file.write(b"x")
    assert names(tmp_path) == [name]


def test_interrupted_file_is_old_or_new(tmp_path: Path) -> None:
    path = tmp_path / "a"
    seen = set()

    def action() -> None:
        with atomic_file(path) as file:
            file.write(b"new")

    def check() -> None:
        assert names(tmp_path) in ([], ["a"])
        if path.exists():
            assert path.read_bytes() == b"new"
        seen.add(path.exists())
        path.unlink(missing_ok=True)

    assert interrupt_everywhere(action, check, signal.SIGINT) > 10
    assert seen == {True, False}


@pytest.mark.parametrize("exchange", [True, False])
def test_interrupted_directory_is_old_or_new(tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda new, old: False)
    path = tmp_path / "model"
    seen = set()

    def reset() -> None:
        for entry in path.iterdir():
            entry.unlink()
        (path / "a").write_text("old")
        (path / "b").write_text("old")

    def action() -> None:
        with atomic_directory(path, overwrite=True, check_replaceable=allow) as part:
            (part / "a").write_text("new")

    def check() -> None:
        assert names(tmp_path) == ["model"]
        contents = {name: (path / name).read_text() for name in names(path)}
        assert contents in ({"a": "old", "b": "old"}, {"a": "new"})
        seen.add(contents["a"])
        reset()

    path.mkdir()
    reset()
    assert interrupt_everywhere(action, check, signal.SIGINT) > 20
    assert seen == {"old", "new"}


def test_interrupted_new_directory_leaves_no_parents(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "one" / "model"

    def action() -> None:
        with atomic_directory(path, overwrite=False, check_replaceable=allow) as part:
            (part / "a").write_text("new")

    def check() -> None:
        if path.exists():
            assert names(path.parent) == ["model"]
            (path / "a").unlink()
            for directory in (path, path.parent, path.parent.parent):
                directory.rmdir()
        assert names(tmp_path) == []

    assert interrupt_everywhere(action, check, signal.SIGINT) > 10


def test_existing_directory_needs_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    with (
        pytest.raises(InputError, match=r"model already exists.*--overwrite"),
        atomic_directory(path, overwrite=False, check_replaceable=allow) as part,
    ):
        (part / "a").write_text("new")
    assert names(tmp_path) == ["model"]
    assert names(path) == []


def test_refused_directory_stays(tmp_path: Path) -> None:
    path = tmp_path / "photos"
    path.mkdir()
    (path / "cat.jpg").write_text("x")

    def refuse(path: Path) -> None:
        raise InputError("precious")

    with (
        pytest.raises(InputError, match="precious"),
        atomic_directory(path, overwrite=True, check_replaceable=refuse) as part,
    ):
        (part / "a").write_text("new")
    assert names(path) == ["cat.jpg"]
    assert names(tmp_path) == ["photos"]


@pytest.mark.parametrize("where", ["plain/model", "/proc/model", "/dev/null/model"])
def test_unwritable_directory_is_found_before_the_work(tmp_path: Path, where: str) -> None:
    (tmp_path / "plain").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*model"):
        check_destination(tmp_path / where, overwrite=False, check_replaceable=allow)


def test_checking_a_destination_leaves_no_trace(tmp_path: Path) -> None:
    check_destination(tmp_path / "a" / "b", overwrite=False, check_replaceable=allow)
    assert names(tmp_path) == []


def test_deferred_signal_arrives_after_the_block() -> None:
    order = []

    def interrupted_work() -> None:
        with deferred_signals():
            signal.raise_signal(signal.SIGINT)
            order.append("finished")

    with pytest.raises(KeyboardInterrupt):
        interrupted_work()
    assert order == ["finished"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_need_no_deferral() -> None:
    ran = []

    def work() -> None:
        with deferred_signals():
            ran.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ran == [True]
