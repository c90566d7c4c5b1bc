"""Which colours numbers mean: ICC profiles, and pixels from one to another."""
