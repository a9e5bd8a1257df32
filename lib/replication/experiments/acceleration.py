"""Experiments and metrics of the acceleration wing.

Every ``run_*`` function is a generator over ``(config, seed, arrays)``. Seeds are
derived from named axes: the problem and its start depend on the seed alone, the
randomness of a method on the seed and the method, so that all methods see the same
problem.
"""

import time

import numpy as np

from lib.replication import Experiment, MissingCells, seed_sequence


def _grid(**axes):
    """All combinations of the values given for each axis."""
    from itertools import product

    names = list(axes)
    return tuple(
        dict(zip(names, v, strict=True)) for v in product(*axes.values())
    )


# --- accelerated non-convex method: Table 1 and its problems ---------------------

# Rows of Table 1 and companions: the method, and what makes the ramp longer as the
# accuracy falls, its fixed height or nothing (a fixed length).
ANC_ROWS = {
    "gd": ("gd", "height"),
    "anc": ("anc", "height"),
    "anc-tight": ("anc", "height"),
    "anc-adaptive": ("anc-adaptive", "height"),
    "cubic-newton": ("cubic-newton", "height"),
    "agd": ("agd", "height"),
    "nag-restart": ("nag-restart", "height"),
    "gd-convex": ("gd", "length"),
    "prox-agd": ("prox-agd", "length"),
}


def _anc_solve(problem, row, tol, seed, budget=10**8, **constants):
    """One run by the book's name of its method, and what it cost."""
    import warnings

    from lib.acceleration import minimize_nonconvex

    method = ANC_ROWS[row][0]
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result = minimize_nonconvex(
            problem.fun,
            problem.x0,
            jac=problem.jac,
            hessp=problem.hessp,
            hess=problem.hess,
            method=method,
            constants="tight" if row == "anc-tight" else "paper",
            tol=tol,
            max_oracle=budget,
            seed=np.random.default_rng(seed_sequence("run", row, seed=seed)),
            **({} if row == "anc-adaptive" else problem.constants),
            **constants,
        )
    seconds = time.process_time() - start
    return result, {
        "calls": result.njev + result.nhevp,
        "gradients": result.njev,
        "products": result.nhevp,
        "values": result.nfev,
        "steps": result.nit,
        "success": result.success,
        "fun": result.fun,
        "grad_norm": float(np.linalg.norm(result.jac)),
        "seconds": seconds,
    }


def run_anc_ramp(configs, seeds, device):
    from lib.acceleration import ramp

    for seed in seeds:
        # The seed draws the constants of the problem, each within a factor of two.
        rng = np.random.default_rng(seed_sequence("ramp", seed=seed))
        L1, L2, size = (2.0 ** rng.uniform(-1, 1, 3)).tolist()
        for config in configs:
            row, eps = config["row"], 10.0 ** -config["decades"]
            fixed = "R" if ANC_ROWS[row][1] == "length" else "Delta"
            problem = ramp(eps, L1=L1, L2=L2, **{fixed: size})
            _, cell = _anc_solve(problem, row, eps, seed)
            yield config, seed, cell | {"L1": L1, "L2": L2, "size": size}


def run_anc_staircase(configs, seeds, device):
    from lib.acceleration import saddle_staircase

    for seed in seeds:
        rng = np.random.default_rng(seed_sequence("staircase", seed=seed))
        L1, L2, Delta = (2.0 ** rng.uniform(-1, 1, 3)).tolist()
        for config in configs:
            eps = 10.0 ** -config["decades"]
            problem = saddle_staircase(eps, L1=L1, L2=L2, Delta=Delta)
            result, cell = _anc_solve(problem, config["row"], eps, seed)
            # The Hessian is diagonal: its products with the ones are its entries.
            entries = problem.hessp(result.x, np.ones(result.x.size))
            alpha = np.sqrt(eps * L2)
            descents = np.sum(result.history["event"] == "negative curvature")
            yield (
                config,
                seed,
                cell
                | {
                    "descents": int(descents),
                    "bound": 1 + 12 * L2**2 * problem.Delta / alpha**3,
                    "coordinates": result.x.size - 1,
                    "smallest": float(entries.min()),
                    "alpha": alpha,
                    "fall": -result.fun / problem.Delta,
                },
            )


def anc_natural_problem(name, size, seed):
    """A problem of the chapter, its data drawn by the seed alone."""
    from lib.acceleration import (
        biweight,
        lower_bound_chain,
        matrix_factorization,
        phase_retrieval,
    )

    rng = np.random.default_rng(seed_sequence("natural", name, seed=seed))
    small = size == "small"
    if name == "biweight":
        return biweight(60, 30, seed=rng)
    if name == "factorization":
        return matrix_factorization(*((12, 3) if small else (40, 4)), seed=rng)
    if name == "phase":
        return phase_retrieval(*((10, 60) if small else (50, 300)), seed=rng)
    return lower_bound_chain(15 if small else 50, mu=0.1 * 2.0 ** rng.uniform(-1, 1))


def run_anc_natural(configs, seeds, device):
    for seed in seeds:
        for config in configs:
            problem = anc_natural_problem(config["problem"], config["size"], seed)
            tol = 10.0 ** -config["decades"]
            result, cell = _anc_solve(
                problem, config["row"], tol, seed, budget=config["budget"]
            )
            smallest = np.linalg.eigvalsh(problem.hess(result.x))[0]
            yield (
                config,
                seed,
                cell
                | {
                    "smallest": float(smallest),
                    "alpha": float(np.sqrt(tol * problem.L2)),
                    "start": float(problem.fun(problem.x0)),
                },
            )


def run_anc_strict_saddle(configs, seeds, device):
    """ANC alone, and ANC to 10^-1.5 with Nesterov's method in the convex region."""
    from lib.acceleration import Oracle, accelerated_gradient_descent

    for seed in seeds:
        problem = anc_natural_problem("chain", "small", seed)
        for config in configs:
            tol = 10.0 ** -config["decades"]
            if config["row"] == "anc-tight":
                result, cell = _anc_solve(problem, "anc-tight", tol, seed)
                calls, x, kappa = cell["calls"], result.x, np.nan
            else:
                result, cell = _anc_solve(problem, "anc-tight", 10**-1.5, seed)
                curvatures = np.linalg.eigvalsh(problem.hess(result.x))
                oracle = Oracle(problem.fun, result.x, jac=problem.jac)
                # The region is one in which the Hessian changes by a half at most.
                L, sigma = 1.5 * curvatures[-1], 0.5 * curvatures[0]
                x = accelerated_gradient_descent(oracle.grad, oracle.x0, tol, L, sigma)
                calls, kappa = cell["calls"] + oracle.calls, L / sigma
            yield (
                config,
                seed,
                {
                    "calls": calls,
                    "kappa": kappa,
                    "grad_norm": float(np.linalg.norm(problem.jac(x))),
                    "distance": float(np.linalg.norm(x - problem.x_star)),
                },
            )


def _anc_each_seed(results, number):
    """One number a seed from that seed's cells."""
    return np.array(
        [number([c for c in results if c.seed == seed]) for seed in results.seeds]
    )


def anc_exponent(results, span=1):
    """Slope of log calls against log eps, one a seed; over the finest ``span`` decades.

    Single accuracies scatter: Nesterov's iterates swing through the minimiser of a
    proximal step, and its test may catch them at an early swing or only at the end.
    """

    def slope(cells):
        last = max(c.config["decades"] for c in cells) - span
        cells = [c for c in cells if c.config["decades"] >= last]
        decades = [-c.config["decades"] for c in cells]
        return np.polyfit(decades, [np.log10(c.data["calls"]) for c in cells], 1)[0]

    return _anc_each_seed(results, slope)


def anc_staircase_exponent(results):
    """Slope of log steps along negative curvature against log eps, one a seed."""

    def slope(cells):
        decades = [-c.config["decades"] for c in cells]
        return np.polyfit(decades, [np.log10(c.data["descents"]) for c in cells], 1)[0]

    return _anc_each_seed(results, slope)


def _anc_paired(cells, one, other):
    """Calls of two methods on the same problems to the same accuracies."""
    calls = {one: {}, other: {}}
    for c in cells:
        if c.config["row"] in calls:
            where = tuple(sorted((k, v) for k, v in c.config.items() if k != "row"))
            calls[c.config["row"]][where] = float(c.data["calls"])
    shared = [k for k in calls[one] if k in calls[other]]
    return np.array([[calls[row][k] for k in shared] for row in (one, other)])


def anc_saving(results):
    """How far the calls with tight constants stay below 0.65 of the paper's."""

    def saving(cells):
        paper, tight = _anc_paired(cells, "anc", "anc-tight")
        return 0.65 - np.mean(tight / paper)

    return _anc_each_seed(results, saving)


def anc_gain_over_gd(results):
    """Mean log of gradient descent's calls over ANC's, one a seed."""

    def gain(cells):
        gd, anc = _anc_paired(cells, "gd", "anc")
        return np.mean(np.log10(gd / anc))

    return _anc_each_seed(results, gain)


def anc_descents_excess(results):
    """Steps along negative curvature over what Lemma 2.3 allows, minus one."""
    return np.array([c.data["descents"] / c.data["bound"] - 1 for c in results])


def anc_is_second_order(results):
    """Whether every run of a seed ended at a second-order stationary point."""

    def holds(cells):
        return all(
            bool(c.data["success"])
            and c.data["grad_norm"] <= 10.0 ** -c.config["decades"]
            and c.data["smallest"] >= -2 * c.data["alpha"]
            for c in cells
        )

    return _anc_each_seed(results, holds)


def anc_escapes_where_gd_stays(results):
    """Value of gradient descent minus that of ANC on the factorisation, a seed."""

    def gap(cells):
        value = {"gd": [], "anc": []}
        for c in cells:
            if c.config["row"] in value:
                value[c.config["row"]].append(float(c.data["fun"]))
        return np.mean(value["gd"]) - np.mean(value["anc"])

    return _anc_each_seed(results, gap)


def anc_linear_excess(results):
    """Calls a decade from 10^-4 to 10^-10 over those of the linear rate, minus one.

    An iteration has two gradients, and each decade of the gradient takes sqrt(kappa)
    times the logarithm of 100 iterations at the rate 1 - 1 / sqrt(kappa).
    """

    def excess(cells):
        calls = {c.config["decades"]: float(c.data["calls"]) for c in cells}
        root = np.sqrt(float(cells[0].data["kappa"]))
        return (calls[10.0] - calls[4.0]) / 6 / (2 * root * np.log(100)) - 1

    return _anc_each_seed(results, excess)


_ANC_MODULES = (
    "lib.acceleration.almost_convex",
    "lib.acceleration.curvature",
    "lib.acceleration.gradient",
    "lib.acceleration.nonconvex",
    "lib.acceleration.oracle",
    "lib.acceleration.testfunctions",
)


def _decades(first, last, step=0.25):
    return np.arange(first, last + step / 2, step).tolist()


