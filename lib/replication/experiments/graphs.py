"""Experiments and metrics of the graphs wing.

Every ``run_*`` function is a generator over ``(config, seed, arrays)``. Seeds are
derived from named axes: graph, signals and starting point depend on the seed alone,
so that all methods see the same graphs and the same data.
"""

import numpy as np

from lib.replication import Experiment, seed_sequence


def _grid(**axes):
    """All combinations of the values given for each axis."""
    from itertools import product

    names = list(axes)
    return tuple(dict(zip(names, v, strict=True)) for v in product(*axes.values()))


# --- Friedman et al. 2008 ------------------------------------------------------------


def glasso_precision(structure, p, rng):
    """A precision matrix on a graph of known structure, variances one, and the graph.

    Off-diagonal entries start as minus 0.8 over the graph's norm, so that the smallest
    eigenvalue is 0.2 before the variances are scaled to one.
    """
    A = np.zeros((p, p))
    if structure == "chain":
        A = np.eye(p, k=1)
    elif structure == "hubs":  # stars of six nodes
        for k in range(0, p, 6):
            A[k, k + 1 : k + 6] = 1.0
    elif structure == "random":
        A = np.triu(rng.random((p, p)) < 3.0 / p, 1).astype(float)
    else:
        raise ValueError(f"structure must be chain, hubs or random, got {structure!r}")
    A = A + A.T
    theta = np.eye(p) - 0.8 / np.linalg.norm(A, 2) * A
    scale = np.sqrt(np.diag(np.linalg.inv(theta)))
    return theta * np.outer(scale, scale), A > 0


def glasso_signals(theta, n, rng):
    """Normal signals with this precision matrix, one a row."""
    return np.linalg.solve(
        np.linalg.cholesky(theta).T, rng.standard_normal((len(theta), n))
    ).T


def run_glasso_path(configs, seeds, device):
    """Edges found along the alpha path, by the exact problem and by separate lassos."""
    from sklearn.linear_model import lasso_path

    from lib.graphs import graphical_lasso_path

    for seed in seeds:
        for config in configs:
            structure, p, n = (config[k] for k in ("structure", "p", "n"))
            rng = np.random.default_rng(
                seed_sequence("glasso-path", structure, p, seed=seed)
            )
            theta, A = glasso_precision(structure, p, rng)
            X = glasso_signals(theta, n, rng)
            S = X.T @ X / n
            top = np.abs(S - np.diag(np.diag(S))).max()
            alphas = top * np.geomspace(1.0, 0.02, config["points"])
            path = graphical_lasso_path(S, alphas, max_iter=2000)
            found = {"exact": np.array([f["precision"] != 0 for f in path])}
            B = np.zeros((len(alphas), p, p))
            for j in range(p):
                rest = np.arange(p) != j
                _, coefs, _ = lasso_path(X[:, rest], X[:, j], alphas=alphas)
                B[:, rest, j] = coefs.T
            found["or"] = (B != 0) | (B != 0).transpose(0, 2, 1)
            found["and"] = (B != 0) & (B != 0).transpose(0, 2, 1)
            upper = np.triu_indices(p, 1)
            out = {"alpha": alphas, "converged": all(f["converged"] for f in path)}
            out["error"] = np.array(
                [np.linalg.norm(f["precision"] - theta) for f in path]
            ) / np.linalg.norm(theta)
            for name, edges in found.items():
                edges = edges[:, upper[0], upper[1]]
                out[f"{name}_hits"] = edges[:, A[upper]].sum(axis=1)
                out[f"{name}_edges"] = edges.sum(axis=1)
            yield config, seed, out | {"true_edges": A[upper].sum()}


def glasso_f1(cells, rule):
    """F1 score of the edges along the path, of shape (seeds, points)."""
    hits, edges = (cells.values(f"{rule}_{k}") for k in ("hits", "edges"))
    return 2 * hits / (edges + cells.values("true_edges")[:, None])


def glasso_neighbourhood_gap(results):
    """Best F1 along the path, exact minus separate lassos, mean over graphs, a seed."""
    gaps = []
    for config in results.configs:
        cells = results.where(**config)
        gaps.append(
            glasso_f1(cells, "exact").max(axis=1) - glasso_f1(cells, "or").max(axis=1)
        )
    return np.mean(gaps, axis=0)


def glasso_sparsifies(results):
    """Edges at a tenth of the largest penalty minus those at half of it, one a seed."""
    out = []
    for config in results.configs:
        cells = results.where(**config)
        share = cells.values("alpha")[0] / cells.values("alpha")[0, 0]
        edges = cells.values("exact_edges")
        low, high = (np.argmin(np.abs(share - s)) for s in (0.1, 0.5))
        out.append(edges[:, low] - edges[:, high])
    return np.mean(out, axis=0)


def run_glasso_recovery(configs, seeds, device):
    """How often a weak chain is found exactly, with alpha = 2.5 sqrt(log p / n)."""
    from lib.graphs import graphical_lasso_path

    for seed in seeds:
        for config in configs:
            p, n = config["p"], round(config["ratio"] * np.log(config["p"]))
            rng = np.random.default_rng(
                seed_sequence("glasso-recovery", p, n, seed=seed)
            )
            # correlations 0.2^|i - j|: weak enough that no bias adds edges
            theta = np.linalg.inv(0.2 ** abs(np.subtract.outer(*2 * [np.arange(p)])))
            A = np.eye(p, k=1) + np.eye(p, k=-1) > 0
            hits = 0
            for _ in range(config["trials"]):
                X = glasso_signals(theta, n, rng)
                alpha = 2.5 * np.sqrt(np.log(p) / n)
                (found,) = graphical_lasso_path(X.T @ X / n, [alpha])
                edges = (found["precision"] != 0) & ~np.eye(p, dtype=bool)
                hits += np.array_equal(edges, A)
            yield config, seed, {"success": hits / config["trials"], "n": n}


def glasso_half_success(results):
    """Signals for success in half of the trials, of shape (seeds, sizes), and sizes."""
    sizes = sorted({config["p"] for config in results.configs})
    out = []
    for p in sizes:
        cells = results.where(p=p)
        ratio, success = cells.curve("success", over="ratio")
        row = []
        for one in success:
            k = int(np.argmax(one >= 0.5))
            if one[k] < 0.5 or k == 0:
                row.append(np.nan)
                continue
            t = (0.5 - one[k - 1]) / (one[k] - one[k - 1])
            row.append(
                (ratio[k - 1] + t * (ratio[k] - ratio[k - 1])) * np.log(p)
            )
        out.append(row)
    return np.array(out).T, np.array(sizes)


def glasso_recovery_exponent(results):
    """Exponent in log p of the signals for success in half of the trials, a seed."""
    n, p = glasso_half_success(results)
    return np.polyfit(np.log(np.log(p)), np.log(n).T, 1)[0]


def glasso_scenario(scenario, p, n, rng):
    """Correlations of signals whose precision is a chain, or dense."""
    if scenario == "sparse":
        theta = np.eye(p) + 0.5 * (np.eye(p, k=1) + np.eye(p, k=-1))
    else:
        theta = np.eye(p) + np.ones((p, p))
    X = glasso_signals(theta, n, rng)
    S = X.T @ X / n
    scale = np.sqrt(np.diag(S))
    return S / np.outer(scale, scale), int(np.count_nonzero(np.triu(theta, 1)))


def run_glasso_scenarios(configs, seeds, device):
    """Processor seconds for the two timing scenarios, ours and scikit-learn's."""
    import time
    import warnings

    from sklearn.covariance import graphical_lasso
    from sklearn.exceptions import ConvergenceWarning

    from lib.graphs import graphical_lasso_path

    for seed in seeds:
        for config in configs:
            scenario, p = config["scenario"], config["p"]
            rng = np.random.default_rng(
                seed_sequence("glasso-scenarios", scenario, p, seed=seed)
            )
            S, edges = glasso_scenario(scenario, p, 2 * p, rng)
            target = edges if scenario == "sparse" else edges / 2
            # the largest penalty of a grid that gives as many edges as the target
            order = np.sort(np.abs(S[np.triu_indices(p, 1)]))
            for share in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5):
                alpha = share * order[len(order) - int(target)]
                start = time.process_time()
                (found,) = graphical_lasso_path(S, [alpha])
                seconds = time.process_time() - start
                have = np.count_nonzero(np.triu(found["precision"], 1))
                if have >= 0.9 * target:
                    break
            out = {
                "seconds": seconds,
                "alpha": alpha,
                "sweeps": len(found["history"]),
                "gap": found["gap"] / p,
                "edges": have,
                "target": target,
                "converged": found["converged"],
            }
            out |= dict.fromkeys(("peer_seconds", "excess", "inverse_error"), np.nan)
            if config["peer"]:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    start = time.process_time()
                    W, theta = graphical_lasso(S, alpha)
                    out["peer_seconds"] = time.process_time() - start
                size = np.abs(theta).sum() - np.trace(theta)
                sign, log_det = np.linalg.slogdet(theta)
                value = np.sum(S * theta) - log_det + alpha * size
                out["excess"] = (value - found["objective"]) / p
                out["inverse_error"] = np.abs(W @ theta - np.eye(p)).max()
            yield config, seed, out


def glasso_minute_excess(results):
    """Processor seconds beyond one minute, one a seed."""
    return results.values("seconds") - 60.0


def glasso_time_exponent(results):
    """Exponent of processor time in p over the three largest p, one a seed."""
    p, y = results.curve("seconds", over="p")
    return np.polyfit(np.log(p[-3:]), np.log(y[:, -3:]).T, 1)[0]


def glasso_peer_is_no_inverse(results):
    """Whether the peer's precision times its covariance misses I by 1e-3, a seed."""
    _, error = results.curve("inverse_error", over="p")
    return error.max(axis=1) > 1e-3


