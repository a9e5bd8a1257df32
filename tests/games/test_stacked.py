"""Stacked training: equal to plain loops, and to itself whatever it is stacked with."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus
from torch.optim import Adam, RMSprop

from lib.games import (
    ConsensusOptimizer,
    DCGANDiscriminator,
    DCGANGenerator,
    MLPDiscriminator,
    MLPGenerator,
    MomentumSGD,
    OptimisticAdam,
    SignedMomentumAdam,
    StackedGAN,
    StackedRun,
    gan_losses,
    ring_networks,
)
from lib.games.stacked import STACKED_METHODS
from lib.replication.experiments.games import OwnGradientOptimizer

OPTIMIZERS = {
    "adam-half": lambda w, lr: Adam(w, lr, (0.5, 0.999)),
    "adam-zero": lambda w, lr: Adam(w, lr, (0.0, 0.999)),
    "oadam": lambda w, lr: OptimisticAdam(w, lr, (0.5, 0.999)),
    "oadam-zero": lambda w, lr: OptimisticAdam(w, lr, (0.0, 0.999)),
    "adam-nm": lambda w, lr: SignedMomentumAdam(w, lr, (-0.5, 0.999)),
    "rmsprop": lambda w, lr: RMSprop(w, lr),
    "rmsprop-short": lambda w, lr: RMSprop(w, lr, alpha=0.9),
    "sgd": lambda w, lr: MomentumSGD(w, lr),
    "sgd-momentum": lambda w, lr: MomentumSGD(w, lr, momentum=0.9),
    "sgd-nm": lambda w, lr: MomentumSGD(w, lr, momentum=-0.5),
}


def perceptrons(seed):
    stream = torch.Generator().manual_seed(seed)
    options = {"hidden": (6, 5), "bn_eps": 0.8}
    G = MLPGenerator(3, (1, 4, 4), generator=stream, **options)
    return G, MLPDiscriminator((1, 4, 4), (6, 5), generator=stream)


def convolutional(seed):
    stream = torch.Generator().manual_seed(seed)
    G = DCGANGenerator(8, 3, width=2, bn_eps=0.8, generator=stream)
    return G, DCGANDiscriminator(8, width=2, bn_eps=0.8, generator=stream)


def images(make, n=48):
    size = 8 if make is convolutional else 4
    return np.random.default_rng(0).uniform(-1, 1, (n, 1, size, size))


def stack(make=perceptrons, runs=None, **options):
    runs = runs or [StackedRun(name, 0.01, 0) for name in STACKED_METHODS]
    options = {"batch_size": 8, "chunk": 6, "dtype": torch.float64} | options
    return StackedGAN(make, runs, **options)


def written_out(t, x, run, make, iterations, loss="ns", clip=None, n_critic=1):
    """The published loop with torch's modules and optimizers, on the stack's draws."""
    G, D = (net.double() for net in make(run.seed))
    drop = [m for m in D.modules() if type(m).__name__ == "_MapDropout"]
    opt_g, opt_d = (OPTIMIZERS[run.method](net.parameters(), run.lr) for net in (G, D))
    twin = stack(make, [run], loss=loss, clip=clip, n_critic=n_critic)
    twin._draw(len(x))
    rows, noise, *masks = (buffer[0] for buffer in twin._buffers)
    x = torch.from_numpy(x)

    def score(samples, i, k):
        for layer, mask in zip(drop, masks, strict=True):
            layer.forward = lambda h, m=mask[i, k]: h * m[:, :, None, None]
        return D(samples)

    for i in range(iterations):
        real, z = x[rows[i]], noise[i]
        if loss == "wgan":
            loss_d = score(G(z).detach(), i, 2).mean() - score(real, i, 1).mean()
        else:
            fake = G(z)
            opt_g.zero_grad()
            softplus(-score(fake, i, 0)).mean().backward()
            opt_g.step()
            loss_d = softplus(-score(real, i, 1)).mean()
            loss_d = (loss_d + softplus(score(fake.detach(), i, 2)).mean()) / 2
        opt_d.zero_grad()
        loss_d.backward()
        opt_d.step()
        if clip:
            for w in D.parameters():
                w.data.clamp_(-clip, clip)
        if loss == "wgan" and i % n_critic == 0:
            opt_g.zero_grad()
            (-score(G(z), i, 0).mean()).backward()
            opt_g.step()
    return [w.detach() for net in (G, D) for w in net.parameters()]


@pytest.mark.parametrize("make", [perceptrons, convolutional])
@pytest.mark.parametrize(
    "game", [{}, {"loss": "wgan", "clip": 0.1, "n_critic": 3}], ids=["ns", "wgan"]
)
def test_every_run_is_the_published_loop(make, game):
    x, t = images(make), stack(make, **game)
    t.fit(x, 6, progress=False)
    for k, run in enumerate(t.runs):
        expected = written_out(t, x, run, make, 6, **game)
        found = [w[k] for player in t._players for w in player.weights]
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a.detach(), b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("make", [perceptrons, convolutional])
def test_a_run_does_not_depend_on_its_neighbours(make):
    runs = [StackedRun("oadam", 0.01, 0), StackedRun("sgd", 0.02, 1)]
    runs += [StackedRun("adam-nm", 0.01, 1)]
    x, together = images(make), stack(make, runs)
    together.fit(x, 12, progress=False)
    samples = together.sample(30)
    for k, run in enumerate(runs):
        alone = stack(make, [run])
        alone.fit(x, 12, progress=False)
        torch.testing.assert_close(alone.sample(30)[0], samples[k], rtol=0, atol=1e-8)
        for name in ("loss_d", "loss_g"):
            mine = [row[k] for row in together.history[name]]
            np.testing.assert_allclose(mine, np.ravel(alone.history[name]), rtol=1e-8)


def agreed(t, x, run, make, iterations, loss, kind):
    """A consensus of plain networks, on the stack's draws."""
    G, D = (net.double() for net in make(run.seed))
    drop = [m for m in D.modules() if type(m).__name__ == "_MapDropout"]
    pair = {"d": D, "g": G}
    pair = {k: OPTIMIZERS[run.method](w.parameters(), run.lr) for k, w in pair.items()}
    optimizer = {"joint": ConsensusOptimizer, "own": OwnGradientOptimizer}[kind]
    optimizer = optimizer(pair, run.gamma)
    twin = stack(make, [run], loss=loss, consensus=kind)
    twin._draw(len(x))
    rows, noise, *masks = (buffer[0] for buffer in twin._buffers)

    def score(samples, i, k):
        for layer, mask in zip(drop, masks, strict=True):
            layer.forward = lambda h, m=mask[i, k]: h * m[:, :, None, None]
        return D(samples)

    for i in range(iterations):
        real, z = torch.from_numpy(x)[rows[i]], noise[i]
        optimizer.step(
            lambda real=real, z=z, i=i: gan_losses(
                score(real, i, 1), score(G(z), i, 0), loss
            )
        )
    return [w.detach() for net in (G, D) for w in net.parameters()]