def _anc_natural_grid(size, decades, budget):
    return _grid(
        problem=["biweight", "factorization", "phase", "chain"],
        size=[size],
        decades=decades,
        budget=[budget],
        row=["gd", "anc", "anc-tight", "anc-adaptive", "nag-restart"],
    )


ANC_EXPERIMENTS = (
    Experiment(
        name="anc-ramp",
        summary="Table 1 measured: oracle calls and time against the accuracy.",
        run=run_anc_ramp,
        quick=_grid(
            row=["gd", "anc", "anc-tight", "anc-adaptive", "cubic-newton"],
            decades=_decades(1, 2.25),
        )
        + _grid(row=["agd", "nag-restart"], decades=_decades(1, 2.25))
        + _grid(row=["gd-convex", "prox-agd"], decades=_decades(2, 4, 0.5)),
        full=_grid(row=["gd", "anc", "anc-tight"], decades=_decades(1, 3.5))
        + _grid(row=["anc-adaptive"], decades=_decades(1, 3))
        + _grid(row=["cubic-newton"], decades=_decades(1, 3.5))
        + _grid(row=["agd", "nag-restart"], decades=_decades(1, 3.5))
        + _grid(row=["gd-convex", "prox-agd"], decades=_decades(2, 5)),
        seeds={"quick": 3, "full": 5},
        modules=(*_ANC_MODULES, "lib.acceleration.cubic"),
    ),
    Experiment(
        name="anc-staircase",
        summary="A saddle with many ways down: steps along negative curvature.",
        run=run_anc_staircase,
        quick=_grid(row=["anc", "anc-adaptive"], decades=_decades(1, 2)),
        full=_grid(row=["anc", "anc-adaptive"], decades=_decades(1, 2.5)),
        seeds={"quick": 3, "full": 5},
        modules=_ANC_MODULES,
    ),
    Experiment(
        name="anc-natural",
        summary="Robust regression, factorisation, phase retrieval and the chain.",
        run=run_anc_natural,
        quick=_anc_natural_grid("small", [1.0, 2.0], 10**6),
        full=_anc_natural_grid("full", [1.0, 1.5, 2.0, 2.5, 3.0], 4 * 10**6),
        seeds={"quick": 3, "full": 5},
        modules=_ANC_MODULES,
    ),
    Experiment(
        name="anc-strict-saddle",
        summary="Calls against digits when Nesterov's method takes over at the end.",
        run=run_anc_strict_saddle,
        quick=_grid(row=["anc-tight"], decades=[2.0, 2.5, 3.0])
        + _grid(row=["agd"], decades=[2.0, 4.0, 7.0, 10.0]),
        full=_grid(row=["anc-tight"], decades=_decades(2, 4, 0.5))
        + _grid(row=["agd"], decades=_decades(2, 10, 1.0)),
        seeds={"quick": 3, "full": 5},
        modules=_ANC_MODULES,
    ),
)

# --- heavy ball on wide and on deep networks -------------------------------------

#: Multiply-adds of a cell and weights of a network that a CPU may take; beyond, the
#: cell waits for a GPU.
RELU_CPU_WORK = 1e12
DEEP_CPU_WEIGHTS = 10**6


def decay_rate(norms, low=1e-11, high=1e-2):
    """Factor a step, fitted where the ratio to the start lies between two levels."""
    ratio = norms / norms[0]
    t = np.flatnonzero((ratio > low) & (ratio < high))
    if len(t) < 10:
        return np.nan
    return np.exp(np.polyfit(t, np.log(ratio[t]), 1)[0])


def steps_to(norms, level):
    """First step at which the ratio to the start is at most the level, or NaN."""
    reached = norms <= level * norms[0]
    return float(np.argmax(reached)) if reached.any() else np.nan


def momentum_bound_slack(norms, condition, floor=1e-11):
    """Largest log10 of the left over the right-hand side of bounds (8) and (10)."""
    stacked = np.hypot(norms, np.r_[norms[0], norms[:-1]])
    t, root = np.flatnonzero(norms > floor * norms[0]), np.sqrt(condition)
    right = np.log10(8 * root) + t * np.log10(1 - 1 / (4 * root))
    return np.max(np.log10(stacked[t] / stacked[0]) - right)


def _momentum_array(X, device):
    """The array itself on the CPU, a CUDA tensor elsewhere."""
    if device == "cpu":
        return X
    import torch

    return torch.from_numpy(np.ascontiguousarray(X)).to(device)


def _momentum_draw(*axes, seed):
    """One 32-bit integer for a ``random_state`` from named axes."""
    return int(seed_sequence(*axes, seed=seed).generate_state(1)[0])


def relu_problem(data, n, d, seed):
    """Unit vectors with labels of -1 and 1: random ones, or handwritten 3s and 8s."""
    rng = np.random.default_rng(seed_sequence("relu", data, n, d, seed=seed))
    if data == "sphere":
        X, y = rng.standard_normal((n, d)), rng.choice([-1.0, 1.0], n)
    else:
        from lib.data import load

        X, labels = load(data, "train", flatten=True)
        pick = rng.permutation(np.flatnonzero((labels == 3) | (labels == 8)))[:n]
        X, y = X[pick].astype(np.float64), np.where(labels[pick] == 3, -1.0, 1.0)
    return X / np.linalg.norm(X, axis=1, keepdims=True), y


def relu_options(X, method):
    """Step size and momentum: theory's, gradient descent's, or others by name."""
    from lib.acceleration import polyak_parameters, relu_gram

    if method in ("gd", "wang"):
        return {} if method == "wang" else {"momentum": 0.0}
    low, *_, high = np.linalg.eigvalsh(relu_gram(X))
    if method == "optimal":
        lr, beta, _ = polyak_parameters(low, high, rule="optimal")
        return {"lr": lr, "momentum": beta}
    # as the report prints Theorem 3.1
    khat = 4 * (high / low + 1) / 2
    return {"momentum": (1 - 1 / (2 * khat)) ** 2}


def _relu_run(X, y, config, seed, device):
    """A trained network and what it says of its rate."""
    from lib.acceleration import WideReLU

    net = WideReLU(
        config["m"],
        random_state=_momentum_draw("layer", config["data"], config["m"], seed=seed),
    ).fit(
        _momentum_array(X, device),
        _momentum_array(y, device),
        n_iter=config["steps"],
        **relu_options(X, config["method"]),
    )
    norms = net.residuals_
    kept = np.unique(np.linspace(0, config["steps"], 201).astype(int))
    return net, {
        "steps": kept,
        "residual": norms[kept],
        "rate": decay_rate(norms),
        "predicted": net.predicted_rate_,
        "condition": net.condition_,
        "to_1e-6": steps_to(norms, 1e-6),
        "slack": momentum_bound_slack(norms, net.condition_),
        "flips": net.flip_fraction_,
    }


def run_relu_rate(configs, seeds, device):
    for config in configs:
        work = 4.0 * config["n"] * config["d"] * config["m"] * config["steps"]
        if device == "cpu" and work > RELU_CPU_WORK:
            continue
        for seed in seeds:
            X, y = relu_problem(config["data"], config["n"], config["d"], seed)
            yield config, seed, _relu_run(X, y, config, seed, device)[1]


def rate_over_root_beta(results):
    """Mean ratio of the logarithms of measured and predicted rate, one a seed."""
    ratio = {}
    for c in results:
        value = np.log(c.data["rate"]) / np.log(c.data["predicted"])
        ratio.setdefault(c.seed, []).append(float(value))
    return np.array([np.mean(ratio[seed]) for seed in results.seeds])


def bound_slack(results):
    """Log10 of the left over the right-hand side of the bound, one a run."""
    return np.array([float(c.data["slack"]) for c in results])


def printed_bound_slack(results):
    """The same for the report's condition number 4 (kappa + 1) / 2 and momentum."""
    slacks = []
    for c in results:
        kappa = (3 * c.data["condition"] - 1) / 4
        root, norms = np.sqrt(2 * (kappa + 1)), c.data["residual"]
        kept = norms > 1e-11 * norms[0]
        norms, steps = norms[kept], c.data["steps"][kept]
        right = np.log10(8 * root) + steps * np.log10(1 - 1 / (4 * root))
        # the left-hand side is at least the norm of its first half
        slacks.append(np.max(np.log10(norms / (np.sqrt(2) * norms[0])) - right))
    return np.array(slacks)


def momentum_speedup(results):
    """Mean log of the ratio of steps to 1e-6, gradient descent over momentum."""
    gains = {}
    for c in results:
        if c.config["method"] == "gd":
            continue
        pair = {**c.config, "method": "gd"}
        (plain,) = (o for o in results.where(**pair) if o.seed == c.seed)
        # where one has not arrived, it takes at least all its steps
        a, b = (
            c.config["steps"] if np.isnan(o.data["to_1e-6"]) else o.data["to_1e-6"]
            for o in (plain, c)
        )
        gains.setdefault(c.seed, []).append(np.log(a / b))
    if not gains:
        raise MissingCells("nothing to compare gradient descent with")
    return np.array([np.mean(gains[seed]) for seed in results.seeds])


def run_relu_width(configs, seeds, device):
    from lib.acceleration import relu_gram

    for config in configs:
        work = 4.0 * config["n"] * config["d"] * config["m"] * config["steps"]
        if device == "cpu" and work > RELU_CPU_WORK:
            continue
        for seed in seeds:
            X, y = relu_problem(config["data"], config["n"], config["d"], seed)
            net, found = _relu_run(X, y, config, seed, device)
            A = _momentum_array(X, device)
            before, after = (
                np.asarray(H if device == "cpu" else H.cpu())
                for H in (
                    relu_gram(A, W) for W in (net.initial_weights_, net.weights_)
                )
            )
            least, moved = net.gram_eigs_[0], net.weights_ - net.initial_weights_
            lengths = (moved**2).sum(1) ** 0.5
            yield (
                config,
                seed,
                {
                    "rate": found["rate"],
                    "predicted": found["predicted"],
                    "condition": found["condition"],
                    "slack": found["slack"],
                    "flips": found["flips"],
                    "moved": float(lengths.mean()),
                    "start": np.linalg.eigvalsh(before)[0] / least,
                    "end": np.linalg.eigvalsh(after)[0] / least,
                    "change": np.linalg.norm(after - before, 2) / least,
                },
            )


def _width_slope(results, key):
    m, y = results.curve(key, over="m")
    return np.polyfit(np.log(m), np.log(y).T, 1)[0]


def flip_slope(results):
    """Exponent of the share of flipped activations in the width, one a seed."""
    return _width_slope(results, "flips")


def gram_change_slope(results):
    """Exponent of the change of the Gram matrix in the width, one a seed."""
    return _width_slope(results, "change")


def movement_slope(results):
    """Exponent of the mean distance that a neuron moves in the width."""
    return _width_slope(results, "moved")


