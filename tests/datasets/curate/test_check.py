import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.datasets.labeled_images import write_text
from yolov7_jax.datasets import open_source
from yolov7_jax.datasets.curate.check import Report, check_data, fix_data
from yolov7_jax.datasets.curate.conversion import open_splits
from yolov7_jax.errors import DataError
from yolov7_jax.image import read_image

SIDE = 40
GOOD = "1 0.5 0.5 0.25 0.25"


def write_noise(file: Path, seed: int, side: int = SIDE) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(file)
    return file


def make_yolo(root: Path) -> Path:
    """Three images of two splits; all classes have objects enough."""
    for seed, name in enumerate(("train/a", "train/b", "val/c")):
        write_noise(root / f"images/{name}.png", seed)
        rows = [f"{n % 3} {0.1 + 0.02 * n} 0.3 0.1 0.2" for n in range(30)] if name == "train/b" else [GOOD]
        write_text(root / f"labels/{name}.txt", "\n".join(rows))
    return write_text(root / "data.yaml", "train: images/train\nval: images/val\nnames: [cat, dog, bird]\n")


def make_coco(root: Path, **changes: Any) -> Path:
    for seed, name in enumerate("ab"):
        write_noise(root / f"images/{name}.png", seed)
    size = {"width": SIDE, "height": SIDE}
    content: dict[str, Any] = {
        "images": [{"id": 11, "file_name": "a.png"} | size, {"id": 12, "file_name": "b.png"} | size],
        "annotations": [
            {"id": n + 1, "image_id": 12, "category_id": 3 + n % 2, "bbox": [n, 1, 9, 9]} for n in range(20)
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}],
    }
    for key, rows in changes.items():
        content[key] = [*content[key], *rows]
    return write_text(root / "mine.json", json.dumps(content))


VOC_OBJECT = "<object><name>{name}</name><bndbox>{box}</bndbox></object>"


def voc_object(box: tuple[Any, ...], name: str = "cat") -> str:
    corners = "".join(f"<{key}>{x}</{key}>" for key, x in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return VOC_OBJECT.format(name=name, box=corners)


def voc_annotation(*objects: str, side: int = SIDE) -> str:
    size = f"<size><width>{side}</width><height>{side}</height></size>"
    return "\n".join(["<annotation>", size, *objects, "</annotation>"])


def make_voc(root: Path) -> Path:
    for seed, name in enumerate("ab"):
        write_noise(root / f"JPEGImages/{name}.png", seed)
    rows = [voc_object((n + 1, 1, n + 9, 9), ("cat", "dog")[n % 2]) for n in range(20)]
    write_text(root / "Annotations/a.xml", voc_annotation(voc_object((1, 2, 13, 14))))
    write_text(root / "Annotations/b.xml", voc_annotation(*rows))
    write_text(root / "classes.txt", "cat\ndog\n")
    write_text(root / "ImageSets/Main/train.txt", "a\nb\n")
    return root


MAKERS = {"yolo": make_yolo, "coco": make_coco, "voc": make_voc}


class Case(NamedTuple):
    """A thing done to a sound data set, and what a check must say of it."""

    format: str
    name: str
    spoil: Callable[[Path], Any]
    kind: str
    words: tuple[str, ...]


def second_line(line: str) -> Callable[[Path], Any]:
    return lambda root: write_text(root / "labels/train/a.txt", f"{GOOD}\n{line}\n")


def line_case(line: str, kind: str, *words: str) -> Case:
    return Case("yolo", line, second_line(line), kind, ("labels/train/a.txt, line 2", *words))


def annotation_case(name: str, changes: dict[str, Any], kind: str, *words: str) -> Case:
    row = {"id": 77, "image_id": 11, "category_id": 3, "bbox": [1, 2, 3, 4]} | changes
    row = {key: value for key, value in row.items() if value != "remove"}
    return Case("coco", name, lambda root: make_coco(root, annotations=[row]), kind, ("mine.json", *words))


def image_entry_case(name: str, row: dict[str, Any], kind: str, *words: str) -> Case:
    return Case("coco", name, lambda root: make_coco(root, images=[row]), kind, ("mine.json", *words))


def object_case(name: str, item: str, kind: str, *words: str) -> Case:
    def spoil(root: Path) -> None:
        write_text(root / "Annotations/a.xml", voc_annotation(voc_object((1, 2, 13, 14)), item))

    return Case("voc", name, spoil, kind, ("Annotations/a.xml, line 4 (object 2)", *words))


def rewrite(place: str, old: str, new: str) -> Callable[[Path], Any]:
    def spoil(root: Path) -> None:
        text = (root / place).read_text()
        assert old in text
        write_text(root / place, text.replace(old, new))

    return spoil


def cut(place: str, share: float = 0.5) -> Callable[[Path], Any]:
    def spoil(root: Path) -> None:
        content = (root / place).read_bytes()
        (root / place).write_bytes(content[: int(len(content) * share)])

    return spoil


def bytes_of(place: str, content: bytes) -> Callable[[Path], Any]:
    def spoil(root: Path) -> None:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(content)

    return spoil


def cut_jpeg(root: Path) -> None:
    (root / "images/train/a.png").unlink()
    cut("images/train/a.jpg")(write_noise(root / "images/train/a.jpg", 0).parents[2])


def folder_for_labels(root: Path) -> None:
    (root / "labels/train/a.txt").unlink()
    (root / "labels/train/a.txt").mkdir()


def damage_pixels(root: Path) -> None:
    """A PNG whose parts and checksums are whole, but whose compressed pixels are noise."""
    file = root / "images/train/a.png"
    header, pixels = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0), b"\x78\x9c" + bytes(range(256)) * 4
    chunks = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def turn(root: Path) -> None:
    (root / "images/train/a.png").unlink()
    image, exif = Image.new("RGB", (SIDE, 2 * SIDE)), Image.Exif()
    exif[0x0112] = 6
    image.save(root / "images/train/a.jpg", exif=exif)


