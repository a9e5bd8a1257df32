"""The nodes of the title strip, the scoreboard, its summary and the errata.

Each function takes the directive that calls it (for Markdown, citations and
links) and returns nodes. A verdict is never told by colour alone: it has a glyph,
a word and a place in the order.
"""

import re
from pathlib import Path

import bookledger as ledger
from booknodes import h
from docutils import nodes

GLYPHS = {"reproduced": "✓", "contradicted": "✗", "inconclusive": "≈", "not run": "–"}
# The scoreboard's order: what failed comes first, what nobody has tried last.
ORDER = ("contradicted", "inconclusive", "reproduced", "not run")


def slug(word):
    return word.replace(" ", "-")


def badge(word, count=None):
    """A verdict as a pill: glyph, number if any, word."""
    label = word if count is None else f"{count} {word}"
    return h(
        "span",
        h("span", GLYPHS[word], aria_hidden="true"),
        f" {label}",
        class_=f"verdict verdict-{slug(word)}",
    )


def paper_name(directive, paper):
    """A citation that links to the bibliography, or the report's name."""
    name = []
    if paper.startswith("report-"):
        name.append(nodes.Text(f"Report on {ledger.WINGS[paper[7:]].lower()}"))
    if entry_of(directive, paper):
        name += [nodes.Text(": ")] * bool(name)
        name += directive.inline(f"{{cite:t}}`{paper}`")
    return name or [nodes.Text(paper)]


def entry_of(directive, key):
    """A record of references.bib, or None."""
    return directive.env.get_domain("cite").bibdata.data.entries.get(key)


def chapter_of(directive, claim):
    """The document that reviews a claim, if the book has it, or None."""
    doc = ledger.chapter(claim.chapter or claim.paper, claim.wing)
    return doc if doc in directive.env.found_docs else None


# --- the title strip ------------------------------------------------------------


def title_strip(directive, paper):
    rows = ledger.rows(paper=paper)
    link, stale = colab(directive), ledger.stale(rows)
    facts = {
        "Live": [nodes.Text(ledger.live(directive.env.docname))],
        "Full tier": [nodes.Text(ledger.full_tier(rows))],
    }
    if link:
        facts["Run it"] = [link]
    return h(
        "div",
        h("p", *citation(directive, paper), class_="strip-citation"),
        verdict_list(rows) if rows else h("p", "No claim is recorded yet."),
        h(
            "dl",
            *(h("div", h("dt", name), h("dd", *t)) for name, t in facts.items()),
            class_="strip-facts",
        ),
        stale_note(stale) if stale else None,
        class_="title-strip",
        role="group",
        aria_label="About this chapter",
    )


def verdict_list(rows, words=None):
    """Counted badges; of the verdicts that occur unless `words` says which."""
    totals = ledger.counts(rows)
    words = words or [word for word in ledger.WORDS if totals[word]]
    return h(
        "ul",
        *(h("li", badge(word, totals[word])) for word in words),
        class_="verdict-list",
        aria_label="Verdicts on the claims",
    )


def citation(directive, paper):
    """Authors (linked to the bibliography), title, venue and an outside link."""
    entry = entry_of(directive, paper)
    parts = paper_name(directive, paper)
    if entry is None:
        # a page on several papers: those of its claims
        papers = dict.fromkeys(row.claim.paper for row in ledger.rows(paper=paper))
        cited = ", ".join(f"{{cite:t}}`{p}`" for p in papers if entry_of(directive, p))
        return directive.inline(cited) if cited else parts
    fields = {k.lower(): re.sub("[{}]", "", v) for k, v in entry.fields.items()}
    parts += [nodes.Text(". "), nodes.emphasis("", fields["title"])]
    venue = fields.get("journal") or fields.get("booktitle")
    parts.append(nodes.Text(f". {venue}. " if venue else ". "))
    for name, label, base in (
        ("doi", "doi", "https://doi.org/"),
        ("eprint", "arXiv", "https://arxiv.org/abs/"),
        ("url", "paper", ""),
    ):
        if name in fields:
            uri = base + fields[name]
            parts.append(nodes.reference("", label, refuri=uri, internal=False))
            break
    return parts


