import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kullback.data import TargetPlan, plan_target, read_table
from kullback.data.origin import Origin
from kullback.errors import DataError, ModelError


def plan_of(values, **kwargs):
    return plan_target(pa.table({"y": values}), "y", **kwargs)


@pytest.mark.parametrize(
    ("values", "classes", "value_type"),
    [
        (["b", "a", "b"], ("a", "b"), "text"),
        ([10, 9, -1, 10], (-1, 9, 10), "integer"),
        ([True, False, True], (False, True), "boolean"),
        ([2.0, 1.0, 10.0, None], (1, 2, 10), "integer"),
        ([0.5, 1.5, 0.5, 1.5, 0.5] * 3, (0.5, 1.5), "number"),
        (pa.array(["b", "a", "b"]).dictionary_encode(), ("a", "b"), "text"),
        (pa.array([3, 1], pa.uint8()), (1, 3), "integer"),
        (pa.array(["b", "a"], pa.large_string()), ("a", "b"), "text"),
    ],
)
def test_one_column_of_classes(values, classes, value_type):
    plan = plan_of(values)
    assert (plan.kind, plan.form, plan.classes, plan.value_type) == ("classes", "column", classes, value_type)
    assert [type(name) for name in plan.classes] == [type(name) for name in classes]
    table = pa.table({"y": values})
    encoded, keep = plan.encode(table)
    assert encoded.dtype == np.int64
    truth = [value for value in table.column("y").to_pylist() if value is not None]
    assert list(plan.decode(encoded[keep])) == truth
    assert f"{len(classes)} classes" in plan.notes[0]


def test_missing_and_unknown_targets_are_kept_out_and_counted():
    table = pa.table({"y": ["a", None, "b", "?", "a", ""]})
    plan = plan_target(table, "y")
    assert plan.classes == ("a", "b")
    assert "3 of 6 rows (50.0 %) lack the target 'y' and are left out" in plan.notes
    encoded, keep = plan.encode(pa.table({"y": ["b", "new", None, "new", "a"]}))
    assert encoded.tolist() == [1, -1, -1, -1, 0]
    assert keep.tolist() == [True, False, False, False, True]
    assert plan.unknown(pa.table({"y": ["b", "new", None, "new", "z", "a"]})) == {"new": 2, "z": 1}


def test_nan_is_a_missing_target():
    plan = plan_of(pa.array([1.0, float("nan"), 2.0]))
    assert plan.classes == (1, 2)
    assert plan.encode(pa.table({"y": [float("nan"), 2.0]}))[1].tolist() == [False, True]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", "a", None], "one class only, 'a' \\(2 rows\\)"),
        (pa.array([None, None], pa.string()), "every target is missing"),
        (pa.nulls(3), "every target is missing"),
        ([float("nan")] * 2, "every target is missing"),
        (["?", ""], "every target is missing"),
        (list(np.linspace(0, 1, 200)), "200 different decimal numbers \\(0 to 1\\).*regression"),
        (list(range(200)), "200 different whole numbers.*regression"),
        ([f"name {i}" for i in range(200)], "names or free text"),
        (pa.array([2**64 - 1, 1], pa.uint64()), "beyond 64 bits"),
        ([1e300, 2e300], "different decimal numbers"),
        ([1.0, float("inf"), 1.0], "data row 2, column 'y': the target is infinite"),
        (pa.array([1, 2], pa.timestamp("s")), "timestamp"),
        (pa.array([[], []], pa.list_(pa.string())), "no labels at all"),
        ([["a"], ["a"]], "one label only, 'a'"),
    ],
)
def test_targets_that_are_none(values, message):
    with pytest.raises(DataError, match=message):
        plan_of(values)


def test_an_unknown_column_names_the_closest_and_the_file():
    table = Origin(source="birds.csv").attach(pa.table({"Species": [1], "island": [2]}))
    with pytest.raises(DataError, match=r"birds\.csv: there is no column 'specis'.*did you mean 'Species'\?"):
        plan_target(table, "specis")
    with pytest.raises(DataError, match=r"the columns are 'Species', 'island'"):
        plan_target(table, "weight")
    with pytest.raises(DataError, match="did you mean 'island'"):
        plan_target(table, "Species,iland")
    with pytest.raises(DataError, match="twice"):
        plan_target(table, "Species,Species")
    with pytest.raises(DataError, match="empty column"):
        plan_target(table, "Species,")


