"""The assignment as the paper and its facts have it, read aloud in plain Python."""

import math


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def predicted_box(logits, cell, stride, anchor_px, center_bound):
    """(cx, cy, w, h) in pixels; center_bound 0.5: center 2σ - 0.5, center_bound 1: center 3σ - 1."""
    x, y, w, h = map(sigmoid, logits)
    x, y = {0.5: (2 * x - 0.5, 2 * y - 0.5), 1.0: (3 * x - 1, 3 * y - 1)}[center_bound]
    return (x + cell[0]) * stride, (y + cell[1]) * stride, (2 * w) ** 2 * anchor_px[0], (2 * h) ** 2 * anchor_px[1]


def iou(a, b):
    sides = []
    for axis in (0, 1):
        low = max(a[axis] - a[axis + 2] / 2, b[axis] - b[axis + 2] / 2)
        high = min(a[axis] + a[axis + 2] / 2, b[axis] + b[axis + 2] / 2)
        sides.append(max(0, high - low))
    shared = sides[0] * sides[1]
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def ota_positives(raw, boxes, class_ids, valid, some, grid, *, top_k=10, iou_cost=3.0, center_bound=0.5):
    """(prediction, box) of every positive of one image."""

    def predicted(n):
        return predicted_box(raw[n, :4], grid.cell[n], grid.stride[n], grid.anchor_px[n], center_bound)

    def cost(m, n):
        total = -iou_cost * math.log(iou(boxes[m], predicted(n)) + 1e-8)
        for c, logit in enumerate(raw[n, 5:]):
            y = math.sqrt(sigmoid(logit) * sigmoid(raw[n, 4]))
            total -= math.log(y if c == class_ids[m] else 1 - y)
        return total

    found = [n for _, n in simple_order(some)]
    present = [m for m in range(len(valid)) if valid[m]]
    costs = {m: [cost(m, n) for n in found] for m in present}
    takers = {}
    for m in present:
        largest = sorted((iou(boxes[m], predicted(n)) for n in found), reverse=True)[:top_k]
        k = max(1, int(sum(largest)))
        for i in sorted(range(len(found)), key=costs[m].__getitem__)[:k]:
            takers.setdefault(i, []).append(m)
    return [
        (found[i], mine[0] if len(mine) == 1 else min(present, key=lambda m, i=i: costs[m][i]))
        for i, mine in takers.items()
    ]


def simple_order(some):
    return [(m, int(n)) for m in range(len(some.index)) for n in some.index[m][some.valid[m]]]


def simple_positives(some):
    """(prediction, box) of every positive of one image."""
    return [(n, m) for m, n in simple_order(some)]
