r"""
Facility location: the subset whose members are most similar to all points.

.. math:: \max_{\lvert S \rvert \le k} F(S), \qquad
    F(S) = \sum_i v_i \max_{j \in S} s_{ij}, \qquad s_{ij} \ge 0

F is monotone and submodular, and finding the best subset is NP-hard.
"""

import math
import sys

import numpy as np

from lib._backend import (
    as_float_array,
    as_kind,
    check_choice,
    check_integer,
    check_real,
    is_torch,
    make_rng,
    row_blocks,
    to_numpy,
)

__all__ = ["facility_location"]

METHODS = ("greedy", "stochastic", "partition")

# Points of one part of the partition method.
PART = 4000

# Numbers in a block of rows: it should stay in a processor's cache.
_BLOCK = 2**17


def facility_location(
    S, k, *, method="greedy", eps=0.01, shift=False, random_state=None
):
    r"""
    Select columns of a similarity matrix that cover its rows.

    .. math:: j_t \in \arg\max_{j \notin S_{t-1}} F(S_{t-1} \cup \{j\}) - F(S_{t-1}),
        \qquad F(S) = \sum_i \max_{j \in S} s_{ij}

    Parameters
    ----------
    S : array-like or Tensor of shape (n, m)
        Similarities of n points to m candidates, not negative.
    k : int
        Number of candidates to select, at most m.
    method : {"greedy", "stochastic", "partition"}, default="greedy"
        ``"greedy"``: the best of all candidates in each step. ``"stochastic"``: the
        best of a random sample of about (m / k) log(1 / eps). ``"partition"``: greedy
        within parts of a random partition, then among the winners; S must be square.
    eps : float, default=0.01
        What ``"stochastic"`` gives up of the guarantee, between 0 and 1.
    shift : bool, default=False
        Whether to subtract the smallest similarity where one is negative.
    random_state : int, Generator, RandomState or None, default=None
        Source of samples and partitions.

    Returns
    -------
    indices : ndarray or Tensor of int64, shape (k,)
        The candidates in the order of selection.
    gains : ndarray or Tensor of shape (k,)
        What each added to F; they add up to F, of the shifted similarities where a
        shift was asked for.

    Raises
    ------
    TypeError
        If a type is wrong.
    ValueError
        If ``k`` or ``eps`` is out of range, a similarity is negative and ``shift``
        is false, an entry is not finite, or the method is unknown.

    Notes
    -----
    Greedy attains a share of 1 - 1/e of the best F, stochastic 1 - 1/e - eps on
    average. The gains of all candidates are kept: after a selection only the rows
    whose best similarity rose are looked at again, a few passes over S in total in
    place of k. The sum over rows is in float64, and each winner is evaluated anew.
    Ties go to the lower index.

    References
    ----------
    .. [1] G. Nemhauser, L. Wolsey and M. Fisher, "An analysis of approximations for
       maximizing submodular set functions - I", 1978, Section 4.
    .. [2] B. Mirzasoleiman et al., "Lazier than lazy greedy", AAAI 2015, Theorem 1.
    .. [3] B. Mirzasoleiman, A. Karbasi, R. Sarkar and A. Krause, "Distributed
       submodular maximization", NIPS 2013, Algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.coresets import facility_location
    >>> x = np.array([0.0, 0.1, 0.2, 5.0, 5.1])
    >>> indices, gains = facility_location(6 - np.abs(x[:, None] - x), 2)
    >>> indices
    array([2, 3])
    """
    S = as_float_array(S, "S")
    n, m = S.shape
    check_integer("k", k)
    if n == 0 or k > m:
        raise ValueError(
            f"k must be at most the number of columns of S, which must have rows, got "
            f"k={k} and shape {(n, m)}"
        )
    check_choice("method", method, METHODS)
    check_eps(eps)
    if not isinstance(shift, (bool, np.bool_)):
        raise TypeError(f"shift must be a bool, got {shift!r}")
    if method == "partition" and n != m:
        raise ValueError(
            f'method="partition" needs a square matrix S, got shape {(n, m)}'
        )
    lowest = float(S.min())
    if lowest < 0:
        if not shift:
            raise ValueError(
                "S must not be negative (shift=True subtracts the smallest entry), "
                f"got {lowest}"
            )
        S = S - lowest
    rng = make_rng(random_state)
    A = S
    if is_torch(S) and S.device.type == "cpu":
        A = to_numpy(S)
    if method == "greedy":
        picks, gains = greedy(A, k)
    elif method == "stochastic":
        picks, gains = stochastic(lambda c: A[:, c].T, n, m, k, eps, rng)
    else:

        def select(points, weights, budget):
            return points[greedy(A[points][:, points], budget, weights)[0]]

        def count(points, picks):
            return nearest_counts(
                lambda rows: A[points[rows]][:, picks], len(points), len(picks)
            )

        picks = greedi(n, k, rng, select, count)
        gains = gains_of(lambda j: A[:, j], n, picks)
    return as_index(picks, S), as_kind(gains, S)


def check_eps(eps):
    check_real("eps", eps)
    if eps >= 1:
        raise ValueError(f"eps must be between 0 and 1, got {eps!r}")


def as_index(indices, like):
    indices = np.asarray(indices, dtype=np.int64)
    if is_torch(like):
        return sys.modules["torch"].as_tensor(indices, device=like.device)
    return indices


