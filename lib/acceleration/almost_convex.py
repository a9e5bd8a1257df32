r"""
The accelerated method for functions that need not be convex.

It takes turns. Where the Hessian has an eigenvalue below :math:`-\alpha`, a step along
its eigenvector decreases :math:`f` by :math:`\alpha^3 / (12 L_2^2)` or more. Where it
has none, the function

.. math:: f_k(x) = f(x) + L_1 \big( \|x - \hat x_k\| - \alpha / L_2 \big)_+^2

is almost convex everywhere, and proximal steps, each solved by Nesterov's method,
bring its gradient down.
"""

import math
import warnings
from dataclasses import dataclass

from lib._backend import as_float_array, check_real, make_rng
from lib.acceleration.curvature import (
    check_probability,
    lanczos,
    lanczos_iterations,
)
from lib.acceleration.gradient import LARGEST, agd_loop
from lib.acceleration.oracle import Curvature, Oracle

__all__ = ["almost_convex_agd", "negative_curvature_descent"]


def negative_curvature_descent(oracle, z, *, L1, L2, alpha, Delta, delta=0.01, seed=0):
    r"""
    Follow negative curvature until there is none below minus alpha.

    With a unit vector v from Lanczos' method and :math:`\lambda = v^\top \nabla^2 f(z)
    v \le -\alpha / 2`,

    .. math::
        z \leftarrow z - \frac{2 |\lambda|}{L_2} \mathrm{sign}(v^\top \nabla f(z)) v,
        \qquad \mathrm{sign}(0) = +1 .

    Parameters
    ----------
    oracle : Oracle
        The function, counted.
    z : ndarray or Tensor of shape (d,)
        Start.
    L1 : float
        Lipschitz constant of the gradient.
    L2 : float
        Lipschitz constant of the Hessian.
    alpha : float
        Accuracy of the curvature.
    Delta : float
        Upper bound on f(z) - inf f.
    delta : float, default=0.01
        Probability of failure allowed.
    seed : int, Generator, SeedSequence, RandomState or None, default=0
        Source of the random starts of Lanczos' method.

    Returns
    -------
    z : ndarray or Tensor of shape (d,)
        Point whose smallest eigenvalue is at least -alpha with probability 1 - delta.
    curvature : Curvature
        What is known of it.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of its range.

    Notes
    -----
    At most :math:`1 + 12 L_2^2 \Delta / \alpha^3` rounds, each of one gradient and at
    most `lanczos_iterations` products; f falls by :math:`2 |\lambda|^3 / (3 L_2^2)`
    at least in each step.

    References
    ----------
    .. [1] Y. Carmon, J. C. Duchi, O. Hinder and A. Sidford, "Accelerated methods for
       nonconvex optimization", SIAM J. Optim. 28(2), 2018, Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.acceleration import Oracle, negative_curvature_descent
    >>> oracle = Oracle(
    ...     lambda x: np.cos(x[0]) + x[1] ** 2 / 2,
    ...     np.zeros(2),
    ...     jac=lambda x: np.array([-np.sin(x[0]), x[1]]),
    ...     hess=lambda x: np.diag([-np.cos(x[0]), 1.0]),
    ... )
    >>> z, curvature = negative_curvature_descent(
    ...     oracle, oracle.x0, L1=1.0, L2=1.0, alpha=0.1, Delta=2.0
    ... )
    >>> abs(z).round(6), curvature.value > -0.05
    (array([2., 0.]), True)
    """
    if not isinstance(oracle, Oracle):
        raise TypeError(f"oracle must be an Oracle, got {oracle!r}")
    z = as_float_array(z, "z", ndim=1)
    given = {"L1": L1, "L2": L2, "alpha": alpha, "Delta": Delta}
    for name, value in given.items():
        check_real(name, value)
    if alpha > L1:
        raise ValueError(f"alpha must be at most L1 = {L1}, got {alpha}")
    check_probability(delta)
    return _ncd(oracle, z, L1, L2, alpha, Delta, delta, make_rng(seed))


