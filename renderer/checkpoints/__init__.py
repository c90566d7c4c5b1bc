"""A checkpoint on disk: found, described, its files checked; nothing is loaded."""
