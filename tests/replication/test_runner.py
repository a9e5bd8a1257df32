"""The command line for real: resume, stop, go stale, spread over a cluster."""

import json
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lib.replication import live, load, provenance, registry, runner, store

HERE = Path(__file__).parent
FULL = ("run", "toy-walk", "--tier", "full")
ALL = {(scale, seed) for scale in (1, 2, 3, 4) for seed in range(3)}


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def assert_same(one, other):
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        assert (a.config, a.seed, list(a.data)) == (b.config, b.seed, list(b.data))
        for key, value in a.data.items():
            assert value.dtype == b.data[key].dtype
            assert np.array_equal(value, b.data[key], equal_nan=True)


def full(machine):
    return load("toy-walk", "full", machine.results)


def test_sigkill_then_the_same_command_ends_as_if_undisturbed(machine):
    plain, killed = machine("plain"), machine("killed")
    assert plain(*FULL)[0] == 0
    process = killed.start(*FULL, sleep=0.2)
    wait_for(lambda: len(list(killed.cells.glob("*.npz"))) >= 3)
    process.kill()
    process.communicate()
    finished = {(cell.config["scale"], cell.seed) for cell in full(killed)}
    assert 3 <= len(finished) < len(ALL)
    before = len(killed.computed())

    code, out, _ = killed(*FULL)
    again = killed.computed()[before:]
    assert code == 0 and "0 left" in out
    assert set(again) == ALL - finished and len(again) == len(set(again))
    assert_same(full(plain), full(killed))
    assert not killed.cells.exists()
    archives = [m.results / "toy" / "toy-walk.full.npz" for m in (plain, killed)]
    assert archives[0].read_bytes() == archives[1].read_bytes()

    killed(*FULL)  # nothing is left to compute
    assert len(killed.computed()) == before + len(again)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_resumable_state(machine, number):
    stopped = machine()
    process = stopped.start(*FULL, sleep=0.2)
    wait_for(lambda: len(list(stopped.cells.glob("*.npz"))) >= 2)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    last = err.strip().splitlines()[-1]
    assert number.name in last and "goes on from there" in last
    assert "Traceback" not in err
    assert not stopped.cells.exists(), "the finished cells are packed"
    finished = {(cell.config["scale"], cell.seed) for cell in full(stopped)}
    before = len(stopped.computed())
    assert stopped(*FULL)[0] == 0
    assert set(stopped.computed()[before:]) == ALL - finished


def test_max_minutes_stops_between_cells_and_closes_the_experiment(machine):
    short = machine()
    code, out, _ = short(*FULL, "--max-minutes", "0.005", sleep=0.12)
    finished = full(short)
    assert code == 0 and 1 <= len(finished) < len(ALL)
    assert f"{len(finished)} cells computed" in out and "stopped after 0.005" in out
    assert short.log.read_text().splitlines()[-1].endswith("closed")
    assert len(short.computed()) == len(finished), "no cell was begun in vain"


def test_list_and_staleness(machine, tmp_path):
    modules = tmp_path / "modules"
    modules.mkdir()
    for name in ("toy.py", "toy_maths.py"):
        shutil.copy(HERE / name, modules)
    mine = machine(modules=modules)

    def state():
        code, out, err = mine("list")
        assert code == 0, err
        [line] = [li for li in out.splitlines() if li.startswith("toy-walk         ")
                  and " full " in li]  # fmt: skip
        return line.split(" full ")[1].strip()

    def edit(name, old, new):
        text = (modules / name).read_text()
        assert old in text
        (modules / name).write_text(text.replace(old, new))

    assert state() == "not run 0/12"
    mine(*FULL, "--seeds", "2")
    assert state() == "done 8/12"
    mine(*FULL)
    assert state() == "done 12/12"
    edit("toy_maths.py", "Return a random walk.", "Walk at random, as prose has it.")
    edit("toy_maths.py", "import numpy", "# a comment\nimport numpy")
    edit("toy.py", "End of the walk of scale 2", "The end")
    edit("toy.py", "second - first", "first - second")  # a metric makes no result
    assert state() == "done 12/12"
    edit("toy.py", "SHIFT = 0.0", "SHIFT = 1.0")  # read by the run function
    assert state() == "done 12/12, 12 stale"
    before = len(mine.computed())
    mine(*FULL, "--seeds", "1")
    assert state() == "done 12/12, 8 stale"
    assert len(mine.computed()) == before + 4
    mine(*FULL)
    assert state() == "done 12/12"
    edit("toy_maths.py", "scale * np", "scale * 1 * np")
    assert state() == "done 12/12, 12 stale"