@pytest.mark.parametrize("make", [perceptrons, convolutional])
@pytest.mark.parametrize(
    ("loss", "kind"), [("ns", "joint"), ("ns", "own"), ("wgan", "joint")]
)
def test_a_consensus_is_that_of_the_optimizer(make, loss, kind):
    runs = [StackedRun("adam-half", 0.01, 0, 0.01), StackedRun("sgd", 0.1, 0, 1.0)]
    runs += [StackedRun("rmsprop-short", 1e-3, 1, 10.0), StackedRun("sgd", 0.1, 1)]
    x, t = images(make), stack(make, runs, loss=loss, consensus=kind)
    t.fit(x, 6, progress=False)
    for k, run in enumerate(runs):
        expected = agreed(t, x, run, make, 6, loss, kind)
        found = [w[k] for player in t._players for w in player.weights]
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a.detach(), b, rtol=1e-6, atol=1e-7)


def test_the_two_regularisers_differ():
    runs, x = [StackedRun("sgd", 0.1, 0, 10.0)], images(perceptrons)
    ends = []
    for kind in ("joint", "own"):
        t = stack(runs=runs, consensus=kind)
        t.fit(x, 6, progress=False)
        ends.append(t.sample(10))
    assert (ends[0] - ends[1]).abs().max() > 1e-3


def test_runs_of_one_seed_share_start_and_data():
    t = stack(runs=[StackedRun("sgd", 1e-12, 0), StackedRun("adam-half", 1e-12, 0)])
    t.fit(images(perceptrons), 6, progress=False)
    a, b = t.sample(20)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
    np.testing.assert_allclose(*np.transpose(t.history["loss_d"]), rtol=1e-9)


