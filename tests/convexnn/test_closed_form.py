"""Formulas: attained by the returned weights, never beaten by gradient training."""

import numpy as np
import pytest
import torch

from lib.convexnn import (
    deep_linear,
    deep_relu_rank_one,
    deep_relu_whitened,
    project_dual_ball,
    two_layer_linear,
)


def cost(branches, X, Y, beta, relu=False):
    """Regularised objective of parallel branches, written out."""
    out, penalty = 0.0, 0.0
    for layers in branches:
        H = X
        for k, W in enumerate(layers):
            H = H @ W
            H = np.maximum(H, 0) if relu and k + 1 < len(layers) else H
            penalty += (W**2).sum()
        out = out + H
    return 0.5 * ((out - Y) ** 2).sum() + beta / 2 * penalty


def trained(X, Y, beta, sizes, relu=False, n_starts=12, n_steps=1500, seed=0):
    """Smallest objective that Adam reaches from many starts, all at once."""
    generator = torch.Generator().manual_seed(seed)
    X, Y = torch.tensor(X), torch.tensor(Y)
    Y = Y if Y.ndim == 2 else Y[:, None]
    layers = [
        torch.randn(n_starts, a, b, generator=generator, dtype=torch.float64)
        for a, b in zip(sizes, sizes[1:], strict=False)
    ]
    for W in layers:
        W.requires_grad_()
    optimizer = torch.optim.Adam(layers, lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    for _ in range(n_steps):
        optimizer.zero_grad()
        H = X.expand(n_starts, *X.shape)
        for k, W in enumerate(layers):
            H = H @ W
            H = H.clamp(min=0) if relu and k + 1 < len(layers) else H
        value = 0.5 * ((H - Y) ** 2).sum((1, 2))
        value = value + beta / 2 * sum((W**2).sum((1, 2)) for W in layers)
        value.sum().backward()
        optimizer.step()
        schedule.step()
    return float(value.detach().min())


def data(n, d, K=None, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal(n if K is None else (n, K))


@pytest.mark.parametrize(("n", "d"), [(8, 3), (4, 9)])
@pytest.mark.parametrize("K", [None, 3])
def test_projection_is_feasible_and_optimal(n, d, K):
    X, Y = data(n, d, K)
    beta = 0.3
    u = project_dual_ball(X, Y, beta)
    size = np.linalg.norm(X.T @ u, 2)
    assert size == pytest.approx(beta, rel=1e-6)
    # Variational inequality against random feasible points.
    rng = np.random.default_rng(1)
    for _ in range(200):
        z = rng.standard_normal(Y.shape) * rng.exponential()
        z *= min(1.0, beta / np.linalg.norm(X.T @ z, 2))
        assert ((Y - u) * (z - u)).sum() <= 1e-7


def test_feasible_targets_are_their_own_projection():
    X, y = data(6, 3)
    beta = 1.01 * np.linalg.norm(X.T @ y)
    np.testing.assert_allclose(project_dual_ball(X, y, beta), y)
    solution = two_layer_linear(X, y, beta)
    assert not solution.weights[0][0].any()
    assert solution.objective == pytest.approx(0.5 * y @ y)


@pytest.mark.parametrize("K", [None, 3])
def test_two_layer_weights_attain_value_and_bound(K):
    X, Y = data(10, 5, K)
    solution = two_layer_linear(X, Y, 0.4)
    assert cost(solution.weights, X, Y, 0.4) == pytest.approx(
        solution.objective, rel=1e-9
    )
    assert 0 <= solution.objective - solution.certificate <= 1e-9 * solution.objective


def test_smallest_norm_of_an_interpolating_network_is_the_pseudoinverse():
    # As beta falls to zero the penalty of the fit tends to the norm of X^+ y.
    X, y = data(5, 8)
    layers = two_layer_linear(X, y, 1e-7).weights[0]
    norm = 0.5 * sum((W**2).sum() for W in layers)
    assert norm == pytest.approx(np.linalg.norm(np.linalg.pinv(X) @ y), rel=1e-5)


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
@pytest.mark.parametrize("beta", [0.05, 0.5, 5.0])
def test_deep_linear_weights_attain_value_and_bound(depth, beta):
    X, y = data(10, 5)
    widths = list(range(2, depth + 1))
    solution = deep_linear(X, y, beta, depth, widths=widths)
    layers = solution.weights[0]
    assert [W.shape[-1] for W in layers[:-1]] == widths
    assert cost([layers], X, y, beta) == pytest.approx(solution.objective, rel=1e-9)
    assert 0 <= solution.objective - solution.certificate <= 1e-9 * solution.objective
    sizes = [np.linalg.norm(W) for W in layers]
    np.testing.assert_allclose(sizes, sizes[0], rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_no_trained_linear_network_is_better(depth):
    X, y = data(10, 5)
    solution = deep_linear(X, y, 0.3, depth)
    sizes = [5] + [4] * (depth - 1) + [1]
    best = trained(X, y, 0.3, sizes, n_starts=40 if depth == 4 else 12)
    assert best >= solution.certificate - 1e-9
    assert best == pytest.approx(solution.objective, rel=1e-5)


def test_the_printed_weights_must_be_rebalanced():
    # Layers with the norm of the first and a last layer of unit norm, as the report
    # prints them, cost more than balanced ones for L > 2.
    X, y = data(10, 5)
    solution = deep_linear(X, y, 0.3, 3)
    W1, W2, w3 = solution.weights[0]
    t = np.linalg.norm(W1)
    literal = [W1 * t, W2, w3 / t]
    product = literal[0] @ literal[1] @ literal[2]
    np.testing.assert_allclose(W1 @ W2 @ w3, product)
    assert cost([literal], X, y, 0.3) > solution.objective + 1e-6 * (t != 1)


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_rank_one_relu_weights_attain_value_and_bound(depth, sign):
    rng = np.random.default_rng(depth)
    X = np.outer(rng.random(8), rng.standard_normal(4))
    y = sign * (rng.random(8) + 0.5)
    widths = [3] * (depth - 1)
    solution = deep_relu_rank_one(X, y, 0.05, depth, widths=widths)
    value = cost(solution.weights, X, y, 0.05, relu=True)
    assert value == pytest.approx(solution.objective, rel=1e-9)
    assert solution.objective < 0.5 * y @ y
    assert 0 <= solution.objective - solution.certificate <= 1e-9


@pytest.mark.slow
def test_no_trained_relu_network_on_rank_one_data_is_better():
    rng = np.random.default_rng(0)
    X, y = np.outer(rng.random(8), rng.standard_normal(4)), rng.random(8) - 1.5
    solution = deep_relu_rank_one(X, y, 0.1, 3)
    best = trained(X, y, 0.1, [4, 6, 6, 1], relu=True)
    assert best >= solution.certificate - 1e-9


def whitened(sizes=(4, 3, 2), seed=0):
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    X = np.linalg.qr(rng.standard_normal((n + 3, n)))[0].T
    return X, np.eye(len(sizes))[np.repeat(range(len(sizes)), sizes)]


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_whitened_relu_weights_attain_value_and_bound(depth):
    X, Y = whitened()
    solution = deep_relu_whitened(X, Y, 0.3, depth)
    value = cost(solution.weights, X, Y, 0.3, relu=True)
    assert value == pytest.approx(solution.objective, rel=1e-9)
    assert solution.certificate <= solution.objective
    # Two layers: soft thresholding of the columns' norms.
    if depth == 2:
        assert solution.objective - solution.certificate <= 1e-9
        size = np.linalg.norm(Y, axis=0)
        soft = 0.5 * np.minimum(size, 0.3) ** 2 + 0.3 * np.maximum(size - 0.3, 0)
        assert solution.objective == pytest.approx(soft.sum())


@pytest.mark.slow
def test_no_trained_relu_network_on_whitened_data_is_better():
    X, Y = whitened()
    solution = deep_relu_whitened(X, Y, 0.3, 3)
    best = trained(X, Y, 0.3, [X.shape[1], 8, 8, 3], relu=True, n_starts=40)
    assert best >= solution.certificate - 1e-8
    assert best == pytest.approx(solution.objective, rel=1e-3)


def test_outputs_that_share_layers_may_cost_less_but_never_less_than_the_bound():
    # Three points pass through two neurons, at three angles of a quadrant, and are
    # told apart by the last two layers. All layers but these need two units of norm
    # where a branch an output needs three.
    half, eye, depth, beta = 2**-0.5, np.eye(3), 8, 1e-2
    layers = [
        np.array([[1, 0], [half, half], [0, 1]]),
        *[np.eye(2)] * (depth - 3),
        np.array([[1, -1, 1], [-1, 1, 1]]),
        np.array([[1, -half, 0], [0, -half, 1], [0, half, 0]]),
    ]
    solution = deep_relu_whitened(eye, eye, beta, depth)
    shared = cost([layers], eye, eye, beta, relu=True)
    assert solution.certificate < shared < solution.objective


def test_mixed_signs_break_the_rank_one_formula():
    # With multiples of both signs the two sides can share hidden layers, and deep
    # networks do better than a branch for each side: the case is refused.
    X = np.outer([1.0, -1.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="both signs"):
        deep_relu_rank_one(X, np.ones(2), 0.1, 3)


def test_kind_and_dtype_are_kept(device):
    X = torch.eye(3, device=device)
    solution = deep_linear(X, torch.ones(3, device=device), 0.1, 3)
    assert all(W.dtype == torch.float32 for W in solution.weights[0])
    assert all(W.device == X.device for W in solution.weights[0])
    assert project_dual_ball(np.eye(2, dtype=np.float32), np.ones(2, np.float32), 0.1)[
        0
    ].dtype == np.float32


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda X, y: two_layer_linear(X, y, 0.0), ValueError),
        (lambda X, y: two_layer_linear(X, y[:2], 0.1), ValueError),
        (lambda X, y: deep_linear(X, y, 0.1, 1), ValueError),
        (lambda X, y: deep_linear(X, y, 0.1, 3, widths=[2]), ValueError),
        (lambda X, y: deep_linear(X, y * np.inf, 0.1, 3), ValueError),
        (lambda X, y: deep_relu_rank_one(X, y, 0.1, 3), ValueError),
        (lambda X, y: deep_relu_whitened(2 * X, X, 0.1, 3), ValueError),
        (lambda X, y: deep_relu_whitened(X, -X, 0.1, 3), ValueError),
        (lambda X, y: deep_relu_whitened(X, X + 0.5, 0.1, 3), ValueError),
        (lambda X, y: project_dual_ball(X, y, -1.0), ValueError),
    ],
)
def test_bad_arguments_are_refused(call, error):
    with pytest.raises(error):
        call(np.eye(3), np.ones(3))
