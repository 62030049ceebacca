"""Feed random losses, shapes, layouts, types and broken numbers through the kernels and hold them to the reference.

    python tests/fuzz/fuzz_kernels.py --cases 1000000 --record    # `make fuzz`; rewrites record.json beside this file

A scene draws a loss, logits and targets and asks the NumPy reference once; its cases run the active backend on some of
the scene's rows, in any order and any memory layout, with outputs that may be the input itself, and compare. A case
passes if the results lie within the documented bound, or if targets that were spoilt on purpose raise the error that
names them; inputs must be as before and no byte around an output may change.

A failure prints the command that repeats its scene.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import multiprocessing
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from bounds import Bounds, agree
from draws import OWN_INPUT, SIZES, random_logits, random_loss, random_targets, spoil
from layouts import MATRICES, OUTPUTS, VECTORS, guarded, lay_out, overlapping
from machine import machine

from kullback import kernels
from kullback.errors import InputError, TargetError
from kullback.kernels import _native, cpu, dispatch, reference
from kullback.kernels.recipe import SoftmaxRecipe
from kullback.kernels.threads import set_num_threads
from kullback.targets import ClassIndices, ClassMixture, ClassRows, counted_rows

RECORD = Path(__file__).with_name("record.json")
NATIVE = Path(__file__).resolve().parents[2] / "native"
CASES_PER_SCENE = 40


class Failure(Exception):  # noqa: N818
    """A result that is wrong, with what led to it."""


class SceneFailure(Exception):  # noqa: N818
    """What failed, and the command that repeats it."""


def native_sources():
    """A digest of the C++ that was played: of every file's name and text."""
    digest = hashlib.sha256()
    for path in sorted(NATIVE.rglob("*")):
        if path.suffix in {".cpp", ".hpp", ".h", ".txt"}:
            digest.update(path.relative_to(NATIVE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def expect(condition, what):
    if not condition:
        raise Failure(what)


# ---------------------------------------------------------------- scenes


def choose(rng, options):
    return options[rng.integers(len(options))]


def sizes(rng):
    """Rows and classes of a scene: mostly small, sometimes more rows or classes than a block or a piece holds."""
    kind = rng.integers(100)
    if kind == 0:
        return int(rng.integers(1, 8)), int(rng.integers(1000, 6000))
    if kind == 1:
        return int(rng.integers(2000, 6000)), int(rng.integers(1, 20))
    n_classes = choose(rng, SIZES) if rng.integers(3) == 0 else int(rng.integers(1, 24))
    return int(rng.integers(1, 40)), n_classes


class Scene:
    """One loss on one batch, with the reference's answers."""

    def __init__(self, rng):
        self.rng = rng
        self.n, self.n_classes = sizes(rng)
        self.dtype = np.dtype(choose(rng, [np.float32, np.float64]))
        self.loss = random_loss(rng, self.n_classes)
        self.logits = random_logits(rng, self.n, self.n_classes, self.dtype, self.loss)
        self.constant_rows = self.loss.name not in OWN_INPUT and rng.integers(20) == 0
        if self.constant_rows:
            self.logits[...] = self.logits[:, :1]
        self.targets = random_targets(rng, self.n, self.n_classes, self.dtype, self.loss)
        self.weight = None if rng.integers(2) else rng.uniform(0.1, 3, self.n) * (rng.uniform(size=self.n) > 0.1)
        self.direction = (rng.normal(size=self.logits.shape) * rng.choice([1, 100])).astype(self.dtype)
        self.threads = int(rng.integers(1, 5))
        self.native = self._native()
        self.scale = float(choose(rng, [1.0, 0.5, 3.0])) if self.native else 1.0
        self._ask_reference()
        self.spoilt = spoil(rng, self.targets, self.n_classes, self._ignore())
        if self.loss.name in ("logit_l1", "logit_l2", "negative_entropy"):
            self.spoilt = None  # a penalty has no use for the target's values

    def __str__(self):
        return (
            f"{self.loss} on {self.dtype} logits ({self.n}, {self.n_classes}), {type(self.targets).__name__} "
            f"({'kernel' if self.native else 'loss object'}), {self.threads} threads"
        )

    def _ignore(self):
        return getattr(self.loss, "ignore_index", None)

    def _native(self):
        """Whether to call the kernel's functions, and not the loss object's methods."""
        if not hasattr(self.loss, "_recipe") or self.rng.integers(2):
            return False
        return dispatch.runner(self.loss._recipe(self.n_classes)) is cpu

    def _ask_reference(self):
        self.value, self.gradient, self.product, self.diagonal = run(self, everything(self), backend=reference)
        u = np.finfo(self.dtype).eps / (2 if self.dtype == np.float32 else 1)  # in float64 the reference rounds as well
        weight = np.ones(self.n) if self.weight is None else self.weight
        if not self.native and getattr(self.loss, "label_reduction", None) == "mean":
            weight = weight / self.n_classes
        self.bounds = Bounds(
            self.loss, self.logits, self.targets, weight, self.value, self.scale, np.abs(self.direction).max(), u
        )


class Call:
    """The arrays of one call, each in a layout of its own."""

    def __init__(self, logits, targets, weight, direction, per_example, gradient):
        self.logits, self.targets, self.weight, self.direction = logits, targets, weight, direction
        self.per_example, self.gradient = per_example, gradient


def everything(scene):
    """The plain call that answers for all rows of a scene."""
    return Call(
        scene.logits, scene.targets, scene.weight, scene.direction, np.empty(scene.n), np.empty_like(scene.logits)
    )


def run(scene, call, *, backend, operation=None):
    """Value, gradient, Hessian product and diagonal; with an operation only what that one gives."""
    loss = scene.loss
    wanted = (operation,) if operation else ("evaluate", "hessian_product", "hessian_diagonal")
    results = []
    if not scene.native:
        options = {"sample_weight": call.weight, "reduction": "none"}
        with kernels.using("reference" if backend is reference else "cpu"):
            if "evaluate" in wanted:
                results += loss.value_and_gradient(call.logits, call.targets, out=call.gradient, **options)
            if "hessian_product" in wanted:
                out = call.gradient if operation else None
                results.append(loss.hessian_product(call.logits, call.targets, call.direction, out=out, **options))
            if "hessian_diagonal" in wanted:
                out = call.gradient if operation else None
                results.append(loss.hessian_diagonal(call.logits, call.targets, out=out, **options))
            if "per_example" in wanted:
                results.append(
                    loss.per_example(call.logits, call.targets, sample_weight=call.weight, out=call.per_example)
                )
        return results
    recipe = loss._recipe(scene.n_classes)
    options = {"row_weight": call.weight, "ignore_index": scene._ignore()}
    if "evaluate" in wanted or "per_example" in wanted:
        evaluation = backend.evaluate(
            recipe, call.logits, call.targets, per_example=call.per_example,
            gradient=call.gradient if "evaluate" in wanted else None, scale=scene.scale, **options,
        )  # fmt: skip
        results.append(call.per_example)
        if "evaluate" in wanted:
            results.append(call.gradient)
        scene.evaluation = evaluation
    for second in ("hessian_product", "hessian_diagonal"):
        if second in wanted:
            runner = backend
            if backend is cpu:
                runner = dispatch.runner(recipe)
            out = call.gradient if operation else np.empty_like(call.logits)
            along = (call.direction,) if second == "hessian_product" else ()
            getattr(runner, second)(recipe, call.logits, call.targets, *along, out=out, scale=scene.scale, **options)
            results.append(out)
    return results


# ---------------------------------------------------------------- cases


def some_rows(rng, n):
    """Rows of a case: all, a few, none, in any order, repeated."""
    kind = rng.integers(10)
    if kind == 0:
        return np.arange(n)
    if kind == 1:
        return np.zeros(0, np.intp)
    if kind == 2:
        return np.full(rng.integers(1, 20), rng.integers(n))
    return rng.integers(0, n, rng.integers(1, min(n, 24) + 1))


def lay_out_targets(rng, targets):
    if isinstance(targets, ClassIndices):
        return ClassIndices(lay_out(choose(rng, VECTORS), targets.indices))
    if isinstance(targets, ClassMixture):
        parts = (lay_out(choose(rng, VECTORS), part) for part in (targets.first, targets.second, targets.share))
        return ClassMixture(*parts)
    return type(targets)(lay_out(choose(rng, MATRICES), targets.rows))


def case(scene, log, counts):
    rng = scene.rng
    rows = some_rows(rng, scene.n)
    operation = choose(rng, ["evaluate", "evaluate", "per_example", "hessian_product", "hessian_diagonal"])
    layout, out_layout = choose(rng, MATRICES), choose(rng, OUTPUTS)
    spoilt = scene.spoilt is not None and rng.integers(8) == 0
    targets, bad_rows = scene.spoilt if spoilt else (scene.targets, ())
    logits = scene.logits[rows]
    refused = None
    if scene.loss.name == "cross_entropy_from_probabilities" and not spoilt and len(rows) and rng.integers(8) == 0:
        logits, refused = with_a_negative(scene, logits, rows)
    alias = choose(rng, ["apart", "apart", "same", "overlapping", "direction", "weight"])
    log.append(f"{operation} of rows {rows.tolist()[:30]}, logits {layout}, out {out_layout}, {alias}, spoilt {spoilt}")

    for group, name in (("operations", operation), ("layouts of logits", layout), ("layouts of results", out_layout)):
        counts[group, name] += 1
    counts["types", str(scene.dtype)] += 1
    counts["targets", type(targets).__name__] += 1
    counts["rows", "none" if not len(rows) else "weighted" if scene.weight is not None else "plain"] += 1

    half = scene.native and operation == "evaluate" and rng.integers(6) == 0 and usable_as_half(logits)
    if half:
        logits = to_half(logits)
        alias = "apart"
    if layout == "plain" and scene.constant_rows and not half:
        source = np.broadcast_to(logits[:, :1], logits.shape)
    elif layout == "plain" and len(rows) and (rows == rows[0]).all() and refused is None:
        source = np.broadcast_to(logits[:1], logits.shape)
    else:
        source = lay_out(layout, logits)
    counts[
        "steps of logits", "zero" if 0 in source.strides else "negative" if min(source.strides) < 0 else "other"
    ] += 1
    weight = None if scene.weight is None else lay_out(choose(rng, VECTORS), scene.weight[rows])
    direction = lay_out(choose(rng, MATRICES), scene.direction[rows])
    losses, losses_clean = guarded(choose(rng, VECTORS[:-1]), (len(rows),), choose(rng, [np.float64, scene.dtype]))
    out, out_clean = guarded(out_layout, logits.shape, logits.dtype)
    if alias == "same" and source.flags.writeable and 0 not in source.strides:
        out, out_clean = source, None
    elif alias == "overlapping" and scene.loss.backend != "numpy":  # those go block by block; only "same" is promised
        source, out = overlapping(rng, logits)
        out_clean = None
    elif alias == "direction" and operation == "hessian_product" and direction.flags.writeable:
        out, out_clean = direction, None
    elif alias == "weight" and weight is not None and operation == "per_example":  # noqa: SIM102
        if weight.flags.writeable and weight.dtype.isnative:
            losses, losses_clean = weight, None
    call = Call(source, lay_out_targets(rng, targets[rows]), weight, direction, losses, out)

    before = [None if a is None else a.copy() for a in (source, weight, direction)]
    expected_error = first_bad(scene, targets, rows, bad_rows) if spoilt else None
    try:
        results = run(scene, call, backend=cpu, operation=operation)
    except TargetError as error:
        expect(expected_error is not None, f"unexpected error: {error}")
        expect(str(error).startswith(expected_error), f"the error names another target: {error}; not {expected_error}")
        results = None
    except InputError as error:
        expect(refused is not None and str(error).startswith(refused), f"unexpected error: {error}")
        results = None
    else:
        expect(refused is None, f"no error, but {refused}, is negative")
        expect(expected_error is None, f"no error, but {expected_error} is bad")
    counts["outcomes", "refused, as it must be" if results is None else "within the bound"] += 1
    shared = "the logits" if out is source else "another input" if alias in ("direction", "weight") else "nothing"
    counts["result shares memory with", "part of the logits" if alias == "overlapping" else shared] += 1
    for name, array, old, target in (
        ("logits", source, before[0], out),
        ("sample weights", weight, before[1], losses),
        ("direction", direction, before[2], out),
    ):
        if array is not None and not np.may_share_memory(array, target):
            expect(np.array_equal(array, old, equal_nan=True), f"{name} were changed")
    if results is not None:
        compare(scene, rows, operation, results, half)
    for name, clean in (("per_example", losses_clean), ("output", out_clean)):
        expect(clean is None or clean(), f"memory around the {name} was overwritten")


def with_a_negative(scene, logits, rows):
    """Probabilities of which one is negative, and how the error about it must begin: None if its row does not count."""
    i, k = int(scene.rng.integers(len(rows))), int(scene.rng.integers(scene.n_classes))
    if np.isnan(logits[i]).any() or np.isposinf(logits[i]).any():
        return logits, None
    logits = logits.copy()
    logits[i, k] = -0.5
    counts = counted_rows(scene.targets[rows], None if scene.weight is None else scene.weight[rows], scene._ignore())
    return logits, f"row {i}, column {k}: probability -0.5" if counts[i] else None


def compare(scene, rows, operation, results, half):
    bounds = scene.bounds
    if operation in ("evaluate", "per_example"):
        value, limit = scene.value[rows], bounds.value[rows]
        if not np.isfinite(limit).all():
            return
        if results[0].dtype == np.float32:
            limit = limit + np.finfo(np.float32).eps * np.abs(np.where(np.isfinite(value), value, 0))
        if half:
            value, limit = scene.half_value[rows], scene.half_bounds.value[rows]
        expect(agree(results[0], value, limit), lambda: report("losses", scene, rows, results[0], value, limit))
        if scene.native and not half:
            check_totals(scene.evaluation, value, limit)
    if operation == "per_example":
        return
    ours = results[-1]
    truth = {"evaluate": scene.gradient, "hessian_product": scene.product, "hessian_diagonal": scene.diagonal}[
        operation
    ]
    limit = {"evaluate": bounds.gradient, "hessian_product": bounds.product, "hessian_diagonal": bounds.diagonal}[
        operation
    ]
    truth, limit = truth[rows], limit[rows]
    if half:
        ours = from_half(ours)
        truth = scene.half_gradient[rows]
        limit = scene.half_bounds.gradient[rows] + 2.0**-8 * np.abs(np.where(np.isfinite(truth), truth, 0)) + 1e-37
    expect(agree(ours, truth, limit), lambda: report(operation, scene, rows, ours, truth, limit))


def check_totals(evaluation, value, limit):
    infinite = np.flatnonzero(np.isposinf(value))
    expect(evaluation.infinite_row == (infinite[0] if len(infinite) else -1), f"infinite row {evaluation.infinite_row}")
    with np.errstate(invalid="ignore"):
        total = value.sum()
    slack = limit.sum() + 1e-12 * np.abs(np.where(np.isfinite(value), value, 0)).sum()
    expect(agree(evaluation.total, total, slack), f"total {evaluation.total} and not {total}")


def report(what, scene, rows, ours, truth, limit):
    ours = np.asarray(ours, np.float64)
    wrong = ~((np.abs(ours - truth) <= limit) | (ours == truth) | (np.isnan(ours) & np.isnan(truth)))
    where = tuple(int(i) for i in np.argwhere(wrong)[0])
    allowed = np.broadcast_to(limit, np.shape(truth))[where]
    row = rows[where[0]]
    return (
        f"{what}{list(where)}: {ours[where]!r}, reference {truth[where]!r}, allowed {allowed:.3g}; scene's row {row}: "
        f"logits {scene.logits[row][:12].tolist()}, targets {vars(scene.targets[np.array([row])])}"
    )


def first_bad(scene, targets, rows, bad_rows):
    """How the error must begin that names the first target of the case that is not valid, or None if none counts."""
    for place, row in enumerate(rows):
        if row not in bad_rows or (scene.weight is not None and scene.weight[row] == 0):
            continue
        if isinstance(targets, ClassIndices):
            if targets.indices[row] == scene._ignore():
                continue
            return f"row {place}: target {targets.indices[row]} is not a class"
        if isinstance(targets, ClassMixture):
            return f"row {place}: target "
        return f"row {place}, column "
    return None


# ---------------------------------------------------------------- bfloat16


def usable_as_half(logits):
    return logits.dtype == np.float32


def to_half(logits):
    """The upper half of each float32: truncated, for which a NaN stays one."""
    return (np.ascontiguousarray(logits).view(np.uint32) >> 16).astype(np.uint16)


def from_half(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def prepare_half(scene):
    """What the reference says of the logits cut to bfloat16."""
    if not scene.native or scene.dtype != np.float32:
        return
    whole = scene.logits, scene.value, scene.gradient, scene.product, scene.diagonal, scene.bounds
    scene.logits = from_half(to_half(scene.logits))
    scene._ask_reference()
    scene.half_value, scene.half_gradient, scene.half_bounds = scene.value, scene.gradient, scene.bounds
    scene.logits, scene.value, scene.gradient, scene.product, scene.diagonal, scene.bounds = whole


# ---------------------------------------------------------------- calls that must be refused


def malformed(rng, log, counts):
    """A call whose arrays do not fit together, or are of no use: an InputError, never a result and never a crash."""
    n, n_classes = int(rng.integers(2, 9)), int(rng.integers(2, 9))
    dtype = choose(rng, [np.float32, np.float64])
    logits = rng.normal(size=(n, n_classes)).astype(dtype)
    loss = random_loss(rng, n_classes, plain=True)
    while loss.target_form == "labels" or loss.name in OWN_INPUT or not hasattr(loss, "_recipe"):
        loss = random_loss(rng, n_classes, plain=True)
    recipe = loss._recipe(n_classes)
    targets = ClassIndices(rng.integers(0, n_classes, n))
    options = {"per_example": np.empty(n), "gradient": np.empty_like(logits)}
    read_only = np.empty_like(logits)
    read_only.flags.writeable = False
    other = np.float64 if dtype == np.float32 else np.float32
    wrong = {
        "vector of logits": lambda: {"logits": logits[0]},
        "logits of three axes": lambda: {"logits": logits[None]},
        "logits without classes": lambda: {"logits": logits[:, :0]},
        "type of logits": lambda: {
            "logits": logits.astype(choose(rng, [np.int64, np.float16, np.complex128, object, "U3"]))
        },
        "fewer targets": lambda: {"targets": targets[: n - 1]},
        "more targets": lambda: {"targets": ClassIndices(np.zeros(n + 1, int))},
        "columns of soft targets": lambda: {"targets": ClassRows(np.zeros((n, n_classes + rng.choice([-1, 1]))))},
        "shape of output": lambda: {"gradient": np.empty((n, n_classes + 1), dtype)},
        "rows of output": lambda: {"gradient": np.empty((n - 1, n_classes), dtype)},
        "type of output": lambda: {"gradient": np.empty((n, n_classes), other)},
        "read-only output": lambda: {"gradient": read_only},
        "length of losses": lambda: {"per_example": np.empty(n + rng.choice([-1, 1]))},
        "axes of losses": lambda: {"per_example": np.empty((n, 1))},
        "length of weights": lambda: {"row_weight": np.ones(n + rng.choice([-1, 1]))},
        "axes of weights": lambda: {"row_weight": np.ones((n, 1))},
    }
    name = choose(rng, list(wrong))
    log.append(f"malformed {name}: {loss}")
    counts["malformed calls, refused", name] += 1
    arguments = {"logits": logits, "targets": targets} | options | wrong[name]()
    if dispatch.runner(recipe) is not cpu:
        recipe = SoftmaxRecipe()
    try:
        cpu.evaluate(recipe, arguments.pop("logits"), arguments.pop("targets"), **arguments)
    except InputError:
        return
    raise Failure(f"{name} was accepted")


def sparse(rng, log, counts):
    """A product with a CSR matrix that may be corrupt, or its transpose: right numbers or an error, no read outside."""
    n, d, n_classes = (int(x) for x in rng.integers(0, [12, 12, 40]))
    transposed = bool(rng.integers(2))
    per_row = rng.integers(0, 5, n) if d else np.zeros(n, int)
    indptr = np.concatenate([[0], np.cumsum(per_row)]).astype(np.int64)
    indices = rng.integers(0, max(d, 1), indptr[-1])
    data = rng.normal(size=len(indices))
    dtype = choose(rng, [np.float32, np.float64])
    dense = rng.normal(size=(n if transposed else d, n_classes)).astype(dtype)
    index_type = choose(rng, [np.int32, np.int64])
    extremes = [-1, d, d + 7, 2**31 - 1, -(2**31)] + ([2**62, -(2**62)] if index_type == np.int64 else [])
    corrupt = rng.integers(3)
    if corrupt == 1 and len(indices):
        indices[rng.integers(len(indices))] = choose(rng, extremes)
    if corrupt == 2:
        indptr[rng.integers(len(indptr))] = choose(rng, [*extremes, len(indices) + 1])
    counts["sparse matrices", "corrupt" if corrupt else "sound"] += 1
    sound = all(
        0 <= a <= b <= len(indices) and ((indices[a:b] >= 0) & (indices[a:b] < d)).all()
        for a, b in zip(indptr[:-1].tolist(), indptr[1:].tolist(), strict=True)
    )
    out, clean = guarded(choose(rng, OUTPUTS), (d if transposed else n, n_classes), dtype)
    dense = lay_out(choose(rng, MATRICES), dense)
    kind = f"{np.dtype(dtype)}, {np.dtype(index_type)}, transposed {transposed}, corrupt {corrupt}"
    log.append(f"sparse {n} x {d} x {n_classes}, {kind}")
    if transposed and out.flags.writeable:
        out[...] = 1
    outer = None
    if rng.integers(2):
        outer = tuple(
            rng.normal(size=2 * length).astype(dtype)[:: int(rng.integers(1, 3))][:length] for length in (n, n_classes)
        )
    try:
        matrix = indptr.astype(index_type), indices.astype(index_type), data.astype(dtype)
        if transposed:
            cpu.csr_transposed(*matrix, dense, out)
        else:
            cpu.csr_product(*matrix, dense, out, outer=outer)
    except InputError as error:
        expect(not sound or "read-only" in str(error), f"unexpected error: {error}")
        return
    # with no columns there is nothing to read, and a corrupt matrix does no harm
    expect(sound or n_classes == 0, "a corrupt matrix was accepted")
    if sound:
        truth = np.ones((d, n_classes)) if transposed else np.zeros((n, n_classes))
        if outer is not None and not transposed:
            truth += np.multiply.outer(*outer, dtype=np.float64)
        for row, (a, b) in enumerate(itertools.pairwise(indptr)):
            if transposed:
                np.add.at(truth, indices[a:b], np.outer(data[a:b], np.float64(dense[row])))
            else:
                truth[row] += np.float64(data[a:b]) @ np.float64(dense[indices[a:b]])
        expect(agree(out, truth, 1e-4 if dtype == np.float32 else 1e-12), "wrong product")
    expect(clean(), "memory around the output was overwritten")


def probabilities(scene, log, counts):
    """Softmax or sigmoid of the scene's logits, plain or in logarithms."""
    rng = scene.rng
    sigmoid, logarithm = bool(rng.integers(2)), bool(rng.integers(2))
    temperature = float(rng.choice([1.0, 0.5, 3.0]))
    rows = some_rows(rng, scene.n)
    logits = scene.logits[rows]
    layout, out_layout = choose(rng, MATRICES), choose(rng, OUTPUTS)
    log.append(f"probabilities, sigmoid {sigmoid}, log {logarithm}, T {temperature}, {layout} to {out_layout}")
    counts["probabilities", ("sigmoid" if sigmoid else "softmax") + (", logarithms" if logarithm else "")] += 1
    truth = np.empty(logits.shape)
    name = "sigmoid_probabilities" if sigmoid else "softmax_probabilities"
    getattr(reference, name)(logits.astype(np.float64), temperature=temperature, log=logarithm, out=truth)
    if not sigmoid:  # a broken row has no probabilities at all
        truth[(np.isnan(logits) | np.isposinf(logits)).any(axis=1)] = np.nan
    out, clean = guarded(out_layout, logits.shape, logits.dtype)
    source = lay_out(layout, logits)
    if rng.integers(4) == 0 and source.flags.writeable:
        out, clean = source, None
    getattr(cpu, name)(source, temperature=temperature, log=logarithm, out=out)
    reach = np.abs(np.where(np.isfinite(logits), logits, 0)).max(axis=1, initial=0, keepdims=True) / temperature
    u = np.finfo(scene.dtype).eps
    size = 1 + np.abs(np.where(np.isfinite(truth), truth, 0)) if logarithm else 1.0
    limit = np.broadcast_to(u * (16 * size + (4 * reach if temperature != 1 else 0)), truth.shape)
    expect(agree(out, truth, limit), lambda: report("probabilities", scene, rows, out, truth, limit))
    expect(clean is None or clean(), "memory around the output was overwritten")


# ---------------------------------------------------------------- the loop


def play(seed, number, counts):
    """All cases of one scene; returns how many ran."""
    rng = np.random.default_rng([seed, number])
    log = []
    scene = None
    try:
        scene = Scene(rng)
        prepare_half(scene)
        set_num_threads(scene.threads)
        n_cases = CASES_PER_SCENE if scene.n * scene.n_classes < 10000 else 4
        for _ in range(n_cases):
            case(scene, log, counts)
        for _ in range(2):
            malformed(rng, log, counts)
            sparse(rng, log, counts)
            probabilities(scene, log, counts)
    except Exception as error:
        message = error.args[0]() if isinstance(error, Failure) and callable(error.args[0]) else str(error)
        if not isinstance(error, Failure):
            message = traceback.format_exc()
        raise SceneFailure(
            f"FAILED in scene {number}, case {len(log)}\n  {scene}\n  {log[-1] if log else ''}\n  {message}\n"
            f"  repeat: python {Path(__file__).name} --seed {seed} --scene {number}"
        ) from None
    through = "kernel" if scene.native else "loss object"
    counts[f"losses, through the {through}", scene.loss.name] += n_cases
    return n_cases + 6


def grouped(counts):
    """Counts by group and name, as the record shows them."""
    groups = {}
    for (group, name), count in sorted(counts.items()):
        groups.setdefault(group, {})[name] = count
    return groups


CHUNK = 20


def play_some(seed, first):
    """The scenes of a chunk; returns how many cases ran, and their counts."""
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    counts = Counter()
    return sum(play(seed, number, counts) for number in range(first, first + CHUNK)), counts


def chunks(seed, first, processes):
    """What `play_some` returns for one chunk after the other, without end."""
    firsts = itertools.count(first, CHUNK)
    if processes == 1:
        yield from (play_some(seed, number) for number in firsts)
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        # a few chunks ahead of what is wanted, and no more: a pool takes all that a counter gives
        waiting = [pool.apply_async(play_some, (seed, next(firsts))) for _ in range(2 * processes)]
        while True:
            played = waiting.pop(0).get()
            waiting.append(pool.apply_async(play_some, (seed, next(firsts))))
            yield played


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1_000_000, help="stop after so many")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scene", type=int, help="play only this one")
    parser.add_argument("--first", type=int, default=0, help="begin with this scene")
    parser.add_argument("--processes", type=int, default=1, help="play scenes side by side")
    parser.add_argument("--record", action="store_true", help="write record.json beside this file")
    options = parser.parse_args()
    counts, cases, scenes, start = Counter(), 0, 0, time.monotonic()
    try:
        if options.scene is not None:
            warnings.simplefilter("ignore")
            np.seterr(all="ignore")
            play(options.seed, options.scene, counts)
            print("passed")
            return
        for played, found in chunks(options.seed, options.first, options.processes):
            cases, scenes = cases + played, scenes + CHUNK
            counts.update(found)
            if scenes % 2000 == 0:
                print(f"{cases} cases in {scenes} scenes, {time.monotonic() - start:.0f} s", flush=True)
            if cases >= options.cases or time.monotonic() - start >= options.seconds:
                break
    except SceneFailure as failure:
        sys.exit(str(failure))
    record = {
        "what": "random calls of every loss of the catalogue, held to the NumPy reference",
        "outcome": "all passed",
        "seed": options.seed,
        "first_scene": options.first,
        "scenes": scenes,
        "cases": cases,
        "seconds": round(time.monotonic() - start),
        "native_sources": native_sources(),
        "instruction_level": _native.level(),
        "machine": machine(),
        "counts": grouped(counts),
    }
    print(f"{cases} cases in {scenes} scenes passed, {record['seconds']} s, seed {options.seed}")
    for group, parts in record["counts"].items():
        print(f"  {group}: {', '.join(f'{name} {count}' for name, count in parts.items())}")
    if options.record:
        RECORD.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
