"""The command `yolov7-jax`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence

from yolov7_jax import __version__
from yolov7_jax.errors import InputError

COMMANDS: Mapping[str, str] = {
    "demo": "train a small network on drawn images, and show what came of it",
    "train": "train a network on labeled images",
    "detect": "find objects in images",
    "val": "measure COCO average precision on labeled images",
    "summary": "show layers, shapes, parameters and operations of a network",
    "convert": "turn PyTorch weights into .safetensors, and back",
    "reparam": "fold weights into their inference form",
    "data": "check, draw, count, convert and split labeled images",
    "anchors": "see how anchors fit the boxes of a data set, and find better ones",
    "ablate": "run an ablation of the YOLOv7 paper, small or in full, and write its table",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status: 0, 1 where parts of the work failed, 2 for wrong input."""
    parser = argparse.ArgumentParser(prog="yolov7-jax", description="YOLOv7 and its family in JAX.")
    parser.add_argument("--version", action="version", version=f"yolov7-jax {__version__}")
    parser.add_argument(
        "--no-compilation-cache", action="store_true", help="compile anew, and do not keep compiled programs"
    )
    parser.add_argument(
        "--import",
        action="append",
        default=[],
        dest="imports",
        metavar="MODULE",
        help="a module of yours that registers parts; repeatable",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        importlib.import_module(f"yolov7_jax.cli.{name}").configure(command)
    parsed, rest = parser.parse_known_args(arguments)
    _add_settings(parser, parsed, rest)
    try:
        if parsed.imports:
            from yolov7_jax.registry import import_modules

            import_modules(parsed.imports)
        if not parsed.no_compilation_cache:
            from yolov7_jax.compilation_cache import enable_compilation_cache

            enable_compilation_cache()
        return importlib.import_module(f"yolov7_jax.cli.{parsed.command}").run(parsed)
    except InputError as error:
        print(f"yolov7-jax: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder whose rights were taken away
        where = f"{error.filename}: " if error.filename else ""
        print(f"yolov7-jax: {where}{error.strerror or error}; make room or choose another place", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("yolov7-jax: interrupted", file=sys.stderr)
        return 130


def _add_settings(parser: argparse.ArgumentParser, parsed: argparse.Namespace, rest: Sequence[str]) -> None:
    """Adds settings that stand after options to the others; argparse of Python 3.11 leaves them over."""
    unknown = [text for text in rest if text.startswith("-") or "=" not in text or not hasattr(parsed, "overrides")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        parsed.overrides = [*parsed.overrides, *rest]


if __name__ == "__main__":
    sys.exit(main())