def _ncd(oracle, z, L1, L2, alpha, Delta, delta, rng):
    delta = delta / (1.0 + 12.0 * L2**2 * Delta / alpha**3)
    products = lanczos_iterations(oracle.dim, L1, alpha, delta)
    while True:
        value, v, _, exact = lanczos(
            lambda v, z=z: oracle.hessp(z, v), oracle.dim, products, rng, z, -alpha / 2
        )
        if value > -alpha / 2:
            bound = value if exact else value - alpha / 2
            return z, Curvature(value, bound, False, alpha)
        z = z + _downhill(oracle, z, v) * (2.0 * -value / L2)
        oracle.grad(z)
        oracle.record(z, "negative curvature")


# v or -v: along the one whose slope is not positive.
def _downhill(oracle, z, v):
    return v if float(oracle.grad(z).dot(v)) < 0.0 else -v


def almost_convex_agd(grad, z, eps, gamma, L):
    r"""
    Find a small gradient of an almost convex function by proximal steps.

    Where :math:`\lambda_{\min}(\nabla^2 f) \ge -\gamma` everywhere, the function

    .. math:: g_j(z) = f(z) + \gamma \|z - z_j\|^2

    is :math:`\gamma`-strongly convex and :math:`(L + 2 \gamma)`-smooth. Its minimiser,
    found by Nesterov's method to the accuracy :math:`\varepsilon \sqrt{\gamma / (50 (L
    + 2 \gamma))}`, is the next :math:`z_{j+1}`.

    Parameters
    ----------
    grad : callable
        Gradient of f.
    z : ndarray or Tensor of shape (d,)
        Start.
    eps : float
        Accuracy of the gradient.
    gamma : float
        Bound on the non-convexity, at most ``L``.
    L : float
        Lipschitz constant of the gradient of f.

    Returns
    -------
    ndarray or Tensor of shape (d,)
        A point whose gradient is at most ``eps``.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of its range, or the start is no finite vector.

    Warns
    -----
    RuntimeWarning
        If Nesterov's method needs more iterations than suffice in theory: the
        constants are wrong, or ``eps`` is below what rounding allows. The last point
        is returned.

    Notes
    -----
    The decrease is at least :math:`\min\{\gamma \|z - z_1\|^2, \varepsilon \|z - z_1\|
    / \sqrt{10}\}`, for :math:`O(\sqrt{L / \gamma} + \sqrt{\gamma L} \varepsilon^{-2}
    (f(z_1) - f(z)))` gradients, up to a logarithm. A function without a lower bound
    is never left.

    References
    ----------
    .. [1] Y. Carmon, J. C. Duchi, O. Hinder and A. Sidford, "Accelerated methods for
       nonconvex optimization", SIAM J. Optim. 28(2), 2018, Algorithm 3.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.acceleration import almost_convex_agd
    >>> z = almost_convex_agd(np.sin, np.array([2.0, -3.0]), 1e-6, gamma=1.0, L=1.0)
    >>> bool(abs(np.sin(z)).max() < 1e-6)
    True
    """
    if not callable(grad):
        raise TypeError(f"grad must be callable, got {grad!r}")
    z = as_float_array(z, "z", ndim=1)
    for name, value in {"eps": eps, "gamma": gamma, "L": L}.items():
        check_real(name, value)
    if gamma > L:
        raise ValueError(f"gamma must be at most L = {L}, got {gamma}")
    unit = 1.2e-7 if str(z.dtype).endswith("float32") else 2.2e-16
    z, why = _prox_loop(_Remembered(grad), z, eps, gamma, L, unit)
    if why:
        warnings.warn(why, RuntimeWarning, stacklevel=2)
    return z


# A gradient that is not evaluated twice at the same point.
class _Remembered:
    def __init__(self, grad):
        self._grad, self._x = grad, None

    def __call__(self, x):
        if x is not self._x:
            self._x, self._g = x, self._grad(x)
        return self._g


#: Why proximal steps end before their aim.
ROUNDING = "the tolerance is below what rounding allows"
TOO_MANY = (
    "Nesterov's method took more iterations than suffice in theory: a Lipschitz "
    "constant is too small, or the tolerance below rounding"
)


