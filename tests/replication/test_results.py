"""Selecting from results, and storing them without losing a bit."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from lib.replication import (
    Cell,
    Experiment,
    MissingCells,
    Results,
    load,
    provenance,
    runner,
    save_benchmark,
    seed_sequence,
    store,
)
from lib.replication.results import canonical_data

SCHEMA = json.loads((Path(store.__file__).parent / "schema.json").read_text())


def validate(folder):
    files = sorted(Path(folder).rglob("*.json"))
    for path in files:
        # the same numbers in any language: no bare NaN or Infinity
        content = json.loads(path.read_text(), parse_constant=lambda name: 1 / 0)
        jsonschema.validate(content, SCHEMA)
    return files


@pytest.fixture
def grid():
    cells = [
        Cell({"D": D, "method": m}, seed, {"err": np.float64(100 * D + seed)})
        for m in ("pair", "phase")
        for D in (16, 4, 64)
        for seed in (2, 0, 1)
        if (m, D, seed) != ("pair", 4, 1)
    ]
    return Results(cells, "x", "full")


def test_where_values_and_curve(grid):
    assert grid.seeds == [0, 1, 2] and len(grid.configs) == 6 and len(grid) == 17
    one = grid.where(method="pair", D=16)
    assert one.values("err").tolist() == [1600, 1601, 1602]
    assert len(grid.where(D=[4, 64])) == 11
    x, y = grid.curve("err", method="pair")
    assert x.tolist() == [4, 16, 64] and y.shape == (3, 3)
    assert np.isnan(y[1, 0]) and np.isnan(y).sum() == 1
    assert np.array_equal(y[0], [400, 1600, 6400])
    assert not Results() and grid and not grid.where(D=5)
    assert isinstance(grid[:2], Results) and grid[0].seed == 2


def test_ambiguous_and_empty_selections_are_refused(grid):
    with pytest.raises(ValueError, match="differ in .*'D'"):
        grid.where(method="pair").values("err")
    with pytest.raises(ValueError, match="differ in .*'method'"):
        grid.curve("err")
    with pytest.raises(MissingCells):
        grid.where(D=5).values("err")
    with pytest.raises(MissingCells):
        grid.where(D=5).curve("err")
    with pytest.raises(KeyError, match="methid"):
        grid.where(methid="pair")
    with pytest.raises(KeyError, match="err"):
        grid.where(method="pair", D=16).values("error")
    with pytest.raises(KeyError, match="'m'"):
        grid.where(method="pair", D=16).curve("err", over="m")


def test_cells_are_read_only():
    data = canonical_data({"x": [1.0, 2.0]})
    with pytest.raises(ValueError, match="read-only"):
        data["x"][0] = 3.0


AWKWARD = {
    "nan": np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324, 0.1]),
    "scalar": 1 / 3,
    "integer": 2**53 + 1,
    "flag": True,
    "matrix": np.arange(12.0).reshape(3, 4),
    "empty": np.zeros((0, 3), np.float32),
    "single": np.float32(0.1),
    "large": np.linspace(0, 1, 17, dtype=np.float32),
    "cube": np.full((3, 3, 3), np.nan),
    "mask": np.arange(40) % 3 == 0,
}


def test_storage_keeps_every_bit(tmp_path):
    def run(configs, seeds, device):
        yield

    config = {"b": (1, 2), "a": "x", "none": None}
    experiment = Experiment(name="x", run=run, full=(config,))
    record = {"start": provenance.now(), **provenance.environment()}
    base = store.base_path("wing", "x", "full", tmp_path)
    data = canonical_data(AWKWARD)
    for seed in (1, 0):
        store.save_cell(base, experiment.full[0], seed, data, record, 1 / 3)
    unpacked = store.read_results(base)
    store.pack(base, experiment.full)
    packed = store.read_results(base)
    for stored in (unpacked, packed):
        assert stored.seeds == [0, 1] and len(stored) == 2
        for cell in stored:
            assert cell.config == {"b": [1, 2], "a": "x", "none": None}
            assert set(cell.data) == set(data)
            for key, value in data.items():
                assert cell.data[key].dtype == value.dtype
                assert cell.data[key].tobytes() == value.tobytes()
                assert cell.data[key].shape == value.shape
    text = (tmp_path / "wing" / "x.full.json").read_text()
    assert '"seconds": 0.3333333333,' in text
    assert sum(line.startswith('  {"config"') for line in text.splitlines()) == 2


def test_stored_runs_validate(tmp_path):
    runner.run("toy-walk", "full", seeds=1, results=tmp_path)
    runner.run("toy-walk", "full", seeds=2, results=tmp_path)
    with pytest.raises(ZeroDivisionError):
        runner.run("toy-broken", results=tmp_path)
    assert len(validate(tmp_path)) == 2
    stored = json.loads((tmp_path / "toy" / "toy-walk.full.json").read_text())
    assert len(stored["runs"]) == 2, "one record for each command"
    assert [(c["config"]["scale"], c["seed"], c["run"]) for c in stored["cells"]] == [
        (scale, seed, seed) for scale in (1, 2, 3, 4) for seed in (0, 1)
    ]


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: s["runs"][0].pop("versions"),
        lambda s: s["runs"][0].update(platform="host.example /home/someone"),
        lambda s: s["runs"][0].update(command="python /home/someone/x.py"),
        lambda s: s["cells"][0].update(verdict="reproduced"),
        lambda s: s["cells"][0].update(seed=-1),
        lambda s: s.update(tier="huge"),
    ],
)
def test_the_schema_refuses(tmp_path, edit):
    runner.run("toy-walk", "quick", seeds=1, results=tmp_path)
    stored = json.loads((tmp_path / "toy" / "toy-walk.quick.json").read_text())
    jsonschema.validate(stored, SCHEMA)
    edit(stored)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(stored, SCHEMA)


def test_pack_drops_what_is_no_longer_declared(tmp_path):
    runner.run("toy-walk", "full", results=tmp_path)
    base = store.base_path("toy", "toy-walk", "full", tmp_path)
    kept = [{"scale": 3, "steps": 40}, {"scale": 1, "steps": 40}]
    store.pack(base, kept)
    assert store.read_results(base).configs == kept
    with np.load(tmp_path / "toy" / "toy-walk.full.npz") as arrays:
        assert len(arrays.files) == 6


@pytest.mark.parametrize("fails", [".npz", ".json"])
def test_a_pack_cut_short_loses_nothing(tmp_path, monkeypatch, fails):
    runner.run("toy-walk", "full", seeds=1, results=tmp_path)
    write = store.write_atomically

    def cut(path, content):
        if path.parent.name == "toy" and path.suffix == fails:
            raise KeyboardInterrupt
        write(path, content)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(store, "write_atomically", cut)
        runner.run("toy-walk", "full", results=tmp_path)
    half = load("toy-walk", "full", tmp_path)
    assert len(half) == 12
    runner.run("toy-walk", "full", results=tmp_path / "plain")
    whole = load("toy-walk", "full", tmp_path / "plain")
    for config in whole.configs:
        one, other = (r.where(**config).values("path") for r in (half, whole))
        assert np.array_equal(one, other)


def test_damaged_files(tmp_path):
    runner.run("toy-walk", "full", results=tmp_path)
    base = store.base_path("toy", "toy-walk", "full", tmp_path)
    folder = tmp_path / "toy" / "toy-walk.full.cells"
    folder.mkdir()
    (folder / "half.npz").write_bytes(b"PK\x03\x04 half a cell")
    (folder / "begun.npz.17.tmp").write_bytes(b"")
    assert len(store.read_results(base)) == 12, "a damaged cell was never computed"
    runner.run("toy-walk", "full", results=tmp_path)
    assert not folder.exists()
    (tmp_path / "toy" / "toy-walk.full.npz").unlink()
    with pytest.raises(ValueError, match="toy-walk.full.npz: arrays missing"):
        load("toy-walk", "full", tmp_path)


def test_benchmarks_are_stored_alike(tmp_path):
    cells = [
        ({"d": d, "peer": peer}, repeat, {"seconds": 0.5 + repeat, "error": 0.1})
        for d in (16, 64)
        for peer in ("lib", "scikit-learn")
        for repeat in range(3)
    ]
    path = save_benchmark(
        "map-speed", "features", cells, packages=("tqdm",), results=tmp_path
    )
    assert validate(tmp_path) == [path]
    stored = load("map-speed", "bench", tmp_path)
    assert stored.where(d=16, peer="lib").values("seconds").tolist() == [0.5, 1.5, 2.5]
    assert stored[0].run["versions"]["tqdm"]
    assert stored[0].run["command"] == "python benchmarks/features.py"


def test_never_run_is_empty(tmp_path):
    nothing = load("toy-walk", "full", tmp_path)
    assert not nothing and len(nothing) == 0 and nothing.configs == []


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"name": "Toy_Walk"}, "a-z"),
        ({"quick": ({"a": 1}, {"a": 1})}, "repeated"),
        ({"seeds": {"quick": 0, "full": 5}}, "at least 1"),
        ({"seeds": {"quick": 3}}, "at least 1"),
    ],
)
def test_bad_experiments_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Experiment(**({"name": "x", "run": print} | changes))


@pytest.mark.parametrize("value", [float("nan"), np.ones(2), {"a": 1}, print])
def test_a_configuration_is_plain(value):
    with pytest.raises(TypeError, match="configuration"):
        Experiment(name="x", run=print, quick=({"a": value},))


def test_seed_sequence_depends_on_every_axis_and_on_nothing_else():
    def draw(*axes, seed=0):
        return np.random.default_rng(seed_sequence(*axes, seed=seed)).integers(2**62)

    draws = [
        draw(),
        draw("data"),
        draw("data", seed=1),
        draw("data", "mnist"),
        draw("datamnist"),
        draw("mnist", "data"),
        draw("data", 1),
        draw("data", "1"),
        draw("data", 1, 0),
    ]
    assert len(set(draws)) == len(draws)
    assert draw("data", np.int64(1)) == draw("data", 1)
    # a stored value: the streams of every stored result hang on it
    assert seed_sequence("data", "mnist", seed=3).entropy == STREAM
    with pytest.raises(TypeError, match="axis"):
        draw([1])


STREAM = 79518073741379764740144283862113859974
