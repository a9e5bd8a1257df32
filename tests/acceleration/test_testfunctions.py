"""Test functions: derivatives, constants and minimisers, checked by numbers."""

import math

import numpy as np
import pytest

from lib.acceleration import (
    biweight,
    lower_bound_chain,
    matrix_factorization,
    phase_retrieval,
    ramp,
    saddle_staircase,
)

PROBLEMS = {
    "ramp": ramp(0.03, L1=2.0, L2=0.5, Delta=0.7),
    "steep ramp": ramp(0.5, L1=0.5, L2=3.0, R=2.0),
    "staircase": saddle_staircase(0.1, L1=1.5, L2=2.0, Delta=2.0),
    "low staircase": saddle_staircase(0.9),
    "biweight": biweight(20, 6, seed=3),
    "factorization": matrix_factorization(7, 2, seed=1),
    "factorization at the saddle": matrix_factorization(6, 3, scale=0),
    "phase": phase_retrieval(6, 30, seed=2),
    "chain": lower_bound_chain(8),
    "long chain": lower_bound_chain(5, mu=1.0, r=3.0),
}


@pytest.fixture(params=PROBLEMS)
def problem(request):
    return PROBLEMS[request.param]


def points(problem, count, seed=0):
    """Random points around the start, the minimiser and the way between."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        t = rng.uniform(-0.3, 1.3)
        x = (1 - t) * problem.x0 + t * problem.x_star
        x = x + 10.0 ** rng.uniform(-3, 0) * rng.standard_normal(x.size)
        length = np.linalg.norm(x)
        yield x * min(1.0, 0.999 * problem.radius / length)


def test_derivatives_agree_with_differences(problem):
    rng = np.random.default_rng(1)
    h = 1e-5
    for x in points(problem, 10):
        v = rng.standard_normal(x.size)
        slope = (problem.fun(x + h * v) - problem.fun(x - h * v)) / (2 * h)
        scale = 1 + np.linalg.norm(problem.jac(x)) * np.linalg.norm(v)
        assert problem.jac(x) @ v == pytest.approx(slope, abs=1e-6 * scale)
        change = (problem.jac(x + h * v) - problem.jac(x - h * v)) / (2 * h)
        size = problem.L1 * np.linalg.norm(v)
        np.testing.assert_allclose(problem.hessp(x, v), change, atol=1e-4 * size)
        np.testing.assert_allclose(
            problem.hess(x) @ v, problem.hessp(x, v), atol=1e-10 * size
        )


def test_lipschitz_constants_bound_every_sampled_ratio(problem):
    first, second = 0.0, 0.0
    for seed in range(20):
        pairs = list(points(problem, 12, seed))
        for x, y in zip(pairs[::2], pairs[1::2], strict=True):
            # Near pairs see the local constants, far ones the mean ones.
            for t in (1.0, 1e-3):
                z = x + t * (y - x)
                gap = np.linalg.norm(z - x)
                change = np.linalg.norm(problem.jac(z) - problem.jac(x))
                first = max(first, change / gap)
                turn = np.linalg.norm(problem.hess(z) - problem.hess(x), 2)
                second = max(second, turn / gap)
    assert first <= problem.L1 * (1 + 1e-6)
    assert second <= problem.L2 * (1 + 1e-4)


@pytest.mark.parametrize(
    ("name", "share"),
    [("ramp", 0.999), ("staircase", 0.9), ("low staircase", 0.9), ("chain", 0.5)],
)
def test_the_constants_of_the_made_up_functions_are_nearly_attained(name, share):
    problem, ratios = PROBLEMS[name], [0.0, 0.0]
    for i in {0, 1, problem.x0.size - 1}:
        for t in np.linspace(-3, 3, 601) + problem.x_star[i]:
            x, e = problem.x_star.copy(), np.zeros(problem.x0.size)
            x[i], e[i] = t, 1e-4
            ratios[0] = max(ratios[0], abs(problem.hessp(x, e)[i]) / 1e-4)
            turn = problem.hessp(x + e, e)[i] - problem.hessp(x, e)[i]
            ratios[1] = max(ratios[1], abs(turn) / 1e-8)
    assert ratios[0] >= share * problem.L1
    assert ratios[1] >= share * problem.L2


def test_x_star_is_a_minimiser_and_delta_bounds_the_drop(problem):
    x, f = problem.x_star, problem.fun(problem.x_star)
    assert np.linalg.norm(problem.jac(x)) <= 1e-10 * problem.L1
    assert np.linalg.eigvalsh(problem.hess(x))[0] >= -1e-10 * problem.L1
    assert problem.Delta >= problem.fun(problem.x0) - f - 1e-12
    lowest = min(problem.fun(y) for y in points(problem, 300))
    if problem is not PROBLEMS["biweight"]:
        assert lowest >= f - 1e-12
    assert problem.fun(problem.x0) - lowest <= problem.Delta + 1e-12


def test_the_radius_holds_every_point_that_is_no_higher_than_the_start():
    for name in ("factorization", "phase"):
        problem = PROBLEMS[name]
        for seed in range(200):
            v = np.random.default_rng(seed).standard_normal(problem.x0.size)
            # The ball is of the spectral norm for a matrix: a rank-one direction.
            if name == "factorization":
                v = np.outer(v[:7], v[7:9]).ravel()
            x = v / np.linalg.norm(v) * problem.radius * 1.0001
            assert problem.fun(x) > problem.fun(problem.x0)


def test_the_ramp_is_convex_and_as_long_as_its_height_says():
    for eps in (0.01, 0.1):
        problem = ramp(eps, Delta=2.0)
        for x in np.linspace(-1, 3 / eps, 500):
            assert np.linalg.eigvalsh(problem.hess(np.array([x, 0.3])))[0] >= 0
        R = 2.0 / (2 * eps)
        assert problem.jac(np.array([R, 0.0]))[0] == -2 * eps
        valley = 8 / 3 * eps**1.5
        expected = 2.0 + valley + eps**2 / 2
        assert problem.Delta == pytest.approx(expected, rel=1e-9)


def test_one_stair_falls_by_exactly_what_the_lemma_promises():
    eps, L2 = 0.04, 2.0
    a = math.sqrt(eps * L2)
    problem = saddle_staircase(eps, L1=3.0, L2=L2)
    x = problem.x0.copy()
    x[0] = 2 * a / L2
    assert problem.fun(x) == pytest.approx(-2 * a**3 / (3 * L2**2), rel=1e-12)
    assert problem.Delta == pytest.approx(1.0, abs=a**3 / (3 * L2**2))


def test_the_chain_hides_its_coordinates():
    problem = lower_bound_chain(12, mu=0.3)
    for known in range(12):
        x = np.append(np.linspace(1, 2, known), np.zeros(13 - known))
        g = problem.jac(x)
        assert np.all(g[known + 1 :] == 0)
        assert np.linalg.norm(g) > 0.3**0.75 / 4


def test_the_biweight_loss_has_the_constants_of_its_derivatives():
    problem = biweight(1, 1, seed=0)
    a = problem.hessp(np.zeros(1), np.ones(1))  # some multiple of a^2
    assert a.shape == (1,)
    t = np.linspace(-5, 5, 200_001)
    second = (2 - 6 * t**2) / (1 + t**2) ** 3
    third = 24 * t * (t**2 - 1) / (1 + t**2) ** 4
    scale = problem.L1 / 2
    assert np.abs(second).max() == pytest.approx(2)
    assert problem.L2 / scale**1.5 == pytest.approx(np.abs(third).max(), rel=1e-6)


def test_the_same_seed_makes_the_same_problem():
    for make in (biweight, matrix_factorization, phase_retrieval):
        one, two, other = make(seed=1), make(seed=1), make(seed=2)
        x = one.x0 + 0.1
        assert one.fun(x) == two.fun(x) != other.fun(x)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: ramp(0.0), ValueError, "eps must be"),
        (lambda: ramp(0.1, L2=-1), ValueError, "L2 must be"),
        (lambda: ramp(0.1, R=0.0), ValueError, "R must be"),
        (lambda: saddle_staircase(2.0), ValueError, "eps must be at most"),
        (lambda: biweight(0), ValueError, "m must be"),
        (lambda: biweight(5, 2.0), TypeError, "d must be"),
        (lambda: matrix_factorization(3, 4), ValueError, "rank must be at most"),
        (lambda: matrix_factorization(3, scale=-1), ValueError, "scale must be"),
        (lambda: phase_retrieval(5, 4), ValueError, "m must be at least"),
        (lambda: lower_bound_chain(3, mu=2.0), ValueError, "mu must be at most"),
        (lambda: lower_bound_chain(3, r=0.5), ValueError, "r at least"),
    ],
)
def test_bad_arguments_are_named(make, error, match):
    with pytest.raises(error, match=match):
        make()
