r"""
Factored gradient descent with momentum for quantum state tomography.

A state of q qubits is a density matrix, Hermitian, positive semidefinite, of trace
one and of size :math:`2^q`. Pauli measurements see it through a linear map, and a low
rank makes few of them enough. Writing it as :math:`U U^*` keeps it positive and small,

.. math::
    \min_{U \in \mathbb{C}^{2^q \times r}} f(U)
    = \tfrac12 \| \mathcal{A}(U U^*) - y \|^2, \qquad
    \mathcal{A}(\rho)_i = \sqrt{2^q / m} \, \operatorname{tr}(P_i \rho),

and makes the problem non-convex. The scale makes :math:`\mathcal{A}` an isometry on
average, and exactly if all :math:`4^q` strings are measured.
"""

import functools
import itertools

import numpy as np
from scipy.optimize import OptimizeResult

from lib._backend import check_choice, check_integer, check_real, make_rng

__all__ = ["PauliMeasurements", "fidelity", "mifgd", "pauli_matrix", "quantum_state"]

PAULI = {
    "I": np.eye(2, dtype=complex),
    "X": np.array([[0, 1], [1, 0]], dtype=complex),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1.0 + 0j, -1.0]),
}
#: Letter -> (whether it flips a bit, whether it signs a set bit); Y = i X Z does both.
BITS = {"I": (0, 0), "X": (1, 0), "Y": (1, 1), "Z": (0, 1)}
LETTERS = {bits: letter for letter, bits in BITS.items()}
STATES = ("ghz", "hadamard", "random")
#: Dense matrices of 2^q rows are formed: at ten qubits one takes 16 MB.
MOST_QUBITS = 10


def pauli_matrix(label):
    r"""
    Build a Pauli string as a dense matrix, the Kronecker product of its letters.

    .. math:: P = P_1 \otimes P_2 \otimes \dots \otimes P_q, \qquad
        P_j \in \{I, X, Y, Z\}, \qquad
        \operatorname{tr}(P P') = 2^q \, [P = P'] .

    Parameters
    ----------
    label : str
        Letters I, X, Y and Z, the most significant qubit first.

    Returns
    -------
    ndarray of shape (2^q, 2^q)
        Complex Hermitian unitary matrix.

    Raises
    ------
    ValueError
        If a letter is another one, or there are none or more than ten.

    Notes
    -----
    Time and memory O(4^q). :class:`PauliMeasurements` never forms it.

    Examples
    --------
    >>> from lib.acceleration import pauli_matrix
    >>> pauli_matrix("ZX").real.astype(int)
    array([[ 0,  1,  0,  0],
           [ 1,  0,  0,  0],
           [ 0,  0,  0, -1],
           [ 0,  0, -1,  0]])
    """
    _check_label(label)
    return functools.reduce(np.kron, (PAULI[letter] for letter in label))


def quantum_state(name, qubits, *, random_state=None):
    r"""
    Give a pure state as a unit vector.

    .. math::
        |\text{ghz}\rangle = \frac{|0 \dots 0\rangle + |1 \dots 1\rangle}{\sqrt 2},
        \qquad |\text{hadamard}\rangle = 2^{-q/2} \sum_k |k\rangle ,

    and "random" is uniform on the unit sphere.

    Parameters
    ----------
    name : {"ghz", "hadamard", "random"}
        The state.
    qubits : int
        Number of qubits q, at most 10.
    random_state : int, Generator, SeedSequence, RandomState or None, default=None
        Source of the random state; the others ignore it.

    Returns
    -------
    ndarray of shape (2^q,)
        Complex amplitudes.

    Raises
    ------
    TypeError
        If ``qubits`` is not an integer.
    ValueError
        If the name is unknown or ``qubits`` is out of range.

    Notes
    -----
    Time and memory O(2^q).

    Examples
    --------
    >>> from lib.acceleration import quantum_state
    >>> quantum_state("ghz", 2).real.round(3)
    array([0.707, 0.   , 0.   , 0.707])
    """
    check_choice("name", name, STATES)
    _check_qubits(qubits)
    N = 2**qubits
    if name == "ghz":
        psi = np.zeros(N, dtype=complex)
        psi[[0, -1]] = 1.0
    elif name == "hadamard":
        psi = np.ones(N, dtype=complex)
    else:
        psi = make_rng(random_state).standard_normal((N, 2)) @ [1.0, 1j]
    return psi / np.linalg.norm(psi)


