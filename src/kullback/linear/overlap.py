"""Whether classes overlap: then no direction separates them, and there is an optimum without a penalty.

A direction V has the gains (v_y − v_k)·x, of every example (x, y) on every other class k; call them the rows of A·V. It
separates if none is below 0 and some are above. By Stiemke's lemma no such direction exists exactly if

    Aᵀ·u = 0    for some u with every u_ik > 0,

and a finite optimum of cross-entropy has one: u_ik = p_ik, for there Aᵀ·u is minus the gradient. Close to an optimum
the p_ik are moved by as small a share of each as makes the sum zero, which is a least-squares problem in P unknowns:
the affine-scaling step of Dikin (1967). Rounding leaves a little, r = Aᵀ·u. As V·r = Σ u_ik·(A·V)_ik, a direction
without a loss then has no gain above

    ε·Σ|V_jk|,    ε = max|r| / min u,    for columns whose largest entry is 1,

and that is what is proved: with ε at `SLACK` or below, nothing separates by more than that share.

Where the classes do not overlap, the same step shows which examples are in the way, and the weights of the fit with
those left out are the direction that they grow along. Its gains are looked at one by one, so that too is a proof.

Source: Stiemke (1915), "Über positive Lösungen homogener linearer Gleichungen"; Albert & Anderson (1984), "On the
existence of maximum likelihood estimates in logistic regression models".
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from kullback.linear.design import row_blocks

Vector: TypeAlias = NDArray[np.float64]
Pairs: TypeAlias = NDArray[np.bool_]

# No direction is told from none whose gains are less than this share of its entries.
SLACK = 1e-6
# The smallest u_ik to start from, as a share of the largest: smaller ones would be lost in the rounding of the sums.
FLOOR = 1e-6
# A gain is one from this share of the largest on; as much below zero is a loss.
GAIN = 1e-5
# The most parameters and multiplications of the least-squares problem.
MOST_PARAMETERS = 1500
MOST_WORK = 3e10
# The most numbers in each of five arrays of them.
MOST_COMPARISONS = 1 << 24
# Corrections of the least-squares solution, and steps of u.
CORRECTIONS, STEPS = 3, 4
# Ridge on the least-squares problem scaled to a unit diagonal: columns may be copies of one another.
RIDGE = 1e-13


class Comparisons:
    """Examples, each to be ahead in its own class of every other class.

    Args:
        X: (N, d) dense or sparse.
        rows: (n,) which rows; one with several classes stands there for each.
        own: (n,) the class of each.
        n_classes: C.
        fit_intercept: whether a column of ones is added.
    """

    def __init__(
        self, X: Any, rows: NDArray[np.int64], own: NDArray[np.int64], n_classes: int, *, fit_intercept: bool
    ) -> None:
        self._sparse = bool(sparse.issparse(X))
        self._X, self._rows, self.own = X.tocsr() if self._sparse else X, rows, own
        self._fit_intercept, self.n_classes = fit_intercept, n_classes
        self.width = X.shape[1] + fit_intercept
        self._blocks = row_blocks(len(rows), 8 * (self.width + n_classes))
        size = np.zeros(X.shape[1])
        for block in self._blocks:
            part = abs(self._X[rows[block]]).max(axis=0)
            part = part.toarray() if self._sparse else np.asarray(part)
            np.maximum(size, part.ravel(), out=size)
        self.size = np.where(size > 0, size, 1.0)
        self.others: Pairs = own[:, None] != np.arange(n_classes)

    @property
    def affordable(self) -> bool:
        """Whether the least-squares problem is of a size that is solved in about the time of a fit."""
        parameters = self.width * (self.n_classes - 1)
        work = 2.0 * len(self.own) * self.width**2 * self.n_classes + parameters**3 / 3
        return bool(parameters <= MOST_PARAMETERS and work <= MOST_WORK and self.others.size <= MOST_COMPARISONS)

    def block(self, block: slice | NDArray[np.int64]) -> Vector:
        """Some of the examples (m, width), columns of size 1, dense."""
        part = self._X[self._rows[block]]
        part = (part.toarray() if self._sparse else np.asarray(part)).astype(np.float64)
        part /= self.size
        return np.column_stack([part, np.ones(len(part))]) if self._fit_intercept else part

    def sparse(self) -> Any:
        """All of them (n, width) as CSR."""
        return sparse.vstack([sparse.csr_array(self.block(block)) for block in self._blocks], "csr")

    def scaled(self, weights: Vector, intercept: Vector) -> Vector:
        """Weights (d, C) and intercepts (C,) as a direction (width, C) of the scaled columns."""
        direction = weights * self.size[:, None]
        return np.concatenate([direction, intercept[None]]) if self._fit_intercept else direction

    def gains(self, direction: Vector) -> Vector:
        """A·V, (n, C), zero on the own class."""
        out = np.empty((len(self.own), self.n_classes))
        for block in self._blocks:
            logits = self.block(block) @ direction
            out[block] = logits[np.arange(len(logits)), self.own[block]][:, None] - logits
        return out

    def sums(self, u: Vector) -> Vector:
        """Aᵀ·u, (width, C), for u (n, C) that is zero on the own class."""
        total = np.zeros((self.width, self.n_classes))
        for block in self._blocks:
            pull = -u[block]
            pull[np.arange(len(pull)), self.own[block]] = u[block].sum(axis=1)
            total += self.block(block).T @ pull
        return total

    def curvature(self, share: Vector) -> Vector:
        """Aᵀ·diag(share)·A for the classes but the first, whose weights may be held at zero."""
        n_classes, width = self.n_classes, self.width
        whole = np.zeros((n_classes, width, n_classes, width))
        for own in range(n_classes):
            these = np.flatnonzero(self.own == own)
            for piece in row_blocks(len(these), 8 * (self.width + n_classes)):
                part = self.block(these[piece])
                for other in range(n_classes):
                    if other == own:
                        continue
                    product = part.T @ (part * share[these[piece], other][:, None])
                    whole[own, :, own] += product
                    whole[other, :, other] += product
                    whole[own, :, other] -= product
                    whole[other, :, own] -= product
        size = (n_classes - 1) * width
        return whole[1:, :, 1:].reshape(size, size)


class Solve:
    """The least-squares problem of `Comparisons`, factorised for one `share`."""

    def __init__(self, comparisons: Comparisons, share: Vector) -> None:
        self._shape = (comparisons.n_classes - 1, comparisons.width)
        matrix = comparisons.curvature(share)
        diagonal = np.sqrt(np.diag(matrix))
        self._inverse = np.divide(1.0, diagonal, out=np.zeros_like(diagonal), where=diagonal > 0)
        matrix *= self._inverse[:, None]
        matrix *= self._inverse
        matrix[np.diag_indices_from(matrix)] += RIDGE * len(matrix)
        matrix[diagonal == 0, diagonal == 0] = 1.0
        self._factor = linalg.cho_factor(matrix, overwrite_a=True, check_finite=False)

    def __call__(self, target: Vector) -> Vector:
        """(width, C) from (width, C)."""
        vector = target.T[1:].ravel() * self._inverse
        found = linalg.cho_solve(self._factor, vector, check_finite=False) * self._inverse
        return np.concatenate([np.zeros((1, self._shape[1])), found.reshape(self._shape)]).T


def told_apart(comparisons: Comparisons, u: Vector, direction: Vector) -> Pairs | None:
    """Which comparisons (n, C) a direction without any loss can win; None where that is not found out.

    Args:
        comparisons: the examples.
        u: (n, C) the probabilities of the other classes at the end of a fit, times weights; zero on the own class.
        direction: (width, C) where the fit ended.
    """
    won = np.zeros_like(comparisons.others)
    if not comparisons.affordable or not (np.isfinite(u).all() and np.isfinite(direction).all()):
        return None
    while True:
        left = comparisons.others & ~won
        if not left.any():
            return won
        try:
            overlap, hint = _overlap(comparisons, np.where(left, u, 0.0), left)
        except linalg.LinAlgError:
            return None
        if overlap:
            return won
        gained = _gained(comparisons, direction, hint, left)
        if gained is None:
            return None
        won |= gained


def _overlap(comparisons: Comparisons, u: Vector, left: Pairs) -> tuple[bool, Vector]:
    """Whether no direction gains anything in what is `left`, and the gains of the last step's direction."""
    u = np.where(left, np.maximum(u, FLOOR * u.max()), 0.0)
    gains = np.zeros_like(u)
    for _ in range(STEPS):
        share = np.square(u)
        solve = Solve(comparisons, share)
        moved, step = u, np.zeros((comparisons.width, comparisons.n_classes))
        for _ in range(CORRECTIONS):
            more = solve(comparisons.sums(moved))
            step += more
            gains = comparisons.gains(step)
            moved = u - share * gains
        least = float(moved[left].min())
        if least > 0:
            rest = np.abs(comparisons.sums(moved)).max()
            return bool(rest <= SLACK * least), gains
        # As far as nine tenths of the way to the nearest zero.
        change = share * gains
        longest = 0.9 / float((change[left] / u[left]).max())
        u = np.where(left, u - min(1.0, longest) * change, 0.0)
    return False, gains


def _gained(comparisons: Comparisons, direction: Vector, hint: Vector, left: Pairs) -> Pairs | None:
    """What a direction gains of what is `left`, without a loss; None if neither of two candidates is such a one.

    The weights of a fit grow along one. What they do besides is taken out: the part that moves the examples which are
    in the way, where `hint` has no large gains.
    """
    largest = float(np.abs(hint[left]).max(initial=0.0))
    for least in (1e-3, 1e-2, 1e-4):
        blocked = left & (np.abs(hint) <= least * largest)
        share = blocked.astype(np.float64)
        solve = Solve(comparisons, share)
        candidate = direction
        for _ in range(CORRECTIONS):
            candidate = candidate - solve(comparisons.sums(share * comparisons.gains(candidate)))
        gains = comparisons.gains(candidate)
        most = float(gains[left].max(initial=0.0))
        if most <= 1e-9 * np.abs(direction).max(initial=0.0):
            continue
        if (gains[left] >= -GAIN * most).all():
            return np.asarray(left & (gains > GAIN * most))
    return None
