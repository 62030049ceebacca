"""Pictures of a path of penalties. Matplotlib is imported when a picture is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from kullback.linear.inputs import check_number

if TYPE_CHECKING:
    from kullback.linear.cv import SoftmaxClassifierCV
    from kullback.linear.path import SoftmaxPath


def plot_scores(model: SoftmaxClassifierCV, ax: Any = None) -> Any:
    """The mean held-out score with its standard error for every C, and which one was chosen."""
    check_is_fitted(model)
    ax = _axes(ax)
    mean, count = model.scores_.mean(axis=0), len(model.scores_)
    error = model.scores_.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else np.zeros_like(mean)
    ax.plot(model.Cs_, model.scores_.T, color="0.8", linewidth=0.8, zorder=1)
    ax.errorbar(model.Cs_, mean, error, color="C0", marker="o", markersize=4, capsize=3, label="mean ± standard error")
    ax.axvline(model.C_, color="C3", linestyle="--", linewidth=1, label=f"chosen: C = {model.C_:.3g}")
    best = int(np.argmax(mean))
    if model.selection != "best":
        ax.axhline(mean[best] - error[best], color="0.5", linestyle=":", linewidth=1, label="one standard error below")
    ax.set_xscale("log")
    # One hopeless penalty must not flatten the others to a line.
    low, high = mean[best] - 5 * max(mean[best] - np.median(mean), error[best]), float(model.scores_.max())
    low = max(low, float(model.scores_.min()))
    ax.set_ylim(low - 0.05 * (high - low or 1), high + 0.05 * (high - low or 1))
    ax.set_xlabel("C (penalty weakens to the right)")
    ax.set_ylabel("held-out log likelihood, nats" if model.scoring is None else f"held-out {_name(model.scoring)}")
    ax.legend(fontsize="small")
    return ax


def plot_path(path: SoftmaxPath, ax: Any = None, columns: int = 8) -> Any:
    """The length of each column's weights over the classes for every C."""
    check_is_fitted(path)
    check_number("columns", columns, "a whole number of at least 0", lambda v: v >= 0, integer=True)
    ax = _axes(ax)
    lengths = np.sqrt(np.square(path.coefs_).sum(axis=1))
    order = np.argsort(-lengths[-1])
    names = getattr(path, "feature_names_in_", [f"column {j}" for j in range(lengths.shape[1])])
    # Thousands of lines would hide one another and make a file of many megabytes.
    for j in order[columns : columns + 200]:
        ax.plot(path.Cs_, lengths[:, j], color="0.85", linewidth=0.7, zorder=1)
    for j in order[:columns]:
        ax.plot(path.Cs_, lengths[:, j], marker=".", label=str(names[j]), zorder=2)
    ax.set_xscale("log")
    # Linear up to where the strongest penalty that leaves any weights leaves them: a kink starts from zero exactly.
    longest = lengths.max(axis=1, initial=0.0)
    ax.set_yscale("symlog", linthresh=float(longest[longest > 0].min(initial=max(1.0, longest.max()))))
    ax.set_ylim(bottom=0)
    ax.set_xlabel("C (penalty weakens to the right)")
    ax.set_ylabel("length of a column's weights")
    if columns:
        ax.legend(fontsize="small")
    return ax


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]


def _name(scoring: Any) -> str:
    return scoring if isinstance(scoring, str) else getattr(scoring, "__name__", "score")
