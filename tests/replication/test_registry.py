"""Claim files: what is accepted, what is refused, and how it is told."""

import pytest

from lib.replication import RegistryError, registry

CLAIM = {
    "id": "toy-longer",
    "paper": "walker1999",
    "where": "Table 1",
    "statement": "Twice the scale walks further.",
    "kind": "order",
    "experiment": "toy-walk",
    "metric": "scaled_end",
}
ERRATUM = {
    "id": "toy-slip",
    "source": "report",
    "where": "section 1",
    "printed": "1 + 1 = 3",
    "right": "1 + 1 = 2",
    "evidence": "peano1889",
}


def toml(kind, record):
    def value(v):
        if isinstance(v, dict):
            return "{" + ", ".join(f"{k} = {value(x)}" for k, x in v.items()) + "}"
        return repr(v).replace("'", '"')

    return f"[[{kind}]]\n" + "".join(f"{k} = {value(v)}\n" for k, v in record.items())


@pytest.fixture
def write(tmp_path):
    def write(*records, name="toy.toml"):
        text = "\n".join(
            toml("erratum" if "printed" in record else "claim", record)
            for record in records
        )
        (tmp_path / name).write_text(text)
        return tmp_path

    return write


def test_a_good_file_loads(write):
    value = {"kind": "value", "metric": "end", "published": 0.5, "tolerance": 0.1}
    second = CLAIM | {"id": "toy-second", "paper": "other", "tier": "quick"} | value
    third = CLAIM | {"id": "toy-third", "blocked": "no data"}
    del third["experiment"], third["metric"]
    folder = write(CLAIM, second, third, ERRATUM)
    found = registry.claims(folder=folder)
    assert [claim.id for claim in found] == ["toy-longer", "toy-second", "toy-third"]
    assert found[0].tier == "full" and found[0].wing == "toy"
    assert [c.id for c in registry.claims(paper="other", folder=folder)] == [
        second["id"]
    ]
    assert registry.claims(wing="games", folder=folder) == ()
    assert [slip.id for slip in registry.errata(folder=folder)] == ["toy-slip"]


def test_an_edited_file_is_read_again(write):
    assert len(registry.claims(folder=write(CLAIM))) == 1
    folder = write(CLAIM, CLAIM | {"id": "toy-more"})
    import os

    os.utime(folder / "toy.toml", ns=(1, 1))  # clocks may be coarse
    assert len(registry.claims(folder=folder)) == 2


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"verdict": "reproduced"}, "computed, never typed"),
        ({"tolerence": 0.1}, "unknown keys.*tolerence"),
        ({"kind": "vibe"}, "kind 'vibe'"),
        ({"tier": "huge"}, "tier 'huge'"),
        ({"experiment": "toy-run"}, "no experiment 'toy-run' in experiments/toy.py"),
        ({"metric": "sclaed_end"}, "no metric 'sclaed_end'"),
        ({"metric": ""}, "no metric ''"),
        ({"select": {"scale": 99}}, "select matches no configuration"),
        ({"select": {"scalle": 1}}, "select matches no configuration"),
        ({"blocked": "and an experiment"}, "one of `experiment`"),
        ({"experiment": ""}, "one of `experiment`"),
        ({"id": "longer"}, "start with 'toy-'"),
        ({"wing": "games"}, "wing of this file is 'toy'"),
        ({"kind": "value", "published": 1.0}, "needs a tolerance"),
        ({"kind": "slope", "published": 1.0}, "needs a tolerance"),
        ({"kind": "identity"}, "needs a tolerance"),
        ({"kind": "value", "tolerance": 0.1}, "published must be a number"),
        ({"kind": "value", "tolerance": 0.1, "published": "1"}, "published must be"),
        ({"kind": "bound", "tolerance": -0.1}, "negative"),
        ({"tolerance": "small"}, "tolerance = 'small' has the wrong type"),
        ({"statement": 3}, "statement = 3 has the wrong type"),
    ],
)
def test_a_wrong_claim_is_refused_by_name(write, changes, message):
    with pytest.raises(RegistryError, match=message) as error:
        registry.claims(folder=write(CLAIM | changes))
    assert str(error.value).startswith("toy.toml: claim '")


@pytest.mark.parametrize("name", ["id", "paper", "where", "statement", "kind"])
def test_a_missing_key_is_named(write, name):
    record = {k: v for k, v in CLAIM.items() if k != name}
    with pytest.raises(RegistryError, match=rf"missing keys \['{name}'\]"):
        registry.claims(folder=write(record))


def test_an_id_is_used_once(write):
    with pytest.raises(RegistryError, match="'toy-longer': this id is used twice"):
        registry.claims(folder=write(CLAIM, CLAIM))
    with pytest.raises(RegistryError, match="used twice"):
        registry.claims(folder=write(CLAIM, ERRATUM | {"id": CLAIM["id"]}))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"evidence": ""}, "`shown` or `evidence`"),
        ({"shown": "toy/walker1999_walk"}, "wing/chapter#anchor"),
        ({"right": None}, "missing keys.*right"),
        ({"proof": "none"}, "unknown keys.*proof"),
    ],
)
def test_a_wrong_erratum_is_refused(write, changes, message):
    record = {k: v for k, v in (ERRATUM | changes).items() if v is not None}
    with pytest.raises(RegistryError, match=message):
        registry.errata(folder=write(record))


def test_broken_toml_and_unknown_tables_name_the_file(tmp_path):
    (tmp_path / "toy.toml").write_text("[[claim]]\nid = \n")
    with pytest.raises(RegistryError, match="toy.toml: "):
        registry.claims(folder=tmp_path)
    (tmp_path / "toy.toml").write_text("[[claims]]\nid = 'toy-x'\n")
    with pytest.raises(RegistryError, match="unknown tables"):
        registry.claims(folder=tmp_path)


def test_checks_must_resolve(write, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "ROOT", tmp_path / "checkout")
    tests = tmp_path / "checkout" / "tests" / "toy"
    tests.mkdir(parents=True)
    (tests / "test_walk.py").write_text(
        "def test_far(): pass\nclass TestWalk:\n    def test_near(self): pass\n"
    )

    def load(check):
        record = {k: v for k, v in CLAIM.items() if k not in ("experiment", "metric")}
        return registry.claims(folder=write(record | {"kind": "bound", "check": check}))

    assert load("tests/toy/test_walk.py::test_far")
    assert load("tests/toy/test_walk.py::TestWalk::test_near")
    assert load("tests/toy/test_walk.py::test_far[case]")
    for check in (
        "tests/toy/test_walk.py::test_fa",
        "tests/toy/test_run.py::test_far",
        "tests/toy/test_walk.py",
        "toy/test_walk.py::test_far",
    ):
        with pytest.raises(RegistryError, match="check"):
            load(check)


def test_two_experiments_of_one_name_are_refused(tmp_path, monkeypatch):
    (tmp_path / "double.py").write_text("from toy import EXPERIMENTS\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("OPTML_EXPERIMENTS", "toy,double")
    with pytest.raises(RegistryError, match="two experiments are named 'toy-walk'"):
        registry.experiments()
