r"""
Networks whose optimal weights have a formula.

Convex duality gives the layers of a regularised network in closed form where the inner
maximisation has one: linear networks, and ReLU networks on data of rank one or with
orthonormal rows. All problems here are

.. math:: \min \tfrac12 \lVert f(X) - y \rVert^2
   + \tfrac{\beta}{2} \sum_{j, l} \lVert W_{l,j} \rVert_F^2 .
"""

from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from lib._backend import (
    as_float_array,
    as_kind,
    check_integer,
    check_real,
    check_same_kind,
    is_torch,
    to_numpy,
)

__all__ = [
    "Solution",
    "deep_linear",
    "deep_relu_rank_one",
    "deep_relu_whitened",
    "project_dual_ball",
    "two_layer_linear",
]

#: Largest entry of XX^T - I of data that count as whitened; of the part of data that
#: rank one leaves over, relative.
WHITE, RANK = 1e-6, 1e-9


class Solution(NamedTuple):
    """
    Optimal network.

    Attributes
    ----------
    weights : list of list of (ndarray or Tensor)
        For each parallel branch its layers, each with inputs as rows.
    objective : float
        Regularised objective of these weights.
    certificate : float
        Lower bound on the objective of every network with these layers.
    """

    weights: list
    objective: float
    certificate: float


def project_dual_ball(X, y, beta):
    r"""
    Project targets on the dual feasible set of a linear network.

    .. math:: \arg\min_u \lVert u - y \rVert \quad
       \text{s.t.} \quad \sigma_{\max}(X^\top u) \le \beta

    Parameters
    ----------
    X : array-like or Tensor of shape (n, d)
        Points.
    y : array-like or Tensor of shape (n,) or (n, K)
        Targets. For a vector the constraint is the Euclidean norm of X^T u.
    beta : float
        Radius, >= 0.

    Returns
    -------
    ndarray or Tensor of shape (n,) or (n, K)
        The projection; ``y`` itself where it is feasible.

    Raises
    ------
    TypeError
        If a type is wrong.
    ValueError
        If shapes disagree, an entry is not finite or ``beta`` is negative.

    Notes
    -----
    For a vector the answer is (I + mu X X^T)^-1 y, with the multiplier mu from a scalar
    equation after one singular value decomposition. For a matrix it is the residual of
    nuclear-norm regression, which accelerated proximal gradient finds.

    References
    ----------
    .. [1] T. Ergen and M. Pilanci, "Revealing the structure of deep neural networks via
       convex duality", ICML 2021, Theorems 2.2 and 2.4.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.convexnn import project_dual_ball
    >>> project_dual_ball(np.eye(2), np.array([3.0, 4.0]), 1.0).round(6)
    array([0.6, 0.8])
    """
    original = X
    X, y = _check(X, y, (1, 2))
    check_real("beta", beta, allow_zero=True)
    if y.ndim == 1:
        answer = y - X @ _group_ridge(X, y, beta)
    else:
        answer = y - X @ _nuclear_regression(X, y, beta)
    return as_kind(answer, original)


def two_layer_linear(X, Y, beta):
    r"""
    Train a two-layer linear network to its global optimum.

    .. math:: \min_W \tfrac12 \lVert X W - Y \rVert_F^2 + \beta \lVert W \rVert_*

    is the same problem, and its solution is split by singular values.

    Parameters
    ----------
    X : array-like or Tensor of shape (n, d)
        Points.
    Y : array-like or Tensor of shape (n,) or (n, K)
        Targets.
    beta : float
        Weight decay, > 0.

    Returns
    -------
    Solution
        One branch of two layers, of shapes (d, r) and (r, K) or (r,), where r is the
        rank of the solution and at least 1.

    Raises
    ------
    TypeError
        If a type is wrong.
    ValueError
        If shapes disagree, an entry is not finite or ``beta`` is not positive.

    Notes
    -----
    For a vector, the network is zero if the norm of X^T y is at most ``beta``. The
    certificate is the value of the dual at the residual, shrunk into its feasible set.

    References
    ----------
    .. [1] T. Ergen and M. Pilanci, "Revealing the structure of deep neural networks via
       convex duality", ICML 2021, Theorems 2.2 and 2.4.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.convexnn import two_layer_linear
    >>> network = two_layer_linear(np.eye(2), np.array([3.0, 4.0]), 1.0)
    >>> round(network.objective, 6)
    4.5
    """
    original = X
    X, Y = _check(X, Y, (1, 2))
    check_real("beta", beta)
    if Y.ndim == 1:
        W = _group_ridge(X, Y, beta)[:, None]
    else:
        W = _nuclear_regression(X, Y, beta)
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    kept = s > 1e-12 * max(s.max(), 1e-300)
    kept[0] = True
    first, second = U[:, kept] * np.sqrt(s[kept]), np.sqrt(s[kept])[:, None] * Vt[kept]
    residual = Y - (X @ W if Y.ndim == 2 else X @ W[:, 0])
    objective = 0.5 * (residual**2).sum() + beta * s[kept].sum()
    size = np.linalg.norm(X.T @ residual, 2)
    v = residual * min(1.0, beta / max(size, 1e-300))
    dual = (v * Y).sum() - 0.5 * (v * v).sum()
    second = second if Y.ndim == 2 else second[:, 0]
    layers = [as_kind(first, original), as_kind(second, original)]
    return Solution([layers], float(objective), float(min(dual, objective)))


