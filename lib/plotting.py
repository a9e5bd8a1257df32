"""The look of the book's figures, and the data that its tests read back from them."""

import base64
import hashlib
import html
import io

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

__all__ = [
    "METHODS",
    "MIME",
    "compare",
    "curve",
    "figure_data",
    "frames_slider",
    "interval",
    "style",
    "use_book_style",
]

#: Media type under which a displayed figure carries the numbers it shows.
MIME = "application/vnd.bookfigure.v1+json"

# Okabe and Ito's palette without its yellow, which white paper swallows.
BLACK, GREY = "#000000", "#7F7F7F"
BLUE, SKY, GREEN = "#0072B2", "#56B4E9", "#009E73"
ORANGE, RED, PURPLE = "#E69F00", "#D55E00", "#CC79A7"
DOTS, DASHES, MIXED = (0, (1, 1.2)), (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5))

# Every wing's methods: (label, colour, marker, line style). Two methods of a wing that
# share a colour differ in marker and line, so that grey is enough.
_WINGS = {
    "features": {
        "phase": ("phase features", BLUE, "o", "-"),
        "pair": ("pair features", RED, "s", DASHES),
        "normalized": ("normalized features", PURPLE, "D", MIXED),
        "orthogonal": ("orthogonal features", GREEN, "^", "-"),
        "sorf": ("structured orthogonal", SKY, "v", DASHES),
        "qmc": ("quasi-Monte Carlo", ORANGE, "P", MIXED),
        "fastfood": ("Fastfood", GREY, "X", "-"),
        "nystroem": ("Nyström", PURPLE, "<", DOTS),
        "exact": ("exact kernel", BLACK, "*", DASHES),
        "leverage": ("leverage sampling", GREEN, "h", DOTS),
        "rks": ("random kitchen sinks", BLUE, ">", DOTS),
    },
    "acceleration": {
        "gd": ("gradient descent", GREY, "o", "-"),
        "heavy-ball": ("heavy ball", RED, "s", DASHES),
        "agd": ("Nesterov's AGD", BLUE, "^", "-"),
        "prox-agd": ("proximal AGD", SKY, "v", MIXED),
        "nag-restart": ("AGD with restarts", SKY, "D", "-"),
        "restarted-agd": ("restarted AGD, no constants", SKY, "<", DASHES),
        "anc": ("ANC, paper's constants", GREEN, "P", "-"),
        "anc-tight": ("ANC, tight constants", GREEN, "X", DASHES),
        "anc-adaptive": ("ANC, no constants", GREEN, "h", DOTS),
        "cubic-newton": ("cubic Newton", PURPLE, "*", "-"),
        "arc": ("adaptive cubic (ARC)", PURPLE, "X", DASHES),
        "pagd": ("perturbed AGD", ORANGE, ">", "-"),
        "perturbed-gd": ("perturbed GD", ORANGE, "h", DOTS),
        "lanczos": ("Lanczos step", BLACK, "*", DOTS),
        "lbfgs-nc": ("L-BFGS with certificate", BLACK, "s", "-"),
        "l-bfgs": ("L-BFGS", BLACK, "o", DASHES),
        "newton-cg": ("Newton-CG", PURPLE, "s", DOTS),
        "trust-ncg": ("trust-region CG", ORANGE, "P", DASHES),
        "trust-krylov": ("trust-region Lanczos", PURPLE, "^", MIXED),
        "adam": ("Adam", RED, "d", "-"),
        "amsgrad": ("AMSGrad", BLUE, ">", DOTS),
        "adabound": ("AdaBound", BLUE, "v", MIXED),
        "svrg": ("SVRG", GREY, "p", DASHES),
        "svrg-long": ("SVRG, long step", GREY, "H", MIXED),
        "sgd": ("SGD, a row a step", BLACK, ">", MIXED),
        "katyusha": ("Katyusha", RED, "*", DOTS),
        "mifgd": ("MiFGD", RED, "D", MIXED),
    },
    "games": {
        "gda": ("gradient descent-ascent", GREY, "o", "-"),
        "alternating-gda": ("alternating descent-ascent", GREY, "s", DOTS),
        "ogda": ("optimistic gradient", BLUE, "^", "-"),
        "extragradient": ("extragradient", SKY, "v", DASHES),
        "positive-momentum": ("positive momentum", ORANGE, ">", DASHES),
        "negative-momentum": ("negative momentum", GREEN, "P", "-"),
        "consensus": ("consensus optimisation", PURPLE, "D", "-"),
        "adam-half": ("Adam(0.5)", RED, "d", "-"),
        "adam-zero": ("Adam(0)", RED, "X", DASHES),
        "oadam": ("OAdam(0.5)", BLUE, "*", DASHES),
        "oadam-zero": ("OAdam(0)", BLUE, "<", DOTS),
        "adam-nm": ("Adam(-0.5)", GREEN, "h", DASHES),
        "sgd-momentum": ("SGD, momentum 0.9", BLACK, "o", "-"),
        "sgd-nm": ("SGD, momentum -0.5", BLACK, "s", DASHES),
        "rmsprop": ("RMSProp", ORANGE, "p", "-"),
        "extra-adam": ("ExtraAdam", SKY, "H", DOTS),
    },
    "graphs": {
        "glasso": ("graphical lasso", GREY, "o", "-"),
        "glasso-peer": ("scikit-learn", ORANGE, "H", DASHES),
        "neighbourhood": ("separate lassos", RED, "8", DASHES),
        "laplacian-mle": ("Laplacian MLE", BLACK, "s", DASHES),
        "laplacian-l1": ("Laplacian, l1", RED, "d", "-"),
        "laplacian-mcp": ("Laplacian, MCP", ORANGE, "p", MIXED),
        "prior-true": ("graphon, true degrees", BLUE, "^", "-"),
        "prior-map": ("graphon, MAP weight", BLUE, "*", DASHES),
        "prior-other": ("degrees of another graph", SKY, "v", DASHES),
        "prior-constant": ("constant spectrum", PURPLE, "D", MIXED),
        "prior-oracle": ("true spectrum", GREEN, "P", "-"),
        "templates": ("spectral templates", GREEN, "p", DOTS),
        "block-mm": ("block MM", ORANGE, ">", "-"),
        "lbfgs-reduced": ("reduced L-BFGS", BLUE, "<", DOTS),
        "fista-reduced": ("reduced FISTA", PURPLE, "h", DOTS),
        "admm": ("ADMM", GREY, "X", DASHES),
    },
    "convexnn": {
        "relu-program": ("ReLU program", BLUE, "o", "-"),
        "gated-program": ("gated program", ORANGE, "s", DASHES),
        "gradient-training": ("gradient training", RED, "d", MIXED),
        "convex-nn": ("ConvexNN", GREEN, "^", "-"),
        "frank-wolfe": ("Frank-Wolfe", PURPLE, "v", DASHES),
        "stochastic-frank-wolfe": ("stochastic Frank-Wolfe", PURPLE, "<", DOTS),
        "repaired-descent": ("repaired descent", SKY, "P", "-"),
        "closed-form": ("closed form", BLACK, "*", "-"),
        "three-layer-program": ("three-layer program", GREEN, "D", DASHES),
    },
    "coresets": {
        "full-data": ("all points", BLACK, "*", "-"),
        "craig": ("CRAIG", BLUE, "o", "-"),
        "craig-equal": ("CRAIG's points, equal weights", SKY, "v", DASHES),
        "grad-match": ("GRAD-MATCH", GREEN, "s", "-"),
        "glister": ("GLISTER", ORANGE, "^", MIXED),
        "glister-weighted": ("weighted GLISTER", RED, "P", DOTS),
        "random-subset": ("random subset", GREY, "X", DASHES),
    },
}

