r"""
Newton's method with cubic regularisation.

Where the Hessian has the Lipschitz constant :math:`L_2`, the model

.. math:: f(x) + g^\top s + \tfrac12 s^\top H s + \tfrac M6 \lVert s \rVert^3

lies above :math:`f(x + s)` for every :math:`M \ge L_2`. Its *global* minimiser can be
computed, saddle or not, and is the step of the method.
"""

from math import hypot

import numpy as np
from scipy.linalg import eigh_tridiagonal
from scipy.optimize import brentq

from lib._backend import (
    as_float_array,
    check_real,
    check_same_kind,
    is_torch,
    to_numpy,
)
from lib.acceleration.escape import settle
from lib.acceleration.oracle import Curvature

__all__ = ["cubic_step"]


def cubic_step(g, H, M):
    r"""
    Minimise a quadratic plus a cube of the norm, globally and exactly.

    .. math::
        s = \arg\min_s \; g^\top s + \tfrac12 s^\top H s + \tfrac M6 \lVert s \rVert^3.

    A vector is a global minimiser if and only if

    .. math::
        (H + \lambda I) s = -g, \qquad \lambda = \tfrac M2 \lVert s \rVert, \qquad
        H + \lambda I \succeq 0.

    Parameters
    ----------
    g : ndarray or Tensor of shape (d,)
        Gradient of the quadratic at zero.
    H : ndarray or Tensor of shape (d, d)
        Symmetric matrix, indefinite or not.
    M : float
        Weight of the cube, positive.

    Returns
    -------
    ndarray or Tensor of shape (d,)
        The minimiser, of the kind of ``g``. Where there are several (``g`` has no
        part in the eigenspace of the negative smallest eigenvalue, the *hard case*)
        it is one of them.

    Raises
    ------
    TypeError
        If ``g`` and ``H`` differ in kind, or a dtype is not allowed.
    ValueError
        If shapes disagree, an entry is not finite, ``H`` is not symmetric, or ``M``
        is not positive.

    Notes
    -----
    One symmetric eigenvalue decomposition in float64, O(d^3), and one equation in one
    unknown. With eigenvalues :math:`h_i`, coefficients :math:`c_i` of ``g`` and
    :math:`b = \max(0, -h_1)` the unknown is :math:`t = \lambda - b \ge 0`; since
    :math:`\lVert s \rVert` falls and :math:`2 \lambda / M` grows, there is at most
    one root. It lies between the roots of the quadratics
    :math:`(h_i + b + t)(b + t) = M |c_i| / 2` and the one with
    :math:`\lVert g \rVert` and :math:`h_1`, and is found on a logarithmic scale, so
    that a component of size 1e-200 in the bottom eigenspace is not lost. No root:
    the hard case, :math:`t = 0`, in which a multiple of a bottom eigenvector makes
    up for the missing length.

    References
    ----------
    .. [1] Y. Nesterov and B. T. Polyak, "Cubic regularization of Newton method and
       its global performance", Mathematical Programming 108, 2006, Section 5.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.acceleration import cubic_step
    >>> cubic_step(np.zeros(2), np.diag([-1.0, 2.0]), 0.5)
    array([4., 0.])
    """
    check_real("M", M)
    check_same_kind(g, H, ("g", "H"))
    g, H = as_float_array(g, "g", ndim=1), as_float_array(H, "H")
    if tuple(H.shape) != (len(g), len(g)):
        raise ValueError(
            f"H must have the shape {(len(g), len(g))} of g, got {tuple(H.shape)}"
        )
    host = to_numpy(H).astype(np.float64)
    if not np.allclose(host, host.T, rtol=0.0, atol=1e-6 * np.abs(host).max()):
        raise ValueError(
            "H must be symmetric, got a largest difference of "
            f"{np.abs(host - host.T).max():.3g} from its transpose"
        )
    h, Q = np.linalg.eigh((host + host.T) / 2)
    Q *= np.sign(Q[np.abs(Q).argmax(axis=0), range(len(h))])  # the same everywhere
    s = Q @ _diagonal_step(Q.T @ to_numpy(g).astype(np.float64), h, M)
    return g.new_tensor(s) if is_torch(g) else s.astype(g.dtype, copy=False)


