"""A linear layer and cross-entropy (or another softmax loss) in one step that never holds all the logits."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import kullback.losses
from kullback.torch import linear_ops, ops, plain
from kullback.torch.batch_loss import batch_loss, checked_denominator, reduced, requires_grad, value_dtype
from kullback.torch.errors import ChoiceError, NotSupportedError, SettingError, TensorKindError, TensorShapeError
from kullback.torch.layer import Layer, check_chunk_rows, layer_batch
from kullback.torch.loss import LossFunction, functional
from kullback.torch.rows import Batch, Mixture, accumulation_dtype, as_rows
from kullback.torch.settings import RowSettings, row_settings
from kullback.torch.statistics import Statistics, statistics_of


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor | Mixture,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any | None = None,
    sample_weight: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    denominator: str | None = None,
    empty: str = "nan",
    chunk_rows: int | None = None,
    drop_ignored: bool = False,
) -> Tensor:
    """``cross_entropy(linear(input, linear_weight, linear_bias), target)`` in a fraction of its memory.

    The logits are made, turned into their gradient and used up a chunk at a time. The result is exact: nothing small is
    dropped, and the chunk size only changes the order of the weight gradient's sums, which are kept in float32 (float64
    for float64). On the CPU examples that do not count are left out of the matrix products.

    Args:
        input: (D,), (N, D) or (N, T, …, D): one row of features per example.
        linear_weight: (C, D), as in ``torch.nn.Linear``; (C, d1, …, D) computes one loss per d1, … from whole logits.
        target: class indices of the input's shape without D; soft rows of the logits' shape; or a `Mixture`.
        linear_bias: (C,) or None.
        weight: class weights (C,), or None.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        ignore_index: examples of this class do not count; None stands for −100.
        label_smoothing: ε in [0, 1].
        options: ``torch.nn.LinearCrossEntropyOptions`` or None: its ``batch_chunk_size`` is `chunk_rows`. Its other
            fields choose between memory and exactness or between ways to keep the gradients; there is nothing to
            choose here, and they are not looked at.
        sample_weight: one weight per example, or None; may require a gradient.
        temperature: T > 0 divides the logits.
        softcap: c bounds the logits through c·tanh(z/c), or None.
        z_loss: λ, the weight of the squared log-sum-exp.
        denominator: what the mean divides by, as for `cross_entropy`.
        empty: the mean where nothing counts, as for `cross_entropy`.
        chunk_rows: how many examples to take at a time; by default what makes at most 96 MiB of logits. Half precision
            on the CPU takes blocks of classes instead, and does not look at it.
        drop_ignored: leave examples that do not count out of the products on every device. The CPU always does; on
            others they go through as zeros by default, because their number is only known once the device has been
            waited for. That wait pays where many are ignored, and cannot be captured in a CUDA graph. The result is
            the same.

    Raises:
        ClassIndexError: (an ``IndexError``) for a class out of range on the CPU.
        InputError: of PyTorch's exception type for what does not fit.

    >>> import torch
    >>> from kullback.torch import linear_cross_entropy
    >>> features, weight = torch.eye(3), torch.zeros(5, 3, requires_grad=True)
    >>> loss = linear_cross_entropy(features, weight, torch.tensor([0, 1, 2]))
    >>> loss.backward()
    >>> weight.grad[0]
    tensor([-0.2667,  0.0667,  0.0667])
    """
    value, _ = _linear_cross_entropy(
        input,
        linear_weight,
        target,
        linear_bias,
        weight,
        _settings(target, label_smoothing, temperature, softcap, z_loss, ignore_index),
        sample_weight,
        _Choices(reduction, denominator, empty, _rows_of(options, chunk_rows), drop_ignored, False),
    )
    return value


def linear_cross_entropy_with_statistics(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor | Mixture,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    sample_weight: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    denominator: str | None = None,
    empty: str = "nan",
    chunk_rows: int | None = None,
    drop_ignored: bool = False,
) -> tuple[Tensor, Statistics]:
    """`linear_cross_entropy` that also returns log-sum-exps, predictions and accuracy; the arguments are the same.

    Of examples that do not count, the prediction is −1.
    """
    value, found = _linear_cross_entropy(
        input,
        linear_weight,
        target,
        linear_bias,
        weight,
        _settings(target, label_smoothing, temperature, softcap, z_loss, ignore_index),
        sample_weight,
        _Choices(reduction, denominator, empty, chunk_rows, drop_ignored, True),
    )
    assert found is not None
    return value, found


def linear_loss(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor | Mixture,
    loss: kullback.losses.Loss | LossFunction | str,
    *,
    linear_bias: Tensor | None = None,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    denominator: str = "weights",
    empty: str = "nan",
    chunk_rows: int | None = None,
    drop_ignored: bool = False,
) -> Tensor:
    """``functional(loss)(linear(input, linear_weight, linear_bias), target)`` without ever holding all the logits.

    Args:
        input: (D,), (N, D) or (N, T, …, D).
        linear_weight: (C, D).
        target: class indices, soft rows or a `Mixture`.
        loss: any loss over mutually exclusive classes, its spelling, or what `functional` made of either, which is what
            to use inside ``torch.compile``.
        linear_bias: (C,) or None.
        sample_weight: one weight per example, or None.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        denominator: ``"weights"`` or ``"examples"``.
        empty: the mean where nothing counts.
        chunk_rows: how many examples to take at a time.
        drop_ignored: wait for the device to leave out what does not count, as for `linear_cross_entropy`.

    Raises:
        NotSupportedError: for a loss on independent labels.
        InputError: of PyTorch's exception type for what does not fit.

    >>> import torch
    >>> from kullback.torch import linear_loss
    >>> linear_loss(torch.eye(3), torch.zeros(4, 3), torch.tensor([0, 1, 2]), "focal(gamma=2)")
    tensor(0.7798)
    """
    known = functional(loss)
    if known.labels:
        raise NotSupportedError(
            f"{known.name} is a loss on independent labels; apply functional(loss) to the logits of the layer"
        )
    simple = known.simple
    layer = Layer.checked(input, linear_weight, linear_bias)
    if linear_weight.dim() > 2:
        raise NotSupportedError("linear_loss takes a (C, D) weight; apply functional(loss) to the logits of the layer")
    choices = _Choices(reduction, denominator, empty, chunk_rows, drop_ignored, False)
    if simple is not None:
        if simple.offset is not None:
            layer = layer.shifted(simple.offset)
        batch = layer_batch(layer, target, sample_weight, simple.class_weight_for(input), simple.settings)
        return _loss(layer, batch, simple.settings, choices)[0]
    batch = layer_batch(layer, target, sample_weight, None, known.settings)
    learnt = batch.target.requires_grad() or requires_grad(sample_weight)
    if ops.in_transform() or ops.has_tangent(*layer[:3], *batch.target, sample_weight) or learnt:
        raise NotSupportedError(
            f"{known.name} gives no gradient with respect to targets or sample weights, torch.func cannot see into it, "
            "and it has no forward-mode derivative; detach them, or use linear_cross_entropy"
        )
    check_chunk_rows(chunk_rows)
    return _fused(layer, batch, known.settings, choices, known.key)[0]


class LinearCrossEntropy(nn.Module):
    """A linear layer with its cross-entropy: `linear_cross_entropy` around a weight of its own.

    Args:
        in_features: D.
        num_classes: C.
        out_features: (d1, …) for one loss per d1, … from a (C, d1, …, D) weight; the layer keeps it as (C·d1·…, D).
        bias: whether the layer has a bias.
        device: of the weight.
        dtype: of the weight.
        reduction: as for `linear_cross_entropy`, and so are all that follow.
        weight: class weights (C,), or None.
        ignore_index: examples of this class do not count.
        label_smoothing: ε in [0, 1].
        options: ``torch.nn.LinearCrossEntropyOptions``, as for `linear_cross_entropy`.
        temperature: T > 0.
        softcap: c, or None.
        z_loss: λ.
        denominator: what the mean divides by.
        empty: the mean where nothing counts.
        chunk_rows: how many examples to take at a time.
        drop_ignored: wait for the device to leave out what does not count.

    >>> import torch
    >>> from kullback.torch import LinearCrossEntropy
    >>> head = LinearCrossEntropy(16, 1000)
    >>> head(torch.randn(8, 16), torch.arange(8)).shape
    torch.Size([])
    >>> head.linear(torch.randn(2, 16)).shape  # the logits, when they are wanted
    torch.Size([2, 1000])
    """

    weight: Tensor | None

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        reduction: str = "mean",
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: Any | None = None,
        temperature: float = 1.0,
        softcap: float | None = None,
        z_loss: float = 0.0,
        denominator: str | None = None,
        empty: str = "nan",
        chunk_rows: int | None = None,
        drop_ignored: bool = False,
    ) -> None:
        super().__init__()
        if weight is not None and weight.shape != (num_classes,):
            raise TensorShapeError(f"expected weight shape to be {(num_classes,)}, got {tuple(weight.shape)}")
        self.classes = (num_classes, *out_features)
        self.linear = nn.Linear(in_features, math.prod(self.classes), bias=bias, device=device, dtype=dtype)
        self.register_buffer("weight", weight)
        self.reduction = reduction
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.temperature = temperature
        self.softcap = softcap
        self.z_loss = z_loss
        self.denominator = denominator
        self.empty = empty
        self.chunk_rows = _rows_of(options, chunk_rows)
        self.drop_ignored = drop_ignored

    def forward(self, input: Tensor, target: Tensor | Mixture, sample_weight: Tensor | None = None) -> Tensor:
        """The loss of a batch of features, in nats."""
        linear_weight: Tensor = self.linear.weight
        linear_bias: Tensor | None = self.linear.bias
        if len(self.classes) > 1:
            linear_weight = linear_weight.reshape(*self.classes, self.linear.in_features)
            linear_bias = None if linear_bias is None else linear_bias.reshape(self.classes)
        return linear_cross_entropy(
            input,
            linear_weight,
            target,
            linear_bias=linear_bias,
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            sample_weight=sample_weight,
            temperature=self.temperature,
            softcap=self.softcap,
            z_loss=self.z_loss,
            denominator=self.denominator,
            empty=self.empty,
            chunk_rows=self.chunk_rows,
            drop_ignored=self.drop_ignored,
        )


# ---------------------------------------------------------------- behind them


def _settings(
    target: Tensor | Mixture,
    label_smoothing: float,
    temperature: float,
    softcap: float | None,
    z_loss: float,
    ignore_index: int | None,
) -> RowSettings:
    if isinstance(target, Tensor) and target.dtype.is_floating_point and ignore_index is not None:
        raise SettingError("ignore_index cannot be specified when target contains probabilities")
    return row_settings(label_smoothing, temperature, softcap, z_loss, -100 if ignore_index is None else ignore_index)


def _rows_of(options: Any | None, chunk_rows: int | None) -> int | None:
    """`chunk_rows`, where PyTorch's own options may ask for a number of rows too."""
    if options is None:
        return chunk_rows
    if not hasattr(options, "batch_chunk_size"):
        raise TensorKindError(f"options must be LinearCrossEntropyOptions or None, not {type(options).__name__}")
    asked: int | None = options.batch_chunk_size
    if asked is not None and chunk_rows is not None and asked != chunk_rows:
        raise ChoiceError(f"options.batch_chunk_size is {asked} and chunk_rows {chunk_rows}; give one of them")
    return chunk_rows if asked is None else asked


