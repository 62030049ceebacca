"""From a data file to a tested, calibrated model and its report."""

from __future__ import annotations

import copy
import dataclasses
import math
import platform
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

import kullback
from kullback.atomic import check_destination
from kullback.calibration import TemperatureScaling, fit_temperature
from kullback.data import FeatureEncoder, Split, TargetPlan, plan_target, read_notes, read_table, split_rows
from kullback.errors import InputError, KullbackWarning, NotConvergedWarning
from kullback.explain import gradient_account, minimiser_meaning, untrained_account
from kullback.losses import BinaryCrossEntropy, CrossEntropy, Loss, parse_loss
from kullback.pipeline.evaluate import names_of, tally_model
from kullback.pipeline.listener import Listener, Notes
from kullback.pipeline.model import Model
from kullback.pipeline.storage import check_replaceable, finite_or_none
from kullback.pipeline.strength import choose_strength
from kullback.pipeline.tally import LARGEST_CONFUSION, Tally, losses_of
from kullback.report.content import (
    ClassBalance,
    ColumnSummary,
    DataSummary,
    HardExample,
    Kind,
    LossSummary,
    ReportContent,
    RunSummary,
    TestMetrics,
    TrainingCurve,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from kullback.linear import IterationRecord

# The relative duality gap, or the gradient where there is none: far below what any test set can tell.
_TOLERANCE = 1e-4
# Enough to tell which penalty suits the data; the one chosen is then fitted to the end.
_ROUGH_TOLERANCE = 1e-2
_ROUGH_ITERATIONS = 100
# One number is fitted on the calibration fold; more rows than this would be better spent on training.
_CALIBRATION_SHARE = 0.15
_CALIBRATION_ROWS = 20_000
_CALIBRATION_ELEMENTS = 1 << 24
# With fewer rows than this a temperature has to prove itself on rows it has not seen.
_ENOUGH_FOR_ONE_NUMBER = 5000
_TURNS = 5
# The gradient account is a mean, exact enough on this many scores.
_ACCOUNT_ELEMENTS = 1 << 22
_SHOWN_COLUMNS = 4


@dataclass(frozen=True, eq=False)
class FitResult:
    """What `fit_file` made.

    Attributes:
        model: the model.
        content: everything the report shows, the test figures (`content.metrics`) included.
        directory: where the model was written, or None.
        notes: what was said aloud, one sentence each.
    """

    model: Model
    content: ReportContent
    directory: Path | None
    notes: tuple[str, ...]

    @property
    def metrics(self) -> TestMetrics:
        """The headline figures on the test part."""
        return self.content.metrics


@dataclass(frozen=True, eq=False)
class _Data:
    """A data file after its target was understood and its rows divided; `rows` of a part index the table."""

    path: Path
    table: pa.Table
    plan: TargetPlan
    targets: NDArray[Any]
    parts: dict[str, NDArray[np.int64]]
    seed: int

    @property
    def kind(self) -> Kind:
        return cast(Kind, self.plan.kind)

    def targets_of(self, part: str) -> NDArray[Any]:
        return self.targets[self.parts[part]]

    def counts_of(self, part: str) -> NDArray[np.int64]:
        targets = self.targets_of(part)
        counts: NDArray[np.int64] = (
            targets.sum(axis=0, dtype=np.int64)
            if self.kind == "labels"
            else np.bincount(targets, minlength=len(self.plan.classes))
        )
        return counts


def fit_file(
    data: Path | str,
    target: str,
    *,
    out: Path | str | None = None,
    loss: Loss | str | None = None,
    class_weight: Literal["balanced"] | None = None,
    C: float | Literal["auto"] = "auto",
    max_iter: int = 1000,
    test_size: float = 0.2,
    seed: int = 0,
    drop: Sequence[str] = (),
    delimiter: str | None = None,
    overwrite: bool = False,
    listener: Listener | None = None,
    command: str = "",
) -> FitResult:
    """Train, calibrate and test a linear model on a data file, and write it with a report.

    The rows are split by `seed` into a training part, a calibration fold (15 % of what is not tested, at most 20000
    rows) and a test part. Preprocessing and weights are fitted on the training part; the penalty is chosen and the
    temperature fitted on the calibration fold. The temperature is kept only if it improves the likelihood of held-out
    rows: in a small fold, of rows that it was not fitted on (cross-validation inside the fold). Every figure of the
    result is measured on the test part, which nothing was fitted on.

    Args:
        data: CSV, TSV, Parquet, Feather or NumPy file.
        target: name of the target column, or of several 0/1 columns separated by commas.
        out: directory to write the model and `report.html` to; None writes nothing.
        loss: a loss or its spelling; cross-entropy for classes, binary cross-entropy for labels if None.
        class_weight: ``"balanced"`` weights classes by the inverse of their frequency, which moves decisions and not
            probabilities (see `Predictions`); None for no weights.
        C: inverse strength of the penalty, as in scikit-learn; ``"auto"`` finds one on the calibration fold (see
            `kullback.pipeline.strength`).
        max_iter: most iterations of the solver.
        test_size: share of the rows to test on, in (0, 1).
        seed: of the split.
        drop: columns to leave out.
        delimiter: what separates several labels in one cell; "" for a cell that is always one class; None to
            find out.
        overwrite: replace a model that is already at `out`.
        listener: hears notes and progress.
        command: the command line, for the report.

    Returns:
        The model, its test figures and the report's content.

    Raises:
        InputError: for anything that cannot be used: the message names it and says what to do.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "ants.csv"
    >>> _ = file.write_text("size,kind\\n" + "1.5,worker\\n2.5,queen\\n" * 30)
    >>> fit_file(file, "kind").metrics.accuracy
    1.0
    """
    started = time.perf_counter()
    path = Path(data)
    destination = None if out is None else Path(out)
    if not 0 < test_size < 1:
        raise InputError(f"test_size is {test_size:g}; give a share between 0 and 1, for example 0.2")
    chosen = None if loss is None else parse_loss(loss)
    if destination is not None:
        check_destination(destination, overwrite=overwrite, check_replaceable=check_replaceable)
    listener = listener or Listener()
    notes = Notes(listener)

    listener.stage("Reading")
    table = read_table(path, target=target)
    notes.say(read_notes(table))
    plan = plan_target(table, target, delimiter=delimiter)
    notes.say(plan.notes)
    chosen = _loss_for(plan, chosen)
    split, examples = _divide(path, table, plan, test_size, seed)
    notes.say(split.notes)

    listener.stage("Encoding")
    encoder = FeatureEncoder.fit(table, exclude=plan.sources, drop=drop, rows=examples.parts["train"])
    notes.say(encoder.notes)
    train = encoder.transform(table, rows=examples.parts["train"]).matrix

    fold = encoder.transform(table, rows=examples.parts["calibration"]).matrix

    estimator = _estimator(plan, chosen, class_weight, max_iter, listener)
    course, strength = _train(estimator, train, fold, examples, encoder, C, max_iter, listener, notes)
    model = _model_of(course[-1], examples, encoder)

    listener.stage("Calibrating")
    scaling = _fit_scaling(model, fold, examples, notes)
    tried = model if scaling is None else dataclasses.replace(model, temperature=scaling.temperature)
    if scaling is not None and scaling.improved:
        model = tried

    listener.stage("Testing")
    tally = Tally(model.kind, model.priors)
    held_out = encoder.transform(table, rows=examples.parts["test"])
    notes.say(held_out.notes)
    tally_model(tally, model, held_out.matrix, examples.targets_of("test"), examples.parts["test"], tried=tried)
    metrics = _metrics(tally, scaling)

    listener.stage("Reporting")
    settings = {"C": strength, "max_iter": max_iter, "test_size": test_size, "class_weight": class_weight or "none"}
    content = ReportContent(
        kind=model.kind,
        class_names=tuple(str(name) for name in model.classes),
        data=_data_summary(examples, encoder, notes.said),
        loss=LossSummary(str(model.loss), minimiser_meaning(model.loss, [str(name) for name in model.classes])),
        metrics=metrics,
        balance=ClassBalance(*(examples.counts_of(part) for part in ("train", "calibration", "test"))),
        curve=_curve(course, examples),
        confusion=tally.confusion(),
        per_class=tally.per_class(),
        reliability_before=tally.reliability_before(),
        reliability_after=tally.reliability_after() if scaling is not None else None,
        hardest=_hardest(tally, examples, encoder),
        **_accounts(model, train, examples.targets_of("train")),
        run=_run_summary(estimator, settings, started, command),
    )
    model = dataclasses.replace(model, facts=_facts(content))
    if destination is not None:
        from kullback.report import render_report

        model.save(destination, report=render_report(content), overwrite=overwrite)
    return FitResult(model, content, destination, notes.said)


def _loss_for(plan: TargetPlan, chosen: Loss | None) -> Loss:
    if chosen is None:
        return CrossEntropy() if plan.kind == "classes" else BinaryCrossEntropy(label_reduction="sum")
    if chosen.target_form == plan.kind:
        # Raises now, and not after the training, for a loss that elicits no probabilities or has weights for
        # another number of classes.
        n = len(plan.classes)
        chosen.elicited(np.full(n, 1 / n if plan.kind == "classes" else 0.5))
        return chosen
    if plan.kind == "classes":
        raise InputError(
            f"the loss {chosen.name} treats each label on its own, but {plan.source!r} holds one class a row; use "
            "cross_entropy, or give several 0/1 columns or a column of several labels as the target"
        )
    raise InputError(
        f"the loss {chosen.name} is over exclusive classes, but {plan.source!r} may hold several labels a row; use "
        "binary_cross_entropy" + (', or --delimiter "" if a cell is one class' if plan.form == "delimited" else "")
    )


def _divide(path: Path, table: pa.Table, plan: TargetPlan, test_size: float, seed: int) -> tuple[Split, _Data]:
    """Encode the target, and divide the rows that have one."""
    targets, keep = plan.encode(table)
    rows = np.flatnonzero(keep)
    n_rest = (1 - test_size) * len(rows)
    most = min(_CALIBRATION_ROWS, _CALIBRATION_ELEMENTS / len(plan.classes))
    calibration = (1 - test_size) * min(_CALIBRATION_SHARE, most / max(n_rest, 1))
    fractions = {"train": 1 - test_size - calibration, "calibration": calibration, "test": test_size}
    split = split_rows(targets[rows], plan.kind, fractions=fractions, seed=seed, names=plan.classes)
    parts = {"train": rows[split.train], "calibration": rows[split.calibration], "test": rows[split.test]}
    return split, _Data(path, table, plan, targets, parts, seed)


def _estimator(
    plan: TargetPlan, loss: Loss, class_weight: Literal["balanced"] | None, max_iter: int, listener: Listener
) -> Any:
    from kullback.linear import SigmoidClassifier, SoftmaxClassifier
    from kullback.linear.row_curvature import has_dual

    kind = SoftmaxClassifier if plan.kind == "classes" else SigmoidClassifier
    return kind(
        loss=loss,
        class_weight=class_weight,
        tol=_TOLERANCE,
        max_iter=max_iter,
        callback=_Convergence(listener, "gap" if has_dual(loss) else "gradient"),
    )


def _train(
    estimator: Any,
    train: Any,
    fold: Any,
    examples: _Data,
    encoder: FeatureEncoder,
    C: float | Literal["auto"],
    max_iter: int,
    listener: Listener,
    notes: Notes,
) -> tuple[list[Any], float]:
    """Fit with the given C, or along a path of them: the fits that lead to the chosen one, in order, and its C."""
    targets = examples.targets_of("train")

    def fit(strength: float, before: list[Any] | None, **effort: Any) -> list[Any]:
        following = copy.copy(before[-1] if before else estimator)
        following.set_params(C=strength, warm_start=bool(before), **effort)
        listener.stage(f"Training with C = {strength:g}", "iterations")
        following.fit(train, targets)
        if following.interrupted_:  # a run that makes files is wanted whole or not at all
            raise KeyboardInterrupt
        return [*(before or []), following]

    def attempt(strength: float, before: list[Any] | None) -> list[Any]:
        return fit(strength, before, tol=_ROUGH_TOLERANCE, max_iter=min(max_iter, _ROUGH_ITERATIONS))

    def held_out_losses(course: list[Any]) -> NDArray[np.float64]:
        model = _model_of(course[-1], examples, encoder)
        return _cautious_losses(_scores(model, fold), examples.targets_of("calibration"), model.kind)

    if C != "auto":
        with _warnings_as_notes(notes):
            return fit(C, None), C
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)  # what matters is said of the final fit
        chosen, trials = choose_strength(attempt, held_out_losses, len(targets))
    with _warnings_as_notes(notes):
        course = fit(chosen.C, chosen.fitted, tol=_TOLERANCE, max_iter=max_iter)
    tried = ", ".join(f"{trial.loss:.4f} with {trial.C:g}" for trial in sorted(trials, key=lambda trial: trial.C))
    how = f"C = {chosen.C:g} was chosen on the calibration part; its loss in nats, one more mistake assumed"
    notes.say([f"{how}: {tried}"])
    return course, chosen.C


