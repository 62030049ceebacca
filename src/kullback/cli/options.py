"""Options and arguments that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

ModelArgument: TypeAlias = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A model directory, as written by kullback fit.")
]
DataArgument: TypeAlias = Annotated[
    Path, typer.Argument(metavar="DATA", help="A .csv, .tsv (also .gz), .parquet, .feather, .npy or .npz file.")
]
JsonOption: TypeAlias = Annotated[
    bool,
    typer.Option("--json", help="Write one JSON document to standard output, and everything else to standard error."),
]
QuietOption: TypeAlias = Annotated[
    bool, typer.Option("--quiet", "-q", help="Say nothing about the data and show no progress.")
]
