"""
Selection of coresets against plain implementations and their strongest peer.

In one process and one thread, by the processor's clock, on the same last-layer
gradients of one class:

- facility: exact greedy facility location, ours against submodlib's lazy greedy, where
  that is installed, on one matrix of similarities;
- matching: GRAD-MATCH, ours with the Gram matrix included, against a pursuit that
  solves non-negative least squares from the start after every pick;
- glister: GLISTER, ours against a greedy that tries the step of every candidate;
- growth: the time of a pick of GRAD-MATCH without pairs, against the samples;
- rounds: CRAIG in two rounds over parts, in one process and with the first round in a
  pool of two, by the clock on the wall, against the samples.

All is stored as the benchmark "coresets" of the registry. With --device cuda the
selections of 54,000 samples class by class and the steps of LeNet and ResNet18 are
timed there instead, and stored as "coresets-cuda".

    python benchmarks/coresets.py [--repeats 3] [--device cuda]
"""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402
from concurrent.futures import ProcessPoolExecutor  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from scipy.optimize import nnls  # noqa: E402

from lib import replication  # noqa: E402
from lib.coresets import (  # noqa: E402
    LeNet,
    ResNet18,
    craig,
    facility_cost,
    facility_location,
    glister,
    grad_match,
    last_layer_gradients,
)
from lib.coresets.facility_location import greedy  # noqa: E402

try:
    from submodlib import FacilityLocationFunction
except ImportError:
    FacilityLocationFunction = None

FACILITY = (1500, 5400)
MATCHING = ((1500, 150), (3000, 300))
GLISTER = ((5400, 540, 600),)
GROWTH = (10_000, 100_000, 1_000_000)
ROUNDS = (16_000, 48_000, 144_000)


def seconds(call):
    """Processor seconds of a call, and what it gives."""
    start = time.process_time()
    answer = call()
    return time.process_time() - start, answer


def gradients(n, seed, width=84, classes=10, one_class=True, dtype=np.float64):
    """Last-layer gradients at random logits and rectified features."""
    rng = np.random.default_rng([n, width, seed])
    z = rng.standard_normal((n, classes)).astype(dtype)
    y = np.full(n, 3) if one_class else rng.integers(classes, size=n)
    z[np.arange(n), y] += 2
    h = np.maximum(rng.standard_normal((n, width)).astype(dtype), 0)
    return last_layer_gradients(z, y, h)


