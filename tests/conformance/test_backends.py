"""Every loss on every backend against the reference, over sizes, forms, and rows that are masked or broken."""

from __future__ import annotations

import importlib.util
import pathlib
import warnings

import numpy as np
import pytest

import kullback.kernels as kernels
from kullback import ClassMixture, ClassRows, CrossEntropy
from kullback.losses import Asymmetric, CrammerSinger, Focal, SigmoidFocal, WestonWatkins

_spec = importlib.util.spec_from_file_location("catalogue", pathlib.Path(__file__).with_name("catalogue.py"))
catalogue = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(catalogue)
FAMILIES = {**catalogue.SOFTMAX, **catalogue.SIGMOID, **catalogue.MARGIN, **catalogue.DIVERGENCES}


def batch(rng, loss, n_classes, dtype):
    """Ordinary, tied, extreme, masked and broken rows, targets of every form, weights with a zero."""
    n = 40 if n_classes < 1000 else 12
    big = 80.0 if dtype == np.float32 else 1e4
    z = rng.normal(size=(n, n_classes)) * rng.choice([0.1, 1, 5, 20, big], size=(n, 1))
    z[0], z[1], z[2] = 0, big, -big
    z[3, 0] = big
    weight = rng.uniform(0.5, 2, n)
    weight[6] = 0
    if loss.target_form == "labels":
        labels = rng.uniform(size=z.shape)
        labels[::2] = rng.integers(0, 2, labels[::2].shape)
        z[7, 0] = np.nan
        return z.astype(dtype), weight, [labels.astype(dtype)]
    index = rng.integers(0, n_classes, n)
    if n_classes > 2:
        z[4:6, 1] = -np.inf
        index[index == 1] = 0
        z[7, 2], z[8, 2], z[9] = np.nan, np.inf, -np.inf
    soft = rng.dirichlet(np.ones(n_classes), n)
    soft[4:6, 1 if n_classes > 2 else 0] = 0
    mixture = ClassMixture(index, index[::-1].copy(), rng.choice([0.0, 0.3, 1.0], n))
    return z.astype(dtype), weight, [index, ClassRows(soft.astype(dtype)), mixture]


def everything(loss, z, targets, weight, v):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value, gradient = loss.value_and_gradient(z, targets, sample_weight=weight, reduction="none")
        options = {"sample_weight": weight, "reduction": "none"}
        return (
            value,
            gradient,
            loss.hessian_product(z, targets, v, **options),
            loss.hessian_diagonal(z, targets, **options),
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [1, 2, 3, 10, 64, 65, 1000])
@pytest.mark.parametrize("name", FAMILIES)
def test_backends_agree(rng, name, n_classes, dtype):
    """Within 24 ulp of the largest term; NaN and infinities at the same places."""
    loss = FAMILIES[name][0](n_classes)
    z, weight, forms = batch(rng, loss, n_classes, dtype)
    v = rng.normal(size=z.shape).astype(dtype)
    assert loss.backend == "cpu"
    class_weight = np.max(getattr(loss, "class_weight", None) or 1) * np.max(
        getattr(loss, "positive_weight", None) or 1
    )
    steep = class_weight * (1 + abs(getattr(loss, "epsilon", 0)) + getattr(loss, "gamma", 0)) * 2
    reach, temperature = 1.0, getattr(loss, "temperature", 1.0)
    # a small temperature, or a cap, makes the rounding of scaled logits count
    scaled = min(np.abs(z[np.isfinite(z)]).max(), getattr(loss, "softcap", None) or np.inf) / temperature
    rounded = scaled / 6 if temperature < 0.5 or "softcap" in name or name == "everything" else 0.0
    if loss.link == "none":  # logits are subtracted as they are
        reach = np.abs(z[np.isfinite(z)]).max() + loss.margin
    for targets in forms:
        ours = everything(loss, z, targets, weight, v)
        with kernels.using("reference"):
            truth = everything(loss, z, targets, weight, v)
        for what, (a, b) in enumerate(zip(ours, truth, strict=True)):
            np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
            np.testing.assert_array_equal(np.isinf(a), np.isinf(b))
            finite = np.isfinite(b)
            size = steep * (np.abs(v).max() if what == 2 else 1) * max(1, 1 / getattr(loss, "temperature", 1)) ** what
            size = size * (1 + rounded)
            size = size * (n_classes if loss.target_form == "labels" and what == 0 else 1)
            if loss.link == "none":
                size *= n_classes * reach ** (2 if what == 0 and loss.squared else 1)
            bound = 24 * np.finfo(dtype).eps * (size + np.abs(b[finite]))
            assert (np.abs(a[finite] - b[finite]) <= bound).all(), (what, type(targets).__name__)


@pytest.mark.parametrize("name", catalogue.SOFTMAX)
def test_a_masked_class_is_no_class(backend, rng, name):
    """A −inf logit without mass changes nothing: not the value, no gradient, no curvature, and none of its own."""
    if "priors" in name or name in ("everything", "balanced_softmax") or "ldam" in name:
        pytest.skip("its class vectors belong to all classes")
    make, _ = catalogue.SOFTMAX[name]
    loss, short = make(3), make(2)
    if loss.class_weight is not None or loss.label_smoothing:
        pytest.skip("smoothing puts mass on every class")
    z = rng.normal(size=(6, 2)) * 3
    masked = np.insert(z, 1, -np.inf, axis=1)
    v = rng.normal(size=masked.shape)
    y = rng.integers(0, 2, 6)
    ours = everything(loss, masked, 2 * y, None, v)
    theirs = everything(short, z, y, None, np.delete(v, 1, axis=1))
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-12)
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(np.delete(a, 1, axis=1), b, atol=1e-13)
        assert (a[:, 1] == 0).all()


@pytest.mark.parametrize("name", catalogue.SOFTMAX)
def test_mass_on_a_masked_class(backend, name):
    """Unbounded losses are +inf there, bounded ones at their bound; the gradient is finite either way."""
    loss = catalogue.SOFTMAX[name][0](3)
    value, _, product, diagonal = everything(loss, np.array([[1.0, -np.inf, 0.0]]), [1], None, np.ones((1, 3)))
    if np.isinf(loss.ceiling):
        assert value[0] == np.inf
    else:
        assert np.isfinite(value[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, gradient = loss.value_and_gradient(np.array([[1.0, -np.inf, 0.0]]), [1], reduction="none")
    assert np.isfinite(gradient).all()
    assert np.isfinite(product).all()
    assert np.isfinite(diagonal).all()


def test_what_runs_where():
    assert CrossEntropy(softcap=30, z_loss=0.1).backend == "cpu"
    assert Focal(gamma=0.1, label_smoothing=0.1).backend == SigmoidFocal().backend == WestonWatkins().backend == "cpu"
    assert SigmoidFocal(gamma=0.1).backend == "cpu"
    assert Asymmetric(clip=1e-19).backend == "reference"
    with kernels.using("reference"):
        assert CrossEntropy().backend == "reference"
    assert WestonWatkins(squared=True).backend == CrammerSinger().backend == "cpu"
