"""Write the gallery, docs/gallery/: one page and its pictures per loss of the catalogue, and their index.

    python docs/make_gallery.py            # everything
    python docs/make_gallery.py focal poly # these pages, and the index

Every number and curve comes from the loss objects. What no computation can say (when to use a loss, what other
libraries call it) stands in docs/gallery/text/NAME.toml, one file a loss; a new loss gets its page by adding one.
"""

from __future__ import annotations

import argparse
import io
import math
import re
import sys
import textwrap
import tomllib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kullback.errors import KullbackWarning, NoProbabilitiesError
from kullback.losses import CATALOGUE, CrossEntropy, Loss, parse_loss

GALLERY = Path(__file__).parent / "gallery"
TEXT = GALLERY / "text"
CLASS_COUNTS = (2, 3, 10, 1000)
TRUTHS = (0.05, 0.2, 0.4, 0.6, 0.8, 0.95)
INK, FAINT = "#333333", "#8a8a8a"
LINES = (
    ("#0072b2", "-"),
    ("#d55e00", "--"),
    ("#009e73", "-."),
    ("#aa4499", (0, (1, 1.2))),
    ("#8b6914", (0, (6, 1, 1, 1))),
)


# ---------------------------------------------------------------- what the loss objects say


def along_margin(
    loss: Loss, margin: NDArray[Any], *, n_classes: int = 2, target: list[float] | None = None, present: bool = True
) -> NDArray[Any]:
    """Value, first and second derivative (3, N) in the true class' logit, which stands `margin` above all others.

    For labels: of one label in its own logit, counted so that a larger margin is always the better answer. Losses of
    probabilities are followed through the softmax that made them. With a soft `target` the class is the first.
    """
    n = len(margin)
    if loss.target_form == "labels":
        sign = 1.0 if present else -1.0
        move, turn = np.full((n, 1), sign), np.zeros((n, 1))
        inputs, targets = sign * margin[:, None], np.full((n, 1), int(present))
    else:
        logits = np.zeros((n, n_classes))
        logits[:, 0] = margin
        own = np.arange(n_classes) == 0
        targets = np.zeros(n, dtype=np.int64) if target is None else np.tile(target, (n, 1))
        p = CrossEntropy().probabilities(logits)
        first = p[:, :1]
        if loss.link == "identity":
            inputs, move = p, p * (own - first)
            turn = move * (own - first) - p * first * (1 - first)
        elif loss.link == "log":
            inputs, move = CrossEntropy().log_probabilities(logits), own - first
            turn = np.broadcast_to(-first * (1 - first), p.shape)
        else:
            inputs, move, turn = logits, np.tile(own.astype(float), (n, 1)), np.zeros((n, n_classes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KullbackWarning)  # the clip at work is part of the picture
        value, gradient = loss.value_and_gradient(inputs, targets, reduction="none")
        bend = loss.hessian_product(inputs, targets, move, reduction="none")
    return np.stack([value, (gradient * move).sum(axis=1), (bend * move + gradient * turn).sum(axis=1)])


def reported(loss: Loss, truth: NDArray[Any]) -> NDArray[Any]:
    """What the minimiser reports for the first of two classes, or for one label, at each true probability."""
    if loss.target_form == "labels":
        found = loss.elicited(truth[:, None])[:, 0]
    else:
        found = loss.elicited(np.stack([truth, 1 - truth], axis=1))[:, 0]
    if not np.isfinite(found).all():
        at = truth[np.argmin(np.isfinite(found))]
        raise ValueError(f"{loss} reports {found[np.argmin(np.isfinite(found))]} where the truth is {at:g}")
    return found


def refusal(loss: Loss) -> str | None:
    """The loss' own words if it elicits no probabilities."""
    try:
        reported(loss, np.array([0.5]))
    except NoProbabilitiesError as error:
        return str(error)
    return None


def best_scores(loss: Loss, truth: NDArray[Any]) -> NDArray[Any]:
    """The scores (N, C) that minimise the expected loss under each true distribution (N, C)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KullbackWarning)  # at a kink no gradient gets small
        return np.array([loss.best_constant(row[None, :]) for row in truth])


def decisions(scores: NDArray[Any]) -> NDArray[Any]:
    """The class (N,) with the largest score, or −1 where several share it."""
    ordered = np.sort(scores, axis=1)
    return np.where(ordered[:, -1] - ordered[:, -2] > 1e-4, np.argmax(scores, axis=1), -1)


# ---------------------------------------------------------------- one loss' text


def names() -> list[str]:
    """The losses that have a page: Kullback's own catalogue, and sums."""
    return [name for name, kind in CATALOGUE.items() if kind.__module__.startswith("kullback.")] + ["sum"]


class Entry:
    """What docs/gallery/text/NAME.toml says about one loss."""

    def __init__(self, name: str) -> None:
        path = TEXT / f"{name}.toml"
        if not path.exists():
            sys.exit(f"{path} is missing: the loss {name!r} has no text yet; write one after the pattern of focal.toml")
        self.name = name
        self.text: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        self.loss = parse_loss(self.text.get("loss", name))
        self.curves = [(label, parse_loss(spelling), not absent) for label, spelling, *absent in self.text["curves"]]
        self.meanings = [(label, parse_loss(spelling)) for label, spelling in self.text.get("meanings", [])]
        # for losses without probabilities: what they decide on three classes, or how they score two
        self.decided = [(label, parse_loss(spelling)) for label, spelling in self.text.get("decisions", [])]
        self.scored = [(label, parse_loss(spelling)) for label, spelling in self.text.get("scores", [])]
        self.target: list[float] | None = self.text.get("target")
        self.n_classes: int = self.text.get("classes", 2)
        low, high = self.text.get("margin", [-6, 6])
        self.margins = np.linspace(low, high, 241)

    def curve(self, loss: Loss, margin: NDArray[Any], *, present: bool = True) -> NDArray[Any]:
        """Value, gradient and curvature (3, N) of a loss in this page's setting."""
        return along_margin(loss, margin, n_classes=self.n_classes, target=self.target, present=present)

    def __getitem__(self, key: str) -> Any:
        return self.text[key]


# ---------------------------------------------------------------- pages


def number(value: float) -> str:
    """Four decimals, without a negative zero.

    Raises:
        ValueError: for NaN, which no page may show.
    """
    if math.isnan(value):
        raise ValueError("a cell of the gallery is nan: a loss breaks where the page shows it")
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.4f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def page(entry: Entry) -> str:
    """The Markdown page of one loss."""
    loss, text = entry.loss, entry.text
    kind = type(loss)
    parts = [
        f"# {text['title']}",
        f"`kullback.losses.{kind.__name__}`, spelled `{text.get('spelled', str(loss))}` · [all losses](README.md)",
        paragraphs(text["summary"]),
        "## Formula",
        paragraphs(text["formula"]["where"]),
        *(
            f"{what}\n\n```math\n{text['formula'][key].strip()}\n```"
            for what, key in FORMULAS
            if key in text["formula"]
        ),
        "The same in NumPy, for one example, held against the loss object:",
        checked_formula(entry),
        "## Shape",
        f"![{alt_text(entry)}]({entry.name}.svg)",
        paragraphs(picture_caption(entry)),
        margin_table(entry),
        "## Numbers",
        facts(entry),
        "## What its minimiser reports",
        *meaning(entry),
        "## When to use it",
        bullets(text["use"]),
        "## When not",
        bullets(text["avoid"]),
        "## The same loss elsewhere",
        *elsewhere(entry),
        "## Sources",
        bullets(text["sources"]),
    ]
    return "\n\n".join(parts) + "\n"


FORMULAS = (("Value:", "value"), ("Gradient:", "gradient"), ("Curvature:", "curvature"))


def paragraphs(text: str) -> str:
    """Hand-written text, wrapped, with the numbers it asks for in double braces."""
    text = re.sub(r"\{\{(.+?)\}\}", lambda asked: f"{eval(asked[1], {'__builtins__': {}}, NUMBERS):.4g}", text)
    return "\n\n".join(wrap(part) for part in text.split("\n\n"))


def reports(spelling: str, truth: float) -> float:
    """What the minimiser of a loss reports at one true probability, for numbers in hand-written text."""
    return float(reported(parse_loss(spelling), np.array([truth]))[0])


def costs(spelling: str, probability: float) -> float:
    """What an example costs whose true class, one of two, is given this probability."""
    return float(along_margin(parse_loss(spelling), np.array([math.log(probability / (1 - probability))]))[0, 0])


NUMBERS = {"reports": reports, "costs": costs, "parse_loss": parse_loss, "log": math.log}


def wrap(text: str, indent: str = "") -> str:
    """Lines of 120 characters that never break inside code or mathematics."""
    held = re.sub(r"`[^`]*`", lambda code: code[0].replace(" ", "\0").replace("-", "\1"), " ".join(text.split()))
    lines = textwrap.fill(held, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return lines.replace("\0", " ").replace("\1", "-")


def bullets(items: list[str]) -> str:
    """A list."""
    return "\n".join(wrap("- " + paragraphs(item), "  ") for item in items)


def checked_formula(entry: Entry) -> str:
    """The formulas as NumPy lines that the documentation's tests execute."""
    labels, link = entry.loss.target_form == "labels", entry.loss.link
    raw, target = "x" if link in ("identity", "log") else "z", "t" if labels else "y"
    example = {"identity": "np.array([0.2, 0.5, 0.3])", "log": "np.log([0.2, 0.5, 0.3])"}.get(
        link, "np.array([1.0, -0.5, 0.3])"
    )
    given = entry["formula"].get("given", f"{raw}, {target} = {example}, {'np.array([1, 0, 1])' if labels else 1}")
    setup = [f'loss = parse_loss("{entry.text.get("check_loss", str(entry.loss))}")', given]
    code = entry["formula"]["numpy"].strip().splitlines()
    show = [
        f"computed, slope = loss.value_and_gradient([{raw}], [{target}])",
        f"np.allclose(computed, value), np.allclose(slope, gradient), "
        f"np.allclose(loss.hessian_diagonal([{raw}], [{target}]), curvature)",
    ]
    lines = ["import numpy as np", "from kullback import parse_loss", *setup, *code, *show]
    shown = "\n".join((">>> " if not line.startswith(" ") else "... ") + line for line in lines)
    return f"```python\n{shown}\n(True, True, True)\n\n```"


def picture_caption(entry: Entry) -> str:
    """What the curves show."""
    if entry.loss.target_form == "labels":
        what = "One label: its margin is its logit where it holds, and minus its logit where it does not."
    elif entry.target:
        shares = ", ".join(f"{share:g}" for share in entry.target)
        what = f"Target ({shares}): the margin is how far the first class' logit stands above the other."
    elif entry.n_classes == 2:
        what = "Two classes: the margin is how far the true class' logit stands above the other."
    else:
        what = f"{entry.n_classes} classes: the margin is how far the true class' logit stands above all others."
    return (
        f"{what} The gradient is the derivative in this margin: below 0 it pulls the margin up, at 0 it rests. "
        + entry.text.get("picture", "")
    )


def alt_text(entry: Entry) -> str:
    """What the curves show, for those who do not see them."""
    names = ", ".join(label for label, *_ in entry.curves)
    return f"{entry['title']}: value, gradient and curvature against the margin, for {names}"


def margin_table(entry: Entry) -> str:
    """Value, gradient and curvature at a few margins."""
    low, high = entry.text.get("margin", [-6, 6])
    margin = np.linspace(low, high, 7)
    curves = entry.curve(entry.loss, margin)
    header = ["margin", "value", "gradient", "curvature"]
    rows = [[f"{m:g}".replace("-", "−"), *map(number, column)] for m, column in zip(margin, curves.T, strict=True)]
    chances = truth_probability(entry, margin)
    if chances is not None:
        header.insert(1, "probability of the truth")
        for row, chance in zip(rows, chances, strict=True):
            row.insert(1, number(chance))
    lead = f"`{entry.loss}`" + (", a label that holds:" if entry.loss.target_form == "labels" else ":")
    return f"{lead}\n\n{table(header, rows)}"


def truth_probability(entry: Entry, margin: NDArray[Any]) -> NDArray[Any] | None:
    """The probability the loss' link gives the truth at each margin, or None."""
    if entry.loss.target_form == "labels":
        return entry.loss.probabilities(margin[:, None])[:, 0]
    logits = np.zeros((len(margin), entry.n_classes))
    logits[:, 0] = margin
    try:
        return (CrossEntropy() if entry.loss.link in ("identity", "log") else entry.loss).probabilities(logits)[:, 0]
    except NoProbabilitiesError:
        return None


def facts(entry: Entry) -> str:
    """What the loss says about itself."""
    loss = entry.loss
    labels = loss.target_form == "labels"
    sure, torn = ([[1.0, 0.0]], [[0.5, 0.5]]) if labels else ([0], [[0.5, 0.5]])
    start = [number(loss.initial_value(c)) for c in CLASS_COUNTS]
    rows = [
        ["lowest value, " + ("labels 1 and 0" if labels else "a plain class"), number(loss.floor(sure, n_classes=2))],
        ["lowest value, target (½, ½)", number(loss.floor(torn, n_classes=2))],
        ["highest value", number(loss.ceiling)],
        [
            "value at the start (all logits 0)",
            " · ".join(f"{v} (C = {c})" for v, c in zip(start, CLASS_COUNTS, strict=True))
            if len(set(start)) > 1
            else f"{start[0]}, whatever C",
        ],
        ["convex in the logits", yes(loss.convex)],
        ["proper: the truth is its minimiser", yes(loss.proper)],
        ["gradient bounded", yes(loss.bounded_gradient)],
        ["targets", "independent labels" if labels else "one class of C (indices, soft rows, mixtures)"],
        ["probabilities", LINKS[loss.link]],
    ]
    return table([f"`{loss}`", ""], rows)


LINKS = {
    "softmax": "softmax of the logits",
    "sigmoid": "sigmoid of each logit",
    "identity": "the inputs themselves, divided by their sum",
    "log": "exp of the inputs, which are log-probabilities",
    "none": "none: scores for decisions",
}


def yes(truth: bool) -> str:
    """In words."""
    return "yes" if truth else "no"


def meaning(entry: Entry) -> list[str]:
    """The elicited distribution as text, picture and table, or the refusal."""
    parts = [paragraphs(entry["meaning"])]
    losses = telling(entry)
    if losses:
        parts.append(f"![{entry['title']}: reported against true probability]({entry.name}-reports.svg)")
        header = ["true probability", *(f"{label} reports" for label, _ in losses)]
        values = np.stack([reported(loss, np.array(TRUTHS)) for _, loss in losses], axis=1)
        parts.append(table(header, [[f"{p:g}", *map(number, row)] for p, row in zip(TRUTHS, values, strict=True)]))
        if any(not loss.proper for _, loss in losses):
            parts.append("`recover` leads from each reported probability back to the true one in its row.")
    if entry.decided:
        parts += [
            f"![{entry['title']}: what its minimiser decides, for every distribution of three classes]"
            f"({entry.name}-decisions.svg)",
            paragraphs(
                "A point is a true distribution of three classes, a corner certainty; its colour is the class that the "
                "scores of lowest expected loss put first. White: several share the first place. Dashed: where the "
                "most likely class changes."
            ),
            decision_table(entry),
        ]
    if entry.scored:
        header = ["true probability", *(f"{label}: the score's lead" for label, _ in entry.scored)]
        leads = np.stack([lead_of(loss, np.array(TRUTHS)) for _, loss in entry.scored], axis=1)
        parts += [
            f"![{entry['title']}: scores of two classes against the true probability]({entry.name}-scores.svg)",
            paragraphs("How far the first of two classes leads the other in the scores of lowest expected loss:"),
            table(header, [[f"{p:g}", *map(number, row)] for p, row in zip(TRUTHS, leads, strict=True)]),
        ]
    for loss in dict.fromkeys([entry.loss, *(loss for _, loss in entry.meanings)]):
        why = refusal(loss)
        if why:
            parts.append(f"Asked for `elicited(p)`, `{loss}` says:\n\n> {why}")
    return parts


TORN = np.array([[0.4, 0.35, 0.25], [0.5, 0.3, 0.2], [0.6, 0.3, 0.1], [0.45, 0.4, 0.15]])


def decision_table(entry: Entry) -> str:
    """Best scores and what they decide, for a few distributions."""
    columns = []
    for _, loss in entry.decided:
        scores = best_scores(loss, TORN)
        columns.append(
            [
                f"({', '.join(f'{z:.2f}' if math.isfinite(z) else number(z) for z in row)}): "
                + ("a tie" if k < 0 else f"class {k + 1}")
                for row, k in zip(scores, decisions(scores), strict=True)
            ]
        )
    rows = [[f"({', '.join(f'{x:g}' for x in p)})", *cells] for p, *cells in zip(TORN, *columns, strict=True)]
    return table(["truth", *(f"best scores, {label}" for label, _ in entry.decided)], rows)


def lead_of(loss: Loss, truth: NDArray[Any]) -> NDArray[Any]:
    """How far the first of two classes leads the other at the minimum, for each true probability of it."""
    scores = best_scores(loss, np.stack([truth, 1 - truth], axis=1))
    return scores[:, 0] - scores[:, 1]


def telling(entry: Entry) -> list[tuple[str, Loss]]:
    """The settings whose minimiser reports a distribution."""
    return [(label, loss) for label, loss in entry.meanings if refusal(loss) is None]


def elsewhere(entry: Entry) -> list[str]:
    """Which libraries have it, and under which settings."""
    equals = entry.text.get("equals", [])
    parts = []
    if equals:
        rows = [[e["library"], f"`{e['theirs']}`", f"`{e['ours']}`", e.get("note", "")] for e in equals]
        parts.append(table(["library", "there", "here", ""], rows))
        parts.append("Each pair is evaluated on the same numbers by the tests where the library is installed.")
    if "elsewhere" in entry.text:
        parts.append(bullets(entry["elsewhere"]))
    return parts or ["No library we know of has it."]


def index(entries: list[Entry]) -> str:
    """The gallery's table of contents."""
    groups = {
        "classes": "Mutually exclusive classes",
        "labels": "Independent labels",
        "penalty": "Penalties, to be added to a loss",
    }
    parts = [
        "# The losses, one by one",
        paragraphs(
            "Each page has the formula, gradient and curvature, a picture of all three, the lowest and highest value, "
            "what a first loss should be, what the minimiser reports when the truth is p, when to use the loss and "
            "when not, and what it is called elsewhere. The numbers come from the loss objects themselves. What the "
            "terms mean is in [what people ask](../what-people-ask.md); where other libraries give another number, and "
            "why, in [agreement](../agreement.md)."
        ),
    ]
    for group, heading in groups.items():
        rows = []
        for entry in entries:
            loss = entry.loss
            if entry.text.get("group", loss.target_form) == group:
                found = (
                    "the truth" if loss.proper else "no probabilities" if refusal(loss) else "a shifted truth, undone"
                )
                means = entry.text.get("reports", found)
                start, highest = number(loss.initial_value(3)), number(loss.ceiling)
                rows.append(
                    [f"[{entry['title']}]({entry.name}.md)", entry["short"], yes(loss.convex), means, start, highest]
                )
        parts += [
            f"## {heading}",
            table(["loss", "what for", "convex", "its minimiser reports", "start, C = 3", "highest"], rows),
        ]
    parts.append("![Several losses against the margin, side by side](overview.svg)")
    parts.append("Several outputs with a loss each, and losses of your own: see [your own](your-own.md).")
    parts.append("`python docs/make_gallery.py` writes these pages.")
    return "\n\n".join(parts) + "\n"


# ---------------------------------------------------------------- pictures


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure on a white card, legible on any page."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "kullback",
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.edgecolor": FAINT,
            "axes.labelcolor": INK,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#e6e6e6",
            "grid.linewidth": 0.6,
            "lines.linewidth": 1.8,
            "path.simplify_threshold": 0.2,
        }
    )
    return Figure(figsize=(width, height), facecolor="white", layout="constrained")


