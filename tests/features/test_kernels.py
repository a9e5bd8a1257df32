"""Kernels, their spectral densities, and the approximation error."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.gaussian_process import kernels as gp
from sklearn.metrics.pairwise import laplacian_kernel, rbf_kernel

from lib.features import KERNELS, approximation_error, kernel_matrix, spectral_sample

SETTINGS = [
    ("gaussian", {}),
    ("laplacian", {}),
    ("cauchy", {}),
    ("matern", {"nu": 0.5}),
    ("matern", {"nu": 1.5}),
    ("matern", {"nu": 0.8}),
    ("rational_quadratic", {"alpha": 0.6}),
    ("rational_quadratic", {"alpha": 3.0}),
]
IDS = [f"{kernel}-{options}" for kernel, options in SETTINGS]


def points(n=20, d=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize("gamma", [0.3, 2.0])
def test_gaussian_and_laplacian_equal_scikit_learn(gamma):
    X, Y = points(), points(15, seed=1)
    K = kernel_matrix(X, Y, gamma=gamma)
    np.testing.assert_allclose(K, rbf_kernel(X, Y, gamma=gamma), rtol=1e-12)
    K = kernel_matrix(X, Y, kernel="laplacian", gamma=gamma)
    np.testing.assert_allclose(K, laplacian_kernel(X, Y, gamma=gamma), rtol=1e-12)


@pytest.mark.parametrize("nu", [0.5, 0.8, 1.0, 1.5, 2.5, 3.5, 4.2, 9.5, 12.5])
@pytest.mark.parametrize("length", [0.4, 3.0])
def test_matern_equals_scikit_learn(nu, length):
    X, Y = points(), points(15, seed=1)
    K = kernel_matrix(X, Y, kernel="matern", nu=nu, gamma=1 / length)
    np.testing.assert_allclose(K, gp.Matern(length, nu=nu)(X, Y), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 7.0])
def test_rational_quadratic_equals_scikit_learn(alpha):
    X, length = points(), 1.7
    K = kernel_matrix(X, kernel="rational_quadratic", alpha=alpha, gamma=1 / length)
    expected = gp.RationalQuadratic(length_scale=length, alpha=alpha)(X)
    np.testing.assert_allclose(K, expected, rtol=1e-11)


def test_cauchy_is_the_product_of_its_coordinates():
    X, gamma = points(), 0.7
    factors = 1 / (1 + gamma**2 * (X[:, None] - X[None]) ** 2)
    K = kernel_matrix(X, kernel="cauchy", gamma=gamma)
    np.testing.assert_allclose(K, factors.prod(-1), rtol=1e-13)


def test_limits_of_the_families_are_gaussian():
    X = points()
    target = kernel_matrix(X, gamma=0.5)
    for kernel, options in (
        ("rational_quadratic", {"alpha": 1e7}),
        ("matern", {"nu": 400.3}),
    ):
        K = kernel_matrix(X, kernel=kernel, gamma=1.0, **options)
        np.testing.assert_allclose(K, target, atol=2e-3)


@pytest.mark.parametrize("nu", [0.8, 2.2, 60.3, 180.3])
def test_matern_is_smooth_towards_zero(nu):
    # Where the Bessel function overflows its expansion takes over, without a step.
    q = np.geomspace(1e-9, 1.0, 400)[:, None]
    k = kernel_matrix(q, np.zeros((1, 1)), kernel="matern", nu=nu)[:, 0]
    assert np.all(np.isfinite(k)) and k[0] == pytest.approx(1.0, abs=1e-6)
    assert np.all(np.diff(k) <= 1e-11)


@pytest.mark.parametrize("kernel, options", SETTINGS, ids=IDS)
def test_kernel_matrix_keeps_kind_dtype_and_device(kernel, options, backend):
    X, Y = points(), points(15, seed=1)
    exact = kernel_matrix(X, Y, kernel=kernel, gamma=0.8, **options)
    for dtype, atol in (("float64", 1e-13), ("float32", 1e-6)):
        K = kernel_matrix(
            backend.asarray(X, dtype),
            backend.asarray(Y, dtype),
            kernel=kernel,
            gamma=0.8,
            **options,
        )
        assert backend.owns(K, dtype)
        np.testing.assert_allclose(backend.numpy(K), exact, rtol=0, atol=atol)


@given(
    kernel=st.sampled_from(KERNELS),
    gamma=st.floats(0.01, 10),
    nu=st.floats(0.2, 20),
    alpha=st.floats(0.1, 20),
    shift=st.floats(-100, 100),
    n=st.integers(1, 12),
    d=st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_kernels_are_positive_semidefinite_and_shift_invariant(
    kernel, gamma, nu, alpha, shift, n, d
):
    X = points(n, d)
    X = np.vstack([X, X[:1]])  # a repeated point: semidefinite, never definite
    options = {"kernel": kernel, "gamma": gamma, "nu": nu, "alpha": alpha}
    K = kernel_matrix(X, **options)
    np.testing.assert_allclose(np.diag(K), 1.0, atol=1e-12)
    np.testing.assert_allclose(K, K.T, atol=1e-12)
    assert np.linalg.eigvalsh(K).min() > -1e-9
    np.testing.assert_allclose(kernel_matrix(X + shift, **options), K, atol=1e-6)


def test_far_from_the_origin_no_digits_are_lost():
    X = points()
    np.testing.assert_allclose(
        kernel_matrix(X + 1e6), kernel_matrix(X + 1e6 - 1e6), atol=1e-9
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel_matrix_is_differentiable(kernel, device):
    X = torch.tensor(points(4, 2), device=device, requires_grad=True)
    Y = torch.tensor(points(3, 2, seed=1), device=device, requires_grad=True)

    def function(X, Y):
        return kernel_matrix(X, Y, kernel=kernel, gamma=0.7, nu=2.5)

    assert torch.autograd.gradcheck(function, (X, Y))


@pytest.mark.parametrize("kernel, options", SETTINGS, ids=IDS)
@pytest.mark.parametrize("d", [1, 4])
def test_characteristic_function_of_the_sample_is_the_kernel(kernel, options, d):
    m, gamma = 200_000, 0.8
    omega = spectral_sample(kernel, m, d, gamma=gamma, random_state=1, **options)
    assert omega.shape == (m, d) and omega.dtype == np.float64
    for distance in (0.3, 1.0, 2.5):
        delta = distance * np.ones((1, d)) / np.sqrt(d)
        values = np.cos(omega @ delta[0])
        k = kernel_matrix(
            delta, np.zeros((1, d)), kernel=kernel, gamma=gamma, **options
        )
        k2 = kernel_matrix(
            2 * delta, np.zeros((1, d)), kernel=kernel, gamma=gamma, **options
        )
        # The variance of the cosine is (1 + k(2 delta)) / 2 - k(delta)^2.
        sigma = np.sqrt(((1 + k2) / 2 - k**2).item() / m)
        assert abs(values.mean() - k.item()) < 5 * sigma
        # Symmetric about zero: the imaginary part vanishes.
        assert abs(np.sin(omega @ delta[0]).mean()) < 5 / np.sqrt(m)


def test_the_density_inverts_the_kernel_in_one_dimension():
    # p(w) = (1 / 2 pi) int k(t) exp(-i w t) dt, by quadrature, against histograms.
    t = np.linspace(-60, 60, 240_001)
    edges = np.linspace(-3, 3, 13)
    for kernel, options in SETTINGS:
        if kernel == "rational_quadratic" and options["alpha"] < 1:
            continue  # its tail is too heavy for this interval
        k = kernel_matrix(t[:, None], np.zeros((1, 1)), kernel=kernel, **options)[:, 0]
        omega = spectral_sample(kernel, 200_000, 1, random_state=2, **options)
        counts = np.histogram(omega, edges)[0] / len(omega)
        # The mass of a bin: the inner integral over w is done in closed form.
        mass = [
            np.trapezoid(
                k
                * (b - a)
                * np.sinc((b - a) * t / (2 * np.pi))
                * np.cos((a + b) / 2 * t),
                t,
            )
            / (2 * np.pi)
            for a, b in zip(edges, edges[1:], strict=False)
        ]
        sigma = np.sqrt(np.abs(mass) / len(omega))
        assert np.all(np.abs(counts - mass) < 5 * sigma + 1e-3), kernel


def test_samples_are_reproducible_and_leave_the_global_state_alone():
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    a, b = (spectral_sample("matern", 5, 2, random_state=7) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    first, second = (spectral_sample("gaussian", 5, 2) for _ in range(2))
    assert not np.array_equal(first, second)
    rng = np.random.default_rng(7)
    np.testing.assert_array_equal(spectral_sample("matern", 5, 2, random_state=rng), a)
    again = spectral_sample("matern", 5, 2, random_state=rng)
    assert not np.array_equal(again, a)
    spectral_sample("matern", 5, 2, random_state=np.random.RandomState(0))
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_approximation_error_by_hand(backend):
    Z, K = np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[1.0, 0.2], [0.2, 1.0]])
    E = Z @ Z.T - K
    for dtype, rel in (("float64", 1e-14), ("float32", 1e-6)):
        args = backend.asarray(Z, dtype), backend.asarray(K, dtype)
        fro = approximation_error(*args)
        assert isinstance(fro, float)
        expected = np.linalg.norm(E) / np.linalg.norm(K)
        assert fro == pytest.approx(expected, rel=rel)
        assert approximation_error(*args, norm="max") == pytest.approx(0.5, rel=rel)


def test_approximation_error_does_not_depend_on_its_blocks(monkeypatch):
    Z, K = points(50, 4), kernel_matrix(points(50, 2))
    whole = approximation_error(Z, K), approximation_error(Z, K, norm="max")
    monkeypatch.setattr("lib.features.kernels.BLOCK_BYTES", 8 * 50 * 7)
    parts = approximation_error(Z, K), approximation_error(Z, K, norm="max")
    assert parts == pytest.approx(whole, rel=1e-13)


X = np.zeros((3, 2))
BAD = X.copy()
BAD[1, 1] = np.nan


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: kernel_matrix(X, kernel="poly"), ValueError, "kernel.*'poly'"),
        (lambda: kernel_matrix(X, gamma=0), ValueError, "gamma.*> 0.*0"),
        (lambda: kernel_matrix(X, gamma=np.inf), ValueError, "gamma.*inf"),
        (lambda: kernel_matrix(X, gamma="scale"), TypeError, "gamma.*'scale'"),
        (lambda: kernel_matrix(X, nu=-1), ValueError, "nu.*-1"),
        (lambda: kernel_matrix(X, alpha=True), TypeError, "alpha.*True"),
        (lambda: kernel_matrix(BAD), ValueError, "X.*NaN"),
        (lambda: kernel_matrix(X, BAD), ValueError, "Y.*NaN"),
        (lambda: kernel_matrix(X[0]), ValueError, r"X.*2-D.*\(2,\)"),
        (lambda: kernel_matrix(X, X[:, :1]), ValueError, "columns.*2 and 1"),
        (lambda: kernel_matrix(X.astype(complex)), TypeError, "X.*complex"),
        (lambda: kernel_matrix([["a"]]), TypeError, "X.*U1"),
        (lambda: kernel_matrix(X, torch.tensor(X)), TypeError, "X and Y.*Tensor"),
        (lambda: kernel_matrix(torch.tensor(X).half()), TypeError, "X.*float16"),
        (lambda: kernel_matrix(torch.tensor(BAD)), ValueError, "X.*NaN"),
        (
            lambda: kernel_matrix(
                torch.tensor(X, requires_grad=True), kernel="matern", nu=0.8
            ),
            ValueError,
            "nu.*half-integer.*0.8",
        ),
        (lambda: spectral_sample("gaussian", 0, 1), ValueError, "m.*>= 1.*0"),
        (lambda: spectral_sample("gaussian", 1, 2.5), TypeError, "d.*2.5"),
        (lambda: spectral_sample(None, 1, 2), ValueError, "kernel.*None"),
        (
            lambda: spectral_sample("gaussian", 1, 2, random_state="x"),
            TypeError,
            "random_state.*'x'",
        ),
        (
            lambda: spectral_sample("gaussian", 1, 2, random_state=-1),
            ValueError,
            "random_state.*-1",
        ),
        (
            lambda: spectral_sample("matern", 50, 2, nu=1e-4, random_state=0),
            ValueError,
            "nu.*0.0001",
        ),
        (lambda: approximation_error(X, X), ValueError, r"K.*\(3, 3\)"),
        (
            lambda: approximation_error(X, np.eye(3), norm="l2"),
            ValueError,
            "norm.*'l2'",
        ),
        (lambda: approximation_error(X, np.zeros((3, 3))), ValueError, "K.*zero"),
        (lambda: approximation_error(BAD, np.eye(3)), ValueError, "Z.*NaN"),
    ],
)
def test_bad_input_is_refused_by_name(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_large_finite_float32_is_not_taken_for_infinite():
    X = np.full((4, 2), 3e38, dtype=np.float32)  # the sum overflows
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(kernel_matrix(X), np.ones((4, 4)))
