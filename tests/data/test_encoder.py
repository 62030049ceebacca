import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from kullback.data import FeatureEncoder, iter_batches, read_table
from kullback.data.encoder import EncodingCounts
from kullback.data.origin import Origin
from kullback.errors import DataError

RNG = np.random.default_rng(0)


def fit(columns, **kwargs):
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    kwargs.setdefault("exclude", [])
    return FeatureEncoder.fit(table, **kwargs)


def dense(encoded):
    return encoded.matrix.toarray() if sp.issparse(encoded.matrix) else encoded.matrix


def kinds(encoder):
    return {column.name: column.kind for column in encoder.columns}


def test_each_column_is_seen_for_what_it_is(everything):
    table = everything(60)
    encoder = fit(table, exclude=["y"])
    assert kinds(encoder) == {
        "integer": "numeric",
        "real": "numeric",
        "decimal": "numeric",
        "flag": "boolean",
        "colour": "categorical",
        "coded": "categorical",
        "plot": "text",
        "when": "moment",
        "clock": "moment",
        "took": "numeric",
        "constant": "dropped",
        "nothing": "dropped",
        "rownames": "dropped",
        "user_id": "dropped",
        "code": "dropped",
        "nested": "dropped",
    }
    notes = " ".join(encoder.notes)
    for name in ("constant", "nothing", "rownames", "user_id", "code", "nested"):
        assert repr(name) in notes
    assert len(encoder.feature_names) == sum(column.features for column in encoder.columns)
    assert encoder.transform(table).matrix.shape == (60, len(encoder.feature_names))


def test_numbers_are_standardised_and_missing_ones_flagged():
    values = np.array([1.0, 2.0, 4.0, np.nan])
    encoder = fit({"x": pa.array(values), "k": [1, 1, 2, 2]})
    assert encoder.feature_names == ["x", "x is missing", "k"]
    matrix = encoder.transform(pa.table({"x": pa.array(values), "k": [1, 1, 2, 2]})).matrix
    mean, scale = np.nanmean(values), np.nanstd(values)
    assert np.allclose(matrix[:3, 0], (values[:3] - mean) / scale, rtol=1e-6)
    assert matrix[3].tolist() == [0, 1, 1]
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous


def test_everything_is_fitted_on_the_training_rows_only():
    table = pa.table(
        {
            "x": [0.0, 2.0, 1e6, 5.0],
            "c": ["a", "b", "zebra", "a"],
            "same": [3, 3, 4, 3],
            "gone": [None, None, 1.0, None],
            "full": [1.0, 2.0, None, 3.0],
        }
    )
    rows = np.array([0, 1, 3])
    encoder = fit(table, rows=rows)
    alone = fit(table.take(pa.array(rows)))
    assert encoder.state()[0]["codes"] == alone.state()[0]["codes"]
    assert encoder.feature_names == ["x", "c=a", "c=b", "full"]
    part = encoder.transform(table, rows=np.array([2, 0]))
    assert np.array_equal(part.matrix, encoder.transform(table).matrix[[2, 0]])
    assert part.counts.unseen == {"c": 1}


@pytest.mark.parametrize("tiny", [1e-200, 1e-320, 1e140])
def test_extreme_scales_stay_finite(tiny):
    encoder = fit({"x": [0.0, tiny, tiny]})
    matrix = encoder.transform(pa.table({"x": [0.0, tiny, tiny]})).matrix
    assert np.isfinite(matrix).all()
    assert matrix[0, 0] != matrix[1, 0]


def test_a_value_far_outside_training_is_cut_off_and_said():
    encoder = fit({"x": [0.0, 1.0]})
    encoded = encoder.transform(pa.table({"x": [1e140, 0.0]}))
    assert np.isfinite(encoded.matrix).all()
    assert "1 of 2 values are over a million standard deviations" in encoded.notes[0]


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e200])
def test_infinity_is_named_by_file_row_and_column(tmp_path, value):
    table = Origin(source="f.csv").attach(pa.table({"a": [1.0, 2.0, value, 3.0]}))
    message = r"f\.csv, data row 3, column 'a': .*--drop"
    with pytest.raises(DataError, match=message):
        fit(table)
    with pytest.raises(DataError, match=message):
        fit(table, rows=np.array([0, 1, 3]))
    encoder = fit({"a": [1.0, 2.0]})
    with pytest.raises(DataError, match=message):
        encoder.transform(table)
    with pytest.raises(DataError, match=message):
        encoder.transform(table, rows=np.array([2]))


def test_categories():
    encoder = fit({"c": ["b", None, "a", "b"], "d": ["x", "y", "y", "x"]})
    assert encoder.feature_names == ["c=a", "c=b", "c=(missing)", "d=x", "d=y"]
    encoded = encoder.transform(pa.table({"d": ["x", None, "new"], "c": ["a", "new", None], "more": [1, 2, 3]}))
    assert encoded.matrix.tolist() == [[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0, 0, 1, 0, 0]]
    assert encoded.notes == [
        "column 'c': 1 of 3 values hold a category that training did not have",
        "column 'd': 1 of 3 values hold a category that training did not have",
        "column 'd': 1 of 3 values are missing, though none was in training",
        "1 column unknown to the model and ignored: 'more'",
    ]


