"""Scikit-learn's own tests of `LogisticRegression`, run on `SoftmaxClassifier`.

The installed scikit-learn brings its tests along. Their module is loaded a second time with Kullback's classifiers in
place of the two it tests, behind the constructor that scikit-learn's users know, and its test functions run here.
"""

import importlib.util
import re
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import sklearn.linear_model
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model._base import LinearClassifierMixin
from sklearn.metrics import get_scorer

from kullback import SoftmaxClassifier, SoftmaxClassifierCV

SOLVERS = {"lbfgs": "lbfgs"}  # every other one is "auto"
# How their solvers say that the iterations ran out.
THEIR_WORDS = {
    "lbfgs": "lbfgs failed to converge",
    "liblinear": "Liblinear failed to converge, increase the number of iterations.",
    "newton-cg": "newton-cg failed to converge. Increase the number of iterations.",
    "newton-cholesky": "Newton solver did not converge after 1 iterations",
    "sag": "The max_iter was reached which means the coef_ did not converge",
    "saga": "The max_iter was reached which means the coef_ did not converge",
}


def gap_of(tol):
    """A relative gap for a bound on the gradient: near the optimum the gap is quadratic in the gradient."""
    return max(1e-4 * tol**2, 1e-13)


class AsLogisticRegression(SoftmaxClassifier):
    """`SoftmaxClassifier` behind the constructor of `LogisticRegression`."""

    recover = False
    _predict_proba_lr = LinearClassifierMixin._predict_proba_lr

    def __init__(
        self,
        penalty="deprecated",
        *,
        C=1.0,
        l1_ratio=0.0,
        dual=False,
        tol=1e-4,
        fit_intercept=True,
        intercept_scaling=1,
        class_weight=None,
        random_state=None,
        solver="lbfgs",
        max_iter=100,
        verbose=0,
        warm_start=False,
        n_jobs=None,
    ):
        for name, value in list(locals().items()):
            if name not in ("self", "__class__"):
                setattr(self, name, value)

    def fit(self, X, y, sample_weight=None):
        model = SoftmaxClassifier(
            C=self.C,
            **penalty_of(1.0 if self.penalty == "l1" else self.l1_ratio),
            tol=gap_of(self.tol),
            fit_intercept=self.fit_intercept,
            class_weight=self.class_weight,
            solver="auto" if self.l1_ratio or self.penalty == "l1" else SOLVERS.get(self.solver, "auto"),
            max_iter=self.max_iter,
            verbose=self.verbose,
            warm_start=self.warm_start,
            recover=False,
        )
        hand_over(self, model)
        model.fit(X, y, sample_weight)
        hand_over(model, self)
        if not self.converged_ and self.n_iter_[0] == self.max_iter:
            warnings.warn(THEIR_WORDS.get(self.solver, ""), ConvergenceWarning, stacklevel=2)
        return self