def test_a_class_with_one_row_and_near_duplicates_are_said():
    plan = plan_of(["a", "a", "a ", "A", "Cafe\u0301", "Caf\u00e9", "Caf\u00e9"])
    assert len(plan.classes) == 5
    notes = " ".join(plan.notes)
    assert "'A' and 'a' and 'a '" in notes
    assert "'Cafe\u0301' and 'Caf\u00e9'" in notes
    assert "3 classes have one row only" in notes


@pytest.mark.parametrize("form", [int, float, bool, str, {0: "no", 1: "yes"}.get, {0: "False", 1: "TRUE"}.get])
def test_several_columns_are_labels(form):
    rows = [[1, 0], [0, 0], [1, 1]]
    table = pa.table({name: [form(row[j]) for row in rows] for j, name in enumerate(["comedy", "drama"])})
    plan = plan_target(table, "comedy, drama")
    assert (plan.kind, plan.form, plan.classes, plan.source) == (
        "labels",
        "columns",
        ("comedy", "drama"),
        "comedy,drama",
    )
    encoded, keep = plan.encode(table)
    assert encoded.dtype == np.uint8
    assert encoded.tolist() == rows
    assert keep.all()
    assert plan.decode(encoded) == [("comedy",), (), ("comedy", "drama")]


def test_several_columns_with_missing_or_other_values():
    plan = plan_target(pa.table({"a": [1, None, 0], "b": [0, 1, 1]}), "a,b")
    assert any("1 of 3 rows" in note for note in plan.notes)
    assert plan.encode(pa.table({"b": [0, 1], "a": [None, 1]}))[1].tolist() == [False, True]
    with pytest.raises(DataError, match=r"data row 2, column 'a': 2\.0 is neither 0 nor 1"):
        plan_target(pa.table({"a": [1, 2], "b": [0, 1]}), "a,b")
    with pytest.raises(DataError, match="data row 1, column 'b': 'x' is neither 0 nor 1"):
        plan_target(pa.table({"a": [1, 0], "b": ["x", "1"]}), "a,b")
    with pytest.raises(DataError, match="one value only"):
        plan_target(pa.table({"a": [1, 1], "b": [0, 0]}), "a,b")
    notes = plan_target(pa.table({"a": [1, 1], "b": [0, 1]}), "a,b").notes
    assert "label 'a' is always 1: nothing can be learned of it" in notes


def test_a_column_whose_name_holds_a_comma_is_one_column():
    assert plan_target(pa.table({"a,b": ["x", "y"]}), "a,b").sources == ("a,b",)


CELLS = ["Drama", "Comedy", "Drama|Comedy", "War|Drama", "War", None, "Comedy|War|", "Drama | Drama"]


@pytest.mark.parametrize("delimiter", ["|", ";", ","])
def test_several_labels_in_a_cell(delimiter):
    values = [cell and cell.replace("|", delimiter) for cell in CELLS]
    plan = plan_of(values)
    assert (plan.kind, plan.form, plan.delimiter) == ("labels", "delimited", delimiter)
    assert plan.classes == ("Comedy", "Drama", "War")
    assert repr(delimiter) in plan.notes[0]
    encoded, keep = plan.encode(pa.table({"y": values}))
    assert keep.tolist() == [cell is not None for cell in CELLS]
    assert encoded.tolist() == [[0, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0], [1, 0, 1], [0, 1, 0]]
    later = pa.table({"y": [f"War{delimiter}Opera"]})
    assert plan.encode(later)[0].tolist() == [[0, 0, 1]]
    assert plan.unknown(later) == {"Opera": 1}


@pytest.mark.parametrize(
    "values",
    [
        ["Washington, DC", "Portland, OR", "Salem, OR", "Reno"] * 5,
        ["low, stable", "low, rising", "high, stable", "high, rising"] * 5,
        ["a;b", "a;b", "c", "c"],
        ["<b>x|y</b>", "z", "z", "w"],
    ],
)
def test_a_delimiter_inside_a_name_does_not_make_labels(values):
    assert plan_of(values).kind == "classes"


