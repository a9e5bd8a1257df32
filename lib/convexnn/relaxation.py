r"""
Gradients that do not die: a convex surrogate for planted ReLU networks.

A sample on which no neuron is active has no gradient. The surrogate loss of Ergen and
Pilanci lets such samples push, and is convex for a single neuron.
"""

from typing import NamedTuple

import numpy as np

from lib._backend import (
    as_float_array,
    as_kind,
    check_choice,
    check_integer,
    check_real,
    check_same_kind,
    is_torch,
    make_rng,
)

__all__ = ["Planted", "fit_planted", "modified_direction", "relaxed_loss"]


class Planted(NamedTuple):
    """
    Result of :func:`fit_planted`.

    Attributes
    ----------
    neurons : ndarray or Tensor of shape (d, m)
        The neurons found.
    objective : float
        Half the squared error of the network.
    history : ndarray of shape (k + 1,)
        The objective before every step and after the last.
    success : bool
        Whether the objective fell to ``tol`` times half the squared norm of y.
    n_iter : int
        Steps taken.
    """

    neurons: object
    objective: float
    history: np.ndarray
    success: bool
    n_iter: int


def relaxed_loss(A, y, x):
    r"""
    Convex surrogate of the squared error of one ReLU neuron, and its gradient.

    .. math:: f_r(x) = \lVert (Ax)_+ \rVert^2 - 2 y^\top A x + \lVert y \rVert^2
       = \lVert (Ax)_+ - y \rVert^2 + 2 y^\top (-Ax)_+

    Parameters
    ----------
    A : array-like or Tensor of shape (n, d)
        Points.
    y : array-like or Tensor of shape (n,)
        Targets, non-negative.
    x : array-like or Tensor of shape (d,)
        The neuron.

    Returns
    -------
    value : float
        The surrogate; at least the squared error.
    gradient : ndarray or Tensor of shape (d,)
        Its gradient 2 A^T ((Ax)_+ - y).

    Raises
    ------
    TypeError
        If a type is wrong.
    ValueError
        If shapes disagree, an entry is not finite or a target is negative: then the
        surrogate has no lower bound.

    Notes
    -----
    It is convex but not strictly: its minimisers are a polyhedron. Its least value is
    that of the squared error where the targets are those of a neuron without noise.

    References
    ----------
    .. [1] T. Ergen and M. Pilanci, "Convex optimization for shallow neural networks",
       Allerton 2019, Proposition 1.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.convexnn import relaxed_loss
    >>> value, gradient = relaxed_loss(np.eye(2), np.array([1.0, 0.0]), np.zeros(2))
    >>> float(value), gradient.tolist()
    (1.0, [-2.0, 0.0])
    """
    A, y = _check(A, y)
    x = as_float_array(x, "x", ndim=1)
    check_same_kind(A, x, ("A", "x"))
    if x.shape[0] != A.shape[1]:
        raise ValueError(f"x must have {A.shape[1]} entries, got {x.shape[0]}")
    h = A @ x
    active = h * (h > 0)
    value = (active * active).sum() - 2 * (y * h).sum() + (y * y).sum()
    return float(value), 2 * (A.T @ (active - y))


def modified_direction(A, y, X):
    r"""
    Gradient of the squared error, repaired where every neuron is off.

    .. math:: d_j = A^\top \Bigl( D_j + \prod_{k=1}^m (I - D_k) \Bigr) r, \qquad
       r = \sum_{j=1}^m (A x_j)_+ - y

    Parameters
    ----------
    A : array-like or Tensor of shape (n, d)
        Points.
    y : array-like or Tensor of shape (n,)
        Targets, non-negative.
    X : array-like or Tensor of shape (d, m)
        Neurons, one a column.

    Returns
    -------
    ndarray or Tensor of shape (d, m)
        The directions; the first term alone is the gradient of half the squared error.

    Raises
    ------
    TypeError
        If a type is wrong.
    ValueError
        If shapes disagree, an entry is not finite or a target is negative.

    Notes
    -----
    If the rows of A are linearly independent, all directions vanish only where the
    error does. A sample counts as off where A x is not positive.

    References
    ----------
    .. [1] T. Ergen and M. Pilanci, "Convex optimization for shallow neural networks",
       Allerton 2019, Section III.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.convexnn import modified_direction
    >>> off = -np.ones((2, 1))
    >>> modified_direction(np.eye(2), np.array([1.0, 2.0]), off).ravel()
    array([-1., -2.])
    """
    A, y = _check(A, y)
    X = as_float_array(X, "X")
    check_same_kind(A, X, ("A", "X"))
    if X.shape[0] != A.shape[1]:
        raise ValueError(f"X must have {A.shape[1]} rows, got {X.shape[0]}")
    return _directions(A, y, X, repaired=True)[0]


