"""Kullback: multi-class and multi-label classifiers with the right loss, and probabilities you can trust.

Names are imported when first used, so that ``import kullback`` costs little more than NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "kullback.calibration": ("fit_temperature",),
    "kullback.explain": ("gradient_account",),
    "kullback.kernels.threads": ("get_num_threads", "set_num_threads"),
    "kullback.linear": ("SigmoidClassifier", "SoftmaxClassifier", "SoftmaxClassifierCV", "SoftmaxPath"),
    "kullback.losses": (
        "Asymmetric",
        "BalancedSoftmax",
        "BinaryCrossEntropy",
        "Brier",
        "CrammerSinger",
        "CrossEntropy",
        "CrossEntropyFromProbabilities",
        "Deviance",
        "Focal",
        "GeneralisedCrossEntropy",
        "Heads",
        "JensenShannon",
        "KullbackLeibler",
        "Ldam",
        "LogitL1",
        "LogitL2",
        "Loss",
        "NegativeEntropy",
        "NegativeLogLikelihood",
        "OneVsRest",
        "Poly",
        "SigmoidBrier",
        "SigmoidFocal",
        "SmoothedZeroOne",
        "UserLoss",
        "WeightedSum",
        "WestonWatkins",
        "parse_loss",
        "register_loss",
    ),
    "kullback.pipeline": ("fit_file", "load_model"),
    "kullback.targets": ("ClassIndices", "ClassMixture", "ClassRows", "LabelRows"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Asymmetric",
    "BalancedSoftmax",
    "BinaryCrossEntropy",
    "Brier",
    "ClassIndices",
    "ClassMixture",
    "ClassRows",
    "CrammerSinger",
    "CrossEntropy",
    "CrossEntropyFromProbabilities",
    "Deviance",
    "Focal",
    "GeneralisedCrossEntropy",
    "Heads",
    "JensenShannon",
    "KullbackLeibler",
    "LabelRows",
    "Ldam",
    "LogitL1",
    "LogitL2",
    "Loss",
    "NegativeEntropy",
    "NegativeLogLikelihood",
    "OneVsRest",
    "Poly",
    "SigmoidBrier",
    "SigmoidClassifier",
    "SigmoidFocal",
    "SmoothedZeroOne",
    "SoftmaxClassifier",
    "SoftmaxClassifierCV",
    "SoftmaxPath",
    "UserLoss",
    "WeightedSum",
    "WestonWatkins",
    "__version__",
    "fit_file",
    "fit_temperature",
    "get_num_threads",
    "gradient_account",
    "load_model",
    "parse_loss",
    "register_loss",
    "set_num_threads",
]

if TYPE_CHECKING:
    from kullback.calibration import fit_temperature
    from kullback.explain import gradient_account
    from kullback.kernels.threads import get_num_threads, set_num_threads
    from kullback.linear import SigmoidClassifier, SoftmaxClassifier, SoftmaxClassifierCV, SoftmaxPath
    from kullback.losses import (
        Asymmetric,
        BalancedSoftmax,
        BinaryCrossEntropy,
        Brier,
        CrammerSinger,
        CrossEntropy,
        CrossEntropyFromProbabilities,
        Deviance,
        Focal,
        GeneralisedCrossEntropy,
        Heads,
        JensenShannon,
        KullbackLeibler,
        Ldam,
        LogitL1,
        LogitL2,
        Loss,
        NegativeEntropy,
        NegativeLogLikelihood,
        OneVsRest,
        Poly,
        SigmoidBrier,
        SigmoidFocal,
        SmoothedZeroOne,
        UserLoss,
        WeightedSum,
        WestonWatkins,
        parse_loss,
        register_loss,
    )
    from kullback.pipeline import fit_file, load_model
    from kullback.targets import ClassIndices, ClassMixture, ClassRows, LabelRows


# so that kullback.testing.check_loss needs no import of its own
_MODULES = frozenset({"calibration", "errors", "explain", "kernels", "linear", "losses", "targets", "testing"})


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"kullback.{name}")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'kullback' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
