"""Certificates of curvature, L-BFGS with one, and perturbed accelerated descent."""

from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, rosen, rosen_der, rosen_hess_prod

from lib.acceleration import Oracle, escape, lanczos_min_eig, minimize_nonconvex


class Counted:
    """Functions of a problem that count their own calls, independently of lib."""

    def __init__(self, f, g, product):
        self.f, self.g, self.product = f, g, product
        self.nfev = self.njev = self.nhevp = 0

    def fun(self, x):
        self.nfev += 1
        return self.f(x)

    def jac(self, x):
        self.njev += 1
        return self.g(x)

    def both(self, x):
        return self.fun(x), self.jac(x)

    def hessp(self, x, v):
        self.nhevp += 1
        return self.product(x, v)

    def agrees(self, result):
        names = ("nfev", "njev", "nhevp")
        return {n: getattr(self, n) for n in names} == {n: result[n] for n in names}


def quartic(h):
    """Return sum h x^2 / 2 + x^4 / 4, with the Hessian diag(h) at the critical 0."""
    return Counted(
        lambda x: float(h @ x**2 / 2 + np.sum(x**4) / 4),
        lambda x: h * x + x**3,
        lambda x, v: (h + 3 * x**2) * v,
    )


def factorization(seed=0, shape=(10, 8), rank=2):
    """Return |U V' - A|^2 / 2, its start zero, which is a strict saddle, and min."""
    A = np.random.default_rng(seed).standard_normal(shape)
    m = shape[0]

    def split(z):
        z = z.reshape(-1, rank)
        return z[:m], z[m:]

    def f(z):
        U, V = split(z)
        return 0.5 * np.sum((U @ V.T - A) ** 2)

    def g(z):
        U, V = split(z)
        R = U @ V.T - A
        return np.vstack([R @ V, R.T @ U]).ravel()

    def product(z, v):
        (U, V), (dU, dV) = split(z), split(v)
        R, dR = U @ V.T - A, dU @ V.T + U @ dV.T
        return np.vstack([dR @ V + R @ dV, dR.T @ U + R.T @ dU]).ravel()

    least = 0.5 * np.sum(np.linalg.svd(A, compute_uv=False)[rank:] ** 2)
    return Counted(f, g, product), np.zeros(sum(shape) * rank), least


# The certificate


@pytest.mark.parametrize("d", [2, 3, 40, 500])
@pytest.mark.parametrize("delta", [0.02, 0.2])
def test_certificate_errs_as_often_as_it_says_in_the_worst_case(d, delta):
    # Two eigenvalues, the lower one just too low and simple: a random start hides it
    # with probability delta, neither more nor less.
    h = np.ones(d)
    h[0] = -0.1001
    runs = 1500
    wrong = sum(
        lanczos_min_eig(lambda v: h * v, d, alpha=0.1, delta=delta, seed=s)[0] > -0.1
        for s in range(runs)
    )
    spread = 4.5 * np.sqrt(delta * (1 - delta) / runs)
    # Undetected means: the Ritz value of one product, near 1, was thought to be it.
    assert abs(wrong / runs - delta) < spread + 0.002


@pytest.mark.parametrize("d", [2, 10, 300])
@pytest.mark.parametrize("shape", ["uniform", "edge", "cluster", "outlier"])
def test_certificate_is_right_in_99_of_100_seeds(d, shape, record_property):
    alpha, runs = 1e-2, 400
    rest = np.linspace(0, 1, d - 1)
    h = {
        "uniform": np.r_[-1.02 * alpha, rest],
        "edge": np.r_[-1.02 * alpha, rest - 0.99 * alpha],
        "cluster": np.r_[-1.02 * alpha, np.full(d - 1, 0.5) + 1e-6 * rest],
        "outlier": np.r_[-1.02 * alpha, rest[:-1], 1e4],
    }[shape]
    wrong = products = 0
    for seed in range(runs):
        value, v, used = lanczos_min_eig(
            lambda v: h * v, d, alpha=alpha, stop_below=-alpha / 2, seed=seed
        )
        wrong += value > -alpha / 2
        products += used
        assert v @ (h * v) == pytest.approx(value, abs=1e-10)
    record_property("value", float(wrong / runs - 0.01))
    record_property("trials", int(runs))
    assert wrong <= 0.01 * runs
    assert products <= runs * d


