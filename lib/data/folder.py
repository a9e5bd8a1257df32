"""Images in class folders, on disk or inside a tar archive."""

import io
import tarfile
from pathlib import Path, PurePosixPath

import numpy as np

SUFFIXES = frozenset(".bmp .gif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split())
GREY, COLOUR = ("1", "L"), ("P", "RGB", "RGBA", "LA", "CMYK", "YCbCr")


def read_folder(path, split, order="class"):
    """Read a folder of class folders.

    Parameters
    ----------
    path : str or Path
        A folder ``<class>/<image>``, or ``train|test/<class>/<image>``. A folder
        without ``train`` and ``test`` is a training set.
    split : {"train", "test"}
        The part wanted.
    order : {"class", "file"}
        Sort by class and then by file name, or the other way round.

    Returns
    -------
    X : ndarray of shape (n, channels, height, width), uint8
        The images; one channel if all are grey, else three.
    y : ndarray of shape (n,), int64
        Index of the class in the sorted names.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, no such part or no image.
    ValueError
        If an image cannot be read, is not 8 bits deep or has another size.
    """
    classes, base = layout(path, split)
    files = [
        (name, file)
        for name in classes
        if (base / name).is_dir()
        for file in (base / name).iterdir()
        if is_image(file)
    ]
    entries = [(name, file.name, str(file), file.read_bytes()) for name, file in files]
    return decode(entries, classes, order, base)


def read_archive(path, split, order="class"):
    """Read ``train|test/<class>/<image>`` from a tar archive, without unpacking it.

    Parameters
    ----------
    path : str or Path
        The archive, compressed or not.
    split : {"train", "test"}
        The part wanted.
    order : {"class", "file"}
        Sort by class and then by file name, or the other way round.

    Returns
    -------
    X : ndarray of shape (n, channels, height, width), uint8
        The images; one channel if all are grey, else three.
    y : ndarray of shape (n,), int64
        Index of the class in the sorted names.

    Raises
    ------
    FileNotFoundError
        If there is no image of this part.
    ValueError
        If an image cannot be read, is not 8 bits deep or has another size.
    """
    entries, classes = [], set()
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            inside = PurePosixPath(member.name)
            if not (member.isfile() and is_image(inside) and len(inside.parts) > 2):
                continue
            part, name, file = inside.parts[-3:]
            classes.add(name)
            if part == split:
                content = archive.extractfile(member).read()
                entries.append((name, file, f"{path}:{inside}", content))
    return decode(entries, sorted(classes), order, path)


def layout(path, split):
    """Find the class names of a folder and where one part of it lies.

    Parameters
    ----------
    path : str or Path
        The folder.
    split : {"train", "test"}
        The part wanted.

    Returns
    -------
    classes : list of str
        Sorted names of the class folders, those of both parts together.
    base : Path
        The folder that holds the class folders of this part.

    Raises
    ------
    FileNotFoundError
        If there is no such folder or part.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    parts = [path / part for part in ("train", "test") if (path / part).is_dir()]
    base = path / split if parts else path
    if (parts and base not in parts) or (not parts and split == "test"):
        raise FileNotFoundError(f"{path} has no {split}/<class>/<image>")
    folders = [f for part in parts or [path] for f in part.iterdir() if f.is_dir()]
    return sorted({f.name for f in folders if not f.name.startswith(".")}), base


def is_image(path):
    """Say whether a file is an image by its name; hidden files are not.

    Parameters
    ----------
    path : PurePath
        The file.

    Returns
    -------
    bool
        Whether it is.
    """
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def decode(entries, classes, order, where):
    """Decode images into one array.

    Parameters
    ----------
    entries : list of tuple
        Class name, file name, a name for messages and the bytes of each image.
    classes : list of str
        Sorted class names.
    order : {"class", "file"}
        Sort by class and then by file name, or the other way round.
    where : str or Path
        What was read, for messages.

    Returns
    -------
    X : ndarray of shape (n, channels, height, width), uint8
        The images; one channel if all are grey, else three.
    y : ndarray of shape (n,), int64
        Index of the class.
    """
    if not entries:
        raise FileNotFoundError(
            f"no image in the class folders of {where}; image files end in "
            f"{' '.join(sorted(SUFFIXES))}"
        )
    entries.sort(key=lambda e: e[:2] if order == "class" else (e[1], e[0]))
    images = [pixels(content, name) for _, _, name, content in entries]
    for (_, _, name, _), image in zip(entries, images, strict=True):
        if image.shape[:2] != images[0].shape[:2]:
            raise ValueError(
                f"all images must have one size: {name} is {size(image)}, "
                f"{entries[0][2]} is {size(images[0])}"
            )
    if any(image.ndim == 3 for image in images):
        images = [
            image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
            for image in images
        ]
        X = np.stack(images).transpose(0, 3, 1, 2)
    else:
        X = np.stack(images)[:, None]
    y = np.array([classes.index(name) for name, *_ in entries], dtype=np.int64)
    return np.ascontiguousarray(X), y


def pixels(content, name):
    """Decode one image.

    Parameters
    ----------
    content : bytes
        The file.
    name : str
        Its name, for messages.

    Returns
    -------
    ndarray of shape (height, width) or (height, width, 3), uint8
        Grey levels, or red, green and blue (transparency is dropped).
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{name} is not an image that can be read") from error
    if image.mode not in GREY + COLOUR:
        raise ValueError(
            f"{name} has mode {image.mode}; only 8 bits a channel are read, "
            "anything else would lose values"
        )
    return np.asarray(image.convert("L" if image.mode in GREY else "RGB"))


def size(image):
    """Write an image's size as width x height.

    Parameters
    ----------
    image : ndarray
        The image.

    Returns
    -------
    str
        For example ``"28 x 28"``.
    """
    return f"{image.shape[1]} x {image.shape[0]}"
