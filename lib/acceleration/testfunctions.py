r"""
Functions on which the methods are measured, with the constants that theory asks for.

Each maker returns a problem with ``fun``, ``jac``, ``hessp`` and ``hess``, a start
``x0``, Lipschitz constants ``L1`` of the gradient and ``L2`` of the Hessian, a bound
``Delta`` on ``fun(x0) - inf fun``, and ``x_star``, a minimiser. A polynomial of degree
four has no global constants: they hold in the ball of the problem's ``radius``, which
contains every point whose value is at most that of the start. ``functions`` and
``constants`` are the keywords that `minimize_nonconvex` wants.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import polynomial as poly

from lib._backend import check_integer, check_real, make_rng

__all__ = [
    "biweight",
    "lower_bound_chain",
    "matrix_factorization",
    "phase_retrieval",
    "ramp",
    "saddle_staircase",
]


@dataclass(frozen=True)
class _Problem:
    fun: Callable
    jac: Callable
    hessp: Callable
    hess: Callable
    x0: np.ndarray
    L1: float
    L2: float
    Delta: float
    x_star: np.ndarray
    radius: float = math.inf

    @property
    def functions(self):
        return {"jac": self.jac, "hessp": self.hessp}

    @property
    def constants(self):
        return {"L1": self.L1, "L2": self.L2, "Delta": self.Delta}


def ramp(eps, *, L1=1.0, L2=1.0, Delta=1.0, R=None):
    r"""
    Make a long slope that is just too steep to stop on.

    .. math::
        f(x, y) = \varphi(x) + \tfrac{L_1}{2} y^2, \qquad
        \varphi' = -2 \varepsilon \text{ on } (-\infty, R], \quad
        \varphi''(x) = \min\{L_2 (x - R), L_1\} \text{ beyond.}

    The function is convex. A step of gradient descent on it is as short as the theory
    of smooth functions allows, a step of cubic Newton as short as that of smooth
    Hessians does.

    Parameters
    ----------
    eps : float
        Half of the slope: a gradient of ``eps`` is found beyond R only.
    L1 : float, default=1.0
        Lipschitz constant of the gradient.
    L2 : float, default=1.0
        Lipschitz constant of the Hessian.
    Delta : float, default=1.0
        Height of the slope, which makes R = Delta / (2 eps); the problem's ``Delta``
        is a little larger, by the valley behind it and by the start.
    R : float, optional
        Length of the slope, instead.

    Returns
    -------
    object
        Problem in two dimensions from the start (0, eps / L1).

    Raises
    ------
    TypeError
        If an argument is no number.
    ValueError
        If an argument is not positive.

    Notes
    -----
    Constant time a call, in scalars: the methods call it ten million times.

    References
    ----------
    .. [1] Y. Nesterov and B. T. Polyak, "Cubic regularization of Newton method and its
       global performance", Math. Program. 108, 2006, Section 4: the rates it attains.

    Examples
    --------
    >>> from lib.acceleration import ramp
    >>> problem = ramp(0.01)
    >>> problem.jac(problem.x0), problem.jac(problem.x_star).round(12) + 0.0
    (array([-0.02,  0.01]), array([0., 0.]))
    """
    for name, value in {"eps": eps, "L1": L1, "L2": L2, "Delta": Delta}.items():
        check_real(name, value)
    if R is None:
        R = Delta / (2.0 * eps)
    check_real("R", R)
    eps, L1, L2, R = float(eps), float(L1), float(L2), float(R)
    # Beyond R + width the curvature is L1.
    width = L1 / L2
    edge = -2.0 * eps + L1 * width / 2.0
    if edge >= 0.0:
        bottom = math.sqrt(4.0 * eps / L2)
    else:
        bottom = width - edge / L1

    def phi(x):
        s = x - R
        if s <= 0.0:
            return -2.0 * eps * x
        value = -2.0 * eps * x + L2 * min(s, width) ** 3 / 6.0
        t = s - width
        if t > 0.0:
            value += L1 * t * (width + t) / 2.0
        return value

    def fun(x):
        return phi(float(x[0])) + L1 * float(x[1]) ** 2 / 2.0

    def jac(x):
        x, y = x.tolist()
        s = x - R
        if s <= 0.0:
            slope = -2.0 * eps
        elif s <= width:
            slope = L2 * s * s / 2.0 - 2.0 * eps
        else:
            slope = edge + L1 * (s - width)
        return np.array((slope, L1 * y))

    def curvature(x):
        return min(max(L2 * (float(x[0]) - R), 0.0), L1)

    def hessp(x, v):
        return np.array((curvature(x) * v[0], L1 * v[1]))

    def hess(x):
        return np.diag((curvature(x), L1))

    x0, x_star = np.array([0.0, eps / L1]), np.array([R + bottom, 0.0])
    drop = fun(x0) - fun(x_star)
    return _Problem(fun, jac, hessp, hess, x0, L1, L2, drop, x_star)


def saddle_staircase(eps, *, L1=1.0, L2=1.0, Delta=1.0):
    r"""
    Make a saddle with so many ways down that each costs a step.

    .. math::
        f(u, y) = \sum_{i=1}^d \Big( -\frac a2 u_i^2 + \frac{L_2}{6} |u_i|^3 \Big)
        + \frac{L_1}{2} y^2, \qquad a = \sqrt{\varepsilon L_2}, \quad
        d = \frac{3 L_2^2 \Delta}{2 a^3},

    and the curvature in :math:`u_i` does not grow beyond :math:`L_1`. Every
    coordinate holds a drop of :math:`2 a^3 / (3 L_2^2)`, all of them together
    :math:`\Delta`.

    Parameters
    ----------
    eps : float
        Accuracy for which the saddle is just too steep.
    L1 : float, default=1.0
        Lipschitz constant of the gradient.
    L2 : float, default=1.0
        Lipschitz constant of the Hessian.
    Delta : float, default=1.0
        Total drop; that of the nearest whole number of coordinates.

    Returns
    -------
    object
        Problem in d + 1 dimensions from the saddle, the origin.

    Raises
    ------
    TypeError
        If an argument is no number.
    ValueError
        If an argument is not positive, or the curvature a exceeds L1.

    Notes
    -----
    O(d) a call.

    References
    ----------
    .. [1] Y. Carmon, J. C. Duchi, O. Hinder and A. Sidford, "Accelerated methods for
       nonconvex optimization", SIAM J. Optim. 28(2), 2018, Lemma 2.3: one term
       decreases by exactly what the lemma promises.

    Examples
    --------
    >>> from lib.acceleration import saddle_staircase
    >>> problem = saddle_staircase(0.1)
    >>> problem.x0.shape, round(problem.fun(problem.x_star), 2)
    ((48,), -0.99)
    """
    for name, value in {"eps": eps, "L1": L1, "L2": L2, "Delta": Delta}.items():
        check_real(name, value)
    a = math.sqrt(eps * L2)
    if a > L1:
        raise ValueError(f"eps must be at most L1**2 / L2 = {L1**2 / L2}, got {eps}")
    d = max(1, round(1.5 * L2**2 * Delta / a**3))
    # Beyond the edge the curvature is L1.
    edge = (L1 + a) / L2
    slope = -a * edge + L2 * edge**2 / 2.0

    def fun(x):
        u = np.abs(x[:-1])
        inner, t = np.minimum(u, edge), np.maximum(u - edge, 0.0)
        value = np.sum(inner**2 * (L2 * inner / 6.0 - a / 2.0))
        value += np.sum(t * (slope + L1 * t / 2.0)) + L1 * x[-1] ** 2 / 2.0
        return float(value)

    def jac(x):
        u = np.abs(x)
        g = np.minimum(u, edge)
        g = np.sign(x) * (g * (L2 * g / 2.0 - a) + L1 * np.maximum(u - edge, 0.0))
        g[-1] = L1 * x[-1]
        return g

    def diagonal(x):
        h = np.minimum(L2 * np.abs(x) - a, L1)
        h[-1] = L1
        return h

    def hessp(x, v):
        return diagonal(x) * v

    def hess(x):
        return np.diag(diagonal(x))

    x_star = np.append(np.full(d, 2.0 * a / L2), 0.0)
    if x_star[0] > edge:
        x_star[:-1] = edge - slope / L1
    x0 = np.zeros(d + 1)
    return _Problem(fun, jac, hessp, hess, x0, L1, L2, -fun(x_star), x_star)


# The largest modulus of P(s) / (1 + s^2)^k over the line: it is at a root of the
# derivative, or at infinity.
def _supremum(P, k):
    numerator, _ = _derivative(P, k)
    roots = poly.polyroots(numerator)
    at = np.append(roots.real[abs(roots.imag) < 1e-6], [0.0, 1e9])
    return float(np.max(np.abs(poly.polyval(at, P)) / (1.0 + at**2) ** k))


# The derivative of P / (1 + s^2)^k is a polynomial over (1 + s^2)^(k + 1).
def _derivative(P, k):
    lead = poly.polymul(poly.polyder(P), (1.0, 0.0, 1.0))
    return poly.polysub(lead, poly.polymul((0.0, 2.0 * k), P)), k + 1


def biweight(m=60, d=30, *, seed=0):
    r"""
    Make a robust regression whose loss forgives outliers, and is not convex.

    .. math::
        f(x) = \frac1m \sum_{i=1}^m \phi(a_i^\top x - b_i), \qquad
        \phi(t) = \frac{t^2}{1 + t^2} .

    Entries of :math:`a_i` are standard normal, and :math:`b = A z + 3 \nu_1 + \nu_2`
    with :math:`z \sim N(0, 4 I)`, normal :math:`\nu_1` and :math:`\nu_2` which is one
    with probability 0.3 and else zero.

    Parameters
    ----------
    m : int, default=60
        Number of data points.
    d : int, default=30
        Dimension.
    seed : int, Generator, SeedSequence, RandomState or None, default=0
        Source of the data.

    Returns
    -------
    object
        Problem from the origin. ``x_star`` is the minimiser that Newton's method in
        a trust region reaches from there; a better one may exist.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of its range.

    Notes
    -----
    O(m d) a call. The constants are :math:`L_1 = 2 \|A\|_2^2 / m` and :math:`L_2 =
    4.67 \max_i \|a_i\| \|A\|_2^2 / m`, global but far from sharp.

    References
    ----------
    .. [1] Y. Carmon, J. C. Duchi, O. Hinder and A. Sidford, "Convex until proven
       guilty: dimension-free acceleration of gradient descent on non-convex
       functions", ICML 2017, Section 5.

    Examples
    --------
    >>> from lib.acceleration import biweight
    >>> problem = biweight(seed=1)
    >>> problem.x0.shape, problem.fun(problem.x_star) < problem.fun(problem.x0)
    ((30,), True)
    """
    check_integer("m", m)
    check_integer("d", d)
    rng = make_rng(seed)
    A = rng.standard_normal((m, d))
    b = A @ (2.0 * rng.standard_normal(d))
    b += 3.0 * rng.standard_normal(m) + (rng.random(m) < 0.3)

    def fun(x):
        t = A @ x - b
        return float(np.mean(t * t / (1.0 + t * t)))

    def jac(x):
        t = A @ x - b
        return A.T @ (t / (1.0 + t * t) ** 2) * (2.0 / m)

    def weights(x):
        t2 = (A @ x - b) ** 2
        return (2.0 - 6.0 * t2) / (1.0 + t2) ** 3 / m

    def hessp(x, v):
        return A.T @ (weights(x) * (A @ v))

    def hess(x):
        return (A.T * weights(x)) @ A

    square = np.linalg.norm(A, 2) ** 2 / m
    second = _derivative((0.0, 2.0), 2)  # of phi', to phi''
    third = _derivative(*second)
    L1 = _supremum(*second) * square
    L2 = _supremum(*third) * float(np.max(np.linalg.norm(A, axis=1))) * square
    x0 = np.zeros(d)
    x_star = _newton(fun, jac, hess, x0)
    return _Problem(fun, jac, hessp, hess, x0, float(L1), L2, fun(x0), x_star)


# A local minimiser to rounding.
def _newton(fun, jac, hess, x):
    from scipy.optimize import minimize

    found = minimize(
        fun, x, jac=jac, hess=hess, method="trust-exact", options={"gtol": 1e-6}
    )
    x = found.x
    for _ in range(3):
        x = x - np.linalg.solve(hess(x), jac(x))
    return x


def matrix_factorization(n=40, rank=4, *, scale=1e-2, seed=0):
    r"""
    Make the factorisation of a matrix, with a saddle at the origin.

    .. math::
        f(U) = \tfrac14 \|U U^\top - A\|_F^2, \qquad U \in \mathbb{R}^{n \times r},

    where :math:`A` is positive semi-definite of rank r, with eigenvalues evenly
    spaced from 1/2 to 1.

    Parameters
    ----------
    n : int, default=40
        Rows of U.
    rank : int, default=4
        Columns of U.
    scale : float, default=1e-2
        Frobenius norm of the start; 0 is the saddle itself.
    seed : int, Generator, SeedSequence, RandomState or None, default=0
        Source of A and of the start.

    Returns
    -------
    object
        Problem in n rank dimensions; ``x_star`` is a global minimiser, of value zero.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of its range, or the rank exceeds n.

    Notes
    -----
    O(n^2 rank) a call. With :math:`\|U\|_2^2 \le B` the constants are :math:`L_1 =
    \max\{3 B, \|A\|_2\}` and :math:`L_2 = 6 \sqrt B`; twice the bound on B of the set
    :math:`f \le f(x_0)` is used, so that momentum may overshoot.

    References
    ----------
    .. [1] R. Ge, C. Jin and Y. Zheng, "No spurious local minima in nonconvex low rank
       problems: a unified geometric analysis", ICML 2017.

    Examples
    --------
    >>> from lib.acceleration import matrix_factorization
    >>> problem = matrix_factorization(10, 2)
    >>> problem.x0.shape, round(problem.fun(problem.x_star), 12)
    ((20,), 0.0)
    """
    check_integer("n", n)
    check_integer("rank", rank)
    check_real("scale", scale, allow_zero=True)
    if rank > n:
        raise ValueError(f"rank must be at most n = {n}, got {rank}")
    rng = make_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((n, rank)))[0]
    eigenvalues = np.linspace(1.0, 0.5, rank)
    A = (Q * eigenvalues) @ Q.T
    x0 = rng.standard_normal(n * rank)
    x0 *= scale / np.linalg.norm(x0)
    square = float(np.sum(eigenvalues**2))

    # |U U' - A|_F^2 without the n by n matrix U U'.
    def fun(x):
        U = x.reshape(n, rank)
        G = U.T @ U
        return float(np.sum(G * G) - 2.0 * np.sum(U * (A @ U)) + square) / 4.0

    def jac(x):
        U = x.reshape(n, rank)
        return (U @ (U.T @ U) - A @ U).ravel()

    def hessp(x, v):
        U, V = x.reshape(n, rank), v.reshape(n, rank)
        return (V @ (U.T @ U) + U @ (V.T @ U + U.T @ V) - A @ V).ravel()

    def hess(x):
        return np.stack([hessp(x, e) for e in np.eye(n * rank)])

    B = 2.0 * (math.sqrt(square) + 2.0 * math.sqrt(fun(x0)))
    L1, L2 = max(3.0 * B, 1.0), 6.0 * math.sqrt(B)
    x_star = (Q * np.sqrt(eigenvalues)).ravel()
    return _Problem(fun, jac, hessp, hess, x0, L1, L2, fun(x0), x_star, math.sqrt(B))


def phase_retrieval(d=50, m=300, *, seed=0):
    r"""
    Make the search for a signal of which only squared measurements are known.

    .. math::
        f(x) = \frac{1}{4m} \sum_{i=1}^m \big( (a_i^\top x)^2 - y_i \big)^2, \qquad
        y_i = (a_i^\top x_\star)^2 .

    The measurements are normal, the signal is a random unit vector, and so is the
    start, scaled to length 1/10.

    Parameters
    ----------
    d : int, default=50
        Dimension.
    m : int, default=300
        Number of measurements.
    seed : int, Generator, SeedSequence, RandomState or None, default=0
        Source of the measurements, the signal and the start.

    Returns
    -------
    object
        Problem in d dimensions; ``x_star`` and its negative are global minimisers, of
        value zero.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of its range, or ``m < d``.

    Notes
    -----
    O(m d) a call. With :math:`c = \max_i \|a_i\|^2 \|A\|_2^2 / m` and :math:`\|x\| \le
    r` the constants are :math:`L_1 = \max\{3 r^2 c, \|A^\top \mathrm{diag}(y) A\|_2 /
    m\}` and :math:`L_2 = 6 r c`; r belongs to the set :math:`f \le f(x_0)`.

    References
    ----------
    .. [1] J. Sun, Q. Qu and J. Wright, "A geometric analysis of phase retrieval",
       Found. Comput. Math. 18, 2018.

    Examples
    --------
    >>> from lib.acceleration import phase_retrieval
    >>> problem = phase_retrieval(10, 60)
    >>> problem.fun(-problem.x_star)
    0.0
    """
    check_integer("d", d)
    check_integer("m", m)
    if m < d:
        raise ValueError(f"m must be at least d = {d}, got {m}")
    rng = make_rng(seed)
    A = rng.standard_normal((m, d))
    x_star, x0 = rng.standard_normal((2, d))
    x_star /= np.linalg.norm(x_star)
    x0 *= 0.1 / np.linalg.norm(x0)
    y = (A @ x_star) ** 2

    def fun(x):
        return float(np.mean(((A @ x) ** 2 - y) ** 2)) / 4.0

    def jac(x):
        t = A @ x
        return A.T @ ((t * t - y) * t) / m

    def weights(x):
        return (3.0 * (A @ x) ** 2 - y) / m

    def hessp(x, v):
        return A.T @ (weights(x) * (A @ v))

    def hess(x):
        return (A.T * weights(x)) @ A

    spectrum = np.linalg.svd(A, compute_uv=False) ** 2 / m
    r = math.sqrt((np.mean(y) + 2.0 * math.sqrt(fun(x0))) / spectrum[-1])
    c = float(np.max(np.sum(A * A, axis=1)) * spectrum[0])
    down = float(np.linalg.norm((A.T * y) @ A, 2)) / m
    L1, L2 = max(3.0 * r**2 * c, down), 6.0 * r * c
    return _Problem(fun, jac, hessp, hess, x0, L1, L2, fun(x0), x_star, r)


def lower_bound_chain(T=50, *, mu=0.01, r=1.0):
    r"""
    Make the chain on which no first-order method is fast.

    .. math::
        f(x) = \frac{\sqrt\mu}{2} (x_1 - 1)^2 + \frac12 \sum_{i=1}^T (x_{i+1} - x_i)^2
        + \mu \sum_{i=1}^T \Upsilon(x_i), \qquad
        \Upsilon'(t) = \frac{120\, t^2 (t - 1)}{1 + (t / r)^2} .

    From the origin, a gradient tells of one more coordinate at a time, and the
    gradient is larger than :math:`\mu^{3/4} / 4` as long as the last two are zero.

    Parameters
    ----------
    T : int, default=50
        Length of the chain.
    mu : float, default=0.01
        Weight of the non-convex terms, at most one.
    r : float, default=1.0
        Where they become quadratic, at least one.

    Returns
    -------
    object
        Problem in T + 1 dimensions from the origin; ``x_star`` has ones only.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of its range.

    Notes
    -----
    O(T) a call.

    References
    ----------
    .. [1] Y. Carmon, J. C. Duchi, O. Hinder and A. Sidford, "Lower bounds for finding
       stationary points II: first-order methods", Math. Program. 185, 2021, Section 3.

    Examples
    --------
    >>> from lib.acceleration import lower_bound_chain
    >>> problem = lower_bound_chain(20)
    >>> problem.fun(problem.x_star), int((problem.jac(problem.x0) != 0).sum())
    (0.0, 1)
    """
    check_integer("T", T)
    check_real("mu", mu)
    check_real("r", r)
    if mu > 1 or r < 1:
        raise ValueError(f"mu must be at most 1 and r at least 1, got {mu} and {r}")
    root = math.sqrt(mu)

    # The integral from 1 of t^2 (t - 1) / (1 + t^2 / r^2).
    def primitive(t):
        return (
            r
            * r
            * (
                t * t / 2.0
                - t
                - r * r / 2.0 * np.log1p((t / r) ** 2)
                + r * np.arctan(t / r)
            )
        )

    at_one = primitive(1.0)

    def fun(x):
        bumps = 120.0 * np.sum(primitive(x[:-1]) - at_one)
        steps = np.diff(x)
        return float(root * (x[0] - 1.0) ** 2 / 2.0 + steps @ steps / 2.0 + mu * bumps)

    def jac(x):
        t = x[:-1]
        g = _path_laplacian(x)
        g[0] += root * (x[0] - 1.0)
        g[:-1] += 120.0 * mu * t * t * (t - 1.0) / (1.0 + (t / r) ** 2)
        return g

    # With s = t / r: Upsilon' = 120 r^2 (r s^3 - s^2) / (1 + s^2).
    second = _derivative((0.0, 0.0, -1.0, r), 1)
    third = _derivative(*second)

    def curvature(x):
        s = x[:-1] / r
        return 120.0 * mu * r * poly.polyval(s, second[0]) / (1.0 + s * s) ** 2

    def hessp(x, v):
        product = _path_laplacian(v)
        product[0] += root * v[0]
        product[:-1] += curvature(x) * v[:-1]
        return product

    def hess(x):
        return np.stack([hessp(x, e) for e in np.eye(T + 1)])

    L1 = 4.0 + root + 120.0 * mu * r * _supremum(*second)
    L2 = 120.0 * mu * _supremum(*third)
    x0, x_star = np.zeros(T + 1), np.ones(T + 1)
    return _Problem(fun, jac, hessp, hess, x0, L1, L2, fun(x0), x_star)


# Gradient of half the sum of squared steps.
def _path_laplacian(x):
    steps = np.diff(x)
    g = np.zeros_like(x)
    g[:-1] -= steps
    g[1:] += steps
    return g
