"""Decide what a column is, from its training rows."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from numpy.typing import NDArray

from kullback.data.codes.base import ColumnCode
from kullback.data.codes.category import CategoryCode, level_hashes
from kullback.data.codes.moment import MomentCode
from kullback.data.codes.number import NumberCode, numbers_of
from kullback.data.codes.text import TextCode
from kullback.data.coerce import CLOCK, MOMENT, STRING, coerce, is_number_like, is_text, plain
from kullback.data.origin import Origin

MOST_LEVELS = 1000
# A level that training met once cannot be told from chance.
_FEWEST_ROWS = 2
# Below this many rows shares of distinct values say nothing.
_ENOUGH_ROWS = 20
_IDENTIFIER = re.compile(r"(?:^|_|\b)(?:id|uuid|guid|index|rownames|row_?id|unnamed: 0)$|(?<=[a-z])(?:Id|ID)$", re.I)


@dataclass(frozen=True)
class Verdict:
    """What a column is.

    Attributes:
        code: its fitted code; None for a column that is left out.
        why: the reason, in a few words.
        note: what to say aloud; "" if it is nothing out of the ordinary.
    """

    code: ColumnCode | None
    why: str
    note: str = ""


def fit_column(name: str, column: pa.ChunkedArray, rows: NDArray[np.int64] | None, origin: Origin) -> Verdict:
    """Fit the code of a column.

    Args:
        name: the column.
        column: all its rows.
        rows: the training rows, ascending; None for all.
        origin: where the table came from, for errors.

    Raises:
        DataError: for a number that is infinite.
    """
    column = plain(column)
    kind = column.type
    if pt.is_null(kind) or column.null_count == len(column):
        return _left_out("every value is missing")
    if is_number_like(kind):
        return _fit_number(name, column, rows, origin)
    if rows is not None:
        column = column.take(pa.array(rows))
    if column.null_count == len(column):
        return _left_out("every value is missing in the training rows")
    if is_text(kind):
        return _fit_text(name, coerce(column, STRING, name, origin))
    if pt.is_temporal(kind):
        moments = coerce(column, CLOCK if pt.is_time(kind) else MOMENT, name, origin)
        if pc.count_distinct(moments).as_py() < 2:
            return _left_out("every value is the same")
        code = MomentCode.fit(name, moments)
        return Verdict(code, "a time of day" if code.clock else "dates or times")
    return _left_out(f"values of type {kind} cannot be used")


def _left_out(why: str) -> Verdict:
    return Verdict(None, why, why)


def _fit_number(name: str, column: pa.ChunkedArray, rows: NDArray[np.int64] | None, origin: Origin) -> Verdict:
    values = numbers_of(column, name, origin)
    if rows is not None:
        values = values[rows]
    if np.isnan(values).all():
        return _left_out("every value is missing in the training rows")
    boolean = pt.is_boolean(column.type)
    code = NumberCode.fit(name, values, boolean=boolean)
    if not code.feature_names:
        return _left_out("every value is the same")
    if pt.is_integer(column.type) and len(values) >= _ENOUGH_ROWS and not code.indicator:
        place = values - (np.arange(len(values)) if rows is None else rows) - origin.first_row
        if place[0] in (0.0, 1.0) and (place == place[0]).all():
            return _left_out("it counts the rows, so it says nothing about them")
        if _IDENTIFIER.search(name) and len(np.unique(values)) == len(values):
            return _left_out("it looks like an identifier: every value differs")
    return Verdict(code, "true or false" if boolean else "numbers")


def _fit_text(name: str, strings: pa.ChunkedArray) -> Verdict:
    counted = pc.value_counts(strings.drop_null())
    levels, counts = counted.field("values"), counted.field("counts").to_numpy()
    present, distinct = int(counts.sum()), len(levels)
    if present == 0:
        return _left_out("every value is missing in the training rows")
    missing = strings.null_count > 0
    if distinct == 1 and not missing:
        return _left_out("every value is the same")
    if present >= _ENOUGH_ROWS and distinct > _ENOUGH_ROWS:
        words = pc.mean(pc.count_substring_regex(levels, r"\S+")).as_py()
        if (distinct > 0.5 * present and words >= 2) or (distinct > 0.1 * present and words >= 5):
            code = TextCode.fit(name, strings)
            if code is None:
                return _left_out("it is text in which no word recurs")
            return Verdict(code, f"text, {words:.1f} words on average")
        if distinct > 0.9 * present:
            return _left_out("it looks like an identifier: nearly every value differs")
    kept = np.flatnonzero(counts >= _FEWEST_ROWS) if present >= _ENOUGH_ROWS else np.arange(distinct)
    if len(kept) > MOST_LEVELS:
        names = levels.take(pa.array(kept)).to_pylist()
        order = sorted(range(len(kept)), key=lambda i: (-counts[kept[i]], names[i]))
        kept = kept[np.sort(order[:MOST_LEVELS])]
    if not len(kept):
        return _left_out("it looks like an identifier: every value differs")
    other = distinct - len(kept)
    kept_levels = tuple(sorted(levels.take(pa.array(kept)).to_pylist()))
    note = ""
    if other:
        rest = present - int(counts[kept].sum())
        note = (
            f"{distinct} categories; the {len(kept)} most frequent are kept and {other} rare "
            f"{'one' if other == 1 else 'ones'} ({rest} {'row' if rest == 1 else 'rows'}) "
            f'{"goes to" if other == 1 else "share"} the feature "other"'
        )
    rare = np.sort(level_hashes(np.delete(levels.to_numpy(zero_copy_only=False), kept)))
    return Verdict(CategoryCode(name, kept_levels, missing, rare), f"{distinct} categories", note)
