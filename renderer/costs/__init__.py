"""What a render costs: operations, bytes between ranks, and seconds on devices of a kind."""
