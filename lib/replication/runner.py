"""Plan, run, checkpoint, stop and resume the grid of an experiment."""

import contextlib
import os
import signal
import sys
import time

from . import checkpoint, provenance, registry, store
from .results import Cell, Results, canonical_data, config_key


class Stopped(BaseException):
    """
    A signal asked the run to stop; finished cells are saved.

    Parameters
    ----------
    number : int
        The signal.
    """

    def __init__(self, number):
        super().__init__(signal.Signals(number).name)
        self.number = number


def plan(experiment, tier, *, seeds=None, results=None):
    """
    List the cells of a grid that are missing or stale.

    Parameters
    ----------
    experiment : Experiment
        The experiment.
    tier : {"quick", "full"}
        The tier.
    seeds : int, optional
        Number of seeds; the declared one by default.
    results : path, optional
        Folder of all results.

    Returns
    -------
    list of (tuple of dict, tuple of int)
        Configurations and the seeds that each of them lacks, grouped so that the
        experiment may batch a whole group.
    """
    fresh = _fresh(experiment, tier, results)
    groups = {}
    for config in experiment.grid(tier):
        wanted = range(experiment.seeds[tier] if seeds is None else seeds)
        lacking = tuple(s for s in wanted if (config_key(config), s) not in fresh)
        if lacking:
            groups.setdefault(lacking, []).append(config)
    return [(tuple(configs), lacking) for lacking, configs in groups.items()]


def status(experiment, tier, results=None):
    """
    Count the cells of a tier.

    Parameters
    ----------
    experiment : Experiment
        The experiment.
    tier : {"quick", "full"}
        The tier.
    results : path, optional
        Folder of all results.

    Returns
    -------
    dict
        ``planned``, ``done`` (of those, stored and fresh or stale) and ``stale``.
    """
    base = store.base_path(experiment.wing, experiment.name, tier, results)
    stored, code = store.read_records(base), provenance.code_hash(experiment)
    planned = {
        (config_key(config), seed)
        for config in experiment.grid(tier)
        for seed in range(experiment.seeds[tier])
    }
    done = planned & set(stored)
    stale = sum(stored[key]["run"]["code"] != code for key in done)
    return {"planned": len(planned), "done": len(done), "stale": stale}


def live(name, device="cpu"):
    """
    Run the quick tier of an experiment in memory.

    Parameters
    ----------
    name : str
        Name of the experiment.
    device : str
        Torch device.

    Returns
    -------
    Results
        All its cells; nothing is stored.
    """
    experiment = registry.experiment(name)
    groups = [(experiment.quick, tuple(range(experiment.seeds["quick"])))]
    cells = [
        Cell(config, seed, data, seconds, joules)
        for config, seed, data, seconds, joules in _compute(experiment, groups, device)
    ]
    order = {config_key(config): i for i, config in enumerate(experiment.quick)}
    cells.sort(key=lambda cell: (order[config_key(cell.config)], cell.seed))
    return Results(cells, experiment=name, tier="quick")


def run(
    name,
    tier="quick",
    *,
    seeds=None,
    device="cpu",
    max_minutes=None,
    commit=None,
    dask=None,
    results=None,
):
    """
    Compute what is missing of a grid, and store it cell by cell.

    Parameters
    ----------
    name : str
        Name of the experiment.
    tier : {"quick", "full"}
        The tier.
    seeds : int, optional
        Number of seeds; the declared one by default.
    device : str
        Torch device handed to the experiment.
    max_minutes : float, optional
        Stop after the first cell that ends later than this.
    commit : str, optional
        The commit, where there is no git to ask.
    dask : str, optional
        Address of a Dask scheduler; its workers compute single cells.
    results : path, optional
        Folder of all results.

    Returns
    -------
    str
        One line that says what was done and what is left.

    Raises
    ------
    Stopped
        If SIGINT or SIGTERM came; everything finished is packed by then.
    """
    with _signals(), contextlib.ExitStack() as stack:
        experiment = registry.experiment(name)
        base = store.base_path(experiment.wing, name, tier, results)
        store.pack(base, experiment.grid(tier))  # what a killed run left
        groups = plan(experiment, tier, seeds=seeds, results=results)
        missing = sum(len(configs) * len(lacking) for configs, lacking in groups)
        command = _command(name, tier, seeds, device, max_minutes, commit, dask)
        record = provenance.run_record(experiment, tier, command, commit)
        states = base.with_name(base.name + ".cells")
        stack.enter_context(checkpoint.folder(states, record["code"]))
        if dask:
            cells = _compute_on_cluster(experiment, groups, device, dask, record)
        else:
            cells = _compute(experiment, groups, device)
        # whatever ends this block, the experiment is closed, then its cells packed
        stack.callback(store.pack, base, experiment.grid(tier))
        advance = stack.enter_context(_progress(f"{name} {tier}", missing))
        stack.enter_context(contextlib.closing(cells))
        start, done, late = time.monotonic(), 0, False
        for config, seed, data, seconds, joules, *elsewhere in cells if missing else ():
            if not done or dask:
                where = elsewhere[0] if dask else provenance.environment(device)
            store.save_cell(base, config, seed, data, record | where, seconds, joules)
            done += 1
            advance()
            if max_minutes and time.monotonic() - start > 60 * max_minutes:
                late = done < missing
                break
        if done == missing:  # states of other code, or of other cells
            for state in states.glob("*.state"):
                state.unlink()
    ending = f" (stopped after {max_minutes:g} minutes)" if late else ""
    return f"{name} {tier}: {done} cells computed, {missing - done} left{ending}"


