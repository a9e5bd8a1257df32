"""Games and their dynamics: fields, Jacobians, equilibria, and what methods do."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.games import (
    BilinearGame,
    DiracGAN,
    Game,
    QuadraticGame,
    module_game,
    operator_matrix,
    simulate,
)

F = torch.nn.functional

# Every method with options that make it what it is.
RUNS = [
    ("gd", {}),
    ("gd", {"update": "alternating"}),
    ("momentum", {"momentum": -0.4}),
    ("momentum", {"momentum": (-0.5, 0.3)}),
    ("momentum", {"momentum": (-0.5, 0.0), "update": "alternating"}),
    ("ogda", {}),
    ("ogda", {"optimism": 0.3}),
    ("ogda", {"optimism": 0.7, "update": "alternating"}),
    ("extragradient", {}),
    ("consensus", {"gamma": 0.6}),
]


def general_game():
    """Two players, general sum, blocks of different shapes, nothing quadratic."""

    def first(blocks):
        a, b = blocks
        return torch.sin(a).sum() * b.pow(2).sum() + torch.logsumexp(a.ravel(), 0)

    def second(blocks):
        a, b = blocks
        return (b.exp() * a[0]).sum() + b[0] * b[1] ** 3

    return Game([first, second], [(2, 2), (2,)])


def central(function, w, h=1e-6):
    """Central differences of a function of w, one column a coordinate."""
    columns = []
    for k in range(len(w)):
        step = h * np.eye(len(w))[k]
        columns.append((function(w + step) - function(w - step)) / (2 * h))
    return np.stack(columns, axis=-1)


def symmetric_blocks(M, sizes):
    """Make each player's own block symmetric."""
    start = 0
    for size in sizes:
        s = slice(start, start + size)
        M[s, s] = (M[s, s] + M[s, s].T) / 2
        start += size
    return M


# Fields and derivatives


def test_field_stacks_each_players_own_gradient():
    game, w = general_game(), np.random.default_rng(0).standard_normal(6)

    def loss(i):
        def at(w):
            w = torch.from_numpy(w)
            return float(game.losses[i]([w[:4].reshape(2, 2), w[4:]]))

        return at

    expected = np.r_[central(loss(0), w)[:4], central(loss(1), w)[4:]]
    np.testing.assert_allclose(game.field(w), expected, rtol=1e-7, atol=1e-8)


def test_jacobian_is_the_derivative_of_the_field():
    game, w = general_game(), np.random.default_rng(1).standard_normal(6)
    expected = central(game.field, w)
    np.testing.assert_allclose(game.jacobian(w), expected, rtol=1e-6, atol=1e-7)
    eigs = game.spectrum(w)
    assert np.iscomplexobj(eigs) and (np.diff(eigs.real) >= 0).all()
    np.testing.assert_allclose(np.prod(eigs), np.linalg.det(expected), rtol=1e-6)


def test_gradient_of_the_hamiltonian():
    for game in (general_game(), QuadraticGame(np.arange(9.0).reshape(3, 3))):
        w = np.random.default_rng(2).standard_normal(game.n)
        gradient = game._hamiltonian_gradient(w)
        np.testing.assert_allclose(
            gradient, game.jacobian(w).T @ game.field(w), rtol=1e-10, atol=1e-12
        )
        np.testing.assert_allclose(
            gradient, central(game.hamiltonian, w), rtol=1e-6, atol=1e-6
        )


@given(
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=30, deadline=None)
def test_quadratic_shortcuts_equal_the_general_path(sizes, seed):
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    game = QuadraticGame(symmetric_blocks(rng.standard_normal((n, n)), sizes), sizes)
    w = rng.standard_normal(n)
    for name in ("field", "jacobian", "_hamiltonian_gradient"):
        np.testing.assert_allclose(
            getattr(game, name)(w), getattr(Game, name)(game, w), atol=1e-12
        )


def test_bilinear_game_is_a_rotation_with_the_singular_values():
    A = np.random.default_rng(0).standard_normal((3, 5))
    game = BilinearGame(A)
    sigma = np.linalg.svd(A)[1]
    eigs = game.spectrum(np.zeros(8))
    np.testing.assert_allclose(eigs.real, 0, atol=1e-12)
    expected = np.sort(np.r_[-sigma, 0, 0, sigma])
    np.testing.assert_allclose(np.sort(eigs.imag), expected, atol=1e-12)
    x, y = np.arange(3.0), np.arange(5.0)
    np.testing.assert_allclose(game.field(np.r_[x, y]), np.r_[A @ y, -A.T @ x])
    Cx, Cy = np.diag([1.0, 2.0, 3.0]), 4 * np.eye(5)
    curved = BilinearGame(A, Cx, Cy)
    f = x @ A @ y + 0.5 * x @ Cx @ x - 0.5 * y @ Cy @ y
    blocks = [torch.from_numpy(x), torch.from_numpy(y)]
    assert [float(loss(blocks)) for loss in curved.losses] == pytest.approx([f, -f])


