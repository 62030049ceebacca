import math

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import sklearn
from scipy import sparse
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer, log_loss
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold, cross_val_score, cross_validate

from kullback import (
    ClassIndices,
    ClassRows,
    SoftmaxClassifier,
    SoftmaxClassifierCV,
    SoftmaxPath,
    get_num_threads,
    set_num_threads,
)
from kullback.errors import InputError, NotConvergedWarning
from kullback.linear import rotation as rotation_module
from kullback.linear.folds import chosen_place
from kullback.linear.rotation import is_wide, rotate

mpl.use("Agg")
CS = [1e-3, 1e-2, 0.1, 1.0, 10.0]


@pytest.fixture
def noisy(rng):
    X = rng.normal(size=(200, 5)) * [1, 10, 0.1, 1, 1] + [0, 3, 0, -1, 0]
    scaled = X / [1, 10, 0.1, 1, 1]
    return X, (scaled @ rng.normal(size=(5, 3)) + 2 * rng.gumbel(size=(200, 3))).argmax(axis=1)


@pytest.fixture
def wide(rng):
    X = rng.normal(size=(60, 400)) * np.logspace(-2, 1, 400) + 5
    return X, (X[:, -3:] @ rng.normal(size=(3, 3)) / 10 + rng.gumbel(size=(60, 3))).argmax(axis=1)


@pytest.mark.parametrize("scoring", [None, "neg_log_loss", "accuracy", "neg_brier_score"])
def test_scores_are_those_of_single_fits(noisy, scoring):
    X, y = noisy
    model = SoftmaxClassifierCV(CS, cv=4, scoring=scoring, path_tol=1e-11).fit(X, y)
    by_hand = np.stack(
        [
            cross_val_score(
                SoftmaxClassifier(C=C, tol=1e-11), X, y, cv=StratifiedKFold(4), scoring=scoring or "neg_log_loss"
            )
            for C in CS
        ],
        axis=1,
    )
    np.testing.assert_allclose(model.scores_, by_hand, rtol=1e-5, atol=1e-6)
    assert model.C_ == CS[int(np.argmax(by_hand.mean(axis=0)))]
    np.testing.assert_allclose(model.coef_, SoftmaxClassifier(C=model.C_).fit(X, y).coef_, rtol=1e-2, atol=1e-3)
    assert model.certificate_.relative_gap <= 1e-6
    expected = -log_loss(y, model.predict_proba(X)) if scoring in (None, "neg_log_loss") else None
    assert expected is None or model.score(X, y) == pytest.approx(expected)


def test_rough_fits_score_nearly_the_same(noisy):
    rough, exact = (SoftmaxClassifierCV(CS, path_tol=tol).fit(*noisy) for tol in (1e-4, 1e-11))
    np.testing.assert_allclose(rough.scores_, exact.scores_, rtol=3e-3)
    assert rough.n_iters_.sum() < exact.n_iters_.sum()


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array, lambda X: X.astype(np.float32)])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_wide_data_is_rotated_and_the_answer_is_the_same(wide, make, fit_intercept, monkeypatch):
    X, y = make(wide[0]), wide[1]
    assert is_wide(X)
    settings = {"fit_intercept": fit_intercept, "path_tol": 1e-13, "keep_coefs": True}
    weight = np.linspace(0.5, 2, len(y))
    turned = SoftmaxClassifierCV(CS, cv=3, **settings).fit(X, y, weight)
    path = SoftmaxPath(CS, fit_intercept=fit_intercept, tol=1e-9).fit(X, y, weight)
    monkeypatch.setattr(rotation_module, "WIDE", math.inf)
    plain = SoftmaxClassifierCV(CS, cv=3, **settings).fit(X, y, weight)
    assert not is_wide(X)
    np.testing.assert_allclose(turned.scores_, plain.scores_, rtol=1e-3)
    np.testing.assert_allclose(turned.coefs_paths_, plain.coefs_paths_, atol=1e-3 * np.abs(plain.coefs_paths_).max())
    assert turned.C_ == plain.C_
    assert turned.certificate_.relative_gap <= 1e-6
    for C, coef, intercept, certificate in zip(
        path.Cs_, path.coefs_, path.intercepts_, path.certificates_, strict=True
    ):
        alone = SoftmaxClassifier(C=C, fit_intercept=fit_intercept, tol=1e-9).fit(X, y, weight)
        np.testing.assert_allclose(coef, alone.coef_, atol=1e-3 * np.abs(alone.coef_).max())
        np.testing.assert_allclose(intercept, alone.intercept_, atol=1e-3 * (1 + np.abs(alone.intercept_).max()))
        assert certificate.relative_gap <= 1e-9


