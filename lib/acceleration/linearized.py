r"""
Networks that train like linear models: a wide ReLU layer and deep linear networks.

Both have residuals :math:`\xi_t` that follow, up to a small error, the heavy ball on a
quadratic with a fixed matrix :math:`H`,

.. math:: \xi_{t+1} = \xi_t - \eta H \xi_t + \beta (\xi_t - \xi_{t-1}) + \varphi_t ,

so that the eigenvalues of :math:`H` predict the rate of training before it starts.
"""

import math
import sys
import warnings

import numpy as np
from scipy.linalg import get_blas_funcs
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, column_or_1d

from lib._backend import (
    as_float_array,
    check_choice,
    check_integer,
    check_real,
    check_same_kind,
    check_samples,
    is_torch,
    make_rng,
    to_numpy,
)

__all__ = ["DeepLinear", "WideReLU", "deep_linear_ntk", "relu_gram"]


def relu_gram(X, W=None):
    r"""
    Compute the Gram matrix of a ReLU layer, at given or at random weights.

    With :math:`\theta_{ij}` the angle between two rows of :math:`X`,

    .. math::
        H(W)_{ij} &= \frac{x_i^\top x_j}{m} \, \#\{r : \langle w_r, x_i \rangle \ge 0
        \text{ and } \langle w_r, x_j \rangle \ge 0\}, \\
        \bar H_{ij} = \mathbb{E}\, H(W)_{ij} &= x_i^\top x_j \,
        \frac{\pi - \theta_{ij}}{2 \pi}

    for standard normal weights.

    Parameters
    ----------
    X : ndarray or Tensor of shape (n, d)
        Points.
    W : ndarray or Tensor of shape (m, d), optional
        Weights of the layer, one neuron a row; by default the expectation.

    Returns
    -------
    ndarray or Tensor of shape (n, n)
        The Gram matrix, of the kind, dtype and device of ``X``.

    Raises
    ------
    TypeError
        If kinds or dtypes are wrong.
    ValueError
        If shapes or devices disagree, or an entry is not finite.

    Notes
    -----
    Time O(n^2 d), with weights O(n m (n + d)). Singular as soon as two rows are
    parallel and of the same direction. Angles below the root of the machine epsilon
    are not resolved.

    References
    ----------
    .. [1] S. S. Du, X. Zhai, B. Poczos and A. Singh, "Gradient descent provably
       optimizes over-parameterized neural networks", ICLR 2019, Assumption 3.1.
    .. [2] Y. Cho and L. K. Saul, "Kernel methods for deep learning", NeurIPS 2009,
       equation (6).

    Examples
    --------
    >>> import numpy as np
    >>> from lib.acceleration import relu_gram
    >>> relu_gram(np.eye(2))
    array([[0.5, 0. ],
           [0. , 0.5]])
    """
    X = as_float_array(X)
    if W is not None:
        W = as_float_array(W, "W")
        check_same_kind(X, W, ("X", "W"))
        if W.shape[1] != X.shape[1]:
            raise ValueError(
                f"W must have the {X.shape[1]} columns of X, got {W.shape[1]}"
            )
        active = _like(X @ W.T >= 0, X)
        return (X @ X.T) * (active @ active.T) / len(W)
    xp = sys.modules["torch"] if is_torch(X) else np
    inner = X @ X.T
    norms = inner.diagonal() ** 0.5
    scale = norms[:, None] * norms
    # a zero row has no angle; its entries are zero whatever the cosine
    cosine = (inner / xp.where(scale > 0, scale, xp.ones_like(scale))).clip(-1.0, 1.0)
    index = xp.arange(len(X))
    cosine[index, index] = 1.0
    return inner * (math.pi - xp.arccos(cosine)) / (2.0 * math.pi)


