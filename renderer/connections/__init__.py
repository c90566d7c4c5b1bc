"""Connections to this program's HTTP servers: how many there are, and how long each may take."""
