"""What both linear classifiers share: checked input, the fit itself, and logits of new rows."""

from __future__ import annotations

import dataclasses
import math
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.validation import check_is_fitted, validate_data

from kullback.errors import DataError, InputError, NotConvergedWarning, SeparableWarning, TargetError
from kullback.kernels.recipe import Array
from kullback.linear.array_library import answers_in_kind
from kullback.linear.blocks import block_map
from kullback.linear.certificate import Certificate
from kullback.linear.checkpoint import Checkpoint, State, fingerprint, targets_fingerprint
from kullback.linear.course import Course
from kullback.linear.design import as_design
from kullback.linear.inputs import (
    LEAST_C,
    VALID_C,
    as_numpy,
    check_labels,
    check_number,
    check_switch,
    check_table,
    dense,
    sound_sparse,
    start_from,
    where_not_a_number,
)
from kullback.linear.interruption import CALLBACK, CTRL_C, INTERRUPTIONS, Stopped, ctrl_c_stops
from kullback.linear.kinks import has_kinks
from kullback.linear.path_point import PathPoint
from kullback.linear.penalties import resolve_penalty, weight_rows
from kullback.linear.progress import Silent, shown
from kullback.linear.raw_fit import Follow
from kullback.linear.search_checkpoint import SearchCheckpoint
from kullback.linear.separation import Finding
from kullback.linear.solvers import IterationRecord, SolverResult, find_solver
from kullback.linear.task import FitTask
from kullback.losses import CATALOGUE, Loss, parse_loss
from kullback.losses.penalties import Penalty as ScorePenalty
from kullback.targets import Targets

Vector: TypeAlias = NDArray[np.float64]


class FitNotConvergedWarning(NotConvergedWarning, ConvergenceWarning):
    """`NotConvergedWarning` that is also scikit-learn's, so that filters written for either catch it."""


