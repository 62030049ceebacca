"""Write docs/agreement.md: where other libraries answer differently, both answers from a run.

    python docs/make_agreement.py

The cases stand in docs/agreement.toml. All libraries must be installed:
torch scikit-learn jax optax keras tensorflow-cpu; Keras runs on JAX.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import textwrap
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special
import scipy.stats

import kullback.losses

HERE = Path(__file__).parent
PACKAGES = {
    "PyTorch": "torch",
    "scikit-learn": "scikit-learn",
    "Keras": "keras",
    "optax": "optax",
    "TensorFlow": "tensorflow-cpu",
}
SCIPY = {name: getattr(scipy.special, name) for name in ("expit", "log_softmax", "rel_entr", "softmax")}


class MissingLibraryError(Exception):
    """A library is not installed."""


def names_of(library: str) -> tuple[dict[str, Any], Callable[[Any], Any]]:
    """The names that an expression of the library may use, and how a NumPy array becomes one of its own.

    Raises:
        MissingLibraryError: if the library is not installed.
    """
    try:
        if library == "PyTorch":
            import torch

            def torch_gradient(f: Callable[[Any], Any], x: Any) -> Any:
                x = x.clone().requires_grad_()
                f(x).backward()
                return x.grad

            names = {"torch": torch, "F": torch.nn.functional, "gradient": torch_gradient}
            return names, torch.as_tensor
        if library in ("optax", "Keras"):
            os.environ.setdefault("KERAS_BACKEND", "jax")
            import jax

            jax.config.update("jax_enable_x64", True)
            if library == "Keras":
                import keras

                return SCIPY | {"keras": keras}, np.asarray
            import optax

            return {"jax": jax, "optax": optax, "gradient": lambda f, x: jax.grad(f)(x)}, jax.numpy.asarray
        if library == "TensorFlow":
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
            import tensorflow as tf

            def tf_gradient(f: Callable[[Any], Any], x: Any) -> Any:
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    value = f(x)
                return tape.gradient(value, x)

            return {"tf": tf, "gradient": tf_gradient}, tf.constant
        if library == "scikit-learn":
            from sklearn import metrics
            from sklearn._loss import HalfMultinomialLoss

            own = {name: getattr(metrics, name) for name in ("brier_score_loss", "hinge_loss", "log_loss")}
            return SCIPY | own | {"HalfMultinomialLoss": HalfMultinomialLoss}, np.asarray
        if library == "torchvision":
            import torch
            from torchvision.ops import sigmoid_focal_loss

            return {"sigmoid_focal_loss": sigmoid_focal_loss}, torch.as_tensor
    except ImportError as error:
        raise MissingLibraryError(
            f"{library} is not installed: pip install {PACKAGES.get(library, library)}"
        ) from error
    return vars(kullback.losses) | SCIPY | {"np": np, "entropy": scipy.stats.entropy}, np.asarray


def answer(library: str, expression: str, setup: str) -> str:
    """What one expression gives, as text: a number, an array, or the error.

    Raises:
        MissingLibraryError: if the library is not installed.
    """
    arrays: dict[str, Any] = {"np": np}
    exec(setup, arrays)
    names, own = names_of(library)
    given = {name: own(value) for name, value in arrays.items() if isinstance(value, np.ndarray)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = eval(expression, names | given)
        except Exception as error:
            # a library's error is an answer too
            return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return shown(np.asarray(result.detach() if hasattr(result, "detach") else result, dtype=np.float64))


def shown(result: Any) -> str:
    """Four decimals, without a negative zero."""
    if result.ndim:
        return "[" + ", ".join(shown(part) for part in result) + "]"
    text = f"{float(result):.4f}"
    return text.lstrip("-") if text.strip("-0.") == "" else text


def section(case: dict[str, Any], answers: list[str]) -> str:
    """One case in Markdown."""
    lines = ["| library | expression | answer |", "|---|---|---|"]
    for (library, expression), result in zip(case["rows"], answers, strict=True):
        lines.append(f"| {library} | `{expression}` | {result} |")
    table = "\n".join(lines)
    why = textwrap.fill(" ".join(case["why"].split()), 120, break_long_words=False, break_on_hyphens=False)
    return f"## {case['title']}\n\n```python\n{case['setup'].strip()}\n```\n\n{table}\n\n{why}\n"


def cases() -> list[dict[str, Any]]:
    """The cases of docs/agreement.toml."""
    return tomllib.loads((HERE / "agreement.toml").read_text(encoding="utf-8"))["case"]


INTRODUCTION = """# Agreement with other libraries

Where nothing is said, Kullback's losses give what the libraries give; each page of [the gallery](gallery/README.md)
lists the calls that agree, and the tests run them. This page is about the rest: where an answer differs by convention,
or is wrong. Every number was computed by the line beside it. Gradients are with respect to the logits.
"""


def main() -> None:
    """Run all cases and write the page."""
    parts = [INTRODUCTION]
    for case in cases():
        try:
            answers = [answer(library, expression, case["setup"]) for library, expression in case["rows"]]
        except MissingLibraryError as missing:
            sys.exit(f"{missing}\nNothing was written.")
        parts.append(section(case, answers))
    versions = ", ".join(f"{name} {importlib.metadata.version(package)}" for name, package in PACKAGES.items())
    parts.append(f"Run with {versions}. `python docs/make_agreement.py` writes this page.\n")
    (HERE / "agreement.md").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
