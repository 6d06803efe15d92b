"""Small data sets that the library itself prepares, in both of its file formats."""

import io
import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from PIL import Image

from tests.datasets.tfrecord_files import write_records
from yolov7_jax.config import AugmentConfig
from yolov7_jax.data.pipeline import Pipeline
from yolov7_jax.datasets import open_source
from yolov7_jax.datasets.audit import audit, readable
from yolov7_jax.datasets.label_cache import cached_findings
from yolov7_jax.errors import DataError, InputError, InstallationError
from yolov7_jax.image import decode_image
from yolov7_jax.source import SourceMixin

NAMES = ("cat", "dog", "bird")
COUNT = {"train": 7, "validation": 4}

Thing = tuple[int, tuple[float, float, float, float], bool]  # class, xyxy in fractions of the image, crowd


def encoded_image(number: int) -> bytes:
    file, shape = io.BytesIO(), (20 + 2 * number, 40 + number, 3)
    Image.fromarray(np.random.default_rng(number).integers(0, 256, shape, np.uint8)).save(file, "JPEG")
    return file.getvalue()


def things(number: int) -> list[Thing]:
    """As many objects as the number's remainder by four, the first of three a crowd."""
    rng = np.random.default_rng(number)
    rows = []
    for at in range(number % 4):
        low, size = rng.uniform(0, 0.5, 2), rng.uniform(0.1, 0.5, 2)
        box = tuple(np.concatenate([low, low + size]).astype(np.float32).tolist())
        rows.append((int(rng.integers(len(NAMES))), box, number % 4 == 3 and at == 0))
    return rows


class _Scenes(tfds.core.GeneratorBasedBuilder):
    """What all sets here share. Image ids are 1000, 1010 ..., the number of an image is its remainder."""

    VERSION = tfds.core.Version("1.2.0")
    code_path = None  # no checksums are looked for beside this file

    def _split_generators(self, _: Any) -> dict[str, Any]:
        return {"train": self._generate_examples(range(7)), "validation": self._generate_examples(range(7, 11))}


class CrowdedScenes(_Scenes):
    def _info(self) -> tfds.core.DatasetInfo:
        objects = {
            "bbox": tfds.features.BBoxFeature(),
            "label": tfds.features.ClassLabel(names=NAMES),
            "is_crowd": np.bool_,
        }
        features = {"image": tfds.features.Image(encoding_format="jpeg"), "image/id": np.int64}
        features["objects"] = tfds.features.Sequence(objects)
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _generate_examples(self, numbers: range) -> Any:
        for number in numbers:
            objects = [
                {"bbox": tfds.features.BBox(box[1], box[0], box[3], box[2]), "label": label, "is_crowd": crowd}
                for label, box, crowd in things(number)
            ]
            yield number, {"image": io.BytesIO(encoded_image(number)), "image/id": 1000 + number, "objects": objects}


WRONG = [
    ([0.1, 0.1, 0.5, 0.5], 1, ""),
    ([0.1, 0.1, 0.5, 0.5], -1, "label -1 is not one of the 3 classes 0 to 2"),
    ([0.1, np.nan, 0.5, 0.5], 1, "expected finite numbers"),
    ([0.1, 0.5, 0.5, 0.4], 1, "expected ymax and xmax not below"),
    ([0.1, 1.0, 0.5, 1.5], 1, "bbox has ymin 0.1, xmin 1, ymax 0.5, xmax 1.5; expected fractions of the image"),
    ([-0.5, 0.1, 0.0, 0.5], 1, "expected fractions of the image"),
    ([0.1, 0.1, 0.5, 0.5], 1, ""),  # again
    ([0.1, 0.1, 0.1, 0.5], 1, ""),  # without area
    ([0.2, 0.1, 0.5, 0.5], 2, ""),  # difficult
]


