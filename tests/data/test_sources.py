"""Where data sets are looked for, and what is said when they are not there."""

import hashlib
import pickle
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from lib.data import DataNotFoundError, describe, load, sha256


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """An empty cache, no OPTML_DATA, and a network that is down."""

    def refuse(*args, **kwargs):
        raise OSError("the network is down")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("OPTML_DATA", raising=False)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    return tmp_path / "cache" / "optml-replicated"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder that OPTML_DATA names."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("OPTML_DATA", str(folder))
    return folder


def write_idx(folder, X, y, stems=("train", "t10k")):
    """Write images and labels the way MNIST is published."""
    folder.mkdir(parents=True)
    for stem in stems:
        for kind, array in (("images-idx3", X), ("labels-idx1", y)):
            head = bytes([0, 0, 8, array.ndim])
            shape = np.array(array.shape, ">i4").tobytes()
            path = folder / f"{stem}-{kind}-ubyte"
            path.write_bytes(head + shape + array.astype(np.uint8).tobytes())


def images(n, *shape):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, *shape), np.uint8), np.arange(n) % 3


@pytest.mark.parametrize(
    ("name", "folder"),
    [("mnist", "MNIST/raw"), ("fashion-mnist", "FashionMNIST/raw")],
)
def test_idx_files(here, name, folder):
    pixels, labels = images(7, 28, 28)
    write_idx(here / folder, pixels, labels)
    X, y = load(name)
    np.testing.assert_array_equal(X, pixels[:, None] / np.float32(255))
    np.testing.assert_array_equal(y, labels)
    assert (X.dtype, y.dtype) == (np.float32, np.int64)
    assert load(name, "test", flatten=True)[0].shape == (7, 784)
    assert describe(name)["note"] == "original"


