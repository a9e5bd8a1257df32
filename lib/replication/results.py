"""Results of an experiment: a read-only sequence of cells, one a (config, seed)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

INLINE = 16  # arrays with more numbers than this are stored beside the JSON file


class MissingCells(ValueError):
    """The configuration asked for has no finished cell."""


def canonical_config(config):
    """
    Return a configuration as plain JSON values.

    Parameters
    ----------
    config : mapping
        Names to numbers, strings, booleans, None or (nested) lists of them.

    Returns
    -------
    dict
        A copy in which tuples are lists and numpy scalars are Python numbers.

    Raises
    ------
    TypeError
        If a value has no exact JSON form.
    """

    def plain(value):
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        finite = not isinstance(value, float) or np.isfinite(value)
        if value is None or isinstance(value, bool | int | float | str) and finite:
            return value
        raise TypeError(
            "a configuration holds finite numbers, strings, booleans, None and "
            f"lists of them; got {value!r}"
        )

    return {str(name): plain(value) for name, value in config.items()}


def config_key(config):
    """
    Return the text that identifies a configuration, whatever its key order.

    Parameters
    ----------
    config : mapping
        A configuration.

    Returns
    -------
    str
        Canonical JSON.
    """
    return json.dumps(canonical_config(config), sort_keys=True, separators=(",", ":"))


def canonical_data(data):
    """
    Return the numbers of one cell as numpy arrays that storage keeps exactly.

    Up to 16 numbers become float64, int64 or bool (they are written as text);
    larger arrays keep their dtype; names are sorted. So a live cell equals the stored
    one.

    Parameters
    ----------
    data : mapping
        Names to numbers, numpy arrays or torch tensors.

    Returns
    -------
    dict of str to ndarray
        The converted arrays; tensors are copied to the host.

    Raises
    ------
    TypeError
        If it is no mapping or a value is not numeric.
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"a cell's data is a dict of numbers, got {type(data)}")
    out = {}
    for name, value in data.items():
        if hasattr(value, "detach"):
            value = value.detach().cpu().numpy()
        array = np.array(value)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name!r} must be numeric, got dtype {array.dtype}")
        if array.size <= INLINE:
            kind = {"b": np.bool_, "f": np.float64}.get(array.dtype.kind, np.int64)
            array = array.astype(kind)
        array.flags.writeable = False
        out[str(name)] = array
    return dict(sorted(out.items()))


@dataclass(frozen=True)
class Cell:
    """
    One finished (configuration, seed).

    Attributes
    ----------
    config : dict
        The configuration.
    seed : int
        The seed, or the repeat of a benchmark.
    data : dict of str to ndarray
        What the experiment measured.
    seconds : float
        Wall time between the previous cell and this one. Where an experiment
        batches cells, the first carries the time of the batch; sums are exact.
    joules : float or None
        Energy the GPU drew in that time, where it tells.
    run : dict
        Provenance of the run that made the cell; empty for a live one.
    """

    config: dict
    seed: int
    data: dict
    seconds: float = float("nan")
    joules: float | None = None
    run: dict = field(default_factory=dict, repr=False)


