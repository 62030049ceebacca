import warnings

import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

from kullback import SigmoidClassifier, SoftmaxClassifier, SoftmaxClassifierCV, SoftmaxPath

OTHER_VALUES = "trains on one column whose two values are not 0 and 1; independent labels are 0/1, nothing else"
VECTOR = "trains on a vector of classes, or expects a vector back; independent labels are always rows (N, L)"
LABEL_CHECKS_THAT_DO_NOT_APPLY = {
    "check_estimators_dtypes": OTHER_VALUES,
    "check_sample_weights_pandas_series": OTHER_VALUES,
    "check_sample_weights_not_an_array": OTHER_VALUES,
    "check_sample_weights_shape": OTHER_VALUES,
    "check_sample_weights_not_overwritten": OTHER_VALUES,
    "check_estimator_sparse_array": OTHER_VALUES,
    "check_estimator_sparse_matrix": OTHER_VALUES,
    "check_classifier_data_not_an_array": OTHER_VALUES,
    "check_fit2d_1feature": OTHER_VALUES,
    "check_sparsify_coefficients": OTHER_VALUES,
    "check_classifiers_classes": VECTOR,
    "check_classifiers_train": VECTOR,
    "check_class_weight_classifiers": VECTOR,
    "check_decision_proba_consistency": VECTOR,
}


# Few Cs and folds, because some checks have very few rows of a class; the rest is as a user gets it.
ESTIMATORS = [SoftmaxClassifier(), SoftmaxClassifierCV(Cs=3, cv=2), SoftmaxPath()]


@pytest.mark.parametrize(
    ("estimator", "check"),
    [(estimator, check) for estimator in ESTIMATORS for _, check in estimator_checks_generator(estimator)],
    ids=lambda value: getattr(getattr(value, "func", value), "__name__", type(value).__name__),
)
def test_softmax_estimators_follow_scikit_learn(estimator, check):
    check(clone(estimator))


def test_sigmoid_classifier_follows_scikit_learn():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(
            SigmoidClassifier(), expected_failed_checks=LABEL_CHECKS_THAT_DO_NOT_APPLY, on_fail=None
        )
    assert [r["check_name"] for r in results if r["status"] == "failed"] == []
    # A check that would pass must not stay on the list.
    assert {r["check_name"] for r in results if r["status"] == "xfail"} == set(LABEL_CHECKS_THAT_DO_NOT_APPLY)
    assert sum(r["status"] == "passed" for r in results) > 45
