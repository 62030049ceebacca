"""What both linear classifiers share: checked input, the fit itself, and logits of new rows."""

from __future__ import annotations

import math
import numbers
import warnings
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from kullback.errors import DataError, InputError, NotConvergedWarning
from kullback.kernels.recipe import Array
from kullback.linear.blocks import block_map
from kullback.linear.certificate import Certificate
from kullback.linear.choice import Terms, choose
from kullback.linear.design import as_design, used_columns
from kullback.linear.objective import LinearObjective
from kullback.linear.scaling import ColumnScaling, column_scaling
from kullback.linear.solvers import IterationRecord, SolverResult, find_solver
from kullback.losses import CATALOGUE, Loss, parse_loss
from kullback.losses.base import Batch, as_sample_weight
from kullback.targets import ClassRows, LabelRows, Targets

Vector: TypeAlias = NDArray[np.float64]


class LinearEstimator(BaseEstimator):
    """Settings, fitting and logits; `SoftmaxClassifier` and `SigmoidClassifier` add their targets and outputs."""

    # Set by the subclasses' constructors, as scikit-learn requires.
    C: float
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

    coef_: Vector
    intercept_: Vector
    loss_: Loss
    n_features_in_: int
    n_iter_: int
    converged_: bool
    history_: list[IterationRecord]
    certificate_: Certificate
    solver_: str
    solver_reason_: str

    def logits(self, X: Any) -> Array:
        """Raw scores (N, C), float32 for float32 input and float64 otherwise.

        Args:
            X: (N, d) dense or sparse.

        Raises:
            InputError: for input that does not match the fitted columns, or holds NaN or inf.
        """
        check_is_fitted(self)
        design = as_design(self._checked(X, reset=False))
        weights, intercept = self._output_parameters()
        out = np.empty((design.shape[0], weights.shape[1]), dtype=design.dtype)
        design.rows(slice(0, design.shape[0])).forward(np.ascontiguousarray(weights, dtype=design.dtype), out)
        out += intercept.astype(design.dtype)
        return out

    def _output_parameters(self) -> tuple[Vector, Vector]:
        """Weights (d, C) and intercepts (C,) of the logits."""
        return self.coef_.T, self.intercept_

    def _store_parameters(self, weights: Vector, intercept: Vector) -> None:
        """Set `coef_` and `intercept_` from weights (d, C) and intercepts (C,)."""
        self.coef_, self.intercept_ = np.ascontiguousarray(weights.T), intercept

    def _probabilities(self, logits: Array) -> Vector:
        reported = np.asarray(self.loss_.probabilities(logits.astype(np.float64, copy=False)))
        return self.loss_.recover(reported) if self.recover else reported

    def _log_probabilities(self, logits: Array) -> Vector:
        reported = np.asarray(self.loss_.log_probabilities(logits.astype(np.float64, copy=False)))
        return self.loss_.recover_log(reported) if self.recover else reported

    # ------------------------------------------------------------ input

    def _check_settings(self) -> None:
        _check_number("C", self.C, "a number above 0 (inf for no penalty)", lambda v: v > 0)
        _check_number("tol", self.tol, "a finite number above 0", lambda v: 0 < v < math.inf)
        _check_number("max_iter", self.max_iter, "a whole number of at least 1", lambda v: v >= 1, integer=True)
        if self.callback is not None and not callable(self.callback):
            raise InputError(f"callback={self.callback!r} cannot be called; pass a function of one IterationRecord")
        if self.solver != "auto":
            find_solver(self.solver)

    def _resolved_loss(self, target_form: str) -> Loss:
        loss = parse_loss(self.loss)
        if loss.target_form != target_form:
            fitting = [name for name, kind in CATALOGUE.items() if kind.target_form == target_form]
            raise InputError(
                f"{type(self).__name__} needs a loss over {_FORMS[target_form]}, but {loss.name} is over "
                f"{_FORMS[loss.target_form]}; choose one of: {', '.join(fitting)}"
            )
        return loss

    def _checked(self, X: Any, y: Any = "no_validation", *, reset: bool, **options: Any) -> Any:
        """Scikit-learn's own validation, with the place of the first bad value added."""
        try:
            return validate_data(
                self, X, y, reset=reset, accept_sparse="csr", dtype=[np.float64, np.float32], **options
            )
        except InputError:
            raise
        except ValueError as error:
            raise DataError(f"{error}{_where_not_finite(X)}") from error

    # ------------------------------------------------------------ fitting

    def _fit(
        self,
        X: Any,
        targets: Targets,
        n_outputs: int,
        loss: Loss,
        sample_weight: Vector | None,
        *,
        penalty_factor: float,
        shift_free: bool,
    ) -> None:
        """Minimise, then set every fitted attribute at once, so that an interrupted fit changes none.

        Args:
            X: validated (N, d).
            targets: wrapped, of N rows.
            n_outputs: C.
            loss: with class weights already in it.
            sample_weight: validated (N,) or None.
            penalty_factor: multiplies ½‖W‖².
            shift_free: whether adding one number to every logit of a row changes nothing, so that weights and
                intercepts are reported with mean zero over the classes.
        """
        # A column of zeros has weights of exactly zero at the optimum, and no gradient on the way there.
        n_columns, kept = X.shape[1], used_columns(X)
        design = as_design(X if kept is None else X[:, kept])
        batch = Batch(loss, (design.shape[0], n_outputs), targets, sample_weight, "mean")
        penalty = penalty_factor / (float(self.C) * batch.divisor)
        terms = Terms(loss, batch.targets, sample_weight, n_outputs, batch.divisor, penalty, self.fit_intercept)
        with block_map(max(2, len(design.blocks(n_outputs)))) as run:
            scaling = column_scaling(
                design,
                sample_weight,
                penalty=penalty,
                curvature=_curvature_at_start(loss, n_outputs),
                fit_intercept=self.fit_intercept,
                run=run,
            )
            choice = choose(design, terms, scaling, solver=self.solver, tol=float(self.tol), run=run)
            if self.verbose:
                print(f"solver {choice.solver}: {choice.reason}", flush=True)
            objective = choice.problem.exact
            result = find_solver(choice.solver)(
                choice.problem,
                self._start(objective, scaling, kept, n_columns),
                tol=float(self.tol),
                max_iter=int(self.max_iter),
                callback=self._report,
            )
            certificate = choice.problem.certificate(result.parameters)
        weights, intercept = scaling.to_raw(*objective.split(result.parameters))
        if kept is not None:
            whole = np.zeros((n_columns, n_outputs))
            whole[kept] = weights
            weights = whole
        if not self.fit_intercept:
            intercept = np.zeros(n_outputs)
        if shift_free:
            weights = weights - weights.mean(axis=1, keepdims=True)
            intercept = intercept - intercept.mean()
        self._store_parameters(weights, intercept)
        self.loss_ = loss
        self.history_ = list(result.history)
        self.n_iter_ = max(1, result.history[-1].iteration)
        self.converged_ = result.converged
        self.certificate_ = certificate
        self.solver_, self.solver_reason_ = choice.solver, choice.reason
        self._warn_if_not_converged(result, certificate)

    def _start(
        self, objective: LinearObjective, scaling: ColumnScaling, kept: NDArray[np.int64] | None, n_columns: int
    ) -> Vector:
        if not (self.warm_start and hasattr(self, "coef_")):
            return np.zeros(objective.size)
        weights, intercept = self._output_parameters()
        expected = (n_columns, objective.n_outputs)
        if weights.shape != expected:
            raise InputError(
                f"warm_start=True, but the earlier fit has {weights.shape[0]} columns and {weights.shape[1]} outputs "
                f"and this data has {expected[0]} and {expected[1]}; set warm_start=False"
            )
        return objective.join(*scaling.from_raw(weights if kept is None else weights[kept], intercept))

    def _report(self, record: IterationRecord) -> None:
        if self.verbose:
            print(
                f"iteration {record.iteration:5d}  loss {record.loss:.6f} nats  objective {record.objective:.6f}  "
                f"gradient {record.gradient_norm:.2e}  distance {record.distance:.2e}  {record.seconds:.2f} s",
                flush=True,
            )
        if self.callback is not None:
            self.callback(record)

    def _warn_if_not_converged(self, result: SolverResult, certificate: Certificate) -> None:
        if result.converged:
            return
        last = result.history[-1]
        advice = ["raise tol", "lower C (a stronger penalty)"]
        if last.iteration >= self.max_iter:
            advice.insert(0, "raise max_iter")
        where = (
            f"the relative duality gap is {certificate.relative_gap:.3g} (tol {self.tol:.3g})"
            if math.isfinite(certificate.relative_gap)
            else f"the scaled gradient norm is {last.gradient_norm:.3g} (tol {self.tol:.3g}; "
            f"no duality gap: {certificate.reason or 'the optimum is not known to lie above 0'})"
        )
        warnings.warn(
            f"{type(self).__name__} did not converge: {result.reason}; {where} and the objective "
            f"{last.objective:.8g} nats per example after {last.iteration} iterations. "
            f"What helps: {', '.join(advice[:-1])} or {advice[-1]}.",
            NotConvergedWarning,
            stacklevel=4,
        )


