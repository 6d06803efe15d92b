"""Settings of a training run, and the door to YAML: every file that people write by hand is read here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from yolov7_jax.errors import InputError


@dataclass(frozen=True)
class ModelConfig:
    """Which network, and what it starts from."""

    name: str = "yolov7-tiny"
    """a name of the zoo, or a yolov5/yolov7 model YAML"""
    width: float = 1.0
    """multiple of all channel counts"""
    implicit: bool = True
    """implicit vectors in the detect layer of networks that have them"""
    anchors: tuple[tuple[float, ...], ...] = ()
    """of each level width, height, width, height, … in pixels, in place of the network's own"""
    weights: str = ""
    """what to start from: .pt, .safetensors or a run folder; nothing: fresh weights. Its network is taken, not name"""


@dataclass(frozen=True)
class DataConfig:
    """Labeled images."""

    path: str = ""
    """a data YAML, a COCO folder, a COCO JSON of the training images, a folder in Pascal VOC layout, or tfds:NAME"""
    val_path: str = ""
    """what to evaluate on, where that is not the val split of path"""
    images: str = ""
    """the folder of a COCO JSON's training images, where it is not beside the file"""
    val_images: str = ""
    """the same for val_path"""
    train_split: str = "train"
    val_split: str = "val"
    on_error: Literal["skip", "stop"] = "skip"
    """what to do about labels and images that are wrong: go on without them, or stop; they are listed either way"""
    workers: int = 2
    """how many threads or processes make samples; 0: none beside the training itself"""
    processes: bool = False
    """workers are processes, not threads"""
    max_boxes: int = 120
    """boxes of a sample that are kept; more are left out, counted and shown"""
    mosaic_window: int = 256
    """images back in the epoch's order from which the partners of a mosaic are drawn"""
    cache: Literal["times", "hashes", "off"] = "times"
    """keep what was found of labels, until sizes or times of files change, or their content (slower); or do not"""
    sampling: Literal["uniform", "balanced", "repeat_factor"] = "uniform"
    """images of an epoch: each once; drawn by the weights of their classes; those of rare classes more often (LVIS)"""
    class_weights: tuple[float, ...] = ()
    """of classes in balanced sampling; none: one over the number of their objects"""
    repeat_threshold: float = 0.001
    """of repeat_factor: classes in a smaller fraction of the images are rare"""


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of training images."""

    mosaic: float = 1.0
    """probability of a mosaic"""
    mosaic9: float = 0.0
    """share of mosaics that are of nine images; the others are of four"""
    close_mosaic: int = 0
    """last epochs without mosaic and what goes with it, mixup and copy_paste"""
    mixup: float = 0.0
    """probability of a second mosaic blended into a mosaic"""
    mixup_beta: float = 8.0
    """both parameters of the beta distribution of the blend"""
    copy_paste: float = 0.0
    """share of the objects of a mosaic that are put into it again, mirrored; for labels that have polygons"""
    paste_in: float = 0.0
    """probability of objects cut out of other images being put into a sample; for labels that have polygons"""
    degrees: float = 0.0
    """rotation, up to ± this"""
    translate: float = 0.1
    """up to ± this fraction of the image"""
    scale: float = 0.5
    """factor from 1 - scale to 1.1 + scale; 0: none"""
    shear: float = 0.0
    """up to ± this many degrees"""
    perspective: float = 0.0
    """up to ± this a pixel"""
    flipud: float = 0.0
    """probability of a mirror image top to bottom"""
    fliplr: float = 0.5
    """probability of a mirror image left to right"""
    hsv_h: float = 0.015
    """hue, up to ± this fraction of its circle"""
    hsv_s: float = 0.7
    """saturation, factor 1 ± this"""
    hsv_v: float = 0.4
    """brightness, factor 1 ± this"""


@dataclass(frozen=True)
class LossConfig:
    """Assignment and loss; gains are those of a recipe, before scaling to levels, classes and image size."""

    name: str = "detection"
    """which loss: detection, or one that was registered (register_loss)"""
    assigner: str = "ota"
    """which candidates are positives: ota, those that fit best by the predictions; simple, all (YOLOv5); or one that
    was registered (register_assigner), with arguments of its own: ota(top_k=5)"""
    neighbor_offset: float = 0.5
    """a cell beside a box's own is a candidate where the box's center is nearer to it than this, in cells"""
    top_k: int = 10
    """the most positives of a box, of ota"""
    iou_cost: float = 3.0
    """weight of the overlap beside the classes in the cost of a match, of ota"""
    aux: Literal["coarse_to_fine", "lead_guided", "independent"] = "coarse_to_fine"
    """what chooses positives of auxiliary heads: the lead head, from more candidates or its own; or they themselves"""
    aux_neighbor_offset: float = 1.0
    """as neighbor_offset, for the candidates of auxiliary heads that are coarse_to_fine"""
    aux_top_k: int = 20
    """as top_k, of either head where aux is coarse_to_fine"""
    aux_weight: float = 0.25
    """of the losses of auxiliary heads"""
    aux_center_bound: bool = True
    """auxiliary heads decode centers as 2σ - 0.5, which does not reach their farthest cells, as 3σ - 1 would"""
    iou_type: Literal["ciou", "diou", "giou", "iou"] = "ciou"
    """of predictions and boxes, in the box loss and the objectness target"""
    autobalance: bool = False
    """weights of the levels' objectness follow their losses, instead of staying as they begin"""
    box: float = 0.05
    obj: float = 0.7
    cls: float = 0.3
    obj_pw: float = 1.0
    """weight of positives in the objectness loss"""
    cls_pw: float = 1.0
    """weight of positives in the class loss"""
    fl_gamma: float = 0.0
    """exponent of the focal loss; 0: none"""
    label_smoothing: float = 0.0
    gr: float = 1.0
    """share of the overlap in the objectness target"""
    anchor_t: float = 4.0
    """how many times larger or smaller than an anchor a box may be"""


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer, schedule, moving average."""

    name: str = "sgd"
    """sgd, adam, adamw, nadamw, lion, adafactor, muon, or one that was registered (register_optimizer)"""
    lr0: float = 0.01
    """rate after warm-up"""
    lrf: float = 0.1
    """final rate as a fraction of lr0"""
    schedule: Literal["cosine", "linear"] = "cosine"
    momentum: float = 0.937
    """of SGD (Nesterov); β1 of Adam"""
    weight_decay: float = 5e-4
    """of convolution kernels, for the nominal batch"""
    nominal_batch_size: int = 64
    """gradients of smaller batches are summed up to this many images"""
    warmup_epochs: float = 3.0
    warmup_min_steps: int = 1000
    """warm-up lasts at least so many iterations"""
    warmup_momentum: float = 0.8
    warmup_bias_lr: float = 0.1
    ema_decay: float = 0.9999
    ema_ramp: float = 2000.0
    """the moving average's decay at update u is ema_decay · (1 - exp(-u / ema_ramp))"""
    freeze: str = ""
    """regular expression over whole paths of weights such as 0/conv/kernel (a layer: 0/.*): those stay as they are"""


