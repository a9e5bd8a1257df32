"""Operators and their spectral radii against closed forms and brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar

from lib.games import (
    BilinearGame,
    gd_step_bound,
    negative_momentum_interval,
    operator_matrix,
    optimal_momentum,
    spectral_radius,
)

eigenvalues = st.builds(
    lambda r, psi: r * np.exp(1j * psi),
    st.floats(0.05, 20.0),
    st.floats(-1.55, 1.55),
)


def real_form(eig):
    """A real 2 x 2 matrix with the eigenvalues eig and its conjugate."""
    return np.array([[eig.real, eig.imag], [-eig.imag, eig.real]])


def momentum_roots(eig, lr, beta):
    """Roots of mu^2 - (1 - lr eig + beta) mu + beta, by the stable formula."""
    half = (1 - lr * eig + beta) / 2
    root = np.sqrt(complex(half**2 - beta))
    big = half + root if abs(half + root) >= abs(half - root) else half - root
    return big, (beta / big if big else 0.0)


def rotation(sigma=1.0):
    return BilinearGame([[sigma]]).M


# Gradient steps


def random_spectrum(rng):
    """Some eigenvalues with positive real parts, one of each conjugate pair."""
    n = rng.integers(1, 5)
    psi = rng.uniform(0, 1.5, n) * (rng.random(n) < 0.7)
    return np.exp(rng.normal(size=n) + 1j * psi)


def test_step_bound_is_exact(record_property):
    rng, worst = np.random.default_rng(0), 0.0
    for _ in range(500):
        eigs = random_spectrum(rng)
        bound = gd_step_bound(eigs)
        assert bound == pytest.approx(min(2 * eigs.real / np.abs(eigs) ** 2))
        at = np.abs(1 - bound * eigs).max()
        worst = max(worst, abs(at - 1))
        assert np.abs(1 - 0.999 * bound * eigs).max() < 1
        assert np.abs(1 - 1.001 * bound * eigs).max() > 1
    record_property("value", float(worst))
    record_property("trials", 500)
    assert worst < 1e-12


def test_step_bound_examples():
    # the report's ascent field A = [[-.1, -1], [1, -.1]] descends -A
    eigs = np.linalg.eigvals(-np.array([[-0.1, -1.0], [1.0, -0.1]]))
    assert gd_step_bound(eigs) == pytest.approx(0.2 / 1.01)
    # not the largest eigenvalue decides
    spread = np.array([2.0, 2.0, 0.05 + 1j, 0.05 - 1j])
    assert gd_step_bound(spread) == pytest.approx(0.1 / 1.0025)
    assert gd_step_bound(2.0) == 1.0 and gd_step_bound([1.0]) == 2.0
    for unstable in ([1, -1], [1j, -1j], [0.0], [2.0, 0.0]):
        assert gd_step_bound(unstable) == 0.0
    assert gd_step_bound([1e-300]) == pytest.approx(2e300)


def test_rates_of_gradient_steps(record_property):
    # Equations 2 to 4 of the report, Theorem 2 of Gidel et al.: bounds on the best
    # step and its rate.
    rng, worst, trials = np.random.default_rng(1), -np.inf, 400
    for _ in range(trials):
        eigs = random_spectrum(rng)
        inverse = (1 / eigs).real
        first = eigs[np.argmin(inverse)]
        low = (1 / first).real
        steps = np.linspace(0, 2.2 * low, 20_001)
        square = (np.abs(1 - np.outer(steps, eigs)) ** 2).max(axis=1)
        best, rate = steps[square.argmin()], square.min()
        delta = (np.abs(eigs) ** 2 * (2 * inverse - low)).min()
        grid = steps[1]
        sine = (eigs.imag / np.abs(eigs)) ** 2
        worst = max(
            worst,
            sine.max() - rate,
            rate - (1 - low * delta) - grid * np.abs(eigs).max(),
            low - best - grid,
            best - 2 * low - grid,
        )
        assert delta > 0
    record_property("value", float(worst))
    record_property("trials", int(trials))
    assert worst <= 1e-12


# Momentum


@given(eig=eigenvalues, lr=st.floats(0.01, 3), beta=st.floats(-0.95, 0.95))
@settings(max_examples=100, deadline=None)
def test_momentum_operator_has_the_roots_of_theorem_3(eig, lr, beta):
    T = operator_matrix(real_form(eig), "momentum", lr, momentum=beta)
    roots = np.array(momentum_roots(eig, lr, beta))
    expected = np.r_[roots, roots.conj()]
    # as polynomials: roots that nearly coincide are badly conditioned
    np.testing.assert_allclose(
        np.poly(T), np.poly(expected).real, rtol=1e-9, atol=1e-9 * abs(eig * lr) ** 2
    )
    # the form in print, with the branch of the root that it names
    s = 1 - lr * eig + beta
    if abs(s) > 1e-3:
        root = np.sqrt(1 - 4 * beta / s**2)
        printed = s * (1 + np.array([1, -1]) * root) / 2
        np.testing.assert_allclose(printed.sum(), roots.sum(), atol=1e-9 * abs(s))
        np.testing.assert_allclose(printed.prod(), beta, atol=1e-6)


def test_condition_of_theorem_4(record_property):
    rng, trials, violations = np.random.default_rng(2), 4000, 0
    for _ in range(trials):
        eig = np.exp(rng.normal()) * np.exp(1j * rng.uniform(-1.5, 1.5))
        lr = rng.uniform(0.01, 3) / eig.real
        low, high = negative_momentum_interval(eig)
        # rho'(0) from the definition, by complex-free central differences
        h = 1e-6
        rho = [max(np.abs(momentum_roots(eig, lr, b))) ** 2 for b in (h, -h)]
        slope = (rho[0] - rho[1]) / (2 * h)
        away = min(abs(lr - low), abs(lr - high)) * eig.real > 1e-4
        violations += away and ((slope > 0) != (low < lr < high))
    record_property("value", float(violations))
    record_property("trials", int(trials))
    assert violations == 0


def test_slope_of_theorem_4_at_the_best_step_only():
    # 2 Re(eig) Re(1/eig) is the slope at lr = Re(1/eig), not at other steps
    eig, h = 1 + 2j, 1e-6

    def slope(lr):
        a, b = (max(np.abs(momentum_roots(eig, lr, s))) ** 2 for s in (h, -h))
        return (a - b) / (2 * h)

    best = (1 / eig).real
    assert slope(best) == pytest.approx(2 * eig.real * best, abs=1e-6)
    assert slope(0.1) == pytest.approx(-0.0118, abs=1e-4)
    assert slope(0.3) == pytest.approx(1.094, abs=1e-3)


@given(psi=st.floats(0.01, 1.55))
@settings(max_examples=200, deadline=None)
def test_one_sixth_of_pi_is_the_threshold(psi):
    # The best step of a spectrum that eig limits lies in [Re(1/eig), 2 Re(1/eig)].
    eig = 3 * np.exp(1j * psi)
    low, high = negative_momentum_interval(eig)
    step = (1 / eig).real
    assert low < step < high
    if abs(psi - np.pi / 6) > 1e-6:
        assert (2 * step < high) == (psi > np.pi / 6)
    assert 2 * step < high or psi < np.pi / 4


def test_threshold_is_sharp():
    # Below pi/6 there is a spectrum whose best step leaves I(eig).
    eig = np.exp(1j * (np.pi / 6 - 0.05))
    steps = np.linspace(0, 2.5, 200_001)
    worst = np.maximum(np.abs(1 - steps * eig), np.abs(1 - steps * 1e-4))
    assert steps[worst.argmin()] > negative_momentum_interval(eig)[1]


def best_gradient_step(eigs):
    """Best common step of two eigenvalues and whether both of them limit it."""
    a, b = eigs
    steps = [(1 / a).real, (1 / b).real, 2 * (a - b).real / (abs(a) ** 2 - abs(b) ** 2)]
    rates = [np.abs(1 - s * eigs).max() if s > 0 else np.inf for s in steps]
    return steps[np.argmin(rates)], np.argmin(rates) == 2


def test_sign_of_a_little_momentum():
    # Which sign lowers the radius of two eigenvalues, after adjusting the step.
    rng, seen = np.random.default_rng(5), {True: 0, False: 0}
    for _ in range(60):
        eigs = np.exp(1j * rng.uniform(0, 1.5, 2)) * [1, np.exp(rng.uniform(0.1, 3))]
        step, both = best_gradient_step(eigs)
        rho = np.abs(1 - step * eigs).max()
        low, high = np.sort((1 - step * eigs).real)
        gap = 2 * (rho**2 - low) * (high - rho**2) - rho**2 * (1 - rho**2)
        if both and abs(gap) < 0.05 * rho**2 * (1 - rho**2):
            continue
        helps = not both or gap < 0

        def radius(beta, step=step, eigs=eigs):
            return minimize_scalar(
                lambda s: max(np.abs(momentum_roots(e, s, beta)).max() for e in eigs),
                bounds=(0.95 * step, 1.05 * step),
                method="bounded",
                options={"xatol": 1e-9},
            ).fun

        assert (radius(-2e-3) < radius(0.0)) == helps
        assert (radius(2e-3) < radius(0.0)) != helps
        seen[helps] += 1
    assert min(seen.values()) > 5


def test_quarter_pi_is_sharp_for_the_spectral_radius():
    # Above pi/4 negative momentum helps beside any slow real eigenvalue, below it
    # there is one beside which it does not.
    for degrees, helps in ((46, True), (60, True), (44, False), (35, False)):
        eigs = np.array([np.exp(1j * np.radians(degrees)), 1e-4])
        step, both = best_gradient_step(eigs)
        assert both
        rho = np.abs(1 - step * eigs).max()
        low, high = np.sort((1 - step * eigs).real)
        left = 2 * (rho**2 - low) * (high - rho**2)
        assert (left < rho**2 * (1 - rho**2)) == helps


def test_optimal_momentum_closed_form():
    for psi in (0.0, 0.3, np.pi / 4, 1.2, -0.8):
        eig = 2.5 * np.exp(1j * psi)
        lr, beta, radius = optimal_momentum(eig)
        assert radius == pytest.approx(np.tan(abs(psi) / 2))
        assert beta == pytest.approx(-np.tan(psi / 2) ** 2)
        assert lr * abs(eig) == pytest.approx(1 + abs(beta))
        # a double root: the discriminant vanishes
        assert (1 - lr * eig + beta) ** 2 == pytest.approx(4 * beta, abs=1e-12)
        assert np.abs(momentum_roots(eig, lr, beta)).max() == pytest.approx(radius)
    assert optimal_momentum(4.0) == (0.25, 0.0, 0.0)


def test_no_step_and_momentum_are_faster(record_property):
    rng, trials, worst = np.random.default_rng(3), 25, 0.0

    def radius(x, eig):
        return np.abs(momentum_roots(eig, x[0], x[1])).max()

    for _ in range(trials):
        eig = np.exp(rng.normal()) * np.exp(1j * rng.uniform(0.05, 1.5))
        best = optimal_momentum(eig)[2]
        starts = rng.uniform([0, -1], [3, 1], (6, 2)) / [abs(eig), 1]
        found = min(
            minimize(radius, x0, (eig,), "Nelder-Mead", tol=1e-9).fun for x0 in starts
        )
        worst = max(worst, abs(found / best - 1))
        grid = rng.uniform([0, -1], [4, 1], (2000, 2)) / [abs(eig), 1]
        assert min(radius(x, eig) for x in grid) >= best
    record_property("value", float(worst))
    record_property("trials", int(trials))
    assert worst < 1e-3


@given(
    eig=eigenvalues,
    lr=st.floats(0.01, 3),
    beta=st.floats(-0.9, 0.9),
    R=st.floats(0.05, 1.0),
)
@settings(max_examples=300, deadline=None)
def test_fast_eigenvalues_fill_an_ellipse(eig, lr, beta, R):
    x, y = (lr * eig).real, (lr * eig).imag
    radius = np.abs(momentum_roots(eig, lr, beta)).max()
    if abs(beta) >= R**2:
        assert radius >= R * (1 - 1e-12)
        return
    a, b = R + beta / R, R - beta / R
    inside = ((x - 1 - beta) / a) ** 2 + (y / b) ** 2
    if abs(inside - 1) > 1e-6:
        assert (radius < R) == (inside < 1)


# Bilinear games


def test_simultaneous_momentum_diverges_on_bilinear_games(record_property):
    slack = []
    for step in (0.01, 0.1, 0.5, 1.0, 2.0):
        for beta in np.linspace(-0.99, 0.99, 67):
            r = spectral_radius(rotation(step), "momentum", 1.0, momentum=beta)
            slack.append(1 - r)
    record_property("value", float(max(slack)))
    record_property("trials", int(len(slack)))
    assert max(slack) < 0


def test_alternating_gradient_steps_are_neutral():
    for step in (0.01, 0.5, 1.0, 1.9, 1.99):
        r = spectral_radius(rotation(step), "gd", 1.0, update="alternating")
        assert r == pytest.approx(1.0, abs=1e-12)
        assert spectral_radius(rotation(step), "gd", 1.0) == pytest.approx(
            np.hypot(1, step)
        )
    assert spectral_radius(rotation(2.1), "gd", 1.0, update="alternating") > 1.1


def alternating(step, *momentum):
    return spectral_radius(
        rotation(step), "momentum", 1.0, momentum=momentum, update="alternating"
    )


def test_alternating_negative_momentum_converges(record_property):
    # Gidel et al., Theorem 6: eta = 1 / sigma_max, momentum -1/2 of one player. The
    # larger of 1/2 and 1 - (eta sigma)^2 / 16 bounds the factor of squared distances.
    steps = np.linspace(0.01, 1, 100)
    slack = [alternating(s, -0.5, 0.0) ** 2 - max(0.5, 1 - s**2 / 16) for s in steps]
    record_property("value", float(max(slack)))
    record_property("trials", int(len(steps)))
    assert max(slack) < 0
    assert alternating(1.0, -0.5, 0.0) == pytest.approx(0.8722, abs=5e-5)
    # whoever has the momentum
    assert alternating(0.7, 0.0, -0.5) == pytest.approx(alternating(0.7, -0.5, 0.0))
    # with both it ends at eta sigma = 1: -1 is an eigenvalue
    assert alternating(1.0, -0.5, -0.5) == pytest.approx(1.0, abs=1e-9)
    assert alternating(0.99, -0.5, -0.5) < 1


def test_alternating_characteristic_polynomial():
    rng = np.random.default_rng(4)
    for _ in range(20):
        step, b1, b2 = rng.uniform([0.1, -0.9, -0.9], [2, 0.9, 0.9])
        T = operator_matrix(
            rotation(step), "momentum", 1.0, momentum=(b1, b2), update="alternating"
        )
        expected = np.polymul([1, -2, 1], np.polymul([1, -b1], [1, -b2]))
        expected = np.polyadd(expected, [step**2, 0, 0, 0])
        np.testing.assert_allclose(np.poly(T), expected, atol=1e-12)


def test_fastest_one_sided_momentum():
    # beta = -1/8 and (eta sigma)^2 = 27/8 make -1/2 a triple root.
    at = (np.sqrt(27 / 8), -1 / 8, 0.0)
    T = operator_matrix(
        rotation(at[0]), "momentum", 1.0, momentum=at[1:], update="alternating"
    )
    np.testing.assert_allclose(np.poly(T), np.poly([-0.5, -0.5, -0.5, 0]), atol=1e-12)
    for step in np.linspace(0.05, 2, 40):
        for beta in np.linspace(-0.95, 0.95, 39):
            assert alternating(step, beta, 0.0) >= 0.5


# Other methods


def test_optimism_on_a_rotation():
    def radius(step, **options):
        return spectral_radius(rotation(step), "ogda", 1.0, **options)

    assert radius(0.5) == pytest.approx(np.sqrt(0.5), abs=1e-7)
    assert min(radius(s) for s in np.linspace(0.01, 1, 199)) >= np.sqrt(0.5) - 1e-7
    limit = 1 / np.sqrt(3)
    assert radius(limit - 1e-6) < 1 < radius(limit + 1e-6)
    assert radius(0.3, optimism=0.0) == pytest.approx(np.hypot(1, 0.3))


def test_extragradient_on_a_rotation():
    for step in np.linspace(0.05, 1.5, 30):
        r = spectral_radius(rotation(step), "extragradient", 1.0)
        assert r == pytest.approx(np.sqrt(1 - step**2 + step**4))
    best = spectral_radius(rotation(np.sqrt(0.5)), "extragradient", 1.0)
    assert best == pytest.approx(np.sqrt(3) / 2)


def test_consensus_on_a_rotation(record_property):
    # Eigenvalues gamma sigma^2 -+ i sigma: steps below 2 gamma / (1 + gamma^2 sigma^2)
    # converge. The bound is largest, 1 / sigma, at gamma = 1 / sigma; the best rate,
    # the sine of the angle, goes on falling.
    worst = 0.0
    for sigma in (0.3, 1.0, 4.0):
        J = rotation(sigma)
        gammas = np.linspace(0.02, 5, 250) / sigma
        bounds = []
        for gamma in gammas:
            eigs = np.linalg.eigvals(J + gamma * J.T @ J)
            bounds.append(gd_step_bound(eigs))
            exact = 2 * gamma / (1 + gamma**2 * sigma**2)
            worst = max(worst, abs(bounds[-1] / exact - 1))
            for factor in (0.999, 1.001):
                r = spectral_radius(J, "consensus", factor * exact, gamma=gamma)
                assert (r < 1) == (factor < 1)
        assert gammas[np.argmax(bounds)] == pytest.approx(1 / sigma, rel=0.02)
        assert max(bounds) <= 1 / sigma + 1e-12
        for product in (0.5, 1.0, 3.0):
            best = min(
                spectral_radius(J, "consensus", h / sigma, gamma=product / sigma)
                for h in np.linspace(0.01, 1, 400)
            )
            assert best == pytest.approx(1 / np.hypot(1, product), rel=1e-3)
    record_property("value", float(worst))
    record_property("trials", 750)
    assert worst < 1e-9


# Contracts


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: gd_step_bound([]), ValueError, "eigs.*at least one"),
        (lambda: gd_step_bound([np.nan]), ValueError, "eigs.*finite"),
        (lambda: optimal_momentum(1j), ValueError, "eig.*positive real part.*1j"),
        (lambda: optimal_momentum(np.inf), ValueError, "eig.*finite.*inf"),
        (lambda: optimal_momentum("a"), TypeError, "eig.*'a'"),
        (lambda: negative_momentum_interval(-1 + 1j), ValueError, "eig.*-1"),
        (lambda: operator_matrix(np.ones((2, 3)), "gd", 1), ValueError, "jac.*square"),
        (lambda: operator_matrix([[np.nan]], "gd", 1), ValueError, "jac.*NaN"),
        (lambda: operator_matrix(np.eye(2), "gd", -1), ValueError, "lr.*-1"),
        (lambda: operator_matrix(np.eye(2), "sgd", 1), ValueError, "method.*'sgd'"),
        (
            lambda: operator_matrix(np.eye(2), "gd", 1, sizes=(3,)),
            ValueError,
            r"sizes.*2.*\(3,\)",
        ),
        (
            lambda: spectral_radius(np.eye(2), "momentum", 1, momentum=(0.1, 1.0)),
            ValueError,
            "momentum.*1.0",
        ),
        (
            lambda: spectral_radius([[1]], "extragradient", 1, update="alternating"),
            ValueError,
            "update.*extragradient",
        ),
    ],
)
def test_bad_arguments_are_refused_by_name(call, error, words):
    with pytest.raises(error, match=words):
        call()
