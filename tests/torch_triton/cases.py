"""Random calls for both sides: tensors for the kernels, float64 arrays for the reference."""

from __future__ import annotations

import numpy as np
import torch

from kullback.kernels import reference
from kullback.kernels.recipe import SoftmaxRecipe
from kullback.targets import ClassIndices, ClassMixture, ClassRows
from kullback.torch.rows import TargetRows

FORMS = ("index", "mixture", "soft")
PARAMETERS = {
    "cross_entropy": (),
    "one_vs_rest": (),
    "brier": (),
    "focal": (2.0,),
    "generalised_cross_entropy": (0.7,),
    "poly": (1.5,),
    "jensen_shannon": (0.5,),
    "smoothed_zero_one": (),
    "ldam": (),
}


def vectors(rng, n_classes, *names):
    """Class vectors with values that float32 holds exactly."""
    ranges = {"class_weight": (0.25, 3.0), "shift": (0.0, 1.5), "offset": (-2.0, 2.0)}
    return {n: np.float64(np.float32(rng.uniform(*ranges[n], n_classes))) for n in names}


def targets(rng, form, n_rows, n_classes, device):
    """Targets of one form, as tensors and as the reference takes them."""
    first, second = rng.integers(0, n_classes, (2, n_rows))
    if form == "index":
        return TargetRows(torch.tensor(first, device=device)), ClassIndices(first)
    if form == "mixture":
        share = np.float32(rng.random(n_rows))
        tensors = (torch.tensor(x, device=device) for x in (first, second, share))
        return TargetRows(*tensors), ClassMixture(first, second, np.float64(share))
    rows = rng.dirichlet(np.ones(n_classes), n_rows) if n_classes > 1 else np.ones((n_rows, 1))
    rows = np.float32(rows * rng.uniform(0.5, 1.5, (n_rows, 1)))  # Σt ≠ 1
    return TargetRows(torch.tensor(rows, device=device)), ClassRows(np.float64(rows))


def exact(recipe: SoftmaxRecipe, logits: torch.Tensor, wrapped, **options):
    """Losses and gradient of the reference, float64, at the logits as the tensor holds them."""
    n_rows, n_classes = logits.shape
    losses, gradient = np.zeros(n_rows), np.zeros((n_rows, n_classes))
    z = logits.detach().double().cpu().numpy()
    reference.evaluate(recipe, z, wrapped, per_example=losses, gradient=gradient, **options)
    return losses, gradient


def assert_close(result, losses, gradient, spread):
    """Hold losses and gradient to float32 arithmetic on logits of a given spread, and to the output's own rounding."""
    np.testing.assert_allclose(result.losses.cpu().double(), losses, rtol=4e-6, atol=1e-6 * max(1.0, spread))
    if gradient is None:
        return
    unit = torch.finfo(result.gradient.dtype).eps
    np.testing.assert_allclose(
        result.gradient.double().cpu(),
        gradient,
        rtol=unit + 2e-6 * max(1.0, spread),
        atol=(1e-6 if unit < 1e-5 else 1e-7) * max(1.0, np.abs(gradient[np.isfinite(gradient)]).max(initial=0.0)),
    )
