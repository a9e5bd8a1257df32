r"""
The graphical lasso: a sparse precision matrix from a covariance matrix.

.. math::
    \min_{\Theta \succ 0} \; -\log\det\Theta + \operatorname{tr} S\Theta
    + \alpha \sum_{i \ne j} |\Theta_{ij}|,

solved on its dual, one column at a time, with a duality gap as certificate.
"""

import warnings

import numpy as np
from scipy.linalg.lapack import dposv, dpotrf, dpotri
from scipy.sparse.csgraph import connected_components
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from lib._backend import (
    as_float_array,
    check_choice,
    check_integer,
    check_real,
    check_samples,
    to_numpy,
)

__all__ = ["GraphicalLasso", "graphical_lasso_path"]


class GraphicalLasso(BaseEstimator):
    r"""
    Estimate a sparse precision matrix by penalised maximum likelihood.

    With S the covariance of the data and free diagonal, as in scikit-learn,

    .. math::
        \hat\Theta = \arg\min_{\Theta \succ 0} \; -\log\det\Theta
        + \operatorname{tr} S\Theta + \alpha \sum_{i \ne j} |\Theta_{ij}| .

    Parameters
    ----------
    alpha : float, default=0.01
        Weight of the penalty. Zero gives the inverse of S, which must then exist.
    assume : {"data", "covariance"}, default="data"
        Whether ``fit`` gets signals or their covariance.
    assume_centered : bool, default=False
        Whether the data have mean zero, so that no mean is subtracted.
    tol : float, default=1e-6
        Duality gap, divided by the number p of variables, at which to stop.
    max_iter : int, default=200
        Largest number of sweeps over all columns.

    Attributes
    ----------
    precision_ : ndarray of shape (p, p)
        The estimate, symmetric, with exact zeros.
    covariance_ : ndarray of shape (p, p)
        Its inverse.
    location_ : ndarray of shape (p,)
        Mean of the data; zero where it is assumed, or where S was given.
    adjacency_ : ndarray of bool of shape (p, p)
        Off-diagonal support of the estimate.
    objective_ : float
        Value of the objective.
    dual_gap_ : float
        Upper bound on the distance of ``objective_`` from the minimum.
    history_ : ndarray of shape (k,)
        The gap after each of the k sweeps.
    n_iter_ : int
        Number of sweeps.
    converged_ : bool
        Whether ``dual_gap_ <= tol * p``.
    n_features_in_ : int
        Number p of variables.
    feature_names_in_ : ndarray of shape (p,)
        Column names, where the data had them.

    Notes
    -----
    The dual is to maximise log det W over all W with the diagonal of S and
    off-diagonal entries within alpha of those of S. Each step maximises over one
    column exactly, by a lasso that is solved by active sets. Every iterate is
    feasible and positive definite, also for n < p, because the start is: it mixes S
    with its diagonal. A column costs O(p k) plus O(k^3) operations, where k is its
    number of neighbours, and a sweep p columns and two Cholesky factorisations.
    Variables that no chain of entries above alpha connects are solved apart, which
    is exact [3]_.

    References
    ----------
    .. [1] J. Friedman, T. Hastie and R. Tibshirani, "Sparse inverse covariance
       estimation with the graphical lasso", Biostatistics 9(3), 2008.
    .. [2] O. Banerjee, L. El Ghaoui and A. d'Aspremont, "Model selection through
       sparse maximum likelihood estimation", JMLR 9, 2008: the dual.
    .. [3] R. Mazumder and T. Hastie, "Exact covariance thresholding into connected
       components for large-scale graphical lasso", JMLR 13, 2012, Theorem 1.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.graphs import GraphicalLasso
    >>> chain = 2 * np.eye(4) - np.eye(4, k=1) - np.eye(4, k=-1)
    >>> S = np.linalg.inv(chain)
    >>> model = GraphicalLasso(alpha=0.3, assume="covariance").fit(S)
    >>> model.adjacency_.astype(int)
    array([[0, 1, 0, 0],
           [1, 0, 1, 0],
           [0, 1, 0, 1],
           [0, 0, 1, 0]])
    >>> model.converged_
    True
    """

    def __init__(
        self,
        alpha=0.01,
        *,
        assume="data",
        assume_centered=False,
        tol=1e-6,
        max_iter=200,
    ):
        self.alpha = alpha
        self.assume = assume
        self.tol = tol
        self.max_iter = max_iter
        self.assume_centered = assume_centered

    def fit(self, X, y=None, *, n_samples=None):
        """
        Estimate the precision matrix.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, p) or (p, p)
            Signals, one a row; their covariance if ``assume="covariance"``.
        y : None
            Ignored.
        n_samples : int, optional
            Number of signals behind a covariance. The result does not depend on it.

        Returns
        -------
        self : GraphicalLasso
            The fitted estimator.

        Raises
        ------
        TypeError
            If a parameter or ``X`` has a wrong type.
        ValueError
            If a parameter is out of its range, ``X`` is no finite matrix or no
            covariance matrix, a variance is zero, or alpha is zero and S singular.
        """
        check_choice("assume", self.assume, ("data", "covariance"))
        if n_samples is not None:
            check_integer("n_samples", n_samples)
        X = to_numpy(check_samples(self, X, reset=True))
        self.location_ = np.zeros(X.shape[1], X.dtype)
        if self.assume == "covariance":
            S = _check_covariance(X)
        else:
            if len(X) < 2:
                raise ValueError(f"X must have two rows or more, got {len(X)} sample")
            S = np.asarray(X, np.float64)
            if not self.assume_centered:
                self.location_ = S.mean(axis=0).astype(X.dtype)
                S = S - S.mean(axis=0)
            S = S.T @ S / len(S)
        (found,) = graphical_lasso_path(
            S, [self.alpha], tol=self.tol, max_iter=self.max_iter
        )
        self.precision_ = found["precision"].astype(X.dtype)
        self.covariance_ = _inverse(found["precision"])[1].astype(X.dtype)
        self.adjacency_ = (self.precision_ != 0) & ~np.eye(len(S), dtype=bool)
        self.objective_, self.dual_gap_ = found["objective"], found["gap"]
        self.history_, self.n_iter_ = found["history"], len(found["history"])
        self.converged_ = found["converged"]
        return self

    def score(self, X, y=None):
        r"""
        Average log-likelihood of signals under the fitted normal distribution.

        .. math::
            \tfrac12 \bigl( \log\det\Theta - \operatorname{tr} S_X \Theta
            - p \log 2\pi \bigr)

        with the second moment of ``X`` about the fitted mean.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, p)
            Signals.
        y : None
            Ignored.

        Returns
        -------
        float
            The average.

        Raises
        ------
        ValueError
            If ``X`` is not a finite matrix of the fitted width.
        sklearn.exceptions.NotFittedError
            If ``fit`` was not called.
        """
        check_is_fitted(self)
        X = to_numpy(check_samples(self, X, reset=False)) - self.location_
        theta = np.asarray(self.precision_, np.float64)
        energy = np.einsum("ij,ij->", X @ theta, X) / len(X)
        log_det = np.linalg.slogdet(theta)[1]
        return float(0.5 * (log_det - energy - len(theta) * np.log(2 * np.pi)))


