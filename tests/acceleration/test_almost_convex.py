"""Negative curvature, almost convex steps, and the accelerated non-convex method."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.acceleration import (
    Oracle,
    almost_convex_agd,
    biweight,
    lanczos_iterations,
    lower_bound_chain,
    matrix_factorization,
    minimize_nonconvex,
    negative_curvature_descent,
    phase_retrieval,
    ramp,
    saddle_staircase,
)
from lib.acceleration.almost_convex import _Leashed

L2 = 1.5


def cubic_well(a):
    """-a t^2 / 2 + L2 |t|^3 / 6, on which the promised decrease is attained."""
    return (
        lambda x: float(-a * x[0] ** 2 / 2 + L2 * abs(x[0]) ** 3 / 6),
        lambda x: -a * x + L2 * x * abs(x) / 2,
        lambda x: np.array([[L2 * abs(x[0]) - a]]),
    )


# ---- negative curvature -------------------------------------------------------------


def test_a_step_decreases_f_by_what_the_lemma_promises_and_no_more(record_property):
    worst = 0.0
    for a in (0.1, 0.5, 2.0):
        f, g, h = cubic_well(a)
        oracle = Oracle(f, np.zeros(1), jac=g, hess=h)
        z, curvature = negative_curvature_descent(
            oracle, oracle.x0, L1=10.0, L2=L2, alpha=0.9 * a, Delta=1.0
        )
        worst = max(worst, abs(f(z) / (-2 * a**3 / (3 * L2**2)) - 1))
        assert abs(z[0]) == pytest.approx(2 * a / L2) and curvature.bound == a
        assert oracle.history["event"].tolist() == ["negative curvature"]
    record_property("value", float(worst))
    record_property("trials", 3)
    assert worst <= 1e-9


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(0, 10**6), st.floats(0.02, 1.0))
def test_every_step_decreases_f_by_the_promise_for_its_own_curvature(d, seed, alpha):
    """Random sums of cosines: |third derivative| <= sum |c| |w|^3."""
    rng = np.random.default_rng(seed)
    w, c = rng.standard_normal((5, d)), rng.standard_normal(5)
    lengths = np.linalg.norm(w, axis=1)
    L1 = float(abs(c) @ lengths**2)
    L2 = float(abs(c) @ lengths**3)
    alpha = alpha * L1
    seen = []

    def hessp(x, v):
        return -(w.T * (c * np.cos(w @ x))) @ (w @ v)

    def f(x):
        return float(c @ np.cos(w @ x))

    def jac(x):
        seen.append(x.copy())
        return -w.T @ (c * np.sin(w @ x))

    oracle = Oracle(f, rng.standard_normal(d), jac=jac, hessp=hessp)
    z, curvature = negative_curvature_descent(
        oracle, oracle.x0, L1=L1, L2=L2, alpha=alpha, Delta=2 * float(abs(c).sum())
    )
    # The gradient is asked at every point, before and after a step.
    path = seen
    for here, there in zip(path, path[1:], strict=False):
        step = there - here
        length = np.linalg.norm(step)
        v = step / length
        curve = float(v @ hessp(here, v))
        assert length == pytest.approx(2 * abs(curve) / L2, rel=1e-6)
        promised = 2 * abs(curve) ** 3 / (3 * L2**2)
        assert f(here) - f(there) >= promised - 1e-12
        assert promised >= alpha**3 / (12 * L2**2) * (1 - 1e-9)
    H = np.stack([hessp(z, e) for e in np.eye(d)])
    smallest = np.linalg.eigvalsh(H)[0]
    assert smallest >= -alpha and curvature.bound <= smallest + 1e-9 <= (
        curvature.value + 2e-9
    )


def test_the_sign_of_zero_is_plus_one():
    """At an exact saddle the step goes against the vector of Lanczos' method."""
    oracle = Oracle(
        lambda x: float(x[1] ** 2 / 2 - math.cos(0) * x[0] ** 2 / 2),
        np.zeros(2),
        jac=lambda x: np.array([-x[0], x[1]]),
        hessp=lambda x, v: np.array([-v[0] if abs(x[0]) < 1 else v[0], v[1]]),
    )
    from lib.acceleration.curvature import lanczos

    _, v, *_ = lanczos(
        lambda v: oracle.hessp(oracle.x0, v), 2, 2, np.random.default_rng(5), oracle.x0
    )
    z, _ = negative_curvature_descent(
        oracle, oracle.x0, L1=1.0, L2=1.0, alpha=0.5, Delta=1.0, seed=5
    )
    np.testing.assert_allclose(z, -2 * v, atol=1e-12)