#: method -> (label, colour, marker, line style), the same in every figure of the book.
METHODS = {name: look for wing in _WINGS.values() for name, look in wing.items()}

RC = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": "figure",
    "figure.figsize": (7.2, 3.4),
    "figure.constrained_layout.use": True,
    # an opaque page: black axes stay readable when the site is dark
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "auto",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "errorbar.capsize": 3,
    "image.cmap": "cividis",
    "axes.prop_cycle": mpl.cycler(color=[BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK]),
}


def use_book_style():
    """
    Give every figure the book's style and attach its data when it is displayed.

    Sets matplotlib's ``rcParams``. Inside IPython it also fixes the pixel size of
    inline figures, stores them with a palette of 256 colours (a third of the bytes),
    and adds to each the output of `figure_data` under the media type `MIME`;
    elsewhere that part does nothing.
    """
    mpl.rcParams.update(RC)
    Figure._repr_bookfigure_ = figure_data
    try:
        from IPython import get_ipython
    except ImportError:
        return
    shell = get_ipython()
    if shell is None:
        return
    from IPython.core.formatters import JSONFormatter, PNGFormatter
    from traitlets import ObjectName, Unicode

    class BookFigureFormatter(JSONFormatter):
        format_type = Unicode(MIME)
        print_method = ObjectName("_repr_bookfigure_")

    class SmallPNGFormatter(PNGFormatter):
        def __call__(self, obj):
            png = super().__call__(obj)
            if not (isinstance(obj, Figure) and isinstance(png, str)):
                return png
            return base64.b64encode(_small(base64.b64decode(png))).decode()

    parent = shell.display_formatter
    if MIME not in parent.formatters:
        # found by its method: functions registered for Figure are dropped again by
        # the inline backend
        parent.formatters[MIME] = BookFigureFormatter(parent=parent)
        small = SmallPNGFormatter(parent=parent)
        small.type_printers.update(parent.formatters["image/png"].type_printers)
        parent.formatters["image/png"] = small
    try:
        from matplotlib_inline.config import InlineBackend
    except ImportError:
        return
    # a tight box would change the number of pixels with the width of a tick label
    InlineBackend.instance(parent=shell).print_figure_kwargs = {"bbox_inches": None}


