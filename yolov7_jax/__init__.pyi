"""The public names and where they live; `__init__.py` imports them when they are first used."""

from .compilation_cache import enable_compilation_cache as enable_compilation_cache
from .config import Config as Config
from .config import yaml_text as yaml_text
from .config_file import read_config as read_config
from .convert.identify import identify as identify
from .convert.load import load as load
from .convert.torch_names import from_torch_state as from_torch_state
from .convert.torch_names import to_torch_state as to_torch_state
from .convert.weights_file import Weights as Weights
from .convert.weights_file import save as save
from .datasets import open_source as open_source
from .datasets.curate.check import check_data as check_data
from .datasets.curate.conversion import convert_data as convert_data
from .datasets.curate.fix import fix_data as fix_data
from .datasets.curate.split import split_data as split_data
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
from .experiment import ablate as ablate
from .experiment import detect as detect
from .experiment import fit_anchors as fit_anchors
from .experiment import label_statistics as label_statistics
from .experiment import resume as resume
from .experiment import run_demo as run_demo
from .experiment import show_labels as show_labels
from .experiment import show_samples as show_samples
from .experiment import train as train
from .experiment import validate as validate
from .graph.kinds import register_layer as register_layer
from .graph.parse import parse as parse
from .graph.spec import Graph as Graph
from .graph.spec import Node as Node
from .graph.zoo import zoo as zoo
from .graph.zoo import zoo_names as zoo_names
from .inference.detector import Detector as Detector
from .inference.detector import Options as Options
from .nn.network import Network as Network
from .nn.network import features as features
from .nn.network import init as init
from .nn.summary import summarize as summarize
from .reparameterize import reparam as reparam
from .types import Detections as Detections
from .types import Outputs as Outputs

__version__: str
