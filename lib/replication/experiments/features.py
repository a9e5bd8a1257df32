"""Experiments and metrics of the random-features wing.

Every ``run_*`` function is a generator over ``(config, seed, arrays)``. Seeds are
derived from named axes: the data subset depends on the seed alone, the random
features on the seed and the method, so that all methods see the same points.
"""

import time

import numpy as np

from lib.replication import Experiment, seed_sequence

# the one table from a method's name in the book to the arguments that make it
MAPS = {
    "phase": {"features": "phase"},
    "pair": {"features": "pair"},
    "orthogonal": {"features": "pair", "sampling": "orthogonal"},
    "sorf": {"features": "pair", "sampling": "sorf"},
    "qmc": {"features": "pair", "sampling": "qmc"},
}


def _integer_seed(*axes, seed):
    """One 32-bit integer for a ``random_state`` from named axes."""
    return int(seed_sequence(*axes, seed=seed).generate_state(1)[0])


def _device_array(X, device):
    """The array itself on the CPU, a CUDA tensor elsewhere."""
    if device == "cpu":
        return X
    import torch

    return torch.from_numpy(np.ascontiguousarray(X)).to(device)


def _synchronize(device):
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


def _subset(name, n, seed, split="train"):
    """``n`` points of a data set, the same for every method of one seed."""
    from lib.data import load

    X, y = load(name, split, flatten=True)
    if n is None or n >= len(X):
        return X, y
    rng = np.random.default_rng(seed_sequence("subset", name, seed=seed))
    pick = rng.permutation(len(X))[:n]
    return X[pick], y[pick]


def median_distance(X, n=1000):
    """Median distance between the first ``n`` rows: the bandwidth rule here."""
    from scipy.spatial.distance import pdist

    return float(np.median(pdist(np.asarray(X[:n], dtype=np.float64))))


# --- variance: the closed forms against Monte Carlo ------------------------------


def run_variance(configs, seeds, device):
    from lib.features import kernel_matrix, rff_variance, spectral_sample

    delta = np.array([0.25, 0.5, 1.0, 1.5, 2.0, 3.0])
    zero = np.zeros((1, 1))
    for seed in seeds:
        for config in configs:
            kernel, variant, draws = (config[k] for k in ("kernel", "variant", "draws"))
            rng = np.random.default_rng(seed_sequence(kernel, variant, seed=seed))
            w = spectral_sample(kernel, draws, 1, random_state=rng.integers(2**31))
            angle = w * delta
            if variant == "pair":
                sample, D = np.cos(angle), 2
            else:
                b = rng.uniform(0, 2 * np.pi, (draws, 1))
                sample, D = 2 * np.cos(angle + b) * np.cos(b), 1
            k = kernel_matrix(delta[:, None], zero, kernel=kernel)[:, 0]
            k2 = kernel_matrix(2 * delta[:, None], zero, kernel=kernel)[:, 0]
            formula = rff_variance(k, k2, D, variant)
            yield (
                config,
                seed,
                {
                    "delta": delta,
                    "measured": sample.var(axis=0, ddof=1) * D,
                    "formula": formula * D,
                },
            )


def variance_error(results):
    """Largest relative gap between measured and closed-form variance, a seed."""
    return _over_seeds(
        results,
        lambda cells: max(
            np.max(np.abs(c.data["measured"] / c.data["formula"] - 1)) for c in cells
        ),
    )


def cauchy_phase_gain(results):
    """Variance of pairs minus that of phases at distance 3, one number a seed."""
    pair, phase = (
        results.where(variant=v).values("measured")[:, -1] for v in ("pair", "phase")
    )
    return pair - phase


# --- kernel error against D ------------------------------------------------------


