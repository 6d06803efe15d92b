import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

import yolov7_jax.datasets.label_cache as cache
from yolov7_jax.datasets import open_source
from yolov7_jax.datasets.audit import Findings, audit
from yolov7_jax.datasets.label_cache import CacheMode, cached_findings
from yolov7_jax.source import SourceMixin

SETTLED_NS = 20_000_000  # some ticks of a file system's clock
YAML = "train: images\nnames: [cat, dog]\n"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three images: a box and a polygon, a label out of range, a file that is no image."""
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    for name in "ab":
        cv2.imwrite(str(root / "images" / f"{name}.png"), np.zeros((20, 40, 3), np.uint8))
    (root / "images" / "c.png").write_bytes(b"no image")
    (root / "labels" / "a.txt").write_text("1 0.5 0.5 0.25 0.5\n0 0.1 0.1 0.4 0.1 0.4 0.6\n")
    (root / "labels" / "b.txt").write_text("7 0.5 0.5 0.25 0.5\n")
    (root / "data.yaml").write_text(YAML)
    monkeypatch.setattr(cache, "_SETTLED_NS", SETTLED_NS)
    time.sleep(2 * SETTLED_NS / 1e9)
    return root / "data.yaml"


def opened(data: Path) -> SourceMixin:
    return open_source(data, "train", on_error="skip")


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[SourceMixin]:
    """The sources that were looked over."""
    seen: list[SourceMixin] = []
    audit_labels = cache.audit_labels

    def counted(source: SourceMixin, **options: object) -> Findings:
        seen.append(source)
        return audit_labels(source, **options)

    monkeypatch.setattr(cache, "audit_labels", counted)
    return seen


def says(source: SourceMixin, findings: Findings) -> tuple[object, ...]:
    labels = findings.table.labels(0)
    points = labels.polygons.points_xy_px.tolist()
    return str(audit(source, findings)), labels.boxes_xyxy_px.tolist(), labels.size, points, findings.unusable


@pytest.mark.parametrize("mode", ["times", "hashes"])
def test_what_was_found_is_found_again_without_a_look(
    data: Path, tmp_path: Path, looks: list[SourceMixin], mode: CacheMode
):
    first = cached_findings(opened(data), mode=mode, folder=tmp_path / "kept")
    second = cached_findings(opened(data), mode=mode, folder=tmp_path / "kept")
    assert len(looks) == 1
    assert says(opened(data), first) == says(opened(data), second)
    assert "class 7" in str(audit(opened(data), second))
    assert list(second.unusable) == [2]


@pytest.mark.parametrize("mode", ["times", "hashes"])
@pytest.mark.parametrize("change", ["label", "image", "names", "new label", "gone", "renamed"])
def test_whatever_changes_is_seen_by_the_next_look(data: Path, tmp_path: Path, change: str, mode: CacheMode):
    folder, label = tmp_path / "kept", data.parent / "labels" / "a.txt"
    before = says(opened(data), cached_findings(opened(data), mode=mode, folder=folder))
    if change == "label":
        label.write_text("0 0.5 0.5 0.25 0.5\n0 0.1 0.1 0.4 0.1 0.4 0.6\n")  # as long as it was
    elif change == "image":
        cv2.imwrite(str(data.parent / "images" / "a.png"), np.zeros((30, 40, 3), np.uint8))
    elif change == "names":
        data.write_text("train: images\nnames: [cat, dog, bird, a, b, c, d, e]\n")
    elif change == "new label":
        (data.parent / "labels" / "c.txt").write_text("0 0.5 0.5 0.5 0.5\n")
        cv2.imwrite(str(data.parent / "images" / "c.png"), np.zeros((20, 40, 3), np.uint8))
    elif change == "gone":
        label.unlink()
    else:
        label.rename(label.with_name("z.txt"))
    after = cached_findings(opened(data), mode=mode, folder=folder)
    assert says(opened(data), after) == says(opened(data), cached_findings(opened(data), mode="off"))
    assert says(opened(data), after) != before


def test_a_change_that_keeps_size_and_time_is_seen(data: Path, tmp_path: Path):
    label, folder = data.parent / "labels" / "a.txt", tmp_path / "kept"
    cached_findings(opened(data), mode="times", folder=folder)
    stamp = label.stat()
    label.write_text(label.read_text().replace("1 0.5", "0 0.5"))
    os.utime(label, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    findings = cached_findings(opened(data), mode="times", folder=folder)
    assert findings.table.labels(0).class_ids.tolist() == [0, 0]


def test_what_other_code_found_is_not_used(
    data: Path, tmp_path: Path, looks: list[SourceMixin], monkeypatch: pytest.MonkeyPatch
):
    for code in ("one", "two", "one"):
        monkeypatch.setattr(cache, "_code", lambda code=code: code)
        cached_findings(opened(data), mode="times", folder=tmp_path / "kept")
    assert len(looks) == 2


def test_hashes_do_not_mind_that_files_were_touched(data: Path, tmp_path: Path, looks: list[SourceMixin]):
    for mode, expected in (("hashes", 1), ("times", 3)):
        for _ in range(2):
            cached_findings(opened(data), mode=mode, folder=tmp_path / "kept")  # type: ignore[arg-type]
            os.utime(data.parent / "labels" / "a.txt", ns=(1, len(looks)))
        assert len(looks) == expected


def test_the_content_of_a_file_is_read_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    read: list[Path] = []
    content = cache._content
    monkeypatch.setattr(cache, "_content", lambda file: read.append(file) or content(file))
    cached_findings(opened(data), mode="hashes", folder=tmp_path / "kept")
    assert sorted(read) == sorted(opened(data).files())
    assert list((tmp_path / "kept").iterdir())  # it was kept all the same


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut off", b"\x80\x04pickle"])
def test_a_damaged_file_is_made_anew(data: Path, tmp_path: Path, looks: list[SourceMixin], damage: bytes):
    folder = tmp_path / "kept"
    good = cached_findings(opened(data), mode="times", folder=folder)
    (file,) = folder.iterdir()
    file.write_bytes(damage)
    assert says(opened(data), cached_findings(opened(data), mode="times", folder=folder)) == says(opened(data), good)
    cached_findings(opened(data), mode="times", folder=folder)
    assert len(looks) == 2


def test_a_file_that_holds_something_else_is_made_anew(data: Path, tmp_path: Path, looks: list[SourceMixin]):
    folder = tmp_path / "kept"
    cached_findings(opened(data), mode="times", folder=folder)
    (file,) = folder.iterdir()
    with file.open("wb") as stream:
        np.savez(stream, counts=np.zeros(3), unusable=np.frombuffer(b"[]", np.uint8))
    assert list(cached_findings(opened(data), mode="times", folder=folder).unusable) == [2]
    assert len(looks) == 2


def test_a_place_that_cannot_be_written_to_does_no_harm(data: Path, tmp_path: Path, looks: list[SourceMixin]):
    (tmp_path / "file").write_text("in the way")
    for _ in range(2):
        assert list(cached_findings(opened(data), mode="times", folder=tmp_path / "file").unusable) == [2]
    assert len(looks) == 2


def test_files_that_have_just_changed_are_not_trusted(
    data: Path, tmp_path: Path, looks: list[SourceMixin], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cache, "_SETTLED_NS", 3_600_000_000_000)
    for _ in range(2):
        cached_findings(opened(data), mode="times", folder=tmp_path / "kept")
    assert len(looks) == 2


def test_files_that_change_while_they_are_looked_at_are_not_kept(
    data: Path, tmp_path: Path, looks: list[SourceMixin], monkeypatch: pytest.MonkeyPatch
):
    label, audit_labels = data.parent / "labels" / "a.txt", cache.audit_labels

    def disturbed(source: SourceMixin, **options: object) -> Findings:
        found = audit_labels(source, **options)
        label.write_text("0 0.5 0.5 0.25 0.5\n")
        return found

    monkeypatch.setattr(cache, "audit_labels", disturbed)
    cached_findings(opened(data), mode="hashes", folder=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_nothing_is_kept_beside_the_data(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "elsewhere"))
    before = sorted(data.parent.rglob("*"))
    cached_findings(opened(data), mode="times")
    assert sorted(data.parent.rglob("*")) == before
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1


def test_the_oldest_are_forgotten(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: list[SourceMixin]
):
    monkeypatch.setattr(cache, "_MOST_KEPT", 2)
    folder = tmp_path / "kept"
    for at, indices in enumerate(([0], [1], [0], [2])):
        cached_findings(opened(data).subset(indices), mode="times", folder=folder)
        for file in folder.iterdir():  # what was used last has the latest time, whatever the clock's resolution
            age = file.stat().st_mtime_ns
            os.utime(file, ns=(age, age if age < 10**12 else 1000 * at))
    assert len(looks) == 3
    assert len(list(folder.iterdir())) == 2
    cached_findings(opened(data).subset([0]), mode="times", folder=folder)
    assert len(looks) == 3
