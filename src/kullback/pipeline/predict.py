"""Predictions for a whole file, a batch at a time, in the file's row order."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kullback.atomic import atomic_file
from kullback.data import EncodingCounts, iter_batches
from kullback.errors import InputError
from kullback.pipeline.listener import Listener, Notes
from kullback.pipeline.model import Model, Predictions

_BATCH_ELEMENTS = 1 << 23
_LARGEST_BATCH = 65536


@dataclass(frozen=True)
class PredictionSummary:
    """What was predicted.

    Attributes:
        rows: number of rows.
        columns: names of the columns written.
        decisions_moved: rows (for labels: decisions) where the decision is not the most probable answer, because
            the loss' weights move decisions and not probabilities.
        notes: what was said about the data.
    """

    rows: int
    columns: tuple[str, ...]
    decisions_moved: int
    notes: tuple[str, ...]


def predict_file(
    model: Model,
    data: Path,
    *,
    out: Path | None = None,
    stream: BinaryIO | None = None,
    as_json: bool = False,
    listener: Listener | None = None,
) -> PredictionSummary:
    """Predict every row of a file, in bounded memory and in order.

    The columns are ``prediction`` and ``probability_<class>`` for each class. Several labels are joined by the
    target's own delimiter (``|`` where it has none); a target of several 0/1 columns gives a 0/1 column
    ``prediction_<label>`` for each.

    Args:
        model: the model.
        data: the file to read.
        out: a ``.csv`` or ``.parquet`` file, which appears whole or not at all.
        stream: where to write CSV (or JSON) if there is no `out`.
        as_json: write one JSON document to `stream` instead of CSV.
        listener: hears notes and progress.

    Raises:
        DataError: as the readers and the encoder raise it.
        InputError: for an `out` with another suffix, one that is the data file itself, or one that cannot be written.
    """
    listener = listener or Listener()
    notes = Notes(listener)
    sink_of = _sink_for(out, as_json)
    if out is not None and out.exists() and os.path.samefile(out, data):
        raise InputError(f"{out} is the data file itself; give another file for the predictions")
    schema = prediction_schema(model)
    moved = 0
    counts = EncodingCounts()
    listener.stage("Predicting", "rows")
    batches = iter_batches(data, batch_rows_for(model), column_types=model.encoder.column_types)
    predicted = map(model.predictions, batches)
    # One batch is predicted before anything is opened or written: most faults show there, and leave no trace.
    first = next(predicted, None)
    target = atomic_file(out) if out is not None else contextlib.nullcontext(stream)
    with target as file:
        if file is None:
            raise InputError("there is nowhere to write to: standard output is closed; give a file with --out")
        sink = sink_of(file, schema)
        for predictions in itertools.chain([] if first is None else [first], predicted):
            sink.write(prediction_table(model, predictions, schema))
            counts += predictions.counts
            moved += _moved(model, predictions)
            listener.advance(counts.rows)
        notes.say(counts.notes())
        if moved:
            what = "rows" if model.kind == "classes" else "decisions"
            notes.say(
                [
                    f"{moved} {what} differ from what is most probable: the weights of {model.loss} state costs, which "
                    "move decisions and leave probabilities as they are"
                ]
            )
        sink.close(counts.rows, notes.said)
    return PredictionSummary(counts.rows, tuple(schema.names), moved, notes.said)


def batch_rows_for(model: Model) -> int:
    """How many rows to read at a time, so that their features and scores stay small."""
    return int(max(1, min(_LARGEST_BATCH, _BATCH_ELEMENTS // max(model.coefficients.shape))))


def prediction_schema(model: Model) -> pa.Schema:
    """The columns a prediction has."""
    if model.plan.form == "columns":
        decided = [(f"prediction_{name}", pa.int8()) for name in model.classes]
    elif model.kind == "labels":
        decided = [("prediction", pa.string())]
    else:
        decided = [("prediction", pa.array(model.classes[:1]).type)]
    return pa.schema([*decided, *((f"probability_{name}", pa.float64()) for name in model.classes)])


def prediction_table(model: Model, predictions: Predictions, schema: pa.Schema) -> pa.Table:
    """Predictions as a table of `schema`."""
    if model.plan.form == "columns":
        decided = [pa.array(column.astype(np.int8)) for column in predictions.decisions.T]
    elif model.kind == "labels":
        delimiter = model.plan.delimiter or "|"
        names = model.plan.decode(predictions.decisions)
        decided = [pa.array([delimiter.join(row) for row in names], pa.string())]
    else:
        # Taking from the few class names is far cheaper than making a Python object of every row.
        classes = pa.array(model.classes, schema.field(0).type)
        decided = [classes.take(pa.array(predictions.decisions))]
    shares = [pa.array(np.ascontiguousarray(column)) for column in predictions.probabilities.T]
    return pa.Table.from_arrays([*decided, *shares], schema=schema)


def _moved(model: Model, predictions: Predictions) -> int:
    probabilities = predictions.probabilities
    likely = probabilities.argmax(axis=1) if model.kind == "classes" else probabilities > 0.5
    return int(np.count_nonzero(predictions.decisions != likely))


class _Sink(ABC):
    """Writes tables of one schema to an open file."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self.file = file
        self.schema = schema
        self.begin()

    @abstractmethod
    def begin(self) -> None:
        """Write what comes before the first row."""

    @abstractmethod
    def write(self, table: pa.Table) -> None:
        """Write rows."""

    @abstractmethod
    def close(self, rows: int, notes: tuple[str, ...]) -> None:
        """Write what comes after the last row, once everything else was written."""


