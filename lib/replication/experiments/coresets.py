"""Experiments and metrics of the coresets wing.

Every ``run_*`` function is a generator over ``(config, seed, arrays)``. Seeds are
derived from named axes: data, splits and orders depend on the seed and the set alone,
so that all strategies see the same ones.
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


# --- CRAIG: one selection for a convex loss ------------------------------------------


def even_or_odd(data, n, seed):
    """Images with a column of ones, labelled 1 if the digit is even and else -1.

    Returns the points and labels of the training and of the test set.
    """
    from lib.data import load

    X, digit = load(data, flatten=True)
    rng = np.random.default_rng(seed_sequence("even or odd", data, n, seed=seed))
    order = rng.permutation(len(X))[: n + n // 3]
    X = np.column_stack([X[order].astype(float), np.ones(len(order))])
    y = np.where(digit[order] % 2 == 0, 1.0, -1.0)
    return X[:n], y[:n], X[n:], y[n:]


def logistic_gradients(w, X, y, ridge):
    """Gradients of every sample's logistic loss with its share of the ridge, (n, d)."""
    slope = -y / (1 + np.exp(np.clip(y * (X @ w), -500, 500)))
    return slope[:, None] * X + ridge * w


def logistic_loss(w, X, y, ridge, weights):
    """Weighted sum of logistic losses with their ridges, and its gradient."""
    margin = y * (X @ w)
    value = weights @ np.logaddexp(0, -margin) + 0.5 * ridge * weights.sum() * (w @ w)
    slope = -y * weights / (1 + np.exp(np.clip(margin, -500, 500)))
    return value, X.T @ slope + ridge * weights.sum() * w


def logistic_minimum(X, y, ridge, weights):
    """Minimiser of the weighted loss."""
    from scipy.optimize import minimize

    options = {"maxiter": 5000, "maxfun": 10**5, "gtol": 1e-8, "ftol": 1e-15}
    start = np.zeros(X.shape[1])
    arguments = (X, y, ridge, weights)
    method = "L-BFGS-B"
    return minimize(
        logistic_loss, start, arguments, method, jac=True, options=options
    ).x


def pick(method, X, y, k, rng):
    """Indices and weights of a subset of k points; the weights sum to n."""
    from lib.coresets import craig

    if method == "craig":
        chosen = craig(X, k, y=(y > 0).astype(np.int64))
        return np.asarray(chosen.indices), np.asarray(chosen.weights, dtype=float)
    if method == "craig-equal":
        indices = np.asarray(craig(X, k, y=(y > 0).astype(np.int64)).indices)
    else:
        indices = rng.choice(len(y), k, replace=False)
    return indices, np.full(k, len(y) / k)


def run_craig_convex(configs, seeds, device):
    """Logistic regression on a subset of the points, chosen once.

    Distance of its minimiser from that of all points, and what bounds it.
    """
    for seed in seeds:
        known = {}
        for config in configs:
            data, n, ridge = config["data"], config["n"], config["ridge"]
            if (data, n, ridge) not in known:
                X, y, X_test, y_test = even_or_odd(data, n, seed)
                best = logistic_minimum(X, y, ridge, np.ones(n))
                known[data, n, ridge] = X, y, X_test, y_test, best
            X, y, X_test, y_test, best = known[data, n, ridge]
            method, share = config["method"], config["share"]
            rng = np.random.default_rng(
                seed_sequence("subset", data, n, share, seed=seed)
            )
            indices, weights = pick(method, X, y, round(share * n), rng)
            w = logistic_minimum(X[indices], y[indices], ridge, weights)
            errors = []
            for at in (np.zeros_like(w), best, w):
                G = logistic_gradients(at, X, y, ridge)
                subset = weights @ G[indices]
                errors.append(np.linalg.norm(G.sum(axis=0) - subset))
            zero = np.linalg.norm(
                logistic_gradients(np.zeros_like(w), X, y, ridge).sum(axis=0)
            )
            value = logistic_loss(w, X, y, ridge, np.ones(n))[0]
            least = logistic_loss(best, X, y, ridge, np.ones(n))[0]
            yield config, seed, {
                "distance": np.linalg.norm(w - best),
                "length": np.linalg.norm(best),
                "error_start": errors[0] / zero,
                "error_best": errors[1],
                "error_own": errors[2],
                "modulus": ridge * n,
                "excess": value / least - 1,
                "accuracy": np.mean(np.sign(X_test @ w) == y_test),
                "accuracy_full": np.mean(np.sign(X_test @ best) == y_test),
                "ess": weights.sum() ** 2 / (weights @ weights),
                "lost": np.sum(weights == 0),
            }


def incremental_gradient(X, y, ridge, indices, weights, step, epochs, rng, marks):
    """Excess loss on all points after the given numbers of gradients.

    A pass takes one step a point, scaled by its weight; steps fall as 1 / (1 + pass).
    """
    w, done, losses = np.zeros(X.shape[1]), 0, []
    relative = weights / weights.mean()
    marks = list(marks)
    for epoch in range(epochs):
        rate = step / (1 + epoch) ** 0.9
        order = rng.permutation(len(indices))
        for j in order:
            x, label = X[indices[j]], y[indices[j]]
            slope = -label / (1 + np.exp(min(label * (x @ w), 500.0)))
            w = w - rate * relative[j] * (slope * x + ridge * w)
            done += 1
            if marks and done == marks[0]:
                losses.append(logistic_loss(w, X, y, ridge, np.ones(len(y)))[0])
                marks.pop(0)
    return np.array(losses)


