"""Where a table came from: carried in its schema metadata, so that an error far downstream can name file and row."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pyarrow as pa

from kullback.errors import DataError

_KEY = b"kullback"


@dataclass(frozen=True)
class Origin:
    """What a reader knows about a table.

    Attributes:
        source: the file's name as the user gave it, or "" for a table that was made in memory.
        first_row: how many data rows of the file come before this table (batches of a stream).
        notes: what the reader noticed and a person should hear.
        aliases: spellings of a target and the columns they stand for, e.g. {"y.npy": ("y",)}.
    """

    source: str = ""
    first_row: int = 0
    notes: tuple[str, ...] = ()
    aliases: dict[str, tuple[str, ...]] | None = None

    def place(self, row: int | None = None, column: str | None = None) -> str:
        """Name a place for an error message; `row` counts from 0 within the table, people's rows count from 1."""
        parts = [self.source] if self.source else []
        if row is not None:
            parts.append(f"data row {self.first_row + row + 1}")
        if column is not None:
            parts.append(f"column {column!r}")
        return ", ".join(parts) or "table"

    def attach(self, table: pa.Table) -> pa.Table:
        """The same table, carrying this origin."""
        value = json.dumps(
            {
                "source": self.source,
                "first_row": self.first_row,
                "notes": list(self.notes),
                "aliases": {key: list(names) for key, names in (self.aliases or {}).items()},
            }
        )
        return table.replace_schema_metadata({_KEY: value.encode()})

    def moved(self, rows: int) -> Origin:
        """The origin of a part that starts `rows` further down."""
        return replace(self, first_row=self.first_row + rows)


def origin_of(table: pa.Table) -> Origin:
    """What is known of where `table` came from; an empty `Origin` if nothing is."""
    raw = (table.schema.metadata or {}).get(_KEY)
    if raw is None:
        return Origin()
    # A Parquet or Feather file may hold a foreign value under our key; that is no reason to fail.
    try:
        found = json.loads(raw)
        return Origin(
            source=str(found["source"]),
            first_row=int(found["first_row"]),
            notes=tuple(str(note) for note in found["notes"]),
            aliases={str(key): tuple(map(str, names)) for key, names in found["aliases"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return Origin()


def read_notes(table: pa.Table) -> list[str]:
    """What the reader noticed in the file: unusual delimiters, unusual spellings of a missing value, and so on."""
    return list(origin_of(table).notes)


def unknown_column(name: str, known: Iterable[str], *, what: str, origin: Origin) -> DataError:
    """The error for a column that is not there, with the closest names that are."""
    names = list(known)
    folded: dict[str, str] = {}
    for each in names:
        folded.setdefault(each.strip().casefold(), each)
    close = difflib.get_close_matches(name.strip().casefold(), list(folded), n=3, cutoff=0.6)
    if close:
        advice = "did you mean " + " or ".join(repr(folded[each]) for each in close) + "?"
    else:
        shown = ", ".join(repr(each) for each in names[:12])
        advice = f"the columns are {shown}" + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    where = f"{origin.source}: " if origin.source else ""
    return DataError(f"{where}there is no column {name!r} ({what}); {advice}")
