"""Flax modules, one a layer kind, and the network that a graph describes."""
