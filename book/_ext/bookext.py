"""The book's Sphinx extension: directives, bundled MathJax, no thebe, API names.

The directives draw on the registry each time the book is built, so a page that
holds one of them is read again in every build and cannot go stale.
"""

import importlib.util
import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from sphinx.util.fileutil import copy_asset
from sphinx.util.nodes import make_refnode

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # the registry of this checkout, no other
    sys.path.insert(0, str(ROOT))

import bookpages as pages  # noqa: E402
from booknodes import element, h, leave, pass_through, visit  # noqa: E402

# MathJax loads the rest of itself on demand: fonts, TeX extensions such as
# boldsymbol, and what a reader of formulas by ear needs (a11y, sre).
MATHJAX_PARTS = (
    "tex-mml-chtml.js",
    "output/chtml",
    "input/tex/extensions",
    "a11y",
    "sre/mathmaps/base.json",
    "sre/mathmaps/en.json",
    "sre/mathmaps/nemeth.json",
)


class RegistryDirective(SphinxDirective):
    """Base of the directives whose content comes from the registry."""

    def run(self):
        self.env.note_reread()
        return self.draw()

    def inline(self, text):
        """The nodes of a line of Markdown (maths, emphasis, citations)."""
        return self.parse_inline(text, lineno=self.lineno)[0]

    def link(self, target, *children, css=()):
        """A link to "document#fragment", or bare text for an unknown document."""
        doc, _, fragment = target.partition("#")
        if doc not in self.env.found_docs:
            return h("span", *children)
        uri = self.env.app.builder.get_relative_uri(self.env.docname, doc)
        if fragment:
            uri += "#" + fragment
        return nodes.reference(
            "", "", *children, refuri=uri, internal=True, classes=list(css)
        )


class TitleStrip(RegistryDirective):
    """``:::{title-strip} key`` at the head of a chapter."""

    required_arguments = 1

    def draw(self):
        return [pages.title_strip(self, self.arguments[0])]


class ScoreboardSummary(RegistryDirective):
    """``:::{scoreboard-summary}``, a bar and its legend."""

    def draw(self):
        return [pages.summary(self)]


class Scoreboard(RegistryDirective):
    """``:::{scoreboard}``, the matrix and every claim by verdict."""

    def draw(self):
        return pages.scoreboard(self)


class Errata(RegistryDirective):
    """``:::{errata}``, every slip in one table."""

    def draw(self):
        return [pages.errata(self)]


def drop_thebe(app, config):
    """Unhook sphinx-thebe: its script throws on every page and is on a CDN."""
    for listeners in app.events.listeners.values():
        listeners[:] = [
            item
            for item in listeners
            if item.handler.__module__ != "sphinx_thebe"
            or item.handler.__name__ == "st_static_path"  # its style sheet stays
        ]


def skip_foreign_members(app, what, name, obj, skip, options):
    """Leave out what scikit-learn adds to an estimator for metadata routing."""
    return True if re.fullmatch(r"set_\w+_request", name) else None


def resolve_public_name(app, env, node, contnode):
    """Let docstrings say `kernel_matrix` or `lib.features.kernel_matrix`.

    Both mean the one documented object of that name, whichever module holds it.
    """
    if node.get("refdomain") != "py":
        return None
    package, _, name = node["reftarget"].rpartition(".")
    start, end = f"{package or 'lib'}.", f".{name}"
    objects = env.get_domain("py").objects
    found = [key for key in objects if key.startswith(start) and key.endswith(end)]
    if len(found) != 1:
        return None
    entry = objects[found[0]]
    doc = node.get("refdoc", env.docname)
    return make_refnode(app.builder, doc, entry.docname, entry.node_id, contnode)


def copy_mathjax(app, exception):
    """Put MathJax beside the pages: the book needs no network."""
    if exception or app.builder.format != "html":
        return
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    source = Path(spec.origin).parent / "static" / "mathjax"
    target = Path(app.outdir) / "_static" / "mathjax"
    for part in MATHJAX_PARTS:
        here = source / part
        copy_asset(here, target / part if here.is_dir() else (target / part).parent)


def setup(app):
    app.setup_extension("sphinx.ext.autodoc")
    app.add_node(
        element,
        html=(visit, leave),
        **dict.fromkeys(("latex", "text", "man", "texinfo"), pass_through),
    )
    app.add_directive("title-strip", TitleStrip)
    app.add_directive("scoreboard", Scoreboard)
    app.add_directive("scoreboard-summary", ScoreboardSummary)
    app.add_directive("errata", Errata)
    app.connect("config-inited", drop_thebe, priority=900)
    app.connect("autodoc-skip-member", skip_foreign_members)
    app.connect("missing-reference", resolve_public_name)
    app.connect("build-finished", copy_mathjax)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
