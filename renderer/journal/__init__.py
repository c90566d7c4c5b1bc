"""What happened to a store, one event a line, in a file or a bucket."""
