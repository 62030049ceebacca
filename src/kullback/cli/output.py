"""What people see: tables on standard output, notes and progress on standard error."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kullback.cli.frame import printable
from kullback.pipeline.listener import Listener

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from kullback.pipeline import FitResult, Model
    from kullback.report.content import TestMetrics

_MOST_CLASSES = 40


def print_json(record: Any) -> None:
    """Write one JSON document to standard output."""
    sys.stdout.write(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def listening(quiet: bool, *, progress: bool = True) -> Iterator[Listener]:
    """A listener that writes notes to standard error, and shows progress there if it is a terminal.

    Args:
        quiet: neither notes nor progress.
        progress: whether to show progress; not while rows go to the same terminal.
    """
    if quiet or sys.stderr is None:
        yield Listener()
        return
    console = Console(stderr=True, highlight=False)
    if not (console.is_terminal and progress):
        yield _Speaker(console, None)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        yield _Speaker(console, bars)


class _Speaker(Listener):
    def __init__(self, console: Console, bars: Progress | None) -> None:
        self._console = console
        self._bars = bars
        self._task: TaskID | None = None
        self._unit = ""

    def note(self, sentence: str) -> None:
        """Print a note above the progress bar."""
        self._console.print(Text(f"note: {printable(sentence)}"), soft_wrap=True)

    def stage(self, name: str, unit: str = "") -> None:
        """Begin a bar, which only pulses until `advance` tells a share."""
        self._unit = unit
        if self._bars is None:
            return
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(name, total=None, count="")
        self._bars.refresh()  # a long step may keep the interpreter to itself before the bar's own thread gets a turn

    def advance(self, done: int, share: float | None = None, remark: str = "") -> None:
        """Move the bar."""
        if self._bars is None or self._task is None:
            return
        count = f"{done} {self._unit}{', ' if remark else ''}{remark}"
        if share is None:
            self._bars.update(self._task, count=count)
        else:
            self._bars.update(self._task, total=1.0, completed=share, count=count)


def print_fit(result: FitResult) -> None:
    """The test figures of a fit, and where its model and report are."""
    splits = dict(result.content.data.splits)
    print_metrics(
        result.metrics,
        result.model,
        title=f"{result.content.data.file_name}: trained on {splits['train']} rows, temperature on "
        f"{splits['calibration']}, tested on {splits['test']}",
    )
    if result.directory is not None:
        console = _console()
        console.print(Text(f"Model:  {printable(str(result.directory))}"), soft_wrap=True)
        console.print(Text(f"Report: {printable(str(result.directory / 'report.html'))}"), soft_wrap=True)


def print_metrics(metrics: TestMetrics, model: Model, *, title: str) -> None:
    """The short table: the model's figures beside those of models that know less."""
    labels = model.kind == "labels"
    table = _table("", "model", "class shares alone" if not labels else "label shares alone", "knowing nothing")
    unit = "loss per label (nats)" if labels else "loss (nats)"
    nothing = f"{metrics.uniform_loss:.4f} = log {2 if labels else len(model.classes)}"
    table.add_row(unit, f"{metrics.loss:.4f}", f"{metrics.prior_entropy:.4f}", nothing)
    what = "right yes/no decisions" if labels else "accuracy"
    table.add_row(what, _figure(metrics.accuracy), _figure(metrics.majority_accuracy), "")
    if labels:
        table.add_row("rows wholly right", _figure(metrics.exact_match), "", "")
        table.add_row("micro-F1", _figure(metrics.micro_f1), "", "")
    table.add_row("macro-F1", _figure(metrics.macro_f1), "", "")
    table.add_row("calibration error (ECE)", _calibration(metrics), "", "")
    console = _console()
    console.print(Text(printable(title)), soft_wrap=True)
    console.print(table)
    if metrics.temperature is not None:
        kept = "kept" if metrics.temperature_kept else "not kept: the held-out loss did not improve"
        console.print(
            f"Temperature {metrics.temperature:.4g}, {kept} "
            f"(held-out loss {metrics.nll_before:.4f} → {metrics.nll_after:.4f} nats)",
            soft_wrap=True,
        )
    if metrics.decisions_moved:
        what = "decisions" if labels else "rows"
        console.print(
            f"{metrics.decisions_moved} {what} are decided otherwise than by the highest probability: the weights of "
            "the loss state costs and move decisions, not probabilities.",
            soft_wrap=True,
        )


