"""Selectors: what they minimise, their guarantees, weights and degenerate inputs."""

import subprocess
import sys
import tracemalloc
import warnings
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.coresets import (
    Coreset,
    Gradients,
    craig,
    facility_cost,
    glister,
    glister_weighted,
    grad_match,
    k_center_greedy,
    last_layer_gradients,
    matching_error,
    omp_nonneg,
    random_coreset,
    selectors,
)
from lib.coresets.selectors import _budgets, _HeldOut
from lib.data import load


def network(n, C=3, D=6, seed=0, scale=1.0):
    """Last-layer gradients of a made-up network with rectified features."""
    rng = np.random.default_rng(seed)
    h = np.maximum(rng.standard_normal((n, D)), 0)
    y = np.arange(n) % C
    z = scale * (h @ rng.standard_normal((D, C)) + rng.standard_normal((n, C)))
    return last_layer_gradients(z, y, h), y


@pytest.fixture(scope="module")
def digits():
    """Digits at softmax regression: at zero, the case of the report's linear model."""
    X, y = load("digits", flatten=True)
    X = X.astype(float)
    return last_layer_gradients(np.zeros((len(X), 10)), y, X), y


def distances(g):
    return np.linalg.norm(g[:, None] - g, axis=2)


# CRAIG


@pytest.mark.parametrize("seed", range(5))
def test_craig_attains_its_guarantee_on_tiny_problems(seed):
    G, _ = network(11, seed=seed)
    D = distances(G.dense())
    S = D.max() - D
    best = max(S[:, list(c)].max(1).sum() for c in combinations(range(11), 3))
    core = craig(G, 3)
    assert S[:, core.indices].max(1).sum() >= (1 - 1 / np.e) * best
    assert core.history.sum() == pytest.approx(S[:, core.indices].max(1).sum())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(6, 40), st.booleans())
def test_craig_weights_count_the_nearest_and_bound_the_error(seed, n, per_class):
    G, y = network(n, seed=seed)
    k = 3 + seed % (n - 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        core = craig(G, k, y=y if per_class else None)
    D = distances(G.dense())
    if per_class:
        D[y[:, None] != y] = np.inf
    near = D[:, core.indices]
    # The counts are those of some assignment to a nearest one; without ties it is the
    # only one.
    assert core.weights.sum() == n
    assert (core.weights >= 1).all()
    gaps = np.sort(near, axis=1)
    if k == 1 or (gaps[:, 1] - gaps[:, 0]).min() > 1e-9:
        np.testing.assert_array_equal(
            core.weights, np.bincount(near.argmin(1), minlength=k)
        )
    cost = near.min(axis=1).sum()
    assert matching_error(G, core) <= cost + 1e-7
    # Regression: a matching with the same indices does at least as well.
    g = G.dense()
    w = omp_nonneg(g[core.indices] @ g[core.indices].T, g[core.indices] @ g.sum(0), k)
    again = matching_error(G, (core.indices[w[0]], w[1])) if len(w[0]) else np.inf
    assert again <= matching_error(G, core) * (1 + 1e-6) + 1e-5


def test_craig_with_everything_is_exact():
    G, y = network(20)
    core = craig(G, 20, y=y)
    np.testing.assert_array_equal(core.weights, 1)
    assert matching_error(G, core) == pytest.approx(0, abs=1e-12)
    assert facility_cost(G, core) == 0
    assert core.n_effective == 20


def test_squares_of_distances():
    x = np.random.default_rng(0).standard_normal((40, 3))
    core = craig(x, 6, metric="sqeuclidean")
    D = distances(x) ** 2
    best, gains = np.full(40, D.max()), []
    for j in core.indices:
        gain = np.maximum(best[:, None] - D, 0).sum(0)
        assert gain[j] >= gain.max() - 1e-9
        gains.append(gain[j])
        best = np.minimum(best, D[:, j])
    np.testing.assert_allclose(core.history, gains)


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("method", ["stochastic", "partition"])
def test_other_methods_come_near_greedy(method, small, monkeypatch):
    G, y = network(600, seed=2)
    exact = craig(G, 60, y=y)
    if not small:  # no matrix of all pairs
        monkeypatch.setattr(selectors, "_LIMIT", 1000)
    core = craig(G, 60, y=y, method=method, random_state=0)
    again = craig(G, 60, y=y, method=method, random_state=0)
    np.testing.assert_array_equal(core.indices, again.indices)
    assert core.weights.sum() == 600
    assert len(set(core.indices.tolist())) == 60
    assert facility_cost(G, core) <= 1.05 * facility_cost(G, exact)
    chance = random_coreset(600, 60, random_state=0)
    assert facility_cost(G, core) < 0.95 * facility_cost(G, chance)
    if not small:
        with pytest.raises(ValueError, match="stochastic"):
            craig(G, 60)


# GRAD-MATCH


@pytest.mark.parametrize("y", [None, "labels"])
def test_grad_match_minimises_the_error_on_its_picks(y):
    G, labels = network(60)
    y = labels if y else None
    core = grad_match(G, 12, y=y, lam=0.3, fill="none")
    g = G.dense()
    assert core.weights.sum() == pytest.approx(60)
    assert (core.weights > 0).all()
    # Up to the scaling of weights: stationary within each class, with one factor.
    errors = []
    for group in [np.arange(60)] if y is None else [labels == c for c in range(3)]:
        members = np.arange(60)[group]
        mine = np.isin(core.indices, members)
        A = g[core.indices[mine]]
        b = g[members].sum(0)
        raw = np.linalg.solve(A @ A.T + 0.3 * np.eye(len(A)), A @ b)
        errors.append((core.weights[mine] / raw, np.sum((raw @ A - b) ** 2)))
    ratio = np.concatenate([r for r, _ in errors])
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-8)


