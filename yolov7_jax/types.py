"""The values that cross between packages. Sizes are named as in the documentation.

`B` images, `M` padded boxes of an image, `N` predictions of an image over all levels, `L` levels, `A` anchors of a
level, `C` classes, `K` candidate slots of a box, `P` = M·K, `D` detections kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import jax

Array: TypeAlias = "jax.Array | NDArray[Any]"
"""An array of numpy, where a batch is made, or of JAX, where it is used."""

ArrayT = TypeVar("ArrayT", "jax.Array", "NDArray[Any]")
"""The same, in functions with one body for both: they return what they are given."""

Scalar: TypeAlias = "jax.Array | float"
"""A number, or one that is traced."""


class Grid(NamedTuple):
    """Where the predictions of one image size live: rows are ordered level, row, column, anchor.

    cell: float [N, 2], column and row (x, y) of the cell. stride: float [N], pixels of a cell.
    anchor_px: float [N, 2], width and height of the anchor. levels: the slice of N that each level owns. center_bound:
    how far beyond its cell a predicted center can lie, in cells.
    """

    cell: Array
    stride: Array
    anchor_px: Array
    levels: tuple[slice, ...]
    center_bound: float = 0.5


class Outputs(NamedTuple):
    """Raw outputs of a network, before any sigmoid: lead [B, N, 5 + C] and, in training forms that have one, aux."""

    lead: jax.Array
    aux: jax.Array | None = None


class Candidates(NamedTuple):
    """The predictions that may become positives of each box, from boxes and anchors alone; slots not `valid` hold 0.

    index: int32 [B, M, K] into N. valid: bool [B, M, K].
    """

    index: Array  # type: ignore[assignment]  # a field named as a method of tuples, which nothing calls
    valid: Array


class Assignment(NamedTuple):
    """Which candidates are positives, and of which box.

    index: int32 [B, P] into N. truth: int32 [B, P] into M. positive: bool [B, P].
    """

    index: jax.Array  # type: ignore[assignment]
    truth: jax.Array
    positive: jax.Array


class Batch(NamedTuple):
    """What a training step sees; padded boxes are zero and not `valid`.

    image: uint8 [B, H, W, 3] RGB. boxes_cxcywh_px: float32 [B, M, 4]. class_ids: int32 [B, M]. valid: bool [B, M].
    fine: candidates of the lead head. coarse: those of an auxiliary head, where the loss has one.
    overflow: int32 [B, 2], boxes over M and candidates over K, which were left out.
    index: int32 [B], which image of the source each one was made around.
    """

    image: Array
    boxes_cxcywh_px: Array
    class_ids: Array
    valid: Array
    fine: Candidates
    coarse: Candidates | None
    overflow: Array
    index: Array  # type: ignore[assignment]


class Rates(NamedTuple):
    """What the optimizer works with at one iteration: a learning rate for each parameter group, and the momentum."""

    norm: Scalar
    weight: Scalar
    bias: Scalar
    momentum: Scalar


class PaddedDetections(NamedTuple):
    """Detections of fixed size on the device, best score first; rows that are not `valid` are zero.

    boxes_xyxy_px: float [B, D, 4]. scores: float [B, D]. class_ids: int32 [B, D]. valid: bool [B, D].
    overflow: int32 [B], candidates beyond the capacity of NMS, which were left out.
    """

    boxes_xyxy_px: jax.Array
    scores: jax.Array
    class_ids: jax.Array
    valid: jax.Array
    overflow: jax.Array


class Detection(NamedTuple):
    """One object that was found.

    box_xyxy_px: float32 [4] in pixels of the source image. label: the name of its class. track_id: the number of the
    object over the frames of a video, where they are tracked.
    """

    box_xyxy_px: NDArray[np.float32]
    score: float
    class_id: int
    label: str
    track_id: int | None = None


_COLUMNS = "boxes_xyxy_px", "scores", "class_ids", "track_ids"


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """What was found in one image, best score first.

    A list of `Detection`: `found[0]`, `for one in found`, `len(found)`. Rows are chosen as those of arrays:
    `found[found.scores > 0.5]`, `found[:3]`.

    boxes_xyxy_px: float32 [n, 4] in pixels of the source image. scores: float32 [n]. class_ids: int32 [n].
    names: the names of all classes. overflow: candidates that NMS had no room for (0 but in crowds). track_ids: int32
    [n], the number of each object over the frames of a video, where they are tracked.
    """

    boxes_xyxy_px: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    names: tuple[str, ...]
    overflow: int = 0
    track_ids: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        return (self[place] for place in range(len(self)))

    @overload
    def __getitem__(self, which: int | np.integer[Any]) -> Detection: ...

    @overload
    def __getitem__(self, which: slice | NDArray[Any] | Sequence[Any]) -> Self: ...

    def __getitem__(self, which: Any) -> Detection | Self:
        """One object by its place, or those that a slice, a mask bool [n] or places name."""
        if isinstance(which, int | np.integer):
            tracked = None if self.track_ids is None else int(self.track_ids[which])
            score, class_id = float(self.scores[which]), int(self.class_ids[which])
            return Detection(self.boxes_xyxy_px[which], score, class_id, self.names[class_id], tracked)
        rows = which if isinstance(which, slice) else np.asarray(which, None if len(which) else np.intp)
        columns: dict[str, Any] = {name: getattr(self, name) for name in _COLUMNS}
        return replace(self, **{name: whole[rows] for name, whole in columns.items() if whole is not None})

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of the class of each."""
        return tuple(self.names[class_id] for class_id in self.class_ids)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.summary()}>"

    def summary(self) -> str:
        """How many of which class, most first: "3 person, 1 bus"."""
        counted = Counter(self.labels).most_common()
        return ", ".join(f"{count} {label}" for label, count in counted) or "nothing found"


