"""`kullback show`: what a model is."""

from __future__ import annotations

from kullback.cli.options import JsonOption, ModelArgument


def show(model: ModelArgument, as_json: JsonOption = False) -> None:
    """Say what MODEL is: its loss and what that means, classes, columns, temperature, strongest weights."""
    from kullback.cli.output import print_json, print_model
    from kullback.cli.records import model_record
    from kullback.pipeline import load_model

    loaded = load_model(model)
    if as_json:
        print_json(model_record(loaded))
    else:
        print_model(loaded)
