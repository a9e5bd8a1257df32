r"""
Methods that stop at small gradients, and look whether they stand at a saddle.

Where :math:`\lVert \nabla f(x) \rVert \le \varepsilon`, Lanczos' method either shows
that :math:`\lambda_{\min}(\nabla^2 f(x)) \ge -\alpha`, or finds a direction of negative
curvature, along which the function falls and the method goes on.
"""

import math
from collections import deque

import numpy as np

from lib.acceleration.curvature import lanczos
from lib.acceleration.oracle import Curvature

__all__ = []

#: Pairs of a step and a change of the gradient that L-BFGS remembers: ten times as many
#: as usual, for half the gradients on a badly conditioned network.
MEMORY = 100

#: All but so many are forgotten again when the function was larger by this factor then:
#: the curvature of a loss that tends to zero falls with it, and old pairs mislead.
RECENT, STALE = 10, 2.0

#: Steps without progress beyond rounding after which a run gives up.
STALLED_AFTER = 30


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


# L-BFGS from x to the first iterate with a small gradient, in the oracle's own kind.
def _lbfgs(oracle, x, tol):
    f, g = oracle.fun(x), oracle.grad(x)
    pairs, idle, smallest = deque(maxlen=MEMORY), 0, oracle.grad_norm
    while oracle.grad_norm > tol:
        norm = oracle.grad_norm
        d = -_times_inverse(pairs, g)
        slope = float(g.dot(d))
        step = 1.0 if pairs else min(1.0, 1.0 / norm)
        found = _wolfe_step(oracle, x, f, d, slope, step) if slope < 0.0 else None
        noise = 4.0 * oracle.eps * abs(f)
        idle = 0 if found and (found[1] < f - noise or norm < smallest) else idle + 1
        smallest = min(smallest, norm)
        if idle >= STALLED_AFTER or not (found or pairs):
            oracle.stall(f"L-BFGS makes no progress at a gradient of {norm:.3g}")
        if not found:
            pairs.clear()  # the gradient itself is a direction of descent
            oracle.grad(x)
            continue
        new, f, at_new = found
        s, y = new - x, at_new - g
        inner = float(s.dot(y))
        if inner > oracle.eps * float(y.dot(y)):
            pairs.append((s, y, inner, f))
        while len(pairs) > RECENT and pairs[0][3] > STALE * f > 0.0:
            pairs.popleft()
        x, g = new, at_new
        oracle.record(x)
    return x


# The inverse of the Hessian that the pairs (s, y) suggest, times g: two loops.
def _times_inverse(pairs, g):
    kept = []
    for s, y, inner, _ in reversed(pairs):
        a = s.dot(g) / inner
        g = g - a * y
        kept.append(a)
    if pairs:
        _, y, inner, _ = pairs[-1]
        g = g * (inner / y.dot(y))
    for (s, y, inner, _), a in zip(pairs, reversed(kept), strict=True):
        g = g + (a - y.dot(g) / inner) * s
    return g


# A point x + t d at which f has fallen, and its slope along d is no longer steep; there
# f, and the gradient, which is asked for at points only that have the first. None if
# there is no such point as far as rounding lets us see.
def _wolfe_step(oracle, x, f, d, slope, t):
    low, high = 0.0, math.inf
    noise = 4.0 * oracle.eps * abs(f)
    for _ in range(60):
        there = x + t * d
        value = oracle.trial(there)
        if value > f + 1e-4 * t * slope + noise:
            high = t
            # the minimiser of a parabola, within reason
            bend = value - f - slope * t
            guess = -0.5 * slope * t * t / bend if low == 0.0 and bend > 0.0 else 0.0
            t = max(low + 0.1 * (t - low), min(guess or math.inf, 0.5 * (low + t)))
            continue
        g = oracle.grad(there)
        if float(g.dot(d)) >= 0.9 * slope:
            return there, value, g
        low = t
        t = 2.0 * t if high == math.inf else 0.5 * (low + high)
    return None


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
