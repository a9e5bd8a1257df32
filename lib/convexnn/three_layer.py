r"""
Parallel three-layer ReLU networks as a convex program.

.. math:: \min \tfrac12 \Bigl\lVert \sum_k ((X W_{1k})_+ w_{2k})_+ w_{3k} - y
   \Bigr\rVert^2 + \tfrac{\beta}{2} \sum_k (\lVert w_{2k} \rVert^2 + w_{3k}^2),
   \qquad \lVert W_{1k} \rVert_F \le 1

Given the patterns of both layers, a sub-network is linear in vectors that stay in the
cones of their patterns and together in the cone of the second layer's.
"""

from typing import NamedTuple

import numpy as np

from lib._backend import as_kind, check_integer, check_real, make_rng
from lib.convexnn.arrangements import enumerate_arrangements
from lib.convexnn.closed_form import _check
from lib.convexnn.oracles import project_cone

__all__ = ["ThreeLayerSolution", "three_layer_program"]

#: Most points for which all patterns of the second layer are listed.
MOST = 10


class ThreeLayerSolution(NamedTuple):
    """
    Solution of the three-layer program.

    Attributes
    ----------
    objective : float
        Value of the program.
    networks : list of (ndarray or Tensor, ndarray or Tensor, float)
        Sub-networks: first layer (d, m), second layer (m,), output weight. Together
        they cost what the program costs.
    width : int
        Largest number of first-layer neurons in a sub-network.
    exact : bool
        Whether all patterns were included.
    """

    objective: float
    networks: list
    width: int
    exact: bool


def three_layer_program(X, y, beta, m1=None, masks=None, *, random_state=None):
    r"""
    Train a parallel three-layer ReLU network by its convex program.

    Parameters
    ----------
    X : array-like or Tensor of shape (n, d)
        Points.
    y : array-like or Tensor of shape (n,)
        Targets.
    beta : float
        Weight decay on the last two layers, > 0.
    m1 : int, optional
        First-layer neurons of a sub-network. Needed with ``masks``; without, the
        program puts no bound on them.
    masks : int, optional
        Number of sub-networks whose patterns and signs are those of random networks.
        By default all patterns are included, for up to ten points.
    random_state : int, Generator, RandomState or None, default=None
        Source of the random networks.

    Returns
    -------
    ThreeLayerSolution
        Value, sub-networks, their width and whether all patterns were included.

    Raises
    ------
    TypeError
        If a type is wrong.
    ValueError
        If shapes disagree, an entry is not finite, a parameter is out of range, or all
        patterns of more than ten points are asked for.

    Notes
    -----
    The signs with which first-layer neurons enter the second layer are free for every
    neuron; a program with one sign for all of them has the value of the two-layer
    program. With all patterns the value bounds every width from below and is attained
    by networks of the returned width. With sampled ones it is an upper bound.

    References
    ----------
    .. [1] T. Ergen and M. Pilanci, "Global optimality beyond two layers: training deep
       ReLU networks via convex programs", ICML 2021, Theorem 1.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.convexnn import three_layer_program
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> solution = three_layer_program(X, np.array([1.0, 0.0, 1.0]), 0.1)
    >>> solution.exact, solution.objective < 0.5
    (True, True)
    """
    original = X
    X, y = _check(X, y, (1,))
    check_real("beta", beta)
    if m1 is not None:
        check_integer("m1", m1)
    if masks is None:
        blocks = _all_blocks(X)
    else:
        check_integer("masks", masks)
        if m1 is None:
            raise ValueError("masks needs m1, the neurons of a sampled sub-network")
        blocks = _sampled_blocks(X, m1, masks, make_rng(random_state))
    vectors = _solve(X, y, beta, blocks)
    networks, width, fitted, penalty = [], 0, np.zeros(len(y)), 0.0
    for (*_, signs, out), U in zip(blocks, vectors, strict=True):
        size = np.linalg.norm(U, axis=0)
        used = size > 1e-7 * max(np.linalg.norm(y), 1.0)
        if not used.any():
            continue
        U, size, signs = U[:, used], size[used], signs[used]
        total = size.sum()
        share = np.sqrt(size / total)
        W1, w2 = U / size * share, signs * share * np.sqrt(total)
        w3 = out * float(np.sqrt(total))
        networks.append((as_kind(W1, original), as_kind(w2, original), w3))
        width = max(width, len(size))
        fitted += np.maximum(np.maximum(X @ W1, 0) @ w2, 0) * w3
        penalty += total
    residual = fitted - y
    objective = float(0.5 * residual @ residual + beta * penalty)
    return ThreeLayerSolution(objective, networks, width, masks is None)


def _all_blocks(X):
    # One block for every pattern of the second layer and sign of the output, with every
    # pattern of the first layer in both signs.
    n = len(X)
    if n > MOST:
        raise ValueError(
            f"all patterns can be listed for at most {MOST} points, got {n}; "
            "sample them with masks and m1"
        )
    first = enumerate_arrangements(X)
    first = first[:, first.any(axis=0)]
    both = np.column_stack([first, first])
    signs = np.repeat([1.0, -1.0], first.shape[1])
    seconds = np.array(list(np.ndindex(*[2] * n)), dtype=bool)[1:]
    return [(both, second, signs, out) for second in seconds for out in (1.0, -1.0)]


def _sampled_blocks(X, m1, count, rng):
    # Patterns and signs of random networks, each with both output signs.
    blocks = []
    for _ in range(count):
        U, u = rng.standard_normal((X.shape[1], m1)), rng.standard_normal(m1)
        first = X @ U >= 0
        second = np.maximum(X @ U, 0) @ u >= 0
        signs = np.where(u >= 0, 1.0, -1.0)
        blocks += [(first, second, signs, out) for out in (1.0, -1.0)]
    return blocks


def _solve(X, y, beta, blocks):
    # Vectors (d, m) of every block. Products with X are formed once a block.
    import cvxpy as cp

    variables, fitted, penalty, cones = [], 0, 0, []
    for first, second, signs, out in blocks:
        U = cp.Variable((X.shape[1], first.shape[1]))
        H = X @ U
        hidden = cp.multiply(first.astype(float), H) @ signs
        fitted = fitted + cp.multiply(out * second, hidden)
        penalty = penalty + cp.sum(cp.norm(U, 2, axis=0))
        cones.append(cp.multiply(np.where(first, 1.0, -1.0), H) >= 0)
        cones.append(cp.multiply(np.where(second, 1.0, -1.0), hidden) >= 0)
        variables.append(U)
    loss = 0.5 * cp.sum_squares(fitted - y)
    cp.Problem(cp.Minimize(loss + beta * penalty), cones).solve(
        solver=cp.CLARABEL, max_threads=1
    )
    # An interior point leaves the cones of the first layer by a little.
    vectors = []
    for (first, *_), U in zip(blocks, variables, strict=True):
        cone = np.where(first, 1.0, -1.0)
        vectors.append(
            np.column_stack(
                [
                    project_cone(cone[:, j : j + 1] * X, u)
                    for j, u in enumerate(U.value.T)
                ]
            )
        )
    return vectors
