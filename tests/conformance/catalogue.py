"""The losses under test, each beside its definition in 50-digit arithmetic."""

from __future__ import annotations

import importlib.util
import pathlib

import numpy as np

from kullback.losses import (
    BalancedSoftmax,
    Brier,
    CrossEntropy,
    Deviance,
    Focal,
    GeneralisedCrossEntropy,
    Ldam,
    OneVsRest,
    Poly,
    SmoothedZeroOne,
)

_spec = importlib.util.spec_from_file_location("exact", pathlib.Path(__file__).with_name("exact.py"))
exact = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(exact)
mp = exact.mp


def counts(n_classes):
    return np.arange(1.0, n_classes + 1) ** 2


def _softmax(on, off=exact.zero):
    return lambda loss, s: exact.softmax_row(on(loss), off, s=s, temperature=loss.temperature)


def _cross_entropy(loss, s):
    shares = None if loss.priors is None else np.array(loss.priors)
    offset = None if shares is None else loss.adjustment * np.log(shares / shares.sum())
    return exact.softmax_row(
        exact.log_loss,
        s=s,
        temperature=loss.temperature,
        offset=offset,
        softcap=loss.softcap,
        z_loss=loss.z_loss,
    )


def _balanced(loss, s):
    shares = np.array(loss.class_counts)
    return exact.softmax_row(exact.log_loss, s=s, temperature=loss.temperature, offset=np.log(shares / shares.sum()))


def _ldam(loss, s):
    margins = loss.margins(len(s)) / loss.temperature
    return exact.softmax_row([exact.shifted(mp.mpf(float(d))) for d in margins], s=s, temperature=loss.temperature)


# name: (C -> loss, (loss, effective targets) -> exact value of a row)
SOFTMAX = {
    "softcap": (lambda c: CrossEntropy(softcap=30.0), _cross_entropy),
    "z_loss": (lambda c: CrossEntropy(z_loss=0.01), _cross_entropy),
    "priors": (lambda c: CrossEntropy(priors=counts(c), adjustment=1.5), _cross_entropy),
    "everything": (
        lambda c: CrossEntropy(
            class_weight=counts(c), label_smoothing=0.1, temperature=1.3, priors=counts(c), softcap=20.0, z_loss=0.1
        ),
        _cross_entropy,
    ),
    "balanced_softmax": (lambda c: BalancedSoftmax(class_counts=counts(c)), _balanced),
    "focal": (lambda c: Focal(), _softmax(lambda loss: exact.focal(loss.gamma))),
    "focal(0)": (lambda c: Focal(gamma=0), _softmax(lambda loss: exact.focal(loss.gamma))),
    "focal(0.5)": (
        lambda c: Focal(gamma=0.5, class_weight=counts(c), label_smoothing=0.1),
        _softmax(lambda loss: exact.focal(loss.gamma)),
    ),
    "generalised": (lambda c: GeneralisedCrossEntropy(), _softmax(lambda loss: exact.generalised(loss.q))),
    "generalised(1)": (
        lambda c: GeneralisedCrossEntropy(q=1, label_smoothing=0.2),
        _softmax(lambda loss: exact.generalised(loss.q)),
    ),
    "poly": (lambda c: Poly(epsilon=2, class_weight=counts(c)), _softmax(lambda loss: exact.poly(loss.epsilon))),
    "poly(-1)": (lambda c: Poly(epsilon=-1), _softmax(lambda loss: exact.poly(loss.epsilon))),
    "smoothed_zero_one": (lambda c: SmoothedZeroOne(temperature=0.5), _softmax(lambda loss: exact.linear)),
    "brier": (lambda c: Brier(), _softmax(lambda loss: exact.brier, exact.mirrored(exact.brier))),
    "brier, weighted": (
        lambda c: Brier(class_weight=counts(c), label_smoothing=0.1, temperature=2),
        _softmax(lambda loss: exact.brier, exact.mirrored(exact.brier)),
    ),
    "one_vs_rest": (lambda c: OneVsRest(), _softmax(lambda loss: exact.log_loss, exact.mirrored(exact.log_loss))),
    "one_vs_rest, weighted": (
        lambda c: OneVsRest(class_weight=counts(c), label_smoothing=0.1),
        _softmax(lambda loss: exact.log_loss, exact.mirrored(exact.log_loss)),
    ),
    "ldam": (lambda c: Ldam(class_counts=counts(c)), _ldam),
    "ldam, mild": (lambda c: Ldam(temperature=1, class_counts=counts(c), max_margin=2, label_smoothing=0.1), _ldam),
    "deviance": (lambda c: Deviance(), _softmax(lambda loss: exact.log_loss)),
}


def effective(loss, mass):
    """s = w·((1 − ε)·t + Σt·ε/C), as the kernels round it."""
    n_classes = len(mass)
    weight = np.ones(n_classes) if loss.class_weight is None else np.array(loss.class_weight)
    return weight * ((1 - loss.label_smoothing) * mass + loss.label_smoothing / n_classes * mass.sum())