def curves_figure(entry: Entry) -> Any:
    """Value, gradient and curvature against the margin."""
    figure = new_figure(9, 3.1)
    panels = figure.subplots(1, 3)
    for (label, loss, present), (colour, dash) in zip(entry.curves, LINES, strict=False):
        for panel, curve in zip(panels, entry.curve(loss, entry.margins, present=present), strict=True):
            panel.plot(entry.margins, curve, color=colour, label=label, linestyle=dash)
    for panel, title in zip(panels, ("value, nats", "gradient", "curvature"), strict=True):
        panel.set_title(title, loc="left")
        panel.set_xlabel("margin")
        panel.axvline(0, color=FAINT, linewidth=0.8, zorder=0)
        panel.set_xlim(entry.margins[0], entry.margins[-1])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False)
    return figure


def reports_figure(entry: Entry, losses: list[tuple[str, Loss]]) -> Any:
    """Reported against true probability of the first of two classes."""
    figure = new_figure(6.6, 3.2)
    panel = figure.subplots()
    truth = np.linspace(0.001, 0.999, 201)
    panel.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, label="the truth")
    for (label, loss), (colour, dash) in zip(losses, LINES, strict=False):
        panel.plot(truth, reported(loss, truth), color=colour, linestyle=dash, label=label)
    panel.set(xlim=(0, 1), ylim=(0, 1), xlabel="true probability p", ylabel="reported probability q", box_aspect=1)
    figure.legend(*panel.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


CORNERS = np.array([[0.5, math.sqrt(0.75)], [0.0, 0.0], [1.0, 0.0]])
CELLS = 72  # along an edge of the triangle


def triangle_runs(loss: Loss) -> list[tuple[int, NDArray[Any]]]:
    """The triangle of distributions as quadrilaterals of one decision each: (class or −1, corners (4, 2))."""
    runs = []
    for i in range(CELLS):
        # cells between heights i and i + 1, pointing up and down in turn, by the truth at their centres
        width = 2 * (CELLS - i) - 1
        up = np.arange(width) % 2 == 0
        first = (i + np.where(up, 1 / 3, 2 / 3)) / CELLS
        third = (np.arange(width) // 2 + np.where(up, 1 / 3, 2 / 3)) / CELLS
        decided = decisions(best_scores(loss, np.stack([first, 1 - first - third, third], axis=1)))
        starts = np.flatnonzero(np.diff(decided, prepend=-2))
        for start, end in zip(starts, [*starts[1:], width], strict=True):
            # cell j lies between (j + 1) // 2 and j // 2 + 1 on the lower line, j // 2 and (j + 1) // 2 on the upper
            low, high = (start + 1) // 2, start // 2
            low_end, high_end = (end - 1) // 2 + 1, end // 2
            corners = [(i, low), (i, low_end), (i + 1, high_end), (i + 1, high)]
            runs.append((int(decided[start]), np.array([place(a / CELLS, b / CELLS) for a, b in corners])))
    return runs


def place(first: float, third: float) -> NDArray[Any]:
    """Where a distribution of three classes lies in the triangle."""
    return np.array([first, 1 - first - third, third]) @ CORNERS


def decisions_figure(entry: Entry) -> Any:
    """What the minimiser decides over the triangle of distributions of three classes."""
    figure = new_figure(3.1 * len(entry.decided), 3.2)
    panels = np.atleast_1d(figure.subplots(1, len(entry.decided)))
    colours = {-1: "white", 0: "#0072b2", 1: "#d55e00", 2: "#009e73"}
    for panel, (label, loss) in zip(panels, entry.decided, strict=True):
        for decided, corners in triangle_runs(loss):
            panel.fill(*corners.T, color=colours[decided], linewidth=0.4)
        panel.fill(*CORNERS.T, fill=False, edgecolor=INK, linewidth=1)
        centre = CORNERS.mean(axis=0)
        for k in range(3):
            half = (CORNERS[k] + CORNERS[k - 1]) / 2
            panel.plot(*np.stack([centre, half]).T, color=INK, linewidth=0.9, linestyle="--")
        for k, (x, y) in enumerate(CORNERS):
            panel.text(
                x, y + (0.03 if k == 0 else -0.03), f"class {k + 1}", ha="center", va="bottom" if k == 0 else "top"
            )
        panel.set_title(label, loc="left")
        panel.set(xlim=(-0.12, 1.12), ylim=(-0.14, 1.0), aspect="equal")
        panel.axis("off")
    return figure


def scores_figure(entry: Entry) -> Any:
    """The lead of the first of two classes in the best scores, against its true probability."""
    figure = new_figure(6.6, 3.2)
    panel = figure.subplots()
    truth = np.linspace(0.01, 0.99, 99)
    panel.plot(truth, np.log(truth / (1 - truth)), color=FAINT, linewidth=0.9, label="cross-entropy: the log odds")
    for (label, loss), (colour, dash) in zip(entry.scored, LINES, strict=False):
        panel.plot(truth, lead_of(loss, truth), color=colour, linestyle=dash, label=label)
    panel.set(xlim=(0, 1), ylim=(-4, 4), xlabel="true probability p", ylabel="lead in score")
    figure.legend(*panel.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def overview_figure(entries: list[Entry]) -> Any:
    """Several losses of exclusive classes in one picture."""
    figure = new_figure(9, 3.6)
    panels = figure.subplots(1, 2)
    margin = np.linspace(-5, 5, 201)
    chosen = [entry for entry in entries if entry.text.get("overview")]
    colours = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#56b4e9", "#b8860b", "#444444")
    for n, (entry, colour) in enumerate(zip(chosen, colours, strict=False)):
        curves = along_margin(entry.loss, margin)
        for panel, curve in zip(panels, curves, strict=False):
            panel.plot(margin, curve, color=colour, linestyle=LINES[n % 4][1], label=entry["title"])
    for panel, title in zip(panels, ("value, two classes", "gradient"), strict=True):
        panel.set_title(title, loc="left")
        panel.set_xlabel("margin")
        panel.set_xlim(-5, 5)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def save(figure: Any, path: Path) -> None:
    """The figure as a small SVG that is the same bytes every time."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = re.sub(r"(\.\d\d)\d+", r"\1", out.getvalue())
    text = re.sub(r"\s*<metadata>.*</metadata>", "", text, flags=re.DOTALL)
    path.write_text(re.sub(r"\s*\nL ", "L", re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)), encoding="utf-8")


# ---------------------------------------------------------------- everything


def main() -> None:
    """Write the pages asked for, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", metavar="LOSS", help="names of the catalogue; all if none is given")
    known = names()
    for name in parser.parse_args().names or known:
        if name not in known:
            sys.exit(f"{name!r} is not in the catalogue; known: {', '.join(known)}")
        entry = Entry(name)
        (GALLERY / f"{name}.md").write_text(page(entry), encoding="utf-8")
        save(curves_figure(entry), GALLERY / f"{name}.svg")
        losses = telling(entry)
        if losses:
            save(reports_figure(entry, losses), GALLERY / f"{name}-reports.svg")
        if entry.decided:
            save(decisions_figure(entry), GALLERY / f"{name}-decisions.svg")
        if entry.scored:
            save(scores_figure(entry), GALLERY / f"{name}-scores.svg")
        print(f"{name}: written")
    entries = [Entry(name) for name in known]
    save(overview_figure(entries), GALLERY / "overview.svg")
    (GALLERY / "README.md").write_text(index(entries), encoding="utf-8")


if __name__ == "__main__":
    main()
