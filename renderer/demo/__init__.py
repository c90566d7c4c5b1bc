"""The demo model: procedural posters, their oracle and the training."""
