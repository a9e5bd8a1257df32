"""
Random features for kernel approximation.

A shift-invariant kernel is an average of cosines over random frequencies; a few of
them give a feature map whose inner products approximate the kernel, and a linear
model on those features approximates the kernel machine.
"""

from lib.features.fastfood import Fastfood
from lib.features.fourier import RandomFourierFeatures, rff_variance
from lib.features.hadamard import fwht, hadamard_matrix, pad_pow2
from lib.features.kernels import (
    KERNELS,
    approximation_error,
    kernel_matrix,
    spectral_sample,
)
from lib.features.kitchen_sinks import (
    RandomKitchenSinksClassifier,
    RandomKitchenSinksRegressor,
)
from lib.features.leverage import (
    LeverageScoreFeatures,
    effective_dimension,
    leverage_density,
)
from lib.features.ridge import RandomFeatureRidge

__all__ = [
    "KERNELS",
    "Fastfood",
    "LeverageScoreFeatures",
    "RandomFeatureRidge",
    "RandomFourierFeatures",
    "RandomKitchenSinksClassifier",
    "RandomKitchenSinksRegressor",
    "approximation_error",
    "effective_dimension",
    "fwht",
    "hadamard_matrix",
    "kernel_matrix",
    "leverage_density",
    "pad_pow2",
    "rff_variance",
    "spectral_sample",
]
