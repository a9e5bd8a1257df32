"""Stored results: atomic cells while running, one JSON (and npz) when packed.

``results/<wing>/<experiment>.<tier>.json`` holds the runs (provenance) and one line a
cell; arrays of more than 16 numbers lie in the ``.npz`` of the same name. While a run
goes on, each cell is one file in ``<experiment>.<tier>.cells/``, and reading lays those
over the packed file, so that nothing finished is lost however the run ends.
"""

import hashlib
import io
import json
import math
import os
import zipfile
from pathlib import Path

import numpy as np

from .provenance import benchmark_record, now
from .registry import PACKAGE
from .results import INLINE, Cell, Results, canonical_config, canonical_data, config_key

RESULTS = PACKAGE / "results"
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def base_path(wing, name, tier, results=None):
    """
    Return the path of stored results without its suffix.

    Parameters
    ----------
    wing, name, tier : str
        What was run.
    results : path, optional
        Folder of all results; the package's own by default.

    Returns
    -------
    Path
        ``results/<wing>/<name>.<tier>``.
    """
    return Path(results or RESULTS) / wing / f"{name}.{tier}"


def save_cell(base, config, seed, data, run, seconds, joules=None):
    """
    Write one finished cell as one atomic file.

    Parameters
    ----------
    base : Path
        From `base_path`.
    config : dict
        Canonical configuration.
    seed : int
        The seed.
    data : dict of str to ndarray
        From `canonical_data`.
    run : dict
        Provenance of the run so far; its ``end`` is set to now.
    seconds : float
        Time the cell took.
    joules : float, optional
        Energy the cell took.
    """
    record, arrays = _encode(config, seed, data, seconds, joules)
    record["run"] = run | {"end": now()}
    text = np.frombuffer(json.dumps(record, allow_nan=False).encode(), np.uint8)
    name = f"{_cell_id(config, seed)}.npz"
    write_atomically(_with(base, ".cells") / name, _zip({"record": text, **arrays}))


def read_records(base):
    """
    Return what is stored, without its large arrays.

    Parameters
    ----------
    base : Path
        From `base_path`.

    Returns
    -------
    dict of (str, int) to dict
        Configuration key and seed to the cell's record; ``run`` is the provenance
        record, ``file`` the npz that holds the large arrays.
    """
    records = {}
    if _with(base, ".json").is_file():
        stored = json.loads(_with(base, ".json").read_text("utf-8"))
        for record in stored["cells"]:
            record["run"] = stored["runs"][record["run"]]
            record["file"] = _with(base, ".npz")
            records[config_key(record["config"]), record["seed"]] = record
    for path in sorted(_with(base, ".cells").glob("*.npz")):
        try:
            with np.load(path) as stored:
                record = json.loads(stored["record"].tobytes())
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            continue  # a damaged cell counts as not computed
        record["file"] = path
        records[config_key(record["config"]), record["seed"]] = record
    return records


def read_results(base):
    """
    Return stored results.

    Parameters
    ----------
    base : Path
        From `base_path`.

    Returns
    -------
    Results
        All cells; empty if nothing is stored.
    """
    name, _, tier = base.name.rpartition(".")
    records = read_records(base).values()
    return Results(_cells(records), experiment=name, tier=tier)


def load(name, tier="full", results=None):
    """
    Read stored results.

    Parameters
    ----------
    name : str
        Name of an experiment or a benchmark.
    tier : str
        ``"full"``, ``"quick"``, or ``"bench"`` for a benchmark.
    results : path, optional
        Folder of all results.

    Returns
    -------
    Results
        All stored cells; empty if it was never run.
    """
    folder = Path(results or RESULTS)
    for found in sorted(folder.glob(f"*/{name}.{tier}.*")):
        if found.suffix in (".json", ".cells"):
            return read_results(found.with_suffix(""))
    return Results(experiment=name, tier=tier)


