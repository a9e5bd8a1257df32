"""Verdicts from stored results and tests, the generated file, and the tables."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from test_registry import CLAIM, toml

import lib.replication as replication
from lib.replication import Cell, Results, __main__, registry, runner, store
from lib.replication.verify import run_checks, verify

SCHEMA = json.loads((Path(store.__file__).parent / "schema.json").read_text())
CHECKS = """
import pytest

@pytest.mark.parametrize("case", [1, 2])
def test_true(case, record_property):
    record_property("trials", 10)
    record_property("value", case * 1e-15)

def test_false():
    assert 1 + 1 == 3

@pytest.mark.xfail(strict=True, reason="the printed form is wrong")
def test_known_false():
    assert 1 + 1 == 3

@pytest.mark.slow
def test_slow():
    pass

def test_skipped():
    pytest.skip("no such machine")

def test_broken(nowhere):
    pass

class TestMore:
    def test_true(self):
        pass
"""
PATH = "tests/toy/test_walk.py"


def claim(name, **changes):
    return CLAIM | {"id": f"toy-{name}"} | changes


def check(name, test):
    record = claim(name, kind="identity", check=f"{PATH}::{test}")
    del record["experiment"], record["metric"]
    return record


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A checkout with its own claims, tests and results."""
    records = [
        claim("order"),
        claim("value", kind="value", metric="end", select={"scale": 3},
              published=0.0, tolerance=50.0, deviation="a <toy> & no paper"),
        claim("quick", metric="scaled_end", tier="quick", paper="other2000"),
        claim("elsewhere", metric="needs_scale_7"),
        check("true", "test_true"),
        check("false", "test_false"),
    ]  # fmt: skip
    blocked = claim("blocked", blocked="the data are gone")
    del blocked["experiment"], blocked["metric"]
    (tmp_path / "claims").mkdir()
    text = "\n".join(toml("claim", record) for record in [*records, blocked])
    (tmp_path / "claims" / "toy.toml").write_text(text)
    (tmp_path / PATH).parent.mkdir(parents=True)
    (tmp_path / PATH).write_text(CHECKS)
    monkeypatch.setattr(registry, "ROOT", tmp_path)
    monkeypatch.setattr(registry, "CLAIMS", tmp_path / "claims")
    monkeypatch.setattr(store, "RESULTS", tmp_path / "results")
    return tmp_path


def words(folder):
    stored = json.loads((folder / "results" / "verdicts.json").read_text())
    jsonschema.validate(stored, SCHEMA)
    return {name: found["word"] for name, found in stored["verdicts"].items()}


def test_run_checks_reads_every_outcome(book):
    names = ("true", "false", "known_false", "slow", "skipped", "broken")
    ids = [f"{PATH}::test_{name}" for name in names] + [f"{PATH}::TestMore::test_true"]
    found = run_checks(ids)
    assert [found[i].word for i in ids] == [
        "reproduced", "contradicted", "contradicted", "reproduced",
        "not run", "not run", "reproduced",
    ]  # fmt: skip
    both = found[ids[0]]
    assert (both.value, both.n, both.tier) == (2e-15, 20, "check")
    assert found[ids[-1]].n is None


def test_verify_from_nothing_to_agreement(book, capsys):
    assert __main__.main(["verify"]) == 1
    out = capsys.readouterr().out
    assert "toy-true: stored nothing, found reproduced (value 2e-15, n 20)" in out
    assert "verify --write" in out
    assert __main__.main(["verify", "--write"]) == 0
    first = (book / "results" / "verdicts.json").read_bytes()
    assert words(book) == {
        "toy-order": "not run",
        "toy-value": "not run",
        "toy-quick": "not run",
        "toy-elsewhere": "not run",
        "toy-true": "reproduced",
        "toy-false": "contradicted",
        "toy-blocked": "not run",
    }
    assert verify() == []
    runner.run("toy-walk", "full")
    differences = verify(checks=False)
    assert [line.split(":")[0] for line in differences] == [
        "toy-elsewhere", "toy-order", "toy-value"]  # fmt: skip
    verify(write=True, checks=False)
    assert words(book)["toy-value"] == "reproduced"
    assert words(book)["toy-elsewhere"] == "not run"
    assert words(book)["toy-true"] == "reproduced", "believed without running the test"
    assert (book / "results" / "verdicts.json").read_bytes() != first
    assert __main__.main(["verify"]) == 0


def test_verify_notices_a_typed_verdict_but_not_another_machine(book):
    runner.run("toy-walk", "full")
    verify(write=True)
    path = book / "results" / "verdicts.json"
    original = path.read_text()

    def edited(name, **changes):
        stored = json.loads(original)
        stored["verdicts"][name] |= changes
        path.write_text(json.dumps(stored))
        return verify()

    assert edited("toy-order") == []
    assert len(edited("toy-order", word="contradicted")) == 1
    value = json.loads(original)["verdicts"]["toy-value"]["value"]
    assert edited("toy-value", value=value * (1 + 1e-8)) == []
    assert len(edited("toy-value", value=value * 1.0001)) == 1
    assert edited("toy-true", value=7e-16) == [], "rounding of another machine"
    assert len(edited("toy-true", n=21)) == 1
    stored = json.loads(original)
    stored["verdicts"]["toy-gone"] = stored["verdicts"]["toy-true"]
    path.write_text(json.dumps(stored))
    assert "toy-gone" in verify()[0] and "found nothing" in verify()[0]


