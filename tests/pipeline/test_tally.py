"""The tally against scikit-learn's metrics, and against itself cut into blocks."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from kullback.calibration import expected_calibration_error, reliability
from kullback.pipeline.tally import HARDEST, Tally, losses_of, probabilities_of

N, C = 500, 4


def classes_case(seed: int = 0) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(N, C)) * 2
    targets = rng.choice(C, size=N, p=[0.5, 0.3, 0.15, 0.05])
    logits[np.arange(N), targets] += 1.5
    scores = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    decisions = np.argmax(logits + np.array([0, 0, 0, 2.0]), axis=1)
    return targets, scores, decisions


def labels_case(seed: int = 0) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    targets = (rng.random((N, C)) < [0.5, 0.3, 0.1, 0.05]).astype(np.uint8)
    scores = rng.normal(size=(N, C)) * 2 + 2.0 * targets - 1
    return targets, scores, (scores > 0).astype(np.int64)


def tally(kind: Any, case: tuple[Any, ...], priors: Any, block: int = N) -> Tally:
    targets, scores, decisions = case
    result = Tally(kind, np.asarray(priors))
    for start in range(0, len(targets), block):
        part = slice(start, start + block)
        rows = np.arange(len(targets))[part]
        result.add(targets[part], scores[part], decisions[part], rows, before=scores[part] * 2)
    return result


def test_classes_agree_with_scikit_learn() -> None:
    targets, scores, decisions = classes_case()
    result = Tally("classes", np.array([0.2, 0.5, 0.2, 0.1]))
    result.add(targets, scores, decisions, np.arange(N))
    found = result.metrics(tempered=False)
    p = np.exp(scores)
    assert found.loss == pytest.approx(sk.log_loss(targets, p), rel=1e-12)
    assert found.uniform_loss == math.log(C)
    assert found.prior_entropy == pytest.approx(sk.log_loss(targets, np.tile(np.bincount(targets) / N, (N, 1))))
    assert found.accuracy == sk.accuracy_score(targets, decisions)
    assert found.macro_f1 == pytest.approx(sk.f1_score(targets, decisions, average="macro"), rel=1e-12)
    assert found.majority_accuracy == np.mean(targets == 1)
    assert found.ece_before == pytest.approx(expected_calibration_error(p, targets), rel=1e-12)
    assert found.ece_after is None
    assert found.exact_match is None
    assert found.decisions_moved == np.sum(decisions != p.argmax(axis=1)) > 0
    precision, recall, f1, support = sk.precision_recall_fscore_support(targets, decisions)
    for name, expected in (("precision", precision), ("recall", recall), ("f1", f1), ("support", support)):
        np.testing.assert_allclose(getattr(result.per_class(), name), expected, rtol=1e-12)
    np.testing.assert_array_equal(result.confusion(), sk.confusion_matrix(targets, decisions))


def test_labels_agree_with_scikit_learn() -> None:
    case = targets, scores, decisions = labels_case()
    result = tally("labels", case, [0.6, 0.4, 0.1, 0.1])
    found = result.metrics(tempered=True)
    p = 1 / (1 + np.exp(-scores))
    assert found.loss == pytest.approx(np.mean([sk.log_loss(targets[:, k], p[:, k]) for k in range(C)]), rel=1e-12)
    assert found.uniform_loss == math.log(2)
    share = targets.mean(axis=0)
    assert found.prior_entropy == pytest.approx(np.mean(-share * np.log(share) - (1 - share) * np.log(1 - share)))
    assert found.accuracy == pytest.approx(1 - sk.hamming_loss(targets, decisions), rel=1e-12)
    assert found.exact_match == sk.accuracy_score(targets, decisions)
    assert found.macro_f1 == pytest.approx(sk.f1_score(targets, decisions, average="macro"), rel=1e-12)
    assert found.micro_f1 == pytest.approx(sk.f1_score(targets, decisions, average="micro"), rel=1e-12)
    assert found.majority_accuracy == pytest.approx(np.mean(targets == [1, 0, 0, 0]))
    assert found.ece_after == pytest.approx(expected_calibration_error(p, targets, link="sigmoid"), rel=1e-12)
    before = expected_calibration_error(1 / (1 + np.exp(-2 * scores)), targets, link="sigmoid")
    assert found.ece_before == pytest.approx(before, rel=1e-12)
    assert found.decisions_moved == 0
    np.testing.assert_array_equal(result.confusion(), sk.multilabel_confusion_matrix(targets, decisions))


@pytest.mark.parametrize("block", [1, 7, 499])
def test_blocks_change_nothing(block: int) -> None:
    case = labels_case(1)
    whole, parts = tally("labels", case, [0.5] * C), tally("labels", case, [0.5] * C, block)
    found = dataclasses.asdict(parts.metrics(tempered=True))
    for name, value in dataclasses.asdict(whole.metrics(tempered=True)).items():
        assert found[name] == (value if value is None else pytest.approx(value, rel=1e-12)), name
    assert [hard.row for hard in whole.hardest()] == [hard.row for hard in parts.hardest()]
    expected = reliability(probabilities_of(case[1], "labels"), case[0], link="sigmoid")
    np.testing.assert_allclose(parts.reliability_after().confidence, expected.confidence, rtol=1e-12)
    np.testing.assert_allclose(parts.reliability_after().accuracy, expected.accuracy, rtol=1e-12)


def test_hardest_come_first() -> None:
    targets, scores, decisions = classes_case(2)
    result = Tally("classes", np.full(C, 1 / C))
    result.add(targets, scores, decisions, np.arange(N) + 100)
    losses = -scores[np.arange(N), targets]
    hardest = result.hardest()
    assert [hard.row - 100 for hard in hardest] == list(np.argsort(-losses)[:HARDEST])
    assert hardest[0].loss == losses.max()
    assert hardest[0].probability == pytest.approx(np.exp(-losses.max()))
    assert hardest[0].true == targets[hardest[0].row - 100]


def test_classes_that_never_occur_are_not_averaged() -> None:
    result = Tally("classes", np.array([0.5, 0.4, 0.1]))
    scores = np.log([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    result.add(np.array([0, 1]), scores, np.array([0, 1]), np.arange(2))
    assert result.metrics(tempered=False).macro_f1 == 1.0
    assert np.isnan(result.per_class().recall[2])


def test_extreme_scores_stay_finite() -> None:
    scores = np.array([[800.0, -800.0, 0.0]])
    np.testing.assert_array_equal(probabilities_of(scores, "labels"), [[1.0, 0.0, 0.5]])
    assert losses_of(scores, np.array([[0, 1, 0]]), "labels")[0] == pytest.approx((1600 + math.log(2)) / 3)


def test_too_many_classes_for_a_table() -> None:
    n = 2001
    result = Tally("classes", np.full(n, 1 / n))
    result.add(np.array([5]), np.full((1, n), -math.log(n)), np.array([5]), np.arange(1))
    assert result.confusion() is None
    assert result.metrics(tempered=False).accuracy == 1.0
