from __future__ import annotations

import os

import pytest

pytest.importorskip("torch", reason="these tests need PyTorch: pip install 'kullback[torch]'")

import torch


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _two_threads():
    torch.set_num_threads(min(2, os.cpu_count() or 1))
