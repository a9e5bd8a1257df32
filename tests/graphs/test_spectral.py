"""The graphon-aided graphical lasso: priors, certificate, starts, solvers."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from lib.graphs import (
    Graphon,
    LaplacianGraphicalLasso,
    SpectralGraphicalLasso,
    SpectralPrior,
    kkt_residual,
    relative_error,
    sample_gmrf,
    spectral_objective,
)


def data(n=60, p=15, seed=0):
    rng = np.random.default_rng(seed)
    graph = Graphon.quadratic().sample(p, rng)
    return sample_gmrf(graph.laplacian, n, rng), graph.laplacian


def test_without_a_prior_it_is_maximum_likelihood():
    X, _ = data()
    plain = LaplacianGraphicalLasso(0.1).fit(X)
    tied = SpectralGraphicalLasso(gamma=0.0, beta=np.inf, alpha=0.1).fit(X)
    assert np.allclose(plain.weights_, tied.weights_, atol=1e-5)
    relaxed = SpectralGraphicalLasso(gamma=0.0, beta=5.0, alpha=0.1).fit(X)
    for model in (tied, relaxed):
        assert model.certificate_ == "global minimum" and model.mu_ is None
        assert abs(model.duality_gap_) < 1e-8
    assert not np.allclose(relaxed.laplacian_, relaxed.precision_, atol=1e-3)


@pytest.mark.parametrize("beta", [np.inf, 5.0])
def test_convex_problems_have_one_optimum(beta):
    X, _ = data(n=20)
    for options in ({"gamma": 0.0}, {"prior": None, "gamma": 0.5}):
        model = SpectralGraphicalLasso(
            beta=beta, n_init=6, random_state=0, tol=1e-7, **options
        ).fit(X)
        assert np.ptp(model.start_objectives_) < 1e-8
        assert abs(model.duality_gap_) < 1e-8


def test_a_spread_prior_has_several_and_the_best_start_wins():
    X, _ = data(n=60, p=15)
    model = SpectralGraphicalLasso(
        Graphon.quadratic(), gamma=1.0, beta=10.0, n_init=4, random_state=0
    ).fit(X)
    assert model.certificate_ == "stationary point" and np.isnan(model.duality_gap_)
    assert np.ptp(model.start_objectives_) > 1e-3
    assert model.objective_ == model.start_objectives_.min()


def test_stationary_and_consistent_attributes():
    X, _ = data()
    S, p = X.T @ X / len(X), X.shape[1]
    prior = Graphon.quadratic().spectral_prior(p)
    model = SpectralGraphicalLasso(prior, alpha=0.1).fit(X)
    assert model.gamma_ == 2 / (len(X) * prior.sigma2)
    assert np.array_equal(model.mu_, prior.mu)
    f, grad, lam = spectral_objective(
        model.weights_, S, mu=prior.mu, gamma=model.gamma_, beta=100.0, alpha=0.1
    )
    assert np.isclose(f, model.objective_) and np.allclose(lam, model.eigenvalues_)
    assert np.isclose(kkt_residual(model.weights_, grad), model.kkt_residual_)
    assert model.converged_ and model.kkt_residual_ <= 1e-6
    U = np.linalg.eigh(model.precision_)
    assert np.allclose(U[0], lam)
    # A graphon stands for its prior.
    other = SpectralGraphicalLasso(Graphon.quadratic(), alpha=0.1).fit(X)
    assert np.array_equal(other.weights_, model.weights_)


def test_a_strong_prior_gives_its_spectrum_and_a_weak_one_none():
    X, _ = data(n=400)
    mu = np.sort(np.random.default_rng(0).uniform(3.0, 8.0, size=15))
    strong = SpectralGraphicalLasso(SpectralPrior(mu), gamma=300.0, max_iter=3000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is ill-conditioned
        strong.fit(X)
    assert np.allclose(strong.eigenvalues_[1:], mu[1:], atol=0.1)
    weak = SpectralGraphicalLasso(SpectralPrior(mu), gamma=1e-9).fit(X)
    none = SpectralGraphicalLasso(gamma=0.0).fit(X)
    assert np.allclose(weak.weights_, none.weights_, atol=1e-5)


def test_the_prior_helps_with_few_signals():
    gains = []
    for seed in range(6):
        X, L = data(n=15, seed=seed)
        plain = LaplacianGraphicalLasso().fit(X)
        model = SpectralGraphicalLasso(Graphon.quadratic()).fit(X)
        gains.append(
            relative_error(plain.laplacian_, L) - relative_error(model.laplacian_, L)
        )
    assert min(gains) > 0


def test_the_default_prior_is_the_constant_of_the_data():
    X, _ = data()
    model = SpectralGraphicalLasso().fit(X)
    sigma = LaplacianGraphicalLasso().fit(X).eigenvalues_[1:]
    assert np.allclose(model.mu_, sigma.mean(), rtol=1e-5)
    assert np.isclose(model.gamma_, 2 / (len(X) * sigma.var()), rtol=1e-4)
    scaled = SpectralGraphicalLasso(beta=1e4).fit(X / 10)  # beta has units
    assert np.allclose(scaled.mu_, 100 * model.mu_, rtol=1e-4)


def test_solvers_and_device_agree():
    X, _ = data(n=100, p=8)
    prior = Graphon.quadratic().spectral_prior(8)
    models = [
        SpectralGraphicalLasso(prior, beta=2.0, max_iter=50_000, **options).fit(X)
        for options in (
            {},
            {"solver": "fista"},
            {"solver": "block_mm"},
            {"solver": "block_mm", "step": 1.5},
            {"device": "cpu"},
            {"init": "pinv"},
            {"init": "uniform"},
            {"init": np.ones(28)},
        )
    ]
    for model in models[1:]:
        assert model.converged_
        assert np.allclose(model.weights_, models[0].weights_, atol=1e-4)
    assert models[3].n_iter_ < models[2].n_iter_


def test_large_beta_does_not_fake_convergence():
    # The sweep hardly moves, so its change is tiny; the projected gradient is not.
    X, _ = data(n=30, p=10)
    with pytest.warns(ConvergenceWarning, match="projected gradient"):
        model = SpectralGraphicalLasso(
            gamma=0.0, beta=1e6, solver="block_mm", init="uniform", max_iter=5
        ).fit(X)
    assert not model.converged_ and model.kkt_residual_ > 0.01


def test_number_of_edges():
    X, _ = data(n=200)
    for device in (None, "cpu"):
        model = SpectralGraphicalLasso(
            Graphon.quadratic(), n_edges=30, device=device
        ).fit(X)
        assert (model.weights_ > 0).sum() <= 30 and model.converged_
        assert model.eigenvalues_[1] > 0


def test_covariance_needs_the_number_of_signals():
    X, _ = data()
    S = X.T @ X / len(X)
    prior = Graphon.quadratic()
    one = SpectralGraphicalLasso(prior).fit(X)
    two = SpectralGraphicalLasso(prior, assume="covariance").fit(S, n_samples=len(X))
    assert np.array_equal(one.weights_, two.weights_)
    with pytest.raises(ValueError, match="n_samples must be given"):
        SpectralGraphicalLasso(prior, assume="covariance").fit(S)
    with pytest.raises(ValueError, match="sigma2 for gamma='map'"):
        SpectralGraphicalLasso(SpectralPrior(np.arange(15.0))).fit(X)


@pytest.mark.parametrize(
    "parameters, error, match",
    [
        ({"gamma": -1.0}, ValueError, "gamma must be"),
        ({"gamma": "auto"}, ValueError, "gamma must be one of"),
        ({"beta": 0.0}, ValueError, "beta must be"),
        ({"alpha": -0.1}, ValueError, "alpha must be"),
        ({"n_edges": 3}, ValueError, "n_edges must be between"),
        ({"solver": "newton"}, ValueError, "solver must be one of"),
        ({"step": -1.0}, ValueError, "step must be"),
        ({"step": "big"}, TypeError, "step must be"),
        ({"init": "zero"}, ValueError, "init must be one of"),
        ({"init": -np.ones(105)}, ValueError, "init must be finite and >= 0"),
        ({"init": np.zeros(105)}, ValueError, "init must be a connected graph"),
        ({"init": np.ones(3)}, ValueError, "init must have shape"),
        ({"n_init": 0}, ValueError, "n_init must be"),
        ({"solver": "block_mm", "beta": np.inf}, ValueError, "beta must be finite"),
        ({"solver": "fista", "device": "cpu"}, ValueError, "device must be None"),
        ({"prior": "graphon"}, TypeError, "prior must be a Graphon"),
        ({"prior": SpectralPrior(np.arange(4.0), 1.0)}, ValueError, "prior must have"),
    ],
)
def test_refused_parameters(parameters, error, match):
    X, _ = data()
    with pytest.raises(error, match=match):
        SpectralGraphicalLasso(**parameters).fit(X)
