r"""
One front door for the methods that look for stationary points.

A point is a second-order stationary point to the accuracies :math:`\varepsilon` and
:math:`\alpha` when

.. math::
    \|\nabla f(x)\| \le \varepsilon, \qquad \lambda_{\min}(\nabla^2 f(x)) \ge -\alpha .
"""

import importlib
import math
import warnings
from dataclasses import dataclass

import numpy as np
from scipy.optimize import OptimizeResult

from lib._backend import check_choice, check_integer, check_real, make_rng
from lib.acceleration.curvature import check_probability
from lib.acceleration.oracle import (
    BUDGET,
    CONVERGED,
    NONFINITE,
    STALLED,
    Oracle,
    _Stop,
)

__all__ = ["METHODS", "minimize_nonconvex"]


@dataclass(frozen=True)
class _Method:
    module: str  # of lib.acceleration, where the function of this name stands
    needs: tuple = ()  # constants without which it cannot run
    second_order: bool = False  # whether it looks at the curvature before it stops


# Modules are imported when a method is used.
_TABLE = {
    "gd": _Method("gradient", ("L1",)),
    "agd": _Method("gradient", ("L1",)),
    "prox-agd": _Method("gradient", ("L1",)),
    "nag-restart": _Method("gradient"),
    "restarted-agd": _Method("gradient"),
    "anc": _Method("almost_convex", ("L1", "L2", "Delta"), True),
    "anc-adaptive": _Method("almost_convex", (), True),
    "cubic-newton": _Method("cubic", ("L2",), True),
    "arc": _Method("cubic", (), True),
    "pagd": _Method("escape", ("L1", "L2"), True),
    "lbfgs-nc": _Method("escape", (), True),
}

#: Names of the methods.
METHODS = tuple(_TABLE)

CONSTANTS = ("paper", "tight")


# Everything a method may ask for besides the oracle; L1, L2 and Delta may be None.
@dataclass(frozen=True)
class _Options:
    tol: float
    L1: float | None
    L2: float | None
    Delta: float | None
    alpha: float
    alpha_given: bool
    delta: float
    constants: str
    rng: np.random.Generator


