import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from yolov7_jax.config import AugmentConfig, Config, LossConfig, OptimConfig, TrainConfig
from yolov7_jax.config_file import config_dict, config_names, make_config, read_config, settings_text
from yolov7_jax.errors import InputError
from yolov7_jax.files import yaml_text


@pytest.mark.parametrize("name", config_names())
def test_configurations_that_come_along_are_read_and_found_by_name(name):
    assert isinstance(read_config(name), Config)


def test_what_comes_along():
    assert {"yolov7-tiny-coco", "yolov7-coco", "yolov5n-coco", "finetune", "debug"} <= set(config_names())


# Rows of the recipe table of the reference (lrf, cls, obj, translate, scale, mixup).
@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("yolov7-coco", (0.1, 0.3, 0.7, 0.2, 0.9, 0.15)),
        ("yolov7-tiny-coco", (0.01, 0.5, 1.0, 0.1, 0.5, 0.05)),
        ("finetune", (0.1, 0.3, 0.7, 0.2, 0.5, 0.0)),
        ("yolov5n-coco", (0.01, 0.5, 1.0, 0.1, 0.5, 0.0)),
    ],
)
def test_recipes_are_those_of_the_reference(name, row):
    config = read_config(name)
    loss, augment = config.loss, config.augment
    assert (config.optim.lrf, loss.cls, loss.obj, augment.translate, augment.scale, augment.mixup) == row
    assert (config.optim.lr0, config.optim.momentum, config.optim.weight_decay) == (0.01, 0.937, 5e-4)
    assert (loss.box, loss.anchor_t, augment.fliplr, augment.flipud, augment.mosaic) == (0.05, 4.0, 0.5, 0.0, 1.0)
    assert (augment.hsv_h, augment.hsv_s, augment.hsv_v) == (0.015, 0.7, 0.4)
    assert config.train.epochs == (100 if name == "finetune" else 300)
    assert loss.assigner == ("simple" if name.startswith("yolov5") else "ota")


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_a_file_adds_to_its_base_and_overrides_come_last(tmp_path):
    write(tmp_path, "base.yaml", "train: {epochs: 7, batch_size: 4}\nloss: {obj: 2}")
    file = write(tmp_path, "mine.yaml", "base: base.yaml\ntrain: {batch_size: 6, seed: 1}\noptim: {lr0: 1e-3}")
    config = read_config(file, ["train.seed=5", "--data.path=a b", "data.processes=true"])
    assert (config.train.epochs, config.train.batch_size, config.train.seed) == (7, 6, 5)
    assert (config.loss, config.optim) == (LossConfig(obj=2.0), OptimConfig(lr0=1e-3))
    assert (config.data.path, config.data.processes) == ("a b", True)


def test_a_base_by_name(tmp_path):
    config = read_config(write(tmp_path, "mine.yaml", "base: recipe-tiny\ndata: {path: x.yaml}"))
    assert config.loss.obj == 1.0
    assert config.data.path == "x.yaml"


def test_a_model_file_beside_the_configuration_is_found_from_anywhere(tmp_path, monkeypatch):
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "mine.yaml").write_text("nc: 3")
    (folder / "config.yaml").write_text("model: {name: mine.yaml}")
    (folder / "above.yaml").write_text("base: config.yaml")
    monkeypatch.chdir(tmp_path)
    for name in ("config.yaml", "above.yaml"):
        assert read_config(folder / name).model.name == str(folder / "mine.yaml")
    assert read_config(folder / "config.yaml", ["model.name=mine.yaml"]).model.name == "mine.yaml"  # as typed
    (folder / "config.yaml").write_text("model: {name: other.yaml}")  # is not there: from the working directory
    assert read_config(folder / "config.yaml").model.name == "other.yaml"


def test_an_empty_file_is_the_default(tmp_path):
    assert read_config(write(tmp_path, "empty.yaml", "")) == Config()


