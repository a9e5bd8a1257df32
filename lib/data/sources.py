"""Names of data sets, where they are looked for, and the one way to load them.

``mnist``, ``fashion-mnist`` and ``cifar10`` are looked for in the folder named by
the environment variable ``OPTML_DATA``, then in the cache, and are downloaded to
the cache if they are in neither. The cache is ``$XDG_CACHE_HOME/optml-replicated``,
usually ``~/.cache/optml-replicated``. What may lie in either is in ``README.md``
beside this file.
"""

import hashlib
import os
import socket
import zipfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lib.data.embedded import read_digits, read_embedded
from lib.data.folder import read_archive, read_folder

SPLITS, BACKENDS = ("train", "test"), ("numpy", "torch")


class DataNotFoundError(FileNotFoundError):
    """A data set is neither here nor to be had; the message says what was tried."""


class Source(NamedTuple):
    """What is known of a data set before it is read."""

    source: str
    licence: str
    shape: tuple = ()
    torchvision: str = ""
    folder: str = ""
    top: int = 255


SOURCES = {
    "digits": Source(
        "UCI optical digits, E. Alpaydin and C. Kaynak 1998, from scikit-learn",
        "CC BY 4.0",
        top=16,
    ),
    "fashion-mini": Source(
        "the first 400 training and 100 test images of each class of Fashion-MNIST, "
        "H. Xiao, K. Rasul and R. Vollgraf 2017",
        "MIT, Zalando SE",
    ),
    "mnist": Source(
        "MNIST, Y. LeCun, C. Cortes and C. Burges 1998",
        "CC BY-SA 3.0",
        (1, 28, 28),
        "MNIST",
        "MNIST/raw",
    ),
    "fashion-mnist": Source(
        "Fashion-MNIST, H. Xiao, K. Rasul and R. Vollgraf 2017",
        "MIT, Zalando SE",
        (1, 28, 28),
        "FashionMNIST",
        "FashionMNIST/raw",
    ),
    "cifar10": Source(
        "CIFAR-10, A. Krizhevsky 2009",
        "none stated by its author",
        (3, 32, 32),
        "CIFAR10",
        "cifar-10-batches-py",
    ),
}


