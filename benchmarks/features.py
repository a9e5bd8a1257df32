"""
Random features against their strongest peers, on the same work.

Random Fourier features stand beside scikit-learn's RBFSampler. Both map the same
points to the same number of outputs, in one process and one thread, by turns, and are
timed by the processor's clock. The error of the approximated kernel stands beside each
time, and so does a floor that no pair map goes below: the product with the frequencies,
one vectorised function on data in the cache, and the writing of the outputs. A second
part fits the growth of time and memory.

The fast transform stands beside fht-cpu (C with vector instructions),
hadamard-transform (torch) and a plain butterfly in numpy; Fastfood beside the dense
maps, and beside a plain loop written from its paper. That loop is not a peer but stands
in for scikit-learn-extra's Fastfood, whose binary does not load with numpy 2. All is
stored as the benchmark "features" of the registry.

With --device cuda the maps, the transform and streaming ridge regression are timed on
a GPU instead, in float32 with exact and with TF32 products: the maps beside the writing
of their outputs, the transform beside a copy. That is the benchmark "features-cuda".

    python benchmarks/features.py [--repeats 7] [--device cuda]
"""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse  # noqa: E402
import gc  # noqa: E402
import time  # noqa: E402
import tracemalloc  # noqa: E402

import numpy as np  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

from lib import replication  # noqa: E402
from lib.features import (  # noqa: E402
    Fastfood,
    RandomFeatureRidge,
    RandomFourierFeatures,
    approximation_error,
    fwht,
    kernel_matrix,
)

N, OUTPUTS = 1797, 1024  # as many points as scikit-learn's digits
DIMENSIONS = (8, 16, 64, 128, 784)
DTYPES = ("float64", "float32")
CALLS = 5  # a repeat keeps the best of so many calls: noise only ever adds time

# The time over d is a + b d: its exponent is fitted where the product dominates.
# The ridge has its rows in blocks, so its memory must not grow with n.
WIDE = (1024, 2048, 4096, 8192)
GRIDS = {
    ("map", "n"): [{"n": n, "d": 64, "D": 512} for n in (4000, 8000, 16000, 32000)],
    ("map", "d"): [{"n": 1000, "d": d, "D": 256} for d in WIDE],
    ("map", "D"): [{"n": 2000, "d": 64, "D": D} for D in (512, 1024, 2048, 4096)],
    ("ridge", "n"): [{"n": n, "d": 64, "D": 256} for n in (16000, 32000, 64000)],
    ("ridge", "d"): [{"n": 1000, "d": d, "D": 256} for d in WIDE],
    ("ridge", "D"): [{"n": 1000, "d": 64, "D": D} for D in (1024, 2048, 4096)],
}

ORDERS = (64, 256, 1024, 4096, 16384)
PEERS = ("fht-cpu", "hadamard-transform")
FASTFOOD = [
    {"n": 512, "d": d, "D": max(4096, 2 * d)} for d in (64, 128, 256, 512, 1024, 4096)
]


def seconds(call):
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(repeats):
    """Yield (configuration, repeat, numbers) for every size, dtype and repeat."""
    try:
        from sklearn.kernel_approximation import RBFSampler
    except ImportError:
        print("scikit-learn is not installed: no comparison with RBFSampler")
        return
    for dtype in DTYPES:
        for d in DIMENSIONS:
            config = {"kind": "map", "n": N, "d": d, "D": OUTPUTS, "dtype": dtype}
            for repeat in range(repeats):
                with threadpool_limits(1):
                    yield config, repeat, _compare(RBFSampler, config, repeat)


def _compare(peer_class, config, seed):
    n, d, D = config["n"], config["d"], config["D"]
    X = np.random.default_rng(seed).standard_normal((n, d)).astype(config["dtype"])
    gamma = 1.0 / (2 * d)  # sigma = sqrt(d): typical kernel values around 1 / e
    ours = RandomFourierFeatures(D, gamma=gamma, random_state=seed).fit(X)
    peer = peer_class(n_components=D, gamma=gamma, random_state=seed).fit(X)
    maps = {"ours": ours, "peer": peer}
    K = kernel_matrix(X, gamma=gamma)
    numbers = {}
    for name, estimator in maps.items():
        Z = estimator.transform(X)
        assert Z.shape == (n, D) and Z.dtype == X.dtype
        numbers[f"{name}_error"] = approximation_error(Z, K)
        numbers[f"{name}_s"] = np.inf
        del Z
    for call in range(CALLS):
        for name in ("ours", "peer") if (seed + call) % 2 else ("peer", "ours"):
            took = seconds(lambda name=name: maps[name].transform(X))
            numbers[f"{name}_s"] = min(numbers[f"{name}_s"], took)
    numbers["floor_s"] = _floor(X, ours.frequencies_.T.astype(X.dtype), (n, D))
    numbers["ratio"] = numbers["peer_s"] / numbers["ours_s"]
    return numbers