class _Choices(NamedTuple):
    reduction: str
    denominator: str | None
    empty: str
    chunk_rows: int | None
    drop_ignored: bool
    with_statistics: bool


def _linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor | Mixture,
    linear_bias: Tensor | None,
    weight: Tensor | None,
    settings: RowSettings,
    sample_weight: Tensor | None,
    choices: _Choices,
) -> tuple[Tensor, Statistics | None]:
    layer = Layer.checked(input, linear_weight, linear_bias)
    return _loss(layer, layer_batch(layer, target, sample_weight, weight, settings), settings, choices)


def _loss(layer: Layer, batch: Batch, settings: RowSettings, choices: _Choices) -> tuple[Tensor, Statistics | None]:
    check_chunk_rows(choices.chunk_rows)
    several = layer.weight.dim() > 2  # losses per example
    composite = batch.target.requires_grad() or requires_grad(batch.class_weight)
    if several or composite or ops.in_transform() or ops.in_forward_mode():
        counts = plain.counted_rows(batch.target, batch.sample_weight, settings.ignore_index)
        return _from_logits(Batch(as_rows(layer.logits(counts)), *batch[1:]), layer, settings, choices)
    return _fused(layer, batch, settings, choices, "")


def _from_logits(
    batch: Batch, layer: Layer, settings: RowSettings, choices: _Choices
) -> tuple[Tensor, Statistics | None]:
    """What needs whole logits: weights of more dimensions, gradients of targets or class weights, and torch.func."""
    value, found = batch_loss(
        batch,
        settings,
        reduction=choices.reduction,
        denominator=choices.denominator,
        empty=choices.empty,
        with_statistics=choices.with_statistics,
    )
    return value.to(value_dtype(layer.input, batch.target)), found


