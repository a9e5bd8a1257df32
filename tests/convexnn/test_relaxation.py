"""The surrogate of planted networks: gradient, convexity, where it helps and fails."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.convexnn import fit_planted, modified_direction, relaxed_loss


def planted(n, d, m=1, seed=0):
    rng = np.random.default_rng(seed)
    A, X = rng.standard_normal((n, d)), rng.standard_normal((d, m))
    return A, np.maximum(A @ X, 0).sum(axis=1), X


def squared(A, y, x):
    return ((np.maximum(A @ x, 0) - y) ** 2).sum()


def test_gradient_is_that_of_finite_differences():
    A, y, _ = planted(7, 4)
    x = np.random.default_rng(1).standard_normal(4)
    _, gradient = relaxed_loss(A, y, x)
    h = 1e-6
    numeric = [
        (relaxed_loss(A, y, x + h * e)[0] - relaxed_loss(A, y, x - h * e)[0]) / (2 * h)
        for e in np.eye(4)
    ]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6)


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_surrogate_is_convex_and_above_the_squared_error(seed):
    rng = np.random.default_rng(seed)
    A, y = rng.standard_normal((6, 3)), rng.random(6)
    a, b = rng.standard_normal((2, 3))
    ends = relaxed_loss(A, y, a)[0], relaxed_loss(A, y, b)[0]
    middle = relaxed_loss(A, y, (a + b) / 2)[0]
    assert middle <= sum(ends) / 2 + 1e-9
    assert ends[0] >= squared(A, y, a) - 1e-9
    # The two differ by twice the targets of what is switched off.
    off = 2 * y @ np.maximum(-A @ a, 0)
    assert ends[0] - squared(A, y, a) == pytest.approx(off, abs=1e-9)


def test_both_losses_vanish_at_the_planted_neuron():
    A, y, X = planted(8, 5)
    assert relaxed_loss(A, y, X[:, 0])[0] == pytest.approx(0, abs=1e-9)


def test_negative_targets_leave_no_lower_bound():
    # Along a direction that switches a sample with a negative target off, the
    # surrogate falls without end; such targets are refused.
    a, y = np.array([[1.0]]), np.array([-1.0])
    values = [(max(t, 0) ** 2 - 2 * y[0] * t + 1) for t in (-1.0, -10.0, -100.0)]
    assert values[0] > values[1] > values[2]
    with pytest.raises(ValueError, match="non-negative"):
        relaxed_loss(a, y, np.zeros(1))


def test_direction_has_the_gradient_and_the_repair():
    A, y, _ = planted(6, 4, m=3)
    X = np.random.default_rng(2).standard_normal((4, 3))
    H = A @ X
    D = (H > 0).astype(float)
    r = np.maximum(H, 0).sum(axis=1) - y
    off = np.prod(1 - D, axis=1)
    expected = np.stack([A.T @ ((D[:, j] + off) * r) for j in range(3)], axis=1)
    np.testing.assert_allclose(modified_direction(A, y, X), expected)


def test_direction_of_one_neuron_is_half_the_gradient_of_the_surrogate():
    A, y, _ = planted(6, 4)
    x = np.random.default_rng(2).standard_normal(4)
    direction = modified_direction(A, y, x[:, None])[:, 0]
    np.testing.assert_allclose(2 * direction, relaxed_loss(A, y, x)[1])


@pytest.mark.parametrize("m", [1, 2, 4])
def test_directions_vanish_only_at_solutions_when_rows_are_independent(m):
    for seed in range(20):
        A, y, _ = planted(4, 7, m, seed)
        X = np.random.default_rng(seed + 100).standard_normal((7, m))
        r = np.maximum(A @ X, 0).sum(axis=1) - y
        size = np.linalg.norm(modified_direction(A, y, X))
        smallest = np.linalg.svd(A, compute_uv=False)[-1]
        # Every sample is weighted by at least one in some direction.
        assert size**2 * m >= (smallest * np.linalg.norm(r)) ** 2 * (1 - 1e-9)


@pytest.mark.parametrize(("n", "d", "m"), [(20, 20, 1), (20, 60, 1), (15, 40, 2)])
def test_repaired_steps_fit_where_gradient_descent_dies(n, d, m):
    relaxed = gradient = 0
    for seed in range(8):
        A, y, _ = planted(n, d, m, seed)
        start = np.random.default_rng(seed + 50).standard_normal((d, m))
        relaxed += fit_planted(A, y, m, init=start, max_iter=3000).success
        gradient += fit_planted(A, y, m, "gd", init=start, max_iter=3000).success
    assert relaxed >= 7
    assert gradient < relaxed


def test_many_samples_are_fitted_by_both():
    A, y, X = planted(100, 10)
    for method in ("relaxed", "gd"):
        fit = fit_planted(A, y, 1, method, random_state=0)
        assert fit.success
        np.testing.assert_allclose(fit.neurons, X, atol=0.05)


def test_longer_step_than_the_default_diverges_or_is_said_not_to_converge():
    A, y, _ = planted(30, 5)
    with np.errstate(over="ignore", invalid="ignore"):
        fit = fit_planted(A, y, 1, step=50.0, random_state=0)
    assert not fit.success
    assert fit.n_iter < 1500 or fit.objective > 1e-6


def test_torch_in_torch_out(device):
    A, y, _ = planted(10, 20, 2)
    A, y = torch.tensor(A, device=device), torch.tensor(y, device=device)
    fit = fit_planted(A, y, 2, random_state=0)
    assert fit.neurons.device == A.device
    same = fit_planted(A.cpu().numpy(), y.cpu().numpy(), 2, random_state=0)
    np.testing.assert_allclose(fit.neurons.cpu().numpy(), same.neurons, atol=1e-8)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda A, y: relaxed_loss(A, y, np.zeros(3)), ValueError),
        (lambda A, y: relaxed_loss(A, y[:1], np.zeros(2)), ValueError),
        (lambda A, y: modified_direction(A, y, np.zeros((3, 1))), ValueError),
        (lambda A, y: fit_planted(A, y, 0), ValueError),
        (lambda A, y: fit_planted(A, y, 1, "newton"), ValueError),
        (lambda A, y: fit_planted(A, -y, 1), ValueError),
        (lambda A, y: fit_planted(A, y, 1, init=np.zeros((2, 2))), ValueError),
        (lambda A, y: fit_planted(A, torch.ones(2), 1), TypeError),
    ],
)
def test_bad_arguments_are_refused(call, error):
    with pytest.raises(error):
        call(np.eye(2), np.ones(2))


@pytest.mark.parametrize("method", ["gd", "relaxed"])
@pytest.mark.parametrize("m", [1, 3])
def test_many_problems_at_once_are_each_what_one_is(method, m):
    from lib.replication.experiments import convexnn as runs

    A, y, start, _ = runs.planted_problems(12, 8, m, 0, 5)
    steps, neurons, _ = runs.planted_descend(A, y, start, method, 200)
    for k in range(5):
        one = fit_planted(A[k], y[k], m, method, init=start[k], max_iter=200)
        assert steps[k] == (one.n_iter if one.success else 201)
        np.testing.assert_allclose(neurons[k], one.neurons, rtol=1e-6, atol=1e-9)