class AsLogisticRegressionCV(SoftmaxClassifierCV):
    """`SoftmaxClassifierCV` behind the constructor of `LogisticRegressionCV`, with the shapes of its attributes."""

    recover = False

    def __init__(
        self,
        *,
        Cs=10,
        l1_ratios="warn",
        fit_intercept=True,
        cv=None,
        dual=False,
        penalty="deprecated",
        scoring="warn",
        solver="lbfgs",
        tol=1e-4,
        max_iter=100,
        class_weight=None,
        n_jobs=None,
        verbose=0,
        refit=True,
        intercept_scaling=1.0,
        random_state=None,
        use_legacy_attributes="warn",
    ):
        for name, value in list(locals().items()):
            if name not in ("self", "__class__"):
                setattr(self, name, value)

    def fit(self, X, y, sample_weight=None, **params):
        scoring = "accuracy" if self.scoring == "warn" else self.scoring
        ratios = [0.0] if isinstance(self.l1_ratios, str) or self.l1_ratios is None else list(self.l1_ratios)
        models = [
            SoftmaxClassifierCV(
                Cs=self.Cs,
                cv=self.cv,
                scoring=scoring,
                fit_intercept=self.fit_intercept,
                class_weight=self.class_weight,
                tol=gap_of(self.tol),
                path_tol=gap_of(self.tol),
                max_iter=10 * self.max_iter,
                refit=self.refit,
                recover=False,
                keep_coefs=True,
                **penalty_of(ratio),
            ).fit(X, y, sample_weight, **params)
            for ratio in ratios
        ]
        place = int(np.argmax([model.scores_.mean(axis=0).max() for model in models]))
        hand_over(models[place], self)
        self.l1_ratio_, self.l1_ratios_ = float(ratios[place]), np.array(ratios)
        self.n_iter_, self.scores_ = (np.stack([getattr(m, n) for m in models], 1) for n in ("n_iters_", "scores_"))
        self.coefs_paths_ = np.stack([m.coefs_paths_ for m in models], 1)
        if not self.fit_intercept:
            self.coefs_paths_ = self.coefs_paths_[..., :-1]
        if self.use_legacy_attributes is not False:
            self._as_before()
        return self

    def _as_before(self):
        """The layout that scikit-learn deprecates: a dictionary of classes, and what is chosen once for each."""
        rows = self.classes_ if len(self.classes_) > 2 else self.classes_[1:]
        one_ratio = isinstance(self.l1_ratios, str) or self.l1_ratios is None
        cut = (lambda array: array[:, :, 0]) if one_ratio else (lambda array: array)
        scores, paths = np.swapaxes(self.scores_, 1, 2), np.swapaxes(self.coefs_paths_, 1, 2)
        self.scores_ = {label: cut(scores) for label in rows}
        self.coefs_paths_ = {label: cut(paths[..., k, :]) for k, label in enumerate(rows)}
        self.n_iter_ = cut(np.swapaxes(self.n_iter_, 1, 2))[None]
        self.C_, self.l1_ratio_ = np.full(len(rows), self.C_), np.full(len(rows), self.l1_ratio_)

    def _get_scorer(self):
        return get_scorer("accuracy" if self.scoring == "warn" else self.scoring)

    def score(self, X, y, sample_weight=None, **params):
        scoring = "accuracy" if self.scoring == "warn" else self.scoring
        with mock.patch.object(self, "scoring", scoring):
            return super().score(X, y, sample_weight, **params)


AsLogisticRegressionCV.__name__ = "LogisticRegressionCV"  # their tests expect it in messages


def penalty_of(l1_ratio):
    """Their share of the L1 norm, in our words."""
    if not l1_ratio:
        return {}
    return {"penalty": "l1"} if l1_ratio == 1 else {"penalty": "elasticnet", "l1_ratio": l1_ratio}


def hand_over(source, sink):
    """Copy what was fitted."""
    for name, value in vars(source).items():
        if name.endswith("_"):
            setattr(sink, name, value)


def load():
    path = Path(sklearn.linear_model.__file__).parent / "tests" / "test_logistic.py"
    if not path.exists():
        pytest.skip("this scikit-learn comes without its tests", allow_module_level=True)
    spec = importlib.util.spec_from_file_location("scikit_learn_test_logistic", path)
    module = importlib.util.module_from_spec(spec)
    with mock.patch.multiple(
        sklearn.linear_model, LogisticRegression=AsLogisticRegression, LogisticRegressionCV=AsLogisticRegressionCV
    ):
        spec.loader.exec_module(module)
    return module


