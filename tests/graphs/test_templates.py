"""Spectral templates: optimality, the convex problem in cvxpy, recovery."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from lib.graphs import (
    Graphon,
    SpectralPrior,
    SpectralTemplates,
    laplacian,
    sample_gmrf,
    template_eigenvectors,
)


def graph(p=10, seed=0):
    return Graphon.quadratic().sample(p, rng=seed).laplacian


def spectrum(L):
    return np.maximum(np.linalg.eigvalsh(L), 0.0)


def objective(w, lam, V, mu, gamma, alpha):
    gap = laplacian(w) - (V * lam) @ V.T
    prior = gamma / 2 * np.sum((lam - mu)[1:] ** 2)
    return alpha * w.sum() + 0.5 * np.sum(gap**2) + prior


# Templates


def test_templates_diagonalise_every_falling_function_of_the_laplacian():
    L = graph(12)
    lam, U = np.linalg.eigh(L)
    for f in (lambda t: 1 / (1 + t), lambda t: np.exp(-t / 10), lambda t: 5 - t / 20):
        V = template_eigenvectors((U * f(lam)) @ U.T)
        assert V.T @ V == pytest.approx(np.eye(12), abs=1e-10)
        D = V.T @ L @ V
        assert np.diag(D) == pytest.approx(lam, abs=1e-6)
        assert D - np.diag(np.diag(D)) == pytest.approx(np.zeros((12, 12)), abs=1e-6)


def test_constant_part_of_the_signals_is_left_out():
    L = graph(8)
    S = np.linalg.pinv(L)
    V, W = (template_eigenvectors(S + c * np.ones((8, 8))) for c in (0.0, 50.0))
    assert np.abs(np.einsum("ij,ij->j", V, W)) == pytest.approx(np.ones(8), abs=1e-8)


# The problem


@pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")
@settings(max_examples=25, deadline=None)
@given(
    p=st.integers(3, 9),
    seed=st.integers(0, 1000),
    gamma=st.floats(0.01, 100.0),
    alpha=st.sampled_from([0.0, 0.3]),
)
def test_no_feasible_move_lowers_the_objective(p, seed, gamma, alpha):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((2 * p, p))
    prior = SpectralPrior(np.sort(rng.uniform(0, p, p)))
    model = SpectralTemplates(prior, gamma, alpha, tol=1e-9).fit(X)
    assert model.converged_
    V, w, lam = model.templates_, model.weights_, model.eigenvalues_
    here = objective(w, lam, V, prior.mu, gamma, alpha)
    assert here == pytest.approx(model.objective_, abs=1e-9)
    for _ in range(20):
        size = 10.0 ** rng.uniform(-4, 0)
        other = np.maximum(w + size * rng.standard_normal(len(w)), 0.0)
        moved = lam + size * np.r_[0.0, rng.standard_normal(p - 1)]
        assert objective(other, moved, V, prior.mu, gamma, alpha) >= here - 1e-10


@pytest.mark.parametrize("gamma, alpha", [(1.0, 0.0), (10.0, 0.0), (0.1, 0.5)])
def test_equals_cvxpy(gamma, alpha):
    import cvxpy as cp

    p, L = 8, graph(8, seed=3)
    X = sample_gmrf(L, 40, rng=0)
    prior = SpectralPrior(spectrum(L))
    model = SpectralTemplates(prior, gamma, alpha, tol=1e-9).fit(X)
    V, m = model.templates_, p * (p - 1) // 2
    operator = np.stack([laplacian(e).ravel() for e in np.eye(m)], axis=1)
    outer = np.stack([np.outer(v, v).ravel() for v in V.T[1:]], axis=1)
    w, lam = cp.Variable(m, nonneg=True), cp.Variable(p - 1)
    value = alpha * cp.sum(w) + 0.5 * cp.sum_squares(operator @ w - outer @ lam)
    value += gamma / 2 * cp.sum_squares(lam - prior.mu[1:])
    problem = cp.Problem(cp.Minimize(value))
    problem.solve(solver="CLARABEL")
    assert model.objective_ == pytest.approx(problem.value, abs=1e-6)
    assert model.weights_ == pytest.approx(w.value, abs=1e-4)
    assert model.eigenvalues_[1:] == pytest.approx(lam.value, abs=1e-4)


def test_gradient_by_finite_differences():
    from lib.graphs.templates import _Problem

    rng = np.random.default_rng(0)
    V = template_eigenvectors(np.cov(rng.standard_normal((30, 6)).T))
    problem = _Problem(V[:, 1:], np.sort(rng.uniform(0, 6, 5)), 0.7, 0.2)
    w, d, h = rng.uniform(0, 1, 15), rng.standard_normal(15), 1e-5
    slope = (problem(w + h * d)[0] - problem(w - h * d)[0]) / (2 * h)
    assert problem(w)[1] @ d == pytest.approx(slope, rel=1e-7)


# Recovery


def test_true_templates_and_spectrum_give_the_graph_back(record_property):
    worst, trials = 0.0, 0
    for seed in range(5):
        L = graph(15, seed=seed)
        lam, U = np.linalg.eigh(L)
        prior = SpectralPrior(np.maximum(lam, 0.0))
        for f in (lambda t: 1 / (0.1 + t), lambda t: np.exp(-t / 5)):
            S = (U * f(lam)) @ U.T
            model = SpectralTemplates(prior, assume="covariance").fit(S)
            gap = np.linalg.norm(model.laplacian_ - L) / np.linalg.norm(L)
            worst, trials = max(worst, gap), trials + 1
            assert model.misfit_ < 1e-4 and model.objective_ < 1e-6
    record_property("value", float(worst))
    record_property("trials", trials)
    assert worst < 1e-4


def test_sum_of_weights_is_half_the_sum_of_eigenvalues(record_property):
    # For exact templates the l1 norm is a linear function of the eigenvalues.
    gaps = []
    for seed in range(5):
        L = graph(12, seed)
        prior = SpectralPrior(spectrum(L))
        model = SpectralTemplates(prior, assume="covariance", tol=1e-9)
        model.fit(np.linalg.pinv(L))
        gaps.append(abs(2 * model.weights_.sum() / model.eigenvalues_.sum() - 1))
    record_property("value", float(max(gaps)))
    record_property("trials", len(gaps))
    assert max(gaps) < 1e-6


def test_graphon_prior_is_its_degree_function():
    W, X = Graphon.quadratic(), sample_gmrf(graph(9), 30, rng=0)
    a = SpectralTemplates(W).fit(X)
    b = SpectralTemplates(W.spectral_prior(9)).fit(X)
    assert a.weights_ == pytest.approx(b.weights_)


# The contract


def test_stopping_early_is_said():
    X = sample_gmrf(graph(20), 40, rng=0)
    with pytest.warns(ConvergenceWarning, match="projected gradient is"):
        model = SpectralTemplates(Graphon.quadratic(), max_iter=1).fit(X)
    assert not model.converged_ and model.kkt_residual_ > 1e-6


def test_float32_gives_float32():
    X = sample_gmrf(graph(6), 50, rng=0)
    narrow = SpectralTemplates().fit(X.astype(np.float32))
    assert narrow.weights_.dtype == narrow.templates_.dtype == np.float32
    assert narrow.weights_ == pytest.approx(
        SpectralTemplates().fit(X).weights_, abs=1e-3
    )


@pytest.mark.parametrize(
    "options, error, match",
    [
        ({"gamma": 0.0}, ValueError, "gamma"),
        ({"alpha": -1.0}, ValueError, "alpha"),
        ({"assume": "graph"}, ValueError, "assume must be one of"),
        ({"prior": 3}, TypeError, "prior must be a Graphon"),
        ({"prior": SpectralPrior([0.0, 1.0])}, ValueError, "each of the 4 nodes"),
    ],
)
def test_bad_parameters(options, error, match):
    with pytest.raises(error, match=match):
        SpectralTemplates(**options).fit(np.eye(4))


def test_bad_covariance():
    for S, match in (
        (np.ones((2, 3)), "square"),
        (np.array([[1.0, 2.0], [0.0, 1.0]]), "symmetric"),
        (np.full((2, 2), np.nan), "finite"),
    ):
        with pytest.raises(ValueError, match=match):
            template_eigenvectors(S)