def run_glasso_generic(configs, seeds, device):
    """Processor seconds of a general convex solver for the same small problem."""
    import time

    import cvxpy as cp

    from lib.graphs import graphical_lasso_path

    for seed in seeds:
        for config in configs:
            p, alpha = config["p"], config["alpha"]
            rng = np.random.default_rng(seed_sequence("glasso-generic", p, seed=seed))
            theta, _ = glasso_precision("random", p, rng)
            X = glasso_signals(theta, 2 * p, rng)
            S = X.T @ X / (2 * p)
            start = time.process_time()
            (found,) = graphical_lasso_path(S, [alpha])
            seconds = time.process_time() - start
            T = cp.Variable((p, p), PSD=True)
            size = cp.sum(cp.abs(T)) - cp.trace(T)
            value = -cp.log_det(T) + cp.trace(S @ T) + alpha * size
            problem = cp.Problem(cp.Minimize(value))
            start = time.process_time()
            problem.solve(solver="SCS", eps=1e-5)
            generic = time.process_time() - start
            yield (
                config,
                seed,
                {
                    "seconds": seconds,
                    "generic_seconds": generic,
                    "difference": abs(problem.value - found["objective"]),
                },
            )


def glasso_generic_gain(results):
    """Log10 of the general solver's time over thirty times ours, one a seed."""
    ratio = results.values("generic_seconds") / results.values("seconds")
    return np.log10(ratio / 30.0)


def run_glasso_laplacian(configs, seeds, device):
    """Errors along alpha for a true Laplacian: S + c J against constraints."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    from lib.graphs import (
        Graphon,
        LaplacianGraphicalLasso,
        graphical_lasso_path,
        relative_error,
        sample_gmrf,
    )

    alphas = np.geomspace(3.0, 0.003, 13)
    for seed in seeds:
        for config in configs:
            p, n, method = (config[k] for k in ("p", "n", "method"))
            rng = np.random.default_rng(seed_sequence("glasso-laplacian", p, seed=seed))
            L = Graphon.erdos_renyi(0.3).sample(p, rng).laplacian
            rng = np.random.default_rng(
                seed_sequence("glasso-laplacian", p, n, seed=seed)
            )
            X = sample_gmrf(L, n, rng)
            S = X.T @ X / n
            unit = np.trace(S) / p * np.sqrt(np.log(p) / n)
            error, edges, off = [], [], ~np.eye(p, dtype=bool)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                if method == "laplacian-l1":
                    for a in alphas:
                        model = LaplacianGraphicalLasso(a * unit, assume="covariance")
                        fit = model.fit(S).laplacian_
                        error.append(relative_error(fit, L))
                        edges.append(np.count_nonzero(fit[off]) / 2)
                else:
                    J = np.full((p, p), config["shift"] / p)
                    for found in graphical_lasso_path(S + J, alphas * unit):
                        fit = found["precision"] - np.full((p, p), 1 / J.sum())
                        error.append(relative_error(fit, L))
                        edges.append(np.count_nonzero(found["precision"][off]) / 2)
            yield (
                config,
                seed,
                {
                    "alpha": alphas,
                    "error": np.array(error),
                    "edges": np.array(edges),
                    "true_edges": np.count_nonzero(L[off]) / 2,
                },
            )


def glasso_laplacian_gain(results):
    """Best error of the graphical lasso of S + J minus the constrained one's, a seed.

    Best is the value of alpha with the smallest mean error over the seeds.
    """
    a, b = (
        results.where(**choice).values("error")
        for choice in ({"method": "glasso", "shift": 1.0}, {"method": "laplacian-l1"})
    )
    return a[:, a.mean(axis=0).argmin()] - b[:, b.mean(axis=0).argmin()]


# --- Kumar et al. 2020 ---------------------------------------------------------------

KUMAR_ALPHAS = (0.01, 0.03, 0.1, 0.3)
KUMAR_METHODS = ("naive", "qp", "laplacian-mle", "laplacian-l1", "laplacian-mcp")


def kumar_graph(structure, p, rng):
    """A connected weighted graph as Kumar et al. draw them: its Laplacian.

    Weights are uniform on [0.1, 3]. "grid" is a square lattice, "modular" has four
    groups with edges at 0.3 inside and 0.01 across, "er" has edges at 0.1.
    """
    from lib.graphs import edge_index, laplacian

    i, j = edge_index(p)
    side = round(p**0.5)
    if structure == "grid":
        same_row = (i // side == j // side) & (j - i == 1)
        chance = (same_row | (j - i == side)).astype(float)
    elif structure == "modular":
        chance = np.where(4 * i // p == 4 * j // p, 0.3, 0.01)
    elif structure == "er":
        chance = np.full(len(i), 0.1)
    else:
        raise ValueError(f"structure must be grid, modular or er, got {structure!r}")
    for _ in range(10_000):
        edges = rng.random(len(i)) < chance
        L = laplacian(edges * rng.uniform(0.1, 3.0, size=len(i)))
        if np.linalg.eigvalsh(L)[1] > 1e-6:
            return L
    raise ValueError(f"no connected graph in 10,000 draws, p={p}")


def kumar_qp(S):
    """The Laplacian nearest to the pseudo-inverse of S, by projected Nesterov steps."""
    from lib.graphs import laplacian, laplacian_adjoint, laplacian_gram

    target, p = laplacian_adjoint(np.linalg.pinv(S, hermitian=True)), len(S)
    w = y = np.zeros(len(target))
    rate = (np.sqrt(p) - 1) / (np.sqrt(p) + 1)  # the condition number is p
    for _ in range(500):
        new = np.maximum(y - (laplacian_gram(y) - target) / (2 * p), 0.0)
        w, y = new, new + rate * (new - w)
    return laplacian(w)


def run_kumar_structures(configs, seeds, device):
    """Error and edges of five estimates on the structures of Kumar et al."""
    from lib.graphs import (
        LaplacianGraphicalLasso,
        edge_index,
        f_score,
        laplacian,
        relative_error,
        sample_gmrf,
    )

    for seed in seeds:
        for config in configs:
            structure, p = config["structure"], config["p"]
            rng = np.random.default_rng(seed_sequence("kumar", structure, p, seed=seed))
            truth = kumar_graph(structure, p, rng)
            n = max(2, round(config["ratio"] * p))
            X = sample_gmrf(truth, n, rng)
            S = X.T @ X / n
            i, j = edge_index(p)
            naive = np.maximum(0.0, -np.linalg.pinv(S, hermitian=True)[i, j])
            fits = {"naive": [laplacian(naive)], "qp": [kumar_qp(S)]}
            converged = []
            for name, penalty, alphas in (
                ("laplacian-mle", "l1", (0.0,)),
                ("laplacian-l1", "l1", KUMAR_ALPHAS),
                ("laplacian-mcp", "mcp", KUMAR_ALPHAS),
            ):
                models = [
                    LaplacianGraphicalLasso(
                        a, penalty, assume="covariance", tol=1e-4
                    ).fit(S)
                    for a in alphas
                ]
                fits[name] = [model.laplacian_ for model in models]
                converged += [model.converged_ for model in models]
            out = {"converged": np.mean(converged)}
            for name, found in fits.items():
                out[f"error_{name}"] = [relative_error(L, truth) for L in found]
                out[f"f_{name}"] = [f_score(L, truth) for L in found]
            yield config, seed, {k: np.asarray(v, float) for k, v in out.items()}


def kumar_tuned(cells, method, key="error"):
    """Error or F score a seed, at the alpha with the least mean error over seeds."""
    errors = cells.values(f"error_{method}").reshape(len(cells), -1)
    best = int(np.argmin(errors.mean(axis=0)))
    return cells.values(f"{key}_{method}").reshape(len(cells), -1)[:, best]


def _kumar_mean(results, number):
    """Mean over the structures and ratios of one number a seed."""
    return np.mean([number(results.where(**c)) for c in results.configs], axis=0)


def kumar_over_qp(results):
    """Error of the quadratic programme minus that of maximum likelihood."""
    return _kumar_mean(
        results, lambda c: kumar_tuned(c, "qp") - kumar_tuned(c, "laplacian-mle")
    )


def kumar_over_naive(results):
    """Error of the clipped pseudo-inverse minus that of maximum likelihood."""
    return _kumar_mean(
        results, lambda c: kumar_tuned(c, "naive") - kumar_tuned(c, "laplacian-mle")
    )


def kumar_mcp_over_l1(results):
    """F score with the concave penalty minus that with l1, both tuned by error."""
    return _kumar_mean(
        results,
        lambda c: (
            kumar_tuned(c, "laplacian-mcp", "f") - kumar_tuned(c, "laplacian-l1", "f")
        ),
    )


def kumar_error_slope(results):
    """Exponent of the error of maximum likelihood in n/p, over 10 and more."""
    cells = [results.where(**c) for c in results.configs if c["ratio"] >= 10]
    x = np.log([c.configs[0]["ratio"] for c in cells])
    y = np.log([kumar_tuned(c, "laplacian-mle") for c in cells])
    x = x - x.mean()
    return (x[:, None] * y).sum(axis=0) / (x**2).sum()


KUMAR_PATH = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


def run_kumar_densify(configs, seeds, device):
    """Edges against the weight of the l1 penalty, alone and with two cures."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    from lib.graphs import (
        Graphon,
        LaplacianGraphicalLasso,
        SpectralGraphicalLasso,
        relative_error,
        sample_gmrf,
    )

    warnings.simplefilter("ignore", ConvergenceWarning)  # the residuals are stored
    W = Graphon.quadratic()
    for seed in seeds:
        for config in configs:
            p, n, method = config["p"], config["n"], config["method"]
            rng = np.random.default_rng(seed_sequence("densify", p, n, seed=seed))
            graph = W.sample(p, rng)
            X = sample_gmrf(graph.laplacian, n, rng)
            prior = W.spectral_prior(p, graph.latents, n_mc=2)
            edges, support, errors, residuals = [], [], [], []
            for alpha in KUMAR_PATH:
                if method == "prior-true":
                    model = SpectralGraphicalLasso(
                        prior, 1.0, alpha=alpha, tol=1e-4, max_iter=1000
                    )
                else:
                    penalty = method.split("-")[1]
                    model = LaplacianGraphicalLasso(alpha, penalty)
                w = model.fit(X).weights_
                edges.append(np.sum(w > 1e-3 * w.max()))
                support.append(np.sum(w > 0))
                errors.append(relative_error(model.laplacian_, graph.laplacian))
                residuals.append(model.kkt_residual_)
            yield (
                config,
                seed,
                {
                    "edges": np.array(edges),
                    "support": np.array(support),
                    "error": np.array(errors),
                    "residual": np.array(residuals),
                    "true_edges": int(graph.adjacency.sum()) // 2,
                    "possible": p * (p - 1) // 2,
                },
            )


