"""Secure aggregation, free of any transport: client and server are state machines."""
