"""Find what is wrong with a text file, and name its line: read slowly, only when something is known to be wrong."""

from __future__ import annotations

import csv
import gzip
import io
from itertools import chain
from pathlib import Path
from typing import IO

from kullback.errors import DataError


def open_bytes(path: Path) -> IO[bytes]:
    """A file's bytes, decompressed if its name ends in .gz."""
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]


def raise_if_ragged(path: Path, delimiter: str, expected: int) -> None:
    """Name the first row that has another number of fields than the header."""
    with open_bytes(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, delimiter=delimiter)
        before = 0
        try:
            for fields in reader:
                if fields and len(fields) != expected:
                    raise DataError(
                        f"{path.name}, line {before + 1}: {len(fields)} "
                        f"{'field' if len(fields) == 1 else 'fields'} where the header has {expected}; "
                        "quote a cell that holds the delimiter, or mend the row"
                    )
                before = reader.line_num
        except csv.Error as error:
            raise DataError(f"{path.name}, line {before + 1}: {error}; look for a quote that is never closed") from None


def raise_if_unclosed(path: Path, delimiter: str) -> None:
    """A quote that is never closed would silently make one cell of the rest of the file."""
    sentinel = "\x00end of file"
    with open_bytes(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="") as text:
        reader = csv.reader(chain(text, ["\n", sentinel]), delimiter=delimiter)
        before = 0
        last: list[str] = []
        start = 1
        try:
            for fields in reader:
                last, start, before = fields, before + 1, reader.line_num
        except csv.Error:
            last, start = [], before + 1
    if last != [sentinel]:
        raise DataError(
            f"{path.name}, line {start}: a quote is opened and never closed; close it, or double it if it is text"
        )


def raise_if_not_utf8(path: Path) -> None:
    """Find the first byte sequence that is not UTF-8 and name its line."""
    line, offset, rest = 1, 0, b""
    with open_bytes(path) as file:
        while True:
            chunk = file.read(1 << 20)
            data = rest + chunk
            try:
                data.decode("utf-8")
                rest = b""
            except UnicodeDecodeError as error:
                # A sequence cut by the end of the chunk is only bad if nothing follows it.
                if not chunk or error.end < len(data) or len(data) - error.start >= 4:
                    line += data.count(b"\n", 0, error.start)
                    raise DataError(
                        f"{path.name}, line {line}: byte 0x{data[error.start]:02x} (offset "
                        f"{offset + error.start}) is not UTF-8 text; save the file as UTF-8 "
                        "(for example: iconv -f WINDOWS-1252 -t UTF-8)"
                    ) from None
                rest = data[error.start :]
            done = data[: len(data) - len(rest)]
            line += done.count(b"\n")
            offset += len(done)
            if not chunk:
                return