def deep_linear(X, y, beta, depth, *, widths=None):
    r"""
    Train a linear network of any depth with one output to its global optimum.

    .. math:: \min_w \tfrac12 \lVert X w - y \rVert^2
       + \beta \tfrac{L}{2} \lVert w \rVert^{2/L}

    is the same problem. The layers are of rank one, aligned, and all have the norm
    :math:`t = \lVert w \rVert^{1/L}`.

    Parameters
    ----------
    X : array-like or Tensor of shape (n, d)
        Points.
    y : array-like or Tensor of shape (n,)
        Targets.
    beta : float
        Weight decay, > 0.
    depth : int
        Number of layers L, at least 2.
    widths : sequence of int, optional
        Widths of the L - 1 hidden layers; 1 each by default.

    Returns
    -------
    Solution
        One branch of L layers.

    Raises
    ------
    TypeError
        If a type is wrong.
    ValueError
        If shapes disagree, an entry is not finite, ``beta`` is not positive, ``depth``
        is below 2 or there are not L - 1 widths.

    Notes
    -----
    For a given norm of w the problem is a regression; that leaves one unknown. Its
    problem has several local minima for L > 2, zero among them, and is solved by
    branch and bound: the loss is convex in the norm, so that tangents bound it, and the
    penalty is concave, so that chords do. The certificate is the least of these bounds.

    References
    ----------
    .. [1] T. Ergen and M. Pilanci, "Revealing the structure of deep neural networks via
       convex duality", ICML 2021, Theorem 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.convexnn import deep_linear
    >>> network = deep_linear(np.eye(2), np.array([3.0, 4.0]), 0.1, 3)
    >>> sizes = [np.linalg.norm(layer) for layer in network.weights[0]]
    >>> np.allclose(sizes, sizes[0])
    True
    """
    original = X
    X, y = _check(X, y, (1,))
    check_real("beta", beta)
    check_integer("depth", depth, minimum=2)
    widths = _check_widths(widths, depth)
    w, objective, bound = _deep_regression(X, y, beta, depth)
    layers = _aligned_layers(w, depth, widths)
    return Solution([[as_kind(a, original) for a in layers]], objective, bound)


