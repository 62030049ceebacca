"""Dates and times: a trend and the cycles of year, week and day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kullback.data.codes.base import Codes, Piece, Tally, Vector
from kullback.data.codes.entry import Entry
from kullback.data.coerce import CLOCK, MOMENT, coerce
from kullback.data.origin import Origin

_DAY = 86_400_000_000  # microseconds
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MOMENT_PARTS = ("trend", "year", "week", "day")


@dataclass(frozen=True)
class MomentCode:
    """A date or time: its trend (standardised), the season as sine and cosine, the weekday, the hour likewise.

    Attributes:
        name: the column.
        clock: whether it is a time of day, without a date.
        mean, scale: of the moment in days since 1970 (or of a time of day).
        parts: which of "trend", "year", "week" and "day" varied in training.
        indicator: whether training had missing values.
    """

    name: str
    clock: bool
    mean: float
    scale: float
    parts: tuple[str, ...]
    indicator: bool

    kind = "moment"

    @property
    def wanted(self) -> pa.DataType:
        """The type to read the column as."""
        return CLOCK if self.clock else MOMENT

    @property
    def feature_names(self) -> list[str]:
        """One name a feature."""
        by_part = {
            "trend": [self.name],
            "year": [f"{self.name} year sine", f"{self.name} year cosine"],
            "week": [f"{self.name}={day}" for day in _WEEKDAYS],
            "day": [f"{self.name} day sine", f"{self.name} day cosine"],
        }
        names = [name for part in self.parts for name in by_part[part]]
        return names + [f"{self.name} is missing"] * self.indicator

    @classmethod
    def fit(cls, name: str, column: pa.ChunkedArray) -> MomentCode:
        """Fit on a training column of type MOMENT or CLOCK with at least two different values."""
        clock = column.type == CLOCK
        micros = column.drop_null().cast(pa.int64()).to_numpy()
        days = micros / _DAY
        parts = ["trend"]
        if not clock and days.max() - days.min() >= 60:
            parts.append("year")
        if not clock and len(np.unique(micros // _DAY % 7)) > 1:
            parts.append("week")
        if len(np.unique(micros % _DAY)) > 1:
            parts.append("day")
        scale = float(days.std()) or 1.0
        return cls(name, clock, float(days.mean()), scale, tuple(parts), column.null_count > 0)

    def pieces(self, column: pa.ChunkedArray, origin: Origin, tally: Tally) -> list[Piece]:
        """Features of a column, in the order of `feature_names`."""
        moments = coerce(column, self.wanted, self.name, origin)
        missing = moments.is_null().to_numpy()
        some_missing = bool(missing.any())
        micros = pc.fill_null(moments.cast(pa.int64()), 0).to_numpy()
        made: list[Piece] = []
        if "trend" in self.parts:
            made.append(_vector((micros / _DAY - self.mean) / self.scale, missing))
        if "year" in self.parts:
            dates = (micros // _DAY).astype("datetime64[D]")
            angle = (dates - dates.astype("datetime64[Y]")).astype(np.float64) * (2 * np.pi / 365.25)
            made += [_vector(np.sin(angle), missing), _vector(np.cos(angle), missing)]
        if "week" in self.parts:
            weekday = (micros // _DAY + 3) % 7  # 1 January 1970 was a Thursday
            made.append(Codes(np.where(missing, -1, weekday).astype(np.int32), 7))
        if "day" in self.parts:
            angle = (micros % _DAY) * (2 * np.pi / _DAY)
            made += [_vector(np.sin(angle), missing), _vector(np.cos(angle), missing)]
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
            "clock": self.clock,
            "mean": self.mean,
            "scale": self.scale,
            "parts": list(self.parts),
            "indicator": self.indicator,
        }

    @classmethod
    def from_state(cls, entry: Entry) -> MomentCode:
        """Read back what `state` wrote; `ModelError` says what is wrong with it."""
        parts = entry.strings("parts")
        if parts != [part for part in _MOMENT_PARTS if part in parts] or "trend" not in parts:
            raise entry.wrong("parts", f"is {parts}")
        if entry.number("scale") <= 0:
            raise entry.wrong("scale", "is not positive")
        return cls(
            entry.name,
            entry.flag("clock"),
            entry.number("mean"),
            entry.number("scale"),
            tuple(parts),
            entry.flag("indicator"),
        )


def _vector(values: NDArray[np.float64], missing: NDArray[np.bool_]) -> Vector:
    return Vector(np.where(missing, 0.0, values).astype(np.float32))
