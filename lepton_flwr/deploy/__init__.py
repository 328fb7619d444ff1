"""Federations on real machines: folders for devices and servers, and what runs them."""
