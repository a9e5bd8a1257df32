r"""
The smallest eigenvalue of a Hessian from products with vectors.

:math:`k` steps of Lanczos' method with a random start find, with probability
:math:`1 - \delta`, a unit vector whose quotient :math:`v^\top H v` is at most
:math:`\lambda_{\min}(H) + \alpha / 2`, for

.. math::
    k = \min\Big\{d, \Big\lceil \frac12 + \frac12 \sqrt{\frac{L_1}{\alpha}}
    \ln \frac{2.75\, d}{\delta^2} \Big\rceil\Big\}, \qquad \|H\|_2 \le L_1 .

That number is for the worst spectrum. The coefficients of the run itself certify
:math:`\lambda_{\min} \ge -\alpha` after fewer products, and without :math:`L_1`.
"""

import math
import numbers
import sys

import numpy as np
from scipy.linalg import eigh_tridiagonal
from scipy.special import betaincinv

from lib._backend import as_float_array, check_integer, check_real, is_torch, make_rng

__all__ = ["hvp_operator", "lanczos_iterations", "lanczos_min_eig"]


def lanczos_iterations(d, L1, alpha, delta):
    r"""
    Give the number of products that certify the smallest eigenvalue.

    The bound of Kuczynski and Wozniakowski for a random start,

    .. math::
        \Pr[\theta_k - \lambda_{\min} > e\,(\lambda_{\max} - \lambda_{\min})]
        \le 1.648 \sqrt d\, e^{-\sqrt e\,(2k - 1)},

    where :math:`\theta_k` is the smallest Ritz value, is at most :math:`\delta` for
    :math:`e = \alpha / (4 L_1)`, an error of :math:`\alpha / 2`, as soon as

    .. math::
        k \ge \frac12 + \frac12 \sqrt{L_1 / \alpha} \ln (2.75\, d / \delta^2) .

    Parameters
    ----------
    d : int
        Dimension.
    L1 : float
        Bound on the moduli of the eigenvalues.
    alpha : float
        Twice the error allowed.
    delta : float
        Probability of failure allowed.

    Returns
    -------
    int
        The number k, at most ``d``: then the Ritz value is exact.

    Raises
    ------
    TypeError
        If an argument is no number.
    ValueError
        If an argument is out of its range.

    Notes
    -----
    Constant time.

    References
    ----------
    .. [1] J. Kuczynski and H. Wozniakowski, "Estimating the largest eigenvalue by the
       power and Lanczos algorithms with a random start", SIAM J. Matrix Anal. Appl.
       13(4), 1992, Theorem 4.2.

    Examples
    --------
    >>> from lib.acceleration import lanczos_iterations
    >>> lanczos_iterations(1000, L1=1.0, alpha=0.1, delta=0.1)
    21
    >>> lanczos_iterations(5, L1=1.0, alpha=1e-6, delta=0.1)
    5
    """
    check_integer("d", d)
    check_real("L1", L1)
    check_real("alpha", alpha)
    check_probability(delta)
    k = 0.5 + 0.5 * math.sqrt(L1 / alpha) * (math.log(2.75 * d) - 2.0 * math.log(delta))
    return int(min(d, math.ceil(k)))


