"""The report's tables at a tiny scale: stacks, checkpoints, metrics."""

import numpy as np
import pytest
import torch

from lib.games import (
    DCGANDiscriminator,
    DCGANGenerator,
    MLPDiscriminator,
    MLPGenerator,
    StackedGAN,
)
from lib.replication import checkpoint, registry
from lib.replication.experiments import games as lab
from lib.replication.results import Cell, Results


class Scorer:
    """Ten classes by the mean of ten groups of pixels."""

    def features(self, x):
        return x.flatten(1)[:, :50].reshape(len(x), 10, 5).mean(2)

    def predict_proba(self, x):
        return (20 * self.features(x)).softmax(1)


@pytest.fixture
def tiny(monkeypatch):
    """Few small random images, few samples, narrow networks."""
    plain = StackedGAN.sample

    def data(name, game, device="cpu"):
        size = {"mnist": 16 if game == "dcgan" else 28, "digits": 8}[name]
        x = np.random.default_rng(0).uniform(-1, 1, (256, 1, size, size))
        x = torch.from_numpy(x)
        x = x if name == "digits" else x.float()
        return x, Scorer(), Scorer().features(x[:60])

    def networks(name, game, seed):
        stream = torch.Generator().manual_seed(seed)
        if game == "dcgan":
            G = DCGANGenerator(16, 4, width=2, bn_eps=0.8, generator=stream)
            return G, DCGANDiscriminator(16, width=2, bn_eps=0.8, generator=stream)
        shape = (1, 8, 8) if name == "digits" else (1, 28, 28)
        G = MLPGenerator(4, shape, (8, 8), generator=stream)
        return G, MLPDiscriminator(shape, (8,), generator=stream)

    monkeypatch.setattr(lab, "table_data", data)
    monkeypatch.setattr(lab, "table_networks", networks)
    monkeypatch.setattr(StackedGAN, "sample", lambda s, n: plain(s, min(n, 100)))


def grid(name, epochs, **select):
    chosen = Results([Cell(c, 0, {}) for c in registry.experiment(name).full])
    return [c | {"epochs": epochs} for c in chosen.where(**select).configs]


def run(name, configs, seeds):
    cells = registry.experiment(name).run(tuple(configs), seeds, "cpu")
    return {(repr(config), seed): data for config, seed, data in cells}


def test_the_full_tiers_wait_for_a_gpu():
    for name in ("gan-mnist", "gan-consensus"):
        experiment = registry.experiment(name)
        assert experiment.cuda
        assert not list(experiment.run(experiment.full, (0, 1), "cpu"))


def test_rows_of_the_report_come_first_with_one_seed():
    experiment = registry.experiment("gan-mnist")
    assert len(experiment.full) == 28  # 15, Adam(0) and OAdam(0), fair SGD, RMSProp

    def phase(config):
        row = (config["method"], config["step"])
        return next(k for k, rows in enumerate(lab.TABLE_ROWS) if row in rows)

    stacks = lab._table_stacks(experiment.full, (0, 1, 2), "cuda", phase)
    first = [cell for stack in stacks[:3] for cell in stack]
    assert len(first) == 15 and {seed for _, seed in first} == {0}
    assert {c["game"] for c, _ in stacks[3]} == {"gan"} and len(stacks[3]) == 2
    waves = [{seed for _, seed in stack} for stack in stacks]
    assert waves == [{0}] * 9 + [{1, 2}] * 9
    assert sum(map(len, stacks)) == 28 * 3


