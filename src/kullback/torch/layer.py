"""A linear layer as its loss sees it: checked against its input, its rows flattened, its targets beside it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from kullback.torch.errors import SettingError, TensorShapeError, TensorTypeError
from kullback.torch.rows import Batch, Mixture, accumulation_dtype, check_logits, check_tensor, class_batch, in_autocast
from kullback.torch.settings import RowSettings


class Layer(NamedTuple):
    """A linear layer on rows: input (N, D), weight (C, D), bias; `shape` is N in the user's terms."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None
    shape: tuple[int, ...]

    @staticmethod
    def checked(input: Tensor, weight: Tensor, bias: Tensor | None) -> Layer:
        """A user's layer, its types as autocast wants them, its rows flattened.

        Raises:
            TensorKindError, TensorTypeError, TensorShapeError, LogitsTypeError: for what does not fit together.
        """
        check_logits(input)
        check_tensor("linear_weight", weight, input.device)
        if bias is not None:
            check_tensor("linear_bias", bias, input.device)
        if weight.dim() < 2:
            raise TensorShapeError(f"expected linear_weight with dimensionality at least 2, got {weight.dim()}")
        if input.shape[-1] != weight.shape[-1]:
            raise TensorShapeError(
                "expected equal input and linear_weight last dimensions (in_features), got "
                f"{input.shape[-1]} and {weight.shape[-1]}, respectively"
            )
        if weight.shape[0] == 0:
            raise TensorShapeError("linear_weight has no rows: there are no classes")
        if bias is not None and bias.shape != weight.shape[:-1]:
            raise TensorShapeError(f"expected linear_bias shape {tuple(weight.shape[:-1])}, got {tuple(bias.shape)}")
        if weight.dim() > 2 and input.dim() != 2:
            raise TensorShapeError(
                f"a linear_weight of shape {tuple(weight.shape)} needs an input (N, {weight.shape[-1]}), got "
                f"{tuple(input.shape)}"
            )
        if in_autocast(input.device):
            dtype = torch.get_autocast_dtype(input.device.type)
            input, weight = input.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        for name, tensor in (("linear_weight", weight), ("linear_bias", bias)):
            if tensor is not None and tensor.dtype != input.dtype:
                raise TensorTypeError(
                    f"expected input and {name} to have the same dtype, but got {input.dtype} and {tensor.dtype}"
                )
        shape = tuple(input.shape[:-1])
        if weight.dim() == 2 and len(shape) != 1:
            input = input.reshape(math.prod(shape), input.shape[-1])
        return Layer(input, weight, bias, shape)

    def shifted(self, offset: Tensor) -> Layer:
        """The layer with a constant added to each class' logits."""
        if offset.shape[0] != self.weight.shape[0]:
            raise TensorShapeError(
                f"the loss has {offset.shape[0]} priors, but there are {self.weight.shape[0]} classes"
            )
        # on the CPU, where half precision is computed in float32, the constants are not rounded to it either
        device, dtype = self.weight.device, self.weight.dtype
        shift = offset.to(device, accumulation_dtype(dtype) if device.type == "cpu" else dtype)
        return Layer(self.input, self.weight, shift if self.bias is None else self.bias + shift, self.shape)

    def logits(self, counts: Tensor) -> Tensor:
        """All logits, (N, C), or (N, C, d1, …) for a weight of more dimensions; float32 or float64.

        Args:
            counts: bool, which losses count, one or more for each row of the input. A row none of whose losses counts
                is taken for zeros: its gradient of 0 times a NaN in it would make the whole weight gradient NaN.
        """
        wide = accumulation_dtype(self.input.dtype)
        counted = counts.reshape(self.input.shape[0], math.prod(self.weight.shape[1:-1])).any(dim=1)
        input, weight = torch.where(counted[:, None], self.input, 0).to(wide), self.weight.to(wide)
        bias = None if self.bias is None else self.bias.to(wide)
        # the types are chosen here
        autocast = input.device.type if in_autocast(input.device) else "cpu"
        with torch.autocast(autocast, enabled=False):
            if weight.dim() == 2:
                return torch.nn.functional.linear(input, weight, bias)
            logits: Tensor = torch.tensordot(input, weight, dims=([-1], [-1]))
            return logits if bias is None else logits + bias


def layer_batch(
    layer: Layer,
    target: Tensor | Mixture,
    sample_weight: Tensor | None,
    class_weight: Tensor | None,
    settings: RowSettings,
) -> Batch:
    """Targets and weights checked against the layer; the batch's logits have their shape alone, and no memory."""
    n_classes, shape = layer.weight.shape[0], layer.shape
    size = (n_classes,) if shape == () else (math.prod(shape), n_classes)
    if layer.weight.dim() > 2:
        size = (shape[0], *layer.weight.shape[:-1])
    elif len(shape) > 1:
        rows = math.prod(shape)
        target = _flattened(target, shape, n_classes, rows)
        if isinstance(sample_weight, Tensor) and tuple(sample_weight.shape) == shape:
            sample_weight = sample_weight.reshape(rows)
    stand_in = layer.input.detach().new_empty(()).expand(size)
    batch = class_batch(stand_in, target, class_weight, sample_weight, settings)
    # made anew, as PyTorch 2.4's compiler does not know a named tuple's _replace
    return batch if layer.weight.dim() > 2 else Batch(*batch[:4], shape)


def _flattened(target: Tensor | Mixture, shape: tuple[int, ...], n_classes: int, rows: int) -> Tensor | Mixture:
    if isinstance(target, Mixture):
        share = target.share.reshape(rows) if isinstance(target.share, Tensor) and target.share.dim() else target.share
        return Mixture(target.first.reshape(rows), target.second.reshape(rows), share)
    if isinstance(target, Tensor) and tuple(target.shape) == shape:
        return target.reshape(rows)
    if isinstance(target, Tensor) and tuple(target.shape) == (*shape, n_classes):
        return target.reshape(rows, n_classes)
    if isinstance(target, Tensor):
        raise TensorShapeError(
            f"target has shape {tuple(target.shape)}; for {math.prod(shape)} examples of shape {shape} class indices "
            f"have that shape, and soft rows {(*shape, n_classes)}"
        )
    return target


def check_chunk_rows(chunk_rows: int | None) -> None:
    """Refuse a number of rows that cannot be taken at a time.

    Raises:
        SettingError: for anything but None and the whole numbers from 1 on.
    """
    if chunk_rows is None or (isinstance(chunk_rows, int) and chunk_rows >= 1):
        return
    raise SettingError(f"chunk_rows must be a whole number of at least 1, or None. Got: {chunk_rows!r}")