def deep_linear_ntk(Ws, X):
    r"""
    Compute the neural tangent kernel of a deep linear network.

    With :math:`d_l` the outputs of layer l and
    :math:`N(x) = (d_1 \cdots d_L)^{-1/2} W_L \cdots W_1 x`,

    .. math::
        H = \frac{1}{d_1 \cdots d_L} \sum_{l=1}^L
        (X W_{l-1:1}^\top) (X W_{l-1:1}^\top)^\top \otimes
        W_{L:l+1} W_{L:l+1}^\top,

    where :math:`W_{j:i} = W_j \cdots W_i`. For orthogonal initialisation it is
    :math:`(L / d_L) \, X X^\top \otimes I`.

    Parameters
    ----------
    Ws : sequence of ndarray or Tensor
        Weights :math:`W_1, \dots, W_L`; :math:`W_l` has shape (d_l, d_{l-1}).
    X : ndarray or Tensor of shape (n, d_0)
        Points.

    Returns
    -------
    ndarray or Tensor of shape (n d_L, n d_L)
        The kernel of all outputs at all points, in the order of
        ``predict(X).ravel()``.

    Raises
    ------
    TypeError
        If kinds or dtypes are wrong.
    ValueError
        If there are no weights, shapes do not fit, or an entry is not finite.

    Notes
    -----
    Time O(L (n + d_L) m^2 + L n^2 d_L^2) for the width m. Layers are scaled one by
    one, so that no power of the width can overflow.

    References
    ----------
    .. [1] W. Hu, L. Xiao and J. Pennington, "Provable benefit of orthogonal
       initialization in optimizing deep linear networks", ICLR 2020, Section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.acceleration import deep_linear_ntk
    >>> deep_linear_ntk([np.eye(2), np.array([[1.0, 1.0]])], np.eye(2))
    array([[1.5, 0. ],
           [0. , 1.5]])
    """
    X, Ws = as_float_array(X), list(Ws)
    if not Ws:
        raise ValueError("Ws must hold one matrix at least, got none")
    width = X.shape[1]
    for k, W in enumerate(Ws):
        name = f"Ws[{k}]"
        Ws[k] = as_float_array(W, name)
        check_same_kind(X, W, ("X", name))
        if W.shape[1] != width:
            raise ValueError(f"{name} must have {width} columns, got {W.shape[1]}")
        width = len(W)
    forward, backward = [X], [_like(np.eye(width), X)]
    for W in Ws[:-1]:
        forward.append(forward[-1] @ W.T / len(W) ** 0.5)
    for W in Ws[:0:-1]:
        backward.append(backward[-1] @ W / len(W) ** 0.5)
    total = 0.0
    for F, B, W in zip(forward, reversed(backward), Ws, strict=True):
        # the Kronecker product, in the order of a flattened (n, d_L) array
        K = (F @ F.T)[:, None, :, None] * (B @ B.T)[None, :, None, :]
        total = total + K / len(W)
    return total.reshape(len(X) * width, len(X) * width)


class _Trained(RegressorMixin, BaseEstimator):
    # Step size and momentum, from the range of the curvature where they are "theory".
    def _settle(self, lr, momentum, low, high):
        from lib.acceleration.momentum import heavy_ball_rate, polyak_parameters

        for name, value in (("lr", lr), ("momentum", momentum)):
            if isinstance(value, str):
                check_choice(name, value, ("theory",))
            else:
                check_real(name, value, allow_zero=True)
        self.condition_ = high / low if low > 0 else math.inf
        if isinstance(lr, str):
            if not high > 0:
                raise ValueError("X must not be all zero: no step size fits it")
            lr = 1.0 / high
        if isinstance(momentum, str):
            if not low > 0:
                raise ValueError(
                    "momentum must be a number here, got 'theory': the smallest "
                    "eigenvalue of the Gram matrix is zero, as with rows of X that "
                    "are repeated or parallel"
                )
            momentum = polyak_parameters(low, high)[1]
        self.predicted_rate_ = heavy_ball_rate(lr, momentum, self.gram_eigs_)
        self.lr_, self.momentum_ = float(lr), float(momentum)

    # Steps until the residual is small, n_iter of them at most.
    def _train(self, forward, backward, n_iter, tol):
        norms = []
        for t in range(n_iter + 1):
            with np.errstate(over="ignore", invalid="ignore"):  # said below
                residual = forward()
                norms.append(float((residual**2).sum()) ** 0.5)
            done = norms[-1] <= tol * norms[0]
            if (tol > 0 and done) or t == n_iter or not math.isfinite(norms[-1]):
                break
            backward(residual)
        self.residuals_ = np.array(norms)
        self.n_iter_, self.converged_ = len(norms) - 1, done
        if not math.isfinite(norms[-1]):
            problem = f"the residual is {norms[-1]}"
        elif tol > 0 and not done:
            problem = f"the residual is {norms[-1] / norms[0]:.1e} of its start"
        else:
            return
        warnings.warn(
            f"{type(self).__name__} has not converged: after {self.n_iter_} steps "
            f"{problem}; lr={self.lr_:.3g}, momentum={self.momentum_:.3g}",
            ConvergenceWarning,
            stacklevel=3,
        )