def test_a_rotation_keeps_products_and_lengths(wide):
    X = wide[0]
    for matrix in (X, sparse.csr_array(X)):
        for centred in (True, False):
            rotation = rotate(matrix, centred=centred)
            centre = X.mean(axis=0) if centred else 0.0
            np.testing.assert_allclose(rotation.rows @ rotation.rows.T, (X - centre) @ (X - centre).T, atol=1e-7)
            turned = np.random.default_rng(0).normal(size=(rotation.rows.shape[1], 2))
            weights, intercept = rotation.to_columns(turned, np.array([1.0, -1.0]))
            np.testing.assert_allclose(X @ weights + intercept, rotation.rows @ turned + [1, -1], atol=1e-6)
            np.testing.assert_allclose(np.linalg.norm(weights), np.linalg.norm(turned), rtol=1e-6)


def test_path_agrees_with_single_fits_and_scikit_learn(noisy):
    X, y = noisy
    path = SoftmaxPath([10.0, 0.1], tol=1e-12).fit(X, y)
    np.testing.assert_array_equal(path.Cs_, [0.1, 10.0])
    for C in path.Cs_:
        model = path.at(C)
        theirs = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-10).fit(X, y)
        np.testing.assert_allclose(model.coef_, theirs.coef_, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(model.predict_proba(X), theirs.predict_proba(X), atol=1e-6)
        assert model.certificate_.relative_gap <= 1e-12
        assert model.C == C
    np.testing.assert_array_equal(path.predict(X), path.at(10.0).predict(X))
    two = SoftmaxPath(3).fit(X, y == 1)
    assert two.coefs_.shape == (3, 1, 5)
    assert two.at(1.0).predict_proba(X).shape == (200, 2)
    with pytest.raises(InputError, match=r"C=3 is not on this path; it has 0\.1, 10"):
        path.at(3)
    with pytest.warns(NotConvergedWarning, match=r"did not converge at C = 0\.1"):
        SoftmaxPath([0.1, 10.0], max_iter=2).fit(X, y)


def test_one_standard_error_takes_a_stronger_penalty(noisy):
    best = SoftmaxClassifierCV(12).fit(*noisy)
    careful = SoftmaxClassifierCV(12, selection="one-standard-error").fit(*noisy)
    mean = best.scores_.mean(axis=0)
    error = best.scores_.std(axis=0, ddof=1)[mean.argmax()] / math.sqrt(5)
    assert careful.C_ < best.C_
    assert careful.C_ == best.Cs_[np.flatnonzero(mean >= mean.max() - error)[0]]
    assert chosen_place(np.array([[1.0, 2.0, 2.0]]), "one-standard-error") == 1


def test_without_a_refit_coefficients_are_averaged(noisy):
    model = SoftmaxClassifierCV(CS, refit=False, keep_coefs=True).fit(*noisy)
    place = list(model.Cs_).index(model.C_)
    np.testing.assert_allclose(model.coef_, model.coefs_paths_[:, place, :, :-1].mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(model.intercept_, model.coefs_paths_[:, place, :, -1].mean(axis=0), rtol=1e-10)
    assert model.predict(noisy[0]).shape == (200,)
    assert not hasattr(SoftmaxClassifierCV(CS).fit(*noisy), "coefs_paths_")


def test_threads_and_jobs_change_nothing(noisy):
    found, before = [], get_num_threads()
    for threads, jobs in ((1, None), (2, None), (2, 1), (2, 2), (2, -1), (2, -2), (2, -9)):
        set_num_threads(threads)
        try:
            found.append(SoftmaxClassifierCV(CS, n_jobs=jobs).fit(*noisy))
        finally:
            set_num_threads(before)
    for other in found[1:]:
        np.testing.assert_array_equal(other.scores_, found[0].scores_)
        np.testing.assert_array_equal(other.coef_, found[0].coef_)


@pytest.mark.parametrize("loss", ["cross_entropy", "cross_entropy(label_smoothing=0.1)"])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_folds_that_lack_a_class(rng, loss, class_weight):
    X = rng.normal(size=(61, 3))
    y = (X[:, 0] > 0).astype(int)
    y[60] = 2  # one single example
    with pytest.warns(UserWarning, match="least populated class"):
        model = SoftmaxClassifierCV(CS, loss=loss, class_weight=class_weight).fit(X, y)
    assert np.isfinite(model.scores_).all()
    assert model.scores_.min() > -15
    assert list(model.classes_) == [0, 1, 2]
    # Two classes, and training rows of one of them only.
    order = np.argsort(y[:60], kind="stable")
    half = SoftmaxClassifierCV(CS, cv=KFold(2)).fit(X[order], (np.arange(60) >= 30).astype(int))
    np.testing.assert_allclose(half.scores_, math.log(np.finfo(float).eps))


def test_other_splitters_soft_targets_weights_and_frames(noisy, rng):
    X, y = noisy
    groups = GroupKFold(3).split(X, y, rng.integers(0, 9, 200))
    assert SoftmaxClassifierCV(CS, cv=groups).fit(X, y).scores_.shape == (3, 5)
    hard = SoftmaxClassifierCV(CS, cv=KFold(5)).fit(X, ClassIndices(y))
    soft = SoftmaxClassifierCV(CS, cv=KFold(5)).fit(X, ClassRows(np.eye(3)[y]))
    np.testing.assert_allclose(soft.scores_, hard.scores_, rtol=1e-6)
    ours, theirs = (SoftmaxClassifierCV(CS, cv=KFold(5), scoring="f1_macro") for _ in range(2))
    one_hot, labels = ours.fit(X, ClassRows(np.eye(3)[y])), theirs.fit(X, y)
    np.testing.assert_allclose(one_hot.scores_, labels.scores_, rtol=1e-12)
    twice = np.repeat(np.arange(200), 2)
    folds = [(np.flatnonzero(np.arange(200) % 4 != k), np.flatnonzero(np.arange(200) % 4 == k)) for k in range(4)]
    doubled = [(np.isin(twice, train).nonzero()[0], np.isin(twice, test).nonzero()[0]) for train, test in folds]
    weighted = SoftmaxClassifierCV(CS, cv=folds, path_tol=1e-10).fit(X, y, np.full(200, 2.0))
    repeated = SoftmaxClassifierCV(CS, cv=doubled, path_tol=1e-10).fit(X[twice], y[twice])
    np.testing.assert_allclose(weighted.scores_, repeated.scores_, rtol=1e-5)
    table = pd.DataFrame(X, columns=list("abcde"))
    assert list(SoftmaxClassifierCV(CS).fit(table, y).feature_names_in_) == list("abcde")


def test_a_function_as_scorer_sees_the_data_itself(wide):
    seen = []

    def scorer(model, X, y):
        seen.append(X.shape)
        return float(model.score(X, y))

    SoftmaxClassifierCV(CS, cv=3, scoring=scorer).fit(*wide)
    assert set(seen) == {(20, 400)}
    assert len(seen) == 15


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"Cs": 0}, "Cs=0 is not valid"),
        ({"Cs": []}, "Cs"),
        ({"Cs": [1, -1]}, "values above 0"),
        ({"Cs": [1, 1]}, "names a value twice"),
        ({"Cs": "ten"}, "neither a number of values nor the values"),
        ({"Cs": 2.5}, "Cs=2.5 is not valid"),
        ({"selection": "median"}, "choose one of: best, one-standard-error"),
        ({"n_jobs": 0}, "n_jobs=0"),
        ({"n_jobs": 1.5}, "n_jobs=1.5"),
        ({"cv": 1}, "cv=1 is not valid; it must be a number of folds of at least 2"),
        ({"cv": "five"}, "cv='five' is not valid; it must be a number of folds, a splitter"),
        ({"scoring": "speed"}, "scoring='speed' is not known; it must be None, a name of"),
        ({"scoring": 3}, "scoring=3 is not known"),
        ({"refit": "yes"}, "refit='yes'"),
        ({"callback": 1}, "callback=1 cannot be called"),
        ({"checkpoint": 1}, "checkpoint=1 is not the path"),
        ({"loss": "weston_watkins", "scoring": "neg_log_loss"}, "'neg_log_loss' needs probabilities, and weston"),
        ({"loss": "weston_watkins", "scoring": "neg_brier_score"}, "the scorer needs probabilities, and weston"),
        ({"path_tol": 0}, "path_tol=0"),
        ({"tol": 0}, "tol=0"),
        ({"cv": [(np.arange(10), np.arange(0))]}, "fold 0 of cv has 0 held-out rows"),
        ({"cv": 60}, "cv=60 cannot split these 150 rows: n_splits=60 cannot be greater than the number of members"),
        ({"cv": 200}, "cv=200 cannot split these 150 rows: Cannot have number of splits"),
        ({"cv": []}, r"cv=\[\] gives no folds"),
        ({"cv": [3]}, r"cv=\[3\] cannot split these 150 rows: .* must be pairs \(train, test\)"),
        ({"cv": GroupKFold(3)}, r"The 'groups' parameter should not be None.*fit\(X, y, groups=...\)"),
        ({"cv": [(np.arange(99), [99, 150])]}, "fold 0 of cv has held-out row 150, but X has the rows 0 to 149"),
        ({"cv": [(np.arange(9) / 2, [99])]}, "fold 0 of cv has training rows array.* must be whole numbers"),
        ({"cv": [(np.arange(9) > 2, [99])]}, "or a mask of 150 True and False"),
        ({"cv": [(0, 1)]}, "fold 0 of cv has training rows 0; they must be"),
        ({"scoring": "roc_auc"}, "scoring='roc_auc' cannot score these 3 classes: .* such as 'accuracy' or 'roc_auc_"),
        ({"scoring": lambda model, X, y: "good"}, "returned 'good'; a score is one number"),
        ({"scoring": lambda model, X, y: math.nan}, "the score of fold 0 at C = .* is nan"),
    ],
)
def test_wrong_settings(settings, says):
    with pytest.raises(InputError, match=says):
        SoftmaxClassifierCV(**settings).fit(*load_iris(return_X_y=True))


