"""Losses of numbers that are no logits: the C++ kernels must say what the NumPy reference says, on every form."""

import numpy as np
import pytest

from kullback import (
    CrossEntropyFromProbabilities,
    LogitL1,
    LogitL2,
    NegativeEntropy,
    NegativeLogLikelihood,
    kernels,
)
from kullback.errors import InputError, TargetError
from kullback.losses.from_probabilities import ClippedWarning
from kullback.targets import ClassIndices, ClassMixture, ClassRows, LabelRows

N = 43
CLASSES = [1, 2, 3, 7, 32, 33, 65, 1300]


def losses(n_classes):
    weight = tuple(np.random.default_rng(n_classes).random(n_classes) + 0.1)
    return {
        "nll": NegativeLogLikelihood(),
        "nll, weighted and smoothed": NegativeLogLikelihood(class_weight=weight, label_smoothing=0.1),
        "probabilities": CrossEntropyFromProbabilities(),
        "probabilities, all settings": CrossEntropyFromProbabilities(
            class_weight=weight, label_smoothing=0.2, clip=1e-3
        ),
        "L1": LogitL1(),
        "L2": LogitL2(),
        "entropy": NegativeEntropy(),
        "L1 of labels": LogitL1(target_form="labels", ignore_index=-1),
        "L2 of labels": LogitL2(target_form="labels", ignore_index=-1),
    }


def inputs(loss, n_classes, rng):
    z = 5 * rng.normal(size=(N, n_classes))
    z[1] = 0
    z[2, -1] = 80
    if n_classes > 1:
        z[::5, 0] = -np.inf
    if isinstance(loss, NegativeLogLikelihood):
        return z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return np.exp(z) if isinstance(loss, CrossEntropyFromProbabilities) else z


def targets(loss, n_classes, rng):
    if loss.target_form == "labels":
        labels = (rng.random((N, n_classes)) < 0.5).astype(float)
        labels[rng.random(labels.shape) < 0.1] = -1
        return [LabelRows(labels)]
    soft = rng.dirichlet(np.ones(n_classes), N) * rng.random((N, 1))
    soft[7] = 0
    indices = rng.integers(0, n_classes, (3, N))
    indices[0, 4] = -100
    return [ClassIndices(indices[0]), ClassRows(soft), ClassMixture(indices[1], indices[2], rng.random(N))]


def everything(loss, x, t, direction, weight):
    value, gradient = loss.value_and_gradient(x, t, sample_weight=weight)
    return {
        "per_example": loss.per_example(x, t, sample_weight=weight),
        "value": value,
        "gradient": gradient,
        "product": loss.hessian_product(x, t, direction, sample_weight=weight),
        "diagonal": loss.hessian_diagonal(x, t, sample_weight=weight),
    }


@pytest.mark.filterwarnings("ignore::kullback.errors.KullbackWarning")
@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", CLASSES)
@pytest.mark.parametrize("name", losses(2))
def test_agrees_with_the_reference(name, n_classes, dtype, broken):
    loss, rng = losses(n_classes)[name], np.random.default_rng(7)
    x = inputs(loss, n_classes, rng).astype(dtype)
    if broken:
        x[6, 0], x[8, -1] = np.nan, np.inf
    weight = rng.random(N)
    weight[3] = 0
    direction = rng.normal(size=x.shape).astype(dtype)
    # soft targets and class weights come in the type of the inputs
    tolerance = 2e-6 if dtype == np.float32 else 1e-12
    for t in targets(loss, n_classes, rng):
        assert loss.backend == "cpu"
        found = everything(loss, x, t, direction, weight)
        with kernels.using("reference"):
            assert loss.backend == "reference"
            wanted = everything(loss, x, t, direction, weight)
        for what, values in wanted.items():
            size = np.abs(np.where(np.isfinite(values), values, 0)).max(initial=1e-30)
            np.testing.assert_allclose(
                found[what], values, rtol=tolerance, atol=tolerance * size, err_msg=f"{what}, {type(t).__name__}"
            )


def test_what_the_clip_does_is_counted_as_the_reference_counts():
    loss, rng = CrossEntropyFromProbabilities(clip=0.05), np.random.default_rng(0)
    x = rng.dirichlet([0.2, 0.2, 0.2], 500)
    y = rng.integers(0, 3, 500)
    found = loss.clipping(x, y)
    with pytest.warns(ClippedWarning, match=f"{found.low} of 500 rows"):
        loss(x, y)
    with kernels.using("reference"):
        assert loss.clipping(x, y) == found
    assert 0 < found.low < 500
    assert 0 < found.high < 500


def test_rows_that_are_no_probabilities_are_named():
    x = np.full((5000, 3), 0.2)
    x[4321, 1] = -0.1
    with pytest.raises(InputError, match=r"row 4321, column 1: probability -0\.1"):
        CrossEntropyFromProbabilities()(x, np.zeros(5000, int))
    x[4321] = 0
    with pytest.raises(InputError, match="row 4321, the sum of probabilities"):
        CrossEntropyFromProbabilities().clipping(x, np.zeros(5000, int))


def test_labels_out_of_range_are_named():
    labels = np.zeros((3000, 2))
    labels[2999, 1] = 1.5
    with pytest.raises(TargetError, match=r"row 2999"):
        LogitL2(target_form="labels")(np.zeros((3000, 2)), labels)
