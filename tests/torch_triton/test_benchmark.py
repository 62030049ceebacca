"""The GPU benchmark runs from end to end, and says so politely where it cannot measure."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

PROGRAM = Path(__file__).parents[2] / "benchmarks/gpu/run.py"


def run(*arguments):
    return subprocess.run([sys.executable, PROGRAM, *arguments], capture_output=True, text=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_to_do(tmp_path):
    for arguments in ((), ("--out", str(tmp_path / "out.json"))):
        result = run(*arguments)
        assert result.returncode == 2
        assert "needs a CUDA GPU" in result.stderr
        assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())
    assert not (PROGRAM.parents[1] / "results/gpu.json").exists()


def test_the_help_says_that_it_has_not_run_on_a_gpu():
    assert "not run on a GPU yet" in run("--help").stdout.replace("\n", " ")


def test_every_case_runs(tmp_path):
    out = tmp_path / "out.json"
    result = run("--out", str(out), "--dry-run")
    assert result.returncode == 0, result.stderr
    report = json.loads(out.read_text())
    assert report["dry_run"] is True
    assert report["skipped"] == report["bars"] == []
    failed = [r for r in report["results"] if "failed" in r and not r["what"].startswith("torch ")]
    assert not failed
    names = {r["what"] for r in report["results"]}
    assert {"copy", "kullback", "eager", "kernel", "kernel, focal"} <= names
    assert all(r["error"]["loss"] < 1e-5 for r in report["results"] if "error" in r)


def test_one_case_that_fails_does_not_cost_the_others(tmp_path):
    """Compilers raise exceptions of their own; and what was measured before is in the file already."""
    out = tmp_path / "out.json"
    spoilt = f"""
import json, sys
sys.argv = ["run.py", "--out", {str(out)!r}, "--dry-run"]
sys.path[:0] = [{str(PROGRAM.parent)!r}]
import run, cross_entropy, linear_layer

class CompilationError(Exception): pass

def fails(*args, **options): raise CompilationError("no code")
def looks(*args): return [dict(what="seen", shape=[], failed=json.load(open({str(out)!r}))["results"][0]["what"])]

cross_entropy.softmax_evaluate = fails
linear_layer.compare = looks
cross_entropy.SHAPES = ()
sys.exit(run.main())
"""
    result = subprocess.run([sys.executable, "-c", spoilt], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    results = {r["what"]: r.get("failed") for r in json.loads(out.read_text())["results"]}
    assert results["kernel"] == "CompilationError: no code"
    assert results["kullback"] is results["eager"] is None
    assert results["seen"] == "copy"


def test_what_the_bars_are_judged_on_goes_through_autograd(monkeypatch):
    """As eager PyTorch does: a kernel that hands the gradient over for nothing would be no fair figure."""
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    cross_entropy, linear_layer, measure = (
        importlib.import_module(name) for name in ("cross_entropy", "linear_layer", "measure")
    )
    began = []
    backward = torch.Tensor.backward
    monkeypatch.setattr(torch.Tensor, "backward", lambda *a, **k: began.append(1) or backward(*a, **k))
    graded = []

    class Meter(measure.DryRun):
        def measure(self, call, clear=bool):
            began.clear()
            result = super().measure(call, clear)
            graded.append(bool(began))
            return result

    for compare in (
        lambda: cross_entropy.compare(Meter(), (4, 37), torch.bfloat16, False),
        lambda: linear_layer.compare(Meter(), (6, 8, 40)),
    ):
        graded.clear()
        whats = [r["what"] for r in compare() if "failed" not in r]
        went = dict(zip(whats, graded, strict=True))
        assert went["kullback"]
        assert went["eager"]
        assert not any(through for what, through in went.items() if what.startswith(("kernel", "copy")))
    for name in ("cross_entropy", "linear_layer", "measure"):
        sys.modules.pop(name, None)


def test_bars_are_judged_by_the_figures_of_one_run():
    sys.path.insert(0, str(PROGRAM.parent))
    try:
        import importlib.util

        spec = importlib.util.spec_from_file_location("gpu_benchmark", PROGRAM)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(PROGRAM.parent))
    times = {"copy": 9.0, "kullback": 10.0, "eager": 19.0}
    results = [{"what": w, "shape": [2, 3], "milliseconds": t} for w, t in times.items()]
    beyond = "peak_bytes_beyond_weight_gradient"
    results += [
        {"what": "kullback", "shape": [1, 2, 3], "milliseconds": 10.0, beyond: 1},
        {"what": "eager", "shape": [1, 2, 3], "failed": "out of memory"},
    ]
    judged = {bar["name"]: (bar["value"], bar["met"]) for bar in module.bars(results, [2, 3], [1, 2, 3])}
    assert judged["cross_entropy_of_copy_bandwidth"] == (0.9, True)
    assert judged["cross_entropy_of_eager_time"] == (10 / 19, False)
    assert judged["linear_of_eager_time"] == (None, False)
    assert module.fit((16384, 131072, torch.bfloat16), 5, 10**10) == (4096, 131072)
