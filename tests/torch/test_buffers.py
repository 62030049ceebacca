"""Memory of large gradients: held as long as anyone sees it, and used again afterwards."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
import torch

import kullback.torch as kt
from kullback.torch import buffers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kept on Linux alone")
LIKE = torch.empty(2**11, 2**10)  # 8 MiB


@pytest.fixture(autouse=True)
def _nothing_kept_from_before():
    kt.empty_cache()
    yield
    kt.empty_cache()


def test_memory_that_was_dropped_is_used_again():
    first = buffers.result_like(LIKE)
    place = first.data_ptr()
    assert first.shape == LIKE.shape
    assert first.is_contiguous()
    second = buffers.result_like(LIKE)
    assert second.data_ptr() != place  # the first is still held
    del first
    assert buffers.result_like(LIKE).data_ptr() == place
    assert buffers.result_like(LIKE[:2000], torch.float32).data_ptr() == place
    assert buffers.result_like(LIKE, torch.bfloat16).data_ptr() == place  # half as large
    assert buffers.result_like(LIKE[:1024], torch.bfloat16).data_ptr() != place  # a quarter: too much would lie idle


@pytest.mark.parametrize("view", [lambda t: t[3:], lambda t: t.numpy(), lambda t: t.view(torch.int32).t()])
def test_memory_that_anyone_sees_is_not(view):
    whole = buffers.result_like(LIKE)
    whole.fill_(3.0)
    part = view(whole)
    place = whole.data_ptr()
    del whole
    other = buffers.result_like(LIKE)
    assert other.data_ptr() != place
    other.fill_(5.0)
    assert (part == 3.0).all() or (part == torch.tensor(3.0).view(torch.int32)).all()


def test_two_pieces_are_kept_and_can_be_given_back():
    several = [buffers.result_like(LIKE) for _ in range(4)]
    places = [t.data_ptr() for t in several]
    while several:
        several.pop(0)
    assert len(buffers._kept) == buffers.MOST_KEPT == 2
    again = [buffers.result_like(LIKE).data_ptr() for _ in range(2)]
    assert set(again) <= set(places[2:])
    kt.empty_cache()
    assert not buffers._kept


def test_the_system_may_take_what_waits_behind_another():
    def offered():
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("LazyFree"))

    before = offered()
    first, second = (buffers.result_like(LIKE).fill_(1.0) for _ in range(2))
    del first
    assert offered() == before
    del second
    assert offered() - before >= LIKE.nbytes


def test_the_system_is_told_once_and_again_after_use(monkeypatch):
    told = []
    monkeypatch.setattr(buffers._Region, "madvise", lambda region, advice: told.append((region, advice)))
    first, second, larger = (buffers.result_like(LIKE.expand(times, -1, -1)) for times in (1, 1, 4))
    told.clear()  # of huge pages
    del second, first
    assert len(told) == 1
    for _ in range(3):  # a loop that drops a result and asks for its like again, beside one that is not asked for
        first = buffers.result_like(LIKE)
        del first
    assert len(told) == 1
    second, first = buffers.result_like(LIKE), buffers.result_like(LIKE)
    del second, first
    assert len(told) == 2
    del larger
    assert len(told) == 3


def test_a_training_loop_needs_one_piece():
    logits = torch.randn(2048, 1024, requires_grad=True)
    target = torch.randint(0, 1024, (2048,))
    places = set()
    for _ in range(4):
        logits.grad = None
        kt.cross_entropy(logits, target).backward()
        places.add(logits.grad.data_ptr())
    assert len(places) == 1


def test_gradients_that_are_kept_stay_as_they_are():
    target = torch.randint(0, 1024, (2048,))
    kept = []
    for scale in (1.0, 2.0, 3.0):
        logits = (scale * torch.ones(2048, 1024)).requires_grad_()
        kt.cross_entropy(logits, target, reduction="sum", temperature=scale).backward()
        kept.append((logits.grad, logits.grad.clone()))
    for gradient, copy in kept:
        assert torch.equal(gradient, copy)
    assert len({gradient.data_ptr() for gradient, _ in kept}) == 3


def test_from_several_threads():
    failures = []

    def work(number):
        for step in range(30):
            tensor = buffers.result_like(LIKE[: 1100 + 7 * number])
            tensor.fill_(number)
            if not (tensor == number).all():
                failures.append((number, step))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_small_results_are_left_to_torch():
    buffers.result_like(torch.empty(100, 100))
    assert not buffers._kept
