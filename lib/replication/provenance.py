"""What made a result: code, data, versions, device, command and time."""

import ast
import hashlib
import importlib
import importlib.util
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from .registry import ROOT

DISTRIBUTIONS = ("numpy", "scipy", "torch", "scikit-learn")
# fields that differ between Python versions or say nothing about what runs
_SILENT = {"ctx", "type_comment", "kind"}


def now():
    """
    Return the time in UTC to the second.

    Returns
    -------
    str
        ISO 8601, ending in Z.
    """
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def code_hash(experiment):
    """
    Hash the code that an experiment's results depend on.

    That is every declared module, and of the module that declares the experiment its
    run function with all it refers to there. Docstrings, comments and layout are left
    out, so that prose never makes a result stale.

    Parameters
    ----------
    experiment : Experiment
        The experiment.

    Returns
    -------
    str
        SHA-256 as hexadecimal digits.

    Raises
    ------
    ModuleNotFoundError
        If a declared module does not exist.
    """
    parts = {name: _tree(name, experiment.name) for name in experiment.modules}
    module = experiment.run.__module__
    parts["run"] = _reachable(_tree(module, experiment.name), experiment.run.__name__)
    text = repr({name: _plain(part) for name, part in sorted(parts.items())})
    return hashlib.sha256(text.encode()).hexdigest()


def environment(device="cpu", packages=()):
    """
    Describe the machine without naming it.

    Parameters
    ----------
    device : str
        ``"cpu"`` or a torch device such as ``"cuda"``.
    packages : tuple of str
        Distributions whose versions are recorded beside the usual ones.

    Returns
    -------
    dict
        Device, its name, threads, platform and versions.
    """
    versions = {"python": platform.python_version()}
    for name in (*DISTRIBUTIONS, *packages):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    torch = sys.modules.get("torch")
    threads = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(threads) if threads.isdigit() else os.cpu_count()
    return {
        "device": device,
        "device_name": _device_name(device),
        "threads": torch.get_num_threads() if torch else threads,
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": versions,
    }


def data_hashes(experiment, tier):
    """
    Return the SHA-256 of the data sets that a tier reads.

    A declared data set counts unless the configurations name data sets and those of
    this tier do not name this one: a quick run on embedded data downloads nothing.

    Parameters
    ----------
    experiment : Experiment
        Declares its data sets.
    tier : {"quick", "full"}
        The tier.

    Returns
    -------
    dict of str to str
        ``"name/split"`` to digest, None where the machine has no such data.
    """
    here = _texts(experiment.grid(tier))
    anywhere = _texts((*experiment.quick, *experiment.full))
    digests = {}
    for declared in experiment.data:
        name, _, split = declared.partition("/")
        if name in here or name not in anywhere:
            for part in (split,) if split else ("train", "test"):
                digests[f"{name}/{part}"] = _digest(name, part)
    return digests


def commit_of(given=None):
    """
    Return the commit and whether the package differs from it.

    Parameters
    ----------
    given : str, optional
        The commit, for a machine without git; then nothing is known of differences.

    Returns
    -------
    commit : str or None
        The commit; None outside a checkout.
    dirty : bool or None
        True if anything in `lib` but the stored results differs from the commit.
    """
    if given:
        return given, None
    if _git("rev-parse", "--show-toplevel") != str(ROOT):
        return None, None  # installed somewhere inside a stranger's repository
    commit = _git("rev-parse", "HEAD")
    changes = _git(
        "status", "--porcelain", "--", "lib", ":(exclude)lib/replication/results"
    )
    return (commit, bool(changes)) if commit else (None, None)


def run_record(experiment, tier, command, commit=None):
    """
    Start the record of a run, all but the environment.

    Parameters
    ----------
    experiment : Experiment
        What is run.
    tier : {"quick", "full"}
        The tier.
    command : str
        The command line, free of paths and hosts.
    commit : str, optional
        As in `commit_of`.

    Returns
    -------
    dict
        Code, data, commit, command and start.
    """
    commit, dirty = commit_of(commit)
    return {
        "code": code_hash(experiment),
        "data": data_hashes(experiment, tier),
        "commit": commit,
        "dirty": dirty,
        "command": command,
        "start": now(),
    }


