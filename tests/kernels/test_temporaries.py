"""No loss of the catalogue makes a temporary of the size of its logits: beyond the caller's output there is only what a
block of rows needs.
"""

from __future__ import annotations

import importlib.util
import pathlib
import tracemalloc
import warnings

import numpy as np
import pytest

from kullback import BinaryCrossEntropy, ClassMixture, ClassRows, CrossEntropy
from kullback.losses import (
    Brier,
    CrossEntropyFromProbabilities,
    LogitL2,
    NegativeEntropy,
    NegativeLogLikelihood,
    UserLoss,
)
from kullback.targets import LabelRows

_path = pathlib.Path(__file__).parents[1] / "conformance" / "catalogue.py"
_spec = importlib.util.spec_from_file_location("catalogue", _path)
catalogue = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(catalogue)

N, C = 6000, 100
LOSSES = {
    **catalogue.SOFTMAX,
    **catalogue.SIGMOID,
    **catalogue.MARGIN,
    **catalogue.OTHERS,
    "negative_log_likelihood": (lambda c: NegativeLogLikelihood(class_weight=catalogue.counts(c)), None),
    "cross_entropy_from_probabilities": (lambda c: CrossEntropyFromProbabilities(label_smoothing=0.1), None),
}


def peak_bytes(work):
    """The most that NumPy and Python hold at once beyond what they held before; the native scratch is not NumPy's."""
    work()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", LOSSES)
def test_no_temporary_as_large_as_the_logits(rng, name):
    loss = LOSSES[name][0](C)
    z = rng.normal(size=(N, C)).astype(np.float32)
    if loss.link in ("log", "identity"):
        z = (CrossEntropy().log_probabilities if loss.link == "log" else CrossEntropy().probabilities)(z)
    y = rng.integers(0, C, N)
    out, v = np.empty_like(z), np.ones_like(z)
    soft = rng.dirichlet(np.ones(C), N).astype(np.float32)
    mixture = ClassMixture(y, y[::-1].copy(), np.full(N, 0.3))
    forms = (
        [LabelRows((soft > 0.01).astype(np.float32))] if loss.target_form == "labels" else [y, ClassRows(soft), mixture]
    )
    for targets in forms:
        calls = {
            "gradient": lambda t=targets: loss.value_and_gradient(z, t, out=out),
            "product": lambda t=targets: loss.hessian_product(z, t, v, out=out),
            "diagonal": lambda t=targets: loss.hessian_diagonal(z, t, out=out),
        }
        for what, call in calls.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert peak_bytes(call) < z.nbytes / 4, (what, type(targets).__name__)


class Squares(UserLoss):
    """Somebody's loss in NumPy, given by its values and gradients."""

    name = "squares"
    link = "none"

    def value(self, logits, mass):
        return (mass.sum(axis=1, keepdims=True) * logits**2 - 2 * mass * logits).sum(axis=1)

    def gradient(self, logits, mass):
        return 2 * (mass.sum(axis=1, keepdims=True) * logits - mass)


@pytest.mark.parametrize(
    "loss",
    [
        0.7 * CrossEntropy() + 0.3 * Brier(),
        CrossEntropy() + 0.01 * LogitL2(),
        0.5 * BinaryCrossEntropy(),
        BinaryCrossEntropy() + 0.1 * NegativeEntropy(),
        Squares(),
    ],
    ids=str,
)
def test_what_numpy_adds_up_is_a_block_at_a_time(rng, loss):
    """A block is some megabytes, so that only logits of many blocks tell."""
    n = 20 * N
    z = rng.normal(size=(n, C)).astype(np.float32)
    targets = LabelRows((z > 0).astype(np.uint8)) if loss.target_form == "labels" else rng.integers(0, C, n)
    out = np.empty_like(z)
    assert peak_bytes(lambda: loss.value_and_gradient(z, targets, out=out)) < z.nbytes / 4
    assert peak_bytes(lambda: loss.hessian_product(z, targets, z, out=out)) < z.nbytes / 4
    assert peak_bytes(lambda: loss(z, targets)) < z.nbytes / 4


def test_the_floor_of_soft_targets_goes_block_by_block(rng):
    soft = ClassRows(rng.dirichlet(np.ones(C), 16 * N).astype(np.float32))
    assert peak_bytes(lambda: CrossEntropy(label_smoothing=0.1).floor(soft)) < 3 * soft.rows.nbytes
