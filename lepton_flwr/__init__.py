"""Federated learning on Flower: secure aggregation, differential privacy, Keras."""

__version__ = "0.1.0"