@pytest.mark.slow
@pytest.mark.parametrize("game", lab.TABLE_GAMES)
def test_table_1_at_a_tiny_scale(tiny, game):
    rows = grid("gan-mnist", 1, game=game, method=["oadam", "sgd-nm"])
    found = run("gan-mnist", rows, (0, 1))
    assert len(found) == 6
    for (_, seed), data in found.items():
        assert data["is"].shape == data["fid"].shape == data["epoch"].shape == (8,)
        assert data["loss_g"].shape == data["loss_d"].shape == (1,)  # one in 50
        assert ("images" in data) == (seed == 0)
        assert np.isfinite([data[k] for k in ("kid", "recall", "is_std")]).all()
    size = 16 if game == "dcgan" else 28
    assert found[repr(rows[0]), 0]["images"].shape == (8, 25, size, size)
    alone = run("gan-mnist", rows[1:2], (1,))
    for key, data in alone.items():
        for name, value in data.items():
            np.testing.assert_allclose(value, found[key][name], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_table_2_at_a_tiny_scale(tiny):
    rows = grid("gan-consensus", 1, method="adam-half", gamma=10.0)
    found = run("gan-consensus", rows, (0,))
    joint, own = (found[repr(row), 0] for row in rows)
    assert [row["kind"] for row in rows] == ["joint", "own"]
    assert joint["is"].shape == (20,) and joint["images"].shape == (20, 25, 16, 16)
    assert np.isfinite(joint["loss_d"]).all() and joint["fid"][-1] != own["fid"][-1]


def test_networks_and_steps_are_the_reports():
    G, D = lab.table_networks("mnist", "wgan", 0)
    assert G.latent_dim == 100 and G(torch.zeros(2, 100)).shape == (2, 1, 28, 28)
    size = sum(w.numel() for net in (G, D) for w in net.parameters())
    assert 2.0e6 < size < 2.1e6
    assert {layer.eps for layer in G.modules() if hasattr(layer, "eps")} == {0.8}
    steps = lab.TABLE_STEPS["mnist"]
    assert (steps["gan"], steps["wgan"], steps["sgd"]) == (2e-4, 5e-5, 1e-3)
    # equal effective steps: lr / (1 - momentum)
    fair = {m: s for m, s in lab.TABLE_ROWS[2] if m != "rmsprop"}
    assert fair["sgd-nm"] / 1.5 == pytest.approx(fair["sgd"]) == pytest.approx(1 / 0.1)


def same(one, other):
    assert set(one) == set(other)
    for name, value in one.items():
        assert np.array_equal(value, other[name], equal_nan=True), name


def test_a_run_that_was_cut_off_goes_on(tiny, tmp_path, monkeypatch):
    rows = grid("gan-table", 60, game="gan", method=["adam-half", "oadam"])
    undisturbed = run("gan-table", rows, (0,))
    scores, seen = lab.table_scores, []

    def cut(*arguments):
        seen.append(1)
        if len(seen) == 11:
            raise KeyboardInterrupt
        return scores(*arguments)

    states = tmp_path / "cells"
    plain = checkpoint.Checkpoint.__init__
    monkeypatch.setattr(
        checkpoint.Checkpoint,
        "__init__",
        lambda self, *key, seconds=0: plain(self, *key, seconds=0.0),
    )
    monkeypatch.setattr(lab, "table_scores", cut)
    with checkpoint.folder(states, "code"), pytest.raises(KeyboardInterrupt):
        run("gan-table", rows, (0,))
    assert len(list(states.glob("*.state"))) == 1
    seen[:] = [1] * 11
    with checkpoint.folder(states, "code"):
        resumed = run("gan-table", rows, (0,))
    assert len(seen) < 11 + 16 - 5  # not from the start
    for key, data in undisturbed.items():
        same(data, resumed[key])
    assert not list(states.glob("*"))


def test_a_finished_stack_is_not_trained_twice(tiny, tmp_path, monkeypatch):
    rows = grid("gan-table", 2, game="gan", method=["adam-half", "oadam"])
    with checkpoint.folder(tmp_path, "code"):
        cells = lab.run_gan_table(tuple(rows), (0,), "cpu")
        undisturbed = {repr(c): d for c, _, d in lab.run_gan_table(rows, (0,), "cpu")}
        next(cells)
        cells.close()  # the runner's time was over after the first cell
        monkeypatch.setattr(lab, "_train_stack", None)
        ((config, seed, data),) = lab.run_gan_table(rows[1:], (0,), "cpu")
        assert (config, seed) == (rows[1], 0)
        same(data, undisturbed[repr(config)])
    with checkpoint.folder(tmp_path, "other code"), pytest.raises(TypeError):
        list(lab.run_gan_table(rows[1:], (0,), "cpu"))


def test_checkpoints_do_nothing_outside_a_run(tmp_path):
    alone = checkpoint.Checkpoint("key", seconds=0.0)
    alone.save(lambda: 1 / 0)
    alone.clear()
    assert alone.load() is None
    with checkpoint.folder(tmp_path, "code"):
        young = checkpoint.Checkpoint("key", seconds=60.0)
        young.save(lambda: 1 / 0)
        assert young.load() is None


def test_scores_of_samples_that_are_no_numbers():
    bad = torch.full((20, 1, 8, 8), torch.nan)
    scores = lab.table_scores(bad, Scorer(), np.zeros((30, 10)), final=True)
    good = torch.rand(60, 1, 8, 8)
    assert set(scores) == set(
        lab.table_scores(good, Scorer(), Scorer().features(good), final=True)
    )
    assert np.isnan(scores["is"]) and scores["modes"] == 0


def table(score):
    """Results of Table 1 whose last score is a function of game, row and seed."""
    cells = []
    for config in registry.experiment("gan-mnist").full:
        for seed in range(3):
            value = score(config["game"], config["method"], config["step"], seed)
            path = np.linspace(1, value, 8)
            data = {"is": path, "epoch": 200 * np.array(lab.TABLE_MARKS)}
            data |= {"is_splits": value, "is_std": 0.01, "loss_g": path}
            cells.append(Cell(config, seed, data))
    return Results(cells)


def test_metrics_of_table_1():
    order = [m for m, _ in lab.TABLE_ROWS[0]]

    def printed(game, method, step, seed):
        if step != 1 or method not in order:
            return 9.0
        return lab.REPORT_TABLE_1[game][order.index(method)][0] + 0.1 * seed

    results = table(printed)
    assert lab.table_rank(results) == pytest.approx([1, 1, 1])
    gan, wgan, dcgan = (results.where(game=game) for game in lab.TABLE_GAMES)
    assert lab.table_oadam_gain(gan) == pytest.approx([1.207] * 3)
    assert lab.table_oadam_loss(wgan) == pytest.approx([0.329] * 3)
    assert lab.table_nm_best(gan) == pytest.approx([0.063] * 3)
    assert lab.table_oadam_best(dcgan) == pytest.approx([0.026] * 3)
    assert lab.table_sgdnm_untuned(gan) == pytest.approx(
        [2.691 - 9 + 0.1 * seed for seed in range(3)]
    )
    assert lab.table_dcgan_over_wgan(results) == pytest.approx([0.057] * 3)
    early = lab.table_oadam_early(gan)  # three of five marks at most: 0.25 of the way
    assert (early > 0).all() and (early < 1.207).all()
    # seeds are 0.1 apart, splits 0.01: the plus-minus does not cover them
    gaps = np.log(np.array([0.15, 1e-9, 0.15]) / 0.01)
    gaps[1] = np.log(1e-9 / 0.01)
    found = lab.table_spread_covered(results)
    assert found[[0, 2]] == pytest.approx(-gaps[[0, 2]]) and found[1] > 0
    assert lab.table_last_score(gan.where(method="sgd")) == pytest.approx([9] * 3)


def test_metrics_of_table_2():
    cells = []
    for config in registry.experiment("gan-consensus").full:
        for seed in range(2):
            end = 5.0 if config["gamma"] == 10.0 else 1.2
            end -= config["kind"] == "own"
            score = np.r_[np.linspace(1, 2.4, 10), np.linspace(2.3, end, 10)]
            loss = np.cumsum((-1.0) ** np.arange(100)) * (2 if config["gamma"] else 4)
            cells.append(Cell(config, seed, {"is": score, "loss_g": loss}))
    results = Results(cells)
    printed = results.where(method="adam-half", gamma=0.01, kind="joint")
    assert lab.co_table_collapse(printed) == pytest.approx([1.2, 1.2])
    pair = results.where(method="adam-half", gamma=[0.0, 0.01], kind="joint")
    assert lab.co_table_smoother(pair) == pytest.approx([np.log(2)] * 2)
    assert lab.co_table_early(pair) == pytest.approx([0, 0])
    both = results.where(kind="joint", gamma=[0.01, 10.0])
    assert lab.co_table_no_settings(both) == pytest.approx([-3.8, -3.8])
    own = results.where(method="rmsprop-short", gamma=10.0)
    assert lab.co_table_own_gap(own) == pytest.approx([1, 1])