def fidelity(a, b):
    r"""
    Compare two states: one if they are equal, zero if they are orthogonal.

    .. math::
        F(\rho, \rho') = \Big( \operatorname{tr}
        \sqrt{\rho^{1/2} \rho' \rho^{1/2}} \Big)^2, \qquad
        F(|\psi\rangle, \rho) = \langle \psi | \rho | \psi \rangle .

    Parameters
    ----------
    a, b : ndarray of shape (2^q,) or (2^q, 2^q)
        Pure states as unit vectors, or density matrices.

    Returns
    -------
    float
        The fidelity.

    Raises
    ------
    ValueError
        If a shape is no other or the sizes differ.

    Notes
    -----
    Time O(4^q) if one state is a vector, else O(8^q).

    References
    ----------
    .. [1] R. Jozsa, "Fidelity for mixed quantum states", J. Mod. Opt. 41(12), 1994.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.acceleration import fidelity, quantum_state
    >>> round(fidelity(quantum_state("ghz", 3), np.eye(8) / 8), 6)
    0.125
    """
    a, b = np.asarray(a), np.asarray(b)
    for name, state in (("a", a), ("b", b)):
        if state.ndim not in (1, 2) or state.shape[0] != state.shape[-1]:
            raise ValueError(
                f"{name} must be a vector or a square matrix, got shape {state.shape}"
            )
    if len(a) != len(b):
        raise ValueError(f"a and b must have one size, got {len(a)} and {len(b)}")
    if a.ndim > b.ndim:
        a, b = b, a
    if a.ndim == b.ndim == 1:
        return float(abs(np.vdot(a, b)) ** 2)
    if a.ndim == 1:
        return float(np.vdot(a, b @ a).real)
    return float(np.linalg.norm(_root(a) @ _root(b), "nuc") ** 2)


