"""The kernels in C++: float32 and float64, threads, and the best instructions the processor has.

The functions mean what those of `kullback.kernels.reference` mean. They read any row stride in place; other layouts
are converted block by block, never as a whole. If a soft target turns out to be invalid half-way, the outputs hold
the rows done so far.

The instruction level is chosen when the module is loaded; the environment variable ``KULLBACK_ISA`` (``v2``, ``v3``
or ``v4``: the x86-64 levels) asks for a lower one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kullback.errors import InputError, ShapeError
from kullback.kernels import _native
from kullback.kernels import threads as threads  # sets the number of threads from the environment
from kullback.kernels.recipe import (
    Array,
    Evaluation,
    MarginRecipe,
    PlainRecipe,
    SigmoidRecipe,
    SoftmaxRecipe,
    TargetSummary,
)
from kullback.kernels.reference import class_range_error, label_error, soft_target_error
from kullback.targets import ClassIndices, ClassMixture, ClassRows, ClassTargets, LabelRows

_EVALUATE, _PRODUCT, _DIAGONAL = 0, 1, 2


def softmax_targets(
    targets: ClassTargets,
    n_classes: int,
    *,
    row_weight: Array | None = None,
    class_weight: Array | None = None,
    ignore_index: int | None = None,
) -> TargetSummary:
    """Check class targets against the number of classes and sum their weights; see the reference."""
    if isinstance(targets, ClassRows):
        _same_columns("soft targets", targets.rows, n_classes)
    form = _form(targets, ignore_index)
    total, counted, _, row, column = _native.targets(
        False,
        len(targets),
        n_classes,
        _weights(class_weight, n_classes, np.dtype(np.float64), "class_weight"),
        *form[:4],
        _row_weight(row_weight, len(targets)),
        form.ignore_index,
        None,
    )
    _raise_bad_target(targets, row, column, n_classes, row_weight, ignore_index)
    return TargetSummary(counted, total)


def softmax_evaluate(
    recipe: SoftmaxRecipe,
    logits: Array,
    targets: ClassTargets,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    per_example: Array | None = None,
    gradient: Array | None = None,
    log_sum_exp: Array | None = None,
    prediction: Array | None = None,
) -> Evaluation:
    """Loss of every row and, if asked for, its gradient; see the reference."""
    return _run(
        _EVALUATE,
        recipe,
        logits,
        targets,
        row_weight=row_weight,
        ignore_index=ignore_index,
        scale=scale,
        per_example=per_example,
        out=gradient,
        log_sum_exp=log_sum_exp,
        prediction=prediction,
    )


def count_indices(indices: Array, n_classes: int, ignore_index: int | None) -> int:
    """How many of some aligned class indices count, or −1 if one of those is out of range."""
    _, counted, _, row, _ = _native.targets(
        False, len(indices), n_classes, None, indices, None, None, None, None, ignore_index, None
    )
    return -1 if row >= 0 else counted


def cross_entropy_of_indices(
    logits: Array,
    indices: Array,
    *,
    smoothing: float,
    temperature: float,
    softcap: float,
    z_loss: float,
    ignore_index: int | None,
    scale: float,
    gradient: Array | None,
) -> tuple[float, int]:
    """`softmax_evaluate` of cross-entropy for callers to whom a microsecond matters: only the classes are checked.

    Args:
        logits: (N, C) float32, float64 or `BFLOAT16`, contiguous and aligned.
        indices: (N,) aligned integers.
        smoothing: ε in [0, 1].
        temperature: T > 0.
        softcap: c > 0, or 0 for none.
        z_loss: λ ≥ 0.
        ignore_index: class index of rows that do not count.
        scale: multiplies the gradient.
        gradient: (N, C) to write to, contiguous, of the logits' type and none of their memory, or None.

    Returns:
        The sum of the losses and how many rows count, or −1 if the class of one is out of range.
    """
    total, counted, _, row, _ = _native.family(
        False,
        _EVALUATE,
        "cross_entropy",
        [],
        smoothing,
        1.0 / temperature,
        None,
        None,
        logits,
        indices,
        None,
        None,
        None,
        None,
        ignore_index,
        scale,
        None,
        None,
        gradient,
        None,
        None,
        softcap,
        z_loss,
        False,
    )
    return total, -1 if row >= 0 else counted


def softmax_hessian_product(
    recipe: SoftmaxRecipe,
    logits: Array,
    targets: ClassTargets,
    direction: Array,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    out: Array,
) -> None:
    """Write each row's Hessian times the direction's row into `out`; see the reference."""
    _run(
        _PRODUCT,
        recipe,
        logits,
        targets,
        row_weight=row_weight,
        ignore_index=ignore_index,
        scale=scale,
        direction=direction,
        out=out,
    )


def softmax_hessian_diagonal(
    recipe: SoftmaxRecipe,
    logits: Array,
    targets: ClassTargets,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    out: Array,
) -> None:
    """Write the diagonal of each row's Hessian into `out`; see the reference."""
    _run(
        _DIAGONAL,
        recipe,
        logits,
        targets,
        row_weight=row_weight,
        ignore_index=ignore_index,
        scale=scale,
        out=out,
    )


