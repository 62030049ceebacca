"""The state of an unfinished fit in a file, so that a fit that was killed goes on where it was.

The file is in the safetensors format, which holds arrays and a few strings and can execute nothing. It is replaced in
one step, so whoever reads it finds one whole state, and it names the data and the settings it belongs to.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from scipy import sparse

from kullback.atomic import atomic_file
from kullback.errors import InputError
from kullback.linear.solvers import IterationRecord
from kullback.targets import Targets

Vector = NDArray[np.float64]

# Seconds between two states; more where writing one takes longer than a twentieth of that.
EVERY_SECONDS = 5.0
WRITING_SHARE = 0.05
_FORMAT = "kullback linear checkpoint 1"


@dataclass(frozen=True, eq=False)
class State:
    """How far a fit has come.

    Attributes:
        weights: (d, C) of the logits.
        intercept: (C,).
        history: the records up to there.
    """

    weights: Vector
    intercept: Vector
    history: list[IterationRecord]


class Checkpoint:
    """A file that holds the last state of one fit.

    Args:
        path: the file.
        identity: what the fit is of, by name; a file whose identity differs is refused.

    Raises:
        InputError: for a path that cannot hold a file.
    """

    def __init__(self, path: str | PathLike[str], identity: Mapping[str, str]) -> None:
        self.path = Path(path)
        self._identity = dict(identity)
        self._due = time.monotonic() + EVERY_SECONDS
        if self.path.is_dir():
            raise InputError(f"checkpoint={str(self.path)!r} is a directory; give the name of a file")
        if not self.path.parent.is_dir():
            raise InputError(f"checkpoint={str(self.path)!r}: the directory {self.path.parent} does not exist")

    @property
    def due(self) -> bool:
        """Whether it is time to write the state again."""
        return time.monotonic() >= self._due

    def load(self, shape: tuple[int, int]) -> State | None:
        """The state in the file, or None if there is no file.

        Args:
            shape: (d, C) of the weights.

        Raises:
            InputError: if the file is no checkpoint, or one of another fit; the message says what differs.
        """
        found = self._read()
        if found is None:
            return None
        arrays, _ = found
        weights, intercept, history = (arrays.get(name) for name in ("weights", "intercept", "history"))
        if (
            weights is None
            or intercept is None
            or history is None
            or weights.shape != shape
            or intercept.shape != shape[1:]
            or not (_holds_records(history) and np.isfinite(weights).all() and np.isfinite(intercept).all())
        ):
            raise self._damaged()
        return State(weights, intercept, records_of(history))

    def save(self, weights: Vector, intercept: Vector, history: Sequence[IterationRecord]) -> None:
        """Replace the file by this state."""
        self._write(
            {
                "weights": np.ascontiguousarray(weights),
                "intercept": np.ascontiguousarray(intercept),
                "history": records_as_array(history),
            }
        )

    def _read(self) -> tuple[dict[str, Any], dict[str, str]] | None:
        """The arrays in the file and what is said of them, once it is sure that they are of this fit."""
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="numpy") as file:
                about = dict(file.metadata() or {})
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"checkpoint={str(self.path)!r} cannot be read: {error}; delete it or give another path"
            ) from error
        if about.get("format") != _FORMAT:
            raise InputError(
                f"checkpoint={str(self.path)!r} is not a checkpoint of this version of Kullback; give another path"
            )
        there = json.loads(about["identity"])
        for name, value in self._identity.items():
            if there.get(name) != value:
                raise InputError(
                    f"checkpoint={str(self.path)!r} belongs to another fit: its {name} is "
                    f"{_shortened(there.get(name))}, here it is {_shortened(value)}; "
                    "delete the file or give another path"
                )
        return arrays, about

    def _write(self, arrays: dict[str, NDArray[Any]], **about: str) -> None:
        """Replace the file in one step."""
        began = time.monotonic()
        content = save(arrays, {"format": _FORMAT, "identity": json.dumps(self._identity), **about})
        with atomic_file(self.path) as file:
            file.write(content)
        took = time.monotonic() - began
        self._due = time.monotonic() + max(EVERY_SECONDS, took / WRITING_SHARE)

    def _damaged(self) -> InputError:
        return InputError(f"checkpoint={str(self.path)!r} is damaged; delete it")

    def remove(self) -> None:
        """Delete the file, if there is one."""
        self.path.unlink(missing_ok=True)


def records_as_array(history: Sequence[IterationRecord]) -> NDArray[np.float64]:
    """The records of a fit, one a row."""
    return np.array([astuple(record) for record in history], dtype=np.float64)


def records_of(rows: NDArray[np.float64]) -> list[IterationRecord]:
    """The inverse of `records_as_array`."""
    return [IterationRecord(int(row[0]), *row[1:]) for row in rows.tolist()]


def _holds_records(rows: Any) -> bool:
    return bool(rows.ndim == 2 and len(rows) and rows.shape[1] == len(fields(IterationRecord)))


def fingerprint(*arrays: Any) -> str:
    """A digest of arrays, dense or sparse, the same for any memory layout.

    Args:
        arrays: arrays, sparse matrices, wrapped targets, or None.
    """
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        for part in _parts(array):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            rows = max(1, (1 << 22) // max(1, part[:1].nbytes))
            for start in range(0, len(part), rows):
                digest.update(np.ascontiguousarray(part[start : start + rows]).data)
    return digest.hexdigest()


def _parts(array: Any) -> list[NDArray[Any]]:
    if array is None:
        return [np.zeros(0)]
    is_sparse = bool(sparse.issparse(array))
    if is_sparse:
        return [np.asarray(array.shape), array.indptr, array.indices, array.data]
    if isinstance(array, np.ndarray):
        return [array]
    return [np.atleast_1d(np.asarray(getattr(array, field.name))) for field in fields(array)]


def targets_fingerprint(targets: Targets) -> str:
    """A digest of wrapped targets."""
    return type(targets).__name__ + " " + fingerprint(targets)


def _shortened(value: str | None) -> str:
    text = "not known" if value is None else value
    return text if len(text) <= 60 else f"{text[:57]}…"
