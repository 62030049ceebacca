"""Kernels: the same few functions in NumPy (`reference`, which defines the truth) and in C++ (`cpu`, which runs).

Losses call `active()`. Tests and the curious can switch::

    >>> import kullback.kernels as kernels
    >>> with kernels.using("reference"):
    ...     kernels.active().__name__
    'kullback.kernels.reference'
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Protocol, cast

from kullback.errors import InputError
from kullback.kernels.recipe import (
    Array,
    Evaluation,
    MarginRecipe,
    Recipe,
    SigmoidRecipe,
    SoftmaxRecipe,
    TargetSummary,
)
from kullback.targets import ClassTargets, LabelRows

__all__ = [
    "BACKENDS",
    "Evaluation",
    "Kernels",
    "MarginRecipe",
    "SigmoidRecipe",
    "SoftmaxRecipe",
    "TargetSummary",
    "active",
    "using",
]

BACKENDS = ("cpu", "reference")


class Kernels(Protocol):
    """What every backend offers; the functions of `reference` document the meaning of each argument."""

    @property
    def __name__(self) -> str:
        """The backend module's name."""

    def softmax_targets(
        self,
        targets: ClassTargets,
        n_classes: int,
        *,
        row_weight: Array | None = None,
        class_weight: Array | None = None,
        ignore_index: int | None = None,
    ) -> TargetSummary:
        """Check class targets and count what counts."""

    def sigmoid_targets(
        self,
        targets: LabelRows,
        *,
        row_weight: Array | None = None,
        ignore_index: int | None = None,
        known: Array | None = None,
    ) -> TargetSummary:
        """Count what counts of label targets."""

    def evaluate(
        self,
        recipe: Recipe,
        logits: Array,
        targets: ClassTargets | LabelRows,
        *,
        row_weight: Array | None = None,
        ignore_index: int | None = None,
        scale: float = 1.0,
        per_example: Array | None = None,
        gradient: Array | None = None,
        log_sum_exp: Array | None = None,
        prediction: Array | None = None,
    ) -> Evaluation:
        """Losses and, where arrays are given for them, the gradient, log-sum-exps and predictions."""

    def hessian_product(
        self,
        recipe: Recipe,
        logits: Array,
        targets: ClassTargets | LabelRows,
        direction: Array,
        *,
        row_weight: Array | None = None,
        ignore_index: int | None = None,
        scale: float = 1.0,
        out: Array,
    ) -> None:
        """Each row's Hessian times the direction's row."""

    def hessian_diagonal(
        self,
        recipe: Recipe,
        logits: Array,
        targets: ClassTargets | LabelRows,
        *,
        row_weight: Array | None = None,
        ignore_index: int | None = None,
        scale: float = 1.0,
        out: Array,
    ) -> None:
        """The diagonal of each row's Hessian."""

    def softmax_probabilities(self, logits: Array, *, temperature: float = 1.0, log: bool = False, out: Array) -> None:
        """Softmax of each row, or its logarithm."""

    def sigmoid_probabilities(self, logits: Array, *, temperature: float = 1.0, log: bool = False, out: Array) -> None:
        """Sigmoid of each logit, or its logarithm."""

    def csr_product(
        self,
        indptr: Array,
        indices: Array,
        data: Array,
        dense: Array,
        out: Array,
        *,
        ends: Array | None = None,
        base: int = 0,
        outer: tuple[Array, Array] | None = None,
    ) -> None:
        """A CSR matrix (n, d) times a dense (d, C), plus an outer product."""

    def csr_transposed(
        self,
        indptr: Array,
        indices: Array,
        data: Array,
        dense: Array,
        out: Array,
        *,
        ends: Array | None = None,
        base: int = 0,
    ) -> None:
        """Add the transpose of a CSR matrix (n, d) times a dense (n, C) to `out` (d, C)."""


_backend: ContextVar[str] = ContextVar("kullback_backend", default="cpu")


def active() -> Kernels:
    """The backend module in use here: ``cpu`` unless `using` says otherwise."""
    return _module(_backend.get())


@functools.cache
def _module(backend: str) -> Kernels:
    return cast(Kernels, importlib.import_module(f"kullback.kernels.{backend}"))


@contextlib.contextmanager
def using(backend: str) -> Iterator[Kernels]:
    """Run the losses on another backend inside a ``with`` block.

    Args:
        backend: ``"cpu"`` (C++) or ``"reference"`` (NumPy, float64 inside, slow and simple).

    Raises:
        InputError: for any other name.
    """
    if backend not in BACKENDS:
        raise InputError(f"unknown kernel backend {backend!r}; choose one of {', '.join(BACKENDS)}")
    token = _backend.set(backend)
    try:
        yield active()
    finally:
        _backend.reset(token)