class WrongScenes(_Scenes):
    """No ids; all objects of WRONG in every image, their boxes not looked at by the library."""

    def _info(self) -> tfds.core.DatasetInfo:
        objects = {
            "bbox": tfds.features.Tensor(shape=(4,), dtype=np.float32),
            "label": tfds.features.ClassLabel(names=NAMES),
            "is_difficult": np.bool_,
        }
        features = {"image": tfds.features.Image(), "objects": tfds.features.Sequence(objects)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _generate_examples(self, numbers: range) -> Any:
        objects = [
            {"bbox": np.array(box, np.float32), "label": label, "is_difficult": label == 2} for box, label, _ in WRONG
        ]
        for number in numbers:
            yield number, {"image": io.BytesIO(encoded_image(number)), "objects": objects}


def as_tfrecord(folder: Path, target: Path) -> Path:
    """The same data set in TFRecord files, two of each split."""
    shutil.copytree(folder, target)
    info = json.loads((target / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    for split in info["splits"]:
        (file,) = target.glob(f"*-{split['name']}.array_record-*")
        source = ArrayRecordDataSource(str(file))
        records = [source[index] for index in range(len(source))]
        stem = file.name.partition(".")[0]
        file.unlink()
        parts = (records[:3], records[3:])
        for number, part in enumerate(parts):
            write_records(target / f"{stem}.tfrecord-0000{number}-of-00002", part)
        split["shardLengths"] = [str(len(part)) for part in parts]
    (target / "dataset_info.json").write_text(json.dumps(info))
    return target


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data sets, crowded_scenes and wrong_scenes as array_record, rec/... as TFRecord."""
    home = tmp_path_factory.mktemp("tfds")
    for kind in (CrowdedScenes, WrongScenes):
        builder = kind(data_dir=home, file_format="array_record")
        builder.download_and_prepare()
        as_tfrecord(Path(builder.data_path), home / "rec" / kind.name / "1.2.0")
    return home


@pytest.fixture(params=["crowded_scenes", "rec/crowded_scenes"])
def name(request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TFDS_DATA_DIR", str(home))
    return f"tfds:{request.param}"


@pytest.fixture
def copied(name: str, home: Path, tmp_path: Path) -> Path:
    return shutil.copytree(home / name.removeprefix("tfds:") / "1.2.0", tmp_path / "copied")


def assert_same(one: Any, other: Any) -> None:
    for value, expected in zip([*one[:4], *one.polygons], [*other[:4], *other.polygons], strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize(("split", "count"), [("train", 7), ("val", 4), ("validation", 4)])
def test_samples_are_the_originals(name: str, split: str, count: int):
    source = open_source(name, split)
    assert (len(source), source.names, source.issues) == (count, NAMES, ())
    first = 0 if split == "train" else 7
    assert sorted(source.image_ids) == list(range(1000 + first, 1000 + first + count))
    for index, image_id in enumerate(source.image_ids):
        content, expected = encoded_image(image_id - 1000), things(image_id - 1000)
        sample, labels = source[index], source.labels(index)
        np.testing.assert_array_equal(sample.image, decode_image(content, name="x"))
        height, width = sample.image.shape[:2]
        assert source.size(index) == source.check_image(index) == labels.size == (height, width)
        assert (sample.id, sample.class_ids.dtype) == (image_id, np.int32)
        wanted = [(label, box) for label, box, crowd in expected if not crowd]
        assert sample.class_ids.tolist() == [label for label, _ in wanted]
        boxes = np.array([box for _, box in wanted]).reshape(-1, 4) * [width, height, width, height]
        np.testing.assert_array_equal(labels.boxes_xyxy_px, boxes)  # float32 fractions are exact in float64
        np.testing.assert_array_equal(sample.boxes_xyxy_px, boxes.astype(np.float32))
        crowds = [(label, box) for label, box, crowd in expected if crowd]
        assert labels.ignored_class_ids.tolist() == [label for label, _ in crowds]
        boxes = np.array([box for _, box in crowds]).reshape(-1, 4) * [width, height, width, height]
        np.testing.assert_array_equal(labels.ignored_boxes_xyxy_px, boxes)
        assert source.path(index) == Path(name, "train" if split == "train" else "validation", str(image_id))


def test_ground_truth_has_all_objects(name: str):
    source = open_source(name, "train")
    truth = source.ground_truth()
    assert truth["categories"] == [{"id": number, "name": it} for number, it in enumerate(NAMES, start=1)]
    assert [row["id"] for row in truth["images"]] == list(source.image_ids)
    found = [(row["image_id"], row["category_id"] - 1, row["iscrowd"]) for row in truth["annotations"]]
    assert sorted(found) == sorted((1000 + n, label, crowd) for n in range(7) for label, _, crowd in things(n))


@pytest.mark.parametrize(
    ("split", "positions"),
    [
        ("train[:50%]", range(4)),
        ("train[50%:]", range(4, 7)),
        ("train[2:6]", range(2, 6)),  # of both files
        ("train[-1:]", range(6, 7)),
        ("val[1:]+train[:1]", [8, 9, 10, 0]),
    ],
)
def test_parts_of_splits(name: str, split: str, positions: Any):
    ids = (*open_source(name, "train").image_ids, *open_source(name, "val").image_ids)
    source = open_source(name, split)
    assert source.image_ids == tuple(ids[position] for position in positions)
    assert [source[index].id for index in range(len(source))] == [ids[position] for position in positions]
    assert source[0].image.shape[1] == 40 + source.image_ids[0] - 1000


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("test", "no split 'test'; it has train, validation, and parts of them such as"),
        ("train[:0%]", "the split 'train.:0%.' is empty"),
        ("train[", "no split 'train.'"),
        ("train[:x]", "no split"),
        ("", "no split"),
    ],
)
def test_splits_that_it_has_not(name: str, split: str, message: str):
    with pytest.raises(DataError, match=rf"crowded_scenes/1\.2\.0: {message}"):
        open_source(name, split)


def test_sources_travel_to_worker_processes_and_serve_threads(name: str):
    source = open_source(name, "train")
    data = pickle.dumps(source)
    assert len(data) < 20_000
    travelled = pickle.loads(data)
    expected = [source[index] for index in range(len(source))]
    with ThreadPoolExecutor(8) as pool:
        for index, sample in enumerate(pool.map(lambda at: travelled[at % len(source)], range(100))):
            assert_same(sample, expected[index % len(source)])


def test_a_subset_is_these_images(name: str):
    source = open_source(name, "train")
    part = source.subset([5, 0, 5])
    assert part.image_ids == tuple(source.image_ids[index] for index in (5, 0, 5))
    for index, origin in enumerate((5, 0, 5)):
        assert_same(part[index], source[origin])


def test_training_rows_and_the_audit_before(name: str):
    source = open_source(name, "train", on_error="skip")
    found = audit(source)
    wanted = [label for number in range(7) for label, _, crowd in things(number) if not crowd]
    assert found.objects == tuple(wanted.count(label) for label in range(3))
    assert (found.sentences, found.without_file, found.without_objects) == ((), 0, 2)
    pipeline = Pipeline(
        source=readable(source, found),
        augment=AugmentConfig(),
        shapes=((64, 64),),
        anchors=(((10, 13), (16, 30)),),
        strides=(8,),
        anchor_t=4.0,
        batch_size=2,
        seed=0,
        mosaic_window=5,
    )
    rows = [pickle.loads(pickle.dumps(pipeline)).row(0, position) for position in range(8)]
    assert {row.sample.image.shape for row in rows} == {(64, 64, 3)}
    assert all(row.errors == () for row in rows)
    assert sum(int(row.sample.valid.sum()) for row in rows) > 8


def test_what_is_kept_of_labels_is_of_these_images(home: Path, tmp_path: Path):
    """Halves of a split are in the same file, and without ids of their own their images are called alike."""
    whole = open_source(f"tfds:{home}/wrong_scenes", "train[:6]", on_error="skip")
    for _ in range(2):
        tables = [
            cached_findings(
                open_source(f"tfds:{home}/wrong_scenes", split, on_error="skip"), mode="hashes", folder=tmp_path
            ).table
            for split in ("train[:3]", "train[3:6]")
        ]
        sizes = [table.labels(index).size for table in tables for index in range(3)]
        assert sizes == [whole.size(index) for index in range(6)]


# --- objects that are wrong


@pytest.mark.parametrize("folder", ["", "rec/"])
def test_wrong_objects_are_left_out_and_named(home: Path, folder: str):
    name = f"tfds:{home}/{folder}wrong_scenes"
    source = open_source(name, on_error="skip")
    assert source.image_ids == (1, 2, 3, 4)
    labels = source.labels(2)
    assert (labels.class_ids.tolist(), labels.duplicates, labels.empty) == ([1], 1, 1)
    assert labels.ignored_class_ids.tolist() == [2]
    expected = [(number, text) for number, (_, _, text) in enumerate(WRONG, start=1) if text]
    for issue, (number, text) in zip(labels.issues, expected, strict=True):
        assert issue.message.startswith(f"{name}/validation/3, object {number}: ")
        assert text in issue.message
    notes = open_source(name, on_error="note").labels(2).issues[len(labels.issues) :]
    assert [issue.kind for issue in notes] == ["repeated object", "object without area"]
    assert notes[0].message.startswith(f"{name}/validation/3, object 7: the object repeats that of object 1")
    kinds = ["class out of range", "not finite", "negative size", "outside of the image", "outside of the image"]
    assert [issue.kind for issue in labels.issues] == kinds
    with pytest.raises(DataError) as error:
        open_source(name)[2]
    assert str(error.value) == labels.issues[0].message


# --- files that are wrong


def shards(folder: Path) -> list[Path]:
    return sorted(it for it in folder.iterdir() if "-train." in it.name)


def test_files_that_are_missing_are_named(copied: Path):
    shards(copied)[-1].unlink()
    with pytest.raises(DataError, match=re.escape(shards(copied)[-1].name if len(shards(copied)) > 1 else "train")):
        open_source(f"tfds:{copied}", "train")
    assert len(open_source(f"tfds:{copied}", "val")) == 4


def test_a_shard_that_is_cut_off_is_named(copied: Path):
    file = shards(copied)[0]
    file.write_bytes(file.read_bytes()[:-50])
    where = re.escape(str(file)) if "tfrecord" in file.name else "copied/train, example 1"
    with pytest.raises(DataError, match=rf"{where}: .* prepare the data set anew"):
        open_source(f"tfds:{copied}", "train")


def damaged(copied: Path) -> None:
    """One example of the first training file is no example any more; nothing else is."""
    file = shards(copied)[0]
    data = bytearray(file.read_bytes())
    start = 12 if "tfrecord" in file.name else data.index(b"\xff\xd8\xff")  # the others are compressed, and hashed
    data[start : start + 40] = bytes([255] * 40)
    file.write_bytes(data)


def test_an_example_that_is_damaged_is_named_and_can_be_skipped(copied: Path):
    damaged(copied)
    with pytest.raises(DataError, match=r"copied/train, example \d: the example cannot be read \(.*prepare"):
        open_source(f"tfds:{copied}", "train")
    source = open_source(f"tfds:{copied}", "train", on_error="skip")
    assert source.image_ids == (1, 2, 3, 4, 5, 6, 7)
    found = audit(source)
    assert found.unusable
    for issue in found.unusable.values():
        assert re.search(r"copied/train/\d: the example cannot be read", issue.message)
        assert issue.kind == "unreadable example"


def test_an_example_without_anything_is_named(home: Path, tmp_path: Path):
    copied = shutil.copytree(home / "rec" / "wrong_scenes" / "1.2.0", tmp_path / "copied")
    write_records(shards(copied)[0], [b""] * 3)
    source = open_source(f"tfds:{copied}", "train", on_error="skip")
    for use, key in ((source.read, "image"), (source.check_image, "image"), (source.labels, "")):
        reason = f"it has no {key}" if key else ".*"  # of objects the library itself says it
        with pytest.raises(DataError, match=rf"copied/train/2: the example cannot be read \({reason}\); prepare"):
            use(1)
    assert len(source[3].class_ids) == 1


def test_an_image_that_is_cut_short_is_named(home: Path, tmp_path: Path):
    copied = shutil.copytree(home / "rec" / "crowded_scenes" / "1.2.0", tmp_path / "copied")
    for file in shards(copied):
        # The mark at an image's end becomes another; lengths stay.
        file.write_bytes(file.read_bytes().replace(b"\xff\xd9", b"\xff\x00"))
    source = open_source(f"tfds:{copied}", "train")
    for use in (source.read, source.check_image, source.__getitem__):
        with pytest.raises(DataError, match=r"copied/train/\d+: the end of the image is missing"):
            use(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"objects"', '"faces"'), "its examples have .*faces.*; expected the features image"),
        (
            lambda text: text.replace('"label"', '"kind"'),
            "expected the features image, and objects with bbox and label",
        ),
        (lambda text: text.replace('"image"', '"photo"', 1), "expected the features"),
        (lambda text: text[:50], "is no data set that this version of tensorflow-datasets can read"),
    ],
)
def test_features_that_are_missing_are_said(copied: Path, change: Callable[[str], str], message: str):
    file = copied / "features.json"
    file.write_text(change(file.read_text()))
    with pytest.raises(DataError, match=rf"copied: .*{message}"):
        open_source(f"tfds:{copied}")


# --- where data sets are


def test_places_of_data_sets(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    original = home / "crowded_scenes" / "1.2.0"
    target = tmp_path / "tensorflow_datasets" / "coco" / "2017"
    for version in ("1.9.0", "1.10.0", "notes"):
        shutil.copytree(original, target / version)
    (tmp_path / "tensorflow_datasets" / "coco" / "2014").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)

    def version(source: SourceMixin) -> str:
        return source.files()[0].parent.name

    assert version(open_source("tfds:coco/2017")) == "1.10.0"
    assert version(open_source("tfds:coco/2017:1.9.0")) == "1.9.0"
    assert version(open_source("tfds:~/tensorflow_datasets/coco/2017")) == "1.10.0"
    assert version(open_source(f"tfds:{target}/1.9.0")) == "1.9.0"
    assert version(open_source(Path("tfds:./tensorflow_datasets/coco/2017"))) == "1.10.0"
    with pytest.raises(DataError, match=r"tfds:coco: name one of its kinds: tfds:coco/2017$"):
        open_source("tfds:coco")
    with pytest.raises(DataError, match=r"coco/2014: no prepared data set; expected dataset_info\.json and features"):
        open_source(f"tfds:{target.with_name('2014')}")
    with pytest.raises(DataError, match="an image folder is for COCO JSON files"):
        open_source("tfds:coco/2017", image_folder=target)


def test_a_set_that_is_not_prepared_is_told_with_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError) as error:
        open_source("tfds:voc/2007")
    assert str(error.value) == (
        f"tfds:voc/2007 is not prepared in {tmp_path}; set TFDS_DATA_DIR to the folder where it is, or prepare it "
        '(which alone needs TensorFlow): pip install tensorflow && python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('voc/2007', file_format='array_record', data_dir='{tmp_path}').download_and_prepare()\""
    )


@pytest.mark.parametrize("library", ["tensorflow_datasets", "array_record.python.array_record_data_source"])
def test_a_library_that_is_missing_is_named(home: Path, library: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InstallationError, match=r"need .*; install it: pip install .*array-record"):
        open_source(f"tfds:{home}/crowded_scenes")


def test_the_library_is_not_imported_for_other_formats(tmp_path: Path):
    with pytest.raises(InputError):
        open_source(tmp_path / "x.json")
    code = "import sys, yolov7_jax.datasets; sys.exit('tensorflow_datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
