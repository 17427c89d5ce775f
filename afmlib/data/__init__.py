"""Datasets: samples by index, with what is random about them apart."""
