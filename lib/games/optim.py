r"""
Optimizers for games: optimism, momentum of either sign, extrapolation, consensus.

Every player descends on its own loss (``maximize`` ascends). On the bilinear game with
singular value :math:`\sigma` the players' field has the eigenvalues
:math:`\lambda = \pm i\sigma`, and every method here is a recursion in
:math:`\eta\lambda` whose roots decide: gradient descent :math:`1 - \eta\lambda`
leaves the unit circle, the optimistic gradient

.. math:: \mu^2 - (1 - 2 \eta\lambda) \mu - \eta\lambda = 0

stays inside it as long as :math:`\eta\sigma < 1 / \sqrt 3`.
"""

import numbers
from collections.abc import Mapping, Sequence
from contextlib import contextmanager

import torch
from torch.optim import Optimizer

from lib._backend import check_choice, check_real

__all__ = [
    "OGDA",
    "ConsensusOptimizer",
    "ExtraAdam",
    "ExtraSGD",
    "MomentumSGD",
    "OptimisticAdam",
    "SignedMomentumAdam",
]


# ---- what they share ----------------------------------------------------------------


# The loss, where there is a closure to ask.
def _evaluate(closure):
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def _capturing():
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _check_momentum(name, value):
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    if not -1.0 < value < 1.0:
        raise ValueError(f"{name} must lie in (-1, 1), got {value!r}")


# A class says what a group must hold (_check), how a parameter's state begins (_start)
# and what one step does to some parameters, their gradients and states (_update).
class _GameOptimizer(Optimizer):
    def add_param_group(self, param_group):
        group = {**self.defaults, **param_group}
        check_real("weight_decay", group["weight_decay"], allow_zero=True)
        self._check(group)
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            if not p.is_floating_point():
                self.param_groups.pop()
                raise TypeError(f"params must be real floating point, got {p.dtype}")

    def _check(self, group):
        check_real("lr", group["lr"], allow_zero=True)

    def _start(self, state, grad, group):
        pass

    @torch.no_grad()
    def step(self, closure=None):
        loss = _evaluate(closure)
        for group in self.param_groups:
            for batch in self._batches(group):
                self._update(group, *batch)
        return loss

    # Yield parameters that have a gradient, with gradients of what is to be minimised
    # and states: one by one, or all that one call can update.
    def _batches(self, group):
        capturing, foreach = _capturing(), group["foreach"]
        if capturing and not group.get("capturable", True):
            raise RuntimeError("step() in a CUDA graph needs capturable=True")
        if foreach is None:
            foreach = all(p.is_cuda for p in group["params"])
        batches = {}
        for p in group["params"]:
            grad = p.grad
            if grad is None:
                continue
            if grad.layout != torch.strided:
                raise TypeError(f"gradients must be dense, got a sparse {grad.layout}")
            if group["maximize"]:
                grad = -grad
            if group["weight_decay"] != 0:
                grad = grad.add(p, alpha=group["weight_decay"])
            state = self.state[p]
            if not state:
                self._start(state, grad, group)
                if state and capturing:
                    state.clear()
                    raise RuntimeError(
                        "a CUDA graph cannot create the state of a parameter: take "
                        "one step before the capture"
                    )
            step = state.get("step")
            # one call for all that agree; a state that has just begun is shorter
            key = p.device, p.dtype, None if torch.is_tensor(step) else step, len(state)
            batches.setdefault(key if foreach else id(p), []).append((p, grad, state))
        for batch in batches.values():
            yield tuple(zip(*batch, strict=True))


# ---- the optimistic gradient --------------------------------------------------------


