"""Toy experiments: they log what they compute, and are slow when asked to be."""

import os
import time

import numpy as np
from toy_maths import walk

from lib.replication import Experiment, seed_sequence

SHIFT = 0.0  # run_walk reads it, so it belongs to the code of toy-walk


def log(text):
    path = os.environ.get("TOY_LOG")
    if path:
        with open(path, "a") as stream:
            stream.write(f"{os.getpid()} {text}\n")


def run_walk(configs, seeds, device):
    log(f"call {len(configs)} {','.join(map(str, seeds))}")
    try:
        for config in configs:
            for seed in seeds:
                log(f"cell {config['scale']} {seed}")
                time.sleep(float(os.environ.get("TOY_SLEEP", "0")))
                rng = np.random.default_rng(seed_sequence("walk", seed=seed))
                path = walk(config["steps"], config["scale"], rng) + SHIFT
                yield config, seed, {"path": path, "end": path[-1], "odd": seed % 2}
    finally:
        log("closed")


def run_broken(configs, seeds, device):
    yield configs[0], seeds[0], {"end": float("nan")}
    raise ZeroDivisionError("the toy breaks")


def run_stranger(configs, seeds, device):
    yield {"scale": -1}, 0, {"end": 0.0}


def scaled_end(results):
    """End of the walk of scale 2 minus that of scale 1."""
    first, second = (results.where(scale=s).values("end") for s in (1, 2))
    return second - first


def end(results):
    return results.values("end")


def needs_scale_7(results):
    return results.where(scale=7).values("end")


def _configs(*scales, steps=40):
    return tuple({"scale": s, "steps": steps} for s in scales)


EXPERIMENTS = (
    Experiment(
        name="toy-walk",
        run=run_walk,
        quick=_configs(1, 2),
        full=_configs(1, 2, 3, 4),
        seeds={"quick": 2, "full": 3},
        modules=("toy_maths",),
    ),
    Experiment(name="toy-broken", run=run_broken, quick=_configs(1, 2)),
    Experiment(name="toy-stranger", run=run_stranger, quick=_configs(1)),
)
