r"""
The Laplacian operator, its adjoint and their closed forms.

A vector :math:`w` of edge weights, one for each pair :math:`i < j` in the order of
the upper triangle, makes the Laplacian :math:`\mathcal L w` of a graph,

.. math::
    (\mathcal L w)_{ij} = -w_{ij}, \qquad (\mathcal L w)_{ii} = d_i
    = \sum_{j \ne i} w_{ij} .

With :math:`p` nodes, :math:`\mathcal L^* \mathcal L` has the eigenvalues
:math:`2p` once, :math:`p` for :math:`p - 1` times and 2 for the rest, and an inverse
that costs as much as reading its argument.
"""

import functools
import math

import numpy as np

from lib._backend import as_float_array, check_integer, is_torch

__all__ = [
    "edge_index",
    "laplacian",
    "laplacian_adjoint",
    "laplacian_gram",
    "laplacian_gram_solve",
]


@functools.lru_cache(maxsize=64)
def edge_index(p):
    """
    List the pairs of nodes in the order in which the wing stores edge weights.

    Parameters
    ----------
    p : int
        Number of nodes, at least 2.

    Returns
    -------
    ndarray of int, shape (2, m)
        The pairs ``i < j``, row by row of the upper triangle; read-only.

    Raises
    ------
    TypeError
        If ``p`` is not an integer.
    ValueError
        If ``p < 2``.

    Notes
    -----
    O(p^2) once for every ``p``; the last ones are kept. With indices from 1 this is
    Kumar et al.'s ``k = i - j + (j - 1)(2p - j) / 2`` for ``i > j``.

    References
    ----------
    .. [1] S. Kumar, J. Ying, J. V. de M. Cardoso and D. P. Palomar, "A unified
       framework for structured graph learning via spectral constraints", JMLR 2020,
       Definition 1.

    Examples
    --------
    >>> from lib.graphs import edge_index
    >>> edge_index(4)
    array([[0, 0, 0, 1, 1, 2],
           [1, 2, 3, 2, 3, 3]])
    """
    check_integer("p", p, minimum=2)
    index = np.array(np.triu_indices(p, 1))
    index.flags.writeable = False
    return index


def laplacian(w):
    r"""
    Make the graph Laplacian of edge weights.

    .. math:: (\mathcal L w)_{ij} = -w_{ij} \; (i \ne j), \qquad \mathcal L w \,
        \mathbf 1 = 0 .

    Parameters
    ----------
    w : array-like or Tensor of shape (..., m)
        Edge weights of p nodes, m = p (p - 1) / 2, in the order of ``edge_index``.

    Returns
    -------
    ndarray or Tensor of shape (..., p, p)
        The Laplacians, of the kind, dtype and device of ``w``.

    Raises
    ------
    TypeError
        If the dtype is no floating-point or integer type.
    ValueError
        If m is the number of pairs of no p, or an entry is not finite.

    Notes
    -----
    O(p^2) for each graph. Tensors keep their gradient.

    References
    ----------
    .. [1] S. Kumar, J. Ying, J. V. de M. Cardoso and D. P. Palomar, "A unified
       framework for structured graph learning via spectral constraints", JMLR 2020,
       Definition 1.

    Examples
    --------
    >>> from lib.graphs import laplacian
    >>> laplacian([1.0, 0.0, 2.0])
    array([[ 1., -1., -0.],
           [-1.,  3., -2.],
           [-0., -2.,  2.]])
    """
    w = as_float_array(w, "w", ndim=range(1, 33))
    return _make(w, _nodes(w))


def laplacian_adjoint(Y):
    r"""
    Apply the adjoint of the Laplacian operator.

    .. math:: (\mathcal L^* Y)_{ij} = Y_{ii} + Y_{jj} - Y_{ij} - Y_{ji}, \qquad
        \langle \mathcal L w, Y \rangle = \langle w, \mathcal L^* Y \rangle .

    Parameters
    ----------
    Y : array-like or Tensor of shape (..., p, p)
        Matrices.

    Returns
    -------
    ndarray or Tensor of shape (..., m)
        One number for each pair of nodes, of the kind, dtype and device of ``Y``.
        For a covariance it is the mean square of the difference of two signals,
        for the inverse of a Laplacian the effective resistance.

    Raises
    ------
    TypeError
        If the dtype is no floating-point or integer type.
    ValueError
        If the last two axes are not equal and at least 2, or an entry is not finite.

    Notes
    -----
    O(p^2) for each matrix. Tensors keep their gradient.

    References
    ----------
    .. [1] S. Kumar, J. Ying, J. V. de M. Cardoso and D. P. Palomar, "A unified
       framework for structured graph learning via spectral constraints", JMLR 2020,
       Definition 2.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.graphs import laplacian_adjoint
    >>> laplacian_adjoint(np.diag([1.0, 2.0, 4.0]))
    array([3., 5., 6.])
    """
    Y = as_float_array(Y, "Y", ndim=range(2, 33))
    if Y.shape[-1] != Y.shape[-2] or Y.shape[-1] < 2:
        raise ValueError(
            "Y must have two equal last axes of length >= 2, got shape "
            f"{tuple(Y.shape)}"
        )
    return _adjoint(Y)


