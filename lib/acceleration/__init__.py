"""
Accelerated methods for non-convex optimisation.

Minimisers that find second-order stationary points and count every call of an oracle,
optimizers with momentum for torch, and the linearised networks on which the rate of
momentum can be predicted.
"""

import importlib

# Public name -> its module. Loaded when first used, so that importing the wing
# loads neither torch nor anything that only one module needs.
_HOME = {
    # the front door, its oracle, and the pieces of the accelerated non-convex method
    "METHODS": "nonconvex",
    "minimize_nonconvex": "nonconvex",
    "Curvature": "oracle",
    "Oracle": "oracle",
    "hvp_operator": "curvature",
    "lanczos_iterations": "curvature",
    "lanczos_min_eig": "curvature",
    "accelerated_gradient_descent": "gradient",
    "almost_convex_agd": "almost_convex",
    "negative_curvature_descent": "almost_convex",
    "biweight": "testfunctions",
    "lower_bound_chain": "testfunctions",
    "matrix_factorization": "testfunctions",
    "phase_retrieval": "testfunctions",
    "ramp": "testfunctions",
    "saddle_staircase": "testfunctions",
    "cubic_step": "cubic",
    # momentum and linearised networks
    "HeavyBall": "momentum",
    "NesterovConst": "momentum",
    "PerturbedAGD": "momentum",
    "heavy_ball_rate": "momentum",
    "polyak_parameters": "momentum",
    "DeepLinear": "linearized",
    "WideReLU": "linearized",
    "deep_linear_ntk": "linearized",
    "relu_gram": "linearized",
    # finite sums and factored density matrices
    "FiniteSum": "finite_sum",
    "katyusha": "finite_sum",
    "katyusha_parameters": "finite_sum",
    "svrg": "finite_sum",
    "PauliMeasurements": "factored",
    "fidelity": "factored",
    "mifgd": "factored",
    "pauli_matrix": "factored",
    "quantum_state": "factored",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_HOME])