def test_an_epoch_shows_every_row_once():
    x = np.arange(48.0)[:, None].repeat(2, axis=1)
    t = StackedGAN(
        lambda seed: ring_networks(generator=seed),
        [StackedRun("sgd", 1e-3, 0)],
        batch_size=8,
        chunk=6,
    )
    seen = []
    for _ in range(2):
        t._draw(len(x))
        seen.append(t._buffers[0].flatten().tolist())
    assert all(sorted(rows) == list(range(48)) for rows in seen)
    assert seen[0] != seen[1]


def test_a_diverging_run_disturbs_no_other():
    x = images(perceptrons)
    calm = StackedRun("adam-half", 0.01, 0)
    both = stack(runs=[calm, StackedRun("sgd", 1e200, 0)])
    both.fit(x, 12, progress=False)
    alone = stack(runs=[calm])
    alone.fit(x, 12, progress=False)
    torch.testing.assert_close(both.sample(20)[0], alone.sample(20)[0])
    last = both.history["loss_d"][-1]
    assert math.isfinite(last[0]) and not math.isfinite(last[1])


def test_a_resumed_stack_is_the_same_bit_for_bit():
    x, whole = images(perceptrons), stack()
    whole.fit(x, 6, progress=False)
    state = whole.state_dict()
    whole.fit(x, 12, progress=False)
    part = stack(runs=[StackedRun(r.method, r.lr, 0) for r in whole.runs])
    part.fit(x, 6, progress=False)
    part.load_state_dict(copy.deepcopy(state))
    part.fit(x, 12, progress=False)
    assert part.iteration == 18
    assert torch.equal(whole.sample(20), part.sample(20))
    assert json.dumps(whole.history) == json.dumps(part.history)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("make", [perceptrons, convolutional])
@pytest.mark.parametrize("consensus", [None, "joint", "own"])
def test_the_captured_graph_is_the_plain_loop(make, consensus):
    x = images(make)
    options = {"device": "cuda", "consensus": consensus}
    captured, plain = (stack(make, **options) for _ in range(2))
    captured.fit(x, 18, progress=False)
    plain._run = lambda x: setattr(plain, "_losses", plain._iterations(x))
    plain.fit(x, 18, progress=False)
    torch.testing.assert_close(captured.sample(20), plain.sample(20))


@pytest.mark.parametrize(
    ("runs", "options", "words"),
    [
        ([], {}, "runs must hold at least one"),
        ([("adam", 0.1, 0)], {}, "method .* got 'adam'"),
        ([("sgd", -0.1, 0)], {}, "lr .* got -0.1"),
        ([("sgd", 0.1, -1)], {}, "seed .* got -1"),
        ([("sgd", 0.1, 0)], {"loss": "minimax"}, "loss .* got 'minimax'"),
        ([("sgd", 0.1, 0)], {"n_critic": 4}, "multiple of n_critic=4, got 6"),
        ([("sgd", 0.1, 0)], {"clip": 0.0}, "clip .* got 0.0"),
        ([("sgd", 0.1, 0, -1.0)], {"consensus": "joint"}, "gamma .* got -1.0"),
        ([("sgd", 0.1, 0, 1.0)], {}, "gamma must be 0 without a consensus"),
        ([("sgd", 0.1, 0)], {"consensus": "both"}, "consensus .* got 'both'"),
        (
            [("sgd", 0.1, 0)],
            {"consensus": "own", "n_critic": 2},
            "n_critic must be 1 with a consensus, got 2",
        ),
    ],
)
def test_bad_arguments_are_named(runs, options, words):
    with pytest.raises(ValueError, match=words):
        StackedGAN(perceptrons, runs, **{"chunk": 6} | options)


def test_bad_data_are_named():
    t = stack()
    with pytest.raises(ValueError, match="multiple of chunk=6, got 7"):
        t.fit(images(perceptrons), 7, progress=False)
    with pytest.raises(ValueError, match="batch_size=8 rows, got 5"):
        t.fit(images(perceptrons, 5), 6, progress=False)
    with pytest.raises(ValueError, match=r"\[-1, 1\]"):
        t.fit(9 * images(perceptrons), 6, progress=False)
