"""Verdicts of the claims, and the tables that chapters and the site draw of them."""

import html
import json
import re
from collections import Counter
from pathlib import Path

from . import registry, runner, store
from .results import MissingCells, Results, config_key, matches
from .verdicts import NOT_RUN, WORDS, Verdict, decide


def verdict(claim, results):
    """
    Decide a claim that has an experiment by these results.

    Only seeds that have every declared configuration the claim selects count.

    Parameters
    ----------
    claim : Claim
        The claim.
    results : Results
        Stored or live cells of its experiment.

    Returns
    -------
    Verdict
        ``"not run"`` where no seed is complete.
    """
    tier = results.tier
    if claim.blocked or claim.check:
        raise ValueError(f"{claim.id}: no experiment decides this claim")
    chosen = Results(
        (cell for cell in results if matches(cell.config, claim.select)),
        results.experiment,
        tier,
    )
    if not chosen:
        return Verdict(NOT_RUN, tier=tier, reason=f"no {tier}-tier result")
    grid = chosen.configs
    if tier in registry.TIERS:
        grid = registry.experiment(claim.experiment).grid(tier)
        grid = [config for config in grid if matches(config, claim.select)]
    if not grid:
        return Verdict(NOT_RUN, tier=tier, reason=f"not part of the {tier} tier")
    wanted = {config_key(config) for config in grid}
    declared = [cell for cell in chosen if config_key(cell.config) in wanted]
    per_seed = Counter(cell.seed for cell in declared)
    complete = [c for c in declared if per_seed[c.seed] == len(wanted)]
    if not complete:
        planned = max(len(per_seed), 1) * len(wanted)
        reason = f"incomplete: {len(declared)} of {planned} cells"
        return Verdict(NOT_RUN, tier=tier, reason=reason)
    metric = getattr(registry.experiment_modules()[claim.wing], claim.metric)
    try:
        samples = metric(Results(complete, results.experiment, tier))
    except MissingCells as missing:
        return Verdict(NOT_RUN, tier=tier, reason=str(missing))
    published = registry.published_number(claim)
    return decide(
        claim.kind, samples, published=published, tolerance=claim.tolerance, tier=tier
    )


def stored_verdict(claim, results=None):
    """
    Decide a claim by what is stored.

    Parameters
    ----------
    claim : Claim
        The claim.
    results : path, optional
        Folder of all results.

    Returns
    -------
    Verdict
        Of the deciding tier; of the last ``verify --write`` for a test.
    """
    if claim.blocked:
        return Verdict(NOT_RUN, reason=claim.blocked)
    if claim.experiment:
        return verdict(claim, store.load(claim.experiment, claim.tier, results))
    recorded = stored_verdicts(results).get(claim.id)
    if recorded is None:
        return Verdict(NOT_RUN, tier="check", reason="the test was never run")
    return Verdict(**recorded)


def stored_verdicts(results=None):
    """
    Read ``results/verdicts.json``.

    Parameters
    ----------
    results : path, optional
        Folder of all results.

    Returns
    -------
    dict of str to dict
        Claim id to the fields of its verdict; empty if there is no file.
    """
    path = Path(results or store.RESULTS) / "verdicts.json"
    return json.loads(path.read_text("utf-8"))["verdicts"] if path.is_file() else {}


def claims_table(paper, live=None, results=None):
    """
    Build the table of a paper's claims.

    Parameters
    ----------
    paper : str
        Citation key, or ``"report-<wing>"``.
    live : dict of str to Results, optional
        Experiment name to the results of `live`; stored quick results elsewhere.
    results : path, optional
        Folder of all results.

    Returns
    -------
    ClaimsTable
        Draws itself in a notebook and as text.
    """
    rows = []
    for claim in registry.claims(paper=paper):
        decided = stored_verdict(claim, results)
        full = quick = None
        if claim.experiment:
            shown = (live or {}).get(claim.experiment)
            if shown is None:
                shown = store.load(claim.experiment, "quick", results)
            quick = verdict(claim, shown)
            full = decided
            if claim.tier == "quick":
                full = verdict(claim, store.load(claim.experiment, "full", results))
        rows.append((claim, decided, full, quick))
    return ClaimsTable(paper, rows)


