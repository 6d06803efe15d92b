"""What remains of a data set without what a check found wrong."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from yolov7_jax.datasets import open_source
from yolov7_jax.datasets.curate.check import LEAK, TURNED, Report
from yolov7_jax.datasets.curate.conversion import ProgressBar, content_of
from yolov7_jax.datasets.curate.splits import format_of
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

    Images that cannot be used and objects that are faulty, repeat or have no area are left out, of images with the same
    content in a split one is kept, and those that are upright by their EXIF orientation only are saved upright. Data of
    TensorFlow Datasets is written in COCO's format.

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
    sources, turned = {}, {}
    for split, count in report.images.items():
        source = open_source(data, split, image_folder=image_folder, on_error="skip")
        dropped = {found.image for found in report.findings if found.split == split and found.leaves_out}
        kept = [index for index in range(count) if index not in dropped]
        if kept:
            sources[split] = source.subset(kept)
            upright = {found.image for found in report.findings if found.split == split and found.kind == TURNED}
            turned[split] = {place for place, index in enumerate(kept) if index in upright}
    if not sources:
        raise DataError(f"{data}: none of its images can be used; correct what the check names first")
    written = write_data(folder, content_of(sources, redrawn=turned, progress=progress), to=format_of(data), link=link)
    changes = Counter(f"images left out, {found.kind}" for found in report.findings if found.leaves_out)
    changes["images saved upright"] = sum(map(len, turned.values()))
    changes["images that stay in two splits, as only you can tell where they belong"] = sum(
        found.kind == LEAK for found in report.findings
    )
    changes.update(written.losses)
    return Written(written.data, {what: count for what, count in changes.items() if count})
