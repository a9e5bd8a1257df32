r"""
Quality of a coreset.

The error of the sum of the gradients, the cost that bounds it, and the number of
samples that the weights amount to.
"""

import numpy as np

from lib._backend import as_float_array, check_same_kind, is_torch, row_blocks, to_numpy
from lib.coresets.gradients import as_gradients

__all__ = ["effective_sample_size", "facility_cost", "matching_error"]


def _indices(core, n):
    indices = to_numpy(core[0])
    if indices.ndim != 1 or len(indices) == 0 or indices.dtype.kind not in "iu":
        raise ValueError(
            "core must begin with a vector of at least one index, got shape "
            f"{indices.shape} of {indices.dtype}"
        )
    if indices.min() < 0 or indices.max() >= n:
        raise ValueError(
            f"core must have indices from 0 to {n - 1}, got {indices.min()} to "
            f"{indices.max()}"
        )
    return indices


def matching_error(G, core, *, relative=False):
    r"""
    Distance of the weighted sum of a coreset's gradients from the sum of all.

    .. math:: \Bigl\lVert \sum_{j \in S} w_j g_j - \sum_{i=1}^n g_i \Bigr\rVert

    Parameters
    ----------
    G : Gradients, array-like or Tensor of shape (n, d)
        Gradients.
    core : Coreset or tuple
        Indices and weights.
    relative : bool, default=False
        Whether to divide by the norm of the sum of all.

    Returns
    -------
    float
        The distance.

    Raises
    ------
    TypeError
        If ``G`` and the weights differ in kind.
    ValueError
        If an index is out of range, a weight is not finite, their numbers differ, or
        the relative error of a zero sum is asked for.

    Notes
    -----
    O(n d) operations, in float64.

    References
    ----------
    .. [1] K. Killamsetty et al., "GRAD-MATCH: gradient matching based data subset
       selection for efficient deep model training", ICML 2021, equation 3.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.coresets import matching_error
    >>> G = np.array([[1.0, 0.0], [1.0, 2.0]])
    >>> matching_error(G, (np.array([0]), np.array([2.0])))
    2.0
    """
    G = as_gradients(G)
    indices = _indices(core, len(G))
    w = as_float_array(core[1], "the weights of core", ndim=1)
    if w.shape[0] != len(indices):
        raise ValueError(
            f"core must have as many weights as indices, got {w.shape[0]} and "
            f"{len(indices)}"
        )
    check_same_kind(G.layers[0][0], w, ("G", "the weights of core"))
    everything = G._sum()
    error = float(((G[indices]._sum(w) - everything) ** 2).sum()) ** 0.5
    if not relative:
        return error
    size = float((everything**2).sum()) ** 0.5
    if size == 0:
        raise ValueError("relative must be False where the gradients sum to zero")
    return error / size


def facility_cost(G, core):
    r"""
    Sum of the distances from every gradient to the nearest one of a coreset.

    .. math:: L(S) = \sum_{i=1}^n \min_{j \in S} \lVert g_i - g_j \rVert

    Parameters
    ----------
    G : Gradients, array-like or Tensor of shape (n, d)
        Gradients.
    core : Coreset or tuple
        Begins with the indices.

    Returns
    -------
    float
        The cost.

    Raises
    ------
    TypeError
        If a dtype is wrong.
    ValueError
        If an index is out of range or an entry is not finite.

    Notes
    -----
    With counts of nearest points as weights it bounds `matching_error`. By blocks of
    rows, in float64: O(n k) inner products.

    References
    ----------
    .. [1] B. Mirzasoleiman, J. Bilmes and J. Leskovec, "Coresets for data-efficient
       training of machine learning models", ICML 2020, equation 8.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.coresets import facility_cost
    >>> facility_cost(np.array([[0.0], [1.0], [5.0]]), (np.array([0, 2]),))
    1.0
    """
    G = as_gradients(G)
    indices = _indices(core, len(G))
    chosen = G[indices]._map(_double)
    norms = chosen.sqnorm()
    # A chosen point is at distance zero from itself, whatever rounding makes of it.
    own = np.zeros(len(G), dtype=bool)
    own[indices] = True
    total = 0.0
    for rows in row_blocks(len(G), max(1, 2**21 // len(indices))):
        part = G[rows]._map(_double)
        square = part.gram(chosen)
        square *= -2
        square += part.sqnorm()[:, None]
        square += norms
        least = square.min(1) if not is_torch(square) else square.min(1).values
        least = to_numpy(least)
        least[own[rows]] = 0.0
        total += float(np.sqrt(np.maximum(least, 0)).sum())
    return total


def _double(x):
    if is_torch(x):
        return x.double() if x.is_floating_point() else x
    return x.astype(np.float64) if x.dtype.kind == "f" else x


def effective_sample_size(w):
    r"""
    Number of equal weights that average as well as these.

    .. math:: \frac{\bigl(\sum_j w_j\bigr)^2}{\sum_j w_j^2}

    Parameters
    ----------
    w : array-like or Tensor of shape (k,)
        Weights, not negative, not all zero.

    Returns
    -------
    float
        A number between 1 and k.

    Raises
    ------
    TypeError
        If the dtype is wrong.
    ValueError
        If a weight is negative or not finite, or all are zero.

    References
    ----------
    .. [1] L. Kish, "Survey Sampling", Wiley 1965, Section 11.7.

    Examples
    --------
    >>> from lib.coresets import effective_sample_size
    >>> effective_sample_size([2.0, 2.0, 0.0])
    2.0
    """
    w = to_numpy(as_float_array(w, "w", ndim=1)).astype(np.float64)
    if w.size == 0 or w.min() < 0 or w.max() == 0:
        raise ValueError(
            "w must hold weights that are not negative, one of them positive, got "
            f"{w!r}"
        )
    w = w / w.max()
    return float(w.sum() ** 2 / (w @ w))
