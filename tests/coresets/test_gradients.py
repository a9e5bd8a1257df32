"""Factored gradients against autograd and against themselves made dense."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

import lib.coresets
from lib.coresets import (
    MLP,
    Gradients,
    LeNet,
    ResNet18,
    all_layer_gradients,
    last_layer_gradients,
)


def samples(n, C=4, D=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, C)), rng.integers(0, C, n), rng.random((n, D))


def per_sample(model, X, y):
    # One backward pass a sample; weights and bias of an output stand together.
    rows = []
    for x, label in zip(X, y, strict=True):
        loss = cross_entropy(model(x[None]), label[None])
        slopes = dict(
            zip(
                [name for name, _ in model.named_parameters()],
                torch.autograd.grad(loss, list(model.parameters())),
                strict=True,
            )
        )
        row = []
        for name, slope in slopes.items():
            if not name.endswith("weight"):
                continue
            slope = slope.flatten(1)
            bias = slopes.get(name.removesuffix("weight") + "bias")
            if bias is not None:
                slope = torch.cat([slope, bias[:, None]], 1)
            row.append(slope.flatten())
        rows.append(torch.cat(row))
    return torch.stack(rows)


def test_last_layer_equals_autograd(backend):
    z, y, h = samples(6)
    W = torch.tensor(np.random.default_rng(1).standard_normal((4, 6)))
    H = torch.tensor(np.column_stack([h, np.ones(6)]))
    W.requires_grad_()
    Z = H @ W.T
    labels = torch.tensor(y)
    exact = torch.stack(
        [
            torch.autograd.grad(
                cross_entropy(Z[i : i + 1], labels[i : i + 1]), W, retain_graph=True
            )[0].flatten()
            for i in range(6)
        ]
    )
    G = last_layer_gradients(
        backend.asarray(Z.detach().numpy()),
        backend.asarray(y, "int64"),
        backend.asarray(h),
    )
    assert backend.owns(G.dense(), "float64")
    np.testing.assert_allclose(backend.numpy(G.dense()), exact, atol=1e-12)


@pytest.mark.parametrize("features", [True, False])
def test_factors_answer_as_the_dense_gradients_do(backend, features):
    z, y, h = samples(7)
    G = last_layer_gradients(
        backend.asarray(z),
        backend.asarray(y, "int64"),
        backend.asarray(h) if features else None,
    )
    other = G[3:]
    full = backend.numpy(G.dense())
    rng = np.random.default_rng(2)
    w, V = rng.standard_normal(7), rng.standard_normal(G.dim)
    assert full.shape == (7, G.dim) == (7, 24 if features else 4)
    close = {"atol": 1e-12}
    np.testing.assert_allclose(backend.numpy(G.gram()), full @ full.T, **close)
    np.testing.assert_allclose(backend.numpy(G.gram(other)), full @ full[3:].T, **close)
    np.testing.assert_allclose(
        backend.numpy(G.sum(backend.asarray(w))), w @ full, **close
    )
    np.testing.assert_allclose(backend.numpy(G.sum()), full.sum(0), **close)
    np.testing.assert_allclose(
        backend.numpy(G.dot(backend.asarray(V))), full @ V, **close
    )
    np.testing.assert_allclose(backend.numpy(G.sqnorm()), (full**2).sum(1), **close)
    mask = np.array([True, False] * 3 + [True])
    for index in (mask, [5, 1], slice(2, 5), np.array([0])):
        np.testing.assert_array_equal(backend.numpy(G[index].dense()), full[index])
    assert len(G[4]) == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 5))
def test_same_class_and_positive_features_make_no_obtuse_angle(seed, C, D):
    rng = np.random.default_rng(seed)
    G = last_layer_gradients(
        5 * rng.standard_normal((12, C)), np.full(12, C - 1), rng.random((12, D))
    )
    assert G.gram().min() >= 0


def test_gradient_of_a_sure_network_keeps_its_digits(backend):
    # p - 1 would be zero in float32, and its error relative to p in float64 large.
    z = backend.asarray([[0.0, -30.0, -31.0]], "float32")
    G = last_layer_gradients(z, backend.asarray([0], "int64"))
    g = backend.numpy(G.dense())[0].astype(float)
    assert g[0] == pytest.approx(-(np.exp(-30) + np.exp(-31)), rel=1e-5)


@pytest.mark.parametrize("name", ["mlp", "lenet", "strided"])
def test_all_layers_equal_autograd(name, device):
    rng = np.random.default_rng(0)
    shape = (1, 28, 28) if name == "lenet" else (2, 6, 6) if name == "strided" else (7,)
    model = {
        "mlp": lambda: MLP(7, (5, 4), 3, generator=0),
        "lenet": lambda: LeNet(3, generator=0),
        # What follows a layer works in place, and one layer has no bias.
        "strided": lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Flatten(),
            nn.Linear(27, 3),
        ).eval(),
    }[name]()
    model = model.double().to(device)
    X = torch.tensor(rng.standard_normal((5, *shape)), device=device)
    y = torch.tensor(rng.integers(0, 3, 5), device=device)
    G = all_layer_gradients(model, X, y, chunk=2)
    exact = per_sample(model, X, y)
    assert G.dim == exact.shape[1] == sum(p.numel() for p in model.parameters())
    np.testing.assert_allclose(G.dense().cpu(), exact.cpu(), atol=1e-12)
    np.testing.assert_allclose(
        G.gram().cpu(), (exact @ exact.T).cpu(), atol=1e-10, rtol=1e-10
    )
    V = torch.tensor(rng.standard_normal(G.dim), device=device)
    np.testing.assert_allclose(G.dot(V).cpu(), (exact @ V).cpu(), atol=1e-10)
    np.testing.assert_allclose(G.sum().cpu(), exact.sum(0).cpu(), atol=1e-10)
    np.testing.assert_allclose(G.logits.cpu(), model(X).detach().cpu())
    # The last layer alone is a part of all of them.
    if name != "strided":
        last = last_layer_gradients(model(X), y, model.features(X)).dense()
        np.testing.assert_allclose(
            G.dense()[:, -last.shape[1] :].cpu(), last.cpu(), atol=1e-12
        )


def test_all_layers_leave_the_model_and_the_kind_alone():
    model = MLP(3, (4,), 2, generator=0)
    for p in model.parameters():
        p.requires_grad_(False)
    X, y = np.random.default_rng(0).standard_normal((5, 3)), np.array([0, 1, 1, 0, 1])
    frozen = all_layer_gradients(model, X, y)
    assert isinstance(frozen.dense(), np.ndarray)
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())
    for p in model.parameters():
        p.requires_grad_()
    free = all_layer_gradients(model, X, y)
    np.testing.assert_array_equal(frozen.dense(), free.dense())


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.head(x))


@pytest.mark.parametrize(
    ("model", "word"),
    [
        (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), "evaluation mode"),
        (nn.Sequential(nn.Linear(3, 3), nn.Dropout()), "evaluation mode"),
        (nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)), "LayerNorm"),
        (ResNet18(generator=0).eval(), "BatchNorm2d"),
        (Twice(), "once"),
        (nn.Sequential(nn.ReLU()), "none"),
        (nn.Conv2d(2, 2, 3, groups=2), "group"),
    ],
)
def test_networks_it_cannot_treat_are_named(model, word):
    with pytest.raises(ValueError, match=word):
        all_layer_gradients(model, torch.zeros(4, 3), torch.zeros(4, dtype=int))


def test_a_gram_matrix_needs_no_dense_gradients():
    # 3000 x 10 x 513 numbers would be 62 MB; the Gram matrix itself is 36.
    z, y, h = samples(3000, 10, 512)
    G = last_layer_gradients(z.astype("f"), y, h.astype("f"))
    tracemalloc.start()
    G.gram()
    G.sum()
    G.dot(np.ones(G.dim))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 36e6 + 20e6


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda z, y, h: last_layer_gradients(z, y[:-1], h), ValueError),
        (lambda z, y, h: last_layer_gradients(z, y + 1, h), ValueError),
        (lambda z, y, h: last_layer_gradients(z, y.astype(float), h), TypeError),
        (lambda z, y, h: last_layer_gradients(z * np.nan, y, h), ValueError),
        (lambda z, y, h: last_layer_gradients(z, y, h * np.inf), ValueError),
        (lambda z, y, h: last_layer_gradients(z, y, h[:-1]), ValueError),
        (lambda z, y, h: last_layer_gradients(z, y, torch.tensor(h)), TypeError),
        (lambda z, y, h: last_layer_gradients(z[:0], y[:0], h[:0]), ValueError),
        (lambda z, y, h: Gradients([]), ValueError),
        (lambda z, y, h: Gradients([(z, h[:-1])]), ValueError),
        (lambda z, y, h: Gradients([(z, h)]).gram(Gradients([(h, z)])), ValueError),
        (lambda z, y, h: Gradients([(z, h)]).gram(z), TypeError),
        (lambda z, y, h: Gradients([(z, h)]).dot(np.ones(3)), ValueError),
        (lambda z, y, h: Gradients([(z, h)]).sum(np.ones(3)), ValueError),
        (lambda z, y, h: Gradients([(z, h)])[1.5], TypeError),
        (lambda z, y, h: all_layer_gradients("net", h, y), TypeError),
        (lambda z, y, h: all_layer_gradients(MLP(5, ()), h, y, chunk=0), ValueError),
    ],
)
def test_bad_arguments_are_refused(call, error):
    z, y, h = samples(6)
    y[0], y[1] = 0, 3
    with pytest.raises(error):
        call(z, y, h)


def test_all_public_names_are_there():
    for name in lib.coresets.__all__:
        assert getattr(getattr(lib.coresets, name), "__name__", name) == name
    # The function, though it bears the name of its module.
    assert callable(lib.coresets.facility_location)
