"""The nbval plugin, book/conftest.py: what must fail fails, what must pass passes."""

import copy
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from lib import plotting

ROOT = Path(__file__).resolve().parents[1]
CHAPTER = ROOT / "book" / "features" / "rahimi2007_fourier.ipynb"


def load(name, path):
    """Import a file that lies outside any package."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plugin = load("book_conftest", ROOT / "book" / "conftest.py")


# ---- the rules, without a kernel ----------------------------------------------------


@pytest.mark.parametrize(
    ("ref", "got", "same"),
    [
        ("error 0.1234", "error 0.1235", True),  # one unit in the last place
        ("error 0.1234", "error 0.1237", False),
        ("error 1234.5", "error 1235.5", True),  # within rtol
        ("error 1234.5", "error 1237.5", False),
        ("error 0.5", "error 0.4123", False),  # the finer print decides
        ("ratio 1", "ratio 0.9996", True),
        ("ratio 1", "ratio 0.97", False),
        ("rate 1e-05", "rate 2e-05", True),
        ("rate 1.0e-05", "rate 2.0e-05", False),
        ("noise 3.1e-16", "noise 8.9e-17", True),  # both are rounding noise
        ("24 rows", "25 rows", False),
        ("60,000 images", "60,001 images", False),
        ("solved 3.", "solved 4.", False),  # a full stop makes no decimal
        ("x -0.500", "x 0.500", False),
        ("a-3", "a+3", False),
        ("time  0.50 |", "time 0.50   |", True),  # widths of columns may change
        ("holds: True", "holds: False", False),
        ("nan", "0.1", False),
        ("#1e9999", "#1e9999", True),  # a colour that looks like a number
    ],
)
def test_text(ref, got, same):
    assert bool(plugin.compare_text(ref, got)) != same


def figure(move=None, size=50, scale="linear", factor=1.0):
    """Data of a figure with one line; `move` is a point and the distance."""
    from matplotlib.figure import Figure

    fig = Figure()
    ax = fig.subplots()
    x = np.linspace(0.1, 5, size)
    y = np.exp(-x) * (1 + 0.1 * np.sin(40 * x)) * factor
    if move:
        y[move[0]] += move[1]
    ax.plot(x, y, label="decay")
    ax.set_yscale(scale)
    return plotting.figure_data(fig)


@pytest.mark.parametrize("size", [50, 512, 513, 4000, 100_000])
@pytest.mark.parametrize("where", [0.0, 0.17, 0.5031, 0.9999])
@pytest.mark.parametrize("distance", [0.01, -0.01])
def test_one_moved_point_is_seen_in_curves_of_any_length(size, where, distance):
    k = int(where * size)
    found = plugin.compare_figures(figure(size=size), figure((k, distance), size))
    assert len(found) == 1 and "'decay'" in found[0]
    if size <= plotting.FULL:
        assert f"point {k} " in found[0]


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("size", [50, 4000, 100_000])
def test_small_changes_pass_and_five_percent_fails(size, scale):
    ref = figure(size=size, scale=scale)
    for factor, same in [(1 + 1e-6, True), (1 - 1e-4, True), (1.05, False)]:
        got = figure(size=size, scale=scale, factor=factor)
        assert bool(plugin.compare_figures(ref, got)) != same, factor
    rng = np.random.default_rng(0)
    noisy = figure(size=size, scale=scale, factor=1 + 1e-6 * rng.normal(size=size))
    assert not plugin.compare_figures(ref, noisy)


def test_log_axis_compares_decades_above_a_floor():
    def data(y):
        from matplotlib.figure import Figure

        fig = Figure()
        fig.subplots().semilogy(y)
        return plotting.figure_data(fig)

    # relative to the range of the series the change of 1e-6 would be invisible
    assert plugin.compare_figures(data([1.0, 1e-6]), data([1.0, 2e-6]))
    assert not plugin.compare_figures(data([1.0, 1e-6]), data([1.0, 1.01e-6]))
    assert not plugin.compare_figures(data([1.0, 1e-16]), data([1.0, 7e-15]))


def test_missing_values_must_stay_missing():
    def data(y):
        from matplotlib.figure import Figure

        fig = Figure()
        fig.subplots().plot(y)
        return plotting.figure_data(fig)

    assert not plugin.compare_figures(data([1.0, np.nan, 2]), data([1.0, np.nan, 2]))
    assert plugin.compare_figures(data([1.0, np.nan, 2]), data([1.0, 1.5, 2]))


def kinds_of_artist(change):
    """A figure with one of each kind of artist; `change` moves one number in one."""
    from matplotlib.figure import Figure

    rng = np.random.default_rng(0)
    fig = Figure(figsize=(7, 5))
    axes = fig.subplots(2, 3).ravel()
    shift = {change: 0.05}.get
    axes[0].bar(range(3), [1, 2, 3 + shift("bar", 0)])
    image = rng.random((40, 40))
    image[17, 5] += shift("image", 0)
    axes[1].imshow(image)
    xy = rng.random((2, 30))
    xy[1, 7] += shift("scatter", 0)
    axes[2].scatter(*xy, c=xy[0])
    axes[3].fill_between([0, 1, 2], 0, [1, 1 + shift("band", 0), 2])
    axes[4].errorbar([0, 1], [1, 2], [0.1, 0.2 + shift("error bar", 0)])
    axes[5].pcolormesh(rng.random((5, 5)) + shift("mesh", 0) * np.eye(5))
    inset = axes[5].inset_axes([0, 0, 0.5, 0.5])
    inset.stairs([1, 2 + shift("inset", 0)])
    axes[0].annotate("best" if change != "note" else "worst", (0, 1))
    axes[1].set_title("left, 5 runs" if change != "title" else "left, 6 runs")
    fig.suptitle("all" if change != "suptitle" else "none")
    return plotting.figure_data(fig)


CHANGES = "bar image scatter band mesh inset note title suptitle".split()


@pytest.mark.parametrize("change", [*CHANGES, "error bar"])
def test_every_kind_of_artist_is_compared(change):
    ref = kinds_of_artist(None)
    assert not plugin.compare_figures(ref, kinds_of_artist(None))
    assert plugin.compare_figures(ref, kinds_of_artist(change))


def slider(factor=1.0):
    from matplotlib.figure import Figure

    frames = []
    for k in (1, 2):
        fig = Figure(figsize=(3, 2))
        ax = fig.subplots()
        ax.plot(np.arange(5) * (factor if k == 2 else 1))
        ax.set_ylim(0, 6)
        frames.append(fig)
    words = dict(name="fig-s", title="size", labels=["one", "two"], alts=["a", "b"])
    shown = plotting.frames_slider(frames, **words)
    data = {"text/html": shown._repr_html_(), plotting.MIME: shown._repr_bookfigure_()}
    return [{"output_type": "display_data", "data": data}]


def test_frames_of_a_slider_are_compared():
    assert not plugin.compare_outputs(slider(), slider())
    found = plugin.compare_outputs(slider(), slider(1.3))
    assert any("frame 2" in one for one in found)  # by numbers
    assert any("picture 2" in one for one in found)  # and by pixels
    assert not any("frame 1" in one or "picture 1" in one for one in found)


def test_only_categories_of_warnings_count_on_stderr():
    def outputs(text):
        return [{"output_type": "stream", "name": "stderr", "text": text}]

    bar, warning = outputs("50%|###  | 1.2 s"), outputs("/x/y.py:3: UserWarning: no")
    assert not plugin.compare_outputs([], bar)
    assert plugin.compare_outputs([], warning) and plugin.compare_outputs(warning, bar)
    moved = outputs("/z/y.py:9: UserWarning: no")
    assert not plugin.compare_outputs(warning, moved)


def test_both_sides_name_the_same_media_type_and_floor():
    assert (plugin.MIME, plugin.FLOOR) == (plotting.MIME, plotting.FLOOR)


# ---- the rules, in nbval ------------------------------------------------------------

SETUP, CURVES, SPECTRUM, TABLE, TIMING = range(5)
CELLS = [
    """\
