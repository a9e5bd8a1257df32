r"""
Fastfood: Gaussian frequencies as a product of Hadamard and diagonal matrices.

With :math:`p` the next power of two of the dimension, :math:`p` frequencies at a time
are the rows of

.. math:: V = \frac{1}{\sigma \sqrt p} \, S H G \Pi H B ,

where :math:`H` is Sylvester's Hadamard matrix, :math:`B` has random signs on its
diagonal, :math:`\Pi` permutes at random, :math:`G` has independent standard normal
numbers and :math:`S` independent lengths :math:`\chi_p / \|G\|_F`. Every row by itself
is exactly :math:`N(0, \sigma^{-2} I)`; the rows of a block depend on each other.
"""

import math
import sys

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils.validation import check_is_fitted

from lib._backend import (
    check_choice,
    check_integer,
    check_real,
    check_samples,
    is_torch,
    make_rng,
    row_blocks,
)
from lib.features import fourier, hadamard

__all__ = ["Fastfood"]

#: Elements of a tile that takes all its steps in the cache, and bounds on its points.
#: They are the short axis of a tile: a permutation moves whole runs of them.
TILE = 2**16
ROWS = (32, 128)

#: Elements between rows whose length is a power of two: without them all rows would
#: compete for the same few lines of the cache.
PADDING = 16


