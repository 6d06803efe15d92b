import dataclasses

from yolov7_jax.config import Config, TrainConfig
from yolov7_jax.config_file import read_config
from yolov7_jax.config_help import settings_text


def test_every_setting_has_a_line_with_its_value_and_meaning():
    lines = settings_text(Config(train=TrainConfig(epochs=7))).splitlines()
    keys = [
        f"{s.name}.{f.name}" for s in dataclasses.fields(Config) for f in dataclasses.fields(getattr(Config(), s.name))
    ]
    assert [line.partition("=")[0] for line in lines] == keys
    by_key = dict(zip(keys, lines, strict=True))
    assert by_key["train.epochs"].startswith("train.epochs=7")
    assert by_key["optim.lr0"] == "optim.lr0=0.01".ljust(32) + "# learning rate after warm-up"


def test_lines_are_overrides():
    config = read_config("yolov5n-coco")
    overrides = [line.partition("#")[0].strip() for line in settings_text(config).splitlines()]
    assert read_config("debug", overrides) == config