def test_it_goes_downhill_whatever_the_sign_of_the_vector():
    for seed in range(10):
        f, g, h = cubic_well(1.0)
        oracle = Oracle(f, np.array([0.1]), jac=g, hess=h)
        z, _ = negative_curvature_descent(
            oracle, oracle.x0, L1=9.0, L2=L2, alpha=0.5, Delta=1.0, seed=seed
        )
        assert z[0] > 0.1


def test_a_certificate_costs_the_products_that_the_theorem_counts():
    d, L1, alpha, Delta = 200, 1.0, 0.05, 3.0
    diagonal = np.linspace(0.0, 1.0, d)
    oracle = Oracle(
        lambda x: float(diagonal @ x**2 / 2),
        np.ones(d),
        jac=lambda x: diagonal * x,
        hessp=lambda x, v: diagonal * v,
    )
    negative_curvature_descent(
        oracle, oracle.x0, L1=L1, L2=2.0, alpha=alpha, Delta=Delta, delta=0.1
    )
    failure = 0.1 / (1 + 12 * 2.0**2 * Delta / alpha**3)
    assert oracle.nhevp == lanczos_iterations(d, L1, alpha, failure)
    assert oracle.njev == 0


# ---- almost convex functions --------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.02, 1.0), st.floats(1e-4, 0.3))
def test_progress_is_at_least_that_of_the_lemma(seed, share, eps):
    """f = sum of sines: curvature in [-1, 1] times the weights, gamma of it below."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, 6))
    frequency = rng.uniform(0.3, 1.0, d)
    gamma = share
    quadratic = rng.uniform(0, 2, d)
    weight = gamma / frequency**2

    def f(x):
        return float(weight @ np.cos(frequency * x) + quadratic @ x**2 / 2)

    def grad(x):
        return -weight * frequency * np.sin(frequency * x) + quadratic * x

    L = float(np.max(quadratic)) + gamma
    z = rng.standard_normal(d) * 5
    end = almost_convex_agd(grad, z, eps, gamma, L)
    assert np.linalg.norm(grad(end)) <= eps
    move = np.linalg.norm(end - z)
    promised = min(gamma * move**2, eps / math.sqrt(10) * move)
    assert f(z) - f(end) >= promised - 1e-12


def test_progress_on_random_functions_is_that_of_the_lemma(record_property):
    """Sums of a cosine and a parabola; the largest of promise less decrease."""
    worst, trials = -math.inf, 180
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        d = int(rng.integers(1, 20))
        gamma, eps = rng.uniform(0.05, 1.0), 10 ** rng.uniform(-3, -0.5)
        bowl = rng.uniform(0, 3, d)

        def grad(x, gamma=gamma, bowl=bowl):
            return bowl * x - gamma * np.sin(x)

        z = rng.standard_normal(d) * 4
        end = almost_convex_agd(grad, z, eps, gamma, 3.0 + gamma)
        values = [gamma * np.cos(x).sum() + bowl @ x**2 / 2 for x in (z, end)]
        move = np.linalg.norm(end - z)
        promised = min(gamma * move**2, eps / math.sqrt(10) * move)
        worst = max(worst, promised - (values[0] - values[1]))
    record_property("value", float(worst))
    record_property("trials", int(trials))
    assert worst <= 1e-12


def test_the_smoothness_of_the_proximal_function_counts():
    """With step 1 / L, as printed, instead of 1 / (L + 2 gamma), the loop diverges."""
    from lib.acceleration.gradient import agd_loop

    L, gamma = 1.0, 1.0

    def g(y):
        return (L + 2 * gamma) * y

    start = np.ones(1)
    assert agd_loop(g, start, 1e-6, L + 2 * gamma, gamma)[1]
    assert not agd_loop(g, start, 1e-6, L, gamma)[1]


def test_gamma_below_the_non_convexity_is_said():
    with pytest.warns(RuntimeWarning, match="more iterations than suffice"):
        almost_convex_agd(
            lambda x: np.array([-x[0], x[1]]), np.ones(2), 1e-6, 0.01, 1.0
        )


def test_an_accuracy_below_rounding_is_said(backend):
    scale = backend.asarray([1.0, 3.0])
    with pytest.warns(RuntimeWarning, match="rounding"):
        almost_convex_agd(
            lambda x: (
                scale * x + (x * x).cos()
                if backend.kind == "torch"
                else scale * x + np.cos(x * x)
            ),
            backend.asarray([1e3, 2e3]),
            1e-16,
            1.0,
            1e5,
        )


def worst_curvatures(L1, L2, alpha, radii):
    """Smallest and largest curvature of f_k where f is as bad as L1 and L2 allow.

    The curvature of f falls from -alpha at the rate L2, as steeply as it may, and the
    penalty adds its tangential or its radial curvature.
    """
    leash, centre = alpha / L2, np.zeros(2)
    oracle = Oracle(lambda x: 0.0, centre, jac=lambda x: 0 * x)
    leashed = _Leashed(oracle, centre, L1, leash)
    lowest, highest = 0.0, 0.0
    for s in leash * radii:
        x, h = np.array([s, 0.0]), 1e-6 * leash
        tangential = (leashed(x + [0, h]) - leashed(x - [0, h]))[1] / (2 * h)
        radial = (leashed(x + [h, 0]) - leashed(x - [h, 0]))[0] / (2 * h)
        lowest = min(lowest, max(-L1, -alpha - L2 * s) + min(tangential, radial))
        highest = max(highest, L1 + max(tangential, radial))
    return lowest, highest


CONSTANTS = [(1.0, 2.0, 0.05), (3.0, 0.5, 1.0), (1.0, 1.0, 1.0), (2.0, 7.0, 1e-3)]
RADII = np.append(np.linspace(0.9, 1.1, 201), np.geomspace(0.01, 1e4, 2001))


def test_the_penalised_function_is_within_the_constants_of_the_paper(record_property):
    slack = []
    for L1, L2, alpha in CONSTANTS:
        lowest, highest = worst_curvatures(L1, L2, alpha, RADII)
        slack += [-lowest / (3 * alpha) - 1, highest / (5 * L1) - 1]
    record_property("value", float(max(slack)))
    record_property("trials", int(len(CONSTANTS) * len(RADII)))
    assert max(slack) <= 0


def test_the_tight_constants_are_valid_and_attained(record_property):
    """f_k is 2 alpha-almost convex and 3 L1-smooth, and no better pair is true."""
    gaps = []
    for L1, L2, alpha in CONSTANTS:
        lowest, highest = worst_curvatures(L1, L2, alpha, RADII)
        attained = -min(2 * alpha, L1)
        assert lowest >= attained * (1 + 1e-4)
        assert highest <= 3 * L1 * (1 + 1e-4)
        gaps += [abs(lowest / attained - 1), abs(highest / (3 * L1) - 1)]
    record_property("value", float(max(gaps)))
    record_property("trials", int(len(CONSTANTS) * len(RADII)))
    assert max(gaps) <= 0.02


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_the_leash_is_the_gradient_of_the_squared_penalty(seed):
    rng = np.random.default_rng(seed)
    centre, x = rng.standard_normal((2, 3))
    L1, leash = 1.3, rng.uniform(0, 3)
    oracle = Oracle(lambda x: 0.0, centre, jac=lambda x: 0 * x)
    leashed = _Leashed(oracle, centre, L1, leash)

    def penalty(x):
        return L1 * max(0.0, np.linalg.norm(x - centre) - leash) ** 2

    h, expected = 1e-6, np.empty(3)
    for i, e in enumerate(np.eye(3)):
        expected[i] = (penalty(x + h * e) - penalty(x - h * e)) / (2 * h)
    np.testing.assert_allclose(leashed(x), expected, atol=1e-5)


# ---- the method ---------------------------------------------------------------------


@pytest.mark.parametrize(("constants", "a", "b"), [("paper", 3, 5), ("tight", 2, 3)])
def test_proximal_steps_get_the_constants_of_the_leash(monkeypatch, constants, a, b):
    """gamma = a alpha and L = b L1, to half of the accuracy."""
    from lib.acceleration import almost_convex

    seen, original = [], almost_convex._prox_loop

    def spy(grad, z, eps, gamma, L, *rest):
        seen.append((eps, gamma, L))
        return original(grad, z, eps, gamma, L, *rest)

    monkeypatch.setattr(almost_convex, "_prox_loop", spy)
    problem = ramp(0.05, L1=2.0, L2=0.5)
    minimize_nonconvex(
        problem.fun,
        problem.x0,
        **problem.functions,
        **problem.constants,
        tol=0.05,
        constants=constants,
    )
    alpha = math.sqrt(0.05 * 0.5)
    assert len(seen) > 3
    np.testing.assert_allclose(seen, [(0.025, a * alpha, b * 2.0)] * len(seen))


PROBLEMS = {
    "ramp": (ramp(0.02), 0.02),
    "rescaled ramp": (ramp(0.03, L1=5.0, L2=0.3, Delta=4.0), 0.03),
    "staircase": (saddle_staircase(0.05), 0.05),
    "biweight": (biweight(30, 10, seed=1), 0.03),
    "factorization": (matrix_factorization(12, 3), 0.05),
    "factorization at the saddle": (matrix_factorization(12, 3, scale=0), 0.05),
    "phase": (phase_retrieval(10, 60), 0.1),
    "chain": (lower_bound_chain(15), 0.03),
}


def solve(problem, tol, method, **keywords):
    return minimize_nonconvex(
        problem.fun, problem.x0, method=method, tol=tol, **keywords, **problem.functions
    )


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("constants", ["paper", "tight"])
def test_it_returns_a_second_order_stationary_point(name, constants):
    problem, tol = PROBLEMS[name]
    result = solve(problem, tol, "anc", constants=constants, **problem.constants)
    assert result.success and result.certificate == "second-order"
    assert np.linalg.norm(problem.jac(result.x)) <= tol
    smallest = np.linalg.eigvalsh(problem.hess(result.x))[0]
    assert smallest >= -math.sqrt(tol * problem.L2)
    assert result.fun < problem.fun(problem.x0)
    known = result.history["fun"][np.isfinite(result.history["fun"])]
    assert np.all(np.diff(known) <= 1e-9)


@pytest.mark.parametrize("name", PROBLEMS)
def test_it_does_so_without_constants(name):
    problem, tol = PROBLEMS[name]
    result = solve(problem, tol, "anc-adaptive")
    assert result.success and result.certificate == "second-order"
    assert np.linalg.norm(problem.jac(result.x)) <= tol
    smallest = np.linalg.eigvalsh(problem.hess(result.x))[0]
    # The estimate of L2 is at most twice the constant.
    assert smallest >= -math.sqrt(2 * tol * problem.L2)
    fixed = solve(problem, tol, "anc-adaptive", alpha=0.01)
    assert fixed.success
    assert np.linalg.eigvalsh(problem.hess(fixed.x))[0] >= -0.01


@pytest.mark.parametrize("name", ["ramp", "rescaled ramp", "phase", "staircase"])
def test_tight_constants_save_calls(name):
    problem, tol = PROBLEMS[name]
    calls = {
        c: solve(problem, tol, "anc", constants=c, **problem.constants)
        for c in ("paper", "tight")
    }
    paper, tight = (r.njev + r.nhevp for r in calls.values())
    assert tight < 0.95 * paper


def test_the_number_of_outer_steps_on_the_ramp_is_that_of_the_leash():
    """A step ends a little behind the leash alpha / L2: R L2 / alpha steps at most."""
    for eps in (0.05, 0.01):
        problem = ramp(eps)
        result = solve(problem, eps, "anc", **problem.constants)
        leashes = (1 / (2 * eps)) / math.sqrt(eps)
        assert 0.7 * leashes <= result.nit <= leashes + 5


@pytest.mark.parametrize("scale", [1e-3, 30.0])
def test_estimates_that_are_far_off_are_corrected(scale):
    """Start from constants a thousand times too small, or thirty times too large."""
    problem, tol = PROBLEMS["biweight"]
    result = solve(
        problem,
        tol,
        "anc-adaptive",
        L1=problem.L1 * scale,
        L2=problem.L2 * scale,
        max_oracle=2 * 10**6,
    )
    assert result.success
    assert np.linalg.norm(problem.jac(result.x)) <= tol


def test_the_method_without_constants_copes_with_quadratics():
    """L2 = 0, and an exact saddle, from which f falls without end: budget spent."""
    H = np.diag([1.0, 4.0, 9.0])
    result = minimize_nonconvex(
        lambda x: float(x @ H @ x / 2),
        np.ones(3),
        jac=lambda x: H @ x,
        method="anc-adaptive",
        tol=1e-6,
    )
    assert result.success and abs(result.x).max() < 1e-5
    S = np.diag([1.0, -1.0])
    with pytest.warns(RuntimeWarning, match="budget of 2000"):
        result = minimize_nonconvex(
            lambda x: float(x @ S @ x / 2),
            np.zeros(2),
            jac=lambda x: S @ x,
            hess=lambda x: S,
            method="anc-adaptive",
            max_oracle=2000,
        )
    assert not result.success and result.certificate == "none"


def test_alpha_of_L1_needs_no_curvature_on_the_way_but_a_certificate_at_the_end():
    """For sqrt(tol L2) >= L1 the negative curvature is no obstacle to the proof."""
    problem = ramp(0.2, L1=0.2, L2=1.0)
    result = solve(problem, 0.2, "anc", **problem.constants)
    assert result.success and 1 <= result.nhevp <= 2
    saddle = saddle_staircase(0.1, L1=0.32, L2=1.0)
    result = solve(saddle, 0.1, "anc", L1=0.32, L2=2.0, Delta=1.0, alpha=None)
    assert result.success and result.fun < -0.3


@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        ({"alpha": 2.0}, ValueError, "alpha must be at most L1"),
        ({"L2": 0.0}, ValueError, "L2 must be"),
        ({"Delta": math.nan}, ValueError, "Delta must be"),
        ({"delta": 0.0}, ValueError, "delta must be"),
        ({"delta": True}, TypeError, "delta must be"),
        ({"oracle": None}, TypeError, "oracle must be an Oracle"),
    ],
)
def test_bad_arguments_of_negative_curvature_descent(keywords, error, match):
    oracle = Oracle(lambda x: 0.0, np.ones(2), jac=lambda x: 0 * x)
    arguments = {"L1": 1.0, "L2": 1.0, "alpha": 0.5, "Delta": 1.0} | keywords
    oracle = arguments.pop("oracle", oracle)
    with pytest.raises(error, match=match):
        negative_curvature_descent(oracle, np.ones(2), **arguments)


@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        ({"gamma": 2.0}, ValueError, "gamma must be at most L"),
        ({"eps": -1.0}, ValueError, "eps must be"),
        ({"grad": None}, TypeError, "grad must be callable"),
        ({"z": np.ones((1, 2))}, ValueError, "z must be 1-D"),
    ],
)
def test_bad_arguments_of_almost_convex_agd(keywords, error, match):
    arguments = {"grad": np.sin, "z": np.ones(2), "eps": 0.1, "gamma": 1.0, "L": 1.0}
    with pytest.raises(error, match=match):
        almost_convex_agd(**(arguments | keywords))
