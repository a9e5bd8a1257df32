"""The registry of the book: records, references, stored results, verdicts."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from lib.replication import registry, store, verdicts
from lib.replication.tables import listed_chapters
from lib.replication.verify import verify

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
STORED = sorted(store.RESULTS.rglob("*.json"))


@pytest.fixture(scope="module")
def citation_keys():
    text = (BOOK / "references.bib").read_text("utf-8")
    return set(re.findall(r"^@\w+\{([^,\s]+),", text, re.MULTILINE))


def anchors(chapter):
    """Labels, names and heading slugs that a link into the chapter can reach."""
    text = (BOOK / f"{chapter}.md").read_text("utf-8")
    found = set(re.findall(r"^\(([^)\s]+)\)=\s*$", text, re.MULTILINE))
    found |= set(re.findall(r"^\s*:?(?:name|label): *(\S+)\s*$", text, re.MULTILINE))
    found |= set(re.findall(r"\{#([\w-]+)", text))
    for heading in re.findall(r"^#+ +(.+?)\s*$", text, re.MULTILINE):
        found.add(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"))
    return found


def test_every_claim_and_erratum_loads():
    claims, errata = registry.claims(), registry.errata()
    assert claims and errata
    ids = [record.id for record in (*claims, *errata)]
    assert len(set(ids)) == len(ids)
    assert all(record.id.startswith(f"{record.wing}-") for record in (*claims, *errata))
    assert {record.wing for record in (*claims, *errata)} <= set(registry.WINGS)


def test_sources_are_in_the_bibliography(citation_keys):
    reports = {f"report-{wing}" for wing in registry.WINGS}
    unknown = {c.id: c.paper for c in registry.claims()
               if c.paper not in citation_keys | reports}  # fmt: skip
    unknown |= {e.id: e.source for e in registry.errata()
                if e.source not in citation_keys | reports | {"report"}}  # fmt: skip
    assert not unknown


def test_errata_point_at_cells_that_exist(citation_keys):
    for slip in registry.errata():
        if slip.shown:
            chapter, _, anchor = slip.shown.partition("#")
            if chapter not in listed_chapters():
                continue  # in preparation, which its row on the errata page says
            assert (BOOK / f"{chapter}.md").is_file(), f"{slip.id}: no {chapter}"
            assert anchor in anchors(chapter), f"{slip.id}: no anchor {anchor}"
        elif " " not in slip.evidence:
            assert slip.evidence in citation_keys, f"{slip.id}: {slip.evidence}?"


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.name)
def test_stored_json_validates(path):
    schema = json.loads((store.RESULTS.parent / "schema.json").read_text("utf-8"))
    content = json.loads(path.read_text("utf-8"), parse_constant=lambda name: 1 / 0)
    jsonschema.validate(content, schema)
    if "cells" in content:
        assert path.parent.name == content["wing"]
        assert path.name == f"{content['experiment']}.{content['tier']}.json"
        base = path.with_suffix("")
        assert len(store.read_results(base)) == len(content["cells"]), (
            "arrays are there"
        )
        assert max(cell["run"] for cell in content["cells"]) < len(content["runs"])


def test_stored_results_are_small_and_packed():
    files = [path for path in store.RESULTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
    for path in store.RESULTS.rglob("*.npz"):
        assert path.with_suffix(".json").is_file(), f"{path.name} belongs to nothing"


def test_stored_results_belong_to_declared_experiments():
    experiments = registry.experiments()
    for path in store.RESULTS.glob("*/*.json"):
        name, _, tier = path.stem.rpartition(".")
        if tier != "bench":
            assert name in experiments, f"{path.name}: no such experiment"
            assert experiments[name].wing == path.parent.name


def test_verdicts_agree_with_the_stored_results():
    assert not verify(checks=False), "run `python -m lib.replication verify --write`"


@pytest.mark.slow
def test_verdicts_agree_with_the_tests():
    assert not verify(), "run `python -m lib.replication verify --write`"


def test_nothing_decides_on_one_seed():
    for claim in registry.claims():
        if claim.experiment and claim.kind in ("value", "slope", "order", "quality"):
            seeds = registry.experiment(claim.experiment).seeds[claim.tier]
            assert seeds >= 2, f"{claim.id} could only be {verdicts.INCONCLUSIVE}"
