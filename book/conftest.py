"""
What nbval leaves out when it reruns a chapter: figures, tolerances, never-run cells.

`pytest --nbval --nbval-current-env book` executes every cell again and compares what
it shows with what the notebook stores:

* the numbers a figure carries (`lib.plotting.figure_data`), to `rtol` of the range of
  each series, on logarithmic axes to 0.01 decades; labels, counts and looks exactly;
* its pixels, whose root mean square difference must not exceed `rms` (of 255);
* text and HTML: words and whole numbers exactly, decimals to `rtol` or one unit in
  the last printed place; pictures inside HTML by their pixels.

A cell sets the two with tags such as `rtol=0.05` and `rms=20`; the outputs of a cell
tagged `nbval-ignore-output` are not compared. Of stderr only the categories of
warnings count: progress bars and paths do not repeat.
"""

import base64
import functools
import io
import math
import os
import re
import tempfile

import numpy as np

MIME = "application/vnd.bookfigure.v1+json"
RTOL, RMS = 1e-3, 8.0
DECADES, FLOOR = 0.01, 1e-10  # on log axes; whatever lies below the floor is equal
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")
PICTURE = re.compile(r"data:image/(?:png|jpeg);base64,([A-Za-z0-9+/=\s]+)")
TEXTS = ("title", "xlabel", "ylabel", "xscale", "yscale", "legend", "texts")


def same_number(ref, got, rtol):
    """Whether two printed numbers agree; two whole ones only when they are equal."""
    decimals = [n for n in (ref, got) if re.search("[.eE]", n)]
    if ref == got or not decimals:
        return float(ref) == float(got)
    parts = [n.lower().partition("e") for n in decimals]
    # the finer of the two prints decides: 0.5 and 0.4123 differ
    unit = min(
        float(f"1e{int(e or 0) - len(m.partition('.')[2])}") for m, _, e in parts
    )
    a, b = float(ref), float(got)
    near = abs(a - b) <= max(rtol * abs(a), 1.000001 * unit)
    return near or max(abs(a), abs(b)) < FLOOR


def compare_text(ref, got, rtol=RTOL, what=""):
    """Differences of two texts, as sentences."""
    a, b = ref.split("\n"), got.split("\n")
    if len(a) != len(b):
        return [f"{what}{len(a)} lines became {len(b)}:\n{ref}\n  now\n{got}"]
    problems = []
    for was, now in zip(a, b, strict=True):
        words = [" ".join(NUMBER.sub(" # ", line).split()) for line in (was, now)]
        pairs = zip(NUMBER.findall(was), NUMBER.findall(now), strict=False)
        why = [f"{m} became {n}" for m, n in pairs if not same_number(m, n, rtol)]
        if words[0] != words[1]:
            why = ["the words differ"]
        if why:
            k = max(0, len(os.path.commonprefix([was, now])) - 60)
            was, now = was[k : k + 150].strip(), now[k : k + 150].strip()
            problems.append(f"{what}{', '.join(why[:5])}: {was!r} -> {now!r}")
    return problems


def compare_pixels(ref, got, rms=RMS, what=""):
    """Differences of two base64 images, as sentences."""
    from PIL import Image

    a, b = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(v))).convert("RGB"), float)
        for v in (ref, got)
    )
    if a.shape != b.shape:
        return [f"{what}picture of {a.shape[1::-1]} pixels became {b.shape[1::-1]}"]
    value = math.sqrt(np.mean((a - b) ** 2))
    return [f"{what}pixels differ by {value:.1f} of 255, RMS > {rms:g}"][: value > rms]


def unpack(array):
    """An array of a figure's data with the keys that only long ones store."""
    if isinstance(array, str):
        array = {"sample": array, "range": array, "sums": "", "finite": ""}
        array["size"] = len(array["sample"].split())
    read = {k: np.array(array[k].split(), float) for k in ("sample", "range", "sums")}
    return {**array, **read}


