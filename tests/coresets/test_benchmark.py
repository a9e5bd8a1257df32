"""The benchmark's parts that need a GPU or several processes, at a tiny scale."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "coresets.py"


@pytest.fixture
def bench(monkeypatch):
    for name in ("OMP", "MKL", "OPENBLAS"):  # the file sets what is not set
        monkeypatch.setenv(f"{name}_NUM_THREADS", "1")
    spec = importlib.util.spec_from_file_location("bench_coresets", FILE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_coresets", module)  # for the pool
    spec.loader.exec_module(module)
    return module


def test_selections_and_steps_are_timed_where_they_run(bench, device):
    cells = list(bench.on_gpu(1, str(device), n=400, steps=1))
    names = [c.get("method", c.get("network")) for c, _, _ in cells]
    assert names == ["craig", "grad_match", "LeNet", "ResNet18"]
    assert all(data["s"] > 0 for _, _, data in cells)


def test_plain_peers_select_what_ours_do(bench):
    from lib.coresets import glister, grad_match

    G = bench.gradients(320, 0, width=8, one_class=False)
    G, val = G[:300], G[300:]
    ours = glister(G, 20, val=val, eta=0.01).indices
    np.testing.assert_array_equal(bench.tried(G, val, 20, 0.01), ours)
    one_class = bench.gradients(60, 0, width=8)
    ours = grad_match(one_class, 6, lam=0.5).history[-1]
    assert ours <= bench.refitted(one_class, 6, 0.5) * (1 + 1e-9)


def test_a_pool_selects_as_one_process_does(bench):
    from lib.coresets import craig, facility_cost

    X = np.random.default_rng(0).standard_normal((900, 5))
    picks = bench.pooled(X, 10, np.random.default_rng(0), part=300, workers=1)
    assert len(set(picks.tolist())) == 10
    pooled = facility_cost(X, (picks, np.ones(10)))
    assert pooled <= 1.05 * facility_cost(X, craig(X, 10))
