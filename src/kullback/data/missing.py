"""How a missing value is spelled in a text file."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

# Read as missing in every column: what spreadsheets, R, pandas and SQL write.
MISSING = (
    "",
    "NA",
    "N/A",
    "n/a",
    "#N/A",
    "#NA",
    "<NA>",
    "NaN",
    "nan",
    "-nan",
    "-NaN",
    "NULL",
    "null",
    "Null",
)
# Also read as missing, and said: a question mark may be an answer, but almost never is one.
QUESTION_MARK = ("?",)
# Read as missing only where every other value of the column is a number: as text they may well be a category.
MISSING_AMONG_NUMBERS = ("?", "-", "--", ".", "None", "none")

_MISSING_SET = pa.array([*MISSING, *QUESTION_MARK])
_NUMBER_SET = pa.array([*MISSING, *MISSING_AMONG_NUMBERS])


def missing_mask(strings: pa.ChunkedArray, *, among_numbers: bool) -> pa.ChunkedArray:
    """True where a cell, stripped of blanks around it, spells a missing value (false for null)."""
    values = _NUMBER_SET if among_numbers else _MISSING_SET
    return pc.is_in(pc.utf8_trim_whitespace(strings), value_set=values.cast(strings.type))


def without_missing(strings: pa.ChunkedArray, *, among_numbers: bool) -> pa.ChunkedArray:
    """The column with every spelling of a missing value turned into null."""
    mask = missing_mask(strings, among_numbers=among_numbers)
    if not pc.any(mask).as_py():
        return strings
    return pc.if_else(mask, pa.scalar(None, strings.type), strings)
