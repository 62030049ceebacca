"""`kullback evaluate`: how a model does on data with known targets."""

from __future__ import annotations

from typing import Any

from kullback.cli.options import DataArgument, JsonOption, ModelArgument, QuietOption


def evaluate(model: ModelArgument, data: DataArgument, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Test MODEL on DATA, which holds the target's column."""
    from kullback.cli.output import listening, print_json, print_metrics
    from kullback.cli.records import hard_records, metrics_record
    from kullback.pipeline import evaluate_file, load_model

    with listening(quiet) as listener:
        loaded = load_model(model)
        found = evaluate_file(loaded, data, listener=listener)
    if as_json:
        record: dict[str, Any] = {
            "model": str(model),
            "data": str(data),
            "rows": found.rows,
            "left_out": found.left_out,
        }
        record |= {"metrics": metrics_record(found.metrics), "hardest": hard_records(found.hardest)}
        print_json({**record, "notes": found.notes})
    else:
        print_metrics(found.metrics, loaded, title=f"{model} on {found.rows} rows of {data.name}")
