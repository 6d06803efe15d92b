from pathlib import Path

import pytest

from yolov7_jax.errors import DataError
from yolov7_jax.inference.image_paths import find_images


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Files to find, in the working directory."""
    for name in (
        "shot10.jpg",
        "shot2.JPG",
        "shot1.png",
        "note.md",
        "clip.mp4",
        "._shot1.png",
        "deep/a/b.jpg",
        "odd.dng",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "x[1].jpg").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*sources):
    return [path.as_posix() for path in find_images(sources)]


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["shot1.png"], ["shot1.png"]),
        (["odd.dng"], ["odd.dng"]),  # one that is named needs no known ending
        ([Path("shot1.png")], ["shot1.png"]),
        (["."], ["shot1.png", "shot2.JPG", "shot10.jpg", "x[1].jpg"]),
        (["shot*"], ["shot1.png", "shot2.JPG", "shot10.jpg"]),
        (["shot?.*"], ["shot1.png", "shot2.JPG"]),
        (["x[1].jpg"], ["x[1].jpg"]),  # a file of that name comes before a pattern
        (["**/*.jpg"], ["deep/a/b.jpg", "shot10.jpg", "x[1].jpg"]),
        (["deep/**"], ["deep/a/b.jpg"]),
        (["shot10.jpg", ".", "./shot1.png"], ["shot10.jpg", "shot1.png", "shot2.JPG", "x[1].jpg"]),
        ([], []),
    ],
)
@pytest.mark.usefixtures("folder")
def test_files_folders_and_globs(sources, expected):
    assert names(*sources) == expected


def test_the_same_file_by_another_path_comes_once(folder):
    assert names("shot1.png", folder / "shot1.png", folder / "deep" / ".." / "shot1.png") == ["shot1.png"]


def test_natural_order_takes_all_numbers_of_a_name(tmp_path):
    expected = ["a1b2.jpg", "a1b10.jpg", "a02b1.jpg", "a2b1.jpg", "a10.jpg", "b.jpg"]
    for name in expected:
        (tmp_path / name).touch()
    assert [path.name for path in find_images([tmp_path])] == expected


def test_a_list_keeps_its_order_and_starts_from_its_own_place(folder):
    (folder / "deep" / "list.txt").write_text(
        "\ufeff../shot10.jpg\n\n  a/b.jpg  \n" + str(folder / "shot1.png"), "utf-8"
    )
    assert [path.resolve() for path in find_images(["deep/list.txt"])] == [
        folder / "shot10.jpg",
        folder / "deep" / "a" / "b.jpg",
        folder / "shot1.png",
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"shot1.png\ngone.jpg\n", r"list\.txt, line 2: gone\.jpg: is not there"),
        (b"\n\ndeep", r"list\.txt, line 3: deep: is no file"),
        (b"clip.mp4", r"list\.txt, line 1: clip\.mp4: is a video; only images"),
        (b" \n", r"list\.txt: is empty"),
        (b"\xff\xfe\x00", r"list\.txt: is not UTF-8 text"),
    ],
)
def test_lists_that_are_wrong(folder, content, sentence):
    (folder / "list.txt").write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        find_images(["list.txt"])


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("gone.jpg", "'gone.jpg' is not there; expected an image, a folder"),
        ("gone.txt", "'gone.txt' is not there"),
        ("", "'' is not there"),
        ("deep", "deep: no images here; expected files ending in .bmp"),
        ("*.gif", r"\*\.gif: no images here"),
        ("clip.mp4", "clip.mp4: is a video; only images can be given"),
        ("a" * 300, "cannot be read"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_sources_that_name_nothing(source, sentence):
    with pytest.raises(DataError, match=sentence):
        find_images(["shot1.png", source])
