"""One docutils node for any HTML element, so that text inside stays text.

Raw HTML would do for the looks, but citations, links between pages, maths and
the search index all need nodes of the document tree.
"""

import html

from docutils import nodes


class element(nodes.General, nodes.TextElement):
    """``<tag attributes>children</tag>``."""


def h(tag, *children, **attributes):
    """An element; ``class_`` and ``aria_label`` become class and aria-label."""
    node = element(tag=tag)
    node["html"] = {
        name.rstrip("_").replace("_", "-"): value
        for name, value in attributes.items()
        if value is not None
    }
    for child in children:
        if isinstance(child, str):
            node += nodes.Text(child)
        elif child is not None:
            node += child  # a node or a list of nodes
    return node


def visit(translator, node):
    attributes = "".join(
        f' {name}="{html.escape(str(value))}"' for name, value in node["html"].items()
    )
    translator.body.append(f"<{node['tag']}{attributes}>")


def leave(translator, node):
    translator.body.append(f"</{node['tag']}>")


def _nothing(translator, node):
    pass


pass_through = (_nothing, _nothing)
