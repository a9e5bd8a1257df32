r"""
Many graphs at once: the quasi-Newton solver of the wing, batched.

The iteration is that of ``lib.graphs.solvers``, in lockstep over a batch of problems;
each has its own free edges, metric, step and end, so that nothing depends on what a
problem was batched with.
"""

import sys
from typing import NamedTuple

import numpy as np

from lib._backend import (
    as_float_array,
    check_integer,
    check_real,
    check_same_kind,
    is_torch,
    to_numpy,
)
from lib.graphs.objective import _check_covariance, _check_prior, _phi, _residual
from lib.graphs.operators import _adjoint, _incidence, _index, _make, _nodes
from lib.graphs.solvers import ARMIJO, MEMORY, NEAR, _rounding

__all__ = ["BatchFit", "fit_batch"]

#: Largest matrix whose eigenvectors a GPU is trusted to find faster than a processor.
#: One H100 took 0.9 microseconds a matrix in batches at p = 30 and 1,300 at p = 100,
#: where one processor core took 870.
EIGEN_LIMIT = 32


class BatchFit(NamedTuple):
    """
    What ``fit_batch`` found, one entry a problem.

    Attributes
    ----------
    weights : ndarray or Tensor of shape (B, m)
        Edge weights.
    objective : ndarray or Tensor of shape (B,)
        Objective there.
    kkt_residual : ndarray or Tensor of shape (B,)
        Projected gradient, in units of the mean weighted degree.
    converged : ndarray or Tensor of bool, shape (B,)
        Whether it is at most the tolerance.
    n_iter : ndarray or Tensor of int, shape (B,)
        Iterations of each problem.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.graphs import fit_batch
    >>> fit = fit_batch(np.stack([np.eye(4), 2 * np.eye(4)]), beta=np.inf)
    >>> np.round(fit.weights[:, 0], 6)
    array([0.25 , 0.125])
    """

    weights: object
    objective: object
    kkt_residual: object
    converged: object
    n_iter: object


