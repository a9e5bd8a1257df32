"""
Training as a game: fields, spectra, optimizers, generative adversarial networks.

Every player minimises its own loss. What converges is decided by the spectrum of the
game's Jacobian, and the optimizers of this wing differ in what they do to it.
"""

import importlib

# Public name -> its module. Loaded when first used, so that importing the wing loads
# no torch.
_HOME = {
    # dynamics and spectra
    "BilinearGame": "dynamics",
    "DiracGAN": "dynamics",
    "Game": "dynamics",
    "QuadraticGame": "dynamics",
    "Trajectory": "dynamics",
    "module_game": "dynamics",
    "simulate": "dynamics",
    "gd_step_bound": "spectra",
    "negative_momentum_interval": "spectra",
    "operator_matrix": "spectra",
    "optimal_momentum": "spectra",
    "spectral_radius": "spectra",
    # optimizers
    "ConsensusOptimizer": "optim",
    "ExtraAdam": "optim",
    "ExtraSGD": "optim",
    "MomentumSGD": "optim",
    "OGDA": "optim",
    "OptimisticAdam": "optim",
    "SignedMomentumAdam": "optim",
    # networks, training, measuring
    "DCGANDiscriminator": "models",
    "DCGANGenerator": "models",
    "MLPDiscriminator": "models",
    "MLPGenerator": "models",
    "digits_networks": "models",
    "ring_networks": "models",
    "GANTrainer": "train",
    "History": "train",
    "gan_losses": "train",
    "PRDC": "metrics",
    "ClassifierScorer": "metrics",
    "fid": "metrics",
    "inception_score": "metrics",
    "inception_v3": "metrics",
    "kid": "metrics",
    "mode_coverage": "metrics",
    "nearest_mode": "metrics",
    "prdc": "metrics",
    "STACKED_METHODS": "stacked",
    "StackedGAN": "stacked",
    "StackedRun": "stacked",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_HOME])
