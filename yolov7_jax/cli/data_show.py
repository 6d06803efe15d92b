"""`yolov7-jax data show DATA` and `yolov7-jax data show CONFIG [KEY=VALUE...]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the action."""
    parser.add_argument(
        "source",
        metavar="DATA|CONFIG",
        help="a data set, whose images and labels are drawn as they are (mine.yaml, a COCO JSON, a VOC folder); or a "
        "configuration, whose training samples are drawn as they are augmented (yolov7-tiny-coco, config.yaml)",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings such as data.path=mine.yaml")
    parser.add_argument("--num-images", type=int, default=8, help="how many images or samples (default 8)")
    parser.add_argument("--output", type=Path, default=Path("runs/show"), help="folder (default runs/show)")
    data = parser.add_argument_group("of a data set")
    data.add_argument("--split", default="train", help="of a data YAML or VOC folder (default train)")
    data.add_argument("--image-dir", type=Path, help="folder with the images of a COCO JSON")
    data.add_argument("--seed", type=int, default=0, help="of the choice of images (default 0)")
    data.add_argument("--issues-first", action="store_true", help="begin with images whose labels are wrong")
    samples = parser.add_argument_group("of a configuration")
    samples.add_argument(
        "--assign", action="store_true", help="also draw which cells are candidates and positives for each box"
    )


def run(parsed: argparse.Namespace) -> int:
    """Draws, and names the figures."""
    for file in _labels(parsed) if _is_data(parsed.source) else _samples(parsed):
        print(file)
    return 0


def _is_data(source: str) -> bool:
    """Whether it names a data set: a YAML file with names of classes, or what is neither YAML nor a configuration."""
    from yolov7_jax.config_file import config_names
    from yolov7_jax.files import read_yaml

    path = Path(source)
    if path.suffix.lower() in (".yaml", ".yml"):
        content = read_yaml(path)
        return isinstance(content, dict) and not content.keys().isdisjoint({"names", "nc"})
    return source not in config_names() and (path.suffix.lower() == ".json" or path.is_dir() or ":" in source)


def _labels(parsed: argparse.Namespace) -> list[Path]:
    from yolov7_jax.cli.console import progress
    from yolov7_jax.errors import InputError
    from yolov7_jax.experiment import show_labels

    if parsed.overrides or parsed.assign:
        raise InputError(
            f"{parsed.source}: is a data set, which has no settings and no assignment; name a configuration, and the "
            f"data as data.path={parsed.source}"
        )
    done = show_labels(
        parsed.source,
        parsed.output,
        split=parsed.split,
        image_folder=parsed.image_dir,
        images=parsed.num_images,
        seed=parsed.seed,
        issues_first=parsed.issues_first,
        progress=progress,
    )
    for sentence in done.issues:
        print(sentence, file=sys.stderr)
    return done.files


def _samples(parsed: argparse.Namespace) -> list[Path]:
    from yolov7_jax.cli.console import TrainingConsole
    from yolov7_jax.config_file import read_config
    from yolov7_jax.experiment import show_samples

    config = read_config(parsed.source, parsed.overrides)
    with TrainingConsole() as console:
        return show_samples(
            config,
            parsed.output,
            images=parsed.num_images,
            assign=parsed.assign,
            callbacks=[console],
            progress=console.progress,
        )
