"""Categories: one feature a level."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kullback.data.codes.base import Codes, Piece, Tally
from kullback.data.codes.entry import Entry
from kullback.data.coerce import STRING, coerce
from kullback.data.origin import Origin


def level_hashes(levels: Iterable[str]) -> NDArray[np.int64]:
    """64-bit hashes of levels, in their order, the same on every machine."""
    digests = [hashlib.blake2b(level.encode(), digest_size=8).digest() for level in levels]
    return np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64)


@dataclass(frozen=True, eq=False)
class CategoryCode:
    """One feature a level; missing is a level of its own, rare levels share one, which unseen ones join.

    Attributes:
        name: the column.
        levels: sorted.
        missing: whether training had missing values.
        rare: (k,) int64, ascending: `level_hashes` of the levels too rare to keep. They tell a level that
            training met from one it never saw, and do not spell out values that may belong to one person.
    """

    name: str
    levels: tuple[str, ...]
    missing: bool
    rare: NDArray[np.int64]

    kind = "categorical"
    wanted = STRING

    @property
    def other(self) -> bool:
        """Whether rare and unseen levels have a feature."""
        return len(self.rare) > 0

    @property
    def width(self) -> int:
        """How many features."""
        return len(self.levels) + self.other + self.missing

    @property
    def feature_names(self) -> list[str]:
        """One name a feature."""
        names = [f"{self.name}={level}" for level in self.levels]
        return names + [f"{self.name}=(other)"] * self.other + [f"{self.name}=(missing)"] * self.missing

    def pieces(self, column: pa.ChunkedArray, origin: Origin, tally: Tally) -> list[Piece]:
        """Features of a column, in the order of `feature_names`."""
        strings = coerce(column, STRING, self.name, origin)
        found = pc.index_in(strings, value_set=pa.array(self.levels, STRING))
        codes = pc.fill_null(found, -1).to_numpy().astype(np.int32)
        unknown = codes < 0
        if unknown.any():
            absent = strings.is_null().to_numpy()
            strange = unknown & ~absent
            codes[strange] = len(self.levels) if self.other else -1
            codes[absent] = self.width - 1 if self.missing else -1
            unseen = self._count_unseen(strings.filter(pa.array(strange)))
            if unseen:
                tally.unseen[self.name] = unseen
            if absent.any() and not self.missing:
                tally.filled[self.name] = int(absent.sum())
        return [Codes(codes, self.width)]

    def _count_unseen(self, strange: pa.ChunkedArray) -> int:
        """How many of the values outside `levels` were not in training at all."""
        if not self.other:
            return len(strange)
        counted = pc.value_counts(strange)
        hashes = level_hashes(counted.field("values").to_pylist())
        return int(counted.field("counts").to_numpy()[~np.isin(hashes, self.rare)].sum())

    def state(self, prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
        """A JSON-safe description; arrays go to `arrays`."""
        arrays[f"{prefix}.rare"] = self.rare
        return {
            "name": self.name,
            "kind": self.kind,
            "levels": list(self.levels),
            "missing": self.missing,
            "arrays": prefix,
        }

    @classmethod
    def from_state(cls, entry: Entry) -> CategoryCode:
        """Read back what `state` wrote; `ModelError` says what is wrong with it."""
        levels = entry.strings("levels")
        if len(set(levels)) != len(levels):
            raise entry.wrong("levels", "holds a level twice")
        code = cls(entry.name, tuple(levels), entry.flag("missing"), entry.array("rare", np.int64))
        if not code.width:
            raise entry.wrong("levels", "is empty")
        return code
