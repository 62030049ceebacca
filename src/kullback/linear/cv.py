"""The strength of the penalty chosen by cross-validation."""

from __future__ import annotations

import dataclasses
import math
import numbers
import threading
import warnings
from collections.abc import Callable
from itertools import chain
from os import PathLike
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import get_config
from sklearn.model_selection import check_cv
from sklearn.utils.metadata_routing import UNUSED, MetadataRouter, MethodMapping, process_routing
from sklearn.utils.validation import check_is_fitted

from kullback.errors import InputError, SeparableWarning, TargetError
from kullback.kernels.threads import get_num_threads
from kullback.linear.blocks import block_map
from kullback.linear.checkpoint import fingerprint
from kullback.linear.course import Course
from kullback.linear.estimator import FitNotConvergedWarning
from kullback.linear.folds import Examples, Fold, chosen_place, finished_part
from kullback.linear.held_out import (
    LOG_LOSS,
    HeldOut,
    checked_scorer,
    default_score,
    find_scorer,
    has_probabilities,
)
from kullback.linear.inputs import LEAST_C, as_numpy, check_number, check_switch, checked_weight, shortened
from kullback.linear.interruption import CALLBACK, CTRL_C, INTERRUPTIONS, ctrl_c_stops
from kullback.linear.path_point import PathPoint
from kullback.linear.penalties import PenaltyName, resolve_searched_penalty, weight_rows
from kullback.linear.progress import Silent, shown
from kullback.linear.raw_fit import Follow, Parameters, Run
from kullback.linear.rotation import is_wide, rotate
from kullback.linear.search_checkpoint import SearchCheckpoint
from kullback.linear.separation import Finding
from kullback.linear.soft_rows import wrapped_targets
from kullback.linear.soft_scores import KnownLogits, expected_score, of_scikit_learn, scored
from kullback.linear.softmax_classifier import ClassWeight, SoftmaxClassifier, penalty_factor
from kullback.linear.solvers import IterationRecord
from kullback.losses import Loss
from kullback.targets import ClassIndices, ClassTargets

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
        scoring: None for minus the mean log loss in nats (of a loss that has no probabilities, a hinge: minus the
            mean loss); else the name of a scorer of scikit-learn, or a function (model, X, y) → number, where greater
            is better. `sample_weight` weighs held-out rows too. Of soft targets a scorer of scikit-learn scores every
            class of a row, weighted with its share; a function is given the rows (n, C) as y.
        selection: ``"best"`` for the best mean score; ``"one-standard-error"`` for the strongest penalty whose mean
            score is within one standard error of it.
        refit: fit all rows with the chosen C; otherwise coefficients are the folds' averages at that C.
        n_jobs: how many folds run side by side, at most the threads of `kullback.set_num_threads`; None or -1 for as
            many (None for one after another if `scoring` is a function), -2 for one less, and so on.
        path_tol: how far fits that are only scored may be from their minimum (the duality gap), as a share of the
            objective without any weights, which is log C for balanced classes. A share of the minimum itself would
            be wasted effort where a weak penalty brings that close to zero.
        keep_coefs: keep every fold's coefficients in `coefs_paths_`.
        penalty: as in `SoftmaxClassifier`, and so is `l1_ratio`.
        loss: as in `SoftmaxClassifier`, and so are `class_weight`, `fit_intercept`, `tol`, `max_iter`, `solver`,
            and `recover`.
        callback: called after every iteration of every fit with its `IterationRecord`, one call at a time. If it raises
            StopIteration, the search ends there, as after Ctrl-C.
        verbose: 1 for a bar on a terminal, elsewhere a line per fold; 2 for a line per fit and per iteration too.
        checkpoint: a file that holds the fits that are done, written anew every few seconds. If it is there when a
            search over the same data, folds and settings begins, that goes on from it; it is deleted at the end. The
            fits that were left need not take the same steps then: they agree to `path_tol`, not to the last digit.

    The first Ctrl-C ends the search at its next step. C is then chosen among those Cs and folds whose fits are done
    (`finished_part` says which); the coefficients are the average of those folds' at that C, without a fit to all
    rows, and a warning says how far that is from the optimum. If no fit is done yet, KeyboardInterrupt is raised, as it
    is by a second Ctrl-C. In the last fit, to all rows, Ctrl-C returns the best model so far.

    Attributes:
        Cs_: (n,) the values tried, ascending.
        C_: the chosen one.
        scores_: (folds, n) held-out scores; NaN where an interrupted search has none, and so in `gaps_`.
        gaps_: (folds, n) how far each fit may be from its minimum (the duality gap), in the unit of `path_tol`, which
            is compared with an estimate that costs less, and may be exceeded; inf where a loss has no gap, and the
            gradient ended the fit.
        n_iters_: (folds, n) iterations of each fit.
        coefs_paths_: (folds, n, C, d + 1), the intercept last ((folds, n, 1, d + 1) for two classes), if kept.
        coef_: as in `SoftmaxClassifier`, and so are `intercept_`, `classes_`, `loss_`; and after a refit
            `certificate_`, `history_`, `solver_`, `solver_reason_`.
        converged_: whether the last fit did; with ``refit=False``, whether every fold's at the chosen C did.
        interrupted_: whether Ctrl-C or the callback ended the search or its last fit.
        n_iter_: (1,) iterations of the last fit; with ``refit=False`` (folds,) of each fold's at the chosen C.

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
        penalty: PenaltyName | None = "l2",
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
        callback: Callable[[IterationRecord], object] | None = None,
        verbose: int = 0,
        checkpoint: str | PathLike[str] | None = None,
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
        self.callback = callback
        self.verbose = verbose
        self.checkpoint = checkpoint

    # What one fit has and a search has not.
    warm_start = False
    _going_on = "fit again, with checkpoint= to go on from the fits that are done"

    # The scorer decides what weighs held-out rows; see `get_metadata_routing`.
    __metadata_request__score: ClassVar[dict[str, str]] = {"sample_weight": UNUSED}

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None, **params: Any) -> SoftmaxClassifierCV:
        """Choose C and fit.

        Args:
            X: (N, d) float32 or float64, dense or sparse.
            y: as in `SoftmaxClassifier.fit`.
            sample_weight: (N,) non-negative, or None for all ones; it weighs held-out rows too, unless scikit-learn's
                metadata routing is on and the scorer does not request it.
            **params: ``groups`` for a splitter that wants them; with metadata routing, whatever the splitter and the
                scorer request.

        Raises:
            InputError: for settings, data or targets that cannot be used; the message names the place.
            KeyboardInterrupt: at Ctrl-C before any fit is done.

        Warns:
            NotConvergedWarning: once for all fits of folds that fell short of `path_tol`, and once if the last fit
                fell short of `tol`.
        """
        split_params, score_params = self._routed("fit", sample_weight, params)
        self._check_search()
        Cs = strengths(self.Cs)
        X, classes, targets, weight, loss = self._prepared(X, y, sample_weight)
        splits = self._splits(X, targets, classes, split_params)
        penalty = resolve_searched_penalty(self.penalty, self.l1_ratio)
        plain = Examples(
            X, targets, weight, loss, len(classes), self.fit_intercept, penalty_factor(len(classes)), penalty
        )
        if "sample_weight" in score_params:
            score_params = {**score_params, "sample_weight": weight}
        checkpoint = self._search_checkpoint(
            X, targets, loss, weight, Cs=Cs, folds=fingerprint(*chain(*splits)), scoring=_named(self.scoring)
        )
        # A function may keep a state of its own, so by default it is called in order.
        n_jobs = 1 if self.n_jobs is None and callable(self.scoring) else min(_jobs(self.n_jobs), len(splits))
        with (
            ctrl_c_stops() as pressed,
            block_map(max(2, n_jobs if n_jobs > 1 else get_num_threads())) as run,
            shown(int(self.verbose), float(self.path_tol), len(splits) * len(Cs)) as show,
        ):
            examples = plain
            if is_wide(X) and penalty.lasso == 0 and np.isfinite(Cs).all() and not callable(self.scoring):
                examples = plain.with_rows(rotate(X, centred=self.fit_intercept, run=run))
                show.line(f"folds are fitted in {examples.X.shape[1]} coordinates of the {X.shape[0]} rows")
            search = _Search(
                self,
                examples,
                splits,
                Cs,
                HeldOut(examples, classes, self.scoring, recover=self.recover, told=score_params),
                checkpoint,
                pressed,
                show,
            )
            numbers = range(len(splits))
            folds = list(run(search.fold, numbers)) if n_jobs > 1 else [search.fold(number, run) for number in numbers]
            ended, (used, n_used) = search.ended, ([*numbers], len(Cs))
            if ended:
                used, n_used = finished_part([len(fold) for fold in folds])
            if not n_used:
                if ended == CALLBACK:
                    raise InputError("the callback ended the search before any fit was done, so no C can be chosen")
                raise KeyboardInterrupt("before any fit was done, so no C can be chosen")
            scores = _table(folds, len(Cs), lambda point: point.score)
            place = chosen_place(scores[used, :n_used], self.selection)
            average = _average([(folds[n][place].weights, folds[n][place].intercept) for n in used])
            if self.refit and not ended and examples.rotation is not None:
                following = self._following(Course([]), search.interrupted, show, of="all rows: ")
                turned = examples.task().solve(
                    float(Cs[place]),
                    tol=float(self.tol),
                    max_iter=int(self.max_iter),
                    start=average,
                    follow=following,
                    run=run,
                )
                average = turned.weights, turned.intercept
                ended = turned.result.reason if turned.result.reason in INTERRUPTIONS else ""
            start = examples.to_columns(average)
        self.Cs_, self.C_ = Cs, float(Cs[place])
        self.scores_ = scores
        self.gaps_ = _table(folds, len(Cs), lambda point: point.share)
        self.n_iters_ = np.array([[p.n_iter for p in f] + [0] * (len(Cs) - len(f)) for f in folds], dtype=np.int32)
        if self.keep_coefs:
            rows = [
                [self._row_form(examples.to_columns((point.weights, point.intercept)), loss) for point in fold]
                for fold in folds
            ]
            missing = np.full_like(next(row for fold in rows for row in fold), np.nan)
            self.coefs_paths_ = np.stack([np.stack(fold + [missing] * (len(Cs) - len(fold))) for fold in rows])
        self._warn_of_folds(folds)
        chosen = f": C was chosen from {n_used} of {len(Cs)} Cs by {len(used)} of {len(splits)} folds" if ended else ""
        self.classes_, self.loss_ = classes, loss
        if not self.refit:
            self._store_parameters(*start, loss)
            at = [folds[number][place] for number in used]
            self.n_iter_ = np.array([point.n_iter for point in at], dtype=np.int32)
            self.converged_, self.interrupted_ = all(point.converged for point in at) and not ended, bool(ended)
            if ended:
                warnings.warn(f"{type(self).__name__}: {ended}{chosen}.", FitNotConvergedWarning, stacklevel=2)
            elif np.isinf(self.C_):
                self._warn_of_separated_folds(search, at)
        else:
            stored = self._row_form(start, loss)
            self._fit(
                X,
                targets,
                len(classes),
                loss,
                weight,
                penalty_factor=plain.penalty_factor,
                C=self.C_,
                classes=classes,
                init=(stored[:, :-1], stored[:, -1]),
                ended=ended,
                of=chosen,
                kept=False,
            )
        if checkpoint is not None:
            checkpoint.finish(done=not self.interrupted_)
        return self

    def _warn_of_separated_folds(self, search: _Search, ended: list[PathPoint]) -> None:
        """Warn of the first fold whose fit without a penalty has no finite optimum: the average has its weights."""
        for number, point in enumerate(ended):
            finding = search.separation(number, point)
            if finding.separation is not None:
                told = finding.told(self.classes_.tolist())
                warnings.warn(
                    f"{type(self).__name__}: C=inf was chosen, and in fold {number} {told}. The average over the folds "
                    "has weights that mean nothing; leave C=inf out, or refit.",
                    SeparableWarning,
                    stacklevel=3,
                )
                return

    def _splits(
        self, X: Any, targets: ClassTargets, classes: NDArray[Any], params: dict[str, Any]
    ) -> list[tuple[Index, Index]]:
        """The rows of every fold, checked."""
        hard = isinstance(targets, ClassIndices)
        labels = classes[targets.indices] if isinstance(targets, ClassIndices) else np.zeros(X.shape[0])
        if isinstance(self.cv, numbers.Integral):
            check_number("cv", self.cv, "a number of folds of at least 2", lambda v: v >= 2, integer=True)
        try:
            splitter = check_cv(self.cv, labels, classifier=hard)
        except ValueError as error:
            raise InputError(
                f"cv={self.cv!r} is not valid; it must be a number of folds, a splitter of scikit-learn, or an "
                "iterable of (train, test) rows"
            ) from error
        try:
            splits = [(train, test) for train, test in splitter.split(X, labels, **params)]
        except (TypeError, ValueError) as error:
            raise InputError(
                f"cv={shortened(self.cv)} cannot split these {X.shape[0]} rows: {error}; what cv gives must be pairs "
                "(train, test) of row numbers, and groups go to fit(X, y, groups=...)"
            ) from error
        if not splits:
            raise InputError(f"cv={shortened(self.cv)} gives no folds; it must give at least one pair (train, test)")
        return [
            (_rows_of(train, number, "training", X.shape[0]), _rows_of(test, number, "held-out", X.shape[0]))
            for number, (train, test) in enumerate(splits)
        ]

    def _warn_of_folds(self, folds: list[list[PathPoint]]) -> None:
        """Say once how many fits fell short, and by how much at most."""
        points = [point for fold in folds for point in fold]
        short = [point for point in points if not point.converged]
        if not short:
            return
        reasons = ", ".join(sorted({point.ended for point in short}))
        worst = max(point.share for point in short)
        gap = f"the largest gap is {worst:.3g}" if math.isfinite(worst) else "no gap is known for some"
        warnings.warn(
            f"{type(self).__name__}: {len(short)} of the {len(points)} fits of folds did not come within "
            f"path_tol={self.path_tol:g}: {reasons}; {gap} (see gaps_). Their scores are those of unfinished models. "
            "What helps: raise max_iter, raise path_tol or leave out the weakest penalties.",
            FitNotConvergedWarning,
            stacklevel=3,
        )

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None, **params: Any) -> float:
        """The score that C was chosen by: minus the mean log loss in nats, or what `scoring` says.

        Soft targets have a log loss (a cross-entropy) as labels have. A scorer of scikit-learn scores every class of
        a row, weighted with its share: the accuracy, say, to expect of labels drawn from the rows.
        """
        _, score_params = self._routed("score", sample_weight, params)
        check_is_fitted(self)
        X, y, targets = as_numpy(X, "X"), as_numpy(y, "y"), wrapped_targets(y)
        probable = has_probabilities(self.loss_, len(self.classes_), recover=self.recover)
        if targets is None and (probable or self.scoring is not None):
            return float(checked_scorer(self.scoring or LOG_LOSS)(self, X, y, **score_params))
        if targets is not None and self.scoring not in (None, LOG_LOSS):
            return self._scored(X, targets, score_params)
        logits = self.logits(X)
        targets = self._known(y) if targets is None else targets
        self._mass(targets, len(logits))
        weight = checked_weight(score_params.get("sample_weight"), len(logits))
        return default_score(self.loss_, logits.astype(np.float64), targets, weight, self.recover, by_loss=not probable)

    def _scored(self, X: Any, targets: ClassTargets, told: dict[str, Any]) -> float:
        """What the scorer says of wrapped or soft targets."""
        scorer = find_scorer(self.scoring, self.classes_)
        if isinstance(targets, ClassIndices):
            self._mass(targets, len(targets))
            return scored(scorer, self.scoring, self, X, self.classes_[targets.indices], **told)
        logits = self.logits(X)
        mass = self._mass(targets, len(logits))
        if not of_scikit_learn(scorer):
            return scored(scorer, self.scoring, self, X, mass, **told)
        weight = checked_weight(told.pop("sample_weight", None), len(logits))
        answers = KnownLogits().know(logits, self.classes_, self.loss_, recover=self.recover)
        return expected_score(scorer, self.scoring, answers, mass, weight, **told)

    def _known(self, y: Any) -> ClassIndices:
        """Labels by their places among the classes."""
        labels = np.asarray(y)
        places = np.searchsorted(self.classes_, labels)
        places[places == len(self.classes_)] = 0
        wrong = np.flatnonzero(self.classes_[places] != labels)
        if len(wrong):
            raise TargetError(f"row {wrong[0]}: the label {labels[wrong[:1]].tolist()[0]!r} is none of classes_")
        return ClassIndices(places)

    def get_metadata_routing(self) -> MetadataRouter:
        """Scikit-learn's routing: which scorer or splitter gets what `fit` and `score` are given besides X and y.

        The log loss of ``scoring=None`` requests `sample_weight`; every other scorer says for itself.
        """
        scorer = checked_scorer(self.scoring or LOG_LOSS)
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
        starts = sorted({"coef_init", "intercept_init"} & set(params))
        if starts:
            raise InputError(
                f"{type(self).__name__} takes no {' or '.join(starts)}: each fit starts where the one before it "
                "ended; SoftmaxClassifier takes them"
            )
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
        for name in ("refit", "keep_coefs"):
            check_switch(name, getattr(self, name))
        if self.n_jobs is not None:
            valid = "a whole number other than 0, or None"
            check_number("n_jobs", self.n_jobs, valid, lambda v: v != 0, integer=True)

    def _row_form(self, parameters: Parameters, loss: Loss) -> Vector:
        """Weights (d, C) and intercepts (C,) as rows (C, d + 1), or as one row where models store one."""
        weights, intercept = parameters
        rows = np.concatenate([weights.T, intercept[:, None]], axis=1)
        return rows[1:] - rows[:1] if weight_rows(loss, len(rows)) < len(rows) else rows


