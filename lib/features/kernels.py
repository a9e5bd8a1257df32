r"""
Shift-invariant kernels and their spectral densities.

By Bochner's theorem a continuous kernel :math:`k(x - y)` with :math:`k(0) = 1` is
positive definite exactly if it is the characteristic function of a probability
density :math:`p`, the kernel's spectral density:

.. math:: k(\delta) = \int p(\omega) \cos(\omega^\top \delta) \, d\omega .

Frequencies are angular throughout: no factor :math:`2\pi` in the cosine.
"""

import sys

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import gammaincinv, gammaln, kve

from lib._backend import (
    as_float_array,
    check_choice,
    check_integer,
    check_real,
    check_same_kind,
    is_torch,
    make_rng,
    row_blocks,
)

__all__ = ["KERNELS", "approximation_error", "kernel_matrix", "spectral_sample"]

#: Names of the kernels. The first, fourth and fifth are radial, the others products.
KERNELS = ("gaussian", "laplacian", "cauchy", "matern", "rational_quadratic")

#: Kernels that depend on the Euclidean distance alone.
RADIAL = ("gaussian", "matern", "rational_quadratic")

BLOCK_BYTES = 2**25


def check_kernel(kernel, gamma, nu, alpha):
    check_choice("kernel", kernel, KERNELS)
    check_real("gamma", gamma)
    check_real("nu", nu)
    check_real("alpha", alpha)


def radial_scale(kernel, m, rng, *, gamma, nu, alpha, uniform=None):
    # The spectral density of a radial kernel is a scale mixture of Gaussians,
    # omega = s g with g ~ N(0, I). This draws s, of shape (m, 1), or maps uniform
    # numbers to it by the inverse distribution function.
    if kernel == "gaussian":
        return np.full((m, 1), np.sqrt(2.0 * gamma))
    # Both mixing laws are Gamma(shape, rate shape), of mean one: tau itself for the
    # rational quadratic kernel, chi2_{2 nu} / (2 nu) for the Matern kernel.
    shape = nu if kernel == "matern" else alpha
    if uniform is None:
        tau = rng.gamma(shape, 1.0 / shape, size=m)
    else:
        tau = gammaincinv(shape, uniform) / shape
    with np.errstate(divide="ignore"):
        factor = 1.0 / np.sqrt(tau) if kernel == "matern" else np.sqrt(tau)
    if not np.all(np.isfinite(factor)):
        raise ValueError(
            f"nu must be large enough for finite frequencies, got {nu!r}: a mixing "
            "variable underflowed"
        )
    return gamma * factor[:, None]


def spectral_sample(kernel, m, d, *, gamma=1.0, nu=1.5, alpha=1.0, random_state=None):
    r"""
    Draw frequencies from the spectral density of a shift-invariant kernel.

    Rows :math:`\omega_1, \dots, \omega_m` are independent and satisfy
    :math:`\mathbb{E} \cos(\omega^\top \delta) = k(\delta)`:

    ==================  =====================================================
    kernel              frequency
    ==================  =====================================================
    gaussian            :math:`N(0, 2 \gamma I)`
    laplacian           independent Cauchy(0, :math:`\gamma`) coordinates
    cauchy              independent Laplace(0, :math:`\gamma`) coordinates
    matern              :math:`\gamma \sqrt{2\nu / \chi^2_{2\nu}} \, N(0, I)`
    rational_quadratic  :math:`\gamma \sqrt{\tau} \, N(0, I)` with
                        :math:`\tau \sim` Gamma(shape and rate :math:`\alpha`)
    ==================  =====================================================

    Parameters
    ----------
    kernel : {"gaussian", "laplacian", "cauchy", "matern", "rational_quadratic"}
        Name of the kernel; :func:`kernel_matrix` has the formulas.
    m : int
        Number of frequencies.
    d : int
        Dimension of the input.
    gamma : float, default=1.0
        Inverse bandwidth: 1 / (2 sigma^2) for the Gaussian kernel, in units of
        1 / length^2; 1 / length for the others.
    nu : float, default=1.5
        Smoothness of the Matern kernel; the others ignore it.
    alpha : float, default=1.0
        Shape of the rational quadratic kernel; the others ignore it.
    random_state : int, Generator, SeedSequence, RandomState or None, default=None
        Source of randomness; None takes fresh entropy.

    Returns
    -------
    ndarray of shape (m, d)
        Angular frequencies in float64, in units of 1 / length.

    Raises
    ------
    TypeError
        If a number has the wrong type.
    ValueError
        If the kernel is unknown or a number is out of its range.

    Notes
    -----
    Time and memory O(m d).

    References
    ----------
    .. [1] A. Rahimi and B. Recht, "Random features for large-scale kernel machines",
       NeurIPS 2007, Theorem 1 and Figure 1. Their table omits the factor that makes
       the Cauchy kernel equal one at zero.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.features import spectral_sample
    >>> omega = spectral_sample("laplacian", 200_000, 1, random_state=0)
    >>> bool(abs(np.cos(omega * 0.7).mean() - np.exp(-0.7)) < 0.01)
    True
    """
    check_kernel(kernel, gamma, nu, alpha)
    check_integer("m", m)
    check_integer("d", d)
    rng = make_rng(random_state)
    if kernel == "laplacian":
        return gamma * rng.standard_cauchy((m, d))
    if kernel == "cauchy":
        return rng.laplace(0.0, gamma, (m, d))
    scale = radial_scale(kernel, m, rng, gamma=gamma, nu=nu, alpha=alpha)
    return scale * rng.standard_normal((m, d))


