import dataclasses
import functools
import json
import math
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from tests.assign.oracle import ota_positives, predicted_box, sigmoid, simple_positives
from yolov7_jax.assign import ota
from yolov7_jax.assign.candidates import COARSE_NEIGHBOR_OFFSET, FINE_NEIGHBOR_OFFSET, candidates
from yolov7_jax.config import LossConfig
from yolov7_jax.contracts import LossSetup
from yolov7_jax.errors import InputError
from yolov7_jax.ops.decode import make_grid
from yolov7_jax.training import class_loss as class_loss_module
from yolov7_jax.training.loss import detection_loss, first_balance, next_balance, scaled_gains
from yolov7_jax.types import Batch, Candidates, Outputs

compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
"""compiling takes longer than all that is computed here"""
CASES = ("p5_ota", "p5_ota_one_class", "p5_ota_smooth_focal", "p5_plain", "p5_plain_wide_gr", "p6_aux_ota")


def stacked(boxes, valid, neighbor_offset, **options):
    found = [
        candidates(*pair, neighbor_offset=neighbor_offset, **options)[0] for pair in zip(boxes, valid, strict=True)
    ]
    return Candidates(*map(np.stack, zip(*found, strict=True)))


def batch_of(boxes, class_ids, valid, fine, coarse):
    images, numbers = np.zeros((len(boxes), 1, 1, 3), np.uint8), np.zeros(len(boxes), np.int32)
    return Batch(images, boxes, class_ids, valid, fine, coarse, np.zeros((len(boxes), 2), np.int32), numbers)


def loss_with(config, *, has_aux):
    """The loss with gains as they are."""
    return dataclasses.replace(detection_loss(config, LossSetup((8, 16, 32), 80, has_aux, 640)), config=config)


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
        fine = stacked(boxes, valid, FINE_NEIGHBOR_OFFSET, **options)
        fine = Candidates(*(np.pad(part, ((0, 0), (0, 0), (0, 24))) for part in fine))
        self.repeat_own_cells(fine, boxes)
        coarse = stacked(boxes, valid, COARSE_NEIGHBOR_OFFSET, **options) if self.has_aux else None
        return batch_of(boxes, classes, valid, fine, coarse)

    def repeat_own_cells(self, fine, boxes):
        """The reference lists the own cell again for each axis along which a center lies exactly on a cell's edge.

        We do not. It adds to the sum of overlaps of such a box, and every recording has one.
        """
        for row in np.argwhere(fine.valid.any(-1)):
            index, valid = fine.index[*row], fine.valid[*row]
            center = boxes[*row][:2] / self.grid.stride[index[valid], None]
            own = (self.grid.cell[index[valid]] == np.floor(center)).all(1)
            again = np.repeat(index[valid], own * (center % 1 == 0).sum(1))
            free = np.flatnonzero(~valid)[: len(again)]
            index[free], valid[free] = again, True

    def loss(self, outputs):
        return loss_with(self.config, has_aux=self.has_aux)(outputs, self.batch, self.grid)

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


ITEMS = ("box", "obj", "cls", "total")
SINGLE = ("p5_ota_smooth_focal", "p5_plain_wide_gr")
"""also compared in float32; to compile all of them twice takes long"""


@pytest.mark.shared
@pytest.mark.parametrize(("case", "dtype"), [(c, np.float64) for c in CASES] + [(c, np.float32) for c in SINGLE])
def test_loss_and_gradients_are_the_reference_s(recording, case, dtype):
    found = recording(case, dtype)
    with jax.enable_x64(dtype == np.float64):
        (loss, items), gradient = compiled(jax.value_and_grad(found.loss, has_aux=True))(found.outputs)
    # The reference computed in float32: 1e-5 is what it may lose itself.
    np.testing.assert_allclose([items[name] for name in ITEMS], found.arrays["items"], rtol=1e-5)
    np.testing.assert_allclose(loss, found.arrays["loss"][0], rtol=1e-5)
    expected = found.flat("grad", dtype)
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
    if found.config.assigner == "ota":
        assert items["positives"] == len(found.recorded_matches("lead"))


