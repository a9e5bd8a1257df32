r"""
Momentum: Polyak's heavy ball, Nesterov's constant scheme, and a perturbed variant.

On a quadratic, one direction of curvature :math:`\lambda` makes the heavy ball the
linear map

.. math::
    \begin{bmatrix} w_{t+1} \\ w_t \end{bmatrix} =
    \begin{bmatrix} 1 + \beta - \eta\lambda & -\beta \\ 1 & 0 \end{bmatrix}
    \begin{bmatrix} w_t \\ w_{t-1} \end{bmatrix},

whose spectral radius is exactly :math:`\sqrt\beta` as long as
:math:`(1 - \sqrt\beta)^2 \le \eta\lambda \le (1 + \sqrt\beta)^2`.
"""

import math

import numpy as np
import torch
from torch.optim import Optimizer

from lib._backend import (
    as_float_array,
    check_choice,
    check_integer,
    check_real,
    to_numpy,
)

__all__ = [
    "HeavyBall",
    "NesterovConst",
    "PerturbedAGD",
    "heavy_ball_rate",
    "polyak_parameters",
]


def polyak_parameters(lmin, lmax, rule="wang"):
    r"""
    Choose step size and momentum of the heavy ball from the range of the curvature.

    With :math:`\kappa = \lambda_{\max} / \lambda_{\min}`,

    .. math::
        \text{wang:}\quad \eta &= \frac{1}{\lambda_{\max}}, &
        \beta &= \Bigl(1 - \frac{1}{2\sqrt\kappa}\Bigr)^2, \\
        \text{optimal:}\quad
        \eta &= \frac{4}{(\sqrt{\lambda_{\max}} + \sqrt{\lambda_{\min}})^2}, &
        \beta &= \Bigl(\frac{\sqrt\kappa - 1}{\sqrt\kappa + 1}\Bigr)^2,

    and in both cases the rate on a quadratic is :math:`\sqrt\beta`.

    Parameters
    ----------
    lmin, lmax : float
        Smallest and largest curvature, ``0 < lmin <= lmax``.
    rule : {"wang", "optimal"}, default="wang"
        Wang, Lin and Abernethy's choice, or Polyak's, which is the fastest on a
        quadratic whose curvature fills the range.

    Returns
    -------
    lr : float
        Step size.
    beta : float
        Momentum.
    rate : float
        Factor by which the error shrinks in a step, in the long run.

    Raises
    ------
    TypeError
        If a bound is not a real number.
    ValueError
        If they are not ``0 < lmin <= lmax``, or the rule is unknown.

    Notes
    -----
    Constant time. The optimal rule leaves no margin: both ends of the range sit where
    the two roots of the characteristic polynomial meet. Off a quadratic it may even
    cycle.

    References
    ----------
    .. [1] J.-K. Wang, C.-H. Lin and J. Abernethy, "A modular analysis of provable
       acceleration via Polyak's momentum", ICML 2021, the theorems on both networks.
    .. [2] B. T. Polyak, "Some methods of speeding up the convergence of iteration
       methods", USSR Comput. Math. Math. Phys. 4(5), 1964.

    Examples
    --------
    >>> from lib.acceleration import polyak_parameters
    >>> polyak_parameters(1.0, 100.0)
    (0.01, 0.9025, 0.95)
    >>> [round(v, 3) for v in polyak_parameters(1.0, 100.0, rule="optimal")]
    [0.033, 0.669, 0.818]
    """
    check_real("lmin", lmin)
    check_real("lmax", lmax)
    check_choice("rule", rule, ("wang", "optimal"))
    if lmin > lmax:
        raise ValueError(f"lmin must be at most lmax, got lmin={lmin}, lmax={lmax}")
    low, high = math.sqrt(lmin), math.sqrt(lmax)
    if rule == "wang":
        lr, root = 1.0 / lmax, 1.0 - low / (2.0 * high)
    else:
        lr, root = 4.0 / (high + low) ** 2, (high - low) / (high + low)
    return lr, root**2, root


