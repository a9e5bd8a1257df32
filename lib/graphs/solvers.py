r"""
Solvers of the graph's weights, for one problem at a time.

All of them minimise the reduced objective over :math:`w \ge 0` and stop by its
projected gradient. The default is a projected quasi-Newton method. Where an edge is
free its metric starts from the curvature of a graph with constant resistances,

.. math::
    M = \mathrm{diag}(2 a_i a_j) + B^\top \mathrm{diag}(a_i^2) B,

with B the incidence of nodes and edges and :math:`a_i^2` the curvature at node i: a
diagonal plus rank p, so that Woodbury's formula inverts it with one p by p Cholesky
factor. L-BFGS updates do the rest.
"""

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs, dtrtrs
from scipy.optimize import OptimizeResult

from lib.graphs.objective import _phi, _residual
from lib.graphs.operators import _adjoint, _nodes, edge_index

__all__ = []

#: Pairs of steps and gradient changes that the quasi-Newton metric remembers.
MEMORY = 8
#: An edge at most this share of a diagonal Newton step from 0, and on its way there,
#: goes to 0 in the next step.
NEAR = 0.1
#: Sufficient decrease, as a share of what the gradient promises.
ARMIJO = 1e-4


class _Cholesky:
    # The objective where one Cholesky factor gives it: no relaxation, and no prior or
    # a constant one. It costs p^3 flops an evaluation, 10 times less than eigenvectors.
    def __init__(self, cost, p, gamma=0.0, centre=0.0):
        self.p, self.cost, self.gamma, self.centre = p, cost, gamma, centre
        self.i, self.j = edge_index(p)
        self.flat = self.i * p + self.j
        self.diagonal = np.arange(p) * (p + 1)
        self.ones = np.ones(p)
        self.upper = np.zeros((p, p))
        self.work = np.empty((p, p))
        self.evaluations = 0

    def degrees(self, w):
        self.upper.ravel()[self.flat] = w
        return self.upper @ self.ones + self.ones @ self.upper

    def __call__(self, w):
        # Value, gradient and the square root of each node's curvature.
        self.evaluations += 1
        d = self.degrees(w)
        M, flat = self.work, self.work.ravel()
        np.subtract(1.0 / self.p, self.upper, out=M)
        flat[self.diagonal] = d + 1.0 / self.p
        # The upper triangle of rows is the lower one of columns, without a copy.
        L, failed = dpotrf(M.T, lower=1, clean=0, overwrite_a=1)
        if failed:
            return np.inf, None, None
        f = self.cost @ w - 2.0 * np.log(flat[self.diagonal]).sum()
        _, failed = dpotri(L, lower=1, overwrite_c=1)
        x = flat[self.diagonal]
        g = (x[:, None] + x).ravel()[self.flat]
        g -= 2.0 * flat[self.flat]
        np.subtract(self.cost, g, out=g)
        a = x - 1.0 / self.p
        if self.gamma:
            pairs = 2.0 * w + d[self.i] + d[self.j]  # gram
            f += self.gamma * (
                0.5 * (pairs @ w)
                - 2.0 * self.centre * w.sum()
                + 0.5 * (self.p - 1) * self.centre**2
            )
            g += self.gamma * (pairs - 2.0 * self.centre)
            a = np.sqrt(a * a + self.gamma)
        return f, g, a


class _Spectral(_Cholesky):
    # The objective of any spectral prior and relaxation: one eigendecomposition.
    def __init__(self, cost, p, mu, gamma, beta):
        super().__init__(cost, p, gamma)
        self.mu, self.beta = mu, beta

    def __call__(self, w):
        self.evaluations += 1
        d = self.degrees(w)
        top = 2.0 * d.max() + 1.0
        M = top / self.p - self.upper
        M -= self.upper.T
        M.ravel()[self.diagonal] += d
        sigma, U = np.linalg.eigh(M)
        # The constant vector has the largest eigenvalue by this shift, and goes.
        sigma, U = sigma[:-1], U[:, :-1]
        f, slope, lam = _phi(sigma, self.mu, self.gamma, self.beta)
        f = f.sum() + self.cost @ w
        if not np.isfinite(f):
            return np.inf, None, None
        bend = 1.0 / (1.0 / self.beta + 1.0 / (self.gamma + lam**-2.0))
        a = np.square(U) @ np.sqrt(bend)
        return f, self.cost + _adjoint((U * slope) @ U.T), a


def _objective(cost, p, mu, gamma, beta):
    # mu without its first entry; None or a scalar where there is no prior.
    if np.isinf(beta) and (gamma == 0 or np.ptp(mu) == 0):
        return _Cholesky(cost, p, gamma, 0.0 if gamma == 0 else float(np.ravel(mu)[0]))
    return _Spectral(cost, p, 0.0 if gamma == 0 else mu, gamma, beta)


