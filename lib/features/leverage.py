r"""
Leverage scores: frequencies drawn by how much ridge regression needs them.

For data :math:`x_1, \dots, x_n` with kernel matrix :math:`K` and a ridge parameter
:math:`\lambda`, the ridge leverage function of a kernel with spectral density
:math:`p` is

.. math::
    l_\lambda(\omega) = p(\omega) \, z_\omega^* (K + n \lambda I)^{-1} z_\omega,
    \qquad z_\omega = (e^{i \omega^\top x_1}, \dots, e^{i \omega^\top x_n}),

and its integral is the effective dimension
:math:`d_\lambda = \mathrm{tr} \, K (K + n \lambda I)^{-1}`. Frequencies from the
density :math:`q^* = l_\lambda / d_\lambda`, each weighted by
:math:`\sqrt{p / q^*}`, are the best ones for ridge regression in a bound on their
number. Scores of a pool of frequencies from :math:`p` stand in for the density.
"""

import sys

import numpy as np
from scipy.linalg import blas, lapack, solve_triangular
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils.validation import check_is_fitted

from lib._backend import (
    as_float_array,
    check_choice,
    check_integer,
    check_real,
    check_same_kind,
    check_samples,
    is_torch,
    make_rng,
    row_blocks,
    to_numpy,
)
from lib.features.fourier import RandomFourierFeatures

__all__ = ["LeverageScoreFeatures", "effective_dimension", "leverage_density"]

#: Elements of a block of float64 features: 16 MB on a CPU, 2 GB on a GPU.
BLOCK = {"cpu": 2**21, "cuda": 2**28}

#: Fewest rows of a block, or reading the Gram matrix would dominate.
ROWS = 256


def effective_dimension(K, lam):
    r"""
    Count the directions of a kernel matrix that ridge regression keeps.

    .. math:: d_\lambda = \mathrm{tr} \, K (K + n \lambda I)^{-1}
        = \sum_i \frac{\mu_i}{\mu_i + n \lambda}

    for the eigenvalues :math:`\mu_i` of :math:`K`.

    Parameters
    ----------
    K : ndarray or Tensor of shape (n, n)
        Symmetric positive semi-definite matrix.
    lam : float
        Ridge parameter lambda > 0, of the mean squared error: the penalty of the
        sum is n lambda.

    Returns
    -------
    float
        A number between 0 and n, computed in float64.

    Raises
    ------
    TypeError
        If a type is wrong.
    ValueError
        If ``K`` is not finite, square, symmetric and positive semi-definite, or
        ``lam`` is not positive.

    Notes
    -----
    Time O(n^3), memory O(n^2). Eigenvalues that rounding left below zero count as
    zero.

    References
    ----------
    .. [1] H. Avron et al., "Random Fourier features for kernel ridge regression",
       ICML 2017, Section 2: the statistical dimension.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.features import effective_dimension
    >>> effective_dimension(np.eye(4), 0.25)
    2.0
    """
    check_real("lam", lam)
    K, values = _check_kernel_matrix(K)
    return float((values / (values + len(K) * lam)).sum())


def leverage_density(omega, X, K, lam):
    r"""
    Evaluate the density of leverage-score sampling relative to the spectral density.

    .. math::
        \frac{q^*(\omega)}{p(\omega)} = \frac{l_\lambda(\omega)}
        {p(\omega) \, d_\lambda} = \frac{z_\omega^* (K + n \lambda I)^{-1} z_\omega}
        {\mathrm{tr} \, K (K + n \lambda I)^{-1}} .

    Its mean over :math:`p` is 1. Where it is 1 everywhere, leverage scores change
    nothing.

    Parameters
    ----------
    omega : ndarray or Tensor of shape (m, d)
        Angular frequencies, in units of 1 / length.
    X : ndarray or Tensor of shape (n, d)
        Points, of the same kind and on the same device.
    K : ndarray or Tensor of shape (n, n)
        Exact kernel matrix of the points; that of a pool of random features gives
        the ratio by which :class:`LeverageScoreFeatures` draws from the pool.
    lam : float
        Ridge parameter lambda > 0, of the mean squared error.

    Returns
    -------
    ndarray or Tensor of shape (m,)
        Density ratio, of the kind, dtype and device of ``X``. It is computed in
        float64.

    Raises
    ------
    TypeError
        If the arrays differ in kind, or a type is wrong.
    ValueError
        If shapes or devices disagree, ``K`` is not symmetric and positive
        semi-definite, ``lam`` is not positive, or it is so small that the matrix is
        numerically singular.

    Notes
    -----
    Time O(n^3 + n^2 m + n d m), memory O(n^2 + n m).

    References
    ----------
    .. [1] H. Avron et al., "Random Fourier features for kernel ridge regression",
       ICML 2017, Section 4: the ridge leverage function.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.features import kernel_matrix, leverage_density
    >>> X = np.linspace(-1, 1, 50)[:, None]
    >>> K = kernel_matrix(X, gamma=20.0)
    >>> ratio = leverage_density(np.array([[0.0], [20.0]]), X, K, lam=1e-4)
    >>> bool(ratio[1] > 2 * ratio[0])
    True
    """
    check_real("lam", lam)
    X, omega = as_float_array(X, "X"), as_float_array(omega, "omega")
    check_same_kind(X, omega, ("X", "omega"))
    if omega.shape[1] != X.shape[1]:
        raise ValueError(
            "omega and X must have the same number of columns, got "
            f"{omega.shape[1]} and {X.shape[1]}"
        )
    check_same_kind(X, as_float_array(K, "K"), ("X", "K"))
    K, values = _check_kernel_matrix(K)
    if len(K) != len(X):
        raise ValueError(
            f"K must have shape {(len(X), len(X))} to match X, got {tuple(K.shape)}"
        )
    xp = _torch() if is_torch(X) else np
    shift = len(K) * lam
    dimension = (values / (values + shift)).sum()
    root = _root(K, shift, "lam", lam)
    theta = _double(X) @ _double(omega).T
    ratio = sum((_solve(root, f(theta)) ** 2).sum(0) for f in (xp.cos, xp.sin))
    ratio = ratio / dimension
    return ratio.to(X.dtype) if is_torch(X) else ratio.astype(X.dtype, copy=False)


