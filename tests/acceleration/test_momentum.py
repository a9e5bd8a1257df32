"""Momentum methods: their recursions, their rates, and their peers in torch."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.acceleration import (
    HeavyBall,
    NesterovConst,
    PerturbedAGD,
    heavy_ball_rate,
    polyak_parameters,
)


def quadratic(dim=6, low=1.0, high=50.0, seed=0):
    """Hessian of a random quadratic with these extreme eigenvalues."""
    rng = np.random.default_rng(seed)
    U = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    return U @ np.diag(np.geomspace(low, high, dim)) @ U.T, rng.standard_normal(dim)


def bowl(x):
    """A function whose Hessian changes: not a quadratic."""
    return (torch.sqrt(1 + x**2) + 0.3 * torch.cos(x) + x**2 / 8).sum()


def run(optimizer, x, f, steps):
    path = [x.detach().clone()]

    def closure():
        optimizer.zero_grad()
        loss = f(x)
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
        path.append(x.detach().clone())
    return torch.stack(path)


def variable(values, device="cpu"):
    return torch.tensor(values, dtype=torch.float64, device=device, requires_grad=True)


# ---- the recursions -----------------------------------------------------------------


def test_heavy_ball_is_its_recursion(device):
    H, w0 = quadratic()
    lr, beta, _ = polyak_parameters(1.0, 50.0)
    w, before, literal = w0, w0, [w0]
    for _ in range(60):
        w, before = w - lr * (H @ w) + beta * (w - before), w
        literal.append(w)
    x, A = variable(w0, device), torch.tensor(H, device=device)
    path = run(HeavyBall([x], lr, beta), x, lambda v: v @ A @ v / 2, 60)
    np.testing.assert_allclose(path.cpu(), literal, rtol=0, atol=1e-12)


def test_nesterov_is_algorithm_2_and_its_parameter_is_z(device):
    H, z0 = quadratic()
    L, kappa = 50.0, 50.0
    theta = (math.sqrt(kappa) - 1) / (math.sqrt(kappa) + 1)
    y, z, ys, zs = z0, z0, [], []
    for _ in range(60):
        y, last = z - H @ z / L, y
        z = y + theta * (y - last)
        ys.append(y)
        zs.append(z)
    x, A = variable(z0, device), torch.tensor(H, device=device)
    optimizer = NesterovConst([x], 1 / L, kappa)
    for y, z in zip(ys, zs, strict=True):
        run(optimizer, x, lambda v: v @ A @ v / 2, 1)
        now = x.detach().cpu()
        np.testing.assert_allclose(now, z, rtol=0, atol=1e-12)
        velocity = optimizer.state[x]["velocity"].cpu()
        np.testing.assert_allclose(now - theta * velocity, y, rtol=0, atol=1e-12)
    # and it is not y: the two sequences are told apart by far
    assert np.abs(ys[3] - zs[3]).max() > 1e-2


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_heavy_ball_equals_torch_at_a_constant_step(momentum, device):
    start = np.random.default_rng(1).standard_normal(8)
    x, z = variable(start, device), variable(start, device)
    ours = run(HeavyBall([x], 0.3, momentum), x, bowl, 100)
    peer = run(torch.optim.SGD([z], 0.3, momentum=momentum), z, bowl, 100)
    torch.testing.assert_close(ours, peer, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kappa", [1.0 + 1e-9, 4.0, 400.0])
def test_nesterov_equals_torch(kappa, device):
    start = np.random.default_rng(1).standard_normal(8)
    x, z = variable(start, device), variable(start, device)
    theta = (math.sqrt(kappa) - 1) / (math.sqrt(kappa) + 1)
    ours = run(NesterovConst([x], 0.3, kappa), x, bowl, 100)
    torch_sgd = torch.optim.SGD([z], 0.3, momentum=theta, nesterov=True)
    torch.testing.assert_close(ours, run(torch_sgd, z, bowl, 100), rtol=0, atol=1e-12)


def test_changing_the_step_parts_heavy_ball_from_torch():
    # torch multiplies its whole buffer by the new step size, the recursion does not
    x, z = variable([1.0]), variable([1.0])
    ours, peer = HeavyBall([x], 0.1, 0.5), torch.optim.SGD([z], 0.1, momentum=0.5)
    w, before, g = 1.0, 1.0, 1.0
    for lr in (0.1, 0.01):
        for optimizer in (ours, peer):
            optimizer.param_groups[0]["lr"] = lr
            run(optimizer, x if optimizer is ours else z, lambda v: v.sum(), 1)
        w, before = w - lr * g + 0.5 * (w - before), w
    assert x.item() == pytest.approx(w, abs=1e-15)
    assert z.item() == pytest.approx(1 - 0.1 - 0.01 * (0.5 + 1), abs=1e-15)
    assert abs(x.item() - z.item()) > 0.04


# ---- rates --------------------------------------------------------------------------


@given(
    step=st.floats(0, 6),
    momentum=st.floats(0, 0.999),
)
@settings(max_examples=300, deadline=None)
def test_rate_is_the_spectral_radius(step, momentum):
    A = np.array([[1 + momentum - step, -momentum], [1, 0]])
    radius = np.abs(np.linalg.eigvals(A)).max()
    # where the two roots meet, eigvals itself has half the digits
    assert heavy_ball_rate(1.0, momentum, step) == pytest.approx(radius, abs=3e-8)


@given(log_kappa=st.floats(0, 14), lmax=st.floats(1e-6, 1e6))
@settings(max_examples=200, deadline=None)
def test_wang_rate_is_exactly_root_beta(log_kappa, lmax):
    kappa = math.exp(log_kappa)
    lmin = lmax / kappa
    lr, beta, rate = polyak_parameters(lmin, lmax)
    spectrum = np.geomspace(lmin, lmax, 50)
    assert heavy_ball_rate(lr, beta, spectrum) == pytest.approx(rate, abs=1e-15)
    assert rate == pytest.approx(1 - 1 / (2 * math.sqrt(kappa)), abs=1e-12)
    assert rate**2 == pytest.approx(beta, rel=1e-14)


@given(step=st.floats(1e-9, 1), momentum=st.floats(0, 0.999999))
@settings(max_examples=300, deadline=None)
def test_root_beta_exactly_from_one_threshold_on(step, momentum):
    # for eta lambda <= 1: if and only if (1 - sqrt(eta lambda))^2 <= beta
    rate, edge = heavy_ball_rate(1.0, momentum, step), (1 - math.sqrt(step)) ** 2
    if momentum > edge * (1 + 1e-12):
        assert rate == math.sqrt(momentum)
    if momentum < edge * (1 - 1e-12):
        assert rate > math.sqrt(momentum)


@pytest.mark.parametrize("kappa", [1.5, 10.0, 300.0])
def test_optimal_rule_beats_every_other_pair(kappa):
    spectrum = np.geomspace(1, kappa, 40)
    lr, beta, rate = polyak_parameters(1.0, kappa, rule="optimal")
    assert heavy_ball_rate(lr, beta, spectrum) == pytest.approx(rate, abs=1e-7)
    rng = np.random.default_rng(0)
    for scale in (1e-3, 1e-2, 0.1, 0.5):
        for _ in range(200):
            a, b = np.exp(scale * rng.standard_normal(2))
            if b * beta < 1:
                other = heavy_ball_rate(a * lr, b * beta, spectrum)
                assert other >= rate - 1e-12


def test_one_curvature_needs_no_momentum():
    for rule, lr, beta in (("wang", 0.5, 0.25), ("optimal", 0.5, 0.0)):
        found = polyak_parameters(2.0, 2.0, rule=rule)
        assert found == pytest.approx((lr, beta, math.sqrt(beta)))


def test_crossovers_with_gradient_descent():
    # kappa = 4 on a quadratic with step 1 / lmax; 64 / 9 and 256 / 9 in terms of
    # khat, where the smallest eigenvalue is 4/3 of the one in the theorem
    def momentum_gains(k, lam, factor):
        return (1 - 1 / (factor * math.sqrt(k))) < 1 - lam / k

    for crossing, lam, factor in ((4, 1, 2), (64 / 9, 4 / 3, 2), (256 / 9, 4 / 3, 4)):
        assert momentum_gains(crossing * 1.001, lam, factor)
        assert not momentum_gains(crossing * 0.999, lam, factor)
    for kappa, wins in ((3.9, False), (4.1, True)):
        lr, _, rate = polyak_parameters(1.0, kappa)
        assert (rate < heavy_ball_rate(lr, 0.0, [1.0, kappa])) == wins


@pytest.mark.parametrize("kappa", [2.0, 30.0, 1000.0])
def test_powers_of_the_dynamics_stay_below_four_root_kappa(kappa):
    lr, beta, rate = polyak_parameters(1.0, kappa)
    worst = 0.0
    for step in lr * np.geomspace(1, kappa, 30):
        A = np.array([[1 + beta - step, -beta], [1, 0]]) / rate
        P = np.eye(2)
        for _ in range(int(30 * math.sqrt(kappa))):
            P = A @ P
            worst = max(worst, np.linalg.norm(P, 2))
    assert worst <= 4 * math.sqrt(kappa)
    assert worst >= 1.5 * math.sqrt(kappa)  # the order is right


# ---- perturbed AGD ------------------------------------------------------------------


def double_well(x):
    """A saddle at the origin with curvatures 2 and -1; minima at (0, +-1)."""
    return x[0] ** 2 + (x[1] ** 2 - 1) ** 2 / 4


def pagd(x, lr=0.05, L2=6.0, tol=1e-2, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return PerturbedAGD([x], lr, L2, tol, generator=generator, **options)


def test_without_saddles_it_is_nesterov(device):
    H, x0 = quadratic()
    A, lr, L2, tol = torch.tensor(H, device=device), 1 / 200, 1.0, 1e-8
    theta = 1 / (4 * math.sqrt(1 / (4 * lr * math.sqrt(L2 * tol))))
    x, z = variable(x0, device), variable(x0, device)
    optimizer = pagd(x, lr, L2, tol)
    peer = torch.optim.SGD([z], lr, momentum=1 - theta, nesterov=True)
    for _ in range(50):
        run(optimizer, x, lambda v: v @ A @ v / 2, 1)
        run(peer, z, lambda v: v @ A @ v / 2, 1)
        y = x.detach() + (1 - theta) * optimizer.state[x]["velocity"]
        torch.testing.assert_close(y, z.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_leaves_an_exact_saddle(seed, device):
    x = variable([0.0, 0.0], device)
    path = run(pagd(x, seed=seed), x, double_well, 300)
    ends = path[-1].cpu()
    assert abs(abs(ends[1].item()) - 1) < 0.05 and abs(ends[0].item()) < 0.05


def test_energy_never_rises():
    # Jin et al., Lemma 4 and 5: f(x) + |v|^2 / (2 eta) falls in every step without a
    # perturbation, also in one of negative-curvature exploitation
    eta = 1 / (4 * 12.0)
    x = variable([1.2, 0.05])
    optimizer = pagd(x, lr=eta, L2=12.0, tol=1e-9, seed=1)

    def energy():
        v = optimizer.state[x].get("velocity", torch.zeros(2))
        return double_well(x).item() + float(v @ v) / (2 * eta)

    last, resets = energy(), 0
    for _ in range(400):
        run(optimizer, x, double_well, 1)
        now = energy()
        assert now <= last + 1e-14
        last = now
        resets += not optimizer.state[x]["velocity"].any()
    assert optimizer.state[x]["draws"] == 0 and resets


def transcript(f, x, v, eta, L2, tol):
    """One step of Algorithms 2 and 3 without perturbation, by finite differences."""
    ell = 1 / (4 * eta)
    theta = 1 / (4 * math.sqrt(ell / math.sqrt(L2 * tol)))
    gamma = theta**2 / eta
    s = gamma / (4 * L2)

    def grad(p, h=1e-6):
        return np.array([(f(p + h * e) - f(p - h * e)) / (2 * h) for e in np.eye(2)])

    y = x + (1 - theta) * v
    g = grad(y)
    if np.any(v) and f(x) <= f(y) + g @ (x - y) - gamma / 2 * np.sum((x - y) ** 2):
        speed = np.linalg.norm(v)
        if speed >= s:
            return "stay", x, 0 * v
        choices = [x + s * v / speed, x - s * v / speed]
        return "exploit", min(choices, key=f), 0 * v
    new = y - eta * g
    return "step", new, new - x


def test_each_step_is_the_printed_one():
    # the saddle is so sharp that momentum is reset, slow and fast
    def f(p):
        return p[0] ** 2 - 2 * p[1] ** 2 + p[1] ** 4 / 4

    seen = set()
    rng = np.random.default_rng(0)
    for trial in range(60):
        L2, tol, eta = 10.0 ** rng.uniform(-2, 1), 1e-3, 0.04
        x0, v0 = rng.uniform(-0.3, 0.3, 2), rng.standard_normal(2)
        v0 *= 10.0 ** rng.uniform(-4, 0)
        x = variable(x0)
        optimizer = pagd(x, lr=eta, L2=L2, tol=tol)
        run(optimizer, x, f, 0)
        optimizer.state[x]["velocity"] = torch.tensor(v0)
        kind, x1, v1 = transcript(f, x0, v0, eta, L2, tol)
        run(optimizer, x, f, 1)
        seen.add(kind)
        np.testing.assert_allclose(x.detach(), x1, atol=1e-8, err_msg=str(trial))
        velocity = optimizer.state[x]["velocity"]
        np.testing.assert_allclose(velocity, v1, atol=1e-8, err_msg=str(trial))
    assert seen == {"step", "stay", "exploit"}


def test_perturbation_is_uniform_in_the_ball():
    # at a stationary point of a flat function only the perturbation moves
    radius, dim, points = 0.5, 3, []
    x = variable(np.zeros(dim))
    optimizer = pagd(x, radius=radius, interval=0)
    for _ in range(4000):
        with torch.no_grad():
            x.zero_()
        optimizer.state[x].pop("velocity", None)
        run(optimizer, x, lambda v: 0 * v.sum(), 1)
        points.append(x.detach().numpy().copy())
    r = np.linalg.norm(points, axis=1) / radius
    assert r.max() <= 1
    # r^dim is uniform: Kolmogorov's distance at the 0.1 % level is 1.95 / sqrt(n)
    u = np.sort(r**dim)
    assert np.abs(u - (np.arange(4000) + 0.5) / 4000).max() < 1.95 / math.sqrt(4000)
    direction = np.mean(np.array(points) / np.linalg.norm(points, axis=1)[:, None], 0)
    assert np.abs(direction).max() < 4 / math.sqrt(3 * 4000)


@pytest.mark.parametrize("interval", [0, 3, None])
def test_perturbations_keep_their_distance(interval):
    x = variable([0.0, 0.0])
    optimizer = pagd(x, interval=interval, radius=1e-6)
    draws = []
    for _ in range(30):
        run(optimizer, x, lambda v: 0 * v.sum(), 1)
        draws.append(optimizer.state[x]["draws"])
    kappa = 5 / math.sqrt(6.0 * 1e-2)
    wait = math.ceil(math.sqrt(kappa)) if interval is None else interval
    assert draws == [1 + t // (wait + 1) for t in range(30)]


def test_a_large_gradient_is_not_perturbed():
    x = variable([2.0, 0.5])
    optimizer = pagd(x)
    run(optimizer, x, double_well, 3)
    assert optimizer.state[x]["draws"] == 0


# ---- contracts ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ((0.0, 1.0), ValueError, "lmin.*0.0"),
        ((2.0, 1.0), ValueError, "lmin must be at most lmax.*2.0.*1.0"),
        ((1.0, float("inf")), ValueError, "lmax.*inf"),
        (("1", 1.0), TypeError, "lmin.*'1'"),
        ((1.0, 2.0, "nesterov"), ValueError, "rule.*'nesterov'"),
    ],
)
def test_parameters_refuse_bad_input_by_name(arguments, error, words):
    with pytest.raises(error, match=words):
        polyak_parameters(*arguments)


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ((-0.1, 0.5, 1.0), ValueError, "lr.*-0.1"),
        ((0.1, 1.0, 1.0), ValueError, "momentum.*1.0"),
        ((0.1, 0.5, -1.0), ValueError, "eigenvalues.*-1.0"),
        ((0.1, 0.5, []), ValueError, "eigenvalues"),
        ((0.1, 0.5, [np.nan]), ValueError, "eigenvalues"),
    ],
)
def test_rate_refuses_bad_input_by_name(arguments, error, words):
    with pytest.raises(error, match=words):
        heavy_ball_rate(*arguments)


def test_importing_the_wing_does_not_import_torch():
    code = "import lib.acceleration, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
