"""Experiments and metrics of the convexnn wing.

Every ``run_*`` function is a generator over ``(config, seed, arrays)``. Seeds are
derived from named axes: points, targets and starts depend on the seed and the shape
alone, so that all solvers see the same problems.
"""

import numpy as np

from lib.replication import Experiment, seed_sequence


def _grid(**axes):
    """All combinations of the values given for each axis."""
    from itertools import product

    names = list(axes)
    return tuple(
        dict(zip(names, v, strict=True)) for v in product(*axes.values())
    )


# --- the bridge: two-layer ReLU networks ---------------------------------------------


def relu_problem(n, d, seed):
    """Gaussian points and the noisy outputs of a planted network of five neurons."""
    rng = np.random.default_rng(seed_sequence("relu problem", n, d, seed=seed))
    X = rng.standard_normal((n, d))
    y = np.maximum(X @ rng.standard_normal((d, 5)), 0) @ rng.standard_normal(5)
    return X, y + 0.1 * rng.standard_normal(n)


def largest_penalty(X, y):
    """The penalty from which on the best network is zero."""
    from lib.convexnn import relu_lmo

    return relu_lmo(X, y).value


def run_relu_cells(configs, seeds, device):
    """Share of the activation patterns that a number of random neurons finds."""
    from lib.convexnn import count_arrangements, sample_arrangements

    for seed in seeds:
        for config in configs:
            n, d, draws = config["n"], config["d"], config["draws"]
            X = relu_problem(n, d, seed)[0]
            total = count_arrangements(n, d)
            if draws == "P":
                draws = total
            rng = np.random.default_rng(seed_sequence("draws", n, d, seed=seed))
            found = sample_arrangements(X, draws, rng).shape[1]
            yield config, seed, {"found": found, "total": total, "draws": draws}


def train_relu(X, y, beta, width, n_starts, seed, n_steps):
    """Objectives that Adam reaches from many starts, trained at once."""
    import torch

    rng = np.random.default_rng(seed_sequence("starts", width, seed=seed))
    shape = (n_starts, X.shape[1], width)
    W = torch.tensor(rng.standard_normal(shape), requires_grad=True)
    a = torch.tensor(rng.standard_normal((n_starts, width)), requires_grad=True)
    X, y = torch.tensor(X), torch.tensor(y)
    optimizer = torch.optim.Adam([W, a], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)

    def cost():
        out = ((X @ W).clamp(min=0) * a[:, None]).sum(2)
        decay = (W**2).sum((1, 2)) + (a**2).sum(1)
        return 0.5 * ((out - y) ** 2).sum(1) + beta / 2 * decay

    for _ in range(n_steps):
        optimizer.zero_grad()
        cost().sum().backward()
        optimizer.step()
        schedule.step()
    return cost().detach().numpy()


def run_relu_starts(configs, seeds, device):
    """Gradient training from many starts beside the certified optimum."""
    from lib.convexnn import ConvexReLURegressor

    for seed in seeds:
        for config in configs:
            n, d = config["n"], config["d"]
            X, y = relu_problem(n, d, seed)
            beta = config["share"] * largest_penalty(X, y)
            fit = ConvexReLURegressor(beta, tol=1e-8).fit(X, y)
            reached = train_relu(
                X, y, beta, config["width"], config["starts"], seed, config["steps"]
            )
            yield config, seed, {
                "reached": reached,
                "optimum": fit.objective_,
                "bound": fit.dual_objective_,
                "neurons": fit.n_neurons_,
            }


def run_relu_path(configs, seeds, device):
    """Value, gap, neurons and cost of the two programs for falling penalties."""
    from lib.convexnn import ConvexReLURegressor, GatedReLURegressor

    for seed in seeds:
        for config in configs:
            n, d = config["n"], config["d"]
            X, y = relu_problem(n, d, seed)
            beta = config["share"] * largest_penalty(X, y)
            fit = ConvexReLURegressor(beta, tol=1e-7).fit(X, y)
            gated = GatedReLURegressor(beta, tol=1e-7).fit(X, y)
            W1, w2 = fit.to_network()
            residual = np.maximum(X @ W1, 0) @ w2 - y
            decay = (W1**2).sum() + (w2**2).sum()
            rng = np.random.default_rng(seed_sequence("unseen", n, d, seed=seed))
            test = rng.standard_normal((500, d))
            truth = _planted(n, d, seed, test)
            scale = np.mean(truth**2)
            yield config, seed, {
                "cost": 0.5 * residual @ residual + beta / 2 * decay,
                "dual": fit.dual_objective_,
                "neurons": fit.n_neurons_,
                "gated": gated.objective_,
                "gated_dual": gated.dual_objective_,
                "error": np.mean((fit.predict(test) - truth) ** 2) / scale,
                "gated_error": np.mean((gated.predict(test) - truth) ** 2) / scale,
            }


def _planted(n, d, seed, points):
    # Noiseless outputs of the network that relu_problem plants, at other points.
    rng = np.random.default_rng(seed_sequence("relu problem", n, d, seed=seed))
    rng.standard_normal((n, d))
    return np.maximum(points @ rng.standard_normal((d, 5)), 0) @ rng.standard_normal(5)


def run_relu_sampled(configs, seeds, device):
    """Excess of the programs over sampled patterns above the ReLU optimum."""
    from lib.convexnn import ConvexReLURegressor, GatedReLURegressor

    for seed in seeds:
        for config in configs:
            n, d = config["n"], config["d"]
            X, y = relu_problem(n, d, seed)
            beta = config["share"] * largest_penalty(X, y)
            exact = ConvexReLURegressor(beta, tol=1e-7).fit(X, y).objective_
            rng = np.random.default_rng(seed_sequence("gates", n, d, seed=seed))
            model = {"relu": ConvexReLURegressor, "gated": GatedReLURegressor}
            fit = model[config["model"]](
                beta, gates=config["gates"], tol=1e-7, random_state=rng
            ).fit(X, y)
            yield config, seed, {"excess": fit.objective_ / exact - 1}


# metrics


def relu_found_share(results):
    """Share of the patterns that as many draws as patterns find."""
    cells = results.where(draws="P")
    return cells.values("found").ravel() / cells.values("total").ravel()


def relu_below_bound(results):
    """How far the best start is below the certified bound, relative; by seed."""
    worst = []
    for config in results.configs:
        cells = results.where(**config)
        best = cells.values("reached").min(axis=1)
        gap = cells.values("bound").ravel() - best
        worst.append(gap / cells.values("optimum").ravel())
    return np.max(worst, axis=0)


def relu_share_reached(cells, rtol=1e-3):
    """Share of the starts within a relative distance of the optimum; by seed."""
    optimum = cells.values("optimum").reshape(-1, 1)
    return (cells.values("reached") <= optimum * (1 + rtol)).mean(axis=1)


def relu_width_gain(results):
    """Share of starts that reach the optimum, widest less narrowest network."""
    gains = []
    for n, d in sorted({(c["n"], c["d"]) for c in results.configs}):
        cells = results.where(n=n, d=d)
        widths = sorted(c["width"] for c in cells.configs)
        wide, narrow = (cells.where(width=widths[k]) for k in (-1, 0))
        gains.append(relu_share_reached(wide) - relu_share_reached(narrow))
    return np.mean(gains, axis=0)


def relu_duality_gap(results):
    """Largest gap between a network's cost and the dual value, relative; by seed."""
    gaps = [
        results.where(**c).values("cost") / results.where(**c).values("dual") - 1
        for c in results.configs
    ]
    return np.max([gap.ravel() for gap in gaps], axis=0)


def relu_neurons_excess(results):
    """Most neurons beyond n + 1; by seed."""
    excess = [
        results.where(**c).values("neurons").ravel() - c["n"] - 1
        for c in results.configs
    ]
    return np.max(excess, axis=0)


def relu_gated_excess(results):
    """How far the gated value exceeds the ReLU program's, relative; by seed."""
    gaps = [
        results.where(**c).values("gated_dual") / results.where(**c).values("cost") - 1
        for c in results.configs
    ]
    return np.max([gap.ravel() for gap in gaps], axis=0)


def relu_gates_gain(results):
    """Excess over the optimum with the fewest sampled patterns less with the most."""
    cells = results.where(model="relu")
    few, many = (f(c["gates"] for c in cells.configs) for f in (min, max))
    return (
        cells.where(gates=few).values("excess").ravel()
        - cells.where(gates=many).values("excess").ravel()
    )


def _starts(n, d, widths, starts, steps):
    rest = {"share": [0.05], "starts": [starts], "steps": [steps]}
    return _grid(n=[n], d=[d], width=widths, **rest)


_PROGRAMS = ("lib.convexnn.arrangements", "lib.convexnn.oracles")
_SOLVERS = (*_PROGRAMS, "lib.convexnn.gated", "lib.convexnn.relu")

