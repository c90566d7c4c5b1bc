"""Where it is drawn: bands, ranks and fleets; knows nothing of diffusion."""
