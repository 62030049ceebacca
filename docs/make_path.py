"""Draw the picture of docs/path.md."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

from kullback import SoftmaxClassifierCV, SoftmaxPath

OUT = Path(__file__).resolve().parent / "path" / "path.png"


def main() -> None:
    """Draw it."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:600] / 16, y[:600]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    SoftmaxClassifierCV(Cs=15, selection="one-standard-error").fit(X, y).plot_scores(left)
    SoftmaxPath(Cs=15).fit(X, y).plot_path(right, columns=5)
    figure.savefig(OUT, dpi=110)


if __name__ == "__main__":
    main()
