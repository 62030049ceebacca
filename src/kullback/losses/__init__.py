"""The losses: what each one computes, what its minimiser means, and how it is spelled."""

from kullback.losses.base import Loss
from kullback.losses.binary_cross_entropy import BinaryCrossEntropy
from kullback.losses.cross_entropy import CrossEntropy
from kullback.losses.spelling import CATALOGUE, parse_loss

__all__ = ["CATALOGUE", "BinaryCrossEntropy", "CrossEntropy", "Loss", "parse_loss"]
