"""Random losses with random settings, random logits, random targets."""

from __future__ import annotations

import dataclasses

import numpy as np

from kullback.errors import InputError
from kullback.losses import CATALOGUE
from kullback.targets import ClassIndices, ClassMixture, ClassRows, LabelRows

INTEGERS = [np.dtype(t) for t in (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)]
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 129, 255, 256, 257, 300)

# losses whose rows are not raw scores
OWN_INPUT = {"negative_log_likelihood", "cross_entropy_from_probabilities"}


def _vector(rng, n, low, zeros):
    vector = rng.uniform(low, 3, n)
    if zeros:
        vector[rng.uniform(size=n) < 0.2] = 0
        vector[rng.integers(n)] = 1.0
    return tuple(vector)


# what each setting may be; a setting that is not listed here makes `random_loss` fail, so that none is left out
SETTINGS = {
    "class_weight": lambda rng, c: None if rng.integers(2) else _vector(rng, c, 0.01, True),
    "positive_weight": lambda rng, c: None if rng.integers(2) else _vector(rng, c, 0.1, False),
    "label_smoothing": lambda rng, c: rng.choice([0.0, 0.0, 0.1, 0.9]),
    "temperature": lambda rng, c: rng.choice([1.0, 1.0, 0.5, 1.7, 30.0]),
    "ignore_index": lambda rng, c: [None, -100, 0, c - 1][rng.integers(4)],
    "priors": lambda rng, c: None if rng.integers(2) else _vector(rng, c, 0.1, False),
    "class_counts": lambda rng, c: _vector(rng, c, 0.1, False),
    "adjustment": lambda rng, c: rng.choice([0.5, 1.0, 2.0]),
    "softcap": lambda rng, c: [None, 20.0, 3.0][rng.integers(3)],
    "z_loss": lambda rng, c: rng.choice([0.0, 0.01, 1.0]),
    "gamma": lambda rng, c: rng.choice([0.0, 0.1, 0.5, 1.0, 2.0, 5.0]),
    "gamma_positive": lambda rng, c: rng.choice([0.0, 0.3, 0.5, 1.0, 3.0]),
    "gamma_negative": lambda rng, c: rng.choice([0.0, 0.5, 1.0, 2.5, 4.0]),
    "clip": lambda rng, c: rng.choice([0.0, 0.05, 0.2]),
    "alpha": lambda rng, c: None if rng.integers(2) else rng.uniform(0.05, 0.95),
    "share": lambda rng, c: rng.choice([0.1, 0.5, 0.9]),
    "q": lambda rng, c: rng.choice([0.1, 0.7, 1.0]),
    "epsilon": lambda rng, c: rng.choice([-1.0, -0.5, 0.0, 1.0, 3.0]),
    "margin": lambda rng, c: rng.choice([0.3, 1.0, 2.0]),
    "squared": lambda rng, c: bool(rng.integers(2)),
    "max_margin": lambda rng, c: rng.choice([0.0, 0.5, 2.0]),
    "label_reduction": lambda rng, c: ["mean", "sum"][rng.integers(2)],
    "target_form": lambda rng, c: ["classes", "labels"][rng.integers(2)],
}


def random_loss(rng, n_classes, *, plain=False):
    """A loss of the catalogue with every setting drawn; now and then a weighted sum of two."""
    name = list(CATALOGUE)[rng.integers(len(CATALOGUE))]
    loss = _one(rng, name, n_classes)
    if plain or rng.integers(12) or loss.name in OWN_INPUT:
        return loss
    other = random_loss(rng, n_classes, plain=True)
    if other.name in OWN_INPUT or other.target_form != loss.target_form or loss.link not in (other.link, "none"):
        return loss
    if getattr(other, "ignore_index", None) != getattr(loss, "ignore_index", None):
        return loss
    try:
        return 0.7 * loss + 0.3 * other
    except InputError:  # they do not add up to one loss: other priors, say, or another temperature
        return loss


def _one(rng, name, n_classes):
    kind = CATALOGUE[name]
    settings = {field.name: SETTINGS[field.name](rng, n_classes) for field in dataclasses.fields(kind)}
    if settings.get("priors") is None and "adjustment" in settings:
        settings["adjustment"] = 1.0
    if name == "cross_entropy_from_probabilities":
        settings["clip"] = 1e-7
    if name == "ldam" and rng.integers(2):
        settings["temperature"] = 1 / 30
    settings = {k: float(v) if isinstance(v, np.floating) else v for k, v in settings.items()}
    return kind(**settings)