def compare_values(ref, got, log, rtol):
    """The first difference of two arrays of a series, as a sentence, or None."""
    ref, got = unpack(ref), unpack(got)
    for key in ("size", "finite"):
        if ref[key] != got[key]:
            return f"number of points ({key}) was {ref[key]}, is {got[key]}"
    a, b, ends = ref["sample"], got["sample"], ref["range"]
    ends = ends[np.isfinite(ends)]
    largest = np.abs(ends).max(initial=0)
    spread = np.ptp(ends) if ends.size else 0
    if spread < 1e-6 * largest:  # one value, or one and its rounding noise
        spread = largest
    tol = max(rtol * spread, 1e-6 * largest, 1e-12)
    u, v = a, b
    if log:
        tol = max(DECADES, math.log10(1 + rtol))
        u, v = (np.log10(np.clip(n, FLOOR, None)) for n in (a, b))
    with np.errstate(invalid="ignore"):
        off = ~((np.abs(u - v) <= tol) | (a == b) | (np.isnan(a) & np.isnan(b)))
    if off.any():
        k = np.argmax(off)
        where = f"{'sample' if ref['sums'].size else 'point'} {k} of {a.size}"
        return f"{where} was {a[k]:.7g}, is {b[k]:.7g} ({off.sum()} differ)"
    off = np.abs(ref["sums"] - got["sums"]) > tol
    if off.any():
        ends = np.linspace(0, ref["size"], off.size + 1).astype(int)
        k = np.argmax(off)
        return f"something moved among points {ends[k]} to {ends[k + 1] - 1}"
    return None


def expand(series, arrays):
    """A series with its arrays in place of their numbers."""
    return {k: arrays[v] if isinstance(v, int) else v for k, v in series.items()}


def compare_series(ref, got, axes, rtol):
    """Differences of two series, as sentences."""
    name = f"{ref['kind']} {ref['label']!r}"
    arrays = sorted(ref.keys() - {"kind", "label", "look"})
    if ref["kind"] != got["kind"] or ref.keys() != got.keys():
        return [f"{name} became {got['kind']} {got['label']!r}"]
    if compare_text(ref["label"], got["label"], rtol):
        return [f"{name}: label is now {got['label']!r}"]
    problems = []
    if ref["look"] != got["look"]:
        problems = [f"{name}: look was {ref['look']!r}, is {got['look']!r}"]
    for key in arrays:
        log = axes.get(f"{key[0]}scale") == "log"
        if wrong := compare_values(ref[key], got[key], log, rtol):
            problems.append(f"{name}, {key}: {wrong}")
    return problems


def compare_figures(ref, got, rtol=RTOL, what=""):
    """Differences of what two figures show, as sentences."""
    if "frames" in ref:
        pairs = enumerate(zip(ref["frames"], got.get("frames", []), strict=False), 1)
        found = [compare_figures(*p, rtol, f"{what}frame {k}, ") for k, p in pairs]
        return sum(found, [])
    if len(ref["axes"]) != len(got["axes"]):
        return [f"{what}{len(ref['axes'])} axes became {len(got['axes'])}"]
    join = "\n".join
    problems = compare_text(join(ref["texts"]), join(got["texts"]), rtol, what)
    for k, (a, b) in enumerate(zip(ref["axes"], got["axes"], strict=True), 1):
        here = f"{what}axes {k} {a['title']!r}, "
        for key in TEXTS:
            was, now = (
                v[key] if isinstance(v[key], str) else join(v[key]) for v in (a, b)
            )
            problems += compare_text(was, now, rtol, f"{here}{key}: ")
        names = [[s["label"] or s["kind"] for s in ax["series"]] for ax in (a, b)]
        if len(names[0]) != len(names[1]):
            problems.append(f"{here}series were {names[0]}, are {names[1]}")
            continue
        for one, other in zip(a["series"], b["series"], strict=True):
            one, other = expand(one, ref["arrays"]), expand(other, got["arrays"])
            problems += [here + p for p in compare_series(one, other, a, rtol)]
    return problems