THEIR_SOLVERS = "about the options and failures of scikit-learn's own solvers, which Kullback does not have"
THEIR_HISTORY = "about a deprecated spelling that scikit-learn keeps for its older users"
STAYS_DOUBLE = "coefficients stay float64 for float32 data; test_precisions_agree, beside these, holds the rest"
# Expected failures by a pattern of the test's name. Each must fail: an entry that passes makes the run fail.
EXPECTED = {
    r"test_check_solver_option.*": THEIR_SOLVERS,
    r"test_liblinear_(dual_random_state|multiclass_raises|with_large_values).*": THEIR_SOLVERS,
    r"test_large_sparse_matrix\[.*(liblinear|sag|saga)\]": "expects a refusal of 64-bit indices; Kullback takes them",
    r"test_c_inf_no_warning.*": "its data are separable, so no optimum exists, and Kullback says so",
    r"test_newton_cholesky_fallback_to_lbfgs": THEIR_SOLVERS,
    r"test_warm_start_newton_solver.*": "holds for Newton's method; a quasi-Newton step remembers those before",
    r"test_dtype_match\[.*(lbfgs|newton-cg|newton-cholesky|sag|saga)\]": STAYS_DOUBLE,
    r"test_logistic_regression_callback_.*": "scikit-learn's own callbacks; Kullback's callback= has tests of its own",
    r"test_elasticnet_l1_ratio_err_helpful.*": THEIR_HISTORY,
    r"test_(l1_ratio_None_deprecated|l1_ratio_non_elasticnet)": THEIR_HISTORY,
    r"test_(penalty_deprecated|penalty_none|logisticregression_warns_with_n_jobs).*": THEIR_HISTORY,
    r"test_lr_penalty_l1ratio_incompatible.*": THEIR_HISTORY,
    r"test_(logisticregressioncv_warns_with_use_legacy_attributes|lr_scoring_warns)": THEIR_HISTORY,
    r"test_logistic_cv_multinomial_score\[neg_log_loss.*": "compares with a fit of scikit-learn that stops early",
    r"test_logistic_regression_cv_refit\[42-0\]": "asks for seven digits; a gap of 1e-13 gives six",
    r"test_logistic_regression_array_api_compliance.*": "skipped without SCIPY_ARRAY_API=1; asks for coefficients in "
    "the library and precision of the data, and they stay NumPy's in float64; predictions are in the data's library, "
    "as tests/linear/test_array_library.py says",
}
# Tests that look at nothing of ours.
NOT_OURS = {
    r"test_(consistency_path|logistic_regression_path_).*": "about a private function of scikit-learn, which computes "
    "the coefficients along a path of C; test_path_agrees_with_single_fits_and_scikit_learn in tests/linear/test_cv.py "
    "holds SoftmaxPath to the same",
}
theirs = load()
pytestmark = theirs.pytestmark
globals().update(
    {
        name: v
        for name, v in vars(theirs).items()
        if name.startswith("test_") and not any(re.fullmatch(pattern, name) for pattern in NOT_OURS)
    }
)


@pytest.fixture(params=[42])
def global_random_seed(request):
    return request.param


@pytest.fixture(autouse=True)
def expected_failures(request):
    for pattern, reason in EXPECTED.items():
        if re.fullmatch(pattern, request.node.name):
            request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))


def test_every_expected_failure_names_a_test(request):
    names = [item.name for item in request.session.items if item.path == request.path]
    if len(names) < 500:
        pytest.skip("only some of the tests were selected")
    for pattern in EXPECTED:
        assert any(re.fullmatch(pattern, name) for name in names), pattern


def test_the_docs_list_every_exception():
    page = (Path(__file__).parents[2] / "docs" / "scikit-learn.md").read_text(encoding="utf-8")
    rows = [line for line in page.split("<!-- exceptions -->")[1].splitlines() if line.startswith("| `")]
    listed = {**EXPECTED, **NOT_OURS}
    assert rows == [f"| `{shown(pattern)}` | {reason} |" for pattern, reason in listed.items()]
    for pattern in NOT_OURS:
        assert any(re.fullmatch(pattern, name) for name in vars(theirs)), pattern


def shown(pattern):
    """A pattern as a reader of a table reads it."""
    return re.sub(r"\\(.)", r"\1", pattern).replace(".*", "…").replace("|", " / ")


@pytest.mark.parametrize("max_iter", [1, 2, 3, 4])
def test_iterations_are_kept(max_iter):
    X, y = theirs.iris.data, theirs.iris.target == 1
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        model = AsLogisticRegression(max_iter=max_iter, tol=1e-15).fit(X, y)
    assert model.n_iter_[0] == max_iter


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array])
def test_precisions_agree(make):
    X, y = make(np.array(theirs.X, dtype=np.float64)), theirs.Y1
    double = AsLogisticRegression().fit(X, y)
    single = AsLogisticRegression().fit(X.astype(np.float32), y)
    np.testing.assert_allclose(single.coef_, double.coef_, atol=1e-6)
    assert single.decision_function(X.astype(np.float32)).dtype == np.float32
