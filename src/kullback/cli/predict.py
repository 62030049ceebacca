"""`kullback predict`: labels and probabilities for the rows of a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from kullback.cli.options import DataArgument, JsonOption, ModelArgument, QuietOption


def predict(
    model: ModelArgument,
    data: DataArgument,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A .csv or .parquet file.", show_default="CSV on standard output"),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Predict the rows of DATA, in their order: the label, and the probability of every class.

    The label is what the trained loss decides. With class weights it need not be the most probable one: weights
    state costs and move decisions, while the probabilities stay those of the data as it is.
    """
    from kullback.cli.output import listening, print_json
    from kullback.pipeline import load_model, predict_file

    on_screen = out is None and sys.stdout.isatty()
    with listening(quiet, progress=not on_screen) as listener:
        loaded = load_model(model)
        summary = predict_file(loaded, data, out=out, stream=sys.stdout.buffer, as_json=as_json, listener=listener)
    if out is not None and as_json:
        record = {"out": str(out), "rows": summary.rows, "columns": summary.columns}
        print_json({**record, "decisions_moved": summary.decisions_moved, "notes": summary.notes})
    elif out is not None and not quiet:
        typer.echo(f"{summary.rows} rows predicted: {out}")