def laplacian_gram(w):
    r"""
    Apply the adjoint after the operator, without the matrix between.

    .. math:: (\mathcal L^* \mathcal L w)_{ij} = 2 w_{ij} + d_i + d_j .

    Its eigenvalues are :math:`2p` once, :math:`p` for :math:`p - 1` times and 2 for
    :math:`p (p - 3) / 2` times, so the operator's squared norm is :math:`2p` and
    the condition number is :math:`p`.

    Parameters
    ----------
    w : array-like or Tensor of shape (..., m)
        Edge weights of p nodes, m = p (p - 1) / 2.

    Returns
    -------
    ndarray or Tensor of shape (..., m)
        The product, of the kind, dtype and device of ``w``.

    Raises
    ------
    TypeError
        If the dtype is no floating-point or integer type.
    ValueError
        If m is the number of pairs of no p, or an entry is not finite.

    Notes
    -----
    O(p^2) for each vector. Tensors keep their gradient.

    References
    ----------
    .. [1] S. Kumar, J. Ying, J. V. de M. Cardoso and D. P. Palomar, "A unified
       framework for structured graph learning via spectral constraints", JMLR 2020,
       Lemma 1 (the norm; the eigenvalues are derived in the book).

    Examples
    --------
    >>> from lib.graphs import laplacian_gram
    >>> laplacian_gram([1.0, 0.0, 2.0])
    array([6., 3., 9.])
    """
    w = as_float_array(w, "w", ndim=range(1, 33))
    p = _nodes(w)
    i, j = _index(w, p)
    d = _incidence(w, p)
    return 2.0 * w + d[..., i] + d[..., j]


def laplacian_gram_solve(v):
    r"""
    Solve a linear system with the operator's Gram matrix, in closed form.

    With :math:`b_i = \sum_j v_{ij}` the solution of
    :math:`\mathcal L^* \mathcal L w = v` is

    .. math:: w_{ij} = \tfrac12 (v_{ij} - y_i - y_j), \qquad
        y = \frac1p \Big( b - \frac{\mathbf 1^\top b}{2p} \mathbf 1 \Big) .

    Parameters
    ----------
    v : array-like or Tensor of shape (..., m)
        Right-hand sides, m = p (p - 1) / 2.

    Returns
    -------
    ndarray or Tensor of shape (..., m)
        The solutions, of the kind, dtype and device of ``v``.

    Raises
    ------
    TypeError
        If the dtype is no floating-point or integer type.
    ValueError
        If m is the number of pairs of no p, or an entry is not finite.

    Notes
    -----
    O(p^2) for each vector. Tensors keep their gradient.

    References
    ----------
    .. [1] S. Kumar, J. Ying, J. V. de M. Cardoso and D. P. Palomar, "A unified
       framework for structured graph learning via spectral constraints", JMLR 2020
       (the operator; the inverse is derived in the book).

    Examples
    --------
    >>> from lib.graphs import laplacian_gram_solve
    >>> laplacian_gram_solve([6.0, 3.0, 9.0])
    array([1., 0., 2.])
    """
    v = as_float_array(v, "v", ndim=range(1, 33))
    p = _nodes(v, "v")
    i, j = _index(v, p)
    b = _incidence(v, p)
    y = (b - b.sum(-1)[..., None] / (2 * p)) / p
    return 0.5 * (v - y[..., i] - y[..., j])


def _nodes(w, name="w"):
    # The p with p (p - 1) / 2 edges.
    m = w.shape[-1]
    p = (1 + math.isqrt(1 + 8 * m)) // 2
    if m < 1 or p * (p - 1) // 2 != m:
        raise ValueError(
            f"{name} must hold p (p - 1) / 2 numbers for some p >= 2 on its last "
            f"axis, got {m}"
        )
    return p


def _incidence(w, p):
    # Sums of w over the edges of each node: the weighted degrees.
    return -_off_diagonal(w, p).sum(-1)


def _index(w, p):
    if not is_torch(w):
        return edge_index(p)
    return _torch_index(p, w.device)


@functools.lru_cache(maxsize=64)
def _torch_index(p, device):
    import torch

    return torch.tensor(edge_index(p), device=device)


def _off_diagonal(w, p):
    # The Laplacian without its diagonal.
    i, j = _index(w, p)
    shape = (*w.shape[:-1], p, p)
    if is_torch(w):
        flat = w.new_zeros((*w.shape[:-1], p * p))
        for place in (i * p + j, j * p + i):
            flat = flat.scatter(-1, place.expand(w.shape), -w)  # keeps the gradient
        return flat.reshape(shape)
    M = np.zeros(shape, dtype=w.dtype)
    M[..., i, j] = -w
    M[..., j, i] = -w
    return M


def _make(w, p):
    M = _off_diagonal(w, p)
    degrees = -M.sum(-1)
    if is_torch(w):
        return M + degrees.diag_embed()
    M[..., np.arange(p), np.arange(p)] = degrees
    return M


def _adjoint(Y):
    i, j = _index(Y, Y.shape[-1])
    if is_torch(Y):
        d = Y.diagonal(dim1=-2, dim2=-1)
    else:
        d = np.diagonal(Y, axis1=-2, axis2=-1)
    return d[..., i] + d[..., j] - Y[..., i, j] - Y[..., j, i]
