"""Finite sums: closed forms, the variance bound, both methods against literal loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad, minimize

from lib.acceleration import FiniteSum, katyusha, katyusha_parameters, svrg

METHODS = (svrg, katyusha)


def problem(n=40, d=5, *, loss="logistic", l2=0.01, seed=0, array=np.asarray):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * np.geomspace(1, 0.05, d)
    y = X @ np.linspace(1, -1, d) + 0.3 * rng.standard_normal(n)
    if loss == "logistic":
        y = np.where(y > 0, 1.0, -1.0)
    return FiniteSum(array(X), array(y), loss=loss, l2=l2)


def ridge_solution(P):
    H = P.X.T @ P.X / P.n + P.l2 * np.eye(P.dim)
    return np.linalg.solve(H, P.X.T @ P.y / P.n)


def component(P, i, w):
    """Gradient of one loss, from its formula."""
    t = P.X[i] @ w
    slope = t - P.y[i] if P.loss == "squares" else -P.y[i] / (1 + np.exp(t * P.y[i]))
    return slope * P.X[i]


# The objective


@pytest.mark.parametrize("loss", ["logistic", "squares"])
def test_gradient_is_the_derivative_and_the_mean_of_components(loss):
    P = problem(loss=loss)
    w = np.random.default_rng(1).standard_normal(P.dim)
    assert check_grad(P.fun, P.grad, w) < 1e-6
    mean = np.mean([component(P, i, w) for i in range(P.n)], axis=0)
    np.testing.assert_allclose(P.grad(w), mean + P.l2 * w, atol=1e-14)


@pytest.mark.parametrize("loss", ["logistic", "squares"])
def test_smoothness_bounds_every_component_and_is_attained(loss):
    P = problem(loss=loss)
    i = int(np.argmax((P.X**2).sum(1)))
    h = 1e-5 * P.X[i] / np.linalg.norm(P.X[i])
    change = component(P, i, h) - component(P, i, -h)
    # At zero the logistic loss has its largest second derivative, 1/4.
    slope = np.linalg.norm(change) / np.linalg.norm(2 * h)
    assert slope == pytest.approx(P.smoothness, rel=1e-6)
    u, v = np.random.default_rng(2).standard_normal((2, 200, P.dim))
    for a, b in zip(u, v, strict=True):
        for i in range(0, P.n, 7):
            lhs = np.linalg.norm(component(P, i, a) - component(P, i, b))
            assert lhs <= P.smoothness * np.linalg.norm(a - b) * (1 + 1e-12)


def test_logistic_loss_does_not_overflow():
    P = FiniteSum([[1e6]], [1.0])
    assert P.fun(np.array([-1.0])) == pytest.approx(1e6)
    assert P.fun(np.array([1.0])) == 0.0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["logistic", "squares"]))
def test_the_corrected_gradient_is_unbiased_and_its_variance_bounded(seed, loss):
    # All components in turn: an exact expectation, no sampling.
    P = problem(15, 3, loss=loss, l2=0.0, seed=seed)
    w, snapshot = 3 * np.random.default_rng(seed).standard_normal((2, P.dim))
    g = np.array(
        [
            P.grad(snapshot) + component(P, i, w) - component(P, i, snapshot)
            for i in range(P.n)
        ]
    )
    np.testing.assert_allclose(g.mean(0), P.grad(w), atol=1e-12)
    variance = ((g - P.grad(w)) ** 2).sum(1).mean()
    bregman = P.fun(snapshot) - P.fun(w) - P.grad(w) @ (snapshot - w)
    assert variance <= 2 * P.smoothness * bregman + 1e-12


# The methods


@pytest.mark.parametrize("batch_size", [1, 7])
@pytest.mark.parametrize("method", METHODS)
def test_ridge_regression_finds_the_closed_form(method, batch_size):
    P = problem(loss="squares", l2=0.05)
    found = method(P, tol=1e-11, max_passes=3000, batch_size=batch_size, random_state=0)
    assert found.success and found.status == 0
    np.testing.assert_allclose(found.x, ridge_solution(P), atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_logistic_regression_finds_scipys_minimum(method):
    P = problem()
    peer = minimize(P.fun, np.zeros(P.dim), jac=P.grad, tol=1e-12)
    found = method(P, tol=1e-9, max_passes=2000, random_state=0)
    assert found.success
    np.testing.assert_allclose(found.x, peer.x, atol=1e-5)
    assert found.fun <= peer.fun + 1e-12


def literal(P, kind, epochs, batch, seed):
    """The two algorithms line by line, snapshots as explicit weighted sums."""
    rng = np.random.default_rng(seed)
    m = math.ceil(2 * P.n / batch)
    snapshot = w = y = z = np.zeros(P.dim)
    for s in range(epochs):
        rows = rng.integers(P.n, size=(m, batch))
        full = P.grad(snapshot) - P.l2 * snapshot
        points = []
        _, tau1, tau2, alpha = katyusha_parameters(
            P.n, P.smoothness, P.l2, batch_size=batch, epoch=s
        )
        if kind == "svrg":
            L = P.smoothness
            alpha = batch / (6 * L + 2 * math.sqrt(9 * L**2 + L * P.l2 * batch))
        for i in rows:
            x = w if kind == "svrg" else tau1 * z + tau2 * snapshot
            x = x + (0 if kind == "svrg" else (1 - tau1 - tau2) * y)
            g = full + np.mean(
                [component(P, j, x) - component(P, j, snapshot) for j in i], axis=0
            )
            if kind == "svrg":
                w = (w - alpha * g) / (1 + alpha * P.l2)
                points.append(w)
            else:
                old, z = z, (z - alpha * g) / (1 + alpha * P.l2)
                y = x + tau1 * (z - old)
                points.append(y)
        weights = (1 + alpha * P.l2) ** np.arange(m)
        snapshot = weights @ points / weights.sum()
    return snapshot


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("l2", [0.0, 0.05])
@pytest.mark.parametrize("method", METHODS)
def test_equals_the_algorithm_line_by_line(method, l2, batch):
    P = problem(20, 4, l2=l2)
    m = math.ceil(2 * P.n / batch)
    found = method(
        P, tol=1e-300, max_passes=4 + 3 * m * batch / P.n, batch_size=batch,
        random_state=5,
    )  # fmt: skip
    assert found.nepoch == 3
    ours = literal(P, method.__name__, 3, batch, 5)
    np.testing.assert_allclose(found.x, ours, rtol=1e-10, atol=1e-12)


def one_epoch(method, P, w0, seed):
    """Snapshots before and after an epoch, from the start w0."""
    return method(P, w0, tol=1e-300, max_passes=4, random_state=seed).x


@pytest.mark.parametrize("ratio", [0.1, 1.0, 30.0])
def test_an_svrg_epoch_contracts_as_the_analysis_says(ratio):
    # From a start that is its own snapshot; the terms of the last iterate are left
    # out on the left-hand side, so the bound is one of the mean gap alone.
    P = problem(20, 4, loss="squares", l2=0.01)
    P = FiniteSum(P.X, P.y, loss="squares", l2=P.smoothness / (ratio * P.n))
    best, w0, m = P.fun(ridge_solution(P)), np.ones(P.dim), 2 * P.n
    L, sigma = P.smoothness, P.l2
    eta = 1 / (6 * L + 2 * math.sqrt(9 * L**2 + L * sigma))
    theta, c = 1 + eta * sigma, 8 * eta**2 * L
    assert 4 * eta * L * (3 + eta * sigma) == pytest.approx(1)
    S = (theta**m - 1) / (theta - 1)
    gap = P.fun(w0) - best
    start = (
        np.sum((w0 - ridge_solution(P)) ** 2) + (c + (2 * eta - c * theta) * S) * gap
    )
    after = np.mean([P.fun(one_epoch(svrg, P, w0, s)) - best for s in range(40)])
    bound = max(theta**-m, 0.5) * start / ((2 * eta - c * theta) * S)
    assert 0 < after <= bound


@pytest.mark.parametrize("ratio", [0.1, 1.0, 30.0])
def test_katyusha_keeps_its_promise_over_six_epochs(ratio):
    P = problem(20, 4, loss="squares", l2=0.01)
    P = FiniteSum(P.X, P.y, loss="squares", l2=P.smoothness / (ratio * P.n))
    w_best, w0 = ridge_solution(P), np.ones(P.dim)
    gap = P.fun(w0) - P.fun(w_best)
    m, tau1, tau2, alpha = katyusha_parameters(P.n, P.smoothness, P.l2)
    theta = 1 + alpha * P.l2
    S = (theta**m - 1) / (theta - 1)
    # potential: snapshot, last y, and last z; all three are w0 at first
    start = (tau2 * S + 1 - tau1 - tau2) * gap
    start += tau1 / (2 * alpha) * np.sum((w0 - w_best) ** 2)
    rate = max(theta**-m, tau2) if tau1 + tau2 == 1 else theta**-m
    found = [
        katyusha(P, w0, tol=1e-300, max_passes=19, random_state=s).history["fun"]
        for s in range(30)
    ]
    after = np.mean(found, axis=0) - P.fun(w_best)
    for s, value in enumerate(after):
        assert value <= rate**s * start / (tau2 * S)


def test_katyusha_without_strong_convexity_falls_as_the_square_of_the_epochs():
    P = problem(30, 4, loss="squares", l2=0.0)
    w_best = np.linalg.lstsq(P.X, P.y, rcond=None)[0]
    found = [
        katyusha(P, max_passes=61, random_state=s).history["fun"] for s in range(8)
    ]
    after = np.mean(found, axis=0) - P.fun(w_best)
    gap, square = P.fun(np.zeros(P.dim)) - P.fun(w_best), w_best @ w_best
    for s, value in enumerate(after[1:], start=1):
        bound = (16 * gap + 6 * P.smoothness * square / P.n) / (s + 4) ** 2
        assert value <= bound


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 10**6),
    st.floats(1e-8, 1e3),
    st.integers(1, 2000),
)
def test_parameters_satisfy_the_condition_of_the_proof(n, ratio, b):
    b = min(b, n)
    m, tau1, tau2, alpha = katyusha_parameters(n, 1.0, ratio, batch_size=b)
    assert m == math.ceil(2 * n / b) and alpha == pytest.approx(1 / (3 * tau1))
    assert 0 < tau1 <= 1 - tau2 and tau2 == 0.5 / b
    if tau1 < 1 - tau2:
        growth = math.expm1((m - 1) * math.log1p(alpha * ratio))
        lhs = tau2 * growth + alpha * ratio / (1 + alpha * ratio)
        assert lhs <= tau1 * (1 + 1e-9)


@given(st.integers(1, 10**6), st.floats(1e-8, 1e2))
def test_parameters_of_single_rows_are_the_papers(n, sigma):
    m, tau1, tau2, alpha = katyusha_parameters(n, 2.0, sigma)
    paper = min(math.sqrt(m * sigma) / math.sqrt(3 * 2.0), 0.5)
    assert (m, tau2) == (2 * n, 0.5)
    assert tau1 == pytest.approx(paper) and alpha == pytest.approx(1 / (6 * paper))


def test_falling_momentum_lets_the_epochs_telescope():
    for s in range(2000):
        a, b = (katyusha_parameters(5, 1.0, 0.0, epoch=k)[1] for k in (s, s + 1))
        spare = (a + 0.5) / a**2 - 0.5 / b**2
        assert spare >= 0
        assert spare + (0.5 - a) / a**2 >= (0.5 - b) / b**2 - 1e-9


# Contracts


@pytest.mark.parametrize("batch_size", [1, 6])
@pytest.mark.parametrize("method", METHODS)
def test_counts_are_what_an_independent_counter_sees(method, batch_size, monkeypatch):
    P, seen = problem(), [0]
    slopes = P._slopes

    def counted(t, y):
        seen[0] += np.size(t)
        return slopes(t, y)

    monkeypatch.setattr(P, "_slopes", counted)
    found = method(P, tol=1e-12, max_passes=20, batch_size=batch_size, random_state=0)
    assert found.ngrad == seen[0] == found.history["ngrad"][-1]
    assert found.ngrad <= 20 * P.n
    assert found.nit == found.nepoch * math.ceil(2 * P.n / batch_size)
    assert found.ngrad == (found.nepoch + 1) * P.n + found.nit * batch_size


@pytest.mark.parametrize("method", METHODS)
def test_kind_and_dtype_are_kept_and_kinds_agree(method, backend):
    P = problem()
    expected = method(P, max_passes=13, random_state=3)
    for dtype, tol in (("float64", 1e-12), ("float32", 2e-5)):
        Q = FiniteSum(backend.asarray(P.X, dtype), backend.asarray(P.y, dtype), l2=P.l2)
        w0 = backend.asarray(np.zeros(P.dim), dtype)
        found = method(Q, w0, max_passes=13, random_state=3)
        assert backend.owns(found.x, dtype) and backend.owns(found.jac, dtype)
        np.testing.assert_allclose(backend.numpy(found.x), expected.x, atol=tol)
        assert found.fun == pytest.approx(expected.fun, abs=tol)


@pytest.mark.parametrize("method", METHODS)
def test_seeds_decide_the_path(method):
    P = problem()
    a, b, c = (method(P, max_passes=8, random_state=s).x for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize("method", METHODS)
def test_a_spent_budget_is_no_success(method):
    P = problem()
    found = method(P, tol=1e-14, max_passes=5, random_state=0)
    assert not found.success and found.status == 1 and "budget" in found.message
    np.testing.assert_allclose(found.jac, P.grad(found.x), atol=1e-14)
    assert found.fun == pytest.approx(P.fun(found.x))


def test_a_start_at_the_minimum_costs_one_pass():
    P = problem(loss="squares")
    found = katyusha(P, ridge_solution(P), tol=1e-10)
    assert found.success and found.ngrad == P.n and found.nit == 0


def test_divergence_is_said_and_the_last_finite_snapshot_returned():
    P = problem(loss="squares")
    found = svrg(P, step_size=1e6, max_passes=200, random_state=0)
    assert not found.success and found.status == 2 and "not finite" in found.message
    assert np.isfinite(found.x).all() and np.isfinite(found.fun)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"y": [1.0, 0.0]}, ValueError, "y must hold -1 and 1"),
        ({"y": [1.0]}, ValueError, "y must have the 2 rows"),
        ({"X": [[0.0], [0.0]]}, ValueError, "X must have a row that is not zero"),
        ({"X": [[np.nan], [0.0]]}, ValueError, "X must hold finite"),
        ({"X": np.ones((2, 0))}, ValueError, "X must have at least one row"),
        ({"loss": "hinge"}, ValueError, "loss must be one of"),
        ({"l2": -1.0}, ValueError, "l2 must be"),
        ({"l2": "small"}, TypeError, "l2 must be"),
    ],
)
def test_bad_sums_are_refused(change, error, match):
    arguments = {"X": [[1.0], [2.0]], "y": [1.0, -1.0]} | change
    X, y = arguments.pop("X"), arguments.pop("y")
    with pytest.raises(error, match=match):
        FiniteSum(X, y, **arguments)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"tol": 0.0}, ValueError, "tol must be"),
        ({"max_passes": 0.5}, ValueError, "max_passes must be at least 1"),
        ({"batch_size": 0}, ValueError, "batch_size must be"),
        ({"batch_size": 41}, ValueError, "batch_size must be at most n = 40"),
        ({"batch_size": 1.5}, TypeError, "batch_size must be"),
        ({"w0": np.zeros(4)}, ValueError, "w0 must have 5 entries"),
        ({"w0": np.full(5, np.inf)}, ValueError, "w0 must hold finite"),
        ({"random_state": "x"}, TypeError, "random_state"),
    ],
)
def test_bad_options_are_refused(method, change, error, match):
    with pytest.raises(error, match=match):
        method(problem(), **change)


def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match="problem must be a FiniteSum"):
        katyusha(lambda w: 0.0)
    with pytest.raises(ValueError, match="step_size must be"):
        svrg(problem(), step_size=-1.0)
    with pytest.raises(ValueError, match="batch_size must be at most n = 5"):
        katyusha_parameters(5, 1.0, 0.1, batch_size=6)
    with pytest.raises(ValueError, match="L must be"):
        katyusha_parameters(5, 0.0, 0.1)
