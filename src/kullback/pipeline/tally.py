"""Test figures, added up block by block, so that no more than a block of probabilities is ever in memory.

Every figure here is a sum over examples or a ratio of such sums, so blocks of any size give the same result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kullback.calibration import reliability
from kullback.report.content import Kind, PerClass, ReliabilityBins, TestMetrics

# A confusion matrix of more classes than this is neither read by anybody nor small.
LARGEST_CONFUSION = 2000
HARDEST = 12
N_BINS = 15

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Hard:
    """An example with a high loss: its row, loss in nats, the probability of what is true, truth and decision."""

    row: int
    loss: float
    probability: float
    true: NDArray[Any]
    decided: NDArray[Any]


class Tally:
    """Figures of a model on examples with known targets.

    Args:
        kind: ``"classes"`` or ``"labels"``.
        priors: (C,) frequencies of the classes or labels in the training data; what a model without columns says.
    """

    def __init__(self, kind: Kind, priors: Floats) -> None:
        n = len(priors)
        self.kind = kind
        self.rows = 0
        self._priors = priors
        self._loss = 0.0
        self._right = 0.0
        self._exact = 0
        self._moved = 0
        self._majority_right = 0
        self._held = np.zeros(n, dtype=np.int64)
        self._decided = np.zeros(n, dtype=np.int64)
        self._hit = np.zeros(n, dtype=np.int64)
        tabulated = kind == "classes" and n <= LARGEST_CONFUSION
        self._confusion = np.zeros((n, n), dtype=np.int64) if tabulated else None
        self._before = _Bins()
        self._after = _Bins()
        self._hard: list[Hard] = []

    def add(
        self,
        targets: NDArray[Any],
        scores: Floats,
        decisions: Integers,
        rows: Integers,
        *,
        before: Floats | None = None,
        after: Floats | None = None,
    ) -> None:
        """Count a block of n examples.

        Args:
            targets: (n,) class indices, or (n, C) 0/1 labels.
            scores: (n, C) log-probabilities of classes, or log-odds of labels, as the model reports them.
            decisions: (n,) class indices, or (n, C) 0/1.
            rows: (n,) row numbers, by which the examples with the highest losses are remembered.
            before: (n, C) scores before the temperature; None if they are `scores`.
            after: (n, C) scores after the temperature, kept or not; None if they are `scores`.
        """
        if len(targets) == 0:
            return
        self.rows += len(targets)
        link: Literal["softmax", "sigmoid"] = "softmax" if self.kind == "classes" else "sigmoid"
        stated = reliability(probabilities_of(scores, self.kind), targets, n_bins=N_BINS, link=link)
        for bins, other in ((self._before, before), (self._after, after)):
            if other is None:
                bins.add(stated)
            else:
                bins.add(reliability(probabilities_of(other, self.kind), targets, n_bins=N_BINS, link=link))
        losses = losses_of(scores, targets, self.kind)
        self._loss += float(losses.sum())
        if self.kind == "classes":
            self._add_classes(targets, scores, decisions)
        else:
            self._add_labels(targets, scores, decisions)
        self._remember(losses, targets, decisions, rows)

    def metrics(self, *, tempered: bool) -> TestMetrics:
        """The headline figures; the temperature's own entries are left to whoever fitted it.

        Args:
            tempered: whether a temperature was tried, so that there is an error before it and one after.
        """
        n_classes = len(self._held)
        per_class = self.per_class()
        share = self._held / self.rows
        labels = self.kind == "labels"
        answers = self.rows * (n_classes if labels else 1)
        hit, wrong = int(self._hit.sum()), int((self._held + self._decided - 2 * self._hit).sum())
        return TestMetrics(
            loss=self._loss / self.rows,
            uniform_loss=math.log(2) if labels else math.log(n_classes),
            prior_entropy=float(np.mean(_entropy(share) + _entropy(1 - share)))
            if labels
            else float(_entropy(share).sum()),
            accuracy=self._right / answers,
            macro_f1=float(np.nanmean(per_class.f1)) if np.isfinite(per_class.f1).any() else math.nan,
            majority_accuracy=self._majority_right / answers,
            exact_match=self._exact / self.rows if labels else None,
            micro_f1=(2 * hit / (2 * hit + wrong) if hit + wrong else math.nan) if labels else None,
            ece_before=self._before.error(),
            ece_after=self._after.error() if tempered else None,
            decisions_moved=self._moved,
        )

    def per_class(self) -> PerClass:
        """Precision, recall and F1 of every class; NaN where there is nothing to divide by."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return PerClass(
                precision=self._hit / self._decided,
                recall=self._hit / self._held,
                f1=2 * self._hit / (self._held + self._decided),
                support=self._held,
            )

    def confusion(self) -> Integers | None:
        """(C, C) counts, rows true; for labels (C, 2, 2); None for too many classes to look at."""
        if self.kind == "classes":
            return self._confusion
        missed, false = self._held - self._hit, self._decided - self._hit
        table = np.empty((len(self._held), 2, 2), dtype=np.int64)
        table[:, 0, 0] = self.rows - self._held - false
        table[:, 0, 1] = false
        table[:, 1, 0] = missed
        table[:, 1, 1] = self._hit
        return table

    def reliability_before(self) -> ReliabilityBins:
        """The reliability diagram before the temperature."""
        return self._before.bins()

    def reliability_after(self) -> ReliabilityBins:
        """The reliability diagram after the temperature."""
        return self._after.bins()

    def hardest(self) -> list[Hard]:
        """The examples with the highest loss, highest first."""
        return list(self._hard)

    def _add_classes(self, targets: Integers, scores: Floats, decisions: Integers) -> None:
        n = len(self._held)
        right = decisions == targets
        self._right += int(right.sum())
        self._majority_right += int((targets == int(np.argmax(self._priors))).sum())
        self._moved += int((decisions != scores.argmax(axis=1)).sum())
        self._held += np.bincount(targets, minlength=n)
        self._decided += np.bincount(decisions, minlength=n)
        self._hit += np.bincount(targets[right], minlength=n)
        if self._confusion is not None:
            self._confusion += np.bincount(targets * n + decisions, minlength=n * n).reshape(n, n)

    def _add_labels(self, targets: NDArray[Any], scores: Floats, decisions: Integers) -> None:
        right = decisions == targets
        self._right += int(right.sum())
        self._exact += int(right.all(axis=1).sum())
        self._majority_right += int((targets == (self._priors > 0.5)).sum())
        self._moved += int((decisions != (scores > 0)).sum())
        self._held += targets.sum(axis=0, dtype=np.int64)
        self._decided += decisions.sum(axis=0, dtype=np.int64)
        self._hit += (targets.astype(bool) & decisions.astype(bool)).sum(axis=0, dtype=np.int64)

    def _remember(self, losses: Floats, targets: NDArray[Any], decisions: Integers, rows: Integers) -> None:
        worst = np.argsort(-losses, kind="stable")[:HARDEST]
        found = [
            Hard(int(rows[i]), float(losses[i]), float(np.exp(-losses[i])), targets[i], decisions[i]) for i in worst
        ]
        self._hard = sorted([*self._hard, *found], key=lambda hard: (-hard.loss, hard.row))[:HARDEST]


