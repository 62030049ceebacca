"""docs/agreement.md shows what the libraries answer: each cell is computed again where the library is installed."""

import importlib.util
import pathlib
import re

import pytest

DOCS = pathlib.Path(__file__).parents[2] / "docs"
_spec = importlib.util.spec_from_file_location("make_agreement", DOCS / "make_agreement.py")
agreement = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(agreement)
PAGE = (DOCS / "agreement.md").read_text(encoding="utf-8")
CASES = {case["title"]: case for case in agreement.cases()}


def committed_answers(case):
    """The answers that the page shows for a case, in the order of its rows."""
    part = PAGE.split(f"## {case['title']}\n")[1].split("\n## ")[0]
    return [line.rsplit(" | ", 1)[1].removesuffix(" |") for line in part.splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize("title", CASES)
def test_page_holds_the_case_as_it_is_written(title):
    case = CASES[title]
    assert agreement.section(case, committed_answers(case)) in PAGE, "run python docs/make_agreement.py"


def test_page_holds_nothing_else():
    assert re.findall(r"^## (.*)$", PAGE, flags=re.MULTILINE) == list(CASES)
    assert PAGE.startswith(agreement.INTRODUCTION)


@pytest.mark.parametrize(
    ("title", "row"),
    [(title, i) for title, case in CASES.items() for i in range(len(case["rows"]))],
    ids=[f"{title}-{library}-{i}" for title, case in CASES.items() for i, (library, _) in enumerate(case["rows"])],
)
def test_answer_is_what_the_library_gives(title, row):
    case = CASES[title]
    library, expression = case["rows"][row]
    try:
        computed = agreement.answer(library, expression, case["setup"])
    except agreement.MissingLibraryError as missing:
        pytest.skip(str(missing))
    assert computed == committed_answers(case)[row], "run python docs/make_agreement.py"


def test_a_library_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(agreement.MissingLibraryError, match="PyTorch is not installed: pip install torch"):
        agreement.names_of("PyTorch")