def deep_relu_rank_one(X, y, beta, depth, *, widths=None):
    r"""
    Train a deep ReLU network on non-negative multiples of one vector.

    The data are :math:`X = c a^\top` with :math:`c \ge 0`.

    Parameters
    ----------
    X : array-like or Tensor of shape (n, d)
        Points, all non-negative multiples of one vector.
    y : array-like or Tensor of shape (n,)
        Targets.
    beta : float
        Weight decay, > 0.
    depth : int
        Number of layers L, at least 2.
    widths : sequence of int, optional
        Widths of the L - 1 hidden layers; 1 each by default.

    Returns
    -------
    Solution
        One branch of L layers, ReLU after all but the last.

    Raises
    ------
    TypeError
        If a type is wrong.
    ValueError
        If ``X`` is not of rank one, has multiples of both signs, or an argument is out
        of range.

    Notes
    -----
    With non-negative multiples a neuron is active on all points or on none, so that the
    network is linear and its problem the scalar one of :func:`deep_linear`.

    References
    ----------
    .. [1] T. Ergen and M. Pilanci, "Revealing the structure of deep neural networks via
       convex duality", ICML 2021, Theorem 4.1.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.convexnn import deep_relu_rank_one
    >>> X = np.outer([1.0, 2.0], [0.6, 0.8])
    >>> network = deep_relu_rank_one(X, np.array([-1.0, -2.0]), 0.1, 2)
    >>> network.objective < 2.5
    True
    """
    original = X
    X, y = _check(X, y, (1,))
    check_real("beta", beta)
    check_integer("depth", depth, minimum=2)
    widths = _check_widths(widths, depth)
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    if s[0] == 0 or (len(s) > 1 and s[1] > RANK * s[0]):
        raise ValueError(f"X must be of rank one, got singular values {s[:2]}")
    c, a = s[0] * U[:, 0], Vt[0]
    if c.sum() < 0:
        c, a = -c, -a
    if c.min() < -RANK * c.max():
        raise ValueError(
            "X must have non-negative multiples of one vector as rows, got both signs: "
            "the formula is not optimal for them"
        )
    w, objective, bound = _deep_regression(c[:, None], y, beta, depth)
    sign, size = np.sign(w[0]), abs(w[0])
    layers = _aligned_layers(size * a, depth, widths)
    layers[-1] = sign * layers[-1]
    return Solution([[as_kind(b, original) for b in layers]], objective, bound)


def deep_relu_whitened(X, Y, beta, depth):
    r"""
    Deep ReLU network by a formula for data with orthonormal rows, a branch an output.

    Every column :math:`y_k \ge 0` of the targets has a branch of its own, the best of
    its kind,

    .. math:: s_k = \arg\min_{s \ge 0} \tfrac12 (\lVert y_k \rVert - s)^2
       + \beta \tfrac{L}{2} s^{2/L}, \qquad
       f_k(x) = s_k \Bigl( x^\top \frac{X^\top y_k}{\lVert y_k \rVert} \Bigr)_+ .

    Parameters
    ----------
    X : array-like or Tensor of shape (n, d)
        Points with X X^T = I; this needs n <= d.
    Y : array-like or Tensor of shape (n, K)
        Non-negative targets with orthogonal columns, such as one-hot labels.
    beta : float
        Weight decay, > 0.
    depth : int
        Number of layers L, at least 2.

    Returns
    -------
    Solution
        K branches of L layers; the last layer of a branch feeds its own output only.

    Raises
    ------
    TypeError
        If a type is wrong.
    ValueError
        If the rows are not orthonormal, a target is negative, columns of the targets
        are not orthogonal, or an argument is out of range.

    Notes
    -----
    Put side by side, the branches are the blocks of one network with K neurons a layer.

    For two layers no network costs less, and the certificate says so. For more the
    paper states the same, but networks whose outputs share narrow hidden layers may
    cost less: three points with three one-hot targets from depth 5 on. The certificate
    is then the bound that survives. The norm of the outputs is at most the product of
    the layers' norms, so that all outputs together cost at least what one target of
    norm :math:`\lVert Y \rVert_F` costs.

    References
    ----------
    .. [1] T. Ergen and M. Pilanci, "Revealing the structure of deep neural networks via
       convex duality", ICML 2021, Theorem 4.3.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.convexnn import deep_relu_whitened
    >>> network = deep_relu_whitened(np.eye(3), np.eye(3), 0.1, 2)
    >>> len(network.weights), round(network.objective, 3)
    (3, 0.285)
    """
    original = X
    X, Y = _check(X, Y, (2,))
    check_real("beta", beta)
    check_integer("depth", depth, minimum=2)
    gap = np.abs(X @ X.T - np.eye(len(X))).max()
    if gap > WHITE:
        raise ValueError(
            f"X must have orthonormal rows, but an entry of XX^T - I is {gap:.3g}"
        )
    if Y.min() < 0:
        raise ValueError(f"Y must be non-negative, got an entry {Y.min():.3g}")
    inner = Y.T @ Y
    if np.abs(inner - np.diag(np.diag(inner))).max() > WHITE * max(inner.max(), 1e-300):
        raise ValueError("Y must have orthogonal columns")
    branches, objective, bound = [], 0.0, 0.0
    for k, y in enumerate(Y.T):
        size = np.linalg.norm(y)
        s, value, lower = _deep_regression(np.eye(1), np.array([size]), beta, depth)
        objective, bound = objective + value, bound + lower
        direction = X.T @ y / max(size, 1e-300)
        layers = _aligned_layers(s[0] * direction, depth, [1] * (depth - 1))
        last = np.zeros((1, Y.shape[1]))
        last[0, k] = layers[-1][0]
        layers[-1] = last
        branches.append([as_kind(a, original) for a in layers])
    if depth > 2:
        whole = np.array([np.linalg.norm(Y)])
        bound = _deep_regression(np.eye(1), whole, beta, depth)[2]
    return Solution(branches, objective, min(bound, objective))


