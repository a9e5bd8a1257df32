"""
Neural networks trained by convex optimisation, with certified duality gaps.

A two-layer network of any width with weight decay is a convex problem over neurons.
The solvers of this wing differ in how they answer one question: which neuron
correlates most with the residual? The answer also bounds how far a fit is from the
optimum.
"""

import importlib

# Public name -> its module. Loaded when first used, so that importing the wing loads
# neither scikit-learn nor torch.
_HOME = {
    # activation patterns and the inner maximisation
    "arrangement_bound": "arrangements",
    "count_arrangements": "arrangements",
    "enumerate_arrangements": "arrangements",
    "sample_arrangements": "arrangements",
    "LMO": "oracles",
    "LinearClassifier": "oracles",
    "project_cone": "oracles",
    "relu_lmo": "oracles",
    "weighted_linear_classifier": "oracles",
    # convex programs
    "ConvexReLUClassifier": "estimators",
    "ConvexReLURegressor": "estimators",
    "GatedReLUClassifier": "estimators",
    "GatedReLURegressor": "estimators",
    # one neuron at a time
    "ConvexNNRegressor": "incremental",
    "FrankWolfeNN": "incremental",
    # three layers
    "ThreeLayerSolution": "three_layer",
    "three_layer_program": "three_layer",
    # planted networks
    "Planted": "relaxation",
    "fit_planted": "relaxation",
    "modified_direction": "relaxation",
    "relaxed_loss": "relaxation",
    # formulas
    "Solution": "closed_form",
    "deep_linear": "closed_form",
    "deep_relu_rank_one": "closed_form",
    "deep_relu_whitened": "closed_form",
    "project_dual_ball": "closed_form",
    "two_layer_linear": "closed_form",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_HOME])
