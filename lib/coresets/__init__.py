"""
Coreset selection: weighted subsets that stand in for all the data.

The methods of this wing differ in what the subset should preserve: the gradient of
every sample, the gradient of their sum, or the loss on held-out samples. All of them
see the samples through the gradients of the last layer, which are never materialised.
"""

import importlib

# Not lazy: it bears the name of its module, which would take its place.
from lib.coresets.facility_location import facility_location  # noqa: F401

# Public name -> its module. Loaded when first used, so that importing the wing loads
# neither scikit-learn nor torch.
_HOME = {
    # gradients
    "Gradients": "gradients",
    "all_layer_gradients": "gradients",
    "last_layer_gradients": "gradients",
    # selection
    "Coreset": "selectors",
    "craig": "selectors",
    "glister": "selectors",
    "glister_weighted": "selectors",
    "grad_match": "selectors",
    "k_center_greedy": "selectors",
    "random_coreset": "selectors",
    "facility_location": "facility_location",
    "omp_nonneg": "matching_pursuit",
    # quality
    "effective_sample_size": "metrics",
    "facility_cost": "metrics",
    "matching_error": "metrics",
    # networks
    "LeNet": "models",
    "MLP": "models",
    "ResNet18": "models",
    # training
    "CoresetSampler": "train",
    "History": "train",
    "STRATEGIES": "train",
    "Snapshot": "train",
    "fit_coreset": "train",
    "random_crop_flip": "train",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_HOME])
