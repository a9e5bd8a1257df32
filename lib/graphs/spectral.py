r"""
The graphon-aided graphical lasso: a Laplacian estimated with a prior on its spectrum.

For given weights the best eigenvectors are those of the graph's Laplacian and the best
relaxed eigenvalues have a closed form. What is left is a problem in the weights alone,
which the solvers of the wing share with maximum likelihood.
"""

import numpy as np

from lib._backend import check_choice, check_integer, check_real, make_rng
from lib.graphs.estimators import _LaplacianEstimator
from lib.graphs.objective import _gap, _phi, _spectrum
from lib.graphs.operators import _adjoint
from lib.graphs.solvers import (
    SOLVERS,
    _check_bounded,
    _convex_start,
    _largest,
    _near_start,
    _objective,
    _pinv_start,
    _quasi_newton,
    _scaled,
)

__all__ = ["SpectralGraphicalLasso"]

STARTS = ("convex", "pinv", "uniform")


class SpectralGraphicalLasso(_LaplacianEstimator):
    r"""
    Estimate a graph's Laplacian with a prior on its spectrum.

    .. math::
        \min_{w \ge 0,\, \lambda,\, U^\top U = I} \; - \sum_{i=2}^p \log \lambda_i +
        \mathrm{tr}(S \mathcal L w) + \alpha \mathbf 1^\top w + \tfrac\beta2 \|
        \mathcal L w - U \mathrm{diag}(\lambda) U^\top \|_F^2 + \tfrac\gamma2
        \sum_{i=2}^p (\lambda_i - \mu_i)^2

    with :math:`\lambda_1 = 0`. Eigenvectors and relaxed eigenvalues are exact for given
    weights, so that a problem in the weights alone is left. It is convex for
    gamma = 0 and for a constant prior, and the result is then its global minimum;
    otherwise it is a stationary point, the best one of ``n_init`` starts.

    Parameters
    ----------
    prior : Graphon, SpectralPrior or None, default=None
        The expected spectrum. A graphon gives that of its graphs with p nodes. None
        is a constant: the mean eigenvalue of the maximum-likelihood graph, with the
        variance of its eigenvalues.
    gamma : float or "map", default="map"
        Weight of the prior; "map" is the posterior's mode, 2 / (n sigma^2), with the
        prior's mean square error sigma^2.
    beta : float, default=100.0
        Weight of the relaxation, positive; ``inf`` ties the eigenvalues to the graph.
    alpha : float, default=0.0
        Weight of the l1 penalty, at least 0.
    n_edges : int, optional
        Keep this many edges, as ``LaplacianGraphicalLasso`` does.
    solver : {"lbfgs", "block_mm", "fista"}, default="lbfgs"
        Projected quasi-Newton method or restarted FISTA on the reduced objective, or
        the report's block majorisation-minimisation.
    step : "majorizer" or float, default="majorizer"
        Step of "block_mm", 1 / (2 p beta), or a multiple of it.
    tol : float, default=1e-6
        Tolerance for the projected gradient, in units of the mean weighted degree.
    max_iter : int, default=500
        Most iterations of a start.
    init : {"convex", "pinv", "uniform"} or array-like of shape (m,), default="convex"
        First start: the maximum-likelihood graph, the report's pseudo-inverse, equal
        weights, or these weights.
    device : str, torch.device or None, default=None
        Where to solve: None is numpy on the CPU, otherwise ``fit_batch`` there; only
        for ``solver="lbfgs"``.
    n_init : int, default=1
        Number of starts; those after the first have random weights.
    random_state : int, Generator, SeedSequence, RandomState or None, default=None
        Randomness of the further starts.
    assume : {"data", "covariance"}, default="data"
        Whether ``fit`` gets signals or their second moment.

    Attributes
    ----------
    laplacian_ : ndarray of shape (p, p)
        The Laplacian of the weights.
    weights_ : ndarray of shape (m,)
        Edge weights in the order of ``edge_index``.
    adjacency_ : ndarray of shape (p, p)
        Weighted adjacency matrix.
    precision_ : ndarray of shape (p, p)
        The Laplacian with the relaxed eigenvalues in place of its own.
    eigenvalues_ : ndarray of shape (p,)
        The relaxed eigenvalues, ascending; the first is 0.
    objective_ : float
        Objective at the end.
    history_ : dict of ndarray
        ``objective``, ``kkt_residual`` and ``evaluations`` of each iteration.
    n_iter_ : int
        Number of iterations.
    converged_ : bool
        Whether the projected gradient is at most ``tol``.
    kkt_residual_ : float
        The projected gradient, as ``kkt_residual`` gives it.
    duality_gap_ : float
        Upper bound of what the objective is above its global minimum; NaN where the
        problem is not convex.
    certificate_ : {"global minimum", "stationary point"}
        What convergence means here.
    start_objectives_ : ndarray of shape (n_init,)
        Objective that each start ended at.
    gamma_ : float
        Weight of the prior.
    mu_ : ndarray of shape (p,) or None
        The prior's spectrum.
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
    Each evaluation costs an eigendecomposition, O(p^3); with beta = inf and no or a
    constant prior only a Cholesky factor. The signals have mean zero: subtract the mean
    first where they have not. Derivation of "map": the log-posterior is -n/2 times the
    likelihood's terms minus the sum of (lambda - mu)^2 / (2 sigma^2).

    References
    ----------
    .. [1] A. Banta, M. Navarro and N. Zilberstein, "Graphon-aided graphical lasso with
       structured sparsity", report, equation (1) with k = 1, the sum of logarithms
       over i >= 2, and the prior in ascending order and scaled by p.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.graphs import SpectralGraphicalLasso, SpectralPrior
    >>> X = np.random.default_rng(0).standard_normal((50, 6))
    >>> prior = SpectralPrior(np.arange(6.0), sigma2=1.0)
    >>> model = SpectralGraphicalLasso(prior).fit(X)
    >>> model.converged_, model.gamma_, model.certificate_
    (True, 0.04, 'stationary point')
    """

    def __init__(
        self,
        prior=None,
        gamma="map",
        beta=100.0,
        alpha=0.0,
        n_edges=None,
        solver="lbfgs",
        step="majorizer",
        tol=1e-6,
        max_iter=500,
        init="convex",
        device=None,
        *,
        n_init=1,
        random_state=None,
        assume="data",
    ):
        self.prior = prior
        self.gamma = gamma
        self.beta = beta
        self.alpha = alpha
        self.n_edges = n_edges
        self.solver = solver
        self.step = step
        self.tol = tol
        self.max_iter = max_iter
        self.init = init
        self.device = device
        self.n_init = n_init
        self.random_state = random_state
        self.assume = assume

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
            Number of signals behind a covariance; ``gamma="map"`` needs it.

        Returns
        -------
        self : SpectralGraphicalLasso
            The fitted estimator.

        Raises
        ------
        TypeError
            If a parameter or the data have a wrong type.
        ValueError
            If a parameter is out of its range, the data are not a finite matrix, or
            the objective is unbounded because two nodes have equal signals.
        """
        self._check_parameters()
        S, n = self._second_moment(X, n_samples)
        p = len(S)
        self._check_edges(p)
        mu, gamma = self._spectrum_and_weight(S, n)
        cost = _adjoint(S) + self.alpha
        if gamma == 0:
            _check_bounded(cost)
        target = 0.0 if gamma == 0 else mu[1:]
        results = [
            self._minimise(S, cost, target, gamma, start, None)
            for start in self._starts(S, cost)
        ]
        result = min(results, key=lambda r: r.fun)
        self.start_objectives_ = np.array([r.fun for r in results])
        allowed = None
        if self.n_edges is not None:
            allowed = _largest(result.x, p, self.n_edges)
            w = np.where(allowed, np.maximum(result.x, 1e-3 * result.x.max()), 0.0)
            result = self._minimise(S, cost, target, gamma, w, allowed)
            cost = np.where(allowed, cost, np.inf)
        convex = gamma == 0 or np.ptp(target) == 0
        centre = float(np.ravel(target)[0]) if convex else 0.0
        self.duality_gap_ = (
            _gap(result.x, cost, centre, gamma, self.beta) if convex else float("nan")
        )
        self.certificate_ = "global minimum" if convex else "stationary point"
        self.gamma_, self.mu_ = float(gamma), mu
        sigma, _ = _spectrum(result.x)
        return self._store(result, _phi(sigma, target, gamma, self.beta)[2])

    def _check_parameters(self):
        if isinstance(self.gamma, str):
            check_choice("gamma", self.gamma, ("map",))
        else:
            check_real("gamma", self.gamma, allow_zero=True)
        if not (isinstance(self.beta, float) and self.beta == np.inf):
            check_real("beta", self.beta)
        check_real("alpha", self.alpha, allow_zero=True)
        check_choice("solver", self.solver, SOLVERS)
        if self.step != "majorizer":
            check_real("step", self.step)
        check_real("tol", self.tol)
        check_integer("max_iter", self.max_iter)
        check_integer("n_init", self.n_init)
        if isinstance(self.init, str):
            check_choice("init", self.init, STARTS)
        if self.solver == "block_mm" and self.beta == np.inf:
            raise ValueError("beta must be finite for solver='block_mm', got inf")
        if self.device is not None and self.solver != "lbfgs":
            raise ValueError(
                f"device must be None for solver={self.solver!r}, got {self.device!r}"
            )

    def _spectrum_and_weight(self, S, n):
        prior, p = self.prior, len(S)
        if prior is None:
            if not isinstance(self.gamma, str) and self.gamma == 0:
                return None, 0.0
            cost = _adjoint(S) + self.alpha
            _check_bounded(cost)
            likelihood = _objective(cost, p, None, 0.0, np.inf)
            start = _near_start(cost)
            fit = _quasi_newton(likelihood, start, tol=self.tol, max_iter=self.max_iter)
            sigma, _ = _spectrum(fit.x)
            mu, sigma2 = np.full(p, sigma.mean()), sigma.var()
            if sigma2 <= 1e-12 * sigma.mean() ** 2:  # nothing to learn it from
                sigma2 = sigma.mean() ** 2
        else:
            if hasattr(prior, "spectral_prior"):
                prior = prior.spectral_prior(p)
            if not hasattr(prior, "mu"):
                raise TypeError(
                    "prior must be a Graphon, a SpectralPrior or None, got "
                    f"{type(prior).__name__}"
                )
            mu, sigma2 = np.asarray(prior.mu, dtype=np.float64), prior.sigma2
            if len(mu) != p:
                raise ValueError(
                    f"prior must have one eigenvalue for each of the {p} nodes, got "
                    f"{len(mu)}"
                )
        if not isinstance(self.gamma, str):
            return mu, float(self.gamma)
        if n is None:
            raise ValueError(
                "n_samples must be given to fit a covariance with gamma='map', got None"
            )
        if sigma2 is None:
            raise ValueError(
                "prior must have a mean square error sigma2 for gamma='map', got None"
            )
        return mu, 2.0 / (n * float(sigma2))

    def _starts(self, S, cost):
        m = len(cost)
        if not isinstance(self.init, str):
            w = np.asarray(self.init, dtype=np.float64)
            if w.shape != (m,):
                raise ValueError(f"init must have shape {(m,)}, got {w.shape}")
            if not np.isfinite(w).all() or (w < 0).any():
                raise ValueError("init must be finite and >= 0, got another weight")
            sigma, _ = _spectrum(w)
            if sigma[0] <= 1e-12 * sigma[-1]:
                raise ValueError("init must be a connected graph, got one in parts")
        elif self.init == "convex":
            w = _convex_start(cost)
        elif self.init == "pinv":
            w = _pinv_start(S, cost)
        else:
            w = _scaled(np.ones(m), cost)
        starts = [w]
        if self.n_init > 1:
            rng = make_rng(self.random_state)
            starts += [
                _scaled(rng.exponential(size=m), cost) for _ in range(self.n_init - 1)
            ]
        return starts

    def _minimise(self, S, cost, target, gamma, w, allowed):
        if self.device is not None and allowed is None:
            from lib.graphs.batch import _solve_one

            return _solve_one(
                cost, target, gamma, self.beta, w, self.tol, self.max_iter, self.device
            )
        problem = _objective(cost, len(S), target, gamma, self.beta)
        options = {"tol": self.tol, "max_iter": self.max_iter, "allowed": allowed}
        if self.solver == "block_mm":
            options["step"] = 1.0 if self.step == "majorizer" else float(self.step)
        return SOLVERS[self.solver](problem, w, **options)
