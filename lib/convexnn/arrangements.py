r"""
Activation patterns of a ReLU layer: the cells of a hyperplane arrangement.

A neuron :math:`u` is active on the rows of :math:`X` with :math:`x_i^\top u \ge 0`. The
pattern changes only where :math:`u` crosses one of the hyperplanes orthogonal to the
rows, so there are as many patterns as open cells between these hyperplanes.
"""

from itertools import combinations, islice
from math import comb, e, log

import numpy as np

from lib._backend import (
    as_float_array,
    as_kind,
    check_integer,
    make_rng,
    to_numpy,
)

__all__ = [
    "arrangement_bound",
    "count_arrangements",
    "enumerate_arrangements",
    "sample_arrangements",
]

#: Subsets of rows whose rays are computed at once, and bytes of patterns at once.
SUBSETS, BYTES = 4096, 2**27

#: A row is orthogonal to a unit ray where their product is below this times its norm.
TIGHT = 1e-9


def count_arrangements(n, r):
    r"""
    Count the activation patterns of points in general position.

    .. math:: P = 2 \sum_{k=0}^{r-1} \binom{n-1}{k}

    Parameters
    ----------
    n : int
        Number of points.
    r : int
        Rank of the points; at most ``n``.

    Returns
    -------
    int
        The number of patterns, an upper bound for points in special position.

    Raises
    ------
    TypeError
        If an argument is not an integer.
    ValueError
        If an argument is below 1 or ``r`` exceeds ``n``.

    References
    ----------
    .. [1] T. M. Cover, "Geometrical and statistical properties of systems of linear
       inequalities", IEEE Trans. Electronic Computers 14, 1965.

    Examples
    --------
    >>> from lib.convexnn import count_arrangements
    >>> count_arrangements(5, 2), count_arrangements(20, 3)
    (10, 382)
    """
    check_integer("n", n)
    check_integer("r", r)
    if r > n:
        raise ValueError(f"r must be at most n = {n}, got {r}")
    return 2 * sum(comb(n - 1, k) for k in range(r))


def arrangement_bound(n, r):
    r"""
    Bound the number of activation patterns by a power of the number of points.

    .. math:: P \le 2 r \left( \frac{e (n-1)}{r} \right)^{r}

    Parameters
    ----------
    n : int
        Number of points, at least 2.
    r : int
        Rank of the points; below ``n``.

    Returns
    -------
    float
        The bound; infinite where it exceeds the largest float.

    Raises
    ------
    TypeError
        If an argument is not an integer.
    ValueError
        If ``r`` is below 1 or not below ``n``.

    References
    ----------
    .. [1] M. Pilanci and T. Ergen, "Neural networks are convex regularizers", ICML
       2020, Section 2.

    Examples
    --------
    >>> from lib.convexnn import arrangement_bound, count_arrangements
    >>> arrangement_bound(20, 3) >= count_arrangements(20, 3)
    True
    """
    check_integer("n", n, minimum=2)
    check_integer("r", r)
    if r >= n:
        raise ValueError(f"r must be below n = {n}, got {r}")
    exponent = log(2 * r) + r * (log(e * (n - 1)) - log(r))
    return float(np.exp(exponent)) if exponent < 709 else float("inf")


