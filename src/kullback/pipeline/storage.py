"""A model as a directory: `model.json`, arrays in safetensors files, and the report.

`model.json` holds everything that is not an array, with the size and SHA-256 of every array file and a checksum of
itself. The checksums catch truncation, bad copies and hand edits; they are no signature. Reading parses JSON and
safetensors only, and never executes anything.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kullback.atomic import atomic_directory
from kullback.errors import InputError, ModelError

FORMAT = "kullback-model"
SCHEMA_VERSION = 1
DOCUMENT = "model.json"
REPORT = "report.html"
_SUFFIX = ".safetensors"

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class StoredModel:
    """What a model directory holds.

    Attributes:
        document: the contents of `model.json`, without the entries this module adds (format, schema_version,
            files, checksum).
        arrays: for each array file, without its suffix ("weights"), its arrays by name.
    """

    document: dict[str, Any]
    arrays: dict[str, Arrays] = field(default_factory=dict)


def write_model(path: Path, stored: StoredModel, *, report: str | None = None, overwrite: bool = False) -> None:
    """Write a model directory, whole or not at all.

    Args:
        path: the directory to make.
        stored: what to write.
        report: HTML text for `report.html`, or None for no report.
        overwrite: replace an existing model directory. Anything else at `path` is refused.

    Raises:
        InputError: `path` exists and may not be replaced, or cannot be written.
    """
    with atomic_directory(path, overwrite=overwrite, check_replaceable=check_replaceable) as part:
        files: dict[str, dict[str, Any]] = {}
        for name, arrays in stored.arrays.items():
            contents = _pack(arrays)
            (part / (name + _SUFFIX)).write_bytes(contents)
            files[name + _SUFFIX] = {"bytes": len(contents), "sha256": hashlib.sha256(contents).hexdigest()}
        document: dict[str, Any] = {"format": FORMAT, "schema_version": SCHEMA_VERSION}
        document |= stored.document
        document["files"] = files
        document["checksum"] = _checksum(document)
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        # surrogatepass would write invalid UTF-8; a lone surrogate cannot come out of UTF-8 data.
        (part / DOCUMENT).write_text(text + "\n", encoding="utf-8")
        if report is not None:
            (part / REPORT).write_text(report, encoding="utf-8")


def read_model(path: Path) -> StoredModel:
    """Read and check a model directory.

    Args:
        path: the directory.

    Raises:
        ModelError: it is missing, is not a model, comes from a newer version, or a file of it is missing,
            truncated or changed; the message names the file and what to do.
    """
    document = _read_document(path)
    arrays = {}
    files = document.pop("files")
    for name, expected in files.items():
        arrays[name.removesuffix(_SUFFIX)] = _read_arrays(path / name, expected)
    for key in ("format", "schema_version", "checksum"):
        del document[key]
    return StoredModel(document, arrays)


def check_replaceable(path: Path) -> None:
    """Raise unless `path` is a Kullback model directory and holds nothing but the model.

    Raises:
        InputError: the directory is something else, or somebody keeps other files in it.
    """
    foreign = f"{path} exists and is not a Kullback model directory, so it is not replaced; give another directory"
    try:
        document = json.loads((path / DOCUMENT).read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise InputError(foreign)
        ours = {DOCUMENT, REPORT, *document["files"]}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(foreign) from error
    others = sorted(entry.name for entry in path.iterdir() if entry.name not in ours or not entry.is_file())
    if others:
        raise InputError(
            f"{path} holds {_some(others)} beside the model, so it is not replaced; "
            "move that away, or give another directory"
        )


def _read_document(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise ModelError(f"no such model: {path} does not exist")
    if not path.is_dir():
        raise ModelError(f"{path} is a file; a model is a directory, as written by `kullback fit`")
    file = path / DOCUMENT
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ModelError(f"{path} is not a Kullback model: it has no {DOCUMENT}") from None
    except UnicodeDecodeError as error:
        raise ModelError(f"{file} is not UTF-8 text (byte {error.start}); {_AGAIN}") from error
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror or error}") from error
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        where = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else error
        raise ModelError(f"{file} is truncated or damaged ({where}); {_AGAIN}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ModelError(f'{file} does not say "format": "{FORMAT}", so {path} is not a Kullback model')
    version = document.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        writer = document.get("kullback_version", "a newer version")
        raise ModelError(
            f"{file} has schema version {version}, written by Kullback {writer}; this version reads up to "
            f"{SCHEMA_VERSION}. Upgrade with: pip install --upgrade kullback"
        )
    if document.get("checksum") != _checksum(document):
        raise ModelError(f"{file} does not match its own checksum: it was edited or damaged; {_AGAIN}")
    if version != SCHEMA_VERSION or not _files_are_sane(document.get("files")):
        raise ModelError(f"{file} has no usable schema_version and list of files; {_AGAIN}")
    return document


def _files_are_sane(files: Any) -> bool:
    # A name with a separator would read outside the directory.
    return isinstance(files, dict) and all(
        Path(name).name == name
        and name.endswith(_SUFFIX)
        and isinstance(entry, dict)
        and isinstance(entry.get("bytes"), int)
        and isinstance(entry.get("sha256"), str)
        for name, entry in files.items()
    )


def _read_arrays(file: Path, expected: Mapping[str, Any]) -> Arrays:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        contents = file.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{file.parent} lacks {file.name}, which its {DOCUMENT} lists; {_AGAIN}") from None
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror or error}") from error
    if len(contents) != expected["bytes"]:
        raise ModelError(
            f"{file} has {len(contents)} bytes where {expected['bytes']} were written: it was truncated or changed; "
            f"{_AGAIN}"
        )
    if hashlib.sha256(contents).hexdigest() != expected["sha256"]:
        raise ModelError(f"{file} does not match its checksum in {DOCUMENT}: it was edited or damaged; {_AGAIN}")
    try:
        arrays: Arrays = load(contents)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{file} is not a readable safetensors file ({error}); {_AGAIN}") from error
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ModelError(f"{file} holds values in {name!r} that are not finite; {_AGAIN}")
    return arrays


def _pack(arrays: Arrays) -> bytes:
    from safetensors.numpy import save

    # safetensors stores the buffer as it lies in memory, so a transposed view would come back scrambled.
    return bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def _checksum(document: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in document.items() if key != "checksum"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def finite_or_none(value: Any) -> Any:
    """What JSON can hold: None in place of a float that is infinite or NaN, anything else as it is.

    >>> finite_or_none(0.5), finite_or_none(float("inf")), finite_or_none(3)
    (0.5, None, 3)
    """
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _some(names: list[str], shown: int = 3) -> str:
    text = ", ".join(repr(name) for name in names[:shown])
    return text if len(names) <= shown else f"{text} and {len(names) - shown} more"


_AGAIN = "restore the directory from a copy, or fit the model again"
