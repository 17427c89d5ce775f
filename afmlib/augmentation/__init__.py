"""Augmentations of real and generated samples."""