class _Search:
    """The fits of all folds, which may run on several threads at once."""

    def __init__(
        self,
        model: SoftmaxClassifierCV,
        examples: Examples,
        splits: list[tuple[Index, Index]],
        Cs: Vector,
        held_out: HeldOut,
        checkpoint: SearchCheckpoint | None,
        pressed: Callable[[], bool],
        show: Silent,
    ) -> None:
        self._model, self._examples, self._splits, self._Cs = model, examples, splits, Cs
        self._held_out, self._checkpoint, self._pressed, self._show = held_out, checkpoint, pressed, show
        self._lock, self.ended = threading.Lock(), ""

    def interrupted(self) -> bool:
        """Whether all fits are to end."""
        return bool(self.ended) or self._pressed()

    def fold(self, number: int, run: Run = map) -> list[PathPoint]:
        """The fits of one fold that are done, with their scores and the parameters of all classes."""
        points: list[PathPoint] = []
        if self.interrupted():
            self.ended = self.ended or CTRL_C
            return points
        (train, test), model = self._splits[number], self._model
        fold = Fold(
            self._examples, train, n_fits=len(self._Cs)
        )  # holds a copy of its rows, and is gone when they are fitted
        done = [] if self._checkpoint is None else self._checkpoint.of_fold(number)
        name = f"fold {number + 1} of {len(self._splits)}"

        def follow(course: Course) -> Follow:
            C = self._Cs[len(points)]
            followed = model._following(course, self.interrupted, self._show, of=f"{name}, C = {C:g}: ")

            def one_at_a_time(record: IterationRecord, parameters: Callable[[], Parameters]) -> None:
                with self._lock:
                    followed(record, parameters)

            return one_at_a_time

        path = fold.path(
            self._Cs,
            tol=float(model.path_tol),
            max_iter=int(model.max_iter),
            solver=model.solver,
            follow=follow,
            run=run,
            done=done,
        )
        for place, point in enumerate(path):
            if point.ended in INTERRUPTIONS:
                self.ended = self.ended or point.ended
                return points
            weights, intercept = fold.widened(point)
            if place >= len(done):
                score = self._held_out.score((weights, intercept), test)
                if not math.isfinite(score):
                    raise InputError(
                        f"the score of fold {number} at C = {self._Cs[place]:g} is {score}; no C can be chosen by it"
                    )
                point = dataclasses.replace(point, score=score)
                if self._checkpoint is not None:
                    self._checkpoint.add(number, place, point)
            points.append(dataclasses.replace(point, weights=weights, intercept=intercept))
            told = f"score {point.score:.6f}  gap {point.share:.2e}"
            self._show.fitted(f"{name}, C = {self._Cs[place]:g}: {told}", minor=True)
        best = max(range(len(points)), key=lambda at: points[at].score)
        self._show.line(
            f"{name}: best score {points[best].score:.6f} at C = {self._Cs[best]:g}, "
            f"largest gap {max(point.share for point in points):.2e}, by {points[-1].solver}"
        )
        return points

    def separation(self, number: int, point: PathPoint) -> Finding:
        """What separates the training rows of a fold."""
        return Fold(self._examples, self._splits[number][0]).separation((point.weights, point.intercept))


