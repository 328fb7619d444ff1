"""Flower strategies and the ServerApp: the server's side of a federation."""
