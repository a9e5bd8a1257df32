"""The benchmark's training part runs: here at a tiny scale, on the CPU."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.games import (
    DCGANDiscriminator,
    DCGANGenerator,
    MLPDiscriminator,
    MLPGenerator,
)

FILE = Path(__file__).parents[2] / "benchmarks" / "games.py"


@pytest.fixture
def bench(monkeypatch):
    for name in ("OMP", "MKL", "OPENBLAS"):  # the file sets what is not set
        monkeypatch.setenv(f"{name}_NUM_THREADS", "1")
    spec = importlib.util.spec_from_file_location("bench_games", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def narrow(data, game, seed):
        stream = torch.Generator().manual_seed(seed)
        if game == "dcgan":
            G = DCGANGenerator(32, 4, width=1, generator=stream)
            return G, DCGANDiscriminator(32, width=1, generator=stream)
        G = MLPGenerator(4, hidden=(8, 8), generator=stream)
        return G, MLPDiscriminator(hidden=(8,), generator=stream)

    monkeypatch.setattr(module.lab, "table_networks", narrow)
    return module


def test_epochs_and_consensus_steps(bench, monkeypatch):
    monkeypatch.setattr(bench, "STACKS", {"dcgan": (1,), "gan": (2,), "wgan": (2,)})
    options = {"plain": 1, "iterations": 5, "chunk": 5}
    cells = list(bench.training(1, "cpu", **options))
    games = [config.get("game", "consensus") for config, _, _ in cells]
    assert games == ["dcgan", "consensus", "gan", "wgan"]
    for _, repeat, numbers in cells:
        assert repeat == 0 and all(np.isfinite(v) and v > 0 for v in numbers.values())
    for k in (0, 2, 3):
        numbers = cells[k][2]
        assert numbers["plain_s"] / numbers["stacked_s"] == pytest.approx(
            numbers["ratio"]
        )


def test_without_a_gpu_its_rows_are_left_out(bench, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert not list(bench.training(1))
    assert "left out" in capsys.readouterr().out


def test_the_plain_loop_is_the_stacks_game(bench):
    """One model, the same data, the same optimizer: losses of one size."""
    images = np.zeros((64, 28, 28), np.uint8)
    for game in ("gan", "wgan"):
        assert len(list(bench.plain_loop(game, images, 2, "cpu"))) == 2
