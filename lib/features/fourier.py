r"""
Random Fourier features: a kernel as an average of random cosines.

Two maps have :math:`\mathbb{E}\, z(x)^\top z(y) = k(x - y)`. With :math:`D = 2m`
outputs the *pair* map, and with :math:`D = m` outputs the *phase* map,

.. math::
    z(x) = \sqrt{1/m} \, [\cos \omega_i^\top x, \sin \omega_i^\top x]_{i \le m},
    \qquad
    z(x) = \sqrt{2/D} \, [\cos(\omega_i^\top x + b_i)]_{i \le D},

for frequencies from the spectral density of :math:`k` and phases uniform on
:math:`[0, 2\pi)`.
"""

import functools
import sys

import numpy as np
from scipy.special import ndtri
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
    check_samples,
    is_torch,
    make_rng,
    row_blocks,
)
from lib.features.kernels import (
    RADIAL,
    check_kernel,
    radial_scale,
    spectral_sample,
)

__all__ = ["RandomFourierFeatures", "rff_variance"]

SAMPLING = ("iid", "orthogonal", "sorf", "qmc")
FEATURES = ("pair", "phase")
VARIANTS = ("pair", "phase", "normalized")

#: Elements of a tile on which several elementwise passes run: two stay in a cache
#: of half a megabyte. Projections are made in larger blocks, for the matrix product.
TILE = 2**15


def rff_variance(k, k2, D, variant="pair"):
    r"""
    Give the variance of the kernel estimate from D independent features.

    With :math:`k = k(\delta)` and :math:`k_2 = k(2\delta)`, for even :math:`D`,

    .. math::
        D \, \mathrm{Var}_{pair} &= 1 + k_2 - 2 k^2, \\
        D \, \mathrm{Var}_{phase} &= 1 + k_2 / 2 - k^2, \\
        D \, \mathrm{Var}_{normalized} &= 1 + k_2 / 2 - 2 k^2
        + k^2 (1 + k_2) / 4 + O(1/D).

    For the Gaussian kernel :math:`k_2 = k^4` and these are :math:`(1 - k^2)^2`,
    :math:`1 - k^2 + k^4 / 2` and :math:`(1 - k^2)^2 (1 + k^2 / 4)`. The pair map of
    odd :math:`D` has :math:`(D - 1) / 2` pairs and one phase feature, and

    .. math:: D^2 \, \mathrm{Var} = (D - 1)(1 + k_2 - 2 k^2) + 1 + k_2 / 2 - k^2 .

    Parameters
    ----------
    k : float, ndarray or Tensor
        Kernel value at the difference of two points.
    k2 : float, ndarray or Tensor
        Kernel value at twice that difference.
    D : int
        Number of features.
    variant : {"pair", "phase", "normalized"}, default="pair"
        Feature map; "normalized" is the phase map with rows scaled to norm one.

    Returns
    -------
    float, ndarray or Tensor
        Variance of :math:`z(x)^\top z(y)` over independent frequencies and phases.
        Exact, but for "normalized": there it is the first order in 1/D.

    Raises
    ------
    TypeError
        If ``D`` is not an integer or a dtype is not allowed.
    ValueError
        If ``D < 1``, the variant is unknown, or no kernel takes these values: they
        lie in [-1, 1] and satisfy ``k2 >= 2 k^2 - 1``.

    Notes
    -----
    Constant time per value. Orthogonal and quasi-random frequencies are dependent;
    their variance is another one.

    References
    ----------
    .. [1] D. J. Sutherland and J. Schneider, "On the error of random Fourier
       features", UAI 2015, Section 2.1.
    .. [2] P. Li, "Linearized GMM kernels and normalized random Fourier features",
       KDD 2017.

    Examples
    --------
    >>> from lib.features import rff_variance
    >>> rff_variance(0.5, 0.5**4, 100, "pair")
    0.005625
    >>> rff_variance(0.5, 0.5**4, 100, "phase")
    0.0078125
    """
    check_integer("D", D)
    check_choice("variant", variant, VARIANTS)
    k = as_float_array(k, "k", ndim=range(33))
    k2 = as_float_array(k2, "k2", ndim=range(33))
    # The slack is for kernel values in float32.
    for name, value in (("k", k), ("k2", k2)):
        if bool((abs(value) > 1.0 + 1e-6).any()):
            raise ValueError(f"{name} must lie in [-1, 1], got {value!r}")
    pair = 1.0 + k2 - 2.0 * k * k
    if bool((pair < -1e-6).any()):
        raise ValueError(
            "k2 must be at least 2 k**2 - 1, as for every positive definite kernel, "
            f"got k={k!r} and k2={k2!r}"
        )
    phase = 1.0 + k2 / 2.0 - k * k
    if variant == "phase":
        variance = phase / D
    elif variant == "normalized":
        variance = (phase - k * k + k * k * (1.0 + k2) / 4.0) / D
    elif D % 2 == 0:
        variance = pair / D
    else:
        variance = ((D - 1) * pair + phase) / D**2
    return variance if is_torch(variance) or np.ndim(variance) else float(variance)


