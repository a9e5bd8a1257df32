"""The reduced objective: closed forms, gradient, optimality, duality."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, minimize_scalar

from lib.graphs import (
    duality_gap,
    kkt_residual,
    laplacian,
    laplacian_adjoint,
    spectral_objective,
)
from lib.graphs.objective import _conjugate, _phi

CASES = [
    {"beta": np.inf},
    {"beta": np.inf, "alpha": 0.3},
    {"beta": 10.0},
    {"beta": 10.0, "gamma": 0.5, "mu": "spread"},
    {"beta": np.inf, "gamma": 0.5, "mu": "spread", "alpha": 0.2},
    {"beta": np.inf, "gamma": 2.0, "mu": "constant"},
    {"beta": 3.0, "gamma": 2.0, "mu": "constant"},
]


def problem(p=5, n=20, seed=0, **case):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    w = rng.exponential(size=p * (p - 1) // 2)
    case = dict(case)
    if "mu" in case:
        spread = np.linspace(1.0, 6.0, p)
        case["mu"] = spread if case["mu"] == "spread" else np.full(p, 4.0)
    return w, X.T @ X / n, case


@pytest.mark.parametrize("case", CASES)
def test_gradient_by_finite_differences(case):
    w, S, case = problem(**case)
    _, grad, _ = spectral_objective(w, S, **case)
    numeric = approx_fprime(w, lambda v: spectral_objective(v, S, **case)[0], 1e-6)
    assert np.allclose(grad, numeric, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sigma", [0.0, 1e-6, 0.3, 5.0])
@pytest.mark.parametrize("beta, gamma, mu", [(5.0, 0.0, 0.0), (100.0, 0.7, 3.0)])
def test_the_relaxed_eigenvalue_minimises(sigma, beta, gamma, mu):
    f, slope, lam = _phi(np.array([sigma]), np.array([mu]), gamma, beta)

    def paid(x):
        return -np.log(x) + beta / 2 * (sigma - x) ** 2 + gamma / 2 * (x - mu) ** 2

    best = minimize_scalar(paid, bounds=(1e-9, 20), method="bounded").fun
    assert f[0] <= best + 1e-9 and np.isclose(f[0], paid(lam[0]))
    assert np.isclose(slope[0], beta * (sigma - lam[0]))


@pytest.mark.parametrize("case", CASES)
def test_no_eigenvectors_and_eigenvalues_do_better(case):
    # F(w) is the minimum of the report's objective over U and lambda.
    w, S, case = problem(**case)
    if np.isinf(case["beta"]):
        return
    F, _, lam = spectral_objective(w, S, **case)
    mu = case.get("mu", np.zeros(len(S)))
    rng = np.random.default_rng(1)
    L, p = laplacian(w), len(S)
    sigma, U = np.linalg.eigh(L)

    def full(U, lam):
        return (
            -np.log(lam[1:]).sum()
            + np.vdot(S, L)
            + case.get("alpha", 0.0) * w.sum()
            + case["beta"] / 2 * np.linalg.norm(L - (U * lam) @ U.T) ** 2
            + case.get("gamma", 0.0) / 2 * ((lam - mu)[1:] ** 2).sum()
        )

    assert np.isclose(F, full(U, lam))
    for _ in range(50):
        noise = rng.standard_normal((p, p)) * 10 ** rng.uniform(-4, 0)
        other = np.linalg.qr(U + noise)[0]
        moved = np.r_[0.0, np.sort(lam[1:] * np.exp(0.1 * rng.standard_normal(p - 1)))]
        assert full(other, lam) >= F - 1e-9
        assert full(U, moved) >= F - 1e-9


def test_relaxation_vanishes_as_beta_grows():
    w, S, case = problem(gamma=0.4, mu="spread")
    tied = spectral_objective(w, S, **case | {"beta": np.inf})[0]
    gaps = [
        tied - spectral_objective(w, S, **case | {"beta": b})[0] for b in (1e3, 1e5)
    ]
    assert 0 < gaps[1] < gaps[0] / 50


def test_a_graph_in_parts():
    # Nodes 0, 1 and nodes 2, 3: the second zero eigenvalue is infinitely bad without
    # relaxation, and finite with it, with a finite gradient that connects the parts.
    w = np.array([1.0, 0, 0, 0, 0, 1.0])
    S = np.eye(4)
    assert spectral_objective(w, S, beta=np.inf)[0] == np.inf
    f, grad, lam = spectral_objective(w, S, beta=10.0)
    assert np.isfinite(f)
    assert np.allclose(lam, [0, 10**-0.5, *[1 + np.sqrt(1.1)] * 2])
    # The pair of a node of each part sees both null vectors' part and the others once.
    assert np.allclose(grad[1:5], 2 - 1 / lam[1] - 1 / lam[2])


def test_batches_and_tensors_agree(backend):
    cases = [problem(seed=s) for s in range(3)]
    w, S = (np.stack([c[k] for c in cases]) for k in (0, 1))
    mu = np.linspace(1.0, 6.0, 5)
    options = {"gamma": 0.3, "beta": 20.0, "alpha": 0.1}
    out = spectral_objective(
        backend.asarray(w), backend.asarray(S), mu=backend.asarray(mu), **options
    )
    for k in range(3):
        alone = spectral_objective(w[k], S[k], mu=mu, **options)
        for mine, theirs in zip(out, alone, strict=True):
            assert np.allclose(backend.numpy(mine)[k], theirs, rtol=1e-9)
    assert backend.owns(out[1], "float64")
    r = kkt_residual(backend.asarray(w), out[1])
    assert np.allclose(
        backend.numpy(r),
        [kkt_residual(w[k], backend.numpy(out[1])[k]) for k in (0, 1, 2)],
    )


@given(seed=st.integers(0, 10**6), case=st.sampled_from(CASES[:3] + CASES[5:]))
@settings(max_examples=60, deadline=None)
def test_convex_on_segments_and_bounded_by_the_dual(seed, case):
    w, S, case = problem(seed=seed, **case)
    v = np.random.default_rng(seed + 1).exponential(size=len(w))
    f, g, m = (spectral_objective(x, S, **case)[0] for x in (w, v, (w + v) / 2))
    assert m <= (f + g) / 2 + 1e-9
    # w minus its own gap is below every value of the objective.
    assert f - duality_gap(w, S, **case) <= min(f, g, m) + 1e-9


def test_a_spread_prior_is_not_convex():
    # On a segment between two graphs the objective rises above its chord.
    p, rng = 4, np.random.default_rng(0)
    mu = np.array([0.0, 1.0, 1.0, 12.0])
    found = 0
    for _ in range(50):
        w, v = rng.exponential(size=(2, 6))
        f, g, m = (
            spectral_objective(x, np.eye(p), mu=mu, gamma=5.0, beta=np.inf)[0]
            for x in (w, v, (w + v) / 2)
        )
        found += m > (f + g) / 2 + 1e-6
    assert found > 0
    assert np.isnan(duality_gap(w, np.eye(p), mu=mu, gamma=5.0))


@pytest.mark.parametrize("gamma, mu", [(0.0, 0.0), (0.8, 3.0)])
@pytest.mark.parametrize("beta", [np.inf, 7.0])
def test_the_conjugate_is_the_conjugate(gamma, mu, beta):
    # With a relaxation the eigenvalues may be anything.
    grid = np.geomspace(1e-4, 60, 200_001)
    grid = grid if np.isinf(beta) else np.r_[-grid[::-1], grid]
    f = _phi(grid, mu, gamma, beta)[0]
    for y in (0.3, 1.0, 4.0):
        assert np.isclose(
            _conjugate(np.array([y]), mu, gamma, beta)[0],
            (-y * grid - f).max(),
            atol=1e-6,
        )


def test_residual_is_zero_at_the_closed_form_alone_and_has_no_units():
    # The complete graph of equal weights, S = I: resistances 2 / (p w) equal costs 2.
    p = 6
    w = np.full(15, 1 / p)
    grad = spectral_objective(w, np.eye(p), beta=np.inf)[1]
    assert kkt_residual(w, grad) < 1e-12
    assert duality_gap(w, np.eye(p)) < 1e-12
    w, S, _ = problem(p=6)
    one = kkt_residual(w, spectral_objective(w, S, beta=np.inf)[1])
    two = kkt_residual(w / 9, spectral_objective(w / 9, 9 * S, beta=np.inf)[1])
    assert np.isclose(one, two) and one > 1e-3
    assert kkt_residual(np.zeros(15), grad) == np.inf


def test_the_gap_is_of_second_order():
    p = 6
    S, best = np.eye(p), np.full(15, 1 / p)
    noise = np.random.default_rng(0).standard_normal(15)
    gaps = [duality_gap(best + h * noise, S) for h in (1e-3, 1e-4)]
    assert 50 < gaps[0] / gaps[1] < 200


def test_the_gap_of_a_graph_in_parts_is_infinite():
    assert duality_gap(np.array([1.0, 0, 0, 0, 0, 1.0]), np.eye(4)) == np.inf


def test_refusals():
    w, S, _ = problem()
    mu = np.arange(5.0)
    for match, kwargs in (
        ("mu must have p = 5", {"mu": np.arange(4.0), "gamma": 1.0}),
        ("mu must be ascending", {"mu": mu[::-1], "gamma": 1.0}),
        ("mu must be given", {"gamma": 1.0}),
        ("gamma must be", {"gamma": -1.0}),
        ("beta must be", {"beta": 0.0}),
        ("alpha must be", {"alpha": -0.1}),
    ):
        with pytest.raises(ValueError, match=match):
            spectral_objective(w, S, **kwargs)
    sorted_ = spectral_objective(w, S, mu=mu[::-1].copy(), gamma=1.0, sort=True)
    assert sorted_[0] == spectral_objective(w, S, mu=mu, gamma=1.0)[0]
    with pytest.raises(ValueError, match="S must be symmetric"):
        spectral_objective(w, np.triu(S))
    with pytest.raises(ValueError, match="S must be 5 x 5"):
        spectral_objective(w, np.eye(4))
    with pytest.raises(ValueError, match="S must hold finite"):
        spectral_objective(w, np.full((5, 5), np.nan))
    with pytest.raises(TypeError, match="both"):
        spectral_objective(torch.tensor(w), S)
    with pytest.raises(ValueError, match="w must be >= 0"):
        kkt_residual(-w, w)
    with pytest.raises(ValueError, match="grad must have the shape"):
        kkt_residual(w, laplacian_adjoint(np.eye(4)))
