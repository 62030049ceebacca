"""`kullback losses`: the catalogue."""

from __future__ import annotations

from kullback.cli.options import JsonOption


def losses(as_json: JsonOption = False) -> None:
    """List the losses: what they are for, what they promise, and what their minimiser reports."""
    from kullback.cli.output import print_json, print_losses
    from kullback.cli.records import loss_records

    records = loss_records()
    if as_json:
        print_json(records)
    else:
        print_losses(records)
