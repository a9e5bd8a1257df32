"""The rendered book, opened in headless Chromium without a network.

Nothing here builds the book: `make book` does. Two small sites of their own (a chapter
with stale results, the chapters with a repository set) are built in a folder of the
test.
"""

import functools
import http.server
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "html"
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# What axe-core finds in the theme and in docutils, and why it stays. Keys are rules,
# values are selectors of the elements within which the rule may be broken.
ALLOWED = {
    # the theme puts the name of the book above the navigation, outside its landmarks
    "region": [".navbar-brand"],
    # docutils writes citations with doc-biblioentry, a role that ARIA has deprecated
    # and that no list item may have, in a block of role "list"
    "aria-required-children": [".citation-list"],
    "aria-allowed-role": [".citation"],
    "aria-deprecated-role": [".citation"],
}
# axe would spend half a minute on the innards of formulas and on every coloured word
# of code, and it reads no MathML: a letter stands for a formula, four cells for all.
# A colour that is still on its way from the light theme to the dark one is no fault.
ABRIDGE = """() => {
  const still = document.createElement('style');
  still.textContent = '*, *::before, *::after {'
    + 'transition: none !important; animation: none !important}';
  document.head.append(still);
  document.querySelectorAll('mjx-container').forEach(e => e.replaceWith('x'));
  [...document.querySelectorAll('pre')].slice(4).forEach(e => e.replaceWith('code'));
}"""

pytestmark = pytest.mark.slow


# --- the site, a server, one browser ------------------------------------------------


@pytest.fixture(scope="session")
def site():
    if not (SITE / "index.html").is_file():
        pytest.fail("there is no _build/html/index.html: run `make book` first")
    return SITE


@pytest.fixture(scope="session")
def documents(site):
    """The book's own pages and the search page: site-relative path to file."""
    pages = sorted((site / "book").rglob("*.html")) + [site / "search.html"]
    return {path.relative_to(site).as_posix(): path for path in pages}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def address(site):
    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="session")
def browser():
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        reason = f"no browser on the PATH; looked for {', '.join(names)}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield chromium
        chromium.close()


class Visitor:
    """A browser page that lets nothing out and writes down what went wrong."""

    def __init__(self, browser, address, **options):
        self.address = address
        context = browser.new_context(viewport=DESK, **options)
        self.page = context.new_page()
        self.outside, self.errors = [], []
        context.route("**/*", self._route)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._listen)

    def _route(self, route):
        url = route.request.url
        if urlsplit(url).hostname == "127.0.0.1" or url.startswith(("data:", "file:")):
            route.continue_()
        else:
            self.outside.append(url)
            route.abort()

    def _listen(self, message):
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url')})")

    def open(self, path):
        self.outside, self.errors = [], []
        self.page.goto(path if "://" in path else self.address + path)
        self.page.evaluate(
            "() => window.MathJax?.startup?.promise?.then(() => true) ?? true"
        )
        return self.page


@pytest.fixture(scope="session")
def light(browser, address):
    return Visitor(browser, address, color_scheme="light")


@pytest.fixture(scope="session")
def dark(browser, address):
    return Visitor(browser, address, color_scheme="dark")


LOOK = r"""() => {
  const article = document.querySelector('article') ?? document.body;
  const bare = [];
  const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent;
    const inside = walker.currentNode.parentElement;
    if (!inside.closest('pre, code, script, style, mjx-container')
        && /\\[([]|\$[^$\n]+\$/.test(text)) bare.push(text.trim());
  }
  const images = [...article.querySelectorAll('img')];
  images.forEach(image => { image.loading = 'eager'; });
  return {
    merror: [...document.querySelectorAll('mjx-merror')].map(e => e.textContent),
    unrendered: [...document.querySelectorAll('.math')]
      .filter(e => !e.querySelector('mjx-container')).map(e => e.textContent)
      .concat(bare),
    images: images.map(image => ({
      source: image.src.slice(0, 80), alt: image.alt,
      decorative: image.getAttribute('alt') === '' && !image.closest('figure'),
    })),
    figures: [...article.querySelectorAll('figure')].map(figure => ({
      id: figure.id, images: figure.querySelectorAll('img, svg').length,
      caption: figure.querySelector('figcaption')?.innerText.trim() ?? '',
    })),
  };
}"""
BROKEN = """async () => {
  const images = [...document.images];
  await Promise.all(images.map(image => image.decode().catch(() => null)));
  return images.filter(i => !(i.naturalWidth > 0)).map(i => i.src.slice(0, 120));
}"""