def softmax_probabilities(logits: Array, *, temperature: float = 1.0, log: bool = False, out: Array) -> None:
    """Write softmax(logits / temperature), or its logarithm, into `out` (N, C)."""
    _probabilities(False, logits, temperature, log, out)


def sigmoid_targets(
    targets: LabelRows,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    known: Array | None = None,
) -> TargetSummary:
    """Count the rows that count and sum their weights; see the reference."""
    if known is not None and not (known.shape == (len(targets),) and known.dtype == np.float64 and known.flags.carray):
        raise ShapeError(f"known has shape {known.shape} and dtype {known.dtype}, expected ({len(targets)},) float64")
    form = _form(targets, ignore_index)
    total, counted, *_ = _native.targets(
        True,
        len(targets),
        targets.rows.shape[1],
        None,
        *form[:4],
        _row_weight(row_weight, len(targets)),
        form.ignore_index,
        known,
    )
    return TargetSummary(counted, total)


def sigmoid_evaluate(
    recipe: SigmoidRecipe,
    logits: Array,
    targets: LabelRows,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    per_example: Array | None = None,
    gradient: Array | None = None,
) -> Evaluation:
    """Loss of every row, summed over its labels, and, if asked for, its gradient; see the reference."""
    return _run(
        _EVALUATE,
        recipe,
        logits,
        targets,
        row_weight=row_weight,
        ignore_index=ignore_index,
        scale=scale,
        per_example=per_example,
        out=gradient,
    )


def sigmoid_hessian_product(
    recipe: SigmoidRecipe,
    logits: Array,
    targets: LabelRows,
    direction: Array,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    out: Array,
) -> None:
    """Write the (diagonal) Hessian times the direction into `out`; see the reference."""
    _run(
        _PRODUCT,
        recipe,
        logits,
        targets,
        row_weight=row_weight,
        ignore_index=ignore_index,
        scale=scale,
        direction=direction,
        out=out,
    )


def sigmoid_hessian_diagonal(
    recipe: SigmoidRecipe,
    logits: Array,
    targets: LabelRows,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    out: Array,
) -> None:
    """Write the diagonal of the Hessian into `out`; see the reference."""
    _run(
        _DIAGONAL,
        recipe,
        logits,
        targets,
        row_weight=row_weight,
        ignore_index=ignore_index,
        scale=scale,
        out=out,
    )


def sigmoid_probabilities(logits: Array, *, temperature: float = 1.0, log: bool = False, out: Array) -> None:
    """Write sigmoid(logits / temperature), or its logarithm, into `out` (N, C)."""
    _probabilities(True, logits, temperature, log, out)


def margin_evaluate(
    recipe: MarginRecipe,
    logits: Array,
    targets: ClassTargets,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    per_example: Array | None = None,
    gradient: Array | None = None,
) -> Evaluation:
    """Loss of every row and, if asked for, its gradient; see the reference."""
    return _run(
        _EVALUATE,
        _as_softmax(recipe),
        logits,
        targets,
        row_weight=row_weight,
        ignore_index=ignore_index,
        scale=scale,
        per_example=per_example,
        out=gradient,
    )