def _densify_change(results, method, alpha):
    edges = results.where(method=method).values("edges")
    return edges[:, KUMAR_PATH.index(alpha)] - edges[:, 0]


def densify_l1_grows(results):
    """Edges at alpha = 10 minus those at 0, one a seed."""
    return _densify_change(results, "laplacian-l1", 10.0)


def densify_l1_falls(results):
    """Edges at alpha = 0 minus those at 10, one a seed."""
    return -_densify_change(results, "laplacian-l1", 10.0)


def densify_complete(results):
    """Share of possible edges without weight at alpha = 100, one a seed."""
    cells = results.where(method="laplacian-l1")
    return 1.0 - cells.values("support")[:, -1] / cells.values("possible")


def densify_prior_falls(results):
    """Edges at alpha = 0 minus those at 10, with the spectral prior."""
    return -_densify_change(results, "prior-true", 10.0)


def densify_mcp_falls(results):
    """Edges at alpha = 0 minus those at 0.3, with the concave penalty."""
    return -_densify_change(results, "laplacian-mcp", 0.3)


def run_kumar_race(configs, seeds, device):
    """Gap to the optimum against evaluations: block MM, FISTA, quasi-Newton."""
    from lib.graphs import Graphon, laplacian_adjoint, sample_gmrf
    from lib.graphs.solvers import SOLVERS, _near_start, _objective

    W = Graphon.quadratic()
    for seed in seeds:
        for config in configs:
            p, gamma, beta = config["p"], config["gamma"], config["beta"]
            rng = np.random.default_rng(seed_sequence("race", p, seed=seed))
            graph = W.sample(p, rng)
            X = sample_gmrf(graph.laplacian, 4 * p, rng)
            cost = laplacian_adjoint(X.T @ X / len(X))
            mu = W.spectral_prior(p, graph.latents, n_mc=2).mu[1:]
            start, ends = _near_start(cost), {}
            for name, solver in SOLVERS.items():
                limit = config["sweeps"] if name == "block_mm" else 2000
                tol = {"lbfgs": 1e-7, "fista": 1e-5, "block_mm": 1e-4}[name]
                problem = _objective(cost, p, mu, gamma, beta)
                ends[name] = solver(problem, start, tol=tol, max_iter=limit)
            best = min(end.fun for end in ends.values())
            marks = np.unique(np.round(np.geomspace(1, config["sweeps"], 60)))
            out = {"marks": marks}
            for name, end in ends.items():
                gap = (end.history["objective"] - best) / abs(best)
                calls = end.history["evaluations"]
                place = np.searchsorted(calls, marks, side="right") - 1
                out[f"gap_{name}"] = gap[np.minimum(place, len(gap) - 1)]
                hit = np.flatnonzero(gap <= 1e-6)
                out[f"calls_{name}"] = calls[hit[0]] if len(hit) else np.nan
            yield config, seed, out


def race_gain(results):
    """Log10 of block MM's evaluations over the quasi-Newton ones, minus 2."""
    out = []
    for config in results.configs:
        cells = results.where(**config)
        mm = cells.values("calls_block_mm")
        # where the limit ended it, it took more than that
        mm = np.where(np.isnan(mm), config["sweeps"], mm)
        out.append(np.log10(mm / cells.values("calls_lbfgs")) - 2.0)
    return np.mean(out, axis=0)


def race_beta_exponent(results):
    """Exponent in beta of block MM's sweeps to a relative gap of 1e-6."""
    x = np.log([c["beta"] for c in results.configs])
    y = np.log([results.where(**c).values("calls_block_mm") for c in results.configs])
    x = x - x.mean()
    return (x[:, None] * y).sum(axis=0) / (x**2).sum()


def run_kumar_trap(configs, seeds, device):
    """Block MM stopped by the relative change of the weights, and where it stands."""
    from lib.graphs import (
        Graphon,
        LaplacianGraphicalLasso,
        kkt_residual,
        laplacian,
        laplacian_adjoint,
        relative_error,
        sample_gmrf,
    )
    from lib.graphs.operators import edge_index
    from lib.graphs.solvers import _objective

    W = Graphon.quadratic()
    for seed in seeds:
        for config in configs:
            p, n, beta = config["p"], config["n"], config["beta"]
            rng = np.random.default_rng(seed_sequence("trap", p, n, seed=seed))
            graph = W.sample(p, rng)
            X = sample_gmrf(graph.laplacian, n, rng)
            S = X.T @ X / n
            i, j = edge_index(p)
            w = np.maximum(0.0, -np.linalg.pinv(S, hermitian=True)[i, j])
            problem = _objective(laplacian_adjoint(S), p, None, 0.0, beta)
            change, sweeps = np.inf, 0
            while change > config["reltol"] and sweeps < config["limit"]:
                g = problem(w)[1]
                new = np.maximum(w - g / (2 * p * beta), 0.0)
                change = np.linalg.norm(new - w) / np.linalg.norm(w)
                w, sweeps = new, sweeps + 1
            best = LaplacianGraphicalLasso(assume="covariance").fit(S)
            yield (
                config,
                seed,
                {
                    "sweeps": sweeps,
                    "stopped": change <= config["reltol"],
                    "change": change,
                    "residual": kkt_residual(w, problem(w)[1]),
                    "error": relative_error(laplacian(w), graph.laplacian),
                    "error_optimum": relative_error(best.laplacian_, graph.laplacian),
                    "distance": relative_error(laplacian(w), best.laplacian_),
                },
            )


def trap_distance(results):
    """Relative distance to the optimum where the rule says that it has converged."""
    return results.values("distance")


def run_kumar_size(configs, seeds, device):
    """Processor seconds, evaluations and error against the number of nodes."""
    import time

    from lib.graphs import (
        Graphon,
        LaplacianGraphicalLasso,
        SpectralGraphicalLasso,
        relative_error,
        sample_gmrf,
    )

    W = Graphon.quadratic()
    for config in configs:
        for seed in seeds:
            p, n = config["p"], 10 * config["p"]
            rng = np.random.default_rng(seed_sequence("size", p, seed=seed))
            graph = W.sample(p, rng)
            X = sample_gmrf(graph.laplacian, n, rng)
            S = X.T @ X / n
            out = {}
            prior = W.spectral_prior(p, graph.latents, n_mc=20 if p <= 300 else 4)
            for name, model in (
                ("mle", LaplacianGraphicalLasso(assume="covariance", tol=1e-5)),
                ("map", SpectralGraphicalLasso(prior, assume="covariance", tol=1e-5)),
            ):
                start = time.process_time()
                model.fit(S, n_samples=n)
                out[f"seconds_{name}"] = time.process_time() - start
                out[f"evaluations_{name}"] = model.history_["evaluations"][-1]
                out[f"error_{name}"] = relative_error(model.laplacian_, graph.laplacian)
                out[f"gap_{name}"] = model.duality_gap_ / abs(model.objective_)
                out[f"converged_{name}"] = model.converged_
            yield config, seed, out


def _size_exponent(results, key):
    sizes = [c["p"] for c in results.configs]
    x = np.log(sizes)
    y = np.log([results.where(**c).values(key) for c in results.configs])
    x = x - x.mean()
    return (x[:, None] * y).sum(axis=0) / (x**2).sum()


def size_exponent_mle(results):
    """Exponent in p of the seconds of maximum likelihood, one a seed."""
    return _size_exponent(results, "seconds_mle")


def size_exponent_map(results):
    """Exponent in p of the seconds with the spectral prior, one a seed."""
    return _size_exponent(results, "seconds_map")


def size_gain(results):
    """Error of maximum likelihood minus that with the prior, one a seed."""
    return np.mean(
        [
            results.where(**c).values("error_mle")
            - results.where(**c).values("error_map")
            for c in results.configs
        ],
        axis=0,
    )


# --- Vizuete et al. 2021: spectra of graphs drawn from a graphon ---------------------


def graphon_of(name):
    """The graphons of the wing's experiments, by name."""
    from lib.graphs import Graphon

    return {
        "constant": lambda: Graphon.erdos_renyi(0.5),
        "blocks": lambda: Graphon.sbm([[0.8, 0.05], [0.05, 0.8]]),
        "quadratic": Graphon.quadratic,
        "band": lambda: Graphon.gaussian_band(20.0),
        "core": lambda: Graphon(
            lambda x, y: np.where(np.maximum(x, y) > 0.9, 0.9, 0.1),
            lambda x: np.where(x > 0.9, 0.9, 0.18),
        ),
        "product": lambda: Graphon(lambda x, y: x * y, lambda x: x / 2),
    }[name]()


SPECTRA_GRAPHONS = ("constant", "blocks", "quadratic", "band", "core", "product")


