"""Measure the Triton kernels on one NVIDIA GPU in under ten minutes: ``python benchmarks/gpu/run.py``.

The kernels have not run on a GPU yet: no figure of theirs is known. README.md beside this file says what is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parents[1] / "results" / "gpu.json"

BARS = {
    "cross_entropy_of_copy_bandwidth": 0.85,
    "cross_entropy_of_eager_time": 0.5,
    "linear_of_eager_time": 1.1,
    "linear_of_eager_memory": 0.2,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, help="JSON file to write (default benchmarks/results/gpu.json; none for a dry run)"
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="begin no further case after this long (default 9)")
    parser.add_argument("--sweep", action="store_true", help="also compare tiles for wide rows")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="run every case once at toy sizes on the CPU, in Triton's interpreter: shows that the code runs, no more",
    )
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.dry_run:
        os.environ["TRITON_INTERPRET"] = "1"
    try:
        import torch
        import triton
    except ImportError as error:
        print(f"This benchmark needs PyTorch and Triton ({error}): pip install torch triton", file=sys.stderr)
        return 2
    if not options.dry_run and not torch.cuda.is_available():
        print(
            "This benchmark needs a CUDA GPU, and PyTorch "
            f"{torch.__version__} sees none here. Run it on a machine with an NVIDIA GPU and a CUDA build of PyTorch; "
            "--dry-run checks without a GPU that the code runs, and measures nothing.",
            file=sys.stderr,
        )
        return 2
    sys.path.insert(0, str(Path(__file__).parent))
    import cross_entropy
    import linear_layer
    from measure import DryRun, Gpu

    meter = DryRun() if options.dry_run else Gpu(seconds=1.0)
    report: dict[str, Any] = {
        "dry_run": options.dry_run,
        "device": "cpu" if options.dry_run else torch.cuda.get_device_name(),
        "memory_bytes": None if options.dry_run else torch.cuda.get_device_properties(0).total_memory,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "triton": triton.__version__,
            "cuda": torch.version.cuda,
        },
        "results": [],
        "skipped": [],
        "bars": [],
    }
    toy = options.dry_run
    main_shape = fit(cross_entropy.MAIN, cross_entropy.EAGER_COPIES, report["memory_bytes"])
    layer = (6, 8, 40) if toy else linear_layer.MAIN
    cases: list[tuple[str, Any]] = [
        ("cross-entropy", lambda: cross_entropy.compare(meter, (4, 37) if toy else main_shape, torch.bfloat16, True)),
        ("linear", lambda: linear_layer.compare(meter, layer)),
    ]
    for n, c, dtype in cross_entropy.SHAPES:
        shape = (3, min(c, 20)) if toy else (n, c)
        cases.append(
            (f"cross-entropy {n}x{c} {dtype}", lambda s=shape, t=dtype: cross_entropy.compare(meter, s, t, False))
        )
    if options.sweep:
        cases.append(("tiles", lambda: cross_entropy.sweep(meter, (2, 37) if toy else main_shape, torch.bfloat16)))
    out = options.out or (None if options.dry_run else RESULT)
    start = time.perf_counter()
    for name, case in cases:
        if time.perf_counter() - start > 60 * options.minutes:
            report["skipped"].append(name)
            continue
        try:
            results = case()
        except Exception as reason:  # a case that cannot even begin must not cost the others their figures
            results = [{"what": name, "shape": [], "failed": f"{type(reason).__name__}: {reason}"[:300]}]
        report["results"] += results
        for result in results:
            print(line(result), flush=True)
        report["seconds"] = round(time.perf_counter() - start, 1)
        write(report, out)  # what is measured stays, whatever becomes of the next case
        if not options.dry_run:
            torch.cuda.empty_cache()
    report["seconds"] = round(time.perf_counter() - start, 1)
    report["bars"] = [] if options.dry_run else bars(report["results"], list(main_shape), list(layer))
    for bar in report["bars"]:
        value = "not measured" if bar["value"] is None else f"{bar['value']:.3f}"
        print(f"{'met' if bar['met'] else 'MISSED':>7}  {bar['name']}: {value} (bar {bar['bar']})")
    write(report, out)
    return 0


def write(report: dict[str, Any], out: Path | None) -> None:
    """The report as it is by now."""
    if out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_suffix(out.suffix + ".part")
    temporary.write_text(json.dumps(report, indent=1) + "\n")
    temporary.replace(out)


def fit(shape: tuple[int, int, Any], copies: int, memory: int | None) -> tuple[int, int]:
    """As many of the rows as leave eager torch room to run, so that smaller GPUs are measured too."""
    n, c, dtype = shape
    if memory is not None:
        while n > 256 and n * c * dtype.itemsize * copies > 0.9 * memory:
            n //= 2
    return n, c


def bars(results: list[dict[str, Any]], shape: list[int], layer: list[int]) -> list[dict[str, Any]]:
    """The figures that were promised, from one run."""

    def ratio(figure: str, of: list[int], above: str, below: str) -> float | None:
        values = [r.get(figure) for what in (above, below) for r in results if r["what"] == what and r["shape"] == of]
        return values[0] / values[1] if len(values) == 2 and values[0] and values[1] else None

    values = {
        "cross_entropy_of_copy_bandwidth": ratio("milliseconds", shape, "copy", "kullback"),
        "cross_entropy_of_eager_time": ratio("milliseconds", shape, "kullback", "eager"),
        "linear_of_eager_time": ratio("milliseconds", layer, "kullback", "eager"),
        "linear_of_eager_memory": ratio("peak_bytes_beyond_weight_gradient", layer, "kullback", "eager"),
    }
    at_least = {"cross_entropy_of_copy_bandwidth"}
    return [
        {
            "name": name,
            "value": value,
            "bar": BARS[name],
            "met": value is not None and (value >= BARS[name] if name in at_least else value <= BARS[name]),
        }
        for name, value in values.items()
    ]


def line(result: dict[str, Any]) -> str:
    """One result as a line of text."""
    shape = "x".join(map(str, result["shape"]))
    if "failed" in result:
        return f"{shape:>18}  {result['what']}: failed: {result['failed']}"
    share = f"  {result['of_copy_bandwidth']:.0%} of copy" if "of_copy_bandwidth" in result else ""
    peak = f"  {result['peak_bytes'] / 2**20:9.0f} MiB"
    return f"{shape:>18}  {result['what']:<60} {result['milliseconds']:10.3f} ms{peak}{share}"


if __name__ == "__main__":
    sys.exit(main())