class Fastfood(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    r"""
    Approximate the Gaussian kernel in O(D log d) operations a point.

    Frequencies are the first :math:`m` rows of :math:`\lceil m / p \rceil`
    independent blocks

    .. math:: V = \sqrt{2 \gamma / p} \; S H G \Pi H B ,

    which act on points padded with zeros to the next power of two :math:`p \ge d`.
    The maps are those of :class:`RandomFourierFeatures`: pairs, with one phase
    feature where ``n_components`` D is odd, or phases; unbiased for every D.

    Parameters
    ----------
    n_components : int, default=100
        Number of output features D, exactly.
    gamma : float or "scale", default="scale"
        Inverse bandwidth 1 / (2 sigma^2), in units of 1 / length^2; "scale" is
        1 / (d V) with V the variance of all entries of the training data, and 1.0
        where that is zero.
    features : {"pair", "phase"}, default="pair"
        Cosine and sine of each frequency, or a cosine with a random phase.
    random_state : int, Generator, SeedSequence, RandomState or None, default=None
        Source of randomness; None takes fresh entropy at every fit.

    Attributes
    ----------
    gamma_ : float
        The inverse bandwidth in use.
    B_ : ndarray of shape (blocks, p)
        Random signs, in float64 as all of these; all are read-only.
    permutation_ : ndarray of shape (blocks, p)
        Permutations: entry i of the permuted vector is entry ``permutation_[b, i]``.
    G_ : ndarray of shape (blocks, p)
        Standard normal numbers.
    S_ : ndarray of shape (blocks, p)
        Lengths chi_p over the Frobenius norm of the block's G.
    offset_ : ndarray of shape (D,), (1,) or (0,)
        Phases in [0, 2 pi) of the phase features: all, the one of an odd pair map,
        or none.
    n_features_in_ : int
        Dimension d of the input.
    feature_names_in_ : ndarray of shape (d,)
        Column names, where the training data had them.

    Notes
    -----
    Columns of the pair map: all cosines, then all sines, then the phase feature of
    an odd D, as in :class:`RandomFourierFeatures`; frequencies are in the order of
    the rows of the stacked blocks. m is D for phase features and ceil(D / 2) for
    pairs.

    Fitting takes O(D) time and memory (O(p) where that is more), a transform
    O(n D log d) operations and O(n D) memory: nothing of size d x D is formed. A
    sparse matrix is made dense a few rows at a time.

    With S = I a row is normal as well, but lengths of one block are then equal and
    not independent: S is there to lower the variance. The rows' dependence leaves it
    above that of independent frequencies for most differences.

    The diagonals are drawn by numpy and then moved, so numpy, torch, CPU and CUDA
    have the same ones. The map is differentiable in a torch input; a tensor on the
    CPU without a graph is mapped by numpy. TF32 products on a GPU follow
    ``torch.backends.cuda.matmul.allow_tf32``, which is off by default.

    References
    ----------
    .. [1] Q. Le, T. Sarlos and A. Smola, "Fastfood: approximating kernel expansions
       in loglinear time", ICML 2013, Section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.features import Fastfood, approximation_error, kernel_matrix
    >>> X = np.random.default_rng(0).standard_normal((200, 8))
    >>> fastfood = Fastfood(4096, random_state=0).fit(X)
    >>> K = kernel_matrix(X, gamma=fastfood.gamma_)
    >>> approximation_error(fastfood.transform(X), K, norm="max") < 0.15
    True
    """

    def __init__(
        self, n_components=100, *, gamma="scale", features="pair", random_state=None
    ):
        self.n_components = n_components
        self.gamma = gamma
        self.features = features
        self.random_state = random_state

    def fit(self, X, y=None):
        """
        Draw the diagonals for the dimension, and the scale, of the data.

        Parameters
        ----------
        X : array-like, sparse matrix or Tensor of shape (n, d)
            Training data; only its width counts where ``gamma`` is a number.
        y : None
            Ignored.

        Returns
        -------
        self : Fastfood
            The fitted estimator.

        Raises
        ------
        TypeError
            If a parameter or the data have a wrong type.
        ValueError
            If a parameter is out of its range or the data are not a finite matrix.
        """
        check_integer("n_components", self.n_components)
        if not isinstance(self.gamma, str):
            check_real("gamma", self.gamma)
        elif self.gamma != "scale":
            raise ValueError(
                f"gamma must be 'scale' or a number > 0, got {self.gamma!r}"
            )
        check_choice("features", self.features, fourier.FEATURES)
        X = check_samples(self, X, reset=True, sparse=True)
        rng = make_rng(self.random_state)
        self.gamma_ = (
            fourier._scale_gamma(X, "gaussian")
            if isinstance(self.gamma, str)
            else float(self.gamma)
        )
        pairs = self.n_components // 2 if self.features == "pair" else 0
        phases = self.n_components - 2 * pairs
        p = hadamard.next_pow2(X.shape[1])
        shape = (-(-(pairs + phases) // p), p)
        self.B_ = rng.choice([-1.0, 1.0], size=shape)
        self.permutation_ = rng.permuted(
            np.broadcast_to(np.arange(p), shape), axis=1, out=np.empty(shape, np.intp)
        )
        self.G_ = rng.standard_normal(shape)
        # |G|_F to the power -1: to the power -1/2, as it is printed in places, the
        # lengths are off by a factor of about p^(1/4).
        norms = np.linalg.norm(self.G_, axis=1, keepdims=True)
        self.S_ = np.sqrt(rng.chisquare(p, size=shape)) / norms
        self.offset_ = rng.uniform(0.0, 2.0 * np.pi, size=phases)
        # Copies of them wait on other devices: a change must be a new array.
        for drawn in (self.B_, self.permutation_, self.G_, self.S_):
            drawn.flags.writeable = False
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
        if not is_torch(X):
            return self._numpy_features(X)
        if hadamard.is_plain(X):
            Z = self._numpy_features(X.numpy(force=True))
            return sys.modules["torch"].from_numpy(Z)
        return self._torch_features(X)

    def _scales(self):
        return math.sqrt(2.0 * self.gamma_ / self.S_.shape[1]) * self.S_

    def _counts(self):
        # Frequencies, and how many of them give pairs.
        phases = len(self.offset_)
        pairs = (self._n_features_out - phases) // 2
        return pairs + phases, pairs

    def _numpy_features(self, X):
        n, d = X.shape
        m, pairs = self._counts()
        dtype = X.dtype
        blocks, p = self.S_.shape
        trig, share = _trig(dtype, pairs)
        signs, normals = self.B_.astype(dtype), self.G_.astype(dtype)[:, :, None]
        scales = (share * self._scales()).astype(dtype)
        shift = (share * self.offset_).astype(dtype)
        amplitude = math.sqrt(2.0 / self._n_features_out)
        Z = np.empty((n, self._n_features_out), dtype)
        rows = min(n, max(ROWS[0], min(ROWS[1], TILE // p)))
        group = min(blocks, max(1, TILE // (p * rows)))
        tile = min(n, max(1, fourier.TILE // m))
        wide = np.zeros((rows, p + PADDING), dtype)
        angles = np.empty((rows, blocks * p + PADDING), dtype)
        tall = np.empty((p, rows), dtype)
        scratch = np.empty((3, group * p * rows), dtype)
        q = np.empty((tile, m), dtype)
        for some in row_blocks(n, rows):
            k = some.stop - some.start
            wide[:k, :d] = X[some].toarray() if hasattr(X, "tocsr") else X[some]
            tall[:, :k] = wide[:k, :p].T
            for these in row_blocks(blocks, group):
                shape = (these.stop - these.start, p, k)
                a, b, c = (s[: math.prod(shape)].reshape(shape) for s in scratch)
                hadamard.multiply_signed(tall[:, :k], signs[these], c, (a, b))
                for i, order in enumerate(self.permutation_[these]):
                    np.take(c[i], order, axis=0, out=a[i], mode="clip")
                np.multiply(a, normals[these], out=a)
                out = angles[:k, these.start * p : these.stop * p]
                hadamard.multiply_to_rows(a, scales[these], out, (c, b))
            for few in row_blocks(k, tile):
                T = angles[few, :m]
                if pairs < m:
                    T[:, pairs:] += shift
                trig(T, q[: len(T)], Z[some][few], pairs, amplitude)
        return Z

    def _torch_features(self, X):
        torch = sys.modules["torch"]
        n, d = X.shape
        m, pairs = self._counts()
        B, order, G, scales, offset = self._operands(X)
        blocks, p = self.S_.shape
        amplitude = math.sqrt(2.0 / self._n_features_out)

        def features(X):
            padded = torch.nn.functional.pad(X, (0, p - d))
            V = hadamard.multiply_tensor((padded[:, None, :] * B).reshape(-1, p, 1))
            V = V.reshape(-1, blocks * p)[:, order] * G
            V = hadamard.multiply_tensor(V.reshape(-1, p, 1)).reshape(-1, blocks * p)
            T = V[:, :m] * scales
            paired, phased = T[:, :pairs], T[:, pairs:] + offset
            Z = torch.cat([paired.cos(), paired.sin(), phased.cos()], dim=1)
            return amplitude * Z

        if torch.is_grad_enabled() and X.requires_grad:
            return features(X)
        rows = max(1, 2**27 // (blocks * p))
        return torch.cat([features(X[some]) for some in row_blocks(n, rows)])

    def _operands(self, X):
        # The diagonals as tensors beside X, moved there once.
        torch = sys.modules["torch"]
        key = (X.dtype, X.device, self.gamma_)
        source = (self.B_, self.permutation_, self.G_, self.S_)
        known = self._placed.get(key)
        if known is None or any(
            a is not b for a, b in zip(known[0], source, strict=True)
        ):
            p = self.S_.shape[1]
            order = self.permutation_ + p * np.arange(len(self.S_))[:, None]
            scales = self._scales().ravel()[: self._counts()[0]]
            to = {"dtype": X.dtype, "device": X.device}
            # Tensors made in inference mode could never be part of a graph.
            with torch.inference_mode(False):
                placed = (
                    torch.tensor(self.B_, **to),
                    torch.tensor(order.ravel(), device=X.device),
                    torch.tensor(self.G_.ravel(), **to),
                    torch.tensor(scales, **to),
                    torch.tensor(self.offset_, **to),
                )
            known = self._placed[key] = (source, placed)
        return known[1]

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


def _trig(dtype, pairs):
    # The fastest way to the cosines, and the share of the angle that it wants.
    if not fourier._tangent_is_fast():
        return fourier._torch_trig, 1.0
    if pairs == 0 and dtype == np.float32:
        return fourier._cosine, 1.0
    return fourier._half_angle_trig, 0.5