def test_the_delimiter_can_be_given_or_refused():
    values = ["a/b", "b", "a", "a/b"]
    assert plan_of(values).kind == "classes"
    assert plan_of(values, delimiter="/").classes == ("a", "b")
    assert plan_of(CELLS, delimiter="").kind == "classes"
    with pytest.raises(DataError, match="int64"):
        plan_of([1, 2], delimiter="|")


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.string()), pa.large_list(pa.string()), pa.list_(pa.dictionary(pa.int8(), pa.string()))]
)
def test_a_list_column_is_labels_and_an_empty_list_means_none_of_them(kind):
    table = pa.table({"y": pa.array([["b", "a"], [], None, ["a"]], kind)})
    plan = plan_target(table, "y")
    assert (plan.kind, plan.form, plan.classes) == ("labels", "list", ("a", "b"))
    encoded, keep = plan.encode(table)
    assert encoded.tolist() == [[1, 1], [0, 0], [0, 0], [1, 0]]
    assert keep.tolist() == [True, True, False, True]
    # a slice has offsets that do not start at zero
    assert plan.encode(table.slice(3))[0].tolist() == [[1, 0]]


def test_a_later_file_is_read_as_the_training_types(tmp_path):
    plan = plan_of(["007", "7", "x"])
    (tmp_path / "later.csv").write_text("y\n007\n7\n")
    later = read_table(tmp_path / "later.csv", column_types=plan.column_types)
    assert plan.encode(later)[0].tolist() == [0, 1]
    numbers = plan_of([1, 2, 1])
    assert numbers.encode(pa.table({"y": ["2", "1.0", None]}))[0].tolist() == [1, 0, -1]
    with pytest.raises(DataError, match="data row 2, column 'y': 'cat' is not a whole number"):
        numbers.encode(pa.table({"y": ["1", "cat"]}))
    with pytest.raises(DataError, match=r"data row 1, column 'y': 1\.5 is not a whole number"):
        numbers.encode(pa.table({"y": [1.5]}))


PLANS = {
    "text": ["b", "a", "b", None],
    "integer": [3, 1, 1],
    "boolean": [True, False],
    "number": [0.1, 0.3] * 9,
    "delimited": CELLS,
    "list": [["a", "b"], ["a"]],
}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_survives_json(name):
    plan = plan_of(PLANS[name])
    again = TargetPlan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan
    assert again.notes == plan.notes
    table = pa.table({"y": PLANS[name]})
    assert np.array_equal(again.encode(table)[0], plan.encode(table)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "labels"}, "form 'column' does not go with kind 'labels'"),
        ({"form": ["column"]}, "form"),
        ({"value_type": "code"}, "value_type"),
        ({"classes": "ab"}, "classes is not a list"),
        ({"classes": ["a", 1]}, "not str"),
        ({"classes": ["a", "a"]}, "twice"),
        ({"classes": ["a"]}, "1 classes"),
        ({"sources": []}, "sources"),
        ({"delimiter": "|"}, "delimiter"),
        ({"extra": 1}, "'extra'"),
        ({"notes": [1]}, "notes"),
    ],
)
def test_an_edited_plan_is_refused(change, message):
    with pytest.raises(ModelError, match=message):
        TargetPlan.from_dict({**plan_of(["a", "b"]).to_dict(), **change})


def test_a_plan_with_an_absent_entry_is_refused():
    state = plan_of(["a", "b"]).to_dict()
    del state["classes"]
    with pytest.raises(ModelError, match="'classes'"):
        TargetPlan.from_dict(state)
    with pytest.raises(ModelError, match="list"):
        TargetPlan.from_dict([])


@given(st.lists(st.one_of(st.none(), st.sampled_from(["a", "b ", "é", "<c>", "d|e"])), min_size=2, max_size=30))
def test_decode_undoes_encode(values):
    plan = plan_of(["a", "b ", "é", "<c>", "d|e"] * 2, delimiter="")
    encoded, keep = plan.encode(pa.table({"y": pa.array(values, pa.string())}))
    assert keep.tolist() == [value is not None for value in values]
    assert list(plan.decode(encoded[keep])) == [value for value in values if value is not None]