def graphical_lasso_path(S, alphas, *, tol=1e-6, max_iter=200):
    r"""
    Solve the graphical lasso for several penalties, each started from the last.

    A dual solution W for alpha gives a start for a smaller penalty,

    .. math:: W' = (1 - r) S + r W, \qquad r = \alpha' / \alpha,

    which is positive definite and within the smaller penalty of S.

    Parameters
    ----------
    S : array-like or Tensor of shape (p, p)
        Covariance matrix.
    alphas : array-like of shape (k,)
        Penalties >= 0 in falling order.
    tol : float, default=1e-6
        Duality gap, divided by p, at which to stop.
    max_iter : int, default=200
        Largest number of sweeps for each penalty.

    Returns
    -------
    list of dict
        For each penalty ``alpha``, ``precision`` (p, p), ``covariance`` (p, p), which
        is the dual solution W, ``objective``, ``gap``, ``history`` and ``converged``.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If S is no covariance matrix or has a zero variance, the penalties are
        negative or do not fall, or one is zero and S singular.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        If a gap is above the tolerance after ``max_iter`` sweeps.

    Notes
    -----
    See :class:`GraphicalLasso` for cost and references. At the largest off-diagonal
    entry of \|S\| and beyond the solution is diagonal.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.graphs import graphical_lasso_path
    >>> S = np.array([[1.0, 0.6, 0.3], [0.6, 1.0, 0.5], [0.3, 0.5, 1.0]])
    >>> for found in graphical_lasso_path(S, [0.55, 0.4, 0.0]):
    ...     print(found["alpha"], np.count_nonzero(np.triu(found["precision"], 1)))
    0.55 1
    0.4 2
    0.0 3
    """
    S = _check_covariance(S)
    check_real("tol", tol)
    check_integer("max_iter", max_iter)
    alphas = [a.item() if isinstance(a, np.generic) else a for a in alphas]
    for a in alphas:
        check_real("alpha", a, allow_zero=True)
    if any(a < b for a, b in zip(alphas, alphas[1:], strict=False)):
        raise ValueError(f"alphas must be in falling order, got {alphas}")
    if (low := np.diag(S).min()) <= 0:
        k = int(np.argmin(np.diag(S)))
        raise ValueError(f"every variance must be positive, got {low:g} for column {k}")
    # The solution for the largest penalty that matters, and beyond, is the diagonal.
    off = S - np.diag(np.diag(S))
    last = np.abs(off).max()
    W, B, out = np.diag(np.diag(S)), np.zeros_like(S), []
    for alpha in alphas:
        if alpha < last:
            W = (1 - alpha / last) * S + alpha / last * W
            np.fill_diagonal(W, np.diag(S))
        found, W, B = _solve(S, alpha, W, B, tol, max_iter)
        last = min(last, alpha)
        out.append({"alpha": alpha, **found})
    return out