def test_certificate_is_given_where_it_is_true_and_cheaper_than_the_worst_case():
    d, alpha = 1000, 1e-3
    h = np.linspace(-0.4 * alpha, 1.0, d)
    for seed in range(20):
        value, _, used = lanczos_min_eig(
            lambda v: h * v, d, alpha=alpha, stop_below=-alpha / 2, seed=seed
        )
        assert value >= h[0] - 1e-14
        worst = lanczos_min_eig(lambda v: h * v, d, alpha=alpha, L1=1.0, seed=seed)[2]
        assert used < 0.6 * worst


def test_certificate_of_an_invariant_space_is_exact():
    value, _, used = lanczos_min_eig(lambda v: 2.0 * v, 50, alpha=1e-9)
    assert (round(value, 12), used) == (2.0, 1)
    assert lanczos_min_eig(lambda v: -v, 1, alpha=1e-3)[0] == -1.0


# L-BFGS with a certificate


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("products", [True, False])
def test_lbfgs_counts_and_certifies(fused, products):
    problem = Counted(rosen, rosen_der, rosen_hess_prod)
    result = minimize_nonconvex(
        problem.both if fused else problem.fun,
        np.tile([-1.2, 1.0], 10),
        jac=True if fused else problem.jac,
        hessp=problem.hessp if products else None,
        method="lbfgs-nc",
    )
    assert result.success, result.message
    assert result.certificate == "second-order"
    assert problem.agrees(result)
    np.testing.assert_allclose(result.x, 1.0, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_lbfgs_takes_no_more_gradients_than_scipys_with_the_same_memory(seed):
    x0 = np.tile([-1.2, 1.0], 10) + np.random.default_rng(seed).uniform(-0.3, 0.3, 20)
    norms = []

    def both(x):
        norms.append(np.linalg.norm(rosen_der(x)))
        return rosen(x), rosen_der(x)

    options = {"maxcor": escape.MEMORY, "ftol": 0, "gtol": 0}
    minimize(both, x0, jac=True, method="L-BFGS-B", options=options)
    gradients = 1 + np.flatnonzero(np.array(norms) <= 1e-5)[0]
    problem = Counted(rosen, rosen_der, rosen_hess_prod)
    result = minimize_nonconvex(
        problem.fun, x0, jac=problem.jac, hessp=problem.hessp, method="lbfgs-nc"
    )
    assert result.success
    assert result.njev <= 1.2 * gradients
    assert 0 < result.nhevp <= 20


def test_two_loops_are_the_matrix_of_bfgs():
    rng = np.random.default_rng(0)
    pairs = deque()
    for _ in range(6):
        s, y = rng.standard_normal((2, 4))
        y = y if s @ y > 0 else -y
        pairs.append((s, y, s @ y, 1.0))
    H = np.eye(4) * (s @ y) / (y @ y)
    for s, y, inner, _ in pairs:
        V = np.eye(4) - np.outer(y, s) / inner
        H = V.T @ H @ V + np.outer(s, s) / inner
    g = rng.standard_normal(4)
    np.testing.assert_allclose(escape._times_inverse(pairs, g), H @ g, rtol=1e-9)
    np.testing.assert_array_equal(escape._times_inverse(deque(), g), g)


@given(
    a=st.floats(-3, 3), b=st.floats(0.1, 5), x=st.floats(-4, 4), t=st.floats(1e-3, 1e3)
)
@settings(max_examples=150, deadline=None)
def test_line_search_meets_both_conditions_of_wolfe(a, b, x, t):
    def f(x):
        return float(np.sqrt(1 + (x[0] - a) ** 2) + 0.3 * np.sin(b * x[0]))

    def g(x):
        u = x - a
        return u / np.sqrt(1 + u**2) + 0.3 * b * np.cos(b * x)

    oracle = Oracle(f, np.array([x]), jac=g)
    start = oracle.x0
    value, d = oracle.fun(start), -oracle.grad(start)
    slope = -float(d @ d)
    if slope > -1e-6:
        return
    there, at_there, g_there = escape._wolfe_step(oracle, start, value, d, slope, t)
    length = float((there - start) @ d / (d @ d))
    noise = 4 * np.finfo(float).eps * abs(value)
    assert at_there == f(there)
    assert at_there <= value + 1e-4 * length * slope + 1.01 * noise
    assert g_there @ d >= 0.9 * slope


@pytest.mark.parametrize("offset", [0.0, -1e3])
def test_pairs_from_when_the_loss_was_twice_as_large_are_forgotten(offset, monkeypatch):
    kept, direction = [], escape._times_inverse

    def spy(pairs, g):
        kept.append([f for *_, f in pairs])
        return direction(pairs, g)

    monkeypatch.setattr(escape, "_times_inverse", spy)
    problem = Counted(lambda x: rosen(x) + offset, rosen_der, rosen_hess_prod)
    result = minimize_nonconvex(
        problem.fun,
        np.tile([-1.2, 1.0], 20),
        jac=problem.jac,
        hessp=problem.hessp,
        method="lbfgs-nc",
    )
    assert result.success
    if offset:  # not a loss that tends to zero: the rule sleeps
        assert max(map(len, kept)) > 40
        return
    assert max(map(len, kept)) > escape.RECENT
    for values in kept:
        old = [f for f in values if f > escape.STALE * values[-1]]
        assert not old or len(values) <= escape.RECENT


@pytest.mark.parametrize("method", ["lbfgs-nc", "arc", "pagd"])
@pytest.mark.parametrize("seed", range(3))
def test_methods_leave_the_exact_saddle_of_a_factorisation(method, seed):
    problem, x0, least = factorization(seed)
    scipys = minimize(problem.fun, x0, jac=problem.jac, method="L-BFGS-B")
    assert scipys.success  # at a strict saddle, without a step
    assert scipys.nit <= 1
    problem.nfev = problem.njev = 0
    result = minimize_nonconvex(
        problem.fun,
        x0,
        jac=problem.jac,
        hessp=problem.hessp,
        method=method,
        L1=40.0,
        L2=20.0,
        max_oracle=50_000,
    )
    assert result.certificate == "second-order", result.message
    assert problem.agrees(result)
    assert result.fun == pytest.approx(least, abs=1e-5)
    events = set(result.history["event"])
    assert ("perturbation" if method == "pagd" else "negative curvature") in events


@pytest.mark.parametrize("method", ["lbfgs-nc", "arc"])
def test_no_saddle_is_certified_in_99_of_100_seeds(method):
    # lambda_min(0) = -1.1 alpha: too low. -0.4 alpha: must be certified at once.
    alpha, runs, wrong = 1e-2, 300, 0
    low = quartic(np.r_[-1.1 * alpha, np.linspace(0, 1, 30)])
    fine = quartic(np.r_[-0.4 * alpha, np.linspace(0, 1, 30)])
    for seed in range(runs):
        options = {"method": method, "alpha": alpha, "seed": seed, "callback": _stop}
        result = minimize_nonconvex(
            low.fun, np.zeros(31), jac=low.jac, hessp=low.hessp, **options
        )
        wrong += result.success
        assert result.success == bool((result.x == 0).all())
        result = minimize_nonconvex(
            fine.fun, np.zeros(31), jac=fine.jac, hessp=fine.hessp, **options
        )
        assert (result.x == 0).all()
        assert result.certificate == "second-order"
        assert -alpha / 2 < result.lambda_min
    assert wrong <= 0.01 * runs


def _stop(x):
    raise StopIteration


def test_first_step_along_negative_curvature_is_the_guaranteed_one():
    # f = -t^2 / 2 + |t|^3 / 6 has L2 = 1; the step 2 |value| / L2 = 2 falls by 2 / 3.
    oracle = Oracle(
        lambda x: float(-(x[0] ** 2) / 2 + abs(x[0]) ** 3 / 6),
        np.zeros(1),
        jac=lambda x: -x + x * abs(x) / 2,
    )
    there = escape._descend(oracle, oracle.x0, np.ones(1), -1.0, 1.0)
    assert abs(there[0]) == 2.0
    assert oracle.fun(there) == pytest.approx(-2 / 3)
    # without L2 the length is found, also where the function is wide or narrow
    for width in (1e-3, 1e3):
        oracle = Oracle(
            lambda x, w=width: float(w**2 * np.cos(x[0] / w)),
            np.zeros(1),
            jac=lambda x, w=width: -w * np.sin(x / w),
        )
        there = escape._descend(oracle, oracle.x0, np.ones(1), -1.0, None)
        assert oracle.fun(there) < 0.5 * width**2


def test_a_descent_that_rounding_hides_is_no_success():
    # curvature -1e-2 under a constant of 1e16: f cannot fall by less than 2
    problem = Counted(
        lambda x: 1e16 - 0.005 * float(x[0] ** 2) + 0.1 * float(x[0] ** 4),
        lambda x: np.array([-0.01 * x[0] + 0.4 * x[0] ** 3]),
        lambda x, v: (-0.01 + 1.2 * x**2) * v,
    )
    result = minimize_nonconvex(
        problem.fun,
        np.zeros(1),
        jac=problem.jac,
        hessp=problem.hessp,
        method="lbfgs-nc",
    )
    assert not result.success
    assert "rounding" in result.message
    assert result.certificate == "none"


def test_lbfgs_says_when_it_makes_no_progress():
    problem = Counted(
        lambda x: float(np.sum((x - 1 / 3) ** 2) + 1.0),
        lambda x: 2 * (x - 1 / 3) + 1e-9,  # never small enough
        lambda x, v: 2 * v,
    )
    result = minimize_nonconvex(
        problem.fun,
        np.ones(2),
        jac=problem.jac,
        hessp=problem.hessp,
        method="lbfgs-nc",
        tol=1e-17,
    )
    assert not result.success
    assert "no progress" in result.message


def test_a_small_gradient_on_a_plateau_beyond_the_line_search_is_no_end():
    # The first trial point, at distance one, lies where the loss is all but flat.
    trials = []

    def gradient(x):
        return 2e-6 * x / (1e-6 + x**2) ** 2

    def fun(x):
        trials.append(np.linalg.norm(gradient(x)))
        return float(np.sum(x**2 / (1e-6 + x**2)))

    result = minimize_nonconvex(
        fun,
        np.array([5e-4, 2e-4]),
        jac=gradient,
        hessp=lambda x, v: 2e-6 * (1e-6 - 3 * x**2) / (1e-6 + x**2) ** 3 * v,
        method="lbfgs-nc",
        tol=1e-3,
    )
    assert trials[1] < 1e-3
    assert result.success
    np.testing.assert_allclose(result.x, 0, atol=1e-8)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_torch_gives_torch(device, dtype):
    x0 = torch.zeros(3, 2, dtype=getattr(torch, dtype), device=device)
    result = minimize_nonconvex(
        lambda x: (x**4).sum() / 4 - (x**2).sum() / 8,
        x0,
        method="lbfgs-nc",
        tol=1e-4,
    )
    assert result.success, result.message
    assert result.x.shape == x0.shape
    assert result.x.dtype == x0.dtype
    assert result.x.device == x0.device
    np.testing.assert_allclose(result.x.abs().cpu(), 0.5, atol=1e-3)


# Perturbed accelerated gradient descent


def test_pagd_is_nesterovs_method_where_nothing_disturbs_it():
    h = np.array([1.0, 0.3, 0.01])
    problem, L1, L2, tol = quartic(h), 4.0, 6.0, 1e-3
    x0, seen = np.array([1.0, -1.0, 1.0]), []
    minimize_nonconvex(
        problem.fun,
        x0,
        jac=problem.jac,
        hessp=problem.hessp,
        method="pagd",
        L1=L1,
        L2=L2,
        tol=tol,
        callback=_limit(40, seen),
    )
    theta = 1 / (4 * np.sqrt(L1 / np.sqrt(L2 * tol)))
    x, v = x0, np.zeros(3)
    assert len(seen) == 40
    for found in seen:
        y = x + (1 - theta) * v
        x_new = y - problem.g(y) / (4 * L1)
        x, v = x_new, x_new - x
        np.testing.assert_allclose(found, x, atol=1e-14)


def _limit(count, seen):
    def callback(x):
        seen.append(x)
        if len(seen) == count:
            raise StopIteration

    return callback


def test_pagd_exploits_negative_curvature_where_two_points_prove_it():
    # On -a x^2 / 2 the test is met exactly if a > gamma.
    L1, L2, tol = 1.0, 1.0, 1e-2
    kappa = L1 / np.sqrt(L2 * tol)
    gamma = (1 / (4 * np.sqrt(kappa))) ** 2 * 4 * L1
    for a, exploits in ((0.5 * gamma, False), (2.0 * gamma, True)):
        result = minimize_nonconvex(
            lambda x, a=a: float(-a * x[0] ** 2 / 2),
            np.ones(1),
            jac=lambda x, a=a: -a * x,
            method="pagd",
            L1=L1,
            L2=L2,
            tol=tol,
            callback=_limit(20, []),
        )
        assert ("negative curvature" in result.history["event"]) == exploits


def test_pagd_perturbs_within_its_ball_and_uniformly():
    rng = np.random.default_rng(0)
    points = np.array([escape._in_ball(rng, 3, 2.0) for _ in range(4000)])
    radii = np.linalg.norm(points, axis=1)
    assert radii.max() <= 2.0
    assert np.mean(radii <= 1.0) == pytest.approx(1 / 8, abs=0.025)
    assert np.abs(points.mean(axis=0)).max() < 0.1
