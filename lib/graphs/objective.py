r"""
The objective in the edge weights alone, its optimality and its certificate.

The report minimises over weights, eigenvectors and relaxed eigenvalues. For given
weights the other two have closed forms; what is left is a function of the weights,

.. math::
    F(w) = \sum_{i=2}^p \phi_i(\sigma_i) + \langle \mathcal L^* S + \alpha \mathbf 1,
    w \rangle, \qquad
    \phi_i(\sigma) = \min_\lambda - \log \lambda + \tfrac\beta2 (\sigma - \lambda)^2
    + \tfrac\gamma2 (\lambda - \mu_i)^2,

with :math:`\sigma` the eigenvalues of :math:`\mathcal L w`, ascending. It is convex
if :math:`\gamma = 0` or if all :math:`\mu_i` are one number.
"""

import sys

import numpy as np

from lib._backend import as_float_array, check_real, check_same_kind, is_torch
from lib.graphs.operators import _adjoint, _make, _nodes, laplacian_gram_solve

__all__ = ["duality_gap", "kkt_residual", "spectral_objective"]


def spectral_objective(w, S, *, mu=None, gamma=0.0, beta=100.0, alpha=0.0, sort=False):
    r"""
    Evaluate the reduced objective of the graphon-aided graphical lasso.

    .. math::
        F(w) = \sum_{i=2}^p \Big[ - \log \lambda_i + \tfrac\beta2 (\sigma_i -
        \lambda_i)^2 + \tfrac\gamma2 (\lambda_i - \mu_i)^2 \Big] + \mathrm{tr}(S
        \mathcal L w) + \alpha \mathbf 1^\top w

    at the best relaxed eigenvalues

    .. math::
        \lambda_i = \tfrac12 \Big( \delta_i + \sqrt{\delta_i^2 + 4 / (\beta + \gamma)}
        \Big), \qquad \delta_i = \frac{\beta \sigma_i + \gamma \mu_i}{\beta + \gamma} ,

    with the gradient :math:`\mathcal L^* (S + \beta U \mathrm{diag}(\sigma - \lambda)
    U^\top) + \alpha`.

    Parameters
    ----------
    w : array-like or Tensor of shape (..., m)
        Edge weights, m = p (p - 1) / 2.
    S : array-like or Tensor of shape (..., p, p)
        Second moments of the signals, symmetric.
    mu : array-like or Tensor of shape (..., p), optional
        The prior's spectrum, ascending; its first entry is used by nobody. Needed if
        gamma > 0.
    gamma : float, default=0.0
        Weight of the prior, at least 0.
    beta : float, default=100.0
        Weight of the relaxation, positive; ``inf`` ties the eigenvalues to the graph.
    alpha : float, default=0.0
        Weight of the l1 penalty, at least 0.
    sort : bool, default=False
        Whether to sort ``mu`` instead of refusing it where it is not ascending.

    Returns
    -------
    f : float, ndarray or Tensor of shape (...)
        The objective; infinite where it is not defined.
    grad : ndarray or Tensor of shape (..., m)
        Its gradient in w (one of its subgradients where eigenvalues with different
        ``mu`` coincide).
    lam : ndarray or Tensor of shape (..., p)
        The relaxed eigenvalues, ascending, the first of them 0.

    Raises
    ------
    TypeError
        If an argument has a wrong type, or arrays and tensors are mixed.
    ValueError
        If a shape does not fit, ``S`` is not symmetric, ``mu`` is not ascending, or a
        weight is out of its range.

    Notes
    -----
    O(p^3): one eigendecomposition.

    References
    ----------
    .. [1] A. Banta, M. Navarro and N. Zilberstein, "Graphon-aided graphical lasso with
       structured sparsity", report, equation (1) with k = 1 and the sum over i >= 2.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.graphs import spectral_objective
    >>> f, grad, lam = spectral_objective(np.ones(3), np.eye(3), beta=np.inf)
    >>> np.round(lam, 12), round(float(f - 6 + 2 * np.log(3)), 12)
    (array([0., 3., 3.]), 0.0)
    """
    w = as_float_array(w, "w", ndim=range(1, 33))
    p = _nodes(w)
    S = _check_covariance(S, p, ndim=range(2, 33))
    check_same_kind(w, S, ("w", "S"))
    mu = _check_prior(mu, p, gamma, beta, alpha, sort=sort)
    if mu is not None:
        check_same_kind(w, mu, ("w", "mu"))
    cost = _adjoint(S) + alpha
    sigma, U = _spectrum(w)
    f, slope, lam = _phi(sigma, 0.0 if mu is None else mu[..., 1:], gamma, beta)
    grad = cost + _adjoint((U * slope[..., None, :]) @ U.swapaxes(-1, -2))
    f = f.sum(-1) + (cost * w).sum(-1)
    if is_torch(w):
        torch = sys.modules["torch"]
        return f, grad, torch.cat([torch.zeros_like(lam[..., :1]), lam], dim=-1)
    return f, grad, np.concatenate([np.zeros_like(lam[..., :1]), lam], axis=-1)


