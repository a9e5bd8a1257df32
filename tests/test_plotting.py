"""lib.plotting: one look for each method, honest intervals, figures with their data."""

import base64
import io
import re
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from scipy import stats

from lib import plotting

mpl.use("agg")
import matplotlib.pyplot as plt  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def ax():
    with mpl.rc_context():
        plotting.use_book_style()
        fig, ax = plt.subplots()
        yield ax
        plt.close(fig)


def grey(color):
    return np.dot(mpl.colors.to_rgb(color), (0.299, 0.587, 0.114))


def texts(ax):
    return [t.get_text() for t in ax.get_legend().get_texts()]


# ---- style --------------------------------------------------------------------------


@pytest.mark.parametrize("wing", plotting._WINGS)
def test_no_two_methods_of_a_wing_look_alike_even_in_grey(wing):
    looks = {name: plotting.style(name) for name in plotting._WINGS[wing]}
    assert len({look["label"] for look in looks.values()}) == len(looks)
    for one, a in looks.items():
        for other, b in looks.items():
            if one < other and abs(grey(a["color"]) - grey(b["color"])) < 0.1:
                assert a["marker"] != b["marker"], (one, other)
                same_line = a["linestyle"] == b["linestyle"]
                assert a["color"] != b["color"] or not same_line, (one, other)


def test_no_method_name_is_used_by_two_wings():
    assert len(plotting.METHODS) == sum(map(len, plotting._WINGS.values()))


def test_every_colour_stands_out_from_the_white_page():
    for name in plotting.METHODS:
        assert grey(plotting.style(name)["color"]) < 0.75, name


def test_unknown_method_is_refused_by_name():
    with pytest.raises(ValueError, match="fastfood.*got 'fastfod'"):
        plotting.style("fastfod")


def test_page_is_opaque_and_of_fixed_size(ax):
    assert mpl.colors.to_rgba(ax.figure.get_facecolor()) == (1, 1, 1, 1)
    assert ax.figure.get_constrained_layout()
    assert not ax.spines["top"].get_visible()
    assert ax.figure.dpi * ax.figure.get_size_inches()[0] <= 720


def test_import_costs_no_torch_and_style_needs_no_ipython():
    code = "import lib.plotting as p; p.use_book_style(); p.style('pair')\n"
    code += "assert 'torch' not in sys.modules"
    for start in ("import sys\n", "import sys; sys.modules['IPython'] = None\n"):
        subprocess.run([sys.executable, "-c", start + code], check=True, cwd=ROOT)


# ---- intervals ----------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize("level", [0.5, 0.95])
def test_interval_is_students(n, level):
    y = np.random.default_rng(n).normal(size=(n, 4))
    mean, low, high, count = plotting.interval(y, level)
    ends = stats.t.interval(level, n - 1, loc=y.mean(0), scale=stats.sem(y))
    np.testing.assert_allclose(np.array([low, high]), ends, rtol=1e-12)
    np.testing.assert_allclose(mean, y.mean(0), rtol=1e-12)
    assert (count == n).all()


def test_interval_covers_as_often_as_it_says():
    y = np.random.default_rng(0).normal(size=(4, 20_000))
    _, low, high, _ = plotting.interval(y)
    covered = np.mean((low <= 0) & (high >= 0))
    assert abs(covered - 0.95) < 4 * np.sqrt(0.05 * 0.95 / 20_000)


def test_missing_runs_are_left_out():
    y = np.array([[1.0, 1.0, np.nan], [2.0, np.nan, np.nan], [4.0, np.nan, np.nan]])
    mean, low, high, n = plotting.interval(y)
    np.testing.assert_array_equal(n, [3, 1, 0])
    np.testing.assert_allclose(mean, [7 / 3, 1, np.nan])
    assert np.isfinite([low[0], high[0]]).all()
    assert np.isnan([low[1:], high[1:]]).all(), "one run has no interval"


@pytest.mark.parametrize("bad", [0, 1, 95])
def test_interval_refuses_bad_input(bad):
    with pytest.raises(ValueError, match=f"level.*got {bad}"):
        plotting.interval([[1.0], [2.0]], level=bad)
    with pytest.raises(ValueError, match="infinity"):
        plotting.interval([[1.0], [np.inf]])


# ---- curve --------------------------------------------------------------------------


