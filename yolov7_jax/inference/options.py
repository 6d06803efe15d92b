"""What is asked of detection: options by their names, classes by names and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.config import Options
from yolov7_jax.config_peers import peer_option
from yolov7_jax.errors import InputError
from yolov7_jax.registry import nearest


def options_of(given: Mapping[str, Any]) -> Options:
    """`Options` from keyword arguments.

    Raises:
        InputError: there is no such option; names the nearest.
    """
    known = [field.name for field in fields(Options)]
    for name in given:
        if name not in known:
            peer = peer_option(name)
            place = "" if peer in known else " of Detector.load" if peer == "size" else " of the command detect"
            hint = f" (it is called {peer}{place} here)" if peer else nearest(name, known)
            raise InputError(f"there is no option {name!r}{hint}; expected {', '.join(known)}")
    return Options(**given)


def class_mask(classes: Sequence[int | str] | int | str | None, names: Sequence[str]) -> NDArray[np.bool_]:
    """Which classes are wanted, bool [C], from numbers and names.

    Raises:
        InputError: a class that the network does not know.
    """
    if classes is None:
        return np.ones(len(names), bool)
    mask = np.zeros(len(names), bool)
    for wanted in [classes] if isinstance(classes, int | str) else classes:
        number = names.index(wanted) if wanted in names else wanted
        if isinstance(number, str) and number.isdecimal():
            number = int(number)
        if not isinstance(number, int) or not 0 <= number < len(names):
            raise InputError(
                f"class {wanted!r} is not known; expected a number from 0 to {len(names) - 1} or one of "
                f"{', '.join(names)}"
            )
        mask[number] = True
    return mask
