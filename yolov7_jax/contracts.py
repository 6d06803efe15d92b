"""What users bring, and the built-in parts are: an assigner, a loss, an optimizer, each a function of one signature.

Transforms of training samples are such functions too.

Any object that can be called so will do; frozen dataclasses do well, for two that are equal compile one step.
`callbacks.Callback` and `source.Source` are the contracts of what looks on and of labeled images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from yolov7_jax.config import LossConfig, OptimConfig
from yolov7_jax.types import Assignment, Batch, Candidates, Grid, Outputs, Rates, Sample

if TYPE_CHECKING:
    import jax
    import optax

IMAGES = "images"
"""The name of the axis over which an assigner is `vmap`ped: the images that one device has of a batch.

`lax.pmax(x, IMAGES)` is the largest of all of them, such as the length of a loop that they take together. How many
there are depends on the devices, so no assignment should depend on it.
"""


class Assigner(Protocol):
    """Decides which predictions of one image are positives, and of which box.

    No gradient should flow through the choice: `lax.stop_gradient` what it is made of. All shapes are static, so P,
    the number of slots, must not depend on values: pad, and set `positive` to False there.
    """

    def __call__(
        self,
        raw: jax.Array,
        boxes_cxcywh_px: jax.Array,
        class_ids: jax.Array,
        valid: jax.Array,
        candidates: Candidates,
        grid: Grid,
        /,
    ) -> Assignment:
        """The assignment of one image, with index [P], truth [P] and positive [P].

        Args:
            raw: float [N, 5 + C], outputs before the sigmoid; `ops.decode.decode(raw, grid)` makes boxes and scores.
            boxes_cxcywh_px: float [M, 4], padded.
            class_ids: int32 [M].
            valid: bool [M], False for padding.
            candidates: [M, K], from boxes and anchors alone; one may use or ignore them.
            grid: where the N predictions live.
        """


class LossFn(Protocol):
    """The loss of a batch, to be differentiated with respect to the raw outputs.

    A loss with a state that training carries on (and checkpoints hold) has two methods more: `initial_state()` gives a
    tree of arrays, which is the fourth argument from then on, and `next_state(state, items)` the one after a step,
    or after each micro-batch of one (optim.micro_batch).
    """

    def __call__(self, outputs: Outputs, batch: Batch, grid: Grid, /) -> tuple[jax.Array, Mapping[str, jax.Array]]:
        """The loss, float [], and its items by name: scalars, which the log shows.

        Of several micro-batches (optim.micro_batch) the losses are summed, and the items that are integers; the others
        are averaged.
        """


class LossSetup(NamedTuple):
    """What a loss is made for. size: the side of training images in pixels. strides: of the levels, in pixels.

    assigner: of the lead head, and of an auxiliary head unless the loss makes another; None for that of the settings.
    """

    strides: tuple[int, ...]
    num_classes: int
    has_aux: bool
    size: int
    assigner: Assigner | None = None


class LossFactory(Protocol):
    """What `register_loss` takes."""

    def __call__(self, config: LossConfig, setup: LossSetup, /) -> LossFn:
        """The loss of a run."""


class OptimizerFactory(Protocol):
    """Makes the optimizer of one step; its state must have the same structure at all of them."""

    def __call__(self, now: Rates, labels: Any, config: OptimConfig, /) -> optax.GradientTransformation:
        """Any optax transformation, whose updates are added to the weights.

        Args:
            now: learning rates and momentum of this step, traced: `optax.lion(now.weight)`.
            labels: the parameter group of each weight, a tree like the weights: "weight", "bias", "norm", "frozen".
            config: settings; weight_decay is scaled to the images of an update.
        """


class Transform(Protocol):
    """Changes a finished training sample: after mosaic, warp, colors and flips, just before it goes into a batch.

    Several threads call it at once; worker processes get it by pickling, so it should be a function or class at the top
    of a module.
    """

    def __call__(self, rng: np.random.Generator, sample: Sample, /) -> Sample:
        """The sample with another image of the same shape, and labels that fit it.

        Objects may be moved, left out and added. Boxes may reach beyond the image: they are clipped, and objects of
        which too little is left are left out. Where data have polygons, they move with the boxes, or are left out.

        Args:
            rng: the one source of chance: samples are functions of seed, epoch and position, so that runs can be
                repeated and resumed.
            sample: image uint8 [h, w, 3] RGB, boxes_xyxy_px float32 [n, 4] in its pixels, class_ids int32 [n], polygons
                of those objects that have some; its arrays may be written to.
        """