class ClaimsTable:
    """
    A paper's claims beside what was published and what was measured.

    Parameters
    ----------
    paper : str
        Citation key.
    rows : list of (Claim, Verdict, Verdict or None, Verdict or None)
        Claim, what decides it, its full tier and its quick tier.
    """

    columns = ("Claim", "Verdict", "Published", "Full tier", "Quick tier")

    def __init__(self, paper, rows):
        self.paper, self.rows = paper, rows

    def _where(self, claim):
        own = claim.paper == self.paper
        return claim.where if own else f"[{claim.paper}] {claim.where}"

    def __repr__(self):
        lines = []
        for claim, decided, *measured in self.rows:
            lines.append(f"{claim.id} ({self._where(claim)})")
            lines += [f"  {text}" for text in (claim.statement, *_remarks(claim))]
            cells = (format_published(claim), *_measured(claim, decided, *measured))
            lines += [
                f"  {name.lower():10s}  {text}"
                for name, text in zip(self.columns[2:], cells, strict=True)
            ]
            reason = f": {decided.reason}" if decided.reason else ""
            lines.append(f"  {'verdict':10s}  {decided.word}{reason}")
        return "\n".join(lines) or f"no claims of {self.paper}"

    def _repr_html_(self):
        if not self.rows:
            return f"<p>No claims of {html.escape(self.paper)}.</p>"
        head = "".join(f'<th scope="col">{name}</th>' for name in self.columns)
        body = []
        for claim, decided, *measured in self.rows:
            notes = "".join(_small(t) for t in (self._where(claim), *_remarks(claim)))
            texts = (format_published(claim), *_measured(claim, decided, *measured))
            cells = "".join(f"<td>{_e(text)}</td>" for text in texts)
            name = decided.word.replace(" ", "-")
            body.append(
                f'<tr id="claim-{_e(claim.id)}">'
                f'<th scope="row">{_e(claim.statement)}{notes}</th>'
                f'<td class="verdict verdict-{name}"><strong>{decided.word}</strong>'
                f"{_small(decided.reason)}</td>{cells}</tr>"
            )
        # a wide table scrolls in its own box, which the keyboard can reach
        return (
            f'<div class="claims-scroll" role="region" tabindex="0" '
            f'aria-label="Claims of {_e(self.paper)}"><table class="claims">\n'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n"
            + "\n".join(body)
            + "\n</tbody></table></div>"
        )


def format_measured(found):
    """
    Write the numbers of a verdict in one line.

    Parameters
    ----------
    found : Verdict
        The verdict.

    Returns
    -------
    str
        Such as ``"0.0312 [0.0298, 0.0327], n = 5"``, or ``"not run"``.
    """
    if found.word == NOT_RUN:
        return NOT_RUN
    parts = []
    if found.value is not None:
        ends = [end for end in (found.low, found.high) if end is not None]
        value, *ends = _digits(found.value, *ends)
        parts.append(f"{value} [{ends[0]}, {ends[1]}]" if ends else value)
    if found.n is not None:
        parts.append(f"n = {found.n}")
    return ", ".join(parts)


def format_published(claim):
    """
    Write what was published in one line.

    Parameters
    ----------
    claim : Claim
        The claim.

    Returns
    -------
    str
        The number with the tolerance for value and slope, else as it stands.
    """
    number = registry.published_number(claim)
    if number is not None and claim.kind in ("value", "slope"):
        return f"{number:g} \N{PLUS-MINUS SIGN} {claim.tolerance:g}"
    if claim.published is None:
        return "\N{EN DASH}"
    if isinstance(claim.published, dict):
        return "; ".join(f"{k}: {_numbers(v)}" for k, v in claim.published.items())
    return _numbers(claim.published)


def scoreboard(results=None):
    """
    Count the verdicts of every paper.

    Parameters
    ----------
    results : path, optional
        Folder of all results.

    Returns
    -------
    list of dict
        In contents order; per paper ``paper``, ``wing``, ``chapter`` (path below
        ``book`` or None), one count a verdict word (``not_run`` with an underscore)
        and ``claims``, a list of ``(Claim, Verdict)``.
    """
    rows = {}
    for claim in registry.claims():
        decided = stored_verdict(claim, results)
        row = rows.setdefault(
            claim.paper,
            {
                "paper": claim.paper,
                "wing": claim.wing,
                "chapter": chapter(claim.chapter or claim.paper, claim.wing),
                **{word.replace(" ", "_"): 0 for word in WORDS},
                "claims": [],
            },
        )
        row[decided.word.replace(" ", "_")] += 1
        row["claims"].append((claim, decided))
    return list(rows.values())