def margin_hessian_product(
    recipe: MarginRecipe,
    logits: Array,
    targets: ClassTargets,
    direction: Array,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    out: Array,
) -> None:
    """Write the Hessian times the direction into `out`; see the reference."""
    _run(
        _PRODUCT,
        _as_softmax(recipe),
        logits,
        targets,
        row_weight=row_weight,
        ignore_index=ignore_index,
        scale=scale,
        direction=direction,
        out=out,
    )


def margin_hessian_diagonal(
    recipe: MarginRecipe,
    logits: Array,
    targets: ClassTargets,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    out: Array,
) -> None:
    """Write the diagonal of the Hessian into `out`; see the reference."""
    _run(
        _DIAGONAL,
        _as_softmax(recipe),
        logits,
        targets,
        row_weight=row_weight,
        ignore_index=ignore_index,
        scale=scale,
        out=out,
    )


def plain_evaluate(
    recipe: PlainRecipe,
    logits: Array,
    targets: ClassTargets | LabelRows,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    per_example: Array | None = None,
    gradient: Array | None = None,
    tally: Array | None = None,
) -> Evaluation:
    """Loss of every row of numbers that are no logits and, if asked for, its gradient.

    `tally` (3,) int64 gets what ``"cross_entropy_from_probabilities"`` has to say of rows that count: how many have a
    class with mass below the clip, how many one above, and the first row that is none of probabilities, or −1.
    """
    return _run(
        _EVALUATE,
        _as_softmax(recipe),
        logits,
        targets,
        row_weight=row_weight,
        ignore_index=ignore_index,
        scale=scale,
        per_example=per_example,
        out=gradient,
        tally=tally,
    )


def plain_hessian_product(
    recipe: PlainRecipe,
    logits: Array,
    targets: ClassTargets | LabelRows,
    direction: Array,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    out: Array,
) -> None:
    """Write the Hessian times the direction into `out`."""
    _run(
        _PRODUCT,
        _as_softmax(recipe),
        logits,
        targets,
        row_weight=row_weight,
        ignore_index=ignore_index,
        scale=scale,
        direction=direction,
        out=out,
    )


def plain_hessian_diagonal(
    recipe: PlainRecipe,
    logits: Array,
    targets: ClassTargets | LabelRows,
    *,
    row_weight: Array | None = None,
    ignore_index: int | None = None,
    scale: float = 1.0,
    out: Array,
) -> None:
    """Write the diagonal of the Hessian into `out`."""
    _run(
        _DIAGONAL,
        _as_softmax(recipe),
        logits,
        targets,
        row_weight=row_weight,
        ignore_index=ignore_index,
        scale=scale,
        out=out,
    )


def _as_softmax(recipe: MarginRecipe | PlainRecipe) -> SoftmaxRecipe:
    """Hinges and plain losses stand in the native module's list of losses of class targets, with their parameters."""
    if isinstance(recipe, PlainRecipe):
        return SoftmaxRecipe(recipe.family, recipe.parameters, recipe.smoothing, class_weight=recipe.class_weight)
    parameters = (recipe.margin, float(recipe.power))
    return SoftmaxRecipe(family=recipe.family, parameters=parameters, class_weight=recipe.class_weight)


def csr_product(
    indptr: Array,
    indices: Array,
    data: Array,
    dense: Array,
    out: Array,
    *,
    ends: Array | None = None,
    base: int = 0,
) -> None:
    """Write the product of a CSR matrix (n, d) with `dense` (d, C) into `out` (n, C).

    Args:
        indptr: (n + 1,) row starts, int32 or int64; (n,) with `ends`.
        indices: (nnz,) columns, of the same type.
        data: (nnz,) values, float32 or float64; each is converted to the type of `dense` as it is read.
        dense: (d, C) float32 or float64.
        out: (n, C) of the type of `dense`.
        ends: (n,) where each row ends, or None where it ends as the next one starts.
        base: the column that row 0 of `dense` stands for.

    Raises:
        ShapeError: if lengths do not fit together.
        InputError: if the matrix is corrupt: a column outside [base, base + d) or row starts that are out of order.
    """
    starts, ends = (indptr[:-1], indptr[1:]) if ends is None else (indptr, ends)
    _check_csr("csr_product", starts, ends, indices, data, dense, out, n_rows=len(out))
    target = _writable(out, out.flags.carray and not np.may_share_memory(out, dense))
    row = _native.csr_product(*_plain_csr(starts, ends, indices, data, dense), target, base)
    _refuse_corrupt(row, base, len(dense))
    if target is not out:
        out[...] = target