def fit_batch(
    S,
    mu=None,
    gamma=0.0,
    *,
    beta=100.0,
    alpha=0.0,
    init=None,
    tol=1e-6,
    max_iter=500,
    device=None,
    sort=False,
):
    r"""
    Solve many graphon-aided graphical lassos at once.

    .. math:: \min_{w_b \ge 0} F(w_b;\, S_b, \mu_b, \gamma_b, \beta, \alpha), \qquad
        b = 1, \dots, B,

    with the objective of ``spectral_objective``.

    Parameters
    ----------
    S : array-like or Tensor of shape (B, p, p)
        Second moments of the signals.
    mu : array-like or Tensor of shape (p,) or (B, p), optional
        The priors' spectra, ascending; the first entry is used by nobody. Needed where
        gamma > 0.
    gamma : float, array-like or Tensor of shape (B,), default=0.0
        Weights of the priors, at least 0.
    beta : float, default=100.0
        Weight of the relaxation, positive; ``inf`` ties the eigenvalues to the graph.
    alpha : float, default=0.0
        Weight of the l1 penalty, at least 0.
    init : array-like or Tensor of shape (B, m), optional
        Starts, connected graphs; the maximum-likelihood graphs by default.
    tol : float, default=1e-6
        Tolerance for the projected gradient, in units of the mean weighted degree.
    max_iter : int, default=500
        Most iterations of a problem.
    device : str or torch.device, optional
        Where to solve; that of ``S`` by default.
    sort : bool, default=False
        Whether to sort ``mu`` instead of refusing it where it is not ascending.

    Returns
    -------
    BatchFit
        Weights, objectives, projected gradients, whether they are within ``tol``, and
        iterations; arrays of the kind and device of ``S``, the numbers of its dtype.

    Raises
    ------
    TypeError
        If an argument has a wrong type, or arrays and tensors are mixed.
    ValueError
        If a shape does not fit or an argument is out of its range, or an objective is
        unbounded because two nodes have equal signals.

    Notes
    -----
    All is computed in float64. One or two matrix factorisations of O(p^3) an iteration
    and problem: Cholesky factors where beta is infinite and there is no prior or a
    constant one, else eigenvectors. On a GPU the latter are found on the processor
    for p > 32, since batched eigenvectors of larger matrices are slower there.

    References
    ----------
    .. [1] D. P. Bertsekas, "Projected Newton methods for optimization problems with
       simple constraints", SIAM J. Control Optim. 1982.
    .. [2] A. Banta, M. Navarro and N. Zilberstein, "Graphon-aided graphical lasso with
       structured sparsity", report, equation (1).

    Examples
    --------
    >>> import numpy as np
    >>> from lib.graphs import fit_batch
    >>> X = np.random.default_rng(0).standard_normal((10, 50, 6))
    >>> S = np.swapaxes(X, 1, 2) @ X / 50
    >>> fit = fit_batch(S, np.arange(6.0), gamma=0.04)
    >>> fit.weights.shape, bool(fit.converged.all())
    ((10, 15), True)
    """
    import torch

    S = _check_covariance(S, ndim=3)
    kind = S
    p = S.shape[-1]
    B, m = len(S), p * (p - 1) // 2
    check_real("tol", tol)
    check_integer("max_iter", max_iter)
    weights = as_float_array(gamma, "gamma", ndim=(0, 1))
    if weights.ndim == 1 and len(weights) != B:
        raise ValueError(f"gamma must be one number or {B}, got {len(weights)}")
    if bool((weights < 0).any()):
        raise ValueError(f"gamma must be >= 0, got {float(weights.min())!r}")
    mu = _check_prior(mu, p, float(weights.max()), beta, alpha, sort=sort)
    for name, value in (("mu", mu), ("init", init)):
        if value is not None:
            check_same_kind(S, value, ("S", name))
    if device is None:
        device = S.device if is_torch(S) else "cpu"

    def place(x):
        x = x if is_torch(x) else torch.tensor(np.asarray(x))
        return x.to(device, torch.float64)

    S, weights = place(S), place(weights).expand(B)[:, None]
    cost = _adjoint(S) + alpha
    low = cost.amin(-1) <= 1e-14 * cost.amax(-1)
    if bool((low & (weights[:, 0] == 0)).any()):
        raise ValueError(
            "S must tell every two nodes apart: in one of them two nodes have equal "
            "signals, and the likelihood is unbounded; take alpha > 0"
        )
    target = place(0.0 if mu is None else mu)
    target = target.expand(B, p)[:, 1:]
    if init is None:
        w = _starts(cost, low)
    else:
        w = place(as_float_array(init, "init"))
        if tuple(w.shape) != (B, m) or bool((w < 0).any()):
            raise ValueError(
                f"init must be >= 0 and have shape {(B, m)}, got {tuple(w.shape)}"
            )
    fit = _minimise(cost, target, weights, beta, w, tol, max_iter)
    if is_torch(kind):
        numbers = [x.to(kind.device, kind.dtype) for x in fit[:3]]
        return BatchFit(*numbers, *(x.to(kind.device) for x in fit[3:]))
    numbers = [to_numpy(x).astype(kind.dtype) for x in fit[:3]]
    return BatchFit(*numbers, *(to_numpy(x) for x in fit[3:]))


def _starts(cost, low):
    # As for one problem: the maximum-likelihood graph, roughly, where there is one.
    torch = sys.modules["torch"]
    floor = 1e-3 * cost.mean(-1, keepdim=True) + 1e-300
    w = _scaled_rows(torch.maximum(cost, floor) ** -2.0, cost)
    good = torch.nonzero(~low)[:, 0]
    if len(good):
        some = cost[good]
        zero = some.new_zeros(len(good), 1)
        fit = _minimise(some, zero, zero, np.inf, w[good], 1e-3, 200)
        w[good] = fit.weights + 1e-3 * fit.weights.mean(-1, keepdim=True)
    return w


def _scaled_rows(w, cost):
    # As _scaled does for one problem.
    torch = sys.modules["torch"]
    p = _nodes(w)
    w = w * ((p - 1) / (cost * w).sum(-1, keepdim=True).clamp(min=1e-300))
    w = torch.where(torch.isfinite(w), w, 1.0)
    return w + 1e-3 * w.mean(-1, keepdim=True) + 1e-12


def _eigen_device(device, p):
    # Where eigenvectors are found: a GPU does it well only for small matrices.
    return "cpu" if device.type != "cpu" and p > EIGEN_LIMIT else device


