"""Hyper-parameter files of yolov5 and yolov7 (hyp.scratch.p5.yaml …) as settings."""

from __future__ import annotations

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
