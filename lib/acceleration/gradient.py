r"""
First-order methods: steps along the gradient, with and without momentum.

Nesterov's method for an :math:`L`-smooth, :math:`\sigma`-strongly convex function,
:math:`\kappa = L / \sigma`, is

.. math::
    y_{j+1} = z_j - \tfrac1L \nabla g(z_j), \qquad
    z_{j+1} = y_{j+1} + \tfrac{\sqrt\kappa - 1}{\sqrt\kappa + 1} (y_{j+1} - y_j).

The others here are methods of :func:`~lib.acceleration.minimize_nonconvex`.
"""

import math
import warnings

from lib._backend import as_float_array, check_choice, check_real

__all__ = ["accelerated_gradient_descent"]

#: An estimate of a Lipschitz constant that no function of use has.
LARGEST = 1e30


def accelerated_gradient_descent(grad, y, eps, L, sigma, *, test="y"):
    r"""
    Minimise a smooth, strongly convex function by Nesterov's method.

    .. math::
        y_{j+1} = z_j - \tfrac1L \nabla g(z_j), \qquad
        z_{j+1} = y_{j+1} + \tfrac{\sqrt\kappa - 1}{\sqrt\kappa + 1}
        (y_{j+1} - y_j), \qquad \kappa = L / \sigma .

    Parameters
    ----------
    grad : callable
        Gradient of g.
    y : ndarray or Tensor of shape (d,)
        Start.
    eps : float
        Accuracy of the gradient.
    L : float
        Lipschitz constant of the gradient.
    sigma : float
        Constant of strong convexity, at most ``L``.
    test : {"y", "z"}, default="y"
        Where the gradient is compared with ``eps``: at y, as in the paper, for two
        gradients an iteration, or at z, where it is needed anyway, for one.

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
        If the number of iterations that suffices in theory did not: the constants
        are wrong, or ``eps`` is below what rounding allows. The last point is
        returned.

    Notes
    -----
    At most :math:`2 + \sqrt\kappa \ln(18 \kappa^3 \|\nabla g(y_1)\|^2 /
    \varepsilon^2)` iterations of O(d) besides the gradients. The method is not
    monotone.

    References
    ----------
    .. [1] Y. Carmon, J. C. Duchi, O. Hinder and A. Sidford, "Accelerated methods for
       nonconvex optimization", SIAM J. Optim. 28(2), 2018, Algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.acceleration import accelerated_gradient_descent
    >>> curvatures, b = np.array([100.0, 1.0]), np.array([100.0, 2.0])
    >>> y = accelerated_gradient_descent(
    ...     lambda y: curvatures * y - b, np.zeros(2), eps=1e-8, L=100.0, sigma=1.0
    ... )
    >>> y.round(6)
    array([1., 2.])
    """
    if not callable(grad):
        raise TypeError(f"grad must be callable, got {grad!r}")
    y = as_float_array(y, "y", ndim=1)
    check_real("eps", eps)
    check_real("L", L)
    check_real("sigma", sigma)
    if sigma > L:
        raise ValueError(f"sigma must be at most L = {L}, got {sigma}")
    check_choice("test", test, ("y", "z"))
    y, converged = agd_loop(grad, y, eps, L, sigma, test)
    if not converged:
        warnings.warn(
            "the gradient did not fall to eps in the number of iterations that "
            "suffices in theory: L is too small, sigma too large, or eps below "
            "rounding",
            RuntimeWarning,
            stacklevel=2,
        )
    return y


# The loop, and whether it converged within the number of iterations that suffices:
# g(y_j) - g* <= L |y_1 - y*|^2 exp(-(j - 1) / sqrt(kappa)), |y_1 - y*| <= |g_1| / sigma
# and |grad g(z_j)| <= 3 L max(|y_j - y*|, |y_(j-1) - y*|) give the bound. With test "z"
# a gradient of relative * |z - y_1| is small enough, too.
def agd_loop(grad, y, eps, L, sigma, test="y", relative=0.0):
    step, root = 1.0 / L, math.sqrt(L / sigma)
    momentum, square = (root - 1.0) / (root + 1.0), eps * eps
    g = grad(y)
    size = float(g.dot(g))
    if size <= square:
        return y, True
    largest = 18.0 * root**6 * size
    relative, start, z = relative * relative, y, y
    for _ in range(math.ceil(2.0 + root * math.log(largest / square))):
        new = z - step * g
        z = new + momentum * (new - y)
        y = new
        if test == "y":
            g = grad(y)
            size = float(g.dot(g))
            if size <= square:
                return y, True
            if not size <= largest:
                break
            g = grad(z)
            continue
        g = grad(z)
        if relative:
            d = z - start
            small = max(square, relative * float(d.dot(d)))
        else:
            small = square
        size = float(g.dot(g))
        if size <= small:
            return z, True
        if not size <= largest:
            break
    return y, False


# ---- methods: (oracle, x, options) -> (x, what is known of the curvature) -----------


# x <- x - grad f(x) / L1.
def gd(oracle, x, options):
    step, tol = 1.0 / options.L1, options.tol
    g = oracle.grad(x)
    while oracle.grad_norm > tol:
        x = x - step * g
        g = oracle.grad(x)
        oracle.record(x)
    return x, None


