"""GPTQ: weights rounded one column after another, each error made good by the columns that are still to come.

After Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers" (arXiv 2210.17323). ONNX Runtime's own GPTQ propagates with a column of the Cholesky factor where the
row belongs, which is zero below the diagonal: it rounds to nearest. Must not import onnx_ir at module level.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgetune.compress.gptq.rounding import Blocks, FloatArray, Grid, column_levels, find_grid, in_blocks
from edgetune.serve.errors import CompressError

# Added to the Hessian's diagonal, as a share of its mean; ten times as much where it is not positive definite yet. The
# paper's 0.01 goes with 262,144 tokens; on ten thousand 0.1 loses 5 to 10% less on texts that it was not calibrated on.
DAMPING = 0.1
_DAMPING_TRIES = 5
# Columns whose errors reach the rest of the matrix in one product instead of one by one.
_LAZY_COLUMNS = 128


def gptq(weight: FloatArray, hessian: FloatArray, bits: int, block: int, *, symmetric: bool = False) -> Blocks:
    """The matrix on a grid, its levels chosen so that its products with the inputs seen change least.

    The grid is found first, from the weights as they are, weighed by the diagonal of the Hessian; then the columns go
    from the most to the least important ("act-order" with static groups, as the paper's code has them).

    Args:
        weight: (outputs, inputs) float32.
        hessian: (inputs, inputs) float32, the mean of x x^T over the inputs seen, up to a factor.
        bits: 4 or 8.
        block: weights that share a scale.
        symmetric: zero is the middle level, as it always is in 8 bits.

    Raises:
        CompressError: the Hessian is not finite, or not positive definite however it is damped.
    """
    importance = np.ascontiguousarray(np.diag(hessian))
    if not np.isfinite(hessian).all():
        raise CompressError("the inputs of a weight matrix are not finite on the calibration texts")
    order = np.argsort(-importance, kind="stable")
    damped = importance + importance.mean() * DAMPING
    grid = find_grid(weight, bits, block, importance=damped, symmetric=symmetric)
    factor = _factor(hessian[np.ix_(order, order)])
    columns = _rounded(weight.T[order], factor, grid, order // block)
    levels = np.empty((weight.shape[1], len(weight)), np.float32)
    levels[order] = columns
    whole = in_blocks(np.ascontiguousarray(levels.T), block)
    if weight.shape[1] % block:
        whole[:, -1, weight.shape[1] % block :] = grid.zeros[:, -1:]
    return Blocks(whole.astype(np.uint8), grid, weight.shape[1])


def _factor(hessian: NDArray[np.floating]) -> FloatArray:
    """The upper triangular U of U^T U = H^-1 after damping, (inputs, inputs) float32.

    Inputs that were always zero are cut loose from the others, so that their weights are rounded to nearest.
    """
    damped = hessian.astype(np.float64)
    diagonal = np.diag(damped).copy()
    mean = diagonal[diagonal > 0].mean() if (diagonal > 0).any() else 1.0
    diagonal[diagonal <= 0] = mean
    for attempt in range(_DAMPING_TRIES):
        np.fill_diagonal(damped, diagonal + DAMPING * 10**attempt * mean)
        try:
            factor: FloatArray = np.linalg.cholesky(np.linalg.inv(damped)).T.astype(np.float32)
        except np.linalg.LinAlgError:
            continue
        return factor
    raise CompressError(
        "GPTQ found a Hessian that is not positive definite",
        action="calibrate with more texts, or round to nearest (method rtn)",
    )


def _rounded(columns: FloatArray, factor: FloatArray, grid: Grid, blocks: NDArray[np.int64]) -> FloatArray:
    """The levels of `columns` (inputs, outputs) float32, in their order; `blocks` tells whose scales a column has."""
    weight = columns.astype(np.float32, copy=True)
    levels = np.empty_like(weight)
    for start in range(0, len(weight), _LAZY_COLUMNS):
        stop = min(start + _LAZY_COLUMNS, len(weight))
        errors = np.empty((stop - start, weight.shape[1]), np.float32)
        for at in range(start, stop):
            block = blocks[at]
            levels[at] = column_levels(weight[at], grid, block)
            kept = (levels[at] - grid.zeros[:, block]) * grid.scales[:, block]
            errors[at - start] = (weight[at] - kept) / factor[at, at]
            # The row of the factor, from the diagonal on; its column is zero below the diagonal.
            weight[at + 1 : stop] -= np.outer(factor[at, at + 1 : stop], errors[at - start])
        weight[stop:] -= factor[start:stop, stop:].T @ errors
    return levels