def run_error(configs, seeds, device):
    from lib.features import RandomFourierFeatures, approximation_error, kernel_matrix

    for seed in seeds:
        prepared = {}
        for config in configs:
            key = (config["data"], config["n"])
            if key not in prepared:
                X, _ = _subset(*key, seed)
                gamma = 0.5 / median_distance(X) ** 2
                K = kernel_matrix(X.astype(np.float64), gamma=gamma)
                prepared[key] = (_device_array(X, device), gamma, K)
            X, gamma, K = prepared[key]
            phi = RandomFourierFeatures(
                config["D"],
                gamma=gamma,
                random_state=_integer_seed(config["method"], config["D"], seed=seed),
                **MAPS[config["method"]],
            )
            Z = phi.fit_transform(X)
            gram = Z @ Z.T
            if device != "cpu":
                gram = gram.cpu().numpy()
            gap = gram.astype(np.float64) - K
            off = ~np.eye(len(K), dtype=bool)
            yield (
                config,
                seed,
                {
                    "relative": np.linalg.norm(gap) / np.linalg.norm(K),
                    "largest": approximation_error(Z, _like(K, Z), norm="max"),
                    "rms": np.sqrt(np.mean(gap[off] ** 2)),
                },
            )


def _like(K, Z):
    """The exact kernel matrix as the same kind of array as the features."""
    if isinstance(Z, np.ndarray):
        return K
    import torch

    return torch.from_numpy(K).to(Z.device)


def error_slope(results):
    """Fitted exponent of the relative Frobenius error in D, one number a seed."""
    D, y = results.curve("relative", over="D")
    return np.polyfit(np.log(D), np.log(y).T, 1)[0]


def pair_gain(results):
    """Mean log error of phase minus that of pair features, one number a seed."""
    return _log_gap(results, "phase", "pair")


def orthogonal_gain(results):
    """Mean log error of iid pairs minus that of orthogonal pairs."""
    return _log_gap(results, "pair", "orthogonal")


def qmc_gain(results):
    """Mean log error of iid pairs minus that of Sobol pairs."""
    return _log_gap(results, "pair", "qmc")


def _log_gap(results, worse, better):
    a = results.where(method=worse).curve("relative", over="D")[1]
    b = results.where(method=better).curve("relative", over="D")[1]
    return np.mean(np.log(a) - np.log(b), axis=1)


# --- the uniform bound of Rahimi and Recht's Claim 1 -------------------------------


def uniform_bound(eps, m, d, sigma_p, diameter):
    """Right-hand side of Claim 1 with ``m`` frequencies, at most 1."""
    scale = 2**8 * (sigma_p * diameter / eps) ** 2
    return np.minimum(1.0, scale * np.exp(-m * eps**2 / (4 * (d + 2))))


def run_bound(configs, seeds, device):
    from lib.features import kernel_matrix, spectral_sample

    side = np.linspace(-2, 2, 33)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    k = kernel_matrix(grid, np.zeros((1, 2)), gamma=0.5)[:, 0]
    for seed in seeds:
        for config in configs:
            rng = np.random.default_rng(seed_sequence("bound", config["m"], seed=seed))
            sup = np.empty(config["trials"])
            for t in range(config["trials"]):
                draw = rng.integers(2**31)
                w = spectral_sample(
                    "gaussian", config["m"], 2, gamma=0.5, random_state=draw
                )
                sup[t] = np.abs(np.cos(grid @ w.T).mean(axis=1) - k).max()
            yield config, seed, {"sup": sup}


def bound_excess(results):
    """Frequency of sup error >= eps minus Claim 1's bound, for each (m, eps)."""
    out = []
    for config in results.configs:
        sup = results.where(**config).values("sup").ravel()
        for eps in (0.05, 0.1, 0.2, 0.4, 0.8):
            # the differences x - y of two points of a square of side 2 fill
            # the grid's square of side 4; the square's diameter is 2 sqrt(2)
            bound = uniform_bound(eps, config["m"], 2, np.sqrt(2.0), 2 * np.sqrt(2))
            out.append(np.mean(sup >= eps) - bound)
    return np.array(out)


# --- ridge regression on top -------------------------------------------------------