_BRIDGE = (
    Experiment(
        name="relu-cells",
        run=run_relu_cells,
        summary="Share of the activation patterns that random neurons find.",
        quick=_grid(n=[20], d=[3], draws=["P", 100, 1000, 10_000])
        + _grid(n=[10, 40], d=[3], draws=["P"]),
        full=_grid(n=[20], d=[3], draws=["P", 100, 1000, 10_000, 100_000])
        + _grid(n=[10, 40, 80], d=[3], draws=["P"])
        + _grid(n=[20], d=[2, 4], draws=["P"]),
        seeds={"quick": 5, "full": 20},
        modules=_PROGRAMS,
    ),
    Experiment(
        name="relu-starts",
        run=run_relu_starts,
        summary="Gradient training from many starts beside the certified optimum.",
        quick=_starts(5, 2, [2, 5, 20], 40, 1000),
        full=_starts(5, 2, [2, 5, 10, 20, 50], 200, 5000)
        + _starts(10, 3, [2, 5, 10, 20, 50], 200, 5000),
        seeds={"quick": 3, "full": 10},
        modules=_SOLVERS,
    ),
    Experiment(
        name="relu-path",
        run=run_relu_path,
        summary="Both programs over all patterns for falling penalties.",
        quick=_grid(n=[20], d=[3], share=[0.5, 0.2, 0.1, 0.05, 0.02, 0.01]),
        full=_grid(n=[10, 20, 40], d=[3], share=[0.5, 0.2, 0.1, 0.05, 0.02, 0.01]),
        seeds={"quick": 3, "full": 10},
        modules=_SOLVERS,
    ),
    Experiment(
        name="relu-sampled",
        run=run_relu_sampled,
        summary="Programs over sampled patterns above the ReLU optimum.",
        quick=_grid(
            n=[20], d=[3], share=[0.05], model=["relu", "gated"], gates=[5, 20, 80, 320]
        ),
        full=_grid(
            n=[20],
            d=[3],
            share=[0.05],
            model=["relu", "gated"],
            gates=[5, 10, 20, 40, 80, 160, 320, 640],
        ),
        seeds={"quick": 3, "full": 20},
        modules=_SOLVERS,
    ),
)

# --- ConvexNN: one unit at a time ----------------------------------------------------


def moon_data(noise, seed, n=100, unseen=2000):
    """Two moons with labels of both signs, and unseen points of the same."""
    from sklearn.datasets import make_moons

    rng = np.random.default_rng(seed_sequence("moons", noise, seed=seed))
    out = []
    for size in (n, unseen):
        X, label = make_moons(
            size, noise=noise, random_state=int(rng.integers(2**31))
        )
        out += [X, 2.0 * label - 1]
    return out


_MOON_METHODS = {
    "exact": {},
    "logistic": {"oracle": "logistic"},
    "tanh": {"activation": "tanh", "oracle": "logistic", "max_units": 20},
    "tuned": {
        "activation": "tanh",
        "oracle": "logistic",
        "tune": True,
        "max_units": 20,
    },
}


def run_moon_double(configs, seeds, device):
    """ConvexNN on two moons: cost, error on unseen points, units, certificate."""
    from lib.convexnn import ConvexNNRegressor

    for seed in seeds:
        for config in configs:
            X, y, T, t = moon_data(config["noise"], seed)
            options = _MOON_METHODS[config["method"]]
            fit = ConvexNNRegressor(config["alpha"], random_state=seed, **options)
            fit.fit(X, y)
            yield config, seed, {
                "cost": fit.objective_,
                "error": np.mean(np.sign(fit.predict(T)) != t),
                "units": (fit.weights_ != 0).sum(),
                "gap": fit.gap_,
                "correlation": fit.history_[-1, 1],
            }


def moon_units(X):
    """Answers of every sign unit at the points, one a column, a pair up to sign."""
    from lib.convexnn import enumerate_arrangements

    patterns = enumerate_arrangements(X, bias=True)
    H = np.where(patterns, 1.0, -1.0)
    H = np.column_stack([np.ones(len(X)), H * H[0]])
    return np.unique(H, axis=1)


def moon_hinge_primal(H, y, K):
    """Least hinge loss plus K times the l1 norm, over weights of the units H."""
    from scipy.optimize import linprog

    n, m = H.shape
    cost = np.concatenate([np.full(2 * m, K), np.ones(n)])
    margin = -np.hstack([y[:, None] * H, -y[:, None] * H, np.eye(n)])
    answer = linprog(cost, margin, -np.ones(n), method="highs-ds")
    return answer.fun, answer.x[:m] - answer.x[m : 2 * m]


def moon_hinge_dual(H, y, K):
    """The dual: points weighted between 0 and 1, no unit correlating above K."""
    from scipy.optimize import linprog

    n, m = H.shape
    rows = np.vstack([(y[:, None] * H).T, -(y[:, None] * H).T])
    answer = linprog(
        -np.ones(n), rows, np.full(2 * m, K), bounds=(0, 1), method="highs-ds"
    )
    return -answer.fun


def run_moon_hinge(configs, seeds, device):
    """Hinge loss over all sign units: primal, dual and the units in use."""
    for seed in seeds:
        for config in configs:
            X, y, _, _ = moon_data(config["noise"], seed, config["n"], 2)
            H = moon_units(X)
            primal, w = moon_hinge_primal(H, y, config["K"])
            yield config, seed, {
                "primal": primal,
                "dual": moon_hinge_dual(H, y, config["K"]),
                "used": (np.abs(w) > 1e-9).sum(),
                "units": H.shape[1],
            }


# metrics


def _moon_worst(results, number):
    # The largest of a number per configuration; by seed.
    return np.max([number(results.where(**c)) for c in results.configs], axis=0)


def moon_gap(results):
    """Certified gap over the cost of the runs that stopped by themselves; by seed."""

    def gap(cells):
        penalty = cells.configs[0]["alpha"]
        stopped = cells.values("correlation").ravel() <= penalty * (1 + 1e-8)
        gaps = cells.values("gap").ravel() / cells.values("cost").ravel()
        return np.where(stopped, gaps, 0.0)

    return _moon_worst(results, gap)


def moon_units_excess(results):
    """Units in use less n + 1, for 100 points; by seed."""
    return _moon_worst(results, lambda c: c.values("units").ravel() - 101.0)


def moon_hinge_gap(results):
    """Primal less dual, relative; by seed."""
    return _moon_worst(
        results,
        lambda c: np.abs(c.values("primal").ravel() / c.values("dual").ravel() - 1),
    )


def moon_hinge_excess(results):
    """Units with a weight less n + 1; by seed."""
    return _moon_worst(
        results, lambda c: c.values("used").ravel() - c.configs[0]["n"] - 1.0
    )


def _moon_difference(results, key, other):
    exact = results.where(method="exact").values(key).ravel()
    return results.where(method=other).values(key).ravel() - exact


def moon_cost_excess(results):
    """Cost of the tuned tanh network less that of the exact algorithm; by seed."""
    return _moon_difference(results, "cost", "tuned")


def moon_logistic_excess(results):
    """Logarithm of the cost with the logistic oracle over the exact one's; by seed."""
    cost = [results.where(method=m).values("cost").ravel() for m in _MOON_METHODS]
    return np.log(cost[1] / cost[0])


def moon_error_gain(results):
    """Error of the exact algorithm less that of the tuned tanh network; by seed."""
    return -_moon_difference(results, "error", "tuned")


def moon_error_gain_logistic(results):
    """Error of the exact algorithm less that of the logistic oracle; by seed."""
    return -_moon_difference(results, "error", "logistic")


def moon_units_more(results):
    """Units of the tuned tanh network less those of the exact algorithm; by seed."""
    return _moon_difference(results, "units", "tuned")


def _moons(noise, alphas):
    rest = {"noise": noise, "alpha": [1.0]}
    return _grid(method=list(_MOON_METHODS), **rest) + _grid(
        method=["exact"], noise=[0.2], alpha=alphas
    )


_CONVEXNN = (
    Experiment(
        name="moons-double",
        run=run_moon_double,
        summary="ConvexNN on two moons, exact and approximate.",
        quick=_moons([0.2], [0.3, 3.0]),
        full=_moons([0.1, 0.2, 0.3], [0.1, 0.3, 3.0, 10.0, 30.0]),
        seeds={"quick": 3, "full": 50},
        modules=("lib.convexnn.incremental", "lib.convexnn.oracles"),
    ),
    Experiment(
        name="moons-hinge",
        run=run_moon_hinge,
        summary="Hinge loss over all sign units: primal, dual, units in use.",
        quick=_grid(n=[10], noise=[0.2], K=[0.5, 1.0, 2.0]),
        full=_grid(n=[10, 20, 30], noise=[0.3], K=[0.5, 1.0, 2.0]),
        seeds={"quick": 3, "full": 20},
        modules=("lib.convexnn.arrangements",),
    ),
)


# --- Frank-Wolfe ---------------------------------------------------------------------


def fw_toy(n, d, seed, whitened=False, neurons=10):
    """Gaussian points, outputs of planted Gaussian neurons, their variation norm."""
    rng = np.random.default_rng(seed_sequence("fw toy", n, d, seed=seed))
    A = rng.standard_normal((n, d))
    if whitened:
        U, _, Vt = np.linalg.svd(A, full_matrices=False)
        A = U @ Vt
    W, a = rng.standard_normal((d, neurons)), rng.standard_normal(neurons)
    y = np.maximum(A @ W, 0) @ a
    return A, y, float(np.abs(a) @ np.linalg.norm(W, axis=0))


