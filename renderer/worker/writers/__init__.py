"""Rows of pixels and saved states, written on threads while a rank computes."""
