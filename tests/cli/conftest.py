"""A small real-looking table, a model fitted on it once, and ways to run the command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from kullback.cli.app import app


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(*arguments: str | Path) -> Ran:
    """Run `kullback` in this process; whatever escapes its own error handling fails the test."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="kullback")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def refused(*arguments: str | Path) -> str:
    """Run a command that must be refused: exit code 2, one screen on standard error, nothing on output."""
    ran = run(*arguments)
    assert ran.code == 2, ran
    assert ran.out == ""
    assert "Traceback" not in ran.err
    assert len(ran.err) < 1500
    assert ran.err.count("Error: ") == 1
    return ran.err.partition("Error: ")[2]


def ants(rows: int = 120, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of ants: two numbers, a category with a missing value here and there, and their caste."""
    rng = np.random.default_rng(seed)
    castes = ["queen", "soldier", "worker"]
    table = []
    for _ in range(rows):
        caste = rng.choice(castes, p=[0.2, 0.3, 0.5])
        size = castes.index(caste) + rng.normal(scale=0.6)
        colour = rng.choice(["red", "black", ""], p=[0.5, 0.4, 0.1])
        table.append({"size": f"{size:.3f}", "age": f"{rng.normal(10, 3):.2f}", "colour": colour, "caste": caste})
    return table


def to_csv(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0])
    return "\n".join([",".join(names), *(",".join(str(row[name]) for name in names) for row in rows)]) + "\n"


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory of the ants, made once."""
    folder = tmp_path_factory.mktemp("fitted")
    (folder / "ants.csv").write_text(to_csv(ants()))
    ran = run("fit", folder / "ants.csv", "--target", "caste", "--out", folder / "model")
    assert ran.code == 0, ran
    return folder / "model"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def model(fitted: Path, here: Path) -> Path:
    """A fresh copy of the fitted model, to read or to damage."""
    shutil.copytree(fitted, here / "model")
    return Path("model")


@pytest.fixture
def data(here: Path) -> Path:
    """The ants as a file."""
    Path("ants.csv").write_text(to_csv(ants()))
    return Path("ants.csv")


@pytest.fixture
def write(here: Path) -> Callable[[str, str | bytes], Path]:
    """Write a file in the current directory."""

    def write(name: str, contents: str | bytes) -> Path:
        path = Path(name)
        path.write_bytes(contents.encode() if isinstance(contents, str) else contents)
        return path

    return write