class WideReLU(_Trained):
    r"""
    A wide ReLU layer with fixed output signs, trained by the heavy ball.

    .. math::
        N(x) = \frac{1}{\sqrt m} \sum_{r=1}^m a_r \max(0, \langle w_r, x \rangle),
        \qquad \min_W \tfrac12 \sum_i (N(x_i) - y_i)^2,

    with standard normal :math:`w_r` at the start and random signs :math:`a_r`, which
    are not trained.

    Parameters
    ----------
    n_hidden : int, default=1000
        Width m.
    random_state : int, Generator, SeedSequence, RandomState or None, default=None
        Source of the weights and signs.

    Attributes
    ----------
    weights_, initial_weights_ : ndarray or Tensor of shape (m, d)
        Weights after and before training.
    signs_ : ndarray or Tensor of shape (m,)
        Output weights :math:`a_r / \sqrt m`.
    residuals_ : ndarray of shape (steps + 1,)
        Norm of :math:`N(X) - y` before each step and after the last.
    gram_eigs_ : ndarray of shape (n,)
        Eigenvalues of the expected Gram matrix, ascending.
    condition_ : float
        :math:`\hat\kappa = \lambda_{\max} / \lambda` with
        :math:`\lambda = \tfrac34 \lambda_{\min}(\bar H)` and
        :math:`\lambda_{\max} = \lambda_{\max}(\bar H) +
        \tfrac14 \lambda_{\min}(\bar H)`; infinite for a singular matrix.
    lr_, momentum_ : float
        Step size and momentum in use.
    predicted_rate_ : float
        Rate of the heavy ball on the quadratic of the expected Gram matrix.
    flip_fraction_ : float
        Share of the n m activations that differ between start and end.
    n_iter_ : int
        Number of steps made.
    converged_ : bool
        Whether the residual fell to ``tol`` times its start.
    n_features_in_ : int
        Dimension d of the input.

    Notes
    -----
    A step is two products of an n x m with an m x d or n x d matrix, forward and
    backward; the update of the velocity is part of the second. Time O(n m d) a step,
    memory O(m (n + d)). Float32 shows a linear rate down to about 1e-6 only.

    The theory has no step size for data with repeated or parallel rows, whose Gram
    matrix is singular: they are refused, unless ``lr`` and ``momentum`` are numbers.

    References
    ----------
    .. [1] J.-K. Wang, C.-H. Lin and J. Abernethy, "A modular analysis of provable
       acceleration via Polyak's momentum: training a wide ReLU network and a deep
       linear network", ICML 2021, the theorem on ReLU networks.
    .. [2] S. S. Du, X. Zhai, B. Poczos and A. Singh, "Gradient descent provably
       optimizes over-parameterized neural networks", ICLR 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.acceleration import WideReLU
    >>> X = np.random.default_rng(0).standard_normal((5, 10))
    >>> X /= np.linalg.norm(X, axis=1, keepdims=True)
    >>> net = WideReLU(2000, random_state=0).fit(X, [1, -1, 1, 1, -1], n_iter=50)
    >>> bool(net.residuals_[-1] < 1e-5 * net.residuals_[0])
    True
    """

    def __init__(self, n_hidden=1000, *, random_state=None):
        self.n_hidden = n_hidden
        self.random_state = random_state

    def fit(self, X, y, *, lr="theory", momentum="theory", n_iter=1000, tol=0.0):
        r"""
        Train from a fresh initialisation.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points; the theory is for rows of norm one.
        y : array-like or Tensor of shape (n,)
            Targets.
        lr : float or "theory", default="theory"
            Step size; the theory's is :math:`1 / \lambda_{\max}`.
        momentum : float or "theory", default="theory"
            Momentum in [0, 1); the theory's is
            :math:`(1 - 1 / (2 \sqrt{\hat\kappa}))^2`.
        n_iter : int, default=1000
            Most steps.
        tol : float, default=0.0
            Stop when the residual is this part of its start; 0 makes all steps.

        Returns
        -------
        self : WideReLU
            The trained network.

        Raises
        ------
        TypeError
            If a parameter or the data have a wrong type.
        ValueError
            If a parameter is out of its range, the data are not finite, or the
            theory is asked for and the Gram matrix is singular.

        Warns
        -----
        ConvergenceWarning
            If ``tol`` was not reached, or the residual is no longer finite.
        """
        check_integer("n_hidden", self.n_hidden)
        check_integer("n_iter", n_iter, minimum=0)
        check_real("tol", tol, allow_zero=True)
        X, y = _check_data(self, X, y)
        if not is_torch(y):
            y = column_or_1d(y, warn=True)
        elif y.ndim != 1:
            raise ValueError(f"y must be 1-D, got shape {tuple(y.shape)}")
        n, d = X.shape
        self.gram_eigs_ = _eigenvalues(relu_gram(_double(X)))
        least, most = self.gram_eigs_[[0, -1]]
        if least < 10 * n * np.finfo(np.float64).eps * most:
            least = 0.0
        self._settle(lr, momentum, 0.75 * least, most + 0.25 * least)
        rng = make_rng(self.random_state)
        W = _like(rng.standard_normal((self.n_hidden, d)), X)
        signs = _like(rng.choice([-1.0, 1.0], self.n_hidden), X)
        self.signs_ = signs / self.n_hidden**0.5
        self.initial_weights_, self.weights_ = W, W + 0.0
        velocity, P = 0.0 * W, X @ W.T
        slopes, first = 0.0 * P, P >= 0

        def forward():
            _product(X, self.weights_, P)
            # slopes of the outputs in the pre-activations, kept for the way back
            _gate(P, self.signs_, slopes)
            return _row_dot(slopes, P) - y

        def backward(residual):
            scaled = residual[:, None] * X
            _accumulate(velocity, slopes, scaled, self.momentum_, -self.lr_)
            self.weights_ += velocity

        self._train(forward, backward, n_iter, tol)
        flips = (X @ self.weights_.T >= 0) != first
        self.flip_fraction_ = float(flips.sum()) / (n * self.n_hidden)
        return self

    def predict(self, X):
        """
        Evaluate the trained network.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.

        Returns
        -------
        ndarray or Tensor of shape (n,)
            Outputs of the network.

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
        X = check_samples(self, X, reset=False)
        return (X @ self.weights_.T).clip(0.0) @ self.signs_


class DeepLinear(MultiOutputMixin, _Trained):
    r"""
    A deep linear network, trained by the heavy ball.

    .. math::
        N(x) = \frac{1}{\sqrt{m^{L-1} d_y}} W_L \cdots W_1 x, \qquad
        \min_W \tfrac12 \sum_i \|N(x_i) - y_i\|^2 .

    Parameters
    ----------
    depth : int, default=10
        Number of layers L >= 2.
    width : int, default=64
        Width m of the L - 1 hidden layers; for orthogonal weights at least as large
        as the rank of the data and the number of targets.
    init : {"orthogonal", "gaussian"}, default="orthogonal"
        Uniformly random matrices with :math:`W_1^\top W_1 = m I` and
        :math:`W_l W_l^\top = m I` for the other layers, or standard normal entries.
    random_state : int, Generator, SeedSequence, RandomState or None, default=None
        Source of the weights.

    Attributes
    ----------
    weights_ : list of ndarray or Tensor
        Trained :math:`W_1, \dots, W_L`.
    residuals_ : ndarray of shape (steps + 1,)
        Norm of the residual before each step and after the last, of its part that
        any linear map of X can reach.
    gram_eigs_ : ndarray of shape (rank,)
        :math:`L \sigma_i(X)^2 / d_y`, ascending: the positive eigenvalues of the
        kernel at orthogonal initialisation, each of which it has :math:`d_y` times.
    condition_ : float
        :math:`\kappa = \sigma_{\max}^2 / \sigma_{\min}^2` over the positive
        singular values of X.
    lr_, momentum_ : float
        Step size and momentum in use.
    predicted_rate_ : float
        Rate of the heavy ball on the quadratic with these eigenvalues.
    n_iter_ : int
        Number of steps made.
    converged_ : bool
        Whether the residual fell to ``tol`` times its start.
    n_features_in_ : int
        Dimension d of the input.

    Notes
    -----
    The data are replaced by their coordinates in the r left singular vectors of X
    with a positive singular value, which changes no gradient. Time O(L r m^2 + L m^2)
    a step, memory O(L m^2). Every layer is divided by the root of its own number of
    outputs: the product :math:`m^{L-1}` would overflow.

    References
    ----------
    .. [1] J.-K. Wang, C.-H. Lin and J. Abernethy, "A modular analysis of provable
       acceleration via Polyak's momentum: training a wide ReLU network and a deep
       linear network", ICML 2021, the theorem on linear networks.
    .. [2] W. Hu, L. Xiao and J. Pennington, "Provable benefit of orthogonal
       initialization in optimizing deep linear networks", ICLR 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.acceleration import DeepLinear
    >>> rng = np.random.default_rng(0)
    >>> X, Y = np.eye(4), rng.standard_normal((4, 2))
    >>> net = DeepLinear(20, 32, random_state=0).fit(X, Y, n_iter=60)
    >>> bool(net.residuals_[-1] < 1e-9 * net.residuals_[0])
    True
    """

    def __init__(self, depth=10, width=64, *, init="orthogonal", random_state=None):
        self.depth = depth
        self.width = width
        self.init = init
        self.random_state = random_state

    def fit(self, X, y, *, lr="theory", momentum="theory", n_iter=1000, tol=0.0):
        r"""
        Train from a fresh initialisation.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.
        y : array-like or Tensor of shape (n,) or (n, d_y)
            Targets.
        lr : float or "theory", default="theory"
            Step size; the theory's is :math:`d_y / (L \sigma_{\max}^2)`.
        momentum : float or "theory", default="theory"
            Momentum in [0, 1); the theory's is
            :math:`(1 - 1 / (2 \sqrt\kappa))^2`.
        n_iter : int, default=1000
            Most steps.
        tol : float, default=0.0
            Stop when the residual is this part of its start; 0 makes all steps.

        Returns
        -------
        self : DeepLinear
            The trained network.

        Raises
        ------
        TypeError
            If a parameter or the data have a wrong type.
        ValueError
            If a parameter is out of its range, the data are not finite or all zero,
            or the width is too small for orthogonal weights.

        Warns
        -----
        ConvergenceWarning
            If ``tol`` was not reached, or the residual is no longer finite.
        """
        check_integer("depth", self.depth, minimum=2)
        check_integer("width", self.width)
        check_choice("init", self.init, ("orthogonal", "gaussian"))
        check_integer("n_iter", n_iter, minimum=0)
        check_real("tol", tol, allow_zero=True)
        X, y = _check_data(self, X, y)
        Y = y.reshape(len(y), -1)
        self._one_target = y.ndim == 1
        d, dy = X.shape[1], Y.shape[1]
        if self.init == "orthogonal" and self.width < max(d, dy):
            raise ValueError(
                f"width must be at least {max(d, dy)} for orthogonal weights with "
                f"{d} inputs and {dy} targets, got {self.width}"
            )
        U, s, Vt = _svd(_double(X))
        eps = np.finfo(np.float32 if _single(X) else np.float64).eps
        keep = s > max(X.shape) * eps * s.max()
        if not bool(keep.any()):
            raise ValueError("X must not be all zero")
        U, s, Vt = U[:, keep], s[keep], Vt[keep]
        self.gram_eigs_ = to_numpy(s).astype(np.float64)[::-1] ** 2 * self.depth / dy
        self._settle(lr, momentum, *self.gram_eigs_[[0, -1]])
        inputs, targets = _like(s[:, None] * Vt, X), _like(U.T @ _double(Y), X)
        rng = make_rng(self.random_state)
        sizes = [d, *[self.width] * (self.depth - 1), dy]
        self.weights_ = [
            self._draw(rng, rows, columns, X)
            for columns, rows in zip(sizes[:-1], sizes[1:], strict=True)
        ]
        velocities = [0.0 * W for W in self.weights_]
        outputs = [inputs] * (self.depth + 1)

        def forward():
            for k, W in enumerate(self.weights_):
                outputs[k + 1] = outputs[k] @ W.T / len(W) ** 0.5
            return outputs[-1] - targets

        def backward(residual):
            for k in reversed(range(self.depth)):
                W, V = self.weights_[k], velocities[k]
                residual = residual / len(W) ** 0.5
                before, residual = residual, residual @ W
                _accumulate(V, before, outputs[k], self.momentum_, -self.lr_)
                W += V

        self._train(forward, backward, n_iter, tol)
        return self

    def predict(self, X):
        """
        Evaluate the trained network.

        Parameters
        ----------
        X : array-like or Tensor of shape (n, d)
            Points.

        Returns
        -------
        ndarray or Tensor of shape (n,) or (n, d_y)
            Outputs of the network.

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
        X = check_samples(self, X, reset=False)
        for W in self.weights_:
            X = X @ W.T / len(W) ** 0.5
        return X[:, 0] if self._one_target else X

    def _draw(self, rng, rows, columns, X):
        A = rng.standard_normal((rows, columns))
        if self.init == "gaussian":
            return _like(A, X)
        xp = sys.modules["torch"] if is_torch(X) else np
        A = _like(A, _double(X))
        # the shorter side becomes orthonormal; the sign makes it uniform
        Q, R = xp.linalg.qr(A if rows >= columns else A.T)
        Q = Q * xp.sign(R.diagonal()) * self.width**0.5
        return _like(Q if rows >= columns else Q.T, X)