@settings(max_examples=25)
@given(st.builds(AugmentConfig, *[st.floats(0, 1)] * 2), st.integers(1, 99), st.text(max_size=8))
def test_settings_survive_writing_and_reading(augment, epochs, path):
    config = Config(augment=augment)
    train = replace(config.train, epochs=epochs, multi_scale=(0.5, 1.0))
    config = replace(config, train=train, data=replace(config.data, path=path))
    assert make_config(yaml.safe_load(yaml_text(config_dict(config))), where="written") == config
    assert json.loads(json.dumps(config_dict(config))) == config_dict(config)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trian: {epochs: 1}", ["mine.yaml", "'trian'", "did you mean 'train'?"]),
        ("batch_size: 3", ["mine.yaml", "'train.batch_size'?"]),
        ("train: {batchsize: 3}", ["mine.yaml", "train has no key 'batchsize'", "'batch_size'?"]),
        ("train: {zzz: 3}", ["mine.yaml", "train has no key 'zzz'", "expected epochs, batch_size"]),
        ("train: 3", ["mine.yaml", "train is 3", "expected keys"]),
        ("- 3", ["mine.yaml", "expected sections", "list"]),
        ("train: {epochs: ten}", ["mine.yaml", "train.epochs is 'ten'", "a whole number"]),
        ("train: {epochs: 2.5}", ["train.epochs is 2.5", "a whole number"]),
        ("train: {epochs: true}", ["train.epochs is True", "a whole number"]),
        ("optim: {lr0: }", ["optim.lr0 is None", "a number"]),
        ("optim: {lr0: .inf}", ["optim.lr0 is inf", "at least 0"]),
        ("optim: {lr0: .nan}", ["optim.lr0 is nan"]),
        ("optim: {schedule: sine}", ["optim.schedule is 'sine'", "one of cosine, linear"]),
        ("loss: {gr: 1.5}", ["loss.gr is 1.5", "from 0 to 1"]),
        ("train: {batch_size: 0}", ["train.batch_size is 0", "at least 1"]),
        ("data: {path: 3}", ["data.path is 3", "text"]),
        ("data: {processes: perhaps}", ["data.processes is 'perhaps'", "true or false"]),
        ("train: {multi_scale: 0.5}", ["train.multi_scale is 0.5", "a list of numbers such as [0.5, 1]"]),
        ("train: {multi_scale: [a]}", ["train.multi_scale is ['a']", "a list of numbers"]),
        ("train: {multi_scale: [1, 0]}", ["train.multi_scale is (1.0, 0.0)", "numbers, each from 0.1 to 10"]),
        ("train: {multi_scale: [1], rect: true}", ["mine.yaml", "train.rect and train.multi_scale are both on"]),
        ("model: {anchors: [1, 2]}", ["model.anchors is [1, 2]", "a list of lists of numbers"]),
        ("data: {class_weights: [1, -1]}", ["data.class_weights is (1.0, -1.0)", "numbers, each at least 0"]),
        ("data: {sampling: even}", ["data.sampling is 'even'", "one of uniform, balanced, by_ap, repeat_factor"]),
        ("data: {repeat_threshold: 2}", ["data.repeat_threshold is 2", "from 0 to 1"]),
        ("base: 3", ["mine.yaml", "base is 3"]),
        ("base: mine.yaml", ["mine.yaml", "its own base"]),
        ("base: nonesuch", ["'nonesuch'", "expected a YAML file or one of"]),
        ("base: nonesuch.yaml", ["nonesuch.yaml", "cannot be read"]),
        ("train: [1", ["mine.yaml", "line"]),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path, text, words):
    with pytest.raises(InputError) as caught:
        read_config(write(tmp_path, "mine.yaml", text))
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.batch_size", ["train.batch_size", "section.key=value"]),
        ("batch_size=3", ["batch_size=3: ", "is here: train.batch_size=3"]),
        ("train.batchsize=3", ["train.batchsize=3", "'batch_size'?"]),
        ("train.batch_size=many", ["train.batch_size is 'many'", "a whole number"]),
        ("lss.obj=3", ["'loss'?"]),
        ("train.tensorboard=true", ["train.tensorboard is of an older version; set train.loggers"]),
        ("train.loggers=wandb", ["train.loggers is 'wandb'", "a list of names such as [tensorboard, wandb]"]),
    ],
)
def test_what_is_wrong_in_an_override_is_said(override, words):
    with pytest.raises(InputError) as caught:
        read_config("debug", [override])
    for word in words:
        assert word in str(caught.value)


def test_a_name_that_is_not_there_gets_the_nearest():
    with pytest.raises(InputError, match=r"'yolov7-coc' \(did you mean 'yolov7-coco'\?"):
        read_config("yolov7-coc")


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
