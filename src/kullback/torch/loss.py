"""Any Kullback loss as a function on tensors and as a module."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

import kullback.losses
from kullback.losses import CrossEntropy, parse_loss
from kullback.torch import objects, ops
from kullback.torch.batch_loss import batch_loss, requires_grad
from kullback.torch.errors import BatchSizeError, NotSupportedError, TensorKindError, TensorShapeError
from kullback.torch.rows import (
    Batch,
    Mixture,
    TargetRows,
    accumulation_dtype,
    as_rows,
    check_logits,
    check_sample_weight,
    check_tensor,
    class_batch,
    in_autocast,
)
from kullback.torch.settings import DENOMINATORS, EMPTY, REDUCTIONS, RowSettings, check_choice


def functional(loss: kullback.losses.Loss | LossFunction | str) -> LossFunction:
    """A function on tensors that computes `loss`, with gradients, on any device and under ``torch.compile``.

    It takes ``(logits, targets, *, sample_weight=None, reduction="mean", denominator="weights", empty="nan")``. Logits
    are (C,), (N, C) or (N, C, d1, …); targets are class indices, soft rows or a `Mixture`, and for losses on
    independent labels a tensor of the logits' shape. ``reduction="none"`` gives one loss per example.

    `CrossEntropy` runs as `cross_entropy` does. Every other loss runs its own NumPy and C++ code on the CPU, with
    second derivatives but no third; tensors of other devices travel there and back.

    Make it once, outside what is compiled: inside a graph only spellings that are known already can be looked up.

    Args:
        loss: a loss object, its spelling, an object of your own subclass of `kullback.Loss`, or what this function has
            returned.

    Raises:
        SpellingError: for text that is not a loss.
        NotSupportedError: inside ``torch.compile``, for a loss that has not been made outside before.

    >>> import torch
    >>> from kullback.torch import functional
    >>> focal = functional("focal(gamma=2)")
    >>> focal(torch.zeros(1, 4), torch.tensor([2]))
    tensor(0.7798)
    """
    if isinstance(loss, LossFunction):
        return loss
    if isinstance(loss, str) and loss in _spelt:
        return _spelt[loss]
    if torch.compiler.is_compiling():
        raise NotSupportedError(
            "a loss cannot be made inside torch.compile: call kullback.torch.functional(loss) before, outside the "
            "compiled function, and use what it returns (linear_loss takes that too)"
        )
    made = LossFunction(parse_loss(loss))
    if isinstance(loss, str):
        _spelt[loss] = made
    return made


class Loss(nn.Module):
    """`functional` as a module: any loss object, its choices fixed.

    Args:
        loss: a loss object or its spelling.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        denominator: what the mean divides by: ``"weights"`` or ``"examples"``.
        empty: the mean where nothing counts: ``"nan"``, ``"zero"`` or ``"error"``.

    >>> import torch
    >>> from kullback.torch import Loss
    >>> module = Loss("cross_entropy(label_smoothing=0.1)")
    >>> module
    Loss(cross_entropy(label_smoothing=0.1), reduction='mean', denominator='weights', empty='nan')
    >>> module(torch.zeros(2, 4), torch.tensor([0, 3]))
    tensor(1.3863)
    """

    def __init__(
        self,
        loss: kullback.losses.Loss | str,
        *,
        reduction: str = "mean",
        denominator: str = "weights",
        empty: str = "nan",
    ) -> None:
        super().__init__()
        check_choice("reduction", reduction, REDUCTIONS)
        check_choice("denominator", denominator, DENOMINATORS)
        check_choice("empty", empty, EMPTY)
        self.loss = parse_loss(loss)
        self.reduction = reduction
        self.denominator = denominator
        self.empty = empty
        self._function = LossFunction(self.loss)

    def forward(self, logits: Tensor, targets: Tensor | Mixture, sample_weight: Tensor | None = None) -> Tensor:
        """The loss of a batch, in nats."""
        return self._function(
            logits,
            targets,
            sample_weight=sample_weight,
            reduction=self.reduction,
            denominator=self.denominator,
            empty=self.empty,
        )

    def extra_repr(self) -> str:
        """The loss' spelling and the choices."""
        return f"{self.loss}, reduction={self.reduction!r}, denominator={self.denominator!r}, empty={self.empty!r}"


_SIMPLE = {
    "class_weight",
    "label_smoothing",
    "temperature",
    "ignore_index",
    "softcap",
    "z_loss",
    "priors",
    "adjustment",
}


class SimpleCrossEntropy(NamedTuple):
    """A `CrossEntropy` in the terms of the row operators.

    Attributes:
        settings: its scalars.
        class_weight: (C,) float64 or None.
        offset: (C,) float64 to add to the logits while training (logit adjustment), or None.
    """

    settings: RowSettings
    class_weight: Tensor | None
    offset: Tensor | None

    def class_weight_for(self, logits: Tensor) -> Tensor | None:
        """The class weights where and as these logits need them."""
        if self.class_weight is None:
            return None
        return self.class_weight.to(logits.device, accumulation_dtype(logits.dtype))


def simple_cross_entropy(loss: kullback.losses.Loss) -> SimpleCrossEntropy | None:
    """The loss in the row operators' terms, or None if it has settings that they do not take."""
    if type(loss) is not CrossEntropy or (loss.priors is not None and loss.softcap is not None):
        return None
    if {field.name for field in dataclasses.fields(loss) if getattr(loss, field.name) != field.default} - _SIMPLE:
        return None
    weight = None if loss.class_weight is None else torch.tensor(loss.class_weight, dtype=torch.float64, device="cpu")
    offset = None
    if loss.priors is not None:
        prior = torch.tensor(loss.priors, dtype=torch.float64, device="cpu")
        offset = loss.temperature * loss.adjustment * (prior / prior.sum()).log()
    settings = RowSettings(
        loss.label_smoothing, loss.temperature, loss.softcap or 0.0, loss.z_loss, loss.ignore_index, True
    )
    return SimpleCrossEntropy(settings, weight, offset)


