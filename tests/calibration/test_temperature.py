import math

import mpmath
import numpy as np
import pytest

from kullback.calibration import fit_temperature, negative_log_likelihood
from kullback.errors import InputError, TargetError


def overconfident_scores(n=400, n_classes=5, factor=3.0, seed=0):
    """Logits whose truth is softmax(logits / factor)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, n_classes)) * 2
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return logits * factor, y


def test_finds_the_factor_that_was_put_in():
    scores, y = overconfident_scores(n=20000)
    scaling = fit_temperature(scores, y)
    assert scaling.temperature == pytest.approx(3.0, rel=0.03)
    assert scaling.improved
    assert scaling.note == ""


def test_closed_form_of_one_repeated_row():
    # Right k times in n on scores (s, 0): the optimum has sigmoid(s/T) = k/n.
    scaling = fit_temperature([[4.0, 0.0]] * 10, [0] * 7 + [1] * 3)
    assert scaling.temperature == pytest.approx(4.0 / math.log(7 / 3), rel=1e-9)
    q = 1 / (1 + math.exp(-4.0))
    assert scaling.nll_before == pytest.approx(-0.7 * math.log(q) - 0.3 * math.log(1 - q))
    assert scaling.nll_after == pytest.approx(-0.7 * math.log(0.7) - 0.3 * math.log(0.3))


def test_root_against_fifty_digits():
    scores, y = overconfident_scores(n=25, n_classes=3)
    weight = np.linspace(0.5, 2.0, 25)
    found = fit_temperature(scores, y, sample_weight=weight).temperature
    with mpmath.workdps(50):

        def slope(beta):
            total = mpmath.mpf(0)
            for z, k, w in zip(scores.tolist(), y.tolist(), weight.tolist(), strict=True):
                e = [mpmath.exp(beta * v) for v in z]
                total += w * (sum(a * v for a, v in zip(e, z, strict=True)) / sum(e) - z[k])
            return total

        beta = mpmath.findroot(slope, 1 / mpmath.mpf(found))
    assert found == pytest.approx(float(1 / beta), rel=1e-9)


def test_sigmoid_closed_form():
    scaling = fit_temperature([[3.0, -3.0]] * 4, [[1, 0], [1, 0], [1, 0], [0, 1]], link="sigmoid")
    assert scaling.temperature == pytest.approx(3.0 / math.log(3), rel=1e-9)
    assert scaling.apply([[3.0, -3.0]])[0] == pytest.approx([0.75, 0.25])


def test_logits_and_log_probabilities_give_the_same():
    scores, y = overconfident_scores()
    logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    one, other = fit_temperature(scores, y), fit_temperature(logs, y)
    assert one.temperature == pytest.approx(other.temperature, rel=1e-9)
    np.testing.assert_allclose(one.apply(scores), other.apply(logs), rtol=1e-8)


def test_apply_agrees_with_its_logarithm_and_the_reported_loss():
    scores, y = overconfident_scores()
    scaling = fit_temperature(scores, y)
    np.testing.assert_allclose(np.log(scaling.apply(scores)), scaling.apply_log(scores), rtol=1e-10)
    assert negative_log_likelihood(scaling.apply_log(scores), y) == pytest.approx(scaling.nll_after)
    assert scaling.apply_log([[2000.0 * scaling.temperature, 0.0]])[0, 1] == pytest.approx(-2000.0)


def test_never_worse_on_its_own_fold_and_order_is_kept():
    for seed in range(5):
        scores, y = overconfident_scores(n=60, factor=0.4, seed=seed)
        scaling = fit_temperature(scores, y)
        assert scaling.nll_after <= scaling.nll_before
        assert (scaling.apply(scores).argmax(axis=1) == scores.argmax(axis=1)).all()


def test_impossible_classes_are_masked():
    scores, y = overconfident_scores(n_classes=4)
    wider = np.hstack([scores, np.full((len(scores), 1), -np.inf)])
    assert fit_temperature(wider, y).temperature == pytest.approx(fit_temperature(scores, y).temperature, rel=1e-9)
    assert (fit_temperature(wider, y).apply(wider)[:, 4] == 0).all()


def test_impossible_truth_names_the_row():
    with pytest.raises(InputError, match="row 1: its true class has probability zero"):
        fit_temperature([[1.0, 0.0], [0.0, -np.inf]], [0, 1])
    scaling = fit_temperature([[1.0, 0.0], [0.0, -np.inf], [1.0, 0.0]], [0, 1, 1], sample_weight=[2, 0, 1])
    assert scaling.temperature == pytest.approx(1 / math.log(2), rel=1e-9)


def test_separated_fold_is_bounded_and_said():
    scaling = fit_temperature([[2.0, 0.0], [0.0, 2.0]] * 4, [0, 1] * 4)
    # As if one of 10 outcomes were wrong: sigmoid(2/T) = 9/10.
    assert scaling.temperature == pytest.approx(2.0 / math.log(9), rel=1e-6)
    assert "without error" in scaling.note
    single = fit_temperature([[5.0, 1.0, 0.0]], [0])
    assert 0.01 < single.temperature < 1000


def test_uninformative_scores():
    flat = fit_temperature(np.zeros((6, 3)), [0, 1, 2, 0, 1, 2])
    assert flat.temperature == 1.0
    assert "nothing" in flat.note or "no temperature" in flat.note
    reversed_scores = fit_temperature([[1.0, 0.0]] * 4, [1, 1, 1, 0])
    assert reversed_scores.temperature == 1000.0
    assert "upper bound" in reversed_scores.note


def test_soft_targets_and_weights():
    rows = [[0.7, 0.3]] * 3
    assert fit_temperature([[4.0, 0.0]] * 3, rows).temperature == pytest.approx(4.0 / math.log(7 / 3), rel=1e-9)
    weighted = fit_temperature([[4.0, 0.0]] * 2, [0, 1], sample_weight=[7, 3])
    assert weighted.temperature == pytest.approx(4.0 / math.log(7 / 3), rel=1e-9)


def test_wrong_input():
    with pytest.raises(InputError, match="row 0, column 1: score nan"):
        fit_temperature([[1.0, np.nan]], [0])
    with pytest.raises(InputError, match="score inf"):
        fit_temperature([[1.0, np.inf]], [0])
    with pytest.raises(InputError, match="must be finite"):
        fit_temperature([[1.0, -np.inf]], [[1, 0]], link="sigmoid")
    with pytest.raises(TargetError, match="row 0: class index 5"):
        fit_temperature([[1.0, 0.0]], [5])
    with pytest.raises(InputError, match="link"):
        fit_temperature([[1.0, 0.0]], [0], link="logit")