def test_curve_draws_mean_and_interval_and_counts(ax):
    y = np.random.default_rng(0).normal(size=(5, 6))
    y[0, 2] = np.nan
    assert plotting.curve(ax, range(6), y, "pair") == 4
    (line,), (band,) = ax.lines, ax.collections
    np.testing.assert_allclose(line.get_ydata(), np.nanmean(y, 0))
    assert line.get_color() == plotting.style("pair")["color"]
    assert line.get_label() == "pair features"
    _, low, high, _ = plotting.interval(y)
    box = band.get_paths()[0].get_extents()
    np.testing.assert_allclose([box.y0, box.y1], [low.min(), high.max()])


def test_curve_with_bars(ax):
    y = np.random.default_rng(0).normal(size=(5, 6))
    assert plotting.curve(ax, range(6), y, bars=True) == 5
    ends = np.array([s[:, 1] for s in ax.collections[0].get_segments()]).T
    np.testing.assert_allclose(ends, plotting.interval(y)[1:3])


def test_one_seed_has_no_interval_and_says_so(ax):
    assert plotting.curve(ax, [1, 2], [[3.0, 4.0]], "exact") == 1
    assert not ax.collections
    assert ax.lines[0].get_label() == "exact kernel (n = 1)"


def test_missing_points_are_not_drawn(ax):
    y = np.array([[1.0, np.nan, 3.0], [2.0, np.nan, 5.0]])
    assert plotting.curve(ax, [1, 2, 4], y) == 2
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 4])
    assert plotting.curve(ax, [1], [[np.nan]]) == 0


def test_style_of_a_method_can_be_overridden_by_either_name(ax):
    plotting.curve(ax, [1, 2], np.ones((2, 2)), "phase", ls="none", c="red")
    assert (ax.lines[0].get_linestyle(), ax.lines[0].get_color()) == ("None", "red")


@pytest.mark.parametrize("bars", [False, True])
@pytest.mark.filterwarnings("error")
def test_interval_below_zero_does_not_stretch_a_log_axis(ax, bars):
    x = np.arange(1, 6)
    y = 10.0**-x + np.array([[-1.0], [1.0]]) * 10.0**-x  # intervals hold zero
    assert plotting.interval(y)[1].max() < 0
    plotting.curve(ax, x, y, bars=bars)
    ax.set_yscale("log")
    ax.figure.canvas.draw()
    assert 1e-7 < ax.get_ylim()[0] < 1e-5


def test_shapes_that_do_not_fit_are_refused(ax):
    with pytest.raises(ValueError, match=r"\(n_seeds, len\(x\)\).*\(2, 3\).*\(2,\)"):
        plotting.curve(ax, [1, 2], np.ones((2, 3)))


# ---- three-way figures --------------------------------------------------------------

X = (8, 16)
RUNS = np.array([[1.0, 2.0], [1.1, 2.2], [0.9, 2.1]])


class Nothing:
    """Stands for results that were never computed."""

    def __len__(self):
        return 0


@pytest.mark.parametrize("empty", [None, Nothing()])
def test_compare_says_what_was_not_run(ax, empty):
    n = plotting.compare(ax, (X, [1, 2]), empty, (X, RUNS), method="pair")
    assert n == {"full": 0, "quick": 3}
    assert texts(ax) == [
        "pair features, published",
        "pair features, full tier: not run",
        "pair features, live (n = 3)",
    ]


def test_compare_tells_the_three_apart(ax):
    full = (X, np.vstack([RUNS, RUNS]))
    assert plotting.compare(ax, (X, [1, 2], [0.1, 0.1]), full, (X, RUNS)) == {
        "full": 6,
        "quick": 3,
    }
    looks = {
        (line.get_marker(), line.get_linestyle(), str(line.get_markerfacecolor()))
        for line in ax.lines
        if len(line.get_xdata()) and line.get_marker() in "Do"
    }
    assert len(looks) == 3
    assert texts(ax) == ["published", "full tier (n = 6)", "live (n = 3)"]


def test_compare_places_names_side_by_side(ax):
    plotting.compare(
        ax, (["mnist"], [1.0]), (["digits", "mnist"], RUNS), (["digits"], RUNS[:, :1])
    )
    names = [t.get_text() for t in ax.get_xticklabels()]
    assert names == ["mnist", "digits"]
    places = np.concatenate([line.get_xdata() for line in ax.lines])
    assert len(set(np.round(places, 6))) == 4, "points hide one another"