def _check(X, y, ndim):
    # Points and targets as float64 arrays of numpy.
    if is_torch(X) or is_torch(y):
        check_same_kind(X, y, ("X", "y"))
    X, y = as_float_array(X, "X"), as_float_array(y, "y", ndim=ndim)
    if X.shape[0] != y.shape[0] or X.shape[0] * X.shape[1] == 0:
        raise ValueError(
            "X and y must have the same positive number of rows, got shapes "
            f"{tuple(X.shape)} and {tuple(y.shape)}"
        )
    return to_numpy(X).astype(np.float64), to_numpy(y).astype(np.float64)


def _check_widths(widths, depth):
    widths = [1] * (depth - 1) if widths is None else list(widths)
    if len(widths) != depth - 1:
        raise ValueError(f"widths must have {depth - 1} entries, got {len(widths)}")
    for width in widths:
        check_integer("widths", width)
    return widths


def _group_ridge(X, y, beta):
    # argmin_w 1/2 |Xw - y|^2 + beta |w|: w = (X'X + beta / |w|)^-1 X'y, so that the
    # norm solves a scalar equation.
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    b = s * (U.T @ y)
    if np.linalg.norm(b) <= beta:
        return np.zeros(X.shape[1])
    kept = s > 1e-14 * s[0]
    b, s, Vt = b[kept], s[kept], Vt[kept]
    if beta == 0:
        return Vt.T @ (b / s**2)

    # In the multiplier mu = |w| / beta of the projection: |(I + mu S^2)^-1 b| = beta.
    def excess(log_mu):
        mu = np.exp(log_mu)
        return np.log(np.linalg.norm(b / (1 + mu * s**2)) / beta)

    low, high = np.log(1e-3 / s[0] ** 2), np.log(1.0 / s[-1] ** 2)
    while excess(low) < 0:
        low -= 5.0
    while excess(high) > 0:
        high += 5.0
    mu = np.exp(brentq(excess, low, high, xtol=1e-14, rtol=1e-15, maxiter=500))
    return Vt.T @ (mu * b / (1 + mu * s**2))


def _nuclear_regression(X, Y, beta, tol=1e-13, max_iter=20000):
    # argmin_W 1/2 |XW - Y|^2 + beta |W|_* by accelerated proximal gradient with
    # restarts, to a relative duality gap.
    gram, cross = X.T @ X, X.T @ Y
    step = 1.0 / max(np.linalg.norm(gram, 2), 1e-300)
    W = V = np.zeros(cross.shape)
    t, square = 1.0, (Y * Y).sum()
    for k in range(max_iter):
        P, s, Qt = np.linalg.svd(V - step * (gram @ V - cross), full_matrices=False)
        s = np.maximum(s - step * beta, 0.0)
        new = (P * s) @ Qt
        if k % 10 == 0:
            residual = Y - X @ new
            size = np.linalg.norm(X.T @ residual, 2)
            v = residual * min(1.0, beta / max(size, 1e-300))
            objective = 0.5 * (residual**2).sum() + beta * s.sum()
            if objective - (v * Y).sum() + 0.5 * (v * v).sum() <= tol * square:
                return new
        if ((V - new) * (new - W)).sum() > 0:
            t = 1.0
        following = (1 + np.sqrt(1 + 4 * t * t)) / 2
        V = new + (t - 1) / following * (new - W)
        W, t = new, following
    return W


