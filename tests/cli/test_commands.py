"""The commands doing their job: what they print, what they write, and that every option changes something."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import kullback

from .conftest import ants, run, to_csv

Write = Callable[[str, str | bytes], Path]


def fit(*arguments: str | Path) -> Any:
    """Fit the ants and give back the JSON document."""
    ran = run("fit", "ants.csv", "--target", "caste", "--json", "--overwrite", *arguments)
    assert ran.code == 0, ran
    return ran.json


def films(rows: int = 200) -> str:
    rng = np.random.default_rng(1)
    lines = ["length,mood,genres"]
    for _ in range(rows):
        dark = rng.random() < 0.5
        genres = [g for g, p in (("Drama", 0.6), ("War", 0.5 * dark), ("Comedy", 0.7 * (not dark))) if rng.random() < p]
        lines.append(f"{rng.normal(100 + 20 * dark, 10):.1f},{'dark' if dark else 'light'},{'|'.join(genres)}")
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------ fit


def test_fit_says_everything(data: Path, here: Path) -> None:
    ran = run("fit", data, "--target", "caste")
    assert ran.code == 0
    for word in ("loss (nats)", "log 3", "accuracy", "macro-F1", "calibration error", "Temperature", "ants-model"):
        assert word in ran.out
    assert "3 classes (queen, soldier, worker)" in ran.err
    assert sorted(entry.name for entry in (here / "ants-model").iterdir()) == [
        "encoder.safetensors",
        "model.json",
        "report.html",
        "weights.safetensors",
    ]
    assert (here / "ants-model" / "report.html").read_text().startswith("<!doctype html>")


def test_fit_json_is_one_document_and_agrees_with_the_model(data: Path) -> None:
    record = fit()
    assert record["model"] == "ants-model"
    assert record["report"] == "ants-model/report.html"
    assert record["classes"] == ["queen", "soldier", "worker"]
    metrics = record["metrics"]
    assert metrics["loss"] < metrics["prior_entropy"] < metrics["uniform_loss"] == pytest.approx(np.log(3))
    assert metrics["accuracy"] > metrics["majority_accuracy"]
    stored = json.loads(Path("ants-model/model.json").read_text())
    assert stored["test_metrics"] == metrics
    assert stored["loss"] == "cross_entropy"
    assert stored["data"]["splits"] == {"train": 82, "calibration": 14, "test": 24}
    assert sum(stored["priors"]) == pytest.approx(1)
    assert stored["versions"]["numpy"] == np.__version__


def test_the_same_command_gives_the_same_model(data: Path) -> None:
    first, second = fit("--out", "a"), fit("--out", "b")
    assert first["metrics"] == second["metrics"]
    assert Path("a/weights.safetensors").read_bytes() == Path("b/weights.safetensors").read_bytes()


def test_the_default_directory_is_named_after_the_file(data: Path) -> None:
    import gzip

    Path("more.ants.csv.gz").write_bytes(gzip.compress(data.read_bytes()))
    assert run("fit", "more.ants.csv.gz", "--target", "caste", "-q").code == 0
    assert Path("more.ants-model/model.json").exists()


def test_every_option_of_fit_changes_the_fit(data: Path) -> None:
    plain = fit()
    assert fit("--out", "elsewhere")["model"] == "elsewhere"
    assert fit("--seed", "1")["metrics"] != plain["metrics"]
    assert fit("--test-size", "0.5")["data"]["splits"]["test"] == 60
    assert fit("--C", "0.001")["metrics"]["loss"] > plain["metrics"]["loss"]
    assert fit("--loss", "cross_entropy(label_smoothing=0.1)")["loss"] == "cross_entropy(label_smoothing=0.1)"
    assert fit("--class-weight", "balanced")["loss"].startswith("cross_entropy(class_weight=[")
    dropped = fit("--drop", "size", "--drop", "age")
    assert dropped["metrics"]["accuracy"] < plain["metrics"]["accuracy"]
    short = fit("--max-iter", "1")
    assert not short["training"]["converged"]
    assert any("did not converge" in note and "max_iter" in note for note in short["notes"])


def test_delimiter_decides_the_form(write: Write) -> None:
    write("films.csv", films())
    found = run("fit", "films.csv", "--target", "genres", "--json", "--out", "m")
    assert found.json["kind"] == "labels"
    assert found.json["classes"] == ["Comedy", "Drama", "War"]
    single = run("fit", "films.csv", "--target", "genres", "--json", "--out", "m", "--overwrite", "--delimiter", "")
    assert single.json["kind"] == "classes"
    assert "Drama|Comedy" in single.json["classes"]


def test_quiet_says_nothing_about_the_data(data: Path) -> None:
    ran = run("fit", data, "--target", "caste", "--quiet")
    assert ran.err == ""
    assert "accuracy" in ran.out


def test_report_holds_the_command_and_escapes_what_the_data_says(write: Write) -> None:
    rows = [
        {**row, "caste": "<script>alert(1)</script>" if row["caste"] == "queen" else row["caste"]} for row in ants()
    ]
    write("evil.csv", to_csv(rows))
    ran = run("fit", "evil.csv", "--target", "caste")
    assert ran.code == 0
    page = Path("evil-model/report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_names_that_steer_a_terminal_are_printed_escaped(write: Write) -> None:
    rows = [{**row, "caste": "\x1b[31mred" if row["caste"] == "queen" else row["caste"]} for row in ants()]
    write("evil.csv", to_csv(rows))
    ran = run("fit", "evil.csv", "--target", "caste")
    assert ran.code == 0
    shown = run("show", "evil-model")
    for text in (ran.err, ran.out, shown.out):
        assert "\x1b[31m" not in text
    assert "\\x1b[31mred" in shown.out


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        (["1", "2", "10"], [1, 2, 10]),
        (["true", "false", "true"], [False, True]),
        (["a b", '"x,y"', "ä"], ["a b", "x,y", "ä"]),
    ],
)
def test_label_types_survive(write: Write, labels: list[str], kept: list[Any]) -> None:
    castes = ["queen", "soldier", "worker"]
    write("t.csv", to_csv([{**row, "caste": labels[castes.index(row["caste"])]} for row in ants()]))
    ran = run("fit", "t.csv", "--target", "caste", "--json")
    assert ran.json["classes"] == kept
    assert kullback.load_model("t-model").classes == tuple(kept)
    assert run("predict", "t-model", "t.csv", "--out", "p.parquet").code == 0
    predicted = pq.read_table("p.parquet").column("prediction").to_pylist()
    assert set(predicted) <= set(kept)
    assert {type(value) for value in predicted} == {type(kept[0])}


# ------------------------------------------------------------ predict


def test_predict_writes_the_same_to_every_place(model: Path, data: Path) -> None:
    printed = run("predict", model, data)
    assert printed.code == 0
    written = run("predict", model, data, "--out", "p.csv")
    assert written.out == "120 rows predicted: p.csv\n"
    assert Path("p.csv").read_text() == printed.out
    assert run("predict", model, data, "--out", "p.parquet", "--quiet").out == ""
    table = pq.read_table("p.parquet")
    rows = list(csv.DictReader(io.StringIO(printed.out)))
    assert table.column_names == list(rows[0])
    assert table.column("prediction").to_pylist() == [row["prediction"] for row in rows]
    document = run("predict", model, data, "--json").json
    assert document["columns"] == table.column_names
    assert document["rows"] == 120
    assert document["predictions"] == [list(row.values()) for row in table.to_pylist()]
    for name in table.column_names[1:]:
        assert [float(row[name]) for row in rows] == table.column(name).to_pylist()


def test_predict_json_with_a_file_is_a_summary(model: Path, data: Path) -> None:
    record = run("predict", model, data, "--out", "p.csv", "--json").json
    assert record["out"] == "p.csv"
    assert record["rows"] == 120
    assert record["columns"][0] == "prediction"
    assert record["decisions_moved"] == 0


def test_predictions_agree_with_the_python_api_and_keep_the_order(model: Path, data: Path) -> None:
    loaded = kullback.load_model(model)
    run("predict", model, data, "--out", "p.parquet")
    table = pq.read_table("p.parquet")
    assert table.column("prediction").to_pylist() == list(loaded.predict(data))
    stacked = np.column_stack([table.column(f"probability_{name}") for name in loaded.classes])
    np.testing.assert_allclose(stacked, loaded.predict_proba(data), rtol=1e-12)
    np.testing.assert_allclose(stacked.sum(axis=1), 1, rtol=1e-12)
    lines = data.read_text().splitlines()
    Path("reversed.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    run("predict", model, "reversed.csv", "--out", "r.parquet")
    assert pq.read_table("r.parquet").column("prediction").to_pylist() == table.column("prediction").to_pylist()[::-1]


def test_an_existing_prediction_file_is_replaced(model: Path, data: Path) -> None:
    Path("p.csv").write_text("old")
    assert run("predict", model, data, "--out", "p.csv").code == 0
    assert Path("p.csv").read_text().startswith("prediction,")


def test_weights_move_decisions_and_predict_says_so(data: Path) -> None:
    record = fit("--loss", "cross_entropy(class_weight=[30,1,1])", "--out", "w")
    assert record["metrics"]["decisions_moved"] > 0
    ran = run("predict", "w", data, "--json")
    moved = sum(
        row[0] != ran.json["columns"][1:][int(np.argmax(row[1:]))].removeprefix("probability_")
        for row in ran.json["predictions"]
    )
    assert moved > 0
    assert f"{moved} rows differ from what is most probable" in ran.err
    # The probabilities are those of the data as it is: near the plain model's, not near the weighted ones.
    plain = fit("--out", "plain")
    assert record["metrics"]["loss"] < plain["metrics"]["loss"] + 0.1


def test_labels_are_joined_by_their_delimiter(write: Write) -> None:
    write("films.csv", films())
    assert run("fit", "films.csv", "--target", "genres", "--out", "m", "-q").code == 0
    rows = list(csv.DictReader(io.StringIO(run("predict", "m", "films.csv").out)))
    names = ["Comedy", "Drama", "War"]
    assert list(rows[0]) == ["prediction", *(f"probability_{name}" for name in names)]
    for row in rows:
        held = [name for name in names if float(row[f"probability_{name}"]) > 0.5]
        assert row["prediction"] == "|".join(held)


def test_label_columns_get_a_column_each(write: Write) -> None:
    rng = np.random.default_rng(0)
    lines = ["x,a,b"]
    for x in rng.normal(size=100):
        lines.append(f"{x:.3f},{int(x + rng.normal() > 0)},{int(x - rng.normal() > 1)}")
    write("t.csv", "\n".join(lines) + "\n")
    ran = run("fit", "t.csv", "--target", "a,b", "--out", "m")
    for word in ("label shares alone", "rows wholly right", "micro-F1", "log 2"):
        assert word in ran.out
    rows = list(csv.DictReader(io.StringIO(run("predict", "m", "t.csv").out)))
    assert list(rows[0]) == ["prediction_a", "prediction_b", "probability_a", "probability_b"]
    assert all(int(row["prediction_a"]) == (float(row["probability_a"]) > 0.5) for row in rows)


# ------------------------------------------------------------ evaluate, show, losses


def test_evaluate_prints_the_table_and_json(model: Path, data: Path) -> None:
    shown = run("evaluate", model, data)
    assert shown.code == 0
    assert "120 rows of ants.csv" in shown.out
    record = run("evaluate", model, data, "--json").json
    assert record["rows"] == 120
    assert f"{record['metrics']['accuracy']:.4f}" in shown.out
    loaded = kullback.load_model(model)
    truth = [row["caste"] for row in ants()]
    assert record["metrics"]["accuracy"] == np.mean(loaded.predict(data) == np.array(truth, dtype=object))
    first = record["hardest"][0]
    assert first["true"] == [truth[first["row"] - 1]]
    p = loaded.predict_proba(data)[np.arange(120), [loaded.classes.index(caste) for caste in truth]]
    assert record["metrics"]["loss"] == pytest.approx(-np.log(p).mean(), rel=1e-9)
    assert first["row"] - 1 == np.argmin(p)
    assert first["loss"] == pytest.approx(-np.log(p.min()), rel=1e-9)


def test_evaluate_on_the_test_rows_gives_the_test_figures(data: Path) -> None:
    record = fit("--out", "m")
    from kullback.data import plan_target, read_table, split_rows

    table = read_table(data)
    targets, _ = plan_target(table, "caste").encode(table)
    shares = {"train": 0.68, "calibration": 0.12, "test": 0.2}
    rows = split_rows(targets, "classes", fractions=shares, seed=0).test
    lines = data.read_text().splitlines()
    Path("test.csv").write_text("\n".join([lines[0], *(lines[1 + row] for row in rows)]) + "\n")
    found = run("evaluate", "m", "test.csv", "--json").json["metrics"]
    for name in ("loss", "accuracy", "macro_f1", "prior_entropy"):
        assert found[name] == pytest.approx(record["metrics"][name], rel=1e-9)


def test_show_says_what_a_model_is(model: Path) -> None:
    shown = run("show", model)
    assert shown.code == 0
    for word in ("caste, 3 classes", "cross_entropy", "true distribution", "queen", "size", "colour", "categorical"):
        assert word in shown.out
    record = run("show", model, "--json").json
    assert [entry["name"] for entry in record["classes"]] == ["queen", "soldier", "worker"]
    assert record["classes"][2]["strongest"][0]["feature"] == "size"
    assert record["temperature"] > 0


def test_a_loss_without_end_is_shown_and_is_valid_json(data: Path) -> None:
    loss = ["--loss", "cross_entropy(class_weight=[0,1,1])"]
    assert fit(*loss, "--out", "w")["metrics"]["loss"] is None
    assert " inf " in run("fit", data, "--target", "caste", *loss, "--out", "w", "--overwrite").out
    assert "Test:        loss – nats" in run("show", "w").out
    record = run("evaluate", "w", data, "--json").json
    assert record["hardest"][0]["loss"] is None
    assert record["hardest"][0]["true"] == ["queen"]


def test_losses_lists_the_catalogue() -> None:
    shown = run("losses")
    assert shown.code == 0
    records = run("losses", "--json").json
    for record in records:
        assert record["name"] in shown.out
        assert kullback.parse_loss(record["name"]).target_form == record["targets"]
    by_name = {record["name"]: record for record in records}
    assert by_name["cross_entropy"]["initial_value"]["3"] == pytest.approx(np.log(3))
    assert by_name["cross_entropy"]["reports"] == "the true p"


def test_version_and_help() -> None:
    assert run("--version").out == f"kullback {kullback.__version__}\n"
    help_ = run("--help").out
    for word in ("fit", "predict", "evaluate", "show", "losses", "Exit codes"):
        assert word in help_
    for command in ("fit", "predict", "evaluate", "show", "losses"):
        assert run(command, "--help").code == 0