class Polygons(NamedTuple):
    """The polygons of the objects of an image, all in a row; an object has several, one or none.

    points_xy_px: float32 [p, 2], their corners. corners: int32 [k], how many each polygon has. owner: int32 [k], the
    object that each is of, ascending.
    """

    points_xy_px: NDArray[np.float32]
    corners: NDArray[np.int32]
    owner: NDArray[np.int32]


NO_POLYGONS = Polygons(np.zeros((0, 2), np.float32), np.zeros(0, np.int32), np.zeros(0, np.int32))


class Sample(NamedTuple):
    """One labeled image of a data source.

    image: uint8 [h, w, 3] RGB. boxes_xyxy_px: float32 [n, 4] in its pixels. class_ids: int32 [n].
    id: what the data set calls it, such as the image id of COCO JSON. polygons: of those objects that have some, whose
    box is the box around them.
    """

    image: NDArray[np.uint8]
    boxes_xyxy_px: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    id: int = 0
    polygons: Polygons = NO_POLYGONS


OnError = Literal["stop", "skip", "note"]
"""Stop at an entry that is wrong, skip and report it, or also report what is odd and may be meant, as warnings."""


class Issue(NamedTuple):
    """What is wrong or odd with an entry of a data set.

    severity: an error leaves the entry out, a warning may be meant. kind: a few words to count such issues by.
    message: a sentence that names file and line. split, image: where a check of a whole data set found it, the latter
    as index in the split.
    """

    severity: Literal["error", "warning"]
    kind: str
    message: str
    split: str | None = None
    image: int | None = None

    def __str__(self) -> str:
        return self.message


def _no_boxes() -> NDArray[np.float64]:
    return np.zeros((0, 4))


def _no_classes() -> NDArray[np.int32]:
    return np.zeros(0, np.int32)


@dataclass(frozen=True, eq=False, kw_only=True)
class Labels:
    """The objects of one image, those that are neither wanted nor held against a detector, and how many were left out.

    size: (h, w) of the image in pixels. class_ids: int32 [n]. boxes_xyxy_px: float64 [n, 4], which may reach beyond the
    image. polygons: of those objects that have some; their box is the one that the labels give, else the one
    around them. ignored_class_ids, ignored_boxes_xyxy_px: the same of crowds and difficult objects. duplicates: objects
    left out because an equal one came before. empty: objects left out because their box has no area. unlisted: objects
    left out because their class is not asked for. issues: errors of others that were left out, and warnings if the
    source reports them. missing: there is no file of labels.
    """

    size: tuple[int, int]
    class_ids: NDArray[np.int32]
    boxes_xyxy_px: NDArray[np.float64]
    polygons: Polygons = NO_POLYGONS
    ignored_class_ids: NDArray[np.int32] = field(default_factory=_no_classes)
    ignored_boxes_xyxy_px: NDArray[np.float64] = field(default_factory=_no_boxes)
    duplicates: int = 0
    empty: int = 0
    unlisted: int = 0
    issues: tuple[Issue, ...] = ()
    missing: bool = False


NO_LABELS = Labels(size=(0, 0), class_ids=_no_classes(), boxes_xyxy_px=_no_boxes(), missing=True)
"""Of an image of which nothing is known."""


RECALL_THRESHOLDS = np.linspace(0, 1, 101)  # R
CONFIDENCES = np.arange(1001) / 1000  # S


class ClassResult(NamedTuple):
    """Average precision of one class, NaN where the ground truth has no box of it, and the number of its boxes."""

    name: str
    AP: float
    AP50: float
    boxes: int


@dataclass(frozen=True, eq=False)
class CocoResult:
    """Average precision (AP) and recall (AR) as fractions; NaN where the ground truth has nothing to find.

    AP is the mean over IoU 0.50 to 0.95, the classes and 101 recalls; AP50 and AP75 are at one IoU. _small, _medium and
    _large count boxes of area under 32², under 96² and above. AR_1, AR_10, AR_100: at most so many detections of a
    class in an image. precision, recall, f1: at IoU 0.50 of detections that score more than `confidence`, means over
    the classes; it is the one of `CONFIDENCES` at which f1 is largest, the lowest of several.

    per_class: in the order of category ids. precision_over_recall: float64 [T, R, K], over `IOU_THRESHOLDS`,
    `RECALL_THRESHOLDS` and classes. by_confidence: float64 [3, S, K], precision, recall and F1 at IoU 0.50 over
    `CONFIDENCES` and classes. Both are NaN for classes without boxes; curves are drawn from them.
    """

    AP: float
    AP50: float
    AP75: float
    AP_small: float
    AP_medium: float
    AP_large: float
    AR_1: float
    AR_10: float
    AR_100: float
    AR_small: float
    AR_medium: float
    AR_large: float
    precision: float
    recall: float
    f1: float
    confidence: float
    per_class: tuple[ClassResult, ...]
    precision_over_recall: NDArray[np.float64]
    by_confidence: NDArray[np.float64]

    def numbers(self) -> dict[str, float]:
        """COCO's twelve numbers by name, in its order, then precision, recall, f1 and confidence."""
        return {name: value for name, value in vars(self).items() if isinstance(value, float)}