def csr_transposed(
    indptr: Array,
    indices: Array,
    data: Array,
    dense: Array,
    out: Array,
    *,
    ends: Array | None = None,
    base: int = 0,
) -> None:
    """Add the product of the transpose of a CSR matrix (n, d) with `dense` (n, C) to `out` (d, C).

    It runs on one thread: rows that share a column add to the same numbers.

    Args:
        indptr: (n + 1,) row starts, int32 or int64; (n,) with `ends`.
        indices: (nnz,) columns, of the same type.
        data: (nnz,) values, float32 or float64; each is converted to the type of `dense` as it is read.
        dense: (n, C) float32 or float64.
        out: (d, C) of the type of `dense`.
        ends: (n,) where each row ends, or None where it ends as the next one starts.
        base: the column that row 0 of `out` stands for.

    Raises:
        ShapeError: if lengths do not fit together.
        InputError: if the matrix is corrupt: a column outside [base, base + d) or row starts that are out of order.
            Rows before it have been added by then.
    """
    starts, ends = (indptr[:-1], indptr[1:]) if ends is None else (indptr, ends)
    _check_csr("csr_transposed", starts, ends, indices, data, dense, out, n_rows=len(dense))
    usable = out.flags.carray and not np.may_share_memory(out, dense)
    target = _writable(out, usable)
    if target is not out:
        target[...] = out
    row = _native.csr_transposed(*_plain_csr(starts, ends, indices, data, dense), target, base)
    _refuse_corrupt(row, base, len(out))
    if target is not out:
        out[...] = target


def _check_csr(
    name: str,
    starts: Array,
    ends: Array,
    indices: Array,
    data: Array,
    dense: Array,
    out: Array,
    *,
    n_rows: int,
) -> None:
    if dense.ndim != 2 or out.ndim != 2 or dense.dtype not in _PRECISIONS or out.dtype != dense.dtype:
        raise ShapeError(f"{name}: dense and out must be matrices of one type, float32 or float64")
    fitting = len(starts) == len(ends) == n_rows and len(indices) == len(data) and out.shape[1] == dense.shape[1]
    if not fitting:
        raise ShapeError(
            f"{name}: {len(starts)} row starts, {len(ends)} row ends, {len(indices)} indices, {len(data)} values and "
            f"dense {dense.shape} do not fit an out of shape {out.shape}"
        )


def _plain_csr(
    starts: Array, ends: Array, indices: Array, data: Array, dense: Array
) -> tuple[Array, Array, Array, Array, Array]:
    """What the native module reads: one index type, contiguous arrays, values in float32 or float64."""
    wide = np.int32 if starts.dtype == ends.dtype == indices.dtype == np.int32 else np.int64
    return (
        _aligned(np.ascontiguousarray(starts, wide)),
        _aligned(np.ascontiguousarray(ends, wide)),
        _aligned(np.ascontiguousarray(indices, wide)),
        _aligned(np.ascontiguousarray(data, data.dtype if data.dtype in _PRECISIONS else dense.dtype)),
        np.ascontiguousarray(_aligned(dense)),
    )


def _refuse_corrupt(row: int, base: int, n_columns: int) -> None:
    if row >= 0:
        raise InputError(
            f"the sparse matrix is corrupt at row {row}: a column index lies outside {base} to {base + n_columns - 1}, "
            "or the row starts are out of order; rebuild it, for example with "
            "scipy.sparse.csr_matrix(matrix.tocoo())"
        )


# ---------------------------------------------------------------- what the functions above share

_PRECISIONS = (np.dtype(np.float32), np.dtype(np.float64))

