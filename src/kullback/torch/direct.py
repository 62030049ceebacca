"""The short way to an operator: straight to its function, where nothing needs to see the operator itself.

A call of a registered operator costs a few tenths of a millisecond before it does anything, which is more than the loss
of a small batch takes. Compilers, tracers, modes and tensors of special types do need the operator; ordinary tensors in
an ordinary program do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from kullback.torch.errors import NotSupportedError

_PLAIN_TYPES = (Tensor, torch.nn.Parameter)
_inside_modes = getattr(torch._C, "_len_torch_dispatch_stack", None)
# Whether a tensor stands for several, as incoming gradients do with ``is_grads_batched=True``.
is_batched = torch._C._functorch.is_legacy_batchedtensor


def is_plain(tensors: Sequence[Tensor | None]) -> bool:
    """Whether these, here and now, are ordinary tensors outside all of PyTorch's machinery.

    Raises:
        NotSupportedError: inside ``torch.jit.trace``, which cannot record these operators' arguments.
    """
    if torch.compiler.is_compiling():
        return False
    if torch._C._get_tracing_state() is not None:
        raise NotSupportedError("torch.jit.trace cannot record Kullback's losses; use torch.export or torch.compile")
    if _inside_modes is None or _inside_modes() or torch._C._are_functorch_transforms_active():
        return False
    return all(t is None or (type(t) in _PLAIN_TYPES and not t.is_meta and not is_batched(t)) for t in tensors)


def direct(
    function: Callable[..., Any],
    context: Callable[[Any, tuple[Any, ...], Any], None],
    backward: Callable[..., tuple[Tensor | None, ...]],
    n_tensors: int,
) -> Callable[..., Any]:
    """A function with a gradient, without an operator around it.

    Args:
        function: what the operator runs.
        context: keeps what the backward pass needs, as ``setup_context`` of ``torch.autograd.Function`` does.
        backward: the gradient, as of ``torch.autograd.Function``.
        n_tensors: how many of the arguments, the first, may be tensors.
    """

    # PyTorch looks at every argument of such a function, so the others travel as one
    def forward(ctx: Any, *packed: Any) -> Any:
        args = (*packed[:-1], *packed[-1])
        output = function(*args)
        context(ctx, args, output)
        return output

    def unpacked_backward(ctx: Any, *incoming: Tensor | None) -> tuple[Tensor | None, ...]:
        return (*backward(ctx, *incoming)[:n_tensors], None)

    body = {"forward": staticmethod(forward), "backward": staticmethod(unpacked_backward)}
    differentiable: Any = type(f"kullback{function.__name__}", (torch.autograd.Function,), body)

    def call(*args: Any) -> Any:
        if torch.is_grad_enabled() and any(a is not None and a.requires_grad for a in args[:n_tensors]):
            return differentiable.apply(*args[:n_tensors], args[n_tensors:])
        return function(*args)

    return call
