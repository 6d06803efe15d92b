"""The command `yolov7-jax`."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from yolov7_jax import __version__
from yolov7_jax.errors import GoneError, InputError

COMMANDS: Mapping[str, str] = {
    "demo": "train a small network on drawn images, and report how well it detects",
    "train": "train a network on labeled images",
    "plan": "see what a training step takes on chips that need not be there: memory, time, transfers",
    "detect": "find objects in images",
    "val": "measure COCO average precision on labeled images",
    "summary": "show layers, shapes, parameters and operations of a network",
    "convert": "turn PyTorch weights into .safetensors, and back",
    "export": "write a detector for another runtime, once it finds there what it finds here",
    "reparam": "fold weights into their inference form",
    "data": "check, draw, count, convert and split labeled images",
    "anchors": "see how anchors fit the boxes of a data set, and find better ones",
    "tune": "search for settings with which a run scores higher, and report what matters",
    "ablate": "run an ablation of the YOLOv7 paper, small or in full, and write its table",
}


_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_TUNABLES, _LARGE_PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status: 0, 1 where parts of the work failed, 2 for wrong input.

    arguments: those of the command line if None; then commands that train begin the process anew with large pages.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser(given)
    parsed, rest = parser.parse_known_args(given)
    _add_settings(parser, parsed, rest)
    if arguments is None and _trains(parsed):
        _begin_with_large_pages()
    try:
        return _run(parsed)
    except GoneError as error:
        problem = str(error)
        if arguments is None:
            _leave_at_once(problem)
    except InputError as error:
        problem = str(error)
    except OSError as error:  # a full disk, a folder whose rights were taken away
        where = f"{error.filename}: " if error.filename else ""
        problem = f"{where}{error.strerror or error}; make room or choose another place"
    except KeyboardInterrupt:
        print("yolov7-jax: interrupted", file=sys.stderr)
        return 130
    print(f"yolov7-jax: {problem}", file=sys.stderr)
    return 2


def _leave_at_once(problem: str) -> NoReturn:
    """Ends this process with a sentence: JAX would wait for those who are gone, and then abort."""
    print(f"yolov7-jax: {problem}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(2)


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    """Knows all commands, and the arguments of those that are given: the others need not be imported."""
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
        if name in given:
            _module(name).configure(command)
    return parser


def _run(parsed: argparse.Namespace) -> int:
    if parsed.imports:
        from yolov7_jax.registry import import_modules

        import_modules(parsed.imports)
    _silence_libraries()
    from yolov7_jax.compilation_cache import enable_compilation_cache

    enable_compilation_cache("off" if parsed.no_compilation_cache else None)
    status: int = _module(parsed.command).run(parsed)
    return status


def _trains(parsed: argparse.Namespace) -> bool:
    """Whether it trains, and does not only print."""
    only_prints = any(getattr(parsed, name, False) for name in ("settings", "plan", "report"))
    return parsed.command in ("train", "demo", "ablate", "tune") and not only_prints


def _begin_with_large_pages() -> None:
    """Begins this process anew, before it has done anything, where Linux would give it large memory pages then."""
    modes = _PAGES.read_text() if _PAGES.is_file() else ""
    environment = environment_with_large_pages(sys.platform, modes, os.environ)
    if environment is None or not sys.executable:
        return
    print(
        f"yolov7-jax: begins anew with large memory pages; {_TUNABLES}={_LARGE_PAGES}=0 keeps it from doing so",
        file=sys.stderr,
        flush=True,
    )
    with suppress(OSError):  # it goes on without
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def environment_with_large_pages(platform: str, modes: str, environment: Mapping[str, str]) -> dict[str, str] | None:
    """The environment in which glibc asks for large pages; None where they are not to be had or it says so already.

    Args:
        platform: as `sys.platform` names it.
        modes: what the kernel says of them, such as "always [madvise] never".
        environment: of the process.
    """
    given = environment.get(_TUNABLES, "")
    if platform != "linux" or not ("[always]" in modes or "[madvise]" in modes) or _LARGE_PAGES in given:
        return None
    return {**environment, _TUNABLES: ":".join(filter(None, (given, f"{_LARGE_PAGES}=1")))}


def _silence_libraries() -> None:
    """Keeps what Orbax and others log for their developers out of commands; what fails there raises, too."""
    for name in ("absl", "orbax"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [logging.NullHandler()], False


def _module(command: str) -> Any:
    return importlib.import_module(f"yolov7_jax.cli.{command}")


def _add_settings(parser: argparse.ArgumentParser, parsed: argparse.Namespace, rest: Sequence[str]) -> None:
    """Adds settings that stand after options to the others; argparse of Python 3.11 leaves them over."""
    unknown = [text for text in rest if text.startswith("-") or "=" not in text or not hasattr(parsed, "overrides")]
    if unknown:
        from yolov7_jax.config_peers import peer_argument, peer_option

        known = peer_argument(unknown[0]) if hasattr(parsed, "overrides") else None
        if parsed.command in ("detect", "val") and (option := peer_option(unknown[0])):
            known = f"it is called --{option.replace('_', '-')} here"
        parser.error(f"{unknown[0]}: {known}" if known else f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        parsed.overrides = [*parsed.overrides, *rest]