def copy_image(source: str, target: str) -> Callable[[Path], Any]:
    def spoil(root: Path) -> None:
        bytes_of(target, (root / source).read_bytes())(root)
        name = Path(target.replace("images", "labels", 1)).with_suffix(".txt")
        write_text(root / name, GOOD)

    return spoil


def polygons(root: Path) -> None:
    lines = [f"0 0.1 0.1 0.3 0.1 0.3 0.{n}" for n in range(20, 60)]
    write_text(root / "labels/train/a.txt", "\n".join(lines))


def relist(text: str) -> Callable[[Path], Any]:
    def spoil(root: Path) -> None:
        write_text(root / "list.txt", text)
        rewrite("data.yaml", "train: images/train", "train: list.txt")(root)

    return spoil


def no_labels(root: Path) -> None:
    for file in (root / "labels/val").iterdir():
        file.unlink()


def empty_folder(root: Path) -> None:
    (root / "images/val/c.png").unlink()


def beside(root: Path) -> None:
    """Two images of one stem, with content of their own."""
    write_noise(root / "images/train/a.bmp", 9)


def beside_voc(root: Path) -> None:
    write_noise(root / "JPEGImages/a.bmp", 9)


CASES = [
    line_case("3 0.5 0.5 0.1 0.1", "class out of range", "class 3 is not one of"),
    line_case("-1 0.5 0.5 0.1 0.1", "class out of range", "class -1"),
    line_case("1.5 0.5 0.5 0.1 0.1", "class not an integer", "class 1.5"),
    line_case("0 nan 0.5 0.1 0.1", "not finite"),
    line_case("0 0.5 inf 0.1 0.1", "not finite"),
    line_case("0 320 200 50 50", "not normalized", "320 is outside 0 to 1"),
    line_case("0 1.2 0.5 0.1 0.1", "outside of the image", "1.2"),
    line_case("0 -0.1 0.5 0.1 0.1", "outside of the image", "-0.1"),
    line_case("0 0.5 0.5 -0.1 0.1", "negative size", "-0.1"),
    line_case("0 0.5 0.5 0.1", "wrong number of columns", "4 numbers"),
    line_case("0 0.5 0.5 0.1 0.1 0.9", "wrong number of columns", "6 numbers"),
    line_case("0", "wrong number of columns", "1 numbers"),
    line_case("0 0.1 0.1 0.2 0.1 0.2 0.2 0.5", "wrong number of columns", "8 numbers"),
    line_case("0 0.1 0.1 0.2 0.1 0.2 1.4", "outside of the image", "1.4"),
    line_case("cat 0.5 0.5 0.1 0.1", "not a number", "'cat'"),
    line_case("0,0.5,0.5,0.1,0.1", "not a number"),
    line_case("0 0.5 0.5 0,1 0.1", "not a number", "'0,1'"),
    line_case("0 0.5 0.5 0 0.1", "object without area"),
    line_case("0 0.1 0.1 0.1 0.2 0.1 0.3", "object without area"),
    line_case(GOOD, "repeated object", "repeats that of line 1"),
    line_case("0 0.5 0.5 0.25 0.25", "one box of two objects", "line 1"),
    line_case("1 0.5 0.5 0.25 0.251", "object almost repeated", "line 1"),
    line_case("0 0.99 0.5 0.2 0.2", "box beyond the image", "3.6 pixels"),
    line_case("0 0.5 0.5 0.025 0.2", "box of a pixel or less", "1 pixels"),
    Case("yolo", "no text", bytes_of("labels/train/a.txt", b"\x89PNG\x00"), "unreadable label file", ("train/a.txt",)),
    Case(
        "yolo",
        "UTF-16",
        bytes_of("labels/train/a.txt", GOOD.encode("utf-16")),
        "unreadable label file",
        ("train/a.txt",),
    ),
    Case("yolo", "a folder", folder_for_labels, "unreadable label file", ("train/a.txt",)),
    Case(
        "yolo",
        "no label file",
        lambda root: (root / "labels/train/a.txt").unlink(),
        "no label file",
        ("images/train/a.png", "labels/train/a.txt"),
    ),
    Case(
        "yolo",
        "label file without image",
        lambda root: write_text(root / "labels/train/x.txt", GOOD),
        "label file without image",
        ("labels/train/x.txt",),
    ),
    Case("yolo", "two images", beside, "label file of several images", ("train/a.txt", "a.bmp and a.png")),
    Case("yolo", "empty image", bytes_of("images/train/a.png", b""), "empty image", ("images/train/a.png",)),
    Case("yolo", "no image", bytes_of("images/train/a.png", b"<html>"), "unreadable image", ("images/train/a.png",)),
    Case("yolo", "cut PNG", cut("images/train/a.png"), "truncated image", ("images/train/a.png",)),
    Case("yolo", "cut JPEG", cut_jpeg, "truncated image", ("images/train/a.jpg",)),
    Case("yolo", "pixels", damage_pixels, "unreadable image", ("images/train/a.png",)),
    Case("yolo", "turned", turn, "image rotated by EXIF", ("images/train/a.jpg",)),
    Case(
        "yolo", "tiny", lambda root: write_noise(root / "images/train/a.png", 5, 31), "tiny image", ("a.png", "31 x 31")
    ),
    Case(
        "yolo",
        "copy",
        copy_image("images/train/a.png", "images/train/z.png"),
        "duplicate image",
        ("images/train/z.png", "images/train/a.png"),
    ),
    Case(
        "yolo",
        "leak",
        copy_image("images/train/a.png", "images/val/z.png"),
        "image in two splits",
        ("images/val/z.png", "in val", "in train", "images/train/a.png"),
    ),
    Case(
        "yolo",
        "listed and missing",
        relist("images/train/a.png\nimages/train/x.png\nimages/train/b.png"),
        "missing image",
        ("images/train/x.png",),
    ),
    Case(
        "yolo",
        "listed twice",
        relist("images/train/a.png\nimages/train/b.png\nimages/train/a.png"),
        "duplicate image",
        ("images/train/a.png: is listed twice",),
    ),
    Case("yolo", "empty list", relist(""), "split that cannot be opened", ("list.txt",)),
    Case("yolo", "a box among polygons", polygons, "objects without polygon", ("train: 30 of 70", "train/b.png")),
    Case("yolo", "nc", rewrite("data.yaml", "names", "nc: 2\nnames"), "split that cannot be opened", ("nc says 2",)),
    Case(
        "yolo",
        "gap",
        rewrite("data.yaml", "[cat, dog, bird]", "{0: cat, 2: dog, 3: bird}"),
        "split that cannot be opened",
        ("data.yaml", "without gaps"),
    ),
    Case(
        "yolo",
        "place",
        rewrite("data.yaml", "images/val", "images/none"),
        "split that cannot be opened",
        ("data.yaml", "images/none"),
    ),
    Case("yolo", "no labels", no_labels, "split that cannot be opened", ("data.yaml", "no label file at all")),
    Case("yolo", "no images", empty_folder, "split that cannot be opened", ("images/val", "no images")),
    Case(
        "yolo",
        "name twice",
        rewrite("data.yaml", "bird", "cat"),
        "class name twice",
        ("data.yaml", "classes 0 and 2 are both named cat"),
    ),
    Case(
        "yolo",
        "few",
        rewrite("data.yaml", "bird", "bird, cow"),
        "class with few objects",
        ("class cow has 0 objects (train 0, val 0)",),
    ),
    annotation_case("category", {"category_id": 9}, "class out of range", "annotation 77", "category_id 9"),
    annotation_case("image", {"image_id": 9}, "label without image", "annotation 77", "image_id 9"),
    annotation_case("no image", {"image_id": "remove"}, "no image_id", "annotation 77"),
    annotation_case("no category", {"category_id": None}, "no category_id", "annotation 77"),
    annotation_case("three numbers", {"bbox": [1, 2, 3]}, "wrong number of columns", "annotation 77", "[1, 2, 3]"),
    annotation_case("words", {"bbox": ["1", 2, 3, 4]}, "wrong number of columns", "annotation 77"),
    annotation_case("no box", {"bbox": "remove"}, "wrong number of columns", "annotation 77", "None"),
    annotation_case("nan", {"bbox": [1, float("nan"), 3, 4]}, "not finite", "annotation 77"),
    annotation_case("negative", {"bbox": [9, 9, -3, 4]}, "negative size", "annotation 77", "-3"),
    annotation_case("outside", {"bbox": [50, 9, 3, 4]}, "outside of the image", "annotation 77", "40 x 40"),
    annotation_case("without area", {"bbox": [5, 9, 0, 4]}, "object without area", "annotation 77"),
    annotation_case("beyond", {"bbox": [35, 9, 9, 4]}, "box beyond the image", "annotation 77", "4.0 pixels"),
    annotation_case("repeated", {"image_id": 12, "bbox": [0, 1, 9, 9]}, "repeated object", "annotation 77, "[:-2]),
    annotation_case(
        "other class",
        {"image_id": 12, "category_id": 4, "bbox": [0, 1, 9, 9]},
        "one box of two objects",
        "annotation 1",
    ),
    annotation_case(
        "two points", {"segmentation": [[1, 2, 3, 4]]}, "polygon under 3 points", "annotation 77", "2 points"
    ),
    annotation_case("odd outline", {"segmentation": [[1, 2, 3, 4, 5]]}, "no polygon", "annotation 77"),
    annotation_case("text outline", {"segmentation": "1 2 3"}, "no polygon", "annotation 77"),
    annotation_case("nan outline", {"segmentation": [[1, 2, 3, float("nan"), 5, 6]]}, "not finite", "annotation 77"),
    Case("coco", "no entry", lambda root: make_coco(root, annotations=[3]), "no image_id", ("annotation number 21",)),
    image_entry_case("id twice", {"id": 11, "file_name": "x.png"}, "id twice", "image id 11"),
    image_entry_case("no id", {"file_name": "x.png"}, "no id", "image number 3"),
    image_entry_case("no name", {"id": 13}, "image without file_name", "image 13"),
    image_entry_case("size", {"id": 13, "file_name": "a.png", "width": 0, "height": 9}, "wrong image size", "image 13"),
    Case(
        "coco",
        "missing",
        lambda root: make_coco(root, images=[{"id": 13, "file_name": "x.png"}]),
        "missing image",
        ("images/x.png",),
    ),
    Case(
        "coco",
        "same file",
        lambda root: make_coco(root, images=[{"id": 13, "file_name": "a.png"}]),
        "duplicate image",
        ("images/a.png: is listed twice",),
    ),
    Case(
        "coco",
        "other size",
        lambda root: write_noise(root / "images/a.png", 0, 50),
        "labels of another size",
        ("images/a.png", "50 x 50", "mine.json (image 11) says 40 x 40"),
    ),
    Case("coco", "cut", cut("mine.json"), "unreadable label file", ("mine.json, line 1",)),
    Case(
        "coco",
        "no list",
        rewrite("mine.json", '"annotations"', '"labels"'),
        "unreadable label file",
        ("mine.json", "'annotations'"),
    ),
    Case(
        "coco",
        "category twice",
        lambda root: make_coco(root, categories=[{"id": 3, "name": "cow"}]),
        "id twice",
        ("mine.json", "category id 3"),
    ),
    Case(
        "coco",
        "category without name",
        lambda root: make_coco(root, categories=[{"id": 5}]),
        "category without name",
        ("mine.json", "category 5"),
    ),
    object_case("class", voc_object((1, 1, 9, 9), "cow"), "class out of range", "class cow"),
    object_case("no name", voc_object((1, 1, 9, 9), ""), "object without a name"),
    object_case("no box", "<object><name>cat</name></object>", "not a number", "xmin missing"),
    object_case("word", voc_object((1, 1, "x", 9)), "not a number", "xmax x"),
    object_case("nan", voc_object((1, 1, "nan", 9)), "not finite", "xmax nan"),
    object_case("reversed", voc_object((20, 1, 9, 9)), "negative size", "xmin 20"),
    object_case("outside", voc_object((60, 1, 69, 9)), "outside of the image", "40 x 40"),
    object_case("without area", voc_object((20, 1, 19, 9)), "object without area"),
    object_case("repeated", voc_object((1, 2, 13, 14)), "repeated object", "repeats that of line 3 (object 1)"),
    object_case("almost", voc_object((1, 2, 13, 15)), "object almost repeated", "line 3 (object 1)"),
    object_case("other class", voc_object((1, 2, 13, 14), "dog"), "one box of two objects", "line 3 (object 1)"),
    object_case("beyond", voc_object((30, 2, 43, 14)), "box beyond the image", "3.0 pixels"),
    object_case("pixel", voc_object((30, 2, 30, 14)), "box of a pixel or less"),
    Case(
        "voc",
        "other size",
        lambda root: write_text(root / "Annotations/a.xml", voc_annotation(side=41)),
        "labels of another size",
        ("JPEGImages/a.png", "Annotations/a.xml says 41 x 41"),
    ),
    Case(
        "voc",
        "no XML",
        bytes_of("Annotations/a.xml", b"hello"),
        "unreadable label file",
        ("Annotations/a.xml, line 1",),
    ),
    Case("voc", "cut", cut("Annotations/a.xml"), "unreadable label file", ("Annotations/a.xml, line 3",)),
    Case(
        "voc",
        "doctype",
        bytes_of("Annotations/a.xml", b"<!DOCTYPE x [<!ENTITY a 'b'>]>\n<annotation/>"),
        "unreadable label file",
        ("Annotations/a.xml, line 1", "DOCTYPE"),
    ),
    Case(
        "voc",
        "other root",
        bytes_of("Annotations/a.xml", b"<html/>"),
        "unreadable label file",
        ("Annotations/a.xml", "html"),
    ),
    Case(
        "voc",
        "listed and missing",
        lambda root: write_text(root / "ImageSets/Main/train.txt", "a\nb\nx\n"),
        "missing image",
        ("JPEGImages/x.jpg",),
    ),
    Case(
        "voc",
        "no annotation",
        lambda root: (root / "Annotations/a.xml").unlink(),
        "no label file",
        ("JPEGImages/a.png", "Annotations/a.xml"),
    ),
    Case(
        "voc",
        "annotation without image",
        lambda root: write_text(root / "Annotations/x.xml", voc_annotation()),
        "label file without image",
        ("Annotations/x.xml",),
    ),
    Case("voc", "two images", beside_voc, "label file of several images", ("a.xml", "a.bmp and a.png")),
    Case(
        "voc",
        "listed twice",
        lambda root: write_text(root / "ImageSets/Main/train.txt", "a\nb\na\n"),
        "duplicate image",
        ("JPEGImages/a.png: is listed twice",),
    ),
    Case(
        "voc",
        "empty list",
        lambda root: write_text(root / "ImageSets/Main/train.txt", ""),
        "split that cannot be opened",
        ("train.txt",),
    ),
]


