import itertools
from pathlib import Path

import numpy as np
import pytest

from yolov7_jax.datasets import open_source
from yolov7_jax.demo.scenes import (
    LEAST_VISIBLE,
    PATTERNS,
    SCENE_NAMES,
    compose,
    draw_background,
    scene,
    write_scenes,
)
from yolov7_jax.demo.shapes import SHAPES, paint, place
from yolov7_jax.errors import DataError, InputError
from yolov7_jax.types import Sample

SIZE = 128
WHITE = (255, 255, 255)


@pytest.fixture(scope="module")
def compositions():
    return [compose(7, index, size=SIZE) for index in range(250)]


@pytest.fixture(scope="module")
def shapes(compositions):
    return [shape for _, shapes in compositions for shape in shapes]


def painted_white(shape) -> np.ndarray:
    """How much of each pixel of the image the object covers, 0 to 1."""
    return paint(np.zeros((SIZE, SIZE, 3), np.uint8), [shape._replace(color=WHITE)])[..., 0] / 255


def sides_of(shapes) -> np.ndarray:
    boxes = np.array([shape.box_xyxy_px for shape in shapes])
    return (boxes[:, 2:] - boxes[:, :2]).max(axis=1)


def test_boxes_are_the_extent_of_the_painted_pixels(shapes):
    for shape in shapes:
        rows, columns = np.nonzero(painted_white(shape))
        left, top, right, bottom = shape.box_xyxy_px
        assert (np.floor(left), np.floor(top)) == (columns.min(), rows.min())
        assert (np.ceil(right), np.ceil(bottom)) == (columns.max() + 1, rows.max() + 1)


@pytest.mark.parametrize("corner", [(20, 30), (20.25, 30.5), (20.6, 30.9), (-8, 118)])
def test_an_upright_square_lies_where_it_is_put(corner):
    center = np.array(corner) + 15
    shape = place(1, SHAPES["square"], side=30, angle=0, center=center, size=SIZE)
    extent = np.clip([*corner, *np.add(corner, 30)], 0, SIZE)
    # Edges are half a subpixel too far out, an eighth of a pixel, and rounded to whole subpixels.
    np.testing.assert_allclose(shape.box_xyxy_px, extent, atol=0.25)
    left, top, right, bottom = extent
    assert painted_white(shape).sum() == pytest.approx((right - left) * (bottom - top), rel=0.02)
    assert shape.inside == pytest.approx((right - left) * (bottom - top) / 900, abs=0.02)


def test_boxes_are_tight_to_a_fraction_of_a_pixel(shapes):
    # The area and the middle of a disc give its box without looking at its edges.
    discs = [shape for shape in shapes if SCENE_NAMES[shape.class_id] == "circle" and shape.inside == 1]
    assert len(discs) > 50
    middles = np.arange(SIZE) + 0.5
    excess = []
    for disc in discs:
        cover = painted_white(disc)
        left, top, right, bottom = disc.box_xyxy_px
        diameter = 2 * np.sqrt(cover.sum() / np.pi)
        excess += [right - left - diameter, bottom - top - diameter]
        middle = (cover.sum(axis=0) @ middles / cover.sum(), cover.sum(axis=1) @ middles / cover.sum())
        assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx(middle, abs=0.15)
    assert np.abs(excess).max() < 0.5  # each of two edges is rounded by less than a subpixel, a quarter of a pixel
    assert abs(np.mean(excess)) < 0.15


def test_a_box_is_of_the_part_inside_the_image(shapes):
    cut = [shape for shape in shapes if shape.inside < 0.95]
    assert len(cut) > 20
    for shape in cut:
        left, top, right, bottom = shape.box_xyxy_px
        assert min(left, top) == 0 or max(right, bottom) == SIZE
        assert shape.inside >= 0.8
    boxes = np.array([shape.box_xyxy_px for shape in shapes])
    assert boxes.min() >= 0
    assert boxes.max() <= SIZE


def test_a_sample_is_the_image_and_labels_of_its_composition(compositions):
    for index, (background, shapes) in enumerate(compositions[:20]):
        sample = scene(7, index)
        canvas = background.astype(float)
        for shape in shapes:
            weight = painted_white(shape)[..., None]
            canvas = canvas * (1 - weight) + np.array(shape.color) * weight
        assert np.abs(sample.image - canvas).max() <= 2  # each of some layers rounds by half
        np.testing.assert_array_equal(sample.boxes_xyxy_px, [shape.box_xyxy_px for shape in shapes])
        np.testing.assert_array_equal(sample.class_ids, [shape.class_id for shape in shapes])
        assert (sample.image.dtype, sample.boxes_xyxy_px.dtype, sample.class_ids.dtype) == ("u1", "f4", "i4")
        assert sample.id == index


def test_no_object_is_hidden(compositions):
    hidden = 0
    for background, shapes in compositions[:120]:
        marked = [shape._replace(color=(10 * number + 10, 0, 0)) for number, shape in enumerate(shapes)]
        image = paint(np.zeros_like(background), marked)
        for shape in marked:
            alone = (paint(np.zeros_like(background), [shape]) == shape.color).all(axis=2)
            visible = (image == shape.color).all(axis=2)[alone].mean()
            assert visible >= LEAST_VISIBLE - 0.15  # half-covered edges count to neither here
            hidden += visible < 0.9
    assert hidden > 15  # but they do overlap


def test_a_scene_depends_on_seed_and_index_alone():
    def equal(a: Sample, b: Sample) -> bool:
        return all(np.array_equal(one, other) for one, other in zip(a[:3], b[:3], strict=True))

    first = scene(3, 5)
    scene(3, 6)
    assert equal(first, scene(3, 5))
    samples = [first, scene(3, 6), scene(4, 5), scene(5, 3)]
    assert not any(equal(a, b) for a, b in itertools.combinations(samples, 2))


