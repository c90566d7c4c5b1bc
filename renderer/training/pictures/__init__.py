"""The pictures that a decoder learns from: found, had in parts, and their latents."""
