"""Cross-validation that is stopped, followed, resumed, or falls short."""

import gc
import math
import sys
import threading
import weakref

import numpy as np
import pytest

from kullback import ClassIndices, SoftmaxClassifier, SoftmaxClassifierCV, get_num_threads, set_num_threads
from kullback.errors import InputError, NotConvergedWarning
from kullback.linear import checkpoint as checkpoint_module
from kullback.linear import cv, interruption
from kullback.linear.folds import finished_part

from .pressing import at_fit, press

CS = [0.01, 0.1, 1.0, 10.0]


@pytest.fixture(params=[1, 2])
def jobs(request):
    before = get_num_threads()
    set_num_threads(2)
    yield request.param
    set_num_threads(before)


@pytest.fixture
def wide(rng):
    X = rng.normal(size=(60, 200))
    return X, (X[:, :3] @ rng.normal(size=(3, 3)) + rng.gumbel(size=(60, 3))).argmax(axis=1)


def stop():
    raise StopIteration


@pytest.mark.parametrize("kind", ["data", "wide"])
@pytest.mark.parametrize("refit", [True, False])
def test_ctrl_c_chooses_from_what_is_done(kind, refit, jobs, request):
    X, y = request.getfixturevalue(kind)
    model = SoftmaxClassifierCV(CS, cv=3, n_jobs=jobs, callback=at_fit(11, press), refit=refit, keep_coefs=True)
    with pytest.warns(NotConvergedWarning, match=r"Ctrl-C stopped it") as caught:
        model.fit(X, y)
    assert len(caught) == 1
    assert model.interrupted_
    assert not model.converged_
    whole = SoftmaxClassifierCV(CS, cv=3, keep_coefs=True).fit(X, y)
    done = np.isfinite(model.scores_)
    np.testing.assert_array_equal(model.scores_[done], whole.scores_[done])
    np.testing.assert_array_equal(np.isfinite(model.gaps_), done)
    np.testing.assert_array_equal(np.isfinite(model.coefs_paths_).all(axis=(2, 3)), done)
    assert 8 <= done.sum() < 12
    used, n = finished_part(done.sum(axis=1).tolist())
    assert f"C was chosen from {n} of 4 Cs by {len(used)} of 3 folds" in str(caught[0].message)
    place = int(whole.scores_[used, :n].mean(axis=0).argmax())
    assert model.C_ == CS[place]
    np.testing.assert_allclose(model.coef_, whole.coefs_paths_[used, place, :, :-1].mean(axis=0), atol=1e-12)
    assert model.predict(X).shape == y.shape
    if refit:  # the gap of the average, over all rows
        assert "gap is" in str(caught[0].message)
        exact = SoftmaxClassifier(model.C_, tol=1e-10).fit(X, y).certificate_
        assert model.certificate_.primal > exact.dual
        assert model.certificate_.primal - model.certificate_.gap <= exact.primal
        assert model.n_iter_ == 1


def test_ctrl_c_before_any_fit(data):
    """With two jobs the other one may have done a fit by then."""
    model = SoftmaxClassifierCV(CS, cv=3, n_jobs=1, callback=at_fit(1, press))
    with pytest.raises(KeyboardInterrupt):
        model.fit(*data)
    assert not hasattr(model, "coef_")
    with pytest.raises(InputError, match="callback ended the search before any fit was done"):
        SoftmaxClassifierCV(CS, cv=3, n_jobs=1, callback=at_fit(1, stop)).fit(*data)


def test_a_second_ctrl_c(data, jobs):
    model = SoftmaxClassifierCV(CS, cv=3, n_jobs=jobs, callback=at_fit(9, lambda: (press(), press())))
    with pytest.raises(KeyboardInterrupt):
        model.fit(*data)
    assert not hasattr(model, "coef_")


def test_ctrl_c_in_the_last_fit_returns_the_best_model_so_far(data, wide):
    for (X, y), fits in ((data, 12), (wide, 12)):
        model = SoftmaxClassifierCV(CS, cv=3, callback=at_fit(fits + 1, press), tol=1e-10)
        with pytest.warns(NotConvergedWarning, match=r"Ctrl-C stopped it.*checkpoint= to go on from the fits"):
            model.fit(X, y)
        assert np.isfinite(model.scores_).all()
        assert model.interrupted_
        interruption._last = -math.inf


