"""Strategies: one file per way to spread a canvas."""