# NumPy has no bfloat16. Logits and gradient of this type hold its bits, for those whose arrays come from elsewhere;
# they are computed in float32.
BFLOAT16 = np.dtype(np.uint16)


class _Form(NamedTuple):
    """Targets as the native module takes them; arrays that a form does not have are None."""

    first: Array | None
    second: Array | None
    share: Array | None
    rows: Array | None
    ignore_index: int | None


def _form(targets: ClassTargets | LabelRows, ignore_index: int | None) -> _Form:
    if isinstance(targets, ClassIndices):
        return _Form(_plain(targets.indices), None, None, None, ignore_index)
    if isinstance(targets, ClassMixture):
        share = _aligned(np.ascontiguousarray(targets.share))
        return _Form(_plain(targets.first), _plain(targets.second), share, None, None)
    return _Form(None, None, None, _plain(targets.rows), ignore_index if isinstance(targets, LabelRows) else None)


def _run(
    operation: int,
    recipe: SoftmaxRecipe | SigmoidRecipe,
    logits: Array,
    targets: ClassTargets | LabelRows,
    *,
    row_weight: Array | None,
    ignore_index: int | None,
    scale: float,
    direction: Array | None = None,
    per_example: Array | None = None,
    out: Array | None = None,
    log_sum_exp: Array | None = None,
    prediction: Array | None = None,
    tally: Array | None = None,
) -> Evaluation:
    n, n_classes = _shape_of(logits, half=operation == _EVALUATE)
    if len(targets) != n:
        raise ShapeError(f"{n} rows of logits, but {len(targets)} targets")
    if isinstance(targets, ClassRows | LabelRows):
        _same_columns(
            "multi-label targets" if isinstance(targets, LabelRows) else "soft targets", targets.rows, n_classes
        )
    for name, array in (("direction", direction), ("output", out)):
        if array is not None and array.shape != logits.shape:
            raise ShapeError(f"{name} has shape {array.shape}, the logits {logits.shape}")
    dtype = _PRECISIONS[0] if logits.dtype == BFLOAT16 else logits.dtype
    source, target = _in_and_out(logits, out)
    if direction is not None:
        direction = _plain(direction)
        if target is not None and np.may_share_memory(direction, target):
            direction = direction.copy()
    losses = _per_row("per_example", per_example, n, dtype, _PRECISIONS[1])
    log_sums = _per_row("log_sum_exp", log_sum_exp, n, dtype)
    predicted = _per_row("prediction", prediction, n, np.dtype(np.int64))
    form = _form(targets, ignore_index)
    settings = _settings(recipe, n_classes, dtype)
    arguments: tuple[Any, ...] = (
        *settings.weights,
        source,
        *form[:4],
        _row_weight(row_weight, n),
        form.ignore_index,
        scale,
        direction,
        losses,
        target,
        *settings.extras,
        log_sums,
        predicted,
        tally,
    )
    named = settings.named
    total, counted, infinite_row, row, column = _native.family(settings.is_sigmoid, operation, *named, *arguments)
    _raise_bad_target(targets, row, column, n_classes, row_weight, ignore_index)
    if out is not None and target is not out:
        out[...] = target
    for result, wanted in ((losses, per_example), (log_sums, log_sum_exp), (predicted, prediction)):
        if wanted is not None and result is not wanted:
            wanted[...] = result
    return Evaluation(total, infinite_row, -1 if settings.is_sigmoid else counted)


class _Settings(NamedTuple):
    """A recipe as the native module takes it, in three groups of arguments."""

    is_sigmoid: bool
    named: tuple[str, list[float], float, float]  # family, parameters, smoothing and 1 / temperature
    weights: tuple[Any, ...]  # of the classes, and of positive labels
    extras: tuple[Any, ...]  # shift, offset, softcap, z-loss and divergence


