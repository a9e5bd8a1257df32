"""
Accelerated methods against their strongest peers, on the same work.

Counts come first, for they do not depend on the machine: gradients plus products with
the Hessian. Five parts, in one process and one thread, each ratio with its spread:

- mlp: L-BFGS with a certificate of curvature on a network for the digits, against
  itself without the certificate, scipy's L-BFGS-B and torch's L-BFGS;
- natural: 17 problems to a gradient of 1e-5, every method against scipy's L-BFGS-B;
- hvp: the product with a Hessian, against curvlinops, torch.func and a gradient, by
  turns and by the processor's clock;
- anc: the accelerated non-convex method with tight against the paper's constants;
- relu: a step of the wide ReLU layer against its two matrix products, bare.

All is stored as the benchmark "acceleration" of the registry.

    python benchmarks/acceleration.py [--repeats 7]
"""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

from lib import replication  # noqa: E402
from lib.acceleration import (  # noqa: E402
    WideReLU,
    biweight,
    hvp_operator,
    minimize_nonconvex,
    phase_retrieval,
    ramp,
)
from lib.data import load  # noqa: E402
from lib.replication.experiments import acceleration as experiments  # noqa: E402

CALLS = 5  # a repeat keeps the best of so many calls: noise only ever adds time
PEERS = ("curvlinops-for-pytorch",)
NETWORKS = ((64, 16, 10), (64, 256, 128, 10))
METHODS = (
    *experiments.NATURAL_SCIPY,
    "lbfgs-nc",
    "nag-restart",
    "restarted-agd",
    "arc",
)
ANC = {
    "ramp-1e-1.5": lambda seed: (ramp(10**-1.5), 10**-1.5),
    "ramp-1e-2": lambda seed: (ramp(1e-2), 1e-2),
    "ramp-1e-2.5": lambda seed: (ramp(10**-2.5), 10**-2.5),
    "biweight": lambda seed: (biweight(seed=seed), 1e-2),
    "phase": lambda seed: (phase_retrieval(seed=seed), 1e-1),
}
RELU = {"n": 300, "d": 784, "m": 4000}


def seconds(call):
    start = time.process_time()
    call()
    return time.process_time() - start


class Stop(Exception):
    """The gradient is small enough."""


def network(sizes, decay):
    """Make the loss of a tanh network on the digits, and a start, in float64."""
    X, y = load("digits", "train", flatten=True)
    X, y = torch.tensor(X, dtype=torch.float64), torch.tensor(y)
    layers = list(zip(sizes, sizes[1:], strict=False))

    def loss(w):
        z, at = X, 0
        for k, (a, b) in enumerate(layers):
            z = torch.addmm(
                w[at + a * b : at + a * b + b], z, w[at : at + a * b].view(b, a).T
            )
            at += a * b + b
            if k + 1 < len(layers):
                z = torch.tanh(z)
        return torch.nn.functional.cross_entropy(z, y) + decay / 2 * (w @ w)

    def start(seed):
        rng = np.random.default_rng(seed)
        parts = [
            part
            for a, b in layers
            for part in (rng.standard_normal(a * b) / np.sqrt(a), np.zeros(b))
        ]
        return torch.tensor(np.concatenate(parts))

    return loss, start


def mlp(repeats, tol=1e-4):
    """Yield the calls to a small gradient on the network with 1,210 weights."""
    loss, start = network(NETWORKS[0], decay=1e-4)
    for repeat in range(repeats):
        x0 = start(repeat)
        result = minimize_nonconvex(loss, x0, method="lbfgs-nc", tol=tol, seed=repeat)
        assert result.certificate == "second-order"
        history = result.history
        # the bare method ends where the certificate begins
        bare = history["oracle"][history["event"] == "step"][-1]
        yield (
            {"kind": "mlp", "d": len(x0), "tol": tol},
            repeat,
            {
                "ours": result.njev + result.nhevp,
                "products": result.nhevp,
                "bare": bare,
                "l-bfgs-b": _scipy_gradients(loss, x0, tol, maxcor=10),
                "l-bfgs-b-100": _scipy_gradients(loss, x0, tol, maxcor=100),
                "torch": _torch_gradients(loss, x0, tol),
                "lambda_min": result.lambda_min,
            },
        )


