r"""
Variance reduction and Katyusha momentum for regularised finite sums.

The objective is an average of smooth convex losses of a linear model and a ridge,

.. math::
    F(w) = f(w) + \tfrac{\sigma}{2} \|w\|^2, \qquad
    f(w) = \frac1n \sum_{i=1}^n \varphi(a_i^\top w, y_i) .

A component gradient costs one row. Both methods look at all rows once an epoch, at a
*snapshot* :math:`\tilde w`, and correct single rows by it in between,

.. math::
    g = \nabla f(\tilde w) + \nabla f_i(w) - \nabla f_i(\tilde w), \qquad
    \mathbb{E} \|g - \nabla f(w)\|^2
    \le 2 L \, [f(\tilde w) - f(w) - \nabla f(w)^\top (\tilde w - w)] .

Katyusha keeps a part of every step at the snapshot, which pays for that bound and
leaves room for Nesterov's momentum.
"""

import math
import sys

import numpy as np
from scipy.optimize import OptimizeResult
from scipy.special import expit

from lib._backend import (
    as_float_array,
    check_choice,
    check_integer,
    check_real,
    check_same_kind,
    is_torch,
    make_rng,
)

__all__ = ["FiniteSum", "katyusha", "katyusha_parameters", "svrg"]

LOSSES = ("logistic", "squares")


class FiniteSum:
    r"""
    Ridge-regularised average of the losses of a linear model.

    .. math::
        F(w) = \frac1n \sum_{i=1}^n \varphi(a_i^\top w, y_i)
        + \frac{\sigma}{2} \|w\|^2, \qquad
        \varphi(t, y) = \log(1 + e^{-ty}) \ \text{or} \ \tfrac12 (t - y)^2 .

    Parameters
    ----------
    X : array-like or Tensor of shape (n, d)
        Rows :math:`a_i`; float32 and float64 are kept, integers become float64.
    y : array-like or Tensor of shape (n,)
        Labels -1 and 1 for the logistic loss, numbers for squares.
    loss : {"logistic", "squares"}, default="logistic"
        The loss :math:`\varphi`.
    l2 : float, default=0.0
        Ridge parameter :math:`\sigma \ge 0`, the modulus of strong convexity.

    Attributes
    ----------
    n, dim : int
        Number of components and of weights.
    smoothness : float
        Largest smoothness constant of a component without the ridge, L:
        :math:`\max_i \|a_i\|^2`, a quarter of it for the logistic loss.

    Raises
    ------
    TypeError
        If the arrays differ in kind or a dtype is not allowed.
    ValueError
        If shapes disagree, an entry is not finite, all rows are zero, a label of the
        logistic loss is neither -1 nor 1, or ``l2`` is negative.

    Notes
    -----
    Time O(n d) for ``fun`` and ``grad``, no copy of float arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.acceleration import FiniteSum
    >>> F = FiniteSum([[1.0, 0.0], [0.0, 2.0]], [1.0, -1.0], l2=0.1)
    >>> F.n, F.dim, F.smoothness
    (2, 2, 1.0)
    >>> print(round(F.fun(np.zeros(2)), 4))
    0.6931
    """

    def __init__(self, X, y, *, loss="logistic", l2=0.0):
        check_choice("loss", loss, LOSSES)
        check_real("l2", l2, allow_zero=True)
        X = as_float_array(X, "X")
        y = as_float_array(y, "y", ndim=1)
        check_same_kind(X, y)
        if y.shape[0] != X.shape[0]:
            raise ValueError(f"y must have the {X.shape[0]} rows of X, got {len(y)}")
        if 0 in X.shape:
            raise ValueError(
                f"X must have at least one row and one column, got {tuple(X.shape)}"
            )
        if loss == "logistic" and not bool((abs(y) == 1).all()):
            raise ValueError("y must hold -1 and 1 for the logistic loss, got others")
        self.X, self.y = X, (y.to(X.dtype) if is_torch(X) else y.astype(X.dtype))
        self.loss, self.l2 = loss, float(l2)
        self.n, self.dim = X.shape
        largest = float((X * X).sum(1).max())
        self.smoothness = largest / 4 if loss == "logistic" else largest
        if self.smoothness == 0:
            raise ValueError("X must have a row that is not zero, got zeros only")

    def fun(self, w):
        """
        Value of the objective.

        Parameters
        ----------
        w : ndarray or Tensor of shape (d,)
            Weights.

        Returns
        -------
        float
            F(w).
        """
        return self._value(self.X @ w, w)

    def grad(self, w):
        """
        Gradient of the objective, ridge included: n component gradients.

        Parameters
        ----------
        w : ndarray or Tensor of shape (d,)
            Weights.

        Returns
        -------
        ndarray or Tensor of shape (d,)
            The gradient at w.
        """
        return self._slopes(self.X @ w, self.y) @ self.X / self.n + self.l2 * w

    # F from the predictions t = X w, which a pass has anyway.
    def _value(self, t, w):
        if self.loss == "squares":
            mean = ((t - self.y) ** 2).mean() / 2
        elif is_torch(t):
            mean = sys.modules["torch"].logaddexp(t.new_zeros(()), -t * self.y).mean()
        else:
            mean = np.logaddexp(0.0, -t * self.y).mean()
        return float(mean) + self.l2 / 2 * float(w @ w)

    # Derivatives of the losses by the predictions.
    def _slopes(self, t, y):
        if self.loss == "squares":
            return t - y
        return -y * (sys.modules["torch"].sigmoid if is_torch(t) else expit)(-t * y)