def fw_batch(name):
    """The rule for the samples of a step: by name, a number, or growing."""
    if name == "growing":
        return lambda t: int(np.ceil(((t + 1) / 10) ** 2))
    return name if isinstance(name, str) else lambda t: name


def run_fw_curves(configs, seeds, device):
    """Objective and gap of Frank-Wolfe on the paper's two toy problems."""
    from lib.convexnn import FrankWolfeNN

    for seed in seeds:
        for config in configs:
            n, d, steps = config["n"], config["d"], config["steps"]
            A, y, delta = fw_toy(n, d, seed, config["whitened"])
            rng = np.random.default_rng(seed_sequence("fw draws", n, d, seed=seed))
            fit = FrankWolfeNN(
                delta,
                config["oracle"],
                fw_batch(config["batch"]),
                tol=1e-12,
                max_iter=steps,
                random_state=rng,
            ).fit(A, y)
            loss, gap, size = fit.history_.T
            at = np.unique(np.geomspace(1, len(loss), 40).astype(int)) - 1
            # the planted network is feasible, so the optimum is zero
            yield (
                config,
                seed,
                {
                    "at": at + 1,
                    "loss": loss[at] / loss[0],
                    "gap": gap[at] / loss[0],
                    "last": loss[-1] / loss[0],
                    "best": np.min(loss) / loss[0],
                    "best_gap": np.min(np.abs(gap)) / abs(gap[0]),
                    "below": np.max((loss - gap) / loss[0]),
                    "first_batch": size[0],
                },
            )


def run_fw_oracles(configs, seeds, device):
    """Values of the cheap oracles over the exact one, Gaussian points and gradients."""
    from lib.convexnn import enumerate_arrangements, relu_lmo

    for seed in seeds:
        for config in configs:
            n, d, ratios = config["n"], config["d"], {"sign_cone": [], "local": []}
            for k in range(config["draws"]):
                A = fw_toy(n, d, 1000 * seed + k, config["whitened"])[0]
                rng = np.random.default_rng(seed_sequence("fw g", n, k, seed=seed))
                g = rng.standard_normal(n)
                best = relu_lmo(A, g, "exact", enumerate_arrangements(A)).value
                for name, found in ratios.items():
                    answer = relu_lmo(A, g, name, random_state=rng)
                    found.append(answer.value / best)
            yield config, seed, {k: np.array(v) for k, v in ratios.items()}


def fw_atoms(atoms, y, steps):
    """Losses of Frank-Wolfe on the hull of the rows of atoms, before each step."""
    z, losses = np.zeros(len(y)), []
    for t in range(1, steps + 1):
        losses.append((z - y) @ (z - y))
        best = atoms[np.argmin(atoms @ (z - y))]
        z = z + 2 / (t + 1) * (best - z)
    return np.array(losses)


def fw_nearest(atoms, y):
    """Squared distance from y to the hull of the rows of atoms: its value."""
    from scipy.optimize import lsq_linear

    # weights that sum to one, by a heavy row; exact up to the weight
    heavy = 1e5
    B = np.vstack([atoms.T, heavy * np.ones(len(atoms))])
    q = lsq_linear(B, np.append(y, heavy), (0, np.inf), method="bvls", tol=1e-15).x
    q = q / q.sum()
    return float(np.sum((atoms.T @ q - y) ** 2))


def fw_bad_atoms(noise, rng):
    """Two nearly equal atoms, their negatives, and a target beyond them."""
    atoms = np.array([[0.995, -0.104], [0.997, -0.077]])
    atoms = atoms + noise * rng.standard_normal(atoms.shape)
    return np.vstack([atoms, -atoms]), np.array([-1.144, -1.64])


def run_fw_rate(configs, seeds, device):
    """Excess of the objective times (T + 1) / (R delta)^2, by step, exact oracle."""
    from lib.convexnn import FrankWolfeNN

    for seed in seeds:
        for config in configs:
            d, steps = config["d"], config["steps"]
            rng = np.random.default_rng(seed_sequence("fw atoms", d, seed=seed))
            if config["problem"] == "atoms":
                atoms, y = fw_bad_atoms(1e-4, rng)
                losses, delta = fw_atoms(atoms, y, steps), 1.0
                best, R2 = fw_nearest(atoms, y), (atoms**2).sum(1).max()
            else:
                A, y, delta = fw_toy(config["n"], d, seed)
                delta, best = config["share"] * delta, 0.0
                fit = FrankWolfeNN(delta, tol=1e-12, max_iter=steps).fit(A, y)
                losses = fit.history_[:, 0]
                if config["share"] < 1:
                    best = np.max(losses - fit.history_[:, 1])  # a lower bound
                # R from below, by many neurons: the severe side
                U = np.random.default_rng(0).standard_normal((d, 20_000))
                out = np.maximum(A @ (U / np.linalg.norm(U, axis=0)), 0)
                R2 = (out**2).sum(0).max()
            T = np.arange(1, len(losses) + 1)
            constant = (losses - best) * (T + 1) / (R2 * delta**2)
            at = np.unique(np.geomspace(2, len(losses), 30).astype(int)) - 1
            yield (
                config,
                seed,
                {
                    "at": at + 1,
                    "constant": constant[at],
                    "worst": constant[1:].max(),
                },
            )


# metrics


def fw_loss_left(results):
    """Least loss as a share of the first, largest over the settings; by seed."""
    return np.max(
        [results.where(**c).values("best").ravel() for c in results.configs], axis=0
    )


def fw_gap_left(results):
    """Smallest size of the oracle's gap as a share of the first; by seed."""
    return np.max(
        [results.where(**c).values("best_gap").ravel() for c in results.configs], axis=0
    )


def fw_false_bound(results):
    """Largest lower bound that loss less gap claims, the optimum being 0; by seed."""
    return np.max(
        [results.where(**c).values("below").ravel() for c in results.configs], axis=0
    )


def fw_sign_ratio(results):
    """Sign-cone value over the exact one, least over the draws; by seed."""
    return np.min(
        [results.where(**c).values("sign_cone").min(axis=1) for c in results.configs],
        axis=0,
    )


def fw_sign_loss(results):
    """What the sign-cone oracle loses at worst, relative; by seed."""
    return 1 - fw_sign_ratio(results)


def fw_constant(results):
    """Largest excess times (T + 1) / (R delta)^2 over steps T >= 2; by seed."""
    return np.max(
        [results.where(**c).values("worst").ravel() for c in results.configs], axis=0
    )


def fw_over_16(results):
    """The same less 16."""
    return fw_constant(results) - 16


def fw_over_4(results):
    """The same less the 4 that the report prints."""
    return fw_constant(results) - 4


def fw_batch_difference(results):
    """Largest difference of the curves of growing and full batches; by seed."""
    full, grown = (
        results.where(oracle="sign_cone", batch=b).values("loss")
        for b in ("full", "hazan-luo")
    )
    return np.abs(full - grown).max(axis=1)


def fw_small_batch_loss(results):
    """Log10 of the last loss with 5 samples a step over that with all; by seed."""
    few, full = (
        results.where(oracle="local", batch=b).values("last").ravel()
        for b in (5, "full")
    )
    return np.log10(few / full)


def _fw_curves(steps):
    rest = {"steps": [steps], "batch": ["full"]}
    first = _grid(n=[20], d=[25], oracle=["sign_cone"], whitened=[False, True], **rest)
    first += _grid(n=[20], d=[25], oracle=["local"], whitened=[False], **rest)
    second = {"n": [25], "d": [20], "whitened": [False], "steps": [steps]}
    return (
        first
        + _grid(oracle=["sign_cone"], batch=["full", "hazan-luo"], **second)
        + _grid(oracle=["local"], batch=["full", 5, "growing"], **second)
    )


def _fw_rate(steps, shares, shapes):
    toy = {"problem": ["toy"], "share": shares, "steps": [steps]}
    atoms = _grid(problem=["atoms"], n=[2], d=[2], share=[1.0], steps=[50])
    return atoms + sum((_grid(n=[n], d=[d], **toy) for n, d in shapes), ())


_FW = ("lib.convexnn.arrangements", "lib.convexnn.oracles", "lib.convexnn.incremental")

_FRANK_WOLFE = (
    Experiment(
        name="fw-curves",
        run=run_fw_curves,
        summary="Objective and gap of Frank-Wolfe on the paper's two toy problems.",
        quick=_fw_curves(60),
        full=_fw_curves(300),
        seeds={"quick": 3, "full": 10},
        modules=_FW,
    ),
    Experiment(
        name="fw-oracles",
        run=run_fw_oracles,
        summary="The cheap oracles beside the exact one on raw and whitened points.",
        quick=_grid(n=[6], d=[8], whitened=[False, True], draws=[6]),
        full=_grid(n=[6], d=[4, 8], whitened=[False], draws=[20])
        + _grid(n=[6, 8], d=[8], whitened=[True], draws=[20])
        + _grid(n=[8], d=[8], whitened=[False], draws=[20]),
        seeds={"quick": 3, "full": 10},
        modules=_FW,
    ),
    Experiment(
        name="fw-rate",
        run=run_fw_rate,
        summary="The constant of the rate with the exact oracle.",
        quick=_fw_rate(60, [1.0], [(10, 2)]),
        full=_fw_rate(300, [1.0, 0.3], [(10, 2), (10, 3), (8, 4)]),
        seeds={"quick": 3, "full": 10},
        modules=_FW,
    ),
)