def facility(repeats):
    """Ours and submodlib's on one matrix."""
    for n in FACILITY:
        for seed in range(repeats):
            rng = np.random.default_rng([n, seed])
            x = rng.standard_normal((n, 20)) * rng.exponential(size=(n, 1))
            square = (x * x).sum(1)
            D = np.sqrt(np.maximum(square[:, None] + square - 2 * x @ x.T, 0))
            S = (D.max() - D).astype(np.float32)
            ours, (picks, _) = seconds(lambda S=S, n=n: facility_location(S, n // 10))
            data = {"ours_s": ours, "ours_F": S[:, picks].max(1).sum(dtype=float)}
            if FacilityLocationFunction is not None:
                peer = FacilityLocationFunction(
                    n=n, mode="dense", separate_rep=False, sijs=S
                )
                theirs, chosen = seconds(
                    lambda peer=peer, n=n: peer.maximize(
                        budget=n // 10, optimizer="LazyGreedy", show_progress=False
                    )
                )
                chosen = [j for j, _ in chosen]
                data["submodlib_s"] = theirs
                data["submodlib_F"] = S[:, chosen].max(1).sum(dtype=float)
            yield {"kind": "facility", "n": n}, seed, data


def refitted(G, k, lam):
    """Pursuit with a fit from the start after every pick; weights and squared error."""
    A, b = G.dense(), G.sum(np.ones(len(G))).ravel()
    S, w = [], np.zeros(0)
    while len(S) < k:
        r = A @ (b - w @ A[S])
        r[S] = -np.inf
        S.append(int(r.argmax()))
        rows = np.vstack([A[S].T, np.sqrt(lam) * np.eye(len(S))])
        w = nnls(rows, np.append(b, np.zeros(len(S))), maxiter=10**5)[0]
    return ((w @ A[S] - b) ** 2).sum() + lam * (w @ w)


def matching(repeats):
    """Ours against the pursuit above, at one penalty."""
    for n, k in MATCHING:
        for seed in range(repeats):
            G = gradients(n, seed)
            ours, core = seconds(lambda G=G, k=k: grad_match(G, k, lam=0.5))
            theirs, value = seconds(lambda G=G, k=k: refitted(G, k, 0.5))
            yield (
                {"kind": "matching", "n": n, "k": k},
                seed,
                {
                    "ours_s": ours,
                    "ours_E": core.history[-1],
                    "plain_s": theirs,
                    "plain_E": value,
                },
            )


def tried(G, val, k, eta):
    """Greedy by the first-order gain at the moved point, all gradients written out."""
    A, H, Z = G.dense(), val.layers[0][1], np.array(val.logits)
    P, F = G.layers[0]
    y, picks = np.asarray(val.y), []
    for _ in range(k):
        E = np.exp(Z - Z.max(1, keepdims=True))
        E /= E.sum(1, keepdims=True)
        E[np.arange(len(y)), y] -= 1
        V = (E.T @ H / len(y)).ravel()
        gains = np.array([a @ V for a in A])
        gains[picks] = -np.inf
        j = int(gains.argmax())
        picks.append(j)
        Z = Z - eta * np.outer(H @ F[j], P[j])
    return picks


def held_out(repeats):
    """GLISTER after each pick, ours and the plain one."""
    for n, k, held in GLISTER:
        for seed in range(repeats):
            G = gradients(n + held, seed, one_class=False, dtype=np.float32)
            G, val = G[:n], G[n:]
            ours, core = seconds(
                lambda G=G, val=val, k=k: glister(G, k, val=val, eta=0.01)
            )
            theirs, picks = seconds(
                lambda G=G, val=val, k=k: tried(G, val, k, 0.01)
            )
            same = np.mean(np.asarray(picks) == core.indices)
            yield (
                {"kind": "glister", "n": n, "k": k},
                seed,
                {"ours_s": ours, "plain_s": theirs, "same": same},
            )


def growth(repeats):
    """Seconds of a pick without pairs."""
    for n in GROWTH:
        G = gradients(n, 0, width=32, dtype=np.float32)
        for seed in range(repeats):
            spent, _ = seconds(lambda G=G: grad_match(G, 10, lam=0.5))
            yield {"kind": "growth", "n": n}, seed, {"pick_s": spent / 10}


def first_round(X, k):
    """Winners of one part and how many points each stands for."""
    core = craig(X, k)
    return core.indices, core.weights


def pooled(X, k, rng, part=4000, workers=2):
    """CRAIG in two rounds, the first one in a pool of processes; indices."""
    parts = np.array_split(rng.permutation(len(X)), -(-len(X) // part))
    with ProcessPoolExecutor(workers) as pool:
        points = [X[rows] for rows in parts]
        found = list(pool.map(first_round, points, [k] * len(parts)))
    winners = np.concatenate([r[i] for r, (i, _) in zip(parts, found, strict=True)])
    weights = np.concatenate([w for _, w in found])
    Y = X[winners]
    square = (Y * Y).sum(1)
    D = np.sqrt(np.maximum(square[:, None] + square - 2 * Y @ Y.T, 0))
    return winners[greedy(D.max() - D, k, weights)[0]]


def rounds(repeats):
    """Two rounds in one process and in a pool; seconds on the wall and costs."""
    for n in ROUNDS:
        for seed in range(repeats):
            rng = np.random.default_rng([n, seed])
            X = rng.standard_normal((n, 32)) * rng.exponential(size=(n, 1))
            data = {}
            calls = {
                "serial": lambda X=X: craig(X, 100, method="partition", random_state=0),
                "pool": lambda X=X: pooled(X, 100, np.random.default_rng(0)),
            }
            for name, call in calls.items():
                start = time.perf_counter()
                picks = call()
                data[f"{name}_s"] = time.perf_counter() - start
                picks = picks.indices if name == "serial" else picks
                data[f"{name}_cost"] = facility_cost(X, (picks, np.ones(100)))
            yield {"kind": "rounds", "n": n}, seed, data


def on_gpu(repeats, device, n=54_000, steps=200):
    """Selections class by class, and steps on batches of 20, on one device."""
    for seed in range(repeats):
        G = gradients(n, seed, one_class=False, dtype=np.float32)
        z, y, h = (
            torch.as_tensor(part).to(device)
            for part in (G.logits, G.y, G.layers[0][1][:, :-1])
        )
        G = last_layer_gradients(z, y, h)
        calls = {
            "craig": lambda G=G, y=y: craig(G, n // 10, y=y),
            "grad_match": lambda G=G, y=y: grad_match(G, n // 10, y=y),
        }
        for name, call in calls.items():
            spent = on_the_wall(call, device)
            yield {"kind": "selection", "method": name, "n": n}, seed, {"s": spent}
        for net, shape in ((LeNet, (1, 28, 28)), (ResNet18, (3, 32, 32))):
            spent = on_the_wall(training(net, shape, steps, device), device)
            config = {"kind": "step", "network": net.__name__}
            yield config, seed, {"s": spent / steps}


def training(net, shape, steps, device):
    """A function that makes steps on one batch of 20, as `fit_coreset` does."""
    model = net(generator=0).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x = torch.randn(20, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    y = (torch.arange(20) % 10).to(device)

    def run():
        for _ in range(steps):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    return run


def on_the_wall(call, device):
    """Seconds of a second call, all work of the device included."""
    for _ in range(2):
        wait(device)
        start = time.perf_counter()
        call()
        wait(device)
    return time.perf_counter() - start


def wait(device):
    """Wait for a device that works on its own."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def report_gpu(results):
    """Medians, in milliseconds."""
    for config in results.configs:
        text = ", ".join(f"{k} {v}" for k, v in config.items())
        spent = np.median(results.where(**config).values("s"))
        print(f"{text}: {1e3 * spent:.2f} ms")


def report(results):
    """Medians of what was measured."""
    for config in results.configs:
        cells = results.where(**config)
        text = ", ".join(f"{k} {v}" for k, v in config.items())
        if config["kind"] == "growth":
            print(f"{text}: {1e3 * np.median(cells.values('pick_s')):.2f} ms a pick")
            continue
        if config["kind"] == "rounds":
            one, two = (cells.values(f"{k}_s").ravel() for k in ("serial", "pool"))
            off = cells.values("pool_cost") / cells.values("serial_cost") - 1
            print(f"{text}: {np.median(one):.1f} s, in a pool {np.median(two):.1f} s, "
                  f"its cost {off.min():+.1e} to {off.max():+.1e}")
            continue
        ours = cells.values("ours_s").ravel()
        print(f"{text}: {np.median(ours):.3f} s")
        for peer in ("submodlib", "plain"):
            if f"{peer}_s" in cells[0].data:
                ratio = cells.values(f"{peer}_s").ravel() / ours
                print(f"    {peer} over ours {np.median(ratio):.1f}")
        for mine, theirs in (("ours_F", "submodlib_F"), ("ours_E", "plain_E")):
            if theirs in cells[0].data:
                off = cells.values(mine).ravel() / cells.values(theirs).ravel() - 1
                print(f"    objective, relative to theirs {off.min():.1e} "
                      f"to {off.max():.1e}")
        if "same" in cells[0].data:
            print(f"    same picks {cells.values('same').min():.2f}")
    cells = results.where(kind="growth")
    size, spent = cells.curve("pick_s", over="n")
    power = np.polyfit(np.log(size), np.log(spent).T, 1)[0]
    print(f"time of a pick grows as n^{power.mean():.2f}")
    size, spent = results.where(kind="rounds").curve("serial_s", over="n")
    power = np.polyfit(np.log(size), np.log(spent).T, 1)[0]
    print(f"time of two rounds grows as n^{power.mean():.2f}")


def main():
    """Measure, store and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    repeats, device = options.repeats, options.device
    torch.set_num_threads(1)
    if FacilityLocationFunction is None:
        print("submodlib is not installed: pip install submodlib-py; without it")
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    names = ("selectors", "facility_location", "matching_pursuit", "gradients")
    modules = [f"lib.coresets.{name}" for name in names]
    if device == "cpu":
        name = "coresets"
        parts = (facility, matching, held_out, growth, rounds)
        cells = [cell for part in parts for cell in part(repeats)]
    else:
        name, cells = "coresets-cuda", list(on_gpu(repeats, device))
        modules.append("lib.coresets.models")
    replication.save_benchmark(
        name, "coresets", cells, modules=tuple(modules), device=device
    )
    results = replication.load(name, tier="bench")
    report(results) if device == "cpu" else report_gpu(results)


if __name__ == "__main__":
    main()
