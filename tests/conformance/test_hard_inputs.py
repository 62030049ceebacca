"""Every loss against 50-digit arithmetic on inputs chosen to hurt, from 1 to 50 000 classes, in the backend it runs on.

Rows consist of a few kinds of classes that are alike, so that the exact value is a sum over the kinds: exact, and
cheap however many classes there are. The bound is the one of docs/losses.md, as tests/fuzz/bounds.py computes it.
"""

from __future__ import annotations

import importlib.util
import pathlib
import warnings

import numpy as np
import pytest

import kullback.kernels as kernels
from kullback.losses import CATALOGUE, CrossEntropyFromProbabilities, NegativeLogLikelihood
from kullback.targets import ClassIndices, ClassMixture, ClassRows, LabelRows

HERE = pathlib.Path(__file__).parent


def _load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


catalogue = _load("catalogue", HERE / "catalogue.py")
bounds = _load("bounds", HERE.parent / "fuzz" / "bounds.py")
exact = catalogue.exact
FAMILIES = {**catalogue.SOFTMAX, **catalogue.SIGMOID, **catalogue.MARGIN, **catalogue.OTHERS}
CLASSES = [1, 2, 3, 10, 64, 65, 1000, 50000]
SHARED = dict.fromkeys((3, 65, 1000), ("rows", "mixtures")) | {64: ("rows",)}  # where targets are shared, too
SECOND = (3, 64, 65, 1000, 50000)  # numbers of classes with which Hessians are looked at as well


def hard_rows(dtype, n_classes):
    """Rows (R, C): ordinary, huge, nearly tied, saturated, subnormal and masked, of five kinds of classes and one."""
    info = np.finfo(dtype)
    big = 1e4 if dtype == np.float64 else 80.0
    kind = np.arange(n_classes) % 5
    last, first = np.arange(n_classes) == n_classes - 1, np.arange(n_classes) == 0
    ordinary = np.array([0.31, -1.27, 2.03, -0.13, 0.71])
    rows = [
        ordinary[kind] + 3.3 * last,
        big * np.array([0.37, -1, 0.11, 0.93, -0.5])[kind] + (big - 0.93 * big) * last,
        1 + info.eps * np.array([0, 2, -1, 3, 1])[kind] + info.eps * 5 * last,
        np.where(last, big, -big),
        np.where(first, 30.5, 0.0),
        info.smallest_subnormal * np.array([0, 1, -3, 7, -1])[kind] + info.tiny * last,
        np.full(n_classes, -big) + 1.5 * last,  # no hinge at its corner, where it has no second derivative
        np.where((kind == 1) & ~last & ~first, -np.inf, ordinary[kind]) + 2.2 * last,
    ]
    return np.array(rows).astype(dtype)


def masses_of(rng, loss, rows, form):
    """Targets of the form, and each row's mass on every class (R, C)."""
    n, c = rows.shape
    kind = np.arange(c) % 5
    if form == "labels":
        labels = np.where(
            rng.integers(0, 2, (n, 1)), np.array([1, 0, 0.3, 1, 0])[kind], np.array([0, 1, 0, 0.9, 0])[kind]
        )
        return LabelRows(labels), labels
    if form == "rows":
        soft = np.where(np.isneginf(rows), 0, np.array([0.1, 0.3, 0.0, 0.2, 0.4])[kind])
        soft /= np.maximum(soft.sum(axis=1, keepdims=True), 1e-300)
        return ClassRows(soft), soft
    index = np.array([c - 1 if i % 2 else 0 for i in range(n)]) if c > 1 else np.zeros(n, int)
    if form == "mixtures":
        ends = (index[:, None] == np.arange(c)), (c - 1 - index[:, None] == np.arange(c))
        return ClassMixture(index, c - 1 - index, 0.3), 0.3 * ends[0] + (1 - 0.3) * ends[1]
    return ClassIndices(index), (index[:, None] == np.arange(c)).astype(np.float64)


def kinds_of(row, mass, direction):
    """Classes that are alike: one of each kind (K,), and how many there are (K,)."""
    table = np.column_stack([row, mass, direction, np.arange(len(row)) % 5])
    _, one, copies = np.unique(table, axis=0, return_index=True, return_counts=True)
    return one, copies