# The loop of proximal steps; also why it stopped before its aim, or None.
def _prox_loop(grad, z, eps, gamma, L, unit, note=None, stop=()):
    inner, double = eps * math.sqrt(gamma / (50.0 * (L + 2.0 * gamma))), 2.0 * gamma
    while True:
        g = grad(z)
        norm = math.sqrt(float(g.dot(g)))
        if norm <= eps:
            return z, None
        # A gradient is not known better than this.
        floor = 4.0 * unit * (norm + L * math.sqrt(float(z.dot(z))))
        if floor >= eps:
            return z, ROUNDING

        def proximal(y, z=z):
            return grad(y) + double * (y - z)

        near = max(inner, floor)
        z, converged = agd_loop(proximal, z, near, L + double, gamma, *stop)
        if not converged:
            return z, TOO_MANY
        if note is not None:
            note(z)


# f_k: f plus L1 times the square of the distance beyond the leash.
class _Leashed:
    def __init__(self, oracle, centre, L1, leash):
        self.grad, self.centre, self.leash = oracle.grad, centre, leash
        self.L1, self.double = L1, 2.0 * L1

    def __call__(self, z):
        g = self.grad(z)
        r = z - self.centre
        n = math.sqrt(float(r.dot(r)))
        return g if n <= self.leash else g + (self.double * (1.0 - self.leash / n)) * r


# ---- methods: (oracle, x, options) -> (x, what is known of the curvature) -----------

#: gamma = a alpha and L = b L1 for f_k. The paper proves (3, 5); (2, 3) is exact.
CONSTANTS = {"paper": (3.0, 5.0), "tight": (2.0, 3.0)}


# The accelerated non-convex method, Algorithm 4.
def anc(oracle, x, o):
    eps, alpha = o.tol, o.alpha
    a, b = CONSTANTS[o.constants]
    rounds = math.ceil(
        1.0
        + o.Delta
        * (12.0 * o.L2**2 / alpha**3 + 2.0 * math.sqrt(10.0) * o.L2 / (alpha * eps))
    )
    ncd = (o.L1, o.L2, alpha, o.Delta, o.delta / rounds, o.rng)
    while True:
        curvature = None
        if alpha < o.L1:
            x, curvature = _ncd(oracle, x, *ncd)
        oracle.grad(x)
        oracle.record(x)
        if oracle.grad_norm <= eps:
            if curvature is not None:
                return x, curvature
            # Coarse accuracies need no curvature to get here, but the certificate does.
            z, curvature = _ncd(oracle, x, *ncd)
            if z is x:
                return x, curvature
            x = z
            continue
        leashed = _Leashed(oracle, x, o.L1, alpha / o.L2)
        x, why = _prox_loop(
            leashed,
            x,
            eps / 2.0,
            a * alpha,
            b * o.L1,
            oracle.eps,
            lambda z: oracle.record(z, "prox"),
        )
        if why:
            oracle.stall(why)


# What anc-adaptive believes; only ever doubled.
@dataclass
class _Belief:
    L1: float
    L2: float


class _Disproved(Exception):
    """Something happened that the constants in use exclude."""


# f_k in use by anc-adaptive. Two gradients further apart than L1 allows raise L1, and
# a proximal step that does not decrease f_k by gamma |z - z_j|^2 raises L2.
class _Watched(_Leashed):
    def __init__(self, oracle, centre, belief, alpha, eps):
        super().__init__(oracle, centre, belief.L1, alpha / belief.L2)
        self.oracle, self.belief = oracle, belief
        self.gamma, self.L = 2.0 * alpha, 3.0 * belief.L1
        self.slack = eps * eps / (100.0 * (self.L + 2.0 * self.gamma))
        self.good, self.value = centre, oracle.fun(centre)
        self.last = None

    def __call__(self, z):
        g = self.grad(z)
        if self.last is not None and self.last[0] is not z:
            dz, dg = z - self.last[0], g - self.last[1]
            near, far = math.sqrt(float(dz.dot(dz))), math.sqrt(float(dg.dot(dg)))
            size = math.sqrt(float(g.dot(g))) + self.L1 * math.sqrt(float(z.dot(z)))
            if far > self.L1 * near + 16.0 * self.oracle.eps * size:
                self.belief.L1 = max(2.0 * self.L1, far / near)
                raise _Disproved
        self.last = z, g
        r = z - self.centre
        n = math.sqrt(float(r.dot(r)))
        return g if n <= self.leash else g + (self.double * (1.0 - self.leash / n)) * r

    def note(self, z):
        r, d = z - self.centre, z - self.good
        beyond = max(0.0, math.sqrt(float(r.dot(r))) - self.leash)
        value = self.oracle.trial(z) + self.L1 * beyond * beyond
        noise = 8.0 * self.oracle.eps * abs(self.value)
        if value > self.value - self.gamma * float(d.dot(d)) + self.slack + noise:
            self.raise_both()
        self.good, self.value = z, value
        self.oracle.record(z, "prox")

    def raise_both(self):
        if self.gamma >= 2.0 * self.belief.L1:
            self.belief.L1 *= 2.0
        self.belief.L2 *= 2.0
        raise _Disproved