# The minimiser for H = diag(h), h ascending, and the gradient c.
def _diagonal_step(c, h, M):
    base = max(0.0, -h[0])
    d = h + base  # an exact zero in front where the smallest eigenvalue is negative

    # The root of (d + t)(base + t) = M c / 2 in t, at least zero.
    def root(c, d):
        excess = 0.5 * M * c - d * base
        linear = d + base
        divisor = linear + np.sqrt(linear**2 + 4.0 * np.maximum(excess, 0.0))
        return 2.0 * excess / divisor if divisor > 0.0 else 0.0

    used = c != 0.0

    def too_long(t):
        length = hypot(*(c[used] / (d[used] + t)))
        return np.log(0.5 * M * length) - np.log(base + t)

    s = np.zeros_like(c)
    low = max(map(root, np.abs(c), d))
    high = root(hypot(*c), d[0])
    if low > 0.0:
        ends = np.log([low, high]) + [-1e-6, 1e-6]
        t = np.exp(brentq(lambda u: too_long(np.exp(u)), *ends, xtol=1e-14))
    elif used.any() and too_long(0.0) > 0.0:
        t = brentq(too_long, 0.0, high, xtol=1e-300, rtol=1e-14)
    else:
        t = 0.0
    s[used] = -c[used] / (d[used] + t)
    if t == 0.0:
        s[0] = np.sqrt(max((2.0 * base / M) ** 2 - s @ s, 0.0))
    return s


# Cubic Newton steps with M = L2, until the gradient is small and the smallest
# eigenvalue, which is known, large enough. One gradient and one Hessian a step.
def cubic_newton(oracle, x, options):
    while True:
        g, H = host(oracle.grad(x)), host(oracle.hess(x))
        h, Q = np.linalg.eigh(H)
        if oracle.grad_norm <= options.tol and h[0] >= -options.alpha:
            return x, Curvature(float(h[0]), float(h[0]), False)
        x = x + oracle.asarray(Q @ _diagonal_step(Q.T @ g, h, options.L2))
        oracle.grad(x)
        oracle.record(x)


# The gradient that a step of length r may leave in its model: of the order of the
# model's own error, or as in inexact Newton methods, for superlinear convergence.
def _may_leave(M, r, norm):
    return max(2.0 * M * r**2, min(0.5, np.sqrt(norm)) * norm)


# Adaptive regularisation by cubics: the weight M rises until the model's decrease is
# real, and falls where the model is good. The model is minimised over a Krylov space,
# which a new M keeps.
def arc(oracle, x, options):
    M, look = 1.0 if options.L2 is None else options.L2, 0
    while True:
        g = oracle.grad(x)
        if oracle.grad_norm <= options.tol:
            look += 1
            x, curvature = settle(oracle, x, options, look)
            if curvature is not None:
                return x, curvature
            continue
        f, space = oracle.fun(x), _Krylov(oracle, x, host(g))
        noise = 10.0 * oracle.eps * max(1.0, abs(f))
        while True:
            s, promised = space.step(M)
            y = x + oracle.asarray(s)
            ratio = (f - oracle.trial(y) + noise) / (promised + noise)
            if ratio >= 0.1:
                break
            M *= 4.0
            if not M < 1e30:
                oracle.stall("no weight of the cubic model is large enough")
        if ratio > 0.75:
            M = max(M / 4.0, 1e-30)
        x = y
        oracle.grad(x)
        oracle.record(x)


# Minimiser of the cubic model over span(g, Hg, H^2 g, ...), as large as it has to be.
class _Krylov:
    def __init__(self, oracle, x, g):
        self.norm, self.dim = np.linalg.norm(g), len(g)
        self.product = lambda q: host(oracle.hessp(x, oracle.asarray(q)))
        self.basis = np.empty((8, self.dim))
        self.diagonal, self.beside, self.next = [], [], g / self.norm

    def step(self, M):
        while True:
            if self.diagonal:
                h, U = eigh_tridiagonal(self.diagonal, self.beside[:-1])
                y = U @ _diagonal_step(self.norm * U[0], h, M)
                length = np.linalg.norm(y)
                left = self.beside[-1] * abs(y[-1])
                if len(y) == self.dim or left <= _may_leave(M, length, self.norm):
                    break
            # Large spaces grow by a few vectors at once: each look costs O(k^3).
            k = len(self.diagonal)
            for _ in range(min(1 + k // 25, self.dim - k)):
                self.grow()
        promised = M * length**3 / 12.0 - 0.5 * self.norm * y[0]
        return y @ self.basis[: len(y)], promised

    def grow(self):
        k = len(self.diagonal)
        if k == len(self.basis):
            self.basis = np.concatenate([self.basis, np.empty_like(self.basis)])
        self.basis[k] = self.next
        w = self.product(self.next)
        self.diagonal.append(w @ self.next)
        known = self.basis[: k + 1]
        for _ in range(2):
            w = w - (known @ w) @ known
        self.beside.append(np.linalg.norm(w))
        self.next = w / (self.beside[-1] or 1.0)


def host(x):
    return to_numpy(x).astype(np.float64)
