"""Fastfood: the law of its rows, bias and variance, memory and contracts."""

import pickle
import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard as sylvester
from scipy.stats import chi, kstest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from lib.features import (
    Fastfood,
    RandomFourierFeatures,
    approximation_error,
    fastfood,
    fourier,
    hadamard,
    kernel_matrix,
)


@pytest.fixture(params=["half_angle", "torch"])
def path(request, monkeypatch):
    """Both ways to the cosines of numpy input, whichever this machine prefers."""
    monkeypatch.setattr(
        fourier, "_tangent_is_fast", lambda: request.param == "half_angle"
    )
    return request.param


def points(n=12, d=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def frequencies(fitted):
    """Form the rows of V that are in use: for tests alone, it is m x d."""
    blocks, p = fitted.S_.shape
    H, rows = sylvester(p), []
    for b in range(blocks):
        B, S, G = (np.diag(a[b]) for a in (fitted.B_, fitted.S_, fitted.G_))
        permutation = np.eye(p)[fitted.permutation_[b]]
        rows.append(S @ H @ G @ permutation @ H @ B)
    V = np.sqrt(2 * fitted.gamma_ / p) * np.vstack(rows)
    m = (fitted.n_components + len(fitted.offset_)) // 2
    return V[:m, : fitted.n_features_in_]


# The law of the frequencies


def test_lengths_of_rows_have_the_chi_distribution():
    # d = p: nothing is cut off. gamma = 1/2 is sigma = 1.
    p, m = 16, 4000
    fitted = Fastfood(m, gamma=0.5, features="phase", random_state=0).fit(points(d=p))
    lengths = np.linalg.norm(frequencies(fitted), axis=1)
    assert kstest(lengths, chi(p).cdf).pvalue > 1e-3
    # Without S one length is common to a block, by the Frobenius norm of G.
    fitted.S_ = np.ones_like(fitted.S_)
    lengths = np.linalg.norm(frequencies(fitted), axis=1).reshape(-1, p)
    np.testing.assert_allclose(lengths, lengths[:, :1] * np.ones(p), rtol=1e-12)


@pytest.mark.parametrize("with_s", [True, False])
def test_each_row_is_exactly_normal(with_s):
    # Row i of every block along one difference: independent over blocks. At p = 4 no
    # central limit theorem could make it so.
    p, blocks, delta = 4, 4000, np.array([0.9, -0.2, 0.1])
    fitted = Fastfood(blocks * p, gamma=0.5, features="phase", random_state=1).fit(
        points(d=3)
    )
    if not with_s:
        fitted.S_ = np.ones_like(fitted.S_)
    angles = (frequencies(fitted) @ delta).reshape(blocks, p)
    for i in range(p):
        scaled = angles[:, i] / np.linalg.norm(delta)
        assert kstest(scaled, "norm").pvalue > 1e-3
    # What is not normal shows: lengths sqrt(p) in place of chi_p.
    fitted.S_ = np.sqrt(p) / np.linalg.norm(fitted.G_, axis=1, keepdims=True) + 0 * (
        fitted.S_
    )
    angles = (frequencies(fitted) @ delta).reshape(blocks, p)
    assert kstest(angles[:, 1] / np.linalg.norm(delta), "norm").pvalue < 1e-6


def test_attributes_are_what_they_are_called():
    p, m = 8, 19
    fitted = Fastfood(m, gamma=0.5, features="phase", random_state=0).fit(points(d=5))
    for drawn in (fitted.B_, fitted.G_, fitted.S_, fitted.permutation_):
        assert drawn.shape == (3, p) and not drawn.flags.writeable
    assert np.all(np.abs(fitted.B_) == 1)
    np.testing.assert_array_equal(
        np.sort(fitted.permutation_, axis=1), np.arange(p) * np.ones((3, 1))
    )
    assert len({tuple(row) for row in fitted.permutation_}) == 3
    assert np.all(fitted.S_ > 0)


@pytest.mark.parametrize("features", ["pair", "phase"])
@pytest.mark.parametrize("d", [1, 3, 8])
def test_unbiased_for_every_width(d, features, record_property):
    gamma, repeats, worst = 0.4, 500, 0.0
    delta = np.linspace(1.0, -0.5, d) / np.sqrt(d)
    X = np.stack([np.full(d, 0.3), np.full(d, 0.3) + delta])
    k = kernel_matrix(X, gamma=gamma)[0, 1]
    rng = np.random.default_rng(5)
    for D in (1, 2, 5, 12):
        values = []
        for _ in range(repeats):
            fitted = Fastfood(D, gamma=gamma, features=features, random_state=rng)
            Z = fitted.fit_transform(X)
            assert Z.shape == (2, D)
            values.append(Z[0] @ Z[1])
        error = np.std(values) / np.sqrt(repeats)
        worst = max(worst, abs(np.mean(values) - k) / (4.5 * error))
    record_property("value", float(worst))
    record_property("trials", repeats)
    assert worst < 1.0


def block_means(role, X, blocks):
    """Estimate the kernel at each row of X, of d = p, by each of many blocks alone."""
    p = X.shape[1]
    method = RandomFourierFeatures if role == "iid" else Fastfood
    fitted = method(2 * p * blocks, gamma=0.5, random_state=0).fit(X)
    if role == "one":
        fitted.S_ = np.ones_like(fitted.S_)
    elif role == "wrong":
        fitted.S_ = fitted.S_ * np.linalg.norm(fitted.G_, axis=1, keepdims=True) ** 0.5
    cosines = fitted.transform(X)[:, : p * blocks] * np.sqrt(p * blocks)
    return cosines.reshape(len(X), blocks, p).mean(axis=2)


def test_role_of_s_in_the_variance(record_property):
    # To first order in 1/p, p Var is that of independent rows, e^-1 (cosh 1 - 1),
    # plus e^-1 (1 - sum of delta^4) for the dependence of the rows of a block at a
    # difference of length one; independent lengths take e^-1 / 2 off again.
    p, blocks = 64, 2000
    X = points(30, p)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    independent = np.exp(-1) * (np.cosh(1) - 1)
    together = independent + np.exp(-1) * (1 - (X**4).sum(axis=1).mean())
    theory = {"iid": independent, "chi": together - np.exp(-1) / 2, "one": together}
    measured = {"iid": 0.200, "chi": 0.370, "one": 0.556}
    for role, first_order in theory.items():
        values = block_means(role, X, blocks)
        # The mean is known, for every role is unbiased; blocks are independent.
        mean = values.mean(axis=0)
        squares = p * ((values - np.exp(-0.5)) ** 2).mean(axis=0)
        error, mean_error = (v.std() / np.sqrt(blocks) for v in (squares, mean))
        assert abs(mean.mean() - np.exp(-0.5)) < 4.5 * mean_error
        assert abs(squares.mean() - measured[role]) < 4.5 * error + 5e-4
        assert abs(squares.mean() - first_order) < 4.5 * error + 0.5 / p
        record_property("value", float(squares.mean()))
        record_property("trials", blocks)
        # So many blocks tell the three apart with certainty.
        assert 4.5 * error < 0.08


def test_the_constant_to_the_power_minus_one_half_is_wrong():
    p, blocks = 64, 500
    X = np.full((1, p), 1 / np.sqrt(p))
    means = block_means("wrong", X, blocks)[0]
    # Then lengths have the factor |G|^(1/2), and |G| has the chi distribution.
    expected = chi(p).expect(lambda r: np.exp(-r / 2))
    assert expected == pytest.approx(0.0198, abs=5e-5)
    assert abs(means.mean() - expected) < 4.5 * means.std() / np.sqrt(blocks)
    assert abs(means.mean() - np.exp(-0.5)) > 0.5


def test_variance_is_that_of_independent_rows_where_the_difference_is_flat():
    # Along one axis the entries of H B delta are of one size, and with S = I the p
    # angles of a block are independent normal numbers.
    p, blocks = 16, 4000
    values = block_means("one", np.eye(p)[5:6], blocks)[0]
    squares = p * (values - np.exp(-0.5)) ** 2
    error = squares.std() / np.sqrt(blocks)
    assert abs(squares.mean() - np.exp(-1) * (np.cosh(1) - 1)) < 4.5 * error


# The map itself


@pytest.mark.parametrize("features", ["pair", "phase"])
@pytest.mark.parametrize("d", [1, 2, 3, 20, 64, 100])
def test_map_equals_the_dense_product(d, features, path, backend):
    X = points(37, d)
    for D in (1, 2, 9, 2 * d, 333):
        fitted = Fastfood(D, gamma=0.5 / d, features=features, random_state=0).fit(X)
        theta, b = X @ frequencies(fitted).T, fitted.offset_
        pairs = D // 2 if features == "pair" else 0
        formula = np.sqrt(2 / D) * np.hstack(
            [
                np.cos(theta[:, :pairs]),
                np.sin(theta[:, :pairs]),
                np.cos(theta[:, pairs:] + b),
            ]
        )
        assert formula.shape == (37, D) and len(b) == D - 2 * pairs
        for dtype, eps in (("float64", 2.3e-16), ("float32", 1.2e-7)):
            Z = fitted.transform(backend.asarray(X, dtype))
            assert backend.owns(Z, dtype) and Z.shape == (37, D)
            tolerance = 20 * eps * (1 + np.abs(theta).max())
            np.testing.assert_allclose(
                backend.numpy(Z), formula, rtol=0, atol=tolerance
            )


def test_approximates_the_kernel_like_independent_features():
    # Fastfood has the larger variance: 1.1 to 1.4 times the error here.
    X = points(200, 50) / np.sqrt(50)
    K = kernel_matrix(X, gamma=0.5)
    errors = {
        method: np.mean(
            [
                approximation_error(
                    method(1024, gamma=0.5, random_state=seed).fit_transform(X), K
                )
                for seed in range(6)
            ]
        )
        for method in (Fastfood, RandomFourierFeatures)
    }
    assert 0.9 < errors[Fastfood] / errors[RandomFourierFeatures] < 1.7


@given(
    n=st.integers(1, 70),
    d=st.integers(1, 20),
    D=st.integers(1, 150),
    tile=st.sampled_from([1, 30, 500, 2**16]),
    least=st.integers(1, 32),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_rows_do_not_depend_on_their_company(n, d, D, tile, least, data):
    features = data.draw(st.sampled_from(["pair", "phase"]))
    X = points(n, d)
    fitted = Fastfood(D, features=features, gamma=0.5, random_state=0).fit(X)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fastfood, "TILE", tile)
        patch.setattr(fastfood, "ROWS", (least, 40))
        patch.setattr(fourier, "TILE", tile)
        Z = fitted.transform(X)
    i = data.draw(st.integers(0, n - 1))
    np.testing.assert_allclose(
        Z[i : i + 1], fitted.transform(X[i : i + 1]), rtol=0, atol=1e-12
    )


def test_memory_is_that_of_the_features_alone():
    def peak(d, D):
        X = np.zeros((4, d))
        tracemalloc.start()
        Fastfood(D, gamma=1.0, random_state=0).fit(X).transform(X)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(64, 64)  # small matrices and imports, kept for good
    # 8192 x 4096 frequencies would take 268 MB; the 4 x 8192 features take 0.26.
    first = peak(4096, 16384)
    assert first < 6e6
    assert peak(4096, 32768) < 2.2 * first
    assert peak(2048, 16384) > 0.7 * first  # it is D that counts, not d
    assert peak(64, 16384) > 0.5 * first


def test_same_diagonals_for_every_kind_and_device(backend):
    X = points(30, 5)
    reference = Fastfood(50, random_state=5).fit(X)
    fitted = Fastfood(50, random_state=5).fit(backend.asarray(X))
    assert fitted.gamma_ == pytest.approx(reference.gamma_, rel=1e-14)
    for name in ("B_", "G_", "S_", "permutation_", "offset_"):
        drawn = getattr(fitted, name)
        assert isinstance(drawn, np.ndarray)
        np.testing.assert_array_equal(drawn, getattr(reference, name))
    assert fitted.gamma_ == pytest.approx(
        RandomFourierFeatures().fit(X).gamma_, rel=1e-14
    )


@pytest.mark.parametrize("features", ["pair", "phase"])
@pytest.mark.parametrize("d", [1, 3, 40])
def test_gradient_with_respect_to_the_input(features, d, device):
    X = torch.tensor(points(3, d), device=device, requires_grad=True)
    for D in (5, 6):
        fitted = Fastfood(D, gamma=0.3, features=features, random_state=0).fit(X)
        assert torch.autograd.gradcheck(fitted.transform, (X,))
        # The path without a graph gives the same numbers.
        torch.testing.assert_close(
            fitted.transform(X), fitted.transform(X.detach()), rtol=0, atol=1e-13
        )
    assert torch.autograd.gradcheck(
        fitted.transform, (X,), check_forward_ad=True, check_batched_grad=True
    )


def test_tangents_and_inference_mode(device):
    X, V = (torch.tensor(points(seed=s), device=device) for s in (0, 1))
    fitted = Fastfood(10, gamma=0.3, random_state=0).fit(X)
    forward = torch.autograd.forward_ad
    with torch.inference_mode():
        fitted.transform(X)
    with forward.dual_level():
        Z = fitted.transform(forward.make_dual(X, V))
        tangent = forward.unpack_dual(Z).tangent
    step = 1e-5
    difference = fitted.transform(X + step * V) - fitted.transform(X - step * V)
    torch.testing.assert_close(tangent, difference / (2 * step), rtol=0, atol=1e-9)
    X.requires_grad_()
    fitted.transform(X).sum().backward()
    assert X.grad.abs().max() > 0


@pytest.mark.parametrize("features", ["pair", "phase"])
def test_sparse_input(features, path):
    X = np.where(np.abs(points(60, 9)) > 0.8, points(60, 9), 0.0)
    for dtype in (np.float64, np.float32):
        A = sp.csr_matrix(X.astype(dtype))
        fitted = Fastfood(21, features=features, random_state=0).fit(A)
        Z = fitted.transform(A)
        assert isinstance(Z, np.ndarray) and Z.dtype == dtype
        np.testing.assert_array_equal(Z, fitted.transform(X.astype(dtype)))


@pytest.mark.parametrize("graph", [False, True])
def test_replaced_diagonals_are_used_everywhere(backend, graph):
    X = backend.asarray(points())
    if graph and backend.kind == "torch":
        X.requires_grad_()
    fitted = Fastfood(10, gamma=0.4, random_state=0).fit(X)
    before = backend.numpy(fitted.transform(X)).copy()
    for name in ("B_", "G_", "S_"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(fitted, name)[:] = 0
    fitted.G_ = np.zeros_like(fitted.G_)
    after = backend.numpy(fitted.transform(X))
    np.testing.assert_allclose(after[:, :5], np.sqrt(0.2))
    assert np.abs(after - before).max() > 0.1
    fitted.fit(X)
    fitted.gamma_ = 0.9
    again = Fastfood(10, gamma=0.9, random_state=0).fit(X)
    np.testing.assert_array_equal(
        backend.numpy(fitted.transform(X)), backend.numpy(again.transform(X))
    )


# Contracts


def test_random_state_and_refits():
    X = points()
    features = Fastfood(9, random_state=0)
    first = features.fit_transform(X)
    np.testing.assert_array_equal(first, features.fit_transform(X))
    moving = Fastfood(9, random_state=np.random.default_rng(0))
    assert np.abs(moving.fit_transform(X) - moving.fit_transform(X)).max() > 0.01
    unseeded = Fastfood(9)
    assert np.abs(unseeded.fit_transform(X) - unseeded.fit_transform(X)).max() > 0.01
    # A refit on another width forgets the first.
    assert features.fit(points(d=20)).transform(points(d=20)).shape == (12, 9)
    assert features.B_.shape == (1, 32)


def test_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    torch_before = torch.get_rng_state()
    Fastfood(9).fit(points())
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(torch_before, torch.get_rng_state())


def test_clone_pickle_and_names(backend):
    X = backend.asarray(points())
    features = Fastfood(5, features="phase", gamma=0.2, random_state=0)
    assert clone(features).get_params() == features.get_params()
    Z = backend.numpy(features.fit_transform(X))
    copy = pickle.loads(pickle.dumps(features))
    np.testing.assert_array_equal(backend.numpy(copy.transform(X)), Z)
    assert list(features.get_feature_names_out()) == [f"fastfood{i}" for i in range(5)]


def test_learns_in_a_pipeline():
    X = points(150, 2)
    y = np.sin(2 * X[:, 0]) + X[:, 1] ** 2
    model = make_pipeline(Fastfood(300, gamma=0.3, random_state=0), Ridge(1e-3))
    assert model.fit(X[:100], y[:100]).score(X[100:], y[100:]) > 0.9


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"n_components": 0}, ValueError, "n_components.*>= 1.*0"),
        ({"n_components": 2.0}, TypeError, "n_components.*2.0"),
        ({"gamma": 0.0}, ValueError, "gamma.*> 0.*0.0"),
        ({"gamma": np.inf}, ValueError, "gamma.*inf"),
        ({"gamma": "auto"}, ValueError, "gamma.*'scale'.*'auto'"),
        ({"gamma": None}, TypeError, "gamma.*None"),
        ({"features": "sine"}, ValueError, "features.*'sine'"),
        ({"random_state": "a"}, TypeError, "random_state.*'a'"),
    ],
)
def test_bad_parameters_are_refused_by_name(options, error, words):
    with pytest.raises(error, match=words):
        Fastfood(**options).fit(points())


