"""The solvers: fast objectives, metric, optimality against a conic solver."""

import cvxpy as cp
import numpy as np
import pytest

from lib.graphs import duality_gap, laplacian, laplacian_adjoint, spectral_objective
from lib.graphs.operators import edge_index
from lib.graphs.solvers import (
    SOLVERS,
    _block_mm,
    _largest,
    _Metric,
    _near_start,
    _objective,
    _quasi_newton,
)


def covariance(p=6, n=20, seed=0):
    X = np.random.default_rng(seed).standard_normal((n, p))
    return X.T @ X / n


def conic(S, alpha=0.0, beta=np.inf, gamma=0.0, centre=0.0):
    """The same problem by a conic solver: its optimal value and weights."""
    p = len(S)
    i, j = edge_index(p)
    B = np.zeros((p, len(i)))
    B[i, range(len(i))], B[j, range(len(i))] = 1.0, -1.0
    w = cp.Variable(len(i), nonneg=True)
    L = B @ cp.diag(w) @ B.T
    J = np.ones((p, p)) / p
    cost = cp.sum(cp.multiply(laplacian_adjoint(S) + alpha, w))
    Z, terms, constraints = L, [cost], []
    if np.isfinite(beta):
        Z = cp.Variable((p, p), symmetric=True)
        constraints = [Z @ np.ones(p) == 0]
        terms.append(beta / 2 * cp.sum_squares(L - Z))
    if gamma:
        terms.append(gamma / 2 * cp.sum_squares(Z - centre * (np.eye(p) - J)))
    value = cp.Problem(cp.Minimize(sum(terms) - cp.log_det(Z + J)), constraints).solve(
        solver=cp.CLARABEL
    )
    return value, w.value


@pytest.mark.parametrize("solver", ["lbfgs", "fista"])
@pytest.mark.parametrize(
    "case",
    [
        {},
        {"alpha": 0.4},
        {"beta": 5.0},
        {"gamma": 0.6, "centre": 4.0},
        {"gamma": 0.6, "centre": 4.0, "beta": 5.0, "alpha": 0.1},
    ],
)
def test_equal_to_a_conic_solver_and_certified(solver, case, record_property):
    worst, furthest = 0.0, 0.0
    for seed in range(3):
        S = covariance(p=5 + seed, n=4 + 8 * seed, seed=seed)
        value, w = conic(S, **case)
        gamma, beta = case.get("gamma", 0.0), case.get("beta", np.inf)
        alpha, centre = case.get("alpha", 0.0), case.get("centre", 0.0)
        p = len(S)
        cost = laplacian_adjoint(S) + alpha
        problem = _objective(cost, p, np.full(p - 1, centre), gamma, beta)
        start = _near_start(cost)
        result = SOLVERS[solver](problem, start, tol=1e-7, max_iter=5000)
        assert result.success, result.message
        furthest = max(furthest, abs(result.fun - value) / max(1, abs(value)))
        assert furthest < 1e-5
        assert np.allclose(result.x, w, atol=2e-3)
        gap = duality_gap(
            result.x, S, mu=np.full(p, centre), gamma=gamma, beta=beta, alpha=alpha
        )
        worst = max(worst, abs(gap) / max(1, abs(result.fun)))
    assert worst < 1e-9
    record_property("value", float(furthest))
    record_property("trials", 3)