def colab(directive):
    """A link that opens this chapter in Colab, once a repository is set."""
    options = directive.config.html_theme_options
    base = options.get("launch_buttons", {}).get("colab_url")
    if not base:
        return None
    repository = options["repository_url"].removeprefix("https://github.com/")
    path = directive.env.doc2path(directive.env.docname, base=False)
    uri = f"{base}/github/{repository}/blob/{options['repository_branch']}/{path}"
    return nodes.reference("", "Open in Colab", refuri=uri, internal=False)


def stale_badge():
    return h("span", h("span", "⟳ ", aria_hidden="true"), "stale", class_="stale-badge")


def stale_note(names):
    return h(
        "p",
        stale_badge(),
        " The code has moved on since these stored results were made: ",
        ", ".join(names),
        ".",
        class_="stale",
    )


# --- the scoreboard -------------------------------------------------------------


def summary(directive):
    rows = ledger.rows()
    totals = ledger.counts(rows)
    shown = [word for word in ledger.WORDS if totals[word]]
    spoken = ", ".join(f"{totals[word]} {word}" for word in ledger.WORDS)
    papers = len({row.claim.paper for row in rows})
    return h(
        "div",
        h(
            "p",
            h("strong", number(len(rows), "claim")),
            f" from {number(papers, 'source')}, each with a computed verdict. ",
            directive.link("book/scoreboard", nodes.Text("See the scoreboard")),
            class_="summary-line",
        ),
        h(
            "div",
            *(
                h(
                    "span",
                    GLYPHS[word],
                    class_=f"bar-part verdict-{slug(word)}",
                    style=f"flex-grow: {totals[word]}",
                    aria_hidden="true",
                )
                for word in shown
            ),
            class_="bar",
            role="img",
            aria_label=f"Of {len(rows)} claims: {spoken}",
        ),
        verdict_list(rows, ledger.WORDS),
        class_="scoreboard-summary",
    )


def scoreboard(directive):
    rows = ledger.rows()
    out = [matrix(directive, rows)]
    for word in ORDER:
        found = [row for row in rows if row.verdict.word == word]
        section = nodes.section(ids=[f"verdict-{slug(word)}"])
        section += nodes.title("", f"{word.capitalize()} ({len(found)})")
        if found:
            section += h(
                "ul", *(claim(directive, row) for row in found), class_="claim-list"
            )
        else:
            section += nodes.paragraph("", "None so far.")
        out.append(section)
    return out


def matrix(directive, rows):
    """Papers x verdicts, with totals."""
    head = h(
        "tr",
        h("th", "Source", scope="col"),
        *(h("th", badge(word), scope="col", class_="number") for word in ledger.WORDS),
        h("th", "Claims", scope="col", class_="number"),
    )
    body = []
    for wing, title in ledger.WINGS.items():
        papers = {}
        for row in rows:
            if row.claim.wing == wing:
                papers.setdefault(row.claim.paper, []).append(row)
        if papers:
            body.append(
                h("tr", h("th", title, scope="rowgroup", colspan=6), class_="wing")
            )
        for paper, group in papers.items():
            doc = chapter_of(directive, group[0].claim)
            name = paper_name(directive, paper)
            if doc:
                name += [nodes.Text(" "), directive.link(doc, nodes.Text("chapter"))]
            body.append(h("tr", h("th", *name, scope="row"), *cells(group)))
    foot = h("tr", h("th", "All", scope="row"), *cells(rows))
    table = h(
        "table",
        h("caption", "Claims by source and verdict."),
        h("thead", head),
        h("tbody", *body),
        h("tfoot", foot),
        class_="matrix",
    )
    return h(
        "div",
        table,
        class_="table-scroll",
        role="region",
        tabindex=0,
        aria_label="Claims by source and verdict",
    )


