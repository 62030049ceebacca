"""The losses under test, each beside its definition in 50-digit arithmetic."""

from __future__ import annotations

import importlib.util
import math
import pathlib

import numpy as np

from kullback.losses import (
    Asymmetric,
    BalancedSoftmax,
    BinaryCrossEntropy,
    Brier,
    CrammerSinger,
    CrossEntropy,
    CrossEntropyFromProbabilities,
    Deviance,
    Focal,
    GeneralisedCrossEntropy,
    JensenShannon,
    KullbackLeibler,
    Ldam,
    LogitL1,
    LogitL2,
    NegativeEntropy,
    NegativeLogLikelihood,
    OneVsRest,
    Poly,
    SigmoidBrier,
    SigmoidFocal,
    SmoothedZeroOne,
    WestonWatkins,
)

_spec = importlib.util.spec_from_file_location("exact", pathlib.Path(__file__).with_name("exact.py"))
exact = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(exact)
mp = exact.mp


ALL = slice(None)


def counts(n_classes):
    """Class weights or counts of a few sizes, in turn."""
    return (np.arange(n_classes) % 5 + 1.0) ** 2


# Each definition gives the exact value of a row as a function of its logits, from the loss and the effective targets s
# of all classes. With `index` the logits are those of these classes alone, each standing for `copies` that are alike.


def _softmax(on, off=exact.zero):
    return lambda loss, s, index=ALL, copies=None: exact.softmax_row(
        on(loss), off, s=s[index], temperature=loss.temperature, copies=copies
    )


def _cross_entropy(loss, s, index=ALL, copies=None):
    shares = None if loss.priors is None else np.array(loss.priors)
    offset = None if shares is None else (loss.adjustment * np.log(shares / shares.sum()))[index]
    return exact.softmax_row(
        exact.log_loss,
        s=s[index],
        temperature=loss.temperature,
        offset=offset,
        softcap=loss.softcap,
        z_loss=loss.z_loss,
        copies=copies,
    )


def _balanced(loss, s, index=ALL, copies=None):
    shares = np.array(loss.class_counts)
    offset = np.log(shares / shares.sum())[index]
    return exact.softmax_row(exact.log_loss, s=s[index], temperature=loss.temperature, offset=offset, copies=copies)


def _ldam(loss, s, index=ALL, copies=None):
    margins = (loss.margins(len(s)) / loss.temperature)[index]
    ons = [exact.shifted(mp.mpf(float(d))) for d in margins]
    return exact.softmax_row(ons, s=s[index], temperature=loss.temperature, copies=copies)