def lanczos_min_eig(
    matvec,
    dim,
    *,
    num_iters=None,
    L1=None,
    alpha=None,
    delta=0.01,
    stop_below=None,
    seed=0,
    like=None,
):
    r"""
    Estimate the smallest eigenvalue of a symmetric matrix by Lanczos' method.

    After k products the value is the least Rayleigh quotient over the Krylov space
    of a random vector q,

    .. math:: \theta_k = \min \{ v^\top H v : \|v\| = 1,
        v \in \mathrm{span}(q, Hq, \dots, H^{k-1} q) \} \ge \lambda_{\min}(H) .

    Parameters
    ----------
    matvec : callable or LinearOperator
        Product with the matrix.
    dim : int
        Dimension d.
    num_iters : int, optional
        Number of products; None takes `lanczos_iterations` of ``L1``, ``alpha`` and
        ``delta``, or without ``L1`` as many as it takes until their coefficients
        show that the smallest eigenvalue is at least ``-alpha`` (see Notes). More
        than d are never made.
    L1 : float, optional
        Bound on the moduli of the eigenvalues.
    alpha : float, optional
        Twice the error allowed; without ``L1``, the curvature to be excluded.
    delta : float, default=0.01
        Probability of failure allowed.
    stop_below : float, optional
        Stop as soon as the value is at most this: the vector then proves it.
    seed : int, Generator, SeedSequence, RandomState or None, default=0
        Source of the random start.
    like : ndarray or Tensor, optional
        Vectors have its kind, dtype and device; float64 of numpy by default.

    Returns
    -------
    value : float
        Smallest Ritz value, an upper bound on the smallest eigenvalue.
    vector : ndarray or Tensor of shape (d,)
        Its unit vector.
    nhevp : int
        Products made.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of its range, neither ``num_iters`` nor ``alpha`` is
        given, or a product is not finite.

    Notes
    -----
    Every new vector is made orthogonal to all earlier ones twice: O(k^2 d) time and
    O(k d) memory besides the products. When the space stops growing before k, it is
    invariant, and the value is the smallest eigenvalue with probability one.

    Without ``L1``: the k-th vector of the method is :math:`p_k(H) q` for a polynomial
    with :math:`|p_k(-\alpha)| = \det(T_k + \alpha I) / (b_1 \cdots b_k)`, where
    :math:`T_k` is the tridiagonal matrix of the coefficients and :math:`b_j` stand
    beside its diagonal. It is a unit vector, so :math:`|\gamma p_k(\lambda_{\min})|
    \le 1` for the part :math:`\gamma` of q along the bottom eigenvector. To the left
    of the Ritz values :math:`|p_k|` falls; hence :math:`|p_k(-\alpha)| \ge 1/t`
    excludes :math:`\lambda_{\min} < -\alpha` unless :math:`|\gamma| < t`, which for
    a random q has the probability :math:`\delta = I_{t^2}(\frac12, \frac{d-1}2)`, for
    all k together [2]_. The test costs O(1) a product.

    References
    ----------
    .. [1] J. Kuczynski and H. Wozniakowski, "Estimating the largest eigenvalue by the
       power and Lanczos algorithms with a random start", SIAM J. Matrix Anal. Appl.
       13(4), 1992.
    .. [2] J. L. M. van Dorsselaer, M. E. Hochstenbach and H. A. van der Vorst,
       "Computing probabilistic bounds for extreme eigenvalues of symmetric matrices
       with the Lanczos method", SIAM J. Matrix Anal. Appl. 22(3), 2001.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.acceleration import lanczos_min_eig
    >>> H = np.diag([3.0, 2.0, -1.0, 0.5])
    >>> value, v, products = lanczos_min_eig(lambda v: H @ v, 4, num_iters=9)
    >>> round(value, 12), products, float(abs(v).round(6) @ [0, 0, 1, 0])
    (-1.0, 4, 1.0)
    """
    product = getattr(matvec, "matvec", matvec)
    if not callable(product):
        raise TypeError(f"matvec must be callable or a LinearOperator, got {matvec!r}")
    check_integer("dim", dim)
    certify = None
    if num_iters is None:
        if alpha is None:
            raise ValueError(
                "num_iters must be given, or alpha, or both L1 and alpha, got "
                f"num_iters=None, L1={L1}, alpha=None"
            )
        if L1 is None:
            check_real("alpha", alpha)
            check_probability(delta)
            num_iters, certify = dim, (alpha, delta)
        else:
            num_iters = lanczos_iterations(dim, L1, alpha, delta)
    check_integer("num_iters", num_iters)
    if stop_below is not None and (
        isinstance(stop_below, bool) or not isinstance(stop_below, numbers.Real)
    ):
        raise TypeError(f"stop_below must be a real number, got {stop_below!r}")
    like = np.empty(0) if like is None else as_float_array(like, "like", ndim=range(33))
    value, vector, nhevp, _ = lanczos(
        product, dim, num_iters, make_rng(seed), like, stop_below, certify
    )
    return value, vector, nhevp


# The method itself; the last output tells whether the value is an eigenvalue. With
# certify = (alpha, delta) it stops when the coefficients show, with probability
# 1 - delta, that no eigenvalue is below -alpha.
def lanczos(product, dim, num_iters, rng, like, stop_below=None, certify=None):
    k = min(num_iters, dim)
    alpha, wanted, pivot, growth = 0.0, math.inf, math.inf, 0.0
    if certify is not None and dim > 1:
        alpha = certify[0]
        wanted = -0.5 * math.log(betaincinv(0.5, 0.5 * (dim - 1), certify[1]))
    q = rng.standard_normal(dim)
    q /= np.linalg.norm(q)
    if is_torch(like):
        torch = sys.modules["torch"]
        place = {"dtype": like.dtype, "device": like.device}
        q = torch.as_tensor(q, **place)
        basis = torch.empty((k, dim), **place)
    else:
        q = q.astype(like.dtype)
        basis = np.empty((k, dim), dtype=like.dtype)
    single = str(like.dtype).endswith("float32")
    unit = float(np.finfo(np.float32 if single else np.float64).eps)
    diagonal, beside, scale = [], [], 0.0
    for j in range(k):
        basis[j] = q
        w = product(q)
        a = float(w.dot(q))
        if not math.isfinite(a):
            raise ValueError(f"matvec must return finite numbers, got {a}")
        diagonal.append(a)
        known = basis[: j + 1]
        for _ in range(2):
            w = w - (known @ w) @ known
        b = math.sqrt(float(w.dot(w)))
        scale = max(scale, abs(a), b)
        exact = j + 1 == dim or b <= 10 * unit * math.sqrt(dim) * scale
        # The last pivot of T + alpha I; not positive: an eigenvalue is below -alpha.
        pivot = a + alpha - (beside[-1] ** 2 / pivot if beside else 0.0)
        if pivot <= 0.0:
            wanted, pivot = math.inf, math.inf
        if wanted < math.inf and b > 0.0:
            growth += math.log(pivot) - math.log(b)
        last = exact or j + 1 == k or growth >= wanted
        if last or stop_below is not None:
            value, weights = _smallest(diagonal, beside)
            if last or value <= stop_below:
                break
        beside.append(b)
        q = w / b
    vector = _combine(weights, basis[: j + 1])
    return value, vector, j + 1, exact


