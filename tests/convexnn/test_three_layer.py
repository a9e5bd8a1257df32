"""The three-layer program: its networks, its two-layer shadow, gradient training."""

import numpy as np
import pytest
import torch

from lib.convexnn import ConvexReLURegressor, three_layer_program


def data(seed=1, n=5, d=2):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal(n)


def cost(networks, X, y, beta):
    out, penalty = np.zeros(len(y)), 0.0
    for W1, w2, w3 in networks:
        assert np.linalg.norm(W1) <= 1 + 1e-9
        out += np.maximum(np.maximum(X @ W1, 0) @ w2, 0) * w3
        penalty += w2 @ w2 + w3**2
    return 0.5 * ((out - y) ** 2).sum() + beta / 2 * penalty


@pytest.mark.parametrize("seed", [0, 1])
def test_networks_cost_what_the_program_says(seed):
    X, y = data(seed)
    solution = three_layer_program(X, y, 0.1)
    assert cost(solution.networks, X, y, 0.1) == pytest.approx(solution.objective)
    assert solution.exact


def test_a_third_layer_never_costs_more_and_can_gain():
    gains = []
    for seed in (0, 1):
        X, y = data(seed)
        two = ConvexReLURegressor(0.1, tol=1e-8).fit(X, y).objective_
        gains.append(two - three_layer_program(X, y, 0.1).objective)
    assert min(gains) >= -1e-6
    assert max(gains) > 1e-3


def test_sampled_patterns_are_an_upper_bound_that_gets_tight():
    X, y = data()
    exact = three_layer_program(X, y, 0.1)
    few = three_layer_program(X, y, 0.1, 3, 3, random_state=0)
    many = three_layer_program(X, y, 0.1, 3, 60, random_state=0)
    assert not few.exact
    assert few.width <= 3
    assert few.objective >= many.objective - 1e-6
    assert many.objective == pytest.approx(exact.objective, abs=1e-5)


def test_trained_networks_never_beat_the_program():
    X, y = data()
    value = three_layer_program(X, y, 0.1).objective
    generator = torch.Generator().manual_seed(0)
    Xt, yt = torch.tensor(X), torch.tensor(y)
    starts, K, m = 20, 10, 3
    W = torch.randn(starts, K, 2, m, generator=generator, dtype=torch.float64)
    u = torch.randn(starts, K, m, generator=generator, dtype=torch.float64)
    a = torch.randn(starts, K, generator=generator, dtype=torch.float64)
    parameters = [p.requires_grad_() for p in (W, u, a)]
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    for _ in range(1500):
        optimizer.zero_grad()
        unit = W / W.flatten(2).norm(dim=2).clamp(min=1)[..., None, None]
        H = ((Xt @ unit).clamp(min=0) * u[:, :, None]).sum(3).clamp(min=0)
        out = (H * a[..., None]).sum(1)
        loss = 0.5 * ((out - yt) ** 2).sum(1)
        loss = loss + 0.05 * ((u**2).sum((1, 2)) + (a**2).sum(1))
        loss.sum().backward()
        optimizer.step()
    best = float(loss.detach().min())
    assert best >= value - 1e-5
    assert best == pytest.approx(value, rel=0.02)


def test_large_penalty_gives_no_network():
    X, y = data()
    solution = three_layer_program(X, y, 100.0)
    assert solution.networks == []
    assert solution.objective == pytest.approx(0.5 * y @ y)


def test_torch_in_torch_out():
    X, y = data()
    solution = three_layer_program(
        torch.tensor(X), torch.tensor(y), 0.1, 2, 5, random_state=0
    )
    assert all(isinstance(W, torch.Tensor) for W, _, _ in solution.networks)


@pytest.mark.parametrize(
    "call",
    [
        lambda X, y: three_layer_program(X, y, 0.0),
        lambda X, y: three_layer_program(X, y, 0.1, masks=5),
        lambda X, y: three_layer_program(X, y[:2], 0.1),
        lambda X, y: three_layer_program(np.ones((11, 2)), np.ones(11), 0.1),
        lambda X, y: three_layer_program(X, y, 0.1, 0, 5),
    ],
)
def test_bad_arguments_are_refused(call):
    with pytest.raises(ValueError):
        call(*data())
