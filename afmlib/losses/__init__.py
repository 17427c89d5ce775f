"""Losses: one per file, one value per sample."""
