"""Pixels as bytes that other programs read: rows of PNG, scans of JPEG, chunks of EXR, pages."""