# --- planted networks and their relaxation -------------------------------------------


def planted_problems(n, d, m, seed, size, noise=0.0):
    """Points, targets, start and planted neurons of a number of problems."""
    rng = np.random.default_rng(seed_sequence("planted", n, d, m, seed=seed))
    A = rng.standard_normal((size, n, d))
    truth, start = rng.standard_normal((2, size, d, m))
    y = np.maximum(A @ truth, 0).sum(2)
    if noise:
        y = np.maximum(y + noise * rng.standard_normal(y.shape), 0)
    return A, y, start, truth


def planted_descend(A, y, X, method, n_steps, tol=1e-6, at=()):
    """What fit_planted does, on many problems at once, each with its own step.

    Returns the steps until the tolerance (one more than n_steps if never), the neurons
    after the last step, and the neurons after the numbers of steps ``at``. A problem
    stops at the tolerance; with ``tol=0`` all of them take all steps.
    """
    m = X.shape[2]
    X = X.copy()
    step = 1 / ((2 * m if m > 1 else 1) * np.linalg.norm(A, 2, axis=(1, 2)) ** 2)
    aim = tol * (y**2).sum(1)
    steps, left, kept = np.full(len(A), n_steps + 1), np.arange(len(A)), []
    B, t, u, s = A, y, X, step[:, None, None]
    for k in range(n_steps + 1):
        H = B @ u
        on = H > 0
        r = (H * on).sum(2) - t
        done = (r**2).sum(1) <= aim[left]
        if done.any():
            steps[left[done]], X[left[done]] = k, u[done]
            keep = ~done
            left, B, t, u, s = left[keep], B[keep], t[keep], u[keep], s[keep]
            on, r = on[keep], r[keep]
        if k in at:
            X[left] = u
            kept.append(X.copy())
        if not len(left) or k == n_steps:
            break
        if method == "relaxed":
            on = on | ~on.any(2, keepdims=True)
        u = u - s * (B.transpose(0, 2, 1) @ (on * r[:, :, None]))
    X[left] = u
    return steps, X, kept


def planted_error(A, truth, X):
    """Squared error of networks at other points over the mean square, by problem."""
    right = np.maximum(A @ truth, 0).sum(2)
    wrong = np.maximum(A @ X, 0).sum(2) - right
    return (wrong**2).sum(1) / (right**2).sum(1)


def run_planted_success(configs, seeds, device):
    """Share of planted problems that a method solves, and its steps."""
    for seed in seeds:
        for config in configs:
            n, d, m = config["n"], config["d"], config["m"]
            A, y, start, _ = planted_problems(n, d, m, seed, config["problems"])
            steps = planted_descend(A, y, start, config["method"], config["steps"])[0]
            yield config, seed, {
                "share": np.mean(steps <= config["steps"]),
                "steps": np.median(steps),
            }


def run_planted_curves(configs, seeds, device):
    """Loss and error at other points along the iterations, medians over problems."""
    at = sorted({0, *np.geomspace(1, 1500, 22).astype(int).tolist()})
    for seed in seeds:
        for config in configs:
            n, d, m = config["n"], config["d"], config["m"]
            A, y, start, truth = planted_problems(n, d, m, seed, config["problems"])
            rng = np.random.default_rng(seed_sequence("planted unseen", seed=seed))
            test = rng.standard_normal((200, d))
            kept = planted_descend(A, y, start, config["method"], 1500, 0.0, at)[2]
            yield config, seed, {
                "at": np.array(at),
                "loss": [np.median(planted_error(A, truth, X)) for X in kept],
                "error": [np.median(planted_error(test, truth, X)) for X in kept],
            }


def run_planted_noise(configs, seeds, device):
    """Training loss and error at other points where the targets carry noise."""
    for seed in seeds:
        for config in configs:
            n, d, noise = config["n"], config["d"], config["noise"]
            A, y, start, truth = planted_problems(
                n, d, 1, seed, config["problems"], noise
            )
            rng = np.random.default_rng(seed_sequence("planted unseen", seed=seed))
            test = rng.standard_normal((1000, d))
            out = {}
            for method in ("gd", "relaxed"):
                X = planted_descend(A, y, start, method, config["steps"], 0.0)[1]
                r = np.maximum(A @ X, 0).sum(2) - y
                out[f"{method}_loss"] = np.median((r**2).sum(1) / (y**2).sum(1))
                out[f"{method}_error"] = np.median(planted_error(test, truth, X))
            yield config, seed, out


def planted_surrogate(A, y, X):
    """Equation (22) of the report, with the constant; for one neuron, f_r."""
    H = A @ X
    off = ~(H > 0).any(-1)
    r = np.maximum(H, 0).sum(-1) - y
    return (r**2).sum(-1) - 2 * (off * y * H.sum(-1)).sum(-1)


def planted_square(A, y, X):
    """Squared error of networks, one or many."""
    return ((np.maximum(A @ X, 0).sum(-1) - y) ** 2).sum(-1)


def run_planted_midpoints(configs, seeds, device):
    """Chords of a loss: how far the middle lies above the mean of the ends.

    The excess is over the mean height of all ends: without a target that is positive
    single ends may be zero.
    """
    for seed in seeds:
        for config in configs:
            n, d, m = config["n"], config["d"], config["m"]
            A, y, _, _ = (p[0] for p in planted_problems(n, d, m, seed, 1))
            rng = np.random.default_rng(seed_sequence("chords", n, d, m, seed=seed))
            U, V = rng.standard_normal((2, config["chords"], d, m))
            f = planted_square if config["loss"] == "square" else planted_surrogate
            mean = (f(A, y, U) + f(A, y, V)) / 2
            excess = (f(A, y, (U + V) / 2) - mean) / mean.mean()
            yield config, seed, {
                "worst": excess.max(),
                "share": np.mean(excess > 1e-9),
            }


# metrics


def planted_unsolved(results):
    """Largest share, over methods and shapes, of problems left unsolved; by seed."""
    return 1 - np.min(
        [results.where(**c).values("share").ravel() for c in results.configs], axis=0
    )


def _planted_gain(cells):
    return (
        cells.where(method="relaxed").values("share").ravel()
        - cells.where(method="gd").values("share").ravel()
    )


def _planted_shapes(results, single, wide=True):
    shapes = sorted({(c["n"], c["d"], c["m"]) for c in results.configs})
    return [
        results.where(n=n, d=d, m=m)
        for n, d, m in shapes
        if (m == 1) is single and (n <= d) is wide
    ]


def planted_gain_single(results):
    """Least gain in solved share over gradient descent, one neuron, n <= d."""
    return np.min([_planted_gain(s) for s in _planted_shapes(results, True)], axis=0)


def planted_gain_multi(results):
    """Least gain in solved share over gradient descent, m >= 2, n <= d."""
    return np.min([_planted_gain(s) for s in _planted_shapes(results, False)], axis=0)


def planted_speedup(results):
    """Least log ratio of median steps, gradient over repaired descent, n <= d."""
    ratios = []
    for cells in _planted_shapes(results, True):
        steps = [
            cells.where(method=k).values("steps").ravel() for k in ("gd", "relaxed")
        ]
        ratios.append(np.log(steps[0] / np.maximum(steps[1], 1)))
    return np.min(ratios, axis=0)


def planted_worst_chord(results):
    """Largest excess of a midpoint over the mean of the ends; by seed."""
    cells = results.where(loss="surrogate")
    return np.max(
        [cells.where(**c).values("worst").ravel() for c in cells.configs], axis=0
    )


def planted_worst_chord_single(results):
    """The same for one neuron, where the surrogate is the convex relaxation."""
    return planted_worst_chord(results.where(m=1))


def planted_worst_chord_multi(results):
    """The same for two or more neurons."""
    many = [planted_worst_chord(results.where(m=m)) for m in (2, 3)]
    return np.max(many, axis=0)


def planted_noise_loss(results):
    """Squared error where repaired descent ends over gradient descent's, less one."""
    noisy = [results.where(**c) for c in results.configs if c["noise"] > 0]
    return np.max(
        [s.values("relaxed_loss").ravel() / s.values("gd_loss").ravel() for s in noisy],
        axis=0,
    ) - 1


def planted_noise_gain(results):
    """Least log ratio of errors at other points, relaxed over gradient descent."""
    noisy = [results.where(**c) for c in results.configs if c["noise"] > 0]
    return np.min(
        [
            np.log(s.values("relaxed_error").ravel() / s.values("gd_error").ravel())
            for s in noisy
        ],
        axis=0,
    )


