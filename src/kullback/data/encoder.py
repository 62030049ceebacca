"""Turn the feature columns of a table into one matrix of numbers, as fitted on the training rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray

from kullback.data.codes.base import Codes, ColumnCode, Piece, Tally, Vector
from kullback.data.codes.category import CategoryCode
from kullback.data.codes.entry import Entry
from kullback.data.codes.moment import MomentCode
from kullback.data.codes.number import NumberCode
from kullback.data.codes.text import TextCode
from kullback.data.kinds import fit_column
from kullback.data.origin import origin_of, unknown_column
from kullback.errors import DataError, ModelError

_VERSION = 1
_CODES: dict[str, Any] = {
    "numeric": NumberCode,
    "boolean": NumberCode,
    "categorical": CategoryCode,
    "text": TextCode,
    "moment": MomentCode,
}
# One-hot features are mostly zeros; past this width a sparse matrix is smaller and multiplies faster.
_DENSE_WIDTH = 100
_DENSE_SHARE = 0.2


@dataclass(frozen=True)
class ColumnSummary:
    """What became of a column.

    Attributes:
        name: the column.
        kind: "numeric", "boolean", "categorical", "text", "moment" or "dropped".
        why: the reason, in a few words.
        features: how many features it gives.
    """

    name: str
    kind: str
    why: str
    features: int


@dataclass
class EncodingCounts:
    """What encoding met that training did not prepare for; counts of batches add up.

    Attributes:
        rows: how many rows were encoded.
        unseen: per categorical column, cells with a category that training did not have.
        filled: per column, missing cells where training had none.
        clipped: per numeric column, cells so far out that they were cut off.
        extra: columns that the model does not know.
    """

    rows: int = 0
    unseen: dict[str, int] = field(default_factory=dict)
    filled: dict[str, int] = field(default_factory=dict)
    clipped: dict[str, int] = field(default_factory=dict)
    extra: tuple[str, ...] = ()

    def __add__(self, other: EncodingCounts) -> EncodingCounts:
        def merged(left: dict[str, int], right: dict[str, int]) -> dict[str, int]:
            return {name: left.get(name, 0) + right.get(name, 0) for name in [*left, *(right.keys() - left.keys())]}

        return EncodingCounts(
            self.rows + other.rows,
            merged(self.unseen, other.unseen),
            merged(self.filled, other.filled),
            merged(self.clipped, other.clipped),
            tuple(dict.fromkeys((*self.extra, *other.extra))),
        )

    def notes(self) -> list[str]:
        """The counts in words."""
        notes = []
        for name, count in self.unseen.items():
            notes.append(f"column {name!r}: {count} of {self.rows} values hold a category that training did not have")
        for name, count in self.filled.items():
            notes.append(f"column {name!r}: {count} of {self.rows} values are missing, though none was in training")
        for name, count in self.clipped.items():
            notes.append(
                f"column {name!r}: {count} of {self.rows} values are over a million standard deviations from the "
                "training mean and were cut off there"
            )
        if self.extra:
            plural = "s" if len(self.extra) > 1 else ""
            notes.append(f"{len(self.extra)} column{plural} unknown to the model and ignored: {_listed(self.extra)}")
        return notes


@dataclass(frozen=True, eq=False)
class Encoded:
    """Features of some rows.

    Attributes:
        matrix: (N, d) float32, C-contiguous or CSR; which of the two, the encoder settles once (`sparse`).
        counts: what training did not prepare for.
    """

    matrix: NDArray[np.float32] | sp.csr_matrix
    counts: EncodingCounts

    @property
    def notes(self) -> list[str]:
        """What to say aloud."""
        return self.counts.notes()


class FeatureEncoder:
    """Fitted preprocessing: which columns are used, how, and the numbers that takes. Build it with `fit`.

    Attributes:
        columns: what became of every column.
        notes: what a person should hear: columns left out, categories merged.
        sparse: whether `transform` gives CSR.

    >>> table = pa.table({"x": [1.0, 3.0, None], "c": ["a", "b", "a"], "y": [0, 1, 1]})
    >>> encoder = FeatureEncoder.fit(table, exclude=["y"])
    >>> encoder.feature_names
    ['x', 'x is missing', 'c=a', 'c=b']
    >>> encoder.transform(table).matrix
    array([[-1.,  0.,  1.,  0.],
           [ 1.,  0.,  0.,  1.],
           [ 0.,  1.,  1.,  0.]], dtype=float32)
    """

    def __init__(
        self,
        codes: Sequence[ColumnCode],
        columns: Sequence[ColumnSummary],
        notes: Sequence[str],
        excluded: Iterable[str],
    ):
        self._codes = list(codes)
        self._excluded = tuple(excluded)
        self.columns = list(columns)
        self.notes = list(notes)
        self.feature_names = [name for code in self._codes for name in code.feature_names]
        width = len(self.feature_names)
        filled = sum(1 if isinstance(code, CategoryCode) else len(code.feature_names) for code in self._codes)
        self.sparse = any(isinstance(code, TextCode) for code in self._codes) or (
            width > _DENSE_WIDTH and filled < _DENSE_SHARE * width
        )

    @property
    def column_types(self) -> dict[str, pa.DataType]:
        """Types to read the used columns as in a later file, for `read_table(column_types=…)`."""
        return {code.name: code.wanted for code in self._codes}

    @classmethod
    def fit(
        cls,
        table: pa.Table,
        *,
        exclude: Sequence[str],
        drop: Sequence[str] = (),
        rows: NDArray[np.int64] | None = None,
    ) -> FeatureEncoder:
        """Decide what each column is and fit its code.

        Args:
            table: the data.
            exclude: the target's columns, which are no features.
            drop: columns the user wants left out.
            rows: the training rows, ascending, from which everything is fitted; None for all. Passing them here spares
                a copy of the table.

        Raises:
            DataError: if a column to drop does not exist, a number is infinite (names row and column), or no column
                is of use.
        """
        origin = origin_of(table)
        for name in drop:
            if name not in table.column_names:
                raise unknown_column(name, table.column_names, what="asked to be dropped", origin=origin)
        if rows is not None:
            rows = np.asarray(rows, dtype=np.int64)
        if (table.num_rows if rows is None else len(rows)) == 0:
            raise DataError(f"{origin.place()}: there are no rows to learn from")
        codes: list[ColumnCode] = []
        columns: list[ColumnSummary] = []
        notes: list[str] = []
        left_out: dict[str, list[str]] = {}
        for name in table.column_names:
            if name in exclude:
                continue
            if name in drop:
                columns.append(ColumnSummary(name, "dropped", "as asked", 0))
                continue
            verdict = fit_column(name, table.column(name), rows, origin)
            if verdict.code is None:
                columns.append(ColumnSummary(name, "dropped", verdict.why, 0))
                left_out.setdefault(verdict.why, []).append(name)
                continue
            codes.append(verdict.code)
            columns.append(ColumnSummary(name, verdict.code.kind, verdict.why, len(verdict.code.feature_names)))
            if verdict.note:
                notes.append(f"column {name!r}: {verdict.note}")
        if not codes:
            reasons = "; ".join(f"{column.name!r}: {column.why}" for column in columns[:6])
            raise DataError(
                f"{origin.place()}: no column is left to learn from ({reasons or 'there is only the target'})"
            )
        for why, names in left_out.items():
            which = f"column {names[0]!r} is" if len(names) == 1 else f"{len(names)} columns are"
            listed = f" ({_listed(names)})" if len(names) > 1 else ""
            notes.append(f"{which} left out: {why}{listed}")
        return cls(codes, columns, notes, exclude)

    def transform(self, table: pa.Table, *, rows: NDArray[np.int64] | None = None) -> Encoded:
        """Encode a table; columns are found by name, so their order does not matter.

        Args:
            table: holds every column the encoder uses. Others are ignored, and counted as extra unless training had
                them too.
            rows: encode these rows only, in this order; None for all.

        Raises:
            DataError: for an absent column, infinity, or a cell that cannot be read as the type of training.
        """
        origin = origin_of(table)
        known = {column.name for column in self.columns} | set(self._excluded)
        held = set(table.column_names)
        absent = [code.name for code in self._codes if code.name not in held]
        if absent:
            error = unknown_column(absent[0], table.column_names, what="the model was trained on it", origin=origin)
            if len(absent) > 1:
                raise DataError(f"{error}. {len(absent)} columns are absent: {', '.join(map(repr, absent[:12]))}")
            raise error
        tally = Tally()
        count = table.num_rows if rows is None else len(rows)
        assembler = _Sparse(count, len(self.feature_names)) if self.sparse else _Dense(count, len(self.feature_names))
        index = None if rows is None else pa.array(np.asarray(rows, dtype=np.int64))
        for code in self._codes:
            column = table.column(code.name)
            if index is None:
                assembler.add(code.pieces(column, origin, tally))
                continue
            try:
                assembler.add(code.pieces(column.take(index), origin, tally))
            except DataError:
                code.pieces(column, origin, Tally())  # names the row as the file counts it
                raise
        counts = EncodingCounts(
            count,
            tally.unseen,
            tally.filled,
            tally.clipped,
            tuple(name for name in table.column_names if name not in known),
        )
        return Encoded(assembler.result(), counts)

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """A JSON-safe description and the arrays it names; `from_state` restores an encoder equal to the last bit."""
        arrays: dict[str, NDArray[Any]] = {}
        description = {
            "version": _VERSION,
            "codes": [code.state(f"column{i}", arrays) for i, code in enumerate(self._codes)],
            "columns": [
                {"name": each.name, "kind": each.kind, "why": each.why, "features": each.features}
                for each in self.columns
            ],
            "notes": list(self.notes),
            "excluded": list(self._excluded),
        }
        return description, arrays

    @classmethod
    def from_state(cls, description: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> FeatureEncoder:
        """Restore an encoder from `state`.

        Raises:
            ModelError: naming what is absent or wrong. Nothing in the description is executed.
        """
        if not isinstance(description, Mapping):
            raise ModelError("the model's feature description is not an object")
        version = description.get("version")
        if version != _VERSION:
            raise ModelError(
                f"the model's feature description has version {version!r}; this Kullback reads version {_VERSION}"
            )
        for key in ("codes", "columns", "notes", "excluded"):
            if not isinstance(description.get(key), list):
                raise ModelError(f"the model's feature description has no list {key!r}")
        for key in ("notes", "excluded"):
            if any(not isinstance(each, str) for each in description[key]):
                raise ModelError(f"the model's feature description holds a value in {key!r} that is not a string")
        for key in ("codes", "columns"):
            if any(not isinstance(each, Mapping) for each in description[key]):
                raise ModelError(f"the model's feature description holds an entry in {key!r} that is not an object")
        codes: list[ColumnCode] = []
        for values in description["codes"]:
            entry = Entry(values, arrays)
            if entry.kind not in _CODES:
                raise entry.wrong("kind", f"is {entry.kind!r}, not one of {', '.join(_CODES)}")
            codes.append(_CODES[entry.kind].from_state(entry))
        names = [code.name for code in codes]
        if not codes or len(set(names)) != len(names):
            raise ModelError("the model's feature description has no columns, or one twice")
        columns = []
        for values in description["columns"]:
            entry = Entry(values, arrays)
            columns.append(ColumnSummary(entry.name, entry.kind, entry.text("why"), int(entry.number("features"))))
        used = {column.name: (column.kind, column.features) for column in columns if column.kind != "dropped"}
        if used != {code.name: (code.kind, len(code.feature_names)) for code in codes}:
            raise ModelError("the model's feature description lists other columns than it describes")
        return cls(codes, columns, description["notes"], description["excluded"])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:8])) + (", …" if len(names) > 8 else "")


class _Dense:
    """Puts pieces side by side in a C-contiguous float32 matrix."""

    def __init__(self, rows: int, width: int):
        self._matrix = np.zeros((rows, width), dtype=np.float32)
        self._next = 0

    def add(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            if isinstance(piece, Vector):
                self._matrix[:, self._next] = piece.values
                self._next += 1
            elif isinstance(piece, Codes):
                rows = np.flatnonzero(piece.codes >= 0)
                self._matrix[rows, self._next + piece.codes[rows]] = 1.0
                self._next += piece.width
            else:
                raise AssertionError("an encoder with text is sparse")

    def result(self) -> NDArray[np.float32]:
        return self._matrix


class _Sparse:
    """Puts pieces side by side in a CSR float32 matrix, without a detour over coordinates."""

    def __init__(self, rows: int, width: int):
        self._rows, self._width = rows, width
        self._pieces: list[tuple[int, Piece]] = []
        self._next = 0

    def add(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            self._pieces.append((self._next, piece))
            self._next += (
                1 if isinstance(piece, Vector) else piece.width if isinstance(piece, Codes) else piece.rows.shape[1]
            )

    def result(self) -> sp.csr_matrix:
        per_row = np.zeros(self._rows, dtype=np.int64)
        for _, piece in self._pieces:
            if isinstance(piece, Vector):
                per_row += 1
            elif isinstance(piece, Codes):
                per_row += piece.codes >= 0
            else:
                per_row += np.diff(piece.rows.indptr)
        indptr = np.zeros(self._rows + 1, dtype=np.int64)
        np.cumsum(per_row, out=indptr[1:])
        entries = int(indptr[-1])
        indices = np.empty(entries, dtype=np.int32)
        data = np.empty(entries, dtype=np.float32)
        cursor = indptr[:-1].copy()  # where each row's next entry goes
        for offset, piece in self._pieces:
            if isinstance(piece, Vector):
                indices[cursor] = offset
                data[cursor] = piece.values
                cursor += 1
            elif isinstance(piece, Codes):
                filled = piece.codes >= 0
                at = cursor[filled]
                indices[at] = offset + piece.codes[filled]
                data[at] = 1.0
                cursor += filled
            else:
                piece.rows.sort_indices()
                starts, counts = piece.rows.indptr[:-1], np.diff(piece.rows.indptr)
                at = np.repeat(cursor - starts, counts) + np.arange(piece.rows.nnz)
                indices[at] = offset + piece.rows.indices
                data[at] = piece.rows.data
                cursor += counts
        if entries < 2**31:
            indptr = indptr.astype(np.int32)
        return sp.csr_matrix((data, indices, indptr), shape=(self._rows, self._width))
