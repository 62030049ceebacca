import re

import numpy as np
import pytest

from kullback import BinaryCrossEntropy, CrossEntropy
from kullback.explain import minimiser_meaning


@pytest.mark.parametrize("loss", [CrossEntropy(), CrossEntropy(temperature=2.0), BinaryCrossEntropy()])
def test_a_proper_loss_reports_the_truth(loss):
    assert "is the true distribution" in minimiser_meaning(loss, ["a", "b", "c"])


def figures(text):
    return [float(x) / 100 for x in re.findall(r"([\d.]+)%", text)]


def test_class_weights_are_worked_out_on_the_class_they_move_most():
    weight = np.array([1.0, 1.0, 5.0])
    text = minimiser_meaning(CrossEntropy(class_weight=weight), ["a", "b", "c"])
    truth, reported = figures(text)
    # By hand: q ∝ w·p. Of the three classes, a and b are moved most: 0.8 → 0.8 / (0.8 + 0.1 + 0.5).
    assert truth == 0.8
    assert reported == pytest.approx(0.8 / 1.4, abs=5e-4)
    assert "“a”" in text
    assert "turned back" in text


def test_smoothing():
    truth, reported = figures(minimiser_meaning(CrossEntropy(label_smoothing=0.1), ["no", "yes"]))
    assert (truth, reported) == (0.8, pytest.approx(0.9 * 0.8 + 0.05, abs=5e-4))


def test_positive_weight_moves_a_rare_label_most():
    truth, reported = figures(minimiser_meaning(BinaryCrossEntropy(positive_weight=[1.0, 9.0]), ["a", "b"]))
    assert truth == 0.2
    assert reported == pytest.approx(9 * 0.2 / (9 * 0.2 + 0.8), abs=5e-4)


def test_says_when_probabilities_are_left_as_trained():
    text = minimiser_meaning(CrossEntropy(label_smoothing=0.1), ["no", "yes"], recovered=False)
    assert "left as they are trained" in text
    assert "turned back" not in text
