"""
Execute chapters and store the notebooks with their outputs.

    python book/execute.py [CHAPTER ...]        (default: every chapter in _toc.yml)

A chapter is its path below book/ without suffix, such as
features/rahimi2007_fourier. Its text is read from the paired .md, the notebook is
written beside it. Nothing in a notebook depends on when or where it was run; the
seconds it took go to book/live_seconds.json.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import sys
import tempfile
import time
from pathlib import Path

BOOK = Path(__file__).resolve().parent
ROOT = BOOK.parent
ANSI = re.compile(r"\x1b\[[0-9;]*m")
# one thread: the seconds compare, and long training runs repeat to the last digit
SETTINGS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def socket_files():
    """Keywords of a kernel manager: a port can be taken before it is bound."""
    if os.name != "posix":
        return {}
    return {"transport": "ipc", "ip": f"{tempfile.mkdtemp(prefix='kernel-')}/socket"}


def chapters():
    """Names of the chapters in _toc.yml, those entries that end in .ipynb."""
    toc = (ROOT / "_toc.yml").read_text()
    return re.findall(r"^[^#\n]*file:\s*book/(\S+)\.ipynb\s*$", toc, re.MULTILINE)


def processor():
    """Name of the processor, without the name of the machine."""
    try:
        info = Path("/proc/cpuinfo").read_text()
        return re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)[1].strip()
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def read(chapter):
    """The notebook of a chapter's text: no outputs, stable ids, least metadata."""
    import jupytext

    source = jupytext.read(BOOK / f"{chapter}.md", fmt="md:myst")
    source.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    source.nbformat, source.nbformat_minor = 4, 5
    seen = {}
    for cell in source.cells:
        cell.metadata = {
            k: v for k, v in sorted(cell.metadata.items()) if k in ("mystnb", "tags")
        }
        # of the content and its repetition: a cell put in front changes no other id
        key = f"{cell.cell_type}\n{cell.source}"
        seen[key] = seen.get(key, 0) + 1
        cell.id = hashlib.sha256(f"{key}\n{seen[key]}".encode()).hexdigest()[:12]
    return source


def execute(chapter, timeout=600):
    """Run one chapter, write its notebook, and return the seconds it took."""
    import nbformat
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager

    notebook = nbformat.from_dict(read(chapter))
    folder = (BOOK / chapter).parent
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    # the kernel of this very environment, whatever kernels the user has installed
    manager = AsyncKernelManager(
        kernel_name=CURRENT_ENV_KERNEL_NAME,
        kernel_spec_manager=NbvalKernelspecManager(),
        **socket_files(),
    )
    client = NotebookClient(
        notebook,
        km=manager,
        timeout=timeout,
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
        # no line in the reader's own history, no notes about the transport
        extra_arguments=["--HistoryManager.hist_file=:memory:", "--log-level=ERROR"],
    )
    start = time.perf_counter()
    client.execute(env={**os.environ, **SETTINGS, "PYTHONPATH": path})
    seconds = time.perf_counter() - start
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    nbformat.validate(notebook)
    target = BOOK / f"{chapter}.ipynb"
    draft = target.with_suffix(".ipynb.part")
    nbformat.write(notebook, draft)
    draft.replace(target)
    return seconds


def record(chapter, seconds):
    """Store the seconds of one chapter and the processor they were measured on."""
    target = BOOK / "live_seconds.json"
    known = json.loads(target.read_text()) if target.exists() else {}
    known[chapter] = {"seconds": round(seconds, 1), "processor": processor()}
    target.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def main(argv=None):
    """Command line; the exit status is 1 if a chapter failed."""
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    parser = argparse.ArgumentParser(
        description="Execute chapters and store their notebooks."
    )
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER")
    names = parser.parse_args(argv).chapters or chapters()
    failed = []
    for name in names:
        name = re.sub(r"^(\./)?(book/)?|\.(md|ipynb)$", "", name)
        if not (BOOK / f"{name}.md").exists():
            parser.error(f"no chapter book/{name}.md")
        try:
            seconds = execute(name)
        except (CellExecutionError, CellTimeoutError) as error:
            failed.append(name)
            print(f"{name} failed\n{ANSI.sub('', str(error))}", file=sys.stderr)
            continue
        record(name, seconds)
        print(f"{name}: {seconds:.1f} s")
    if failed:
        print("not written:", ", ".join(failed), file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
