"""The two data sets that need no network.

``digits`` is scikit-learn's copy of the UCI optical digits. ``fashion-mini`` is a
class-balanced part of Fashion-MNIST that lies beside this file.
"""

import hashlib
import io
import json
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
TEST_PER_DIGIT = 50


def read_digits(split):
    """Split scikit-learn's digits, 500 for testing and 1,297 for training.

    All 1,797 images are shuffled with ``numpy.random.RandomState(0)``, whose
    stream NumPy has frozen; the first 50 of every class are the test set and the
    others, in shuffled order, the training set.

    Parameters
    ----------
    split : {"train", "test"}
        The part wanted.

    Returns
    -------
    X : ndarray of shape (n, 1, 8, 8), uint8
        Grey levels 0 to 16.
    y : ndarray of shape (n,), int64
        The digit.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.RandomState(0).permutation(len(bunch.target))
    X = bunch.images[order].astype(np.uint8)[:, None]
    y = bunch.target[order].astype(np.int64)
    test = np.zeros(len(y), dtype=bool)
    for digit in range(10):
        test[np.flatnonzero(y == digit)[:TEST_PER_DIGIT]] = True
    rows = test if split == "test" else ~test
    return X[rows], y[rows]


def read_embedded(name, split):
    """Read a data set that lies in this package, after checking its hash.

    Parameters
    ----------
    name : str
        The data set, a key of ``manifest.json``.
    split : {"train", "test"}
        The part wanted.

    Returns
    -------
    X : ndarray of shape (n, 1, height, width), uint8
        Grey levels 0 to 255.
    y : ndarray of shape (n,), int64
        The class.

    Raises
    ------
    RuntimeError
        If the file's SHA-256 is not the one in the manifest.
    """
    entry = json.loads((FOLDER / "manifest.json").read_text())[name]
    path = FOLDER / entry["file"]
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != entry["sha256"]:
        raise RuntimeError(
            f"{path} is damaged: its SHA-256 is {found}, the manifest says "
            f"{entry['sha256']}; install optml-replicated again"
        )
    with np.load(io.BytesIO(content)) as arrays:
        X, y = arrays[f"X_{split}"], arrays[f"y_{split}"]
    return X[:, None], y.astype(np.int64)