def _evaluator(cost, target, gamma, beta):
    # A function of weights and row numbers that gives value, gradient and the square
    # root of the nodes' curvature.
    torch = sys.modules["torch"]
    p = _nodes(cost)
    i, j = _index(cost, p)
    constant = bool((target == target[:, :1]).all()) or bool((gamma == 0).all())

    def cholesky(w, rows):
        M = _make(w, p) + 1.0 / p
        L, failed = torch.linalg.cholesky_ex(M)
        bad = failed > 0
        if bool(bad.any()):
            L[bad] = torch.eye(p, dtype=w.dtype, device=w.device)
        X = torch.cholesky_inverse(L)
        c, weight, centre = cost[rows], gamma[rows], target[rows, :1]
        logdet = 2.0 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        f = (c * w).sum(-1) - logdet
        g = c - _adjoint(X)
        a = X.diagonal(dim1=-2, dim2=-1) - 1.0 / p
        d = M.diagonal(dim1=-2, dim2=-1) - 1.0 / p
        pairs = 2.0 * w + d[:, i] + d[:, j]
        prior = 0.5 * (pairs * w).sum(-1) - 2.0 * centre[:, 0] * w.sum(-1)
        f = f + weight[:, 0] * (prior + 0.5 * (p - 1) * centre[:, 0] ** 2)
        g = g + weight * (pairs - 2.0 * centre)
        return f.masked_fill(bad, torch.inf), g, (a * a + weight).sqrt()

    def spectral(w, rows):
        L = _make(w, p)
        top = 1.0 + 2.0 * L.diagonal(dim1=-2, dim2=-1).amax(-1)
        M = L + top[:, None, None] / p
        sigma, U = torch.linalg.eigh(M.to(_eigen_device(M.device, p)))
        sigma, U = sigma[:, :-1].to(w.device), U[:, :, :-1].to(w.device)
        weight = gamma[rows]
        f, slope, lam = _phi(sigma, target[rows], weight, beta)
        f = f.sum(-1) + (cost[rows] * w).sum(-1)
        g = cost[rows] + _adjoint((U * slope[:, None, :]) @ U.mT)
        bend = 1.0 / (1.0 / beta + 1.0 / (weight + lam**-2.0))
        a = (U.square() @ bend.sqrt()[..., None])[..., 0]
        return f, g, a

    return cholesky if np.isinf(beta) and constant else spectral


def _minimise(cost, target, gamma, beta, w, tol, max_iter):
    torch = sys.modules["torch"]
    B, m = w.shape
    p = _nodes(w)
    evaluate = _evaluator(cost, target, gamma, beta)
    out = BatchFit(
        w.clone(),
        w.new_full((B,), torch.inf),
        w.new_full((B,), torch.inf),
        torch.zeros(B, dtype=torch.bool, device=w.device),
        torch.zeros(B, dtype=torch.int64, device=w.device),
    )
    rows = torch.arange(B, device=w.device)
    running = torch.ones(B, dtype=torch.bool, device=w.device)
    f, g, a = evaluate(w, rows)
    steps = w.new_zeros(B, MEMORY, m)
    changes = w.new_zeros(B, MEMORY, m)
    for iteration in range(max_iter + 1):
        r = _residual(w, g, p)
        ended = running & (r <= tol)
        last = running if iteration == max_iter else ended
        _store(out, rows, last, (w, f, r, ended, iteration))
        running = running & ~last
        left = int(running.sum())
        if left == 0:
            break
        if left <= 0.8 * len(rows):  # go on with the rest alone
            keep = torch.nonzero(running)[:, 0]
            rows, w, f, g, a, steps, changes, running = (
                x[keep] for x in (rows, w, f, g, a, steps, changes, running)
            )
        bend = _pairwise(a, p) ** 2
        free = (g <= 0) | (w * bend > NEAR * g)
        metric = _metric(a, free, p)
        v = g * free
        newton = _quasi_newton_step(v, free, metric, steps, changes)
        step = torch.where(free, -newton, -w)
        uphill = ((step * g).sum(-1) >= 0)[:, None]
        if bool(uphill.any()):
            step = torch.where(uphill, torch.where(free, -metric(v), -w), step)
            steps, changes = steps * ~uphill[..., None], changes * ~uphill[..., None]
        moved, value, new, bent, found = _line_search(
            evaluate, rows, running, w, f, g, a, step
        )
        stuck = running & ~found
        _store(out, rows, stuck, (w, f, _residual(w, g, p), False, iteration))
        running = running & found
        change, bump = moved - w, new - g
        valid = ((change * bump).sum(-1) > 0)[:, None]
        steps = torch.cat([steps[:, 1:], (change * valid)[:, None]], dim=1)
        changes = torch.cat([changes[:, 1:], (bump * valid)[:, None]], dim=1)
        w, f, g, a = moved, value, new, bent
    return out