def test_folds_may_be_masks(noisy):
    X, y = noisy
    rows = np.arange(len(X))
    masks = [(rows % 3 != k, rows % 3 == k) for k in range(3)]
    numbers = [(np.flatnonzero(train), np.flatnonzero(test)) for train, test in masks]
    ours, theirs = (SoftmaxClassifierCV(CS, cv=cv).fit(X, y) for cv in (masks, numbers))
    np.testing.assert_array_equal(ours.scores_, theirs.scores_)


def test_pictures(noisy):
    X, y = noisy
    for selection in ("best", "one-standard-error"):
        model = SoftmaxClassifierCV(CS, selection=selection).fit(X, y)
        ax = model.plot_scores()
        assert ax.get_xscale() == "log"
        assert f"chosen: C = {model.C_:.3g}" in [text.get_text() for text in ax.get_legend().get_texts()]
        np.testing.assert_allclose(ax.containers[0][0].get_ydata(), model.scores_.mean(axis=0))
        mpl.pyplot.close(ax.figure)
    path = SoftmaxPath(CS).fit(pd.DataFrame(X, columns=list("abcde")), y)
    figure, ax = mpl.pyplot.subplots()
    assert path.plot_path(ax, columns=2) is ax
    assert len(ax.get_lines()) == 5
    assert len(ax.get_legend().get_texts()) == 2
    mpl.pyplot.close(figure)


