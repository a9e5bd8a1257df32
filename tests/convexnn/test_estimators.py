"""The convex programs: optimality, certificates, conversion to networks."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning

from lib.convexnn import (
    ConvexReLUClassifier,
    ConvexReLURegressor,
    GatedReLUClassifier,
    GatedReLURegressor,
    enumerate_arrangements,
    relu_lmo,
    sample_arrangements,
)

RELU, GATED = ConvexReLURegressor, GatedReLURegressor


def problem(n, d, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    y = np.maximum(X @ rng.standard_normal((d, 5)), 0) @ rng.standard_normal(5)
    return X, y + 0.1 * rng.standard_normal(n)


def relu_program(X, masks, y, beta):
    """The program written out for cvxpy, apart from the library's own reference."""
    signs = np.where(masks, 1.0, -1.0)
    V, W = (cp.Variable((X.shape[1], masks.shape[1])) for _ in range(2))
    out = sum(
        np.diag(masks[:, i].astype(float)) @ X @ (V[:, i] - W[:, i])
        for i in range(masks.shape[1])
    )
    norms = cp.sum(cp.norm(V, axis=0)) + cp.sum(cp.norm(W, axis=0))
    cones = [
        np.diag(signs[:, i]) @ X @ Z[:, i] >= 0
        for Z in (V, W)
        for i in range(masks.shape[1])
    ]
    goal = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(out - y) + beta * norms), cones)
    return goal.solve(solver=cp.CLARABEL)


def network_cost(X, y, beta, W1, w2, active=None):
    H = X @ W1
    H = np.maximum(H, 0) if active is None else active * H
    return 0.5 * ((H @ w2 - y) ** 2).sum() + beta / 2 * ((W1**2).sum() + (w2**2).sum())


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0, 10.0])
def test_relu_value_is_that_of_the_program_over_all_patterns(beta):
    X, y = problem(7, 2)
    fit = RELU(beta, tol=1e-8).fit(X, y)
    value = relu_program(X, enumerate_arrangements(X), y, beta)
    assert fit.objective_ == pytest.approx(value, rel=1e-5, abs=1e-7)
    assert fit.exact_
    assert fit.dual_objective_ <= value + 1e-6
    assert fit.converged_


@pytest.mark.parametrize("estimator", [RELU, GATED])
@pytest.mark.parametrize(
    ("n", "d", "beta"), [(40, 4, 0.5), (12, 20, 0.1), (60, 3, 0.01)]
)
def test_gap_certifies_and_solvers_agree(estimator, n, d, beta):
    X, y = problem(n, d, seed=n)
    fit = estimator(beta, gates=12, random_state=0, tol=1e-7).fit(X, y)
    reference = estimator(beta, gates=12, random_state=0, solver="cvxpy", tol=1e-3)
    reference.fit(X, y)
    assert 0 <= fit.gap_ <= 1e-7 * fit.objective_
    assert fit.dual_objective_ <= reference.objective_ * (1 + 1e-12)
    assert fit.objective_ == pytest.approx(reference.objective_, rel=1e-5)


def test_strong_duality_on_exact_instances():
    for seed in range(4):
        X, y = problem(9, 3, seed)
        for estimator in (RELU, GATED):
            fit = estimator(0.2, tol=1e-8).fit(X, y)
            assert fit.objective_ - fit.dual_objective_ <= 1e-6 * fit.objective_


def test_fista_reaches_the_newton_solution():
    X, y = problem(30, 4)
    newton = GATED(0.3, gates=10, random_state=0, tol=1e-9).fit(X, y)
    first = GATED(
        0.3, gates=10, random_state=0, tol=1e-7, solver="fista", max_iter=10**5
    ).fit(X, y)
    assert first.objective_ == pytest.approx(newton.objective_, rel=1e-6)
    np.testing.assert_allclose(first.predict(X), newton.predict(X), atol=1e-2)


@pytest.mark.parametrize("beta", [0.05, 0.5])
def test_relu_solution_is_a_network_of_the_same_cost(beta):
    X, y = problem(25, 3)
    fit = RELU(beta, tol=1e-8).fit(X, y)
    W1, w2 = fit.to_network()
    assert W1.shape[1] == fit.n_neurons_ <= len(y) + 1
    cost = network_cost(X, y, beta, W1, w2)
    assert cost == pytest.approx(fit.objective_, rel=1e-7)
    np.testing.assert_allclose(np.maximum(X @ W1, 0) @ w2, fit.predict(X), atol=1e-9)
    # A neuron and its output weight have the same norm.
    np.testing.assert_allclose(np.linalg.norm(W1, axis=0), np.abs(w2))
    # The weights of the program say the same.
    masks = X @ fit.gates_ >= 0
    out = (masks * (X @ (fit.coef_[0] - fit.coef_[1]))).sum(axis=1)
    np.testing.assert_allclose(out, fit.predict(X), atol=1e-7)


