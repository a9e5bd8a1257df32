"""First-order methods: rates on quadratics, equality with torch, and their limits."""

import math

import numpy as np
import pytest
import torch

from lib.acceleration import (
    accelerated_gradient_descent,
    lower_bound_chain,
    minimize_nonconvex,
    phase_retrieval,
    ramp,
)
from lib.acceleration.gradient import agd_loop

FIRST_ORDER = ("gd", "agd", "prox-agd", "nag-restart", "restarted-agd")


def quadratic(spectrum, seed=0):
    spectrum = np.asarray(spectrum, float)
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((len(spectrum),) * 2))[0]
    H, b = (Q * spectrum) @ Q.T, rng.standard_normal(len(spectrum))
    return H, b, np.linalg.solve(H, b)


# ---- Nesterov's method --------------------------------------------------------------


@pytest.mark.parametrize("test", ["y", "z"])
@pytest.mark.parametrize("kappa", [1.0, 10.0, 1e4])
def test_it_finds_the_minimiser_of_a_quadratic(backend, test, kappa):
    H, b, minimiser = quadratic(np.geomspace(1, kappa, 20))
    A, c = backend.asarray(H), backend.asarray(b)
    y = accelerated_gradient_descent(
        lambda y: A @ y - c,
        backend.asarray(np.zeros(20)),
        eps=1e-9,
        L=kappa,
        sigma=1.0,
        test=test,
    )
    assert backend.owns(y, "float64")
    y = backend.numpy(y)
    assert np.linalg.norm(H @ y - b) <= 1e-9
    np.testing.assert_allclose(y, minimiser, atol=2e-9)


def test_the_iterates_are_those_of_torch():
    """Torch's SGD with Nesterov's momentum holds z, not y, as its parameter."""
    L, sigma = 40.0, 1.0
    H, b, _ = quadratic(np.linspace(sigma, L, 6))
    seen = []

    def grad(y):
        seen.append(y.copy())
        return H @ y - b

    agd_loop(grad, np.ones(6), 1e-12, L, sigma, "z")
    root = math.sqrt(L / sigma)
    w = torch.ones(6, dtype=torch.float64, requires_grad=True)
    sgd = torch.optim.SGD(
        [w], lr=1 / L, momentum=(root - 1) / (root + 1), nesterov=True
    )
    A, c = torch.tensor(H), torch.tensor(b)
    for z in seen[:40]:
        np.testing.assert_allclose(w.detach(), z, atol=1e-12)
        sgd.zero_grad()
        (w @ A @ w / 2 - c @ w).backward()
        sgd.step()


@pytest.mark.parametrize("kappa", [4.0, 100.0, 2500.0])
def test_the_number_of_iterations_is_within_the_bound_and_of_order_root_kappa(kappa):
    H, b, _ = quadratic(np.geomspace(1, kappa, 30))
    calls = 0

    def grad(y):
        nonlocal calls
        calls += 1
        return H @ y - b

    start = np.zeros(30)
    size = np.linalg.norm(grad(start))
    accelerated_gradient_descent(grad, start, 1e-6, kappa, 1.0, test="z")
    root = math.sqrt(kappa)
    assert calls - 2 <= 2 + root * math.log(18 * kappa**3 * size**2 / 1e-12)
    assert calls >= root


def test_testing_at_z_takes_about_half_the_gradients():
    H, b, _ = quadratic(np.geomspace(1, 400, 30))
    calls = dict.fromkeys("yz", 0)
    for test in calls:

        def grad(y, test=test):
            calls[test] += 1
            return H @ y - b

        accelerated_gradient_descent(grad, np.zeros(30), 1e-8, 400.0, 1.0, test=test)
    assert 0.45 <= calls["z"] / calls["y"] <= 0.6


def test_it_is_not_monotone():
    H, b, minimiser = quadratic(np.geomspace(1, 1e3, 20))
    values = []

    def grad(y):
        values.append(y @ H @ y / 2 - b @ y)
        return H @ y - b

    accelerated_gradient_descent(grad, np.zeros(20), 1e-8, 1e3, 1.0)
    assert np.any(np.diff(values[::2]) > 0)


def test_wrong_constants_are_said():
    H, b, _ = quadratic([1.0, 100.0])
    with pytest.warns(RuntimeWarning, match="constants|rounding|L is too small"):
        accelerated_gradient_descent(lambda y: H @ y - b, np.ones(2), 1e-8, 30.0, 1.0)


@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        ({"eps": 0.0}, ValueError, "eps must be"),
        ({"L": np.inf}, ValueError, "L must be"),
        ({"sigma": 3.0}, ValueError, "sigma must be at most L"),
        ({"sigma": "1"}, TypeError, "sigma must be"),
        ({"test": "x"}, ValueError, "test must be one of"),
        ({"y": np.ones((2, 2))}, ValueError, "y must be 1-D"),
        ({"grad": 1}, TypeError, "grad must be callable"),
    ],
)
def test_bad_arguments_are_named(keywords, error, match):
    arguments = {"grad": lambda y: y, "y": np.ones(2), "eps": 1.0, "L": 2.0, "sigma": 1}
    with pytest.raises(error, match=match):
        accelerated_gradient_descent(**(arguments | keywords))


