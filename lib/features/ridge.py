r"""
Ridge regression on random features.

A linear model on :math:`D` features replaces the :math:`n \times n` system of kernel
ridge regression by a :math:`D \times D` one, which rows can be added to as they come.
"""

import sys
import warnings

import numpy as np
from scipy.linalg import LinAlgWarning, blas, cho_factor, cho_solve, eigh
from sklearn.base import (
    BaseEstimator,
    MultiOutputMixin,
    RegressorMixin,
    clone,
)
from sklearn.metrics import r2_score
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from lib._backend import (
    check_real,
    check_same_kind,
    check_samples,
    is_torch,
    row_blocks,
    to_numpy,
)

__all__ = ["RandomFeatureRidge"]

#: Elements of a block of float64 features: 16 MB on a CPU, 2 GB on a GPU.
BLOCK = {"cpu": 2**21, "cuda": 2**28}

#: Fewest rows of a block, or reading the Gram matrix would dominate.
ROWS = 256

#: Columns of a panel of the Gram matrix, which is summed on and below the diagonal.
PANEL = 4096


class RandomFeatureRidge(MultiOutputMixin, RegressorMixin, BaseEstimator):
    r"""
    Fit a linear model on random features with a quadratic penalty.

    With features :math:`Z` of shape (n, D), coefficients solve

    .. math:: (Z^\top Z + \alpha I) \, w = Z^\top y .

    There is no intercept.

    Parameters
    ----------
    feature_map : transformer
        Feature map, such as :class:`RandomFourierFeatures`. It is cloned.
    alpha : float, default=1.0
        Penalty, >= 0, as in scikit-learn's ``Ridge``; it is n lambda where a text
        penalises the mean squared error by lambda.

    Attributes
    ----------
    feature_map_ : transformer
        The fitted clone of ``feature_map``.
    gram_ : ndarray or Tensor of shape (D, D)
        Sum of the outer products of feature rows, in float64; a fresh copy.
    coef_ : ndarray or Tensor of shape (D,) or (k, D)
        Coefficients, in float64.
    n_features_in_ : int
        Dimension d of the input.

    Notes
    -----
    Fitting takes O(n D (d + D) + D^3) time and O(D^2) memory whatever n is: features
    are made a block of rows at a time, in the dtype of the input, and summed in
    float64. The solve keeps one D x D factor beside the sums. Tensors stay on their
    device; no gradient is recorded.

    The system is solved by Cholesky's method. Where the matrix is not numerically
    positive definite (the factorisation fails, or the squared ratio of the factor's
    extreme diagonal entries is below the machine epsilon) a ``LinAlgWarning`` says
    so and the solution of least norm is taken from an eigendecomposition, without
    eigenvalues below D epsilon times the largest.

    References
    ----------
    .. [1] A. Rahimi and B. Recht, "Random features for large-scale kernel machines",
       NeurIPS 2007, Section 5.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.features import RandomFeatureRidge, RandomFourierFeatures
    >>> X = np.linspace(-3, 3, 300)[:, None]
    >>> y = np.sin(2 * X[:, 0])
    >>> features = RandomFourierFeatures(50, gamma=1.0, random_state=0)
    >>> ridge = RandomFeatureRidge(features, alpha=1e-3).fit(X, y)
    >>> ridge.score(X, y) > 0.999
    True
    """

    def __init__(self, feature_map, *, alpha=1.0):
        self.feature_map = feature_map
        self.alpha = alpha

    def fit(self, X, y):
        """
        Fit the feature map and the coefficients.

        Parameters
        ----------
        X : array-like, sparse matrix or Tensor of shape (n, d)
            Training points; sparse where the feature map takes it.
        y : array-like or Tensor of shape (n,) or (n, k)
            Targets, of the kind and on the device of ``X``.

        Returns
        -------
        self : RandomFeatureRidge
            The fitted estimator.

        Raises
        ------
        TypeError
            If ``X`` and ``y`` differ in kind, or a type is wrong.
        ValueError
            If shapes or devices disagree, an entry is not finite, or ``alpha`` is
            negative.

        Warns
        -----
        scipy.linalg.LinAlgWarning
            If the matrix is not numerically positive definite.
        """
        X, y = self._check(X, y, reset=True)
        self._start(X)
        self._accumulate(X, y)
        self._coef = self._solve()
        return self

    def partial_fit(self, X, y):
        """
        Add rows to a fit.

        The first call fits the feature map on its rows. For a map that does not
        learn from the data (a fixed ``gamma`` and an integer ``random_state``) any
        split of the rows over calls gives what ``fit`` gives, up to rounding.
        Coefficients are solved for when they are next needed.

        Parameters
        ----------
        X : array-like, sparse matrix or Tensor of shape (n, d)
            More training points.
        y : array-like or Tensor of shape (n,) or (n, k)
            Their targets.

        Returns
        -------
        self : RandomFeatureRidge
            The estimator.

        Raises
        ------
        TypeError
            If ``X`` and ``y``, or this call and the ones before, differ in kind.
        ValueError
            If shapes or devices disagree, an entry is not finite, or ``alpha`` is
            negative.
        """
        first = not hasattr(self, "feature_map_")
        X, y = self._check(X, y, reset=first)
        if first:
            self._start(X)
        self._accumulate(X, y)
        return self

    def predict(self, X):
        """
        Predict targets.

        Parameters
        ----------
        X : array-like, sparse matrix or Tensor of shape (n, d)
            Points.

        Returns
        -------
        ndarray or Tensor of shape (n,) or (n, k)
            Predictions, of the kind, dtype and device of ``X``.

        Raises
        ------
        TypeError
            If the data have a wrong type.
        ValueError
            If the data are not a finite matrix of the fitted width.
        sklearn.exceptions.NotFittedError
            If the estimator was not fitted.
        """
        check_is_fitted(self)
        X = check_samples(self, X, reset=False, sparse=self._takes_sparse())
        coef = self.coef_ if self.coef_.ndim == 1 else self.coef_.T
        if is_torch(X):
            torch = sys.modules["torch"]
            coef = torch.as_tensor(coef).to(X.device)
            out = X.new_empty(X.shape[0], *coef.shape[1:])
        else:
            coef = to_numpy(coef)
            out = np.empty((X.shape[0], *coef.shape[1:]), dtype=X.dtype)
        for rows, Z in self._blocks(X, coef.shape[0]):
            out[rows] = Z @ coef
        return out

    def score(self, X, y, sample_weight=None):
        """
        Return the coefficient of determination of the predictions.

        Parameters
        ----------
        X : array-like, sparse matrix or Tensor of shape (n, d)
            Points.
        y : array-like or Tensor of shape (n,) or (n, k)
            True targets.
        sample_weight : array-like of shape (n,), optional
            Weights of the points.

        Returns
        -------
        float
            Score of at most one, averaged over targets.
        """
        return float(
            r2_score(
                to_numpy(y), to_numpy(self.predict(X)), sample_weight=sample_weight
            )
        )

    @property
    def coef_(self):
        # Solved for when rows came in since the last time.
        check_is_fitted(self)
        if self._coef is None:
            self._coef = self._solve()
        return self._coef

    @property
    def gram_(self):
        check_is_fitted(self)
        xp = sys.modules["torch"] if is_torch(self._gram) else np
        return xp.tril(self._gram) + xp.tril(self._gram, -1).T

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self._takes_sparse()
        return tags

    def _takes_sparse(self):
        return get_tags(self.feature_map).input_tags.sparse

    def _check(self, X, y, reset):
        for method in ("fit", "transform"):
            if not hasattr(self.feature_map, method):
                raise TypeError(
                    "feature_map must be a transformer with fit and transform, got "
                    f"{self.feature_map!r}"
                )
        check_real("alpha", self.alpha, allow_zero=True)
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None"
            )
        X, y = check_samples(self, X, y, reset=reset, sparse=self._takes_sparse())
        if not reset:
            if not hasattr(X, "tocsr"):
                check_same_kind(X, self._gram, ("X", "the rows of earlier calls"))
            if y.shape[1:] != self._target_shape:
                raise ValueError(
                    f"y must have the trailing shape {tuple(self._target_shape)} of "
                    f"earlier calls, got {tuple(y.shape[1:])}"
                )
        return X, y

    def _start(self, X):
        self.feature_map_ = clone(self.feature_map).fit(X)
        self._gram = None

    def _blocks(self, X, D):
        # Slices of rows and their features in float64.
        size = BLOCK["cuda" if is_torch(X) and X.is_cuda else "cpu"]
        for rows in row_blocks(X.shape[0], max(ROWS, size // D)):
            Z = self.feature_map_.transform(X[rows])
            if is_torch(Z):
                yield rows, Z.detach().to(sys.modules["torch"].float64)
            elif isinstance(Z, np.ndarray):
                yield rows, np.ascontiguousarray(Z, dtype=np.float64)
            else:
                raise TypeError(
                    "feature_map must give dense numpy arrays or tensors, got "
                    f"{type(Z).__name__}"
                )

    def _accumulate(self, X, y):
        targets = y[:, None] if y.ndim == 1 else y
        if self._gram is None:
            D = self.feature_map_.transform(X[:1]).shape[1]
            k = targets.shape[1]
            self._target_shape = y.shape[1:]
            if is_torch(X):
                zeros = sys.modules["torch"].zeros
                place = {"dtype": sys.modules["torch"].float64, "device": X.device}
                self._gram = zeros(D, D, **place)
                self._moment = zeros(D, k, **place)
            else:
                self._gram = np.zeros((D, D), order="F")
                self._moment = np.zeros((D, k))
        self._coef = None
        # Only the lower triangle of the sum is kept up: half the work.
        for rows, Z in self._blocks(X, len(self._gram)):
            if is_torch(Z):
                for some in row_blocks(len(self._gram), PANEL):
                    left = slice(0, some.stop)
                    self._gram[some, left].addmm_(Z[:, some].T, Z[:, left])
                self._moment.addmm_(Z.T, targets[rows].to(Z.dtype))
            else:
                self._gram = blas.dsyrk(
                    1.0, Z.T, beta=1.0, c=self._gram, lower=1, overwrite_c=1
                )
                self._moment += Z.T @ targets[rows]

    def _solve(self):
        gram, moment = self._gram, self._moment
        torch = sys.modules["torch"] if is_torch(gram) else None
        diagonal = gram.diagonal() if torch else np.einsum("ii->i", gram)
        kept = diagonal.clone() if torch else diagonal.copy()
        diagonal += self.alpha  # in place and undone below: a copy is D x D
        try:
            solve = _torch_solve if torch else _numpy_solve
            w = solve(gram, moment)
        finally:
            diagonal[:] = kept
        return w.T if self._target_shape else w[:, 0]


def _positive_definite(pivots):
    ratio = float(pivots.min()) / float(pivots.max())
    return ratio**2 > len(pivots) * np.finfo(np.float64).eps


def _numpy_solve(A, b):
    try:
        factor = cho_factor(A, lower=True, check_finite=False)
        if _positive_definite(np.diagonal(factor[0])):
            return cho_solve(factor, b, check_finite=False)
    except np.linalg.LinAlgError:
        pass
    _warn_indefinite()
    values, vectors = eigh(A, lower=True, check_finite=False)
    return _least_norm(values, vectors, b)


def _torch_solve(A, b):
    torch = sys.modules["torch"]
    factor, info = torch.linalg.cholesky_ex(A)
    if int(info) == 0 and _positive_definite(factor.diagonal()):
        return torch.cholesky_solve(b, factor)
    del factor
    _warn_indefinite()
    values, vectors = torch.linalg.eigh(A)
    return _least_norm(values, vectors, b)


def _least_norm(values, vectors, b):
    keep = values > len(values) * np.finfo(np.float64).eps * values[-1]
    vectors = vectors[:, keep]
    return vectors @ ((vectors.T @ b) / values[keep][:, None])


def _warn_indefinite():
    warnings.warn(
        "the Gram matrix plus alpha is not numerically positive definite; the "
        "solution of least norm is used, a larger alpha avoids it",
        LinAlgWarning,
        stacklevel=4,
    )
