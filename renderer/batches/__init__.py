"""Many pictures on workers that stay warm."""
