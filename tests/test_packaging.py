"""The package as others get it: wheel, requirements, first cell, repository address."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email import message_from_bytes
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
BOOTSTRAP = (ROOT / "book" / "bootstrap.py").read_text()
CHAPTERS = [
    ROOT / file
    for file in re.findall(r"file: *(\S+\.ipynb)", (ROOT / "_toc.yml").read_text())
]

sys.path.insert(0, str(ROOT / "book"))
from set_repository import set_repository  # noqa: E402


def python(*arguments, executable=sys.executable, **kwargs):
    """Run Python without the checkout on its path; return what it printed."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= kwargs.pop("env", {})
    done = subprocess.run(
        [str(executable), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        **kwargs,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


# --- import


def test_import_is_quick_and_light():
    code = (
        "import sys, time; start = time.perf_counter(); import lib;"
        "print(time.perf_counter() - start); print(*sys.modules)"
    )
    runs = [python("-c", code, cwd=ROOT).splitlines() for _ in range(5)]
    assert min(float(seconds) for seconds, _ in runs) < 0.1
    assert not {"torch", "numpy", "matplotlib"} & set(runs[0][1].split())


@pytest.mark.parametrize("part", ["data", "features", "replication"])
def test_parts_load_no_torch(part):
    code = f"import sys, lib; lib.{part}; print('torch' in sys.modules)"
    assert python("-c", code, cwd=ROOT) == "False"


def test_unknown_attribute():
    import lib

    with pytest.raises(AttributeError, match="no attribute 'gamse'"):
        _ = lib.gamse
    assert {"data", "features", "plotting", "replication"} <= set(dir(lib))


def test_the_citation_names_this_version():
    import lib

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == lib.__version__
    assert f"## [{lib.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


# --- requirements


def pins(file):
    lines = (ROOT / file).read_text().splitlines()
    lines = [line.split("#")[0].strip() for line in lines]
    return [Requirement(line) for line in lines if line and not line.startswith("-c")]


def test_requirements_are_the_running_environment():
    for pin in pins("requirements.txt"):
        assert re.fullmatch(r"==[^*]+", str(pin.specifier)), f"{pin} is not exact"
        assert pin.specifier == f"=={metadata.version(pin.name)}"


def test_constraints_are_exact_and_hold():
    for pin in pins("constraints.txt"):
        assert re.fullmatch(r"==[^*]+", str(pin.specifier)), f"{pin} is not exact"
        try:
            installed = metadata.version(pin.name)
        except metadata.PackageNotFoundError:
            continue  # some packages exist on some systems only
        assert pin.specifier == f"=={installed}"


# --- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy so that no build folder is left in the checkout."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-text"):
        shutil.copy(ROOT / name, copy)
    for folder in ("lib", "tests", "book"):
        ignored = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    python("-m", "build", "--wheel", "--no-isolation", copy, cwd=copy)
    return next((copy / "dist").glob("optml_replicated-*.whl"))


@pytest.fixture
def fresh(tmp_path):
    """A new environment that sees the tested packages, but not this checkout."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not re.match(r"__editable__|optml|.*\.pth$|__pycache__", path.name):
            (packages / path.name).symlink_to(path)
    python("-m", "venv", "--without-pip", tmp_path / "venv")
    site = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    (site / "tested.pth").write_text(f"{packages}\n")
    return tmp_path / "venv" / "bin" / "python"


def install(executable, wheel):
    arguments = ("-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel)
    python(*arguments, executable=executable, cwd=wheel.parent)


@pytest.mark.slow
def test_wheel_holds_the_library_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    packed = {n for n in names if ".dist-info/" not in n}
    files = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "lib").rglob("*")
        if path.is_file()
        and not any(p == "__pycache__" or p.endswith(".cells") for p in path.parts)
        and not path.name.startswith(".")
    }
    assert packed == files
    for needed in (
        "lib/data/fashion-mini.npz",
        "lib/data/manifest.json",
        "lib/data/LICENSE-fashion-mini",
        "lib/replication/schema.json",
        "lib/replication/claims/features.toml",
    ):
        assert needed in packed
    licences = {n.split(".dist-info/")[1] for n in names - packed if "LICENSE" in n}
    assert licences == {
        f"licenses/{n}"
        for n in ("LICENSE", "LICENSE-text", "lib/data/LICENSE-fashion-mini")
    }


@pytest.mark.slow
def test_wheel_metadata(wheel):
    import lib

    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith("/METADATA"))
        found = message_from_bytes(archive.read(name))
    assert found["Name"] == "optml-replicated"
    assert found["Version"] == lib.__version__
    assert found["Requires-Python"] == ">=3.11"
    needs = [Requirement(text) for text in found.get_all("Requires-Dist")]
    assert {"numpy", "scipy", "scikit-learn", "torch"} <= {need.name for need in needs}
    for need in needs:
        bounds = list(need.specifier)
        assert [b.operator for b in bounds] == [">="], f"{need} is no lower bound"
        assert need.specifier.contains(metadata.version(need.name)), need


@pytest.mark.slow
def test_wheel_works_elsewhere(wheel, fresh, tmp_path):
    install(fresh, wheel)
    code = (
        "import lib, lib.data, lib.features, lib.plotting; print(lib.__file__);"
        "print(len(lib.data.load('fashion-mini')[0]))"
    )
    elsewhere = tmp_path / "empty"
    elsewhere.mkdir()
    file, n = python("-c", code, executable=fresh, cwd=elsewhere).splitlines()
    assert Path(file).is_relative_to(fresh.parents[1])
    assert n == "4000"
    listed = python("-m", "lib.replication", "list", executable=fresh, cwd=elsewhere)
    assert "quick" in listed
    assert not list(elsewhere.iterdir())


# --- the first cell of every chapter

# Runs a notebook with the Python that runs this, and prints where its lib was found.
RUN = """
import sys
import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager

notebook = nbformat.read(sys.argv[1], 4)
notebook.cells.append(nbformat.v4.new_code_cell("import lib; print(lib.__file__)"))
manager = AsyncKernelManager(
    kernel_name=CURRENT_ENV_KERNEL_NAME, kernel_spec_manager=NbvalKernelspecManager()
)
where = {"metadata": {"path": sys.argv[2]}}
NotebookClient(notebook, km=manager, timeout=300, resources=where).execute()
print(notebook.cells[-1].outputs[-1].text)
"""


def run_notebook(executable, path, **env):
    """Execute a notebook in its folder; return the lib that its last cell saw."""
    found = python(
        "-P", "-c", RUN, path, path.parent, executable=executable, cwd="/", env=env
    )
    return Path(found.splitlines()[-1])


def stranger(folder, package):
    """Put another library of the same name beside the notebook."""
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "features.py").write_text("raise RuntimeError('a stranger')\n")
    if package:
        (folder / "lib" / "__init__.py").write_text("from . import helpers\n")
        (folder / "lib" / "helpers.py").write_text("__version__ = '9'\n")


def small_notebook(folder):
    """Write a notebook of the first cell and one that uses the library."""
    sources = [BOOTSTRAP, "import lib.features, lib.data\nlib.data.load('digits')"]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "small.ipynb")
    return folder / "small.ipynb"


def first_code_cell(path):
    if path.suffix == ".ipynb":
        notebook = nbformat.read(path, 4)
    else:
        import jupytext

        notebook = jupytext.read(path, fmt="md:myst")
    return next(cell for cell in notebook.cells if cell.cell_type == "code")


def test_first_cell_fits_the_page():
    lines = BOOTSTRAP.splitlines()
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 76


def test_first_cell_is_silent_and_keeps_the_path_when_all_is_well(tmp_path):
    code = f"import sys; path = list(sys.path)\n{BOOTSTRAP}\nassert sys.path == path"
    assert python("-c", code, cwd=ROOT) == ""


@pytest.mark.slow
def test_a_chapter_runs_from_the_wheel_beside_a_stranger(wheel, fresh, tmp_path):
    install(fresh, wheel)
    stranger(tmp_path / "work", package=True)
    path = Path(shutil.copy(CHAPTERS[0], tmp_path / "work"))
    assert run_notebook(fresh, path).is_relative_to(fresh.parents[1])


@pytest.mark.slow
@pytest.mark.parametrize("package", [True, False])
def test_first_cell_installs_the_wheel(wheel, fresh, tmp_path, package):
    stranger(tmp_path / "work", package)
    path = small_notebook(tmp_path / "work")
    found = run_notebook(fresh, path, BOOK_LIB=str(wheel), PIP_NO_INDEX="1")
    assert found.is_relative_to(fresh.parents[1])


@pytest.mark.slow
def test_first_cell_explains_itself_while_there_is_no_repository(fresh, tmp_path):
    stranger(tmp_path / "work", package=True)
    path = small_notebook(tmp_path / "work")
    text = path.read_text().replace(first_line(), 'REPOSITORY = \\"\\"')
    path.write_text(text)
    with pytest.raises(AssertionError, match=r"make wheel; %pip"):
        run_notebook(fresh, path, BOOK_LIB="")


def first_line():
    """The line of the setting, as a notebook's JSON spells it."""
    line = re.search(r'REPOSITORY = "[^"]*"', BOOTSTRAP).group()
    return line.replace('"', '\\"')


# --- make set-repository


@pytest.fixture
def checkout(tmp_path):
    """A copy of what the command rewrites, with one small executed notebook."""
    (tmp_path / "book" / "wing").mkdir(parents=True)
    shutil.copy(ROOT / "_config.yml", tmp_path)
    shutil.copy(ROOT / "book" / "bootstrap.py", tmp_path / "book")
    small_notebook(tmp_path / "book" / "wing")
    (tmp_path / "book" / "wing" / "small.md").write_text(
        f"# A chapter\n\n```{{code-cell}} ipython3\n{BOOTSTRAP}```\n"
    )
    for chapter in CHAPTERS:
        folder = tmp_path / chapter.parent.relative_to(ROOT)
        folder.mkdir(exist_ok=True)
        for suffix in (".ipynb", ".md"):
            shutil.copy(chapter.with_suffix(suffix), folder)
    return tmp_path


def test_set_repository_writes_it_everywhere(checkout):
    url = "https://github.com/some-one/a.book"
    changed = set_repository("some-one/a.book", checkout)
    assert len(changed) == 4 + 2 * len(CHAPTERS)
    config = yaml.safe_load((checkout / "_config.yml").read_text())
    assert config["repository"]["url"] == url
    assert config["launch_buttons"]["colab_url"].startswith("https://colab.")
    text = (checkout / "book" / "bootstrap.py").read_text()
    assert f'"{url}"' in text
    for path in (checkout / "book").glob("*/*.*"):
        assert first_code_cell(path).source.strip() == text.strip()


def test_set_repository_changes_nothing_else(checkout):
    set_repository("one/book", checkout)
    for path in (checkout / "book").glob("*/*.ipynb"):
        before = (ROOT / path.relative_to(checkout)).with_suffix(".ipynb")
        if before.exists():
            old, new = json.loads(before.read_text()), json.loads(path.read_text())
            cells = [c for c in old["cells"] if c["cell_type"] == "code"]
            cells[0]["source"] = first_code_cell(path).source.splitlines(keepends=True)
            assert new == old
    before = yaml.safe_load((ROOT / "_config.yml").read_text())
    after = yaml.safe_load((checkout / "_config.yml").read_text())
    for key in ("repository", "launch_buttons"):
        before.pop(key, None)
        after.pop(key)
    assert after == before


def test_set_repository_twice_is_once_and_the_last_one_counts(checkout):
    def texts():
        return {p: p.read_text() for p in checkout.rglob("*.*") if p.is_file()}

    set_repository("one/book", checkout)
    once = texts()
    assert set_repository("one/book", checkout) == []
    set_repository("two/other", checkout)
    assert not any("one/book" in text for text in texts().values())
    set_repository("one/book", checkout)
    assert texts() == once


@pytest.mark.parametrize(
    "name", ["", "book", "one/two/three", "-a/b", "a/b c", 'a/b"', "https://x.org/a/b"]
)
def test_set_repository_refuses_what_is_no_address(checkout, name):
    before = (checkout / "_config.yml").read_text()
    with pytest.raises(ValueError, match="OWNER/NAME"):
        set_repository(name, checkout)
    assert (checkout / "_config.yml").read_text() == before


def test_the_colab_button_and_the_first_cell_name_the_same_repository():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    url = config.get("repository", {}).get("url", "")
    assert f'REPOSITORY = "{url}"' in BOOTSTRAP
    assert ("launch_buttons" in config) == bool(url)
