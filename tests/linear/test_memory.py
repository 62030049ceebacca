"""How much memory a fit takes beside its data, for every form of the data, measured in a process of its own."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="reads Linux's account of memory")

# What is kept whatever the size of the data (copies of small data, sampled rows, blocks in work) is made small, so that
# data of 38 MB show what grows with them.
PROGRAM = """
import json, sys, tempfile, threading, time
import numpy as np
from scipy import sparse
from kullback import SoftmaxClassifier, set_num_threads
from kullback.linear import choice, column_curvature, curvature, design

set_num_threads(1)
for module in (design, choice, column_curvature):
    module.KEPT_BYTES = 1 << 21
curvature.CANDIDATE_BYTES = 1 << 21
curvature.MOST_TOGETHER = curvature.LEAST_TOGETHER = 100
curvature.MOST_SAMPLED = 2000
design.BLOCK_BYTES = 1 << 20

def status(what):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(what + ":")) / 1024

def extra(action):
    '''MB: the most in use while it runs, with the pages of files and without.'''
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before, own, most, done = status("VmRSS"), status("RssAnon"), [0.0], threading.Event()
    def watch():
        while not done.is_set():
            most[0] = max(most[0], status("RssAnon"))
            time.sleep(0.003)
    watcher = threading.Thread(target=watch)
    watcher.start()
    result = action()
    done.set()
    watcher.join()
    return result, status("VmHWM") - before, most[0] - own

def mapped(array, folder):
    name = f"{folder}/{time.monotonic_ns()}.npy"
    np.save(name, array)
    return np.load(name, mmap_mode="r")

rng = np.random.default_rng(0)
n, columns, held = (100_000, 50, 50) if sys.argv[1] == "dense" else (160_000, 100, 20)
y = rng.integers(0, 4, n)
values = rng.standard_normal((n, held))
values[:, 0] += y
if sys.argv[1] == "dense":
    forms = {
        "C": values, "F": np.asfortranarray(values), "strided": np.repeat(values, 2, axis=1)[:, ::2],
        "float32": values.astype(np.float32), "float32 F": np.asfortranarray(values, np.float32),
    }
else:
    places = np.tile(np.arange(0, columns, columns // held, dtype=np.int32), (n, 1))
    places[:, 1:] += rng.integers(0, columns // held, (n, held - 1), dtype=np.int32)
    starts = np.arange(0, n * held + 1, held, dtype=np.int32)
    csr = sparse.csr_array((values.ravel(), places.ravel(), starts), shape=(n, columns))
    wide = csr.copy()
    wide.indices, wide.indptr = csr.indices.astype(np.int64), csr.indptr.astype(np.int64)
    forms = {"csr": csr, "csr, 64 bits": wide, "csr float32": csr.astype(np.float32), "csc": csr.tocsc()}
with tempfile.TemporaryDirectory() as folder:
    for name in [name for name in ("C", "F", "csr", "csc") if name in forms]:
        X = forms[name]
        if sys.argv[1] == "dense":
            forms[name + " mapped"] = mapped(X, folder)
        else:
            parts = [mapped(part, folder) for part in (X.data, X.indices, X.indptr)]
            forms[name + " mapped"] = type(X)(tuple(parts), shape=X.shape)
    for X in forms.values():
        for part in [X] if sys.argv[1] == "dense" else [X.data, X.indices, X.indptr]:
            part.flags.writeable = False
    SoftmaxClassifier().fit(forms["C" if sys.argv[1] == "dense" else "csr"][:2000], y[:2000])
    found = {}
    for name, X in forms.items():
        model, high, own = extra(lambda: SoftmaxClassifier(tol=1e-4).fit(X, y))
        logits, high_logits, own_logits = extra(lambda: model.logits(X))
        found[name] = {
            "size": 8 * n * held / 2**20 * (1 if sys.argv[1] == "dense" else 1.5),
            "fit": own if "mapped" in name else high,
            "logits": (own_logits if "mapped" in name else high_logits) - logits.nbytes / 2**20,
            "primal": model.certificate_.primal,
            "gap": model.certificate_.relative_gap,
            "logits of a few": logits[:50].tolist(),
        }
print(json.dumps(found))
"""


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_no_form_of_the_data_is_copied(kind):
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, kind],
        capture_output=True,
        text=True,
        # Arrays that are freed go back at once, so that none can hide in what was freed before.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    reference = next(iter(found.values()))
    assert len(found) == (7 if kind == "dense" else 6)
    for name, of in found.items():
        assert of["size"] > 35, name
        assert of["fit"] < 20, f"{name}: {of['fit']:.0f} MB beside {of['size']:.0f} MB"
        assert of["logits"] < 8, f"{name}: {of['logits']:.0f} MB beside {of['size']:.0f} MB"
        assert of["gap"] <= 1e-4
        assert of["primal"] == pytest.approx(reference["primal"], rel=2e-4)
        for one, other in zip(of["logits of a few"], reference["logits of a few"], strict=True):
            assert one == pytest.approx(other, abs=2e-2), name
