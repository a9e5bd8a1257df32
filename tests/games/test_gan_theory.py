"""What the papers prove about GANs, checked on small cases."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from scipy.special import rel_entr

from lib.games import (
    MLPDiscriminator,
    MLPGenerator,
    gan_losses,
    module_game,
)


def distributions(n, seed, count=2):
    return np.random.default_rng(seed).dirichlet(np.ones(n), count)


def jensen_shannon(p, q):
    m = (p + q) / 2
    return (rel_entr(p, m).sum() + rel_entr(q, m).sum()) / 2


def value(p, q, d):
    return p @ np.log(d) + q @ np.log1p(-d)


# Goodfellow et al. 2014


def test_the_best_discriminator_is_a_ratio(record_property):
    # Proposition 1, against a numerical maximum over logits
    worst = 0.0
    for seed in range(20):
        p, q = distributions(6, seed)

        def loss(logit, p=p, q=q):
            return p @ np.logaddexp(0, -logit) + q @ np.logaddexp(0, logit)

        found = minimize(loss, np.zeros(6), tol=1e-14, options={"gtol": 1e-10}).x
        d = 1 / (1 + np.exp(-found))
        worst = max(worst, np.max(np.abs(d * (p + q) / p - 1)))
    record_property("value", float(worst))
    record_property("trials", 20)
    assert worst < 1e-5


def test_its_value_is_a_divergence(record_property):
    # Theorem 1
    worst = 0.0
    for seed in range(200):
        p, q = distributions(2 + seed % 9, seed)
        best = value(p, q, p / (p + q))
        expected = -np.log(4) + 2 * jensen_shannon(p, q)
        worst = max(worst, abs(best / expected - 1))
        assert best >= -np.log(4) - 1e-12
    p, _ = distributions(5, 0)
    assert value(p, p, np.full(5, 0.5)) == pytest.approx(-np.log(4), rel=1e-14)
    record_property("value", float(worst))
    record_property("trials", 200)
    assert worst < 1e-12


def test_the_idealised_algorithm_converges(record_property):
    # Proposition 2: an optimal discriminator, then a small step of the distribution
    excess = []
    for seed, step in itertools.product(range(10), (0.2, 1.0, 2.0)):
        p, q = distributions(8, seed)
        values = []
        for _ in range(200):
            values.append(value(p, q, p / (p + q)) + np.log(4))
            q = q * np.exp(-step * np.log(q / (p + q)))
            q = q / q.sum()
        assert np.all(np.diff(values) <= 1e-15)
        excess.append(values[-1] - 1e-9)
    record_property("value", float(max(excess)))
    record_property("trials", int(len(excess)))
    assert max(excess) <= 0


def test_a_mirror_step_of_one_halves_the_distance():
    p, q = distributions(8, 0)
    moved = q * np.exp(-np.log(q / (p + q)))
    np.testing.assert_allclose(moved / moved.sum(), (p + q) / 2, rtol=1e-14)


def test_the_envelope_gives_the_gradient_of_the_value():
    p, q = distributions(6, 1)
    h = 1e-6
    for i in range(6):
        e = h * np.eye(6)[i]
        ends = [value(p, q + s, p / (p + q + s)) for s in (e, -e)]
        slope = (ends[0] - ends[1]) / (2 * h)
        # value() charges mass beyond one correctly: it is linear in q
        assert slope == pytest.approx(np.log(q[i] / (p[i] + q[i])), rel=1e-6)


def test_both_losses_have_the_same_fixed_point(record_property):
    # a generator that makes the data, and a discriminator that is one half everywhere
    G = MLPGenerator(2, (2,), (4,), batch_norm=False, tanh=False, generator=0).double()
    D = MLPDiscriminator((2,), (4,), generator=0).double()
    with torch.no_grad():
        D.layers[-1].weight.zero_(), D.layers[-1].bias.zero_()
    z = torch.randn(300, 2, generator=torch.Generator().manual_seed(0)).double()
    x = G(z).detach()
    fields = {}
    for loss in ("ns", "minimax"):

        def part(k, loss=loss):
            return lambda calls: gan_losses(calls[0](x), calls[0](calls[1](z)), loss)[k]

        game = module_game([D, G], [part(0), part(1)])
        w = torch.nn.utils.parameters_to_vector([*D.parameters(), *G.parameters()])
        fields[loss] = game.field(w.detach())
    worst = max(v.norm().item() for v in fields.values())
    record_property("value", float(worst))
    record_property("trials", 2)
    assert worst < 1e-12


def test_the_nonsaturating_gradient_is_a_reverse_divergence(record_property):
    # Arjovsky and Bottou 2017, Theorem 2.5: with D optimal and held fixed, the
    # gradient of -E log D is that of KL(q || p) - 2 JSD
    x = np.linspace(-14, 14, 40_001)
    dx, worst = x[1] - x[0], 0.0

    def normal(m):
        return np.exp(-((x - m) ** 2) / 2) / np.sqrt(2 * np.pi)

    def divergence(m):
        p, q = normal(0.0), normal(m)
        return (rel_entr(q, p).sum() - 2 * jensen_shannon(p, q)) * dx

    for m in (0.3, 1.0, 2.5):
        p, q, h = normal(0.0), normal(m), 1e-4
        log_d = np.log(p / (p + q))
        ends = [-(normal(m + s) @ log_d) * dx for s in (h, -h)]
        ours = (ends[0] - ends[1]) / (2 * h)
        theirs = (divergence(m + h) - divergence(m - h)) / (2 * h)
        worst = max(worst, abs(ours / theirs - 1))
    record_property("value", float(worst))
    record_property("trials", 3)
    assert worst < 1e-6


# Arjovsky, Chintala and Bottou 2017


def wasserstein(x, y, p=None, q=None):
    """Primal and dual optimum of the linear program, and the dual's potential."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    n, m = len(x), len(y)
    p = np.full(n, 1 / n) if p is None else p
    q = np.full(m, 1 / m) if q is None else q
    cost = np.linalg.norm(x[:, None] - y[None], axis=2)
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    plan = linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.r_[p, q])
    # 1-Lipschitz functions on all points
    points = np.concatenate([x, y])
    pairs = [(i, j) for i in range(n + m) for j in range(n + m) if i != j]
    A = np.zeros((len(pairs), n + m))
    for row, (i, j) in enumerate(pairs):
        A[row, i], A[row, j] = 1, -1
    gap = np.linalg.norm(points[:, None] - points[None], axis=2)
    limit = [gap[i, j] for i, j in pairs]
    dual = linprog(
        np.r_[-p, q], A_ub=A, b_ub=limit, bounds=[(0, 0)] + [(None, None)] * (n + m - 1)
    )
    return plan.fun, -dual.fun, dual.x