def heavy_ball_rate(lr, momentum, eigenvalues):
    r"""
    Give the rate of the heavy ball on a quadratic: the largest spectral radius.

    A curvature :math:`\lambda` has the roots of
    :math:`z^2 - (1 + \beta - \eta\lambda) z + \beta`, of modulus

    .. math::
        \rho(\lambda) = \begin{cases}
        \sqrt\beta & (1 - \sqrt\beta)^2 \le \eta\lambda \le (1 + \sqrt\beta)^2, \\
        \tfrac12 \bigl(|b| + \sqrt{b^2 - 4\beta}\bigr),
        \quad b = 1 + \beta - \eta\lambda & \text{otherwise.} \end{cases}

    Without momentum this is :math:`|1 - \eta\lambda|`.

    Parameters
    ----------
    lr : float
        Step size, >= 0.
    momentum : float
        Momentum in [0, 1).
    eigenvalues : float, ndarray or Tensor
        Curvatures, >= 0.

    Returns
    -------
    float
        The largest modulus; below one the iteration converges.

    Raises
    ------
    TypeError
        If a number is not real.
    ValueError
        If a number is out of its range, or there are no eigenvalues.

    Notes
    -----
    Linear time in the number of eigenvalues.

    References
    ----------
    .. [1] J.-K. Wang, C.-H. Lin and J. Abernethy, "A modular analysis of provable
       acceleration via Polyak's momentum", ICML 2021, the dynamics of residuals.

    Examples
    --------
    >>> from lib.acceleration import heavy_ball_rate
    >>> heavy_ball_rate(0.01, 0.9025, [1.0, 30.0, 100.0])
    0.95
    >>> heavy_ball_rate(0.01, 0.0, [1.0, 30.0, 100.0])
    0.99
    """
    check_real("lr", lr, allow_zero=True)
    _check_momentum(momentum)
    values = as_float_array(eigenvalues, "eigenvalues", ndim=range(33))
    step = lr * to_numpy(values).astype(np.float64).ravel()
    if not step.size or step.min() < 0:
        raise ValueError(f"eigenvalues must be >= 0, one at least, got {eigenvalues!r}")
    root = math.sqrt(momentum)
    # b^2 - 4 beta in factors: it vanishes at the ends of the complex range
    gap = ((1.0 - root) ** 2 - step) * ((1.0 + root) ** 2 - step)
    real = (np.abs(1.0 + momentum - step) + np.sqrt(np.maximum(gap, 0.0))) / 2.0
    return float(np.where(gap > 0.0, real, root).max())


# Every group is checked as it is added, those of the constructor included.
class _Checked(Optimizer):
    def add_param_group(self, param_group):
        self._check({**self.defaults, **param_group})
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            if p.is_complex():
                self.param_groups.pop()
                raise TypeError(
                    f"params must be real, got {p.dtype}; use torch.view_as_real"
                )


# One step of all groups: v <- momentum v - lr g, then w <- w + v, or with a look
# ahead w <- w - lr g + momentum v.
class _Momentum(_Checked):
    @torch.no_grad()
    def step(self, closure=None):
        loss = _evaluate(closure)
        for group in self.param_groups:
            params, grads, velocities = _gather(self, group)
            lr = -group["lr"] if group["maximize"] else group["lr"]
            momentum, foreach = self._momentum(group), group["foreach"]
            ahead = momentum if self._lookahead else 1.0
            if foreach is None:
                foreach = all(p.is_cuda for p in params)
            if foreach and params:
                torch._foreach_mul_(velocities, momentum)
                torch._foreach_add_(velocities, grads, alpha=-lr)
                if self._lookahead:
                    torch._foreach_add_(params, grads, alpha=-lr)
                torch._foreach_add_(params, velocities, alpha=ahead)
                continue
            for p, g, v in zip(params, grads, velocities, strict=True):
                v.mul_(momentum).add_(g, alpha=-lr)
                if self._lookahead:
                    p.add_(g, alpha=-lr)
                p.add_(v, alpha=ahead)
        return loss


