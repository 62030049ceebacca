"""How a model does on a file with known targets, a batch at a time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kullback.data import EncodingCounts, TargetPlan, iter_batches
from kullback.errors import DataError
from kullback.pipeline.listener import Listener, Notes
from kullback.pipeline.model import Model
from kullback.pipeline.predict import batch_rows_for
from kullback.pipeline.tally import Tally
from kullback.report.content import HardExample, TestMetrics


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        metrics: the headline figures.
        rows: rows that count.
        left_out: rows without a target the model knows.
        hardest: the rows with the highest loss, highest first, numbered from 1; their other columns are left out.
        notes: what was said about the data.
    """

    metrics: TestMetrics
    rows: int
    left_out: int
    hardest: tuple[HardExample, ...]
    notes: tuple[str, ...]


def evaluate_file(model: Model, data: Path, *, listener: Listener | None = None) -> Evaluation:
    """Test a model on a data file that holds its target column.

    Rows whose target is missing or is a class the model never saw are left out, counted and said.

    Args:
        model: the model.
        data: the file.
        listener: hears notes and progress.

    Raises:
        DataError: if the target's column is absent or no row has a target that the model knows, and as the readers
            and the encoder raise it.
    """
    listener = listener or Listener()
    notes = Notes(listener)
    listener.stage("Evaluating", "rows")
    tally = Tally(model.kind, model.priors)
    unknown: Counter[Any] = Counter()
    counts = EncodingCounts()
    seen = 0
    for batch in iter_batches(data, batch_rows_for(model), column_types=model.column_types):
        targets, keep = model.plan.encode(batch)
        unknown.update(model.plan.unknown(batch))
        rows = np.flatnonzero(keep)
        encoded = model.encoder.transform(batch, rows=None if keep.all() else rows)
        counts += encoded.counts
        tally_model(tally, model, encoded.matrix, targets[keep], rows + seen)
        seen += batch.num_rows
        listener.advance(seen)
    notes.say(counts.notes())
    if unknown:
        notes.say([_unknown_note(model, unknown)])
    left_out = seen - tally.rows
    if tally.rows == 0:
        raise DataError(
            f"{data.name}: no row has a target that the model knows, so there is nothing to test; "
            f"column {model.plan.source!r} should hold {_listed(model.classes)}"
        )
    if left_out:
        notes.say([f"{left_out} of {seen} rows have no target that the model knows and are left out"])
    hardest = tuple(
        HardExample(
            hard.row + 1,
            (),
            names_of(hard.true, model.plan),
            names_of(hard.decided, model.plan),
            hard.probability,
            hard.loss,
        )
        for hard in tally.hardest()
    )
    metrics = tally.metrics(tempered=model.temperature != 1.0)
    return Evaluation(metrics, tally.rows, left_out, hardest, notes.said)


def names_of(target: Any, plan: TargetPlan) -> tuple[str, ...]:
    """The class of an encoded target, or the labels it holds, as text."""
    if plan.kind == "classes":
        return (str(plan.classes[int(target)]),)
    return tuple(str(plan.classes[k]) for k in np.flatnonzero(target))


def tally_model(
    tally: Tally,
    model: Model,
    matrix: Any,
    targets: NDArray[Any],
    rows: NDArray[np.int64],
    *,
    tried: Model | None = None,
) -> None:
    """Count encoded rows with known targets, block by block.

    Args:
        tally: what to add to.
        model: whose decisions and probabilities are tested.
        matrix: (N, d) encoded rows.
        targets: N encoded targets.
        rows: (N,) their row numbers.
        tried: the model with a temperature that it does not use itself, for the comparison of before and after.
    """
    tempered = model if tried is None else tried
    for part in model.blocks(len(targets)):
        logits = model.logits(matrix[part])
        before = model.scores(logits)
        scores = model.calibrated(before)
        after = scores if tempered is model else tempered.calibrated(before)
        tally.add(targets[part], scores, model.loss.decide(logits), rows[part], before=before, after=after)


def _unknown_note(model: Model, unknown: Counter[Any]) -> str:
    what = "class" if model.kind == "classes" else "label"
    count = sum(unknown.values())
    shown = ", ".join(f"{name!r} {n}×" for name, n in unknown.most_common(5))
    more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
    rows = "row" if model.kind == "classes" else "cell"
    return f"{count} {rows}{'s' * (count != 1)} hold a {what} that the model never saw ({shown}{more})"


def _listed(names: tuple[Any, ...]) -> str:
    shown = ", ".join(repr(name) for name in names[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")
