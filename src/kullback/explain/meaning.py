"""What a loss asks a model for: its minimiser, in words and one worked number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kullback.errors import NoProbabilitiesError
from kullback.explain.account_text import quoted

if TYPE_CHECKING:
    from kullback.losses import Loss


def minimiser_meaning(loss: Loss, class_names: Sequence[str], *, recovered: bool = True) -> str:
    """Say what the probabilities mean that a model trained with this loss reports.

    The number is computed by the loss' own `elicited`, so it is true of any loss, a user's own included.

    Args:
        loss: the loss.
        class_names: C names, raw text.
        recovered: whether the model applies the loss' `recover` before it reports a probability.

    Returns:
        One to three sentences of plain text, not escaped for any markup.

    >>> import kullback
    >>> print(minimiser_meaning(kullback.CrossEntropy(), ["no", "yes"]))
    Its minimiser is the true distribution: among examples that look alike, the reported probability of a class is \
the share of them that belong to it.
    """
    single = loss.target_form == "classes"
    if loss.proper:
        share = "belong to it" if single else "hold it"
        return (
            "Its minimiser is the true distribution: among examples that look alike, the reported probability of a "
            f"{'class' if single else 'label'} is the share of them that {share}."
        )
    n = len(class_names)
    try:
        which, truth, reported = _clearest_shift(loss, n, single)
    except NoProbabilitiesError:
        return (
            "Its minimiser is a decision, not a distribution: scores of a model trained with it are no probabilities."
        )
    name, link = (
        quoted(class_names[which]),
        "softmax of the trained scores" if single else "sigmoid of the trained score",
    )
    rest = " and the others share the rest evenly" if single and n > 2 else ""
    text = (
        f"Its minimiser is not the true distribution: where {name} has a true probability of {truth:.0%}{rest}, the "
        f"{link} tends to {reported:.1%}."
    )
    if recovered:
        return text + (
            " The probabilities reported here are turned back to the data as it is; decisions still follow the trained "
            "loss, so the two may differ."
        )
    return text + " The probabilities reported here are left as they are trained."


def _clearest_shift(loss: Loss, n: int, single: bool) -> tuple[int, float, float]:
    """The class whose probability the loss moves most, for a truth of 80 % (a label: also 20 %)."""
    best = (0, 0.8, 0.8)
    for truth in (0.8,) if single else (0.8, 0.2):
        for k in range(n) if n <= 2000 else (0,):
            if single:
                p = np.full(n, (1 - truth) / max(1, n - 1))
                p[k] = truth
            else:
                p = np.full(n, truth)
            reported = float(np.asarray(loss.elicited(p))[k])
            if abs(reported - truth) > abs(best[2] - best[1]):
                best = (k, truth, reported)
    return best
