"""Depth repetition: deeper generators with the same parameters."""
