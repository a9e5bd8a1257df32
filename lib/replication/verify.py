"""Recompute every verdict and compare with ``results/verdicts.json``."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree

from . import registry, store
from .tables import stored_verdict, stored_verdicts
from .verdicts import CONTRADICTED, NOT_RUN, REPRODUCED, Verdict

RELATIVE = 1e-6  # two machines agree on a recomputed number to this
ABSOLUTE = 1e-12  # ... or differ by rounding about zero
DIGITS = 8


def verify(write=False, checks=True, results=None):
    """
    Compare the recomputed verdicts with the stored file.

    Parameters
    ----------
    write : bool
        Bring the file up to date.
    checks : bool
        Run the tests that decide theorems; else believe the file about them.
    results : path, optional
        Folder of all results.

    Returns
    -------
    list of str
        One line for each difference that was found.
    """
    records = registry.claims()
    tested = {}
    if checks and (registry.ROOT / "tests").is_dir():
        tested = run_checks([claim.check for claim in records if claim.check])
    stored, fresh = stored_verdicts(results), {}
    for claim in records:
        found = tested.get(claim.check) or stored_verdict(claim, results)
        fresh[claim.id] = _rounded(found)
        if claim.id in stored and _same(stored[claim.id], fresh[claim.id]):
            fresh[claim.id] = stored[claim.id]  # another machine's last digits stay
    differences = [
        f"{name}: stored {_line(stored.get(name))}, found {_line(fresh.get(name))}"
        for name in sorted(stored.keys() | fresh.keys())
        if stored.get(name) != fresh.get(name)
    ]
    if write:
        text = json.dumps(
            {"verdicts": fresh}, indent=1, sort_keys=True, ensure_ascii=False
        )
        path = Path(results or store.RESULTS) / "verdicts.json"
        store.write_atomically(path, f"{text}\n".encode())
    return differences


def run_checks(ids):
    """
    Run the tests that decide claims, in one process.

    A test passes: reproduced. It fails, or is marked xfail and does: contradicted.
    ``record_property("value", ...)`` and ``("trials", ...)`` give the numbers.

    Parameters
    ----------
    ids : list of str
        Such as ``"tests/features/test_kernels.py::test_bochner"``.

    Returns
    -------
    dict of str to Verdict
        One for each id.
    """
    if not ids:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        # addopts and -m: whatever the project deselects by default runs here
        options = ["-q", "-p", "no:cacheprovider", "-o", "addopts=", "-m", ""]
        options += ["--import-mode=importlib", f"--junitxml={report}"]
        command = [sys.executable, "-m", "pytest", *options, *dict.fromkeys(ids)]
        done = subprocess.run(
            command,
            cwd=registry.ROOT,
            env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # 2 s saved
            capture_output=True,
            text=True,
        )
        if not report.is_file() or done.returncode not in (0, 1):
            raise RuntimeError(f"the tests did not run:\n{done.stdout}{done.stderr}")
        cases = ElementTree.parse(report).getroot().findall(".//testcase")
    return {name: _outcome(name, cases) for name in ids}


def _outcome(name, cases):
    path, *parts = name.split("::")
    place = ".".join([path.removesuffix(".py").replace("/", "."), *parts[:-1]])
    mine = [
        case
        for case in cases
        if case.get("classname") == place
        and parts[-1] in (case.get("name"), case.get("name").partition("[")[0])
    ]
    states = [_state(case) for case in mine]
    if not mine or "not run" in states:
        return Verdict(NOT_RUN, tier="check", reason="the test was skipped or broke")
    numbers = {"value": [], "trials": []}
    for case in mine:
        for item in case.iter("property"):
            if item.get("name") in numbers:
                numbers[item.get("name")].append(float(item.get("value")))
    failed = "failed" in states
    return Verdict(
        CONTRADICTED if failed else REPRODUCED,
        value=max(numbers["value"], default=None),
        n=int(sum(numbers["trials"])) or None,
        tier="check",
        reason=f"the test {'fails' if failed else 'passes'}",
    )


def _state(case):
    skipped = case.find("skipped")
    if case.find("error") is not None:
        return "not run"
    if skipped is not None:
        return "failed" if skipped.get("type") == "pytest.xfail" else "not run"
    return "passed" if case.find("failure") is None else "failed"


def _rounded(found):
    return {
        name: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
        for name, value in asdict(found).items()
    }


def _same(old, new):
    if old.keys() != new.keys():
        return False
    for name, value in new.items():
        if name == "value" and new["tier"] == "check":
            continue  # a test's own tolerance judges its rounding errors
        if isinstance(value, float) and isinstance(old[name], float):
            gap = abs(value - old[name])
            if gap > max(ABSOLUTE, RELATIVE * abs(value)):
                return False
        elif value != old[name]:
            return False
    return True


def _line(found):
    if found is None:
        return "nothing"
    parts = [f"{k} {found[k]}" for k in ("value", "low", "high", "n") if found[k]]
    return " ".join([found["word"], f"({', '.join(parts)})" if parts else ""]).strip()