class _Log:
    # What a solver reports of its iterations.
    def __init__(self, objective):
        self.objective = objective
        self.rows = []

    def __call__(self, w, f, g):
        r = float(_residual(w, g, self.objective.p))
        self.rows.append((f, r, self.objective.evaluations))
        return r

    def result(self, w, f, g, tol, message):
        values, residuals, evaluations = np.array(self.rows).T
        r = residuals[-1]
        return OptimizeResult(
            x=w,
            fun=float(f),
            jac=g,
            kkt_residual=float(r),
            success=bool(r <= tol),
            message="the projected gradient is within tol" if r <= tol else message,
            nit=len(self.rows) - 1,
            nfev=self.objective.evaluations,
            history={
                "objective": values,
                "kkt_residual": residuals,
                "evaluations": evaluations.astype(int),
            },
        )


def _quasi_newton(objective, w, *, tol, max_iter, allowed=None):
    log = _Log(objective)
    open_ = np.ones(len(w), dtype=bool) if allowed is None else allowed
    f, g, a = objective(w)
    g = g * open_
    pairs = _Pairs(len(w))
    message = f"stopped after max_iter={max_iter} iterations"
    for _ in range(max_iter):
        if log(w, f, g) <= tol:
            break
        bend = (a[objective.i] + a[objective.j]) ** 2
        free = open_ & ((g <= 0) | (w * bend > NEAR * g))
        metric = _Metric(objective, a, free)
        step = np.where(free, -pairs.solve(g * free, free, metric), -w)
        if step @ g >= 0:  # rounding, or a curvature that fooled the metric
            pairs = _Pairs(len(w))
            step = np.where(free, -metric(g * free), -w)
        t, new = 1.0, None
        while t > 1e-12:
            moved = np.maximum(w + t * step, 0.0)
            change = moved - w
            value, *rest = objective(moved)
            if value <= f + ARMIJO * (g @ change) + _rounding(f, objective.p):
                new = rest
                break
            t *= 0.5 if np.isfinite(value) else 0.25
        if new is None:
            message = "no step along the search direction lowers the objective"
            break
        pairs.add(change, new[0] * open_ - g)
        w, f, g, a = moved, value, new[0] * open_, new[1]
    else:
        log(w, f, g)
    return log.result(w, f, g, tol, message)


class _Metric:
    # Product with the inverse of M on the free edges, by Woodbury's formula.
    def __init__(self, objective, a, free):
        self.o = objective
        b = 1.0 / a
        self.inverse = (b[:, None] * (0.5 * b)).ravel()[objective.flat] * free
        d = objective.degrees(self.inverse)
        K = objective.upper + objective.upper.T
        K.ravel()[objective.diagonal] = d + b * b
        self.factor, _ = dpotrf(K.T, lower=1, clean=0, overwrite_a=1)

    def __call__(self, v):
        u = v * self.inverse
        y, _ = dpotrs(self.factor, self.o.degrees(u), lower=1)
        u -= (y[self.o.i] + y[self.o.j]) * self.inverse
        return u


class _Pairs:
    # L-BFGS on the free edges. The pairs are restricted to them, so their products
    # are computed again; two triangular solves replace the two loops.
    def __init__(self, m):
        self.steps = np.empty((MEMORY, m))
        self.changes = np.empty((MEMORY, m))
        self.count = 0

    def add(self, step, change):
        if step @ change > 0:
            at = self.count % MEMORY
            self.steps[at], self.changes[at] = step, change
            self.count += 1

    def solve(self, v, free, metric):
        held = min(self.count, MEMORY)
        if held == 0:
            return metric(v)
        order = [(self.count - held + k) % MEMORY for k in range(held)]
        S, Y = self.steps[order] * free, self.changes[order]
        R = S @ Y.T
        good = R.diagonal() > 1e-10 * abs(R).max()
        if not good.all():
            S, Y, R = S[good], Y[good], R[good][:, good]
            if not len(S):
                return metric(v)
        diagonal = R.diagonal().copy()
        R = np.asfortranarray(np.triu(R))
        first, _ = dtrtrs(R, S @ v)
        r = metric(v - (first @ Y) * free)
        second, _ = dtrtrs(R, diagonal * first - Y @ r, trans=1)
        return r + second @ S


