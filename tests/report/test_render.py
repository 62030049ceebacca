import dataclasses
import html
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from kullback import BinaryCrossEntropy, CrossEntropy
from kullback.errors import ShapeError
from kullback.explain import gradient_account, minimiser_meaning, untrained_account
from kullback.report import (
    ClassBalance,
    ColumnSummary,
    DataSummary,
    HardExample,
    LossSummary,
    PerClass,
    ReliabilityBins,
    ReportContent,
    RunSummary,
    TestMetrics,
    TrainingCurve,
    render_report,
)

NASTY = (
    "<script>alert(1)</script>",
    "\"quoted\" & 'single'",
    "مرحبا",
    "long " * 400,
    "😀 👩‍👧",
    "",
    "two\nlines ",
    "\u202edesrever",
    "{{ 7*7 }}{% raw %}",
    "</style></svg></title><img src=x onerror=alert(2)>",
    "\x00nul\ud800",
    "$x^2$ \\frac",
)

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Checks that tags nest, and gathers what the tests ask about."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.ids, self.words = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def content(names=("ant", "bee", "cat"), kind="classes", rng=None, **changes):
    rng = rng or np.random.default_rng(0)
    n, single = len(names), kind == "classes"
    loss = CrossEntropy() if single else BinaryCrossEntropy()
    targets = np.arange(5 * n) % n if single else rng.integers(0, 2, (30, n))
    logits = rng.normal(size=(len(targets), n))
    counts = rng.integers(1, 50, n)
    edges = np.linspace(0, 1, 6)
    bins = ReliabilityBins(
        edges, np.array([0, 3, 5, 10, 40]), np.array([np.nan, 0.3, 0.5, 0.7, 0.9]), np.array([np.nan, 0, 0.6, 0.7, 1])
    )
    fields = {
        "kind": kind,
        "class_names": tuple(names),
        "data": DataSummary(
            "ants.csv",
            1234,
            "kind",
            (ColumnSummary("x", "numeric", "2 missing, filled with the median"), ColumnSummary("kind", "target")),
            dropped=(("target missing", 34),),
            splits=(("train", 960), ("test", 240)),
            seed=7,
            n_features=1,
            notes=("column kind holds names",),
        ),
        "loss": LossSummary(str(loss), minimiser_meaning(loss, names)),
        "metrics": TestMetrics(
            loss=0.2345,
            uniform_loss=math.log(n) if single else math.log(2),
            prior_entropy=0.6,
            accuracy=0.9123,
            macro_f1=0.8765,
            majority_accuracy=0.4321,
            exact_match=None if single else 0.3456,
            micro_f1=None if single else 0.7654,
            ece_before=0.0567,
            ece_after=0.0123,
            nll_before=0.31,
            nll_after=0.29,
            temperature=1.234,
            temperature_kept=True,
        ),
        "balance": ClassBalance(counts, counts + 1, counts + 2),
        "curve": TrainingCurve(np.arange(5), np.array([1.0, 0.7, 0.5, 0.4, 0.35]), True, "gradient norm 1e-5"),
        "confusion": rng.integers(0, 9, (n, n)) if single else rng.integers(0, 99, (n, 2, 2)),
        "per_class": PerClass(rng.uniform(size=n), rng.uniform(size=n), rng.uniform(size=n), counts),
        "reliability_before": bins,
        "reliability_after": bins,
        "hardest": (HardExample(77, (("x", "3.5"),), (names[0],), (names[-1],), 0.0123, 4.398),),
        "untrained_account": untrained_account(targets, loss, n),
        "trained_account": gradient_account(logits, targets, loss),
        "run": RunSummary(
            "SoftmaxClassifier", (("C", "1.0"),), (("kullback", "0.1.0"),), 2, 1.5, "today", "kullback fit"
        ),
    }
    return ReportContent(**{**fields, **changes})


def metrics(**changes):
    return dataclasses.replace(content().metrics, **changes)


@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_every_part_is_there(kind):
    page = Page(render_report(content(kind=kind)))
    for figure in ("0.234 nats", "0.338 bits", "91.23", "0.8765", "5.67", "1.23", "1.234", "0.3100 → 0.2900"):
        assert figure in page.text, figure
    for words in (
        "ants.csv", "1,234 rows", "34 rows : target missing", "train 960, test 240 (seed 7)", "column kind holds names",
        "2 missing, filled with the median", "gradient norm 1e-5", "Before the temperature", "After the temperature",
        "SoftmaxClassifier", "kullback 0.1.0", "kullback fit", "Untrained model", "Trained model", "77",
        "0.012", "4.398",
    ):  # fmt: skip
        assert words.replace(" :", ":") in page.text, words
    if kind == "labels":
        assert "34.56" in page.text
        assert "0.7654" in page.text
        assert "log 2" in page.text
        assert "Rightly yes" in page.text
    else:
        assert "log 3" in page.text
        assert "Confusion matrix" in page.text


