"""Hadamard matrices and the fast transform: closed forms, layouts and contracts."""

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.features import fwht, hadamard, hadamard_matrix, pad_pow2


def points(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# Matrices


@pytest.mark.parametrize("n", [1, 2, 4, 8, 12, 16, 20, 24, 32, 44, 48, 60, 128, 140])
def test_rows_are_orthogonal_signs(n):
    H = hadamard_matrix(n)
    assert H.shape == (n, n) and H.dtype == np.int64
    assert np.all(np.abs(H) == 1)
    np.testing.assert_array_equal(H @ H.T, n * np.eye(n))
    # The bound of Hadamard: no matrix with entries in [-1, 1] has a larger one.
    logdet = np.linalg.slogdet(H.astype(float))[1]
    assert logdet == pytest.approx(n / 2 * np.log(n), abs=1e-9)


@pytest.mark.parametrize("n", [1, 2, 16, 256])
def test_powers_of_two_are_sylvesters(n):
    H = hadamard_matrix(n)
    np.testing.assert_array_equal(H, scipy.linalg.hadamard(n))
    i = np.arange(n)
    ones = np.array([bin(v).count("1") for v in range(n)])
    np.testing.assert_array_equal(H, (-1) ** ones[i[:, None] & i])


def test_there_are_orders_that_are_no_power_of_two():
    with pytest.raises(ValueError):
        scipy.linalg.hadamard(12)
    H = hadamard_matrix(12)
    np.testing.assert_array_equal(H @ H.T, 12 * np.eye(12))
    # Paley's is the identity plus a skew matrix.
    np.testing.assert_array_equal(H + H.T, 2 * np.eye(12))


@pytest.mark.parametrize("n", [3, 5, 6, 10, 14, 28, 36, 52, 92])
def test_other_orders_are_refused_by_name(n):
    with pytest.raises(ValueError, match=f"n must be a power of two.*{n}"):
        hadamard_matrix(n)


@pytest.mark.parametrize(
    "n, error", [(0, ValueError), (-4, ValueError), (4.0, TypeError), (True, TypeError)]
)
def test_bad_orders_are_refused_by_name(n, error):
    with pytest.raises(error, match="n must be"):
        hadamard_matrix(n)


# The transform


@pytest.mark.parametrize("bits", range(13))
def test_equals_the_product_with_the_matrix(bits, backend):
    p = 2**bits
    X = points(5, p)
    expected = X @ scipy.linalg.hadamard(p).astype(float)
    for dtype, eps in (("float64", 2.3e-16), ("float32", 1.2e-7)):
        given_X = backend.asarray(X, dtype)
        Y = fwht(given_X)
        assert backend.owns(Y, dtype) and tuple(Y.shape) == (5, p)
        tolerance = 20 * eps * np.sqrt(p) * max(1, bits)
        np.testing.assert_allclose(backend.numpy(Y), expected, rtol=0, atol=tolerance)
        # Not in place, and not a view of what came in.
        np.testing.assert_array_equal(backend.numpy(given_X), X.astype(dtype))
        assert not np.shares_memory(backend.numpy(Y), backend.numpy(given_X))


def test_of_the_unit_vectors_is_the_matrix(backend):
    for p in (1, 2, 32, 64, 512):
        H = backend.numpy(fwht(backend.asarray(np.eye(p))))
        np.testing.assert_array_equal(H, hadamard_matrix(p))
        np.testing.assert_array_equal(H @ H.T, p * np.eye(p))


def test_normalised_it_is_an_isometry_and_an_involution(backend):
    X = backend.asarray(points(7, 3, 256))
    Y = fwht(X, normalize=True)
    np.testing.assert_allclose(
        np.linalg.norm(backend.numpy(Y), axis=-1),
        np.linalg.norm(backend.numpy(X), axis=-1),
        rtol=1e-13,
    )
    np.testing.assert_allclose(
        backend.numpy(fwht(Y, normalize=True)), backend.numpy(X), atol=1e-13
    )


@given(
    before=st.lists(st.integers(1, 4), max_size=2),
    bits=st.integers(0, 10),
    after=st.lists(st.integers(1, 5), max_size=2),
    tile=st.sampled_from([1, 50, 3000, 2**18]),
    rows=st.sampled_from([1, 16, 128]),
    kind=st.sampled_from(["numpy", "torch"]),
    order=st.sampled_from(["C", "F", "backwards", "every other"]),
    normalize=st.booleans(),
    negative=st.booleans(),
)
@settings(max_examples=120, deadline=None)
def test_any_axis_layout_and_tile(
    before, bits, after, tile, rows, kind, order, normalize, negative
):
    shape, p = (*before, 2**bits, *after), 2**bits
    X = points(*shape)
    if order == "F":
        X = np.asfortranarray(X)
    elif order == "every other":
        X = np.repeat(X, 2, axis=-1)[..., ::2]
    elif order == "backwards" and kind == "numpy":
        X = X[..., ::-1]
    X.flags.writeable = kind == "torch"
    axis = len(before)
    H = scipy.linalg.hadamard(p) / (np.sqrt(p) if normalize else 1)
    expected = np.moveaxis(np.tensordot(H, X, (1, axis)), 0, axis)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hadamard, "TILE", tile)
        patch.setattr(hadamard, "ROWS", rows)
        Y = fwht(
            X if kind == "numpy" else torch.from_numpy(X),
            axis=axis - len(shape) if negative else axis,
            normalize=normalize,
        )
    np.testing.assert_allclose(np.asarray(Y), expected, atol=1e-11)


