"""Ridge regression on random features."""

import pickle
import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import LinAlgWarning
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import FunctionTransformer

from lib.features import RandomFeatureRidge, RandomFourierFeatures, kernel_matrix, ridge


def problem(n=80, d=3, k=None, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    y = np.sin(X[:, 0]) + 0.1 * rng.standard_normal(n)
    return X, y if k is None else np.outer(y, np.arange(1, k + 1))


def features(D=30, **options):
    return RandomFourierFeatures(D, gamma=0.5, random_state=0, **options)


@pytest.mark.parametrize("k", [None, 1, 3])
@pytest.mark.parametrize("D", [20, 200])
def test_equals_dual_kernel_ridge_on_the_same_features(D, k, backend):
    # (Z'Z + a I)^-1 Z' y = Z' (Z Z' + a I)^-1 y, on either side of n = D.
    (X, y), alpha = problem(k=k), 0.3
    model = RandomFeatureRidge(features(D), alpha=alpha)
    model.fit(backend.asarray(X), backend.asarray(y))
    Z = features(D).fit(X).transform(X)
    dual = Z.T @ np.linalg.solve(Z @ Z.T + alpha * np.eye(len(X)), y)
    assert backend.owns(model.coef_, "float64")
    np.testing.assert_allclose(backend.numpy(model.coef_), dual.T, atol=1e-10)
    prediction = model.predict(backend.asarray(X))
    assert backend.owns(prediction, "float64") and prediction.shape == y.shape
    np.testing.assert_allclose(backend.numpy(prediction), Z @ dual, atol=1e-10)
    peer = KernelRidge(alpha=alpha, kernel="precomputed").fit(Z @ Z.T, y)
    np.testing.assert_allclose(
        backend.numpy(prediction), peer.predict(Z @ Z.T), atol=1e-9
    )


@pytest.mark.parametrize("k", [None, 1, 3])
def test_equals_scikit_learn_ridge(k):
    X, y = problem(k=k)
    model = RandomFeatureRidge(features(), alpha=0.7).fit(X, y)
    peer = Ridge(0.7, fit_intercept=False).fit(features().fit_transform(X), y)
    np.testing.assert_allclose(np.squeeze(model.coef_), peer.coef_, atol=1e-11)
    assert model.coef_.shape == (*y.shape[1:], 30)
    expected = peer.score(features().fit_transform(X), y)
    assert model.score(X, y) == pytest.approx(expected, abs=1e-12)


def test_approaches_exact_kernel_ridge():
    X, y = problem(60)
    K = kernel_matrix(X, gamma=0.5)
    exact = K @ np.linalg.solve(K + np.eye(60), y)
    error = [
        np.abs(RandomFeatureRidge(features(D)).fit(X, y).predict(X) - exact).max()
        for D in (64, 512, 4096)
    ]
    assert error[0] > error[1] > error[2] and error[2] < 0.05


@given(data=st.data(), n=st.integers(2, 60), D=st.integers(1, 25))
@settings(max_examples=40, deadline=None)
def test_any_chunking_gives_the_same_fit(data, n, D):
    X, y = problem(n, k=data.draw(st.sampled_from([None, 2])))
    cuts = data.draw(st.lists(st.integers(1, n - 1), unique=True).map(sorted))
    convert = data.draw(st.sampled_from([np.asarray, torch.tensor]))
    whole = RandomFeatureRidge(features(D)).fit(convert(X), convert(y))
    parts = RandomFeatureRidge(features(D))
    for a, b in zip([0, *cuts], [*cuts, n], strict=True):
        parts.partial_fit(convert(X[a:b]), convert(y[a:b]))
    np.testing.assert_allclose(parts.gram_, whole.gram_, atol=1e-12)
    np.testing.assert_allclose(parts.coef_, whole.coef_, atol=1e-10)
    blocks = RandomFeatureRidge(features(D))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ridge, "BLOCK", {"cpu": 7 * D, "cuda": 7 * D})
        patch.setattr(ridge, "ROWS", 1)
        blocks.fit(convert(X), convert(y))
        prediction = blocks.predict(convert(X))
    np.testing.assert_allclose(prediction, whole.predict(convert(X)), atol=1e-10)