def safe_rate_gap(results):
    """Distance of the rate's logarithm from that of root beta where theory is safe.

    The rate is root beta while the smallest eigenvalue stays above 3/16 of that of
    the expected Gram matrix; one number a run that ends above 1/4.
    """
    return np.array(
        [
            abs(np.log(c.data["rate"]) / np.log(c.data["predicted"]) - 1)
            for c in results
            if c.data["end"] >= 0.25
        ]
    )


def deep_problem(d, outputs, kappa, seed):
    """A square X with geometric spectrum, squares over [1, kappa], and targets X W."""
    rng = np.random.default_rng(seed_sequence("deep", d, outputs, seed=seed))
    U, V = (np.linalg.qr(rng.standard_normal((d, d)))[0] for _ in range(2))
    X = (U * np.geomspace(1.0, np.sqrt(kappa), d)) @ V.T
    return X, X @ rng.standard_normal((d, outputs)) / np.sqrt(d)


def run_deep_linear(configs, seeds, device):
    import warnings

    from lib.acceleration import DeepLinear

    for config in configs:
        depth, width, steps = (config[k] for k in ("depth", "width", "steps"))
        if device == "cpu" and depth * width**2 > DEEP_CPU_WEIGHTS:
            continue
        for seed in seeds:
            X, Y = deep_problem(10, 5, config["kappa"], seed)
            options = {"momentum": 0.0} if config["method"] == "gd" else {}
            if config["lr"] == "printed":  # half of theory's
                options["lr"] = 5 / (2 * depth * config["kappa"])
            net = DeepLinear(
                depth,
                width,
                init=config["init"],
                random_state=_momentum_draw(
                    "layers", depth, width, config["init"], seed=seed
                ),
            )
            with warnings.catch_warnings(action="ignore"):  # recorded below
                net.fit(
                    _momentum_array(X, device),
                    _momentum_array(Y, device),
                    n_iter=steps,
                    tol=1e-12,
                    **options,
                )
            norms = net.residuals_
            finite = np.isfinite(norms).all()
            yield (
                config,
                seed,
                {
                    "to_1e-7": steps_to(norms, 1e-7) if finite else np.nan,
                    "rate": decay_rate(norms) if finite else np.nan,
                    "predicted": net.predicted_rate_,
                    "slack": momentum_bound_slack(norms, net.condition_)
                    if finite
                    else np.inf,
                },
            )


def _deep_steps(results):
    """Steps to 1e-7 against depth; all steps where it was not reached."""
    depth, steps = results.curve("to_1e-7", over="depth")
    return depth, np.where(np.isnan(steps), results[0].config["steps"], steps)


def depth_slope(results):
    """Exponent of the steps to 1e-7 in the depth, one number a seed."""
    depth, steps = _deep_steps(results)
    return np.polyfit(np.log(depth), np.log(steps).T, 1)[0]


def gaussian_depth_cost(results):
    """Log of the steps with Gaussian over those with orthogonal weights, deepest."""
    gaussian, orthogonal = (
        _deep_steps(results.where(init=init))[1][:, -1]
        for init in ("gaussian", "orthogonal")
    )
    return np.log(gaussian / orthogonal)


def deep_speedup(results):
    """Log of the ratio of steps to 1e-7, gradient descent over heavy ball."""
    plain, heavy = (
        _deep_steps(results.where(method=m))[1] for m in ("gd", "heavy-ball")
    )
    return np.log(plain / heavy).mean(axis=1)


# --- when momentum helps -----------------------------------------------------------


def simplex_points(khat, n, rng):
    """Unit vectors with one common angle, so that the ReLU Gram matrix has this khat.

    The angle solves h = cos(angle) (pi - angle) / (2 pi), where h makes the ratio of
    the eigenvalues 1/2 + (n - 1) h and 1/2 - h equal to (3 khat - 1) / 4.
    """
    from scipy.optimize import brentq

    kappa = (3 * khat - 1) / 4
    h = (kappa - 1) / (2 * (kappa + n - 1))
    angle = brentq(
        lambda a: np.cos(a) * (np.pi - a) / (2 * np.pi) - h, 0.0, np.pi / 2
    )
    gram = (1 - np.cos(angle)) * np.eye(n) + np.cos(angle)
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return np.linalg.cholesky(gram) @ Q


def run_phase(configs, seeds, device):
    from lib.acceleration import DeepLinear, WideReLU

    for config in configs:
        for seed in seeds:
            k, steps = config["condition"], config["steps"]
            axes = seed_sequence("phase", config["net"], seed=seed)
            rng = np.random.default_rng(axes)
            state = _momentum_draw("phase", config["net"], "start", seed=seed)
            if config["net"] == "relu":
                n = 4
                X = simplex_points(k, n, rng)
                # labels that no eigenvector of the Gram matrix misses
                y = np.where(rng.permutation(n) == 0, -1.0, 1.0)
                net = WideReLU(config["m"], random_state=state)
                options = relu_options(X, config["method"])
            else:
                X, y = deep_problem(6, 3, k, seed)
                net = DeepLinear(3, config["m"], random_state=state)
                options = {"gd": {"momentum": 0.0}, "wang": {}}[config["method"]]
            net.fit(
                _momentum_array(X, device),
                _momentum_array(y, device),
                n_iter=steps,
                **options,
            )
            norms = net.residuals_
            kept = np.unique(np.linspace(0, steps, 101).astype(int))
            yield (
                config,
                seed,
                {
                    "steps": kept,
                    "residual": norms[kept] / norms[0],
                    "rate": decay_rate(norms),
                    "predicted": net.predicted_rate_,
                },
            )


def momentum_crossover(results):
    """Condition number from which momentum has the smaller rate, one a seed."""
    k, plain = results.curve("rate", over="condition", method="gd")
    _, heavy = results.curve("rate", over="condition", method="wang")
    gap = np.log(np.log(plain) / np.log(heavy))  # negative where momentum wins
    out = []
    for row in gap:
        last = np.flatnonzero(row > 0)[-1]
        i = np.array([last, last + 1])
        out.append(np.exp(np.interp(0.0, -row[i], np.log(k[i]))))
    return np.array(out)


# --- adaptive methods on the linearised problem ------------------------------------

ADAPTIVE_STEPS = tuple(float(f"{v:.0e}") for v in np.geomspace(1e-3, 10, 9))


def linearized_problem(khat, seed, n=8, m=100):
    """Features J and targets of a ReLU layer, linearised at a random start.

    The rows of X are orthogonal, with lengths that make the expected Gram matrix
    diagonal, geometric, and of condition (3 khat - 1) / 4; a random rotation hides
    them from methods that work coordinate by coordinate.
    """
    rng = np.random.default_rng(seed_sequence("linearized", n, m, seed=seed))
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    X = np.geomspace(1.0, ((3 * khat - 1) / 4) ** -0.5, n)[:, None] * Q
    W, signs = rng.standard_normal((m, n)), rng.choice([-1.0, 1.0], m) / np.sqrt(m)
    slopes = (X @ W.T >= 0) * signs
    J = (slopes[:, :, None] * X[:, None, :]).reshape(n, m * n)
    return X, J, rng.choice([-1.0, 1.0], n) - (slopes * (X @ W.T)).sum(axis=1)


def adaptive_norms(J, target, method, lrs, steps, *, beta1, final_lr, beta2=0.999):
    """Residual norms of an adaptive method on |J theta - target|^2 / 2 from zero.

    Adam, AMSGrad, and AdaBound with the bounds ``final_lr (1 -+ 1 / ((1 - beta2) t))``
    of its paper; "adabound-decay" divides the step by the root of t as well, as the
    paper's Algorithm 2 does and its authors' code does not. One column a step size.
    """
    lr = np.asarray(lrs)[:, None]
    theta, m, v, most = (np.zeros((len(lr), J.shape[1])) for _ in range(4))
    norms = np.empty((steps + 1, len(lr)))
    for t in range(1, steps + 2):
        residual = theta @ J.T - target
        norms[t - 1] = np.linalg.norm(residual, axis=1)
        g = residual @ J
        m += (1 - beta1) * (g - m)
        v += (1 - beta2) * (g * g - v)
        root, rate = np.sqrt(1 - beta2**t), lr / (1 - beta1**t)
        if method == "adam":
            theta -= rate * m / (np.sqrt(v) / root + 1e-8)
        elif method == "amsgrad":
            np.maximum(most, v, out=most)
            theta -= rate * m / (np.sqrt(most) / root + 1e-8)
        else:
            width = 1 / ((1 - beta2) * t)
            low, high = final_lr * (1 - 1 / (1 / width + 1)), final_lr * (1 + width)
            step = np.clip(rate * root / (np.sqrt(v) + 1e-8), low, high)
            theta -= step * m / (np.sqrt(t) if method == "adabound-decay" else 1.0)
    return norms


def run_adaptive(configs, seeds, device):
    from lib.acceleration import polyak_parameters

    for config in configs:
        method, steps = config["method"], config["steps"]
        for seed in seeds:
            X, J, target = linearized_problem(config["khat"], seed)
            low, *_, high = np.sort(np.sum(X**2, axis=1)) / 2
            lr, beta, _ = polyak_parameters(0.75 * low, high + 0.25 * low)
            lrs = ADAPTIVE_STEPS
            if config["beta1"] is None:
                H = J @ J.T
                if method == "optimal":
                    low, *_, high = np.linalg.eigvalsh(H)
                    lr, beta, _ = polyak_parameters(low, high, rule="optimal")
                lrs, beta = (lr,), 0.0 if method == "gd" else beta
                xi = before = -target
                norms = np.empty((steps + 1, 1))
                for t in range(steps + 1):
                    norms[t] = np.linalg.norm(xi)
                    xi, before = xi - lr * (H @ xi) + beta * (xi - before), xi
            else:
                # AdaBound ends as the heavy ball with this step size
                final = lr / (1 - config["beta1"])
                norms = adaptive_norms(
                    J, target, method, lrs, steps, beta1=config["beta1"], final_lr=final
                )
            first = np.array([steps_to(column, 1e-8) for column in norms.T])
            best = 0 if np.isnan(first).all() else int(np.nanargmin(first))
            yield (
                config,
                seed,
                {
                    "to_1e-8": first[best],
                    "best_lr": lrs[best],
                    "window": np.sum(first <= 2 * first[best]),
                },
            )


def _adaptive_steps(results):
    """Steps to 1e-8 with the best step size, or the most allowed."""
    khat, steps = results.curve("to_1e-8", over="khat")
    return khat, np.where(np.isnan(steps), results[0].config["steps"], steps)


def adaptive_arrivals(results):
    """Steps to 1e-8 at the condition numbers where every seed arrived."""
    khat, steps = results.curve("to_1e-8", over="khat")
    arrived = ~np.isnan(steps).any(axis=0)
    return khat[arrived], steps[:, arrived]


def condition_exponent(results):
    """Exponent of the steps to 1e-8 in the condition number, one a seed."""
    khat, steps = _adaptive_steps(results)
    return np.polyfit(np.log(khat), np.log(steps).T, 1)[0]


