"""Put the stored results into the README, between its two markers; ``--check`` only says whether they agree."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- results -->\n", "<!-- /results -->\n"

FITS = {
    "letter": "letter, CSV, 20000 × 16, 26 classes",
    "fashion_mnist": "Fashion-MNIST, Parquet, 60000 × 784, 10 classes",
    "flights": "flights, Parquet, 336776 × 17 with categories, 16 carriers",
    "million_rows": "synthetic, CSV, 1000000 × 20, 5 classes",
}


def load(name: str) -> dict[str, Any]:
    return json.loads((HERE / "results" / f"{name}.json").read_text())


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def where(content: dict[str, Any]) -> str:
    machine = content["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, {versions}"


def losses() -> str:
    content = load("losses")
    rows = [
        [
            f"{row['rows']} × {row['classes']}",
            f"{row['milliseconds']['kullback']:.1f}",
            f"{row['milliseconds']['torch']:.0f}",
            f"{row['torch_over_ours']:.1f}×",
            f"{row['ours_over_copy']:.2f}×",
        ]
        for row in content["results"]
    ]
    head = ["logits", "Kullback, ms", "PyTorch, ms", "faster by", "against a copy of the logits"]
    return (
        "**Cross-entropy, value and gradient**, float32, "
        f"{content['threads']} threads each, medians, against PyTorch's forward and backward pass in the same run "
        f"(`benchmarks/losses.py`; {where(content)}):\n\n{table(head, rows)}"
    )


def fits() -> str:
    content = load("fit")
    rows = []
    for name, title in FITS.items():
        result = content["fit"][name]
        tested = result.get("evaluate", result["fit"])["metrics"]
        rows.append(
            [
                title,
                f"{result['seconds']:.1f}",
                f"{result['peak_mb']}",
                f"{tested['loss']:.3f} of {tested['uniform_loss']:.3f}",
                f"{tested['accuracy']:.4f}",
                f"{tested['ece_after' if tested['temperature_kept'] else 'ece_before']:.4f}",
            ]
        )
    head = [
        "`kullback fit`, whole process, report included",
        "s",
        "peak MB",
        "test loss of log C, nats",
        "accuracy",
        "ECE",
    ]
    start = content["start_up"]
    return (
        f"**From file to model and report** (`benchmarks/fit.py`; {where(content)}; accuracy on unseen rows, for "
        f"Fashion-MNIST on its own test file):\n\n{table(head, rows)}\n"
        f"Start-up, whole process, medians of 5: `import kullback` {start['import kullback']['seconds'] * 1000:.0f} ms "
        f"(NumPy alone {start['import numpy']['seconds'] * 1000:.0f} ms), "
        f"`kullback --help` {start['kullback --help']['seconds'] * 1000:.0f} ms.\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the README differs")
    options = parser.parse_args()
    text = README.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    new = f"{before}{BEGIN}\n{losses()}\n{fits()}\n{END}{after}"
    if options.check:
        return 0 if new == text else 1
    README.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
