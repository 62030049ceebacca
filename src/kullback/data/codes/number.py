"""Numbers and booleans: standardised, with an indicator of missing values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kullback.data.codes.base import Codes, Piece, Tally, Vector
from kullback.data.codes.entry import Entry
from kullback.data.coerce import BOOLEAN, NUMBER, coerce
from kullback.data.origin import Origin
from kullback.errors import DataError

# Beyond this a square overflows float64 (and a float32 feature would mean nothing).
LARGEST_NUMBER = 1e150
# A later value this many standard deviations away is cut off there: float32 logits must stay finite.
_FARTHEST = 1e6


def numbers_of(column: pa.ChunkedArray, name: str, origin: Origin) -> NDArray[np.float64]:
    """A number-like or text column as (N,) float64, NaN where missing.

    Raises:
        DataError: naming the row, for infinity, a number beyond `LARGEST_NUMBER`, or text that is no number.
    """
    values = np.asarray(coerce(column, NUMBER, name, origin).to_numpy(), dtype=np.float64)
    with np.errstate(invalid="ignore"):
        beyond = np.abs(values) > LARGEST_NUMBER
    if beyond.any():
        row = int(np.argmax(beyond))
        what = "infinite" if np.isinf(values[row]) else f"beyond ±{LARGEST_NUMBER:g}"
        raise DataError(
            f"{origin.place(row, name)}: {values[row]:g} is {what}, which no model can weigh; leave the cell empty "
            f"if it means missing, or leave the column out of training (--drop)"
        )
    return values


@dataclass(frozen=True)
class NumberCode:
    """Standardised by the training mean and standard deviation; missing becomes the mean, with an indicator.

    Attributes:
        name: the column.
        mean, scale: of the training rows; scale 0 says the value itself was constant and only its absence tells.
        indicator: whether training had missing values, so that "is missing" is a feature.
        boolean: whether the column held true/false.
    """

    name: str
    mean: float
    scale: float
    indicator: bool
    boolean: bool = False

    @property
    def kind(self) -> str:
        """The kind of column."""
        return "boolean" if self.boolean else "numeric"

    @property
    def wanted(self) -> pa.DataType:
        """The type to read the column as."""
        return BOOLEAN if self.boolean else NUMBER

    @property
    def feature_names(self) -> list[str]:
        """One name a feature."""
        return [self.name] * (self.scale > 0) + [f"{self.name} is missing"] * self.indicator

    @classmethod
    def fit(cls, name: str, values: NDArray[np.float64], *, boolean: bool) -> NumberCode:
        """Fit on (n,) training values, NaN where missing; at least one is not."""
        missing = np.isnan(values)
        indicator = bool(missing.any())
        present = values[~missing] if indicator else values
        mean = float(present.mean())
        low, high = float(present.min()), float(present.max())
        scale = 0.0
        if low < high:
            # The spread of tiny numbers can underflow when squared; their range cannot.
            scale = float(present.std()) or high - low
        return cls(name, mean, scale, indicator, boolean)

    def pieces(self, column: pa.ChunkedArray, origin: Origin, tally: Tally) -> list[Piece]:
        """Features of a column, in the order of `feature_names`."""
        if self.boolean:
            column = coerce(column, BOOLEAN, self.name, origin)
        values = numbers_of(column, self.name, origin)
        missing = np.isnan(values)
        some_missing = bool(missing.any())
        made: list[Piece] = []
        if self.scale > 0:
            standard = values - self.mean
            standard /= self.scale
            if some_missing:
                standard[missing] = 0.0
            if len(standard) and max(standard.max(), -standard.min()) > _FARTHEST:
                tally.clipped[self.name] = int((np.abs(standard) > _FARTHEST).sum())
                np.clip(standard, -_FARTHEST, _FARTHEST, out=standard)
            made.append(Vector(standard.astype(np.float32)))
        if self.indicator:
            made.append(Codes(np.where(missing, 0, -1).astype(np.int32), 1))
        elif some_missing:
            tally.filled[self.name] = int(missing.sum())
        return made

    def state(self, prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
        """A JSON-safe description; arrays go to `arrays`."""
        return {
            "name": self.name,
            "kind": self.kind,
            "mean": self.mean,
            "scale": self.scale,
            "indicator": self.indicator,
        }

    @classmethod
    def from_state(cls, entry: Entry) -> NumberCode:
        """Read back what `state` wrote; `ModelError` says what is wrong with it."""
        scale = entry.number("scale")
        if scale < 0:
            raise entry.wrong("scale", "is negative")
        indicator = entry.flag("indicator")
        if not scale and not indicator:
            raise entry.wrong("scale", "is 0 although there is no indicator, so the column has no features")
        return cls(entry.name, entry.number("mean"), scale, indicator, entry.kind == "boolean")
