"""Targets and recipes as the native module takes them: arrays, and plain numbers."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from kullback.errors import InputError
from kullback.kernels import _native
from kullback.kernels.cpu.arrays import aligned, checked_class_weights, plain
from kullback.kernels.recipe import Array, MarginRecipe, PlainRecipe, Recipe, SigmoidRecipe, SoftmaxRecipe
from kullback.targets import ClassIndices, ClassMixture, ClassTargets, LabelRows


class TargetForm(NamedTuple):
    """Targets as the native module takes them; arrays that a form does not have are None."""

    first: Array | None
    second: Array | None
    share: Array | None
    rows: Array | None
    ignore_index: int | None


def target_form(targets: ClassTargets | LabelRows, ignore_index: int | None) -> TargetForm:
    """The arrays of some targets, and the ignored index where the form has a use for one."""
    if isinstance(targets, ClassIndices):
        return TargetForm(plain(targets.indices), None, None, None, ignore_index)
    if isinstance(targets, ClassMixture):
        share = aligned(np.ascontiguousarray(targets.share))
        return TargetForm(plain(targets.first), plain(targets.second), share, None, None)
    return TargetForm(None, None, None, plain(targets.rows), ignore_index if isinstance(targets, LabelRows) else None)


class Settings(NamedTuple):
    """A recipe as the native module takes it, in three groups of arguments."""

    is_sigmoid: bool
    named: tuple[str, list[float], float, float]  # family, parameters, smoothing and 1 / temperature
    weights: tuple[Any, ...]  # of the classes, and of positive labels
    extras: tuple[Any, ...]  # shift, offset, softcap, z-loss and divergence


def settings_of(recipe: Recipe, n_classes: int, dtype: np.dtype[Any]) -> Settings:
    """A recipe's numbers, with its weights checked against the classes; all but sigmoid losses are in one list.

    Raises:
        InputError: for a family that the native module lacks.
        ShapeError: for weights of another number of classes.
    """
    is_sigmoid = isinstance(recipe, SigmoidRecipe)
    if recipe.family not in families(is_sigmoid):
        raise InputError(f"the C++ kernels have no {'sigmoid' if is_sigmoid else 'softmax'} family {recipe.family!r}")

    def per_class(name: str) -> Array | None:
        return checked_class_weights(getattr(recipe, name), n_classes, dtype, name)

    smoothing, temperature, positive_weight = 0.0, 1.0, None
    extras: tuple[Any, ...] = (None, None, 0.0, 0.0, False)
    if isinstance(recipe, MarginRecipe):
        parameters = [recipe.margin, float(recipe.power)]
    else:
        parameters, smoothing = list(recipe.parameters), recipe.smoothing
        if not isinstance(recipe, PlainRecipe):
            temperature = recipe.temperature
    if isinstance(recipe, SigmoidRecipe):
        positive_weight = per_class("positive_weight")
    elif isinstance(recipe, SoftmaxRecipe):
        extras = (per_class("shift"), per_class("offset"), recipe.softcap or 0.0, recipe.z_loss, recipe.divergence)
    return Settings(
        is_sigmoid,
        (recipe.family, parameters, smoothing, 1.0 / temperature),
        (per_class("class_weight"), positive_weight),
        extras,
    )


@functools.cache
def families(is_sigmoid: bool) -> frozenset[str]:
    """The losses that the native module has: those of labels, or all others."""
    return frozenset(_native.families(is_sigmoid))
