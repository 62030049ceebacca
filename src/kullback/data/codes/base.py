"""What every column code offers, and the pieces of a matrix it gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray

from kullback.data.origin import Origin


@dataclass(frozen=True, eq=False)
class Vector:
    """One dense feature, (N,) float32."""

    values: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Codes:
    """`width` features of which at most one is 1 in a row: its index, or -1 for none."""

    codes: NDArray[np.int32]
    width: int


@dataclass(frozen=True, eq=False)
class Rows:
    """Several sparse features, (N, k) CSR float32."""

    rows: sp.csr_matrix


Piece: TypeAlias = Vector | Codes | Rows


@dataclass
class Tally:
    """What encoding met that training did not prepare for; the encoder turns it into notes."""

    unseen: dict[str, int] = field(default_factory=dict)
    filled: dict[str, int] = field(default_factory=dict)
    clipped: dict[str, int] = field(default_factory=dict)


class ColumnCode(Protocol):
    """A fitted column."""

    @property
    def name(self) -> str:
        """The column."""

    @property
    def kind(self) -> str:
        """The kind of column."""

    @property
    def wanted(self) -> pa.DataType:
        """The type to read the column as."""

    @property
    def feature_names(self) -> list[str]:
        """One name a feature."""

    def pieces(self, column: pa.ChunkedArray, origin: Origin, tally: Tally) -> list[Piece]:
        """Features of a column, in the order of `feature_names`."""

    def state(self, prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
        """A JSON-safe description; large parts go to `arrays` under names that start with `prefix`."""
