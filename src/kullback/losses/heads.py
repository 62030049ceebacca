"""One loss per output head of a model that predicts several things at once."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kullback.errors import InputError, SpellingError
from kullback.losses import base
from kullback.losses.base import Array, Loss
from kullback.losses.reduction import Denominator, Empty, Reduction
from kullback.losses.spelling import parse_loss


@dataclass(frozen=True, init=False)
class Heads:
    """A weighted total over named heads, each with its own loss, logits and targets.

    Each head reduces by itself (its own weights, its own ignored rows); the total is Σ weight·value. It is no `Loss`,
    for it has several logits; its methods take and give dictionaries by head.

    Args:
        losses: a loss or its spelling for every head.
        weights: a factor above 0 for some or all heads; 1 where none is given.

    Raises:
        InputError: for no head, an unknown head in `weights`, or a factor that is not above 0.

    >>> heads = Heads({"animal": "cross_entropy", "tags": "binary_cross_entropy"}, weights={"tags": 0.5})
    >>> str(heads)
    'heads(animal=cross_entropy, tags=0.5 * binary_cross_entropy)'
    >>> round(heads({"animal": [[0.0, 0.0]], "tags": [[0.0]]}, {"animal": [0], "tags": [[1]]}), 4)  # 1.5·log 2
    1.0397
    """

    heads: tuple[tuple[str, float, Loss], ...]

    def __init__(self, losses: Mapping[str, Loss | str], weights: Mapping[str, float] | None = None) -> None:
        if not losses:
            raise InputError("heads need at least one loss")
        given = dict(weights or {})
        for name in given:
            if name not in losses:
                raise InputError(f"weights name the head {name!r}, but there are only {', '.join(losses)}")
        rows = []
        for name, loss in losses.items():
            if not isinstance(name, str) or not name.isidentifier():
                raise InputError(f"head {name!r} is not a name such as 'species'")
            rows.append((name, base.check_positive(f"weights[{name!r}]", given.get(name, 1.0)), parse_loss(loss)))
        object.__setattr__(self, "heads", tuple(rows))

    @classmethod
    def parse(cls, spelling: str) -> Heads:
        """Heads from their spelling.

        Raises:
            SpellingError: for text that cannot be read.

        >>> Heads.parse("heads(a=cross_entropy, b=0.5 * brier)").heads[1][:2]
        ('b', 0.5)
        """
        try:
            call = ast.parse(spelling.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            call = None
        named = isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "heads"
        if not isinstance(call, ast.Call) or not named or call.args or any(k.arg is None for k in call.keywords):
            raise SpellingError(f"cannot read {spelling!r}; heads are spelled like heads(a=cross_entropy, b=brier)")
        losses: dict[str, Loss] = {}
        weights: dict[str, float] = {}
        for keyword in call.keywords:
            name, node = str(keyword.arg), keyword.value
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and isinstance(node.left, ast.Constant):
                weights[name] = node.left.value  # type: ignore[assignment]
                node = node.right
            losses[name] = parse_loss(ast.unparse(node))
        return cls(losses, weights)

    def __str__(self) -> str:
        shown = []
        for name, weight, loss in self.heads:
            text = f"({loss})" if "+" in str(loss) or "*" in str(loss) else str(loss)
            shown.append(f"{name}={text}" if weight == 1 else f"{name}={weight!r} * {text}")
        return f"heads({', '.join(shown)})"

    def __call__(
        self,
        logits: Mapping[str, Any],
        targets: Mapping[str, Any],
        *,
        sample_weight: Any = None,
        denominator: Denominator = "weights",
        empty: Empty = "error",
        reduction: Reduction = "mean",
    ) -> Any:
        """The total, in nats: a float, or (N,) for ``reduction="none"``.

        Args:
            logits: (N, C_head) by head.
            targets: N targets by head.
            sample_weight: (N,) for all heads, (N,) by head, or None.
            denominator: as for a loss.
            empty: as for a loss.
            reduction: as for a loss.

        Raises:
            InputError: for a missing or unknown head, and as the losses raise it, with the head's name.
        """
        values = self.values(
            logits, targets, sample_weight=sample_weight, denominator=denominator, empty=empty, reduction=reduction
        )
        return sum(weight * values[name] for name, weight, _ in self.heads)

    def values(self, logits: Mapping[str, Any], targets: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        """Each head's own value, not weighted; arguments as for calling the heads."""
        return {
            name: _named(name, loss, logits[name], targets[name], **self._options(name, options))
            for name, _, loss in self._checked(logits, targets)
        }

    def value_and_gradient(
        self, logits: Mapping[str, Any], targets: Mapping[str, Any], *, out: Mapping[str, Array] | None = None,
        **options: Any,
    ) -> tuple[Any, dict[str, Array]]:  # fmt: skip
        """The total and its gradient by head, weights included.

        Args:
            logits: (N, C_head) by head.
            targets: N targets by head.
            out: arrays to write gradients into, by head, or None.
            **options: as for calling the heads.
        """
        total: Any = 0.0
        gradients = {}
        for name, weight, loss in self._checked(logits, targets):
            value, gradient = _named(
                name,
                loss.value_and_gradient,
                logits[name],
                targets[name],
                out=None if out is None else out.get(name),
                **self._options(name, options),
            )
            gradient *= np.asarray(weight, dtype=gradient.dtype)
            total = total + weight * value
            gradients[name] = gradient
        return total, gradients

    def hessian_product(
        self, logits: Mapping[str, Any], targets: Mapping[str, Any], direction: Mapping[str, Any], **options: Any
    ) -> dict[str, Array]:
        """The total's Hessian times a direction, by head, weights included: heads do not interact.

        Args:
            logits: (N, C_head) by head.
            targets: N targets by head.
            direction: (N, C_head) by head.
            **options: as for calling the heads.
        """
        self._same_heads("direction", direction)
        return {
            name: self._weighted(
                weight,
                _named(
                    name, loss.hessian_product, logits[name], targets[name], direction[name],
                    **self._options(name, options),
                ),
            )
            for name, weight, loss in self._checked(logits, targets)
        }  # fmt: skip

    def hessian_diagonal(
        self, logits: Mapping[str, Any], targets: Mapping[str, Any], **options: Any
    ) -> dict[str, Array]:
        """The second derivative of the total in each logit alone, by head; arguments as for calling the heads."""
        return {
            name: self._weighted(
                weight,
                _named(name, loss.hessian_diagonal, logits[name], targets[name], **self._options(name, options)),
            )
            for name, weight, loss in self._checked(logits, targets)
        }

    @property
    def convex(self) -> bool:
        """Whether the total is convex in the logits: every head's loss is."""
        return all(loss.convex for _, _, loss in self.heads)

    @property
    def ceiling(self) -> float:
        """The least upper bound of one example's total, in nats."""
        return sum(weight * loss.ceiling for _, weight, loss in self.heads)

    def initial_value(self, n_classes: Mapping[str, int]) -> float:
        """The mean total of a model that has learnt nothing, in nats, from the number of classes by head.

        >>> round(Heads({"a": "cross_entropy", "b": "brier"}).initial_value({"a": 2, "b": 2}), 4)  # log 2 + 1/2
        1.1931
        """
        self._same_heads("n_classes", n_classes)
        return float(
            sum(weight * _named(name, loss.initial_value, n_classes[name]) for name, weight, loss in self.heads)
        )

    def floor(self, targets: Mapping[str, Any], *, n_classes: Mapping[str, int] | None = None, **options: Any) -> Any:
        """The lowest total any logits could reach, in nats; `n_classes` by head where targets are indices."""
        self._same_heads("targets", targets)
        return sum(
            weight
            * _named(
                name, loss.floor, targets[name], n_classes=(n_classes or {}).get(name), **self._options(name, options)
            )
            for name, weight, loss in self.heads
        )

    def best_constant(
        self, targets: Mapping[str, Any], *, n_classes: Mapping[str, int] | None = None, sample_weight: Any = None
    ) -> dict[str, Array]:
        """The logits (C_head,) of the best model without features, by head."""
        self._same_heads("targets", targets)
        return {
            name: _named(
                name,
                loss.best_constant,
                targets[name],
                n_classes=(n_classes or {}).get(name),
                **self._options(name, {"sample_weight": sample_weight}),
            )
            for name, _, loss in self.heads
        }

    @staticmethod
    def _weighted(weight: float, result: Array) -> Array:
        result *= np.asarray(weight, dtype=result.dtype)
        return result

    def _same_heads(self, what: str, given: Mapping[str, Any]) -> None:
        names = [name for name, _, _ in self.heads]
        if sorted(given) != sorted(names):
            raise InputError(f"{what} are given for {', '.join(given) or 'no head'}; expected {', '.join(names)}")

    def _checked(self, logits: Mapping[str, Any], targets: Mapping[str, Any]) -> tuple[tuple[str, float, Loss], ...]:
        self._same_heads("logits", logits)
        self._same_heads("targets", targets)
        return self.heads

    def _options(self, name: str, options: dict[str, Any]) -> dict[str, Any]:
        weight = options.get("sample_weight")
        return {**options, "sample_weight": weight.get(name)} if isinstance(weight, Mapping) else options


def _named(name: str, call: Any, *arguments: Any, **options: Any) -> Any:
    """Call, with the head's name put before an error's text."""
    try:
        return call(*arguments, **options)
    except InputError as error:
        raise type(error)(f"head {name!r}: {error}") from None