def random_logits(rng, n, n_classes, dtype, loss):
    """Rows from all but zero to huge, ties, and some that are masked, broken or subnormal."""
    if loss.name in OWN_INPUT:
        p = rng.dirichlet(np.full(n_classes, 0.5), n) + 1e-6
        p /= p.sum(axis=1, keepdims=True)
        if rng.integers(2):  # certainties, and what no probability is; a row of zeros would be refused
            for value, share in ((0.0, 0.1), (np.nan, 0.003), (np.inf, 0.003)):
                p[rng.uniform(size=p.shape) < share] = value
            p[np.nansum(p, axis=1) == 0, 0] = 1.0
        with np.errstate(divide="ignore"):
            x = np.log(p) if loss.name == "negative_log_likelihood" else p
        if loss.name == "negative_log_likelihood":
            x[rng.uniform(size=n) < 0.05] *= -1  # above 0: only a warning says that these are no log-probabilities
        return x.astype(dtype)
    big = 80.0 if dtype == np.float32 else 1e4
    z = rng.normal(size=(n, n_classes)) * rng.choice([1e-3, 1, 5, 20, big], size=(n, 1))
    z[rng.uniform(size=n) < 0.1] = rng.choice([0.0, -0.0, 1.0, big, -big])
    if rng.integers(2):
        z = np.round(z)
    z[rng.uniform(size=n) < 0.03] *= np.finfo(dtype).tiny
    if rng.integers(2):
        for value, share in ((-np.inf, 0.05), (np.nan, 0.003), (np.inf, 0.003)):
            z[rng.uniform(size=z.shape) < share] = value
        z[rng.uniform(size=n) < 0.03] = -np.inf
    return z.astype(dtype)


def random_targets(rng, n, n_classes, dtype, loss):
    """Valid targets of one of the loss' forms; the ignored class among them where there is one."""
    ignore = getattr(loss, "ignore_index", None)
    if loss.target_form == "labels":
        if rng.integers(2):
            rows = rng.uniform(size=(n, n_classes)).astype(rng.choice([dtype, np.float64, np.float32]))
            rows[rng.uniform(size=rows.shape) < 0.3] = rng.integers(2)
        else:
            rows = rng.integers(0, 2, (n, n_classes)).astype(rng.choice([np.uint8, np.bool_, np.int64, np.int8]))
        if ignore is not None and (
            rows.dtype.kind == "f" or (rows.dtype.kind == "i" and ignore <= np.iinfo(rows.dtype).max)
        ):
            rows[rng.uniform(size=rows.shape) < 0.2] = ignore
        return LabelRows(rows)
    form = rng.integers(4)
    if form <= 1:
        index = rng.integers(0, n_classes, n)
        return ClassIndices(_as_some_integer(rng, index, n_classes))
    if form == 2:
        first, second = (_as_some_integer(rng, rng.integers(0, n_classes, n), n_classes) for _ in range(2))
        return ClassMixture(first, second, rng.choice([0.0, 0.3, 0.5, 1.0], n))
    if rng.integers(4) == 0:
        return ClassRows(rng.integers(0, 2, (n, n_classes)).astype(rng.choice([np.uint8, np.int32, np.bool_])))
    rows = rng.uniform(size=(n, n_classes)) * (rng.uniform(size=(n, n_classes)) < 0.6) * rng.choice([1e-3, 1, 7])
    rows[rng.uniform(size=n) < 0.1] = 0
    return ClassRows(rows.astype(rng.choice([dtype, np.float64, np.float32])))


def _as_some_integer(rng, index, n_classes):
    fitting = [t for t in INTEGERS if np.iinfo(t).max >= n_classes]
    dtype = fitting[rng.integers(len(fitting))]
    index = index.astype(dtype)
    return index


def spoil(rng, targets, n_classes, ignore):
    """The same targets with some entries that are not valid, and the bad rows; None if the type has no such entry."""
    n = len(targets)
    rows = np.unique(rng.integers(0, n, rng.integers(1, 4)))
    if isinstance(targets, ClassIndices):
        index = targets.indices.copy()
        index[rows] = _bad_index(rng, index.dtype, n_classes, ignore)
        return ClassIndices(index), rows
    if isinstance(targets, ClassMixture):
        parts = [targets.first.copy(), targets.second.copy()]
        part = parts[rng.integers(2)]
        part[rows] = _bad_index(rng, part.dtype, n_classes, None)
        return ClassMixture(*parts, targets.share), rows
    values = targets.rows.copy()
    if values.dtype.kind == "f":
        bad = [np.nan, np.inf, -np.inf, -0.5, -1e-30]
        bad += [1.5, 1 + 1e-6] if isinstance(targets, LabelRows) else []
    elif values.dtype.kind == "i":
        bad = [-1, np.iinfo(values.dtype).min]
        bad += [2, np.iinfo(values.dtype).max] if isinstance(targets, LabelRows) else []
    elif values.dtype.kind == "u" and isinstance(targets, LabelRows):
        bad = [2, np.iinfo(values.dtype).max]
    else:
        return None
    bad = [value for value in bad if value != ignore]
    values[rows, rng.integers(0, n_classes, len(rows))] = bad[rng.integers(len(bad))]
    return type(targets)(values), rows


def _bad_index(rng, dtype, n_classes, ignore):
    info = np.iinfo(dtype)
    candidates = [n_classes, n_classes + 1, 2 * n_classes, info.max, info.max - 1, -1, -2, -n_classes, info.min, 2**32]
    valid = [x for x in candidates if info.min <= x <= info.max and not 0 <= x < n_classes and x != ignore]
    return dtype.type(valid[rng.integers(len(valid))])