def test_grad_match_history_is_the_error():
    G, _ = network(50, seed=3)
    core = grad_match(G, 10, lam=0.5)
    g = G.dense()
    A, b = g[core.indices], g.sum(0)
    raw = np.linalg.solve(A @ A.T + 0.5 * np.eye(10), A @ b)
    expected = np.sum((raw @ A - b) ** 2) + 0.5 * raw @ raw
    assert core.history[-1] == pytest.approx(expected)
    assert (np.diff(core.history) < 0).all()


def test_gram_and_residual_paths_agree(monkeypatch):
    G, y = network(90, C=3, D=30, seed=1)
    ways = []
    for limit in (10**9, 0):  # with and without a matrix of all pairs
        monkeypatch.setattr(selectors, "_LIMIT", limit)
        ways.append(grad_match(G, 30, y=y))
    np.testing.assert_array_equal(ways[0].indices, ways[1].indices)
    np.testing.assert_allclose(ways[0].weights, ways[1].weights, rtol=1e-6)


def test_ten_points_match_the_gradient_of_all_biases(digits):
    # Bias gradients of ten classes sum to zero, so they live in nine dimensions.
    _, y = digits
    rng = np.random.default_rng(0)
    G = last_layer_gradients(rng.standard_normal((len(y), 10)), y)
    with pytest.warns(RuntimeWarning, match="matching selected only"):
        core = grad_match(G, 100, lam=0.0, fill="none")
    assert core.n_effective == len(core.indices) <= 10
    b = G.sum()
    matched = G[core.indices].sum(core.weights)
    cosine = b @ matched / np.linalg.norm(b) / np.linalg.norm(matched)
    assert cosine == pytest.approx(1, abs=1e-9)


def test_relative_penalty_has_no_units():
    G, y = network(60)
    (P, H), scale = G.layers[0], 1e-3
    small = Gradients([(scale * P, H)])
    a, b = (grad_match(x, 9, y=y, lam=0.2, lam_relative=True) for x in (G, small))
    np.testing.assert_array_equal(a.indices, b.indices)
    np.testing.assert_allclose(a.weights, b.weights, rtol=1e-8)
    absolute = grad_match(small, 9, y=y, lam=0.2)
    assert not np.allclose(absolute.weights, a.weights, rtol=0.01)


def test_targets(backend):
    G, y = network(40)
    held_out, z = network(17, seed=5)
    held_out = Gradients(held_out.layers, y=z)
    vector = held_out.sum()
    a, b = (grad_match(G, 5, target=t) for t in (held_out, vector))
    np.testing.assert_array_equal(a.indices, b.indices)
    split = grad_match(G, 6, y=y, target=held_out)
    for c in range(3):
        alone = grad_match(
            G[y == c], 2, target=held_out[z == c], fill="none"
        ).indices
        mine = split.indices[y[split.indices] == c]
        np.testing.assert_array_equal(mine, np.flatnonzero(y == c)[alone])
    for bad in (vector, Gradients(held_out.layers)):
        with pytest.raises(ValueError, match="target"):
            grad_match(G, 6, y=y, target=bad)
    with pytest.raises(ValueError, match="target"):
        grad_match(G, 6, target=vector[:-1])