def run_graphon_spectra(configs, seeds, device):
    """Distance of sorted eigenvalues over p from the degree function, three ways."""
    for seed in seeds:
        for config in configs:
            W, p = graphon_of(config["graphon"]), config["p"]
            rng = np.random.default_rng(
                seed_sequence("spectra", config["graphon"], p, seed=seed)
            )
            graph = W.sample(p, rng, connected=False)
            lam = np.linalg.eigvalsh(graph.laplacian)
            lam[0] = 0.0
            x = (np.arange(8 * p) + 0.5) / (8 * p)
            d = W.degree(x).reshape(p, 8)
            rearranged = np.sort(d, axis=None).reshape(p, 8)
            steps = lam[:, None] / p
            yield (
                config,
                seed,
                {
                    "error": np.sqrt(np.mean((steps - rearranged) ** 2)),
                    "unsorted": np.sqrt(np.mean((steps - d) ** 2)),
                    "latents": np.sqrt(
                        np.mean((lam / p - np.sort(W.degree(graph.latents))) ** 2)
                    ),
                    "lambda2": lam[1] / p,
                    # Kirchhoff index over p; a graph in pieces has none
                    "resistance": np.sum(1 / lam[1:]) if lam[1] > 1e-9 * p else np.nan,
                    "inverse_degree": np.mean(1 / d),
                },
            )


def spectra_exponent(results):
    """Fitted exponent of the distance to the degree function in p, one a seed."""
    p, y = results.curve("error", over="p")
    return np.polyfit(np.log(p), np.log(y).T, 1)[0]


def spectra_fall(results):
    """Log distance at the smallest p minus that at the largest, one a seed."""
    _, y = results.curve("error", over="p")
    return np.log(y[:, 0] / y[:, -1])


def spectra_printed_margin(results):
    """Least of the printed bound's one named term minus the distance, one a seed.

    The term is the fourth root of 2 / p times the square root of the norm of W, here
    the norm of its integral operator; the least is over graphons and sizes.
    """
    grid = (np.arange(400) + 0.5) / 400
    norm = {
        name: np.linalg.eigvalsh(graphon_of(name)(grid[:, None], grid))[-1] / 400
        for name in {c["graphon"] for c in results.configs}
    }
    margin = {seed: [] for seed in results.seeds}
    for cell in results:
        term = (2 / cell.config["p"]) ** 0.25 * np.sqrt(norm[cell.config["graphon"]])
        margin[cell.seed].append(term - float(cell.data["error"]))
    return np.array([min(margin[seed]) for seed in results.seeds])


def spectra_scaled_error(results):
    """Square root of p times the distance, at the largest p, one a seed."""
    p, y = results.curve("error", over="p")
    return np.sqrt(p[-1]) * y[:, -1]


def spectra_second_eigenvalue(results):
    """Second eigenvalue over p at the largest p, one a seed."""
    return results.curve("lambda2", over="p")[1][:, -1]


def spectra_rearranged_gain(results):
    """Distance to the plain degree function minus that to the sorted one, largest p."""
    _, sorted_ = results.curve("error", over="p")
    _, plain = results.curve("unsorted", over="p")
    return plain[:, -1] - sorted_[:, -1]


def spectra_resistance_ratio(results):
    """Sum of inverse eigenvalues over the integral of 1 / d, largest p, one a seed."""
    _, measured = results.curve("resistance", over="p")
    _, predicted = results.curve("inverse_degree", over="p")
    return measured[:, -1] / predicted[:, -1]


# --- Roddenberry et al. 2021 ---------------------------------------------------------

# Every fit of the experiment on spectral templates: a prior and its weight gamma.
TEMPLATE_PRIORS = ("true", "quantiles", "constant", "oracle")
TEMPLATE_GAMMAS = (0.03, 0.3, 3.0, 30.0)
TEMPLATE_COLUMNS = (
    *((f"templates-{q}", g) for q in TEMPLATE_PRIORS for g in TEMPLATE_GAMMAS),
    ("likelihood", None),
    ("likelihood-map", None),
)


def filtered_moment(L, n, kind, rng):
    """Second moment of filtered noise; exact for n = None.

    Filters: "gmrf", the inverse root of the Laplacian, and "diffusion", exp(-L / m)
    with m the mean of the nonzero eigenvalues.
    """
    lam, U = np.linalg.eigh(L)
    lam, U = lam[1:], U[:, 1:]
    gain = lam**-0.5 if kind == "gmrf" else np.exp(-lam / lam.mean())
    if n is None:
        return (U * gain**2) @ U.T
    X = (rng.standard_normal((n, len(lam))) * gain) @ U.T
    return X.T @ X / n


def run_templates(configs, seeds, device):
    """Errors of spectral templates under several priors, and of the likelihood."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    from lib.graphs import (
        LaplacianGraphicalLasso,
        SpectralGraphicalLasso,
        SpectralPrior,
        SpectralTemplates,
        average_precision,
        relative_error,
    )

    for seed in seeds:
        for config in configs:
            name, p, n, kind = (config[k] for k in ("graphon", "p", "n", "filter"))
            W = graphon_of(name)
            rng = np.random.default_rng(seed_sequence("templates", name, p, seed=seed))
            graph = W.sample(p, rng)
            L = graph.laplacian
            lam = np.maximum(np.linalg.eigvalsh(L), 0.0)
            priors = {
                "true": W.spectral_prior(p, graph.latents, n_mc=50),
                "quantiles": W.spectral_prior(p, n_mc=2),
                "constant": W.spectral_prior(p, kind="constant", n_mc=2),
                "oracle": SpectralPrior(lam),
            }
            rng = np.random.default_rng(
                seed_sequence("templates-signals", name, p, n, kind, seed=seed)
            )
            S = filtered_moment(L, n, kind, rng)
            # the likelihood needs a scale; of diffused signals nobody knows it, and
            # they get that of signals with the prior's spectrum
            scaled = S
            if kind == "diffusion":
                scaled = S * np.sum(1 / priors["true"].mu[1:]) / np.trace(S)
            fits = []
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                for method, gamma in TEMPLATE_COLUMNS:
                    if method == "likelihood":
                        model = LaplacianGraphicalLasso(assume="covariance").fit(scaled)
                    elif method == "likelihood-map":
                        model = SpectralGraphicalLasso(
                            priors["true"], assume="covariance", tol=1e-5
                        ).fit(scaled, n_samples=n or 10**6)
                    else:
                        model = SpectralTemplates(
                            priors[method.partition("-")[2]],
                            gamma,
                            assume="covariance",
                            tol=1e-4,
                        ).fit(S)
                    fits.append(model.laplacian_)
            yield (
                config,
                seed,
                {
                    "error": np.array([relative_error(f, L) for f in fits]),
                    "ap": np.array([average_precision(f, L) for f in fits]),
                    "prior_error": np.array(
                        [np.linalg.norm((q.mu - lam)[1:]) for q in priors.values()]
                    )
                    / np.linalg.norm(lam),
                },
            )


def template_error(results, method, key="error"):
    """One number a seed: the method at its best gamma, by the mean error over seeds."""
    at = [k for k, (name, _) in enumerate(TEMPLATE_COLUMNS) if name == method]
    best = at[int(np.argmin(results.values("error")[:, at].mean(axis=0)))]
    return results.values(key)[:, best]


def template_graphon_gain(results):
    """Error with the constant prior minus that with the graphon's degrees, tuned."""
    return template_error(results, "templates-constant") - template_error(
        results, "templates-true"
    )


def template_oracle_gain(results):
    """Error with the graphon's degrees minus that with the true spectrum, tuned."""
    return template_error(results, "templates-true") - template_error(
        results, "templates-oracle"
    )


def template_likelihood_gain(results):
    """Error of the templates minus that of the likelihood with the same prior."""
    return template_error(results, "templates-true") - template_error(
        results, "likelihood-map"
    )


def template_robustness(results):
    """Error of the likelihood with the prior minus that of the templates."""
    return -template_likelihood_gain(results)


def template_noise_exponent(results):
    """Exponent in n of the error with the true spectrum, one number a seed."""
    sizes = sorted({c["n"] for c in results.configs if c["n"]})
    error = [template_error(results.where(n=n), "templates-oracle") for n in sizes]
    if len(sizes) < 2:  # the quick tier
        return np.full(len(results.seeds), np.nan)
    return np.polyfit(np.log(sizes), np.log(error), 1)[0]


# --- the report ----------------------------------------------------------------------