def enumerate_arrangements(X, bias=False, max_cells=10**6, *, return_gates=False):
    r"""
    List every activation pattern that a neuron can have on the rows of ``X``.

    A pattern is :math:`1[Xu \ge 0]` for a :math:`u` with :math:`x_i^\top u \ne 0` for
    every row other than zero. Patterns on the boundary between cells are left out:
    they add nothing to the convex programs of this wing.

    Parameters
    ----------
    X : array-like or Tensor of shape (n, d)
        Points.
    bias : bool, default=False
        Whether neurons have an offset: a column of ones is appended.
    max_cells : int, default=10**6
        Most patterns that may be listed.
    return_gates : bool, default=False
        Whether to return a neuron of every cell as well.

    Returns
    -------
    masks : ndarray or Tensor of bool, shape (n, P)
        One pattern a column, in lexicographic order.
    gates : ndarray or Tensor of shape (d, P) or (d + 1, P)
        Unit vectors strictly inside the cells, with ``return_gates``.

    Raises
    ------
    TypeError
        If a type is wrong.
    ValueError
        If ``X`` is not a finite matrix with at least one row and column, or more than
        ``max_cells`` patterns are possible; the message gives the number.

    Notes
    -----
    Every cell is a cone spanned by rays on which at least r - 1 independent rows
    vanish, r the rank. All subsets of r - 1 rows are taken; beside each ray lie all the
    patterns of the rows that vanish on it. In general position these are all of
    2^(r-1); otherwise they are listed by the same rule, one dimension lower. Time is
    O(C(n, r-1) 2^r n). The mean of a cell's rays is a neuron inside it.

    References
    ----------
    .. [1] M. Pilanci and T. Ergen, "Neural networks are convex regularizers", ICML
       2020, Section 2.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.convexnn import enumerate_arrangements
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> enumerate_arrangements(X).astype(int)
    array([[0, 0, 1, 1],
           [0, 1, 0, 1]])
    """
    original = X
    X = _design(X, bias)
    check_integer("max_cells", max_cells)
    rows = np.flatnonzero(np.abs(X).max(axis=1) > 0)
    masks = np.ones((len(X), 1), dtype=bool)
    gates = np.zeros((X.shape[1], 1))
    if len(rows):
        unit = X[rows] / np.linalg.norm(X[rows], axis=1, keepdims=True)
        _, values, basis = np.linalg.svd(unit, full_matrices=False)
        r = int((values > TIGHT * values[0] * max(unit.shape)).sum())
        most = count_arrangements(len(rows), r)
        if most > max_cells:
            raise ValueError(
                f"max_cells is {max_cells}, but {len(rows)} points of rank {r} have up "
                f"to {most} activation patterns; sample them or raise max_cells"
            )
        cells, inner = _cells(unit @ basis[:r].T)
        masks = np.ones((len(X), len(cells)), dtype=bool)
        masks[rows] = cells.T
        gates = basis[:r].T @ inner.T
    order = np.lexsort(masks[::-1])
    masks, gates = masks[:, order], gates[:, order]
    masks = as_kind(masks, original)
    return (masks, as_kind(gates, original)) if return_gates else masks


def sample_arrangements(X, n_samples, random_state=None, *, return_gates=False):
    r"""
    Draw neurons at random and keep their distinct activation patterns.

    Parameters
    ----------
    X : array-like or Tensor of shape (n, d)
        Points.
    n_samples : int
        Number of Gaussian neurons drawn.
    random_state : int, Generator, RandomState or None, default=None
        Source of randomness.
    return_gates : bool, default=False
        Whether to return the first neuron drawn for every pattern as well.

    Returns
    -------
    masks : ndarray or Tensor of bool, shape (n, P)
        Distinct patterns, one a column, in the order of their first draw;
        ``P <= n_samples``.
    gates : ndarray or Tensor of shape (d, P)
        The neurons, with ``return_gates``.

    Raises
    ------
    TypeError
        If a type is wrong.
    ValueError
        If ``X`` is not a finite matrix or ``n_samples`` is below 1.

    Notes
    -----
    Cells are found in proportion to their solid angle, so that small ones are missed
    even by many draws. Time is O(n d n_samples).

    References
    ----------
    .. [1] M. Pilanci and T. Ergen, "Neural networks are convex regularizers", ICML
       2020, Section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.convexnn import sample_arrangements
    >>> sample_arrangements(np.eye(2), 100, random_state=0).shape
    (2, 4)
    """
    original = X
    X = _design(X, False)
    check_integer("n_samples", n_samples)
    gates = make_rng(random_state).standard_normal((X.shape[1], n_samples))
    masks = X @ gates >= 0
    _, first = np.unique(np.packbits(masks, axis=0), axis=1, return_index=True)
    first.sort()
    masks = as_kind(masks[:, first], original)
    return (masks, as_kind(gates[:, first], original)) if return_gates else masks


