"""Training: losses, the order of the updates, resuming, stopping."""

import copy
import json
import math
import os
import signal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import SGD, Adam

from lib.games import (
    DCGANDiscriminator,
    DCGANGenerator,
    GANTrainer,
    History,
    MLPDiscriminator,
    MLPGenerator,
    digits_networks,
    gan_losses,
)


def points(n=64, d=2, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def networks(seed=0, d=2):
    stream = torch.Generator().manual_seed(seed)
    G = MLPGenerator(3, (d,), (5, 4), slope=0.1, tanh=False, generator=stream)
    return G.double(), MLPDiscriminator((d,), (6,), generator=stream).double()


def trainer(seed=0, make=SGD, lr=0.1, players=None, **options):
    G, D = players or networks(seed)
    opts = [make(net.parameters(), lr=lr) for net in (G, D)]
    options = {"batch_size": 16, "generator": seed} | options
    return GANTrainer(G, D, *opts, **options)


def weights(*networks):
    # running means and variances too
    states = [v for net in networks for v in net.state_dict().values()]
    return [v.clone() for v in states if torch.is_tensor(v)]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# Losses


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=6))
@settings(deadline=None)
def test_losses_are_those_of_the_papers(logits):
    l = torch.tensor(logits, dtype=torch.float64)  # noqa: E741
    real, fake = l[:1], l[1:]
    p, q = torch.sigmoid(real), torch.sigmoid(fake)
    # 1 - sigmoid(l) = sigmoid(-l) keeps its digits
    value = p.log().mean() + torch.sigmoid(-fake).log().mean()
    loss_d, loss_g = gan_losses(real, fake, "minimax")
    torch.testing.assert_close(loss_d, -value)
    torch.testing.assert_close(loss_g, torch.sigmoid(-fake).log().mean())
    loss_d, loss_g = gan_losses(real, fake, "ns")
    torch.testing.assert_close(loss_d, -value)
    torch.testing.assert_close(loss_g, -q.log().mean())
    loss_d, loss_g = gan_losses(real, fake, "wgan")
    torch.testing.assert_close(loss_d, fake.mean() - real.mean())
    torch.testing.assert_close(loss_g, -fake.mean())


def test_the_saturating_gradient_vanishes_and_the_other_does_not():
    l = torch.tensor([-8.0], dtype=torch.float64, requires_grad=True)  # noqa: E741
    slopes = [
        torch.autograd.grad(gan_losses(l, l, loss)[1], l)[0].item()
        for loss in ("minimax", "ns")
    ]
    sigmoid = 1 / (1 + math.exp(8))
    assert slopes == pytest.approx([-sigmoid, sigmoid - 1], rel=1e-12)


def test_losses_stay_finite_where_probabilities_are_zero():
    far = torch.tensor([1e4, -1e4])
    for loss in ("ns", "minimax"):
        assert all(torch.isfinite(part) for part in gan_losses(far, far, loss))


# The two kinds of step, against a step written out


def test_an_alternating_step_answers_the_new_critic():
    x, lr, c = points(), 0.3, 0.05
    t = trainer(lr=lr, n_critic=2, clip=c, loss="wgan")
    G, D = copy.deepcopy(t.G), copy.deepcopy(t.D)
    t.fit(x, steps=1, progress=False)
    order = t._rng("order", 0).permutation(len(x))
    for k in range(2):
        real = torch.from_numpy(x[order[16 * k : 16 * (k + 1)]])
        z = torch.from_numpy(t._rng("noise", 0, k).standard_normal((16, 3)))
        (D(G(z).detach()).mean() - D(real).mean()).backward()
        with torch.no_grad():
            for w in D.parameters():
                w -= lr * w.grad
                w.clamp_(-c, c)
                w.grad = None
    z = torch.from_numpy(t._rng("noise", 0, 2).standard_normal((16, 3)))
    (-D(G(z)).mean()).backward()
    with torch.no_grad():
        for w in G.parameters():
            w -= lr * w.grad
    for ours, theirs in zip(weights(t.G, t.D), weights(G, D), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-15)
    assert all(abs(w).max() <= c for w in t.D.parameters())
    assert any(abs(w).max() == c for w in t.D.parameters())