def test_dirac_gan():
    for reg in (0.0, 0.3, 1.0, 2.0):
        game = DiracGAN(reg)
        root = np.sqrt(complex(reg**2 - 1))
        expected = np.sort_complex([(reg - root) / 2, (reg + root) / 2])
        np.testing.assert_allclose(game.spectrum([0.0, 0.0]), expected, atol=1e-7)
        assert game.is_stable([0.0, 0.0]) == (reg > 0)
        assert not game.is_stable([0.3, 0.1])
        phi, theta = 0.7, -1.2
        slope = 1 / (1 + np.exp(-phi * theta))
        np.testing.assert_allclose(
            game.field([phi, theta]), [slope * theta + reg * phi, -slope * phi]
        )


def test_a_loss_may_ignore_its_player():
    game = Game([lambda b: b[1] ** 2, lambda b: torch.tensor(1.0)], [(), ()])
    np.testing.assert_array_equal(game.field([1.0, 2.0]), 0)
    np.testing.assert_array_equal(game.jacobian([1.0, 2.0]), 0)


# Equilibria


@pytest.mark.parametrize(
    "M, stable, nash, strict",
    [
        ([[1.0, 5.0], [-5.0, 1.0]], True, True, True),
        ([[-1.0, 2.0], [-2.0, 3.0]], True, False, False),  # eigenvalues 1 and 1
        ([[1.0, 3.0], [3.0, 1.0]], False, True, True),  # eigenvalues 4 and -2
        ([[0.0, 1.0], [-1.0, 0.0]], False, True, False),
        ([[-1.0, 0.0], [0.0, -1.0]], False, False, False),
        ([[1e-12, 1.0], [-1.0, 1e-12]], False, True, False),
    ],
)
def test_stability_is_not_nash(M, stable, nash, strict):
    game, zero = QuadraticGame(M), np.zeros(2)
    assert game.is_stable(zero) == stable
    assert game.is_local_nash(zero) == nash
    assert game.is_local_nash(zero, strict=True) == strict
    away = np.array([1.0, 0.5])
    assert not game.is_stable(away) and not game.is_local_nash(away)
    # what the answers mean: small steps shrink, and no player gains alone
    path = simulate(game, away, "gd", 1e-2, 3000).field_norm
    assert (path[-1] < 1e-3 * path[0]) == stable
    losses = game.losses
    for i in range(2) if nash else ():
        for step in (-0.1, 0.1):
            moved = torch.zeros(2, 1, dtype=torch.float64)
            moved[i] = step
            assert losses[i](list(moved)) >= 0


def test_positive_definite_means_stable_and_nash():
    # The direction that does hold: a positive definite symmetric part.
    rng = np.random.default_rng(0)
    for _ in range(50):
        B, C = rng.standard_normal((2, 4, 4))
        M = B @ B.T + 0.1 * np.eye(4) + C - C.T
        game = QuadraticGame(M)
        assert game.is_stable(np.zeros(4)) and game.is_local_nash(np.zeros(4))


# Trajectories


@given(
    run=st.sampled_from(RUNS),
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    lr=st.floats(0.0, 0.6),
    steps=st.integers(0, 12),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=120, deadline=None)
def test_simulation_is_powers_of_the_operator(run, sizes, lr, steps, seed):
    method, options = run
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    M = symmetric_blocks(rng.standard_normal((n, n)), sizes)
    w0 = rng.standard_normal(n)
    path = simulate(QuadraticGame(M, sizes), w0, method, lr, steps, **options).w
    assert path.shape == (steps + 1, n)
    T = operator_matrix(M, method, lr, sizes=sizes, **options)
    if method == "ogda" and steps:
        # the first step has no earlier gradient: a plain one
        plain = {k: v for k, v in options.items() if k == "update"}
        first = operator_matrix(M, "gd", lr, sizes=sizes, **plain) @ w0
        if options.get("update") == "alternating":
            # ... in which the earlier gradient stands for the present one
            np.testing.assert_allclose(path[1], first, atol=1e-12)
            return
        z, start = np.r_[first, w0], 1
    else:
        z, start = np.r_[w0, w0][: len(T)], 0
    for t in range(start, steps + 1):
        np.testing.assert_allclose(path[t], z[:n], rtol=1e-9, atol=1e-9)
        z = T @ z


