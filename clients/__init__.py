"""Flower client mods, the Keras client task and the ClientApp: a device's side of a federation."""
