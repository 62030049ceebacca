"""Whole processes: signals, closed pipes, full disks, and what reaches the shell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import kullback

from .conftest import ants, to_csv

KULLBACK = [sys.executable, "-m", "kullback"]


def start(*arguments: str | Path, **options: object) -> subprocess.Popen[str]:
    command = [*KULLBACK, *(str(argument) for argument in arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload, no-any-return]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def slow(here: Path) -> list[str]:
    """The arguments of a fit that takes a while: many classes that can be told apart, and no penalty."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20000, 12))
    directions = rng.normal(size=(12, 40))
    labels = np.argmax(values @ (directions / np.linalg.norm(directions, axis=0)), axis=1)
    lines = [",".join([f"x{j}" for j in range(12)] + ["y"])]
    lines += [",".join(f"{v:.3f}" for v in row) + f",c{label}" for row, label in zip(values, labels, strict=True)]
    Path("many.csv").write_text("\n".join(lines) + "\n")
    return ["fit", "many.csv", "--target", "y", "--out", "model", "--C", "inf"]


@pytest.mark.parametrize("delay", [0.0, 0.4, 1.2])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing_or_all(slow: list[str], here: Path, number: int, code: int, delay: float) -> None:
    process = start(*slow)
    assert process.stderr is not None
    assert "40 classes" in process.stderr.readline()  # the data is read; all that takes long is still to come
    time.sleep(delay)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    if os.listdir(here) == ["many.csv"]:
        assert process.returncode == code
        assert err.strip().splitlines()[-1] in ("Interrupted.", "Terminated.")
    else:  # the model was in place before the signal came
        assert delay > 0
        assert sorted(os.listdir(here)) == ["model", "many.csv"]
        assert len(kullback.load_model("model").classes) == 40
        assert process.returncode in (0, code, -number)


def test_the_exit_code_stands_wherever_ctrl_c_came(here: Path) -> None:
    """Python kills itself in the end where it came while code in a string ran, as it does when modules load."""
    Path("interrupted.py").write_text(
        "import contextlib, sys\n"
        "import kullback.cli.app\n"
        "from kullback.cli.main import main\n"
        "def app(prog_name):\n"
        "    with contextlib.suppress(KeyboardInterrupt):\n"
        "        exec('raise KeyboardInterrupt')\n"
        "    sys.exit(130)\n"
        "kullback.cli.app.app = app\n"
        "main()\n"
    )
    assert subprocess.run([sys.executable, "-m", "interrupted"], check=False).returncode == 130


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_that_meets_a_destructor_is_not_lost(here: Path, name: str, code: int) -> None:
    Path("lost.py").write_text(
        "import signal, time\n"
        "import kullback.cli.app\n"
        "from kullback.cli.main import main\n"
        "class Last:\n"
        "    def __del__(self):\n"
        f"        signal.raise_signal(signal.{name})\n"
        "def app(prog_name):\n"
        "    Last()\n"
        "    time.sleep(30)\n"
        "kullback.cli.app.app = app\n"
        "main()\n"
    )
    process = subprocess.run([sys.executable, "-m", "lost"], check=False, capture_output=True, text=True, timeout=25)
    assert (process.returncode, process.stderr) == (code, "")


def test_a_signal_leaves_the_old_model(slow: list[str], here: Path, fitted: Path) -> None:
    import shutil

    shutil.copytree(fitted, "model")
    before = files(here)
    process = start(*slow, "--overwrite")
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    process.communicate()
    assert files(here) == before


def test_an_early_signal_is_quiet(here: Path) -> None:
    for delay in (0.05, 0.1, 0.15, 0.25):
        process = start("losses")
        time.sleep(delay)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode in (0, 143, -signal.SIGTERM)
        assert "Traceback" not in err


def test_a_signal_while_predicting_leaves_no_file(model: Path, here: Path) -> None:
    lines = to_csv(ants()).splitlines()
    Path("long.csv").write_text("\n".join([lines[0], *(lines[1:] * 20000)]) + "\n")
    process = start("predict", model, "long.csv", "--out", "p.csv")
    deadline = time.monotonic() + 30
    while not any(name.endswith(".part") for name in os.listdir(here)) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "Interrupted.\n"
    assert sorted(os.listdir(here)) == ["long.csv", "model"]


def test_a_reader_that_leaves_early_is_no_error(model: Path, here: Path) -> None:
    lines = to_csv(ants()).splitlines()
    Path("long.csv").write_text("\n".join([lines[0], *(lines[1:] * 2000)]) + "\n")
    for options in ([], ["--json"]):
        process = start("predict", model, "long.csv", *options)
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
        process.stderr.close()


@pytest.mark.parametrize("arguments", [["--help"], ["losses"], ["show", "model"], ["show", "model", "--json"], []])
def test_a_pipe_closed_from_the_start(model: Path, arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = start(*arguments, stdout=writing)
    os.close(writing)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (0 if arguments else 2)
    assert "Error" not in err
    assert "Exception" not in err


def test_no_standard_output_at_all(model: Path) -> None:
    command = f"{sys.executable} -m kullback show {model} >&-"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["losses"], ["predict", "model", "ants.csv"], ["show", "model", "--json"]])
def test_a_full_disk_is_said(model: Path, data: Path, arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        process = start(*arguments, stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == "Error: output: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_a_file_is_said(model: Path, data: Path) -> None:
    Path("p.csv").symlink_to("/dev/full")
    process = start("predict", model, data, "--out", "p.csv")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "cannot write /dev/full: No space left on device" in err


def test_errors_reach_the_shell_without_a_traceback(here: Path) -> None:
    process = start("fit", "absent.csv", "--target", "x")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("Error: ")
    assert len(err.splitlines()) == 1


def test_debug_shows_the_traceback(here: Path) -> None:
    process = start("fit", "absent.csv", "--target", "x", env={**os.environ, "KULLBACK_DEBUG": "1"})
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" in err
    assert "absent.csv" in err


def test_an_unexpected_fault_is_said_without_a_traceback(model: Path, data: Path) -> None:
    program = (
        "import kullback.pipeline.model as m, sys\n"
        "from kullback.cli.main import main\n"
        "m.Model.logits = lambda self, matrix: 1 / 0\n"
        f"sys.argv = ['kullback', 'predict', {str(model)!r}, {str(data)!r}]\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Unexpected error: ZeroDivisionError" in done.stderr
    assert "KULLBACK_DEBUG=1" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_needs_no_heavy_import() -> None:
    program = (
        "import sys, kullback.cli.app; print([m for m in ('numpy', 'rich', 'pyarrow', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def on_a_terminal(*arguments: str | Path) -> str:
    """Run with both outputs on one pseudo-terminal; what appeared there."""
    import pty

    ours, theirs = pty.openpty()
    process = start(*arguments, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the terminal is gone with its last writer
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait(timeout=60) == 0
    return shown.decode()


def test_progress_shows_on_a_terminal_only(slow: list[str], data: Path, model: Path) -> None:
    shown = on_a_terminal(*slow, "--out", "other", "--max-iter", "20")
    for word in ("Training", "━", "note: target 'y'", "macro-F1"):
        assert word in shown
    assert "Predicting" in on_a_terminal("predict", model, data, "--out", "p.csv")
    # Rows and a bar on one terminal would be soup.
    assert "━" not in on_a_terminal("predict", model, data)