class OGDA(_GameOptimizer):
    r"""
    Optimistic gradient: step as if the gradient changed once more as it just did.

    With the gradients :math:`g_t` of the player's own loss,

    .. math:: w_{t+1} = w_t - \eta \bigl[(1 + o) g_t - o \, g_{t-1}\bigr],
        \qquad g_0 := g_1 .

    Parameters
    ----------
    params : iterable of Tensor, named tensor or dict
        Parameters of one player, or groups of them with their own hyper-parameters.
        Groups that differ in ``maximize`` may be the two sides of a zero-sum game.
    lr : float
        Step size eta >= 0.
    optimism : float, default=1.0
        Weight o >= 0 of the predicted change; 0 is gradient descent.
    weight_decay : float, default=0.0
        Multiple of the parameter that is added to the gradient.
    maximize : bool, default=False
        Ascend instead.
    foreach : bool or None, default=None
        Update all tensors of a group in one call; None does so on CUDA.
    capturable : bool, default=False
        Allow ``step`` in a CUDA graph, which keeps the hyper-parameters of its
        capture. The first step must be taken before.

    Raises
    ------
    TypeError
        If a parameter is not real or a hyper-parameter has a wrong type.
    ValueError
        If a hyper-parameter is out of its range.

    Notes
    -----
    The first step is one of gradient descent, and so is that of a parameter whose
    first gradient comes late. All players must take their gradients before one of
    them steps. The state is a copy of the last gradient, ``prev_grad``; nothing is
    kept by reference, so gradients may be zeroed in place.

    On a bilinear game with singular values sigma this contracts if and only if
    :math:`\eta\sigma < 1 / \sqrt 3` for the largest, and by :math:`1 / \sqrt 2` a step
    at :math:`\eta\sigma = 1/2`, which is the best.

    References
    ----------
    .. [1] L. D. Popov, "A modification of the Arrow-Hurwicz method for search of
       saddle points", Math. Notes 28, 1980.
    .. [2] C. Daskalakis, A. Ilyas, V. Syrgkanis and H. Zeng, "Training GANs with
       optimism", ICLR 2018, Section 2.

    Examples
    --------
    The game x y, in which gradient descent spirals outwards:

    >>> import torch
    >>> from lib.games import OGDA
    >>> x, y = torch.ones(2, dtype=torch.float64).split(1)
    >>> players = [{"params": [x.requires_grad_()]},
    ...            {"params": [y.requires_grad_()], "maximize": True}]
    >>> optimizer = OGDA(players, lr=0.5)
    >>> for _ in range(100):
    ...     optimizer.zero_grad()
    ...     (x * y).sum().backward()
    ...     optimizer.step()
    >>> bool(x.abs() + y.abs() < 1e-12)
    True
    """

    def __init__(
        self,
        params,
        lr,
        *,
        optimism=1.0,
        weight_decay=0.0,
        maximize=False,
        foreach=None,
        capturable=False,
    ):
        defaults = dict(
            lr=lr,
            optimism=optimism,
            weight_decay=weight_decay,
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
        )
        super().__init__(params, defaults)

    def _check(self, group):
        super()._check(group)
        check_real("optimism", group["optimism"], allow_zero=True)

    def _start(self, state, grad, group):
        state["prev_grad"] = grad.clone(memory_format=torch.preserve_format)

    def _update(self, group, params, grads, states):
        lr, optimism = group["lr"], group["optimism"]
        prev = [state["prev_grad"] for state in states]
        torch._foreach_add_(params, grads, alpha=-lr * (1.0 + optimism))
        torch._foreach_add_(params, prev, alpha=lr * optimism)
        torch._foreach_copy_(prev, grads)


class MomentumSGD(_GameOptimizer):
    r"""
    Gradient descent with momentum of either sign.

    .. math:: b_t = \beta b_{t-1} + g_t, \qquad w_{t+1} = w_t - \eta b_t,
        \qquad b_0 = 0 .

    Parameters
    ----------
    params : iterable of Tensor, named tensor or dict
        Parameters of one player, or groups of them with their own hyper-parameters.
    lr : float
        Step size eta >= 0.
    momentum : float, default=0.0
        Momentum beta in (-1, 1).
    weight_decay : float, default=0.0
        Multiple of the parameter that is added to the gradient.
    maximize : bool, default=False
        Ascend instead.
    foreach : bool or None, default=None
        Update all tensors of a group in one call; None does so on CUDA.

    Raises
    ------
    TypeError
        If a parameter is not real or a hyper-parameter has a wrong type.
    ValueError
        If a hyper-parameter is out of its range.

    Notes
    -----
    Where ``torch.optim.SGD`` accepts the momentum, that is from 0, the two agree bit
    for bit. At a constant step size it is the heavy ball
    :math:`w_{t+1} = w_t - \eta g_t + \beta (w_t - w_{t-1})`. A constant gradient moves
    the parameter by :math:`\eta / (1 - \beta)` a step: compare momenta of different
    sign at equal :math:`\eta / (1 - \beta)`.

    References
    ----------
    .. [1] G. Gidel, R. Askari Hemmat, M. Pezeshki, R. Le Priol, G. Huang, S.
       Lacoste-Julien and I. Mitliagkas, "Negative momentum for improved game
       dynamics", AISTATS 2019, equation (5).

    Examples
    --------
    The players of x y take turns; without momentum they circle:

    >>> import torch
    >>> from lib.games import MomentumSGD
    >>> x, y = (torch.ones(1, dtype=torch.float64, requires_grad=True) for _ in "xy")
    >>> players = (MomentumSGD([x], lr=0.5, momentum=-0.5),
    ...            MomentumSGD([y], lr=0.5, momentum=-0.5, maximize=True))
    >>> for _ in range(400):
    ...     for player in players:
    ...         player.zero_grad()
    ...         (x * y).sum().backward(inputs=player.param_groups[0]["params"])
    ...         player.step()
    >>> bool(x.abs() + y.abs() < 1e-6)
    True
    """

    def __init__(
        self,
        params,
        lr,
        momentum=0.0,
        *,
        weight_decay=0.0,
        maximize=False,
        foreach=None,
    ):
        defaults = dict(
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            maximize=maximize,
            foreach=foreach,
        )
        super().__init__(params, defaults)

    def _check(self, group):
        super()._check(group)
        _check_momentum("momentum", group["momentum"])

    def _start(self, state, grad, group):
        state["momentum_buffer"] = torch.zeros_like(grad)

    def _update(self, group, params, grads, states):
        buffers = [state["momentum_buffer"] for state in states]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, grads)
        torch._foreach_add_(params, buffers, alpha=-group["lr"])