def test_duality(record_property):
    rng, worst = np.random.default_rng(0), 0.0
    for _ in range(10):
        x, y = rng.standard_normal((7, 2)), rng.standard_normal((6, 2)) + 0.5
        p, q = rng.dirichlet(np.ones(7)), rng.dirichlet(np.ones(6))
        primal, dual, _ = wasserstein(x, y, p, q)
        worst = max(worst, abs(primal / dual - 1))
    record_property("value", float(worst))
    record_property("trials", 10)
    assert worst < 1e-8


def test_parallel_lines(record_property):
    # Example 1
    height, worst = np.linspace(0, 1, 9), 0.0
    for theta in (0.0, 0.01, 0.3, 1.0, -0.7):
        x = np.stack([np.zeros(9), height], axis=1)
        y = np.stack([np.full(9, theta), height], axis=1)
        primal, _, _ = wasserstein(x, y)
        worst = max(worst, abs(primal - abs(theta)))
        # on the union of the two supports
        same = theta == 0
        p = np.full(9, 1 / 9) if same else np.r_[np.full(9, 1 / 9), np.zeros(9)]
        q = p if same else p[::-1]
        assert jensen_shannon(p, q) == pytest.approx(0 if same else np.log(2))
        assert np.isinf(rel_entr(p, q).sum()) is np.bool_(not same)
        assert np.abs(p - q).sum() / 2 == pytest.approx(0 if same else 1)
    record_property("value", float(worst))
    record_property("trials", 5)
    assert worst < 1e-9


def test_continuity_in_the_weights(record_property):
    # Theorem 1: the distance moves no further than the samples do
    slack, rng = [], np.random.default_rng(0)
    data = rng.standard_normal((12, 2))
    z = torch.from_numpy(rng.standard_normal((12, 3)))
    for seed in range(5):
        options = {"batch_norm": False, "tanh": False, "generator": seed}
        G = MLPGenerator(3, (2,), (8,), **options).double()
        for size in (1e-3, 0.1, 1.0):
            with torch.no_grad():
                before = G(z).numpy()
                for w in G.parameters():
                    w += size * torch.from_numpy(rng.standard_normal(w.shape))
                after = G(z).numpy()
            change = abs(wasserstein(data, after)[0] - wasserstein(data, before)[0])
            slack.append(change - np.linalg.norm(after - before, axis=1).mean())
    record_property("value", float(max(slack)))
    record_property("trials", int(len(slack)))
    assert max(slack) <= 1e-9