def _scipy_gradients(loss, x0, tol, maxcor):
    from scipy.optimize import minimize

    norms = []

    def both(x):
        x = torch.from_numpy(x).requires_grad_()
        value = loss(x)
        (g,) = torch.autograd.grad(value, x)
        norms.append(float(g.norm()))
        return value.item(), g.numpy()

    def stop(_):
        if norms[-1] <= tol:
            raise StopIteration

    minimize(
        both,
        x0.numpy(),
        jac=True,
        method="L-BFGS-B",
        callback=stop,
        options={"maxcor": maxcor, "maxfun": 10**6, "ftol": 0, "gtol": 0},
    )
    return len(norms) if norms[-1] <= tol else np.inf


def _torch_gradients(loss, x0, tol):
    x, count = x0.clone().requires_grad_(), 0
    solver = torch.optim.LBFGS(
        [x],
        max_iter=10**5,
        max_eval=10**5,
        tolerance_grad=0,
        tolerance_change=0,
        history_size=100,
        line_search_fn="strong_wolfe",
    )

    def closure():
        nonlocal count
        solver.zero_grad()
        value = loss(x)
        value.backward()
        count += 1
        if x.grad.norm() <= tol:
            raise Stop
        return value

    try:
        solver.step(closure)
    except Stop:
        return count
    return np.inf


def natural(repeats):
    """Yield the calls of every method on the 17 problems; a repeat draws others."""
    grid = experiments._natural_grid(METHODS)
    for config, repeat, numbers in experiments.run_natural(grid, range(repeats), "cpu"):
        kept = ("calls", "certified", "fun", "lambda_min")
        yield {"kind": "natural", **config}, repeat, {k: numbers[k] for k in kept}


def products(repeats):
    """Yield the seconds of one product with the Hessian, and of a gradient."""
    for sizes in NETWORKS:
        loss, start = network(sizes, decay=0.0)
        for repeat in range(repeats):
            w = start(repeat)
            calls = _product_calls(loss, w, sizes, repeat)
            with threadpool_limits(1):
                yield (
                    {"kind": "hvp", "sizes": list(sizes), "d": len(w)},
                    repeat,
                    _by_turns(calls, repeat),
                )


def _product_calls(loss, w, sizes, seed):
    v = torch.tensor(np.random.default_rng(seed).standard_normal(len(w)))
    ours = hvp_operator(loss, w)

    def gradient():
        x = w.clone().requires_grad_()
        return torch.autograd.grad(loss(x), x)[0]

    calls = {
        "ours": lambda: ours(v),
        "gradient": gradient,
        "jvp": lambda: torch.func.jvp(torch.func.grad(loss), (w,), (v,))[1],
        "functional": lambda: torch.autograd.functional.hvp(loss, w, v)[1],
    }
    peer = _curvlinops(w, sizes)
    if peer is not None:
        calls["curvlinops"] = lambda: peer @ v
    for name in set(calls) - {"ours", "gradient"}:
        assert torch.allclose(calls[name](), ours(v), rtol=1e-9, atol=1e-12), name
    return calls


def _curvlinops(w, sizes):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from curvlinops import HessianLinearOperator
    except ImportError:
        print("curvlinops is not installed: no comparison with it")
        return None
    X, y = load("digits", "train", flatten=True)
    layers, at = [], 0
    for a, b in zip(sizes, sizes[1:], strict=False):
        layer = torch.nn.Linear(a, b, dtype=torch.float64)
        layer.weight.data = w[at : at + a * b].view(b, a).clone()
        layer.bias.data = w[at + a * b : at + a * b + b].clone()
        at += a * b + b
        layers += [layer, torch.nn.Tanh()]
    model = torch.nn.Sequential(*layers[:-1])
    data = [(torch.tensor(X, dtype=torch.float64), torch.tensor(y))]
    return HessianLinearOperator(
        model,
        torch.nn.CrossEntropyLoss(),
        list(model.parameters()),
        data,
        check_deterministic=False,
    )


def _by_turns(calls, seed):
    names = list(calls)
    numbers = {f"{name}_s": np.inf for name in names}
    for call in range(2 * CALLS):
        for name in names if (seed + call) % 2 else names[::-1]:
            # several at once: the clock ticks in milliseconds on some machines
            took = seconds(lambda name=name: [calls[name]() for _ in range(4)]) / 4
            numbers[f"{name}_s"] = min(numbers[f"{name}_s"], took)
    return numbers


