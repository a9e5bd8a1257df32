"""Networks that grow: certificates, rates and what an inexact oracle costs."""

import cvxpy as cp
import numpy as np
import pytest
from sklearn.datasets import make_moons

from lib.convexnn import (
    ConvexNNRegressor,
    ConvexReLURegressor,
    FrankWolfeNN,
    enumerate_arrangements,
)


def moons(seed=0, n=100):
    X, labels = make_moons(n, noise=0.1, random_state=seed)
    return X, 2.0 * labels - 1


def test_convex_network_reaches_the_optimum_over_all_units():
    X, y = moons(n=12)
    network = ConvexNNRegressor(0.7).fit(X, y)
    H = np.where(enumerate_arrangements(X, bias=True), 1.0, -1.0)
    w = cp.Variable(H.shape[1])
    value = cp.Problem(
        cp.Minimize(0.5 * cp.sum_squares(H @ w - y) + 0.7 * cp.norm1(w))
    ).solve(solver=cp.CLARABEL)
    assert network.objective_ == pytest.approx(value, rel=1e-5)
    assert network.converged_
    assert network.gap_ <= 1e-6
    assert len(network.weights_) <= len(y) + 1


@pytest.mark.parametrize("seed", range(3))
def test_gap_certifies_on_the_double_moon(seed):
    X, y = moons(seed)
    network = ConvexNNRegressor(1.0).fit(X, y)
    assert network.gap_ <= 1e-6 * network.objective_
    # The cost never rises and the last unit asked for correlates by no more than alpha.
    assert (np.diff(network.history_[:, 0]) <= 1e-9).all()
    assert network.history_[-1, 1] <= 1 + 1e-8


def test_without_refitting_the_oracle_would_repeat_itself():
    # The report prints the refit after the loop. Then the residual, and with it the
    # unit that is found, is the same in every round.
    X, y = moons()
    first = ConvexNNRegressor(1.0, max_units=1).fit(X, y)
    second = ConvexNNRegressor(1.0, max_units=2).fit(X, y)
    assert first.history_[0, 1] > 1
    assert second.history_[1, 1] < second.history_[0, 1] - 1e-6


def test_an_approximate_oracle_certifies_nothing():
    X, y = moons()
    exact = ConvexNNRegressor(1.0, oracle="exact").fit(X, y)
    near = ConvexNNRegressor(1.0, oracle="logistic").fit(X, y)
    assert near.gap_ == np.inf
    assert near.objective_ >= exact.objective_ - 1e-9


def test_tanh_units_and_tuning_do_not_raise_the_cost():
    X, y = moons()
    plain = ConvexNNRegressor(1.0, "tanh", max_units=6, random_state=0).fit(X, y)
    tuned = ConvexNNRegressor(1.0, "tanh", tune=True, max_units=6, random_state=0)
    tuned.fit(X, y)
    for network in (plain, tuned):
        assert (np.diff(network.history_[:, 0]) <= 1e-6).all()
        assert network.gap_ == np.inf
    assert tuned.objective_ <= plain.objective_ * 1.05


def planted(n=12, d=3, seed=0):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, d))
    return A, np.maximum(A @ rng.standard_normal((d, 5)), 0) @ rng.standard_normal(5)


def ball_optimum(A, y, delta):
    """Least squared error in the ball, by the convex program over all patterns."""
    masks = enumerate_arrangements(A)
    signs = np.where(masks, 1.0, -1.0)
    V, W = (cp.Variable((A.shape[1], masks.shape[1])) for _ in range(2))
    out = cp.sum(cp.multiply(masks.astype(float), A @ (V - W)), axis=1)
    norms = cp.sum(cp.norm(V, axis=0)) + cp.sum(cp.norm(W, axis=0))
    cones = [cp.multiply(signs, A @ Z) >= 0 for Z in (V, W)]
    return cp.Problem(
        cp.Minimize(cp.sum_squares(out - y)), [*cones, norms <= delta]
    ).solve(solver=cp.CLARABEL)


@pytest.mark.parametrize("line_search", [False, True])
def test_frank_wolfe_gap_bounds_the_distance_from_the_optimum(line_search):
    A, y = planted()
    best = ball_optimum(A, y, 3.0)
    fit = FrankWolfeNN(3.0, line_search=line_search, max_iter=100).fit(A, y)
    assert -1e-6 <= fit.objective_ - best <= fit.gap_ + 1e-6
    assert (fit.history_[:, 0] - best <= fit.history_[:, 1] + 1e-6).all()
    assert np.abs(fit.weights_).sum() <= 3.0 + 1e-9
    np.testing.assert_allclose(np.linalg.norm(fit.neurons_, axis=0), 1)
    assert ((fit.predict(A) - y) ** 2).sum() == pytest.approx(fit.objective_)