@pytest.fixture(scope="session")
def visits(light, documents):
    """Each page opened once at a desk and narrowed to a phone."""
    found = {}
    for path in documents:
        page = light.open(path)
        seen = page.evaluate(LOOK)
        seen["broken"] = page.evaluate(BROKEN)
        page.set_viewport_size(PHONE)
        seen["width"] = page.evaluate("document.documentElement.scrollWidth")
        page.set_viewport_size(DESK)
        found[path] = seen | {"outside": light.outside, "errors": light.errors}
    return found


def gather(visits, key):
    return {path: seen[key] for path, seen in visits.items() if seen[key]}


# --- every page -----------------------------------------------------------------------


def test_no_request_leaves_the_machine(visits):
    assert gather(visits, "outside") == {}


def test_no_script_fails(visits):
    assert gather(visits, "errors") == {}


def test_all_maths_is_rendered(visits):
    assert gather(visits, "merror") == {}
    assert gather(visits, "unrendered") == {}


def test_images_load(visits):
    assert gather(visits, "broken") == {}


def test_nothing_is_wider_than_a_phone(visits):
    wide = {p: v["width"] for p, v in visits.items() if v["width"] > PHONE["width"]}
    assert wide == {}


def test_figures_have_a_caption_and_a_real_alt_text(visits):
    faults = []
    for path, seen in visits.items():
        for figure in seen["figures"]:
            if figure["images"] and len(figure["caption"]) < 20:
                faults.append((path, figure["id"], "caption", figure["caption"]))
        for image in seen["images"]:
            alt = image["alt"]
            is_path = re.fullmatch(r"\S*[/\\.]\S*", alt)
            if not image["decorative"] and (len(alt) < 20 or is_path):
                faults.append((path, image["source"], "alt", alt))
    assert faults == []


class Links(HTMLParser):
    """Ids and internal addresses of one page."""

    def __init__(self):
        super().__init__()
        self.ids, self.targets = set(), set()

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids.update(given[k] for k in ("id", "name") if given.get(k))
        for name in ("href", "src"):
            url = given.get(name)
            if url and not urlsplit(url).scheme and not url.startswith("//"):
                self.targets.add(url)


def read_links(path):
    parser = Links()
    parser.feed(path.read_text("utf-8"))
    return parser


def test_every_internal_link_and_anchor_resolves(site):
    pages = {
        path.relative_to(site).as_posix(): read_links(path)
        for path in site.rglob("*.html")
        if "_static" not in path.relative_to(site).parts
    }
    dead = []
    for name, page in pages.items():
        for target in page.targets:
            parts = urlsplit(urljoin("/" + name, target))
            path, fragment = unquote(parts.path).lstrip("/"), unquote(parts.fragment)
            if path.endswith("/") or not path:
                path += "index.html"
            if not (site / path).is_file():
                dead.append((name, target, "no such file"))
            elif fragment and path in pages and fragment not in pages[path].ids:
                dead.append((name, target, "no such anchor"))
    assert dead == []


# --- single pages ------------------------------------------------------------------


def test_the_front_door_opens_from_disk(light, site):
    light.page.goto((site / "index.html").as_uri())
    light.page.wait_for_url("**/book/index.html")
    page = light.open((site / "book" / "index.html").as_uri())
    assert "Optimization for Machine Learning, Replicated" in page.title()
    assert light.outside == [] and light.errors == []


def test_search_finds_a_word(light):
    page = light.open("search.html?q=Bochner")
    page.wait_for_selector("#search-results ul.search li a")
    found = page.eval_on_selector_all(
        "#search-results ul.search li a", "links => links.map(a => a.href)"
    )
    assert any("rahimi2007_fourier" in link for link in found)
    assert light.errors == []


def test_dark_mode_toggles(light):
    page = light.open("book/index.html")
    brightness = """() => getComputedStyle(document.body).backgroundColor
        .match(/[0-9.]+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 3"""
    values = {}
    for _ in range(3):  # the button steps through dark, light and what the system says
        theme = page.evaluate("document.documentElement.dataset.theme")
        values[theme] = page.evaluate(brightness)
        page.click("button.theme-switch-button >> visible=true")
    assert set(values) == {"light", "dark"}
    assert values["light"] > 230 and values["dark"] < 40
    page.evaluate("localStorage.clear()")