def test_gated_solution_is_a_gated_network_of_the_same_cost():
    X, y = problem(25, 3)
    fit = GATED(0.3, gates=20, random_state=0, tol=1e-9).fit(X, y)
    W1, w2 = fit.to_network()
    active = X @ fit.gates_ >= 0
    cost = network_cost(X, y, 0.3, W1, w2, active)
    assert cost == pytest.approx(fit.objective_, rel=1e-9)
    new = np.random.default_rng(1).standard_normal((5, 3))
    out = ((new @ fit.gates_ >= 0) * (new @ W1)) @ w2
    np.testing.assert_allclose(out, fit.predict(new), atol=1e-12)


def test_gated_program_is_a_relaxation_of_the_relu_program():
    X, y = problem(15, 3)
    for beta in (0.05, 1.0):
        gated, relu = GATED(beta).fit(X, y), RELU(beta).fit(X, y)
        assert gated.dual_objective_ <= relu.objective_


def test_no_neuron_correlates_by_more_than_beta_at_the_optimum():
    X, y = problem(20, 3)
    fit = RELU(0.4, tol=1e-8).fit(X, y)
    residual = y - fit.predict(X)
    assert relu_lmo(X, residual).value == pytest.approx(0.4, rel=1e-3)
    # Neurons in use attain it.
    W1, w2 = fit.to_network()
    units = W1 / np.linalg.norm(W1, axis=0)
    value = np.sign(w2) * (residual @ np.maximum(X @ units, 0))
    np.testing.assert_allclose(value, 0.4, rtol=1e-3)


def test_networks_trained_by_gradients_never_beat_the_optimum():
    X, y = problem(6, 2)
    beta = 0.1
    fit = RELU(beta, tol=1e-9).fit(X, y)
    Xt, yt = torch.tensor(X), torch.tensor(y)
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(40, 2, 12, generator=generator, dtype=torch.float64)
    a = torch.randn(40, 12, generator=generator, dtype=torch.float64)
    W.requires_grad_(), a.requires_grad_()
    optimizer = torch.optim.Adam([W, a], lr=0.02)
    for _ in range(1500):
        optimizer.zero_grad()
        out = ((Xt @ W).clamp(min=0) * a[:, None]).sum(2)
        cost = 0.5 * ((out - yt) ** 2).sum(1)
        cost = cost + beta / 2 * ((W**2).sum((1, 2)) + (a**2).sum(1))
        cost.sum().backward()
        optimizer.step()
    cost = cost.detach().numpy()
    assert cost.min() >= fit.dual_objective_ - 1e-9
    assert cost.min() == pytest.approx(fit.objective_, rel=0.02)


def test_large_penalty_gives_the_zero_network():
    X, y = problem(10, 2)
    most = relu_lmo(X, y).value
    assert RELU(1.01 * most).fit(X, y).n_neurons_ == 0
    assert RELU(0.99 * most).fit(X, y).n_neurons_ > 0
    assert not GATED(1e3).fit(X, y).coef_.any()


def test_sampled_patterns_bound_the_optimum_from_above():
    X, y = problem(20, 3)
    exact = RELU(0.1).fit(X, y)
    sampled = RELU(0.1, gates=30, random_state=0).fit(X, y)
    assert not sampled.exact_
    assert sampled.objective_ >= exact.dual_objective_


def test_masks_and_gate_vectors_give_the_same_fit():
    X, y = problem(12, 3)
    masks, gates = sample_arrangements(X, 20, 0, return_gates=True)
    by_masks = GATED(0.2, gates=masks, tol=1e-9).fit(X, y)
    by_gates = GATED(0.2, gates=gates, tol=1e-9).fit(X, y)
    assert by_masks.objective_ == pytest.approx(by_gates.objective_, rel=1e-8)
    np.testing.assert_allclose(by_masks.predict(X), by_gates.predict(X), atol=1e-5)
    assert ((X @ by_masks.gates_ >= 0) == masks).all()