# ---- the family of Adam -------------------------------------------------------------


# Bias-corrected averages: m <- m + (g - m) (1 - beta) / (1 - beta^t) is the average of
# Adam divided by its bias correction, and nothing is left to correct.
class _Averages(_GameOptimizer):
    def _check(self, group):
        super()._check(group)
        check_real("eps", group["eps"], allow_zero=True)
        betas = group["betas"]
        if not isinstance(betas, Sequence) or len(betas) != 2:
            raise TypeError(f"betas must be a pair, got {betas!r}")
        if not all(isinstance(b, numbers.Real) for b in betas):
            raise TypeError(f"betas must be two real numbers, got {betas!r}")
        if not (-1.0 < betas[0] < 1.0 and 0.0 <= betas[1] < 1.0):
            raise ValueError(f"betas must lie in (-1, 1) and [0, 1), got {betas!r}")

    def _start(self, state, grad, group):
        state["step"] = 0
        if group.get("capturable"):
            state["step"] = torch.zeros((), device=grad.device)
        state["exp_avg"] = torch.zeros_like(grad)
        state["exp_avg_sq"] = torch.zeros_like(grad)

    # Take the gradients into the averages; numerators and denominators of the step.
    def _average(self, group, grads, states):
        averages = [state["exp_avg"] for state in states]
        squares = [state["exp_avg_sq"] for state in states]
        weights = self._weights(group, states, averages[0].dtype)
        torch._foreach_lerp_(averages, grads, weights[0])
        torch._foreach_lerp_(squares, torch._foreach_mul(grads, grads), weights[1])
        roots = torch._foreach_sqrt(squares)
        torch._foreach_add_(roots, group["eps"])
        return averages, roots

    def _weights(self, group, states, dtype):
        if not group.get("capturable"):
            step = states[0]["step"] + 1
            for state in states:
                state["step"] = step
            return [(1.0 - beta) / (1.0 - beta**step) for beta in group["betas"]]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1.0)
        step = torch.stack(steps).double()
        return [
            ((1.0 - beta) / (1.0 - beta**step)).to(dtype).unbind()
            for beta in group["betas"]
        ]

    def _update(self, group, params, grads, states):
        averages, roots = self._average(group, grads, states)
        torch._foreach_addcdiv_(params, averages, roots, value=-group["lr"])


