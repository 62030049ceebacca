"""What a user can get wrong: each is refused with the place, the value and what to do."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.exceptions import NotFittedError

from kullback import CrossEntropy, SigmoidClassifier, SoftmaxClassifier, SoftmaxClassifierCV, SoftmaxPath
from kullback.errors import InputError
from kullback.targets import ClassIndices, ClassMixture, ClassRows, LabelRows

rng = np.random.default_rng(0)
N = 40
X = rng.normal(size=(N, 5))
y = rng.integers(0, 3, N)
S = sparse.csr_array(np.where(rng.random((N, 5)) < 0.5, X, 0))
ROWS = np.eye(3)[y]
RANGE = np.arange(N)


def changed(matrix, place, value):
    out = matrix.copy()
    out[place] = value
    return out


def broken(form=sparse.csr_array, **changes):
    """A sparse matrix with one number of one of its arrays changed."""
    matrix = form(S).copy()
    for name, (place, value) in changes.items():
        getattr(matrix, name)[place] = value
    return matrix


def shortened():
    matrix = S.copy()
    matrix.data = matrix.data[:-3]
    return matrix


DATA = {
    "nan": (changed(X, (6, 3), np.nan), "The first is nan at row 6, column 3; fill it"),
    "inf": (changed(X, (6, 3), -np.inf), "The first is -inf at row 6, column 3"),
    "nan in csr": (broken(data=(7, np.nan)), f"The first is nan at row 3, column {S.indices[7]}; fill it"),
    "nan in csc": (broken(sparse.csc_matrix, data=(7, np.nan)), "The first is nan at row 14, column 0"),
    "inf in coo": (broken(data=(7, np.inf)).tocoo(), f"The first is inf at row 3, column {S.indices[7]}"),
    "column": (broken(indices=(7, 9)), "row 3 holds the value .* in column 9, but columns are 0 to 4; build it anew"),
    "row": (broken(sparse.csc_array, indices=(7, -2)), "column 0 holds the value .* in row -2, but rows are 0 to 39"),
    "row starts": (broken(indptr=(7, 89)), "row 7 begins at entry 89 and ends at 17; build it anew"),
    "end": (broken(indptr=(N, 900)), "indptr has 41 numbers from 0 to 900, its indices 90 and its data 90"),
    "values": (shortened(), "its indices 90 and its data 87"),
    "text": (np.array([["1", "a"]] * N), "The first is 'a' at row 0, column 1; encode such columns as numbers"),
    "objects": (changed(X.astype(object), (5, 2), "cold"), "The first is 'cold' at row 5, column 2; encode"),
    "none": (changed(X.astype(object), (5, 2), None), "The first is None at row 5, column 2; fill it"),
    "complex": (X + 1j, "Complex data not supported; pass real numbers, such as X.real"),
    "complex sparse": (S * 1j, "Complex data not supported; pass real numbers"),
    "masked": (np.ma.array(X, mask=X > 1), r"X is a masked array whose entry \(1, 1\) is masked.* fill it"),
    "one dimension": (X[:, 0], "Reshape your data"),
    "rows of other lengths": ([[1.0, 2.0]] * 7 + [[1.0]] + [3.0] * 32, "row 0 has 2 and row 7 has 1; every row must"),
    "rows and numbers": ([[1.0, 2.0]] * 7 + [3.0] * 33, "row 0 has 2 and row 7 has no entries of its own"),
    "dates": (np.full((N, 5), "2020-01-01", dtype="datetime64[D]"), "X holds dates or durations; turn them into num"),
    "three dimensions": (X.reshape(N, 5, 1), "dim 3"),
    "no rows": (X[:0], "0 sample"),
    "no columns": (S[:, :0], "0 feature"),
    "squares overflow": (X * np.array([1, 1, 1e180, 1, 1]), "column 2 of X .* beyond float64; divide it by"),
    "overflow in an emptied matrix": (
        sparse.csr_array(np.column_stack([np.zeros((N, 3)), X[:, :1], X[:, :1] * 1e180])),
        "column 4 of X .* beyond float64",
    ),
}


@pytest.mark.parametrize("name", DATA)
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_data(name):
    bad, message = DATA[name]
    with pytest.raises(InputError, match=message):
        SoftmaxClassifier().fit(bad, y[: len(bad) if isinstance(bad, list) else bad.shape[0]])
    if name != "no rows" and getattr(bad, "shape", ())[1:] == (5,) and "overflow" not in name:
        with pytest.raises(InputError, match=message):
            SoftmaxClassifier().fit(X, y).predict(bad)


@pytest.mark.parametrize("bad", [None, "data.csv", {"a": [1.0]}, (row for row in X), 3.0])
def test_what_has_no_rows_is_a_type_error(bad):
    with pytest.raises(TypeError, match=r"X is .*; it must be an array of numbers"):
        SoftmaxClassifier().fit(bad, y)


@pytest.mark.parametrize("frame", ["pandas", "polars"])
def test_columns_of_dates_are_named(frame):
    library = pytest.importorskip(frame)
    dates = np.datetime64("2020-01-01") + RANGE.astype("timedelta64[D]")
    for column in (dates.astype("datetime64[ms]"), (dates - dates[0]).astype("timedelta64[ms]")):
        table = library.DataFrame({"size": X[:, 0], "day": column})
        with pytest.raises(InputError, match="column 'day' of X holds dates or durations"):
            SoftmaxClassifier().fit(table, y)


def test_objects_that_are_no_numbers_are_a_type_error():
    with pytest.raises(TypeError, match=r"The first is \{'a': 1\} at row 5, column 2"):
        SoftmaxClassifier().fit(changed(X.astype(object), (5, 2), {"a": 1}), y)


def test_the_column_is_named_as_the_data_frame_names_it():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(changed(X, (6, 3), np.nan), columns=list("abcde"))
    with pytest.raises(InputError, match="nan at row 6, column 'd'"):
        SoftmaxClassifier().fit(frame, y)


TARGETS = {
    "length": (y[:-1], r"inconsistent numbers of samples: \[40, 39\]"),
    "one class": (np.zeros(N), "y holds one class only"),
    "continuous": (X[:, 0], "continuous"),
    "nan": (changed(y.astype(float), 4, np.nan), "The first is in row 4; leave out rows without a label"),
    "none": (changed(y.astype(str).astype(object), 4, None), "row 4 of y is None"),
    "lists": ([[0]] * 5 + [[1, 2]] * 35, "y holds lists of different lengths"),
    "not a string": (pd.Series(changed(y.astype(str).astype(object), 4, None), dtype="str"), "row 4 of y is nan"),
    "mixed": (changed(y.astype(object), 4, "a"), "in row 0 and 'a' in row 4; make them all strings"),
    "missing": (None, "requires y to be passed"),
    "rows of another sum": (0.5 * ROWS, "row 0 of y sums to 0.5"),
    "sparse": (sparse.csr_array(ROWS), "toarray"),
    "soft nan": (ClassRows(changed(ROWS, (5, 1), np.nan)), "row 5, column 1: soft target nan"),
    "soft negative": (ClassRows(changed(ROWS, (5, 1), -0.5)), "row 5, column 1: soft target -0.5"),
    "soft zeros": (ClassRows(np.zeros((N, 3))), "no target counts"),
    "soft length": (ClassRows(ROWS[:-1]), "39 targets for 40 rows"),
    "soft one class": (ClassRows(np.ones((N, 1))), "one class only"),
    "negative index": (ClassIndices(changed(y, 4, -3)), "row 4: class index -3 is not valid"),
    "large index": (ClassIndices(changed(y, 4, 10**12)), "number the classes from 0"),
    "negative mixture": (ClassMixture(y, changed(y, 4, -3), np.ones(N)), "row 4: class index -3 is not valid"),
}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("data", [X, S], ids=["dense", "sparse"])
def test_targets(name, data):
    bad, message = TARGETS[name]
    with pytest.raises(InputError, match=message):
        SoftmaxClassifier().fit(data, bad)


def test_soft_rows_weigh_as_much_as_they_sum_to():
    double = SoftmaxClassifier(tol=1e-10).fit(X, ClassRows(ROWS * np.where(RANGE < 10, 2.0, 1.0)[:, None]))
    weighted = SoftmaxClassifier(C=50 / N, tol=1e-10)  # the sum of the rows' weights is not counted, so λ stays
    weighted.fit(X, ClassRows(ROWS), np.where(RANGE < 10, 2.0, 1.0) * N / 50)
    np.testing.assert_allclose(double.coef_, weighted.coef_, atol=1e-5)


def test_ignored_rows_are_as_good_as_none():
    loss = CrossEntropy(ignore_index=-100)
    model = SoftmaxClassifier(loss=loss, tol=1e-10).fit(X, ClassIndices(np.where(RANGE < 8, -100, y)))
    np.testing.assert_allclose(model.coef_, SoftmaxClassifier(tol=1e-10).fit(X[8:], y[8:]).coef_, atol=1e-6)


WEIGHTS = {
    "negative": (changed(np.ones(N), 4, -1), r"row 4: sample weight -1\.0"),
    "nan": (changed(np.ones(N), 4, np.nan), "row 4: sample weight nan"),
    "length": (np.ones(N - 1), r"shape \(39,\), expected \(40,\)"),
    "dimensions": (np.ones((N, 1)), r"shape \(40, 1\)"),
    "text": (["a"] * N, "expected numbers"),
    "zeros": (np.zeros(N), "every sample_weight is zero"),
    "one class left": ((y == 0).astype(float), "only the class 0 has examples"),
    "huge": (np.full(N, 1e308), "sum of sample_weight is inf, too large .* divide C by it"),
    "tiny": (np.full(N, 1e-320), "sum of sample_weight is .*, too small .* divide C by it"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_sample_weights(name):
    bad, message = WEIGHTS[name]
    with pytest.raises(InputError, match=message):
        SoftmaxClassifier().fit(X, y, bad)


SETTINGS = [
    ({"class_weight": {0: -1}}, r"class_weight\[0\] = -1"),
    ({"class_weight": {0: np.nan}}, r"class_weight\[0\] = nan"),
    ({"class_weight": {0: "a"}}, r"class_weight\[0\] = 'a' is not valid"),
    ({"class_weight": [1, 2, 3]}, "not a mapping"),
    ({"class_weight": {9: 1}}, "names the class 9, which y does not hold; y holds 0, 1, 2"),
    ({"class_weight": "auto"}, "use 'balanced'"),
    ({"class_weight": {0: 0, 1: 0, 2: 0}}, "all zeros"),
    ({"class_weight": {0: 0, 1: 0}}, "leaves examples only of the class 2"),
    *(({"C": C}, "it must be a number above 0") for C in (0, -1, np.nan, "1", None, np.ones(2), 1e-310, 10**400)),
    *(({"penalty": "elasticnet", "l1_ratio": ratio}, "from 0 to 1") for ratio in (1.5, -0.1, np.nan, "a")),
    ({"penalty": "L2"}, "choose one of 'l2'"),
    ({"tol": 0}, "above 0"),
    ({"tol": np.nan}, "above 0"),
    ({"max_iter": -1}, "at least 0"),
    ({"max_iter": 10.5}, "whole number"),
    ({"solver": "newton"}, "choose one of"),
    ({"fit_intercept": "no"}, "True or False"),
    ({"warm_start": "no"}, "True or False"),
    ({"recover": None}, "True or False"),
    ({"verbose": "x"}, "whole number"),
]


@pytest.mark.parametrize(("settings", "message"), SETTINGS, ids=lambda v: str(v)[:40])
def test_settings(settings, message):
    with pytest.raises(InputError, match=message):
        SoftmaxClassifier(**settings).fit(X, y)


def test_ones_and_zeros_are_switches():
    assert not SoftmaxClassifier(fit_intercept=0).fit(X, y).intercept_.any()
    assert SoftmaxClassifier(fit_intercept=np.True_).fit(X, y).intercept_.any()


STARTS = [
    ({"coef_init": np.zeros((5, 3))}, r"coef_init has shape \(5, 3\), but this data needs \(3, 5\)"),
    ({"coef_init": changed(np.zeros((3, 5)), (1, 2), np.nan)}, r"coef_init holds nan at \(1, 2\)"),
    ({"coef_init": "a"}, "not an array of numbers"),
    ({"intercept_init": np.zeros(2)}, r"intercept_init has shape \(2,\)"),
]


@pytest.mark.parametrize(("start", "message"), STARTS)
def test_starts(start, message):
    with pytest.raises(InputError, match=message):
        SoftmaxClassifier().fit(X, y, **start)


def test_an_intercept_to_start_from_needs_an_intercept():
    with pytest.raises(InputError, match="fit_intercept=False; leave one of them out"):
        SoftmaxClassifier(fit_intercept=False).fit(X, y, intercept_init=np.ones(3))


LABELS = [
    (y, "use SoftmaxClassifier"),
    (2 * ROWS, "row 0, column .* of y is 2.0; independent labels are 0 or 1"),
    (ROWS[:-1], "y has 39 rows, X has 40"),
    (LabelRows(changed(ROWS, (5, 1), 1.2)), "row 5, column 1: label target 1.2"),
    (LabelRows(changed(ROWS, (5, 1), np.nan)), "row 5, column 1: label target nan"),
    (np.array([["a", "b"]] * N), "row 0, column 0 of y is 'a'"),
]


@pytest.mark.parametrize(("bad", "message"), LABELS)
def test_independent_labels(bad, message):
    with pytest.raises(InputError, match=message):
        SigmoidClassifier().fit(X, bad)


def test_weights_of_independent_labels():
    for weight, message in [({5: 1}, "label column 5"), ({1: np.nan}, "nan"), ({1: "a"}, "'a' is not valid")]:
        with pytest.raises(InputError, match=message):
            SigmoidClassifier(class_weight=weight).fit(X, ROWS)


@pytest.mark.parametrize("bad", [-np.ones(N), np.full(N, np.nan), np.ones(3), np.zeros(N), ["a"] * N])
def test_weights_of_a_score(bad):
    with pytest.raises(InputError, match=r"sample.weight"):
        SoftmaxClassifier().fit(X, y).score(X, y, bad)


def test_models_that_are_not_fitted_say_so():
    for kind in (SoftmaxClassifier(), SoftmaxClassifierCV(), SoftmaxPath(), SigmoidClassifier()):
        for ask in (kind.predict, kind.predict_proba, kind.logits, lambda X, kind=kind: kind.score(X, ROWS)):
            with pytest.raises(NotFittedError, match="is not fitted yet"):
                ask(X)


@pytest.mark.parametrize("strengths", [[0, 1], [np.nan], [1e-310], []])
def test_strengths_of_a_path(strengths):
    with pytest.raises(InputError, match="values above 0"):
        SoftmaxClassifierCV(Cs=strengths).fit(X, y)


@pytest.mark.parametrize("form", [sparse.csr_array, sparse.csc_array])
def test_entries_out_of_order_or_given_twice_are_added_up_in_a_copy(form):
    by_row = form is sparse.csr_array
    rows, columns = np.repeat(RANGE, 3), np.tile([2, 0, 2], N)
    if not by_row:
        rows, columns = np.tile(RANGE[::-1], 3), np.repeat([2, 0, 2], N)
        rows, columns = rows[np.argsort(columns, kind="stable")], np.sort(columns)
    values = rng.normal(size=3 * N)
    starts = np.searchsorted(rows if by_row else columns, np.arange((N if by_row else 3) + 1))
    given = form((values, columns if by_row else rows, starts), shape=(N, 3))
    before = given.data.copy(), given.indices.copy()
    dense = np.zeros((N, 3))
    np.add.at(dense, (rows, columns), values)
    model, reference = (SoftmaxClassifier(tol=1e-11).fit(data, y) for data in (given, dense))
    np.testing.assert_allclose(model.coef_, reference.coef_, atol=1e-7)
    np.testing.assert_allclose(model.logits(given), reference.logits(dense), atol=1e-6)
    np.testing.assert_array_equal(given.data, before[0])
    np.testing.assert_array_equal(given.indices, before[1])


def test_what_the_certificate_proves_is_no_failure():
    """Columns of denormal numbers: the solver cannot lower the objective, which is at its minimum."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = SoftmaxClassifier().fit((X * 1e-40).astype(np.float32), y)
    assert model.converged_
    assert model.certificate_.relative_gap <= model.tol