def adaptive_root_beta(results):
    """Measured over predicted logarithm of the rate, where that is root beta1."""
    khat, steps = _adaptive_steps(results)
    predicted = -np.log(1e-8) / (-0.5 * np.log(results[0].config["beta1"]))
    return (predicted / steps).mean(axis=1)


def adaptive_momentum_gain(results):
    """Log of the ratio of steps to 1e-8, without over with momentum in the method."""
    without, with_it = (
        _adaptive_steps(results.where(beta1=b))[1] for b in (0.0, 0.9)
    )
    return np.log(without / with_it).mean(axis=1)


def rate_over_gd_claim(results):
    """Measured logarithm of the rate over that of 1 - 1/kappa, one number a seed."""
    (config,) = results.configs
    return np.log(results.values("rate")) / np.log(1 - 1 / config["kappa"])


_PHASE = [2.0, 3.0, 4.5, 6.0, 7.5, 10.0, 15.0, 25.0, 40.0, 60.0]
_LINEARIZED = ("lib.acceleration.linearized", "lib.acceleration.momentum")


def _relu_grid(data, n, d, m, steps, methods):
    return _grid(data=[data], n=[n], d=[d], m=[m], steps=[steps], method=methods)


def _adaptive_grid(khat, steps, adaptive_steps, beta1):
    names = ["gd", "heavy-ball", "optimal"]
    grid = _grid(method=names, beta1=[None], khat=khat, steps=[steps])
    rest = dict(khat=khat, steps=[adaptive_steps])
    grid += _grid(method=["adam"], beta1=beta1, **rest)
    names = ["amsgrad", "adabound", "adabound-decay"]
    return grid + _grid(method=names, beta1=[0.9], **rest)


_MOMENTUM = (
    Experiment(
        name="relu-rate",
        summary="Rate of a wide ReLU layer, with and without momentum.",
        run=run_relu_rate,
        quick=_relu_grid("sphere", 5, 10, 1000, 120, ["gd", "wang", "optimal"])
        + _relu_grid("sphere", 30, 10, 2000, 500, ["gd", "wang", "optimal"])
        + _relu_grid("digits", 60, 64, 1000, 1200, ["gd", "wang"]),
        full=_relu_grid("sphere", 5, 10, 1000, 200, ["gd", "wang", "optimal"])
        + _relu_grid(
            "sphere", 30, 10, 2000, 1500, ["gd", "wang", "optimal", "printed"]
        )
        + _relu_grid(
            "sphere", 60, 10, 4000, 1500, ["gd", "wang", "optimal", "printed"]
        )
        + _relu_grid("digits", 60, 64, 8000, 1500, ["gd", "wang", "optimal"])
        + _relu_grid("mnist", 1000, 784, 100_000, 20_000, ["gd", "wang", "optimal"]),
        seeds={"quick": 3, "full": 5},
        modules=_LINEARIZED,
        cuda=True,
        data=("digits/train", "mnist/train"),
    ),
    Experiment(
        name="relu-width",
        summary="Rate, activation flips and drift of the Gram matrix against width.",
        run=run_relu_width,
        quick=_grid(
            data=["digits"],
            n=[20],
            d=[64],
            steps=[600],
            method=["wang", "optimal"],
            m=[250, 1000, 4000],
        ),
        full=_grid(
            data=["digits"],
            n=[20],
            d=[64],
            steps=[600],
            method=["wang", "optimal"],
            m=[250 * 2**j for j in range(8)],
        )
        + _grid(
            data=["sphere"],
            n=[30],
            d=[10],
            steps=[400],
            method=["wang", "optimal"],
            m=[250 * 2**j for j in range(8)],
        ),
        seeds={"quick": 3, "full": 5},
        modules=_LINEARIZED,
        cuda=True,
        data=("digits/train",),
    ),
    Experiment(
        name="deep-linear",
        summary="Steps of a deep linear network against depth, width and weights.",
        run=run_deep_linear,
        quick=_grid(
            method=["heavy-ball"],
            init=["orthogonal", "gaussian"],
            depth=[2, 5, 10, 20, 50],
            width=[64],
            kappa=[25.0],
            lr=["theory"],
            steps=[450],
        )
        + _grid(
            method=["gd"],
            init=["orthogonal"],
            depth=[2, 5, 10, 20, 50],
            width=[64],
            kappa=[25.0],
            lr=["theory"],
            steps=[450],
        ),
        full=_grid(
            method=["heavy-ball"],
            init=["orthogonal", "gaussian"],
            depth=[2, 5, 10, 20, 50, 100, 200],
            width=[16, 32, 64, 128, 256, 512, 1024],
            kappa=[25.0],
            lr=["theory"],
            steps=[450],
        )
        + _grid(
            method=["gd"],
            init=["orthogonal"],
            depth=[2, 5, 10, 20, 50, 100, 200],
            width=[64, 1024],
            kappa=[25.0],
            lr=["theory"],
            steps=[450],
        )
        + _grid(
            method=["gd", "heavy-ball"],
            init=["orthogonal"],
            depth=[10],
            width=[64],
            kappa=[25.0],
            lr=["printed"],
            steps=[1000],
        ),
        seeds={"quick": 3, "full": 20},
        modules=_LINEARIZED,
        cuda=True,
    ),
    Experiment(
        name="momentum-phase",
        summary="Rates against the condition number: when momentum helps.",
        run=run_phase,
        quick=_grid(
            net=["relu"],
            method=["gd", "wang"],
            condition=[2.0, 4.5, 6.0, 7.5, 10.0, 25.0, 60.0],
            m=[4000],
            steps=[500],
        ),
        full=_grid(
            net=["relu"],
            method=["gd", "wang", "optimal"],
            condition=_PHASE,
            m=[30_000],
            steps=[500],
        )
        + _grid(
            net=["deep"],
            method=["gd", "wang"],
            condition=[2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 8.0, 15.0, 30.0],
            m=[256],
            steps=[400],
        ),
        seeds={"quick": 3, "full": 10},
        modules=_LINEARIZED,
        cuda=True,
    ),
    Experiment(
        name="adaptive-linearized",
        summary="Adam, AMSGrad and AdaBound against the condition number.",
        run=run_adaptive,
        quick=_adaptive_grid([10.0, 100.0, 1000.0], 3000, 1500, [0.0, 0.9]),
        full=_adaptive_grid(
            [3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0],
            20_000,
            8000,
            [0.0, 0.5, 0.9, 0.99],
        ),
        seeds={"quick": 3, "full": 5},
        modules=("lib.acceleration.momentum",),
    ),
)

# --- further methods ---------------------------------------------------------------

# At these relative errors a run of the races counts as finished.
RACE_TARGET = 1e-6
STATE_TARGET = 1e-6


def saddle_growth(eta_gamma, beta, rule="heavy-ball"):
    """Growth a step of momentum along a curvature of minus gamma: the larger root."""
    ahead = rule == "agd"
    total = 1 + beta + eta_gamma * (1 + beta if ahead else 1)
    product = beta * (1 + eta_gamma) if ahead else beta
    return (total + np.sqrt(total**2 - 4 * product)) / 2


def run_escape(configs, seeds, device):
    parts = {"growth": _growth, "saddle": _escape, "octopus": _octopus}
    for seed in seeds:
        for config in configs:
            yield config, seed, parts[config["part"]](config, seed)


def _growth(config, seed):
    """Measured growth at a quadratic saddle, after all other modes have died out."""
    beta, step, d = config["beta"], config["eta_gamma"], 10
    rng = np.random.default_rng(seed_sequence("growth", seed=seed))
    h = np.append(-step, rng.uniform(0.05, 1.0, d - 1))
    old = x = rng.standard_normal(d)
    logs = []
    for _ in range(int(30 / np.log(saddle_growth(step, beta))) + 200):
        if config["method"] == "agd":
            y = x + beta * (x - old)
            old, x = x, y - h * y
        else:
            old, x = x, x - h * x + beta * (x - old)
        size = np.linalg.norm(x)
        old, x = old / size, x / size
        logs.append(np.log(size))
    exact = np.log(saddle_growth(step, beta, config["method"]))
    return {"measured": np.mean(logs[-100:]), "exact": exact}


def _some(n, count=16):
    """A few indices of a curve of n points, which the first seed of a cell keeps."""
    return np.unique(np.linspace(0, n - 1, count).astype(int))


def _exponent(x, rows):
    """Slope of log y over log x for each row, NaN where there are no two points."""
    slopes = np.full(len(rows), np.nan)
    for k, row in enumerate(rows):
        ok = np.isfinite(row)
        if ok.sum() > 1:
            slopes[k] = np.polyfit(np.log(x[ok]), np.log(row[ok]), 1)[0]
    return slopes


def _saddle(kappa, seed, d=1000):
    """A saddle of curvature -1/kappa with minima beside it; L1 = L2 = 1."""
    gamma = 1.0 / kappa
    rng = np.random.default_rng(seed_sequence("saddle", kappa, seed=seed))
    h = np.append(-gamma, gamma ** rng.random(d - 1))

    def grad(x):
        g = h * x
        g[0] += x[0] * abs(x[0]) / 2
        return g

    def fun(x):
        return float(h @ (x * x)) / 2 + abs(x[0]) ** 3 / 6

    return fun, grad, h, gamma, rng


def _escape(config, seed):
    """Oracle calls until f has fallen by gamma^3 / 12, and distances on the way.

    That is what one step along a direction of curvature -gamma / 2 guarantees.
    """
    from lib.acceleration import lanczos_min_eig, minimize_nonconvex

    method, kappa = config["method"], config["kappa"]
    fun, grad, h, gamma, rng = _saddle(kappa, seed)
    d, calls, path = len(h), 0, []
    kick = rng.standard_normal(d)
    kick *= 1e-4 * gamma / np.linalg.norm(kick)

    def out(x):
        path.append((calls, np.linalg.norm(x)))
        return fun(x) <= -(gamma**3) / 12 * (1 - 1e-9)

    def counted(x):
        nonlocal calls
        calls += 1
        return grad(x)

    if method == "lanczos":
        value, v, calls = lanczos_min_eig(
            lambda v: h * v, d, alpha=gamma, stop_below=-gamma / 2, seed=rng
        )
        reached = out(2 * abs(value) * v)
    elif method == "pagd":

        def stop(x):
            if out(x):
                raise StopIteration

        minimize_nonconvex(
            fun, np.zeros(d), jac=counted, hessp=lambda x, v: h * v, method="pagd",
            tol=gamma**2 / 16, L1=1.0, L2=1.0, Delta=2 / 3 * gamma**3, callback=stop,
            max_oracle=10**6, seed=rng,
        )  # fmt: skip
        reached = True
    else:
        beta = 0.0 if method == "perturbed-gd" else 1 - np.sqrt(gamma)
        old = x = kick
        reached = out(x)
        while not reached and calls < 10**6:
            if method == "agd":
                y = x + beta * (x - old)
                old, x = x, y - counted(y)
            else:
                old, x = x, x - counted(x) + beta * (x - old)
            reached = out(x)
    found = {"calls": calls if reached else np.nan}
    if seed == 0:
        pick = np.unique(np.geomspace(1, len(path), 16).astype(int)) - 1
        path = np.array(path)[pick]
        found |= {"at": path[:, 0], "distance": path[:, 1] / gamma}
    return found