@dataclass(frozen=True)
class TrainConfig:
    """How long, how large, how often."""

    epochs: int = 300
    batch_size: int = 16
    """images of a step over all devices and hosts"""
    size: int = 640
    """side of training and evaluation images in pixels"""
    multi_scale: tuple[float, ...] = ()
    """multiples of size of which each batch has one, by chance: each is compiled once; none: size alone"""
    rect: bool = False
    """batches of images of like shapes, in rectangles of a few shapes with size as long side; without mosaic"""
    seed: int = 0
    dtype: Literal["float32", "bfloat16"] = "float32"
    val_every_epochs: int = 1
    """epochs between evaluations; the last epoch is always evaluated; 0: never"""
    checkpoint_every_steps: int = 0
    """iterations between checkpoints; 0: one at the end of every epoch. Every evaluation has one, and the end"""
    max_nonfinite: int = 10
    """losses in a row that are not finite before the run stops"""
    tensorboard: bool = False
    """write TensorBoard events too (install the extra tensorboard)"""


@dataclass(frozen=True)
class ValConfig:
    """How the run is evaluated."""

    confidence: float = 0.001
    iou: float = 0.65
    batch_size: int = 8


@dataclass(frozen=True)
class Config:
    """All settings of a training run."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    val: ValConfig = ValConfig()


def read_yaml(path: Path | str) -> Any:
    """The content of a YAML file as plain Python values.

    Raises:
        InputError: the file is not there, is not text, or is not YAML; names the file and the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{path}: cannot be read ({reason}); expected a YAML file") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or "not YAML"
        raise InputError(f"{where}: {problem}; correct the line so that the file is valid YAML") from error


def yaml_text(content: Any) -> str:
    """Plain values as YAML, keys in their order."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