import os
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
import time
import warnings
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML
from lib.plotting import use_book_style
use_book_style()""",
    """\
t = np.linspace(0, 6, 200)
s = np.linspace(0, 6, 3000)
first, second = np.sin(t), np.cos(s) / 2
fig, ax = plt.subplots()
ax.plot(t, first, color="C0", label="first")
ax.plot(s, second, label="second")
ax.set(xlabel="time [s]", ylabel="height [m]")
ax.legend()
plt.show()""",
    """\
A = np.random.default_rng(0).standard_normal((300, 300))
values = np.linalg.svd(A @ A.T / 300, compute_uv=False)
fig, ax = plt.subplots()
ax.semilogy(values)
ax.set(xlabel="index", ylabel="singular value")
plt.show()""",
    """\
rows, error = 24, values[3]
print(f"{rows:4d} rows, error {error:.4f}")
display(HTML(f"<table><tr><td>{rows}</td><td>{error:.3f}</td></tr></table>"))
rows;""",
    """\
print(time.perf_counter())""",
]
# name: (cell, text in its source, new text, what the report must say or None: passes)
CASES = {
    "untouched": (SETUP, "", "", None),
    "scaled_curve": (CURVES, "= np.sin(t)", "= 1.05 * np.sin(t)", "line 'first', y"),
    "moved_point": (CURVES, "fig,", "first[70] += 0.03\nfig,", "point 70 of 200"),
    "moved_in_long": (CURVES, "fig,", "second[1741] += 0.01\nfig,", "among points 1"),
    "removed_line": (CURVES, "ax.plot(s, second, label", "dict(label", "series were"),
    "label": (CURVES, "height [m]", "height [cm]", "ylabel: the words differ"),
    "colour": (CURVES, '"C0"', '"C2"', "look was '#0072b2 - None', is '#009e73"),
    "line_width": (CURVES, 'color="C0"', 'color="C0", lw=9', "pixels differ by"),
    "other_seed": (SPECTRUM, "rng(0)", "rng(1)", "line ''"),
    "integer": (TABLE, "24", "25", "24 became 25"),
    "decimal": (TABLE, "values[3]", "values[3] * 1.01", "text/html"),
    "no_figure": (CURVES, "plt.show()", "plt.close()", "outputs were"),
    "never_run": (TABLE, None, None, "never executed"),
    "exception": (
        TABLE,
        "rows, error",
        "raise OSError('gone')\nrows, error",
        "OSError: gone",
    ),
    "warning": (
        TABLE,
        "rows, error",
        "warnings.warn('look out')\nrows, error",
        "UserWarning",
    ),
    "noise": (SPECTRUM, ", compute", " * (1 + 1e-6), compute", None),
    "curve_noise": (CURVES, "np.sin(t)", "np.sin(t) * (1 + 1e-6)", None),
    "threads": (SETUP, '"1"', '"2"', None),
    "wide_tags": (CURVES, "= np.sin(t)", "= 1.05 * np.sin(t)", None),
}


def executed():
    """The five cells, executed and stored as book/execute.py does it."""
    import nbformat
    from nbclient import NotebookClient

    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    cells[TIMING].metadata["tags"] = ["nbval-ignore-output"]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, record_timing=False, kernel_name="python3").execute()
    return notebook


def run_nbval(folder):
    """Cell reports of every notebook in the folder: {stem: {cell: report or False}}."""
    shutil.copy(ROOT / "book" / "conftest.py", folder)
    (folder / "pytest.ini").write_text("[pytest]\n")
    options = "-n 2 --dist loadscope -p no:cacheprovider --color=no -q"
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env"]
    command += [*options.split(), "--junitxml=report.xml", "."]
    subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, timeout=300
    )
    reports = {}
    for case in ET.parse(folder / "report.xml").iter("testcase"):
        failure = case.find("failure")
        stem = case.get("classname").removesuffix(".ipynb")
        cell = int(case.get("name").split()[-1])
        # without the colours of the traceback, as the report escapes them
        said = failure is not None and re.sub(r"#x1B\[[\d;]*m", "", failure.text)
        reports.setdefault(stem, {})[cell] = said
    return reports


def environment():
    """The environment of the kernels: one thread, and this checkout's lib."""
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return os.environ | settings


