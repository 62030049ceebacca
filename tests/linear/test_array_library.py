"""Answers in the library that the data came from, in a process of its own: SciPy reads its setting once."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import importlib
import sys

import numpy as np
from sklearn import config_context
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kullback import SigmoidClassifier, SoftmaxClassifier, SoftmaxClassifierCV, SoftmaxPath

library = importlib.import_module(sys.argv[1])
X, y = load_iris(return_X_y=True)
names = np.array(["setosa", "versicolor", "virginica"])[y]
given, labels, weight = library.asarray(X), library.asarray(y), library.asarray(np.arange(150.0))
own = type(given)
ASKED = ("logits", "decision_function", "predict", "predict_proba", "predict_log_proba")
for model in (SoftmaxClassifier(), SoftmaxClassifierCV(2, cv=2), SoftmaxPath([1])):
    plain = model.fit(X, y, np.arange(150.0))
    expected = {name: getattr(plain, name)(X) for name in ASKED}, plain.score(X, y), plain.coef_
    with config_context(array_api_dispatch=True):
        model.fit(given, labels, weight)
        for name in ASKED:
            answer = getattr(model, name)(given)
            assert type(answer) is own, (type(model), name, type(answer))
            assert answer.device == given.device
            np.testing.assert_array_equal(np.asarray(answer), expected[0][name])
            assert type(getattr(model, name)(X)) is np.ndarray
        scores = model.score(given, labels), model.score(X, labels), model.score(given, y)
        np.testing.assert_allclose(scores, expected[1], rtol=1e-12)
        assert type(model.coef_) is np.ndarray
        np.testing.assert_array_equal(model.coef_, expected[2])
        model.fit(given, names)
        assert type(model.predict(given)) is np.ndarray  # strings
        assert np.mean(model.predict(given) == names) > 0.9
        soft = library.asarray(np.eye(3)[y])
        np.testing.assert_allclose(model.fit(given, soft).score(given, soft), model.score(X, np.eye(3)[y]))
    assert type(model.fit(given, labels).predict_proba(given)) is np.ndarray  # not asked for
with config_context(array_api_dispatch=True):
    several = SigmoidClassifier().fit(given, library.asarray(np.eye(3)[y]))
    for name in ASKED:
        assert type(getattr(several, name)(given)) is own
    chain = make_pipeline(StandardScaler(), SoftmaxClassifier()).fit(given, labels)
    assert type(chain.predict(given)) is own
    assert cross_val_score(SoftmaxClassifier(), given, labels, cv=3).min() > 0.9
"""


@pytest.mark.parametrize("library", ["torch", "array_api_strict"])
def test_answers_are_of_the_datas_library(library):
    pytest.importorskip(library)
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, library],
        capture_output=True,
        text=True,
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
    )
    assert run.returncode == 0, run.stderr
