"""The `kullback` command: its subcommands, its version, its help."""

from __future__ import annotations

from typing import Annotated

import typer

from kullback.cli import evaluate, fit, losses, predict, show
from kullback.cli.frame import Frame

_HELP = """From a data file to a calibrated classifier, and an account of what its loss means.

Start with: kullback fit data.csv --target COLUMN
"""
_EPILOG = (
    "Exit codes: 0 done, 1 unexpected fault, 2 wrong input or usage, 130 interrupted, 143 terminated. "
    "KULLBACK_DEBUG=1 shows where an error comes from."
)

app = typer.Typer(
    name="kullback",
    cls=Frame,
    help=_HELP,
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: it reads the same, and Rich alone would take half of its time
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (fit.fit, predict.predict, evaluate.evaluate, show.show, losses.losses):
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        import kullback

        typer.echo(f"kullback {kullback.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
