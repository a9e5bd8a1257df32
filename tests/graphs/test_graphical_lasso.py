"""The graphical lasso: optimality, certificates, peers, and bad conditioning."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.covariance import EmpiricalCovariance, graphical_lasso
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from lib.graphs import GraphicalLasso, graphical_lasso_path


def covariance(p=8, n=20, seed=0, density=0.3):
    """Second moment of normal signals with a sparse precision matrix."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((p, p)) * (rng.random((p, p)) < density)
    L = np.linalg.inv(np.linalg.cholesky(A @ A.T + np.eye(p)))
    X = rng.standard_normal((n, p)) @ L
    return X.T @ X / n


def lasso(alpha=0.01, **options):
    return GraphicalLasso(alpha, assume="covariance", **options)


def objective(theta, S, alpha):
    sign, log_det = np.linalg.slogdet(theta)
    assert sign > 0
    size = np.abs(theta).sum() - np.trace(theta)
    return -log_det + np.sum(S * theta) + alpha * size


def kkt(theta, S, alpha):
    """Largest violation of the optimality conditions, from the definition."""
    G = S - np.linalg.inv(theta)
    off = ~np.eye(len(S), dtype=bool)
    on = off & (theta != 0)
    inactive = np.abs(G[off & ~on]).max(initial=0.0) - alpha
    active = np.abs(G[on] + alpha * np.sign(theta[on])).max(initial=0.0)
    return max(np.abs(np.diag(G)).max(), active, inactive, 0.0)


# Optimality


@settings(max_examples=40, deadline=None)
@given(
    p=st.integers(2, 12),
    n=st.integers(2, 40),
    seed=st.integers(0, 10_000),
    share=st.floats(0.05, 1.2),
)
def test_solution_satisfies_the_optimality_conditions(p, n, seed, share):
    S = covariance(p, n, seed)
    alpha = share * np.abs(S - np.diag(np.diag(S))).max()
    model = lasso(alpha, tol=1e-10).fit(S)
    theta = model.precision_
    assert model.converged_ and model.dual_gap_ <= 1e-10 * p
    assert np.array_equal(theta, theta.T) and np.linalg.eigvalsh(theta)[0] > 0
    # A gap g bounds the error of W by the strong concavity of log det.
    assert kkt(theta, S, alpha) < 1e-3 * np.abs(S).max()
    assert model.objective_ == pytest.approx(objective(theta, S, alpha), abs=1e-9)
    assert np.array_equal(model.adjacency_, (theta != 0) & ~np.eye(p, dtype=bool))


@pytest.mark.parametrize("p, n, alpha", [(6, 30, 0.1), (6, 4, 0.1), (9, 50, 0.02)])
def test_equals_cvxpy(p, n, alpha):
    import cvxpy as cp

    S = covariance(p, n, seed=p)
    T = cp.Variable((p, p), PSD=True)
    size = cp.sum(cp.abs(T)) - cp.trace(T)
    value = -cp.log_det(T) + cp.trace(S @ T) + alpha * size
    problem = cp.Problem(cp.Minimize(value))
    problem.solve(solver="CLARABEL")
    model = lasso(alpha, tol=1e-11).fit(S)
    assert model.objective_ == pytest.approx(problem.value, abs=1e-6)
    assert model.precision_ == pytest.approx(T.value, abs=2e-4 * np.abs(T.value).max())


@pytest.mark.parametrize("alpha", [0.02, 0.1, 0.3])
def test_equals_scikit_learn(alpha):
    S = covariance(20, 100, seed=1)
    _, theirs = graphical_lasso(S, alpha, tol=1e-9, enet_tol=1e-10, max_iter=1000)
    ours = lasso(alpha, tol=1e-12).fit(S)
    gap = objective(theirs, S, alpha) - ours.objective_
    assert -1e-9 < gap < 1e-7
    assert ours.precision_ == pytest.approx(theirs, abs=1e-4 * np.abs(theirs).max())


def test_two_variables_have_a_closed_form():
    # |W_12| is |S_12| shrunk by alpha; the precision is the inverse of W.
    for s, alpha in ((0.5, 0.2), (-0.7, 0.1), (0.1, 0.3)):
        S = np.array([[1.0, s], [s, 2.0]])
        W = S.copy()
        W[0, 1] = W[1, 0] = np.sign(s) * max(abs(s) - alpha, 0.0)
        model = lasso(alpha, tol=1e-12).fit(S)
        assert model.precision_ == pytest.approx(np.linalg.inv(W), abs=1e-9)


def test_no_penalty_is_the_inverse():
    S = covariance(5, 40)
    model = lasso(0.0).fit(S)
    assert model.precision_ == pytest.approx(np.linalg.inv(S))
    assert model.objective_ == pytest.approx(objective(model.precision_, S, 0.0))