@pytest.mark.parametrize("gamma, mu", [(0.0, 0.0), (0.5, 2.0), (0.5, None)])
@pytest.mark.parametrize("beta", [np.inf, 8.0])
def test_fast_objectives_are_the_public_one(gamma, mu, beta):
    p = 7
    S = covariance(p)
    spectrum = np.linspace(1, 5, p) if mu is None else np.full(p, mu)
    fast = _objective(laplacian_adjoint(S) + 0.1, p, spectrum[1:], gamma, beta)
    for seed in range(4):
        w = np.random.default_rng(seed).exponential(size=p * (p - 1) // 2)
        w[seed : seed + 5] = 0.0
        f, g, a = fast(w)
        F, G, _ = spectral_objective(
            w, S, mu=spectrum, gamma=gamma, beta=beta, alpha=0.1
        )
        assert np.isclose(f, F, rtol=1e-10) and np.allclose(g, G, atol=1e-9)
        assert (a > 0).all()
    assert fast.evaluations == 4


def test_the_metric_inverts_its_matrix_on_the_free_edges():
    p, rng = 8, np.random.default_rng(0)
    i, j = edge_index(p)
    m = len(i)
    objective = _objective(np.ones(m), p, None, 0.0, np.inf)
    a, free = rng.uniform(0.2, 2.0, size=p), rng.random(m) < 0.6
    B = np.zeros((p, m))
    B[i, range(m)] = B[j, range(m)] = 1.0
    M = np.diag(2 * a[i] * a[j]) + B.T @ np.diag(a * a) @ B
    v = rng.standard_normal(m) * free
    expected = np.zeros(m)
    expected[free] = np.linalg.solve(M[np.ix_(free, free)], v[free])
    assert np.allclose(_Metric(objective, a, free)(v), expected)


def test_the_metric_is_the_curvature_where_resistances_are_equal():
    # X = (I - J) / d: the exact curvature is that of L*L over d^2.
    p = 6
    S = np.eye(p)
    objective = _objective(laplacian_adjoint(S), p, None, 0.0, np.inf)
    w = np.full(15, 0.3)
    _, g, a = objective(w)
    a = a.copy()
    free = np.ones(15, dtype=bool)
    h, v = 1e-5, np.random.default_rng(0).standard_normal(15)
    Hv = (objective(w + h * v)[1] - objective(w - h * v)[1]) / (2 * h)
    # a_i = (p - 1) / p of 1 / d: the metric is short by that factor squared.
    ratio = (p / (p - 1)) ** 2
    assert np.allclose(_Metric(objective, a, free)(Hv), ratio * v, rtol=1e-6)


def test_block_mm_is_the_sweep_of_the_report():
    # Weights by the majoriser at fixed Z = U diag(lam) U', then Z anew.
    p, beta, gamma, alpha = 6, 4.0, 0.5, 0.2
    S, mu = covariance(p), np.linspace(0.0, 5.0, p)
    cost = laplacian_adjoint(S) + alpha
    w = start = _near_start(cost)
    values = []
    for _ in range(30):
        F, _, lam = spectral_objective(w, S, mu=mu, gamma=gamma, beta=beta, alpha=alpha)
        values.append(F)
        _, U = np.linalg.eigh(laplacian(w))
        Z = (U * lam) @ U.T
        c = laplacian_adjoint(Z - S / beta) - alpha / beta
        w = np.maximum(0, w - (laplacian_adjoint(laplacian(w)) - c) / (2 * p))
    problem = _objective(cost, p, mu[1:], gamma, beta)
    result = _block_mm(problem, start, tol=1e-12, max_iter=30)
    assert np.allclose(result.x, w, atol=1e-10)
    assert np.allclose(result.history["objective"][:-1], values)
    assert (np.diff(values) <= 1e-12).all()


def test_all_solvers_reach_the_same_graph():
    p, beta = 5, 2.0
    S, mu = covariance(p, n=40), np.linspace(0.0, 3.0, p)
    cost = laplacian_adjoint(S)
    start = _near_start(cost)
    found = []
    for name, solver in SOLVERS.items():
        problem = _objective(cost, p, mu[1:], 0.1, beta)
        result = solver(problem, start, tol=1e-7, max_iter=60_000)
        assert result.success, name
        found.append(result)
    for other in found[1:]:
        assert np.allclose(found[0].x, other.x, atol=1e-5)
    assert found[0].nfev < min(r.nfev for r in found[1:])


def test_quasi_newton_descends_and_counts():
    S = covariance(10, n=8)
    cost = laplacian_adjoint(S)
    problem = _objective(cost, 10, None, 0.0, np.inf)
    result = _quasi_newton(problem, _near_start(cost), tol=1e-7, max_iter=200)
    values = result.history["objective"]
    assert (np.diff(values) <= 1e-12 * abs(values[-1])).all()
    assert result.nfev == problem.evaluations == result.history["evaluations"][-1]
    assert len(values) == result.nit + 1
    assert result.kkt_residual <= 1e-7 and (result.x >= 0).all()


def test_an_iteration_limit_is_said():
    S = covariance(10, n=8)
    cost = laplacian_adjoint(S)
    for solver in (SOLVERS["lbfgs"], SOLVERS["fista"]):
        problem = _objective(cost, 10, None, 0.0, np.inf)
        result = solver(problem, _near_start(cost), tol=1e-7, max_iter=2)
        assert not result.success and "max_iter=2" in result.message


def test_largest_weights_keep_the_graph_connected():
    # Two heavy cliques and one light bridge: the bridge stays.
    p = 6
    A = np.zeros((p, p))
    A[:3, :3] = A[3:, 3:] = 1.0
    A[0, 5] = 0.01
    w = np.triu(A, 1)[tuple(edge_index(p))]
    bridge = w == 0.01
    for k in (5, 6, 7):
        allowed = _largest(w, p, k)
        assert allowed.sum() == k and allowed[bridge].all()
        assert np.linalg.eigvalsh(laplacian(w * allowed))[1] > 0
