"""Compile the kernels for a GPU on a machine that has none, exactly as a call would, and report what they use.

Run as a program: ``python compile_kernels.py 90`` compiles for compute capability 9.0 and prints one JSON line per
case. The launch is replaced by Triton's own compilation ("warm-up"); everything before it is the real path.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from kullback.torch.rows import TargetRows
from kullback.torch.triton.launch import Tile, softmax_evaluate
from kullback.torch.triton.row_loss import RowLoss

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


def cases():
    bf16, f32, f16 = torch.bfloat16, torch.float32, torch.float16
    plain = RowLoss()

    def index(n):
        return TargetRows(torch.zeros(n, dtype=torch.int64))

    def mixture(n):
        return TargetRows(torch.zeros(n, dtype=torch.int32), torch.zeros(n, dtype=torch.int32), torch.zeros(n))

    def everything(c, family="cross_entropy"):
        v = torch.ones(c)
        return RowLoss(family, 2.0, 0.1, 2.0, 30.0, 1e-4, v, v, v)

    for n, c, dtype in ((4096, 3, f32), (4096, 10, bf16), (64, 1000, f32), (8, 16384, f32), (8, 16384, bf16)):
        yield f"index {c} {dtype}", plain, (n, c, dtype), index(n), None
    for warps, block in ((32, 16384), (16, 16384), (16, 8192), (8, 8192), (32, 32768)):
        yield f"index 131072 bf16 {block}/{warps}", plain, (4, 131072, bf16), index(4), Tile(1, block, warps)
    yield "smooth 131072 bf16", RowLoss(smoothing=0.1), (4, 131072, bf16), index(4), None
    yield (
        "smooth weighted 131072 bf16",
        RowLoss(smoothing=0.1, class_weight=torch.ones(131072)),
        (4, 131072, bf16),
        index(4),
        None,
    )
    yield "index 50257 bf16", plain, (4, 50257, bf16), index(4), None
    yield "index 131072 f32", plain, (4, 131072, f32), index(4), None
    for c in (10, 1000, 131072):
        yield f"everything {c}", everything(c), (256, c, f16), mixture(256), None
        yield f"soft {c}", plain, (256, c, bf16), TargetRows(torch.zeros(256, c, dtype=bf16)), None
        yield f"brier {c}", RowLoss("brier"), (256, c, bf16), index(256), None
        yield f"one-vs-rest {c}", everything(c, "one_vs_rest"), (256, c, bf16), index(256), None
    for family in ("focal", "generalised_cross_entropy", "poly", "smoothed_zero_one", "ldam"):
        loss = RowLoss(family, 2.0, shift=torch.ones(1000))
        yield f"{family} 1000", loss, (256, 1000, bf16), index(256), None
    yield "soft focal 1000", everything(1000, "focal"), (256, 1000, bf16), TargetRows(torch.zeros(256, 1000)), None


def main(capability: int) -> None:
    compile_only(capability)
    for name, loss, (n, c, dtype), targets, tile in cases():
        start = time.perf_counter()
        softmax_evaluate(
            loss,
            torch.empty(n, c, dtype=dtype),
            targets,
            row_weight=torch.ones(n) if name.startswith("everything") else None,
            ignore_index=-100,
            scale=torch.ones(()),
            gradient=True,
            log_sum_exp=True,
            argmax=name.startswith("everything"),
            tile=tile,
        )
        kernel_name, kernel = compiled.pop()
        ptx = kernel.asm["ptx"]
        print(
            json.dumps(
                {
                    "case": name,
                    "kernel": kernel_name,
                    "warps": kernel.metadata.num_warps,
                    **resources(kernel.asm["cubin"]),
                    "wide_loads": len(re.findall(r"ld\.global[.\w:]*\.v4\.b32", ptx)),
                    "wide_stores": len(re.findall(r"st\.global[.\w:]*\.v4\.b32", ptx)),
                    "seconds": round(time.perf_counter() - start, 2),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]))
