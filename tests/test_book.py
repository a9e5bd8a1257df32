"""The chapters: text and notebook agree, and each has the form that design asks for.

Every rule is a function from a chapter to a list of complaints that say what to do.
The rules are themselves tested: each must complain about a chapter damaged for it.
"""

import base64
import copy
import importlib.util
import json
import platform
import re
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat
import pytest

from lib.plotting import MIME

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
WINGS = ("features", "acceleration", "games", "graphs", "convexnn", "coresets")
ONE_PAPER = re.compile(r"[a-z]+\d{4}_[a-z0-9_]+")
HEADINGS = [
    "In one paragraph",
    "Setting and notation",
    "Derivation",
    "Algorithm",
    "From scratch",
    "In the library",
    "Experiment",
    "Replication",
    "What breaks",
    "Errata",
    "Exercises",
    "Further reading",
]
INDEX_HEADINGS = [
    "The report",
    "Its claims",
    "Side by side",
    "Which should I use",
    "Errata",
]
KINDS = {"derive", "code", "experiment", "critique", "open"}

_spec = importlib.util.spec_from_file_location("book_execute", BOOK / "execute.py")
execute = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(execute)
CHAPTERS = execute.chapters()


@dataclass
class Chapter:
    """A chapter as stored: its name, its text's cells and its notebook."""

    name: str
    text: nbformat.NotebookNode
    notebook: nbformat.NotebookNode

    @property
    def cells(self):
        return self.notebook.cells

    @property
    def code(self):
        return [cell for cell in self.cells if cell.cell_type == "code"]

    @property
    def prose(self):
        return "\n".join(c.source for c in self.cells if c.cell_type == "markdown")

    @property
    def stem(self):
        return self.name.split("/")[-1]

    @property
    def is_paper(self):
        return ONE_PAPER.fullmatch(self.stem) is not None

    def sections(self):
        """Pairs of a cell and the second-level heading that it stands under."""
        heading = ""
        for cell in self.cells:
            if cell.cell_type == "markdown":
                # a cell with several headings: what follows it is under the last
                found = headings(cell.source)
                heading = found[-1] if found else heading
            yield cell, heading


@cache
def load(name):
    assert (BOOK / f"{name}.md").exists(), (
        f"_toc.yml lists {name}: write book/{name}.md"
    )
    path = BOOK / f"{name}.ipynb"
    assert path.exists(), f"store its notebook: make execute CHAPTER={name}"
    return Chapter(name, execute.read(name), nbformat.read(path, as_version=4))