# Multiply-adds that a cell may take on a CPU; beyond, it waits for a GPU. An exact
# solution for 60,000 points would also need 29 GB for the kernel matrix alone.
CPU_WORK = 1.1e12


def run_ridge(configs, seeds, device):
    from lib.features import RandomFeatureRidge, RandomFourierFeatures

    for config in configs:
        for seed in seeds:
            X, y = _subset(config["data"], config["n"], seed)
            n, D, method = len(X), config["D"], config["method"]
            work = n**3 / 3 if method == "exact" else n * D**2
            if device == "cpu" and work > CPU_WORK:
                continue
            X_test, y_test = _subset(config["data"], None, seed, "test")
            gamma = 0.5 / (0.5 * median_distance(X)) ** 2
            alpha = config["lam"] * n
            Y = np.eye(int(y.max()) + 1)[y]
            X, Y, X_test = (_device_array(a, device) for a in (X, Y, X_test))
            _synchronize(device)
            start = time.perf_counter()
            if method == "exact":
                scores = exact_ridge(X, Y, X_test, gamma, alpha)
            else:
                phi = RandomFourierFeatures(
                    D,
                    gamma=gamma,
                    random_state=_integer_seed(method, D, seed=seed),
                    **MAPS[method],
                )
                scores = RandomFeatureRidge(phi, alpha=alpha).fit(X, Y).predict(X_test)
            _synchronize(device)
            seconds = time.perf_counter() - start
            if device != "cpu":
                scores = scores.cpu().numpy()
            accuracy = np.mean(scores.argmax(axis=1) == y_test)
            yield config, seed, {"accuracy": accuracy, "fit_seconds": seconds}


def exact_ridge(X, Y, X_test, gamma, alpha):
    """Kernel ridge regression with the exact Gaussian kernel, in float64."""
    from lib.features import kernel_matrix

    if isinstance(X, np.ndarray):
        from scipy.linalg import cho_factor, cho_solve

        K = kernel_matrix(X.astype(np.float64), gamma=gamma)
        K[np.diag_indices_from(K)] += alpha
        dual = cho_solve(cho_factor(K, overwrite_a=True), Y)
        return kernel_matrix(X_test.astype(np.float64), X, gamma=gamma) @ dual
    import torch

    K = kernel_matrix(X.double(), gamma=gamma)
    K.diagonal().add_(alpha)
    dual = torch.cholesky_solve(Y.double(), torch.linalg.cholesky(K))
    return kernel_matrix(X_test.double(), X.double(), gamma=gamma) @ dual


def exact_gap(results):
    """Accuracy of the widest pair map minus exact kernel ridge, one a seed."""
    exact = results.where(method="exact").values("accuracy")
    D, y = results.where(method="pair").curve("accuracy", over="D")
    return y[:, -1] - exact


def orthogonal_accuracy_gain(results):
    """Mean over D <= 512 of orthogonal minus iid accuracy, one number a seed."""
    D, iid = results.where(method="pair").curve("accuracy", over="D")
    _, ort = results.where(method="orthogonal").curve("accuracy", over="D")
    return (ort - iid)[:, D <= 512].mean(axis=1)


def interpolation_dip(results):
    """Accuracy at the D nearest to n minus the better of its two neighbours."""
    D, y = results.where(method="pair").curve("accuracy", over="D")
    n = results.configs[0]["n"]
    j = int(np.argmin(np.abs(np.log(D / n))))
    return np.maximum(y[:, j - 1], y[:, j + 1]) - y[:, j]


# --- cost ----------------------------------------------------------------------------


def _toy_regression(n, d, seed, part="train", chunk=50_000):
    """Chunks of a smooth regression problem: y = sin(u.x) + noise, |u| = 1."""
    u = np.random.default_rng(seed_sequence("direction", d, seed=seed))
    u = u.standard_normal(d)
    u /= np.linalg.norm(u)
    rng = np.random.default_rng(seed_sequence("stream", part, d, seed=seed))
    for start in range(0, n, chunk):
        X = rng.standard_normal((min(chunk, n - start), d)).astype(np.float32)
        yield X, np.sin(X @ u) + 0.1 * rng.standard_normal(len(X))