@given(p=st.integers(0, 24), device=st.sampled_from(["cpu", "cuda"]))
def test_factors_multiply_to_the_order(p, device):
    orders = hadamard.factors(2**p, device)
    assert np.prod(orders) == 2**p
    assert max(orders) <= (32 if device == "cpu" else 64)
    # Few passes: four bits a factor on average, six on a GPU.
    assert len(orders) <= max(1, -(-p // (4 if device == "cpu" else 6)))


def test_integers_lists_and_empty_arrays(backend):
    Y = fwht(backend.asarray([[1, 0, 1, 0]], "int64"))
    assert backend.owns(Y, "float64")
    np.testing.assert_array_equal(backend.numpy(Y), [[2, 2, 0, 0]])
    assert fwht([1, 1]).tolist() == [2.0, 0.0]
    for shape, axis in (((0, 4), 1), ((4, 0), 0), ((3, 8, 0), 1)):
        Y = fwht(backend.asarray(np.empty(shape), "float32"), axis=axis)
        assert backend.owns(Y, "float32") and tuple(Y.shape) == shape


@pytest.mark.parametrize("axis", [0, 1])
def test_gradients(axis, device):
    X = torch.tensor(points(4, 32), device=device, requires_grad=True)

    def call(X):
        return fwht(X, axis=axis, normalize=True)

    assert torch.autograd.gradcheck(
        call, (X,), check_forward_ad=True, check_batched_grad=True
    )
    assert torch.autograd.gradgradcheck(call, (X,))
    # With a graph and without one, and the adjoint is the transform itself.
    torch.testing.assert_close(call(X), call(X.detach()), rtol=0, atol=1e-13)
    V = torch.tensor(points(4, 32, seed=1), device=device)
    (gradient,) = torch.autograd.grad(call(X), X, V)
    torch.testing.assert_close(gradient, call(V), rtol=0, atol=1e-13)


def test_tangents_and_inference_mode(device):
    X, V = (torch.tensor(points(3, 64, seed=s), device=device) for s in (0, 1))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(X, V)
        tangent = torch.autograd.forward_ad.unpack_dual(fwht(dual)).tangent
    torch.testing.assert_close(tangent, fwht(V))
    hadamard._device_matrix.cache_clear()
    with torch.inference_mode():
        X = torch.tensor(points(3, 64), device=device)
        hadamard.multiply_tensor(X[:, :, None])
    X = torch.tensor(points(3, 64), device=device, requires_grad=True)
    fwht(X).sum().backward()
    assert X.grad is not None


def test_finite_entries_may_overflow_but_nothing_else_is_infinite(backend):
    X = np.full((3, 64), 1e38)
    with np.errstate(over="ignore"):
        Y = backend.numpy(fwht(backend.asarray(X, "float32")))
    assert np.all(np.isinf(Y[:, 0])) and np.all(Y[:, 1] == 0)
    for value in (np.nan, np.inf, -np.inf):
        for axis in (0, 1):
            X = points(8, 64)
            X[5, 33] = value
            with pytest.raises(ValueError, match="X must hold finite numbers"):
                fwht(backend.asarray(X), axis=axis)
    X = points(1, 64)
    X[0, 3], X[0, 7] = np.inf, -np.inf
    with pytest.raises(ValueError, match="X must hold finite numbers"):
        fwht(backend.asarray(X))


@pytest.mark.parametrize(
    "shape, options, error, words",
    [
        ((2, 12), {}, ValueError, "X must have a power of two.*axis 1.*12"),
        ((3, 4), {"axis": 0}, ValueError, "X must have a power of two.*axis 0.*3"),
        ((4, 0), {}, ValueError, "X must have a power of two.*axis 1.*0"),
        ((2, 4), {"axis": 2}, ValueError, "axis must be below 2.*2"),
        ((2, 4), {"axis": -3}, ValueError, "axis.*>= -2.*-3"),
        ((2, 4), {"axis": 1.0}, TypeError, "axis.*1.0"),
        ((2, 4), {"normalize": 1}, TypeError, "normalize must be a bool.*1"),
        ((), {}, ValueError, "axis"),
    ],
)
def test_bad_input_is_refused_by_name(shape, options, error, words, backend):
    with pytest.raises(error, match=words):
        fwht(backend.asarray(np.ones(shape)), **options)


def test_other_dtypes_are_refused(backend):
    for call in (fwht, pad_pow2):
        with pytest.raises(TypeError, match="X must be float32.*complex64"):
            call(backend.asarray(np.ones((2, 4)), "complex64"))
        with pytest.raises(TypeError, match="X must be float32.*float16"):
            call(backend.asarray(np.ones((2, 4)), "float16"))


# Padding


@pytest.mark.parametrize("d, p", [(1, 1), (2, 2), (3, 4), (5, 8), (8, 8), (784, 1024)])
def test_padding_appends_zeros(d, p, backend):
    for shape in ((d,), (4, d), (2, 3, d)):
        for dtype in ("float32", "float64"):
            X = backend.asarray(points(*shape), dtype)
            Y = pad_pow2(X)
            assert backend.owns(Y, dtype) and tuple(Y.shape) == (*shape[:-1], p)
            assert (Y is X) == (d == p)
            np.testing.assert_array_equal(backend.numpy(Y)[..., :d], backend.numpy(X))
            assert not backend.numpy(Y)[..., d:].any()


def test_padding_refuses_by_name_and_has_a_gradient(backend):
    with pytest.raises(ValueError, match="X must have a last axis"):
        pad_pow2(backend.asarray(np.empty((3, 0))))
    with pytest.raises(ValueError, match="X must be 1-D"):
        pad_pow2(backend.asarray(1.0))
    with pytest.raises(ValueError, match="X must hold finite"):
        pad_pow2(backend.asarray([np.nan]))
    X = torch.tensor(points(2, 5), requires_grad=True)
    assert torch.autograd.gradcheck(lambda X: fwht(pad_pow2(X)), (X,))