# Nesterov's method for convex functions, with the momentum (k - 1) / (k + 2).
def agd(oracle, x, options):
    step, tol, k = 1.0 / options.L1, options.tol, 1
    y, g = x, oracle.grad(x)
    while oracle.grad_norm > tol:
        new = y - step * g
        y = new + ((k - 1.0) / (k + 2.0)) * (new - x)
        x, k = new, k + 1
        g = oracle.grad(y)
        oracle.record(y)
    return y, None


# Nesterov (2012): the gradient of a convex f is made small by minimising
# f + sigma / 2 |x - x_0|^2. The right sigma is about tol / |x_0 - x*|, which nobody
# knows, so it falls from L1 by factors of four; the last round costs most.
def prox_agd(oracle, x, options):
    start, L1, tol = x, options.L1, options.tol
    oracle.grad(x)
    sigma = L1
    while oracle.grad_norm > tol:
        if sigma < oracle.eps * L1:
            oracle.stall("the proximal weight fell below rounding: is f convex?")

        def regularised(y, sigma=sigma):
            return oracle.grad(y) + sigma * (y - start)

        x, converged = agd_loop(regularised, x, tol / 2, L1 + sigma, sigma, "z")
        oracle.grad(x)
        oracle.record(x)
        if not converged:
            oracle.stall(
                "a proximal step did not converge: f is not convex, L1 is too small, "
                "or tol is below rounding"
            )
        sigma /= 4.0
    return x, None


# Local curvature along the gradient, the first guess where nobody gave L1.
def first_estimate(oracle, x):
    g, norm = oracle.grad(x), oracle.grad_norm
    if norm == 0:
        return 1.0
    h = oracle.eps ** (1 / 3) * (1.0 + math.sqrt(float(x.dot(x)))) / norm
    change = oracle.probe(x - h * g) - g
    L = math.sqrt(float(change.dot(change))) / (h * norm)
    return L if L > 0 else 1.0


# Nesterov's method with backtracking on L, and a restart of the momentum when it
# points uphill. The values never rise, so it may be used where f is not convex.
def nag_restart(oracle, x, options):
    tol = options.tol
    value = oracle.fun(x)
    oracle.grad(x)
    if oracle.grad_norm <= tol:
        return x, None
    L = options.L1 or first_estimate(oracle, x)
    y, t = x, 1.0
    while True:
        g, norm = oracle.grad(y), oracle.grad_norm
        oracle.record(y)
        if norm <= tol:
            return y, None
        at_y = oracle.fun(y)
        noise = 4.0 * oracle.eps * abs(at_y)
        while True:
            new = y - g * (1.0 / L)
            at_new = oracle.trial(new)
            # Where rounding hides the decrease, the last L is kept.
            promised = norm * norm / (2.0 * L)
            seen = promised > 4.0 * noise
            if at_new <= at_y - promised or not (seen or at_new > at_y + 8.0 * noise):
                break
            L *= 2.0
            if not L < LARGEST:
                oracle.stall("no step along the gradient decreases f")
        if y is not x and at_new > value + noise:
            y, t = x, 1.0
            continue
        uphill = float(g.dot(new - x)) > 0
        following = 1.0 if uphill else (1.0 + math.sqrt(1.0 + 4.0 * t * t)) / 2.0
        y = new if uphill else new + ((t - 1.0) / following) * (new - x)
        x, value, t = new, at_new, following
        if seen:
            L *= 0.9


# Marumo and Takeda (2024): momentum k / (k + 1), restarted when a bound that rests on
# an estimate M of the Lipschitz constant of the Hessian says that it no longer helps.
def restarted_agd(oracle, x, options):
    tol = options.tol
    oracle.grad(x)
    if oracle.grad_norm <= tol:
        return x, None
    L = options.L1 or first_estimate(oracle, x)
    at_x, g_x = oracle.fun(x), oracle.grad(x)
    while True:
        # One epoch.
        start, y, g_y = at_x, x, g_x
        S, M, k = 0.0, 0.0, 0
        while True:
            k += 1
            theta = k / (k + 1.0)
            old, at_old, g_old = x, at_x, g_x
            x = y - g_y * (1.0 / L)
            v = x - old
            length = math.sqrt(float(v.dot(v)))
            S += length * length
            at_x = oracle.trial(x)
            # Where rounding hides the decrease, the last L is kept.
            noise = 4.0 * oracle.eps * abs(start)
            promised = L * S / (2.0 * (k + 1))
            seen = promised > 4.0 * noise
            if at_x > start + (-promised if seen else 8.0 * noise):
                x, at_x, g_x, L = old, at_old, g_old, 2.0 * L
                if not L < LARGEST:
                    oracle.stall("no step along the gradient decreases f")
                break
            g_x = oracle.grad(x)
            oracle.record(x)
            if oracle.grad_norm <= tol:
                return x, None
            y = x + theta * v
            g_y, at_y = oracle.grad(y), oracle.fun(y)
            if oracle.grad_norm <= tol:
                return y, None
            u = theta * length
            if u > 1e-90:
                cubic = at_y - at_x - theta * float((g_x + g_y).dot(v)) / 2.0 - noise
                kink = g_y + theta * g_old - (1.0 + theta) * g_x
                kink = math.sqrt(float(kink.dot(kink)))
                M = max(M, 12.0 * cubic / u**3, kink / (u * length))
            if (k + 1) ** 5 * (M / L) ** 2 * S > 1.0:
                if seen:
                    L *= 0.9
                break
