"""Checks that a loss keeps the promises every loss here keeps; for users' own losses and for the built-in ones.

>>> from kullback.losses import Focal
>>> check_loss(Focal()).failed
()
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kullback.errors import InfiniteLossWarning, InputError, KullbackError, NoProbabilitiesError, NotConvergedWarning
from kullback.kernels.threads import get_num_threads, set_num_threads
from kullback.losses import CATALOGUE, LogitL1, LogitL2, Loss, parse_loss
from kullback.losses.base import class_count
from kullback.losses.from_probabilities import ClippedWarning
from kullback.losses.reduction import Reduction
from kullback.targets import ClassIndices, ClassMixture, ClassRows, LabelRows, Targets

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Report:
    """What was checked.

    Attributes:
        passed: names of the checks that hold.
        failed: name and explanation of those that do not.
        skipped: name and reason of those that do not apply.
    """

    passed: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    skipped: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        lines = [f"ok      {name}" for name in self.passed]
        lines += [f"skipped {name}: {why}" for name, why in self.skipped]
        lines += [f"FAILED  {name}: {why}" for name, why in self.failed]
        return "\n".join(lines)


class ConformanceError(AssertionError):
    """A loss breaks a promise; the message lists every check that failed."""


class _Skip(Exception):  # noqa: N818  not an error: the check does not apply
    pass


def check_loss(
    loss: Loss,
    *,
    n_classes: int | Sequence[int] = (1, 2, 4, 65),
    seed: int = 0,
    tolerance: float = 1e-5,
    raises: bool = True,
) -> Report:
    """Run the conformance suite on a loss.

    Checks, for each number of classes, the gradient and the Hessian against differences of the value, ignored and
    weightless rows, masked classes, ties, bad targets, weights as repetition, reductions, aliasing and supplied
    outputs, float32, numbers of threads, target forms against each other, linearity in the target, classes that
    change places, a constant added to all logits of a row, spelling, the claims `convex`, `bounded_gradient` and
    `ceiling`, and that `floor`, `best_constant`, `elicited` and `recover` are what a minimiser of the expected loss
    finds (the last three for up to 4 classes).

    What no such suite can see: a loss that is consistent, and not the one you meant (compare it with numbers you
    know); its accuracy beyond `tolerance`; more classes than it is tried on; speed and memory; whether `convex` is
    False or `ceiling` too high without need.

    Args:
        loss: any loss on (N, C) inputs.
        n_classes: C of the data it is tried on, one or several; as its class vectors say, if it has any.
        seed: of the random data.
        tolerance: relative, of what comes from differences and minimisers.
        raises: whether to raise at the end if a check failed.

    Returns:
        What passed, failed and was skipped. A check passes if it does for every C that it applies to.

    Raises:
        InputError: for anything but a loss object.
        ConformanceError: listing all checks that failed, if `raises`.
    """
    if not isinstance(loss, Loss):
        made = (
            f"make one: check_loss({loss.__name__}())" if isinstance(loss, type) else "its spelling goes to parse_loss"
        )
        raise InputError(f"check_loss takes a loss object, not {loss!r}; {made}")
    own = _class_count(loss)
    wanted = (n_classes,) if isinstance(n_classes, int) else tuple(n_classes)
    cases = [_Case(loss, c, seed, tolerance) for c in (wanted if own is None else (own,))]
    passed, failed, skipped = [], [], []
    for name, check in _CHECKS.items():
        verdicts = [_verdict(check.run, case) for case in cases if case.n_classes <= check.most_classes]
        wrong = next((verdict for verdict in verdicts if verdict and not isinstance(verdict, _Skip)), None)
        if wrong:
            failed.append((name, str(wrong)))
        elif None in verdicts:
            passed.append(name)
        else:
            skipped.append((name, str(verdicts[0]) if verdicts else f"it is tried for C ≤ {check.most_classes} only"))
    report = Report(tuple(passed), tuple(failed), tuple(skipped))
    if failed and raises:
        raise ConformanceError(f"{loss} breaks {len(failed)} of {len(_CHECKS)} checks:\n{report}")
    return report


def _verdict(check: Callable[[_Case], None], case: _Case) -> _Skip | str | None:
    """None if the check passes, why it does not apply, or what is wrong."""
    try:
        with warnings.catch_warnings():
            for expected in (ClippedWarning, NotConvergedWarning, InfiniteLossWarning):
                warnings.simplefilter("ignore", expected)
            check(case)
    except _Skip as why:
        return why
    except Exception as error:  # of the loss under test: whatever it raises is a check that fails
        said = " ".join(str(error).split())
        plain = isinstance(error, AssertionError | KullbackError)
        text = f"C = {case.n_classes}: " + (said if plain else f"{type(error).__name__}: {said}")
        return text if len(text) < 400 else text[:400] + " …"
    return None


class _Case:
    """A loss and data to try it on."""

    def __init__(self, loss: Loss, n_classes: int, seed: int, tolerance: float) -> None:
        self.loss, self.tolerance = loss, tolerance
        self.n_classes = n_classes
        self.rng = np.random.default_rng(seed)
        self.n = max(12, n_classes)
        self.x = self.inputs(self.n)
        if loss.target_form == "labels":
            self.targets: Any = self.rng.integers(0, 2, (self.n, self.n_classes)).astype(np.float64)
        else:
            self.targets = self.rng.permutation(np.arange(self.n) % self.n_classes)  # every class is a target

    @property
    def columns(self) -> Any:
        """The classes that a check of one class after the other looks at: all, or some of many."""
        c = self.n_classes
        return range(c) if c <= 8 else sorted({0, 1, c // 2, c - 2, c - 1, *self.rng.integers(0, c, 2).tolist()})

    def as_inputs(self, z: Float) -> Float:
        """What the loss takes for these logits."""
        if self.loss.link not in ("identity", "log"):
            return z
        log_p = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
        return np.asarray(np.exp(log_p) if self.loss.link == "identity" else log_p)

    def inputs(self, n: int, spread: float = 2.0) -> Float:
        """What the loss takes: logits, log-probabilities or probabilities, (n, C)."""
        return self.as_inputs(self.rng.normal(size=(n, self.n_classes)) * spread)

    def shared(self, n: int) -> Targets:
        """Soft targets of n rows that keep away from certainty."""
        if self.loss.target_form == "labels":
            return LabelRows(self.rng.uniform(0.1, 0.9, (n, self.n_classes)))
        return ClassRows(0.9 * self.rng.dirichlet(np.ones(self.n_classes), n) + 0.1 / self.n_classes)

    def close(self, ours: Any, theirs: Any, what: str, tolerance: float | None = None) -> None:
        """Equal, relative to the size of the whole."""
        ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
        scale = 1.0 + float(np.abs(theirs[np.isfinite(theirs)]).max(initial=0.0))
        limit = (self.tolerance if tolerance is None else tolerance) * scale
        wrong = ~((np.abs(ours - theirs) <= limit) | (ours == theirs) | (np.isnan(ours) & np.isnan(theirs)))
        if wrong.any():
            place = tuple(int(i) for i in np.argwhere(np.atleast_1d(wrong))[0])
            one, other = np.atleast_1d(ours)[place], np.atleast_1d(theirs)[place]
            raise AssertionError(f"{what}: {one:.10g} against {other:.10g} at {place}")


def _class_count(loss: Loss) -> int | None:
    """How many classes the loss' own vectors, or its terms', say there are."""
    counts = [class_count(part) for _, part in _terms(loss)]
    return next((count for count in counts if count is not None), None)


def _values(case: _Case, x: Float, targets: Any = None) -> Float:
    return np.asarray(case.loss(x, case.targets if targets is None else targets, reduction="none"))


def _gradient(case: _Case) -> None:
    h = 1e-4
    for targets in (case.targets, case.shared(case.n)):
        _, gradient = case.loss.value_and_gradient(case.x, targets, reduction="none")
        for k in case.columns:
            unit = np.zeros_like(case.x)
            unit[:, k] = np.abs(case.x[:, k]) if case.loss.link == "identity" else 1.0
            f = _along(case, unit, targets, h)
            slope = (8 * (f[3] - f[1]) - (f[4] - f[0])) / (12 * h * unit[:, k])
            away = _smooth(f)
            case.close(gradient[away, k], slope[away], f"∂loss/∂input {k} is not the slope of the value")


def _direction(case: _Case) -> Float:
    """A random direction that keeps inputs valid."""
    return np.asarray(case.rng.normal(size=case.x.shape) * (case.x if case.loss.link == "identity" else 1.0))


def _along(case: _Case, v: Float, targets: Any, h: float) -> list[Float]:
    """The values at five points along a direction, h apart."""
    return [_values(case, case.x + t * h * v, targets) for t in (-2, -1, 0, 1, 2)]


def _smooth(f: list[Float]) -> Any:
    """Rows that have no kink between the points: one-sided slopes agree."""
    bends = [f[0] - 2 * f[1] + f[2], f[1] - 2 * f[2] + f[3], f[2] - 2 * f[3] + f[4]]
    return np.ptp(bends, axis=0) <= 1e-9 * (1 + np.abs(f[2]))


def _hessian(case: _Case) -> None:
    for targets in (case.targets, case.shared(case.n)):
        v, h, loose = _direction(case), 1e-4, 100 * case.tolerance
        product = case.loss.hessian_product(case.x, targets, v, reduction="none")
        pulls = [
            case.loss.value_and_gradient(case.x + t * h * v, targets, reduction="none")[1] for t in (-2, -1, 0, 1, 2)
        ]
        slope = (8 * (pulls[3] - pulls[1]) - (pulls[4] - pulls[0])) / (12 * h)
        # where the gradient has no kink between the points, its steps are alike, or change evenly
        steps = np.diff(pulls, axis=0)
        uneven = np.abs(np.diff(steps, n=2, axis=0)).max(axis=(0, 2), initial=0.0)
        away = uneven <= 0.3 * loose * h * (1 + np.abs(slope).max(initial=0.0))
        case.close(product[away], slope[away], "the Hessian product is not the slope of the gradient", loose)
        if case.n_classes > 8 and case.loss.backend == "numpy":
            continue  # by differences of differences it takes seconds
        diagonal = case.loss.hessian_diagonal(case.x, targets, reduction="none")
        for k in case.columns:
            unit = np.zeros_like(case.x)
            unit[:, k] = 1.0
            own = case.loss.hessian_product(case.x, targets, unit, reduction="none")[:, k]
            case.close(diagonal[:, k], own, f"the Hessian's diagonal {k} is not its product with a unit vector", loose)


def _ignored(case: _Case) -> None:
    weight = np.ones(case.n)
    weight[[1, 4]] = 0
    x = case.x.copy()
    x[1], x[4] = np.nan, np.inf
    kept = np.flatnonzero(weight)
    value, gradient = case.loss.value_and_gradient(x, case.targets, sample_weight=weight, reduction="none")
    case.close(value[kept], _values(case, case.x)[kept], "rows of weight 0 change the others", 1e-9)
    assert not value[[1, 4]].any(), "rows of weight 0 have a loss"
    assert not gradient[[1, 4]].any(), "rows of weight 0 have a gradient"
    ignored = getattr(case.loss, "ignore_index", None)
    if ignored is None or case.loss.target_form == "labels":
        return
    targets = case.targets.copy()
    targets[[1, 4]] = ignored
    value, gradient = case.loss.value_and_gradient(x, targets, reduction="none")
    assert not value[[1, 4]].any(), f"rows of class {ignored} have a loss"
    assert not gradient[[1, 4]].any(), f"rows of class {ignored} have a gradient"
    case.close(value[kept], _values(case, case.x)[kept], "ignored rows change the others", 1e-9)


def _broken(case: _Case) -> None:
    x = case.x.copy()
    x[3, 0] = np.nan
    values = _values(case, x)
    assert np.isnan(values[3]), "a NaN input does not show in its row's loss"
    others = np.arange(case.n) != 3
    case.close(values[others], _values(case, case.x)[others], "a NaN input spoils other rows", 1e-12)


def _weights(case: _Case) -> None:
    repeat = case.rng.integers(0, 4, case.n)
    repeat[0] = 2
    whole = case.loss(np.repeat(case.x, repeat, axis=0), np.repeat(case.targets, repeat, axis=0), reduction="sum")
    weighted = case.loss(case.x, case.targets, sample_weight=repeat, reduction="sum")
    case.close(weighted, whole, "an integer weight is not a repetition", 1e-9)
    parts = case.loss.per_example(case.x, case.targets, sample_weight=repeat)
    case.close(parts, repeat * _values(case, case.x), "weights do not multiply the rows' losses", 1e-9)


def _reductions(case: _Case) -> None:
    parts = _values(case, case.x)
    assert parts.shape == (case.n,), f"reduction='none' gives shape {parts.shape}, not ({case.n},)"
    case.close(case.loss(case.x, case.targets, reduction="sum"), parts.sum(), "the sum is not the sum", 1e-9)
    mean = case.loss(case.x, case.targets, denominator="examples")
    case.close(mean, parts.mean(), "the mean over examples is not the mean", 1e-9)
    reductions: tuple[Reduction, ...] = ("mean", "sum", "none")
    for reduction in reductions:
        value, gradient = case.loss.value_and_gradient(case.x, case.targets, reduction=reduction)
        again = case.loss(case.x, case.targets, reduction=reduction)
        case.close(value, again, f"value_and_gradient disagrees with the value under {reduction}", 1e-9)
        assert gradient.shape == case.x.shape, f"the gradient has shape {gradient.shape}"
    nothing = case.loss(case.x[:0], case.targets[:0], empty="zero")
    assert nothing == 0, "a batch of no rows is not 0 with empty='zero'"


def _outputs(case: _Case) -> None:
    _, gradient = case.loss.value_and_gradient(case.x, case.targets)
    own = case.x.copy()
    _, result = case.loss.value_and_gradient(own, case.targets, out=own)
    assert result is own, "out= is not what is returned"
    case.close(own, gradient, "the gradient over its own logits differs", 1e-12)
    wide = np.zeros((2 * case.n, case.n_classes + 3))
    view = wide[::2, 1 : 1 + case.n_classes]
    case.loss.value_and_gradient(case.x, case.targets, out=view)
    case.close(view, gradient, "a strided out= gets something else", 1e-12)
    fortran = np.asfortranarray(case.x)
    fortran.flags.writeable = False
    case.close(_values(case, fortran), _values(case, case.x), "memory layout changes the loss", 1e-12)


def _precision(case: _Case) -> None:
    single = case.x.astype(np.float32)
    value, gradient = case.loss.value_and_gradient(single, case.targets)
    assert gradient.dtype == np.float32, f"float32 inputs give a {gradient.dtype} gradient"
    truth, pull = case.loss.value_and_gradient(single.astype(np.float64), case.targets)
    case.close(value, truth, "float32 disagrees with float64", 1e-5)
    case.close(gradient, pull, "float32's gradient disagrees with float64's", 1e-5)


def _forms(case: _Case) -> None:
    if case.loss.target_form == "labels":
        raise _Skip("labels have one form")
    parts, eye = _values(case, case.x), np.eye(case.n_classes)
    case.close(_values(case, case.x, ClassRows(eye[case.targets])), parts, "one-hot rows differ from indices", 1e-9)
    other = ClassIndices(case.rng.integers(0, case.n_classes, case.n))
    mixed = ClassMixture(case.targets, other.indices, np.full(case.n, 0.3))
    both = 0.3 * eye[case.targets] + 0.7 * eye[other.indices]
    case.close(_values(case, case.x, mixed), _values(case, case.x, ClassRows(both)), "a mixture is not its rows", 1e-9)


def _linear(case: _Case) -> None:
    if case.loss.name == "kullback_leibler":
        raise _Skip("a divergence takes the target's own entropy off")
    a, b = case.shared(case.n), case.shared(case.n)
    assert isinstance(a, ClassRows | LabelRows)
    assert isinstance(b, ClassRows | LabelRows)
    both = type(a)(0.25 * a.rows + 0.75 * b.rows)
    mixed = 0.25 * _values(case, case.x, a) + 0.75 * _values(case, case.x, b)
    case.close(_values(case, case.x, both), mixed, "a soft target does not cost what its parts cost on average", 1e-7)
    if case.loss.target_form == "classes":
        values, gradient = case.loss.value_and_gradient(case.x, ClassRows(0 * a.rows), reduction="none")
        assert not values.any(), "a row of zeros has a loss"
        assert not gradient.any(), "a row of zeros has a gradient"


def _masked(case: _Case) -> None:
    loss, c = case.loss, case.n_classes
    if any(getattr(part, "label_smoothing", 0) for _, part in _terms(loss)):
        raise _Skip("smoothing puts mass on every class")
    nothing = 0.0 if loss.link == "identity" else -np.inf
    if loss.target_form == "labels" or not _alike(loss):
        if c == 1 and loss.target_form == "classes":
            raise _Skip("its only class holds all mass")
        x, targets = case.x.copy(), np.array(case.targets)
        x[:, 0] = nothing
        if loss.target_form == "labels":
            targets[:, 0] = 0
        else:
            targets[targets == 0] = 1
        value, gradient = loss.value_and_gradient(x, targets, reduction="none")
        assert np.isfinite(value).all(), f"a masked class (input {nothing}) without mass gives {value[0]}"
        if loss.link in ("softmax", "sigmoid") and not _minds_sizes(loss):
            x[:, 0] = -600.0 * getattr(loss, "temperature", 1.0)
            case.close(value, _values(case, x, targets), "a masked class costs more than a hopeless one", 1e-9)
        where = 0
    else:
        where = c // 2
        x = np.insert(case.x, where, nothing, axis=1)
        targets = case.targets + (case.targets >= where)
        value, gradient = loss.value_and_gradient(x, targets, reduction="none")
        own, pull = loss.value_and_gradient(case.x, case.targets, reduction="none")
        case.close(value, own, f"one class more that is masked (input {nothing}) changes the loss", 1e-9)
        case.close(np.delete(gradient, where, axis=1), pull, "a masked class changes the others' gradient", 1e-8)
    if loss.link != "identity":
        assert not gradient[:, where].any(), "a masked class has a gradient"


def _order(case: _Case) -> None:
    loss = case.loss
    if not _alike(loss):
        raise _Skip("its class vectors tell the classes apart, or it says that they are not alike")
    order = case.rng.permutation(case.n_classes)
    targets = case.targets[:, order] if loss.target_form == "labels" else np.argsort(order)[case.targets]
    value, gradient = loss.value_and_gradient(np.ascontiguousarray(case.x[:, order]), targets, reduction="none")
    own, pull = loss.value_and_gradient(case.x, case.targets, reduction="none")
    case.close(value, own, "classes that change places change the loss (an ordinal loss says symmetric = False)", 1e-9)
    case.close(gradient, pull[:, order], "the gradient does not move with its class", 1e-8)


def _level(case: _Case) -> None:
    loss = case.loss
    if loss.link != "softmax" or not loss.ignores_level:
        raise _Skip("it does not say that only differences of logits matter")
    shift = case.rng.integers(-5, 6, (case.n, 1)).astype(np.float64)
    value, gradient = loss.value_and_gradient(case.x + shift, case.targets, reduction="none")
    own, pull = loss.value_and_gradient(case.x, case.targets, reduction="none")
    case.close(value, own, "its link is a softmax, but a constant added to a row changes its loss", 1e-8)
    case.close(gradient, pull, "its link is a softmax, but a constant added to a row changes its gradient", 1e-7)
    case.close(loss.probabilities(case.x + shift), loss.probabilities(case.x), "… changes its probabilities", 1e-9)


def _terms(loss: Loss) -> Sequence[tuple[float, Loss]]:
    return getattr(loss, "terms", ((1.0, loss),))


def _alike(loss: Loss) -> bool:
    """Whether the loss treats all classes alike, however many there are."""
    return _class_count(loss) is None and all(getattr(part, "symmetric", True) for _, part in _terms(loss))


def _minds_sizes(loss: Loss) -> bool:
    """Whether something in the loss looks at the logits themselves and not at what their link makes of them."""
    parts = [part for _, part in _terms(loss)]
    if any(getattr(part, "z_loss", 0) or getattr(part, "softcap", None) for part in parts):
        return True
    return any(isinstance(part, LogitL1 | LogitL2) for part in parts)


def _ties(case: _Case) -> None:
    loss, n = case.loss, case.n
    level = case.rng.integers(-3, 4, (n, 1)).astype(np.float64)
    tied = np.repeat(level, case.n_classes, axis=1)
    near = tied + case.rng.integers(-3, 4, tied.shape) * np.spacing(np.abs(level) + 1)
    value, gradient = loss.value_and_gradient(case.as_inputs(tied), case.targets, reduction="none")
    value_, gradient_ = loss.value_and_gradient(case.as_inputs(near), case.targets, reduction="none")
    case.close(value_, value, "nearly equal logits do not cost what equal ones do", 1e-9)
    assert np.isfinite(gradient).all(), "equal logits have a gradient that is not finite"
    assert np.isfinite(gradient_).all(), "nearly equal logits have a gradient that is not finite"
    if loss.target_form == "classes":
        assert not loss.decide(case.as_inputs(tied)).any(), "of equal classes it does not decide for the first"


def _bad_targets(case: _Case) -> None:
    loss, c = case.loss, case.n_classes
    wrong: list[tuple[str, Any]] = []
    if loss.target_form == "labels":
        for bad in (2.0, np.nan):
            rows = np.array(case.targets)
            rows[1, c - 1] = bad
            wrong.append((f"a label of {bad}", rows))
    else:
        for index in (c, -7):
            if index != getattr(loss, "ignore_index", None):
                indices = case.targets.copy()
                indices[1] = index
                wrong.append((f"class {index} of {c}", indices))
        for bad in (-0.5, np.nan):
            soft = np.eye(c)[case.targets]
            soft[1, c - 1] = bad
            wrong.append((f"a soft target of {bad}", ClassRows(soft)))
    methods: list[tuple[str, Callable[..., Any]]] = [
        ("its value", lambda targets: loss(case.x, targets)),
        ("value_and_gradient", lambda targets: loss.value_and_gradient(case.x, targets)),
        ("floor", lambda targets: loss.floor(targets, n_classes=c)),
        ("best_constant", lambda targets: loss.best_constant(targets, n_classes=c)),
    ]
    for what, targets in wrong:
        for where, method in methods:
            said = _refusal(method, targets)
            assert said is not None, f"{where} takes {what}"
            assert "row 1" in said, f"{where}: the error about {what} in row 1 does not name the row: {said}"


def _refusal(method: Callable[[Any], Any], targets: Any) -> str | None:
    """What a method says against the targets, or None if it takes them."""
    try:
        method(targets)
    except InputError as error:
        return str(error)
    return None


def _threads(case: _Case) -> None:
    n = 4096 if case.n_classes <= 8 else 64 if case.loss.backend == "numpy" else 512
    x = case.inputs(n)
    if case.loss.target_form == "labels":
        targets: Any = case.rng.integers(0, 2, x.shape).astype(np.float64)
    else:
        targets = case.rng.integers(0, case.n_classes, n)
    before, results = get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            value, gradient = case.loss.value_and_gradient(x, targets)
            results.append(np.append(gradient.ravel(), value))
    finally:
        set_num_threads(before)
    for threads, result in zip((2, 3), results[1:], strict=True):
        assert np.array_equal(result, results[0], equal_nan=True), f"{threads} threads give other bits than one"


def _spelling(case: _Case) -> None:
    text = str(case.loss)
    if case.loss.name not in CATALOGUE and case.loss.name != "sum":
        raise _Skip(f"{case.loss.name!r} is not registered; kullback.losses.register_loss makes model files read it")
    assert parse_loss(text) == case.loss, f"parse_loss({text!r}) is not the loss"
    assert hash(parse_loss(text)) == hash(case.loss), "equal losses hash differently"


def _convexity(case: _Case) -> None:
    if not case.loss.convex:
        raise _Skip("it does not claim to be convex")
    for spread in (1.0, 10.0):
        a, b = case.inputs(case.n, spread), case.inputs(case.n, spread)
        middle, ends = _values(case, 0.5 * (a + b)), 0.5 * (_values(case, a) + _values(case, b))
        assert (middle <= ends + 1e-9 * (1 + np.abs(ends))).all(), "between two points it lies above their chord"


def _bounds(case: _Case) -> None:
    low = case.loss.floor(case.targets, n_classes=case.n_classes, reduction="none")
    for spread in (1.0, 30.0, 1000.0):
        x = case.inputs(case.n, spread)
        values, gradient = case.loss.value_and_gradient(x, case.targets, reduction="none")
        assert (values <= case.loss.ceiling * (1 + 1e-9) + 1e-12).all(), f"{values.max()} is above the ceiling"
        assert (values >= low - 1e-6 * (1 + np.abs(low))).all() or case.loss.link == "log", "a loss is below the floor"
        if case.loss.bounded_gradient and case.loss.link != "identity":
            assert np.abs(gradient).max() < 1e4, "a gradient beyond 10 000 although it claims a bound"


def _start(case: _Case) -> None:
    n = case.n_classes
    x = np.full((n if case.loss.target_form == "classes" else 2, n), {"identity": 1 / n, "log": -math.log(n)}.get(
        case.loss.link, 0.0))  # fmt: skip
    half = np.arange(n) % 2
    targets = np.arange(n) if case.loss.target_form == "classes" else np.array([half, 1 - half])
    case.close(case.loss.initial_value(n), case.loss(x, targets), "initial_value is not the loss of equal inputs")


def _minimum(case: _Case) -> None:
    if case.loss.link in ("identity", "log"):
        raise _Skip("its inputs are probabilities already")
    for targets in (case.shared(1), case.shared(1)):
        with warnings.catch_warnings():
            warnings.simplefilter("error", NotConvergedWarning)
            try:
                best = np.asarray(case.loss.best_constant(targets))[None, :]
            except NotConvergedWarning as warning:
                raise _Skip(f"it could not be found: {warning}") from None
        lowest = case.loss(best, targets, reduction="sum")
        case.close(case.loss.floor(targets, reduction="sum"), lowest, "the floor of one row is not its best constant's")
        for size in (1e-3, 0.1, 1.0, 5.0):
            for _ in range(5):
                near = best + case.rng.normal(size=best.shape) * size
                value = case.loss(near, targets, reduction="sum")
                assert value >= lowest - case.tolerance * (1 + abs(lowest)), f"{value} next to best_constant's {lowest}"


def _meaning(case: _Case) -> None:
    truth = case.shared(3)
    assert isinstance(truth, ClassRows | LabelRows)
    p = truth.rows
    try:
        q = case.loss.elicited(p)
    except NoProbabilitiesError as error:
        if "CrossEntropy" not in str(error):
            raise AssertionError("its error does not name a loss that has probabilities") from None
        raise _Skip("it elicits no probabilities, and says so") from None
    case.close(case.loss.recover(q), p, "recover does not undo elicited")
    case.close(np.exp(case.loss.recover_log(np.log(q))), p, "recover_log does not undo elicited")
    assert case.loss.proper == np.allclose(p, q, atol=1e-3) or not case.loss.proper, "it is not proper: q is not p"
    if case.loss.link in ("identity", "log"):
        return
    for i in range(len(p)):
        row = type(truth)(p[i : i + 1])
        reported = case.loss.probabilities(np.asarray(case.loss.best_constant(row))[None, :])[0]
        case.close(reported, q[i], "elicited is not what the minimiser reports")


def _decisions(case: _Case) -> None:
    decided = case.loss.decide(case.x)
    shape = (case.n, case.n_classes) if case.loss.target_form == "labels" else (case.n,)
    assert decided.shape == shape, f"decide gives shape {decided.shape}, not {shape}"
    assert decided.dtype.kind == "i", f"decide gives {decided.dtype}, not integers"
    try:
        p, log_p = case.loss.probabilities(case.x), case.loss.log_probabilities(case.x)
    except NoProbabilitiesError:
        raise _Skip("it elicits no probabilities, and says so") from None
    case.close(np.exp(log_p), p, "log_probabilities is not the logarithm of probabilities")
    if case.loss.target_form == "classes":
        case.close(p.sum(axis=1), np.ones(case.n), "probabilities do not sum to one")


class _Check(NamedTuple):
    """A check, and the most classes that it is tried on: minimisers take long for many."""

    run: Callable[[_Case], None]
    most_classes: float = math.inf


_CHECKS = {
    "gradient is the slope of the value": _Check(_gradient),
    "Hessian is the slope of the gradient": _Check(_hessian),
    "rows that do not count are not looked at": _Check(_ignored),
    "a broken row shows and stays alone": _Check(_broken),
    "a masked class is no class": _Check(_masked),
    "classes may change places": _Check(_order),
    "only differences of logits matter where the link is a softmax": _Check(_level),
    "ties": _Check(_ties),
    "bad targets are named": _Check(_bad_targets),
    "weights are repetitions": _Check(_weights),
    "reductions agree": _Check(_reductions),
    "outputs may be supplied, in any layout": _Check(_outputs),
    "float32 follows float64": _Check(_precision),
    "any number of threads gives the same bits": _Check(_threads),
    "target forms agree": _Check(_forms),
    "linear in the target": _Check(_linear),
    "spelling reads back": _Check(_spelling),
    "convex where claimed": _Check(_convexity),
    "floor, ceiling and gradient bound": _Check(_bounds, 8),
    "initial value": _Check(_start),
    "best constant is a minimum": _Check(_minimum, 8),
    "elicited and recover": _Check(_meaning, 8),
    "decisions and probabilities": _Check(_decisions),
}


def checks() -> Iterator[str]:
    """The names of the checks that `check_loss` runs."""
    yield from _CHECKS
