"""
Graphs learned from data: Laplacian-constrained graphical models and graphon priors.

The nodes' signals are Gaussian and their precision is a graph's Laplacian. The wing
estimates it, with or without a prior on its spectrum that a graphon gives.
"""

import importlib

# Public name -> its module. Loaded when first used, so that importing the wing loads
# neither scikit-learn nor torch.
_HOME = {
    # operators
    "edge_index": "operators",
    "laplacian": "operators",
    "laplacian_adjoint": "operators",
    "laplacian_gram": "operators",
    "laplacian_gram_solve": "operators",
    # graphons
    "GraphSample": "graphon",
    "Graphon": "graphon",
    "SpectralPrior": "graphon",
    "sample_gmrf": "graphon",
    # objectives and solvers
    "BatchFit": "batch",
    "duality_gap": "objective",
    "fit_batch": "batch",
    "kkt_residual": "objective",
    "spectral_objective": "objective",
    # estimators
    "LaplacianGraphicalLasso": "estimators",
    "SpectralGraphicalLasso": "spectral",
    "GraphicalLasso": "graphical_lasso",
    "JointSpectralGraphicalLasso": "joint",
    "SpectralTemplates": "templates",
    "graphical_lasso_path": "graphical_lasso",
    "template_eigenvectors": "templates",
    # measures
    "average_precision": "metrics",
    "f_score": "metrics",
    "relative_error": "metrics",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_HOME})
