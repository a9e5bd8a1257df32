"""The Laplacian operator: adjoint, spectrum, inverse, kinds of arrays."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.graphs import (
    edge_index,
    laplacian,
    laplacian_adjoint,
    laplacian_gram,
    laplacian_gram_solve,
)


def weights(p, batch=(), seed=0):
    return np.random.default_rng(seed).standard_normal((*batch, p * (p - 1) // 2))


def gram_matrix(p):
    return np.array([laplacian_gram(e) for e in np.eye(p * (p - 1) // 2)])


def test_edges_are_numbered_as_in_the_paper():
    # k = i - j + (j - 1)(2 p - j) / 2 for i > j, all from 1; ours are (j, i) from 0.
    p = 7
    j, i = edge_index(p) + 1
    k = i - j + (j - 1) * (2 * p - j) // 2
    assert np.array_equal(k, np.arange(1, p * (p - 1) // 2 + 1))


@given(p=st.integers(2, 9), seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_adjoint_gram_and_inverse(p, seed):
    rng = np.random.default_rng(seed)
    w, v = rng.standard_normal((2, p * (p - 1) // 2))
    Y = rng.standard_normal((p, p))
    L = laplacian(w)
    assert np.allclose(L.sum(0), 0) and np.array_equal(L, L.T)
    assert np.isclose(np.vdot(L, Y), w @ laplacian_adjoint(Y))
    assert np.allclose(laplacian_adjoint(L), laplacian_gram(w))
    assert np.allclose(laplacian_gram(laplacian_gram_solve(v)), v)


@pytest.mark.parametrize("p", [4, 7, 12])
def test_spectrum_of_the_gram_matrix(p, record_property):
    values = np.linalg.eigvalsh(gram_matrix(p))
    m = p * (p - 1) // 2
    expected = np.r_[np.full(m - p, 2.0), np.full(p - 1, p), 2.0 * p]
    error = abs(values - expected).max()
    record_property("value", float(error))
    record_property("trials", m)
    assert error < 1e-10


def test_norm_of_the_operator_is_the_root_of_2p():
    p = 9
    columns = np.array([laplacian(e).ravel() for e in np.eye(p * (p - 1) // 2)]).T
    assert np.isclose(np.linalg.norm(columns, 2), np.sqrt(2 * p))


def test_kind_dtype_device_and_batch(backend):
    for dtype in ("float32", "float64"):
        w = backend.asarray(weights(5, (2, 3)), dtype)
        for function in (laplacian, laplacian_gram, laplacian_gram_solve):
            out = function(w)
            assert backend.owns(out, dtype)
            alone = function(w[1, 2])
            assert np.allclose(backend.numpy(out)[1, 2], backend.numpy(alone))
        Y = laplacian(w)
        assert backend.owns(laplacian_adjoint(Y), dtype)
        assert tuple(laplacian_adjoint(Y).shape) == (2, 3, 10)


def test_torch_equals_numpy_and_has_the_adjoint_as_gradient():
    w = weights(6, (4,))
    t = torch.tensor(w, requires_grad=True)
    assert np.allclose(laplacian(t).detach(), laplacian(w))
    Y = np.random.default_rng(1).standard_normal((4, 6, 6))
    (laplacian(t) * torch.tensor(Y)).sum().backward()
    assert np.allclose(t.grad, laplacian_adjoint(Y))
    for function in (laplacian_gram, laplacian_gram_solve):
        assert np.allclose(function(torch.tensor(w)), function(w))


def test_refusals():
    with pytest.raises(ValueError, match=r"w must hold p \(p - 1\) / 2"):
        laplacian(np.ones(4))
    with pytest.raises(ValueError, match="w must hold finite"):
        laplacian([1.0, np.nan, 0.0])
    with pytest.raises(ValueError, match="two equal last axes"):
        laplacian_adjoint(np.ones((3, 4)))
    with pytest.raises(ValueError, match="p must be an integer >= 2"):
        edge_index(1)
    with pytest.raises(TypeError, match="p must be an integer"):
        edge_index(3.0)
    with pytest.raises(ValueError, match="read-only"):
        edge_index(4)[0, 0] = 1
