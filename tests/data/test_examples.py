"""The shipped data reads as its README says."""

from pathlib import Path

import numpy as np

from kullback.data import FeatureEncoder, plan_target, read_notes, read_table

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_penguins():
    table = read_table(EXAMPLES / "penguins" / "penguins.csv")
    plan = plan_target(table, "species")
    encoded, keep = plan.encode(table)
    assert plan.classes == ("Adelie", "Chinstrap", "Gentoo")
    assert np.bincount(encoded).tolist() == [152, 68, 124]
    assert keep.all()
    assert table.column("sex").null_count == 11
    assert read_notes(table) == []
    encoder = FeatureEncoder.fit(table, exclude=plan.sources)
    assert {column.name: column.kind for column in encoder.columns}["bill_length_mm"] == "numeric"


def test_movies():
    table = read_table(EXAMPLES / "movies" / "movies.csv")
    assert table.num_rows == 6000
    plan = plan_target(table, "genres")
    encoded, keep = plan.encode(table)
    assert (plan.kind, plan.delimiter, len(plan.classes)) == ("labels", "|", 21)
    assert encoded[keep].any(axis=1).all()
    assert (~keep).sum() == 42
    encoder = FeatureEncoder.fit(table, exclude=plan.sources)
    kinds = {column.name: column.kind for column in encoder.columns}
    assert (kinds["title"], kinds["released"], kinds["runtime_minutes"]) == ("text", "moment", "numeric")
    assert encoder.sparse
