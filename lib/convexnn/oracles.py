r"""
The inner maximisation that every convex network needs: the neuron that fits best.

.. math:: \max_{\lVert u \rVert \le 1} \lvert g^\top (A u)_+ \rvert

It is the linear minimisation oracle of Frank-Wolfe, the pricing step of column
generation, and, for sign units, the training of a weighted linear classifier. Only an
exact answer certifies a duality gap.
"""

import warnings
from typing import NamedTuple

import numpy as np

from lib._backend import (
    as_float_array,
    as_kind,
    check_choice,
    check_integer,
    check_same_kind,
    is_torch,
    make_rng,
    to_numpy,
)
from lib.convexnn.arrangements import enumerate_arrangements

__all__ = [
    "LMO",
    "LinearClassifier",
    "project_cone",
    "relu_lmo",
    "weighted_linear_classifier",
]

#: Largest violation of the optimality conditions of a projection, relative.
TOL = 1e-9

METHODS = ("exact", "sign_cone", "local", "gates")


class LMO(NamedTuple):
    """
    Answer of a ReLU oracle.

    Attributes
    ----------
    value : float
        Largest absolute correlation found.
    u : ndarray or Tensor of shape (d,)
        The neuron, a unit vector; zero where no neuron correlates.
    sign : int
        +1 or -1: the sign of the correlation.
    exact : bool
        Whether no neuron does better. If not, ``value`` is a lower bound and
        certifies nothing.
    """

    value: float
    u: object
    sign: int
    exact: bool


class LinearClassifier(NamedTuple):
    """
    Answer of a sign-unit oracle.

    Attributes
    ----------
    value : float
        Sum of the weights, each with the sign of its side.
    v : ndarray or Tensor of shape (d + 1,)
        Normal and offset of the hyperplane.
    exact : bool
        Whether no hyperplane does better.
    """

    value: float
    v: object
    exact: bool


def project_cone(B, c):
    r"""
    Project a vector on the polyhedral cone of a set of inequalities.

    .. math:: \arg\min_u \lVert u - c \rVert \quad \text{s.t.} \quad B u \ge 0

    Parameters
    ----------
    B : ndarray of shape (n, d)
        Inequalities.
    c : ndarray of shape (d,)
        The vector.

    Returns
    -------
    ndarray of shape (d,)
        The projection.

    Raises
    ------
    RuntimeError
        If neither solver meets the optimality conditions.

    Notes
    -----
    The dual is a non-negative least-squares problem, and the answer is c plus the
    transpose of B times its solution. ``scipy.optimize.nnls`` returns points that are
    not optimal on some degenerate cones without saying so, so its answer is checked
    (feasible, complementary) and recomputed by ``lsq_linear`` where it fails.

    References
    ----------
    .. [1] C. L. Lawson and R. J. Hanson, "Solving Least Squares Problems", SIAM 1995,
       Chapter 23.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.convexnn import project_cone
    >>> project_cone(np.eye(2), np.array([1.0, -2.0])).round(6)
    array([1., 0.])
    """
    from scipy.optimize import lsq_linear, nnls

    B, c = np.asarray(B, dtype=np.float64), np.asarray(c, dtype=np.float64)
    size = np.linalg.norm(c)
    if size == 0 or (B @ c).min(initial=0.0) >= 0:
        return c.copy()
    scale = np.linalg.norm(B, axis=1)
    rows = scale > 0
    B, c = B[rows] / scale[rows, None], c / size
    try:
        u = c + B.T @ nnls(B.T, -c)[0]
        if _is_projection(B, c, u):
            return size * u
    except RuntimeError:  # too many iterations
        pass
    answer = lsq_linear(B.T, -c, bounds=(0, np.inf), method="bvls", tol=1e-15)
    u = c + B.T @ answer.x
    if not _is_projection(B, c, u):
        raise RuntimeError(f"no projection found on a cone of shape {B.shape}")
    return size * u


def _is_projection(B, c, u):
    # u is the sum of c and a cone of the rows by construction: what is left to
    # check is that it is feasible and orthogonal to its difference from c.
    return (B @ u).min(initial=0.0) >= -TOL and abs(u @ (u - c)) <= TOL


