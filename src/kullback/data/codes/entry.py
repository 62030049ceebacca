"""Reading a stored column description with every value checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kullback.errors import ModelError


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
