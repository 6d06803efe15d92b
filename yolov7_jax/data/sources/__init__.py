"""Labelled images from the formats people have."""

from yolov7_jax.data.sources.faults import Fault, OnFault
from yolov7_jax.data.sources.joined import with_names
from yolov7_jax.data.sources.objects import Labels
from yolov7_jax.data.sources.opening import open_source
from yolov7_jax.data.sources.source import Source

__all__ = ["Fault", "Labels", "OnFault", "Source", "open_source", "with_names"]
