"""Latents to pixels and back, on a band."""