def _cautious_losses(scores: NDArray[np.float64], targets: NDArray[Any], kind: Kind) -> NDArray[np.float64]:
    """Held-out losses as if one more row had been held out and predicted wrongly.

    A small fold without a mistake would call for ever larger weights; with one mistake expected among N + 2 (the rule
    of succession, as in Platt, 1999) confidence has a price.
    """
    doubt = 1 / (len(targets) + 2)
    losses = losses_of(scores, targets, kind)
    if kind == "labels":
        wrong = losses_of(scores, 1 - targets, kind)
    else:
        finite = np.maximum(scores, math.log(np.finfo(np.float64).tiny))
        own = finite[np.arange(len(targets)), targets]
        wrong = (own - finite.sum(axis=1)) / (finite.shape[1] - 1)
    return (1 - doubt) * losses + doubt * wrong


def _scores(model: Model, matrix: Any) -> NDArray[np.float64]:
    return np.concatenate([model.scores(model.logits(matrix[part])) for part in model.blocks(matrix.shape[0])])


class _Convergence:
    """Tells a listener how far a solver has come: the share of the way from the first distance to the tolerance, and
    that distance, which is a relative duality gap or, where there is none, a gradient.

    Distances shrink by about a constant factor a step, so the way is measured in their logarithm.
    """

    def __init__(self, listener: Listener, measure: str) -> None:
        self._listener, self._measure = listener, measure
        self._first = 0.0
        self._share = 0.0

    def __call__(self, record: IterationRecord) -> None:
        norm = max(min(record.distance, 1.0), _TOLERANCE)
        if record.iteration == 0:
            self._first = norm
        if self._first > _TOLERANCE:
            self._share = max(self._share, math.log(self._first / norm) / math.log(self._first / _TOLERANCE))
        told = f"{self._measure} {record.distance:.0e}" if math.isfinite(record.distance) else ""
        self._listener.advance(record.iteration, self._share, told)


