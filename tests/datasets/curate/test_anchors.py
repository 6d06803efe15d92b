import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolov7_jax.assign.candidates import candidates
from yolov7_jax.datasets.curate.anchors import Sizes, cluster, evolve, fit, ratios, search
from yolov7_jax.errors import DataError, InputError
from yolov7_jax.graph.zoo.anchors import P6, YOLOV3

TWO_LEVELS = (((10.0, 10.0), (20.0, 40.0)), ((100.0, 100.0), (300.0, 200.0)))
side = st.floats(0.5, 1500)
pairs = st.lists(st.tuples(side, side), min_size=1, max_size=8)


def planted(rng: np.random.Generator, centers: np.ndarray, each: int = 60, spread: float = 0.03) -> Sizes:
    """Boxes around centers; sides differ from theirs by a few per cent."""
    return np.repeat(centers, each, axis=0) * np.exp(rng.normal(0, spread, (each * len(centers), 2)))


def test_fit_by_hand() -> None:
    #               both of level 1 | 10×10: no (5), 20×40: 2.5 | 4 from 100×100 is not under 4 | nothing near
    sizes = np.array([(15.0, 15.0), (50.0, 50.0), (400.0, 400.0), (10.0, 1000.0)])
    found = fit(sizes, TWO_LEVELS, 4.0)
    assert found.boxes == 4
    assert found.recall == 3 / 4  # 400 × 400 is twice 300 × 200
    assert found.level_recall == (2 / 4, 2 / 4)  # 15, 50; 50 (twice under 100), 400
    assert found.level_fitting == (3 / 4, 2 / 4)
    assert found.fitting == 5 / 4
    # ratios to the nearest: 1.5 (10 × 10), 2 (100 × 100), 2 (300 × 200)
    assert found.fitness == pytest.approx((1 / 1.5 + 1 / 2 + 1 / 2) / 4, rel=1e-15)


@given(pairs, st.lists(pairs, min_size=1, max_size=3), st.floats(1.01, 20))
def test_fit_is_that_of_loops(boxes: list, levels: list, anchor_t: float) -> None:
    def ratio(box: tuple[float, float], anchor: tuple[float, float]) -> float:
        return max(quotient for b, a in zip(box, anchor, strict=True) for quotient in (b / a, 1 / (b / a)))

    fits = [[[ratio(box, anchor) < anchor_t for anchor in level] for box in boxes] for level in levels]
    found = fit(np.array(boxes), tuple(map(tuple, levels)), anchor_t)
    n = len(boxes)
    # Means of few small whole numbers: sums are exact, one division.
    assert found.level_recall == tuple(sum(map(any, level)) / n for level in fits)
    assert found.level_fitting == tuple(sum(map(sum, level)) / n for level in fits)
    assert found.recall == sum(any(any(level[place]) for level in fits) for place in range(n)) / n
    nearest = [min(ratio(box, anchor) for level in levels for anchor in level) for box in boxes]
    assert found.fitness == pytest.approx(sum(1 / r for r in nearest if r < anchor_t) / n, rel=1e-12)
    assert max(found.level_recall) <= found.recall <= min(sum(found.level_recall), 1)


def test_anchors_that_fit_are_those_of_training() -> None:
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.uniform(1, 6, (200, 2)))
    boxes = np.concatenate([np.full((200, 2), 330.0), sizes], axis=1)
    options = {"strides": (8, 16, 32), "image_size": (640, 640), "anchor_t": 4.0, "neighbor_offset": 1e-9}
    found, _ = candidates(boxes, np.ones(200, bool), anchors=YOLOV3, **options)
    # With no neighbor_offset each anchor that fits is a candidate in the box's own cell alone.
    assert found.valid.sum() == round(200 * fit(sizes, YOLOV3, 4.0).fitting, 9)


@given(pairs, pairs)
def test_ratios_do_not_know_box_from_anchor(boxes: list, anchors: list) -> None:
    np.testing.assert_allclose(ratios(np.array(boxes), anchors), ratios(np.array(anchors), boxes).T, rtol=1e-15)


def test_fit_of_no_boxes_is_refused() -> None:
    with pytest.raises(DataError, match="there are no boxes"):
        fit(np.zeros((0, 2)), YOLOV3, 4.0)


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_clusters_are_found(seed: int) -> None:
    centers = np.array([(7, 12), (30, 30), (90, 40), (60, 120), (200, 230), (500, 300)], float)
    sizes = planted(np.random.default_rng(seed), centers)
    given = (((50.0, 50.0), (51.0, 51.0)), ((52.0, 52.0), (53.0, 53.0)), ((54.0, 54.0), (55.0, 55.0)))
    found = search(sizes, given, seed=seed, generations=300)
    by_area = centers[np.argsort(centers.prod(axis=1))]
    # The center of 60 boxes that spread by 3 % is known to 0.4 %; the fittest point of a cluster is its geometric
    # median rather than its mean, with a quarter more of spread: 2 % is four times that.
    np.testing.assert_allclose(np.array(found.anchors).reshape(6, 2), by_area, rtol=0.02)
    assert found.improved
    assert found.fit == fit(sizes, found.anchors, 4.0)
    assert found.given == fit(sizes, given, 4.0)


