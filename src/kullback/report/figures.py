"""The report's two figures as inline SVG that follows the page's light or dark colours.

Matplotlib draws with sentinel colours, each of which is then replaced by a CSS variable of the page, so that one
drawing serves both schemes. Text stays text (``svg.fonttype: none``) and takes the page's font. No string from the
data enters a figure.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from kullback.report.content import ReliabilityBins, TrainingCurve
from kullback.report.text import nats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _MUTED, _GRID, _MAIN, _SECOND = "#010101", "#010102", "#010103", "#010104", "#010105"
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _GRID: "var(--grid)",
    _MAIN: "var(--blue)",
    _SECOND: "var(--orange)",
}
_SETTINGS = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # shipped with matplotlib: the layout is the same on every machine
    "font.size": 9.0,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "text.color": _INK,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "path.simplify": True,
}


def training_curve(curve: TrainingCurve, *, uniform_loss: float, uniform_name: str, prior_entropy: float) -> Markup:
    """Training loss by iteration, in nats, against what knowing nothing and knowing only the balance score.

    Args:
        curve: at least one point; points that are not finite are left out.
        uniform_loss: nats, the dashed line.
        uniform_name: its name, such as ``"log 3"``.
        prior_entropy: nats, the dotted line.
    """
    from matplotlib.ticker import MaxNLocator

    with _style("curve"):
        figure, axes = _figure(4.4, 3.0)
        iterations, loss = np.asarray(curve.iterations, float), np.asarray(curve.loss, float)
        shown = np.isfinite(loss)
        iterations, loss = iterations[shown], loss[shown]
        axes.plot(iterations, loss, color=_MAIN, linewidth=2, marker="o" if len(loss) <= 30 else "", markersize=3)
        right = float(iterations.max()) if len(loss) else 1.0
        gap = abs(uniform_loss - prior_entropy) / uniform_loss
        dashed, dotted = (0, (5.0, 3.0)), (0, (1.5, 2.0))
        if gap < 0.01:
            lines = [
                (uniform_loss, f"{uniform_name} = {nats(uniform_loss)}: knows nothing, or the balance", dashed, True)
            ]
        else:
            # Lines close together are named on their outer sides, so that the names do not meet.
            above = gap > 0.12 or prior_entropy > uniform_loss
            lines = [
                (uniform_loss, f"{uniform_name} = {nats(uniform_loss)}: knows nothing", dashed, True),
                (prior_entropy, f"{nats(prior_entropy)}: knows only the balance", dotted, above),
            ]
        for value, name, dashes, above in lines:
            axes.axhline(value, color=_SECOND, linewidth=1.2, linestyle=dashes)
            axes.annotate(
                name,
                (1.0, value),
                xycoords=("axes fraction", "data"),
                xytext=(0, 4 if above else -4),
                textcoords="offset points",
                ha="right",
                va="bottom" if above else "top",
                color=_INK,
            )
        top = max([uniform_loss, prior_entropy, *loss.tolist()])
        axes.set_ylim(0, top * 1.14)
        axes.set_xlim(min(0.0, float(iterations.min())) if len(loss) else 0.0, max(right, 1.0))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.set_xlabel("iteration")
        axes.set_ylabel("mean training loss (nats)")
        return _svg(figure, "curve")


def reliability(bins: ReliabilityBins, name: str) -> Markup:
    """What was promised against what came true, with the share of predictions in each bin underneath.

    Args:
        bins: the bins; empty ones are left out.
        name: short and unique among the page's figures: it prefixes the ids in the SVG.
    """
    with _style(name):
        figure, axes = _figure(4.0, 4.0)
        counts = np.asarray(bins.counts, float)
        edges = np.asarray(bins.edges, float)
        filled = counts > 0
        share = counts / max(1.0, counts.sum())
        axes.bar(
            edges[:-1], 0.28 * share / max(share.max(), 1e-12), np.diff(edges), align="edge", color=_GRID, linewidth=0
        )
        axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
        confidence = np.asarray(bins.confidence, float)[filled]
        accuracy = np.asarray(bins.accuracy, float)[filled]
        axes.vlines(confidence, confidence, accuracy, color=_SECOND, linewidth=1.6)
        # Area follows the count, but the rarest bin must still be seen.
        axes.scatter(confidence, accuracy, s=12 + 50 * share[filled] / max(share.max(), 1e-12), color=_MAIN, zorder=3)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.04)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        axes.set_xlabel("probability the model states")
        axes.set_ylabel("how often it is right")
        return _svg(figure, name)


def _style(salt: str):  # type: ignore[no-untyped-def]  # matplotlib's context manager has no public type
    import matplotlib

    # Start from matplotlib's own defaults, not from whatever style the user's machine or session has set.
    settings: dict[Any, Any] = {key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"}
    settings.update(_SETTINGS, **{"svg.hashsalt": salt})
    return matplotlib.rc_context(settings)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasSVG(figure)
    axes = figure.add_axes((0.62 / width, 0.5 / height, 1 - 0.74 / width, 1 - 0.64 / height))
    axes.set_facecolor("none")
    figure.patch.set_alpha(0)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure, name: str) -> Markup:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    # Several drawings share one page: ids must not meet, and only the ones that are referred to are kept.
    used = set(re.findall(r'(?:url\(#|xlink:href="#)([^)"]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = svg.replace('xlink:href="#', f'xlink:href="#{name}-')
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    # The caption and the label of the surrounding figure say it in words.
    svg = svg.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
    return Markup(re.sub(r"\n\s*\n+", "\n", svg))
