"""Objectives: what is trained, one per file, its difference only."""