def test_k_means_centers_are_means_of_their_clusters() -> None:
    rng = np.random.default_rng(3)
    sizes = planted(rng, np.array([(10, 10), (100, 50), (300, 400)], float))
    centers = cluster(rng, sizes, 3)
    means = sizes.reshape(3, -1, 2).mean(axis=1)
    np.testing.assert_allclose(centers[np.argsort(centers[:, 0])], means, rtol=1e-12)


def test_fitness_never_falls_with_more_generations() -> None:
    sizes = np.exp(np.random.default_rng(0).normal(4, 1, (300, 2)))
    start = np.array(YOLOV3, float).reshape(-1, 2)

    def reached(generations: int) -> float:
        rng = np.random.default_rng(5)
        evolved = evolve(rng, sizes, start, anchor_t=4.0, generations=generations, population=2)
        return fit(sizes, (tuple(map(tuple, evolved)),), 4.0).fitness

    marks = [reached(generations) for generations in range(0, 60, 6)]
    assert all(later >= earlier for earlier, later in itertools.pairwise(marks))
    assert marks[-1] > marks[0]
    assert marks[0] == fit(sizes, YOLOV3, 4.0).fitness


def test_the_seed_decides() -> None:
    sizes = np.exp(np.random.default_rng(0).normal(4, 1, (200, 2)))
    runs = [search(sizes, YOLOV3, seed=seed, generations=20) for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0].anchors != runs[2].anchors


@given(st.integers(0, 2**32 - 1), st.integers(0, 3), st.sampled_from([YOLOV3, P6, TWO_LEVELS]))
def test_found_anchors_are_never_worse_and_as_many_a_level(seed: int, generations: int, given_anchors: tuple) -> None:
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(0, 7, (rng.integers(20, 40), 2)) * rng.uniform(0.3, 1))
    if (sizes >= 3).all(axis=1).sum() < sum(map(len, given_anchors)):
        return
    found = search(sizes, given_anchors, generations=generations, seed=seed)
    assert found.fit.fitness >= found.given.fitness
    assert [len(level) for level in found.anchors] == [len(level) for level in given_anchors]
    if not found.improved:
        assert found.anchors == given_anchors


def test_perfect_anchors_are_kept() -> None:
    sizes = np.array([pair for level in YOLOV3 for pair in level], float)
    found = search(sizes, YOLOV3, generations=30)
    assert not found.improved
    assert found.anchors == YOLOV3
    assert found.fit.fitness == 1


def test_levels_keep_their_order_of_size() -> None:
    coarse_first = tuple(reversed(TWO_LEVELS))
    sizes = planted(np.random.default_rng(0), np.array([(5, 5), (9, 9), (70, 70), (500, 400)], float))
    large, small = search(sizes, coarse_first, generations=10).anchors
    assert max(w * h for w, h in small) < min(w * h for w, h in large)
    assert list(small) == sorted(small, key=lambda pair: pair[0] * pair[1])


def test_tiny_boxes_are_counted_and_have_no_anchors() -> None:
    boxes = planted(np.random.default_rng(0), np.array([(20, 20), (60, 60), (100, 90), (200, 200)], float))
    sizes = np.concatenate([boxes, np.full((500, 2), 1.0), [(2.9, 50.0), (3.0, 50.0)]])
    found = search(sizes, TWO_LEVELS, generations=50)
    assert found.tiny == 501
    assert min(side for level in found.anchors for pair in level for side in pair) > 10
    assert found.fit.boxes == len(sizes)


def test_boxes_of_one_size() -> None:
    found = search(np.full((30, 2), 64.0), YOLOV3, generations=3)
    assert found.fit.fitness == 1
    assert (64.0, 64.0) in {pair for level in found.anchors for pair in level}


def test_more_boxes_than_the_search_looks_at() -> None:
    centers = np.array([(20, 20), (60, 60), (100, 90), (200, 200)], float)
    sizes = planted(np.random.default_rng(0), centers, each=3000)
    found = search(sizes, TWO_LEVELS, generations=2)
    assert found.fit.boxes == 12000
    # The larger of two deviations of 3 % is 2/√π of that in the mean; 12,000 of them know it to 0.02 %.
    assert found.fit.fitness == pytest.approx(1 - 0.03 * 2 / np.pi**0.5, abs=0.002)


def test_fewer_boxes_than_anchors_are_refused() -> None:
    sizes = np.concatenate([np.full((8, 2), 40.0), np.full((5, 2), 2.0)])
    with pytest.raises(DataError, match=r"8 boxes of 3 pixels or more are too few for 9 anchors; label more objects"):
        search(sizes, YOLOV3)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"anchor_t": 1.0}, "anchor_t is 1.0; expected a number over 1"),
        ({"anchor_t": float("nan")}, "anchor_t is nan"),
        ({"generations": -1}, "generations is -1 and population 4; expected at least 0 and at least 1"),
        ({"population": 0}, "generations is 1000 and population 0"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        search(np.full((30, 2), 64.0), YOLOV3, **options)