def truth_of(loss, definition, row, s, direction, second):
    """Exact value, and gradient, Hessian product and diagonal (K,) for one class of each kind, with those classes."""
    one, copies = kinds_of(row, s, direction)
    rest = copies > 1  # each kind is one class whose slope is taken, and the others
    index = np.concatenate([one, one[rest]])
    many = np.concatenate([np.ones(len(one), int), copies[rest] - 1])
    value = definition(loss, s, index, many)
    return one, exact.derivatives(value, row[index], direction[index], along=range(len(one)), second=second)


def forms_of(name, loss, n_classes):
    """The target forms to look at."""
    if loss.target_form == "labels":
        return ["labels"]
    shared = SHARED.get(n_classes, ())
    if name in catalogue.DIVERGENCES:
        return ["rows", *shared[1:]]
    if name in catalogue.MARGIN:  # of rivals that tie for the largest the first counts: no slope a difference finds
        shared = shared[:1]
    return ["indices", *shared]


def some_rows(dtype, n_classes, turn):
    """All rows for three and for ten classes; two of them for other numbers, in turn, or four of long rows."""
    every = hard_rows(dtype, n_classes)
    if n_classes in (3, 10):
        return every
    every = np.roll(every, n_classes + (dtype == np.float32) + turn, axis=0)
    return every[::2] if n_classes in (65, 1000) and turn < 2 else every[[0, 3]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", CLASSES)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_loss_is_exact_on_hard_inputs(rng, name, n_classes, dtype):
    make, definition = FAMILIES[name]
    loss = make(n_classes)
    for turn, form in enumerate(forms_of(name, loss, n_classes)):
        check(rng, name, loss, definition, some_rows(dtype, n_classes, turn), form)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [64, 65, 1000])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_loss_is_exact_on_every_hard_row(rng, name, n_classes, dtype):
    make, definition = FAMILIES[name]
    loss = make(n_classes)
    for form in forms_of(name, loss, n_classes):
        check(rng, name, loss, definition, hard_rows(dtype, n_classes), form)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [190, 1000, 50000])
@pytest.mark.parametrize("name", ["weston_watkins", "weston_watkins, squared"])
def test_hinges_with_mass_on_many_classes(rng, name, n_classes, dtype):
    make, definition = FAMILIES[name]
    loss, rows = make(n_classes), hard_rows(dtype, n_classes)
    check(rng, name, loss, definition, rows, "rows")
    # relative to itself, too: squares of scores far apart are sums of up to C squares, less what is not in them
    most = np.finfo(dtype).eps * (n_classes if loss.squared else 32)
    targets, masses = masses_of(rng, loss, rows, "rows")
    direction = np.zeros(n_classes)
    for backend in kernels.BACKENDS:
        with kernels.using(backend):
            found = loss.per_example(rows, targets)
        for row, mass, value in zip(rows, masses, found, strict=True):
            s = catalogue.effective(loss, mass)
            one, copies = kinds_of(row, s, direction)
            true = float(definition(loss, s, one, copies)([exact.mp.mpf(float(x)) for x in row[one]]))
            assert abs(value - true) <= most * true, (backend, row[:6])


def check(rng, name, loss, definition, rows, form):
    """All that the loss computes on these rows, by every backend, within the bounds of the exact numbers."""
    n_classes, u = rows.shape[1], np.finfo(rows.dtype).eps / 2
    if n_classes <= 2 or getattr(loss, "label_smoothing", 0) or form == "labels":
        rows = rows[np.isfinite(rows).all(axis=1)]  # a masked class has no mass
    second = n_classes in SECOND
    has_kinks = loss.link == "none" or name == "logit_l1"
    direction = np.broadcast_to(np.array([1, -0.5, 0.25, 2, -1])[np.arange(n_classes) % 5], rows.shape)
    direction = direction.astype(rows.dtype)
    targets, masses = masses_of(rng, loss, rows, form)
    results = []
    for backend in kernels.BACKENDS:
        with kernels.using(backend), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = list(loss.value_and_gradient(rows, targets, reduction="none"))
            if second:
                found.append(loss.hessian_product(rows, targets, direction, reduction="none"))
                found.append(loss.hessian_diagonal(rows, targets, reduction="none"))
            results.append(found)
    for i, row in enumerate(rows):
        weighted = name in catalogue.SOFTMAX | catalogue.MARGIN | catalogue.DIVERGENCES | catalogue.GIVEN
        s = catalogue.effective(loss, masses[i]) if weighted else masses[i]
        if isinstance(targets, LabelRows) and name in catalogue.OTHERS:
            s = np.ones(n_classes) / n_classes
        one, (value, *slopes) = truth_of(loss, definition, row, s, direction[i], second or has_kinks)
        limit = bounds.Bounds(loss, row[None], targets[i : i + 1], np.ones(1), np.array([float(value)]), 1.0, 2.0, u)
        noise = 1e-60  # of second differences
        limits = [limit.gradient, limit.product + noise, limit.diagonal + noise]
        # at a kink a difference is no slope; second differences are of the size of 1/h there
        smooth = np.full(len(one), True) if not has_kinks else np.abs(exact.floats(slopes[-1])) < 1e20
        for backend, found in zip(kernels.BACKENDS, results, strict=True):
            at = f"{form}, row {i} {row[:6]}, {backend}"
            assert abs(found[0][i] - value) <= limit.value[0], (at, found[0][i], float(value))
            for which, (ours, true, most) in enumerate(zip(found[1:], slopes, limits, strict=False)):
                if which == 1 and not smooth.all():
                    continue  # the direction crosses the kink
                error = np.abs(ours[i][one] - exact.floats(true))[smooth]
                assert (error <= most[0, 0]).all(), (at, ("gradient", "product", "diagonal")[which], error.max(), most)


