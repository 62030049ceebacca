"""A path of penalties: what it tells of every C, and how it is stopped, followed and resumed."""

import io
import sys

import numpy as np
import pytest

from kullback import SoftmaxClassifier, SoftmaxPath
from kullback.errors import InputError, NotConvergedWarning
from kullback.linear import checkpoint as checkpoint_module
from kullback.linear.progress import way

from .pressing import at_fit, press

CS = [0.01, 0.1, 1.0, 10.0]


@pytest.fixture
def wide(rng):
    X = rng.normal(size=(40, 200))
    return X, (X[:, :3] @ rng.normal(size=(3, 3)) + rng.gumbel(size=(40, 3))).argmax(axis=1)


def test_every_c_has_what_a_single_fit_has(data):
    path = SoftmaxPath(CS).fit(*data)
    assert path.converged_
    assert not path.interrupted_
    for place, C in enumerate(CS):
        model = path.at(C)
        alone = SoftmaxClassifier(C).fit(*data)
        missing = {name for name in vars(alone) if name.endswith("_")} - set(vars(model))
        assert not missing
        assert model.converged_
        assert (model.solver_, model.solver_reason_) == (alone.solver_, alone.solver_reason_)
        assert model.n_iter_[0] == max(1, path.n_iters_[place])
        assert model.history_[-1].iteration == path.n_iters_[place]
        assert model.certificate_ == path.certificates_[place]
    for name in ("certificate_", "history_", "n_iter_", "solver_", "solver_reason_"):
        assert getattr(path, name) == getattr(path.at(CS[-1]), name)
    np.testing.assert_array_equal(path.coef_, path.at(CS[-1]).coef_)
    for wrong in ("a", None, -1, True):
        with pytest.raises(InputError, match="it must be a number on this path"):
            path.at(wrong)


@pytest.mark.parametrize("kind", ["data", "wide"])
def test_ctrl_c_keeps_what_is_done(kind, request):
    X, y = request.getfixturevalue(kind)
    model = SoftmaxPath(CS, callback=at_fit(3, press, iteration=1), tol=1e-10)
    with pytest.warns(NotConvergedWarning, match=r"C = 1: Ctrl-C stopped it, (relative )?duality gap .*1 of 4 Cs were"):
        model.fit(X, y)
    assert model.interrupted_
    assert not model.converged_
    np.testing.assert_array_equal(model.Cs_, CS[:3])
    assert len(model.coefs_) == len(model.certificates_) == 3
    whole = SoftmaxPath(CS, tol=1e-10).fit(X, y)
    np.testing.assert_array_equal(model.coefs_[:2], whole.coefs_[:2])
    assert 1e-10 < model.certificate_.relative_gap
    assert model.certificate_.gap < 1
    assert model.at(1.0).interrupted_
    assert not model.at(0.1).interrupted_
    assert model.predict(X).shape == y.shape


def test_a_second_ctrl_c_aborts(data):
    model = SoftmaxPath(CS, callback=at_fit(2, lambda: (press(), press()), iteration=1))
    with pytest.raises(KeyboardInterrupt):
        model.fit(*data)
    assert not hasattr(model, "coef_")


def test_all_that_fall_short_are_named_at_once(data):
    with pytest.warns(NotConvergedWarning) as caught:
        path = SoftmaxPath(CS, max_iter=1, tol=1e-13).fit(*data)
    (warning,) = caught
    told = str(warning.message)
    for C, certificate in zip(CS, path.certificates_, strict=True):
        assert f"C = {C:g}: it used all 1 iterations, relative duality gap {certificate.relative_gap:.3g}" in told
    assert warning.filename == __file__
    assert not path.converged_


