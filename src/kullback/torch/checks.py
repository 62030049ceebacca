"""Which target cannot be used, and why: for devices whose losses cannot say it."""

from __future__ import annotations

import torch
from torch import Tensor

from kullback.torch import native
from kullback.torch.errors import SettingError, TensorKindError
from kullback.torch.rows import Mixture, TargetRows, class_batch
from kullback.torch.settings import RowSettings


def check_targets(
    input: Tensor | int,
    target: Tensor | Mixture,
    *,
    ignore_index: int | None = -100,
    sample_weight: Tensor | None = None,
) -> None:
    """Raise for the first target that a loss cannot use, wherever the tensors are.

    On the CPU the losses do this themselves. On other devices they would have to wait for the device, and give such an
    example a NaN loss and a NaN gradient instead: call this when a loss turns NaN. It waits.

    Args:
        input: the logits, (C,), (N, C) or (N, C, d1, …), of which only the shape matters; or C itself, as for targets
            of a layer whose logits nobody holds.
        target: class indices of any shape that fits, soft rows of the logits' shape, or a `Mixture`.
        ignore_index: class index of examples that do not count, or None.
        sample_weight: one weight per example, or None; examples of weight 0 do not count.

    Raises:
        ClassIndexError: (an ``IndexError``) naming the position, the class and the valid range.
        SoftTargetError: (a ``RuntimeError``) for a soft row with an entry that is not finite.
        SettingError: (a ``RuntimeError``) for a share outside [0, 1] or a sample weight that is negative or not finite.
        InputError: of PyTorch's exception type for shapes, types and devices that do not fit.

    >>> import torch
    >>> from kullback.torch import check_targets
    >>> check_targets(torch.zeros(2, 3), torch.tensor([0, 7]))
    Traceback (most recent call last):
    kullback.torch.errors.ClassIndexError: Target 7 is out of bounds. At target[1]: valid classes are 0 to 2; ignore_index is -100
    """  # noqa: E501 - an error message is one line
    settings = RowSettings(ignore_index=ignore_index)
    if isinstance(input, int):
        input = _stand_in(input, target)
    soft = isinstance(target, Tensor) and target.dtype.is_floating_point
    batch = class_batch(input, target, None, sample_weight, RowSettings() if soft else settings)
    weight = native.row_weights(None if sample_weight is None else batch.sample_weight.cpu(), checked=True)  # type: ignore[union-attr]
    host = TargetRows(*(None if t is None else t.detach().cpu() for t in batch.target))  # type: ignore[arg-type]
    native.check_targets(host, batch.logits.shape[1], weight, settings, batch.shape)


def _stand_in(n_classes: int, target: Tensor | Mixture) -> Tensor:
    """Logits of the shape that goes with C and the target, without their memory."""
    if n_classes < 1:
        raise SettingError(f"the number of classes must be at least 1. Got: {n_classes}")
    first = target.first if isinstance(target, Mixture) else target
    if not isinstance(first, Tensor):
        raise TensorKindError(f"target must be a Tensor, not {type(first).__name__}")
    if first.dtype.is_floating_point:
        return torch.empty((), device=first.device).expand(first.shape)
    shape = (first.shape[0], n_classes, *first.shape[1:]) if first.dim() else (n_classes,)
    return torch.empty((), device=first.device).expand(shape)