class _Csv(_Sink):
    def begin(self) -> None:
        header = io.StringIO()
        csv.writer(header, lineterminator="\n").writerow(self.schema.names)
        self.file.write(header.getvalue().encode())

    def write(self, table: pa.Table) -> None:
        from pyarrow.csv import WriteOptions, write_csv

        text = pa.BufferOutputStream()
        write_csv(table, text, WriteOptions(include_header=False, quoting_style=self.quoting(table)))
        self.file.write(text.getvalue())

    def quoting(self, table: pa.Table) -> str:
        """Arrow quotes every text or none; quotes are left away where no text needs them."""
        texts = [column for column in table.columns if pa.types.is_string(column.type)]
        special = any(pc.any(pc.match_substring_regex(text, '^$|[",\\r\\n]')).as_py() for text in texts)
        return "needed" if special else "none"

    def close(self, rows: int, notes: tuple[str, ...]) -> None:
        pass


class _Parquet(_Sink):
    def begin(self) -> None:
        from pyarrow.parquet import ParquetWriter

        self.writer = ParquetWriter(self.file, self.schema)

    def write(self, table: pa.Table) -> None:
        self.writer.write_table(table)

    def close(self, rows: int, notes: tuple[str, ...]) -> None:
        self.writer.close()


class _Json(_Sink):
    """One document: {"columns": […], "predictions": [[…], …], "rows": n, "notes": […]}."""

    def begin(self) -> None:
        self.file.write(f'{{"columns": {_json(self.schema.names)}, "predictions": ['.encode())
        self.separator = "\n"

    def write(self, table: pa.Table) -> None:
        columns = [column.to_pylist() for column in table.columns]
        for row in zip(*columns, strict=True):
            self.file.write(f"{self.separator}{_json(row)}".encode())
            self.separator = ",\n"

    def close(self, rows: int, notes: tuple[str, ...]) -> None:
        self.file.write(f'\n], "rows": {rows}, "notes": {_json(notes)}}}\n'.encode())


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _sink_for(out: Path | None, as_json: bool) -> type[_Sink]:
    if out is None:
        return _Json if as_json else _Csv
    sinks: dict[str, type[_Sink]] = {".csv": _Csv, ".parquet": _Parquet}
    sink = sinks.get(out.suffix.lower())
    if sink is None:
        raise InputError(f"cannot tell how to write {out}: name it with one of the suffixes {', '.join(sinks)}")
    return sink
