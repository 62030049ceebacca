"""Reading a loss back from its spelling: ``parse_loss(str(loss)) == loss``."""

from __future__ import annotations

import ast
import dataclasses
import difflib

from kullback.errors import InputError, SpellingError
from kullback.losses.asymmetric import Asymmetric
from kullback.losses.balanced_softmax import BalancedSoftmax
from kullback.losses.base import Loss
from kullback.losses.binary_cross_entropy import BinaryCrossEntropy
from kullback.losses.brier import Brier
from kullback.losses.cross_entropy import CrossEntropy
from kullback.losses.deviance import Deviance
from kullback.losses.focal import Focal
from kullback.losses.from_probabilities import CrossEntropyFromProbabilities
from kullback.losses.generalised_cross_entropy import GeneralisedCrossEntropy
from kullback.losses.kullback_leibler import KullbackLeibler
from kullback.losses.ldam import Ldam
from kullback.losses.margin_loss import CrammerSinger, WestonWatkins
from kullback.losses.negative_log_likelihood import NegativeLogLikelihood
from kullback.losses.one_vs_rest import OneVsRest
from kullback.losses.poly import Poly
from kullback.losses.sigmoid_brier import SigmoidBrier
from kullback.losses.sigmoid_focal import SigmoidFocal
from kullback.losses.smoothed_zero_one import SmoothedZeroOne

CATALOGUE: dict[str, type[Loss]] = {
    loss.name: loss
    for loss in (
        CrossEntropy,
        BalancedSoftmax,
        Ldam,
        Focal,
        Poly,
        GeneralisedCrossEntropy,
        SmoothedZeroOne,
        Brier,
        OneVsRest,
        Deviance,
        KullbackLeibler,
        CrossEntropyFromProbabilities,
        NegativeLogLikelihood,
        WestonWatkins,
        CrammerSinger,
        BinaryCrossEntropy,
        SigmoidFocal,
        Asymmetric,
        SigmoidBrier,
    )
}


def parse_loss(spelling: str | Loss) -> Loss:
    """A loss from text such as ``"cross_entropy(label_smoothing=0.1)"``; a loss is returned as it is.

    Only literal settings are read; nothing is ever executed.

    Raises:
        SpellingError: for an unknown name or setting (with the closest known one), or text that cannot be read.

    >>> parse_loss("cross_entropy(class_weight=[1, 2])").class_weight
    (1.0, 2.0)
    """
    if isinstance(spelling, Loss):
        return spelling
    if not isinstance(spelling, str):
        raise SpellingError(f"expected a loss or its spelling, got {type(spelling).__name__}")
    text = spelling.strip()
    name, parenthesis, _ = text.partition("(")
    kind = CATALOGUE.get(name.strip())
    if kind is None:
        raise SpellingError(f"unknown loss {name.strip()!r}{_closest(name, CATALOGUE)}; known: {', '.join(CATALOGUE)}")
    settings = _settings(text, kind) if parenthesis else {}
    try:
        return kind(**settings)
    except InputError as error:
        raise SpellingError(f"{spelling!r}: {error}") from None


def _settings(text: str, kind: type[Loss]) -> dict[str, object]:
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    try:
        call = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        call = None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise SpellingError(f"cannot read {text!r}; a loss is spelled like {kind.name}({known[0]}=…)")
    if call.args:
        raise SpellingError(f"{text!r}: settings are named; {kind.name} takes {', '.join(known)}")
    settings: dict[str, object] = {}
    for keyword in call.keywords:
        if keyword.arg not in known:
            hint = _closest(str(keyword.arg), known)
            raise SpellingError(
                f"{text!r}: {kind.name} has no setting {keyword.arg!r}{hint}; known: {', '.join(known)}"
            )
        try:
            settings[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            raise SpellingError(
                f"{text!r}: the value of {keyword.arg} is not a number, text or a list of numbers"
            ) from None
    return settings


def _closest(word: str, known: object) -> str:
    near = difflib.get_close_matches(word.strip().lower().replace("-", "_"), list(known), n=1)  # type: ignore[call-overload]
    return f" (did you mean {near[0]!r}?)" if near else ""
