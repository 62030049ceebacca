"""PyTorch's threads at work on the kernels: the same bits, in threads and forked processes too."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch

import kullback
import kullback.torch as kt
from kullback.kernels import threads
from kullback.torch import team

pytestmark = pytest.mark.skipif(not team.share_threads(), reason="PyTorch has no GNU OpenMP here")


@pytest.fixture(autouse=True)
def _as_it_was():
    before = kullback.get_num_threads(), torch.get_num_threads()
    yield
    kullback.set_num_threads(before[0])
    torch.set_num_threads(before[1])
    team.share_threads()


def results():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4000, 40, generator=generator).requires_grad_()
    value = kt.cross_entropy(logits, torch.randint(0, 40, (4000,), generator=generator))
    value.backward()
    return value.detach(), logits.grad


def test_the_same_bits_on_any_threads():
    found = []
    for shared in (True, False):
        for ours, theirs in ((1, 2), (2, 2), (3, 2), (3, 3)):
            kullback.set_num_threads(ours)
            torch.set_num_threads(theirs)
            if shared:
                assert team.share_threads()
            else:
                threads.keep_threads_apart()
            found.append(results())
    assert all(torch.equal(value, found[0][0]) and torch.equal(g, found[0][1]) for value, g in found)


COUNTS = """
import os, sys
import torch
import kullback, kullback.torch as kt
from kullback.kernels import threads
kullback.set_num_threads(3)
torch.set_num_threads(3)
if sys.argv[1] == "apart":
    threads.keep_threads_apart()
torch.randn(1000, 1000).exp()
before = len(os.listdir("/proc/self/task"))
kt.cross_entropy(torch.randn(4000, 40, requires_grad=True), torch.zeros(4000, dtype=torch.int64))
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.parametrize(("how", "started"), [("shared", 0), ("apart", 2)])
def test_no_threads_are_started_where_pytorchs_will_do(how, started):
    run = subprocess.run([sys.executable, "-c", COUNTS, how], capture_output=True, text=True, check=True)
    assert int(run.stdout) == started


def test_from_several_threads_at_once():
    kullback.set_num_threads(2)
    torch.set_num_threads(2)
    wanted = results()
    failures = []

    def work():
        torch.set_num_threads(2)  # a choice of each thread
        for _ in range(5):
            value, gradient = results()
            if not (torch.equal(value, wanted[0]) and torch.equal(gradient, wanted[1])):
                failures.append(value)

    several = [threading.Thread(target=work) for _ in range(3)]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join()
    assert not failures


FORKS = """
import os, signal
import torch
import kullback, kullback.torch as kt
kullback.set_num_threads(2)
torch.set_num_threads(2)
logits, target = torch.randn(4000, 40, requires_grad=True), torch.zeros(4000, dtype=torch.int64)
wanted = kt.cross_entropy(logits, target)
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if kt.cross_entropy(logits, target).item() == wanted.item() else 3)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_does_not_wait_for_threads_it_has_not():
    assert subprocess.run([sys.executable, "-c", FORKS], check=False).returncode == 0
