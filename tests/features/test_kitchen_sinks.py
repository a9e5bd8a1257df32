"""Random kitchen sinks: the box, the penalty, the functions and their kernels."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import LinAlgWarning
from scipy.optimize import lsq_linear
from scipy.stats import kstest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV

from lib.features import (
    RandomFeatureRidge,
    RandomFourierFeatures,
    RandomKitchenSinksClassifier,
    RandomKitchenSinksRegressor,
    kernel_matrix,
    kitchen_sinks,
)

BOTH = [RandomKitchenSinksRegressor, RandomKitchenSinksClassifier]


def problem(n=80, d=3, k=None, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    y = np.sin(X[:, 0]) + 0.1 * rng.standard_normal(n)
    return X, y if k is None else np.outer(y, np.arange(1, k + 1))


def columns(X, K, rng):
    """Take the columns of the points themselves for the functions."""
    return np.asarray if isinstance(X, np.ndarray) else torch.as_tensor


def relu(X, K, rng):
    """Draw rectified linear units."""
    W = rng.standard_normal((X.shape[1], K))
    return Relu(W)


class Relu:
    def __init__(self, W):
        self.W = W

    def __call__(self, X):
        if isinstance(X, np.ndarray):
            return np.maximum(X @ self.W.astype(X.dtype), 0.0)
        return (X @ torch.as_tensor(self.W).to(X)).clip(min=0.0)


def in_box(Phi, y, C, tol=1e-11, **options):
    """Fit coefficients of given columns in the box of half width C / K."""
    model = RandomKitchenSinksRegressor(
        Phi.shape[1], feature=columns, bound=C, tol=tol, max_iter=100_000, **options
    )
    return model.fit(Phi, y)


def mean_square(Phi, a, y):
    return np.mean((Phi @ a - y) ** 2)


# The box


@given(
    n=st.integers(1, 40),
    K=st.integers(1, 12),
    log_C=st.floats(-2, 3),
    seed=st.integers(0, 9999),
)
@settings(max_examples=80, deadline=None)
def test_box_solution_is_that_of_lsq_linear(n, K, log_C, seed):
    rng = np.random.default_rng(seed)
    Phi, y = rng.standard_normal((n, K)), rng.standard_normal(n)
    C = 10.0**log_C
    model = in_box(Phi, y, C)
    assert model.converged_ and np.abs(model.coef_).max() <= C / K
    box = (-C / K * (1 + 1e-15), C / K)
    exact = lsq_linear(Phi, y, box, method="bvls", tol=1e-15, max_iter=1000).x
    energy = np.mean(y**2)
    ours, best = mean_square(Phi, model.coef_, y), mean_square(Phi, exact, y)
    # With an exact fit both objectives are rounding: then the energy is the scale.
    assert abs(ours - best) <= 1e-8 * best + 1e-11 * energy
    assert ours - best <= model.dual_gap_ + 1e-14 * energy


@given(K=st.integers(2, 30), C=st.floats(0.1, 50), seed=st.integers(0, 9999))
@settings(max_examples=40, deadline=None)
def test_karush_kuhn_tucker_conditions(K, C, seed):
    rng = np.random.default_rng(seed)
    Phi, y = rng.standard_normal((60, K)), rng.standard_normal(60)
    a = in_box(Phi, y, C).coef_
    gradient = Phi.T @ (Phi @ a - y) / 60
    scale = np.abs(Phi.T @ y / 60).max()
    free = np.abs(a) < C / K * (1 - 1e-6)
    assert np.abs(gradient[free]).max(initial=0.0) < 1e-4 * scale
    # At a bound the descent direction points out of the box.
    assert (np.sign(a) * gradient)[~free].max(initial=0.0) < 1e-4 * scale


def test_one_function_in_closed_form():
    Phi, y = problem(30, 1)
    a = Phi[:, 0] @ y / (Phi[:, 0] @ Phi[:, 0])
    for C in (0.1 * abs(a), 10 * abs(a)):
        assert in_box(Phi, y, C).coef_ == pytest.approx([np.clip(a, -C, C)], rel=1e-6)


def test_orthogonal_functions_are_clipped_one_by_one(backend):
    Phi = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 6)))[0]
    y = np.random.default_rng(1).standard_normal((40, 3))
    model = in_box(backend.asarray(Phi), backend.asarray(y), 3.0)
    assert backend.owns(model.coef_, "float64") and model.coef_.shape == (3, 6)
    expected = np.clip(Phi.T @ y, -0.5, 0.5).T
    assert 0 < np.mean(np.abs(expected) == 0.5) < 1
    np.testing.assert_allclose(backend.numpy(model.coef_), expected, atol=1e-12)
    assert model.n_iter_ == 1  # a step of length 1 / L from zero is the solution


@pytest.mark.parametrize("feature", ["cos", "stump"])
def test_box_on_random_functions(feature, backend):
    X, y = problem(300, 4, k=2)
    y[:, 1] = np.sign(X[:, 1])
    model = RandomKitchenSinksRegressor(
        60, feature=feature, bound=6.0, tol=1e-9, random_state=0
    )
    model.fit(backend.asarray(X), backend.asarray(y))
    assert model.converged_
    Phi = values(clone(model).fit(X, y), X)
    for a, target in zip(backend.numpy(model.coef_), y.T, strict=True):
        exact = lsq_linear(Phi, target, (-0.1, 0.1), tol=1e-14).x
        best = mean_square(Phi, exact, target)
        assert mean_square(Phi, a, target) <= best * (1 + 1e-8)
        assert 0.1 < np.mean(np.abs(a) == 0.1) < 1
    prediction = model.predict(backend.asarray(X))
    assert backend.owns(prediction, "float64") and prediction.shape == y.shape
    formula = Phi @ backend.numpy(model.coef_).T
    np.testing.assert_allclose(backend.numpy(prediction), formula, atol=1e-12)


def test_wide_box_is_least_squares_and_narrow_box_is_full():
    Phi, y = problem(50, 7)
    exact = np.linalg.lstsq(Phi, y)[0]
    np.testing.assert_allclose(in_box(Phi, y, 1e3).coef_, exact, atol=1e-6)
    ridge = RandomKitchenSinksRegressor(7, feature=columns, alpha=1e-10).fit(Phi, y)
    np.testing.assert_allclose(ridge.coef_, exact, atol=1e-8)
    narrow = in_box(Phi, y, 1e-6).coef_
    np.testing.assert_allclose(narrow, 1e-6 / 7 * np.sign(Phi.T @ y), rtol=1e-12)


def test_a_larger_box_fits_better_and_predicts_alike_for_more_functions():
    # The bound C / K leaves the class of functions the same whatever K is.
    X, y = problem(400, 2)
    errors = [
        1
        - RandomKitchenSinksRegressor(100, bound=C, random_state=0)
        .fit(X, y)
        .score(X, y)
        for C in (0.5, 2, 8)
    ]
    assert errors[0] > errors[1] > errors[2]
    outputs = [
        RandomKitchenSinksRegressor(K, bound=2.0, random_state=K).fit(X, y).predict(X)
        for K in (400, 1600)
    ]
    assert np.mean((outputs[0] - outputs[1]) ** 2) < 0.05 * np.mean(y**2)


def test_not_converging_is_said(backend):
    X, y = problem(200)
    model = RandomKitchenSinksRegressor(
        50, bound=100.0, max_iter=3, tol=1e-8, random_state=0
    )
    with pytest.warns(ConvergenceWarning, match="max_iter=3.*tol=1e-08"):
        model.fit(backend.asarray(X), backend.asarray(y))
    assert not model.converged_ and model.n_iter_ == 3
    # The gap is a bound on what is missing, also of an unfinished fit.
    Phi, a = values(clone(model).set_params(bound=None).fit(X, y), X), model.coef_
    exact = lsq_linear(Phi, y, (-2, 2), tol=1e-14).x
    missing = mean_square(Phi, backend.numpy(a), y) - mean_square(Phi, exact, y)
    assert 0 < missing <= model.dual_gap_
    # It is the largest of -gradient' (v - a) over the box.
    gradient = 2 * Phi.T @ (Phi @ backend.numpy(a) - y) / 200
    gap = gradient @ backend.numpy(a) + 2.0 * np.abs(gradient).sum()
    assert model.dual_gap_ == pytest.approx(gap, rel=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        longer = clone(model).set_params(max_iter=10_000, tol=1e-3).fit(X, y)
    assert longer.converged_ and 3 < longer.n_iter_ < 10_000
    assert longer.dual_gap_ <= 1e-3 * np.mean(y**2)


def test_functions_that_vanish():
    X, y = problem(10)
    model = RandomKitchenSinksRegressor(3, feature=columns, bound=1.0)
    model.fit(0 * X, y)
    assert model.converged_ and not model.coef_.any()


# The penalty


def values(model, X):
    """Evaluate the fitted functions, by their formulas."""
    phi = model._phi
    if isinstance(phi, kitchen_sinks._Cosines):
        return np.cos(X @ phi.fourier.frequencies_.T + phi.fourier.offset_)
    if isinstance(phi, kitchen_sinks._Stumps):
        return np.where(X[:, phi.column] < phi.threshold, -1.0, 1.0)
    return phi(X)


@pytest.mark.parametrize("feature", ["cos", "stump", relu])
@pytest.mark.parametrize("k", [None, 1, 3])
def test_penalised_fit_is_ridge_regression(feature, k, backend):
    (X, y), lam, K = problem(k=k), 1e-2, 30
    model = RandomKitchenSinksRegressor(K, feature=feature, alpha=lam, random_state=0)
    model.fit(backend.asarray(X), backend.asarray(y))
    assert model.converged_ and model.n_iter_ == 1 and model.dual_gap_ == 0
    Phi = values(clone(model).fit(X, y), X)
    peer = Ridge(80 * lam, fit_intercept=False).fit(Phi, y)
    assert backend.owns(model.coef_, "float64")
    assert model.coef_.shape == (*y.shape[1:], K)
    np.testing.assert_allclose(
        np.squeeze(backend.numpy(model.coef_)), peer.coef_, atol=1e-9
    )
    # The dual: the mean product of K functions as a kernel, and lambda / K.
    dual = KernelRidge(alpha=80 * lam / K, kernel="precomputed")
    dual.fit(Phi @ Phi.T / K, y)
    prediction = model.predict(backend.asarray(X))
    assert backend.owns(prediction, "float64") and prediction.shape == y.shape
    np.testing.assert_allclose(
        backend.numpy(prediction), dual.predict(Phi @ Phi.T / K), atol=1e-9
    )
    assert model.score(backend.asarray(X), backend.asarray(y)) == pytest.approx(
        peer.score(Phi, y), abs=1e-10
    )


def test_cosines_are_random_fourier_features():
    X, y = problem()
    K, lam = 40, 1e-3
    sinks = RandomKitchenSinksRegressor(K, alpha=lam, random_state=7).fit(X, y)
    fourier = RandomFourierFeatures(K, features="phase", random_state=7)
    ridge = RandomFeatureRidge(fourier, alpha=80 * lam * 2 / K).fit(X, y)
    assert sinks.gamma_ == ridge.feature_map_.gamma_
    np.testing.assert_allclose(sinks.predict(X), ridge.predict(X), atol=1e-10)


def test_sums_in_blocks_are_the_same(monkeypatch, backend):
    X, y = problem()
    for bound in (None, 5.0):
        model = RandomKitchenSinksRegressor(20, bound=bound, random_state=0)
        whole = clone(model).fit(X, y)
        with monkeypatch.context() as patch:
            patch.setattr(kitchen_sinks, "BLOCK", {"cpu": 1, "cuda": 1})
            patch.setattr(kitchen_sinks, "ROWS", 7)
            model.fit(backend.asarray(X), backend.asarray(y))
            prediction = backend.numpy(model.predict(backend.asarray(X)))
        np.testing.assert_allclose(prediction, whole.predict(X), atol=1e-7)


def test_singular_systems_are_said():
    X, y = problem(10)
    model = RandomKitchenSinksRegressor(40, alpha=0, random_state=0)
    with pytest.warns(LinAlgWarning, match="positive definite"):
        model.fit(X, y)
    expected = np.linalg.pinv(values(model, X)) @ y
    np.testing.assert_allclose(model.coef_, expected, atol=1e-5)


# The functions and their kernels


def test_law_of_the_stumps():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500, 3)) * [1.0, 10.0, 0.1] + [0.0, -5.0, 100.0]
    K = 30_000
    phi = kitchen_sinks._Stumps(X, K, rng)
    counts = np.bincount(phi.column, minlength=3)
    assert np.abs(counts - K / 3).max() < 4.5 * np.sqrt(K * 2 / 9)
    for j in range(3):
        t = (phi.threshold[phi.column == j] - X[:, j].mean()) / X[:, j].std()
        assert kstest(t, "norm").pvalue > 1e-4


def test_stumps_are_signs_with_one_at_zero(backend):
    X = np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]])
    phi = kitchen_sinks._Stumps(X, 200, np.random.default_rng(0))
    for dtype in ("float32", "float64"):
        Z = phi(backend.asarray(X, dtype))
        assert backend.owns(Z, dtype)
        Z = backend.numpy(Z)
        assert set(np.unique(Z)) == {-1.0, 1.0}
        # A constant column has its thresholds at the constant.
        assert (Z[:, phi.column == 1] == 1.0).all()
        expected = X[:, :1] >= phi.threshold[phi.column == 0]
        np.testing.assert_array_equal(Z[:, phi.column == 0] == 1.0, expected)


@pytest.mark.parametrize("feature", ["cos", "stump"])
def test_implicit_kernel_is_the_mean_product(feature, backend):
    X, y = problem(7, 3)
    X[:, 2] = 0.5
    K = 40_000
    model = RandomKitchenSinksRegressor(10, feature=feature, random_state=0).fit(X, y)
    exact = model.implicit_kernel(backend.asarray(X))
    assert backend.owns(exact, "float64")
    exact = backend.numpy(exact)
    if feature == "stump":
        phi = kitchen_sinks._Stumps(X, K, np.random.default_rng(1))
        Phi = np.where(X[:, phi.column] < phi.threshold, -1.0, 1.0)
        np.testing.assert_allclose(np.diag(exact), 1.0, atol=1e-15)
    else:
        phi = kitchen_sinks._Cosines(X, K, np.random.default_rng(1), model.gamma_)
        Phi = np.cos(X @ phi.fourier.frequencies_.T + phi.fourier.offset_)
        expected = kernel_matrix(X, gamma=model.gamma_) / 2
        np.testing.assert_allclose(exact, expected, atol=1e-15)
    products = Phi[:, None, :] * Phi[None, :, :]
    error = products.std(-1) / np.sqrt(K) + 1e-14
    assert (np.abs(products.mean(-1) - exact) < 4.5 * error).all()
    assert np.linalg.eigvalsh(exact).min() > -1e-12
    X2 = backend.asarray(X[:2], "float32")
    cross = model.implicit_kernel(X2, backend.asarray(X, "float32"))
    assert backend.owns(cross, "float32")
    np.testing.assert_allclose(backend.numpy(cross), exact[:2], atol=1e-6)


def test_implicit_kernel_of_rectified_units_is_the_arc_cosine_kernel(backend):
    X, y = problem(5, 2)
    model = RandomKitchenSinksRegressor(100_000, feature=relu, random_state=0)
    model._phi, model.n_features_in_ = relu(X, 100_000, np.random.default_rng(0)), 2
    model.coef_ = np.zeros(100_000)  # as fitted: no system of that size is solved
    norms = np.linalg.norm(X, axis=1)
    angle = np.arccos(np.clip(X @ X.T / np.outer(norms, norms), -1, 1))
    exact = np.sin(angle) + (np.pi - angle) * np.cos(angle)
    exact *= np.outer(norms, norms) / (2 * np.pi)
    estimate = backend.numpy(model.implicit_kernel(backend.asarray(X)))
    np.testing.assert_allclose(estimate, exact, atol=0.03 * exact.max())


# Classes


def blobs(labels, n=150, seed=0):
    rng = np.random.default_rng(seed)
    index = rng.integers(len(labels), size=n)
    angle = 2 * np.pi * np.arange(len(labels)) / len(labels)
    centres = 3 * np.column_stack([np.cos(angle), np.sin(angle)])
    X = centres[index] + 0.5 * rng.standard_normal((n, 2))
    return X, np.asarray(labels)[index]


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1],
        [-3, 7, 100],
        [False, True],
        [1.0, 2.0, 5.0],
        ["no", "yes"],
        ["a", "b", "c", "d"],
        np.array(["x", "y"], dtype=object),
        np.array([1, 2], dtype=np.uint8),
    ],
    ids=str,
)
@pytest.mark.parametrize("bound", [None, 5.0])
def test_classes_of_any_dtype(labels, bound):
    X, y = blobs(labels)
    model = RandomKitchenSinksClassifier(50, bound=bound, random_state=0).fit(X, y)
    assert model.classes_.dtype == y.dtype
    np.testing.assert_array_equal(model.classes_, np.unique(y))
    prediction = model.predict(X)
    assert prediction.dtype == y.dtype and model.score(X, y) > 0.97
    values = model.decision_function(X)
    c = len(labels)
    assert values.shape == ((150,) if c == 2 else (150, c))
    assert model.coef_.shape == ((50,) if c == 2 else (c, 50))
    # The sums are regressions on signs.
    for j in [1] if c == 2 else range(c):
        signs = np.where(y == model.classes_[j], 1.0, -1.0)
        regression = RandomKitchenSinksRegressor(50, bound=bound, random_state=0)
        expected = regression.fit(X, signs).predict(X)
        ours = values if c == 2 else values[:, j]
        # In a box each sum stops by itself or with the slowest one.
        atol = 1e-9 if bound is None else 0.05
        np.testing.assert_allclose(ours, expected, atol=atol)


@pytest.mark.parametrize("labels", [[0, 1], [3, 1, 8], [False, True]])
@pytest.mark.parametrize("feature", ["cos", "stump"])
def test_labels_keep_kind_dtype_and_device(labels, feature, device):
    X, y = blobs(labels)
    tensors = [torch.tensor(a, device=device) for a in (X.astype(np.float32), y)]
    model = RandomKitchenSinksClassifier(80, feature=feature, random_state=0)
    model.fit(*tensors)
    prediction = model.predict(tensors[0])
    assert prediction.dtype == tensors[1].dtype == model.classes_.dtype
    assert prediction.device == tensors[0].device
    assert model.decision_function(tensors[0]).dtype == torch.float32
    reference = clone(model).fit(X, y)
    np.testing.assert_array_equal(prediction.cpu().numpy(), reference.predict(X))
    assert model.score(*tensors) == reference.score(X, y) > 0.9
    # A fit somewhere serves predictions elsewhere.
    np.testing.assert_array_equal(model.predict(X), reference.predict(X))
    assert torch.equal(reference.predict(tensors[0]), prediction)


def test_labels_that_no_tensor_holds():
    X, y = blobs(["no", "yes"])
    model = RandomKitchenSinksClassifier(50, random_state=0).fit(X, y)
    with pytest.raises(TypeError, match="X must be a numpy array.*Tensor.*<U3"):
        model.predict(torch.tensor(X))


def test_kitchen_sinks_learn_a_circle():
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (600, 2))
    y = (X**2).sum(1) < 0.6
    for options in ({}, {"feature": "stump"}, {"bound": 50.0}):
        model = RandomKitchenSinksClassifier(200, random_state=0, **options)
        # Measured here: 0.985, 0.88 and 0.98.
        assert model.fit(X[:400], y[:400]).score(X[400:], y[400:]) > 0.85
    # Units without a bias have one sign along each ray from zero.
    model = RandomKitchenSinksClassifier(200, feature=relu, random_state=0).fit(X, y)
    near, far = model.predict(0.1 * X), model.predict(10 * X)
    np.testing.assert_array_equal(near, far)
    assert model.score(X, y) < 0.7


# Contracts


@pytest.mark.parametrize("feature", ["cos", "stump", relu])
@pytest.mark.parametrize("bound", [None, 3.0])
def test_float32_is_summed_and_solved_in_float64(feature, bound, backend):
    X, y = problem(300)
    options = {"feature": feature, "bound": bound, "random_state": 0}
    model = RandomKitchenSinksRegressor(40, **options)
    model.fit(backend.asarray(X, "float32"), backend.asarray(y, "float32"))
    assert backend.owns(model.coef_, "float64")
    prediction = model.predict(backend.asarray(X, "float32"))
    assert backend.owns(prediction, "float32")
    reference = RandomKitchenSinksRegressor(40, **options).fit(X, y)
    np.testing.assert_allclose(
        backend.numpy(prediction), reference.predict(X), atol=5e-3
    )
    # A fit somewhere serves predictions elsewhere.
    np.testing.assert_allclose(model.predict(X), reference.predict(X), atol=5e-3)


@pytest.mark.parametrize("estimator", BOTH)
@pytest.mark.parametrize("feature", ["cos", "stump", relu])
def test_random_state_clone_and_pickle(estimator, feature, backend):
    X, y = problem()
    X, y = backend.asarray(X), backend.asarray(y > 0, "int64")

    def fitted(model):
        return backend.numpy(model.fit(X, y).coef_)

    model = estimator(9, feature=feature, random_state=0)
    first = fitted(model)
    np.testing.assert_array_equal(first, fitted(model))
    np.testing.assert_array_equal(first, fitted(clone(model)))
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(
        backend.numpy(copy.predict(X)), backend.numpy(model.predict(X))
    )
    moving = estimator(9, feature=feature, random_state=np.random.default_rng(0))
    assert np.abs(fitted(moving) - fitted(moving)).max() > 1e-6
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    fitted(estimator(9, feature=feature))
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_gamma_belongs_to_cosines_alone():
    X, y = problem()
    model = RandomKitchenSinksRegressor(5, gamma=0.3, random_state=0).fit(X, y)
    assert model.gamma_ == 0.3
    assert not hasattr(model.set_params(feature="stump").fit(X, y), "gamma_")


def test_grid_search():
    X, y = problem(150, 1)
    model = RandomKitchenSinksRegressor(100, random_state=0)
    grid = {"gamma": [1e-6, 0.5], "alpha": [1e-6, 1e4]}
    search = GridSearchCV(model, grid, cv=3).fit(X, y)
    assert search.best_params_ == {"gamma": 0.5, "alpha": 1e-6}


@pytest.mark.parametrize("estimator", BOTH)
@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"n_components": 0}, ValueError, "n_components.*>= 1.*0"),
        ({"n_components": 2.0}, TypeError, "n_components.*2.0"),
        ({"feature": "sine"}, ValueError, "feature.*'cos'.*callable.*'sine'"),
        ({"feature": None}, ValueError, "feature.*None"),
        ({"feature": lambda X, K, rng: 3}, TypeError, "feature.*function.*3"),
        (
            {"feature": lambda X, K, rng: lambda X: X},
            ValueError,
            r"values of feature.*\(80, 9\).*\(80, 3\)",
        ),
        (
            {"feature": lambda X, K, rng: lambda X: np.full((len(X), K), np.nan)},
            ValueError,
            "values of feature.*NaN",
        ),
        (
            {"feature": lambda X, K, rng: lambda X: torch.zeros(len(X), K)},
            TypeError,
            "X and the values of feature.*Tensor",
        ),
        ({"bound": 0}, ValueError, "bound.*> 0.*0"),
        ({"bound": -1.0}, ValueError, "bound.*-1.0"),
        ({"bound": "1"}, TypeError, "bound.*'1'"),
        ({"alpha": -1}, ValueError, "alpha.*>= 0.*-1"),
        ({"alpha": np.nan}, ValueError, "alpha.*nan"),
        ({"gamma": 0}, ValueError, "gamma.*0"),
        ({"gamma": "auto"}, ValueError, "gamma.*'scale'.*'auto'"),
        ({"max_iter": 0}, ValueError, "max_iter.*>= 1.*0"),
        ({"tol": 0}, ValueError, "tol.*> 0.*0"),
        ({"random_state": "a"}, TypeError, "random_state.*'a'"),
    ],
)
def test_bad_parameters_are_refused_by_name(estimator, options, error, words):
    X, y = problem()
    with pytest.raises(error, match=words):
        estimator(**({"n_components": 9} | options)).fit(X, np.sign(y))


@pytest.mark.parametrize("estimator", BOTH)
def test_bad_data_are_refused(estimator, backend):
    X, y = (backend.asarray(a) for a in problem())
    labels = backend.asarray(problem()[1] > 0, "int64")
    model = estimator(4, random_state=0)
    for call in (model.predict, model.implicit_kernel):
        with pytest.raises(NotFittedError):
            call(X)
    model.fit(X, labels)
    with pytest.raises(ValueError, match="X has 2 features.*expecting 3"):
        model.predict(X[:, :2])
    with pytest.raises(ValueError, match="requires y"):
        model.fit(X, None)
    with pytest.raises(ValueError, match="79|inconsistent"):
        model.fit(X, labels[:79])
    bad = backend.numpy(X).copy()
    bad[2, 1] = np.nan
    with pytest.raises(ValueError, match="X.*NaN"):
        model.fit(backend.asarray(bad), labels)
    with pytest.raises(ValueError, match="X.*NaN"):
        model.predict(backend.asarray(bad))
    other = torch.zeros(80) if backend.kind == "numpy" else np.zeros(80)
    with pytest.raises(TypeError, match="X and y must both"):
        model.fit(X, other)


def test_bad_labels_are_refused(backend):
    X, y = (backend.asarray(a) for a in problem())
    model = RandomKitchenSinksClassifier(4, random_state=0)
    with pytest.raises(ValueError, match="[Uu]nknown label type"):
        model.fit(X, y)
    with pytest.raises(ValueError, match="two classes.*one class"):
        model.fit(X, backend.asarray(np.ones(80), "int64"))
    with pytest.raises(ValueError, match="shape|1d"):
        model.fit(X, backend.asarray(np.ones((80, 2)), "int64"))
