"""The gradient account in one plain paragraph, every figure of it taken from the account."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kullback.explain.account import GradientAccount


def account_sentence(
    class_names: Sequence[str], untrained: GradientAccount, trained: GradientAccount | None = None
) -> str:
    """Explain an account by the example of one class.

    The class is the one whose examples leave the trained model most to do (examples × push on their own logit), or
    the commonest one where there is no trained model.

    Args:
        class_names: C names, raw text.
        untrained: account at zero logits.
        trained: account of the trained model on the same examples, or None.

    Returns:
        Plain text, not escaped for any markup.

    >>> import kullback
    >>> from kullback.explain import untrained_account
    >>> account = untrained_account([0, 1, 1], kullback.CrossEntropy(), 3)
    >>> print(account_sentence(["ant", "bee", "cat"], account))
    An untrained model gives each of the 3 classes the probability 1/3. There, an example of “bee” pushes its own \
logit up by 0.667 and each other logit down by 0.333: the scores of the other classes go down although the loss \
reads only the probability of the true one.
    """
    if not (untrained.counts > 0).any():
        return "No example counts, so nothing pushes any logit."
    own = int(np.argmax(untrained.counts))
    if trained is not None:
        left_over = trained.counts * np.abs(np.diagonal(trained.push))
        if np.isfinite(left_over).any():
            own = int(np.nanargmax(left_over))
    if untrained.kind == "labels":
        return _labels(class_names, own, untrained, trained)
    return _classes(class_names, own, untrained, trained)


def _classes(names: Sequence[str], own: int, untrained: GradientAccount, trained: GradientAccount | None) -> str:
    n = len(names)
    row = untrained.push[own]
    text = (
        f"An untrained model gives each of the {n} classes the probability 1/{n}. There, an example of "
        f"{quoted(names[own])} pushes its own logit {_push(row[own])} and {_others(row, own)}: the scores of the "
        "other classes go down although the loss reads only the probability of the true one."
    )
    if trained is None or not np.isfinite(trained.push[own]).all():
        return text
    after = trained.push[own]
    text += f" After training, the same examples push their own logit {_push(after[own])} on average"
    if n > 1:
        rival = _extreme_other(after, own)
        text += f"; the score they move down most is that of {quoted(names[rival])}, {_push(after[rival])}"
    return text + "."


def _labels(names: Sequence[str], own: int, untrained: GradientAccount, trained: GradientAccount | None) -> str:
    row = untrained.push[own]
    text = (
        "Each label is a yes-or-no question of its own, and an untrained model answers every one with 1/2. There, "
        f"an example that holds {quoted(names[own])} pushes that label's logit {_push(row[own])}"
    )
    others = np.delete(row, own)
    if others.size:
        text += (
            f", and the other labels' logits by {_span(others)} on average: down where a label is absent, up where "
            "it is held too"
        )
    text += "."
    if trained is None or not np.isfinite(trained.push[own]).all():
        return text
    after = trained.push[own]
    text += f" After training, the same examples push that logit {_push(after[own])} on average"
    if others.size:
        rival = _extreme_other(np.abs(after) * -1, own)
        text += f"; among the others {quoted(names[rival])} moves most, {_push(after[rival])}"
    return text + "."


def _others(row: NDArray[np.float64], own: int) -> str:
    others = np.delete(row, own)
    if others.size == 0:
        return "no other"
    if others.size == 1:
        return f"the other logit {_push(float(others[0]))}"
    if np.ptp(others) < 5e-4 * max(1.0, float(np.abs(others).max())):
        return f"each other logit {_push(float(others.mean()))}"
    return f"the other logits by {_span(others)}"


def _extreme_other(row: NDArray[np.float64], own: int) -> int:
    masked = row.copy()
    masked[own] = np.inf
    return int(np.argmin(masked))


def _push(value: float) -> str:
    return f"{'up' if value >= 0 else 'down'} by {_magnitude(value)}"


def _span(values: NDArray[np.float64]) -> str:
    low, high = float(values.min()), float(values.max())
    if high - low < 5e-4:
        return _signed(low)
    return f"{_signed(low)} to {_signed(high)}"


def _signed(value: float) -> str:
    return ("−" if value < 0 else "+") + _magnitude(value)


def _magnitude(value: float) -> str:
    size = abs(float(value))
    if size == 0 or size >= 5e-4:
        return f"{size:.3f}"
    return f"{size:.1e}"


def quoted(name: str) -> str:
    """A class name for a sentence: in quotes, on one line, cut to 40 characters."""
    shown = " ".join(name.split()) or "(empty)"
    return f"“{shown if len(shown) <= 40 else shown[:39] + '…'}”"