@pytest.mark.shared
@pytest.mark.parametrize(("case", "dtype"), [(c, np.float64) for c in CASES if "ota" in c] + [(SINGLE[0], np.float32)])
def test_positives_are_the_reference_s(recording, case, dtype):
    found = recording(case, dtype)
    top_k = 20 if found.has_aux else 10
    for name, some in {"lead": found.batch.fine, "aux": found.batch.coarse}.items():
        if some is not None:
            with jax.enable_x64(dtype == np.float64):
                assignment = assign_all(found.grid, top_k)(found.outputs.lead, found.batch, some)
            assert found.matches(assignment) == found.recorded_matches(name)


def assign_all(grid, top_k):
    one = jax.vmap(lambda *image: ota.OTA(top_k)(*image, grid))
    return compiled(lambda raw, batch, some: one(raw, batch.boxes_cxcywh_px, batch.class_ids, batch.valid, some))


ANCHORS = (((10, 10), (16, 12)), ((24, 24), (40, 30)), ((50, 60), (90, 70)))
STRIDES, SIZE, M, C = (8, 16, 32), (64, 96), 5, 3
GRID = make_grid(ANCHORS, STRIDES, SIZE)
CONFIG = LossConfig(box=0.05, obj=0.7, cls=0.3, obj_pw=1.5, cls_pw=0.5, label_smoothing=0.1, gr=0.75)


def make_batch(counts, *, seed=0, coarse=False):
    rng = np.random.default_rng(seed)
    boxes = np.c_[rng.uniform(0, 96, (len(counts) * M, 1)), rng.uniform(0, 64, (len(counts) * M, 1))]
    boxes = np.c_[boxes, rng.uniform(8, 60, (len(counts) * M, 2))].reshape(-1, M, 4).astype(np.float32)
    valid = np.arange(M) < np.array(counts)[:, None]
    class_ids = rng.integers(0, C, valid.shape).astype(np.int32)
    boxes[~valid], class_ids[~valid] = 0, 0
    options = {"anchors": ANCHORS, "strides": STRIDES, "image_size": SIZE, "anchor_t": 4.0}
    wide = stacked(boxes, valid, COARSE_NEIGHBOR_OFFSET, **options) if coarse else None
    return batch_of(boxes, class_ids, valid, stacked(boxes, valid, FINE_NEIGHBOR_OFFSET, **options), wide)


def make_raw(seed, *, B=2, classes=C, spread=1.0):
    return np.random.default_rng(seed).normal(0, spread, (B, len(GRID.stride), 5 + classes)).astype(np.float32)


def loss_of(raw, batch, config=CONFIG, **options):
    outputs = raw if isinstance(raw, Outputs) else Outputs(raw)
    return loss_with(config, has_aux=outputs.aux is not None)(outputs, batch, GRID, **options)


def measure(kind, a, b):
    """An overlap by the definition of its paper."""
    low = [min(p - s / 2, q - t / 2) for p, q, s, t in zip(a[:2], b[:2], a[2:], b[2:], strict=True)]
    high = [max(p + s / 2, q + t / 2) for p, q, s, t in zip(a[:2], b[:2], a[2:], b[2:], strict=True)]
    hull = [end - start for start, end in zip(low, high, strict=True)]
    union = (
        a[2] * a[3]
        + b[2] * b[3]
        - math.prod(shared := [max(0, s + t - whole) for s, t, whole in zip(a[2:], b[2:], hull, strict=True)])
    )
    iou = math.prod(shared) / (union + 1e-7)
    v = 4 / math.pi**2 * (math.atan(a[2] / a[3]) - math.atan(b[2] / b[3])) ** 2
    far = math.dist(a[:2], b[:2]) ** 2 / (math.hypot(*hull) ** 2 + 1e-7)
    less = {"iou": 0, "giou": 1 - union / math.prod(hull), "diou": far, "ciou": far + v * v / (v - iou + 1 + 1e-7)}
    return iou - less[kind]


