"""
Optimizers for games against torch's own and the strongest peer, on the same work.

One step on the 2.0 million parameters of the report's plain GAN, generator and
discriminator together, with fixed gradients: OptimisticAdam, SignedMomentumAdam and
ExtraAdam beside torch's Adam (its fused kernel too, which is a floor for the others),
OGDA and MomentumSGD beside torch's SGD, ExtraAdam beside cooper's. All go by turns in
one process and one thread, timed by the processor's clock. On a machine with a GPU the
same steps are taken there, eagerly, in one call for all tensors.

On a GPU only: an epoch of the report's DCGAN, GAN and WGAN on MNIST, of one model in a
plain loop as such programs are published (written here from the papers' description:
DataLoader with transforms, one model, losses read at every step) and of one model in a
stack of several, with the distance to the floor that arithmetic and memory set; and the
milliseconds of a consensus step on the DCGAN. Without a GPU these rows are left out.

All is stored as the benchmark "games" of the registry.

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
    StackedGAN,
    StackedRun,
)
from lib.replication.experiments import games as lab  # noqa: E402

CALLS = 5  # a repeat keeps the best of so many steps: noise only ever adds time
PEERS = ("cooper-optim",)
MODULES = ("lib.games.models", "lib.games.optim", "lib.games.stacked")
EPOCH = 937.5  # iterations of 64 images
STACKS = {"dcgan": (1, 5), "gan": (5, 15), "wgan": (5, 15)}
# Seconds that an iteration of one model cannot go below on an H100: its arithmetic at
# the speed of bfloat16 (the DCGAN: 21 GFLOP) plus what it must read and write (130, 70
# and 40 MB) at the speed of the memory.
FLOORS = {"dcgan": 75e-6, "gan": 23e-6, "wgan": 14e-6}
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


def plain_loop(game, images, iterations, device):
    """
    Train one model as published programs do; yield after every iteration.

    The stand-in for those programs: a DataLoader that turns one picture after the other
    into a tensor, one model, both losses read at every step.
    """
    from PIL import Image
    from torch.nn.functional import binary_cross_entropy as cross_entropy
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    size = 32 if game == "dcgan" else 28
    change = transforms.Compose(
        [
            transforms.Resize(size),
            transforms.ToTensor(),
            transforms.Normalize([0.5], [0.5]),
        ]
    )

    class Pictures(Dataset):
        def __len__(self):
            return len(images)

        def __getitem__(self, k):
            return change(Image.fromarray(images[k]))

    G, D = (net.to(device) for net in lab.table_networks("mnist", game, 0))
    lr = lab.TABLE_STEPS["mnist"][game]
    opt_g, opt_d = (
        torch.optim.RMSprop(net.parameters(), lr)
        if game == "wgan"
        else torch.optim.Adam(net.parameters(), lr, (0.5, 0.999))
        for net in (G, D)
    )
    one, zero = torch.ones(64, device=device), torch.zeros(64, device=device)
    loader = DataLoader(Pictures(), batch_size=64, shuffle=True, drop_last=True)
    done = 0
    while True:
        for real in loader:
            real = real.to(device)
            z = torch.randn(64, G.latent_dim, device=device)
            if game == "wgan":
                opt_d.zero_grad()
                loss_d = D(G(z).detach()).mean() - D(real).mean()
                loss_d.backward()
                opt_d.step()
                for w in D.parameters():
                    w.data.clamp_(-0.01, 0.01)
                if done % 5 == 0:
                    opt_g.zero_grad()
                    loss_g = -D(G(z)).mean()
                    loss_g.backward()
                    opt_g.step()
            else:
                opt_g.zero_grad()
                fake = G(z)
                loss_g = cross_entropy(D(fake).sigmoid(), one)
                loss_g.backward()
                opt_g.step()
                opt_d.zero_grad()
                loss_d = cross_entropy(D(real).sigmoid(), one)
                loss_d = (loss_d + cross_entropy(D(fake.detach()).sigmoid(), zero)) / 2
                loss_d.backward()
                opt_d.step()
            _ = loss_d.item(), loss_g.item()
            done += 1
            yield
            if done == iterations:
                return


def stacked_seconds(game, x, n, iterations, chunk, consensus=None):
    """Seconds an iteration of a whole stack of n models."""
    methods = ["adam-half", "oadam", "adam-nm", "adam-zero", "sgd-momentum"]
    lr, gamma = lab.TABLE_STEPS["mnist"][game], 10.0 if consensus else 0.0
    runs = [StackedRun(methods[k % 5], lr, k // 5, gamma) for k in range(n)]
    options = {"consensus": consensus, "chunk": chunk, "device": x.device.type}
    if game == "wgan":
        options |= {"loss": "wgan", "n_critic": 5, "clip": 0.01}
    stack = StackedGAN(
        lambda seed: lab.table_networks("mnist", game, seed), runs, **options
    )
    stack.fit(x, chunk, progress=False)  # captures the graph
    _wait(x.device.type)
    start = time.perf_counter()
    stack.fit(x, iterations, progress=False)
    _wait(x.device.type)
    return (time.perf_counter() - start) / iterations


def _wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def training(repeats, device="cuda", *, plain=200, iterations=500, chunk=50):
    """Yield (configuration, repeat, numbers) for an epoch of the report's models."""
    if device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: epochs and consensus steps are left out")
        return
    rng = np.random.default_rng(0)  # what the pixels are does not change the time
    images = rng.integers(0, 256, (max(64 * plain, 640), 28, 28), dtype=np.uint8)
    for game, floor in FLOORS.items():
        size = 32 if game == "dcgan" else 28
        x = rng.uniform(-1, 1, (len(images), 1, size, size)).astype(np.float32)
        x = torch.from_numpy(x).to(device)
        for repeat in range(repeats):
            loop = plain_loop(game, images, plain + 1, device)
            next(loop)
            _wait(device)
            start = time.perf_counter()
            for _ in loop:
                pass
            _wait(device)
            peer = (time.perf_counter() - start) / plain
            for n in STACKS[game]:
                step = stacked_seconds(game, x, n, iterations, chunk) / n
                config = {"kind": "epoch", "game": game, "models": n, "device": device}
                yield config, repeat, {
                    "plain_s": peer * EPOCH,
                    "stacked_s": step * EPOCH,
                    "ratio": peer / step,
                    "floor_ratio": step / floor,
                }
            if game == "dcgan":
                for n in STACKS[game]:
                    both = iterations // 5 // chunk * chunk or chunk
                    step = stacked_seconds(game, x, n, both, chunk, "joint")
                    config = {"kind": "consensus", "models": n, "device": device}
                    yield config, repeat, {"step_s": step, "per_model_s": step / n}


def report(results):
    """Print the times of a step, and ours over the peer's."""
    for kind, key in (("epoch", "ratio"), ("consensus", "per_model_s")):
        for config in results.where(kind=kind).configs:
            cells = results.where(**config)
            numbers = {name: np.median(cells.values(name)) for name in cells[0].data}
            print(config, f"{key} {numbers.pop(key):.4g}", numbers)
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
    repeats = parser.parse_args().repeats
    cells = [*steps(repeats), *training(min(repeats, 3))]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    replication.save_benchmark(
        "games", "games", cells, packages=PEERS, modules=MODULES, device=device
    )
    report(replication.load("games", tier="bench"))


if __name__ == "__main__":
    main()