def headings(source):
    """Second-level headings of some markdown, code fences left out."""
    source = re.sub(r"^(```|~~~).*?^\1", "", source, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^## +(.+?) *$", source, re.MULTILINE)


def brief(cell):
    """How a complaint names a cell."""
    first = next(iter(cell.source.strip().splitlines()), "(empty)")
    return f"{cell.cell_type} cell {first[:60]!r}"


def tags(cell):
    return cell.metadata.get("tags", [])


def printed(cell):
    """All the text that a cell shows, pictures left out."""
    parts = []
    for output in cell.get("outputs", []):
        parts.append(output.get("text", ""))
        for kind, content in output.get("data", {}).items():
            if not kind.startswith(("image/", MIME)):
                parts.append(re.sub(r"base64,[^\"']*", "", str(content)))
    return "\n".join(parts)


def pictures(cell):
    """The outputs of a cell that are figures: images, or HTML made of frames."""
    return [
        output.data
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
        or "data:image/" in str(output.get("data", {}).get("text/html", ""))
    ]


# ---- text and notebook --------------------------------------------------------------


def notebook_is_the_text_executed(chapter):
    run = f"run make execute CHAPTER={chapter.name}"
    text, stored = chapter.text.cells, chapter.cells
    if len(text) != len(stored):
        return [f"the text has {len(text)} cells, the notebook {len(stored)}: {run}"]
    found = []
    for a, b in zip(text, stored, strict=True):
        for what, was, now in (
            ("type", a.cell_type, b.cell_type),
            ("source", a.source.rstrip(), b.source.rstrip()),
            ("tags", tags(a), tags(b)),
            ("mystnb", a.metadata.get("mystnb"), b.metadata.get("mystnb")),
        ):
            if was != now:
                found.append(f"{brief(a)}: another {what} in the notebook: {run}")
    return found


def every_cell_was_executed_in_order(chapter):
    code = [cell for cell in chapter.code if cell.source.strip()]
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        return [f"executed in the order {counts}: make execute CHAPTER={chapter.name}"]
    return []


def nothing_of_the_run_is_stored(chapter):
    keep = {"kernelspec", "language_info", "jupytext"}
    more = set(chapter.notebook.metadata) - keep
    found = [f"remove {sorted(more)} from the notebook's metadata"] if more else []
    for cell in chapter.cells:
        if more := set(cell.metadata) - {"tags", "mystnb"}:
            found.append(f"{brief(cell)}: remove its metadata {sorted(more)}")
    return found


def outputs_are_clean(chapter):
    found = []
    places = r"(?<![\w.:/])/(?:home|root|tmp|usr|opt|mnt|var|Users|private)/[\w.-]+"
    for cell in chapter.code:
        text = printed(cell)
        for pattern, what in (
            (places, "a path of one machine"),
            (re.escape(str(ROOT)) + r"\b(?=/)", "the path of this checkout"),
            (r"\b[A-Z]:\\\w+", "a path of one machine"),
            (r"\bat 0x[0-9a-f]{6,}", "an address in memory: print something else"),
        ):
            if seen := re.search(pattern, text):
                found.append(f"{brief(cell)} prints {what}: {seen[0]!r}")
        for output in cell.outputs:
            if output.get("name") == "stderr":
                text = output.text.strip()[:120]
                found.append(f"{brief(cell)}: mend what it says on stderr: {text!r}")
            if output.output_type == "error" and "raises-exception" not in tags(cell):
                found.append(f"{brief(cell)} stores an exception: mend and run it")
    return found


def file_is_small(chapter):
    size = (BOOK / f"{chapter.name}.ipynb").stat().st_size / 1e6
    if size > 0.6:
        warnings.warn(f"{chapter.name} has {size:.2f} MB, try 0.6", stacklevel=1)
    what = "fewer or smaller figures, fewer points"
    return [f"notebook of {size:.2f} MB, at most 1.5: {what}"] if size >= 1.5 else []


# ---- structure ----------------------------------------------------------------------


def title_strip_comes_first(chapter):
    if not chapter.is_paper:
        return []
    key = chapter.stem.split("_")[0]
    if chapter.stem in bibliography():
        key = chapter.stem
    head = re.match(r"# [^\n]+\n+(.*)", chapter.cells[0].source, re.DOTALL)
    if not head:
        return ["begin with one '# Title' line"]
    if not re.match(rf":::+\{{title-strip\}} +{key}\s*\n:::", head[1]):
        return [f"put ':::{{title-strip}} {key}' and ':::' right below the title"]
    return []


def headings_are_in_order(chapter):
    found = headings(chapter.prose)
    if chapter.is_paper and found != HEADINGS:
        return [f"second-level headings must be {HEADINGS}; they are {found}"]
    if chapter.stem == "index":
        ours = [one for one in found if one in INDEX_HEADINGS]
        if ours != INDEX_HEADINGS:
            return [f"a wing's index needs {INDEX_HEADINGS} in order; it has {found}"]
    return []


def first_cell_is_the_bootstrap(chapter):
    first = chapter.code[0]
    if first.source.strip() != (BOOK / "bootstrap.py").read_text().strip():
        return [f"{brief(first)}: the first code cell must be book/bootstrap.py"]
    return [] if "remove-cell" in tags(first) else ["tag the bootstrap 'remove-cell'"]


def code_fits_the_page(chapter):
    found, count = [], 0
    for cell, section in chapter.sections():
        if cell.cell_type != "code" or "remove-cell" in tags(cell):
            continue
        lines = cell.source.splitlines()
        for line in lines:
            if len(line) > 76:
                found.append(f"{brief(cell)}: break {line.strip()!r}, over 76 columns")
        if section in ("Errata", "Exercises"):
            continue
        count += 1
        if (n := sum(bool(line.strip()) for line in lines)) > 20:
            found.append(f"{brief(cell)}: {n} lines of code, at most 20: split it")
    if count > 30:
        found.append(f"{count} code cells outside errata and exercises, at most 30")
    return found


def prose_is_tidy(chapter):
    found = []
    for cell in chapter.cells:
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if line != line.rstrip() or "\t" in line:
                    found.append(f"remove trailing blanks and tabs: {line[:70]!r}")
    return found


def no_cell_escapes_the_tests(chapter):
    return [
        f"{brief(cell)}: remove the tag nbval-skip, it would never be run"
        for cell in chapter.code
        if "nbval-skip" in tags(cell) or "NBVAL_SKIP" in cell.source
    ]


# ---- figures ------------------------------------------------------------------------


def figures_are_described(chapter):
    found = []
    for cell in chapter.code:
        shown = pictures(cell)
        if not shown:
            continue
        meta = cell.metadata.get("mystnb", {})
        figure, alt = meta.get("figure", {}), meta.get("image", {}).get("alt", "")
        for key in ("name", "caption"):
            if not str(figure.get(key, "")).strip():
                found.append(f"{brief(cell)}: give it mystnb: figure: {key}")
        if len(shown) > 1:
            found.append(f"{brief(cell)}: {len(shown)} figures, one caption: split it")
        alts = [alt]
        if "image/png" not in shown[0]:
            alts = re.findall(r"<img[^>]*\balt=\"([^\"]*)\"", shown[0]["text/html"])
            if len(alts) != shown[0]["text/html"].count("<img"):
                found.append(f"{brief(cell)}: every frame needs an alt text")
        for alt in alts:
            if len(alt) < 20 or re.search(r"[\w-]+/[\w-]+\.\w+|\.png\b", alt):
                found.append(f"{brief(cell)}: say in mystnb: image: alt what one sees")
    return found


def figures_carry_their_data(chapter):
    return [
        f"{brief(cell)}: call lib.plotting.use_book_style() before the first figure, "
        "so that the tests can compare its numbers"
        for cell in chapter.code
        for data in pictures(cell)
        if "image/png" in data and MIME not in data
    ]


def figures_fit_the_page(chapter):
    found = []
    for cell in chapter.code:
        for data in pictures(cell):
            if "image/png" in data:
                # width in the header of a PNG file
                width = int.from_bytes(base64.b64decode(data["image/png"])[16:20])
                if width > 720:
                    found.append(f"{brief(cell)}: {width} pixels wide; figsize <= 7.2")
    return found


def figure_names(chapter):
    figures = [
        cell.metadata.get("mystnb", {}).get("figure", {}) for cell in chapter.code
    ]
    return [figure["name"] for figure in figures if "name" in figure]


def figure_names_are_new(chapter):
    others = [
        name
        for other in CHAPTERS
        if other != chapter.name and (BOOK / f"{other}.ipynb").exists()
        for name in figure_names(load(other))
    ]
    mine = figure_names(chapter)
    twice = {name for name in mine if mine.count(name) > 1 or name in others}
    return [f"figure name {name!r} is taken: choose another" for name in sorted(twice)]


def a_chapter_has_six_to_ten_figures(chapter):
    count = sum(len(pictures(cell)) for cell in chapter.code)
    if chapter.is_paper and not 6 <= count <= 10:
        return [f"{count} figures; a one-paper chapter has 6 to 10"]
    return []


# ---- exercises ----------------------------------------------------------------------


def exercises_check_themselves(chapter):
    if not chapter.is_paper:
        return []
    cells = [c for c, section in chapter.sections() if section == "Exercises"]
    # the heading may share its cell with what stands above it
    prose = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    asked = re.findall(r"^\*\*(\d+) \((\w+)\)\.\*\*", prose, re.MULTILINE)
    numbers = [int(number) for number, _ in asked]
    found = []
    if len(asked) < 5 or numbers != list(range(1, len(asked) + 1)):
        found.append(
            f"exercises {numbers}: at least five, each begun with '**1 (derive).**'"
        )
    if missing := KINDS - {kind for _, kind in asked}:
        found.append(f"add an exercise of the kind {sorted(missing)}")
    if (folded := prose.count("{dropdown} Solution")) != len(asked):
        found.append(f"{len(asked)} exercises, {folded} ':::{{dropdown}} Solution'")
    # the order in the chapter: check of k, solution of k, check of k + 1, ...
    marks = []
    for cell in cells:
        if cell.cell_type == "code":
            text = printed(cell)
            if "solution" in tags(cell):
                marks.append(f"solved: {'solved: True' in text}")
            marks += re.findall(r"exercise \d+ solved: \w+", text)
    for k in numbers:
        wanted = [f"exercise {k} solved: False", "solved: True"]
        start = marks.index(wanted[0]) if wanted[0] in marks else None
        if start is None:
            found.append(f"exercise {k}: its check cell must print {wanted[0]!r}")
        elif marks[start : start + 2] != wanted:
            found.append(
                f"exercise {k}: the next cell tagged 'solution' must print "
                f"{wanted[1]!r}; it says {marks[start + 1 : start + 2]}"
            )
    return found


# ---- references ---------------------------------------------------------------------


def bibliography():
    text = (BOOK / "references.bib").read_text()
    return set(re.findall(r"^@\w+\{([^,\s]+),", text, re.MULTILINE))


def citations_resolve(chapter):
    known = bibliography()
    roles = re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", chapter.prose)
    used = {key.strip() for role in roles for key in role.split(",")}
    return [f"add {key} to book/references.bib" for key in sorted(used - known)]


def claims_resolve(chapter):
    from lib import replication

    known = {record.id for record in replication.claims() + replication.errata()}
    papers = {
        key for record in replication.claims() for key in (record.paper, record.chapter)
    }
    sources = chapter.prose + "\n".join(cell.source for cell in chapter.code)
    wings = "|".join(WINGS)
    used = set(re.findall(rf"[`'\"]((?:{wings})-[a-z0-9-]+)[`'\"]", sources))
    file = "lib/replication/claims/<wing>.toml"
    found = [f"no claim {one} in {file}" for one in sorted(used - known)]
    tables = set(re.findall(r"claims_table\(\s*['\"]([\w-]+)", sources))
    found += [f"{file} has no claim of {one}" for one in sorted(tables - papers)]
    if chapter.is_paper and not tables:
        found.append("show the claims: lib.replication.claims_table(<citation key>)")
    return found


def errata_have_their_place(chapter):
    from lib import replication

    shown = [r.shown for r in replication.errata() if getattr(r, "shown", None)]
    anchors = [s.split("#")[1] for s in shown if s.startswith(f"{chapter.name}#")]
    return [
        f"the registry shows an erratum at ({anchor})=: write that line above it"
        for anchor in anchors
        if f"({anchor})=" not in chapter.prose
    ]


RULES = [
    notebook_is_the_text_executed,
    every_cell_was_executed_in_order,
    nothing_of_the_run_is_stored,
    outputs_are_clean,
    file_is_small,
    title_strip_comes_first,
    headings_are_in_order,
    first_cell_is_the_bootstrap,
    code_fits_the_page,
    prose_is_tidy,
    no_cell_escapes_the_tests,
    figures_are_described,
    figures_carry_their_data,
    figures_fit_the_page,
    figure_names_are_new,
    a_chapter_has_six_to_ten_figures,
    exercises_check_themselves,
    citations_resolve,
    claims_resolve,
    errata_have_their_place,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter(name, rule):
    complaints = rule(load(name))
    assert not complaints, f"{name}:\n  " + "\n  ".join(complaints)


def test_the_book_has_chapters():
    assert CHAPTERS, "_toc.yml lists no chapter: '- file: book/<wing>/<name>.ipynb'"


def test_every_notebook_is_in_the_contents():
    stored = {
        path.relative_to(BOOK).with_suffix("").as_posix()
        for path in BOOK.glob("*/*.ipynb")
        if ".ipynb_checkpoints" not in path.parts
    }
    assert stored <= set(CHAPTERS), "list it in _toc.yml, with the suffix .ipynb"


# ---- the rules themselves -----------------------------------------------------------


def edit(chapter, where, change):
    """Change the first cell of a chapter for which `where` holds."""
    change(next(cell for cell in chapter.cells if where(cell)))


def is_code(cell):
    return cell.cell_type == "code"


def append(text, part="source"):
    return lambda cell: cell.update({part: cell[part] + text})


def replace(old, new, cells=lambda c: c.cell_type == "markdown"):
    """A damage that replaces text everywhere in some cells."""

    def damage(chapter):
        for cell in filter(cells, chapter.cells):
            cell.source = cell.source.replace(old, new)

    return damage


def says(text, name="stdout"):
    output = nbformat.v4.new_output("stream", name=name, text=text)
    return lambda chapter: edit(chapter, is_code, lambda c: c.outputs.append(output))


def mystnb(**changes):
    def damage(chapter):
        edit(chapter, pictures, lambda cell: cell.metadata["mystnb"].update(changes))

    return damage


def unsolve(chapter):
    def change(cell):
        cell.outputs[0].text = "solved: False\n"

    edit(chapter, lambda cell: "solution" in tags(cell), change)


def unchecked(chapter):
    edit(
        chapter,
        lambda c: "exercise 3 solved" in printed(c),
        lambda c: c.outputs.clear(),
    )


def without_data(chapter):
    edit(chapter, pictures, lambda cell: [d.pop(MIME) for d in pictures(cell)])


def twice(chapter):
    edit(chapter, pictures, lambda cell: chapter.cells.append(copy.deepcopy(cell)))


def fewer_figures(chapter):
    chapter.cells[:] = [cell for cell in chapter.cells if not pictures(cell)]


DAMAGES = [
    (notebook_is_the_text_executed, replace("Question", "Answer")),
    (notebook_is_the_text_executed, lambda c: c.cells.pop()),
    (notebook_is_the_text_executed, mystnb(image={"alt": "another text"})),
    (
        every_cell_was_executed_in_order,
        lambda c: c.code[3].update(execution_count=None),
    ),
    (nothing_of_the_run_is_stored, lambda c: c.code[1].metadata.update(execution={})),
    (outputs_are_clean, says("read from /home/someone/data.csv")),
    (outputs_are_clean, says("<object at 0x7f12ab34cd>")),
    (outputs_are_clean, says("UserWarning: look", "stderr")),
    (title_strip_comes_first, replace(":::{title-strip}", "\nOnce. :::{title-strip}")),
    (headings_are_in_order, replace("## Derivation", "## Deduction")),
    (headings_are_in_order, replace("## Errata\n", "## Exercises\n")),
    (first_cell_is_the_bootstrap, lambda c: edit(c, is_code, append("\n1"))),
    (first_cell_is_the_bootstrap, lambda c: c.code[0].metadata.pop("tags")),
    (code_fits_the_page, lambda c: append("\n" + "x" * 77)(c.code[1])),
    (code_fits_the_page, lambda c: append("\nx" * 21)(c.code[1])),
    (code_fits_the_page, lambda c: c.cells.__setitem__(slice(2, 2), [c.code[1]] * 31)),
    (prose_is_tidy, lambda c: append("  \nmore")(c.cells[0])),
    (
        no_cell_escapes_the_tests,
        lambda c: c.code[1].metadata.update(tags=["nbval-skip"]),
    ),
    (figures_are_described, mystnb(image={"alt": "figures/book_3_0.png of the book"})),
    (figures_are_described, mystnb(image={})),
    (figures_are_described, mystnb(figure={"name": "fig-nameless"})),
    (figures_carry_their_data, without_data),
    (figure_names_are_new, twice),
    (a_chapter_has_six_to_ten_figures, fewer_figures),
    (exercises_check_themselves, unsolve),
    (exercises_check_themselves, replace("(derive)", "(code)")),
    (exercises_check_themselves, replace("{dropdown} Solution", "{dropdown} Look")),
    (exercises_check_themselves, unchecked),
    (citations_resolve, lambda c: append(" {cite}`nobody1900,liu2021`")(c.cells[0])),
    (claims_resolve, lambda c: append(" `features-no-such-claim`")(c.cells[0])),
    (claims_resolve, replace("claims_table", "claims_chair", is_code)),
    (errata_have_their_place, replace("(erratum-", "(slip-")),
]


@pytest.mark.parametrize(
    ("rule", "damage"),
    DAMAGES,
    ids=[f"{r.__name__}-{k}" for k, (r, _) in enumerate(DAMAGES)],
)
def test_rule_complains(rule, damage):
    name = "features/rahimi2007_fourier"
    if name not in CHAPTERS or not (BOOK / f"{name}.ipynb").exists():
        pytest.skip(f"needs {name} to damage a copy of it")
    chapter = copy.deepcopy(load(name))
    before = rule(chapter)
    damage(chapter)
    assert set(rule(chapter)) - set(before), "the damage was not noticed"


# ---- execution ----------------------------------------------------------------------

SMALL = """\
---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A title

```{code-cell} ipython3
:tags: [hide-input]
import matplotlib.pyplot as plt
from lib.plotting import use_book_style
use_book_style()
fig, ax = plt.subplots()
ax.plot([1, 2, 3])
plt.show()
print("shown")
```
"""


@pytest.fixture
def small_book(tmp_path, monkeypatch):
    """A book of one small chapter, features/small, in a folder of its own."""
    monkeypatch.setattr(execute, "BOOK", tmp_path)
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "small.md").write_text(SMALL)
    return tmp_path / "features"


@pytest.mark.slow
def test_two_executions_are_identical_to_the_last_byte(small_book):
    stored = small_book / "small.ipynb"
    assert execute.main(["book/features/small.md"]) == 0
    first = stored.read_bytes()
    assert execute.main(["features/small"]) == 0
    assert stored.read_bytes() == first
    (code,) = (c for c in nbformat.reads(first.decode(), 4).cells if is_code(c))
    assert code.execution_count == 1 and set(code.metadata) == {"tags"}
    assert [sorted(o.get("data", {})) for o in code.outputs] == [
        [MIME, "image/png", "text/plain"],
        [],
    ]
    record = json.loads((small_book.parent / "live_seconds.json").read_text())
    assert 0 < record["features/small"]["seconds"] < 60
    assert platform.node() not in record["features/small"]["processor"]


@pytest.mark.slow
def test_failing_chapter_is_reported_and_not_stored(small_book, capsys):
    with open(small_book / "small.md", "a") as text:
        text.write("\n```{code-cell} ipython3\n1 / 0\n```\n")
    assert execute.main(["features/small"]) == 1
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said and "1 / 0" in said and "\x1b" not in said
    assert not (small_book / "small.ipynb").exists()


def test_ids_of_cells_do_not_move_when_one_is_put_in_front(small_book):
    before = [cell.id for cell in execute.read("features/small").cells]
    text = SMALL.replace("# A title", "# A title\n\n+++\n\nA paragraph.")
    (small_book / "small.md").write_text(text)
    after = [cell.id for cell in execute.read("features/small").cells]
    assert len(after) == len(before) + 1 and set(before) < set(after)
