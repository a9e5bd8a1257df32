"""The front door: honest counts, honest certificates, and failures that are said."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import OptimizeResult

from lib.acceleration import METHODS, minimize_nonconvex
from lib.acceleration.nonconvex import _TABLE

SECOND_ORDER = [m for m in METHODS if _TABLE[m].second_order]
CONSTANTS = {"L1": 12.0, "L2": 12.0, "Delta": 30.0}

WAVES = np.array([[1.0, 0.3, 0.0], [0.2, -1.0, 0.4], [0.0, 0.5, 1.1]])
BOWL = np.array([0.6, 0.9, 0.3])


class Counted:
    """A function with many saddles, and independent counters around everything."""

    def __init__(self, break_after=math.inf, bad=np.nan):
        self.calls = dict.fromkeys(("fun", "jac", "hessp", "hess"), 0)
        self.break_after, self.bad = break_after, bad

    def count(self, name):
        self.calls[name] += 1
        return self.bad if self.calls[name] > self.break_after else 1.0

    def fun(self, x):
        scale = self.count("fun")
        x = x.reshape(3)
        return scale * float(BOWL @ x**2 / 2 + np.cos(WAVES @ x * 2).sum())

    def jac(self, x):
        y = x.reshape(3)
        g = BOWL * y - 2 * WAVES.T @ np.sin(WAVES @ y * 2)
        return self.count("jac") * g.reshape(x.shape)

    def both(self, x):
        value = self.fun(x)
        self.calls["jac"] -= 1
        gradient = self.jac(x)
        self.calls["jac"] += 1
        return value, gradient

    def hessian(self, x):
        y = x.reshape(3)
        return np.diag(BOWL) - 4 * (WAVES.T * np.cos(WAVES @ y * 2)) @ WAVES

    def hess(self, x):
        return self.count("hess") * self.hessian(x)

    def hessp(self, x, v):
        product = self.hessian(x) @ v.reshape(3)
        return self.count("hessp") * product.reshape(x.shape)

    def supply(self, kind):
        if kind == "fused":
            return self.both, {"jac": True}
        extra = {"hessp": {"hessp": self.hessp}, "hess": {"hess": self.hess}}
        return self.fun, {"jac": self.jac} | extra.get(kind, {})


def torch_fun(x):
    x = x.reshape(3)
    W = torch.tensor(WAVES, dtype=x.dtype, device=x.device)
    b = torch.tensor(BOWL, dtype=x.dtype, device=x.device)
    return b @ x**2 / 2 + torch.cos(W @ x * 2).sum()


def smallest_eigenvalue(x):
    return np.linalg.eigvalsh(Counted().hessian(np.asarray(x, float)))[0]


# ---- counts -------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    kind=st.sampled_from(["hessp", "hess", "difference", "fused"]),
    seed=st.integers(0, 1000),
    tol=st.sampled_from([1e-1, 1e-3]),
    budget=st.sampled_from([7, 50, 5000]),
)
def test_counts_are_those_of_an_independent_counter(method, kind, seed, tol, budget):
    f = Counted()
    fun, derivatives = f.supply(kind)
    x0 = np.random.default_rng(seed).standard_normal(3) * 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result = minimize_nonconvex(
            fun,
            x0,
            method=method,
            tol=tol,
            max_oracle=budget,
            seed=seed,
            **derivatives,
            **CONSTANTS,
        )
    assert result.nfev == f.calls["fun"]
    assert result.njev == (f.calls["fun"] if kind == "fused" else f.calls["jac"])
    if kind == "hessp":
        assert result.nhevp == f.calls["hessp"]
    assert result.nhev == f.calls["hess"]
    assert result.njev + result.nhevp <= budget
    assert result.history["oracle"].max() <= result.njev + result.nhevp
    # The result is consistent with the functions.
    assert result.fun == pytest.approx(Counted().fun(result.x), abs=1e-9)
    np.testing.assert_allclose(result.jac, Counted().jac(result.x), atol=1e-9)
    assert result.success == (result.status == 0)
    if result.success:
        assert np.linalg.norm(result.jac) <= tol


@pytest.mark.parametrize("method", METHODS)
def test_counts_with_torch_are_those_of_its_passes(method, monkeypatch):
    calls = {"fun": 0, "backward": 0}
    original = torch.autograd.grad

    def backward(*args, **keywords):
        calls["backward"] += 1
        return original(*args, **keywords)

    def fun(x):
        calls["fun"] += 1
        return torch_fun(x)

    monkeypatch.setattr(torch.autograd, "grad", backward)
    result = minimize_nonconvex(
        fun,
        torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64),
        method=method,
        tol=1e-2,
        max_oracle=20_000,
        **CONSTANTS,
    )
    assert result.success, result.message
    assert result.nfev == calls["fun"]
    assert result.njev + result.nhevp == calls["backward"]


# ---- certificates -------------------------------------------------------------------

SADDLES = {
    "cosines": np.zeros(3),
    "a shape": np.zeros((3, 1)),
}


@pytest.mark.parametrize("method", SECOND_ORDER)
@pytest.mark.parametrize("kind", ["hessp", "hess", "difference", "fused"])
@pytest.mark.parametrize("start", SADDLES)
def test_no_second_order_success_at_a_saddle(method, kind, start):
    """The gradient is exactly zero at the start: nothing but curvature moves it."""
    fun, derivatives = Counted().supply(kind)
    x0 = SADDLES[start]
    assert smallest_eigenvalue(x0) < -3
    result = minimize_nonconvex(
        fun, x0, method=method, tol=1e-3, max_oracle=30_000, **derivatives, **CONSTANTS
    )
    assert result.success, result.message
    assert result.certificate.startswith("second-order")
    assert result.x.shape == x0.shape
    alpha = math.sqrt(1e-3 * CONSTANTS["L2"])
    assert smallest_eigenvalue(result.x.reshape(3)) >= -alpha * 1.01
    assert result.lambda_min >= smallest_eigenvalue(result.x.reshape(3)) - 1e-3
    assert result.fun < Counted().fun(x0) - 1


@pytest.mark.parametrize("method", sorted(set(METHODS) - set(SECOND_ORDER)))
def test_first_order_methods_say_that_they_may_be_at_a_saddle(method):
    f = Counted()
    result = minimize_nonconvex(
        f.fun, np.zeros(3), jac=f.jac, method=method, **CONSTANTS
    )
    assert result.success and result.certificate == "first-order"
    assert "may be a saddle" in result.message
    assert math.isnan(result.lambda_min) and result.nit == 0


@pytest.mark.parametrize("method", SECOND_ORDER)
@pytest.mark.parametrize("alpha", [0.3, 0.02])
def test_alpha_sets_the_accuracy_of_the_curvature(method, alpha):
    for seed in range(5):
        x0 = np.random.default_rng(seed).standard_normal(3) * 2
        f = Counted()
        result = minimize_nonconvex(
            f.fun,
            x0,
            jac=f.jac,
            hess=f.hess,
            method=method,
            tol=1e-2,
            alpha=alpha,
            max_oracle=200_000,
            **CONSTANTS,
        )
        assert result.success, (method, seed, result.message)
        assert smallest_eigenvalue(result.x) >= -alpha


@pytest.mark.parametrize("heuristic", [False, True])
@pytest.mark.parametrize("bound", [-0.05, -0.2])
def test_certificates_name_what_they_rest_on(monkeypatch, heuristic, bound):
    """A method hands over a bound; the door alone decides what it is worth."""
    from lib.acceleration import Curvature, cubic

    def method(oracle, x, options):
        return x, Curvature(0.0, bound, heuristic)

    monkeypatch.setattr(cubic, "arc", method)
    result = minimize_nonconvex(
        lambda x: 0.0, np.zeros(2), jac=lambda x: 0 * x, method="arc", alpha=0.1
    )
    assert result.success == (bound >= -0.1) == (result.status == 0)
    if not result.success:
        assert result.certificate == "first-order" and "only known" in result.message
    elif heuristic:
        assert result.certificate == "second-order (heuristic)"
        assert "estimated constants" in result.message
    else:
        assert result.certificate == "second-order"


# ---- failures -----------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["hessp", "fused"])
def test_numbers_that_stop_being_finite_are_no_success(method, bad, kind):
    f = Counted(break_after=4, bad=bad)
    fun, derivatives = f.supply(kind)
    x0 = np.array([2.0, -1.0, 1.5])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result = minimize_nonconvex(
            fun,
            x0,
            method=method,
            tol=1e-9,
            max_oracle=3000,
            **derivatives,
            **CONSTANTS,
        )
    assert not result.success and result.status in (2, 3)
    assert result.certificate == "none"
    assert np.isfinite(result.x).all() and np.isfinite(result.jac).all()
    if result.status == 3:
        assert "returned" in result.message and "last iterate" in result.message


@pytest.mark.parametrize("method", METHODS)
def test_a_spent_budget_is_said(method):
    f = Counted()
    with pytest.warns(RuntimeWarning, match="budget of 9 oracle calls is spent"):
        result = minimize_nonconvex(
            f.fun,
            np.array([2.0, -1.0, 1.5]),
            jac=f.jac,
            hessp=f.hessp,
            method=method,
            tol=1e-12,
            max_oracle=9,
            **CONSTANTS,
        )
    assert not result.success and result.status == 1
    assert "budget of 9" in result.message and result.certificate == "none"
    assert result.njev + result.nhevp == 9
    assert result.fun <= f.fun(np.array([2.0, -1.0, 1.5]))


@pytest.mark.parametrize("method", METHODS)
def test_an_accuracy_below_rounding_ends_without_success(method):
    f = Counted()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result = minimize_nonconvex(
            f.fun,
            np.array([2.0, -1.0, 1.5]),
            jac=f.jac,
            hess=f.hess,
            method=method,
            tol=1e-17,
            alpha=0.01,
            max_oracle=3_000,
            **CONSTANTS,
        )
    assert result.success == (np.linalg.norm(f.jac(result.x)) <= 1e-17)
    assert result.success or result.status in (1, 2)
    assert result.fun <= f.fun(np.array([2.0, -1.0, 1.5]))


@pytest.mark.parametrize("method", METHODS)
def test_the_callback_sees_iterates_and_may_stop(method):
    seen = []

    def callback(x):
        seen.append(x.copy())
        if len(seen) == 2:
            raise StopIteration

    f = Counted()
    result = minimize_nonconvex(
        f.fun,
        np.array([[2.0], [-1.0], [1.5]]),
        jac=f.jac,
        hess=f.hess,
        method=method,
        tol=1e-10,
        callback=callback,
        **CONSTANTS,
    )
    assert not result.success and result.status == 4 and "callback" in result.message
    assert len(seen) == 2 and seen[0].shape == (3, 1)


# ---- kinds, shapes, seeds -----------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3,), (1, 3)])
def test_kind_dtype_device_and_shape_are_kept(backend, method, dtype, shape):
    x0 = backend.asarray(np.reshape([2.0, -1.0, 1.5], shape), dtype)
    f = Counted()
    functions = (
        {"fun": torch_fun}
        if backend.kind == "torch"
        else {"fun": f.fun, "jac": f.jac, "hess": f.hess}
    )
    result = minimize_nonconvex(
        **functions, x0=x0, method=method, tol=1e-2, max_oracle=50_000, **CONSTANTS
    )
    assert result.success, result.message
    assert isinstance(result, OptimizeResult) and isinstance(result.fun, float)
    for made in (result.x, result.jac):
        assert backend.owns(made, dtype) and tuple(made.shape) == shape
    assert np.array_equal(backend.numpy(x0).ravel(), np.float32([2.0, -1.0, 1.5]))
    g = Counted().jac(backend.numpy(result.x).astype(float))
    assert np.linalg.norm(g) <= 1.1e-2


@pytest.mark.parametrize("method", METHODS)
def test_one_dimension_is_enough(method):
    """x^4 / 4 - x^2 / 2 from near its maximum at zero; with x0 a number."""
    # The proximal method is one for convex functions.
    start = 0.9 if method == "prox-agd" else 1e-3
    result = minimize_nonconvex(
        lambda x: float(x**4 / 4 - x**2 / 2),
        np.array(start),
        jac=lambda x: x**3 - x,
        hess=lambda x: (3 * x**2 - 1).reshape(1, 1),
        method=method,
        tol=1e-4,
        L1=20.0,
        L2=20.0,
        Delta=1.0,
    )
    assert result.success and result.x.shape == ()
    assert abs(result.x) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_fixes_the_run(method):
    runs = []
    for seed in (3, np.random.default_rng(3), 3):
        f = Counted()
        result = minimize_nonconvex(
            f.fun,
            np.zeros(3),
            jac=f.jac,
            hessp=f.hessp,
            method=method,
            tol=1e-3,
            seed=seed,
            max_oracle=20_000,
            **CONSTANTS,
        )
        runs.append((result.x.tolist(), result.njev, result.nhevp))
    assert runs[0] == runs[1] == runs[2]


def test_start_and_end_stand_in_the_history():
    f = Counted()
    x0 = np.array([2.0, -1.0, 1.5])
    result = minimize_nonconvex(
        f.fun, x0, jac=f.jac, hessp=f.hessp, tol=1e-2, **CONSTANTS
    )
    history = result.history
    assert history["event"][0] == "start" and history["fun"][0] == f.fun(x0)
    assert history["oracle"][0] == 1
    assert history["grad_norm"][-1] == pytest.approx(np.linalg.norm(result.jac))
    assert np.all(np.diff(history["oracle"]) >= 0)
    assert {len(column) for column in history.values()} == {len(history["event"])}
    assert np.sum(history["event"] == "step") == result.nit


# ---- arguments ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        ({"method": "newton"}, ValueError, "method must be one of"),
        ({"method": None}, ValueError, "method must be one of"),
        ({"tol": 0.0}, ValueError, "tol must be"),
        ({"tol": "small"}, TypeError, "tol must be"),
        ({"L1": -1.0}, ValueError, "L1 must be"),
        ({"L2": np.nan}, ValueError, "L2 must be"),
        ({"Delta": 0}, ValueError, "Delta must be"),
        ({"alpha": 13.0}, ValueError, "alpha must be at most L1"),
        ({"delta": 1.5}, ValueError, "delta must be"),
        ({"constants": "loose"}, ValueError, "constants must be one of"),
        ({"max_oracle": 0}, ValueError, "max_oracle must be"),
        ({"max_oracle": 1e3}, TypeError, "max_oracle must be"),
        ({"seed": 1.5}, TypeError, "random_state must be"),
        ({"x0": np.array([1, 2, 3])}, ValueError, "x0 must be float32 or float64"),
        ({"x0": np.array([np.inf, 0, 0])}, ValueError, "x0 must hold finite"),
        ({"fun": lambda x: np.nan}, ValueError, "finite at x0: fun returned NaN"),
        ({"jac": lambda x: x * np.inf}, ValueError, "finite at x0: jac returned"),
        ({"L1": None}, ValueError, "method='anc' needs L1: "),
        ({"L2": None, "Delta": None}, ValueError, "needs L2, Delta: "),
        ({"method": "gd", "L1": None}, ValueError, "needs L1"),
        ({"method": "cubic-newton", "L2": None}, ValueError, "needs L2"),
        ({"hess": lambda x: np.triu(np.ones((3, 3)))}, ValueError, "symmetric"),
    ],
)
def test_bad_arguments_are_named(keywords, error, match):
    f = Counted()
    arguments = {"fun": f.fun, "x0": np.full(3, 2.0), "jac": f.jac} | CONSTANTS
    with np.errstate(invalid="ignore"), pytest.raises(error, match=match):
        minimize_nonconvex(**(arguments | keywords))
