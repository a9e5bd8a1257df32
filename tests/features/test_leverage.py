"""Leverage-score features: scores, draws, weights and the theory behind them."""

import itertools
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import laplace
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from lib.features import (
    KERNELS,
    LeverageScoreFeatures,
    RandomFeatureRidge,
    RandomFourierFeatures,
    effective_dimension,
    kernel_matrix,
    leverage,
    leverage_density,
)


def points(n=12, d=2, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def unscaled(model, X, s):
    """Give the unscaled features of a fitted model's pool, by their formula."""
    theta = X @ model.pool_frequencies_.T
    assert theta.shape == (len(X), s)
    return np.hstack([np.cos(theta), np.sin(theta)])


class Scripted(np.random.Generator):
    """A generator whose choices and last uniform numbers are prescribed."""

    def __init__(self, seed, indices, phase=0.0):
        super().__init__(np.random.PCG64(seed))
        self.indices, self.phase = indices, phase

    def choice(self, a, size, p):
        self.p = np.array(p)
        assert len(p) == a and size == len(self.indices)
        return np.array(self.indices)

    def uniform(self, low, high, size):
        self.drawn = super().uniform(low, high, size)
        return np.full(size, self.phase) if size == 1 else self.drawn


# Scores


@pytest.mark.parametrize("n", [10, 200])
@pytest.mark.parametrize("D", [5, 6])
def test_scores_are_the_diagonal_of_their_definition(n, D, backend):
    # On either side of n = 2 s: the two systems that the scores come from.
    X, lam, s = points(n), 1e-3, 3 * D
    model = LeverageScoreFeatures(
        D, gamma=0.5, alpha=lam, pool_factor=3, random_state=0
    )
    model.fit(backend.asarray(X))
    Z = unscaled(model, X, s)
    G = Z.T @ Z
    p = np.diag(G @ np.linalg.inv(G / s + n * lam * np.eye(2 * s)))
    np.testing.assert_allclose(model.leverage_, p[:s] + p[s:], rtol=1e-9)
    K = Z @ Z.T / s
    trace = np.trace(K @ np.linalg.inv(K + n * lam * np.eye(n)))
    assert model.effective_dimension_ == pytest.approx(trace, rel=1e-10)
    assert p.sum() / s == pytest.approx(trace, rel=1e-10)
    assert effective_dimension(K, lam) == pytest.approx(trace, rel=1e-10)
    # The density ratio for the pool's kernel is the ratio of q_i to 1 / s.
    omega, K = backend.asarray(model.pool_frequencies_), backend.asarray(K)
    ratio = leverage_density(omega, backend.asarray(X), K, lam)
    q = model.leverage_ / model.leverage_.sum()
    np.testing.assert_allclose(backend.numpy(ratio), q * s, rtol=1e-8)


@pytest.mark.parametrize("n", [10, 200])
def test_scores_of_phase_features(n, backend):
    X, lam, D, seed = points(n), 1e-3, 7, 3
    rng = Scripted(seed, range(D))
    model = LeverageScoreFeatures(
        D, gamma=0.5, alpha=lam, pool_factor=3, features="phase", random_state=rng
    ).fit(backend.asarray(X))
    s = 3 * D
    Z = np.sqrt(2) * np.cos(X @ model.pool_frequencies_.T + rng.drawn)
    G = Z.T @ Z
    p = np.diag(G @ np.linalg.inv(G / s + n * lam * np.eye(s)))
    np.testing.assert_allclose(model.leverage_, p, rtol=1e-8)
    assert model.effective_dimension_ == pytest.approx(p.sum() / s, rel=1e-10)


def test_scores_are_summed_in_blocks(monkeypatch, backend):
    X = points(100)
    model = LeverageScoreFeatures(4, pool_factor=5, random_state=0)
    whole = clone(model).fit(X).leverage_
    monkeypatch.setattr(leverage, "BLOCK", {"cpu": 1, "cuda": 1})
    monkeypatch.setattr(leverage, "ROWS", 7)
    parts = clone(model).fit(backend.asarray(X)).leverage_
    np.testing.assert_allclose(parts, whole, rtol=1e-11)


@given(
    n=st.integers(1, 60),
    D=st.integers(1, 9),
    kernel=st.sampled_from(KERNELS),
    log_lam=st.floats(-6, 2),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_scores_stay_between_their_bounds(n, D, kernel, log_lam, seed):
    # |z|^2 = n and 0 <= K <= n I give 1 / (1 + lam) <= p_i <= 1 / lam.
    lam = 10.0**log_lam
    model = LeverageScoreFeatures(
        D, kernel=kernel, alpha=lam, pool_factor=2, random_state=seed
    ).fit(points(n, seed=seed))
    p, d = model.leverage_, model.effective_dimension_
    slack = 1e-14 * 2 * D / lam + 1e-10
    assert p.min() >= 1 / (1 + lam) - slack and p.max() <= 1 / lam + slack
    assert p.mean() == pytest.approx(d, rel=1e-12) and d <= min(n, 1 / lam) + slack
    plain = np.sqrt(2 / D)
    assert model.weights_.max() <= plain * np.sqrt((1 + lam) * d) * (1 + slack)


def test_small_penalties_keep_their_scores():
    # Against singular values, which lose nothing to the squares of a Gram matrix.
    X, D, s = points(300), 10, 50
    for lam in (1e-6, 1e-9):
        model = LeverageScoreFeatures(
            D, gamma=0.05, alpha=lam, pool_factor=5, random_state=0
        ).fit(X)
        sigma, V = np.linalg.svd(unscaled(model, X, s) / np.sqrt(s))[1:]
        p = s * (sigma**2 / (sigma**2 + 300 * lam)) @ V**2
        error = np.abs(model.leverage_ - p[:s] - p[s:]).max()
        assert error < 1e-15 * s / lam and error < 1e-5 * p.max()


# Draws and weights


@pytest.mark.parametrize(
    "D, features", [(1, "pair"), (2, "pair"), (3, "pair"), (4, "pair"), (2, "phase")]
)
def test_expectation_over_all_draws_is_the_pool(D, features):
    # Every possible draw with its probability: E Z Z' = Z_s Z_s' / s. The phase of
    # the feature without a partner is averaged by its values 0 and pi / 2.
    X, seed, s = points(6), 5, 2 * D
    drawn = -(-D // 2) if features == "pair" else D
    phases = [0.0, np.pi / 2] if D % 2 and features == "pair" else [0.0]
    expected, total = 0.0, 0.0
    for indices in itertools.product(range(s), repeat=drawn):
        for phase in phases:
            rng = Scripted(seed, indices, phase)
            model = LeverageScoreFeatures(
                D,
                gamma=0.7,
                alpha=0.01,
                pool_factor=2,
                features=features,
                random_state=rng,
            )
            Z = model.fit(X).transform(X)
            assert Z.shape == (6, D)
            probability = rng.p[list(indices)].prod() / len(phases)
            expected = expected + probability * Z @ Z.T
            total += probability
            np.testing.assert_allclose(
                rng.p, model.leverage_ / model.leverage_.sum(), rtol=1e-13
            )
            np.testing.assert_array_equal(model.indices_, indices)
    assert total == pytest.approx(1.0, abs=1e-12)
    if features == "pair":
        pool = unscaled(model, X, s)
    else:
        pool = np.sqrt(2) * np.cos(X @ model.pool_frequencies_.T + rng.drawn)
    np.testing.assert_allclose(expected, pool @ pool.T / s, rtol=0, atol=1e-12)


@given(D=st.integers(1, 30), kernel=st.sampled_from(KERNELS), data=st.data())
@settings(max_examples=40, deadline=None)
def test_map_equals_its_formula(D, kernel, data):
    X, factor = points(20), data.draw(st.integers(1, 4))
    features = data.draw(st.sampled_from(["pair", "phase"]))
    model = LeverageScoreFeatures(
        D,
        kernel=kernel,
        gamma=0.5,
        kernel_alpha=0.7,
        pool_factor=factor,
        features=features,
        random_state=0,
    ).fit(X)
    s = factor * D
    q = model.leverage_ / model.leverage_.sum()
    w = np.sqrt(2 / (D * s * q[model.indices_]))
    np.testing.assert_allclose(model.weights_, w, rtol=1e-12)
    if D % 2 == 0 and features == "pair":
        np.testing.assert_allclose(w, 1 / np.sqrt(D / 2 * s * q[model.indices_]))
    np.testing.assert_array_equal(
        model.frequencies_, model.pool_frequencies_[model.indices_]
    )
    pairs = D // 2 if features == "pair" else 0
    theta = X @ model.frequencies_.T
    formula = np.hstack(
        [
            w[:pairs] * np.cos(theta[:, :pairs]),
            w[:pairs] * np.sin(theta[:, :pairs]),
            w[pairs:] * np.cos(theta[:, pairs:] + model.offset_),
        ]
    )
    Z = model.transform(X)
    assert Z.shape == (20, D) == formula.shape
    np.testing.assert_allclose(Z, formula, atol=1e-13 * (1 + np.abs(theta).max()))


def test_shape_of_the_rational_quadratic_is_not_the_ridge_parameter():
    X = points()
    options = {"kernel": "rational_quadratic", "gamma": 0.5, "random_state": 0}
    model = LeverageScoreFeatures(9, kernel_alpha=0.3, alpha=0.1, **options).fit(X)
    pool = RandomFourierFeatures(180, alpha=0.3, **options).fit(X)
    np.testing.assert_array_equal(model.pool_frequencies_, pool.frequencies_)


def test_a_large_penalty_gives_plain_features():
    # All scores tend to the same number, |z|^2 / (n lam), and all weights to 1.
    model = LeverageScoreFeatures(50, alpha=1e6, random_state=0).fit(points())
    np.testing.assert_allclose(model.leverage_, 1e-6, rtol=1e-5)
    np.testing.assert_allclose(model.weights_, np.sqrt(2 / 50), rtol=1e-5)


def test_scores_help_ridge_regression_in_one_dimension():
    # Two tones, of which the kernel's density hardly reaches the higher one.
    x = np.random.default_rng(0).uniform(-1, 1, (500, 1))
    y, lam = np.sin(3 * x[:, 0]) + np.sin(25 * x[:, 0]), 1e-5
    test = np.linspace(-1, 1, 400)[:, None]
    truth = np.sin(3 * test[:, 0]) + np.sin(25 * test[:, 0])
    options = {"n_components": 60, "gamma": 50.0}
    errors = {"plain": [], "leverage": []}
    for seed in range(8):
        plain = RandomFourierFeatures(random_state=seed, **options)
        scored = LeverageScoreFeatures(alpha=lam, random_state=seed, **options)
        for name, features in (("plain", plain), ("leverage", scored)):
            ridge = RandomFeatureRidge(features, alpha=500 * lam).fit(x, y)
            errors[name].append(np.mean((ridge.predict(test) - truth) ** 2))
    # Measured here: 0.14 against 0.00007.
    assert np.mean(errors["plain"]) > 10 * np.mean(errors["leverage"])


# Theory


@pytest.mark.parametrize("lam", [1e-1, 1e-3, 1e-5])
def test_density_integrates_to_one(lam):
    x = np.linspace(-1, 1, 15)[:, None]
    # Gaussian kernel: Gauss-Hermite quadrature for omega ~ N(0, 2 gamma).
    gamma = 2.0
    K = kernel_matrix(x, gamma=gamma)
    nodes, weights = np.polynomial.hermite.hermgauss(80)
    omega = np.sqrt(2) * np.sqrt(2 * gamma) * nodes[:, None]
    ratio = leverage_density(omega, x, K, lam)
    assert weights @ ratio / np.sqrt(np.pi) == pytest.approx(1.0, abs=1e-9)
    # The product Cauchy kernel: omega is Laplace distributed.
    K = kernel_matrix(x, kernel="cauchy", gamma=gamma)

    def integrand(w):
        at = leverage_density(np.array([[w]]), x, K, lam)[0]
        return at * laplace.pdf(w, scale=gamma)

    mass = 2 * quad(integrand, 0, 80, limit=200)[0]
    assert mass == pytest.approx(1.0, abs=1e-6)


def test_density_integrates_to_one_in_two_dimensions():
    X, gamma, lam = points(10), 0.3, 1e-3
    K = kernel_matrix(X, gamma=gamma)
    nodes, weights = np.polynomial.hermite.hermgauss(40)
    omega = 2 * np.sqrt(gamma) * np.array(list(itertools.product(nodes, nodes)))
    mass = np.outer(weights, weights).ravel() @ leverage_density(omega, X, K, lam)
    assert mass / np.pi == pytest.approx(1.0, abs=1e-9)


def test_density_equals_its_complex_formula(backend):
    X, omega, lam = points(20), 3 * points(7, seed=1), 1e-4
    K = kernel_matrix(X, gamma=0.5)
    M = np.linalg.inv(K + 20 * lam * np.eye(20))
    z = np.exp(1j * X @ omega.T)
    exact = np.einsum("im,ij,jm->m", z.conj(), M, z) / np.trace(K @ M)
    for dtype, rtol in (("float64", 1e-9), ("float32", 1e-2)):
        arrays = (backend.asarray(a, dtype) for a in (omega, X, K))
        ratio = leverage_density(*arrays, lam)
        assert backend.owns(ratio, dtype)
        np.testing.assert_allclose(backend.numpy(ratio), exact.real, rtol=rtol)


def test_pool_scores_approach_the_density():
    x, lam = np.linspace(-1, 1, 40)[:, None], 1e-2
    K = kernel_matrix(x, gamma=5.0)
    worst = []
    for D in (10, 100, 1000):
        model = LeverageScoreFeatures(D, gamma=5.0, alpha=lam, random_state=0).fit(x)
        exact = leverage_density(model.pool_frequencies_, x, K, lam)
        ratio = model.leverage_ / model.effective_dimension_
        worst.append(np.abs(ratio / exact - 1).max())
    assert worst[0] > worst[1] > worst[2] and worst[2] < 0.1


def test_effective_dimension_in_closed_form(backend):
    n, lam = 8, 0.3
    identity = backend.asarray(np.eye(n))
    assert effective_dimension(identity, lam) == pytest.approx(n / (1 + n * lam))
    ones = backend.asarray(np.ones((n, n)), "float32")  # one eigenvalue, n
    assert effective_dimension(ones, lam) == pytest.approx(1 / (1 + lam), rel=1e-12)
    before = backend.numpy(identity).copy()
    effective_dimension(identity, lam)
    np.testing.assert_array_equal(backend.numpy(identity), before)


@given(n=st.integers(1, 12), r=st.integers(1, 12), seed=st.integers(0, 999))
@settings(max_examples=50, deadline=None)
def test_effective_dimension_lies_where_it_must(n, r, seed):
    A = points(n, r, seed)
    K, lams = A @ A.T, [1e-6, 1e-2, 1.0, 100.0]
    values = [effective_dimension(K, lam) for lam in lams]
    assert all(a >= b for a, b in itertools.pairwise(values))
    for lam, d in zip(lams, values, strict=True):
        trace = np.trace(np.linalg.solve(K + n * lam * np.eye(n), K))
        assert d == pytest.approx(trace, rel=1e-5)
        assert 0 <= d <= min(n, r, np.trace(K) / (n * lam)) + 1e-9


# Contracts


def test_same_draw_for_every_kind_dtype_and_device(backend):
    for n, dtype in itertools.product((30, 600), ("float32", "float64")):
        X = points(n, 4).astype(np.float32)
        reference = LeverageScoreFeatures(21, random_state=3).fit(X)
        model = LeverageScoreFeatures(21, random_state=3)
        model.fit(backend.asarray(X, dtype))
        np.testing.assert_array_equal(model.indices_, reference.indices_)
        np.testing.assert_allclose(model.leverage_, reference.leverage_, rtol=1e-9)
        for name in ("frequencies_", "weights_", "offset_"):
            value = getattr(model, name)
            assert isinstance(value, np.ndarray) and value.dtype == np.float64
            np.testing.assert_allclose(value, getattr(reference, name), rtol=1e-9)
        Z = model.transform(backend.asarray(X, dtype))
        assert backend.owns(Z, dtype)
        np.testing.assert_allclose(
            backend.numpy(Z), reference.transform(X.astype(float)), atol=1e-5
        )


def test_gradient_with_respect_to_the_input(device):
    X = torch.tensor(points(4, 3), device=device, requires_grad=True)
    for D in (5, 6):
        model = LeverageScoreFeatures(D, random_state=0).fit(X)
        assert torch.autograd.gradcheck(model.transform, (X,))


@pytest.mark.parametrize("n", [20, 300])
def test_sparse_input(n):
    X = np.where(np.abs(points(n, 5)) > 0.8, points(n, 5), 0.0)
    dense = LeverageScoreFeatures(7, random_state=0).fit(X)
    sparse = LeverageScoreFeatures(7, random_state=0).fit(sp.csr_matrix(X))
    np.testing.assert_allclose(sparse.leverage_, dense.leverage_, rtol=1e-9)
    np.testing.assert_allclose(
        sparse.transform(sp.csr_matrix(X)), dense.transform(X), atol=1e-12
    )


def test_random_state_clone_pickle_and_names(backend):
    X = backend.asarray(points(40))
    model = LeverageScoreFeatures(5, kernel="matern", nu=2.5, random_state=0)
    assert clone(model).get_params() == model.get_params()
    Z = backend.numpy(model.fit_transform(X))
    np.testing.assert_array_equal(backend.numpy(model.fit_transform(X)), Z)
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(backend.numpy(copy.transform(X)), Z)
    names = list(model.get_feature_names_out())
    assert names == [f"leveragescorefeatures{i}" for i in range(5)]
    moving = LeverageScoreFeatures(5, random_state=np.random.default_rng(0))
    first = backend.numpy(moving.fit_transform(X))
    assert np.abs(first - backend.numpy(moving.fit_transform(X))).max() > 0.01
    with pytest.raises(ValueError, match="read-only"):
        model.frequencies_ *= 2


def test_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    LeverageScoreFeatures(9).fit(points())
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_grid_search_inside_a_ridge():
    X = points(120, 2)
    y = np.sin(2 * X[:, 0]) + X[:, 1] ** 2
    model = RandomFeatureRidge(LeverageScoreFeatures(100, random_state=0), alpha=1e-2)
    grid = {"feature_map__gamma": [1e-4, 0.3], "feature_map__alpha": [1e-4, 1e-2]}
    search = GridSearchCV(model, grid, cv=3).fit(X, y)
    assert search.best_params_["feature_map__gamma"] == 0.3
    assert search.best_score_ > 0.75


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"n_components": 0}, ValueError, "n_components.*>= 1.*0"),
        ({"n_components": 2.0}, TypeError, "n_components.*2.0"),
        ({"alpha": 0}, ValueError, "alpha.*> 0.*0"),
        ({"alpha": -1e-3}, ValueError, "alpha.*> 0.*-0.001"),
        ({"alpha": np.nan}, ValueError, "alpha.*nan"),
        ({"alpha": "1"}, TypeError, "alpha.*'1'"),
        ({"alpha": 1e-30, "gamma": 1e-4}, ValueError, "^alpha must be large.*1e-30"),
        ({"kernel_alpha": 0}, ValueError, "kernel_alpha.*0"),
        ({"nu": 0, "kernel": "matern"}, ValueError, "nu.*0"),
        ({"kernel": "poly"}, ValueError, "kernel.*'poly'"),
        ({"gamma": -1}, ValueError, "gamma.*-1"),
        ({"gamma": "auto"}, ValueError, "gamma.*'scale'.*'auto'"),
        ({"pool_factor": 0}, ValueError, "pool_factor.*>= 1.*0"),
        ({"pool_factor": 1.5}, TypeError, "pool_factor.*1.5"),
        ({"features": "sine"}, ValueError, "features.*'sine'"),
        ({"random_state": "a"}, TypeError, "random_state.*'a'"),
    ],
)
@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_bad_parameters_are_refused_by_name(options, error, words, kind):
    with pytest.raises(error, match=words):
        LeverageScoreFeatures(**({"n_components": 4} | options)).fit(kind(points(99)))


