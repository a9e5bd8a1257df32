"""Joint inference: the shared prior, its bias and its error."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from lib.graphs import (
    Graphon,
    JointSpectralGraphicalLasso,
    LaplacianGraphicalLasso,
    SpectralGraphicalLasso,
    relative_error,
    sample_gmrf,
)


def problem(K=6, p=15, n=45, seed=0):
    rng, W = np.random.default_rng(seed), Graphon.quadratic()
    graphs = [W.sample(p, rng).laplacian for _ in range(K)]
    return graphs, [sample_gmrf(L, n, rng) for L in graphs]


def spectra(graphs):
    lam = np.array([np.linalg.eigvalsh(L) for L in graphs])
    lam[:, 0] = 0.0
    return lam


def test_without_debiasing_the_prior_is_the_mean_spectrum():
    _, data = problem()
    model = JointSpectralGraphicalLasso("none", random_state=0).fit(data)
    mean = np.mean(
        [LaplacianGraphicalLasso().fit(x).eigenvalues_ for x in data], axis=0
    )
    assert model.prior_.mu == pytest.approx(mean, abs=1e-8)
    assert not model.bias_.any()


def test_each_graph_is_the_spectral_estimate_with_the_shared_prior():
    _, data = problem(K=3)
    model = JointSpectralGraphicalLasso(random_state=0).fit(data)
    for x, fit in zip(data, model.estimators_, strict=True):
        alone = SpectralGraphicalLasso(model.prior_, init=fit.weights_).fit(x)
        assert alone.objective_ == pytest.approx(fit.objective_, abs=1e-8)
        assert fit.gamma_ == pytest.approx(2 / (len(x) * model.prior_.sigma2))
    assert model.converged_ and len(model.laplacians_) == 3


def test_likelihood_spectra_are_too_large_and_the_bootstrap_sees_it():
    errors = {"none": [], "bootstrap": []}
    for seed in range(4):
        graphs, data = problem(seed=seed)
        true = spectra(graphs).mean(axis=0)
        for debias, out in errors.items():
            model = JointSpectralGraphicalLasso(debias, random_state=0).fit(data)
            out.append(np.linalg.norm(model.prior_.mu - true))
        assert model.bias_.sum() > 0
    assert np.mean(errors["bootstrap"]) < 0.75 * np.mean(errors["none"])


def test_error_of_the_prior_is_that_between_the_graphs():
    # Many signals: the fits have hardly any noise, and sigma2 is a variance.
    graphs, data = problem(K=8, n=20_000)
    model = JointSpectralGraphicalLasso(random_state=0).fit(data)
    lam = spectra(graphs)
    assert model.prior_.sigma2 == pytest.approx(
        lam.var(axis=0, ddof=1)[1:].mean(), rel=0.1
    )
    assert model.prior_.mu == pytest.approx(lam.mean(axis=0), abs=0.15)


@pytest.mark.slow
def test_sharing_helps():
    gains = []
    for seed in range(5):
        graphs, data = problem(K=8, p=20, n=40, seed=seed)
        joint = JointSpectralGraphicalLasso(random_state=0).fit(data).laplacians_
        alone = [LaplacianGraphicalLasso().fit(x).laplacian_ for x in data]
        gains.append(
            np.mean([relative_error(a, L) for a, L in zip(alone, graphs, strict=True)])
            - np.mean(
                [relative_error(a, L) for a, L in zip(joint, graphs, strict=True)]
            )
        )
    assert np.mean(gains) > 3 * np.std(gains) / np.sqrt(len(gains)) > 0


def test_graphs_of_different_numbers_of_signals_and_a_stack():
    _, data = problem(K=3)
    ragged = [data[0], data[1][:30], data[2]]
    assert JointSpectralGraphicalLasso(random_state=0).fit(ragged).converged_
    a = JointSpectralGraphicalLasso(random_state=0).fit(data)
    b = clone(a).fit(np.stack(data))
    assert np.array_equal(a.prior_.mu, b.prior_.mu)
    assert a.score(data) == pytest.approx(
        np.mean([f.score(x) for f, x in zip(a.estimators_, data, strict=True)])
    )


@pytest.mark.parametrize(
    "options, error, match",
    [
        ({"debias": "jackknife"}, ValueError, "debias must be one of"),
        ({"n_bootstrap": 1}, ValueError, "n_bootstrap"),
        ({"gamma": -1.0}, ValueError, "gamma"),
    ],
)
def test_bad_parameters(options, error, match):
    with pytest.raises(error, match=match):
        JointSpectralGraphicalLasso(**options).fit(problem(K=2)[1])


def test_bad_input():
    _, data = problem(K=2)
    fit = JointSpectralGraphicalLasso().fit
    with pytest.raises(ValueError, match="two data sets or more, got 1"):
        fit(data[:1])
    with pytest.raises(ValueError, match="one size"):
        fit([data[0], data[1][:, :5]])
    with pytest.raises(ValueError, match=r"X\[1\] must hold finite"):
        fit([data[0], data[1] * np.nan])
    with pytest.raises(TypeError, match="list of data sets"):
        fit("data")
    with pytest.raises(NotFittedError):
        JointSpectralGraphicalLasso().score(data)
    with pytest.raises(ValueError, match="each of 2 graphs"):
        fit(data).score(data[:1])
