"""
Convex programs of two-layer networks against their strongest peers.

Four parts, in one process and one thread, by the processor's clock:

- gated: the gated program, ours certified to a relative gap of 1e-8, against scnn
  (float64, its objective, no rescaling of the data), run with falling tolerances until
  it is within 1e-6 of the optimum, and against the interior-point solver Clarabel;
- relu: the ReLU program, ours certified to 1e-6, against Clarabel;
- growth: our times against n, d and P, one at a time;
- gpu: the gated program on a GPU, where there is one.

All is stored as the benchmark "convexnn" of the registry.

    python benchmarks/convexnn.py [--repeats 3]
"""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402

from lib import replication  # noqa: E402
from lib.convexnn import (  # noqa: E402
    ConvexReLURegressor,
    GatedReLURegressor,
    sample_arrangements,
)

try:
    import scnn  # noqa: F401
except ImportError:
    scnn = None

GATED = ((200, 10, 100, 0.01), (500, 20, 200, 0.01), (1000, 50, 500, 0.01))
RELU = ((200, 10, 100, 0.05), (200, 10, 100, 0.01), (1000, 20, 300, 0.05))
CLARABEL = 250  # most points for which the interior-point method is run
GROWTH = {
    "n": [(n, 20, 200) for n in (250, 500, 1000, 2000)],
    "d": [(500, d, 200) for d in (10, 40, 160, 640)],
    "P": [(500, 20, P) for P in (100, 400, 1600, 6400)],
}
GPU = ((1000, 50, 500), (10_000, 784, 1000), (10_000, 784, 4000))
TOLERANCES = (1e-6, 1e-8, 1e-10, 1e-12)


def seconds(call):
    """Processor seconds of a call, and what it gives."""
    start = time.process_time()
    answer = call()
    return time.process_time() - start, answer


def problem(n, d, P, share, seed):
    """Points, targets of ten planted neurons, gates, and the penalty."""
    rng = np.random.default_rng([n, d, P, seed])
    X = rng.standard_normal((n, d))
    y = np.maximum(X @ rng.standard_normal((d, 10)), 0) @ rng.choice([-1.0, 1.0], 10)
    y += 0.1 * rng.standard_normal(n)
    masks, gates = sample_arrangements(X, P, rng, return_gates=True)
    most = np.linalg.norm(X.T @ (masks * y[:, None]), axis=0).max()
    return X, y, gates, share * most


def gated_value(X, y, gates, beta, U):
    """Objective of the gated program."""
    residual = ((X @ gates >= 0) * (X @ U)).sum(axis=1) - y
    return 0.5 * residual @ residual + beta * np.linalg.norm(U, axis=0).sum()


def scnn_fit(X, y, gates, beta, tol):
    """The peer's weights and gates: it sorts and drops gates."""
    from scnn.metrics import Metrics
    from scnn.models import ConvexGatedReLU
    from scnn.optimize import optimize_model
    from scnn.regularizers import NeuronGL1
    from scnn.solvers import RFISTA

    model = ConvexGatedReLU(gates)
    solver = RFISTA(model, max_iters=100_000, tol=tol)
    model, _ = optimize_model(
        model,
        solver,
        Metrics(metric_freq=100_000),
        X,
        y,
        regularizer=NeuronGL1(beta / len(y)),
        return_convex=True,
        unitize_data=False,
        dtype="float64",
    )
    return model.parameters[0][0].T, model.G


def gated(repeats):
    """Time the gated program."""
    for n, d, P, share in GATED:
        config = {"kind": "gated", "n": n, "d": d, "P": P, "share": share}
        for seed in range(repeats):
            X, y, gates, beta = problem(n, d, P, share, seed)
            ours, fit = seconds(
                lambda X=X, y=y, gates=gates, beta=beta: GatedReLURegressor(
                    beta, gates=gates, tol=1e-8
                ).fit(X, y)
            )
            found = {"ours_s": ours, "gap": fit.gap_ / fit.objective_}
            found["steps"] = fit.n_iter_
            if n <= CLARABEL:
                found["clarabel_s"], _ = seconds(
                    lambda X=X, y=y, gates=gates, beta=beta: GatedReLURegressor(
                        beta, gates=gates, solver="cvxpy", tol=1e-3
                    ).fit(X, y)
                )
            if scnn is not None:
                for tol in TOLERANCES:
                    spent, (U, G) = seconds(
                        lambda X=X, y=y, gates=gates, beta=beta, tol=tol: scnn_fit(
                            X, y, gates, beta, tol
                        )
                    )
                    excess = gated_value(X, y, G, beta, U) / fit.dual_objective_ - 1
                    found |= {"scnn_s": spent, "scnn_excess": excess, "scnn_tol": tol}
                    if excess <= 1e-6:
                        break
            yield config, seed, found


