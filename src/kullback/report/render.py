"""From content to one HTML file that needs nothing else: no network, no script, no font."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from kullback.explain.account_text import account_sentence
from kullback.report import figures, text, view
from kullback.report.content import ReportContent, TestMetrics

if TYPE_CHECKING:
    from jinja2 import Environment

_COLUMNS_SHOWN = 200
_LOWEST_SHOWN = 20


def render_report(content: ReportContent) -> str:
    """Render a report as a complete HTML document.

    The page is self-contained, follows the reader's light or dark setting, and carries no script; every string of
    the content is escaped. The same content gives the same text.

    Args:
        content: what to show; parts that are None are left out.

    Returns:
        HTML, to be written as UTF-8.

    >>> import numpy as np
    >>> from kullback.report import ClassBalance, DataSummary, LossSummary, TestMetrics
    >>> page = render_report(ReportContent(
    ...     kind="classes", class_names=("<b>", "c"),
    ...     data=DataSummary("ants.csv", rows=4, target="kind", columns=()),
    ...     loss=LossSummary("cross_entropy", "Its minimiser is the true distribution."),
    ...     metrics=TestMetrics(loss=0.2, uniform_loss=0.693, prior_entropy=0.693, accuracy=1.0, macro_f1=1.0),
    ...     balance=ClassBalance(train=np.array([2, 2])),
    ... ))
    >>> page.startswith("<!doctype html>"), "<b>" in page, "&lt;b&gt;" in page
    (True, False, True)
    """
    return _environment().get_template("report.html.j2").render(_context(content))


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        {
            name: getattr(text, name)
            for name in (
                "bits", "count", "label", "labels", "nats", "number", "percent", "plural", "probability", "signed",
                "visible",
            )
        }
    )  # fmt: skip
    return environment


def _context(content: ReportContent) -> dict[str, Any]:
    names, metrics, single = content.class_names, content.metrics, content.kind == "classes"
    balance = np.asarray(content.balance.train)
    context: dict[str, Any] = {
        "c": content,
        "m": metrics,
        "single": single,
        "one": "class" if single else "label",
        "many": "classes" if single else "labels",
        "unit": "nats" if single else "nats per label",
        "uniform_name": f"log {len(names)}" if single else "log 2",
        "verdict": _verdict(content),
        "bars": _loss_bars(metrics, single, f"log {len(names)}" if single else "log 2 per label"),
        "columns": content.data.columns[:_COLUMNS_SHOWN],
        "columns_left_out": max(0, len(content.data.columns) - _COLUMNS_SHOWN),
        "balance_rows": view.listed(balance),
        "balance_top": float(max(balance.max(initial=0), 1)),
        "balance_total": float(balance.sum()) if single else _train_rows(content),
        "curve": None,
        "curve_start": f"log {len(names)}" if single else "log 2",
        "reliability": [],
        "matrix": None,
        "confusions": (),
        "class_rows": (),
        "lowest_rows": (),
        "accounts": [],
        "account_sentence": None,
    }
    if content.curve is not None and np.isfinite(content.curve.loss).any():
        uniform = metrics.uniform_loss if content.curve.uniform_loss is None else content.curve.uniform_loss
        if not np.isclose(uniform, metrics.uniform_loss):
            context["curve_start"] = "the loss of equal scores"  # of another loss, log C is not the mark to beat
        context["curve_uniform"] = uniform
        context["curve"] = figures.training_curve(
            content.curve,
            uniform_loss=uniform,
            uniform_name=context["curve_start"].removeprefix("the loss of "),
            prior_entropy=metrics.prior_entropy if content.curve.prior_loss is None else content.curve.prior_loss,
        )
        finite = np.asarray(content.curve.loss)[np.isfinite(content.curve.loss)]
        context["curve_last"] = float(finite[-1])
        context["curve_steps"] = int(np.asarray(content.curve.iterations)[-1])
    for bins, title, name, error in (
        (content.reliability_before, "Before the temperature", "before", metrics.ece_before),
        (content.reliability_after, "After the temperature", "after", metrics.ece_after),
    ):
        if bins is not None:
            if content.reliability_after is None:
                title = "As the model states it"
            context["reliability"].append((title, figures.reliability(bins, name), error, bins))
    if content.confusion is not None and single:
        context["matrix"] = view.confusion_matrix(content.confusion, names)
        context["confusions"] = view.commonest_confusions(content.confusion, names)
    if content.per_class is not None:
        support = np.asarray(content.per_class.support)
        context["class_rows"] = view.listed(support)
        if len(names) > len(context["class_rows"]):
            context["lowest_rows"] = view.lowest(content.per_class.f1, support > 0, _LOWEST_SHOWN)
    untrained, trained = content.untrained_account, content.trained_account
    scale = view.account_scale(untrained, trained)
    for account, title in ((untrained, "Untrained model"), (trained, "Trained model")):
        if account is not None:
            context["accounts"].append((title, view.account_matrix(account, names, scale)))
    if untrained is not None:
        context["account_sentence"] = text.visible(account_sentence(names, untrained, trained), limit=2000)
    return context


def _train_rows(content: ReportContent) -> float:
    for name, rows in content.data.splits:
        if name.startswith("train"):
            return float(rows)
    return float(content.data.rows)


def _verdict(content: ReportContent) -> Markup:
    """The whole report in two sentences."""
    metrics = content.metrics
    rows = dict(content.data.splits).get("test")
    on = f"On {text.plural(rows, 'example')} it had not seen" if rows else "On examples it had not seen"
    what = "of its predictions" if content.kind == "classes" else "of its yes-or-no decisions"
    known = metrics.prior_entropy
    sentence = f"{on}, the model is right in {text.percent(metrics.accuracy)} {what}"
    if metrics.majority_accuracy is not None:
        always = "the commonest class" if content.kind == "classes" else "each label's commoner answer"
        sentence += f" (always giving {always}: {text.percent(metrics.majority_accuracy)})"
    sentence += "."
    if math.isfinite(metrics.loss) and known > 0:
        removed = 1 - metrics.loss / known
        if removed >= 0:
            sentence += (
                f" Its probabilities remove {text.percent(removed, 0)} of the uncertainty that the "
                f"{'class' if content.kind == 'classes' else 'label'} frequencies leave."
            )
        else:
            sentence += (
                " Its probabilities are worse than the bare frequencies: it is overconfident or has not learnt; "
                "look at the training curve and the reliability diagram."
            )
    elif math.isinf(metrics.loss):
        sentence += " At least one true answer was given probability zero, so the loss is infinite."
    return Markup("{}").format(sentence)


def _loss_bars(metrics: TestMetrics, single: bool, uniform_name: str) -> list[tuple[str, float, float, str]]:
    """(name, nats, width in [0, 100], tone) of the model and of the two models that know less."""
    rows = [
        ("This model", metrics.loss, "main"),
        (f"Knows only the {'class' if single else 'label'} balance", metrics.prior_entropy, "base"),
        (f"Knows nothing ({uniform_name})", metrics.uniform_loss, "base"),
    ]
    top = max((value for _, value, _ in rows if math.isfinite(value)), default=1.0) or 1.0
    return [
        (name, value, 100.0 * min(1.0, max(0.0, value / top)) if not math.isnan(value) else 0.0, tone)
        for name, value, tone in rows
    ]
