"""Noise levels and solvers: mathematics without files, models or ranks."""