def _store(out, rows, which, values):
    index = rows[which]
    for place, value in zip(out, values, strict=True):
        place[index] = value[which] if hasattr(value, "shape") else value


def _line_search(evaluate, rows, running, w, f, g, a, step):
    torch = sys.modules["torch"]
    moved, value, new, bent = w.clone(), f.clone(), g.clone(), a.clone()
    found = torch.zeros_like(running)
    t = torch.ones_like(f)
    pending = torch.nonzero(running)[:, 0]
    for _ in range(40):
        trial = (w[pending] + t[pending, None] * step[pending]).clamp(min=0.0)
        ft, gt, at = evaluate(trial, rows[pending])
        bound = f[pending] + ARMIJO * (g[pending] * (trial - w[pending])).sum(-1)
        good = ft <= bound + _rounding(f[pending], a.shape[1])
        done = pending[good]
        moved[done], value[done], new[done], bent[done] = (
            trial[good],
            ft[good],
            gt[good],
            at[good],
        )
        found[done] = True
        t[pending] *= torch.where(torch.isfinite(ft), 0.5, 0.25)
        pending = pending[~good]
        if len(pending) == 0:
            break
    return moved, value, new, bent, found


def _pairwise(a, p):
    i, j = _index(a, p)
    return a[:, i] + a[:, j]


def _metric(a, free, p):
    # The inverse of diag(2 a_i a_j) + B' diag(a_i^2) B on the free edges.
    torch = sys.modules["torch"]
    b = 1.0 / a
    i, j = _index(a, p)
    inverse = 0.5 * b[:, i] * b[:, j] * free
    L = _make(inverse, p)
    d = L.diagonal(dim1=-2, dim2=-1)
    K = (2.0 * d + b * b).diag_embed() - L
    factor = torch.linalg.cholesky(K)

    def apply(v):
        u = v * inverse
        y = torch.cholesky_solve(_incidence(u, p)[..., None], factor)[..., 0]
        return u - _pairwise(y, p) * inverse

    return apply


def _quasi_newton_step(v, free, metric, steps, changes):
    # Pairs that the free edges make useless become zero rows, with 1 in their place.
    torch = sys.modules["torch"]
    S, Y = steps * free[:, None], changes * free[:, None]
    R = S @ Y.mT
    curvature = R.diagonal(dim1=-2, dim2=-1)
    good = curvature > 1e-10 * R.abs().amax((-2, -1))[:, None]
    S, Y = S * good[..., None], Y * good[..., None]
    R = (R * good[..., None] * good[:, None]).triu() + (~good).to(R.dtype).diag_embed()
    first = torch.linalg.solve_triangular(R, S @ v[..., None], upper=True)
    r = metric(v - (Y.mT @ first)[..., 0] * free)
    right = R.diagonal(dim1=-2, dim2=-1)[..., None] * first - Y @ r[..., None]
    second = torch.linalg.solve_triangular(R.mT, right, upper=False)
    return r + (S.mT @ second)[..., 0]


def _solve_one(cost, target, gamma, beta, w, tol, max_iter, device):
    # One problem of the estimator, on a device.
    import torch
    from scipy.optimize import OptimizeResult

    def place(x):
        return torch.as_tensor(x, dtype=torch.float64, device=device)

    target = np.broadcast_to(target, (1, _nodes(w) - 1))
    fit = _minimise(
        place(cost)[None],
        place(target.copy()),
        place([[gamma]]),
        beta,
        place(w)[None],
        tol,
        max_iter,
    )
    f, r = float(fit.objective[0]), float(fit.kkt_residual[0])
    return OptimizeResult(
        x=to_numpy(fit.weights[0]),
        fun=f,
        kkt_residual=r,
        success=bool(fit.converged[0]),
        message=f"stopped after {int(fit.n_iter[0])} of {max_iter} iterations",
        nit=int(fit.n_iter[0]),
        history={"objective": np.array([f]), "kkt_residual": np.array([r])},
    )
