r"""
Random kitchen sinks: weighted sums of random functions, fitted by least squares.

Parameters :math:`w_1, \dots, w_K` of a function :math:`\phi(x; w)` are drawn from a
density :math:`p` once and never moved. Only the coefficients of

.. math:: f(x) = \sum_{k=1}^K a_k \, \phi(x; w_k)

are fitted, under the bound :math:`|a_k| \le C / K` or a quadratic penalty. The bound
makes :math:`f` an estimate of a function :math:`\int \alpha(w) \phi(x; w) \, dw` with
:math:`|\alpha(w)| \le C p(w)`: the density stands in the class of functions, and not
in the bound.
"""

import itertools
import sys
import warnings

import numpy as np
from scipy.linalg import blas, eigh
from scipy.spatial.distance import cdist
from scipy.special import ndtr
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    MultiOutputMixin,
    RegressorMixin,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from lib._backend import (
    as_float_array,
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
from lib.features.kernels import kernel_matrix
from lib.features.ridge import _numpy_solve, _torch_solve

__all__ = ["RandomKitchenSinksClassifier", "RandomKitchenSinksRegressor"]

FEATURES = ("cos", "stump")

#: Elements of a block of float64 values: 16 MB on a CPU, 2 GB on a GPU.
BLOCK = {"cpu": 2**21, "cuda": 2**28}

#: Fewest rows of a block, or reading the Gram matrix would dominate.
ROWS = 256


class _Cosines:
    """Functions cos(w'x + b) with w from the Gaussian kernel's spectral density."""

    def __init__(self, X, K, rng, gamma):
        self.fourier = RandomFourierFeatures(
            K, gamma=gamma, features="phase", random_state=rng
        ).fit(X)

    def __call__(self, X):
        Z = self.fourier.transform(X)
        Z *= float(np.sqrt(self.fourier.n_components / 2.0))
        return Z


class _Stumps:
    """Functions sign(x_j - t), one at zero, with thresholds like the data."""

    def __init__(self, X, K, rng):
        X = X.detach().double() if is_torch(X) else X.astype(np.float64, copy=False)
        self.mean = to_numpy(X.mean(0))
        self.std = np.sqrt(to_numpy(((X - X.mean(0)) ** 2).mean(0)))
        self.column = rng.integers(len(self.mean), size=K)
        self.threshold = self.mean[self.column]
        self.threshold += self.std[self.column] * rng.standard_normal(K)

    def __call__(self, X):
        column, threshold = self.column, self.threshold
        if is_torch(X):
            torch = sys.modules["torch"]
            column = torch.as_tensor(column, device=X.device)
            threshold = torch.as_tensor(threshold, device=X.device)
            one = X.new_ones(())
            return torch.where(X[:, column] >= threshold, one, -one)
        one = X.dtype.type(1.0)
        return np.where(X[:, column] >= threshold, one, -one)

    def kernel(self, X, Y):
        # E sign(x - t) sign(y - t) = 1 - 2 P(t between x and y), mean over columns.
        U, V = self._distribution(X), self._distribution(Y)
        if is_torch(U):
            distance = sys.modules["torch"].cdist(U, V, p=1.0)
        else:
            distance = cdist(U, V, "cityblock")
        return 1.0 - 2.0 / len(self.mean) * distance

    def _distribution(self, X):
        # P(t <= x), where a constant column has t at its constant.
        if is_torch(X):
            torch = sys.modules["torch"]
            mean, std = (
                torch.as_tensor(v, device=X.device) for v in (self.mean, self.std)
            )
            return torch.special.ndtr(_standardised(torch, X.double(), mean, std))
        return ndtr(_standardised(np, X.astype(np.float64), self.mean, self.std))


def _standardised(xp, X, mean, std):
    constant = std == 0
    scaled = (X - mean) / xp.where(constant, xp.ones_like(std), std)
    side = xp.where(X >= mean, xp.full_like(X, np.inf), xp.full_like(X, -np.inf))
    return xp.where(constant, side, scaled)


class _RandomKitchenSinks(BaseEstimator):
    def implicit_kernel(self, X, Y=None):
        r"""
        Evaluate the kernel that the random functions have on average.

        .. math:: k(x, y) = \mathbb{E}_w \, \phi(x; w) \, \phi(y; w)

        It is half the Gaussian kernel for cosines. For stumps, with :math:`F_j` the
        normal distribution function that column j's thresholds have, it is

        .. math:: k(x, y) = 1 - \frac2d \sum_j |F_j(x_j) - F_j(y_j)| .

        For other functions it is estimated by the mean over the K that were drawn.

        Parameters
        ----------
        X : ndarray or Tensor of shape (n, d)
            Points.
        Y : ndarray or Tensor of shape (n', d), optional
            Other points, of the same kind and on the same device; ``X`` by default.

        Returns
        -------
        ndarray or Tensor of shape (n, n')
            Kernel values, of the kind, dtype and device of ``X``.

        Raises
        ------
        TypeError
            If the data have a wrong type.
        ValueError
            If the data are not finite matrices of the fitted width.
        sklearn.exceptions.NotFittedError
            If ``fit`` was not called.
        """
        check_is_fitted(self)
        X = check_samples(self, X, reset=False)
        Y = X if Y is None else check_samples(self, Y, reset=False)
        check_same_kind(X, Y)
        if isinstance(self._phi, _Cosines):
            K = 0.5 * kernel_matrix(X, Y, gamma=self.gamma_)
        elif isinstance(self._phi, _Stumps):
            K = self._phi.kernel(X, Y)
        else:
            Z = self._evaluate(X)
            K = Z @ self._evaluate(Y).T / self.n_components
        return K.to(X.dtype) if is_torch(X) else K.astype(X.dtype, copy=False)

    def _check_parameters(self):
        check_integer("n_components", self.n_components)
        named = isinstance(self.feature, str) and self.feature in FEATURES
        if not named and not callable(self.feature):
            raise ValueError(
                f"feature must be one of {list(FEATURES)} or a callable, got "
                f"{self.feature!r}"
            )
        if self.bound is not None:
            check_real("bound", self.bound)
        check_real("alpha", self.alpha, allow_zero=True)
        if isinstance(self.gamma, str):
            if self.gamma != "scale":
                raise ValueError(
                    f"gamma must be 'scale' or a number > 0, got {self.gamma!r}"
                )
        else:
            check_real("gamma", self.gamma)
        check_integer("max_iter", self.max_iter)
        check_real("tol", self.tol)

    def _fit(self, X, T):
        # Gives coefficients of shape (K, k) for the k columns of T, a float64 array
        # of the kind of X.
        K, n = self.n_components, len(X)
        rng = make_rng(self.random_state)
        vars(self).pop("gamma_", None)
        if callable(self.feature):
            self._phi = self.feature(X, K, rng)
            if not callable(self._phi):
                raise TypeError(
                    "feature must give back a function of the points, got "
                    f"{self._phi!r}"
                )
        elif self.feature == "stump":
            self._phi = _Stumps(X, K, rng)
        else:
            self._phi = _Cosines(X, K, rng, self.gamma)
            self.gamma_ = self._phi.fourier.gamma_
        gram, moment = self._sums(X, T)
        self.n_iter_, self.converged_, self.dual_gap_ = 1, True, 0.0
        if self.bound is None:
            diagonal = gram.diagonal() if is_torch(X) else np.einsum("ii->i", gram)
            diagonal += n * self.alpha
            return (_torch_solve if is_torch(X) else _numpy_solve)(gram, moment)
        return self._fit_in_box(gram / n, moment / n, (T * T).sum(0) / n)

    def _fit_in_box(self, gram, moment, energy):
        coef, gap, self.n_iter_ = _box_least_squares(
            gram,
            moment,
            energy,
            self.bound / self.n_components,
            self.tol,
            self.max_iter,
        )
        excess = gap / (energy + (energy == 0))
        self.dual_gap_ = float(gap.max())
        self.converged_ = float(excess.max()) <= self.tol
        if not self.converged_:
            warnings.warn(
                f"the box-constrained fit stopped after max_iter={self.max_iter} "
                "iterations with a duality gap of "
                f"{float(excess.max()):.1e} times the mean square of y, tol="
                f"{self.tol}: more iterations or a smaller bound help",
                ConvergenceWarning,
                stacklevel=4,
            )
        return coef

    def _evaluate(self, X):
        Z = self._phi(X)
        if callable(self.feature):
            Z = as_float_array(Z, "the values of feature")
            check_same_kind(X, Z, ("X", "the values of feature"))
            if tuple(Z.shape) != (len(X), self.n_components):
                raise ValueError(
                    "the values of feature must have shape "
                    f"{(len(X), self.n_components)}, got {tuple(Z.shape)}"
                )
        if is_torch(Z):
            return Z.detach().to(sys.modules["torch"].float64)
        return np.ascontiguousarray(Z, dtype=np.float64)

    def _blocks(self, X):
        # Slices of rows and the functions' values there in float64.
        size = BLOCK["cuda" if is_torch(X) and X.is_cuda else "cpu"]
        for rows in row_blocks(len(X), max(ROWS, size // self.n_components)):
            yield rows, self._evaluate(X[rows])

    def _sums(self, X, T):
        K, k = self.n_components, T.shape[1]
        if is_torch(X):
            torch = sys.modules["torch"]
            gram = torch.zeros(K, K, dtype=torch.float64, device=X.device)
            moment = torch.zeros(K, k, dtype=torch.float64, device=X.device)
        else:
            gram, moment = np.zeros((K, K), order="F"), np.zeros((K, k))
        for rows, Z in self._blocks(X):
            if is_torch(Z):
                gram.addmm_(Z.T, Z)
            else:
                gram = blas.dsyrk(1.0, Z.T, beta=1.0, c=gram, lower=1, overwrite_c=1)
            moment += Z.T @ T[rows]
        if not is_torch(X):  # the lower triangle was summed
            gram = np.tril(gram) + np.tril(gram, -1).T
        return gram, moment

    def _values(self, X):
        # f at the points, in the dtype of X.
        check_is_fitted(self)
        X = check_samples(self, X, reset=False)
        coef = self.coef_ if self.coef_.ndim == 1 else self.coef_.T
        if is_torch(X):
            coef = sys.modules["torch"].as_tensor(coef).to(X.device)
            out = X.new_empty(X.shape[0], *coef.shape[1:])
        else:
            coef = to_numpy(coef)
            out = np.empty((X.shape[0], *coef.shape[1:]), dtype=X.dtype)
        for rows, Z in self._blocks(X):
            out[rows] = Z @ coef
        return out


class RandomKitchenSinksRegressor(
    MultiOutputMixin, RegressorMixin, _RandomKitchenSinks
):
    r"""
    Fit a weighted sum of random functions by least squares.

    The coefficients of :math:`f(x) = \sum_k a_k \phi(x; w_k)` solve

    .. math::
        \min_{|a_k| \le C / K} \frac1n \sum_i (f(x_i) - y_i)^2
        \qquad\text{or}\qquad
        \min_a \frac1n \sum_i (f(x_i) - y_i)^2 + \lambda \|a\|^2 .

    Parameters
    ----------
    n_components : int, default=100
        Number K of random functions.
    feature : {"cos", "stump"} or callable, default="cos"
        The functions.

        - "cos": cos(w'x + b) with w ~ N(0, 2 gamma I) and b uniform on [0, 2 pi).
        - "stump": sign(x_j - t), where sign(0) = 1, with a uniform column j and t
          normal with the mean and the standard deviation of that column of the
          training data.
        - a callable: ``feature(X, K, rng)`` draws K functions for the training
          points with a numpy Generator and gives back a function that takes points,
          of the kind of ``X``, to their values, of shape (n, K). A fitted estimator
          can be pickled if that function can.
    bound : float or None, default=None
        C in the bound C / K on the absolute values of the coefficients. None
        penalises them instead.
    alpha : float, default=1e-3
        Penalty lambda >= 0 where there is no bound: the system is
        (Phi' Phi + n lambda I) a = Phi' y. That is kernel ridge regression on the
        :meth:`implicit_kernel`'s estimate with lambda / K.
    gamma : float or "scale", default="scale"
        Inverse bandwidth 1 / (2 sigma^2) of the cosines, as in
        :class:`RandomFourierFeatures`; the others ignore it.
    max_iter : int, default=10000
        Most iterations of the bounded fit.
    tol : float, default=1e-4
        A bounded fit has converged when its mean squared error is certainly within
        tol times the mean square of y of the smallest one.
    random_state : int, Generator, SeedSequence, RandomState or None, default=None
        Source of randomness; None takes fresh entropy.

    Attributes
    ----------
    coef_ : ndarray or Tensor of shape (K,) or (k, K)
        Coefficients, in float64.
    n_iter_ : int
        Iterations of the bounded fit; 1 for the penalised one, a linear system.
    converged_ : bool
        Whether the bounded fit reached ``tol``.
    dual_gap_ : float
        Bound on the mean squared error above its minimum under the bound, the largest
        over the targets; 0 for the penalised fit.
    gamma_ : float
        The inverse bandwidth in use; for cosines only.
    n_features_in_ : int
        Dimension d of the input.

    Notes
    -----
    Fitting takes O(n K (d + K) + K^3) time, stumps O(n K^2 + K^3), and O(K^2) memory
    whatever n is; K^2 more time for each iteration of a bounded fit. Sums and solves
    are in float64. Tensors stay on their device; no gradient is recorded.

    A bounded fit is made by FISTA: a gradient step of length 1 / L from an
    extrapolated point, L the largest eigenvalue of Phi' Phi / n, and clipping to the
    box. The extrapolation starts over when it points uphill. With g half the
    gradient at a point a of the box, convexity gives for the objective J

    .. math:: J(a) - \min J \le 2 (g^\top a + \tfrac{C}{K} \|g\|_1),

    which is zero exactly where the conditions of Karush, Kuhn and Tucker hold.

    A penalised system that is not numerically positive definite is solved for the
    solution of least norm, with a ``LinAlgWarning``.

    References
    ----------
    .. [1] A. Rahimi and B. Recht, "Weighted sums of random kitchen sinks: replacing
       minimization with randomization in learning", NeurIPS 2008, Algorithm 1.
    .. [2] A. Beck and M. Teboulle, "A fast iterative shrinkage-thresholding algorithm
       for linear inverse problems", SIAM J. Imaging Sciences 2(1), 2009, Section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.features import RandomKitchenSinksRegressor
    >>> X = np.linspace(-3, 3, 300)[:, None]
    >>> y = np.sin(2 * X[:, 0])
    >>> sinks = RandomKitchenSinksRegressor(50, bound=20.0, gamma=1.0, random_state=0)
    >>> sinks.fit(X, y).score(X, y) > 0.99, bool(abs(sinks.coef_).max() <= 20 / 50)
    (True, True)
    """

    def __init__(
        self,
        n_components=100,
        *,
        feature="cos",
        bound=None,
        alpha=1e-3,
        gamma="scale",
        max_iter=10_000,
        tol=1e-4,
        random_state=None,
    ):
        self.n_components = n_components
        self.feature = feature
        self.bound = bound
        self.alpha = alpha
        self.gamma = gamma
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def fit(self, X, y):
        """
        Draw the functions and fit their coefficients.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Training points.
        y : array-like or Tensor of shape (n,) or (n, k)
            Targets, of the kind and on the device of ``X``.

        Returns
        -------
        self : RandomKitchenSinksRegressor
            The fitted estimator.

        Raises
        ------
        TypeError
            If ``X`` and ``y`` differ in kind, or a type is wrong.
        ValueError
            If shapes or devices disagree, an entry is not finite, or a parameter is
            out of its range.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If a bounded fit did not reach ``tol``.
        scipy.linalg.LinAlgWarning
            If a penalised system is not numerically positive definite.
        """
        self._check_parameters()
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None"
            )
        X, y = check_samples(self, X, y, reset=True)
        y = y.detach().double() if is_torch(y) else np.asarray(y, dtype=np.float64)
        if y.ndim == 1:
            self.coef_ = self._fit(X, y[:, None])[:, 0]
        else:
            self.coef_ = self._fit(X, y).T
        return self

    def predict(self, X):
        """
        Predict targets.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
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
            If ``fit`` was not called.
        """
        return self._values(X)

    def score(self, X, y, sample_weight=None):
        """
        Return the coefficient of determination of the predictions.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
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
        values = to_numpy(self.predict(X))
        return float(r2_score(to_numpy(y), values, sample_weight=sample_weight))


class RandomKitchenSinksClassifier(ClassifierMixin, _RandomKitchenSinks):
    r"""
    Classify by the sign of a weighted sum of random functions.

    Two classes get the targets -1 and 1. Of more than two, each gets a sum of its own
    with targets 1 for the class and -1 for the others, and the largest sum wins. The
    sums share their functions and are fitted by least squares, as in
    :class:`RandomKitchenSinksRegressor`.

    Parameters
    ----------
    n_components : int, default=100
        Number K of random functions.
    feature : {"cos", "stump"} or callable, default="cos"
        The functions, as in :class:`RandomKitchenSinksRegressor`.
    bound : float or None, default=None
        C in the bound C / K on the absolute values of the coefficients. None
        penalises them instead.
    alpha : float, default=1e-3
        Penalty lambda >= 0 where there is no bound, as in
        :class:`RandomKitchenSinksRegressor`.
    gamma : float or "scale", default="scale"
        Inverse bandwidth 1 / (2 sigma^2) of the cosines, as in
        :class:`RandomFourierFeatures`; the others ignore it.
    max_iter : int, default=10000
        Most iterations of the bounded fit.
    tol : float, default=1e-4
        A bounded fit has converged when each mean squared error is certainly within
        tol of the smallest one.
    random_state : int, Generator, SeedSequence, RandomState or None, default=None
        Source of randomness; None takes fresh entropy.

    Attributes
    ----------
    classes_ : ndarray or Tensor of shape (c,)
        Sorted classes, of the kind and dtype of the labels.
    coef_ : ndarray or Tensor of shape (K,) or (c, K)
        Coefficients, in float64: one row for two classes.
    n_iter_ : int
        Iterations of the bounded fit; 1 for the penalised one, a linear system.
    converged_ : bool
        Whether the bounded fit reached ``tol``.
    dual_gap_ : float
        Bound on the mean squared error above its minimum under the bound, the largest
        over the sums; 0 for the penalised fit.
    gamma_ : float
        The inverse bandwidth in use; for cosines only.
    n_features_in_ : int
        Dimension d of the input.

    Notes
    -----
    Time, memory and the fit under a bound are those of
    :class:`RandomKitchenSinksRegressor`.

    References
    ----------
    .. [1] A. Rahimi and B. Recht, "Weighted sums of random kitchen sinks: replacing
       minimization with randomization in learning", NeurIPS 2008, Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.features import RandomKitchenSinksClassifier
    >>> X = np.random.default_rng(0).uniform(-1, 1, (400, 2))
    >>> y = np.where((X**2).sum(1) < 0.6, "inside", "outside")
    >>> sinks = RandomKitchenSinksClassifier(100, random_state=0).fit(X, y)
    >>> str(sinks.predict([[0.1, 0.2]])[0]), sinks.score(X, y) > 0.95
    ('inside', True)
    """

    def __init__(
        self,
        n_components=100,
        *,
        feature="cos",
        bound=None,
        alpha=1e-3,
        gamma="scale",
        max_iter=10_000,
        tol=1e-4,
        random_state=None,
    ):
        self.n_components = n_components
        self.feature = feature
        self.bound = bound
        self.alpha = alpha
        self.gamma = gamma
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def fit(self, X, y):
        """
        Draw the functions and fit their coefficients.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Training points.
        y : array-like or Tensor of shape (n,)
            Labels, of the kind and on the device of ``X``; arrays of any dtype.

        Returns
        -------
        self : RandomKitchenSinksClassifier
            The fitted estimator.

        Raises
        ------
        TypeError
            If ``X`` and ``y`` differ in kind, or a type is wrong.
        ValueError
            If shapes or devices disagree, an entry is not finite, there is one class
            only, or a parameter is out of its range.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If a bounded fit did not reach ``tol``.
        scipy.linalg.LinAlgWarning
            If a penalised system is not numerically positive definite.
        """
        self._check_parameters()
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None"
            )
        X, y = self._check(X, y)
        if is_torch(y):
            torch = sys.modules["torch"]
            self.classes_, index = torch.unique(y, return_inverse=True)
            eye = torch.eye(len(self.classes_), dtype=torch.float64, device=y.device)
        else:
            self.classes_, index = np.unique(y, return_inverse=True)
            eye = np.eye(len(self.classes_))
        if len(self.classes_) < 2:
            raise ValueError("y must hold at least two classes, got one class")
        targets = 2.0 * eye[index] - 1.0
        if len(self.classes_) == 2:
            self.coef_ = self._fit(X, targets[:, 1:])[:, 0]
        else:
            self.coef_ = self._fit(X, targets).T
        return self

    def decision_function(self, X):
        """
        Evaluate the fitted sums.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.

        Returns
        -------
        ndarray or Tensor of shape (n,) or (n, c)
            The sum of the second class for two classes, otherwise one sum for each,
            of the kind, dtype and device of ``X``.

        Raises
        ------
        TypeError
            If the data have a wrong type.
        ValueError
            If the data are not a finite matrix of the fitted width.
        sklearn.exceptions.NotFittedError
            If ``fit`` was not called.
        """
        return self._values(X)

    def predict(self, X):
        """
        Predict labels.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.

        Returns
        -------
        ndarray or Tensor of shape (n,)
            Labels, of the kind and on the device of ``X``.

        Raises
        ------
        TypeError
            If the data have a wrong type, or they are a tensor and no tensor holds
            the labels.
        ValueError
            If the data are not a finite matrix of the fitted width.
        sklearn.exceptions.NotFittedError
            If ``fit`` was not called.
        """
        values = self.decision_function(X)
        index = values.argmax(1) if values.ndim == 2 else (values > 0) * 1
        if not is_torch(values):
            return to_numpy(self.classes_)[index]
        if not is_torch(self.classes_) and self.classes_.dtype.kind not in "biuf":
            raise TypeError(
                "X must be a numpy array where the labels are no numbers, got "
                f"{type(values).__name__} and labels of dtype {self.classes_.dtype}"
            )
        return sys.modules["torch"].as_tensor(self.classes_).to(values.device)[index]

    def score(self, X, y, sample_weight=None):
        """
        Return the share of points whose label is predicted.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        y : array-like or Tensor of shape (n,)
            True labels.
        sample_weight : array-like of shape (n,), optional
            Weights of the points.

        Returns
        -------
        float
            Accuracy between 0 and 1.
        """
        labels = to_numpy(self.predict(X))
        return float(accuracy_score(to_numpy(y), labels, sample_weight=sample_weight))

    def _check(self, X, y):
        if not is_torch(X):
            if is_torch(y):
                check_same_kind(np.empty(0), y, ("X", "y"))
            X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
            y = column_or_1d(y, warn=True)
            check_classification_targets(y)
            return X, y
        X = check_samples(self, X, reset=True)
        check_same_kind(X, y, ("X", "y"))
        if tuple(y.shape) != (len(X),):
            raise ValueError(f"y must have shape {(len(X),)}, got {tuple(y.shape)}")
        check_classification_targets(to_numpy(y))
        return X, y


def _box_least_squares(gram, moment, energy, bound, tol, max_iter):
    # Minimises a'Ga - 2 c'a over |a| <= bound, for each column c of the moment.
    # Returns the coefficients, a bound on each one's excess, and the iterations.
    if is_torch(gram):
        torch = sys.modules["torch"]
        where, sqrt, largest = torch.where, torch.sqrt, torch.linalg.eigvalsh(gram)[-1]
    else:
        last = [len(gram) - 1] * 2
        where, sqrt = np.where, np.sqrt
        largest = eigh(gram, eigvals_only=True, subset_by_index=last)[0]
    a = old = G_a = G_old = 0.0 * moment
    t = 1.0 + 0.0 * energy
    best, least = a, 2.0 * bound * abs(moment).sum(0)
    if not float(largest) > 0.0:  # all functions vanish on the data
        return best, 0.0 * least, 1
    for iteration in itertools.count(1):
        t_next = (1.0 + sqrt(1.0 + 4.0 * t * t)) / 2.0
        beta = (t - 1.0) / t_next
        ahead = a + beta * (a - old)
        gradient = G_a + beta * (G_a - G_old) - moment
        new = (ahead - gradient / largest).clip(-bound, bound)
        uphill = ((ahead - new) * (new - a)).sum(0) > 0.0
        t = where(uphill, 1.0 + 0.0 * t, t_next)
        old, G_old, a, G_a = a, G_a, new, gram @ new
        gradient = G_a - moment
        gap = 2.0 * (gradient * a + bound * abs(gradient)).sum(0)
        better = gap < least
        best, least = where(better, a, best), where(better, gap, least)
        if iteration == max_iter or bool((least <= tol * energy).all()):
            return best, least, iteration
