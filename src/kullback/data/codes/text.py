"""Free text: hashed words with TF-IDF weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
from numpy.typing import NDArray

from kullback.data.codes.base import Piece, Rows, Tally
from kullback.data.codes.entry import Entry
from kullback.data.coerce import STRING, coerce
from kullback.data.origin import Origin

TEXT_BUCKETS = 2**15
_TEXT_ROWS_AT_ONCE = 20_000


@dataclass(frozen=True, eq=False)
class TextCode:
    """Hashed words weighted by TF-IDF, each row of unit length; a missing text is a row of zeros.

    A word is hashed to one of `TEXT_BUCKETS` buckets, so nothing but a weight a bucket is stored (Weinberger et al.,
    "Feature hashing for large scale multitask learning", ICML 2009). The weight of a word that occurs f times is
    (1 + ln f)·idf, idf = ln((1 + n)/(1 + df)) + 1 with n training rows of which df hold the bucket (Salton & Buckley,
    "Term-weighting approaches in automatic text retrieval", 1988; smoothed as in scikit-learn).

    Attributes:
        name: the column.
        buckets: (k,) int32, ascending: the buckets that training filled in at least two rows.
        idf: (k,) float64.
    """

    name: str
    buckets: NDArray[np.int32]
    idf: NDArray[np.float64]

    kind = "text"
    wanted = STRING

    @property
    def feature_names(self) -> list[str]:
        """One name a feature."""
        return [f"{self.name}#{bucket}" for bucket in self.buckets.tolist()]

    @classmethod
    def fit(cls, name: str, strings: pa.ChunkedArray) -> TextCode | None:
        """Fit on training texts; None if no word recurs."""
        frequency = np.zeros(TEXT_BUCKETS, dtype=np.int64)
        for counts in _hashed(strings):
            frequency += np.bincount(counts.indices, minlength=TEXT_BUCKETS)
        buckets = np.flatnonzero(frequency >= 2).astype(np.int32)
        if not len(buckets):
            return None
        rows = len(strings) - strings.null_count
        return cls(name, buckets, np.log((1 + rows) / (1 + frequency[buckets])) + 1)

    def pieces(self, column: pa.ChunkedArray, origin: Origin, tally: Tally) -> list[Piece]:
        """Features of a column, in the order of `feature_names`."""
        from sklearn.preprocessing import normalize

        strings = coerce(column, STRING, self.name, origin)
        weight = np.zeros(TEXT_BUCKETS)
        weight[self.buckets] = self.idf
        parts = []
        for counts in _hashed(strings):
            counts.data = (1 + np.log(counts.data)) * weight[counts.indices]
            kept = counts[:, self.buckets]
            parts.append(normalize(kept, copy=False).astype(np.float32))
        if not parts:
            return [Rows(sp.csr_matrix(np.zeros((0, len(self.buckets)), dtype=np.float32)))]
        return [Rows(sp.vstack(parts, format="csr"))]

    def state(self, prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
        """A JSON-safe description; arrays go to `arrays`."""
        arrays[f"{prefix}.buckets"] = self.buckets
        arrays[f"{prefix}.idf"] = self.idf
        return {"name": self.name, "kind": self.kind, "arrays": prefix}

    @classmethod
    def from_state(cls, entry: Entry) -> TextCode:
        """Read back what `state` wrote; `ModelError` says what is wrong with it."""
        buckets = entry.array("buckets", np.int32)
        idf = entry.array("idf", np.float64)
        if not len(buckets) or len(buckets) != len(idf):
            raise entry.wrong("arrays", f"has {len(buckets)} buckets and {len(idf)} weights")
        if (np.diff(buckets) <= 0).any() or buckets[0] < 0 or buckets[-1] >= TEXT_BUCKETS:
            raise entry.wrong("arrays", "has buckets out of order or range")
        if not (np.isfinite(idf).all() and (idf > 0).all()):
            raise entry.wrong("arrays", "has weights that are not positive numbers")
        return cls(entry.name, buckets, idf)


def _hashed(strings: pa.ChunkedArray) -> Iterator[sp.csr_matrix]:
    """Word counts in hash buckets, some thousand rows at a time."""
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(n_features=TEXT_BUCKETS, alternate_sign=False, norm=None)
    filled = pc.fill_null(strings, "")
    for start in range(0, len(filled), _TEXT_ROWS_AT_ONCE):
        yield vectorizer.transform(filled.slice(start, _TEXT_ROWS_AT_ONCE).to_pylist())