def contents(output):
    """Kind -> content of one output."""
    if output["output_type"] == "stream":
        return {"stdout": output["text"]}
    if output["output_type"] == "error":
        return {"error": f"{output['ename']}: {output['evalue']}"}
    return output["data"]


def compare_outputs(ref, got, rtol=RTOL, rms=RMS):
    """Differences of the stored and the new outputs of a cell, as sentences."""
    stderr = [
        "".join(o["text"] for o in outputs if o.get("name") == "stderr")
        for outputs in (ref, got)
    ]
    warned = [sorted(set(re.findall(r"\b(\w+Warning):", text))) for text in stderr]
    problems = []
    if warned[0] != warned[1]:
        problems = [f"warnings were {warned[0]}, are {warned[1]}: {stderr[1]}"]
    ref, got = (
        [contents(o) for o in outputs if o.get("name") != "stderr"]
        for outputs in (ref, got)
    )
    kinds = [[sorted(one) for one in many] for many in (ref, got)]
    if kinds[0] != kinds[1]:
        return [*problems, f"outputs were {kinds[0]}, are {kinds[1]}"]
    for a, b in zip(ref, got, strict=True):
        for kind in sorted(a):
            was, now = a[kind], b[kind]
            if kind == MIME:
                problems += compare_figures(was, now, rtol)
            elif kind in ("image/png", "image/jpeg"):
                problems += compare_pixels(was, now, rms)
            else:
                words = (PICTURE.sub("picture", str(v)) for v in (was, now))
                problems += compare_text(*words, rtol, f"{kind}, ")
                pictures = (PICTURE.findall(str(v)) for v in (was, now))
                for k, pair in enumerate(zip(*pictures, strict=False), 1):
                    problems += compare_pixels(*pair, rms, f"{kind}, picture {k}: ")
    return problems


def install():
    """Put the comparison above in place of nbval's own."""
    from nbval import kernel, plugin

    cell_class, run = plugin.IPyNbCell, plugin.IPyNbCell.runtest

    def compare(self, test, ref, skip_compare=None):
        tags = re.findall(
            r"(rtol|rms)=(\S+)", " ".join(self.cell.metadata.get("tags", []))
        )
        problems = compare_outputs(ref, test, **{k: float(v) for k, v in tags})
        self.comparison_traceback = problems[:20]
        return not problems

    def runtest(self):
        run(self)
        if self.cell.source.strip() and self.cell.execution_count is None:
            self.raise_cell_error("Cell was never executed: store it with its outputs")

    def raise_cell_error(self, message, *args, **kwargs):
        first = next(filter(str.strip, self.cell.source.splitlines()), "").strip()
        message = (
            f"{message}\n{self.path.name}, In [{self.cell.execution_count}]: {first}"
        )
        raise plugin.NbCellError(
            self.cell_num, message, self.cell.source, *args, **kwargs
        )

    def execute_cell_input(self, source, allow_stdin=None):
        # with a history, or IPython does not see the ";" that hides a value
        return self.kc.execute(source, allow_stdin=allow_stdin, stop_on_error=False)

    cell_class.compare_outputs = compare
    cell_class.runtest = runtest
    cell_class.raise_cell_error = raise_cell_error
    kernel.RunningKernel.execute_cell_input = execute_cell_input
    if os.name == "posix":
        manager = kernel.KernelManager

        def on_files(**kwargs):
            # files for sockets: a port can be taken before the kernel binds it
            where = f"{tempfile.mkdtemp(prefix='kernel-')}/socket"
            return manager(**({"transport": "ipc", "ip": where} | kwargs))

        kernel.KernelManager = on_files
    kernel.start_new_kernel = functools.partial(
        kernel.start_new_kernel,
        extra_arguments=["--HistoryManager.hist_file=:memory:", "--log-level=ERROR"],
    )


try:
    install()
except ImportError:  # without nbval no notebook is collected
    pass
