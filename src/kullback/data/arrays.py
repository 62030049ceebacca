"""NumPy files: a matrix in `.npy` with its target in another, or named arrays in one `.npz`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kullback.data.origin import Origin
from kullback.errors import DataError


def read_npy(path: Path, target: str | None) -> pa.Table:
    """Read a matrix, (N, d) numbers, as columns x0, x1, …, and the target from a second `.npy` file.

    Args:
        path: the matrix. More than two axes are flattened to (N, d); a vector is one column.
        target: if it ends in ".npy", the file of the target, (N,) or (N, L), found as given or beside `path`; its
            columns are named after the file. Otherwise it is left to name a column.

    Raises:
        DataError: if a file is damaged, holds Python objects, or the lengths differ.
    """
    columns, notes = _columns("x", _load(path), path.name)
    origin = Origin(source=path.name, notes=tuple(notes))
    if target is not None and target.lower().endswith(".npy"):
        beside = [Path(target), path.parent / target]
        found = next((each for each in beside if each.is_file()), None)
        if found is None:
            raise DataError(f"there is no target file {target!r}, neither as given nor beside {path.name}")
        rows = len(next(iter(columns.values())))
        stem = found.stem if found.stem not in columns else f"target_{found.stem}"
        target_columns, target_notes = _columns(stem, _load(found), found.name, vector_name=stem)
        if any(len(column) != rows for column in target_columns.values()):
            count = len(next(iter(target_columns.values())))
            raise DataError(f"{path.name} has {rows} rows and {found.name} has {count}; they must be pairs")
        columns |= target_columns
        origin = Origin(source=path.name, notes=(*notes, *target_notes), aliases={target: tuple(target_columns)})
    return origin.attach(pa.table(columns))


def read_npz(path: Path) -> pa.Table:
    """Read named arrays of equal length as columns.

    The matrix called "X" (or "x", or the only one with two or more axes) becomes x0, x1, …; a vector becomes a
    column of its own name, and any other matrix becomes columns name0, name1, … that its name stands for as a target.

    Raises:
        DataError: if the file is damaged, holds Python objects, or the lengths differ.
    """
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in archive.files:
                arrays[key] = archive[key]
    except Exception as error:
        raise _refused(path.name, error) from None
    if not arrays:
        raise DataError(f"{path.name} holds no arrays")
    scalars = [key for key, array in arrays.items() if array.ndim == 0]
    notes = [f"{path.name}: {key!r} is a single value, not a column; left out" for key in scalars]
    arrays = {key: array for key, array in arrays.items() if array.ndim}
    lengths = {key: len(array) for key, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        shown = ", ".join(f"{key!r}: {length}" for key, length in lengths.items()) or "no vectors or matrices"
        raise DataError(f"{path.name}: its arrays must have the same number of rows; found {shown}")
    matrices = [key for key, array in arrays.items() if array.ndim > 1]
    features = next((key for key in ("X", "x") if key in arrays), matrices[0] if len(matrices) == 1 else None)
    columns: dict[str, pa.Array] = {}
    aliases: dict[str, tuple[str, ...]] = {}
    for key, array in arrays.items():
        made, said = _columns("x" if key == features else key, array, f"{path.name}, array {key!r}", vector_name=key)
        clash = sorted(set(made) & set(columns))
        if clash:
            raise DataError(f"{path.name}: two arrays give a column {clash[0]!r}; rename one of them")
        columns |= made
        notes += said
        if array.ndim > 1:
            aliases[key] = tuple(made)
    return Origin(source=path.name, notes=tuple(notes), aliases=aliases).attach(pa.table(columns))


def _load(path: Path) -> NDArray[Any]:
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:
        raise _refused(path.name, error) from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"{path.name} is an archive of several arrays; give it the suffix .npz")
    if array.ndim == 0:
        raise DataError(f"{path.name} holds a single value; a matrix (N, d) is needed")
    return array


def _columns(
    stem: str, array: NDArray[Any], place: str, *, vector_name: str | None = None
) -> tuple[dict[str, pa.Array], list[str]]:
    if array.dtype.kind not in "biufUSM" or array.dtype == np.longdouble:
        raise DataError(
            f"{place} holds {array.dtype}; numbers, booleans, strings and dates can be read. "
            "Convert it with .astype(...) and save it again"
        )
    if len(array) == 0:
        raise DataError(f"{place} has no rows")
    notes: list[str] = []
    if array.ndim == 1:
        matrix = array[:, None]
    else:
        matrix = array.reshape(len(array), -1)
        if array.ndim > 2:
            notes.append(f"{place}: shape {array.shape} read as {matrix.shape[1]} columns a row")
    if matrix.shape[1] == 0:
        raise DataError(f"{place} has shape {array.shape}: no columns")
    # One transposed copy, so that every column is contiguous and Arrow can take it as it is.
    by_column = np.ascontiguousarray(matrix.T)
    if by_column.dtype.kind == "S":
        try:
            by_column = np.char.decode(by_column, "utf-8")
        except UnicodeDecodeError:
            raise DataError(f"{place} holds bytes that are not UTF-8 text") from None
    if by_column.dtype.byteorder not in "=|" and by_column.dtype.kind in "iufM":
        by_column = by_column.astype(by_column.dtype.newbyteorder("="))
    if by_column.dtype.kind == "M":
        by_column = by_column.astype("datetime64[us]")
    if array.ndim == 1 and vector_name is not None:
        names = [vector_name]
    else:
        names = [f"{stem}{index}" for index in range(len(by_column))]
    return {name: pa.array(column) for name, column in zip(names, by_column, strict=True)}, notes


def _refused(name: str, error: Exception) -> DataError:
    """The error for a file that NumPy does not read; damage can surface there as any exception at all."""
    text = str(error)
    if "pickle" in text.lower() or "Object arrays" in text:
        return DataError(
            f"{name} holds Python objects (a pickle), which are never loaded because loading them can run code; "
            "save plain numbers or strings, for example np.save(path, array.astype(str))"
        )
    return DataError(f"{name} is not a NumPy file, or it is damaged: {text.splitlines()[0] if text else error!r}")