def test_verbose_names_fold_gap_solver_and_rotation(noisy, wide, capsys):
    model = SoftmaxClassifierCV(CS, verbose=1).fit(*noisy)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fold")]
    assert len(lines) == 5
    for number in range(5):
        best = model.scores_[number].argmax()
        assert (
            f"fold {number + 1} of 5: best score {model.scores_[number, best]:.6f} at C = {CS[best]:g}, "
            f"largest gap {model.gaps_[number].max():.2e}, by preconditioned"
        ) in lines
    model = SoftmaxClassifierCV(CS, cv=2, verbose=2).fit(*noisy)
    printed = capsys.readouterr().out
    assert f"fold 2 of 2, C = {CS[1]:g}: score {model.scores_[1, 1]:.6f}  gap {model.gaps_[1, 1]:.2e}" in printed
    assert printed.count("fold 1 of 2, C = 0.001: iteration ") == model.n_iters_[0, 0] + 1
    SoftmaxClassifierCV(CS, verbose=1, cv=2).fit(*wide)
    assert "folds are fitted in 59 coordinates of the 60 rows" in capsys.readouterr().out


def test_groups_reach_the_splitter(rng):
    X, y = rng.normal(size=(60, 3)), np.tile([0, 1, 2], 20)
    groups = np.repeat(np.arange(6), 10)
    model = SoftmaxClassifierCV(Cs=2, cv=GroupKFold(3)).fit(X, y, groups=groups)
    folds = list(GroupKFold(3).split(X, y, groups))
    assert (model.scores_ == SoftmaxClassifierCV(Cs=2, cv=folds).fit(X, y).scores_).all()
    with pytest.raises(InputError, match="takes no coef_init: each fit starts where"):
        SoftmaxClassifierCV(Cs=2).fit(X, y, coef_init=np.zeros((3, 3)))
    with pytest.raises(InputError, match="got extra, which is only supported if enable_metadata_routing"):
        SoftmaxClassifierCV(Cs=2).fit(X, y, extra=1)


