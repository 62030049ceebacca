"""Kullback's losses in PyTorch: ``torch.nn.functional``'s names and arguments, exact edge cases, less memory and time.

>>> import torch
>>> import kullback.torch as kt
>>> logits = torch.randn(8, 5, requires_grad=True)
>>> loss = kt.cross_entropy(logits, torch.arange(8) % 5, label_smoothing=0.1)
>>> loss.backward()
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ImportError as error:  # pragma: no cover - needs an environment without PyTorch
    raise ImportError("kullback.torch needs PyTorch, which is not installed: pip install 'kullback[torch]'") from error

from kullback.torch.functional import cross_entropy
from kullback.torch.rows import Mixture

__all__ = ["Mixture", "cross_entropy"]