def fit_planted(
    A,
    y,
    m,
    method="relaxed",
    *,
    step=None,
    tol=1e-6,
    max_iter=1500,
    init=None,
    random_state=None,
):
    r"""
    Fit m ReLU neurons with unit output weights to the outputs of such a network.

    Parameters
    ----------
    A : array-like or Tensor of shape (n, d)
        Points.
    y : array-like or Tensor of shape (n,)
        Targets, non-negative.
    m : int
        Number of neurons.
    method : {"relaxed", "gd"}, default="relaxed"
        ``"relaxed"``: the repaired direction, for one neuron the gradient of half
        the convex surrogate. ``"gd"``: the gradient of half the squared error.
    step : float, optional
        Step size; by default one over twice m times the squared spectral norm of A,
        without the two for one neuron.
    tol : float, default=1e-6
        Objective to reach, relative to half the squared norm of ``y``.
    max_iter : int, default=1500
        Most steps.
    init : array-like or Tensor of shape (d, m), optional
        Start; standard normal by default.
    random_state : int, Generator, RandomState or None, default=None
        Source of the start.

    Returns
    -------
    Planted
        Neurons, objective, history, success and number of steps.

    Raises
    ------
    TypeError
        If a type is wrong.
    ValueError
        If shapes disagree, an entry is not finite, a target is negative or a parameter
        is out of range.

    Notes
    -----
    A step takes O(n d m). The true network is found up to a relabelling only where
    n is large enough; with n <= d many networks fit.

    References
    ----------
    .. [1] T. Ergen and M. Pilanci, "Convex optimization for shallow neural networks",
       Allerton 2019, Section IV.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.convexnn import fit_planted
    >>> A = np.random.default_rng(0).standard_normal((10, 20))
    >>> y = np.maximum(A @ np.ones(20), 0)
    >>> fit_planted(A, y, 1, random_state=0).success
    True
    """
    A, y = _check(A, y)
    check_integer("m", m)
    check_choice("method", method, ("relaxed", "gd"))
    check_real("tol", tol)
    check_integer("max_iter", max_iter)
    if step is None:
        step = 1.0 / ((2 * m if m > 1 else 1) * max(_norm(A) ** 2, 1e-300))
    check_real("step", step)
    if init is None:
        init = make_rng(random_state).standard_normal((A.shape[1], m))
        X = as_kind(init, A)
    else:
        X = as_float_array(init, "init")
        check_same_kind(A, X, ("A", "init"))
        if tuple(X.shape) != (A.shape[1], m):
            raise ValueError(
                f"init must have the shape {(A.shape[1], m)}, got {tuple(X.shape)}"
            )
    aim = tol * 0.5 * float((y * y).sum())
    history = []
    for k in range(max_iter + 1):
        direction, r = _directions(A, y, X, repaired=method == "relaxed")
        history.append(0.5 * float((r * r).sum()))
        if history[-1] <= aim or not np.isfinite(history[-1]) or k == max_iter:
            break
        X = X - step * direction
    return Planted(X, history[-1], np.array(history), history[-1] <= aim, k)


def _directions(A, y, X, repaired):
    H = A @ X
    on = H > 0
    r = (H * on).sum(1) - y
    weights = on | (~on.any(1))[:, None] if repaired else on
    return A.T @ (weights * r[:, None]), r


def _norm(A):
    if is_torch(A):
        import torch

        return float(torch.linalg.matrix_norm(A, 2))
    return float(np.linalg.norm(A, 2))


def _check(A, y):
    A, y = as_float_array(A, "A"), as_float_array(y, "y", ndim=1)
    check_same_kind(A, y, ("A", "y"))
    if A.shape[0] != y.shape[0] or A.shape[0] * A.shape[1] == 0:
        raise ValueError(
            "A and y must have the same positive number of rows, got shapes "
            f"{tuple(A.shape)} and {tuple(y.shape)}"
        )
    if float(y.min()) < 0:
        raise ValueError(f"y must be non-negative, got an entry {float(y.min()):.3g}")
    return A, y