class SignedMomentumAdam(_Averages):
    r"""
    Adam with momentum of either sign.

    .. math::
        m_t = \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, \qquad
        w_{t+1} = w_t - \eta \frac{\hat m_t}{\sqrt{\hat v_t} + \varepsilon}

    with :math:`\hat m_t = m_t / (1 - \beta_1^t)` and
    :math:`\hat v_t = v_t / (1 - \beta_2^t)`.

    Parameters
    ----------
    params : iterable of Tensor, named tensor or dict
        Parameters of one player, or groups of them with their own hyper-parameters.
    lr : float, default=1e-3
        Step size eta >= 0.
    betas : tuple of float, default=(-0.5, 0.999)
        Momentum beta_1 in (-1, 1), and beta_2 in [0, 1).
    eps : float, default=1e-8
        Term in the denominator, outside of the root.
    weight_decay : float, default=0.0
        Multiple of the parameter that is added to the gradient.
    maximize : bool, default=False
        Ascend instead.
    foreach : bool or None, default=None
        Update all tensors of a group in one call; None does so on CUDA.
    capturable : bool, default=False
        Allow ``step`` in a CUDA graph, which keeps the hyper-parameters of its
        capture. The first step must be taken before.

    Raises
    ------
    TypeError
        If a parameter is not real or a hyper-parameter has a wrong type.
    ValueError
        If a hyper-parameter is out of its range.

    Notes
    -----
    With :math:`\beta_1 \ge 0` this is ``torch.optim.Adam`` up to rounding. A negative
    :math:`\beta_1` makes the bias correction oscillate: 1.5, 0.75, 1.125, ... for
    -1/2. The state holds :math:`\hat m_t` and :math:`\hat v_t`, whose recursion is
    :math:`\hat m_t = \hat m_{t-1} + w_t (g_t - \hat m_{t-1})` with
    :math:`w_t = (1 - \beta_1) / (1 - \beta_1^t)`: nothing is left to correct.

    References
    ----------
    .. [1] D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", ICLR
       2015, Algorithm 1.
    .. [2] G. Gidel, R. Askari Hemmat, M. Pezeshki, R. Le Priol, G. Huang, S.
       Lacoste-Julien and I. Mitliagkas, "Negative momentum for improved game
       dynamics", AISTATS 2019, Section 6.

    Examples
    --------
    >>> import torch
    >>> from lib.games import SignedMomentumAdam
    >>> w = torch.tensor([3.0, -2.0], requires_grad=True)
    >>> optimizer = SignedMomentumAdam([w], lr=0.1, betas=(-0.5, 0.999))
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     (w**2).sum().backward()
    ...     optimizer.step()
    >>> bool(w.abs().max() < 1e-3)
    True
    """

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(-0.5, 0.999),
        eps=1e-8,
        *,
        weight_decay=0.0,
        maximize=False,
        foreach=None,
        capturable=False,
    ):
        defaults = dict(
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
        )
        super().__init__(params, defaults)


