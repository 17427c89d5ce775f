"""Tensor maths without trained parameters."""
