"""Compile the kernels for a GPU on a machine that has none, exactly as a call would, and report what they use.

Run as a program: ``python compile_kernels.py 90 essential`` (or ``thorough``) compiles for compute capability 9.0 and
prints one JSON line per case. The launch is replaced by Triton's own compilation ("warm-up"); everything before it is
the real path.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from kullback.torch.rows import TargetRows
from kullback.torch.triton import launch
from kullback.torch.triton.launch import Tile, softmax_evaluate
from kullback.torch.triton.row_loss import RowLoss
from kullback.torch.triton.scaling import scale_in_place

compiled = []


class NoDevice:
    """A driver that knows its target and nothing else."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


def compile_only(capability: int) -> None:
    driver.set_active(NoDevice(capability))
    launch.interpreted = lambda: True  # the tensors here are on the CPU, as an interpreter's would be
    run = JITFunction.run

    def warm_up(self, *args, grid, warmup, **kwargs):
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        compiled.append((self.fn.__name__, kernel))
        return kernel

    JITFunction.run = warm_up


def resources(cubin: bytes) -> dict[str, int]:
    """Registers, stack and shared memory, as cuobjdump reads them from the machine code."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    return {name: int(value) for name, value in re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", text)}


class Case(NamedTuple):
    """One call: what `softmax_evaluate` is given."""

    name: str
    loss: RowLoss
    shape: tuple[int, int]
    dtype: torch.dtype
    target: TargetRows
    row_weight: bool = False
    argmax: bool = False
    tile: Tile | None = None


def essential():
    """One case of each kind of code."""
    yield Case("few classes", RowLoss(), (4096, 10), torch.float32, index(4096))
    yield Case("row in registers", RowLoss(), (8, 16384), torch.float32, index(8))
    yield Case("wide row", RowLoss(), (4, 131072), torch.bfloat16, index(4))
    yield Case("focal", RowLoss("focal", 2.0), (64, 1000), torch.bfloat16, index(64))
    yield Case("Jensen-Shannon", RowLoss("jensen_shannon", 0.5), (64, 1000), torch.bfloat16, index(64))
    yield Case("wide soft", RowLoss(smoothing=0.1, by_mass=False), (4, 131072), torch.bfloat16, soft(4, 131072))
    yield everything("everything", "cross_entropy", 64, 1000, mixture(64))
    yield everything("everything, one-vs-rest", "one_vs_rest", 64, 1000, index(64))


def thorough():
    """Every loss, and the widths and tiles worth comparing."""
    bf16 = torch.bfloat16
    yield from essential()
    for c, dtype in ((3, torch.float32), (10, bf16), (1000, torch.float32), (16384, bf16), (131072, torch.float32)):
        yield Case(f"index {c} {dtype}", RowLoss(), (256, c), dtype, index(256))
    for warps, block in ((16, 16384), (16, 8192), (8, 8192), (32, 32768)):
        yield Case(f"{block} by {warps}", RowLoss(), (4, 131072), bf16, index(4), tile=Tile(1, block, warps))
    yield Case("odd width", RowLoss(), (4, 50257), bf16, index(4))
    yield Case("wide smooth", RowLoss(smoothing=0.1), (4, 131072), bf16, index(4))
    for c in (10, 1000, 131072):
        yield everything(f"everything {c}", "cross_entropy", 64, c, mixture(64))
        yield everything(f"one-vs-rest {c}", "one_vs_rest", 64, c, index(64))
        yield Case(f"brier {c}", RowLoss("brier"), (64, c), bf16, index(64))
    for family in ("generalised_cross_entropy", "poly", "smoothed_zero_one", "ldam"):
        yield Case(family, RowLoss(family, 0.7, shift=torch.ones(1000)), (64, 1000), bf16, index(64))
        yield everything(f"soft {family}", family, 64, 1000, soft(64, 1000))


def index(n):
    return TargetRows(torch.zeros(n, dtype=torch.int64))


def mixture(n):
    return TargetRows(torch.zeros(n, dtype=torch.int32), torch.zeros(n, dtype=torch.int32), torch.zeros(n))


def soft(n, c):
    return TargetRows(torch.zeros(n, c, dtype=torch.bfloat16))


def everything(name, family, n, c, target):
    v = torch.ones(c)
    return Case(name, RowLoss(family, 2.0, 0.1, 2.0, 30.0, 1e-4, v, v, v), (n, c), torch.float16, target, True, True)


def main(capability: int, chosen: str) -> None:
    compile_only(capability)
    for case in thorough() if chosen == "thorough" else essential():
        start = time.perf_counter()
        softmax_evaluate(
            case.loss,
            torch.empty(case.shape, dtype=case.dtype),
            case.target,
            row_weight=torch.ones(case.shape[0]) if case.row_weight else None,
            ignore_index=-100,
            scale=torch.ones(()),
            gradient=True,
            log_sum_exp=True,
            argmax=case.argmax,
            tile=case.tile,
        )
        report(case.name, time.perf_counter() - start)
    scale_in_place(torch.empty(10000, dtype=torch.bfloat16), torch.ones(()))
    report("scale in place", 0.0)


def report(name: str, seconds: float) -> None:
    kernel_name, kernel = compiled.pop()
    ptx = kernel.asm["ptx"]
    figures = {
        "case": name,
        "kernel": kernel_name,
        "warps": kernel.metadata.num_warps,
        **resources(kernel.asm["cubin"]),
        "wide_loads": len(re.findall(r"ld\.global[.\w:]*\.v4\.b32", ptx)),
        "wide_stores": len(re.findall(r"st\.global[.\w:]*\.v4\.b32", ptx)),
        "seconds": round(seconds, 2),
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