def chapter_status(paper, results=None):
    """
    Summarise what stands behind a chapter.

    Parameters
    ----------
    paper : str
        Citation key.
    results : path, optional
        Folder of all results.

    Returns
    -------
    dict
        ``counts`` (verdict word to number of claims), ``full`` (``seconds``,
        ``devices``: name to seconds, ``runs``, ``done``, ``planned``) and ``stale``,
        the names of experiments with a stale result in either tier.
    """
    records = registry.claims(paper=paper)
    counts = Counter(stored_verdict(claim, results).word for claim in records)
    full = {"seconds": 0.0, "devices": {}, "runs": 0, "done": 0, "planned": 0}
    stale = []
    for name in dict.fromkeys(c.experiment for c in records if c.experiment):
        experiment = registry.experiment(name)
        states = {t: runner.status(experiment, t, results) for t in registry.TIERS}
        if any(state["stale"] for state in states.values()):
            stale.append(name)
        full["done"] += states["full"]["done"]
        full["planned"] += states["full"]["planned"]
        cells = store.load(name, "full", results)
        full["runs"] += len({json.dumps(c.run, sort_keys=True) for c in cells})
        for cell in cells:
            device = cell.run["device_name"]
            spent = full["devices"].get(device, 0.0) + cell.seconds
            full["devices"][device] = spent
            full["seconds"] += cell.seconds
    return {"counts": {w: counts[w] for w in WORDS}, "full": full, "stale": stale}


def chapter(paper, wing):
    """
    Find the chapter of a paper in a checkout.

    Parameters
    ----------
    paper, wing : str
        Citation key and wing.

    Returns
    -------
    str or None
        Path below ``book`` without suffix, such as ``"features/rahimi2007_fourier"``;
        None while ``_toc.yml`` does not list it.
    """
    folder = registry.ROOT / "book" / wing
    # Two papers of one author and year have the chapters' whole names for their keys.
    pattern = "index.md" if paper.startswith("report-") else f"{paper}*.md"
    named = re.compile(rf"index|{re.escape(paper)}(_.*)?")
    paths = [p for p in sorted(folder.glob(pattern)) if named.fullmatch(p.stem)]
    found = [f"{wing}/{path.stem}" for path in paths]
    return next((name for name in found if name in listed_chapters()), None)


def listed_chapters():
    """
    List the chapters of the book, as opposed to those in preparation.

    Returns
    -------
    set of str
        Paths below ``book`` that ``_toc.yml`` lists; empty outside a checkout.
    """
    toc = registry.ROOT / "_toc.yml"
    if not toc.is_file():
        return set()
    return set(re.findall(r"file:\s*book/(\S+)\.ipynb", toc.read_text("utf-8")))


def _e(text):
    return html.escape(text, quote=True)


def _small(text):
    return f"<br><small>{_e(text)}</small>" if text else ""


def _remarks(claim):
    labelled = (("Deviation", claim.deviation), ("Note", claim.note))
    return [f"{label}: {text}" for label, text in labelled if text]


def _measured(claim, decided, full, quick):
    if full is not None:
        return format_measured(full), format_measured(quick)
    if claim.blocked:
        return NOT_RUN, NOT_RUN
    if decided.word == NOT_RUN:
        return NOT_RUN, "\N{EN DASH}"
    return f"test: {format_measured(decided) or decided.word}", "\N{EN DASH}"


def _numbers(value):
    if isinstance(value, list):
        return ", ".join(_numbers(item) for item in value)
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _digits(*numbers):
    # three digits, or as many as tell different numbers apart
    for digits in range(3, 10):
        texts = [f"{number:.{digits}g}" for number in numbers]
        if len(set(texts)) == len(set(numbers)):
            return texts
    return [f"{number:.3g}" for number in numbers]
