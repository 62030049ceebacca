"""Shared fixtures."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from kullback import kernels

# A run started in the background inherits an ignored Ctrl-C, which the tests of interruption need.
with contextlib.suppress(ValueError):  # not the main thread
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Without a GPU the Triton kernels are tested in Triton's interpreter, which is chosen when Triton is first imported;
# torch.compile imports it too, so this comes before any test module.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(params=kernels.BACKENDS)
def backend(request):
    """Run the test once on each kernel backend."""
    with kernels.using(request.param) as module:
        yield module


@pytest.fixture
def rng():
    return np.random.default_rng(20261121)