def _floor(X, weights, shape):
    # What a pair map cannot do without, each part as fast as it goes alone.
    angles = np.empty((len(X), weights.shape[1]), X.dtype)
    tile = np.linspace(-1.5, 1.5, 4096, dtype=X.dtype)
    result, scratch, written = np.tan, np.empty_like(tile), np.empty(shape, X.dtype)
    if X.dtype == np.float32:
        result = np.cos  # the faster one there
    parts = (
        (lambda: np.matmul(X, weights, out=angles), 1),
        (lambda: [result(tile, out=scratch) for _ in range(256)], angles.size / 2**20),
        (lambda: written.fill(1.0), 1),
    )
    best = [share * min(seconds(part) for _ in range(CALLS)) for part, share in parts]
    return sum(best)


def growth(repeats):
    """Yield (configuration, repeat, numbers) along one size at a time."""
    for (what, axis), sizes in GRIDS.items():
        for size in sizes:
            config = {"kind": "growth", "what": what, "axis": axis, **size}
            for repeat in range(repeats):
                with threadpool_limits(1):
                    yield config, repeat, _cost(config, repeat)


def _cost(config, seed):
    X = np.random.default_rng(seed).standard_normal((config["n"], config["d"]))
    features = RandomFourierFeatures(config["D"], gamma=0.01, random_state=seed)
    if config["what"] == "map":
        features.fit(X)

        def call():
            features.transform(X)
    else:

        def call():
            RandomFeatureRidge(features).fit(X, X[:, 0])

    took = min(seconds(call) for _ in range(2))
    gc.collect()
    tracemalloc.start()  # counts numpy's buffers exactly, and only what the call adds
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"seconds": took, "bytes": peak}


def peers():
    """Return the transforms of other packages that are installed, by name."""
    found = {}
    try:
        import fht_cpu

        found["fht-cpu"] = lambda X: fht_cpu.fht(X, inplace=False, num_threads=1)
    except ImportError:
        print("fht-cpu is not installed: no comparison with it")
    try:
        import torch
        from hadamard_transform import hadamard_transform

        # It divides by sqrt(p), as ours does on request.
        found["hadamard-transform"] = lambda X: hadamard_transform(torch.from_numpy(X))
    except ImportError:
        print("hadamard-transform is not installed: no comparison with it")
    return found


def butterfly(X):
    """Transform rows by log2(p) passes of sums and differences, in plain numpy."""
    p, half = X.shape[1], 1
    while half < p:
        pairs = X.reshape(len(X), -1, 2, half)
        left, right = pairs[:, :, 0], pairs[:, :, 1]
        X = np.stack([left + right, left - right], axis=2).reshape(X.shape)
        half *= 2
    return X