class PauliMeasurements:
    r"""
    Expectations of Pauli strings as a linear map, without their matrices.

    .. math::
        \mathcal{A}(\rho)_i = \sqrt{2^q / m} \, \operatorname{tr}(P_i \rho), \qquad
        \mathcal{A}^*(y) = \sqrt{2^q / m} \sum_i y_i P_i .

    Parameters
    ----------
    labels : sequence of str
        Different strings of one length q <= 10, as in :func:`pauli_matrix`.

    Attributes
    ----------
    labels : tuple of str
        The m strings.
    qubits : int
        Their length q.
    scale : float
        The factor :math:`\sqrt{2^q / m}`.

    Raises
    ------
    ValueError
        If there are no labels, two are equal, or one is not allowed.

    Notes
    -----
    A string flips the bits of a mask x and signs by the bits of a mask z,

    .. math:: P_{x,z} |k\rangle = i^{|x \wedge z|} (-1)^{z \cdot k} \,
        |k \oplus x\rangle ,

    so the expectations of all strings with one x are a Walsh-Hadamard transform of a
    (permuted) diagonal of the density matrix: the map and its adjoint take O(q 4^q)
    operations for any number of strings, and O(4^q) memory.

    References
    ----------
    .. [1] D. Gross et al., "Quantum state tomography via compressed sensing", Phys.
       Rev. Lett. 105, 150401, 2010: few random Pauli strings determine a low rank.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.acceleration import PauliMeasurements, quantum_state
    >>> psi = quantum_state("ghz", 2)
    >>> A = PauliMeasurements(["XX", "YY", "ZZ", "IZ"])
    >>> print(A.forward(np.outer(psi, psi.conj())).round(12) + 0.0)
    [ 1. -1.  1.  0.]
    """

    def __init__(self, labels):
        labels = tuple(labels)
        for label in labels:
            _check_label(label)
        lengths = {len(label) for label in labels}
        if len(lengths) != 1:
            raise ValueError(
                f"labels must be strings of one length, got lengths {sorted(lengths)}"
            )
        if len(set(labels)) < len(labels):
            raise ValueError("labels must be different, got one of them twice")
        self.labels, self.qubits = labels, len(labels[0])
        self.scale = (2**self.qubits / len(labels)) ** 0.5
        bits = np.array([[BITS[letter] for letter in label] for label in labels])
        place = 2 ** np.arange(self.qubits)[::-1]
        self._x, self._z = bits[:, :, 0] @ place, bits[:, :, 1] @ place

    @classmethod
    def random(cls, qubits, count=None, *, random_state=None):
        """
        Draw different strings at random.

        Parameters
        ----------
        qubits : int
            Number of qubits q, at most 10.
        count : int, optional
            Number m of strings; all 4^q by default.
        random_state : int, Generator, SeedSequence, RandomState or None, default=None
            Source of the draw.

        Returns
        -------
        PauliMeasurements
            The map.

        Raises
        ------
        TypeError
            If a number is not an integer.
        ValueError
            If a number is out of its range.
        """
        _check_qubits(qubits)
        total = 4**qubits
        count = total if count is None else count
        check_integer("count", count)
        if count > total:
            raise ValueError(f"count must be at most 4^q = {total}, got {count}")
        if count == total:
            return cls(map("".join, itertools.product(BITS, repeat=qubits)))
        codes = make_rng(random_state).choice(total, size=count, replace=False)
        digits = codes[:, None] // 4 ** np.arange(qubits) % 4
        return cls("".join(np.array(list(BITS))[row]) for row in digits)

    def forward(self, rho):
        """
        Measure a Hermitian matrix.

        Parameters
        ----------
        rho : array-like of shape (2^q, 2^q)
            Density matrix.

        Returns
        -------
        ndarray of shape (m,)
            Scaled expectations.

        Raises
        ------
        ValueError
            If the shape is another one.
        """
        rho, N = np.asarray(rho), 2**self.qubits
        if rho.shape != (N, N):
            raise ValueError(f"rho must have the shape {(N, N)}, got {rho.shape}")
        flip, phase = _tables(self.qubits)
        values = phase * _walsh(rho[np.arange(N), flip])
        return self.scale * values.real[self._x, self._z]

    def adjoint(self, y):
        """
        Combine the Pauli strings with the given weights.

        Parameters
        ----------
        y : array-like of shape (m,)
            Weights.

        Returns
        -------
        ndarray of shape (2^q, 2^q)
            Hermitian matrix.

        Raises
        ------
        ValueError
            If the shape is another one.
        """
        y, N = np.asarray(y, dtype=float), 2**self.qubits
        if y.shape != self._x.shape:
            raise ValueError(f"y must have the shape {self._x.shape}, got {y.shape}")
        flip, phase = _tables(self.qubits)
        weights = np.zeros((N, N))
        weights[self._x, self._z] = self.scale * y
        out = np.empty((N, N), dtype=complex)
        out[flip, np.arange(N)] = _walsh(weights * phase)
        return out

    def sample(self, rho, shots, *, random_state=None):
        r"""
        Estimate the expectations from a finite number of outcomes.

        A string has outcomes 1 and -1; their mean over the shots has the variance
        :math:`(1 - \operatorname{tr}(P \rho)^2) / \text{shots}`.

        Parameters
        ----------
        rho : array-like of shape (2^q, 2^q)
            Density matrix.
        shots : int
            Outcomes for each string.
        random_state : int, Generator, SeedSequence, RandomState or None, default=None
            Source of the outcomes.

        Returns
        -------
        ndarray of shape (m,)
            Scaled means.

        Raises
        ------
        TypeError
            If ``shots`` is not an integer.
        ValueError
            If ``shots`` is below one or rho has another shape.
        """
        check_integer("shots", shots)
        mean = self.forward(rho) / self.scale
        plus = make_rng(random_state).binomial(shots, np.clip((1 + mean) / 2, 0, 1))
        return self.scale * (2 * plus / shots - 1)


