"""Linearised networks: Gram matrices, gradients, and rates known beforehand."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from lib.acceleration import (
    DeepLinear,
    HeavyBall,
    WideReLU,
    deep_linear_ntk,
    relu_gram,
)


def sphere(n=12, d=6, seed=0):
    X = np.random.default_rng(seed).standard_normal((n, d))
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def labels(n=12, seed=0):
    return np.random.default_rng([seed, 1]).choice([-1.0, 1.0], n)


def regression(n=8, d=6, dy=3, kappa=9.0, seed=0):
    """Data with sigma_max^2 / sigma_min^2 = kappa, and targets in reach."""
    rng = np.random.default_rng(seed)
    r = min(n, d)
    U = np.linalg.qr(rng.standard_normal((n, r)))[0]
    V = np.linalg.qr(rng.standard_normal((d, r)))[0]
    X = U @ np.diag(np.geomspace(1, math.sqrt(kappa), r)) @ V.T
    return X, X @ rng.standard_normal((d, dy))


def stacked(residuals):
    """Norms of [xi_t; xi_{t-1}], with xi_{-1} = xi_0."""
    return np.hypot(residuals, np.r_[residuals[0], residuals[:-1]])


def bound(condition, t):
    """Right-hand side of (8) and (10), relative to [xi_0; xi_{-1}]."""
    root = math.sqrt(condition)
    return 8 * root * (1 - 1 / (4 * root)) ** t


def fitted_rate(residuals, low=1e-11, high=1e-2):
    """Slope of the logarithm where the residual is neither large nor rounding."""
    ratio = residuals / residuals[0]
    t = np.flatnonzero((ratio > low) & (ratio < high))
    return math.exp(np.polyfit(t, np.log(ratio[t]), 1)[0])


# ---- Gram matrices ------------------------------------------------------------------


def test_closed_form_against_monte_carlo(backend):
    X = sphere(6, 3) * np.array([1.0, 2.0, 0.5, 1.0, 1.0, 3.0])[:, None]
    draws = 400_000
    W = np.random.default_rng(0).standard_normal((draws, 3))
    expected = relu_gram(backend.asarray(X))
    assert backend.owns(expected, "float64")
    sample = backend.numpy(relu_gram(backend.asarray(X), backend.asarray(W)))
    # a share p of neurons has the standard error sqrt(p (1 - p) / draws)
    inner, expected = X @ X.T, backend.numpy(expected)
    share = np.clip(expected / inner, 0, 0.5)
    error = np.abs(inner) * np.sqrt(share * (1 - share) / draws)
    assert np.abs(sample - expected).max() > 0
    assert (np.abs(sample - expected) <= 4.5 * error + 1e-15).all()


@pytest.mark.parametrize(
    "degrees, share", [(0, 1 / 2), (60, 1 / 3), (90, 1 / 4), (120, 1 / 6), (180, 0)]
)
def test_known_angles(degrees, share, backend):
    phi = math.radians(degrees)
    X = np.array([[2.0, 0.0], [3 * math.cos(phi), 3 * math.sin(phi)]])
    H = backend.numpy(relu_gram(backend.asarray(X)))
    assert H[0, 1] == pytest.approx(6 * math.cos(phi) * share, abs=1e-7)
    np.testing.assert_allclose(H.diagonal(), [2.0, 4.5], rtol=1e-15)


@given(n=st.integers(1, 8), d=st.integers(1, 5), seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_expected_gram_is_symmetric_and_semidefinite(n, d, seed):
    X = np.random.default_rng(seed).standard_normal((n, d))
    H = relu_gram(X)
    np.testing.assert_array_equal(H, H.T)
    assert np.linalg.eigvalsh(H)[0] >= -1e-7 * np.linalg.norm(X) ** 2
    # degree two in the length of the rows
    np.testing.assert_allclose(relu_gram(2 * X), 4 * H, rtol=1e-6, atol=1e-7)
    W = np.random.default_rng(seed + 1).standard_normal((17, d))
    active = X @ W.T >= 0
    brute = sum(np.outer(a, a) * (X @ X.T) for a in active.T.astype(float)) / 17
    np.testing.assert_allclose(relu_gram(X, W), brute, rtol=1e-12, atol=1e-14)


def test_zero_rows_and_repeated_rows():
    X = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    expected = np.outer(X[:, 0], X[:, 0]) / 2
    np.testing.assert_allclose(relu_gram(X), expected, atol=1e-8)
    assert relu_gram(X.astype(np.float32)).dtype == np.float32


def test_gram_is_that_of_the_jacobian(device):
    X = torch.tensor(sphere(), device=device)
    net = WideReLU(40, random_state=0).fit(X, torch.tensor(labels(), device=device),
                                           n_iter=0)  # fmt: skip

    def outputs(W):
        return torch.relu(X @ W.T) @ net.signs_

    J = torch.autograd.functional.jacobian(outputs, net.weights_).flatten(1)
    H = relu_gram(X, net.weights_)
    torch.testing.assert_close(J @ J.T, H, rtol=0, atol=1e-13)


def test_kernel_of_a_deep_network_is_that_of_the_jacobian(device):
    rng = np.random.default_rng(0)
    sizes = [4, 7, 5, 6, 3]
    Ws = [
        torch.tensor(rng.standard_normal((b, a)), device=device)
        for a, b in zip(sizes[:-1], sizes[1:], strict=True)
    ]
    X = torch.tensor(rng.standard_normal((5, 4)), device=device)

    def outputs(*Ws):
        h = X
        for W in Ws:
            h = h @ W.T
        return h.flatten() / math.sqrt(math.prod(sizes[1:]))

    parts = torch.autograd.functional.jacobian(outputs, tuple(Ws))
    J = torch.cat([part.flatten(1) for part in parts], 1)
    H = deep_linear_ntk(Ws, X)
    torch.testing.assert_close(J @ J.T, H, rtol=0, atol=1e-11)
    again = deep_linear_ntk([W.cpu().numpy() for W in Ws], X.cpu().numpy())
    np.testing.assert_allclose(again, H.cpu(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("depth", [2, 3, 20, 300])
def test_kernel_at_orthogonal_weights_is_exact(depth, backend, record_property):
    # also at L = 300 and m = 16, where m^(L - 1) is no double
    X, Y = (backend.asarray(a) for a in regression())
    net = DeepLinear(depth, 16, random_state=0).fit(X, Y, n_iter=0)
    H = backend.numpy(deep_linear_ntk(net.weights_, X))
    exact = depth / 3 * np.kron(backend.numpy(X @ X.T), np.eye(3))
    error = np.abs(H - exact).max() / np.abs(exact).max()
    record_property("value", float(error))
    record_property("trials", 1)
    assert error < 1e-12
    spectrum = np.linalg.eigvalsh(H)[-3 * 6 :]
    np.testing.assert_allclose(spectrum, np.repeat(net.gram_eigs_, 3), rtol=1e-11)
    np.testing.assert_allclose(
        net.gram_eigs_[[0, -1]], [depth / 3, depth / 3 * 9], rtol=1e-12
    )


def test_gaussian_weights_have_that_kernel_on_average():
    X, Y = regression(4, 3, 2)
    mean = np.zeros((8, 8))
    for seed in range(200):
        net = DeepLinear(3, 40, init="gaussian", random_state=seed)
        mean += deep_linear_ntk(net.fit(X, Y, n_iter=0).weights_, X) / 200
    exact = 3 / 2 * np.kron(X @ X.T, np.eye(2))
    assert np.linalg.norm(mean - exact) < 0.1 * np.linalg.norm(exact)


# ---- gradients and steps ------------------------------------------------------------


def test_relu_steps_are_autograd_and_heavy_ball(backend):
    X, y = sphere(), labels()
    for momentum in (0.0, 0.7):
        net = WideReLU(50, random_state=0).fit(
            backend.asarray(X), backend.asarray(y), lr=0.3, momentum=momentum, n_iter=8
        )
        W = torch.tensor(backend.numpy(net.initial_weights_), requires_grad=True)
        signs = torch.tensor(backend.numpy(net.signs_))
        optimizer, norms = HeavyBall([W], 0.3, momentum), []
        for _ in range(9):
            optimizer.zero_grad()
            xi = torch.relu(torch.tensor(X) @ W.T) @ signs - torch.tensor(y)
            norms.append(xi.detach().norm().item())
            (xi.square().sum() / 2).backward()
            if len(norms) < 9:
                optimizer.step()
        np.testing.assert_allclose(
            backend.numpy(net.weights_), W.detach(), rtol=0, atol=1e-12
        )
        np.testing.assert_allclose(net.residuals_, norms, rtol=1e-12)
        assert backend.owns(net.weights_, "float64") and net.n_iter_ == 8


@pytest.mark.parametrize("init", ["orthogonal", "gaussian"])
@pytest.mark.parametrize("depth", [2, 5])
def test_deep_steps_are_autograd_and_heavy_ball(init, depth, backend):
    X, Y = regression()
    start, net = (
        DeepLinear(depth, 10, init=init, random_state=0).fit(
            backend.asarray(X), backend.asarray(Y), lr=0.02, momentum=0.6, n_iter=steps
        )
        for steps in (0, 8)
    )
    Ws = [torch.tensor(backend.numpy(W), requires_grad=True) for W in start.weights_]
    optimizer, norms = HeavyBall(Ws, 0.02, 0.6), []
    for _ in range(9):
        optimizer.zero_grad()
        h = torch.tensor(X)
        for W in Ws:
            h = h @ W.T / math.sqrt(len(W))
        xi = h - torch.tensor(Y)
        norms.append(xi.detach().norm().item())
        (xi.square().sum() / 2).backward()
        if len(norms) < 9:
            optimizer.step()
    for ours, theirs in zip(net.weights_, Ws, strict=True):
        np.testing.assert_allclose(
            backend.numpy(ours), theirs.detach(), rtol=0, atol=1e-12
        )
        assert backend.owns(ours, "float64")
    np.testing.assert_allclose(net.residuals_, norms, rtol=1e-11)


def test_gradient_against_finite_differences():
    X, y = sphere(), labels()
    net = WideReLU(9, random_state=0).fit(X, y, lr=1.0, momentum=0.0, n_iter=1)
    W, gradient = net.initial_weights_, net.initial_weights_ - net.weights_

    def loss(W):
        return np.sum((np.maximum(X @ W.T, 0) @ net.signs_ - y) ** 2) / 2

    for r, k in ((0, 0), (3, 2), (8, 5)):
        E = np.zeros_like(W)
        E[r, k] = 1e-6
        slope = (loss(W + E) - loss(W - E)) / 2e-6
        assert gradient[r, k] == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numpy_and_torch_train_alike(dtype, backend):
    rtol = 1e-3 if dtype == "float32" else 1e-9
    for net, (X, y) in (
        (WideReLU(60, random_state=1), (sphere(), labels())),
        (DeepLinear(4, 12, random_state=1), regression()),
        (DeepLinear(4, 12, init="gaussian", random_state=1), regression()),
    ):
        reference = clone(net).fit(X, y, n_iter=20)
        net.fit(backend.asarray(X, dtype), backend.asarray(y, dtype), n_iter=20)
        np.testing.assert_allclose(net.residuals_, reference.residuals_, rtol=rtol)
        np.testing.assert_allclose(net.gram_eigs_, reference.gram_eigs_, rtol=1e-5)
        Z = net.predict(backend.asarray(X, dtype))
        assert backend.owns(Z, dtype) and tuple(Z.shape) == y.shape
        np.testing.assert_allclose(
            backend.numpy(Z), reference.predict(X), rtol=0, atol=20 * rtol
        )


# ---- what theory says ---------------------------------------------------------------


def test_parameters_of_the_theorems():
    X = sphere(20, 8)
    net = WideReLU(10, random_state=0).fit(X, labels(20), n_iter=0)
    values = np.linalg.eigvalsh(relu_gram(X))
    kappa = values[-1] / values[0]
    np.testing.assert_allclose(net.gram_eigs_, values)
    assert net.condition_ == pytest.approx((4 * kappa + 1) / 3)
    assert net.lr_ == pytest.approx(1 / (values[-1] + values[0] / 4))
    root = 1 - 1 / (2 * math.sqrt(net.condition_))
    assert net.momentum_ == pytest.approx(root**2)
    assert net.predicted_rate_ == pytest.approx(root, abs=1e-15)
    plain = WideReLU(10, random_state=0).fit(X, labels(20), momentum=0, n_iter=0)
    assert plain.predicted_rate_ == pytest.approx(1 - plain.lr_ * values[0])
    X, Y = regression(kappa=16.0)
    deep = DeepLinear(7, 30, random_state=0).fit(X, Y, n_iter=0)
    assert deep.condition_ == pytest.approx(16)
    assert deep.lr_ == pytest.approx(3 / (7 * 16))
    assert deep.momentum_ == pytest.approx((1 - 1 / 8) ** 2)


def test_wide_relu_reaches_root_beta_and_keeps_the_bound(device):
    X, y = torch.tensor(sphere(5, 10), device=device), labels(5)
    net = WideReLU(4000, random_state=0)
    net.fit(X, torch.tensor(y, device=device), n_iter=80)
    assert fitted_rate(net.residuals_) == pytest.approx(net.predicted_rate_, abs=0.01)
    slack = stacked(net.residuals_) / stacked(net.residuals_)[0]
    good = net.residuals_ > 1e-11 * net.residuals_[0]
    assert (slack <= bound(net.condition_, np.arange(81)))[good].all()
    assert 0 < net.flip_fraction_ < 0.2


@pytest.mark.parametrize("depth", [2, 8])
def test_deep_linear_reaches_root_beta_and_keeps_the_bound(depth, backend):
    X, Y = regression(kappa=25.0)
    net = DeepLinear(depth, 64, random_state=0).fit(
        backend.asarray(X), backend.asarray(Y), n_iter=220
    )
    assert net.predicted_rate_ == pytest.approx(0.9)
    assert fitted_rate(net.residuals_) == pytest.approx(0.9, abs=5e-3)
    slack = stacked(net.residuals_) / stacked(net.residuals_)[0]
    good = net.residuals_ > 1e-11 * net.residuals_[0]
    assert (slack <= bound(25.0, np.arange(len(slack))))[good].all()


def test_wide_relu_without_flips_is_the_quadratic():
    # with one active set for ever, the residual is that of the linear recursion
    X = np.abs(sphere(4, 6)) + 0.0
    y = labels(4)
    net = WideReLU(4000, random_state=0).fit(X, y, lr=0.05, momentum=0.5, n_iter=3)
    H = relu_gram(X, net.initial_weights_)
    start = np.maximum(X @ net.initial_weights_.T, 0) @ net.signs_ - y
    xi, before, norms = start, start, [np.linalg.norm(start)]
    for _ in range(3):
        xi, before = xi - 0.05 * H @ xi + 0.5 * (xi - before), xi
        norms.append(np.linalg.norm(xi))
    np.testing.assert_allclose(net.residuals_, norms, rtol=2e-2)


def test_deep_linear_finds_the_least_squares_map():
    # more points than dimensions: the targets are out of reach, the residual is not
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((40, 5)), rng.standard_normal((40, 2))
    net = DeepLinear(3, 40, random_state=0).fit(X, Y, n_iter=5000, tol=1e-10)
    best = X @ np.linalg.lstsq(X, Y, rcond=None)[0]
    np.testing.assert_allclose(net.predict(X), best, atol=1e-8)
    assert net.converged_ and net.residuals_[-1] <= 1e-10 * net.residuals_[0]
    single = DeepLinear(3, 40, random_state=0).fit(X, Y[:, 0], n_iter=5000, tol=1e-10)
    np.testing.assert_allclose(single.predict(X), best[:, 0], atol=1e-8)
    # columns that are linear combinations of others change nothing
    wide = np.hstack([X, X @ rng.standard_normal((5, 2))])
    net = DeepLinear(3, 40, random_state=0).fit(wide, Y, n_iter=9000, tol=1e-10)
    assert len(net.gram_eigs_) == 5
    np.testing.assert_allclose(net.predict(wide), best, atol=1e-7)


# ---- contracts ----------------------------------------------------------------------


def test_weights_are_the_announced_ones():
    X, Y = regression()
    net = DeepLinear(3, 20, random_state=0).fit(X, Y, n_iter=0)
    first, *others = net.weights_
    np.testing.assert_allclose(first.T @ first, 20 * np.eye(6), atol=1e-13)
    for W in others:
        np.testing.assert_allclose(W @ W.T, 20 * np.eye(len(W)), atol=1e-13)
    net = WideReLU(3000, random_state=0).fit(sphere(), labels(), n_iter=0)
    assert abs(net.weights_.mean()) < 0.05 and abs(net.weights_.std() - 1) < 0.02
    np.testing.assert_allclose(np.abs(net.signs_), 1 / math.sqrt(3000), rtol=1e-14)
    assert net.flip_fraction_ == 0


def test_uniform_orthogonal_weights():
    # of a uniformly random orthogonal matrix each entry has variance 1/m, and the
    # diagonal is as often positive as negative
    X, Y = regression(4, 3, 2)
    diagonals = np.concatenate([
        DeepLinear(3, 8, random_state=seed).fit(X, Y, n_iter=0).weights_[1].diagonal()
        for seed in range(300)
    ]) / math.sqrt(8)  # fmt: skip
    assert abs(np.mean(diagonals > 0) - 0.5) < 4.5 * 0.5 / math.sqrt(2400)
    assert abs(np.mean(diagonals**2) * 8 - 1) < 0.1


def test_random_state_decides_and_the_global_one_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    torch_before = torch.get_rng_state()
    for net, (X, y) in (
        (WideReLU(9), (sphere(), labels())),
        (DeepLinear(3, 9), regression()),
    ):
        ends = [
            clone(net).set_params(random_state=seed).fit(X, y, n_iter=2).residuals_
            for seed in (0, 0, 1)
        ]
        np.testing.assert_array_equal(ends[0], ends[1])
        assert np.abs(ends[0] - ends[2]).max() > 1e-3
        net.fit(X, y, n_iter=1)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(torch_before, torch.get_rng_state())


def test_input_is_not_changed(backend):
    for net, (X, y) in (
        (WideReLU(9, random_state=0), (sphere(), labels())),
        (DeepLinear(3, 9, random_state=0), regression()),
    ):
        A, b = backend.asarray(X), backend.asarray(y)
        net.fit(A, b, n_iter=3)
        np.testing.assert_array_equal(backend.numpy(A), X)
        np.testing.assert_array_equal(backend.numpy(b), y)


def test_it_is_said_when_training_fails():
    X, y = sphere(), labels()
    with pytest.warns(ConvergenceWarning, match="WideReLU.*after 3 steps.*start"):
        net = WideReLU(50, random_state=0).fit(X, y, n_iter=3, tol=1e-6)
    assert not net.converged_ and net.n_iter_ == 3
    X, Y = regression()
    with pytest.warns(ConvergenceWarning, match="DeepLinear.*(inf|nan)"):
        net = DeepLinear(3, 9, random_state=0).fit(X, Y, lr=10.0, n_iter=500)
    assert not net.converged_ and len(net.residuals_) == net.n_iter_ + 1 < 501
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = DeepLinear(3, 9, random_state=0).fit(X, Y, n_iter=900, tol=1e-6)
    assert net.converged_ and net.residuals_[-2] > 1e-6 * net.residuals_[0]


def test_repeated_rows_have_no_theory():
    X = np.vstack([sphere(3), sphere(3)[:1]])
    for lr in ("theory", 0.1):
        with pytest.raises(ValueError, match="momentum.*'theory'.*repeated or para"):
            WideReLU(9).fit(X, labels(4), lr=lr)
        net = WideReLU(9).fit(X, labels(4), lr=lr, momentum=0, n_iter=3)
        assert net.condition_ == math.inf
        assert net.predicted_rate_ == pytest.approx(1)
    with pytest.raises(ValueError, match="X must not be all zero"):
        WideReLU(9).fit(0 * X, labels(4), momentum=0)


@pytest.mark.parametrize(
    "make, options, error, words",
    [
        ({"n_hidden": 0}, {}, ValueError, "n_hidden.*0"),
        ({"n_hidden": 2.0}, {}, TypeError, "n_hidden.*2.0"),
        ({"random_state": "a"}, {}, TypeError, "random_state.*'a'"),
        ({}, {"lr": -1.0}, ValueError, "lr.*-1.0"),
        ({}, {"lr": "fast"}, ValueError, "lr.*theory.*'fast'"),
        ({}, {"momentum": 1.0}, ValueError, "momentum.*1.0"),
        ({}, {"momentum": None}, TypeError, "momentum.*None"),
        ({}, {"n_iter": -1}, ValueError, "n_iter.*-1"),
        ({}, {"tol": -1.0}, ValueError, "tol.*-1.0"),
    ],
)
def test_bad_parameters_of_the_relu_layer_are_refused(make, options, error, words):
    with pytest.raises(error, match=words):
        WideReLU(**make).fit(sphere(), labels(), **options)


@pytest.mark.parametrize(
    "make, options, error, words",
    [
        ({"depth": 1}, {}, ValueError, "depth.*>= 2.*1"),
        ({"width": 0}, {}, ValueError, "width.*0"),
        ({"width": 5}, {}, ValueError, "width must be at least 6.*5"),
        ({"init": "haar"}, {}, ValueError, "init.*'haar'"),
        ({}, {"lr": np.nan}, ValueError, "lr.*nan"),
        ({}, {"n_iter": 1.5}, TypeError, "n_iter.*1.5"),
    ],
)
def test_bad_parameters_of_the_deep_network_are_refused(make, options, error, words):
    with pytest.raises(error, match=words):
        DeepLinear(**make).fit(*regression(), **options)


def test_bad_data_are_refused(backend):
    X, y = backend.asarray(sphere()), backend.asarray(labels())
    net = WideReLU(9, random_state=0)
    with pytest.raises(NotFittedError):
        net.predict(X)
    net.fit(X, y, n_iter=1)
    with pytest.raises(ValueError, match="features.*expecting 6"):
        net.predict(X[:, :2])
    with pytest.raises(ValueError, match="samples|rows of X"):
        net.fit(X, y[:-1])
    hole = sphere()
    hole[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN|finite"):
        net.fit(backend.asarray(hole), y)
    with pytest.raises(ValueError, match="X must not be all zero"):
        DeepLinear(2, 9).fit(0 * X, y)
    with pytest.raises(ValueError, match="W must have the 6 columns of X, got 2"):
        relu_gram(X, X[:, :2])
    with pytest.raises(ValueError, match="Ws must hold"):
        deep_linear_ntk([], X)
    with pytest.raises(ValueError, match=r"Ws\[1\] must have 12 columns, got 6"):
        deep_linear_ntk([X, X], X)
    other = torch.zeros(2, 6) if backend.kind == "numpy" else np.zeros((2, 6))
    with pytest.raises(TypeError, match="X and W"):
        relu_gram(X, other)