@pytest.mark.parametrize("kind", ["data", "wide"])
@pytest.mark.parametrize("how", [{}, {"penalty": "l1"}])
def test_a_killed_path_goes_on_where_it_was(kind, how, request, tmp_path, monkeypatch):
    X, y = request.getfixturevalue(kind)
    monkeypatch.setattr(checkpoint_module, "EVERY_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint_module, "WRITING_SHARE", 1e9)
    file, begun = tmp_path / "path.state", []

    def killed():
        raise MemoryError

    settings = {"Cs": CS, "tol": 1e-10, "checkpoint": file, **how}
    with pytest.raises(MemoryError):
        SoftmaxPath(callback=at_fit(3, killed, iteration=1), **settings).fit(X, y)
    assert file.exists()
    with pytest.raises(InputError, match="belongs to another fit: its Cs"):
        SoftmaxPath(**{**settings, "Cs": [1.0, 2.0]}).fit(X, y)
    with pytest.raises(InputError, match="belongs to another fit: its y"):
        SoftmaxPath(**settings).fit(X, y[::-1])
    resumed = SoftmaxPath(callback=lambda record: begun.append(record.iteration == 0), **settings).fit(X, y)
    assert not file.exists()
    assert sum(begun) == 2
    whole = SoftmaxPath(**{**settings, "checkpoint": None}).fit(X, y)
    np.testing.assert_array_equal(resumed.coefs_[:2], whole.coefs_[:2])
    np.testing.assert_allclose(resumed.coefs_, whole.coefs_, atol=1e-4 * np.abs(whole.coefs_).max())
    assert resumed.certificates_[0].dual == whole.certificates_[0].dual
    assert [p.n_iter for p in resumed.points_][:2] == [p.n_iter for p in whole.points_][:2]
    assert resumed.converged_


def test_an_interrupted_path_leaves_its_checkpoint(data, tmp_path):
    file = tmp_path / "path.state"
    with pytest.warns(NotConvergedWarning, match="goes on from its finished Cs"):
        SoftmaxPath(CS, callback=at_fit(2, press, iteration=1), tol=1e-10, checkpoint=file).fit(*data)
    begun = []
    SoftmaxPath(CS, callback=lambda r: begun.append(r.iteration == 0), tol=1e-10, checkpoint=file).fit(*data)
    assert sum(begun) == 3
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="cannot be read"):
        SoftmaxPath(CS, checkpoint=file).fit(*data)


def test_lines_name_solver_reason_and_gap(data, wide, capsys):
    path = SoftmaxPath(CS, verbose=1).fit(*data)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(CS)
    assert lines[0] == f"C = 0.01: solver {path.solver_}: {path.at(0.01).solver_reason_}"
    assert lines[1].startswith("C = 0.01: objective ")
    assert f"gap {path.certificates_[0].relative_gap:.2e}" in lines[1]
    SoftmaxPath(CS, verbose=2).fit(*data)
    assert capsys.readouterr().out.count("iteration ") == path.n_iters_.sum() + len(CS)
    SoftmaxPath(CS, verbose=1).fit(*wide)
    assert "solver rotated: 200 columns are many for 40 rows" in capsys.readouterr().out
    SoftmaxPath(CS).fit(*data)
    assert not capsys.readouterr().out


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_a_bar(data, monkeypatch):
    for model, ends in (
        (SoftmaxClassifier(verbose=1), "gap "),
        (SoftmaxPath(CS, verbose=1), "C = 10: objective"),
    ):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setenv("COLUMNS", "200")
        model.fit(*data)
        shown = terminal.getvalue()
        assert "━" in shown
        assert ends in shown
        assert model.solver_reason_[:30] in shown
        assert "gradient" not in shown
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    SoftmaxClassifier(verbose=2).fit(*data)
    assert "━" not in terminal.getvalue()
    assert "iteration     1" in terminal.getvalue()


def test_the_way_is_measured_in_digits():
    assert way(1.0, 1e-2, 1e-8) == pytest.approx(0.25)
    assert way(1.0, 1e-9, 1e-8) == 1.0
    assert way(None, np.inf, 1e-8) == 0.0
    assert way(1.0, 10.0, 1e-8) == 0.0