def found_kinds(report: Report) -> set[str]:
    return {finding.kind for finding in report.issues}


WARNINGS = {
    "image rotated by EXIF",
    "tiny image",
    "no label file",
    "label file without image",
    "box beyond the image",
    "one box of two objects",
    "object almost repeated",
    "box of a pixel or less",
    "objects without polygon",
    "class with few objects",
    "class name twice",
}


def test_the_corpus_is_large():
    assert len(CASES) >= 100
    assert len({(case.format, case.name) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("format", MAKERS)
def test_sound_data_has_no_findings(tmp_path: Path, format: str):
    data = MAKERS[format](tmp_path)
    before = contents(tmp_path)
    report = check_data(data)
    assert (report.issues, report.counts()) == ((), {})
    assert report.images == ({"train": 2, "val": 1} if format == "yolo" else {"train": 2})
    assert contents(tmp_path) == before


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.format}: {case.name}"[:40])
def test_every_issue_is_named_and_can_be_left_out(tmp_path: Path, case: Case):
    root = tmp_path / "in"
    data = MAKERS[case.format](root)
    case.spoil(root)
    before = contents(root)
    report = check_data(data)
    named = [finding for finding in report.issues if finding.kind == case.kind]
    assert len(named) == 1 or case.kind in ("split that cannot be opened",), report.issues
    for word in case.words:
        assert any(word in finding.message for finding in named)
    assert {finding.kind for finding in report.errors} == ({case.kind} - WARNINGS)  # one cause, one kind of issue
    if sum(report.images.values()):
        fixed = fix_data(data, tmp_path / "out", report)
        again = check_data(fixed.data if case.format == "yolo" else tmp_path / "out")
        assert {finding.kind for finding in again.errors} <= {"image in two splits"}
    assert contents(root) == before


def contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_issues_of_all_kinds_at_once(tmp_path: Path):
    data = make_yolo(tmp_path / "in")
    lines = [case.name for case in CASES if case.format == "yolo" and case.words[0].endswith("a.txt, line 2")]
    write_text(tmp_path / "in/labels/train/a.txt", "\n".join([GOOD, *lines]))
    places = [finding.message.split(": ")[0] for finding in check_data(data).issues]
    expected = {f"{tmp_path}/in/labels/train/a.txt, line {number}" for number in range(2, len(lines) + 2)}
    assert set(places) == expected


def test_labels_of_images_that_cannot_be_used_are_looked_at(tmp_path: Path):
    data = make_yolo(tmp_path)
    second_line("9 .5 .5 .1 .1")(tmp_path)
    cut("images/train/a.png")(tmp_path)
    assert {finding.kind for finding in check_data(data).errors} == {"truncated image", "class out of range"}


def test_pixels_are_looked_at_unless_it_is_to_be_quick(tmp_path: Path):
    data = make_yolo(tmp_path)
    damage_pixels(tmp_path)
    assert found_kinds(check_data(data)) == {"unreadable image"}
    assert found_kinds(check_data(data, decode=False)) == set()


def test_the_labels_of_copies_are_not_counted_out(tmp_path: Path):
    data = make_yolo(tmp_path)
    for target in ("train/y", "train/z", "val/y", "val/z"):
        copy_image("images/train/a.png", f"images/{target}.png")(tmp_path)
    counts = check_data(data).counts()
    assert counts == {"duplicate image": {"train": 2, "val": 1}, "image in two splits": {"val": 2}}


def test_splits_and_images_can_be_named(tmp_path: Path):
    data = make_yolo(tmp_path / "yolo")
    assert check_data(data, splits=["val"]).images == {"val": 1}
    file = make_coco(tmp_path / "coco")
    (tmp_path / "coco/images").rename(tmp_path / "elsewhere")
    assert found_kinds(check_data(file)) == {"split that cannot be opened"}
    assert check_data(file, image_folder=tmp_path / "elsewhere").issues == ()
    with pytest.raises(DataError, match="names no split"):
        check_data(write_text(tmp_path / "data.yaml", "names: [cat]"))


def test_what_was_changed_is_said(tmp_path: Path):
    data = make_yolo(tmp_path / "in")
    second_line("9 .5 .5 .1 .1\n1 .1 .1 0 0")(tmp_path / "in")
    turn(tmp_path / "in")
    cut("images/val/c.png")(tmp_path / "in")
    copy_image("images/train/b.png", "images/train/z.png")(tmp_path / "in")
    copy_image("images/train/b.png", "images/val/z.png")(tmp_path / "in")
    written = fix_data(data, tmp_path / "out", check_data(data))
    assert set(written.sentences) == {
        "images left out, truncated image: 1",
        "images left out, duplicate image: 1",
        "images saved upright: 1",
        "images that stay in two splits, as only you can tell where they belong: 1",
        "objects left out, as their box has no area: 1",
        "objects left out, as something is wrong with them: 1",
    }
    splits = open_splits(written.data)
    assert {split: [source.path(n).name for n in range(len(source))] for split, source in splits.items()} == {
        "train": ["a.jpg", "b.png"],
        "val": ["z.png"],
    }


def test_turned_images_are_saved_upright(tmp_path: Path):
    data = make_yolo(tmp_path / "in")
    turn(tmp_path / "in")
    written = fix_data(data, tmp_path / "out", check_data(data))
    upright = tmp_path / "out/images/train/a.jpg"
    with Image.open(upright) as image:  # as stored
        assert image.size == (2 * SIDE, SIDE)
    assert read_image(upright).shape == (SIDE, 2 * SIDE, 3)
    assert open_source(written.data, "train")[0].boxes_xyxy_px.tolist() == [[30, 15, 50, 25]]


def test_nothing_is_left(tmp_path: Path):
    data = make_yolo(tmp_path / "in")
    for file in (tmp_path / "in/images").rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match="none of its images can be used"):
        fix_data(data, tmp_path / "out", check_data(data))
    assert not (tmp_path / "out").exists()


@pytest.mark.shared
def test_what_is_wrong_with_bccd(shared: Path):
    """Six cells that were labeled twice, two pixels apart, and two clicks that became boxes of one pixel."""
    report = check_data(shared / "bccd", decode=False)
    assert report.images == {"train": 205, "val": 87}
    places = {
        (finding.kind, finding.message.split("Annotations/BloodImage_")[1].split(" (")[0]) for finding in report.issues
    }
    assert places == {
        ("object almost repeated", "00020.xml, line 182"),
        ("object almost repeated", "00100.xml, line 38"),
        ("object almost repeated", "00104.xml, line 170"),
        ("object almost repeated", "00251.xml, line 98"),
        ("object almost repeated", "00331.xml, line 38"),
        ("object almost repeated", "00403.xml, line 50"),
        ("box of a pixel or less", "00338.xml, line 158"),
        ("box of a pixel or less", "00343.xml, line 50"),
    }
