"""Many problems at once: equal to one at a time, kinds, routing."""

import numpy as np
import pytest
import torch

from lib.graphs import (
    Graphon,
    SpectralGraphicalLasso,
    SpectralPrior,
    duality_gap,
    fit_batch,
    sample_gmrf,
)
from lib.graphs import batch as module


def covariances(B=6, p=9, n=25):
    out = []
    for seed in range(B):
        rng = np.random.default_rng(seed)
        X = sample_gmrf(Graphon.quadratic().sample(p, rng).laplacian, n, rng)
        out.append(X.T @ X / n)
    return np.stack(out)


MU = np.linspace(0.0, 6.0, 9)
CASES = [
    {"beta": np.inf},
    {"beta": np.inf, "alpha": 0.2},
    {"beta": 30.0},
    {"mu": MU, "gamma": 0.05},
    {"mu": MU, "gamma": 0.05, "beta": np.inf},
    {"mu": np.full(9, 3.0), "gamma": 0.5, "beta": np.inf},
]


@pytest.mark.parametrize("case", CASES)
def test_equal_to_the_loop(case):
    S = covariances()
    together = fit_batch(S, **case)
    assert together.converged.all() and together.kkt_residual.max() <= 1e-6
    options = {k: v for k, v in case.items() if k not in ("mu", "gamma")}
    for k, one in enumerate(S):
        alone = fit_batch(one[None], **case)
        assert np.allclose(alone.weights[0], together.weights[k], atol=1e-10)
        assert alone.n_iter[0] == together.n_iter[k]
        prior = SpectralPrior(case["mu"]) if "mu" in case else None
        model = SpectralGraphicalLasso(
            prior,
            gamma=case.get("gamma", 0.0),
            assume="covariance",
            **{"beta": 100.0} | options,
        ).fit(one)
        assert np.isclose(model.objective_, together.objective[k], atol=1e-9)
        assert np.allclose(model.weights_, together.weights[k], atol=1e-4)


def test_weights_and_spectra_of_each_problem():
    S = covariances(4)
    gamma = np.array([0.0, 0.01, 0.1, 1.0])
    mu = MU + np.arange(4)[:, None]
    together = fit_batch(S, mu, gamma)
    for k in range(4):
        alone = fit_batch(S[k : k + 1], mu[k], gamma[k])
        assert np.allclose(alone.weights[0], together.weights[k], atol=1e-10)
    assert np.allclose(
        fit_batch(S, mu[:, ::-1].copy(), gamma, sort=True).weights, together.weights
    )


def test_certified_where_convex():
    S = covariances(4)
    fit = fit_batch(S, np.full(9, 2.0), 0.3, beta=50.0)
    for one, w in zip(S, fit.weights, strict=True):
        gap = duality_gap(w, one, mu=np.full(9, 2.0), gamma=0.3, beta=50.0)
        assert abs(gap) < 1e-8


def test_kind_dtype_and_device(backend):
    S = covariances(3)
    expected = fit_batch(S, MU, 0.05)
    for dtype in ("float32", "float64"):
        fit = fit_batch(backend.asarray(S, dtype), backend.asarray(MU, dtype), 0.05)
        for numbers in fit[:3]:
            assert backend.owns(numbers, dtype)
        assert np.allclose(backend.numpy(fit.weights), expected.weights, atol=1e-3)
        assert fit.converged.all()


def test_starts_and_limits():
    S = covariances(3)
    start = np.random.default_rng(0).exponential(size=(3, 36))
    far = fit_batch(S, init=start, beta=np.inf)
    near = fit_batch(S, beta=np.inf)
    assert np.allclose(far.objective, near.objective)
    short = fit_batch(S, init=start, beta=np.inf, max_iter=2)
    assert not short.converged.any() and (short.kkt_residual > 1e-6).all()
    assert (short.n_iter == 2).all()


def test_eigenvectors_of_large_matrices_leave_the_gpu():
    # Not measured on a GPU here: the rule alone.
    gpu = torch.device("cuda")
    assert module._eigen_device(gpu, module.EIGEN_LIMIT) == gpu
    assert module._eigen_device(gpu, module.EIGEN_LIMIT + 1) == "cpu"
    cpu = torch.device("cpu")
    assert module._eigen_device(cpu, 1000) == cpu


@pytest.mark.parametrize(
    "case, eigenvectors",
    [
        ({"beta": np.inf}, False),
        ({"mu": np.full(9, 3.0), "gamma": 0.5, "beta": np.inf}, False),
        ({"mu": MU, "gamma": 0.5, "beta": np.inf}, True),
        ({"beta": 10.0}, True),
    ],
)
def test_eigenvectors_only_where_they_are_needed(case, eigenvectors, monkeypatch):
    asked = []
    route = module._eigen_device

    def spy(device, p):
        asked.append(p)
        return route(device, p)

    monkeypatch.setattr(module, "_eigen_device", spy)
    fit_batch(covariances(2), **case)
    assert bool(asked) == eigenvectors


def test_equal_signals():
    S = covariances(2)
    S[1, 1], S[1, :, 1] = S[1, 0], S[1, :, 0]  # node 1 of the second is its node 0
    with pytest.raises(ValueError, match="equal signals"):
        fit_batch(S, beta=np.inf)
    assert fit_batch(S, MU, 0.1).converged.all()
    assert fit_batch(S, alpha=0.1).converged.all()


def test_refusals():
    S = covariances(2)
    with pytest.raises(ValueError, match="S must be 3-D"):
        fit_batch(S[0])
    with pytest.raises(ValueError, match="gamma must be one number or 2"):
        fit_batch(S, MU, np.ones(3))
    with pytest.raises(ValueError, match="gamma must be >= 0"):
        fit_batch(S, MU, np.array([0.1, -0.1]))
    with pytest.raises(ValueError, match="mu must be given"):
        fit_batch(S, gamma=0.1)
    with pytest.raises(ValueError, match="mu must be ascending"):
        fit_batch(S, MU[::-1].copy(), 0.1)
    with pytest.raises(ValueError, match="init must be >= 0"):
        fit_batch(S, init=-np.ones((2, 36)))
    with pytest.raises(TypeError, match="both"):
        fit_batch(torch.tensor(S), MU, 0.1)