def benchmark_record(wing, *, packages=(), modules=(), device="cpu"):
    """
    Return the record of a finished benchmark.

    Parameters
    ----------
    wing : str
        Whose benchmark it is.
    packages, modules : tuple of str
        Distributions to name, and modules whose code was measured.
    device : str
        The torch device that was measured.

    Returns
    -------
    dict
        A complete record.
    """
    option = "" if device == "cpu" else f" --device {device}"
    commit, dirty = commit_of()
    code = repr([_plain(_tree(name, wing)) for name in sorted(modules)])
    return {
        "code": hashlib.sha256(code.encode()).hexdigest(),
        "data": {},
        "commit": commit,
        "dirty": dirty,
        "command": f"python benchmarks/{wing}.py{option}",
        "start": now(),
        "end": now(),
        **environment(device, packages),
    }


class EnergyMeter:
    """
    Energy of one NVIDIA GPU in joules, None where it cannot be read.

    Parameters
    ----------
    device : str
        A torch device; anything but CUDA has no meter.
    """

    def __init__(self, device):
        self._read = None
        if not device.startswith("cuda"):
            return
        try:
            import pynvml  # from nvidia-ml-py, which few machines have

            pynvml.nvmlInit()
            index = int(device.partition(":")[2] or 0)
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
            name = visible[index].strip() if visible != [""] else str(index)
            if name.isdigit():
                handle = pynvml.nvmlDeviceGetHandleByIndex(int(name))
            else:
                handle = pynvml.nvmlDeviceGetHandleByUUID(name)
            self._last = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            self._read = lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except Exception:  # no library, no driver, no counter: energy is unknown
            self._read = None

    def lap(self):
        """
        Return the joules since the last call.

        Returns
        -------
        float or None
            None where the device does not tell.
        """
        if self._read is None:
            return None
        last, self._last = self._last, self._read()
        return (self._last - last) / 1000.0


def _texts(configs):
    return {v for config in configs for v in config.values() if isinstance(v, str)}


def _digest(name, split):
    try:
        return importlib.import_module("lib.data").sha256(name, split)
    except (ModuleNotFoundError, FileNotFoundError):
        return None


def _git(*arguments):
    try:
        done = subprocess.run(
            ("git", "-C", str(ROOT), *arguments), capture_output=True, text=True
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _device_name(device):
    if device != "cpu":
        torch = importlib.import_module("torch")
        return torch.cuda.get_device_name(device)
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        text = ""
    names = [li.partition(":")[2] for li in text.splitlines() if "model name" in li]
    return (names[0] if names else platform.processor() or platform.machine()).strip()


def _tree(name, owner):
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.origin:
        raise ModuleNotFoundError(
            f"{owner!r} depends on the module {name!r}, which does not exist", name=name
        )
    return ast.parse(Path(spec.origin).read_text("utf-8"))


def _reachable(tree, name):
    # the top-level statements that the function needs, itself included
    defined = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.asname or a.name.partition(".")[0] for a in node.names]
        else:
            loops = (c for c in ast.walk(node) if isinstance(c, ast.comprehension))
            local = {id(n) for loop in loops for n in ast.walk(loop.target)}
            stored = (n for n in ast.walk(node) if isinstance(n, ast.Name))
            names = [
                n.id
                for n in stored
                if isinstance(n.ctx, ast.Store) and id(n) not in local
            ]
        for n in names:
            defined.setdefault(n, []).append(node)
    if name not in defined:
        raise ValueError(f"run must be a function at module level, got {name!r}")
    wanted, seen = [name], set()
    while wanted:
        current = wanted.pop()
        if current in seen or current not in defined:
            continue
        seen.add(current)
        inner = (n for node in defined[current] for n in ast.walk(node))
        wanted += [n.id for n in inner if isinstance(n, ast.Name)]
    return [n for n in tree.body if any(n in defined[s] for s in seen if s in defined)]


def _plain(node):
    # a syntax tree as nested tuples: ast.dump is not the same in every Python
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {k: v for k, v in ast.iter_fields(node) if k not in _SILENT}
    body = fields.get("body")
    if isinstance(body, list) and body and _is_docstring(node, body[0]):
        fields["body"] = body[1:]
    kept = [(k, _plain(v)) for k, v in fields.items() if v is not None and v != []]
    return (type(node).__name__, kept)


def _is_docstring(node, first):
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return (
        isinstance(node, holders)
        and isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )
