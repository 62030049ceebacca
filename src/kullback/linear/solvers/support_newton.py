"""A Newton step among the weights that are not zero, with the Hessian of all classes together.

A model of one block a class knows nothing of how classes pull on one another, and learns it slowly from the steps. On
the support the penalty is smooth, so there the true Hessian serves: it is never made, only multiplied with, and the
blocks of the model are what conditions the solution by conjugate gradients. What would change its sign stops at zero.

Source: Oberlin & Wright (2006), "Active set identification in nonlinear programming", and Hsieh, Sustik, Dhillon &
Ravikumar (2014), "QUIC", for a second-order step on the set that a proximal step has identified.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from kullback.linear.solvers.base import Point, Vector
from kullback.linear.solvers.quadratic_model import Factor, conjugate_gradients, solve_blocks
from kullback.linear.sparse_problem import SparseObjective
from kullback.linear.support_curvature import Blocks

Index: TypeAlias = NDArray[np.int64]

# Steps of conjugate gradients, and the residual at which they end, as a share of the slope.
PRODUCTS = 60
RESIDUAL = 0.1


def support_of(objective: SparseObjective, parameters: Vector) -> NDArray[np.bool_]:
    """(P,) the weights that are not zero (for groups: whose group is not), and the intercepts."""
    scaled, _ = objective.split(parameters)
    used = scaled != 0
    if objective.penalty.grouped:
        used = np.broadcast_to(used.any(axis=1, keepdims=True), scaled.shape)
    found = np.ones(len(parameters), dtype=bool)
    found[: scaled.size] = used.ravel()
    return found


def newton_on_support(
    objective: SparseObjective,
    blocks: Blocks,
    product: Callable[[Vector], Vector],
    parameters: Vector,
    point: Point,
    places: Index,
) -> Vector | None:
    """(P,) parameters where a Newton step on the support leads, or None where it cannot be computed.

    Args:
        objective: the problem.
        blocks: a rough Hessian of the loss and the ridge, whose variables include the support.
        product: the loss's and the ridge's true Hessian times (m,), among the support.
        parameters: (P,).
        point: the objective there.
        places: (m,) the support, in order.
    """
    scaled, _ = objective.split(parameters)
    outputs = objective.n_outputs
    pull = np.zeros_like(scaled)
    tau = objective.thresholds[:, None]
    weight = np.zeros_like(scaled)
    if objective.penalty.grouped:
        size = np.sqrt(np.square(scaled).sum(axis=1, keepdims=True))
        np.divide(np.broadcast_to(tau, scaled.shape), size, out=weight, where=size > 0)
        pull = weight * scaled
        unit = np.divide(scaled, size, out=np.zeros_like(scaled), where=size > 0)
    else:
        pull = tau * np.sign(scaled)
    slope = point.gradient.copy()
    slope[: scaled.size] += pull.ravel()
    count = int(np.searchsorted(places, scaled.size))
    bend = np.zeros(len(places))
    bend[:count] = weight.ravel()[places[:count]]
    group = np.zeros(len(places), dtype=np.int64)
    group[:count] = places[:count] // outputs
    share = np.zeros(len(places))
    if objective.penalty.grouped:
        share[:count] = unit.ravel()[places[:count]]

    def times(vector: Vector) -> Vector:
        out = product(vector)
        if objective.penalty.grouped:
            along = np.bincount(group, share * vector, objective.n_columns + 1)[group]
            out += bend * (vector - share * along)
        return out

    condition = _block_inverse(blocks, places, bend)
    if condition is None:
        return None
    step, _ = conjugate_gradients(times, condition, -slope[places], products=PRODUCTS, residual=RESIDUAL)
    wanted = parameters.copy()
    wanted[places] += step
    if not objective.penalty.grouped:
        weights, before = wanted[: scaled.size], parameters[: scaled.size]
        weights[weights * before < 0] = 0.0
    return wanted


def _block_inverse(blocks: Blocks, places: Index, bend: Vector) -> Callable[[Vector], Vector] | None:
    """Applies the inverse of the blocks, with `bend` added to their diagonal, among the given places."""
    of_place = np.argsort(blocks.places)
    where = of_place[np.searchsorted(blocks.places[of_place], places)]
    found: list[Factor] = []
    for block in range(len(blocks.offset)):
        inside = np.flatnonzero((where >= blocks.start[block]) & (where < blocks.start[block + 1]))
        if len(inside) == 0:
            continue
        local = where[inside] - int(blocks.start[block])
        matrix = blocks.matrix(block)[np.ix_(local, local)]
        matrix[np.diag_indices(len(matrix))] += bend[inside] + 1e-10 * np.diag(matrix).max()
        try:
            found.append((inside, linalg.cho_factor(matrix, lower=True, check_finite=False, overwrite_a=True)))
        except linalg.LinAlgError:
            return None

    return partial(solve_blocks, found)