class LinearEstimator(BaseEstimator):
    """Settings, fitting and logits; `SoftmaxClassifier` and `SigmoidClassifier` add their targets and outputs."""

    # What to say of targets with several columns.
    _rows_of_y = ""
    # How to go on after an interruption.
    _going_on = "fit again with warm_start=True, with the same checkpoint= or from coef_init= to go on"

    # Set by the subclasses' constructors, as scikit-learn requires.
    C: float
    penalty: str | None = "l2"
    l1_ratio: float | None = None
    loss: str | Loss
    class_weight: Any
    fit_intercept: bool
    tol: float
    max_iter: int
    solver: str
    warm_start: bool
    recover: bool
    callback: Any
    verbose: int
    checkpoint: Any

    classes_: NDArray[Any]
    coef_: Any  # an array, or a sparse matrix after `sparsify`
    intercept_: Vector
    loss_: Loss
    n_features_in_: int
    n_iter_: NDArray[np.int32]
    converged_: bool
    interrupted_: bool
    history_: list[IterationRecord]
    certificate_: Certificate
    solver_: str
    solver_reason_: str

    @answers_in_kind
    def logits(self, X: Any) -> Array:
        """Raw scores (N, C), float32 for float32 input and float64 otherwise.

        Args:
            X: (N, d) dense or sparse.

        Raises:
            InputError: for input that does not match the fitted columns, or holds NaN or inf.
        """
        check_is_fitted(self)
        X = self._checked(X, reset=False)
        sparsified: bool = sparse.issparse(self.coef_)
        if sparsified:
            out = np.asarray(safe_sparse_dot(X, self.coef_.T.astype(X.dtype), dense_output=True))
        else:
            design = as_design(X)
            out = np.empty((design.shape[0], len(self.coef_)), dtype=design.dtype)
            weights = np.ascontiguousarray(self.coef_.T, dtype=design.dtype)
            for block in design.blocks(out.shape[1]):
                design.rows(block).forward(weights, out[block])
        out += self.intercept_.astype(out.dtype)
        return self._spread(out)

    def sparsify(self) -> Self:
        """Turn `coef_` into a sparse matrix, which saves memory where most weights are exactly zero."""
        check_is_fitted(self)
        self.coef_ = sparse.csr_array(self.coef_)
        return self

    def densify(self) -> Self:
        """Turn `coef_` back into an array."""
        check_is_fitted(self)
        self.coef_ = dense(self.coef_)
        return self

    def _spread(self, products: Array) -> Array:
        """Logits (N, C) from products with the rows of `coef_`."""
        return products

    def _output_parameters(self, coef: Vector, intercept: Vector) -> tuple[Vector, Vector]:
        """Weights (d, C) and intercepts (C,) of the logits, from arrays shaped as `coef_` and `intercept_`."""
        return coef.T, intercept

    def _store_parameters(self, weights: Vector, intercept: Vector, loss: Loss) -> None:
        """Set `coef_` and `intercept_` from weights (d, C) and intercepts (C,)."""
        if weight_rows(loss, len(intercept)) < len(intercept):
            weights, intercept = weights[:, 1:] - weights[:, :1], intercept[1:] - intercept[:1]
        self.coef_, self.intercept_ = np.ascontiguousarray(weights.T), intercept

    def _probabilities(self, logits: Array) -> Vector:
        reported = np.asarray(self.loss_.probabilities(logits.astype(np.float64, copy=False)))
        return self.loss_.recover(reported) if self.recover else reported

    def _log_probabilities(self, logits: Array) -> Vector:
        reported = np.asarray(self.loss_.log_probabilities(logits.astype(np.float64, copy=False)))
        return self.loss_.recover_log(reported) if self.recover else reported

    # ------------------------------------------------------------ input

    def _check_settings(self) -> None:
        check_switch("warm_start", self.warm_start)
        check_number("C", self.C, VALID_C, lambda v: v >= LEAST_C)
        self._check_effort()

    def _check_effort(self) -> None:
        """What a single fit and a search over penalties have in common."""
        check_switch("recover", self.recover)
        if self.checkpoint is not None and not isinstance(self.checkpoint, str | os.PathLike):
            raise InputError(f"checkpoint={self.checkpoint!r} is not the path of a file")
        if self.callback is not None and not callable(self.callback):
            raise InputError(f"callback={self.callback!r} cannot be called; pass a function of one IterationRecord")
        check_switch("fit_intercept", self.fit_intercept)
        check_number(
            "verbose",
            int(self.verbose) if isinstance(self.verbose, bool) else self.verbose,
            "a whole number of at least 0",
            lambda v: v >= 0,
            integer=True,
        )
        check_number("tol", self.tol, "a finite number above 0", lambda v: 0 < v < math.inf)
        check_number("max_iter", self.max_iter, "a whole number of at least 0", lambda v: v >= 0, integer=True)
        penalty = resolve_penalty(self.penalty, self.l1_ratio)
        if self.solver != "auto":
            find_solver(self.solver)
            if penalty.lasso:
                raise InputError(
                    f"solver={self.solver!r} needs a smooth penalty, and penalty={self.penalty!r} has a kink at zero; "
                    "leave solver='auto'"
                )

    def _resolved_loss(self, target_form: str) -> Loss:
        loss = parse_loss(self.loss)
        if loss.target_form != target_form:
            fitting = [
                name
                for name, kind in CATALOGUE.items()
                if kind.target_form == target_form
                and kind.link not in _NOT_LOGITS
                and not issubclass(kind, ScorePenalty)
            ]
            raise InputError(
                f"{type(self).__name__} needs a loss over {_FORMS[target_form]}, but {loss.name} is over "
                f"{_FORMS[loss.target_form]}; choose one of: {', '.join(fitting)}"
            )
        if loss.link in _NOT_LOGITS:
            raise InputError(
                f"{type(self).__name__} makes logits, but {loss.name} takes {_NOT_LOGITS[loss.link]}; use "
                "'cross_entropy', which is the same loss on logits, and exact where a softmax saturates"
            )
        if self.solver != "auto" and has_kinks(loss):
            raise InputError(
                f"solver={self.solver!r} needs a loss with a continuous gradient, and {loss.name} has kinks; leave "
                "solver='auto'"
            )
        if isinstance(loss, ScorePenalty):
            raise InputError(
                f"{loss.name} looks at logits alone and not at the targets, so there is nothing to learn; add it to a "
                f"loss, as in {type(self).__name__}(loss=CrossEntropy() + 0.01 * {type(loss).__name__}())"
            )
        return loss

    def _checked(self, X: Any, y: Any = "no_validation", *, reset: bool, **options: Any) -> Any:
        """Scikit-learn's own validation, with the place of the first bad value added."""
        X, y = sound_sparse(as_numpy(X, "X"), to_fit=reset), as_numpy(y, "y")
        check_table(X)
        try:
            return validate_data(
                self, X, y, reset=reset, accept_sparse=["csr", "csc"], dtype=[np.float64, np.float32], **options
            )
        except InputError:
            raise
        except (ValueError, TypeError) as error:
            about = str(error)
            if "Complex data not supported" in about:  # and then the whole array
                about = "Complex data not supported; pass real numbers, such as X.real and X.imag side by side"
            elif "y should be a 1d array" in about:
                about += self._rows_of_y
            elif "inhomogeneous" in about:
                raise TargetError(f"y holds lists of different lengths.{self._rows_of_y}") from error
            elif about == "Input contains NaN":  # of labels that are strings
                check_labels(np.asarray(y, dtype=object))
            elif about.startswith("Input y "):
                row = int(np.argmax(~np.isfinite(np.asarray(y, dtype=np.float64))))
                raise TargetError(f"{about}\nThe first is in row {row}; leave out rows without a label.") from error
            # Scikit-learn's conventions ask for a TypeError where an object is no number at all.
            kind = DataError if isinstance(error, ValueError) or about.startswith("Sparse data") else TypeError
            raise kind(f"{about}{where_not_a_number(X)}") from error

    # ------------------------------------------------------------ fitting

    def _fit(
        self,
        X: Any,
        targets: Targets,
        n_outputs: int,
        loss: Loss,
        sample_weight: Vector | None,
        *,
        C: float,
        penalty_factor: float,
        classes: NDArray[Any],
        init: tuple[ArrayLike | None, ArrayLike | None] = (None, None),
        ended: str = "",
        of: str = "",
        kept: bool = True,
    ) -> None:
        """Minimise, then set every fitted attribute at once, so that an interrupted fit changes none.

        Args:
            X: validated (N, d).
            targets: wrapped, of N rows.
            n_outputs: C.
            loss: with class weights already in it.
            sample_weight: validated (N,) or None.
            C: inverse strength of the penalty.
            penalty_factor: multiplies ½‖W‖².
            classes: (C,) labels of the outputs.
            init: `coef_` and `intercept_` to start from; None for the earlier fit's, or zeros.
            ended: why the start is to be taken as it is, and only its gap to be found.
            of: what to add to the warning that a fit fell short.
            kept: whether `checkpoint` keeps the state of this fit.
        """
        penalty = resolve_penalty(self.penalty, self.l1_ratio)
        task = FitTask(
            X,
            targets,
            n_outputs,
            loss,
            sample_weight,
            fit_intercept=self.fit_intercept,
            penalty_factor=penalty_factor,
            penalty=penalty,
        )
        start = self._start(task.shape, init, loss)
        checkpoint, resumed = None, None
        if kept and self.checkpoint is not None:
            checkpoint, resumed = self._checkpoint(task.shape, X, targets, loss, sample_weight)
        if resumed is not None:
            start = resumed.weights, resumed.intercept
        course = Course([] if resumed is None else resumed.history)

        def save_if_due(parameters: Callable[[], tuple[Vector, Vector]]) -> None:
            if checkpoint is not None and checkpoint.due:
                checkpoint.save(*parameters(), course.history)

        with (
            ctrl_c_stops() as interrupted,
            block_map(task.n_at_once) as run,
            shown(int(self.verbose), float(self.tol)) as show,
        ):

            def between() -> None:
                if interrupted():
                    raise Stopped(CTRL_C)

            solution = task.solve(
                C,
                tol=float(self.tol),
                max_iter=max(0, int(self.max_iter) - course.done),
                solver=self.solver,
                start=start,
                follow=_at_once(ended, course) if ended else self._following(course, interrupted, show, save_if_due),
                announce=show.line,
                between=between,
                run=run,
            )
        result = solution.result
        interrupted_now = result.reason in INTERRUPTIONS
        if checkpoint is not None:
            if interrupted_now or (not result.converged and course.done >= self.max_iter):
                checkpoint.save(solution.weights, solution.intercept, course.history)
            else:
                checkpoint.remove()
        self._store_parameters(solution.weights, solution.intercept, loss)
        self.loss_, self.classes_ = loss, classes
        self.history_ = course.history
        # A warm start that is already there counts as one iteration, as scikit-learn's solvers count.
        self.n_iter_ = np.array([max(min(1, int(self.max_iter)), course.done)], dtype=np.int32)
        self.converged_ = result.converged
        self.interrupted_ = interrupted_now
        self.certificate_ = solution.certificate
        self.solver_, self.solver_reason_ = solution.solver, solution.reason
        if (penalty.absent or math.isinf(C)) and not interrupted_now:
            # The model is there by now: whoever has no patience for this loses nothing.
            finding = task.separation((solution.weights, solution.intercept))
            self.certificate_ = self._judged(finding, solution.certificate, solution.weights, classes.tolist())
        self._warn_if_not_converged(result, self.certificate_, of)

    def _judged(
        self, finding: Finding, certificate: Certificate, weights: Vector, names: Sequence[Any], stacklevel: int = 4
    ) -> Certificate:
        """Warn of separation, and return a fit's certificate with what was found out.

        Args:
            finding: of its data.
            certificate: of the fit, which had no penalty.
            weights: (d, C) where it ended.
            names: (C,) what messages call the outputs.
            stacklevel: of the warning.
        """
        told = finding.told(names)
        if finding.separation is None:
            return dataclasses.replace(certificate, reason=f"{certificate.reason}; {told}") if told else certificate
        warnings.warn(
            f"{type(self).__name__}: {told}. The weights grow as long as the fit runs (here up to "
            f"{np.abs(weights).max(initial=0.0):.3g}), and probabilities go to 0 and 1. "
            "The model can be used; give a finite C for weights and probabilities that mean something.",
            SeparableWarning,
            stacklevel=stacklevel,
        )
        return dataclasses.replace(certificate, reason=told)

    def _following(
        self,
        course: Course,
        interrupted: Callable[[], bool],
        show: Silent,
        then: Callable[[Callable[[], tuple[Vector, Vector]]], object] | None = None,
        of: str = "",
    ) -> Follow:
        """What follows a fit: it keeps and shows the records, tells the callback, and ends the fit if asked to.

        Args:
            course: takes the records.
            interrupted: whether Ctrl-C was pressed.
            show: shows them.
            then: called after each with the function that gives the parameters.
            of: which fit it is, where several run.
        """

        def follow(record: IterationRecord, parameters: Callable[[], tuple[Vector, Vector]]) -> None:
            if (continued := course.add(record)) is not None:
                show.step(continued, of)
                if self.callback is not None:
                    try:
                        self.callback(continued)
                    except StopIteration as stop:
                        raise Stopped(CALLBACK) from stop
            if interrupted():
                raise Stopped(CTRL_C)
            if then is not None:
                then(parameters)

        return follow

    def _checkpoint(
        self,
        shape: tuple[int, int],
        X: Any,
        targets: Targets,
        loss: Loss,
        sample_weight: Vector | None,
    ) -> tuple[Checkpoint, State | None]:
        """The file that keeps the state of this fit, and the state it holds already."""
        identity = self._identity(X, targets, loss, sample_weight)
        checkpoint = Checkpoint(self.checkpoint, identity)
        return checkpoint, checkpoint.load(shape)

    def _search_checkpoint(
        self, X: Any, targets: Targets, loss: Loss, sample_weight: Vector | None, **known: Any
    ) -> SearchCheckpoint | None:
        """The file that keeps the fits of a search; `known` are further arrays that it is of."""
        if self.checkpoint is None:
            return None
        identity = self._identity(X, targets, loss, sample_weight)
        identity.update(
            {name: fingerprint(value) if isinstance(value, np.ndarray) else str(value) for name, value in known.items()}
        )
        # Fits that are done are taken as they are, so they must have been asked for as much.
        identity.update({name: repr(getattr(self, name)) for name in ("tol", "max_iter", "solver", "recover")})
        return SearchCheckpoint(self.checkpoint, identity)

    def _store_about(self, point: PathPoint) -> None:
        """Set what is told of one fit."""
        self.certificate_, self.history_ = point.certificate, point.history
        self.n_iter_ = np.array([max(min(1, int(self.max_iter)), point.n_iter)], dtype=np.int32)
        self.converged_, self.interrupted_ = point.converged, point.ended in INTERRUPTIONS
        self.solver_, self.solver_reason_ = point.solver, point.solver_reason

    def _identity(self, X: Any, targets: Targets, loss: Loss, sample_weight: Vector | None) -> dict[str, str]:
        """What a state is of: data and settings, by name."""
        settings = {
            name: repr(value) for name, value in self.get_params(deep=False).items() if name not in _NO_PART_OF_THE_TASK
        }
        return {
            "estimator": type(self).__name__,
            **settings,
            "loss": str(loss),
            "shape of X": str(X.shape),
            "X": fingerprint(X),
            "y": targets_fingerprint(targets),
            "sample_weight": fingerprint(sample_weight),
        }

    def _start(
        self, shape: tuple[int, int], init: tuple[ArrayLike | None, ArrayLike | None], loss: Loss
    ) -> tuple[Vector, Vector] | None:
        """Weights (d, C) and intercepts (C,) to start from; None for zeros."""
        earlier = self.warm_start and hasattr(self, "coef_")
        if not earlier and init[0] is None and init[1] is None:
            return None
        n_columns, n_outputs = shape
        n_rows = weight_rows(loss, n_outputs)
        coef, intercept = np.zeros((n_rows, n_columns)), np.zeros(n_rows)
        if earlier:
            if self.coef_.shape != coef.shape:
                raise InputError(
                    f"warm_start=True, but the earlier fit has coef_ of shape {self.coef_.shape} and this data needs "
                    f"{coef.shape}; set warm_start=False"
                )
            coef, intercept = dense(self.coef_), self.intercept_
        coef = start_from("coef_init", init[0], coef)
        intercept = start_from("intercept_init", init[1], intercept)
        if init[1] is not None and not self.fit_intercept and intercept.any():
            raise InputError("intercept_init is given, but fit_intercept=False; leave one of them out")
        return self._output_parameters(coef, intercept)

    def _warn_if_not_converged(self, result: SolverResult, certificate: Certificate, of: str = "") -> None:
        if result.converged:
            return
        last = self.history_[-1]
        advice = ["raise tol", "lower C (a stronger penalty)"]
        if last.iteration >= self.max_iter:
            advice.insert(0, "raise max_iter")
        where = (
            f"the relative duality gap is {certificate.relative_gap:.3g} (tol {self.tol:.3g}"
            + (f"; {certificate.reason})" if certificate.reason else ")")
            if math.isfinite(certificate.relative_gap)
            else f"the duality gap is {certificate.gap:.3g} nats per example, more than the objective "
            f"(tol {self.tol:.3g} of it)"
            if math.isfinite(certificate.gap) and not certificate.reason
            else f"the scaled gradient norm is {last.gradient_norm:.3g} (tol {self.tol:.3g}; "
            f"no duality gap: {certificate.reason or 'none is known'})"
        )
        warnings.warn(
            f"{type(self).__name__} did not converge{of}: {result.reason}; {where} and the objective "
            f"{last.objective:.8g} nats per example after {last.iteration} iterations. "
            f"What helps: {self._going_on if self.interrupted_ else ', '.join(advice[:-1]) + ' or ' + advice[-1]}.",
            FitNotConvergedWarning,
            stacklevel=4,
        )


# Settings that may change between two parts of one fit.
_NO_PART_OF_THE_TASK = frozenset(
    {"tol", "max_iter", "solver", "warm_start", "recover", "callback", "verbose", "checkpoint", "loss", "class_weight"}
    # Of a search; what its folds and penalties are is told apart.
    | {"Cs", "cv", "scoring", "selection", "refit", "n_jobs", "keep_coefs"}
)
# What losses take that are not over logits, by their link.
_NOT_LOGITS = {"log": "log-probabilities", "identity": "probabilities"}
_FORMS = {"classes": "mutually exclusive classes", "labels": "independent labels"}


def _at_once(why: str, course: Course) -> Follow:
    """Ends a fit at its start."""

    def follow(record: IterationRecord, parameters: Callable[[], tuple[Vector, Vector]]) -> None:
        course.add(record)
        raise Stopped(why)

    return follow
