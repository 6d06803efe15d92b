"""Settings of a training run and of detection, each with its default, range and meaning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, get_args, get_origin, get_type_hints

from yolov7_jax.errors import InputError


class Range(NamedTuple):
    """The values that a setting may have, both ends included; part of its type."""

    low: float
    high: float = math.inf

    def __str__(self) -> str:
        return f"at least {self.low:g}" if self.high == math.inf else f"from {self.low:g} to {self.high:g}"


AUTO_BATCH = -1
"""The value of train.batch_size that stands for auto."""

Count = Annotated[int, Range(1)]
NotNegativeInt = Annotated[int, Range(0)]
NotNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
Momentum = Annotated[float, Range(0, 0.9999)]


@dataclass(frozen=True)
class ModelConfig:
    """Which network, and what it starts from."""

    name: str = "yolov7-tiny"
    """a name of the zoo, or a yolov5/yolov7 model YAML (in a configuration file, its path from there too)"""
    width: Annotated[float, Range(0.01, 100)] = 1.0
    """multiplies all channel counts"""
    implicit: bool = True
    """implicit vectors in the detect layer of networks that have them"""
    anchors: tuple[tuple[float, ...], ...] = ()
    """of each level width, height, width, height, … in pixels, in place of the network's own"""
    weights: str = ""
    """what to start from: .pt, .safetensors or a run folder, whose network it takes; none: randomly initialized"""


