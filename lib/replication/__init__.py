"""
Experiments, their stored results, and the verdicts on what was claimed.

``python -m lib.replication list | run | verify | table``.
"""

import hashlib
import json

import numpy as np

from .registry import (
    Claim,
    Erratum,
    Experiment,
    RegistryError,
    claims,
    errata,
)
from .results import Cell, MissingCells, Results
from .runner import live
from .store import load, save_benchmark
from .tables import (
    chapter_status,
    claims_table,
    scoreboard,
    stored_verdict,
    verdict,
)
from .verdicts import Verdict, interval

__all__ = [
    "Cell",
    "Claim",
    "Erratum",
    "Experiment",
    "MissingCells",
    "RegistryError",
    "Results",
    "Verdict",
    "chapter_status",
    "claims",
    "claims_table",
    "errata",
    "interval",
    "live",
    "load",
    "save_benchmark",
    "scoreboard",
    "seed_sequence",
    "stored_verdict",
    "verdict",
]


def seed_sequence(*axes, seed):
    """
    Derive random numbers from named axes.

    Methods that are compared leave their own name out of the axes, and so share data
    or initialisation. The value depends on nothing but the arguments.

    Parameters
    ----------
    *axes : str, int or float
        What the stream is for, such as ``"data", "mnist"``.
    seed : int
        Seed of the cell.

    Returns
    -------
    numpy.random.SeedSequence
        For ``numpy.random.default_rng``, or ``.generate_state(1)[0]`` as an integer.

    Examples
    --------
    >>> import numpy as np
    >>> a = np.random.default_rng(seed_sequence("data", "mnist", seed=0))
    >>> b = np.random.default_rng(seed_sequence("data", "mnist", seed=0))
    >>> bool(a.random() == b.random())
    True
    """
    plain = [a.item() if isinstance(a, np.generic) else a for a in (*axes, seed)]
    for axis in plain:
        if not isinstance(axis, str | int | float) and axis is not None:
            raise TypeError(f"an axis is a string or a number, got {axis!r}")
    digest = hashlib.sha256(json.dumps(plain).encode()).digest()
    return np.random.SeedSequence(int.from_bytes(digest[:16], "big"))
