import re
from pathlib import Path

import pytest

from yolov7_jax.cli.main import main
from yolov7_jax.config import Config
from yolov7_jax.config_file import config_dict, read_config
from yolov7_jax.config_peers import peer_argument
from yolov7_jax.errors import InputError

ARGUMENTS = [
    ("train finetune imgsz=640", "imgsz is here: train.size=640"),
    ("train finetune --img-size 640", "img_size is here: train.size"),
    ("train finetune --batch 16", "batch is here: train.batch_size"),
    ("train finetune train.epochs=3 lr0=0.1", "lr0 is here: optim.lr0=0.1"),
    ("train finetune time=2", "time is here: train.time_limit=2"),
    ("train finetune cos_lr=True", "cos_lr is here: optim.schedule=cosine"),
    ("train finetune --device 0", "device is here: CUDA_VISIBLE_DEVICES=0,1"),
    ("train finetune train.single_cls=true", "train has no key 'single_cls'; what yolov5"),
    ("train --data coco.yaml --img 640", "data is here: data.path"),
    ("train data=coco.yaml model=yolov7.pt", "name one before settings: train finetune section.key=value; what yolov5"),
    ("train data.path=mine.yaml", "is no configuration; name one before settings: train finetune data.path=mine.yaml"),
    ("train finetune nonesuch=1", "nonesuch=1: not a setting; expected section.key=value"),
]


