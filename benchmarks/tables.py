"""Put the stored results between their markers in README and docs; ``--check`` only says whether they agree."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
LINEAR = HERE.parent / "docs" / "linear.md"
PENALTIES = HERE.parent / "docs" / "linear-penalties.md"
PATH = HERE.parent / "docs" / "path.md"
TORCH = HERE.parent / "docs" / "torch.md"
LOSSES = HERE.parent / "docs" / "losses.md"

GAPS = (1e-3, 1e-6)  # that times to a solution are given for

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


def catalogue() -> str:
    content = load("catalogue")
    results = content["results"]
    ratios = {(row["loss"], row["targets"], row["classes"]): row for row in results}
    classes = sorted({row["classes"] for row in results})
    forms = {"indices": "indices", "rows": "soft rows", "mixture": "mixtures"}
    names = list(dict.fromkeys(row["loss"] for row in results))
    cells = [
        [name, *(_catalogue_cell(ratios, name, form, classes) for form in forms)]
        for name in sorted(names, key=lambda name: (name != "cross-entropy", names.index(name)))
    ]
    bars = {row["targets"]: row["bar"] for row in results}
    head = ["loss", *(f"{title}, ≤ {bars[form]:g}×" for form, title in forms.items())]
    base = ", ".join(
        f"{row['milliseconds']:.1f} ms for {row['rows']} × {row['classes']}"
        for row in results
        if (row["loss"], row["targets"]) == ("cross-entropy", "indices")
    )
    return (
        "Value and gradient in one call in times of plain cross-entropy on class indices of the same logits, with "
        f"{' / '.join(map(str, classes))} classes, float32, {content['threads']} threads, medians "
        f"(`benchmarks/catalogue.py`; {where(content)}); the header says what is aimed at. Cross-entropy on indices "
        f"takes {base}.\n\n{table(head, cells)}"
    )


def _catalogue_cell(ratios: dict[Any, Any], name: str, form: str, classes: list[int]) -> str:
    found = [ratios.get((name, form, c)) for c in classes]
    return " / ".join(f"{row['ratio']:.2f}" if row else "–" for row in found)


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


def linear() -> str:
    content = load("linear")
    parts: dict[tuple[int, str], dict[str, Any]] = {}
    for data, held in content["linear"].items():
        parts.setdefault((held["threads"], held["clock"]), {})[data] = held
    text = (
        "Seconds to a true relative gap of 1e-3 / 1e-6 at C = 1, the fastest of each solver's own tolerances; > where "
        "a run was stopped after so many, – where none of its tolerances got there "
        f"(`benchmarks/linear.py`; {where(content)}).\n"
    )
    for (threads, clock), rows in sorted(parts.items()):
        kind = "processor time" if clock == "cpu" else "wall clock"
        text += f"\n{threads} thread{'s' if threads > 1 else ''}, {kind}:\n\n{_solvers_by_data(rows)}"
    return text


def linear_sparse(*, kinks: bool) -> str:
    """Rows with an L2 penalty, or those with penalties that have a kink at zero."""
    content = load("linear_sparse")
    rows = {
        name.replace(":l2", "").replace(":", ", "): held
        for name, held in content["rows"].items()
        if name.endswith(":l2") is not kinks
    }
    threads = {held["threads"] for held in rows.values()}
    assert len(threads) == 1, "rows of one table are measured with as many threads"
    return (
        "Seconds to a true relative gap of 1e-3 / 1e-6 at C = 1, wall clock, "
        f"{threads.pop()} threads, the fastest of each solver's own tolerances; > the longest run that did not come so "
        "close, where the time for all of a solver's runs was over, – where none of its tolerances got there "
        f"(`benchmarks/linear_sparse.py`; {where(content)}):\n\n{_solvers_by_data(rows)}"
    )


def _solvers_by_data(parts: dict[str, Any]) -> str:
    names = sorted({name for held in parts.values() for name in held["solvers"]} - {"kullback"})
    rows = []
    for data, held in parts.items():
        times = {name: [_to_gap(found["runs"], gap) for gap in GAPS] for name, found in held["solvers"].items()}
        ahead = []
        for k, gap in enumerate(GAPS):
            own = times.get("kullback", [None, None])[k]
            rivals = [t[k] for name, t in times.items() if name != "kullback" and t[k] is not None]
            least = [
                _longest_short_of(found, gap)
                for n, found in held["solvers"].items()
                if _stopped(held, n) and times[n][k] is None
            ]
            best = min(rivals + least, default=None)
            sign = "> " if best is not None and best not in rivals else ""
            ahead.append(f"{sign}{best / own:.1f}×" if best and own else "–")
        cells = []
        for name in ("kullback", *names):
            if name not in times:
                cells.append("not run")
                continue
            found = held["solvers"][name]
            short = [f"> {_longest_short_of(found, gap):.0f}" if _stopped(held, name) else "–" for gap in GAPS]
            cells.append(
                " / ".join(none if t is None else f"{t:.2f}" for t, none in zip(times[name], short, strict=True))
            )
        shape = f"{data}, {held['rows']} × {held['columns']}, {held['classes']} classes"
        rows.append([shape, *cells, " / ".join(ahead)])
    return table(["data", "Kullback", *names, "best rival / Kullback"], rows)


def _stopped(held: dict[str, Any], name: str) -> bool:
    return "stopped_after" in held["solvers"][name]


def _longest_short_of(found: dict[str, Any], gap: float) -> float:
    """Seconds of the longest run that did not come within the gap, the one that was stopped among them."""
    return float(max(found["stopped_after"], *(run["seconds"] for run in found["runs"] if run["gap"] > gap), 0))


def paths() -> str:
    content = load("path")
    rows = []
    for name, held in content["path"].items():
        base = held["adapters"]["kullback"]["seconds"]
        for adapter, found in held["adapters"].items():
            if "seconds" in found:
                off = max(abs(a - b) for a, b in zip(found["scores"], held["exact"], strict=True))
                cells = [
                    f"{found['seconds']:.2f}",
                    f"{found['seconds'] / base:.1f}×",
                    f"{found['C']:.3g}",
                    f"{off:.0e}",
                ]
            elif "stopped_after" in found:
                cells = [f"> {found['stopped_after']:.0f}", f"> {found['stopped_after'] / base:.1f}×", "–", "–"]
            else:
                cells = ["too large", "–", "–", "–"]
            rows.append([f"{name}, {' × '.join(map(str, held['shape']))}", adapter, *cells])
    first = next(iter(content["path"].values()))
    clock = "processor time" if first["clock"] == "cpu" else "wall clock"
    head = ["data, rows × columns × classes", "solver", "s", "against Kullback", "C chosen", "worst score off by, nats"]
    return (
        f"10 Cs × 5 folds, {first['threads']} thread{'s' if first['threads'] > 1 else ''}, {clock}, each at its own "
        "default tolerance, against `LogisticRegressionCV`; > where it was stopped after so many seconds "
        f"(`benchmarks/path.py`; {where(content)}):\n\n{table(head, rows)}"
    )


def _to_gap(runs: list[dict[str, float]], gap: float) -> float | None:
    return min((run["seconds"] for run in runs if run["gap"] <= gap), default=None)


def dense_pass() -> str:
    content = load("dense_pass")
    rows = []
    for result in content["results"]:
        (n, d, c), ms = result["sizes"], result["milliseconds"]
        names = ("of_columns", "by_blocks", "blas_and_loss")
        others = [f"{ms[name]:.2f} ({ms[name] / ms['one_call']:.1f}×)" for name in names]
        rows.append([f"{n} × {d}, {c} classes", f"{ms['one_call']:.2f}", *others])
    head = [
        "random float32 data",
        "one call, ms",
        "of contiguous columns, ms",
        "block by block, ms",
        "BLAS products and the loss alone, ms",
    ]
    return f"One thread (`benchmarks/dense_pass.py`; {where(content)}):\n\n{table(head, rows)}"


def scaling() -> str:
    content = load("scaling")
    head = ["rows", "s", "s per million rows", "passes", "data, MB", "memory beside it, MB"]
    rows = [
        [
            f"{r['rows']}",
            f"{r['seconds']:.2f}",
            f"{1e6 * r['seconds'] / r['rows']:.1f}",
            f"{r['passes']}",
            f"{r['data_mb']}",
            f"{r['more_mb']}",
        ]
        for r in content["results"]
    ]
    return f"One thread, processor time (`benchmarks/scaling.py`; {where(content)}):\n\n{table(head, rows)}"


def torch_cpu() -> str:
    results = load("torch_cpu")["results"]
    whole = [row for row in results.values() if row["what"] == "cross_entropy"]
    rows = []
    for row in whole:
        times, faster = row["milliseconds"], row["times_faster_than"]
        rows.append(
            [
                f"{row['dtype']}, {row['shape'][0]} × {row['shape'][1]}",
                *(f"{times[name]:.1f}" for name in ("kullback", "eager", "compiled")),
                *(f"{faster[name]:.1f}×" for name in ("eager", "compiled")),
                f"{row['bar']:g}×{'' if row['met'] else ', missed'}",
            ]
        )
    head = ["logits", "Kullback, ms", "eager, ms", "`torch.compile`, ms", "faster than eager", "than compiled", "aim"]
    layers = []
    for row in results.values():
        if row["what"] == "cross_entropy":
            continue
        memory = "bytes_beyond_weight_gradient" in row
        unit, divisor = ("MiB", 2**20) if memory else ("ms", 1)
        figures = row["bytes_beyond_weight_gradient" if memory else "milliseconds"]
        chunked = f"{figures['torch_chunked'] / divisor:.0f}" if "torch_chunked" in figures else "–"
        layers.append(
            [
                f"{row['dtype']}, {' × '.join(map(str, row['shape']))}, {unit}",
                *(f"{figures[name] / divisor:.0f}" for name in ("kullback", "eager")),
                chunked,
                f"{row['share_of']['eager']:.3f}",
                f"{row['bars']['eager']:g}{'' if row['met'] else ', missed'}",
            ]
        )
    layer_head = ["rows × features × classes", "Kullback", "eager", "PyTorch's chunked", "share of eager's", "aim"]
    return (
        "`cross_entropy`, forward and backward pass in a training loop's manner, medians, contenders in turns in one "
        f"process, {whole[0]['threads']} threads each (`benchmarks/torch_cpu.py`; {where(whole[0])}):\n\n"
        f"{table(head, rows)}\n"
        "`linear_cross_entropy`, forward and backward pass; memory at its peak beyond what was there before and the "
        "weight's own gradient. The processor has no bfloat16 products, which makes PyTorch slow at them:\n\n"
        f"{table(layer_head, layers)}"
    )


def between(path: Path, name: str, inside: str) -> tuple[str, str]:
    """The file as it is, and as it should be."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    text = path.read_text()
    before, rest = text.split(begin)
    return text, f"{before}{begin}\n{inside}\n{end}{rest.split(end)[1]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if anything differs")
    options = parser.parse_args()
    differs = False
    for path, name, inside in (
        (README, "results", f"{losses()}\n{fits()}"),
        (LINEAR, "linear", linear()),
        (LINEAR, "sparse", linear_sparse(kinks=False)),
        (PENALTIES, "kinks", linear_sparse(kinks=True)),
        (LINEAR, "pass", dense_pass()),
        (LINEAR, "scaling", scaling()),
        (PATH, "path", paths()),
        (TORCH, "results", torch_cpu()),
        (LOSSES, "catalogue", catalogue()),
    ):
        text, new = between(path, name, inside)
        differs |= text != new
        if not options.check:
            path.write_text(new)
    return int(differs and options.check)


if __name__ == "__main__":
    sys.exit(main())
