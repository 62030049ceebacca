import io
import pickle

import numpy as np
import pytest

from kullback.data import iter_batches, plan_target, read_notes, read_table
from kullback.errors import DataError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f8", "u1", "i8", "?"])
def test_a_matrix_becomes_numbered_columns(tmp_path, dtype):
    matrix = (RNG.normal(size=(7, 12)) * 3).astype(dtype)
    np.save(tmp_path / "X.npy", np.asfortranarray(matrix))
    table = read_table(tmp_path / "X.npy")
    assert table.column_names == [f"x{j}" for j in range(12)]
    assert np.array_equal(np.column_stack([column.to_numpy() for column in table.columns]), matrix)
    assert sum(batch.num_rows for batch in iter_batches(tmp_path / "X.npy", 3)) == 7


def test_images_are_flattened_and_that_is_said(tmp_path):
    np.save(tmp_path / "X.npy", np.zeros((3, 4, 5)))
    table = read_table(tmp_path / "X.npy")
    assert table.num_columns == 20
    assert "(3, 4, 5)" in read_notes(table)[0]


@pytest.mark.parametrize("as_given", [True, False], ids=["path as given", "beside the matrix"])
def test_a_pair_of_files(tmp_path, monkeypatch, as_given):
    np.save(tmp_path / "X.npy", RNG.normal(size=(5, 2)))
    np.save(tmp_path / "y.npy", np.array(["b", "a", "b", "a", "a"]))
    target = str(tmp_path / "y.npy") if as_given else "y.npy"
    table = read_table(tmp_path / "X.npy", target=target)
    plan = plan_target(table, target)
    assert plan.sources == ("y",)
    assert plan.encode(table)[0].tolist() == [1, 0, 1, 0, 0]


def test_a_pair_with_label_rows(tmp_path):
    labels = np.array([[1, 0, 1], [0, 0, 1], [1, 1, 0]])
    np.save(tmp_path / "X.npy", RNG.normal(size=(3, 2)))
    np.save(tmp_path / "y.npy", labels)
    table = read_table(tmp_path / "X.npy", target="y.npy")
    plan = plan_target(table, "y.npy")
    assert (plan.kind, plan.sources) == ("labels", ("y0", "y1", "y2"))
    assert np.array_equal(plan.encode(table)[0], labels)


def test_a_pair_of_different_lengths_or_without_target(tmp_path):
    np.save(tmp_path / "X.npy", np.zeros((5, 2)))
    np.save(tmp_path / "y.npy", np.zeros(4))
    with pytest.raises(DataError, match=r"5 rows and y\.npy has 4"):
        read_table(tmp_path / "X.npy", target="y.npy")
    with pytest.raises(DataError, match=r"no target file 'z\.npy'"):
        read_table(tmp_path / "X.npy", target="z.npy")


def test_named_arrays(tmp_path):
    np.savez(tmp_path / "data.npz", X=np.arange(6.0).reshape(3, 2), y=[0, 1, 1], extra=np.eye(3), version=1)
    table = read_table(tmp_path / "data.npz")
    assert table.column_names == ["x0", "x1", "y", "extra0", "extra1", "extra2"]
    assert "'version' is a single value" in read_notes(table)[0]
    assert plan_target(table, "y").kind == "classes"
    assert plan_target(table, "extra").sources == ("extra0", "extra1", "extra2")


def test_named_arrays_that_do_not_fit(tmp_path):
    np.savez(tmp_path / "data.npz", X=np.zeros((3, 2)), y=[0, 1])
    with pytest.raises(DataError, match=r"same number of rows.*'X': 3, 'y': 2"):
        read_table(tmp_path / "data.npz")
    np.savez(tmp_path / "data.npz", X=np.zeros((3, 2)), x1=[0, 1, 2])
    with pytest.raises(DataError, match="two arrays give a column 'x1'"):
        read_table(tmp_path / "data.npz")
    np.savez(tmp_path / "data.npz")
    with pytest.raises(DataError, match="no arrays"):
        read_table(tmp_path / "data.npz")


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


def test_pickles_are_never_loaded(tmp_path):
    np.save(tmp_path / "X.npy", np.array([Bomb()], dtype=object))
    np.savez(tmp_path / "data.npz", X=np.array([Bomb()], dtype=object))
    (tmp_path / "raw.npy").write_bytes(pickle.dumps(Bomb()))
    for name in ("X.npy", "data.npz", "raw.npy"):
        with pytest.raises(DataError, match="Python objects"):
            read_table(tmp_path / name)


def test_damaged_files(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((100, 3)))
    whole = buffer.getvalue()
    buffer = io.BytesIO()
    np.savez(buffer, X=RNG.normal(size=(100, 3)))
    archive = buffer.getvalue()
    cases = {
        "cut.npy": whole[:500],
        "head.npy": whole[:20],
        "tokens.npy": whole[:10] + b"{'descr': (" + whole[21:],
        "cut.npz": archive[: len(archive) // 2],
        "bits.npz": archive[:300] + bytes(byte ^ 255 for byte in archive[300:900]) + archive[900:],
        "text.npz": b"not an archive",
        "really.npy": archive,
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=name):
            read_table(tmp_path / name)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 3)), "no rows"),
        (np.zeros((3, 0)), "no columns"),
        (np.float64(3), "single value"),
        (np.zeros(3, complex), "complex128"),
    ],
)
def test_arrays_that_are_no_tables(tmp_path, array, message):
    np.save(tmp_path / "X.npy", array)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "X.npy")
