"""Kullback's losses in PyTorch: ``torch.nn.functional``'s names and arguments, exact edge cases, less memory and time.

>>> import torch
>>> import kullback.torch as kt
>>> logits = torch.randn(8, 5, requires_grad=True)
>>> loss = kt.cross_entropy(logits, torch.arange(8) % 5, label_smoothing=0.1)
>>> loss.backward()
"""

from __future__ import annotations

try:
    import torch as _torch
except ImportError as error:  # pragma: no cover - needs an environment without PyTorch
    raise ImportError("kullback.torch needs PyTorch, which is not installed: pip install 'kullback[torch]'") from error

if tuple(int(part) for part in _torch.__version__.split(".")[:2]) < (2, 4):
    raise ImportError(
        f"kullback.torch needs PyTorch 2.4 or newer, but {_torch.__version__} is installed: pip install 'torch>=2.4'"
    )

from kullback.torch.binary import binary_cross_entropy_with_logits
from kullback.torch.buffers import empty_cache
from kullback.torch.checks import check_targets
from kullback.torch.divergence import kl_div
from kullback.torch.functional import cross_entropy, cross_entropy_with_statistics
from kullback.torch.linear import (
    LinearCrossEntropy,
    linear_cross_entropy,
    linear_cross_entropy_with_statistics,
    linear_loss,
)
from kullback.torch.loss import Loss, functional
from kullback.torch.modules import BCEWithLogitsLoss, CrossEntropyLoss, KLDivLoss, NLLLoss
from kullback.torch.nll import nll_loss
from kullback.torch.parallel import vocab_parallel_cross_entropy, vocab_parallel_linear_cross_entropy
from kullback.torch.rows import Mixture
from kullback.torch.statistics import Statistics

LinearCrossEntropyLoss = LinearCrossEntropy  # what PyTorch calls it

__all__ = [
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "KLDivLoss",
    "LinearCrossEntropy",
    "LinearCrossEntropyLoss",
    "Loss",
    "Mixture",
    "NLLLoss",
    "Statistics",
    "binary_cross_entropy_with_logits",
    "check_targets",
    "cross_entropy",
    "cross_entropy_with_statistics",
    "empty_cache",
    "functional",
    "kl_div",
    "linear_cross_entropy",
    "linear_cross_entropy_with_statistics",
    "linear_loss",
    "nll_loss",
    "vocab_parallel_cross_entropy",
    "vocab_parallel_linear_cross_entropy",
]
