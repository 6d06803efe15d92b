"""Labelled images from the formats people have."""

from yolov7_jax.data.sources.faults import OnFault
from yolov7_jax.data.sources.objects import Labels
from yolov7_jax.data.sources.source import Source, open_source

__all__ = ["Labels", "OnFault", "Source", "open_source"]