class OptimisticAdam(_Averages):
    r"""
    Adam whose steps are taken optimistically.

    With the direction of Adam :math:`r_t = \hat m_t / (\sqrt{\hat v_t} + \varepsilon)`,

    .. math:: w_{t+1} = w_t - \eta \bigl[(1 + o) r_t - o \, r_{t-1}\bigr] .

    Parameters
    ----------
    params : iterable of Tensor, named tensor or dict
        Parameters of one player, or groups of them with their own hyper-parameters.
    lr : float, default=1e-3
        Step size eta >= 0.
    betas : tuple of float, default=(0.5, 0.999)
        Momentum beta_1 in (-1, 1), and beta_2 in [0, 1). With the default beta_1,
        common in the literature, nothing is optimistic; see the notes.
    eps : float, default=1e-8
        Term in the denominator, outside of the root.
    optimism : float, default=1.0
        Weight o >= 0 of the predicted change; 0 is Adam.
    first_step : {"zero", "repeat"}, default="zero"
        What precedes the first direction: :math:`r_0 = 0`, as in the paper, so that
        the first step has length :math:`(1 + o) \eta`, or :math:`r_0 = r_1`, as in
        optax, and it has length :math:`\eta`.
    weight_decay : float, default=0.0
        Multiple of the parameter that is added to the gradient.
    maximize : bool, default=False
        Ascend instead.
    foreach : bool or None, default=None
        Update all tensors of a group in one call; None does so on CUDA.
    capturable : bool, default=False
        Allow ``step`` in a CUDA graph, which keeps the hyper-parameters of its
        capture. The first step must be taken before.

    Raises
    ------
    TypeError
        If a parameter is not real or a hyper-parameter has a wrong type.
    ValueError
        If a hyper-parameter is out of its range.

    Notes
    -----
    **Momentum undoes optimism.** With the average
    :math:`\hat m_t = \hat m_{t-1} + w_t (g_t - \hat m_{t-1})`,
    :math:`w_t = (1 - \beta_1) / (1 - \beta_1^t)`,

    .. math:: (1 + o) \hat m_t - o \, \hat m_{t-1}
        = \hat m_{t-1} + (1 + o) w_t (g_t - \hat m_{t-1}),

    which goes beyond the last gradient if and only if :math:`(1 + o) w_t > 1`. In the
    long run that is :math:`\beta_1 < o / (1 + o)`. At :math:`\beta_1 = 1/2` and
    :math:`o = 1` it is the last gradient itself, and the method is Adam with
    :math:`\beta_1 = 0` up to the change of the denominator from step to step. For an
    optimistic method choose a smaller :math:`\beta_1`, such as 0.

    :math:`r_{t-1}` keeps the bias correction and the denominator of its own step. It
    is the state ``prev_update``; ``exp_avg`` and ``exp_avg_sq`` are already
    bias-corrected.

    References
    ----------
    .. [1] C. Daskalakis, A. Ilyas, V. Syrgkanis and H. Zeng, "Training GANs with
       optimism", ICLR 2018, Algorithm 1.

    Examples
    --------
    The game x y; with beta_1 = 1/2 the players would go round for ever:

    >>> import torch
    >>> from lib.games import OptimisticAdam
    >>> x, y = torch.ones(2, dtype=torch.float64).split(1)
    >>> players = [{"params": [x.requires_grad_()]},
    ...            {"params": [y.requires_grad_()], "maximize": True}]
    >>> optimizer = OptimisticAdam(players, lr=0.1, betas=(0.0, 0.999))
    >>> for _ in range(1000):
    ...     optimizer.zero_grad()
    ...     (x * y).sum().backward()
    ...     optimizer.step()
    >>> bool(x.abs() + y.abs() < 0.01)
    True
    """

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(0.5, 0.999),
        eps=1e-8,
        *,
        optimism=1.0,
        first_step="zero",
        weight_decay=0.0,
        maximize=False,
        foreach=None,
        capturable=False,
    ):
        defaults = dict(
            lr=lr,
            betas=betas,
            eps=eps,
            optimism=optimism,
            first_step=first_step,
            weight_decay=weight_decay,
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
        )
        super().__init__(params, defaults)

    def _check(self, group):
        super()._check(group)
        check_real("optimism", group["optimism"], allow_zero=True)
        check_choice("first_step", group["first_step"], ("zero", "repeat"))

    def _update(self, group, params, grads, states):
        lr, optimism = group["lr"], group["optimism"]
        if "prev_update" not in states[0]:
            for state, grad in zip(states, grads, strict=True):
                state["prev_update"] = torch.zeros_like(grad)
            if group["first_step"] == "repeat":
                optimism = 0.0  # (1 + o) r_1 - o r_1
        prev = [state["prev_update"] for state in states]
        torch._foreach_add_(params, prev, alpha=lr * optimism)
        averages, roots = self._average(group, grads, states)
        if len(prev) == 1:
            torch.div(averages[0], roots[0], out=prev[0])
        else:
            torch._foreach_copy_(prev, averages)
            torch._foreach_div_(prev, roots)
        torch._foreach_add_(params, prev, alpha=-lr * (1.0 + optimism))


# ---- extrapolation ------------------------------------------------------------------


# Two phases: extrapolate() moves to where the next gradient is taken, step() goes back
# and takes that gradient from the point where it all began, kept in the state "base".
class _Extrapolated(_GameOptimizer):
    @torch.no_grad()
    def extrapolate(self):
        """
        Move to the point at which the gradient of the coming step is taken.

        Raises
        ------
        RuntimeError
            If the last extrapolation was not followed by a step.
        """
        if self._is_extrapolated():
            raise RuntimeError("extrapolate() again before step()")
        for group in self.param_groups:
            for params, grads, states in self._batches(group):
                for p, state in zip(params, states, strict=True):
                    state["base"] = p.clone(memory_format=torch.preserve_format)
                self._update(group, params, grads, states)

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            loss = _evaluate(closure)
            if not self._is_extrapolated():
                self.extrapolate()
                _evaluate(closure)
        if not self._is_extrapolated():
            raise RuntimeError("step() before extrapolate(), and there is no closure")
        for group in self.param_groups:
            batches = list(self._batches(group))  # gradients of the extrapolated point
            for p in group["params"]:
                base = self.state[p].pop("base", None) if p in self.state else None
                if base is not None:
                    p.copy_(base)
            for batch in batches:
                self._update(group, *batch)
        return loss

    def _is_extrapolated(self):
        return any("base" in state for state in self.state.values())


