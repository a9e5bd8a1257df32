r"""
The user's functions behind one door, where every call is counted and checked.

An oracle answers at a point :math:`x` with :math:`f(x)`, :math:`\nabla f(x)`,
:math:`\nabla^2 f(x) v` or :math:`\nabla^2 f(x)`. Complexity theory counts its calls:
a gradient is one, and so is a product of the Hessian with a vector.
"""

import math
import sys
from typing import NamedTuple

import numpy as np

from lib._backend import as_float_array, is_torch
from lib.acceleration.curvature import SecondBackward, check_differentiable

__all__ = ["Curvature", "Oracle"]

#: Statuses of a run, as in `OptimizeResult.status`.
CONVERGED, BUDGET, STALLED, NONFINITE, CALLBACK = range(5)

#: Records kept of these events; when there are more, every second one goes.
FREQUENT = frozenset({"step", "prox"})
RECORDS = 4096


class Curvature(NamedTuple):
    r"""
    What a method knows of the smallest eigenvalue at the point that it returns.

    With the Ritz value :math:`v^\top H v \ge \lambda_{\min}(H)` and a slack,
    :math:`\lambda_{\min} \ge v^\top H v - slack` with probability
    :math:`1 - \delta`.

    Attributes
    ----------
    value : float
        The Ritz value, or the eigenvalue itself.
    bound : float
        Lower bound on the eigenvalue: the Ritz value less its slack.
    heuristic : bool
        Whether the bound rests on constants that were estimated.
    alpha : float, optional
        Accuracy that the method asked for; None means that of its options.

    Notes
    -----
    A plain record; building it costs nothing.

    References
    ----------
    .. [1] Y. Carmon, J. C. Duchi, O. Hinder and A. Sidford, "Accelerated methods for
       nonconvex optimization", SIAM J. Optim. 28(2), 2018, Algorithm 1.

    Examples
    --------
    >>> from lib.acceleration import Curvature
    >>> Curvature(value=-0.1, bound=-0.3, heuristic=True).bound
    -0.3
    """

    value: float
    bound: float
    heuristic: bool
    alpha: float | None = None


