"""Everything a report shows, as plain names, numbers and arrays.

The report draws; it computes no metric. Whoever trained and tested the model fills a `ReportContent`, and
`render_report` turns it into one HTML file. Text is given raw, exactly as it stands in the data: escaping is the
renderer's business. Losses are in nats throughout; the renderer adds bits.

C is the number of classes (``kind="classes"``) or of labels (``kind="labels"``), B a number of bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kullback.errors import ShapeError
from kullback.explain.account import GradientAccount

Kind = Literal["classes", "labels"]


@dataclass(frozen=True)
class ColumnSummary:
    """One column of the data file.

    Attributes:
        name: as in the file.
        kind: ``"numeric"``, ``"boolean"``, ``"categorical"``, ``"text"``, ``"dropped"``, or ``"target"``.
        note: anything worth saying ("3 categories", "2 missing, filled with the median"), or empty.
    """

    name: str
    kind: str
    note: str = ""


@dataclass(frozen=True)
class DataSummary:
    """Where the examples came from and what happened to them before training.

    Attributes:
        file_name: name of the data file, without its directory.
        rows: rows in the file.
        target: name of the target column, or of the columns, as the user gave it.
        columns: every column, in file order.
        dropped: (reason, number of rows) for rows that were left out; empty when every row was used.
        splits: (name, number of rows) of each part, in order: train, calibration, test.
        seed: of the split.
        n_features: columns of the encoded feature matrix, or None if not known.
        notes: whatever the readers and encoders said aloud, one sentence each.
    """

    file_name: str
    rows: int
    target: str
    columns: tuple[ColumnSummary, ...]
    dropped: tuple[tuple[str, int], ...] = ()
    splits: tuple[tuple[str, int], ...] = ()
    seed: int = 0
    n_features: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ClassBalance:
    """How many examples hold each class or label.

    Attributes:
        train: (C,) counts in the training part.
        calibration: (C,) counts in the part held out for temperature, or None if there is none.
        test: (C,) counts in the test part, or None.
    """

    train: NDArray[Any]
    calibration: NDArray[Any] | None = None
    test: NDArray[Any] | None = None


@dataclass(frozen=True, eq=False)
class TrainingCurve:
    """The course of the training.

    Attributes:
        iterations: (T,) iteration numbers, 0 being the untrained model where it was recorded.
        loss: (T,) mean training loss in nats, without the penalty (per label for ``kind="labels"``).
        converged: whether the solver reached its tolerance.
        note: what the solver said when it stopped ("gradient norm 3.1e-05 after 84 iterations"), or empty.
        uniform_loss: what this loss costs a model whose logits are all equal, nats: log C for cross-entropy (per
            label for labels); None where it is the metrics' own.
        prior_loss: what it costs the best model without features, nats; None where it is the metrics' own.
    """

    iterations: NDArray[Any]
    loss: NDArray[Any]
    converged: bool = True
    note: str = ""
    uniform_loss: float | None = None
    prior_loss: float | None = None


@dataclass(frozen=True)
class TestMetrics:
    """The headline figures, all on the test part unless said otherwise.

    Attributes:
        loss: mean negative log-likelihood of the probabilities the model reports, nats (per label for labels).
        uniform_loss: loss of a model that knows nothing: log C for classes, log 2 per label for labels.
        prior_entropy: entropy of the class frequencies, nats (mean over labels of their binary entropies): what a
            model that knows only the class balance scores.
        accuracy: share of right predictions (for labels: of right yes/no decisions).
        macro_f1: unweighted mean of the per-class F1.
        majority_accuracy: accuracy of always predicting the commonest class (for labels: each label's commoner
            value), or None.
        exact_match: labels only: share of rows whose whole label set is right.
        micro_f1: labels only.
        ece_before: expected calibration error before the temperature, in [0, 1].
        ece_after: the same after it, or None if no temperature was tried.
        nll_before: calibration part's negative log-likelihood before the temperature, nats.
        nll_after: the same after it.
        temperature: the fitted temperature, kept or not; None if none was tried.
        temperature_kept: whether the model uses it.
        decisions_moved: test rows (for labels: decisions) on which the trained loss decides otherwise than the
            most probable class would: class weights at work. None if not counted.
    """

    __test__ = False  # not a test case, whatever a collector that goes by names may think

    loss: float
    uniform_loss: float
    prior_entropy: float
    accuracy: float
    macro_f1: float
    majority_accuracy: float | None = None
    exact_match: float | None = None
    micro_f1: float | None = None
    ece_before: float | None = None
    ece_after: float | None = None
    nll_before: float | None = None
    nll_after: float | None = None
    temperature: float | None = None
    temperature_kept: bool = False
    decisions_moved: int | None = None


@dataclass(frozen=True, eq=False)
class PerClass:
    """Test metrics of each class or label, as from `sklearn.metrics.precision_recall_fscore_support`.

    Attributes:
        precision: (C,) NaN where undefined is allowed and shown as a dash; so for the next two.
        recall: (C,).
        f1: (C,).
        support: (C,) test examples that hold the class.
    """

    precision: NDArray[Any]
    recall: NDArray[Any]
    f1: NDArray[Any]
    support: NDArray[Any]


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """One reliability diagram.

    Attributes:
        edges: (B + 1,) bin edges in [0, 1].
        counts: (B,) predictions in each bin.
        confidence: (B,) mean predicted probability in each bin; NaN where the bin is empty.
        accuracy: (B,) share of them that were right (for labels: that hold the label); NaN where empty.
    """

    edges: NDArray[Any]
    counts: NDArray[Any]
    confidence: NDArray[Any]
    accuracy: NDArray[Any]


@dataclass(frozen=True)
class HardExample:
    """One test example with a high loss.

    Attributes:
        row: row number in the data file, counted from 1 at the first data row.
        values: (column, value) of a few columns, as text.
        true: the true class, or labels.
        predicted: the predicted class, or labels.
        probability: the probability the model gave to the true class (for labels: the geometric mean over labels
            of the probability of the right answer, which is what the loss below says).
        loss: in nats (for labels: mean over labels).
    """

    row: int
    values: tuple[tuple[str, str], ...]
    true: tuple[str, ...]
    predicted: tuple[str, ...]
    probability: float
    loss: float


@dataclass(frozen=True)
class LossSummary:
    """The loss the model was trained with.

    Attributes:
        spelling: as `str(loss)` gives it.
        meaning: what its minimiser means, in a sentence or two; `kullback.explain.minimiser_meaning` writes it.
    """

    spelling: str
    meaning: str


@dataclass(frozen=True)
class RunSummary:
    """How to get the same result again.

    Attributes:
        model: name of the estimator ("SoftmaxClassifier").
        settings: (name, value) of the settings that were used.
        versions: (package, version), Kullback first.
        threads: threads the kernels used, or None if not known.
        seconds: wall time of the whole run so far, or None.
        created: date and time as text, or empty.
        command: the command line that was given, or empty.
    """

    model: str
    settings: tuple[tuple[str, str], ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    threads: int | None = None
    seconds: float | None = None
    created: str = ""
    command: str = ""


@dataclass(frozen=True, eq=False)
class ReportContent:
    """All a report shows. Parts that are None are left out of it.

    Attributes:
        kind: ``"classes"`` (exactly one holds) or ``"labels"`` (several may hold at once).
        class_names: the C classes or labels as text, in the model's order.
        data: what the data is.
        loss: the loss and what its minimiser means.
        metrics: the headline figures.
        balance: examples per class.
        curve: training curve.
        confusion: (C, C) test counts, rows true and columns predicted; for labels (C, 2, 2) as
            ``[[true negative, false positive], [false negative, true positive]]`` for each label.
        per_class: precision, recall, F1 and support.
        reliability_before: reliability diagram before the temperature.
        reliability_after: the same after it; None if no temperature was tried.
        hardest: examples with the highest loss, highest first.
        untrained_account: gradient account of the model at zero logits.
        trained_account: gradient account of the trained model on the same examples.
        run: versions, threads, time.

    Raises:
        ShapeError: if an array does not have one entry for each class.
    """

    kind: Kind
    class_names: tuple[str, ...]
    data: DataSummary
    loss: LossSummary
    metrics: TestMetrics
    balance: ClassBalance
    curve: TrainingCurve | None = None
    confusion: NDArray[Any] | None = None
    per_class: PerClass | None = None
    reliability_before: ReliabilityBins | None = None
    reliability_after: ReliabilityBins | None = None
    hardest: tuple[HardExample, ...] = ()
    untrained_account: GradientAccount | None = None
    trained_account: GradientAccount | None = None
    run: RunSummary = field(default_factory=lambda: RunSummary(model=""))

    def __post_init__(self) -> None:
        n = len(self.class_names)
        shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
            "balance.train": (self.balance.train, (n,)),
            "balance.calibration": (self.balance.calibration, (n,)),
            "balance.test": (self.balance.test, (n,)),
            "confusion": (self.confusion, (n, n) if self.kind == "classes" else (n, 2, 2)),
        }
        if self.per_class is not None:
            for name in ("precision", "recall", "f1", "support"):
                shapes[f"per_class.{name}"] = (getattr(self.per_class, name), (n,))
        for name, account in (
            ("untrained_account", self.untrained_account),
            ("trained_account", self.trained_account),
        ):
            if account is not None:
                shapes[f"{name}.push"] = (account.push, (n, n))
        if self.curve is not None:
            shapes["curve.loss"] = (self.curve.loss, np.shape(self.curve.iterations))
        for name, bins in (
            ("reliability_before", self.reliability_before),
            ("reliability_after", self.reliability_after),
        ):
            if bins is not None:
                n_bins = len(bins.counts)
                shapes[f"{name}.edges"] = (bins.edges, (n_bins + 1,))
                shapes[f"{name}.confidence"] = (bins.confidence, (n_bins,))
                shapes[f"{name}.accuracy"] = (bins.accuracy, (n_bins,))
        _check_shapes(shapes, n)


def _check_shapes(shapes: Mapping[str, tuple[Any, tuple[int, ...]]], n_classes: int) -> None:
    for name, (array, expected) in shapes.items():
        if array is not None and np.shape(array) != expected:
            raise ShapeError(f"report: {name} has shape {np.shape(array)}, expected {expected} for {n_classes} classes")
