"""Output formats: one file per format, each defines `export`."""
