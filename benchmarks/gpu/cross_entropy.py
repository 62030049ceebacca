"""Value and gradient of losses on logits that lie in device memory: ours, eager torch, and torch.compile.

What is compared with eager torch goes through autograd as that does: ``kullback.torch.cross_entropy(…).backward()``.
The kernel on its own, which returns the gradient itself, has rows of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from measure import Meter, attempt

import kullback.torch as kt
from kullback.torch.rows import TargetRows
from kullback.torch.triton import RowLoss, reference, softmax_evaluate
from kullback.torch.triton.launch import Tile

MAIN = (16384, 131072, torch.bfloat16)
SHAPES = (
    (1_000_000, 3, torch.float32),
    (1_000_000, 10, torch.float32),
    (65536, 1000, torch.float32),
    (65536, 1000, torch.bfloat16),
    (8192, 50257, torch.bfloat16),
    (4096, 128256, torch.bfloat16),
)
# eager torch holds logits, log-probabilities and two gradients at a time
EAGER_COPIES = 5


def kernel(loss: RowLoss, logits: torch.Tensor, targets: TargetRows, **options: Any) -> Callable[[], object]:
    """The mean's value and gradient from one kernel, without autograd."""
    scale = 1.0 / len(logits)

    def call() -> object:
        result = softmax_evaluate(loss, logits, targets, ignore_index=-100, scale=scale, gradient=True, **options)
        return result.losses.sum() * scale

    return call


def error(loss: RowLoss, logits: torch.Tensor, targets: TargetRows, rows: int = 64) -> dict[str, float]:
    """Largest relative error of losses, and error of gradients beyond their dtype's rounding, against float64."""
    some = TargetRows(*(None if t is None else t[:rows] for t in targets))
    z = logits[:rows].detach()
    exact = reference.softmax_evaluate(loss.double(), z.double(), some, gradient=True)
    got = softmax_evaluate(loss, z, some, gradient=True)
    assert got.gradient is not None
    assert exact.gradient is not None
    off = (got.gradient.double() - exact.gradient).abs() - exact.gradient.abs() * torch.finfo(z.dtype).eps
    return {
        "loss": float(((got.losses.double() - exact.losses).abs() / exact.losses.abs().clamp(min=1)).max()),
        "gradient_beyond_rounding": float(off.max().clamp(min=0)),
    }


def bandwidth(meter: Meter, shape: tuple[int, int], dtype: torch.dtype) -> dict[str, Any]:
    """Time of copying a matrix: one read and one write of every element, the least that value and gradient can do."""
    source = torch.randn(shape, device=meter.device, dtype=dtype)
    target = torch.empty_like(source)
    measured = meter.measure(lambda: target.copy_(source))
    total = 2 * source.numel() * source.element_size()
    return {
        "what": "copy", "shape": list(shape), "dtype": str(dtype), **measured._asdict(),
        "gigabytes_per_second": total / measured.milliseconds / 1e6,
    }  # fmt: skip


def compare(meter: Meter, shape: tuple[int, int], dtype: torch.dtype, every_loss: bool) -> list[dict[str, Any]]:
    """One shape: the copy, the kernel with several losses, ours, eager and compiled cross-entropy."""
    n_rows, n_classes = shape
    copy = bandwidth(meter, shape, dtype)
    logits = torch.randn(shape, device=meter.device, dtype=dtype).mul_(3)
    target = torch.randint(n_classes, (n_rows,), device=meter.device)
    second = torch.randint(n_classes, (n_rows,), device=meter.device)
    share = torch.rand(n_rows, device=meter.device)
    weight = torch.rand(n_classes, device=meter.device) + 0.5
    index = TargetRows(target)
    calls: dict[str, tuple[RowLoss, TargetRows]] = {"kernel": (RowLoss(), index)}
    if every_loss:
        calls |= {
            "kernel, smoothing and class weights": (RowLoss(smoothing=0.1, class_weight=weight), index),
            "kernel, z-loss and softcap": (RowLoss(z_loss=1e-4, softcap=30.0), index),
            "kernel, mixture": (RowLoss(), TargetRows(target, second, share)),
            "kernel, focal": (RowLoss("focal", 2.0), index),
            "kernel, generalised": (RowLoss("generalised_cross_entropy", 0.7), index),
            "kernel, brier": (RowLoss("brier"), index),
        }
    results = [copy]

    def add(name: str, call: Callable[[], object], clear: Callable[[], object] = bool) -> None:
        what = {"what": name, "shape": list(shape), "dtype": str(dtype)}
        result = attempt(meter, what, call, clear)
        if "failed" not in result:
            result["of_copy_bandwidth"] = copy["milliseconds"] / result["milliseconds"]
        results.append(result)

    for name, (loss, targets) in calls.items():
        add(name, kernel(loss, logits, targets))
        if "failed" not in results[-1]:
            results[-1]["error"] = error(loss, logits, targets)
    leaf = logits.requires_grad_()

    def clear() -> None:
        leaf.grad = None

    def backward(function: Callable[..., torch.Tensor]) -> Callable[[], None]:
        def call() -> None:
            leaf.grad = None
            function(leaf, target).backward()

        return call

    add("kullback", backward(kt.cross_entropy), clear)
    add("eager", backward(F.cross_entropy), clear)
    if not meter.dry:
        torch.compiler.reset()
        add("torch.compile", backward(torch.compile(F.cross_entropy)), clear)
    return results


def sweep(meter: Meter, shape: tuple[int, int], dtype: torch.dtype) -> list[dict[str, Any]]:
    """Tiles for wide rows, to choose `launch.PLAIN` and its warps by."""
    copy = bandwidth(meter, shape, dtype)
    logits = torch.randn(shape, device=meter.device, dtype=dtype)
    index = TargetRows(torch.randint(shape[1], (shape[0],), device=meter.device))
    results = []
    for block in (4096, 8192, 16384, 32768):
        for warps in (4, 8, 16, 32):
            if block // (32 * warps) > 64 or block // (32 * warps) < 4:
                continue
            what = {"what": f"tile {block} by {warps} warps", "shape": list(shape), "dtype": str(dtype)}
            result = attempt(meter, what, kernel(RowLoss(), logits, index, tile=Tile(1, block, warps)))
            if "failed" not in result:
                result["of_copy_bandwidth"] = copy["milliseconds"] / result["milliseconds"]
            results.append(result)
    return results
