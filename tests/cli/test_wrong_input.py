"""Wrong input: exit code 2, one screen that names the culprit, and nothing half-written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .conftest import ants, refused, run, to_csv

Write = Callable[[str, str | bytes], Path]


def rows_with(**changes: Callable[[int, dict[str, Any]], Any]) -> str:
    rows = ants()
    for index, row in enumerate(rows):
        for name, change in changes.items():
            row[name] = change(index, row)
    return to_csv(rows)


GOOD = to_csv(ants())

BAD_FILES: dict[str, tuple[str | bytes, list[str]]] = {
    "empty file": ("", ["bad.csv", "empty"]),
    "header only": ("size,age,colour,caste\n", ["bad.csv", "row"]),
    "one class only": (rows_with(caste=lambda i, row: "worker"), ["caste", "one class only", "worker"]),
    "all targets missing": (rows_with(caste=lambda i, row: ""), ["caste", "missing"]),
    "duplicate column": (GOOD.replace("age", "size", 1), ["bad.csv", "'size'"]),
    "ragged row": (GOOD.replace("\n", "\n1.0,2.0\n", 2).replace("\n1.0,2.0\n", "\n", 1), ["line 3", "2", "4"]),
    "not UTF-8": (GOOD.encode().replace(b"red", b"r\xe9d", 1), ["bad.csv", "line", "UTF-8"]),
    "infinite number": (
        rows_with(size=lambda i, row: "inf" if i == 4 else row["size"]),
        ["row 5", "'size'", "infinite"],
    ),
    "only the target": ("caste\n" + "worker\nqueen\n" * 30, ["no column is left"]),
    "regression target": (
        rows_with(caste=lambda i, row: f"{i * 1.37:.3f}"),
        ["caste", "regression"],
    ),
    "all columns missing": (
        rows_with(size=lambda i, row: "", age=lambda i, row: "", colour=lambda i, row: ""),
        ["no column is left"],
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file_is_refused(case: str, write: Write, here: Path) -> None:
    contents, named = BAD_FILES[case]
    write("bad.csv", contents)
    message = refused("fit", "bad.csv", "--target", "caste")
    for word in named:
        assert word in message, message
    assert os.listdir(here) == ["bad.csv"]


def test_no_such_file(here: Path) -> None:
    assert "absent.csv" in refused("fit", "absent.csv", "--target", "caste")
    assert os.listdir(here) == []


def test_unknown_suffix(write: Write) -> None:
    write("data.xlsx", b"PK")
    message = refused("fit", "data.xlsx", "--target", "caste")
    assert ".xlsx" in message
    assert ".parquet" in message


def test_corrupt_parquet(write: Write) -> None:
    write("data.parquet", b"PAR1 nothing more")
    assert "data.parquet" in refused("fit", "data.parquet", "--target", "caste")


def test_unknown_target_names_the_closest(data: Path) -> None:
    message = refused("fit", data, "--target", "cast")
    assert "'cast'" in message
    assert "did you mean 'caste'" in message


def test_unknown_column_to_drop(data: Path) -> None:
    assert "did you mean 'colour'" in refused("fit", data, "--target", "caste", "--drop", "color")


def test_some_targets_missing_are_left_out_counted_and_said(write: Write) -> None:
    write("some.csv", rows_with(caste=lambda i, row: "" if i % 10 == 0 else row["caste"]))
    ran = run("fit", "some.csv", "--target", "caste", "--json")
    assert ran.code == 0
    assert "12 of 120 rows" in ran.err
    assert sum(ran.json["data"]["splits"].values()) == 108


def test_a_column_that_is_all_missing_is_left_out_and_said(write: Write) -> None:
    write("hole.csv", rows_with(age=lambda i, row: ""))
    ran = run("fit", "hole.csv", "--target", "caste", "--json")
    assert ran.code == 0
    assert "'age' is left out" in ran.err


def test_a_class_with_one_row_is_said(write: Write) -> None:
    write("rare.csv", rows_with(caste=lambda i, row: "drone" if i == 7 else row["caste"]))
    ran = run("fit", "rare.csv", "--target", "caste", "--json")
    assert ran.code == 0
    assert "drone" in ran.json["classes"]
    assert "'drone' has a single row" in ran.err


@pytest.mark.parametrize(
    ("option", "named"),
    [
        (["--loss", "cross_entrpy"], "did you mean 'cross_entropy'"),
        (["--loss", "cross_entropy(label_smoothing=2)"], "label_smoothing=2"),
        (["--loss", "binary_cross_entropy"], "one class a row"),
        (["--loss", "cross_entropy(class_weight=[1,2])"], "class_weight has 2 entries"),
        (["--test-size", "1"], "test_size is 1"),
        (["--test-size", "0"], "test_size is 0"),
        (["--test-size", "0.999"], "too few"),
        (["--C", "0"], "C=0"),
        (["--C", "nan"], "C=nan"),
        (["--delimiter", "|", "--target", "size"], "'|'"),
        (["--loss", "cross_entropy(class_weight=[1,2,3])", "--class-weight", "balanced"], "weight"),
    ],
)
def test_bad_option_is_refused(data: Path, here: Path, option: list[str], named: str) -> None:
    target = [] if "--target" in option else ["--target", "caste"]
    assert named in refused("fit", data, *target, *option)
    assert os.listdir(here) == ["ants.csv"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit"],
        ["fit", "ants.csv"],
        ["fit", "ants.csv", "--target", "caste", "--class-weight", "heavy"],
        ["fit", "ants.csv", "--target", "caste", "--seed", "-1"],
        ["fit", "ants.csv", "--target", "caste", "--max-iter", "0"],
        ["fit", "ants.csv", "--target", "caste", "--frobnicate"],
        ["predict", "model"],
        ["frobnicate"],
    ],
)
def test_wrong_usage(arguments: list[str], data: Path) -> None:
    ran = run(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert "Usage: kullback" in ran.err
    assert "Traceback" not in ran.err


# ------------------------------------------------------------ output


def test_existing_output_is_kept(data: Path, here: Path) -> None:
    (here / "out").mkdir()
    (here / "out" / "thesis.tex").write_text("mine")
    assert "out already exists" in refused("fit", data, "--target", "caste", "--out", "out")
    assert "not a Kullback model" in refused("fit", data, "--target", "caste", "--out", "out", "--overwrite")
    assert (here / "out" / "thesis.tex").read_text() == "mine"
    (here / "file").write_text("mine")
    assert "not a directory" in refused("fit", data, "--target", "caste", "--out", "file", "--overwrite")
    assert sorted(os.listdir(here)) == ["ants.csv", "file", "out"]


def test_existing_model_is_refused_before_any_work(model: Path) -> None:
    # The data file does not even exist: the destination is looked at first.
    assert "--overwrite" in refused("fit", "absent.csv", "--target", "caste", "--out", model)


@pytest.mark.parametrize("out", ["/proc/model", "ants.csv/model"])
def test_unwritable_output(data: Path, here: Path, out: str) -> None:
    assert f"cannot write {os.path.realpath(out)}" in refused("fit", data, "--target", "caste", "--out", out)
    assert os.listdir(here) == ["ants.csv"]


@pytest.mark.parametrize(
    ("out", "named"),
    [
        ("p.xlsx", ".csv, .parquet"),
        ("absent/p.csv", "cannot write"),
        ("/proc/p.csv", "cannot write"),
        ("ants.csv", "is the data file itself"),
        ("directory.csv", "is a directory"),
    ],
)
def test_bad_prediction_file(model: Path, data: Path, here: Path, out: str, named: str) -> None:
    (here / "directory.csv").mkdir()
    assert named in refused("predict", model, data, "--out", out)
    assert sorted(os.listdir(here)) == ["ants.csv", "directory.csv", "model"]
    assert data.read_text() == GOOD


# ------------------------------------------------------------ predicting


def test_missing_column(model: Path, write: Write) -> None:
    write("new.csv", "size,caste\n1.0,worker\n")
    for command in ("predict", "evaluate"):
        message = refused(command, model, "new.csv")
        assert "'age'" in message
        assert "'colour'" in message


def test_another_type_names_row_column_and_value(model: Path, write: Write, here: Path) -> None:
    write("new.csv", "size,age,colour\n1.0,2.0,red\nbig,2.0,red\n")
    message = refused("predict", model, "new.csv", "--out", "p.csv")
    for word in ("new.csv", "row 2", "'size'", "'big'"):
        assert word in message
    assert sorted(os.listdir(here)) == ["model", "new.csv"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_fault_far_down_the_file_leaves_nothing(model: Path, here: Path, suffix: str) -> None:
    rows = [{**row, "size": row["size"]} for row in ants(3)]
    lines = to_csv(rows).splitlines()
    many = [lines[0], *(lines[1:] * 30000), "far too big,1.0,red,worker"]
    Path("long.csv").write_text("\n".join(many) + "\n")
    message = refused("predict", model, "long.csv", "--out", f"p.{suffix}")
    assert "row 90001" in message
    assert sorted(os.listdir(here)) == ["long.csv", "model"]


def test_extra_columns_and_unseen_categories_are_said(model: Path, write: Write) -> None:
    write("new.csv", "extra,colour,size,age\n1,green,1.0,2.0\n2,red,1.0,2.0\n")
    ran = run("predict", model, "new.csv")
    assert ran.code == 0
    assert "'extra'" in ran.err
    assert "column 'colour': 1 of 2 values" in ran.err
    assert len(ran.out.splitlines()) == 3


def test_missing_values_at_predicting_are_fine(model: Path, write: Write) -> None:
    write("new.csv", "colour,size,age\n,,\n")
    ran = run("predict", model, "new.csv")
    assert ran.code == 0
    assert len(ran.out.splitlines()) == 2


def test_column_order_and_file_type_do_not_matter(model: Path, data: Path) -> None:
    rows = ants()
    names = ["caste", "colour", "age", "size"]
    numbers = {"age": float, "size": float}
    columns = {n: [numbers.get(n, lambda v: v or None)(row[n]) for row in rows] for n in names}
    pq.write_table(pa.table(columns), "ants.parquet")
    assert run("predict", model, "ants.parquet", "-q").out == run("predict", model, data, "-q").out


def test_evaluating_without_the_target(model: Path, write: Write) -> None:
    write("new.csv", "size,age,colour\n1.0,2.0,red\n")
    message = refused("evaluate", model, "new.csv")
    assert "'caste'" in message


def test_evaluating_unknown_classes(model: Path, write: Write) -> None:
    write("new.csv", rows_with(caste=lambda i, row: "wasp" if i < 3 else "" if i < 5 else row["caste"]))
    ran = run("evaluate", model, "new.csv", "--json")
    assert ran.code == 0
    assert "3 rows hold a class that the model never saw ('wasp' 3×)" in ran.err
    assert (ran.json["rows"], ran.json["left_out"]) == (115, 5)
    write("none.csv", rows_with(caste=lambda i, row: "wasp"))
    message = refused("evaluate", model, "none.csv")
    assert "nothing to test" in message
    assert "'soldier'" in message


# ------------------------------------------------------------ damaged models


def edit(model: Path) -> None:
    document = json.loads((model / "model.json").read_text())
    document["temperature"] = 0.5
    (model / "model.json").write_text(json.dumps(document))


def make_newer(model: Path) -> None:
    document = json.loads((model / "model.json").read_text())
    document["schema_version"] = 99
    (model / "model.json").write_text(json.dumps(document))


def truncate(name: str) -> Callable[[Path], None]:
    def damage(model: Path) -> None:
        contents = (model / name).read_bytes()
        (model / name).write_bytes(contents[: len(contents) // 2])

    return damage


DAMAGES: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "edited": (edit, ["model.json", "edited"]),
    "newer": (make_newer, ["model.json", "99", "Upgrade"]),
    "document cut": (truncate("model.json"), ["model.json", "truncated"]),
    "weights cut": (truncate("weights.safetensors"), ["weights.safetensors", "truncated"]),
    "weights gone": (lambda m: (m / "weights.safetensors").unlink(), ["weights.safetensors"]),
    "document gone": (lambda m: (m / "model.json").unlink(), ["model.json"]),
    "encoder gone": (lambda m: (m / "encoder.safetensors").unlink(), ["encoder.safetensors"]),
}


@pytest.mark.parametrize("command", ["predict", "evaluate", "show"])
@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_model(model: Path, data: Path, command: str, case: str) -> None:
    damage, named = DAMAGES[case]
    damage(model)
    message = refused(command, model, *([] if command == "show" else [data]))
    for word in named:
        assert word in message, message


def test_what_is_no_model(data: Path) -> None:
    assert "absent does not exist" in refused("show", "absent")
    assert "is a file" in refused("show", data)
    assert "no model.json" in refused("show", ".")