class HeavyBall(_Momentum):
    r"""
    Gradient descent with Polyak's momentum.

    .. math:: w_{t+1} = w_t - \eta \nabla f(w_t) + \beta (w_t - w_{t-1}),
        \qquad w_{-1} = w_0 .

    Parameters
    ----------
    params : iterable of Tensor, named tensor or dict
        Parameters, or groups of them with their own hyper-parameters.
    lr : float
        Step size eta >= 0.
    momentum : float
        Momentum beta in [0, 1); 0 is gradient descent.
    maximize : bool, default=False
        Ascend instead.
    foreach : bool or None, default=None
        Update all tensors of a group in one call; None does so on CUDA.

    Raises
    ------
    TypeError
        If a parameter is complex or a hyper-parameter has a wrong type.
    ValueError
        If a hyper-parameter is out of its range.

    Notes
    -----
    The state holds one tensor a parameter, ``velocity``:
    :math:`w_{t+1} - w_t`. At a constant step size this is ``torch.optim.SGD`` with
    ``momentum``, whose buffer is :math:`-velocity / \eta`. When a scheduler changes
    the step size the two part: SGD rescales the momentum it has, the heavy ball
    keeps its steps as they were made. (The default of SGD is no momentum.)

    References
    ----------
    .. [1] B. T. Polyak, "Some methods of speeding up the convergence of iteration
       methods", USSR Comput. Math. Math. Phys. 4(5), 1964.
    .. [2] J.-K. Wang, C.-H. Lin and J. Abernethy, "A modular analysis of provable
       acceleration via Polyak's momentum", ICML 2021, Algorithm 1.

    Examples
    --------
    >>> import torch
    >>> from lib.acceleration import HeavyBall, polyak_parameters
    >>> curvature = torch.tensor([1.0, 100.0], dtype=torch.float64)
    >>> w = torch.ones(2, dtype=torch.float64, requires_grad=True)
    >>> lr, beta, rate = polyak_parameters(1.0, 100.0)
    >>> optimizer = HeavyBall([w], lr, beta)
    >>> for _ in range(400):
    ...     optimizer.zero_grad()
    ...     (curvature * w**2 / 2).sum().backward()
    ...     optimizer.step()
    >>> bool(w.abs().max() < 1e-7)
    True
    """

    def __init__(self, params, lr, momentum, *, maximize=False, foreach=None):
        defaults = dict(lr=lr, momentum=momentum, maximize=maximize, foreach=foreach)
        super().__init__(params, defaults)

    _lookahead = False

    def _check(self, group):
        check_real("lr", group["lr"], allow_zero=True)
        _check_momentum(group["momentum"])

    def _momentum(self, group):
        return group["momentum"]


class NesterovConst(_Momentum):
    r"""
    Nesterov's accelerated gradient with constant momentum.

    With :math:`\theta = (\sqrt\kappa - 1) / (\sqrt\kappa + 1)`,

    .. math::
        y_{j+1} = z_j - \eta \nabla f(z_j), \qquad
        z_{j+1} = y_{j+1} + \theta (y_{j+1} - y_j), \qquad y_0 = z_0 .

    Parameters
    ----------
    params : iterable of Tensor, named tensor or dict
        Parameters, or groups of them with their own hyper-parameters. They hold
        :math:`z_j`, where the gradient is taken.
    lr : float
        Step size eta >= 0, 1 / L1 in theory.
    kappa : float
        Condition number L1 / sigma >= 1; 1 is gradient descent.
    maximize : bool, default=False
        Ascend instead.
    foreach : bool or None, default=None
        Update all tensors of a group in one call; None does so on CUDA.

    Raises
    ------
    TypeError
        If a parameter is complex or a hyper-parameter has a wrong type.
    ValueError
        If a hyper-parameter is out of its range.

    Notes
    -----
    The state holds one tensor a parameter, ``velocity``: :math:`y_j - y_{j-1}`. The
    other sequence, which the theory bounds, is
    :math:`y_j = z_j - \theta \cdot velocity`. At a constant step size this is
    ``torch.optim.SGD`` with ``nesterov=True`` and momentum :math:`\theta`.

    References
    ----------
    .. [1] Y. Nesterov, "Introductory lectures on convex optimization", 2004,
       scheme (2.2.11).
    .. [2] Y. Carmon, J. C. Duchi, O. Hinder and A. Sidford, "Accelerated methods for
       nonconvex optimization", SIAM J. Optim. 28(2), 2018, Algorithm 2.

    Examples
    --------
    >>> import torch
    >>> from lib.acceleration import NesterovConst
    >>> curvature = torch.tensor([1.0, 100.0], dtype=torch.float64)
    >>> z = torch.ones(2, dtype=torch.float64, requires_grad=True)
    >>> optimizer = NesterovConst([z], lr=0.01, kappa=100.0)
    >>> for _ in range(400):
    ...     optimizer.zero_grad()
    ...     (curvature * z**2 / 2).sum().backward()
    ...     optimizer.step()
    >>> bool(z.abs().max() < 1e-7)
    True
    """

    def __init__(self, params, lr, kappa, *, maximize=False, foreach=None):
        defaults = dict(lr=lr, kappa=kappa, maximize=maximize, foreach=foreach)
        super().__init__(params, defaults)

    _lookahead = True

    def _check(self, group):
        check_real("lr", group["lr"], allow_zero=True)
        check_real("kappa", group["kappa"])
        if group["kappa"] < 1:
            raise ValueError(f"kappa must be at least 1, got {group['kappa']!r}")

    def _momentum(self, group):
        root = math.sqrt(group["kappa"])
        return (root - 1.0) / (root + 1.0)