def test_tolerance_ends_a_selection():
    G, _ = network(60)
    core = grad_match(G, 10, lam=0.0)
    tol = core.history[4] * (1 + 1e-9)
    with pytest.warns(RuntimeWarning):
        short = grad_match(G, 10, lam=0.0, tol=tol, fill="none")
    assert len(short.history) == 5


def test_signed_weights_are_left_alone():
    G, _ = network(40)
    signed = grad_match(G, 8, nonneg=False, lam=0.0)
    assert matching_error(G, signed) ** 2 == pytest.approx(signed.history[-1])


# GLISTER


def moved_loss(G, val, picks, eta):
    # From scratch: the weights of the layer, moved, on the held-out features.
    P, H = G.layers[0]
    held_out = val.logits - eta * val.layers[0][1] @ (P[picks].T @ H[picks]).T
    shifted = held_out - held_out.max(1, keepdims=True)
    log = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return -log[np.arange(len(val)), val.y].mean()


def naive_glister(G, val, k, eta):
    # Every candidate's gain by a finite difference of the loss at the moved point.
    picks = []
    for _ in range(k):
        gains = np.full(len(G), -np.inf)
        for e in set(range(len(G))) - set(picks):
            step = 1e-4
            P, H = G.layers[0]
            move = (P[picks].T @ H[picks]) * eta
            ends = []
            for sign in (1, -1):
                W = move + sign * step * np.outer(P[e], H[e])
                Z = val.logits - val.layers[0][1] @ W.T
                top = Z.max(1)
                log = np.log(np.exp(Z - top[:, None]).sum(1)) + top
                ends.append((log - Z[np.arange(len(val)), val.y]).mean())
            gains[e] = ends[1] - ends[0]
        picks.append(int(gains.argmax()))
    return picks


def test_glister_is_the_greedy_of_its_gains():
    G, _ = network(30)
    val, _ = network(20, seed=9)
    for eta in (0.05, 0.5):
        core = glister(G, 6, val=val, eta=eta)
        assert core.indices.tolist() == naive_glister(G, val, 6, eta)
        losses = [moved_loss(G, val, core.indices[:t], eta) for t in range(7)]
        np.testing.assert_allclose(core.history, losses)
        np.testing.assert_array_equal(core.weights, 1)


def test_glister_methods_are_one_family():
    G, _ = network(60)
    val, _ = network(40, seed=9)
    ask = {"val": val, "eta": 0.3}
    online = glister(G, 12, **ask)
    every = glister(G, 12, method="rgreedy", rounds=12, **ask)
    np.testing.assert_array_equal(online.indices, every.indices)
    modular = glister(G, 12, method="modular", **ask)
    once = glister(G, 12, method="rgreedy", rounds=1, **ask)
    np.testing.assert_array_equal(modular.indices, once.indices)
    first = G.dot(val.sum() / len(val))
    np.testing.assert_array_equal(modular.indices, np.argsort(-first)[:12])
    # A step without length stays where it is.
    still = glister(G, 12, val=val, eta=1e-12)
    np.testing.assert_array_equal(still.indices, modular.indices)
    some = glister(G, 12, method="stochastic", random_state=0, eps=0.5, **ask)
    assert len(set(some.indices.tolist())) == 12
    full = glister(G, 1, method="stochastic", random_state=0, **ask)
    assert full.indices == online.indices[:1]


def test_gradients_of_biases_alone():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 50)
    z = rng.standard_normal((50, 3))
    ones = last_layer_gradients(z, y, np.ones((50, 1)))
    G = last_layer_gradients(z, y)
    # A constant feature and the bias are two biases: twice the inner products.
    a = glister(G[:30], 5, val=G[30:], eta=0.4)
    b = glister(ones[:30], 5, val=ones[30:], eta=0.2)
    np.testing.assert_array_equal(a.indices, b.indices)


# weighted GLISTER and the others