def test_a_callback_ends_a_search_and_hears_one_thread_at_a_time(data, jobs):
    inside, most, seen = [0], [0], set()

    def callback(record):
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        seen.add(threading.get_ident())
        inside[0] -= 1

    model = SoftmaxClassifierCV(CS, cv=3, n_jobs=jobs, callback=callback).fit(*data)
    assert model.converged_
    assert most[0] == 1
    with pytest.warns(NotConvergedWarning, match="its callback stopped it"):
        model = SoftmaxClassifierCV(CS, cv=3, n_jobs=jobs, callback=at_fit(10, stop)).fit(*data)
    assert model.interrupted_


def test_which_part_is_compared():
    assert finished_part([4, 4, 4]) == ([0, 1, 2], 4)
    assert finished_part([4, 1, 0]) == ([0], 4)
    assert finished_part([2, 1, 1]) == ([0, 1, 2], 1)
    assert finished_part([0, 0]) == ([0, 1], 0)


def test_fits_of_folds_that_fall_short_are_counted(data):
    with pytest.warns(NotConvergedWarning) as caught:
        model = SoftmaxClassifierCV(CS, cv=3, max_iter=1, path_tol=1e-8, refit=False).fit(*data)
    (warning,) = caught
    short = int((model.gaps_ > 1e-8).sum())
    assert 0 < short
    assert f"{short} of the 12 fits of folds did not come within path_tol=1e-08" in str(warning.message)
    assert f"the largest gap is {model.gaps_.max():.3g} (see gaps_)" in str(warning.message)
    assert warning.filename == __file__
    assert not model.converged_
    np.testing.assert_array_equal(model.n_iter_, model.n_iters_[:, CS.index(model.C_)])
    assert not hasattr(model, "certificate_")
    good = SoftmaxClassifierCV(CS, cv=3, path_tol=1e-3, refit=False).fit(*data)
    assert good.converged_
    assert not good.interrupted_
    assert good.gaps_.shape == (3, 4)
    # The unit is the objective without any weights, log 3 or a little below.
    assert 0 < good.gaps_.max() <= 1.1e-3


def test_gaps_are_those_of_the_fits(data):
    X, y = data
    rows = np.arange(len(y))
    folds = [(rows[rows % 3 != k], rows[rows % 3 == k]) for k in range(3)]
    model = SoftmaxClassifierCV(CS, cv=folds, path_tol=1e-3, refit=False, keep_coefs=True).fit(X, y)
    for number, (train, _) in enumerate(folds):
        without = SoftmaxClassifier(max_iter=0, tol=1.0).fit(X[train], y[train]).certificate_.primal
        for place, C in enumerate(CS):
            best = SoftmaxClassifier(C, tol=1e-12).fit(X[train], y[train]).certificate_.primal
            rows_of = model.coefs_paths_[number, place]
            there = SoftmaxClassifier(C, max_iter=0, tol=1.0).fit(
                X[train], y[train], coef_init=rows_of[:, :-1], intercept_init=rows_of[:, -1]
            )
            excess = (there.certificate_.primal - best) / without
            assert -1e-12 <= excess <= model.gaps_[number, place] <= 1.1e-3