@pytest.mark.slow
def test_dask_cluster_is_bit_identical_to_the_local_run(machine, tmp_path):
    import subprocess

    from distributed import Client

    local, cluster = machine("local"), machine("cluster")
    assert local(*FULL)[0] == 0
    contact = tmp_path / "scheduler.json"
    environment = cluster.environment | {
        "TOY_SLEEP": "0.1",
        "OPTML_EXPERIMENTS": "",  # the run hands the modules over
    }
    python = [sys.executable, "-m"]
    file = ["--scheduler-file", str(contact)]
    start = [
        [*python, "distributed.cli.dask_scheduler", *file, "--port", "0",
         "--host", "127.0.0.1", "--no-dashboard", "--no-jupyter"],
        *2 * [[*python, "distributed.cli.dask_worker", *file, "--nthreads", "1",
               "--no-nanny", "--no-dashboard",
               "--local-directory", str(tmp_path / "scratch")]],
    ]  # fmt: skip
    processes = []
    try:
        for command in start:
            processes.append(
                subprocess.Popen(
                    command,
                    env=environment,
                    cwd=tmp_path,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
            wait_for(contact.exists)
        address = json.loads(contact.read_text())["address"]
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        code, _, err = cluster(*FULL, "--dask", address)
        assert code == 0, err
    finally:
        for process in processes:
            process.kill()
            process.wait(timeout=30)
    assert_same(full(local), full(cluster))
    lines = cluster.log.read_text().splitlines()
    workers = {line.split()[0] for line in lines}
    assert workers == {str(process.pid) for process in processes[1:]}
    text = (cluster.results / "toy" / "toy-walk.full.json").read_text()
    assert address not in text and "127.0.0.1" not in text


def test_plan_groups_configurations_that_lack_the_same_seeds(tmp_path):
    experiment = registry.experiment("toy-walk")
    everything = [(experiment.full, (0, 1, 2))]
    assert runner.plan(experiment, "full", results=tmp_path) == everything
    run = {"code": provenance.code_hash(experiment), "start": "a", "end": "a"}
    base = store.base_path("toy", "toy-walk", "full", tmp_path)
    for scale, seed in [(1, 0), (3, 0), (2, 0), (2, 1), (2, 2), (4, 1)]:
        store.save_cell(base, {"scale": scale, "steps": 40}, seed, {}, run, 0.0)
    a, _, c, d = experiment.full
    expected = [((a, c), (1, 2)), ((d,), (0, 2))]
    assert runner.plan(experiment, "full", results=tmp_path) == expected


def test_configurations_and_seeds_arrive_in_one_call(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    runner.run("toy-walk", "full", results=tmp_path)
    calls = [li for li in (tmp_path / "log").read_text().splitlines() if "call" in li]
    assert [call.split(maxsplit=1)[1] for call in calls] == ["call 4 0,1,2"]


def test_live_equals_stored(tmp_path):
    runner.run("toy-walk", "quick", results=tmp_path)
    stored = load("toy-walk", "quick", tmp_path)
    assert_same(live("toy-walk"), stored)
    assert stored[0].data["path"].shape == (40,)
    assert all(cell.seconds >= 0 for cell in stored)


def test_a_broken_experiment_keeps_what_it_finished(tmp_path):
    with pytest.raises(ZeroDivisionError):
        runner.run("toy-broken", results=tmp_path)
    [cell] = load("toy-broken", "quick", tmp_path)
    assert np.isnan(cell.data["end"])


def test_a_cell_that_nobody_asked_for_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="nobody asked for"):
        runner.run("toy-stranger", results=tmp_path)


def test_progress_without_tqdm_tells_the_time_left(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    runner.run("toy-walk", "quick", results=tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert "toy-walk quick: 4/4 cells" in lines[-1] and "left" in lines[-1]


def test_wrong_names_say_what_is_there(machine):
    code, _, err = machine()("run", "toy-wolk")
    assert code == 2 and "no experiment 'toy-wolk'" in err and "toy-walk" in err


def test_a_gpu_is_refused_where_the_experiment_would_not_use_it(tmp_path):
    with pytest.raises(ValueError, match="toy-walk runs on the processor.*'cuda'"):
        runner.run("toy-walk", "full", device="cuda", results=tmp_path)
    with pytest.raises(ValueError, match="toy-walk runs on the processor"):
        live("toy-walk", device="cuda")
    assert not list(tmp_path.rglob("*.npz"))
