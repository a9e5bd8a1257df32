r"""
Graphons: random graphs of any size from one function, and what their spectra share.

A graphon is a symmetric function :math:`W : [0, 1]^2 \to [0, 1]`. A graph of p nodes is
drawn from it by latent positions and independent edges,

.. math::
    \zeta_i \sim \mathrm{Unif}[0, 1], \qquad
    A_{ij} = A_{ji} \sim \mathrm{Bern}(W(\zeta_i, \zeta_j)) \quad (i < j),
    \qquad A_{ii} = 0 .

The eigenvalues of its Laplacian, sorted and divided by p, approach the sorted degree
function :math:`d(x) = \int_0^1 W(x, y)\,dy`.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import erf

from lib._backend import (
    as_float_array,
    check_choice,
    check_integer,
    check_real,
    make_rng,
)

__all__ = ["GraphSample", "Graphon", "SpectralPrior", "sample_gmrf"]

KINDS = ("degree", "spectrum", "constant")
# Draws until a connected graph is given up, points of the degree's quadrature.
MAX_DRAWS, QUADRATURE = 1000, 4096


class GraphSample(NamedTuple):
    """
    A graph drawn from a graphon.

    Attributes
    ----------
    adjacency : ndarray of shape (p, p)
        Symmetric matrix of zeros and ones, zero on the diagonal.
    laplacian : ndarray of shape (p, p)
        Degrees on the diagonal, minus the adjacency matrix elsewhere.
    latents : ndarray of shape (p,)
        Latent positions of the nodes.

    Examples
    --------
    >>> from lib.graphs import Graphon
    >>> graph = Graphon.erdos_renyi(0.5).sample(6, rng=0)
    >>> float(abs(graph.laplacian.sum(axis=0)).max())
    0.0
    """

    adjacency: np.ndarray
    laplacian: np.ndarray
    latents: np.ndarray


class SpectralPrior:
    r"""
    What is known of a Laplacian's eigenvalues before there are data.

    .. math::
        \lambda_i = \mu_i + \text{error}, \qquad
        \sigma^2 = \frac{1}{p - 1} \sum_{i = 2}^p \mathbb{E}(\lambda_i - \mu_i)^2 .

    Parameters
    ----------
    mu : array-like of shape (p,)
        Expected eigenvalues, ascending. The first belongs to the eigenvalue 0 and is
        used by nobody.
    sigma2 : float, optional
        Mean square error of ``mu``; None where it is not known, and then an estimator
        has no weight to derive from it.

    Raises
    ------
    TypeError
        If an argument is no number or no array of numbers.
    ValueError
        If ``mu`` is not ascending and finite, or ``sigma2`` not positive.

    Examples
    --------
    >>> from lib.graphs import SpectralPrior
    >>> SpectralPrior([0.0, 2.0, 5.0], sigma2=1.5).mu
    array([0., 2., 5.])
    """

    mu: np.ndarray
    sigma2: float | None = None

    def __init__(self, mu, sigma2=None):
        mu = np.array(as_float_array(mu, "mu", ndim=1), dtype=np.float64)
        if len(mu) < 2:
            raise ValueError(f"mu must have at least two entries, got {len(mu)}")
        if np.any(np.diff(mu) < 0):
            raise ValueError(
                "mu must be ascending, as the eigenvalues are that it is matched with; "
                "pass np.sort(mu)"
            )
        mu.flags.writeable = False  # a weight may have been derived from it
        if sigma2 is not None:
            check_real("sigma2", sigma2)
            sigma2 = float(sigma2)
        self.mu, self.sigma2 = mu, sigma2

    def __repr__(self):
        return f"SpectralPrior(p={len(self.mu)}, sigma2={self.sigma2})"

    @classmethod
    def from_graph(cls, A, p, n_mc=200, rng=0):
        r"""
        Take the degrees of another graph, of any size, as the prior.

        Its sorted degrees are read as quantiles: those of p' nodes are interpolated at
        the quantiles of p nodes and multiplied by p / p'. The error is that of a
        parametric bootstrap: pairs of graphs from the step graphon that has these
        degrees k and the probabilities

        .. math:: \min(1, k_i k_j / \textstyle\sum_l k_l),

        the degrees of the one against the spectrum of the other.

        Parameters
        ----------
        A : array-like of shape (p', p')
            Adjacency matrix, symmetric, weights >= 0, zero on the diagonal.
        p : int
            Number of nodes of the graph that the prior is for.
        n_mc : int, default=200
            Bootstrap pairs.
        rng : int, Generator, SeedSequence, RandomState or None, default=0
            Randomness of the bootstrap.

        Returns
        -------
        SpectralPrior
            The prior for p nodes.

        Raises
        ------
        TypeError
            If an argument has a wrong type.
        ValueError
            If ``A`` is no adjacency matrix of a graph with an edge, or a number is too
            small.

        Notes
        -----
        The bootstrap takes ``n_mc`` eigendecompositions, O(p^3) each. It draws edges of
        weight one or none: for a weighted graph the error is that of an unweighted one
        of the same degrees.

        Examples
        --------
        >>> from lib.graphs import Graphon, SpectralPrior
        >>> graph = Graphon.quadratic().sample(60, rng=0)
        >>> prior = SpectralPrior.from_graph(graph.adjacency, 30)
        >>> len(prior.mu), bool(0.8 < prior.mu.max() / 20 < 1.25)
        (30, True)
        """
        A = np.asarray(as_float_array(A, "A"), dtype=np.float64)
        if A.shape[0] != A.shape[1] or not np.allclose(A, A.T, atol=1e-10):
            raise ValueError(f"A must be square and symmetric, got shape {A.shape}")
        if np.any(A < 0) or np.any(np.diag(A)) or not np.any(A):
            raise ValueError(
                "A must have weights >= 0, an edge, and a diagonal of zeros"
            )
        check_integer("p", p, minimum=2)
        check_integer("n_mc", n_mc, minimum=2)
        rng = make_rng(rng)
        degrees = np.sort(A.sum(axis=1))
        total, size = degrees.sum(), len(degrees)

        def rank_one(x, y):
            a, b = (
                degrees[np.minimum((size * t).astype(int), size - 1)] for t in (x, y)
            )
            return np.minimum(1.0, a * b / total)

        graphon = Graphon(rank_one)
        squares = np.empty(n_mc)
        for t in range(n_mc):
            other = graphon.sample(size, rng, connected=False)
            guess = _resize(np.sort(other.adjacency.sum(axis=1)), p)
            lam = _spectrum(graphon.sample(p, rng, connected=False).laplacian)
            squares[t] = np.mean((lam - guess)[1:] ** 2)
        return cls(_with_zero(_resize(degrees, p)), squares.mean())


class Graphon:
    r"""
    A symmetric function on the unit square that gives the probabilities of edges.

    Parameters
    ----------
    func : callable
        W: takes two arrays of latent positions that broadcast, gives probabilities.
    degree : callable, optional
        The degree function: takes an array of positions, gives the integral of W over
        the other one; by default a midpoint rule with 4096 points.

    Raises
    ------
    TypeError
        If ``func`` or ``degree`` cannot be called.

    Notes
    -----
    Nothing asks W to be monotone. Where it is not, the *rearranged* degree function
    counts, its sorted values: the eigenvalues know of no labels.

    References
    ----------
    .. [1] R. Vizuete, F. Garin, P. Frasca, "The Laplacian spectrum of large graphs
       sampled from graphons", IEEE Trans. Network Science and Engineering 8(2), 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.graphs import Graphon
    >>> W = Graphon(lambda x, y: x * y)
    >>> W.degree([0.2, 0.8]).round(6)
    array([0.1, 0.4])
    >>> graph = W.sample(40, rng=0)
    >>> graph.adjacency.shape
    (40, 40)
    """

    def __init__(self, func, degree=None):
        for name, f in {"func": func, "degree": degree}.items():
            if not callable(f) and not (name == "degree" and f is None):
                raise TypeError(f"{name} must be callable, got {f!r}")
        self.func = func
        self._degree = degree

    @classmethod
    def erdos_renyi(cls, q):
        """
        Give every edge the same probability.

        Parameters
        ----------
        q : float
            The probability, between 0 and 1.

        Returns
        -------
        Graphon
            The constant q.

        Raises
        ------
        TypeError
            If q is no number.
        ValueError
            If it is no probability.

        Examples
        --------
        >>> from lib.graphs import Graphon
        >>> float(Graphon.erdos_renyi(0.3)(0.1, 0.9))
        0.3
        """
        check_real("q", q, allow_zero=True)
        if q > 1:
            raise ValueError(f"q must be a probability, got {q!r}")
        return cls(
            lambda x, y: np.full(np.broadcast_shapes(np.shape(x), np.shape(y)), q),
            lambda x: np.full(np.shape(x), float(q)),
        )

    @classmethod
    def sbm(cls, probabilities, sizes=None):
        """
        Make a stochastic block model, constant on blocks.

        Parameters
        ----------
        probabilities : array-like of shape (K, K)
            Symmetric matrix of the probabilities between two blocks.
        sizes : array-like of shape (K,), optional
            Shares of the blocks, positive with sum one; equal by default.

        Returns
        -------
        Graphon
            The step function.

        Raises
        ------
        TypeError
            If an argument is no array of numbers.
        ValueError
            If the matrix is not symmetric, an entry is no probability, or the shares
            do not fit.

        Examples
        --------
        >>> from lib.graphs import Graphon
        >>> W = Graphon.sbm([[0.8, 0.1], [0.1, 0.6]], sizes=[0.25, 0.75])
        >>> W.degree([0.1, 0.9]).round(3)
        array([0.275, 0.475])
        """
        P = np.asarray(as_float_array(probabilities, "probabilities"))
        if P.shape[0] != P.shape[1] or not np.array_equal(P, P.T):
            raise ValueError(
                f"probabilities must be square and symmetric, got shape {P.shape}"
            )
        if np.any(P < 0) or np.any(P > 1):
            raise ValueError("probabilities must lie between 0 and 1")
        k = len(P)
        shares = np.full(k, 1 / k) if sizes is None else sizes
        shares = np.asarray(as_float_array(shares, "sizes", ndim=1))
        if len(shares) != k or np.any(shares <= 0) or abs(shares.sum() - 1) > 1e-9:
            raise ValueError(f"sizes must be {k} positive shares with sum 1")
        ends = np.cumsum(shares)[:-1]

        def block(x):
            return np.searchsorted(ends, x, side="right")

        return cls(lambda x, y: P[block(x), block(y)], lambda x: (P @ shares)[block(x)])

    @classmethod
    def quadratic(cls):
        """
        Make half the sum of squares, the graphon of the report's experiments.

        Returns
        -------
        Graphon
            W(x, y) = (x^2 + y^2) / 2, with degrees x^2 / 2 + 1 / 6. It is not bounded
            away from zero.

        Examples
        --------
        >>> from lib.graphs import Graphon
        >>> Graphon.quadratic().degree([0.0, 1.0]).round(4)
        array([0.1667, 0.6667])
        """
        return cls(
            lambda x, y: (np.square(x) + np.square(y)) / 2,
            lambda x: np.square(x) / 2 + 1 / 6,
        )

    @classmethod
    def gaussian_band(cls, phi):
        """
        Tie near positions together: exp(-phi (x - y)^2).

        Parameters
        ----------
        phi : float
            Inverse width; positive.

        Returns
        -------
        Graphon
            The band. It is not monotone.

        Raises
        ------
        TypeError
            If phi is no number.
        ValueError
            If it is not positive.

        Examples
        --------
        >>> from lib.graphs import Graphon
        >>> Graphon.gaussian_band(20.0).degree([0.0, 0.5]).round(3)
        array([0.198, 0.396])
        """
        check_real("phi", phi)
        root = np.sqrt(phi)
        factor = np.sqrt(np.pi) / (2 * root)
        return cls(
            lambda x, y: np.exp(-phi * np.square(np.subtract(x, y))),
            lambda x: factor * (erf(root * x) + erf(root * (1 - x))),
        )

    def __call__(self, x, y):
        return self.func(np.asarray(x, np.float64), np.asarray(y, np.float64))

    def degree(self, x):
        """
        Evaluate the degree function, the expected share of nodes a position is tied to.

        Parameters
        ----------
        x : array-like
            Positions in [0, 1].

        Returns
        -------
        ndarray
            Degrees in [0, 1], of the shape of x.

        Raises
        ------
        ValueError
            If a position lies outside [0, 1].

        Examples
        --------
        >>> from lib.graphs import Graphon
        >>> float(Graphon.erdos_renyi(0.5).degree(0.3))
        0.5
        """
        x = _positions(x, "x")
        if self._degree is not None:
            return np.asarray(self._degree(x), np.float64)
        grid = (np.arange(QUADRATURE) + 0.5) / QUADRATURE
        flat = [self(t, grid).mean() for t in x.ravel()]
        return np.array(flat).reshape(x.shape)

    def sample(self, p, rng=None, latents=None, connected=True):
        """
        Draw a graph.

        Parameters
        ----------
        p : int
            Number of nodes.
        rng : int, Generator, SeedSequence, RandomState or None
            Randomness of the positions and the edges.
        latents : array-like of shape (p,), optional
            Latent positions, kept in their order; by default uniform.
        connected : bool, default=True
            Whether to draw again until the graph is connected.

        Returns
        -------
        GraphSample
            Adjacency matrix, Laplacian and positions.

        Raises
        ------
        TypeError
            If an argument has a wrong type.
        ValueError
            If p is smaller than 2, the positions do not fit, W is not symmetric with
            values in [0, 1], or a thousand draws gave no connected graph.

        Notes
        -----
        O(p^2) a draw.

        Examples
        --------
        >>> from lib.graphs import Graphon
        >>> graph = Graphon.quadratic().sample(30, rng=1)
        >>> bool((graph.adjacency == graph.adjacency.T).all())
        True
        """
        check_integer("p", p, minimum=2)
        if not isinstance(connected, (bool, np.bool_)):
            raise TypeError(f"connected must be a bool, got {connected!r}")
        rng = make_rng(rng)
        for _ in range(MAX_DRAWS if connected else 1):
            zeta = rng.uniform(size=p) if latents is None else _latents(latents, p)
            A = np.triu(rng.uniform(size=(p, p)) < self._probabilities(zeta), 1)
            if not connected or _is_connected(A):
                A = (A | A.T).astype(np.float64)
                return GraphSample(A, np.diag(A.sum(axis=1)) - A, zeta)
        raise ValueError(
            f"connected=True must be possible: {MAX_DRAWS} graphs with p={p} nodes "
            "were not connected"
        )

    def _probabilities(self, zeta):
        W = np.asarray(self(zeta[:, None], zeta[None, :]), np.float64)
        if W.shape != (len(zeta),) * 2 or not np.allclose(W, W.T, atol=1e-10):
            raise ValueError(
                f"func must be symmetric and broadcast, got shape {W.shape} for "
                f"{len(zeta)} positions"
            )
        if not (W.min() >= 0 and W.max() <= 1 + 1e-12):
            raise ValueError(
                f"func must have values in [0, 1], got {W.min()} to {W.max()}"
            )
        return W

    def spectral_prior(self, p, latents=None, kind="degree", n_mc=200, rng=0):
        r"""
        Say what the graphon knows of the Laplacian spectrum of p nodes.

        .. math::
            \mu_i = p\, d(\zeta_{(i)}), \qquad
            \mu_i = \mathbb{E} \lambda_i, \qquad
            \mu_i = p \int_0^1 d(x)\, dx

        for the three kinds ``degree``, ``spectrum`` and ``constant``.

        Parameters
        ----------
        p : int
            Number of nodes.
        latents : array-like of shape (p,), optional
            Latent positions, where they are known; otherwise the degree function is
            read at the quantiles (i - 1/2) / p, and the error is that of graphs with
            positions of their own.
        kind : {'degree', 'spectrum', 'constant'}, default='degree'
            The sorted degree function, the mean spectrum of simulated graphs, or the
            same value everywhere.
        n_mc : int, default=200
            Simulated graphs; they need not be connected.
        rng : int, Generator, SeedSequence, RandomState or None, default=0
            Randomness of the simulation.

        Returns
        -------
        SpectralPrior
            Ascending values, the first of them 0, and their mean square error.

        Raises
        ------
        TypeError
            If an argument has a wrong type.
        ValueError
            If a number is too small, the kind unknown, or the positions do not fit.

        Notes
        -----
        ``n_mc`` eigendecompositions, O(p^3) each.

        Examples
        --------
        >>> from lib.graphs import Graphon
        >>> prior = Graphon.erdos_renyi(0.5).spectral_prior(30)
        >>> float(prior.mu[-1]), bool(14 < prior.sigma2 < 17)
        (15.0, True)
        """
        check_integer("p", p, minimum=2)
        check_integer("n_mc", n_mc, minimum=2)
        check_choice("kind", kind, KINDS)
        rng = make_rng(rng)
        zeta = None if latents is None else _latents(latents, p)
        lam = np.array(
            [
                _spectrum(self.sample(p, rng, zeta, connected=False).laplacian)
                for _ in range(n_mc)
            ]
        )
        grid = (np.arange(p) + 0.5) / p if zeta is None else zeta
        if kind == "degree":
            mu = p * np.sort(self.degree(grid))
        elif kind == "spectrum":
            mu = lam.mean(axis=0)
        else:
            mu = np.full(p, p * self.degree(grid).mean())
        mu = _with_zero(mu)
        squares = np.mean((lam - mu)[:, 1:] ** 2)
        if kind == "spectrum":  # the mean was taken from the same graphs
            squares *= (n_mc + 1) / (n_mc - 1)
        # graphs without any randomness, W = 0 or 1, may have no error at all
        return SpectralPrior(mu, max(squares, np.finfo(float).tiny))


def sample_gmrf(laplacian, n, rng=None):
    r"""
    Draw signals whose precision matrix is a graph's Laplacian.

    .. math::
        x = \sum_{\lambda_i > 0} \lambda_i^{-1/2} g_i u_i \sim N(0, L^+), \qquad
        g_i \sim N(0, 1),

    with eigenvalues and eigenvectors of the Laplacian L.

    Parameters
    ----------
    laplacian : array-like of shape (p, p)
        Symmetric, positive semidefinite, with rows of sum zero.
    n : int
        Number of signals.
    rng : int, Generator, SeedSequence, RandomState or None
        Randomness.

    Returns
    -------
    ndarray of shape (n, p)
        One signal a row; each sums to zero over the nodes of a connected graph.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If the matrix is no Laplacian, or n is smaller than 1.

    Notes
    -----
    O(p^3 + n p^2).

    Examples
    --------
    >>> import numpy as np
    >>> from lib.graphs import sample_gmrf
    >>> L = np.array([[1.0, -1.0, 0.0], [-1.0, 2.0, -1.0], [0.0, -1.0, 1.0]])
    >>> X = sample_gmrf(L, 20_000, rng=0)
    >>> bool(abs(X.T @ X / len(X) - np.linalg.pinv(L)).max() < 0.02)
    True
    """
    L = np.asarray(as_float_array(laplacian, "laplacian"), dtype=np.float64)
    check_integer("n", n)
    scale = max(1.0, np.abs(L).max(initial=0.0))
    if L.shape[0] != L.shape[1] or np.abs(L - L.T).max() > 1e-8 * scale:
        raise ValueError(f"laplacian must be square and symmetric, got shape {L.shape}")
    if np.abs(L.sum(axis=1)).max() > 1e-8 * scale * len(L):
        raise ValueError("laplacian must have rows of sum zero")
    lam, U = np.linalg.eigh(L)
    if lam[0] < -1e-8 * scale:
        raise ValueError(
            f"laplacian must be positive semidefinite, got eigenvalue {lam[0]:.3g}"
        )
    kept = lam > 1e-10 * lam[-1]
    normal = make_rng(rng).standard_normal((n, len(L)))
    return (normal[:, kept] / np.sqrt(lam[kept])) @ U[:, kept].T


def _positions(x, name):
    x = np.asarray(x, np.float64)
    if not (np.all(x >= 0) and np.all(x <= 1)):  # NaN is refused as well
        raise ValueError(f"{name} must lie in [0, 1]")
    return x


def _latents(latents, p):
    zeta = _positions(latents, "latents")
    if zeta.shape != (p,):
        raise ValueError(f"latents must have shape ({p},), got {zeta.shape}")
    return zeta


def _is_connected(A):
    from scipy.sparse.csgraph import connected_components

    return connected_components(A, directed=False, return_labels=False) == 1


def _spectrum(L):
    lam = np.linalg.eigvalsh(L)
    lam[0] = 0.0
    return lam


def _resize(values, p):
    # Sorted degrees of p' nodes as quantiles, read at those of p nodes.
    size = len(values)
    at, known = (np.arange(p) + 0.5) / p, (np.arange(size) + 0.5) / size
    return np.interp(at, known, values) * p / size


def _with_zero(mu):
    return np.concatenate([[0.0], mu[1:]])
