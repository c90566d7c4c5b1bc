"""What is asked for: one frozen record, and presets."""