class _Stop(Exception):
    """The run ends here: carries a status and the reason in words."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status, self.message = status, message


class Oracle:
    r"""
    Count and check every call of the user's functions.

    .. math:: calls = njev + nhevp,

    gradients plus products with the Hessian. The oracle talks to a method in flat
    vectors and to the user in the shape of ``x0``.

    Parameters
    ----------
    fun : callable
        Objective, ``fun(x) -> float``; with ``jac=True``, ``fun(x) -> (float,
        gradient)``. For ``jac=None`` it is a torch function that can be
        differentiated twice.
    x0 : ndarray or Tensor, any shape
        Start, float32 or float64: its kind, dtype, device and shape are those of
        every ``x`` that the user's functions get.
    jac : callable, True or None, default=None
        Gradient ``jac(x)``, of the shape of ``x``.
    hessp : callable, optional
        Product ``hessp(x, v)`` of the Hessian with ``v``, both of the shape of
        ``x``.
    hess : callable, optional
        Hessian ``hess(x)`` of shape (d, d), or the shape of ``x`` twice.
    max_oracle : int, optional
        Most calls allowed; None means no bound.
    callback : callable, optional
        ``callback(x)`` after each iteration; it ends the run by ``StopIteration``.

    Attributes
    ----------
    nfev, njev, nhevp, nhev : int
        Function values, gradients, products with and evaluations of the Hessian.
    nit : int
        Iterations: records of the event "step".
    calls : int
        Gradients and products with the Hessian.
    history : dict
        Records so far: arrays oracle, fun, grad_norm and event.
    grad_norm : float
        Norm of the latest gradient that ``grad`` returned.

    Raises
    ------
    TypeError
        If a function is not callable, or ``x0`` is not float32 or float64.
    ValueError
        If ``x0`` is integer, empty or not finite, or numpy functions come without
        ``jac``.

    Notes
    -----
    A question about the same object ``x`` as the last one is answered from memory
    and not counted, since the user's function is not called: a method must never
    change an array in place that it has asked about. Without ``hessp``, products
    come from ``hess``; without that, from a second backward pass where torch
    differentiates, whose graph is kept while ``x`` stays (its first product costs a
    function value and a gradient more); else from a difference of two gradients,
    counted as gradients. Overhead per gradient: O(d), and about 2 microseconds.

    References
    ----------
    .. [1] Y. Carmon, J. C. Duchi, O. Hinder and A. Sidford, "Accelerated methods for
       nonconvex optimization", SIAM J. Optim. 28(2), 2018, Section 1: what a call is.

    Examples
    --------
    >>> import numpy as np
    >>> from lib.acceleration import Oracle
    >>> oracle = Oracle(lambda x: x @ x / 2, np.ones(3), jac=lambda x: x)
    >>> x = oracle.x0
    >>> oracle.grad(x), oracle.grad(x), oracle.njev
    (array([1., 1., 1.]), array([1., 1., 1.]), 1)
    """

    def __init__(
        self,
        fun,
        x0,
        *,
        jac=None,
        hessp=None,
        hess=None,
        max_oracle=None,
        callback=None,
    ):
        x0 = _checked_start(x0)
        named = {"jac": jac, "hessp": hessp, "hess": hess, "callback": callback}
        if not callable(fun):
            raise TypeError(f"fun must be callable, got {fun!r}")
        for name, f in named.items():
            if f is not None and not callable(f) and not (name == "jac" and f is True):
                wanted = "callable, True or None" if name == "jac" else "callable"
                raise TypeError(f"{name} must be {wanted}, got {f!r}")
        if jac is None and not is_torch(x0):
            raise ValueError(
                "jac must be given where x0 is a numpy array (torch differentiates "
                "fun by itself), got None"
            )
        self._fun, self._jac, self._hessp, self._hess = fun, jac, hessp, hess
        self._callback = callback
        self.max_oracle = math.inf if max_oracle is None else max_oracle
        self.shape, self.torch = tuple(x0.shape), is_torch(x0)
        if self.torch:
            self._torch = sys.modules["torch"]
            self.x0 = x0.detach().clone().reshape(-1)
        else:
            self.x0 = x0.reshape(-1).copy()
        self.dim, self.dtype = self.x0.shape[0], self.x0.dtype
        self._is_flat = len(self.shape) == 1
        self._autograd = jac is None
        self.nfev = self.njev = self.nhevp = self.nhev = self.nit = 0
        self.grad_norm = math.nan
        # One-entry memories: the point and the answer.
        self._fx = self._gx = self._hx = self._px = self._tape = None
        self._f = math.nan
        self._kept = None
        self._records, self._stride, self._skip = [], 1, 0

    @property
    def calls(self):
        return self.njev + self.nhevp

    def fun(self, x):
        """
        Value of the objective.

        Parameters
        ----------
        x : ndarray or Tensor of shape (d,)
            Point.

        Returns
        -------
        float
            Value f(x).
        """
        if x is self._fx:
            return self._f
        if self._jac is True:
            self.grad(x)
            return self._f
        self.nfev += 1
        if self._autograd:
            # The tape is kept: a gradient at the same point needs no second pass.
            leaf = self._leaf(x)
            value = self._fun(self._shaped(leaf))
            self._tape = (x, leaf, value)
            value = value.detach() if is_torch(value) else value
        else:
            value = self._fun(self.restore(x))
        value = _scalar(value)
        if not math.isfinite(value):
            self._refuse("fun", value)
        self._fx, self._f = x, value
        return value

    def grad(self, x):
        """
        Gradient of the objective.

        Parameters
        ----------
        x : ndarray or Tensor of shape (d,)
            Point.

        Returns
        -------
        ndarray or Tensor of shape (d,)
            The gradient; its norm stands in ``grad_norm``.
        """
        if x is self._gx:
            return self._g
        g, value = self._gradient(x)
        self._remember(x, g, value)
        return g

    def trial(self, x):
        """
        Value at a point that may be too far away to have one.

        Parameters
        ----------
        x : ndarray or Tensor of shape (d,)
            Point.

        Returns
        -------
        float
            Value f(x), or infinity where it is not finite.
        """
        try:
            return self.fun(x)
        except _Stop as stop:
            if stop.status != NONFINITE:
                raise
            return math.inf

    def probe(self, x):
        """
        Gradient at a point aside: counted, while the memory of the last one stays.

        Parameters
        ----------
        x : ndarray or Tensor of shape (d,)
            Point.

        Returns
        -------
        ndarray or Tensor of shape (d,)
            The gradient.
        """
        g, _ = self._gradient(x)
        if not float(g.dot(g)) < math.inf:
            self._recheck(g)
        return g

    def hessp(self, x, v):
        r"""
        Product of the Hessian with a vector.

        Parameters
        ----------
        x : ndarray or Tensor of shape (d,)
            Point.
        v : ndarray or Tensor of shape (d,)
            Vector.

        Returns
        -------
        ndarray or Tensor of shape (d,)
            :math:`\nabla^2 f(x) v`.
        """
        if self._hessp is not None:
            self._spend("nhevp")
            product = self._hessp(self.restore(x), self.restore(v))
            product = self._checked_vector("hessp", product)
        elif self._hess is not None:
            H = self.hess(x)
            self._spend("nhevp")
            product = H @ v
        elif self._autograd:
            return self._second_backward(x, v)
        else:
            return self._difference(x, v)
        if not float(product.dot(product)) < math.inf:
            self._recheck(product, "hessp")
        return product

    def hess(self, x):
        """
        Evaluate the Hessian, or put it together from d products where there is none.

        Parameters
        ----------
        x : ndarray or Tensor of shape (d,)
            Point.

        Returns
        -------
        ndarray or Tensor of shape (d, d)
            Symmetric matrix.
        """
        if x is self._hx:
            return self._H
        d = self.dim
        if self._hess is None:
            xp = self._torch if self.torch else np
            basis = xp.eye(d, **self.like)
            H = xp.stack([self.hessp(x, basis[i]) for i in range(d)])
        else:
            self.nhev += 1
            H = self._hess(self.restore(x))
            if self.torch:
                H = self._torch.as_tensor(H, **self.like).detach()
            else:
                H = np.array(H, dtype=self.dtype)
            if math.prod(H.shape) != d * d:
                raise ValueError(
                    f"hess must return shape {(d, d)}, got {tuple(H.shape)}"
                )
            H = H.reshape(d, d)
            scale = float(abs(H).max())
            if not math.isfinite(scale):
                self._refuse("hess", scale)
            gap = float(abs(H - H.T).max())
            if gap > (1e-3 if self.single else 1e-6) * scale:
                raise ValueError(
                    "hess must return a symmetric matrix, got one whose entries "
                    f"differ from its transpose by {gap:.3g}"
                )
        self._hx, self._H = x, (H + H.T) / 2
        return self._H

    def record(self, x, event="step"):
        """
        Note an iterate in the history, and keep it in case that the run breaks off.

        Parameters
        ----------
        x : ndarray or Tensor of shape (d,)
            Iterate; what is known of its value and gradient is noted, nothing is
            evaluated for it.
        event : str, default="step"
            What happened. "step" counts as an iteration and calls ``callback``.
        """
        value = self._f if x is self._fx else math.nan
        norm = math.nan
        if x is self._gx:
            norm = self.grad_norm
            self._kept = (x, value, self._g, norm)
        if event in FREQUENT:
            self._skip += 1
            if self._skip >= self._stride:
                self._skip = 0
                self._records.append((self.njev + self.nhevp, value, norm, event))
                if len(self._records) > RECORDS:
                    self._thin()
        else:
            self._records.append((self.njev + self.nhevp, value, norm, event))
        if event == "step":
            self.nit += 1
            if self._callback is not None:
                try:
                    self._callback(self.restore(x))
                except StopIteration:
                    raise _Stop(CALLBACK, "the callback asked to stop") from None

    def stall(self, why):
        """
        End the run: the method cannot make progress, and says why.

        Parameters
        ----------
        why : str
            The reason in words.
        """
        raise _Stop(STALLED, why)

    @property
    def history(self):
        columns = list(zip(*self._records, strict=True)) or [[], [], [], []]
        return {
            "oracle": np.array(columns[0], dtype=np.int64),
            "fun": np.array(columns[1], dtype=np.float64),
            "grad_norm": np.array(columns[2], dtype=np.float64),
            "event": np.array(columns[3], dtype=np.str_),
        }

    @property
    def like(self):
        # Keywords that make an array of the same dtype and device.
        if self.torch:
            return {"dtype": self.dtype, "device": self.x0.device}
        return {"dtype": self.dtype}

    @property
    def single(self):
        return str(self.dtype).endswith("float32")

    @property
    def eps(self):
        # The spacing of the numbers at one.
        return float(np.finfo(np.float32 if self.single else np.float64).eps)

    def asarray(self, x):
        """
        Make a flat vector of the oracle's kind, dtype and device.

        Parameters
        ----------
        x : array-like
            Numbers, from numpy.

        Returns
        -------
        ndarray or Tensor
            The same numbers.
        """
        if self.torch:
            return self._torch.as_tensor(np.asarray(x), **self.like)
        return np.asarray(x, dtype=self.dtype)

    def restore(self, x):
        """
        Give a vector the shape in which the user gave ``x0``.

        Parameters
        ----------
        x : ndarray or Tensor of shape (d,)
            Vector.

        Returns
        -------
        ndarray or Tensor
            A copy of it.
        """
        # The user may do with it what he likes.
        x = x.clone() if self.torch else x.copy()
        return x if self._is_flat else x.reshape(self.shape)

    # ---- below: how the user's functions are called ---------------------------------

    def _shaped(self, x):
        return x if self._is_flat else x.reshape(self.shape)

    def _leaf(self, x):
        return x.detach().clone().requires_grad_()

    def _spend(self, what):
        if self.njev + self.nhevp >= self.max_oracle:
            raise _Stop(
                BUDGET,
                f"the budget of {self.max_oracle} oracle calls is spent "
                f"(max_oracle={self.max_oracle})",
            )
        setattr(self, what, getattr(self, what) + 1)

    # Gradient, and the value where it comes with it; counted, not remembered.
    def _gradient(self, x):
        if self.njev + self.nhevp >= self.max_oracle:
            self._spend("njev")
        self.njev += 1
        if self._autograd:
            if self._tape is not None and self._tape[0] is x:
                _, leaf, value = self._tape
            else:
                self.nfev += 1
                leaf = self._leaf(x)
                value = self._fun(self._shaped(leaf))
            self._tape = None
            check_differentiable(value)
            g = self._torch.autograd.grad(value, leaf)[0]
            return g, _scalar(value.detach())
        value = None
        if self._jac is True:
            self.nfev += 1
            value, g = self._fun(self.restore(x))
            value = _scalar(value)
        else:
            g = self._jac(self.restore(x))
        return self._checked_vector("jac", g), value

    def _remember(self, x, g, value):
        square = float(g.dot(g))
        if not square < math.inf:
            square = self._recheck(g)
        if value is not None:
            if not math.isfinite(value):
                self._refuse("fun", value)
            self._fx, self._f = x, value
        self._gx, self._g, self.grad_norm = x, g, math.sqrt(square)

    def _checked_vector(self, name, g):
        if self.torch:
            if not is_torch(g):
                raise TypeError(
                    f"{name} must return a tensor, as x0 is one, got {type(g).__name__}"
                )
            g = g.detach().to(**self.like, copy=True)
        else:
            # A copy: the user may write into his array at the next call.
            g = np.array(g, dtype=self.dtype)
        if g.shape != self.shape:
            raise ValueError(
                f"{name} must return the shape of x0, {self.shape}, "
                f"got {tuple(g.shape)}"
            )
        return g if self._is_flat else g.reshape(-1)

    # Squared norm of entries that overflow when squared; refuses NaN and infinity.
    def _recheck(self, g, name="jac"):
        largest = float(abs(g).max())
        if not math.isfinite(largest):
            self._refuse(name, largest)
        scaled = g / largest
        return min(float(scaled.dot(scaled)) * largest * largest, sys.float_info.max)

    def _refuse(self, name, value):
        raise _Stop(
            NONFINITE,
            f"{name} returned {'NaN' if math.isnan(value) else value} "
            f"after {self.calls} oracle calls",
        )

    def _second_backward(self, x, v):
        if self._px is not x:
            self._spend("njev")
            self.nfev += 1
            product = SecondBackward(lambda leaf: self._fun(self._shaped(leaf)), x)
            self._remember(x, product.gradient, _scalar(product.value))
            self._px, self._product = x, product
        self._spend("nhevp")
        product = self._product(v)
        if not float(product.dot(product)) < math.inf:
            self._recheck(product, "the Hessian-vector product")
        return product

    def _difference(self, x, v):
        length = math.sqrt(float(v.dot(v)))
        if length == 0:
            return v * 0
        g = self.grad(x)
        h = 2 * math.sqrt(self.eps) * (1 + math.sqrt(float(x.dot(x)))) / length
        return (self.probe(x + h * v) - g) / h

    def _thin(self):
        self._stride *= 2
        frequent, kept = 0, []
        for entry in self._records:
            frequent += entry[3] in FREQUENT
            if entry[3] not in FREQUENT or frequent % 2:
                kept.append(entry)
        self._records = kept


# A finite start, whose integers are refused: they are a slip more often than a wish.
def _checked_start(x0):
    kind = str(x0.dtype) if hasattr(x0, "dtype") else str(np.asarray(x0).dtype)
    if "int" in kind or "bool" in kind:
        raise ValueError(
            f"x0 must be float32 or float64, got {kind}: write 1.0 instead of 1"
        )
    x0 = as_float_array(x0, "x0", ndim=range(33))
    if math.prod(x0.shape) == 0:
        raise ValueError(f"x0 must not be empty, got shape {tuple(x0.shape)}")
    return x0


def _scalar(value):
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"fun must return a real number, got {value!r}") from error