class ExtraSGD(_Extrapolated):
    r"""
    Extragradient: look one step ahead, then step with the gradient found there.

    .. math:: w_{t+1/2} = w_t - \eta g(w_t), \qquad
        w_{t+1} = w_t - \eta g(w_{t+1/2}) .

    Parameters
    ----------
    params : iterable of Tensor, named tensor or dict
        Parameters of one player, or groups of them with their own hyper-parameters.
    lr : float
        Step size eta >= 0.
    weight_decay : float, default=0.0
        Multiple of the parameter that is added to the gradient.
    maximize : bool, default=False
        Ascend instead.
    foreach : bool or None, default=None
        Update all tensors of a group in one call; None does so on CUDA.

    Raises
    ------
    TypeError
        If a parameter is not real or a hyper-parameter has a wrong type.
    ValueError
        If a hyper-parameter is out of its range.

    Notes
    -----
    Two gradients a step. In a game, compute the gradients of all players, let all
    ``extrapolate()``, compute the gradients again, and let all ``step()``. With one
    optimizer for everything ``step(closure)`` does that: it calls the closure, which
    computes the gradients, twice, and returns its first loss. The state holds
    the point ``base`` between the two phases, nothing else.

    On a bilinear game with singular values sigma a step multiplies the distance by
    :math:`\sqrt{1 - \eta^2\sigma^2 + \eta^4\sigma^4}`, less than one if and only if
    :math:`\eta\sigma < 1`.

    References
    ----------
    .. [1] G. M. Korpelevich, "The extragradient method for finding saddle points and
       other problems", Matecon 12, 1976.
    .. [2] G. Gidel, H. Berard, G. Vignoud, P. Vincent and S. Lacoste-Julien, "A
       variational inequality perspective on generative adversarial networks", ICLR
       2019, Algorithm 2.

    Examples
    --------
    >>> import torch
    >>> from lib.games import ExtraSGD
    >>> x, y = torch.ones(2, dtype=torch.float64).split(1)
    >>> players = [{"params": [x.requires_grad_()]},
    ...            {"params": [y.requires_grad_()], "maximize": True}]
    >>> optimizer = ExtraSGD(players, lr=0.7)
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = (x * y).sum()
    ...     loss.backward()
    ...     return loss
    >>> for _ in range(200):
    ...     loss = optimizer.step(closure)
    >>> bool(x.abs() + y.abs() < 1e-12)
    True
    """

    def __init__(
        self, params, lr, *, weight_decay=0.0, maximize=False, foreach=None
    ):  # fmt: skip
        defaults = dict(
            lr=lr, weight_decay=weight_decay, maximize=maximize, foreach=foreach
        )
        super().__init__(params, defaults)

    def _update(self, group, params, grads, states):
        torch._foreach_add_(params, grads, alpha=-group["lr"])


class ExtraAdam(_Extrapolated, _Averages):
    r"""
    Extragradient with the steps of Adam.

    Both phases are a step of Adam from :math:`w_t`, and both take their gradient into
    the averages :math:`m` and :math:`v`:

    .. math:: w_{t+1/2} = w_t - \eta \, r\bigl(g(w_t)\bigr), \qquad
        w_{t+1} = w_t - \eta \, r\bigl(g(w_{t+1/2})\bigr) .

    Parameters
    ----------
    params : iterable of Tensor, named tensor or dict
        Parameters of one player, or groups of them with their own hyper-parameters.
    lr : float, default=1e-3
        Step size eta >= 0.
    betas : tuple of float, default=(0.5, 0.999)
        Momentum beta_1 in (-1, 1), and beta_2 in [0, 1).
    eps : float, default=1e-8
        Term in the denominator, outside of the root.
    weight_decay : float, default=0.0
        Multiple of the parameter that is added to the gradient.
    maximize : bool, default=False
        Ascend instead.
    foreach : bool or None, default=None
        Update all tensors of a group in one call; None does so on CUDA.

    Raises
    ------
    TypeError
        If a parameter is not real or a hyper-parameter has a wrong type.
    ValueError
        If a hyper-parameter is out of its range.

    Notes
    -----
    The phases are called as in :class:`ExtraSGD`. The t-th step makes the averages
    2t gradients old, and so goes the bias correction.

    References
    ----------
    .. [1] G. Gidel, H. Berard, G. Vignoud, P. Vincent and S. Lacoste-Julien, "A
       variational inequality perspective on generative adversarial networks", ICLR
       2019, Algorithm 4.

    Examples
    --------
    >>> import torch
    >>> from lib.games import ExtraAdam
    >>> w = torch.tensor([3.0, -2.0], requires_grad=True)
    >>> optimizer = ExtraAdam([w], lr=0.1)
    >>> for _ in range(200):
    ...     for phase in (optimizer.extrapolate, optimizer.step):
    ...         optimizer.zero_grad()
    ...         (w**2).sum().backward()
    ...         phase()
    >>> bool(w.abs().max() < 1e-3)
    True
    """

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(0.5, 0.999),
        eps=1e-8,
        *,
        weight_decay=0.0,
        maximize=False,
        foreach=None,
    ):
        defaults = dict(
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            maximize=maximize,
            foreach=foreach,
        )
        super().__init__(params, defaults)