@contextmanager
def _warnings_as_notes(notes: Notes) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if issubclass(warning.category, KullbackWarning):
            notes.say([str(warning.message)])
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _model_of(estimator: Any, examples: _Data, encoder: FeatureEncoder) -> Model:
    coefficients = np.asarray(estimator.coef_, dtype=np.float64)
    intercept = np.asarray(estimator.intercept_, dtype=np.float64)
    if examples.kind == "classes" and len(coefficients) == 1:
        # Two classes are fitted by the difference of their scores; half of it goes to each.
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    counts = examples.counts_of("train")
    priors = counts / len(examples.parts["train"])
    return Model(estimator.loss_, examples.plan, encoder, coefficients, intercept, 1.0, priors)


def _fit_scaling(model: Model, fold: Any, examples: _Data, notes: Notes) -> TemperatureScaling | None:
    """The temperature that suits the held-out fold, or None where no temperature can help."""
    rows = examples.parts["calibration"]
    targets = examples.targets_of("calibration")
    scores = _scores(model, fold)
    if model.kind == "classes" and np.isneginf(scores[np.arange(len(rows)), targets]).any():
        notes.say(
            [
                "no temperature was fitted: the model gives some held-out examples' true class the probability zero, "
                "because the loss gives that class no weight"
            ]
        )
        return None
    scaling = fit_temperature(scores, targets, link="softmax" if model.kind == "classes" else "sigmoid")
    if scaling.note:
        notes.say([f"temperature: {scaling.note}"])
    if len(rows) > _ENOUGH_FOR_ONE_NUMBER:
        return scaling
    return dataclasses.replace(scaling, nll_after=_cross_validated_loss(model, scores, targets))