def test_strength_of_the_distances(record_property):
    # Theorem 2 as inequalities: Pinsker's, and W <= diameter times total variation
    slack, rng = [], np.random.default_rng(0)
    for _ in range(20):
        points = rng.standard_normal((6, 2))
        p, q = rng.dirichlet(np.ones(6), 2)
        variation = np.abs(p - q).sum() / 2
        diameter = np.linalg.norm(points[:, None] - points[None], axis=2).max()
        primal = wasserstein(points, points, p, q)[0]
        slack += [
            primal - diameter * variation,
            variation - np.sqrt(rel_entr(p, q).sum() / 2),
            jensen_shannon(p, q) - np.log(2) * variation,
            variation**2 / 2 - jensen_shannon(p, q),
        ]
    record_property("value", float(max(slack)))
    record_property("trials", int(len(slack)))
    assert max(slack) <= 1e-9


def test_gradient_through_the_best_critic(record_property):
    # Theorem 3: moving the samples, the gradient is that of -f at the samples
    rng, worst = np.random.default_rng(1), 0.0
    x, y = rng.standard_normal((6, 2)), rng.standard_normal((6, 2)) + 2.0
    for direction in rng.standard_normal((4, 2)):
        h = 1e-5
        ends = [wasserstein(x, y + s * direction)[0] for s in (h, -h)]
        slope = (ends[0] - ends[1]) / (2 * h)
        # f falls at slope one along every transport ray: its gradient there
        n = len(x)
        cost = np.linalg.norm(x[:, None] - y[None], axis=2)
        rows = np.kron(np.eye(n), np.ones(n))
        columns = np.kron(np.ones(n), np.eye(n))
        plan = linprog(
            cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.full(2 * n, 1 / n)
        )
        i, j = np.nonzero(plan.x.reshape(n, n) > 1e-9)
        ray = (x[i] - y[j]) / np.linalg.norm(x[i] - y[j], axis=1)[:, None]
        theirs = -np.mean(ray @ direction)
        worst = max(worst, abs(slope / theirs - 1))
        potential = wasserstein(x, y)[2]
        drop = potential[i] - potential[n + j]
        np.testing.assert_allclose(drop, cost[i, j], atol=1e-8)
    record_property("value", float(worst))
    record_property("trials", 4)
    assert worst < 1e-5


@given(st.integers(0, 10**6), st.floats(0.01, 0.5))
@settings(max_examples=25, deadline=None)
def test_clipping_bounds_the_slope(seed, clip):
    D = MLPDiscriminator((2,), (8, 8), slope=0.2, generator=seed).double()
    bound = 1.0
    with torch.no_grad():
        for w in D.parameters():
            w.clamp_(-clip, clip)
            if w.ndim == 2:
                bound *= torch.linalg.matrix_norm(w, 2).item()
    rng = np.random.default_rng(seed)
    x, y = (torch.from_numpy(a) for a in rng.standard_normal((2, 50, 2)))
    with torch.no_grad():
        slope = (D(x) - D(y)).abs() / (x - y).norm(dim=1)
    assert slope.max().item() <= bound * (1 + 1e-9)
    # what clipping alone promises, whatever the weights
    assert bound <= clip**3 * np.sqrt(2 * 8) * 8 * np.sqrt(8) * (1 + 1e-9)


def test_a_critic_scaled_to_slope_one_never_passes_the_distance(record_property):
    # the dual: any function with slope one gives a lower bound
    rng, slack = np.random.default_rng(0), []
    x, y = rng.standard_normal((8, 2)), rng.standard_normal((8, 2)) + 1.0
    true = wasserstein(x, y)[0]
    for seed in range(20):
        D = MLPDiscriminator((2,), (8, 8), generator=seed).double()
        with torch.no_grad():
            f, g = (D(torch.from_numpy(a)).numpy() for a in (x, y))
        points, values = np.concatenate([x, y]), np.r_[f, g]
        gap = np.linalg.norm(points[:, None] - points[None], axis=2)
        gap[gap == 0] = np.inf
        slope = np.max(np.abs(values[:, None] - values[None]) / gap)
        slack.append(abs(f.mean() - g.mean()) / slope - true)
    record_property("value", float(max(slack)))
    record_property("trials", int(len(slack)))
    assert max(slack) <= 1e-9