def _fista(objective, w, *, tol, max_iter, allowed=None):
    # Beck and Teboulle's method with backtracking, started again where the momentum
    # points uphill.
    open_ = np.ones(len(w), dtype=bool) if allowed is None else allowed
    log = _Log(objective)
    f, g, _ = objective(w)
    g = g * open_
    y, fy, gy = w, f, g
    rate = (w.sum() / objective.p) ** 2 / objective.p
    t = 1.0
    message = f"stopped after max_iter={max_iter} iterations"
    for _ in range(max_iter):
        if log(w, f, g) <= tol:
            break
        new = None
        while rate > 1e-30:
            moved = np.maximum(y - rate * gy, 0.0)
            change = moved - y
            value, *new = objective(moved)
            bound = fy + gy @ change + (change @ change) / (2.0 * rate)
            if value <= bound + _rounding(fy, objective.p):
                break
            new = None
            rate *= 0.5
        if new is None:
            message = "no step size fits the objective"
            break
        restart = (y - moved) @ (moved - w) > 0
        t, before = (1.0, 1.0) if restart else (0.5 + np.sqrt(0.25 + t * t), t)
        w, previous, f, g = moved, w, value, new[0] * open_
        y, fy, gy = w, f, g
        if not restart:
            y = np.maximum(w + (before - 1.0) / t * (w - previous), 0.0)
            fy, gy, _ = objective(y)
            if gy is None:
                t, y, fy, gy = 1.0, w, f, g
            gy = gy * open_
        rate *= 1.05
    else:
        log(w, f, g)
    return log.result(w, f, g, tol, message)


def _block_mm(objective, w, *, tol, max_iter, step=1.0, allowed=None):
    # The report's sweep. Eigenvectors and relaxed eigenvalues are exact for the
    # weights, so the weights make a projected gradient step on the reduced objective.
    open_ = np.ones(len(w), dtype=bool) if allowed is None else allowed
    log = _Log(objective)
    rate = step / (2.0 * objective.p * objective.beta)
    f, g, _ = objective(w)
    g = g * open_
    for _ in range(max_iter):
        if log(w, f, g) <= tol:
            break
        w = np.maximum(w - rate * g, 0.0)
        f, g, _ = objective(w)
        if g is None:
            raise FloatingPointError("the objective is infinite after a sweep")
        g = g * open_
    else:
        log(w, f, g)
    message = f"stopped after max_iter={max_iter} iterations"
    return log.result(w, f, g, tol, message)


SOLVERS = {"lbfgs": _quasi_newton, "fista": _fista, "block_mm": _block_mm}


def _rounding(f, p):
    # Of the objective, a sum of p logarithms and a cost of about p.
    return 2e-15 * (abs(f) + p)


def _check_bounded(cost, allowed=None):
    # An edge that costs nothing could grow forever.
    if allowed is not None:
        cost = cost[allowed]
    if cost.min() <= 1e-14 * cost.max() or cost.max() == 0:
        raise ValueError(
            "X must tell every two nodes apart: two of them have equal signals, and "
            "the likelihood is unbounded; take alpha > 0"
        )


def _scaled(w, cost):
    # On the scale that every optimum without a prior has, and connected.
    p = _nodes(w)
    total = cost @ w
    if not total > 0:
        w, total = np.ones_like(w), max(cost.sum(), np.finfo(float).tiny)
    w = w * ((p - 1) / total)
    return w + 1e-3 * w.mean() + 1e-12


def _pinv_start(S, cost):
    i, j = edge_index(len(S))
    return _scaled(np.maximum(-np.linalg.pinv(S, hermitian=True)[i, j], 0.0), cost)


def _near_start(cost):
    # Edges between nodes with near signals: nothing to compute, and as good as S^+.
    return _scaled(np.maximum(cost, 1e-3 * cost.mean() + 1e-300) ** -2.0, cost)


def _convex_start(cost):
    # The maximum-likelihood graph, roughly: the one start that the data determine.
    w = _near_start(cost)
    if cost.min() <= 1e-14 * cost.max():  # there is none
        return w
    problem = _objective(cost, _nodes(cost), None, 0.0, np.inf)
    w = _quasi_newton(problem, w, tol=1e-3, max_iter=200).x
    return w + 1e-3 * w.mean()


def _largest(w, p, k):
    # A maximum spanning tree, and the largest of the other weights.
    from scipy.sparse.csgraph import minimum_spanning_tree

    i, j = edge_index(p)
    rank = np.empty(len(w), dtype=int)
    rank[np.argsort(-w, kind="stable")] = np.arange(1, len(w) + 1)
    cost = np.zeros((p, p))
    cost[i, j] = rank
    tree = minimum_spanning_tree(cost).toarray()[i, j] > 0
    allowed = tree.copy()
    allowed[np.argsort(np.where(tree, len(w) + 1, rank))[: k - (p - 1)]] = True
    return allowed