def constants(repeats):
    """Yield the calls of ANC with the paper's and with the tight constants."""
    for what, make in ANC.items():
        for repeat in range(1 if what.startswith("ramp") else repeats):
            problem, tol = make(repeat)
            calls = {}
            for name in ("paper", "tight"):
                result = minimize_nonconvex(
                    problem.fun,
                    problem.x0,
                    constants=name,
                    tol=tol,
                    max_oracle=5_000_000,
                    seed=repeat,
                    **problem.functions,
                    **problem.constants,
                )
                assert result.success, result.message
                calls[name] = result.njev + result.nhevp
            yield {"kind": "anc", "problem": what, "tol": tol}, repeat, calls


def layer(repeats):
    """Yield the seconds of a step of the ReLU layer, and of its two products."""
    for dtype in ("float64", "float32"):
        for repeat in range(repeats):
            with threadpool_limits(1):
                yield (
                    {"kind": "relu", **RELU, "dtype": dtype},
                    repeat,
                    _layer(dtype, repeat),
                )


def _layer(dtype, seed):
    rng = np.random.default_rng(seed)
    n, d, m = RELU.values()
    X = rng.standard_normal((n, d))
    X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(dtype)
    y = np.sign(rng.standard_normal(n)).astype(dtype)
    W, M = rng.standard_normal((m, d)).astype(dtype), np.empty((n, m), dtype)
    P, G = np.empty((n, m), dtype), np.empty((m, d), dtype)
    M[:] = rng.random((n, m)) < 0.5
    net = WideReLU(m, random_state=seed)

    def fit(steps):
        net.fit(X, y, lr=0.5, momentum=0.9, n_iter=steps)

    def bare():
        np.matmul(X, W.T, out=P)
        np.matmul(M.T, X, out=G)

    few, many = 2, 8
    best = {"few": np.inf, "many": np.inf, "bare": np.inf}
    for _ in range(CALLS):
        best["few"] = min(best["few"], seconds(lambda: fit(few)))
        best["many"] = min(best["many"], seconds(lambda: fit(many)))
        best["bare"] = min(best["bare"], seconds(bare))
    step = (best["many"] - best["few"]) / (many - few)
    return {"step_s": step, "bare_s": best["bare"], "ratio": best["bare"] / step}


def spread(values):
    low, middle, high = np.quantile(values, [0.0, 0.5, 1.0])
    return f"{middle:5.2f} [{low:5.2f}, {high:5.2f}]"


def report(results):
    """Print all tables from stored results."""
    cells = results.where(kind="mlp")
    ours = cells.values("ours")
    print("L-BFGS with certificate on the digits network, calls:", spread(ours))
    print("  products of the certificate  ", spread(cells.values("products")))
    for name in ("bare", "l-bfgs-b", "l-bfgs-b-100", "torch"):
        print(f"  over {name:24s}", spread(ours / cells.values(name)))
    print("\n17 problems to 1e-5, calls over scipy's L-BFGS-B, median of the 17")
    for method in METHODS:
        cells = results.where(kind="natural")
        ratios = experiments.natural_ratios(cells, method)
        print(f"  {method:15s} {spread(np.median(ratios, axis=1))}")
    print("\nproduct with the Hessian, over")
    for config in results.where(kind="hvp").configs:
        cells = results.where(**config)
        ours = cells.values("ours_s")
        line = f"  d = {config['d']:6d}: {1e3 * ours.min():6.2f} ms"
        for name in ("gradient", "curvlinops", "jvp", "functional"):
            if f"{name}_s" in cells[0].data:
                line += f"  {name} {spread(ours / cells.values(f'{name}_s'))}"
        print(line)
    print("\nANC, calls with tight over calls with the paper's constants")
    for what in ANC:
        cells = results.where(kind="anc", problem=what)
        print(
            f"  {what:12s} {spread(cells.values('tight') / cells.values('paper'))}"
            f"  of {cells.values('paper').mean():.0f}"
        )
    print("\nwide ReLU step: speed over that of its two matrix products, bare")
    for config in results.where(kind="relu").configs:
        cells = results.where(**config)
        print(f"  {config['dtype']}  {spread(cells.values('ratio'))}")


def main():
    """Measure, store and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    cells = [
        *mlp(repeats),
        *natural(min(repeats, 5)),
        *products(repeats),
        *constants(min(repeats, 5)),
        *layer(repeats),
    ]
    names = ("oracle", "curvature", "gradient", "almost_convex", "cubic", "escape")
    names += ("nonconvex", "testfunctions", "linearized")
    modules = tuple(f"lib.acceleration.{name}" for name in names)
    replication.save_benchmark(
        "acceleration", "acceleration", cells, packages=PEERS, modules=modules
    )
    report(replication.load("acceleration", tier="bench"))


if __name__ == "__main__":
    main()