def _design(X, bias):
    # The points as a float64 matrix of numpy, with a column of ones where asked for.
    X = to_numpy(as_float_array(X)).astype(np.float64)
    if X.size == 0:
        raise ValueError(f"X must have rows and columns, got shape {X.shape}")
    return np.column_stack([X, np.ones(len(X))]) if bias else X


def _single(like):
    return getattr(like, "dtype", None) == np.float32


def _cells(X):
    # Patterns (P, n) of unit rows of full column rank, and a unit vector inside each.
    n, r = X.shape
    if r == 1:
        positive = X[:, 0] > 0
        return np.array([positive, ~positive]), np.array([[1.0], [-1.0]])
    found, rays, seen = {}, {}, set()
    corner = np.array(list(np.ndindex(*[2] * (r - 1))), dtype=bool)
    block = max(1, min(SUBSETS, BYTES // (2**r * n)))
    subsets = combinations(range(n), r - 1)
    while chunk := list(islice(subsets, block)):
        chunk = np.array(chunk)
        _, values, right = np.linalg.svd(X[chunk], full_matrices=True)
        proper = values[:, -1] > TIGHT
        chunk, ray = chunk[proper], right[proper, -1]
        side = ray @ X.T
        tight = np.abs(side) < TIGHT * 10
        plain = tight.sum(axis=1) == r - 1
        for sign in (1.0, -1.0):
            patterns = (sign * side[plain] > 0)[:, None]
            patterns = np.repeat(patterns, 2 ** (r - 1), axis=1)
            index = np.broadcast_to(
                chunk[plain][:, None, :], (*patterns.shape[:2], r - 1)
            )
            np.put_along_axis(patterns, index, corner[None], axis=2)
            beside = np.repeat(sign * ray[plain], 2 ** (r - 1), axis=0)
            _collect(patterns.reshape(-1, n), beside, found, rays)
        for one, zero in zip(ray[~plain], tight[~plain], strict=True):
            _beside(X, one, zero, found, rays, seen)
    patterns = np.array(list(found.values()))
    inner = np.array([rays[key] for key in found])
    return patterns, inner / np.linalg.norm(inner, axis=1, keepdims=True)


def _collect(patterns, beside, found, rays):
    # Add patterns, and to each pattern's neuron the ray beside it.
    if not len(patterns):
        return
    packed = np.packbits(patterns, axis=1)
    keys, first, inverse = np.unique(
        packed, axis=0, return_index=True, return_inverse=True
    )
    total = np.zeros((len(keys), beside.shape[1]))
    np.add.at(total, inverse.ravel(), beside)
    for key, where, ray in zip(keys, first, total, strict=True):
        key = key.tobytes()
        found.setdefault(key, patterns[where].copy())
        rays[key] = rays[key] + ray if key in rays else ray


def _beside(X, ray, zero, found, rays, seen):
    # The same for a ray on which more rows vanish than its subset: their patterns are
    # the cells of an arrangement of lower rank. Such a ray comes up for every subset
    # that spans its hyperplane, and only the first counts.
    ray = ray if (X[~zero] @ ray)[0] > 0 else -ray
    if zero.tobytes() in seen:
        return
    seen.add(zero.tobytes())
    _, values, basis = np.linalg.svd(X[zero], full_matrices=False)
    rank = int((values > TIGHT * values[0] * X.shape[0]).sum())
    cells, _ = _cells(X[zero] @ basis[:rank].T)
    for sign in (1.0, -1.0):
        patterns = np.repeat((sign * (X @ ray) > 0)[None], len(cells), axis=0)
        patterns[:, zero] = cells
        _collect(patterns, np.repeat(sign * ray[None], len(cells), axis=0), found, rays)
