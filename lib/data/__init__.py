"""Data sets, each as one pair of arrays.

``load`` returns images as float32 in [0, 1] and labels as int64. Two sets come
with the package, three are read from a folder or downloaded once, and any folder
of class folders of images can take their place.
"""

from lib.data.sources import DataNotFoundError, describe, load, sha256

__all__ = ["DataNotFoundError", "describe", "load", "sha256"]
