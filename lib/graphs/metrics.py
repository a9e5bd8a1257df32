"""
How near an estimated Laplacian is to the graph: weights, edges, and their ranking.

Edges are the pairs whose weight, minus the off-diagonal entry, is positive in the true
graph. All functions take Laplacians with leading batch dimensions.
"""

import sys

import numpy as np

from lib._backend import (
    as_float_array,
    check_real,
    check_same_kind,
    is_torch,
    to_numpy,
)

__all__ = ["average_precision", "f_score", "relative_error"]


def relative_error(estimate, truth):
    r"""
    Measure the distance to the true Laplacian, as a share of its norm.

    .. math:: \|\hat L - L\|_F / \|L\|_F

    Parameters
    ----------
    estimate : array-like or Tensor of shape (..., p, p)
        Estimated Laplacians.
    truth : array-like or Tensor of shape (..., p, p)
        True Laplacians; the leading dimensions broadcast.

    Returns
    -------
    ndarray or Tensor of shape (...)
        Relative errors; a number without leading dimensions.

    Raises
    ------
    TypeError
        If the two differ in kind or hold no numbers.
    ValueError
        If the shapes do not fit, an entry is not finite, or a true Laplacian is zero.

    Notes
    -----
    O(p^2) each.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.graphs import relative_error
    >>> L = np.array([[1.0, -1.0], [-1.0, 1.0]])
    >>> float(relative_error(1.5 * L, L))
    0.5
    """
    estimate, truth = _pair(estimate, truth)
    norm = (truth**2).sum((-2, -1)) ** 0.5
    if not bool((norm > 0).all()):
        raise ValueError("truth must be a Laplacian of a graph with edges, got zero")
    return ((estimate - truth) ** 2).sum((-2, -1)) ** 0.5 / norm


def f_score(estimate, truth, threshold=0.1):
    r"""
    Compare the edges found with the true ones.

    .. math:: F = \frac{2\,\mathrm{TP}}{2\,\mathrm{TP} + \mathrm{FP} + \mathrm{FN}},

    where an edge is found if its weight exceeds the threshold.

    Parameters
    ----------
    estimate : array-like or Tensor of shape (..., p, p)
        Estimated Laplacians.
    truth : array-like or Tensor of shape (..., p, p)
        True Laplacians; the leading dimensions broadcast.
    threshold : float, default=0.1
        Weight above which an edge counts as found, in the units of the weights.

    Returns
    -------
    ndarray or Tensor of shape (...)
        Scores between 0 and 1; a number without leading dimensions.

    Raises
    ------
    TypeError
        If the two differ in kind or hold no numbers.
    ValueError
        If the shapes do not fit, an entry is not finite, a true graph has no edge, or
        the threshold is negative.

    Notes
    -----
    O(p^2) each. The score depends on the threshold: state it with the score.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.graphs import f_score
    >>> L = np.array([[1.0, -1.0, 0], [-1.0, 2.0, -1.0], [0, -1.0, 1.0]])
    >>> float(f_score(L, L))
    1.0
    """
    check_real("threshold", threshold, allow_zero=True)
    weights, edges = _weights(estimate, truth)
    found = weights > threshold
    hits = (found & edges).sum(-1)
    # the sum of the two counts is 2 TP + FP + FN
    score = 2.0 * hits / (found.sum(-1) + edges.sum(-1))
    return score.to(weights.dtype) if is_torch(score) else score.astype(weights.dtype)


def average_precision(estimate, truth):
    r"""
    Judge the ranking of all pairs by weight, whatever the threshold.

    .. math:: \sum_k (R_k - R_{k-1}) P_k

    with precision and recall at the k-th largest distinct weight. Pairs of equal weight
    are taken together, so the many zeros of a sparse estimate help nobody.

    Parameters
    ----------
    estimate : array-like or Tensor of shape (..., p, p)
        Estimated Laplacians.
    truth : array-like or Tensor of shape (..., p, p)
        True Laplacians; the leading dimensions broadcast.

    Returns
    -------
    ndarray or Tensor of shape (...)
        Average precisions between 0 and 1; a number without leading dimensions.

    Raises
    ------
    TypeError
        If the two differ in kind or hold no numbers.
    ValueError
        If the shapes do not fit, an entry is not finite, or a true graph has no edge.

    Notes
    -----
    O(p^2 log p) each, on the CPU. A guess at random has the share of edges among the
    pairs as its precision.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.graphs import average_precision
    >>> L = np.array([[1.0, -1.0, 0], [-1.0, 2.0, -1.0], [0, -1.0, 1.0]])
    >>> float(average_precision(L, L))
    1.0
    """
    weights, edges = _weights(estimate, truth)
    score, hit = np.broadcast_arrays(to_numpy(weights), to_numpy(edges))
    out = np.empty(score.shape[:-1], score.dtype)
    for at in np.ndindex(out.shape):
        out[at] = _one_average_precision(score[at], hit[at])
    if is_torch(weights):
        torch = sys.modules["torch"]
        return torch.from_numpy(out).to(weights.device)
    return out[()]


def _one_average_precision(score, hit):
    order = np.argsort(-score, kind="stable")
    score, hits = score[order], np.cumsum(hit[order])
    last = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)
    recall = hits[last] / hits[-1]
    precision = hits[last] / (last + 1)
    return np.sum(np.diff(recall, prepend=0.0) * precision)


def _pair(estimate, truth):
    if not is_torch(estimate):
        estimate = np.asarray(estimate)
    if not is_torch(truth):
        truth = np.asarray(truth)
    check_same_kind(estimate, truth, ("estimate", "truth"))
    for name, L in {"estimate": estimate, "truth": truth}.items():
        if L.ndim < 2 or L.shape[-1] != L.shape[-2] or L.shape[-1] < 2:
            raise ValueError(
                f"{name} must have shape (..., p, p) with p >= 2, got {tuple(L.shape)}"
            )
    if estimate.shape[-1] != truth.shape[-1]:
        raise ValueError(
            f"estimate and truth must have the same number of nodes, got "
            f"{estimate.shape[-1]} and {truth.shape[-1]}"
        )
    return (
        as_float_array(estimate, "estimate", ndim=estimate.ndim),
        as_float_array(truth, "truth", ndim=truth.ndim),
    )


def _weights(estimate, truth):
    # Weights of the estimate, and which pairs are edges, over the upper triangle.
    estimate, truth = _pair(estimate, truth)
    rows, columns = np.triu_indices(truth.shape[-1], 1)
    edges = truth[..., rows, columns] < 0
    if not bool(edges.any(-1).all()):
        raise ValueError("truth must be a Laplacian of a graph with edges, got none")
    return -estimate[..., rows, columns], edges
