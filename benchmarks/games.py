"""
Optimizers for games against torch's own and the strongest peer, on the same work.

One step on the 2.0 million parameters of the report's plain GAN, generator and
discriminator together, with fixed gradients: OptimisticAdam, SignedMomentumAdam and
ExtraAdam beside torch's Adam (its fused kernel too, which is a floor for the others),
OGDA and MomentumSGD beside torch's SGD, ExtraAdam beside cooper's. All go by turns in
one process and one thread, timed by the processor's clock. On a machine with a GPU the
same steps are taken there, eagerly, in one call for all tensors; without one these rows
are left out. All is stored as the benchmark "games" of the registry.

    python benchmarks/games.py [--repeats 15]
"""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse  # noqa: E402
import time  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402

from lib import replication  # noqa: E402
from lib.games import (  # noqa: E402
    OGDA,
    ExtraAdam,
    MLPDiscriminator,
    MLPGenerator,
    MomentumSGD,
    OptimisticAdam,
    SignedMomentumAdam,
)

CALLS = 5  # a repeat keeps the best of so many steps: noise only ever adds time
PEERS = ("cooper-optim",)
# what is timed: its name, and the peer whose time it is divided by
RATIOS = {
    "OptimisticAdam": "torch Adam",
    "SignedMomentumAdam": "torch Adam",
    "ExtraAdam": "cooper ExtraAdam",
    "OGDA": "torch SGD",
    "MomentumSGD": "torch SGD",
}


def makers():
    """Return how to make every optimizer from its parameters, by name."""
    found = {
        "torch Adam": lambda p: torch.optim.Adam(p, foreach=True),
        "torch Adam fused": lambda p: torch.optim.Adam(p, fused=True),
        "torch SGD": lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9, foreach=True),
        "OptimisticAdam": OptimisticAdam,
        "SignedMomentumAdam": SignedMomentumAdam,
        "ExtraAdam": ExtraAdam,
        "OGDA": lambda p: OGDA(p, 1e-3),
        "MomentumSGD": lambda p: MomentumSGD(p, 1e-3, -0.5),
    }
    try:
        from cooper.optim import ExtraAdam as Cooper

        found["cooper ExtraAdam"] = Cooper
    except ImportError:
        print("cooper-optim is not installed: no comparison with it")
    return found


def parameters(device):
    """The weights of the report's plain GAN, each with a gradient."""
    networks = MLPGenerator(generator=0), MLPDiscriminator(generator=1)
    weights = [w for network in networks for w in network.to(device).parameters()]
    rng = np.random.default_rng(0)
    for weight in weights:
        weight.grad = torch.tensor(
            rng.standard_normal(weight.shape), dtype=weight.dtype, device=device
        )
    return weights


def advance(optimizer):
    """Take one step: both phases, where there are two."""
    for phase in ("extrapolate", "extrapolation"):
        if hasattr(optimizer, phase):
            getattr(optimizer, phase)()
    optimizer.step()


def seconds(optimizer, device):
    if device == "cpu":
        start = time.process_time()
        advance(optimizer)
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    advance(optimizer)
    torch.cuda.synchronize()
    return time.perf_counter() - start


def steps(repeats):
    """Yield (configuration, repeat, numbers) for one step of every optimizer."""
    for device in ("cpu", "cuda"):
        if device == "cuda" and not torch.cuda.is_available():
            print("no CUDA device: its rows are left out")
            continue
        optimizers = {name: make(parameters(device)) for name, make in makers().items()}
        for optimizer in optimizers.values():
            for _ in range(3):
                advance(optimizer)
        size = sum(w.numel() for w in parameters("cpu"))
        config = {"kind": "step", "parameters": size, "device": device}
        names = list(optimizers)
        for repeat in range(repeats):
            took = dict.fromkeys(names, np.inf)
            for call in range(CALLS):
                for name in names if (repeat + call) % 2 else names[::-1]:
                    took[name] = min(took[name], seconds(optimizers[name], device))
            numbers = {f"{name}_s": value for name, value in took.items()}
            for name, peer in RATIOS.items():
                if peer in took:
                    numbers[f"{name}_ratio"] = took[name] / took[peer]
            yield config, repeat, numbers


def report(results):
    """Print the times of a step, and ours over the peer's."""
    for config in results.where(kind="step").configs:
        cells = results.where(**config)
        print(f"{config['parameters']} parameters, {config['device']}: ms a step")
        for key in sorted(cells[0].data):
            if not key.endswith("_s"):
                continue
            name = key[:-2]
            line = f"  {name:19s} {1e3 * cells.values(key).min():6.2f}"
            if f"{name}_ratio" in cells[0].data:
                low, mid, high = np.quantile(cells.values(f"{name}_ratio"), [0, 0.5, 1])
                line += f"   {mid:.2f} [{low:.2f}, {high:.2f}] of {RATIOS[name]}"
            print(line)


def main():
    """Measure, store and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--repeats", type=int, default=15)
    torch.set_num_threads(1)
    cells = [*steps(parser.parse_args().repeats)]
    modules = ("lib.games.optim",)
    replication.save_benchmark("games", "games", cells, packages=PEERS, modules=modules)
    report(replication.load("games", tier="bench"))


if __name__ == "__main__":
    main()