def test_penalty_above_all_entries_gives_the_diagonal():
    S = covariance(6, 30)
    top = np.abs(S - np.diag(np.diag(S))).max()
    model = lasso(top).fit(S)
    assert model.precision_ == pytest.approx(np.diag(1 / np.diag(S)), rel=1e-12)
    assert not model.adjacency_.any() and model.n_iter_ == 1
    below = lasso(0.99 * top).fit(S)
    assert below.adjacency_.any()


def test_equivariant_under_permutation_and_joint_scaling():
    S, alpha = covariance(7, 20, seed=3), 0.1
    order = np.random.default_rng(0).permutation(7)
    base = lasso(alpha, tol=1e-12).fit(S).precision_
    moved = lasso(alpha, tol=1e-12)
    moved.fit(S[np.ix_(order, order)])
    assert moved.precision_ == pytest.approx(base[np.ix_(order, order)], abs=1e-6)
    scaled = lasso(4 * alpha, tol=1e-12).fit(4 * S)
    assert scaled.precision_ == pytest.approx(base / 4, abs=1e-6)


def test_components_of_the_thresholded_covariance_are_those_of_the_estimate(
    record_property,
):
    from scipy.sparse.csgraph import connected_components

    def partition(A):
        label = connected_components(A, directed=False)[1]
        return label[:, None] == label

    differences, sizes = 0, set()
    for seed in range(40):
        S = covariance(12, 20, seed, density=0.1)
        off = np.abs(S - np.diag(np.diag(S)))
        alpha = np.quantile(off[off > 0], 0.6 + 0.009 * seed)
        theta = graphical_lasso_path(S, [alpha], tol=1e-10)[0]["precision"]
        parts = partition(off > alpha)
        # the definition decides, not the splitting inside the solver
        assert kkt(theta, S, alpha) < 1e-4
        differences += not np.array_equal(partition(theta != 0), parts)
        sizes.add(len(np.unique(parts, axis=0)))
    record_property("value", float(differences))
    record_property("trials", 40)
    assert differences == 0 and len(sizes) > 3


# The certificate


def test_every_sweep_raises_the_dual_and_the_gap_bounds_the_error(record_property):
    S, alpha = covariance(15, 10, seed=2), 0.02
    best = graphical_lasso_path(S, [alpha], tol=1e-12)[0]["objective"]
    duals = []
    for sweeps in range(1, 8):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            (found,) = graphical_lasso_path(S, [alpha], tol=1e-15, max_iter=sweeps)
        W = found["covariance"]
        assert np.abs(W - S).max() <= alpha + 1e-12
        assert np.array_equal(np.diag(W), np.diag(S))
        duals.append(np.linalg.slogdet(W)[1] + len(S))
        assert duals[-1] <= best + 1e-9
        assert -1e-9 <= found["objective"] - best <= found["gap"] + 1e-9
    record_property("value", float(-np.diff(duals).min()))
    record_property("trials", len(duals) - 1)
    assert (np.diff(duals) >= -1e-10).all() and duals[-1] > duals[0]


def test_stopping_early_is_said():
    S = covariance(20, 10, seed=4)
    model = lasso(0.005, max_iter=1)
    with pytest.warns(ConvergenceWarning, match="duality gap per variable is"):
        model.fit(S)
    assert not model.converged_ and model.dual_gap_ > 1e-6 * 20
    assert model.n_iter_ == len(model.history_) == 1


def test_column_problem_is_a_lasso_regression(record_property):
    from sklearn.linear_model import Lasso

    from lib.graphs.graphical_lasso import _lasso

    rng, worst, trials = np.random.default_rng(0), 0.0, 0
    for _ in range(20):
        p, n = int(rng.integers(3, 12)), 40
        X = rng.standard_normal((n, p)) @ rng.standard_normal((p, p))
        S, j = X.T @ X / n, int(rng.integers(p))
        s = S[j].copy()
        s[j] = 0.0
        alpha = 0.3 * np.abs(s).max()
        b, Wb = _lasso(S, s, j, alpha, np.zeros(p))
        rest = np.arange(p) != j
        peer = Lasso(alpha, fit_intercept=False, tol=1e-14, max_iter=1_000_000)
        peer.fit(X[:, rest], X[:, j])
        gap = np.linalg.norm(b[rest] - peer.coef_) / np.linalg.norm(peer.coef_)
        worst, trials = max(worst, gap), trials + 1
        assert np.allclose(Wb, S @ b) and b[j] == 0
    record_property("value", float(worst))
    record_property("trials", trials)
    assert worst < 1e-6


# Bad conditioning


@pytest.mark.parametrize("alpha", [1e-3, 1e-2, 0.1])
def test_fewer_signals_than_variables(alpha):
    S = covariance(30, 8, seed=5)
    assert np.linalg.matrix_rank(S) == 8
    model = lasso(alpha, tol=1e-8, max_iter=2000)
    model.fit(S)
    assert model.converged_ and np.linalg.eigvalsh(model.precision_)[0] > 0


