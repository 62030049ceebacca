"""CSV and TSV, plain or gzipped: read whole with types inferred, or streamed as text."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from kullback.data.coerce import coerce, is_text
from kullback.data.missing import MISSING, missing_mask, without_missing
from kullback.data.origin import Origin
from kullback.data.text_faults import open_bytes, raise_if_not_utf8, raise_if_ragged, raise_if_unclosed
from kullback.errors import DataError

_BLOCK_BYTES = 4 << 20
_LARGEST_BLOCK_BYTES = 1 << 30
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True)
class _Layout:
    names: list[str]
    header_lines: int
    delimiter: str
    quoted: bool
    notes: tuple[str, ...]


def read_delimited(path: Path, delimiter: str, column_types: Mapping[str, pa.DataType]) -> pa.Table:
    """Read a whole file; types are inferred from all of its rows, except for the columns in `column_types`.

    Raises:
        DataError: for an empty or binary file, a repeated column name, a ragged row, bytes that are not UTF-8, or a
            cell that cannot be read as its column's type; the message names the line or the row and column.
    """
    layout = _layout(path, delimiter)
    origin = Origin(source=path.name, notes=layout.notes)
    table = _read_whole(path, layout, column_types)
    if table.num_rows == 0:
        raise DataError(f"{path.name} has a header line but no rows of data below it")
    for field in table.schema:
        if pa.types.is_binary(field.type):  # Arrow's inference falls back to bytes where text is not UTF-8
            raise_if_not_utf8(path)
    table, notes = _settle_text(table, column_types, origin)
    return Origin(source=path.name, notes=(*layout.notes, *notes)).attach(table)


def stream_delimited(path: Path, delimiter: str, column_types: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
    """Stream a file in pieces of a few MiB; every column is text, except those in `column_types`.

    Raises:
        DataError: as `read_delimited`, when the piece at fault is reached.
    """
    layout = _layout(path, delimiter)
    origin = Origin(source=path.name, notes=layout.notes)
    rows = 0
    for batch in _batches(path, layout):
        here = origin.moved(rows)
        columns = {}
        for name, column in zip(layout.names, batch.columns, strict=True):
            if name in column_types:
                columns[name] = coerce(column, column_types[name], name, here)
            else:
                columns[name] = without_missing(column, among_numbers=False)
        yield here.attach(pa.table(columns))
        rows += batch.num_rows
    if rows == 0:
        raise DataError(f"{path.name} has a header line but no rows of data below it")


def _read_whole(path: Path, layout: _Layout, column_types: Mapping[str, pa.DataType]) -> pa.Table:
    block = _first_block(layout)
    while True:
        try:
            return pacsv.read_csv(
                str(path),
                read_options=_read_options(layout, block),
                parse_options=_parse_options(layout),
                convert_options=_convert_options(column_types),
            )
        except (pa.ArrowException, OSError) as error:
            if not _row_outgrew_block(error) or block >= _LARGEST_BLOCK_BYTES:
                _explain(path, layout, error)
            block = min(8 * block, _LARGEST_BLOCK_BYTES)


def _batches(path: Path, layout: _Layout) -> Iterator[pa.RecordBatch]:
    """Record batches of text; a row longer than a block starts again with larger blocks, past the rows given."""
    block, given = _first_block(layout), 0
    while True:
        seen = 0
        try:
            reader = pacsv.open_csv(
                str(path),
                read_options=_read_options(layout, block),
                parse_options=_parse_options(layout),
                convert_options=_convert_options(layout.names),
            )
            for batch in reader:
                start = min(max(given - seen, 0), batch.num_rows)
                seen += batch.num_rows
                if batch.num_rows > start:
                    given = seen
                    yield batch.slice(start)
            return
        except (pa.ArrowException, OSError) as error:
            if not _row_outgrew_block(error) or block >= _LARGEST_BLOCK_BYTES:
                _explain(path, layout, error)
            block = min(8 * block, _LARGEST_BLOCK_BYTES)


def _layout(path: Path, delimiter: str) -> _Layout:
    """Settle how the file is written: one pass over its bytes, then its header line."""
    quotes = _scan(path)
    try:
        header, lines, line = _header(path, delimiter)
        notes: list[str] = []
        if len(header) == 1:
            # One column that holds other delimiters: far more often another dialect than a file of one odd column.
            counts = {each: line.count(each) for each in _DELIMITERS if each != delimiter}
            best = max(counts, key=lambda each: counts[each])
            if counts[best]:
                notes.append(f"{path.name} separates its columns by {_DELIMITERS[best]}")
                delimiter = best
                header, lines, line = _header(path, delimiter)
    except UnicodeDecodeError:
        raise_if_not_utf8(path)
        raise
    except csv.Error as error:
        raise DataError(f"{path.name}: the header line cannot be read: {error}") from None
    names, said = _names(path, header)
    if quotes % 2:
        raise_if_unclosed(path, delimiter)
    # Without a quote no cell spans lines, and Arrow can cut the file up for its threads.
    return _Layout(names, lines, delimiter, quotes > 0, (*notes, *said))


def _scan(path: Path) -> int:
    """Read every byte once, so that a damaged archive is found before anything else; how many quotes there are."""
    quotes = 0
    try:
        with open_bytes(path) as file:
            chunk = file.read(1 << 22)
            if not chunk:
                raise DataError(f"{path.name} is empty; it needs a header line of column names and rows of data")
            if chunk[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise DataError(f"{path.name} is UTF-16 text; save it as UTF-8 (for example: iconv -f UTF-16 -t UTF-8)")
            if chunk[:4] == b"PK\x03\x04":
                raise DataError(
                    f"{path.name} is a ZIP archive or a spreadsheet, not text; export the sheet as CSV first"
                )
            while chunk:
                quotes += chunk.count(b'"')
                chunk = file.read(1 << 22)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path.name} cannot be read to its end: {error}") from None
    return quotes


def _names(path: Path, header: list[str]) -> tuple[list[str], list[str]]:
    """Column names from the header's fields, and what is odd about them."""
    notes: list[str] = []
    names: list[str] = []
    for position, raw in enumerate(header, start=1):
        name = raw.strip()
        if not name:
            name = f"column_{position}"
            notes.append(f"column {position} has no name in the header; it is called {name!r} here")
        names.append(name)
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        places = ", ".join(str(position) for position, name in enumerate(names, start=1) if name == repeated)
        raise DataError(
            f"{path.name}: the column name {repeated!r} is used more than once (columns {places}); "
            "give every column its own name. If the file has no header line, add one"
        )
    if len(names) > 1 and all(_is_number(name) for name in names):
        notes.append(
            f"{path.name}: every column name is a number; if the file has no header line, add one, "
            "because its first row was taken for names"
        )
    return names, notes


