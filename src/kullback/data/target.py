"""Find out what kind of target the data holds, say so, and turn it into numbers."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from numpy.typing import ArrayLike, NDArray

from kullback.data.coerce import BOOLEAN, INTEGER, NUMBER, STRING, coerce, is_number_like, is_text, plain, to_number
from kullback.data.missing import without_missing
from kullback.data.origin import Origin, origin_of, unknown_column
from kullback.errors import DataError, ModelError

Label: TypeAlias = str | int | bool | float

_VALUE_TYPES: dict[str, pa.DataType] = {"text": STRING, "integer": INTEGER, "boolean": BOOLEAN, "number": NUMBER}
_PYTHON_TYPES: dict[str, type] = {"text": str, "integer": int, "boolean": bool, "number": float}
# A class needs examples: more distinct values than this, with few rows each, are measurements or names.
_MANY_CLASSES = 50
_FEW_ROWS_A_CLASS = 5
_MANY_FRACTIONS = 20
# From here on not every whole number is a float64.
_LARGEST_EXACT = float(2**53)
_DELIMITERS = ("|", ";", ",")


@dataclass(frozen=True)
class TargetPlan:
    """What the target is and how it becomes numbers.

    Attributes:
        kind: "classes" (one class a row) or "labels" (any number of labels a row).
        sources: the columns it is read from.
        classes: the classes, or the label names, in the order of their indices.
        form: "column" (one value a cell), "columns" (a 0/1 column a label), "delimited" (several labels a cell,
            separated by `delimiter`) or "list" (a list column).
        value_type: "text", "integer", "boolean" or "number": how cells are read.
        delimiter: what separates labels in a cell, for form "delimited".
        notes: what was concluded from the data, to be said aloud.
    """

    kind: str
    sources: tuple[str, ...]
    classes: tuple[Label, ...]
    form: str
    value_type: str
    delimiter: str | None = None
    notes: list[str] = field(default_factory=list, compare=False)

    @property
    def source(self) -> str:
        """The target as a person spells it: "species", or "comedy,drama" for several columns."""
        return ",".join(self.sources)

    @property
    def column_types(self) -> dict[str, pa.DataType]:
        """Types to read the target's column as in a later file, for `read_table(column_types=…)`."""
        if self.form in ("columns", "list"):
            return {}  # several spellings of 0/1 are understood as they stand
        return {self.sources[0]: _VALUE_TYPES[self.value_type]}

    def encode(self, table: pa.Table) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The target as numbers, and which rows have one.

        Args:
            table: holds the columns `sources`.

        Returns:
            For classes, (N,) int64 indices, -1 where there is none; for labels, (N, L) uint8 of 0/1. Then (N,) bool,
            False where the target is missing or is a class unknown to this plan (`unknown` counts those).

        Raises:
            DataError: for an absent column, or a cell that cannot be read as the target's type.

        >>> plan = plan_target(pa.table({"kind": ["dog", "cat", None]}), "kind")
        >>> plan.encode(pa.table({"kind": ["cat", "cow", "dog"]}))
        (array([ 0, -1,  1]), array([ True, False,  True]))
        """
        origin = origin_of(table)
        columns = [_column(table, name, origin) for name in self.sources]
        if self.form == "columns":
            return self._encode_columns(columns, origin)
        if self.form in ("delimited", "list"):
            atoms, lengths_known = self._atoms(columns[0], origin)
            return self._encode_atoms(atoms), lengths_known
        values = self._values(columns[0], origin)
        indices = pc.index_in(values, value_set=self._value_set())
        encoded = pc.fill_null(indices, -1).to_numpy().astype(np.int64)
        return encoded, encoded >= 0

    def unknown(self, table: pa.Table) -> dict[Label, int]:
        """Values of the target in `table` that are neither missing nor among `classes`, and how often each occurs.

        >>> plan = plan_target(pa.table({"kind": ["dog", "cat"]}), "kind")
        >>> plan.unknown(pa.table({"kind": ["cow", "dog", "cow", None]}))
        {'cow': 2}
        """
        origin = origin_of(table)
        if self.form == "columns":
            return {}
        column = _column(table, self.sources[0], origin)
        if self.form == "column":
            values = self._values(column, origin)
        else:
            values = pa.chunked_array([self._atoms(column, origin)[0].flatten()])
        strange = values.filter(pc.and_(pc.is_valid(values), pc.invert(pc.is_in(values, self._value_set()))))
        found = pc.value_counts(strange)
        pairs = [(each["values"], each["counts"]) for each in found.to_pylist()]
        return dict(sorted(pairs, key=lambda pair: (-pair[1], str(pair[0]))))

    def decode(self, indices: ArrayLike) -> NDArray[Any] | list[tuple[str, ...]]:
        """Names for numbers.

        Args:
            indices: for classes (N,) indices; for labels (N, L) of 0/1.

        Returns:
            For classes an (N,) array of the classes; for labels a list of N tuples of label names.

        >>> plan_target(pa.table({"kind": ["dog", "cat"]}), "kind").decode([1, 1, 0]).tolist()
        ['dog', 'dog', 'cat']
        """
        array = np.asarray(indices)
        if self.kind == "labels":
            return [tuple(str(self.classes[j]) for j in np.flatnonzero(row)) for row in array]
        names: NDArray[Any] = np.array(self.classes, dtype=object if self.value_type == "text" else None)[array]
        return names

    def to_dict(self) -> dict[str, Any]:
        """A JSON-safe description that `from_dict` reads back."""
        return {
            "kind": self.kind,
            "sources": list(self.sources),
            "classes": list(self.classes),
            "form": self.form,
            "value_type": self.value_type,
            "delimiter": self.delimiter,
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> TargetPlan:
        """Read back what `to_dict` wrote.

        Raises:
            ModelError: naming the entry that is absent or not what it should be.
        """
        if not isinstance(state, Mapping):
            raise ModelError(f"the target's description is {type(state).__name__}, not an object")
        expected = {"kind", "sources", "classes", "form", "value_type", "delimiter", "notes"}
        if set(state) != expected:
            odd = sorted(expected ^ set(state))
            raise ModelError(f"the target's description lacks or adds {', '.join(map(repr, odd))}")
        forms = {"column": "classes", "columns": "labels", "delimited": "labels", "list": "labels"}
        form, value_type, delimiter = state["form"], state["value_type"], state["delimiter"]
        if not isinstance(form, str) or forms.get(form) != state["kind"]:
            raise ModelError(f"the target's form {form!r} does not go with kind {state['kind']!r}")
        if value_type not in _VALUE_TYPES:
            raise ModelError(f"the target's value_type is {value_type!r}, not one of {', '.join(_VALUE_TYPES)}")
        for entry in ("sources", "classes", "notes"):
            if not isinstance(state[entry], list):
                raise ModelError(f"the target's {entry} is not a list")
        label_type = _PYTHON_TYPES[value_type] if form == "column" else str
        for entry, wanted in (("sources", str), ("classes", label_type), ("notes", str)):
            if any(type(each) is not wanted for each in state[entry]):
                raise ModelError(f"the target's {entry} holds a value that is not {wanted.__name__}")
            if entry != "notes" and len(set(state[entry])) != len(state[entry]):
                raise ModelError(f"the target's {entry} holds a value twice")
        if not state["sources"] or (form != "columns" and len(state["sources"]) != 1):
            raise ModelError(f"the target's sources {state['sources']} do not go with form {form!r}")
        if form == "columns" and state["classes"] != state["sources"]:
            raise ModelError("the target's classes differ from its columns")
        if len(state["classes"]) < (2 if form == "column" else 1):
            raise ModelError(f"the target has {len(state['classes'])} classes")
        if (form == "delimited") != (isinstance(delimiter, str) and bool(delimiter)):
            raise ModelError(f"the target's delimiter {delimiter!r} does not go with form {form!r}")
        return cls(
            kind=state["kind"],
            sources=tuple(state["sources"]),
            classes=tuple(state["classes"]),
            form=form,
            value_type=value_type,
            delimiter=delimiter,
            notes=list(state["notes"]),
        )

    def _value_set(self) -> pa.Array:
        return pa.array(self.classes, _VALUE_TYPES[self.value_type] if self.form == "column" else STRING)

    def _values(self, column: pa.ChunkedArray, origin: Origin) -> pa.ChunkedArray:
        values = coerce(column, _VALUE_TYPES[self.value_type], self.sources[0], origin)
        return _nan_as_null(values)

    def _atoms(self, column: pa.ChunkedArray, origin: Origin) -> tuple[pa.ListArray, NDArray[np.bool_]]:
        column = plain(column)
        if self.form == "delimited":
            assert self.delimiter is not None
            column = coerce(column, STRING, self.sources[0], origin)
            lists = _split(column, self.delimiter)
        else:
            if not _is_list_of_text(column.type) and not pt.is_null(column.type):
                raise DataError(
                    f"{origin.place(column=self.sources[0])} holds {column.type}, but the model's target is a list "
                    "of strings there"
                )
            lists = _combined(column.cast(pa.list_(STRING)))
        return lists, lists.is_valid().to_numpy(zero_copy_only=False)

    def _encode_atoms(self, lists: pa.ListArray) -> NDArray[np.uint8]:
        encoded = np.zeros((len(lists), len(self.classes)), dtype=np.uint8)
        rows = pc.list_parent_indices(lists).to_numpy()
        columns = pc.fill_null(pc.index_in(lists.flatten(), value_set=self._value_set()), -1).to_numpy()
        known = columns >= 0
        encoded[rows[known], columns[known]] = 1
        return encoded

    def _encode_columns(
        self, columns: Sequence[pa.ChunkedArray], origin: Origin
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        rows = len(columns[0])
        encoded = np.zeros((rows, len(columns)), dtype=np.uint8)
        keep = np.ones(rows, dtype=np.bool_)
        for j, (name, column) in enumerate(zip(self.sources, columns, strict=True)):
            values = _binary(column, name, origin)
            present = ~np.isnan(values)
            encoded[present, j] = values[present]
            keep &= present
        encoded[~keep] = 0
        return encoded, keep


def plan_target(table: pa.Table, target: str, *, delimiter: str | None = None) -> TargetPlan:
    """Find the form of the target: a label column, several 0/1 columns, or several labels in one cell.

    Args:
        table: the data, whole.
        target: a column, or several 0/1 columns separated by commas ("comedy,drama").
        delimiter: what separates several labels in a cell. By default it is looked for ("|", ";" or ","); "" says
            that a cell is always one class.

    Returns:
        The plan; its `notes` say what was concluded.

    Raises:
        DataError: if a column does not exist (the closest names are given), all targets are missing, there is one
            class only, or the column looks like measurements, dates or names.

    >>> plan = plan_target(pa.table({"genres": ["Drama|War", "War", "Drama", "Drama|War", "War"]}), "genres")
    >>> plan.kind, plan.classes, plan.delimiter
    ('labels', ('Drama', 'War'), '|')
    """
    origin = origin_of(table)
    names = _names(table, target, origin)
    if len(names) > 1:
        return _plan_columns(table, names, origin)
    name = names[0]
    column = plain(_column(table, name, origin))
    if is_text(column.type):
        column = without_missing(column, among_numbers=False)
    if _is_list_of_text(column.type):
        return _plan_lists(_combined(column.cast(pa.list_(STRING))), name, origin, "list", None)
    column = _nan_as_null(column)
    if column.null_count == len(column):
        raise DataError(
            f"{origin.place(column=name)}: every target is missing; choose another target, or fill this one in"
        )
    if is_text(column.type):
        column = column.cast(STRING)
        found = delimiter if delimiter is not None else _find_delimiter(column)
        if found:
            return _plan_lists(_split(column, found), name, origin, "delimited", found)
    elif delimiter:
        raise DataError(f"{origin.place(column=name)} holds {column.type}, not text that {delimiter!r} could separate")
    return _plan_classes(column, name, origin)


def _names(table: pa.Table, target: str, origin: Origin) -> list[str]:
    if target in table.column_names:
        return [target]
    alias = (origin.aliases or {}).get(target)
    if alias is not None:
        return list(alias)
    names = [part.strip() for part in target.split(",")]
    if any(not name for name in names):
        raise DataError(f"the target {target!r} names an empty column; write COL or COL,COL,…")
    for name in names:
        if name not in table.column_names:
            raise unknown_column(name, table.column_names, what="asked for as target", origin=origin)
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(f"the target names the column {repeated[0]!r} twice")
    return names


def _column(table: pa.Table, name: str, origin: Origin) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise unknown_column(name, table.column_names, what="the target", origin=origin)
    return table.column(name)


def _plan_classes(column: pa.ChunkedArray, name: str, origin: Origin) -> TargetPlan:
    kind = column.type
    where = origin.place(column=name)
    notes: list[str] = []
    if pt.is_boolean(kind):
        value_type = "boolean"
    elif pt.is_integer(kind):
        value_type = "integer"
    elif is_text(kind):
        value_type = "text"
    elif is_number_like(kind) and not pt.is_duration(kind):
        column = to_number(column)
        infinite = pc.index(pc.is_inf(column), True).as_py()
        if infinite >= 0:
            raise DataError(f"{origin.place(infinite, name)}: the target is infinite; mend it or leave it empty")
        exact = pc.less(pc.abs(column), _LARGEST_EXACT)
        whole = pc.all(pc.and_(exact, pc.equal(column, pc.floor(column)))).as_py()
        value_type = "integer" if whole else "number"
    else:
        raise DataError(
            f"{where} holds {kind}, which is no label; a target is text, whole numbers, booleans, several 0/1 "
            "columns, or a column of lists of strings"
        )
    if value_type == "integer" and not pt.is_integer(kind):
        column = column.cast(INTEGER)
        notes.append(f"the target {name!r} is stored as decimals but holds whole numbers; read as classes")
    try:
        counted = pc.value_counts(column.drop_null().cast(_VALUE_TYPES[value_type]))
    except pa.ArrowInvalid:
        raise DataError(f"{where} holds whole numbers beyond 64 bits; store them as text if they are classes") from None
    counts = {each["values"]: each["counts"] for each in counted.to_pylist()}
    present = sum(counts.values())
    missing = len(column) - present
    if len(counts) == 1:
        raise DataError(
            f"{where} holds one class only, {next(iter(counts))!r} ({present} rows); a classifier needs at least two"
        )
    few = present < _FEW_ROWS_A_CLASS * len(counts)
    if value_type == "number" and (len(counts) > _MANY_FRACTIONS or few):
        low, high = min(counts), max(counts)
        raise DataError(
            f"{where} holds {len(counts)} different decimal numbers ({low:g} to {high:g}): it looks like a "
            "regression target. Bin it into classes first (for example low, middle, high), or choose another target"
        )
    if value_type == "integer" and len(counts) > _MANY_CLASSES and few:
        raise DataError(
            f"{where} holds {len(counts)} different whole numbers in {present} rows: it looks like a regression "
            "target or an identifier. Bin it into classes first, or choose another target"
        )
    if value_type == "text" and len(counts) > 20 and present < 2 * len(counts):
        raise DataError(
            f"{where} holds {len(counts)} different texts in {present} rows: it looks like names or free text, not "
            "classes. Choose another target, or group its values first"
        )
    classes = tuple(sorted(counts))
    kind_said = f"{len(classes)} classes"
    notes.insert(0, f"target {name!r}: {kind_said} ({_shown(classes)})")
    notes += _left_out(missing, len(column), [name])
    notes += _rare(counts, "class", "row")
    notes += _near_duplicates(classes)
    return TargetPlan("classes", (name,), classes, "column", value_type, None, notes)


def _plan_lists(lists: pa.ListArray, name: str, origin: Origin, form: str, delimiter: str | None) -> TargetPlan:
    missing = lists.null_count
    where = origin.place(column=name)
    if missing == len(lists):
        raise DataError(f"{where}: every target is missing; choose another target, or fill this one in")
    counted = pc.value_counts(lists.flatten().drop_null())
    counts = {each["values"]: each["counts"] for each in counted.to_pylist()}
    if len(counts) < 2:
        held = f"one label only, {next(iter(counts))!r}" if counts else "no labels at all"
        raise DataError(f"{where} holds {held}; a classifier needs at least two")
    present = len(lists) - missing
    if len(counts) > _MANY_CLASSES and sum(counts.values()) < 2 * len(counts):
        raise DataError(
            f"{where} holds {len(counts)} different labels in {present} rows, most of them once: it looks like free "
            "text. Choose another target, or group its values first"
        )
    classes = tuple(sorted(counts))
    separated = f", separated by {delimiter!r}" if delimiter else ""
    several = sum(counts.values()) / present
    notes = [
        f"target {name!r}: several labels a cell{separated}; {len(classes)} labels ({_shown(classes)}), "
        f"{several:.2f} a row on average"
    ]
    notes += _left_out(missing, len(lists), [name])
    notes += _rare(counts, "label", "positive row")
    notes += _near_duplicates(classes)
    return TargetPlan("labels", (name,), classes, form, "text", delimiter, notes)


def _plan_columns(table: pa.Table, names: Sequence[str], origin: Origin) -> TargetPlan:
    plan = TargetPlan("labels", tuple(names), tuple(names), "columns", "number")
    encoded, keep = plan.encode(table)
    if not keep.any():
        raise DataError(f"{origin.place()}: no row has all of the targets {', '.join(map(repr, names))}; fill them in")
    positive = encoded[keep].sum(axis=0, dtype=np.int64)
    rows = int(keep.sum())
    if all(count in (0, rows) for count in positive):
        raise DataError(
            f"{origin.place()}: each of the target columns {', '.join(map(repr, names))} holds one value only; "
            "there is nothing to tell apart"
        )
    plan.notes.append(
        f"target: {len(names)} columns of 0/1, so {len(names)} labels ({_shown(names)}), "
        f"{positive.sum() / rows:.2f} a row on average"
    )
    plan.notes.extend(_left_out(len(keep) - rows, len(keep), names))
    for name, count in zip(names, positive, strict=True):
        if count in (0, rows):
            plan.notes.append(
                f"label {name!r} is {'never' if count == 0 else 'always'} 1: nothing can be learned of it"
            )
    plan.notes.extend(_rare(dict(zip(names, positive.tolist(), strict=True)), "label", "positive row"))
    return plan


def _binary(column: pa.ChunkedArray, name: str, origin: Origin) -> NDArray[np.float64]:
    """A 0/1 column as float64 with NaN for missing."""
    column = plain(column)
    if is_text(column.type):
        lowered = pc.utf8_lower(pc.utf8_trim_whitespace(without_missing(column, among_numbers=True)))
        for true, false in (("true", "false"), ("yes", "no")):
            lowered = pc.if_else(pc.equal(lowered, true), "1", lowered)
            lowered = pc.if_else(pc.equal(lowered, false), "0", lowered)
        column = pa.chunked_array([lowered]) if isinstance(lowered, pa.Array) else lowered
    elif not is_number_like(column.type) and not pt.is_null(column.type):
        raise DataError(f"{origin.place(column=name)} holds {column.type}; as one of several targets it must hold 0/1")
    try:
        values = coerce(column, NUMBER, name, origin).to_numpy()
    except DataError:
        numbers = pc.is_in(column, value_set=pa.array(["0", "1", "0.0", "1.0"]))
        row = pc.index(pc.and_(pc.invert(numbers), pc.is_valid(column)), True).as_py()
        raise _not_binary(origin, row, name, column[row].as_py()) from None
    wrong = ~((values == 0) | (values == 1) | np.isnan(values))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise _not_binary(origin, row, name, values[row].item())
    return np.asarray(values, dtype=np.float64)


def _not_binary(origin: Origin, row: int, name: str, value: object) -> DataError:
    return DataError(
        f"{origin.place(row, name)}: {value!r} is neither 0 nor 1; several target columns must each hold 0/1. "
        "For one column of classes give that column alone"
    )


def _find_delimiter(column: pa.ChunkedArray) -> str | None:
    """The delimiter whose pieces recur: labels do, the halves of "Washington, DC" or "low, but rising" do not."""
    counted = pc.value_counts(column.drop_null())
    cells = Counter({each["values"]: each["counts"] for each in counted.to_pylist()})
    total = sum(cells.values())
    for delimiter in _DELIMITERS:
        several = [cell for cell in cells if delimiter in cell]
        if sum(cells[cell] for cell in several) < max(2, 0.01 * total):
            continue
        in_cells: Counter[str] = Counter()
        for cell in cells:
            in_cells.update({part.strip() for part in cell.split(delimiter)} - {""})
        pieces = [part.strip() for cell in several for part in cell.split(delimiter) if part.strip()]
        recurring = sum(in_cells[piece] >= 2 for piece in pieces)
        alone = sum(piece in cells for piece in set(pieces))
        # Pieces that recur in other cells, fewer labels than cells, and some that are whole cells by themselves;
        # a comma is common inside a name, so there most pieces must also stand alone somewhere.
        enough_alone = alone >= 0.5 * len(set(pieces)) if delimiter == "," else alone >= 1
        fewer = len(in_cells) < len(cells) or (delimiter == "|" and len(in_cells) == len(cells))
        if recurring >= 0.8 * len(pieces) and fewer and enough_alone:
            return delimiter
    return None


def _split(column: pa.ChunkedArray, delimiter: str) -> pa.ListArray:
    """Cells as lists of trimmed, non-empty pieces; null stays null."""
    lists = _combined(pc.split_pattern(column, delimiter))
    pieces = pc.utf8_trim_whitespace(lists.flatten())
    parents = pc.list_parent_indices(lists)
    filled = pc.not_equal(pieces, "")
    pieces, parents = pieces.filter(filled), parents.filter(filled).to_numpy()
    counts = np.bincount(parents, minlength=len(lists)) if len(lists) else np.zeros(0, np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    missing = lists.is_null()
    return pa.ListArray.from_arrays(pa.array(offsets), pieces, mask=missing)


def _combined(column: pa.ChunkedArray) -> pa.ListArray:
    joined = column.combine_chunks()
    if isinstance(joined, pa.ChunkedArray):
        joined = pa.concat_arrays(joined.chunks) if joined.num_chunks else pa.array([], joined.type)
    return joined


def _is_list_of_text(kind: pa.DataType) -> bool:
    lists = pt.is_list(kind) or pt.is_large_list(kind) or pt.is_list_view(kind) or pt.is_fixed_size_list(kind)
    if not lists:
        return False
    inside = kind.value_type
    return is_text(inside) or (pt.is_dictionary(inside) and is_text(inside.value_type))


def _nan_as_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pt.is_floating(column.type):
        return column
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)


def _shown(names: Sequence[object]) -> str:
    shown = ", ".join(str(name) for name in names[:8])
    return shown + (", …" if len(names) > 8 else "")


def _left_out(missing: int, rows: int, names: Sequence[str]) -> list[str]:
    if not missing:
        return []
    what = f"the target {names[0]!r}" if len(names) == 1 else "one of the targets"
    share = 100 * missing / rows
    return [
        f"{missing} of {rows} rows ({'<0.1' if share < 0.1 else format(share, '.1f')} %) lack {what} and are left out"
    ]


def _rare(counts: Mapping[Any, int], what: str, unit: str) -> list[str]:
    single = sorted((name for name, count in counts.items() if count == 1), key=str)
    if not single:
        return []
    shown = _shown([repr(name) for name in single])
    if len(single) == 1:
        return [f"{what} {shown} has one {unit} only: too little to learn or to test"]
    plural = f"{what}es" if what == "class" else f"{what}s"
    return [f"{len(single)} {plural} have one {unit} only ({shown}): too little to learn or to test"]


def _near_duplicates(classes: Sequence[Label]) -> list[str]:
    """Names that differ in blanks, case or Unicode form only are kept apart, but are worth a word."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        if isinstance(name, str):
            folded = " ".join(unicodedata.normalize("NFC", name).casefold().split())
            groups.setdefault(folded, []).append(name)
    return [
        f"{' and '.join(map(repr, group))} differ in blanks, case or Unicode form only; they are kept apart, so "
        "mend the data if they are the same"
        for group in groups.values()
        if len(group) > 1
    ]
