"""Whole runs put together from the parts: the one place that knows everything."""

from yolov7_jax.experiment.inference import DetectionRun, ValidationRun, detect, validate

__all__ = ["DetectionRun", "ValidationRun", "detect", "validate"]