def _combine(weights, basis):
    if is_torch(basis):
        torch = sys.modules["torch"]
        weights = torch.as_tensor(weights, dtype=basis.dtype, device=basis.device)
        vector = weights @ basis
        return vector / vector.norm()
    vector = weights.astype(basis.dtype) @ basis
    return vector / np.linalg.norm(vector)


# Smallest eigenvalue and vector of a symmetric tridiagonal matrix.
def _smallest(diagonal, beside):
    if len(diagonal) == 1:
        return diagonal[0], np.ones(1)
    if len(diagonal) == 2:
        # In closed form, for problems of two dimensions are solved a million times.
        (a, c), b = diagonal, beside[0]
        half = (c - a) / 2
        root = math.hypot(half, b)
        x, y = (half + root, -b) if half >= 0 else (b, half - root)
        length = math.hypot(x, y)
        return (a + c) / 2 - root, np.array([x / length, y / length])
    value, vector = eigh_tridiagonal(diagonal, beside, select="i", select_range=(0, 0))
    return float(value[0]), vector[:, 0]


def hvp_operator(fun, x):
    r"""
    Make the product with a Hessian from two backward passes of torch.

    .. math:: v \mapsto \nabla^2 f(x) v = \nabla_x \big( \nabla f(x)^\top v \big)

    The graph of the gradient is built once for the point, so each product costs one
    pass backward through it.

    Parameters
    ----------
    fun : callable
        Function of torch, ``fun(x) -> scalar tensor``.
    x : Tensor, any shape
        Point, float32 or float64.

    Returns
    -------
    callable
        The product, for a tensor of the shape of ``x``; its attributes ``value`` and
        ``gradient`` hold f and its gradient at ``x``.

    Raises
    ------
    TypeError
        If ``x`` is no tensor of floating-point numbers.
    ValueError
        If ``x`` is not finite, or ``fun`` returns no scalar that depends on it.

    Notes
    -----
    Memory O(size of the graph) as long as the operator lives. A product costs
    between one and three gradients.

    References
    ----------
    .. [1] B. A. Pearlmutter, "Fast exact multiplication by the Hessian", Neural
       Computation 6(1), 1994.

    Examples
    --------
    >>> import torch
    >>> from lib.acceleration import hvp_operator
    >>> product = hvp_operator(lambda x: (x**4).sum(), torch.tensor([1.0, 2.0]))
    >>> product(torch.tensor([1.0, 1.0]))
    tensor([12., 48.])
    """
    if not is_torch(x):
        raise TypeError(f"x must be a torch tensor, got {type(x).__name__}")
    x = as_float_array(x, "x", ndim=range(33))
    return SecondBackward(fun, x)


# Value, gradient, and products with the Hessian of a torch function.
class SecondBackward:
    def __init__(self, fun, x):
        self._grad = sys.modules["torch"].autograd.grad
        self._leaf = x.detach().clone().requires_grad_()
        self.value = fun(self._leaf)
        check_differentiable(self.value)
        self._gradient = self._grad(self.value, self._leaf, create_graph=True)[0]
        self.gradient, self.value = self._gradient.detach(), self.value.detach()

    def __call__(self, v):
        product = None
        if self._gradient.requires_grad:
            product = self._grad(
                self._gradient, self._leaf, v, retain_graph=True, allow_unused=True
            )[0]
        # A linear function has no graph left.
        return v * 0 if product is None else product


def check_differentiable(value):
    if not is_torch(value) or not value.requires_grad or value.numel() != 1:
        raise ValueError(
            "fun must return a scalar tensor that depends on x, so that torch can "
            f"differentiate it, got {value!r}"
        )


def check_probability(delta):
    if isinstance(delta, (bool, np.bool_)) or not isinstance(delta, numbers.Real):
        raise TypeError(f"delta must be a real number in (0, 1), got {delta!r}")
    if not 0 < delta < 1:
        raise ValueError(f"delta must be a real number in (0, 1), got {delta!r}")