def transforms(repeats):
    """Yield (configuration, repeat, numbers) for the fast transform along rows."""
    calls = {"ours": fwht, "butterfly": butterfly, "copy": np.copy, **peers()}
    for p in ORDERS:
        config = {"kind": "fwht", "n": 2**21 // p, "p": p, "dtype": "float32"}
        for repeat in range(repeats):
            rng = np.random.default_rng(repeat)
            X = rng.standard_normal((config["n"], p)).astype(np.float32)
            with threadpool_limits(1):
                yield config, repeat, _by_turns(calls, X, repeat)


def _by_turns(calls, X, seed):
    names = list(calls)
    numbers = {f"{name}_s": np.inf for name in names}
    for call in range(CALLS):
        for name in names if (seed + call) % 2 else names[::-1]:
            took = seconds(lambda name=name: calls[name](X))
            numbers[f"{name}_s"] = min(numbers[f"{name}_s"], took)
    return numbers


def structured(repeats):
    """Yield (configuration, repeat, numbers) for Fastfood and the dense maps."""
    for sizes in FASTFOOD:
        config = {"kind": "fastfood", **sizes, "dtype": "float32"}
        for repeat in range(repeats):
            rng = np.random.default_rng(repeat)
            X = rng.standard_normal((config["n"], config["d"])).astype(np.float32)
            with threadpool_limits(1):
                yield config, repeat, _structured(X, config["D"], repeat)


def _fitted_maps(X, D, seed):
    return {
        f"{name}_{features}": method(
            D, gamma=_gamma(X), features=features, random_state=seed
        ).fit(X)
        for name, method in (("ours", Fastfood), ("dense", RandomFourierFeatures))
        for features in ("pair", "phase")
    }


def _gamma(X):
    return 1.0 / (2 * X.shape[1])


def _structured(X, D, seed):
    maps = _fitted_maps(X, D, seed)
    K = kernel_matrix(X, gamma=_gamma(X))
    numbers = {
        f"{name}_error": approximation_error(maps[name].transform(X), K)
        for name in ("ours_pair", "dense_pair")
    }
    calls = {name: fitted.transform for name, fitted in maps.items()}
    calls["plain_pair"] = lambda X: plain_fastfood(X, maps["ours_pair"])
    difference = calls["plain_pair"](X) - calls["ours_pair"](X)
    assert np.abs(difference).max() < 1e-5
    return numbers | _by_turns(calls, X, seed)


def plain_fastfood(X, fitted):
    """Map to pairs by the formula of the paper, in float64: a stand-in, not a peer."""
    n, d = X.shape
    blocks, p = fitted.S_.shape
    padded = np.zeros((n, p))
    padded[:, :d] = X
    angles = np.empty((n, blocks * p))
    for block in range(blocks):
        V = butterfly(padded * fitted.B_[block])
        V = butterfly(V[:, fitted.permutation_[block]] * fitted.G_[block])
        angles[:, block * p : (block + 1) * p] = V * fitted.S_[block]
    angles *= np.sqrt(2.0 * fitted.gamma_ / p)
    angles = angles[:, : fitted.n_components // 2]
    Z = np.hstack([np.cos(angles), np.sin(angles)])
    return Z * np.sqrt(2.0 / fitted.n_components)


GPU_MAP = {"n": 65_536, "D": 8192}
GPU_DIMENSIONS = (64, 128, 256, 512, 784, 1024, 2048, 4096)
GPU_STREAM = {"n": 1_000_000, "d": 784, "D": 4096}


def on_gpu(repeats, device, size=1.0):
    """Yield (configuration, repeat, numbers) on a GPU; ``size`` scales all points."""
    import torch

    for product in ("highest", "high"):  # exact float32, TF32
        torch.set_float32_matmul_precision(product)
        for d in GPU_DIMENSIONS:
            n = int(GPU_MAP["n"] * size)
            config = {"kind": "map", "n": n, "d": d, "D": GPU_MAP["D"]}
            for repeat in range(repeats):
                numbers = _maps_on_gpu(n, d, GPU_MAP["D"], repeat, device)
                yield config | {"product": product}, repeat, numbers
        config = {"kind": "stream", **GPU_STREAM, "n": int(GPU_STREAM["n"] * size)}
        for repeat in range(min(repeats, 3)):
            numbers = _stream_on_gpu(config, repeat, device)
            yield config | {"product": product}, repeat, numbers
    torch.set_float32_matmul_precision("highest")
    for p in ORDERS:
        config = {"kind": "fwht", "n": int(2**26 * size) // p, "p": p}
        for repeat in range(repeats):
            X = _points(config["n"], p, repeat, device)
            numbers = {"ours_s": _wall(lambda X=X: fwht(X)), "copy_s": _wall(X.clone)}
            yield config, repeat, numbers


def _points(n, d, seed, device):
    import torch

    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(n, d, device=device, generator=generator)


def _wall(call):
    # Seconds of one call; the timer waits for the GPU.
    from torch.utils.benchmark import Timer

    return Timer("call()", globals={"call": call}).adaptive_autorange(0.02).median


def _maps_on_gpu(n, d, D, seed, device):
    import torch

    X = _points(n, d, seed, device)
    maps = _fitted_maps(X, D, seed)
    numbers = {}
    for name, fitted in maps.items():
        exact = fitted.transform(X[:64].double())
        gap = (fitted.transform(X[:64]) - exact).abs().max()
        numbers[f"{name}_error"] = float(gap) * np.sqrt(D / 2)  # of one cosine
        numbers[f"{name}_s"] = _wall(lambda fitted=fitted: fitted.transform(X))
    Z = torch.empty(n, D, device=device)
    numbers["floor_s"] = _wall(lambda: Z.fill_(1.0))
    return numbers


def _stream_on_gpu(config, seed, device):
    n, d, D, chunk = config["n"], config["d"], config["D"], 50_000

    def train():
        features = RandomFourierFeatures(D, gamma=0.5 / d, random_state=seed)
        model = RandomFeatureRidge(features, alpha=1e-6 * n)
        for start in range(0, n, chunk):
            X = _points(min(chunk, n - start), d, seed + start, device)
            model.partial_fit(X, X[:, 0])
        return model.predict(X[:1000])

    train()
    return {"seconds": _wall(train)}


def report_gpu(results):
    """Print the times on the GPU: milliseconds, and ratios to the floor."""
    print(results.provenance())
    for product, text in (("highest", "exact float32"), ("high", "TF32")):
        print(f"\nmaps, {text}: ms; over the writing of the outputs; error of a cosine")
        for config in results.where(kind="map", product=product).configs:
            cells, line = results.where(**config), f"d = {config['d']:4d}"
            floor = cells.values("floor_s")
            for name in ("ours_pair", "ours_phase", "dense_pair", "dense_phase"):
                took, error = cells.values(f"{name}_s"), cells.values(f"{name}_error")
                line += f"  {name} {1e3 * np.median(took):6.2f}"
                line += f" ({np.median(took / floor):.2f}; {error.max():.0e})"
            print(line)
        stream = results.where(kind="stream", product=product)
        print(f"streaming ridge, {text}: {spread(stream.values('seconds'))} s")
    print("\nfast transform, float32: over a copy")
    for config in results.where(kind="fwht").configs:
        cells = results.where(**config)
        ratio = spread(cells.values("ours_s") / cells.values("copy_s"))
        print(f"p = {config['p']:5d}  {ratio}")


def exponent(sizes, values):
    """Fit the slope of log values over log sizes."""
    return np.polyfit(np.log(sizes), np.log(values), 1)[0]


def spread(values):
    low, middle, high = np.quantile(values, [0.0, 0.5, 1.0])
    return f"{middle:5.2f} [{low:5.2f}, {high:5.2f}]"


def report(results):
    """Print both tables from stored results."""
    per = 1e9 / (N * OUTPUTS)
    print(f"n = {N}, D = {OUTPUTS}; ns per output; error is relative Frobenius")
    print("dtype      d   ours  floor   peer   peer/ours            ours err  peer err")
    for config in results.where(kind="map").configs:
        cells = results.where(**config)
        names = ("ours", "floor", "peer")
        ours, floor, peer = (per * cells.values(f"{k}_s").min() for k in names)
        print(
            f"{config['dtype']} {config['d']:4d} "
            f"{ours:6.2f} {floor:6.2f} {peer:6.2f}   "
            f"{spread(cells.values('ratio'))}   "
            f"{cells.values('ours_error').mean():.4f}    "
            f"{cells.values('peer_error').mean():.4f}"
        )
    print("\nfitted exponents of time and memory")
    for what, axis in GRIDS:
        cells = results.where(kind="growth", what=what, axis=axis)
        slopes = {}
        for key in ("seconds", "bytes"):
            sizes, values = cells.curve(key, over=axis)
            slopes[key] = [exponent(sizes, row) for row in values]
        print(
            f"{what:5s} over {axis} = {sizes[0]}..{sizes[-1]}: "
            f"time {spread(slopes['seconds'])}   memory {spread(slopes['bytes'])}"
        )
    report_transforms(results)
    report_structured(results)


def report_transforms(results):
    """Print the times of the fast transform, in ns an entry."""
    print("\nfast transform along rows, float32: ns an entry; ours over the peer's")
    for config in results.where(kind="fwht").configs:
        cells = results.where(**config)
        ours = cells.values("ours_s")
        line = f"p = {config['p']:5d}  ours {1e9 * ours.min() / 2**21:5.2f}"
        for name in ("copy", "butterfly", *PEERS):
            if f"{name}_s" in cells[0].data:
                other = cells.values(f"{name}_s")
                line += f"  {name} {1e9 * other.min() / 2**21:5.2f}"
                line += f" ({np.median(ours / other):.2f})"
        print(line)


def report_structured(results):
    """Print the times of Fastfood and the dense maps, in ns an output."""
    print("\nFastfood, float32: ns an output; the other over our pairs; error")
    names = ("ours_phase", "dense_pair", "dense_phase", "plain_pair")
    for config in results.where(kind="fastfood").configs:
        cells = results.where(**config)
        per = 1e9 / (config["n"] * config["D"])
        ours = cells.values("ours_pair_s")
        line = f"d = {config['d']:4d}  ours_pair {per * ours.min():5.2f}"
        for name in names:
            other = cells.values(f"{name}_s")
            line += f"  {name} {per * other.min():6.2f}"
            line += f" ({np.median(other / ours):.2f})"
        errors = (cells.values(f"{k}_pair_error").mean() for k in ("ours", "dense"))
        print(line + "  error " + " against ".join(f"{e:.4f}" for e in errors))


def main():
    """Measure, store and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    repeats, device = options.repeats, options.device
    if device == "cpu":
        name = "features"
        cells = [
            *measure(repeats),
            *growth(min(repeats, 3)),
            *transforms(repeats),
            *structured(min(repeats, 3)),
        ]
    else:
        name, cells = "features-cuda", list(on_gpu(repeats, device))
    modules = ("kernels", "fourier", "ridge", "hadamard", "fastfood")
    replication.save_benchmark(
        name,
        "features",
        cells,
        packages=PEERS,
        modules=tuple(f"lib.features.{module}" for module in modules),
        device=device,
    )
    results = replication.load(name, tier="bench")
    report(results) if device == "cpu" else report_gpu(results)


if __name__ == "__main__":
    main()