@pytest.mark.parametrize("loss", ["ns", "minimax", "wgan"])
def test_a_simultaneous_step_follows_the_field_of_the_game(loss):
    x, lr = points(), 0.3
    t = trainer(lr=lr, update="simultaneous", loss=loss)
    G, D = copy.deepcopy(t.G), copy.deepcopy(t.D)
    t.fit(x, steps=1, progress=False)
    real = torch.from_numpy(x[t._rng("order", 0).permutation(len(x))[:16]])
    z = torch.from_numpy(t._rng("noise", 0, 0).standard_normal((16, 3)))
    loss_d, loss_g = gan_losses(D(real), D(G(z)), loss)
    assert t.history["loss_d"] == pytest.approx([loss_d.item()], rel=1e-14)
    assert t.history["loss_g"] == pytest.approx([loss_g.item()], rel=1e-14)
    for net, new, part in ((G, t.G, loss_g), (D, t.D, loss_d)):
        field = torch.autograd.grad(part, list(net.parameters()), retain_graph=True)
        for old, v, moved in zip(
            net.parameters(), field, new.parameters(), strict=True
        ):
            torch.testing.assert_close(moved, old - lr * v, rtol=0, atol=1e-15)


class Both:
    """Descends on the sum of both losses, with one step for all weights."""

    def __init__(self, *networks, calls=1):
        self.parameters = [w for net in networks for w in net.parameters()]
        self.calls, self.seen = calls, []
        self.unbiased = calls == 2

    def step(self, closure):
        losses = [closure() for _ in range(self.calls)]
        self.seen.append([(d.item(), g.item()) for d, g in losses])
        total = sum(d + 0.5 * g for d, g in losses)
        for w, g in zip(
            self.parameters, torch.autograd.grad(total, self.parameters), strict=True
        ):
            w.data -= 0.1 * g

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@pytest.mark.parametrize("calls", [1, 2])
def test_one_optimizer_of_both_players_gets_one_graph(calls):
    G, D = networks()
    opt = Both(G, D, calls=calls)
    t = GANTrainer(G, D, opt, None, update="simultaneous", batch_size=16, generator=0)
    G0, D0 = copy.deepcopy(G), copy.deepcopy(D)
    x = points()
    t.fit(x, steps=3, progress=False)
    assert [d for d in t.history["loss_d"]] == [step[0][0] for step in opt.seen]
    if calls == 2:  # another batch for the second call
        assert opt.seen[0][0] != opt.seen[0][1]
    order, total = t._rng("order", 0).permutation(len(x)), 0.0
    for k in range(calls):
        real = torch.from_numpy(x[order[16 * k : 16 * (k + 1)]])
        z = torch.from_numpy(t._rng("noise", 0, k).standard_normal((16, 3)))
        d, g = gan_losses(D0(real), D0(G0(z)))
        total = total + d + 0.5 * g
        assert opt.seen[0][k] == pytest.approx((d.item(), g.item()), rel=1e-14)
    # the generated samples were not detached: L_D moves G as well
    assert torch.autograd.grad(total, next(G0.parameters()))[0].abs().sum() > 0


class Extrapolating(SGD):
    """SGD that goes half a step first, and returns before the whole one."""

    def extrapolate(self):
        self.before = [
            w.detach().clone() for g in self.param_groups for w in g["params"]
        ]
        super().step()

    def step(self):
        with torch.no_grad():
            for w, b in zip(self.param_groups[0]["params"], self.before, strict=True):
                w.copy_(b)
        super().step()


def test_extrapolation_uses_the_gradient_half_a_step_ahead():
    G, D = networks()
    # a linear game has a gradient that depends on the other player alone
    t = trainer(make=Extrapolating, players=(G, D), update="simultaneous", loss="wgan")
    G0, D0, x, lr = copy.deepcopy(G), copy.deepcopy(D), points(), 0.1
    t.fit(x, steps=1, progress=False)
    start = [w.detach().clone() for w in (*G0.parameters(), *D0.parameters())]
    order = t._rng("order", 0).permutation(len(x))
    for k in range(2):
        real = torch.from_numpy(x[order[16 * k : 16 * (k + 1)]])
        z = torch.from_numpy(t._rng("noise", 0, k).standard_normal((16, 3)))
        loss_d, loss_g = gan_losses(D0(real), D0(G0(z)), "wgan")
        field = torch.autograd.grad(loss_g, list(G0.parameters()), retain_graph=True)
        field += torch.autograd.grad(loss_d, list(D0.parameters()))
        moved = (*G0.parameters(), *D0.parameters())
        for w, s, v in zip(moved, start, field, strict=True):
            w.data = s - lr * v
    now = (*G.parameters(), *D.parameters())
    for ours, theirs in zip(now, moved, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-15)


# Data and randomness


def test_an_epoch_shows_every_row_once_and_the_next_another_order():
    x = points(48)
    t, seen = trainer(n_critic=3), []
    batch = t._batch
    t._batch = lambda *a: seen.append(batch(*a)) or seen[-1]
    t.fit(x, epochs=2, progress=False)
    assert t.step == 2
    epochs = [torch.cat(seen[:3]).numpy(), torch.cat(seen[3:]).numpy()]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch, axis=0), np.sort(x, axis=0))
    assert not np.array_equal(*epochs)


