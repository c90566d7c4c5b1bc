"""What is asked for and cannot be drawn: refused before any work, with what would work."""