@dataclass(frozen=True)
class DataConfig:
    """Labeled images."""

    path: str = ""
    """a data YAML, a COCO folder, a COCO JSON of training images, a VOC folder, or FORMAT:PLACE such as tfds:NAME"""
    val_path: str = ""
    """what to evaluate on, if not the val split of path"""
    images: str = ""
    """the folder of a COCO JSON's training images, if not beside the file"""
    val_images: str = ""
    """the same for val_path"""
    train_split: str = "train"
    """split of path to train on"""
    val_split: str = "val"
    """split of val_path or path to evaluate on"""
    on_error: Literal["skip", "stop"] = "skip"
    """labels and images with errors: leave them out, or stop; both list them"""
    workers: NotNegativeInt = 2
    """threads or processes that make samples; 0: the training thread makes them"""
    processes: bool = False
    """workers are processes, not threads"""
    max_boxes: Count = 120
    """boxes kept of a sample; more are left out, counted and reported"""
    mosaic_window: Count = 256
    """how far back in the epoch's order the partners of a mosaic are"""
    cache: Literal["times", "hashes", "off"] = "times"
    """cache of read labels, valid until sizes or times of files change, or their hashes (slower); or none"""
    sampling: Literal["uniform", "balanced", "by_ap", "repeat_factor"] = "uniform"
    """images of an epoch: each once; drawn by class weights; by those times (1 - AP)² of the class; rare ones (LVIS)"""
    class_weights: tuple[NotNegative, ...] = ()
    """of sampling balanced and by_ap; none: one over the number of objects of a class"""
    repeat_threshold: Fraction = 0.001
    """of repeat_factor: classes in a smaller fraction of the images are rare"""
    single_class: bool = False
    """all objects are of one class, named object"""
    cache_images: Literal["off", "memory", "disk"] = "off"
    """keep decoded images, the first ones up to cache_gb: in memory, which worker processes do not share, or on disk"""
    cache_gb: NotNegative = 8.0
    """GiB that images kept may take, of training and evaluation together"""


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of training images."""

    mosaic: Fraction = 1.0
    """probability of a mosaic"""
    mosaic9: Fraction = 0.0
    """fraction of mosaics that are of nine images; the others are of four"""
    close_mosaic: NotNegativeInt = 0
    """number of last epochs without mosaic, mixup and copy_paste"""
    mixup: Fraction = 0.0
    """probability of a second mosaic blended into a mosaic"""
    mixup_beta: Annotated[float, Range(1e-3)] = 8.0
    """both parameters of the beta distribution of the blend"""
    copy_paste: Fraction = 0.0
    """fraction of the objects of a mosaic that are pasted into it again, flipped; for labels that have polygons"""
    paste_in: Fraction = 0.0
    """probability of pasting objects cut out of other images into a sample; for labels that have polygons"""
    degrees: Annotated[float, Range(0, 180)] = 0.0
    """rotation in degrees, up to ± this"""
    translate: Fraction = 0.1
    """shift, up to ± this fraction of the image"""
    scale: Annotated[float, Range(0, 0.99)] = 0.5
    """factor from 1 - scale to 1 + scale_extra + scale; 0: none"""
    scale_extra: NotNegative = 0.1
    """how much further images are enlarged than shrunk: 0.1 of YOLOv7, 0 of YOLOv5"""
    shear: Annotated[float, Range(0, 80)] = 0.0
    """shear angle in degrees, up to ± this"""
    perspective: Annotated[float, Range(0, 0.1)] = 0.0
    """perspective factor of a pixel, up to ± this"""
    flipud: Fraction = 0.0
    """probability of a vertical flip"""
    fliplr: Fraction = 0.5
    """probability of a horizontal flip"""
    hsv_h: Annotated[float, Range(0, 0.4)] = 0.015
    """hue, up to ± this fraction of its circle"""
    hsv_s: Fraction = 0.7
    """saturation, factor 1 ± this"""
    hsv_v: Fraction = 0.4
    """brightness, factor 1 ± this"""
    transforms: tuple[str, ...] = ()
    """registered functions (register_transform) that finished samples go through, such as [blur, "wave(most=4)"]"""


@dataclass(frozen=True)
class LossConfig:
    """Assignment and loss; gains are those of a recipe, before scaling to levels, classes and image size."""

    name: str = "detection"
    """which loss: detection, or one that was registered (register_loss)"""
    assigner: str = "ota"
    """which candidates are positives: the best by the predictions (ota), all (simple), or a registered assigner"""
    neighbor_offset: Fraction = 0.5
    """a neighboring cell is a candidate if the box's center is nearer to it than this, in cells"""
    top_k: Count = 10
    """the most positives of a box, of ota"""
    iou_cost: NotNegative = 3.0
    """weight of the IoU cost beside the class cost of a match, of ota"""
    aux: Literal["coarse_to_fine", "lead_guided", "independent"] = "coarse_to_fine"
    """what chooses positives of auxiliary heads: the lead head, from more candidates or its own; or they themselves"""
    aux_neighbor_offset: Fraction = 1.0
    """as neighbor_offset, for the candidates of auxiliary heads that are coarse_to_fine"""
    aux_top_k: Count = 20
    """as top_k, of either head where aux is coarse_to_fine"""
    aux_weight: NotNegative = 0.25
    """of the losses of auxiliary heads"""
    aux_center_bound: bool = True
    """auxiliary heads decode centers as 2σ - 0.5, which does not reach their farthest cells, as 3σ - 1 would"""
    iou_type: Literal["ciou", "diou", "giou", "iou"] = "ciou"
    """of predictions and boxes, in the box loss and the objectness target"""
    autobalance: bool = False
    """weights of the levels' objectness losses follow the losses"""
    box: NotNegative = 0.05
    """gain of the box loss"""
    obj: NotNegative = 0.7
    """gain of the objectness loss"""
    cls: NotNegative = 0.3
    """gain of the class loss"""
    obj_pw: NotNegative = 1.0
    """weight of positives in the objectness loss"""
    cls_pw: NotNegative = 1.0
    """weight of positives in the class loss"""
    fl_gamma: NotNegative = 0.0
    """exponent of the focal loss; 0: none"""
    label_smoothing: Fraction = 0.0
    """of the class loss; 0: none"""
    gr: Fraction = 1.0
    """fraction of the IoU in the objectness target"""
    anchor_t: Annotated[float, Range(1)] = 4.0
    """how many times larger or smaller than an anchor a box may be"""


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer, schedule, moving average."""

    name: str = "sgd"
    """sgd, adam, adamw, nadamw, lion, adafactor, muon, or one that was registered (register_optimizer)"""
    lr0: NotNegative = 0.01
    """learning rate after warm-up"""
    lrf: NotNegative = 0.1
    """final learning rate as a fraction of lr0"""
    schedule: Literal["cosine", "linear"] = "cosine"
    momentum: Momentum = 0.937
    """of SGD (Nesterov); β1 of Adam"""
    weight_decay: NotNegative = 5e-4
    """of convolution kernels, for the nominal batch"""
    nominal_batch_size: Count = 64
    """gradients of smaller batches are summed up to this many images"""
    micro_batch: NotNegativeInt = 0
    """images that go through the network at a time, to save memory; a divisor of train.batch_size; 0: all"""
    warmup_epochs: NotNegative = 3.0
    """duration of warm-up, in which learning rates and momentum change linearly"""
    warmup_min_steps: NotNegativeInt = 1000
    """warm-up lasts at least so many steps"""
    warmup_momentum: Momentum = 0.8
    """momentum at the beginning of warm-up"""
    warmup_bias_lr: NotNegative = 0.1
    """learning rate of biases at the beginning of warm-up; others begin at 0"""
    ema_decay: Fraction = 0.9999
    ema_ramp: Annotated[float, Range(1e-3)] = 2000.0
    """the moving average's decay at update u is ema_decay · (1 - exp(-u / ema_ramp))"""
    freeze: str = ""
    """regular expression over whole paths of weights such as 0/conv/kernel (a layer: 0/.*) that are not trained"""