def test_writing_keeps_digits_that_agree(book):
    runner.run("toy-walk", "full")
    verify(write=True, checks=False)
    path = book / "results" / "verdicts.json"
    stored = json.loads(path.read_text())
    stored["verdicts"]["toy-value"]["value"] *= 1 + 1e-8
    text = json.dumps(stored, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    path.write_text(text)
    verify(write=True, checks=False)
    assert path.read_text() == text


def test_without_tests_the_file_is_believed(book, monkeypatch, tmp_path):
    verify(write=True)
    monkeypatch.setattr(registry, "ROOT", tmp_path / "site-packages")
    assert verify() == []
    [true] = [c for c in replication.claims() if c.id == "toy-true"]
    assert replication.stored_verdict(true).word == "reproduced"


def test_only_complete_seeds_count(book):
    order, *_ = replication.claims()
    configs = registry.experiment("toy-walk").full

    def results(pairs, tier="full"):
        cells = [
            Cell(configs[i], seed, {"end": np.float64(i * 10 + seed)})
            for i, seed in pairs
        ]
        return Results(cells, "toy-walk", tier)

    everything = [(i, seed) for i in range(4) for seed in range(3)]
    assert replication.verdict(order, results(everything)).n == 3
    # seed 2 lacks one configuration: paired differences must not shift seeds
    found = replication.verdict(order, results(everything[:-1]))
    assert (found.word, found.n, found.value) == ("reproduced", 2, 10.0)
    found = replication.verdict(order, results([(0, 0), (1, 0), (2, 0)]))
    assert found.word == "not run" and "3 of 4 cells" in found.reason
    only_one = results([(i, 0) for i in range(4)])
    assert replication.verdict(order, only_one).word == "inconclusive"
    assert replication.verdict(order, Results(tier="full")).word == "not run"


def test_claims_table(book):
    runner.run("toy-walk", "full")
    verify(write=True)
    live = {"toy-walk": replication.live("toy-walk")}
    table = replication.claims_table("walker1999", live)
    text, html = repr(table), table._repr_html_()
    assert text == repr(replication.claims_table("walker1999", live))
    assert "published   0 ± 50" in text and "n = 3" in text
    assert "Deviation: a <toy> & no paper" in text
    assert "verdict     not run: the data are gone" in text
    assert "full tier   test: 2e-15, n = 20" in text
    assert "a &lt;toy&gt; &amp; no paper" in html and "<toy>" not in html
    for part in (
        '<table class="claims">',
        '<th scope="col">Verdict</th>',
        'class="verdict verdict-not-run"',
        'class="verdict verdict-reproduced"',
        'class="verdict verdict-contradicted"',
    ):
        assert part in html
    assert html.count("<tr") == 1 + 6 and "style=" not in html
    assert "stale" not in text + html
    value = next(b for b in text.split("toy-") if b.startswith("value"))
    assert "quick tier  not run" in value, "scale 3 is not in the quick tier"
    order = next(b for b in text.split("toy-") if b.startswith("order"))
    assert "n = 2" in order.split("quick tier")[1].splitlines()[0]


def test_the_quick_tier_decides_where_the_claim_says_so(book):
    runner.run("toy-walk", "quick")
    [row] = replication.claims_table("other2000").rows
    _, decided, full, quick = row
    assert decided == quick and decided.tier == "quick" and full.word == "not run"


def test_scoreboard_and_chapter_status(book):
    (book / "book" / "toy").mkdir(parents=True)
    (book / "book" / "toy" / "walker1999_walk.md").write_text("")
    assert replication.scoreboard()[0]["chapter"] is None, "it is in preparation"
    (book / "_toc.yml").write_text("- file: book/toy/walker1999_walk.ipynb\n")
    runner.run("toy-walk", "full", seeds=2)
    verify(write=True, checks=False)
    walker, other = replication.scoreboard()
    assert (walker["paper"], other["paper"]) == ("walker1999", "other2000")
    assert other["not_run"] == 1 and len(walker["claims"]) == 6
    counted = ("reproduced", "contradicted", "inconclusive", "not_run")
    assert sum(walker[word] for word in counted) == 6
    assert (walker["chapter"], other["chapter"]) == ("toy/walker1999_walk", None)
    status = replication.chapter_status("walker1999")
    assert status["full"]["done"] == 8 and status["full"]["planned"] == 12
    assert status["full"]["runs"] == 1 and status["stale"] == []
    [(device, seconds)] = status["full"]["devices"].items()
    assert device and seconds == status["full"]["seconds"] > 0
    assert sum(status["counts"].values()) == 6
    path = book / "results" / "toy" / "toy-walk.full.json"
    stored = json.loads(path.read_text())
    stored["runs"][0]["code"] = "0" * 64
    path.write_text(json.dumps(stored))
    assert replication.chapter_status("walker1999")["stale"] == ["toy-walk"]


def test_table_command(book, capsys):
    assert __main__.main(["table", "other2000"]) == 0
    assert "toy-quick" in capsys.readouterr().out
    assert __main__.main(["table"]) == 0
    assert "[walker1999]" in capsys.readouterr().out
    assert __main__.main(["table", "nobody"]) == 2