def test_cifar_batches(here, monkeypatch):
    folder = here / "cifar-10-batches-py"
    folder.mkdir()
    pixels, labels = images(4, 3, 32, 32)
    files = {
        "data_batch_1": {"data": pixels.reshape(4, -1), "labels": labels.tolist()},
        "test_batch": {"data": pixels[:2].reshape(2, -1), "labels": [5, 6]},
        "batches.meta": {"label_names": list("abc")},
    }
    md5 = {}
    for name, content in files.items():
        (folder / name).write_bytes(pickle.dumps(content))
        md5[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    one = [["data_batch_1", md5["data_batch_1"]]]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", one)
    two = [["test_batch", md5["test_batch"]]]
    monkeypatch.setattr(datasets.CIFAR10, "test_list", two)
    meta = {**datasets.CIFAR10.meta, "md5": md5["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    X, y = load("cifar10")
    np.testing.assert_array_equal(X, pixels / np.float32(255))
    np.testing.assert_array_equal(y, labels)
    np.testing.assert_array_equal(load("cifar10", "test")[1], [5, 6])


def write_jpegs(root):
    """Grey levels 0, 10, ... by class and number; JPEG keeps flat images."""
    for c, name in enumerate(("ant", "bee")):
        for number in range(3):
            for split, shift in (("train", 0), ("test", 100)):
                path = root / split / name / f"{number:04}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                level = shift + 50 * c + 10 * number
                Image.new("RGB", (32, 32), (level,) * 3).save(path)


@pytest.mark.parametrize("form", ["folder", ".tar.xz", ".tar.gz", ".tar"])
def test_cifar_as_jpeg(here, tmp_path, offline, form):
    root = (here if form == "folder" else tmp_path) / "cifar10-jpeg"
    write_jpegs(root)
    if form != "folder":
        archive = here / f"cifar10-jpeg{form}"
        with tarfile.open(archive, f"w:{form[5:]}") as tar:
            tar.add(root, ".")
    for split, shift in (("train", 0), ("test", 100)):
        X, y = load("cifar10", split)
        # Numbers first: any prefix holds all classes.
        np.testing.assert_array_equal(y, [0, 1] * 3)
        levels = shift + np.array([0, 50, 10, 60, 20, 70])
        np.testing.assert_allclose(255 * X.mean((1, 2, 3)), levels, atol=1.01)
        assert X.shape == (6, 3, 32, 32)
        assert describe("cifar10", split)["note"] == "JPEG copy"
    if form != "folder":
        assert len(list(offline.glob("cifar10-jpeg-*.npz"))) == 2
        first = sha256("cifar10")
        for path in offline.iterdir():
            path.write_bytes(b"damaged")
        assert sha256("cifar10") == first


def test_a_changed_archive_is_decoded_anew(here, tmp_path):
    archive, seen = here / "cifar10-jpeg.tar", set()
    for number in range(2):
        root = tmp_path / f"version{number}"
        write_jpegs(root)
        if number:
            Image.new("RGB", (32, 32), "red").save(root / "train" / "ant" / "0000.jpg")
        with tarfile.open(archive, "w") as tar:
            tar.add(root, ".")
        seen.add(sha256("cifar10"))
    assert len(seen) == 2


@pytest.mark.parametrize("shape", [(28, 28), (1, 28, 28), (784,)])
def test_npz(here, shape):
    pixels, labels = images(5, 28, 28)
    np.savez_compressed(
        here / "mnist-test.npz", X=pixels.reshape(5, *shape), y=labels.astype(np.uint8)
    )
    X, y = load("mnist", "test")
    np.testing.assert_array_equal(X[:, 0], pixels / np.float32(255))
    np.testing.assert_array_equal(y, labels)
    assert describe("mnist", "test")["note"] == "npz"


def test_the_hash_is_of_the_data_not_of_the_files(here):
    pixels, labels = images(5, 28, 28)
    write_idx(here / "MNIST" / "raw", pixels, labels)
    from_idx = sha256("mnist")
    np.savez(here / "mnist-train.npz", X=pixels, y=labels)
    assert describe("mnist")["note"] == "npz"
    assert sha256("mnist") == from_idx
    np.savez(here / "mnist-train.npz", X=pixels, y=labels[::-1])
    assert sha256("mnist") != from_idx


@pytest.mark.parametrize("content", [b"", b"\x00\x00\x08\x03\x00\x00\x00\x07"])
def test_damaged_local_files_are_named(here, content):
    pixels, labels = images(7, 28, 28)
    write_idx(here / "MNIST" / "raw", pixels, labels)
    (here / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(RuntimeError, match="MNIST/raw cannot be read.*damaged"):
        load("mnist")


def test_npz_of_floats_is_refused(here):
    np.savez(here / "mnist-train.npz", X=np.zeros((2, 28, 28)), y=[0, 1])
    with pytest.raises(RuntimeError, match="mnist-train.npz.*uint8, got float64"):
        load("mnist")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_missing_and_offline(offline, here, name):
    with pytest.raises(DataNotFoundError) as info:
        load(name)
    message = str(info.value)
    assert isinstance(info.value, FileNotFoundError)
    for told in (name, str(here), str(offline), "network is down", "OPTML_DATA"):
        assert told in message
    assert f"{here / name}-train.npz: not there" in message


def test_missing_and_offline_without_the_variable(offline):
    with pytest.raises(DataNotFoundError, match=r"OPTML_DATA .*\(it is not set\)"):
        load("mnist")


def test_download_goes_to_the_cache_and_is_used_again(offline, monkeypatch):
    pixels, labels = images(7, 28, 28)

    def arrive(self):
        if not self._check_exists():
            write_idx(offline / "MNIST" / "raw", pixels, labels)

    assert describe("mnist")["note"] == "download"
    with monkeypatch.context() as patch:
        patch.setattr(datasets.MNIST, "download", arrive)
        first = load("mnist")[0]
    assert describe("mnist")["note"] == "original"
    np.testing.assert_array_equal(load("mnist")[0], first)


def test_download_cut_off_is_taken_up_again(offline):
    write_idx(offline / "MNIST" / "raw", *images(7, 28, 28), stems=["train"])
    with pytest.raises(DataNotFoundError, match="MNIST/raw: incomplete"):
        load("mnist")


def test_torch_backend():
    X, y = load("digits", "test", backend="torch", flatten=True)
    assert (X.dtype, y.dtype) == (torch.float32, torch.int64)
    np.testing.assert_array_equal(X.numpy(), load("digits", "test", flatten=True)[0])


def test_arrays_are_the_callers_own():
    X, y = load("fashion-mini", "test")
    X[:], y[:] = 0, 0
    again = load("fashion-mini", "test")
    assert again[0].max() == 1
    assert again[1].max() == 9


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"name": "imagenet"}, "name must be one of .*'digits'.*folder:.*'imagenet'"),
        ({"name": ["digits"]}, "name must be one of"),
        ({"name": "digits", "split": "val"}, "split must be one of .*'train'.*'val'"),
        ({"name": "digits", "backend": "jax"}, "backend must be one of .*'jax'"),
    ],
)
def test_bad_arguments_list_what_is_allowed(arguments, match):
    with pytest.raises(ValueError, match=match):
        load(**arguments)
