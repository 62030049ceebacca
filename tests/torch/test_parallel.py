"""Classes spread over 2 and 3 processes against the same loss in one; networks under PyTorch's own wrappers too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import kullback.torch as kt

PROCESS = Path(__file__).with_name("sharded_process.py")


@pytest.mark.parametrize("size", [1, 2, 3])
def test_shards_give_the_whole_answer(size, tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, str(PROCESS), str(rank), str(size), str(tmp_path / "store")],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, error in zip(processes, errors, strict=True):
        assert process.returncode == 0, error


def test_without_a_group_the_error_says_what_to_call():
    with pytest.raises(NotImplementedError, match="init_process_group"):
        kt.vocab_parallel_cross_entropy(torch.zeros(2, 3), torch.tensor([0, 1]))
