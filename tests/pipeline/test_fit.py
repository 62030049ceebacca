"""The whole path in Python: what is fitted on what, and what the model then says."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

import kullback
from kullback.data import plan_target, read_table, split_rows
from kullback.errors import InputError, ModelError
from kullback.pipeline import FitResult, Listener, Model, evaluate_file, fit_file, load_model
from kullback.pipeline.storage import StoredModel, read_model, write_model

CLASSES = ("blue", "green", "red")


def table_of(rows: int = 400, seed: int = 0, classes: tuple[Any, ...] = CLASSES) -> pa.Table:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3))
    logits = x @ np.array([[2.0, 0, -2], [0, 1.5, -1], [0, 0, 0]]) + [0, 0.5, 1]
    chosen = np.argmax(logits + rng.gumbel(size=(rows, 3)), axis=1)
    return pa.table({**{f"x{j}": x[:, j] for j in range(3)}, "y": [classes[k] for k in chosen]})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    pa_csv.write_csv(table_of(), path)
    return path


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    folder = tmp_path_factory.mktemp("fit")
    pa_csv.write_csv(table_of(), folder / "data.csv")
    return fit_file(folder / "data.csv", "y", out=folder / "model")


def test_without_a_directory_nothing_is_written(file: Path) -> None:
    found = fit_file(file, "y")
    assert found.directory is None
    assert [entry.name for entry in file.parent.iterdir()] == ["data.csv"]


def test_a_loaded_model_says_the_same_to_the_last_bit(result: FitResult) -> None:
    assert result.directory is not None
    loaded = load_model(result.directory)
    table = table_of(50, seed=1)
    np.testing.assert_array_equal(loaded.predict_proba(table), result.model.predict_proba(table))
    assert loaded.predict(table).tolist() == result.model.predict(table).tolist()
    assert loaded.classes == CLASSES
    assert loaded.loss == kullback.CrossEntropy()
    assert kullback.load_model(str(result.directory)).temperature == result.model.temperature


def test_only_the_training_part_is_learned_from(file: Path) -> None:
    """Changing the features of every test row changes no weight, no temperature and no encoding."""
    plain = fit_file(file, "y", C=1.0)
    table = read_table(file)
    targets, _ = plan_target(table, "y").encode(table)
    split = split_rows(targets, "classes", fractions={"train": 0.68, "calibration": 0.12, "test": 0.2}, seed=0)
    x0 = table.column("x0").to_numpy().copy()
    x0[split.test] = 1000.0
    pa_csv.write_csv(table.set_column(0, "x0", pa.array(x0)), file)
    changed = fit_file(file, "y", C=1.0)
    np.testing.assert_array_equal(changed.model.coefficients, plain.model.coefficients)
    assert changed.model.temperature == plain.model.temperature
    assert changed.metrics.loss != plain.metrics.loss
    # The calibration part moves the temperature and nothing else.
    x0[split.test], x0[split.calibration] = table.column("x0").to_numpy()[split.test], 0.0
    pa_csv.write_csv(table.set_column(0, "x0", pa.array(x0)), file)
    changed = fit_file(file, "y", C=1.0)
    np.testing.assert_array_equal(changed.model.coefficients, plain.model.coefficients)
    assert changed.metrics.temperature != plain.metrics.temperature


def test_it_is_the_estimators_optimum(file: Path) -> None:
    found = fit_file(file, "y", C=0.5)
    table = read_table(file)
    targets, _ = found.model.plan.encode(table)
    split = split_rows(targets, "classes", fractions={"train": 0.68, "calibration": 0.12, "test": 0.2}, seed=0)
    matrix = found.model.encoder.transform(table, rows=split.train).matrix
    estimator = kullback.SoftmaxClassifier(C=0.5, tol=1e-4).fit(matrix, targets[split.train])
    np.testing.assert_array_equal(found.model.coefficients, estimator.coef_)
    untempered = dataclasses.replace(found.model, temperature=1.0)
    expected = estimator.predict_proba(found.model.encoder.transform(table).matrix)
    np.testing.assert_allclose(untempered.predict_proba(table), expected, rtol=1e-5)


@pytest.mark.parametrize("loss", [None, "cross_entropy(class_weight=[1,4])", "cross_entropy(label_smoothing=0.1)"])
def test_two_classes_agree_with_the_estimator(tmp_path: Path, loss: str | None) -> None:
    table = table_of(classes=("no", "no", "yes"))
    pa_csv.write_csv(table, tmp_path / "two.csv")
    found = fit_file(tmp_path / "two.csv", "y", loss=loss, C=1.0)
    targets, _ = found.model.plan.encode(table)
    split = split_rows(targets, "classes", fractions={"train": 0.68, "calibration": 0.12, "test": 0.2}, seed=0)
    encoder = found.model.encoder
    estimator = kullback.SoftmaxClassifier(loss=found.model.loss, tol=1e-4).fit(
        encoder.transform(table, rows=split.train).matrix, targets[split.train]
    )
    untempered = dataclasses.replace(found.model, temperature=1.0)
    matrix = encoder.transform(table).matrix
    np.testing.assert_allclose(untempered.predict_proba(table), estimator.predict_proba(matrix), rtol=2e-4, atol=1e-7)
    np.testing.assert_array_equal(found.model.predictions(table).decisions, estimator.predict(matrix))


def test_weights_move_decisions_and_not_probabilities(tmp_path: Path) -> None:
    path = tmp_path / "big.csv"
    pa_csv.write_csv(table_of(20000), path)
    plain, weighted = fit_file(path, "y"), fit_file(path, "y", loss="cross_entropy(class_weight=[8,1,1])")
    fresh = table_of(2000, seed=3)
    gap = np.abs(plain.model.predict_proba(fresh) - weighted.model.predict_proba(fresh))
    assert gap.mean() < 0.01
    blue = [np.mean(found.model.predict(fresh) == "blue") for found in (plain, weighted)]
    assert blue[1] > blue[0] + 0.15
    assert weighted.metrics.decisions_moved is not None
    assert weighted.metrics.decisions_moved > 0
    assert plain.metrics.decisions_moved == 0


def test_balanced_weights_are_in_the_loss(file: Path) -> None:
    found = fit_file(file, "y", class_weight="balanced")
    counts = found.content.balance.train
    assert isinstance(found.model.loss, kullback.CrossEntropy)
    np.testing.assert_allclose(found.model.loss.class_weight, counts.sum() / (3 * counts), rtol=1e-12)


def test_temperature_is_applied_to_the_recovered_log_probabilities(result: FitResult) -> None:
    model = dataclasses.replace(result.model, temperature=2.5)
    table = table_of(30, seed=2)
    p = dataclasses.replace(model, temperature=1.0).predict_proba(table) ** (1 / 2.5)
    np.testing.assert_allclose(model.predict_proba(table), p / p.sum(axis=1, keepdims=True), rtol=1e-12)
    np.testing.assert_array_equal(model.predict(table), result.model.predict(table))


def test_temperature_is_kept_only_if_the_held_out_loss_improves(file: Path) -> None:
    kept = set()
    for C in (1e-3, 1e3):
        for seed in range(4):
            found = fit_file(file, "y", C=C, seed=seed)
            metrics = found.metrics
            assert metrics.nll_after is not None
            assert metrics.temperature_kept == (metrics.nll_after < metrics.nll_before)
            assert found.model.temperature == (metrics.temperature if metrics.temperature_kept else 1.0)
            kept.add(metrics.temperature_kept)
    assert True in kept


def test_a_temperature_that_does_not_help_is_reported_and_not_used(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(-5, 1, 100), rng.normal(5, 1, 100)])
    pa_csv.write_csv(pa.table({"x": x, "y": ["a"] * 100 + ["b"] * 100}), tmp_path / "easy.csv")
    found = fit_file(tmp_path / "easy.csv", "y", C=100.0)
    metrics = found.metrics
    assert not metrics.temperature_kept
    assert found.model.temperature == 1.0
    assert metrics.ece_after != metrics.ece_before
    assert any(note.startswith("temperature: ") for note in found.notes)


def test_a_temperature_must_prove_itself_on_rows_it_has_not_seen(tmp_path: Path) -> None:
    """On a few dozen rows a temperature is mostly noise: refusing some must be better than using them all."""
    fresh = table_of(2000, seed=999)
    refused, gains, gains_of_all = 0, [], []
    for seed in range(40):
        pa_csv.write_csv(table_of(200, seed=100 + seed), tmp_path / "small.csv")
        found = fit_file(tmp_path / "small.csv", "y", C=100.0)
        targets, _ = found.model.plan.encode(fresh)
        assert found.metrics.temperature is not None
        losses = {}
        for temperature in (1.0, found.metrics.temperature):
            p = dataclasses.replace(found.model, temperature=temperature).predict_proba(fresh)
            losses[temperature] = -np.log(p[np.arange(2000), targets]).mean()
        gains.append(losses[1.0] - losses[found.model.temperature])
        gains_of_all.append(losses[1.0] - losses[found.metrics.temperature])
        refused += not found.metrics.temperature_kept
    assert 0 < refused < 40
    assert np.mean(gains) > np.mean(gains_of_all)


def test_a_class_without_weight_gets_no_temperature(file: Path) -> None:
    found = fit_file(file, "y", loss="cross_entropy(class_weight=[0,1,1])")
    assert found.metrics.temperature is None
    assert found.content.reliability_after is None
    assert any("no temperature was fitted" in note for note in found.notes)
    assert (found.model.predict_proba(table_of(20))[:, 0] == 0).all()


def test_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2))
    held = (x @ np.array([[2.0, -1], [0, 2]]) + rng.logistic(size=(600, 2))) > [0, 2]
    table = pa.table({"u": x[:, 0], "v": x[:, 1], "a": held[:, 0].astype(int), "b": held[:, 1].astype(int)})
    pa_csv.write_csv(table, tmp_path / "labels.csv")
    found = fit_file(tmp_path / "labels.csv", "a,b", out=tmp_path / "m")
    metrics = found.metrics
    assert metrics.uniform_loss == math.log(2)
    assert metrics.loss < metrics.prior_entropy < math.log(2)
    assert metrics.majority_accuracy is not None
    assert metrics.exact_match is not None
    assert metrics.exact_match <= metrics.accuracy
    assert metrics.accuracy > metrics.majority_accuracy
    assert found.content.curve is not None
    assert found.content.curve.loss[0] == pytest.approx(math.log(2), rel=1e-6)
    loaded = load_model(tmp_path / "m")
    decided = loaded.predictions(table).decisions
    assert loaded.predict(table) == [tuple(np.array(["a", "b"])[row > 0]) for row in decided]
    np.testing.assert_array_equal(decided, loaded.predict_proba(table) > 0.5)
    # The temperature divides the log-odds.
    p = dataclasses.replace(loaded, temperature=1.0).predict_proba(table)
    halved = dataclasses.replace(loaded, temperature=2.0).predict_proba(table)
    np.testing.assert_allclose(np.log(halved / (1 - halved)), np.log(p / (1 - p)) / 2, rtol=1e-9)


def test_positive_weights_are_recovered(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=20000)
    held = np.stack([x + rng.logistic(size=20000) > 1.5, x + rng.logistic(size=20000) < 0], axis=1)
    table = pa.table({"x": x, "a": held[:, 0].astype(int), "b": held[:, 1].astype(int)})
    pa_csv.write_csv(table, tmp_path / "labels.csv")
    plain = fit_file(tmp_path / "labels.csv", "a,b")
    loss = "binary_cross_entropy(positive_weight=[5,1], label_reduction='sum')"
    weighted = fit_file(tmp_path / "labels.csv", "a,b", loss=loss)
    np.testing.assert_allclose(weighted.model.predict_proba(table), plain.model.predict_proba(table), atol=0.03)
    assert (
        weighted.model.predictions(table).decisions[:, 0].mean()
        > plain.model.predictions(table).decisions[:, 0].mean() + 0.1
    )


def test_text_columns_go_through_sparse_features(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = {"cat": "purr meow whiskers milk", "dog": "bark woof bone fetch"}
    common = ["the", "a", "pet", "animal", "house", "garden", "often", "always"]
    rows = []
    for _ in range(200):
        kind = str(rng.choice(list(words)))
        text = rng.choice([*words[kind].split(), *common], size=9)
        rows.append({"story": " ".join(text), "kind": kind})
    pa_csv.write_csv(pa.Table.from_pylist(rows), tmp_path / "stories.csv")
    found = fit_file(tmp_path / "stories.csv", "kind", out=tmp_path / "m")
    assert found.model.encoder.sparse
    assert found.metrics.accuracy > 0.9
    loaded = load_model(tmp_path / "m")
    assert loaded.predict({"story": ["meow purr milk", "woof bark bone"]}).tolist() == ["cat", "dog"]


def test_no_penalty_is_possible_and_stored(file: Path, tmp_path: Path) -> None:
    fit_file(file, "y", C=math.inf, out=tmp_path / "m")
    assert json.loads((tmp_path / "m" / "model.json").read_text())["settings"]["C"] == "inf"


def test_the_report_is_filled(result: FitResult) -> None:
    content = result.content
    assert content.data.rows == 400
    assert [name for name, _ in content.data.splits] == ["train", "calibration", "test"]
    assert sum(count for _, count in content.data.splits) == 400
    assert [(column.name, column.kind) for column in content.data.columns] == [
        ("x0", "numeric"),
        ("x1", "numeric"),
        ("x2", "numeric"),
        ("y", "target"),
    ]
    assert content.curve is not None
    assert content.curve.loss[0] == pytest.approx(math.log(3), rel=1e-6)
    assert content.untrained_account is not None
    assert content.trained_account is not None
    np.testing.assert_allclose(np.diag(content.untrained_account.push), 2 / 3, rtol=1e-12)
    assert (np.diag(content.trained_account.push) < 2 / 3).all()
    np.testing.assert_allclose(content.trained_account.overall, 0, atol=1e-3)
    assert content.confusion is not None
    assert content.confusion.sum() == dict(content.data.splits)["test"]
    table = table_of()
    for hard in content.hardest:
        assert hard.true == (table.column("y")[hard.row - 1].as_py(),)
        assert dict(hard.values)["x0"] == f"{table.column('x0')[hard.row - 1].as_py():g}"
        assert hard.loss == pytest.approx(-math.log(hard.probability))


def test_rows_without_target_keep_the_numbering(tmp_path: Path) -> None:
    table = table_of()
    y = [None if i % 3 == 0 else value for i, value in enumerate(table.column("y").to_pylist())]
    pa_csv.write_csv(table.set_column(3, "y", pa.array(y)), tmp_path / "holes.csv")
    found = fit_file(tmp_path / "holes.csv", "y")
    assert found.content.data.dropped == (("no target", 134),)
    for hard in found.content.hardest:
        assert hard.true == (y[hard.row - 1],)


def test_a_listener_hears_notes_and_stages(file: Path) -> None:
    heard: dict[str, list[Any]] = {"note": [], "stage": [], "advance": [], "remark": []}

    class Ear(Listener):
        def note(self, sentence: str) -> None:
            heard["note"].append(sentence)

        def stage(self, name: str, unit: str = "") -> None:
            heard["stage"].append(name)

        def advance(self, done: int, share: float | None = None, remark: str = "") -> None:
            heard["advance"].append((done, share))
            heard["remark"].append(remark)

    found = fit_file(file, "y", C=1.0, listener=Ear())
    assert tuple(heard["note"]) == found.notes
    assert heard["stage"] == ["Reading", "Encoding", "Training with C = 1", "Calibrating", "Testing", "Reporting"]
    iterations, shares = zip(*heard["advance"], strict=True)
    assert iterations == tuple(range(len(iterations)))
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert list(shares) == sorted(shares)
    assert all(re.fullmatch(r"gap \de[+-]\d\d", remark) for remark in heard["remark"] if remark)
    assert float(heard["remark"][-1].removeprefix("gap ")) <= 1e-4


@pytest.mark.parametrize("loss", ["smoothed_zero_one", "cross_entropy(class_weight=[1,2])"])
def test_a_loss_that_cannot_work_is_refused_before_the_training(
    file: Path, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kullback.SoftmaxClassifier.fit", None)
    with pytest.raises(InputError, match=r"no probabilities|class_weight has 2 entries"):
        fit_file(file, "y", loss=loss)


@pytest.mark.parametrize("test_size", [0, 1, -0.1, math.nan])
def test_a_test_size_that_is_no_share(file: Path, test_size: float) -> None:
    with pytest.raises(InputError, match="test_size"):
        fit_file(file, "y", test_size=test_size)


# ------------------------------------------------------------ a model and other data


def test_everything_that_holds_columns_can_be_predicted(result: FitResult, file: Path) -> None:
    import pandas as pd

    table = table_of(400)
    expected = result.model.predict_proba(table)
    frame = pd.DataFrame(table.to_pydict())
    for data in (frame, table.to_pydict(), {name: table.column(name).to_numpy() for name in ("x0", "x1", "x2")}):
        np.testing.assert_array_equal(result.model.predict_proba(data), expected)
    np.testing.assert_allclose(result.model.predict_proba(str(file)), expected, rtol=1e-9)
    with pytest.raises(InputError, match="cannot read columns from a int"):
        result.model.predict(3)


def test_blocks_do_not_change_the_result(result: FitResult, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = result.model.predict_proba(table_of(100))
    monkeypatch.setattr("kullback.pipeline.model._BLOCK_ELEMENTS", 21)
    np.testing.assert_allclose(result.model.predict_proba(table_of(100)), expected, rtol=1e-12)


def test_batches_do_not_change_an_evaluation(result: FitResult, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = dataclasses.replace(result.model, temperature=1.3)
    whole = evaluate_file(model, file)
    monkeypatch.setattr("kullback.pipeline.predict._LARGEST_BATCH", 7)
    parts = evaluate_file(model, file)
    assert parts.rows == whole.rows == 400
    assert [hard.row for hard in parts.hardest] == [hard.row for hard in whole.hardest]
    for name in ("loss", "accuracy", "macro_f1", "ece_before", "ece_after"):
        assert getattr(parts.metrics, name) == pytest.approx(getattr(whole.metrics, name), rel=1e-9), name


def test_a_model_without_rows_to_predict(result: FitResult) -> None:
    assert result.model.predict_proba(table_of(0)).shape == (0, 3)


# ------------------------------------------------------------ a directory that fits no model


def rebuilt(result: FitResult, folder: Path, change: Any) -> Path:
    """Write the model again with a change and right checksums, as a faulty writer would."""
    assert result.directory is not None
    stored = read_model(result.directory)
    arrays = {name: dict(each) for name, each in stored.arrays.items()}
    document = dict(stored.document)
    change(document, arrays)
    write_model(folder / "changed", StoredModel(document, arrays))
    return folder / "changed"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, a: d.pop("loss"), "lack 'loss'"),
        (lambda d, a: d.pop("target"), "lack 'target'"),
        (lambda d, a: d.pop("features"), "lack 'features'"),
        (lambda d, a: a.pop("weights"), "lack 'weights'"),
        (lambda d, a: a.pop("encoder"), "lack 'encoder'"),
        (lambda d, a: a["weights"].pop("intercept"), "lack 'intercept'"),
        (lambda d, a: d.update(loss="__import__('os').system('false')"), "unknown loss"),
        (lambda d, a: d.update(loss=3), "cannot be used"),
        (lambda d, a: d.update(loss="binary_cross_entropy"), "does not go with a target of classes"),
        (lambda d, a: d.update(temperature=0.0), "temperature 0.0"),
        (lambda d, a: d.update(temperature=True), "temperature True"),
        (lambda d, a: d.update(temperature=None), "temperature None"),
        (lambda d, a: d.update(priors=[0.5, 0.5]), r"priors have shape \(2,\)"),
        (lambda d, a: d.update(priors="abc"), "cannot be used"),
        (lambda d, a: d["target"].update(kind="labels"), r"model\.json.*kind 'labels'"),
        (lambda d, a: d.update(target=[]), r"model\.json.*target's description"),
        (lambda d, a: d.update(features=None), r"model\.json.*feature description"),
        (lambda d, a: d["target"]["classes"].append("violet"), r"expected \(4, 3\)"),
        (
            lambda d, a: a["weights"].update(coefficients=np.zeros((3, 9))),
            r"coefficients have shape \(3, 9\).*expected \(3, 3\)",
        ),
        (
            lambda d, a: a["weights"].update(coefficients=a["weights"]["coefficients"].astype(np.float32)),
            "float32",
        ),
    ],
)
def test_a_directory_that_fits_no_model(result: FitResult, tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(rebuilt(result, tmp_path, change))


def test_unchanged_it_does_fit(result: FitResult, tmp_path: Path) -> None:
    loaded = load_model(rebuilt(result, tmp_path, lambda d, a: None))
    assert isinstance(loaded, Model)
    np.testing.assert_array_equal(loaded.coefficients, result.model.coefficients)
