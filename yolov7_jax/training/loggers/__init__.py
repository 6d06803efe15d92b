"""Callbacks that hand a run on to other programs, by the names that train.loggers may have."""

from yolov7_jax.registry import LOGGERS
from yolov7_jax.training.loggers.mlflow import MLflow
from yolov7_jax.training.loggers.tensorboard import TensorBoard
from yolov7_jax.training.loggers.wandb import WandB

__all__ = ["LOGGERS", "MLflow", "TensorBoard", "WandB"]
