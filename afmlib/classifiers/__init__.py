"""Classifiers of noised latents, one per file."""