def _success(problems, steps, shapes):
    rest = {"problems": [problems], "steps": [steps], "method": ["gd", "relaxed"]}
    return sum((_grid(n=[n], d=[d], m=[m], **rest) for n, d, m in shapes), ())


_SHAPES = ((100, 20, 1), (50, 20, 1), (20, 20, 1), (20, 100, 1))
_MULTI = ((20, 40, 2), (50, 100, 2), (20, 40, 5), (20, 40, 10))
_RELAXATION = ("lib.convexnn.relaxation",)

_PLANTED = (
    Experiment(
        name="planted-success",
        run=run_planted_success,
        summary="Share of planted networks that gradient and repaired descent find.",
        quick=_success(10, 1500, (*_SHAPES, (20, 40, 2))),
        full=_success(50, 1500, (*_SHAPES, *_MULTI)),
        seeds={"quick": 3, "full": 20},
        modules=_RELAXATION,
    ),
    Experiment(
        name="planted-curves",
        run=run_planted_curves,
        summary="Loss of planted networks along the iterations, seen and unseen.",
        quick=_grid(n=[20], d=[20], m=[1], problems=[10], method=["gd", "relaxed"]),
        full=_grid(n=[100], d=[20], m=[1], problems=[20], method=["gd", "relaxed"])
        + _grid(n=[20], d=[20, 100], m=[1], problems=[20], method=["gd", "relaxed"]),
        seeds={"quick": 3, "full": 10},
        modules=_RELAXATION,
    ),
    Experiment(
        name="planted-noise",
        run=run_planted_noise,
        summary="Gradient and repaired descent where the targets carry noise.",
        quick=_grid(
            n=[100], d=[20], noise=[0.0, 0.3, 1.0], problems=[10], steps=[1000]
        ),
        full=_grid(
            n=[100], d=[20], noise=[0.0, 0.1, 0.3, 1.0], problems=[20], steps=[1500]
        ),
        seeds={"quick": 3, "full": 10},
        modules=_RELAXATION,
    ),
    Experiment(
        name="planted-midpoints",
        run=run_planted_midpoints,
        summary="Chords of the squared error and of the surrogate, by neurons.",
        quick=_grid(
            n=[5], d=[3], m=[1, 2, 3], loss=["square", "surrogate"], chords=[2000]
        ),
        full=_grid(
            n=[5, 20], d=[3], m=[1, 2, 3], loss=["square", "surrogate"], chords=[20_000]
        ),
        seeds={"quick": 3, "full": 20},
        modules=_RELAXATION,
    ),
)


# --- convex duality: closed forms ----------------------------------------------------


def duality_problem(seed, n=10, d=5):
    """Gaussian points and the noisy outputs of a planted linear map."""
    rng = np.random.default_rng(seed_sequence("linear problem", n, d, seed=seed))
    X = rng.standard_normal((n, d))
    return X, X @ rng.standard_normal(d) + 0.1 * rng.standard_normal(n)


def duality_cost(branches, X, Y, beta, relu=False):
    """Regularised objective of parallel branches, each a list of layers."""
    out, decay = 0.0, 0.0
    for layers in branches:
        H = X
        for k, W in enumerate(layers):
            H = H @ W
            if relu and k + 1 < len(layers):
                H = np.maximum(H, 0)
            decay += (W**2).sum()
        out = out + H
    return 0.5 * ((out - Y) ** 2).sum() + beta / 2 * decay


def duality_train(X, Y, beta, sizes, n_starts, rng, n_steps, relu=False, rate=0.03):
    """Costs and layers that Adam reaches from many starts, trained at once."""
    import torch

    std = (1 + relu) ** 0.5 / max(sizes[1:-1]) ** 0.5
    layers = [
        torch.tensor(std * rng.standard_normal((n_starts, a, b)), requires_grad=True)
        for a, b in zip(sizes[:-1], sizes[1:], strict=True)
    ]
    X, Y = torch.tensor(X), torch.tensor(Y.reshape(len(Y), -1))
    optimizer = torch.optim.Adam(layers, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)

    def cost():
        H = X
        for k, W in enumerate(layers):
            H = H @ W
            H = H.clamp(min=0) if relu and k + 1 < len(layers) else H
        decay = sum((W**2).sum((1, 2)) for W in layers)
        return 0.5 * ((H - Y) ** 2).sum((1, 2)) + beta / 2 * decay

    for _ in range(n_steps):
        optimizer.zero_grad()
        cost().sum().backward()
        optimizer.step()
        schedule.step()
    return cost().detach().numpy(), [W.detach().numpy() for W in layers]


def duality_norms(layers, k):
    """Frobenius norms of the layers of start k."""
    return np.array([np.linalg.norm(W[k]) for W in layers])


def duality_directions(W, share=0.1):
    """Number of singular values above a share of the largest."""
    sizes = np.linalg.svd(W, compute_uv=False)
    return int((sizes > share * sizes[0]).sum())


def run_duality_linear(configs, seeds, device):
    """Deep linear networks from many starts beside the closed form."""
    from lib.convexnn import deep_linear

    for seed in seeds:
        X, y = duality_problem(seed)
        for config in configs:
            L, beta = config["depth"], config["beta"]
            best = deep_linear(X, y, beta, L, widths=[5] * (L - 1))
            rng = np.random.default_rng(seed_sequence("layers", L, seed=seed))
            sizes = [5] * L + [1]
            reached, layers = duality_train(
                X, y, beta, sizes, config["starts"], rng, config["steps"]
            )
            norms = duality_norms(layers, reached.argmin())
            yield config, seed, {
                "reached": reached,
                "norms": norms,
                "formula": best.objective,
                "bound": best.certificate,
                "attained": duality_cost(best.weights, X, y, beta),
                "norm": np.linalg.norm(best.weights[0][0]),
                "zero": 0.5 * y @ y,
            }


def duality_images(name, n, seed):
    """Whitened images in coordinates of their span, one-hot labels, unseen images."""
    from lib.data import load

    A, label = load(name, "train", flatten=True)
    T, test_label = load(name, "test", flatten=True)
    rng = np.random.default_rng(seed_sequence("images", name, n, seed=seed))
    rows = rng.permutation(len(A))[:n]
    A, T = A[rows].astype(float), T[:2000].astype(float)
    U, s, Vt = np.linalg.svd(A, full_matrices=False)
    # the rows of U are those of (A A')^(-1/2) A in the orthonormal basis Vt
    return U, np.eye(10)[label[rows]], (T @ Vt.T) / s, test_label[:2000]


def _accuracy(branches, X, label):
    out = 0.0
    for layers in branches:
        H = X
        for W in layers[:-1]:
            H = np.maximum(H @ W, 0)
        out = out + H @ layers[-1]
    return np.mean(out.argmax(1) == label)


def run_duality_images(configs, seeds, device):
    """Deep ReLU networks on whitened images beside the closed form."""
    from lib.convexnn import deep_relu_whitened

    for seed in seeds:
        for config in configs:
            L, beta, n = config["depth"], 0.5, config["n"]
            X, Y, T, label = duality_images(config["data"], n, seed)
            best = deep_relu_whitened(X, Y, beta, L)
            rng = np.random.default_rng(seed_sequence("layers", L, n, seed=seed))
            sizes = [X.shape[1], *[config["width"]] * (L - 1), 10]
            reached, layers = duality_train(
                X, Y, beta, sizes, 1, rng, config["steps"], relu=True, rate=0.02
            )
            trained = [[W[0] for W in layers]]
            yield config, seed, {
                "reached": reached[0],
                "formula": best.objective,
                "bound": best.certificate,
                "zero": 0.5 * (Y**2).sum(),
                "norms": duality_norms(layers, 0),
                "norm": np.linalg.norm([np.linalg.norm(b[0]) for b in best.weights]),
                "directions": min(duality_directions(W[0]) for W in layers[:-1]),
                "accuracy": _accuracy(trained, T, label),
                "formula_accuracy": _accuracy(best.weights, T, label),
            }


def run_duality_gap(configs, seeds, device):
    """Costs over beta where duality is at stake: identity targets, mixed signs."""
    from lib.convexnn import deep_linear

    for seed in seeds:
        for config in configs:
            L, beta, K = config["depth"], config["beta"], config["K"]
            one = deep_linear(np.eye(1), np.ones(1), beta, L).objective
            rng = np.random.default_rng(seed_sequence("gap", L, K, seed=seed))
            mixed = config["what"] == "mixed signs"
            if mixed:  # one coordinate, a point on either side, both targets one
                X, Y, branches = np.array([[1.0], [-1.0]]), np.ones(2), 2
                sizes = [1, *[4] * (L - 1), 1]
                bidual = np.nan
            else:
                X, Y, branches = np.eye(K), np.eye(K), K
                sizes = [K, *[2 * K] * (L - 1), K]
                bidual = L / 2 * K ** (2 / L)
            reached, _ = duality_train(
                X, Y, beta, sizes, config["starts"], rng, config["steps"], relu=mixed
            )
            yield config, seed, {
                "reached": reached.min() / beta,
                "formula": branches * one / beta,
                "bidual": bidual,
            }