def test_kinds_sizes_and_numbers_vary(compositions, shapes):
    numbers = [len(shapes) for _, shapes in compositions]
    assert set(numbers) == set(range(1, 6))
    sides = sides_of([shape for shape in shapes if shape.inside == 1])
    assert 11 <= sides.min() <= 12
    assert 60 <= sides.max() <= SIZE / 2 + 0.5  # edges are drawn a subpixel wide
    assert 0.05 < (sides < 16).mean() < 0.2
    assert (np.bincount([shape.class_id for shape in shapes]) / len(shapes)).min() > 0.08  # an eighth each
    for name, shape in SHAPES.items():
        whole = [shape for shape in shapes if shape.inside == 1 and SCENE_NAMES[shape.class_id] == name]
        assert shape.least_px <= sides_of(whole).min() + 0.25


def test_objects_stand_out_against_what_is_behind_them(compositions):
    contrasts = []
    for background, shapes in compositions:
        for number, shape in enumerate(shapes):
            behind = paint(background, shapes[:number])[shape.window].astype(int)
            contrasts.append((np.abs(behind - shape.color).max(axis=2) >= 90).mean())
    assert np.mean(np.array(contrasts) > 0.8) > 0.97


def test_edges_are_smooth(shapes):
    disc = max((shape for shape in shapes if SCENE_NAMES[shape.class_id] == "circle"), key=lambda shape: shape.inside)
    assert len(np.unique(disc.coverage)) > 6


def test_classes_differ_in_shape():
    # Every class at 24 pixels, at the origin of its own window.
    covers = {}
    for index in itertools.count():
        for shape in compose(1, index, size=64)[1]:
            if shape.inside == 1 and 23.5 <= sides_of([shape])[0] <= 24.5:
                cover = np.zeros((26, 26))
                cover[: shape.coverage.shape[0], : shape.coverage.shape[1]] = shape.coverage / 255
                covers.setdefault(shape.class_id, cover)
        if len(covers) == len(SCENE_NAMES):
            break
    for a, b in itertools.combinations(covers.values(), 2):
        # A disc is π/4 of its square; at most a few pixels of tilt and position come on top.
        assert np.minimum(a, b).sum() / np.maximum(a, b).sum() < 0.85


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_are_soft_mixtures(pattern):
    for seed in range(20):
        mixture = pattern(np.random.default_rng(seed), 96)
        assert (mixture.shape, mixture.dtype) == ((96, 96), np.float32)
        assert 0 <= mixture.min() < mixture.max() <= 1
        assert np.abs(np.diff(mixture)).max() < 0.6


def test_backgrounds_vary(monkeypatch):
    drawn = set()
    kinds = [lambda rng, size, kind=kind: drawn.add(kind) or kind(rng, size) for kind in PATTERNS]
    monkeypatch.setattr("yolov7_jax.demo.scenes.PATTERNS", kinds)
    backgrounds = np.array([draw_background(np.random.default_rng(seed), 64) for seed in range(60)], float)
    assert drawn == set(PATTERNS)
    assert np.std(backgrounds.mean(axis=(1, 2, 3))) > 40
    assert len(np.unique(backgrounds.std(axis=(1, 2, 3)).round(3))) > 50


@pytest.mark.parametrize("size", [64, 333])
def test_other_sizes(size):
    for index in range(10):
        sample = scene(0, index, size=size)
        assert sample.image.shape == (size, size, 3)
        assert len(sample.class_ids) >= 1
        assert sample.boxes_xyxy_px.max() <= size


def test_images_too_small_for_objects_are_refused():
    with pytest.raises(InputError, match=r"scenes of 63 pixels .* use 64 or more"):
        scene(0, 0, size=63)


def test_written_scenes_are_read_as_a_data_set(tmp_path: Path):
    data = write_scenes(tmp_path / "new" / "scenes", train=6, val=3, seed=2)
    assert data == tmp_path / "new" / "scenes" / "data.yaml"
    val, train = open_source(data, "val"), open_source(data, "train")
    assert val.names == train.names == SCENE_NAMES
    assert (len(val), len(train)) == (3, 6)
    for index, sample in enumerate([*(val[k] for k in range(3)), *(train[k] for k in range(6))]):
        drawn = scene(2, index)
        np.testing.assert_array_equal(sample.image, drawn.image)
        np.testing.assert_array_equal(sample.class_ids, drawn.class_ids)
        # Eight decimals of 160 pixels, then single precision.
        np.testing.assert_allclose(sample.boxes_xyxy_px, drawn.boxes_xyxy_px, atol=2e-5)


def test_held_out_images_do_not_depend_on_how_many_are_trained_on(tmp_path: Path):
    folders = [write_scenes(tmp_path / str(count), train=count, val=2).parent for count in (1, 3)]
    first, second = ({file.name: file.read_bytes() for file in (at / "images/val").iterdir()} for at in folders)
    assert first == second


def test_images_that_are_there_are_left_alone(tmp_path: Path):
    write_scenes(tmp_path, train=1, val=1)
    with pytest.raises(DataError, match="has a folder images already; name another folder"):
        write_scenes(tmp_path, train=1, val=1)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/images/val/000000.png: cannot be written"):
        write_scenes(tmp_path / "file", train=1, val=1)
    (tmp_path / "labels").write_text("")
    with pytest.raises(InputError, match=r"labels/val/000000.txt: cannot be written"):
        write_scenes(tmp_path, train=1, val=1)
