"""A spec becomes a plan, or is refused with what would work."""
