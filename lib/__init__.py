"""The library of *Optimization for Machine Learning, Replicated*.

Sub-packages are imported when they are first used, so that ``import lib``
costs next to nothing and loads neither numpy nor torch.
"""

import importlib

__version__ = "0.1.0"
# No other package of this name has this marker; the chapters test for it.
__book__ = "Optimization for Machine Learning, Replicated"

_PARTS = (
    "acceleration",
    "convexnn",
    "data",
    "features",
    "games",
    "graphs",
    "plotting",
    "replication",
)
__all__ = ["__book__", "__version__", *_PARTS]


def __getattr__(name):
    if name in _PARTS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_PARTS])