@dataclass(frozen=True)
class TrainConfig:
    """How long, how large, how often."""

    epochs: Count = 300
    batch_size: Count = 16
    """images of a step over all devices and hosts; auto (or -1): as many as fit, by the compiler's figures"""
    memory_limit: NotNegative = 0.0
    """GiB that a step may take of each device, for batch_size=auto; 0: nine tenths of what it may allot"""
    size: Annotated[int, Range(32, 8192)] = 640
    """side of training and evaluation images in pixels"""
    multi_scale: tuple[Annotated[float, Range(0.1, 10)], ...] = ()
    """multiples of size: each batch has one at random, each is compiled once; none: size alone"""
    rect: bool = False
    """batches of images of like shapes, in rectangles of a few shapes with size as long side; without mosaic"""
    seed: Annotated[int, Range(0, 2**31 - 1)] = 0
    """of weights, order of images and augmentation"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """of the computation; weights are float32"""
    val_every_epochs: NotNegativeInt = 1
    """epochs between evaluations; the last epoch is always evaluated; 0: never"""
    val_loss: bool = True
    """evaluations compute the loss of the validation images too: val_box, val_obj, val_cls … in the log"""
    figures: bool = True
    """draw labels, batches, predictions and curves into the run's folder, which takes a few seconds an evaluation"""
    patience: NotNegativeInt = 0
    """epochs without a better evaluation (best_by) after which the run ends; 0: none are too many"""
    time_limit: NotNegative = 0.0
    """hours after which the run evaluates, saves and ends; it can be resumed, for as long again; 0: no limit"""
    best_by: Literal["fitness", "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"] = "fitness"
    """what the best evaluation has most of; fitness: 0.9 AP + 0.1 AP50 (YOLOv5, YOLOv7)"""
    checkpoint_every_steps: NotNegativeInt = 0
    """steps between checkpoints; 0: an epoch. Every evaluation and the end of the run have one too"""
    save_period: NotNegativeInt = 0
    """epochs between weights that are kept, as epoch-N.safetensors; 0: the last and the best ones alone"""
    clip_gradient: NotNegative = 0.0
    """the largest global norm that the gradient of an update may have, to which it is scaled; 0: any"""
    remat: Literal["none", "conv", "stage"] = "none"
    """what the backward pass keeps, less memory for more time: all; outputs of convolutions; ends of stages"""
    shard_state: bool = False
    """each device keeps a part of the moving averages and of the optimizer's state, for less memory (ZeRO, stage 1)"""
    deterministic: bool = False
    """have GPUs sum in one order every time, more slowly: two runs are bit-exact, as on CPUs they always are"""
    max_nonfinite: Count = 10
    """steps in a row with a loss that is not finite before the run stops"""
    loggers: tuple[str, ...] = ()
    """what gets the rows of the log too: tensorboard, wandb, mlflow (extras), or registered ones (register_logger)"""


