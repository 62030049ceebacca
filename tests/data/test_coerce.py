import datetime as dt
import decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kullback.data.coerce import BOOLEAN, CLOCK, INTEGER, MOMENT, NUMBER, STRING, coerce
from kullback.data.origin import Origin
from kullback.errors import DataError

ORIGIN = Origin(source="f.csv", first_row=10)
DAY = dt.datetime(2013, 5, 1)


def read(values, wanted):
    return coerce(values if isinstance(values, pa.Array) else pa.array(values), wanted, "c", ORIGIN).to_pylist()


@pytest.mark.parametrize(
    ("values", "wanted", "expected"),
    [
        (["1", " 2.5 ", "NA", "-"], NUMBER, [1.0, 2.5, None, None]),
        ([1, None], NUMBER, [1.0, None]),
        ([True, False], NUMBER, [1.0, 0.0]),
        ([decimal.Decimal("1.25")], NUMBER, [1.25]),
        (pa.array([1500], pa.duration("ms")), NUMBER, [1.5]),
        (pa.array([2**63 + 1], pa.uint64()), NUMBER, [2.0**63]),
        (pa.array([1.5], pa.float16()), NUMBER, [1.5]),
        (["1", "2.0", "?"], INTEGER, [1, 2, None]),
        ([1.0, float("nan"), None], INTEGER, [1, None, None]),
        (["TRUE", "False", "1", "null"], BOOLEAN, [True, False, True, None]),
        ([1, 0, None], BOOLEAN, [True, False, None]),
        ([1.0, float("nan")], BOOLEAN, [True, None]),
        ([1, 2], STRING, ["1", "2"]),
        (["a", "?", "-"], STRING, ["a", None, "-"]),
        (pa.array(["a", None]).dictionary_encode(), STRING, ["a", None]),
        (pa.array([7, None]).dictionary_encode(), STRING, ["7", None]),
        (["2013-05-01", "", "2013-05-01 00:00"], MOMENT, [DAY, None, DAY]),
        (["2013-05-01T02:00:00+02:00"], MOMENT, [DAY]),
        ([DAY.date()], MOMENT, [DAY]),
        (pa.array([DAY], pa.timestamp("ns")), MOMENT, [DAY]),
        (pa.array([DAY], pa.timestamp("s", tz="Europe/Berlin")), MOMENT, [DAY]),
        (["05:06:07"], CLOCK, [dt.time(5, 6, 7)]),
        (pa.array([3600], pa.time32("s")), CLOCK, [dt.time(1)]),
        (pa.nulls(2), NUMBER, [None, None]),
        (pa.nulls(2), MOMENT, [None, None]),
    ],
)
def test_what_can_be_read_is(values, wanted, expected):
    assert read(values, wanted) == expected


@pytest.mark.parametrize(
    ("values", "wanted", "message"),
    [
        (["1", "x", "y"], NUMBER, r"f\.csv, data row 12, column 'c': 'x' is not a number"),
        (["1", "1.5"], INTEGER, "row 12, column 'c': '1.5' is not a whole number"),
        ([1.0, 2.5], INTEGER, "row 12, column 'c': 2.5 is not a whole number"),
        ([1.0, 1e300], INTEGER, "row 12, column 'c': 1e\\+300 is not a whole number"),
        (["1", "1e300"], INTEGER, "row 12, column 'c': '1e300' is not a whole number"),
        (["true", "yes"], BOOLEAN, "row 12, column 'c': 'yes' is not true or false"),
        ([1, 2], BOOLEAN, "row 12, column 'c': 2 is not true or false"),
        (["2013-05-01", "soon"], MOMENT, "row 12, column 'c': 'soon' is not a date"),
        (["x" * 200], NUMBER, "row 11, column 'c': 'x{56}…' is not a number"),
        ([DAY], NUMBER, r"timestamp\[us\], but the model was trained on a number"),
        ([1], MOMENT, "int64, but the model was trained on a date"),
        ([[1]], STRING, "list<item: int64>, but the model was trained on text"),
        ([b"a"], STRING, "binary, but the model was trained on text"),
        (pa.array([1], pa.time32("s")), MOMENT, "time32"),
    ],
)
def test_what_cannot_be_read_is_named(values, wanted, message):
    with pytest.raises(DataError, match=message):
        read(values, wanted)


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False)), max_size=30))
def test_numbers_survive_their_spelling(values):
    spelled = pa.array([None if value is None else repr(value) for value in values], pa.string())
    assert read(spelled, NUMBER) == values


@given(st.lists(st.sampled_from(["1", "2.5", "?", "x"]), min_size=1, max_size=40))
def test_the_first_bad_cell_is_the_one_named(values):
    if "x" in values:
        with pytest.raises(DataError, match=f"data row {11 + values.index('x')}, "):
            read(values, NUMBER)
    else:
        assert np.array_equal(np.isnan(np.array(read(values, NUMBER), float)), [value == "?" for value in values])
