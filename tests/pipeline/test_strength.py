"""The penalty found on held-out rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

from kullback import fit_file
from kullback.errors import InputError
from kullback.pipeline.strength import choose_strength


def search(loss_of, n_rows, spread=0.0, n_held_out=400):
    """Choose among penalties whose held-out loss is a given function of log10 C; `spread` sets rows apart with it."""
    common = np.random.default_rng(0).normal(size=n_held_out) * 0.1
    sign = np.resize([-1.0, 1.0], n_held_out)
    starts = []

    def fit(C, before):
        starts.append(before)
        return C

    def judge(C):
        return loss_of(np.log10(C)) + common + spread * np.log10(C) * sign

    best, trials = choose_strength(fit, judge, n_rows)
    return best, trials, starts


@pytest.mark.parametrize("optimum", [-3, -1, 0, 2])
@pytest.mark.parametrize("n_rows", [50, 5000, 10**7])
def test_it_walks_to_the_optimum(optimum, n_rows):
    best, trials, starts = search(lambda c: 1 + 0.1 * (c - optimum) ** 2, n_rows)
    assert pytest.approx(10.0**optimum) == best.C
    assert best.loss == min(trial.loss for trial in trials)
    first, *later = starts
    assert first is None
    assert all(before is not None for before in later)  # every later fit starts from the best so far


def test_it_stops_at_the_ends():
    assert search(lambda c: 10 - c, 100)[0].C == pytest.approx(1e4)
    assert search(lambda c: 10 + c, 100)[0].C == pytest.approx(1e-4)


def test_a_gain_within_the_noise_is_not_taken():
    assert search(lambda c: 1 - 0.02 * c, 100, spread=0.5, n_held_out=60)[0].C == 1
    assert search(lambda c: 1 - 0.02 * c, 100)[0].C == pytest.approx(1e4)
    assert search(lambda c: 1 - 0.0005 * c, 100)[0].C == 1  # certain, but not worth a tenfold weaker penalty


def test_an_infinite_loss_is_left_behind():
    best, _, _ = search(lambda c: np.inf if c < 1 else 1.0, 100)
    assert pytest.approx(10) == best.C


def table(path: Path, n: int, informative: int, spread: float) -> Path:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(n, 30))
    y = (X[:, :informative].sum(axis=1) + spread * rng.normal(size=n) > 0).astype(int)
    columns = {f"x{j}": X[:, j] for j in range(30)}
    pa_csv.write_csv(pa.table({**columns, "y": pa.array(np.array(["no", "yes"])[y])}), path)
    return path


def test_noise_calls_for_a_stronger_penalty_than_signal(tmp_path):
    noise = fit_file(table(tmp_path / "noise.csv", 3000, 1, 30.0), "y")
    signal = fit_file(table(tmp_path / "signal.csv", 4000, 5, 0.3), "y")
    strength = {name: float(dict(found.content.run.settings)["C"]) for name, found in (("n", noise), ("s", signal))}
    assert strength["n"] < strength["s"]
    worse = fit_file(tmp_path / "noise.csv", "y", C=100.0)
    assert noise.metrics.loss < worse.metrics.loss
    assert any("was chosen on the calibration part" in note for note in noise.notes)
    assert not any("was chosen" in note for note in worse.notes)


def test_a_fold_without_a_mistake_does_not_ask_for_endless_weights(tmp_path):
    path = tmp_path / "easy.csv"
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 200)
    pa_csv.write_csv(pa.table({"x": y * 10.0 + rng.normal(size=200), "y": pa.array(np.array(["a", "b"])[y])}), path)
    found = fit_file(path, "y")
    assert float(dict(found.content.run.settings)["C"]) <= 100


def test_the_curve_runs_on_from_penalty_to_penalty(tmp_path):
    curve = fit_file(table(tmp_path / "signal.csv", 2000, 5, 0.3), "y").content.curve
    assert curve.loss[0] == pytest.approx(np.log(2))
    assert curve.uniform_loss == pytest.approx(np.log(2))
    assert len(curve.loss) == len(curve.iterations) == curve.iterations[-1] + 1
    assert curve.loss[-1] < curve.loss[0]


def test_the_curve_is_held_against_its_own_loss(tmp_path):
    curve = fit_file(table(tmp_path / "signal.csv", 500, 5, 0.3), "y", loss="focal(gamma=2)").content.curve
    assert curve.uniform_loss == pytest.approx(np.log(2) / 4)
    assert curve.prior_loss <= curve.uniform_loss
    assert curve.loss[0] == pytest.approx(curve.uniform_loss)


def test_a_bad_strength_is_named(tmp_path):
    path = table(tmp_path / "t.csv", 100, 1, 1.0)
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="C"):
            fit_file(path, "y", C=bad)
