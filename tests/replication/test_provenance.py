"""What a record says, and what makes a result stale."""

import re
import subprocess
import sys
import types
from dataclasses import replace

import pytest

from lib.replication import Experiment, provenance, registry, runner, store
from lib.replication.provenance import EnergyMeter, code_hash

SOURCE = '''
"""A module."""
import math

LIMIT = 3

def helper(x):
    """Help."""
    return x + LIMIT

def run(configs, seeds, device):
    """Run."""
    yield configs[0], 0, {"y": helper(math.pi)}

def metric(results):
    return results.values("y")
'''


@pytest.fixture
def hashed(tmp_path, monkeypatch):
    """Hash of an experiment declared in a module of this text."""
    monkeypatch.syspath_prepend(str(tmp_path))
    count = iter(range(1000))

    def hashed(text, declared=()):
        name = f"declares_{next(count)}"
        (tmp_path / f"{name}.py").write_text(text)
        __import__(name)
        monkeypatch.delitem(sys.modules, name, raising=False)
        module = sys.modules.get(name) or __import__(name)
        return code_hash(Experiment(name="x", run=module.run, modules=declared))

    return hashed


@pytest.mark.parametrize(
    "old, new",
    [
        ("A module.", "Another text."),
        ('    """Help."""\n', ""),
        ("LIMIT = 3", "LIMIT = 3  # why"),
        ("import math", "import math\n\n\n"),
        ('return results.values("y")', "return 1"),
        ("x + LIMIT", "(x + LIMIT)"),
    ],
)
def test_prose_layout_and_metrics_leave_the_hash(hashed, old, new):
    assert old in SOURCE
    assert hashed(SOURCE) == hashed(SOURCE.replace(old, new))


@pytest.mark.parametrize(
    "old, new",
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = 3.0"),
        ("x + LIMIT", "x - LIMIT"),
        ("import math", "import cmath as math"),
        ('{"y": helper', '{"z": helper'),
    ],
)
def test_code_that_run_reaches_changes_the_hash(hashed, old, new):
    assert old in SOURCE
    assert hashed(SOURCE) != hashed(SOURCE.replace(old, new))


def test_the_loop_variable_of_a_grid_is_no_name_of_the_module(hashed):
    text = (
        "GRID = [2**j for j in range({})]\n\n\ndef run(configs, seeds, device):\n"
        "    for j in seeds:\n        yield configs[0], j, {{'y': 1.0}}\n"
    )
    assert hashed(text.format(3)) == hashed(text.format(4))


def test_a_declared_module_counts_as_a_whole(hashed, tmp_path):
    module = tmp_path / "declared_maths.py"
    module.write_text("def f():\n    return 1\n")
    first = hashed(SOURCE, ("declared_maths",))
    module.write_text("def f():\n    'Say it.'\n    return 1\n")
    assert hashed(SOURCE, ("declared_maths",)) == first
    module.write_text("def f():\n    return 2\n")
    assert hashed(SOURCE, ("declared_maths",)) != first


@pytest.mark.parametrize("name", ["lib.replication.nothing", "nowhere.at_all"])
def test_a_missing_module_is_named(name):
    experiment = replace(registry.experiment("toy-walk"), modules=(name,))
    with pytest.raises(ModuleNotFoundError, match=re.escape(f"'{name}'")):
        code_hash(experiment)


def test_a_run_function_must_stand_at_module_level():
    def run(configs, seeds, device):
        yield

    with pytest.raises(ValueError, match="module level"):
        code_hash(Experiment(name="x", run=run))


def test_a_record_names_no_path_and_no_host(tmp_path):
    import socket

    runner.run("toy-walk", "quick", seeds=1, results=tmp_path, commit="abcdef1")
    text = store.base_path("toy", "toy-walk", "quick", tmp_path)
    text = text.with_name(text.name + ".json").read_text()
    assert str(tmp_path) not in text and socket.gethostname() not in text
    assert '"commit": "abcdef1"' in text and '"dirty": null' in text
    command = "python -m lib.replication run toy-walk --tier quick --seeds 1"
    assert f'"{command} --device cpu --commit abcdef1"' in text


def test_data_hashes_cover_what_the_tier_reads(monkeypatch):
    data = types.ModuleType("lib.data")

    def sha256(name, split):
        if name == "absent":
            raise FileNotFoundError(name)
        return f"{name}-{split}"

    data.sha256 = sha256
    monkeypatch.setitem(sys.modules, "lib.data", data)
    experiment = Experiment(
        name="x",
        run=print,
        quick=({"data": "small"},),
        full=({"data": "small"}, {"data": "large"}, {"data": "absent"}),
        data=("small/train", "large", "absent/test", "always/test"),
    )
    quick = {"small/train": "small-train", "always/test": "always-test"}
    assert provenance.data_hashes(experiment, "quick") == quick
    full = {"large/train": "large-train", "large/test": "large-test"}
    full = quick | full | {"absent/test": None}
    assert provenance.data_hashes(experiment, "full") == full
    monkeypatch.setitem(sys.modules, "lib.data", None)
    assert set(provenance.data_hashes(experiment, "full").values()) == {None}


def test_energy_is_the_difference_of_the_counter(monkeypatch):
    counter = iter([1000, 3500, 3500])
    pynvml = types.SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(counter),
    )
    monkeypatch.setitem(sys.modules, "pynvml", pynvml)
    meter = EnergyMeter("cuda:0")
    assert (meter.lap(), meter.lap()) == (2.5, 0.0)
    assert EnergyMeter("cpu").lap() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert EnergyMeter("cuda").lap() is None


def test_no_commit_outside_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert provenance.commit_of() == (None, None)


def test_commit_and_what_makes_it_dirty(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        command = ("git", "-C", str(tmp_path), *identity, *arguments)
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    results = tmp_path / "lib" / "replication" / "results"
    results.mkdir(parents=True)
    (tmp_path / "lib" / "a.py").write_text("a = 1\n")
    git("init", "-q")
    assert provenance.commit_of() == (None, None), "no commit yet"
    git("add", ".")
    git("commit", "-q", "-m", "first")
    head = git("rev-parse", "HEAD")
    assert provenance.commit_of() == (head, False)
    (results / "new.json").write_text("{}")
    (tmp_path / "page.md").write_text("prose")
    assert provenance.commit_of() == (head, False), "only the code of lib counts"
    (tmp_path / "lib" / "b.py").write_text("b = 2\n")
    assert provenance.commit_of() == (head, True)
    assert provenance.commit_of("abcdef1") == ("abcdef1", None)
