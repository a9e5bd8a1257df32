"""The experiments on optimism at a tiny scale."""

import functools

import numpy as np
import pytest
import torch

import lib.games
from lib.games import digits_networks, ring_networks
from lib.replication.experiments import games as experiments


@pytest.mark.parametrize("beta1", [-0.5, 0.0, 0.3, 0.9])
@pytest.mark.parametrize("optimism", [0.0, 1.0, 2.5])
def test_lead_and_noise_are_moments_of_the_weights(beta1, optimism):
    k = np.arange(2000)
    average = (1 - beta1) * beta1**k if beta1 else 1.0 * (k == 0)
    h = (1 + optimism) * average - optimism * np.r_[0, average[:-1]]
    assert h.sum() == pytest.approx(1, abs=1e-12)
    assert experiments.lead(beta1, optimism) == pytest.approx(-(k @ h), abs=1e-9)
    assert experiments.noise_gain(beta1, optimism) == pytest.approx(h @ h, rel=1e-12)


@pytest.mark.parametrize("networks", [ring_networks, digits_networks])
def test_a_stack_is_its_networks_side_by_side(networks):
    pairs = [networks(generator=seed) for seed in range(3)]
    rng = np.random.default_rng(0)
    widths = pairs[0][0].latent_dim, pairs[0][1].layers[1].in_features
    for part, width in enumerate(widths):
        stack = experiments._Stack([pair[part] for pair in pairs])
        x = torch.tensor(rng.standard_normal((3, 16, width)))
        found = stack(x)
        for copy, pair in enumerate(pairs):
            alone = pair[part].double().train()(x[copy]).reshape(16, -1)
            torch.testing.assert_close(found[copy], alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["ring", "digits"])
def test_a_cell_does_not_depend_on_its_neighbours(name, monkeypatch):
    hasty = functools.partial(lib.games.ClassifierScorer, epochs=1)
    monkeypatch.setattr(lib.games, "ClassifierScorer", hasty, raising=False)
    run = getattr(experiments, f"run_optimism_{name}")
    rest = {"lr": 2e-3, "batch": 8, "steps": 16}
    configs = [{"beta1": b, "optimism": o, **rest} for b, o in ((0.5, 1.0), (0.0, 0.0))]
    seeds = range(6)  # more than one chunk
    whole = {(c["beta1"], s): found for c, s, found in run(configs, seeds, "cpu")}
    assert len(whole) == 12
    for part, chosen in ((configs[:1], [3]), (configs, [5])):
        for config, seed, found in run(part, chosen, "cpu"):
            other = whole[config["beta1"], seed]
            assert found.keys() == other.keys()
            for key in found:
                np.testing.assert_array_equal(found[key], other[key])


def test_departure_is_zero_for_adam_without_momentum_only():
    configs = [
        {"beta1": b, "optimism": o, "lr": 1e-3, "batch": 16, "steps": 40}
        for b, o in experiments.ADAMS.values()
    ]
    late = {
        (c["beta1"], c["optimism"]): found["departure"][-4:].mean()
        for c, _, found in experiments.run_optimism_ring(configs, [0], "cpu")
    }
    assert late[0.0, 0.0] < 1e-12
    assert late[0.5, 1.0] < 0.1 < 0.3 < min(late[0.5, 0.0], late[0.0, 1.0])


def test_metrics_are_one_number_a_seed():
    from lib.replication import Cell, Results

    def results(run, configs, seeds=(0, 1)):
        return Results(
            Cell(c, s, {k: np.asarray(v) for k, v in found.items()})
            for c, s, found in run(configs, list(seeds), "cpu")
        )

    family = [
        {"part": "adam", "beta1": b, "optimism": o, "update": update}
        | {"lr": 0.02, "steps": 200}
        for b, o in experiments.ADAMS.values()
        for update in ("simultaneous", "alternating")
    ]
    games = [{"part": "horizon", "steps": T} for T in (100, 400)] + family
    games += [{"part": "rate", "method": "ogda", "step": 0.3, "steps": 60}]
    found = results(experiments.run_optimism_bilinear, games)
    slope = experiments.last_iterate_slope(found.where(part="horizon"))
    np.testing.assert_allclose(slope, -0.5, atol=0.02)
    slope = experiments.average_iterate_slope(found.where(part="horizon"))
    np.testing.assert_allclose(slope, -1.0, atol=0.1)
    assert experiments.bilinear_rate_error(found.where(part="rate")).shape == (2,)
    adams = found.where(part="adam", update="simultaneous")
    assert np.all(experiments.true_optimism_bilinear_gain(adams) > 0)
    assert np.abs(experiments.oadam_bilinear_gain(adams)).max() < 0.1

    wgan = [
        {"method": method, "batch": batch, "lr": 0.1, "steps": 800}
        for method in ("gda", "ogda", "zero-penalty")
        for batch in (0, 500)
    ]
    found = results(experiments.run_optimism_wgan, wgan)
    for method, cycles in (("gda", True), ("ogda", False), ("zero-penalty", False)):
        answer = experiments.wgan_cycles(found.where(method=method, batch=0))
        assert answer.tolist() == [cycles, cycles]
    some = found.where(method=["gda", "ogda"], batch=500)
    assert np.all(experiments.wgan_optimism_gain(some) > 0)
