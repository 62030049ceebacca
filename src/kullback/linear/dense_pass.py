"""A whole pass over dense rows in one call of the C++ kernels, where they have the loss and outputs are few.

Between two blocks of rows nothing returns to Python, so a pass over little data costs what its arithmetic costs; and
narrow products run at nearly the speed of wide ones, which those of BLAS do not (see native/linear/pass.hpp).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kullback.kernels import dispatch
from kullback.linear.design import DenseDesign, Design, StandardisedDesign
from kullback.losses import Loss
from kullback.losses.sigmoid_loss import SigmoidLoss
from kullback.losses.softmax_loss import SoftmaxLoss
from kullback.targets import Targets

Vector: TypeAlias = NDArray[np.float64]

# With more outputs than this the products are as wide as BLAS likes them.
MOST_OUTPUTS = 64
# With more weights than this, those of a block of classes no longer stay in the cache while rows go by.
MOST_WEIGHTS = 1 << 18


def dense_pass(
    design: Design, loss: Loss, targets: Targets, sample_weight: Vector | None, n_outputs: int, *, fit_intercept: bool
) -> Any:
    """What passes over the rows (see `kernels.cpu.linear_pass`), or None where the general way has to do.

    Args:
        design: the data. Where it is standardised, the weights are those of standardised columns.
        loss: of N targets.
        targets: wrapped, and checked already.
        sample_weight: (N,) or None.
        n_outputs: C.
        fit_intercept: whether a row of intercepts follows the weights.
    """
    if n_outputs > MOST_OUTPUTS or (design.shape[1] + 1) * n_outputs > MOST_WEIGHTS:
        return None
    known: Any = SoftmaxLoss if isinstance(loss, SoftmaxLoss) else SigmoidLoss
    if not isinstance(loss, known) or type(loss)._evaluate is not known._evaluate:
        return None
    recipe = loss._recipe(n_outputs)
    if dispatch.backend_of(recipe) != "cpu":
        return None
    how: dict[str, Any] = {"ones": fit_intercept}
    if isinstance(design, DenseDesign):
        matrix = design.matrix
    elif isinstance(design, StandardisedDesign) and (kept := design.kept) is not None:
        matrix = kept[:, : design.shape[1]]
    elif isinstance(design, StandardisedDesign) and isinstance(design.source, DenseDesign):
        matrix = design.source.matrix
        how.update(centre=design.scaling.centre, inverse=1.0 / design.scaling.scale)
    else:
        return None
    near, far = sorted(matrix.strides)
    if near != matrix.itemsize or far % matrix.itemsize:
        return None  # neither its rows nor its columns are contiguous
    from kullback.kernels import cpu

    return cpu.linear_pass(
        recipe,
        matrix,
        targets,
        n_outputs,
        row_weight=loss._row_weight(targets, sample_weight),
        ignore_index=loss.ignore_index,
        dtype=design.dtype,
        **how,
    )
