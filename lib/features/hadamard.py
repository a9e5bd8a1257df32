r"""
Hadamard matrices and the fast Walsh-Hadamard transform.

A Hadamard matrix has entries of plus and minus one and orthogonal rows,
:math:`H H^\top = n I`. Sylvester's are the Kronecker powers of the one of order two,

.. math::
    H_1 = [1], \qquad H_{2n} = \begin{bmatrix} H_n & H_n \\ H_n & -H_n \end{bmatrix},

so a product with :math:`H_p = H_a \otimes H_b \otimes \dots` is a few products with
small matrices, and takes :math:`O(p \log p)` operations where it is done in
:math:`\log_2 p` steps.
"""

import functools
import math
import sys

import numpy as np

from lib._backend import as_float_array, check_integer, is_torch, row_blocks

__all__ = ["fwht", "hadamard_matrix", "pad_pow2"]

#: Elements of a tile that takes all its steps in the cache.
TILE = 2**18

#: Rows of one small product: BLAS does not pack operands of this size.
ROWS = 128


def hadamard_matrix(n):
    r"""
    Build a Hadamard matrix: entries of plus and minus one, orthogonal rows.

    Sylvester's matrix for powers of two, in the natural order,

    .. math:: H_{ij} = (-1)^{\text{number of common ones of } i \text{ and } j
        \text{ in binary}} ,

    and Paley's first construction for :math:`n = q + 1` with a prime
    :math:`q \equiv 3 \pmod 4`: the identity plus the quadratic characters
    :math:`\chi(i - j)` modulo :math:`q`, bordered to a skew matrix.

    Parameters
    ----------
    n : int
        Order: a power of two, or a prime of the form 4 k + 3 plus one.

    Returns
    -------
    ndarray of shape (n, n)
        Matrix of int64 with ``H @ H.T == n * I``.

    Raises
    ------
    TypeError
        If ``n`` is not an integer.
    ValueError
        If ``n`` is below one or neither construction gives it.

    Notes
    -----
    Time and memory O(n^2). Orders above two are multiples of four; whether all of
    those exist is open. Others are known (28 is the first) that are refused here.

    References
    ----------
    .. [1] J. J. Sylvester, "Thoughts on inverse orthogonal matrices, simultaneous
       sign-successions, and tessellated pavements in two or more colours",
       Philosophical Magazine 34, 1867.
    .. [2] R. E. A. C. Paley, "On orthogonal matrices", Journal of Mathematics and
       Physics 12, 1933, Lemma 2.

    Examples
    --------
    >>> from lib.features import hadamard_matrix
    >>> hadamard_matrix(4)
    array([[ 1,  1,  1,  1],
           [ 1, -1,  1, -1],
           [ 1,  1, -1, -1],
           [ 1, -1, -1,  1]])
    >>> H = hadamard_matrix(12)
    >>> bool((H @ H.T == 12 * np.eye(12)).all())
    True
    """
    check_integer("n", n)
    n = int(n)
    if n & (n - 1) == 0:
        H = np.ones((1, 1), dtype=np.int64)
        while len(H) < n:
            H = np.block([[H, H], [H, -H]])
        return H
    q = n - 1
    if q % 4 != 3 or any(q % k == 0 for k in range(3, math.isqrt(q) + 1, 2)):
        raise ValueError(
            "n must be a power of two, or a prime of the form 4 k + 3 plus one, "
            f"got {n}"
        )
    character = np.full(q, -1)
    character[np.arange(q) ** 2 % q] = 1
    character[0] = 0
    H = np.ones((n, n), dtype=np.int64)
    H[1:, 0] = -1
    H[1:, 1:] = character[np.subtract.outer(np.arange(q), np.arange(q))]
    H[1:, 1:] += np.eye(q, dtype=np.int64)
    return H


def pad_pow2(X):
    """
    Pad the last axis with zeros to the next power of two.

    Parameters
    ----------
    X : array-like or Tensor of shape (..., d)
        Points, d >= 1.

    Returns
    -------
    ndarray or Tensor of shape (..., p)
        ``X`` itself where d is a power of two, else a padded copy of the same kind,
        dtype and device; p < 2 d.

    Raises
    ------
    TypeError
        If the dtype is not allowed.
    ValueError
        If an entry is not finite or the last axis is empty.

    Notes
    -----
    Time and memory O(size). Differentiable in a torch input.

    Examples
    --------
    >>> from lib.features import pad_pow2
    >>> pad_pow2([[1.0, 2.0, 3.0]])
    array([[1., 2., 3., 0.]])
    """
    X = as_float_array(X, "X", ndim=range(1, 33))
    d = X.shape[-1]
    if d == 0:
        raise ValueError(f"X must have a last axis of at least 1, got {tuple(X.shape)}")
    missing = next_pow2(d) - d
    if missing == 0:
        return X
    if is_torch(X):
        return sys.modules["torch"].nn.functional.pad(X, (0, missing))
    return np.pad(X, [(0, 0)] * (X.ndim - 1) + [(0, missing)])


