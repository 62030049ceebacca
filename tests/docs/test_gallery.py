"""The gallery is in step with the losses, its curves are what they say, and other libraries agree where it says so."""

import importlib.util
import pathlib
import re
import types

import numpy as np
import pytest

import kullback.losses
from kullback.losses import CrossEntropy, parse_loss

ROOT = pathlib.Path(__file__).parents[2]


def _generator(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gallery, agreement = _generator("make_gallery"), _generator("make_agreement")
NAMES = gallery.names()


@pytest.mark.parametrize("name", NAMES)
def test_page_is_what_the_generator_writes(name):
    committed = (gallery.GALLERY / f"{name}.md").read_text(encoding="utf-8")
    assert gallery.page(gallery.Entry(name)) == committed, "run python docs/make_gallery.py"


def test_index_is_what_the_generator_writes():
    committed = (gallery.GALLERY / "README.md").read_text(encoding="utf-8")
    assert gallery.index([gallery.Entry(name) for name in NAMES]) == committed, "run python docs/make_gallery.py"


def test_every_text_belongs_to_a_loss():
    assert {path.stem for path in gallery.TEXT.glob("*.toml")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_there_and_show_the_curves(name):
    entry = gallery.Entry(name)
    picture = (gallery.GALLERY / f"{name}.svg").read_text(encoding="utf-8")
    assert all(f">{label}<" in picture for label, *_ in entry.curves)
    reports = gallery.GALLERY / f"{name}-reports.svg"
    assert reports.exists() == bool(gallery.telling(entry))
    if reports.exists():
        drawn = reports.read_text(encoding="utf-8")
        assert all(f">{label}<" in drawn for label, _ in gallery.telling(entry))


def _anchor(heading):
    """The name that a Markdown heading gets on a page."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_links_lead_somewhere():
    for path in [*gallery.GALLERY.glob("*.md"), ROOT / "docs" / "what-people-ask.md", ROOT / "docs" / "agreement.md"]:
        text = path.read_text(encoding="utf-8")
        for link, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", text):
            there = path.parent / link if link else path
            assert there.exists(), f"{path.name}: {link}"
            headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert not anchor or anchor in map(_anchor, headings), f"{path.name}: #{anchor}"


@pytest.mark.parametrize("name", NAMES)
def test_drawn_derivatives_are_those_of_the_drawn_value(name):
    entry, step = gallery.Entry(name), 1e-5
    low, high = entry.margins[[0, -1]]
    margin = np.linspace(low + 0.037, high - 0.041, 9)  # away from the kinks of hinges and clips
    for _, loss, present in entry.curves:
        _, gradient, bend = entry.curve(loss, margin, present=present)
        after, before = (entry.curve(loss, margin + d, present=present) for d in (step, -step))
        assert np.allclose(gradient, (after[0] - before[0]) / (2 * step), rtol=1e-4, atol=1e-6)
        assert np.allclose(bend, (after[1] - before[1]) / (2 * step), rtol=1e-4, atol=1e-5)


def _pairs():
    for name in NAMES:
        for pair in gallery.Entry(name).text.get("equals", []):
            yield pytest.param(pair, id=f"{name}-{pair['library']}-{pair['theirs'][:50]}")


def _arrays():
    random = np.random.default_rng(7)
    logits = random.normal(size=(6, 5)) * 2
    targets = np.array([0, 3, 1, 4, 2, 3])
    arrays = {
        "logits": logits,
        "targets": targets,
        "rows": random.dirichlet(np.ones(5), size=6),
        "onehot": np.eye(5)[targets],
        "labels": (random.random((6, 5)) < 0.4).astype(float),
        "weight": np.array([0.5, 1.0, 2.0, 1.5, 3.0]),
        "counts": np.array([50.0, 5.0, 20.0, 10.0, 2.0]),
        "log_probabilities": CrossEntropy().log_probabilities(logits),
    }
    return arrays | {"probabilities": np.exp(arrays["log_probabilities"])}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pair", list(_pairs()))
def test_other_libraries_give_the_same(pair):
    try:
        names, own = agreement.names_of(pair["library"])
    except agreement.MissingLibraryError as missing:
        pytest.skip(str(missing))
    arrays = _arrays()
    computed = float(eval(pair["theirs"], names | {name: own(array) for name, array in arrays.items()}))
    # Keras computes in float32 whatever it is given
    assert eval(pair["ours"], vars(kullback.losses) | arrays) == pytest.approx(
        computed, rel=2e-5 if pair["library"] == "Keras" else 1e-9
    )


def test_a_loss_without_text_is_told_apart(monkeypatch):
    kind = types.new_class("Mine", (CrossEntropy,))
    monkeypatch.setitem(kullback.losses.CATALOGUE, "mine", kind)
    kind.__module__ = "somewhere.else"
    assert gallery.names() == NAMES  # a user's own loss needs no page here
    kind.__module__ = "kullback.losses.mine"
    assert "mine" in gallery.names()
    with pytest.raises(SystemExit, match=r"mine\.toml is missing"):
        gallery.Entry("mine")


def test_losses_of_probabilities_are_drawn_through_a_softmax():
    margin = np.linspace(-5, 5, 11)
    plain = gallery.along_margin(CrossEntropy(), margin)
    for spelling in ("cross_entropy_from_probabilities", "negative_log_likelihood"):
        assert np.allclose(gallery.along_margin(parse_loss(spelling), margin), plain, atol=1e-6)


def test_the_generator_refuses_what_is_not_a_number():
    with pytest.raises(ValueError, match="is nan"):
        gallery.number(float("nan"))

    class Broken:
        target_form = "classes"

        def elicited(self, p):
            return np.where(p > 0.9, np.nan, p)

    with pytest.raises(ValueError, match=r"reports nan where the truth is 0\.95"):
        gallery.reported(Broken(), np.array([0.5, 0.95]))
