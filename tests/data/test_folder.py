"""Class folders of images."""

import numpy as np
import pytest
from PIL import Image

from lib.data import load


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), np.uint8)


def test_grey_images_class_by_class(tmp_path, pixels):
    grey = pixels[..., 0]
    for i, where in enumerate(("b/1.png", "a/2.png", "b/0.bmp", "a/10.png")):
        save(tmp_path / where, grey[i])
    X, y = load(f"folder:{tmp_path}")
    assert X.dtype == np.float32
    np.testing.assert_array_equal(X[:, 0], grey[[3, 1, 2, 0]] / np.float32(255))
    np.testing.assert_array_equal(y, [0, 0, 1, 1])


def test_one_colour_image_makes_three_channels(tmp_path, pixels):
    save(tmp_path / "a" / "0.png", pixels[0])
    save(tmp_path / "b" / "0.png", pixels[1, :, :, 0])
    X, _ = load(f"folder:{tmp_path}")
    assert X.shape == (2, 3, 5, 4)
    np.testing.assert_array_equal(X[0] * 255, pixels[0].transpose(2, 0, 1))
    for channel in X[1]:
        np.testing.assert_array_equal(channel * 255, pixels[1, :, :, 0])


def test_parts_share_their_classes(tmp_path, pixels):
    save(tmp_path / "train" / "a" / "0.png", pixels[0])
    save(tmp_path / "train" / "b" / "0.png", pixels[1])
    save(tmp_path / "test" / "b" / "0.png", pixels[2])
    np.testing.assert_array_equal(load(f"folder:{tmp_path}")[1], [0, 1])
    X, y = load(f"folder:{tmp_path}", "test", flatten=True)
    np.testing.assert_array_equal(y, [1])
    assert X.shape == (1, 60)


def test_other_and_hidden_files_are_passed_over(tmp_path, pixels):
    save(tmp_path / "a" / "0.png", pixels[0])
    for stray in ("a/notes.txt", "a/.hidden.png", ".git/0.png", "README.md"):
        (tmp_path / stray).parent.mkdir(exist_ok=True)
        (tmp_path / stray).write_text("no image")
    X, y = load(f"folder:{tmp_path}")
    assert (len(X), list(y)) == (1, [0])


def test_two_sizes_are_refused_by_name(tmp_path, pixels):
    save(tmp_path / "a" / "0.png", pixels[0])
    save(tmp_path / "a" / "1.png", pixels[0, :-1])
    with pytest.raises(ValueError, match=r"1\.png is 4 x 4, .*0\.png is 4 x 5"):
        load(f"folder:{tmp_path}")


def test_sixteen_bits_are_refused(tmp_path, pixels):
    save(tmp_path / "a" / "0.png", pixels[0, :, :, 0].astype(np.uint16) * 256)
    with pytest.raises(ValueError, match=r"0\.png has mode I;16"):
        load(f"folder:{tmp_path}")


@pytest.mark.parametrize("keep", [0, 50])
def test_broken_image_is_named(tmp_path, pixels, keep):
    save(tmp_path / "a" / "0.png", pixels[0])
    path = tmp_path / "a" / "0.png"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"0\.png is not an image"):
        load(f"folder:{tmp_path}")


def test_nothing_there(tmp_path, pixels):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load(f"folder:{tmp_path / 'nowhere'}")
    with pytest.raises(FileNotFoundError, match="no image in the class folders"):
        load(f"folder:{tmp_path}")
    save(tmp_path / "a" / "0.png", pixels[0])
    with pytest.raises(FileNotFoundError, match="has no test/<class>"):
        load(f"folder:{tmp_path}", "test")
