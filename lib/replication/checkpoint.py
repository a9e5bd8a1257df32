"""States of unfinished cells, from which a run that was cut off goes on.

The runner names a folder; experiments whose cells take minutes save into it. A state
is of one version of the code, and not part of any result.
"""

import contextlib
import hashlib
import os
import time

_folder, _code = None, ""


@contextlib.contextmanager
def folder(path, code):
    """
    Keep the states of everything that runs in this block in a folder.

    Parameters
    ----------
    path : Path
        The folder; it is made when a state is saved.
    code : str
        Hash of the code that runs: a state of other code is never read.

    Yields
    ------
    None
        Nothing.
    """
    global _folder, _code
    before = _folder, _code
    _folder, _code = path, code
    try:
        yield
    finally:
        _folder, _code = before


class Checkpoint:
    """
    The state of one long computation; outside `folder` it does nothing.

    Parameters
    ----------
    *key : object
        What tells this computation from others; its ``repr`` counts.
    seconds : float
        Least time between two saves.
    """

    def __init__(self, *key, seconds=90.0):
        self.path = None
        self.seconds, self.last = seconds, time.monotonic()
        if _folder is not None:
            name = hashlib.sha256(repr((_code, key)).encode()).hexdigest()[:20]
            self.path = _folder / f"{name}.state"

    def load(self):
        """
        Read what was saved last.

        Returns
        -------
        object or None
            The state, None if there is none.
        """
        import torch

        if self.path is None or not self.path.is_file():
            return None
        return torch.load(self.path, weights_only=False)

    def save(self, state):
        """
        Write a state, unless the last one is young.

        Parameters
        ----------
        state : callable
            Returns the state: numbers, arrays and tensors in lists and dicts.
        """
        import torch

        if self.path is None or time.monotonic() - self.last < self.seconds:
            return  # before the state is made: that may cost a copy of everything
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scrap = self.path.with_suffix(".tmp")
        torch.save(state(), scrap)
        os.replace(scrap, self.path)
        self.last = time.monotonic()

    def clear(self):
        """Remove what was saved."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
