"""Every instruction level this processor runs passes the same tests as the best one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kullback.kernels import _native

HERE = Path(__file__).parent
LEVELS = ["v2", "v3", "v4"]
lower = LEVELS[: LEVELS.index(_native.level())] if _native.level() in LEVELS else []


@pytest.mark.parametrize("level", lower)
def test_a_lower_level_agrees_too(level):
    environment = os.environ | {"KULLBACK_ISA": level}
    name = subprocess.run(
        [sys.executable, "-c", "from kullback.kernels import _native; print(_native.level())"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert name.stdout.strip() == level
    tests = [str(HERE / f"test_{part}.py") for part in ("elementary", "agreement", "precision")]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:]


def test_a_level_above_the_processor_is_not_taken():
    """Asking for more than there is must not crash; the best there is runs instead."""
    environment = os.environ | {"KULLBACK_ISA": "v4"}
    code = (
        "import numpy as np; from kullback.kernels import _native; y = np.empty(9);"
        "_native.elementary(0, -np.ones(9), y); print(y[0])"
    )
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert float(answer.stdout) == pytest.approx(0.36787944117144233)