class PeakMemory:
    """Peak resident memory of the process during a block, in bytes (Linux)."""

    def __enter__(self):
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")  # forget the peak so far
        return self

    def __exit__(self, *exc):
        with open("/proc/self/status") as f:
            line = next(row for row in f if row.startswith("VmHWM"))
        self.bytes = 1024 * int(line.split()[1])


def run_stream(configs, seeds, device):
    from lib.features import RandomFeatureRidge, RandomFourierFeatures

    for seed in seeds:
        for config in configs:
            n, d, D = (config[k] for k in ("n", "d", "D"))
            phi = RandomFourierFeatures(
                D, gamma=0.5 / d, random_state=_integer_seed("stream", D, seed=seed)
            )
            model = RandomFeatureRidge(phi, alpha=1e-6 * n)
            start = time.process_time()
            with PeakMemory() as peak:
                for X, y in _toy_regression(n, d, seed):
                    model.partial_fit(*(_device_array(a, device) for a in (X, y)))
                X, y = next(_toy_regression(10_000, d, seed, "test"))
                prediction = model.predict(_device_array(X, device))
            _synchronize(device)
            cpu_seconds = time.process_time() - start
            if device != "cpu":
                prediction = prediction.cpu().numpy()
            unexplained = np.mean((prediction - y) ** 2) / np.var(y)
            yield (
                config,
                seed,
                {
                    "cpu_seconds": cpu_seconds,
                    "peak_bytes": float(peak.bytes),
                    "unexplained": unexplained,
                },
            )


def run_cost(configs, seeds, device):
    """Processor seconds to train and predict, exact against random features."""
    from lib.features import RandomFeatureRidge, RandomFourierFeatures

    for seed in seeds:
        for config in configs:
            n, d, method = config["n"], config["d"], config["method"]
            X, y = next(_toy_regression(n, d, seed, chunk=n))
            gamma, best = 0.5 / d, np.inf
            for _ in range(3):
                start = time.process_time()
                if method == "exact":
                    exact_ridge(X, y[:, None], X[:200], gamma, 1e-6 * n)
                else:
                    phi = RandomFourierFeatures(
                        config["D"],
                        gamma=gamma,
                        random_state=_integer_seed("cost", config["D"], seed=seed),
                    )
                    RandomFeatureRidge(phi, alpha=1e-6 * n).fit(X, y).predict(X[:200])
                best = min(best, time.process_time() - start)
            size = n * n if method == "exact" else config["D"] ** 2
            yield config, seed, {"cpu_seconds": best, "matrix_bytes": 8.0 * size}


def time_exponent(results):
    """Exponent of processor time in n over the three largest n, one a seed."""
    n, y = results.curve("cpu_seconds", over="n")
    return np.polyfit(np.log(n[-3:]), np.log(y[:, -3:]).T, 1)[0]


def memory_exponent(results):
    """Exponent of the largest matrix's bytes in n, one number a seed."""
    n, y = results.curve("matrix_bytes", over="n")
    return np.polyfit(np.log(n), np.log(y).T, 1)[0]


def stream_memory_exponent(results):
    """Exponent of peak resident memory in n, one number a seed."""
    n, y = results.curve("peak_bytes", over="n")
    return np.polyfit(np.log(n), np.log(y).T, 1)[0]


# --- helpers and the list ----------------------------------------------------------


def _over_seeds(results, function):
    """Apply a function to each seed's cells; one number a seed."""
    groups = {s: [c for c in results if c.seed == s] for s in results.seeds}
    return np.array([function(groups[s]) for s in results.seeds])


def _grid(**axes):
    """All combinations of the axes as a tuple of configurations."""
    import itertools

    values = itertools.product(*axes.values())
    return tuple(dict(zip(axes, v, strict=True)) for v in values)


