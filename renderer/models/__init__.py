"""A checkpoint in memory: loaded, quantised, with LoRAs; and the contract of a family."""