def _check_covariance(S):
    S = to_numpy(as_float_array(S, "S")).astype(np.float64)
    if S.shape[0] != S.shape[1]:
        raise ValueError(f"S must be square, got shape {S.shape}")
    if np.abs(S - S.T).max() > 1e-6 * np.abs(S).max():
        raise ValueError(
            f"S must be symmetric, got a largest asymmetry of {np.abs(S - S.T).max():g}"
        )
    S = (S + S.T) / 2
    low, high = np.linalg.eigvalsh(S)[[0, -1]]
    if low < -1e-6 * abs(high):
        raise ValueError(f"S must be positive semidefinite, got an eigenvalue {low:g}")
    # An eigenvalue that float32 pushed below zero would spoil every start.
    return S - low * np.eye(len(S)) if low < -1e-13 * high else S


# Block coordinate ascent on the dual from a feasible, positive definite W.
def _solve(S, alpha, W, B, tol, max_iter):
    p = len(S)
    if alpha == 0:
        log_det, theta = _inverse(S)
        if not np.isfinite(log_det):
            raise ValueError("alpha must be > 0 where S is singular, got 0")
        found = {"precision": theta, "covariance": S, "objective": p + log_det}
        return found | {"gap": 0.0, "history": np.zeros(1), "converged": True}, S, B
    _, label = connected_components(np.abs(S) > alpha, directed=False)
    apart = label[:, None] != label
    W, B = np.where(apart, 0.0, W), np.where(apart, 0.0, B)
    parts = [np.flatnonzero(label == k) for k in range(label.max() + 1)]
    history, best = [], None
    for _ in range(max_iter):
        for part in (c for c in parts if len(c) > 1):
            block = np.ix_(part, part)
            W[block], B[block] = _sweep(W[block], B[block], S[block], alpha)
        primal, gap, theta = _certify(S, alpha, W, B)
        history.append(gap)
        if best is None or gap <= best["gap"]:
            best = {"precision": theta, "covariance": W.copy(), "objective": primal}
            best["gap"] = gap
        if gap <= tol * p:
            break
    else:
        warnings.warn(
            f"the graphical lasso did not reach tol={tol:g} in {max_iter} sweeps at "
            f"alpha={alpha:g}; the duality gap per variable is {best['gap'] / p:.1e}",
            ConvergenceWarning,
            stacklevel=4,
        )
    best |= {"history": np.array(history), "converged": bool(best["gap"] <= tol * p)}
    return best, W, B


