"""Experiments and metrics of the games wing.

Every ``run_*`` function is a generator over ``(config, seed, arrays)``. Seeds are
derived from named axes: data and initial weights depend on the seed alone, so that
all optimizers start from the same networks.
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


# --- optimism ------------------------------------------------------------------------

# Members of one family, all of them OptimisticAdam: (beta1, optimism).
ADAMS = {
    "adam-half": (0.5, 0.0),
    "adam-zero": (0.0, 0.0),
    "oadam": (0.5, 1.0),
    "oadam-zero": (0.0, 1.0),
    "adam-nm": (-0.5, 0.0),
}


def lead(beta1, optimism):
    """Steps by which a slowly turning direction leads the gradient."""
    return optimism - beta1 / (1.0 - beta1)


def noise_gain(beta1, optimism):
    """Variance of the direction over that of independent gradients."""
    c = 1.0 - beta1
    a = lead(beta1, optimism)
    return (1.0 + a * c) ** 2 + a**2 * c**3 / (2.0 - c)


def _adam_grid(methods, **rest):
    """Configurations of some members of the family."""
    return tuple(
        {"beta1": beta1, "optimism": o, **other}
        for beta1, o in methods
        for other in _grid(**rest)
    )


def of_method(results, name):
    """The results of one named member of the family."""
    beta1, o = ADAMS[name]
    return results.where(beta1=beta1, optimism=o)


def run_optimism_bilinear(configs, seeds, device):
    """Rates, worst cases over singular values, and Adam's family on bilinear games."""
    runs = {
        "rate": _bilinear_rates,
        "horizon": _bilinear_horizons,
        "adam": _bilinear_adams,
    }
    for part, run in runs.items():
        members = [config for config in configs if config["part"] == part]
        if members:
            yield from run(members, seeds)