@pytest.mark.parametrize(("typed", "sentence"), ARGUMENTS)
def test_typing_theirs_names_ours(typed: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(["--no-compilation-cache", *typed.split()])
    except SystemExit as left:  # as argparse does
        status = left.code
    assert status == 2
    assert sentence in capsys.readouterr().err


def test_the_guide_names_what_typing_names() -> None:
    guide = (Path(__file__).parent.parent / "docs" / "training.md").read_text()
    table = guide.partition("| there | here |")[2].partition("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    told = {name: here for there, here in rows for name in re.findall(r"`(\w+)`", there)}
    known = {name: peer_argument(name) for name in told}
    assert None not in known.values(), known
    assert len(told) > 40
    for name, here in told.items():
        words = set(re.findall(r"[\w.]+", here.replace("and so on", f"{known[name]}")))
        ours = (known[name] or "").partition(" is here: ")[2].split(",")[0]
        assert set(re.findall(r"[\w.]+", ours.partition("=")[0])) & words, (name, ours, here)
    settings = {f"{section}.{key}" for section, keys in config_dict(Config()).items() for key in keys}
    named = set(re.findall(r"\b(?:model|data|augment|loss|optim|train)\.\w+", table))
    assert named <= settings | {"data.single_class", "data.cache_images", "train.loggers"}, named - settings


SHARED = """
lr0: 0.01  # initial learning rate
momentum: 0.937
weight_decay: 0.0005
warmup_epochs: 3.0
warmup_momentum: 0.8
warmup_bias_lr: 0.1
box: 0.05
cls_pw: 1.0
obj_pw: 1.0
iou_t: 0.20
anchor_t: 4.0
# anchors: 3
fl_gamma: 0.0
hsv_h: 0.015
hsv_s: 0.7
hsv_v: 0.4
degrees: 0.0
shear: 0.0
perspective: 0.0
flipud: 0.0
fliplr: 0.5
mosaic: 1.0
copy_paste: 0.0
"""
V7 = SHARED + "loss_ota: 1\n"

# Rows of the recipe table of the reference, as its files have them; by the recipe that they are here.
FILES = {
    "recipe-p5": V7 + "{lrf: 0.1, cls: 0.3, obj: 0.7, translate: 0.2, scale: 0.9, mixup: 0.15, paste_in: 0.15}",
    "recipe-p6": V7 + "{lrf: 0.2, cls: 0.3, obj: 0.7, translate: 0.2, scale: 0.9, mixup: 0.15, paste_in: 0.15}",
    "recipe-tiny": V7 + "{lrf: 0.01, cls: 0.5, obj: 1.0, translate: 0.1, scale: 0.5, mixup: 0.05, paste_in: 0.05}",
    "recipe-custom": V7 + "{lrf: 0.1, cls: 0.3, obj: 0.7, translate: 0.2, scale: 0.5, mixup: 0.0, paste_in: 0.0}",
    "recipe-low": SHARED + "{lrf: 0.01, cls: 0.5, obj: 1.0, translate: 0.1, scale: 0.5, mixup: 0.0}",
    "recipe-high": SHARED.replace("copy_paste: 0.0", "copy_paste: 0.1")
    + "{lrf: 0.1, cls: 0.3, obj: 0.7, translate: 0.1, scale: 0.9, mixup: 0.1}",
}
OTHER = """
optim: {lr0: 1, lrf: 1, momentum: 0.5, weight_decay: 1, warmup_epochs: 1, warmup_momentum: 0.1, warmup_bias_lr: 1}
loss: {box: 1, obj: 3, cls: 3, obj_pw: 2, cls_pw: 2, fl_gamma: 1, anchor_t: 2}
augment: {mosaic: 0.1, mixup: 0.9, copy_paste: 0.9, degrees: 9, translate: 0.9, scale: 0.7, shear: 9,
          perspective: 0.01, flipud: 0.9, fliplr: 0.9, hsv_h: 0.3, hsv_s: 0.3, hsv_v: 0.3}
"""


def write(folder: Path, text: str, name: str = "hyp.yaml") -> Path:
    *lines, last = text.strip().splitlines()
    if last.startswith("{"):  # short for a key on each line
        lines += last.strip("{}").split(", ")
    else:
        lines.append(last)
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


@pytest.mark.parametrize("recipe", FILES)
def test_files_of_the_references_give_the_recipes(tmp_path: Path, recipe: str) -> None:
    base = write(tmp_path, f"base: {recipe}" + OTHER, "other.yaml")
    told: list[str] = []
    config = read_config(base, hyp=write(tmp_path, FILES[recipe]), report=told.append)
    assert config != read_config(base)
    assert config == read_config(recipe)
    assert [line.split()[1] for line in told] == ["iou_t"]


@pytest.mark.parametrize(("value", "assigner"), [(0, "simple"), (1, "ota")])
def test_the_assigner_is_that_of_the_file(tmp_path: Path, value: int, assigner: str) -> None:
    for config in ("yolov7-coco", "yolov5n-coco"):
        hyp = write(tmp_path, f"loss_ota: {value}\nlabel_smoothing: 0.1")
        loss = read_config(config, hyp=hyp).loss
        assert (loss.assigner, loss.label_smoothing) == (assigner, 0.1)


def test_overrides_come_last_and_the_rest_is_the_configuration(tmp_path: Path) -> None:
    hyp = write(tmp_path, "lr0: 2e-2\nmosaic: 0.5")
    config = read_config("yolov7-tiny-coco", ["optim.lr0=0.03"], hyp=hyp)
    assert config == read_config("yolov7-tiny-coco", ["augment.mosaic=0.5", "optim.lr0=0.03"])


def test_keys_without_effect_are_warned_of(tmp_path: Path) -> None:
    hyp = write(tmp_path, "anchors: 0")
    with pytest.warns(UserWarning, match=r"hyp.yaml: anchors: 0 has no effect.*model\.anchors"):
        assert read_config("debug", hyp=hyp) == read_config("debug")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("anchors: 3", r"anchors is 3, but .* belongs to the network; leave"),
        ("loss_ota: 2", r"loss_ota is 2; expected 1 .* or 0"),
        ("loss_ota: yes please", r"loss_ota is 'yes please'; expected 1"),
        ("momentun: 0.9", r"momentun is not a hyper-parameter .*did you mean 'momentum'\?"),
        ("mosaics: 1", r"mosaics is not .*'mosaic'\?"),
        ("zzzzzz: 1", r"zzzzzz is not a hyper-parameter of yolov5 or yolov7; leave it out"),
        ("hsv_h: 0.5", r"augment\.hsv_h is 0\.5; expected a number from 0 to 0\.4"),
        ("momentum: high", r"optim\.momentum is 'high'; expected a number"),
        ("lr0:", r"optim\.lr0 is None; expected a number"),
        ("- 1", r"expected keys of a hyper-parameter file"),
        ("box: [1", r"line"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read_config("debug", hyp=write(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path / "hyp.yaml"))
    assert "\n" not in str(caught.value)


def test_train_takes_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hyp = str(write(tmp_path, FILES["recipe-tiny"]))
    assert main(["train", "yolov7-coco", "train.epochs=7", "--hyp", hyp, "--settings"]) == 0
    printed = capsys.readouterr()
    assert re.search(r"^optim\.lrf=0\.01 ", printed.out, re.MULTILINE)
    assert re.search(r"^train\.epochs=7", printed.out, re.MULTILINE)
    assert printed.err.splitlines() == [
        next(line for line in printed.err.splitlines() if "iou_t has no effect" in line)
    ]
    assert main(["train", "--resume", str(tmp_path), "--hyp", hyp]) == 2
    assert "--hyp" in capsys.readouterr().err
    assert main(["train", "--hyp", hyp, "--settings"]) == 2