class Octopus:
    """The function of Du et al. 2017: d saddles in a row, then the minimum.

    Coordinate i leaves zero (curvature -2 gamma) for 4 tau (curvature 2 L) after the
    coordinates before it have done so; until then it is pulled to zero.
    """

    def __init__(self, d, L=np.e, gamma=1.0, tau=np.e):
        self.d, self.L, self.gamma, self.tau = d, L, gamma, tau
        self.drop = 4 * L * tau**2 - self._bridge(2 * tau)[0]

    def _bridge(self, x):
        """From -gamma x^2 at tau to L (x - 4 tau)^2 - drop at 2 tau, and slope."""
        L, c, tau = self.L, self.gamma, self.tau
        u, a, b = x - tau, (10 * c - 14 * L) / (3 * tau), (5 * L - 3 * c) / 2 / tau**2
        slope = -2 * c * x + 3 * a * u**2 + 4 * b * u**3
        return -c * x * x + a * u**3 + b * u**4, slope

    def _switch(self, x):
        """Curvature of the next coordinate, from L at tau to -gamma, and slope."""
        u, rise = (x - 2 * self.tau) / self.tau, self.L + self.gamma
        value = -self.gamma - rise * u**3 * (10 + 15 * u + 6 * u * u)
        return value, -30 * rise * (u * (1 + u)) ** 2 / self.tau

    def stage(self, x):
        """How many saddles are passed."""
        far = np.abs(x) >= 2 * self.tau
        return self.d if far.all() else int(np.argmin(far))

    def __call__(self, x):
        """Value and gradient."""
        L, tau, i = self.L, self.tau, self.stage(x)
        a, g = np.abs(x), 2 * L * np.abs(x)
        g[:i] -= 8 * L * tau
        value = L * np.sum((a[:i] - 4 * tau) ** 2) - i * self.drop
        if i < self.d and a[i] < tau:
            value += L * np.sum(a[i + 1 :] ** 2) - self.gamma * a[i] ** 2
            g[i] = -2 * self.gamma * a[i]
        elif i < self.d:
            bridge, g[i] = self._bridge(a[i])
            value += bridge + L * np.sum(a[i + 2 :] ** 2)
            if i + 1 < self.d:
                switch, slope = self._switch(a[i])
                value += switch * a[i + 1] ** 2
                g[i] += slope * a[i + 1] ** 2
                g[i + 1] = 2 * switch * a[i + 1]
        return float(value), g * np.sign(x)


def _octopus(config, seed):
    """Steps at which each saddle was passed, NaN where the budget ended before."""
    method, f = config["method"], Octopus(config["d"])
    rng = np.random.default_rng(seed_sequence("octopus", config["d"], seed=seed))
    noise = np.random.default_rng(seed_sequence("octopus", "noise", seed=seed))
    eta = 1 / (4 * f.L)
    beta = 0.9 if method in ("heavy-ball", "agd") else 0.0
    old = x = rng.uniform(-1, 1, f.d)
    passed = np.full(f.d, np.nan)
    for step in range(1, config["budget"] + 1):
        y = x + beta * (x - old) if method == "agd" else x
        g = f(y)[1]
        if method == "perturbed-gd" and np.linalg.norm(g) < np.e / 100:
            kick = noise.standard_normal(f.d)
            y = x + kick * (np.e / 100 * noise.random() ** (1 / f.d)
                            / np.linalg.norm(kick))  # fmt: skip
            g = f(y)[1]
        new = y - eta * g + (beta * (x - old) if method == "heavy-ball" else 0.0)
        old, x = x, new
        stage = f.stage(x)
        passed[:stage] = np.fmin(passed[:stage], step)
        if stage == f.d:
            break
    return {"passed": passed}


def growth_error(results):
    """Largest relative gap of a measured log growth to the closed form, a seed.

    Rounding below 1e-9 counts as 1e-9, so that every machine says the same.
    """
    cells = results.where(part="growth")
    worst = _worst_by_seed(
        cells, lambda c: abs(c.data["measured"] / c.data["exact"] - 1)
    )
    return np.maximum(worst, 1e-9)


def escape_slope(results):
    """Exponent in kappa of the oracle calls that leave a saddle, one a seed."""
    return _exponent(*results.curve("calls", over="kappa"))


def escape_gain(results):
    """Log ratio of the calls of perturbed GD and another method, largest kappa."""
    (other,) = {c["method"] for c in results.configs} - {"perturbed-gd"}
    slow, fast = (
        np.log(results.where(method=m).curve("calls", over="kappa")[1][:, -1])
        for m in ("perturbed-gd", other)
    )
    return slow - fast


def octopus_gain(results):
    """Log ratio of steps of GD and perturbed GD to the last saddle that GD passes."""
    plain, kicked = (
        results.where(method=m).values("passed") for m in ("gd", "perturbed-gd")
    )
    last = np.sum(np.isfinite(plain), axis=1) - 1
    rows = np.arange(len(last))
    return np.log(plain[rows, last] / kicked[rows, last])


def _worst_by_seed(results, number):
    return np.array(
        [max(number(c) for c in results if c.seed == s) for s in results.seeds]
    )


# Finite sums: component gradients of five methods against the condition number.


def race_problem(data, n, ratio, seed):
    """Logistic or ridge regression on unit rows with L / sigma = ratio n."""
    from lib.acceleration import FiniteSum

    rng = np.random.default_rng(seed_sequence("race", data, n, seed=seed))
    if data == "spectrum":
        d = 40
        Q = np.linalg.qr(rng.standard_normal((n, d)))[0]
        s = np.geomspace(1, 1e-3, d)  # curvatures from 1 to 1e-6
        X = Q * s
        X /= np.sqrt((X**2).sum(1).max())
        y = Q @ rng.choice([-1.0, 1.0], d) + 0.1 * rng.standard_normal(n)
        loss = "squares"
    else:
        from lib.data import load

        X, labels = load(data, "train", flatten=True)
        pick = rng.permutation(len(X))[:n]
        X, y = X[pick].astype(float), np.where(labels[pick] < 5, -1.0, 1.0)
        X /= np.linalg.norm(X, axis=1, keepdims=True)
        loss = "logistic"
    L = FiniteSum(X, y, loss=loss).smoothness
    return FiniteSum(X, y, loss=loss, l2=L / (ratio * n))


def race_minimum(problem):
    """The minimal value, by Newton's method."""
    X, n, d = problem.X, problem.n, problem.dim
    w = np.zeros(d)
    for _ in range(40):
        bend = np.ones(n)
        if problem.loss == "logistic":
            bend = 1 / (2 + 2 * np.cosh(X @ w))
        H = (X.T * bend) @ X / n + problem.l2 * np.eye(d)
        step = np.linalg.solve(H, problem.grad(w))
        w = w - step
        if np.linalg.norm(step) <= 1e-13 * np.linalg.norm(w):
            break
    return problem.fun(w)


def run_katyusha(configs, seeds, device):
    for seed in seeds:
        problems = {}
        for config in configs:
            key = config["data"], config["n"], config["ratio"]
            if key not in problems:
                problem = race_problem(*key, seed)
                problems[key] = problem, race_minimum(problem)
            problem, best = problems[key]
            passes, values, steps = _race_run(config, problem, best, seed)
            start = problem.fun(np.zeros(problem.dim)) - best
            gap = (values - best) / start
            done = np.flatnonzero(gap <= RACE_TARGET)
            at = passes[done[0]] if len(done) else np.nan
            found = {"to_target": at, "steps": at * steps, "last": gap[-1]}
            if seed == 0:
                pick = np.unique(np.geomspace(1, len(gap), 16).astype(int)) - 1
                gap = np.maximum(gap[pick], 1e-16)
                found |= {"passes": passes[pick], "gap": gap}
            yield config, seed, found


