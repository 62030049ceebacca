"""A trained model: from the columns of a table to labels and probabilities, and to a directory and back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from kullback.data import EncodingCounts, FeatureEncoder, TargetPlan, read_table
from kullback.errors import InputError, ModelError
from kullback.losses import CrossEntropy, Loss, parse_loss
from kullback.pipeline.storage import StoredModel, read_model, write_model
from kullback.pipeline.tally import probabilities_of
from kullback.report.content import Kind

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]

# Elements of a block of features or scores: 4 million float64 are 32 MB.
_BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says about N rows.

    Attributes:
        decisions: (N,) class indices, or (N, C) 0/1 for labels: what the trained loss decides.
        probabilities: (N, C) probabilities of the data as it is, after recovery and temperature. With class weights
            at work their largest need not be the decision: weights state costs, and move decisions only.
        counts: what the encoder met that training did not prepare for; `counts.notes()` says it in words.
    """

    decisions: NDArray[np.int64]
    probabilities: Floats
    counts: EncodingCounts


@dataclass(frozen=True, eq=False)
class Model:
    """A linear model with everything it needs to read a table and answer in the table's own labels.

    Attributes:
        loss: the loss it was trained with.
        plan: how the target column becomes classes or labels.
        encoder: how the other columns become features, as fitted on the training part.
        coefficients: (C, d).
        intercept: (C,).
        temperature: T > 0 that the recovered scores are divided by; 1 if none was kept.
        priors: (C,) frequencies in the training part.
        facts: how it was made and how it did: JSON-safe, only shown, never computed with.
    """

    loss: Loss
    plan: TargetPlan
    encoder: FeatureEncoder
    coefficients: Floats
    intercept: Floats
    temperature: float
    priors: Floats
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """``"classes"`` if exactly one holds, ``"labels"`` if several may."""
        return cast(Kind, self.plan.kind)

    @property
    def classes(self) -> tuple[Any, ...]:
        """The classes or label names, in the order of columns and indices."""
        return self.plan.classes

    @property
    def column_types(self) -> dict[str, pa.DataType]:
        """The types of the columns this model reads, the target's included."""
        return {**self.encoder.column_types, **self.plan.column_types}

    def predict(self, data: Any) -> Any:
        """The decision for each row, in the data's own labels.

        Args:
            data: a pyarrow table, a data frame, a mapping of columns, or the path of a data file.

        Returns:
            For classes an (N,) array; for labels a list of N tuples of label names.

        Raises:
            DataError: for a missing column, or a value that cannot be read as what the model was trained on.
        """
        return self.plan.decode(self.predictions(data).decisions)

    def predict_proba(self, data: Any) -> Floats:
        """The probability of each class or label, (N, C), in the order of `classes`; arguments as `predict`."""
        return self.predictions(data).probabilities

    def predictions(self, data: Any) -> Predictions:
        """Decisions, probabilities and what was noticed, together; arguments as `predict`."""
        encoded = self.encoder.transform(self.table_of(data))
        n = encoded.matrix.shape[0]
        shape = (n,) if self.kind == "classes" else (n, len(self.classes))
        decisions = np.empty(shape, dtype=np.int64)
        probabilities = np.empty((n, len(self.classes)))
        for part in self.blocks(n):
            logits = self.logits(encoded.matrix[part])
            decisions[part] = self.loss.decide(logits)
            probabilities[part] = probabilities_of(self.calibrated(self.scores(logits)), self.kind)
        return Predictions(decisions, probabilities, encoded.counts)

    def table_of(self, data: Any) -> pa.Table:
        """Whatever holds columns, as a pyarrow table; arguments as `predict`."""
        import pyarrow as pa

        if isinstance(data, str | Path):
            return read_table(Path(data), column_types=self.encoder.column_types)
        if isinstance(data, pa.Table):
            return data
        try:
            return pa.table(data)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"cannot read columns from a {type(data).__name__} ({error}); give a pyarrow table, a data frame, "
                "a mapping of columns, or the path of a data file"
            ) from error

    def blocks(self, rows: int) -> Iterator[slice]:
        """Slices of rows whose features and scores fit in a few tens of megabytes."""
        step = max(1, _BLOCK_ELEMENTS // max(self.coefficients.shape))
        for start in range(0, rows, step):
            yield slice(start, min(start + step, rows))

    def logits(self, matrix: Any) -> Floats:
        """Raw scores (n, C) of encoded rows (n, d), dense or CSR."""
        if isinstance(matrix, np.ndarray):
            matrix = matrix.astype(np.float64, copy=False)
        return np.asarray(matrix @ self.coefficients.T) + self.intercept

    def scores(self, logits: Floats) -> Floats:
        """What the logits say of the data as it is: log-probabilities of classes, or log-odds of labels, (n, C)."""
        log_p = np.asarray(self.loss.recover_log(self.loss.log_probabilities(logits)), dtype=np.float64)
        if self.kind == "classes":
            return log_p
        # log p − log(1 − p), finite where p rounds to one
        with np.errstate(divide="ignore"):
            return np.clip(log_p - np.log(-np.expm1(log_p)), -_LARGEST_LOG_ODDS, _LARGEST_LOG_ODDS)

    def calibrated(self, scores: Floats) -> Floats:
        """The scores with the temperature applied, (n, C)."""
        if self.temperature == 1.0:
            return scores
        if self.kind == "labels":
            return scores / self.temperature
        return CrossEntropy(temperature=self.temperature).log_probabilities(scores)

    def save(self, path: Path | str, *, report: str | None = None, overwrite: bool = False) -> None:
        """Write the model as a directory, whole or not at all.

        Args:
            path: the directory to make.
            report: HTML text to keep beside the model as `report.html`.
            overwrite: replace an existing model.

        Raises:
            InputError: if the path exists and may not be replaced, or cannot be written.
        """
        features, arrays = self.encoder.state()
        document = {
            **self.facts,
            "loss": str(self.loss),
            "target": self.plan.to_dict(),
            "features": features,
            "priors": [float(share) for share in self.priors],
            "temperature": float(self.temperature),
        }
        weights = {"coefficients": self.coefficients, "intercept": self.intercept}
        stored = StoredModel(document, {"weights": weights, "encoder": dict(arrays)})
        write_model(Path(path), stored, report=report, overwrite=overwrite)


def load_model(path: Path | str) -> Model:
    """Read a model directory, check all of it, and never execute anything.

    Args:
        path: the directory that `kullback fit` or `Model.save` wrote.

    Raises:
        ModelError: naming the file that is missing, damaged, edited or from a newer version, and what to do.
    """
    path = Path(path)
    stored = read_model(path)
    document = stored.document
    file = path / "model.json"
    try:
        plan = TargetPlan.from_dict(document.pop("target"))
        encoder = FeatureEncoder.from_state(document.pop("features"), stored.arrays["encoder"])
        loss = parse_loss(document.pop("loss"))
        temperature = document.pop("temperature")
        priors = np.array(document.pop("priors"), dtype=np.float64)
        weights = stored.arrays["weights"]
        coefficients, intercept = weights["coefficients"], weights["intercept"]
    except KeyError as error:
        raise ModelError(f"{file} or its arrays lack {error.args[0]!r}; {_AGAIN}") from error
    except ModelError as error:
        raise ModelError(f"{file}: {error}; {_AGAIN}") from error
    except (InputError, TypeError, ValueError) as error:
        raise ModelError(f"{file} cannot be used ({error}); {_AGAIN}") from error
    n_classes, n_features = len(plan.classes), len(encoder.feature_names)
    if loss.target_form != plan.kind:
        raise ModelError(f"{file}: the loss {loss} does not go with a target of {plan.kind}; {_AGAIN}")
    for name, array, shape in (
        ("coefficients", coefficients, (n_classes, n_features)),
        ("intercept", intercept, (n_classes,)),
        ("priors", priors, (n_classes,)),
    ):
        if array.shape != shape or array.dtype != np.float64:
            raise ModelError(f"{file}: {name} have shape {array.shape} ({array.dtype}), expected {shape}; {_AGAIN}")
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        raise ModelError(f"{file}: temperature {temperature!r} is not a finite number above 0; {_AGAIN}")
    return Model(loss, plan, encoder, coefficients, intercept, float(temperature), priors, document)


# exp(700) is still finite, and odds of e^700 are certainty in any units.
_LARGEST_LOG_ODDS = 700.0
_AGAIN = "restore the directory from a copy, or fit the model again"