def test_confusion_counts_stand_in_their_cells():
    confusion = np.array([[101, 102, 103], [104, 105, 106], [107, 108, 109]])
    text = render_report(content(confusion=confusion))
    table = text[text.index('aria-label="Confusion matrix"') : text.index("Commonest mistakes")]
    cells = [int(x) for x in re.findall(r'<td class="(?:good|bad)[^>]*>(\d+)</td>', table)]
    assert cells == confusion.ravel().tolist()
    assert [int(x) for x in re.findall(r'class="sum">(\d+)', table)] == confusion.sum(axis=1).tolist()


def test_label_counts_are_named_rightly():
    confusion = np.array([[[901, 902], [903, 904]]] * 3)
    text = render_report(content(kind="labels", confusion=confusion))
    heads = re.findall(r"<th scope=\"col\">(Rightly yes|Wrongly yes|Wrongly no|Rightly no)", text)
    assert list(zip(heads, re.findall(r"<td>(90\d)</td>", text)[:4], strict=True)) == [
        ("Rightly yes", "904"), ("Wrongly yes", "902"), ("Wrongly no", "903"), ("Rightly no", "901"),
    ]  # fmt: skip


def test_the_account_s_pushes_stand_in_their_cells():
    c = content()
    text = render_report(c)
    table = text[text.index('aria-label="Gradient account, Trained model"') :]
    first_row = re.findall(r"<td class=\"(?:good|bad)[^>]*>([+−]?[\d.]+)</td>", table)[:3]
    assert [float(x.replace("−", "-")) for x in first_row] == pytest.approx(c.trained_account.push[0], abs=5e-4)


@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_no_string_from_the_data_becomes_markup(kind):
    evil = NASTY[0]
    c = content(NASTY, kind)
    c = dataclasses.replace(
        c,
        data=DataSummary(
            evil,
            3,
            evil,
            tuple(ColumnSummary(name, evil, name) for name in NASTY),
            ((evil, 1),),
            ((evil, 1),),
            0,
            1,
            NASTY,
        ),
        loss=LossSummary(evil, minimiser_meaning(CrossEntropy(class_weight=[9] + [1] * 11), NASTY)),
        hardest=tuple(HardExample(1, ((name, name),), NASTY, (name,), 0.1, 2.0) for name in NASTY),
        curve=dataclasses.replace(c.curve, converged=False, note=evil),
        run=RunSummary(evil, ((evil, evil),), ((evil, evil),), 1, 1.0, evil, evil),
    )
    text = render_report(c)
    text.encode("utf-8")  # a lone surrogate would fail here
    page = Page(text)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not [a for a in page.attributes if a[1].startswith("on")]
    assert evil in page.text  # shown as text
    assert "{{ 7*7 }}{% raw %}" in page.text
    assert "two↵lines␣" in page.text
    assert "(empty)" in page.text
    assert "[U+202E]desrever" in page.text
    assert "␀nul�" in page.text
    assert "\u202e" not in text
    title = next(v for tag, name, v in page.attributes if tag == "bdi" and name == "title" and "quoted" in v)
    assert title == NASTY[1]
    assert page.tags.count("title") == 1
    assert page.tags.count("svg") == 3


def test_nothing_is_fetched_and_nothing_runs():
    text = render_report(content())
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href"):
            assert value.startswith("#"), (tag, name, value)
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/", "")
    assert not re.search(r"@import|url\((?!#)", text)
    assert "default-src 'none'" in html.unescape(text)


def test_links_and_figures_refer_to_what_exists_once():
    text = render_report(content())
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    used = {v[1:] for _, name, v in page.attributes if name in ("href", "xlink:href")}
    used |= set(re.findall(r"url\(#([^)]+)\)", text))
    assert used <= set(page.ids)


def test_figures_take_the_page_s_colours_in_both_schemes():
    text = render_report(content())
    svgs = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    colours = set(re.findall(r"(?:fill|stroke|stop-color): *([^;\"]+)", svgs))
    assert {c for c in colours if not c.startswith("var(--") and c != "none"} == set()
    style = text[text.index("<style>") : text.index("</style>")]
    light, dark = style.split("prefers-color-scheme: dark", 1)
    for variable in set(re.findall(r"var\((--[a-z]+)\)", svgs)):
        assert f"{variable}:" in light
        assert f"{variable}:" in dark


def contrast(a, b):
    def luminance(colour):
        c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        c = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return c @ [0.2126, 0.7152, 0.0722] + 0.05

    x, y = luminance(a), luminance(b)
    return max(x, y) / min(x, y)


@pytest.mark.parametrize("scheme", [0, 1])
def test_contrast_is_enough_to_read(scheme):
    style = render_report(content())
    block = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[scheme]
    value = dict(re.findall(r"(--[a-z-]+): ([^;]+);", block))
    for text in ("--ink", "--muted", "--blue"):
        assert contrast(value[text], value["--card"]) >= 4.5
        assert contrast(value[text], value["--page"]) >= 4.5
    # Ink on the strongest shades of the matrices.
    strength = float(value["--strength"])
    for tone in ("--blue-rgb", "--orange-rgb"):
        top = np.array([float(x) for x in value[tone].split()])
        card = np.array([int(value["--card"][i : i + 2], 16) for i in (1, 3, 5)])
        mixed = "#" + "".join(f"{round(x):02x}" for x in strength * top + (1 - strength) * card)
        assert contrast(value["--ink"], mixed) >= 4.5