class Results(Sequence):
    """
    A read-only sequence of cells.

    Parameters
    ----------
    cells : iterable of Cell
        The finished cells.
    experiment : str
        Name of the experiment they belong to.
    tier : {"quick", "full", ""}
        The tier, or another label for results that no experiment made.
    """

    def __init__(self, cells=(), experiment="", tier=""):
        self._cells = tuple(cells)
        self.experiment = experiment
        self.tier = tier

    def __len__(self):
        return len(self._cells)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Results(self._cells[index], self.experiment, self.tier)
        return self._cells[index]

    def __repr__(self):
        label = " ".join(part for part in (self.experiment, self.tier) if part)
        return (
            f"<Results {label}: {len(self)} cells, {len(self.configs)} "
            f"configurations, {len(self.seeds)} seeds>"
        )

    @property
    def configs(self):
        """
        Distinct configurations, in the order of their first cell.

        Returns
        -------
        list of dict
            The configurations.
        """
        return list({config_key(c.config): c.config for c in self}.values())

    @property
    def seeds(self):
        """
        All seeds that occur in any cell.

        Returns
        -------
        list of int
            Sorted seeds.
        """
        return sorted({cell.seed for cell in self})

    def provenance(self):
        """
        Say where and when the cells were measured.

        Returns
        -------
        str
            Device, threads, versions, days and commits; "not run" without cells.
        """
        if not self:
            return "not run"
        runs = [cell.run for cell in self if cell.run]
        if not runs:
            return "measured live, on this machine"
        devices = sorted({f"{r['device_name']}, {_threads(r)}" for r in runs})
        days = sorted({r["start"][:10] for r in runs})
        days = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
        names = ("numpy", "torch", "scikit-learn")
        packages = [
            f"{name} {'/'.join(sorted({str(r['versions'][name]) for r in runs}))}"
            for name in names
        ]
        return f"measured on {'; '.join(devices)}, {days}\n{', '.join(packages)}"

    def where(self, **config):
        """
        Keep the cells whose configuration has these values.

        Parameters
        ----------
        **config : object
            Names and values; a list stands for any one of its values, unless
            the configuration holds a list itself.

        Returns
        -------
        Results
            The matching cells, possibly none.

        Raises
        ------
        KeyError
            If there are cells but none has such a name in its configuration.
        """
        names = {name for cell in self for name in cell.config}
        for name in config:
            if names and name not in names:
                raise KeyError(f"no configuration has {name!r}; names: {sorted(names)}")
        kept = (cell for cell in self if matches(cell.config, config))
        return Results(kept, self.experiment, self.tier)

    def values(self, key):
        """
        Return one measured quantity of a single configuration.

        Parameters
        ----------
        key : str
            Name of the quantity.

        Returns
        -------
        ndarray of shape (n_seeds, ...)
            Its values, sorted by seed.

        Raises
        ------
        ValueError
            If the cells belong to more than one configuration, or if there is
            no cell at all (then a `MissingCells`).
        """
        configs = self.configs
        if not configs:
            raise MissingCells(f"{self.experiment or 'results'}: no finished cell")
        if len(configs) > 1:
            raise ValueError(
                f"values({key!r}) needs one configuration, got {len(configs)} that "
                f"differ in {_varying(configs)}; choose one with where(...)"
            )
        cells = sorted(self, key=lambda cell: cell.seed)
        return np.stack([_quantity(cell, key) for cell in cells])

    def curve(self, key, over="D", **config):
        """
        Return a measured number against one name of the configuration.

        Parameters
        ----------
        key : str
            Name of the quantity, one number a cell.
        over : str
            Name of the configuration's value on the horizontal axis.
        **config : object
            Selects cells as in `where`.

        Returns
        -------
        x : ndarray of shape (n,)
            Sorted values of `over`.
        y : ndarray of shape (n_seeds, n)
            The measurements, NaN where a cell is missing.

        Raises
        ------
        ValueError
            If the cells differ in anything but `over`, or if there is none
            (then a `MissingCells`).
        """
        chosen = self.where(**config)
        if not chosen:
            raise MissingCells(f"{self.experiment or 'results'}: no finished cell")
        others = [name for name in _varying(chosen.configs) if name != over]
        if others:
            raise ValueError(
                f"curve({key!r}, over={over!r}) mixes configurations that differ in "
                f"{others}; choose with {over!r} free and these fixed"
            )
        if any(over not in cell.config for cell in chosen):
            raise KeyError(f"a configuration has no {over!r}: {chosen.configs[0]}")
        x = sorted({cell.config[over] for cell in chosen})
        seeds = chosen.seeds
        y = np.full((len(seeds), len(x)), np.nan)
        for cell in chosen:
            row, column = seeds.index(cell.seed), x.index(cell.config[over])
            y[row, column] = _quantity(cell, key)
        return np.asarray(x), y


def _threads(run):
    return "1 thread" if run["threads"] == 1 else f"{run['threads']} threads"


def matches(config, selection):
    """
    Tell whether a configuration has the selected values.

    Parameters
    ----------
    config : mapping
        A configuration.
    selection : mapping
        Names and values as in `Results.where`.

    Returns
    -------
    bool
        True if every selected name is there with that value.
    """
    for name, value in canonical_config(selection).items():
        if name not in config:
            return False
        one_of = isinstance(value, list) and not isinstance(config[name], list)
        if config[name] not in (value if one_of else [value]):
            return False
    return True


def _varying(configs):
    names = dict.fromkeys(name for config in configs for name in config)
    absent = object()
    spread = {n: [config.get(n, absent) for config in configs] for n in names}
    return [n for n, seen in spread.items() if any(v != seen[0] for v in seen)]


def _quantity(cell, key):
    if key not in cell.data:
        raise KeyError(f"no quantity {key!r}; the cell has {sorted(cell.data)}")
    return cell.data[key]