def _rows_of(given: Any, number: int, part: str, n_rows: int) -> Index:
    """Row numbers of one side of a fold, from numbers or a mask."""
    rows = np.asarray(given)
    if rows.dtype == np.bool_ and rows.shape == (n_rows,):
        rows = np.flatnonzero(rows)
    if rows.ndim == 1 and rows.size == 0:
        raise InputError(f"fold {number} of cv has 0 {part} rows; every fold needs some")
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise InputError(
            f"fold {number} of cv has {part} rows {shortened(given)}; they must be whole numbers (n,), or a mask of "
            f"{n_rows} True and False"
        )
    wrong = (rows < -n_rows) | (rows >= n_rows)
    if wrong.any():
        raise InputError(f"fold {number} of cv has {part} row {rows[wrong][0]}, but X has the rows 0 to {n_rows - 1}")
    return rows.astype(np.int64, copy=False)


def _jobs(n_jobs: int | None) -> int:
    """How many folds run side by side; negative numbers count down from all threads, as in scikit-learn."""
    threads = get_num_threads()
    if n_jobs is None:
        return threads
    return int(n_jobs) if n_jobs > 0 else max(1, threads + 1 + int(n_jobs))


def _named(scoring: Any) -> str:
    """What a scorer is called from one run of a program to the next."""
    return f"{scoring.__module__}.{scoring.__qualname__}" if hasattr(scoring, "__qualname__") else repr(scoring)


def _table(folds: list[list[PathPoint]], n_Cs: int, value: Callable[[PathPoint], float]) -> Vector:
    """(folds, Cs) of something, NaN where there is no fit."""
    return np.array([[value(point) for point in fold] + [math.nan] * (n_Cs - len(fold)) for fold in folds])


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
        raise InputError(f"Cs={shortened(Cs)} is neither a number of values nor the values") from error
    if values.size == 0 or isinstance(Cs, float) or not (values >= LEAST_C).all():
        raise InputError(
            f"Cs={shortened(Cs)} is not valid; it must be how many values to try, or values above 0 (at least 1e-300)"
        )
    if len(np.unique(values)) < len(values):
        raise InputError(f"Cs={shortened(Cs)} names a value twice")
    return values


def _average(parameters: list[Parameters]) -> Parameters:
    weights = np.mean([weights for weights, _ in parameters], axis=0)
    return weights, np.mean([intercept for _, intercept in parameters], axis=0)