def _cross_validated_loss(model: Model, scores: NDArray[np.float64], targets: NDArray[Any]) -> float:
    """Loss of the fold with a temperature, every row judged by one that was fitted without it.

    On a few dozen rows the best temperature is mostly noise, and on the rows it was fitted on it never looks worse.
    """
    losses = np.empty(len(targets))
    turn = np.arange(len(targets)) % _TURNS
    for i in range(min(_TURNS, len(targets))):
        out, rest = turn == i, turn != i
        temperature = 1.0
        if rest.any():
            link: Literal["softmax", "sigmoid"] = "softmax" if model.kind == "classes" else "sigmoid"
            temperature = fit_temperature(scores[rest], targets[rest], link=link).temperature
        scaled = dataclasses.replace(model, temperature=temperature).calibrated(scores[out])
        losses[out] = losses_of(scaled, targets[out], model.kind)
    return float(losses.mean())


def _metrics(tally: Tally, scaling: TemperatureScaling | None) -> TestMetrics:
    metrics = tally.metrics(tempered=scaling is not None)
    if scaling is None:
        return metrics
    return dataclasses.replace(
        metrics,
        nll_before=scaling.nll_before,
        nll_after=scaling.nll_after,
        temperature=scaling.temperature,
        temperature_kept=scaling.improved,
    )


