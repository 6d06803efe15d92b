"""Errors that speak to the user: one sentence that names the file, line or key, what was expected and what to do."""

from __future__ import annotations


class InputError(ValueError):
    """Something given from outside is wrong; commands print the sentence and leave with a non-zero status."""


class InstallationError(InputError):
    """Something outside the package is missing; says what to install."""


class GraphError(InputError):
    """A network's description (YAML, dict, graph) is wrong; names the layer, and the file and line where known."""


class WeightsError(InputError):
    """A weights file cannot be read, or does not fit its network; names the file and the tensors."""


class DataError(InputError):
    """A data set, an annotation or an image cannot be used; names the file and, where there is one, the line.

    kind: two or three words that such errors are counted by.
    """

    def __init__(self, sentence: str, *, kind: str = "other") -> None:
        super().__init__(sentence)
        self.kind = kind


class DifferenceError(InputError):
    """An artefact does not find what its source finds; says what differs, and by how much."""


class GoneError(InputError):
    """Another process of the same work is gone, or was broken off: nothing in common can go on."""

    @classmethod
    def told_by(cls, error: Exception) -> GoneError:
        """From what JAX says of it in many lines."""
        reason = str(error).partition("\n")[0]
        return cls(f"another process is gone ({reason}); start all again, a run with --resume")
