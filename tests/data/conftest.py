import datetime as dt
import decimal

import numpy as np
import pyarrow as pa
import pytest

WORDS = (
    *("sea", "storm", "river", "mountain", "city", "night", "train", "love"),
    *("war", "letter", "garden", "winter", "dog", "king", "stone"),
)


def make_sentences(rows, words=6):
    rng = np.random.default_rng(rows)
    return [" ".join(rng.choice(WORDS, words)) + f" {i}" for i in range(rows)]


def make_everything(rows):
    """A table with a column of each kind."""
    rng = np.random.default_rng(rows)
    return pa.table(
        {
            "integer": pa.array(rng.integers(0, 4, rows), pa.int16()),
            "real": pa.array(rng.normal(size=rows), mask=rng.random(rows) < 0.2),
            "decimal": pa.array([decimal.Decimal(int(i)) / 4 for i in rng.integers(0, 99, rows)]),
            "flag": pa.array(rng.random(rows) < 0.5, mask=rng.random(rows) < 0.1),
            "colour": pa.array(rng.choice(["red", "green", "blü"], rows), mask=rng.random(rows) < 0.1),
            "coded": pa.array(rng.choice(["x", "y"], rows)).dictionary_encode(),
            "plot": make_sentences(rows),
            "when": pa.array([dt.datetime(2013, 1, 1) + dt.timedelta(hours=31 * i) for i in range(rows)]),
            "clock": pa.array(rng.integers(0, 86400, rows, dtype=np.int32), pa.time32("s")),
            "took": pa.array(rng.integers(0, 10**6, rows), pa.duration("ms")),
            "constant": [7] * rows,
            "nothing": pa.nulls(rows),
            "rownames": np.arange(1, rows + 1),
            "user_id": rng.permutation(rows) + 1000,
            "code": [f"k{i:05d}" for i in rng.permutation(rows)],
            "nested": [[1]] * rows,
            "y": [0] * rows,
        }
    )


@pytest.fixture
def sentences():
    return make_sentences


@pytest.fixture
def everything():
    return make_everything