def minimize_nonconvex(
    fun,
    x0,
    *,
    jac=None,
    hessp=None,
    hess=None,
    method="anc",
    tol=1e-5,
    L1=None,
    L2=None,
    Delta=None,
    alpha=None,
    delta=0.01,
    constants="paper",
    max_oracle=10**6,
    callback=None,
    seed=0,
):
    r"""
    Look for a stationary point of a smooth function that need not be convex.

    .. math::
        \|\nabla f(x)\| \le tol, \qquad \lambda_{\min}(\nabla^2 f(x)) \ge -\alpha,

    the second by the methods that look at curvature.

    Parameters
    ----------
    fun : callable
        Objective, ``fun(x) -> float``; with ``jac=True``, ``fun(x) -> (float,
        gradient)``.
    x0 : ndarray or Tensor, any shape
        Start, float32 or float64; the user's functions get and return this shape.
    jac : callable, True or None, default=None
        Gradient. With tensors, None lets torch differentiate ``fun``.
    hessp : callable, optional
        Product ``hessp(x, v)`` of the Hessian with a vector. Without it the product
        comes from ``hess``, from a second backward pass of torch (``jac=None``), or
        from a difference of two gradients.
    hess : callable, optional
        Hessian.
    method : str, default="anc"
        A key of `METHODS`.

        - "gd", "agd", "prox-agd": gradient descent; Nesterov's method for convex
          functions; proximal steps solved by Nesterov's method. They need ``L1``.
        - "nag-restart", "restarted-agd": momentum with restarts, no constants.
        - "anc", "anc-adaptive": negative curvature and almost convex steps in turn;
          the first needs ``L1``, ``L2`` and ``Delta``, the second no constant.
        - "cubic-newton", "arc": cubic regularisation; the first needs ``L2``.
        - "pagd", "lbfgs-nc": perturbed accelerated descent (needs ``L1`` and
          ``L2``); L-BFGS that examines the curvature where it stops.
    tol : float, default=1e-5
        Accuracy of the gradient.
    L1 : float, optional
        Lipschitz constant of the gradient.
    L2 : float, optional
        Lipschitz constant of the Hessian.
    Delta : float, optional
        Upper bound on ``f(x0) - inf f``.
    alpha : float, optional
        Accuracy of the curvature. None takes ``min(L1, max(tol**2 / Delta, sqrt(tol
        * L2)))`` of the constants that are given, with 1 for an unknown ``L2``.
    delta : float, default=0.01
        Probability with which a certificate may be wrong.
    constants : {"paper", "tight"}, default="paper"
        For "anc": the penalised function counts as 3 alpha-almost convex and 5
        L1-smooth, as in the paper, or as 2 alpha and 3 L1, which is what it is.
    max_oracle : int, default=10**6
        Most gradients and Hessian-vector products together.
    callback : callable, optional
        ``callback(x)`` after each iteration; ``StopIteration`` ends the run.
    seed : int, Generator, SeedSequence, RandomState or None, default=0
        Source of randomness.

    Returns
    -------
    OptimizeResult
        With ``x``, ``fun``, ``jac``; ``nit``, ``nfev``, ``njev``, ``nhevp``,
        ``nhev``; ``success``, ``status``, ``message``; ``lambda_min``, the smallest
        eigenvalue as far as the method knows it, else NaN; ``certificate``: "none",
        "first-order", "second-order", or "second-order (heuristic)" where it rests
        on estimated constants; and ``history``, a dict of arrays ``oracle``,
        ``fun``, ``grad_norm`` and ``event``, with NaN where nothing was evaluated.
        Statuses: 0 converged, 1 budget spent, 2 no progress, 3 NaN or infinity, 4
        stopped by ``callback``.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of its range, a constant that the method needs is
        missing, or ``fun`` or its gradient is not finite at ``x0``.

    Warns
    -----
    RuntimeWarning
        If the budget is spent.

    Notes
    -----
    A gradient and a product with the Hessian are one oracle call each; what a step
    costs beyond them is O(d), but O(d^3) for "cubic-newton" and O(k^2 d + k^3) for
    "arc" and for a certificate that takes k products. "lbfgs-nc" remembers 200
    vectors.
    With first-order methods success means a small gradient, at a saddle too.

    References
    ----------
    .. [1] Y. Carmon, J. C. Duchi, O. Hinder and A. Sidford, "Accelerated methods for
       nonconvex optimization", SIAM J. Optim. 28(2), 2018.

    Examples
    --------
    A saddle at the start does not hold the method:

    >>> import numpy as np
    >>> from lib.acceleration import minimize_nonconvex
    >>> def fun(x):
    ...     return x[0] ** 2 / 2 - np.cos(x[1]) + np.cos(2 * x[1]) / 2
    >>> def jac(x):
    ...     return np.array([x[0], np.sin(x[1]) - np.sin(2 * x[1])])
    >>> result = minimize_nonconvex(
    ...     fun, np.zeros(2), jac=jac, L1=3.0, L2=5.0, Delta=1.0, constants="tight"
    ... )
    >>> result.certificate, round(result.fun, 6)
    ('second-order', -0.75)
    """
    check_choice("method", method, METHODS)
    check_choice("constants", constants, CONSTANTS)
    check_integer("max_oracle", max_oracle)
    given = {"tol": tol, "L1": L1, "L2": L2, "Delta": Delta, "alpha": alpha}
    for name, value in given.items():
        if value is not None or name == "tol":
            check_real(name, value)
    check_probability(delta)
    missing = [c for c in _TABLE[method].needs if given[c] is None]
    if missing:
        raise ValueError(
            f"method={method!r} needs {', '.join(missing)}: give a number, or use "
            "'anc-adaptive' or 'lbfgs-nc', which need no constant"
        )
    alpha_given = alpha is not None
    if alpha is None:
        alpha = _default_alpha(tol, L1, L2, Delta)
    elif L1 is not None and alpha > L1:
        raise ValueError(f"alpha must be at most L1 = {L1}, got {alpha}")
    options = _Options(
        tol, L1, L2, Delta, alpha, alpha_given, delta, constants, make_rng(seed)
    )
    oracle = Oracle(
        fun,
        x0,
        jac=jac,
        hessp=hessp,
        hess=hess,
        max_oracle=max_oracle,
        callback=callback,
    )
    x = oracle.x0
    try:
        oracle.fun(x)
        oracle.grad(x)
    except _Stop as stop:
        raise ValueError(f"fun and jac must be finite at x0: {stop.message}") from None
    oracle.record(x, "start")
    module = importlib.import_module(f"lib.acceleration.{_TABLE[method].module}")
    try:
        x, curvature = getattr(module, method.replace("-", "_"))(oracle, x, options)
        value, g, norm = oracle.fun(x), oracle.grad(x), oracle.grad_norm
    except _Stop as stop:
        return _broken_off(oracle, stop)
    return _finished(oracle, x, value, g, norm, curvature, options, method)


