"""The same numbers in every memory layout NumPy can make, and outputs that notice a stray write."""

from __future__ import annotations

import math

import numpy as np

VECTORS = ("plain", "stepped", "reversed", "unaligned", "packed", "read only", "swapped")
MATRICES = (
    "plain",
    "fortran",
    "padded rows",
    "stepped rows",
    "stepped columns",
    "reversed rows",
    "reversed columns",
    "reversed both",
    "unaligned",
    "packed",
    "read only",
    "from a cube",
)
OUTPUTS = tuple(name for name in MATRICES if name != "read only")


def lay_out(name, array):
    """`array` in the named layout; always a new array."""
    view, _ = guarded(name, array.shape, array.dtype)
    view.flags.writeable = True
    view[...] = array
    if name == "read only":
        view.flags.writeable = False
    return view


def guarded(name, shape, dtype):
    """An uninitialised array in the named layout, and a function that says whether memory around it was touched."""
    dtype = np.dtype(dtype)
    if name == "swapped":
        dtype = dtype.newbyteorder("S")
    rows = shape[0]
    if len(shape) == 1:
        make = {
            "stepped": lambda: _inner((2 * rows + 1,), dtype, slice(1, None, 2)),
            "reversed": lambda: _inner((rows + 2,), dtype, slice(rows, 0, -1)),
            "unaligned": lambda: _unaligned(shape, dtype),
            "packed": lambda: _packed(shape, dtype),
        }.get(name, lambda: _inner((rows + 2,), dtype, slice(1, rows + 1)))
        return make()
    columns = shape[1]
    up, down = slice(1, rows + 1), slice(rows, 0, -1)
    right, left = slice(1, columns + 1), slice(columns, 0, -1)
    make = {
        "fortran": lambda: _inner((columns, rows), dtype, (slice(None), slice(None)), transpose=True),
        "padded rows": lambda: _inner((rows, columns + 2), dtype, (slice(None), right)),
        "stepped rows": lambda: _inner((2 * rows + 1, columns), dtype, (slice(1, None, 2), slice(None))),
        "stepped columns": lambda: _inner((rows, 3 * columns + 1), dtype, (slice(None), slice(1, None, 3))),
        "reversed rows": lambda: _inner((rows + 2, columns), dtype, (down, slice(None))),
        "reversed columns": lambda: _inner((rows, columns + 2), dtype, (slice(None), left)),
        "reversed both": lambda: _inner((rows + 2, columns + 2), dtype, (down, left)),
        "unaligned": lambda: _unaligned(shape, dtype),
        "packed": lambda: _packed(shape, dtype),
        "from a cube": lambda: _inner((rows, 2, columns + 1), dtype, (slice(None), 1, right)),
    }.get(name, lambda: _inner((rows + 2, columns), dtype, (up, slice(None))))
    return make()


def overlapping(rng, array):
    """A writeable copy of `array` and an output that shares some of its memory but not its place."""
    rows, columns = array.shape
    memory = np.zeros((rows + 1, columns), array.dtype)
    source = memory[:rows]
    source[...] = array
    kind = rng.integers(3)
    if kind == 0:
        return source, memory[1:]
    if kind == 1:
        return source, source[::-1]
    return source, source[:, ::-1]


def _inner(whole, dtype, index, transpose=False):
    memory = np.frombuffer(bytearray(b"\xa5" * (math.prod(whole) * dtype.itemsize + 128)), np.uint8)
    start = 64
    around = memory[start : start + math.prod(whole) * dtype.itemsize].view(dtype).reshape(whole)
    view = around[index]
    if transpose:
        view = view.T
    return view, _watch(memory, view)


def _unaligned(shape, dtype):
    size = math.prod(shape) * dtype.itemsize
    memory = np.frombuffer(bytearray(b"\xa5" * (size + 129)), np.uint8)
    view = memory[65 : 65 + size].view(dtype).reshape(shape)
    return view, _watch(memory, view)


def _packed(shape, dtype):
    """A field of packed records: its strides are no multiple of the element's size."""
    record = np.dtype({"names": ["x"], "formats": [dtype], "offsets": [1], "itemsize": dtype.itemsize + 3})
    memory = np.frombuffer(bytearray(b"\xa5" * (math.prod(shape) * record.itemsize + 128)), np.uint8)
    view = memory[64 : len(memory) - 64].view(record).reshape(shape)["x"]
    return view, _watch(memory, view)


def _watch(memory, view):
    def untouched():
        if view.size == 0:
            return bool((memory == 0xA5).all())
        kept = view.copy()
        view.view()[...] = np.frombuffer(b"\xa5" * view.itemsize, view.dtype)[0]
        clean = bool((memory == 0xA5).all())
        view[...] = kept
        return clean

    return untouched
