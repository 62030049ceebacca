import copy
import json

import numpy as np
import pyarrow as pa
import pytest
import safetensors.numpy
import scipy.sparse as sp

from kullback.data import FeatureEncoder
from kullback.errors import ModelError


def stored(encoder, path):
    """What a model directory does: JSON and safetensors, there and back."""
    description, arrays = encoder.state()
    safetensors.numpy.save_file({"unused": np.zeros(1), **arrays}, path)
    return json.loads(json.dumps(description, allow_nan=False)), safetensors.numpy.load_file(path)


@pytest.mark.parametrize("text", [True, False])
def test_a_restored_encoder_is_equal_to_the_last_bit(tmp_path, everything, text):
    table = everything(300) if text else everything(300).drop_columns(["plot"])
    encoder = FeatureEncoder.fit(table, exclude=["y"])
    again = FeatureEncoder.from_state(*stored(encoder, tmp_path / "a.safetensors"))
    assert again.feature_names == encoder.feature_names
    assert again.columns == encoder.columns
    assert again.notes == encoder.notes
    assert again.column_types == encoder.column_types
    assert again.sparse is encoder.sparse is text
    first, second = (each.transform(table) for each in (encoder, again))
    assert first.notes == second.notes
    for left, right in zip(parts(first.matrix), parts(second.matrix), strict=True):
        assert np.array_equal(left, right)


def parts(matrix):
    return (matrix.data, matrix.indices, matrix.indptr) if sp.issparse(matrix) else (matrix,)


def test_rare_values_are_not_spelled_out_in_the_model():
    table = pa.table({"name": ["common"] * 30 + ["Ms Unique Person"], "x": range(31)})
    description, arrays = FeatureEncoder.fit(table, exclude=[]).state()
    assert "Unique" not in json.dumps(description)
    assert len(arrays["column0.rare"]) == 1


@pytest.fixture
def state(everything):
    description, arrays = FeatureEncoder.fit(everything(300), exclude=["y"]).state()
    return json.loads(json.dumps(description)), arrays


def code(description, name):
    return next(each for each in description["codes"] if each["name"] == name)


def at(name, key, value):
    def edit(description, arrays):
        code(description, name)[key] = value

    return edit


def remove(name, key):
    return lambda description, arrays: code(description, name).pop(key)


def top(key, value):
    return lambda description, arrays: description.__setitem__(key, value)


def array_of(name, key, change):
    def edit(description, arrays):
        full = f"{code(description, name)['arrays']}.{key}"
        arrays[full] = change(arrays[full])

    return edit


EDITS = {
    "newer version": (top("version", 2), "version 2"),
    "no codes": (top("codes", []), "no columns"),
    "codes no list": (top("codes", {}), "no list 'codes'"),
    "code no object": (top("codes", [1]), "not an object"),
    "notes": (top("notes", [1]), "'notes'"),
    "unknown kind": (at("real", "kind", "exec"), "'kind' is 'exec'"),
    "mean no number": (at("real", "mean", "1"), "'real': 'mean' is '1'"),
    "mean not finite": (at("real", "mean", float("nan")), "'mean' is nan"),
    "negative scale": (at("real", "scale", -1.0), "negative"),
    "no feature left": (at("integer", "scale", 0.0), "no features"),
    "flag no flag": (at("real", "indicator", 1), "not true or false"),
    "indicator flipped": (at("real", "indicator", False), "lists other columns"),
    "entry absent": (remove("real", "mean"), "'mean' is absent"),
    "level twice": (at("colour", "levels", ["red", "red"]), "twice"),
    "level no string": (at("colour", "levels", [1]), "not a list of strings"),
    "array absent": (at("plot", "arrays", "column99"), "'column99.buckets', which is absent"),
    "buckets out of order": (array_of("plot", "buckets", lambda a: a[::-1].copy()), "out of order"),
    "buckets out of range": (array_of("plot", "buckets", lambda a: a + np.int32(2**20)), "range"),
    "buckets of another type": (array_of("plot", "buckets", lambda a: a.astype(float)), "type float64"),
    "weights fewer": (array_of("plot", "idf", lambda a: a[:-1]), "weights"),
    "weights not finite": (array_of("plot", "idf", lambda a: a * np.nan), "not positive"),
    "parts": (at("when", "parts", ["day", "trend"]), "'parts'"),
    "moment scale": (at("when", "scale", 0), "not positive"),
    "renamed": (at("real", "name", "integer"), "one twice"),
    "name no string": (at("real", "name", 3), "not a string"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_description_is_refused(state, edit):
    description, arrays = copy.deepcopy(state[0]), dict(state[1])
    change, message = EDITS[edit]
    change(description, arrays)
    with pytest.raises(ModelError, match=message):
        FeatureEncoder.from_state(description, arrays)


def test_a_description_that_is_none(state):
    for wrong in (None, [], "x"):
        with pytest.raises(ModelError, match="not an object"):
            FeatureEncoder.from_state(wrong, {})
    with pytest.raises(ModelError, match="version None"):
        FeatureEncoder.from_state({}, {})
