"""Read a data file whole or in batches, by its suffix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from kullback.data import arrays, columnar, delimited
from kullback.data.coerce import coerce
from kullback.data.origin import Origin, origin_of
from kullback.errors import DataError

SUPPORTED_SUFFIXES = (
    ".csv",
    ".csv.gz",
    ".tsv",
    ".tsv.gz",
    ".txt",
    ".parquet",
    ".feather",
    ".arrow",
    ".npy",
    ".npz",
)
_DELIMITERS = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t", ".txt": "\t"}


def read_table(
    path: Path | str, *, target: str | None = None, column_types: Mapping[str, pa.DataType] | None = None
) -> pa.Table:
    """Read a data file whole.

    Args:
        path: a file with one of `SUPPORTED_SUFFIXES`. Delimited text is UTF-8 with a header line; its column types
            are inferred from all rows. The columns of a `.npy` matrix are x0, x1, …
        target: what the user gave as target. Only NumPy files need it here: for `X.npy` it may be the path of the
            target's own `.npy` file. `plan_target` understands the same spelling.
        column_types: types that a model's training settled (`FeatureEncoder.column_types`,
            `TargetPlan.column_types`); these columns are read as such instead of being inferred.

    Returns:
        The table, rows in file order, carrying its origin and `read_notes` in the schema's metadata.

    Raises:
        DataError: naming the file, and the line or the row and column at fault, and what to do.

    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "pets.csv"
    >>> _ = path.write_text("weight,kind\\n4.2,cat\\n?,dog\\n")
    >>> read_table(path).column("weight").to_pylist()
    [4.2, None]
    """
    path, suffix = _resolve(path)
    wanted = dict(column_types or {})
    if suffix in _DELIMITERS:
        return delimited.read_delimited(path, _DELIMITERS[suffix], wanted)
    if suffix == ".parquet":
        table = columnar.read_parquet(path)
    elif suffix in (".feather", ".arrow"):
        table = columnar.read_feather(path)
    elif suffix == ".npy":
        table = arrays.read_npy(path, target)
    else:
        table = arrays.read_npz(path)
    return _with_types(table, wanted)


def iter_batches(
    path: Path | str, batch_rows: int = 65536, *, column_types: Mapping[str, pa.DataType] | None = None
) -> Iterator[pa.Table]:
    """Read a data file in tables of at most `batch_rows` rows, in file order.

    Delimited text and Parquet are read in bounded memory; Feather by the record batches it was written in; NumPy
    files whole. A stream cannot look ahead to infer types, so the columns of delimited text come as text unless
    `column_types` names them; `FeatureEncoder.transform` and `TargetPlan.encode` read text as what they were trained
    on, so they need nothing more.

    Args:
        path: as `read_table`.
        batch_rows: the largest number of rows in a table.
        column_types: as `read_table`.

    Raises:
        DataError: as `read_table`; a fault further down the file is raised when it is reached.

    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "pets.csv"
    >>> _ = path.write_text("weight,kind\\n4.2,cat\\n9.8,dog\\n5.1,cat\\n")
    >>> [batch.num_rows for batch in iter_batches(path, 2)]
    [2, 1]
    """
    if batch_rows < 1:
        raise DataError(f"batch_rows is {batch_rows}; it must be at least 1")
    path, suffix = _resolve(path)
    wanted = dict(column_types or {})
    if suffix in _DELIMITERS:
        return _regroup(delimited.stream_delimited(path, _DELIMITERS[suffix], wanted), batch_rows)
    if suffix == ".parquet":
        pieces = columnar.stream_parquet(path, batch_rows)
    elif suffix in (".feather", ".arrow"):
        pieces = columnar.stream_feather(path)
    else:
        pieces = iter([arrays.read_npy(path, None) if suffix == ".npy" else arrays.read_npz(path)])
    return _regroup((_with_types(piece, wanted) for piece in pieces), batch_rows)


def _resolve(path: Path | str) -> tuple[Path, str]:
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path} is a directory; give a data file ({', '.join(SUPPORTED_SUFFIXES)})")
    if not path.exists():
        raise DataError(f"there is no file {path}")
    if not path.is_file():
        raise DataError(f"{path} is not a regular file")
    suffixes = [each.lower() for each in path.suffixes]
    suffix = "".join(suffixes[-2:]) if suffixes[-1:] == [".gz"] else "".join(suffixes[-1:])
    if suffix not in SUPPORTED_SUFFIXES:
        raise DataError(
            f"{path.name}: the suffix {suffix or 'is missing, and it'} says how to read a file; "
            f"supported are {', '.join(SUPPORTED_SUFFIXES)}"
        )
    try:
        with path.open("rb") as file:
            start = file.read(1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    if not start:
        raise DataError(f"{path.name} is empty")
    return path, suffix


def _with_types(table: pa.Table, wanted: Mapping[str, pa.DataType]) -> pa.Table:
    origin = origin_of(table)
    for index, name in enumerate(table.column_names):
        if name in wanted:
            table = table.set_column(index, name, coerce(table.column(index), wanted[name], name, origin))
    return origin.attach(table)


def _regroup(pieces: Iterator[pa.Table], batch_rows: int) -> Iterator[pa.Table]:
    """Tables of exactly `batch_rows` rows, the last one excepted, from pieces of any length."""
    held: list[pa.Table] = []
    rows = 0
    origin: Origin | None = None
    for piece in pieces:
        if origin is None:
            origin = origin_of(piece)
        held.append(piece.replace_schema_metadata(None))
        rows += piece.num_rows
        while rows >= batch_rows:
            # Column types may differ between record batches only in nullability; Arrow promotes what it can.
            joined = pa.concat_tables(held)
            yield origin.attach(joined.slice(0, batch_rows))
            origin = origin.moved(batch_rows)
            rest = joined.slice(batch_rows)
            held, rows = ([rest], rest.num_rows) if rest.num_rows else ([], 0)
    if rows and origin is not None:
        yield origin.attach(pa.concat_tables(held))