def test_alternating_optimism_against_its_definition():
    A, lr, o = np.array([[0.8, -0.2], [0.3, 1.1]]), 0.3, 0.7
    x, y = np.array([1.0, -1.0]), np.array([0.5, 2.0])
    path = simulate(
        BilinearGame(A), np.r_[x, y], "ogda", lr, 6, update="alternating", optimism=o
    ).w
    gx = gy = None
    for t in range(6):
        new = A @ y
        x = x - lr * ((1 + o) * new - o * (new if gx is None else gx))
        gx, new = new, -A.T @ x
        y = y - lr * ((1 + o) * new - o * (new if gy is None else gy))
        gy = new
        np.testing.assert_allclose(path[t + 1], np.r_[x, y], rtol=1e-12)


@pytest.mark.parametrize("method, options", RUNS)
def test_general_path_equals_the_quadratic_one(method, options):
    M = symmetric_blocks(np.random.default_rng(0).standard_normal((5, 5)), (2, 3))
    quick = QuadraticGame(M, (2, 3))
    slow = Game(quick.losses, quick.shapes)
    w0 = np.arange(5.0)
    a, b = (simulate(g, w0, method, 0.1, 9, **options) for g in (quick, slow))
    for one, other in zip(a, b, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10)


def test_rotation_in_closed_form():
    # On x y a simultaneous step multiplies the distance by sqrt(1 + lr^2); an
    # alternating one keeps x^2 + y^2 - lr x y.
    lr, w0 = 0.1, np.array([1.0, 0.5])
    game = BilinearGame([[1.0]])
    together = simulate(game, w0, "gd", lr, 1000)
    growth = np.linalg.norm(w0) * (1 + lr**2) ** (np.arange(1001) / 2)
    np.testing.assert_allclose(np.linalg.norm(together.w, axis=1), growth)
    np.testing.assert_allclose(together.field_norm, growth)
    x, y = simulate(game, w0, "gd", lr, 1000, update="alternating").w.T
    np.testing.assert_allclose(x**2 + y**2 - lr * x * y, 1.25 - 0.05, rtol=1e-12)


def convex_concave(seed, n=3):
    """A zero-sum game, convex in x and concave in y, curved but flat far away."""
    rng = np.random.default_rng(seed)
    A, B, C = (torch.from_numpy(rng.standard_normal((n, n))) for _ in range(3))

    def f(blocks):
        x, y = blocks
        own = torch.log(torch.cosh(B @ x)).sum() - torch.log(torch.cosh(C @ y)).sum()
        return own + x @ (A @ y)

    return Game([f, lambda blocks: -f(blocks)], [(n,), (n,)])


def test_consensus_lowers_the_norm_on_monotone_games(record_property):
    # With J + J' >= 0 the regularised field (I + gamma J') v has a component of at
    # least |v|^2 along v, and d/dt |v|^2 / 2 = -v'Jv - gamma |J'v|^2 along its flow.
    worst, trials = -np.inf, 0
    for seed in range(10):
        game = convex_concave(seed)
        start = np.random.default_rng(seed + 100).standard_normal(game.n)
        for gamma in (0.3, 3.0):
            path = simulate(game, start, "consensus", 0.01 / gamma, 100, gamma=gamma)
            rise = np.diff(path.field_norm) / path.field_norm[:-1]
            along = []
            for w in path.w[::20]:
                v = game.field(w)
                pulled = v + gamma * game.jacobian(w).T @ v
                along.append(1 - v @ pulled / (v @ v))
            worst, trials = max(worst, rise.max(), max(along)), trials + 106
    record_property("value", float(max(worst, 0.0)))
    record_property("trials", trials)
    assert worst < 1e-12