def _data_summary(examples: _Data, encoder: FeatureEncoder, notes: tuple[str, ...]) -> DataSummary:
    table, plan = examples.table, examples.plan
    used = {column.name: ColumnSummary(column.name, column.kind, column.why) for column in encoder.columns}
    targets = {name: ColumnSummary(name, "target") for name in plan.sources}
    split = tuple((name, len(rows)) for name, rows in examples.parts.items())
    left_out = table.num_rows - sum(count for _, count in split)
    return DataSummary(
        file_name=examples.path.name,
        rows=table.num_rows,
        target=plan.source,
        columns=tuple((targets | used)[name] for name in table.column_names),
        dropped=(("no target", left_out),) if left_out else (),
        splits=split,
        seed=examples.seed,
        n_features=len(encoder.feature_names),
        notes=notes,
    )


def _curve(course: list[Any], examples: _Data) -> TrainingCurve:
    estimator = course[-1]
    # Every fit but the first starts where the one before it ended, and repeats that point.
    history = [*course[0].history_, *(record for fit in course[1:] for record in fit.history_[1:])]
    # Summed over labels in training, but shown per label, beside log 2.
    n_classes = len(examples.plan.classes)
    per_row = getattr(estimator.loss_, "label_reduction", "mean") == "sum"
    labels = n_classes if per_row else 1
    return TrainingCurve(
        iterations=np.arange(len(history)),
        loss=np.array([record.loss for record in history]) / labels,
        converged=bool(estimator.converged_),
        note=f"gradient norm {history[-1].gradient_norm:.2g} after {len(history) - 1} iterations",
        uniform_loss=estimator.loss_.initial_value(n_classes) / labels,
        prior_loss=_constant_loss(estimator.loss_, examples.targets_of("train"), n_classes) / labels,
    )


