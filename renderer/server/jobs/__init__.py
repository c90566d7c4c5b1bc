"""The jobs of a server: in a folder, in a queue, drawn."""