_FORMS = {"classes": "mutually exclusive classes", "labels": "independent labels"}


def checked_weight(sample_weight: ArrayLike | None, n_examples: int) -> Vector | None:
    """Sample weights as float64 (N,), or None; a single number is the weight of every example.

    Raises:
        InputError: for a negative or non-finite weight, another length, or all zeros.
    """
    if sample_weight is None:
        return None
    given = np.asarray(sample_weight)
    if given.dtype.kind not in "biuf":
        raise InputError(f"sample_weight has dtype {given.dtype}, expected numbers")
    weight = as_sample_weight(np.full(n_examples, given) if given.ndim == 0 else given, n_examples)
    if weight is not None and not weight.any():
        raise InputError("every sample_weight is zero, so no example counts; give at least one a positive weight")
    return weight


def _check_number(name: str, value: object, valid: str, test: Any, *, integer: bool = False) -> None:
    kind = numbers.Integral if integer else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind) or not test(value):
        raise InputError(f"{name}={value!r} is not valid; it must be {valid}")


def _curvature_at_start(loss: Loss, n_outputs: int) -> float:
    """Mean second derivative of one example's loss in one logit, at equal logits and uniform targets."""
    zero = np.zeros((1, n_outputs))
    if loss.target_form == "labels":
        uniform: Targets = LabelRows(np.full((1, n_outputs), 0.5))
    else:
        uniform = ClassRows(np.full((1, n_outputs), 1.0 / n_outputs))
    curvature = float(np.mean(loss.hessian_diagonal(zero, uniform, reduction="sum")))
    return curvature if curvature > 0 and math.isfinite(curvature) else 0.25


def _where_not_finite(X: Any) -> str:
    """The place of the first NaN or inf, to end an error message with, or nothing."""
    try:
        is_sparse = bool(sparse.issparse(X))
        if is_sparse:
            entries = X.tocoo()
            bad = np.flatnonzero(~np.isfinite(entries.data))
            if len(bad) == 0:
                return ""
            row, column, value = entries.row[bad[0]], entries.col[bad[0]], entries.data[bad[0]]
        else:
            values = np.asarray(X)
            if values.dtype.kind == "c":
                return ""
            values = values.astype(np.float64)
            places = np.argwhere(~np.isfinite(values))
            if values.ndim != 2 or len(places) == 0:
                return ""
            row, column = places[0]
            value = values[row, column]
    except (ValueError, TypeError):
        return ""  # not numbers at all: the message already says so
    names = getattr(X, "columns", None)
    label = f"{names[column]!r}" if names is not None else f"{column}"
    return f"\nThe first is {value} at row {row}, column {label}."
