"""Lanczos' method, its certificates, and products with Hessians."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator

from lib.acceleration import (
    hvp_operator,
    lanczos_iterations,
    lanczos_min_eig,
)
from lib.acceleration.curvature import lanczos


def matrix(spectrum, seed=0):
    spectrum = np.asarray(spectrum, float)
    shape = (len(spectrum),) * 2
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal(shape))[0]
    return (Q * spectrum) @ Q.T


# ---- the number of products ---------------------------------------------------------


@pytest.mark.parametrize("d", [10, 1000])
@pytest.mark.parametrize("ratio", [0.5, 3.0, 100.0])
@pytest.mark.parametrize("delta", [1e-6, 0.1])
def test_iterations_make_the_bound_on_the_failure_small(d, ratio, delta):
    """The count is the first at which 1.648 sqrt(d) exp(-sqrt(e)(2k-1)) <= delta."""
    k = lanczos_iterations(d, ratio, 1.0, delta)

    def failure(k):
        # 2.75 is a little more than 1.648^2.
        return np.sqrt(2.75 * d) * np.exp(-0.5 * np.sqrt(1 / ratio) * (2 * k - 1))

    assert k == d or failure(k) <= delta * (1 + 1e-9)
    assert k == 1 or failure(k - 1) > delta


def test_the_certificate_is_right_as_often_as_promised(record_property):
    """A spectrum with no gap, and the errors of 400 random starts."""
    d, L1, alpha, delta = 300, 1.0, 0.05, 0.2
    spectrum = np.linspace(-0.4, 1.0, d)
    k = lanczos_iterations(d, L1, alpha, delta)
    assert k < d / 3
    misses = 0
    for seed in range(400):
        value, _, _ = lanczos_min_eig(
            lambda v: spectrum * v, d, L1=L1, alpha=alpha, delta=delta, seed=seed
        )
        misses += value - spectrum[0] > alpha / 2
    # Four standard deviations above the promise.
    excess = misses / 400 - delta - 4 * np.sqrt(delta * (1 - delta) / 400)
    record_property("value", float(excess))
    record_property("trials", 400)
    assert excess <= 0


# ---- the method ---------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 14), st.integers(0, 10**6))
def test_the_value_is_the_least_quotient_over_the_krylov_space(d, k, seed):
    rng = np.random.default_rng(seed)
    H = matrix(rng.uniform(-2, 2, d), seed)
    value, v, products = lanczos_min_eig(lambda v: H @ v, d, num_iters=k, seed=seed)
    assert products <= min(k, d)
    assert np.linalg.norm(v) == pytest.approx(1)
    assert v @ H @ v == pytest.approx(value, abs=1e-8)
    q = np.random.default_rng(seed).standard_normal(d)
    krylov = np.linalg.qr(
        np.stack([np.linalg.matrix_power(H, i) @ q for i in range(products)], 1)
    )[0]
    if products <= 5:
        least = np.linalg.eigvalsh(krylov.T @ H @ krylov)[0]
        assert value == pytest.approx(least, abs=1e-6)
    smallest = np.linalg.eigvalsh(H)[0]
    assert value >= smallest - 1e-9
    if k >= d:
        assert value == pytest.approx(smallest, abs=1e-8)


@pytest.mark.parametrize(
    ("spectrum", "products"),
    [
        ([2.0], 1),
        ([1.0, 1.0, 1.0, 1.0], 1),
        ([-1.0, -1.0, 3.0, 3.0, 3.0], 2),
        ([0.0, 0.0, 0.0], 1),
        ([-1.0] * 30 + [0.5] * 30 + [7.0], 3),
    ],
)
def test_it_breaks_off_when_the_space_is_invariant(spectrum, products):
    """The number of products is that of distinct eigenvalues; the value is exact."""
    H = matrix(spectrum)
    d = len(spectrum)
    value, _, made = lanczos_min_eig(lambda v: H @ v, d, num_iters=d)
    assert made == products
    assert value == pytest.approx(min(spectrum), abs=1e-9)
    assert lanczos(lambda v: H @ v, d, d, np.random.default_rng(0), np.empty(0))[3]


def test_vectors_stay_orthogonal_over_the_whole_run():
    """Without reorthogonalisation copies of the top eigenvalue would appear."""
    d = 200
    spectrum = np.geomspace(1e-6, 1e6, d) * np.where(np.arange(d) == 40, -1, 1)
    value, v, products = lanczos_min_eig(lambda v: spectrum * v, d, num_iters=d)
    assert products == d
    assert value == pytest.approx(spectrum[40], abs=1e-8)
    assert abs(v[40]) == pytest.approx(1, abs=1e-6)


def test_it_stops_early_at_a_vector_that_proves_enough():
    H = matrix(np.linspace(-1, 1, 100))
    full = lanczos_min_eig(lambda v: H @ v, 100, num_iters=60)
    value, v, products = lanczos_min_eig(
        lambda v: H @ v, 100, num_iters=60, stop_below=-0.5
    )
    assert full[0] < value <= -0.5 and products < full[2] == 60
    assert v @ H @ v == pytest.approx(value)
    shorter = lanczos_min_eig(lambda v: H @ v, 100, num_iters=products - 1)
    assert shorter[0] > -0.5


@pytest.mark.parametrize("seed", range(20))
def test_coefficients_certify_without_any_constant(seed):
    """The bound of the coefficients never lies above the smallest eigenvalue."""
    rng = np.random.default_rng(seed)
    spectrum = rng.uniform(-0.1, 1.0, 80)
    H = matrix(spectrum, seed)
    alpha = 0.3
    *_, products = lanczos_min_eig(
        lambda v: H @ v, 80, alpha=alpha, delta=0.01, seed=seed
    )
    assert products < 60
    # With a spectrum that reaches below -alpha it has to find that out.
    value, *_ = lanczos_min_eig(
        lambda v: H @ v - 0.35 * v, 80, alpha=alpha, delta=0.01, seed=seed
    )
    assert value <= -alpha or min(spectrum) - 0.35 >= -alpha


def test_the_same_numbers_for_every_kind(backend):
    spectrum = np.linspace(-1, 1, 30)
    diagonal = backend.asarray(spectrum)
    value, v, products = lanczos_min_eig(
        lambda v: diagonal * v, 30, num_iters=12, seed=3, like=diagonal
    )
    assert backend.owns(v, "float64")
    reference = lanczos_min_eig(lambda v: spectrum * v, 30, num_iters=12, seed=3)
    assert value == pytest.approx(reference[0], abs=1e-12)
    np.testing.assert_allclose(backend.numpy(v), reference[1], atol=1e-9)


def test_float32_stays_float32(backend):
    diagonal = backend.asarray(np.linspace(-1, 1, 30), "float32")
    value, v, _ = lanczos_min_eig(
        lambda v: diagonal * v, 30, num_iters=30, like=diagonal
    )
    assert backend.owns(v, "float32")
    assert value == pytest.approx(-1, abs=1e-5)


def test_a_linear_operator_of_scipy_is_welcome():
    H = matrix([3.0, -2.0, 1.0])
    value, *_ = lanczos_min_eig(aslinearoperator(H), 3, num_iters=3)
    assert value == pytest.approx(-2)


@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        ({}, ValueError, "num_iters must be given"),
        ({"L1": 1.0}, ValueError, "num_iters must be given"),
        ({"num_iters": 0}, ValueError, "num_iters must be an integer >= 1"),
        ({"num_iters": 2.0}, TypeError, "num_iters must be an integer"),
        ({"L1": -1.0, "alpha": 1.0}, ValueError, "L1 must be"),
        ({"L1": 1.0, "alpha": 0.0}, ValueError, "alpha must be"),
        ({"L1": 1.0, "alpha": 0.1, "delta": 1.0}, ValueError, "delta must be"),
        ({"num_iters": 2, "stop_below": "x"}, TypeError, "stop_below must be"),
        ({"num_iters": 2, "seed": -1}, ValueError, "random_state must be"),
    ],
)
def test_bad_arguments_are_named(keywords, error, match):
    with pytest.raises(error, match=match):
        lanczos_min_eig(lambda v: v, 3, **keywords)
    with pytest.raises(TypeError, match="matvec must be"):
        lanczos_min_eig(3, 3, num_iters=2)
    with pytest.raises(ValueError, match="finite"):
        lanczos_min_eig(lambda v: v * np.nan, 3, num_iters=2)


# ---- products with Hessians ---------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_product_is_that_of_the_full_hessian(device, dtype):
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(5, 6, generator=generator, dtype=dtype).to(device)
    x = torch.randn(2, 3, generator=generator, dtype=dtype).to(device)

    def fun(x):
        return (W @ x.reshape(-1)).tanh().square().sum()

    product = hvp_operator(fun, x)
    H = torch.autograd.functional.hessian(fun, x).reshape(6, 6)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-12
    for _ in range(3):
        v = torch.randn(2, 3, generator=generator, dtype=dtype).to(device)
        got = product(v)
        assert got.shape == x.shape and got.dtype == dtype and got.device == x.device
        expected = (H @ v.reshape(-1)).reshape(2, 3)
        assert torch.allclose(got, expected, atol=tolerance, rtol=tolerance)
    assert torch.allclose(product.value, fun(x)) and not x.requires_grad
    assert torch.allclose(
        product.gradient, torch.autograd.functional.jacobian(fun, x), atol=tolerance
    )


def test_the_function_is_called_once_for_all_products():
    calls = []

    def fun(x):
        calls.append(1)
        return (x**3).sum()

    product = hvp_operator(fun, torch.ones(3))
    for _ in range(5):
        product(torch.ones(3))
    assert len(calls) == 1


def test_what_cannot_be_differentiated_is_refused():
    with pytest.raises(TypeError, match="x must be a torch tensor"):
        hvp_operator(lambda x: x.sum(), np.ones(2))
    with pytest.raises(ValueError, match="scalar tensor that depends on x"):
        hvp_operator(lambda x: x, torch.ones(2))
    with pytest.raises(ValueError, match="x must hold finite"):
        hvp_operator(lambda x: x.sum(), torch.tensor([np.nan]))
