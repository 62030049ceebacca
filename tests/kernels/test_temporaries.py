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

from kullback import ClassMixture, ClassRows
from kullback.targets import LabelRows

_path = pathlib.Path(__file__).parents[1] / "conformance" / "catalogue.py"
_spec = importlib.util.spec_from_file_location("catalogue", _path)
catalogue = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(catalogue)

N, C = 6000, 100
LOSSES = {**catalogue.SOFTMAX, **catalogue.SIGMOID, **catalogue.MARGIN}


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
