"""What a person at a terminal reads and presses: progress, error lines, Ctrl-C."""
