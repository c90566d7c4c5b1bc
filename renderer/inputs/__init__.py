"""Pictures and clips that users hand in."""
