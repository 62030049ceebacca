import re
import signal
import subprocess
import sys
import textwrap
from itertools import pairwise

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy import sparse

from kullback import SigmoidClassifier, SoftmaxClassifier
from kullback.errors import InputError, NotConvergedWarning
from kullback.linear import checkpoint as checkpoint_module
from kullback.linear.checkpoint import fingerprint


@pytest.fixture
def data(rng):
    X = rng.normal(size=(300, 4))
    return X, (X @ rng.normal(size=(4, 3)) + 2 * rng.gumbel(size=(300, 3))).argmax(axis=1)


def stop_at(iteration):
    def callback(record):
        if record.iteration == iteration:
            raise StopIteration

    return callback


def unfinished(path, X, y, **settings):
    with pytest.warns(NotConvergedWarning, match="callback stopped"):
        return SoftmaxClassifier(checkpoint=path, callback=stop_at(3), **settings).fit(X, y)


CHILD = """
import os, signal, sys
import numpy as np
from kullback import SoftmaxClassifier
from kullback.linear import checkpoint
checkpoint.EVERY_SECONDS = 0.0
checkpoint.WRITING_SHARE = 1.0
rng = np.random.default_rng(5)
X = rng.normal(size=(2000, 20)) * np.logspace(0, 4, 20)
y = (X / np.logspace(0, 4, 20) @ rng.normal(size=(20, 4)) + 2 * rng.gumbel(size=(2000, 4))).argmax(axis=1)
def die(record):
    if record.iteration == 6 and "die" in sys.argv:
        os.kill(os.getpid(), signal.SIGKILL)
model = SoftmaxClassifier(C=10.0, tol=1e-13, solver="lbfgs", checkpoint=sys.argv[1], callback=die).fit(X, y)
np.savez(sys.argv[2], coef=model.coef_, intercept=model.intercept_, iterations=model.n_iter_,
         history=[r.iteration for r in model.history_])
"""


