"""Generators, discriminators, classifiers and depth wrappers."""
