"""Read a column as the type a model was trained on, whatever type this file gave it.

A CSV says nothing of types, and the same column may be integers in one file and text in the next because of a
single cell. What the training data settled is therefore applied to every later file, and a cell that cannot be read
that way is an error that names it.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from kullback.data.missing import without_missing
from kullback.data.origin import Origin
from kullback.errors import DataError

NUMBER = pa.float64()
INTEGER = pa.int64()
BOOLEAN = pa.bool_()
STRING = pa.string()
MOMENT = pa.timestamp("us")
CLOCK = pa.time64("us")

_NAMES = {
    NUMBER: "a number",
    INTEGER: "a whole number",
    BOOLEAN: "true or false",
    STRING: "text",
    MOMENT: "a date or time",
    CLOCK: "a time of day",
}


def is_text(kind: pa.DataType) -> bool:
    """Is this one of Arrow's string types?"""
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def as_chunked(column: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as a chunked array."""
    return column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])


def plain(column: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with dictionaries and string views unpacked, so that fewer types need handling."""
    column = as_chunked(column)
    if pt.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if is_text(column.type) and column.type != STRING:
        # string and large_string differ in the width of offsets; one column of ours stays below 2 GiB a chunk
        column = column.cast(STRING) if column.nbytes < 2**31 else column.cast(pa.large_string())
    return column


def coerce(column: pa.Array | pa.ChunkedArray, wanted: pa.DataType, name: str, origin: Origin) -> pa.ChunkedArray:
    """Read `column` as `wanted`, one of this module's types.

    Args:
        column: (N,) values of any type.
        wanted: NUMBER, INTEGER, BOOLEAN, STRING, MOMENT or CLOCK.
        name: the column's name, for errors.
        origin: where the table came from, for errors.

    Raises:
        DataError: naming file, row, column and value, if a cell cannot be read as that type.

    >>> coerce(pa.array(["1.5", " 2", "?"]), NUMBER, "x", Origin()).to_pylist()
    [1.5, 2.0, None]
    """
    column = plain(column)
    if pt.is_null(column.type):
        return pa.chunked_array([pa.nulls(len(column), wanted)])
    if is_text(column.type):
        return _from_text(column, wanted, name, origin)
    if wanted == STRING:
        return _to_text(column, name, origin)
    if wanted == CLOCK and pt.is_time(column.type):
        return column.cast(CLOCK, safe=False)
    if (
        wanted == MOMENT
        and pt.is_temporal(column.type)
        and not (pt.is_time(column.type) or pt.is_duration(column.type))
    ):
        return to_moment(column)
    if wanted in (NUMBER, INTEGER, BOOLEAN) and is_number_like(column.type):
        numbers = to_number(column)
        if wanted == NUMBER:
            return numbers
        return _whole(column, numbers, wanted, name, origin)
    raise DataError(
        f"{origin.place(column=name)} holds {column.type}, but the model was trained on {_NAMES[wanted]} there; "
        "convert the column, or train again on data of this type"
    )


def is_number_like(kind: pa.DataType) -> bool:
    """Can this type be read as a number without interpretation?"""
    return bool(
        pt.is_integer(kind)
        or pt.is_floating(kind)
        or pt.is_decimal(kind)
        or pt.is_boolean(kind)
        or pt.is_duration(kind)
    )


def to_number(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A number-like column as float64; durations become seconds."""
    if pt.is_duration(column.type):
        return pc.divide(column.cast(pa.duration("us"), safe=False).cast(pa.int64()).cast(NUMBER, safe=False), 1e6)
    return column if column.type == NUMBER else column.cast(NUMBER, safe=False)


def to_moment(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A date or timestamp column as microseconds; one with a time zone is taken in UTC."""
    if pt.is_timestamp(column.type) and column.type.tz is not None:
        column = column.cast(pa.timestamp(column.type.unit, tz="UTC"))
        return column.cast(pa.timestamp(column.type.unit)).cast(MOMENT, safe=False)
    return column.cast(MOMENT, safe=False)


def first_failure(column: pa.ChunkedArray, wanted: pa.DataType) -> int:
    """The first row whose value does not cast to `wanted`; the column as a whole must be known to fail."""
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            cast_text(column.slice(low, middle - low), wanted)
        except pa.ArrowInvalid:
            high = middle
        else:
            low = middle
    return low


def cast_text(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    """Cast text to `wanted`; raises ArrowInvalid where a cell cannot be read."""
    if wanted == MOMENT:
        try:
            return column.cast(MOMENT)
        except pa.ArrowInvalid:
            return to_moment(column.cast(pa.timestamp("us", tz="UTC")))
    if wanted == INTEGER:
        try:
            return column.cast(INTEGER)
        except pa.ArrowInvalid:
            return column.cast(NUMBER).cast(INTEGER)  # "3.0" is whole too; 3.5 fails the second cast
    if wanted == CLOCK:
        # Arrow reads a time of day from text only as part of a timestamp.
        return pc.binary_join_element_wise("1970-01-01", column, " ").cast(MOMENT).cast(CLOCK)
    if wanted == BOOLEAN:
        return pc.utf8_lower(column).cast(BOOLEAN)
    return column.cast(wanted)


def _from_text(column: pa.ChunkedArray, wanted: pa.DataType, name: str, origin: Origin) -> pa.ChunkedArray:
    if wanted == STRING:
        return without_missing(column, among_numbers=False)
    try:
        return cast_text(column, wanted)
    except pa.ArrowInvalid:
        pass
    tidy = without_missing(pc.utf8_trim_whitespace(column), among_numbers=wanted in (NUMBER, INTEGER))
    try:
        return cast_text(tidy, wanted)
    except pa.ArrowInvalid:
        row = first_failure(tidy, wanted)
        raise DataError(
            f"{origin.place(row, name)}: {_shown(column[row].as_py())} is not {_NAMES[wanted]}, which this column "
            f"held in training; correct the value, or leave it empty if it is missing"
        ) from None


def _to_text(column: pa.ChunkedArray, name: str, origin: Origin) -> pa.ChunkedArray:
    if pt.is_nested(column.type) or pt.is_binary(column.type) or pt.is_large_binary(column.type):
        raise DataError(
            f"{origin.place(column=name)} holds {column.type}, but the model was trained on text there; "
            "convert the column, or train again on data of this type"
        )
    return column.cast(STRING)


def _whole(
    column: pa.ChunkedArray, numbers: pa.ChunkedArray, wanted: pa.DataType, name: str, origin: Origin
) -> pa.ChunkedArray:
    if column.type == wanted:
        return column
    if wanted == INTEGER:
        wrong = pc.or_(pc.not_equal(numbers, pc.floor(numbers)), pc.greater_equal(pc.abs(numbers), 2.0**63))
    else:
        wrong = pc.and_(pc.not_equal(numbers, 0.0), pc.not_equal(numbers, 1.0))
    missing = pc.is_nan(numbers)
    row = pc.index(pc.and_not(wrong, missing), True).as_py()
    if row >= 0:
        raise DataError(
            f"{origin.place(row, name)}: {column[row].as_py()} is not {_NAMES[wanted]}, which this column held in "
            "training; correct the value, or leave it empty if it is missing"
        )
    numbers = pc.if_else(missing, pa.scalar(None, NUMBER), numbers)
    return numbers.cast(wanted, safe=False)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…" + text[0]
