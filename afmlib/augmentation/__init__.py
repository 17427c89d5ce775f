"""Differentiable augmentations of real and generated samples."""
