"""A linear layer and a softmax loss in one, on the kernels."""

from __future__ import annotations

import functools

from kullback.torch.triton.chunks import evaluate
from kullback.torch.triton.launch import softmax_evaluate

linear_softmax_evaluate = functools.partial(evaluate, softmax_evaluate)
"""See `kullback.torch.triton.chunks.evaluate`, whose `rows` is the kernels' `softmax_evaluate` here."""