def kkt_residual(w, grad):
    r"""
    Measure how far weights are from a stationary point, in units of the graph.

    .. math::
        r = \big\| \hat w - \max(0, \hat w - s \nabla F(w)) \big\|_\infty, \qquad
        \hat w = w / s, \qquad s = \frac2p \mathbf 1^\top w .

    Parameters
    ----------
    w : array-like or Tensor of shape (..., m)
        Edge weights, at least 0.
    grad : array-like or Tensor of shape (..., m)
        Gradient of the objective there.

    Returns
    -------
    float, ndarray or Tensor of shape (...)
        The largest entry of the projected gradient, in units of the mean weighted
        degree s: multiplying the signals by a number does not change it. It is 0 at
        the stationary points alone, and infinite for the graph without edges.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If the shapes differ, or an entry of ``w`` is negative or not finite.

    Notes
    -----
    O(p^2). At a stationary point of the graphical lasso the multipliers of the bounds
    are the gradient itself: it is 0 where an edge is, and not negative elsewhere.

    References
    ----------
    .. [1] D. P. Bertsekas, "Projected Newton methods for optimization problems with
       simple constraints", SIAM J. Control Optim. 1982, equation (7).

    Examples
    --------
    >>> import numpy as np
    >>> from lib.graphs import kkt_residual
    >>> float(kkt_residual(np.array([1.0, 0.0, 1.0]), np.array([0.0, 3.0, 0.0])))
    0.0
    """
    w = as_float_array(w, "w", ndim=range(1, 33))
    check_same_kind(w, grad, ("w", "grad"))
    p = _nodes(w)
    if tuple(w.shape) != tuple(grad.shape):
        raise ValueError(
            f"grad must have the shape of w, {tuple(w.shape)}, got {tuple(grad.shape)}"
        )
    if bool((w < 0).any()):
        raise ValueError(f"w must be >= 0, got {float(w.min())!r}")
    return _residual(w, grad, p)


def duality_gap(w, S, *, mu=None, gamma=0.0, beta=np.inf, alpha=0.0):
    r"""
    Bound how far the objective is above its minimum, where it is convex.

    With :math:`\phi^*` the conjugate of the function that the eigenvalues pay, the
    dual problem is

    .. math::
        \max_Y \; - \sum_{i=2}^p \phi^*(-y_i) \quad \text{s.t.} \quad \mathcal L^* Y
        \le \mathcal L^* S + \alpha \mathbf 1, \quad Y \mathbf 1 = 0,

    with :math:`y` the eigenvalues of Y. The spectral gradient at w, corrected by
    :math:`\mathcal L (\mathcal L^* \mathcal L)^{-1} r` so that the residual r of the
    constraints vanishes where an edge is or a constraint fails, is feasible, and the
    gap of this pair is of second order in r.

    Parameters
    ----------
    w : array-like of shape (m,)
        Edge weights, at least 0.
    S : array-like of shape (p, p)
        Second moment of the signals.
    mu : array-like of shape (p,), optional
        The prior's spectrum. Needed if gamma > 0.
    gamma : float, default=0.0
        Weight of the prior.
    beta : float, default=inf
        Weight of the relaxation.
    alpha : float, default=0.0
        Weight of the l1 penalty.

    Returns
    -------
    float
        Primal minus dual objective, at least 0 up to rounding; infinite where the
        corrected Y is outside the dual's domain, NaN where the objective is not
        convex: with gamma > 0 and two different entries in ``mu[1:]``.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If a shape does not fit or an argument is out of its range.

    Notes
    -----
    O(p^3): two eigendecompositions. The feasible point is exact up to rounding, so
    the bound needs no trust in the solver that found w.

    References
    ----------
    .. [1] S. Boyd and L. Vandenberghe, "Convex Optimization", Section 5.1 (the dual of
       the Laplacian-constrained problem is derived in the book).

    Examples
    --------
    >>> import numpy as np
    >>> from lib.graphs import duality_gap
    >>> S = np.array([[2.0, -1.0, -1.0], [-1.0, 2.0, -1.0], [-1.0, -1.0, 2.0]])
    >>> abs(duality_gap(np.full(3, 1 / 9), S)) < 1e-12
    True
    >>> duality_gap(np.full(3, 1 / 8), S) > 1e-3
    True
    """
    w = as_float_array(w, "w", ndim=1)
    p = _nodes(w)
    S = _check_covariance(S, p)
    mu = _check_prior(mu, p, gamma, beta, alpha)
    if gamma > 0 and np.ptp(mu[1:]) > 0:
        return float("nan")
    centre = mu[1] if gamma > 0 else 0.0
    return _gap(w, _adjoint(S) + alpha, centre, gamma, beta)


def _gap(w, cost, centre, gamma, beta):
    # An infinite cost forbids an edge.
    p = _nodes(w)
    sigma, U = _spectrum(w)
    f, slope, _ = _phi(sigma, centre, gamma, beta)
    f = f.sum() + cost[w > 0] @ w[w > 0]
    if not np.isfinite(f):
        return float("inf")
    Y = -(U * slope) @ U.T
    r = cost - _adjoint(Y)
    s = 2.0 * w.sum() / p
    r = np.where((w >= s * s * r) | (r < 0), r, 0.0)
    Y += _make(laplacian_gram_solve(r), p)
    y, _ = _nonzero(Y)
    return float(f + _conjugate(y, centre, gamma, beta).sum())