def test_path_equals_separate_fits():
    X, y = problem(20, 3)
    for estimator in (GATED, RELU):
        betas = [3.0, 1.0, 0.3]
        base = estimator(5.0, gates=15, random_state=0, tol=1e-8).fit(X, y)
        for fit, beta in zip(base.path(betas), betas, strict=True):
            alone = estimator(beta, gates=15, random_state=0, tol=1e-8).fit(X, y)
            assert fit.objective_ == pytest.approx(alone.objective_, rel=1e-7)
            np.testing.assert_allclose(fit.predict(X), alone.predict(X), atol=1e-3)


def test_outputs_are_fitted_one_by_one():
    X, y = problem(15, 3)
    Y = np.column_stack([y, -y, y[::-1]])
    for estimator in (GATED, RELU):
        fit = estimator(0.3, gates=15, random_state=0).fit(X, Y)
        assert fit.predict(X).shape == (15, 3)
        W1, w2 = fit.to_network()
        assert w2.shape == (W1.shape[1], 3)
        for k in range(3):
            alone = estimator(0.3, gates=15, random_state=0).fit(X, Y[:, k])
            np.testing.assert_allclose(fit.predict(X)[:, k], alone.predict(X))


@pytest.mark.parametrize("estimator", [GatedReLUClassifier, ConvexReLUClassifier])
def test_classifiers_learn_iris(estimator):
    X, y = load_iris(return_X_y=True)
    X = np.column_stack([(X - X.mean(0)) / X.std(0), np.ones(len(X))])
    fit = estimator(0.1, gates=30, random_state=0, tol=1e-4).fit(X[::2], y[::2])
    assert fit.score(X[1::2], y[1::2]) > 0.9


def test_torch_in_torch_out(device):
    X, y = problem(12, 3)
    for estimator in (GATED, RELU):
        on = "cuda" if device == "cuda" else None
        fit = estimator(0.3, gates=10, random_state=0, device=on).fit(
            torch.tensor(X, device=device), torch.tensor(y, device=device)
        )
        same = estimator(0.3, gates=10, random_state=0).fit(X, y)
        out = fit.predict(torch.tensor(X, device=device))
        assert out.device == fit.coef_.device == torch.tensor(0, device=device).device
        np.testing.assert_allclose(out.cpu().numpy(), same.predict(X), atol=1e-6)


def test_stopping_early_is_said_and_the_gap_still_bounds():
    X, y = problem(60, 5)
    best = GATED(0.01, gates=30, random_state=0, tol=1e-8).fit(X, y)
    with pytest.warns(ConvergenceWarning, match="duality gap"):
        early = GATED(0.01, gates=30, random_state=0, max_iter=3).fit(X, y)
    assert not early.converged_
    assert early.objective_ - best.objective_ <= early.gap_ + 1e-9


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"beta": -1.0}, ValueError),
        ({"beta": np.nan}, ValueError),
        ({"gates": 0}, ValueError),
        ({"gates": np.ones((5, 2))}, ValueError),
        ({"gates": np.array([[True], [True]])}, ValueError),
        ({"gates": np.full((3, 1), np.nan)}, ValueError),
        ({"solver": "simplex"}, ValueError),
        ({"tol": 0.0}, ValueError),
        ({"max_cells": 3}, ValueError),
        ({"device": "tpu"}, ValueError),
    ],
)
def test_bad_parameters_are_refused(parameters, error):
    X, y = problem(8, 3)
    for estimator in (GATED, RELU):
        with pytest.raises(error):
            estimator(**parameters).fit(X, y)


def test_a_mask_that_no_neuron_has_is_refused():
    X = np.array([[1.0], [-1.0]])
    with pytest.raises(ValueError, match="no neuron"):
        GATED(gates=np.array([[True], [True]])).fit(X, np.ones(2))


def test_the_newton_matrix_is_that_of_its_formula():
    import torch

    from lib.convexnn.gated import _hessian

    rng = torch.Generator().manual_seed(0)
    K, A, B = (torch.randn(6, k, generator=rng).double() for k in (6, 4, 4))
    K = K @ K.T
    for k in (4, 0):
        right = torch.eye(6) + K * (A[:, :k] @ A[:, :k].T) + B[:, :k] @ B[:, :k].T
        found = _hessian(K, A[:, :k], B[:, :k])
        assert torch.allclose(found.tril(), right.tril(), rtol=1e-12, atol=1e-12)
