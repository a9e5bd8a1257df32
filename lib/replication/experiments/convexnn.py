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


# metrics


_CONVEXNN = ()

# --- Frank-Wolfe ---------------------------------------------------------------------


# metrics


_FRANK_WOLFE = ()

# --- planted networks and their relaxation -------------------------------------------


# metrics


_PLANTED = ()

# --- convex duality: closed forms ----------------------------------------------------


# metrics


_DUALITY = ()

# --- three layers --------------------------------------------------------------------


# metrics


_THREE_LAYER = ()

# --- the report: all solvers on one problem ------------------------------------------


# metrics


_REPORT = ()

EXPERIMENTS = (
    *_BRIDGE,
    *_CONVEXNN,
    *_FRANK_WOLFE,
    *_PLANTED,
    *_DUALITY,
    *_THREE_LAYER,
    *_REPORT,
)