def relu_lmo(A, g, method="exact", masks=None, *, n_starts=64, random_state=None):
    r"""
    Find the unit neuron whose activation correlates most with a vector.

    .. math:: \max_{\lVert u \rVert \le 1} \lvert g^\top (A u)_+ \rvert

    Parameters
    ----------
    A : array-like or Tensor of shape (n, d)
        Points.
    g : array-like or Tensor of shape (n,)
        The vector, a residual or a gradient.
    method : {"exact", "sign_cone", "local", "gates"}, default="exact"
        ``"exact"``: all activation patterns; on each the neuron is a projection on a
        cone. ``"sign_cone"``: only the two patterns given by the signs of ``g``;
        exact where the rows of ``A`` are orthonormal. ``"local"``: ascent from random
        starts. ``"gates"``: the patterns in ``masks``.
    masks : array-like or Tensor of bool, shape (n, P), optional
        Patterns for ``"gates"``, or for ``"exact"`` all of them, where they are known
        already.
    n_starts : int, default=64
        Starts of ``"local"``.
    random_state : int, Generator, RandomState or None, default=None
        Source of the starts.

    Returns
    -------
    LMO
        The value, the neuron, the sign and whether the answer is exact.

    Raises
    ------
    TypeError
        If a type is wrong.
    ValueError
        If a shape or the method is wrong, an entry is not finite, ``"gates"`` comes
        without ``masks``, or ``"exact"`` meets more patterns than can be listed.

    Notes
    -----
    On the pattern D the best neuron is the projection of A^T D g, or of its negative,
    on the cone of neurons with this pattern. Patterns are visited by falling length of
    A^T D g, which bounds what they can give, and the search stops when the bound falls
    below the best value.

    References
    ----------
    .. [1] A. d'Aspremont and M. Pilanci, "Global convergence of Frank Wolfe on one
       hidden layer networks", 2020, Section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.convexnn import relu_lmo
    >>> answer = relu_lmo(np.eye(2), np.array([3.0, -4.0]))
    >>> answer.value, answer.sign, answer.exact
    (4.0, -1, True)
    """
    original = A
    A, g = _check_oracle(A, g, "g")
    check_choice("method", method, METHODS)
    exact = method == "exact"
    if method == "gates" and masks is None:
        raise ValueError('method="gates" needs masks')
    if method == "sign_cone":
        masks = np.column_stack([g > 0, g < 0])
        exact = len(A) <= A.shape[1] and bool(
            np.abs(A @ A.T - np.eye(len(A))).max() < TOL
        )
    elif method == "local":
        check_integer("n_starts", n_starts)
        masks = _local_patterns(A, g, n_starts, make_rng(random_state))
    elif masks is None:
        masks = enumerate_arrangements(A)
    masks = _check_masks(masks, len(A))
    best = _best_on_masks(A, g, masks)
    return LMO(best[0], as_kind(best[1], original), best[2], exact)


def _check_oracle(A, g, name):
    # Points and weights as float64 arrays of numpy.
    if is_torch(A) or is_torch(g):
        check_same_kind(A, g, ("A", name))
    A, g = as_float_array(A, "A"), as_float_array(g, name, ndim=1)
    if A.shape[0] != g.shape[0] or A.shape[0] * A.shape[1] == 0:
        raise ValueError(
            f"A and {name} must have the same positive number of rows, got shapes "
            f"{tuple(A.shape)} and {tuple(g.shape)}"
        )
    return to_numpy(A).astype(np.float64), to_numpy(g).astype(np.float64)


def _check_masks(masks, n):
    masks = to_numpy(masks)
    if masks.ndim != 2 or len(masks) != n or masks.shape[1] == 0:
        raise ValueError(
            f"masks must be of shape ({n}, P) with P >= 1, got {masks.shape}"
        )
    if masks.dtype != bool:
        raise TypeError(f"masks must be boolean, got {masks.dtype}")
    return masks


def _best_on_masks(A, g, masks, floor=0.0):
    # (value, unit neuron, sign) over the cells of the patterns; nothing above the
    # floor is (0, zero vector, 1).
    directions = A.T @ (masks * g[:, None])
    length = np.linalg.norm(directions, axis=0)
    value, neuron, sign = floor, np.zeros(A.shape[1]), 1
    for i in np.argsort(-length):
        if length[i] <= value:
            break
        B = np.where(masks[:, i], 1.0, -1.0)[:, None] * A
        for s in (1, -1):
            u = project_cone(B, s * directions[:, i])
            size = np.linalg.norm(u)
            if size > value:
                value, neuron, sign = size, u / size, s
    return (float(value) if neuron.any() else 0.0), neuron, sign


def _local_patterns(A, g, n_starts, rng, n_steps=60):
    # Patterns that normalised ascent with falling steps passes through at its best.
    U = rng.standard_normal((A.shape[1], n_starts))
    U = np.column_stack([U, A.T @ np.maximum(g, 0), A.T @ np.maximum(-g, 0)])
    size = np.linalg.norm(U, axis=0)
    U = U[:, size > 0] / size[size > 0]
    best, found = np.full(U.shape[1], -1.0), A @ U > 0
    for step in range(1, n_steps + 1):
        H = A @ U
        value = g @ np.maximum(H, 0)
        better = np.abs(value) > best
        best[better], found[:, better] = np.abs(value[better]), H[:, better] > 0
        slope = np.sign(value) * (A.T @ ((H > 0) * g[:, None]))
        size = np.maximum(np.linalg.norm(slope, axis=0), np.finfo(float).tiny)
        U = U + slope / size / np.sqrt(step)
        U = U / np.linalg.norm(U, axis=0)
    return np.unique(found, axis=1)