@pytest.mark.parametrize("kind", ["data", "wide"])
def test_a_killed_search_goes_on_where_it_was(kind, jobs, request, tmp_path, monkeypatch):
    X, y = request.getfixturevalue(kind)
    monkeypatch.setattr(checkpoint_module, "EVERY_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint_module, "WRITING_SHARE", 1e9)
    file, begun = tmp_path / "search.state", []

    def killed():
        raise MemoryError

    settings = {"Cs": CS, "cv": 3, "n_jobs": jobs, "checkpoint": file}
    with pytest.raises(MemoryError):
        SoftmaxClassifierCV(callback=at_fit(8, killed), **settings).fit(X, y)
    for change, what in (
        ({"cv": 4}, "folds"),
        ({"scoring": "accuracy"}, "scoring"),
        ({"Cs": CS[:3]}, "Cs"),
        ({"path_tol": 0.1}, "path_tol"),
    ):
        with pytest.raises(InputError, match=f"belongs to another fit: its {what}"):
            SoftmaxClassifierCV(**{**settings, **change}).fit(X, y)
    resumed = SoftmaxClassifierCV(callback=lambda r: begun.append(r.iteration == 0), **settings).fit(X, y)
    assert not file.exists()
    assert sum(begun) < 12
    whole = SoftmaxClassifierCV(**{**settings, "checkpoint": None}).fit(X, y)
    # The fits that were done are there as they were; the others need not take the same steps.
    assert np.isclose(resumed.scores_, whole.scores_, rtol=1e-9).sum() >= 8 - jobs
    np.testing.assert_allclose(resumed.scores_, whole.scores_, rtol=1e-3)
    assert (resumed.gaps_ <= 2 * resumed.path_tol).all()
    assert resumed.C_ == whole.C_
    np.testing.assert_allclose(resumed.coef_, whole.coef_, atol=1e-4)
    assert resumed.converged_


def test_a_checkpoint_holds_folds_that_lack_a_class(data, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "EVERY_SECONDS", 0.0)
    X, y = data
    order = np.argsort(y, kind="stable")
    third = len(y) // 3
    folds = [(np.arange(third), np.arange(third, len(y))), (np.arange(0, len(y), 2), np.arange(1, len(y), 2))]
    settings = {"Cs": CS, "cv": folds, "n_jobs": 1, "checkpoint": tmp_path / "s"}
    sorted_data = X[order], np.sort(y)
    with pytest.warns(NotConvergedWarning):
        SoftmaxClassifierCV(callback=at_fit(7, press), **settings).fit(*sorted_data)
    assert (tmp_path / "s").exists()
    resumed = SoftmaxClassifierCV(**settings).fit(*sorted_data)
    whole = SoftmaxClassifierCV(**{**settings, "checkpoint": None}).fit(*sorted_data)
    assert np.isclose(resumed.scores_, whole.scores_, rtol=1e-9).sum() >= 6
    np.testing.assert_allclose(resumed.scores_, whole.scores_, rtol=1e-3)


@pytest.mark.parametrize("loss", ["weston_watkins(squared=True)", "crammer_singer", "0.5 * weston_watkins"])
def test_a_loss_without_probabilities_is_its_own_score(data, loss):
    X, y = data
    model = SoftmaxClassifierCV(CS, cv=3, loss=loss, path_tol=3e-2, refit=False).fit(X, y)
    place = CS.index(model.C_)
    assert model.scores_[:, place].mean() == model.scores_.mean(axis=0).max()
    expected = -float(model.loss_(model.logits(X), ClassIndices(y)))
    assert model.score(X, y) == pytest.approx(expected)
    weight = np.linspace(0, 1, len(y))
    assert model.score(X, y, sample_weight=weight) == pytest.approx(
        -float(model.loss_(model.logits(X), ClassIndices(y), sample_weight=weight))
    )
    with pytest.raises(InputError, match=r"row 0: the label \d is none of classes_"):
        model.score(X, y + 7)
    assert (
        SoftmaxClassifierCV(CS, cv=3, loss=loss, path_tol=3e-2, refit=False, scoring="accuracy").fit(X, y).score(X, y)
        > 0.3
    )


def test_a_terminal_shows_a_bar_of_all_fits(data, monkeypatch):
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "200")
    SoftmaxClassifierCV(CS, cv=3, verbose=1).fit(*data)
    assert "━" in terminal.getvalue()
    assert "fold 3 of 3: best score" in terminal.getvalue()


def test_a_function_is_called_in_order_unless_jobs_are_asked_for(data):
    before, calls = get_num_threads(), []

    def scorer(model, X, y):
        calls.append((len(y), threading.get_ident()))
        return float(model.score(X, y))

    rows = np.arange(300)
    folds = [(np.setdiff1d(rows, test), test) for test in (rows[:90], rows[90:190], rows[190:])]
    set_num_threads(2)
    try:
        SoftmaxClassifierCV(CS, cv=folds, scoring=scorer).fit(*data)
        assert [size for size, _ in calls] == [90] * 4 + [100] * 4 + [110] * 4
        assert {thread for _, thread in calls} == {threading.get_ident()}
        calls.clear()
        SoftmaxClassifierCV(CS, cv=folds, scoring=scorer, n_jobs=2).fit(*data)
        assert threading.get_ident() not in {thread for _, thread in calls}
    finally:
        set_num_threads(before)


def test_the_rows_of_a_fold_are_let_go_when_it_is_fitted(data, monkeypatch):
    alive, most = weakref.WeakSet(), []

    class Watched(cv.Fold):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            alive.add(self)
            gc.collect()
            most.append(len(alive))

    monkeypatch.setattr(cv, "Fold", Watched)
    SoftmaxClassifierCV(CS, cv=5, n_jobs=1).fit(*data)
    assert most == [1] * 5