def katyusha_parameters(n, L, sigma, *, batch_size=1, epoch=0):
    r"""
    Give the parameters of Katyusha: inner steps, two momenta and the step size.

    With :math:`m = \lceil 2n/b \rceil` inner steps on batches of b rows,

    .. math::
        \tau_2 = \frac{1}{2b}, \qquad
        \tau_1 = \min\Big\{\sqrt{\frac{((m-1)/b + 1) \, \sigma}{3L}}, 1 - \tau_2\Big\},
        \qquad \alpha = \frac{1}{3 \tau_1 L} ,

    which for single rows are the paper's
    :math:`\tau_1 = \min\{\sqrt{m\sigma/(3L)}, 1/2\}` and :math:`\tau_2 = 1/2`. Without
    strong convexity :math:`\tau_1 = 2/(s+4)` in epoch s, at most :math:`1 - \tau_2`.

    Parameters
    ----------
    n : int
        Number of components.
    L : float
        Smoothness of a component.
    sigma : float
        Strong convexity, from the ridge; zero for the general convex form.
    batch_size : int, default=1
        Rows b of a step, at most n.
    epoch : int, default=0
        Number s of the epoch; only the general convex form looks at it.

    Returns
    -------
    m : int
        Inner steps of an epoch.
    tau1, tau2 : float
        Weights of the fast iterate and of the snapshot.
    alpha : float
        Step size of the fast iterate.

    Raises
    ------
    TypeError
        If an argument is no number of its kind.
    ValueError
        If an argument is out of its range.

    Notes
    -----
    Batches: the variance falls by b, so a snapshot weight of 1/(2b) pays for it. An
    epoch then contracts if :math:`\tau_2 (\theta^{m-1} - 1) + 1 - 1/\theta \le
    \tau_1` with :math:`\theta = 1 + \alpha\sigma`; since :math:`(1 + x)^k - 1 \le
    2 k x` for :math:`k x \le 5/4`, the formula above is enough, with
    :math:`\tau_1 \ge (m - 1) \sigma / (3.75 L)` where batches are large. At
    :math:`\tau_1 = 1 - \tau_2` it contracts for every step size.

    References
    ----------
    .. [1] Z. Allen-Zhu, "Katyusha: the first direct acceleration of stochastic
       gradient methods", JMLR 18(221), 2018, Algorithms 1 and 2.

    Examples
    --------
    >>> from lib.acceleration import katyusha_parameters
    >>> m, tau1, tau2, alpha = katyusha_parameters(100, 1.0, 0.0015)
    >>> print(m, round(tau1, 4), tau2, round(alpha, 4))
    200 0.3162 0.5 1.0541
    """
    check_integer("n", n)
    check_real("L", L)
    check_real("sigma", sigma, allow_zero=True)
    check_integer("batch_size", batch_size)
    check_integer("epoch", epoch, minimum=0)
    if batch_size > n:
        raise ValueError(f"batch_size must be at most n = {n}, got {batch_size}")
    m = -(-2 * n // batch_size)
    tau2 = 0.5 / batch_size
    if sigma > 0:
        tau1 = math.sqrt(((m - 1) / batch_size + 1) * sigma / (3 * L))
        tau1 = max(tau1, (m - 1) * sigma / (3.75 * L))
    else:
        tau1 = 2.0 / (epoch + 4)
    tau1 = min(tau1, 1.0 - tau2)
    return m, tau1, tau2, 1.0 / (3.0 * tau1 * L)


def svrg(
    problem,
    w0=None,
    *,
    tol=1e-6,
    max_passes=100,
    batch_size=1,
    step_size=None,
    random_state=None,
):
    r"""
    Minimise a finite sum by stochastic variance-reduced gradient steps.

    Each inner step is :math:`w_{t+1} = (w_t - \eta g_t) / (1 + \eta\sigma)` with the
    corrected gradient :math:`g_t` of the module. An epoch has
    :math:`m = \lceil 2n/b \rceil` of them, and its snapshot is their mean with weights
    :math:`(1 + \eta\sigma)^t`; the next epoch goes on from the last iterate.

    Parameters
    ----------
    problem : FiniteSum
        The objective.
    w0 : array-like or Tensor of shape (d,), optional
        Start; zeros by default.
    tol : float, default=1e-6
        Stop at a snapshot whose gradient has at most this norm.
    max_passes : float, default=100
        Budget of component gradients in units of n.
    batch_size : int, default=1
        Rows of a step, drawn with replacement.
    step_size : float, optional
        The step :math:`\eta`; by default the largest that the analysis in the notes
        allows, about b / (12 L) and at most 1 / L.
    random_state : int, Generator, SeedSequence, RandomState or None, default=None
        Source of the rows drawn.

    Returns
    -------
    scipy.optimize.OptimizeResult
        ``x`` (the last snapshot), ``fun``, ``jac``, ``nit`` (inner steps), ``nepoch``,
        ``ngrad`` (component gradients), ``success``, ``status`` (0 tolerance reached,
        1 budget spent, 2 not finite), ``message``, and ``history``, arrays ``ngrad``,
        ``fun`` and ``grad_norm`` with one entry a snapshot.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of its range or w0 has another shape.

    Notes
    -----
    The snapshot's losses leave n numbers from which its component gradients follow, so
    an inner step costs b component gradients and an epoch about 3n; a sum whose
    components cannot be stored so would take 5n. Every epoch shrinks

    .. math::
        \|w - w^*\|^2 + c \, (F(w) - F^*) + (2\eta - c\theta) S \,
        (F(\tilde w) - F^*), \qquad c = 8 \eta^2 L / b, \ \theta = 1 + \eta\sigma, \
        S = \sum_{t<m} \theta^t

    in expectation by :math:`\max(\theta^{-m}, 1/2)` if
    :math:`4 \eta L (3 + \eta\sigma) \le b`, so :math:`O((n + L/\sigma)
    \log(1/\epsilon))` component gradients are enough.

    References
    ----------
    .. [1] R. Johnson and T. Zhang, "Accelerating stochastic gradient descent using
       predictive variance reduction", NeurIPS 2013.
    .. [2] L. Xiao and T. Zhang, "A proximal stochastic gradient method with
       progressive variance reduction", SIAM J. Optim. 24(4), 2014, Lemma 3.
    .. [3] O. Sebbouh et al., "Towards closing the gap between the theory and practice
       of SVRG", NeurIPS 2019, for epochs that go on from the last iterate.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.acceleration import FiniteSum, svrg
    >>> X = np.random.default_rng(0).standard_normal((200, 5))
    >>> problem = FiniteSum(X, np.sign(X[:, 0]), l2=0.1)
    >>> found = svrg(problem, tol=1e-8, random_state=0)
    >>> found.success, bool(np.linalg.norm(problem.grad(found.x)) <= 1e-8)
    (True, True)
    """
    w, rng = _start(problem, w0, tol, max_passes, batch_size, random_state)
    L, sigma = problem.smoothness, problem.l2
    if step_size is None:
        b = batch_size
        root = math.sqrt(9 * L * L + L * sigma * b)
        step_size = min(1.0 / L, b / (6 * L + 2 * root))
    else:
        check_real("step_size", step_size)
    m, theta = -(-2 * problem.n // batch_size), 1 + step_size * sigma

    def epoch(state, snapshot, gradient, rows, s):
        (w,) = state
        mean = snapshot
        for i, share in zip(rows, _shares(theta, m), strict=True):
            w = (w - step_size * gradient(i, w)) / theta
            mean = mean + share * (w - mean)
        return (w,), mean

    return _epochs(problem, w, (w,), epoch, (m, batch_size), tol, max_passes, rng)


def katyusha(
    problem,
    w0=None,
    *,
    tol=1e-6,
    max_passes=100,
    batch_size=1,
    random_state=None,
):
    r"""
    Minimise a finite sum by Katyusha, accelerated variance reduction.

    With the parameters of :func:`katyusha_parameters` and :math:`\tau_3 = 1 - \tau_1
    - \tau_2`, an inner step takes the corrected gradient g of the module at x:

    .. math::
        x &= \tau_1 z_t + \tau_2 \tilde w + \tau_3 y_t, \\
        z_{t+1} &= (z_t - \alpha g) / (1 + \alpha\sigma), \\
        y_{t+1} &= x + \tau_1 (z_{t+1} - z_t) .

    The snapshot is the mean of the y with weights :math:`(1 + \alpha\sigma)^t`. With
    ``l2 = 0`` the momentum :math:`\tau_1 = 2/(s+4)` falls from epoch to epoch.

    Parameters
    ----------
    problem : FiniteSum
        The objective.
    w0 : array-like or Tensor of shape (d,), optional
        Start; zeros by default.
    tol : float, default=1e-6
        Stop at a snapshot whose gradient has at most this norm.
    max_passes : float, default=100
        Budget of component gradients in units of n.
    batch_size : int, default=1
        Rows of a step, drawn with replacement.
    random_state : int, Generator, SeedSequence, RandomState or None, default=None
        Source of the rows drawn.

    Returns
    -------
    scipy.optimize.OptimizeResult
        The fields of :func:`svrg`.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of its range or w0 has another shape.

    Notes
    -----
    An epoch costs about 3n component gradients, as in :func:`svrg`. In expectation
    :math:`O((n + \sqrt{n L / \sigma}) \log(1/\epsilon))` component gradients are
    enough, and without strong convexity :math:`O(n \sqrt{(F(w_0) - F^*)/\epsilon} +
    \sqrt{n L / \epsilon} \, \|w_0 - w^*\|)`. Batches of :math:`b \le \sqrt n` need as
    many component gradients in b times fewer steps.

    References
    ----------
    .. [1] Z. Allen-Zhu, "Katyusha: the first direct acceleration of stochastic
       gradient methods", JMLR 18(221), 2018, Algorithm 1 with Option II, Theorem 2.1,
       and Algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.acceleration import FiniteSum, katyusha
    >>> X = np.random.default_rng(0).standard_normal((200, 5))
    >>> problem = FiniteSum(X, X @ np.ones(5), loss="squares", l2=1e-4)
    >>> found = katyusha(problem, tol=1e-8, random_state=0)
    >>> H = X.T @ X / 200 + 1e-4 * np.eye(5)
    >>> bool(np.allclose(found.x, np.linalg.solve(H, X.T @ problem.y / 200)))
    True
    """
    w, rng = _start(problem, w0, tol, max_passes, batch_size, random_state)
    L, sigma = problem.smoothness, problem.l2
    m = katyusha_parameters(problem.n, L, sigma, batch_size=batch_size)[0]

    def epoch(state, snapshot, gradient, rows, s):
        y, z = state
        _, tau1, tau2, alpha = katyusha_parameters(
            problem.n, L, sigma, batch_size=batch_size, epoch=s
        )
        theta, anchor, tau3 = 1 + alpha * sigma, tau2 * snapshot, 1 - tau1 - tau2
        mean = snapshot
        for i, share in zip(rows, _shares(theta, m), strict=True):
            rest = anchor + tau3 * y
            z_new = (z - alpha * gradient(i, tau1 * z + rest)) / theta
            # x + tau1 (z_new - z), where x is tau1 z + rest
            y, z = tau1 * z_new + rest, z_new
            mean = mean + share * (y - mean)
        return (y, z), mean

    return _epochs(problem, w, (w, w), epoch, (m, batch_size), tol, max_passes, rng)


# What both methods check, and the start as an array of the problem's kind.
def _start(problem, w0, tol, max_passes, batch_size, random_state):
    if not isinstance(problem, FiniteSum):
        raise TypeError(f"problem must be a FiniteSum, got {type(problem).__name__}")
    check_real("tol", tol)
    check_real("max_passes", max_passes)
    if max_passes < 1:
        raise ValueError(f"max_passes must be at least 1, got {max_passes}")
    check_integer("batch_size", batch_size)
    if batch_size > problem.n:
        raise ValueError(
            f"batch_size must be at most n = {problem.n}, got {batch_size}"
        )
    if w0 is None:
        return 0.0 * problem.X[0], make_rng(random_state)
    w = as_float_array(w0, "w0", ndim=1)
    check_same_kind(problem.X, w, ("X", "w0"))
    if w.shape[0] != problem.dim:
        raise ValueError(f"w0 must have {problem.dim} entries, got {w.shape[0]}")
    kind = problem.X.dtype
    w = w.to(kind) if is_torch(w) else w.astype(kind)
    return w, make_rng(random_state)


# Weight theta^t over the sum of the weights so far, for t = 0, ..., m - 1.
def _shares(theta, m):
    t = np.arange(1.0, m + 1)
    if theta == 1:
        return (1 / t).tolist()
    return ((theta - 1) / theta / -np.expm1(-t * math.log(theta))).tolist()


# Epochs of a variance-reduced method: a pass at the snapshot, then inner steps.
def _epochs(problem, snapshot, state, epoch, size, tol, max_passes, rng):
    X, y, n = problem.X, problem.y, problem.n
    m, b = size
    budget, ngrad, s = max_passes * n, 0, 0
    history = {"ngrad": [], "fun": [], "grad_norm": []}
    best, status = None, 1
    while ngrad + n <= budget:
        with np.errstate(over="ignore", invalid="ignore"):
            t = X @ snapshot
            slopes, value = problem._slopes(t, y), problem._value(t, snapshot)
            full = slopes @ X / n
            jac = full + problem.l2 * snapshot
            norm = math.sqrt(float(jac @ jac))
        ngrad += n
        if not (math.isfinite(value) and math.isfinite(norm)):
            status = 2
            break
        best = snapshot, value, jac
        for name, number in zip(history, (ngrad, value, norm), strict=True):
            history[name].append(number)
        if norm <= tol:
            status = 0
            break
        if ngrad + m * b + n > budget:
            break
        rows = rng.integers(n, size=(m, b))
        if is_torch(X):
            rows = sys.modules["torch"].as_tensor(rows, device=X.device)

        def gradient(i, w, slopes=slopes, full=full):
            A = X[i]
            return (problem._slopes(A @ w, y[i]) - slopes[i]) @ A / b + full

        with np.errstate(over="ignore", invalid="ignore"):
            state, snapshot = epoch(state, snapshot, gradient, rows, s)
        ngrad, s = ngrad + m * b, s + 1
    x, value, jac = best or (snapshot, math.nan, jac)
    return OptimizeResult(
        x=x,
        fun=value,
        jac=jac,
        nit=s * m,
        nepoch=s,
        ngrad=ngrad,
        success=status == 0,
        status=status,
        message=(
            f"gradient norm at most {tol:g}",
            f"budget of {max_passes:g} passes spent, gradient norm above {tol:g}",
            "an iterate is not finite; x is the last finite snapshot",
        )[status],
        history={name: np.array(values) for name, values in history.items()},
    )