def kernel_matrix(X, Y=None, *, kernel="gaussian", gamma=1.0, nu=1.5, alpha=1.0):
    r"""
    Evaluate a shift-invariant kernel at all pairs of rows.

    With :math:`\delta = x - y` and :math:`q = \sqrt{2\nu} \, \gamma \|\delta\|`:

    ==================  ========================================================
    kernel              :math:`k(\delta)`
    ==================  ========================================================
    gaussian            :math:`\exp(-\gamma \|\delta\|^2)`
    laplacian           :math:`\exp(-\gamma \|\delta\|_1)`
    cauchy              :math:`\prod_j 1 / (1 + \gamma^2 \delta_j^2)`
    matern              :math:`2^{1 - \nu} q^\nu K_\nu(q) / \Gamma(\nu)`
    rational_quadratic  :math:`(1 + \gamma^2 \|\delta\|^2 / (2\alpha))^{-\alpha}`
    ==================  ========================================================

    Parameters
    ----------
    X : ndarray or Tensor of shape (n, d)
        Points.
    Y : ndarray or Tensor of shape (n', d), optional
        Other points, of the same kind and on the same device; ``X`` by default.
    kernel : str, default="gaussian"
        Name of the kernel, from the table.
    gamma : float, default=1.0
        Inverse bandwidth: 1 / (2 sigma^2) for the Gaussian kernel, in units of
        1 / length^2. For the others 1 / length: it is 1 / l in the usual notation
        of the Matern and rational quadratic kernels.
    nu : float, default=1.5
        Smoothness of the Matern kernel; the others ignore it.
    alpha : float, default=1.0
        Shape of the rational quadratic kernel; the others ignore it.

    Returns
    -------
    ndarray or Tensor of shape (n, n')
        Kernel values, of the kind, dtype and device of ``X`` and ``Y``. They are
        computed in float64.

    Raises
    ------
    TypeError
        If the arrays differ in kind or have a dtype that is not allowed.
    ValueError
        If shapes or devices disagree, an entry is not finite, or a parameter is out
        of its range; also for the gradient of a Matern kernel of general ``nu``.

    Notes
    -----
    Time O(n n' d), memory O(n n'). Matern kernels with half-integer ``nu`` up to
    9.5 are evaluated in closed form; others need a Bessel function that torch lacks,
    so tensors visit the CPU for them and gradients are refused.

    References
    ----------
    .. [1] A. Rahimi and B. Recht, "Random features for large-scale kernel machines",
       NeurIPS 2007, Figure 1.
    .. [2] C. E. Rasmussen and C. K. I. Williams, "Gaussian processes for machine
       learning", MIT Press, 2006, equations (4.14), (4.16) and (4.19).

    Examples
    --------
    >>> import numpy as np
    >>> from lib.features import kernel_matrix
    >>> kernel_matrix(np.array([[0.0], [1.0]]), gamma=0.5).round(4)
    array([[1.    , 0.6065],
           [0.6065, 1.    ]])
    """
    check_kernel(kernel, gamma, nu, alpha)
    X = as_float_array(X, "X")
    symmetric = Y is None
    Y = X if symmetric else as_float_array(Y, "Y")
    check_same_kind(X, Y)
    if X.shape[1] != Y.shape[1]:
        raise ValueError(
            "X and Y must have the same number of columns, got "
            f"{X.shape[1]} and {Y.shape[1]}"
        )
    if is_torch(X):
        torch = sys.modules["torch"]
        xp, dtype = torch, torch.promote_types(X.dtype, Y.dtype)
        A, B = X.to(torch.float64), Y.to(torch.float64)
    else:
        xp, dtype = np, np.result_type(X, Y)
        A, B = X.astype(np.float64), Y.astype(np.float64)
    if kernel == "laplacian":
        K = xp.exp(-gamma * _distance(A, B, 1))
    elif kernel == "cauchy":
        K = 1.0 / _cauchy_denominator(A, B, gamma)
    elif kernel == "matern":
        K = _matern(xp, np.sqrt(2.0 * nu) * gamma * _distance(A, B, 2), nu)
    else:
        square = _squared_distance(A, B, symmetric)
        if kernel == "gaussian":
            K = xp.exp(-gamma * square)
        else:
            K = xp.exp(-alpha * xp.log1p(gamma**2 / (2.0 * alpha) * square))
    return K.to(dtype) if is_torch(K) else K.astype(dtype, copy=False)


def _distance(A, B, p):
    if is_torch(A):
        # The direct form: the expansion of the square loses half the digits.
        return sys.modules["torch"].cdist(
            A, B, p=float(p), compute_mode="donot_use_mm_for_euclid_dist"
        )
    return cdist(A, B, "cityblock" if p == 1 else "euclidean")