def _bilinear_rates(configs, seeds):
    from lib.games import BilinearGame, simulate, spectral_radius

    for config in configs:
        name, step, steps = config["method"], config["step"], config["steps"]
        update = "alternating" if name == "alternating-gda" else "simultaneous"
        method = "gd" if name in ("gda", "alternating-gda") else name
        for seed in seeds:
            rng = np.random.default_rng(seed_sequence("optimism game", seed=seed))
            U, V = (np.linalg.qr(rng.standard_normal((3, 3)))[0] for _ in range(2))
            sigma = np.r_[1.0, rng.uniform(0.3, 0.9, 2)]
            game, w0 = BilinearGame(U * sigma @ V), rng.standard_normal(6)
            path = simulate(game, w0, method, step, steps, update=update)
            distance = np.linalg.norm(path.w, axis=1)
            factor = (distance[-1] / distance[steps // 2]) ** (2.0 / steps)
            radii = [
                spectral_radius([[0, v], [-v, 0]], method, step, update=update)
                for v in sigma
            ]
            yield config, seed, {"factor": factor, "radius": max(radii)}


def _bilinear_horizons(configs, seeds):
    """Largest field over all singular values up to 1, of the last and the mean point.

    The plane of one singular value is a complex number that starts at 1, and v has the
    modulus sigma |w| there.
    """
    sigma = np.geomspace(1e-4, 1.0, 401)
    for seed in seeds:
        rng = np.random.default_rng(seed_sequence("optimism step", seed=seed))
        step = rng.uniform(0.1, 0.5)
        stops = {config["steps"]: config for config in configs}
        w, total = np.ones(401, complex), np.ones(401, complex)
        before = w
        for t in range(1, max(stops) + 1):
            turn = 1j * step * sigma
            w, before = w - turn * (2 * w - before), w
            total += w
            if t in stops:
                last = np.max(sigma * np.abs(w))
                mean = np.max(sigma * np.abs(total)) / (t + 1)
                yield stops[t], seed, {"step": step, "last": last, "average": mean}


def _bilinear_adams(configs, seeds):
    """Distances on x y from eight starts a seed; coordinates do not see each other."""
    import torch

    from lib.games import OptimisticAdam

    start = []
    for seed in seeds:
        rng = np.random.default_rng(seed_sequence("optimism start", seed=seed))
        angle, radius = 2 * np.pi * rng.random(8), rng.uniform(0.5, 1.5, 8)
        start.append(radius * np.exp(1j * angle))
    start = np.concatenate(start)
    for config in configs:
        x, y = (torch.tensor(z).requires_grad_() for z in (start.real, start.imag))
        betas, o = (config["beta1"], 0.999), config["optimism"]
        players = [
            OptimisticAdam([p], config["lr"], betas, optimism=o, maximize=maximize)
            for p, maximize in ((x, False), (y, True))
        ]
        together, every = config["update"] == "simultaneous", config["steps"] // 50
        paths = [np.abs(start)]
        for t in range(1, config["steps"] + 1):
            x.grad, y.grad = y.detach().clone(), x.detach().clone()
            players[0].step()
            if not together:
                y.grad = x.detach().clone()
            players[1].step()
            if t % every == 0:
                paths.append(np.hypot(x.detach().numpy(), y.detach().numpy()))
        distance = np.array(paths) / paths[0]
        for k, seed in enumerate(seeds):
            mine = distance[:, 8 * k : 8 * k + 8]
            yield config, seed, {"distance": np.median(mine, axis=1)}


def bilinear_rate_error(results):
    """Relative gap of measured and predicted factor, one number a cell."""
    return np.array([cell.data["factor"] / cell.data["radius"] - 1 for cell in results])


def last_iterate_slope(results):
    """Exponent in T of the worst field at the last point, one number a seed."""
    return _horizon_slope(results, "last")


def average_iterate_slope(results):
    """Exponent in T of the worst field at the average point, one number a seed."""
    return _horizon_slope(results, "average")


def _horizon_slope(results, key):
    T, y = results.curve(key, over="steps")
    return np.polyfit(np.log(T), np.log(y).T, 1)[0]


def _final_log_distance(results, name):
    return np.log(of_method(results, name).values("distance")[:, -1])


def oadam_bilinear_gain(results):
    """Log distance left by Adam(0) minus that left by OAdam(0.5), one a seed."""
    a, b = (_final_log_distance(results, name) for name in ("adam-zero", "oadam"))
    return a - b


def true_optimism_bilinear_gain(results):
    """Log distance left by Adam(0) minus that left by OAdam(0), one a seed."""
    a, b = (_final_log_distance(results, name) for name in ("adam-zero", "oadam-zero"))
    return a - b


# The critic <phi, x>, the generator z + theta, data N(m, I): the game phi (m - theta).
# A penalty of the critic, the momentum and Nesterov's variant as in the paper's toys.
_WGAN = {
    "gda": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "penalty": {"penalty": 1.0},
    "critic-steps": {"critic": 5},
    "alternating-gda": {"update": "alternating"},
    "zero-penalty": {"penalty": 0.0},
    "ogda": {"optimism": 1.0},
}
WGAN_CLIP = 10.0


def run_optimism_wgan(configs, seeds, device):
    """A linear WGAN that learns a mean, all seeds side by side."""
    starts = []
    for seed in seeds:
        rng = np.random.default_rng(seed_sequence("optimism wgan", seed=seed))
        mean = rng.standard_normal(2)
        phi, theta = rng.standard_normal((2, 2))
        starts.append((5 * mean / np.linalg.norm(mean), phi, theta))
    for config in configs:
        rngs = [
            np.random.default_rng(seed_sequence("wgan noise", config["batch"], seed=s))
            for s in seeds
        ]
        phi, theta, average = _learn_mean(config, np.array(starts), rngs)
        mean = np.array([start[0] for start in starts])
        error = np.linalg.norm(theta - mean, axis=-1)
        tail = error[-len(error) // 4 :] / error[0]
        for k, seed in enumerate(seeds):
            found = {
                "tail_low": tail[:, k].min(),
                "tail_mean": tail[:, k].mean(),
                "average": np.linalg.norm(average[k] - mean[k]) / error[0, k],
            }
            if config["steps"] <= 5000:  # paths to be drawn; long ones fill the disk
                found |= {"theta": theta[:, k] - mean[k], "phi": phi[:, k]}
            yield config, seed, found


def _learn_mean(config, starts, rngs):
    """Paths of both players (sampled), and the mean over the run of the generator."""
    import torch

    from lib.games import OGDA

    options = _WGAN[config["method"]]
    mean, phi, theta = (torch.tensor(a) for a in starts.transpose(1, 0, 2))
    critic_steps, players = options.get("critic", 1), []
    for p, maximize in ((phi, True), (theta, False)):
        if "momentum" in options:
            momentum = {k: options[k] for k in options if k in ("momentum", "nesterov")}
            opt = torch.optim.SGD([p], config["lr"], maximize=maximize, **momentum)
        else:
            optimism = options.get("optimism", 0.0)
            opt = OGDA([p], config["lr"], optimism=optimism, maximize=maximize)
        players.append(opt)
    total, paths = torch.zeros_like(theta), [(phi.clone(), theta.clone())]
    every = max(1, config["steps"] // 1000)
    scale = (2.0 / config["batch"]) ** 0.5 if config["batch"] else 0.0  # 0: exact
    for t in range(1, config["steps"] + 1):
        old = phi.clone()
        for _ in range(critic_steps):
            phi.grad = mean - theta
            if scale:  # a batch of samples, and one of noise for the generator
                noise = np.stack([rng.standard_normal(2) for rng in rngs])
                phi.grad += scale * torch.from_numpy(noise)
            if "penalty" in options:
                norm = phi.norm(dim=1, keepdim=True).clamp(min=1e-12)
                phi.grad -= 0.2 * phi * (1 - options["penalty"] / norm)
            players[0].step()
            phi.clamp_(-WGAN_CLIP, WGAN_CLIP)
        together = options.get("update") != "alternating" and critic_steps == 1
        theta.grad = -old if together else -phi
        players[1].step()
        total += theta
        if t % every == 0:
            paths.append((phi.clone(), theta.clone()))
    phi, theta = (torch.stack(path).numpy() for path in zip(*paths, strict=True))
    return phi, theta, (total / config["steps"]).numpy()


def wgan_cycles(results):
    """Whether every method asked for is on average off the mean in the last quarter."""
    mean = [results.where(**c).values("tail_mean").ravel() for c in results.configs]
    return np.min(mean, axis=0) > 0.1


def wgan_converges(results):
    """Whether every method asked for has its last quarter within one per mille."""
    mean = [results.where(**c).values("tail_mean").ravel() for c in results.configs]
    return np.max(mean, axis=0) < 1e-3


def wgan_optimism_gain(results):
    """Log mean error of the last quarter, gradient descent minus optimism."""
    a, b = (
        results.where(method=name).values("tail_mean").ravel()
        for name in ("gda", "ogda")
    )
    return np.log(a / b)


# Eight Gaussians on a circle.
RING = 2.0 * np.exp(0.25j * np.pi * np.arange(8))
RING = np.stack([RING.real, RING.imag], axis=1)
RING_SD, RING_RADIUS = 0.1, 0.3


def ring_samples(n, rng):
    """Points of the mixture."""
    return RING[rng.integers(8, size=n)] + RING_SD * rng.standard_normal((n, 2))


def run_optimism_ring(configs, seeds, device):
    """Adam's family on the ring: modes reached and share of samples near one."""
    from lib.games import mode_coverage, nearest_mode, ring_networks

    def batch(rng, n):
        return ring_samples(n, rng)

    def measure(samples):
        label = nearest_mode(samples, RING, RING_RADIUS)
        return {"modes": mode_coverage(label, 8), "quality": np.mean(label >= 0)}

    yield from _train_family("ring", ring_networks, batch, measure, configs, seeds)


def run_optimism_digits(configs, seeds, device):
    """Adam's family on 8 x 8 digits: classes reached and distance of features."""
    from lib.data import load
    from lib.games import ClassifierScorer, digits_networks, fid, mode_coverage

    X, y = load("digits")
    X = 2.0 * X.astype(np.float64) - 1.0
    scorer = ClassifierScorer(generator=0).fit(X, y)
    features, flat = scorer.features(X), X.reshape(len(X), -1)

    def batch(rng, n):
        return flat[rng.integers(len(flat), size=n)]

    def measure(samples):
        images = samples.reshape(-1, 1, 8, 8)
        label = scorer.predict_proba(images).argmax(axis=1)
        distance = fid(features, scorer.features(images))
        return {"modes": mode_coverage(label, 10), "fid": distance}

    yield from _train_family("digits", digits_networks, batch, measure, configs, seeds)


# Configurations and seeds trained side by side: enough to fill the processor, few
# enough to checkpoint.
_SIDE_BY_SIDE = 5


def _train_family(task, networks, batch, measure, configs, seeds):
    groups = {}
    for config in configs:
        key = tuple(config[name] for name in ("lr", "batch", "steps"))
        groups.setdefault(key, []).append(config)
    for group in groups.values():
        for members in _chunks(group):
            for chunk in _chunks(seeds):
                yield from _train_chunk(task, networks, batch, measure, members, chunk)


def _chunks(items):
    return [items[k : k + _SIDE_BY_SIDE] for k in range(0, len(items), _SIDE_BY_SIDE)]


class _Stack:
    """Copies of one perceptron, run side by side: weights (copies, outputs, inputs)."""

    def __init__(self, networks):
        import torch
        from torch import nn

        shape_only = (nn.Flatten, nn.Unflatten)
        self.layers = [m for m in networks[0].layers if not isinstance(m, shape_only)]
        weights = zip(*(network.parameters() for network in networks), strict=True)
        self.weights = [
            torch.stack(copies).detach().double().requires_grad_() for copies in weights
        ]

    def __call__(self, x):
        import torch
        from torch import nn

        rest = iter(self.weights)
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                weight, bias = next(rest), next(rest)
                x = torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
            elif isinstance(layer, nn.BatchNorm1d):  # always by the batch's own moments
                weight, bias = next(rest), next(rest)
                x = x - x.mean(dim=1, keepdim=True)
                variance = x.square().mean(dim=1, keepdim=True)
                x = x * torch.rsqrt(variance + layer.eps)
                x = bias[:, None] + x * weight[:, None]
            else:
                x = layer(x)
        return x


def _train_chunk(task, networks, batch, measure, configs, seeds):
    """Train one pair of networks for each configuration and seed, all at once."""
    import torch
    from torch.nn.functional import softplus

    from lib.games import OptimisticAdam

    if len(configs) * len(seeds) == 1:  # a product of one matrix rounds differently
        twice = [*configs, *configs]
        yield next(_train_chunk(task, networks, batch, measure, twice, seeds))
        return
    lr, size, steps = (configs[0][name] for name in ("lr", "batch", "steps"))
    width = len(seeds)
    pairs = [networks(generator=_weight_seed(task, seed)) for seed in seeds]
    G, D = (_Stack(list(part) * len(configs)) for part in zip(*pairs, strict=True))
    optimizers = {}  # of a stack: optimizer, its part of every weight, its rows
    for stack in (G, D):
        optimizers[stack] = []
        for k, config in enumerate(configs):
            rows = slice(k * width, (k + 1) * width)
            part = [weight.detach()[rows].requires_grad_() for weight in stack.weights]
            betas, o = (config["beta1"], 0.999), config["optimism"]
            optimizer = OptimisticAdam(part, lr, betas, optimism=o)
            optimizers[stack].append((optimizer, rows))
    rngs, tests = (
        [np.random.default_rng(seed_sequence(task, what, seed=seed)) for seed in seeds]
        for what in ("batches", "test")
    )
    latent = pairs[0][0].latent_dim
    test = _repeated([rng.standard_normal((1000, latent)) for rng in tests], configs)
    found = [{} for _ in range(len(configs) * width)]
    for t in range(1, steps + 1):
        real = _repeated([batch(rng, size) for rng in rngs], configs)
        z, other = (
            _repeated([rng.standard_normal((size, latent)) for rng in rngs], configs)
            for _ in range(2)
        )
        with torch.no_grad():
            fake = G(z)
        kept = t % (steps // 8) == 0
        loss = softplus(-D(real)).sum() + softplus(D(fake)).sum()
        _descend(D, loss / size, optimizers[D])
        loss = softplus(-D(G(other))).sum()
        departure = _descend(G, loss / size, optimizers[G], measured=kept)
        if kept:
            with torch.no_grad():
                samples = G(test).numpy()
            for k, record in enumerate(found):
                now = {"step": t, "departure": departure[k], **measure(samples[k])}
                for name, value in now.items():
                    record.setdefault(name, []).append(value)
    for k, record in enumerate(found):
        arrays = {name: np.array(values) for name, values in record.items()}
        yield configs[k // width], seeds[k % width], arrays


def _weight_seed(task, seed):
    return int(seed_sequence(task, "weights", seed=seed).generate_state(1)[0])


def _repeated(arrays, configs):
    import torch

    return torch.from_numpy(np.stack(arrays)).repeat(len(configs), 1, 1)


def _descend(stack, loss, optimizers, measured=False):
    """Step every optimizer of a stack; how far each copy's step is from Adam(0)'s."""
    import torch

    gradients = torch.autograd.grad(loss, stack.weights)
    departure = []
    for optimizer, rows in optimizers:
        group, state = optimizer.param_groups[0], optimizer.state
        part, o = group["params"], group["optimism"]
        for weight, gradient in zip(part, gradients, strict=True):
            weight.grad = gradient[rows]
        before = [state[w]["prev_update"].clone() for w in part] if measured else None
        optimizer.step()
        if measured:
            gap = size = 0.0
            for weight, old in zip(part, before, strict=True):
                now = state[weight]
                plain = weight.grad / (now["exp_avg_sq"].sqrt() + group["eps"])
                step = (1 + o) * now["prev_update"] - o * old
                gap = gap + (step - plain).flatten(1).square().sum(1)
                size = size + plain.flatten(1).square().sum(1)
            departure += (gap / size).sqrt().tolist()
    return departure


def _late(results, name, key, share=0.5):
    """Mean of a record over the last part of the training, one number a seed."""
    values = of_method(results, name).values(key)
    return values[:, -round(share * values.shape[1]) :].mean(axis=1)


def ring_oadam_gain(results):
    """Late share of good samples, OAdam(0.5) minus Adam(0.5)."""
    return _late(results, "oadam", "quality") - _late(results, "adam-half", "quality")


def ring_optimism_gain(results):
    """Late share of good samples, OAdam(0.5) minus Adam(0)."""
    return _late(results, "oadam", "quality") - _late(results, "adam-zero", "quality")


def ring_true_optimism_gain(results):
    """Late share of good samples, OAdam(0) minus Adam(0)."""
    return _late(results, "oadam-zero", "quality") - _late(
        results, "adam-zero", "quality"
    )


def ring_departure(results):
    """Relative distance of OAdam(0.5)'s late steps from Adam(0)'s at the same point."""
    return _late(results, "oadam", "departure")


def _late_log_fid(results, name):
    values = of_method(results, name).values("fid")
    return np.log(values[:, values.shape[1] // 2 :]).mean(axis=1)


def digits_oadam_gain(results):
    """Late log distance of features, Adam(0.5) minus OAdam(0.5)."""
    return _late_log_fid(results, "adam-half") - _late_log_fid(results, "oadam")


def digits_optimism_gain(results):
    """Late log distance of features, Adam(0) minus OAdam(0.5)."""
    return _late_log_fid(results, "adam-zero") - _late_log_fid(results, "oadam")


def digits_true_optimism_gain(results):
    """Late log distance of features, Adam(0) minus OAdam(0)."""
    return _late_log_fid(results, "adam-zero") - _late_log_fid(results, "oadam-zero")


_OPTIM = ("lib.games.optim",)
_STEPS = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9]
_FAMILY = tuple(ADAMS.values())
# The named members first, then leads of a whole step with more or less noise, then
# the rest of a grid: a run that is stopped early leaves the most wanted.
_FAMILY_GRID = tuple(
    dict.fromkeys(
        [
            *_FAMILY,
            *((0.25, 1.0), (0.5, 2.0), (0.75, 4.0), (0.9, 10.0), (0.0, 0.5)),
            *((b, 0.5 * o) for b in (-0.5, 0.0, 0.25, 0.5, 0.75) for o in (0, 1, 2, 4)),
        ]
    )
)

_OPTIMISM = (
    Experiment(
        name="optimism-bilinear",
        summary="Rates on bilinear games, last against average point, Adam's family.",
        run=run_optimism_bilinear,
        quick=_grid(
            part=["rate"],
            method=["gda", "alternating-gda", "ogda", "extragradient"],
            step=_STEPS,
            steps=[200],
        )
        + _grid(part=["horizon"], steps=[100, 1000, 10_000])
        + _adam_grid(
            _FAMILY, part=["adam"], update=["simultaneous"], lr=[0.02], steps=[4000]
        ),
        full=_grid(
            part=["rate"],
            method=["gda", "alternating-gda", "ogda", "extragradient"],
            step=_STEPS,
            steps=[200],
        )
        + _grid(part=["horizon"], steps=[100, 1000, 10_000, 100_000])
        + _adam_grid(
            _FAMILY_GRID,
            part=["adam"],
            update=["simultaneous", "alternating"],
            lr=[0.01],
            steps=[8000],
        ),
        seeds={"quick": 5, "full": 20},
        modules=(*_OPTIM, "lib.games.dynamics", "lib.games.spectra"),
    ),
    Experiment(
        name="optimism-wgan-mean",
        summary="A linear WGAN that learns a mean, with exact and sampled gradients.",
        run=run_optimism_wgan,
        quick=_grid(method=list(_WGAN), batch=[0, 200], lr=[0.1], steps=[2000]),
        full=_grid(
            method=list(_WGAN), batch=[0, 200, 2000], lr=[0.05, 0.1], steps=[20_000]
        ),
        seeds={"quick": 5, "full": 20},
        modules=_OPTIM,
    ),
    Experiment(
        name="optimism-ring",
        summary="Adam's family on eight Gaussians: modes, share of good samples.",
        run=run_optimism_ring,
        quick=_adam_grid(_FAMILY, lr=[2e-3], batch=[64], steps=[640]),
        full=_adam_grid(_FAMILY_GRID, lr=[1e-3], batch=[64], steps=[3000]),
        seeds={"quick": 5, "full": 5},
        modules=(*_OPTIM, "lib.games.models", "lib.games.metrics"),
    ),
    Experiment(
        name="optimism-digits",
        summary="Adam's family on 8 x 8 digits: classes, distance of features.",
        run=run_optimism_digits,
        quick=_adam_grid(_FAMILY[:4], lr=[1e-3], batch=[32], steps=[400]),
        full=_adam_grid(_FAMILY[:4], lr=[1e-3], batch=[64], steps=[1200]),
        seeds={"quick": 5, "full": 5},
        modules=(*_OPTIM, "lib.games.models", "lib.games.metrics"),
        data=("digits",),
    ),
)


# --- negative momentum ---------------------------------------------------------------


def _random_rotation(n, rng):
    """A random orthogonal matrix."""
    Q, R = np.linalg.qr(rng.standard_normal((n, n)))
    return Q * np.sign(np.diag(R))


def run_momentum_bilinear(configs, seeds, device):
    """Distances along a run on a random bilinear game of largest singular value 1."""
    from lib.games import BilinearGame, simulate, spectral_radius

    for seed in seeds:
        for config in configs:
            n, step, steps = config["n"], config["step"], config["steps"]
            rng = np.random.default_rng(seed_sequence("bilinear", n, seed=seed))
            sigma = np.r_[1.0, rng.uniform(0.3, 1.0, n - 1)]
            A = _random_rotation(n, rng) * sigma @ _random_rotation(n, rng)
            w0 = rng.standard_normal(2 * n)
            options = {"update": config["update"], "momentum": tuple(config["beta"])}
            path = simulate(BilinearGame(A), w0, "momentum", step, steps, **options)
            distance = np.linalg.norm(path.w, axis=1)
            last = np.flatnonzero(np.isfinite(distance))[-1]  # then it overflowed
            half = last // 2
            # one spectrum a singular value: the largest radius is the game's
            radius = max(
                spectral_radius([[0, s], [-s, 0]], "momentum", step, **options)
                for s in sigma
            )
            yield (
                config,
                seed,
                {
                    "distance": distance[:: max(steps // 30, 1)] / distance[0],
                    "rate": np.log(distance[last] / distance[half]) / (last - half),
                    "radius": radius,
                    "sigma_min": sigma.min(),
                },
            )


def _nm_rates(results, **config):
    """Logarithmic growth a step, one row a seed and one column a configuration."""
    cells = results.where(**config)
    return np.array([cells.where(**c).values("rate") for c in cells.configs]).T


def nm_simultaneous_growth(results):
    """Smallest growth over all simultaneous configurations, one number a seed."""
    return _nm_rates(results, update="simultaneous").min(axis=1)


def nm_neutral_gap(results):
    """Largest drift of alternating gradient steps, one number a seed."""
    rates = _nm_rates(results, update="alternating", beta=[0.0, 0.0])
    return np.abs(rates).max(axis=1)


def nm_theorem6_slack(results):
    """Measured rate above Theorem 6's bound on squared distances, a seed and step."""
    out = []
    for config in results.configs:
        cells = results.where(**config)
        bound = np.maximum(
            0.5, 1 - (config["step"] * cells.values("sigma_min")) ** 2 / 16
        )
        out.append(2 * cells.values("rate") - np.log(bound))
    return np.concatenate(out)


def nm_radius_gap(results):
    """Largest gap between measured and predicted rate, one number a seed."""
    gaps = [
        results.where(**c).values("rate") - np.log(results.where(**c).values("radius"))
        for c in results.configs
    ]
    return np.abs(gaps).max(axis=0)


def momentum_radius(eigs, lr, beta):
    """Largest root of the momentum operator for arrays of step sizes and momenta."""
    lr, beta = (np.asarray(x)[..., None] for x in np.broadcast_arrays(lr, beta))
    half = (1 + beta - lr * eigs) / 2
    root = np.sqrt(half * half - beta + 0j)
    return np.maximum(np.abs(half + root), np.abs(half - root)).max(axis=-1)


def fastest_momentum(eigs, points=25, rounds=24):
    """Best step size, momentum and radius for eigenvalues, on ever finer grids."""
    low = np.array([0.0, -0.999])
    high = np.array([8 / np.abs(eigs).max(), 0.999])
    for _ in range(rounds):
        axes = (np.linspace(a, b, points) for a, b in zip(low, high, strict=True))
        lr, beta = np.meshgrid(*axes, indexing="ij")
        radius = momentum_radius(eigs, lr, beta)
        best = np.unravel_index(radius.argmin(), radius.shape)
        center, width = np.array([lr[best], beta[best]]), (high - low) / 5
        low = np.maximum(center - width, [0.0, -0.9999])
        high = np.minimum(center + width, [np.inf, 0.9999])
    return lr[best], beta[best], radius[best]


def momentum_sign_excess(a, b):
    """Right-hand side over left-hand side of the sign criterion, minus 1; at most 9.

    Positive where a little negative momentum helps the two eigenvalues.
    """
    steps = [(1 / a).real, (1 / b).real, 2 * (a - b).real / (abs(a) ** 2 - abs(b) ** 2)]
    rates = [
        max(abs(1 - s * a), abs(1 - s * b)) if s > 0 else np.inf for s in steps
    ]
    if np.argmin(rates) < 2:  # one of them limits alone
        return 9.0
    low, high = sorted((1 - steps[2] * e).real for e in (a, b))
    square = rates[2] ** 2
    left = 2 * (square - low) * (high - square)
    return min(square * (1 - square) / left - 1, 9.0)


def run_momentum_spectrum(configs, seeds, device):
    """Best step and momentum by search, over random eigenvalues."""
    for seed in seeds:
        for config in configs:
            kind, trials = config["kind"], config["trials"]
            rng = np.random.default_rng(seed_sequence("spectrum", kind, seed=seed))
            psi = rng.uniform(0.03, 1.5, trials)
            kappa = np.exp(rng.uniform(np.log(1.05), np.log(100), trials))
            other = rng.uniform(0.03, 1.5, trials) if kind == "pairs" else psi
            found, excess = [], []
            for k in range(trials):
                eigs = np.array([np.exp(1j * psi[k]), kappa[k] * np.exp(1j * other[k])])
                if kind == "single":
                    eigs = eigs[:1]
                else:
                    excess.append(momentum_sign_excess(*eigs))
                found.append(fastest_momentum(eigs))
            lr, beta, radius = np.array(found).T
            data = {"psi": psi, "lr": lr, "beta": beta, "radius": radius}
            if excess:
                data |= {"kappa": kappa, "excess": np.array(excess)}
            yield config, seed, data


def nm_closed_form_gap(results):
    """Largest relative gap of the radius to tan(psi/2), one number a seed."""
    radius, psi = results.values("radius"), results.values("psi")
    return np.abs(radius / np.tan(psi / 2) - 1).max(axis=1)


def nm_best_beta(results):
    """Best momentum of every single eigenvalue."""
    return results.values("beta").ravel()


def nm_step_shortfall(results):
    """How far the best step with momentum falls short of Re(1/lambda)."""
    return (np.cos(results.values("psi")) - results.values("lr")).ravel()


def nm_sign_violations(results, margin=0.03):
    """One number a pair, positive where the sign is not that of the criterion."""
    excess, beta = results.values("excess").ravel(), results.values("beta").ravel()
    clear = np.abs(excess) > margin
    return (beta * np.sign(excess))[clear]


def nm_ray_violations(results, margin=0.02):
    """The same for two rays, with the criterion tan(psi) > (kappa-1)/(kappa+1)."""
    psi, kappa, beta = (results.values(k).ravel() for k in ("psi", "kappa", "beta"))
    excess = np.tan(psi) * (kappa + 1) / (kappa - 1) - 1
    clear = np.abs(excess) > margin
    return (beta * np.sign(excess))[clear]


def train_digits(config, seed, x):
    """Train the two digits networks as a configuration says; the trainer."""
    from lib.games import (
        GANTrainer,
        MomentumSGD,
        SignedMomentumAdam,
        digits_networks,
    )

    init = int(seed_sequence("digits", "networks", seed=seed).generate_state(1)[0])
    batches = int(seed_sequence("digits", "batches", seed=seed).generate_state(1)[0])
    G, D = (network.double() for network in digits_networks(generator=init))

    def optimizer(network):
        lr, beta = config["lr"], config["beta"]
        if config["method"] == "sgd":
            return MomentumSGD(network.parameters(), lr, momentum=beta)
        return SignedMomentumAdam(network.parameters(), lr, betas=(beta, 0.999))

    trainer = GANTrainer(
        G, D, optimizer(G), optimizer(D), config["loss"], generator=batches
    )
    trainer.fit(x, steps=config["steps"], progress=False)
    return trainer


def digits_scores(sample, scorer, reference):
    """Scores of generated digits against features of the test images."""
    from lib.games import fid, inception_score, mode_coverage, prdc

    features, p = scorer.features(sample), scorer.predict_proba(sample)
    quality = prdc(reference, features[:500])
    return {
        "fid": fid(features, reference),
        "inception_score": inception_score(p, splits=1)[0],
        "modes": mode_coverage(p.argmax(1), 10),
        "precision": quality.precision,
        "recall": quality.recall,
    }


def digits_data():
    """The digits in [-1, 1], a classifier of them, and features of the test images."""
    import torch

    from lib.data import load
    from lib.games import ClassifierScorer

    (X, y), (X_test, _) = load("digits"), load("digits", "test")
    x, x_test = (torch.from_numpy(2.0 * a - 1.0).double() for a in (X, X_test))
    scorer = ClassifierScorer(generator=0).fit(x, y)
    return x, scorer, scorer.features(x_test)


def run_momentum_digits(configs, seeds, device):
    """A GAN on 8 x 8 digits with momentum of either sign."""
    x, scorer, reference = digits_data()
    for seed in seeds:
        for config in configs:
            try:
                trainer = train_digits(config, seed, x)
            except RuntimeError:  # a loss that is not finite
                failed = {"fid": np.nan, "inception_score": 1.0, "modes": 0}
                yield config, seed, failed | {"precision": 0.0, "recall": 0.0}
                continue
            scores = digits_scores(trainer.sample(2000), scorer, reference)
            loss = np.array(trainer.history["loss_g"])
            tail = loss[len(loss) // 2 :]
            # from one step to the next, where a trend hardly counts
            scores["roughness"] = np.std(np.diff(tail)) / np.sqrt(2)
            scores["loss_g"] = loss.reshape(50, -1).mean(axis=1)
            yield config, seed, scores


def _nm_fid_gap(results, worse, better):
    """Logarithm of the FID of one configuration over another's, one a seed."""
    a, b = (results.where(**c).values("fid") for c in (worse, better))
    return np.log(a / b)


def nm_sgd_same_step(results):
    """Log FID of SGD(-0.5) over SGD(0.9) at the same step size."""
    both = {"method": "sgd", "loss": "ns", "lr": 0.01}
    return _nm_fid_gap(results, both | {"beta": -0.5}, both | {"beta": 0.9})


def nm_sgd_matched(results):
    """Log FID of SGD(0.9) over SGD(-0.5) at the same effective step size, 0.1."""
    both = {"method": "sgd", "loss": "ns"}
    worse, better = {"beta": 0.9, "lr": 0.01}, {"beta": -0.5, "lr": 0.15}
    return _nm_fid_gap(results, both | worse, both | better)


def nm_sgd_over_zero(results):
    """Log FID of SGD(0) over SGD(-0.5) at the same effective step size, 0.1."""
    both = {"method": "sgd", "loss": "ns"}
    worse, better = {"beta": 0.0, "lr": 0.1}, {"beta": -0.5, "lr": 0.15}
    return _nm_fid_gap(results, both | worse, both | better)


def nm_saturating_gain(results):
    """Log FID of SGD(0) over SGD(-0.5) in the saturating game, matched steps."""
    both = {"method": "sgd", "loss": "minimax"}
    worse, better = {"beta": 0.0, "lr": 0.1}, {"beta": -0.5, "lr": 0.15}
    return _nm_fid_gap(results, both | worse, both | better)


def nm_adam_gain(results):
    """Log FID of Adam(0.5) over Adam(-0.5)."""
    both = {"method": "adam", "loss": "ns", "lr": 1e-3}
    return _nm_fid_gap(results, both | {"beta": 0.5}, both | {"beta": -0.5})


def nm_adam_over_zero(results):
    """Log FID of Adam(0) over Adam(-0.5)."""
    both = {"method": "adam", "loss": "ns", "lr": 1e-3}
    return _nm_fid_gap(results, both | {"beta": 0.0}, both | {"beta": -0.5})


def nm_smoother_loss(results):
    """Log roughness of the generator's loss, Adam(0.5) over Adam(-0.5)."""
    both = results.where(method="adam", loss="ns")
    rough, smooth = (both.where(beta=b).values("roughness") for b in (0.5, -0.5))
    return np.log(rough / smooth)


def _nm_digits(steps, *rows):
    """Configurations from rows of method, momentum, step size and loss."""
    names = ("method", "beta", "lr", "loss")
    return tuple(dict(zip(names, r, strict=True)) | {"steps": steps} for r in rows)


# Pairs of momenta, the first mover's first. Theorem 6 is about (-0.5, 0).
_NM_PAIRS = ([-0.5, 0.0], [-0.5, -0.5], [0.0, 0.0], [0.5, 0.0])
_NM_ADAM = tuple(("adam", beta, 1e-3, "ns") for beta in (0.5, 0.0, -0.5))
_NM_MATCHED = tuple(
    ("sgd", beta, round(eff * (1 - beta), 10), "ns")
    for beta in (0.9, 0.0, -0.5)
    for eff in (0.01, 0.03, 0.1, 0.3)
)

_MOMENTUM = (
    Experiment(
        name="momentum-bilinear",
        summary="Momentum on random bilinear games, at once and taking turns.",
        run=run_momentum_bilinear,
        quick=_grid(
            update=["simultaneous", "alternating"],
            beta=list(_NM_PAIRS),
            step=[0.3, 1.0],
            n=[5],
            steps=[240],
        ),
        full=_grid(
            update=["simultaneous", "alternating"],
            beta=[*_NM_PAIRS, [0.0, -0.5], [0.5, 0.5], [-0.9, 0.0]],
            step=[0.1, 0.3, 0.6, 1.0],
            n=[50],
            steps=[1200],
        ),
        seeds={"quick": 5, "full": 10},
        modules=("lib.games.dynamics", "lib.games.spectra"),
    ),
    Experiment(
        name="momentum-spectrum",
        summary="Fastest step and momentum for one eigenvalue, two rays, any two.",
        run=run_momentum_spectrum,
        quick=_grid(kind=["single", "rays", "pairs"], trials=[20]),
        full=_grid(kind=["single", "rays", "pairs"], trials=[500]),
        seeds={"quick": 3, "full": 5},
        modules=("lib.games.spectra",),
    ),
    Experiment(
        name="momentum-digits",
        summary="GAN on digits: the sign of momentum at equal and at fair steps.",
        run=run_momentum_digits,
        quick=_nm_digits(
            300,
            ("sgd", 0.9, 0.01, "ns"),
            ("sgd", -0.5, 0.01, "ns"),
            ("sgd", 0.0, 0.1, "ns"),
            ("sgd", -0.5, 0.15, "ns"),
            *_NM_ADAM,
        ),
        full=_nm_digits(
            1500,
            *_NM_MATCHED,
            ("sgd", -0.5, 0.01, "ns"),
            *(("sgd", b, eff, "minimax") for b, eff in ((0.0, 0.1), (-0.5, 0.15))),
            *_NM_ADAM,
        ),
        seeds={"quick": 3, "full": 3},
        modules=(
            "lib.games.metrics",
            "lib.games.models",
            "lib.games.optim",
            "lib.games.train",
        ),
        data=("digits",),
    ),
)

# --- consensus -----------------------------------------------------------------------


def run_consensus_bilinear(configs, seeds, device):
    """Spectra and rates of consensus steps on random convex-concave games."""
    from lib.games import BilinearGame, gd_step_bound, simulate

    for seed in seeds:
        for config in configs:
            n, curvature, gamma = (config[k] for k in ("n", "curvature", "gamma"))
            rng = np.random.default_rng(seed_sequence("consensus", n, seed=seed))
            sigma = np.r_[1.0, rng.uniform(0.3, 1.0, n - 1)]
            A = _random_rotation(n, rng) * sigma @ _random_rotation(n, rng)
            Q = _random_rotation(n, rng), _random_rotation(n, rng)
            # half of each player's directions are flat
            own = curvature * rng.uniform(0.1, 1.0, (2, n)) * (np.arange(n) % 2)
            Cx, Cy = (q * c @ q.T for q, c in zip(Q, own, strict=True))
            # rounding has left them not quite symmetric
            game = BilinearGame(A, (Cx + Cx.T) / 2, (Cy + Cy.T) / 2)
            eigs = np.linalg.eigvals(game.M + gamma * game.M.T @ game.M)
            bound = gd_step_bound(eigs)
            w0, steps = rng.standard_normal(2 * n), config["steps"]
            path = simulate(game, w0, "consensus", 0.5 * bound, steps, gamma=gamma)
            size = np.linalg.norm(path.w, axis=1)
            # the last half of what rounding leaves
            last = np.flatnonzero(size > 1e-12 * size[0])[-1]
            rate = np.log(size[last] / size[last // 2]) / (last - last // 2)
            yield (
                config,
                seed,
                {
                    "ratio": np.abs(eigs.imag / eigs.real).max(),
                    "smallest_real": eigs.real.min(),
                    "sigma_min": np.linalg.svd(game.M, compute_uv=False).min(),
                    "bound": bound,
                    "rate": rate,
                },
            )


def co_real_part_slack(results):
    """Consensus' promise gamma sigma_min^2 minus the smallest real part."""
    return _co_slack(results, lambda g, s, c: g * s**2 - c["smallest_real"])


def co_ratio_slack(results):
    """Largest ratio of imaginary to real part above 1 / (gamma sigma_min)."""
    return _co_slack(results, lambda g, s, c: c["ratio"] - 1 / (g * s))


def _co_slack(results, slack):
    """One number a cell with gamma > 0; rounding is forgiven."""
    return np.array(
        [
            slack(cell.config["gamma"], float(cell.data["sigma_min"]), cell.data)
            - 1e-9
            for cell in results
            if cell.config["gamma"] > 0
        ]
    )


def co_convergence(results):
    """Slowest convergence a step at half the bound, one number a seed."""
    rates = [results.where(**c).values("rate") for c in results.configs]
    return -np.max(rates, axis=0)


def co_larger_gamma_larger_step(results):
    """Log of the bound at gamma = 10 over that at gamma = 1, one number a seed."""
    large, one = (results.where(gamma=g).values("bound") for g in (10.0, 1.0))
    return np.log(large / one)


def ring_points(n, rng, sd=0.01):
    """Points of eight Gaussians on the unit circle."""
    angle = 2 * np.pi * rng.integers(8, size=n) / 8
    centers = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return centers + sd * rng.standard_normal((n, 2))


def run_consensus_spectrum(configs, seeds, device):
    """Spectrum of a small GAN on the ring along a training, with its consensus form."""
    import torch

    from lib.games import (
        ConsensusOptimizer,
        GANTrainer,
        MLPDiscriminator,
        MLPGenerator,
        gan_losses,
        module_game,
    )

    for seed in seeds:
        for config in configs:
            rng = np.random.default_rng(seed_sequence("ring", seed=seed))
            x = torch.from_numpy(ring_points(4096, rng))
            init = int(seed_sequence("co-nets", seed=seed).generate_state(1)[0])
            weights = torch.Generator().manual_seed(init)
            options = {"hidden": config["hidden"], "slope": 0.0, "generator": weights}
            G = MLPGenerator(
                config["latent"], (2,), batch_norm=False, tanh=False, **options
            )
            D = MLPDiscriminator((2,), **options)
            G, D = G.double(), D.double()
            optimizer = ConsensusOptimizer(
                {
                    name: torch.optim.RMSprop(net.parameters(), 1e-4, alpha=0.9)
                    for name, net in (("d", D), ("g", G))
                },
                gamma=config["gamma"],
            )
            trainer = GANTrainer(
                G,
                D,
                optimizer,
                None,
                update="simultaneous",
                batch_size=config["batch"],
                generator=init,
            )
            if config["steps"]:
                trainer.fit(x, steps=config["steps"], progress=False)
            points = 2 * config["batch"]
            z = torch.from_numpy(rng.standard_normal((points, config["latent"])))

            def loss(k, real=x[:points], z=z):
                return lambda calls: gan_losses(calls[0](real), calls[0](calls[1](z)))[
                    k
                ]

            game = module_game([D, G], [loss(0), loss(1)])
            w = torch.nn.utils.parameters_to_vector(
                [*D.parameters(), *G.parameters()]
            ).detach()
            J = game.jacobian(w).numpy()
            plain = np.linalg.eigvals(J)
            both = np.linalg.eigvals(J + config["gamma"] * J.T @ J)
            data = {"field_norm": np.sqrt(2 * float(game.hamiltonian(w)))}
            for name, eigs in (("plain", plain), ("consensus", both)):
                # eigenvalues of rectifiers that are off are zero: they say nothing
                eigs = eigs[np.abs(eigs) > 1e-6 * np.abs(eigs).max()]
                top = eigs[np.argsort(-np.abs(eigs))[:400]]
                data[f"{name}_real"], data[f"{name}_imag"] = top.real, top.imag
                data[f"{name}_negative"] = np.mean(eigs.real < 0)
                data[f"{name}_angle"] = _weighted_angle(eigs)
            yield config, seed, data


def _weighted_angle(eigs):
    """Mean angle to the positive real axis, weighted by the modulus; degrees."""
    modulus = np.abs(eigs)
    return np.degrees(np.sum(modulus * np.abs(np.angle(eigs))) / modulus.sum())


def co_angle_drop(results):
    """Degrees by which consensus turns the spectrum to the right, one a seed."""
    drops = [
        results.where(**c).values("plain_angle")
        - results.where(**c).values("consensus_angle")
        for c in results.configs
    ]
    return np.min(drops, axis=0)


def co_negative_drop(results):
    """Share of negative real parts, without minus with consensus, one a seed."""
    drops = [
        results.where(**c).values("plain_negative")
        - results.where(**c).values("consensus_negative")
        for c in results.configs
    ]
    return np.min(drops, axis=0)


class OwnGradientOptimizer:
    """The usual mistake: each player is regularised by its own gradient alone."""

    def __init__(self, optimizers, gamma):
        self.optimizers, self.gamma = optimizers, gamma

    def step(self, closure):
        import torch

        losses = closure()
        for optimizer, loss in zip(self.optimizers.values(), losses, strict=True):
            params = [p for group in optimizer.param_groups for p in group["params"]]
            own = torch.autograd.grad(loss, params, create_graph=True)
            norm = 0.5 * sum((g * g).sum() for g in own)
            pull = torch.autograd.grad(norm, params, retain_graph=True)
            for p, g, r in zip(params, own, pull, strict=True):
                p.grad = g.detach() + self.gamma * r
        for optimizer in self.optimizers.values():
            optimizer.step()
        return [loss.detach() for loss in losses]


def run_consensus_digits(configs, seeds, device):
    """Consensus optimisation on 8 x 8 digits, and the usual mistake."""
    import torch

    from lib.games import ConsensusOptimizer, GANTrainer, digits_networks

    def optimizer(network, name):
        if name == "adam":
            return torch.optim.Adam(network.parameters(), 1e-3, betas=(0.5, 0.999))
        return torch.optim.RMSprop(network.parameters(), 1e-4, alpha=0.9)

    x, scorer, reference = digits_data()
    for seed in seeds:
        init, batches = (
            int(seed_sequence("digits", part, seed=seed).generate_state(1)[0])
            for part in ("networks", "batches")
        )
        for config in configs:
            G, D = (net.double() for net in digits_networks(generator=init))
            players = {
                name: optimizer(net, config["method"])
                for name, net in (("d", D), ("g", G))
            }
            gamma, kind = config["gamma"], config["kind"]
            both = (
                OwnGradientOptimizer(players, gamma)
                if kind == "own"
                else ConsensusOptimizer(players, gamma, unbiased=kind == "unbiased")
            )
            trainer = GANTrainer(
                G, D, both, None, update="simultaneous", generator=batches
            )
            scores = {}
            for part in ("half", "end"):
                trainer.fit(x, steps=config["steps"] // 2, progress=False)
                found = digits_scores(trainer.sample(2000), scorer, reference)
                scores |= {f"{k}_{part}": v for k, v in found.items()}
            yield config, seed, scores


def _co_fid(results, part="end", **config):
    return np.log(results.where(**config).values(f"fid_{part}"))


def co_digits_gain(results):
    """Log FID without regulariser over that with gamma = 10, RMSProp 1e-4."""
    return _co_fid(results, gamma=0.0) - _co_fid(results, gamma=10.0)


def co_adam_gain(results):
    """Log FID without regulariser over that with gamma = 1, Adam 1e-3."""
    return _co_fid(results, gamma=0.0) - _co_fid(results, gamma=1.0)


def co_collapse(results):
    """Log FID at the end over that at half time, Adam 1e-3 and gamma = 0.01."""
    return _co_fid(results) - _co_fid(results, "half")


def co_own_gap(results):
    """Log FID of the own-gradient mistake over consensus, gamma = 10."""
    return _co_fid(results, kind="own") - _co_fid(results, kind="joint")


def co_unbiased_gain(results):
    """Log FID of the biased over the unbiased form, gamma = 10."""
    return _co_fid(results, kind="joint") - _co_fid(results, kind="unbiased")


_CO_MODULES = (
    "lib.games.metrics",
    "lib.games.models",
    "lib.games.optim",
    "lib.games.train",
)


def _co_digits(steps, *rows):
    """Configurations from rows of optimizer, gamma and kind."""
    names = ("method", "gamma", "kind")
    return tuple(dict(zip(names, r, strict=True)) | {"steps": steps} for r in rows)


_CONSENSUS = (
    Experiment(
        name="consensus-bilinear",
        summary="Spectrum, step bound and rate of consensus on convex-concave games.",
        run=run_consensus_bilinear,
        quick=_grid(
            curvature=[0.0, 1.0], gamma=[0.1, 1.0, 10.0], n=[5], steps=[300]
        ),
        full=_grid(
            curvature=[0.0, 0.1, 1.0],
            gamma=[0.1, 0.3, 1.0, 3.0, 10.0],
            n=[50],
            steps=[2000],
        ),
        seeds={"quick": 5, "full": 10},
        modules=("lib.games.dynamics", "lib.games.spectra"),
    ),
    Experiment(
        name="consensus-spectrum",
        summary="Eigenvalues of a small GAN, with and without consensus.",
        run=run_consensus_spectrum,
        quick=_grid(
            hidden=[[12, 12]], latent=[2], gamma=[10.0], batch=[128], steps=[0, 200]
        ),
        full=_grid(
            hidden=[[16, 16, 16, 16]],
            latent=[16],
            gamma=[10.0],
            batch=[512],
            steps=[0, 500, 4000],
        ),
        seeds={"quick": 3, "full": 3},
        modules=("lib.games.dynamics", "lib.games.models", "lib.games.optim",
                 "lib.games.train"),
    ),
    Experiment(
        name="consensus-digits",
        summary="Consensus on digits: gamma, its estimate, and the usual mistake.",
        run=run_consensus_digits,
        quick=_co_digits(
            160,
            ("adam", 0.0, "joint"),
            ("adam", 0.01, "joint"),
            ("adam", 1.0, "joint"),
            ("adam", 1.0, "own"),
        ),
        full=_co_digits(
            1500,
            *(("adam", g, "joint") for g in (0.0, 0.01, 0.1, 1.0, 10.0)),
            *(("rmsprop", g, "joint") for g in (0.0, 0.01, 0.1, 1.0, 10.0)),
            ("adam", 10.0, "own"),
            ("rmsprop", 10.0, "own"),
            ("rmsprop", 10.0, "unbiased"),
        ),
        seeds={"quick": 3, "full": 5},
        modules=_CO_MODULES,
        data=("digits",),
    ),
)

# --- networks: GAN and WGAN ----------------------------------------------------------


def _integer_seed(*axes, seed):
    """One integer from named axes, for networks and trainers."""
    return int(seed_sequence(*axes, seed=seed).generate_state(1)[0])


def gan_trainer(task, seed, beta1=0.5, lr=1e-3, lr_g=None, **options):
    """A trainer of the small networks with Adam; networks depend on the seed alone."""
    from torch.optim import Adam

    from lib.games import GANTrainer, digits_networks, ring_networks

    make = {"ring": ring_networks, "digits": digits_networks}[task]
    init = _integer_seed(task, "networks", seed=seed)
    G, D = (network.double() for network in make(generator=init))
    rates = {G: lr if lr_g is None else lr_g, D: lr}
    opts = [Adam(net.parameters(), rates[net], (beta1, 0.999)) for net in (G, D)]
    options = {"batch_size": {"ring": 128, "digits": 64}[task]} | options
    seed = _integer_seed(task, "batches", seed=seed)
    return GANTrainer(G, D, *opts, generator=seed, **options)


def gan_ring_data(seed):
    """Ten thousand points of the ring of one seed."""
    rng = np.random.default_rng(seed_sequence("ring", "data", seed=seed))
    return ring_samples(10_000, rng)


def gan_ring_scores(trainer, n=2000):
    """Modes reached, share of samples near one, local spread, and a few samples."""
    from scipy.spatial import cKDTree

    from lib.games import mode_coverage, nearest_mode

    points = trainer.sample(n).numpy()
    label = nearest_mode(points, RING, RING_RADIUS)
    return {
        "modes": mode_coverage(label, 8),
        "quality": np.mean(label >= 0),
        "spread": np.median(cKDTree(points).query(points, k=2)[0][:, 1]),
        "points": points[:300].astype(np.float32),
    }


def _watched_training(trainer, x, steps, measure, times=8):
    """Train, measure at evenly spaced steps, and average the losses over 50 spans."""
    found = {"step": []}
    for _ in range(times):
        trainer.fit(x, steps=steps // times, progress=False)
        found["step"].append(trainer.step)
        for name, value in measure(trainer).items():
            found.setdefault(name, []).append(value)
    for name in ("loss_d", "loss_g"):
        found[name] = np.reshape(trainer.history[name], (50, -1)).mean(axis=1)
    return {name: np.array(values) for name, values in found.items()}


def run_gan_ring(configs, seeds, device):
    """A GAN on the ring; at the end its generator goes on against a frozen opponent."""
    import torch

    from lib.games import gan_losses

    for seed in seeds:
        x = gan_ring_data(seed)
        for config in configs:
            loss = config["loss"]
            trainer = gan_trainer("ring", seed, config["beta1"], loss=loss)
            arrays = _watched_training(trainer, x, config["steps"], gan_ring_scores)
            G, opt = trainer.G, trainer.opt_g
            rng = np.random.default_rng(seed_sequence("ring", "frozen", seed=seed))
            for _ in range(config["frozen"]):
                z = torch.from_numpy(rng.standard_normal((128, G.latent_dim)))
                fake = trainer.D(G(z))
                opt.zero_grad()
                gan_losses(fake, fake, loss)[1].backward()
                opt.step()
            frozen = gan_ring_scores(trainer)
            yield config, seed, arrays | {f"frozen_{k}": v for k, v in frozen.items()}


def run_gan_digits(configs, seeds, device):
    """A GAN on 8 x 8 digits, with the scores on its way."""
    x, scorer, reference = digits_data()

    def measure(trainer):
        sample = trainer.sample(2000)
        scores = digits_scores(sample.numpy(), scorer, reference)
        return scores | {"images": sample[:24, 0].numpy().astype(np.float32)}

    for seed in seeds:
        for config in configs:
            trainer = gan_trainer("digits", seed, config["beta1"], loss=config["loss"])
            yield config, seed, _watched_training(trainer, x, config["steps"], measure)


def run_gan_saturation(configs, seeds, device):
    """Gradients of both generator losses while the discriminator trains alone."""
    import torch

    from lib.data import load
    from lib.games import gan_losses

    images = 2.0 * load("digits")[0] - 1.0
    for seed in seeds:
        for config in configs:
            task, found = config["task"], {}
            x = images if task == "digits" else gan_ring_data(seed)
            trainer = gan_trainer(task, seed, lr_g=0.0)
            weights = list(trainer.G.parameters())
            rng = np.random.default_rng(seed_sequence(task, "noise", seed=seed))
            z = rng.standard_normal((512, trainer.G.latent_dim))
            z = torch.from_numpy(z)
            for step in config["steps"]:
                if step > trainer.step:
                    trainer.fit(x, steps=step - trainer.step, progress=False)
                fake = trainer.D(trainer.G(z))
                found.setdefault("logit", []).append(fake.mean().item())
                for loss in ("ns", "minimax"):
                    part = gan_losses(fake, fake, loss)[1]
                    v = torch.autograd.grad(part, weights, retain_graph=True)
                    norm = torch.cat([one.flatten() for one in v]).norm().item()
                    found.setdefault(loss, []).append(norm)
            yield config, seed, {k: np.array(v) for k, v in found.items()}


def gan_saturation_ratio(results):
    """Log10 of the ratio of the last gradients, "ns" over "minimax", a seed."""
    ratios = []
    for config in results.configs:
        cells = results.where(**config)
        ratios.append(cells.values("ns")[:, -1] / cells.values("minimax")[:, -1])
    return np.log10(np.min(ratios, axis=0))


def gan_ring_gain(results):
    """Late share of good samples on the ring, "ns" minus "minimax"."""
    a, b = (results.where(loss=k).values("quality") for k in ("ns", "minimax"))
    return (a - b)[:, a.shape[1] // 2 :].mean(axis=1)


def gan_digits_gain(results):
    """Late log distance of features on digits, "minimax" minus "ns"."""
    a, b = (np.log(results.where(loss=k).values("fid")) for k in ("ns", "minimax"))
    return (b - a)[:, a.shape[1] // 2 :].mean(axis=1)


def gan_frozen_loss(results):
    """Modes that are lost when the generator goes on against a frozen opponent."""
    return results.values("modes")[:, -1] - results.values("frozen_modes")


def gan_frozen_spread(results):
    """Log of the local spread before over that after playing a frozen opponent."""
    return np.log(results.values("spread")[:, -1] / results.values("frozen_spread"))


_NETWORKS = ("lib.games.metrics", "lib.games.models", "lib.games.train")

_GAN = (
    Experiment(
        name="gan-ring",
        summary="GAN on a ring of eight Gaussians: two losses, and a frozen opponent.",
        run=run_gan_ring,
        quick=_grid(loss=["ns", "minimax"], beta1=[0.5], steps=[1200], frozen=[300]),
        full=_grid(loss=["ns", "minimax"], beta1=[0.5], steps=[6000], frozen=[1000]),
        seeds={"quick": 3, "full": 5},
        modules=_NETWORKS,
    ),
    Experiment(
        name="gan-digits",
        summary="GAN on 8 x 8 digits: two losses, scores by a classifier.",
        run=run_gan_digits,
        quick=_grid(loss=["ns", "minimax"], beta1=[0.5], steps=[400]),
        full=_grid(loss=["ns", "minimax"], beta1=[0.5], steps=[4800]),
        seeds={"quick": 3, "full": 5},
        modules=_NETWORKS,
        data=("digits",),
    ),
    Experiment(
        name="gan-saturation",
        summary="Generator gradients of both losses against a discriminator ahead.",
        run=run_gan_saturation,
        quick=_grid(task=["digits"], steps=[[0, 3, 10, 30, 100]]),
        full=_grid(task=["ring", "digits"], steps=[[0, 3, 10, 30, 100, 300, 1000]]),
        seeds={"quick": 5, "full": 10},
        modules=_NETWORKS,
        data=("digits",),
    ),
)

# --- WGAN ---------------------------------------------------------------------------


# Steps of critic and generator, and the bound of the critic's weights.
WGAN_RATES = {"ring": (3e-3, 1e-3, 0.1), "digits": (5e-4, 5e-4, 0.05)}


def wgan_trainer(task, seed, game, critic="rmsprop", batch_norm=True):
    """A trainer of one game from networks and batches that the seed alone decides."""
    from torch.optim import Adam, RMSprop

    from lib.games import GANTrainer, MLPGenerator

    trainer = gan_trainer(task, seed)
    G, D = trainer.G, trainer.D
    if not batch_norm:
        init = _integer_seed(task, "plain networks", seed=seed)
        options = {"batch_norm": False, "generator": init}
        G = MLPGenerator(32, (1, 8, 8), (128, 128), **options).double()
    seed = _integer_seed(task, "batches", seed=seed)
    rest = {"batch_size": trainer.batch_size, "generator": seed}
    if game == "ns":
        opts = [Adam(net.parameters(), 1e-3, (0.5, 0.999)) for net in (G, D)]
        return GANTrainer(G, D, *opts, **rest)
    # small networks and short runs: larger steps and a larger bound than the paper's
    lr_d, lr_g, clip = WGAN_RATES[task]
    if critic == "rmsprop":
        opt_d = RMSprop(D.parameters(), lr_d)
    else:
        opt_d = Adam(D.parameters(), lr_d, (float(critic.split("-")[1]), 0.999))
    opts = (RMSprop(G.parameters(), lr_g), opt_d)
    return GANTrainer(G, D, *opts, loss="wgan", n_critic=5, clip=clip, **rest)


def critic_slopes(D, points):
    """Norms of the gradient of a critic at some points."""
    import torch

    points = torch.as_tensor(points).requires_grad_(True)
    slope = torch.autograd.grad(D(points).sum(), points)[0]
    return slope.flatten(1).norm(dim=1).numpy()


def critic_report(trainer, x, n=1000):
    """What the critic says of fresh samples, its largest slope, and the logit loss."""
    import torch

    from lib.games import gan_losses

    real = torch.as_tensor(x[:n])
    fake = trainer.sample(n, generator=1)
    with torch.no_grad():
        loss_d = gan_losses(trainer.D(real), trainer.D(fake), trainer.loss)[0].item()
    rng = np.random.default_rng(0)
    t = torch.from_numpy(rng.random((n, *[1] * (real.ndim - 1))))
    ends = torch.cat([real, fake, t * real + (1 - t) * fake])
    # for a GAN, the estimate of the Jensen-Shannon divergence
    value = -loss_d if trainer.loss == "wgan" else np.log(2) - loss_d / 2
    return {"value": value, "slope": critic_slopes(trainer.D, ends).max()}


def exact_wasserstein(x, y):
    """The distance between two samples of one size, by optimal assignment."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    cost = cdist(x, y)
    return cost[linear_sum_assignment(cost)].mean()


def run_wgan_ring(configs, seeds, device):
    """GAN and WGAN on the ring, with the exact distance beside the critic's."""
    for seed in seeds:
        x = gan_ring_data(seed)

        def measure(trainer, x=x):
            scores = gan_ring_scores(trainer) | critic_report(trainer, x)
            sample = trainer.sample(400, generator=1).numpy()
            return scores | {"w1": exact_wasserstein(sample, x[:400])}

        for config in configs:
            trainer = wgan_trainer("ring", seed, config["game"], config["critic"])
            steps = config["steps"]
            yield config, seed, _watched_training(trainer, x, steps, measure, 10)


def run_wgan_digits(configs, seeds, device):
    """GAN and WGAN on 8 x 8 digits, the generator with and without normalisation."""
    x, scorer, reference = digits_data()

    def measure(trainer):
        sample = trainer.sample(2000)
        scores = digits_scores(sample.numpy(), scorer, reference)
        images = sample[:24, 0].numpy().astype(np.float32)
        return scores | critic_report(trainer, x) | {"images": images}

    for seed in seeds:
        for config in configs:
            options = {"batch_norm": config["batch_norm"]}
            trainer = wgan_trainer("digits", seed, config["game"], **options)
            steps = config["steps"]
            yield config, seed, _watched_training(trainer, x, steps, measure, 10)


def critic_on_line(kind, seed, gap, clip, depth=2, steps=600, width=32):
    """A critic or discriminator trained between N(0, 1/4) and N(gap, 1/4)."""
    import torch

    from lib.games import MLPDiscriminator, gan_losses

    rng = np.random.default_rng(seed_sequence("line", seed=seed))
    init = int(rng.integers(2**32))
    D = MLPDiscriminator((1,), (width,) * depth, generator=init).double()
    if kind == "wgan":
        opt = torch.optim.RMSprop(D.parameters(), 0.02 * clip)
    else:
        opt = torch.optim.Adam(D.parameters(), 5e-3)
    for _ in range(steps):
        noise = torch.from_numpy(rng.standard_normal((2, 128, 1)))
        opt.zero_grad()
        gan_losses(D(noise[0] / 2), D(noise[1] / 2 + gap), kind)[0].backward()
        opt.step()
        if kind == "wgan":
            with torch.no_grad():
                for w in D.parameters():
                    w.clamp_(-clip, clip)
    return D


def layer_gradients(D, points):
    """Mean norms of the gradient of a critic at the outputs of its hidden layers."""
    import torch

    h, hidden = points, []
    for layer in D.layers:
        h = layer(h)
        if isinstance(layer, torch.nn.LeakyReLU):
            hidden.append(h)
    return np.array(
        [g.norm(dim=1).mean().item() for g in torch.autograd.grad(h.sum(), hidden)]
    )


def run_wgan_critic(configs, seeds, device):
    """A critic alone, for many bounds of its weights and two depths."""
    import torch

    for seed in seeds:
        rng = np.random.default_rng(seed_sequence("line samples", seed=seed))
        noise = torch.from_numpy(rng.standard_normal((2, 1000, 1)))
        for config in configs:
            kind, gap = config["game"], config["gap"]
            rest = (gap, config["clip"], config["depth"], config["steps"])
            D = critic_on_line(kind, seed, *rest)
            real, fake = noise[0] / 2, noise[1] / 2 + gap
            line = np.linspace(-1.5, gap + 1.5, 121)[:, None]
            found = {"between": critic_slopes(D, line), "at": critic_slopes(D, fake)}
            found["layers"] = layer_gradients(D, torch.cat([real, fake]))
            with torch.no_grad():
                found["profile"] = D(torch.from_numpy(line)).numpy()
                found["value"] = (D(real).mean() - D(fake).mean()).item()
                found["probability"] = torch.sigmoid(D(fake)).numpy().mean()
                if kind == "ns":  # the slope of D itself, not of its logit
                    for name, points in (("between", line), ("at", fake)):
                        p = torch.sigmoid(D(torch.as_tensor(points))).numpy()
                        found[name] = found[name] * p * (1 - p)
            found["at"] = found["at"].mean()
            yield config, seed, found


def _wgan_rank(cells, quality):
    """Rank correlation of a critic's value with a distance along each run."""
    from scipy.stats import spearmanr

    return np.array(
        [spearmanr(c.data["value"], c.data[quality]).statistic for c in cells]
    )


def wgan_ring_progress(results):
    """Rank correlation of the critic's value with the exact distance, a seed."""
    return _wgan_rank(results, "w1")


def wgan_digits_progress(results):
    """Rank correlation of the critic's value with the feature distance, a seed."""
    return _wgan_rank(results, "fid")


def wgan_over_gan_progress(results):
    """That correlation for the critic, less the one for the discriminator."""
    a, b = (_wgan_rank(results.where(game=k), "fid") for k in ("wgan", "ns"))
    return a - b


def wgan_no_collapse(results):
    """Whether all eight modes are covered at the end, a seed."""
    return results.values("modes")[:, -1] == 8


def wgan_momentum_harm(results):
    """Late log distance on the ring, momentum less RMSProp or Adam(0), a seed."""
    plain, momentum = (
        np.log(results.where(critic=critics).values("w1"))
        for critics in (["rmsprop", "adam-0.0"], ["adam-0.5", "adam-0.9"])
    )
    return (momentum - plain)[:, plain.shape[1] // 2 :].mean(axis=1)


def wgan_digits_gain(results):
    """Late log distance of features on digits, GAN less WGAN, a seed."""
    a, b = (np.log(results.where(game=k).values("fid")) for k in ("ns", "wgan"))
    return (a - b)[:, a.shape[1] // 2 :].mean(axis=1)


def wgan_signal_ratio(results):
    """Log10 of mean slope at samples over largest slope, critic less discriminator."""
    shares = []
    for game in ("wgan", "ns"):
        cells = results.where(game=game)
        shares.append(cells.values("at") / cells.values("between").max(axis=1))
    return np.log10(shares[0] / np.maximum(shares[1], 1e-12))


def wgan_layer_decades(results):
    """Log10 of the gradient's norm in the first hidden layer over the last, a seed."""
    layers = np.maximum(results.values("layers"), 1e-300)
    return np.log10(layers[:, 0] / layers[:, -1])


def wgan_vanish_and_explode(results):
    """Whether gradients vanish for the smallest bound and explode for the largest."""
    bounds = [c["clip"] for c in results.configs]
    small, large = (
        wgan_layer_decades(results.where(clip=c)) for c in (min(bounds), max(bounds))
    )
    return (small < -1) & (large > 1)


def _wgan_critic_grid(steps):
    """Bounds of the weights for a shallow and a deep critic, and a discriminator."""
    shared = {"gap": 4.0, "steps": steps}
    bounds = _grid(game=["wgan"], clip=[0.01, 0.03, 0.1, 0.3], depth=[2, 8])
    judge = {"game": "ns", "clip": 0.0, "depth": 2}
    return tuple(config | shared for config in (*bounds, judge))


def _wgan_digits_grid(steps, *batch_norm):
    """Five critic steps a generator step against three of a GAN."""
    games = {"ns": 3 * steps, "wgan": steps}
    return tuple(
        {"game": game, "batch_norm": b, "steps": n}
        for b in batch_norm
        for game, n in games.items()
    )


def _wgan_ring_grid(steps, *critics):
    """A GAN, and a WGAN for every optimizer of its critic."""
    return (
        {"game": "ns", "critic": "adam-0.5", "steps": 2 * steps},
        *({"game": "wgan", "critic": c, "steps": steps} for c in critics),
    )


_WASSERSTEIN = (
    Experiment(
        name="wgan-ring",
        summary="WGAN and GAN on the ring: critic's value, exact distance, momentum.",
        run=run_wgan_ring,
        quick=_wgan_ring_grid(300, "rmsprop"),
        full=_wgan_ring_grid(1200, "rmsprop", "adam-0.0", "adam-0.5", "adam-0.9"),
        seeds={"quick": 1, "full": 4},
        modules=_NETWORKS,
    ),
    Experiment(
        name="wgan-digits",
        summary="WGAN and GAN on 8 x 8 digits, with and without normalisation.",
        run=run_wgan_digits,
        quick=_wgan_digits_grid(250, False),
        full=_wgan_digits_grid(800, True, False),
        seeds={"quick": 1, "full": 4},
        modules=_NETWORKS,
        data=("digits",),
    ),
    Experiment(
        name="wgan-critic",
        summary="A critic alone between two normal laws: bounds of weights, depth.",
        run=run_wgan_critic,
        quick=_wgan_critic_grid(300),
        full=_wgan_critic_grid(1000),
        seeds={"quick": 1, "full": 10},
        modules=("lib.games.models", "lib.games.train"),
    ),
)

# --- the report's tables -------------------------------------------------------------

# Which optimizers, at how many times the report's step size: first the report's five,
# then those without momentum, then SGD at the effective step of momentum 0.9, ten times
# the nominal one, and the WGAN's own optimizer.
TABLE_ROWS = (
    tuple((m, 1) for m in ("adam-half", "oadam", "adam-nm", "sgd-momentum", "sgd-nm")),
    (("adam-zero", 1), ("oadam-zero", 1)),
    (("sgd-nm", 15), ("sgd", 10), ("rmsprop", 1)),
)
TABLE_GAMES = ("gan", "wgan", "dcgan")
#: Step sizes of the adaptive methods and of SGD; bound of the critic's weights.
TABLE_STEPS = {
    "mnist": {"gan": 2e-4, "dcgan": 2e-4, "wgan": 5e-5, "sgd": 1e-3, "clip": 0.01},
    "digits": {"gan": 1e-3, "dcgan": 1e-3, "wgan": 5e-4, "sgd": 0.01, "clip": 0.05},
}
TABLE_MARKS = (0.005, 0.015, 0.05, 0.125, 0.25, 0.5, 0.75, 1.0)  # of all epochs
TABLE_BATCH = 64
# Pixels of real images that one training may see on a CPU: MNIST waits for a GPU.
CPU_PIXELS = 1e8


def table_networks(data, game, seed):
    """The report's networks, or small ones for 8 x 8 digits."""
    import torch

    from lib.games import (
        DCGANDiscriminator,
        DCGANGenerator,
        MLPDiscriminator,
        MLPGenerator,
        digits_networks,
    )

    stream = torch.Generator().manual_seed(seed)
    if data == "digits":
        if game != "dcgan":
            return digits_networks(generator=stream)
        G = DCGANGenerator(8, 32, width=8, generator=stream)
        return G, DCGANDiscriminator(8, width=8, generator=stream)
    if game != "dcgan":
        G = MLPGenerator(bn_eps=0.8, generator=stream)
        return G, MLPDiscriminator(generator=stream)
    G = DCGANGenerator(bn_eps=0.8, generator=stream)
    return G, DCGANDiscriminator(bn_eps=0.8, generator=stream)


def table_data(data, game, device="cpu"):
    """Images at the game's size, a classifier of them, features of the test images."""
    import torch
    from torch.nn.functional import interpolate

    from lib.data import load
    from lib.games import ClassifierScorer

    if data == "digits":
        return digits_data()
    (X, y), (X_test, _) = load(data), load(data, "test")
    x, x_test = (torch.from_numpy(2.0 * a - 1.0).to(device) for a in (X, X_test))
    if game == "dcgan":  # enlarged before the training: scores at native size
        options = {"mode": "bilinear", "antialias": True}
        x, x_test = (interpolate(a, (32, 32), **options) for a in (x, x_test))
        x, x_test = x.clamp(-1, 1), x_test.clamp(-1, 1)
    scorer = ClassifierScorer(
        "cnn",
        n_features=64,
        epochs=5,
        lr=2e-3,
        batch_size=256,
        device=device,
        generator=0,
    )
    return x, scorer.fit(x, y), scorer.features(x_test)


def table_scores(samples, scorer, reference, final=False):
    """Scores of generated images; those by neighbours at the end only, on a part."""
    from lib._backend import to_numpy
    from lib.games import fid, inception_score, kid, mode_coverage, prdc

    names = ("precision", "recall", "density", "coverage")
    if not bool((abs(samples) <= 1).all()):  # nor where they are not finite
        scores = {"is": np.nan, "fid": np.nan, "modes": 0}
        more = dict.fromkeys(("is_splits", "is_std", "kid", *names), np.nan)
        return scores | (more if final else {})
    p = to_numpy(scorer.predict_proba(samples))
    features = scorer.features(samples)
    scores = {
        "is": inception_score(p, splits=1)[0],
        "fid": fid(reference, features),
        "modes": mode_coverage(p.argmax(axis=1), p.shape[1]),
    }
    if final:
        scores["is_splits"], scores["is_std"] = inception_score(p, splits=10)
        part = min(2000, len(reference))
        real, fake = reference[:part], features[:part]
        scores["kid"] = kid(real, fake)
        scores |= dict(zip(names, prdc(real, fake), strict=True))
    return scores


def _table_stacks(configs, seeds, device, phase):
    """Cells to train side by side, the most wanted first: one seed of everything."""
    stacks = {}
    for config in configs:
        for seed in seeds:
            wave = seed if device == "cpu" else min(seed, 1)
            game = TABLE_GAMES.index(config["game"])
            key = (wave, phase(config), game, config["data"], config["epochs"])
            key += (config.get("kind", ""),)
            stacks.setdefault(key, []).append((config, seed))
    return [stacks[key] for key in sorted(stacks)]


def _train_tables(stacks, device, lr, marks):
    """Train stacks of cells, and yield what was measured on the way."""
    from lib.replication.checkpoint import Checkpoint

    known = {}
    for cells in stacks:
        first = cells[0][0]
        data, game, epochs = (first[key] for key in ("data", "game", "epochs"))
        size = {"digits": 8, "mnist": 32 if game == "dcgan" else 28}[data]
        images = {"digits": 1_400, "mnist": 60_000}[data] * epochs
        if device == "cpu" and images * size**2 > CPU_PIXELS:
            continue
        # a run may have been cut off between the first and the last cell of a stack
        ready = {id(cell): Checkpoint(cell, seconds=0.0) for cell in cells}
        done = {id(cell): ready[id(cell)].load() for cell in cells}
        left = [cell for cell in cells if done[id(cell)] is None]
        if left:
            if (data, game) not in known:
                known[data, game] = table_data(data, game, device)
            saved = Checkpoint(left)
            arrays = _train_stack(left, *known[data, game], device, lr, marks, saved)
            for cell, one in zip(left, arrays, strict=True):
                done[id(cell)] = one
                ready[id(cell)].save(lambda one=one: one)
            saved.clear()
        for cell in cells:
            yield *cell, done[id(cell)]
            ready[id(cell)].clear()


def _train_stack(cells, x, scorer, reference, device, lr, marks, saved):
    from functools import partial

    import torch

    from lib.games import StackedGAN, StackedRun

    first = cells[0][0]
    data, game = first["data"], first["game"]
    # samples on the way and at the end
    chunk, sizes = (50, (10_000, 10_000)) if data == "mnist" else (10, (2000, 5000))
    runs = [
        StackedRun(
            config["method"],
            lr(config),
            _integer_seed("table", data, seed=seed),
            config.get("gamma", 0.0),
        )
        for config, seed in cells
    ]
    options = {"consensus": first.get("kind")}
    if game == "wgan":
        options |= {"loss": "wgan", "n_critic": 5, "clip": TABLE_STEPS[data]["clip"]}
    stack = StackedGAN(
        partial(table_networks, data, game),
        runs,
        chunk=chunk,
        batch_size=TABLE_BATCH,
        device=device,
        dtype=torch.float64 if data == "digits" else torch.float32,
        **options,
    )
    x, found = x.to(device, stack.dtype), []
    if state := saved.load():
        stack.load_state_dict(state["stack"])
        found = state["found"]

    def keep(stack):
        saved.save(lambda: {"stack": stack.state_dict(), "found": found})

    per_epoch = len(x) // TABLE_BATCH / chunk
    stops = [chunk * max(1, round(m * first["epochs"] * per_epoch)) for m in marks]
    for stop in stops[len(found) :]:
        if stop > stack.iteration:
            more = stop - stack.iteration
            stack.fit(x, more, callback=keep, progress=False)
        found.append([])
        last = len(found) == len(stops)
        samples = stack.sample(sizes[last])
        for (_, seed), mine in zip(cells, samples, strict=True):
            scores = table_scores(mine, scorer, reference, last)
            scores["epoch"] = stop / (per_epoch * chunk)
            if seed == 0:  # pictures of one seed are enough, and fill the disk
                grid = mine[:25, 0].nan_to_num().clamp(-1, 1)
                scores["images"] = (127.5 * (grid + 1)).round().byte().cpu().numpy()
            found[-1].append(scores)
    losses = {name: np.array(stack.history[name]) for name in ("loss_d", "loss_g")}
    for k, records in enumerate(zip(*found, strict=True)):
        arrays = {name: np.float32(losses[name][:, k]) for name in losses}
        for name, last in records[-1].items():
            on_the_way = name in records[0]
            values = [one[name] for one in records] if on_the_way else last
            arrays[name] = np.array(values)
        yield arrays


def run_gan_table(configs, seeds, device):
    """The report's Table 1: three games, their optimizers and seeds side by side."""

    def phase(config):
        row = (config["method"], config["step"])
        return next(k for k, rows in enumerate(TABLE_ROWS) if row in rows)

    def lr(config):
        steps = TABLE_STEPS[config["data"]]
        plain = config["method"].startswith("sgd")
        return config["step"] * steps["sgd" if plain else config["game"]]

    stacks = _table_stacks(configs, seeds, device, phase)
    yield from _train_tables(stacks, device, lr, TABLE_MARKS)


def run_gan_consensus(configs, seeds, device):
    """The report's Table 2: consensus of a stack of weights, optimizers and seeds."""

    def phase(config):
        wanted = config["kind"] == "joint" and config["gamma"] in (0.01, 10.0)
        return 0 if wanted else 1

    stacks = _table_stacks(configs, seeds, device, phase)
    count = {"digits": 10, "mnist": 20}[configs[0]["data"]]
    marks = np.arange(1, count + 1) / count
    yield from _train_tables(stacks, device, lambda config: config["lr"], marks)


def _table_score(results, method, step=1, key="is"):
    return results.where(method=method, step=step).values(key)[:, -1]


def _table_gain(results, better, worse, key="is"):
    a, b = (_table_score(results, *row, key=key) for row in (better, worse))
    return a - b


def table_oadam_gain(results):
    """Last inception score, OAdam(0.5) minus Adam(0.5)."""
    return _table_gain(results, ("oadam",), ("adam-half",))


def table_oadam_loss(results):
    """Last inception score, Adam(0.5) minus OAdam(0.5)."""
    return -table_oadam_gain(results)


def table_nm_gain(results):
    """Last inception score, Adam(-0.5) minus Adam(0.5)."""
    return _table_gain(results, ("adam-nm",), ("adam-half",))


def table_sgd_gain(results):
    """Last inception score, SGD(0.9) minus Adam(0.5)."""
    return _table_gain(results, ("sgd-momentum",), ("adam-half",))


def table_sgdnm_loss(results):
    """Last inception score, SGD(0.9) minus SGD(-0.5) at the same nominal step."""
    return _table_gain(results, ("sgd-momentum",), ("sgd-nm",))


def table_sgdnm_untuned(results):
    """Last inception score, SGD(0.9) minus SGD(-0.5) at the same effective step."""
    return _table_gain(results, ("sgd-momentum",), ("sgd-nm", 15))


def table_optimism_gain(results):
    """Last inception score, OAdam(0.5) minus Adam(0)."""
    return _table_gain(results, ("oadam",), ("adam-zero",))


def table_true_optimism_gain(results):
    """Last inception score, OAdam(0) minus Adam(0)."""
    return _table_gain(results, ("oadam-zero",), ("adam-zero",))


def _table_best(results, method):
    others = [row for row in TABLE_ROWS[0] if row[0] != method]
    rest = [_table_score(results, *row) for row in others]
    return _table_score(results, method) - np.max(rest, axis=0)


def table_nm_best(results):
    """Last inception score, Adam(-0.5) minus the best of the report's other four."""
    return _table_best(results, "adam-nm")


def table_oadam_best(results):
    """Last inception score, OAdam(0.5) minus the best of the report's other four."""
    return _table_best(results, "oadam")


def table_dcgan_over_gan(results):
    """Last inception score with Adam(0.5), DCGAN minus GAN."""
    a, b = (_table_score(results.where(game=g), "adam-half") for g in ("dcgan", "gan"))
    return a - b


def table_dcgan_over_wgan(results):
    """Last inception score with Adam(0.5), DCGAN minus WGAN."""
    a, b = (_table_score(results.where(game=g), "adam-half") for g in ("dcgan", "wgan"))
    return a - b


def table_last_score(results):
    """Last inception score of one row."""
    return results.values("is")[:, -1]


def _table_early(results, method):
    """Mean gain of inception score over Adam(0.5) in the first quarter."""
    both = [results.where(method=m, step=1) for m in (method, "adam-half")]
    early = both[0].values("epoch")[0] <= 0.26 * both[0].configs[0]["epochs"]
    a, b = (one.values("is")[:, early].mean(axis=1) for one in both)
    return a - b


def table_oadam_early(results):
    """Mean inception score in the first quarter, OAdam(0.5) minus Adam(0.5)."""
    return _table_early(results, "oadam")


def table_nm_early(results):
    """Mean inception score in the first quarter, Adam(-0.5) minus Adam(0.5)."""
    return _table_early(results, "adam-nm")


def _roughness(results):
    """Deviation of the generator's loss from one record to the next, second half."""
    loss = results.values("loss_g").astype(float)
    return np.std(np.diff(loss[:, loss.shape[1] // 2 :]), axis=1) / np.sqrt(2)


def table_nm_smoother(results):
    """Log roughness of the generator's loss, Adam(0.5) over Adam(-0.5)."""
    rough, smooth = (
        _roughness(results.where(method=m, step=1)) for m in ("adam-half", "adam-nm")
    )
    return np.log(rough / smooth)


#: The report's Table 1: scores and their plus-minus, in the order of TABLE_ROWS[0].
REPORT_TABLE_1 = {
    "gan": ((1.878, 0.012), (3.085, 0.033), (3.148, 0.019), (2.691, 0.019),
            (1.547, 0.006)),
    "dcgan": ((2.412, 0.021), (2.453, 0.018), (2.427, 0.010), (2.208, 0.017),
              (1.100, 0.001)),
    "wgan": ((2.355, 0.017), (2.026, 0.009), (2.459, 0.015), (1.007, 0.000),
             (1.018, 0.000)),
}  # fmt: skip
#: The report's Table 2: at half time and at the end.
REPORT_TABLE_2 = ((2.453, 0.018), (1.202, 0.002))


def table_rank(results):
    """Rank correlation of last scores with the report's, one number a seed."""
    from scipy.stats import spearmanr

    ours, theirs = [], []
    for game in dict.fromkeys(config["game"] for config in results.configs):
        for (method, step), (score, _) in zip(
            TABLE_ROWS[0], REPORT_TABLE_1[game], strict=True
        ):
            ours.append(_table_score(results.where(game=game), method, step))
            theirs.append(score)
    return np.array([spearmanr(row, theirs).statistic for row in np.array(ours).T])


def table_spread_covered(results):
    """How far the plus-minus over splits covers what another seed changes.

    Minus the median, over the report's rows, of the logarithm of a seed's distance
    from the mean of the others over its own deviation over splits.
    """
    logs = []
    for config in results.configs:
        if (config["method"], config["step"]) not in TABLE_ROWS[0]:
            continue
        cells = results.where(**config)
        score, spread = cells.values("is_splits"), cells.values("is_std")
        n = len(score)
        gap = np.abs(score - score.mean()) * n / (n - 1)
        logs.append(np.log(np.maximum(gap, 1e-9) / np.maximum(spread, 1e-9)))
    return -np.median(logs, axis=0)


def co_table_collapse(results):
    """Inception score at half time minus that at the end."""
    score = results.values("is")
    return score[:, score.shape[1] // 2 - 1] - score[:, -1]


def co_table_early(results):
    """Inception score at half time, gamma 0.01 minus 0."""
    a, b = (results.where(gamma=g).values("is") for g in (0.01, 0.0))
    return (a - b)[:, a.shape[1] // 2 - 1]


def co_table_no_settings(results):
    """Last inception score, Adam and gamma 0.01 minus RMSProp and gamma 10."""
    a = results.where(method="adam-half", gamma=0.01).values("is")
    b = results.where(method="rmsprop-short", gamma=10.0).values("is")
    return (a - b)[:, -1]


def co_table_own_gap(results):
    """Last inception score, the joint regulariser minus each player's own."""
    a, b = (results.where(kind=k).values("is")[:, -1] for k in ("joint", "own"))
    return a - b


def co_table_smoother(results):
    """Log roughness of the generator's loss, gamma 0 over the other one."""
    rough = _roughness(results.where(gamma=0.0))
    (weight,) = {c["gamma"] for c in results.configs} - {0.0}
    return np.log(rough / _roughness(results.where(gamma=weight)))


def _table_grid(data, epochs, games=TABLE_GAMES, rows=None):
    """Every row of Table 1 and those beside it; RMSProp is the WGAN's."""
    return tuple(
        {"data": data, "game": game, "method": m, "step": step, "epochs": epochs[game]}
        for m, step in (rows or [row for part in TABLE_ROWS for row in part])
        for game in games
        if m != "rmsprop" or game == "wgan"
    )


def _consensus_grid(data, game, epochs, *rows):
    names = ("method", "lr", "gamma", "kind")
    shared = {"data": data, "game": game, "epochs": epochs}
    return tuple(shared | dict(zip(names, row, strict=True)) for row in rows)


_TABLE_MODULES = ("lib.games.metrics", "lib.games.models", "lib.games.stacked")
_TABLE_QUICK = (("adam-half", 1), ("adam-zero", 1), ("oadam", 1), ("sgd-nm", 1))
_CO_BOTH = (("adam-half", 1e-3), ("rmsprop-short", 1e-4))

_TABLES = (
    Experiment(
        name="gan-table",
        summary="The report's Table 1 on 8 x 8 digits: games, optimizers, scores.",
        run=run_gan_table,
        quick=_table_grid("digits", {"gan": 12}, ["gan"], _TABLE_QUICK),
        # a DCGAN learns nothing from 8 x 8 digits in the time of the others
        full=_table_grid("digits", {"gan": 60, "wgan": 150}, ["gan", "wgan"]),
        seeds={"quick": 2, "full": 5},
        modules=_TABLE_MODULES,
        data=("digits",),
    ),
    Experiment(
        name="gan-mnist",
        summary="The report's Table 1 on MNIST, with the rows that it leaves out.",
        run=run_gan_table,
        full=_table_grid("mnist", dict.fromkeys(TABLE_GAMES, 200)),
        seeds={"quick": 1, "full": 3},
        modules=_TABLE_MODULES,
        data=("mnist",),
        cuda=True,
    ),
    Experiment(
        name="gan-consensus",
        summary="The report's Table 2: consensus of a DCGAN on MNIST; digits live.",
        run=run_gan_consensus,
        quick=_consensus_grid(
            "digits",
            "gan",
            10,
            *((*_CO_BOTH[0], g, "joint") for g in (0.0, 0.01, 1.0)),
        ),
        full=_consensus_grid(
            "mnist",
            "dcgan",
            100,
            *((*opt, g, "joint") for g in (0.01, 10.0, 1.0, 0.0) for opt in _CO_BOTH),
            *((*opt, 10.0, "own") for opt in _CO_BOTH),
        ),
        seeds={"quick": 2, "full": 3},
        modules=_TABLE_MODULES,
        data=("digits", "mnist"),
        cuda=True,
    ),
)

EXPERIMENTS = (*_OPTIMISM, *_MOMENTUM, *_CONSENSUS, *_GAN, *_WASSERSTEIN, *_TABLES)
