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
    """Accuracy of the best pair map of any D minus exact kernel ridge, one a seed."""
    exact = results.where(method="exact").values("accuracy")
    D, y = results.where(method="pair").curve("accuracy", over="D")
    return y.max(axis=1) - exact


def orthogonal_accuracy_gain(results):
    """Mean over D <= 512 of orthogonal minus iid accuracy, one number a seed."""
    D, iid = results.where(method="pair").curve("accuracy", over="D")
    _, ort = results.where(method="orthogonal").curve("accuracy", over="D")
    return (ort - iid)[:, D <= 512].mean(axis=1)


def interpolation_dip(results):
    """The smaller one of the accuracies below and above D = n minus that at D = n.

    Below is the largest D up to n / 2, above the smallest from 3 n / 2 on. A curve that
    only rises or only falls has no positive dip.
    """
    D, y = results.where(method="pair").curve("accuracy", over="D")
    n = results.configs[0]["n"]
    at = int(np.argmin(np.abs(np.log(D / n))))
    below, above = np.sum(D <= n / 2) - 1, np.sum(D < 1.5 * n)
    return np.minimum(y[:, below], y[:, above]) - y[:, at]


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
                    model.partial_fit(X, y)
                X, y = next(_toy_regression(10_000, d, seed, "test"))
                prediction = model.predict(X)
            cpu_seconds = time.process_time() - start
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
    """Processor seconds and peak memory to train and predict, exact against random.

    Memory is what numpy allocates in one more call, beyond the data.
    """
    import gc
    import tracemalloc

    from lib.features import RandomFeatureRidge, RandomFourierFeatures

    for seed in seeds:
        for config in configs:
            n, d, method = config["n"], config["d"], config["method"]
            X, y = next(_toy_regression(n, d, seed, chunk=n))
            gamma, best = 0.5 / d, np.inf
            phi = RandomFourierFeatures(
                config["D"] or 2,
                gamma=gamma,
                random_state=_integer_seed("cost", config["D"], seed=seed),
            )

            def call(X=X, y=y, n=n, gamma=gamma, phi=phi, exact=method == "exact"):
                if exact:
                    exact_ridge(X, y[:, None], X[:200], gamma, 1e-6 * n)
                else:
                    RandomFeatureRidge(phi, alpha=1e-6 * n).fit(X, y).predict(X[:200])

            for _ in range(3):
                start = time.process_time()
                call()
                best = min(best, time.process_time() - start)
            gc.collect()
            tracemalloc.start()
            call()
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            yield config, seed, {"cpu_seconds": best, "peak_bytes": float(peak)}


def time_exponent(results):
    """Exponent of processor time in n over the three largest n, one a seed."""
    n, y = results.curve("cpu_seconds", over="n")
    return np.polyfit(np.log(n[-3:]), np.log(y[:, -3:]).T, 1)[0]


def memory_exponent(results):
    """Exponent of the peak memory in n, one number a seed."""
    n, y = results.curve("peak_bytes", over="n")
    return np.polyfit(np.log(n), np.log(y).T, 1)[0]


def stream_memory_exponent(results):
    """Exponent of peak resident memory in n, one number a seed."""
    n, y = results.curve("peak_bytes", over="n")
    return np.polyfit(np.log(n), np.log(y).T, 1)[0]


# --- normalised features -------------------------------------------------------------

# phase and normalised features have the same frequencies: only the rescaling differs
NORMALISED_MAPS = {
    "phase": {"features": "phase"},
    "normalized": {"features": "phase", "normalize": True},
    "pair": {"features": "pair"},
}


def run_nrff_variance(configs, seeds, device):
    """D times variance, bias and mean square error of three kernel estimates.

    The configurations of one kernel, gamma and D are read off the same draws. Only the
    angle between a frequency and the difference of the points matters, so the points
    lie on a line, at the distance of two unit vectors of correlation rho.
    """
    rho = np.array([-0.5, 0.0, 0.5, 0.75, 0.9, 0.97])
    for seed in seeds:
        groups = {}
        for config in configs:
            key = tuple(config[name] for name in ("kernel", "gamma", "D", "trials"))
            groups.setdefault(key, []).append(config)
        for key, members in groups.items():
            found = _normalised_moments(key, np.sqrt(2 - 2 * rho), seed)
            for config in members:
                yield config, seed, {"rho": rho, **found[config["variant"]]}


