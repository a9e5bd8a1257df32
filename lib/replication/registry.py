"""What the book claims and what it runs: experiments, claims and errata."""

import importlib
import os
import pkgutil
import re
import tomllib
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path

from .results import canonical_config, config_key, matches

PACKAGE = Path(__file__).parent
CLAIMS = PACKAGE / "claims"
ROOT = PACKAGE.parents[1]  # of a checkout; site-packages where the wheel is
WINGS = ("features", "acceleration", "games", "graphs", "convexnn", "coresets")
KINDS = ("value", "slope", "order", "bound", "identity", "quality")
TIERS = ("quick", "full")
EXPERIMENTS_VARIABLE = "OPTML_EXPERIMENTS"


class RegistryError(ValueError):
    """A record of the registry is wrong; the message names its file and id."""


@dataclass(frozen=True)
class Experiment:
    """
    A grid of configurations and seeds, and the function that computes it.

    Attributes
    ----------
    name : str
        Unique name: lower-case letters, digits and hyphens.
    run : callable
        Module-level generator function ``run(configs, seeds, device)`` that yields
        ``(config, seed, {name: number or array})`` for every pair of a configuration
        and a seed it was handed, in any order. It may batch them, but a cell's
        numbers must not depend on what it was batched with.
    quick, full : sequence of dict
        Configurations of the two tiers.
    seeds : dict
        Number of seeds for each tier; the seeds are 0, 1, 2, ...
    modules : tuple of str
        Modules whose code decides the results; an edit there makes them stale.
    data : tuple of str
        Data sets read, as ``"mnist/train"``, or ``"mnist"`` for both splits.
    summary : str
        One line on what it measures.
    cuda : bool
        Whether ``run`` computes on the CUDA device that it is handed. The runner
        refuses such a device otherwise: no result names a GPU that was idle.
    wing : str
        Set by the registry: the module of `experiments` that declares it.
    """

    name: str
    run: Callable
    quick: tuple = ()
    full: tuple = ()
    seeds: dict = field(default_factory=lambda: {"quick": 3, "full": 5})
    modules: tuple = ()
    data: tuple = ()
    summary: str = ""
    cuda: bool = False
    wing: str = ""

    def __post_init__(self):
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.name):
            raise ValueError(f"experiment name {self.name!r}: use a-z, 0-9, hyphens")
        for tier in TIERS:
            configs = tuple(canonical_config(c) for c in getattr(self, tier))
            if len({config_key(c) for c in configs}) < len(configs):
                raise ValueError(f"{self.name}: a {tier} configuration is repeated")
            if self.seeds.get(tier, 0) < 1:
                raise ValueError(f"{self.name}: seeds[{tier!r}] must be at least 1")
            object.__setattr__(self, tier, configs)

    def grid(self, tier):
        """
        Return the configurations of a tier.

        Parameters
        ----------
        tier : {"quick", "full"}
            The tier.

        Returns
        -------
        tuple of dict
            The declared configurations.
        """
        if tier not in TIERS:
            raise ValueError(f"tier must be one of {TIERS}, got {tier!r}")
        return getattr(self, tier)


@dataclass(frozen=True)
class Claim:
    """
    One claim of a paper or a report, and what decides it.

    The fields are those of a ``[[claim]]`` table in ``claims/<wing>.toml``.

    Attributes
    ----------
    id, paper, where, statement, kind : str
        Identity ``<wing>-...``, citation key, place, sentence, and one of `KINDS`.
    wing : str
        The wing, from the file's name.
    tier : {"full", "quick"}
        Tier that decides.
    published : object
        What was printed. A number, or ``{value = ...}``, for value and slope.
    tolerance : float
        Set before running; a change needs a `note`.
    experiment, metric : str
        Experiment, and the function that turns its results into samples.
    select : dict
        Configurations handed to the metric, as in `Results.where`.
    check : str
        Test that decides a theorem, ``tests/<path>.py::test_name``.
    blocked : str
        Why the claim cannot be run here.
    chapter : str
        Citation key of the paper whose chapter reviews the claim, where it is not
        the claim's own.
    deviation, note : str
        What was done differently, and anything a reader should know.
    """

    id: str
    paper: str
    where: str
    statement: str
    kind: str
    wing: str
    tier: str = "full"
    published: object = None
    tolerance: float = 0.0
    experiment: str = ""
    metric: str = ""
    select: dict = field(default_factory=dict)
    check: str = ""
    blocked: str = ""
    chapter: str = ""
    deviation: str = ""
    note: str = ""


