"""What a training run began with, kept in its folder: what may change when it is resumed, what on another host."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from yolov7_jax.config import Config
from yolov7_jax.config_file import REPLACED, by_name, config_dict
from yolov7_jax.errors import InputError
from yolov7_jax.files import write_atomically, yaml_text
from yolov7_jax.graph.spec import Graph
from yolov7_jax.source import SourceMixin
from yolov7_jax.training import hosts

CONFIG, NETWORK, CHECKPOINTS = "config.yaml", "network.json", "checkpoints"
"""What a run folder holds beside its log, weights and figures."""

_CHANGEABLE = {
    "train": "epochs val_every_epochs checkpoint_every_steps best_by max_nonfinite patience time_limit save_period "
    "val_loss figures loggers remat shard_state memory_limit",
    "data": "path images val_path val_images val_split workers processes cache cache_images cache_gb on_error",
    "val": "confidence iou batch_size resize",
}
CHANGEABLE = tuple(f"{section}.{key}" for section, keys in _CHANGEABLE.items() for key in keys.split())
"""The settings that a run may be resumed with others of: none says what an iteration is."""

IMMATERIAL = (
    *("data.workers", "data.processes", "data.cache_images", "data.cache_gb", "train.loggers", "train.val_loss"),
    *("train.figures", "train.checkpoint_every_steps", "train.save_period", "train.memory_limit", "val.batch_size"),
)
"""Settings that may differ between runs that are compared, for they change no result."""

_OF_A_HOST = (
    "model.name", "model.weights", "data.path", "data.images", "data.val_path", "data.val_images", "data.workers",
    "data.processes", "data.cache", "data.cache_images", "data.cache_gb",
)  # fmt: skip
"""The settings that processes of one run may have others of."""


def differences(config: Config, stored: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Any, Any]]:
    """Each setting that changes a result and is stored otherwise: its key, what is stored, what it is now."""
    there = by_name(stored)
    for key, value in by_name(config_dict(config)).items():
        if there.get(key) != value and key not in IMMATERIAL:
            yield key, there.get(key), value


class Beginning(NamedTuple):
    """What a run began with: network, classes, number of training images, what was given, settings.

    The number of a step means nothing without them: images and batch size say which epoch it is in, the seed and the
    augmentation which batch it sees.
    """

    graph: Graph
    names: tuple[str, ...]
    images: int
    given: list[str]
    settings: dict[str, dict[str, Any]]

    def keep(self, config: Config, folder: Path) -> None:
        """Writes it beside the settings of now, if all processes of the run have them."""
        hosts.check_same(lambda: self._same_everywhere(config))
        with hosts.all_or_none():
            if hosts.is_first():  # the others have read it
                write_atomically(folder / NETWORK, json.dumps({**self._asdict(), "graph": self.graph.to_json()}))
                write_atomically(folder / CONFIG, yaml_text(config_dict(config)))

    @classmethod
    def read(cls, folder: Path) -> Beginning:
        """What the run in a folder began with.

        Raises:
            InputError: it cannot be read.
        """
        file = folder / NETWORK
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            graph, names, images = Graph.from_json(content["graph"]), tuple(content["names"]), int(content["images"])
            return cls(graph, names, images, list(content["given"]), dict(content["settings"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file}: cannot be read ({error}); the run cannot go on without its network") from error

    def changes(self, config: Config, folder: Path) -> list[str]:
        """A sentence for each setting that is not as it was.

        Raises:
            InputError: it may not change, or it is none of this version.
        """
        now = by_name(config_dict(config))
        began = {key: value for key, value in by_name(self.settings).items() if key not in REPLACED}
        if gone := sorted(began.keys() - now):
            raise InputError(
                f"{folder}: another version began this run, with a setting {gone[0]}, which is none here; resume it "
                f"with that version, or begin a new run from its weights (model.weights={folder})"
            )
        changed = [(key, value, now[key]) for key, value in began.items() if now[key] != value]
        for key, before, value in changed:
            if key not in CHANGEABLE:
                raise InputError(
                    f"{folder}: {key} is {value!r}, but the run began with {before!r}; set it back to resume, or begin "
                    f"a new run from its weights (model.weights={folder}); what may change is {', '.join(CHANGEABLE)}"
                )
        lines = [f"{key} is {value!r}; the run began with {before!r}" for key, before, value in changed]
        if any(key == "train.epochs" for key, *_ in changed):
            lines.append("learning rates follow the schedule of the new length from here on")
        return lines

    def _same_everywhere(self, config: Config) -> dict[str, Any]:
        """What has to be the same in all processes of a run; places of files and workers may differ."""
        settings = {key: value for key, value in by_name(config_dict(config)).items() if key not in _OF_A_HOST}
        network = {"the network": self.graph.to_json(), "the list of classes": self.names}
        return {**settings, **network, "the number of training images": self.images, "what is given": self.given}

    def check_given(self, kinds: list[str], folder: Path) -> None:
        """Refuses other kinds of parts than were given then (`setup.kinds_of`)."""
        if self.given != kinds:
            raise InputError(
                f"{folder}: the run began with {', '.join(self.given) or 'nothing'} given in place of its settings, "
                f"now {', '.join(kinds) or 'nothing'} is: give the same to resume"
            )

    def check_data(self, source: SourceMixin, folder: Path) -> None:
        """Refuses another number of images, and other classes."""
        if (self.images, self.names) != (len(source), source.names):
            raise InputError(
                f"{folder}: the run began with {self.images} training images and the classes {', '.join(self.names)}; "
                f"now there are {len(source)} and {', '.join(source.names)}: bring back the data, or begin a new run "
                f"from its weights (model.weights={folder})"
            )
