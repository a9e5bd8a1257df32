r"""
Orthogonal matching pursuit with weights that are not negative.

.. math:: \min_{w \ge 0,\, \lvert \mathrm{supp}\, w \rvert \le k}
    \Bigl\lVert \sum_j w_j g_j - b \Bigr\rVert^2 + \lambda \lVert w \rVert^2

Only the Gram matrix of the atoms and their inner products with b enter.
"""

import sys

import numpy as np

from lib._backend import (
    as_float_array,
    as_kind,
    check_integer,
    check_real,
    check_same_kind,
    is_torch,
    to_numpy,
)
from lib.coresets.facility_location import as_index

__all__ = ["omp_nonneg"]


def omp_nonneg(K, c, k, lam=0.0):
    r"""
    Match a vector by few of many atoms with non-negative weights.

    .. math:: \min_{w \ge 0,\, \lvert \mathrm{supp}\, w \rvert \le k}
        w^\top K w - 2 c^\top w + \lambda \lVert w \rVert^2, \qquad
        K_{ij} = \langle g_i, g_j \rangle, \quad c_j = \langle g_j, b \rangle

    Parameters
    ----------
    K : array-like or Tensor of shape (n, n)
        Gram matrix of the atoms.
    c : array-like or Tensor of shape (n,)
        Their inner products with the target b.
    k : int
        Largest number of atoms, at most n.
    lam : float, default=0.0
        Weight of the penalty.

    Returns
    -------
    indices : ndarray or Tensor of int64, shape (m,)
        Atoms in order of entry, m <= k; fewer where no other atom correlates with what
        is left.
    weights : ndarray or Tensor of shape (m,)
        Their weights, all positive.
    history : ndarray or Tensor of shape (steps,)
        The objective after each step; with the squared norm of b added it is the
        regularised squared error.

    Raises
    ------
    TypeError
        If a type is wrong.
    ValueError
        If ``k`` is out of range, ``lam`` is negative, a shape is wrong or an entry is
        not finite.

    Notes
    -----
    In each step the atom with the largest correlation c - K w enters, and the weights
    are refitted: a step towards the unconstrained solution that stops where a weight
    becomes zero, whose atom leaves, until the solution is positive. An atom that left
    may come back, one in use is never picked again. The inverse of the Gram matrix of
    the atoms in use is kept by bordering, in float64, with one step of refinement; an
    atom that depends on the others up to rounding is passed over. A step takes
    O(m^2 + m n) operations, and m n numbers are held beside K.

    References
    ----------
    .. [1] K. Killamsetty et al., "GRAD-MATCH: gradient matching based data subset
       selection for efficient deep model training", ICML 2021, Algorithm 2.
    .. [2] C. L. Lawson and R. J. Hanson, "Solving Least Squares Problems", SIAM 1995,
       Chapter 23.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.coresets import omp_nonneg
    >>> g = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> indices, weights, history = omp_nonneg(g @ g.T, g @ np.array([3.0, 2.0]), 3)
    >>> indices, weights
    (array([0, 1]), array([3., 2.]))
    """
    K, c = as_float_array(K, "K"), as_float_array(c, "c", ndim=1)
    check_same_kind(K, c, ("K", "c"))
    n = K.shape[0]
    if n == 0 or tuple(K.shape) != (n, n) or c.shape[0] != n:
        raise ValueError(
            "K must be square with as many rows as c has entries, got shapes "
            f"{tuple(K.shape)} and {tuple(c.shape)}"
        )
    check_integer("k", k)
    if k > n:
        raise ValueError(f"k must be at most the {n} atoms, got {k}")
    check_real("lam", lam, allow_zero=True)
    atoms = OnGram(_host(K), _host(c))
    indices, w, history = pursue(atoms, k, float(lam))
    return as_index(indices, K), as_kind(w, K), as_kind(history, K)


def _host(x):
    return to_numpy(x) if is_torch(x) and x.device.type == "cpu" else x


def _double(x):
    return x.double() if is_torch(x) else x.astype(np.float64, copy=False)


# Atoms known by their Gram matrix: of those in use the rows are kept.
class OnGram:
    def __init__(self, K, c, sqnorm=0.0):
        self.K, self.c, self.sqnorm = K, _double(c), sqnorm
        self.host_c = to_numpy(self.c)
        # Rounding of the matrix: a Schur complement below it is noise.
        single = "32" in str(K.dtype)
        self.noise = 1e-6 if single else 1e-10
        self.floor = (1e-6 if single else 1e-13) * np.abs(self.host_c).max()

    def reserve(self, capacity):
        self.kept = [_empty((capacity, len(self.c)), self.K)]

    def keep(self, m, j):
        row = self.kept[0][m] = _double(self.K[j])
        inner = to_numpy(self.kept[0][:m, j]).copy()
        return inner, float(row[j]), float(self.host_c[j])

    def correlation(self, w):
        return self.c - _like(w, self.K) @ self.kept[0][: len(w)]


