r"""
Convergence rates of gradient methods on games, from eigenvalues.

Near a fixed point a method is linear, :math:`z_{t+1} = T z_t`, and its distance
shrinks by the spectral radius of T a step. For simultaneous steps T mixes no two
eigenvalues :math:`\lambda` of :math:`\nabla v`: with momentum,

.. math:: \mu^2 - (1 - \eta \lambda + \beta) \mu + \beta = 0.
"""

import cmath
import math
import numbers

import numpy as np

from lib._backend import as_float_array, to_numpy
from lib.games.dynamics import _check_method

__all__ = [
    "gd_step_bound",
    "negative_momentum_interval",
    "operator_matrix",
    "optimal_momentum",
    "spectral_radius",
]


def operator_matrix(
    jac,
    method,
    lr,
    *,
    update="simultaneous",
    momentum=0.0,
    optimism=1.0,
    gamma=0.0,
    sizes=None,
):
    r"""
    Give the matrix that one step of a method multiplies its state with.

    For a linear field :math:`v(w) = J w`, :math:`z_{t+1} = T z_t` with the state
    :math:`z_t = w_t` for "gd", "extragradient" and "consensus",

    .. math:: I - \eta J, \qquad I - \eta J + \eta^2 J^2, \qquad
        I - \eta (J + \gamma J^\top J),

    and :math:`z_t = (w_t, w_{t-1})` for "momentum" and "ogda",

    .. math::
        \begin{pmatrix} (1 + \beta) I - \eta J & -\beta I \\ I & 0 \end{pmatrix},
        \qquad
        \begin{pmatrix} I - \eta (1 + o) J & \eta o J \\ I & 0 \end{pmatrix}.

    Alternating updates split J into the part L strictly below the diagonal of blocks,
    which sees the new point, and the rest, which sees the old one.

    Parameters
    ----------
    jac : array-like of shape (n, n)
        Jacobian J of the field.
    method : {"gd", "ogda", "extragradient", "momentum", "consensus"}
        The method, as in `simulate`.
    lr : float
        Step size eta >= 0.
    update : {"simultaneous", "alternating"}, default="simultaneous"
        Whether players move at once; "extragradient" and "consensus" must.
    momentum : float or sequence of float, default=0.0
        Momentum beta in (-1, 1), one for all players or one for each.
    optimism : float, default=1.0
        Weight o >= 0 of the last change of the gradient.
    gamma : float, default=0.0
        Weight of the gradient of the Hamiltonian.
    sizes : sequence of int, optional
        Number of coordinates of each player; by default each has one.

    Returns
    -------
    ndarray of shape (n, n) or (2n, 2n)
        T.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of its range, or belongs to another method.

    Notes
    -----
    O(n^2) operations, :math:`O(n^3)` for "extragradient", "consensus" and alternating
    updates.

    References
    ----------
    .. [1] G. Gidel et al., "Negative momentum for improved game dynamics", AISTATS
       2019, Theorem 3.

    Examples
    --------
    >>> from lib.games import operator_matrix
    >>> print(operator_matrix([[2.0]], "momentum", 0.5, momentum=-0.25))
    [[-0.25  0.25]
     [ 1.    0.  ]]
    """
    J = np.array(to_numpy(as_float_array(jac, "jac")), dtype=np.float64)
    n = J.shape[0]
    if J.shape != (n, n) or n == 0:
        raise ValueError(f"jac must be a square matrix, got shape {J.shape}")
    sizes = (1,) * n if sizes is None else tuple(sizes)
    if sum(sizes) != n or min(sizes) < 1:
        raise ValueError(f"sizes must be positive and add up to {n}, got {sizes}")
    momentum, o, gamma = _check_method(
        len(sizes),
        method,
        lr,
        update,
        momentum=momentum,
        optimism=optimism,
        gamma=gamma,
    )
    eye = np.eye(n)
    if method == "extragradient":
        return eye - lr * J @ (eye - lr * J)
    if method == "consensus":
        return eye - lr * (J + gamma * J.T @ J)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    later = owner[:, None] > owner if update == "alternating" else False
    L = np.where(later, J, 0.0)
    N = J - L
    B = np.diag(np.repeat(momentum, sizes))
    # w' = w + B (w - u) - lr [(1 + o)(L w' + N w) - o (L w + N u)], u the point before
    left = eye + lr * (1 + o) * L
    now = eye + B - lr * (1 + o) * N + lr * o * L
    past = lr * o * N - B
    if method == "gd":
        return np.linalg.solve(left, now)
    top = np.linalg.solve(left, np.hstack([now, past]))
    return np.vstack([top, np.eye(n, 2 * n)])


def spectral_radius(jac, method, lr, **options):
    r"""
    Give the factor by which a method shrinks distances a step, in the long run.

    Parameters
    ----------
    jac : array-like of shape (n, n)
        Jacobian of the field.
    method : {"gd", "ogda", "extragradient", "momentum", "consensus"}
        The method.
    lr : float
        Step size.
    **options
        Keywords of `operator_matrix`.

    Returns
    -------
    float
        Largest modulus of an eigenvalue of `operator_matrix`; the method converges
        on the linear field if it is below 1, and near a fixed point with this
        Jacobian.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of its range, or belongs to another method.

    Notes
    -----
    :math:`O(n^3)` operations.

    References
    ----------
    .. [1] D. P. Bertsekas, "Nonlinear programming", 2nd edition, Athena Scientific,
       1999, Proposition 4.4.1.

    Examples
    --------
    >>> from lib.games import spectral_radius
    >>> J = [[0.0, 1.0], [-1.0, 0.0]]
    >>> print(f"{spectral_radius(J, 'gd', 0.5):.4f}")
    1.1180
    >>> print(f"{spectral_radius(J, 'ogda', 0.5):.4f}")
    0.7071
    """
    T = operator_matrix(jac, method, lr, **options)
    return float(np.abs(np.linalg.eigvals(T)).max())


