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


def test_every_loss_shows_what_its_minimiser_does():
    """Reported probabilities, decisions or scores: there is a picture of one of them."""
    for name in NAMES:
        entry = gallery.Entry(name)
        shown = {"reports": gallery.telling(entry), "decisions": entry.decided, "scores": entry.scored}
        assert any(shown.values()), name
        for what in ("decisions", "scores"):
            picture = gallery.GALLERY / f"{name}-{what}.svg"
            assert picture.exists() == bool(shown[what]), "run python docs/make_gallery.py"
            drawn = picture.read_text(encoding="utf-8") if shown[what] else ""
            assert all(f">{label}<" in drawn for label, _ in shown[what])


@pytest.mark.parametrize("name", [name for name in NAMES if gallery.Entry(name).decided])
def test_no_other_scores_are_better_than_those_the_decisions_come_from(name):
    random = np.random.default_rng(2)
    tried = np.concatenate([random.normal(size=(3000, 3)) * 2, random.integers(0, 4, (500, 3))])
    for _, loss in gallery.Entry(name).decided:
        for p, best in zip(gallery.TORN, gallery.best_scores(loss, gallery.TORN), strict=True):
            lowest = loss(best[None, :], p[None, :])
            expected = loss(tried, np.tile(p, (len(tried), 1)), reduction="none")
            assert lowest <= expected.min() + 1e-9
            # near the minimum too, and where it is said to decide nothing, a decision is no better
            near = loss(best + random.normal(size=tried.shape) * 0.01, np.tile(p, (len(tried), 1)), reduction="none")
            assert lowest <= near.min() + 1e-9


def test_what_is_drawn_of_decisions_and_scores():
    hinge, strongest = parse_loss("weston_watkins"), parse_loss("crammer_singer")
    p = np.array([[0.4, 0.35, 0.25], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4]])
    assert gallery.decisions(gallery.best_scores(hinge, p)).tolist() == [-1, 1, 2]
    assert gallery.decisions(gallery.best_scores(strongest, p)).tolist() == [-1, 1, -1]
    # the runs tile the triangle, and a corner belongs to its class
    monkey = pytest.MonkeyPatch()
    monkey.setattr(gallery, "CELLS", 12)
    runs = gallery.triangle_runs(strongest)
    monkey.undo()
    x, y = np.array([corners for _, corners in runs]).transpose(2, 0, 1)
    areas = np.abs((x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1)) / 2
    assert areas.sum() == pytest.approx(np.sqrt(3) / 4)
    decided = np.array([k for k, _ in runs])
    assert [areas[decided == k].sum() / areas.sum() for k in (0, 1, 2)] == pytest.approx([1 / 4] * 3)  # majorities
    # l1: shrunk log odds, 0 in a band about 1/2
    lead = gallery.lead_of(parse_loss("cross_entropy + 0.2 * logit_l1"), np.array([0.6, 0.8]))
    np.testing.assert_allclose(lead, [0, np.log(0.6 / 0.4)], atol=1e-6)


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
