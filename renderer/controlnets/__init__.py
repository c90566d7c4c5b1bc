"""ControlNets in memory: loaded, and what they add to the network that they guide."""
