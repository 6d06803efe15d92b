import re
from typing import Any

import numpy as np
import pytest

from yolov7_jax.config_file import make_config
from yolov7_jax.experiment.preparation import expectations, ineffective_settings
from yolov7_jax.graph.zoo import zoo
from yolov7_jax.source import SourceMixin
from yolov7_jax.types import Labels, Sample

EVERYTHING = {"copy_paste": 0.1, "paste_in": 0.1, "mixup": 0.1, "mosaic9": 0.2, "close_mosaic": 2}


@pytest.mark.parametrize(
    ("augment", "train", "data", "sentences"),
    [
        ({}, {}, {}, []),
        ({}, {}, {"images": 4, "with_polygons": 0}, []),
        (EVERYTHING, {"epochs": 3}, {"images": 9}, []),
        ({"mosaic": 0, "close_mosaic": 9, "paste_in": 1}, {"epochs": 3}, {"images": 1}, []),
        (
            EVERYTHING,
            {},
            {"with_polygons": 0},
            [r"^augment\.copy_paste: has no effect.*no object.*polygon", r"^augment\.paste_in: has no effect.*polygon"],
        ),
        (
            {**EVERYTHING, "mosaic": 0},
            {},
            {},
            [rf"^augment\.{name}: .*augment\.mosaic is 0" for name in ("mosaic9", "mixup", "copy_paste")],
        ),
        (EVERYTHING, {"rect": True}, {"images": 3}, [r"^train\.rect: mosaic .*mixup and copy_paste, have no effect"]),
        ({"mosaic": 0}, {"rect": True}, {}, []),
        ({"close_mosaic": 3}, {"epochs": 3}, {}, [r"^augment\.close_mosaic: .*3 epochs, there is no mosaic"]),
        ({}, {}, {"images": 3}, [r"^augment\.mosaic: of 4 images, but there are 3"]),
        ({"mosaic9": 0.1}, {}, {"images": 8}, [r"^augment\.mosaic: of 9 images, but there are 8"]),
    ],
)
def test_settings_that_do_nothing_are_named(
    augment: dict[str, Any], train: dict[str, Any], data: dict[str, int], sentences: list[str]
) -> None:
    lines = ineffective_settings(
        make_config({"augment": augment, "train": train}, where="test"), **{"images": 20, "with_polygons": 5} | data
    )
    assert len(lines) == len(sentences)
    for line, sentence in zip(lines, sentences, strict=True):
        assert re.search(sentence, line), line


@pytest.mark.parametrize(("sampling", "told"), [("balanced", 0), ("uniform", 1), ("repeat_factor", 1)])
def test_class_weights_act_on_balanced_sampling_alone(sampling: str, told: int) -> None:
    config = make_config({"data": {"sampling": sampling, "class_weights": [1, 2]}}, where="test")
    lines = ineffective_settings(config, images=20, with_polygons=5)
    assert [line.startswith("data.class_weights: has no effect") for line in lines] == [True] * told


SIZES = [
    (10.0, 13.0),
    (20.0, 26.0),
    (640.0, 3.0),
]  # of yolov7-tiny's anchors 10 × 13 is the smallest; none fits the last


class Boxes(SourceMixin):
    """One image of 640 pixels with a box of each size."""

    names = ("thing",)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        raise NotImplementedError

    def labels(self, index: int) -> Labels:
        boxes = np.array([(0, 0, *size) for size in SIZES])
        return Labels(size=(640, 640), class_ids=np.zeros(len(SIZES), np.int32), boxes_xyxy_px=boxes)


def test_what_to_expect_is_said_before_the_first_step() -> None:
    config = make_config({"train": {"epochs": 2, "batch_size": 16}, "optim": {"lrf": 0.1}}, where="test")
    lines = expectations(config, zoo("yolov7-tiny", num_classes=1), Boxes(), 8)
    assert lines == [
        "anchors fit 66.67 % of 3 boxes; see for better ones: yolov7-jax anchors",
        "an update sees 64 images (16 × 4); learning rate 0.01 to 0.001, weight decay 0.0005",
        "warm-up lasts 1000 iterations and the run 16: its learning rate never gets to 0.01; "
        "set optim.warmup_min_steps and optim.warmup_epochs, or train longer",
    ]
    longer = make_config({"train": {"epochs": 4}}, where="test")
    assert len(expectations(longer, zoo("yolov7-tiny", num_classes=1), Boxes(), 400)) == 2
