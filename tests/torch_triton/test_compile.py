"""The kernels compile for GPUs this machine does not have, and stay within their registers."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="Triton compiles on Linux")


@pytest.mark.parametrize("capability", [pytest.param(80, marks=pytest.mark.slow), 90])
def test_kernels_compile(tmp_path, capability):
    program = Path(__file__).with_name("compile_kernels.py")
    run = subprocess.run(
        [sys.executable, program, str(capability), "essential"],
        env={**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    cases = {case["case"]: case for case in map(json.loads, run.stdout.splitlines())}
    assert len(cases) == 9
    for name, case in cases.items():
        assert case["STACK"] == case["LOCAL"] == 0, f"{name} spills registers: {case}"
    for name in ("row in registers", "wide row", "wide soft", "focal"):  # rows that begin at multiples of 16 bytes
        assert cases[name]["wide_loads"], f"{name} does not load 16 bytes at once"
        assert cases[name]["wide_stores"], f"{name} does not store 16 bytes at once"
    kernels = {case["kernel"] for case in cases.values()}
    assert kernels == {"sparse_rows_kernel", "dense_rows_kernel", "scale_kernel"}