def test_bad_data_are_refused(backend):
    fitted = Fastfood(4, random_state=0)
    with pytest.raises(NotFittedError):
        fitted.transform(backend.asarray(points()))
    fitted.fit(backend.asarray(points()))
    # A fourth column would fit into the padding: it is refused all the same.
    for d in (2, 4):
        with pytest.raises(ValueError, match=f"X has {d} features.*expecting 3"):
            fitted.transform(backend.asarray(points(d=d)))
    for value in (np.nan, np.inf):
        X = points()
        X[2, 1] = value
        for call in (fitted.fit, fitted.transform):
            with pytest.raises(ValueError, match="X.*(NaN|infinity)"):
                call(backend.asarray(X))
    whole = backend.asarray(np.arange(6).reshape(2, 3), "int64")
    assert backend.owns(fitted.transform(whole), "float64")


def test_operations_do_not_grow_with_the_dimension(monkeypatch):
    # Counted, not timed: multiplications by small matrices for one block of 1024.
    counted = []
    step = hadamard._step

    def counting(x, order, inner, y):
        counted.append(x.size * order)
        step(x, order, inner, y)

    monkeypatch.setattr(hadamard, "_step", counting)
    X = points(8, 1024)
    Fastfood(2048, gamma=1.0, random_state=0).fit(X).transform(X)
    dense = 8 * 1024 * 1024
    # The last factor, of order 16, is in the transposing step.
    assert sum(counted) + 8 * 1024 * 16 < dense / 15