def mifgd(
    measurements,
    y,
    rank=1,
    *,
    momentum=0.0,
    step_size=None,
    start="spectral",
    tol=1e-8,
    max_iter=1000,
    callback=None,
    random_state=None,
):
    r"""
    Reconstruct a state by momentum-inspired factored gradient descent.

    .. math::
        U_{t+1} &= Z_t - \eta \, \mathcal{A}^*(\mathcal{A}(Z_t Z_t^*) - y) \, Z_t, \\
        Z_{t+1} &= U_{t+1} + \mu \, (U_{t+1} - U_t) .

    Without momentum it is factored gradient descent.

    Parameters
    ----------
    measurements : PauliMeasurements
        The map :math:`\mathcal{A}`.
    y : array-like of shape (m,)
        Data, as from its ``forward`` or ``sample``.
    rank : int, default=1
        Columns r of the factor.
    momentum : float, default=0.0
        The momentum :math:`\mu`, from 0 to below 1.
    step_size : float, optional
        The step :math:`\eta`; by default that of the theory with the constant 0.1,
        :math:`1 / (4 (1.1 \|U_0\|_2^2 + \|\mathcal{A}^*(\mathcal{A}(U_0 U_0^*) -
        y)\|_2))`.
    start : {"spectral", "random"} or ndarray of shape (2^q, r), default="spectral"
        The start :math:`U_0`: the leading eigenvectors of :math:`\mathcal{A}^*(y)`
        times the roots of their eigenvalues; complex normal numbers scaled to
        Frobenius norm one; or given.
    tol : float, default=1e-8
        Stop if :math:`\|\mathcal{A}^*(\mathcal{A}(Z Z^*) - y) Z\|_F` is at most this.
    max_iter : int, default=1000
        Most steps.
    callback : callable, optional
        Called as ``callback(U)`` at the start and after every step.
    random_state : int, Generator, SeedSequence, RandomState or None, default=None
        Source of a random start.

    Returns
    -------
    scipy.optimize.OptimizeResult
        ``x`` (the factor), ``density`` (:math:`U U^*` over its trace), ``fun``,
        ``nit`` (one application of the map and one of its adjoint each), ``success``,
        ``status`` (0 tolerance reached, 1 steps spent, 2 not finite), ``message``.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of its range, y or the start has another shape or is
        not finite, or a spectral start does not exist, as the data have no positive
        part of that rank.

    Notes
    -----
    A step takes O((q + r) 4^q) operations. Where :math:`\mathcal{A}` is an isometry,
    the linearised step at a pure state has the curvatures 2 (its length), 1 and 0 (its
    global phase, which no measurement sees); fewer strings spread them.

    References
    ----------
    .. [1] J. L. Kim, G. Kollias, A. Kalev, K. X. Wei and A. Kyrillidis, "Fast quantum
       state reconstruction via accelerated non-convex programming", Photonics 10(2),
       116, 2023, Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.acceleration import PauliMeasurements, fidelity, mifgd, quantum_state
    >>> psi = quantum_state("ghz", 4)
    >>> A = PauliMeasurements.random(4, 128, random_state=0)
    >>> y = A.forward(np.outer(psi, psi.conj()))
    >>> found = mifgd(A, y, momentum=0.5)
    >>> found.success, bool(fidelity(psi, found.density) > 1 - 1e-12)
    (True, True)
    """
    if not isinstance(measurements, PauliMeasurements):
        raise TypeError(
            f"measurements must be PauliMeasurements, got {type(measurements).__name__}"
        )
    A, N = measurements, 2**measurements.qubits
    y = np.asarray(y, dtype=float)
    if y.shape != (len(A.labels),) or not np.isfinite(y).all():
        raise ValueError(
            f"y must hold {len(A.labels)} finite numbers, got shape {y.shape}"
        )
    check_integer("rank", rank)
    if rank > N:
        raise ValueError(f"rank must be at most 2^q = {N}, got {rank}")
    check_real("momentum", momentum, allow_zero=True)
    if momentum >= 1:
        raise ValueError(f"momentum must be below 1, got {momentum}")
    check_real("tol", tol)
    check_integer("max_iter", max_iter)
    U = Z = _start(A, y, rank, start, random_state)
    if step_size is None:
        residual = A.adjoint(A.forward(U @ U.conj().T) - y)
        step_size = 0.25 / (
            1.1 * np.linalg.norm(U, 2) ** 2 + np.linalg.norm(residual, 2)
        )
    else:
        check_real("step_size", step_size)
    status, value, best = 1, np.nan, U
    if callback is not None:
        callback(U)
    for nit in range(max_iter + 1):
        with np.errstate(over="ignore", invalid="ignore"):
            misfit = A.forward(Z @ Z.conj().T) - y
            gradient = A.adjoint(misfit) @ Z
            size = np.linalg.norm(gradient)
        if not np.isfinite(size):
            status = 2
            break
        best, value = Z, float(misfit @ misfit) / 2
        if size <= tol:
            status = 0
            break
        if nit == max_iter:
            break
        U, old = Z - step_size * gradient, U
        Z = U + momentum * (U - old)
        if callback is not None:
            callback(U)
    density = best @ best.conj().T
    return OptimizeResult(
        x=best,
        density=density / np.trace(density).real,
        fun=value,
        nit=nit,
        success=status == 0,
        status=status,
        message=(
            f"gradient norm at most {tol:g}",
            f"{max_iter} steps spent, gradient norm above {tol:g}",
            "an iterate is not finite; x is the last finite one",
        )[status],
    )


