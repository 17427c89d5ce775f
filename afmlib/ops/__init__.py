"""Tensor math without trained parameters."""