class LossFunction:
    """A loss object as a function on tensors; `functional` makes it and says what it does.

    Attributes:
        loss: the loss object.
        simple: the loss in the row operators' terms, or None if they do not take it.
        key: the text by which operators know the loss, or "" where they take it in their own terms.
        labels: whether it is a loss on independent labels.
        settings: what of the loss concerns which rows count.
    """

    # everything that compilers cannot look into is done here
    def __init__(self, loss: kullback.losses.Loss) -> None:
        self.loss = loss
        self.name = loss.name
        self.simple = simple_cross_entropy(loss)
        self.key = objects.key_of(loss) if self.simple is None else ""
        self.labels = loss.target_form == "labels"
        self.settings = RowSettings(ignore_index=getattr(loss, "ignore_index", None))

    def __reduce__(self) -> tuple[type[LossFunction], tuple[kullback.losses.Loss]]:
        return LossFunction, (self.loss,)  # the key is this process' own

    def __repr__(self) -> str:
        return f"functional({str(self.loss)!r})"

    def __call__(
        self,
        logits: Tensor,
        targets: Tensor | Mixture,
        *,
        sample_weight: Tensor | None = None,
        reduction: str = "mean",
        denominator: str = "weights",
        empty: str = "nan",
    ) -> Tensor:
        """The loss of a batch, in nats."""
        check_choice("reduction", reduction, REDUCTIONS)
        check_choice("denominator", denominator, DENOMINATORS)
        check_choice("empty", empty, EMPTY)
        check_logits(logits, "logits")
        run = self._by_object if self.simple is None else self._cross_entropy
        return run(logits, targets, sample_weight, reduction, denominator, empty)

    def _cross_entropy(
        self,
        logits: Tensor,
        targets: Tensor | Mixture,
        sample_weight: Tensor | None,
        reduction: str,
        denominator: str,
        empty: str,
    ) -> Tensor:
        assert self.simple is not None
        settings, _, offset = self.simple
        dtype = logits.dtype
        if offset is not None:
            n_classes = logits.shape[0] if logits.dim() == 1 else logits.shape[1]
            if offset.shape[0] != n_classes:
                raise TensorShapeError(f"the loss has {offset.shape[0]} priors, but there are {n_classes} classes")
            # in the wide type: added in half precision the offset would be rounded away
            wide = accumulation_dtype(dtype)
            shift = offset.to(logits.device, wide)
            logits = logits.to(wide) + shift.reshape(-1, *(1,) * max(logits.dim() - 2, 0))
        batch = class_batch(logits, targets, self.simple.class_weight_for(logits), sample_weight, settings)
        value, _ = batch_loss(batch, settings, reduction=reduction, denominator=denominator, empty=empty)
        return value if in_autocast(value.device) else value.to(dtype)

    def _by_object(
        self,
        logits: Tensor,
        targets: Tensor | Mixture,
        sample_weight: Tensor | None,
        reduction: str,
        denominator: str,
        empty: str,
    ) -> Tensor:
        batch = (
            _label_batch(logits, targets, sample_weight)
            if self.labels
            else class_batch(logits, targets, None, sample_weight, self.settings)
        )
        wanted = (batch.target.requires_grad(), "targets"), (requires_grad(sample_weight), "sample_weight")
        for needed, name in wanted:
            if needed and torch.is_grad_enabled():
                raise NotSupportedError(
                    f"{self.name} gives no gradient with respect to {name}: pass {name}.detach(), or use cross_entropy"
                )
        if ops.in_transform() or ops.has_tangent(logits, *batch.target, sample_weight):
            raise NotSupportedError(
                f"{self.name} runs outside torch: torch.func cannot see into it, and it has no forward-mode "
                "derivative; cross_entropy can be transformed"
            )
        narrow = logits.dtype in (torch.float16, torch.bfloat16)
        autocast = narrow and in_autocast(logits.device)
        value, _ = objects.object_loss(
            batch.logits,
            *batch.target,
            batch.sample_weight,
            self.key,
            reduction,
            denominator,
            empty,
            torch.is_grad_enabled() and logits.requires_grad and logits.dtype != torch.float16,
            torch.float32 if autocast else logits.dtype,
            list(batch.shape),
        )
        return batch.restored(value) if reduction == "none" else value


# Text cannot be read inside a compiled graph; what was read before is looked up.
_spelt: dict[str, LossFunction] = {}


def _label_batch(logits: Tensor, targets: Tensor | Mixture, sample_weight: Tensor | None) -> Batch:
    """Independent labels, checked against the logits and flattened."""
    if isinstance(targets, Mixture):
        raise TensorKindError("targets must be a Tensor, not Mixture: these are independent labels")
    check_tensor("targets", targets, logits.device)
    if targets.shape != logits.shape:
        raise BatchSizeError(
            f"targets have shape {tuple(targets.shape)}, the logits {tuple(logits.shape)}; independent labels match "
            "the logits one for one"
        )
    shape = () if logits.dim() == 1 else (logits.shape[0], *logits.shape[2:])
    if sample_weight is not None:
        check_sample_weight(sample_weight, shape, logits.device)
        sample_weight = sample_weight.reshape(math.prod(shape))
    return Batch(as_rows(logits), TargetRows(as_rows(targets)), None, sample_weight, shape)