def test_partial_fit_stays_where_its_data_are(backend):
    X, y = problem()
    model = RandomFeatureRidge(features())
    for rows in (slice(0, 30), slice(30, 80)):
        model.partial_fit(backend.asarray(X[rows]), backend.asarray(y[rows]))
    for value in (model.coef_, model.gram_, model.predict(backend.asarray(X))):
        assert backend.owns(value, "float64")
    Z = features().fit(X).transform(X)
    np.testing.assert_allclose(backend.numpy(model.gram_), Z.T @ Z, atol=1e-12)
    reference = RandomFeatureRidge(features()).fit(X, y)
    np.testing.assert_allclose(backend.numpy(model.coef_), reference.coef_, atol=1e-10)
    # Fitting anew forgets, and a fit somewhere serves predictions elsewhere.
    model.fit(backend.asarray(X), backend.asarray(y))
    np.testing.assert_allclose(model.predict(X), reference.predict(X), atol=1e-10)


def test_gram_matrix_is_summed_in_panels(monkeypatch, device):
    monkeypatch.setattr(ridge, "PANEL", 7)
    X, y = problem(12)
    model = RandomFeatureRidge(features(40))
    model.fit(torch.tensor(X, device=device), torch.tensor(y, device=device))
    Z = features(40).fit(X).transform(X)
    np.testing.assert_allclose(model.gram_.cpu().numpy(), Z.T @ Z, atol=1e-13)
    # Nothing above the panels was summed, and the solve must not need it.
    reference = RandomFeatureRidge(features(40)).fit(X, y)
    np.testing.assert_allclose(model.coef_.cpu(), reference.coef_, atol=1e-11)
    with pytest.warns(LinAlgWarning):
        singular = RandomFeatureRidge(features(40), alpha=0).fit(
            torch.tensor(X, device=device), torch.tensor(y, device=device)
        )
    np.testing.assert_allclose(singular.coef_.cpu(), np.linalg.pinv(Z) @ y, atol=1e-6)