# One pass over all columns: the lasso of each, and the column of W that it implies.
def _sweep(W, B, S, alpha):
    for j in range(len(S)):
        s = S[j].copy()
        s[j] = 0.0
        B[:, j], column = _lasso(W, s, j, alpha, B[:, j])
        column = np.clip(column, s - alpha, s + alpha)
        column[j] = W[j, j]
        W[j] = W[:, j] = column
    return W, B


# min 1/2 b'Wb - s'b + alpha |b|_1 with b_j = 0, by active sets; gives b and Wb.
def _lasso(W, s, j, alpha, b):
    slack = 1e-11 * (alpha + np.abs(s).max())
    for _ in range(10 * len(s)):
        support = np.flatnonzero(b)
        Wb = W[:, support] @ b[support]
        g = Wb - s
        g[j] = 0.0
        excess = np.abs(g) - alpha
        excess[support] = np.abs(g[support] + alpha * np.sign(b[support]))
        excess[j] = 0.0
        if excess.max() <= slack:
            break
        fresh = excess > slack
        fresh[support] = False
        new = _lasso_step(W, s, alpha, b, g, support, np.flatnonzero(fresh), excess)
        if np.array_equal(new, b):
            break  # no step that lowers the objective is left above rounding
        b = new
    return b, Wb


# The minimiser for fixed signs, or the best point on the way there.
def _lasso_step(W, s, alpha, b, g, support, fresh, excess):
    while True:
        active = np.concatenate([support, fresh])
        sign = np.sign(np.concatenate([b[support], -g[fresh]]))
        Q = W[np.ix_(active, active)]
        _, z, failed = dposv(Q, s[active] - alpha * sign)
        if failed:
            return b
        wrong = (z * sign <= 0)[len(support) :]
        if not wrong.any():
            break
        # Variables that enter with the wrong sign wait. The one that violates its
        # condition most is always right, once the others are at their optimum.
        top = fresh[[np.argmax(excess[fresh])]]
        fresh = top if wrong.all() and len(fresh) > 1 else fresh[~wrong]
    x = b[active]
    d = z - x
    crossing = np.flatnonzero(x * z < 0)
    t = np.append(x[crossing] / -d[crossing], 1.0)
    points = x + t[:, None] * d
    points[np.arange(len(crossing)), crossing] = 0.0
    value = 0.5 * np.einsum("ij,ij->i", points @ Q, points) - points @ s[active]
    new = np.zeros_like(b)
    new[active] = points[np.argmin(value + alpha * np.abs(points).sum(axis=1))]
    return new


# Log-determinant and inverse by Cholesky; minus infinity where it fails.
def _inverse(A):
    factor, failed = dpotrf(A, lower=1)
    if failed:
        return -np.inf, np.full_like(A, np.nan)
    log_det = 2 * np.log(np.diag(factor)).sum()
    lower = np.tril(dpotri(factor, lower=1)[0])
    return log_det, lower + np.tril(lower, -1).T


# A primal point with the support of the lassos, its value, and the duality gap.
def _certify(S, alpha, W, B):
    log_det, theta = _inverse(W)
    if not np.isfinite(log_det):
        return np.inf, np.inf, np.diag(1 / np.diag(S))
    keep = (B != 0) & (B != 0).T
    np.fill_diagonal(keep, True)
    theta = np.where(keep, theta, 0.0)
    size = np.abs(theta).sum() - np.trace(theta)
    primal = -_inverse(theta)[0] + np.einsum("ij,ij->", S, theta) + alpha * size
    return primal, max(primal - log_det - len(S), 0.0), theta