def brute_force(raw, positives, batch, config, *, center_bound=0.5, balance=(4.0, 1.0, 0.4)):
    """The three items of one head without gains, one number at a time; positives: (prediction, box) of each image."""

    def cross_entropy(x, t, weight):
        return -weight * t * math.log(sigmoid(x)) - (1 - t) * math.log(1 - sigmoid(x))

    box, obj, cls = 0.0, 0.0, 0.0
    for level, share in zip(GRID.levels, balance, strict=True):
        targets = {(b, n): 0.0 for b in range(len(raw)) for n in range(level.start, level.stop)}
        boxes, classes = [], []
        for b, n, m in ((b, n, m) for b, image in enumerate(positives) for n, m in image):
            if (b, n) in targets:
                stride = GRID.stride[n]
                found = predicted_box(raw[b, n, :4], GRID.cell[n], stride, GRID.anchor_px[n], center_bound)
                value = measure(config.iou_type, [x / stride for x in found], batch.boxes_cxcywh_px[b, m] / stride)
                boxes.append(1 - value)
                targets[b, n] = max(targets[b, n], 1 - config.gr + config.gr * max(value, 0))
                smooth = [config.label_smoothing / 2] * C
                smooth[batch.class_ids[b, m]] = 1 - config.label_smoothing / 2
                classes += [cross_entropy(x, t, config.cls_pw) for x, t in zip(raw[b, n, 5:], smooth, strict=True)]
        box += float(np.mean(boxes)) if boxes else 0
        cls += float(np.mean(classes)) if boxes else 0
        obj += share * np.mean([cross_entropy(raw[b, n, 4], t, config.obj_pw) for (b, n), t in targets.items()])
    return np.array([box, obj, cls])


def chosen(head, some, batch, config, top_k, center_bound=0.5):
    """(prediction, box) of the positives of each image."""
    found = []
    for b in range(len(batch.valid)):
        mine = Candidates(some.index[b], some.valid[b])
        if config.assigner == "simple":
            found.append(simple_positives(mine))
        else:
            boxes = batch.boxes_cxcywh_px[b], batch.class_ids[b], batch.valid[b]
            settings = {"top_k": top_k, "iou_cost": config.iou_cost, "center_bound": center_bound}
            found.append(ota_positives(head[b].astype(float), *boxes, mine, GRID, **settings))
    return found


def expected_positives(lead, aux, batch, config):
    """Those of the lead and of the auxiliary head, as the paper's words have them."""
    top_k = config.aux_top_k if aux is not None and config.aux == "coarse_to_fine" else config.top_k
    first = chosen(lead, batch.fine, batch, config, top_k)
    if config.aux == "coarse_to_fine":
        return first, chosen(lead, batch.coarse, batch, config, top_k) if aux is not None else None
    if config.aux == "independent":
        return first, chosen(aux, batch.fine, batch, config, top_k, 0.5 if config.aux_center_bound else 1.0)
    return first, first