def test_metadata_is_routed_as_scorers_request(rng):
    X, y = rng.normal(size=(80, 3)), rng.integers(0, 2, 80)
    weight = rng.random(80)
    with sklearn.config_context(enable_metadata_routing=True):
        deaf, keen = (get_scorer("accuracy").set_score_request(sample_weight=asked) for asked in (False, True))
        scores = {
            name: SoftmaxClassifierCV(Cs=2, scoring=scorer).fit(X, y, weight).scores_
            for name, scorer in (("deaf", deaf), ("keen", keen))
        }
        assert not np.allclose(scores["deaf"], scores["keen"])
        with pytest.raises(TypeError, match="sample_weight"):
            SoftmaxClassifierCV(Cs=2, scoring=deaf).fit(X, y, weight).score(X, y, sample_weight=weight)
        quiet = SoftmaxClassifierCV(Cs=2).fit(X, y, weight)
        nested = cross_validate(
            SoftmaxClassifierCV(Cs=2).set_fit_request(sample_weight=True), X, y, params={"sample_weight": weight}
        )
        assert np.isfinite(nested["test_score"]).all()
    assert (scores["keen"] == SoftmaxClassifierCV(Cs=2, scoring="accuracy").fit(X, y, weight).scores_).all()
    assert (quiet.scores_ == SoftmaxClassifierCV(Cs=2).fit(X, y, weight).scores_).all()


@pytest.mark.parametrize(("penalty", "l1_ratio"), [("l1", None), ("elasticnet", 0.3), ("group", 0.9)])
def test_other_penalties_have_paths_too(rng, penalty, l1_ratio):
    X = rng.normal(size=(120, 6))
    y = (X[:, :2] @ rng.normal(size=(2, 3)) + rng.gumbel(size=(120, 3))).argmax(axis=1)
    how = {"penalty": penalty, "l1_ratio": l1_ratio}
    model = SoftmaxClassifierCV(Cs=[0.05, 1.0], tol=1e-8, path_tol=1e-7, **how).fit(X, y)
    alone = SoftmaxClassifier(model.C_, tol=1e-8, **how).fit(X, y)
    np.testing.assert_allclose(model.coef_, alone.coef_, atol=2e-3)
    path = SoftmaxPath(Cs=[0.05, 1.0], tol=1e-8, **how).fit(X, y)
    assert (path.coefs_[0] == 0).sum() > (path.coefs_[1] == 0).sum()
    np.testing.assert_allclose(path.at(model.C_).coef_, alone.coef_, atol=2e-3)
    train, test = next(StratifiedKFold(5).split(X, y))
    fold = SoftmaxClassifier(0.05, tol=1e-8, **how).fit(X[train], y[train])
    held_out = np.log(fold.predict_proba(X[test])[np.arange(len(test)), y[test]]).mean()
    assert model.scores_[0, 0] == pytest.approx(held_out, abs=1e-3)
