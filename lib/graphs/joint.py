r"""
Several graphs from one unknown graphon, each with signals of its own.

Their spectra share a mean, which can be learned from the graphs themselves and used as
the prior of each. The maximum-likelihood spectra are biased upwards, and a mean that
keeps the bias is no help; a bootstrap takes it out.
"""

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from lib._backend import as_float_array, check_choice, check_integer, make_rng, to_numpy
from lib.graphs.estimators import LaplacianGraphicalLasso
from lib.graphs.graphon import SpectralPrior, sample_gmrf
from lib.graphs.spectral import SpectralGraphicalLasso

__all__ = ["JointSpectralGraphicalLasso"]


class JointSpectralGraphicalLasso(BaseEstimator):
    r"""
    Estimate graphs that were drawn from one graphon, with a prior they share.

    With the maximum-likelihood spectra :math:`\hat\lambda_k` of K graphs, ascending,
    and the mean :math:`\hat\lambda_k^*` over graphs that are fitted to signals
    simulated from the k-th estimate,

    .. math::
        \mu = \frac1K \sum_k \hat\lambda_k
        - \frac1K \sum_k (\hat\lambda_k^* - \hat\lambda_k) .

    Each graph is then estimated by :class:`SpectralGraphicalLasso` with the spectrum
    :math:`\mu`. Its mean square error is the variance of the spectra between the
    graphs, less that between bootstrap fits of one graph.

    Parameters
    ----------
    debias : {"bootstrap", "none"}, default="bootstrap"
        Whether the second sum is subtracted.
    gamma : float or "map", default="map"
        Weight of the prior, as for ``SpectralGraphicalLasso``.
    beta : float, default=100.0
        Weight of the relaxation.
    n_bootstrap : int, default=5
        Simulated data sets for each graph, at least 2.
    tol : float, default=1e-6
        Tolerance of all fits.
    max_iter : int, default=500
        Most iterations of each fit.
    random_state : int, Generator, SeedSequence, RandomState or None, default=None
        Randomness of the bootstrap.

    Attributes
    ----------
    estimators_ : list of SpectralGraphicalLasso
        The fitted estimator of each graph.
    laplacians_ : list of ndarray of shape (p, p)
        Their Laplacians.
    prior_ : SpectralPrior
        The prior that they share.
    bias_ : ndarray of shape (p,)
        What was taken from the mean spectrum; zero without debiasing.
    converged_ : bool
        Whether the fit of every graph converged.

    Notes
    -----
    K (2 + n_bootstrap) fits. The signals have mean zero. Graphs of different sizes
    have no common spectrum and are refused. Two graphs gain about as much as twenty:
    what helps is that the bias is gone, more than that the mean is shared.

    References
    ----------
    .. [1] A. Banta, M. Navarro and N. Zilberstein, "Graphon-aided graphical lasso with
       structured sparsity", report, Section 7: joint inference as future work.
    .. [2] M. Navarro and S. Segarra, "Joint network topology inference via a shared
       graphon model", arXiv:2209.08223, 2022: another way, by estimating the graphon.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.graphs import Graphon, JointSpectralGraphicalLasso, sample_gmrf
    >>> rng, W = np.random.default_rng(0), Graphon.erdos_renyi(0.5)
    >>> graphs = [W.sample(10, rng) for _ in range(4)]
    >>> data = [sample_gmrf(graph.laplacian, 50, rng) for graph in graphs]
    >>> model = JointSpectralGraphicalLasso(random_state=0).fit(data)
    >>> len(model.laplacians_), model.converged_, bool(model.bias_.mean() > 0)
    (4, True, True)
    """

    def __init__(
        self,
        debias="bootstrap",
        gamma="map",
        beta=100.0,
        *,
        n_bootstrap=5,
        tol=1e-6,
        max_iter=500,
        random_state=None,
    ):
        self.debias = debias
        self.gamma = gamma
        self.beta = beta
        self.n_bootstrap = n_bootstrap
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X, y=None):
        """
        Learn the shared spectrum, and each graph with it.

        Parameters
        ----------
        X : list of array-like of shape (n_k, p)
            The signals of each graph, at least two graphs; or an array (K, n, p).
        y : None
            Ignored.

        Returns
        -------
        self : JointSpectralGraphicalLasso
            The fitted estimator.

        Raises
        ------
        TypeError
            If a parameter or the data have a wrong type.
        ValueError
            If a parameter is out of its range, there are fewer than two data sets, or
            their numbers of columns differ.
        """
        check_choice("debias", self.debias, ("bootstrap", "none"))
        check_integer("n_bootstrap", self.n_bootstrap, minimum=2)
        data = _check_data_sets(X)
        if len(data) < 2:
            raise ValueError(f"X must hold two data sets or more, got {len(data)}")
        rng = make_rng(self.random_state)
        first = [self._likelihood(x) for x in data]
        spectra = np.stack([fit.eigenvalues_ for fit in first])
        again = np.stack(
            [
                [
                    self._likelihood(
                        sample_gmrf(fit.laplacian_, len(x), rng)
                    ).eigenvalues_
                    for _ in range(self.n_bootstrap)
                ]
                for fit, x in zip(first, data, strict=True)
            ]
        )
        self.bias_ = np.zeros(spectra.shape[1])
        if self.debias == "bootstrap":
            self.bias_ = (again.mean(axis=1) - spectra).mean(axis=0)
        mu = np.sort(np.maximum(spectra.mean(axis=0) - self.bias_, 0.0))
        mu[0] = 0.0
        # between graphs: that of the graphs themselves, and the noise of each fit
        noise = again.var(axis=1, ddof=1)[:, 1:].mean()
        between = spectra.var(axis=0, ddof=1)[1:].mean()
        sigma2 = max(between - noise, 0.0) + noise / len(data)
        self.prior_ = SpectralPrior(mu, max(sigma2, 1e-12 * np.mean(mu**2)))
        self.estimators_ = [
            SpectralGraphicalLasso(
                self.prior_,
                self.gamma,
                self.beta,
                init=fit.weights_,
                tol=self.tol,
                max_iter=self.max_iter,
            ).fit(x)
            for fit, x in zip(first, data, strict=True)
        ]
        self.laplacians_ = [fit.laplacian_ for fit in self.estimators_]
        self.converged_ = all(fit.converged_ for fit in self.estimators_)
        return self

    def score(self, X, y=None):
        """
        Give the mean log-likelihood of signals, each set under its own graph.

        Parameters
        ----------
        X : list of array-like of shape (n_k, p)
            Signals of each graph, in the order of ``fit``.
        y : None
            Ignored.

        Returns
        -------
        float
            Mean over the graphs of the mean log-likelihood of a signal, in nats.

        Raises
        ------
        ValueError
            If the number of data sets is another one than that of the graphs.
        sklearn.exceptions.NotFittedError
            If ``fit`` was not called.
        """
        check_is_fitted(self)
        data = _check_data_sets(X)
        if len(data) != len(self.estimators_):
            raise ValueError(
                f"X must hold one data set for each of {len(self.estimators_)} graphs, "
                f"got {len(data)}"
            )
        pairs = zip(self.estimators_, data, strict=True)
        return float(np.mean([fit.score(x) for fit, x in pairs]))

    def _likelihood(self, x):
        return LaplacianGraphicalLasso(tol=self.tol, max_iter=self.max_iter).fit(x)


def _check_data_sets(X):
    if isinstance(X, str) or not hasattr(X, "__len__"):
        raise TypeError(f"X must be a list of data sets, got {type(X).__name__}")
    data = [to_numpy(as_float_array(x, f"X[{k}]")) for k, x in enumerate(X)]
    widths = sorted({x.shape[1] for x in data})
    if len(widths) > 1:
        raise ValueError(f"X must hold graphs of one size, got {widths} columns")
    return data