# Atoms known by their factored gradients, and the target itself: of those in use the
# factors are kept. The correlation is that with the residual, whose digits survive
# when it is small.
class OnGradients:
    def __init__(self, G, b):
        self.G, self.b, self.sqnorm = G, b, float(b @ b)
        self.noise = 1e-10
        self.floor = 1e-13 * float(G.sqnorm().max()) ** 0.5 * self.sqnorm**0.5

    def reserve(self, capacity):
        self.kept = [
            None if x is None else _empty((capacity, x.shape[1]), x)
            for pair in self.G.layers
            for x in pair
        ]

    def _in_use(self, m):
        rows = [None if x is None else x[:m] for x in self.kept]
        return zip(rows[::2], rows[1::2], strict=True)

    def keep(self, m, j):
        one = self.G[[j]]
        for kept, x in zip(
            self.kept, (x for pair in one.layers for x in pair), strict=True
        ):
            if x is not None:
                kept[m] = x[0]
        inner = 0.0
        for left, right in self._in_use(m + 1):
            part = left @ left[m]
            inner = inner + (part if right is None else part * (right @ right[m]))
        inner = to_numpy(inner)
        c = float(one._map(_double).dot(self.b)[0])
        return inner[:m], float(inner[m]), c

    def correlation(self, w):
        w = _like(w, self.b)
        parts = [
            w @ left if right is None else ((w[:, None] * left).T @ right).reshape(-1)
            for left, right in self._in_use(len(w))
        ]
        return self.G.dot(self.b - _concatenate(parts))


def _like(w, like):
    if is_torch(like):
        return sys.modules["torch"].as_tensor(w, device=like.device)
    return w


def _empty(shape, like):
    if is_torch(like):
        torch = sys.modules["torch"]
        return torch.empty(shape, dtype=torch.float64, device=like.device)
    return np.empty(shape)


def _concatenate(parts):
    if is_torch(parts[0]):
        return sys.modules["torch"].cat(parts)
    return np.concatenate(parts)


class _ActiveSet:
    # Atoms in use, their weights and inv(K_AA + lam I): grown by bordering, shrunk by
    # its reverse. The last atom takes the place of one that leaves.

    def __init__(self, atoms, capacity, lam):
        self.atoms, self.lam = atoms, lam
        self.indices, self.entered, self.w = [], [], np.zeros(0)
        atoms.reserve(capacity)
        self._M = np.empty((capacity, capacity))
        self._N = np.empty((capacity, capacity))
        self._c = np.empty(capacity)

    @property
    def objective(self):
        # At the solution on the atoms in use the quadratic form is half of it.
        return -float(self._c[: len(self.w)] @ self.w)

    def add(self, j, step):
        m = len(self.indices)
        N = self._N[:m, :m]
        inner, diagonal, c = self.atoms.keep(m, j)
        diagonal += self.lam
        u = N @ inner
        schur = diagonal - inner @ u
        if schur <= self.atoms.noise * diagonal:
            return False
        N += np.multiply.outer(u, u / schur)
        self._N[m, :m] = self._N[:m, m] = -u / schur
        self._N[m, m] = 1 / schur
        self._M[m, :m] = self._M[:m, m] = inner
        self._M[m, m] = diagonal
        self._c[m] = c
        self.indices.append(j)
        self.entered.append(step)
        self.w = np.append(self.w, 0.0)
        return True

    def drop(self, i):
        m = len(self.indices) - 1
        for A in (self._M, self._N):
            A[[i, m], : m + 1] = A[[m, i], : m + 1]
            A[: m + 1, [i, m]] = A[: m + 1, [m, i]]
        u = self._N[:m, m]
        self._N[:m, :m] -= np.multiply.outer(u, u / self._N[m, m])
        self._c[i] = self._c[m]
        for kept in self.atoms.kept:
            if kept is not None:
                kept[i] = kept[m]
        self.w[i] = self.w[m]
        self.w = self.w[:m]
        self.indices[i], self.entered[i] = self.indices[m], self.entered[m]
        del self.indices[m], self.entered[m]

    def solve(self):
        m = len(self.indices)
        M, N, c = self._M[:m, :m], self._N[:m, :m], self._c[:m]
        s = N @ c
        return s + N @ (c - M @ s)

    def refit(self, nonneg):
        while self.indices:
            s = self.solve()
            if not nonneg or s.min() > 0:
                self.w = s
                return
            blocking = np.flatnonzero(s <= 0)
            # A weight of zero blocks at once, also one whose solution is zero.
            way = np.maximum(self.w[blocking] - s[blocking], np.finfo(float).tiny)
            ratio = self.w[blocking] / way
            i = blocking[ratio.argmin()]
            self.w = np.maximum(self.w + ratio.min() * (s - self.w), 0)
            self.drop(i)


def pursue(atoms, k, lam, *, nonneg=True, tol=-np.inf):
    # Atoms in order of entry, weights, and the objective after each step (with the
    # squared norm of the target where it is known), in numpy.
    active = _ActiveSet(atoms, k, lam)
    passed, history = set(), []
    best = atoms.sqnorm
    while len(active.indices) < k and not (history and best <= tol):
        r = atoms.correlation(active.w)
        r = r if nonneg else abs(r)
        taken = active.indices + list(passed)
        if taken:
            r[taken] = -np.inf
        j = int(r.argmax())
        if not float(r[j]) > atoms.floor:
            break
        if not active.add(j, len(history)):
            passed.add(j)
            continue
        before = len(active.indices)
        active.refit(nonneg)
        value = atoms.sqnorm + active.objective
        if j not in active.indices:
            passed.add(j)
            if len(active.indices) == before - 1:
                continue
        # An atom that was passed over may be of use once others have left.
        elif len(active.indices) < before:
            passed.clear()
        if not value < best:
            break
        best = value
        history.append(value)
    order = np.argsort(active.entered)
    indices = np.array(active.indices, dtype=np.int64)[order]
    return indices, active.w[order], np.array(history)