def _deep_regression(X, y, beta, depth):
    # (w, value, lower bound) of min_w 1/2 |Xw - y|^2 + beta (L/2) |w|^(2/L).
    L = depth
    if L == 2:
        w = _group_ridge(X, y, beta)
        residual = y - X @ w
        size = np.linalg.norm(X.T @ residual)
        v = residual * min(1.0, beta / max(size, 1e-300))
        value = 0.5 * residual @ residual + beta * np.linalg.norm(w)
        return w, float(value), float(min(y @ v - 0.5 * v @ v, value))

    fit = _NormConstrained(X, y)

    def total(r):
        return fit(r)[0] + beta * L / 2 * r ** (2 / L)

    def lower(left, right):
        # The loss is convex, so above its tangents; the penalty is concave, so above
        # its chord. The least value is at an end or where the tangents meet.
        (r0, f0, d0, p0), (r1, f1, d1, p1) = left, right
        chord = (p1 - p0) / (r1 - r0)
        corners = [r0, r1]
        if d1 > d0:
            corners.append(np.clip((f0 - d0 * r0 - f1 + d1 * r1) / (d1 - d0), r0, r1))
        return min(
            max(f0 + d0 * (r - r0), f1 + d1 * (r - r1)) + p0 + chord * (r - r0)
            for r in corners
        )

    def point(r):
        return r, *fit(r), beta * L / 2 * r ** (2 / L)

    # Branch and bound over the norm; a norm beyond the least-squares solution's costs
    # more and gains nothing.
    points = [point(r) for r in fit.largest * np.linspace(0.0, 1.0, 33) ** 2]
    best = min(p[1] + p[3] for p in points)
    queue = [(lower(*pair), *pair) for pair in pairwise(points)] if fit.largest else []
    heapify(queue)
    while queue and best - queue[0][0] > 1e-13 * best and len(queue) < 10**4:
        _, left, right = heappop(queue)
        middle = point((left[0] + right[0]) / 2)
        points.append(middle)
        best = min(best, middle[1] + middle[3])
        for pair in ((left, middle), (middle, right)):
            heappush(queue, (lower(*pair), *pair))
    bound = min(best, queue[0][0]) if queue else best
    points.sort()
    i = int(np.argmin([p[1] + p[3] for p in points]))
    r = points[i][0]
    if r > 0:
        # Where the slopes of loss and penalty cancel, to machine precision.
        def slope(r):
            return fit(r)[1] + beta * r ** (2 / L - 1)

        ends = [p[0] for p in points[max(i - 1, 1) : i + 2]]
        if slope(ends[0]) < 0 < slope(ends[-1]):
            r = brentq(slope, ends[0], ends[-1], rtol=1e-15)
        r = min(r, points[i][0], key=total)
    return fit.weights(r), float(total(r)), float(min(bound, total(r)))


class _NormConstrained:
    # Least squares over |w| <= r as a function of r: value and slope.
    def __init__(self, X, y):
        U, s, self.Vt = np.linalg.svd(X, full_matrices=False)
        self.kept = s > 1e-13 * max(s[0], 1e-300)
        self.s2 = s[self.kept] ** 2
        self.b = (s * (U.T @ y))[self.kept]
        self.square = y @ y
        self.largest = float(np.linalg.norm(self.b / self.s2))

    def multiplier(self, r):
        if r >= self.largest:
            return 0.0
        size = np.linalg.norm(self.b)

        def excess(log_nu):
            return np.log(np.linalg.norm(self.b / (self.s2 + np.exp(log_nu))) / r)

        high = np.log(size / r)  # there the norm is below r
        low = high - 5.0
        while excess(low) < 0:
            low -= 5.0
        return np.exp(brentq(excess, low, high, xtol=1e-15, rtol=1e-15, maxiter=500))

    def coefficients(self, r):
        return self.b / (self.s2 + self.multiplier(r)) if r > 0 else 0.0 * self.b

    def weights(self, r):
        return self.Vt[self.kept].T @ self.coefficients(r)

    def __call__(self, r):
        z = self.coefficients(r)
        loss = 0.5 * (self.square - 2 * self.b @ z + self.s2 @ z**2)
        return max(loss, 0.0), -float(np.linalg.norm(self.b - self.s2 * z))


def _aligned_layers(w, depth, widths):
    # Layers of rank one with product w, all of the Frobenius norm |w|^(1/L): unit
    # vectors of equal entries connect them.
    size = np.linalg.norm(w)
    t = size ** (1 / depth)
    ends = [w / max(size, 1e-300), *[np.full(m, m**-0.5) for m in widths]]
    layers = [t * np.outer(u, v) for u, v in pairwise(ends)]
    return [*layers, t * ends[-1]]
