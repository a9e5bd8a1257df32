"""What the chapter on Kumar et al. measures with: graphs, peers, tiny experiments."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import nnls

from lib.graphs import LaplacianGraphicalLasso, laplacian, laplacian_adjoint
from lib.graphs.operators import edge_index
from lib.replication.experiments import graphs as lab

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "graphs.py"


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP", "MKL", "OPENBLAS"):  # the file sets what is not set
            patch.setenv(f"{name}_NUM_THREADS", "1")
        spec = importlib.util.spec_from_file_location("bench_graphs", FILE)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("structure", ["grid", "modular", "er"])
def test_graphs_are_connected_with_weights_in_range(structure):
    L = lab.kumar_graph(structure, 36, np.random.default_rng(0))
    w = -L[tuple(edge_index(36))]
    assert np.linalg.eigvalsh(L)[1] > 0
    assert w[w > 0].min() >= 0.1 and w.max() <= 3.0
    if structure == "grid":
        assert (w > 0).sum() == 60  # 2 * 6 * 5
        assert np.array_equal(np.unique((L < 0).sum(0)), [2, 3, 4])
    if structure == "modular":
        i, j = edge_index(36)
        inside = i // 9 == j // 9
        assert (w[inside] > 0).mean() > 5 * (w[~inside] > 0).mean()
    with pytest.raises(ValueError, match="structure must be"):
        lab.kumar_graph("ring", 36, np.random.default_rng(0))


def test_the_nearest_laplacian_is_that_of_least_squares(benchmark):
    S = benchmark.covariance(7, 20, 0)
    A = np.array([laplacian(e).ravel() for e in np.eye(21)]).T
    w, _ = nnls(A, np.linalg.pinv(S).ravel())
    assert np.allclose(lab.kumar_qp(S), laplacian(w), atol=1e-5)


@pytest.mark.parametrize("options", [{"rho": 0.1}, {"balance": True}])
def test_the_stand_in_for_admm_is_correct(benchmark, options):
    S = benchmark.covariance(8, 30, 0)
    best = LaplacianGraphicalLasso(assume="covariance", tol=1e-8).fit(S)
    count = benchmark.admm_iterations(S, best.objective_, **options)
    assert count is not None
    solver = benchmark.ADMM(S, **options)
    for _ in range(2000):
        solver.step()
    assert np.allclose(solver.weights(), best.weights_, atol=1e-6)
    assert np.allclose(laplacian(solver.weights()), solver.Theta, atol=1e-6)


def test_the_peers_calls_are_counted(benchmark):
    S = benchmark.covariance(8, 30, 1)
    best = LaplacianGraphicalLasso(assume="covariance", tol=1e-8).fit(S)
    count, seconds = benchmark._scipy(S, best.objective_)
    assert count > 5 and seconds > 0
    assert laplacian_adjoint(S).shape == (28,)


def results(run, configs, seeds=(0, 1)):
    cells = list(run(configs, seeds, "cpu"))
    assert len(cells) == len(configs) * len(seeds)
    return cells


TINY = {
    lab.run_kumar_structures: [{"structure": "er", "p": 25, "ratio": 2.0}],
    lab.run_kumar_race: [{"p": 6, "gamma": 0.0, "beta": 1.0, "sweeps": 2000}],
    lab.run_kumar_trap: [
        {"p": 8, "n": 20, "beta": 1e4, "reltol": 1e-4, "limit": 50},
    ],
    lab.run_kumar_size: [{"p": 10}, {"p": 20}],
}


@pytest.mark.parametrize("run", TINY, ids=lambda run: run.__name__)
def test_tiny_experiments(run):
    for _, _, data in results(run, TINY[run]):
        for key, value in data.items():
            if key not in ("gap_map", "calls_block_mm"):
                assert np.isfinite(np.asarray(value, float)).all(), key
        if run is lab.run_kumar_race:
            assert data["calls_lbfgs"] < data["calls_fista"] < 2000
            for name in ("lbfgs", "fista", "block_mm"):
                assert (np.diff(data[f"gap_{name}"]) <= 1e-3).all()
        if run is lab.run_kumar_trap:
            assert data["stopped"] and data["sweeps"] < 50
            assert data["residual"] > 1e-3
        if run is lab.run_kumar_size:
            assert data["converged_mle"] and abs(data["gap_mle"]) < 1e-8


def test_tiny_densification():
    configs = [
        {"p": 10, "n": 20, "method": method}
        for method in ("laplacian-l1", "laplacian-mcp", "prior-true")
    ]
    for config, _, data in results(lab.run_kumar_densify, configs):
        if config["method"] == "laplacian-l1":
            assert data["support"][-1] == data["possible"] == 45
            assert data["edges"][-1] > data["edges"][0]
        assert (data["edges"] <= data["support"]).all()


def test_without_a_gpu_its_part_is_left_out(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(benchmark.torch.cuda, "is_available", lambda: False)
    assert not list(benchmark.gpu(1))
    assert "no GPU" in capsys.readouterr().out


def test_the_batch_part_runs(benchmark):
    cells = list(benchmark.batch(1, grid=((6, 20, 3),)))
    assert [config["case"] for config, _, _ in cells] == ["mle", "map"]
    for _, _, numbers in cells:
        assert numbers["converged"] == 1.0 and numbers["fit_s"] > 0
