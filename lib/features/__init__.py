"""
Random features for kernel approximation.

A shift-invariant kernel is an average of cosines over random frequencies; a few of
them give a feature map whose inner products approximate the kernel, and a linear
model on those features approximates the kernel machine.
"""

from lib.features.fourier import RandomFourierFeatures, rff_variance
from lib.features.kernels import (
    KERNELS,
    approximation_error,
    kernel_matrix,
    spectral_sample,
)
from lib.features.ridge import RandomFeatureRidge

__all__ = [
    "KERNELS",
    "RandomFeatureRidge",
    "RandomFourierFeatures",
    "approximation_error",
    "kernel_matrix",
    "rff_variance",
    "spectral_sample",
]