def _constant_loss(loss: Loss, targets: NDArray[Any], n_classes: int) -> float:
    """What the best model without features costs, on an even sample of the targets."""
    best = loss.best_constant(targets, n_classes=n_classes)
    some = targets[:: max(1, len(targets) * n_classes // _ACCOUNT_ELEMENTS)]
    return float(loss(np.tile(best, (len(some), 1)), some))


def _hardest(tally: Tally, examples: _Data, encoder: FeatureEncoder) -> tuple[HardExample, ...]:
    shown = [column.name for column in encoder.columns if column.kind != "dropped"][:_SHOWN_COLUMNS]
    found = []
    for hard in tally.hardest():
        values = tuple((name, _as_text(examples.table.column(name)[hard.row].as_py())) for name in shown)
        true, decided = names_of(hard.true, examples.plan), names_of(hard.decided, examples.plan)
        found.append(HardExample(hard.row + 1, values, true, decided, hard.probability, hard.loss))
    return tuple(found)


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _accounts(model: Model, train: Any, targets: NDArray[Any]) -> dict[str, Any]:
    """The gradient accounts before and after training, on the training rows or an even sample of them."""
    n_classes = len(model.classes)
    if n_classes > LARGEST_CONFUSION:
        return {}
    most = max(1, _ACCOUNT_ELEMENTS // max(model.coefficients.shape))
    rows = np.unique(np.linspace(0, len(targets) - 1, most).astype(np.int64)) if len(targets) > most else slice(None)
    logits = model.logits(train[rows])
    return {
        "untrained_account": untrained_account(targets[rows], model.loss, n_classes),
        "trained_account": gradient_account(logits, targets[rows], model.loss),
    }


def _run_summary(estimator: Any, settings: dict[str, Any], started: float, command: str) -> RunSummary:
    return RunSummary(
        model=type(estimator).__name__,
        settings=tuple((name, str(value)) for name, value in settings.items()),
        versions=_versions(),
        threads=kullback.get_num_threads(),
        seconds=time.perf_counter() - started,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
    )


def _versions() -> tuple[tuple[str, str], ...]:
    found = [("kullback", kullback.__version__), ("python", platform.python_version())]
    for package in ("numpy", "scipy", "scikit-learn", "pyarrow"):
        try:
            found.append((package, version(package)))
        except PackageNotFoundError:  # installed without its metadata
            found.append((package, "unknown"))
    return tuple(found)


def _facts(content: ReportContent) -> dict[str, Any]:
    """What `model.json` says beside what it takes to predict."""
    data, run, curve = content.data, content.run, content.curve
    metrics = {name: finite_or_none(value) for name, value in dataclasses.asdict(content.metrics).items()}
    facts: dict[str, Any] = {
        "kullback_version": kullback.__version__,
        "created": run.created,
        "estimator": run.model,
        "settings": dict(run.settings),
        "data": {
            "file_name": data.file_name,
            "rows": data.rows,
            "splits": dict(data.splits),
            "seed": data.seed,
            "notes": list(data.notes),
        },
        "test_metrics": metrics,
        "versions": dict(run.versions),
    }
    if curve is not None:
        facts["training"] = {
            "converged": curve.converged,
            "iterations": int(curve.iterations[-1]),
            "loss": finite_or_none(float(curve.loss[-1])),
            "note": curve.note,
        }
    return facts
