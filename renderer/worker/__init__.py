"""What one rank does: the shard and its tools."""
