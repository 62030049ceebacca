"""What the commands print, as plain JSON-safe records: the one source of both the tables and `--json`."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kullback.errors import NoProbabilitiesError
from kullback.pipeline.storage import finite_or_none

if TYPE_CHECKING:
    from kullback.losses import Loss
    from kullback.pipeline import FitResult, Model
    from kullback.report.content import HardExample, TestMetrics

_STRONGEST = 5


def fit_record(result: FitResult) -> dict[str, Any]:
    """What `kullback fit` made."""
    directory = result.directory
    return {
        "model": None if directory is None else str(directory),
        "report": None if directory is None else str(directory / "report.html"),
        "kind": result.model.kind,
        "target": result.model.plan.source,
        "classes": list(result.model.classes),
        "loss": str(result.model.loss),
        "metrics": metrics_record(result.metrics),
        "temperature": result.model.temperature,
        "training": result.model.facts.get("training"),
        "data": result.model.facts["data"],
        "notes": list(result.notes),
    }


def metrics_record(metrics: TestMetrics) -> dict[str, Any]:
    """Test figures; what is undefined or infinite is null, for JSON holds neither."""
    return {name: finite_or_none(value) for name, value in dataclasses.asdict(metrics).items()}


def hard_records(hardest: Sequence[HardExample]) -> list[dict[str, Any]]:
    """The rows a model did worst on; a loss without end is null."""
    return [
        {
            "row": hard.row,
            "true": hard.true,
            "predicted": hard.predicted,
            "probability": hard.probability,
            "loss": finite_or_none(hard.loss),
        }
        for hard in hardest
    ]


def model_record(model: Model) -> dict[str, Any]:
    """What a model is."""
    from kullback.explain import minimiser_meaning

    names = [str(name) for name in model.classes]
    return {
        "kind": model.kind,
        "target": model.plan.source,
        "loss": str(model.loss),
        "meaning": minimiser_meaning(model.loss, names),
        "temperature": model.temperature,
        "n_features": len(model.encoder.feature_names),
        "columns": [dataclasses.asdict(column) for column in model.encoder.columns],
        "classes": [
            {"name": name, "share": float(share), "strongest": _strongest(model, k)}
            for k, (name, share) in enumerate(zip(model.classes, model.priors, strict=True))
        ],
        **model.facts,
    }


def loss_records() -> list[dict[str, Any]]:
    """The catalogue, each loss with its default settings."""
    from kullback.losses import CATALOGUE
    from kullback.losses.priors import NoCountsWarning

    with warnings.catch_warnings():
        # Who reads a list of losses has not forgotten to count classes.
        warnings.simplefilter("ignore", NoCountsWarning)
        return [_loss_record(kind()) for kind in CATALOGUE.values()]


def _loss_record(loss: Loss) -> dict[str, Any]:
    fields = dataclasses.fields(loss)  # type: ignore[arg-type]
    return {
        "name": loss.name,
        "targets": loss.target_form,
        "link": loss.link,
        "convex": loss.convex,
        "proper": loss.proper,
        "reports": _reports(loss),
        "bounded_gradient": loss.bounded_gradient,
        "initial_value": {str(n): loss.initial_value(n) for n in (2, 3, 10)},
        "settings": {field.name: field.default for field in fields},
        "meaning": " ".join((type(loss).__doc__ or "").strip().partition("\n\n")[0].split()),
    }


def _reports(loss: Loss) -> str:
    """What a trained model's probabilities mean, in a few words."""
    if loss.proper:
        return "the true p"
    try:
        loss.elicited(np.full(2, 0.5))
    except NoProbabilitiesError:
        return "no probabilities"
    return "a shifted p, undone"


def _strongest(model: Model, index: int) -> list[dict[str, Any]]:
    """The features that push a class' logit most, by size; the features are of like scale, being standardised."""
    weights = model.coefficients[index]
    order = np.argsort(-np.abs(weights), kind="stable")[:_STRONGEST]
    return [{"feature": model.encoder.feature_names[j], "weight": float(weights[j])} for j in order if weights[j] != 0]