def pack(base, configs=None):
    """
    Merge the cell files into the JSON file and its npz, and remove them.

    Parameters
    ----------
    base : Path
        From `base_path`.
    configs : sequence of dict, optional
        The declared grid. It gives the order, and cells outside it are dropped.
    """
    folder = _with(base, ".cells")
    for scrap in folder.glob("*.tmp"):
        scrap.unlink(missing_ok=True)
    packed = list(folder.glob("*.npz"))  # before reading: a later cell stays
    records = read_records(base)
    stored = len(records)
    if configs is not None:
        order = {config_key(config): i for i, config in enumerate(configs)}
        records = {key: r for key, r in records.items() if key[0] in order}
        keys = sorted(records, key=lambda key: (order[key[0]], key[1]))
        records = {key: records[key] for key in keys}
    if records and (packed or len(records) < stored):
        name, _, tier = base.name.rpartition(".")
        _write_packed(base, name, tier, list(_cells(records.values())))
    for path in packed:
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def save_benchmark(
    name, wing, cells, *, packages=(), modules=(), device="cpu", results=None
):
    """
    Store the numbers of a benchmark as results are stored, as tier ``"bench"``.

    Parameters
    ----------
    name, wing : str
        Free name, and wing.
    cells : iterable of (dict, int, dict)
        Configuration, repeat, and its numbers.
    packages : tuple of str
        Distributions whose versions belong in the record, beside the usual ones.
    modules : tuple of str
        Modules whose code was measured.
    device : str
        The torch device that was measured.
    results : path, optional
        Folder of all results; the package's own by default.

    Returns
    -------
    Path
        The JSON file. Read it with ``load(name, "bench")``.
    """
    run = benchmark_record(wing, packages=packages, modules=modules, device=device)
    base = base_path(wing, name, "bench", results)
    kept = [
        Cell(canonical_config(config), repeat, canonical_data(data), 0.0, run=run)
        for config, repeat, data in cells
    ]
    _write_packed(base, name, "bench", kept)
    return _with(base, ".json")


def write_atomically(path, content):
    """
    Write a file so that a reader sees the old one or the new one, never a part.

    Parameters
    ----------
    path : Path
        The file; its folder is made.
    content : bytes
        What it shall hold.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scrap = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open(scrap, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(scrap, path)


def _with(base, suffix):
    return base.with_name(base.name + suffix)


def _cell_id(config, seed):
    return f"{hashlib.sha256(config_key(config).encode()).hexdigest()[:16]}.{seed}"


def _encode(config, seed, data, seconds, joules):
    record = {
        "config": config,
        "seed": seed,
        "seconds": float(f"{seconds:.10g}"),
        "joules": None if joules is None else float(f"{joules:.10g}"),
        "values": {},
        "arrays": [],
    }
    arrays = {}
    for name, array in data.items():
        if 0 < array.size <= INLINE:
            record["values"][name] = _to_json(array.tolist())
        else:
            record["arrays"].append(name)
            arrays[f"{_cell_id(config, seed)}.{name}"] = array
    return record, arrays


def _to_json(value):
    # JSON has no NaN and no infinity: they are written as strings
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return next(k for k, v in _SPECIAL.items() if repr(v) == repr(value))
    return value


def _from_json(value):
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    return _SPECIAL[value] if isinstance(value, str) else value


def _cells(records):
    path, stored = None, None  # the npz open now: one for a packed file, one a cell
    try:
        for r in records:
            data = {k: np.array(_from_json(v)) for k, v in r["values"].items()}
            for name in r["arrays"]:
                if r["file"] != path:
                    path, stored = r["file"], np.load(r["file"])
                data[name] = stored[f"{_cell_id(r['config'], r['seed'])}.{name}"]
            data = canonical_data(data)
            yield Cell(
                r["config"], r["seed"], data, r["seconds"], r["joules"], r["run"]
            )
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{r['file']}: arrays missing or damaged ({error})") from None


def _write_packed(base, name, tier, cells):
    runs, merged, lines, arrays = [], {}, [], {}
    for cell in sorted(cells, key=lambda cell: cell.run["start"]):
        # one run is one record, however many cells it made; its end is the last one's
        key = json.dumps(cell.run | {"end": ""}, sort_keys=True)
        if key not in merged:
            merged[key] = len(runs)
            runs.append(dict(cell.run))
        run = runs[merged[key]]
        run["end"] = max(run["end"], cell.run["end"])
    for c in cells:
        record, large = _encode(c.config, c.seed, c.data, c.seconds, c.joules)
        record["run"] = merged[json.dumps(c.run | {"end": ""}, sort_keys=True)]
        lines.append(json.dumps(record, allow_nan=False))
        arrays |= large
    head = {"experiment": name, "wing": base.parent.name, "tier": tier, "runs": runs}
    text = json.dumps(head, indent=1, allow_nan=False)
    text = f'{text[:-2]},\n "cells": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"
    if arrays:
        # the npz first: were we killed in between, the cell files are still there
        write_atomically(_with(base, ".npz"), _zip(arrays))
    write_atomically(_with(base, ".json"), text.encode())
    if not arrays:
        _with(base, ".npz").unlink(missing_ok=True)


def _zip(arrays):
    # np.savez_compressed stamps the time; equal arrays shall give equal bytes
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(arrays):
            entry = io.BytesIO()
            np.lib.format.write_array(entry, np.asarray(arrays[name]))
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, entry.getvalue())
    return out.getvalue()
