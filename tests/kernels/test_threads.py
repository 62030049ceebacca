"""Threads: identical results for any number, several callers at once, forks, and the environment."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kullback.errors import InputError
from kullback.kernels import cpu
from kullback.kernels.recipe import SigmoidRecipe, SoftmaxRecipe
from kullback.kernels.threads import get_num_threads, set_num_threads
from kullback.losses import CATALOGUE, Brier, CrossEntropy
from kullback.targets import ClassIndices, ClassMixture, ClassRows, LabelRows


@pytest.fixture(autouse=True)
def restore_threads():
    before = get_num_threads()
    yield
    set_num_threads(before)


def evaluate(z, y, weight=None):
    gradient, losses = np.empty_like(z), np.empty(len(z))
    recipe = SoftmaxRecipe(smoothing=0.1)
    evaluation = cpu.evaluate(recipe, z, ClassIndices(y), row_weight=weight, per_example=losses, gradient=gradient)
    summary = cpu.softmax_targets(ClassIndices(y), z.shape[1], row_weight=weight)
    labels = LabelRows((z > 0.5).astype(np.uint8))
    total = cpu.evaluate(SigmoidRecipe(), z, labels, row_weight=weight).total
    return evaluation.total, summary.weight, total, gradient.tobytes(), losses.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "c"), [(50_001, 3), (20_003, 10), (3001, 70), (70, 30_000)])
def test_results_are_bit_identical_for_any_number_of_threads(rng, n, c, dtype):
    z = rng.normal(size=(n, c)).astype(dtype)
    y = rng.integers(0, c, n)
    weight = rng.uniform(size=n)
    results = set()
    for threads in (1, 2, 3, 8):
        set_num_threads(threads)
        results.add(evaluate(z, y, weight))
    assert len(results) == 1


LOSSES = {
    **CATALOGUE,
    "smoothed, weighted": lambda: CrossEntropy(label_smoothing=0.1, temperature=2, z_loss=0.1, softcap=20.0),
    "sum": lambda: 0.7 * CrossEntropy() + 0.3 * Brier(),
}


@pytest.mark.parametrize("shape", [(7001, 5), (25, 1500)])
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_gives_the_same_bits_with_any_number_of_threads(rng, name, shape):
    loss = LOSSES[name]()
    z = rng.normal(size=shape)
    if loss.link in ("identity", "log"):
        z = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        z = np.log(z) if loss.link == "log" else z
    z = z.astype(np.float32)
    labels = loss.target_form == "labels"
    forms = [rng.integers(0, 2, shape)] if labels else [rng.integers(0, shape[1], shape[0])]
    if not labels and shape[1] < 100:
        forms.append(ClassRows(rng.dirichlet(np.ones(shape[1]), shape[0])))
    v, weight = rng.normal(size=shape).astype(np.float32), rng.uniform(size=shape[0])
    for targets in forms:
        results = set()
        for threads in (1, 2, 3, 8):
            set_num_threads(threads)
            value, gradient = loss.value_and_gradient(z, targets, sample_weight=weight)
            parts = [gradient, loss.per_example(z, targets), loss.hessian_diagonal(z, targets)]
            parts.append(loss.hessian_product(z, targets, v))
            results.add((value, *(part.tobytes() for part in parts)))
        assert len(results) == 1


FEW = ("cross_entropy", "focal", "brier", "kullback_leibler", "one_vs_rest", "crammer_singer", "logit_l2", "sum")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("c", [2, 3, 10])
@pytest.mark.parametrize("name", FEW)
def test_few_classes_and_mixtures_give_the_same_bits_too(rng, name, c, dtype):
    loss, n = LOSSES[name](), 5003
    z, weight = rng.normal(size=(n, c)).astype(dtype), rng.uniform(size=n)
    first, second = rng.integers(0, c, (2, n))
    forms = [ClassMixture(first, second, rng.uniform(size=n)), ClassRows(rng.dirichlet(np.ones(c), n).astype(dtype))]
    for targets in (first, *forms):
        results = set()
        for threads in (1, 2, 3, 8):
            set_num_threads(threads)
            value, gradient = loss.value_and_gradient(z, targets, sample_weight=weight)
            product = loss.hessian_product(z, targets, z, sample_weight=weight)
            results.add((value, gradient.tobytes(), product.tobytes()))
        assert len(results) == 1


def test_other_python_threads_run_meanwhile(rng):
    """The GIL is released: another thread runs in the middle of one long call."""
    set_num_threads(1)
    z = np.broadcast_to(rng.normal(size=20).astype(np.float32), (3_000_000, 20))
    targets = ClassIndices(np.zeros(len(z), int))
    stamps, stop = [], threading.Event()

    def stamp():
        while not stop.wait(0.001):
            stamps.append(time.perf_counter())

    other = threading.Thread(target=stamp)
    other.start()
    start = time.perf_counter()
    cpu.evaluate(SoftmaxRecipe(), z, targets)
    end = time.perf_counter()
    stop.set()
    other.join()
    third = (end - start) / 3
    assert any(start + third < moment < end - third for moment in stamps)


def test_beside_the_pools_of_blas_and_torch(rng):
    """Callers in several Python threads, products in BLAS and losses in torch at the same time: the same bits."""
    torch = pytest.importorskip("torch")
    set_num_threads(3)
    z = rng.normal(size=(20_000, 10)).astype(np.float32)
    y = rng.integers(0, 10, len(z))
    square = rng.normal(size=(200, 200))
    expected = evaluate(z, y), (square @ square).tobytes()
    logits = torch.from_numpy(z)

    def work(index):
        if index % 3 == 0:
            torch.nn.functional.cross_entropy(logits.clone().requires_grad_(), torch.from_numpy(y)).backward()
        return evaluate(z, y), (square @ square).tobytes()

    with ThreadPoolExecutor(4) as callers:
        for found in callers.map(work, range(12)):
            assert found == expected


def test_the_number_may_change_while_others_compute(rng):
    z = rng.normal(size=(30_000, 10)).astype(np.float32)
    y = rng.integers(0, 10, len(z))
    expected = evaluate(z, y)
    with ThreadPoolExecutor(3) as callers:
        runs = [callers.submit(evaluate, z, y) for _ in range(30)]
        for n in range(60):
            set_num_threads(1 + n % 8)
        assert all(run.result() == expected for run in runs)


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
    return cpu.evaluate(SoftmaxRecipe(), z, ClassIndices(np.zeros(30000, int))).total
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
