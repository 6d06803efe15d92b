"""What an artefact says of itself: all that one needs to use it and to know where it comes from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from yolov7_jax.config import Options
from yolov7_jax.data.letterbox import GRAY
from yolov7_jax.errors import InputError

FORMAT = "yolov7_jax.artefact.1"


@dataclass(frozen=True)
class Facts:
    """What an artefact says of itself.

    names: of the classes. size: (h, w) of its images in pixels; None where any multiples of the stride will do.
    input_size: the longer side of images that the network is meant for. stride: the largest. dtype: of the computation.
    source: file and sha256 of the weights. program: sha256 of the program in it. confidence, iou: default thresholds.
    padding: the gray around images. versions: of the libraries that wrote it. platforms: of each whether the program
    was run there ("run"), or lowered for it alone ("lowered"). differences: from the source, as `export` measured them
    on photographs before the file got its name.
    """

    names: tuple[str, ...]
    size: tuple[int, int] | None
    input_size: int
    stride: int
    dtype: str
    source: Mapping[str, str]
    program: str
    confidence: float = Options.confidence
    iou: float = Options.iou
    padding: int = GRAY
    versions: Mapping[str, str] = field(default_factory=dict)
    platforms: Mapping[str, str] = field(default_factory=dict)
    differences: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """As text, with a digest of all of it."""
        content = {"format": FORMAT, **asdict(self)}
        return json.dumps({**content, "digest": _digest(content)}, ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes | None) -> Facts:
        """The facts of a text that `to_json` wrote. None: a file has no such text.

        Raises:
            InputError: it is no such text, or was changed.
        """
        if text is None:
            raise InputError("is no detector that yolov7-jax exported: it says nothing of itself; export the weights")
        try:
            content = json.loads(text)
            digest = content.pop("digest")
            if content.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            if digest != _digest({"format": FORMAT, **content}):
                raise ValueError("it was changed after it was written")
            size = content["size"]
            return cls(**{**content, "names": tuple(content["names"]), "size": None if size is None else tuple(size)})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"what it says of itself cannot be used ({error}); export it again") from error

    def of_program(self, program: bytes) -> Facts:
        """The same for this program."""
        return replace(self, program=sha256(program))

    def check_program(self, program: bytes) -> None:
        """Refuses another program than was proven.

        Raises:
            InputError: it is another one.
        """
        if sha256(program) != self.program:
            raise InputError("its program is not the one that was written (sha256 differs); export it again")


def sha256(content: bytes) -> str:
    """The SHA-256 of bytes, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _digest(content: Mapping[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode())
