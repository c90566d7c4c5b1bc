"""What the driver does: the loop over stages, steps and blocks, and recovery."""