def relu(repeats):
    """Time the ReLU program."""
    for n, d, P, share in RELU:
        config = {"kind": "relu", "n": n, "d": d, "P": P, "share": share}
        for seed in range(repeats):
            X, y, gates, beta = problem(n, d, P, share, seed)
            ours, fit = seconds(
                lambda X=X, y=y, gates=gates, beta=beta: ConvexReLURegressor(
                    beta, gates=gates
                ).fit(X, y)
            )
            found = {"ours_s": ours, "gap": fit.gap_ / fit.objective_}
            found |= {"rounds": fit.n_iter_, "neurons": fit.n_neurons_}
            if n <= CLARABEL:
                found["clarabel_s"], _ = seconds(
                    lambda X=X, y=y, gates=gates, beta=beta: ConvexReLURegressor(
                        beta, gates=gates, solver="cvxpy", tol=1e-2
                    ).fit(X, y)
                )
            yield config, seed, found


def growth(repeats):
    """Time the gated program against one size at a time."""
    for axis, sizes in GROWTH.items():
        for n, d, P in sizes:
            config = {"kind": "growth", "axis": axis, "n": n, "d": d, "P": P}
            for seed in range(repeats):
                X, y, gates, beta = problem(n, d, P, 0.05, seed)
                ours, fit = seconds(
                    lambda X=X, y=y, gates=gates, beta=beta: GatedReLURegressor(
                        beta, gates=gates, tol=1e-8
                    ).fit(X, y)
                )
                yield config, seed, {"ours_s": ours, "steps": fit.n_iter_}


def gpu(repeats):
    """Time the gated program on a GPU; the first fit warms it up and is not counted."""
    if not torch.cuda.is_available():
        print("gpu: no GPU, not run")
        return
    for n, d, P in GPU:
        config = {"kind": "gpu", "n": n, "d": d, "P": P}
        for seed in range(repeats + 1):
            X, y, gates, beta = problem(n, d, P, 0.05, seed)
            model = GatedReLURegressor(beta, gates=gates, tol=1e-8, device="cuda")
            torch.cuda.synchronize()
            start = time.perf_counter()
            fit = model.fit(X, y)
            torch.cuda.synchronize()
            spent = time.perf_counter() - start
            if seed:
                gap = fit.gap_ / fit.objective_
                yield config, seed - 1, {"ours_s": spent, "gap": gap}


def spread(values):
    """Median and range of some ratios."""
    return f"{np.median(values):7.1f} [{values.min():.1f}, {values.max():.1f}]"


def report(results):
    """Print the stored table."""
    print(results.provenance())
    for kind in ("gated", "relu", "gpu"):
        for config in results.where(kind=kind).configs:
            cells = results.where(**config)
            ours = cells.values("ours_s")
            sizes = tuple(config[k] for k in ("n", "d", "P"))
            print(
                f"{kind:6s} {sizes}, share {config.get('share', 0.05)}: "
                f"{np.median(ours):.2f} s, gap {cells.values('gap').max():.0e}"
            )
            for peer in ("scnn", "clarabel"):
                if f"{peer}_s" in cells[0].data:
                    line = spread(cells.values(f"{peer}_s") / ours)
                    if peer == "scnn":
                        line += f", within {cells.values('scnn_excess').max():.0e}"
                    print(f"       {peer:9s} over ours {line}")
    for axis in GROWTH:
        cells = results.where(kind="growth", axis=axis)
        size, spent = cells.curve("ours_s", over=axis)
        power = np.polyfit(np.log(size[-3:]), np.log(spent[:, -3:]).T, 1)[0]
        print(f"time grows as {axis}^{power.mean():.2f}")


def main():
    """Measure, store and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    if scnn is None:
        print("scnn is not installed: pip install pyscnn; going on without it")
    warnings.filterwarnings("ignore", category=UserWarning)
    cells = [*gated(repeats), *relu(repeats), *growth(repeats), *gpu(repeats)]
    names = ("arrangements", "oracles", "gated", "relu", "estimators")
    modules = tuple(f"lib.convexnn.{name}" for name in names)
    replication.save_benchmark("convexnn", "convexnn", cells, modules=modules)
    report(replication.load("convexnn", tier="bench"))


if __name__ == "__main__":
    main()