def test_runs_are_functions_of_their_seed_and_leave_the_global_state():
    before, runs = torch.get_rng_state(), []
    for seed in (0, 0, 1):
        t = trainer(generator=seed, make=Adam)
        t.fit(points(), steps=5, progress=False)
        runs.append(weights(t.G, t.D))
    assert same(runs[0], runs[1]) and not same(runs[0], runs[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_numpy_and_torch_data_train_alike(device):
    if device != "cpu":
        pytest.skip("bitwise equality is promised on the CPU")
    runs = []
    for x in (points(), torch.from_numpy(points())):
        t = trainer()
        t.fit(x, steps=3, progress=False)
        runs.append(weights(t.G, t.D))
    assert same(*runs)


def test_samples_leave_training_alone():
    plain, watched = trainer(), trainer()
    plain.fit(points(), steps=4, progress=False)
    watched.fit(
        points(), steps=4, progress=False, callbacks=[lambda t: t.sample(7) is None]
    )
    assert same(weights(plain.G, plain.D), weights(watched.G, watched.D))
    assert watched.G.training
    a, b = watched.sample(9000), watched.sample(9000)
    assert torch.equal(a, b) and a.shape == (9000, 2)
    # evaluation mode: a sample does not depend on its batch
    torch.testing.assert_close(watched.sample(5), a[:5])


# Resuming


def convolutional(seed):
    stream = torch.Generator().manual_seed(seed)
    G = DCGANGenerator(8, 4, width=2, generator=stream).double()
    return G, DCGANDiscriminator(8, width=2, generator=stream).double()


@pytest.mark.parametrize("make", [networks, convolutional])
@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
def test_a_resumed_run_is_the_same_bit_for_bit(make, update, tmp_path):
    shape = (24, 1, 8, 8) if make is convolutional else (24, 2)
    x = np.random.default_rng(0).uniform(-1, 1, shape)
    options = {"make": Adam, "lr": 0.01, "batch_size": 8, "update": update}
    whole = trainer(players=make(0), generator=5, **options)
    whole.fit(x, steps=4, progress=False)
    torch.save(whole.state_dict(), tmp_path / "state.pt")
    whole.fit(x, steps=3, progress=False)
    # another start and another seed: everything must come from the state
    part = trainer(players=make(1), generator=6, **options)
    part.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=False))
    part.fit(x, steps=3, progress=False)
    assert part.step == whole.step == 7
    assert same(weights(whole.G, whole.D), weights(part.G, part.D))
    assert json.dumps(whole.history) == json.dumps(part.history)
    assert whole.history["step"] == list(range(1, 8))


def test_a_state_is_a_copy():
    t = trainer()
    t.fit(points(), steps=2, progress=False)
    state = t.state_dict()
    kept = copy.deepcopy(state)
    t.fit(points(), steps=2, progress=False)
    assert state["history"] == kept["history"]
    assert all(torch.equal(state["G"][k], v) for k, v in kept["G"].items())
    t.load_state_dict(state)
    t.fit(points(), steps=1, progress=False)
    assert len(state["history"]["step"]) == 2


# Stopping


