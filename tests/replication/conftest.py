import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    """The toy experiments stand in for those of the book."""
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("OPTML_EXPERIMENTS", "toy")
    monkeypatch.delenv("TOY_LOG", raising=False)


class Machine:
    """A folder of results, a log, and the command line in a process of its own."""

    def __init__(self, folder, name, modules=HERE):
        self.results, self.log = folder / name, folder / f"{name}.log"
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(modules), str(ROOT)]),
            "TOY_LOG": str(self.log),
            "OMP_NUM_THREADS": "1",
        }

    def start(self, *arguments, sleep=0.0):
        command = [sys.executable, "-m", "lib.replication", *arguments]
        return subprocess.Popen(
            [*command, "--results", str(self.results)],
            env=self.environment | {"TOY_SLEEP": str(sleep)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments, **options):
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    @property
    def cells(self):
        return self.results / "toy" / "toy-walk.full.cells"

    def computed(self):
        """The cells in the log, in order, as (scale, seed)."""
        if not self.log.exists():
            return []
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [(int(a[2]), int(a[3])) for a in lines if a[1] == "cell"]


@pytest.fixture
def machine(tmp_path):
    return lambda name="results", **options: Machine(tmp_path, name, **options)