def test_weighted_glister_counts_the_largest_similarity(digits):
    G, y = digits
    G, y = G[:300], y[:300]
    for metric in ("inner", "cosine"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            core = glister_weighted(G, 60, y=y, metric=metric)
        K = G.gram()
        if metric == "cosine":
            K /= np.sqrt(np.outer(np.diag(K), np.diag(K)))
        K[y[:, None] != y] = -np.inf
        counts = np.bincount(K[:, core.indices].argmax(1), minlength=60)
        np.testing.assert_array_equal(core.weights, counts)
        assert core.weights.sum() == 300
        assert core.n_effective == (counts > 0).sum()


def test_long_gradients_are_magnets_and_the_cosine_is_the_repair(digits):
    # Softmax regression after 300 steps on all digits.
    _, y = digits
    X = load("digits", flatten=True)[0].astype(float)
    X /= X.max()
    H, W = np.column_stack([X, np.ones(len(X))]), np.zeros((65, 10))
    for _ in range(300):
        P = np.exp(H @ W)
        P /= P.sum(1, keepdims=True)
        P[np.arange(len(y)), y] -= 1
        W -= 0.5 * H.T @ P / len(y)
    G = last_layer_gradients(H @ W, y, X)
    with pytest.warns(RuntimeWarning, match="have a positive weight"):
        literal = glister_weighted(G, len(G))
    # Of all samples, all selected, hardly one in ten stands even for itself.
    assert literal.n_effective < len(G) / 10
    assert matching_error(G, literal) > 1
    cosine = glister_weighted(G[:400], 400, metric="cosine")
    assert matching_error(G[:400], cosine) < 1e-6


def test_k_center_is_within_twice_the_best_radius():
    for seed in range(5):
        x = np.random.default_rng(seed).standard_normal((12, 2))
        D = distances(x)
        core = k_center_greedy(x, 3)
        radius = D[:, core.indices].min(1).max()
        best = min(D[:, list(c)].min(1).max() for c in combinations(range(12), 3))
        assert radius <= 2 * best + 1e-12
        assert core.history[-1] == pytest.approx(radius)
        assert core.weights.sum() == pytest.approx(12)


def test_random_samples_are_unbiased():
    g = np.random.default_rng(0).standard_normal((12, 2))
    sums = [
        core.weights @ g[core.indices]
        for core in (random_coreset(12, 4, random_state=s) for s in range(4000))
    ]
    error = np.std(sums, axis=0) / np.sqrt(len(sums))
    assert (np.abs(np.mean(sums, axis=0) - g.sum(0)) < 5 * error).all()


# errors of other implementations that this one must not have


def test_no_atom_is_picked_twice_and_weights_belong_to_their_atoms(digits):
    # With a penalty, the correlation of an atom in use stays positive: it is lam w.
    G, y = digits
    part = G[y == 3]
    core = grad_match(part, 60, lam=0.5)
    assert len(set(core.indices.tolist())) == 60
    g = part.dense()
    A, b = g[core.indices], g.sum(0)
    raw = np.linalg.solve(A @ A.T + 0.5 * np.eye(60), A @ b)
    in_use = A @ (b - raw @ A)
    np.testing.assert_allclose(in_use, 0.5 * raw, atol=1e-8)
    # The error returned with the weights is the error of the selection.
    expected = np.sum((raw @ A - b) ** 2) + 0.5 * raw @ raw
    assert core.history[-1] == pytest.approx(expected)


def test_the_penalty_is_used_on_every_device(device):
    G, y = network(60)
    G = G._map(lambda x: torch.as_tensor(x, device=device))
    spread = [
        float((w**2).sum() / w.sum() ** 2)
        for w in (
            grad_match(G, 9, lam=lam, fill="none").weights for lam in (0.0, 1e4)
        )
    ]
    assert spread[1] < 0.9 * spread[0]


def test_glister_looks_again_after_every_pick(monkeypatch, digits):
    calls = []
    step = _HeldOut.step
    monkeypatch.setattr(
        _HeldOut, "step", lambda self, part: (calls.append(len(part)), step(self, part))
    )
    G, y = digits
    G, val = G[:1000], G[1000:]
    online = glister(G, 130, val=val, eta=0.01)
    assert calls == [1] * 130
    modular = glister(G, 130, val=val, eta=0.01, method="modular")
    # Sorting piles up one class and overshoots; looking again does not.
    assert online.history[-1] < online.history[0]
    assert modular.history[-1] > 2 * online.history[-1]
    assert np.bincount(y[modular.indices]).max() > 2 * np.bincount(
        y[online.indices]
    ).max()


def test_counts_sum_to_n_and_not_to_more():
    x = np.random.default_rng(0).standard_normal((100, 3))
    assert craig(x, 7).weights.sum() == 100
    assert glister_weighted(np.abs(x), 7).weights.sum() == 100


def test_distances_are_not_squared_unless_asked_for():
    # One far point: squared distances select it, distances do not.
    x = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 3.0])[:, None]
    assert 6 not in craig(x, 2).indices
    assert 6 in craig(x, 2, metric="sqeuclidean").indices
    # Gains are of the distances themselves.
    with pytest.warns(RuntimeWarning, match="only 3 of the 7"):
        everything = craig(x, 7)
    assert everything.history.sum() == pytest.approx(7 * 3.0)