def kinds(documents):
    """One page of each kind, as far as it exists."""
    chapters = [p for p in documents if re.search(r"/\w+\d{4}_\w+\.html$", p)]
    api = [p for p in documents if p.startswith("book/api/")]
    names = ["index", "how-to-use", "scoreboard", "errata", "references"]
    return [f"book/{name}.html" for name in names] + chapters[:1] + api[:1]


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_axe_finds_nothing_new(mode, request, documents):
    from axe_playwright_python.sync_playwright import Axe

    visitor = request.getfixturevalue(mode)
    rules = {"runOnly": ["color-contrast"]} if mode == "dark" else {}
    faults = []
    for path in kinds(documents):
        page = visitor.open(path)
        assert page.evaluate("document.documentElement.dataset.theme") == mode
        options = {"resultTypes": ["violations"], **rules}
        page.evaluate(ABRIDGE)
        result = Axe().run(page, options=options)
        for violation in result.response["violations"]:
            for node in violation["nodes"]:
                allowed = ALLOWED.get(violation["id"], ())
                if not any(
                    page.eval_on_selector(
                        node["target"][0], "(e, s) => e.closest(s) !== null", selector
                    )
                    for selector in allowed
                ):
                    faults.append((path, violation["id"], node["html"][:160]))
    assert faults == []


# --- what the pages say of the registry --------------------------------------------


def load_extension(name):
    """A module of book/_ext, which is no package."""
    folder = str(ROOT / "book" / "_ext")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


def test_title_page_shows_the_scoreboard(light):
    ledger = load_extension("bookledger")
    page = light.open("book/index.html")
    shown = page.inner_text(".scoreboard-summary")
    rows = ledger.rows()
    assert f"{len(rows)} claims" in shown
    for word, count in ledger.counts(rows).items():
        assert f"{count} {word}" in shown
    bottom = page.eval_on_selector(
        ".scoreboard-summary", "e => e.getBoundingClientRect().bottom"
    )
    assert bottom <= DESK["height"], "the summary is not on the first screen"


def chapters():
    """The chapters listed in _toc.yml, as paths of notebooks."""
    return re.findall(r"file: (\S+\.ipynb)", (ROOT / "_toc.yml").read_text("utf-8"))


def test_title_strips_say_what_was_run(light):
    ledger = load_extension("bookledger")
    for notebook in chapters():
        text = (ROOT / notebook).with_suffix(".md").read_text("utf-8")
        strip = re.search(r"\{title-strip\} (\S+)", text)
        if strip is None:
            continue  # a wing's index has no paper of its own
        rows = ledger.rows(paper=strip[1])
        page = light.open(notebook.replace(".ipynb", ".html"))
        shown = page.inner_text(".title-strip")
        for word, count in ledger.counts(rows).items():
            assert f"{count} {word}" in shown, notebook
        assert ledger.full_tier(rows) in shown, notebook
        assert ("stale" in shown) == bool(ledger.stale(rows)), notebook


def test_the_cards_of_a_phone_name_the_columns():
    """On a phone the claims table has no heads; the style sheet repeats them."""
    from lib.replication.tables import ClaimsTable

    style = (ROOT / "book" / "_static" / "book.css").read_text("utf-8")
    pattern = r'\.claims td:nth-child\((\d)\)::before \{\s*content: "([^"]+)"'
    labels = {int(n): label for n, label in re.findall(pattern, style)}
    columns = dict(enumerate(ClaimsTable.columns, 1))
    assert labels == {n: columns[n] for n in range(3, len(columns) + 1)}


BIBLIOGRAPHY = """@article{knuth1984, author={Knuth, Donald E.}, year={1984},
title={Literate {Programming}}, journal={The Computer Journal}, doi={10.1/x}}
"""


@pytest.fixture
def render(tmp_path, monkeypatch):
    """Render one Markdown page with the extension and a registry of our own."""
    ledger = load_extension("bookledger")

    def build(text, rows, done=0):
        from sphinx.application import Sphinx
        from sphinx.util.docutils import docutils_namespace, patch_docutils

        def chosen(paper=None):
            return [row for row in rows if paper in (None, row.claim.paper)]

        monkeypatch.setattr(ledger, "rows", chosen)
        monkeypatch.setattr(ledger, "status", lambda *_: {"done": done, "planned": 2})
        (tmp_path / "all.bib").write_text(BIBLIOGRAPHY)
        sources = "# Sources\n\n```{bibliography}\n```\n"
        (tmp_path / "sources.md").write_text(f"---\norphan: true\n---\n{sources}")
        page, text = tmp_path / "index.md", f"# Page\n\n{text}\n"
        if not page.exists() or page.read_text() != text:
            page.write_text(text)  # an untouched page must be drawn anew all the same
        config = {
            "extensions": ["myst_parser", "sphinxcontrib.bibtex", "bookext"],
            "myst_enable_extensions": ["colon_fence", "dollarmath"],
            "bibtex_bibfiles": ["all.bib"],
            "bibtex_reference_style": "author_year",
        }
        folders = (tmp_path, None, tmp_path / "out", tmp_path / "trees")
        warnings = io.StringIO()
        with patch_docutils(), docutils_namespace():
            options = {"status": None, "warning": warnings}
            Sphinx(*folders, "html", confoverrides=config, **options).build()
        assert warnings.getvalue() == ""
        return (tmp_path / "out" / "index.html").read_text("utf-8")

    return build