# ---- methods behind the front door --------------------------------------------------


@pytest.mark.parametrize("method", FIRST_ORDER)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_method_solves_a_convex_problem_in_every_kind(backend, method, dtype):
    H, b, minimiser = quadratic(np.geomspace(0.5, 20, 10))
    A, c = backend.asarray(H, dtype), backend.asarray(b, dtype)
    tol = 1e-3 if dtype == "float32" else 1e-7
    result = minimize_nonconvex(
        lambda x: float(x @ A @ x) / 2 - float(c @ x),
        backend.asarray(np.zeros(10), dtype),
        jac=lambda x: A @ x - c,
        method=method,
        L1=20.0,
        tol=tol,
    )
    assert result.success and result.certificate == "first-order"
    assert "saddle" in result.message and math.isnan(result.lambda_min)
    assert backend.owns(result.x, dtype) and backend.owns(result.jac, dtype)
    x = backend.numpy(result.x)
    assert np.linalg.norm(H @ x - b) <= tol * 1.01
    np.testing.assert_allclose(x, minimiser, atol=3 * tol)


def test_gradient_descent_takes_the_closed_form_number_of_steps_on_the_ramp():
    """Each step along the slope is 2 eps / L1 long: R L1 / (2 eps) of them."""
    for eps, L1 in ((0.1, 1.0), (0.01, 2.0)):
        problem = ramp(eps, L1=L1)
        result = minimize_nonconvex(
            problem.fun,
            problem.x0,
            jac=problem.jac,
            method="gd",
            tol=eps,
            **problem.constants,
        )
        slope = L1 / (4 * eps**2)
        # What is left is the valley, a few steps of its own.
        assert slope <= result.nit <= 1.2 * slope + 10


def test_the_proximal_method_needs_a_square_root_of_the_calls():
    calls = []
    for eps in (1e-3, 1e-5):
        problem = ramp(eps, R=1.0)
        result = minimize_nonconvex(
            problem.fun,
            problem.x0,
            jac=problem.jac,
            method="prox-agd",
            tol=eps,
            L1=1.0,
        )
        assert result.success
        calls.append(result.njev)
    exponent = math.log(calls[1] / calls[0]) / math.log(100)
    assert 0.4 <= exponent <= 0.65


def test_the_proximal_method_refuses_a_function_that_is_not_convex():
    """A double well: started at its hill, the proximal functions are not convex."""
    result = minimize_nonconvex(
        lambda x: float(np.sum(1 - np.cos(x)) - 2 * np.sum(np.exp(-((x - 9) ** 2)))),
        np.array([3.0, 3.05]),
        jac=lambda x: np.sin(x) + 4 * (x - 9) * np.exp(-((x - 9) ** 2)),
        method="prox-agd",
        L1=0.05,
        tol=1e-9,
        max_oracle=10_000,
    )
    assert not result.success and result.status in (1, 2)


@pytest.mark.parametrize("method", ["nag-restart", "restarted-agd"])
@pytest.mark.parametrize("problem", [phase_retrieval(20, 120), lower_bound_chain(30)])
def test_methods_with_restarts_need_no_constants_and_never_rise(method, problem):
    result = minimize_nonconvex(
        problem.fun, problem.x0, jac=problem.jac, method=method, tol=1e-6
    )
    assert result.success
    assert result.fun <= problem.fun(problem.x0)
    assert np.linalg.norm(problem.jac(result.x)) <= 1e-6


@pytest.mark.parametrize("method", ["nag-restart", "restarted-agd"])
def test_a_first_step_too_long_is_taken_back(method):
    """From L1 = 1e-9 the first trial lies where the function overflows."""
    with np.errstate(over="ignore"):
        result = minimize_nonconvex(
            lambda x: float(np.sum(np.cosh(x))),
            np.array([1.0, 2.0]),
            jac=np.sinh,
            method=method,
            L1=1e-9,
            tol=1e-8,
        )
    assert result.success and abs(result.x).max() < 1e-7


def test_momentum_with_restarts_beats_gradient_descent():
    H, b, _ = quadratic(np.geomspace(1e-3, 1, 40))
    calls = {}
    for method in ("gd", "nag-restart", "restarted-agd"):
        result = minimize_nonconvex(
            lambda x: float(x @ H @ x / 2 - b @ x),
            np.zeros(40),
            jac=lambda x: H @ x - b,
            method=method,
            L1=1.0,
            tol=1e-6,
        )
        calls[method] = result.njev
    assert calls["nag-restart"] < calls["gd"] / 10
    assert calls["restarted-agd"] < calls["gd"]


def test_gradient_descent_with_a_step_too_long_says_that_it_diverged():
    with np.errstate(over="ignore", invalid="ignore"):
        result = minimize_nonconvex(
            lambda x: float(x @ x),
            np.ones(2),
            jac=lambda x: 2 * x,
            method="gd",
            L1=0.5,
        )
    assert not result.success and result.status == 3
    assert np.isfinite(result.x).all() and "returned" in result.message
