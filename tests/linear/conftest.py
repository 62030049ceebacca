"""What tests of single fits, paths and searches share."""

import pytest

from kullback.linear import interruption


@pytest.fixture(autouse=True)
def forget_earlier_interruptions(monkeypatch):
    """A Ctrl-C of an earlier test must not make the first one of this test a second one."""
    monkeypatch.setattr(interruption, "_last", -float("inf"))


@pytest.fixture
def data(rng):
    X = rng.normal(size=(300, 4))
    return X, (X @ rng.normal(size=(4, 3)) + 2 * rng.gumbel(size=(300, 3))).argmax(axis=1)
