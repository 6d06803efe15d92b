"""What remains of a data set without what a check found wrong."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from yolov7_jax.datasets import open_source
from yolov7_jax.datasets.curate.check import LEAK, ROTATED, Report
from yolov7_jax.datasets.curate.conversion import ProgressBar, content_of, format_of
from yolov7_jax.datasets.writers import Written, write_data
from yolov7_jax.errors import DataError


def fix_data(
    data: Path | str,
    folder: Path | str,
    report: Report,
    *,
    image_folder: Path | None = None,
    link: bool = True,
    progress: ProgressBar = lambda items, _: items,
) -> Written:
    """Writes what can be used of a data set into a new folder, in its format, and counts what was changed.

    Leaves out images that cannot be used, and objects that are wrong, repeat or have no area. Keeps one of images with
    the same content in a split. Saves images upright that are so by their EXIF orientation only. Writes data of
    TensorFlow Datasets and of formats that users register in COCO's format.

    Args:
        data: what was checked; it is left as it is.
        folder: a new one.
        report: of `check_data`.
        image_folder: where the images of a COCO annotation file are.
        link: hard links of images where the disk can have them, else copies.
        progress: is given what is gone through and its length, and hands it on; for a display of progress.

    Raises:
        InputError: no image is left, or the result cannot be written.
    """
    sources, rotated = {}, {}
    for split, count in report.images.items():
        source = open_source(data, split, image_folder=image_folder, on_error="skip")
        kept = [index for index in range(count) if index not in report.left_out.get(split, {})]
        if kept:
            sources[split] = source.subset(kept)
            upright = {issue.image for issue in report.issues if issue.split == split and issue.kind == ROTATED}
            rotated[split] = {place for place, index in enumerate(kept) if index in upright}
    if not sources:
        raise DataError(f"{data}: none of its images can be used; correct what the check names first")
    written = write_data(
        folder, content_of(sources, saved_anew=rotated, progress=progress), to=format_of(data), link=link
    )
    changes = Counter(f"images left out, {kind}" for kinds in report.left_out.values() for kind in kinds.values())
    changes["images saved upright"] = sum(map(len, rotated.values()))
    changes["images that stay in two splits, as only you can tell where they belong"] = sum(
        issue.kind == LEAK for issue in report.issues
    )
    changes.update(written.losses)
    return Written(written.data, {what: count for what, count in changes.items() if count})
