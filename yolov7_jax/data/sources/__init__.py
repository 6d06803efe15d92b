"""Labelled images from the formats people have."""

from yolov7_jax.data.sources.source import Source, open_source

__all__ = ["Source", "open_source"]
