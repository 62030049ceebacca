"""Linear classifiers on the scikit-learn API, for exclusive classes and for independent labels."""

from kullback.linear.certificate import Certificate
from kullback.linear.cv import SoftmaxClassifierCV
from kullback.linear.path import SoftmaxPath
from kullback.linear.sigmoid_classifier import SigmoidClassifier
from kullback.linear.softmax_classifier import SoftmaxClassifier
from kullback.linear.solvers import IterationRecord

__all__ = [
    "Certificate",
    "IterationRecord",
    "SigmoidClassifier",
    "SoftmaxClassifier",
    "SoftmaxClassifierCV",
    "SoftmaxPath",
]
