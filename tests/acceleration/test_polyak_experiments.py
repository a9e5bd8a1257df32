"""The experiments on momentum: their problems, and the methods that they write out."""

import math

import numpy as np
import pytest
import torch

from lib.acceleration import heavy_ball_rate, relu_gram
from lib.replication import MissingCells, Results
from lib.replication.experiments import acceleration as wing
from lib.replication.results import Cell, canonical_data


def test_rates_and_counts_of_a_geometric_sequence():
    norms = 3.0 * 0.8 ** np.arange(200)
    norms[120:] = norms[120]  # a floor at 1e-12 of the start
    assert wing.decay_rate(norms) == pytest.approx(0.8)
    assert wing.steps_to(norms, 1e-3) == math.ceil(math.log(1e-3) / math.log(0.8))
    assert math.isnan(wing.steps_to(norms, 1e-30))
    assert math.isnan(wing.decay_rate(np.ones(50)))


def test_slack_of_the_bound_is_its_definition():
    rng = np.random.default_rng(0)
    norms, k = 0.9 ** np.arange(60) * rng.uniform(0.5, 1.0, 60), 7.0
    stacked = [np.hypot(a, b) for a, b in zip(norms, [norms[0], *norms], strict=False)]
    right = [8 * math.sqrt(k) * (1 - 0.25 / math.sqrt(k)) ** t for t in range(60)]
    slack = max(np.log10(np.array(stacked) / stacked[0] / right))
    assert wing.momentum_bound_slack(norms, k) == pytest.approx(slack)


@pytest.mark.parametrize("khat", [2.0, 64 / 9, 60.0])
def test_the_dial_sets_the_condition_number(khat):
    X = wing.simplex_points(khat, 4, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1.0)
    values = np.linalg.eigvalsh(relu_gram(X))
    kappa = values[-1] / values[0]
    assert (4 * kappa + 1) / 3 == pytest.approx(khat, rel=1e-6)


@pytest.mark.parametrize("khat", [3.0, 1000.0])
def test_linearised_features_are_those_of_the_layer(khat):
    X, J, target = wing.linearized_problem(khat, seed=0, n=5, m=40)
    # the Gram matrix of the features is the expected one up to the draw
    H = np.diag(np.sum(X**2, axis=1)) / 2
    np.testing.assert_allclose(relu_gram(X), H, atol=1e-12)
    share = (J @ J.T).diagonal() / H.diagonal()
    assert np.abs(share - 1).max() < 0.7
    off = J @ J.T - np.diag((J @ J.T).diagonal())
    assert np.abs(off).max() < 1e-13
    kappa = H[0, 0] / H[-1, -1]
    assert (4 * kappa + 1) / 3 == pytest.approx(khat)
    assert target.shape == (5,) and J.shape == (5, 200)


@pytest.mark.parametrize("method, amsgrad", [("adam", False), ("amsgrad", True)])
@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_adaptive_methods_equal_torch(method, amsgrad, beta1):
    _, J, target = wing.linearized_problem(30.0, seed=1, n=5, m=20)
    lrs = [0.3, 0.01]
    norms = wing.adaptive_norms(
        J, target, method, lrs, 60, beta1=beta1, final_lr=None
    )
    A, b = torch.tensor(J), torch.tensor(target)
    for column, lr in zip(norms.T, lrs, strict=True):
        theta = torch.zeros(J.shape[1], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam(
            [theta], lr=lr, betas=(beta1, 0.999), amsgrad=amsgrad
        )
        peer = []
        for _ in range(61):
            optimizer.zero_grad()
            residual = A @ theta - b
            peer.append(residual.detach().norm().item())
            (residual.square().sum() / 2).backward()
            optimizer.step()
        np.testing.assert_allclose(column, peer, rtol=1e-9)


def test_adabound_is_adam_at_first_and_heavy_ball_at_last():
    _, J, target = wing.linearized_problem(3000.0, seed=1, n=5, m=20)
    lr, lrs, options = 1.0, [0.01], dict(beta1=0.9, final_lr=1.0 / 0.1)
    # wide bounds at first: nothing is clipped
    adam = wing.adaptive_norms(J, target, "adam", lrs, 5, beta1=0.9, final_lr=None)
    bound = wing.adaptive_norms(J, target, "adabound", lrs, 5, **options)
    np.testing.assert_allclose(bound[:3], adam[:3], rtol=1e-6)
    # narrow ones in the end: a heavy ball whose step is final_lr (1 - beta1)
    norms = wing.adaptive_norms(
        J, target, "adabound", lrs, 3000, beta2=0.5, **options
    )[:, 0]
    late = (norms[3000] / norms[1500]) ** (1 / 1500)
    rate = heavy_ball_rate(lr, 0.9, np.linalg.eigvalsh(J @ J.T))
    assert rate > 0.97  # outside the window, so that the step size shows
    assert 1 - late == pytest.approx(1 - rate, rel=0.02)


@pytest.mark.parametrize("data", ["sphere", "digits"])
def test_relu_problems_are_unit_vectors_with_signs(data):
    X, y = wing.relu_problem(data, 12, 64, seed=0)
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1.0)
    assert set(y) == {-1.0, 1.0} and X.shape == (12, 64)
    again = wing.relu_problem(data, 12, 64, seed=0)
    np.testing.assert_array_equal(X, again[0])
    assert np.abs(X - wing.relu_problem(data, 12, 64, seed=1)[0]).max() > 0.01


