"""The experiments of the full tier at a tiny scale, and what their metrics assume."""

import numpy as np
import pytest
import torch

from lib import replication
from lib.replication.experiments import coresets as lab

STRATEGIES = lab._IMAGE_STRATEGIES


def tiny(shape, n):
    """Random images with labels in turn: training, held out, test."""
    rng = np.random.default_rng(0)
    return [
        (
            torch.from_numpy(rng.standard_normal((m, *shape)).astype(np.float32)),
            torch.arange(m) % 10,
        )
        for m in (n, 40, 40)
    ]


def run(monkeypatch, device, data, strategies, epochs=6):
    shape, n = {"cifar10": ((3, 32, 32), 60), "mnist": ((1, 28, 28), 240)}[data]

    def parts(data, seed, where):
        return [(X.to(where), y.to(where)) for X, y in tiny(shape, n)]

    monkeypatch.setattr(lab, "image_parts", parts)
    configs = [
        {"data": data, "strategy": s, "epochs": epochs, "lr": 0.01} for s in strategies
    ]
    cells = list(lab.run_subset_images(configs, (0,), str(device)))
    assert [cell[0]["strategy"] for cell in cells] == list(strategies)
    return {config["strategy"]: data for config, _, data in cells}


def test_images_run_with_every_strategy(monkeypatch, device):
    cells = run(monkeypatch, device, "mnist", STRATEGIES)
    for strategy, data in cells.items():
        assert np.isfinite(data["loss"]).all()
        every = {"full": 1, "full_es": 6, "random_fixed": 1}.get(strategy, 2)
        assert data["selections"] == every == len(data["ess"])
        # 240 samples, 24 of them or a batch, in batches of 20, for six epochs
        steps = {"full": 72, "grad_match_batch": 6}.get(strategy, 12)
        assert data["step"][-1] == steps
        assert len(data["loss"]) == 2  # after the epochs 4 and 6


def test_images_in_colour_run_a_residual_network(monkeypatch, device):
    cells = run(monkeypatch, device, "cifar10", ("random", "glister"), epochs=1)
    assert all(np.isfinite(data["loss"]).all() for data in cells.values())


def test_image_parts_are_disjoint_and_standardised():
    train, held, test = lab.image_parts("fashion-mini", 0)
    assert [len(y) for _, y in (train, held, test)] == [2700, 300, 1000]
    rows = torch.cat([train[0], held[0]]).flatten(1)
    assert len(torch.unique(rows, dim=0)) == 3000
    assert rows.dtype == torch.float64
    assert abs(float(rows.mean())) < 0.01
    assert abs(float(rows.std()) - 1) < 0.01


def test_wrong_labels_are_wrong_and_rare_classes_rare():
    X, y = lab.digit_parts(0)[0]
    _, noisy, wrong = lab.damaged((X, y), "noise", 0.4, 0)
    np.testing.assert_array_equal(noisy != y, wrong)
    assert wrong.sum() == 480
    kept, labels, _ = lab.damaged((X, y), "imbalance", 0.1, 0)
    share = np.bincount(labels, minlength=10) / np.bincount(y)
    assert np.sum(share == 1) == 5
    assert np.all(share[share < 1] < 0.3)
    assert len(kept) == len(labels)


def test_moved_loss_is_what_glister_records():
    from lib.coresets import glister

    G, val, _ = lab.glister_state("start", 0)
    core = glister(G, 30, val=val, eta=0.01)
    assert core.history[-1] == pytest.approx(
        lab.moved_loss(G, val, core.indices, 0.01), rel=1e-9
    )


def test_the_clock_scales_steps_and_passes_alone():
    def cell(strategy, select):
        steps = np.array([10.0, 20.0])
        return replication.Cell(
            {"strategy": strategy},
            0,
            {
                "step": steps,
                "step_seconds": 0.1 * steps,
                "selection_seconds": np.array([1.0, 2.0]) * (3.0 + select),
                "selections": np.array(2.0),
                "forward_seconds": np.array(3.0),
                "loss": np.array([1.0, 0.1]),
            },
        )

    cells = [cell("grad_match", 0.5), cell("craig", 0.25)]
    results = replication.Results(cells, experiment="x", tier="full")
    step, forward, select = lab.unit_costs(results)
    assert (step, forward) == pytest.approx((0.1, 3.0))
    assert select == pytest.approx({"grad_match": 0.5, "craig": 0.25})
    seconds = lab.clock(results, "grad_match")
    np.testing.assert_allclose(seconds, [1 + 3.5, 2 + 7])
    slower = lab.clock(results, "grad_match", step_factor=10)
    np.testing.assert_allclose(slower, [10 + 30.5, 20 + 61])
    # halfway between two evaluations, in the logarithm
    middle = lab.at_time(results, "grad_match", seconds.mean())
    np.testing.assert_allclose(middle, [10**-0.5])
