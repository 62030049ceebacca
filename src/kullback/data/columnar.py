"""Parquet and Feather (Arrow IPC) files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from kullback.data.origin import Origin
from kullback.errors import DataError


def read_parquet(path: Path) -> pa.Table:
    """Read a whole Parquet file.

    Raises:
        DataError: if it is damaged or not Parquet.
    """
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, "Parquet", error) from None
    return _checked(table, path)


def stream_parquet(path: Path, batch_rows: int) -> Iterator[pa.Table]:
    """Stream a Parquet file in tables of at most `batch_rows` rows; raises `DataError` as `read_parquet`."""
    import pyarrow.parquet as pq

    rows = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=batch_rows):
            table = _checked(pa.Table.from_batches([batch]), path)
            yield Origin(source=path.name, first_row=rows).attach(table)
            rows += table.num_rows
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, "Parquet", error) from None
    if rows == 0:
        raise DataError(f"{path.name} has columns but no rows")


def read_feather(path: Path) -> pa.Table:
    """Read a whole Feather or Arrow IPC file (file or stream format).

    Raises:
        DataError: if it is damaged or neither.
    """
    return _checked(pa.Table.from_batches(list(_record_batches(path)), _feather_schema(path)), path)


def stream_feather(path: Path) -> Iterator[pa.Table]:
    """Stream an Arrow IPC file by its own record batches; raises `DataError` as `read_feather`."""
    rows = 0
    for batch in _record_batches(path):
        if batch.num_rows == 0:
            continue
        table = _checked(pa.Table.from_batches([batch]), path)
        yield Origin(source=path.name, first_row=rows).attach(table)
        rows += table.num_rows
    if rows == 0:
        raise DataError(f"{path.name} has columns but no rows")


def _feather_schema(path: Path) -> pa.Schema:
    with _ipc(path) as reader:
        return reader.schema


def _ipc(path: Path) -> pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader:
    try:
        with path.open("rb") as file:
            magic = file.read(6)
        if magic[:4] == b"FEA1":
            raise DataError(f"{path.name} is Feather version 1; write it again as version 2, or as Parquet")
        source = pa.memory_map(str(path))
        return pa.ipc.open_file(source) if magic == b"ARROW1" else pa.ipc.open_stream(source)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, "Feather", error) from None


def _record_batches(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        with _ipc(path) as reader:
            if isinstance(reader, pa.ipc.RecordBatchFileReader):
                for index in range(reader.num_record_batches):
                    yield reader.get_batch(index)
            else:
                yield from reader
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, "Feather", error) from None


def _checked(table: pa.Table, path: Path) -> pa.Table:
    try:
        # A damaged or edited file can hold offsets that point outside its buffers, or text that is not UTF-8.
        table.validate(full=True)
    except pa.ArrowException as error:
        raise _damaged(path, "sound", error) from None
    names = table.column_names
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise DataError(
            f"{path.name}: the column name {repeated!r} is used more than once; give every column its own name"
        )
    if not names:
        raise DataError(f"{path.name} has no columns")
    if table.num_rows == 0:
        raise DataError(f"{path.name} has columns but no rows")
    return Origin(source=path.name).attach(table)


def _damaged(path: Path, form: str, error: Exception) -> DataError:
    message = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataError(f"{path.name} is not a {form} file, or it is damaged: {message.rstrip('.')}")