# Every fit of Figure 2, by its method and its tuning value. l1 and graphical lasso: in
# units of the mean variance of a signal times sqrt(log p / n). MCP: of 1 / weight.
# Priors: gamma times n; "map" and "fixed" are gamma = 2 / (n sigma^2) and gamma = 1.
FIGURE2_TUNING = {
    "laplacian-mle": (0.0,),
    "laplacian-l1": (0.1, 0.3, 0.6, 1.0, 1.5, 2.5),
    "laplacian-mcp": (0.03, 0.05, 0.1, 0.2, 0.3),
    "glasso": (0.1, 0.2, 0.3, 0.5, 1.0, 2.0),
    "prior-true": (0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    "prior-other": (0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    "prior-constant": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    "prior-spectrum": (0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    "prior-oracle": (0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
    "map-true": ("map",),
    "map-quantiles": ("map",),
    "map-other": ("map",),
    "map-constant": ("map",),
    "fixed-true": ("fixed",),
}
FIGURE2_COLUMNS = tuple((m, t) for m, ts in FIGURE2_TUNING.items() for t in ts)


def run_figure2(configs, seeds, device):
    """Relative error and ranking of every fit, on one graph and one set of signals."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    from lib.graphs import sample_gmrf

    for seed in seeds:
        known = {}
        for config in configs:
            name, n, p = config["graphon"], config["n"], config["p"]
            if name not in known:
                known[name] = _figure2_problem(name, p, seed)
            graph, priors = known[name]
            rng = np.random.default_rng(seed_sequence("signals", name, p, n, seed=seed))
            X = sample_gmrf(graph.laplacian, n, rng)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # it is stored
                yield config, seed, _figure2_fits(X, graph.laplacian, priors)


def _figure2_problem(name, p, seed):
    # A graph, and every prior on its spectrum.
    from lib.graphs import SpectralPrior

    W = graphon_of(name)
    axes = [seed_sequence(what, name, p, seed=seed) for what in ("graph", "other")]
    graph, other = (W.sample(p, np.random.default_rng(axis)) for axis in axes)
    lam = np.linalg.eigvalsh(graph.laplacian)
    lam[0] = 0.0
    priors = {
        "true": W.spectral_prior(p, graph.latents),
        "quantiles": W.spectral_prior(p),
        "spectrum": W.spectral_prior(p, kind="spectrum"),
        "constant": W.spectral_prior(p, kind="constant"),
        "other": SpectralPrior.from_graph(other.adjacency, p, n_mc=100),
        "oracle": SpectralPrior(lam),
    }
    return graph, priors


def _figure2_fits(X, truth, priors):
    from lib.graphs import average_precision, relative_error

    n, p = X.shape
    S = X.T @ X / n
    unit = np.trace(S) / p * np.sqrt(np.log(p) / n)
    found = {key: [] for key in ("error", "ap", "converged")}
    start = None
    for method, tuning in FIGURE2_COLUMNS:
        L, converged, w = _figure2_fit(S, n, unit, method, tuning, priors, start)
        start = w if start is None else start
        found["error"].append(relative_error(L, truth))
        found["ap"].append(average_precision(L, truth))
        found["converged"].append(converged)
    return {
        "error": np.array(found["error"], np.float32),
        "ap": np.array(found["ap"], np.float32),
        "converged": np.array(found["converged"]),
        "sigma2": np.array([q.sigma2 or 0.0 for q in priors.values()]),
    }


def _figure2_fit(S, n, unit, method, tuning, priors, start):
    # A Laplacian, whether it converged, and its weights. The first fit, maximum
    # likelihood, is where those with a prior start.
    from lib.graphs import (
        GraphicalLasso,
        LaplacianGraphicalLasso,
        SpectralGraphicalLasso,
    )

    kind, _, which = method.partition("-")
    if method == "glasso":
        J = np.full(S.shape, 1 / len(S))
        model = GraphicalLasso(tuning * unit, assume="covariance").fit(S + J)
        return model.precision_ - J, model.converged_, None
    if kind == "laplacian":
        model = LaplacianGraphicalLasso(
            tuning if which == "mcp" else tuning * unit,
            "mcp" if which == "mcp" else "l1",
            assume="covariance",
        ).fit(S)
    else:
        gamma = {"map": "map", "fixed": 1.0}.get(tuning) or tuning / n
        model = SpectralGraphicalLasso(
            priors[which],
            gamma,
            assume="covariance",
            init=start,
            tol=1e-4,
        ).fit(S, n_samples=n)
    return model.laplacian_, model.converged_, model.weights_


def figure2_curve(results, method, key="error", tuned_by="error"):
    """One number a seed for a method; where it is tuned, at the value best on average.

    The best value is that with the least mean error over all seeds of the results,
    which flatters every tuned method alike.
    """
    at = [k for k, (name, _) in enumerate(FIGURE2_COLUMNS) if name == method]
    best = at[int(np.argmin(results.values(tuned_by)[:, at].mean(axis=0)))]
    return results.values(key)[:, best].astype(float)


def figure2_tuning(results, method):
    """The tuning value that is best on average."""
    at = [k for k, (name, _) in enumerate(FIGURE2_COLUMNS) if name == method]
    mean = results.values("error")[:, at].mean(axis=0)
    return FIGURE2_COLUMNS[at[int(np.argmin(mean))]][1]


def _figure2_gain(results, method, over, key="error"):
    sign = 1.0 if key == "error" else -1.0
    return sign * (
        figure2_curve(results, over, key) - figure2_curve(results, method, key)
    )


def figure2_true_over_mle(results):
    """Error of maximum likelihood minus that with the true degrees, tuned."""
    return _figure2_gain(results, "prior-true", "laplacian-mle")


def figure2_true_over_l1(results):
    """Error with the l1 penalty minus that with the true degrees, both tuned."""
    return _figure2_gain(results, "prior-true", "laplacian-l1")


def figure2_true_over_glasso(results):
    """Error of the graphical lasso minus that with the true degrees, both tuned."""
    return _figure2_gain(results, "prior-true", "glasso")


def figure2_true_over_constant(results):
    """Error of the constant prior minus that of the true degrees, both tuned."""
    return _figure2_gain(results, "prior-true", "prior-constant")


def figure2_oracle_over_constant(results):
    """Error of the constant prior minus that of the true spectrum, both tuned."""
    return _figure2_gain(results, "prior-oracle", "prior-constant")


def figure2_true_over_spectrum(results):
    """Error of the mean spectrum minus that of the true degrees, both tuned."""
    return _figure2_gain(results, "prior-true", "prior-spectrum")


def figure2_other_over_mle(results):
    """Error of maximum likelihood minus that with another graph's degrees, tuned."""
    return _figure2_gain(results, "prior-other", "laplacian-mle")


def figure2_other_over_l1(results):
    """Error with the l1 penalty minus that with another graph's degrees, both tuned."""
    return _figure2_gain(results, "prior-other", "laplacian-l1")


def figure2_map_over_mle(results):
    """Error of maximum likelihood minus that with the MAP weight, nothing tuned."""
    return _figure2_gain(results, "map-quantiles", "laplacian-mle")


def figure2_map_over_l1(results):
    """Error with l1 at its usual weight minus that with the MAP weight, untuned."""
    usual = FIGURE2_COLUMNS.index(("laplacian-l1", 1.0))
    return results.values("error")[:, usual] - figure2_curve(results, "map-quantiles")


def figure2_map_loss(results):
    """Error with the MAP weight minus that with the best weight, true degrees."""
    return -_figure2_gain(results, "map-true", "prior-true")


def figure2_fixed_loss(results):
    """Error with gamma = 1 whatever n minus that of maximum likelihood."""
    return -_figure2_gain(results, "fixed-true", "laplacian-mle")


def figure2_ranking_gain(results):
    """Average precision with the true degrees minus that of maximum likelihood."""
    return _figure2_gain(results, "prior-true", "laplacian-mle", "ap")


def run_similar(configs, seeds, device):
    """Error with the degrees of another graph of any size, nothing tuned."""
    from lib.graphs import (
        LaplacianGraphicalLasso,
        SpectralGraphicalLasso,
        SpectralPrior,
        relative_error,
        sample_gmrf,
    )

    W = graphon_of("quadratic")
    for seed in seeds:
        for config in configs:
            p, n, size = (config[k] for k in ("p", "n", "size"))
            rng = np.random.default_rng(seed_sequence("similar", p, n, seed=seed))
            graph = W.sample(p, rng)
            X = sample_gmrf(graph.laplacian, n, rng)
            rng = np.random.default_rng(seed_sequence("neighbour", size, seed=seed))
            A = W.sample(size, rng).adjacency
            prior = SpectralPrior.from_graph(A, p, n_mc=50)
            fit = SpectralGraphicalLasso(prior).fit(X)
            lam = np.linalg.eigvalsh(graph.laplacian)
            yield (
                config,
                seed,
                {
                    "error": relative_error(fit.laplacian_, graph.laplacian),
                    "mle": relative_error(
                        LaplacianGraphicalLasso().fit(X).laplacian_, graph.laplacian
                    ),
                    "claimed": prior.sigma2,
                    "real": np.mean((lam - prior.mu)[1:] ** 2),
                },
            )


def similar_size_gain(results):
    """Error with the smallest other graph minus that with the largest, one a seed."""
    _, error = results.curve("error", over="size")
    return error[:, 0] - error[:, -1]


def similar_spectrum_gain(results):
    """Square error of the prior's spectrum, smallest minus largest graph."""
    _, real = results.curve("real", over="size")
    return real[:, 0] - real[:, -1]


def run_starts(configs, seeds, device):
    """Objectives and weights that random starts of one problem end at."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    from lib.graphs import SpectralGraphicalLasso, sample_gmrf

    warnings.simplefilter("ignore", ConvergenceWarning)  # the residuals are stored
    W = graphon_of("quadratic")
    for seed in seeds:
        for config in configs:
            p, gamma = config["p"], config["gamma"]
            rng = np.random.default_rng(seed_sequence("starts", p, seed=seed))
            graph = W.sample(p, rng)
            X = sample_gmrf(graph.laplacian, 2 * p, rng)
            prior = W.spectral_prior(p, graph.latents, n_mc=2)
            ends = [
                SpectralGraphicalLasso(
                    prior,
                    gamma,
                    beta=config["beta"],
                    init=rng.exponential(size=p * (p - 1) // 2),
                    max_iter=2000,
                ).fit(X)
                for _ in range(config["starts"])
            ]
            best = min(ends, key=lambda end: end.objective_)
            far = [np.linalg.norm(end.weights_ - best.weights_) for end in ends]
            yield (
                config,
                seed,
                {
                    "excess": np.array([e.objective_ for e in ends]) - best.objective_,
                    "distance": np.array(far) / np.linalg.norm(best.weights_),
                    "residual": np.array([e.kkt_residual_ for e in ends]),
                },
            )


def starts_spread(results):
    """Largest distance of a start's end from the best end, relative, one a seed."""
    return results.values("distance").max(axis=1)


def run_sweeps(configs, seeds, device):
    """The report's sweep, step by step, with the prior sorted or in drawn order."""
    from lib.graphs import (
        laplacian,
        laplacian_adjoint,
        relative_error,
        sample_gmrf,
    )

    W = graphon_of("quadratic")
    for seed in seeds:
        for config in configs:
            p, n, beta = config["p"], config["n"], config["beta"]
            rng = np.random.default_rng(seed_sequence("sweeps", p, n, seed=seed))
            graph = W.sample(p, rng)
            X = sample_gmrf(graph.laplacian, n, rng)
            S = X.T @ X / n
            mu = p * W.degree(graph.latents)
            mu = np.sort(mu) if config["order"] == "sorted" else mu
            gamma = config["gamma"]
            cost = laplacian_adjoint(S)
            w = np.full(len(cost), (p - 1) / cost.sum())
            lam, U = np.linalg.eigh(laplacian(w))
            lam[0] = 0.0

            def objective(w, U, lam, beta=beta, gamma=gamma, mu=mu, cost=cost):
                fit = laplacian(w) - (U * lam) @ U.T
                return (
                    -np.log(lam[1:]).sum()
                    + cost @ w
                    + beta / 2 * np.sum(fit**2)
                    + gamma / 2 * np.sum((lam - mu)[1:] ** 2)
                )

            values, rises = [objective(w, U, lam)], []
            for _ in range(config["sweeps"]):
                Z = (U * lam) @ U.T
                slope = laplacian_adjoint(laplacian(w) - Z + S / beta)
                w = np.maximum(0.0, w - slope / (2 * p))
                values.append(objective(w, U, lam))
                sigma, U = np.linalg.eigh(laplacian(w))
                values.append(objective(w, U, lam))
                rises.append(values[-1] - values[-2])
                d = (beta * sigma + gamma * mu) / (beta + gamma)
                lam = (d + np.sqrt(d**2 + 4 / (beta + gamma))) / 2
                lam[0] = 0.0
                values.append(objective(w, U, lam))
            yield (
                config,
                seed,
                {
                    "largest_rise": np.max(np.diff(values)),
                    "rising_u_steps": np.mean(np.array(rises) > 1e-9),
                    "error": relative_error(laplacian(w), graph.laplacian),
                },
            )


def sweeps_largest_rise(results):
    """Largest increase of the objective in any of the three steps, one a seed."""
    return results.values("largest_rise")


def sweeps_sorting_gain(results):
    """Error with the prior in drawn order minus that with it sorted, one a seed."""
    drawn, sorted_ = (
        results.where(order=order).values("error") for order in ("drawn", "sorted")
    )
    return drawn - sorted_


# --- open questions ------------------------------------------------------------------


def hard_threshold(w, k):
    """The k largest entries of w, the others zero."""
    kept = np.zeros_like(w)
    top = np.argsort(w)[len(w) - k :]
    kept[top] = w[top]
    return kept


def iterative_hard_thresholding(S, w, k, steps=300):
    """Projected gradient steps on the k-sparse weights, shortened until F falls."""
    from lib.graphs import spectral_objective

    def value_and_slope(w):
        f, g, _ = spectral_objective(w, S, beta=np.inf)
        return (f if np.isfinite(f) else np.inf), g

    w = hard_threshold(w, k)
    (f, g), size, values = value_and_slope(w), 1.0, []
    values.append(f)
    for _ in range(steps):
        while size > 1e-12:
            new = hard_threshold(np.maximum(w - size * g, 0.0), k)
            f_new, g_new = value_and_slope(new)
            if f_new < f - 1e-4 / size * np.sum((new - w) ** 2):
                break
            size /= 2
        else:
            break
        done = f - f_new < 1e-10 * abs(f)
        w, f, g, size = new, f_new, g_new, 2 * size
        values.append(f)
        if done:
            break
    return w, np.array(values)


def run_open_sparse(configs, seeds, device):
    """F1 and error with k edges: refitting the largest, thresholding steps, MCP."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    from lib.graphs import (
        LaplacianGraphicalLasso,
        f_score,
        laplacian,
        relative_error,
        sample_gmrf,
    )

    W = graphon_of("quadratic")
    for seed in seeds:
        for config in configs:
            p, n = config["p"], config["n"]
            rng = np.random.default_rng(seed_sequence("open-sparse", p, seed=seed))
            graph = W.sample(p, rng)
            L = graph.laplacian
            rng = np.random.default_rng(seed_sequence("open-sparse", p, n, seed=seed))
            S = sample_gmrf(L, n, rng)
            S = S.T @ S / n
            k = int(graph.adjacency.sum() / 2)
            expected = max(round(p * (p - 1) / 2 * W.degree(_middles()).mean()), p - 1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)

                def fit(S=S, **options):
                    model = LaplacianGraphicalLasso(assume="covariance", **options)
                    return model.fit(S)

                dense, refit = fit(), fit(n_edges=k)
                w, values = iterative_hard_thresholding(S, refit.weights_, k)
                cold, cold_values = iterative_hard_thresholding(S, dense.weights_, k)
                found = {
                    "threshold": dense.laplacian_,
                    "refit": refit.laplacian_,
                    "iht": laplacian(cold),
                    "iht-polish": laplacian(w),
                    "expected": fit(n_edges=expected).laplacian_,
                    "mcp": fit(alpha=0.3, penalty="mcp").laplacian_,
                }
            out = {f"{m}_f1": f_score(A, L) for m, A in found.items()}
            out |= {f"{m}_error": relative_error(A, L) for m, A in found.items()}
            out["largest_rise"] = max(
                np.diff(v).max(initial=0.0) for v in (values, cold_values)
            )
            yield config, seed, out | {"k": k, "expected": expected}


def _middles(points=2000):
    return (np.arange(points) + 0.5) / points


def open_iht_gap(results):
    """F1 of thresholding steps minus that of refitting the largest weights, a seed."""
    return results.values("iht_f1") - results.values("refit_f1")


def open_iht_rise(results):
    """Largest rise of the objective in any thresholding step, one a cell."""
    return np.array([float(cell.data["largest_rise"]) for cell in results])


def open_sparse_gain(results):
    """F1 with the true number of edges minus that of a threshold of 0.1, a seed."""
    return results.values("refit_f1") - results.values("threshold_f1")


def run_open_size(configs, seeds, device):
    """Error and processor time with and without the prior, ten signals a node."""
    import time
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    from lib.graphs import (
        LaplacianGraphicalLasso,
        SpectralGraphicalLasso,
        relative_error,
        sample_gmrf,
    )

    W = graphon_of("quadratic")
    for config in configs:
        for seed in seeds:
            p = config["p"]
            rng = np.random.default_rng(seed_sequence("open-size", p, seed=seed))
            graph = W.sample(p, rng)
            X = sample_gmrf(graph.laplacian, 10 * p, rng)
            prior = W.spectral_prior(p, graph.latents, n_mc=10)
            out = {"sigma2": prior.sigma2}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                start = None
                for name in ("mle", "prior"):
                    begin = time.process_time()
                    if name == "mle":
                        model = LaplacianGraphicalLasso(tol=1e-5).fit(X)
                    else:
                        model = SpectralGraphicalLasso(
                            prior, init=start, tol=1e-5
                        ).fit(X)
                    out[f"{name}_seconds"] = time.process_time() - begin
                    out[f"{name}_converged"] = model.converged_
                    out[f"{name}_error"] = relative_error(
                        model.laplacian_, graph.laplacian
                    )
                    start = model.weights_
            yield config, seed, out


def open_size_gain(results):
    """Share of the error that the prior removes, of shape (seeds, sizes), and sizes."""
    p, mle = results.curve("mle_error", over="p")
    _, prior = results.curve("prior_error", over="p")
    return 1 - prior / mle, p


def open_size_fades(results):
    """Share removed at the smallest p minus that at the largest, one a seed."""
    gain, _ = open_size_gain(results)
    return gain[:, 0] - gain[:, -1]


def open_size_exponent(results):
    """Exponent in p of the processor time of maximum likelihood, one a seed."""
    p, seconds = results.curve("mle_seconds", over="p")
    return np.polyfit(np.log(p), np.log(seconds).T, 1)[0]


def run_open_joint(configs, seeds, device):
    """Mean error over K graphs: alone, pooled, pooled without bias, graphon known.

    The control "own" gives each graph its own spectrum without bias as the prior, with
    the weight of the pool.
    """
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    from lib.graphs import (
        JointSpectralGraphicalLasso,
        LaplacianGraphicalLasso,
        SpectralGraphicalLasso,
        relative_error,
        sample_gmrf,
    )

    W = graphon_of("quadratic")
    for seed in seeds:
        for config in configs:
            p, n, K = (config[k] for k in ("p", "n", "K"))
            rng = np.random.default_rng(seed_sequence("open-joint", p, n, seed=seed))
            graphs = [W.sample(p, rng).laplacian for _ in range(K)]
            data = [sample_gmrf(L, n, rng) for L in graphs]
            lam = np.array([np.linalg.eigvalsh(L) for L in graphs]).mean(axis=0)
            lam[0] = 0.0
            prior = W.spectral_prior(p)
            draw = int(rng.integers(2**31))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                alone = [LaplacianGraphicalLasso(tol=1e-5).fit(X) for X in data]
                fits = {
                    "mle": [m.laplacian_ for m in alone],
                    "known": [
                        SpectralGraphicalLasso(prior, init=m.weights_, tol=1e-5)
                        .fit(X)
                        .laplacian_
                        for m, X in zip(alone, data, strict=True)
                    ],
                }
                spectra = {"known_mu": prior.mu}
                for name, debias in (("naive", "none"), ("bootstrap", "bootstrap")):
                    model = JointSpectralGraphicalLasso(
                        debias, tol=1e-5, random_state=draw
                    ).fit(data)
                    fits[name] = model.laplacians_
                    spectra[f"{name}_mu"] = model.prior_.mu
                rng = np.random.default_rng(draw)
                fits["own"] = [
                    SpectralGraphicalLasso(
                        _own_prior(m, n, model.prior_.sigma2, rng),
                        init=m.weights_,
                        tol=1e-5,
                    )
                    .fit(X)
                    .laplacian_
                    for m, X in zip(alone, data, strict=True)
                ]
            out = {
                f"{name}_error": np.mean(
                    [relative_error(a, L) for a, L in zip(found, graphs, strict=True)]
                )
                for name, found in fits.items()
            }
            yield config, seed, out | spectra | {"true_mu": lam}


def _own_prior(fit, n, sigma2, rng, repeats=5):
    # The spectrum of one fitted graph, less its bias by a parametric bootstrap.
    from lib.graphs import LaplacianGraphicalLasso, SpectralPrior, sample_gmrf

    again = [
        LaplacianGraphicalLasso(tol=1e-5).fit(sample_gmrf(fit.laplacian_, n, rng))
        for _ in range(repeats)
    ]
    mean = np.mean([one.eigenvalues_ for one in again], axis=0)
    mu = np.sort(np.maximum(2 * fit.eigenvalues_ - mean, 0.0))
    mu[0] = 0.0
    return SpectralPrior(mu, sigma2)


def open_joint_over_own(results):
    """Error with each graph's own spectrum without bias minus that with the pool's."""
    return results.values("own_error") - results.values("bootstrap_error")


def open_joint_naive_gain(results):
    """Error alone minus that with the plain pooled spectrum, one a seed."""
    return results.values("mle_error") - results.values("naive_error")


def open_joint_gain(results):
    """Error alone minus that with the pooled spectrum without bias, one a seed."""
    return results.values("mle_error") - results.values("bootstrap_error")


def open_joint_price(results):
    """Error with the pooled spectrum without bias minus that with the graphon known."""
    return results.values("bootstrap_error") - results.values("known_error")


REAL_GAMMAS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # times 1 / n
REAL_ALPHAS = (0.0, 0.1, 0.3, 1.0, 3.0)  # times mean variance, root of log p / n
REAL_COLUMNS = (
    *(("l1", a) for a in REAL_ALPHAS),
    *(("degrees", g) for g in REAL_GAMMAS),
    *(("constant", g) for g in REAL_GAMMAS),
)


def real_graph(name):
    """Laplacian of a graph that networkx carries: karate, miserables or florentine."""
    import networkx as nx

    graph = {
        "karate": nx.karate_club_graph,
        "miserables": nx.les_miserables_graph,
        "florentine": nx.florentine_families_graph,
    }[name]()
    return nx.laplacian_matrix(graph, weight=None).toarray().astype(float)


def run_open_real(configs, seeds, device):
    """Error on real graphs: l1, and the graph's own degrees or a constant as prior."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    from lib.graphs import (
        LaplacianGraphicalLasso,
        SpectralGraphicalLasso,
        SpectralPrior,
        relative_error,
        sample_gmrf,
    )

    for seed in seeds:
        for config in configs:
            L = real_graph(config["graph"])
            p = len(L)
            n = round(config["ratio"] * p)
            rng = np.random.default_rng(
                seed_sequence("open-real", config["graph"], n, seed=seed)
            )
            X = sample_gmrf(L, n, rng)
            S = X.T @ X / n
            unit = np.trace(S) / p * np.sqrt(np.log(p) / n)
            degrees = np.sort(np.diag(L))
            degrees[0] = 0.0
            priors = {
                "degrees": SpectralPrior(degrees),
                "constant": SpectralPrior(np.r_[0.0, np.full(p - 1, np.trace(L) / p)]),
            }
            error, start = [], None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                for method, tuning in REAL_COLUMNS:
                    if method == "l1":
                        model = LaplacianGraphicalLasso(
                            tuning * unit, assume="covariance", tol=1e-5
                        )
                    else:
                        model = SpectralGraphicalLasso(
                            priors[method],
                            tuning / n,
                            assume="covariance",
                            init=start,
                            tol=1e-4,
                        )
                    model.fit(S, n_samples=n)
                    start = model.weights_ if start is None else start
                    error.append(relative_error(model.laplacian_, L))
            yield config, seed, {"error": np.array(error)}


def real_error(results, method):
    """One number a seed: the method at the tuning best on average."""
    at = [k for k, (name, _) in enumerate(REAL_COLUMNS) if name == method]
    values = results.values("error")[:, at]
    return values[:, values.mean(axis=0).argmin()]


def open_real_gain(results):
    """Error with l1 minus that with the degrees, both tuned, mean over graphs."""
    return _real_difference(results, "l1", "degrees")


def open_real_over_constant(results):
    """Error with a constant minus that with the degrees, tuned, mean over graphs."""
    return _real_difference(results, "constant", "degrees")


def _real_difference(results, worse, better):
    gaps = []
    for config in results.configs:
        cells = results.where(**config)
        gaps.append(real_error(cells, worse) - real_error(cells, better))
    return np.mean(gaps, axis=0)


def run_open_data(configs, seeds, device):
    """Real signals: pixels against the grid, held-out likelihood of breast cancer."""
    import warnings

    from sklearn.datasets import load_breast_cancer, load_digits
    from sklearn.exceptions import ConvergenceWarning

    from lib.graphs import (
        GraphicalLasso,
        LaplacianGraphicalLasso,
        SpectralGraphicalLasso,
        average_precision,
    )

    for seed in seeds:
        for config in configs:
            name, n = config["data"], config["n"]
            rng = np.random.default_rng(seed_sequence("open-data", name, n, seed=seed))
            raw = load_digits().data if name == "digits" else load_breast_cancer().data
            order = rng.permutation(len(raw))
            train, test = raw[order[:n]], raw[order[n:]]
            out = {}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                if name == "digits":
                    # pixels that are always empty get a little noise, as all others
                    X = train + rng.standard_normal(train.shape)
                    X = X - X.mean(axis=0)
                    grid = pixel_grid()
                    model = LaplacianGraphicalLasso(tol=1e-4).fit(X)
                    out["mle"] = average_precision(model.laplacian_, grid)
                    model = SpectralGraphicalLasso(tol=1e-4).fit(X)
                    out["constant"] = average_precision(model.laplacian_, grid)
                    scaled = X / X.std(axis=0)
                    model = LaplacianGraphicalLasso(tol=1e-4).fit(scaled)
                    out["scaled"] = average_precision(model.laplacian_, grid)
                    model = GraphicalLasso(0.1, max_iter=500).fit(scaled)
                    out["glasso"] = average_precision(model.precision_, grid)
                    out["covariance"] = average_precision(-np.corrcoef(X.T), grid)
                    out["blind"] = np.mean(grid[np.triu_indices(64, 1)] != 0)
                else:
                    centre, scale = train.mean(axis=0), train.std(axis=0)
                    X, Y = ((part - centre) / scale for part in (train, test))
                    X, Y = (Z - Z.mean(axis=1, keepdims=True) for Z in (X, Y))
                    fit = LaplacianGraphicalLasso(tol=1e-5).fit(X)
                    out["mle"] = -fit.score(Y)
                    unit = np.sqrt(np.log(30) / n)
                    out["l1"] = min(
                        -LaplacianGraphicalLasso(a * unit, tol=1e-5).fit(X).score(Y)
                        for a in (0.01, 0.03, 0.1, 0.3)
                    )
                    constant = SpectralGraphicalLasso(init=fit.weights_, tol=1e-5)
                    out["constant"] = -constant.fit(X).score(Y)
            yield config, seed, out


def pixel_grid():
    """Laplacian of the 8 x 8 grid of pixels."""
    path = np.diag(np.r_[1.0, np.full(6, 2.0), 1.0]) - np.eye(8, k=1) - np.eye(8, k=-1)
    return np.kron(path, np.eye(8)) + np.kron(np.eye(8), path)


def open_pixels_gain(results):
    """Average precision of the grid's edges minus that of a blind ranking, a seed."""
    return results.values("mle") - results.values("blind")


def open_pixels_over_correlation(results):
    """Average precision of the Laplacian's edges minus that of plain correlations."""
    return results.values("mle") - results.values("covariance")


def open_scaled_over_correlation(results):
    """The same for pixels that were standardised first."""
    return results.values("scaled") - results.values("covariance")


def open_held_out_gain(results):
    """Held-out negative log-likelihood without prior minus that with it, a seed."""
    return results.values("mle") - results.values("constant")


# --- the experiments -----------------------------------------------------------------

_GRAPHS_FITS = (
    "lib.graphs.graphon",
    "lib.graphs.operators",
    "lib.graphs.objective",
    "lib.graphs.solvers",
    "lib.graphs.estimators",
    "lib.graphs.spectral",
    "lib.graphs.graphical_lasso",
    "lib.graphs.metrics",
)

_GLASSO = ("lib.graphs.graphical_lasso",)

_KUMAR = (
    "lib.graphs.graphon",
    "lib.graphs.operators",
    "lib.graphs.objective",
    "lib.graphs.solvers",
    "lib.graphs.estimators",
    "lib.graphs.spectral",
    "lib.graphs.metrics",
)

EXPERIMENTS = (
    # Friedman et al. 2008
    Experiment(
        name="glasso-path",
        summary="Edges along the alpha path: exact problem against separate lassos.",
        run=run_glasso_path,
        quick=_grid(
            structure=["chain", "hubs", "random"], p=[30], n=[60, 300], points=[12]
        ),
        full=_grid(
            structure=["chain", "hubs", "random"],
            p=[30, 60],
            n=[20, 60, 300],
            points=[30],
        ),
        seeds={"quick": 5, "full": 26},
        modules=_GLASSO,
    ),
    Experiment(
        name="glasso-recovery",
        summary="Share of exact recoveries of a chain against n / log p.",
        run=run_glasso_recovery,
        quick=_grid(p=[16, 32, 64], ratio=[100, 200, 300, 400, 500, 600], trials=[10]),
        full=_grid(
            p=[16, 32, 64, 128, 256],
            ratio=[100, 150, 200, 250, 300, 350, 400, 450, 500, 600],
            trials=[50],
        ),
        seeds={"quick": 3, "full": 5},
        modules=_GLASSO,
    ),
    Experiment(
        name="glasso-scenarios",
        summary="Processor time of the sparse and the dense timing scenario.",
        run=run_glasso_scenarios,
        quick=_grid(scenario=["sparse", "dense"], p=[25, 50, 100], peer=[True]),
        full=_grid(scenario=["sparse", "dense"], p=[50, 100, 200, 400], peer=[True])
        + _grid(scenario=["sparse"], p=[1000], peer=[False]),
        seeds={"quick": 3, "full": 5},
        modules=_GLASSO,
    ),
    Experiment(
        name="glasso-generic",
        summary="Processor time of a general convex solver over that of column steps.",
        run=run_glasso_generic,
        quick=_grid(p=[15], alpha=[0.2]),
        full=_grid(p=[15, 30, 60], alpha=[0.2]),
        seeds={"quick": 3, "full": 5},
        modules=_GLASSO,
    ),
    Experiment(
        name="glasso-laplacian",
        summary="Where the truth is a Laplacian: graphical lasso of S + c J.",
        run=run_glasso_laplacian,
        quick=_grid(p=[30], n=[60], method=["glasso"], shift=[1.0, 100.0])
        + _grid(p=[30], n=[60], method=["laplacian-l1"], shift=[None]),
        full=_grid(p=[30], n=[30, 60, 300], method=["glasso"], shift=[1.0, 10.0, 100.0])
        + _grid(p=[30], n=[30, 60, 300], method=["laplacian-l1"], shift=[None]),
        seeds={"quick": 5, "full": 50},
        modules=_GRAPHS_FITS,
    ),
    # Kumar et al. 2020
    # Kumar et al. 2020
    Experiment(
        name="kumar-structures",
        summary="Error and edges on grid, modular and Erdos-Renyi graphs against n/p.",
        run=run_kumar_structures,
        quick=_grid(
            structure=["grid", "modular", "er"], p=[25], ratio=[0.5, 10.0, 100.0]
        ),
        full=_grid(
            structure=["grid", "modular", "er"],
            p=[64],
            ratio=[0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 100.0, 300.0],
        ),
        seeds={"quick": 3, "full": 10},
        modules=_KUMAR,
    ),
    Experiment(
        name="kumar-densify",
        summary="Edges against the l1 weight: alone, concave, with a spectral prior.",
        run=run_kumar_densify,
        quick=_grid(
            p=[15], n=[30], method=["laplacian-l1", "laplacian-mcp", "prior-true"]
        ),
        full=_grid(
            p=[30], n=[60], method=["laplacian-l1", "laplacian-mcp", "prior-true"]
        ),
        seeds={"quick": 3, "full": 20},
        modules=_KUMAR,
    ),
    Experiment(
        name="kumar-race",
        summary="Gap against evaluations: block MM, FISTA and quasi-Newton.",
        run=run_kumar_race,
        quick=_grid(p=[10], gamma=[0.0, 0.5], beta=[1.0, 2.0], sweeps=[6000]),
        full=_grid(p=[10], gamma=[0.0, 0.5], beta=[1.0, 10.0, 100.0], sweeps=[400_000]),
        seeds={"quick": 2, "full": 5},
        modules=_KUMAR,
    ),
    Experiment(
        name="kumar-trap",
        summary="Block MM stopped by the change of the weights, against beta.",
        run=run_kumar_trap,
        quick=_grid(
            p=[30],
            n=[60],
            beta=[1.0, 10.0, 100.0, 1e3, 1e4],
            reltol=[1e-4],
            limit=[2000],
        ),
        full=_grid(
            p=[30],
            n=[60],
            beta=[1.0, 10.0, 100.0, 1e3, 1e4],
            reltol=[1e-4],
            limit=[20_000],
        ),
        seeds={"quick": 3, "full": 20},
        modules=_KUMAR,
    ),
    Experiment(
        name="kumar-size",
        summary="Processor seconds and error against the number of nodes, n = 10 p.",
        run=run_kumar_size,
        quick=_grid(p=[30, 100, 300]),
        full=_grid(p=[30, 100, 300, 1000]),
        seeds={"quick": 2, "full": 3},
        modules=_KUMAR,
    ),
    # Vizuete et al. 2021
    Experiment(
        name="graphon-spectra",
        summary="Laplacian eigenvalues of sampled graphs against the degree function.",
        run=run_graphon_spectra,
        quick=_grid(graphon=SPECTRA_GRAPHONS, p=[30, 60, 125, 250]),
        full=_grid(graphon=SPECTRA_GRAPHONS, p=[30, 60, 125, 250, 500, 1000, 2000]),
        seeds={"quick": 20, "full": 60},
        modules=("lib.graphs.graphon",),
    ),
    # Roddenberry et al. 2021
    Experiment(
        name="templates-graphon",
        summary="Spectral templates under four priors, two filters, many sizes.",
        run=run_templates,
        quick=_grid(
            graphon=["quadratic"], p=[30], n=[30, 300, None], filter=["gmrf"]
        )
        + _grid(graphon=["quadratic"], p=[30], n=[300], filter=["diffusion"]),
        full=_grid(
            graphon=["quadratic"],
            p=[30],
            n=[30, 100, 300, 1000, 3000, 30_000, None],
            filter=["gmrf", "diffusion"],
        )
        + _grid(
            graphon=["blocks", "core"], p=[30], n=[30, 300, 3000, None], filter=["gmrf"]
        ),
        seeds={"quick": 4, "full": 40},
        modules=(*_GRAPHS_FITS, "lib.graphs.templates"),
    ),
    # the report
    Experiment(
        name="laplacian-figure2",
        summary="Error and edge ranking of all methods against the number of signals.",
        run=run_figure2,
        quick=_grid(graphon=["quadratic"], p=[30], n=[15, 60, 300]),
        full=_grid(
            graphon=["quadratic"], p=[30], n=[15, 30, 60, 150, 300, 600, 1500, 3000]
        ),
        seeds={"quick": 5, "full": 100},
        modules=_GRAPHS_FITS,
    ),
    Experiment(
        name="laplacian-families",
        summary="The methods of Figure 2 on graphs of three other graphons.",
        run=run_figure2,
        quick=_grid(graphon=["blocks", "band", "core"], p=[30], n=[60]),
        full=_grid(graphon=["blocks", "band", "core"], p=[30], n=[60]),
        seeds={"quick": 5, "full": 40},
        modules=_GRAPHS_FITS,
    ),
    Experiment(
        name="laplacian-similar",
        summary="Degrees of another graph as the prior, against its number of nodes.",
        run=run_similar,
        quick=_grid(p=[30], n=[60], size=[15, 120]),
        full=_grid(p=[30], n=[60], size=[15, 30, 60, 120, 240, 480]),
        seeds={"quick": 5, "full": 60},
        modules=_GRAPHS_FITS,
    ),
    Experiment(
        name="laplacian-starts",
        summary="Where random starts of one problem end, with and without a prior.",
        run=run_starts,
        quick=_grid(p=[8, 30], gamma=[0.0, 0.03, 1.0], beta=[10.0], starts=[3]),
        full=_grid(p=[8, 30], gamma=[0.0, 0.03, 1.0], beta=[10.0], starts=[10]),
        seeds={"quick": 2, "full": 10},
        modules=_GRAPHS_FITS,
    ),
    Experiment(
        name="laplacian-sweeps",
        summary="The report's three steps, prior sorted or as drawn: does F fall?",
        run=run_sweeps,
        quick=_grid(
            p=[30],
            n=[60],
            beta=[10.0],
            gamma=[0.03],
            order=["sorted", "drawn"],
            sweeps=[300],
        ),
        full=_grid(
            p=[30],
            n=[60],
            beta=[10.0],
            gamma=[0.03],
            order=["sorted", "drawn"],
            sweeps=[2000],
        ),
        seeds={"quick": 5, "full": 20},
        modules=("lib.graphs.graphon", "lib.graphs.operators", "lib.graphs.metrics"),
    ),
    # open questions
    Experiment(
        name="open-sparse",
        summary="A fixed number of edges: refit, hard-thresholding steps, MCP.",
        run=run_open_sparse,
        quick=_grid(p=[30], n=[60, 300]),
        full=_grid(p=[30], n=[60, 300, 1500]),
        seeds={"quick": 5, "full": 30},
        modules=_GRAPHS_FITS,
    ),
    Experiment(
        name="open-size",
        summary="Error and time against the number of nodes, ten signals a node.",
        run=run_open_size,
        quick=_grid(p=[15, 30, 60]),
        full=_grid(p=[30, 60, 100, 200, 300, 1000]),
        seeds={"quick": 5, "full": 5},
        modules=_GRAPHS_FITS,
    ),
    Experiment(
        name="open-joint",
        summary="Graphs of one unknown graphon: pooled spectra, with and without bias.",
        run=run_open_joint,
        quick=_grid(p=[30], n=[60], K=[10]),
        full=_grid(p=[30], n=[60, 300], K=[2, 5, 10]),
        seeds={"quick": 3, "full": 10},
        modules=(*_GRAPHS_FITS, "lib.graphs.joint"),
    ),
    Experiment(
        name="open-real",
        summary="Karate, Les Miserables and Florentine families as true graphs.",
        run=run_open_real,
        quick=_grid(graph=["karate", "florentine"], ratio=[2.0]),
        full=_grid(
            graph=["karate", "miserables", "florentine"], ratio=[1.0, 2.0, 10.0]
        ),
        seeds={"quick": 3, "full": 10},
        modules=_GRAPHS_FITS,
    ),
    Experiment(
        name="open-data",
        summary="Digit pixels and breast cancer: grid edges, held-out likelihood.",
        run=run_open_data,
        quick=_grid(data=["digits"], n=[500]) + _grid(data=["cancer"], n=[60]),
        full=_grid(data=["digits"], n=[200, 500, 1000])
        + _grid(data=["cancer"], n=[60, 120, 280]),
        seeds={"quick": 3, "full": 20},
        modules=_GRAPHS_FITS,
    ),
)
