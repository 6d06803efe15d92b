import re
from typing import Any

import pytest

from yolov7_jax.config_file import make_config
from yolov7_jax.experiment.preparation import ineffective_settings

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
