"""What the pages ask of the registry, in one place: rows, totals, tiers, times."""

import functools
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lib import replication
from lib.replication import registry, runner
from lib.replication.tables import chapter as find_chapter
from lib.replication.tables import (
    format_measured,
    format_published,
    listed_chapters,  # noqa: F401
)

ROOT = Path(__file__).resolve().parents[2]

WINGS = {
    "features": "Random features",
    "acceleration": "Acceleration",
    "games": "Games",
    "graphs": "Graphs",
    "convexnn": "Convex neural networks",
    "coresets": "Coresets",
}
WORDS = ("reproduced", "contradicted", "inconclusive", "not run")


@dataclass(frozen=True)
class Row:
    """A claim, the verdict computed for it and whether its results are stale."""

    claim: object
    verdict: object
    stale: bool = False


def rows(paper=None):
    """The claims with their verdicts, wing by wing in contents order."""
    return [
        Row(claim, replication.stored_verdict(claim), is_stale(claim))
        for claim in replication.claims(paper=paper)
    ]


def counts(rows):
    return Counter(row.verdict.word for row in rows)


def errata():
    return replication.errata()


# --- the tiers ----------------------------------------------------------------------


@functools.cache
def status(experiment, tier):
    """Cells planned, done and stale of one experiment."""
    return runner.status(registry.experiment(experiment), tier)


def is_stale(claim):
    """Whether the code has moved on since the results that decide a claim."""
    return bool(claim.experiment and status(claim.experiment, claim.tier)["stale"])


def stale(rows):
    """The experiments of these rows whose stored results are stale."""
    return sorted({row.claim.experiment for row in rows if row.stale})


def full_tier(rows):
    """Device and time of the full tier behind these rows, or "not run"."""
    names = sorted({row.claim.experiment for row in rows if row.claim.experiment})
    seconds, parts, absent = Counter(), [], []
    for name in names:
        done, planned = (status(name, "full")[key] for key in ("done", "planned"))
        if not done:
            absent.append(name)
        elif done < planned:
            parts.append(f"{name} ({done} of {planned})")
        for cell in replication.load(name, tier="full") if done else ():
            seconds[cell.run["device_name"]] += cell.seconds
    if not seconds:
        return "not run"
    text = [f"{device}, {duration(s)}" for device, s in sorted(seconds.items())]
    if parts:
        text.append(f"partly run: {', '.join(parts)}")
    if absent:
        text.append(f"not run: {', '.join(absent)}")
    return "; ".join(text)


def live(docname):
    """What one run of a chapter took on the machine that stored its outputs."""
    store = ROOT / "book" / "live_seconds.json"
    known = json.loads(store.read_text("utf-8")) if store.exists() else {}
    record = known.get(docname.removeprefix("book/"))
    if record is None:
        return "not measured"
    return f"{duration(record['seconds'])} on {record['processor']}"


def duration(seconds):
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min"


def finding(row):
    """What was published and what was measured, in one line."""
    verdict = row.verdict
    parts = [f"Published: {format_published(row.claim)}"]
    if verdict.word != "not run":
        by = {"check": "By a test", "": "Measured"}
        name = by.get(verdict.tier, f"{verdict.tier} tier".capitalize())
        parts.append(f"{name}: {format_measured(verdict)}".removesuffix(": "))
    if verdict.reason:
        parts.append(verdict.reason[0].upper() + verdict.reason[1:])
    return ". ".join(parts)


# --- the chapters ---------------------------------------------------------------------


def chapter(paper, wing):
    """The document that treats a paper (for a report, its wing's index), or None."""
    found = find_chapter(paper, wing)
    return found and f"book/{found}"


@functools.cache
def text_of(path):
    return path.read_text("utf-8")


def claim_anchor(path, claim):
    """Where a chapter shows a claim: its row in a table of claims, else the section."""
    anchor = f"claim-{claim.id}"
    return anchor if f'id=\\"{anchor}\\"' in text_of(path) else "replication"