def _check_qubits(qubits):
    check_integer("qubits", qubits)
    if qubits > MOST_QUBITS:
        raise ValueError(f"qubits must be at most {MOST_QUBITS}, got {qubits}")


def _check_label(label):
    letters = isinstance(label, str) and set(label) <= set(PAULI)
    if not letters or not 1 <= len(label) <= MOST_QUBITS:
        raise ValueError(
            f"a label must be 1 to {MOST_QUBITS} letters I, X, Y and Z, got {label!r}"
        )


# k xor x for all (x, k), and i to the number of common bits of x and z for all (x, z).
@functools.cache
def _tables(qubits):
    k = np.arange(2**qubits)
    both = k[:, None] & k
    common = sum(both >> j & 1 for j in range(qubits))
    return k[:, None] ^ k, np.array([1, 1j, -1, -1j])[common % 4]


# Walsh-Hadamard transform of the rows.
def _walsh(a):
    shape, h = a.shape, 1
    while h < shape[1]:
        a = a.reshape(shape[0], -1, 2, h)
        a = np.stack([a[:, :, 0] + a[:, :, 1], a[:, :, 0] - a[:, :, 1]], axis=2)
        h *= 2
    return a.reshape(shape)


# Square root of a positive semidefinite matrix.
def _root(a):
    values, vectors = np.linalg.eigh(a)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.conj().T


def _start(A, y, rank, start, random_state):
    N = 2**A.qubits
    if isinstance(start, str):
        check_choice("start", start, ("spectral", "random"))
        if start == "random":
            U = make_rng(random_state).standard_normal((N, rank, 2)) @ [1.0, 1j]
            return U / np.linalg.norm(U)
        values, vectors = np.linalg.eigh(A.adjoint(y))
        if values[-rank] <= 0:
            raise ValueError(
                f"start='spectral' must have data with {rank} positive eigenvalues, "
                f"got {int((values > 0).sum())}; use start='random'"
            )
        return vectors[:, -rank:] * np.sqrt(values[-rank:])
    U = np.array(start, dtype=complex)
    if U.shape != (N, rank) or not np.isfinite(U).all():
        raise ValueError(
            f"start must be finite and of the shape {(N, rank)}, got {U.shape}"
        )
    return U
