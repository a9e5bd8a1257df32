"""Make ``fashion-mini.npz`` and its manifest from the four files of Fashion-MNIST.

The first 400 training and the first 100 test images of every class are kept, in
the order of the original files::

    python -m lib.data.make_fashion_mini FOLDER

FOLDER holds ``train-images-idx3-ubyte.gz`` and the other three, as they are
published and as Debian's package dataset-fashion-mnist installs them.
"""

import gzip
import hashlib
import json
import sys
from pathlib import Path

import numpy as np

PER_CLASS = {"train": 400, "test": 100}


def select(images, labels, per_class):
    """Keep the first images of every class, in their order.

    Parameters
    ----------
    images : ndarray of shape (n, height, width)
        All images.
    labels : ndarray of shape (n,)
        Their classes.
    per_class : int
        How many to keep of each.

    Returns
    -------
    images : ndarray of shape (n_kept, height, width)
        The images kept.
    labels : ndarray of shape (n_kept,)
        Their classes.
    """
    rows = [np.flatnonzero(labels == c)[:per_class] for c in np.unique(labels)]
    rows = np.sort(np.concatenate(rows))
    return images[rows], labels[rows]


def read_idx(path):
    """Read one gzipped IDX file of bytes.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    ndarray of uint8
        Its array.
    """
    content = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def make(source, target):
    """Write ``fashion-mini.npz`` and ``manifest.json``.

    Parameters
    ----------
    source : Path
        Folder of the four original files.
    target : Path
        Folder to write to.
    """
    arrays = {}
    for split, stem in (("train", "train"), ("test", "t10k")):
        arrays[f"X_{split}"], arrays[f"y_{split}"] = select(
            read_idx(source / f"{stem}-images-idx3-ubyte.gz"),
            read_idx(source / f"{stem}-labels-idx1-ubyte.gz"),
            PER_CLASS[split],
        )
    path = target / "fashion-mini.npz"
    np.savez_compressed(path, **arrays)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = {"fashion-mini": {"file": path.name, "sha256": digest}}
    (target / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    make(Path(sys.argv[1]), Path(__file__).parent)
