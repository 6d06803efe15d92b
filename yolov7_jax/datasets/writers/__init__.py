"""Whole data sets written in the formats people have."""

from yolov7_jax.datasets.writers.content import Content, Item
from yolov7_jax.datasets.writers.formats import Format, Written, write_data

__all__ = ["Content", "Format", "Item", "Written", "write_data"]