def test_rare_categories_share_a_feature_that_unseen_ones_join():
    levels = ["a"] * 20 + ["b"] * 20 + ["once", "twice", "twice", "lone"]
    encoder = fit({"c": levels})
    assert encoder.feature_names == ["c=a", "c=b", "c=twice", "c=(other)"]
    assert "5 categories; the 3 most frequent are kept and 2 rare ones (2 rows) share" in encoder.notes[0]
    encoded = encoder.transform(pa.table({"c": ["once", "never", "a", None]}))
    assert encoded.matrix.tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert encoded.counts.unseen == {"c": 1}  # "once" was in training
    assert encoded.counts.filled == {"c": 1}


def test_too_many_categories_are_capped_by_frequency():
    levels = [f"l{i % 1500:04d}" for i in range(6000)] + [f"l{i:04d}" for i in range(700)]
    encoder = fit({"c": levels})
    assert len(encoder.feature_names) == 1001
    assert encoder.feature_names[:700] == [f"c=l{i:04d}" for i in range(700)]
    assert encoder.sparse
    matrix = encoder.transform(pa.table({"c": levels})).matrix
    assert matrix.sum(axis=1).min() == 1


def test_text_is_hashed_weighted_and_of_unit_length(sentences):
    table = pa.table({"plot": [*sentences(200), None], "x": RNG.normal(size=201)})
    encoder = fit(table)
    assert encoder.sparse
    matrix = encoder.transform(table).matrix
    assert isinstance(matrix, sp.csr_matrix)
    assert matrix.dtype == np.float32
    assert matrix.has_sorted_indices or (matrix.sort_indices() is None)
    words = matrix[:, :-1].toarray()
    assert np.allclose(np.linalg.norm(words[:200], axis=1), 1, atol=1e-5)
    assert not words[200].any()
    # against scikit-learn's own TF-IDF over a vocabulary, which needs no hashing
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = table.column("plot").to_pylist()[:200]
    exact = TfidfVectorizer(sublinear_tf=True, min_df=2).fit_transform(texts)
    assert exact.shape[1] == words.shape[1]
    assert np.allclose(np.sort(exact.toarray(), axis=1), np.sort(words[:200], axis=1), atol=1e-6)
    same_words = encoder.transform(pa.table({"plot": ["STORM, river!", "river storm"], "x": [0.0, 0.0]})).matrix
    assert (same_words[0] != same_words[1]).nnz == 0


def test_short_or_repeated_text_stays_categorical():
    assert kinds(fit({"c": ["New York", "Los Angeles", "San Diego"] * 20})) == {"c": "categorical"}
    assert kinds(fit({"c": ["Anna Lee", "Bo Diaz", "Cy Young"]})) == {"c": "categorical"}


def test_dates_give_trend_season_weekday_and_hour():
    start = dt.datetime(2024, 1, 1)  # a Monday
    when = [start + dt.timedelta(days=i, hours=6 * (i % 4)) for i in range(400)]
    encoder = fit({"t": pa.array([*when, None])})
    names = encoder.feature_names
    assert names[:4] == ["t", "t year sine", "t year cosine", "t=Mon"]
    assert names[-3:] == ["t day sine", "t day cosine", "t is missing"]
    matrix = encoder.transform(pa.table({"t": pa.array([*when, None])})).matrix
    weekday = matrix[:-1, names.index("t=Mon") : names.index("t=Sun") + 1]
    assert np.array_equal(weekday.argmax(axis=1), [each.weekday() for each in when])
    assert np.array_equal(weekday.sum(axis=1), np.ones(400))
    hour = np.array([each.hour for each in when])
    assert np.allclose(matrix[:-1, names.index("t day sine")], np.sin(2 * np.pi * hour / 24), atol=1e-6)
    assert abs(matrix[:-1, 0].mean()) < 1e-5
    assert matrix[-1].tolist() == [0.0] * (len(names) - 1) + [1.0]
    assert fit({"t": pa.array([dt.date(2024, 1, 1), dt.date(2024, 1, 8)])}).feature_names == ["t"]


def test_the_same_rows_from_csv_text_and_from_types_encode_alike(tmp_path, everything):
    table = everything(200).select(["integer", "real", "flag", "colour", "plot", "when", "clock"])
    encoder = fit(table)
    pacsv.write_csv(table, tmp_path / "data.csv")
    typed = dense(encoder.transform(table))
    inferred = dense(encoder.transform(read_table(tmp_path / "data.csv")))
    streamed = np.vstack([dense(encoder.transform(batch)) for batch in iter_batches(tmp_path / "data.csv", 37)])
    given = dense(encoder.transform(read_table(tmp_path / "data.csv", column_types=encoder.column_types)))
    assert np.array_equal(typed, inferred)
    assert np.array_equal(typed, streamed)
    assert np.array_equal(typed, given)


