r"""
Maximum likelihood of a graph's Laplacian from signals on its nodes.

The signals are Gaussian with the Laplacian as precision, so their log-likelihood is
that of the graph. A penalty on the weights may be added.
"""

import warnings

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from lib._backend import check_choice, check_integer, check_real
from lib.graphs.objective import _check_covariance, _gap, _residual, _spectrum
from lib.graphs.operators import _adjoint, _make, _nodes
from lib.graphs.solvers import (
    _check_bounded,
    _largest,
    _near_start,
    _objective,
    _quasi_newton,
)

__all__ = ["LaplacianGraphicalLasso"]

ASSUME = ("data", "covariance")
PENALTIES = ("l1", "mcp", "scad")

#: Ends of the penalties' concave parts, in units of alpha; the customary ones.
MCP_END, SCAD_END = 2.001, 3.7


class _LaplacianEstimator(BaseEstimator):
    # What both estimators share: the data's second moment, the fitted attributes, the
    # score.

    def score(self, X, y=None):
        """
        Give the mean log-likelihood of signals under the fitted graph.

        Parameters
        ----------
        X : array-like of shape (n, p)
            Signals. Their constant part has no density and is left out.
        y : None
            Ignored.

        Returns
        -------
        float
            Mean log-likelihood of a signal, in nats.

        Raises
        ------
        ValueError
            If ``X`` is not a finite matrix of the fitted width.
        sklearn.exceptions.NotFittedError
            If ``fit`` was not called.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        X = X.astype(np.float64)
        L = self.laplacian_.astype(np.float64)
        sigma, _ = _spectrum(self.weights_.astype(np.float64))
        fit = np.einsum("ij,ij->", X @ L, X) / len(X)
        with np.errstate(divide="ignore", invalid="ignore"):
            logdet = np.log(np.maximum(sigma, 0.0)).sum()
        return float(0.5 * (logdet - fit - len(sigma) * np.log(2.0 * np.pi)))

    def _second_moment(self, X, n_samples):
        # S and the number of signals, None where it is not known.
        check_choice("assume", self.assume, ASSUME)
        if n_samples is not None:
            check_integer("n_samples", n_samples)
        X = validate_data(self, X, dtype=(np.float64, np.float32))
        if X.shape[1] < 2:
            raise ValueError(
                "X must have at least 2 features, one for each node, got 1 feature(s)"
            )
        self._dtype = X.dtype
        X = X.astype(np.float64)
        if self.assume == "covariance":
            return _check_covariance(X), n_samples
        if n_samples not in (None, len(X)):
            raise ValueError(
                f"n_samples must be left out or the {len(X)} rows of X, got "
                f"{n_samples}: for a covariance say assume='covariance'"
            )
        return X.T @ X / len(X), len(X)

    def _check_edges(self, p):
        m = p * (p - 1) // 2
        if self.n_edges is None:
            return
        check_integer("n_edges", self.n_edges)
        if not p - 1 <= self.n_edges <= m:
            raise ValueError(
                f"n_edges must be between p - 1 = {p - 1}, for a connected graph, and "
                f"{m}, got {self.n_edges}"
            )

    def _store(self, result, lam):
        w = result.x
        p = _nodes(w)
        L = _make(w, p)
        sigma, U = _spectrum(w)
        kept = {
            "laplacian_": L,
            "weights_": w,
            "adjacency_": np.diag(np.diag(L)) - L,
            "precision_": L if lam is None else (U * lam) @ U.T,
            "eigenvalues_": np.r_[0.0, sigma if lam is None else lam],
        }
        for name, value in kept.items():
            setattr(self, name, value.astype(self._dtype))
        self.objective_ = float(result.fun)
        self.history_ = result.history
        self.n_iter_ = max(int(result.nit), 1)
        self.kkt_residual_ = float(result.kkt_residual)
        self.converged_ = bool(result.success)
        del self._dtype
        if not self.converged_:
            warnings.warn(
                f"{type(self).__name__} did not converge: {result.message}; the "
                f"projected gradient is {self.kkt_residual_:.3g}, tol is {self.tol:g}",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self


class LaplacianGraphicalLasso(_LaplacianEstimator):
    r"""
    Maximum likelihood of a graph's Laplacian, with an optional penalty on the weights.

    .. math::
        \min_{w \ge 0} \; - \log \det (\mathcal L w + J) + \mathrm{tr}(S \mathcal L w)
        + \sum_k P_\alpha(w_k), \qquad J = \mathbf 1 \mathbf 1^\top / p .

    With the penalty "l1" the problem is convex and the result is its global minimum,
    certified by a duality gap. The l1 penalty does not make the graph sparse: as alpha
    grows the graph becomes complete. "mcp" and "scad" are concave penalties, which
    leave large weights alone; they do.

    Parameters
    ----------
    alpha : float, default=0.0
        Weight of the penalty, in units of 1 / weight, at least 0.
    penalty : {"l1", "mcp", "scad"}, default="l1"
        Penalty on each weight. The concave ones are minimised by a sequence of
        weighted l1 problems that starts from alpha = 0.
    n_edges : int, optional
        Keep this many edges: those of the largest weights of the fit, a maximum
        spanning tree first so that the graph stays connected, and fit them again.
    assume : {"data", "covariance"}, default="data"
        Whether ``fit`` gets signals or their second moment.
    tol : float, default=1e-6
        Tolerance for the projected gradient, in units of the mean weighted degree.
    max_iter : int, default=500
        Most iterations, in each of the problems of a sequence.

    Attributes
    ----------
    laplacian_ : ndarray of shape (p, p)
        The Laplacian.
    weights_ : ndarray of shape (m,)
        Edge weights in the order of ``edge_index``.
    adjacency_ : ndarray of shape (p, p)
        Weighted adjacency matrix.
    precision_ : ndarray of shape (p, p)
        The Laplacian again.
    eigenvalues_ : ndarray of shape (p,)
        Its eigenvalues, ascending.
    objective_ : float
        Objective at the end, penalty included.
    history_ : dict of ndarray
        ``objective``, ``kkt_residual`` and ``evaluations`` of each iteration.
    n_iter_ : int
        Number of iterations.
    converged_ : bool
        Whether the projected gradient is at most ``tol``.
    kkt_residual_ : float
        The projected gradient, as ``kkt_residual`` gives it.
    duality_gap_ : float
        Upper bound of what the objective is above its global minimum, for ``n_edges``
        that over the graphs with these edges; NaN for a concave penalty.
    certificate_ : {"global minimum", "stationary point"}
        What convergence means here.
    n_features_in_ : int
        Number of nodes p.

    Raises
    ------
    TypeError
        If a parameter has a wrong type.
    ValueError
        If a parameter is out of its range.

    Notes
    -----
    Each iteration costs about two Cholesky factors, O(p^3); from 15 to 30 of them
    reach the default tolerance. The signals have mean zero: subtract the mean first
    where they have not.

    References
    ----------
    .. [1] S. Kumar, J. Ying, J. V. de M. Cardoso and D. P. Palomar, "A unified
       framework for structured graph learning via spectral constraints", JMLR 2020,
       equation (4).
    .. [2] J. Ying, J. V. de M. Cardoso and D. P. Palomar, "Nonconvex sparse graph
       learning under Laplacian constrained graphical model", NeurIPS 2020, Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.graphs import LaplacianGraphicalLasso
    >>> X = np.random.default_rng(0).standard_normal((200, 4))
    >>> model = LaplacianGraphicalLasso().fit(X)
    >>> model.converged_, model.duality_gap_ < 1e-8
    (True, True)
    >>> np.round(model.adjacency_, 1)[0]
    array([0. , 0.3, 0.3, 0.2])
    """

    def __init__(
        self,
        alpha=0.0,
        penalty="l1",
        n_edges=None,
        *,
        assume="data",
        tol=1e-6,
        max_iter=500,
    ):
        self.alpha = alpha
        self.penalty = penalty
        self.n_edges = n_edges
        self.assume = assume
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X, y=None, *, n_samples=None):
        """
        Estimate the graph.

        Parameters
        ----------
        X : array-like of shape (n, p) or (p, p)
            Signals, one a row; their second moment if ``assume="covariance"``.
        y : None
            Ignored.
        n_samples : int, optional
            Number of signals behind a covariance. The result does not depend on it.

        Returns
        -------
        self : LaplacianGraphicalLasso
            The fitted estimator.

        Raises
        ------
        TypeError
            If a parameter or the data have a wrong type.
        ValueError
            If a parameter is out of its range, the data are not a finite matrix, or
            the likelihood is unbounded because two nodes have equal signals.
        """
        check_real("alpha", self.alpha, allow_zero=True)
        check_choice("penalty", self.penalty, PENALTIES)
        check_real("tol", self.tol)
        check_integer("max_iter", self.max_iter)
        S, _ = self._second_moment(X, n_samples)
        p = len(S)
        self._check_edges(p)
        cost = _adjoint(S)
        concave = self.penalty != "l1" and self.alpha > 0
        price = 0.0 if concave else float(self.alpha)
        w = _near_start(cost + price)
        result, paid = self._minimise(cost, price, w, None, concave)
        if self.n_edges is not None:
            allowed = _largest(result.x, p, self.n_edges)
            w = np.where(allowed, np.maximum(result.x, 1e-3 * result.x.max()), 0.0)
            result, paid = self._minimise(cost, price, w, allowed, concave)
            paid = np.where(allowed, paid, np.inf)
        result.fun += _penalty(self.penalty, result.x, self.alpha) if concave else 0.0
        self.duality_gap_ = (
            float("nan") if concave else _gap(result.x, paid, 0.0, 0.0, np.inf)
        )
        self.certificate_ = "stationary point" if concave else "global minimum"
        return self._store(result, None)

    def _minimise(self, cost, price, w, allowed, concave):
        # The l1 problem, or the sequence of weighted ones of a concave penalty.
        options = {"tol": self.tol, "max_iter": self.max_iter, "allowed": allowed}
        _check_bounded(cost + price, allowed)
        result = _quasi_newton(
            _objective(cost + price, _nodes(w), None, 0, np.inf), w, **options
        )
        if not concave:
            return result, cost + price
        history, nit, nfev = [result.history], result.nit, result.nfev
        for _ in range(self.max_iter):
            slope = _penalty_slope(self.penalty, result.x, self.alpha)
            problem = _objective(cost + slope, _nodes(w), None, 0, np.inf)
            result = _quasi_newton(problem, result.x, **options)
            history.append(result.history)
            nit, nfev = nit + result.nit, nfev + result.nfev
            new = _penalty_slope(self.penalty, result.x, self.alpha)
            g = result.jac + (new - slope) * (1.0 if allowed is None else allowed)
            result.kkt_residual = float(_residual(result.x, g, _nodes(w)))
            if result.kkt_residual <= self.tol or not result.success:
                break
        result.fun -= slope @ result.x
        result.success = result.kkt_residual <= self.tol
        result.nit, result.nfev = nit, nfev
        result.history = {
            key: np.concatenate([part[key] for part in history]) for key in history[0]
        }
        return result, cost + slope


def _penalty(kind, w, alpha):
    if kind == "mcp":
        a = MCP_END
        return np.where(
            w <= a * alpha, alpha * w - w * w / (2 * a), 0.5 * a * alpha**2
        ).sum()
    a = SCAD_END
    middle = (2 * a * alpha * w - w * w - alpha**2) / (2 * (a - 1))
    outer = np.where(w <= a * alpha, middle, 0.5 * (a + 1) * alpha**2)
    return np.where(w <= alpha, alpha * w, outer).sum()


def _penalty_slope(kind, w, alpha):
    if kind == "mcp":
        return np.maximum(alpha - w / MCP_END, 0.0)
    outer = np.maximum(SCAD_END * alpha - w, 0.0) / (SCAD_END - 1)
    return np.where(w <= alpha, alpha, outer)