def test_same_content_same_text():
    assert render_report(content()) == render_report(content())


def test_the_style_of_the_session_does_not_leak_in():
    import matplotlib

    before = render_report(content())
    with matplotlib.rc_context({"font.size": 30.0, "lines.linewidth": 9.0, "svg.fonttype": "path", "axes.grid": True}):
        assert render_report(content()) == before
        assert matplotlib.rcParams["font.size"] == 30.0


def test_many_classes_stay_readable_and_small():
    n = 1000
    rng = np.random.default_rng(1)
    names = tuple(f"class {i:04d} {'x' * 100}" for i in range(n))
    confusion = np.diag(np.arange(1, n + 1)) + 0
    confusion[3, 4], confusion[10, 11] = 500, 400
    c = content(names, rng=rng, confusion=confusion)
    text = render_report(c)
    page = Page(text)
    assert len(text) < 800_000
    assert "Shown are the 20 of 1,000 classes with most mistakes" in page.text
    assert "The 12 commonest of 1,000 classes" in page.text
    mistakes = text[text.index("<caption>Commonest mistakes") :]
    first = mistakes[mistakes.index("<tbody>") : mistakes.index("</tr>", mistakes.index("<tbody>"))]
    assert "class 0003" in first
    assert "class 0004" in first
    assert ">500<" in first
    lowest = int(np.nanargmin(c.per_class.f1))
    assert names[lowest] in page.text[page.text.index("Lowest F1") :]


def test_two_classes_and_no_mistake():
    text = render_report(content(("no", "yes"), confusion=np.diag([5, 6])))
    assert "makes no mistake" in text
    Page(text)


def test_optional_parts_can_be_missing():
    bare = content(
        curve=None, confusion=None, per_class=None, reliability_before=None, reliability_after=None, hardest=(),
        untrained_account=None, trained_account=None, run=RunSummary(""), balance=ClassBalance(np.array([1, 2, 3])),
        data=DataSummary("a.csv", 6, "y", ()),
        metrics=TestMetrics(loss=0.5, uniform_loss=1.1, prior_entropy=1.0, accuracy=0.5, macro_f1=0.4),
    )  # fmt: skip
    page = Page(render_report(bare))
    for absent in ("Confusion matrix", "Calibration", "Hardest", "Gradient account", "None", "nan"):
        assert absent not in page.text, absent
    assert "svg" not in page.tags


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss": 0.3}, "remove 50 % of the uncertainty"),
        ({"loss": 0.9}, "worse than the bare frequencies"),
        ({"loss": math.inf}, "the loss is infinite"),
        ({"temperature_kept": False}, "not kept, because the loss there did not improve"),
        ({"temperature": 0.8}, "makes it more sure of itself"),
        ({"temperature": 1.7}, "makes it less sure of itself"),
        ({"decisions_moved": 12}, "On 12 test rows the model decides otherwise"),
        ({"ece_before": 0.2, "ece_after": None, "temperature_kept": False, "temperature": None}, "20.0"),
        ({"prior_entropy": 0.0}, "right in"),
        ({"loss": math.nan}, "–"),
    ],
)
def test_the_words_follow_the_figures(change, words):
    assert words in Page(render_report(content(metrics=metrics(**change)))).text


def test_a_solver_that_stopped_early_is_said():
    curve = TrainingCurve(np.arange(2), np.array([1.0, 0.9]), converged=False, note="100 iterations")
    text = Page(render_report(content(curve=curve))).text
    assert "stopped before its tolerance: 100 iterations" in text
    assert "max_iter" in text


def test_figures_that_are_not_finite_do_not_break_the_page():
    curve = TrainingCurve(np.arange(3), np.array([1.0, np.inf, 0.5]))
    nothing = TrainingCurve(np.arange(2), np.array([np.nan, np.nan]))
    nan = np.full(3, np.nan)
    empty_bins = ReliabilityBins(np.linspace(0, 1, 4), np.zeros(3), nan, nan)
    for changes in (
        {"curve": curve},
        {"curve": nothing},
        {"per_class": PerClass(nan, nan, nan, np.zeros(3))},
        {"reliability_before": empty_bins, "reliability_after": None},
        {"confusion": np.zeros((3, 3), int), "balance": ClassBalance(np.zeros(3))},
    ):
        Page(render_report(content(**changes)))


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("confusion", np.zeros((2, 3), int), "confusion"),
        ("balance", ClassBalance(np.zeros(4)), "balance.train"),
        ("curve", TrainingCurve(np.arange(3), np.zeros(2)), "curve.loss"),
        ("per_class", PerClass(np.zeros(3), np.zeros(2), np.zeros(3), np.zeros(3)), "per_class.recall"),
        ("trained_account", untrained_account([0], CrossEntropy(), 2), "trained_account.push"),
        ("reliability_before", ReliabilityBins(np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3)), "edges"),
    ],
)
def test_arrays_that_do_not_fit_are_named(field, value, name):
    with pytest.raises(ShapeError, match=name):
        content(**{field: value})
