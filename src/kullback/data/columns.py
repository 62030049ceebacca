"""How one column becomes features: a fitted, serialisable code for each kind of column.

A code is fitted on training rows, reads later columns as the type it was trained on, and gives `Piece`s that the
encoder puts together in one matrix. None of them looks at the target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
from numpy.typing import NDArray

from kullback.data.coerce import CLOCK, MOMENT, NUMBER, STRING, coerce
from kullback.data.origin import Origin
from kullback.errors import DataError, ModelError

# Beyond this a square overflows float64 (and a float32 feature would mean nothing).
LARGEST_NUMBER = 1e150
# A later value this many standard deviations away is cut off there: float32 logits must stay finite.
_FARTHEST = 1e6
TEXT_BUCKETS = 2**15
_TEXT_ROWS_AT_ONCE = 20_000
_DAY = 86_400_000_000  # microseconds


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
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def wanted(self) -> pa.DataType: ...
    @property
    def feature_names(self) -> list[str]: ...
    def pieces(self, column: pa.ChunkedArray, origin: Origin, tally: Tally) -> list[Piece]:
        """Features of a column, in the order of `feature_names`."""

    def state(self, prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
        """A JSON-safe description; large parts go to `arrays` under names that start with `prefix`."""


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
            f"if it means missing, or leave the column out (--drop {name})"
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
        return "boolean" if self.boolean else "numeric"

    @property
    def wanted(self) -> pa.DataType:
        return pa.bool_() if self.boolean else NUMBER

    @property
    def feature_names(self) -> list[str]:
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
        if self.boolean:
            column = coerce(column, pa.bool_(), self.name, origin)
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
        return {
            "name": self.name,
            "kind": self.kind,
            "mean": self.mean,
            "scale": self.scale,
            "indicator": self.indicator,
        }

    @classmethod
    def from_state(cls, entry: Entry) -> NumberCode:
        scale = entry.number("scale")
        if scale < 0:
            raise entry.wrong("scale", "is negative")
        indicator = entry.flag("indicator")
        if not scale and not indicator:
            raise entry.wrong("scale", "is 0 although there is no indicator, so the column has no features")
        return cls(entry.name, entry.number("mean"), scale, indicator, entry.kind == "boolean")


@dataclass(frozen=True)
class CategoryCode:
    """One feature a level; missing is a level of its own, rare levels share one, which unseen ones join.

    Attributes:
        name: the column.
        levels: sorted.
        missing: whether training had missing values.
        other: whether training had levels too rare to keep.
    """

    name: str
    levels: tuple[str, ...]
    missing: bool
    other: bool

    kind = "categorical"
    wanted = STRING

    @property
    def width(self) -> int:
        """How many features."""
        return len(self.levels) + self.other + self.missing

    @property
    def feature_names(self) -> list[str]:
        names = [f"{self.name}={level}" for level in self.levels]
        return names + [f"{self.name}=(other)"] * self.other + [f"{self.name}=(missing)"] * self.missing

    def pieces(self, column: pa.ChunkedArray, origin: Origin, tally: Tally) -> list[Piece]:
        strings = coerce(column, STRING, self.name, origin)
        found = pc.index_in(strings, value_set=pa.array(self.levels, STRING))
        codes = pc.fill_null(found, -1).to_numpy().astype(np.int32)
        unknown = codes < 0
        if unknown.any():
            absent = strings.is_null().to_numpy()
            # Which strange levels are new and which were rare in training cannot be told apart where rare ones were
            # merged, so only a column without "other" counts unseen values; see `rare`.
            strange = unknown & ~absent
            codes[strange] = len(self.levels) if self.other else -1
            codes[absent] = self.width - 1 if self.missing else -1
            if strange.any():
                tally.unseen[self.name] = int(strange.sum())
            if absent.any() and not self.missing:
                tally.filled[self.name] = int(absent.sum())
        return [Codes(codes, self.width)]

    def state(self, prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "levels": list(self.levels),
            "missing": self.missing,
            "other": self.other,
        }

    @classmethod
    def from_state(cls, entry: Entry) -> CategoryCode:
        levels = entry.strings("levels")
        if len(set(levels)) != len(levels):
            raise entry.wrong("levels", "holds a level twice")
        code = cls(entry.name, tuple(levels), entry.flag("missing"), entry.flag("other"))
        if not code.width:
            raise entry.wrong("levels", "is empty")
        return code


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
            return [Rows(sp.csr_matrix((0, len(self.buckets)), dtype=np.float32))]
        return [Rows(sp.vstack(parts, format="csr"))]

    def state(self, prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
        arrays[f"{prefix}.buckets"] = self.buckets
        arrays[f"{prefix}.idf"] = self.idf
        return {"name": self.name, "kind": self.kind, "arrays": prefix}

    @classmethod
    def from_state(cls, entry: Entry) -> TextCode:
        buckets = entry.array("buckets", np.int32)
        idf = entry.array("idf", np.float64)
        if not len(buckets) or len(buckets) != len(idf):
            raise entry.wrong("arrays", f"has {len(buckets)} buckets and {len(idf)} weights")
        if (np.diff(buckets) <= 0).any() or buckets[0] < 0 or buckets[-1] >= TEXT_BUCKETS:
            raise entry.wrong("arrays", "has buckets out of order or range")
        if not (np.isfinite(idf).all() and (idf > 0).all()):
            raise entry.wrong("arrays", "has weights that are not positive numbers")
        return cls(entry.name, buckets, idf)


def _hashed(strings: pa.ChunkedArray) -> list[sp.csr_matrix] | Any:
    """Word counts in hash buckets, some thousand rows at a time."""
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(n_features=TEXT_BUCKETS, alternate_sign=False, norm=None)
    filled = pc.fill_null(strings, "")
    for start in range(0, len(filled), _TEXT_ROWS_AT_ONCE):
        yield vectorizer.transform(filled.slice(start, _TEXT_ROWS_AT_ONCE).to_pylist())


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
        return CLOCK if self.clock else MOMENT

    @property
    def feature_names(self) -> list[str]:
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


@dataclass(frozen=True, eq=False)
class Entry:
    """One column's stored description, read with every value checked."""

    values: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]

    @property
    def name(self) -> str:
        """The column."""
        return self.text("name")

    @property
    def kind(self) -> str:
        """The kind of its code."""
        return self.text("kind")

    def wrong(self, key: str, what: str) -> ModelError:
        """The error for an entry that cannot be right."""
        return ModelError(f"the model's description of column {self.values.get('name')!r}: {key!r} {what}")

    def _value(self, key: str) -> Any:
        if key not in self.values:
            raise self.wrong(key, "is absent")
        return self.values[key]

    def text(self, key: str) -> str:
        """A string."""
        value = self._value(key)
        if not isinstance(value, str):
            raise self.wrong(key, f"is {value!r}, not a string")
        return value

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self._value(key)
        if not isinstance(value, bool):
            raise self.wrong(key, f"is {value!r}, not true or false")
        return value

    def number(self, key: str) -> float:
        """A finite number."""
        value = self._value(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise self.wrong(key, f"is {value!r}, not a finite number")
        return float(value)

    def strings(self, key: str) -> list[str]:
        """A list of strings."""
        value = self._value(key)
        if not isinstance(value, list) or any(not isinstance(each, str) for each in value):
            raise self.wrong(key, "is not a list of strings")
        return value

    def array(self, key: str, dtype: type) -> NDArray[Any]:
        """A vector of the given dtype."""
        full = f"{self.text('arrays')}.{key}"
        if full not in self.arrays:
            raise self.wrong("arrays", f"names {full!r}, which is absent")
        array = self.arrays[full]
        if array.ndim != 1 or array.dtype != dtype:
            raise self.wrong("arrays", f"has {full!r} of shape {array.shape} and type {array.dtype}")
        return array