@pytest.fixture
def interruptible():
    """Python's own handler, also where the process was started without one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_the_first_interrupt_ends_a_step_and_the_run_goes_on():
    def interrupt(t):
        if t.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    x, whole, cut = points(), trainer(), trainer()
    whole.fit(x, steps=6, progress=False)
    history = cut.fit(x, steps=6, progress=False, callbacks=[interrupt])
    assert history["interrupted"] and 3 <= cut.step <= 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    history = cut.fit(x, steps=6 - cut.step, progress=False)
    assert not history["interrupted"]
    assert same(weights(whole.G, whole.D), weights(cut.G, cut.D))


@pytest.mark.usefixtures("interruptible")
def test_a_second_interrupt_does_not_wait():
    def interrupt(t):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass

    with pytest.raises(KeyboardInterrupt):
        trainer().fit(points(), steps=5, progress=False, callbacks=[interrupt])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_handler_of_interrupts_is_left_in_place():
    class Stopped(BaseException):
        pass

    def stop(number, frame):
        raise Stopped

    def interrupt(t):
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, stop)
    try:
        with pytest.raises(Stopped):
            trainer().fit(points(), steps=5, progress=False, callbacks=[interrupt])
        assert signal.getsignal(signal.SIGINT) is stop
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_loss_that_is_not_finite_stops_at_its_step():
    def spoil(t):
        if t.step == 2:
            next(t.D.parameters()).data.fill_(math.nan)

    t = trainer()
    with pytest.raises(RuntimeError, match="loss_d is nan at step 3"):
        t.fit(points(), steps=9, progress=False, callbacks=[spoil])
    assert t.step == 2 and len(t.history["step"]) == 2
    assert not any(w.isnan().any() for w in t.G.parameters())


def test_callbacks_record_and_end():
    def score(t):
        t.history.record(score=np.float64(t.step) / 2)
        return t.step == 3

    history = trainer().fit(points(), steps=9, progress=False, callbacks=[score])
    assert history["score"] == [0.5, 1.0, 1.5]
    assert json.loads(json.dumps(history)) == history
    assert isinstance(history, History)


def test_progress_is_shown_on_demand(capsys):
    trainer().fit(points(), steps=3, progress=False)
    assert capsys.readouterr().err == ""
    trainer().fit(points(), steps=3)
    assert "3/3" in capsys.readouterr().err


# Training works at all


def test_a_gan_finds_the_mean_of_a_gaussian():
    # G shifts noise, D is linear: the equilibrium is the mean of the data.
    x = points(512, 1) + 3.0
    G, D = torch.nn.Linear(1, 1).double(), torch.nn.Linear(1, 1).double()
    G.latent_dim = 1
    for layer in (G, D):
        layer.weight.data.fill_(1.0), layer.bias.data.zero_()
    G.weight.requires_grad_(False)

    class Score(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = D

        def forward(self, x):
            return self.layer(x)[:, 0]

    opts = [
        SGD([w for w in net.parameters() if w.requires_grad], lr=0.2) for net in (G, D)
    ]
    t = GANTrainer(G, Score(), *opts, batch_size=512, generator=0)
    t.fit(x, steps=300, progress=False)
    assert abs(G.bias.item() - x.mean()) < 0.3


# What is refused


class Joint:
    def step(self, closure):
        pass


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"loss": "lsgan"}, ValueError, "loss .* got 'lsgan'"),
        ({"update": "both"}, ValueError, "update .* got 'both'"),
        ({"n_critic": 0}, ValueError, "n_critic .* got 0"),
        ({"clip": -0.01}, ValueError, "clip .* got -0.01"),
        ({"clip": math.nan}, ValueError, "clip .* got nan"),
        ({"batch_size": 0}, ValueError, "batch_size .* got 0"),
        (
            {"n_critic": 5, "update": "simultaneous"},
            ValueError,
            "n_critic must be 1 .* got 5",
        ),
        ({"make": Extrapolating}, ValueError, "got update='alternating'"),
    ],
)
def test_bad_arguments_are_named(options, error, words):
    with pytest.raises(error, match=words):
        trainer(**options)


def test_an_optimizer_of_both_players_cannot_alternate():
    G, D = networks()
    with pytest.raises(ValueError, match="simultaneous"):
        GANTrainer(G, D, Joint(), None)
    with pytest.raises(TypeError, match="opt_g must be an optimizer, got None"):
        GANTrainer(G, D, None, None)
    with pytest.raises(ValueError, match="both extrapolate"):
        GANTrainer(
            G,
            D,
            Extrapolating(G.parameters(), lr=0.1),
            SGD(D.parameters(), lr=0.1),
            update="simultaneous",
        )


@pytest.mark.parametrize(
    ("x", "options", "error", "words"),
    [
        (points(), {}, ValueError, "exactly one of epochs and steps"),
        (points(), {"steps": 2, "epochs": 1}, ValueError, "exactly one"),
        (points(), {"steps": 0}, ValueError, "steps .* got 0"),
        (points(), {"epochs": -1}, ValueError, "epochs .* got -1"),
        (points(), {"steps": 1, "callbacks": [3]}, TypeError, "callbacks .* got 3"),
        (points(15), {"steps": 1}, ValueError, "batch_size=16 rows, got 15"),
        (points(d=3), {"steps": 1}, ValueError, r"shape \(2,\), got \(3,\)"),
        (points()[:, 0], {"steps": 1}, ValueError, r"2-D or 4-D, got shape \(64,\)"),
        (points() * np.nan, {"steps": 1}, ValueError, "x must hold finite numbers"),
    ],
)
def test_bad_data_are_named(x, options, error, words):
    with pytest.raises(error, match=words):
        trainer().fit(x, progress=False, **options)


def test_images_must_be_scaled_to_the_range_of_tanh():
    x = np.random.default_rng(0).uniform(0, 255, (64, 1, 8, 8))
    with pytest.raises(ValueError, match=r"\[-1, 1\], got values from .* to 25"):
        trainer(players=digits_networks(generator=0)).fit(x, steps=1)
