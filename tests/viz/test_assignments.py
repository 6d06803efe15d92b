import numpy as np

from yolov7_jax.ops.decode import make_grid
from yolov7_jax.types import Assignment, Candidates
from yolov7_jax.viz.assignments import CANDIDATE_TINT, POSITIVE_TINT, HeadCells, draw_cells
from yolov7_jax.viz.draw import class_color
from yolov7_jax.viz.sheet import GAP, HEADING

SIDE = 320  # large enough to be drawn as it is
GRAY = 100


def picture(heads: list[HeadCells]) -> np.ndarray:
    """Of an image with a box of 16 pixels around (100, 100), and a grid of cells of 64 and of 160 pixels."""
    grid = make_grid((((30, 30),), ((90, 90),)), (64, 160), (SIDE, SIDE))
    image = np.full((SIDE, SIDE, 3), GRAY, np.uint8)
    return draw_cells(image, np.float32([[200, 300, 16, 16], [100, 100, 16, 16]]), heads, grid)


def head(name: str, candidates: list[int], positives: list[int]) -> HeadCells:
    index = np.int32([[0] * len(candidates), candidates])
    valid = np.array([[False] * len(candidates), [True] * len(candidates)])
    chosen = np.int32(positives)
    return HeadCells(
        name, Candidates(index, valid), Assignment(chosen, np.ones_like(chosen), np.ones_like(chosen, bool))
    )


def tinted(share: float) -> np.ndarray:
    return np.rint((1 - share) * GRAY + share * np.array(class_color(1)))


def at(sheet: np.ndarray, row: int, column: int, x: int, y: int) -> np.ndarray:
    """The pixel (x, y) of the image in a row and column of the sheet."""
    top = GAP + row * (SIDE + HEADING + GAP) + HEADING
    return sheet[top + y, GAP + column * (SIDE + GAP) + x]


def test_cells_have_the_color_of_their_box_by_level_and_head() -> None:
    # Cells of stride 64 are numbered row by row, five in a row: 6 is the second of the second row; 25 is of stride 160.
    sheet = picture([head("lead", [6, 7, 25], [7]), head("auxiliary", [6], [])])
    assert np.array_equal(at(sheet, 0, 0, 70, 70), tinted(CANDIDATE_TINT))  # cell 6: x, y from 64 to 128
    both = np.rint((1 - POSITIVE_TINT) * tinted(CANDIDATE_TINT) + POSITIVE_TINT * np.array(class_color(1)))
    assert np.array_equal(at(sheet, 0, 0, 132, 70), both)  # cell 7: x from 128
    assert np.array_equal(at(sheet, 0, 0, 70, 132), [GRAY] * 3)
    assert np.array_equal(at(sheet, 0, 1, 150, 150), tinted(CANDIDATE_TINT))  # cell 0 of stride 160
    assert np.array_equal(at(sheet, 0, 1, 170, 20), [GRAY] * 3)
    assert np.array_equal(at(sheet, 1, 0, 70, 70), tinted(CANDIDATE_TINT))
    assert np.array_equal(at(sheet, 1, 0, 132, 70), [GRAY] * 3)


def test_boxes_are_framed_where_they_have_candidates_and_anchors_where_they_are_positive() -> None:
    sheet = picture([head("lead", [6, 7], [7])])
    assert np.array_equal(at(sheet, 0, 0, 92, 92), class_color(1))  # corner of the box
    assert np.array_equal(at(sheet, 0, 0, 145, 81), class_color(1))  # of the anchor of 30 around the center (160, 96)
    assert np.array_equal(at(sheet, 0, 1, 92, 92), [GRAY] * 3)
    assert np.array_equal(at(sheet, 0, 0, 192, 292), [GRAY] * 3)  # the box without candidates


def test_small_images_are_enlarged_by_whole_factors() -> None:
    grid = make_grid((((30, 30),),), (64,), (128, 128))
    sheet = draw_cells(
        np.full((128, 128, 3), GRAY, np.uint8), np.float32([[0, 0, 1, 1], [9, 9, 4, 4]]), [head("lead", [3], [])], grid
    )
    assert sheet.shape[:2] == (3 * 128 + HEADING + 2 * GAP, 3 * 128 + 2 * GAP)
    assert np.array_equal(sheet[GAP + HEADING + 3 * 100, GAP + 3 * 100], tinted(CANDIDATE_TINT))
