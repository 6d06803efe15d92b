import dataclasses
import functools
import json
import math
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolov7_jax.assign import ota, simple
from yolov7_jax.assign.candidates import COARSE_REACH, FINE_REACH, candidates
from yolov7_jax.config import LossConfig
from yolov7_jax.ops.decode import make_grid
from yolov7_jax.train import loss as loss_module
from yolov7_jax.train.loss import detection_loss, scaled_gains
from yolov7_jax.types import Batch, Candidates, Outputs

compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
"""compiling takes longer than all that is computed here"""
CASES = ("p5_ota", "p5_ota_one_class", "p5_ota_smooth_focal", "p5_plain", "p5_plain_wide_gr", "p6_aux_ota")


def stacked(boxes, valid, reach, **options):
    found = [candidates(*pair, reach=reach, **options)[0] for pair in zip(boxes, valid, strict=True)]
    return Candidates(*map(np.stack, zip(*found, strict=True)))


def batch_of(boxes, class_ids, valid, fine, coarse):
    images, numbers = np.zeros((len(boxes), 1, 1, 3), np.uint8), np.zeros(len(boxes), np.int32)
    return Batch(images, boxes, class_ids, valid, fine, coarse, np.zeros((len(boxes), 2), np.int32), numbers)


class Recording:
    """What the reference computed for some outputs and boxes, in our shapes."""

    def __init__(self, folder, case, dtype):
        self.facts = json.loads((folder / f"{case}.json").read_text())
        with np.load(folder / f"{case}.npz") as arrays:
            self.arrays = dict(arrays)
        self.anchors = [np.reshape(level, (-1, 2)).tolist() for level in self.facts["anchors_pixels"]]
        self.levels, self.size = len(self.anchors), tuple(self.facts["image"])
        self.grid = make_grid(self.anchors, self.facts["strides"], self.size)
        self.has_aux = f"head{self.levels}" in self.arrays
        self.outputs = self.flat("head", dtype)
        self.batch = self.make_batch(dtype)
        known = {name: self.facts["hyp"][name] for name in ("box", "obj", "cls", "obj_pw", "cls_pw", "fl_gamma")}
        self.config = LossConfig(
            assigner="simple" if self.facts["loss"] == "ComputeLoss" else "ota",
            gr=self.facts["gr"],
            label_smoothing=self.facts["hyp"]["label_smoothing"],
            **known,
        )

    def flat(self, name, dtype):
        def one(first):
            heads = [self.arrays[f"{name}{first + i}"] for i in range(self.levels)]
            heads = [head.transpose(0, 2, 3, 1, 4).reshape(len(head), -1, head.shape[-1]) for head in heads]
            return np.concatenate(heads, axis=1).astype(dtype)

        return Outputs(one(0), one(self.levels) if self.has_aux else None)

    def make_batch(self, dtype, M=12):
        h, w = self.size
        rows = self.arrays["targets"]
        B = len(self.arrays["head0"])
        boxes, classes, valid = np.zeros((B, M, 4), dtype), np.zeros((B, M), np.int32), np.zeros((B, M), bool)
        for image in range(B):
            mine = rows[rows[:, 0] == image]
            boxes[image, : len(mine)] = mine[:, 2:].astype(dtype) * np.array([w, h, w, h], dtype)
            classes[image, : len(mine)], valid[image, : len(mine)] = mine[:, 1], True

        options = {"anchors": self.anchors, "strides": self.facts["strides"], "image_size": self.size}
        options |= {"anchor_t": self.facts["hyp"]["anchor_t"]}
        fine = stacked(boxes, valid, FINE_REACH, **options)
        fine = Candidates(*(np.pad(part, ((0, 0), (0, 0), (0, 24))) for part in fine))
        self.repeat_own_cells(fine, boxes)
        coarse = stacked(boxes, valid, COARSE_REACH, **options) if self.has_aux else None
        return batch_of(boxes, classes, valid, fine, coarse)

    def repeat_own_cells(self, fine, boxes):
        """The reference lists the own cell again for each axis along which a centre lies exactly on a cell's edge.

        We do not. It adds to the sum of overlaps of such a box, and every recording has one.
        """
        for row in np.argwhere(fine.valid.any(-1)):
            index, valid = fine.index[*row], fine.valid[*row]
            centre = boxes[*row][:2] / self.grid.stride[index[valid], None]
            own = (self.grid.cell[index[valid]] == np.floor(centre)).all(1)
            again = np.repeat(index[valid], own * (centre % 1 == 0).sum(1))
            free = np.flatnonzero(~valid)[: len(again)]
            index[free], valid[free] = again, True

    def loss(self, outputs):
        return detection_loss(outputs, self.batch, self.grid, self.config)

    def matches(self, assignment):
        """Sorted rows (level, image, anchor, row, column, truth) of the positives."""
        return sorted(
            (level, image, *self.place(index), truth)
            for image in range(len(assignment.index))
            for index, truth, positive in zip(*(np.asarray(part[image]) for part in assignment), strict=True)
            if positive
            for level in [next(i for i, s in enumerate(self.grid.levels) if s.start <= index < s.stop)]
        )

    def place(self, index):
        level = next(i for i, s in enumerate(self.grid.levels) if s.start <= index < s.stop)
        A, w = len(self.anchors[level]), self.size[1] // self.facts["strides"][level]
        cell, anchor = divmod(index - self.grid.levels[level].start, A)
        return int(anchor), int(cell // w), int(cell % w)

    def recorded_matches(self, name):
        rows = []
        for level in range(self.levels):
            places, targets = self.arrays[f"{name}_match{level}"], self.arrays[f"{name}_target{level}"]
            for place, target in zip(places.tolist(), targets, strict=True):
                mine = self.arrays["targets"][self.arrays["targets"][:, 0] == place[0]]
                rows.append((level, *place, int(np.flatnonzero((mine == target).all(1))[0])))
        return sorted(rows)


@pytest.fixture(scope="module")
def recording(shared):
    return functools.cache(functools.partial(Recording, shared / "goldens" / "loss"))


SINGLE = ("p5_ota_smooth_focal", "p5_plain_wide_gr")
"""also compared in float32; to compile all of them twice takes long"""


@pytest.mark.shared
@pytest.mark.parametrize(("case", "dtype"), [(c, np.float64) for c in CASES] + [(c, np.float32) for c in SINGLE])
def test_loss_and_gradients_are_the_reference_s(recording, case, dtype):
    found = recording(case, dtype)
    with jax.enable_x64(dtype == np.float64):
        (loss, items), gradient = compiled(jax.value_and_grad(found.loss, has_aux=True))(found.outputs)
    # The reference computed in float32: 1e-5 is what it may lose itself.
    np.testing.assert_allclose(items[:4], found.arrays["items"], rtol=1e-5)
    np.testing.assert_allclose(loss, found.arrays["loss"][0], rtol=1e-5)
    expected = found.flat("grad", dtype)
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
    if found.config.assigner == "ota":
        assert items.positives == len(found.recorded_matches("lead"))


@pytest.mark.shared
@pytest.mark.parametrize(("case", "dtype"), [(c, np.float64) for c in CASES if "ota" in c] + [(SINGLE[0], np.float32)])
def test_positives_are_the_reference_s(recording, case, dtype):
    found = recording(case, dtype)
    top = 20 if found.has_aux else 10
    for name, some in {"lead": found.batch.fine, "aux": found.batch.coarse}.items():
        if some is not None:
            with jax.enable_x64(dtype == np.float64):
                assignment = assign_all(found.grid, top)(found.outputs.lead, found.batch, some)
            assert found.matches(assignment) == found.recorded_matches(name)


def assign_all(grid, top):
    one = jax.vmap(functools.partial(ota.assign, grid=grid, top=top))
    return compiled(lambda raw, batch, some: one(raw, batch.boxes_cxcywh_px, batch.class_ids, batch.valid, some))


ANCHORS = (((10, 10), (16, 12)), ((24, 24), (40, 30)), ((50, 60), (90, 70)))
STRIDES, SIZE, M, C = (8, 16, 32), (64, 96), 5, 3
GRID = make_grid(ANCHORS, STRIDES, SIZE)
assign_small = {top: assign_all(GRID, top) for top in (10, 20)}
CONFIG = LossConfig(box=0.05, obj=0.7, cls=0.3, obj_pw=1.5, cls_pw=0.5, label_smoothing=0.1, gr=0.75)


def make_batch(counts, *, seed=0, coarse=False):
    rng = np.random.default_rng(seed)
    boxes = np.c_[rng.uniform(0, 96, (len(counts) * M, 1)), rng.uniform(0, 64, (len(counts) * M, 1))]
    boxes = np.c_[boxes, rng.uniform(8, 60, (len(counts) * M, 2))].reshape(-1, M, 4).astype(np.float32)
    valid = np.arange(M) < np.array(counts)[:, None]
    class_ids = rng.integers(0, C, valid.shape).astype(np.int32)
    boxes[~valid], class_ids[~valid] = 0, 0
    options = {"anchors": ANCHORS, "strides": STRIDES, "image_size": SIZE, "anchor_t": 4.0}
    wide = stacked(boxes, valid, COARSE_REACH, **options) if coarse else None
    return batch_of(boxes, class_ids, valid, stacked(boxes, valid, FINE_REACH, **options), wide)


def make_raw(seed, *, B=2, classes=C, spread=1.0):
    return np.random.default_rng(seed).normal(0, spread, (B, len(GRID.stride), 5 + classes)).astype(np.float32)


def loss_of(raw, batch, config=CONFIG, **options):
    outputs = raw if isinstance(raw, Outputs) else Outputs(raw)
    return detection_loss(outputs, batch, GRID, config, **options)


def brute_force(raw, assignment, batch, config):
    """The three items of one head without gains, one number at a time."""

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    def cross_entropy(x, t, weight):
        return -weight * t * math.log(sigmoid(x)) - (1 - t) * math.log(1 - sigmoid(x))

    def overlap(a, b):
        low = [min(p - s / 2, q - t / 2) for p, q, s, t in zip(a[:2], b[:2], a[2:], b[2:], strict=True)]
        high = [max(p + s / 2, q + t / 2) for p, q, s, t in zip(a[:2], b[:2], a[2:], b[2:], strict=True)]
        hull = [end - start for start, end in zip(low, high, strict=True)]
        shared = math.prod(max(0, s + t - whole) for s, t, whole in zip(a[2:], b[2:], hull, strict=True))
        iou = shared / (a[2] * a[3] + b[2] * b[3] - shared + 1e-7)
        v = 4 / math.pi**2 * (math.atan(a[2] / a[3]) - math.atan(b[2] / b[3])) ** 2
        far = math.dist(a[:2], b[:2]) ** 2 / (math.hypot(*hull) ** 2 + 1e-7)
        return iou - far - v * v / (v - iou + 1 + 1e-7)

    box, obj, cls = 0.0, 0.0, 0.0
    for level, balance in zip(GRID.levels, (4.0, 1.0, 0.4), strict=True):
        targets = {(b, n): 0.0 for b in range(len(raw)) for n in range(level.start, level.stop)}
        boxes, classes = [], []
        for b, slot in np.argwhere(np.asarray(assignment.positive)).tolist():
            n, m = int(assignment.index[b, slot]), int(assignment.truth[b, slot])
            if (b, n) in targets:
                x, y, w, h = (sigmoid(value) for value in raw[b, n, :4])
                stride, (aw, ah) = GRID.stride[n], GRID.anchor_px[n]
                size = (2 * w) ** 2 * aw / stride, (2 * h) ** 2 * ah / stride
                true = batch.boxes_cxcywh_px[b, m] / stride
                value = overlap((2 * x - 0.5, 2 * y - 0.5, *size), (*(true[:2] - GRID.cell[n]), *true[2:]))
                boxes.append(1 - value)
                targets[b, n] = max(targets[b, n], 1 - config.gr + config.gr * max(value, 0))
                smooth = [config.label_smoothing / 2] * C
                smooth[batch.class_ids[b, m]] = 1 - config.label_smoothing / 2
                classes += [cross_entropy(x, t, config.cls_pw) for x, t in zip(raw[b, n, 5:], smooth, strict=True)]
        box += float(np.mean(boxes)) if boxes else 0
        cls += float(np.mean(classes)) if boxes else 0
        obj += balance * np.mean([cross_entropy(raw[b, n, 4], t, config.obj_pw) for (b, n), t in targets.items()])
    return np.array([box, obj, cls])


FORMS = ["no auxiliary head", "lead guided", "independent", "coarse to fine", "simple"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_equals_brute_force(form):
    batch, raw, aux = make_batch([5, 3], coarse=form == "coarse to fine"), make_raw(1), make_raw(2)
    config = dataclasses.replace(CONFIG, assigner="simple" if form == "simple" else "ota")
    outputs = Outputs(raw, None if form == "no auxiliary head" else aux)
    loss, items = compiled(functools.partial(loss_of, config=config, independent=form == "independent"))(outputs, batch)
    if form == "simple":
        lead = chosen = jax.vmap(simple.assign)(batch.fine)
        shared = np.asarray(lead.index)[0, np.asarray(lead.positive)[0]].tolist()
        assert len(set(shared)) < len(shared)  # boxes meet in a prediction: its largest target counts
    else:
        assign = assign_small[20 if form == "coarse to fine" else 10]
        lead = assign(raw, batch, batch.fine)
        guide = aux if form == "independent" else raw
        chosen = assign(guide, batch, batch.coarse if form == "coarse to fine" else batch.fine)
    expected = brute_force(raw, lead, batch, config)
    if outputs.aux is not None:
        expected += 0.25 * brute_force(aux, chosen, batch, config)
    expected *= config.box, config.obj, config.cls
    np.testing.assert_allclose(items[:3], expected, rtol=1e-5)  # float32
    np.testing.assert_allclose(items.total, expected.sum(), rtol=1e-5)
    np.testing.assert_allclose(loss, 2 * expected.sum(), rtol=1e-5)
    assert items.positives == np.asarray(lead.positive).sum() > 5


value_and_slope = compiled(jax.value_and_grad(loss_of, has_aux=True), static_argnames="config")


def test_images_without_boxes_have_objectness_alone():
    (_, items), slope = value_and_slope(make_raw(0), make_batch([0, 0]))
    assert (items.box, items.cls, items.positives) == (0, 0, 0)
    assert items.obj > 0
    assert slope[..., 4].all()
    assert not np.delete(slope, 4, axis=-1).any()


def test_padding_does_not_matter():
    batch = make_batch([3, 2])
    full = make_batch([5, 5], seed=9)
    boxes = np.where(batch.valid[..., None], batch.boxes_cxcywh_px, full.boxes_cxcywh_px)
    filled = batch._replace(boxes_cxcywh_px=boxes, class_ids=np.where(batch.valid, batch.class_ids, full.class_ids))
    for ours, theirs in zip(*(jax.tree.leaves(value_and_slope(make_raw(0), b)) for b in (batch, filled)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_crowded_images_are_computed_in_full():
    raw, batch = make_raw(4), make_batch([5, 4])
    config = dataclasses.replace(CONFIG, assigner="simple")
    results = []
    for share in (1, 10**6):  # every slot fits; one slot a box would have to do, so all are computed
        with patch.object(loss_module, "USUAL_SHARE", share):
            results.append(
                compiled(jax.value_and_grad(functools.partial(loss_of, config=config), has_aux=True))(raw, batch)
            )
    for ours, theirs in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)  # sums of float32 in another order


def test_a_positive_in_the_last_slot_counts_once():
    batch, raw = make_batch([M, M]), make_raw(7)
    valid = np.arange(M)[None, :] == [[M - 1], [0]]
    fine = Candidates(batch.fine.index[..., :1], batch.fine.valid[..., :1] & valid[..., None])
    batch, config = batch._replace(valid=valid, fine=fine), dataclasses.replace(CONFIG, assigner="simple")
    items = loss_of(raw, batch, config)[1]
    expected = brute_force(raw, jax.vmap(simple.assign)(fine), batch, config)
    np.testing.assert_allclose(items.cls / config.cls, expected[2], rtol=1e-5)  # float32


@pytest.mark.parametrize("extreme", [100.0, 1e4])
def test_outputs_that_saturate_have_finite_loss_and_gradient(extreme):
    raw = np.random.default_rng(0).choice(np.float32([-extreme, 0, extreme]), make_raw(0).shape)
    (loss, _), slope = value_and_slope(raw, make_batch([3, 2]))
    assert np.isfinite(loss)
    assert np.isfinite(slope).all()


def test_slopes_of_objectness_and_classes_are_difference_quotients():
    batch, rng = make_batch([4, 2]), np.random.default_rng(5)
    config = dataclasses.replace(CONFIG, assigner="simple", gr=0.0, fl_gamma=1.5)  # gr 0: targets do not move
    with jax.enable_x64(True):
        raw = make_raw(6).astype(np.float64)
        slope = value_and_slope(raw, batch, config=config)[1]
        for channels in (slice(4, 5), slice(5, None)):
            direction = np.zeros_like(raw)
            direction[..., channels] = rng.normal(size=direction[..., channels].shape)
            ends = [value_and_slope(raw + step * direction, batch, config=config)[0][0] for step in (1e-5, -1e-5)]
            np.testing.assert_allclose((slope * direction).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-6)


def test_half_precision_is_computed_in_single():
    raw = jnp.asarray(make_raw(0), jnp.bfloat16)
    batch = make_batch([3, 2])
    loss, items = compiled(loss_of)(raw, batch)
    assert loss.dtype == items.total.dtype == jnp.float32
    assert items.positives.dtype == jnp.int32
    np.testing.assert_allclose(loss, value_and_slope(raw.astype(jnp.float32), batch)[0][0], rtol=1e-6)  # float32


def test_gains_of_a_run():
    recipe = LossConfig(box=0.05, obj=0.7, cls=0.3, gr=0.5)
    assert scaled_gains(recipe, levels=3, num_classes=80, size=640) == recipe
    scaled = scaled_gains(recipe, levels=4, num_classes=20, size=1280)
    np.testing.assert_allclose((scaled.box, scaled.obj, scaled.cls), (0.0375, 2.1, 0.05625), rtol=1e-12)  # by hand
    assert scaled.gr == 0.5
