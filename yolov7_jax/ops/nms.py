"""Non-maximum suppression with static shapes: greedy and exact, and as long as the candidates of the image ask for.

Candidates, the entries of [N, C] that pass the thresholds, are walked in order of score (ties: by prediction, then
class) in blocks. Each block is found when its turn comes: one pass over the scores leaves N best scores, and
`lax.top_k` of a few hundred of those is cheap where sorting all N·C scores is not. Most images need one or two
blocks. Thresholds are values, not shapes: changing them compiles nothing anew.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from yolov7_jax.ops.iou import pairwise_iou
from yolov7_jax.types import PaddedDetections

BLOCK = 256
"""Candidates resolved at once: larger wastes work on images with few, smaller takes more rounds in crowds."""


class _Rules(NamedTuple):
    """What makes an entry a candidate, and a box suppress another."""

    class_mask: jax.Array
    confidence: jax.Array
    iou: jax.Array
    multi_label: bool | jax.Array
    agnostic: bool | jax.Array


class _Boxes(NamedTuple):
    """A block of candidates, or what was kept so far; scores of empty places are -inf and 0 respectively."""

    boxes_xyxy_px: jax.Array
    scores: jax.Array
    class_ids: jax.Array


class _Walk(NamedTuple):
    """How far we are.

    best: float [N], best score among the entries of each prediction that lie ahead, -inf where none do.
    last_score, last_entry: the last entry taken, by its place in [N, C]. taken: how many were.
    kept: what stays so far, best first; survivors: how many do (those beyond its places are lost).
    """

    best: jax.Array
    last_score: jax.Array
    last_entry: jax.Array
    taken: jax.Array
    kept: _Boxes
    survivors: jax.Array


def non_max_suppression(
    boxes_xyxy_px: jax.Array,
    objectness: jax.Array,
    scores: jax.Array,
    class_mask: jax.Array,
    *,
    confidence: jax.Array | float,
    iou: jax.Array | float,
    multi_label: bool | jax.Array,
    agnostic: bool | jax.Array,
    capacity: int = 30_000,
    max_detections: int = 300,
) -> PaddedDetections:
    """Detections of one image (`jax.vmap` makes it a batch): where boxes overlap, only the one of best score stays.

    A candidate has objectness and score above `confidence`; in order of score, each is kept unless its IoU with a kept
    one of its class exceeds `iou`.

    Args:
        boxes_xyxy_px: float [N, 4].
        objectness: float [N].
        scores: float [N, C], final scores of the classes (objectness times class probability).
        class_mask: bool [C], the classes wanted.
        confidence: what objectness and score must exceed.
        iou: the overlap above which the lesser box goes.
        multi_label: every class of a prediction is a candidate (evaluation), else its best class alone, which is chosen
            before `class_mask` is looked at (of equally good classes a wanted one). Static it costs less than traced.
        agnostic: boxes suppress each other across classes.
        capacity: static; how many candidates are looked at; those of least score beyond it are left out and counted.
        max_detections: static; how many detections are kept at most, D.

    Returns:
        Detections of D rows, best first; `overflow` is a scalar.
    """
    boxes_xyxy_px, objectness, scores = (_with_a_block(array) for array in (boxes_xyxy_px, objectness, scores))
    threshold, overlap = jnp.asarray(confidence, scores.dtype), jnp.asarray(iou, boxes_xyxy_px.dtype)
    rules = _Rules(class_mask, threshold, overlap, multi_label, agnostic)
    best, candidates = _survey(objectness, scores, rules)

    def unfinished(walk: _Walk) -> jax.Array:
        return (walk.survivors < max_detections) & (walk.taken < capacity) & jnp.any(walk.best > -jnp.inf)

    def step(walk: _Walk) -> _Walk:
        block, ahead = _next_block(boxes_xyxy_px, scores, rules, walk)
        within = walk.taken + jnp.arange(block.scores.shape[0]) < capacity
        kept, survivors = _keep(walk.kept, walk.survivors, block, within, rules)
        return ahead._replace(kept=kept, survivors=survivors)

    nothing = _Boxes(
        jnp.zeros((max_detections, 4), boxes_xyxy_px.dtype),
        jnp.zeros(max_detections, scores.dtype),
        jnp.zeros(max_detections, jnp.int32),
    )
    start = _Walk(best, jnp.asarray(jnp.inf, scores.dtype), jnp.int32(-1), jnp.int32(0), nothing, jnp.int32(0))
    end = lax.while_loop(unfinished, step, start)
    valid = jnp.arange(max_detections) < end.survivors
    return PaddedDetections(*end.kept, valid=valid, overflow=jnp.maximum(candidates - capacity, 0))


def _with_a_block(array: jax.Array) -> jax.Array:
    """Of programs for images of any size [N, ...], whose N is not known: a block of zeros more, which pass nothing.

    So N is at least that of a block.
    """
    if isinstance(array.shape[0], int):
        return array
    return jnp.concatenate([array, jnp.zeros((BLOCK, *array.shape[1:]), array.dtype)])


def _survey(objectness: jax.Array, scores: jax.Array, rules: _Rules) -> tuple[jax.Array, jax.Array]:
    """Best candidate score of each prediction [N], -inf where it has none, and the number of candidates of all.

    Written so that XLA's CPU back end fuses it: it fuses `minimum`, but not `where`, into a reduction, and an array of
    N·C values written to memory costs more than all else here.
    """
    never = jnp.asarray(-jnp.inf, scores.dtype)
    best = jnp.minimum(scores, jnp.where(rules.class_mask, -never, never)[None, :]).max(axis=1)
    is_candidate = (objectness > rules.confidence) & (best > rules.confidence)
    is_candidate &= rules.multi_label | (best == scores.max(axis=1))
    narrow = jnp.uint8 if scores.shape[1] < 256 else jnp.uint16
    passes = scores > jnp.where(rules.class_mask, rules.confidence, -never)[None, :]
    number = jnp.where(rules.multi_label, passes.sum(axis=1, dtype=narrow).astype(jnp.int32), 1)
    return jnp.where(is_candidate, best, -jnp.inf), jnp.where(is_candidate, number, 0).sum(dtype=jnp.int32)


def _top_k(values: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """`lax.top_k` behind barriers: where XLA may slice its result further, it sorts all values (50 times slower).

    Two of them: behind one alone, XLA for CPUs ends the process where devices share the images.
    """
    found, places = lax.top_k(values, size)
    return lax.optimization_barrier(found), lax.optimization_barrier(places)


def _next_block(boxes_xyxy_px: jax.Array, scores: jax.Array, rules: _Rules, walk: _Walk) -> tuple[_Boxes, _Walk]:
    """The next candidates in order, and the walk after them.

    The next n entries always lie in the n predictions of best score ahead. An entry lies ahead if it comes after the
    last one taken in the order, so nothing of size N·C is carried.
    """
    predictions, classes = scores.shape
    size = min(BLOCK, predictions)
    rows = jnp.sort(_top_k(walk.best, size)[1])  # sorted, so that top_k below breaks ties by prediction, then class
    entry = rows[:, None] * classes + jnp.arange(classes, dtype=jnp.int32)[None, :]
    values = _candidate_scores(scores[rows], rules)
    ahead = (values < walk.last_score) | ((values == walk.last_score) & (entry > walk.last_entry))
    ahead &= (walk.best[rows] > -jnp.inf)[:, None]
    values = jnp.where(ahead, values, -jnp.inf).reshape(-1)
    top, place = _top_k(values, size)
    left = values.at[place].set(-jnp.inf).reshape(size, classes).max(axis=1)
    block = _Boxes(boxes_xyxy_px[rows[place // classes]], top, place % classes)
    return block, walk._replace(
        best=walk.best.at[rows].set(left),
        last_score=top[-1],
        last_entry=entry.reshape(-1)[place[-1]],
        taken=walk.taken + size,
    )


def _candidate_scores(scores: jax.Array, rules: _Rules) -> jax.Array:
    """Scores [n, C] of predictions that have a candidate, -inf in place of what is none."""
    wanted = jnp.where(rules.class_mask[None, :] & (scores > rules.confidence), scores, -jnp.inf)
    is_best = jnp.arange(scores.shape[1])[None, :] == jnp.argmax(wanted, axis=1)[:, None]
    return jnp.where(rules.multi_label | is_best, wanted, -jnp.inf)


def _keep(kept: _Boxes, count: jax.Array, block: _Boxes, within: jax.Array, rules: _Rules) -> tuple[_Boxes, jax.Array]:
    """`kept` with the survivors of the block appended as far as there is place, and the number of survivors so far."""
    slots, size = kept.scores.shape[0], block.scores.shape[0]
    beaten = _suppresses(kept, block, rules).any(axis=0)  # boxes of empty places have no area, so suppress nothing
    alive = (block.scores > -jnp.inf) & within & ~beaten
    earlier = jnp.arange(size)[:, None] < jnp.arange(size)[None, :]
    survives = _greedy(alive, _suppresses(block, block, rules) & earlier)
    place = jnp.where(survives, count + jnp.cumsum(survives, dtype=jnp.int32) - 1, slots)
    appended = _Boxes(*(old.at[place].set(new, mode="drop") for old, new in zip(kept, block, strict=True)))
    return appended, count + survives.sum(dtype=jnp.int32)


def _suppresses(these: _Boxes, others: _Boxes, rules: _Rules) -> jax.Array:
    """Whether a box of `these` (rows), if kept, pushes out one of `others` (columns)."""
    overlaps = pairwise_iou(these.boxes_xyxy_px, others.boxes_xyxy_px) > rules.iou
    return overlaps & (rules.agnostic | (these.class_ids[:, None] == others.class_ids[None, :]))


def _greedy(alive: jax.Array, suppresses: jax.Array) -> jax.Array:
    """The greedy choice, bool [n], where `suppresses` [n, n] is strictly upper triangular.

    keep_i = alive_i and no kept j suppresses i: this has one fixed point, reached in as many rounds as the longest
    chain of boxes that suppress each other in turn, rather than in n steps.
    """

    def one_round(keep: jax.Array) -> jax.Array:
        return alive & ~(suppresses & keep[:, None]).any(axis=0)

    def again(before_and_after: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return before_and_after[1], one_round(before_and_after[1])

    return lax.while_loop(lambda pair: jnp.any(pair[0] != pair[1]), again, (alive, one_round(alive)))[1]
