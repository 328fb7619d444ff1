"""Differential privacy: clipping, noise, mechanisms and accounting."""