def _residual(w, grad, p):
    s = (2.0 / p) * w.sum(-1)[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        step = w / s - s * grad
        r = abs(w / s - step * (step > 0))
    if is_torch(w):
        torch = sys.modules["torch"]
        r = torch.where(torch.isfinite(r), r, torch.inf)
        return r.amax(-1)
    return np.where(np.isfinite(r), r, np.inf).max(-1)


def _phi(sigma, mu, gamma, beta):
    # What each eigenvalue pays, the slope of that, and the relaxed eigenvalue.
    if np.isinf(beta):
        lam = sigma
        valid = lam > 0
        safe = lam * valid + 1.0 * ~valid
        pull = gamma * (safe - mu)
        slope = pull - 1.0 / safe
        f = -_log(safe) + 0.5 * pull * (safe - mu)
        return _where(valid, f, np.inf), slope, lam
    delta = (beta * sigma + gamma * mu) / (beta + gamma)
    root = (delta * delta + 4.0 / (beta + gamma)) ** 0.5
    # The formula adds where both terms are positive, and divides where they cancel.
    lam = _where(
        delta > 0,
        0.5 * (delta + root),
        2.0 / ((beta + gamma) * (root - delta)),
    )
    pull = gamma * (lam - mu)
    slope = pull - 1.0 / lam  # = beta (sigma - lam), without its cancellation
    f = -_log(lam) + 0.5 * slope * slope / beta + 0.5 * pull * (lam - mu)
    return f, slope, lam


def _conjugate(y, mu, gamma, beta):
    # phi^*(-y) = max over lambda of log lambda - lambda y - gamma/2 (lambda - mu)^2,
    # plus what the quadratic relaxation adds.
    if gamma == 0:
        if (y <= 0).any():
            return np.full_like(y, np.inf)
        value = -np.log(y) - 1.0
    else:
        t = mu - y / gamma
        root = np.sqrt(t * t + 4.0 / gamma)
        lam = np.where(t > 0, 0.5 * (t + root), 2.0 / (gamma * (root - t)))
        value = np.log(lam) - lam * y - 0.5 * gamma * (lam - mu) ** 2
    return value if np.isinf(beta) else value + y * y / (2.0 * beta)


def _spectrum(w):
    # Eigenvalues and vectors of the Laplacian on the complement of the constants.
    return _nonzero(_make(w, _nodes(w)))


def _nonzero(L):
    # The constant vector gets an eigenvalue above all others and is cut off, so that
    # it never mixes with the null vectors of a graph that falls apart.
    p = L.shape[-1]
    if is_torch(L):
        eigh = sys.modules["torch"].linalg.eigh
        top = 1.0 + 2.0 * abs(L).sum(-1).amax(-1)
    else:
        eigh, top = np.linalg.eigh, 1.0 + 2.0 * abs(L).sum(-1).max(-1)
    sigma, U = eigh(L + top[..., None, None] / p)
    return sigma[..., :-1], U[..., :-1]


def _log(x):
    return x.log() if is_torch(x) else np.log(x)


def _where(condition, a, b):
    where = sys.modules["torch"].where if is_torch(condition) else np.where
    return where(condition, a, b)


def _check_covariance(S, p=None, ndim=2):
    S = as_float_array(S, "S", ndim=ndim)
    if S.shape[-1] != S.shape[-2] or S.shape[-1] < 2:
        raise ValueError(
            f"S must be square, at least 2 x 2, got shape {tuple(S.shape)}"
        )
    if p is not None and S.shape[-1] != p:
        raise ValueError(
            f"S must be {p} x {p} to go with the weights, got shape {tuple(S.shape)}"
        )
    skew = abs(S - S.swapaxes(-1, -2)).max()
    if skew > 1e-6 * abs(S).max():
        raise ValueError(f"S must be symmetric, got an asymmetry of {float(skew):.3g}")
    return S


def _check_prior(mu, p, gamma, beta, alpha, *, sort=False):
    # The weights of the three terms, and the spectrum.
    check_real("gamma", gamma, allow_zero=True)
    check_real("alpha", alpha, allow_zero=True)
    if beta != np.inf:
        check_real("beta", beta)
    if mu is None:
        if gamma > 0:
            raise ValueError(f"mu must be given for gamma > 0, got gamma={gamma!r}")
        return None
    mu = as_float_array(mu, "mu", ndim=range(1, 33))
    if mu.shape[-1] != p:
        raise ValueError(f"mu must have p = {p} entries, got {mu.shape[-1]}")
    if sort:
        return mu.sort(-1).values if is_torch(mu) else np.sort(mu, axis=-1)
    if bool((mu[..., 2:] < mu[..., 1:-1]).any()):
        raise ValueError(
            "mu must be ascending, as the eigenvalues are that it is matched with; "
            "pass sort=True or sort it"
        )
    return mu
