r"""
Methods that stop at small gradients, and look whether they stand at a saddle.

Where :math:`\lVert \nabla f(x) \rVert \le \varepsilon`, Lanczos' method either shows
that :math:`\lambda_{\min}(\nabla^2 f(x)) \ge -\alpha`, or finds a direction of negative
curvature, along which the function falls and the method goes on.
"""

import math

import numpy as np
from scipy.optimize import minimize

from lib._backend import to_numpy
from lib.acceleration.curvature import lanczos
from lib.acceleration.oracle import Curvature

__all__ = []

#: Pairs that L-BFGS remembers; scipy's default of 10 takes twice as many gradients.
MEMORY = 100


# Is the smallest eigenvalue at x at least -alpha? Returns what is known of it, and None
# or a unit vector of curvature at most -alpha / 2. The bound is the probabilistic one
# of the coefficients of Lanczos' method, which needs no constants. The k-th look of a
# run may err with probability delta / (k (k + 1)), which adds up to delta.
def examine(oracle, x, options, look):
    value, v, _, exact = lanczos(
        lambda v: oracle.hessp(x, v),
        oracle.dim,
        oracle.dim,
        options.rng,
        x,
        -options.alpha / 2,
        (options.alpha, options.delta / (look * (look + 1))),
    )
    if value <= -options.alpha / 2:
        return Curvature(value, -math.inf, False), v
    return Curvature(value, value if exact else -options.alpha, False), None


# Where the gradient is small: either what is known of the curvature there, or None and
# a lower point, reached along a direction of negative curvature.
def settle(oracle, x, options, look):
    curvature, v = examine(oracle, x, options, look)
    if v is None:
        oracle.record(x, "certificate")
        return x, curvature
    x = _descend(oracle, x, v, curvature.value, options.L2)
    oracle.grad(x)
    oracle.record(x, "negative curvature")
    return x, None


# The first step along v is the one for which L2 guarantees a third of what the
# curvature promises, or 1. It is doubled as long as f falls, or halved until f has
# fallen by a quarter of the promise.
def _descend(oracle, x, v, value, L2):
    if float(oracle.grad(x).dot(v)) > 0.0:
        v = -v
    f = oracle.fun(x)
    t = 1.0 if L2 is None else 2.0 * abs(value) / L2
    there = x + t * v
    below = oracle.trial(there)
    while not below < min(f, f + t**2 * value / 8.0):
        t /= 2.0
        if t < 1e-9:
            oracle.stall(f"rounding hides the decrease by a curvature of {value:.3g}")
        there = x + t * v
        below = oracle.trial(there)
    while t < 1e9:
        further = x + 2.0 * t * v
        if not oracle.trial(further) < below:
            break
        t, there, below = 2.0 * t, further, oracle.trial(further)
    return there


# L-BFGS until the gradient is small, then a look at the curvature, and on from there.
def lbfgs_nc(oracle, x, options):
    look, curvature = 0, None
    while curvature is None:
        x, look = _lbfgs(oracle, x, options.tol), look + 1
        x, curvature = settle(oracle, x, options, look)
    return x, curvature


# L-BFGS from x to the first iterate with a small gradient; where a line search fails,
# anew from the lowest point as long as that helps.
def _lbfgs(oracle, x, tol):
    while True:
        oracle.grad(x)
        if oracle.grad_norm <= tol:
            return x
        f = oracle.fun(x)
        x, message = _lbfgs_once(oracle, x, tol)
        oracle.grad(x)
        if oracle.grad_norm > tol and not oracle.fun(x) < f:
            oracle.stall(
                f"L-BFGS makes no progress at a gradient of {oracle.grad_norm:.3g}: "
                f"{message}"
            )


class _Small(Exception):
    pass


# scipy's L-BFGS-B without bounds and without its own tests of convergence.
def _lbfgs_once(oracle, x, tol):
    first, latest, lowest = True, x, (oracle.fun(x), x)

    def evaluate(z):
        nonlocal first, latest, lowest
        latest = x if first else oracle.asarray(z.copy())
        first = False
        g, f = oracle.grad(latest), oracle.fun(latest)
        if f < lowest[0]:
            lowest = f, latest
        return f, to_numpy(g).astype(np.float64)

    def accept(_):
        # The iterate is the point that was evaluated last.
        oracle.record(latest)
        if oracle.grad_norm <= tol:
            raise _Small

    limits = {"maxcor": MEMORY, "maxiter": 10**9, "maxfun": 10**9}
    try:
        result = minimize(
            evaluate,
            to_numpy(x).astype(np.float64),
            jac=True,
            method="L-BFGS-B",
            callback=accept,
            options=limits | {"ftol": 0.0, "gtol": 0.0},
        )
    except _Small:
        return latest, ""
    return lowest[1], result.message


# Perturbed accelerated gradient descent with the constants of the paper, whose
# universal constant c is 1. It stops at a point from which a perturbation has not led
# down, if the curvature there passes the examination.
def pagd(oracle, x, options):
    L1, L2, tol = options.L1, options.L2, options.tol
    kappa = max(L1 / math.sqrt(L2 * tol), 1.0)
    drop = 1.0 if options.Delta is None else options.Delta
    chi = max(1.0, math.log(oracle.dim * L1 * drop / (L2 * tol * options.delta)))
    eta = 1.0 / (4.0 * L1)
    theta = 1.0 / (4.0 * math.sqrt(kappa))
    gamma = theta**2 / eta
    length = gamma / (4.0 * L2)
    period = math.ceil(chi * math.sqrt(kappa))
    radius = eta * tol / chi**5
    enough = math.sqrt(tol**3 / L2) / chi**5

    v, look, since, kept = x * 0, 0, None, None
    while True:
        if since is None:
            oracle.grad(x)
            f = oracle.fun(x)
            if oracle.grad_norm <= tol:
                since, kept = 0, (x, f)
                x = x + oracle.asarray(_in_ball(options.rng, oracle.dim, radius))
                oracle.record(x, "perturbation")
        f = oracle.fun(x)
        if since == period:
            since = None
            if f + float(v.dot(v)) / (2.0 * eta) > kept[1] - enough:
                look += 1
                curvature, _ = examine(oracle, kept[0], options, look)
                if curvature.bound >= -options.alpha:
                    oracle.record(kept[0], "certificate")
                    return kept[0], curvature
            continue
        y = x + (1.0 - theta) * v
        g = oracle.grad(y)
        tangent = oracle.fun(y) + float(g.dot(x - y))
        ahead = y - eta * g
        # Between x and y, f falls below its tangent by more than curvature -gamma can.
        if _norm(v) > 0.0 and f <= tangent - gamma / 2.0 * _norm(x - y) ** 2:
            x, v = _exploit(oracle, x, v, length), v * 0
            oracle.record(x, "negative curvature")
        else:
            x, v = ahead, ahead - x
            oracle.record(x)
        since = None if since is None else since + 1


# Of two steps along a small velocity the lower one, and none along a large one.
def _exploit(oracle, x, v, length):
    speed = _norm(v)
    if speed >= length:
        return x
    step = v * (length / speed)
    return min(x + step, x - step, key=oracle.fun)


def _in_ball(rng, d, radius):
    direction = rng.standard_normal(d)
    return direction * (radius * rng.random() ** (1.0 / d) / np.linalg.norm(direction))


def _norm(v):
    return math.sqrt(float(v.dot(v)))
