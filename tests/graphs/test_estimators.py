"""Maximum likelihood of a Laplacian: certificate, penalties, number of edges."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.exceptions import ConvergenceWarning

from lib.graphs import (
    LaplacianGraphicalLasso,
    kkt_residual,
    laplacian,
    laplacian_adjoint,
    spectral_objective,
)
from lib.graphs.estimators import MCP_END, SCAD_END, _penalty, _penalty_slope


def signals(n=60, p=12, seed=0, density=0.3):
    """Signals on a random connected graph, and its weights."""
    rng = np.random.default_rng(seed)
    m = p * (p - 1) // 2
    w = (rng.random(m) < density) * rng.uniform(0.5, 2.0, size=m)
    w[[k * p - k * (k + 1) // 2 for k in range(p - 1)]] = 1.0  # a path
    sigma, U = np.linalg.eigh(laplacian(w))
    X = rng.standard_normal((n, p - 1)) / np.sqrt(sigma[1:])
    return X @ U[:, 1:].T, w


def test_certified_and_stationary():
    X, _ = signals()
    model = LaplacianGraphicalLasso(0.2).fit(X)
    S = X.T @ X / len(X)
    f, grad, lam = spectral_objective(model.weights_, S, beta=np.inf, alpha=0.2)
    assert model.converged_ and model.certificate_ == "global minimum"
    assert abs(model.duality_gap_) < 1e-8 * abs(f)
    assert np.isclose(model.objective_, f)
    assert np.isclose(model.kkt_residual_, kkt_residual(model.weights_, grad))
    # The conditions one by one: multipliers, complementarity, the trace identity.
    assert grad.min() > -1e-5 and abs(grad * model.weights_).max() < 1e-5
    cost = laplacian_adjoint(S) + 0.2
    assert np.isclose(cost @ model.weights_, 11, rtol=1e-5)
    assert np.allclose(model.eigenvalues_[1:], lam[1:])
    assert np.array_equal(model.laplacian_, model.precision_)
    assert np.allclose(model.laplacian_, laplacian(model.weights_))
    assert np.allclose(
        np.diag(model.adjacency_.sum(0)), np.diag(np.diag(model.laplacian_))
    )
    assert model.history_["objective"][-1] == model.objective_


def test_one_signal_gives_the_path_of_its_sorted_values():
    # Weights 1 / gap^2 along the sorted values: resistances add up to at most the
    # square of the sum of the gaps, so every other multiplier is positive.
    x = np.array([0.3, -1.0, 2.0, 0.9, -0.2])
    model = LaplacianGraphicalLasso(tol=1e-9).fit(x[None])
    order = np.argsort(x)
    expected = np.zeros((5, 5))
    for a, b in zip(order, order[1:], strict=False):
        expected[a, b] = expected[b, a] = 1 / (x[a] - x[b]) ** 2
    assert model.converged_
    assert np.allclose(model.adjacency_, expected, atol=1e-5)


def test_consistent_and_scale_free():
    X, w = signals(n=40_000)
    model = LaplacianGraphicalLasso().fit(X)
    assert np.linalg.norm(model.weights_ - w) < 0.06 * np.linalg.norm(w)
    other = LaplacianGraphicalLasso().fit(10 * X)
    assert np.allclose(other.weights_, model.weights_ / 100, rtol=1e-4, atol=1e-7)


def test_the_l1_penalty_makes_the_graph_dense():
    X, w = signals(n=30)
    edges = [
        (LaplacianGraphicalLasso(alpha).fit(X).adjacency_ > 1e-6).sum() // 2
        for alpha in (0.0, 1.0, 10.0, 100.0)
    ]
    assert edges == sorted(edges)
    assert edges[-1] == len(w) > (w > 0).sum()


@pytest.mark.parametrize("penalty", ["mcp", "scad"])
def test_concave_penalties_are_stationary_and_sparse(penalty):
    X, w = signals(n=200, seed=3)
    alpha = 0.4
    plain = LaplacianGraphicalLasso().fit(X)
    model = LaplacianGraphicalLasso(alpha, penalty).fit(X)
    S = X.T @ X / len(X)
    f, grad, _ = spectral_objective(model.weights_, S, beta=np.inf)
    grad = grad + _penalty_slope(penalty, model.weights_, alpha)
    assert model.converged_ and kkt_residual(model.weights_, grad) <= 1e-6
    assert np.isclose(model.objective_, f + _penalty(penalty, model.weights_, alpha))
    assert model.certificate_ == "stationary point" and np.isnan(model.duality_gap_)
    assert (model.weights_ > 1e-4).sum() < (plain.weights_ > 1e-4).sum()
    # alpha = 0 is maximum likelihood.
    zero = LaplacianGraphicalLasso(0.0, penalty).fit(X)
    assert zero.objective_ == plain.objective_


@pytest.mark.parametrize("penalty, end", [("mcp", MCP_END), ("scad", SCAD_END)])
def test_penalty_slopes_by_differences(penalty, end):
    w = np.array([0.05, 0.4, 0.9, 0.5 * end, 0.99 * end, 1.2 * end])
    h, alpha = 1e-6, 1.0
    numeric = [
        (_penalty(penalty, x + h, alpha) - _penalty(penalty, x - h, alpha)) / (2 * h)
        for x in w
    ]
    assert np.allclose(_penalty_slope(penalty, w, alpha), numeric, atol=1e-5)
    assert _penalty_slope(penalty, w, alpha)[-1] == 0.0


@pytest.mark.parametrize("penalty", ["l1", "mcp"])
def test_number_of_edges(penalty):
    X, _ = signals(n=100)
    S = X.T @ X / len(X)
    for k in (11, 20, 66):
        model = LaplacianGraphicalLasso(0.1, penalty, n_edges=k).fit(X)
        kept = model.weights_ > 0
        assert kept.sum() <= k and model.converged_ and model.eigenvalues_[1] > 0
        _, grad, _ = spectral_objective(model.weights_, S, beta=np.inf)
        if penalty == "l1":
            assert abs(grad[kept] + 0.1).max() < 1e-5
            assert abs(model.duality_gap_) < 1e-8


def test_a_tree_has_the_closed_form():
    # Of a tree with all weights free: w = 1 / mean square difference.
    X, _ = signals(n=50, p=8)
    model = LaplacianGraphicalLasso(n_edges=7, tol=1e-9).fit(X)
    kept = model.weights_ > 0
    cost = laplacian_adjoint(X.T @ X / len(X))
    assert kept.sum() == 7
    assert np.allclose(model.weights_[kept], 1 / cost[kept], rtol=1e-6)


def test_score_is_the_gaussian_log_likelihood():
    X, w = signals(n=30, p=6)
    model = LaplacianGraphicalLasso().fit(X)
    U = np.linalg.svd(np.ones((1, 6)))[2][1:]  # a basis of the rest
    inner = multivariate_normal(np.zeros(5), np.linalg.inv(U @ model.laplacian_ @ U.T))
    new = signals(n=9, p=6, seed=5)[0] + 3.0  # constants are left out
    assert np.isclose(model.score(new), inner.logpdf(new @ U.T).mean())
    assert model.score(X) >= LaplacianGraphicalLasso(1.0).fit(X).score(X)


def test_covariance_and_dtype():
    X, _ = signals()
    S = X.T @ X / len(X)
    one = LaplacianGraphicalLasso().fit(X)
    two = LaplacianGraphicalLasso(assume="covariance").fit(S)
    assert np.array_equal(one.weights_, two.weights_)
    low = LaplacianGraphicalLasso().fit(X.astype(np.float32))
    assert low.weights_.dtype == low.laplacian_.dtype == np.float32
    assert np.allclose(low.weights_, one.weights_, atol=1e-4)


def test_not_converging_is_said():
    X, _ = signals()
    with pytest.warns(ConvergenceWarning, match="projected gradient is"):
        model = LaplacianGraphicalLasso(max_iter=2).fit(X)
    assert not model.converged_ and model.kkt_residual_ > model.tol


@pytest.mark.parametrize(
    "parameters, match",
    [
        ({"alpha": -1.0}, "alpha must be"),
        ({"penalty": "l2"}, "penalty must be one of"),
        ({"n_edges": 10}, "n_edges must be between p - 1 = 11"),
        ({"n_edges": 67}, "and 66, got 67"),
        ({"assume": "precision"}, "assume must be one of"),
        ({"tol": 0.0}, "tol must be"),
        ({"max_iter": 0}, "max_iter must be"),
    ],
)
def test_refused_parameters(parameters, match):
    X, _ = signals()
    with pytest.raises(ValueError, match=match):
        LaplacianGraphicalLasso(**parameters).fit(X)


def test_refused_data():
    X, _ = signals()
    S = X.T @ X / len(X)
    covariance = LaplacianGraphicalLasso(assume="covariance")
    with pytest.raises(ValueError, match="S must be square"):
        covariance.fit(X)
    with pytest.raises(ValueError, match="S must be symmetric"):
        covariance.fit(np.triu(S))
    with pytest.raises(ValueError, match="NaN"):
        covariance.fit(np.where(S > 0, np.nan, S))
    with pytest.raises(ValueError, match="n_samples must be left out"):
        LaplacianGraphicalLasso().fit(X, n_samples=3)
    with pytest.raises(ValueError, match="equal signals"):
        LaplacianGraphicalLasso().fit(X[:, [0, 0, 1]])
    assert LaplacianGraphicalLasso(0.1).fit(X[:, [0, 0, 1]]).converged_
