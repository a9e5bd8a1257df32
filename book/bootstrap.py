# Finds the book's library, lib, and passes over any other of that name.
import os
import sys
from subprocess import run

REPOSITORY = ""  # written by make set-repository
SOURCE = os.environ.get("BOOK_LIB") or REPOSITORY and "git+" + REPOSITORY
for attempt in range(3):  # as things are, past this folder, installed
    try:
        from lib import __book__  # noqa: F401
        break
    except Exception:
        sys.path.sort(key=lambda p: os.path.realpath(p) == os.getcwd())
        for name in [m for m in sys.modules if m.split(".")[0] == "lib"]:
            del sys.modules[name]
    if attempt == 1 and SOURCE:
        run([sys.executable, *"-m pip install -q".split(), SOURCE])
else:
    raise ImportError("in a checkout of the book run make wheel; %pip "
                      "install that file here and run this cell again")
