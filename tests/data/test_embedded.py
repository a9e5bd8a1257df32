"""The data sets that come with the package: what they hold, and that it is intact."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lib.data import describe, embedded, load, make_fashion_mini, sha256

ORIGINALS = Path("/usr/share/datasets/fashion-mnist")
HASHES = {
    ("digits", "train"): "e1402f53229c",
    ("digits", "test"): "d0470c20e557",
    ("fashion-mini", "train"): "e4023e7831ef",
    ("fashion-mini", "test"): "4afaac7fd5e2",
}


@pytest.mark.parametrize(
    ("name", "split", "shape"),
    [
        ("digits", "train", (1297, 1, 8, 8)),
        ("digits", "test", (500, 1, 8, 8)),
        ("fashion-mini", "train", (4000, 1, 28, 28)),
        ("fashion-mini", "test", (1000, 1, 28, 28)),
    ],
)
def test_shapes_ranges_and_hashes(name, split, shape):
    X, y = load(name, split)
    assert X.shape == shape
    assert (X.dtype, y.dtype) == (np.float32, np.int64)
    assert (X.min(), X.max()) == (0.0, 1.0)
    assert sha256(name, split).startswith(HASHES[name, split])
    assert describe(name, split)["note"] == "embedded"
    np.testing.assert_array_equal(
        load(name, split, flatten=True)[0], X.reshape(len(y), -1)
    )


def test_classes_are_balanced():
    np.testing.assert_array_equal(np.bincount(load("digits", "test")[1]), [50] * 10)
    np.testing.assert_array_equal(np.bincount(load("fashion-mini")[1]), [400] * 10)
    np.testing.assert_array_equal(
        np.bincount(load("fashion-mini", "test")[1]), [100] * 10
    )


@pytest.mark.parametrize("name", ["digits", "fashion-mini"])
def test_no_image_is_in_both_parts(name):
    train, test = (load(name, split, flatten=True)[0] for split in ("train", "test"))
    assert not {row.tobytes() for row in train} & {row.tobytes() for row in test}


def test_the_parts_of_digits_are_all_of_scikit_learns():
    from sklearn.datasets import load_digits

    parts = [load("digits", split, flatten=True) for split in ("train", "test")]
    ours = np.vstack([np.column_stack([16 * X, y]) for X, y in parts])
    bunch = load_digits()
    theirs = np.column_stack([bunch.data, bunch.target])
    np.testing.assert_array_equal(
        ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)]
    )


def test_labels_belong_to_their_images():
    # The nearest training image has the same label far more often than by chance.
    for name, least in (("digits", 0.95), ("fashion-mini", 0.7)):
        X, y = load(name, flatten=True)
        T, t = load(name, "test", flatten=True)
        distance = (X**2).sum(1) - 2 * T @ X.T
        assert np.mean(y[distance.argmin(1)] == t) > least


@pytest.mark.parametrize("damage", ["one byte", "cut short"])
def test_damaged_file_is_refused_by_name(tmp_path, monkeypatch, damage):
    for file in ("fashion-mini.npz", "manifest.json"):
        shutil.copy(embedded.FOLDER / file, tmp_path)
    monkeypatch.setattr(embedded, "FOLDER", tmp_path)
    load("fashion-mini")
    path = tmp_path / "fashion-mini.npz"
    content = bytearray(path.read_bytes())
    if damage == "one byte":
        content[len(content) // 2] ^= 1
    else:
        del content[-1000:]
    path.write_bytes(content)
    with pytest.raises(RuntimeError, match=r"fashion-mini\.npz is damaged.*SHA-256"):
        load("fashion-mini")


@pytest.mark.skipif(
    not ORIGINALS.is_dir(), reason="Debian's package dataset-fashion-mnist is missing"
)
def test_fashion_mini_is_what_its_script_makes(tmp_path):
    make_fashion_mini.make(ORIGINALS, tmp_path)
    made, kept = (np.load(f / "fashion-mini.npz") for f in (tmp_path, embedded.FOLDER))
    assert set(made) == set(kept)
    for key in made:
        np.testing.assert_array_equal(made[key], kept[key])


def test_the_first_of_each_class_are_kept_in_order():
    images = np.arange(8)[:, None, None] * np.ones((8, 2, 2), int)
    X, y = make_fashion_mini.select(images, np.array([1, 1, 0, 1, 0, 0, 1, 0]), 2)
    np.testing.assert_array_equal(X[:, 0, 0], [0, 1, 2, 4])
    np.testing.assert_array_equal(y, [1, 1, 0, 0])


def test_licence_lies_beside_the_file():
    assert "2017 Zalando SE" in (embedded.FOLDER / "LICENSE-fashion-mini").read_text()
    assert set(json.loads((embedded.FOLDER / "manifest.json").read_text())) == {
        "fashion-mini"
    }