def test_bad_data_are_refused(backend):
    model = LeverageScoreFeatures(4, random_state=0)
    with pytest.raises(NotFittedError):
        model.transform(backend.asarray(points()))
    model.fit(backend.asarray(points()))
    with pytest.raises(ValueError, match="X has 3 features.*expecting 2"):
        model.transform(backend.asarray(points(d=3)))
    X = points()
    X[2, 1] = np.nan
    for call in (model.fit, model.transform):
        with pytest.raises(ValueError, match="X.*NaN"):
            call(backend.asarray(X))


@pytest.mark.parametrize(
    "changes, error, words",
    [
        ({"lam": 0.0}, ValueError, "lam.*> 0.*0.0"),
        ({"lam": -1.0}, ValueError, "lam.*-1.0"),
        ({"lam": None}, TypeError, "lam.*None"),
        ({"lam": 1e-30}, ValueError, "^lam must be large.*1e-30"),
        ({"K": np.ones((3, 4))}, ValueError, "K must be square.*3, 4"),
        ({"K": np.triu(np.ones((12, 12)))}, ValueError, "K must be symmetric"),
        ({"K": -np.eye(12)}, ValueError, "K must be positive semi-definite.*-1"),
        ({"K": np.full((12, 12), np.nan)}, ValueError, "K.*NaN"),
        ({"K": np.eye(3)}, ValueError, r"K.*\(12, 12\).*\(3, 3\)"),
        ({"K": torch.eye(12)}, TypeError, "X and K.*Tensor"),
        ({"omega": np.ones((3, 5))}, ValueError, "omega and X.*5 and 2"),
        ({"omega": np.ones(3)}, ValueError, r"omega.*\(3,\)"),
        ({"omega": torch.ones(3, 2)}, TypeError, "X and omega.*Tensor"),
    ],
)
def test_theory_refuses_bad_input_by_name(changes, error, words):
    X = points()
    good = {"omega": X, "X": X, "K": np.ones((12, 12)), "lam": 0.1}
    with pytest.raises(error, match=words):
        leverage_density(**(good | changes))


@pytest.mark.parametrize(
    "K, lam, error, words",
    [
        (np.eye(3), 0.0, ValueError, "lam.*> 0.*0.0"),
        (np.eye(3), "1", TypeError, "lam.*'1'"),
        (np.ones((3, 4)), 0.1, ValueError, "K must be square.*3, 4"),
        (np.triu(np.ones((3, 3))), 0.1, ValueError, "K must be symmetric"),
        (-torch.eye(3), 0.1, ValueError, "K must be positive semi-definite.*-1"),
        (np.full((3, 3), np.inf), 0.1, ValueError, "K.*infinity"),
    ],
)
def test_effective_dimension_refuses_bad_input_by_name(K, lam, error, words):
    with pytest.raises(error, match=words):
        effective_dimension(K, lam)
