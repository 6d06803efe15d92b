"""What users of yolov5, yolov7 and ultralytics know by other names: training arguments, hyper-parameter files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from yolov7_jax.errors import InputError
from yolov7_jax.files import read_yaml
from yolov7_jax.registry import nearest

_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "optim": ("lr0", "lrf", "momentum", "weight_decay", "warmup_epochs", "warmup_momentum", "warmup_bias_lr"),
    "loss": ("box", "obj", "cls", "obj_pw", "cls_pw", "fl_gamma", "label_smoothing", "anchor_t"),
    "augment": (
        *("mosaic", "mixup", "copy_paste", "paste_in", "degrees", "translate", "scale", "shear", "perspective"),
        *("flipud", "fliplr", "hsv_h", "hsv_s", "hsv_v"),
    ),
}
"""Where the keys are that are called the same here."""

_ASSIGNERS = {0: "simple", 1: "ota"}

_ARGUMENTS: Mapping[str, str] = {
    "amp": "train.dtype=bfloat16",
    "batch": "train.batch_size",
    "batch_size": "train.batch_size",
    "cache": "data.cache_images=memory",
    "cache_images": "data.cache_images=memory",
    "cfg": "model.name",
    "close_mosaic": "augment.close_mosaic",
    "cos_lr": "optim.schedule=cosine",
    "data": "data.path",
    "deterministic": "train.deterministic",
    "device": "CUDA_VISIBLE_DEVICES=0,1, or JAX_PLATFORMS=cpu, before the command; without it all devices are used",
    "entity": "WANDB_ENTITY before the command, with train.loggers=[wandb]",
    "epochs": "train.epochs",
    "evolve": "the command tune: yolov7-jax tune CONFIG",
    "exist_ok": "not needed: a run never overwrites another one, its folder gets a number",
    "fraction": "not needed: make the data set smaller",
    "freeze": "optim.freeze='([0-9]|10)/.*', a regular expression over paths of weights",
    "half": "train.dtype=bfloat16",
    "hyp": "--hyp FILE",
    "image_weights": "data.sampling=by_ap",
    "img": "train.size",
    "img_size": "train.size",
    "imgsz": "train.size",
    "linear_lr": "optim.schedule=linear",
    "model": "model.name=yolov7-tiny for a network from scratch, model.weights=yolov7-tiny.pt to start from weights",
    "multi_scale": "train.multi_scale=[0.75,1,1.25]",
    "name": "--output FOLDER",
    "nbs": "optim.nominal_batch_size",
    "noautoanchor": "not needed: anchors are the network's or those of model.anchors (command: yolov7-jax anchors)",
    "noval": "train.val_every_epochs=1000, more than there are epochs: then the last one alone is evaluated",
    "notest": "train.val_every_epochs=1000, more than there are epochs: then the last one alone is evaluated",
    "optimizer": "optim.name",
    "patience": "train.patience",
    "plots": "train.figures",
    "pretrained": "model.weights",
    "project": "--output FOLDER",
    "rect": "train.rect",
    "resume": "--resume RUN",
    "save_period": "train.save_period",
    "seed": "train.seed",
    "single_cls": "data.single_class",
    "sync_bn": "not needed: batch statistics are always those of all devices",
    "time": "train.time_limit",
    "val": "train.val_every_epochs",
    "weights": "model.weights",
    "workers": "data.workers",
}
"""Their arguments of training, and what each is here: a setting, with a value where it takes no other, or words."""


def peer_argument(text: str) -> str | None:
    """What an argument of yolov5, yolov7 or ultralytics is here, for a sentence; None if it is none of theirs.

    text: as it is typed: `imgsz=640`, `--batch-size`, `lr0=0.01`.
    """
    typed, _, value = text.partition("=")
    name = typed.lstrip("-").replace("-", "_").lower()
    sections = {key: section for section, keys in _SECTIONS.items() for key in keys}
    ours = f"{sections[name]}.{name}" if name in sections else _ARGUMENTS.get(name)
    if ours is None:
        return None
    if value and re.fullmatch(r"[a-z]+\.\w+", ours):
        ours += f"={value}"
    return f"what yolov5, yolov7 and ultralytics call {name} is here: {ours}"


_DETECTION: Mapping[str, str] = {
    "agnostic_nms": "agnostic",
    "conf": "confidence",
    "conf_thres": "confidence",
    "imgsz": "size",
    "img": "size",
    "img_size": "size",
    "iou_thres": "iou",
    "max_det": "max_detections",
    "name": "output",
    "nosave": "no_images",
    "project": "output",
    "save_conf": "save_confidence",
    "save_crop": "crops",
    "vid_stride": "every",
}
"""Options of detection, which are called the same in Python and, with other dashes, in commands."""


def peer_option(text: str) -> str | None:
    """What an option of detection of yolov5, yolov7 or ultralytics is called here; None if it is none of theirs.

    text: as it is typed: `conf`, `--conf-thres`.
    """
    return _DETECTION.get(text.partition("=")[0].lstrip("-").replace("-", "_").lower())


def read_hyp(file: Path | str, report: Callable[[str], object]) -> dict[str, dict[str, Any]]:
    """The settings of a hyper-parameter file by section; values are not checked yet.

    report: gets a sentence for each key that has no effect.

    Raises:
        InputError: the file cannot be read, a key is unknown, or a value asks for what cannot be set by such a file.
    """
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise InputError(f"{file}: expected keys of a hyper-parameter file such as lr0: 0.01, found {content!r}")
    settings: dict[str, dict[str, Any]] = {}
    sections = {key: section for section, keys in _SECTIONS.items() for key in keys}
    for key, value in content.items():
        if key in sections:
            settings.setdefault(sections[key], {})[key] = value
        elif key == "loss_ota":
            settings.setdefault("loss", {})["assigner"] = _assigner(file, value)
        elif key == "anchors":
            report(_no_anchors(file, value))
        elif key == "iou_t":
            report(f"{file}: iou_t has no effect: loss.anchor_t alone decides which anchors fit a box; leave iou_t out")
        else:
            near = nearest(str(key), [*sections, "loss_ota", "anchors", "iou_t"])
            raise InputError(f"{file}: {key} is not a hyper-parameter of yolov5 or yolov7{near or '; leave it out'}")
    return settings


def _assigner(file: Path | str, value: Any) -> str:
    if value not in _ASSIGNERS:
        raise InputError(f"{file}: loss_ota is {value!r}; expected 1 (optimal transport) or 0 (all candidates)")
    return _ASSIGNERS[value]


def _no_anchors(file: Path | str, value: Any) -> str:
    if value != 0:
        raise InputError(
            f"{file}: anchors is {value!r}, but the number of anchors of a level belongs to the network; leave the key "
            "out, and find anchors for your data with the command anchors (setting model.anchors)"
        )
    return f"{file}: anchors: 0 has no effect: anchors are the network's, or those of model.anchors; leave it out"