def test_compare_refuses_what_it_cannot_read(ax):
    with pytest.raises(TypeError, match="live must be a tuple"):
        plotting.compare(ax, quick=RUNS.tolist())


# ---- the data of a figure -----------------------------------------------------------


def test_data_of_a_figure(ax):
    ax.plot([1, 2, 3], [0.1, 1 / 3, 1e-9], label="a")
    ax.set(title="T", xlabel="x [s]", ylabel="y", yscale="log")
    ax.legend()
    ax.plot([1, 2, 3], [4, 5, 6])
    data = plotting.figure_data(ax.figure)
    one = data["axes"][0]
    keys = ("title", "xlabel", "ylabel", "xscale", "yscale", "legend")
    assert [one[k] for k in keys] == ["T", "x [s]", "y", "linear", "log", ["a"]]
    series = one["series"][0]
    assert (series["kind"], series["label"]) == ("line", "a")
    found = [data["arrays"][series[key]] for key in ("x", "y")]
    assert found == ["1 2 3", "0.1 0.3333333 1e-09"]
    assert len(data["arrays"]) == 3, "shared abscissae are stored once"


def test_data_stays_small_for_large_arrays(ax):
    ax.imshow(np.random.default_rng(0).random((500, 500)))
    ax.plot(np.arange(100_000))
    assert len(str(plotting.figure_data(ax.figure))) < 12_000


def test_displayed_figure_carries_its_data_and_has_a_fixed_size():
    code = """
import matplotlib
matplotlib.use("module://matplotlib_inline.backend_inline")
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
import matplotlib.pyplot as plt
from lib.plotting import MIME, use_book_style
for early in (True, False):          # before and after the first figure
    use_book_style()
    fig, ax = plt.subplots(figsize=(4, 2))
    ax.plot([1, 2], label="long")
    ax.set_ylabel("a label that a tight box would make room for")
    data, _ = shell.display_formatter.format(fig)
    assert data[MIME]["axes"][0]["series"][0]["label"] == "long"
    import base64, io
    from PIL import Image
    png = data["image/png"]
    png = base64.b64decode(png) if isinstance(png, str) else png
    assert Image.open(io.BytesIO(png)).size == (400, 200)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# ---- slider -------------------------------------------------------------------------

WORDS = dict(name="fig-s", title='waves "per" unit', labels=["k = 1", "k = 2"])
ALTS = ["one wave", "two <waves>"]


def slider():
    figs = []
    for k in (1, 2):
        fig, ax = plt.subplots(figsize=(4, 2.5))
        ax.plot(np.sin(k * np.linspace(0, 6, 100)))
        figs.append(fig)
    return plotting.frames_slider(figs, alts=ALTS, **WORDS)


def test_slider_is_deterministic_and_closes_its_figures():
    before = plt.get_fignums()
    assert slider()._repr_html_() == slider()._repr_html_()
    assert plt.get_fignums() == before


def test_slider_needs_no_network_and_no_kernel():
    html = re.sub(r"base64,[^\"]+", "", slider()._repr_html_())
    assert "//" not in html and "<script" not in html and "require" not in html


def test_slider_is_accessible():
    from html.parser import HTMLParser

    tags = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            tags.append((tag, dict(attributes)))

    Reader().feed(slider()._repr_html_())
    found = {tag: attributes for tag, attributes in tags}
    assert [a["alt"] for tag, a in tags if tag == "img"] == ALTS
    assert found["label"]["for"] == found["input"]["id"] == found["output"]["for"]
    assert found["input"]["aria-valuetext"] == "k = 1"
    assert found["div"]["aria-label"] == WORDS["title"]
    shown = ["display:block" in a["style"] for tag, a in tags if tag == "img"]
    assert shown == [True, False]


def test_slider_takes_png_files_and_keeps_them():
    raw = io.BytesIO()
    plt.imsave(raw, np.eye(4), format="png")
    shown = plotting.frames_slider([raw.getvalue()] * 2, alts=ALTS, **WORDS)
    assert base64.b64encode(raw.getvalue()).decode() in shown._repr_html_()
    assert shown._repr_bookfigure_() is None


def test_slider_refuses_what_it_cannot_show():
    with pytest.raises(ValueError, match="1 to 24 figures; got 25"):
        plotting.frames_slider([b""] * 25, alts=ALTS, **WORDS)
    with pytest.raises(ValueError, match="one entry a frame, 3; got 2 and 2"):
        plotting.frames_slider([b""] * 3, alts=ALTS, **WORDS)
