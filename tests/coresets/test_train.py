"""The training loop against one written by hand, and what a sampler may not do."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from lib.coresets import (
    MLP,
    CoresetSampler,
    fit_coreset,
    random_crop_flip,
)
from lib.coresets.train import STRATEGIES

N, D, C = 60, 5, 3


def blobs(n=N, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % C
    X = rng.standard_normal((n, D)) + 2 * np.eye(C, D)[y]
    return X.astype(dtype), y


def mlp(seed, hidden=(6,)):
    return MLP(D, hidden, C, generator=seed).double()


def fit(strategy="random", model=mlp, data=None, **arguments):
    arguments = {"epochs": 4, "batch_size": 4, "every": 2, "fraction": 0.2} | arguments
    return fit_coreset(model, data or blobs(), strategy, **arguments)


def weights_of(model):
    return torch.cat([w.detach().ravel() for w in model.parameters()])


def same(one, two):
    # Everything but the seconds, to the last bit.
    for name in ("epoch", "step", "loss", "train_accuracy", "test_accuracy"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    np.testing.assert_array_equal(one.effective_size, two.effective_size)
    for a, b in zip(one.models, two.models, strict=True):
        assert torch.equal(weights_of(a), weights_of(b))
    return True


# The sampler


def test_the_sampler_selects_once_a_period():
    seen = []

    def select(epoch):
        seen.append(epoch)
        return [epoch, epoch + 1], [1.0, 3.0]

    sampler = CoresetSampler(30, 2, select, every=3)
    for epoch in (0, 0, 1, 2, 3, 4, 3, 8, 7, 11):
        sampler.set_epoch(epoch)
    assert seen == [0, 3, 8, 11]
    assert sorted(sampler) == [11, 12]


def test_weights_follow_the_order_and_have_mean_one():
    weight = {i: float(i) for i in range(1, 10)}
    sampler = CoresetSampler(
        30, 9, lambda epoch: (np.array([*weight]), np.array([*weight.values()]))
    )
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert orders[-1] == list(sampler)
        assert sorted(orders[-1]) == [*weight]
        expected = [weight[i] / 5 for i in orders[-1]]
        np.testing.assert_allclose(sampler.weights.numpy(), expected)
    assert orders[0] != orders[1] != orders[2]
    again = CoresetSampler(30, 9, lambda epoch: [*weight])
    again.set_epoch(2)
    assert list(again) == orders[2]


def test_a_data_loader_yields_the_samples_of_the_weights():
    data = torch.utils.data.TensorDataset(torch.arange(30))
    sampler = CoresetSampler(30, 7, lambda epoch: (np.arange(3, 10), np.arange(1, 8)))
    loader = torch.utils.data.DataLoader(data, batch_size=3, sampler=sampler)
    batches = [x for (x,) in loader]
    for x, w in zip(batches, sampler.weights.split(3), strict=True):
        np.testing.assert_allclose(w, (x - 2) / 4)
    assert len(sampler) == 7


def test_a_warm_start_sees_all_samples_first():
    seen = []

    def select(epoch):
        seen.append(epoch)
        return [epoch]

    sampler = CoresetSampler(8, 2, select, every=2, warm_start=1.5)
    sizes = []
    for epoch in range(6):
        sampler.set_epoch(epoch)
        sizes.append(len(sampler))
    assert sizes == [8, 8, 1, 1, 1, 1]
    assert seen == [2, 4]


@pytest.mark.parametrize(
    ("answer", "error", "match"),
    [
        ([], TypeError, "integer indices"),
        ([0.5], TypeError, "integer indices"),
        ([0, 9], ValueError, "from 0 to 8, got 2, 0 to 9"),
        ([-1, 0], ValueError, "got 2, -1 to 0"),
        ([0, 1, 2, 3], ValueError, "1 to 3 indices .* got 4"),
        (([0, 1], [1.0]), ValueError, "as many weights as indices, 2, got 1"),
        (([0, 1], [1.0, -1.0]), ValueError, "non-negative.* got -1 to 1"),
        (([0, 1], [0.0, 0.0]), ValueError, "at least one positive.* got 0 to 0"),
        (([0, 1], [1.0, np.nan]), ValueError, "weights of select .* finite"),
    ],
)
def test_bad_selections_are_refused(answer, error, match):
    sampler = CoresetSampler(9, 3, lambda epoch: answer)
    with pytest.raises(error, match=match):
        sampler.set_epoch(0)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((0, 1, len), ValueError, "n must be .* got 0"),
        ((5, 6, len), ValueError, "k must be at most n=5, got 6"),
        ((5, 2, [1]), TypeError, "select must be a callable"),
        ((5, 2, len, 0), ValueError, "every .* got 0"),
        ((5, 2, len, 5, -1.0), ValueError, "warm_start .* got -1.0"),
        ((5, 2, len, 5, 0.0, -1), ValueError, "seed .* got -1"),
    ],
)
def test_bad_arguments_of_the_sampler_are_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        CoresetSampler(*arguments)


# The loop


@pytest.mark.parametrize("weight_norm", ["batch", "mean"])
def test_training_is_the_loop_of_the_formula(weight_norm):
    X, y = (torch.tensor(part) for part in blobs())
    rng = np.random.default_rng(1)
    picks = {e: (rng.permutation(N)[:10], rng.random(10)) for e in (0, 2)}
    lr, momentum, decay, epochs, size = 0.1, 0.9, 0.01, 4, 4
    history = fit_coreset(
        mlp,
        (X, y),
        lambda snapshot: picks[snapshot.epoch],
        epochs=epochs,
        batch_size=size,
        every=2,
        fraction=1 / 6,
        lr=lr,
        momentum=momentum,
        weight_decay=decay,
        weight_norm=weight_norm,
    )
    model = mlp(0)
    velocity = [torch.zeros_like(w) for w in model.parameters()]
    sampler = CoresetSampler(N, 10, picks.get, every=2)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        step = lr * (1 + math.cos(math.pi * epoch / epochs)) / 2
        for start in range(0, 10, size):
            loss = total = 0
            rows = list(sampler)[start : start + size]
            for i in rows:
                index, weight = picks[epoch // 2 * 2]
                w = weight[list(index).index(i)] / weight.mean()
                loss = loss + w * cross_entropy(model(X[i : i + 1]), y[i : i + 1])
                total += w
            loss = loss / (total if weight_norm == "batch" else len(rows))
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for w, v, g in zip(
                    model.parameters(), velocity, gradients, strict=True
                ):
                    v.mul_(momentum).add_(g + decay * w)
                    w.sub_(step * v)
    torch.testing.assert_close(weights_of(history.models[0]), weights_of(model))
    with torch.no_grad():
        loss = cross_entropy(model(X), y).item()
    assert history.loss[0, -1] == pytest.approx(loss)
    assert history.step[0].tolist() == [3, 6, 9, 12]
    assert history.selection_epoch.tolist() == [0, 2]
    expected = [w.sum() ** 2 / (w @ w) for _, w in picks.values()]
    np.testing.assert_allclose(history.effective_size[0], expected)


def test_batches_of_weight_zero_are_reported_and_move_nothing():
    weights = np.zeros(12)
    weights[3] = 5.0

    def magnet(snapshot):
        return np.arange(12), weights

    with pytest.warns(RuntimeWarning, match="8 batches had samples of weight zero"):
        history = fit(magnet)
    assert history.empty_batches.tolist() == [8]
    assert np.isfinite(history.loss).all()
    np.testing.assert_allclose(history.effective_size, 1)
    # Without momentum and decay only the batch of the magnet counts.
    with pytest.warns(RuntimeWarning):
        history = fit(magnet, momentum=0, weight_decay=0, every=4)
    alone = fit(lambda s: [3], momentum=0, weight_decay=0, every=4)
    one, two = (weights_of(h.models[0]) for h in (history, alone))
    torch.testing.assert_close(one, two)


def test_full_es_makes_equal_steps_and_whole_passes():
    history = fit("full_es", epochs=10)
    assert history.step.tolist() == fit("random", epochs=10).step.tolist()
    picks = np.concatenate([indices for indices, _ in history.coresets[0]])
    for half in (picks[:N], picks[N:]):
        assert sorted(half) == list(range(N))
    assert list(picks[:N]) != list(picks[N:])


def test_full_sees_every_sample_in_every_epoch():
    history = fit("full", epochs=3)
    assert history.step.tolist() == [[15, 30, 45]]
    assert sorted(history.coresets[0][0][0]) == list(range(N))
    assert history.effective_size == pytest.approx(N)


def test_random_is_drawn_anew_and_random_fixed_is_not():
    adaptive, fixed = (fit(name, epochs=6) for name in ("random", "random_fixed"))
    assert adaptive.selection_epoch.tolist() == [0, 2, 4]
    assert fixed.selection_epoch.tolist() == [0]
    sets = [frozenset(indices) for indices, _ in adaptive.coresets[0]]
    assert len(set(sets)) == 3
    assert all(len(s) == 12 for s in sets)
    assert frozenset(fixed.coresets[0][0][0]) == sets[0]


def test_replicas_are_the_trainings_of_their_seeds():
    together = fit(replicas=3, seed=5, test=blobs(seed=1))
    assert together.loss.shape == (3, 4)
    for r in range(3):
        alone = fit(seed=5 + r, test=blobs(seed=1))
        np.testing.assert_array_equal(together.loss[r], alone.loss[0])
        np.testing.assert_array_equal(together.test_accuracy[r], alone.test_accuracy[0])
        assert torch.equal(
            *(weights_of(h.models[0 if h is alone else r]) for h in (together, alone))
        )
    assert len(np.unique(together.loss[:, -1])) == 3


def test_training_is_deterministic_and_leaves_global_randomness_alone():
    state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    one = fit(epochs=3)
    fit("full_es", epochs=1)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    torch.rand(3)
    assert same(one, fit(epochs=3))
    assert not np.array_equal(one.loss, fit(epochs=3, seed=1).loss)


def test_what_is_evaluated_changes_nothing():
    often = fit(epochs=5, test=blobs(seed=1))
    rarely = fit(epochs=5, evaluate=3)
    assert rarely.epoch.tolist() == [3, 5]
    assert np.isnan(rarely.test_accuracy).all()
    np.testing.assert_array_equal(rarely.loss, often.loss[:, [2, 4]])
    one, two = (weights_of(h.models[0]) for h in (often, rarely))
    assert torch.equal(one, two)


def test_a_network_is_trained_in_place_and_a_data_set_is_its_pair():
    X, y = (torch.tensor(part) for part in blobs())
    model = mlp(0)
    history = fit(model=model, data=torch.utils.data.TensorDataset(X, y))
    assert history.models[0] is model
    assert same(history, fit(data=(X, y)))
    assert same(history, fit())


def test_the_dtype_of_the_model_decides():
    history = fit(model=lambda seed: mlp(seed).float())
    assert next(history.models[0].parameters()).dtype == torch.float32
    np.testing.assert_allclose(history.loss, fit().loss, rtol=1e-4)


def test_a_strategy_sees_the_network_as_it_is():
    X, y = (torch.tensor(part) for part in blobs())
    seen = []

    def strategy(snapshot, shift):
        assert not snapshot.model.training
        with torch.no_grad():
            logits = snapshot.model(X)
        torch.testing.assert_close(snapshot.logits, logits)
        head = snapshot.model.head(snapshot.features)
        torch.testing.assert_close(snapshot.logits, head)
        seen.append((snapshot.epoch, snapshot.k, snapshot.random_state, logits))
        return torch.arange(snapshot.k) + shift

    fit(strategy, options={"shift": 2}, seed=4)
    assert [(epoch, k) for epoch, k, *_ in seen] == [(0, 12), (2, 12)]
    assert seen[0][2] != seen[1][2]
    torch.testing.assert_close(seen[0][3], mlp(4)(X).detach())
    assert not torch.equal(seen[0][3], seen[1][3])


def test_selection_seconds_are_those_of_the_strategy():
    import time

    def slow(snapshot):
        time.sleep(0.02)
        return [0, 1, 2]

    history = fit(slow)
    steps = history.selection_seconds[0] // 0.02
    assert steps[0] >= 1
    assert steps[-1] >= 2
    assert (np.diff(history.selection_seconds) >= 0).all()
    assert (np.diff(history.step_seconds) > 0).all()


def test_a_step_that_explodes_is_an_error():
    with pytest.raises(RuntimeError, match="loss is (nan|inf) in epoch"):
        fit(lr=1e200, epochs=6)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"strategy": "best"}, ValueError, "strategy must be one of .* got 'best'"),
        ({"fraction": 1.5}, ValueError, "fraction .* got 1.5"),
        ({"fraction": 0}, ValueError, "fraction .* got 0"),
        ({"epochs": 0}, ValueError, "epochs .* got 0"),
        ({"batch_size": 2.0}, TypeError, "batch_size .* got 2.0"),
        ({"lr": -1}, ValueError, "lr .* got -1"),
        ({"weight_norm": "sum"}, ValueError, "weight_norm .* got 'sum'"),
        ({"model": torch.nn.Linear(5, 3)}, TypeError, r"features\(x\).*Linear"),
        ({"model": 3}, TypeError, "model must be .* got 3"),
        ({"model": mlp(0), "replicas": 2}, ValueError, "replicas .* got 2"),
        ({"data": (np.ones((4, D)), np.ones(3, int))}, ValueError, "data .* label"),
        ({"data": (np.ones((4, D)), np.full(4, 3))}, ValueError, "0 to 2, got 3 to 3"),
        ({"data": (np.ones((4, D)), np.ones(4))}, TypeError, "data.1. .* integer"),
        ({"data": (np.full((4, D), np.nan), np.ones(4, int))}, ValueError, "data.0."),
        ({"data": 7}, TypeError, "data must be a pair .* got int"),
        ({"augment": "flip"}, TypeError, "augment .* got 'flip'"),
        ({"options": {"lam": 1}}, TypeError, "lam"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        fit(**arguments)


# Augmentation


def test_every_augmented_image_is_a_shifted_one_or_its_mirror():
    x = torch.rand(40, 2, 6, 5, generator=torch.Generator().manual_seed(0))
    moved = random_crop_flip(x, torch.Generator().manual_seed(1), padding=2)
    padded = torch.nn.functional.pad(x, (2,) * 4)
    kinds = set()
    for image, frame in zip(moved, padded, strict=True):
        found = [
            (i, j, flip)
            for i in range(5)
            for j in range(5)
            for flip in (False, True)
            if torch.equal(
                image,
                frame[:, i : i + 6, j : j + 5].flip(2)
                if flip
                else frame[:, i : i + 6, j : j + 5],
            )
        ]
        assert len(found) == 1
        kinds.add(found[0])
    assert {i for i, _, _ in kinds} == {j for _, j, _ in kinds} == set(range(5))
    assert {flip for _, _, flip in kinds} == {False, True}
    again = random_crop_flip(x, torch.Generator().manual_seed(1), padding=2)
    assert torch.equal(moved, again)
    with pytest.raises(ValueError, match="x must be 4-D"):
        random_crop_flip(x[0], torch.Generator())


def test_augmentation_moves_steps_and_not_selections():
    seen = []

    def strategy(snapshot):
        seen.append(snapshot.X)
        return range(12)

    def shift(x, generator):
        return x + torch.randn(x.shape, generator=generator, dtype=x.dtype)

    one, two = fit(strategy, augment=shift), fit(strategy, augment=shift)
    assert same(one, two)
    assert not np.array_equal(one.loss, fit(strategy).loss)
    assert all(torch.equal(X, torch.tensor(blobs()[0])) for X in seen)


# The named strategies


# An inner product makes points of large gradients magnets: "glister_weighted" may leave
# a batch without weight, and need not learn.
@pytest.mark.filterwarnings("ignore:.* batches had samples of weight zero")
@pytest.mark.filterwarnings("ignore:only .* samples have a positive weight")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_named_strategy_learns(strategy):
    arguments = {"epochs": 8, "lr": 0.1, "val": blobs(30, seed=2)}
    history = fit(strategy, **arguments)
    assert np.isfinite(history.loss).all()
    assert (history.effective_size >= 1 - 1e-12).all()
    assert (history.effective_size <= (N if strategy == "full" else 12) + 1e-9).all()
    if strategy != "glister_weighted":
        assert history.loss[0, -1] < 0.8 * history.loss[0, 0]
    assert same(history, fit(strategy, **arguments))


def test_glister_needs_held_out_samples_and_takes_another_step():
    with pytest.raises(ValueError, match="val must be held-out samples"):
        fit("glister")
    val = blobs(30, seed=2)
    assert same(fit("glister", val=val), fit("glister", val=val, options={"eta": 0.01}))
    other = fit("glister", val=val, options={"eta": 3.0})
    assert not np.array_equal(other.loss, fit("glister", val=val).loss)


def test_equal_weights_are_on_the_picks_of_grad_match():
    equal, weighted = (
        fit(name, epochs=1).coresets[0][0] for name in ("grad_match_eqw", "grad_match")
    )
    np.testing.assert_array_equal(equal[0], weighted[0])
    np.testing.assert_array_equal(equal[1], 1)
    assert np.ptp(weighted[1]) > 0.01


def test_batches_are_selected_whole():
    indices, weights = fit("grad_match_batch", epochs=1).coresets[0][0]
    assert len(set(indices)) == 12
    for part in weights.reshape(3, 4):
        assert np.ptp(part) == 0
