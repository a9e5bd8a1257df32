"""Matching pursuit: optimality on what it selected, and against brute force."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from lib.coresets import Gradients, omp_nonneg
from lib.coresets.matching_pursuit import OnGradients, OnGram, pursue


def problem(seed, n=30, d=8, positive=0.0):
    rng = np.random.default_rng(seed)
    g = rng.standard_normal((n, d)) + positive
    return g, g.sum(axis=0)


def objective(K, c, w, lam):
    return w @ K @ w - 2 * c @ w + lam * w @ w


def full(indices, weights, n):
    w = np.zeros(n)
    w[indices] = weights
    return w


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(2, 40),
    st.integers(1, 12),
    st.sampled_from([0.0, 0.1, 2.0]),
)
def test_refit_is_optimal_on_the_selected_atoms(seed, n, d, lam):
    g, b = problem(seed, n, d)
    k = 1 + seed % n
    K, c = g @ g.T, g @ b
    indices, weights, history = omp_nonneg(K, c, k, lam)
    assert len(set(indices.tolist())) == len(indices) <= k
    assert (weights > 0).all()
    w = full(indices, weights, n)
    slope = K @ w - c + lam * w
    scale = max(np.abs(c).max(), 1e-300)
    np.testing.assert_allclose(slope[indices] / scale, 0, atol=1e-7)
    if len(indices):
        assert history[-1] == pytest.approx(
            objective(K, c, w, lam), rel=1e-7, abs=1e-9 * scale
        )
        assert (np.diff(history) < 0).all()


@pytest.mark.parametrize("lam", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_without_a_budget_it_is_nonnegative_least_squares(seed, lam):
    g, b = problem(seed, n=6, d=9)
    b = b + 5 * np.random.default_rng(seed + 100).standard_normal(9)
    K, c = g @ g.T, g @ b
    indices, weights, _ = omp_nonneg(K, c, 6, lam)
    tall = np.vstack([g.T, np.sqrt(lam) * np.eye(6)])
    exact = nnls(tall, np.append(b, np.zeros(6)))[0]
    np.testing.assert_allclose(full(indices, weights, 6), exact, atol=1e-8)
    # So the multipliers of the atoms left out have the right sign.
    w = full(indices, weights, 6)
    assert (c - K @ w - lam * w).max() <= 1e-8


def test_weakly_submodular_guarantee_on_tiny_problems():
    # With the ratio lam / (lam + k max |g|^2) in the exponent.
    k, lam = 3, 5.0
    shares = []
    for seed in range(10):
        g, b = problem(seed, n=9, d=5)
        K, c = g @ g.T, g @ b
        _, _, history = omp_nonneg(K, c, k, lam)
        best = 0.0
        for S in combinations(range(9), k):
            tall = np.vstack([g[list(S)].T, np.sqrt(lam) * np.eye(k)])
            w = nnls(tall, np.append(b, np.zeros(k)))[0]
            best = min(best, objective(K, c, full(list(S), w, 9), lam))
        ratio = lam / (lam + k * (g**2).sum(1).max())
        shares.append(history[-1] / best)
        assert 1 - np.exp(-ratio) <= shares[-1] <= 1 + 1e-9
    assert np.mean(shares) > 0.9


def test_a_cone_needs_as_many_atoms_as_it_has_dimensions():
    # A vector of a cone in d dimensions needs at most d atoms, and more budget is of
    # no use without a penalty.
    rng = np.random.default_rng(0)
    g = rng.standard_normal((200, 6))
    b = g.sum(axis=0)
    indices, weights, _ = omp_nonneg(g @ g.T, g @ b, 50)
    assert len(indices) <= 6
    np.testing.assert_allclose(weights @ g[indices], b, atol=1e-6 * np.linalg.norm(b))


def test_a_large_penalty_sorts_by_correlation():
    g, b = problem(0, n=20)
    c = g @ b
    indices, weights, _ = omp_nonneg(g @ g.T, c, 5, 1e9)
    np.testing.assert_array_equal(indices, np.argsort(-c)[:5])
    np.testing.assert_allclose(weights * 1e9, c[indices], rtol=1e-5)


def test_first_steps_by_hand():
    g = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    b = np.array([4.0, 1.0])
    indices, weights, history = omp_nonneg(g @ g.T, g @ b, 2)
    # Correlations 8, 1, 5; then the residual is (0, 1), with a tie.
    np.testing.assert_array_equal(indices, [0, 1])
    np.testing.assert_allclose(weights, [2, 1])
    np.testing.assert_allclose(history, [-16, -17])


def test_an_atom_leaves_when_others_replace_it():
    # The first pick is in the middle; two others do without it.
    g = np.array([[1.0, 1.0, 0.3], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    b = np.array([1.0, 1.0, 0.0])
    indices, weights, history = omp_nonneg(g @ g.T, g @ b, 3)
    w = full(indices, weights, 3)
    np.testing.assert_allclose(w @ g, b, atol=1e-9)
    assert sorted(indices.tolist()) == [1, 2]
    assert len(history) == 3


@pytest.mark.parametrize("lam", [0.0, 0.5])
@pytest.mark.parametrize("nonneg", [True, False])
def test_residuals_and_gram_matrices_select_alike(lam, nonneg):
    rng = np.random.default_rng(0)
    P, H = rng.standard_normal((60, 3)), rng.random((60, 5))
    G = Gradients([(P, H), (rng.random((60, 2)), None)])
    g = G.dense()
    b = g.sum(axis=0) + rng.standard_normal(17)
    a = pursue(OnGradients(G, b), 9, lam, nonneg=nonneg)
    c = pursue(OnGram(g @ g.T, g @ b, b @ b), 9, lam, nonneg=nonneg)
    np.testing.assert_array_equal(a[0], c[0])
    np.testing.assert_allclose(a[1], c[1], rtol=1e-7)
    np.testing.assert_allclose(a[2], c[2], rtol=1e-7)
    expected = np.sum((a[1] @ g[a[0]] - b) ** 2) + lam * a[1] @ a[1]
    assert a[2][-1] == pytest.approx(expected)


def test_signed_weights_are_ridge_regression():
    g, b = problem(3, n=5, d=7)
    b = b + np.random.default_rng(0).standard_normal(7) * 4
    indices, weights, _ = pursue(OnGram(g @ g.T, g @ b), 5, 0.3, nonneg=False)
    exact = np.linalg.solve(g @ g.T + 0.3 * np.eye(5), g @ b)
    np.testing.assert_allclose(full(indices, weights, 5), exact, rtol=1e-8)
    assert exact.min() < 0


def test_equal_atoms_are_not_singular():
    g, _ = problem(0, n=4, d=3)
    g = np.repeat(g, 5, axis=0)
    b = g.sum(axis=0)
    indices, weights, _ = omp_nonneg(g @ g.T, g @ b, 20)
    assert np.isfinite(weights).all()
    assert len(np.unique(g[indices], axis=0)) == len(indices)
    for g in (np.zeros((4, 3)), -np.eye(3)):
        indices, weights, history = omp_nonneg(g @ g.T, g @ np.ones(3), 2)
        assert len(indices) == len(weights) == len(history) == 0


def test_the_inverse_survives_many_steps():
    rng = np.random.default_rng(0)
    g = rng.random((400, 300)) ** 4
    b = g.sum(axis=0)
    K, c = g @ g.T, g @ b
    indices, weights, _ = omp_nonneg(K, c, 150, 1e-6)
    w = full(indices, weights, 400)
    slope = (c - K @ w - 1e-6 * w)[indices]
    assert np.abs(slope).max() <= 1e-9 * np.abs(c).max()
    assert len(indices) > 50


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kind_and_dtype(backend, dtype):
    g, b = problem(0)
    K, c = backend.asarray(g @ g.T, dtype), backend.asarray(g @ b, dtype)
    indices, weights, history = omp_nonneg(K, c, 5, 0.5)
    assert backend.owns(indices, "int64")
    assert backend.owns(weights, dtype)
    assert backend.owns(history, dtype)
    np.testing.assert_array_equal(
        backend.numpy(indices), omp_nonneg(g @ g.T, g @ b, 5, 0.5)[0]
    )


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"k": 0}, ValueError),
        ({"k": 4}, ValueError),
        ({"k": 1.0}, TypeError),
        ({"lam": -1.0}, ValueError),
        ({"lam": "a"}, TypeError),
        ({"K": np.ones((3, 2))}, ValueError),
        ({"c": np.ones(2)}, ValueError),
        ({"c": torch.ones(3)}, TypeError),
        ({"K": np.full((3, 3), np.inf)}, ValueError),
    ],
)
def test_bad_arguments_are_refused(change, error):
    with pytest.raises(error):
        omp_nonneg(**({"K": np.eye(3), "c": np.ones(3), "k": 2} | change))