def run_craig_race(configs, seeds, device):
    """Incremental gradients on all points and on subsets, at several step sizes."""
    for seed in seeds:
        for config in configs:
            data, n, ridge = config["data"], config["n"], config["ridge"]
            X, y, *_ = even_or_odd(data, n, seed)
            best = logistic_minimum(X, y, ridge, np.ones(n))
            least = logistic_loss(best, X, y, ridge, np.ones(n))[0]
            start = np.random.default_rng(
                seed_sequence("subset", data, n, config["share"], seed=seed)
            )
            if config["method"] == "full":
                indices, weights = np.arange(n), np.ones(n)
            else:
                k = round(config["share"] * n)
                indices, weights = pick(config["method"], X, y, k, start)
            marks = race_marks(n, config["passes"])
            epochs = -(-marks[-1] // len(indices))
            curves = []
            for step in config["steps"]:
                rng = np.random.default_rng(seed_sequence("order", seed=seed))
                losses = incremental_gradient(
                    X, y, ridge, indices, weights, step, epochs, rng, marks
                )
                curves.append(losses / least - 1)
            yield config, seed, {"excess": np.array(curves)}


def race_marks(n, passes):
    """Numbers of gradients at which the loss is measured."""
    return np.unique(np.geomspace(n / 20, n * passes, 25).astype(int))


def run_craig_greedy(configs, seeds, device):
    """Greedy selections against the best subset of tiny sets."""
    from itertools import combinations

    from lib.coresets import facility_location

    for seed in seeds:
        for config in configs:
            n, k = config["n"], config["k"]
            rng = np.random.default_rng(seed_sequence("points", n, seed=seed))
            worst, cost = np.inf, 0.0
            for _ in range(config["trials"]):
                X = rng.standard_normal((n, 2)) * rng.exponential(size=(n, 1))
                D = np.linalg.norm(X[:, None] - X[None], axis=2)
                S = D.max() - D
                chosen = np.asarray(facility_location(S, k)[0])
                sets = combinations(range(n), k)
                best = max(S[:, list(c)].max(axis=1).sum() for c in sets)
                value = S[:, chosen].max(axis=1).sum()
                worst = min(worst, value / best)
                total = n * D.max()
                cost = max(cost, (total - value) / (total - best))
            yield config, seed, {"worst": worst, "cost": cost}


# metrics


def craig_greedy_slack(results):
    """1 - 1/e less the worst ratio to the best subset; by seed."""
    worst = [results.where(**c).values("worst").ravel() for c in results.configs]
    return 1 - np.exp(-1) - np.min(worst, axis=0)


def craig_cost_slack(results):
    """Largest ratio of the greedy cost to the least cost, less e/(e-1); by seed."""
    cost = [results.where(**c).values("cost").ravel() for c in results.configs]
    return np.max(cost, axis=0) - np.e / (np.e - 1)


def craig_bound_slack(results):
    """Largest distance of the minimisers less its bound, relative to it; by seed."""
    slack = []
    for config in results.configs:
        cells = results.where(**config)
        bound = cells.values("error_own") / cells.values("modulus")
        slack.append((cells.values("distance") / bound - 1).ravel())
    return np.max(slack, axis=0)


def _paired(results, key, method, other):
    """Means over the shares, one row a seed: those of two methods."""
    shares = sorted({c["share"] for c in results.configs})
    rows = [
        np.mean(
            [
                results.where(method=m, share=s).values(key).ravel()
                for s in shares
            ],
            axis=0,
        )
        for m in (method, other)
    ]
    return rows


def craig_error_gain(results):
    """Gradient error at the start, random less CRAIG, mean over sizes; by seed."""
    craig, random = _paired(results, "error_start", "craig", "random")
    return random - craig


def craig_best_error_gain(results):
    """Logarithm to base 10 of the gradient error at the optimum, random over CRAIG."""
    craig, random = _paired(results, "error_best", "craig", "random")
    return np.log10(random / craig)


def craig_distance_gain(results):
    """Logarithm to base 10 of the distance from the optimum, random over CRAIG."""
    craig, random = _paired(results, "distance", "craig", "random")
    return np.log10(random / craig)


def craig_weights_gain(results):
    """Logarithm to base 10 of the distance with equal weights over that with counts."""
    craig, equal = _paired(results, "distance", "craig", "craig-equal")
    return np.log10(equal / craig)


def craig_accuracy_loss(results):
    """Test accuracy of all points less that of CRAIG's tenth; by seed."""
    cells = results.where(method="craig", share=0.1)
    return (cells.values("accuracy_full") - cells.values("accuracy")).ravel()


def race_curve(results, method):
    """Excess loss at every mark with the step that ends lowest, one row a seed."""
    curves = results.where(method=method).values("excess")
    best = curves[:, :, -1].argmin(axis=1)
    return curves[np.arange(len(curves)), best]


def craig_race_gain(results):
    """Logarithm to base 10 of the last excess, random over CRAIG; by seed."""
    ends = [race_curve(results, m)[:, -1] for m in ("random", "craig")]
    return np.log10(ends[0] / ends[1])


def craig_speedup(results):
    """Gradients that all points need over those of CRAIG, to CRAIG's loss; by seed.

    CRAIG's loss is 1.1 times its excess at the end.
    """
    config = results.configs[0]
    marks = race_marks(config["n"], config["passes"])
    ratios = []
    rows = (race_curve(results, m) for m in ("craig", "full"))
    for mine, full in zip(*rows, strict=True):
        target = 1.1 * mine[-1]
        reached = np.flatnonzero(full <= target)
        needed = marks[reached[0]] if len(reached) else marks[-1]
        ratios.append(np.log10(needed / marks[np.flatnonzero(mine <= target)[0]]))
    return np.array(ratios)


_SELECT = ("lib.coresets.selectors", "lib.coresets.facility_location")


def _convex(data, n, shares):
    methods = ["craig", "craig-equal", "random"]
    return _grid(data=[data], n=[n], ridge=[1e-3], share=shares, method=methods)


def _race(data, n, passes, steps):
    rest = {"data": [data], "n": [n], "ridge": [1e-3], "passes": [passes]}
    return _grid(
        **rest, share=[0.1], steps=[steps], method=["craig", "random"]
    ) + _grid(**rest, share=[1.0], steps=[steps], method=["full"])


_CRAIG = (
    Experiment(
        name="craig-convex",
        run=run_craig_convex,
        summary="Logistic regression on a subset chosen once, and its bound.",
        quick=_convex("digits", 1200, [0.05, 0.1, 0.2, 0.5]),
        full=_convex("mnist", 6000, [0.01, 0.02, 0.05, 0.1, 0.2, 0.5]),
        seeds={"quick": 3, "full": 5},
        modules=_SELECT,
        data=("mnist/train",),
    ),
    Experiment(
        name="craig-race",
        run=run_craig_race,
        summary="Incremental gradients on all points and on tenths, at the best step.",
        quick=_race("digits", 1200, 3, [0.03, 0.1, 0.3]),
        full=_race("digits", 1200, 20, [0.003, 0.01, 0.03, 0.1, 0.3, 1.0]),
        seeds={"quick": 3, "full": 10},
        modules=_SELECT,
    ),
    Experiment(
        name="craig-greedy",
        run=run_craig_greedy,
        summary="Greedy selections against the best subset of tiny sets.",
        quick=_grid(n=[12], k=[3], trials=[20]),
        full=_grid(n=[12, 15], k=[2, 3, 4], trials=[100]),
        seeds={"quick": 3, "full": 10},
        modules=_SELECT,
    ),
)

# --- GRAD-MATCH: the sum of the gradients --------------------------------------------


def digit_parts(seed):
    """Digits: 1200 to train on, 200 held out, the others unseen; pixels up to one."""
    from lib.data import load

    halves = [load("digits", split, flatten=True) for split in ("train", "test")]
    X, y = (np.concatenate(part) for part in zip(*halves, strict=True))
    rng = np.random.default_rng(seed_sequence("digits", seed=seed))
    order = rng.permutation(len(X))
    X, y = X[order].astype(float), y[order].astype(np.int64)
    X /= X.max()
    return [(X[a:b], y[a:b]) for a, b in ((0, 1200), (1200, 1400), (1400, None))]


def digit_network(seed):
    """A perceptron of one hidden layer in float64."""
    from lib.coresets import MLP

    return MLP(generator=seed).double()


def gradients_at(net, X, y, bias_only=False):
    """Last-layer gradients of samples at a network."""
    import torch

    from lib.coresets import last_layer_gradients

    with torch.no_grad():
        h = net.features(torch.tensor(X))
        z = net.head(h).numpy()
    return last_layer_gradients(z, y, None if bias_only else h.numpy())


def digit_gradients(epochs, seed, bias_only=False):
    """Last-layer gradients of the training digits after epochs on random tenths."""
    from lib.coresets import fit_coreset

    train, net = digit_parts(seed)[0], digit_network(seed)
    if epochs:
        fit_coreset(net, train, "random", epochs=epochs, seed=seed)
    return gradients_at(net, *train, bias_only)


def matched(G, indices, w):
    """Length of the weighted sum of gradients less that of all, over the latter."""
    b = G.sum(np.ones(len(G)))
    return np.linalg.norm(G[indices].sum(w) - b) / np.linalg.norm(b)


def run_match_error(configs, seeds, device):
    """How well subsets of digits match the sum of all gradients, by method and size."""
    import warnings

    from lib.coresets import craig, grad_match, random_coreset

    for seed in seeds:
        known = {}
        for config in configs:
            epochs, method = config["epochs"], config["method"]
            if epochs not in known:
                known[epochs] = digit_gradients(epochs, seed)
            G = known[epochs]
            k = round(config["share"] * len(G))
            rng = np.random.default_rng(seed_sequence("subset", k, seed=seed))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                if method == "random":
                    core = random_coreset(len(G), k, random_state=rng)
                elif method == "craig":
                    core = craig(G, k)
                else:
                    ridge = {"match": 0.0, "match-ridge": 0.5}[method]
                    core = grad_match(G, k, lam=ridge, fill="none")
            # the best length of the weighted sum, for all methods alike
            b, s = G.sum(np.ones(len(G))), G[core.indices].sum(core.weights)
            scale = max((b * s).sum() / (s * s).sum(), 0.0)
            yield config, seed, {
                "error": matched(G, core.indices, scale * core.weights)
            }


def run_match_atoms(configs, seeds, device):
    """Atoms that matching without a penalty uses, gradients of the biases alone."""
    import warnings

    from lib.coresets import grad_match

    for seed in seeds:
        for config in configs:
            G = digit_gradients(config["epochs"], seed, bias_only=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                core = grad_match(G, config["k"], lam=0.0, fill="none")
            yield config, seed, {
                "used": len(core.indices),
                "error": np.sqrt(max(core.history[-1], 0.0))
                / np.linalg.norm(G.sum(np.ones(len(G)))),
            }


def run_match_chain(configs, seeds, device):
    """Error of the best weights on CRAIG's subset, of CRAIG's, and CRAIG's cost."""
    from scipy.optimize import nnls

    from lib.coresets import craig, facility_cost

    for seed in seeds:
        for config in configs:
            G = digit_gradients(config["epochs"], seed)
            core = craig(G, config["k"])
            A, b = G[core.indices].dense().T, G.sum(np.ones(len(G))).ravel()
            w = nnls(A, b, maxiter=10**5)[0]
            yield config, seed, {
                "fitted": np.linalg.norm(A @ w - b),
                "counted": np.linalg.norm(A @ core.weights - b),
                "cost": facility_cost(G, core),
                "ridge": np.linalg.norm(A @ core.weights - b) ** 2
                + 50 * core.weights @ core.weights,
                "printed": np.linalg.norm(A * core.weights - b[:, None], axis=0).sum(),
            }


def run_subset_train(configs, seeds, device):
    """Networks on digits, trained on subsets that are selected anew."""
    import warnings

    from lib.coresets import fit_coreset

    for seed in seeds:
        train, val, test = digit_parts(seed)
        for config in configs:
            rest = {
                "epochs": config["epochs"],
                "lr": config["lr"],
                "val": val,
                "test": test,
                "seed": seed,
            }
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                h = fit_coreset(digit_network(seed), train, config["strategy"], **rest)
            yield config, seed, {
                "step": h.step[0],
                "loss": h.loss[0],
                "accuracy": h.test_accuracy[0, -1],
                "ess": h.effective_size[0],
                "empty": h.empty_batches[0],
            }


# metrics


def match_gain(results):
    """Least log10 ratio of errors, CRAIG's and random ones over matching's; by seed."""
    ratios = []
    for share in sorted({c["share"] for c in results.configs}):
        part = results.where(share=share)
        mine = part.where(method="match").values("error").ravel()
        for method in ("craig", "random"):
            other = part.where(method=method).values("error").ravel()
            ratios.append(np.log10(other / np.maximum(mine, 1e-12)))
    return np.min(ratios, axis=0)


def match_atoms_excess(results):
    """Atoms in use less the number of dimensions, ten; by seed."""
    used = [results.where(**c).values("used").ravel() for c in results.configs]
    return np.max(used, axis=0) - 10.0


def match_chain_excess(results):
    """Error of the best weights on CRAIG's subset over CRAIG's cost, less one."""
    ratios = [
        (
            results.where(**c).values("fitted") / results.where(**c).values("cost")
        ).ravel()
        for c in results.configs
    ]
    return np.max(ratios, axis=0) - 1


def _ends(results, strategy, key="loss"):
    return results.where(strategy=strategy).values(key)[:, -1]


def _log_ratio(results, strategy, other="grad_match"):
    return np.log10(_ends(results, strategy) / _ends(results, other))


def train_best_gain(results):
    """Least log10 ratio of last losses over GRAD-MATCH's, all subsets; by seed."""
    others = ("craig", "glister", "glister_weighted", "random")
    return np.min([_log_ratio(results, name) for name in others], axis=0)


def train_full_gain(results):
    """Log10 ratio of last losses, GRAD-MATCH over all points at equal epochs."""
    return -_log_ratio(results, "full")


def train_equal_steps_gain(results):
    """Log10 ratio of last losses, all points at equal steps over GRAD-MATCH."""
    return _log_ratio(results, "full_es")


def train_weights_gain(results):
    """Log10 ratio of last losses, equal weights on its picks over GRAD-MATCH."""
    return _log_ratio(results, "grad_match_eqw")


def train_similar(results):
    """Distance of CRAIG's and GLISTER's last losses, log10; by seed."""
    ratio = _ends(results, "craig") / _ends(results, "glister")
    return np.abs(np.log10(ratio))


def train_accuracy_gain(results):
    """Test accuracy, GRAD-MATCH less random subsets; by seed."""
    mine, other = (
        results.where(strategy=name).values("accuracy").ravel()
        for name in ("grad_match", "random")
    )
    return mine - other


_MATCH = ("lib.coresets.selectors", "lib.coresets.matching_pursuit")
_STRATEGIES = (
    "full",
    "full_es",
    "random",
    "random_fixed",
    "craig",
    "grad_match",
    "grad_match_eqw",
    "grad_match_batch",
    "glister",
    "glister_weighted",
    "k_center",
)


def _errors(epochs, shares):
    methods = ["match", "match-ridge", "craig", "random"]
    return _grid(epochs=epochs, share=shares, method=methods)


def _trainings(strategies, epochs):
    return _grid(strategy=list(strategies), epochs=[epochs], lr=[0.1])


_GRADMATCH = (
    Experiment(
        name="match-error",
        run=run_match_error,
        summary="How well subsets match the sum of all gradients of the last layer.",
        quick=_errors([5], [0.02, 0.05, 0.1]),
        full=_errors([0, 5, 20], [0.01, 0.02, 0.05, 0.1, 0.2]),
        seeds={"quick": 2, "full": 5},
        modules=_MATCH,
    ),
    Experiment(
        name="match-atoms",
        run=run_match_atoms,
        summary="Atoms that match the gradients of the biases exactly.",
        quick=_grid(epochs=[5], k=[60]),
        full=_grid(epochs=[0, 5, 20], k=[60]),
        seeds={"quick": 2, "full": 10},
        modules=_MATCH,
    ),
    Experiment(
        name="match-chain",
        run=run_match_chain,
        summary="Best weights on CRAIG's subset, CRAIG's weights, CRAIG's cost.",
        quick=_grid(epochs=[5], k=[20]),
        full=_grid(epochs=[0, 5, 20], k=[10, 20, 60]),
        seeds={"quick": 2, "full": 5},
        modules=_MATCH,
    ),
    Experiment(
        name="subset-train",
        run=run_subset_train,
        summary="Networks on digits, trained on tenths that are selected anew.",
        quick=_trainings(_STRATEGIES, 20),
        full=_trainings(_STRATEGIES, 40),
        seeds={"quick": 1, "full": 5},
        modules=(*_MATCH, "lib.coresets.train"),
    ),
)

# --- GLISTER: the loss on held-out samples -------------------------------------------


def network_gradients(train, epochs, seed):
    """Last-layer gradients of a network on digits: training, held-out, unseen ones.

    It has 64 hidden neurons and was trained on random tenths with the rate 0.1.
    """
    from lib.coresets import fit_coreset

    net = digit_network(seed)
    if epochs:
        fit_coreset(net, train, "random", epochs=epochs, lr=0.1, seed=seed)
    return [gradients_at(net, X, y) for X, y in (train, *digit_parts(seed)[1:])]


def glister_state(state, seed):
    """Gradients as above: of softmax regression at zero, or after 5 epochs."""
    parts = digit_parts(seed)
    if state == "start":
        return [last_layer(X, y) for X, y in parts]
    return network_gradients(parts[0], 5, seed)


def last_layer(X, y):
    """Gradients of softmax regression at zero."""
    from lib.coresets import last_layer_gradients

    return last_layer_gradients(np.zeros((len(y), 10)), y, X)


def moved_loss(G, others, picks, eta):
    """Mean loss of others after a step of the last layer along the sum of picks."""
    (P, H), H_other = G[picks].layers[0], others.layers[0][1]
    Z = others.logits - eta * (H_other @ (H.T @ P))
    Z = Z - Z.max(1, keepdims=True)
    rows = np.arange(len(Z))
    return float(np.mean(np.log(np.exp(Z).sum(1)) - Z[rows, others.y]))


def run_glister_pick(configs, seeds, device):
    """Loss after the step that one selection of digits makes, by method and step."""
    import warnings

    from lib.coresets import glister, random_coreset

    for seed in seeds:
        known = {}
        for config in configs:
            state, method = config["state"], config["method"]
            eta, k = config["eta"], config["k"]
            if state not in known:
                known[state] = glister_state(state, seed)
            G, val, test = known[state]
            rng = np.random.default_rng(seed_sequence("picks", k, seed=seed))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                if method == "random":
                    picks = random_coreset(len(G), k, random_state=rng).indices
                else:
                    picks = glister(
                        G, k, val=val, eta=eta, method=method, random_state=rng
                    ).indices
            yield config, seed, {
                "before": moved_loss(G, val, picks[:1], 0.0),
                "loss": moved_loss(G, val, picks, eta),
                "test_loss": moved_loss(G, test, picks, eta),
                "largest_class": np.bincount(G.y[picks]).max() / k,
            }


def damaged(train, damage, share, seed):
    """Training digits with wrong labels, or with few samples of five classes.

    Returns the samples, their labels, and which labels are wrong.
    """
    X, y = train
    rng = np.random.default_rng(seed_sequence("damage", damage, share, seed=seed))
    wrong = np.zeros(len(y), dtype=bool)
    if damage == "noise":
        wrong[rng.choice(len(y), round(share * len(y)), replace=False)] = True
        y = np.where(wrong, (y + rng.integers(1, 10, len(y))) % 10, y)
    elif damage == "imbalance":
        rare = rng.choice(10, 5, replace=False)
        kept = ~np.isin(y, rare) | (rng.random(len(y)) < share)
        X, y, wrong = X[kept], y[kept], wrong[kept]
    return X, y, wrong


def _match_held_out(snapshot):
    """GRAD-MATCH whose target are the gradients of the held-out samples."""
    from lib.coresets import grad_match

    return grad_match(
        snapshot.gradients,
        snapshot.k,
        y=snapshot.y,
        target=snapshot.val_gradients,
        random_state=snapshot.random_state,
    )


def _glister_class(snapshot):
    """GLISTER within every class, with the step of a mean over a batch."""
    from lib.coresets import glister

    y, eta = snapshot.y.numpy(), snapshot.lr / snapshot.batch_size
    members = [np.flatnonzero(y == c) for c in np.unique(y)]
    parts = np.array_split(np.arange(snapshot.k), len(members))
    held = snapshot.val_gradients
    return np.concatenate(
        [
            rows[glister(snapshot.gradients[rows], k, val=held, eta=eta)[0].numpy()]
            for rows, k in (
                (rows, min(len(part), len(rows)))
                for rows, part in zip(members, parts, strict=True)
            )
        ]
    )


_ROBUST = {
    "glister_class": (_glister_class, {}),
    "grad_match_val": (_match_held_out, {}),
    "glister_lower": ("glister", {"eta": 0.02}),
    "glister_lowest": ("glister", {"eta": 0.005}),
}


def run_subset_robust(configs, seeds, device):
    """Networks on damaged digits, trained on subsets; held-out and test are clean."""
    import warnings

    from lib.coresets import fit_coreset

    for seed in seeds:
        train, val, test = digit_parts(seed)
        for config in configs:
            X, y, wrong = damaged(train, config["damage"], config["share"], seed)
            strategy = config["strategy"]
            chosen, options = _ROBUST.get(strategy, (strategy, {}))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                h = fit_coreset(
                    digit_network(seed),
                    (X, y),
                    chosen,
                    options=options,
                    epochs=config["epochs"],
                    lr=config["lr"],
                    val=val,
                    test=test,
                    evaluate=10,
                    seed=seed,
                )
            shares = [w[wrong[i]].sum() / w.sum() for i, w in h.coresets[0]]
            yield config, seed, {
                "accuracy": h.test_accuracy[0, -1],
                "wrong": np.mean(shares),
                "ess": h.effective_size[0].mean(),
            }


def run_glister_train(configs, seeds, device):
    """Networks on digits, trained on the picks of GLISTER with many steps."""
    import warnings

    from lib.coresets import fit_coreset

    for seed in seeds:
        train, val, test = digit_parts(seed)
        for config in configs:
            options = {"eta": config["eta"], "method": config["method"]}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                h = fit_coreset(
                    digit_network(seed),
                    train,
                    "glister",
                    options=options,
                    epochs=config["epochs"],
                    lr=config["lr"],
                    val=val,
                    test=test,
                    evaluate=10,
                    seed=seed,
                )
            labels = [np.bincount(train[1][i], minlength=10) for i, _ in h.coresets[0]]
            yield config, seed, {
                "loss": h.loss[0, -1],
                "accuracy": h.test_accuracy[0, -1],
                "largest_class": np.mean([c.max() / c.sum() for c in labels]),
            }


# metrics


def _picked(results, method, key="loss", state="start"):
    part = results.where(state=state, method=method)
    etas = sorted({c["eta"] for c in part.configs})
    return np.array([part.where(eta=eta).values(key).ravel() for eta in etas])


def glister_pick_gain(results):
    """Least held-out loss of random picks less that of GLISTER's, by seed.

    Each method has its best step; the mean over the two states.
    """
    gains = [
        _picked(results, "random", state=s).min(0)
        - _picked(results, "online", state=s).min(0)
        for s in ("start", "trained")
    ]
    return np.mean(gains, axis=0)


def glister_sort_gain(results):
    """Held-out loss of random picks less that of the sort, at the step 0.01."""
    part = results.where(eta=0.01)
    return (_picked(part, "random") - _picked(part, "modular")).ravel()


def glister_rounds_excess(results):
    """What fifteen looks lose of the fall that a look after each pick gives.

    A share of that fall, at the step 0.01; the larger one of the two states.
    """
    part = results.where(eta=0.01)
    lost = []
    for state in ("start", "trained"):
        online, rounds = (
            _picked(part, m, state=state).ravel() for m in ("online", "rgreedy")
        )
        fall = _picked(part, "online", "before", state).ravel() - online
        lost.append((rounds - online) / fall)
    return np.max(lost, axis=0)


def glister_small_step_loss(results):
    """Test accuracy of GLISTER with the step lr less that with lr over batch size."""
    part = results.where(method="online")
    lr = part.configs[0]["lr"]
    with_lr, small = (
        part.where(eta=eta).values("accuracy").ravel() for eta in (lr, lr / 20)
    )
    return with_lr - small


def robust_gain(results, damage, share, strategy="glister", key="accuracy"):
    """Of a strategy less random subsets, by seed."""
    part = results.where(damage=damage, share=share)
    mine, other = (
        part.where(strategy=s).values(key).ravel() for s in (strategy, "random")
    )
    return mine - other


def robust_clean(results):
    """Test accuracy, GLISTER less random subsets, undamaged digits."""
    return robust_gain(results, "none", 0.0)


def robust_noise(results):
    """Test accuracy, GLISTER less random subsets, two labels of five wrong."""
    return robust_gain(results, "noise", 0.4)


def robust_imbalance(results):
    """Test accuracy, GLISTER less random subsets, five classes at a tenth."""
    return robust_gain(results, "imbalance", 0.1)


def robust_avoids(results):
    """Share of wrong labels, random subsets less GLISTER's, two of five wrong."""
    return -robust_gain(results, "noise", 0.4, key="wrong")


def robust_target(results):
    """Test accuracy, held-out less training target of GRAD-MATCH, two of five wrong."""
    return robust_gain(results, "noise", 0.4, "grad_match_val") - robust_gain(
        results, "noise", 0.4, "grad_match"
    )


_METHODS = ["online", "rgreedy", "stochastic", "modular", "random"]
_ROBUST_STRATEGIES = (
    "random",
    "craig",
    "grad_match",
    "grad_match_val",
    "glister",
    "glister_lower",
    "glister_lowest",
    "glister_class",
    "full_es",
    "full",
)


def _damages(strategies, pairs, epochs):
    return tuple(
        {"damage": d, "share": s, "strategy": name, "epochs": epochs, "lr": 0.1}
        for d, s in pairs
        for name in strategies
    )


def _picks(states, etas, methods, k):
    return _grid(state=states, eta=etas, method=methods, k=k)


_PICKS = ("lib.coresets.selectors", "lib.coresets.gradients")
_GLISTER = (
    Experiment(
        name="glister-pick",
        run=run_glister_pick,
        summary="Held-out loss after the step of one selection, by method and step.",
        quick=_picks(["start", "trained"], [1e-3, 1e-2, 0.1], _METHODS, [120]),
        full=_picks(
            ["start", "trained"],
            [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3],
            _METHODS,
            [120],
        ),
        seeds={"quick": 2, "full": 10},
        modules=_PICKS,
    ),
    Experiment(
        name="glister-train",
        run=run_glister_train,
        summary="Networks on digits trained on GLISTER's picks, by step and method.",
        quick=_grid(
            eta=[5e-3, 0.1], method=["online"], epochs=[20], lr=[0.1]
        ),
        full=_grid(
            eta=[1e-4, 1e-3, 5e-3, 2e-2, 0.1, 0.5, 2.0],
            method=["online", "rgreedy", "modular"],
            epochs=[40],
            lr=[0.1],
        ),
        seeds={"quick": 1, "full": 5},
        modules=(*_PICKS, "lib.coresets.train"),
    ),
    Experiment(
        name="subset-robust",
        run=run_subset_robust,
        summary="Networks on digits with wrong labels or rare classes.",
        quick=_damages(("random", "glister"), [("noise", 0.4)], 20),
        full=_damages(
            _ROBUST_STRATEGIES,
            [
                ("none", 0.0),
                ("noise", 0.2),
                ("noise", 0.4),
                ("imbalance", 0.1),
            ],
            40,
        ),
        seeds={"quick": 1, "full": 10},
        modules=(*_MATCH, "lib.coresets.train"),
    ),
)

# --- The report: Figures 2 to 4 ------------------------------------------------------


def image_parts(data, seed, device="cpu"):
    """Nine tenths of the training images, the tenth held out, and the test images.

    Pixels are standardised by the mean and deviation of all of them. The embedded
    subset is cut to 3,000 images in float64.
    """
    import torch

    from lib.data import load

    (X, y), (X_test, y_test) = (load(data, split) for split in ("train", "test"))
    rng = np.random.default_rng(seed_sequence("images", data, seed=seed))
    order = rng.permutation(len(X))
    if data == "fashion-mini":
        order, X, X_test = order[:3000], X.astype(float), X_test.astype(float)
    mean, deviation = X.mean(), X.std()
    cut = len(order) * 9 // 10
    rows = (X[order[:cut]], X[order[cut:]], X_test)
    labels = (y[order[:cut]], y[order[cut:]], y_test)
    return [
        (
            torch.from_numpy((x - mean) / deviation).to(device),
            torch.from_numpy(c).to(device),
        )
        for x, c in zip(rows, labels, strict=True)
    ]


def image_network(data, seed, device="cpu"):
    """LeNet, or ResNet18 for images in colour."""
    from lib.coresets import LeNet, ResNet18

    net = (ResNet18 if data == "cifar10" else LeNet)(generator=seed)
    return net.double() if data == "fashion-mini" else net.to(device)


def _glister_rounds(snapshot, eta=None):
    """GLISTER that looks at the held-out loss again after every 33 picks."""
    from lib.coresets import glister

    return glister(
        snapshot.gradients,
        snapshot.k,
        val=snapshot.val_gradients,
        eta=eta or snapshot.lr,
        method="rgreedy",
        rounds=int(np.ceil(0.03 * snapshot.k)),
    )


def _glister_small(snapshot):
    """The same with the step of a mean over a batch."""
    return _glister_rounds(snapshot, snapshot.lr / snapshot.batch_size)


def _match_all_layers(snapshot):
    """GRAD-MATCH on the gradients of all layers."""
    from lib.coresets import all_layer_gradients, grad_match

    G = all_layer_gradients(snapshot.model, snapshot.X, snapshot.y)
    seed = snapshot.random_state
    return grad_match(G, snapshot.k, y=snapshot.y, random_state=seed)


_OWN = {
    "glister": (_glister_rounds, {}),
    "glister_small": (_glister_small, {}),
    "glister_cosine": ("glister_weighted", {"metric": "cosine"}),
    "grad_match_all": (_match_all_layers, {}),
}


def run_subset_images(configs, seeds, device):
    """Networks on images, trained on tenths that are selected anew."""
    import time
    import warnings

    import torch

    from lib.coresets import fit_coreset, random_crop_flip

    for seed in seeds:
        known = {}
        for config in configs:
            data, strategy = config["data"], config["strategy"]
            if data not in known:
                known[data] = image_parts(data, seed, device)
            train, val, test = known[data]
            net = image_network(data, seed, device)
            chosen, options = _OWN.get(strategy, (strategy, {}))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                h = fit_coreset(
                    net,
                    train,
                    chosen,
                    epochs=config["epochs"],
                    lr=config["lr"],
                    options=options,
                    val=val,
                    test=test,
                    augment=random_crop_flip if data == "cifar10" else None,
                    evaluate=4,
                    seed=seed,
                )
            start, rows = time.perf_counter(), 200 if device == "cpu" else 5000
            with torch.no_grad():
                passed = [net.features(part).sum() for part in train[0].split(rows)]
                float(sum(passed))  # waits for a GPU
            yield config, seed, {
                "step": h.step[0],
                "loss": h.loss[0],
                "train_accuracy": h.train_accuracy[0],
                "test_accuracy": h.test_accuracy[0],
                "step_seconds": h.step_seconds[0],
                "selection_seconds": h.selection_seconds[0],
                "selections": len(h.selection_epoch),
                "forward_seconds": time.perf_counter() - start,
                "ess": h.effective_size[0],
                "empty": h.empty_batches[0],
            }


# metrics of the images


def unit_costs(results):
    """Seconds of a step, of a forward pass over all samples, and of a selection.

    Medians over all trainings of one network; the selections by strategy, without
    their forward pass. Strategies that do not look at the network cost next to nothing.
    """
    step = np.median(
        [c.data["step_seconds"][-1] / c.data["step"][-1] for c in results]
    )
    forward = np.median([c.data["forward_seconds"] for c in results])
    select = {}
    for name in dict.fromkeys(c["strategy"] for c in results.configs):
        part = results.where(strategy=name)
        whole = _ends(part, name, "selection_seconds") / part.values("selections")
        blind = name.startswith(("full", "random"))
        select[name] = max(np.median(whole) - (0 if blind else forward), 0.0)
    return float(step), float(forward), select


def clock(results, strategy, costs=None, step_factor=1.0):
    """Seconds at every evaluation of a strategy, from unit costs.

    A network of ``step_factor`` times the cost has steps and forward passes that take
    so much longer, and the same selections.
    """
    step, forward, select = costs or unit_costs(results)
    part = results.where(strategy=strategy)
    done = part.values("selection_seconds").mean(0)
    done = part.values("selections").mean() * done / done[-1]
    blind = strategy.startswith(("full", "random"))
    passes = 0.0 if blind else forward * step_factor
    steps = part.values("step").mean(0)
    return steps * step * step_factor + done * (passes + select[strategy])


def at_time(results, strategy, seconds, costs=None, step_factor=1.0):
    """Loss of a strategy at a time, one a seed, log-linear between evaluations.

    Before the first evaluation it is that of the first, after the last the last.
    """
    times = clock(results, strategy, costs, step_factor)
    curves = results.where(strategy=strategy).values("loss")
    return np.array([10 ** np.interp(seconds, times, np.log10(c)) for c in curves])


def image_best(results):
    """Least log10 ratio of last losses over GRAD-MATCH's; CRAIG, GLISTER, random."""
    return np.min(
        [_log_ratio(results, s) for s in ("craig", "glister", "random")], axis=0
    )


def image_slowest(results):
    """Seconds of a selection, log10: GLISTER over the slower of the two others."""
    mine, *others = (
        _ends(results, s, "selection_seconds")
        for s in ("glister", "craig", "grad_match")
    )
    return np.log10(mine / np.max(others, axis=0))


def image_full_time(results):
    """Log10 of GRAD-MATCH's last loss over that of all points at the same time."""
    end = clock(results, "grad_match")[-1]
    return np.log10(_ends(results, "grad_match") / at_time(results, "full", end))


def image_weighted(results):
    """Log10 ratio of last losses, GLISTER over weighted GLISTER; by seed."""
    return _log_ratio(results, "glister", "glister_weighted")


def image_cosine(results):
    """Log10 ratio of last losses, GLISTER over its weighted form with cosines."""
    return _log_ratio(results, "glister", "glister_cosine")


def image_weighted_match(results):
    """Log10 ratio of last losses, weighted GLISTER over GRAD-MATCH; by seed."""
    return _log_ratio(results, "glister_weighted")


def image_weighted_time(results):
    """Seconds of the selections, log10: GLISTER over weighted GLISTER; by seed."""
    mine, other = (
        _ends(results, s, "selection_seconds") for s in ("glister", "glister_weighted")
    )
    return np.log10(mine / other)


def image_layers(results):
    """Log10 ratio of losses when the last-layer training ends, all layers over it."""
    end = clock(results, "grad_match")[-1]
    whole = at_time(results, "grad_match_all", end)
    return np.log10(whole / _ends(results, "grad_match"))


def image_layers_stable(results):
    """Largest rise of the log10 loss between evaluations, all layers less the last."""
    rises = [
        np.diff(np.log10(results.where(strategy=s).values("loss"))).max(1)
        for s in ("grad_match_all", "grad_match")
    ]
    return rises[0] - rises[1]


def image_accuracy(results):
    """Last test accuracy, GRAD-MATCH less random subsets; by seed."""
    return _ends(results, "grad_match", "test_accuracy") - _ends(
        results, "random", "test_accuracy"
    )


_IMAGE_STRATEGIES = (
    "grad_match",
    "craig",
    "glister",
    "random",
    "full_es",
    "glister_weighted",
    "full",
    "glister_cosine",
    "grad_match_eqw",
    "glister_small",
    "grad_match_all",
    "grad_match_batch",
    "random_fixed",
)


def _images(data, strategies, epochs, lr=0.01):
    return _grid(strategy=list(strategies), data=[data], epochs=[epochs], lr=[lr])


_TRAINED = (
    *_SELECT,
    "lib.coresets.matching_pursuit",
    "lib.coresets.gradients",
    "lib.coresets.models",
    "lib.coresets.train",
)
_IMAGES = (
    Experiment(
        name="subset-mnist",
        run=run_subset_images,
        summary="LeNet on MNIST, trained on tenths that are selected anew.",
        full=_images("mnist", _IMAGE_STRATEGIES, 40),
        seeds={"quick": 1, "full": 3},
        modules=_TRAINED,
        data=("mnist",),
        cuda=True,
    ),
    Experiment(
        name="subset-fashion",
        run=run_subset_images,
        summary="LeNet on Fashion-MNIST, trained on tenths that are selected anew.",
        quick=_images("fashion-mini", _IMAGE_STRATEGIES[:5], 20),
        full=_images("fashion-mnist", _IMAGE_STRATEGIES, 40),
        seeds={"quick": 1, "full": 3},
        modules=_TRAINED,
        data=("fashion-mnist",),
        cuda=True,
    ),
    Experiment(
        name="subset-cifar",
        run=run_subset_images,
        summary="ResNet18 on CIFAR-10, trained on tenths that are selected anew.",
        full=_images(
            "cifar10",
            [s for s in _IMAGE_STRATEGIES if s not in ("full", "grad_match_all")],
            40,
        )
        + _images("cifar10", ["full"], 20),
        seeds={"quick": 1, "full": 3},
        modules=_TRAINED,
        data=("cifar10",),
        cuda=True,
    ),
)

# --- CRAIG on more points than pairs can be held of ----------------------------------


def one_round(X, k, parts, rng):
    """CRAIG's picks in each of some random parts, k in all."""
    from lib.coresets import craig

    split = np.array_split(rng.permutation(len(X)), parts)
    return np.concatenate([part[craig(X[part], k // parts)[0]] for part in split])


def run_craig_scale(configs, seeds, device):
    """Mean distance of MNIST images from the nearest pick, by way of selection."""
    from lib.coresets import craig, facility_cost
    from lib.data import load

    images = load("mnist", flatten=True)[0]
    for seed in seeds:
        for config in configs:
            n, k, method = config["n"], config["k"], config["method"]
            rng = np.random.default_rng(seed_sequence("scale", n, seed=seed))
            X = images[rng.permutation(len(images))[:n]]
            if method == "random":
                picks = rng.choice(n, k, replace=False)
            elif method == "one round":
                picks = one_round(X, k, 3, rng)
            else:
                picks = craig(X, k, method=method, random_state=rng).indices
            cost = facility_cost(X, (picks, np.ones(k)))
            yield config, seed, {"cost": cost / n}


def scale_excess(results):
    """Mean distance with two rounds over that of greedy selection, less one; by seed.

    On the largest set of which all pairs are held.
    """
    size = max(c["n"] for c in results.configs if c["method"] == "greedy")
    two, all_pairs = (
        results.where(n=size, method=m).values("cost").ravel()
        for m in ("partition", "greedy")
    )
    return two / all_pairs - 1


_SCALE = (
    Experiment(
        name="craig-scale",
        run=run_craig_scale,
        summary="CRAIG on all pairs, in two rounds over parts, on samples of pairs.",
        full=_grid(
            n=[9600],
            k=[96],
            method=["greedy", "partition", "stochastic", "one round", "random"],
        )
        + _grid(n=[60_000], k=[96], method=["partition", "random"]),
        seeds={"quick": 1, "full": 5},
        modules=_SELECT,
        data=("mnist/train",),
    ),
)

EXPERIMENTS = (*_CRAIG, *_GRADMATCH, *_GLISTER, *_IMAGES, *_SCALE)