def _race_run(config, problem, best, seed):
    """Passes, values there, and steps per pass, until the target or the budget."""
    from lib.acceleration import katyusha, svrg

    method, batch, budget = config["method"], config["batch"], config["budget"]
    n, start = problem.n, problem.fun(np.zeros(problem.dim))
    goal = best + RACE_TARGET * (start - best)
    random_state = int(seed_sequence("race", method, seed=seed).generate_state(1)[0])
    if method in ("svrg", "svrg-long", "katyusha"):
        minimise = katyusha if method == "katyusha" else svrg
        options = {"step_size": 1 / (3 * problem.smoothness)}
        # F - F* <= |grad F|^2 / (2 sigma)
        found = minimise(
            problem,
            tol=np.sqrt(2 * problem.l2 * (goal - best)),
            max_passes=budget,
            batch_size=batch,
            random_state=random_state,
            **(options if method == "svrg-long" else {}),
        )
        path = found.history
        return path["ngrad"] / n, path["fun"], found.nit / max(1, found.ngrad / n)
    if method == "sgd":
        return *_race_sgd(problem, budget, random_state), n
    passes, values, (y, z) = [0], [start], np.zeros((2, problem.dim))
    bend = 0.25 if problem.loss == "logistic" else 1.0
    L = bend * np.linalg.eigvalsh(problem.X.T @ problem.X / n)[-1] + problem.l2
    root = np.sqrt(L / problem.l2)
    theta = (root - 1) / (root + 1) if method == "agd" else 0.0
    every = max(1, budget // 2000)
    for k in range(1, budget + 1):
        new = z - problem.grad(z) / L
        y, z = new, new + theta * (new - y)
        if k % every == 0:
            passes.append(k)
            values.append(problem.fun(y))
            if values[-1] <= goal:
                break
    return np.array(passes), np.array(values), 1


def _race_sgd(problem, budget, random_state):
    """One row a step, step sizes 1 / (L + sigma t)."""
    rng, w = np.random.default_rng(random_state), np.zeros(problem.dim)
    X, y, L, sigma = problem.X, problem.y, problem.smoothness, problem.l2
    values = [problem.fun(w)]
    for k in range(budget):
        rows = rng.integers(problem.n, size=problem.n)
        for t, i in enumerate(rows, start=k * problem.n):
            slope = problem._slopes(X[i] @ w, y[i])
            w = w - (slope * X[i] + sigma * w) / (L + sigma * t)
        values.append(problem.fun(w))
    return np.arange(budget + 1), np.array(values)


def race_slope(results):
    """Exponent in kappa / n of the passes to the target, one number a seed."""
    return _exponent(*results.curve("to_target", over="ratio"))


def katyusha_gain(results):
    """Log ratio of the passes of the other method and Katyusha, one number a seed.

    At the largest kappa / n that both have.
    """
    (other,) = {c["method"] for c in results.configs} - {"katyusha"}
    a, b = (
        results.where(method=m).curve("to_target", over="ratio")
        for m in (other, "katyusha")
    )
    ratio = max(set(a[0]) & set(b[0]))
    return np.log(a[1][:, a[0] == ratio] / b[1][:, b[0] == ratio])[:, 0]


def batch_slope(results):
    """Exponent of Katyusha's steps in the batch size, batches up to sqrt(n)."""
    batch, steps = results.curve("steps", over="batch")
    small = batch <= np.sqrt(results.configs[0]["n"])
    return _exponent(batch[small], steps[:, small])


# Tomography: factored gradient descent with momentum.


def step_curvatures(A, psi):
    """Eigenvalues of the factored step linearised at a pure state, one zero left out.

    The zero belongs to the global phase of the state.
    """
    N = len(psi)
    basis = np.concatenate([np.eye(N), 1j * np.eye(N)])
    columns = [
        A.adjoint(A.forward(np.outer(e, psi.conj()) + np.outer(psi, e.conj()))) @ psi
        for e in basis
    ]
    J = np.array(columns).T
    return np.linalg.eigvalsh(np.concatenate([J.real, J.imag]))[1:]


def nesterov_rate(curvatures, eta, mu):
    """Spectral radius of gradient steps with momentum at the given curvatures."""
    keep = 1 - eta * np.asarray(curvatures)
    half = (1 + mu) * keep / 2
    gap = np.sqrt((half**2 - mu * keep).astype(complex))
    return float(np.max(np.abs([half + gap, half - gap])))


def run_mifgd(configs, seeds, device):
    from lib.acceleration import PauliMeasurements, fidelity, mifgd, quantum_state

    for seed in seeds:
        for config in configs:
            q, name, fraction = (config[k] for k in ("qubits", "state", "fraction"))
            stream = seed_sequence("mifgd", name, q, fraction, seed=seed)
            of_state, of_strings, of_start, of_shots = stream.spawn(4)
            psi = quantum_state(name, q, random_state=of_state)
            rho = np.outer(psi, psi.conj())
            count = round(fraction * 4**q)
            A = PauliMeasurements.random(q, count, random_state=of_strings)
            if config["shots"]:
                y = A.sample(rho, config["shots"], random_state=of_shots)
            else:
                y = A.forward(rho)
            # few strings may all have a mean of zero, and then nothing to start from
            empty = np.linalg.eigvalsh(A.adjoint(y))[-1] < 1e-12
            begin = "random" if empty else config["start"]
            error = []

            def seen(U, error=error, rho=rho):
                error.append(np.linalg.norm(U @ U.conj().T - rho))

            eta = config["eta"]
            found = mifgd(
                A, y, momentum=config["momentum"], start=begin, step_size=eta,
                tol=1e-9, max_iter=config["budget"], callback=seen,
                random_state=of_start,
            )  # fmt: skip
            error = np.array(error)
            data = _linear_part(error) | {
                "fidelity": fidelity(psi, found.density),
                "floor": error[-1],
                "steps": found.nit,
            }
            done = np.flatnonzero(error <= STATE_TARGET)
            data["to_target"] = done[0] if len(done) else np.nan
            data["predicted"] = nesterov_rate(
                step_curvatures(A, psi), eta, config["momentum"]
            )
            if seed == 0:
                pick = _some(len(error))
                data |= {"at": pick, "error": error[pick]}
            yield config, seed, data


def _linear_part(error):
    """Rate and straightness of the logarithm of an error between 1e-3 and 1e-8."""
    use = np.flatnonzero((error < 1e-3) & (error > 1e-8))
    if len(use) < 5:
        return {"rate": np.nan, "straight": np.nan}
    log = np.log(error[use])
    slope, offset = np.polyfit(use, log, 1)
    rest = np.sum((log - slope * use - offset) ** 2)
    return {
        "rate": np.exp(slope),
        "straight": 1 - rest / np.sum((log - log.mean()) ** 2),
    }


def state_recovered(results):
    """Whether every state was recovered to an infidelity of 1e-10, one a seed."""
    return [
        all(c.data["fidelity"] > 1 - 1e-10 for c in results if c.seed == s)
        for s in results.seeds
    ]


def rate_straightness(results):
    """Smallest R^2 of the log error against the step, minus 0.98, sign turned."""
    return np.array([0.98 - c.data["straight"] for c in results])


def state_rate_error(results):
    """Gap of the measured rate to that of the linearised step, one number a cell."""
    return np.array([c.data["rate"] - c.data["predicted"] for c in results])


def momentum_gain(results):
    """Mean log ratio of steps to the target, momentum 0 over 1/2, one a seed."""
    gain = []
    for config in results.where(momentum=0.0).configs:
        plain, fast = (
            results.where(**config | {"momentum": mu}).values("to_target")
            for mu in (0.0, 0.5)
        )
        gain.append(np.log(plain / fast))
    return np.mean(gain, axis=0)


def noise_slope(results):
    """Exponent of the final error in the number of shots, one number a seed."""
    return _exponent(*results.curve("floor", over="shots"))


# The general methods on the wing's test functions.


def run_further_race(configs, seeds, device):
    for seed in seeds:
        for config in configs:
            problem = _further_problem(config, seed)
            yield config, seed, _further_run(problem, config)


def _further_problem(config, seed):
    from lib import acceleration

    name = config["problem"]
    rng = np.random.default_rng(seed_sequence("further", name, seed=seed))
    draw = int(rng.integers(2**31))
    if name == "ramp":
        scale = 2 ** rng.uniform(-0.5, 0.5, 3)
        constants = dict(zip(("L1", "L2", "Delta"), scale.tolist(), strict=True))
        return acceleration.ramp(config["tol"], **constants)
    if name == "lower_bound_chain":
        return acceleration.lower_bound_chain(mu=0.01 * 2 ** rng.uniform(-0.5, 0.5))
    return getattr(acceleration, name)(seed=draw)


def _further_run(problem, config):
    import warnings

    from lib.acceleration import minimize_nonconvex

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = minimize_nonconvex(
            problem.fun,
            problem.x0,
            jac=problem.jac,
            hessp=problem.hessp,
            hess=problem.hess,
            method=config["method"],
            tol=config["tol"],
            max_oracle=config["budget"],
            **problem.constants,
        )
    # a Hessian costs as much as d products
    calls = found.njev + found.nhevp + problem.x0.size * found.nhev
    return {
        "calls": calls if found.success else np.nan,
        "spent": calls,
        "value": found.fun,
        "lambda_min": np.linalg.eigvalsh(problem.hess(found.x))[0],
    }


def rate_exponent(results):
    """Exponent of the oracle calls in 1 / tol, one number a seed."""
    return -_exponent(*results.curve("calls", over="tol"))


def rate_excess(results):
    """Exponent of the oracle calls in 1 / tol beyond 7/4, one number a seed."""
    return rate_exponent(results) - 1.75


def calls_over_gd(results):
    """Log ratio of the calls of gradient descent and of the other method, a seed."""
    names = {c["method"] for c in results.configs}
    (other,) = names - {"gd"}
    gain = []
    for problem in dict.fromkeys(c["problem"] for c in results.configs):
        cells = results.where(problem=problem)
        gd, fast = (cells.where(method=m).values("calls") for m in ("gd", other))
        gain.append(np.log(gd / fast))
    return np.mean(gain, axis=0)


_FURTHER_GENERAL = tuple(
    f"lib.acceleration.{name}"
    for name in ("oracle", "curvature", "gradient", "cubic", "escape", "nonconvex")
)
_ETA = [0.2, 0.02]
_LARGE = [30, 100, 300, 1000]
_BATCHES = [2, 4, 8, 16, 32, 64, 128, 256]
FURTHER_PROBLEMS = [
    "biweight",
    "matrix_factorization",
    "phase_retrieval",
    "lower_bound_chain",
]


def _race_grid(data, n, ratio, method, budget, batch=(1,)):
    return _grid(
        data=[data],
        n=[n],
        ratio=ratio,
        method=method,
        batch=list(batch),
        budget=[budget],
    )


def _state_grid(state, qubits, **axes):
    one = {
        "fraction": [0.4],
        "start": ["spectral"],
        "momentum": [0.5],
        "eta": [0.2],
        "shots": [0],
        "budget": [4000],
    }
    return _grid(state=state, qubits=qubits, **(one | axes))


_FURTHER = (
    Experiment(
        name="escape-speed",
        summary="Growth a step at a saddle, calls to leave it, and an octopus.",
        run=run_escape,
        quick=_grid(
            part=["growth"],
            method=["heavy-ball", "agd"],
            eta_gamma=[0.01, 0.1],
            beta=[0.0, 0.5, 0.9],
        )
        + _grid(
            part=["saddle"],
            method=["perturbed-gd", "heavy-ball", "agd", "pagd", "lanczos"],
            kappa=[16, 64, 256],
        )
        + _grid(
            part=["octopus"],
            method=["gd", "perturbed-gd", "agd", "heavy-ball"],
            d=[8],
            budget=[10_000],
        ),
        full=_grid(
            part=["growth"],
            method=["heavy-ball", "agd"],
            eta_gamma=[0.001, 0.01, 0.1],
            beta=[0.0, 0.5, 0.9, 0.99],
        )
        + _grid(
            part=["saddle"],
            method=["perturbed-gd", "heavy-ball", "agd", "pagd", "lanczos"],
            kappa=[16, 64, 256, 1024, 4096],
        )
        + _grid(
            part=["octopus"],
            method=["gd", "perturbed-gd", "agd", "heavy-ball"],
            d=[10],
            budget=[100_000],
        ),
        seeds={"quick": 3, "full": 10},
        modules=_FURTHER_GENERAL,
        data=(),
    ),
    Experiment(
        name="katyusha-race",
        summary="Passes over a finite sum to accuracy 1e-6 against kappa / n.",
        run=run_katyusha,
        quick=_race_grid("digits", 200, [1, 10, 100], ["katyusha", "agd"], 2000)
        + _race_grid("digits", 200, [1, 10], ["svrg", "svrg-long"], 1000)
        + _race_grid("digits", 200, [10], ["gd"], 10_000)
        + _race_grid("digits", 200, [10], ["sgd"], 200)
        + _race_grid("digits", 200, [100], ["katyusha"], 2000, batch=[4, 16, 64]),
        full=sum(
            (
                _race_grid(name, 1000, [0.1, 1, 10, *_LARGE], ["katyusha"], 5000)
                + _race_grid(name, 1000, [0.1, 1, 10, *_LARGE], ["agd"], 50_000)
                + _race_grid(name, 1000, [0.1, 1, 3, 10, 30], ["svrg"], 5000)
                + _race_grid(name, 1000, [0.1, 1, 3, 10, 30], ["svrg-long"], 5000)
                + _race_grid(name, 1000, [0.1, 1, 3, 10, 30], ["gd"], 100_000)
                + _race_grid(name, 1000, [10], ["sgd"], 400)
                for name in ("digits", "spectrum")
            ),
            (),
        )
        + _race_grid("digits", 1000, [300], ["katyusha"], 5000, batch=_BATCHES)
        + _race_grid("mnist", 10_000, [1, 10, 100], ["katyusha"], 1000, batch=[8])
        + _race_grid("mnist", 10_000, [1, 10], ["svrg"], 1000, batch=[8])
        + _race_grid("mnist", 10_000, [1, 10], ["agd"], 4000),
        seeds={"quick": 3, "full": 5},
        modules=("lib.acceleration.finite_sum",),
        data=("digits", "mnist"),
    ),
    Experiment(
        name="mifgd",
        summary="Quantum states from Pauli measurements: steps, rates, noise floors.",
        run=run_mifgd,
        quick=_state_grid(["random"], [5], momentum=[0.0, 0.5, 0.75], eta=_ETA)
        + _state_grid(["ghz", "hadamard"], [5])
        + _state_grid(["random"], [4], shots=[100, 1000, 10_000]),
        full=_state_grid(
            ["ghz", "hadamard", "random"], [4, 5, 6], start=["spectral", "random"]
        )
        + _state_grid(
            ["random"], [4, 5, 6], momentum=[0.0, 0.125, 0.25, 0.333, 0.75], eta=_ETA
        )
        + _state_grid(["random"], [4, 5, 6], eta=[0.02])
        + _state_grid(["ghz", "hadamard"], [6], momentum=[0.0])
        + _state_grid(
            ["ghz", "hadamard", "random"], [4, 5, 6], fraction=[0.1, 0.2]
        )
        + _state_grid(
            ["random"], [4, 5, 6], shots=[100, 1000, 10_000, 100_000]
        ),
        seeds={"quick": 3, "full": 5},
        modules=("lib.acceleration.factored",),
        data=(),
    ),
    Experiment(
        name="further-race",
        summary="Perturbed, restarted and cubic methods on the wing's functions.",
        run=run_further_race,
        quick=_grid(
            problem=["ramp"],
            method=[
                "gd",
                "pagd",
                "restarted-agd",
                "nag-restart",
                "cubic-newton",
                "arc",
            ],
            tol=[1e-1, 10**-1.5, 1e-2],
            budget=[100_000],
        )
        + _grid(
            problem=["matrix_factorization", "lower_bound_chain"],
            method=["gd", "pagd", "restarted-agd", "nag-restart", "arc"],
            tol=[1e-3],
            budget=[100_000],
        ),
        full=_grid(
            problem=["ramp"],
            method=[
                "gd",
                "pagd",
                "restarted-agd",
                "nag-restart",
                "cubic-newton",
                "arc",
            ],
            tol=[1e-1, 10**-1.5, 1e-2, 10**-2.5],
            budget=[10_000_000],
        )
        + _grid(
            problem=["ramp"],
            method=["pagd", "restarted-agd", "nag-restart", "cubic-newton", "arc"],
            tol=[1e-3],
            budget=[10_000_000],
        )
        + _grid(
            problem=["ramp"],
            method=["pagd", "restarted-agd", "nag-restart", "arc"],
            tol=[10**-3.5],
            budget=[10_000_000],
        )
        + _grid(
            problem=FURTHER_PROBLEMS,
            method=[
                "gd",
                "pagd",
                "restarted-agd",
                "nag-restart",
                "arc",
                "cubic-newton",
            ],
            tol=[1e-3],
            budget=[500_000],
        ),
        seeds={"quick": 3, "full": 5},
        modules=(*_FURTHER_GENERAL, "lib.acceleration.testfunctions"),
        data=(),
    ),
)


# --- the report's index: solvers at saddles, natural problems, networks ----------

#: scipy's solvers that use a gradient, and what else they are given here.
SCIPY_SOLVERS = {
    "L-BFGS-B": None,
    "BFGS": None,
    "CG": None,
    "TNC": None,
    "SLSQP": None,
    "trust-constr": "hessp",
    "Newton-CG": "hessp",
    "trust-ncg": "hessp",
    "trust-krylov": "hessp",
    "trust-exact": "hess",
    "dogleg": "hess",
}
SADDLE_METHODS = ("gd", "pagd", "anc-adaptive", "arc", "lbfgs-nc")


def stuck_problem(name, seed):
    """A problem whose start is a stationary point and no minimum."""
    from dataclasses import replace

    from lib.acceleration import (
        matrix_factorization,
        phase_retrieval,
        saddle_staircase,
    )

    draw = seed_sequence("stuck", name, seed=seed)
    if name == "factorization":
        return matrix_factorization(scale=0.0, seed=draw)
    if name == "phase":
        problem = phase_retrieval(seed=draw)
        return replace(problem, x0=0.0 * problem.x0)
    return saddle_staircase(0.05)


def run_saddle_solvers(configs, seeds, device):
    """What solvers say at an exact saddle, and the curvature that is there."""
    import warnings

    from scipy.optimize import minimize

    from lib.acceleration import minimize_nonconvex

    for seed in seeds:
        for config in configs:
            problem, solver = stuck_problem(config["problem"], seed), config["solver"]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if solver in SCIPY_SOLVERS:
                    more = SCIPY_SOLVERS[solver]
                    result = minimize(
                        problem.fun,
                        problem.x0,
                        jac=problem.jac,
                        method=solver,
                        **({more: getattr(problem, more)} if more else {}),
                    )
                    said = bool(result.success)
                else:
                    result = minimize_nonconvex(
                        problem.fun,
                        problem.x0,
                        method=solver,
                        tol=1e-5,
                        max_oracle=1_000_000,
                        seed=_draw("saddle", solver, seed=seed),
                        **problem.functions,
                        **_needed_constants(problem, solver),
                    )
                    said = result.certificate.startswith("second-order")
            yield (
                config,
                seed,
                {
                    "says_done": said,
                    "steps": result.nit,
                    "gap": result.fun - problem.fun(problem.x_star),
                    "lambda_min": np.linalg.eigvalsh(problem.hess(result.x))[0],
                    "calls": result.get("njev", result.nfev) + result.get("nhevp", 0),
                },
            )


def _draw(*axes, seed):
    """One 32-bit integer for a ``seed`` argument from named axes."""
    return int(seed_sequence(*axes, seed=seed).generate_state(1)[0])


def scipy_stuck(results):
    """Whether every solver of scipy says success where the curvature is negative."""
    return _each_seed(
        results,
        lambda cells: all(
            c.data["says_done"] and c.data["lambda_min"] < -1e-3 for c in cells
        ),
    )


def lib_escapes(results):
    """Whether every certificate is right, and some certificate is given."""
    return _each_seed(
        results,
        lambda cells: all(
            c.data["says_done"] and c.data["lambda_min"] > -1e-2 for c in cells
        ),
    )


def _each_seed(results, decide):
    """The verdict of ``decide`` on the cells of each seed."""
    return np.array(
        [decide([c for c in results if c.seed == seed]) for seed in results.seeds]
    )


#: The natural problems: family -> how many of them make up the 17.
NATURAL = {"biweight": 10, "factorization": 3, "phase": 3, "chain": 1}
NATURAL_SCIPY = {
    "l-bfgs": ("L-BFGS-B", {"maxfun": 10**6, "ftol": 0.0, "gtol": 0.0}),
    "newton-cg": ("Newton-CG", {"xtol": 0.0}),
    "trust-ncg": ("trust-ncg", {"gtol": 0.0}),
    "trust-krylov": ("trust-krylov", {"gtol": 0.0}),
}
NATURAL_TOL = 1e-5
NATURAL_BUDGET = 20_000


def natural_problem(family, instance, seed):
    """One of the 17 problems; each seed draws another 17."""
    from lib.acceleration import (
        biweight,
        lower_bound_chain,
        matrix_factorization,
        phase_retrieval,
    )

    draw = seed_sequence("natural", family, instance, seed=seed)
    makers = {
        "biweight": biweight,
        "factorization": matrix_factorization,
        "phase": phase_retrieval,
    }
    return lower_bound_chain() if family == "chain" else makers[family](seed=draw)


def scipy_calls(problem, method, options, tol):
    """Run a solver of scipy to a gradient of ``tol``: x and the calls that it made."""
    from scipy.optimize import minimize

    calls = {"jac": 0, "hessp": 0}

    def jac(x):
        calls["jac"] += 1
        return problem.jac(x)

    def hessp(x, v):
        calls["hessp"] += 1
        return problem.hessp(x, v)

    def stop(intermediate_result):
        # the solvers have this gradient, so it is not counted again
        x = intermediate_result.x
        if np.linalg.norm(problem.jac(x)) <= tol or sum(calls.values()) > 10**6:
            raise StopIteration

    result = minimize(
        problem.fun,
        problem.x0,
        jac=jac,
        method=method,
        callback=stop,
        options={"maxiter": 10**6} | options,
        **({} if "BFGS" in method else {"hessp": hessp}),
    )
    return result.x, calls["jac"] + calls["hessp"]


def run_natural(configs, seeds, device):
    """Oracle calls of every method on the natural problems; a Hessian counts d."""
    import warnings

    from lib.acceleration import minimize_nonconvex

    for seed in seeds:
        for config in configs:
            family, instance, method = (
                config[k] for k in ("family", "instance", "method")
            )
            problem = natural_problem(family, instance, seed)
            start = time.process_time()
            certified = False
            if method in NATURAL_SCIPY:
                x, calls = scipy_calls(problem, *NATURAL_SCIPY[method], NATURAL_TOL)
            else:
                tight = method == "anc-tight"
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    result = minimize_nonconvex(
                        problem.fun,
                        problem.x0,
                        method="anc" if tight else method,
                        constants="tight" if tight else "paper",
                        tol=NATURAL_TOL,
                        max_oracle=NATURAL_BUDGET,
                        seed=_draw("natural", family, instance, method, seed=seed),
                        **problem.functions,
                        **({"hess": problem.hess} if method == "cubic-newton" else {}),
                        **_needed_constants(problem, method),
                    )
                x, certified = result.x, result.certificate.startswith("second-order")
                calls = result.njev + result.nhevp + len(x) * result.nhev
            seconds = time.process_time() - start
            norm = np.linalg.norm(problem.jac(x))
            yield (
                config,
                seed,
                {
                    "calls": calls if norm <= NATURAL_TOL else np.inf,
                    "certified": certified,
                    "fun": problem.fun(x),
                    "lambda_min": np.linalg.eigvalsh(problem.hess(x))[0],
                    "cpu_seconds": seconds,
                },
            )


def _needed_constants(problem, method):
    """The constants of a problem, for the methods that cannot do without."""
    needs = {
        "gd": ("L1",),
        "agd": ("L1",),
        "anc": ("L1", "L2", "Delta"),
        "anc-tight": ("L1", "L2", "Delta"),
        "cubic-newton": ("L2",),
        "pagd": ("L1", "L2", "Delta"),
    }
    return {name: problem.constants[name] for name in needs.get(method, ())}


def natural_ratios(results, method):
    """Calls over those of scipy's L-BFGS-B, of shape (n_seeds, 17)."""
    rows = []
    for family, count in NATURAL.items():
        for instance in range(count):
            cells = results.where(family=family, instance=instance)
            calls = [
                cells.where(method=name).values("calls") for name in (method, "l-bfgs")
            ]
            rows.append(calls[0] / calls[1])
    return np.array(rows).T


def certified_median(results):
    """Median over the 17 of the calls of lbfgs-nc over L-BFGS-B's, less one."""
    return np.median(natural_ratios(results, "lbfgs-nc"), axis=1) - 1.0


def certified_median_gain(results):
    """One minus the median ratio: above zero if certified minima cost less."""
    return -certified_median(results)


def natural_certificates(results):
    """Whether no certificate of a seed is contradicted by the true eigenvalue."""
    alpha = np.sqrt(NATURAL_TOL)
    return _each_seed(
        results,
        lambda cells: all(
            c.data["lambda_min"] >= -alpha for c in cells if c.data["certified"]
        ),
    )


#: Losses whose first gradient counts, as in the stored runs of the peer.
THRESHOLDS = {
    "classify": (1e-1, 1e-2, 1e-3, 1e-6),
    "autoencode": (3e-2, 2.5e-2, 2e-2, 1.85e-2),
}
NET_BUDGET = {"classify": 1500, "autoencode": 300}
NET_COUNTS = np.unique(np.geomspace(1, 1500, 60).astype(int))


class Network:
    """
    Loss of a sigmoid network and its gradient, in float64; it keeps a log.

    The networks of Marumo and Takeda (2024): layers d-32-16-10 with cross-entropy and
    d-32-16-32-d that reproduces its input, half the mean square; LeCun's truncated
    normal initialisation.
    """

    def __init__(self, data, task, n, seed):
        import torch
        from sklearn.model_selection import train_test_split

        from lib.data import load

        X, y = load(data, "train", flatten=True)
        if n < len(X):
            state = _draw("network", data, seed=seed)
            X, _, y, _ = train_test_split(
                X, y, stratify=y, train_size=n, random_state=state
            )
        self.X, self.y = torch.tensor(X, dtype=torch.float64), torch.tensor(y)
        self.task, d = task, X.shape[1]
        widths = (d, 32, 16, 10) if task == "classify" else (d, 32, 16, 32, d)
        self.sizes = list(zip(widths, widths[1:], strict=False))
        rng = np.random.default_rng(seed_sequence("weights", data, task, seed=seed))
        parts = []
        for a, b in self.sizes:
            weights = rng.standard_normal(4 * a * b)
            weights = weights[np.abs(weights) < 2][: a * b] / 0.87962566103423978
            parts += [weights / np.sqrt(a), np.zeros(b)]
        self.x0 = torch.tensor(np.concatenate(parts))
        self.losses = []

    def loss(self, x, X, y):
        """Sum of the losses of some rows, as a scalar tensor."""
        import torch

        z, at = X, 0
        for k, (a, b) in enumerate(self.sizes):
            weights = x[at : at + a * b].view(b, a)
            z = torch.addmm(x[at + a * b : at + a * b + b], z, weights.T)
            at += a * b + b
            if k + 1 < len(self.sizes) or self.task == "autoencode":
                z = torch.sigmoid(z)
        if self.task == "classify":
            return torch.nn.functional.cross_entropy(z, y, reduction="sum")
        return torch.sum((z - X) ** 2) / (2 * X.shape[1])

    def __call__(self, x):
        """Loss and gradient, logged."""
        import torch

        x = x.detach().requires_grad_()
        n, total, g = len(self.X), 0.0, torch.zeros_like(x)
        # in blocks: fresh memory for all rows at once costs more than the sums
        for X, y in zip(self.X.split(500), self.y.split(500), strict=True):
            value = self.loss(x, X, y) / n
            g += torch.autograd.grad(value, x)[0]
            total += float(value.detach())
        self.losses.append(total)
        return total, g


def run_deep_nets(configs, seeds, device):
    """Gradients that networks take to reach given losses."""
    for config in configs:
        for seed in seeds:
            net = Network(config["data"], config["task"], config["n"], seed)
            targets, budget = (t[config["task"]] for t in (THRESHOLDS, NET_BUDGET))
            accepted = _train_network(net, config["method"], targets[-1], budget)
            losses = np.minimum.accumulate(net.losses)
            counts = np.minimum(NET_COUNTS, len(losses))
            found = {
                "gradients": [_first(losses, t) for t in targets],
                "curve": losses[counts - 1],
                "total": len(losses),
            }
            if accepted:
                # scipy's iterations 1, 2, 4, 8, ...: gradients so far and loss
                grid = [k for k in (2**j for j in range(20)) if k <= len(accepted)]
                steps = np.array([accepted[k - 1] for k in grid])
                found["on_grid"] = [
                    next((g for g, loss in steps if loss <= t), np.nan) for t in targets
                ]
            yield config, seed, found


def _first(losses, target):
    """How many gradients it took until a loss was at most the target."""
    hit = np.flatnonzero(losses <= target)
    return float(hit[0] + 1) if len(hit) else np.nan


class _Enough(Exception):
    """The last target was reached, or the budget spent."""


def _train_network(net, method, target, budget):
    """Train; for scipy's L-BFGS-B, gradients and loss after each iteration."""
    import torch
    from scipy.optimize import minimize

    from lib.acceleration import minimize_nonconvex

    accepted = []

    def fun(x):
        if len(net.losses) >= budget:
            raise _Enough
        return net(x)

    def flat(x):
        value, g = fun(torch.from_numpy(x))
        return value, g.numpy()

    def stop(x):
        accepted.append((len(net.losses), net.losses[-1]))
        # a power of two, so that the grid of the published counts is complete
        k = len(accepted)
        if min(net.losses) <= target and (method != "l-bfgs" or k & (k - 1) == 0):
            raise _Enough

    try:
        if method == "l-bfgs":
            minimize(
                flat,
                net.x0.numpy(),
                jac=True,
                method="L-BFGS-B",
                callback=stop,
                options={"maxiter": 10**6, "maxfun": 10**6, "ftol": 0.0, "gtol": 0.0},
            )
        else:
            minimize_nonconvex(
                fun, net.x0, jac=True, method=method, tol=1e-12, callback=stop
            )
    except _Enough:
        pass
    return accepted if method == "l-bfgs" else None


def _published_count(results, threshold, key):
    """Gradient counts to one of the thresholds, one number a seed."""
    return results.values(key)[:, threshold]


def lbfgs_to_1e1(results):
    """Gradients of L-BFGS-B at the first iteration 2^j with a loss of 0.1."""
    return _published_count(results, 0, "on_grid")


def lbfgs_to_1e2(results):
    """Gradients of L-BFGS-B at the first iteration 2^j with a loss of 0.01."""
    return _published_count(results, 1, "on_grid")


def lbfgs_to_1e3(results):
    """Gradients of L-BFGS-B at the first iteration 2^j with a loss of 0.001."""
    return _published_count(results, 2, "on_grid")


def lbfgs_to_1e6(results):
    """Gradients of L-BFGS-B at the first iteration 2^j with a loss of 1e-6."""
    return _published_count(results, 3, "on_grid")


def restart_to_1e1(results):
    """Gradients to a loss of 0.1."""
    return _published_count(results, 0, "gradients")


def restart_to_1e2(results):
    """Gradients to a loss of 0.01."""
    return _published_count(results, 1, "gradients")


def restart_to_1e3(results):
    """Gradients to a loss of 0.001."""
    return _published_count(results, 2, "gradients")


def restart_to_1e6(results):
    """Gradients to a loss of 1e-6."""
    return _published_count(results, 3, "gradients")


def memory_gain(results):
    """Log gradients to the last loss, ten pairs of L-BFGS less a hundred."""
    counts = [
        np.log(results.where(method=m).values("gradients")[:, -1])
        for m in ("l-bfgs", "lbfgs-nc")
    ]
    return counts[0] - counts[1]


_GENERAL_MODULES = tuple(
    f"lib.acceleration.{name}"
    for name in (
        "oracle",
        "curvature",
        "gradient",
        "almost_convex",
        "cubic",
        "escape",
        "nonconvex",
        "testfunctions",
    )
)
_NATURAL_QUICK = [*list(NATURAL_SCIPY)[:2], "lbfgs-nc", "arc", "nag-restart"]
_NATURAL_FULL = [
    *NATURAL_SCIPY,
    "lbfgs-nc",
    "arc",
    "nag-restart",
    "restarted-agd",
    "anc-adaptive",
    "gd",
    "anc",
    "anc-tight",
    "pagd",
    "cubic-newton",
]


def _natural_grid(methods):
    """The 17 problems times some methods."""
    return tuple(
        {"family": family, "instance": instance, "method": method}
        for family, count in NATURAL.items()
        for instance in range(count)
        for method in methods
    )


_INDEX = (
    Experiment(
        name="saddle-solvers",
        summary="What scipy's solvers and ours say at an exact saddle.",
        run=run_saddle_solvers,
        quick=_grid(
            problem=["factorization"], solver=[*SCIPY_SOLVERS, *SADDLE_METHODS]
        ),
        full=_grid(
            problem=["factorization", "phase", "staircase"],
            solver=[*SCIPY_SOLVERS, *SADDLE_METHODS],
        ),
        seeds={"quick": 2, "full": 10},
        modules=_GENERAL_MODULES,
    ),
    Experiment(
        name="natural-problems",
        summary="Oracle calls of every method on 17 problems that nobody made hard.",
        run=run_natural,
        quick=_natural_grid(_NATURAL_QUICK),
        full=_natural_grid(_NATURAL_FULL),
        seeds={"quick": 2, "full": 5},
        modules=_GENERAL_MODULES,
    ),
    Experiment(
        name="deep-nets",
        summary="Gradients to given losses: a classifier and an autoencoder.",
        run=run_deep_nets,
        quick=_grid(
            data=["digits"],
            task=["classify", "autoencode"],
            n=[1000],
            method=["l-bfgs", "lbfgs-nc", "nag-restart"],
        ),
        full=_grid(
            data=["mnist"],
            task=["classify"],
            n=[10_000],
            method=["l-bfgs", "lbfgs-nc", "nag-restart", "restarted-agd"],
        )
        + _grid(
            data=["mnist"],
            task=["autoencode"],
            n=[10_000],
            method=["l-bfgs", "lbfgs-nc", "nag-restart"],
        ),
        seeds={"quick": 2, "full": 3},
        modules=_GENERAL_MODULES,
        data=("digits/train", "mnist/train"),
    ),
)

EXPERIMENTS = (*ANC_EXPERIMENTS, *_INDEX, *_MOMENTUM, *_FURTHER)
