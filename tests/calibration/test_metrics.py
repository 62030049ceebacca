import math

import mpmath
import numpy as np
import pytest

from kullback.calibration import (
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
    prior_entropy,
    reliability,
)
from kullback.errors import InputError, ShapeError, TargetError
from kullback.targets import ClassMixture, ClassRows


def test_reliability_bins_by_hand():
    # Confidences 0.6, 0.6, 0.9, 0.9 with hits 1, 0, 1, 1: bins of width 0.5 would merge them, tenths do not.
    p = [[0.6, 0.4], [0.4, 0.6], [0.1, 0.9], [0.9, 0.1]]
    bins = reliability(p, [0, 0, 1, 0], n_bins=10)
    assert bins.counts.tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 2, 0]
    assert bins.confidence[[5, 8]] == pytest.approx([0.6, 0.9])
    assert bins.accuracy[[5, 8]] == pytest.approx([0.5, 1.0])
    assert np.isnan(bins.accuracy[0])
    assert bins.ece == pytest.approx(0.5 * 0.1 + 0.5 * 0.1)


def test_bin_edges_are_closed_on_the_right_and_zero_is_kept():
    bins = reliability([[0.0], [0.5], [1.0]], [[0], [1], [1]], n_bins=2, link="sigmoid")
    assert bins.counts.tolist() == [2, 1]
    assert bins.edges.tolist() == [0.0, 0.5, 1.0]


def test_perfectly_calibrated_bins_have_no_error():
    p = np.tile([0.75, 0.25], (4, 1))
    assert expected_calibration_error(p, [0, 0, 0, 1]) == pytest.approx(0.0, abs=1e-15)


def test_labels_pool_every_element():
    p = np.array([[0.2, 0.8], [0.2, 0.8]])
    bins = reliability(p, [[0, 1], [1, 1]], n_bins=5, link="sigmoid")
    assert bins.counts.sum() == 4
    assert bins.ece == pytest.approx(0.5 * 0.3 + 0.5 * 0.2)


def test_weights_act_as_repetition():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), 30)
    y = rng.integers(0, 4, 30)
    w = rng.integers(0, 4, 30)
    again = np.repeat(np.arange(30), w)
    for figure in (
        lambda p, y, w: expected_calibration_error(p, y, sample_weight=w),
        lambda p, y, w: negative_log_likelihood(np.log(p), y, sample_weight=w),
        lambda p, y, w: brier_score(p, y, sample_weight=w),
        lambda p, y, w: prior_entropy(y, sample_weight=w),
    ):
        assert figure(p, y, w) == pytest.approx(figure(p[again], y[again], None), rel=1e-12)


def test_index_row_and_mixture_targets_agree():
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(3), 20)
    a, b, share = rng.integers(0, 3, 20), rng.integers(0, 3, 20), rng.random(20)
    rows = np.zeros((20, 3))
    np.add.at(rows, (np.arange(20), a), share)
    np.add.at(rows, (np.arange(20), b), 1 - share)
    mixture, soft = ClassMixture(a, b, share), ClassRows(rows)
    assert negative_log_likelihood(np.log(p), mixture) == pytest.approx(negative_log_likelihood(np.log(p), soft))
    assert brier_score(p, mixture) == pytest.approx(brier_score(p, soft))
    assert prior_entropy(mixture) == pytest.approx(prior_entropy(soft))
    assert expected_calibration_error(p, mixture) == pytest.approx(expected_calibration_error(p, soft))
    one_hot = np.eye(3)[a]
    assert negative_log_likelihood(np.log(p), a) == pytest.approx(negative_log_likelihood(np.log(p), one_hot))
    assert brier_score(p, a) == pytest.approx(brier_score(p, one_hot))


def test_likelihood_of_labels_against_fifty_digits():
    p, t = [[0.3, 0.9], [1e-12, 0.5]], [[1, 0.25], [0, 1]]
    with mpmath.workdps(50):
        total = mpmath.mpf(0)
        for row, marks in zip(p, t, strict=True):
            for q, y in zip(row, marks, strict=True):
                q, y = mpmath.exp(mpmath.mpf(math.log(q))), mpmath.mpf(y)
                total -= y * mpmath.log(q) + (1 - y) * mpmath.log(1 - q)
        expected = float(total / 4)
    assert negative_log_likelihood(np.log(p), t, link="sigmoid") == pytest.approx(expected, rel=1e-12)


def test_impossible_classes():
    logs = np.log(np.array([[1.0, 1e-300]]))
    logs[0, 1] = -np.inf
    assert negative_log_likelihood(logs, [0]) == 0
    assert negative_log_likelihood(logs, [1]) == math.inf
    assert negative_log_likelihood(np.vstack([logs, logs]), [0, 1], sample_weight=[1, 0]) == 0


def test_prior_entropy_by_hand():
    assert prior_entropy([0, 1, 2, 3]) == pytest.approx(math.log(4))
    assert prior_entropy([2, 2]) == 0
    assert prior_entropy([[1, 0], [1, 1]], link="sigmoid") == pytest.approx(math.log(2) / 2)


@pytest.mark.parametrize(
    ("p", "y", "error", "says"),
    [
        ([[0.5, 1.5]], [0], InputError, "row 0, column 1"),
        ([[0.5, np.nan]], [0], InputError, "row 0, column 1"),
        ([[0.5, 0.5], [0.5, 0.1]], [0, 0], InputError, "row 1: probabilities sum to 0.6"),
        ([[0.5, 0.5]], [2], TargetError, "row 0: class index 2 is not in \\[0, 2\\)"),
        ([[0.5, 0.5]], [0, 1], TargetError, "2 targets for 1 rows"),
        ([0.5, 0.5], [0, 1], ShapeError, "expected \\(N, C\\)"),
        (np.zeros((0, 2)), [], ShapeError, "at least one row"),
        ([["a", "b"]], [0], InputError, "expected numbers"),
    ],
)
def test_wrong_input_names_the_place(p, y, error, says):
    for figure in (reliability, brier_score):
        with pytest.raises(error, match=says):
            figure(p, y)


def test_wrong_options_are_refused():
    with pytest.raises(InputError, match="at least one bin"):
        reliability([[1.0]], [0], n_bins=0)
    with pytest.raises(InputError, match="link 'probit'"):
        reliability([[1.0]], [0], link="probit")
    with pytest.raises(InputError, match="not a log-probability"):
        negative_log_likelihood([[0.0, 2.0]], [0])
    with pytest.raises(InputError, match="row 1: sample_weight -1"):
        brier_score([[1.0], [1.0]], [0, 0], sample_weight=[1, -1])
    with pytest.raises(InputError, match="every sample_weight is zero"):
        brier_score([[1.0]], [0], sample_weight=[0])
    with pytest.raises(TargetError, match="row 0, column 1: target 2"):
        reliability([[0.5, 0.5]], [[0, 2]], link="sigmoid")