def test_float32_is_summed_and_solved_in_float64(backend):
    # At this penalty a Gram matrix in float32 has negative eigenvalues.
    X, y = problem(2000, 2)
    model = RandomFeatureRidge(features(60), alpha=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(backend.asarray(X, "float32"), backend.asarray(y, "float32"))
    prediction = model.predict(backend.asarray(X, "float32"))
    assert backend.owns(prediction, "float32") and backend.owns(model.coef_, "float64")
    reference = RandomFeatureRidge(features(60), alpha=1e-5).fit(X, y)
    np.testing.assert_allclose(
        backend.numpy(prediction), reference.predict(X), atol=2e-3
    )
    Z = features(60).fit(X).transform(X.astype(np.float32))
    assert np.linalg.eigvalsh(Z.T @ Z).min() < -1e-5


def test_singular_systems_get_the_solution_of_least_norm_and_a_warning(backend):
    X, y = problem(10)
    model = RandomFeatureRidge(features(40), alpha=0)
    with pytest.warns(LinAlgWarning, match="positive definite"):
        model.fit(backend.asarray(X), backend.asarray(y))
    Z = features(40).fit(X).transform(X)
    expected = np.linalg.pinv(Z) @ y
    np.testing.assert_allclose(backend.numpy(model.coef_), expected, atol=1e-6)
    # The penalty was undone on the sums: rows can still be added.
    np.testing.assert_allclose(backend.numpy(model.gram_), Z.T @ Z, atol=1e-12)


@pytest.mark.parametrize("D", [1, 2])
def test_tiny_widths(D):
    X, y = problem()
    model = RandomFeatureRidge(features(D), alpha=0.1).fit(X, y)
    Z = features(D).fit_transform(X)
    expected = np.linalg.solve(Z.T @ Z + 0.1 * np.eye(D), Z.T @ y)
    np.testing.assert_allclose(model.coef_, expected, atol=1e-12)


def test_memory_does_not_grow_with_the_rows():
    def peak(n):
        X = np.zeros((n, 2), dtype=np.float32)
        X[:, 0] = np.linspace(-1, 1, n)
        model = RandomFeatureRidge(features(512))
        tracemalloc.start()
        model.fit(X, X[:, 0])
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    small, large = peak(10_000), peak(60_000)
    # 60,000 x 512 float64 features would be 246 MB.
    assert large < 1.1 * small and large < 80e6


@pytest.mark.parametrize(
    "transformer",
    [Nystroem(n_components=20, gamma=0.5, random_state=0), RBFSampler(random_state=0)],
)
def test_other_feature_maps(transformer):
    X, y = problem()
    model = RandomFeatureRidge(transformer, alpha=1.0).fit(X, y)
    Z = clone(transformer).fit_transform(X)
    peer = Ridge(1.0, fit_intercept=False).fit(Z, y)
    np.testing.assert_allclose(model.coef_, peer.coef_, atol=1e-11)


def test_sparse_input():
    X, y = problem()
    X[np.abs(X) < 0.7] = 0.0
    model = RandomFeatureRidge(features()).fit(sp.csr_matrix(X), y)
    dense = RandomFeatureRidge(features()).fit(X, y)
    np.testing.assert_allclose(model.coef_, dense.coef_, atol=1e-11)
    np.testing.assert_allclose(
        model.predict(sp.csr_matrix(X)), dense.predict(X), atol=1e-12
    )


def test_clone_pickle_and_grid_search(backend):
    X, y = problem()
    model = RandomFeatureRidge(features(), alpha=0.2)
    model.fit(backend.asarray(X), backend.asarray(y))
    assert model.feature_map_ is not model.feature_map
    assert not hasattr(model.feature_map, "frequencies_")
    copy = pickle.loads(pickle.dumps(model))
    for other in (copy, clone(model).fit(backend.asarray(X), backend.asarray(y))):
        np.testing.assert_array_equal(
            backend.numpy(other.predict(backend.asarray(X))),
            backend.numpy(model.predict(backend.asarray(X))),
        )
    grid = {"alpha": [1e-3, 1e4], "feature_map__n_components": [1, 100]}
    search = GridSearchCV(model, grid, cv=3).fit(X, y)
    assert search.best_params_ == {"alpha": 1e-3, "feature_map__n_components": 100}


def fit_with(X=None, y=None, feature_map=None, **options):
    good_X, good_y = problem(8)
    feature_map = features() if feature_map is None else feature_map
    model = RandomFeatureRidge(feature_map, **options)
    return model.fit(good_X if X is None else X, good_y if y is None else y)


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"alpha": -1}, ValueError, "alpha.*>= 0.*-1"),
        ({"alpha": np.inf}, ValueError, "alpha.*inf"),
        ({"alpha": "1"}, TypeError, "alpha.*'1'"),
        ({"feature_map": 3}, TypeError, "feature_map.*3"),
        ({"X": np.full((8, 3), np.nan)}, ValueError, "X.*NaN"),
        ({"y": np.full(8, np.nan)}, ValueError, "y.*NaN"),
        ({"y": torch.zeros(8)}, TypeError, "X and y.*Tensor"),
        ({"X": torch.zeros(8, 3)}, TypeError, "X and y.*ndarray"),
        (
            {"X": torch.zeros(8, 3), "y": torch.zeros(7)},
            ValueError,
            "y.*8 rows.*7",
        ),
        (
            {"X": torch.zeros(8, 3), "y": torch.full((8,), torch.nan)},
            ValueError,
            "y.*NaN",
        ),
        (
            {"feature_map": FunctionTransformer(sp.csr_matrix)},
            TypeError,
            "feature_map.*dense.*csr",
        ),
    ],
)
def test_bad_input_is_refused_by_name(options, error, words):
    with pytest.raises(error, match=words):
        fit_with(**options)


def test_calls_that_do_not_belong_together_are_refused():
    X, y = problem()
    model = RandomFeatureRidge(features())
    for attribute in ("coef_", "gram_"):
        with pytest.raises(NotFittedError):
            getattr(model, attribute)
    model.partial_fit(X, y)
    with pytest.raises(ValueError, match="y must have the trailing shape"):
        model.partial_fit(X, y[:, None])
    with pytest.raises(TypeError, match="X and the rows of earlier calls"):
        model.partial_fit(torch.tensor(X), torch.tensor(y))
    with pytest.raises(ValueError, match="X has 2 features"):
        model.partial_fit(X[:, :2], y)
    with pytest.raises(ValueError, match="X has 2 features"):
        model.predict(X[:, :2])