def test_consensus_may_attract_to_what_is_no_equilibrium():
    # Both players on a maximum of their own loss: descent leaves it, and gamma above
    # the inverse of the smallest curvature makes it attract.
    game = QuadraticGame(np.diag([-0.5, -0.2]))
    for gamma, attracts in ((4.9, False), (5.1, True)):
        w = simulate(game, [0.1, 0.1], "consensus", 0.05, 20_000, gamma=gamma).w[-1]
        assert (np.linalg.norm(w) < 0.01) == attracts
    assert not game.is_local_nash([0.0, 0.0])
    # A loss without any stationary point, t + t^3 / 3: the regularised field
    # (1 + t^2)(1 + 2 gamma t) vanishes at -1 / (2 gamma) all the same.
    slope = Game([lambda blocks: blocks[0] + blocks[0] ** 3 / 3], [()])
    path = simulate(slope, [0.0], "consensus", 0.1, 500, gamma=1.0)
    assert path.w[-1, 0] == pytest.approx(-0.5, abs=1e-9)
    assert path.field_norm[-1] == pytest.approx(1.25)


def test_average_and_start(backend):
    game = DiracGAN(0.2)
    for dtype in ("float32", "float64"):
        w0 = backend.asarray([0.5, 1.0], dtype)
        path = simulate(game, w0, "consensus", 0.3, 20, gamma=1.0)
        assert all(backend.owns(part, dtype) for part in path)
        w, norm, average = map(backend.numpy, path)
        np.testing.assert_array_equal(w[0], [0.5, 1.0])
        for t in (0, 7, 20):
            np.testing.assert_allclose(average[t], w[: t + 1].mean(0), rtol=1e-5)
            v = backend.numpy(game.field(path.w[t]))
            np.testing.assert_allclose(norm[t], np.linalg.norm(v), rtol=1e-5)
    assert backend.numpy(w0)[0] == 0.5


def test_every_kind_of_array_gives_the_same_numbers(backend):
    game, M = general_game(), np.array([[0.1, 1.0], [-1.0, 0.2]])
    w = np.random.default_rng(3).standard_normal(6)
    for g, point in ((game, w), (QuadraticGame(M), w[:2])):
        for name in ("field", "jacobian", "spectrum", "hamiltonian"):
            expected = getattr(g, name)(point)
            for dtype, rtol in (("float64", 1e-12), ("float32", 1e-4)):
                result = getattr(g, name)(backend.asarray(point, dtype))
                if name in ("field", "jacobian"):
                    assert backend.owns(result, dtype)
                np.testing.assert_allclose(
                    backend.numpy(result), expected, rtol=rtol, atol=rtol
                )


def test_overflow_is_said_by_nan():
    path = simulate(BilinearGame([[1e40]]), [1.0, 1.0], "gd", 1.0, 6)
    reached = np.isfinite(path.w).all(axis=1)
    assert 1 < reached.sum() < 7
    assert np.isnan(path.w[~reached]).all()
    assert np.isnan(path.field_norm[~reached]).all()
    assert np.isfinite(path.field_norm[reached]).all()
    game = BilinearGame([[1e200]])
    for method, options in RUNS:
        path = simulate(game, [1.0, 1.0], method, 1e200, 3, **options)
        assert np.isnan(path.w[1:]).all() and np.isfinite(path.w[0]).all()


# Games of modules


def test_module_game_agrees_with_backward():
    torch.manual_seed(0)
    nn = torch.nn
    d = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    g = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    rng = torch.Generator().manual_seed(1)
    real, z = (torch.randn(7, k, generator=rng, dtype=torch.float64) for k in (2, 3))

    def loss_d(calls):
        d, g = calls
        return F.softplus(-d(real)).mean() + F.softplus(d(g(z))).mean()

    def loss_g(calls):
        d, g = calls
        return F.softplus(-d(g(z))).mean()

    game = module_game([d, g], [loss_d, loss_g])
    parameters = [*d.parameters(), *g.parameters()]
    w = torch.nn.utils.parameters_to_vector(parameters).detach()
    assert game.sizes == (21, 26)
    own = [
        torch.autograd.grad(loss_d([d, g]), list(d.parameters())),
        torch.autograd.grad(loss_g([d, g]), list(g.parameters())),
    ]
    expected = torch.cat([x.ravel() for part in own for x in part])
    torch.testing.assert_close(game.field(w), expected)
    J = game.jacobian(w).numpy()
    np.testing.assert_allclose(J, central(game.field, w.numpy()), atol=1e-7)
    # a player's own block is a Hessian; the whole is none
    np.testing.assert_allclose(J[:21, :21], J[:21, :21].T, atol=1e-14)
    assert np.abs(J - J.T).max() > 1e-2
    # the game does not move the modules
    simulate(game, w, "consensus", 0.1, 3, gamma=1.0)
    torch.testing.assert_close(torch.nn.utils.parameters_to_vector(parameters), w)