@dataclass(frozen=True)
class Erratum:
    """
    One slip in print and its correction.

    Attributes
    ----------
    id, wing, source, where : str
        Identity, wing, ``"report"`` or a citation key, and the place.
    printed, right : str
        What is printed and what is right.
    shown : str
        Chapter and anchor of the cell that shows it, ``"wing/chapter#anchor"``.
    evidence : str
        How it is known where no cell shows it.
    """

    id: str
    wing: str
    source: str
    where: str
    printed: str
    right: str
    shown: str = ""
    evidence: str = ""


def experiment_modules():
    """
    Import the modules that declare experiments.

    Returns
    -------
    dict of str to module
        Wing to module. The environment variable ``OPTML_EXPERIMENTS`` replaces the
        book's own by other module names, separated by commas.
    """
    names = os.environ.get(EXPERIMENTS_VARIABLE, "")
    if names:
        names = names.split(",")
    else:
        folder, package = PACKAGE / "experiments", f"{__package__}.experiments"
        found = [m.name for m in pkgutil.iter_modules([str(folder)])]
        names = [f"{package}.{name}" for name in sorted(found, key=_order)]
    return {name.rpartition(".")[2]: importlib.import_module(name) for name in names}


def experiments():
    """
    Return every declared experiment.

    Returns
    -------
    dict of str to Experiment
        By name, in the order of wings and declarations.
    """
    table = {}
    for wing, module in experiment_modules().items():
        for experiment in module.EXPERIMENTS:
            if experiment.name in table:
                raise RegistryError(f"two experiments are named {experiment.name!r}")
            # in place: a copy would check its whole grid again
            object.__setattr__(experiment, "wing", wing)
            table[experiment.name] = experiment
    return table


def experiment(name):
    """
    Return one experiment.

    Parameters
    ----------
    name : str
        Its name.

    Returns
    -------
    Experiment
        The declared experiment.

    Raises
    ------
    RegistryError
        If there is none of that name.
    """
    table = experiments()
    if name not in table:
        known = ", ".join(table) or "none"
        raise RegistryError(f"no experiment {name!r}; declared: {known}")
    return table[name]


def claims(wing=None, paper=None, folder=None):
    """
    Return the validated claims.

    Parameters
    ----------
    wing : str, optional
        Keep those of one wing.
    paper : str, optional
        Keep those of one citation key: its own and those that its chapter reviews.
    folder : path, optional
        Where the TOML files are.

    Returns
    -------
    tuple of Claim
        In the order of wings and files.

    Raises
    ------
    RegistryError
        If any record is wrong.
    """
    kept = _load(Path(folder or CLAIMS))[0]
    return tuple(
        claim
        for claim in kept
        if wing in (None, claim.wing) and paper in (None, claim.paper, claim.chapter)
    )


def errata(wing=None, folder=None):
    """
    Return the validated errata.

    Parameters
    ----------
    wing : str, optional
        Keep those of one wing.
    folder : path, optional
        Where the TOML files are.

    Returns
    -------
    tuple of Erratum
        In the order of wings and files.
    """
    return tuple(e for e in _load(Path(folder or CLAIMS))[1] if wing in (None, e.wing))


def _order(wing):
    return (WINGS.index(wing) if wing in WINGS else len(WINGS), wing)


def _load(folder):
    files = sorted(folder.glob("*.toml"), key=lambda path: _order(path.stem))
    # the key makes an edited file load again within one process
    key = tuple((path, path.stat().st_mtime_ns) for path in files)
    return _load_files(key, os.environ.get(EXPERIMENTS_VARIABLE, ""))


@cache
def _load_files(key, _):
    found, ids = {"claim": [], "erratum": []}, set()
    for path, _ in key:
        with open(path, "rb") as stream:
            try:
                content = tomllib.load(stream)
            except tomllib.TOMLDecodeError as error:
                raise RegistryError(f"{path.name}: {error}") from None
        unknown = sorted(set(content) - set(found))
        if unknown:
            raise RegistryError(f"{path.name}: unknown tables {unknown}")
        for kind, record_type in (("claim", Claim), ("erratum", Erratum)):
            for record in content.get(kind, []):
                at = f"{path.name}: {kind} {record.get('id', record)!r}"
                item = _record(record_type, record, path.stem, at)
                if item.id in ids:
                    raise RegistryError(f"{at}: this id is used twice")
                ids.add(item.id)
                if kind == "claim":
                    _check_claim(item, record, at)
                elif not (item.shown or item.evidence):
                    raise RegistryError(f"{at}: needs `shown` or `evidence`")
                elif item.shown and not re.fullmatch(r"[^#\s]+#[^#\s]+", item.shown):
                    raise RegistryError(f"{at}: shown = 'wing/chapter#anchor'")
                found[kind].append(item)
    return tuple(found["claim"]), tuple(found["erratum"])