# Data as floating-point arrays of one kind and dtype, without a graph behind them.
def _check_data(estimator, X, y):
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is "
            "None"
        )
    X, y = check_samples(estimator, X, y, reset=True)
    if is_torch(X):
        X, y = X.detach(), y.detach()
    return X, _like(y, X)


# The array as the kind, dtype and device of another; C-contiguous.
def _like(array, other):
    if is_torch(other):
        torch = sys.modules["torch"]
        return torch.as_tensor(array).to(other).contiguous()
    return np.ascontiguousarray(array, dtype=other.dtype)


def _single(X):
    return str(X.dtype).endswith("float32")


def _double(X):
    return X.double() if is_torch(X) else X.astype(np.float64)


def _eigenvalues(H):
    if is_torch(H):
        return to_numpy(sys.modules["torch"].linalg.eigvalsh(H))
    return np.linalg.eigvalsh(H)


def _svd(X):
    linalg = sys.modules["torch"].linalg if is_torch(X) else np.linalg
    return linalg.svd(X, full_matrices=False)


# out <- X W'
def _product(X, W, out):
    if is_torch(X):
        sys.modules["torch"].mm(X, W.T, out=out)
    else:
        np.matmul(X, W.T, out=out)


# out <- signs where P >= 0, and zero elsewhere
def _gate(P, signs, out):
    multiply = sys.modules["torch"].mul if is_torch(P) else np.multiply
    multiply(P >= 0, signs, out=out)


def _row_dot(A, B):
    if is_torch(A):
        return sys.modules["torch"].linalg.vecdot(A, B)
    return np.einsum("ij,ij->i", A, B)


# V <- beta V + alpha A' B in place, in one pass of a matrix product
def _accumulate(V, A, B, beta, alpha):
    if is_torch(V):
        V.addmm_(A.T, B, beta=beta, alpha=alpha)
        return
    (gemm,) = get_blas_funcs(("gemm",), (V,))
    # column-major BLAS sees the transposes: V' <- beta V' + alpha B' A
    C = gemm(alpha, B.T, A.T, beta=beta, c=V.T, trans_b=True, overwrite_c=True)
    if not np.shares_memory(C, V):
        V[...] = C.T
