"""
Write the address of the book's repository wherever it is needed.

    python book/set_repository.py OWNER/NAME

It goes into _config.yml (where it makes the Colab buttons), book/bootstrap.py and the
first cell of every chapter, text and notebook. Nothing else in those files changes.
"""

import re
import sys
from pathlib import Path

MARKER = "# set by make set-repository\n"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}")
# In a notebook the line stands in a JSON string, where each quote has a backslash.
LINE = re.compile(r'(REPOSITORY = \\?")[^"\\]*(\\?"  # written by make set-repository)')


def set_repository(name, root):
    """Rewrite the files below root; return those that changed."""
    if not NAME.fullmatch(name):
        raise ValueError(f"the repository must be OWNER/NAME, got {name!r}")
    url = f"https://github.com/{name}"
    texts = {root / "_config.yml": config(root / "_config.yml", url)}
    bootstrap = root / "book" / "bootstrap.py"
    chapters = [p for s in ("md", "ipynb") for p in (root / "book").glob(f"*/*.{s}")]
    for path in [bootstrap, *chapters]:
        text = path.read_text()
        texts[path] = LINE.sub(rf"\g<1>{url}\g<2>", text, count=1)
    changed = [path for path, text in texts.items() if path.read_text() != text]
    for path in changed:
        path.write_text(texts[path])
    return changed


def config(path, url):
    """The text of _config.yml with the repository below its marker."""
    before, marker, after = path.read_text().partition(MARKER)
    if not marker:
        raise ValueError(f"{path} has no line {MARKER.strip()!r}")
    kept = re.sub(r"\A((repository|launch_buttons):.*\n)*", "", after)
    return (
        f"{before}{MARKER}"
        f'repository: {{url: "{url}", path_to_book: "", branch: main}}\n'
        "launch_buttons: {notebook_interface: jupyterlab, "
        'colab_url: "https://colab.research.google.com"}\n'
        f"{kept}"
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        for path in set_repository(sys.argv[1], Path(__file__).resolve().parents[1]):
            print(path)
    except ValueError as error:
        sys.exit(str(error))