def _fused(
    layer: Layer, batch: Batch, settings: RowSettings, choices: _Choices, key: str
) -> tuple[Tensor, Statistics | None]:
    reduction = choices.reduction
    kind = checked_denominator(batch.target, reduction, choices.denominator, choices.empty)
    learnt_weight = requires_grad(batch.sample_weight)
    dtype = value_dtype(layer.input, batch.target)
    # as for cross_entropy: float16 gradients wait for the loss scaler's factor
    now = torch.is_grad_enabled() and reduction != "none" and not learnt_weight and dtype != torch.float16
    now = now and layer.input.dtype != torch.float16
    value, _, _, _, _, lse, prediction = linear_ops.linear_loss(
        layer.input,
        layer.weight,
        layer.bias,
        *batch.target,
        None if learnt_weight else batch.sample_weight,
        batch.class_weight,
        *settings,
        key,
        "none" if learnt_weight else reduction,
        kind,
        choices.empty,
        [now and requires_grad(t) for t in (layer.input, layer.weight, layer.bias)],
        choices.with_statistics,
        choices.chunk_rows,
        choices.drop_ignored,
        accumulation_dtype(layer.input.dtype) if learnt_weight else dtype,
        list(layer.shape),
    )
    if learnt_weight:
        value = reduced(value, batch, settings, reduction, kind, choices.empty).to(dtype)
    found = statistics_of(batch, settings, lse, prediction) if choices.with_statistics else None
    return batch.restored(value) if reduction == "none" else value, found
