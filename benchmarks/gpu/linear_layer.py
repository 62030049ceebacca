"""A linear layer and cross-entropy, forward and backward: fused, eager and unfused, torch's own chunked version.

All go through autograd; the kernels on their own, with the gradients as results, have rows of their own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from measure import Meter, attempt

import kullback.torch as kt
from kullback.torch.rows import TargetRows
from kullback.torch.triton import RowLoss, linear_softmax_evaluate

MAIN = (4096, 4096, 128256)


def compare(meter: Meter, shape: tuple[int, int, int]) -> list[dict[str, Any]]:
    """Rows N, features D, classes C in bfloat16; peaks are beyond input, weight and target."""
    n, d, c = shape
    x = torch.randn(n, d, device=meter.device, dtype=torch.bfloat16)
    w = torch.randn(c, d, device=meter.device, dtype=torch.bfloat16).mul_(d**-0.5)
    target = torch.randint(c, (n,), device=meter.device)
    results: list[dict[str, Any]] = []

    def add(name: str, call: Any, **more: Any) -> None:
        result = attempt(meter, {"what": name, "shape": list(shape), "dtype": "torch.bfloat16", **more}, call, clear)
        if "failed" not in result:
            beyond = result["peak_bytes"] - w.numel() * w.element_size()
            result["peak_bytes_beyond_weight_gradient"] = max(0, beyond)
        results.append(result)

    def clear() -> None:
        x.grad = w.grad = None

    def kernel(**options: Any) -> Any:
        return lambda: linear_softmax_evaluate(
            RowLoss(), x, w, TargetRows(target), scale=1.0 / n, input_gradient=True, weight_gradient=True, **options
        )

    for chunk in sorted({max(1, n // k) for k in (1, 4, 8)}):
        for wide in (True, False):
            name = f"kernel, {chunk} rows a chunk, weight gradient summed in {'float32' if wide else 'bfloat16'}"
            add(name, kernel(chunk_rows=chunk, accumulate_in_float32=wide), chunk_rows=chunk, float32=wide)
    add("kernel", kernel(), default=True)

    x.requires_grad_()
    w.requires_grad_()

    def fused() -> None:
        x.grad = w.grad = None
        kt.linear_cross_entropy(x, w, target).backward()

    add("kullback", fused)

    def unfused() -> None:
        x.grad = w.grad = None
        F.cross_entropy(F.linear(x, w), target).backward()

    add("eager", unfused)
    options = getattr(torch.nn, "LinearCrossEntropyOptions", None)
    if options is not None and hasattr(F, "linear_cross_entropy"):

        def chunked() -> None:
            x.grad = w.grad = None
            F.linear_cross_entropy(x, w, target, options=options()).backward()

        add("torch linear_cross_entropy", chunked)
    if not meter.dry:
        torch.compiler.reset()
        together = torch.compile(lambda a, b, t: F.cross_entropy(F.linear(a, b), t))

        def compiled() -> None:
            x.grad = w.grad = None
            together(x, w, target).backward()

        add("torch.compile", compiled)
    return results
