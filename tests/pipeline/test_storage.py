"""Model directories: a round trip gives back what went in, and every kind of damage is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kullback.errors import InputError, ModelError
from kullback.pipeline import storage
from kullback.pipeline.storage import StoredModel, read_model, write_model

WEIGHTS = {"coefficients": np.arange(6.0).reshape(3, 2), "intercept": np.array([0.5, -0.25, 1e-300])}
ENCODER = {"mean": np.array([1.5, 2.5], dtype=np.float32), "empty": np.zeros((0, 3))}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    document = {"loss": "cross_entropy", "classes": ["a", 1, True, "<script>", "ä\n"], "temperature": 0.1 + 0.2}
    write_model(path, StoredModel(document, {"weights": WEIGHTS, "encoder": ENCODER}), report="<p>ü</p>")
    return path


def edit(path: Path, **changes: Any) -> None:
    document = json.loads((path / "model.json").read_text())
    document |= changes
    (path / "model.json").write_text(json.dumps(document))


def rewrite(path: Path, **changes: Any) -> None:
    """Edit and put the checksum right, as a different writer would."""
    document = json.loads((path / "model.json").read_text())
    document |= changes
    document["checksum"] = storage._checksum(document)
    (path / "model.json").write_text(json.dumps(document))


def test_round_trip(model: Path) -> None:
    stored = read_model(model)
    assert stored.document == {
        "loss": "cross_entropy",
        "classes": ["a", 1, True, "<script>", "ä\n"],
        "temperature": 0.1 + 0.2,
    }
    for name, array in WEIGHTS.items():
        np.testing.assert_array_equal(stored.arrays["weights"][name], array)
    assert stored.arrays["encoder"]["mean"].dtype == np.float32
    assert stored.arrays["encoder"]["empty"].shape == (0, 3)
    assert sorted(file.name for file in model.iterdir()) == [
        "encoder.safetensors",
        "model.json",
        "report.html",
        "weights.safetensors",
    ]
    assert (model / "report.html").read_text(encoding="utf-8") == "<p>ü</p>"


def test_transposed_arrays_keep_their_values(tmp_path: Path) -> None:
    matrix = np.arange(6.0).reshape(2, 3).T
    write_model(tmp_path / "m", StoredModel({}, {"weights": {"w": matrix}}))
    np.testing.assert_array_equal(read_model(tmp_path / "m").arrays["weights"]["w"], matrix)


def test_report_may_be_deleted(model: Path) -> None:
    (model / "report.html").unlink()
    assert read_model(model).document["loss"] == "cross_entropy"


def test_reformatting_is_not_an_edit(model: Path) -> None:
    edit(model)
    assert read_model(model).document["temperature"] == 0.1 + 0.2


def test_unknown_entries_of_the_same_version_are_kept(model: Path) -> None:
    rewrite(model, comment="mine")
    assert read_model(model).document["comment"] == "mine"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda m: edit(m, temperature=0.5), r"model\.json does not match its own checksum.*edited"),
        (lambda m: edit(m, checksum=None), "does not match its own checksum"),
        (lambda m: edit(m, format="other"), "is not a Kullback model"),
        (lambda m: edit(m, schema_version=2, kullback_version="9.1"), r"version 2.*Kullback 9\.1.*Upgrade"),
        (lambda m: rewrite(m, schema_version=2), "schema version 2.*Upgrade"),
        (lambda m: rewrite(m, schema_version="1"), "no usable schema_version"),
        (lambda m: rewrite(m, files={"../x.safetensors": {"bytes": 1, "sha256": ""}}), "list of files"),
        (lambda m: rewrite(m, files={"x.pickle": {"bytes": 1, "sha256": ""}}), "list of files"),
        (lambda m: rewrite(m, files=None), "list of files"),
        (lambda m: (m / "model.json").write_text("[]"), "is not a Kullback model"),
        (lambda m: (m / "model.json").write_text("[" * 100_000), "truncated or damaged"),
        (lambda m: (m / "model.json").write_bytes(b"\xff\xfe"), "not UTF-8"),
        (lambda m: (m / "model.json").write_text('{"format": NaN}'), "NaN is not JSON"),
        (lambda m: (m / "model.json").unlink(), r"it has no model\.json"),
        (lambda m: (m / "weights.safetensors").unlink(), r"lacks weights\.safetensors"),
        (lambda m: (m / "weights.safetensors").write_bytes(b""), r"weights\.safetensors has 0 bytes"),
    ],
)
def test_damage_is_named(model: Path, damage: Any, message: str) -> None:
    damage(model)
    with pytest.raises(ModelError, match=message):
        read_model(model)


def test_every_truncation_of_the_document_is_found(model: Path) -> None:
    text = (model / "model.json").read_bytes()
    for length in range(0, len(text) - 2, 7):  # the last two bytes are the brace and the newline
        (model / "model.json").write_bytes(text[:length])
        with pytest.raises(ModelError):
            read_model(model)


def test_every_flipped_byte_of_an_array_file_is_found(model: Path) -> None:
    file = model / "encoder.safetensors"
    contents = file.read_bytes()
    for position in range(0, len(contents), 11):
        changed = bytearray(contents)
        changed[position] ^= 1
        file.write_bytes(bytes(changed))
        with pytest.raises(ModelError, match=r"encoder\.safetensors does not match its checksum"):
            read_model(model)


def test_arrays_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "m", StoredModel({}, {"weights": {"w": np.array([1.0, np.nan])}}))
    with pytest.raises(ModelError, match=r"weights\.safetensors holds values in 'w' that are not finite"):
        read_model(tmp_path / "m")


def test_a_file_that_is_no_safetensors_is_refused(model: Path) -> None:
    import hashlib

    contents = b"not a safetensors file at all"
    (model / "weights.safetensors").write_bytes(contents)
    files = json.loads((model / "model.json").read_text())["files"]
    files["weights.safetensors"] = {"bytes": len(contents), "sha256": hashlib.sha256(contents).hexdigest()}
    rewrite(model, files=files)
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        read_model(model)


def test_what_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="absent does not exist"):
        read_model(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="file is a file; a model is a directory"):
        read_model(tmp_path / "file")
    with pytest.raises(ModelError, match=r"has no model\.json"):
        read_model(tmp_path)


def test_overwrite_replaces_a_model(model: Path) -> None:
    new = StoredModel({"loss": "other"}, {"weights": WEIGHTS})
    with pytest.raises(InputError, match="already exists"):
        write_model(model, new)
    assert read_model(model).document["loss"] == "cross_entropy"
    write_model(model, new, overwrite=True)
    assert read_model(model).document == {"loss": "other"}
    assert [entry.name for entry in model.parent.iterdir()] == ["model"]
    assert sorted(entry.name for entry in model.iterdir()) == ["model.json", "weights.safetensors"]


def test_overwrite_replaces_a_model_with_damaged_arrays(model: Path) -> None:
    (model / "weights.safetensors").write_bytes(b"")
    write_model(model, StoredModel({"loss": "new"}), overwrite=True)
    assert read_model(model).document == {"loss": "new"}


def test_overwrite_keeps_what_is_not_ours(model: Path, tmp_path: Path) -> None:
    new = StoredModel({"loss": "other"})
    (model / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds 'notes\.txt' beside the model"):
        write_model(model, new, overwrite=True)
    assert (model / "notes.txt").read_text() == "mine"

    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="is not a Kullback model directory"):
        write_model(home, new, overwrite=True)
    (home / "model.json").write_text('{"format": "something else"}')
    with pytest.raises(InputError, match="is not a Kullback model directory"):
        write_model(home, new, overwrite=True)
    assert sorted(entry.name for entry in home.iterdir()) == ["model.json", "thesis.tex"]


def test_a_document_json_cannot_hold_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_model(tmp_path / "m", StoredModel({"C": float("inf")}))
    assert list(tmp_path.iterdir()) == []
    assert storage.finite_or_none(float("inf")) is None
