import decimal

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from kullback.data import iter_batches, read_table
from kullback.errors import DataError

TABLE = pa.table(
    {
        "n": pa.array([1, 2, None, 4], pa.int16()),
        "d": pa.array([decimal.Decimal("1.5"), None, decimal.Decimal("-2.25"), decimal.Decimal("0.00")]),
        "c": pa.array(["a", "b", None, "a"]).dictionary_encode(),
    }
)


def write_parquet(table, path):
    pq.write_table(table, path, row_group_size=3)


def write_feather(table, path):
    feather.write_feather(table, str(path), compression="lz4", chunksize=3)


def write_stream(table, path):
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


FORMS = {"data.parquet": write_parquet, "data.feather": write_feather, "data.arrow": write_stream}


@pytest.mark.parametrize("name", FORMS)
def test_whole_and_in_batches_hold_the_same(tmp_path, name):
    path = tmp_path / name
    FORMS[name](TABLE, path)
    assert read_table(path).to_pydict() == TABLE.to_pydict()
    batches = list(iter_batches(path, 2))
    assert [batch.num_rows for batch in batches] == [2, 2]
    assert [row for batch in batches for row in batch.to_pylist()] == TABLE.to_pylist()


@pytest.mark.parametrize("name", FORMS)
def test_column_types_are_applied_and_name_the_row_across_batches(tmp_path, name):
    path = tmp_path / name
    FORMS[name](pa.table({"x": ["1", "2", "3", "four", "5"]}), path)
    with pytest.raises(DataError, match=rf"{name}, data row 4, column 'x': 'four' is not a number"):
        list(iter_batches(path, 2, column_types={"x": pa.float64()}))
    assert read_table(path, column_types={"y": pa.float64()}).column("x").type == pa.string()


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("how", ["garbage", "cut", "middle"])
def test_damaged_files_are_said(tmp_path, name, how):
    path = tmp_path / name
    wide = pa.table({f"c{i}": np.random.default_rng(i).normal(size=500) for i in range(4)})
    FORMS[name](wide, path)
    data = path.read_bytes()
    path.write_bytes(
        {"garbage": b"garbage", "cut": data[: len(data) // 2], "middle": data[:4] + b"\xff" * 400 + data[404:]}[how]
    )
    for read in (read_table, lambda path: list(iter_batches(path))):
        with pytest.raises(DataError, match=name):
            read(path)


@pytest.mark.parametrize("name", FORMS)
def test_empty_tables_and_duplicate_names(tmp_path, name):
    path = tmp_path / name
    FORMS[name](TABLE.slice(0, 0), path)
    for read in (read_table, lambda path: list(iter_batches(path))):
        with pytest.raises(DataError, match="no rows"):
            read(path)
    if name != "data.feather":  # its writer refuses duplicate names
        FORMS[name](pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), path)
        with pytest.raises(DataError, match="'a' is used more than once"):
            read_table(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        read_table(path)


def test_feather_version_1_says_what_to_do(tmp_path):
    path = tmp_path / "old.feather"
    path.write_bytes(b"FEA1" + b"\x00" * 100)
    with pytest.raises(DataError, match="version 1"):
        read_table(path)


def test_text_that_is_not_utf8_is_damage(tmp_path):
    raw = pa.array([b"caf\xe9", b"b"]).view(pa.string())
    pq.write_table(pa.table({"a": raw}), tmp_path / "data.parquet")
    with pytest.raises(DataError, match=r"data\.parquet.*UTF8"):
        read_table(tmp_path / "data.parquet")