def test_a_killed_fit_goes_on_and_ends_in_the_same_place(tmp_path):
    state = tmp_path / "state"
    code = textwrap.dedent(CHILD)

    def child(path, out, *arguments):
        return subprocess.run([sys.executable, "-c", code, str(path), str(out), *arguments], check=False).returncode

    assert child(state, tmp_path / "killed.npz", "die") == -signal.SIGKILL
    assert not (tmp_path / "killed.npz").exists()
    assert state.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["state"]  # no half-written file beside it
    assert child(state, tmp_path / "resumed.npz") == 0
    assert not state.exists()
    assert child(tmp_path / "other", tmp_path / "straight.npz") == 0
    resumed, straight = np.load(tmp_path / "resumed.npz"), np.load(tmp_path / "straight.npz")
    np.testing.assert_allclose(resumed["coef"], straight["coef"], rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(resumed["intercept"], straight["intercept"], atol=1e-5)
    # Iterations are counted on from those before the kill, each once.
    np.testing.assert_array_equal(resumed["history"], np.arange(resumed["iterations"][0] + 1))


def test_an_ended_fit_leaves_its_state_and_the_next_one_goes_on(tmp_path, data):
    path = tmp_path / "state"
    first = unfinished(path, *data)
    seen = []
    second = SoftmaxClassifier(checkpoint=path, callback=seen.append).fit(*data)
    assert seen[0].iteration == 4
    assert second.history_[:4] == first.history_
    assert second.n_iter_ == seen[-1].iteration
    assert second.converged_
    assert not path.exists()
    np.testing.assert_allclose(second.coef_, SoftmaxClassifier().fit(*data).coef_, atol=1e-3)


def test_too_few_iterations_leave_a_state_too_and_count_together(tmp_path, data):
    path = tmp_path / "state"
    with pytest.warns(NotConvergedWarning, match="after 2 iterations"):
        SoftmaxClassifier(checkpoint=path, max_iter=2, tol=1e-12).fit(*data)
    with pytest.warns(NotConvergedWarning, match="after 4 iterations"):
        model = SoftmaxClassifier(checkpoint=path, max_iter=4, tol=1e-12).fit(*data)
    assert model.n_iter_ == 4
    assert SoftmaxClassifier(checkpoint=path, max_iter=100).fit(*data).converged_
    assert not path.exists()


def test_states_of_another_fit_are_refused(tmp_path, data):
    X, y = data
    path = tmp_path / "state"
    unfinished(path, X, y)
    moved = X.copy()
    moved[7, 2] += 1e-9
    other = y.copy()
    other[3] = (other[3] + 1) % 3
    for fit, what in (
        (lambda m: m.set_params(C=2.0).fit(X, y), "its C is 1.0, here it is 2.0"),
        (lambda m: m.set_params(fit_intercept=False).fit(X, y), "its fit_intercept is True, here it is False"),
        (lambda m: m.set_params(class_weight="balanced").fit(X, y), "its loss is cross_entropy, here it is cross"),
        (lambda m: m.fit(X[:200], y[:200]), r"its shape of X is \(300, 4\), here it is \(200, 4\)"),
        (lambda m: m.fit(moved, y), "its X is"),
        (lambda m: m.fit(X.astype(np.float32), y), "its X is"),
        (lambda m: m.fit(X, other), "its y is"),
        (lambda m: m.fit(X, y, np.arange(300.0)), "its sample_weight is"),
    ):
        with pytest.raises(InputError, match=f"belongs to another fit: {what}.*delete the file or give another path"):
            fit(SoftmaxClassifier(checkpoint=path))
    with pytest.raises(InputError, match="its estimator is SoftmaxClassifier, here it is SigmoidClassifier"):
        SigmoidClassifier(checkpoint=path).fit(X, np.eye(3, dtype=int)[y])
    # Another memory layout, tolerance or solver is the same fit.
    assert SoftmaxClassifier(checkpoint=path, tol=1e-8, solver="lbfgs").fit(np.asfortranarray(X), y).converged_


def test_files_that_are_no_state_are_refused(tmp_path, data):
    text = tmp_path / "text"
    text.write_text("no tensors here")
    strange = tmp_path / "strange"
    save_file({"a": np.zeros(3)}, strange)
    for path, says in (
        (text, "cannot be read"),
        (strange, "is not a checkpoint"),
        (tmp_path, "is a directory"),
        (tmp_path / "missing" / "state", "does not exist"),
        (3, "checkpoint=3 is not the path of a file"),
    ):
        with pytest.raises(InputError, match=says):
            SoftmaxClassifier(checkpoint=path).fit(*data)
    assert text.read_text() == "no tensors here"


def test_a_damaged_state_is_refused(tmp_path, data):
    path = tmp_path / "state"
    unfinished(path, *data)
    with checkpoint_module.safe_open(path, framework="numpy") as file:
        about, weights = file.metadata(), file.get_tensor("weights")
    save_file({"weights": weights * np.nan, "intercept": np.zeros(3), "history": np.zeros((1, 6))}, path, about)
    with pytest.raises(InputError, match=re.escape("is damaged; delete it")):
        SoftmaxClassifier(checkpoint=path).fit(*data)


def test_the_state_is_written_again_and_again(tmp_path, data, monkeypatch):
    path = tmp_path / "state"
    sizes = []
    monkeypatch.setattr(checkpoint_module, "EVERY_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint_module, "WRITING_SHARE", 1e9)
    SoftmaxClassifier(checkpoint=path, callback=lambda r: sizes.append(path.exists() and path.stat().st_size)).fit(
        *data
    )
    assert sizes[0] is False
    assert all(after > before for before, after in pairwise(sizes[1:]))


def test_fingerprints(rng):
    X = rng.normal(size=(30, 4))
    assert fingerprint(X) == fingerprint(np.asfortranarray(X)) == fingerprint(np.hstack([X, X])[:, :4])
    different = [X, X[:, :3], X.astype(np.float32), X.T, X + 0.1, sparse.csr_array(X), None]
    assert len({fingerprint(x) for x in different}) == len(different)
