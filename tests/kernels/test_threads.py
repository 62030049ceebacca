"""Threads: identical results for any number, several callers at once, forks, and the environment."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kullback.errors import InputError
from kullback.kernels import cpu
from kullback.kernels.recipe import SigmoidRecipe, SoftmaxRecipe
from kullback.kernels.threads import get_num_threads, set_num_threads
from kullback.targets import ClassIndices, LabelRows


@pytest.fixture(autouse=True)
def restore_threads():
    before = get_num_threads()
    yield
    set_num_threads(before)


def evaluate(z, y, weight=None):
    gradient, losses = np.empty_like(z), np.empty(len(z))
    recipe = SoftmaxRecipe(smoothing=0.1)
    evaluation = cpu.softmax_evaluate(
        recipe, z, ClassIndices(y), row_weight=weight, per_example=losses, gradient=gradient
    )
    summary = cpu.softmax_targets(ClassIndices(y), z.shape[1], row_weight=weight)
    labels = LabelRows((z > 0.5).astype(np.uint8))
    total = cpu.sigmoid_evaluate(SigmoidRecipe(), z, labels, row_weight=weight).total
    return evaluation.total, summary.weight, total, gradient.tobytes(), losses.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "c"), [(50_001, 3), (20_003, 10), (3001, 70), (70, 30_000)])
def test_results_are_bit_identical_for_any_number_of_threads(rng, n, c, dtype):
    z = rng.normal(size=(n, c)).astype(dtype)
    y = rng.integers(0, c, n)
    weight = rng.uniform(size=n)
    results = set()
    for threads in (1, 2, 3, 7):
        set_num_threads(threads)
        results.add(evaluate(z, y, weight))
    assert len(results) == 1


def test_several_callers_at_once(rng):
    set_num_threads(4)
    z = rng.normal(size=(30_000, 10)).astype(np.float32)
    y = rng.integers(0, 10, 30_000)
    expected = evaluate(z, y)
    with ThreadPoolExecutor(6) as callers:
        assert set(callers.map(lambda _: evaluate(z, y), range(30))) == {expected}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_computes_with_threads_of_its_own(rng):
    script = """
import os, numpy as np
from kullback.kernels import cpu
from kullback.kernels.recipe import SoftmaxRecipe
from kullback.kernels.threads import set_num_threads
from kullback.targets import ClassIndices
set_num_threads(3)
z = np.random.default_rng(0).normal(size=(30000, 10))
def total():
    return cpu.softmax_evaluate(SoftmaxRecipe(), z, ClassIndices(np.zeros(30000, int))).total
before = total()
children = []
for _ in range(8):
    child = os.fork()
    if child == 0:
        os._exit(0 if all(total() == before for _ in range(5)) else 1)
    children.append(child)
codes = [os.waitpid(child, 0)[1] for child in children]
assert total() == before
raise SystemExit(any(codes))
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def ask(code, **environment):
    base = {k: v for k, v in os.environ.items() if k not in ("KULLBACK_NUM_THREADS", "OMP_NUM_THREADS")}
    return subprocess.run(
        [sys.executable, "-c", code], env=base | environment, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"KULLBACK_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, 3),
        ({"OMP_NUM_THREADS": "5,2"}, 5),
        ({"OMP_NUM_THREADS": "nonsense"}, None),
        ({}, None),
    ],
)
def test_the_environment_sets_the_number_of_threads(environment, expected):
    answer = ask("import kullback; print(kullback.get_num_threads())", **environment)
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert int(answer.stdout) == (expected or available)


def test_a_bad_number_of_threads_is_refused():
    for bad in (0, -1, 1.5, True, "2", 10**6):
        with pytest.raises(InputError, match="threads"):
            set_num_threads(bad)
    answer = ask("import kullback.kernels.cpu", KULLBACK_NUM_THREADS="many")
    assert "KULLBACK_NUM_THREADS='many'" in answer.stderr
