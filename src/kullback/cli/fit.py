"""`kullback fit`: from a data file to a model directory and a report."""

from __future__ import annotations

import enum
import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from kullback.cli.options import DataArgument, JsonOption, QuietOption


class ClassWeight(enum.StrEnum):
    """The ways to weigh classes."""

    balanced = "balanced"


def fit(
    data: DataArgument,
    target: Annotated[
        str, typer.Option(metavar="COL[,COL…]", help="The column to predict, or several columns of 0/1.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Directory for the model and report.html.", show_default="DATA's name + -model"
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="SPELLING",
            help='A loss such as "cross_entropy(label_smoothing=0.1)"; kullback losses lists them.',
            show_default="cross_entropy, or binary_cross_entropy for several labels",
        ),
    ] = None,
    class_weight: Annotated[
        ClassWeight | None,
        typer.Option(help="Weigh classes by the inverse of their frequency: it moves decisions, not probabilities."),
    ] = None,
    C: Annotated[
        str,
        typer.Option(
            "--C",
            metavar="NUMBER|auto",
            help="Inverse strength of the L2 penalty, inf for none; auto finds one on held-out rows.",
        ),
    ] = "auto",
    max_iter: Annotated[int, typer.Option(min=1, help="Most iterations of the solver.")] = 1000,
    test_size: Annotated[float, typer.Option(help="Share of the rows to test on.")] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split.")] = 0,
    drop: Annotated[
        list[str] | None, typer.Option(metavar="COL", help="A column to leave out; may be given several times.")
    ] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(help='What separates several labels in a cell; "" if a cell is one class.', show_default="found"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model that is already there.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train, calibrate and test a classifier on DATA; write a model directory with report.html."""
    from kullback.cli.output import listening, print_fit, print_json
    from kullback.cli.records import fit_record
    from kullback.pipeline import fit_file

    with listening(quiet) as listener:
        result = fit_file(
            data,
            target,
            out=_default_directory(data) if out is None else out,
            loss=loss,
            class_weight=None if class_weight is None else "balanced",
            C=_strength(C),
            max_iter=max_iter,
            test_size=test_size,
            seed=seed,
            drop=drop or (),
            delimiter=delimiter,
            overwrite=overwrite,
            listener=listener,
            command=shlex.join(["kullback", *sys.argv[1:]]),
        )
    if as_json:
        print_json(fit_record(result))
    else:
        print_fit(result)


def _strength(text: str) -> float | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a number nor auto", param_hint="--C") from None


def _default_directory(data: Path) -> Path:
    name = data.name
    for suffix in (".gz", data.with_suffix("").suffix if name.endswith(".gz") else data.suffix):
        name = name.removesuffix(suffix)
    return Path(f"{name}-model")