def style(method):
    """
    Return the colour, marker, line and label of a method, the same all over the book.

    Parameters
    ----------
    method : str
        A key of `METHODS`.

    Returns
    -------
    dict
        Keywords ``color``, ``marker``, ``linestyle``, ``label`` for ``Axes.plot``.

    Raises
    ------
    ValueError
        If the method is not in the table.

    Examples
    --------
    >>> style("exact")["label"]
    'exact kernel'
    """
    if method not in METHODS:
        raise ValueError(
            f"method must be one of {', '.join(sorted(METHODS))}; got {method!r}"
        )
    label, color, marker, linestyle = METHODS[method]
    return dict(color=color, marker=marker, linestyle=linestyle, label=label)


def interval(samples, level=0.95):
    r"""
    Mean and Student t-interval over the first axis, missing values left out.

    :math:`\bar y \pm t_{n-1,(1+p)/2}\, s/\sqrt n` with the level :math:`p`, where n
    counts the values that are not NaN.

    Parameters
    ----------
    samples : array_like of shape (n_seeds, ...)
        One row a seed; NaN where a run is missing.
    level : float
        Coverage of the interval, between 0 and 1.

    Returns
    -------
    mean, low, high : ndarray of shape (...)
        The mean (NaN without samples) and the ends (NaN with fewer than two).
    n : ndarray of int of shape (...)
        The number of samples behind each mean.

    Raises
    ------
    ValueError
        If the level is not between 0 and 1 or the samples hold infinities.

    Examples
    --------
    >>> mean, low, high, n = interval([[1.0], [2.0], [3.0]])
    >>> print(mean[0], low[0].round(3), n[0])
    2.0 -0.484 3
    """
    from scipy.stats import t

    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1; got {level!r}")
    y = np.asarray(samples, dtype=float)
    if np.isinf(y).any():
        raise ValueError("samples must be finite or NaN (missing); got an infinity")
    n = np.sum(~np.isnan(y), axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(y, axis=0) / n
        s = np.sqrt(np.nansum((y - mean) ** 2, axis=0) / (n - 1))
        half = t.ppf((1 + level) / 2, n - 1) * s / np.sqrt(n)
    half = np.where(n > 1, half, np.nan)
    return mean, mean - half, mean + half, n


def curve(ax, x, samples, method=None, *, bars=False, level=0.95, **kw):
    """
    Draw the mean over seeds with its t-interval and say how many seeds there were.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw. On a logarithmic axis an interval that reaches below zero
        is drawn down to the frame and does not stretch it.
    x : array_like of shape (n_points,)
        Abscissae.
    samples : array_like of shape (n_seeds, n_points)
        One row a seed, NaN where a run is missing. A single row is drawn without
        interval and labelled ``n = 1``.
    method : str, optional
        A key of `METHODS` for colour, marker, line and label.
    bars : bool
        Error bars instead of a band.
    level : float
        Coverage of the interval.
    **kw
        For ``Axes.plot``; overrides the style of the method.

    Returns
    -------
    int
        The smallest number of seeds behind any drawn point (0 if there is none).

    Raises
    ------
    ValueError
        If the shapes of x and samples do not fit.
    """
    x, y = np.asarray(x), np.atleast_2d(np.asarray(samples, dtype=float))
    if y.ndim != 2 or x.shape != y.shape[1:]:
        raise ValueError(
            "samples must have the shape (n_seeds, len(x)); "
            f"got {y.shape} for x of shape {x.shape}"
        )
    mean, low, high, count = interval(y, level)
    seen = count > 0
    n = int(count[seen].min()) if seen.any() else 0
    kw = mpl.cbook.normalize_kwargs(kw, mpl.lines.Line2D)
    look = (style(method) if method else {}) | kw
    if n < 2 and "label" in look:
        look["label"] = f"{look['label']} (n = {n})"
    (line,) = ax.plot(x[seen], mean[seen], **look)
    known = count > 1
    if not known.any():
        return n
    color, z = line.get_color(), line.get_zorder()
    if bars:
        error = [(mean - low)[known], (high - mean)[known]]
        ax.errorbar(
            x[known], mean[known], error, fmt="none", ecolor=color, lw=1, zorder=z
        )
    else:
        ends = low[known], high[known]
        ax.fill_between(x[known], *ends, color=color, alpha=0.2, lw=0, zorder=z)
    return n


def compare(ax, published=None, full=None, quick=None, *, method=None, label=None):
    """
    Draw published, full-tier and live numbers of one quantity in one pair of axes.

    Published values are hollow black diamonds, the full tier is filled and solid with
    a band, the live run hollow and dotted with bars. Where the full tier was not run
    the legend says so.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw, legend included.
    published : tuple, optional
        ``(x, y)`` or ``(x, y, error)``, the numbers as printed.
    full, quick : tuple, optional
        ``(x, samples)`` with samples of shape (n_seeds, len(x)), as from
        ``Results.curve``; None or anything empty means that it was not run.
        When x holds strings, points stand side by side above these names.
    method : str, optional
        A key of `METHODS` for the colour and marker of the full and the live tier.
    label : str, optional
        What is compared, in front of every legend entry: needed when two methods
        share the axes, and then the label of the method unless given.

    Returns
    -------
    dict
        Number of seeds behind ``full`` and ``quick`` (0 where not run).

    Raises
    ------
    TypeError
        If a part is neither empty nor a tuple.
    """
    parts = {"published": published, "full tier": full, "live": quick}
    for name, part in parts.items():
        if part is None or (not isinstance(part, tuple) and not part):
            parts[name] = None
        elif not isinstance(part, tuple):
            raise TypeError(f"{name} must be a tuple (x, samples); got {type(part)}")
    look = style(method) if method else dict(color=BLUE, marker="o", label="")
    lead = look["label"] if label is None else label
    lead = f"{lead}, " if lead else ""
    looks = {
        "published": dict(color=BLACK, marker="D", mfc="none", linestyle=DASHES),
        "full tier": dict(color=look["color"], marker=look["marker"], linestyle="-"),
        "live": dict(color=look["color"], marker=look["marker"], mfc="white")
        | dict(linestyle=DOTS),
    }
    names = [x for part in parts.values() if part for x in part[0]]
    named = bool(names) and isinstance(names[0], str)
    names = list(dict.fromkeys(names))
    counts = {}
    for k, (tier, part) in enumerate(parts.items()):
        text, kw = lead + tier, looks[tier]
        if part is None:
            counts[tier] = 0
            if tier == "full tier":
                ax.plot([], [], label=f"{text}: not run", **kw)
            continue
        x, y, *error = part
        if named:
            kw["linestyle"] = "none"
            x = [names.index(one) + 0.18 * (k - 1) for one in x]
        if tier == "published":
            ax.plot(x, y, label=text, **kw)
            if error:
                ax.errorbar(x, y, error[0], fmt="none", ecolor=BLACK, lw=1)
            continue
        counts[tier] = interval(y)[3].max(initial=0)
        text += f" (n = {counts[tier]})" if counts[tier] > 1 else ""
        curve(ax, x, y, bars=named or tier == "live", label=text, **kw)
    if named:
        ax.set_xticks(range(len(names)), names)
        ax.set_xlim(-0.5, len(names) - 0.5)
    ax.legend()
    return {"full": int(counts["full tier"]), "quick": int(counts["live"])}


# ---- what a figure shows, as numbers ------------------------------------------------

FULL = 512  # arrays up to this size are kept whole,
KEPT = 128  # of larger ones this many values and as many weighted sums of blocks
FLOOR = 1e-10  # on a log axis everything below this counts as this


def _text(values, digits=7):
    return " ".join(f"{v:.{digits}g}" for v in values)


# Seven digits of an array; of a long one a sample and the weighted sums of blocks.
# Weights between 1 and 2 with alternating signs: one moved point moves the sum of its
# block at least as far, while noise and common shifts nearly cancel.
def _array(values, log=False):
    v = np.ma.filled(np.ma.asarray(values, dtype=float), np.nan).ravel()
    if v.size <= FULL:
        return _text(v)
    w = np.log10(np.clip(v, FLOOR, None)) if log else v
    w = np.where(np.isfinite(w), w, 0.0)
    i = np.arange(v.size)
    w = w * (1 + (i * 0.6180339887498949) % 1) * (1 - 2 * (i % 2))
    starts = np.linspace(0, v.size, KEPT, endpoint=False).astype(int)
    finite = v[np.isfinite(v)]
    return {
        "size": v.size,
        "finite": finite.size,
        "range": _text([finite.min(), finite.max()] if finite.size else []),
        "sample": _text(v[starts]),
        "sums": _text(np.add.reduceat(w, starts), 9),
    }


# One drawn thing: its label, its look, and its named arrays.
def _series(kind, artist, look, ax, **arrays):
    label = str(artist.get_label())
    scales = {"x": ax.get_xscale(), "y": ax.get_yscale()}
    data = {k: _array(v, scales.get(k[0]) == "log") for k, v in arrays.items()}
    return {
        "kind": kind,
        "label": "" if label.startswith("_") else label,
        "look": look,
        **data,
    }


# The vertices of some paths in one array, and how many each of them has.
def _paths(paths):
    parts = [p.vertices for p in paths]
    xy = np.concatenate(parts) if parts else np.empty((0, 2))
    return dict(x=xy[:, 0], y=xy[:, 1], vertices=[len(p) for p in parts])


# Colours as text, a few of them.
def _color(values):
    rgba = mpl.colors.to_rgba_array(values)
    return " ".join(mpl.colors.to_hex(c) for c in rgba[:3])


# Lines, collections, images and patches of one pair of axes, as drawn.
def _axes_series(ax):
    from matplotlib.collections import PathCollection, QuadMesh
    from matplotlib.patches import FancyArrowPatch, Rectangle

    out = []
    for line in ax.lines:
        look = f"{_color(line.get_color())} {line.get_linestyle()} {line.get_marker()}"
        x, y = line.get_xdata(orig=False), line.get_ydata(orig=False)
        out.append(_series("line", line, look, ax, x=x, y=y))
    for c in ax.collections:
        values = c.get_array()
        look, arrays = "", {}
        if values is None:
            look = f"{_color(c.get_facecolor())} {_color(c.get_edgecolor())}".strip()
        else:
            arrays["values"] = values
        if isinstance(c, PathCollection):
            xy = np.ma.filled(c.get_offsets(), np.nan)
            arrays |= dict(x=xy[:, 0], y=xy[:, 1], sizes=c.get_sizes())
            kind = "scatter"
        elif isinstance(c, QuadMesh):
            xy = c.get_coordinates()
            arrays |= dict(x=xy[0, :, 0], y=xy[:, 0, 1])
            kind = "mesh"
        else:
            arrays |= _paths(c.get_paths())
            if len(c.get_offsets()) > 1:
                arrays["offsets"] = c.get_offsets()
            kind = "collection"
        out.append(_series(kind, c, look, ax, **arrays))
    for image in ax.images:
        values, box = image.get_array(), image.get_extent()
        arrays = dict(values=values, x=box[:2], y=box[2:], shape=np.shape(values))
        out.append(_series("image", image, "", ax, **arrays))
    bars = {}
    for p in ax.patches:
        if isinstance(p, Rectangle):
            bars.setdefault(_color(p.get_facecolor()), []).append(p)
        elif not isinstance(p, FancyArrowPatch):
            path = p.get_path().transformed(p.get_patch_transform())
            look = f"{_color(p.get_facecolor())} {_color(p.get_edgecolor())}"
            out.append(_series("patch", p, look, ax, **_paths([path])))
    for look, group in bars.items():
        box = np.array([np.ravel(p.get_corners()[[0, 2]]) for p in group]).T
        ends = dict(zip(("x0", "y0", "x1", "y1"), box, strict=True))
        out.append(_series("bars", group[0], look, ax, **ends))
    return out


def figure_data(fig):
    """
    What a figure shows, as plain data: the content of the media type `MIME`.

    Parameters
    ----------
    fig : matplotlib.figure.Figure
        Any figure.

    Returns
    -------
    dict
        Size in pixels, texts, and for every pair of axes its titles, labels, scales,
        legend, texts and series (lines, collections, images, bars and patches), and
        the arrays that these refer to by number, to seven digits.
    """
    axes, arrays, queue = [], [], list(fig.axes)
    while queue:
        ax = queue.pop(0)
        queue += ax.child_axes
        legend, series = ax.get_legend(), _axes_series(ax)
        for one in series:
            for key in sorted(one.keys() - {"kind", "label", "look"}):
                # many curves share their abscissae
                if one[key] not in arrays:
                    arrays.append(one[key])
                one[key] = arrays.index(one[key])
        axes.append(
            {
                "title": " | ".join(
                    filter(None, map(ax.get_title, ("left", "center", "right")))
                ),
                "xlabel": ax.get_xlabel(),
                "ylabel": ax.get_ylabel(),
                "xscale": ax.get_xscale(),
                "yscale": ax.get_yscale(),
                "legend": [t.get_text() for t in legend.get_texts()] if legend else [],
                "texts": [t.get_text() for t in ax.texts],
                "series": series,
            }
        )
    return {
        "size": [round(v * fig.dpi) for v in fig.get_size_inches()],
        "texts": [t.get_text() for t in fig.texts],
        "axes": axes,
        "arrays": arrays,
    }


# ---- a figure with a slider, without a kernel ---------------------------------------

_SLIDER = """\
<div id="{id}" class="frames-slider" role="group" aria-label="{title}">
{images}
<p><label for="{id}-range">{title}:</label>
<input id="{id}-range" type="range" min="0" max="{last}" value="0" autocomplete="off"
 aria-valuetext="{first}" style="width:60%;vertical-align:middle" oninput="{move}">
<output for="{id}-range">{first}</output></p>
</div>"""
_MOVE = (
    "var box=this.closest('.frames-slider'),all=box.querySelectorAll('img'),"
    "k=+this.value,s=all[k].dataset.label;"
    "all.forEach(function(m,i){m.style.display=i===k?'block':'none'});"
    "this.setAttribute('aria-valuetext',s);"
    "box.querySelector('output').textContent=s"
)


# What the cell displays: HTML, and the numbers of the frames where they are known.
class _Slider:
    def __init__(self, markup, frames):
        self._markup, self._frames = markup, frames

    def _repr_html_(self):
        return self._markup

    def _repr_bookfigure_(self):
        return {"frames": self._frames} if self._frames else None

    def __repr__(self):
        return "<figure with a slider>"


# A PNG file with a palette of 256 colours: enough for lines, bars and colour maps.
def _small(png):
    from PIL import Image

    image, file = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
    image.quantize(dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return file.getvalue()


# A figure as a PNG file, closed so that it is not shown a second time.
def _png(fig):
    import matplotlib.pyplot as plt

    file = io.BytesIO()
    fig.savefig(file, format="png", dpi=fig.dpi)
    plt.close(fig)
    return _small(file.getvalue())


def frames_slider(frames, labels, *, name, title, alts):
    """
    A figure with a slider over ready-made frames, which needs no kernel to move.

    Parameters
    ----------
    frames : sequence of matplotlib.figure.Figure or bytes
        At most 24 figures of one size, or PNG files as bytes.
    labels : sequence of str
        What the slider says at each frame, ``"D = 64"``.
    name : str
        Name of the figure, unique in the book; its hash names the HTML elements.
    title : str
        What the slider changes, ``"number of features"``.
    alts : sequence of str
        A description of each frame for those who do not see it.

    Returns
    -------
    object
        Leave it as the last line of the cell; it displays itself.

    Raises
    ------
    ValueError
        If there are no frames, more than 24, or not one label and description each.
    """
    frames, labels, alts = list(frames), list(labels), list(alts)
    if not 1 <= len(frames) <= 24:
        raise ValueError(f"frames must hold 1 to 24 figures; got {len(frames)}")
    if not len(frames) == len(labels) == len(alts):
        raise ValueError(
            f"labels and alts need one entry a frame, {len(frames)}; "
            f"got {len(labels)} and {len(alts)}"
        )
    data = [figure_data(f) for f in frames if isinstance(f, Figure)]
    pngs = [_png(f) if isinstance(f, Figure) else f for f in frames]
    # of the words, not of the pixels: these differ between machines
    words = "\n".join([name, title, *labels, *alts])
    images = "\n".join(
        f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}" '
        f'alt="{html.escape(alt)}" data-label="{html.escape(label)}" '
        f'style="display:{"none" if i else "block"};max-width:100%;height:auto">'
        for i, (png, alt, label) in enumerate(zip(pngs, alts, labels, strict=True))
    )
    markup = _SLIDER.format(
        id="frames-" + hashlib.sha256(words.encode()).hexdigest()[:10],
        title=html.escape(title),
        last=len(frames) - 1,
        first=html.escape(labels[0]),
        move=_MOVE,
        images=images,
    )
    return _Slider(markup, data)
