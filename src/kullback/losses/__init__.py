"""The losses: what each one computes, what its minimiser means, and how it is spelled.

Every loss exported here is in the catalogue; sums are spelled by their terms.
"""

import inspect

from kullback.losses.asymmetric import Asymmetric
from kullback.losses.balanced_softmax import BalancedSoftmax
from kullback.losses.base import Loss
from kullback.losses.binary_cross_entropy import BinaryCrossEntropy
from kullback.losses.brier import Brier
from kullback.losses.cross_entropy import CrossEntropy
from kullback.losses.deviance import Deviance
from kullback.losses.focal import Focal
from kullback.losses.from_probabilities import ClippedWarning, Clipping, CrossEntropyFromProbabilities
from kullback.losses.generalised_cross_entropy import GeneralisedCrossEntropy
from kullback.losses.heads import Heads
from kullback.losses.jensen_shannon import JensenShannon
from kullback.losses.kullback_leibler import KullbackLeibler
from kullback.losses.ldam import Ldam
from kullback.losses.margin_loss import CrammerSinger, WestonWatkins
from kullback.losses.negative_log_likelihood import NegativeLogLikelihood, NotLogProbabilitiesWarning
from kullback.losses.one_vs_rest import OneVsRest
from kullback.losses.penalties import LogitL1, LogitL2, NegativeEntropy, Penalty
from kullback.losses.poly import Poly
from kullback.losses.sigmoid_brier import SigmoidBrier
from kullback.losses.sigmoid_focal import SigmoidFocal
from kullback.losses.smoothed_zero_one import SmoothedZeroOne
from kullback.losses.spelling import CATALOGUE, parse_loss, register_loss
from kullback.losses.user_loss import UserLoss
from kullback.losses.weighted_sum import WeightedSum

__all__ = [
    "CATALOGUE",
    "Asymmetric",
    "BalancedSoftmax",
    "BinaryCrossEntropy",
    "Brier",
    "ClippedWarning",
    "Clipping",
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
    "NotLogProbabilitiesWarning",
    "OneVsRest",
    "Penalty",
    "Poly",
    "SigmoidBrier",
    "SigmoidFocal",
    "SmoothedZeroOne",
    "UserLoss",
    "WeightedSum",
    "WestonWatkins",
    "parse_loss",
    "register_loss",
]

CATALOGUE.update(
    (kind.name, kind)
    for kind in [globals()[name] for name in __all__]
    if inspect.isclass(kind)
    and issubclass(kind, Loss)
    and "name" in vars(kind)
    and not inspect.isabstract(kind)
    and kind is not WeightedSum
)
