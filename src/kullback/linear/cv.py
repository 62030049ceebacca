"""The strength of the penalty chosen by cross-validation."""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import get_config
from sklearn.metrics import brier_score_loss, get_scorer, make_scorer
from sklearn.model_selection import check_cv
from sklearn.utils.metadata_routing import UNUSED, MetadataRouter, MethodMapping, process_routing

from kullback.errors import InputError, SeparableWarning, TargetError
from kullback.linear.blocks import block_map
from kullback.linear.folds import Examples, Fold, chosen_place, mean_log_probability
from kullback.linear.inputs import check_number
from kullback.linear.interruption import ctrl_c_stops
from kullback.linear.penalties import PenaltyName, resolve_penalty
from kullback.linear.rotation import is_wide, rotate
from kullback.linear.softmax_classifier import ClassWeight, SoftmaxClassifier, penalty_factor
from kullback.linear.solvers import IterationRecord
from kullback.linear.task import Parameters, Run
from kullback.losses import Loss
from kullback.targets import ClassIndices

Index = NDArray[np.int64]
Vector = NDArray[np.float64]

SELECTIONS = ("best", "one-standard-error")


class SoftmaxClassifierCV(SoftmaxClassifier):
    """`SoftmaxClassifier` with the C that predicts held-out rows best.

    Every fold fits the whole path of Cs, from the strongest penalty to the weakest, each fit starting where the one
    before ended; the chosen C is then fitted to all rows. Folds run side by side. Data with many more columns than
    rows is rotated once into as many coordinates as it has rows, for all folds and all Cs.

    Class weights ``"balanced"`` are those of all rows. A class that the training rows of a fold lack gets no
    probability in that fold; its held-out rows count as 36 nats each, the same for every C.

    Args:
        Cs: the values of C, or how many to spread evenly in their logarithm from 1e-4 to 1e4.
        cv: number of stratified folds (None for 5), a splitter of scikit-learn, or an iterable of (train, test) rows.
        scoring: None for minus the mean log loss in nats; else the name of a scorer of scikit-learn, or a function
            (model, X, y) → number, where greater is better. `sample_weight` weighs held-out rows too.
        selection: ``"best"`` for the best mean score; ``"one-standard-error"`` for the strongest penalty whose mean
            score is within one standard error of it.
        refit: fit all rows with the chosen C; otherwise coefficients are the folds' averages at that C.
        n_jobs: how many folds run side by side, at most the threads of `kullback.set_num_threads`; None for as many.
        path_tol: how far fits that are only scored may be from their minimum (the duality gap), as a share of the
            objective without any weights, which is log C for balanced classes. A share of the minimum itself would
            be wasted effort where a weak penalty brings that close to zero.
        keep_coefs: keep every fold's coefficients in `coefs_paths_`.
        penalty: as in `SoftmaxClassifier`, and so is `l1_ratio`.
        loss: as in `SoftmaxClassifier`, and so are `class_weight`, `fit_intercept`, `tol`, `max_iter`, `solver`,
            `recover` and `verbose`.

    Attributes:
        Cs_: (n,) the values tried, ascending.
        C_: the chosen one.
        scores_: (folds, n) held-out scores.
        n_iters_: (folds, n) iterations of each fit.
        coefs_paths_: (folds, n, C, d + 1), the intercept last ((folds, n, 1, d + 1) for two classes), if kept.
        coef_: as in `SoftmaxClassifier`, and so are `intercept_`, `classes_`, `loss_`; and after a refit
            `certificate_`, `converged_`, `history_`, `n_iter_`.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = SoftmaxClassifierCV(Cs=[0.01, 1, 100]).fit(X, y)
    >>> model.C_
    100.0
    >>> int(model.scores_.mean(axis=0).argmax())
    2
    """

    def __init__(
        self,
        Cs: int | ArrayLike = 10,
        *,
        cv: Any = None,
        scoring: str | Callable[..., float] | None = None,
        selection: str = "best",
        refit: bool = True,
        n_jobs: int | None = None,
        penalty: PenaltyName = "l2",
        l1_ratio: float | None = None,
        loss: str | Loss = "cross_entropy",
        class_weight: ClassWeight = None,
        fit_intercept: bool = True,
        tol: float = 1e-6,
        path_tol: float = 1e-4,
        max_iter: int = 1000,
        solver: str = "auto",
        recover: bool = True,
        keep_coefs: bool = False,
        verbose: int = 0,
    ) -> None:
        self.Cs = Cs
        self.cv = cv
        self.scoring = scoring
        self.selection = selection
        self.refit = refit
        self.n_jobs = n_jobs
        self.penalty = penalty
        self.l1_ratio = l1_ratio
        self.loss = loss
        self.class_weight = class_weight
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.path_tol = path_tol
        self.max_iter = max_iter
        self.solver = solver
        self.recover = recover
        self.keep_coefs = keep_coefs
        self.verbose = verbose

    # What one fit has and a search has not.
    warm_start = False
    callback = None
    checkpoint = None

    # The scorer decides what weighs held-out rows; see `get_metadata_routing`.
    __metadata_request__score: ClassVar[dict[str, str]] = {"sample_weight": UNUSED}

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None, **params: Any) -> SoftmaxClassifierCV:
        """Choose C and fit.

        Ctrl-C while folds are fitted raises KeyboardInterrupt at their next step; in the last fit it returns the best
        model so far, as in `SoftmaxClassifier`.

        Args:
            X: (N, d) float32 or float64, dense or sparse.
            y: as in `SoftmaxClassifier.fit`.
            sample_weight: (N,) non-negative, or None for all ones; it weighs held-out rows too, unless scikit-learn's
                metadata routing is on and the scorer does not request it.
            **params: ``groups`` for a splitter that wants them; with metadata routing, whatever the splitter and the
                scorer request.

        Raises:
            InputError: for settings, data or targets that cannot be used; the message names the place.
        """
        split_params, score_params = self._routed("fit", sample_weight, params)
        self._check_search()
        Cs = strengths(self.Cs)
        X, classes, targets, weight, loss = self._prepared(X, y, sample_weight)
        hard = isinstance(targets, ClassIndices)
        if self.scoring not in (None, "neg_log_loss") and not hard:
            raise TargetError("scoring by a scorer needs one label per row; leave scoring=None for soft targets")
        labels = classes[targets.indices] if isinstance(targets, ClassIndices) else np.zeros(X.shape[0])
        splits = list(check_cv(self.cv, labels, classifier=hard).split(X, labels, **split_params))
        _check_splits(splits)
        penalty = resolve_penalty(self.penalty, self.l1_ratio)
        plain = Examples(
            X, targets, weight, loss, len(classes), self.fit_intercept, penalty_factor(len(classes)), penalty
        )
        if "sample_weight" in score_params:
            score_params = {**score_params, "sample_weight": weight}
        scorer = _scorer(self.scoring, classes)
        n_jobs = len(splits) if self.n_jobs is None else min(int(self.n_jobs), len(splits))
        with ctrl_c_stops() as interrupted, block_map(max(2, n_jobs)) as run:
            examples = plain
            if is_wide(X) and penalty.lasso == 0 and np.isfinite(Cs).all() and not callable(self.scoring):
                rotation = rotate(X, centred=self.fit_intercept, run=run)
                examples = plain.with_rows(rotation)

            def follow(record: IterationRecord, parameters: Callable[[], Parameters]) -> None:
                if interrupted():
                    raise KeyboardInterrupt

            def one(split: tuple[Index, Index], inner: Run = map) -> tuple[Vector, list[int], list[Parameters]]:
                train, test = split
                course = Fold(examples, train).path(
                    Cs,
                    tol=float(self.path_tol),
                    max_iter=int(self.max_iter),
                    solver=self.solver,
                    follow=follow,
                    run=inner,
                )
                told = {name: _of_rows(value, test, X.shape[0]) for name, value in score_params.items()}
                scores = [self._score_of(p, examples, test, classes, scorer, told) for p, _ in course]
                if self.verbose:
                    print(f"fold: best score {max(scores):.6f} at C = {Cs[int(np.argmax(scores))]:g}", flush=True)
                return np.array(scores), [n for _, n in course], [parameters for parameters, _ in course]

            folds = list(run(one, splits)) if n_jobs > 1 else [one(split, run) for split in splits]
            scores = np.stack([fold[0] for fold in folds])
            if not np.isfinite(scores).all():
                fold, place = (int(i) for i in np.argwhere(~np.isfinite(scores))[0])
                raise InputError(
                    f"the score of fold {fold} at C = {Cs[place]:g} is {scores[fold, place]}; no C can be chosen by it"
                )
            place = chosen_place(scores, self.selection)
            average = _average([fold[2][place] for fold in folds])
            start = None
            if self.refit and examples.rotation is not None:
                turned = examples.task().solve(
                    float(Cs[place]), tol=float(self.tol), max_iter=int(self.max_iter), start=average, run=run
                )
                average = turned.weights, turned.intercept
            start = examples.to_columns(average)
        self.Cs_, self.C_ = Cs, float(Cs[place])
        self.scores_ = scores
        self.n_iters_ = np.array([fold[1] for fold in folds], dtype=np.int32)
        if self.keep_coefs:
            self.coefs_paths_ = np.stack(
                [np.stack([self._row_form(examples.to_columns(p)) for p in fold[2]]) for fold in folds]
            )
        if not self.refit:
            self._store_parameters(*start)
            self.loss_, self.classes_ = loss, classes
            if np.isinf(self.C_):
                self._warn_of_separated_folds(examples, splits, [fold[2][place] for fold in folds])
            return self
        stored = self._row_form(start)
        self._fit(
            X,
            targets,
            len(classes),
            loss,
            weight,
            penalty_factor=plain.penalty_factor,
            C=self.C_,
            shift_free=True,
            classes=classes,
            init=(stored[:, :-1], stored[:, -1]),
        )
        return self

    def _warn_of_separated_folds(
        self, examples: Examples, splits: list[tuple[Index, Index]], ended: list[Parameters]
    ) -> None:
        """Warn of the first fold whose fit without a penalty has no finite optimum: the average has its weights."""
        for number, ((train, _), parameters) in enumerate(zip(splits, ended, strict=True)):
            finding = Fold(examples, train).separation(parameters)
            if finding.separation is not None:
                told = finding.told(self.classes_.tolist())
                warnings.warn(
                    f"{type(self).__name__}: C=inf was chosen, and in fold {number} {told}. The average over the folds "
                    "has weights that mean nothing; leave C=inf out, or refit.",
                    SeparableWarning,
                    stacklevel=3,
                )
                return

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None, **params: Any) -> float:
        """The score that C was chosen by: minus the mean log loss in nats, or what `scoring` says."""
        _, score_params = self._routed("score", sample_weight, params)
        return float(get_scorer(self.scoring or "neg_log_loss")(self, X, y, **score_params))

    def get_metadata_routing(self) -> MetadataRouter:
        """Scikit-learn's routing: which scorer or splitter gets what `fit` and `score` are given besides X and y.

        The log loss of ``scoring=None`` requests `sample_weight`; every other scorer says for itself.
        """
        scorer = get_scorer(self.scoring or "neg_log_loss")
        if self.scoring is None and get_config()["enable_metadata_routing"]:
            scorer = scorer.set_score_request(sample_weight=True)
        splitting = MethodMapping().add(caller="fit", callee="split")
        scoring = MethodMapping().add(caller="score", callee="score").add(caller="fit", callee="score")
        return (
            MetadataRouter(owner=self)
            .add_self_request(self)
            .add(splitter=check_cv(self.cv, classifier=True), method_mapping=splitting)
            .add(scorer=scorer, method_mapping=scoring)
        )

    def _routed(
        self, method: str, sample_weight: ArrayLike | None, params: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the splitter gets, and what the scorer gets."""
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        if get_config()["enable_metadata_routing"]:
            routed = process_routing(self, method, **weights, **params)
            return dict(routed.splitter.split) if method == "fit" else {}, dict(routed.scorer.score)
        unknown = sorted(set(params) - ({"groups"} if method == "fit" else set()))
        if unknown:
            raise InputError(
                f"{type(self).__name__}.{method} got {', '.join(unknown)}, which is only supported if "
                "enable_metadata_routing=True (sklearn.set_config)"
            )
        return params, weights

    def plot_scores(self, ax: Any = None) -> Any:
        """Draw the held-out scores against C, with their standard errors; returns the matplotlib axes."""
        from kullback.linear.plots import plot_scores

        return plot_scores(self, ax)

    def _check_search(self) -> None:
        self._check_effort()
        check_number("path_tol", self.path_tol, "a finite number above 0", lambda v: 0 < v < math.inf)
        if self.selection not in SELECTIONS:
            raise InputError(f"selection={self.selection!r} is not known; choose one of: {', '.join(SELECTIONS)}")
        if self.n_jobs is not None:
            check_number("n_jobs", self.n_jobs, "a whole number of at least 1, or None", lambda v: v >= 1, integer=True)

    def _row_form(self, parameters: Parameters) -> Vector:
        """Weights (d, C) and intercepts (C,) as rows (C, d + 1), or one row for two classes."""
        weights, intercept = parameters
        rows = np.concatenate([weights.T, intercept[:, None]], axis=1)
        return rows[1:] - rows[:1] if len(rows) == 2 else rows

    def _score_of(
        self,
        parameters: Parameters,
        examples: Examples,
        test: Index,
        classes: NDArray[Any],
        scorer: Any,
        told: dict[str, Any],
    ) -> float:
        weight = told.get("sample_weight")
        if weight is not None and not weight.any():
            raise InputError("a fold's held-out rows all have sample_weight 0; leave such rows out, or use other folds")
        if scorer is None:
            logs = examples.loss.log_probabilities(examples.logits(parameters, test))
            reported = examples.loss.recover_log(logs) if self.recover else logs
            return mean_log_probability(np.asarray(reported), examples.targets[test], weight)
        model = SoftmaxClassifier(recover=self.recover)
        model._store_parameters(*parameters)
        model.classes_, model.loss_ = classes, examples.loss
        model.n_features_in_ = examples.X.shape[1]
        assert isinstance(examples.targets, ClassIndices)
        return float(scorer(model, examples.X[test], classes[examples.targets.indices[test]], **told))


def _of_rows(value: Any, rows: Index, n_rows: int) -> Any:
    """What belongs to some of the rows; anything that is not one value a row, as it is."""
    return np.asarray(value)[rows] if np.ndim(value) and len(value) == n_rows else value


def strengths(Cs: int | ArrayLike) -> Vector:
    """The values of C in ascending order, from a number of them or the values themselves.

    Raises:
        InputError: for no values, values that are not above 0, or the same one twice.
    """
    if isinstance(Cs, numbers.Integral) and not isinstance(Cs, bool):
        check_number("Cs", Cs, "a whole number of at least 1, or the values", lambda v: v >= 1, integer=True)
        return np.logspace(-4, 4, int(Cs))
    try:
        values = np.sort(np.asarray(Cs, dtype=np.float64).ravel())
    except (TypeError, ValueError) as error:
        raise InputError(f"Cs={Cs!r} is neither a number of values nor the values") from error
    if values.size == 0 or isinstance(Cs, float) or not (values > 0).all():
        raise InputError(f"Cs={Cs!r} is not valid; it must be how many values to try, or values above 0")
    if len(np.unique(values)) < len(values):
        raise InputError(f"Cs={Cs!r} names a value twice")
    return values


def _scorer(scoring: Any, classes: NDArray[Any]) -> Any:
    """What scores a fold; None for the log loss, which is computed here."""
    if scoring is None or scoring == "neg_log_loss":
        return None
    if scoring == "neg_brier_score":
        # A fold's held-out rows may lack a class, so the score is told of all.
        known: dict[str, Any] = {"labels": list(classes)}
        if len(classes) == 2:
            known["pos_label"] = classes[1]
        return make_scorer(brier_score_loss, greater_is_better=False, response_method="predict_proba", **known)
    return get_scorer(scoring)


def _check_splits(splits: Iterable[tuple[Index, Index]]) -> None:
    for number, (train, test) in enumerate(splits):
        if len(train) == 0 or len(test) == 0:
            raise InputError(f"fold {number} of cv has {len(train)} training rows and {len(test)} held-out rows")


def _average(parameters: list[Parameters]) -> Parameters:
    weights = np.mean([weights for weights, _ in parameters], axis=0)
    return weights, np.mean([intercept for _, intercept in parameters], axis=0)