def fwht(X, *, axis=-1, normalize=False):
    r"""
    Multiply by Sylvester's Hadamard matrix along an axis, without forming it.

    .. math:: y_i = \sum_j (-1)^{\langle i, j \rangle} x_j ,

    with :math:`\langle i, j \rangle` the number of ones that :math:`i` and :math:`j`
    have in common in binary: the natural order of :func:`hadamard_matrix`.

    Parameters
    ----------
    X : array-like or Tensor
        Array whose ``axis`` has a length p that is a power of two. It is not changed.
    axis : int, default=-1
        Axis of the transform.
    normalize : bool, default=False
        Divide by sqrt(p): then the transform is orthogonal and its own inverse.

    Returns
    -------
    ndarray or Tensor
        Transform, of the shape, kind, dtype and device of ``X``.

    Raises
    ------
    TypeError
        If the dtype is not allowed, or ``axis`` or ``normalize`` has a wrong type.
    ValueError
        If the length is not a power of two, there is no such axis, or an entry is
        not finite.

    Notes
    -----
    The matrix is a Kronecker product of about log(p) / log(16) small ones, on a GPU
    log(p) / log(64), which are multiplied by in turn: O(p log p) operations, in tiles
    that stay in the cache. On a CPU, memory beside the result is a few tiles.

    Differentiable in a torch input; a tensor on the CPU without a graph is
    transformed by numpy. On a GPU, TF32 products follow
    ``torch.backends.cuda.matmul.allow_tf32``.

    References
    ----------
    .. [1] B. J. Fino and V. R. Algazi, "Unified matrix treatment of the fast
       Walsh-Hadamard transform", IEEE Transactions on Computers 25(11), 1976.

    Examples
    --------
    >>> from lib.features import fwht
    >>> fwht([1.0, 0.0, 1.0, 0.0])
    array([2., 2., 0., 0.])
    """
    if not is_torch(X):
        X = np.asarray(X)
    check_integer("axis", axis, minimum=-X.ndim)
    if axis >= X.ndim:
        raise ValueError(f"axis must be below {X.ndim}, X's dimensions, got {axis!r}")
    if not isinstance(normalize, (bool, np.bool_)):
        raise TypeError(f"normalize must be a bool, got {normalize!r}")
    axis = axis % X.ndim
    p = X.shape[axis]
    if p == 0 or p & (p - 1):
        raise ValueError(
            f"X must have a power of two as the length of axis {axis}, got {p}; "
            "pad_pow2 pads with zeros"
        )
    scale = 1.0 / math.sqrt(p) if normalize else None
    shape = (math.prod(X.shape[:axis]), p, math.prod(X.shape[axis + 1 :]))
    if not is_torch(X):
        return _transform(X.reshape(shape), scale).reshape(X.shape)
    if is_plain(X):
        out = _transform(X.numpy(force=True).reshape(shape), scale)
        return sys.modules["torch"].from_numpy(out).reshape(X.shape)
    X = as_float_array(X, "X", ndim=range(1, 33))
    Y = multiply_tensor(X.reshape(shape))
    return (Y if scale is None else Y * scale).reshape(X.shape)


def next_pow2(d):
    return 1 << (d - 1).bit_length()


def is_plain(X):
    # A tensor whose memory numpy may read, and that nobody differentiates.
    torch = sys.modules["torch"]
    if X.device.type != "cpu" or X.dtype == torch.bfloat16:
        return False
    if torch.is_grad_enabled() and X.requires_grad:
        return False
    return torch.autograd.forward_ad.unpack_dual(X).tangent is None


