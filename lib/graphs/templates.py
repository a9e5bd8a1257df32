r"""
Spectral templates: eigenvectors from the signals first, eigenvalues afterwards.

With eigenvectors :math:`\hat V` of the signals' covariance, the constant vector first
and the others by falling variance, the graph is the one that they nearly diagonalise
and whose eigenvalues are near those that are expected.
"""

import warnings

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import validate_data

from lib._backend import check_choice, check_integer, check_real
from lib.graphs.operators import laplacian, laplacian_adjoint

__all__ = ["SpectralTemplates", "template_eigenvectors"]


def template_eigenvectors(S):
    r"""
    Order the eigenvectors of a covariance as those of a Laplacian.

    .. math::
        v_1 = \mathbf 1 / \sqrt p, \qquad
        v_2^\top S v_2 \ge \dots \ge v_p^\top S v_p,

    for signals that a falling function of the Laplacian has filtered: they vary most
    along the eigenvectors of small eigenvalues.

    Parameters
    ----------
    S : array-like of shape (p, p)
        Covariance of the signals, symmetric.

    Returns
    -------
    ndarray of shape (p, p)
        Orthonormal columns.

    Raises
    ------
    ValueError
        If S is not a finite, symmetric matrix of at least two rows.

    Notes
    -----
    O(p^3). What S has along the constant vector is left out. Where S has rank r below
    p - 1, the last p - 1 - r columns are an arbitrary basis.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.graphs import template_eigenvectors
    >>> L = np.array([[1.0, -1.0, 0.0], [-1.0, 2.0, -1.0], [0.0, -1.0, 1.0]])
    >>> V = template_eigenvectors(np.linalg.pinv(L))
    >>> np.round(np.diag(V.T @ L @ V), 6) + 0.0
    array([0., 1., 3.])
    """
    S = np.asarray(S, np.float64)
    if S.ndim != 2 or S.shape[0] != S.shape[1] or len(S) < 2:
        raise ValueError(f"S must be square, at least 2 x 2, got shape {S.shape}")
    if not np.isfinite(S).all():
        raise ValueError("S must hold finite numbers, got NaN or infinity")
    if np.abs(S - S.T).max() > 1e-6 * np.abs(S).max():
        raise ValueError("S must be symmetric, got another matrix than its transpose")
    p = len(S)
    centre = np.eye(p) - 1 / p
    inner = centre @ ((S + S.T) / 2) @ centre
    # The constant vector gets a variance above all others, and comes out last.
    top = 1.0 + 2.0 * np.abs(inner).sum(axis=1).max()
    _, V = np.linalg.eigh(inner + top / p)
    V = V[:, ::-1].copy()
    V[:, 0] = p**-0.5
    return V