# Contracts


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"method": "adam"}, ValueError, "method.*ogda.*'adam'"),
        ({"update": "random"}, ValueError, "update.*alternating.*'random'"),
        ({"lr": -0.1}, ValueError, "lr.*>= 0.*-0.1"),
        ({"lr": np.nan}, ValueError, "lr.*nan"),
        ({"lr": "a"}, TypeError, "lr.*'a'"),
        ({"n_steps": -1}, ValueError, "n_steps.*-1"),
        ({"n_steps": 1.5}, TypeError, "n_steps.*1.5"),
        ({"method": "momentum", "momentum": 1.0}, ValueError, "momentum.*1.0"),
        ({"method": "momentum", "momentum": -1.5}, ValueError, "momentum.*-1.5"),
        ({"method": "momentum", "momentum": np.nan}, ValueError, "momentum.*nan"),
        ({"method": "momentum", "momentum": "a"}, TypeError, "momentum.*'a'"),
        ({"method": "momentum", "momentum": (0.1,)}, ValueError, "momentum.*2 players"),
        ({"method": "ogda", "optimism": -1}, ValueError, "optimism.*-1"),
        ({"method": "consensus", "gamma": -1}, ValueError, "gamma.*-1"),
        ({"momentum": 0.5}, ValueError, "momentum belongs to.*'gd'"),
        ({"optimism": 0.5}, ValueError, "optimism belongs to.*'ogda'"),
        ({"gamma": 0.5}, ValueError, "gamma belongs to.*'consensus'"),
        (
            {"method": "extragradient", "update": "alternating"},
            ValueError,
            "update.*simultaneous.*extragradient",
        ),
        (
            {"method": "consensus", "update": "alternating"},
            ValueError,
            "update.*simultaneous.*consensus",
        ),
        ({"game": "xy"}, TypeError, "game must be a Game.*str"),
        ({"w0": [1.0]}, ValueError, "w must have 2 entries.*1"),
        ({"w0": [1.0, np.inf]}, ValueError, "w must hold finite"),
        ({"w0": [[1.0, 2.0]]}, ValueError, "w must be 1-D"),
    ],
)
def test_bad_arguments_are_refused_by_name(options, error, words):
    arguments = {
        "game": BilinearGame([[1.0]]),
        "w0": [1.0, 0.0],
        "method": "gd",
        "lr": 0.1,
        "n_steps": 1,
    }
    with pytest.raises(error, match=words):
        simulate(**arguments | options)


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: Game([], []), ValueError, "at least one"),
        (lambda: Game([abs], [(), ()]), ValueError, "one entry a player.*1 and 2"),
        (lambda: Game([1], [()]), TypeError, "losses must hold callables"),
        (lambda: QuadraticGame([[1.0, 2.0]]), ValueError, "M must be a square"),
        (lambda: QuadraticGame(np.eye(3), (2, 2)), ValueError, "sizes must add up.*3"),
        (
            lambda: QuadraticGame([[1.0, 2.0], [3.0, 1.0]], (2,)),
            ValueError,
            "symmetric block.*player 0",
        ),
        (lambda: BilinearGame([1.0]), ValueError, "A must be 2-D"),
        (lambda: BilinearGame([[1.0]], Cx=np.eye(2)), ValueError, r"Cx.*\(1, 1\)"),
        (lambda: BilinearGame([[np.nan]]), ValueError, "A.*NaN"),
        (lambda: DiracGAN(-1.0), ValueError, "reg.*-1.0"),
        (
            lambda: module_game([torch.nn.ReLU()], [abs]),
            ValueError,
            r"parameters.*modules\[0\]",
        ),
        (
            lambda: Game([lambda b: b[0]], [(2,)]).field([1.0, 2.0]),
            ValueError,
            r"losses\[0\] must return a scalar tensor",
        ),
        (
            lambda: Game([lambda b: 1.0], [(2,)]).field([1.0, 2.0]),
            ValueError,
            r"losses\[0\] must return a scalar tensor, got float",
        ),
        (lambda: DiracGAN().is_stable([0.0, 0.0], tol=-1), ValueError, "tol.*-1"),
    ],
)
def test_bad_games_are_refused_by_name(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_quadratic_games_need_no_torch():
    code = (
        "import sys; from lib.games import *; g = BilinearGame([[1.0]]);"
        "simulate(g, [1.0, 0.0], 'consensus', 0.1, 3, gamma=1.0);"
        "assert 'torch' not in sys.modules"
    )
    code = code.replace("import *", "import BilinearGame, simulate")
    subprocess.run([sys.executable, "-c", code], check=True)