def duality_shared_start(depth):
    """Layers whose three outputs share two neurons a layer, for three unit vectors."""
    half = 2**-0.5
    return [
        np.array([[1, 0], [half, half], [0, 1]]),
        *[np.eye(2)] * (depth - 3),
        np.array([[1.0, -1, 1], [-1, 1, 1]]),
        np.array([[1, -half, 0], [0, -half, 1], [0, half, 0]]),
    ]


def duality_polish(layers, X, Y, beta):
    """Cost of the ReLU network that L-BFGS finds from these layers."""
    import torch
    from scipy.optimize import minimize

    shapes = [W.shape for W in layers]
    X, Y = torch.tensor(X), torch.tensor(Y)

    def cost(v):
        v = torch.tensor(v, requires_grad=True)
        H = X
        parts = torch.split(v, [a * b for a, b in shapes])
        for k, (part, shape) in enumerate(zip(parts, shapes, strict=True)):
            H = H @ part.reshape(shape)
            H = H.clamp(min=0) if k + 1 < len(shapes) else H
        value = 0.5 * ((H - Y) ** 2).sum() + beta / 2 * (v**2).sum()
        value.backward()
        return value.item(), v.grad.numpy()

    start = np.concatenate([W.ravel() for W in layers])
    limits = {"maxiter": 5000, "maxfun": 10_000, "ftol": 1e-14}
    return minimize(cost, start, jac=True, method="L-BFGS-B", options=limits).fun


def run_duality_shared(configs, seeds, device):
    """Deep ReLU networks whose outputs share layers beside one branch an output."""
    from lib.convexnn import deep_relu_whitened

    eye = np.eye(3)
    for seed in seeds:
        for config in configs:
            L, beta = config["depth"], config["beta"]
            best = deep_relu_whitened(eye, eye, beta, L)
            rng = np.random.default_rng(seed_sequence("shared", L, seed=seed))
            starts = [
                [W + 0.02 * rng.standard_normal(W.shape) for W in layers]
                for layers in [duality_shared_start(L)] * config["starts"]
            ]
            reached = [duality_polish(layers, eye, eye, beta) for layers in starts]
            yield config, seed, {
                "reached": min(reached) / beta,
                "formula": best.objective / beta,
                "bound": best.certificate / beta,
            }


# metrics


def _duality_worst(results, number):
    # The largest of a number per configuration; by seed.
    return np.max([number(results.where(**c)) for c in results.configs], axis=0)


def duality_attained(results):
    """Cost of the formula's weights off the formula's value, relative; by seed."""
    return _duality_worst(
        results,
        lambda c: np.abs(
            c.values("attained").ravel() / c.values("formula").ravel() - 1
        ),
    )


def duality_below(results):
    """How far the best start is below the certified bound, relative; by seed."""
    return _duality_worst(
        results,
        lambda c: (c.values("bound").ravel() - _duality_best(c))
        / c.values("formula").ravel(),
    )


def _duality_best(cells):
    return np.array([np.min(cell.data["reached"]) for cell in cells])


def duality_meets(results):
    """Distance of the best start from the formula, relative; by seed."""
    return _duality_worst(
        results, lambda c: np.abs(_duality_best(c) / c.values("formula").ravel() - 1)
    )


def duality_undercut(results):
    """How far the best start is below the formula, relative: the most; by seed."""
    return _duality_worst(
        results, lambda c: 1 - _duality_best(c) / c.values("formula").ravel()
    )


def duality_uneven(results):
    """Largest over smallest norm of a layer of the best network, less one; by seed."""
    return _duality_worst(
        results,
        lambda c: np.array(
            [np.max(x.data["norms"]) / np.min(x.data["norms"]) - 1 for x in c]
        ),
    )


def duality_share(cells, rtol=1e-3):
    """Share of the starts within a relative distance of the formula; by seed."""
    formula = cells.values("formula").reshape(-1, 1)
    return (cells.values("reached") <= formula * (1 + rtol)).mean(axis=1)


def duality_depth_loss(results):
    """Share of starts that reach the formula, shallowest less deepest; by seed."""
    depths = sorted({c["depth"] for c in results.configs})
    shallow, deep = (duality_share(results.where(depth=depths[k])) for k in (0, -1))
    return shallow - deep


def duality_same_accuracy(results):
    """Test accuracy, trained less formula: the largest difference; by seed."""
    return _duality_worst(
        results,
        lambda c: np.abs(
            c.values("accuracy").ravel() - c.values("formula_accuracy").ravel()
        ),
    )


def duality_gap(results):
    """Smallest excess of the optimum over the bidual, relative, L >= 3; by seed."""
    gaps = [
        results.where(**c).values("formula") / results.where(**c).values("bidual") - 1
        for c in results.configs
        if c["what"] == "identity" and c["depth"] >= 3
    ]
    return np.min([gap.ravel() for gap in gaps], axis=0)


def duality_mixed_saving(results):
    """How far training undercuts a branch a sign, relative, L >= 3; by seed."""
    gains = [
        1 - results.where(**c).values("reached") / results.where(**c).values("formula")
        for c in results.configs
        if c["what"] == "mixed signs" and c["depth"] >= 3
    ]
    return np.min([gain.ravel() for gain in gains], axis=0)


def _deep(starts, steps):
    return _grid(depth=[2, 3, 4, 5], beta=[0.3, 5.0], starts=[starts], steps=[steps])


def _gaps(depths, sizes, starts, steps):
    rest = {"depth": depths, "beta": [1e-2], "starts": [starts], "steps": [steps]}
    return _grid(what=["identity"], K=sizes, **rest) + _grid(
        what=["mixed signs"], K=[1], **rest
    )


_CLOSED = ("lib.convexnn.closed_form",)

_DUALITY = (
    Experiment(
        name="deep-formula-linear",
        run=run_duality_linear,
        summary="Deep linear networks from many starts beside the closed form.",
        quick=_deep(24, 500),
        full=_deep(48, 3000),
        seeds={"quick": 1, "full": 10},
        modules=_CLOSED,
    ),
    Experiment(
        name="deep-formula-images",
        run=run_duality_images,
        summary="Deep ReLU networks on whitened images beside the closed form.",
        quick=_grid(data=["digits"], n=[50], depth=[3], width=[30], steps=[400]),
        full=_grid(
            data=["mnist", "cifar10"],
            n=[400],
            depth=[3, 4, 5],
            width=[50],
            steps=[1000],
        ),
        seeds={"quick": 1, "full": 5},
        modules=_CLOSED,
    ),
    Experiment(
        name="deep-formula-shared",
        run=run_duality_shared,
        summary="Outputs that share narrow layers beside one branch an output.",
        quick=_grid(depth=[3, 5, 8], beta=[1e-2], starts=[1]),
        full=_grid(depth=[3, 4, 5, 6, 8, 10, 12], beta=[1e-2], starts=[3]),
        seeds={"quick": 1, "full": 5},
        modules=_CLOSED,
    ),
    Experiment(
        name="deep-formula-gap",
        run=run_duality_gap,
        summary="Costs where strong duality or the rank-one formula are at stake.",
        quick=_gaps([2, 3], [2], 12, 500),
        full=_gaps([2, 3, 4], [2, 4], 24, 3000),
        seeds={"quick": 1, "full": 5},
        modules=_CLOSED,
    ),
)


# --- three layers --------------------------------------------------------------------


def three_problem(seed):
    """Five Gaussian points in the plane and Gaussian targets."""
    rng = np.random.default_rng(seed_sequence("three problem", seed=seed))
    return rng.standard_normal((5, 2)), rng.standard_normal(5)


def three_train(X, y, beta, K, m1, n_starts, seed, n_steps):
    """Costs that Adam reaches with K parallel sub-networks, all starts at once."""
    import torch

    rng = np.random.default_rng(seed_sequence("three starts", K, m1, seed=seed))
    shapes = (n_starts, K, X.shape[1], m1), (n_starts, K, 1, m1), (n_starts, K)
    W, u, a = (
        torch.tensor(rng.standard_normal(shape), requires_grad=True) for shape in shapes
    )
    X, y = torch.tensor(X), torch.tensor(y)
    optimizer = torch.optim.Adam([W, u, a], lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)

    def cost():
        size = (W**2).sum((2, 3), keepdim=True).sqrt().clamp(min=1)
        hidden = (X @ (W / size)).clamp(min=0)
        out = ((hidden * u).sum(3).clamp(min=0) * a[..., None]).sum(1)
        decay = (u**2).sum((1, 2, 3)) + (a**2).sum(1)
        return 0.5 * ((out - y) ** 2).sum(1) + beta / 2 * decay

    for _ in range(n_steps):
        optimizer.zero_grad()
        cost().sum().backward()
        optimizer.step()
        schedule.step()
    return cost().detach().numpy()