def cells(rows):
    totals = ledger.counts(rows)
    numbers = [totals[word] for word in ledger.WORDS]
    return [
        h("td", str(n), class_="number" if n else "number zero")
        for n in [*numbers, len(rows)]
    ]


def claim(directive, row):
    """One claim of the list: verdict, statement, where from, what was found."""
    record, verdict = row.claim, row.verdict
    doc = chapter_of(directive, record)
    where = paper_name(directive, record.paper)
    where += [nodes.Text(" · "), *place(directive, record.where)]
    if doc:
        anchor = ledger.claim_anchor(Path(directive.env.doc2path(doc)), record)
        link = directive.link(f"{doc}#{anchor}", nodes.Text("in the chapter"))
        where += [nodes.Text(" · "), link]
    return h(
        "li",
        h(
            "p",
            badge(verdict.word),
            stale_badge() if row.stale else None,
            " ",
            *directive.inline(record.statement),
            class_="claim-statement",
        ),
        h("p", *where, class_="claim-where"),
        h("p", ledger.finding(row), class_="claim-found"),
        class_=f"claim-{slug(verdict.word)}",
        id=f"claim-{record.id}",
    )


def place(directive, where):
    """Where a claim stands; keys of references.bib in it become citations."""
    known = directive.env.get_domain("cite").bibdata.data.entries
    cited = re.sub(
        r"\b[a-z-]+(\d{4})?\b",
        lambda m: f"{{cite:t}}`{m[0]}`" if m[0] in known else m[0],
        where,
    )
    return directive.inline(cited)


# --- the errata -----------------------------------------------------------------


def errata(directive):
    """One table over the book, by source; a phone shows its rows as cards.

    The cards would hide that it is a table, so the roles say it.
    """
    names = ("Where", "Printed", "Right", "Shown or known by")
    by_source = {}
    for slip in ledger.errata():
        report = slip.source == "report"
        source = f"report-{slip.wing}" if report else slip.source
        by_source.setdefault(source, []).append(slip)
    heads = (h("th", name, scope="col", role="columnheader") for name in names)
    groups = [
        h(
            "tbody",
            h(
                "tr",
                h(
                    "th",
                    *paper_name(directive, source),
                    scope="rowgroup",
                    role="rowheader",
                    colspan=len(names),
                ),
                role="row",
                class_="source",
            ),
            *(slip_row(directive, slip, names) for slip in slips),
            role="rowgroup",
        )
        for source, slips in by_source.items()
    ]
    total = number(sum(map(len, by_source.values())), "slip")
    return h(
        "table",
        h("caption", f"{total} in the reports and papers."),
        h("thead", h("tr", *heads, role="row"), role="rowgroup"),
        *groups,
        class_="errata",
        role="table",
    )


def slip_row(directive, slip, names):
    texts = (
        directive.inline(slip.where),
        directive.inline(slip.printed),
        directive.inline(slip.right),
        proof(directive, slip),
    )
    tags = [("th", {"scope": "row", "role": "rowheader"})]
    tags += [("td", {"role": "cell"})] * 3
    cells = (
        h(tag, *text, data_label=name, **roles)
        for (tag, roles), name, text in zip(tags, names, texts, strict=True)
    )
    return h("tr", *cells, role="row", id=f"erratum-{slip.id}")


def proof(directive, slip):
    """A link to the cell that shows the slip, or how it is known."""
    if slip.shown:
        if slip.shown.partition("#")[0] not in ledger.listed_chapters():
            return [nodes.Text("to be shown in a chapter in preparation")]
        text = nodes.Text("shown in the chapter")
        return [directive.link("book/" + slip.shown, text)]
    if entry_of(directive, slip.evidence):
        return directive.inline(f"{{cite:t}}`{slip.evidence}`")
    return directive.inline(slip.evidence)


def number(n, noun):
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