class LeverageScoreFeatures(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    r"""
    Approximate a shift-invariant kernel by leverage-score random features.

    A pool of :math:`s` frequencies is drawn from the spectral density. Their
    unscaled features :math:`Z_s`, of shape (n, 2s) for pairs, have the scores

    .. math::
        p_i = \left[ Z_s^\top Z_s \left( Z_s^\top Z_s / s + n \lambda I
        \right)^{-1} \right]_{ii},

    where the cosine's and the sine's are added for a pair. With
    :math:`q_i = p_i / \sum_j p_j`, the :math:`l` frequencies of the map are drawn
    from the pool with replacement, and features of frequency :math:`i` are weighted
    by :math:`1 / \sqrt{l s q_i}`. Whatever the scores, the expectation over the draw
    of the approximate kernel matrix is the pool's, :math:`Z_s Z_s^\top / s`, and
    over the pool it is the exact one.

    Parameters
    ----------
    n_components : int, default=100
        Number of output features D, exactly. Pairs have l = D / 2; an odd D has
        (D - 1) / 2 pairs and one cosine with a random phase, and l = D / 2 again.
    kernel : str, default="gaussian"
        One of "gaussian", "laplacian", "cauchy", "matern" and "rational_quadratic",
        as in :func:`kernel_matrix`.
    gamma : float or "scale", default="scale"
        Inverse bandwidth, as in :class:`RandomFourierFeatures`: 1 / (2 sigma^2) for
        the Gaussian kernel and 1 / length for the others.
    nu : float, default=1.5
        Smoothness of the Matern kernel; the others ignore it.
    kernel_alpha : float, default=1.0
        Shape of the rational quadratic kernel, which is called ``alpha`` where no
        ridge parameter needs the name; the others ignore it.
    alpha : float, default=1e-3
        Ridge parameter lambda > 0 of the scores, which is that of the mean squared
        error: the regression they are meant for is
        ``RandomFeatureRidge(..., alpha=n * alpha)``. Small values spread the scores
        to high frequencies; for large ones all scores are the same.
    pool_factor : int, default=10
        The pool holds s = pool_factor * D frequencies.
    features : {"pair", "phase"}, default="pair"
        Cosine and sine of each frequency, or sqrt(2) times a cosine with a random
        phase; then l = D.
    random_state : int, Generator, SeedSequence, RandomState or None, default=None
        Source of randomness; None takes fresh entropy. An integer gives the same
        features at every fit and for every kind of array.

    Attributes
    ----------
    leverage_ : ndarray of shape (s,)
        Scores p_i of the pool.
    effective_dimension_ : float
        Effective dimension of the pool's kernel matrix, which is the mean of the
        scores.
    pool_frequencies_ : ndarray of shape (s, d)
        Frequencies of the pool.
    indices_ : ndarray of shape (m,)
        Where in the pool the drawn frequencies stand, with repetitions. m is D / 2
        for pairs, rounded up, and D for phases.
    weights_ : ndarray of shape (m,)
        Factors sqrt(2 / (D s q_i)) of the cosines (and sines) of each frequency: for
        pairs 1 / sqrt(l s q_i).
    frequencies_ : ndarray of shape (m, d)
        Drawn angular frequencies, in float64 and read-only.
    offset_ : ndarray
        Phases in [0, 2 pi) of the last features, those that are no pair.
    gamma_ : float
        The inverse bandwidth in use.
    n_features_in_ : int
        Dimension d of the input.

    Notes
    -----
    Fitting takes O(n s min(n, s) + n s d) time and O(s min(n, s) + s d) memory once
    for the whole data set: the smaller one of the n x n and the s x s system is
    solved, in float64, by Cholesky's method. With an s x s system a score comes as
    a difference from s, and rounding may leave it below zero, where it is set to
    zero. An error of the scores costs optimality and no bias, as the weights use the
    scores that were drawn from. Mapping takes O(n d D) time.

    The score of a pair lies between 1 / (1 + lambda) and 1 / lambda. So no
    weight is above sqrt((1 + lambda) d_K) times that of plain, d_K the effective
    dimension; and where that is near 1 / lambda, all scores are
    nearly the same.

    Targets are not used, but points are: fit inside a cross-validation.

    References
    ----------
    .. [1] H. Avron et al., "Random Fourier features for kernel ridge regression",
       ICML 2017, Sections 3 and 4: the leverage function.
    .. [2] Z. Li et al., "Towards a unified analysis of random Fourier features",
       JMLR 22(108), 2021, Algorithm 1: scores from a pool.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.features import LeverageScoreFeatures, RandomFeatureRidge
    >>> X = np.linspace(-1, 1, 400)[:, None]
    >>> y = np.sin(3 * X[:, 0]) + np.sin(25 * X[:, 0])
    >>> features = LeverageScoreFeatures(40, gamma=50.0, alpha=1e-5, random_state=0)
    >>> ridge = RandomFeatureRidge(features, alpha=400 * 1e-5).fit(X, y)
    >>> ridge.score(X, y) > 0.99
    True
    """

    def __init__(
        self,
        n_components=100,
        *,
        kernel="gaussian",
        gamma="scale",
        nu=1.5,
        kernel_alpha=1.0,
        alpha=1e-3,
        pool_factor=10,
        features="pair",
        random_state=None,
    ):
        self.n_components = n_components
        self.kernel = kernel
        self.gamma = gamma
        self.nu = nu
        self.kernel_alpha = kernel_alpha
        self.alpha = alpha
        self.pool_factor = pool_factor
        self.features = features
        self.random_state = random_state

    def fit(self, X, y=None):
        """
        Draw a pool of frequencies, score them on the data and draw from the pool.

        Parameters
        ----------
        X : array-like, sparse matrix or Tensor of shape (n, d)
            Training data.
        y : None
            Ignored.

        Returns
        -------
        self : LeverageScoreFeatures
            The fitted estimator.

        Raises
        ------
        TypeError
            If a parameter or the data have a wrong type.
        ValueError
            If a parameter is out of its range, ``alpha`` so small that the system is
            numerically singular, or the data are not a finite matrix.
        """
        check_integer("n_components", self.n_components)
        check_integer("pool_factor", self.pool_factor)
        check_real("alpha", self.alpha)
        check_real("kernel_alpha", self.kernel_alpha)
        check_choice("features", self.features, ("pair", "phase"))
        X = check_samples(self, X, reset=True, sparse=True)
        rng = make_rng(self.random_state)
        D, s = self.n_components, self.pool_factor * self.n_components
        paired = self.features == "pair"
        pool = self._plain(2 * s if paired else s, self.gamma, rng).fit(X)
        scores = _ridge_leverage(pool, X, self.alpha)
        if paired:
            scores = scores[:s] + scores[s:]
        pairs = D // 2 if paired else 0
        phases = D - 2 * pairs
        self.gamma_ = pool.gamma_
        self.pool_frequencies_ = pool.frequencies_
        self.leverage_ = s * scores
        self.effective_dimension_ = float(scores.sum())
        q = scores / scores.sum()
        self.indices_ = rng.choice(s, size=pairs + phases, p=q)
        self.weights_ = np.sqrt(2.0 / (D * s * q[self.indices_]))
        self.frequencies_ = pool.frequencies_[self.indices_]
        self.frequencies_.flags.writeable = False
        self.offset_ = (
            rng.uniform(0.0, 2.0 * np.pi, size=phases)
            if paired
            else pool.offset_[self.indices_]
        )
        # A plain map, with the drawn frequencies in place of its own.
        self._map = self._plain(D, self.gamma_, 0).fit(X[:1])
        self._map.frequencies_, self._map.offset_ = self.frequencies_, self.offset_
        self._n_features_out = D
        return self

    def transform(self, X):
        """
        Map points to their weighted random features.

        Parameters
        ----------
        X : array-like, sparse matrix or Tensor of shape (n, d)
            Points.

        Returns
        -------
        ndarray or Tensor of shape (n, D)
            Features, of the kind, dtype and device of ``X``; a numpy array for
            sparse input.

        Raises
        ------
        TypeError
            If the data have a wrong type.
        ValueError
            If the data are not a finite matrix of the fitted width.
        sklearn.exceptions.NotFittedError
            If ``fit`` was not called.
        """
        check_is_fitted(self)
        X = check_samples(self, X, reset=False, sparse=True)
        Z = self._map.transform(X)
        paired = self.weights_[: self.n_components - len(self.weights_)]
        # The plain map has a factor sqrt(2 / D) already.
        factors = np.concatenate([paired, self.weights_])
        factors = factors * np.sqrt(self.n_components / 2.0)
        if is_torch(Z):
            return Z * _torch().tensor(factors, dtype=Z.dtype, device=Z.device)
        Z *= factors.astype(Z.dtype)
        return Z

    def _plain(self, D, gamma, random_state):
        return RandomFourierFeatures(
            D,
            kernel=self.kernel,
            gamma=gamma,
            nu=self.nu,
            alpha=self.kernel_alpha,
            features=self.features,
            random_state=random_state,
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _torch():
    return sys.modules["torch"]


def _double(x):
    if is_torch(x):
        return x.detach().to(_torch().float64)
    return x.astype(np.float64, copy=False)


def _check_kernel_matrix(K):
    # Returns a copy in float64, and its eigenvalues without negative rounding.
    K = as_float_array(K, "K")
    if K.shape[0] != K.shape[1] or K.shape[0] == 0:
        raise ValueError(f"K must be square, got shape {tuple(K.shape)}")
    xp = _torch() if is_torch(K) else np
    # Room for the rounding of what made K, and none for another kind of matrix.
    slack = float(xp.finfo(K.dtype).eps) ** 0.5 * float(abs(K).max())
    K = _double(K).clone() if is_torch(K) else _double(K).copy()
    if float(abs(K - K.T).max()) > slack:
        raise ValueError("K must be symmetric, got a matrix that is not")
    values = xp.linalg.eigvalsh(K)
    if float(values[0]) < -slack:
        raise ValueError(
            f"K must be positive semi-definite, got the eigenvalue {float(values[0])!r}"
        )
    return K, values.clip(min=0.0)


def _ridge_leverage(feature_map, X, lam):
    # The diagonal of Z'Z (Z'Z + n lam I)^-1, as a numpy array. In float64 whatever
    # the data are: so the draw does not depend on their kind, nor on their dtype.
    n, D = X.shape[0], feature_map.n_components
    shift = n * lam
    if n <= D:
        Z = feature_map.transform(_double(X))
        root = _root(Z @ Z.T, shift, "alpha", lam)
        return to_numpy((_solve(root, Z) ** 2).sum(0))
    root = _root(_gram(feature_map, X), shift, "alpha", lam)
    # Z'Z M^-1 = I - n lam M^-1 for M = Z'Z + n lam I.
    if is_torch(root):
        inverse = to_numpy(_torch().cholesky_inverse(root).diagonal())
    else:
        inverse = np.diagonal(lapack.dpotri(root, lower=1, overwrite_c=1)[0])
    return np.clip(1.0 - shift * inverse, 0.0, None)


def _gram(feature_map, X):
    D = feature_map.n_components
    if is_torch(X):
        gram = _torch().zeros(D, D, dtype=_torch().float64, device=X.device)
    else:
        gram = np.zeros((D, D), order="F")
    size = BLOCK["cuda" if is_torch(X) and X.is_cuda else "cpu"]
    for rows in row_blocks(X.shape[0], max(ROWS, size // D)):
        Z = feature_map.transform(_double(X[rows]))
        if is_torch(Z):
            gram.addmm_(Z.T, Z)
        else:  # its lower triangle
            gram = blas.dsyrk(1.0, Z.T, beta=1.0, c=gram, lower=1, overwrite_c=1)
    return gram


def _root(A, shift, name, value):
    # The Cholesky factor of A + shift I, of whose lower triangle it is made. A is
    # written over.
    if is_torch(A):
        A.diagonal().add_(shift)
        root, info = _torch().linalg.cholesky_ex(A)
        failed = int(info) != 0
    else:
        np.einsum("ii->i", A)[:] += shift
        # The transpose of a symmetric matrix in C order is in LAPACK's order.
        A = A if A.flags.f_contiguous else A.T
        root, info = lapack.dpotrf(A, lower=1, overwrite_a=1)
        failed = info != 0
    if failed:
        raise ValueError(
            f"{name} must be large enough for K + n {name} I to be numerically "
            f"positive definite, got {value!r}"
        )
    return root


def _solve(root, B):
    if is_torch(root):
        return _torch().linalg.solve_triangular(root, B, upper=False)
    return solve_triangular(root, B, lower=True, check_finite=False)