def row(word, *, stale=False, paper="knuth1984", **numbers):
    """A row of the registry with a given verdict."""
    ledger = load_extension("bookledger")
    from lib.replication import Claim, Verdict

    claim = Claim(
        id=f"features-{word}", paper=paper, where="Section 1", kind="order",
        statement=f"A statement that is {word}: $a^2$.", wing="features",
        experiment="an-experiment", metric="m",
    )  # fmt: skip
    return ledger.Row(claim, Verdict(word, **numbers), stale)


def plain(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html))


def test_stale_and_not_run_are_said_in_words(render):
    rows = [row("not run", reason="the full tier has not been run"),
            row("reproduced", stale=True, value=1.0, low=0.9, high=1.1, n=5,
                tier="full", reason="interval above 0")]  # fmt: skip
    strip = plain(render(":::{title-strip} knuth1984\n:::", rows))
    assert "Knuth" in strip and "Literate Programming" in strip
    assert "1 not run" in strip and "1 reproduced" in strip
    assert "stale" in strip and "an-experiment" in strip
    assert "Open in Colab" not in strip
    fresh = plain(render(":::{title-strip} knuth1984\n:::", rows[:1]))
    assert "stale" not in fresh


def test_scoreboard_puts_contradicted_first(render):
    words = ("reproduced", "contradicted", "inconclusive", "not run")
    rows = [row(w, value=0.1, low=0.0, high=0.2, n=3, tier="quick") for w in words]
    html = render(":::{scoreboard}\n:::", rows)
    order = re.findall(r'id="verdict-([\w-]+)"', html)
    assert order == ["contradicted", "inconclusive", "reproduced", "not-run"]
    assert re.findall(r'<th scope="(\w+)"', html).count("col") == 6
    assert "<caption>" in html and 'class="math' in html


def test_a_registry_that_changed_redraws_the_page(render):
    page = ":::{scoreboard-summary}\n:::"
    assert "1 claim from 1 source" in plain(render(page, [row("reproduced")]))
    both = [row("reproduced"), row("contradicted", paper="report-features")]
    assert "2 claims from 2 sources" in plain(render(page, both))


def test_colab_buttons_point_at_the_notebooks(tmp_path):
    """With a repository set, each chapter's button opens that chapter."""
    spec = importlib.util.spec_from_file_location(
        "set_repository", ROOT / "book" / "set_repository.py"
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    config = tool.config(ROOT / "_config.yml", "https://github.com/someone/somewhere")
    listed = "".join(f"  - file: {notebook}\n" for notebook in chapters())
    (tmp_path / "_config.yml").write_text(config)
    (tmp_path / "_toc.yml").write_text(
        f"format: jb-book\nroot: book/references\nchapters:\n{listed}"
    )
    for path in ("_ext", "_static", "references.md", "references.bib"):
        source, target = ROOT / "book" / path, tmp_path / "book" / path
        target.parent.mkdir(exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    for notebook in chapters():
        (tmp_path / notebook).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / notebook, tmp_path / notebook)
    done = subprocess.run(
        [Path(sys.executable).with_name("jupyter-book"), "build", tmp_path],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for notebook in chapters():
        page = tmp_path / "_build/html" / notebook.replace(".ipynb", ".html")
        found = set(re.findall(r'href="(https://colab[^"]*)"', page.read_text("utf-8")))
        assert found == {
            "https://colab.research.google.com/github/someone/somewhere"
            f"/blob/main/{notebook}"
        }


def test_no_colab_button_without_a_repository(site):
    if "\nrepository:" in (ROOT / "_config.yml").read_text("utf-8"):
        pytest.skip("a repository is set")
    pages = [path.read_text("utf-8") for path in (site / "book").rglob("*.html")]
    assert not any("colab.research" in page or "in Colab" in page for page in pages)