def _settings(recipe: SoftmaxRecipe | SigmoidRecipe, n_classes: int, dtype: np.dtype[Any]) -> _Settings:
    is_sigmoid = isinstance(recipe, SigmoidRecipe)
    if recipe.family not in _families(is_sigmoid):
        raise InputError(f"the C++ kernels have no {'sigmoid' if is_sigmoid else 'softmax'} family {recipe.family!r}")
    positive_weight = shift = offset = None
    softcap, z_loss, divergence = 0.0, 0.0, False
    if isinstance(recipe, SigmoidRecipe):
        positive_weight = _weights(recipe.positive_weight, n_classes, dtype, "positive_weight")
    else:
        shift = _weights(recipe.shift, n_classes, dtype, "shift")
        offset = _weights(recipe.offset, n_classes, dtype, "offset")
        softcap, z_loss, divergence = recipe.softcap or 0.0, recipe.z_loss, recipe.divergence
    class_weight = _weights(recipe.class_weight, n_classes, dtype, "class_weight")
    return _Settings(
        is_sigmoid,
        (recipe.family, list(recipe.parameters), recipe.smoothing, 1.0 / recipe.temperature),
        (class_weight, positive_weight),
        (shift, offset, softcap, z_loss, divergence),
    )


def linear_pass(
    recipe: SoftmaxRecipe | SigmoidRecipe,
    matrix: Array,
    targets: ClassTargets | LabelRows,
    n_outputs: int,
    *,
    row_weight: Array | None,
    ignore_index: int | None,
    dtype: Any,
    ones: bool,
    centre: Array | None = None,
    inverse: Array | None = None,
) -> _native.LinearPass:
    """Passes over all rows of a linear model: its loss and gradient, and Hessian products, in one call each.

    Args:
        recipe: of the loss.
        matrix: (N, d) float32 or float64, each row or each column contiguous.
        targets: of N rows, checked already.
        n_outputs: C.
        row_weight: (N,) or None for all ones.
        ignore_index: the class of rows that do not count, or None.
        dtype: float32 or float64, of the products.
        ones: whether a column of ones follows the others, for the intercept.
        centre: (d,) float64 that is taken from every row before it is multiplied, or None.
        inverse: (d,) float64 that it is multiplied by then.

    Returns:
        An object whose ``evaluate(weights, sums)`` writes the gradient of the summed loss in the weights to `sums`,
        both (d + ones, C) float64, and returns the loss first and the first row whose loss is infinite (or −1) third;
        ``product(weights, along, sums)`` writes the Hessian times `along`.
    """
    dtype = np.dtype(dtype)
    settings = _settings(recipe, n_outputs, dtype)
    form = _form(targets, ignore_index)
    arguments: tuple[Any, ...] = (
        *settings.named,
        *settings.weights,
        *settings.extras,
        _aligned(matrix),
        dtype == np.float64,
        bool(ones),
        centre,
        inverse,
        n_outputs,
        *form[:4],
        _row_weight(row_weight, len(targets)),
        form.ignore_index,
    )
    return _native.LinearPass(settings.is_sigmoid, *arguments)


def _probabilities(is_sigmoid: bool, logits: Array, temperature: float, log: bool, out: Array) -> None:
    _shape_of(logits)
    if out.shape != logits.shape:
        raise ShapeError(f"output has shape {out.shape}, the logits {logits.shape}")
    source, target = _in_and_out(logits, out)
    assert target is not None
    _native.probabilities(is_sigmoid, source, 1.0 / temperature, log, target)
    if target is not out:
        out[...] = target


_known_families: dict[bool, frozenset[str]] = {}


def _families(is_sigmoid: bool) -> frozenset[str]:
    if is_sigmoid not in _known_families:
        _known_families[is_sigmoid] = frozenset(_native.families(is_sigmoid))
    return _known_families[is_sigmoid]


def _shape_of(logits: Array, *, half: bool = False) -> tuple[int, int]:
    known = logits.dtype in _PRECISIONS or (half and logits.dtype == BFLOAT16)
    if logits.ndim != 2 or not known:
        raise ShapeError(
            f"logits must be a float32 or float64 matrix (N, C), got shape {logits.shape} and dtype {logits.dtype}"
        )
    n, n_classes = logits.shape
    if n and not n_classes:
        raise ShapeError(f"logits have shape {logits.shape}: no classes")
    if n_classes >= 2**31:
        raise ShapeError(f"logits have {n_classes} classes; at most 2**31 - 1 are supported")
    return n, n_classes