def load(name, split="train", *, flatten=False, backend="numpy"):
    """Load a data set.

    Parameters
    ----------
    name : str
        ``"digits"`` or ``"fashion-mini"``, which come with the package;
        ``"mnist"``, ``"fashion-mnist"`` or ``"cifar10"``, read from the folder
        ``OPTML_DATA`` or downloaded once; or ``"folder:<path>"`` for images in
        ``<path>/<class>/`` or ``<path>/train|test/<class>/``.
    split : {"train", "test"}, default="train"
        Which part.
    flatten : bool, default=False
        Whether each image becomes one row of pixels.
    backend : {"numpy", "torch"}, default="numpy"
        What kind of arrays to return; torch tensors lie on the CPU.

    Returns
    -------
    X : ndarray or Tensor of shape (n, channels, height, width) or (n, pixels)
        Images, float32 in [0, 1].
    y : ndarray or Tensor of shape (n,)
        Classes 0, 1, ..., int64.

    Raises
    ------
    ValueError
        If an argument is none of the values above.
    DataNotFoundError
        If the data are neither here nor can be downloaded.
    RuntimeError
        If a file is damaged.

    Examples
    --------
    >>> from lib.data import load
    >>> X, y = load("digits", "test")
    >>> X.shape, X.dtype, y.dtype
    ((500, 1, 8, 8), dtype('float32'), dtype('int64'))
    >>> load("fashion-mini", flatten=True)[0].shape
    (4000, 784)
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
    X, y = find(name, split)[1]()
    X = X.astype(np.float32)
    X /= SOURCES[name].top if name in SOURCES else 255
    if flatten:
        X = X.reshape(len(X), -1)
    if backend == "torch":
        import torch

        return torch.from_numpy(X), torch.from_numpy(y)
    return X, y


def sha256(name, split="train"):
    """Hash the pixels and labels that ``load`` reads.

    Parameters
    ----------
    name : str
        As for ``load``.
    split : {"train", "test"}, default="train"
        Which part.

    Returns
    -------
    str
        SHA-256 of the shape, the 8-bit pixels and the labels; the same for the same
        images in whatever files they lie.
    """
    X, y = find(name, split)[1]()
    digest = hashlib.sha256(repr(X.shape).encode())
    digest.update(np.ascontiguousarray(X))
    digest.update(y.astype("<i8"))
    return digest.hexdigest()


def describe(name, split="train"):
    """Say where a data set comes from, without reading it.

    Parameters
    ----------
    name : str
        As for ``load``.
    split : {"train", "test"}, default="train"
        Which part.

    Returns
    -------
    dict
        ``name``, ``split``, ``source``, ``licence`` and ``note``: the copy that
        ``load`` would read, for instance ``"JPEG copy"``.
    """
    note, _ = find(name, split)
    known = SOURCES.get(name, Source("a folder of images", "unknown"))
    return {
        "name": name,
        "split": split,
        "source": known.source,
        "licence": known.licence,
        "note": note,
    }


def find(name, split):
    """Find the copy of a data set that is to be read.

    Parameters
    ----------
    name : str
        As for ``load``.
    split : {"train", "test"}
        Which part.

    Returns
    -------
    note : str
        What kind of copy it is.
    read : callable
        Returns images of shape (n, channels, height, width), uint8, and labels.
    """
    is_folder = isinstance(name, str) and name.startswith("folder:")
    if not is_folder and name not in tuple(SOURCES):
        allowed = (*SOURCES, "folder:<path>")
        raise ValueError(f"name must be one of {allowed}, got {name!r}")
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    if is_folder:
        return "class folders", partial(read_folder, name[7:], split)
    if name == "digits":
        return "embedded", partial(read_digits, split)
    if name == "fashion-mini":
        return "embedded", partial(read_embedded, name, split)
    for root in roots():
        for note, path, read in copies(name, split, root):
            if path.exists() and note == "original" and root == cache():
                # torchvision completes a download that was cut off.
                return note, partial(download, name, split)
            if path.exists():
                return note, partial(refuse_damaged, read, path)
    return "download", partial(download, name, split)


def roots():
    """List the folders in which data sets are looked for.

    Returns
    -------
    list of Path
        ``OPTML_DATA`` if it is set, and the cache.
    """
    given = os.environ.get("OPTML_DATA")
    return [*([Path(given).expanduser()] if given else []), cache()]


def copies(name, split, root):
    """List the copies of a data set that a folder may hold, the best first.

    Parameters
    ----------
    name : {"mnist", "fashion-mnist", "cifar10"}
        The data set.
    split : {"train", "test"}
        Which part.
    root : Path
        The folder.

    Returns
    -------
    list of tuple
        What kind of copy it is, its path, and a function that reads it.
    """
    known = SOURCES[name]
    npz = root / f"{name}-{split}.npz"
    found = [
        ("npz", npz, partial(read_npz, npz, known.shape)),
        ("original", root / known.folder, partial(read_original, name, split, root)),
    ]
    if name == "cifar10":
        # JPEG is lossy, so these stand last, and results from them say so.
        # Ordered by file they hold all classes in any prefix, like the original.
        unpacked, note = root / "cifar10-jpeg", "JPEG copy"
        found += [(note, unpacked, partial(read_folder, unpacked, split, "file"))]
        for suffix in (".tar.xz", ".tar.gz", ".tar"):
            path = root / f"cifar10-jpeg{suffix}"
            found += [(note, path, partial(read_cifar_archive, path, split))]
    return found


def refuse_damaged(read, path):
    """Read a local copy and name the file if that fails.

    Parameters
    ----------
    read : callable
        Reads it.
    path : Path
        The file or folder.

    Returns
    -------
    tuple of ndarray
        Images and labels.
    """
    try:
        return read()
    except ImportError:
        raise
    except Exception as error:
        # On bad bytes the readers raise anything from AssertionError to zlib.error.
        raise RuntimeError(
            f"{path} cannot be read ({error}); it is damaged or incomplete: "
            "remove or replace it"
        ) from error


def read_npz(path, shape):
    """Read a compressed file with keys ``X`` (uint8) and ``y``.

    Parameters
    ----------
    path : Path
        The file.
    shape : tuple of int
        Channels, height, width.

    Returns
    -------
    tuple of ndarray
        Images and labels.
    """
    with np.load(path) as arrays:
        X, y = arrays["X"], arrays["y"]
    if X.dtype != np.uint8:
        raise ValueError(f"X must be uint8, got {X.dtype}")
    return X.reshape(len(y), *shape), y.astype(np.int64)


def read_original(name, split, root, download=False):
    """Read a data set in its published form through torchvision.

    Parameters
    ----------
    name : {"mnist", "fashion-mnist", "cifar10"}
        The data set.
    split : {"train", "test"}
        Which part.
    root : Path
        The folder that holds torchvision's folders.
    download : bool
        Whether to fetch what is missing.

    Returns
    -------
    tuple of ndarray
        Images and labels.
    """
    from torchvision import datasets

    kind = getattr(datasets, SOURCES[name].torchvision)
    data = kind(root, train=split == "train", download=download)
    X = np.asarray(data.data)
    X = X[:, None] if X.ndim == 3 else np.ascontiguousarray(X.transpose(0, 3, 1, 2))
    return X, np.asarray(data.targets, dtype=np.int64)


def read_cifar_archive(path, split):
    """Read the JPEG archive of CIFAR-10, from the second time on from the cache.

    Parameters
    ----------
    path : Path
        The archive.
    split : {"train", "test"}
        Which part.

    Returns
    -------
    tuple of ndarray
        Images and labels.
    """
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    decoded = cache() / f"cifar10-jpeg-{digest[:16]}-{split}.npz"
    try:
        return read_npz(decoded, SOURCES["cifar10"].shape)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        X, y = read_archive(path, split, "file")
    try:
        decoded.parent.mkdir(parents=True, exist_ok=True)
        part = decoded.with_suffix(f".{os.getpid()}.part")
        with part.open("wb") as file:
            np.savez(file, X=X, y=y)
        part.replace(decoded)
    except OSError:
        pass  # a cache that cannot be written costs time, nothing else
    return X, y


def download(name, split):
    """Fetch a data set into the cache, with torchvision's progress bar.

    Parameters
    ----------
    name : {"mnist", "fashion-mnist", "cifar10"}
        The data set.
    split : {"train", "test"}
        Which part.

    Returns
    -------
    tuple of ndarray
        Images and labels.
    """
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # torchvision itself would wait for ever
    try:
        return read_original(name, split, cache(), download=True)
    except Exception as error:
        raise DataNotFoundError(not_found(name, split, error)) from error
    finally:
        socket.setdefaulttimeout(patience)


def not_found(name, split, error):
    """Write what was tried and what can be done.

    Parameters
    ----------
    name : str
        The data set.
    split : str
        Which part.
    error : Exception
        What the download ended in.

    Returns
    -------
    str
        The message.
    """
    tried = [path for root in roots() for _, path, _ in copies(name, split, root)]
    return "\n".join(
        [
            f"the data set {name!r} is not here and could not be downloaded. Tried:",
            *(f"  {p}: {'incomplete' if p.exists() else 'not there'}" for p in tried),
            f"  download: {type(error).__name__}: {error}",
            f"Either run lib.data.load({name!r}) once with a network, or copy one of "
            "these to another folder and set the environment variable OPTML_DATA to "
            f"that folder (it is {os.environ.get('OPTML_DATA') or 'not set'}).",
        ]
    )


def cache():
    """Name the folder for downloaded and decoded data.

    Returns
    -------
    Path
        The folder; it need not exist.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "optml-replicated"
