"""Ten seconds of the fuzz tool, what it finds, and the record of its long run."""

import importlib.util
import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from kullback.losses.spelling import CATALOGUE

HERE = Path(__file__).resolve().parent
_spec = importlib.util.spec_from_file_location("fuzz_kernels", HERE / "fuzz_kernels.py")
fuzz_kernels = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fuzz_kernels)


def play(*options):
    return subprocess.run(
        [sys.executable, str(HERE / "fuzz_kernels.py"), *options], capture_output=True, text=True, check=False
    )


def test_ten_seconds_of_random_calls():
    """A failure prints the command that repeats it."""
    run = play("--seconds", "10", "--seed", "1")
    assert run.returncode == 0, run.stderr
    assert "passed" in run.stdout


def test_a_wrong_result_is_found_and_can_be_repeated(tmp_path):
    """With a loss that is a hair too large the tool fails, and names the scene."""
    broken = tmp_path / "broken.py"
    broken.write_text(
        f"import runpy, sys\nsys.path.insert(0, {str(HERE)!r})\n"
        "from kullback.kernels import cpu\n"
        "right = cpu.evaluate\n"
        "def wrong(recipe, logits, targets, *, per_example=None, **options):\n"
        "    result = right(recipe, logits, targets, per_example=per_example, **options)\n"
        "    if per_example is not None:\n"
        "        per_example *= 1 + 1e-4\n"
        "    return result\n"
        "cpu.evaluate = wrong\n"
        f"runpy.run_path({str(HERE / 'fuzz_kernels.py')!r}, run_name='__main__')\n"
    )
    command = [sys.executable, str(broken), "--cases", "20000"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert "FAILED in scene" in run.stderr
    scene = run.stderr.split("--scene ")[1].split()[0]
    again = subprocess.run([*command, "--scene", scene], capture_output=True, text=True, check=False)
    assert again.returncode != 0
    assert play("--scene", scene).returncode == 0


@pytest.mark.parametrize("scene", [0, 1, 2])
def test_scenes_can_be_played_one_by_one(scene):
    run = play("--scene", str(scene))
    assert run.stdout == "passed\n", run.stderr


@pytest.mark.slow  # it can only be fresh once native/ is finished
def test_the_record_is_of_the_sources_that_are_here():
    record = json.loads((HERE / "record.json").read_text())
    assert record.get("native_sources") == fuzz_kernels.native_sources(), (
        "tests/fuzz/record.json tells of other sources than native/ holds; `make fuzz` plays the million again"
    )


def test_the_digest_is_of_the_sources(monkeypatch, tmp_path):
    for path, text in (("a.cpp", "one"), ("skeletons/b.hpp", "two"), ("notes.md", "three")):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.setattr(fuzz_kernels, "NATIVE", tmp_path)
    before = fuzz_kernels.native_sources()
    (tmp_path / "notes.md").write_text("another")
    assert fuzz_kernels.native_sources() == before
    (tmp_path / "skeletons/b.hpp").write_text("2")
    assert fuzz_kernels.native_sources() != before


def test_no_loss_is_compared_with_itself():
    """What the record counts is C++ against NumPy: a loss that NumPy alone computed would pass whatever it did."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert {CATALOGUE[name]().backend for name in CATALOGUE} == {"cpu"}


def test_the_record_is_of_a_million_cases_and_every_loss():
    record = json.loads((HERE / "record.json").read_text())
    assert record["cases"] >= 1_000_000
    assert record["outcome"] == "all passed"
    assert not record["machine"]["uncommitted_changes"]
    counts = record["counts"]
    played = set(counts["losses, through the kernel"]) | set(counts["losses, through the loss object"])
    assert played >= set(CATALOGUE)
    assert min(counts["layouts of logits"].values()) > 1000
    assert counts["steps of logits"]["negative"] > 1000
    assert counts["steps of logits"]["zero"] > 1000