def _record(record_type, record, wing, at):
    if "verdict" in record:
        raise RegistryError(f"{at}: a verdict is computed, never typed")
    allowed = {f.name: f for f in fields(record_type)}
    unknown = sorted(set(record) - set(allowed))
    if unknown:
        raise RegistryError(f"{at}: unknown keys {unknown}; allowed: {list(allowed)}")
    record = {"wing": wing, **record}
    missing = [name for name, f in allowed.items() if name not in record
               and f.default is MISSING and f.default_factory is MISSING]  # fmt: skip
    if missing:
        raise RegistryError(f"{at}: missing keys {missing}")
    types = {"tolerance": (int, float), "select": dict, "published": object}
    for name, value in record.items():
        if not isinstance(value, types.get(name, str)):
            raise RegistryError(f"{at}: {name} = {value!r} has the wrong type")
    if record["wing"] != wing:
        raise RegistryError(f"{at}: the wing of this file is {wing!r}")
    if not record["id"].startswith(f"{wing}-"):
        raise RegistryError(f"{at}: the id must start with '{wing}-'")
    return record_type(**record)


def _check_claim(claim, record, at):
    if claim.kind not in KINDS:
        raise RegistryError(f"{at}: kind {claim.kind!r} is none of {KINDS}")
    if claim.tier not in TIERS:
        raise RegistryError(f"{at}: tier {claim.tier!r} is none of {TIERS}")
    if sum(map(bool, (claim.experiment, claim.check, claim.blocked))) != 1:
        raise RegistryError(f"{at}: needs one of `experiment`, `check`, `blocked`")
    if claim.check:
        _check_test(claim.check, at)
    if not claim.experiment:
        if claim.metric or claim.select:
            raise RegistryError(f"{at}: metric and select belong to an experiment")
        return
    declared = experiments().get(claim.experiment)
    if declared is None or declared.wing != claim.wing:
        raise RegistryError(
            f"{at}: no experiment {claim.experiment!r} in experiments/{claim.wing}.py"
        )
    if not callable(getattr(experiment_modules()[claim.wing], claim.metric, None)):
        raise RegistryError(
            f"{at}: no metric {claim.metric!r} in experiments/{claim.wing}.py"
        )
    if not any(matches(config, claim.select) for config in declared.grid(claim.tier)):
        raise RegistryError(f"{at}: select matches no configuration of that tier")
    if claim.kind in ("value", "slope", "identity") and "tolerance" not in record:
        raise RegistryError(f"{at}: kind {claim.kind!r} needs a tolerance")
    if claim.tolerance < 0 and claim.kind != "order":
        raise RegistryError(f"{at}: tolerance {claim.tolerance} is negative")
    if claim.kind in ("value", "slope") and published_number(claim) is None:
        raise RegistryError(f"{at}: published must be a number or {{value = ...}}")


def _check_test(check, at):
    path, _, name = check.partition("::")
    if not (path.startswith("tests/") and name):
        raise RegistryError(f"{at}: check {check!r} is no 'tests/<path>.py::test_name'")
    if not (ROOT / "tests").is_dir():
        return  # the wheel carries no tests
    if not (ROOT / path).is_file():
        raise RegistryError(f"{at}: check {check!r}: there is no {path}")
    function = re.escape(name.rpartition("::")[2].partition("[")[0])
    if not re.search(rf"\bdef {function}\(", (ROOT / path).read_text("utf-8")):
        raise RegistryError(f"{at}: check {check!r}: {path} defines no such test")


def published_number(claim):
    """
    Return the published number of a value or slope claim.

    Parameters
    ----------
    claim : Claim
        The claim.

    Returns
    -------
    float or None
        None where nothing numeric was published.
    """
    value = claim.published
    if isinstance(value, dict):
        value = value.get("value")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number else None