def _header(path: Path, delimiter: str) -> tuple[list[str], int, str]:
    """The header's fields, how many lines they take (blank ones above included), and its text."""
    seen: list[str] = []

    def lines(text: io.TextIOWrapper) -> Iterator[str]:
        for line in text:
            seen.append(line)
            yield line

    with open_bytes(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(lines(text), delimiter=delimiter)
        for fields in reader:
            if fields:
                return fields, reader.line_num, seen[-1]
    raise DataError(f"{path.name} holds only blank lines; it needs a header line and rows of data")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _first_block(layout: _Layout) -> int:
    return max(_BLOCK_BYTES, 8 * sum(len(name) + 4 for name in layout.names))


def _read_options(layout: _Layout, block: int) -> pacsv.ReadOptions:
    return pacsv.ReadOptions(block_size=block, column_names=layout.names, skip_rows=layout.header_lines)


def _parse_options(layout: _Layout) -> pacsv.ParseOptions:
    return pacsv.ParseOptions(
        delimiter=layout.delimiter,
        newlines_in_values=layout.quoted,
        # In a file of one column an empty line is a row whose only cell is missing.
        ignore_empty_lines=len(layout.names) > 1,
    )


def _convert_options(as_text: Iterable[str]) -> pacsv.ConvertOptions:
    return pacsv.ConvertOptions(
        null_values=list(MISSING),
        strings_can_be_null=True,
        column_types=dict.fromkeys(as_text, pa.string()),
        true_values=["true", "True", "TRUE"],
        false_values=["false", "False", "FALSE"],
    )


def _row_outgrew_block(error: Exception) -> bool:
    return "straddling" in str(error)


def _explain(path: Path, layout: _Layout, error: Exception) -> NoReturn:
    """Turn Arrow's complaint into one that names the line, by reading the file again slowly."""
    try:
        raise_if_not_utf8(path)
        raise_if_ragged(path, layout.delimiter, len(layout.names))
    except (EOFError, OSError, zlib.error) as damage:
        raise DataError(f"{path.name} cannot be read to its end: {damage}") from None
    message = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "Empty CSV file" in message or "Could not skip initial" in message:
        raise DataError(f"{path.name} has a header line but no rows of data below it") from None
    raise DataError(f"{path.name} cannot be read: {message}") from None


def _settle_text(
    table: pa.Table, column_types: Mapping[str, pa.DataType], origin: Origin
) -> tuple[pa.Table, list[str]]:
    """Give columns the types asked for, and look at those that inference left as text for odd missing values."""
    notes: list[str] = []
    for index, name in enumerate(table.column_names):
        column = table.column(index)
        if name in column_types:
            table = table.set_column(index, name, coerce(column, column_types[name], name, origin))
            continue
        if not is_text(column.type):
            continue
        settled, note = _settle_column(column, name)
        if note:
            notes.append(note)
            table = table.set_column(index, name, settled)
    return table, notes


def _settle_column(column: pa.ChunkedArray, name: str) -> tuple[pa.ChunkedArray, str]:
    wide = missing_mask(column, among_numbers=True)
    if not pc.any(wide).as_py():
        return column, ""
    numbers = pc.if_else(wide, pa.scalar(None, column.type), pc.utf8_trim_whitespace(column))
    for kind in (pa.int64(), pa.float64()):
        try:
            settled = numbers.cast(kind)
        except pa.ArrowInvalid:
            continue
        return settled, _missing_note(column, wide, name)
    narrow = missing_mask(column, among_numbers=False)
    if not pc.any(narrow).as_py():
        return column, ""
    settled = pc.if_else(narrow, pa.scalar(None, column.type), column)
    return settled, _missing_note(column, narrow, name)


def _missing_note(column: pa.ChunkedArray, mask: pa.ChunkedArray, name: str) -> str:
    spellings = sorted(pc.unique(pc.utf8_trim_whitespace(column.filter(mask))).to_pylist())
    count = pc.sum(mask).as_py()
    shown = " or ".join(repr(each) for each in spellings)
    return f"column {name!r}: {count} {'cell' if count == 1 else 'cells'} spelled {shown} read as missing"
