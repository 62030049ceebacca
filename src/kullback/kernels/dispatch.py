"""Which backend runs a recipe: the active one or, for what it lacks, the reference.

The C++ kernels run every loss of the softmax, sigmoid, margin and plain families on every target form, but for an
asymmetric loss whose clip is next to 0. What they lack runs on the NumPy reference, which is right but slow;
``loss.backend`` says where a loss runs, so nobody has to guess.
"""

from __future__ import annotations

import importlib
from typing import cast

from kullback import kernels
from kullback.kernels.recipe import Recipe, SigmoidRecipe

# the kernels take inverses of what a clip leaves, which for a smaller one may be no float32
_LEAST_CLIP = 1e-18


def backend_of(recipe: Recipe) -> str:
    """The name of the backend that runs the recipe here: ``"cpu"`` or ``"reference"``.

    >>> from kullback.kernels.recipe import SoftmaxRecipe
    >>> backend_of(SoftmaxRecipe())
    'cpu'
    """
    return runner(recipe).__name__.rpartition(".")[2]


def runner(recipe: Recipe) -> kernels.Kernels:
    """The backend module that runs the recipe: the active one if it can, else the reference."""
    active = kernels.active()
    if active.__name__.endswith(".cpu") and not _native_runs(recipe):
        return cast(kernels.Kernels, importlib.import_module("kullback.kernels.reference"))
    return active


def _native_runs(recipe: Recipe) -> bool:
    from kullback.kernels.cpu.arguments import families

    if recipe.family not in families(isinstance(recipe, SigmoidRecipe)):
        return False
    if isinstance(recipe, SigmoidRecipe):
        return recipe.family != "asymmetric" or recipe.parameters[2] == 0 or recipe.parameters[2] >= _LEAST_CLIP
    return True
