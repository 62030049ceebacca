"""Which backend runs a recipe: the active one or, for what it lacks, the reference.

The C++ kernels do not cover every loss in every case. What they lack runs on the NumPy reference, which is right but
slow; ``loss.backend`` says where a loss runs, so nobody has to guess:

- cross-entropy runs in C++ unless it has priors, a softcap or a z-loss;
- losses of the true class' probability alone (`TRUE_CLASS`) do on class indices and mixtures without smoothing and on
  soft rows; their Hessians on class indices;
- hinges do on class indices;
- all losses on labels do.
"""

from __future__ import annotations

import importlib
from typing import TypeAlias, cast

from kullback import kernels
from kullback.kernels.recipe import MarginRecipe, SigmoidRecipe, SoftmaxRecipe
from kullback.targets import ClassIndices, ClassMixture, ClassRows, Targets

Recipe: TypeAlias = SoftmaxRecipe | SigmoidRecipe | MarginRecipe

TRUE_CLASS = frozenset({"focal", "generalised_cross_entropy", "poly", "smoothed_zero_one"})

# with a power this small, what float32 cannot tell from 0 is raised to something that is not small
_LEAST_FOCUS = 0.2


def backend_of(recipe: Recipe) -> str:
    """The name of the backend that runs the recipe on class indices here: ``"cpu"`` or ``"reference"``.

    >>> backend_of(SoftmaxRecipe())
    'cpu'
    """
    return runner(recipe, None).__name__.rpartition(".")[2]


def runner(recipe: Recipe, targets: Targets | None, *, second: bool = False) -> kernels.Kernels:
    """The backend module that runs the recipe: the active one if it can, else the reference.

    Args:
        recipe: the loss.
        targets: what it is to run on; None stands for class indices or labels.
        second: whether second derivatives are wanted.
    """
    active = kernels.active()
    if active.__name__.endswith(".cpu") and not _native_runs(recipe, targets, second):
        return cast(kernels.Kernels, importlib.import_module("kullback.kernels.reference"))
    return active


def _native_runs(recipe: Recipe, targets: Targets | None, second: bool) -> bool:
    from kullback.kernels import _native

    if recipe.family not in _native.families(isinstance(recipe, SigmoidRecipe)):
        return False
    if isinstance(recipe, SigmoidRecipe):
        return not ("focal" in recipe.family and 0 < recipe.parameters[0] < _LEAST_FOCUS)
    indices = targets is None or isinstance(targets, ClassIndices)
    if isinstance(recipe, MarginRecipe):
        return indices
    if recipe.softcap is not None or recipe.offset is not None or recipe.shift is not None or recipe.z_loss:
        return False
    if recipe.family not in TRUE_CLASS:
        return True
    if recipe.family == "focal" and 0 < recipe.parameters[0] < _LEAST_FOCUS:
        return False
    if second:
        return indices and recipe.smoothing == 0
    return isinstance(targets, ClassRows) or ((indices or isinstance(targets, ClassMixture)) and recipe.smoothing == 0)
