"""Oracles against brute force, and the projections they rest on."""

import cvxpy as cp
import numpy as np
import pytest
import torch

from lib.convexnn import (
    enumerate_arrangements,
    project_cone,
    relu_lmo,
    weighted_linear_classifier,
)


@pytest.mark.parametrize("seed", range(5))
def test_projection_satisfies_moreaus_conditions(seed):
    rng = np.random.default_rng(seed)
    B, c = rng.standard_normal((12, 4)), rng.standard_normal(4)
    u = project_cone(B, c)
    assert (B @ u).min() >= -1e-9
    assert u @ (u - c) == pytest.approx(0, abs=1e-9)
    z = cp.Variable(4)
    cp.Problem(cp.Minimize(cp.sum_squares(z - c)), [B @ z >= 0]).solve(
        solver=cp.CLARABEL
    )
    np.testing.assert_allclose(u, z.value, atol=1e-4)


def test_projection_is_right_where_nnls_fails():
    # Orthonormal rows and their negatives make degenerate cones, on which scipy's
    # solver may stop early without saying so.
    rng = np.random.default_rng(0)
    for _ in range(300):
        d = int(rng.integers(2, 7))
        Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
        B = np.where(rng.random(d) < 0.5, 1.0, -1.0)[:, None] * Q
        c = Q.T @ rng.integers(-1, 2, d).astype(float)
        exact = Q.T @ np.where((B @ c) >= -1e-12, Q @ c, 0.0)
        np.testing.assert_allclose(project_cone(B, c), exact, atol=1e-8)


@pytest.mark.parametrize(("n", "d"), [(6, 2), (8, 3), (5, 5), (4, 6)])
def test_exact_oracle_beats_every_random_neuron(n, d):
    rng = np.random.default_rng(n)
    A, g = rng.standard_normal((n, d)), rng.standard_normal(n)
    answer = relu_lmo(A, g)
    U = rng.standard_normal((d, 50_000))
    U /= np.linalg.norm(U, axis=0)
    assert np.abs(g @ np.maximum(A @ U, 0)).max() <= answer.value + 1e-9
    assert answer.exact
    assert np.linalg.norm(answer.u) == pytest.approx(1)
    value = answer.sign * g @ np.maximum(A @ answer.u, 0)
    assert value == pytest.approx(answer.value, abs=1e-8)


@pytest.mark.parametrize("method", ["sign_cone", "local", "gates"])
def test_other_oracles_are_lower_bounds_that_certify_nothing(method):
    rng = np.random.default_rng(1)
    A, g = rng.standard_normal((8, 4)), rng.standard_normal(8)
    masks = enumerate_arrangements(A)[:, ::7] if method == "gates" else None
    answer = relu_lmo(A, g, method, masks, random_state=0)
    assert not answer.exact
    assert answer.value <= relu_lmo(A, g).value + 1e-9
    value = answer.sign * g @ np.maximum(A @ answer.u, 0)
    assert value >= answer.value - 1e-8


def test_local_oracle_is_nearly_exact():
    ratio = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        A, g = rng.standard_normal((10, 4)), rng.standard_normal(10)
        best = relu_lmo(A, g).value
        ratio.append(relu_lmo(A, g, "local", random_state=0).value / best)
    assert min(ratio) > 0.98


@pytest.mark.parametrize("seed", range(5))
def test_sign_cone_is_exact_on_orthonormal_rows_with_a_closed_form(seed):
    rng = np.random.default_rng(seed)
    A = np.linalg.qr(rng.standard_normal((9, 6)))[0].T
    g = rng.standard_normal(6)
    closed = max(np.linalg.norm(np.maximum(s * g, 0)) for s in (1, -1))
    answer = relu_lmo(A, g, "sign_cone")
    assert answer.exact
    assert answer.value == pytest.approx(closed)
    assert relu_lmo(A, g).value == pytest.approx(closed)


@pytest.mark.parametrize("seed", range(12))
def test_sweep_of_lines_finds_the_best_of_all_patterns(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 12))
    # Even seeds: points on a grid, with repetitions and many in line.
    X = rng.integers(-2, 3, (n, 2)) if seed % 2 == 0 else rng.standard_normal((n, 2))
    X, q = X.astype(float), rng.standard_normal(n)
    answer = weighted_linear_classifier(X, q)
    masks = enumerate_arrangements(X, bias=True)
    best = (q @ np.where(masks, 1.0, -1.0)).max()
    assert answer.exact
    assert answer.value == pytest.approx(best, abs=1e-12)
    side = np.column_stack([X, np.ones(n)]) @ answer.v
    assert np.abs(side).min() > 1e-9
    assert q @ np.sign(side) == pytest.approx(answer.value)


@pytest.mark.parametrize("d", [1, 3])
def test_exact_classifier_in_other_dimensions(d):
    rng = np.random.default_rng(d)
    X, q = rng.standard_normal((9, d)), rng.standard_normal(9)
    answer = weighted_linear_classifier(X, q, "exact")
    near = weighted_linear_classifier(X, q, "logistic")
    assert answer.exact
    assert not near.exact
    assert near.value <= answer.value + 1e-12
    V = rng.standard_normal((d + 1, 50_000))
    trials = q @ np.sign(np.column_stack([X, np.ones(9)]) @ V)
    assert trials.max() <= answer.value + 1e-12


def test_weights_of_one_sign_need_no_hyperplane():
    X = np.random.default_rng(0).standard_normal((6, 4))
    for sign in (1.0, -1.0):
        answer = weighted_linear_classifier(X, sign * np.ones(6))
        assert answer.value == 6


def test_torch_in_torch_out(device):
    A = torch.eye(3, device=device)
    answer = relu_lmo(A, torch.tensor([1.0, -2.0, 0.5], device=device))
    assert answer.u.device == A.device
    assert answer.u.dtype == torch.float32
    assert answer.value == pytest.approx(2.0)


def test_nothing_correlates_with_zero():
    answer = relu_lmo(np.eye(2), np.zeros(2))
    assert answer.value == 0
    assert not answer.u.any()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda A, g: relu_lmo(A, g[:-1]), ValueError),
        (lambda A, g: relu_lmo(A, g, "gates"), ValueError),
        (lambda A, g: relu_lmo(A, g, "socp"), ValueError),
        (lambda A, g: relu_lmo(A, g, "gates", np.ones((3, 2))), TypeError),
        (lambda A, g: relu_lmo(A, g, "gates", np.ones((2, 2), bool)), ValueError),
        (lambda A, g: relu_lmo(A, g * np.nan), ValueError),
        (lambda A, g: relu_lmo(A, torch.zeros(3)), TypeError),
        (lambda A, g: weighted_linear_classifier(A, g, "svm"), ValueError),
    ],
)
def test_bad_arguments_are_refused(call, error):
    with pytest.raises(error):
        call(np.eye(3), np.ones(3))