# Indices and gains, in numpy. With `symmetric` columns are read as rows, which lie
# together in memory.
def greedy(S, k, weights=None, symmetric=False):
    if is_torch(S):
        return _greedy_torch(S, k, weights)
    n, m = S.shape
    # C order for the rows; one copy if it is another.
    S = np.ascontiguousarray(S)
    v = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    v_low = v.astype(S.dtype)
    size = max(1, _BLOCK // m)
    gains = np.zeros(m)
    for rows in row_blocks(n, size):
        gains += v_low[rows] @ S[rows]
    best = np.zeros(n, dtype=S.dtype)
    buffer = np.empty((min(size, n), m), dtype=S.dtype)
    picks, added = np.empty(k, dtype=np.int64), np.empty(k)
    for t in range(k):
        # Running gains may be off by rounding: the winner's is computed anew, and it
        # wins only if it stays ahead.
        while True:
            j = int(gains.argmax())
            column = S[j] if symmetric else S[:, j]
            rise = column - best
            np.maximum(rise, 0, out=rise)
            exact = float(rise.astype(np.float64, copy=False) @ v)
            if exact >= gains[j]:
                break
            gains[j] = exact
            if int(gains.argmax()) == j:
                break
        picks[t], added[t] = j, exact
        rows = np.flatnonzero(rise)
        for block in row_blocks(len(rows), size):
            part = rows[block]
            lost = buffer[: len(part)]
            np.take(S, part, axis=0, out=lost, mode="clip")
            lost -= best[part, None]
            np.maximum(lost, 0, out=lost)
            np.minimum(lost, rise[part, None], out=lost)
            gains -= v_low[part] @ lost
        best[rows] = column[rows]
        gains[j] = -np.inf
    return picks, added


# The same on a device: what is launched is fixed but for the rows that rose.
def _greedy_torch(S, k, weights=None):
    torch = sys.modules["torch"]
    n, m = S.shape
    v = torch.ones(n, device=S.device, dtype=torch.float64)
    if weights is not None:
        v = torch.as_tensor(weights, device=S.device, dtype=torch.float64)
    size = max(1, 2**24 // m)
    gains = torch.zeros(m, device=S.device, dtype=torch.float64)
    for rows in row_blocks(n, size):
        gains += v[rows] @ S[rows].double()
    best = torch.zeros(n, device=S.device, dtype=S.dtype)
    picks = torch.empty(k, device=S.device, dtype=torch.int64)
    added = torch.empty(k, device=S.device, dtype=torch.float64)
    for t in range(k):
        j = gains.argmax()
        rise = (S.index_select(1, j[None])[:, 0] - best).clamp_min(0)
        picks[t], added[t] = j, rise.double() @ v
        rows = rise.nonzero()[:, 0]
        for block in row_blocks(len(rows), size):
            part = rows[block]
            lost = (S[part] - best[part, None]).clamp_min_(0)
            lost = torch.minimum(lost, rise[part, None])
            gains -= (v[part].to(S.dtype) @ lost).double()
        best += rise
        gains[j] = -torch.inf
    return to_numpy(picks), to_numpy(added)


# `columns` gives similarities of some candidates to all points, one candidate a row:
# nothing larger than a sample of candidates is ever held.
def stochastic(columns, n, m, k, eps, rng, weights=None):
    size = min(m, math.ceil(m / k * math.log(1 / eps)))
    free = np.ones(m, dtype=bool)
    best = None
    v = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    picks, added = np.empty(k, dtype=np.int64), np.empty(k)
    for t in range(k):
        left = np.flatnonzero(free)
        sample = np.sort(rng.choice(left, min(size, len(left)), replace=False))
        rise = columns(sample)
        if is_torch(rise) and best is None:
            v = sys.modules["torch"].as_tensor(v, device=rise.device)
        low = v.to(rise.dtype) if is_torch(rise) else v.astype(rise.dtype)
        if best is not None:
            rise = rise - best
        rise = rise.clip(0)
        at = int((rise @ low).argmax())
        picks[t] = sample[at]
        wide = rise[at].double() if is_torch(rise) else rise[at].astype(np.float64)
        added[t] = float(wide @ v)
        best = rise[at] if best is None else best + rise[at]
        free[sample[at]] = False
    return picks, added


# Two rounds: k winners of each part, then k of all winners, each of which counts for
# the points it won. `select(points, weights, budget)` gives some of the points, and
# `count(points, picks)` how many points each pick is the most similar one of.
def greedi(n, k, rng, select, count):
    order = rng.permutation(n)
    n_parts = max(2, min(math.ceil(n / PART), n // k)) if n >= 2 else 1
    winners, weights = [], []
    for part in np.array_split(order, n_parts):
        part = np.sort(part)
        if len(part) <= k:
            picks, won = part, np.ones(len(part))
        else:
            picks = select(part, None, k)
            won = count(part, picks)
        winners.append(picks)
        weights.append(won)
    winners, weights = np.concatenate(winners), np.concatenate(weights)
    order = np.argsort(winners)
    return select(winners[order], weights[order], k)


# How many rows have each of the picked columns as their largest entry; `block(rows)`
# gives the picked columns of some rows. Ties go to the pick that is first in order,
# but for the rows `own`, which stand for themselves.
def nearest_counts(block, n, n_picks, own=None):
    winner = np.empty(n, dtype=np.int64)
    for rows in row_blocks(n, max(1, 2**22 // n_picks)):
        winner[rows] = to_numpy(block(rows).argmax(1))
    if own is not None:
        winner[own] = np.arange(n_picks)
    return np.bincount(winner, minlength=n_picks)


# What each pick added to F, in order.
def gains_of(column, n, picks, weights=None):
    best = np.zeros(n)
    v = np.ones(n) if weights is None else weights
    gains = np.empty(len(picks))
    for t, j in enumerate(picks):
        rise = np.maximum(to_numpy(column(int(j))).astype(np.float64) - best, 0)
        gains[t] = rise @ v
        best += rise
    return gains