def gd_step_bound(eigs):
    r"""
    Give the step size below which gradient steps converge.

    .. math:: |1 - \eta \lambda| < 1 \text{ for all } \lambda \iff
        0 < \eta < \min_\lambda \frac{2 \, \Re \lambda}{|\lambda|^2}.

    Parameters
    ----------
    eigs : array-like of shape (n,)
        Eigenvalues of the Jacobian of the field that players descend.

    Returns
    -------
    float
        The bound; 0 where no step converges, that is if a real part is not positive.

    Raises
    ------
    ValueError
        If there is no eigenvalue or one is not finite.

    Notes
    -----
    O(n) operations.

    References
    ----------
    .. [1] L. Mescheder, S. Nowozin and A. Geiger, "The numerics of GANs", NeurIPS
       2017, Lemma 4: the same for ascent, with :math:`|\Re \lambda|`.

    Examples
    --------
    >>> from lib.games import gd_step_bound
    >>> gd_step_bound([1 + 1j, 1 - 1j, 4])
    0.5
    >>> gd_step_bound([1j, -1j])
    0.0
    """
    eigs = np.atleast_1d(np.asarray(to_numpy(eigs), dtype=np.complex128)).ravel()
    if eigs.size == 0 or not np.isfinite(eigs).all():
        raise ValueError(f"eigs must hold finite numbers and at least one, got {eigs}")
    if (eigs.real <= 0).any():
        return 0.0
    return float((2 * (eigs.real / np.abs(eigs)) / np.abs(eigs)).min())


def optimal_momentum(eig):
    r"""
    Give the fastest step size and momentum for one eigenvalue.

    For :math:`\lambda = |\lambda| e^{i \psi}` and simultaneous steps,

    .. math:: \beta^* = -\tan^2(\psi / 2), \qquad
        \eta^* = (1 + |\beta^*|) / |\lambda|, \qquad
        \rho^* = \tan(|\psi| / 2),

    where gradient steps alone reach :math:`\sin |\psi|` with
    :math:`\eta = \Re(1 / \lambda)`.

    Parameters
    ----------
    eig : complex
        Eigenvalue with a positive real part; its conjugate has the same answer.

    Returns
    -------
    lr : float
        Step size.
    beta : float
        Momentum, in (-1, 0].
    radius : float
        Modulus of both roots of the momentum operator there, a double root.

    Raises
    ------
    TypeError
        If ``eig`` is no number.
    ValueError
        If it is not finite or its real part is not positive: then no step size and
        momentum converge.

    Notes
    -----
    The eigenvalues that momentum brings below a radius R fill an ellipse with the
    centre :math:`1 + \beta` and the half axes :math:`R + \beta / R` and
    :math:`R - \beta / R`, in units of :math:`1 / \eta`. Seen from 0, the tallest one
    with :math:`\beta = -R^2` spans the widest angle, :math:`2 \arctan R`.

    References
    ----------
    .. [1] G. Gidel et al., "Negative momentum for improved game dynamics", AISTATS
       2019, Section 4, where this optimum is found numerically.

    Examples
    --------
    >>> from lib.games import optimal_momentum
    >>> lr, beta, radius = optimal_momentum(3 + 4j)
    >>> print(f"{lr:.4f} {beta:.4f} {radius:.4f}")
    0.2500 -0.2500 0.5000
    """
    eig = _stable_eigenvalue(eig)
    radius = math.tan(abs(cmath.phase(eig)) / 2)
    return (1 + radius**2) / abs(eig), -(radius**2), radius


def negative_momentum_interval(eig):
    r"""
    Give the step sizes at which a little negative momentum helps.

    With :math:`\rho(\beta)` the squared modulus of the larger root of the momentum
    operator,

    .. math:: \rho'(0) > 0 \iff \eta \in I(\lambda) = \Big(
        \frac{|\lambda| - |\Im \lambda|}{|\lambda| \, \Re \lambda},
        \frac{|\lambda| + |\Im \lambda|}{|\lambda| \, \Re \lambda} \Big).

    Parameters
    ----------
    eig : complex
        Eigenvalue with a positive real part.

    Returns
    -------
    low, high : float
        Ends of the open interval; equal, so that it is empty, for a real eigenvalue.

    Raises
    ------
    TypeError
        If ``eig`` is no number.
    ValueError
        If it is not finite or its real part is not positive.

    Notes
    -----
    Constant time.

    References
    ----------
    .. [1] G. Gidel et al., "Negative momentum for improved game dynamics", AISTATS
       2019, Theorem 4.

    Examples
    --------
    >>> from lib.games import negative_momentum_interval
    >>> negative_momentum_interval(3 + 4j)
    (0.06666666666666665, 0.6)
    """
    eig = _stable_eigenvalue(eig)
    sine = abs(eig.imag) / abs(eig)
    return (1 - sine) / eig.real, (1 + sine) / eig.real


def _stable_eigenvalue(eig):
    if isinstance(eig, bool) or not isinstance(eig, numbers.Number):
        raise TypeError(f"eig must be a complex number, got {eig!r}")
    eig = complex(eig)
    if not cmath.isfinite(eig) or eig.real <= 0:
        raise ValueError(
            f"eig must be finite with a positive real part, got {eig}: no step size "
            "and momentum converge otherwise"
        )
    return eig
