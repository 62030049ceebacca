"""Weighted sums of losses: ``0.7 * CrossEntropy() + 0.3 * Brier()``."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kullback.errors import InputError, NoProbabilitiesError, TargetError
from kullback.kernels.recipe import Evaluation, TargetSummary
from kullback.losses import base
from kullback.losses.base import Array, Batch, Float, Loss
from kullback.losses.penalties import NegativeEntropy, Penalty
from kullback.losses.reduction import Denominator, Empty, Reduction
from kullback.losses.softmax_loss import SoftmaxLoss, no_probabilities
from kullback.losses.solved_loss import SolvedLoss
from kullback.targets import Targets


@dataclass(frozen=True)
class WeightedSum(SolvedLoss):
    """Σ_i a_i·loss_i of each row, written with ``+`` and ``*``.

    Terms go over the same targets, and losses that report probabilities must agree in their link and temperature,
    which are then the sum's. The mean divides by the weights of the first such loss; only if the terms' class weights
    differ is it not the sum of their own means. What its minimiser reports is found numerically unless all terms are
    proper.

    Args:
        terms: pairs of a finite factor and a loss. Losses have factors above 0; a penalty's may have any sign.

    Raises:
        InputError: for terms that do not go together.

    >>> from kullback.losses import Brier, CrossEntropy
    >>> loss = 0.7 * CrossEntropy() + 0.3 * Brier()
    >>> str(loss)
    '0.7 * cross_entropy + 0.3 * brier'
    >>> round(loss([[0.0, 0.0]], [0]), 4)
    0.6352
    """

    name: ClassVar[str] = "sum"

    terms: tuple[tuple[float, Loss], ...] = ()

    def __post_init__(self) -> None:
        terms = tuple((base.check_number("factor", a), loss) for a, loss in _flat(self.terms))
        if not terms:
            raise InputError("a sum of losses needs a term")
        for a, loss in terms:
            if not math.isfinite(a) or (a <= 0 and not isinstance(loss, Penalty)):
                raise InputError(f"factor {a!r} of {loss} is not valid; losses have finite factors above 0")
        self._set_terms(terms)
        main = self._main
        for loss in self._losses:
            for what in ("target_form", "ignore_index", "link", "temperature", "softcap"):
                plain = 1.0 if what == "temperature" else None
                ours, theirs = getattr(main, what, plain), getattr(loss, what, plain)
                linked = "none" not in (main.link, loss.link)
                if ours != theirs and (linked or what in ("target_form", "ignore_index")):
                    raise InputError(
                        f"{main} and {loss} do not add up to one loss: {what} is {ours} in one, {theirs} in the other"
                    )
        # a penalty goes with whatever it is added to
        like: dict[str, Any] = {"target_form": main.target_form, "ignore_index": getattr(main, "ignore_index", None)}
        self._set_terms(
            tuple((a, dataclasses.replace(loss, **like) if isinstance(loss, Penalty) else loss) for a, loss in terms)
        )

    def _set_terms(self, terms: tuple[tuple[float, Loss], ...]) -> None:
        object.__setattr__(self, "terms", terms)

    @property
    def _losses(self) -> list[Loss]:
        """The terms that look at targets, or all if there is none."""
        losses = [loss for _, loss in self.terms if not isinstance(loss, Penalty)]
        return losses or [loss for _, loss in self.terms]

    @property
    def _main(self) -> Loss:
        """The term whose link is the sum's: the first that has one."""
        return next((loss for loss in self._losses if loss.link != "none"), self._losses[0])

    # ------------------------------------------------------------ what the loss is

    @property
    def target_form(self) -> Any:  # type: ignore[override]
        """``"classes"`` or ``"labels"``: that of its losses."""
        return self._main.target_form

    @property
    def link(self) -> str:  # type: ignore[override]
        """That of its losses."""
        return self._main.link

    @property
    def ignore_index(self) -> int | None:
        """The index of rows that do not count, from the first loss."""
        return getattr(self._main, "ignore_index", None)

    @property
    def ignores_level(self) -> bool:
        """True if every term does."""
        return all(loss.ignores_level for _, loss in self.terms)

    @property
    def convex(self) -> bool:
        """True if every term is convex and added, not subtracted."""
        return all(loss.convex and a >= 0 for a, loss in self.terms)

    @property
    def proper(self) -> bool:
        """True if every term is: then they share their minimiser."""
        return all(loss.proper for _, loss in self.terms)

    @property
    def bounded_gradient(self) -> bool:
        """True if every term's is bounded."""
        return all(loss.bounded_gradient for _, loss in self.terms)

    @property
    def ceiling(self) -> float:
        """An upper bound of one example's loss: the sum of the terms' ceilings (least only if they meet)."""
        bounds = [a * (loss.ceiling if a > 0 else _lower_bound(loss)) for a, loss in self.terms]
        return float(sum(bounds))

    @property
    def backend(self) -> str:
        """Where the terms run, e.g. ``"cpu"``, or several names joined by ``+``."""
        return "+".join(sorted({loss.backend for _, loss in self.terms}))

    def floor(
        self,
        targets: ArrayLike | Targets,
        *,
        n_classes: int | None = None,
        sample_weight: ArrayLike | None = None,
        reduction: Reduction = "mean",
        denominator: Denominator = "weights",
        empty: Empty = "error",
    ) -> Any:
        """The lowest sum any logits could reach: of proper terms the sum of their floors, else found by a minimiser.

        Arguments as for other losses.
        """
        options: dict[str, Any] = {"n_classes": n_classes, "sample_weight": sample_weight}
        if not self.proper:
            return super().floor(targets, reduction=reduction, denominator=denominator, empty=empty, **options)
        wrapped = self._targets(targets)
        n_classes = base.infer_n_classes(wrapped, n_classes)
        batch = Batch(self, (len(wrapped), n_classes), wrapped, sample_weight, reduction, denominator, empty)
        losses = np.zeros(len(wrapped))
        for a, loss in self.terms:
            losses += a * loss.floor(wrapped, reduction="none", **options)
        return losses if reduction == "none" else batch.value(float(losses.sum()))

    def elicited(self, p: ArrayLike) -> Float:
        """What the sum's minimiser reports when the truth is `p`: `p` if all terms are proper, else found."""
        self._check_elicits()
        return self._main.elicited(p) if self.proper else super().elicited(p)

    def recover(self, q: ArrayLike) -> Float:
        """The truth behind a reported `q`, from the linear equations that hold at the minimum."""
        self._check_elicits()
        return self._main.recover(q) if self.proper else super().recover(q)

    def recover_log(self, log_q: ArrayLike) -> Float:
        """`recover` on log-probabilities, (N, C)."""
        self._check_elicits()
        return self._main.recover_log(log_q) if self.proper else super().recover_log(log_q)

    def _check_elicits(self) -> None:
        if any(loss.link == "none" and not isinstance(loss, NegativeEntropy) for _, loss in self.terms):
            raise no_probabilities(self, "hinges and penalties on the logits' size move scores in ways none can undo")
        try:
            for loss in self._losses:
                getattr(loss, "_check_elicits", lambda: None)()
        except NoProbabilitiesError:
            if len(self._losses) == 1:
                raise

    def _scores(self, scores: Float) -> Float:
        if isinstance(self._main, SoftmaxLoss):
            with np.errstate(invalid="ignore"):
                return self._main._logits_reporting(scores)
        return np.asarray(scores * getattr(self._main, "temperature", 1.0))

    def probabilities(self, logits: ArrayLike) -> Array:
        """What the first loss with a link reports, (N, C)."""
        return self._main.probabilities(logits)

    def log_probabilities(self, logits: ArrayLike) -> Array:
        """The logarithm of `probabilities`, (N, C)."""
        return self._main.log_probabilities(logits)

    def decide(self, logits: ArrayLike) -> NDArray[np.int64]:
        """The first loss' decision."""
        return self._main.decide(logits)

    # ------------------------------------------------------------ rows

    def _summary(self, targets: Any, n_classes: int, row_weight: Float | None) -> TargetSummary:
        return self._main._summary(targets, n_classes, row_weight)

    def _evaluate(
        self,
        logits: Array,
        targets: Any,
        *,
        row_weight: Float | None,
        scale: float,
        per_example: Array | None,
        gradient: Array | None,
    ) -> Evaluation:
        total, infinite_row = 0.0, -1
        for rows, x, part, weights in self._blocks(logits, targets, row_weight):
            losses, own = np.zeros(len(x)), np.empty(len(x))
            pulls = None if gradient is None else np.zeros_like(x)
            own_pulls = None if gradient is None else np.empty_like(x)
            for (a, loss), weight in zip(self.terms, weights, strict=True):
                with _whole_rows(loss, logits, targets, row_weight, rows):
                    one = loss._evaluate(x, part, row_weight=weight, scale=scale, per_example=own, gradient=own_pulls)
                if infinite_row < 0 <= one.infinite_row:
                    infinite_row = rows.start + one.infinite_row
                losses += a * own
                if pulls is not None and own_pulls is not None:
                    pulls += a * own_pulls
            total += float(losses.sum())
            if per_example is not None:
                per_example[rows] = losses
            if gradient is not None:
                gradient[rows] = pulls
        return Evaluation(total, infinite_row)

    def _hessian_product(
        self, logits: Array, targets: Any, direction: Array, *, row_weight: Float | None, scale: float, out: Array
    ) -> None:
        along = direction.copy() if np.may_share_memory(direction, out) else direction
        for rows, x, part, weights in self._blocks(logits, targets, row_weight):
            total, own = np.zeros_like(x), np.empty_like(x)
            for (a, loss), weight in zip(self.terms, weights, strict=True):
                with _whole_rows(loss, logits, targets, row_weight, rows):
                    loss._hessian_product(x, part, along[rows], row_weight=weight, scale=scale, out=own)
                total += a * own
            out[rows] = total

    def _hessian_diagonal(
        self, logits: Array, targets: Any, *, row_weight: Float | None, scale: float, out: Array
    ) -> None:
        for rows, x, part, weights in self._blocks(logits, targets, row_weight):
            total, own = np.zeros_like(x), np.empty_like(x)
            for (a, loss), weight in zip(self.terms, weights, strict=True):
                with _whole_rows(loss, logits, targets, row_weight, rows):
                    loss._hessian_diagonal(x, part, row_weight=weight, scale=scale, out=own)
                total += a * own
            out[rows] = total

    def _blocks(
        self, logits: Array, targets: Any, row_weight: Float | None
    ) -> Iterator[tuple[slice, Array, Any, list[Float | None]]]:
        """Rows, their logits and targets, and each term's own row weights, a few MB at a time."""
        n, n_classes = logits.shape
        step = max(1, 2 * base.BLOCK_ELEMENTS // max(n_classes, 1))
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            part = targets[rows]
            weight = None if row_weight is None else row_weight[rows]
            yield rows, logits[rows], part, [loss._row_weight(part, weight) for _, loss in self.terms]

    def __str__(self) -> str:
        plain = [(a, type(loss)() if isinstance(loss, Penalty) else loss) for a, loss in self.terms]
        return " + ".join(f"{loss}" if a == 1 else f"{a!r} * {loss}" for a, loss in plain)


def _flat(terms: Sequence[tuple[float, Loss]]) -> Iterator[tuple[float, Loss]]:
    """Sums inside a sum, multiplied out."""
    for a, loss in terms:
        if isinstance(loss, WeightedSum):
            yield from ((a * b, inner) for b, inner in loss.terms)
        elif isinstance(loss, Loss):
            yield a, loss
        else:
            raise InputError(f"{loss!r} is not a loss and cannot be added to one")


@contextlib.contextmanager
def _whole_rows(loss: Loss, logits: Array, targets: Any, row_weight: Float | None, rows: slice) -> Iterator[None]:
    """A bad target found in a block is reported with its row in the whole batch."""
    try:
        yield
    except TargetError:
        if rows.start:
            loss._evaluate(logits, targets, row_weight=row_weight, scale=1.0, per_example=None, gradient=None)
        raise


def _lower_bound(loss: Loss) -> float:
    """A number no example's loss goes below; only penalties may be subtracted."""
    return -np.inf if isinstance(loss, NegativeEntropy) else 0.0
