"""The functions of ``torch.nn.functional`` by the same names, with the same arguments first, and more after them."""

from __future__ import annotations

from torch import Tensor

from kullback.torch import quick
from kullback.torch.batch_loss import batch_loss
from kullback.torch.overwrite import check_overwritable
from kullback.torch.rows import Mixture, class_batch
from kullback.torch.settings import legacy_reduction, row_settings
from kullback.torch.statistics import Statistics


def cross_entropy(
    input: Tensor,
    target: Tensor | Mixture,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    sample_weight: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    denominator: str | None = None,
    empty: str = "nan",
    overwrite_input: bool = False,
) -> Tensor:
    r"""Cross-entropy between logits and targets, in nats: ``torch.nn.functional.cross_entropy`` and more.

    With x = softcap(z)/T a row costs −Σ_k s_k·log softmax(x)_k + Σs·λ·lse(x)². Index targets, mixtures and soft rows,
    class weights and smoothing mean what they mean in PyTorch: s_k = w_k·((1 − ε)·t_k + ε/C).

    Args:
        input: logits (C,), (N, C) or (N, C, d1, …); float32, float64, bfloat16 or float16, computed in
            at least float32.
        target: class indices of the input's shape without its class dimension (int64, int32, int16, int8 or uint8);
            soft rows of the input's own shape; or a `Mixture`.
        weight: (C,) or None.
        size_average: deprecated, as in PyTorch.
        ignore_index: examples of this class do not count: exactly zero loss and gradient, whatever their logits are.
        reduce: deprecated, as in PyTorch.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_smoothing: ε in [0, 1].
        sample_weight: one weight per example, or None; may require a gradient.
        temperature: T > 0 divides the logits.
        softcap: c bounds the logits through c·tanh(z/c), or None.
        z_loss: λ, the weight of the squared log-sum-exp; like the rest of the loss it counts Σs times, so a row's class
            weight applies to it, and `CrossEntropy(z_loss=λ)` is the same.
        denominator: what the mean divides by: ``"weights"``, the sum of sample × class weights of the counted examples,
            or ``"examples"``, their number. By default PyTorch's own choice: weights for class indices, examples for
            soft rows and mixtures.
        empty: the mean where nothing counts: ``"nan"`` (PyTorch's), ``"zero"``, or ``"error"``.
        overwrite_input: write the gradient over the logits, which saves their whole memory once more. The input holds
            the gradient afterwards, and there is no second derivative. It must be computed from something else (not a
            leaf that requires a gradient), with the classes of each example together in memory.

    Raises:
        ClassIndexError: (an ``IndexError``) for a class out of range on the CPU, naming its position. On other devices
            that would mean waiting for them: the example's loss and gradient are NaN instead.
        NotSupportedError: for ``overwrite_input=True`` where the input's own memory cannot take the gradient.
        InputError: of PyTorch's exception type for shapes, dtypes, devices and settings that do not fit.

    >>> import torch
    >>> from kullback.torch import cross_entropy
    >>> logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    >>> loss = cross_entropy(logits, torch.tensor([0, 2]))
    >>> round(loss.item(), 4)
    0.6691
    >>> loss.backward()
    >>> logits.grad[1]
    tensor([ 0.1667,  0.1667, -0.3333])
    """
    settings = row_settings(label_smoothing, temperature, softcap, z_loss, ignore_index)
    reduction = legacy_reduction(size_average, reduce, reduction)
    unweighted = weight is None and sample_weight is None and denominator is None
    if unweighted and reduction == "mean" and empty == "nan" and not overwrite_input:
        value = quick.mean_loss(input, target, settings)
        if value is not None:
            return value
    batch = class_batch(input, target, weight, sample_weight, settings)
    if overwrite_input:
        check_overwritable(input)
    value, _ = batch_loss(
        batch,
        settings,
        reduction=reduction,
        denominator=denominator,
        empty=empty,
        overwrite_input=overwrite_input,
    )
    return value


def cross_entropy_with_statistics(
    input: Tensor,
    target: Tensor | Mixture,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    sample_weight: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    z_loss: float = 0.0,
    denominator: str | None = None,
    empty: str = "nan",
) -> tuple[Tensor, Statistics]:
    """`cross_entropy` that also returns the log-sum-exps, the predictions and the accuracy of the batch.

    Args:
        input: as for `cross_entropy`, and so are all others.
        target: class indices, soft rows or a `Mixture`.
        weight: (C,) or None.
        ignore_index: examples of this class do not count.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_smoothing: ε in [0, 1].
        sample_weight: one weight per example, or None.
        temperature: T > 0.
        softcap: c, or None.
        z_loss: λ.
        denominator: what the mean divides by.
        empty: the mean where nothing counts.

    Returns:
        The loss and its `Statistics`, which carry no gradient.

    >>> import torch
    >>> from kullback.torch import cross_entropy_with_statistics
    >>> loss, found = cross_entropy_with_statistics(torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
    >>> found.accuracy, found.prediction
    (tensor(0.5000), tensor([0, 0]))
    """
    settings = row_settings(label_smoothing, temperature, softcap, z_loss, ignore_index)
    batch = class_batch(input, target, weight, sample_weight, settings)
    value, found = batch_loss(
        batch, settings, reduction=reduction, denominator=denominator, empty=empty, with_statistics=True
    )
    assert found is not None
    return value, found