def test_deep_problem_has_its_condition_number():
    X, Y = wing.deep_problem(6, 3, 25.0, seed=0)
    s = np.linalg.svd(X, compute_uv=False)
    assert (s[0] / s[-1]) ** 2 == pytest.approx(25.0)
    assert np.abs(X @ np.linalg.lstsq(X, Y, rcond=None)[0] - Y).max() < 1e-12


def test_the_grids_for_a_gpu_run_at_a_small_scale():
    # the code of the cells that a CPU leaves out, on problems that it can take
    (large,) = {
        tuple(sorted(c.items()))
        for c in _experiment("relu-rate").full
        if c["data"] == "mnist" and c["method"] == "wang"
    }
    config = dict(large) | {"data": "digits", "n": 8, "d": 64, "m": 50, "steps": 30}
    (cell,) = wing.run_relu_rate((config,), (0,), "cpu")
    assert np.isfinite(cell[2]["residual"]).all()
    assert not list(wing.run_relu_rate((dict(large),), (0,), "cpu"))
    wide = next(c for c in _experiment("deep-linear").full if c["width"] == 1024)
    assert not list(wing.run_deep_linear((dict(wide),), (0,), "cpu"))
    small = dict(wide) | {"width": 16, "steps": 20}
    (cell,) = wing.run_deep_linear((small,), (0,), "cpu")
    assert set(cell[2]) == {"to_1e-7", "rate", "predicted", "slack"}


def _experiment(name):
    return next(e for e in wing.EXPERIMENTS if e.name == name)


def results(rows):
    return Results(
        [Cell(config, seed, canonical_data(data)) for config, seed, data in rows]
    )


def test_speedup_counts_steps():
    rows = []
    for seed, (plain, heavy) in enumerate([(100.0, 50.0), (np.nan, 25.0)]):
        for method, steps in (("gd", plain), ("wang", heavy)):
            rows.append(({"method": method, "steps": 200}, seed, {"to_1e-6": steps}))
    gain = wing.momentum_speedup(results(rows))
    np.testing.assert_allclose(gain, np.log([2.0, 8.0]))
    with pytest.raises(MissingCells):
        wing.momentum_speedup(results(rows).where(method="gd"))


def test_crossover_is_where_the_rates_meet():
    rows = []
    for k in (2.0, 4.0, 6.0, 8.0, 10.0, 20.0):
        for method, rate in (
            ("gd", 1 - 4 / (3 * k)),
            ("wang", 1 - 1 / (2 * math.sqrt(k))),
        ):
            rows.append(({"method": method, "condition": k}, 0, {"rate": rate}))
    assert wing.momentum_crossover(results(rows)) == pytest.approx([64 / 9], abs=0.05)


def test_exponents_of_power_laws():
    rows = [
        ({"khat": k, "steps": 10**6}, seed, {"to_1e-8": (3 + seed) * k**0.5})
        for k in (10.0, 100.0, 1000.0)
        for seed in range(2)
    ]
    np.testing.assert_allclose(wing.condition_exponent(results(rows)), 0.5)
    rows = [
        ({"m": m}, 0, {"flips": m**-0.5, "change": 2 * m**-0.4, "moved": 1 / m})
        for m in (100, 1000)
    ]
    for metric, slope in (
        (wing.flip_slope, -0.5),
        (wing.gram_change_slope, -0.4),
        (wing.movement_slope, -1.0),
    ):
        np.testing.assert_allclose(metric(results(rows)), slope)
