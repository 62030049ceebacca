"""``import kullback`` stays cheap, and what it names is there without an import of its own."""

from __future__ import annotations

import subprocess
import sys


def fresh(code):
    """What a new interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_submodules_are_imported_when_first_named():
    code = (
        "import kullback; print(kullback.testing.check_loss(kullback.losses.Brier()).failed, kullback.kernels.active)"
    )
    assert fresh(code).startswith("() <function")


def test_importing_it_imports_next_to_nothing():
    heavy = ["numpy", "scipy", "sklearn", "pyarrow", "torch", "kullback.losses", "kullback.testing"]
    assert fresh(f"import kullback, sys; print([m for m in {heavy!r} if m in sys.modules])") == "[]"
    assert fresh("import kullback; print('testing' in dir(kullback), hasattr(kullback, 'nothing'))") == "True False"