def _normalised_moments(key, distance, seed):
    from lib.features import kernel_matrix, rff_variance, spectral_sample

    kernel, gamma, D, trials = key
    rng = np.random.default_rng(seed_sequence("nrff-variance", *key[:3], seed=seed))
    zero = np.zeros((1, 1))
    k, k2 = (
        kernel_matrix(c * distance[:, None], zero, kernel=kernel, gamma=gamma)[:, 0]
        for c in (1, 2)
    )
    names = ("pair", "phase", "normalized")
    value = {name: np.empty((trials, len(distance))) for name in names}
    linear = np.empty((trials, len(distance)))
    size = max(1, 2**20 // D)
    for start in range(0, trials, size):
        rows = slice(start, min(start + size, trials))
        shape = (rows.stop - start, D)
        w = spectral_sample(
            kernel, D * shape[0], 1, gamma=gamma, random_state=rng.integers(2**31)
        )
        w = w.reshape(shape)
        b = rng.random(shape, dtype=np.float32) * np.float32(2 * np.pi)
        y = np.cos(b)
        yy = _row_products(y, y)
        for column, t in enumerate(distance):
            angle = w * t
            if kernel == "laplacian":  # a large angle has no digits in float32
                angle = np.remainder(angle, 2 * np.pi)
            angle = angle.astype(np.float32)
            x = np.cos(angle + b)
            xx, xy = _row_products(x, x), _row_products(x, y)
            value["pair"][rows, column] = np.cos(angle[:, : D // 2]).mean(axis=1)
            value["phase"][rows, column] = xy
            value["normalized"][rows, column] = xy / np.sqrt(xx * yy)
            # first order of the ratio: its mean is zero, so the rest has the bias
            near = k[column]
            linear[rows, column] = xy - near - near / 2 * (xx + yy - 2)
    found = {}
    for name in names:
        gap = value[name] - k
        rest = gap - linear if name == "normalized" else gap
        found[name] = {
            "k": k,
            "variance": D * value[name].var(axis=0, ddof=1),
            "formula": D * rff_variance(k, k2, D, name),
            "bias": D * rest.mean(axis=0),
            "bias_formula": -k * (1 - k2) / 8 * (name == "normalized"),
            "square": D * np.mean(gap**2, axis=0),
        }
    return found


def _row_products(x, y):
    """Twice the mean of x y in each row."""
    return np.einsum("ij,ij->i", x, y).astype(np.float64) * (2 / x.shape[1])


def nrff_variance_error(results):
    """Largest relative gap of the variance to first order where D >= 256."""
    return _over_seeds(
        results,
        lambda cells: max(
            np.max(np.abs(c.data["variance"] / c.data["formula"] - 1))
            for c in cells
            if c.config["D"] >= 256
        ),
    )


def nrff_bias_ratio(results):
    """Least-squares factor from predicted to measured bias where D >= 256."""

    def ratio(cells):
        cells = [c for c in cells if c.config["D"] >= 256]
        predicted, measured = (
            np.concatenate([c.data[name] for c in cells])
            for name in ("bias_formula", "bias")
        )
        return predicted @ measured / (predicted @ predicted)

    return _over_seeds(results, ratio)


def nrff_square_gain(results):
    """Mean log of the mean square error of pairs over that of normalised features."""

    def gain(cells):
        total = {"pair": 0.0, "normalized": 0.0}
        for c in cells:
            if c.config["variant"] in total:
                total[c.config["variant"]] += np.mean(np.log(c.data["square"]))
        return (total["pair"] - total["normalized"]) / (len(cells) / 3)

    return _over_seeds(results, gain)


def run_nrff_error(configs, seeds, device):
    from lib.features import RandomFourierFeatures, kernel_matrix

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
            Z = RandomFourierFeatures(
                config["D"],
                gamma=gamma,
                random_state=_integer_seed("nrff-error", config["D"], seed=seed),
                **NORMALISED_MAPS[config["method"]],
            ).fit_transform(X)
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
                    "rms": np.sqrt(np.mean(gap[off] ** 2)),
                },
            )


def normalised_gain(results):
    """Mean log error of phase minus that of normalised features, one a seed."""
    return _log_gap(results, "phase", "normalized")


def normalised_worth(results):
    """Mean log error of pair minus that of normalised features, one a seed."""
    return _log_gap(results, "pair", "normalized")


def run_nrff_learn(configs, seeds, device):
    """Accuracy of linear learners, and how far ridge scores are from the exact ones."""
    from lib.features import RandomFeatureRidge, RandomFourierFeatures

    for seed in seeds:
        prepared = {}
        for config in configs:
            key = (config["data"], config["n"])
            if key not in prepared:
                X, y = _subset(*key, seed)
                X_test, y_test = _subset(config["data"], None, seed, "test")
                gamma = 0.5 / (0.5 * median_distance(X)) ** 2
                Y, alpha = np.eye(int(y.max()) + 1)[y], 1e-4 * len(X)
                exact = exact_ridge(X, Y, X_test, gamma, alpha)
                prepared[key] = (X, y, Y, X_test, y_test, gamma, alpha, exact)
            X, y, Y, X_test, y_test, gamma, alpha, exact = prepared[key]
            found = {"exact": np.mean(exact.argmax(axis=1) == y_test)}
            phi = RandomFourierFeatures(
                config["D"],
                gamma=gamma,
                random_state=_integer_seed("nrff-learn", config["D"], seed=seed),
                **NORMALISED_MAPS[config["method"]],
            )
            if config["learner"] == "svm":
                from sklearn.svm import LinearSVC

                svm = LinearSVC(C=10.0, random_state=0, max_iter=10_000)
                svm.fit(phi.fit_transform(X), y)
                found["accuracy"] = svm.score(phi.transform(X_test), y_test)
            else:
                scores = RandomFeatureRidge(phi, alpha=alpha).fit(X, Y).predict(X_test)
                found["accuracy"] = np.mean(scores.argmax(axis=1) == y_test)
                found["distance"] = np.sqrt(np.mean((scores - exact) ** 2))
            yield config, seed, found


def normalised_accuracy_gain(results):
    """Mean accuracy of normalised minus that of phase features, one a seed."""
    _, phase = results.where(method="phase").curve("accuracy", over="D")
    _, norm = results.where(method="normalized").curve("accuracy", over="D")
    return (norm - phase).mean(axis=1)


def normalised_stability_gain(results):
    """Mean log distance to the exact ridge scores, phase minus normalised."""
    _, phase = results.where(method="phase").curve("distance", over="D")
    _, norm = results.where(method="normalized").curve("distance", over="D")
    return np.mean(np.log(phase) - np.log(norm), axis=1)


def run_nrff_cost(configs, seeds, device):
    """Processor seconds a row: the phase map, and the normalisation after it."""
    from lib.features import RandomFourierFeatures

    for seed in seeds:
        for config in configs:
            D, d = config["D"], config["d"]
            rows = 2**20 // D  # always four megabytes of features
            rng = np.random.default_rng(seed_sequence("nrff-cost", D, seed=seed))
            X = rng.standard_normal((rows, d)).astype(np.float32)
            phi = RandomFourierFeatures(
                D, gamma=0.5 / d, features="phase", random_state=0
            ).fit(X)
            best = {"map": np.inf, "normalise": np.inf}
            for _ in range(7):
                start = time.process_time()
                Z = phi.transform(X)
                middle = time.process_time()
                Z /= np.sqrt(np.einsum("ij,ij->i", Z, Z))[:, None]
                end = time.process_time()
                best["map"] = min(best["map"], (middle - start) / rows)
                best["normalise"] = min(best["normalise"], (end - middle) / rows)
            yield config, seed, best


def normalise_exponent(results):
    """Exponent of the time of normalising one row in D, one number a seed."""
    D, y = results.curve("normalise", over="D")
    return np.polyfit(np.log(D), np.log(y).T, 1)[0]


# --- leverage scores -----------------------------------------------------------------

# Rules fixed before any run: a ridge parameter, and a bandwidth in units of the median
# distance (the one-dimensional problem has gamma = 50 instead).
LEVERAGE_TASKS = {
    "two-tone": {"lam": 1e-5, "width": None},
    "friedman": {"lam": 1e-4, "width": 1.0},
    "digits": {"lam": 1e-4, "width": 0.5},
    "mnist": {"lam": 1e-4, "width": 0.5},
}


def leverage_task(name, n, seed):
    """Training data, test data without noise, gamma and lambda of one problem."""
    rules = LEVERAGE_TASKS[name]
    rng = np.random.default_rng(seed_sequence("leverage-task", name, seed=seed))
    noise = rng.standard_normal(n)
    if name == "two-tone":
        X = rng.uniform(-1, 1, (n + 2000, 1))
        y = np.sin(3 * X[:, 0]) + np.sin(25 * X[:, 0])
        noise *= 0.1
    elif name == "friedman":
        X = rng.uniform(0, 1, (n + 2000, 5))
        y = 10 * np.sin(np.pi * X[:, 0] * X[:, 1]) + 20 * (X[:, 2] - 0.5) ** 2
        y += 10 * X[:, 3] + 5 * X[:, 4]
        y, noise = (y - 14.4) / 5, noise / 5  # about its mean and deviation
    else:
        X, y = _subset(name, n, seed)
        X_test, y_test = _subset(name, None, seed, "test")
        y, y_test = np.eye(10)[y], np.eye(10)[y_test]
        gamma = 0.5 / (rules["width"] * median_distance(X)) ** 2
        return X, y, X_test, y_test, gamma, rules["lam"]
    gamma = 50.0 if name == "two-tone" else 0.5 / median_distance(X[:n]) ** 2
    return X[:n], y[:n] + noise, X[n:], y[n:], gamma, rules["lam"]


def leverage_test_error(prediction, y):
    """Share of wrong classes, or of the variance that is left unexplained."""
    if y.ndim == 2:
        return np.mean(prediction.argmax(axis=1) != y.argmax(axis=1))
    return np.mean((prediction - y) ** 2) / np.var(y)


def run_leverage_error(configs, seeds, device):
    """Test error, kernel errors and seconds of plain and leverage-score features."""
    from scipy.linalg import cholesky

    from lib.features import kernel_matrix

    for seed in seeds:
        prepared = {}
        for config in configs:
            key = (config["data"], config["n"])
            if key not in prepared:
                task = leverage_task(*key, seed)
                X, gamma, lam = task[0].astype(np.float64), task[4], task[5]
                K = kernel_matrix(X[:1000], gamma=gamma)
                root = None
                if len(X) == len(K):  # else the whitened error would be too dear
                    root = cholesky(K + len(X) * lam * np.eye(len(X)), lower=True)
                prepared[key] = (task, K, root)
            task, K, root = prepared[key]
            yield config, seed, _leverage_cell(config, seed, task, K, root)


def _leverage_cell(config, seed, task, K, root):
    from lib.features import (
        LeverageScoreFeatures,
        RandomFeatureRidge,
        RandomFourierFeatures,
    )

    X, y, X_test, y_test, gamma, lam = task
    n, D, method = len(X), config["D"], config["method"]
    if method == "exact":
        Y = y.reshape(n, -1)
        prediction = exact_ridge(X, Y, X_test, gamma, n * lam)
        return {"error": leverage_test_error(prediction.reshape(y_test.shape), y_test)}
    state = _integer_seed("leverage", config["data"], method, D, seed=seed)
    if method == "leverage":
        phi = LeverageScoreFeatures(D, gamma=gamma, alpha=lam, random_state=state)
    elif method == "density":
        return _density_cell(D, K, root, task, state)
    else:
        phi = RandomFourierFeatures(D, gamma=gamma, random_state=state)
    seconds = np.inf
    for _ in range(config["repeats"]):
        start = time.process_time()
        model = RandomFeatureRidge(phi, alpha=n * lam).fit(X, y)
        seconds = min(seconds, time.process_time() - start)
    start = time.process_time()
    prediction = model.predict(X_test)
    found = {
        "error": leverage_test_error(prediction, y_test),
        "seconds": seconds,
        "predict_seconds": time.process_time() - start,
    }
    Z = model.feature_map_.transform(X[: len(K)].astype(np.float64))
    gap = Z @ Z.T - K
    found["relative"] = np.linalg.norm(gap) / np.linalg.norm(K)
    if root is not None:
        found["spectral"] = whitened_norm(gap, root)
    if method == "leverage":
        scores = model.feature_map_.leverage_
        found["dimension"] = scores.mean()
        found["distinct"] = float(len(set(model.feature_map_.indices_.tolist())))
        # spread of the ratio q*/p over the pool
        found["spread"] = np.std(scores / scores.mean())
    return found


def whitened_norm(gap, root):
    """Spectral norm of root^-1 gap root^-T for symmetric ``gap``, root triangular."""
    from scipy.linalg import solve_triangular
    from scipy.sparse.linalg import eigsh

    half = solve_triangular(root, gap, lower=True)
    both = solve_triangular(root, half.T, lower=True)
    start = np.random.default_rng(0).standard_normal(len(gap))
    return abs(eigsh(both, k=1, v0=start, tol=1e-6, return_eigenvectors=False)[0])


def _density_cell(D, K, root, task, state):
    """Errors of D / 2 frequencies from the leverage density itself, in one dimension.

    The line is cut into cells that are short against the wave of any pair of points.
    """
    from lib.features import leverage_density

    X, y, X_test, y_test, gamma, lam = task
    m, grid = D // 2, np.linspace(-9, 9, 6001)[:, None] * np.sqrt(2 * gamma)
    p = np.exp(-(grid[:, 0] ** 2) / (4 * gamma))
    ratio = leverage_density(grid, X, K, lam)
    p /= p.sum()
    q = p * ratio / np.sum(p * ratio)
    drawn = np.random.default_rng(state).choice(len(grid), size=m, p=q)
    weights = np.tile(np.sqrt(p[drawn] / (m * q[drawn])), 2)
    Z, Z_test = (
        np.hstack([np.cos(A @ grid[drawn].T), np.sin(A @ grid[drawn].T)]) * weights
        for A in (X, X_test)
    )
    system = Z.T @ Z + len(X) * lam * np.eye(D)
    gap = Z @ Z.T - K
    return {
        "error": leverage_test_error(Z_test @ np.linalg.solve(system, Z.T @ y), y_test),
        "relative": np.linalg.norm(gap) / np.linalg.norm(K),
        "spectral": whitened_norm(gap, root),
    }


def _leverage_pair(results, key):
    """Values of pair and of leverage features at the numbers D they share."""
    D1, plain = results.where(method="pair").curve(key, over="D")
    D2, scored = results.where(method="leverage").curve(key, over="D")
    return plain[:, np.isin(D1, D2)], scored[:, np.isin(D2, D1)]


def leverage_gain(results):
    """Mean log test error of pair minus that of leverage features at equal D."""
    plain, scored = _leverage_pair(results, "error")
    return np.mean(np.log(plain) - np.log(scored), axis=1)


def leverage_kernel_loss(results):
    """Mean log Frobenius error of leverage minus that of pair features."""
    plain, scored = _leverage_pair(results, "relative")
    return np.mean(np.log(scored) - np.log(plain), axis=1)


def leverage_spectral_gain(results):
    """Mean log whitened spectral error of pair minus that of leverage features."""
    plain, scored = _leverage_pair(results, "spectral")
    return np.mean(np.log(plain) - np.log(scored), axis=1)


def density_saving(results):
    """Log of how many times more features the kernel's density needs than leverage's.

    For a whitened spectral error of one half. A number beyond the grid counts as its
    end.
    """
    need = {}
    for method in ("pair", "density"):
        D, error = results.where(method=method).curve("spectral", over="D")
        # from here on the error stays below
        low = np.log(np.maximum.accumulate(error[:, ::-1], axis=1)[:, ::-1])
        need[method] = np.array(
            [np.interp(-np.log(0.5), -row, np.log(D)) for row in low]
        )
    return need["pair"] - need["density"]


def leverage_slowdown(results):
    """Mean log training seconds of leverage minus those of pair features."""
    plain, scored = _leverage_pair(results, "seconds")
    return np.mean(np.log(scored) - np.log(plain), axis=1)


def leverage_affordable(results):
    """Log 2 minus the mean log slowdown: positive if less than twice the time."""
    return np.log(2) - leverage_slowdown(results)


def leverage_saving(results):
    """Log of how many times more features pairs need for the same test error.

    The error is that of leverage features at the middle of their D. A number beyond
    the grid of the pairs counts as the end of the grid.
    """
    D, plain = results.where(method="pair").curve("error", over="D")
    grid, scored = results.where(method="leverage").curve("error", over="D")
    j = len(grid) // 2
    out = []
    for a, b in zip(plain, scored, strict=True):
        best = np.log(np.minimum.accumulate(a)) - 1e-9 * np.arange(len(D))
        need = np.interp(-np.log(b[j]), -best, np.log(D))
        out.append(need - np.log(grid[j]))
    return np.array(out)


def leverage_clock_gain(results):
    """Mean log test error of pair minus leverage features at equal training time.

    Where scoring took longer than the widest pair map, that map stands for it.
    """
    _, plain = results.where(method="pair").curve("error", over="D")
    _, plain_s = results.where(method="pair").curve("seconds", over="D")
    _, scored = results.where(method="leverage").curve("error", over="D")
    _, scored_s = results.where(method="leverage").curve("seconds", over="D")
    out = []
    for a, s, b, t in zip(plain, plain_s, scored, scored_s, strict=True):
        best, s = np.log(np.minimum.accumulate(a)), np.maximum.accumulate(s)
        out.append(np.mean(np.interp(np.log(t), np.log(s), best) - np.log(b)))
    return np.array(out)


def run_leverage_density(configs, seeds, device):
    """The ratio q*/p at draws from p, and in one dimension its exact integral."""
    from lib.features import (
        effective_dimension,
        kernel_matrix,
        leverage_density,
        spectral_sample,
    )

    for seed in seeds:
        for config in configs:
            name, n, d, lam = (config[k] for k in ("data", "n", "d", "lam"))
            if name == "normal":
                rng = np.random.default_rng(seed_sequence("density", d, seed=seed))
                X = rng.standard_normal((n, d))
            else:
                X = _subset(name, n, seed)[0].astype(np.float64)
            gamma = 0.5 / median_distance(X) ** 2
            K = kernel_matrix(X, gamma=gamma)
            omega = spectral_sample(
                "gaussian",
                config["draws"],
                X.shape[1],
                gamma=gamma,
                random_state=_integer_seed("density", name, d, seed=seed),
            )
            ratio = leverage_density(omega, X, K, lam)
            found = {
                "dimension": effective_dimension(K, lam),
                "quantiles": np.quantile(ratio, [0.05, 0.5, 0.95]),
                "spread": ratio.std(),
                "largest": ratio.max(),
            }
            if X.shape[1] == 1:
                # Gauss-Hermite quadrature for omega ~ N(0, 2 gamma)
                nodes, weights = np.polynomial.hermite.hermgauss(240)
                nodes = 2 * np.sqrt(gamma) * nodes[:, None]
                Z = np.exp(1j * X @ nodes.T)
                solved = np.linalg.solve(K + n * lam * np.eye(n), Z)
                scores = np.sum(Z.conj() * solved, axis=0).real
                found["integral"] = weights @ scores / np.sqrt(np.pi)
            yield config, seed, found


def leverage_dimension_error(results):
    """Relative gap between the integral of the leverage and tr K (K + n lam I)^-1."""
    return _over_seeds(
        results,
        lambda cells: max(
            abs(c.data["integral"] / c.data["dimension"] - 1) for c in cells
        ),
    )


# --- random kitchen sinks ------------------------------------------------------------

SINKS_BOUND = 50.0  # C of every bounded fit on data

# method -> arguments of the sinks that are compared with random Fourier features
SINKS = {
    "ridge": {},
    "box": {"bound": SINKS_BOUND, "tol": 1e-3},
    "stump": {"feature": "stump"},
}


def _two_classes(name, n, seed):
    """Training and test points with labels -1 and 1: odd digits, or Hastie's ball."""
    if name == "hastie":
        from sklearn.datasets import make_hastie_10_2

        draw = _integer_seed("hastie", seed=seed)
        X, y = make_hastie_10_2(n + 4000, random_state=draw)
        return X[:n], y[:n], X[n:], y[n:]
    X, y = _subset(name, n, seed)
    X_test, y_test = _subset(name, None, seed, "test")
    return X, 2.0 * (y % 2) - 1.0, X_test, 2.0 * (y_test % 2) - 1.0


def _fitted(make, X, y):
    """A fitted model and its processor seconds, of three if it is quickly done."""
    best = np.inf
    for _ in range(3):
        start = time.process_time()
        model = make().fit(X, y)
        best = min(best, time.process_time() - start)
        if best > 0.1:
            break
    return model, best


def run_rks_adaboost(configs, seeds, device):
    """Test error and processor seconds to train, for each number of functions."""
    from sklearn.ensemble import AdaBoostClassifier

    from lib.features import RandomKitchenSinksClassifier

    for seed in seeds:
        prepared = {}
        for config in configs:
            key = (config["data"], config["n"])
            if key not in prepared:
                parts = _two_classes(*key, seed)
                gamma = 0.5 / (0.5 * median_distance(parts[0])) ** 2
                prepared[key] = (*parts, gamma)
            X, y, X_test, y_test, gamma = prepared[key]
            method, size = config["method"], config["size"]
            draw = _integer_seed("sinks", size, seed=seed)
            if method == "adaboost":

                def make(size=size, draw=draw):
                    return AdaBoostClassifier(n_estimators=size, random_state=draw)
            else:

                def make(size=size, draw=draw, method=method, gamma=gamma):
                    return RandomKitchenSinksClassifier(
                        size, feature=method, gamma=gamma, random_state=draw
                    )

            model, seconds = _fitted(make, X, y)
            error = np.mean(model.predict(X_test) != y_test)
            yield config, seed, {"error": error, "cpu_seconds": seconds}


def _matched_seconds(cells, method, target):
    """Smallest training time at which a method's error is at most the target."""
    return min(
        float(c.data["cpu_seconds"])
        for c in cells
        if c.config["method"] == method and c.data["error"] <= target
    )


def matched_speedup(cells):
    """log10 of AdaBoost's time over that of the sinks among one data set's cells.

    Both at the smallest error that both reach, with any number of functions.
    """
    (sinks,) = {c.config["method"] for c in cells} - {"adaboost"}
    target = max(
        min(float(c.data["error"]) for c in cells if c.config["method"] == method)
        for method in ("adaboost", sinks)
    )
    ours, theirs = (_matched_seconds(cells, m, target) for m in (sinks, "adaboost"))
    return np.log10(theirs / ours)


def sinks_speedup(results):
    """Mean over the data sets of log10 of the time ratio at matched error, a seed."""
    return _over_seeds(
        results, lambda cells: np.mean([matched_speedup(g) for g in _by_data(cells)])
    )


def sinks_error_gain(results):
    """AdaBoost's error minus the sinks' at their largest sizes, worst data set."""

    def gap(cells):
        last = {}
        for c in sorted(cells, key=lambda c: c.config["size"]):
            last[c.config["method"]] = float(c.data["error"])
        (sinks,) = set(last) - {"adaboost"}
        return last["adaboost"] - last[sinks]

    return _over_seeds(results, lambda cells: min(gap(g) for g in _by_data(cells)))


def _by_data(cells):
    names = sorted({c.config["data"] for c in cells})
    return [[c for c in cells if c.config["data"] == name] for name in names]


def run_rks_variants(configs, seeds, device):
    """Fits with the same cosines: Fourier features, penalty, two boxes; and stumps."""
    from lib.features import (
        RandomFeatureRidge,
        RandomFourierFeatures,
        RandomKitchenSinksRegressor,
    )

    for seed in seeds:
        prepared = {}
        for config in configs:
            key = (config["data"], config["n"])
            if key not in prepared:
                parts = _two_classes(*key, seed)
                gamma = 0.5 / (0.5 * median_distance(parts[0])) ** 2
                prepared[key] = (*parts, gamma)
            X, y, X_test, y_test, gamma = prepared[key]
            D, method = config["D"], config["method"]
            draw = _integer_seed("variants", D, seed=seed)
            shared = {"gamma": gamma, "random_state": draw}
            fourier = RandomFourierFeatures(D, features="phase", **shared)
            # features sqrt(2 / D) cos: the same penalty of 1e-3
            alpha = 1e-3 * len(X) * 2 / D

            def make(D=D, method=method, shared=shared, fourier=fourier, alpha=alpha):
                if method == "fourier":
                    return RandomFeatureRidge(fourier, alpha=alpha)
                if method == "density":
                    # caps in the place of unit columns, and a box of half width 1
                    return RandomKitchenSinksRegressor(
                        D, feature=capped_cosines(fourier), bound=D, tol=1e-2
                    )
                return RandomKitchenSinksRegressor(D, **SINKS[method], **shared)

            model, seconds = _fitted(make, X, y)
            error = np.mean(np.sign(model.predict(X_test)) != y_test)
            yield config, seed, {"error": error, "cpu_seconds": seconds}


def capped_cosines(fourier):
    """Cosines times caps that are proportional to their density and sum to C."""
    from scipy.special import softmax

    def feature(X, D, rng):
        phi = fourier.fit(X)
        log_density = -np.sum(phi.frequencies_**2, axis=1) / (4 * phi.gamma_)
        caps = SINKS_BOUND * softmax(log_density)
        return lambda Y: np.sqrt(D / 2) * phi.transform(Y) * caps

    return feature


def sinks_over_fourier(results):
    """Mean log10 of the time of Fourier features over that of sinks, one a seed."""
    return _variant_gap(results, "cpu_seconds", np.log10, "fourier", "ridge")


def box_error_gain(results):
    """Mean error of Fourier features minus that of sinks in the box, one a seed."""
    return _variant_gap(results, "error", float, "fourier", "box")


def stump_error_gain(results):
    """Mean error of Fourier features minus that of stump sinks, one a seed."""
    return _variant_gap(results, "error", float, "fourier", "stump")


def density_error_gain(results):
    """Mean error in the box minus that under density-shaped caps, one a seed."""
    return _variant_gap(results, "error", float, "box", "density")


def _variant_gap(results, key, scale, first, second):
    def gap(cells):
        mean = {
            m: np.mean([scale(c.data[key]) for c in cells if c.config["method"] == m])
            for m in (first, second)
        }
        return mean[first] - mean[second]

    return _over_seeds(results, gap)


def sinks_target(d, seed):
    """A function of the class with C = 2: eight Gaussian bumps of weight +-1/8."""
    rng = np.random.default_rng(seed_sequence("sinks-target", d, seed=seed))
    centres = rng.standard_normal((8, d))
    weights = rng.choice([-0.125, 0.125], 8)
    return centres, weights


def excess_bound(n, D, C=2.0, lipschitz=6.2, eta=0.05):
    """Right-hand side of the bound on the excess risk; false at most 3 eta often."""
    tail = np.sqrt(2 * np.log(1 / eta))
    return lipschitz * C * ((2 + 2 * tail) / np.sqrt(n) + (1 + tail) / np.sqrt(D))


def run_rks_rate(configs, seeds, device):
    """Distance of the average of D functions, and of the bounded fit, to its target."""
    from lib.features import RandomKitchenSinksRegressor, kernel_matrix

    for seed in seeds:
        for config in configs:
            d, n, D, trials = (config[k] for k in ("d", "n", "D", "trials"))
            gamma = 0.5 / d
            centres, weights = sinks_target(d, seed)
            rng = np.random.default_rng(seed_sequence("sinks-rate", d, n, D, seed=seed))
            square = {"average": 0.0, "excess": 0.0}
            for _ in range(trials):
                X = rng.standard_normal((n + 4000, d))
                f = kernel_matrix(X, centres, gamma=gamma) @ weights
                y = f[:n] + rng.uniform(-0.1, 0.1, n)
                model = RandomKitchenSinksRegressor(
                    D,
                    bound=2.0,
                    gamma=gamma,
                    tol=1e-5,
                    random_state=int(rng.integers(2**31)),
                ).fit(X[:n], y)
                fit = model.predict(X[n:])
                square["excess"] += np.mean((fit - f[n:]) ** 2) / trials
                for _ in range(10):
                    draw = int(rng.integers(2**31))
                    average = importance_average(X[n:], centres, weights, D, draw)
                    gap = np.mean((average - f[n:]) ** 2)
                    square["average"] += gap / (10 * trials)
            yield (
                config,
                seed,
                {"average": np.sqrt(square["average"]), "excess": square["excess"]},
            )


def importance_average(X, centres, weights, D, draw):
    """The mean of rho(w, b) cos(w'x + b) over D draws, where rho = a / p, |rho| <= 2.

    With rho(w, b) = 2 sum_j c_j cos(w'z_j + b) its expectation is the sum of bumps.
    """
    from lib.features import RandomFourierFeatures

    phi = RandomFourierFeatures(
        D, gamma=0.5 / X.shape[1], features="phase", random_state=draw
    ).fit(X)
    # the features are sqrt(2 / D) cos(w'x + b)
    return phi.transform(X) @ (weights @ phi.transform(centres))


def average_slope(results):
    """Exponent in D of the root mean square error of the average, one a seed."""
    return _rate_slope(results, "average")


def excess_slope(results):
    """Exponent in D of the excess risk of the bounded fit, one a seed."""
    return _rate_slope(results, "excess")


def _rate_slope(results, key):
    most = max(c["n"] for c in results.configs)
    D, y = results.curve(key, over="D", n=most)
    return np.polyfit(np.log(D), np.log(y).T, 1)[0]


def excess_slack(results):
    """Mean excess risk minus its bound, one number a cell."""
    return np.array(
        [
            float(c.data["excess"]) - excess_bound(c.config["n"], c.config["D"])
            for c in results
        ]
    )


# --- all maps under one protocol ------------------------------------------------------


BAKEOFF = (*MAPS, "normalized", "fastfood", "leverage", "nystroem")


def bakeoff_map(method, D, gamma, n, seed):
    """One map of the wing's comparison, by its name in the book."""
    from sklearn.kernel_approximation import Nystroem

    from lib.features import Fastfood, LeverageScoreFeatures, RandomFourierFeatures

    state = {"gamma": gamma, "random_state": seed}
    if method == "fastfood":
        return Fastfood(D, **state)
    if method == "leverage":
        return LeverageScoreFeatures(D, alpha=1e-6, pool_factor=5, **state)
    if method == "nystroem":
        return Nystroem(n_components=D, **state)
    if method == "normalized":
        return RandomFourierFeatures(D, features="phase", normalize=True, **state)
    return RandomFourierFeatures(D, **MAPS[method], **state)


def run_bakeoff(configs, seeds, device):
    """Kernel error, accuracy of ridge regression and processor seconds of each map."""
    from lib.features import RandomFeatureRidge, kernel_matrix

    for config in configs:
        for seed in seeds:
            X, y = _subset(config["data"], config["n"], seed)
            X_test, y_test = _subset(config["data"], None, seed, "test")
            gamma = 0.5 / (0.5 * median_distance(X)) ** 2
            D, method = config["D"], config["method"]
            draw = _integer_seed("bakeoff", method, D, seed=seed)
            phi = bakeoff_map(method, D, gamma, len(X), draw)
            start = time.process_time()
            Z = phi.fit(X).transform(X)
            seconds = time.process_time() - start
            K = kernel_matrix(X[:1000].astype(np.float64), gamma=gamma)
            gap = Z[:1000] @ Z[:1000].T - K
            model = RandomFeatureRidge(phi, alpha=1e-6 * len(X))
            scores = model.fit(X, np.eye(10)[y]).predict(X_test)
            yield (
                config,
                seed,
                {
                    "relative": np.linalg.norm(gap) / np.linalg.norm(K),
                    "accuracy": np.mean(scores.argmax(axis=1) == y_test),
                    "map_seconds": seconds,
                },
            )


def nystroem_task(name, n, lam, seed):
    """Training data, test data, gamma and lambda, as the random maps have them.

    Names are those of the leverage tasks, of data sets (ten classes) and, with
    "-parity" behind them, of the data on which the kitchen sinks run.
    """
    if name in ("two-tone", "friedman"):
        return leverage_task(name, n, seed)
    if name.endswith("-parity"):
        X, y, X_test, y_test = _two_classes(name.removesuffix("-parity"), n, seed)
    else:
        X, y = _subset(name, n, seed)
        X_test, y_test = _subset(name, None, seed, "test")
        y, y_test = np.eye(10)[y], np.eye(10)[y_test]
    gamma = 0.5 / (0.5 * median_distance(X)) ** 2
    return X, y, X_test, y_test, gamma, lam


def run_nystroem(configs, seeds, device):
    """Test error and training time of ridge regression on Nystroem's features."""
    from sklearn.kernel_approximation import Nystroem

    from lib.features import RandomFeatureRidge

    for seed in seeds:
        last = None
        for config in configs:
            key = (config["data"], config["n"], config["lam"])
            if key != last:
                X, y, X_test, y_test, gamma, lam = nystroem_task(*key, seed)
                last = key
            D, parity = config["D"], config["data"].endswith("-parity")
            # the sinks' functions are sqrt(D / 2) times as long as features of norm one
            alpha = lam * len(X) * (2 / D if parity else 1)
            draw = _integer_seed("nystroem", config["data"], D, seed=seed)
            phi = Nystroem(n_components=D, gamma=gamma, random_state=draw)
            start = time.process_time()
            model = RandomFeatureRidge(phi, alpha=alpha).fit(X, y)
            seconds = time.process_time() - start
            prediction = model.predict(X_test)
            if parity:
                error = np.mean(np.sign(prediction) != y_test)
            else:
                error = leverage_test_error(prediction, y_test)
            yield config, seed, {"error": error, "cpu_seconds": seconds}


# --- Fastfood ---------------------------------------------------------------------

FASTFOOD_MAPS = ("pair", "fastfood", "orthogonal", "sorf", "nystroem")


def _fastfood_map(method, D, gamma, state):
    """One unfitted map of the comparison."""
    if method == "fastfood":
        from lib.features import Fastfood

        return Fastfood(D, gamma=gamma, random_state=state)
    if method == "nystroem":
        from sklearn.kernel_approximation import Nystroem

        return Nystroem(gamma=gamma, n_components=D, random_state=state)
    from lib.features import RandomFourierFeatures

    return RandomFourierFeatures(D, gamma=gamma, random_state=state, **MAPS[method])


def fastfood_difference(shape, p):
    """A difference of length one, from peaked to flat."""
    delta = np.zeros(p)
    if shape == "axis":
        delta[3] = 1.0
    elif shape == "two":
        delta[[3, 8]] = np.sqrt(0.5)
    elif shape == "normal":
        delta[:] = np.random.default_rng(seed_sequence("normal", p, seed=0)).normal(
            size=p
        )
        delta /= np.linalg.norm(delta)
    else:
        delta[:] = np.sqrt(1 / p)
    return delta


def fastfood_angles(role, delta, blocks, rng):
    """Angles of independent blocks of p frequencies, bandwidth one: (blocks, p).

    The roles are Fastfood with S = I ("one"), with independent lengths ("chi"),
    and without the permutation ("unpermuted", S = I); "sorf" and "iid".
    """
    from lib.features import fwht

    shape = (blocks, len(delta))
    if role == "iid":
        return rng.standard_normal(shape) * np.linalg.norm(delta)
    if role == "sorf":
        v = np.broadcast_to(delta, shape)
        for _ in range(3):
            v = fwht(rng.choice([-1.0, 1.0], size=shape) * v, normalize=True)
        return np.sqrt(shape[1]) * v
    u = fwht(rng.choice([-1.0, 1.0], size=shape) * delta, normalize=True)
    if role != "unpermuted":
        u = rng.permuted(u, axis=1)
    normals = rng.standard_normal(shape)
    angles = fwht(normals * u)
    if role == "chi":
        angles *= np.sqrt(rng.chisquare(shape[1], size=shape))
        angles /= np.linalg.norm(normals, axis=1, keepdims=True)
    return angles


def fastfood_variance(role, distance, spikiness):
    """First order in 1 / p of p times the variance of a block's mean of cosines."""
    k_squared = np.exp(-(distance**2))
    independent = (1 - k_squared) ** 2 / 2
    if role == "iid":
        return independent
    extra = {"one": 1.0, "unpermuted": 1.0, "chi": 0.5}[role] - spikiness
    return independent + k_squared * distance**4 * extra


def run_fastfood_variance(configs, seeds, device):
    """p Var and bias of one block against the closed forms, for one difference."""
    distance = np.array([0.5, 1.0, 1.5, 2.0])
    k = np.exp(-(distance**2) / 2)
    for seed in seeds:
        for config in configs:
            role, shape, p = config["role"], config["shape"], config["p"]
            delta = fastfood_difference(shape, p)
            rng = np.random.default_rng(
                seed_sequence("fastfood-variance", role, shape, p, seed=seed)
            )
            means = []
            for start in range(0, config["blocks"], 1000):
                size = min(1000, config["blocks"] - start)
                angles = fastfood_angles(role, delta, size, rng)
                means.append([np.cos(r * angles).mean(axis=1) for r in distance])
            means = np.concatenate(means, axis=1)
            found = {
                "distance": distance,
                "variance": p * means.var(axis=1, ddof=1),
                "bias": means.mean(axis=1) - k,
            }
            if role == "sorf":
                found["bias_formula"] = -k * distance**4 / (4 * p)
            else:
                spikiness = np.sum(delta**4)
                found["formula"] = fastfood_variance(role, distance, spikiness)
            yield config, seed, found


def fastfood_variance_error(results):
    """Largest gap to the closed form, in units of p Var of independent rows."""

    def error(cells):
        return max(
            np.max(
                np.abs(c.data["variance"] - c.data["formula"])
                / fastfood_variance("iid", c.data["distance"], None)
            )
            for c in cells
        )

    return _over_seeds(results, error)


def fastfood_variance_gain(results):
    """Mean over distances of log p Var of independent rows minus that of Fastfood."""
    iid, chi = (
        np.log(results.where(role=role).values("variance")) for role in ("iid", "chi")
    )
    return (iid - chi).mean(axis=1)


def sorf_bias_ratio(results):
    """Least-squares factor from the predicted to the measured bias of SORF."""

    def ratio(cells):
        predicted, measured = (
            np.concatenate([c.data[name] for c in cells])
            for name in ("bias_formula", "bias")
        )
        return predicted @ measured / (predicted @ predicted)

    return _over_seeds(results, ratio)


def run_fastfood_error(configs, seeds, device):
    """Kernel error, and processor seconds to fit the map and to apply it."""
    from lib.features import kernel_matrix

    for seed in seeds:
        prepared = {}
        for config in configs:
            key = (config["data"], config["n"])
            if key not in prepared:
                X, _ = _subset(*key, seed)
                gamma = 0.5 / median_distance(X) ** 2
                prepared[key] = X, gamma, kernel_matrix(X.astype(float), gamma=gamma)
            X, gamma, K = prepared[key]
            method, D = config["method"], config["D"]
            state = _integer_seed("fastfood-error", method, D, seed=seed)
            phi = _fastfood_map(method, D, gamma, state)
            start = time.process_time()
            phi.fit(X)
            fit_seconds, seconds = time.process_time() - start, np.inf
            for _ in range(3):
                start = time.process_time()
                Z = phi.transform(X)
                seconds = min(seconds, time.process_time() - start)
            gap = (Z @ Z.T).astype(float) - K
            yield (
                config,
                seed,
                {
                    "relative": np.linalg.norm(gap) / np.linalg.norm(K),
                    "fit_seconds": fit_seconds,
                    "seconds": seconds,
                },
            )


def fastfood_error_ratio(results):
    """Mean log error of Fastfood minus that of iid pairs, one number a seed."""
    return _log_gap(results, "fastfood", "pair")


def sorf_gain_over_fastfood(results):
    """Mean log error of Fastfood minus that of SORF, one number a seed."""
    return _log_gap(results, "fastfood", "sorf")


def run_fastfood_learn(configs, seeds, device):
    """Accuracy of ridge regression on Fastfood and on dense features."""
    from lib.features import RandomFeatureRidge

    for seed in seeds:
        prepared = {}
        for config in configs:
            key = (config["data"], config["n"])
            if key not in prepared:
                X, y = _subset(*key, seed)
                X_test, y_test = _subset(config["data"], None, seed, "test")
                gamma = 0.5 / (0.5 * median_distance(X)) ** 2
                Y, alpha = np.eye(int(y.max()) + 1)[y], 1e-4 * len(X)
                prepared[key] = X, Y, X_test, y_test, gamma, alpha
            X, Y, X_test, y_test, gamma, alpha = prepared[key]
            method, D = config["method"], config["D"]
            if method == "exact":
                scores = exact_ridge(X, Y, X_test, gamma, alpha)
            else:
                state = _integer_seed("fastfood-learn", method, D, seed=seed)
                phi = _fastfood_map(method, D, gamma, state)
                scores = RandomFeatureRidge(phi, alpha=alpha).fit(X, Y).predict(X_test)
            accuracy = np.mean(scores.argmax(axis=1) == y_test)
            yield config, seed, {"accuracy": accuracy}


def fastfood_accuracy_gap(results):
    """Mean accuracy of Fastfood minus that of iid pairs at equal D, one a seed."""
    _, pair = results.where(method="pair").curve("accuracy", over="D")
    _, fast = results.where(method="fastfood").curve("accuracy", over="D")
    return (fast - pair).mean(axis=1)


def fastfood_full_gap(results):
    """Accuracy of Fastfood at the largest D minus exact kernel ridge, one a seed."""
    exact = results.where(method="exact").values("accuracy")
    _, fast = results.where(method="fastfood").curve("accuracy", over="D")
    return fast[:, -1] - exact


def run_fastfood_cost(configs, seeds, device):
    """Processor seconds of the map, single precision, and bytes that describe it."""
    for seed in seeds:
        for config in configs:
            n, d, D, method = (config[k] for k in ("n", "d", "D", "method"))
            rng = np.random.default_rng(seed_sequence("fastfood-cost", d, seed=seed))
            X = rng.standard_normal((n, d)).astype(np.float32)
            phi = _fastfood_map(method, D, 0.5 / d, seed).fit(X)
            best = np.inf
            for _ in range(5):
                start = time.process_time()
                phi.transform(X)
                best = min(best, time.process_time() - start)
            names = ("frequencies_", "B_", "permutation_", "G_", "S_")
            stored = sum(getattr(phi, a).nbytes for a in names if hasattr(phi, a))
            yield config, seed, {"seconds": best, "bytes": float(stored)}


def fastfood_time_exponent(results):
    """Exponent of processor time in d at fixed D, one number a seed."""
    d, y = results.curve("seconds", over="d")
    return np.polyfit(np.log(d), np.log(y).T, 1)[0]


def fastfood_storage_growth(results):
    """Log of the bytes at each d over those at the smallest, all seeds in one."""
    _, y = results.curve("bytes", over="d")
    return np.log(y / y[:, :1]).ravel()


def _fastfood_against_pair(results, key, d):
    pair, fast = (
        results.where(method=m, d=d).values(key) for m in ("pair", "fastfood")
    )
    return pair / fast


def fastfood_speedup_4096(results):
    """Log of the dense over the Fastfood time at d = 4096, against a factor of 100."""
    return np.log(_fastfood_against_pair(results, "seconds", 4096) / 100)


def fastfood_speedup_1024(results):
    """Log of the dense over the Fastfood time at d = 1024, against a factor of 24."""
    return np.log(_fastfood_against_pair(results, "seconds", 1024) / 24)


def fastfood_memory_shortfall(results):
    """How far dense over Fastfood bytes at d = 4096 stays below 1000, relative."""
    return 1 - _fastfood_against_pair(results, "bytes", 4096) / 1000


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


def _leverage_grid(data, n, shared, more, repeats):
    """Both maps at the shared D, pairs at more of them, and the exact kernel."""
    return (
        _grid(
            data=[data],
            n=[n],
            method=["pair", "leverage"],
            D=shared,
            repeats=[repeats],
        )
        + _grid(data=[data], n=[n], method=["pair"], D=more, repeats=[repeats])
        + _grid(data=[data], n=[n], method=["exact"], D=[None], repeats=[1])
        + _grid(
            data=[data],
            n=[n],
            method=["density"] if data == "two-tone" else [],
            D=shared + more,
            repeats=[1],
        )
    )


def _nystroem_grid(data, n, lam, D):
    return _grid(data=[data], n=[n], lam=[lam], D=D)


_FOURIER = ("lib.features.kernels", "lib.features.fourier")
_RIDGE = (*_FOURIER, "lib.features.ridge")
_LEVERAGE = (*_RIDGE, "lib.features.leverage")
_SINKS = (*_RIDGE, "lib.features.kitchen_sinks")
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
        )
        + _grid(data=["cifar10"], n=[1000], method=list(MAPS), D=_POWERS[:9:2]),
        seeds={"quick": 5, "full": 5},
        modules=_FOURIER,
        cuda=True,
        data=("digits", "mnist", "fashion-mnist", "cifar10"),
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
            D=[16, 32, 64, 128, 256, 512, 1024, 1200, 2048],
        )
        + _grid(data=["digits"], n=[1200], lam=[1e-6], method=["exact"], D=[None]),
        # ten thousand points are as many as an exact solution takes on a CPU
        full=_grid(
            data=["mnist"],
            n=[10_000],
            lam=[1e-6],
            method=["pair"],
            D=[2**j for j in range(8, 14)],
        )
        + _grid(data=["mnist"], n=[10_000], lam=[1e-6], method=["exact"], D=[None])
        + _grid(
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
        cuda=True,
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
    Experiment(
        name="nrff-variance",
        summary="Monte-Carlo variance and bias of normalised features, closed forms.",
        run=run_nrff_variance,
        quick=_grid(
            kernel=["gaussian"],
            gamma=[0.5, 2.5],
            D=[16, 64, 256],
            trials=[4000],
            variant=["phase", "normalized", "pair"],
        )
        + _grid(
            kernel=["laplacian", "cauchy"],
            gamma=[1.0],
            D=[64, 256],
            trials=[4000],
            variant=["phase", "normalized", "pair"],
        ),
        full=_grid(
            kernel=["gaussian"],
            gamma=[0.25, 0.5, 1.0, 2.5, 5.0],
            D=[16, 64, 256, 1024, 4096],
            trials=[20_000],
            variant=["phase", "normalized", "pair"],
        )
        + _grid(
            kernel=["laplacian", "cauchy"],
            gamma=[1.0],
            D=[16, 64, 256, 1024, 4096],
            trials=[20_000],
            variant=["phase", "normalized", "pair"],
        ),
        seeds={"quick": 3, "full": 5},
        modules=_FOURIER,
        data=(),
    ),
    Experiment(
        name="nrff-error",
        summary="Kernel error against D of phase, normalised and pair features.",
        run=run_nrff_error,
        quick=_grid(
            data=["digits"],
            n=[500],
            method=list(NORMALISED_MAPS),
            D=[32, 128, 512, 2048],
        ),
        full=_grid(
            data=["mnist", "fashion-mnist"],
            n=[1000],
            method=list(NORMALISED_MAPS),
            D=_POWERS[:9],
        ),
        seeds={"quick": 5, "full": 5},
        modules=_FOURIER,
        cuda=True,
        data=("digits", "mnist", "fashion-mnist"),
    ),
    Experiment(
        name="nrff-learn",
        summary="Linear learners on phase, normalised and pair features against D.",
        run=run_nrff_learn,
        quick=_grid(
            data=["digits"],
            n=[1200],
            learner=["ridge"],
            method=list(NORMALISED_MAPS),
            D=[16, 32, 64, 128, 256, 512, 1024],
        )
        + _grid(
            data=["digits"],
            n=[1200],
            learner=["svm"],
            method=list(NORMALISED_MAPS),
            D=[16, 64, 256],
        ),
        full=_grid(
            data=["mnist", "fashion-mnist"],
            n=[5000],
            learner=["ridge"],
            method=list(NORMALISED_MAPS),
            D=[64, 128, 256, 512, 1024],
        ),
        seeds={"quick": 5, "full": 5},
        modules=_RIDGE,
        data=("digits", "mnist", "fashion-mnist"),
    ),
    Experiment(
        name="nrff-cost",
        summary="Processor time of the phase map and of normalising its rows.",
        run=run_nrff_cost,
        quick=_grid(d=[64], D=[256, 1024, 4096]),
        full=_grid(d=[64], D=[256, 512, 1024, 2048, 4096, 8192, 16_384]),
        seeds={"quick": 3, "full": 5},
        modules=_FOURIER,
        data=(),
    ),
    Experiment(
        name="leverage-error",
        summary="Plain against leverage-score features: test and kernel error, time.",
        run=run_leverage_error,
        quick=_leverage_grid("two-tone", 500, [8, 16, 32, 64, 128], [], 1)
        + _leverage_grid("friedman", 1000, [32, 64, 128, 256], [], 1)
        + _leverage_grid("digits", 1200, [32, 64, 128], [], 1),
        full=_leverage_grid(
            "two-tone", 500, [8, 16, 32, 64, 128], [256, 512, 1024, 2048], 3
        )
        + _leverage_grid("friedman", 1000, [32, 64, 128, 256, 512], [1024, 2048], 3)
        + _leverage_grid("digits", 1200, [32, 64, 128, 256, 512], [1024, 2048], 3)
        + _leverage_grid("mnist", 5000, [32, 64, 128, 256, 512], [1024, 2048, 4096], 1),
        seeds={"quick": 5, "full": 5},
        modules=_LEVERAGE,
        data=("digits", "mnist"),
    ),
    Experiment(
        name="leverage-density",
        summary="The leverage density relative to the kernel's, against d and lambda.",
        run=run_leverage_density,
        quick=_grid(
            data=["normal"],
            n=[300],
            d=[1, 2, 4, 8, 16, 64, 256],
            lam=[1e-2, 1e-4],
            draws=[1000],
        ),
        full=_grid(
            data=["normal"],
            n=[1000],
            d=[1, 2, 4, 8, 16, 32, 64, 128, 256],
            lam=[1e-2, 1e-3, 1e-4, 1e-5, 1e-6],
            draws=[2000],
        )
        + _grid(
            data=["digits"],
            n=[1000],
            d=[64],
            lam=[1e-2, 1e-3, 1e-4, 1e-5, 1e-6],
            draws=[2000],
        )
        + _grid(
            data=["mnist"],
            n=[1000],
            d=[784],
            lam=[1e-2, 1e-3, 1e-4, 1e-5, 1e-6],
            draws=[2000],
        ),
        seeds={"quick": 3, "full": 5},
        modules=_LEVERAGE,
        data=("digits", "mnist"),
    ),
    Experiment(
        name="rks-adaboost",
        summary="Error and training time of AdaBoost and of random kitchen sinks.",
        run=run_rks_adaboost,
        quick=_grid(
            data=["digits"], n=[1200], method=["adaboost"], size=[6, 12, 25, 50]
        )
        + _grid(
            data=["digits"],
            n=[1200],
            method=["stump", "cos"],
            size=[12, 25, 50, 100, 200, 400],
        )
        + _grid(data=["hastie"], n=[1000], method=["adaboost"], size=[6, 12, 25, 50])
        + _grid(
            data=["hastie"],
            n=[1000],
            method=["stump", "cos"],
            size=[12, 25, 50, 100, 200, 400],
        ),
        full=_grid(
            data=["digits"],
            n=[1200],
            method=["adaboost"],
            size=[12, 25, 50, 100, 200, 400],
        )
        + _grid(
            data=["digits"],
            n=[1200],
            method=["stump", "cos"],
            size=[12, 25, 50, 100, 200, 400, 800, 1600],
        )
        + _grid(
            data=["hastie"],
            n=[8000],
            method=["adaboost"],
            size=[12, 25, 50, 100, 200, 400],
        )
        + _grid(
            data=["hastie"],
            n=[8000],
            method=["stump", "cos"],
            size=[12, 25, 50, 100, 200, 400, 800, 1600],
        )
        + _grid(
            data=["mnist", "fashion-mnist"],
            n=[10_000],
            method=["adaboost"],
            size=[12, 25, 50, 100, 200],
        )
        # two seconds a round
        + _grid(data=["cifar10"], n=[10_000], method=["adaboost"], size=[12, 25, 50])
        + _grid(
            data=["mnist", "fashion-mnist", "cifar10"],
            n=[10_000],
            method=["stump", "cos"],
            size=[12, 25, 50, 100, 200, 400, 800, 1600],
        ),
        seeds={"quick": 3, "full": 5},
        modules=_SINKS,
        data=("digits", "mnist", "fashion-mnist", "cifar10"),
    ),
    Experiment(
        name="rks-variants",
        summary="Sinks with penalty, boxes and stumps beside random Fourier features.",
        run=run_rks_variants,
        quick=_grid(
            data=["digits"],
            n=[1200],
            method=["fourier", "ridge", "box", "density", "stump"],
            D=[64, 256],
        ),
        full=_grid(
            data=["digits"],
            n=[1200],
            method=["fourier", "ridge", "box", "density", "stump"],
            D=[64, 256, 1024],
        )
        + _grid(
            data=["mnist"],
            n=[10_000],
            method=["fourier", "ridge", "box", "density", "stump"],
            D=[64, 256, 1024],
        ),
        seeds={"quick": 3, "full": 5},
        modules=_SINKS,
        data=("digits", "mnist"),
    ),
    Experiment(
        name="rks-rate",
        summary="Excess risk of bounded sinks against the number of functions.",
        run=run_rks_rate,
        quick=_grid(d=[5], n=[2000], D=[8, 16, 32, 64, 128], trials=[2]),
        full=_grid(d=[5], n=[40_000], D=[8, 16, 32, 64, 128, 256, 512], trials=[3])
        + _grid(d=[5], n=[250, 1000, 4000], D=[256], trials=[3]),
        seeds={"quick": 3, "full": 5},
        modules=_SINKS,
        data=(),
    ),
    Experiment(
        name="rf-bakeoff",
        summary="Every map of the wing and Nystroem under one protocol.",
        run=run_bakeoff,
        quick=_grid(data=["digits"], n=[1200], method=list(BAKEOFF), D=[64, 256]),
        full=_grid(
            data=["mnist"], n=[5000], method=list(BAKEOFF), D=[64, 256, 1024, 2048]
        ),
        seeds={"quick": 3, "full": 5},
        modules=(*_RIDGE, "lib.features.fastfood", "lib.features.leverage"),
        data=("digits", "mnist"),
    ),
    Experiment(
        name="rf-nystroem",
        summary="Ridge regression on Nystroem's features, on the problems of the wing.",
        run=run_nystroem,
        quick=_nystroem_grid("digits", 1200, 1e-6, [16, 32, 64, 128, 256, 512])
        + _nystroem_grid("digits", 1200, 1e-4, [16, 32, 64, 128, 256, 512])
        + _nystroem_grid("two-tone", 500, None, [8, 16, 32, 64, 128])
        + _nystroem_grid("friedman", 1000, None, [32, 64, 128, 256])
        + _nystroem_grid("digits-parity", 1200, 1e-3, [12, 25, 50, 100, 200, 400])
        + _nystroem_grid("hastie-parity", 1000, 1e-3, [12, 25, 50, 100, 200, 400]),
        full=_nystroem_grid("digits", 1200, 1e-4, [32, 64, 128, 256, 512])
        + _nystroem_grid("two-tone", 500, None, [8, 16, 32, 64, 128])
        + _nystroem_grid("friedman", 1000, None, [32, 64, 128, 256, 512])
        + _nystroem_grid("mnist", 5000, 1e-4, [32, 64, 128, 256, 512, 1024])
        + _nystroem_grid("mnist", 4000, 1e-4, [256, 512, 1024, 2048])
        + _nystroem_grid("mnist", None, 1e-6, [256, 512, 1024])
        + _nystroem_grid("fashion-mnist", None, 1e-6, [256, 512, 1024])
        + _nystroem_grid("cifar10", None, 1e-6, [256, 512, 1024])
        + _nystroem_grid("digits-parity", 1200, 1e-3, [12, 25, 50, 100, 200, 400, 800])
        + _nystroem_grid(
            "hastie-parity", 8000, 1e-3, [12, 25, 50, 100, 200, 400, 800, 1600]
        )
        + _grid(
            data=["mnist-parity", "fashion-mnist-parity", "cifar10-parity"],
            n=[10_000],
            lam=[1e-3],
            D=[12, 25, 50, 100, 200, 400, 800, 1600],
        ),
        seeds={"quick": 5, "full": 5},
        modules=_RIDGE,
        data=("digits", "mnist", "fashion-mnist", "cifar10"),
    ),
    Experiment(
        name="fastfood-variance",
        summary="Variance and bias of one block of Fastfood and SORF, closed forms.",
        run=run_fastfood_variance,
        quick=_grid(
            p=[64],
            shape=["axis", "two", "normal", "flat"],
            role=["iid", "one", "chi", "sorf"],
            blocks=[3000],
        ),
        full=_grid(
            p=[16, 64, 256],
            shape=["axis", "two", "normal", "flat"],
            role=["iid", "one", "chi", "sorf"],
            blocks=[20_000],
        ),
        seeds={"quick": 3, "full": 5},
        modules=("lib.features.hadamard",),
        data=(),
    ),
    Experiment(
        name="fastfood-error",
        summary="Kernel error of Fastfood and its rivals against D and seconds.",
        run=run_fastfood_error,
        quick=_grid(
            data=["digits"],
            n=[500],
            method=list(FASTFOOD_MAPS[:-1]),
            D=[32, 128, 512, 2048],
        )
        + _grid(data=["digits"], n=[500], method=["nystroem"], D=[32, 128]),
        full=_grid(
            data=["mnist", "fashion-mnist"],
            n=[1000],
            method=list(FASTFOOD_MAPS[:-1]),
            D=[2**j for j in range(6, 14)],
        )
        + _grid(
            data=["mnist", "fashion-mnist"],
            n=[1000],
            method=["nystroem"],
            D=[64, 128, 256, 512],
        ),
        seeds={"quick": 5, "full": 5},
        modules=(*_FOURIER, "lib.features.hadamard", "lib.features.fastfood"),
        data=("digits", "mnist", "fashion-mnist"),
    ),
    Experiment(
        name="fastfood-learn",
        summary="Accuracy of ridge regression on Fastfood and on dense features.",
        run=run_fastfood_learn,
        quick=_grid(
            data=["digits"],
            n=[1200],
            method=["pair", "fastfood"],
            D=[32, 64, 128, 256],
        )
        + _grid(data=["digits"], n=[1200], method=["exact"], D=[None]),
        full=_grid(
            data=["mnist", "fashion-mnist"],
            n=[4000],
            method=["pair", "fastfood"],
            D=[256, 512, 1024, 2048],
        )
        + _grid(data=["mnist", "fashion-mnist"], n=[4000], method=["exact"], D=[None]),
        seeds={"quick": 3, "full": 5},
        modules=(*_RIDGE, "lib.features.hadamard", "lib.features.fastfood"),
        data=("digits", "mnist", "fashion-mnist"),
    ),
    Experiment(
        name="fastfood-cost",
        summary="Processor time and stored bytes of the map against the dimension.",
        run=run_fastfood_cost,
        quick=_grid(n=[256], D=[2048], method=["pair", "fastfood"], d=[64, 256, 1024]),
        full=_grid(
            n=[256],
            D=[8192],
            method=["pair", "fastfood"],
            d=[64, 128, 256, 512, 1024, 2048, 4096],
        ),
        seeds={"quick": 3, "full": 5},
        modules=(*_FOURIER, "lib.features.hadamard", "lib.features.fastfood"),
        data=(),
    ),
)