def print_model(model: Model) -> None:
    """What a model is."""
    from kullback.cli.records import model_record

    record = model_record(model)
    console = _console()

    def say(name: str, value: str) -> None:
        console.print(Text(f"{name + ':' if name else '':<13}{printable(value)}"), soft_wrap=True)

    labels = model.kind == "labels"
    say("Target", f"{record['target']}, {len(model.classes)} {'labels' if labels else 'classes'}")
    say("Loss", record["loss"])
    say("", record["meaning"])
    say("Model", f"{record.get('estimator', 'linear')}, {record['n_features']} features")
    if "training" in record:
        training = record["training"]
        ended = "" if training["converged"] else ", not converged"
        say("Training", f"{training['iterations']} iterations, loss {_figure(training['loss'])} nats{ended}")
    say("Temperature", f"{model.temperature:.4g}" if model.temperature != 1 else "none")
    if "data" in record:
        data = record["data"]
        parts = ", ".join(f"{name} {count}" for name, count in data["splits"].items())
        say("Data", f"{data['file_name']}, {data['rows']} rows ({parts}; seed {data['seed']})")
    if "test_metrics" in record:
        metrics = record["test_metrics"]
        unit = " per label" if labels else ""
        say("Test", f"loss {_figure(metrics['loss'])} nats{unit}, accuracy {_figure(metrics['accuracy'])}")
    say("Written", f"{record.get('created', '?')} by Kullback {record.get('kullback_version', '?')}")

    classes = _table("label" if labels else "class", "share", "pushed up and down most by", right=(1,))
    for entry in record["classes"][:_MOST_CLASSES]:
        strongest = ", ".join(f"{each['feature']} {each['weight']:+.2f}" for each in entry["strongest"][:3])
        classes.add_row(Text(printable(str(entry["name"]))), _figure(entry["share"]), Text(printable(strongest)))
    console.print(classes)
    if len(model.classes) > _MOST_CLASSES:
        console.print(f"… and {len(model.classes) - _MOST_CLASSES} more; --json lists all")

    columns = _table("column", "kind", "features", "", right=(2,))
    for column in record["columns"][:_MOST_CLASSES]:
        columns.add_row(
            Text(printable(column["name"])), column["kind"], str(column["features"]), Text(printable(column["why"]))
        )
    console.print(columns)
    if len(record["columns"]) > _MOST_CLASSES:
        console.print(f"… and {len(record['columns']) - _MOST_CLASSES} more; --json lists all")


def print_losses(records: list[dict[str, Any]]) -> None:
    """The catalogue as a table."""
    table = _table("loss", "targets", "convex", "proper", "reports", "start, C=3", right=(5,))
    for record in records:
        start = f"{record['initial_value']['3']:.4f}"
        convex, proper = ("yes" if record[name] else "no" for name in ("convex", "proper"))
        table.add_row(record["name"], record["targets"], convex, proper, record["reports"], start)
    console = _console()
    console.print(table)
    for record in records:
        settings = ", ".join(f"{name}={value!r}" for name, value in record["settings"].items())
        console.print()
        console.print(Text(f"{record['name']}({settings})"), soft_wrap=True)
        console.print(Text(f"  {record['meaning']}"), soft_wrap=True)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave a closed pipe to the frame; Rich itself would exit with code 1."""
        raise


def _console() -> Console:
    return _Console(highlight=False)


def _table(*headings: str, right: tuple[int, ...] | None = None) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, heading in enumerate(headings):
        numbers = index > 0 if right is None else index in right
        table.add_column(heading, justify="right" if numbers else "left")
    return table


def _calibration(metrics: TestMetrics) -> str:
    if metrics.ece_before is None or metrics.ece_after is None:
        return _figure(metrics.ece_before)
    return f"{_figure(metrics.ece_before)} → {_figure(metrics.ece_after)}"


def _figure(value: float | None) -> str:
    # NaN where there is nothing to average; a stored model has None there.
    return "–" if value is None or math.isnan(value) else f"{value:.4f}"