def factors(p, device="cpu"):
    # Orders whose product is p.
    bits, orders = p.bit_length() - 1, []
    if device == "cpu":
        # The product along rows pays with a full register, of sixteen float32. BLAS
        # makes that of sixteen entries in a column at little more than their reading.
        parts = (bits - 1) // 4 if bits > 5 else 0
        last = 4 if parts else bits
    else:
        # A GPU has arithmetic to spare: few passes over its memory.
        parts = max(1, -(-bits // 6))
        last = -(-bits // parts)
        parts -= 1
    rest = bits - last
    for left in range(parts, 0, -1):
        orders.append(1 << -(-rest // left))
        rest -= -(-rest // left)
    return (*orders, 1 << last)


@functools.lru_cache(maxsize=64)
def _matrix(order, dtype):
    H = hadamard_matrix(order).astype(dtype)
    H.flags.writeable = False
    return H


@functools.lru_cache(maxsize=64)
def _device_matrix(order, dtype, device):
    torch = sys.modules["torch"]
    # A tensor made in inference mode could never be part of a graph.
    with torch.inference_mode(False):
        return torch.tensor(hadamard_matrix(order), dtype=dtype, device=device)


def _transform(X, scale):
    # X of shape (outer, p, inner), a tile at a time.
    outer, p, inner = X.shape
    dtype = as_float_array(X[:0], ndim=3).dtype
    out = np.empty(X.shape, dtype)
    if out.size == 0:
        return out
    columns = min(inner, max(ROWS, TILE // p))
    rows = min(outer, max(1, TILE // (p * columns)))
    scratch = np.empty((3, rows * p * columns), dtype)
    # Infinite entries are refused below, with more to say than their difference.
    with np.errstate(invalid="ignore"):
        for some in row_blocks(outer, rows):
            for these in row_blocks(inner, columns):
                tile = np.ascontiguousarray(X[some, :, these], dtype)
                y = out[some, :, these]
                last = (
                    y if y.flags.c_contiguous else scratch[2, : y.size].reshape(y.shape)
                )
                multiply(tile, p, y.shape[2], last, scratch[:2, : y.size])
                if scale is not None:
                    np.multiply(last, dtype.type(scale), out=y)
                elif last is not y:
                    y[...] = last
    # The first row of H is all ones: the sums that a check would take are there.
    # They may overflow on finite entries, and only then those are looked at.
    if not np.isfinite(out[:, 0]).all():
        as_float_array(X, "X", ndim=3)
    return out


def multiply(x, p, inner, out, scratch):
    # H times contiguous x of shape (..., p, inner), one factor at a time from the last
    # one on.
    *orders, last = factors(p)
    y = scratch[1] if orders else out
    _step(x, last, inner, y)
    _steps(y, orders, inner * last, scratch, out)


def multiply_signed(x, signs, out, scratch):
    # H diag(signs) times x of shape (p, columns), for every row of signs. They cost no
    # pass where they are part of the small matrices, and neither do scales below.
    columns = x.shape[1]
    *orders, last = factors(signs.shape[1])
    y = scratch[1] if orders else out
    H = _matrix(last, x.dtype) * signs.reshape(len(signs), -1, 1, last)
    target = y.reshape(*H.shape[:2], last, columns)
    np.matmul(H, x.reshape(-1, last, columns), out=target)
    _steps(y, orders, columns * last, scratch, out)


def multiply_to_rows(x, scales, out, scratch):
    # diag(scales) H times x of shape (groups, p, columns), transposed by the last
    # product: a row of out, of shape (columns, groups p), has what x has in a column.
    columns = x.shape[2]
    *orders, last = factors(x.shape[1])
    y = _steps(x, orders, columns * last, scratch)
    H = _matrix(last, x.dtype) * scales.reshape(-1, 1, last)
    target = out.reshape(columns, -1, last).transpose(1, 0, 2)
    np.matmul(y.reshape(-1, last, columns).transpose(0, 2, 1), H, out=target)


def _steps(x, orders, inner, scratch, out=None):
    # Each step reads one array and writes another; the first one writes scratch[0].
    for i, order in enumerate(reversed(orders)):
        y = out if out is not None and i == len(orders) - 1 else scratch[i % 2]
        _step(x, order, inner, y)
        x, inner = y, inner * order
    return x


def _step(x, order, inner, y):
    H = _matrix(order, x.dtype)
    if inner > 1:
        shape = (-1, order, inner)
        np.matmul(H, x.reshape(shape), out=y.reshape(shape))
        return
    rows = math.gcd(ROWS, x.size // order)
    if rows < 16:  # calls would cost more than packing
        rows = x.size // order
    shape = (-1, rows, order)
    np.matmul(x.reshape(shape), H, out=y.reshape(shape))


def multiply_tensor(X):
    # H times a tensor of shape (outer, p, inner), with a graph where there is one.
    outer, p, inner = X.shape
    if X.numel() == 0:
        return X.clone()
    after = inner
    for order in reversed(factors(p, X.device.type)):
        H = _device_matrix(order, X.dtype, X.device)
        if after == 1:
            X = X.reshape(-1, order) @ H
        else:
            X = X.reshape(-1, order, after)
            X = H.expand(len(X), order, order).bmm(X)
        after *= order
    return X.reshape(outer, p, inner)