def _default_alpha(tol, L1, L2, Delta):
    alpha = math.sqrt(tol * (1.0 if L2 is None else L2))
    if Delta is not None:
        alpha = max(alpha, tol**2 / Delta)
    return alpha if L1 is None else min(alpha, L1)


def _finished(oracle, x, value, g, norm, curvature, options, method):
    status, certificate, alpha = CONVERGED, "none", options.alpha
    if curvature is not None and curvature.alpha is not None:
        alpha = curvature.alpha
    if not norm <= options.tol:
        status = STALLED
        message = f"stopped with a gradient of {norm:.3g}, above tol={options.tol:g}"
    elif curvature is not None and curvature.bound >= -alpha * (1 + 1e-9):
        certificate = "second-order"
        message = (
            f"gradient at most tol={options.tol:g}, smallest eigenvalue at least "
            f"{curvature.bound:.3g}"
        )
        if curvature.heuristic:
            certificate += " (heuristic)"
            message += ", a heuristic bound: it rests on estimated constants"
    else:
        certificate = "first-order"
        message = f"gradient at most tol={options.tol:g}; "
        if curvature is not None:
            status = STALLED
            message += (
                f"but the smallest eigenvalue is only known to be at least "
                f"{curvature.bound:.3g}, below -alpha={-alpha:.3g}"
            )
        elif _TABLE[method].second_order:
            status = STALLED
            message += "the curvature could not be examined"
        else:
            message += "the curvature was not examined, this may be a saddle"
    return _result(oracle, x, value, g, status, message, certificate, curvature)


def _broken_off(oracle, stop):
    # The last iterate that was kept: finite, and with its gradient.
    x, value, g, _ = oracle._kept
    if math.isnan(value):
        try:
            value = oracle.fun(x)
        except _Stop:
            pass
    if stop.status == BUDGET:
        warnings.warn(stop.message, RuntimeWarning, stacklevel=3)
    message = stop.message
    if stop.status == NONFINITE:
        message += "; x is the last iterate before it"
    return _result(oracle, x, value, g, stop.status, message, "none", None)


def _result(oracle, x, value, g, status, message, certificate, curvature):
    return OptimizeResult(
        x=oracle.restore(x),
        fun=value,
        jac=oracle.restore(g),
        nit=oracle.nit,
        nfev=oracle.nfev,
        njev=oracle.njev,
        nhevp=oracle.nhevp,
        nhev=oracle.nhev,
        success=status == CONVERGED,
        status=status,
        message=message,
        lambda_min=math.nan if curvature is None else curvature.value,
        certificate=certificate,
        history=oracle.history,
    )
