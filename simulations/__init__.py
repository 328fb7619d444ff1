"""Experiments on the simulation engine: settings, progress, and the folder that a run leaves."""
