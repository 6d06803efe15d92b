"""Labeled images from the formats people have: read, joined, written; their labels kept between runs."""

from yolov7_jax.datasets.joined import with_names, with_one_class
from yolov7_jax.datasets.opening import open_source

__all__ = ["open_source", "with_names", "with_one_class"]
