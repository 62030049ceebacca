"""What both linear classifiers share: checked input, the fit itself, and logits of new rows."""

from __future__ import annotations

import math
import numbers
import warnings
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.validation import check_is_fitted, validate_data

from kullback.errors import DataError, InputError, NotConvergedWarning
from kullback.kernels.recipe import Array
from kullback.linear.blocks import block_map
from kullback.linear.certificate import Certificate
from kullback.linear.choice import Terms, choose
from kullback.linear.design import as_design, used_columns
from kullback.linear.inputs import as_numpy, dense, start_from, where_not_finite
from kullback.linear.objective import LinearObjective
from kullback.linear.scaling import ColumnScaling, column_scaling
from kullback.linear.solvers import IterationRecord, SolverResult, find_solver
from kullback.losses import CATALOGUE, Loss, parse_loss
from kullback.losses.base import Batch
from kullback.targets import ClassRows, LabelRows, Targets

Vector: TypeAlias = NDArray[np.float64]


class FitNotConvergedWarning(NotConvergedWarning, ConvergenceWarning):
    """`NotConvergedWarning` that is also scikit-learn's, so that filters written for either catch it."""


class LinearEstimator(BaseEstimator):
    """Settings, fitting and logits; `SoftmaxClassifier` and `SigmoidClassifier` add their targets and outputs."""

    # Whether two outputs are stored as one row, the second minus the first.
    _one_row_for_two = False

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

    coef_: Any  # an array, or a sparse matrix after `sparsify`
    intercept_: Vector
    loss_: Loss
    n_features_in_: int
    n_iter_: NDArray[np.int32]
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
        X = self._checked(X, reset=False)
        sparsified: bool = sparse.issparse(self.coef_)
        if sparsified:
            out = np.asarray(safe_sparse_dot(X, self.coef_.T.astype(X.dtype), dense_output=True))
        else:
            design = as_design(X)
            out = np.empty((design.shape[0], len(self.coef_)), dtype=design.dtype)
            weights = np.ascontiguousarray(self.coef_.T, dtype=design.dtype)
            design.rows(slice(0, design.shape[0])).forward(weights, out)
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
        _check_number("max_iter", self.max_iter, "a whole number of at least 0", lambda v: v >= 0, integer=True)
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
        X, y = as_numpy(X, "X"), as_numpy(y, "y")
        try:
            return validate_data(
                self, X, y, reset=reset, accept_sparse="csr", dtype=[np.float64, np.float32], **options
            )
        except InputError:
            raise
        except ValueError as error:
            raise DataError(f"{error}{where_not_finite(X)}") from error

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
        init: tuple[ArrayLike | None, ArrayLike | None] = (None, None),
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
            init: `coef_` and `intercept_` to start from; None for the earlier fit's, or zeros.
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
                self._start(objective, scaling, kept, n_columns, init),
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
        iterations = result.history[-1].iteration
        # A warm start that is already there counts as one iteration, as scikit-learn's solvers count.
        self.n_iter_ = np.array([max(min(1, int(self.max_iter)), iterations)], dtype=np.int32)
        self.converged_ = result.converged
        self.certificate_ = certificate
        self.solver_, self.solver_reason_ = choice.solver, choice.reason
        self._warn_if_not_converged(result, certificate)

    def _start(
        self,
        objective: LinearObjective,
        scaling: ColumnScaling,
        kept: NDArray[np.int64] | None,
        n_columns: int,
        init: tuple[ArrayLike | None, ArrayLike | None],
    ) -> Vector:
        earlier = self.warm_start and hasattr(self, "coef_")
        if not earlier and init[0] is None and init[1] is None:
            return np.zeros(objective.size)
        n_rows = 1 if objective.n_outputs == 2 and self._one_row_for_two else objective.n_outputs
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
        weights, intercept = self._output_parameters(coef, intercept)
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
            FitNotConvergedWarning,
            stacklevel=4,
        )


_FORMS = {"classes": "mutually exclusive classes", "labels": "independent labels"}


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
