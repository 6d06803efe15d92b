"""Whole runs put together from the parts: the one place that knows everything."""

from yolov7_jax.experiment.ablations.run import ablate
from yolov7_jax.experiment.anchors import AnchorRun, fit_anchors
from yolov7_jax.experiment.demonstration import DemoRun, run_demo
from yolov7_jax.experiment.explanations import ExplanationRun, explain_images
from yolov7_jax.experiment.exporting import ExportRun, export
from yolov7_jax.experiment.inference import DetectionRun, Output, detect
from yolov7_jax.experiment.labels import StatisticsRun, label_statistics
from yolov7_jax.experiment.planning import PlannedStep, plan
from yolov7_jax.experiment.show import LabelSheets, show_labels, show_samples
from yolov7_jax.experiment.training import TrainingRun, resume, train
from yolov7_jax.experiment.tuning.report import Tuning, tune_report
from yolov7_jax.experiment.tuning.run import tune
from yolov7_jax.experiment.validation import ValidationRun, validate
from yolov7_jax.experiment.videos import VideoRun, detect_video

__all__ = [
    "AnchorRun",
    "DemoRun",
    "DetectionRun",
    "ExplanationRun",
    "ExportRun",
    "LabelSheets",
    "Output",
    "PlannedStep",
    "StatisticsRun",
    "TrainingRun",
    "Tuning",
    "ValidationRun",
    "VideoRun",
    "ablate",
    "detect",
    "detect_video",
    "explain_images",
    "export",
    "fit_anchors",
    "label_statistics",
    "plan",
    "resume",
    "run_demo",
    "show_labels",
    "show_samples",
    "train",
    "tune",
    "tune_report",
    "validate",
]
