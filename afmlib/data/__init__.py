"""Datasets: stored samples by index, and their random part drawn separately."""