def run_three_toy(configs, seeds, device):
    """Gradient training of parallel networks beside the exact program."""
    from lib.convexnn import three_layer_program

    for seed in seeds:
        X, y = three_problem(seed)
        exact = three_layer_program(X, y, 0.1)
        for config in configs:
            reached = three_train(
                X, y, 0.1, config["K"], 3, config["starts"], seed, config["steps"]
            )
            yield (
                config,
                seed,
                {
                    "reached": reached,
                    "optimum": exact.objective,
                    "width": exact.width,
                    "networks": len(exact.networks),
                },
            )


def run_three_sampled(configs, seeds, device):
    """Excess of the program over sampled tuples above the exact one."""
    from lib.convexnn import three_layer_program

    for seed in seeds:
        X, y = three_problem(seed)
        exact = three_layer_program(X, y, 0.1).objective
        for config in configs:
            rng = np.random.default_rng(seed_sequence("three tuples", seed=seed))
            value = three_layer_program(
                X, y, 0.1, 3, config["tuples"], random_state=rng
            ).objective
            yield config, seed, {"excess": value / exact - 1}


def three_literal(X, y, beta):
    """Value of the program as the report prints it, over all patterns."""
    import cvxpy as cp

    from lib.convexnn import enumerate_arrangements

    first = enumerate_arrangements(X).astype(float)
    fitted, penalty, cones = 0, 0, []
    for second in np.array(list(np.ndindex(*[2] * len(y))))[1:]:
        for sign in (1, -1):  # the printed superscript
            for out in (1, -1):  # w' and w
                U = cp.Variable((X.shape[1], first.shape[1]))
                hidden = cp.sum(cp.multiply(first, X @ U), axis=1)
                fitted = fitted + cp.multiply(out * second, hidden)
                penalty = penalty + cp.sum(cp.norm(U, axis=0))
                cones.append(sign * cp.multiply(2 * first - 1, X @ U) >= 0)
                cones.append(cp.multiply(2 * second - 1, hidden) >= 0)
    goal = cp.Minimize(0.5 * cp.sum_squares(fitted - y) + beta * penalty)
    return cp.Problem(goal, cones).solve(solver=cp.CLARABEL, max_threads=1)


def run_three_literal(configs, seeds, device):
    """The printed program, the two-layer program and the three-layer one."""
    from lib.convexnn import ConvexReLURegressor, three_layer_program

    for seed in seeds:
        X, y = three_problem(seed)
        for config in configs:
            beta = config["beta"]
            two = ConvexReLURegressor(beta, tol=1e-8).fit(X, y)
            yield (
                config,
                seed,
                {
                    "literal": three_literal(X, y, beta),
                    "two": two.objective_,
                    "three": three_layer_program(X, y, beta).objective,
                },
            )


def three_images(name, n, seed):
    """n training images, 500 to choose with and 2000 unseen ones, and their labels."""
    from lib import data

    (A, a), (B, b) = data.load(name), data.load(name, "test")
    rng = np.random.default_rng(seed_sequence("three images", seed=seed))
    kept = rng.permutation(len(A))[: n + 500]
    unseen = rng.permutation(len(B))[:2000]
    A, B = (np.asarray(Z, dtype=np.float32) for Z in (A[kept], B[unseen]))
    A, B = A.reshape(len(A), -1), B.reshape(len(B), -1)
    mean, scale = A[:n].mean(0), A[:n].std() * A.shape[1] ** 0.5
    A, B = (A - mean) / scale, (B - mean) / scale
    a, b = a[kept], b[unseen]
    return (A[:n], a[:n]), (A[n:], a[n:]), (B, b)


def three_gates(d, K, m1, seed):
    """Random gate networks: first layers (d, K, m1), second layers (K, m1)."""
    rng = np.random.default_rng(seed_sequence("three gates", K, m1, seed=seed))
    U, u = rng.standard_normal((d, K, m1)), rng.standard_normal((K, m1))
    return U.astype(np.float32), u.astype(np.float32)


def three_masks(X, gates):
    """Masks of both layers multiplied, one column a first-layer neuron."""
    import torch

    U, u = (torch.as_tensor(g, device=X.device) for g in gates)
    K, m1 = u.shape
    H = (X @ U.reshape(len(U), -1)).reshape(-1, K, m1)
    second = (H.clamp(min=0) * u).sum(2, keepdim=True) >= 0
    return ((H >= 0) & second).to(X.dtype).reshape(len(X), -1)


def three_fista(X, Y, masks, share, n_steps):
    """Group lasso over the masks: weights (d, P, classes) after n_steps of FISTA."""
    import torch

    (n, d), P, c = X.shape, masks.shape[1], Y.shape[1]

    def forward(V):
        return (masks[..., None] * (X @ V.reshape(d, -1)).reshape(n, P, -1)).sum(1)

    def adjoint(R):
        return (X.T @ (masks[..., None] * R[:, None]).reshape(n, -1)).reshape(d, P, -1)

    v = adjoint(torch.ones_like(Y[:, :1]))
    for _ in range(20):  # largest singular value
        v = adjoint(forward(v / v.norm()))
    step = 1 / (1.05 * float(v.norm()))
    beta = share * float(adjoint(Y).norm(dim=0).max())
    V = Z = torch.zeros(d, P, c, dtype=X.dtype, device=X.device)
    t = 1.0
    for _ in range(n_steps):
        new = Z - step * adjoint(forward(Z) - Y)
        size = new.norm(dim=0).clamp(min=1e-30)
        new = new * (1 - step * beta / size).clamp(min=0)
        t, old = (1 + (1 + 4 * t * t) ** 0.5) / 2, t
        V, Z = new, new + (old - 1) / t * (new - V)
    return V