# name: (C -> loss, its definition)
SOFTMAX = {
    "cross_entropy": (lambda c: CrossEntropy(), _cross_entropy),
    "cross_entropy, weighted": (
        lambda c: CrossEntropy(class_weight=counts(c), label_smoothing=0.1, temperature=0.7),
        _cross_entropy,
    ),
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
    "jensen_shannon": (
        lambda c: JensenShannon(class_weight=counts(c)),
        _softmax(lambda loss: exact.jensen_shannon(loss.share)),
    ),
    "jensen_shannon(0.9)": (
        lambda c: JensenShannon(share=0.9, label_smoothing=0.1),
        _softmax(lambda loss: exact.jensen_shannon(loss.share)),
    ),
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
    if loss.link == "none":
        return weight * mass
    return weight * ((1 - loss.label_smoothing) * mass + loss.label_smoothing / n_classes * mass.sum())


def _sigmoid(on, off):
    def row(loss, labels, index=ALL, copies=None):
        on_factor, off_factor = loss._balance()
        smoothed = (1 - loss.label_smoothing) * labels + loss.label_smoothing / 2
        weight = np.ones(len(labels)) if loss.class_weight is None else np.array(loss.class_weight)
        positive = np.ones(len(labels)) if loss.positive_weight is None else np.array(loss.positive_weight)
        return exact.sigmoid_row(
            on(loss),
            off(loss),
            on_mass=(on_factor * weight * positive * smoothed)[index],
            off_mass=(off_factor * weight * (1 - smoothed))[index],
            temperature=loss.temperature,
            copies=copies,
        )

    return row


SIGMOID = {
    "binary_cross_entropy": (
        lambda c: BinaryCrossEntropy(label_reduction="sum"),
        _sigmoid(lambda loss: exact.log_loss, lambda loss: exact.mirrored(exact.log_loss)),
    ),
    "binary_cross_entropy, weighted": (
        lambda c: BinaryCrossEntropy(
            label_reduction="sum", positive_weight=counts(c), class_weight=counts(c)[::-1], label_smoothing=0.1
        ),
        _sigmoid(lambda loss: exact.log_loss, lambda loss: exact.mirrored(exact.log_loss)),
    ),
    "sigmoid_brier": (
        lambda c: SigmoidBrier(label_reduction="sum", positive_weight=counts(c), label_smoothing=0.1),
        _sigmoid(lambda loss: exact.brier, lambda loss: exact.mirrored(exact.brier)),
    ),
    "sigmoid_focal": (
        lambda c: SigmoidFocal(label_reduction="sum"),
        _sigmoid(lambda loss: exact.focal(loss.gamma), lambda loss: exact.mirrored(exact.focal(loss.gamma))),
    ),
    "sigmoid_focal, weighted": (
        lambda c: SigmoidFocal(
            label_reduction="sum", gamma=0.5, alpha=0.25, class_weight=counts(c), temperature=2, label_smoothing=0.1
        ),
        _sigmoid(lambda loss: exact.focal(loss.gamma), lambda loss: exact.mirrored(exact.focal(loss.gamma))),
    ),
    "asymmetric": (
        lambda c: Asymmetric(label_reduction="sum"),
        _sigmoid(
            lambda loss: exact.focal(loss.gamma_positive),
            lambda loss: exact.asymmetric_off(loss.gamma_negative, loss.clip),
        ),
    ),
    "asymmetric, unclipped": (
        lambda c: Asymmetric(label_reduction="sum", gamma_positive=1, gamma_negative=1.5, clip=0),
        _sigmoid(
            lambda loss: exact.focal(loss.gamma_positive),
            lambda loss: exact.asymmetric_off(loss.gamma_negative, loss.clip),
        ),
    ),
    "sigmoid_focal, barely": (
        lambda c: SigmoidFocal(label_reduction="sum", gamma=0.1),
        _sigmoid(lambda loss: exact.focal(loss.gamma), lambda loss: exact.mirrored(exact.focal(loss.gamma))),
    ),
    "asymmetric, halves": (
        lambda c: Asymmetric(label_reduction="sum", gamma_positive=1.5, gamma_negative=2.5, clip=0.1),
        _sigmoid(
            lambda loss: exact.focal(loss.gamma_positive),
            lambda loss: exact.asymmetric_off(loss.gamma_negative, loss.clip),
        ),
    ),
    "asymmetric, fractional": (
        lambda c: Asymmetric(label_reduction="sum", gamma_positive=1.3, gamma_negative=2.7, clip=0.1),
        _sigmoid(
            lambda loss: exact.focal(loss.gamma_positive),
            lambda loss: exact.asymmetric_off(loss.gamma_negative, loss.clip),
        ),
    ),
}


def _margin(loss, s, index=ALL, copies=None):
    power = 2 if loss.squared else 1
    s = [mp.mpf(float(x)) for x in s[index]]
    copies = [1] * len(s) if copies is None else [int(n) for n in copies]

    def value(z):
        total = mp.mpf(0)
        for y, mass in enumerate(s):
            if not mass:
                continue
            # z_k = −∞ is a class that is not there
            rivals = [(k, copies[k] - (k == y)) for k in range(len(z)) if copies[k] > (k == y) and z[k] != -mp.inf]
            hinges = [(n, max(mp.mpf(0), loss.margin + z[k] - z[y]) ** power) for k, n in rivals]
            if hinges and loss.name == "weston_watkins":
                total += copies[y] * mass * mp.fsum(n * hinge for n, hinge in hinges)
            elif hinges:
                total += copies[y] * mass * max(hinge for _, hinge in hinges)
        return total

    return value


MARGIN = {
    "weston_watkins": (lambda c: WestonWatkins(), _margin),
    "weston_watkins, squared": (lambda c: WestonWatkins(squared=True, margin=0.3, class_weight=counts(c)), _margin),
    "crammer_singer": (lambda c: CrammerSinger(margin=2, class_weight=counts(c)), _margin),
    "crammer_singer, squared": (lambda c: CrammerSinger(squared=True), _margin),
}


def _divergence(loss, s, index=ALL, copies=None):
    """Cross-entropy less what the effective targets' own entropy makes of it: Σ s·log(s / Σs)."""
    masses = [(int(n), mp.mpf(float(x))) for x, n in zip(*np.unique(s[s > 0], return_counts=True), strict=True)]
    total = mp.fsum(n * x for n, x in masses)
    least = mp.fsum(n * x * mp.log(x / total) for n, x in masses)
    cross = exact.softmax_row(exact.log_loss, s=s[index], temperature=loss.temperature, copies=copies)
    return lambda z: cross(z) + least


def _many(one):
    """The sum of one(z_k) over the classes that are not masked, times the row's mass."""

    def row(loss, s, index=ALL, copies=None):
        copies = [1] * len(s) if copies is None else [int(n) for n in copies]
        total = mp.mpf(math.fsum(s))
        return lambda z: total * mp.fsum(n * one(x) for x, n in zip(z, copies, strict=True) if x != -mp.inf)

    return row


def _negative_entropy(loss, s, index=ALL, copies=None):
    copies = [1] * len(s) if copies is None else [int(n) for n in copies]
    total = mp.mpf(math.fsum(s))

    def value(z):
        rows = exact.odds(z, copies)
        return total * mp.fsum(n * row.p * row.log_p for row, n in zip(rows, copies, strict=True) if row.p != 0)

    return value


def _label_entropy(loss, s, index=ALL, copies=None):
    """Σ p·log p + (1 − p)·log(1 − p) over the labels, times the row's mass."""
    copies = [1] * len(s) if copies is None else [int(n) for n in copies]
    total = mp.mpf(math.fsum(s))

    def value(z):
        rows = [exact.sigmoid_odds(x) for x in z]
        return total * mp.fsum(n * (row.p * row.log_p + row.m * row.log_m) for row, n in zip(rows, copies, strict=True))

    return value


DIVERGENCES = {
    "kullback_leibler": (lambda c: KullbackLeibler(), _divergence),
    "kullback_leibler, weighted": (lambda c: KullbackLeibler(class_weight=counts(c), temperature=0.7), _divergence),
    "kullback_leibler, smoothed": (lambda c: KullbackLeibler(label_smoothing=0.1, temperature=2), _divergence),
}
# losses that are not of one of the families; labels count as one row of mass 1 here
OTHERS = {
    **DIVERGENCES,
    "logit_l1": (lambda c: LogitL1(), _many(abs)),
    "logit_l2": (lambda c: LogitL2(), _many(lambda x: x**2 / 2)),
    "negative_entropy": (lambda c: NegativeEntropy(), _negative_entropy),
    "negative_entropy, labels": (lambda c: NegativeEntropy(target_form="labels"), _label_entropy),
}


def _from_probabilities(loss, s, index=ALL, copies=None):
    s = [mp.mpf(float(x)) for x in s[index]]
    copies = [1] * len(s) if copies is None else [int(n) for n in copies]
    clip = mp.mpf(loss.clip)

    def value(x):
        total = mp.fsum(n * v for v, n in zip(x, copies, strict=True))
        shares = [min(max(v / total, clip), 1 - clip) for v in x]
        return -mp.fsum(n * a * mp.log(q) for a, q, n in zip(s, shares, copies, strict=True) if a)

    return value


def _log_likelihood(loss, s, index=ALL, copies=None):
    s = [mp.mpf(float(x)) for x in s[index]]
    copies = [1] * len(s) if copies is None else [int(n) for n in copies]
    return lambda x: -mp.fsum(n * a * v for a, v, n in zip(s, x, copies, strict=True) if a)


# losses of probabilities and of log-probabilities that somebody else computed
GIVEN = {
    "from probabilities": (lambda c: CrossEntropyFromProbabilities(), _from_probabilities),
    "from probabilities, weighted": (
        lambda c: CrossEntropyFromProbabilities(class_weight=counts(c), label_smoothing=0.1, clip=1e-9),
        _from_probabilities,
    ),
    "negative_log_likelihood": (lambda c: NegativeLogLikelihood(), _log_likelihood),
    "negative_log_likelihood, weighted": (
        lambda c: NegativeLogLikelihood(class_weight=counts(c), label_smoothing=0.1),
        _log_likelihood,
    ),
}