@pytest.mark.parametrize("method", ["greedy", "stochastic"])
def test_gains_add_up_to_the_value(method):
    x = np.random.default_rng(1).uniform(3, 4, (200, 5))
    core = craig(x, 20, method=method, random_state=0)
    D = distances(x)
    value = (D.max() - D[:, core.indices].min(1)).sum()
    assert core.history.sum() == pytest.approx(value)


# degenerate inputs


def finite(core):
    return all(np.isfinite(np.asarray(x)).all() for x in core[:3])


@pytest.mark.parametrize(
    "g", [np.zeros((12, 3)), np.ones((12, 3)), np.repeat(np.eye(3), 4, axis=0)]
)
def test_fewer_useful_samples_than_asked_for_are_reported_once(g):
    calls = {
        "craig": lambda: craig(g, 6),
        # with a penalty a second sample of one kind is of use: it halves the weight
        "grad_match": lambda: grad_match(g, 6, lam=0.0, random_state=0),
        "none": lambda: grad_match(g, 6, lam=0.0, fill="none"),
        "k_center": lambda: k_center_greedy(g, 6),
        "weighted": lambda: glister_weighted(g, 6),
        "cosine": lambda: glister_weighted(g, 6, metric="cosine"),
    }
    distinct = len(np.unique(g, axis=0))
    for name, call in calls.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            core = call()
        assert [w.category for w in caught] == [RuntimeWarning], name
        assert caught[0].filename == __file__
        assert finite(core), name
        assert core.n_effective <= distinct
        assert len(set(core.indices.tolist())) == len(core.indices)
        if name != "none":
            assert len(core.indices) == 6
            assert core.weights.sum() == pytest.approx(12), name
            assert core.weights.sum() > 0


def test_filling_keeps_the_budgets_of_classes():
    g = np.repeat(np.eye(4), 6, axis=0)
    y = np.repeat([0, 1], 12)
    with pytest.warns(RuntimeWarning, match="only 4 of 12"):
        core = grad_match(g, 12, y=y, lam=0.0, random_state=0)
    np.testing.assert_array_equal(np.bincount(y[core.indices]), [6, 6])
    assert core.n_effective == 4
    with pytest.warns(RuntimeWarning):
        again = grad_match(g, 12, y=y, lam=0.0, random_state=0)
    np.testing.assert_array_equal(core.indices, again.indices)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.data())
def test_budgets(sizes, data):
    sizes = np.array(sizes)
    k = data.draw(st.integers(len(sizes), int(sizes.sum())))
    budgets = _budgets(sizes, k)
    assert budgets.sum() == k
    assert (budgets >= 1).all()
    assert (budgets <= sizes).all()
    quota = k * sizes / sizes.sum()
    if (quota >= 1).all():
        assert (np.abs(budgets - quota) < 1).all()


def test_labels_need_not_be_0_to_c():
    G, y = network(30)
    a, b = craig(G, 6, y=y), craig(G, 6, y=10 * y - 7)
    np.testing.assert_array_equal(a.indices, b.indices)