def _same_columns(what: str, rows: Array, n_classes: int) -> None:
    if rows.shape[1] != n_classes:
        raise ShapeError(f"{what} have {rows.shape[1]} columns, the logits {n_classes}")


def _aligned(array: Array) -> Array:
    """The array itself, or a copy in native byte order where elements do not lie on their own boundaries."""
    itemsize, flags = array.itemsize, array.flags
    if (
        flags.aligned
        and array.dtype.isnative
        and (flags.c_contiguous or all(step % itemsize == 0 for step in array.strides))
    ):
        return array
    # ascontiguousarray would give an array back that is contiguous but not aligned
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


def _plain(array: Array) -> Array:
    """An array of a type the native module reads."""
    array = _aligned(array)
    if array.dtype.kind in "biu" or array.dtype in _PRECISIONS:
        return array
    return array.astype(np.float64)


def _per_row(name: str, out: Array | None, n: int, *dtypes: np.dtype[Any]) -> Array | None:
    """The caller's array of one number per row, or one to copy from, of a type that the kernels write."""
    if out is None:
        return None
    if out.shape != (n,):
        raise ShapeError(f"{name} has shape {out.shape}, expected ({n},)")
    return out if out.dtype in dtypes and out.flags.carray else np.empty(n, dtypes[-1])


def _writable(out: Array, usable: bool) -> Array:
    if not out.flags.writeable:
        raise InputError("the output array is read-only")
    return out if usable else np.empty(out.shape, out.dtype)


def _in_and_out(logits: Array, out: Array | None) -> tuple[Array, Array | None]:
    """Logits and output as the native module may use them together: the same memory, or no overlap at all."""
    source = _aligned(logits)
    if out is None:
        return source, None
    usable = (
        out.dtype == logits.dtype
        and out.dtype.isnative
        and out.flags.aligned
        and (out.flags.c_contiguous or _rows_apart(out))
    )
    if not usable and out.dtype != logits.dtype:
        raise ShapeError(f"the output has dtype {out.dtype}, the logits {logits.dtype}; they must be the same")
    target = _writable(out, usable)
    if target is out and source is logits and np.may_share_memory(source, target):
        same = (
            source.ctypes.data == target.ctypes.data
            and source.strides == target.strides
            and (source.flags.c_contiguous or _rows_apart(source))
        )
        if not same:
            source = source.copy()
    return source, target


def _rows_apart(array: Array) -> bool:
    """Whether rows are contiguous and do not overlap."""
    row, column = array.strides
    itemsize = array.itemsize
    return (
        (column == itemsize or array.shape[1] <= 1)
        and row % itemsize == 0
        and (abs(row) >= array.shape[1] * itemsize or array.shape[0] <= 1)
    )


def _row_weight(row_weight: Array | None, n: int) -> NDArray[np.float64] | None:
    if row_weight is None:
        return None
    weight = np.ascontiguousarray(row_weight, dtype=np.float64)
    if weight.shape != (n,):
        raise ShapeError(f"row weights have shape {weight.shape}, expected ({n},)")
    return _aligned(weight)


def _weights(weights: Array | None, n_classes: int, dtype: np.dtype[Any], name: str) -> Array | None:
    if weights is None:
        return None
    if weights.shape != (n_classes,):
        raise ShapeError(f"{name} has {weights.size} entries, but there are {n_classes} classes")
    return _aligned(np.ascontiguousarray(weights, dtype=dtype))


def _raise_bad_target(
    targets: ClassTargets | LabelRows,
    row: int,
    column: int,
    n_classes: int,
    row_weight: Array | None,
    ignore_index: int | None,
) -> None:
    if row < 0:
        return
    if isinstance(targets, ClassRows | LabelRows):
        error: Callable[[int, int, float], Exception] = (
            label_error if isinstance(targets, LabelRows) else soft_target_error
        )
        raise error(row, column, targets.rows[row, column])
    indices = targets.indices if isinstance(targets, ClassIndices) else targets.first
    if isinstance(targets, ClassMixture) and 0 <= indices[row] < n_classes:
        indices = targets.second
    raise class_range_error(row, int(indices[row]), n_classes)