def three_network(X, Y, K, m1, lr, epochs, seed):
    """Adam on the same loss for K parallel sub-networks; returns the trained map."""
    import torch

    rng = np.random.default_rng(seed_sequence("three network", K, m1, seed=seed))
    d, c, n = X.shape[1], Y.shape[1], len(X)
    shapes = (d, K * m1), (K, m1), (K, c)
    # unit outputs at the start: points have norm about one
    scales = 2**0.5, (2 / m1) ** 0.5, (1 / K) ** 0.5
    parameters = [
        torch.tensor(s * rng.standard_normal(shape), dtype=X.dtype, device=X.device)
        for s, shape in zip(scales, shapes, strict=True)
    ]
    W, u, a = (p.requires_grad_() for p in parameters)

    def f(Z):
        H = (Z @ W).clamp(min=0).reshape(len(Z), K, m1)
        return (H * u).sum(2).clamp(min=0) @ a

    batch = min(100, n)
    optimizer = torch.optim.Adam(parameters, lr=lr)
    total = epochs * (n // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    for _ in range(epochs):
        order = torch.as_tensor(rng.permutation(n), device=X.device)
        for rows in order[: n // batch * batch].split(batch):
            optimizer.zero_grad()
            (0.5 * ((f(X[rows]) - Y[rows]) ** 2).sum() / batch).backward()
            optimizer.step()
            schedule.step()
    return f


def run_three_images(configs, seeds, device):
    """Test accuracy of the gated program and of a trained network on images."""
    import torch

    for seed in seeds:
        for config in configs:
            K, m1 = config["K"], config["m1"]
            parts = three_images(config["data"], config["n"], seed)
            (X, x), (V, v), (T, t) = (
                (torch.as_tensor(Z, device=device), torch.as_tensor(z, device=device))
                for Z, z in parts
            )
            Y = torch.nn.functional.one_hot(x.long(), 10).to(X.dtype)
            gates = three_gates(X.shape[1], K, m1, seed)
            best = {"convex": (-1.0, 0.0, 0.0), "network": (-1.0, 0.0, 0.0)}
            for share in (0.03, 0.01):
                weights = three_fista(X, Y, three_masks(X, gates), share, config["its"])

                def g(Z, weights=weights, gates=gates):
                    out = (Z @ weights.reshape(len(weights), -1)).reshape(
                        len(Z), *weights.shape[1:]
                    )
                    return (three_masks(Z, gates)[..., None] * out).sum(1)

                _three_keep(best, "convex", share, g, (V, v), (T, t))
            for lr in (0.003, 0.01, 0.03, 0.1):
                f = three_network(X, Y, 10 * K, m1, lr, config["epochs"], seed)
                _three_keep(best, "network", lr, f, (V, v), (T, t))
            yield (
                config,
                seed,
                {
                    "convex": best["convex"][1],
                    "network": best["network"][1],
                    "share": best["convex"][2],
                    "rate": best["network"][2],
                },
            )


def _three_keep(best, name, setting, f, held, unseen):
    # Keeps the setting that is best on the held-out images.
    def accuracy(Z, z):
        return float((f(Z).argmax(1) == z).double().mean())

    if (score := accuracy(*held)) > best[name][0]:
        best[name] = score, accuracy(*unseen), setting


# metrics


def three_below(results):
    """How far the best start is below the exact value, relative; by seed."""
    worst = []
    for config in results.configs:
        cells = results.where(**config)
        optimum = cells.values("optimum").ravel()
        worst.append(1 - cells.values("reached").min(axis=1) / optimum)
    return np.max(worst, axis=0)


def three_share(cells):
    """Share of the starts within 0.001 of the exact value; by seed."""
    optimum = cells.values("optimum").reshape(-1, 1)
    return (cells.values("reached") <= optimum + 1e-3).mean(axis=1)


def three_wide_excess(results):
    """Best cost of 15 sub-networks above the exact value, relative; by seed."""
    cells = results.where(K=15)
    best = cells.values("reached").min(axis=1)
    return best / cells.values("optimum").ravel() - 1


def three_wide_gain(results):
    """Share of starts that reach the exact value, 15 less 2 sub-networks."""
    return three_share(results.where(K=15)) - three_share(results.where(K=2))


def three_sampled_excess(results):
    """Excess of 100 sampled tuples above the exact value, relative; by seed."""
    return results.where(tuples=100).values("excess").ravel()


def three_literal_is_two(results):
    """Relative distance of the printed program from the two-layer one; by seed."""
    return _three_ratio(results, "literal", "two")


def three_literal_excess(results):
    """Relative distance of the printed program from the three-layer one; by seed."""
    return _three_ratio(results, "literal", "three")


def _three_ratio(results, what, against):
    gaps = [
        abs(results.where(**c).values(what) / results.where(**c).values(against) - 1)
        for c in results.configs
    ]
    return np.max([gap.ravel() for gap in gaps], axis=0)


def three_convex_gain(results):
    """Test accuracy of the convex program less that of the network; by seed."""
    gains = [
        results.where(**c).values("convex") - results.where(**c).values("network")
        for c in results.configs
    ]
    return np.mean([gain.ravel() for gain in gains], axis=0)


_THREE_MODULES = (*_SOLVERS, "lib.convexnn.three_layer")

_THREE_LAYER = (
    Experiment(
        name="parallel-toy",
        run=run_three_toy,
        summary="Parallel three-layer networks trained beside the exact program.",
        quick=_grid(K=[2, 5, 15], starts=[20], steps=[500]),
        full=_grid(K=[2, 5, 15], starts=[200], steps=[2000]),
        seeds={"quick": 2, "full": 5},
        modules=_THREE_MODULES,
    ),
    Experiment(
        name="parallel-sampled",
        run=run_three_sampled,
        summary="The three-layer program over sampled tuples above the exact one.",
        quick=_grid(tuples=[5, 20]),
        full=_grid(tuples=[5, 10, 20, 50, 100]),
        seeds={"quick": 2, "full": 5},
        modules=_THREE_MODULES,
    ),
    Experiment(
        name="parallel-literal",
        run=run_three_literal,
        summary="The printed three-layer program beside the two true ones.",
        quick=_grid(beta=[0.1]),
        full=_grid(beta=[0.1]),
        seeds={"quick": 2, "full": 6},
        modules=_THREE_MODULES,
    ),
    Experiment(
        name="parallel-images",
        run=run_three_images,
        summary="Convex and gradient training of parallel networks on images.",
        quick=_grid(
            data=["fashion-mini"], n=[300], K=[4], m1=[5], its=[40], epochs=[20]
        ),
        full=_grid(
            data=["fashion-mnist"], n=[1000], K=[10], m1=[10], its=[60], epochs=[40]
        ),
        seeds={"quick": 2, "full": 5},
        modules=("lib.data.sources",),
    ),
    Experiment(
        name="parallel-images-scale",
        run=run_three_images,
        summary="The same at the paper's size, which needs a GPU.",
        quick=_grid(data=["fashion-mini"], n=[100], K=[2], m1=[2], its=[5], epochs=[2]),
        full=_grid(
            data=["fashion-mnist", "cifar10"],
            n=[49_000],
            K=[40],
            m1=[100],
            its=[500],
            epochs=[40],
        ),
        seeds={"quick": 1, "full": 5},
        modules=("lib.data.sources",),
        cuda=True,
    ),
)

# --- the report: all solvers on one problem ------------------------------------------


def run_race(configs, seeds, device):
    """One two-layer problem, and what each method makes of it with every oracle call.

    Values are costs of networks with weight decay, of the gated program its own value.
    """
    from lib.convexnn import ConvexReLURegressor, FrankWolfeNN, GatedReLURegressor

    for seed in seeds:
        known = {}
        for config in configs:
            n, d, method = config["n"], config["d"], config["method"]
            if (n, d) not in known:
                X, y = relu_problem(n, d, seed)
                beta = 0.05 * largest_penalty(X, y)
                best = ConvexReLURegressor(beta, tol=1e-8).fit(X, y)
                known[n, d] = X, y, beta, best
            X, y, beta, best = known[n, d]
            W1, w2 = best.to_network()
            radius = float(np.linalg.norm(W1, axis=0) @ np.abs(w2))
            out = {"optimum": best.objective_, "bound": best.dual_objective_}
            if method == "relu-program":
                _, values, lower = best.history_[0].T
                out |= {"neurons": best.n_neurons_}
            elif method == "gated-program":
                fit = GatedReLURegressor(beta, tol=1e-8).fit(X, y)
                _, values, lower = fit.history_[0].T
            elif method == "gradient-training":
                values = train_relu(X, y, beta, config["width"], 20, seed, 2000)
                lower = np.full(len(values), -np.inf)
            else:
                fit = FrankWolfeNN(
                    radius,
                    line_search=method == "frank-wolfe-search",
                    max_iter=config["steps"],
                    tol=1e-9,
                ).fit(X, y)
                values = fit.history_[:, 0] / 2 + beta * radius
                # the optimum has the radius of the ball, so both problems share it
                lower = values - fit.history_[:, 1] / 2
                out |= {"neurons": len(fit.weights_)}
            yield config, seed, out | {"values": values, "lower": lower}


def race_excess(cells):
    """Costs above the optimum, relative, one row a seed."""
    optimum = cells.values("optimum").ravel()
    rows = [np.ravel(cell.data["values"]) for cell in cells]
    return [v / f - 1 for v, f in zip(rows, optimum, strict=True)]


# metrics


def race_disagreement(results):
    """Largest amount, relative, by which one bound exceeds another value; by seed."""
    bounds, values = [], []
    for config in results.configs:
        if config["method"] == "gated-program":
            continue
        cells = results.where(**config)
        bounds.append([np.max(cell.data["lower"]) for cell in cells])
        values.append([np.min(cell.data["values"]) for cell in cells])
        scale = cells.values("optimum").ravel()
    return (np.max(bounds, axis=0) - np.min(values, axis=0)) / scale


def race_gated_saving(results):
    """How far the gated program lies below the ReLU program, relative; by seed."""
    return np.array(
        [-e[-1] for e in race_excess(results.where(method="gated-program"))]
    )


def race_calls(cells, within):
    """Oracle calls until the cost is within a share of the optimum; by seed."""
    counts = []
    for excess in race_excess(cells):
        reached = np.flatnonzero(excess <= within)
        counts.append(reached[0] + 1 if len(reached) else len(excess) + 1)
    return np.array(counts, dtype=float)


def race_calls_saved(results):
    """Logarithm to base 10 of Frank-Wolfe's calls to 1 % over column generation's."""
    slow = race_calls(results.where(method="frank-wolfe"), 1e-2)
    fast = race_calls(results.where(method="relu-program"), 1e-2)
    return np.log10(slow / fast)


def race_wide_gain(results):
    """Share of starts within 0.1 % of the optimum, widest less narrowest; by seed."""
    cells = results.where(method="gradient-training")
    widths = sorted(c["width"] for c in cells.configs)
    shares = [
        [np.mean(e <= 1e-3) for e in race_excess(cells.where(width=w))]
        for w in (widths[-1], widths[0])
    ]
    return np.subtract(*shares)


def race_worst_wide(results):
    """Excess of the worst start of the widest network, relative; by seed."""
    cells = results.where(method="gradient-training")
    width = max(c["width"] for c in cells.configs)
    return np.array([e.max() for e in race_excess(cells.where(width=width))])


def race_sparser(results):
    """Neurons with the smallest penalty less with the largest; by seed."""
    shares = sorted({c["share"] for c in results.configs})
    n = max(c["n"] for c in results.configs)
    small, large = (
        results.where(n=n, share=shares[k]).values("neurons").ravel() for k in (0, -1)
    )
    return small - large


def _race(steps, widths):
    rest = {"n": [30], "d": [3]}
    names = ["relu-program", "gated-program"]
    return (
        _grid(**rest, method=names)
        + _grid(**rest, method=["frank-wolfe", "frank-wolfe-search"], steps=[steps])
        + _grid(**rest, method=["gradient-training"], width=widths)
    )


_REPORT = (
    Experiment(
        name="solvers-race",
        run=run_race,
        summary="All methods for two-layer networks on one certified problem.",
        quick=_race(40, [5, 50]),
        full=_race(200, [5, 15, 50]),
        seeds={"quick": 2, "full": 10},
        modules=(*_SOLVERS, "lib.convexnn.incremental", "lib.convexnn.estimators"),
    ),
)

EXPERIMENTS = (
    *_BRIDGE,
    *_CONVEXNN,
    *_FRANK_WOLFE,
    *_PLANTED,
    *_DUALITY,
    *_THREE_LAYER,
    *_REPORT,
)
