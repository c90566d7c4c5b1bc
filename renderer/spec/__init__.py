"""What is asked for: one frozen record, presets, options of a method."""
