"""Progress on a terminal: what is counted, and how far it has come."""

from __future__ import annotations

import io

import pytest

from kullback.cli.output import listening


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, quiet: bool = False, progress: bool = True) -> str:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with listening(quiet, progress=progress) as listener:
        listener.stage("Reading")
        listener.note("a [bold]note[/bold] with \x1b[31mcolour")
        listener.stage("Training", "iterations")
        listener.advance(7, 0.5, "gap 3e-04")
    return terminal.getvalue()


def test_a_bar_counts_and_notes_stand_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch)
    assert "Training" in text
    assert "7 iterations, gap 3e-04" in text
    assert "note: a [bold]note[/bold] with \\x1b[31mcolour" in text


def test_without_progress_there_are_only_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, progress=False) == "note: a [bold]note[/bold] with \\x1b[31mcolour\n"
    assert shown(monkeypatch, quiet=True) == ""
