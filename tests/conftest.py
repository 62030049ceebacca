"""Shared fixtures."""

from __future__ import annotations

import numpy as np
import pytest

from kullback import kernels


@pytest.fixture(params=kernels.BACKENDS)
def backend(request):
    """Run the test once on each kernel backend."""
    with kernels.using(request.param) as module:
        yield module


@pytest.fixture
def rng():
    return np.random.default_rng(20261121)