def test_column_order_does_not_matter_and_chunks_do_not_show(everything):
    table = everything(60)
    encoder = fit(table, exclude=["y"])
    backwards = pa.concat_tables([table.slice(0, 11), table.slice(11)]).select(table.column_names[::-1])
    encoded = encoder.transform(backwards)
    assert np.array_equal(dense(encoded), dense(encoder.transform(table)))
    assert encoded.notes == []


def test_a_missing_column_is_named_with_the_closest():
    encoder = fit({"weight": [1.0, 2.0], "b": [0, 1]})
    table = Origin(source="new.csv").attach(pa.table({"Weigth": [1.0], "b": [1]}))
    with pytest.raises(DataError, match=r"new\.csv: there is no column 'weight'.*did you mean 'Weigth'"):
        encoder.transform(table)
    with pytest.raises(DataError, match="2 columns are absent: 'weight', 'b'"):
        encoder.transform(pa.table({"z": [1]}))


def test_another_type_is_named_by_row():
    encoder = fit({"x": [1.5, 2.5], "c": ["a", "b"]})
    with pytest.raises(DataError, match="data row 2, column 'x': 'tall' is not a number"):
        encoder.transform(pa.table({"x": ["1", "tall"], "c": ["a", "b"]}))
    with pytest.raises(DataError, match="column 'c' holds binary"):
        encoder.transform(pa.table({"x": [1.0], "c": [b"a"]}))
    # the row is the file's also when only some rows are encoded
    with pytest.raises(DataError, match="data row 3, column 'x'"):
        encoder.transform(pa.table({"x": ["1", "2", "tall"], "c": ["a", "b", "a"]}), rows=np.array([2]))


def test_dropping():
    table = pa.table({"a": [1, 2], "b": [1, 3], "y": [0, 1]})
    encoder = fit(table, exclude=["y"], drop=["a"])
    assert encoder.feature_names == ["b"]
    assert encoder.transform(table).notes == []
    with pytest.raises(DataError, match=r"no column 'c'.*asked to be dropped"):
        fit(table, drop=["c"])
    with pytest.raises(DataError, match=r"no column is left to learn from \('a': as asked; 'b': as asked\)"):
        fit(table, exclude=["y"], drop=["a", "b"])
    with pytest.raises(DataError, match="only the target"):
        fit(table.select(["y"]), exclude=["y"])
    with pytest.raises(DataError, match="no rows"):
        fit(table, rows=np.array([], int))


def test_columns_left_out_for_one_reason_share_a_note():
    encoder = fit({**{f"p{i}": [0, 0] for i in range(12)}, "x": [0, 1]})
    assert encoder.notes == [
        "12 columns are left out: every value is the same ('p0', 'p1', 'p2', 'p3', 'p4', 'p5', 'p6', 'p7', …)"
    ]


def test_short_tables_keep_columns_that_only_look_like_counters():
    assert kinds(fit({"x": [0, 1, 2, 3], "name": ["a", "b", "c", "d"]})) == {"x": "numeric", "name": "categorical"}


def test_wide_sparse_categories_give_csr_and_the_same_numbers():
    rows = 500
    levels = pa.array([f"v{i}" for i in RNG.integers(0, 150, rows)])
    table = pa.table({"c": levels, "x": pa.array(RNG.normal(size=rows), mask=RNG.random(rows) < 0.1)})
    encoder = fit(table)
    assert encoder.sparse
    whole = dense(encoder.transform(table))
    assert np.array_equal(whole[:, :-2].sum(axis=1), np.ones(rows))
    narrow = fit(table.select(["x"]))
    assert np.array_equal(whole[:, -2:], narrow.transform(table).matrix)


def test_counts_of_batches_add_up():
    total = EncodingCounts(2, {"a": 1}, {}, {}, ("u",)) + EncodingCounts(3, {"b": 2, "a": 1}, {"c": 1}, {}, ("u", "v"))
    assert total == EncodingCounts(5, {"a": 2, "b": 2}, {"c": 1}, {}, ("u", "v"))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(-1e6, 1e6)),
            st.one_of(st.none(), st.sampled_from(["a", "b", "ü", ""])),
            st.booleans(),
        ),
        min_size=3,
        max_size=40,
    )
)
def test_rows_are_encoded_one_by_one_as_together(rows):
    names, kinds_ = ("x", "c", "f"), (pa.float64(), pa.string(), pa.bool_())
    table = pa.table(
        {name: pa.array([row[j] for row in rows], kinds_[j]) for j, name in enumerate(names)}
        | {"z": pa.array(range(len(rows)), pa.int64())}
    )
    encoder = fit(table)
    whole = encoder.transform(table).matrix
    assert np.isfinite(whole).all()
    for i in range(table.num_rows):
        assert np.array_equal(encoder.transform(table.slice(i, 1)).matrix[0], whole[i])