_FOURIER = ("lib.features.kernels", "lib.features.fourier")
_RIDGE = (*_FOURIER, "lib.features.ridge")
_POWERS = [2**j for j in range(6, 17)]

EXPERIMENTS = (
    Experiment(
        name="rff-variance",
        summary="Monte-Carlo variance of one feature against the closed forms.",
        run=run_variance,
        quick=_grid(
            kernel=["gaussian", "laplacian", "cauchy", "matern", "rational_quadratic"],
            variant=["pair", "phase"],
            draws=[100_000],
        ),
        full=_grid(
            kernel=["gaussian", "laplacian", "cauchy", "matern", "rational_quadratic"],
            variant=["pair", "phase"],
            draws=[2_000_000],
        ),
        seeds={"quick": 3, "full": 5},
        modules=_FOURIER,
        data=(),
    ),
    Experiment(
        name="rff-error",
        summary="Kernel error against the number of features, five maps.",
        run=run_error,
        quick=_grid(
            data=["digits"], n=[500], method=list(MAPS), D=[32, 128, 512, 2048]
        ),
        full=_grid(
            data=["mnist", "fashion-mnist"], n=[1000], method=list(MAPS), D=_POWERS
        ),
        seeds={"quick": 5, "full": 5},
        modules=_FOURIER,
        data=("digits", "mnist", "fashion-mnist"),
    ),
    Experiment(
        name="rff-bound",
        summary="Uniform error over a square against the bound of Claim 1.",
        run=run_bound,
        quick=_grid(m=[64, 256, 1024], trials=[40]),
        full=_grid(m=[64, 256, 1024, 4096, 16384], trials=[400]),
        seeds={"quick": 2, "full": 5},
        modules=_FOURIER,
        data=(),
    ),
    Experiment(
        name="rff-ridge",
        summary="Accuracy of ridge regression on random features against D.",
        run=run_ridge,
        quick=_grid(
            data=["digits"],
            n=[1200],
            lam=[1e-6],
            method=["pair", "orthogonal"],
            D=[16, 32, 64, 128, 256, 512, 1024, 2048],
        )
        + _grid(data=["digits"], n=[1200], lam=[1e-6], method=["exact"], D=[None]),
        full=_grid(
            data=["mnist", "fashion-mnist", "cifar10"],
            n=[None],
            lam=[1e-6],
            method=["pair", "orthogonal"],
            D=[2**j for j in range(8, 17)],
        )
        + _grid(
            data=["mnist", "fashion-mnist", "cifar10"],
            n=[None],
            lam=[1e-6],
            method=["exact"],
            D=[None],
        ),
        seeds={"quick": 5, "full": 5},
        modules=_RIDGE,
        data=("digits", "mnist", "fashion-mnist", "cifar10"),
    ),
    Experiment(
        name="rff-stream",
        summary="Streaming ridge regression: time and memory up to 1e6 points.",
        run=run_stream,
        quick=_grid(n=[10_000, 20_000, 40_000], d=[20], D=[256]),
        full=_grid(n=[62_500, 125_000, 250_000, 500_000, 1_000_000], d=[20], D=[512]),
        seeds={"quick": 2, "full": 5},
        modules=_RIDGE,
        data=(),
    ),
    Experiment(
        name="rff-cost",
        summary="Processor time of exact kernel ridge and of random features.",
        run=run_cost,
        quick=_grid(method=["exact"], n=[250, 500, 1000], d=[20], D=[None])
        + _grid(method=["pair"], n=[1000, 2000, 4000], d=[20], D=[256]),
        full=_grid(method=["exact"], n=[1000, 2000, 4000, 8000], d=[20], D=[None])
        + _grid(method=["pair"], n=[4000, 8000, 16_000, 32_000], d=[20], D=[512]),
        seeds={"quick": 3, "full": 5},
        modules=_RIDGE,
        data=(),
    ),
)
