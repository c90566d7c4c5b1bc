"""Pixels as bytes that other programs read: rows of PNG, tiles of JPEG, objects of PDF."""
