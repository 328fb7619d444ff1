"""Scenarios, preprocessing and partitions: what a client's rows are."""
