"""Discriminators, one per file."""
