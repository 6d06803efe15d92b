"""Whole runs put together from the parts: the one place that knows everything."""

from yolov7_jax.experiment.ablation import ablate
from yolov7_jax.experiment.demonstration import DemoRun, demo
from yolov7_jax.experiment.inference import DetectionRun, ValidationRun, detect, validate
from yolov7_jax.experiment.samples import show_samples
from yolov7_jax.experiment.training import TrainingRun, resume, train

__all__ = [
    "DemoRun",
    "DetectionRun",
    "TrainingRun",
    "ValidationRun",
    "ablate",
    "demo",
    "detect",
    "resume",
    "show_samples",
    "train",
    "validate",
]