def given_rows(dtype, n_classes):
    """Probabilities of five kinds of classes: ordinary, nearly equal, one class certain, some 0, far from adding up."""
    kind, last = np.arange(n_classes) % 5, np.arange(n_classes) == n_classes - 1
    ordinary = np.array([0.02, 0.5, 1.2, 0.3, 0.07])
    rows = [
        ordinary[kind] / n_classes + 0.3 * last,
        (1 + np.finfo(dtype).eps * np.array([0, 2, -1, 3, 1]))[kind] / n_classes,
        np.where(last, 1.0, 1e-30),
        np.where((kind == 2) & ~last, 0.0, ordinary[kind]),
        1e6 * ordinary[kind],
    ]
    return np.array(rows).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [1, 3, 65, 1000, 50000])
@pytest.mark.parametrize("name", catalogue.GIVEN)
def test_hessians_of_losses_of_given_probabilities_are_exact(rng, name, n_classes, dtype):
    make, definition = catalogue.GIVEN[name]
    loss = make(n_classes)
    rows = given_rows(dtype, n_classes)
    if name.startswith("negative"):
        rows = np.log(np.where(rows == 0, 1, rows))
    for form in ("indices", "rows", "mixtures") if n_classes < 50000 else ("indices",):
        check(rng, name, loss, definition, rows, form)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", CLASSES)
def test_losses_of_given_probabilities_are_exact(rng, n_classes, dtype):
    """Their formulas need no sum over classes, but for the one that makes the row sum to 1."""
    u = np.finfo(dtype).eps / 2
    p = rng.dirichlet(np.full(n_classes, 0.3), 6) + 1e-9
    p[1:3] *= 3.7  # need not sum to 1
    p[3] = 1e-30
    p[3, 0] = 1.0
    given = p.astype(dtype)
    y = rng.integers(0, n_classes, 6)
    y[3] = n_classes - 1
    with warnings.catch_warnings():  # those that do not sum to 1
        warnings.simplefilter("ignore")
        values, gradient = NegativeLogLikelihood().value_and_gradient(np.log(given), y, reduction="none")
    np.testing.assert_array_equal(values, -np.float64(np.log(given)[np.arange(6), y]))
    np.testing.assert_array_equal(gradient, -(y[:, None] == np.arange(n_classes)).astype(dtype))
    loss = CrossEntropyFromProbabilities()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values, gradient = loss.value_and_gradient(given, y, reduction="none")
    for i in range(6):
        total = exact.mp.fsum(given[i].tolist())
        mine = exact.mp.mpf(float(given[i, y[i]]))
        share = mine / total
        clipped = min(max(share, exact.mp.mpf(loss.clip)), 1 - exact.mp.mpf(loss.clip))
        assert abs(values[i] - float(-exact.mp.log(clipped))) <= 16 * u * (1 + abs(values[i]))
        inside = clipped == share
        slope = np.full(n_classes, float(1 / total) if inside else 0.0)
        slope[y[i]] = float(1 / total - 1 / mine) if inside else 0.0
        np.testing.assert_allclose(gradient[i], slope, rtol=32 * u, atol=32 * u)


def test_all_of_the_catalogue_is_here():
    assert {make(3).name for make, _ in (FAMILIES | catalogue.GIVEN).values()} == set(CATALOGUE)
