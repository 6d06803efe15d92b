"""The public names and where they live; `__init__.py` imports them when they are first used."""

from .assign.ota import OTA as OTA
from .compilation_cache import enable_compilation_cache as enable_compilation_cache
from .config import Config as Config
from .config import Options as Options
from .config_file import read_config as read_config
from .contracts import Assigner as Assigner
from .contracts import LossFn as LossFn
from .contracts import LossSetup as LossSetup
from .contracts import OptimizerFactory as OptimizerFactory
from .contracts import Transform as Transform
from .convert.identify import identify as identify
from .convert.load import load as load
from .convert.torch_names import from_torch_state as from_torch_state
from .convert.torch_names import to_torch_state as to_torch_state
from .convert.weights_file import Weights as Weights
from .convert.weights_file import save as save
from .data.loader import Loader as Loader
from .data.pipeline import Pipeline as Pipeline
from .datasets import open_source as open_source
from .datasets import with_one_class as with_one_class
from .datasets.curate.check import check_data as check_data
from .datasets.curate.check import fix_data as fix_data
from .datasets.curate.conversion import convert_data as convert_data
from .datasets.curate.split import split_data as split_data
from .demo.scenes import write_scenes as write_scenes
from .errors import (
    DataError as DataError,
)
from .errors import (
    GraphError as GraphError,
)
from .errors import (
    InputError as InputError,
)
from .errors import (
    WeightsError as WeightsError,
)
from .experiment import Output as Output
from .experiment import ablate as ablate
from .experiment import detect as detect
from .experiment import detect_video as detect_video
from .experiment import explain_images as explain_images
from .experiment import export as export
from .experiment import fit_anchors as fit_anchors
from .experiment import label_statistics as label_statistics
from .experiment import plan as plan
from .experiment import resume as resume
from .experiment import run_demo as run_demo
from .experiment import show_labels as show_labels
from .experiment import show_samples as show_samples
from .experiment import train as train
from .experiment import tune as tune
from .experiment import tune_report as tune_report
from .experiment import validate as validate
from .experiment.preparation import training_pipeline as training_pipeline
from .experiment.setup import loss_of as loss_of
from .files import yaml_text as yaml_text
from .graph.kinds import register_layer as register_layer
from .graph.parse import parse as parse
from .graph.spec import Graph as Graph
from .graph.spec import Node as Node
from .graph.zoo import zoo as zoo
from .graph.zoo import zoo_names as zoo_names
from .inference.detector import Detector as Detector
from .inference.explain import Explanation as Explanation
from .inference.explain import ObjectnessMaps as ObjectnessMaps
from .inference.explain import explain as explain
from .inference.explain import objectness_maps as objectness_maps
from .inference.frames import open_frames as open_frames
from .inference.results import ImageDetections as ImageDetections
from .inference.tracking import Tracker as Tracker
from .inference.video_writer import VideoWriter as VideoWriter
from .nn.network import Network as Network
from .nn.network import features as features
from .nn.network import init as init
from .nn.summary import summarize as summarize
from .ops.decode import decode as decode
from .ops.decode import make_grid as make_grid
from .registry import register_assigner as register_assigner
from .registry import register_logger as register_logger
from .registry import register_loss as register_loss
from .registry import register_optimizer as register_optimizer
from .registry import register_source as register_source
from .registry import register_transform as register_transform
from .reparameterize import reparam as reparam
from .source import Source as Source
from .source import SourceMixin as SourceMixin
from .training.callbacks import Callback as Callback
from .training.callbacks import RunInfo as RunInfo
from .training.loss import AutobalancedLoss as AutobalancedLoss
from .training.loss import BoxLoss as BoxLoss
from .training.loss import DetectionLoss as DetectionLoss
from .training.loss import detection_loss as detection_loss
from .training.mesh import data_mesh as data_mesh
from .training.mesh import shard_batch as shard_batch
from .training.optimizer import Schedule as Schedule
from .training.optimizer import grouped as grouped
from .training.optimizer import make_optimizer as make_optimizer
from .training.state import TrainState as TrainState
from .training.state import init_state as init_state
from .training.step import make_step as make_step
from .training.step import pure_step as pure_step
from .types import Assignment as Assignment
from .types import Batch as Batch
from .types import Candidates as Candidates
from .types import Detection as Detection
from .types import Detections as Detections
from .types import Grid as Grid
from .types import Issue as Issue
from .types import Labels as Labels
from .types import Outputs as Outputs
from .types import Polygons as Polygons
from .types import Rates as Rates
from .types import Sample as Sample
from .viz.draw import Trails as Trails

__version__: str