# The same method without constants. It starts from local estimates and doubles them
# when a decrease fails that the right constants guarantee. The curvature is certified
# by the coefficients of Lanczos' method, for which no constant is needed.
def anc_adaptive(oracle, x, o):
    belief = _estimates(oracle, x, o)
    look, known = 0, (None, 0.0)
    while True:
        if not max(belief.L1, belief.L2) < LARGEST:
            oracle.stall("f does not fall as it would for any constants")
        alpha = min(math.sqrt(o.tol * belief.L2), belief.L1)
        oracle.grad(x)
        small = oracle.grad_norm <= o.tol
        if small and o.alpha_given:
            alpha = o.alpha
        if x is not known[0] or alpha < known[1]:
            look += 1
            value, v, _, exact = lanczos(
                lambda v, x=x: oracle.hessp(x, v),
                oracle.dim,
                oracle.dim,
                o.rng,
                x,
                -alpha / 2,
                (alpha, o.delta / (look * (look + 1))),
            )
            if value <= -alpha / 2:
                x = _free_step(oracle, x, v, value, belief)
                oracle.grad(x)
                oracle.record(x, "negative curvature")
                continue
            known = x, alpha
            curvature = Curvature(value, value if exact else -alpha, False, alpha)
        oracle.record(x)
        if small:
            return x, curvature
        x = _free_prox(oracle, x, belief, alpha, o.tol / 2.0)


# A step along negative curvature, shorter with each doubling of L2.
def _free_step(oracle, x, v, value, belief):
    v, at_x = _downhill(oracle, x, v), oracle.fun(x)
    noise = 8.0 * oracle.eps * abs(at_x)
    while belief.L2 < LARGEST:
        there = x + v * (2.0 * -value / belief.L2)
        promised = 2.0 * -(value**3) / (3.0 * belief.L2**2)
        if oracle.trial(there) <= min(at_x - promised + noise, at_x):
            return there
        belief.L2 *= 2.0
    oracle.stall(f"f does not fall along a direction of curvature {value:.3g}")


# Proximal steps on f_k; the last point whose decrease was the one promised.
def _free_prox(oracle, x, belief, alpha, eps):
    f_k = _Watched(oracle, x, belief, alpha, eps)
    try:
        z, why = _prox_loop(
            f_k, x, eps, f_k.gamma, f_k.L, oracle.eps, f_k.note, ("z", f_k.gamma / 4)
        )
        if why == ROUNDING:
            oracle.stall(why)
        if why is not None:
            f_k.raise_both()
        return z
    except _Disproved:
        return f_k.good


# Local curvature, and its change, along the gradient: lower bounds on the constants.
def _estimates(oracle, x, o):
    g, norm = oracle.grad(x), oracle.grad_norm
    if norm == 0.0:
        g = oracle.asarray(o.rng.standard_normal(oracle.dim))
        norm = math.sqrt(float(g.dot(g)))
    scale = 1.0 + math.sqrt(float(x.dot(x)))
    h = oracle.eps**0.25 * scale
    there, back = (oracle.probe(x + g * (s * h / norm)) for s in (1.0, -1.0))
    first, second = there - back, there + back - 2.0 * oracle.grad(x)
    L1 = o.L1 or math.sqrt(float(first.dot(first))) / (2.0 * h) or 1.0
    L2 = o.L2 or math.sqrt(float(second.dot(second))) / h**2
    return _Belief(L1, max(L2, 1e-4 * L1 / scale))
