"""Metrics, which compare samples with real data, and the extractors of their features."""