class PerturbedAGD(_Checked):
    r"""
    Accelerated gradient descent that leaves saddle points.

    With :math:`L_1 = 1 / (4 \eta)` and :math:`\kappa = L_1 / \sqrt{L_2 \varepsilon}`,
    :math:`\theta = 1 / (4 \sqrt\kappa)`, :math:`\gamma = \theta^2 / \eta` and
    :math:`s = \gamma / (4 L_2)`, a step is

    .. math::
        y = x_t + (1 - \theta) v_t, \qquad x_{t+1} = y - \eta \nabla f(y), \qquad
        v_{t+1} = x_{t+1} - x_t ,

    with two exceptions. Where :math:`\|\nabla f(x_t)\| \le \varepsilon` and the last
    perturbation is more than ``interval`` steps old, :math:`x_t` first moves to a
    uniformly random point of the ball of that radius around it. And where f is too
    far from convex between the two points,

    .. math:: f(x_t) \le f(y) + \nabla f(y)^\top (x_t - y)
        - \tfrac\gamma2 \|x_t - y\|^2 ,

    the momentum is reset: :math:`x_{t+1}` is :math:`x_t` if :math:`\|v_t\| \ge s`, and
    else the better of :math:`x_t \pm s v_t / \|v_t\|`.

    Parameters
    ----------
    params : iterable of Tensor
        Parameters, one group of them: norms are over all parameters together.
    lr : float
        Step size eta = 1 / (4 L1) > 0.
    L2 : float
        Lipschitz constant of the Hessian.
    tol : float
        Gradient norm at which the point is perturbed, at most L1^2 / L2.
    radius : float, optional
        Radius of the perturbation; by default ``lr * tol``. The paper's is that
        times chi^-5 c^-8 with chi = max(1, log(d L1 Delta / (L2 tol delta))) and a
        constant c that it leaves open.
    interval : int, optional
        Fewest steps between two perturbations; by default the square root of kappa,
        rounded up. The paper's is that times chi c.
    generator : torch.Generator, optional
        One number is drawn from it, at construction, as the seed of all
        perturbations; None takes fresh entropy.

    Raises
    ------
    TypeError
        If a parameter is complex or a hyper-parameter has a wrong type.
    ValueError
        If a hyper-parameter is out of its range or there is more than one group.

    Notes
    -----
    ``step`` needs a closure and calls it twice: at :math:`x_t` and at :math:`y`. After
    a perturbation it is called once more, for a reset with a short velocity twice
    more. Three copies of the parameters in memory. At :math:`v_t = 0` the test above
    compares f with itself and always holds; it is skipped there. Perturbations are
    drawn on the CPU in float64, so every device has the same ones; seed and count
    are part of the state, and a resumed run draws what an unbroken one would.

    References
    ----------
    .. [1] C. Jin, P. Netrapalli and M. I. Jordan, "Accelerated gradient descent
       escapes saddle points faster than gradient descent", COLT 2018, Algorithms 2
       and 3, equation (3).

    Examples
    --------
    >>> import torch
    >>> from lib.acceleration import PerturbedAGD
    >>> x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    >>> generator = torch.Generator().manual_seed(0)
    >>> optimizer = PerturbedAGD([x], lr=0.05, L2=6.0, tol=1e-2, generator=generator)
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = x[0] ** 2 + (x[1] ** 2 - 1) ** 2 / 4
    ...     loss.backward()
    ...     return loss
    >>> for _ in range(200):
    ...     loss = optimizer.step(closure)
    >>> bool(loss < 1e-3)  # the start was a saddle of height 1/4
    True
    """

    def __init__(
        self, params, lr, L2, tol, *, radius=None, interval=None, generator=None
    ):
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"generator must be a torch.Generator, got {generator!r}")
        defaults = dict(lr=lr, L2=L2, tol=tol, radius=radius, interval=interval)
        super().__init__(params, defaults)
        if generator is None:
            seed = torch.Generator().seed() % 2**62
        else:
            device = generator.device
            seed = torch.randint(2**62, (1,), generator=generator, device=device).item()
        self.param_groups[0]["seed"] = seed

    def _check(self, group):
        if self.param_groups:
            raise ValueError("params must be one group: norms are over all parameters")
        for name in ("lr", "L2", "tol"):
            check_real(name, group[name])
        most = 1.0 / (16.0 * group["lr"] ** 2 * group["L2"])
        if group["tol"] > most:
            raise ValueError(
                f"tol must be at most L1**2 / L2 = {most:g}, got {group['tol']!r}"
            )
        if group["radius"] is not None:
            check_real("radius", group["radius"])
        if group["interval"] is not None:
            check_integer("interval", group["interval"], minimum=0)

    @torch.no_grad()
    def step(self, closure):
        """
        Make one step.

        Parameters
        ----------
        closure : callable
            Computes the loss and its gradients anew and returns the loss.

        Returns
        -------
        Tensor
            The loss at the parameters before the step.

        Raises
        ------
        TypeError
            If there is no closure or a gradient is sparse.
        """
        if closure is None:
            raise TypeError("closure must be given: a step asks it at two points")
        group = self.param_groups[0]
        theta = 1.0 / (4.0 * math.sqrt(_kappa(group)))
        gamma = theta**2 / group["lr"]
        loss = _evaluate(closure)
        value = float(loss)
        params, grads, velocities = _gather(self, group)
        if self._perturb(group, params, grads):
            value = float(_evaluate(closure))
        start = [p.clone() for p in params]
        for p, v in zip(params, velocities, strict=True):
            p.add_(v, alpha=1.0 - theta)
        ahead = float(_evaluate(closure))
        grads = _gather(self, group)[1]
        speed = _norm(velocities)
        pairs = zip(grads, velocities, strict=True)
        linear = ahead - (1.0 - theta) * sum(float((g * v).sum()) for g, v in pairs)
        if speed > 0 and value <= linear - gamma / 2 * ((1.0 - theta) * speed) ** 2:
            reach = gamma / (4.0 * group["L2"])
            self._reset(closure, params, start, velocities, speed, reach)
            return loss
        for p, x, g, v in zip(params, start, grads, velocities, strict=True):
            v.mul_(1.0 - theta).add_(g, alpha=-group["lr"])
            p.copy_(x).add_(v)
        return loss

    # Moves to a random point of the ball, if it is time; tells whether it did.
    def _perturb(self, group, params, grads):
        count = self.state[group["params"][0]]
        wait, draws = count.get("wait", 0), count.get("draws", 0)
        due = wait <= 0 and bool(params) and _norm(grads) <= group["tol"]
        interval, radius = group["interval"], group["radius"]
        if interval is None:
            interval = math.ceil(math.sqrt(_kappa(group)))
        count["wait"] = interval if due else wait - 1
        count["draws"] = draws + due
        if not due:
            return False
        rng = torch.Generator().manual_seed((group["seed"] + draws) % 2**63)
        size = sum(p.numel() for p in params)
        noise = torch.randn(size, generator=rng, dtype=torch.float64)
        length = torch.rand(1, generator=rng, dtype=torch.float64) ** (1.0 / size)
        if radius is None:
            radius = group["lr"] * group["tol"]
        noise *= radius * length / noise.norm()
        for p in params:
            part, noise = noise[: p.numel()], noise[p.numel() :]
            p.add_(part.view(p.shape).to(p))
        return True

    # Negative-curvature exploitation: back to the start, or the better of two points.
    def _reset(self, closure, params, start, velocities, speed, reach):
        sign = 0.0
        if speed < reach:
            values = {}
            for sign in (1.0, -1.0):
                for p, x, v in zip(params, start, velocities, strict=True):
                    p.copy_(x).add_(v, alpha=sign * reach / speed)
                values[sign] = float(_evaluate(closure))
            sign = min(values, key=values.get)
        for p, x, v in zip(params, start, velocities, strict=True):
            p.copy_(x).add_(v, alpha=sign * reach / speed)
            v.zero_()


def _check_momentum(value):
    check_real("momentum", value, allow_zero=True)
    if value >= 1:
        raise ValueError(f"momentum must lie in [0, 1), got {value!r}")


def _kappa(group):
    return 1.0 / (4.0 * group["lr"] * math.sqrt(group["L2"] * group["tol"]))


def _norm(tensors):
    return math.sqrt(sum(float(t.square().sum()) for t in tensors))


# The loss, where there is a closure to ask.
def _evaluate(closure):
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


# Parameters of a group that have a gradient, with their gradients and velocities.
def _gather(optimizer, group):
    params = [p for p in group["params"] if p.grad is not None]
    velocities = []
    for p in params:
        if p.grad.layout != torch.strided:
            raise TypeError(
                f"gradients must be dense, got one of layout {p.grad.layout}; "
                "a velocity is dense whatever the gradient is"
            )
        state = optimizer.state[p]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(p)
        velocities.append(state["velocity"])
    return params, [p.grad for p in params], velocities