def weighted_linear_classifier(X, q, method="auto", *, random_state=None):
    r"""
    Find the hyperplane that classifies weighted points best.

    .. math:: \max_{v} \sum_t q_t \, \mathrm{sign}(v^\top \tilde x_t), \qquad
       \tilde x_t = (x_t, 1)

    Parameters
    ----------
    X : array-like or Tensor of shape (n, d)
        Points.
    q : array-like or Tensor of shape (n,)
        Weights; the sign is the class wanted, the size what it is worth.
    method : {"auto", "exact", "logistic"}, default="auto"
        ``"exact"``: in the plane a sweep of lines through pairs of points, elsewhere
        all patterns. ``"logistic"``: weighted logistic regression, an approximation.
        ``"auto"``: exact in one and two dimensions, else logistic.
    random_state : int, Generator, RandomState or None, default=None
        Unused by the methods here; kept so that oracles are called alike.

    Returns
    -------
    LinearClassifier
        The value, the hyperplane and whether it is the best. No point lies on it.

    Raises
    ------
    TypeError
        If a type is wrong.
    ValueError
        If a shape or the method is wrong or an entry is not finite.

    Notes
    -----
    The sweep takes O(n^2 log n): around each point the others are sorted by angle, and
    the value changes by twice a weight where the line meets a point. Logistic
    regression bounds the number of errors from above and ignores which points are
    beyond saving.

    References
    ----------
    .. [1] Y. Bengio et al., "Convex neural networks", NeurIPS 2005, Section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.convexnn import weighted_linear_classifier
    >>> X = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> weighted_linear_classifier(X, np.array([1.0, -1.0, -1.0, 1.0])).value
    2.0
    """
    original = X
    X, q = _check_oracle(X, q, "q")
    check_choice("method", method, ("auto", "exact", "logistic"))
    if method == "auto":
        method = "exact" if X.shape[1] <= 2 else "logistic"
    constant = np.zeros(X.shape[1] + 1)
    constant[-1] = 1.0 if q.sum() >= 0 else -1.0
    candidates = [constant]
    if method == "logistic":
        candidates.append(_logistic(X, q))
    elif X.shape[1] == 2:
        candidates.append(_sweep(X, q))
    else:
        masks, gates = enumerate_arrangements(X, bias=True, return_gates=True)
        candidates.append(gates[:, np.argmax(q @ np.where(masks, 1.0, -1.0))])
    lifted = np.column_stack([X, np.ones(len(X))])
    values = [q @ np.sign(lifted @ v) for v in candidates]
    best = int(np.argmax(values))
    return LinearClassifier(
        float(values[best]), as_kind(candidates[best], original), method == "exact"
    )


def _sweep(X, q):
    # Best line in the plane: every pattern can be had by a line that turns around one
    # of the points and leaves all others on their sides.
    X, inverse = np.unique(X, axis=0, return_inverse=True)
    q = np.bincount(inverse.ravel(), weights=q, minlength=len(X))
    best, answer = -np.inf, np.array([0.0, 0.0, 1.0])
    if len(X) == 1:
        return answer
    for i, (x, weight) in enumerate(zip(X, q, strict=True)):
        others = np.delete(X, i, axis=0) - x
        angle = np.arctan2(others[:, 1], others[:, 0])
        side = np.where(angle >= 0, 1.0, -1.0)  # of a line just below angle zero
        side[angle == np.pi] = -1.0
        angle = np.mod(angle, np.pi)
        angle[np.pi - angle < 1e-14] = 0.0
        order = np.argsort(angle)
        signed = (np.delete(q, i) * side)[order]
        angle = angle[order]
        total = signed.sum() - 2 * np.cumsum(signed)
        last = np.append(np.diff(angle) > 1e-12, True)  # points in line flip at once
        value = np.abs(total[last]) + abs(weight)
        k = int(np.argmax(value))
        if value[k] <= best:
            continue
        best = value[k]
        ends = angle[last]
        following = np.append(ends[1:], ends[0] + np.pi)
        turn = (ends[k] + following[k]) / 2
        normal = np.array([-np.sin(turn), np.cos(turn)])
        normal *= 1.0 if total[last][k] >= 0 else -1.0
        gap = np.abs(others @ normal).min() / 2
        offset = -normal @ x + (gap if weight >= 0 else -gap)
        answer = np.append(normal, offset)
    return answer


def _logistic(X, q):
    # Weighted logistic regression without penalty worth mentioning.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    used = q != 0
    labels = q[used] > 0
    if labels.size == 0 or labels.all() or not labels.any():
        sign = -1.0 if labels.size and not labels.any() else 1.0
        return np.append(np.zeros(X.shape[1]), sign)
    weights = np.abs(q[used])
    model = LogisticRegression(C=1e4, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X[used], labels, sample_weight=weights / weights.mean())
    return np.append(model.coef_[0], model.intercept_)