class RandomFourierFeatures(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    r"""
    Approximate a shift-invariant kernel by random Fourier features.

    With :math:`m` frequencies :math:`\omega_i` from the kernel's spectral density,

    .. math:: z(x)^\top z(y) = \frac1m \sum_i \cos \omega_i^\top (x - y)

    for pairs of even ``n_components`` :math:`D = 2m`. An odd :math:`D` has
    :math:`(D - 1) / 2` pairs and one phase feature, all scaled by
    :math:`\sqrt{2/D}`. Both, and the phase map, are unbiased for every :math:`D`.

    Parameters
    ----------
    n_components : int, default=100
        Number of output features D, exactly.
    kernel : str, default="gaussian"
        One of "gaussian", "laplacian", "cauchy", "matern" and "rational_quadratic",
        as in :func:`kernel_matrix`.
    gamma : float or "scale", default="scale"
        Inverse bandwidth: 1 / (2 sigma^2) for the Gaussian kernel and 1 / length for
        the others, so 1 / l for Matern and rational quadratic. With V the variance
        of all entries of the training data, "scale" is

        - gaussian: 1 / (d V), as in scikit-learn; then sigma^2 = d V / 2;
        - matern, rational_quadratic: 1 / sigma = sqrt(2 / (d V));
        - cauchy: 1 / sqrt(d V), which agrees with the Gaussian to second order at 0;
        - laplacian: 1 / (d sqrt(V)), coordinates measured in standard deviations.

        Constant data have V = 0 and get 1.0.
    nu : float, default=1.5
        Smoothness of the Matern kernel; the others ignore it.
    alpha : float, default=1.0
        Shape of the rational quadratic kernel; the others ignore it.
    sampling : {"iid", "orthogonal", "sorf", "qmc"}, default="iid"
        How frequencies are drawn.

        - "iid": independently.
        - "orthogonal": in blocks of d orthogonal directions with independent lengths
          of the right law; unbiased; radial kernels only, so neither laplacian nor
          cauchy.
        - "sorf": rows of sqrt(2 gamma p) H D1 H D2 H D3 with orthonormal Hadamard
          matrices H and random signs, inputs zero-padded to p, the next power of
          two; Gaussian kernel only, with a bias of order 1/p.
        - "qmc": scrambled Sobol points through inverse distribution functions, one
          more dimension for the mixing variable of matern and rational_quadratic;
          unbiased up to the 2^-30 grid of the points.
    features : {"pair", "phase"}, default="pair"
        Cosine and sine of each frequency, or a cosine with a random phase.
    normalize : bool, default=False
        Scale each row to Euclidean norm one, as normalised random Fourier features
        do with the phase map: a bias of order 1/D for a smaller variance. Pairs of
        even D have that norm already.
    random_state : int, Generator, SeedSequence, RandomState or None, default=None
        Source of randomness; None takes fresh entropy at every fit.

    Attributes
    ----------
    gamma_ : float
        The inverse bandwidth in use.
    frequencies_ : ndarray of shape (m, d)
        Angular frequencies in float64, read-only; m is D for phase features and
        ceil(D / 2) for pairs.
    offset_ : ndarray of shape (D,), (1,) or (0,)
        Phases in [0, 2 pi) of the phase features: all, the one of an odd pair map
        (it has the last frequency), or none.
    n_features_in_ : int
        Dimension d of the input.
    feature_names_in_ : ndarray of shape (d,)
        Column names, where the training data had them.

    Notes
    -----
    Columns of the pair map: all cosines, then all sines, then the phase feature of
    an odd D. Fitting costs O(m d) (orthogonal: O(m d^2), sorf: O(m p)); a transform
    O(n m d) time and O(n D) memory. It is differentiable in a torch input.

    Frequencies are drawn by numpy and then moved, so numpy, torch, CPU and CUDA
    have the same ones. Spectral densities without a second moment (laplacian;
    matern with ``nu <= 1``) are projected and reduced by whole turns in float64
    before the angle is cast back, for a float32 angle of 1e5 has no digits left.
    TF32 projections follow ``torch.backends.cuda.matmul.allow_tf32``, which is off
    by default.

    References
    ----------
    .. [1] A. Rahimi and B. Recht, "Random features for large-scale kernel machines",
       NeurIPS 2007, Algorithm 1.
    .. [2] D. J. Sutherland and J. Schneider, "On the error of random Fourier
       features", UAI 2015, Section 2.1: phases against pairs.
    .. [3] F. X. Yu et al., "Orthogonal random features", NeurIPS 2016, Sections 3
       and 4: orthogonal and structured frequencies.
    .. [4] H. Avron et al., "Quasi-Monte Carlo feature maps for shift-invariant
       kernels", JMLR 17(120), 2016, Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.features import RandomFourierFeatures, approximation_error
    >>> from lib.features import kernel_matrix
    >>> X = np.random.default_rng(0).standard_normal((200, 8))
    >>> rff = RandomFourierFeatures(4096, random_state=0).fit(X)
    >>> K = kernel_matrix(X, gamma=rff.gamma_)
    >>> approximation_error(rff.transform(X), K, norm="max") < 0.1
    True
    """

    def __init__(
        self,
        n_components=100,
        *,
        kernel="gaussian",
        gamma="scale",
        nu=1.5,
        alpha=1.0,
        sampling="iid",
        features="pair",
        normalize=False,
        random_state=None,
    ):
        self.n_components = n_components
        self.kernel = kernel
        self.gamma = gamma
        self.nu = nu
        self.alpha = alpha
        self.sampling = sampling
        self.features = features
        self.normalize = normalize
        self.random_state = random_state

    def fit(self, X, y=None):
        """
        Draw the frequencies for the dimension, and the scale, of the data.

        Parameters
        ----------
        X : array-like, sparse matrix or Tensor of shape (n, d)
            Training data; only its width counts where ``gamma`` is a number.
        y : None
            Ignored.

        Returns
        -------
        self : RandomFourierFeatures
            The fitted estimator.

        Raises
        ------
        TypeError
            If a parameter or the data have a wrong type.
        ValueError
            If a parameter is out of its range, the sampling does not suit the
            kernel, or the data are not a finite matrix.
        """
        self._check_parameters()
        X = check_samples(self, X, reset=True, sparse=True)
        d = X.shape[1]
        pairs = self.n_components // 2 if self.features == "pair" else 0
        phases = self.n_components - 2 * pairs
        rng = make_rng(self.random_state)
        self.gamma_ = (
            _scale_gamma(X, self.kernel)
            if isinstance(self.gamma, str)
            else float(self.gamma)
        )
        self.frequencies_ = _draw_frequencies(
            self.sampling,
            self.kernel,
            pairs + phases,
            d,
            rng,
            gamma=self.gamma_,
            nu=self.nu,
            alpha=self.alpha,
        )
        # Copies of them wait on other devices: a change must be a new array.
        self.frequencies_.flags.writeable = False
        self.offset_ = rng.uniform(0.0, 2.0 * np.pi, size=phases)
        self._n_features_out = self.n_components
        self._placed = {}
        return self

    def transform(self, X):
        """
        Map points to their random features.

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
        pairs = self.frequencies_.shape[0] - self.offset_.shape[0]
        heavy_tailed = self._heavy_tailed()
        if is_torch(X):
            Z = _torch_features(X, *self._operands(X), pairs, heavy_tailed)
            if self.normalize and len(self.offset_):
                Z = Z / Z.norm(dim=1, keepdim=True)
            return Z
        Z = _numpy_features(X, self.frequencies_, self.offset_, pairs, heavy_tailed)
        if self.normalize and len(self.offset_):
            Z /= np.sqrt(np.einsum("ij,ij->i", Z, Z))[:, None]
        return Z

    def _check_parameters(self):
        check_integer("n_components", self.n_components)
        if isinstance(self.gamma, str):
            if self.gamma != "scale":
                raise ValueError(
                    f"gamma must be 'scale' or a number > 0, got {self.gamma!r}"
                )
            gamma = 1.0
        else:
            gamma = self.gamma
        check_kernel(self.kernel, gamma, self.nu, self.alpha)
        check_choice("sampling", self.sampling, SAMPLING)
        check_choice("features", self.features, FEATURES)
        if not isinstance(self.normalize, (bool, np.bool_)):
            raise TypeError(f"normalize must be a bool, got {self.normalize!r}")
        if self.sampling == "orthogonal" and self.kernel not in RADIAL:
            raise ValueError(
                f"sampling='orthogonal' must have a radial kernel, one of "
                f"{list(RADIAL)}, got kernel={self.kernel!r}: the spectral density of "
                "a product kernel is not invariant under rotation"
            )
        if self.sampling == "sorf" and self.kernel != "gaussian":
            raise ValueError(
                "sampling='sorf' must have kernel='gaussian', "
                f"got kernel={self.kernel!r}"
            )

    def _heavy_tailed(self):
        # The spectral density has no second moment.
        return self.kernel == "laplacian" or (self.kernel == "matern" and self.nu <= 1)

    def _operands(self, X):
        # Frequencies and phases as tensors beside X, moved there once.
        torch = sys.modules["torch"]
        key = (X.dtype, X.device)
        source, *placed = self._placed.get(key, (None,))
        if source is not self.frequencies_:
            placed = [
                torch.tensor(self.frequencies_, dtype=torch.float64, device=X.device),
                torch.tensor(self.offset_, dtype=X.dtype, device=X.device),
            ]
            if not self._heavy_tailed():
                placed[0] = placed[0].to(X.dtype)
            self._placed[key] = (self.frequencies_, *placed)
        return placed

    def __getstate__(self):
        state = super().__getstate__()
        if "_placed" in state:
            state = {**state, "_placed": {}}
        return state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _scale_gamma(X, kernel):
    d = X.shape[1]
    mean, variance = _moments(X)
    # Constant data: what is left is the rounding of the mean.
    if variance <= (8.0 * np.finfo(np.float64).eps * mean) ** 2:
        return 1.0
    if kernel == "gaussian":
        return 1.0 / (d * variance)
    if kernel == "laplacian":
        return 1.0 / (d * np.sqrt(variance))
    if kernel == "cauchy":
        return 1.0 / np.sqrt(d * variance)
    return float(np.sqrt(2.0 / (d * variance)))


def _moments(X):
    # Of all entries, block by block: no copy of X in float64.
    size = X.shape[0] * X.shape[1]
    if hasattr(X, "tocsr"):
        mean = X.data.sum(dtype=np.float64) / size
        squares = ((X.data.astype(np.float64) - mean) ** 2).sum()
        return mean, (squares + (size - X.data.size) * mean**2) / size
    if is_torch(X):
        X = X.detach()
        double = functools.partial(X.__class__.to, dtype=sys.modules["torch"].float64)
    else:
        double = functools.partial(np.asarray, dtype=np.float64)
    blocks = list(row_blocks(X.shape[0], max(1, 2**22 // X.shape[1])))
    mean = sum(float(double(X[rows]).sum()) for rows in blocks) / size
    squares = sum(float(((double(X[rows]) - mean) ** 2).sum()) for rows in blocks)
    return mean, squares / size


def _draw_frequencies(sampling, kernel, m, d, rng, *, gamma, nu, alpha):
    parameters = {"gamma": gamma, "nu": nu, "alpha": alpha}
    if sampling == "iid":
        return spectral_sample(kernel, m, d, **parameters, random_state=rng)
    if sampling == "orthogonal":
        # A normal vector is a direction times an independent chi_d length.
        length = np.sqrt(rng.chisquare(d, size=(m, 1)))
        scale = radial_scale(kernel, m, rng, **parameters)
        return scale * length * _orthogonal_directions(m, d, rng)
    if sampling == "sorf":
        return np.sqrt(2.0 * gamma) * _structured_rows(m, d, rng)
    return _sobol_frequencies(kernel, m, d, rng, parameters)


def _orthogonal_directions(m, d, rng):
    rows = np.empty((m, d))
    for block in row_blocks(m, d):
        Q, R = np.linalg.qr(rng.standard_normal((d, d)))
        # Without the signs of R's diagonal, Q would not be uniformly distributed.
        Q = Q * np.where(np.diag(R) < 0, -1.0, 1.0)
        rows[block] = Q[: block.stop - block.start]
    return rows


def _structured_rows(m, d, rng):
    from scipy.linalg import hadamard

    p = 1 << (d - 1).bit_length()
    H = hadamard(p) / np.sqrt(p)
    rows = np.empty((m, d))
    for block in row_blocks(m, p):
        D1, D2, D3 = rng.choice([-1.0, 1.0], size=(3, p))
        # Padding a point with zeros is dropping the last columns.
        product = (H * D1) @ ((H * D2) @ (H[:, :d] * D3[:d]))
        rows[block] = np.sqrt(p) * product[: block.stop - block.start]
    return rows


def _sobol_frequencies(kernel, m, d, rng, parameters):
    from scipy.stats import qmc

    mixing = kernel in ("matern", "rational_quadratic")
    if d + mixing > qmc.Sobol.MAXDIM:
        raise ValueError(
            f"sampling='qmc' must have at most {qmc.Sobol.MAXDIM - mixing} input "
            f"columns, got {d}"
        )
    bits = 30
    points = qmc.Sobol(d + mixing, scramble=True, bits=bits, rng=rng)
    # Points of a digital net come in powers of two, and any first m of them are each
    # uniform on a grid of 2^-bits. The centres of its cells are never 0 nor 1.
    u = points.random_base2((m - 1).bit_length())[:m] + 0.5 ** (bits + 1)
    gamma = parameters["gamma"]
    if kernel == "laplacian":
        return gamma * np.tan(np.pi * (u - 0.5))
    if kernel == "cauchy":
        centred = u - 0.5
        return -gamma * np.sign(centred) * np.log1p(-2.0 * np.abs(centred))
    uniform = u[:, d] if mixing else None
    return radial_scale(kernel, m, rng, uniform=uniform, **parameters) * ndtri(u[:, :d])


@functools.cache
def _tangent_is_fast():
    # Whether numpy has a vectorised tangent on this machine.
    try:
        info = np.lib.introspect.opt_func_info(func_name="^tan$")
        return not info["tan"]["dd"]["current"].startswith("baseline")
    except (AttributeError, KeyError):  # numpy 1
        return False


def _numpy_features(X, frequencies, offset, pairs, heavy_tailed):
    n, m = X.shape[0], frequencies.shape[0]
    D = m + pairs
    Z = np.empty((n, D), dtype=X.dtype)
    if not _tangent_is_fast():
        trig, share = _torch_trig, 1.0
    elif pairs == 0 and X.dtype == np.float32:
        trig, share = _cosine, 1.0
    else:
        trig, share = _half_angle_trig, 0.5
    if heavy_tailed:
        weights = frequencies.T * (0.5 / np.pi)
    else:
        weights = (frequencies.T * share).astype(X.dtype, copy=False)
    shift = (offset * share).astype(X.dtype, copy=False)
    # A block has a few rows per column of X, or packing the weights would dominate.
    # Scratch memory is made once: fresh pages cost more than the sums on them.
    block = min(n, max(2**17 // m, min(4 * X.shape[1], 512)))
    tile = min(n, max(1, TILE // m))
    angles = np.empty((block, m), dtype=weights.dtype)
    scratch = np.empty((2, tile, m), dtype=X.dtype)
    for rows in row_blocks(n, block):
        projected = _project(X[rows], weights, angles)
        for some in row_blocks(len(projected), tile):
            T, q = projected[some], scratch[0, : some.stop - some.start]
            if heavy_tailed:
                T -= np.rint(T)
                T = np.multiply(
                    T,
                    2.0 * np.pi * share,
                    out=scratch[1, : len(q)],
                    casting="same_kind",
                )
            if pairs < m:
                T[:, pairs:] += shift
            trig(T, q, Z[rows][some], pairs, np.sqrt(2.0 / D))
    return Z


def _project(X, weights, out):
    if isinstance(X, np.ndarray):
        return np.matmul(X, weights, out=out[: len(X)], casting="same_kind")
    return X @ weights  # sparse


def _half_angle_trig(T, q, Z, pairs, amplitude):
    # With t = tan(theta / 2): cos = 2 / (1 + t^2) - 1 and sin = t * 2 / (1 + t^2).
    # One vectorised function and cheap passes give both, to a few units in the last
    # place of 1; numpy's float64 cosine and sine take an order longer each.
    amplitude = T.dtype.type(amplitude)
    np.tan(T, out=T)
    np.multiply(T, T, out=q)
    np.add(q, T.dtype.type(1.0), out=q)
    np.divide(amplitude + amplitude, q, out=q)
    np.subtract(q[:, :pairs], amplitude, out=Z[:, :pairs])
    np.multiply(q[:, :pairs], T[:, :pairs], out=Z[:, pairs : 2 * pairs])
    np.subtract(q[:, pairs:], amplitude, out=Z[:, 2 * pairs :])


def _cosine(T, q, Z, pairs, amplitude):
    # Phase features alone, in float32: numpy's cosine is vectorised there.
    np.cos(T, out=T)
    np.multiply(T, T.dtype.type(amplitude), out=Z)


def _torch_trig(T, q, Z, pairs, amplitude):
    # On numpy's memory: torch's cosine and sine are vectorised on every machine.
    import torch

    T, out = torch.from_numpy(T), torch.from_numpy(Z)
    torch.cos(T[:, :pairs], out=out[:, :pairs])
    torch.sin(T[:, :pairs], out=out[:, pairs : 2 * pairs])
    torch.cos(T[:, pairs:], out=out[:, 2 * pairs :])
    Z *= T.numpy().dtype.type(amplitude)


def _torch_features(X, frequencies, offset, pairs, heavy_tailed):
    torch = sys.modules["torch"]
    n, m = X.shape[0], frequencies.shape[0]
    amplitude = float(np.sqrt(2.0 / (m + pairs)))

    def angles(rows):
        if not heavy_tailed:
            return X[rows] @ frequencies.T
        turns = X[rows].to(torch.float64) @ (frequencies.T * (0.5 / np.pi))
        return (2.0 * np.pi * (turns - turns.round())).to(X.dtype)

    if torch.is_grad_enabled() and X.requires_grad:
        theta = angles(slice(None))
        paired, phased = theta[:, :pairs], theta[:, pairs:] + offset
        return amplitude * torch.cat([paired.cos(), paired.sin(), phased.cos()], dim=1)
    Z = X.new_empty(n, m + pairs)
    for rows in row_blocks(n, max(1, (2**27 if X.is_cuda else 2**17) // m)):
        theta = angles(rows)
        Z[rows, :pairs] = theta[:, :pairs].cos()
        Z[rows, pairs : 2 * pairs] = theta[:, :pairs].sin()
        Z[rows, 2 * pairs :] = (theta[:, pairs:] + offset).cos()
    return Z.mul_(amplitude)
