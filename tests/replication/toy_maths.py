"""The mathematics that the toy experiments declare."""

import numpy as np


def walk(steps, scale, rng):
    """Return a random walk."""
    return scale * np.cumsum(rng.standard_normal(steps))