class SpectralTemplates(BaseEstimator):
    r"""
    Learn a graph from the eigenvectors of its signals and expected eigenvalues.

    .. math::
        \min_{w \ge 0,\; \lambda,\; \lambda_1 = 0} \; \alpha \mathbf 1^\top w
        + \tfrac12 \| \mathcal L w - \hat V \mathrm{diag}(\lambda) \hat V^\top \|_F^2
        + \tfrac\gamma2 \sum_{i=2}^p (\lambda_i - \mu_i)^2

    It is a convex quadratic problem with one solution. The signals may have passed any
    falling function of the Laplacian; only its eigenvectors are used.

    Parameters
    ----------
    prior : Graphon, SpectralPrior or None, default=None
        The expected spectrum. A graphon gives that of its graphs with p nodes. The
        eigenvectors say nothing about the scale of the graph: None sets all mu to one.
    gamma : float, default=1.0
        Weight of the prior, positive.
    alpha : float, default=0.0
        Weight of the l1 penalty, at least 0. For a Laplacian it is half the sum of
        the eigenvalues, so it shrinks them and chooses no edges.
    assume : {"data", "covariance"}, default="data"
        Whether ``fit`` gets signals or their covariance.
    tol : float, default=1e-6
        Tolerance for the projected gradient, in units of the expected mean weight.
    max_iter : int, default=10000
        Most iterations.

    Attributes
    ----------
    laplacian_ : ndarray of shape (p, p)
        The Laplacian.
    weights_ : ndarray of shape (m,)
        Edge weights in the order of ``edge_index``.
    adjacency_ : ndarray of shape (p, p)
        Weighted adjacency matrix.
    templates_ : ndarray of shape (p, p)
        The eigenvectors used, one a column.
    eigenvalues_ : ndarray of shape (p,)
        The eigenvalue chosen for each of them; the first is 0.
    objective_ : float
        Objective at the end.
    misfit_ : float
        Norm of the difference between the graph and its templates, over the norm of
        the graph.
    kkt_residual_ : float
        The projected gradient.
    n_iter_ : int
        Number of iterations.
    converged_ : bool
        Whether the projected gradient is at most ``tol``.
    n_features_in_ : int
        Number of nodes p.

    Notes
    -----
    For given weights the eigenvalues are a weighted mean of the prior and of the
    diagonal of the graph in the basis of the templates. What is left is a quadratic
    function of the weights, whose curvatures lie between 2 gamma / (1 + gamma) and
    2 p: accelerated projected gradient steps with restarts take a number of them of
    order sqrt(p / gamma), at O(p^3) each. Two weights are enough for three terms:
    divide by that of the second.

    References
    ----------
    .. [1] T. M. Roddenberry, M. Navarro and S. Segarra, "Network topology inference
       with graphon spectral penalties", ICASSP 2021: the idea, here with a quadratic
       penalty.
    .. [2] S. Segarra, A. G. Marques, G. Mateos and A. Ribeiro, "Network topology
       inference from spectral templates", IEEE Transactions on Signal and Information
       Processing over Networks 3(3), 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.graphs import SpectralPrior, SpectralTemplates
    >>> L = np.array([[1.0, -1.0, 0.0], [-1.0, 2.0, -1.0], [0.0, -1.0, 1.0]])
    >>> prior = SpectralPrior([0.0, 1.0, 3.0])
    >>> model = SpectralTemplates(prior, assume="covariance").fit(np.linalg.pinv(L))
    >>> np.round(model.adjacency_, 3) + 0.0
    array([[0., 1., 0.],
           [1., 0., 1.],
           [0., 1., 0.]])
    """

    def __init__(
        self,
        prior=None,
        gamma=1.0,
        alpha=0.0,
        *,
        assume="data",
        tol=1e-6,
        max_iter=10000,
    ):
        self.prior = prior
        self.gamma = gamma
        self.alpha = alpha
        self.assume = assume
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X, y=None, *, n_samples=None):
        """
        Learn the graph.

        Parameters
        ----------
        X : array-like of shape (n, p) or (p, p)
            Signals, one a row; their covariance if ``assume="covariance"``.
        y : None
            Ignored.
        n_samples : int, optional
            Number of signals behind a covariance. The result does not depend on it.

        Returns
        -------
        self : SpectralTemplates
            The fitted estimator.

        Raises
        ------
        TypeError
            If a parameter has a wrong type.
        ValueError
            If a parameter is out of its range, the prior has another number of
            entries than X columns, or X is no finite matrix or no covariance.
        """
        check_real("gamma", self.gamma)
        check_real("alpha", self.alpha, allow_zero=True)
        check_real("tol", self.tol)
        check_integer("max_iter", self.max_iter)
        check_choice("assume", self.assume, ("data", "covariance"))
        if n_samples is not None:
            check_integer("n_samples", n_samples)
        X = validate_data(self, X, dtype=(np.float64, np.float32))
        if X.shape[1] < 2:
            raise ValueError(
                "X must have at least 2 features (nodes), got 1 feature(s)"
            )
        S = X.astype(np.float64)
        if self.assume == "data":
            S = S.T @ S / len(S)
        V, mu = template_eigenvectors(S), self._expected(len(S))
        problem = _Problem(V[:, 1:], mu[1:], float(self.gamma), float(self.alpha))
        m = len(mu) * (len(mu) - 1) // 2
        # mean weight of a graph with the expected spectrum, whose trace is 2 1'w
        unit = max(mu[1:].sum() / (2 * m), np.finfo(float).tiny)
        w, n_iter = _accelerate(
            problem, np.full(m, unit), 2.0 * len(mu), self.tol * unit, self.max_iter
        )
        value, grad = problem(w)
        L, lam = laplacian(w), problem.eigenvalues(w)
        size = max(np.linalg.norm(L), np.finfo(float).tiny)
        self.misfit_ = float(np.linalg.norm(L - (V[:, 1:] * lam) @ V[:, 1:].T) / size)
        kept = {
            "laplacian_": L,
            "weights_": w,
            "adjacency_": np.diag(np.diag(L)) - L,
            "templates_": V,
            "eigenvalues_": np.r_[0.0, lam],
        }
        for name, array in kept.items():
            setattr(self, name, array.astype(X.dtype))
        self.objective_, self.n_iter_ = float(value), n_iter
        self.kkt_residual_ = float(_projected(w, grad) / unit)
        self.converged_ = bool(self.kkt_residual_ <= self.tol)
        if not self.converged_:
            warnings.warn(
                f"SpectralTemplates did not converge in {self.n_iter_} iterations: the "
                f"projected gradient is {self.kkt_residual_:.3g}, tol is {self.tol:g}",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _expected(self, p):
        if self.prior is None:
            return np.ones(p)
        prior = self.prior
        if hasattr(prior, "spectral_prior"):  # a graphon; its error is not needed
            prior = prior.spectral_prior(p, n_mc=2)
        if not hasattr(prior, "mu"):
            raise TypeError(
                f"prior must be a Graphon, a SpectralPrior or None, got {prior!r}"
            )
        if len(prior.mu) != p:
            raise ValueError(
                f"prior must have one eigenvalue for each of the {p} nodes, got "
                f"{len(prior.mu)}"
            )
        return prior.mu


# The objective with the best eigenvalues for the weights, and its gradient.
class _Problem:
    def __init__(self, V, mu, gamma, alpha):
        self.V, self.mu, self.gamma, self.alpha = V, mu, gamma, alpha

    def diagonal(self, L):
        return np.einsum("ij,ij->j", self.V, L @ self.V)

    def eigenvalues(self, w):
        q = self.diagonal(laplacian(w))
        return (q + self.gamma * self.mu) / (1 + self.gamma)

    def __call__(self, w):
        L = laplacian(w)
        q = self.diagonal(L)
        pull = self.gamma / (1 + self.gamma)
        gap = L - (self.V * q) @ self.V.T  # no difference of squares: it would cancel
        off = q - self.mu
        value = self.alpha * w.sum() + 0.5 * np.sum(gap * gap) + 0.5 * pull * off @ off
        slope = gap + (self.V * (pull * off)) @ self.V.T
        return value, self.alpha + laplacian_adjoint(slope)


# Nesterov's method with projections; momentum starts anew where it points uphill.
def _accelerate(problem, w, curvature, tol, max_iter):
    y, t = w, 1.0
    for k in range(1, max_iter + 1):
        new = np.maximum(y - problem(y)[1] / curvature, 0.0)
        step = y - new
        if curvature * np.abs(step).max() <= tol:
            if _projected(new, problem(new)[1]) <= tol:
                return new, k
        if step @ (new - w) > 0:
            t = 1.0
        t_new = (1 + np.sqrt(1 + 4 * t * t)) / 2
        y = new + (t - 1) / t_new * (new - w)
        w, t = new, t_new
    return w, max_iter


def _projected(w, grad):
    return np.abs(w - np.maximum(w - grad, 0.0)).max()
