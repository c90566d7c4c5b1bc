"""Extrapolation methods: one file per published recipe."""