def test_frank_wolfe_keeps_the_rate_of_the_corrected_bound():
    A, y = planted()
    best = ball_optimum(A, y, 3.0)
    U = np.random.default_rng(1).standard_normal((3, 20_000))
    U /= np.linalg.norm(U, axis=0)
    R2 = (np.maximum(A @ U, 0) ** 2).sum(axis=0).max()
    fit = FrankWolfeNN(3.0, max_iter=150).fit(A, y)
    T = np.arange(1, len(fit.history_) + 1)
    bound = 16 * R2 * 9 / (T + 1)
    assert (fit.history_[1:, 0] - best <= bound[1:]).all()


def test_the_bound_of_the_report_is_too_small():
    # Two points, radius one: with the constant 4 the bound is broken at T = 3.
    atoms = [np.array([0.995, -0.104]), np.array([0.997, -0.077])]
    atoms = [s * a / np.linalg.norm(a) for a in atoms for s in (1, -1)]
    y = np.array([-1.144, -1.64])
    z = np.zeros(2)
    w = cp.Variable(4)
    hull = np.column_stack(atoms)
    best = cp.Problem(
        cp.Minimize(cp.sum_squares(hull @ w - y)), [w >= 0, cp.sum(w) <= 1]
    ).solve(solver=cp.CLARABEL)
    values = []
    for t in range(1, 5):
        z = z + 2 / (t + 1) * (min(atoms, key=lambda a: 2 * (z - y) @ a) - z)
        values.append((z - y) @ (z - y) - best)
    T = np.arange(1, 5)
    assert (np.array(values)[1:] <= 16 / (T + 1)[1:]).all()
    assert max(np.array(values)[1:] / (4 / (T + 1)[1:])) > 1


def test_full_batches_are_frank_wolfe_and_small_ones_are_not():
    A, y = planted()
    full = FrankWolfeNN(3.0, max_iter=20).fit(A, y)
    large = FrankWolfeNN(3.0, batch=lambda t: 10**6, max_iter=20).fit(A, y)
    small = FrankWolfeNN(3.0, batch=lambda t: 2, max_iter=20, random_state=0).fit(A, y)
    np.testing.assert_allclose(full.history_, large.history_)
    assert not np.allclose(small.history_[2:, 0], full.history_[2:, 0])
    assert small.history_[1, 1] > 0
    grown = FrankWolfeNN(3.0, batch="hazan-luo", max_iter=20, random_state=0).fit(A, y)
    assert (np.diff(grown.history_[:, 2]) >= 0).all()


def test_an_inexact_oracle_certifies_nothing_and_can_stall():
    A, y = planted(n=16, d=3)
    exact = FrankWolfeNN(5.0, max_iter=40).fit(A, y)
    cone = FrankWolfeNN(5.0, "sign_cone", max_iter=40).fit(A, y)
    assert cone.gap_ == np.inf
    assert cone.objective_ > exact.objective_
    assert np.isfinite(exact.gap_)


def test_frank_wolfe_and_the_penalised_program_meet():
    # The ball whose radius is the norm of the penalised solution has the same solution.
    A, y = planted()
    beta = 0.3
    fit = ConvexReLURegressor(beta, tol=1e-9).fit(A, y)
    W1, w2 = fit.to_network()
    delta = (np.linalg.norm(W1, axis=0) * np.abs(w2)).sum()
    residual = ((fit.predict(A) - y) ** 2).sum()
    frank = FrankWolfeNN(delta, line_search=True, max_iter=150).fit(A, y)
    assert frank.objective_ >= residual - 1e-6
    assert frank.objective_ - residual <= frank.gap_ + 1e-6


@pytest.mark.parametrize(
    "estimator",
    [
        ConvexNNRegressor(alpha=0.0),
        ConvexNNRegressor(activation="relu"),
        ConvexNNRegressor(oracle="svm"),
        ConvexNNRegressor(tune=True),
        FrankWolfeNN(delta=-1.0),
        FrankWolfeNN(oracle="gates"),
        FrankWolfeNN(batch="growing"),
        FrankWolfeNN(batch=lambda t: 0),
    ],
)
def test_bad_parameters_are_refused(estimator):
    X, y = planted()
    with pytest.raises(ValueError):
        estimator.fit(X, y)