def _fresh(experiment, tier, results):
    base = store.base_path(experiment.wing, experiment.name, tier, results)
    code = provenance.code_hash(experiment)
    records = store.read_records(base)
    return {key for key, r in records.items() if r["run"]["code"] == code}


# Yields (config, seed, data, seconds, joules). The clock and the meter run from one
# yield of the experiment to the next, saving excluded. An experiment may leave cells
# out (an exact solver that does not fit this device): they stay missing.
def _compute(experiment, groups, device):
    if device != "cpu" and not experiment.cuda:
        raise ValueError(
            f"{experiment.name} runs on the processor only, got device={device!r}"
        )
    meter = provenance.EnergyMeter(device)
    for configs, seeds in groups:
        asked = {(config_key(c), s): c for c in configs for s in seeds}
        generator = experiment.run(tuple(map(dict, configs)), seeds, device)
        with contextlib.closing(generator):
            meter.lap()
            start = time.perf_counter()
            for config, seed, data in generator:
                data = canonical_data(data)  # waits for the GPU
                seconds, joules = time.perf_counter() - start, meter.lap()
                key = (config_key(config), int(seed))
                if key not in asked:
                    raise RuntimeError(
                        f"{experiment.name} yielded a cell twice or one that nobody "
                        f"asked for: {config}, seed {seed}"
                    )
                yield asked.pop(key), int(seed), data, seconds, joules
                meter.lap()
                start = time.perf_counter()


def _compute_on_cluster(experiment, groups, device, address, record):
    from distributed import Client, as_completed

    modules = os.environ.get(registry.EXPERIMENTS_VARIABLE, "")
    pairs = [(c, s) for configs, seeds in groups for c in configs for s in seeds]
    with Client(address, set_as_default=False) as client:
        futures = {
            client.submit(
                _cell_on_worker, modules, experiment.name, c, s, device, pure=False
            ): (c, s)
            for c, s in pairs
        }
        try:
            for future in as_completed(futures, loop=client.loop):
                cells, code, where = future.result()
                if code != record["code"]:
                    raise RuntimeError(f"a worker has other code for {experiment.name}")
                for _, _, data, seconds, joules in cells:
                    data = canonical_data(data)  # pickling made the arrays writeable
                    yield *futures[future], data, seconds, joules, where
        finally:
            client.cancel(list(futures))


def _cell_on_worker(modules, name, config, seed, device):
    if modules:
        os.environ[registry.EXPERIMENTS_VARIABLE] = modules
    experiment = registry.experiment(name)
    cells = list(_compute(experiment, [((config,), (seed,))], device))
    return cells, provenance.code_hash(experiment), provenance.environment(device)


def _command(name, tier, seeds, device, max_minutes, commit, dask):
    # rebuilt from what matters: no path and no host name gets into a record
    options = {
        "--tier": tier,
        "--seeds": seeds,
        "--device": device,
        "--max-minutes": max_minutes,
        "--commit": commit,
        "--dask": dask and "SCHEDULER",
    }
    given = [f"{k} {v}" for k, v in options.items() if v is not None]
    return " ".join(["python -m lib.replication run", name, *given])


@contextlib.contextmanager
def _signals():
    # SIGTERM and Ctrl-C end the run alike; both handlers are put back afterwards
    def stop(number, _):
        raise Stopped(number)

    try:
        before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: whoever owns it handles signals
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _progress(label, total):
    try:
        from tqdm import tqdm
    except ImportError:
        yield _Lines(label, total)
    else:
        with tqdm(total=total, desc=label, unit="cell", disable=not total) as bar:
            yield bar.update


class _Lines:
    # the progress bar of a machine without tqdm
    def __init__(self, label, total):
        self.label, self.total, self.done = label, total, 0
        self.start = time.monotonic()

    def __call__(self):
        self.done += 1
        spent = time.monotonic() - self.start
        left = spent / self.done * (self.total - self.done)
        text = f"{self.label}: {self.done}/{self.total} cells, {spent:.0f} s"
        print(f"{text}, about {left:.0f} s left", file=sys.stderr)