def test_one_direction_only():
    # All variables are the same: S = 11', the worst case of a singular matrix.
    p, alpha = 6, 0.1
    model = lasso(alpha, tol=1e-11, max_iter=5000)
    model.fit(np.ones((p, p)))
    # By symmetry W = (1 - alpha) 11' + alpha I.
    W = (1 - alpha) * np.ones((p, p)) + alpha * np.eye(p)
    assert model.converged_
    assert model.precision_ == pytest.approx(np.linalg.inv(W), abs=1e-3)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_succeeds_where_scikit_learn_gives_up():
    S = covariance(30, 15, seed=0)
    with pytest.raises(FloatingPointError):
        graphical_lasso(S / 10, 1e-4)
    model = lasso(1e-4, tol=1e-9, max_iter=5000)
    model.fit(S / 10)
    assert model.converged_ and kkt(model.precision_, S / 10, 1e-4) < 1e-4


# The path


def test_path_equals_separate_fits_and_saves_sweeps():
    S = covariance(15, 30, seed=6)
    top = np.abs(S - np.diag(np.diag(S))).max()
    alphas = top * np.geomspace(1.0, 0.02, 12)
    path = graphical_lasso_path(S, alphas, tol=1e-10)
    for found, alpha in zip(path, alphas, strict=True):
        alone = graphical_lasso_path(S, [alpha], tol=1e-10)[0]
        assert found["alpha"] == alpha and found["converged"]
        assert found["objective"] == pytest.approx(alone["objective"], abs=1e-8)
    assert path[0]["precision"] == pytest.approx(np.diag(1 / np.diag(S)))


def test_path_must_fall():
    S = covariance()
    with pytest.raises(ValueError, match="falling order"):
        graphical_lasso_path(S, [0.1, 0.2])


# The contract


def test_data_and_covariance_agree_and_score_is_the_likelihood():
    X = np.random.default_rng(0).standard_normal((50, 5)) @ np.diag([1, 2, 3, 1, 1])
    X += 3.0
    from_data = GraphicalLasso(0.1).fit(X)
    S = np.cov(X.T, bias=True)
    assert from_data.precision_ == pytest.approx(lasso(0.1).fit(S).precision_)
    assert from_data.location_ == pytest.approx(X.mean(axis=0))
    peer = EmpiricalCovariance().fit(X)
    peer.precision_ = from_data.precision_
    assert from_data.score(X) == pytest.approx(peer.score(X))
    centred = GraphicalLasso(0.1, assume_centered=True).fit(X)
    second = lasso(0.1).fit(X.T @ X / 50)
    assert centred.precision_ == pytest.approx(second.precision_)
    assert not centred.location_.any()


def test_float32_and_tensors():
    X = np.random.default_rng(0).standard_normal((40, 4))
    wide = GraphicalLasso(0.1).fit(X)
    narrow = GraphicalLasso(0.1).fit(X.astype(np.float32))
    assert narrow.precision_.dtype == narrow.covariance_.dtype == np.float32
    assert narrow.precision_ == pytest.approx(wide.precision_, abs=1e-4)
    tensor = GraphicalLasso(0.1).fit(torch.tensor(X))
    assert np.array_equal(tensor.precision_, wide.precision_)
    assert tensor.covariance_ @ tensor.precision_ == pytest.approx(np.eye(4), abs=1e-9)


@pytest.mark.parametrize(
    "change, error, match",
    [
        ({"alpha": -1.0}, ValueError, "alpha"),
        ({"alpha": "a"}, TypeError, "alpha"),
        ({"tol": 0.0}, ValueError, "tol"),
        ({"max_iter": 0}, ValueError, "max_iter"),
    ],
)
def test_bad_parameters(change, error, match):
    with pytest.raises(error, match=match):
        clone(lasso()).set_params(**change).fit(covariance())


def test_bad_input():
    S = covariance(4)
    fit = lasso().fit
    with pytest.raises(ValueError, match="assume must be one of"):
        GraphicalLasso(assume="precision").fit(S)
    with pytest.raises(TypeError, match="n_samples"):
        fit(S, n_samples=2.5)
    with pytest.raises(ValueError, match="two rows"):
        GraphicalLasso().fit(S[:1])
    with pytest.raises(ValueError, match="square"):
        fit(S[:3])
    with pytest.raises(ValueError, match="symmetric"):
        fit(S + np.triu(np.ones((4, 4)), 1))
    with pytest.raises(ValueError, match="semidefinite"):
        fit(-S)
    with pytest.raises(ValueError, match="variance must be positive.*column 2"):
        fit(np.diag([1.0, 1.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="singular"):
        lasso(0.0).fit(np.ones((2, 2)))
    with pytest.raises(ValueError, match="NaN"):
        fit(np.full((3, 3), np.nan))
    with pytest.raises(NotFittedError):
        GraphicalLasso().score(S)