def _squared_distance(A, B, symmetric):
    # Centred first: the expansion |a|^2 + |b|^2 - 2ab cancels badly far from zero.
    centre = A.mean(0)
    A = A - centre
    B = A if symmetric else B - centre
    square = (A * A).sum(1)[:, None] + (B * B).sum(1)[None, :] - 2.0 * (A @ B.T)
    # Rounding may leave a square slightly below zero, which no square is.
    if is_torch(square):
        if symmetric:
            eye = sys.modules["torch"].eye(
                len(A), dtype=sys.modules["torch"].bool, device=A.device
            )
            square = square.masked_fill(eye, 0.0)
        return square.clamp(min=0.0)
    if symmetric:
        np.fill_diagonal(square, 0.0)
    return np.maximum(square, 0.0, out=square)


def _cauchy_denominator(A, B, gamma):
    product = 1.0
    for j in range(A.shape[1]):
        product = product * (1.0 + (gamma * (A[:, j, None] - B[None, :, j])) ** 2)
    return product


def _matern(xp, q, nu):
    # Half-integer nu = p + 1/2: exp(-q) times a polynomial of degree p in q.
    p = nu - 0.5
    if p == int(p) and 0 <= p <= 9:
        p = int(p)
        polynomial = 0.0
        for i in range(p + 1):
            log_c = gammaln(p + 1) - gammaln(2 * p + 1) + gammaln(p + i + 1)
            log_c -= gammaln(i + 1) + gammaln(p - i + 1)
            polynomial = polynomial + float(np.exp(log_c)) * (2.0 * q) ** (p - i)
        return polynomial * xp.exp(-q)
    if is_torch(q):
        if q.requires_grad:
            raise ValueError(
                "nu must be a half-integer of at most 9.5 for a Matern kernel that is "
                f"differentiated, got {nu!r}"
            )
        values = _matern(np, q.cpu().numpy(), nu)
        return xp.from_numpy(values).to(q.device)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        log_bessel = np.log(kve(nu, q)) - q
        log_k = (1.0 - nu) * np.log(2.0) - gammaln(nu) + nu * np.log(q) + log_bessel
    # K_nu overflows where q is tiny for its order; there the kernel follows its
    # expansion at zero, and it is 1 at zero.
    near_zero = np.isposinf(log_bessel)
    slope = 1.0 / (4.0 * (nu - 1.0)) if nu > 1 else 0.0
    return np.exp(np.where(near_zero, -slope * q * q, log_k))


def approximation_error(Z, K, *, norm="fro"):
    r"""
    Measure how well the inner products of features approximate a kernel matrix.

    .. math:: \frac{\|Z Z^\top - K\|_F}{\|K\|_F} \quad\text{or}\quad
        \max_{ij} |Z Z^\top - K|_{ij} .

    Parameters
    ----------
    Z : ndarray or Tensor of shape (n, D)
        Features.
    K : ndarray or Tensor of shape (n, n)
        Exact kernel matrix of the same points.
    norm : {"fro", "max"}, default="fro"
        Relative Frobenius error, or largest absolute error.

    Returns
    -------
    float
        The error, computed in float64.

    Raises
    ------
    TypeError
        If the arrays differ in kind or have a dtype that is not allowed.
    ValueError
        If shapes or devices disagree, an entry is not finite, ``K`` is zero in the
        relative norm, or the norm is unknown.

    Notes
    -----
    Time O(n^2 D); beyond its input it needs a few rows of the n x n matrix.

    References
    ----------
    .. [1] D. J. Sutherland and J. Schneider, "On the error of random Fourier
       features", UAI 2015, Section 3: bounds on both errors.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.features import approximation_error
    >>> approximation_error(np.eye(2), np.array([[1.0, 0.5], [0.5, 1.0]]), norm="max")
    0.5
    """
    check_choice("norm", norm, ("fro", "max"))
    Z, K = as_float_array(Z, "Z"), as_float_array(K, "K")
    check_same_kind(Z, K, ("Z", "K"))
    n = Z.shape[0]
    if tuple(K.shape) != (n, n):
        raise ValueError(f"K must have shape {(n, n)} to match Z, got {tuple(K.shape)}")
    if n == 0:
        raise ValueError("Z must have at least one row, got 0")
    if is_torch(Z):
        Z, K = Z.detach(), K.detach()
    float64 = sys.modules["torch"].float64 if is_torch(Z) else np.float64
    right = _cast(Z, float64).T
    largest = squares = reference = 0.0
    for rows in row_blocks(n, max(1, BLOCK_BYTES // (8 * n))):
        exact = _cast(K[rows], float64)
        error = _cast(Z[rows], float64) @ right - exact
        largest = max(largest, float(abs(error).max()))
        squares += float((error * error).sum())
        reference += float((exact * exact).sum())
    if norm == "max":
        return largest
    if reference == 0.0:
        raise ValueError("K must not be zero for the relative error, got all zeros")
    return float(np.sqrt(squares / reference))


def _cast(x, dtype):
    return x.to(dtype) if is_torch(x) else x.astype(dtype, copy=False)