class _Bins:
    """Reliability bins summed over blocks."""

    def __init__(self) -> None:
        self._edges = np.linspace(0.0, 1.0, N_BINS + 1)
        self._counts = np.zeros(N_BINS)
        self._confidence = np.zeros(N_BINS)
        self._accuracy = np.zeros(N_BINS)

    def add(self, block: Any) -> None:
        """Add a `Reliability` of a block."""
        self._edges = block.edges
        self._counts += block.counts
        self._confidence += np.where(block.counts > 0, block.counts * block.confidence, 0.0)
        self._accuracy += np.where(block.counts > 0, block.counts * block.accuracy, 0.0)

    def error(self) -> float:
        """The expected calibration error, Σ_b |accuracy_b − confidence_b|·counts_b / Σ counts."""
        return float(np.abs(self._accuracy - self._confidence).sum() / self._counts.sum())

    def bins(self) -> ReliabilityBins:
        """The bins' means."""
        with np.errstate(invalid="ignore"):
            return ReliabilityBins(
                self._edges, self._counts, self._confidence / self._counts, self._accuracy / self._counts
            )


def probabilities_of(scores: Floats, kind: Kind) -> Floats:
    """Probabilities (N, C) from log-probabilities of classes or log-odds of labels.

    >>> probabilities_of(np.zeros((1, 2)), "labels")
    array([[0.5, 0.5]])
    """
    if kind == "classes":
        return np.exp(scores)
    # exp of a negative number only: neither branch can overflow.
    small = np.exp(-np.abs(scores))
    return np.where(scores >= 0, 1.0, small) / (1.0 + small)


def losses_of(scores: Floats, targets: NDArray[Any], kind: Kind) -> Floats:
    """Negative log-likelihood of each example in nats, (N,); for labels the mean over its labels.

    >>> losses_of(np.log([[0.5, 0.5]]), np.array([1]), "classes").round(4)
    array([0.6931])
    """
    if kind == "classes":
        return np.asarray(-scores[np.arange(len(targets)), targets])
    signed = np.where(targets != 0, -scores, scores)
    return np.asarray(np.logaddexp(0.0, signed).mean(axis=1))


def _entropy(share: Floats) -> Floats:
    safe = np.where(share > 0, share, 1.0)
    return -share * np.log(safe)
