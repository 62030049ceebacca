"""Build the native module with sanitizers, in a folder of its own, and run the kernels' tests and the fuzz tool on it.

    python tests/sanitize/run.py                 # address and undefined behaviour
    python tests/sanitize/run.py thread          # data races

`make sanitize` and `make sanitize-threads` do this. Needs GCC on Linux, whose run-time libraries are loaded before
Python. The installed module stays as it is: `sitecustomize.py` beside this file puts the other one in its place, in
these processes alone. Any report ends its process, and so fails the run. Memory that is still held when Python exits
is not reported: Python itself holds some.

What is compiled is one instruction level, the best that this processor runs, with little optimisation.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

RUNTIME = {"address": "libasan.so", "undefined": "libubsan.so", "thread": "libtsan.so"}
TESTS = {
    "address,undefined": [
        "tests/kernels",
        "tests/conformance/test_backends.py",
        "tests/conformance/test_semantics.py",
        "tests/conformance/test_exact.py",
        "tests/linear/test_dense_pass.py",
    ],
    "thread": ["tests/kernels/test_threads.py", "tests/linear/test_dense_pass.py"],
}

# Each must be reported, or the sanitizer is not at work: a write past an array's end, through the one function that
# checks no lengths, and two threads that write one array.
MUST_BE_REPORTED = {
    "address,undefined": """
import numpy as np
from kullback.kernels import _native
_native.elementary(0, np.zeros(1000), np.empty(990))
""",
    "thread": """
import threading
import numpy as np
from kullback import CrossEntropy
logits, targets = np.zeros((3000, 10)), np.zeros(3000, int)
gradient = np.empty_like(logits)
def work():
    for _ in range(200):
        CrossEntropy().value_and_gradient(logits, targets, out=gradient)
threads = [threading.Thread(target=work) for _ in range(2)]
[t.start() for t in threads]
[t.join() for t in threads]
""",
}


def build(sanitizers: str) -> Path:
    """Compile the module with the sanitizers and return its path."""
    from kullback.kernels import _native

    folder = ROOT / "build" / "sanitize" / sanitizers.replace(",", "-")
    settings = {"build-dir": str(folder), "cmake.define.KULLBACK_SANITIZE": sanitizers}
    if _native.level() in ("v2", "v3", "v4"):
        settings["cmake.define.KULLBACK_ONLY_LEVEL"] = _native.level()
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder / "wheel")]
    command += [f"--config-settings={key}={value}" for key, value in settings.items()]
    subprocess.run([*command, str(ROOT)], check=True, cwd=ROOT)
    (module,) = folder.glob("_native.*.so")
    return module


def library(name: str) -> str:
    """The full path of one of the compiler's libraries."""
    path = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return path.stdout.strip()


def environment(sanitizers: str, module: Path) -> dict[str, str]:
    """What a process needs to run on the sanitized module."""
    runtime = RUNTIME[sanitizers.split(",")[0]]
    return os.environ | {
        "LD_PRELOAD": f"{library(runtime)}:{library('libstdc++.so.6')}",
        "KULLBACK_SANITIZED": str(module),
        "PYTHONPATH": str(HERE),
        "PYTHONMALLOC": "malloc",  # Python's own allocator would hide small blocks
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TSAN_OPTIONS": f"halt_on_error=1 suppressions={HERE / 'threads.txt'}",
    }


def main() -> int:
    """Build, see that the sanitizer reports what it must, run tests and fuzz tool; returns an exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sanitizers", nargs="?", default="address,undefined", choices=list(TESTS))
    parser.add_argument("--fuzz-seconds", type=float, default=30)
    parser.add_argument("--workers", default="auto", help="test processes")
    options = parser.parse_args()
    if platform.system() != "Linux" or not shutil.which("g++"):
        sys.exit("the sanitizers' run-time libraries are looked for where GCC has them on Linux; neither is here")
    start = time.monotonic()
    module = build(options.sanitizers)
    print(f"compiled {module.relative_to(ROOT)} in {time.monotonic() - start:.0f} s", flush=True)
    run = {"env": environment(options.sanitizers, module), "cwd": ROOT}
    # the thread sanitizer needs memory where address randomisation may not leave it
    prefix = ["setarch", "--addr-no-randomize"] if options.sanitizers == "thread" else []
    python = [*prefix, sys.executable]

    canary = [*python, "-c", MUST_BE_REPORTED[options.sanitizers]]
    seen = subprocess.run(canary, capture_output=True, text=True, check=False, **run)
    if not seen.returncode or "Sanitizer" not in seen.stderr:
        print(f"{seen.stderr[-2000:]}\nthe sanitizer did not report an error made on purpose", file=sys.stderr)
        return 1
    print(f"an error made on purpose was reported: {seen.stderr.split('Sanitizer')[1].splitlines()[0]}", flush=True)

    # -s: a report goes to the standard error of a process that ends at once
    tests = [*python, "-m", "pytest", "-q", "-s", "-x", "-p", "no:cacheprovider", "-m", "not slow"]
    workers = ["-n", options.workers] if options.sanitizers != "thread" else []
    fuzz = [*python, "tests/fuzz/fuzz_kernels.py", "--seconds", str(options.fuzz_seconds)]
    for command in ([*tests, *workers, *TESTS[options.sanitizers]], fuzz):
        code = subprocess.run(command, check=False, **run).returncode
        if code:
            print(f"failed with exit status {code}: {' '.join(command)}", file=sys.stderr)
            return 1
    print(f"nothing was reported; {time.monotonic() - start:.0f} s in all")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