@dataclass(frozen=True)
class ValConfig:
    """How the run is evaluated."""

    confidence: Fraction = 0.001
    """scores must exceed it"""
    iou: Fraction = 0.65
    """threshold of non-maximum suppression"""
    batch_size: Count = 8
    resize: Literal["linear", "area"] = "area"
    """how images are resized; both references evaluate by area and detect bilinearly"""


@dataclass(frozen=True)
class Options:
    """How to detect.

    confidence: what objectness and score must exceed. iou: threshold of non-maximum suppression.
    classes: numbers or names of the classes wanted, or one of them, all if None. agnostic: non-maximum suppression
    across classes. multi_label: a box may have several classes (evaluation), else its best one. max_detections: of an
    image. augment: test-time augmentation, three passes over each image. tiles: side in pixels of the tiles that large
    images are cut into, None for none; overlap: of neighboring tiles, in parts of a tile; merge: by which overlap a box
    of one tile yields to that of another, intersection over the smaller ("ios") or over the union ("iou").
    rect: pad images to rectangles (less work, one compilation a shape), else to squares (one compilation). few_shapes:
    there are five such rectangles, else each image is padded to the next multiple of the stride, as the references do.
    batch_size: images the device takes at once; they share a shape. workers: threads that read images. resize: how
    images are resized, see `data.letterbox`. bgr, channels_first, unit_range: of arrays that are given as images: blue
    comes first, as OpenCV reads them; they are [3, h, w], as PyTorch has them; they are floats in 0..1.
    """

    confidence: float = 0.25
    iou: float = 0.45
    classes: Sequence[int | str] | int | str | None = None
    agnostic: bool = False
    multi_label: bool = False
    max_detections: int = 300
    augment: bool = False
    tiles: int | None = None
    overlap: float = 0.2
    merge: Literal["ios", "iou"] = "ios"
    rect: bool = True
    few_shapes: bool = True
    batch_size: int = 1
    workers: int = 2
    resize: Literal["linear", "area"] = "linear"
    bgr: bool = False
    channels_first: bool = False
    unit_range: bool = False

    def __post_init__(self) -> None:
        for key in ("confidence", "iou"):
            value = getattr(self, key)
            if not 0 <= value <= 1:
                raise InputError(f"{key} must be a fraction from 0 to 1, got {value}")
        for key in ("max_detections", "batch_size", "workers"):
            if getattr(self, key) < 1:
                raise InputError(f"{key} must be at least 1, got {getattr(self, key)}")
        for key, known in (("resize", ("linear", "area")), ("merge", ("ios", "iou"))):
            if getattr(self, key) not in known:
                raise InputError(f"{key} must be {' or '.join(known)}, got {getattr(self, key)!r}")
        if self.tiles is not None and self.tiles < 1:
            raise InputError(f"tiles must be at least 1 pixel wide, got {self.tiles}")
        if not 0 <= self.overlap < 1:
            raise InputError(f"overlap must be a fraction from 0 to under 1, got {self.overlap}")


EVALUATION = Options(**vars(ValConfig()), multi_label=True, rect=False, few_shapes=False)
"""How COCO AP is measured: every class over a low threshold, up to 300 detections an image."""


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


def ranges(section: type) -> dict[str, Range]:
    """The range of each setting of a section that has one; of a tuple, of each of its values."""
    found = {}
    for name, hint in get_type_hints(section, include_extras=True).items():
        each = get_args(hint)[0] if get_origin(hint) is tuple else hint
        if get_origin(each) is Annotated:
            found[name] = get_args(each)[1]
    return found
