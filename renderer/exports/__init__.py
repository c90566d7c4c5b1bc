"""Output formats: one file per format, each defines `check` and `export`."""