# ---- consensus ----------------------------------------------------------------------


class ConsensusOptimizer(Optimizer):
    r"""
    Consensus optimisation: add the gradient of the field's norm to the field.

    With the field :math:`v = (\nabla_d L_d, \nabla_g L_g)` of both players and its
    Jacobian :math:`\nabla v` the gradient that both optimizers get is

    .. math:: v + \gamma \nabla \tfrac12 \|v\|^2
        = v + \gamma (\nabla v)^\top v .

    Parameters
    ----------
    optimizers : dict of Optimizer
        The players' own optimizers, ``{"d": ..., "g": ...}``. They are stepped
        together, after both gradients are known.
    gamma : float, default=10.0
        Weight gamma >= 0 of the regulariser.
    unbiased : bool, default=False
        Estimate :math:`\|v\|^2` by the product of two independent batches' fields.
        The closure is then called twice a step and must draw its batch anew; the
        field is the mean of the two.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If the optimizers are not those of "d" and "g", share a parameter, or gamma is
        out of its range.

    Notes
    -----
    ``step(closure)`` needs a closure that returns both losses, in the order (d, g),
    and **calls no backward**: it returns them detached. The regulariser runs
    through every path from one player's loss to the other's parameters, so the
    generated samples must not be detached in the discriminator's loss, and no module
    may work in place. A generator's output that both losses share is computed once.
    Gradients that were stored in the parameters are overwritten.

    The norm of a minibatch's field is biased,
    :math:`\mathbb E \tfrac12 \|v_B\|^2 = \tfrac12 \|v\|^2 + \tfrac12
    \operatorname{tr} \operatorname{Cov} v_B`. Preconditioning (RMSProp, Adam) comes
    after the addition. A large gamma also makes unstable fixed points attractive. One
    step costs about three gradients in time, and the graph of both losses in memory.

    ``param_groups`` lists the groups of the two optimizers, so a scheduler may be
    given the whole. ``state_dict`` holds theirs and the hyper-parameters.

    References
    ----------
    .. [1] L. Mescheder, S. Nowozin and A. Geiger, "The numerics of GANs", NeurIPS
       2017, Algorithm 2.

    Examples
    --------
    The game x y, in which gradient descent spirals outwards:

    >>> import torch
    >>> from lib.games import ConsensusOptimizer
    >>> x, y = torch.ones(2, dtype=torch.float64).split(1)
    >>> players = {"d": torch.optim.SGD([x.requires_grad_()], lr=0.5),
    ...            "g": torch.optim.SGD([y.requires_grad_()], lr=0.5)}
    >>> optimizer = ConsensusOptimizer(players, gamma=1.0)
    >>> for _ in range(100):
    ...     losses = optimizer.step(lambda: ((x * y).sum(), -(x * y).sum()))
    >>> bool(x.abs() + y.abs() < 1e-12)
    True
    """

    def __init__(self, optimizers, gamma=10.0, *, unbiased=False):
        if not isinstance(optimizers, Mapping) or not all(
            isinstance(o, Optimizer) for o in optimizers.values()
        ):
            raise TypeError(
                f"optimizers must be a dict of torch optimizers, got {optimizers!r}"
            )
        if set(optimizers) != {"d", "g"}:
            raise ValueError(
                f"optimizers must have the keys 'd' and 'g', got {list(optimizers)}"
            )
        check_real("gamma", gamma, allow_zero=True)
        if not isinstance(unbiased, bool):
            raise TypeError(f"unbiased must be True or False, got {unbiased!r}")
        self.optimizers = {player: optimizers[player] for player in ("d", "g")}
        self.gamma, self.unbiased = gamma, unbiased
        super().__init__(self._groups(), {})

    def _groups(self):
        return [g for o in self.optimizers.values() for g in o.param_groups]

    def add_param_group(self, param_group):
        """
        Refuse a group whose player is not known.

        Parameters
        ----------
        param_group : dict
            A group of one of the two optimizers.

        Raises
        ------
        ValueError
            If it is another group: give that to the optimizer of its player.
        """
        if not any(param_group is group for group in self._groups()):
            raise ValueError(
                "param_group must be given to the optimizer of its player, "
                "optimizers['d'] or optimizers['g']"
            )
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure):
        if not callable(closure):
            raise TypeError(
                f"closure must return the losses of d and g, got {closure!r}"
            )
        players = [
            [p for group in o.param_groups for p in group["params"] if p.requires_grad]
            for o in self.optimizers.values()
        ]
        with torch.enable_grad():
            losses, field = self._field(closure, players)
            other = self._field(closure, players)[1] if self.unbiased else field
            pull = self._pull(field, other, players[0] + players[1])
        if self.unbiased:
            field = [_add(u, v, 0.5, 0.5) for u, v in zip(field, other, strict=True)]
        both = zip(field, pull, strict=True)
        gradient = dict(zip(players[0] + players[1], both, strict=True))
        for group in self._groups():
            # an ascending optimizer turns the sum round, but the pull is to descend
            sign = -1.0 if group.get("maximize") else 1.0
            for p in group["params"]:
                if p in gradient:
                    p.grad = _add(*gradient[p], 1.0, sign * self.gamma)
        for optimizer in self.optimizers.values():
            optimizer.step()
        return losses

    # The losses, and each player's gradient of its own with a graph behind it.
    def _field(self, closure, players):
        losses = closure()
        if not isinstance(losses, Sequence) or len(losses) != 2:
            raise TypeError(f"closure must return the losses (d, g), got {losses!r}")
        for loss in losses:
            if not torch.is_tensor(loss) or not loss.requires_grad:
                raise RuntimeError(
                    "closure must return losses with the graph that they were computed "
                    f"by, got {loss!r}"
                )
        field = []
        with _explained():
            for loss, params in zip(losses, players, strict=True):
                field += torch.autograd.grad(
                    loss, params, create_graph=True, allow_unused=True
                )
        return tuple(loss.detach() for loss in losses), field

    # The gradient of half the product of two fields.
    def _pull(self, field, other, params):
        products = [
            (u * v).sum()
            for u, v in zip(field, other, strict=True)
            if u is not None and v is not None and (u.requires_grad or v.requires_grad)
        ]
        if self.gamma == 0 or not products:  # no weight, or a constant field
            return [None] * len(params)
        with _explained():
            return torch.autograd.grad(sum(products) / 2, params, allow_unused=True)

    def state_dict(self):
        """
        Give the states of both optimizers and the hyper-parameters.

        Returns
        -------
        dict
            Keys "d", "g", "gamma" and "unbiased".
        """
        states = {player: o.state_dict() for player, o in self.optimizers.items()}
        return {**states, "gamma": self.gamma, "unbiased": self.unbiased}

    def load_state_dict(self, state_dict):
        """
        Load what `state_dict` gave.

        Parameters
        ----------
        state_dict : dict
            The states of both optimizers and the hyper-parameters.
        """
        for player, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state_dict[player])
        self.gamma, self.unbiased = state_dict["gamma"], state_dict["unbiased"]
        self.param_groups = self._groups()

    def __getstate__(self):
        own = ("optimizers", "gamma", "unbiased")
        return super().__getstate__() | {name: getattr(self, name) for name in own}


@contextmanager
def _explained():
    try:
        yield
    except RuntimeError as error:
        error.add_note(
            "ConsensusOptimizer differentiates twice: the closure must return the "
            "losses (d, g) without calling backward, and nothing may work in place"
        )
        raise


# a u + b v, where None is zero; None if both are.
def _add(u, v, a, b):
    if u is None or v is None:
        u, a = (v, b) if u is None else (u, a)
        return None if u is None else a * u.detach()
    return torch.add(a * u.detach(), v.detach(), alpha=b)