# kinds


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kind_dtype_and_device(backend, dtype):
    rng = np.random.default_rng(0)
    z, h = rng.standard_normal((60, 3)), rng.random((60, 4))
    y = np.arange(60) % 3
    labels = backend.asarray(y, "int64")
    G = last_layer_gradients(
        backend.asarray(z, dtype), labels, backend.asarray(h, dtype)
    )
    exact = last_layer_gradients(z, y, h)
    for call in (
        lambda G, y: craig(G, 9, y=y),
        lambda G, y: craig(G, 9, y=y, method="stochastic", random_state=0),
        lambda G, y: craig(G, 9, method="partition", random_state=0),
        lambda G, y: grad_match(G, 9, y=y),
        lambda G, y: glister(G[:40], 9, val=G[40:], eta=0.1),
        lambda G, y: glister(
            G[:40], 9, val=G[40:], eta=0.1, method="stochastic", random_state=0
        ),
        lambda G, y: glister_weighted(G, 9, y=y, metric="cosine"),
        lambda G, y: k_center_greedy(G, 9),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            core, same = call(G, labels), call(exact, y)
        assert isinstance(core, Coreset)
        assert backend.owns(core.indices, "int64")
        assert backend.owns(core.weights, dtype)
        assert backend.owns(core.history, dtype)
        np.testing.assert_array_equal(backend.numpy(core.indices), same.indices)
        np.testing.assert_allclose(
            backend.numpy(core.weights), same.weights, rtol=1e-3
        )


def test_the_global_random_state_is_left_alone():
    G, y = network(60)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    craig(G, 6, method="stochastic")
    craig(G, 6, method="partition")
    with pytest.warns(RuntimeWarning):
        grad_match(np.ones((9, 2)), 4, lam=0.0)
    random_coreset(9, 3)
    after = np.random.get_state()[1]  # noqa: NPY002
    np.testing.assert_array_equal(after, before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


def test_memory_is_bounded_by_pairs_of_a_class():
    # 20,000 points: pairs would be 1.6 GB, those of ten classes 16 MB at a time.
    G, y = network(20_000, C=10, D=8, seed=0)
    G = G._map(lambda x: x.astype(np.float32) if x.dtype.kind == "f" else x)
    tracemalloc.start()
    craig(G, 40, y=y)
    grad_match(G, 40, y=y)
    grad_match(G, 40)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6


def test_importing_loads_neither_torch_nor_scikit_learn():
    code = (
        "import sys, numpy as np, lib.coresets as c\n"
        "c.craig(np.eye(4), 2), c.grad_match(np.eye(4), 2), c.facility_location\n"
        "print([m for m in ('torch', 'sklearn') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True
    )
    assert out.stdout.strip() == "[]", out.stderr


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda G, y: craig(G, 0), ValueError),
        (lambda G, y: craig(G, 13), ValueError),
        (lambda G, y: craig(G, True), TypeError),
        (lambda G, y: craig(G, 2, y=y), ValueError),
        (lambda G, y: craig(G, 4, y=y[:-1]), ValueError),
        (lambda G, y: craig(G, 4, y=y + 0.5), TypeError),
        (lambda G, y: craig(G, 4, metric="inner"), ValueError),
        (lambda G, y: craig(G, 4, method="lazy"), ValueError),
        (lambda G, y: craig(G, 4, eps=2), ValueError),
        (lambda G, y: craig(np.full((4, 2), np.nan), 2), ValueError),
        (lambda G, y: craig(np.ones((4, 0)), 2), ValueError),
        (lambda G, y: grad_match(G, 4, lam=-1), ValueError),
        (lambda G, y: grad_match(G, 4, lam=np.inf), ValueError),
        (lambda G, y: grad_match(G, 4, tol=-1), ValueError),
        (lambda G, y: grad_match(G, 4, fill="zero"), ValueError),
        (lambda G, y: grad_match(G, 4, nonneg=1), TypeError),
        (lambda G, y: grad_match(G, 4, lam_relative="yes"), TypeError),
        (lambda G, y: grad_match(G, 4, random_state=-1), ValueError),
        (lambda G, y: grad_match(G, 4, target=torch.ones(21)), TypeError),
        (lambda G, y: glister(G, 4, val=G, eta=0), ValueError),
        (lambda G, y: glister(G, 4, val=G, eta=0.1, method="lazy"), ValueError),
        (lambda G, y: glister(G, 4, val=G, eta=0.1, rounds=0), ValueError),
        (lambda G, y: glister(G.dense(), 4, val=G, eta=0.1), TypeError),
        (lambda G, y: glister(G, 4, val=Gradients(G.layers), eta=0.1), ValueError),
        (lambda G, y: glister_weighted(G, 4, metric="euclidean"), ValueError),
        (lambda G, y: k_center_greedy(G, 13), ValueError),
        (lambda G, y: random_coreset(3, 4), ValueError),
        (lambda G, y: random_coreset(3.0, 2), TypeError),
    ],
)
def test_bad_arguments_are_refused(call, error):
    with pytest.raises(error):
        call(*network(12))