FORMS = {
    "no auxiliary head": {},
    "coarse to fine": {"aux": "coarse_to_fine"},
    "coarse to fine, numbers": {
        "top_k": 3,
        "aux_top_k": 13,
        "iou_cost": 1.5,
        "aux_weight": 0.5,
        "aux_center_bound": False,
    },
    "lead guided": {"aux": "lead_guided", "iou_type": "giou", "top_k": 7, "aux_top_k": 3},
    "lead guided, unbounded": {"aux": "lead_guided", "iou_type": "iou", "aux_center_bound": False},
    "independent": {"aux": "independent", "iou_type": "diou"},
    "independent, unbounded": {"aux": "independent", "aux_center_bound": False},
    "simple": {"assigner": "simple", "aux": "lead_guided"},
    "simple, coarse": {"assigner": "simple", "aux_center_bound": False},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_equals_brute_force(form):
    config = dataclasses.replace(CONFIG, **FORMS[form])
    batch = make_batch([5, 3], coarse=config.aux == "coarse_to_fine")
    raw, aux = make_raw(1), None if form == "no auxiliary head" else make_raw(2)
    loss, items = compiled(functools.partial(loss_of, config=config))(Outputs(raw, aux), batch)
    lead, other = expected_positives(raw, aux, batch, config)
    expected = brute_force(raw, lead, batch, config)
    if aux is not None:
        center_bound = 0.5 if config.aux_center_bound else 1.0
        expected += config.aux_weight * brute_force(aux, other, batch, config, center_bound=center_bound)
    expected *= config.box, config.obj, config.cls
    np.testing.assert_allclose([items[name] for name in ITEMS[:3]], expected, rtol=1e-5)  # float32
    np.testing.assert_allclose(items["total"], expected.sum(), rtol=1e-5)
    np.testing.assert_allclose(loss, 2 * expected.sum(), rtol=1e-5)
    counts = [sum(level.start <= n < level.stop for image in lead for n, _ in image) for level in GRID.levels]
    assert [items[f"positives_stride_{stride}"] for stride in STRIDES] == counts
    assert sum(counts) > 5
    if form == "simple":  # boxes meet in a prediction: its largest target counts
        assert len({n for n, _ in lead[0]}) < len(lead[0])


def test_forms_of_guidance_are_told_apart_by_the_case_they_are_tested_on():
    batch, raw, aux = make_batch([5, 3], coarse=True), make_raw(1), make_raw(2)
    forms = [dataclasses.replace(CONFIG, aux=kind) for kind in ("lead_guided", "independent", "coarse_to_fine")]
    same, own, coarse = (set(expected_positives(raw, aux, batch, form)[1][0]) for form in forms)
    assert same != own
    fine = set(batch.fine.index[0][batch.fine.valid[0]].tolist())
    assert {n for n, _ in same | own} <= fine
    assert not {n for n, _ in coarse} <= fine


def test_an_auxiliary_head_without_its_candidates_is_refused():
    with pytest.raises(InputError, match=r"loss\.aux"):
        jax.eval_shape(loss_of, Outputs(make_raw(1), make_raw(2)), make_batch([1, 1]))


def test_only_without_the_bound_can_a_head_say_a_center_a_whole_cell_away():
    # Stride 8: the center (15, 20) is 0.875 cells right of the cell (0, 2)'s right edge, which is a coarse candidate.
    boxes, class_ids, valid = np.float32([[[15, 20, 10, 10]]]), np.zeros((1, 1), np.int32), np.ones((1, 1), bool)
    n = next(i for i in range(GRID.levels[0].stop) if GRID.cell[i].tolist() == [0, 2] and GRID.anchor_px[i][0] == 10)
    one = Candidates(np.int32([[[n]]]), np.ones((1, 1, 1), bool))
    batch = batch_of(boxes, class_ids, valid, one, one)
    raw = np.zeros((1, len(GRID.stride), 5 + C), np.float32)
    raw[0, n, :2] = 50, 0
    best = {}
    for bound in (True, False):
        # The best there is: 1.5 is as far as the bounded center goes; σ = (1.875 + 1) / 3 says it exactly.
        raw[0, n, 0] = 50 if bound else np.log((1.875 + 1) / 3 / (1 - (1.875 + 1) / 3))
        config = dataclasses.replace(CONFIG, assigner="simple", aux_center_bound=bound, iou_type="iou", aux_weight=1.0)
        lead = np.zeros_like(raw)
        loss = compiled(functools.partial(loss_of, config=config))
        whole, alone = loss(Outputs(lead, raw), batch)[1]["box"], loss(Outputs(lead), batch)[1]["box"]
        best[bound] = float(whole - alone) / config.box
    np.testing.assert_allclose(best[False], 0, atol=1e-5)  # float32
    np.testing.assert_allclose(best[True], 1 - 7 / 13, rtol=1e-5)  # 3 of 10 pixels off


def test_level_weights_can_be_given():
    batch, raw = make_batch([4, 2]), make_raw(1)
    config = dataclasses.replace(CONFIG, assigner="simple")
    weights = np.float32([1.5, 1.0, 7.0])
    items = compiled(functools.partial(loss_of, config=config))(raw, batch, balance=weights)[1]
    lead, _ = expected_positives(raw, None, batch, config)
    expected = brute_force(raw, lead, batch, config, balance=weights)
    np.testing.assert_allclose(items["obj"] / config.obj, expected[1], rtol=1e-5)  # float32
    weighted = [items[f"objectness_stride_{s}"] * weight for s, weight in zip(STRIDES, weights, strict=True)]
    np.testing.assert_allclose(sum(weighted), expected[1], rtol=1e-5)


def test_level_weights_follow_the_losses():
    losses = np.float32([0.02, 0.05, 0.4])
    for strides, reference in (((8, 16, 32), 1), ((32, 64, 128), 0), ((4, 8, 16), 2)):
        moved = 0.9999 * np.array([4.0, 1.0, 0.4]) + 0.0001 / losses.astype(float)
        expected = moved / moved[reference]
        np.testing.assert_allclose(next_balance(jnp.asarray(first_balance(3)), losses, strides), expected, rtol=1e-6)
    assert np.isfinite(next_balance(jnp.asarray(first_balance(3)), np.float32([0, 0.1, 0.2]), (8, 16, 32))).all()


def largest_array(jaxpr):
    """Most elements of any array that a program makes, in loops and branches too."""
    inner = [one for equation in jaxpr.eqns for one in jaxprs_in_params(equation.params)]
    made = [var.aval.size for equation in jaxpr.eqns for var in equation.outvars if hasattr(var.aval, "size")]
    return max([0, *made, *map(largest_array, inner)])


@pytest.mark.parametrize("classes", [80, 1000])
@pytest.mark.parametrize("assigner", ["ota", "simple"])
@pytest.mark.parametrize("aux", ["coarse_to_fine", "lead_guided", "independent"])
def test_no_array_of_boxes_candidates_and_classes(aux, assigner, classes):
    crowd, fine, coarse, N = 2000, 3 * 6, 5 * 6, len(GRID.stride)
    shape = jax.ShapeDtypeStruct

    def some(K):
        return Candidates(shape((1, crowd, K), np.int32), shape((1, crowd, K), bool))

    boxes = shape((1, crowd, 4), np.float32), shape((1, crowd), np.int32), shape((1, crowd), bool)
    batch = Batch(None, *boxes, some(fine), some(coarse), None, None)
    raw = shape((1, N, 5 + classes), np.float32)
    config = dataclasses.replace(CONFIG, assigner=assigner, aux=aux, aux_center_bound=False)
    program = jax.make_jaxpr(jax.value_and_grad(functools.partial(loss_of, config=config), has_aux=True))
    bound = max(
        N * (5 + classes),  # the outputs
        4 * crowd * max(coarse, config.aux_top_k),  # a box for each slot
        crowd * (ota.BLOCK + config.aux_top_k),  # boxes and a block of candidates
        class_loss_module.CLASS_BLOCK * (5 + classes),  # a block of positives
    )
    assert largest_array(program(Outputs(raw, raw), batch).jaxpr) <= bound


value_and_slope = compiled(jax.value_and_grad(loss_of, has_aux=True), static_argnames="config")


def test_images_without_boxes_have_objectness_alone():
    (_, items), slope = value_and_slope(make_raw(0), make_batch([0, 0]))
    assert (items["box"], items["cls"], items["positives"]) == (0, 0, 0)
    assert items["obj"] > 0
    assert slope[..., 4].all()
    assert not np.delete(slope, 4, axis=-1).any()


def test_padding_does_not_matter():
    batch = make_batch([3, 2])
    full = make_batch([5, 5], seed=9)
    boxes = np.where(batch.valid[..., None], batch.boxes_cxcywh_px, full.boxes_cxcywh_px)
    filled = batch._replace(boxes_cxcywh_px=boxes, class_ids=np.where(batch.valid, batch.class_ids, full.class_ids))
    for ours, theirs in zip(*(jax.tree.leaves(value_and_slope(make_raw(0), b)) for b in (batch, filled)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("block", [1, 7, 10**4])  # whatever is computed at a time, it is all that there is
def test_classes_are_computed_in_blocks(block):
    raw, batch = make_raw(4), make_batch([5, 4])
    config = dataclasses.replace(CONFIG, assigner="simple")
    expected = value_and_slope(raw, batch, config=config)
    with patch.object(class_loss_module, "CLASS_BLOCK", block):
        found = compiled(jax.value_and_grad(functools.partial(loss_of, config=config), has_aux=True))(raw, batch)
    for ours, theirs in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)  # sums of float32 in another order


def test_a_positive_in_the_last_slot_counts_once():
    batch, raw = make_batch([M, M]), make_raw(7)
    valid = np.arange(M)[None, :] == [[M - 1], [0]]
    fine = Candidates(batch.fine.index[..., :1], batch.fine.valid[..., :1] & valid[..., None])
    batch, config = batch._replace(valid=valid, fine=fine), dataclasses.replace(CONFIG, assigner="simple")
    items = compiled(functools.partial(loss_of, config=config))(raw, batch)[1]
    lead, _ = expected_positives(raw, None, batch, config)
    expected = brute_force(raw, lead, batch, config)
    np.testing.assert_allclose(items["cls"] / config.cls, expected[2], rtol=1e-5)  # float32


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
    assert loss.dtype == items["total"].dtype == jnp.float32
    assert items["positives"].dtype == jnp.int32
    np.testing.assert_allclose(loss, value_and_slope(raw.astype(jnp.float32), batch)[0][0], rtol=1e-6)  # float32


def test_gains_of_a_run():
    recipe = LossConfig(box=0.05, obj=0.7, cls=0.3, gr=0.5)
    assert scaled_gains(recipe, levels=3, num_classes=80, size=640) == recipe
    scaled = scaled_gains(recipe, levels=4, num_classes=20, size=1280)
    np.testing.assert_allclose((scaled.box, scaled.obj, scaled.cls), (0.0375, 2.1, 0.05625), rtol=1e-12)  # by hand
    assert scaled.gr == 0.5


def test_derivatives_of_both_modes_are_those_of_differences():
    """Without the targets and weights that the loss holds constant: gr 0, plain IoU, an assigner without a cost."""
    rng = np.random.default_rng(8)
    batch = make_batch([5, 4])
    config = dataclasses.replace(CONFIG, assigner="simple", iou_type="iou", gr=0.0)
    with jax.enable_x64(True):
        raw, direction = (rng.normal(size=make_raw(0).shape) for _ in range(2))

        def loss(raw):
            return loss_of(raw, batch, config=config)[0]

        def along(function, step=1e-5):
            return (function(raw + step * direction) - function(raw - step * direction)) / (2 * step)

        slope = compiled(lambda raw, to: jax.jvp(loss, (raw,), (to,))[1])(raw, direction)
        product = compiled(lambda raw, to: jax.jvp(jax.grad(loss), (raw,), (to,))[1])(raw, direction)
        gradient = compiled(jax.grad(loss))
        np.testing.assert_allclose(slope, (gradient(raw) * direction).sum(), rtol=1e-12)  # sums in another order
        np.testing.assert_allclose(slope, along(compiled(loss)), rtol=1e-8)  # differences of step 1e-5
        np.testing.assert_allclose(product, along(gradient), rtol=1e-6, atol=1e-8)
