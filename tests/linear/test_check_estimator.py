import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator

from kullback import SoftmaxClassifier


@pytest.mark.parametrize(
    "check",
    [check for _, check in estimator_checks_generator(SoftmaxClassifier())],
    ids=lambda check: getattr(check, "func", check).__name__,
)
def test_softmax_classifier_follows_scikit_learn(check):
    check(SoftmaxClassifier())