@pytest.fixture(scope="session")
def reports(tmp_path_factory):
    import nbformat

    folder = tmp_path_factory.mktemp("nbval")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment().items():
            patch.setenv(name, value)
        original = executed()
    for name, (cell, old, new, _) in CASES.items():
        damaged = copy.deepcopy(original)
        target = damaged.cells[cell]
        if name == "never_run":
            target.execution_count, target.outputs = None, []
        else:
            assert old in target.source, f"case {name} changes nothing"
            target.source = target.source.replace(old, new, 1)
        if name == "wide_tags":
            target.metadata["tags"] = ["hide-input", "rtol=0.1", "rms=60"]
        nbformat.write(damaged, folder / f"{name}.ipynb")
    return run_nbval(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_damaged_notebook(reports, name):
    cell, old, new, says = CASES[name]
    report = reports[name]
    assert sorted(report) == list(range(5)), "not every cell was run"
    failed = [k for k, said in report.items() if said]
    if says is None:
        assert not failed, report
    else:
        assert cell in failed and min(failed) == cell, report
        said = report[cell]
        source = CELLS[cell].replace(old or "", new or "", 1)
        assert f"{name}.ipynb, In [{cell + 1}]: {source.splitlines()[0]}" in said or (
            name == "never_run"
        )
        assert f"Cell {cell}: " in said and says in said, said


@pytest.fixture(scope="session")
def chapter_reports(tmp_path_factory):
    import nbformat

    if not CHAPTER.exists():
        pytest.skip(f"{CHAPTER.relative_to(ROOT)} has not been executed yet")
    folder = tmp_path_factory.mktemp("chapter")
    notebook = nbformat.read(CHAPTER, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [
        (k, output.data)
        for k, cell in enumerate(code)
        for output in cell.outputs
        if plotting.MIME in output.get("data", {})
    ]
    assert shown, "the chapter stores no figure with its data"
    last, data = shown[0]
    # up to its first figure: seconds, not the whole chapter
    notebook.cells = code[: last + 1]
    nbformat.write(notebook, folder / "untouched.ipynb")
    axes = data[plotting.MIME]["axes"][0]
    label, axes["xlabel"] = axes["xlabel"], axes["xlabel"] + " (damaged)"
    nbformat.write(notebook, folder / "label.ipynb")
    axes["xlabel"] = label
    # the first drawn thing: its ordinates, or the values of an image
    series, arrays = axes["series"][0], data[plotting.MIME]["arrays"]
    number = next(series[k] for k in ("y", "values", "y1") if k in series)
    array = arrays[number]
    long = not isinstance(array, str)
    words = (array["sample"] if long else array).split()
    words[0] = f"{float(words[0]) + 0.05 * np.ptp([float(w) for w in words]):.7g}"
    moved = " ".join(words)
    arrays[number] = {**array, "sample": moved} if long else moved
    nbformat.write(notebook, folder / "moved_point.ipynb")
    return last, run_nbval(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "says"),
    [("untouched", None), ("label", "xlabel"), ("moved_point", " 0 of ")],
)
def test_damaged_chapter(chapter_reports, name, says):
    last, reports = chapter_reports
    failed = {k: said for k, said in reports[name].items() if said}
    assert list(failed) == ([last] if says else []), failed
    assert says is None or says in failed[last]
